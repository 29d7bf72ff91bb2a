/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A real port: two processes with a net_memif between them. This one is the server and sends
 * frames of every kind; its child is the client and sends each back after a look at its octets.
 * Needs neither privilege nor huge pages; `test_nic_eth huge` uses huge pages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <fcntl.h>
#include <rte_ethdev.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/nic_eth.h"
#include "death.h"

#define TEST_TYPE    0x88b5u /* IEEE 802: for experiments */
#define FRAME_HEAD   20u     /* Ethernet, sequence number, size */
#define LAST         UINT32_MAX
#define TIME_MAX     TICK_S(30)
#define POOL_SIZE    2048u
#define WINDOW       200u /* frames on their way */
#define HEADER_POOL  512u
#define CLONE_POOL   1024u
#define PAYLOAD_SIZE 4096u
#define MEMORY_MB    96u

/* Both processes go through these in order. */
struct link {
    const char *name;
    const char *arguments;
    uint16_t mtu, queue_count;
    uint32_t data_size;
    uint32_t frame_count; /* per queue */
    uint32_t mtu_max;     /* what the port must say */
    bool has_no_checksums;
};
static const struct link links[] = {
    {"usual", "", 0, 1, 2048, 1000, 1500, false},
    {"jumbo", "", 9000, 1, 9216, 300, 9000, false},
    {"two queues", ",rsize=8", 1500, 2, 2048, 500, 1500, false},
    {"no checksums", "", 0, 1, 2048, 1000, 1500, true},
};

static char folder[] = "/tmp/test_nic_eth.XXXXXX";

static tick_us now_read(void)
{
    const struct tick_source *source = tick_source_system();

    return source->monotonic(source->context);
}

/* Both ends poll; on a machine with few processors the other one may want this. */
static void rest_if(bool is_idle)
{
    if (is_idle)
        usleep(50);
}

/* ---- frames ---- */

static uint8_t octet_of(uint32_t sequence, uint32_t index)
{
    return (uint8_t)(sequence * 31 + index * 7 + (index >> 8));
}

static void frame_fill(uint8_t *octets, uint32_t sequence, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        octets[i] = octet_of(sequence, i);
    memset(octets, 0x02, 12);
    octets[12] = TEST_TYPE >> 8;
    octets[13] = TEST_TYPE & 0xff;
    memcpy(octets + 14, &sequence, 4);
    octets[18] = (uint8_t)(size >> 8);
    octets[19] = (uint8_t)size;
}

/* NULL, or what is wrong. */
static const char *frame_fault(const struct buf *frame, uint32_t *ret_sequence)
{
    uint8_t octets[16384];
    uint32_t size = 0;

    for (const struct rte_mbuf *at = &frame->mbuf; at != NULL; at = at->next) {
        if (size + at->data_len > sizeof(octets))
            return "too long";
        memcpy(octets + size, (const uint8_t *)at->buf_addr + at->data_off, at->data_len);
        size += at->data_len;
    }
    if (size != frame->mbuf.pkt_len)
        return "pkt_len";
    if (size < FRAME_HEAD || size != (uint32_t)(octets[18] << 8 | octets[19]))
        return "size";
    memcpy(ret_sequence, octets + 14, 4);
    for (uint32_t i = FRAME_HEAD; i < size; i++)
        if (octets[i] != octet_of(*ret_sequence, i))
            return "octets";
    return NULL;
}

static bool is_ours(const struct buf *frame)
{
    return buf_size(frame) >= 14 && buf_data(frame)[12] == TEST_TYPE >> 8 &&
           buf_data(frame)[13] == (TEST_TYPE & 0xff);
}

/* ---- both ends ---- */

struct end {
    struct buf_pool *pools[2];
    struct nic_eth_port *port;
    struct nic *nics[2];
    uint32_t queue_count;
};

