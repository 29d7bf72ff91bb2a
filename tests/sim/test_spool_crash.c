/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool under crashes and failing disks, checked against a ledger (spool_world.c).
 *
 * The same program is built once as shipped, where no violation may be found, and once per planted
 * bug, where one must be found: a checker is trusted only after it has caught something.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/spool_record.h"
#include "tests/sim/spool_world.h"

#ifndef SEEDS
#define SEEDS 40u
#endif
#define BUG_SEEDS 400u
#define LIVES     6u
#define SAMPLES   100u

static struct world_options options_of(uint64_t seed)
{
    return (struct world_options){
        .seed = seed,
        .segment_size = 256u << 10,
        .size_max = 12u * (256u << 10),
        .disk_size = 64u << 20,
        .latency_max = 3000,
    };
}

static uint32_t shards_of(uint64_t number)
{
    return 1 + (uint32_t)(number % WORLD_SHARDS_MAX);
}

/* End the life, by a power loss or (is_kill) with the process alone, and start again until the
 * start itself was not disturbed. */
static void revive_after(struct world *world, uint32_t shard_count, bool is_kill)
{
    bool is_up = false;
    for (uint32_t i = 0; i < 20 && !is_up; i++) {
        world_crash(world, i == 0 ? is_kill : i % 3 == 2);
        is_up = world_start(world, shard_count);
    }
    assert_true(is_up);
}

static void revive(struct world *world, uint32_t shard_count)
{
    revive_after(world, shard_count, false);
}

static void report(const struct world *world, const char *what, uint64_t number)
{
    if (world->violations > 0)
        print_message("# %s %lu, seed %lu: %u violations, first: %s\n", what, number,
                      world->options.seed, world->violations, world->first_violation);
}

static void fail_often(struct world *world, bool is_on)
{
    uint32_t on = is_on ? 1 : 0;
    disk_sim_fail_often(world->sim, DISK_SIM_WRITE, on * 5000, ERR_DISK_IO);
    disk_sim_fail_often(world->sim, DISK_SIM_SYNC, on * 20000, ERR_DISK_IO);
    disk_sim_fail_often(world->sim, DISK_SIM_CREATE, on * 100000, ERR_DISK_FULL);
}

/* Work, crash, recover, several times over, with changing numbers of shards: every other life ends
 * by a power loss, the others are killed. */
static uint32_t run_lives(const struct world_options *options)
{
    struct world *world = world_new(options);
    uint64_t seed = options->seed;
    assert_true(world_start(world, shards_of(seed)));
    for (uint32_t life = 0; life < LIVES && world->violations == 0; life++) {
        world_work(world, 150 + 100 * (uint32_t)(seed % 4));
        if (rng_below(&world->chance, 3) == 0)
            world_settle(world);
        revive_after(world, shards_of(seed + life), life % 2 == 1);
        if (rng_below(&world->chance, 2) == 0)
            world_read_all(world);
    }
    uint32_t violations = world->violations;
    report(world, "life", world->lives);
    world_free(world);
    return violations;
}

static void test_lives(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct world_options options = options_of(seed);
        assert_int_equal(0, run_lives(&options));
    }
}

/* Little space and a few messages that stay long: segments are used again and again, survivors are
 * copied forward, nothing is lost and nothing comes back. */
static uint32_t run_churn(uint64_t seed, bool is_failing, uint64_t *copied, uint64_t *recycled)
{
    struct world_options options = options_of(seed);
    options.size_max = (is_failing ? 16u : 5u) * options.segment_size;
    options.live_max = 10;
    struct world *world = world_new(&options);
    assert_true(world_start(world, 1));
    for (uint32_t life = 0; life < 4 && world->violations == 0; life++) {
        fail_often(world, is_failing);
        world_work(world, 700);
        fail_often(world, false);
        if (life % 2 == 0)
            world_settle(world);
        revive(world, 1);
        world_read_all(world);
    }
    uint32_t violations = world->violations;
    report(world, "churn", world->lives);
    *copied += world->copied;
    *recycled += world->recycled;
    world_free(world);
    return violations;
}

static void test_churn(void **state)
{
    (void)state;
    uint64_t copied = 0, recycled = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        assert_int_equal(0, run_churn(seed, seed % 2 == 0, &copied, &recycled));
    print_message("# %lu segments used again, %lu messages copied forward\n", recycled, copied);
    assert_true(recycled > 20 * SEEDS);
    assert_true(copied > SEEDS / 2);
}

