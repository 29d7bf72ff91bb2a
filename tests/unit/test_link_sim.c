/* SPDX-License-Identifier: Apache-2.0 */
/* The simulated link: what it does to frames is what it was told to do, no more and no less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/port/link_sim_frame.h"
#include "death.h"

#define ALL_TX                                                                                     \
    (NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_UDP_CHECKSUM | NIC_TX_TSO |                \
     NIC_TX_MULTI_SEGMENT)
#define STATIONS 3u

static const uint8_t macs[STATIONS][6] = {
    {2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 3}};

struct world {
    struct link_sim *link;
    struct buf_pool *pool;
    struct nic *nics[STATIONS][LINK_SIM_QUEUE_MAX];
    uint32_t stations[STATIONS];
};

static struct world world_new(uint64_t seed, const struct link_sim_station_options *options,
                              uint32_t count)
{
    struct world world = {.link = link_sim_new(seed)};

    world.pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = 4096, .backing = BUF_BACKING_HEAP});
    for (uint32_t i = 0; i < count; i++) {
        struct link_sim_station_options own = *options;
        memcpy(own.mac, macs[i], 6);
        for (uint32_t j = 0; j < LINK_SIM_QUEUE_MAX; j++)
            own.pools[j] = world.pool;
        world.stations[i] = link_sim_attach(world.link, &own, world.nics[i]);
    }
    return world;
}

static void world_free(struct world *world)
{
    for (uint32_t i = 0; i < STATIONS; i++) {
        for (uint32_t j = 0; j < LINK_SIM_QUEUE_MAX; j++) {
            if (world->nics[i][j] != NULL)
                nic_free(world->nics[i][j]);
        }
    }
    link_sim_free(world->link);
    buf_pool_free(world->pool);
}

/* ---- frames ---- */

#define L2 14u

struct shape {
    uint8_t family, protocol;
    uint32_t payload;
    uint16_t port;
    bool is_fragmentable;
    uint8_t ecn;
};

static uint32_t shape_headers(const struct shape *shape)
{
    return L2 + (shape->family == 4 ? 20 : 40) + (shape->protocol == 6 ? 20 : 8);
}

/* A whole, correct packet; payload octets count up from 0. */
static uint32_t packet_build(const struct shape *shape, const uint8_t *to, uint8_t *packet)
{
    uint32_t headers = shape_headers(shape), size = headers + shape->payload;
    uint8_t *ip = packet + L2, *l4 = ip + (shape->family == 4 ? 20 : 40);
    uint32_t ip_size = size - L2;
    struct link_frame map;

    memset(packet, 0, headers);
    memcpy(packet, to, 6);
    memcpy(packet + 6, macs[0], 6);
    if (shape->family == 4) {
        uint8_t header[20] = {0x45,
                              shape->ecn,
                              (uint8_t)(ip_size >> 8),
                              (uint8_t)ip_size,
                              0,
                              7,
                              shape->is_fragmentable ? 0 : 0x40,
                              0,
                              64,
                              shape->protocol,
                              0,
                              0,
                              10,
                              0,
                              0,
                              1,
                              10,
                              0,
                              0,
                              2};
        packet[12] = 0x08;
        memcpy(ip, header, sizeof(header));
    } else {
        packet[12] = 0x86;
        packet[13] = 0xdd;
        ip[0] = 0x60;
        ip[1] = (uint8_t)(shape->ecn << 4);
        ip[4] = (uint8_t)((ip_size - 40) >> 8);
        ip[5] = (uint8_t)(ip_size - 40);
        ip[6] = shape->protocol;
        ip[7] = 64;
        ip[8] = ip[24] = 0xfd;
        ip[23] = 1;
        ip[39] = 2;
    }
    l4[0] = (uint8_t)(shape->port >> 8);
    l4[1] = (uint8_t)shape->port;
    l4[3] = 25;
    if (shape->protocol == 6) {
        l4[7] = 200; /* sequence number */
        l4[12] = 0x50;
        l4[13] = 0x99; /* CWR ACK PSH FIN */
    } else {
        l4[4] = (uint8_t)((8 + shape->payload) >> 8);
        l4[5] = (uint8_t)(8 + shape->payload);
    }
    for (uint32_t i = 0; i < shape->payload; i++)
        packet[headers + i] = (uint8_t)i;
    assert_true(link_frame_parse(span_of(packet, size), false, &map));
    link_frame_complete(packet, &map, true, true);
    return size;
}

static struct buf *frame_of(struct buf_pool *pool, const uint8_t *octets, uint32_t size,
                            uint32_t segment)
{
    struct buf *head = NULL, *tail = NULL;

    for (uint32_t at = 0; at < size; at += segment) {
        struct buf *buf = buf_acquire(pool);
        uint32_t part = size - at < segment ? size - at : segment;
        memcpy(buf_data(buf), octets + at, part);
        buf_extend(buf, part);
        if (head == NULL) {
            head = tail = buf;
            continue;
        }
        tail->mbuf.next = &buf->mbuf;
        tail = buf;
        head->mbuf.nb_segs++;
    }
    head->mbuf.pkt_len = size;
    return head;
}