static bool end_open(struct end *end, const struct link *link, bool is_server)
{
    char device[256], error[NIC_ETH_ERROR_SIZE], pool_name[16];
    struct nic_eth_options options = {
        .device = device,
        .queue_count = link->queue_count,
        .pools = end->pools,
        .mtu = link->mtu,
        .offloads = NIC_ETH_OFFLOADS_AUTO,
        .has_no_checksums = link->has_no_checksums,
        .connect_time = TIME_MAX,
    };

    *end = (struct end){.queue_count = link->queue_count};
    for (uint32_t i = 0; i < link->queue_count; i++) {
        snprintf(pool_name, sizeof(pool_name), "receive-%u", i);
        if (buf_pool_new_on_mempool(pool_name, POOL_SIZE, link->data_size, BUF_MEMPOOL_ANY_NODE,
                                    &end->pools[i]) != ERR_OK)
            return false;
    }
    snprintf(device, sizeof(device), "net_memif0,role=%s,socket=%s/%s,socket-abstract=no%s",
             is_server ? "server" : "client", folder, link->name, link->arguments);
    enum err err = nic_eth_port_new(&options, &end->port, error);
    if (err != ERR_OK) {
        print_message("# %s: %s: %s\n", link->name, err_name(err), error);
        return false;
    }
    for (uint16_t i = 0; i < link->queue_count; i++)
        end->nics[i] = nic_eth_queue(end->port, i);
    return true;
}

/* False if a buffer is missing. */
static bool end_close(struct end *end)
{
    bool is_whole = true;

    for (uint32_t i = 0; i < end->queue_count; i++)
        if (end->nics[i] != NULL)
            nic_free(end->nics[i]);
    nic_eth_port_free(end->port);
    for (uint32_t i = 0; i < end->queue_count; i++) {
        is_whole &= buf_pool_in_use(end->pools[i]) == 0;
        if (is_whole)
            buf_pool_free(end->pools[i]);
    }
    return is_whole;
}

static bool send_one(struct nic *nic, struct buf *frame)
{
    tick_us deadline = now_read() + TIME_MAX;

    while (now_read() < deadline)
        if (nic_send(nic, now_read(), &frame, 1) == 1)
            return true;
    buf_release_chain(frame);
    return false;
}

/* ---- the other process: sends everything back ---- */

static const char *echo(struct nic *nic, uint32_t *ret_lasts)
{
    struct buf *frames[NIC_BURST];
    uint32_t count = nic_receive(nic, now_read(), frames, NIC_BURST);
    const char *fault = NULL;

    rest_if(count == 0);

    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = 0;

        if (fault == NULL)
            fault = frame_fault(frames[i], &sequence);
        *ret_lasts += sequence == LAST;
        if (!send_one(nic, frames[i]) && fault == NULL)
            fault = "cannot send";
    }
    return fault;
}

static bool serve(const struct link *link)
{
    struct end end;
    const char *fault = NULL;
    uint32_t lasts = 0;

    if (!end_open(&end, link, false))
        return false;
    tick_us deadline = now_read() + 3 * TIME_MAX;
    while (fault == NULL && lasts < link->queue_count && now_read() < deadline)
        for (uint32_t i = 0; i < link->queue_count && fault == NULL; i++)
            fault = echo(end.nics[i], &lasts);
    if (fault != NULL)
        print_message("# other process: %s\n", fault);
    /* What was sent is read before the link is cut. */
    deadline = now_read() + TIME_MAX;
    while (nic_eth_port_has_link(end.port) && now_read() < deadline)
        usleep(1000);
    return end_close(&end) && fault == NULL && lasts == link->queue_count;
}

static int other_process(enum eal_huge huge)
{
    const struct eal_options options = {.memory_mb = MEMORY_MB, .huge = huge};
    struct eal_report report;
    bool is_good = true;

    if (eal_start(&options, &report) != ERR_OK)
        return 2;
    for (uint32_t i = 0; i < COUNT_OF(links) && is_good; i++)
        is_good = serve(&links[i]);
    return is_good ? 0 : 1;
}

