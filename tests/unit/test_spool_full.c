/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A spool that gets no more room, for whatever reason (HAZARDS M18): the disk is full, also when
 * the process is killed; there is no inode, or a quota, so that no file can be made although there
 * are octets. Each time: what is refused is refused at once, what was accepted is stored, what ends
 * ends for good, and mail is taken soon after there is room. On the simulated disk.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>
#include <errno.h>

#include "queue/disk_posix.h"
#include "queue/spool_internal.h"
#include "spool_sim_clock.h"
#include "tests/sim/disk_sim.h"

#define SEGMENT_SIZE (512u << 10)

/* ---- a full disk, and a process that is killed ---- */

#define FULL_MESSAGES 400u

struct full {
    struct disk_sim *sim;
    struct disk *disk;
    struct spool *spool;
    struct buf_pool *pool;
    struct rng rng;
    struct spool_entry *entries[FULL_MESSAGES];
    uint32_t count;
    bool must_fail_first; /* the next start cannot make its first file */
};

static void full_on_message(void *context, const struct spool_recovered *message)
{
    struct full *full = context;
    assert_true(full->count < FULL_MESSAGES);
    full->entries[full->count++] = message->entry;
}

static void full_start(struct full *full)
{
    struct spool_options options = {
        .segment_size = SEGMENT_SIZE,
        .size_max = 64 * SEGMENT_SIZE,
        .reserve_size = SEGMENT_SIZE,
        .segment_spare_min = 1,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_MS(20),
        .pool = full->pool,
    };
    struct spool_recovery *recovery;
    full->disk = disk_sim_open(full->sim);
    assert_int_equal(ERR_OK, spool_epoch_next(full->disk, &options.epoch));
    if (full->must_fail_first)
        disk_sim_fail_at(full->sim, DISK_SIM_OPEN, 1, ERR_DISK_FULL);
    full->must_fail_first = false;
    assert_int_equal(ERR_OK, spool_new(&options, full->disk, &full->rng, tick_now_read(&sim_clock),
                                       &full->spool));
    full->count = 0;
    assert_int_equal(ERR_OK, spool_recovery_run(full->disk, NULL, &recovery));
    spool_recovery_adopt(recovery, full->spool, 0, 1, full_on_message, full);
    spool_recovery_free(recovery);
}

static void full_kill(struct full *full)
{
    disk_sim_kill(full->sim, &full->rng);
    spool_free(full->spool);
    disk_free(full->disk);
}

static void full_turns(struct full *full, tick_us time)
{
    struct spool_event none;
    for (tick_us end = sim_tick + time; sim_tick < end; sim_tick += TICK_MS(1))
        assert_int_equal(0, spool_poll(full->spool, tick_now_read(&sim_clock), &none, 1));
}

static void full_commit(struct full *full, struct spool_transaction *transaction)
{
    struct buf *buf = buf_acquire(full->pool);
    struct buf_queue octets;
    buf_queue_init(&octets);
    buf_extend(buf, 15000);
    memset(buf_data(buf), 'x', 15000);
    buf_queue_append(&octets, buf, BUF_HEADROOM, 15000);
    buf_release(buf);
    assert_int_equal(ERR_OK, spool_write_body(full->spool, transaction, &octets));
    spool_commit(full->spool, transaction, SPAN_LITERAL("envelope"), 1);
    struct spool_event event = sim_wait(full->spool, SPOOL_EVENT_COMMITTED);
    assert_int_equal(ERR_OK, event.err);
    assert_true(full->count < FULL_MESSAGES);
    full->entries[full->count++] = event.entry;
}

/* False: refused. */
static bool full_store_now(struct full *full, bool with_reserve)
{
    struct message_id id = {rng_u64(&full->rng), 1};
    struct spool_transaction *transaction = spool_begin(full->spool, id, 15000, with_reserve);
    if (transaction != NULL)
        full_commit(full, transaction);
    return transaction != NULL;
}