static void send_octets(struct world *world, uint32_t from, tick_us now, const uint8_t *octets,
                        uint32_t size)
{
    struct buf *frame = frame_of(world->pool, octets, size, 2048);
    assert_int_equal(1, nic_send(world->nics[from][0], now, &frame, 1));
}

static void send_shape(struct world *world, const struct shape *shape, uint32_t to, tick_us now)
{
    uint8_t packet[2048];
    uint32_t size = packet_build(shape, macs[to], packet);
    send_octets(world, 0, now, packet, size);
}

/* The octets of the next frame, or 0. */
static uint32_t receive(struct world *world, uint32_t station, uint32_t queue, tick_us now,
                        uint8_t *ret_octets, uint64_t *ret_flags)
{
    struct buf *frame;
    uint32_t at = 0;

    if (nic_receive(world->nics[station][queue], now, &frame, 1) == 0)
        return 0;
    for (const struct rte_mbuf *mbuf = &frame->mbuf; mbuf != NULL; mbuf = mbuf->next) {
        memcpy(ret_octets + at, (const uint8_t *)mbuf->buf_addr + mbuf->data_off, mbuf->data_len);
        at += mbuf->data_len;
    }
    assert_int_equal(at, frame->mbuf.pkt_len);
    if (ret_flags != NULL)
        *ret_flags = frame->mbuf.ol_flags;
    buf_release_chain(frame);
    return at;
}

static const struct shape tcp4 = {.family = 4, .protocol = 6, .payload = 1000, .port = 1000};
static const struct shape tcp6 = {.family = 6, .protocol = 6, .payload = 1000, .port = 1000};
static const struct shape udp4 = {.family = 4, .protocol = 17, .payload = 1000, .port = 1000};
static const struct shape udp6 = {.family = 6, .protocol = 17, .payload = 1000, .port = 1000};
static const struct shape *const shapes[] = {&tcp4, &tcp6, &udp4, &udp6};

/* ---- tests ---- */

static void test_a_frame_arrives_whole_and_in_time(void **state)
{
    struct link_sim_station_options options = {.path = {.delay = 5000}};
    struct world world = world_new(1, &options, 2);
    uint8_t sent[2048], got[2048];
    uint32_t size = packet_build(&tcp4, macs[1], sent);

    (void)state;
    assert_true(nic_deadline(world.nics[1][0]) == TICK_NEVER);
    send_octets(&world, 0, 100, sent, size);
    assert_int_equal(0, buf_pool_in_use(world.pool));
    assert_int_equal(5100, nic_deadline(world.nics[1][0]));
    assert_int_equal(0, receive(&world, 1, 0, 5099, got, NULL));
    assert_int_equal(size, receive(&world, 1, 0, 5100, got, NULL));
    assert_memory_equal(sent, got, size);
    assert_int_equal(0, link_sim_under_way(world.link));
    world_free(&world);
}

static void test_short_frames_are_padded(void **state)
{
    struct link_sim_station_options options = {0};
    struct world world = world_new(1, &options, 2);
    struct shape shape = {.family = 4, .protocol = 6, .payload = 1};
    uint8_t got[2048];

    (void)state;
    send_shape(&world, &shape, 1, 0);
    assert_int_equal(60, receive(&world, 1, 0, 0, got, NULL));
    assert_int_equal(0xa5, got[59]);
    world_free(&world);
}

static void test_frames_go_where_their_mac_says(void **state)
{
    static const struct {
        const char *name;
        uint8_t to[6];
        bool is_got[STATIONS];
    } rows[] = {
        {"known", {2, 0, 0, 0, 0, 2}, {false, true, false}},
        {"broadcast", {255, 255, 255, 255, 255, 255}, {false, true, true}},
        {"unknown", {2, 0, 0, 0, 0, 9}, {false, true, true}},
        {"ourselves", {2, 0, 0, 0, 0, 1}, {false, false, false}},
    };
    struct link_sim_station_options options = {0};
    uint8_t packet[2048];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct world world = world_new(1, &options, STATIONS);
        uint32_t size = packet_build(&tcp4, rows[i].to, packet);
        print_message("# %s\n", rows[i].name);
        send_octets(&world, 0, 0, packet, size);
        for (uint32_t j = 0; j < STATIONS; j++)
            assert_int_equal(rows[i].is_got[j] ? size : 0, receive(&world, j, 0, 0, packet, NULL));
        world_free(&world);
    }
}