/* ---- this process ---- */

/* What frames are sent from. */
static struct buf_pool *headers, *clones, *payloads;

/* All of it in one buffer. */
static struct buf *frame_whole(struct buf_pool *pool, uint32_t sequence, uint32_t size)
{
    struct buf *frame = buf_acquire(pool);

    assert_non_null(frame);
    buf_extend(frame, size);
    frame_fill(buf_data(frame), sequence, size);
    return frame;
}

/* A header of its own, and two clones that show the rest: as TCP sends. */
static struct buf *frame_in_parts(uint32_t sequence, uint32_t size)
{
    uint8_t octets[PAYLOAD_SIZE];
    struct buf *head = buf_acquire(headers), *payload = buf_acquire(payloads);
    uint32_t rest = size - FRAME_HEAD, part = rest / 3;

    assert_true(size <= PAYLOAD_SIZE);
    frame_fill(octets, sequence, size);
    buf_extend(head, FRAME_HEAD);
    memcpy(buf_data(head), octets, FRAME_HEAD);
    buf_extend(payload, rest);
    memcpy(buf_data(payload), octets + FRAME_HEAD, rest);
    struct buf *first = buf_clone(clones, payload, BUF_HEADROOM, part);
    struct buf *second = buf_clone(clones, first, BUF_HEADROOM + part, rest - part);
    buf_release(payload);
    head->mbuf.next = &first->mbuf;
    first->mbuf.next = &second->mbuf;
    head->mbuf.nb_segs = 3;
    head->mbuf.pkt_len = size;
    return head;
}

static uint32_t size_of(uint32_t sequence, const struct link *link)
{
    uint32_t size_max = link->mtu_max + 14u;

    return sequence % 5 == 0 ? size_max : 64 + sequence * 97 % (size_max - 63);
}

static void send_next(struct end *end, const struct link *link, uint32_t queue, uint32_t sequence)
{
    uint32_t size = size_of(sequence, link);
    bool is_in_parts = sequence % 2 == 1 && size <= PAYLOAD_SIZE;

    assert_true(send_one(end->nics[queue], is_in_parts
                                               ? frame_in_parts(sequence, size)
                                               : frame_whole(end->pools[queue], sequence, size)));
}

#define GOOD (RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD)

static void expect_next(struct nic *nic, uint32_t *expected)
{
    struct buf *frames[NIC_BURST];
    uint32_t count = nic_receive(nic, now_read(), frames, NIC_BURST);

    rest_if(count == 0);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = 0;
        const char *fault = frame_fault(frames[i], &sequence);

        if (fault != NULL)
            fail_msg("frame %u came back wrong: %s", *expected, fault);
        assert_int_equal(*expected, sequence);
        assert_true(is_ours(frames[i]));
        /* Believed good where neither end computes them; else nothing is said, for nobody looked.
         */
        assert_int_equal(nic->offloads & NIC_RX_CHECKSUM ? GOOD : 0,
                         frames[i]->mbuf.ol_flags & GOOD);
        (*expected)++;
        buf_release_chain(frames[i]);
    }
}

/* Frames out and back, in order, never more than WINDOW on their way. */
static void exchange(struct end *end, const struct link *link, uint32_t queue)
{
    uint32_t sent = 0, expected = 0;
    tick_us deadline = now_read() + TIME_MAX;

    while (expected < link->frame_count) {
        if (now_read() >= deadline)
            fail_msg("%u frames are missing", link->frame_count - expected);
        if (sent < link->frame_count && sent - expected < WINDOW)
            send_next(end, link, queue, sent++);
        expect_next(end->nics[queue], &expected);
    }
    assert_int_equal(link->frame_count, nic_eth_queue_stats(end->nics[queue]).sent);
    assert_int_equal(link->frame_count, nic_eth_queue_stats(end->nics[queue]).received);
}

