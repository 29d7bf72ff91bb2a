/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goodput of one bulk flow between two stacks over bad paths, beside what theory expects.
 *
 *   random loss p     the larger of RFC 9438 section 5.1: 1.054 RTT^(3/4) / p^(3/4) segments per
 * RTT (CUBIC), and 1.22 / p^(1/2) (Reno's law, Mathis et al. 1997, which CUBIC's Reno-friendly
 * region keeps) a full buffer     what the link carries
 *
 * Each row is a cell of a snapshot: with its seed it is the same to the octet, so it moves only
 * when the engine is changed. It fails when it leaves the recorded figure by more than TOLERANCE,
 * in either direction (then look why, and record anew), or falls below its share of the theory.
 * WIRE_GOODPUT_PRINT=1 prints the figures to record.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/sim/wire_transfer.h"

#define TOLERANCE  15u /* per cent */
#define MSS        1448.0
#define FRAME_SIZE 1514.0

enum peer { FULL, NO_SACK, NO_TIMESTAMPS, NEITHER, NEWRENO };

struct cell {
    const char *name;
    uint32_t loss; /* per million */
    uint32_t rtt_ms;
    uint32_t mbit;
    uint32_t buffer;  /* per cent of rate x RTT */
    uint32_t reorder; /* per million, by up to a tenth of the RTT */
    enum peer peer;
    uint32_t seconds;
    uint32_t share;    /* per cent of the theory, at least */
    uint32_t recorded; /* octets per millisecond */
};

static double theory(const struct cell *cell)
{
    double link = cell->mbit * 125.0 * MSS / FRAME_SIZE;
    double rtt = cell->rtt_ms / 1000.0, p = cell->loss / 1e6;

    if (cell->loss == 0)
        return link;
    if (cell->mbit == 0)
        link = INFINITY;
    double reno = 1.22 / sqrt(p), cubic = 1.054 * pow(rtt / p, 0.75);
    double window = cell->peer != NEWRENO && cubic > reno ? cubic : reno;
    double rate = window * MSS / cell->rtt_ms;
    return rate < link ? rate : link;
}

static struct wire_transfer transfer_of(const struct cell *cell)
{
    struct wire_transfer transfer = {
        .sender = tcp_policy_default(),
        .receiver = tcp_policy_default(),
        .warm_up = TICK_S(5),
        .time = TICK_S(cell->seconds),
        .seed = 1,
    };

    transfer.forth = transfer.back = (struct link_sim_path){.delay = TICK_MS(cell->rtt_ms) / 2};
    transfer.forth.lose = cell->loss;
    transfer.forth.rate = cell->mbit * 125000ull;
    transfer.forth.queue_max =
        (uint32_t)(transfer.forth.rate * cell->rtt_ms / 1000 * cell->buffer / 100);
    transfer.forth.reorder = cell->reorder;
    transfer.forth.reorder_delay = TICK_MS(cell->rtt_ms) / 10;
    transfer.receiver.has_sack = cell->peer != NO_SACK && cell->peer != NEITHER;
    transfer.receiver.has_timestamps = cell->peer != NO_TIMESTAMPS && cell->peer != NEITHER;
    transfer.sender.is_newreno = cell->peer == NEWRENO;
    return transfer;
}

static void check(const struct cell *cell)
{
    struct wire_transfer transfer = transfer_of(cell);
    struct wire_transfer_result result = wire_transfer_run(&transfer);
    double goodput = (double)result.octets / (cell->seconds * 1000.0);
    double expected = theory(cell);

    print_message(
        "# %-34s loss %.2f %%, %u ms, %u Mbit/s, buffer %u %%: %.0f of %.0f octets/ms, "
        "%.0f %%; lost %u, sent again %u, time-outs %u, probes %u\n",
        cell->name, cell->loss / 1e4, cell->rtt_ms, cell->mbit, cell->buffer, goodput, expected,
        100 * goodput / expected, (uint32_t)(result.link.lost + result.link.queue_dropped),
        (uint32_t)result.retransmitted, (uint32_t)result.time_outs, (uint32_t)result.probes);
    if (getenv("WIRE_GOODPUT_PRINT") != NULL)
        return;
    assert_true(goodput * 100 >= expected * cell->share);
    assert_in_range((uint32_t)goodput, cell->recorded - cell->recorded * TOLERANCE / 100,
                    cell->recorded + cell->recorded * TOLERANCE / 100);
}