/* False: refused, now and a while later. */
static bool full_store(struct full *full, bool with_reserve)
{
    if (full_store_now(full, with_reserve))
        return true;
    full_turns(full, TICK_MS(200));
    /* As the file system does by itself: what was removed is free. */
    assert_int_equal(ERR_OK, disk_sync_directory(full->disk));
    full_turns(full, TICK_S(2));
    return full_store_now(full, with_reserve);
}

/*
 * Mail and notifications fill a disk, and the process is killed: the tail of its segment is lost,
 * and for another one the disk has no room any more, only for a small one. What ends then ends for
 * good, and with that there is room again, also for mail.
 */
static void check_full_and_killed(uint64_t octets_left)
{
    struct disk_sim_options medium = {
        .clock = &sim_clock, .size = 8 * SEGMENT_SIZE, .latency_max = 50};
    struct full full = {.sim = disk_sim_new(&medium)};
    struct buf_pool_options buffers = {.data_size = 16384, .count_max = 100};
    full.pool = buf_pool_new(&buffers);
    rng_init_seed(&full.rng, octets_left);
    full_start(&full);
    for (uint32_t i = 0; i < 2; i++) {
        while (full_store(&full, i == 1))
            ;
    }
    uint32_t stored = full.count;
    assert_in_range(stored, 100, FULL_MESSAGES);
    /* What was kept for this is gone, too: a start removes it, and others have it at once. */
    uint64_t kept = full.spool->census.ready * (uint64_t)SEGMENT_SIZE;
    uint64_t used = disk_sim_get_stats(full.sim).octets_used - kept;
    full_kill(&full);
    disk_sim_resize(full.sim, used + octets_left);

    full_start(&full);
    assert_int_equal(stored, full.count);
    assert_false(full_store(&full, false));
    assert_false(full_store(&full, true));
    for (uint32_t i = 10; i < stored; i++)
        spool_done(full.spool, full.entries[i]);
    full_turns(&full, TICK_S(15));
    struct spool_stats stats = spool_get_stats(full.spool);
    assert_int_equal(10, stats.messages_live);
    full.count = 0;
    for (uint32_t i = 0; i < 40; i++)
        assert_true(full_store(&full, false));
    full_turns(&full, TICK_S(3));
    assert_int_equal(0, spool_get_stats(full.spool).octets_used % SEGMENT_SIZE); /* none is small */
    full_kill(&full);

    full_start(&full);
    assert_int_equal(50, full.count);
    full_kill(&full);
    disk_sim_free(full.sim);
    buf_pool_free(full.pool);
}

static void test_full_and_killed(void **state)
{
    (void)state;
    check_full_and_killed(SPOOL_SEGMENT_SIZE_MIN);
    check_full_and_killed(SPOOL_SEGMENT_SIZE_MIN + 4096);
    check_full_and_killed(SEGMENT_SIZE - 4096);
}

/* ---- two spools on it ---- */

static void pair_start(struct full *pair, struct disk_sim *sim)
{
    static struct spool_shares shares;
    struct spool_recovery *recovery;

    shares = (struct spool_shares){.count = 2};
    for (uint32_t i = 0; i < 2; i++) {
        struct spool_options options = {
            .segment_size = SEGMENT_SIZE,
            .size_max = 8 * SEGMENT_SIZE,
            .reserve_size = SEGMENT_SIZE,
            .segment_spare_min = 1,
            .commit_deadline = TICK_S(60),
            .lazy_time = TICK_MS(20),
            .pool = pair[i].pool,
            .shard = i,
            .shares = &shares,
        };
        pair[i].disk = disk_sim_open(sim);
        assert_int_equal(ERR_OK, spool_epoch_next(pair[i].disk, &options.epoch));
        assert_int_equal(ERR_OK, spool_new(&options, pair[i].disk, &pair[i].rng,
                                           tick_now_read(&sim_clock), &pair[i].spool));
        pair[i].count = 0;
    }
    assert_int_equal(ERR_OK, spool_recovery_run(pair[0].disk, NULL, &recovery));
    spool_recovery_adopt(recovery, pair[0].spool, 0, 1, full_on_message, &pair[0]);
    spool_recovery_free(recovery);
}

