/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SACK as an attack (HAZARDS TC-02, TC-03): whatever a peer reports about a window of 4,000
 * segments, one segment of its costs a bounded number of looks at ours. Counted are binary searches
 * (the linker puts a counter around tcp_sent_find()) and descriptors that change. And the same
 * window with every other segment really lost is repaired, each hole once.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tests/unit/recovery_fixture.h"

#define WINDOW 4000u
/* Blocks jump and mark within the budget; a judgement of losses has it again. The rest is a few
 * searches for where to begin. */
#define SEARCHES_MAX (2 * TCP_SACK_BUDGET + 16)

static uint32_t search_count;

uint32_t __real_tcp_sent_find(const struct tcb *tcb, uint32_t sequence);
uint32_t __wrap_tcp_sent_find(const struct tcb *tcb, uint32_t sequence);

uint32_t __wrap_tcp_sent_find(const struct tcb *tcb, uint32_t sequence)
{
    search_count++;
    return __real_tcp_sent_find(tcb, sequence);
}

static void open_window(struct recovery_fixture *f)
{
    fixture_open(f, WINDOW);
    tcp_rtt_sample(&f->tcb->rtt, &f->stack->options.tcp, 100000);
    fixture_send(f, WINDOW);
    fixture_advance(f, TICK_MS(100));
}

/* One ACK, within the bounds. Returns how many searches it took. */
static uint32_t bounded_ack(struct recovery_fixture *f, uint32_t acknowledged, uint32_t count,
                            const uint32_t blocks[][2])
{
    uint32_t sacked = f->tcb->sacked, lost = f->tcb->lost;

    search_count = 0;
    fixture_ack(f, acknowledged, count, blocks);
    assert_true(search_count <= SEARCHES_MAX);
    if (f->tcb->sacked > sacked)
        assert_true(f->tcb->sacked - sacked <= TCP_SACK_BUDGET * FIXTURE_MSS);
    if (f->tcb->lost > lost)
        assert_true(f->tcb->lost - lost <= TCP_SACK_BUDGET * FIXTURE_MSS);
    return search_count;
}

/* Every other segment is SACKED, alone, in any order. */
static void test_holes_everywhere(void **state)
{
    struct recovery_fixture f;
    struct rng rng;
    uint64_t total = 0;

    (void)state;
    rng_init_seed(&rng, 1);
    open_window(&f);
    for (uint32_t n = 0; n < 6000; n++) {
        uint32_t blocks[3][2];

        for (uint32_t i = 0; i < 3; i++) {
            blocks[i][0] = 1 + 2 * rng_below(&rng, WINDOW / 2);
            blocks[i][1] = blocks[i][0] + 1;
        }
        total += bounded_ack(&f, 0, 3, blocks);
    }
    print_message("# %u searches per ACK\n", (uint32_t)(total / 6000));
    assert_true(total / 6000 < 10);
    fixture_close(&f);
}

/* One block over everything, again and again: the budget is kept and yet all of it is read. */
static void test_one_large_block(void **state)
{
    static const uint32_t block[][2] = {{1, WINDOW}};
    struct recovery_fixture f;
    uint32_t count = 0;

    (void)state;
    open_window(&f);
    while (f.tcb->sacked < (WINDOW - 1) * FIXTURE_MSS) {
        bounded_ack(&f, 0, 1, block);
        count++;
    }
    assert_in_range(count, WINDOW / TCP_SACK_BUDGET, WINDOW / TCP_SACK_BUDGET + 2);
    /* Once read it costs nothing to hear it again. */
    bounded_ack(&f, 0, 1, block);
    assert_true(bounded_ack(&f, 0, 1, block) < 8);
    fixture_close(&f);
}

/* Blocks that begin and end anywhere, over and over, in a window that is SACKED already. */
static void test_blocks_within_blocks(void **state)
{
    static const uint32_t whole[][2] = {{1, WINDOW}};
    struct recovery_fixture f;
    struct rng rng;
    uint64_t total = 0;

    (void)state;
    rng_init_seed(&rng, 2);
    open_window(&f);
    while (f.tcb->sacked < (WINDOW - 1) * FIXTURE_MSS)
        bounded_ack(&f, 0, 1, whole);
    for (uint32_t n = 0; n < 4000; n++) {
        uint32_t blocks[4][2];

        for (uint32_t i = 0; i < 4; i++) {
            blocks[i][0] = 1 + rng_below(&rng, WINDOW - 2);
            blocks[i][1] = blocks[i][0] + 1 + rng_below(&rng, WINDOW - blocks[i][0]);
        }
        total += bounded_ack(&f, 0, 4, blocks);
    }
    print_message("# %u searches per ACK\n", (uint32_t)(total / 4000));
    assert_true(total / 4000 < 100);
    fixture_close(&f);
}

