/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A shard with both dataplanes: every call goes to one of two planes, found by the top bit of the
 * flow's index, which the pair adds to the handles of `host` and takes away again.
 *
 * The wire is polled in every turn. The host costs a system call, so it is polled at most every
 * HOST_POLL_TIME and only while it has flows; what it waits for in earnest (a ring's eventfd, a
 * disk's) is looked at by the shard itself, and ends the sleep because both planes sleep in the
 * host's.
 *
 * Idle turns, adaptive: the pair spins for SPIN_TIME after the last frame or event, then sleeps
 * SLEEP_MIN, twice as long each time, up to SLEEP_MAX: frames that arrive meanwhile wait in the
 * port's queue, so SLEEP_MAX times the line rate must fit there. After QUIET_TIME with nothing at
 * all it is SLEEP_QUIET: what begins then begins with handshakes. Deadlines are kept to the
 * microsecond of the kernel's timer.
 *
 * Invariants
 *   1. A handle of the host has HOST_BIT set, one of the wire never (both count far below it).
 *   2. Both planes share a pool, so a slice may move from any flow to any other.
 */
#include "dataplane/flow_pair.h"

#include <stdlib.h>

#define HOST_BIT       (1u << 31)
#define HOST_POLL_TIME 50u
#define SPIN_TIME      200u
#define SLEEP_MIN      50u
#define SLEEP_MAX      1000u
#define QUIET_TIME     TICK_S(1)
#define SLEEP_QUIET    2000u

struct pair {
    struct flow_plane plane; /* first */
    struct flow_plane *host, *wire;
    struct flow_prefix *kernel;
    uint32_t kernel_count;
    enum flow_pair_poll poll;
    uint64_t (*received)(struct flow_plane *wire);
    void (*turn)(void *context);
    void *context;
    uint64_t received_last;
    bool is_host_used; /* false: it has neither flows nor orphans */
    tick_us host_polled, active, sleep;
};

static struct pair *pair_of(struct flow_plane *plane)
{
    return (struct pair *)(void *)plane;
}

/* The plane of a handle, and the handle as that plane knows it. */
static struct flow_plane *part_of(struct flow_plane *plane, struct flow *flow)
{
    struct pair *pair = pair_of(plane);

    if (!(flow->index & HOST_BIT))
        return pair->wire;
    flow->index &= ~HOST_BIT;
    return pair->host;
}

/* ---- which plane serves an address ---- */

static bool address_is_loopback(const struct flow_address *address)
{
    static const uint8_t loopback6[16] = {[15] = 1};

    if (address->family == FLOW_FAMILY_IP4)
        return address->ip[0] == 127;
    return memcmp(address->ip, loopback6, sizeof(loopback6)) == 0;
}

bool flow_pair_is_host(const struct flow_prefix *kernel, uint32_t kernel_count,
                       const struct flow_address *address)
{
    if (address->family == FLOW_FAMILY_UNIX || address_is_loopback(address))
        return true;
    for (uint32_t i = 0; i < kernel_count; i++) {
        if (flow_prefix_contains(&kernel[i], address))
            return true;
    }
    return false;
}

static bool is_host(const struct pair *pair, const struct flow_address *address)
{
    return flow_pair_is_host(pair->kernel, pair->kernel_count, address);
}

static enum err opened(struct pair *pair, bool is_hosts, enum err err, struct flow *ret_flow)
{
    if (err == ERR_OK && is_hosts) {
        CHECK(!(ret_flow->index & HOST_BIT));
        ret_flow->index |= HOST_BIT;
        pair->is_host_used = true;
    }
    return err;
}

static enum err pair_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                            struct flow *ret_flow)
{
    struct pair *pair = pair_of(plane);
    bool is_hosts = is_host(pair, &options->address);

    return opened(pair, is_hosts,
                  flow_listen(is_hosts ? pair->host : pair->wire, options, ret_flow), ret_flow);
}

static enum err pair_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                             struct flow *ret_flow)
{
    struct pair *pair = pair_of(plane);
    bool is_hosts = is_host(pair, &options->remote);

    return opened(pair, is_hosts,
                  flow_connect(is_hosts ? pair->host : pair->wire, options, ret_flow), ret_flow);
}

static enum err pair_open_datagram(struct flow_plane *plane, const struct flow_address *local,
                                   const struct flow_address *remote, uint64_t user,
                                   struct flow *ret_flow)
{
    struct pair *pair = pair_of(plane);
    bool is_hosts = is_host(pair, remote);

    return opened(
        pair, is_hosts,
        flow_open_datagram(is_hosts ? pair->host : pair->wire, local, remote, user, ret_flow),
        ret_flow);
}

static enum err pair_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                            struct flow *ret_flow, struct flow_address *ret_peer)
{
    struct flow_plane *part = part_of(plane, &listener);

