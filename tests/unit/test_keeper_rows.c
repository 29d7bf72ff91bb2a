/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a file of rows comes back as it was written, or not at all; it is written when there is
 * something new, within its bound, by shares; and in an upgrade what was counted before and behind
 * the parting is in one of two files each.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/log.h"
#include "control/keeper_rows.h"

#define SHARDS 2u

struct row {
    uint64_t shard, number;
};

/* What two shards have; `restored` is what was given to them. */
static struct {
    uint32_t rows[SHARDS], rest[SHARDS];
    uint32_t restored[SHARDS], parted[SHARDS];
    uint64_t changes, window_min;
} world;
static uint32_t asked; /* the shard */
static char directory[64];

static void take(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct keeper_rows *rows = keeper_rows_of(query);
    struct row *slice = keeper_rows_slice(rows);
    uint32_t all = keeper_rows_is_rest(rows) ? world.rest[asked] : world.rows[asked], count = 0;
    uint64_t changes = query->cursor == 0 ? world.changes : 0;

    assert_null(transfer);
    world.window_min = keeper_rows_window_min(rows, TICK_S(600));
    while (query->cursor < all && count < 3)
        slice[count++] = (struct row){asked, query->cursor++ + now};
    if (query->cursor == all)
        query->cursor = UINT64_MAX;
    keeper_rows_taken(rows, count, changes);
}

static void give(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    uint32_t count;
    const struct row *rows = keeper_rows_next(query, &count);

    (void)transfer;
    (void)now;
    assert_true(count > 0 && count <= KEEPER_ROWS_SLICE);
    for (uint32_t i = 0; i < count; i++)
        world.restored[asked] += rows[i].shard == asked;
}

static void part(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    (void)transfer;
    (void)now;
    world.parted[asked] = keeper_rows_is_parting(keeper_rows_of(query));
    query->cursor = UINT64_MAX;
}

static const struct keeper_kind kind = {
    .form = {"things", "angarium things 1\n", sizeof(struct row), 16},
    .rest_name = "things.rest",
    .lost = "all is lost",
    .cut = "not all is kept",
    .round_time = TICK_S(2),
    .rows_per_time = 4,
    .take = {.kind = SHARD_QUERY_TRANSFER, .visit = take},
    .give = {.kind = SHARD_QUERY_TRANSFER, .visit = give},
    .part = {.kind = SHARD_QUERY_TRANSFER, .visit = part},
};

static void run(void *context, uint32_t shard, struct shard_query *query)
{
    assert_null(context);
    asked = shard;
    query->visit(query, NULL, 0);
}

static bool round_do(struct keeper_rows *rows, tick_us now)
{
    if (!keeper_rows_begin(rows, now))
        return false;
    for (uint32_t i = 0; i < SHARDS; i++) {
        struct shard_query query = keeper_rows_query(rows);
        while (query.cursor != UINT64_MAX) {
            run(NULL, i, &query);
            keeper_rows_add(rows, &query);
        }
    }
    assert_true(keeper_rows_save(rows, now == TICK_NEVER ? 0 : now));
    return true;
}

static const struct keeper_kind *used = &kind;

static struct keeper_rows *rows_new(void)
{
    struct keeper_rows *rows = keeper_rows_new(used, directory, SHARDS);

    assert_non_null(rows);
    return rows;
}