static void test_random_loss(void **state)
{
    static const struct cell cells[] = {
        {"near, one in 10,000", 100, 10, 200, 100, 0, FULL, 6, 80, 18794},
        {"near, one in 1,000", 1000, 10, 200, 100, 0, FULL, 15, 80, 6107},
        {"near, one in 100", 10000, 10, 200, 100, 0, FULL, 30, 80, 1753},
        {"continent, one in 10,000", 100, 50, 200, 100, 0, FULL, 30, 80, 4945},
        {"continent, one in 1,000", 1000, 50, 200, 100, 0, FULL, 60, 80, 1290},
        {"continent, one in 100", 10000, 50, 200, 100, 0, FULL, 60, 80, 373},
        {"continent, three in 100", 30000, 50, 200, 100, 0, FULL, 60, 80, 198},
        {"ocean, one in 10,000", 100, 150, 200, 100, 0, FULL, 40, 60, 4205},
        {"ocean, one in 1,000", 1000, 150, 200, 100, 0, FULL, 120, 80, 520},
        {"ocean, one in 100", 10000, 150, 200, 100, 0, FULL, 120, 80, 129},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cells); i++)
        check(&cells[i]);
}

static void test_buffers(void **state)
{
    static const struct cell cells[] = {
        {"near, a tenth of the path", 0, 10, 50, 10, 0, FULL, 20, 85, 5312},
        {"near, half of it", 0, 10, 20, 50, 0, FULL, 20, 95, 2372},
        {"near, all of it", 0, 10, 20, 100, 0, FULL, 20, 95, 2389},
        {"continent, a tenth", 0, 50, 20, 10, 0, FULL, 20, 85, 2225},
        {"continent, half", 0, 50, 20, 50, 0, FULL, 20, 95, 2389},
        {"continent, four times", 0, 50, 50, 400, 0, FULL, 20, 95, 5959},
        {"ocean, a tenth", 0, 150, 20, 10, 0, FULL, 60, 80, 2088},
        {"ocean, half", 0, 150, 50, 50, 0, FULL, 40, 95, 5959},
        {"ocean, all", 0, 150, 50, 100, 0, FULL, 40, 95, 5959},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cells); i++)
        check(&cells[i]);
}

static void test_peers(void **state)
{
    static const struct cell cells[] = {
        {"NewReno instead of CUBIC", 10000, 50, 200, 100, 0, NEWRENO, 60, 70, 316},
        {"no SACK", 10000, 50, 200, 100, 0, NO_SACK, 60, 60, 351},
        {"no SACK, flights in one burst", 10000, 50, 0, 0, 0, NO_SACK, 60, 75, 352},
        {"no timestamps", 10000, 50, 200, 100, 0, NO_TIMESTAMPS, 60, 80, 366},
        {"neither", 10000, 50, 200, 100, 0, NEITHER, 60, 60, 332},
        {"one in 100 comes late", 0, 50, 20, 100, 10000, FULL, 20, 90, 2389},
        {"one in 100 comes late, no SACK", 0, 50, 20, 100, 10000, NO_SACK, 20, 50, 1942},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cells); i++)
        check(&cells[i]);
}

/* Flows that share a bottleneck get like shares and leave none of it unused. */
static void test_fairness(void **state)
{
    const struct cell cell = {.rtt_ms = 40, .mbit = 20, .buffer = 100, .peer = FULL, .seconds = 60};
    struct wire_transfer transfer = transfer_of(&cell);

    (void)state;
    transfer.flows = 4;
    struct wire_transfer_result result = wire_transfer_run(&transfer);
    double goodput = (double)result.octets / (cell.seconds * 1000.0);
    print_message("# four flows: %.0f of %.0f octets/ms, from %.0f to %.0f\n", goodput,
                  theory(&cell), (double)result.least / (cell.seconds * 1000.0),
                  (double)result.most / (cell.seconds * 1000.0));
    assert_true(goodput >= 0.95 * theory(&cell));
    assert_true(result.least * 2 >= result.most);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_loss),
        cmocka_unit_test(test_buffers),
        cmocka_unit_test(test_peers),
        cmocka_unit_test(test_fairness),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