/* A loss, an undo, a loss, an undo: timestamps that lie make us take back each judgement. */
static void test_undo_for_each_ack(void **state)
{
    struct recovery_fixture f;

    (void)state;
    open_window(&f);
    f.tcb->flags |= TCB_HAS_TIMESTAMPS;
    f.timestamp_echo = tcp_timestamp_now(f.stack, 0) - 1000;
    bounded_ack(&f, 0, 1, (const uint32_t[][2]){{WINDOW - 4, WINDOW}});
    for (uint32_t n = 1; n < 500; n++) {
        assert_true(f.tcb->flags & TCB_IN_RECOVERY);
        assert_true(f.tcb->lost > 0);
        search_count = 0;
        fixture_output(&f);
        assert_true(search_count <= 4 * f.resent_count + 4);
        bounded_ack(&f, n, 0, NULL);
        if (!(f.tcb->flags & TCB_IN_RECOVERY)) {
            f.stack->now = tcp_recovery_reorder_at(f.stack, f.tcb);
            search_count = 0;
            tcp_recovery_on_reorder_timer(f.stack, f.tcb);
            assert_true(search_count <= SEARCHES_MAX);
        }
        assert_true(f.tcb->lost <= TCP_SACK_BUDGET * FIXTURE_MSS);
    }
    /* Each reduction found the window whole: there was an undo before it. */
    assert_int_equal(WINDOW * FIXTURE_MSS, f.tcb->congestion.cwnd_prior);
    fixture_close(&f);
}

/* Odd segments arrived, even ones are lost: in their order of arrival the peer reports them. */
static void test_half_of_the_window_is_lost(void **state)
{
    struct recovery_fixture f;
    uint32_t next = 0, rounds = 0;

    (void)state;
    open_window(&f);
    for (uint32_t n = 1; n < WINDOW; n += 2) {
        uint32_t blocks[3][2] = {{n, n + 1}, {n - 2, n - 1}, {n - 4, n - 3}};

        bounded_ack(&f, 0, n > 4 ? 3 : 1, blocks);
        fixture_output(&f);
    }
    /* What was sent again arrives; each fills one hole. */
    while (f.tcb->sent.count > 0 && rounds++ < 100) {
        uint32_t arrived = 0;

        fixture_advance(&f, TICK_MS(100));
        for (uint32_t index = 0; index < f.tcb->sent.count; index += 2, arrived++) {
            if (!(tcp_sent_at(&f.tcb->sent, index)->flags & TCP_SENT_RETRANSMITTED))
                break;
        }
        for (; arrived > 0; arrived--) {
            next += 2;
            bounded_ack(&f, next, next < WINDOW, (const uint32_t[][2]){{WINDOW - 1, WINDOW}});
            fixture_output(&f);
        }
    }
    print_message("# %u round trips\n", rounds);
    assert_int_equal(0, f.tcb->sent.count);
    assert_int_equal(WINDOW / 2, f.tcb->retransmit_count);
    assert_true(rounds < 8);
    fixture_close(&f);
}

/* One hole is never filled, however often it is sent again: what was sent is not remembered for
 * longer than it can matter. */
static void test_hole_that_stays(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 100);
    tcp_rtt_sample(&f.tcb->rtt, &f.stack->options.tcp, 1000);
    fixture_send(&f, 4);
    for (uint32_t n = 4; n < 2000; n++) {
        fixture_advance(&f, TICK_MS(1));
        bounded_ack(&f, 0, 1, (const uint32_t[][2]){{1, n}});
        fixture_output(&f);
        assert_int_equal(1, f.resent_count);
        assert_int_equal(0, f.resent[0]);
        fixture_advance(&f, 10);
        fixture_send(&f, 1);
    }
    assert_true(f.tcb->scoreboard->capacity <= 64);
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_holes_everywhere),           cmocka_unit_test(test_one_large_block),
        cmocka_unit_test(test_blocks_within_blocks),       cmocka_unit_test(test_undo_for_each_ack),
        cmocka_unit_test(test_half_of_the_window_is_lost), cmocka_unit_test(test_hole_that_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