/* A short life on a directory that already has a history. */
static struct world *short_life(uint64_t seed)
{
    struct world_options options = options_of(seed);
    struct world *world = world_new(&options);
    assert_true(world_start(world, 2));
    world_work(world, 120);
    revive(world, 1);
    return world;
}

static uint64_t count_calls(uint64_t seed, uint32_t operations)
{
    struct world *world = short_life(seed);
    uint64_t before = disk_sim_calls(world->sim);
    world_work(world, operations);
    world_settle(world);
    uint64_t calls = disk_sim_calls(world->sim) - before;
    assert_int_equal(0, world->violations);
    world_free(world);
    return calls;
}

/* Power fails at every disk call in turn. */
static void test_power_loss_at_every_call(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 3; seed++) {
        uint64_t calls = count_calls(seed, 200);
        assert_in_range(calls, 50, 5000);
        for (uint64_t call = 1; call <= calls; call++) {
            struct world *world = short_life(seed);
            rng_init_seed(&world->chance, call);
            disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + call);
            world_work(world, 200);
            world_settle(world);
            revive(world, 2);
            world_read_all(world);
            revive(world, 1); /* recovery changed nothing */
            report(world, "stop at call", call);
            assert_int_equal(0, world->violations);
            world_free(world);
        }
    }
}

/* Power fails, and fails again in the life after it, or while that one starts: points by chance. */
static void test_power_loss_twice(void **state)
{
    (void)state;
    uint64_t calls = count_calls(5, 200);
    for (uint64_t sample = 1; sample <= SAMPLES; sample++) {
        struct world *world = short_life(5);
        rng_init_seed(&world->chance, sample);
        uint64_t first = 1 + rng_below(&world->chance, (uint32_t)calls);
        disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + first);
        world_work(world, 200);
        world_crash(world, false);
        uint64_t second = 1 + rng_below(&world->chance, (uint32_t)calls);
        disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + second);
        if (world_start(world, shards_of(sample)))
            world_work(world, 200);
        revive(world, 2);
        world_read_all(world);
        revive(world, 1);
        report(world, "sample", sample);
        assert_int_equal(0, world->violations);
        world_free(world);
    }
}

/* Each disk call fails once; the life goes on, then power fails. */
static void test_failure_of_every_call(void **state)
{
    (void)state;
    static const enum err errs[] = {ERR_DISK_IO, ERR_DISK_FULL};
    uint64_t calls = count_calls(7, 200), ahead = 0;
    for (uint64_t call = 1; call <= calls; call++) {
        struct world *world = short_life(7);
        rng_init_seed(&world->chance, call);
        disk_sim_fail_call(world->sim, disk_sim_calls(world->sim) + call, errs[call % 2]);
        world_work(world, 200);
        disk_sim_fail_call(world->sim, 0, ERR_OK);
        if (call % 2 == 0)
            world_settle(world);
        revive(world, 2);
        world_read_all(world);
        report(world, "failure of call", call);
        assert_int_equal(0, world->violations);
        ahead += world->ahead;
        world_free(world);
    }
    assert_true(ahead > calls); /* batches that were handed over behind one that may have failed */
}

/* Failures by chance, several at a time, over several lives. */
static uint32_t run_failures(uint64_t seed)
{
    struct world_options options = options_of(seed);
    options.size_max *= 2; /* retired segments are not used again before the next start */
    struct world *world = world_new(&options);
    assert_true(world_start(world, 1));
    for (uint32_t life = 0; life < 3 && world->violations == 0; life++) {
        fail_often(world, true);
        world_work(world, 200);
        fail_often(world, false);
        if (rng_below(&world->chance, 2) == 0)
            world_settle(world);
        revive(world, shards_of(seed + life));
    }
    uint32_t violations = world->violations;
    report(world, "life", world->lives);
    world_free(world);
    return violations;
}

static void test_failures_by_chance(void **state)
{
    (void)state;
    for (uint64_t seed = 100; seed < 100 + SEEDS; seed++)
        assert_int_equal(0, run_failures(seed));
}

