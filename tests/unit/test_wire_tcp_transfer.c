/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets from end to end: two stacks, every kind of nic and of bad weather, both directions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/unit/wire_pair.h"

/* Both sides send `size` octets at once and close; nothing is lost or left. */
static void exchange(struct pair *pair, uint32_t size, tick_us time)
{
    uint32_t sent[2] = {0}, received[2] = {0};
    tick_us end = pair->now + time;

    pair_connect(pair);
    while (pair->now < end && (received[0] < size || received[1] < size)) {
        for (uint32_t side = 0; side < 2; side++) {
            uint64_t unsent = flow_unsent(pair->planes[side], pair->flows[side]);
            uint32_t piece = 1 + (sent[side] * 7919u) % 20000u;
            piece = piece < size - sent[side] ? piece : size - sent[side];
            if (unsent < 100000 && piece > 0) {
                pair_send(pair, side, sent[side], piece);
                sent[side] += piece;
            }
            received[side] += pair_receive(pair, side, received[side]);
        }
        pair_turn(pair);
    }
    assert_int_equal(size, received[0]);
    assert_int_equal(size, received[1]);
    flow_close(pair->planes[PAIR_A], pair->flows[PAIR_A]);
    flow_close(pair->planes[PAIR_B], pair->flows[PAIR_B]);
    for (uint32_t i = 0; i < 2; i++) {
        while (flow_plane_stats(pair->planes[i]).orphans > 0 && pair->now < end)
            pair_turn(pair);
        assert_int_equal(0, flow_plane_stats(pair->planes[i]).orphans);
        assert_int_equal(0, pair_count(pair, i, STACK_TCP_ORPHANS_EXPIRED));
        struct stack_usage usage = stack_get_usage(pair->stacks[i]);
        assert_int_equal(0, usage.connections);
        assert_int_equal(0, usage.out_of_order_buffers);
        assert_int_equal(0, tcp_limit_count(pair->stacks[i]));
        assert_int_equal(0, buf_pool_in_use(pair->clone_pools[i]));
    }
}

/* ---- nics ---- */

static void test_every_kind_of_nic(void **state)
{
    static const struct {
        const char *name;
        uint32_t offloads;
        uint16_t segments_max, mtu, split;
    } rows[] = {
        {"chains", NIC_TX_MULTI_SEGMENT, 8, 1500, 0},
        {"chains of two", NIC_TX_MULTI_SEGMENT, 2, 1500, 0},
        {"one buffer a frame", NIC_RX_CHECKSUM, 1, 1500, 0},
        {"checksums", NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM | NIC_TX_IP4_CHECKSUM, 8, 1500, 0},
        {"TSO",
         NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM | NIC_TX_IP4_CHECKSUM | NIC_TX_TSO |
             NIC_RX_CHECKSUM,
         8, 1500, 0},
        {"TSO, long chains",
         NIC_TX_MULTI_SEGMENT | NIC_TX_TCP_CHECKSUM | NIC_TX_IP4_CHECKSUM | NIC_TX_TSO, 40, 1500,
         0},
        {"received in pieces", NIC_TX_MULTI_SEGMENT, 8, 1500, 300},
        {"jumbo frames", NIC_TX_MULTI_SEGMENT, 8, 9000, 0},
        {"jumbo frames in one buffer", NIC_RX_CHECKSUM, 1, 9000, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows) * 2; i++) {
        uint32_t row = i / 2;
        print_message("# %s, IPv%d\n", rows[row].name, i % 2 == 0 ? 4 : 6);
        struct pair *pair =
            pair_new(&(struct pair_options){.family = i % 2 == 0 ? 4 : 6,
                                            .offloads = rows[row].offloads,
                                            .segments_max = rows[row].segments_max,
                                            .mtu = rows[row].mtu,
                                            .split = rows[row].split,
                                            .pool_size = rows[row].mtu > 2000 ? 9216 : 2048,
                                            .seed = i,
                                            .paths = {{.delay = 500}, {.delay = 500}}});
        exchange(pair, 400000, TICK_S(60));
        assert_int_equal(0, pair_count(pair, PAIR_A, STACK_TCP_CHECKSUM));
        assert_int_equal(0, pair_count(pair, PAIR_B, STACK_TCP_RETRANSMITTED));
        pair_free(pair);
    }
}

/* ---- weather ---- */