/* Send `count` packets numbered by port at once (or `gap` apart) and note which arrive when. */
static uint32_t run(struct world *world, uint32_t count, tick_us gap, uint16_t *ret_ports,
                    tick_us *ret_times)
{
    uint32_t got = 0;
    uint8_t packet[2048];
    tick_us now;

    for (uint32_t i = 0; i < count; i++) {
        struct shape shape = tcp4;
        shape.port = (uint16_t)i;
        send_shape(world, &shape, 1, i * gap);
    }
    while ((now = nic_deadline(world->nics[1][0])) != TICK_NEVER) {
        while (receive(world, 1, 0, now, packet, NULL) > 0) {
            ret_ports[got] = (uint16_t)(packet[L2 + 20] << 8 | packet[L2 + 21]);
            ret_times[got++] = now;
        }
    }
    return got;
}

#define RUN_MAX 40000u
static uint16_t ports[RUN_MAX];
static tick_us times[RUN_MAX];

static void test_loss_is_as_asked(void **state)
{
    struct link_sim_station_options options = {.path = {.lose = 100000}};
    struct world world = world_new(3, &options, 2);

    (void)state;
    uint32_t got = run(&world, 20000, 0, ports, times);
    assert_in_range(got, 17800, 18200);
    assert_int_equal(20000 - got, link_sim_get_stats(world.link).lost);
    world_free(&world);
}

static void test_bursts_lose_in_a_row(void **state)
{
    /* One tenth of the time in the bad state, which lasts 20 packets and loses all. */
    struct link_sim_station_options options = {
        .path = {.burst_begin = 5556, .burst_end = 50000, .burst_lose = 1000000}};
    struct world world = world_new(3, &options, 2);
    uint32_t gaps = 0;

    (void)state;
    uint32_t got = run(&world, 20000, 0, ports, times);
    assert_in_range(got, 17000, 19000);
    for (uint32_t i = 1; i < got; i++)
        gaps += ports[i] != ports[i - 1] + 1;
    assert_in_range((20000 - got) / gaps, 14, 28);
    world_free(&world);
}

static void test_jitter_keeps_the_order(void **state)
{
    struct link_sim_station_options options = {.path = {.delay = 1000, .jitter = 5000}};
    struct world world = world_new(4, &options, 2);
    tick_us least = TICK_NEVER, most = 0;

    (void)state;
    assert_int_equal(1000, run(&world, 1000, 3000, ports, times));
    for (uint32_t i = 0; i < 1000; i++) {
        tick_us took = times[i] - ports[i] * 3000u;
        assert_int_equal(i, ports[i]);
        least = took < least ? took : least;
        most = took > most ? took : most;
    }
    assert_in_range(least, 1000, 1100);
    assert_in_range(most, 5900, 6000);
    world_free(&world);
}

static void test_reordered_frames_are_overtaken(void **state)
{
    struct link_sim_station_options options = {
        .path = {.delay = 1000, .reorder = 50000, .reorder_delay = 20000}};
    struct world world = world_new(4, &options, 2);
    uint32_t late = 0, highest = 0;

    (void)state;
    assert_int_equal(2000, run(&world, 2000, 100, ports, times));
    for (uint32_t i = 0; i < 2000; i++) {
        late += ports[i] < highest;
        highest = ports[i] > highest ? ports[i] : highest;
    }
    assert_in_range(late, 70, 130);
    assert_in_range(link_sim_get_stats(world.link).reordered, late, 130);
    world_free(&world);
}

static void test_duplicates_arrive_twice(void **state)
{
    struct link_sim_station_options options = {.path = {.duplicate = 100000}};
    struct world world = world_new(4, &options, 2);

    (void)state;
    uint32_t got = run(&world, 10000, 0, ports, times);
    assert_in_range(got, 10850, 11150);
    assert_int_equal(got - 10000, link_sim_get_stats(world.link).duplicated);
    world_free(&world);
}

static void test_rate_spaces_and_the_queue_drops(void **state)
{
    /* 1,054 octets at 1,054,000 a second: one each millisecond. */
    struct link_sim_station_options options = {
        .path = {.delay = 10, .rate = 1054000, .queue_max = 10 * 1054}};
    struct world world = world_new(4, &options, 2);

    (void)state;
    assert_int_equal(10, run(&world, 25, 0, ports, times));
    for (uint32_t i = 0; i < 10; i++) {
        assert_int_equal(i, ports[i]);
        assert_int_equal(10 + (i + 1) * 1000, times[i]);
    }
    assert_int_equal(15, link_sim_get_stats(world.link).queue_dropped);
    world_free(&world);
}