static void pair_turns(struct full *pair, tick_us time)
{
    struct spool_event none;

    for (tick_us end = sim_tick + time; sim_tick < end; sim_tick += TICK_MS(1)) {
        for (uint32_t i = 0; i < 2; i++)
            assert_int_equal(0, spool_poll(pair[i].spool, tick_now_read(&sim_clock), &none, 1));
    }
}

static void pair_kill(struct full *pair, struct disk_sim *sim)
{
    disk_sim_kill(sim, &pair[0].rng);
    for (uint32_t i = 0; i < 2; i++) {
        spool_free(pair[i].spool);
        disk_free(pair[i].disk);
    }
}

/* One of two spools got all segments, and none of them is free. What the disk has would be the
 * other one's, which has less, but is not in need: a little of it is enough for what ends. */
static void check_all_in_one(uint64_t octets_left)
{
    struct disk_sim_options medium = {
        .clock = &sim_clock, .size = 12 * SEGMENT_SIZE, .latency_max = 50};
    struct full full = {.sim = disk_sim_new(&medium)};
    struct buf_pool_options buffers = {.data_size = 16384, .count_max = 100};
    struct full pair[2] = {0};

    full.pool = pair[0].pool = pair[1].pool = buf_pool_new(&buffers);
    rng_init_seed(&full.rng, 1);
    rng_init_seed(&pair[0].rng, 2);
    rng_init_seed(&pair[1].rng, 3);
    full_start(&full);
    while (full_store(&full, true))
        ;
    uint32_t stored = full.count;
    uint64_t kept = full.spool->census.ready * (uint64_t)SEGMENT_SIZE;
    uint64_t used = disk_sim_get_stats(full.sim).octets_used - kept;
    full_kill(&full);
    /* The first has one segment to write to, and loses it. */
    disk_sim_resize(full.sim, used + SEGMENT_SIZE);
    pair_start(pair, full.sim);
    assert_int_equal(stored, pair[0].count);
    spool_done(pair[0].spool, pair[0].entries[--stored]);
    pair_turns(pair, TICK_S(1));
    assert_int_equal(0, pair[0].spool->pending.count);
    pair_kill(pair, full.sim);
    disk_sim_resize(full.sim, disk_sim_get_stats(full.sim).octets_used + octets_left);

    pair_start(pair, full.sim);
    assert_int_equal(stored, pair[0].count);
    for (uint32_t i = 0; i < stored; i++)
        spool_done(pair[0].spool, pair[0].entries[i]);
    pair_turns(pair, TICK_S(5));
    assert_int_equal(0, pair[0].spool->pending.count);
    pair_kill(pair, full.sim);

    pair_start(pair, full.sim);
    assert_int_equal(0, pair[0].count + pair[1].count);
    pair_kill(pair, full.sim);
    disk_sim_free(full.sim);
    buf_pool_free(full.pool);
}

static void test_all_in_one(void **state)
{
    (void)state;
    check_all_in_one(SPOOL_SEGMENT_SIZE_MIN);
    check_all_in_one(SEGMENT_SIZE - 4096);
}

/* ---- octets, but no files ---- */

#define QUICK TICK_MS(50) /* of a commit */

static void no_files_begin(struct full *full)
{
    struct disk_sim_options medium = {.clock = &sim_clock, .size = 64u << 20, .latency_max = 50};
    struct buf_pool_options buffers = {.data_size = 16384, .count_max = 100};
    *full = (struct full){.sim = disk_sim_new(&medium), .pool = buf_pool_new(&buffers)};
    rng_init_seed(&full->rng, 1);
}

