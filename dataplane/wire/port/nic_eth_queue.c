/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One queue pair of a port as a struct nic: frames in, frames out, and frames passed between the
 * shards of a port.
 *
 * Passing: a ring for each ordered pair of queues, one producer and one consumer each. The frame
 * comes from the passing shard's pool; the taking one copies it into a buffer of its own and gives
 * the original back, past its own mempool cache. Otherwise mail kept by one shard would empty the
 * receive pool of another, and each cache would keep some of every pool. A copy is cheaper than
 * that, and passing is for ports without RSS, and for the few frames that RSS cannot place.
 *
 * Invariants
 *   1. What rte_eth_tx_burst() did not take stays the caller's, in order. A frame that the driver
 *      would never take is ours: it is dropped and counted, so that it does not hold up the rest.
 *   2. Only frames of mempools are sent: the driver frees them.
 *   3. passes[from * count + to] is written by `from`'s shard and read by `to`'s.
 *
 * No call blocks, allocates or makes a system call, but for what drivers do (nic_eth_driver.c).
 */
#define RTE_USE_C11_MEM_MODEL 1

#include <rte_mbuf.h>
#include <stdlib.h>

#include "base/buf_pool.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/nic_eth_internal.h"

#define LINE         64u
#define INJECT_BURST 16u

/* A counter that one thread writes and others may read. */
static inline void count_by(uint64_t *counter, uint64_t amount)
{
    __atomic_store_n(counter, *counter + amount, __ATOMIC_RELAXED);
}

static struct rte_mbuf **to_mbufs(struct buf **frames)
{
    return (struct rte_mbuf **)(void *)frames;
}

/* ---- the driver ---- */

static uint32_t receive_burst(struct nic_eth *self, struct buf **ret_frames, uint32_t max)
{
    const struct nic_eth_port *port = self->port;
    uint16_t count = 0;

    if (port->is_gated && !gate_enter(&self->seat))
        return 0;
    count = rte_eth_rx_burst(port->id, self->queue, to_mbufs(ret_frames), (uint16_t)max);
    if (port->is_gated)
        gate_leave(&self->seat);
    return count;
}

static uint32_t send_burst(struct nic_eth *self, struct buf **frames, uint32_t count)
{
    const struct nic_eth_port *port = self->port;

    if (port->is_gated && !gate_enter(&self->seat))
        return 0;
    uint32_t sent = rte_eth_tx_burst(port->id, self->queue, to_mbufs(frames), (uint16_t)count);
    if (port->is_gated)
        gate_leave(&self->seat);
    return sent;
}

/* ---- receive ---- */

/* A copy out of our own pool; NULL: none left. */
static struct buf *take_copy(struct nic_eth *self, struct rte_mbuf *frame)
{
    struct rte_mbuf *copy = rte_pktmbuf_copy(frame, self->mempool, 0, UINT32_MAX);

    return (struct buf *)(void *)copy;
}

static uint32_t take_from(struct nic_eth *self, struct rte_ring *ring, struct buf **ret_frames,
                          uint32_t max)
{
    struct buf *passed[NIC_BURST];
    uint32_t taken = 0;

    if (max > NIC_BURST)
        max = NIC_BURST;
    uint32_t count = rte_ring_sc_dequeue_burst(ring, (void **)passed, max, NULL);
    for (uint32_t i = 0; i < count; i++) {
        struct buf *copy = take_copy(self, (struct rte_mbuf *)(void *)passed[i]);

        if (copy != NULL)
            ret_frames[taken++] = copy;
        buf_mempool_give_back(passed[i]);
    }
    count_by(&self->stats.taken, taken);
    count_by(&self->stats.take_dropped, count - taken);
    return taken;
}

/* What other queues' shards passed to this one. */
static uint32_t take(struct nic_eth *self, struct buf **ret_frames, uint32_t max)
{
    const struct nic_eth_port *port = self->port;
    uint32_t taken = 0;

    for (uint32_t from = 0; from < port->queue_count && taken < max; from++) {
        struct rte_ring *ring = port->passes[from * port->queue_count + self->queue];

        if (ring != NULL && rte_ring_count(ring) > 0)
            taken += take_from(self, ring, ret_frames + taken, max - taken);
    }
    return taken;
}