static void test_queue_marks_only_what_is_capable(void **state)
{
    static const struct {
        uint8_t family, ecn, expected;
    } rows[] = {{4, 0, 0}, {4, 1, 3}, {4, 2, 3}, {4, 3, 3}, {6, 0, 0}, {6, 2, 3}};
    struct link_sim_station_options options = {.path = {.rate = 1000000, .mark_over = 1500}};
    uint8_t packet[2048];
    struct link_frame map;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct world world = world_new(4, &options, 2);
        struct shape shape = {.family = rows[i].family, .protocol = 6, .payload = 1000};
        shape.ecn = rows[i].ecn;
        for (uint32_t j = 0; j < 5; j++)
            send_shape(&world, &shape, 1, 0);
        for (uint32_t j = 0; j < 5; j++) {
            uint32_t size = receive(&world, 1, 0, TICK_S(1), packet, NULL);
            assert_true(link_frame_parse(span_of(packet, size), false, &map));
            assert_int_equal(j < 2 ? rows[i].ecn : rows[i].expected, link_frame_ecn(packet, &map));
            assert_true(rows[i].family == 6 || link_frame_ip4_is_good(packet, &map));
            assert_true(link_frame_l4_is_good(packet, &map));
        }
        world_free(&world);
    }
}

static void test_large_packets_vanish(void **state)
{
    static const struct {
        const char *name;
        struct shape shape;
        bool has_icmp, is_passed;
        uint32_t answer; /* octets of the ICMP packet, with its Ethernet header */
    } rows[] = {
        {"fits exactly", {.family = 4, .protocol = 6, .payload = 560}, true, true, 0},
        {"too big by one", {.family = 4, .protocol = 6, .payload = 561}, true, false, L2 + 56},
        {"silently", {.family = 4, .protocol = 6, .payload = 561}, false, false, 0},
        {"may be cut",
         {.family = 4, .protocol = 17, .payload = 900, .is_fragmentable = true},
         true,
         false,
         0},
        {"IPv6", {.family = 6, .protocol = 6, .payload = 900}, true, false, L2 + 48 + 960},
        {"IPv6 fits", {.family = 6, .protocol = 6, .payload = 540}, true, true, 0},
    };
    uint8_t packet[2048];
    struct link_frame map;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct link_sim_station_options options = {
            .path = {.mtu = 600, .has_icmp = rows[i].has_icmp, .delay = 100}};
        struct world world = world_new(4, &options, 2);
        print_message("# %s\n", rows[i].name);
        send_shape(&world, &rows[i].shape, 1, 0);
        assert_int_equal(rows[i].is_passed, receive(&world, 1, 0, 100, packet, NULL) > 0);
        uint32_t size = receive(&world, 0, 0, 100, packet, NULL);
        assert_int_equal(rows[i].answer, size);
        if (size > 0) {
            assert_memory_equal(packet, macs[0], 6);
            assert_true(link_frame_parse(span_of(packet, size), false, &map));
            assert_true(map.family == 6 || link_frame_ip4_is_good(packet, &map));
            assert_true(link_frame_l4_is_good(packet, &map));
            assert_int_equal(600, packet[map.l4 + 6] << 8 | packet[map.l4 + 7]);
        }
        world_free(&world);
    }
}

static void test_corruption_is_always_seen(void **state)
{
    struct link_sim_station_options options = {.path = {.corrupt = 1000000}};
    uint8_t sent[2048], got[2048];
    uint32_t harmless = 0;

    (void)state;
    for (uint32_t i = 0; i < 4000; i++) {
        struct world world = world_new(i, &options, 2);
        const struct shape *shape = shapes[i % 4];
        uint32_t size = packet_build(shape, macs[1], sent);
        send_octets(&world, 0, 0, sent, size);
        assert_int_equal(size, receive(&world, 1, 0, 0, got, NULL));
        assert_memory_not_equal(sent, got, size);
        assert_memory_equal(sent, got, L2);
        struct link_frame map;
        bool is_good = link_frame_parse(span_of(got, size), false, &map) &&
                       (map.family == 6 || link_frame_ip4_is_good(got, &map)) &&
                       link_frame_l4_is_good(got, &map);
        /* IPv6 protects neither traffic class, flow label nor hop limit. */
        if (is_good)
            assert_true(map.family == 6 && memcmp(sent + map.l4, got + map.l4, size - map.l4) == 0);
        harmless += is_good;
        world_free(&world);
    }
    assert_in_range(harmless, 1, 100);
}

/* Ask for everything there is. */
static void ask(struct buf *frame, const struct shape *shape, uint32_t tso)
{
    struct rte_mbuf *mbuf = &frame->mbuf;
    uint8_t *octets = buf_data(frame);
    uint32_t l4 = L2 + (shape->family == 4 ? 20 : 40);
    uint32_t at = l4 + (shape->protocol == 6 ? 16 : 6);
    struct link_frame map = {.l3 = L2,
                             .l4 = l4,
                             .family = shape->family,
                             .has_l4 = true,
                             .protocol = shape->protocol,
                             .end = mbuf->pkt_len};
    uint16_t pseudo = link_frame_pseudo_sum(octets, &map, tso > 0 ? 0 : map.end - l4);

    mbuf->l2_len = L2;
    mbuf->l3_len = (l4 - L2) & 0x1ff;
    mbuf->l4_len = shape->protocol == 6 ? 20 : 8;
    octets[at] = (uint8_t)(pseudo >> 8);
    octets[at + 1] = (uint8_t)pseudo;
    if (shape->family == 4) {
        octets[L2 + 10] = octets[L2 + 11] = 0;
        mbuf->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM;
    } else {
        mbuf->ol_flags |= RTE_MBUF_F_TX_IPV6;
    }
    mbuf->ol_flags |= shape->protocol == 6 ? RTE_MBUF_F_TX_TCP_CKSUM : RTE_MBUF_F_TX_UDP_CKSUM;
    if (tso > 0) {
        mbuf->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
        mbuf->tso_segsz = (uint16_t)tso;
    }
}