static const char *path_of(const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

/* Size of a file; -1: there is none. */
static long size_of(const char *name)
{
    struct stat status;

    return stat(path_of(name), &status) == 0 ? (long)status.st_size : -1;
}

/* What a new process is given of the files as they are. */
static uint32_t restored(void)
{
    struct keeper_rows *rows = rows_new();

    memset(world.restored, 0, sizeof(world.restored));
    keeper_rows_load(rows, true, NULL, run);
    keeper_rows_load_rest(rows, NULL, run);
    keeper_rows_free(rows);
    return world.restored[0] + world.restored[1];
}

static int setup(void **state)
{
    (void)state;
    memset(&world, 0, sizeof(world));
    (void)snprintf(directory, sizeof(directory), "/tmp/angarium-rows-XXXXXX");
    return mkdtemp(directory) == NULL;
}

static int teardown(void **state)
{
    (void)state;
    (void)unlink(path_of("things"));
    (void)unlink(path_of("things.new"));
    (void)unlink(path_of("things.rest"));
    return rmdir(directory);
}

static void test_rounds(void **state)
{
    struct keeper_rows *rows = rows_new();
    struct stat status;
    (void)state;

    assert_true(round_do(rows, TICK_S(10)));
    assert_int_equal(-1, size_of("things")); /* of nothing there is no file */
    world.rows[0] = 5;
    world.rows[1] = 2;
    world.changes = 1;
    assert_false(round_do(rows, TICK_S(12) - 1));
    assert_true(round_do(rows, TICK_S(12)));
    assert_int_equal(TICK_S(600), world.window_min);
    assert_int_equal(32 + 7 * sizeof(struct row), size_of("things"));
    assert_int_equal(0, stat(path_of("things"), &status));
    assert_int_equal(0600, status.st_mode & 07777);
    assert_int_equal(7, restored());
    assert_int_equal(5, world.restored[0]);

    (void)unlink(path_of("things"));
    assert_false(round_do(rows, TICK_S(16) - 1)); /* twice as long, for 7 rows */
    assert_true(round_do(rows, TICK_S(16)));
    assert_int_equal(-1, size_of("things")); /* nothing has changed */
    assert_true(round_do(rows, TICK_NEVER)); /* the last one: whether or not */
    assert_int_equal(0, world.window_min);
    assert_int_equal(7, restored());
    world.rows[0] = world.rows[1] = 0; /* all is over: so is the file */
    world.changes = 2;
    assert_true(round_do(rows, TICK_NEVER));
    assert_int_equal(32, size_of("things"));
    keeper_rows_free(rows);
}

/* Goal: at the bound, and beyond it, each shard has its share. */
static void test_bound(void **state)
{
    static const struct {
        uint32_t rows[SHARDS], kept[SHARDS];
    } cases[] = {
        {{8, 8}, {8, 8}}, {{9, 8}, {8, 8}}, {{8, 9}, {8, 8}}, {{16, 1}, {8, 1}}, {{1, 100}, {1, 8}},
    };
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct keeper_rows *rows = rows_new();
        memcpy(world.rows, cases[i].rows, sizeof(world.rows));
        assert_true(round_do(rows, TICK_NEVER));
        (void)restored();
        assert_memory_equal(cases[i].kept, world.restored, sizeof(world.restored));
        keeper_rows_free(rows);
    }
}

/* Goal: rows are given in slices; the last one may be full, or of one row. */
static void test_slices(void **state)
{
    static const uint32_t counts[] = {KEEPER_ROWS_SLICE - 1, KEEPER_ROWS_SLICE,
                                      KEEPER_ROWS_SLICE + 1, 2 * KEEPER_ROWS_SLICE};
    struct keeper_kind large = kind;
    (void)state;

    large.form.count_max = 4 * KEEPER_ROWS_SLICE;
    used = &large;
    for (uint32_t i = 0; i < COUNT_OF(counts); i++) {
        struct keeper_rows *rows = rows_new();
        world.rows[1] = counts[i];
        assert_true(round_do(rows, TICK_NEVER));
        assert_int_equal(counts[i], restored());
        keeper_rows_free(rows);
    }
    used = &kind;
}

static void file_put(const char *name, const void *octets, size_t size)
{
    FILE *file = fopen(path_of(name), "wb");

    assert_non_null(file);
    assert_int_equal(size, fwrite(octets, 1, size, file));
    assert_int_equal(0, fclose(file));
}