    return opened(pair_of(plane), part == pair_of(plane)->host,
                  flow_accept(part, listener, user, ret_flow, ret_peer), ret_flow);
}

/* ---- calls on a flow ---- */

static enum err pair_refuse(struct flow_plane *plane, struct flow listener)
{
    struct flow_plane *part = part_of(plane, &listener);
    return flow_refuse(part, listener);
}

static enum err pair_send_datagram(struct flow_plane *plane, struct flow flow, struct span octets)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_send_datagram(part, flow, octets);
}

static enum err pair_receive_datagram(struct flow_plane *plane, struct flow flow,
                                      struct flow_address *ret_from, struct span *ret_octets)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_receive_datagram(part, flow, ret_from, ret_octets);
}

static void pair_set_user(struct flow_plane *plane, struct flow flow, uint64_t user)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_set_user(part, flow, user);
}

static enum err pair_error(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_error(part, flow);
}

static enum err pair_addresses(struct flow_plane *plane, struct flow flow,
                               struct flow_address *ret_local, struct flow_address *ret_peer)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_addresses(part, flow, ret_local, ret_peer);
}

static uint32_t pair_readable(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_readable(part, flow);
}

static uint32_t pair_peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                          uint32_t max)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_peek(part, flow, ret_spans, max);
}

static struct span pair_pull(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_pull(part, flow, size);
}

static void pair_consume(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_consume(part, flow, size);
}

static void pair_take(struct flow_plane *plane, struct flow flow, uint32_t size,
                      struct buf_queue *into)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_take(part, flow, size, into);
}

static void pair_credit(struct flow_plane *plane, struct flow flow, uint64_t charge)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_credit(part, flow, charge);
}

static void pair_append(struct flow_plane *plane, struct flow flow, struct buf_queue *octets)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_append(part, flow, octets);
}

static struct span_mut pair_reserve(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_reserve(part, flow, size);
}

static void pair_commit(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_commit(part, flow, size);
}

static uint64_t pair_unsent(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_unsent(part, flow);
}

static uint64_t pair_pending(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    return flow_pending(part, flow);
}

static void pair_cork(struct flow_plane *plane, struct flow flow, bool is_corked)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_cork(part, flow, is_corked);
}

static void pair_push(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_push(part, flow);
}

static void pair_want(struct flow_plane *plane, struct flow flow, uint32_t events)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_want(part, flow, events);
}

static void pair_shutdown(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_shutdown(part, flow);
}

static void pair_close(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_close(part, flow);
}

static void pair_abort(struct flow_plane *plane, struct flow flow)
{
    struct flow_plane *part = part_of(plane, &flow);
    flow_abort(part, flow);
}

/* ---- the turn ---- */

static bool host_has_flows(struct pair *pair)
{
    struct flow_stats stats = flow_plane_stats(pair->host);

    return stats.flows > 0 || stats.orphans > 0;
}

static uint32_t host_poll(struct pair *pair, tick_us now, struct flow_event *ret_events,
                          uint32_t max)
{
    if (max == 0 || !pair->is_host_used || now < pair->host_polled + HOST_POLL_TIME)
        return 0;
    pair->is_host_used = host_has_flows(pair);
    if (!pair->is_host_used)
        return 0;
    pair->host_polled = now;
    uint32_t count = flow_poll(pair->host, now, ret_events, max);
    for (uint32_t i = 0; i < count; i++)
        ret_events[i].flow.index |= HOST_BIT;
    /* There may be more: the next turn asks again. */
    if (count > 0)
        pair->host_polled = now - HOST_POLL_TIME;
    return count;
}

static uint32_t pair_poll(struct flow_plane *plane, tick_us now, struct flow_event *ret_events,
                          uint32_t max)
{
    struct pair *pair = pair_of(plane);

    if (pair->turn != NULL)
        pair->turn(pair->context);
    /* A quarter is the host's, so that a busy wire cannot starve it. */
    uint32_t count = host_poll(pair, now, ret_events, (max + 3) / 4);

    count += flow_poll(pair->wire, now, ret_events + count, max - count);
    uint64_t received = pair->received(pair->wire);
    if (count > 0 || received != pair->received_last) {
        pair->received_last = received;
        pair->active = now;
        pair->sleep = SLEEP_MIN;
    }
    return count;
}

static void pair_flush(struct flow_plane *plane, tick_us now)
{
    struct pair *pair = pair_of(plane);

    flow_flush(pair->wire, now);
    if (pair->is_host_used)
        flow_flush(pair->host, now);
}

static tick_us pair_deadline(struct flow_plane *plane)
{
    struct pair *pair = pair_of(plane);
    tick_us wire = flow_deadline(pair->wire), host = flow_deadline(pair->host);

    return wire < host ? wire : host;
}