static void test_checksums_are_computed(void **state)
{
    struct link_sim_station_options options = {.offloads = ALL_TX};
    uint8_t sent[2048], got[2048];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(shapes); i++) {
        struct world world = world_new(1, &options, 2);
        uint32_t size = packet_build(shapes[i], macs[1], sent);
        struct buf *frame = frame_of(world.pool, sent, size, 300);
        ask(frame, shapes[i], 0);
        assert_int_equal(1, nic_send(world.nics[0][0], 0, &frame, 1));
        assert_int_equal(size, receive(&world, 1, 0, 0, got, NULL));
        assert_memory_equal(sent, got, size);
        world_free(&world);
    }
}

static void test_tso_makes_segments(void **state)
{
    static const struct {
        uint32_t payload, step, count;
    } rows[] = {{1000, 300, 4}, {1200, 300, 4}, {1201, 300, 5}, {300, 300, 1}, {5, 1, 5}};
    struct link_sim_station_options options = {.offloads = ALL_TX};
    uint8_t sent[2048], got[2048];
    struct link_frame map;

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        struct world world = world_new(1, &options, 2);
        struct shape shape = {.family = i % 2 == 0 ? 4 : 6, .protocol = 6};
        shape.payload = rows[i / 2].payload;
        uint32_t size = packet_build(&shape, macs[1], sent), headers = shape_headers(&shape);
        struct buf *frame = frame_of(world.pool, sent, size, 400);
        ask(frame, &shape, rows[i / 2].step);
        assert_int_equal(1, nic_send(world.nics[0][0], 0, &frame, 1));
        for (uint32_t j = 0; j < rows[i / 2].count; j++) {
            uint32_t count = rows[i / 2].count, at = j * rows[i / 2].step;
            assert_true(receive(&world, 1, 0, 0, got, NULL) > 0);
            assert_true(link_frame_parse(span_of(got, sizeof(got)), false, &map));
            assert_true(link_frame_l4_is_good(got, &map));
            assert_true(map.family == 6 || link_frame_ip4_is_good(got, &map));
            assert_int_equal(j + 1 == count ? shape.payload - at : rows[i / 2].step,
                             map.end - map.l4 - 20);
            assert_memory_equal(sent + headers + at, got + headers, map.end - headers);
            assert_int_equal(200 + at, got[map.l4 + 6] << 8 | got[map.l4 + 7]);
            assert_int_equal((j == 0 ? 0x80 : 0) | 0x10 | (j + 1 == count ? 0x09 : 0),
                             got[map.l4 + 13]);
            assert_true(map.family == 6 || got[L2 + 5] == 7 + j);
        }
        assert_int_equal(0, receive(&world, 1, 0, 0, got, NULL));
        world_free(&world);
    }
}