static void test_bad_weather(void **state)
{
    static const struct {
        const char *name;
        struct link_sim_path path;
    } rows[] = {
        {"loss", {.delay = 5000, .lose = 20000}},
        {"bursts of loss",
         {.delay = 5000, .burst_begin = 5000, .burst_end = 300000, .burst_lose = 700000}},
        {"reordering", {.delay = 5000, .reorder = 100000, .reorder_delay = 8000}},
        {"duplicates", {.delay = 2000, .duplicate = 100000}},
        {"corruption", {.delay = 2000, .corrupt = 20000}},
        {"jitter", {.delay = 5000, .jitter = 5000}},
        {"a small queue", {.delay = 3000, .rate = 1250000, .queue_max = 20000}},
        {"everything",
         {.delay = 5000,
          .jitter = 2000,
          .lose = 10000,
          .corrupt = 5000,
          .duplicate = 20000,
          .reorder = 50000,
          .reorder_delay = 10000}},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows) * 2; i++) {
        uint32_t row = i / 2;
        print_message("# %s, IPv%d\n", rows[row].name, i % 2 == 0 ? 4 : 6);
        struct pair *pair =
            pair_new(&(struct pair_options){.family = i % 2 == 0 ? 4 : 6,
                                            .seed = 100 + i,
                                            .orphan_time = TICK_S(120),
                                            .paths = {rows[row].path, rows[row].path}});
        exchange(pair, 300000, TICK_S(300));
        pair_free(pair);
    }
}

/* Peers that lack one thing or all. */
static void test_modest_peers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 16; i++) {
        struct tcp_policy policy = tcp_policy_default();
        policy.has_sack = (i & 1) != 0;
        policy.has_timestamps = (i & 2) != 0;
        policy.has_window_scale = (i & 4) != 0;
        policy.is_newreno = (i & 8) != 0;
        struct pair *pair = pair_new(&(struct pair_options){
            .seed = 200 + i,
            .orphan_time = TICK_S(120),
            .policy = {&policy, NULL},
            .paths = {{.delay = 5000, .lose = 10000}, {.delay = 5000, .lose = 10000}}});
        exchange(pair, 200000, TICK_S(300));
        pair_free(pair);
    }
}

/* Pools that hold hardly anything: slow, but nothing is lost. */
static void test_small_pools(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        struct pair *pair =
            pair_new(&(struct pair_options){.seed = 300 + i,
                                            .pool_max = 160,
                                            .header_max = 4 + 4 * i,
                                            .receive_reserve = 40 * i,
                                            .receive_limit = 40000,
                                            .orphan_time = TICK_S(120),
                                            .paths = {{.delay = 1000}, {.delay = 1000}}});
        exchange(pair, 200000, TICK_S(300));
        pair_free(pair);
    }
}

/* Goal: owners that have appended all of a pool, in pieces too many for a frame, are not stuck:
 * what is acknowledged gives buffers back. */
static void test_pool_full_of_pieces(void **state)
{
    static const struct {
        const char *name;
        uint32_t offloads;
        uint16_t segments_max;
    } rows[] = {{"chains", NIC_TX_MULTI_SEGMENT, 3}, {"one buffer a frame", NIC_RX_CHECKSUM, 1}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair =
            pair_new(&(struct pair_options){.offloads = rows[i].offloads,
                                            .segments_max = rows[i].segments_max,
                                            .pool_max = 200,
                                            .paths = {{.delay = 1000}, {.delay = 1000}}});
        struct buf_pool *pool = pair->pools[PAIR_A];
        struct buf_queue queue;
        uint32_t size = 0, received = 0;
        tick_us end;
        print_message("# %s\n", rows[i].name);
        pair_connect(pair);
        buf_queue_init(&queue);
        /* A receives into the same pool: without a few left no ACK would come in. */
        while (buf_pool_available(pool) > 3) {
            struct buf *buf = buf_acquire(pool);
            assert_non_null(buf);
            for (uint32_t j = 0; j < 100; j++)
                buf_data(buf)[j] = pair_octet(size + j);
            buf_extend(buf, 100);
            buf_queue_append(&queue, buf, buf->mbuf.data_off, 100);
            buf_release(buf);
            size += 100;
        }
        struct buf *hoard[3];
        for (uint32_t j = 0; j < COUNT_OF(hoard); j++)
            hoard[j] = buf_acquire(pool);
        flow_append(pair->planes[PAIR_A], pair->flows[PAIR_A], &queue);
        flow_flush(pair->planes[PAIR_A], pair->now);
        assert_true(pair_count(pair, PAIR_A, STACK_TCP_SEND_NO_BUFFER) > 0);
        for (uint32_t j = 0; j < COUNT_OF(hoard); j++)
            buf_release(hoard[j]);
        end = pair->now + TICK_S(5);
        while (received < size && pair->now < end) {
            pair_turn(pair);
            received += pair_receive(pair, PAIR_B, received);
        }
        assert_int_equal(size, received);
        buf_queue_fini(&queue);
        pair_free(pair);
    }
}

/* Goal: an owner that keeps what it received cannot take the buffers that ACKs need: octets wait
 * with their sender, and what we send goes on. */
