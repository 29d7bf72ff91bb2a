/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of queue/disk.h, the same tests on all three disks: io_uring, helper threads and the
 * simulated one. Then what only the simulated one promises: what a crash leaves.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>
#include <poll.h>

#include "queue/disk.h"
#include "tests/sim/disk_sim.h"

#define FILE_SIZE_LIMIT (4u << 20) /* of this process, for writes that fail */

static tick_us sim_tick;

static tick_us tick_read(void *context)
{
    (void)context;
    return sim_tick;
}

static wall_us wall_read(void *context)
{
    (void)context;
    return (wall_us)sim_tick;
}

static const struct tick_source sim_clock = {tick_read, wall_read, NULL};

struct fixture {
    struct disk *disk;
    struct disk_sim *sim; /* NULL: a real disk */
    char path[64];
};

static struct fixture fixture_real(enum disk_kind kind)
{
    struct fixture fixture = {0};
    snprintf(fixture.path, sizeof(fixture.path), "/tmp/angarium-test-disk-XXXXXX");
    assert_non_null(mkdtemp(fixture.path));
    enum err err = disk_new(fixture.path, kind, &fixture.disk);
    if (err != ERR_OK && kind == DISK_KIND_URING) {
        rmdir(fixture.path);
        print_message("# io_uring is denied here\n");
        skip();
    }
    assert_int_equal(ERR_OK, err);
    return fixture;
}

static struct fixture fixture_sim(void)
{
    struct disk_sim_options options = {
        .clock = &sim_clock, .size = 8u << 20, .latency_min = 5, .latency_max = 50, .seed = 1};
    struct fixture fixture = {.sim = disk_sim_new(&options)};
    fixture.disk = disk_sim_open(fixture.sim);
    return fixture;
}

static void on_name(void *context, const char *name)
{
    char(*names)[64] = context;
    for (uint32_t i = 0; i < 8; i++) {
        if (names[i][0] == 0) {
            snprintf(names[i], sizeof(names[i]), "%s", name);
            return;
        }
    }
}

static void fixture_end(struct fixture *fixture)
{
    char names[8][64] = {0};
    assert_int_equal(ERR_OK, disk_list(fixture->disk, on_name, names));
    for (uint32_t i = 0; i < 8 && names[i][0] != 0; i++)
        assert_int_equal(ERR_OK, disk_unlink(fixture->disk, names[i]));
    disk_free(fixture->disk);
    if (fixture->sim != NULL)
        disk_sim_free(fixture->sim);
    else
        assert_int_equal(0, rmdir(fixture->path));
}

/* The eventfd may stay readable for a completion that was taken already (who sleeps watches its
 * edges), so that looking is bounded by time. */
static struct disk_completion wait_one(struct fixture *fixture)
{
    struct disk_completion completion;
    uint32_t looks_max = fixture->sim != NULL ? 10000 : 20000; /* mostly a millisecond apart */
    for (uint32_t i = 0; i < looks_max; i++) {
        sim_tick += 10;
        if (disk_poll(fixture->disk, &completion, 1) == 1)
            return completion;
        if (fixture->sim == NULL) {
            struct pollfd event = {.fd = disk_eventfd(fixture->disk), .events = POLLIN};
            assert_int_not_equal(-1, poll(&event, 1, 5000));
            if (i > 1000)
                usleep(1000);
        }
    }
    fail_msg("no completion");
    return (struct disk_completion){0};
}

static struct disk_file *create(struct fixture *fixture, const char *name, uint64_t size)
{
    struct disk_file *file = NULL;
    disk_submit_create(fixture->disk, name, size, &file, 77);
    struct disk_completion completion = wait_one(fixture);
    assert_int_equal(ERR_OK, completion.err);
    assert_int_equal(77, completion.token);
    assert_non_null(file);
    return file;
}