static bool pair_spins(struct flow_plane *plane, tick_us now)
{
    const struct pair *pair = pair_of(plane);

    return pair->poll == FLOW_PAIR_BUSY || now < pair->active + SPIN_TIME;
}

static void pair_wait(struct flow_plane *plane, tick_us now, tick_us deadline)
{
    struct pair *pair = pair_of(plane);
    tick_us until = pair_spins(plane, now) ? now : pair_deadline(plane);

    until = deadline < until ? deadline : until;
    if (until <= now) {
        __builtin_ia32_pause();
        return;
    }
    tick_us sleep = until - now < pair->sleep ? until - now : pair->sleep;
    tick_us longest = now < pair->active + QUIET_TIME ? SLEEP_MAX : SLEEP_QUIET;
    pair->sleep = pair->sleep * 2 < longest ? pair->sleep * 2 : longest;
    flow_wait(pair->host, now, now + sleep);
    pair->host_polled = 0; /* what ended the sleep may be the host's */
}

static enum err pair_watch(struct flow_plane *plane, int fd)
{
    return flow_watch(pair_of(plane)->host, fd);
}

static struct flow_stats pair_stats(struct flow_plane *plane)
{
    struct pair *pair = pair_of(plane);
    struct flow_stats sum = flow_plane_stats(pair->wire), host = flow_plane_stats(pair->host);

    sum.accepted += host.accepted;
    sum.refused += host.refused;
    sum.connected += host.connected;
    sum.connect_failed += host.connect_failed;
    sum.resets += host.resets;
    sum.octets_received += host.octets_received;
    sum.octets_sent += host.octets_sent;
    sum.datagrams_received += host.datagrams_received;
    sum.datagrams_sent += host.datagrams_sent;
    sum.datagrams_dropped += host.datagrams_dropped;
    sum.copies += host.copies;
    sum.copied_octets += host.copied_octets;
#define X(name, meaning) sum.copied.name += host.copied.name;
    FLOW_COPIED_X(X)
#undef X
    sum.syscalls += host.syscalls;
    sum.flows += host.flows;
    sum.orphans += host.orphans;
    return sum;
}

static void pair_free(struct flow_plane *plane)
{
    struct pair *pair = pair_of(plane);

    flow_plane_free(pair->host);
    flow_plane_free(pair->wire);
    free(pair->kernel);
    free(pair);
}

static const struct flow_ops pair_ops = {
    .listen = pair_listen,
    .accept = pair_accept,
    .refuse = pair_refuse,
    .connect = pair_connect,
    .open_datagram = pair_open_datagram,
    .send_datagram = pair_send_datagram,
    .receive_datagram = pair_receive_datagram,
    .set_user = pair_set_user,
    .error = pair_error,
    .addresses = pair_addresses,
    .readable = pair_readable,
    .peek = pair_peek,
    .pull = pair_pull,
    .consume = pair_consume,
    .take = pair_take,
    .credit = pair_credit,
    .append = pair_append,
    .reserve = pair_reserve,
    .commit = pair_commit,
    .unsent = pair_unsent,
    .pending = pair_pending,
    .cork = pair_cork,
    .push = pair_push,
    .want = pair_want,
    .shutdown = pair_shutdown,
    .close = pair_close,
    .abort = pair_abort,
    .poll = pair_poll,
    .flush = pair_flush,
    .deadline = pair_deadline,
    .wait = pair_wait,
    .spins = pair_spins,
    .watch = pair_watch,
    .stats = pair_stats,
    .free = pair_free,
};

struct flow_plane *flow_pair_new(const struct flow_pair_options *options)
{
    struct pair *pair = calloc(1, sizeof(*pair));

    CHECK(pair != NULL);
    CHECK(options->host->pool == options->wire->pool && options->received != NULL);
    *pair = (struct pair){.plane = {.ops = &pair_ops, .pool = options->wire->pool},
                          .host = options->host,
                          .wire = options->wire,
                          .kernel_count = options->kernel_count,
                          .poll = options->poll,
                          .received = options->received,
                          .turn = options->turn,
                          .context = options->context,
                          .sleep = SLEEP_MIN};
    pair->kernel = calloc(options->kernel_count + 1, sizeof(*pair->kernel));
    CHECK(pair->kernel != NULL);
    for (uint32_t i = 0; i < options->kernel_count; i++)
        pair->kernel[i] = options->kernel[i];
    return &pair->plane;
}

struct flow_plane *flow_pair_wire(struct flow_plane *pair)
{
    return pair->ops == &pair_ops ? pair_of(pair)->wire : NULL;
}

void *flow_pair_context(struct flow_plane *pair)
{
    CHECK(pair->ops == &pair_ops);
    return pair_of(pair)->context;
}