static void test_verdicts_are_true(void **state)
{
    enum { UNKNOWN, GOOD, BAD, KINDS };
    static const uint64_t kinds[KINDS] = {RTE_MBUF_F_RX_L4_CKSUM_UNKNOWN,
                                          RTE_MBUF_F_RX_L4_CKSUM_GOOD, RTE_MBUF_F_RX_L4_CKSUM_BAD};
    struct link_sim_station_options options = {.offloads = NIC_RX_CHECKSUM};
    struct world world = world_new(1, &options, 2);
    uint8_t sent[2048], got[2048];
    uint64_t flags;

    (void)state;
    for (uint32_t is_bad = 0; is_bad < 2; is_bad++) {
        uint32_t seen[KINDS] = {0};
        for (uint32_t i = 0; i < 400; i++) {
            uint32_t size = packet_build(shapes[i % 4], macs[1], sent);
            sent[size - 1] ^= (uint8_t)is_bad;
            send_octets(&world, 0, 0, sent, size);
            assert_int_equal(size, receive(&world, 1, 0, 0, got, &flags));
            for (uint32_t j = 0; j < KINDS; j++)
                seen[j] += (flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == kinds[j];
        }
        assert_in_range(seen[UNKNOWN], 60, 140);
        assert_int_equal(400 - seen[UNKNOWN], seen[is_bad ? BAD : GOOD]);
    }
    world_free(&world);
}

/* Between virtual machines nobody computes what everybody trusts. */
static void test_partial_checksums_stay_undone_where_they_may(void **state)
{
    struct link_sim_station_options options = {.offloads = ALL_TX | NIC_RX_CHECKSUM,
                                               .has_partial = true};
    uint8_t sent[2048], got[2048];
    struct link_frame map;
    uint64_t flags;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(shapes); i++) {
        struct world world = world_new(1, &options, 2);
        uint32_t size = packet_build(shapes[i], macs[1], sent);
        struct buf *frame = frame_of(world.pool, sent, size, 2048);
        ask(frame, shapes[i], 0);
        assert_int_equal(1, nic_send(world.nics[0][0], 0, &frame, 1));
        assert_int_equal(size, receive(&world, 1, 0, 0, got, &flags));
        assert_true((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == RTE_MBUF_F_RX_L4_CKSUM_NONE);
        assert_true(link_frame_parse(span_of(got, size), false, &map));
        assert_false(link_frame_l4_is_good(got, &map));
        assert_memory_equal(sent + map.l4 + 20, got + map.l4 + 20, size - map.l4 - 20);
        world_free(&world);
    }
}

struct send_one {
    struct nic *nic;
    struct buf *frame;
};

static void send_one(void *context)
{
    struct send_one *what = context;
    (void)nic_send(what->nic, 0, &what->frame, 1);
}

static void test_asking_wrongly_is_a_bug(void **state)
{
    enum wrong { NOTHING, NO_GRANT, NO_SUM, NO_LENGTH, CHAIN, LONG, PACKET_LENGTH };
    static const struct {
        const char *name;
        enum wrong wrong;
    } rows[] = {
        {"nothing is wrong", NOTHING}, {"not granted", NO_GRANT}, {"no pseudo-header sum", NO_SUM},
        {"l3_len missing", NO_LENGTH}, {"a chain", CHAIN},        {"too long", LONG},
        {"pkt_len", PACKET_LENGTH}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        enum wrong wrong = rows[i].wrong;
        struct link_sim_station_options options = {
            .offloads = wrong == NO_GRANT ? 0 : ALL_TX & ~(uint32_t)NIC_TX_MULTI_SEGMENT};
        struct world world = world_new(1, &options, 2);
        struct shape shape = tcp4;
        uint8_t sent[2048];
        shape.payload = wrong == LONG ? 1500 - 40 + 5 : 1000;
        uint32_t size = packet_build(&shape, macs[1], sent);
        struct buf *frame = frame_of(world.pool, sent, size, wrong == CHAIN ? 500 : 2048);
        print_message("# %s\n", rows[i].name);
        ask(frame, &shape, 0);
        if (wrong == NO_SUM)
            buf_data(frame)[L2 + 20 + 16] ^= 1;
        if (wrong == NO_LENGTH)
            frame->mbuf.l3_len = 0;
        if (wrong == PACKET_LENGTH)
            frame->mbuf.pkt_len--;
        if (wrong == NOTHING)
            assert_int_equal(1, nic_send(world.nics[0][0], 0, &frame, 1));
        else
            assert_true(death_is_caused_by(send_one, &(struct send_one){world.nics[0][0], frame}));
        if (wrong != NOTHING)
            buf_release_chain(frame);
        world_free(&world);
    }
}

/* The verification suite that comes with the definition of the hash. */
static void test_toeplitz_vectors(void **state)
{
    static const uint8_t key[40] = {0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67,
                                    0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb,
                                    0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30,
                                    0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa};
    uint8_t packet[60] = {[20] = 2794 >> 8, 2794 & 255, 1766 >> 8, 1766 & 255};
    static const uint8_t addresses[8] = {66, 9, 149, 187, 161, 142, 100, 80};
    struct link_frame map = {.l3 = 0, .l4 = 20, .end = 60, .family = 4, .protocol = 6};

    (void)state;
    memcpy(packet + 12, addresses, sizeof(addresses));
    assert_int_equal(0x323e8fc2, link_frame_rss(packet, &map, key, sizeof(key)));
    map.has_l4 = true;
    assert_int_equal(0x51ccc178, link_frame_rss(packet, &map, key, sizeof(key)));
}

static void test_steering(void **state)
{
    struct link_sim_station_options options = {.queue_count = 4};
    struct world world = world_new(7, &options, 2);
    uint32_t counts[4] = {0};
    uint8_t got[2048];
    struct link_frame map;

    (void)state;
    const struct nic_steering *steering = &world.nics[1][2]->steering;
    assert_true(steering->is_hardware);
    assert_int_equal(2, steering->queue);
    assert_int_equal(4, steering->queue_count);
    for (uint32_t i = 0; i < 400; i++) {
        struct shape shape = tcp4;
        shape.port = (uint16_t)i;
        send_shape(&world, &shape, 1, 0);
    }
    for (uint32_t queue = 0; queue < 4; queue++) {
        while (receive(&world, 1, queue, 0, got, NULL) > 0) {
            assert_true(link_frame_parse(span_of(got, sizeof(got)), false, &map));
            uint32_t hash = link_frame_rss(got, &map, steering->key, NIC_RSS_KEY_SIZE);
            assert_int_equal(queue, steering->reta[hash & (steering->reta_size - 1u)]);
            counts[queue]++;
        }
        assert_in_range(counts[queue], 60, 140);
    }
    world_free(&world);
}

static void test_frames_can_be_passed_on(void **state)
{
    struct link_sim_station_options options = {
        .queue_count = 2, .steering = LINK_SIM_NO_RSS, .offloads = NIC_RX_CHECKSUM};
    struct world world = world_new(7, &options, 2);
    uint8_t sent[2048], got[2048];
    uint64_t verdict, flags;
    struct buf *frame;

    (void)state;
    assert_false(world.nics[1][0]->steering.is_hardware);
    for (uint32_t i = 0; i < 40; i++) {
        struct shape shape = tcp4;
        shape.port = (uint16_t)i;
        uint32_t size = packet_build(&shape, macs[1], sent);
        send_octets(&world, 0, 0, sent, size);
        uint32_t queue = nic_receive(world.nics[1][0], 5, &frame, 1) == 1 ? 0 : 1;
        if (queue == 1)
            assert_int_equal(1, nic_receive(world.nics[1][1], 5, &frame, 1));
        verdict = frame->mbuf.ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK;
        nic_pass(world.nics[1][queue], (uint16_t)(1 - queue), frame);
        assert_int_equal(5, nic_deadline(world.nics[1][1 - queue]));
        assert_int_equal(size, receive(&world, 1, 1 - queue, 5, got, &flags));
        assert_memory_equal(sent, got, size);
        assert_true((flags & RTE_MBUF_F_RX_L4_CKSUM_MASK) == verdict);
    }
    assert_int_equal(40, link_sim_get_stats(world.link).passed);
    world_free(&world);
}

static void test_wrong_queues(void **state)
{
    struct link_sim_station_options options = {.queue_count = 2, .misplace = 1000000};
    struct world world = world_new(7, &options, 2);
    uint32_t counts[2] = {0};
    uint8_t got[2048];

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        send_shape(&world, &tcp4, 1, 0);
    for (uint32_t queue = 0; queue < 2; queue++) {
        while (receive(&world, 1, queue, 0, got, NULL) > 0)
            counts[queue]++;
        assert_in_range(counts[queue], 30, 70);
    }
    world_free(&world);
}

static void test_split_frames_keep_their_headers_whole(void **state)
{
    struct link_sim_station_options options = {.split = 16};
    uint8_t sent[2048], got[2048];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(shapes); i++) {
        struct world world = world_new(1, &options, 2);
        uint32_t size = packet_build(shapes[i], macs[1], sent);
        struct buf *frame;
        send_octets(&world, 0, 0, sent, size);
        send_octets(&world, 0, 0, sent, size);
        assert_int_equal(1, nic_receive(world.nics[1][0], 0, &frame, 1));
        assert_int_equal(shape_headers(shapes[i]), buf_size(frame));
        assert_int_equal(1 + (1000 + 15) / 16, frame->mbuf.nb_segs);
        buf_release_chain(frame);
        assert_int_equal(size, receive(&world, 1, 0, 0, got, NULL));
        assert_memory_equal(sent, got, size);
        world_free(&world);
    }
}