static void check_blocking(struct fixture *fixture)
{
    struct disk *disk = fixture->disk;
    struct disk_file *file, *other;
    uint64_t size;
    assert_int_equal(ERR_NOT_FOUND, disk_open(disk, "a", 0, &file));
    assert_int_equal(ERR_OK, disk_open(disk, "a", DISK_OPEN_CREATE, &file));
    assert_int_equal(ERR_DISK_IO, disk_open(disk, "a", DISK_OPEN_CREATE, &other));
    assert_int_equal(ERR_OK, disk_allocate(disk, file, 100000));
    assert_int_equal(ERR_OK, disk_file_size(disk, file, &size));
    assert_int_equal(100000, size);
    assert_int_equal(ERR_OK, disk_sync_directory(disk));

    uint8_t octets[64];
    uint32_t got;
    memset(octets, 1, sizeof(octets));
    assert_int_equal(ERR_OK, disk_read(disk, file, 99990, octets, 64, &got));
    assert_int_equal(10, got);
    assert_int_equal(0, octets[9]);
    assert_int_equal(ERR_OK, disk_read(disk, file, 100000, octets, 64, &got));
    assert_int_equal(0, got);

    /* A lock excludes another opening of the same file, also in the same process. */
    assert_int_equal(ERR_OK, disk_lock(disk, file));
    assert_int_equal(ERR_OK, disk_lock(disk, file));
    assert_int_equal(ERR_OK, disk_open(disk, "a", 0, &other));
    assert_int_equal(ERR_DISK_LOCKED, disk_lock(disk, other));
    disk_close(disk, file);
    assert_int_equal(ERR_OK, disk_lock(disk, other));
    disk_close(disk, other);

    uint64_t octets_free, octets_total;
    assert_int_equal(ERR_OK, disk_space(disk, &octets_free, &octets_total));
    assert_true(octets_free <= octets_total && octets_total > 0);
    assert_int_equal(ERR_NOT_FOUND, disk_unlink(disk, "b"));
}

static void check_write(struct fixture *fixture)
{
    struct disk *disk = fixture->disk;
    struct disk_file *file = create(fixture, "w", 1 << 20);
    uint8_t data[DISK_VECTOR_MAX];
    struct iovec vector[DISK_VECTOR_MAX];
    for (uint32_t i = 0; i < DISK_VECTOR_MAX; i++) {
        data[i] = (uint8_t)(i * 7);
        vector[i] = (struct iovec){&data[i], 1};
    }
    disk_submit_write(disk, file, 4096, vector, DISK_VECTOR_MAX, true, 1);
    memset(vector, 0, sizeof(vector)); /* the vector is copied */
    struct disk_completion completion = wait_one(fixture);
    assert_int_equal(1, completion.token);
    assert_int_equal(ERR_OK, completion.err);
    assert_int_equal(DISK_VECTOR_MAX, completion.size);

    /* Both sides of what the kernel takes at a time, without a sync. */
    for (uint32_t count = 1023; count <= 1025; count++) {
        for (uint32_t i = 0; i < count; i++)
            vector[i] = (struct iovec){&data[i], 1};
        disk_submit_write(disk, file, 16384, vector, count, false, count);
        completion = wait_one(fixture);
        assert_int_equal(ERR_OK, completion.err);
        assert_int_equal(count, completion.size);
    }
    uint8_t pieces[1025] = {0};
    disk_submit_read(disk, file, 16384, pieces, sizeof(pieces), 6);
    assert_int_equal(ERR_OK, wait_one(fixture).err);
    assert_memory_equal(data, pieces, sizeof(pieces));

    struct iovec one = {data, 100};
    disk_submit_write(disk, file, 0, &one, 1, false, 2);
    completion = wait_one(fixture);
    assert_int_equal(2, completion.token);
    assert_int_equal(100, completion.size);
    disk_submit_sync(disk, file, 3);
    completion = wait_one(fixture);
    assert_int_equal(3, completion.token);
    assert_int_equal(ERR_OK, completion.err);

    uint8_t back[DISK_VECTOR_MAX] = {0};
    disk_submit_read(disk, file, 4096, back, DISK_VECTOR_MAX, 4);
    completion = wait_one(fixture);
    assert_int_equal(4, completion.token);
    assert_int_equal(DISK_VECTOR_MAX, completion.size);
    assert_memory_equal(data, back, DISK_VECTOR_MAX);
    disk_submit_read(disk, file, (1 << 20) - 5, back, 100, 5);
    completion = wait_one(fixture);
    assert_int_equal(ERR_OK, completion.err);
    assert_int_equal(5, completion.size);
    disk_close(disk, file);
}

/* As many submissions as are allowed, of all kinds; each completes once. */
static void check_many(struct fixture *fixture)
{
    struct disk *disk = fixture->disk;
    struct disk_file *file = create(fixture, "m", 1 << 20);
    static uint8_t data[DISK_SUBMISSION_MAX][64];
    uint32_t seen[DISK_SUBMISSION_MAX] = {0};
    for (uint32_t round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++) {
            memset(data[i], (int)(i + round), sizeof(data[i]));
            struct iovec vector = {data[i], sizeof(data[i])};
            if (i % 8 == 7)
                disk_submit_sync(disk, file, i);
            else
                disk_submit_write(disk, file, i * 512, &vector, 1, i % 3 == 0, i);
        }
        for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++) {
            struct disk_completion completion = wait_one(fixture);
            assert_int_equal(ERR_OK, completion.err);
            assert_in_range(completion.token, 0, DISK_SUBMISSION_MAX - 1);
            seen[completion.token]++;
        }
        for (uint32_t i = 0; i < DISK_SUBMISSION_MAX; i++)
            assert_int_equal(round + 1, seen[i]);
    }
    struct disk_completion none;
    assert_int_equal(0, disk_poll(disk, &none, 1));
    disk_close(disk, file);
}