/* What the kernel wants to have sent; what finds no room is dropped, as everywhere in a network. */
static void inject(struct nic_eth *self)
{
    struct buf *frames[INJECT_BURST];
    uint32_t count = exception_receive(self->port->exception, frames, INJECT_BURST);

    if (count == 0)
        return;
    uint32_t sent = send_burst(self, frames, count);
    for (uint32_t i = sent; i < count; i++)
        buf_mempool_give_back(frames[i]);
}

static uint32_t nic_eth_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct nic_eth *self = nic_eth_of(nic);
    const struct nic_eth_port *port = self->port;
    uint32_t taken = 0;

    (void)now;
    CHECK(max > 0 && max <= UINT16_MAX);
    /* Half for what was passed: neither way in may starve the other. */
    if (port->passes != NULL)
        taken = take(self, ret_frames, (max + 1) / 2);
    if (self->queue == 0 && port->exception != NULL)
        inject(self);
    if (taken == max)
        return taken;
    uint32_t count = receive_burst(self, ret_frames + taken, max - taken);
    if (count == 0)
        return taken;
    count_by(&self->stats.received, count);
    if (port->has_no_checksums) {
        for (uint32_t i = 0; i < count; i++)
            ret_frames[taken + i]->mbuf.ol_flags |=
                RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    }
    if (self->is_judged)
        nic_eth_rss_judge(self, ret_frames + taken, count);
    return taken + count;
}

/* ---- send ---- */

/* Drivers answer a frame they cannot send by taking none any more. */
static bool is_possible(const struct nic_eth_port *port, const struct buf *frame)
{
    CHECK(!buf_is_tagged(frame)); /* invariant 2 */
    bool is_tso = (frame->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG) != 0;

    return frame->mbuf.pkt_len >= RTE_ETHER_HDR_LEN &&
           (is_tso || frame->mbuf.pkt_len <= port->frame_max);
}

/* Frames from the first on that may be offered to the driver. */
static uint32_t count_possible(struct nic_eth *self, struct buf **frames, uint32_t count)
{
    const struct nic_eth_port *port = self->port;
    uint32_t possible = 0;

    while (possible < count && is_possible(port, frames[possible]))
        possible++;
    if (port->needs_prepare && possible > 0)
        possible = rte_eth_tx_prepare(port->id, self->queue, to_mbufs(frames), (uint16_t)possible);
    return possible;
}

static uint32_t nic_eth_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    struct nic_eth *self = nic_eth_of(nic);
    uint32_t done = 0;

    (void)now;
    CHECK(count <= UINT16_MAX);
    while (done < count) {
        uint32_t possible = count_possible(self, frames + done, count - done);
        uint32_t sent = send_burst(self, frames + done, possible);

        done += sent;
        count_by(&self->stats.sent, sent);
        if (sent < possible) {
            count_by(&self->stats.send_full, count - done);
            break;
        }
        if (done < count) {
            buf_release_chain(frames[done++]);
            count_by(&self->stats.send_invalid, 1);
        }
    }
    return done;
}

/* ---- elsewhere ---- */

static void nic_eth_pass(struct nic *nic, uint16_t queue, struct buf *frame)
{
    struct nic_eth *self = nic_eth_of(nic);
    const struct nic_eth_port *port = self->port;

    CHECK(queue < port->queue_count && queue != self->queue);
    struct rte_ring *ring = port->passes[self->queue * port->queue_count + queue];
    if (rte_ring_sp_enqueue(ring, frame) == 0) {
        count_by(&self->stats.passed, 1);
        return;
    }
    buf_release_chain(frame);
    count_by(&self->stats.pass_dropped, 1);
}