/* Power fails again and again while a start reads the directory. */
static void test_power_loss_in_recovery(void **state)
{
    (void)state;
    struct world *world = short_life(11);
    world_work(world, 150);
    world_crash(world, false);
    for (uint64_t call = 1; call < 400; call++) {
        disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + call);
        bool is_up = world_start(world, shards_of(call));
        world_crash(world, false);
        report(world, "recovery stopped at call", call);
        assert_int_equal(0, world->violations);
        if (is_up)
            break;
    }
    assert_true(world_start(world, 1));
    world_read_all(world);
    assert_int_equal(0, world->violations);
    assert_true(world->recovered > 0);
    world_free(world);
}

/* The device stalls for longer than the commit deadline: 4xx, and the mail does not come back. */
static void test_late_sync(void **state)
{
    (void)state;
    uint64_t refused = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        struct world *world = short_life(seed);
        uint64_t failures = world->failures;
        world_work(world, 50);
        disk_sim_hold(world->sim, true);
        world->is_quiet = seed % 2 == 0;
        world_work(world, 10);
        for (uint32_t i = 0; i < (seed % 3 == 0 ? 330 : 110); i++)
            world_turn(world, TICK_MS(100));
        /* VOIDs cannot be written either: after another deadline the senders are told all the same.
         */
        for (uint32_t i = 0; seed % 3 == 0 && i < world->message_count; i++)
            assert_true(world->messages[i].state != WORLD_COMMITTING);
        disk_sim_hold(world->sim, false);
        world->is_quiet = false;
        world_work(world, 50);
        world_settle(world);
        refused += world->failures - failures;
        revive(world, 1);
        report(world, "late sync", seed);
        assert_int_equal(0, world->violations);
        world_free(world);
    }
    print_message("# %lu commits refused\n", refused);
    assert_true(refused > 20);
}

/* Every call takes up to five seconds: slow, and nothing else. */
static void test_slow_disk(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct world_options options = options_of(seed);
        options.latency_max = TICK_S(5);
        struct world *world = world_new(&options);
        assert_true(world_start(world, shards_of(seed)));
        for (uint32_t i = 0; i < 15; i++) {
            world_work(world, 10);
            for (uint32_t j = 0; j < 20; j++)
                world_turn(world, TICK_MS(500));
        }
        assert_true(world->commits > 10);
        revive(world, shards_of(seed + 1));
        world_read_all(world);
        report(world, "slow disk", seed);
        assert_int_equal(0, world->violations);
        world_free(world);
    }
}

/* A planted bug must show in some seed. */
static void check_bug_is_caught(bool is_of_directory)
{
    for (uint64_t seed = 1; seed <= BUG_SEEDS; seed++) {
        struct world_options options = options_of(seed);
        options.is_false_sync = SPOOL_BUG == SPOOL_BUG_NONE && !is_of_directory;
        options.is_false_directory_sync = SPOOL_BUG == SPOOL_BUG_NONE && is_of_directory;
        uint32_t violations =
            SPOOL_BUG == SPOOL_BUG_VOID_IGNORED ? run_failures(seed) : run_lives(&options);
        if (violations > 0)
            return;
    }
    fail_msg("%u seeds did not show the planted bug", BUG_SEEDS);
}

static void test_bug_is_caught(void **state)
{
    (void)state;
    check_bug_is_caught(false);
}

static void test_directory_sync_left_out_is_caught(void **state)
{
    (void)state;
    check_bug_is_caught(true);
}

int main(void)
{
    const struct CMUnitTest shipped[] = {
        cmocka_unit_test(test_lives),
        cmocka_unit_test(test_churn),
        cmocka_unit_test(test_power_loss_at_every_call),
        cmocka_unit_test(test_power_loss_twice),
        cmocka_unit_test(test_failure_of_every_call),
        cmocka_unit_test(test_failures_by_chance),
        cmocka_unit_test(test_power_loss_in_recovery),
        cmocka_unit_test(test_late_sync),
        cmocka_unit_test(test_slow_disk),
        cmocka_unit_test(test_bug_is_caught), /* syncs that do nothing */
        cmocka_unit_test(test_directory_sync_left_out_is_caught),
    };
    const struct CMUnitTest planted[] = {
        cmocka_unit_test(test_bug_is_caught),
    };
    if (SPOOL_BUG == SPOOL_BUG_NONE)
        return cmocka_run_group_tests(shipped, NULL, NULL);
    return cmocka_run_group_tests(planted, NULL, NULL);
}