/* Commits to one file complete in order. Behind one that failed no other touches its file, not even
 * one that would succeed; other files do not care. */
static void check_commits(struct fixture *fixture)
{
    struct disk *disk = fixture->disk;
    struct disk_file *file = create(fixture, "c", 1 << 20), *other = create(fixture, "d", 4096);
    uint8_t data[512], back[512];
    struct iovec vector = {data, sizeof(data)};
    uint32_t got;
    memset(data, 1, sizeof(data));
    for (uint32_t i = 0; i < 20; i++)
        disk_submit_write(disk, i % 3 == 0 ? other : file, 0, &vector, 1, true, i);
    uint64_t next[2] = {0, 1}; /* of `other`, of `file` */
    for (uint32_t i = 0; i < 20; i++) {
        struct disk_completion completion = wait_one(fixture);
        bool is_file = completion.token % 3 != 0;
        assert_int_equal(next[is_file], completion.token);
        assert_int_equal(ERR_OK, completion.err);
        next[is_file] += is_file && completion.token % 3 == 1 ? 1 : is_file ? 2 : 3;
    }
    memset(data, 2, sizeof(data));
    disk_submit_write(disk, file, 512, &vector, 1, true, 100);
    if (fixture->sim != NULL)
        disk_sim_fail_at(fixture->sim, DISK_SIM_WRITE, 1, ERR_DISK_IO);
    disk_submit_write(disk, file, FILE_SIZE_LIMIT, &vector, 1, true, 101); /* fails */
    disk_submit_write(disk, file, 0, &vector, 1, true, 102);
    disk_submit_write(disk, other, 0, &vector, 1, true, 103);
    disk_submit_write(disk, file, 0, &vector, 1, true, 104);
    static const enum err errs[] = {ERR_OK, ERR_DISK_IO, ERR_DISK_IO, ERR_OK, ERR_DISK_IO};
    for (uint32_t i = 0; i < COUNT_OF(errs); i++) {
        struct disk_completion completion = wait_one(fixture);
        assert_in_range(completion.token, 100, 104);
        assert_int_equal(errs[completion.token - 100], completion.err);
    }
    assert_int_equal(ERR_OK, disk_read(disk, file, 0, back, sizeof(back), &got));
    assert_int_equal(1, back[0]);
    assert_int_equal(ERR_OK, disk_read(disk, file, 512, back, sizeof(back), &got));
    assert_int_equal(2, back[0]);
    assert_int_equal(ERR_OK, disk_read(disk, other, 0, back, sizeof(back), &got));
    assert_int_equal(2, back[0]);
    disk_close(disk, file);
    disk_close(disk, other);
}

static void check_errors(struct fixture *fixture)
{
    struct disk *disk = fixture->disk;
    struct disk_file *file = create(fixture, "e", 4096), *none = NULL, *read_only;
    disk_submit_create(disk, "e", 4096, &none, 1);
    assert_int_equal(ERR_DISK_IO, wait_one(fixture).err);
    assert_null(none);
    disk_submit_remove(disk, "absent", 2);
    assert_int_equal(ERR_NOT_FOUND, wait_one(fixture).err);
    disk_close(disk, file);
    if (fixture->sim == NULL) {
        /* A write that fails: its sync is not done, and there is one completion. */
        assert_int_equal(ERR_OK, disk_open(disk, "e", DISK_OPEN_READ_ONLY, &read_only));
        uint8_t data[10] = {0};
        struct iovec vector = {data, sizeof(data)};
        disk_submit_write(disk, read_only, 0, &vector, 1, true, 3);
        struct disk_completion completion = wait_one(fixture);
        assert_int_equal(ERR_DISK_IO, completion.err);
        assert_int_equal(0, completion.size);
        disk_submit_write(disk, read_only, 0, &vector, 1, false, 4);
        assert_int_equal(ERR_DISK_IO, wait_one(fixture).err);
        assert_int_equal(0, disk_poll(disk, &completion, 1));
        disk_close(disk, read_only);
    }
    disk_submit_remove(disk, "e", 5);
    assert_int_equal(ERR_OK, wait_one(fixture).err);
    assert_int_equal(ERR_NOT_FOUND, disk_open(disk, "e", 0, &file));
}