static void test_an_empty_pool_loses_frames(void **state)
{
    struct link_sim_station_options options = {0};
    struct world world = world_new(1, &options, 2);
    struct buf *kept[4096];
    uint8_t got[2048];

    (void)state;
    send_shape(&world, &tcp4, 1, 0);
    for (uint32_t i = 0; i < COUNT_OF(kept); i++)
        kept[i] = buf_acquire(world.pool);
    assert_int_equal(0, receive(&world, 1, 0, 0, got, NULL));
    for (uint32_t i = 0; i < COUNT_OF(kept); i++)
        buf_release(kept[i]);
    assert_int_equal(1, link_sim_get_stats(world.link).pool_empty);
    assert_true(nic_deadline(world.nics[1][0]) == TICK_NEVER);
    world_free(&world);
}

static void test_a_cable_can_be_pulled(void **state)
{
    struct link_sim_station_options options = {.path = {.delay = 10}};
    struct world world = world_new(1, &options, 2);
    uint8_t got[2048];

    (void)state;
    send_shape(&world, &tcp4, 1, 0);
    link_sim_set_connected(world.link, world.stations[1], false);
    send_shape(&world, &tcp4, 1, 0);
    assert_int_equal(0, link_sim_under_way(world.link));
    link_sim_set_connected(world.link, world.stations[1], true);
    send_shape(&world, &tcp4, 1, 5);
    assert_int_not_equal(0, receive(&world, 1, 0, 15, got, NULL));
    assert_int_equal(0, receive(&world, 1, 0, 15, got, NULL));
    world_free(&world);
}

