/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Transfers over bad paths, by chance. After each event the fixture verifies the scoreboard: the
 * counters are the sums over the descriptors, cwnd is a segment at least. In the end everything has
 * arrived, in bounded time, with a bounded number of transmissions.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/recovery_net.h"

static const struct recovery_path paths[] = {
    {.loss = 0},
    {.loss = 10},
    {.loss = 100},
    {.loss = 500, .ack_loss = 500},
    {.loss = 2000, .ack_loss = 1000},
    {.jitter = TICK_MS(20)},
    {.jitter = TICK_MS(60), .loss = 100, .duplicate = 100},
    {.jitter = TICK_MS(5), .loss = 300, .ack_loss = 3000},
    {.duplicate = 2000},
};
static const uint32_t peers[] = {0, TCB_HAS_SACK, TCB_HAS_TIMESTAMPS,
                                 TCB_HAS_SACK | TCB_HAS_TIMESTAMPS};

static void run(const struct recovery_path *shape, uint32_t flags, uint64_t seed)
{
    struct recovery_path path = *shape;

    path.flags = flags;
    path.seed = seed;
    path.rtt = TICK_MS(40);
    path.segments = 600;
    path.is_delayed_ack = seed & 1;
    struct recovery_result result = recovery_net_run(&path);
    print_message("# loss %u ack loss %u jitter %u dup %u peer %s%s: %u ms, sent %u lost %u "
                  "resent %u needless %u rto %u tlp %u\n",
                  path.loss, path.ack_loss, (uint32_t)path.jitter, path.duplicate,
                  flags & TCB_HAS_SACK ? "S" : "", flags & TCB_HAS_TIMESTAMPS ? "T" : "",
                  (uint32_t)(result.time / 1000), result.sent, result.lost, result.resent,
                  result.needless, result.time_outs, result.probes);
    assert_true(result.is_complete);
    assert_true(result.sent < 2 * path.segments + 4 * result.lost);
}

static void test_paths(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(paths); i++) {
        for (uint32_t peer = 0; peer < COUNT_OF(peers); peer++) {
            for (uint64_t seed = 1; seed <= 4; seed++)
                run(&paths[i], peers[peer], seed);
        }
    }
}

/* Lies cost the liar: the transfer may not end, but nothing breaks. */
static void test_liars(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct recovery_path path = {.loss = 200,
                                     .rtt = TICK_MS(40),
                                     .segments = 600,
                                     .flags = TCB_HAS_SACK | (seed & 1 ? TCB_HAS_TIMESTAMPS : 0),
                                     .is_liar = true,
                                     .seed = seed};

        recovery_net_run(&path);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_liars),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