static void check_all(struct fixture fixture)
{
    check_blocking(&fixture);
    check_write(&fixture);
    check_many(&fixture);
    check_commits(&fixture);
    check_errors(&fixture);
    fixture_end(&fixture);
}

static void test_uring(void **state)
{
    (void)state;
    check_all(fixture_real(DISK_KIND_URING));
}

static void test_thread(void **state)
{
    (void)state;
    check_all(fixture_real(DISK_KIND_THREAD));
}

static void test_sim(void **state)
{
    (void)state;
    check_all(fixture_sim());
}

static void test_no_directory(void **state)
{
    (void)state;
    struct disk *disk;
    assert_int_equal(ERR_SYSTEM, disk_new("/nonexistent", DISK_KIND_AUTO, &disk));
    assert_int_equal(ERR_SYSTEM, disk_new("/nonexistent", DISK_KIND_THREAD, &disk));
}

/* ---- what a crash leaves on the simulated disk ---- */

#define SECTORS 16u

/* Which version (1: synced, 2: not synced) each sector has after a crash. */
static void crash_sectors(uint64_t seed, bool is_second_synced, uint32_t ret_count[3])
{
    struct fixture fixture = fixture_sim();
    struct rng rng;
    rng_init_seed(&rng, seed);
    struct disk_file *file = create(&fixture, "c", SECTORS * 512);
    static uint8_t data[SECTORS * 512];
    struct iovec vector = {data, sizeof(data)};
    for (uint32_t version = 1; version <= 2; version++) {
        memset(data, (int)version, sizeof(data));
        disk_submit_write(fixture.disk, file, 0, &vector, 1, version == 1 || is_second_synced, 0);
        assert_int_equal(ERR_OK, wait_one(&fixture).err);
    }
    disk_sim_crash(fixture.sim, &rng);
    disk_close(fixture.disk, file);
    disk_free(fixture.disk);

    fixture.disk = disk_sim_open(fixture.sim);
    assert_int_equal(ERR_OK, disk_open(fixture.disk, "c", 0, &file));
    uint32_t got;
    assert_int_equal(ERR_OK, disk_read(fixture.disk, file, 0, data, sizeof(data), &got));
    for (uint32_t i = 0; i < SECTORS; i++) {
        for (uint32_t j = 1; j < 512; j++)
            assert_int_equal(data[i * 512], data[i * 512 + j]); /* a sector is never torn */
        ret_count[data[i * 512]]++;
    }
    disk_close(fixture.disk, file);
    fixture_end(&fixture);
}

static void test_crash_takes_only_what_was_not_synced(void **state)
{
    (void)state;
    uint32_t synced[3] = {0}, unsynced[3] = {0};
    for (uint64_t seed = 1; seed <= 200; seed++) {
        crash_sectors(seed, true, synced);
        crash_sectors(seed, false, unsynced);
    }
    assert_int_equal(200 * SECTORS, synced[2]);
    assert_int_equal(0, unsynced[0]);
    assert_true(unsynced[1] > 20 * SECTORS && unsynced[2] > 20 * SECTORS);
}

/* After a failed sync a later good one makes nothing of it durable. */
static void test_failed_sync_is_for_ever(void **state)
{
    (void)state;
    uint32_t lost = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct fixture fixture = fixture_sim();
        struct rng rng;
        rng_init_seed(&rng, seed);
        struct disk_file *file = create(&fixture, "f", 4096);
        uint8_t data[512], back[512] = {0};
        memset(data, 9, sizeof(data));
        struct iovec vector = {data, sizeof(data)};
        disk_sim_fail_at(fixture.sim, DISK_SIM_SYNC, 1, ERR_DISK_IO);
        disk_submit_write(fixture.disk, file, 0, &vector, 1, true, 0);
        assert_int_equal(ERR_DISK_IO, wait_one(&fixture).err);
        disk_submit_sync(fixture.disk, file, 0);
        assert_int_equal(ERR_OK, wait_one(&fixture).err);
        disk_sim_crash(fixture.sim, &rng);
        disk_close(fixture.disk, file);
        disk_free(fixture.disk);
        fixture.disk = disk_sim_open(fixture.sim);
        uint32_t got;
        assert_int_equal(ERR_OK, disk_open(fixture.disk, "f", 0, &file));
        assert_int_equal(ERR_OK, disk_read(fixture.disk, file, 0, back, sizeof(back), &got));
        lost += back[0] != 9;
        disk_close(fixture.disk, file);
        fixture_end(&fixture);
    }
    assert_in_range(lost, 5, 45);
}