static void test_reserve_is_for_acknowledgements(void **state)
{
    const uint32_t size = 300000;
    struct pair *pair =
        pair_new(&(struct pair_options){.pool_max = 200,
                                        .receive_reserve = 50,
                                        .receive_limit = 4u << 20,
                                        .paths = {{.delay = 1000}, {.delay = 1000}}});
    struct buf_queue kept;
    uint32_t received[2] = {0}, sent[2] = {0};
    tick_us end;

    (void)state;
    buf_queue_init(&kept);
    pair_connect(pair);
    end = pair->now + TICK_S(20);
    while ((received[PAIR_A] < size || received[PAIR_B] < size) && pair->now < end) {
        for (uint32_t side = 0; side < 2; side++) {
            if (sent[side] < size && flow_unsent(pair->planes[side], pair->flows[side]) < 20000 &&
                buf_pool_available(pair->pools[side]) > 20) {
                pair_send(pair, side, sent[side], 5000);
                sent[side] += 5000;
            }
        }
        pair_turn(pair);
        received[PAIR_A] += pair_receive(pair, PAIR_A, received[PAIR_A]);
        uint32_t readable = flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]);
        flow_take(pair->planes[PAIR_B], pair->flows[PAIR_B], readable, &kept);
        /* Only when all that B sent has arrived, B's owner lets go. */
        if (received[PAIR_A] == size && kept.size > 0) {
            received[PAIR_B] += (uint32_t)kept.size;
            flow_credit(pair->planes[PAIR_B], pair->flows[PAIR_B], kept.size);
            buf_queue_fini(&kept);
        }
    }
    assert_int_equal(size, received[PAIR_A]);
    assert_int_equal(size, received[PAIR_B]);
    assert_true(pair_count(pair, PAIR_B, STACK_TCP_RECEIVE_DROPPED) > 0);
    assert_true(pair_count(pair, PAIR_B, STACK_TCP_RECEIVE_COPIED_RESERVE) > 0);
    buf_queue_fini(&kept);
    pair_free(pair);
}

/* Goal: when more connections speak in a turn than the nic takes, the rest speaks in the next ones:
 * no frame is dropped before it, and nobody waits for a time-out. */
static void test_many_speak_at_once(void **state)
{
    enum { COUNT = 900 };
    struct pair *pair = pair_new(&(struct pair_options){.refuse = 100000,
                                                        .flow_max = COUNT + 10,
                                                        .pool_max = 40000,
                                                        .header_max = 20000,
                                                        .paths = {{.delay = 500}, {.delay = 500}}});
    struct flow *flows = calloc(COUNT, sizeof(*flows)), accepted;
    struct flow_address peer;
    uint32_t count = 0, answered = 0;
    tick_us end;

    (void)state;
    assert_non_null(flows);
    pair_connect(pair); /* the neighbour is known */
    for (uint32_t i = 0; i < COUNT; i++) {
        const struct flow_connect_options options = {
            .remote = pair_address(pair, PAIR_B, 25), .deadline = TICK_NEVER, .user = PAIR_USER};
        assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &flows[i]));
        pair->flows[PAIR_A] = flows[i];
        pair_send(pair, PAIR_A, 0, 64);
    }
    end = pair->now + TICK_MS(500);
    while (answered < COUNT && pair->now < end) {
        pair_turn(pair);
        while (flow_accept(pair->planes[PAIR_B], pair->listener, PAIR_USER, &accepted, &peer) ==
               ERR_OK) {
            pair->flows[PAIR_B] = accepted;
            pair_send(pair, PAIR_B, 0, 64);
            count++;
        }
        answered = 0;
        for (uint32_t i = 0; i < COUNT; i++)
            answered += flow_readable(pair->planes[PAIR_A], flows[i]) == 64;
    }
    assert_int_equal(COUNT, count);
    assert_int_equal(COUNT, answered);
    for (uint32_t side = 0; side < 2; side++) {
        assert_int_equal(0, pair_count(pair, side, STACK_SEND_DROPPED));
        assert_int_equal(0, pair_count(pair, side, STACK_TCP_RETRANSMITTED));
        assert_int_equal(0, pair_count(pair, side, STACK_TCP_SYNS_SENT_AGAIN));
    }
    assert_true(pair_count(pair, PAIR_A, STACK_TCP_SEND_PORT_FULL) > 0);
    free(flows);
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_kind_of_nic),
        cmocka_unit_test(test_bad_weather),
        cmocka_unit_test(test_modest_peers),
        cmocka_unit_test(test_small_pools),
        cmocka_unit_test(test_pool_full_of_pieces),
        cmocka_unit_test(test_reserve_is_for_acknowledgements),
        cmocka_unit_test(test_many_speak_at_once),
    };
    return cmocka_run_group_tests_name("wire tcp transfer", tests, NULL, NULL);
}