static void say_last(struct end *end)
{
    for (uint32_t i = 0; i < end->queue_count; i++)
        assert_true(send_one(end->nics[i], frame_whole(end->pools[i], LAST, 64)));
    for (uint32_t i = 0; i < end->queue_count; i++) {
        uint32_t expected = LAST;
        tick_us deadline = now_read() + TIME_MAX;

        while (expected == LAST && now_read() < deadline)
            expect_next(end->nics[i], &expected);
        assert_int_equal(0, expected);
    }
}

#define CHECKSUMS                                                                                  \
    (NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_UDP_CHECKSUM | NIC_RX_CHECKSUM)

static void check_description(const struct end *end, const struct link *link)
{
    static const uint8_t nothing[6];

    for (uint16_t i = 0; i < end->queue_count; i++) {
        const struct nic *nic = end->nics[i];

        assert_int_equal(link->mtu_max, nic->mtu_max);
        assert_int_equal(link->has_no_checksums ? NIC_TX_MULTI_SEGMENT | CHECKSUMS
                                                : NIC_TX_MULTI_SEGMENT,
                         nic->offloads);
        assert_true(nic->segments_max >= 8);
        assert_memory_not_equal(nothing, nic->mac, 6);
        assert_int_equal(i, nic->steering.queue);
        assert_int_equal(end->queue_count, nic->steering.queue_count);
        assert_int_equal(end->queue_count == 1, nic->steering.is_hardware);
        assert_true(nic->steering.reta_size > 0);
        assert_int_equal(0, nic->steering.reta_size & (nic->steering.reta_size - 1));
        for (uint32_t k = 0; k < nic->steering.reta_size; k++)
            assert_true(nic->steering.reta[k] < end->queue_count);
        assert_memory_equal(end->nics[0]->steering.key, nic->steering.key, NIC_RSS_KEY_SIZE);
        assert_false(nic_has_exception(nic));
        assert_true(nic_deadline(end->nics[i]) == TICK_NEVER);
    }
    assert_string_equal("net_memif", nic_eth_port_driver(end->port));
}

/* Nobody is there yet: nothing is taken, and nothing lost. */
static void check_no_link(struct end *end)
{
    struct buf *frame = frame_whole(end->pools[0], 1, 64), *received[4];

    if (!nic_eth_port_has_link(end->port))
        assert_int_equal(0, nic_send(end->nics[0], now_read(), &frame, 1));
    buf_release(frame);
    assert_int_equal(0, nic_receive(end->nics[0], now_read(), received, 4));
}

/* A frame that can never be sent holds up no other. */
static void check_impossible(struct end *end, const struct link *link)
{
    uint32_t size_max = link->mtu_max + 18u;
    struct buf *frames[3] = {frame_whole(end->pools[0], 0, 64),
                             frame_whole(payloads, 1, size_max + 1),
                             frame_whole(end->pools[0], 1, size_max)};
    uint32_t expected = 0, sent = 0;
    tick_us deadline = now_read() + TIME_MAX;

    /* None are taken while DPDK's own thread has the port (gate.h). */
    while (sent < 3 && now_read() < deadline)
        sent += nic_send(end->nics[0], now_read(), frames + sent, 3 - sent);
    assert_int_equal(3, sent);
    assert_int_equal(1, nic_eth_queue_stats(end->nics[0]).send_invalid);
    while (expected < 2 && now_read() < deadline)
        expect_next(end->nics[0], &expected);
    assert_int_equal(2, expected);
}