static void test_names_and_locks_after_crash(void **state)
{
    (void)state;
    uint32_t kept = 0;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct fixture fixture = fixture_sim();
        struct rng rng;
        rng_init_seed(&rng, seed);
        struct disk_file *file;
        assert_int_equal(ERR_OK, disk_open(fixture.disk, "n", DISK_OPEN_CREATE, &file));
        assert_int_equal(ERR_OK, disk_lock(fixture.disk, file));
        disk_sim_crash(fixture.sim, &rng);
        assert_int_equal(ERR_DISK_IO, disk_sync_directory(fixture.disk)); /* dead */
        disk_close(fixture.disk, file);
        disk_free(fixture.disk);
        fixture.disk = disk_sim_open(fixture.sim);
        if (disk_open(fixture.disk, "n", 0, &file) == ERR_OK) {
            kept++;
            assert_int_equal(ERR_OK, disk_lock(fixture.disk, file));
            disk_close(fixture.disk, file);
        }
        fixture_end(&fixture);
    }
    assert_in_range(kept, 5, 45);
}

static void test_hold_and_stop(void **state)
{
    (void)state;
    struct fixture fixture = fixture_sim();
    struct rng rng;
    rng_init_seed(&rng, 1);
    struct disk_file *file = create(&fixture, "h", 4096);
    struct disk_completion completion;
    disk_submit_sync(fixture.disk, file, 1);
    assert_true(disk_sim_deadline(fixture.sim) > sim_tick);
    disk_sim_hold(fixture.sim, true);
    sim_tick += 1000;
    assert_int_equal(0, disk_poll(fixture.disk, &completion, 1));
    assert_int_equal(TICK_NEVER, disk_sim_deadline(fixture.sim));
    disk_sim_hold(fixture.sim, false);
    assert_int_equal(1, disk_poll(fixture.disk, &completion, 1));

    disk_sim_stop_at(fixture.sim, disk_sim_calls(fixture.sim) + 2);
    assert_int_equal(ERR_OK, disk_sync_directory(fixture.disk));
    assert_false(disk_sim_is_stopped(fixture.sim));
    assert_int_equal(ERR_DISK_IO, disk_sync_directory(fixture.disk));
    assert_true(disk_sim_is_stopped(fixture.sim));
    disk_submit_sync(fixture.disk, file, 1);
    sim_tick += 1000;
    assert_int_equal(0, disk_poll(fixture.disk, &completion, 1));
    disk_sim_kill(fixture.sim, &rng);
    disk_close(fixture.disk, file);
    disk_free(fixture.disk);
    fixture.disk = disk_sim_open(fixture.sim);
    fixture_end(&fixture);
}

static void test_full(void **state)
{
    (void)state;
    struct fixture fixture = fixture_sim();
    struct disk_file *file = create(&fixture, "x", (8u << 20) - 4096), *none;
    disk_submit_create(fixture.disk, "y", 8192, &none, 1);
    assert_int_equal(ERR_DISK_FULL, wait_one(&fixture).err);
    disk_submit_create(fixture.disk, "z", 4096, &none, 1);
    assert_int_equal(ERR_OK, wait_one(&fixture).err);
    uint8_t data[1] = {0};
    struct iovec vector = {data, 1};
    disk_submit_write(fixture.disk, file, (8u << 20) - 4096, &vector, 1, false, 1);
    assert_int_equal(ERR_DISK_FULL, wait_one(&fixture).err);
    disk_close(fixture.disk, file);
    disk_close(fixture.disk, none);
    fixture_end(&fixture);
}

int main(void)
{
    struct rlimit limit = {FILE_SIZE_LIMIT, FILE_SIZE_LIMIT};
    CHECK(setrlimit(RLIMIT_FSIZE, &limit) == 0 && signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_uring),
        cmocka_unit_test(test_thread),
        cmocka_unit_test(test_sim),
        cmocka_unit_test(test_no_directory),
        cmocka_unit_test(test_crash_takes_only_what_was_not_synced),
        cmocka_unit_test(test_failed_sync_is_for_ever),
        cmocka_unit_test(test_names_and_locks_after_crash),
        cmocka_unit_test(test_hold_and_stop),
        cmocka_unit_test(test_full),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