/* Goal: whatever is there instead of the file, or has become of it, nothing of it is taken, and
 * nobody waits for it. */
static void test_damage(void **state)
{
    struct keeper_rows *rows = rows_new();
    uint8_t octets[512];
    (void)state;

    world.rows[0] = 3;
    assert_true(round_do(rows, TICK_NEVER));
    keeper_rows_free(rows);
    FILE *file = fopen(path_of("things"), "rb");
    assert_non_null(file);
    size_t size = fread(octets, 1, sizeof(octets), file);
    assert_int_equal(0, fclose(file));
    assert_int_equal(32 + 3 * sizeof(struct row), size);
    for (size_t i = 0; i < size; i++) { /* an octet is another */
        octets[i] ^= 0x10;
        file_put("things", octets, size);
        assert_int_equal(0, restored());
        octets[i] ^= 0x10;
    }
    for (size_t i = 0; i < size; i++) { /* the end is missing */
        file_put("things", octets, i);
        assert_int_equal(0, restored());
    }
    octets[size] = 0;
    file_put("things", octets, size + 1);
    assert_int_equal(0, restored());
    file_put("things", octets, size);
    assert_int_equal(3, restored());
    assert_int_equal(0, unlink(path_of("things")));
    assert_int_equal(0, mkfifo(path_of("things"), 0600));
    assert_int_equal(0, restored());
    assert_int_equal(0, unlink(path_of("things")));
    file_put("others", octets, size);
    assert_int_equal(0, symlink("others", path_of("things")));
    assert_int_equal(0, restored());
    void *found;
    uint32_t count;
    assert_int_equal(KEPT_DAMAGED, kept_file_read(directory, &kind.form, &found, &count));
    assert_int_equal(0, unlink(path_of("things")));
    assert_int_equal(KEPT_ABSENT, kept_file_read(directory, &kind.form, &found, &count));
    assert_int_equal(0, unlink(path_of("others")));
    assert_int_equal(0, symlink("/dev/zero", path_of("things")));
    assert_int_equal(0, restored());
}

static void test_parting(void **state)
{
    struct keeper_rows *rows = rows_new();
    (void)state;

    file_put("things.rest", "of a process that was killed", 28);
    world.rows[0] = 4;
    world.rest[0] = 2;
    assert_int_equal(0, mkdir(path_of("things.new"), 0700)); /* it cannot be written */
    assert_false(keeper_rows_part(rows, NULL, run));
    keeper_rows_part_end(rows, NULL, run);
    assert_int_equal(0, rmdir(path_of("things.new")));
    assert_true(keeper_rows_part(rows, NULL, run));
    assert_int_equal(SHARDS, world.parted[0] + world.parted[1]);
    assert_int_equal(-1, size_of("things.rest"));
    assert_int_equal(4, restored());
    world.changes = 1;
    assert_false(round_do(rows, TICK_S(100))); /* the file is the other process' */
    assert_int_equal(4, restored());
    keeper_rows_part_end(rows, NULL, run); /* it did not come */
    assert_int_equal(0, world.parted[0] + world.parted[1]);
    world.rows[0] = 5;
    assert_true(round_do(rows, TICK_S(101)));
    assert_int_equal(5, restored());

    assert_true(keeper_rows_part(rows, NULL, run));
    world.rows[0] = 9;
    assert_true(round_do(rows, TICK_NEVER)); /* the end of this process */
    assert_int_equal(5 + 2, restored());
    assert_int_equal(5, restored()); /* the rest is taken once */
    world.rest[0] = 0;
    assert_true(round_do(rows, TICK_NEVER));
    assert_int_equal(-1, size_of("things.rest"));
    keeper_rows_free(rows);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_rounds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bound, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slices, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_parting, setup, teardown),
    };
    log_set_threshold(LOG_FATAL);
    return cmocka_run_group_tests_name("keeper_rows", tests, NULL, NULL);
}