static void test_a_full_nic_takes_fewer(void **state)
{
    struct link_sim_station_options options = {.refuse = 500000};
    struct world world = world_new(1, &options, 2);
    struct buf *frames[8];
    uint8_t sent[2048];
    uint32_t size = packet_build(&tcp4, macs[1], sent), taken = 0;

    (void)state;
    for (uint32_t i = 0; i < 8; i++)
        frames[i] = frame_of(world.pool, sent, size, 2048);
    while (taken < 8)
        taken += nic_send(world.nics[0][0], 0, frames + taken, 8 - taken);
    assert_int_equal(8, link_sim_under_way(world.link));
    assert_true(link_sim_get_stats(world.link).refused > 0);
    world_free(&world);
}

static bool drop_port_3(void *context, uint32_t station, tick_us now, uint8_t *octets,
                        uint32_t size)
{
    uint32_t *seen = context;

    assert_int_equal(0, station);
    assert_int_equal(9, now);
    assert_int_equal(1054, size);
    (*seen)++;
    return octets[L2 + 21] != 3;
}

static void test_a_filter_sees_everything(void **state)
{
    struct link_sim_station_options options = {0};
    struct world world = world_new(1, &options, 2);
    uint32_t seen = 0;

    (void)state;
    link_sim_set_filter(world.link, drop_port_3, &seen);
    for (uint16_t i = 0; i < 5; i++) {
        struct shape shape = tcp4;
        shape.port = i;
        send_shape(&world, &shape, 1, 9);
    }
    assert_int_equal(5, seen);
    assert_int_equal(4, link_sim_under_way(world.link));
    world_free(&world);
}

static void test_l3_has_no_ethernet(void **state)
{
    struct link_sim_station_options options = {.offloads = NIC_IS_L3};
    struct world world = world_new(1, &options, STATIONS);
    uint8_t sent[2048], got[2048];
    uint32_t size = packet_build(&tcp4, macs[1], sent);

    (void)state;
    send_octets(&world, 0, 0, sent + L2, size - L2);
    for (uint32_t i = 1; i < STATIONS; i++) {
        assert_int_equal(size - L2, receive(&world, i, 0, 0, got, NULL));
        assert_memory_equal(sent + L2, got, size - L2);
    }
    world_free(&world);
}

static void test_a_seed_replays(void **state)
{
    struct link_sim_station_options options = {.path = {.delay = 1000,
                                                        .jitter = 500,
                                                        .reorder = 50000,
                                                        .reorder_delay = 3000,
                                                        .lose = 50000,
                                                        .duplicate = 50000,
                                                        .corrupt = 50000}};
    uint64_t prints[3];

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        struct world world = world_new(i == 2 ? 12 : 11, &options, 2);
        run(&world, 500, 100, ports, times);
        prints[i] = link_sim_fingerprint(world.link);
        world_free(&world);
    }
    assert_true(prints[0] == prints[1]);
    assert_true(prints[0] != prints[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_frame_arrives_whole_and_in_time),
        cmocka_unit_test(test_short_frames_are_padded),
        cmocka_unit_test(test_frames_go_where_their_mac_says),
        cmocka_unit_test(test_loss_is_as_asked),
        cmocka_unit_test(test_bursts_lose_in_a_row),
        cmocka_unit_test(test_jitter_keeps_the_order),
        cmocka_unit_test(test_reordered_frames_are_overtaken),
        cmocka_unit_test(test_duplicates_arrive_twice),
        cmocka_unit_test(test_rate_spaces_and_the_queue_drops),
        cmocka_unit_test(test_queue_marks_only_what_is_capable),
        cmocka_unit_test(test_large_packets_vanish),
        cmocka_unit_test(test_corruption_is_always_seen),
        cmocka_unit_test(test_checksums_are_computed),
        cmocka_unit_test(test_tso_makes_segments),
        cmocka_unit_test(test_verdicts_are_true),
        cmocka_unit_test(test_partial_checksums_stay_undone_where_they_may),
        cmocka_unit_test(test_asking_wrongly_is_a_bug),
        cmocka_unit_test(test_toeplitz_vectors),
        cmocka_unit_test(test_steering),
        cmocka_unit_test(test_frames_can_be_passed_on),
        cmocka_unit_test(test_wrong_queues),
        cmocka_unit_test(test_split_frames_keep_their_headers_whole),
        cmocka_unit_test(test_an_empty_pool_loses_frames),
        cmocka_unit_test(test_a_cable_can_be_pulled),
        cmocka_unit_test(test_a_full_nic_takes_fewer),
        cmocka_unit_test(test_a_filter_sees_everything),
        cmocka_unit_test(test_l3_has_no_ethernet),
        cmocka_unit_test(test_a_seed_replays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