static void nic_eth_except(struct nic *nic, struct buf *frame)
{
    struct nic_eth *self = nic_eth_of(nic);

    if (exception_send(self->port->exception, self->queue, frame))
        return;
    buf_release_chain(frame);
    count_by(&self->stats.except_dropped, 1);
}

static void nic_eth_free(struct nic *nic)
{
    struct nic_eth *self = nic_eth_of(nic);

    CHECK(self->is_out);
    self->is_out = false;
}

static const struct nic_ops ops = {
    .receive = nic_eth_receive,
    .send = nic_eth_send,
    .pass = nic_eth_pass,
    .free = nic_eth_free,
};
static const struct nic_ops ops_with_exception = {
    .receive = nic_eth_receive,
    .send = nic_eth_send,
    .pass = nic_eth_pass,
    .except = nic_eth_except,
    .free = nic_eth_free,
};

struct nic_eth_queue_stats nic_eth_queue_stats(const struct nic *nic)
{
    const struct nic_eth *self = (const struct nic_eth *)(const void *)nic;
    const uint64_t *from = (const uint64_t *)(const void *)&self->stats;
    struct nic_eth_queue_stats stats;
    uint64_t *to = (uint64_t *)(void *)&stats;

    for (uint32_t i = 0; i < sizeof(stats) / sizeof(*to); i++)
        to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    return stats;
}

/* ---- start and end ---- */

static void *allocate(size_t size)
{
    size_t whole = (size + LINE - 1) / LINE * LINE;
    void *memory = aligned_alloc(LINE, whole);

    CHECK(memory != NULL);
    memset(memory, 0, whole);
    return memory;
}

static struct rte_ring *pass_ring_new(void)
{
    ssize_t size = rte_ring_get_memsize(NIC_ETH_PASS_SLOTS);

    CHECK(size > 0);
    struct rte_ring *ring = allocate((size_t)size);
    CHECK(rte_ring_init(ring, "pass", NIC_ETH_PASS_SLOTS, RING_F_SP_ENQ | RING_F_SC_DEQ) == 0);
    return ring;
}

static void passes_new(struct nic_eth_port *port)
{
    uint32_t count = port->queue_count;

    port->passes = calloc((size_t)count * count, sizeof(*port->passes));
    CHECK(port->passes != NULL);
    for (uint32_t i = 0; i < count * count; i++)
        port->passes[i] = i / count != i % count ? pass_ring_new() : NULL;
}

static void passes_free(struct nic_eth_port *port)
{
    uint32_t count = port->queue_count;

    for (uint32_t i = 0; port->passes != NULL && i < count * count; i++) {
        void *frame = NULL;

        while (port->passes[i] != NULL && rte_ring_sc_dequeue(port->passes[i], &frame) == 0)
            buf_mempool_give_back(frame);
        free(port->passes[i]);
    }
    free(port->passes);
}

void nic_eth_queues_init(struct nic_eth_port *port, struct buf_pool *const *pools)
{
    port->queues = allocate(port->queue_count * sizeof(*port->queues));
    for (uint16_t i = 0; i < port->queue_count; i++) {
        port->queues[i].nic.ops = &ops;
        port->queues[i].port = port;
        port->queues[i].queue = i;
        port->queues[i].pool = pools[i];
        port->queues[i].mempool = buf_pool_mempool(pools[i]);
    }
    if (port->queue_count > 1)
        passes_new(port);
}

void nic_eth_queues_gate(struct nic_eth_port *port)
{
    for (uint32_t i = 0; port->is_gated && i < port->queue_count; i++)
        gate_add(&port->queues[i].seat, port->id);
}

void nic_eth_queues_except(struct nic_eth_port *port)
{
    for (uint32_t i = 0; i < port->queue_count; i++)
        port->queues[i].nic.ops = &ops_with_exception;
}

void nic_eth_queues_fini(struct nic_eth_port *port)
{
    for (uint32_t i = 0; i < port->queue_count; i++) {
        CHECK(!port->queues[i].is_out);
        gate_remove(&port->queues[i].seat);
    }
    passes_free(port);
    free(port->queues);
}