/* What one shard passes, another receives: in a buffer of its own. */
static void check_pass(struct end *end)
{
    struct buf *frames[2 * NIC_BURST];

    for (uint32_t i = 0; i < NIC_BURST + 1; i++)
        nic_pass(end->nics[0], 1, frame_whole(end->pools[0], i, 64 + i));
    uint32_t count = 0;
    for (uint32_t turn = 0; turn < 4; turn++)
        count += nic_receive(end->nics[1], now_read(), frames + count, NIC_BURST);
    assert_int_equal(NIC_BURST + 1, count);
    assert_int_equal(0, buf_pool_in_use(end->pools[0]));
    assert_int_equal(count, buf_pool_in_use(end->pools[1]));
    for (uint32_t i = 0; i < count; i++) {
        uint32_t sequence = 0;

        assert_null(frame_fault(frames[i], &sequence));
        assert_int_equal(i, sequence);
        buf_release(frames[i]);
    }
    assert_int_equal(NIC_BURST + 1, nic_eth_queue_stats(end->nics[0]).passed);
    assert_int_equal(NIC_BURST + 1, nic_eth_queue_stats(end->nics[1]).taken);
}

/* A full ring drops; what is in it when the port is closed goes back, too. */
static void fill_pass_ring(struct end *end)
{
    for (uint32_t i = 0; i < 600; i++)
        nic_pass(end->nics[1], 0, frame_whole(end->pools[1], i, 64));
    assert_int_equal(600, nic_eth_queue_stats(end->nics[1]).passed +
                              nic_eth_queue_stats(end->nics[1]).pass_dropped);
    assert_true(nic_eth_queue_stats(end->nics[1]).pass_dropped > 0);
}

static void check_stats(const struct end *end, const struct link *link)
{
    struct nic_eth_port_stats stats = nic_eth_port_stats(end->port);

    assert_true(stats.received >= (uint64_t)link->frame_count * link->queue_count);
    assert_true(stats.sent >= stats.received);
    assert_true(stats.octets_received > 64 * stats.received);
    assert_int_equal(0, stats.errors);
    assert_int_equal(0, stats.without_buffer);
}

static void test_link(void **state)
{
    const struct link *link = *state;
    struct end end;

    print_message("# %s\n", link->name);
    assert_true(end_open(&end, link, true));
    check_no_link(&end);
    check_description(&end, link);
    assert_true(nic_eth_port_wait_link(end.port, TIME_MAX));
    for (uint32_t i = 0; i < link->queue_count; i++)
        exchange(&end, link, i);
    check_stats(&end, link);
    if (link->mtu_max + 19u <= PAYLOAD_SIZE)
        check_impossible(&end, link);
    if (link->queue_count > 1)
        check_pass(&end);
    say_last(&end);
    assert_int_equal(0, buf_pool_in_use(clones));
    assert_int_equal(0, buf_pool_in_use(headers));
    assert_int_equal(0, buf_pool_in_use(payloads));
    if (link->queue_count > 1)
        fill_pass_ring(&end);
    assert_true(end_close(&end));
}

/* ---- a process at the other end that dies ---- */

#define VICTIMS 3u

static void flood(struct nic *nic, struct buf_pool *pool, tick_us until)
{
    while (now_read() < until) {
        struct buf *frames[NIC_BURST];
        uint32_t count = nic_receive(nic, now_read(), frames, NIC_BURST), built = 0;

        for (uint32_t i = 0; i < count; i++)
            buf_release_chain(frames[i]);
        while (built < NIC_BURST && buf_pool_available(pool) > NIC_BURST)
            frames[built++] = frame_whole(pool, 1, 1500);
        for (uint32_t i = nic_send(nic, now_read(), frames, built); i < built; i++)
            buf_release(frames[i]);
    }
}

/* This program again; it is killed in the middle of a burst, or of anything else. */
static int victim(const char *where)
{
    const struct eal_options options = {.memory_mb = MEMORY_MB, .huge = EAL_HUGE_NEVER};
    struct link link = links[0];
    struct eal_report report;
    struct end end;

    link.name = "victim";
    snprintf(folder, sizeof(folder), "%s", where);
    if (eal_start(&options, &report) != ERR_OK || !end_open(&end, &link, false))
        return 1;
    flood(end.nics[0], end.pools[0], now_read() + TIME_MAX);
    return 1;
}