static void no_files_end(struct full *full)
{
    full_kill(full);
    disk_sim_free(full->sim);
    buf_pool_free(full->pool);
}

/* No file can be made any more, or files can. As the real disk has it of a quota and of inodes. */
static void refuse_files(struct full *full, bool is_refused)
{
    disk_sim_fail_often(full->sim, DISK_SIM_CREATE, is_refused ? 1000000 : 0,
                        disk_posix_err(EDQUOT));
}

/* Store until the spool is full. Nothing that it takes waits for room. */
static uint32_t fill_quickly(struct full *full)
{
    uint32_t stored = 0;
    for (bool is_taken = true; is_taken; stored += is_taken) {
        tick_us begun = sim_tick;
        is_taken = full_store_now(full, false);
        assert_true(sim_tick - begun < QUICK);
    }
    assert_int_equal(ERR_DISK_FULL, spool_refusal(full->spool));
    return stored;
}

/* An inode, or a quota, is what the file system has no more of: what it can still be told is that
 * mail ends, and that is enough to take mail again. */
static void test_no_inode_or_a_quota(void **state)
{
    (void)state;
    assert_int_equal(ERR_DISK_FULL, disk_posix_err(ENOSPC)); /* what no inode is */
    assert_int_equal(ERR_DISK_FULL, disk_posix_err(EDQUOT));
    struct full full;
    no_files_begin(&full);
    full_start(&full);
    for (uint32_t i = 0; i < 60; i++)
        assert_true(full_store_now(&full, false));
    refuse_files(&full, true);
    uint32_t stored = 60 + fill_quickly(&full);
    full_turns(&full, TICK_S(1)); /* a file was just being made */
    stored += fill_quickly(&full);
    for (uint32_t i = 0; i < 20; i++) { /* not for a moment either, whenever it looks again */
        full_turns(&full, TICK_MS(190));
        assert_false(full_store_now(&full, false));
    }

    /* Deliveries go on, and are written: there is something to write to. */
    for (uint32_t i = 0; i < stored; i++)
        spool_done(full.spool, full.entries[i]);
    full_turns(&full, TICK_S(1));
    struct spool_stats stats = spool_get_stats(full.spool);
    assert_int_equal(0, stats.messages_live);
    assert_false(stats.is_stuck);
    full.count = 0;
    assert_true(fill_quickly(&full) >= 30); /* into the same segments */
    full_turns(&full, TICK_S(1));
    (void)fill_quickly(&full);

    refuse_files(&full, false);
    full_turns(&full, TICK_S(3)); /* of the ten that it may take */
    for (uint32_t i = 0; i < 100; i++)
        assert_true(full_store_now(&full, false));
    stored = full.count;
    full_kill(&full);
    full_start(&full);
    assert_int_equal(stored, full.count);
    no_files_end(&full);
}

/* The relay is started when not even its first file can be made: what is there goes out. */
static void test_start_without_an_inode(void **state)
{
    (void)state;
    struct full full;
    no_files_begin(&full);
    full_start(&full);
    for (uint32_t i = 0; i < 10; i++)
        assert_true(full_store_now(&full, false));
    full_kill(&full);

    full.must_fail_first = true;
    refuse_files(&full, true);
    full_start(&full);
    assert_int_equal(10, full.count);
    assert_false(full_store_now(&full, false));
    for (uint32_t i = 0; i < 5; i++)
        spool_done(full.spool, full.entries[i]);
    full_turns(&full, TICK_S(5));
    refuse_files(&full, false);
    full_turns(&full, TICK_S(3));
    assert_int_equal(5, spool_get_stats(full.spool).messages_live);
    assert_true(full_store_now(&full, false));
    no_files_end(&full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_full_and_killed),
        cmocka_unit_test(test_all_in_one),
        cmocka_unit_test(test_no_inode_or_a_quota),
        cmocka_unit_test(test_start_without_an_inode),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