static pid_t victim_start(void)
{
    pid_t parent = getpid(), child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            execl("/proc/self/exe", "test_nic_eth", "victim", folder, NULL);
        _exit(127);
    }
    return child;
}

static void test_the_other_end_is_killed(void **state)
{
    struct link link = links[0];
    struct end end;
    (void)state;

    link.name = "victim";
    assert_true(end_open(&end, &link, true));
    for (uint32_t i = 0; i < VICTIMS; i++) {
        pid_t child = victim_start();

        assert_true(nic_eth_port_wait_link(end.port, TIME_MAX));
        flood(end.nics[0], end.pools[0], now_read() + TICK_MS(10 + 3 * i));
        kill(child, SIGKILL);
        tick_us deadline = now_read() + TIME_MAX;
        while (nic_eth_port_has_link(end.port) && now_read() < deadline)
            flood(end.nics[0], end.pools[0], now_read() + TICK_MS(1));
        assert_false(nic_eth_port_has_link(end.port));
        waitpid(child, NULL, 0);
    }
    assert_true(end_close(&end));
}

/* ---- what cannot be opened says why ---- */

struct refusal {
    const char *name;
    const char *device;
    uint32_t data_size;
    uint16_t mtu, queue_count;
    enum err err;
    const char *text; /* part of the complaint */
};
static const struct refusal refusals[] = {
    {"a ring is no wire", "net_ring0", 2048, 0, 1, ERR_CONFIG_VALUE, "no wire"},
    {"no such driver", "net_nonsense0", 2048, 0, 1, ERR_CONFIG_VALUE, ""},
    {"small buffers", "net_memif1,role=client,bsize=4096", 2048, 0, 1, ERR_CONFIG_VALUE,
     "too small for bsize=4096"},
    {"large MTU", "net_memif1,role=client,bsize=2048", 2048, 2031, 1, ERR_CONFIG_VALUE,
     "MTU of 2031 is too large, at most 2030"},
    {"bsize 0", "net_memif1,role=client,bsize=18", 2048, 0, 1, ERR_CONFIG_VALUE, "impossible"},
    {"another name", "eth_af_packet0", 2048, 0, 1, ERR_CONFIG_VALUE, ""},
    {"no interface", "net_af_packet0,iface=nonesuch0", 2048, 0, 1, ERR_CONFIG_VALUE, ""},
    {"no folder", "net_memif1,role=server,socket=/nonesuch/x,socket-abstract=no", 2048, 0, 1,
     ERR_CONFIG_VALUE, "socket"},
    {"nobody there", "net_memif1,role=client,socket=/nonesuch", 2048, 0, 1, ERR_TIMEOUT, ""},
    {"17 queues", "net_tap0,iface=nonesuch0", 2048, 0, 17, ERR_CONFIG_VALUE, ""},
};

static void test_refusals(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(refusals); i++) {
        const struct refusal *row = &refusals[i];
        struct buf_pool *pool = NULL, *pools[NIC_ETH_QUEUES_MAX];
        struct nic_eth_port *port = NULL;
        char error[NIC_ETH_ERROR_SIZE];

        assert_int_equal(ERR_OK, buf_pool_new_on_mempool("refused", 64, row->data_size,
                                                         BUF_MEMPOOL_ANY_NODE, &pool));
        for (uint32_t k = 0; k < NIC_ETH_QUEUES_MAX; k++)
            pools[k] = pool;
        const struct nic_eth_options options = {
            .device = row->device,
            .queue_count = row->queue_count,
            .pools = pools,
            .mtu = row->mtu,
            .offloads = NIC_ETH_OFFLOADS_AUTO,
            .connect_time = TICK_MS(60),
        };
        enum err err = nic_eth_port_new(&options, &port, error);
        print_message("# %s: %s\n", row->name, error);
        assert_int_equal(row->err, err);
        assert_null(port);
        assert_true(strlen(error) > 0);
        assert_non_null(strstr(error, row->text));
        assert_int_equal(0, rte_eth_dev_count_avail());
        buf_pool_free(pool);
    }
}

/* A server that was killed leaves its socket file; the next one is not held up by it. */
static void test_stale_socket(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct link link = links[0];
    struct end end;
    (void)state;

    link.name = "stale";
    snprintf(address.sun_path, sizeof(address.sun_path), "%s/%s", folder, link.name);
    int dead = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(0, bind(dead, (struct sockaddr *)&address, sizeof(address)));
    close(dead);
    assert_true(end_open(&end, &link, true));
    assert_true(end_close(&end));

    /* But nobody's socket is taken from him. */
    int alive = socket(AF_UNIX, SOCK_SEQPACKET, 0);
    assert_int_equal(0, bind(alive, (struct sockaddr *)&address, sizeof(address)));
    assert_int_equal(0, listen(alive, 1));
    assert_false(end_open(&end, &link, true));
    assert_true(end_close(&end));
    close(alive);
    unlink(address.sun_path);
}

static void make_pools(void)
{
    CHECK(buf_pool_new_on_mempool("headers", HEADER_POOL, 256, BUF_MEMPOOL_ANY_NODE, &headers) ==
          ERR_OK);
    CHECK(buf_pool_new_on_mempool("clones", CLONE_POOL, 1, BUF_MEMPOOL_ANY_NODE, &clones) ==
          ERR_OK);
    CHECK(buf_pool_new_on_mempool("payloads", HEADER_POOL, PAYLOAD_SIZE, BUF_MEMPOOL_ANY_NODE,
                                  &payloads) == ERR_OK);
}

static int run_all(enum eal_huge huge, pid_t other)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_link, (void *)(uintptr_t)&links[0]),
        cmocka_unit_test_prestate(test_link, (void *)(uintptr_t)&links[1]),
        cmocka_unit_test_prestate(test_link, (void *)(uintptr_t)&links[2]),
        cmocka_unit_test_prestate(test_link, (void *)(uintptr_t)&links[3]),
        cmocka_unit_test(test_the_other_end_is_killed),
        cmocka_unit_test(test_stale_socket),
        cmocka_unit_test(test_refusals),
    };
    const struct eal_options options = {.memory_mb = MEMORY_MB, .huge = huge};
    struct eal_report report;
    int status = 0;

    if (eal_start(&options, &report) != ERR_OK) {
        print_message("Bail out! %s\n", report.error);
        return 1;
    }
    make_pools();
    int failed = cmocka_run_group_tests_name("nic_eth", tests, NULL, NULL);
    buf_pool_free(clones);
    buf_pool_free(headers);
    buf_pool_free(payloads);
    if (waitpid(other, &status, 0) != other || !WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        print_message("# the other process failed: %x\n", (unsigned int)status);
        failed = 1;
    }
    return failed;
}

static uint32_t huge_pages_free_mb(void)
{
    uint32_t pages = 0;
    FILE *file = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");

    if (file == NULL)
        return 0;
    if (fscanf(file, "%u", &pages) != 1)
        pages = 0;
    fclose(file);
    return 2 * pages;
}

int main(int argc, char **argv)
{
    if (argc > 2 && strcmp(argv[1], "victim") == 0)
        return victim(argv[2]);
    bool is_huge = argc > 1 && strcmp(argv[1], "huge") == 0;
    enum eal_huge huge = is_huge ? EAL_HUGE_REQUIRED : EAL_HUGE_NEVER;

    if (is_huge && huge_pages_free_mb() < 2 * MEMORY_MB) {
        print_message("1..0 # SKIP too few free huge pages\n");
        return 0;
    }
    if (mkdtemp(folder) == NULL)
        return 1;
    pid_t parent = getpid(), other = fork();
    if (other == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(getppid() == parent ? other_process(huge) : 3);
    }
    int failed = run_all(huge, other);
    rmdir(folder);
    return failed;
}
