/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that are not lost: lines that wait for a file that takes nothing, shards that are told to
 * wait, what is known to be kept and up to when, and names of events that outlive a crash.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/record_position.h"
#include "control/record_writer.h"

static char folder[] = "/tmp/test_record_hold.XXXXXX";

static const char *path_of(const char *name)
{
    static char paths[4][256];
    static uint32_t next;
    char *path = paths[next++ % 4];

    snprintf(path, sizeof(paths[0]), "%s/%s", folder, name);
    return path;
}

static const char *content(const char *path)
{
    static char text[4096];
    FILE *in = fopen(path, "r");

    if (in == NULL)
        return "(none)";
    text[fread(text, 1, sizeof(text) - 1, in)] = '\0';
    fclose(in);
    return text;
}

/* ---- the file ---- */

static void put(struct record_file *file, const char *line)
{
    char *room = record_file_room(file, 100, 1);

    assert_non_null(room);
    memcpy(room, line, strlen(line));
    record_file_take(file, (uint32_t)strlen(line));
}

static void limit_set(rlim_t size)
{
    struct rlimit limit;

    assert_int_equal(0, getrlimit(RLIMIT_FSIZE, &limit));
    limit.rlim_cur = size;
    assert_int_equal(0, setrlimit(RLIMIT_FSIZE, &limit));
}

/* Goal: lines that do not fit the disk stay, also the torn one, and are written when there is room;
 * a file that may lose them loses them. */
static void test_lines_stay(void **state)
{
    static const struct {
        const char *name;
        bool must_keep;
        const char *expected;
        uint64_t written, lost;
    } rows[] = {
        {"kept", true, "first\nsec\nsecond\nthird\nfourth\n", 4, 0},
        {"lost", false, "first\nsec\nfourth\n", 2, 2},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct record_file_options options = {
            .path = path_of(rows[i].name), .head = "", .must_keep = rows[i].must_keep};
        struct record_file file;
        print_message("# %s\n", rows[i].name);
        assert_int_equal(ERR_OK, record_file_open(&file, &options));
        put(&file, "first\n");
        put(&file, "second\n");
        put(&file, "third\n");
        limit_set(9);
        record_file_flush(&file, 1);
        assert_int_equal(rows[i].must_keep, file.is_stuck);
        assert_int_equal(!rows[i].must_keep, record_file_is_kept(&file));
        record_file_flush(&file, 2);
        limit_set(RLIM_INFINITY);
        put(&file, "fourth\n");
        record_file_flush(&file, 3);
        assert_false(file.is_stuck);
        assert_true(record_file_is_kept(&file));
        assert_string_equal(rows[i].expected, content(options.path));
        assert_int_equal(rows[i].written, file.written);
        assert_int_equal(rows[i].lost, file.lost);
        record_file_close(&file);
    }
}

/* Goal: lines that wait do so in a new file, too: who asks whether they do tries again soon. */
static void test_lines_wait_for_a_new_file(void **state)
{
    struct record_file_options options = {
        .path = path_of("anew"), .head = "", .must_keep = true, .rotate_time = 5};
    struct record_file file;

    (void)state;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    put(&file, "first\n");
    limit_set(0);
    record_file_flush(&file, 1);
    assert_true(file.is_stuck);
    record_file_reopen(&file, 2);
    assert_true(file.is_stuck);
    record_file_flush(&file, 10);
    record_file_flush(&file, 20); /* it is turned over, too */
    assert_true(file.is_stuck);
    assert_false(record_file_is_kept(&file));
    limit_set(RLIM_INFINITY);
    record_file_flush(&file, 21);
    assert_false(file.is_stuck);
    assert_string_equal("first\n", content(options.path));
    record_file_close(&file);
}

/* Goal: a file that was begun on a full disk has its first line when there is room, in front of all
 * others; half a first line is no part of the next one. */
static void test_first_line_comes_later(void **state)
{
    static const struct {
        const char *name;
        rlim_t room;
        const char *expected;
    } rows[] = {
        {"nothing", 0, "head\nsecond\n"},
        {"half", 2, "he\nsecond\n"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct record_file_options options = {.path = path_of(rows[i].name), .head = "head\n"};
        struct record_file file;
        limit_set(rows[i].room);
        assert_int_equal(ERR_OK, record_file_open(&file, &options));
        put(&file, "first\n");
        record_file_flush(&file, 1);
        assert_int_equal(1, file.lost);
        limit_set(RLIM_INFINITY);
        put(&file, "second\n");
        record_file_flush(&file, 2);
        assert_string_equal(rows[i].expected, content(options.path));
        record_file_close(&file);
    }
}

/* Goal: a line that a crash cut is left as it is; the next one begins on its own. */
static void test_torn_by_a_crash(void **state)
{
    struct record_file_options options = {.path = path_of("torn"), .head = "head\n"};
    struct record_file file;
    FILE *out = fopen(options.path, "w");

    (void)state;
    fputs("head\nwhole\ncu", out);
    fclose(out);
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    put(&file, "next\n");
    record_file_close(&file);
    assert_string_equal("head\nwhole\ncu\nnext\n", content(options.path));
}

/* Goal: when the buffer is full of lines that wait, there is no room, and none is lost. */
static void test_no_room(void **state)
{
    struct record_file_options options = {.path = "/dev/full", .head = "", .must_keep = true};
    struct record_file file;
    uint32_t lines = 0;
    char *room;

    (void)state;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    while ((room = record_file_room(&file, 1000, 1)) != NULL && lines < 1000) {
        memset(room, 'x', 1000);
        room[999] = '\n';
        record_file_take(&file, 1000);
        lines++;
    }
    assert_int_equal(RECORD_FILE_BUFFER_SIZE / 1000, lines);
    assert_int_equal(0, file.lost);
    assert_int_equal(lines, file.count);
    record_file_close(&file);
}

/* Goal: kept is what was written, and synced if it is to be. */
static void test_kept(void **state)
{
    struct record_file_options options = {
        .path = path_of("sync"), .head = "", .sync_time = TICK_S(1)};
    struct record_file file;

    (void)state;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    assert_true(record_file_is_kept(&file));
    put(&file, "a\n");
    assert_false(record_file_is_kept(&file));
    record_file_flush(&file, 1);
    assert_false(record_file_is_kept(&file));
    record_file_flush(&file, TICK_S(1) + 1);
    assert_true(record_file_is_kept(&file));
    put(&file, "b\n");
    record_file_sync(&file, TICK_S(1) + 2);
    assert_true(record_file_is_kept(&file));
    record_file_close(&file);
}

/* ---- the position ---- */

static void file_write(const char *path, const char *text)
{
    FILE *out = fopen(path, "w");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

static void test_position(void **state)
{
    static const struct {
        const char *name, *text;
        wall_us since;
    } rows[] = {
        {"as written", "angarium records 1 00000000001700000000\n", 1700000000},
        {"empty", "", INT64_MAX},
        {"torn", "angarium records 1 000000000017", INT64_MAX},
        {"another version", "angarium records 2 00000000001700000000\n", INT64_MAX},
        {"no number", "angarium records 1 0000000000170000000x\n", INT64_MAX},
        {"too large", "angarium records 1 99999999999999999999\n", INT64_MAX},
        {"negative", "angarium records 1 -0000000001700000000\n", INT64_MAX},
    };
    const char *path = path_of("position");
    struct record_position position;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        file_write(path, rows[i].text);
        assert_int_equal(ERR_OK, record_position_open(&position, path, false));
        assert_int_equal(rows[i].since, record_position_get(&position));
        record_position_set(&position, 1700000000123456);
        assert_int_equal(1700000000123456, record_position_get(&position));
        record_position_close(&position);
    }
    assert_int_equal(INT64_MAX, record_position_get(&position));
    assert_int_equal(ERR_SYSTEM, record_position_open(&position, "/nonexistent/records", true));
}

/* ---- the writer ---- */

static struct record_writer *writer_on(const char *path, const char *position, bool must_hold)
{
    struct record_file_options file = {.path = path, .head = ""};
    struct record_writer_options options = {
        .json = &file,
        .shard_count = 2,
        .buffer_count = 64,
        .must_hold = must_hold,
        .hold_ms = 100,
        .position_path = position,
    };
    struct record_writer *writer = NULL;
    const char *which;

    assert_int_equal(ERR_OK, record_writer_new(&options, &writer, &which));
    return writer;
}

static uint64_t kept(const struct record_sink *sink)
{
    return sink->holder->kept(sink->context);
}

static void wait_for_kept(const struct record_sink *sink, uint64_t number)
{
    for (uint32_t i = 0; i < 5000 && kept(sink) < number; i++)
        usleep(1000);
    assert_int_equal(number, kept(sink));
}

/* Goal: with a file that takes nothing shards are told to wait at an eighth, what is under way has
 * room beyond, beyond that emitting waits and then drops, and counts; nothing counts as kept before
 * it is written. */
static void test_hold(void **state)
{
    struct record_writer *writer = writer_on("/dev/full", NULL, true);
    struct record_sink sink = record_writer_sink(writer, 0);
    struct record record = {.kind = RECORD_DELIVERY};
    uint32_t emitted = 0, behind = 0;

    (void)state;
    assert_true(sink.is_holding && !record_sink_holds(&sink));
    /* The buffer of the file is filled first. */
    for (; record_writer_get_stats(writer).dropped == 0 && emitted < 10000; emitted++) {
        sink.emit(sink.context, &record);
        if (behind == 0 && record_sink_holds(&sink)) {
            usleep(20000); /* nothing moves */
            behind = record_sink_holds(&sink) ? emitted : 0;
        }
    }
    assert_true(behind > 0);
    assert_int_equal(emitted - 1, sink.holder->emitted(sink.context));
    assert_true(emitted - 1 - behind >= 256 - 256 / 8 - 2); /* room for what was under way */
    assert_int_equal(0, kept(&sink));
    struct record_writer_stats stats = record_writer_get_stats(writer);
    assert_int_equal(1, stats.dropped);
    assert_int_equal(0, stats.written);
    assert_true(stats.is_holding);
    sink.emit(sink.context, &record); /* waited once: not again */
    assert_int_equal(2, record_writer_get_stats(writer).dropped);
    record_writer_free(writer);
}

/* Goal: what waits for room is written soon after there is some, in a file opened anew meanwhile,
 * though no more records come. */
static void test_hold_and_reopen(void **state)
{
    struct record_writer *writer = writer_on(path_of("reopened"), NULL, true);
    struct record_sink sink = record_writer_sink(writer, 0);
    struct record record = {.kind = RECORD_DELIVERY};

    (void)state;
    limit_set(0);
    sink.emit(sink.context, &record);
    while (record_writer_get_stats(writer).write_failures == 0)
        usleep(1000);
    record_writer_reopen(writer);
    usleep(300000); /* several tries */
    assert_int_equal(0, kept(&sink));
    limit_set(RLIM_INFINITY);
    wait_for_kept(&sink, 1);
    record_writer_free(writer);
}

/* Goal: what dropped sinks do is as before: half a ring, and no shard is told to wait. */
static void test_drop(void **state)
{
    struct record_writer *writer = writer_on(path_of("drop"), NULL, false);
    struct record_sink sink = record_writer_sink(writer, 1);
    struct record record = {.kind = RECORD_DELIVERY};

    (void)state;
    assert_false(sink.is_holding || record_sink_holds(&sink));
    for (uint32_t i = 0; i < 10; i++)
        sink.emit(sink.context, &record);
    wait_for_kept(&sink, 10);
    assert_false(record_writer_get_stats(writer).is_holding);
    record_writer_free(writer);
}

/* Goal: the position moves on when all shards have said that they replay nothing, and at the end;
 * replayed records are counted. */
static void test_position_moves(void **state)
{
    const char *records = path_of("moves"), *path = path_of("moves.position");
    struct record record = {.kind = RECORD_RECEPTION, .flags = RECORD_REPLAYED};

    (void)state;
    file_write(path, "angarium records 1 00000000000000001000\n");
    for (uint32_t told = 0; told <= 2; told++) {
        struct record_writer *writer = writer_on(records, path, true);
        struct record_sink sinks[2] = {record_writer_sink(writer, 0),
                                       record_writer_sink(writer, 1)};
        assert_int_equal(1000, sinks[0].holder->since(sinks[0].context));
        for (uint32_t i = 0; i < told; i++)
            sinks[i].holder->replayed(sinks[i].context);
        sinks[0].emit(sinks[0].context, &record);
        wait_for_kept(&sinks[0], 1);
        record_writer_free(writer);
        struct record_position position;
        assert_int_equal(ERR_OK, record_position_open(&position, path, false));
        assert_int_equal(told == 2, record_position_get(&position) > 1700000000000000);
        record_position_close(&position);
    }
}

/* Goal: what was not written at the end does not count as safe; a moment before it was emitted may.
 */
static void test_position_stays(void **state)
{
    const char *path = path_of("stays.position");
    struct record_writer *writer = writer_on("/dev/full", path, true);
    struct record record = {.kind = RECORD_RECEPTION};
    struct record_position position;

    (void)state;
    file_write(path, "angarium records 1 00000000000000001000\n");
    const struct tick_source *clock = tick_source_system();
    wall_us before = clock->wall(clock->context);
    for (uint32_t i = 0; i < 2; i++) {
        struct record_sink sink = record_writer_sink(writer, i);
        sink.emit(sink.context, &record);
        sink.holder->replayed(sink.context);
    }
    record_writer_free(writer);
    assert_int_equal(ERR_OK, record_position_open(&position, path, false));
    assert_true(record_position_get(&position) <= before);
    record_position_close(&position);
}

/* Goal: a first start that is killed before it was sure of anything has a position. */
static void test_position_begins(void **state)
{
    const char *path = path_of("begins.position");
    const struct tick_source *clock = tick_source_system();
    wall_us before = clock->wall(clock->context);
    struct record_writer *writer = writer_on(path_of("begins"), path, true);
    struct record_position position;

    (void)state;
    assert_int_equal(ERR_OK, record_position_open(&position, path, false));
    assert_in_range(record_position_get(&position), before, clock->wall(clock->context));
    record_position_close(&position);
    record_writer_free(writer);
}

/* Goal: what was replayed is safe when it is in the file, not as soon as all is told: a moment from
 * before says nothing of it. */
static void test_replays_are_kept_first(void **state)
{
    const char *path = path_of("replays.position");
    struct record record = {.kind = RECORD_RECEPTION, .flags = RECORD_REPLAYED};
    struct record_position position;
    struct timespec moment = {.tv_nsec = 300000000}; /* the writer looks at its clock meanwhile */

    (void)state;
    file_write(path, "angarium records 1 00000000000000001000\n");
    struct record_writer *writer = writer_on("/dev/full", path, true);
    nanosleep(&moment, NULL);
    for (uint32_t i = 0; i < 2; i++) {
        struct record_sink sink = record_writer_sink(writer, i);
        sink.emit(sink.context, &record);
        sink.holder->replayed(sink.context);
    }
    record_writer_free(writer);
    assert_int_equal(ERR_OK, record_position_open(&position, path, false));
    assert_int_equal(1000, record_position_get(&position));
    record_position_close(&position);
}

/* ---- names of events ---- */

static void test_event_names(void **state)
{
    static const struct {
        enum record_kind kind;
        const char *name;
    } rows[] = {
        {RECORD_RECEPTION, "aaaaaaaaaaaaaaaaaaaaaaaaaa-r"},
        {RECORD_DELIVERY, "aaaaaaaaaaaaaaaaaaaaaaaaaa-d12"},
        {RECORD_BOUNCE, "aaaaaaaaaaaaaaaaaaaaaaaaaa-b12"},
        {RECORD_EXPIRY, "aaaaaaaaaaaaaaaaaaaaaaaaaa-x12"},
        {RECORD_DEFERRAL, "ff-3-77"},
        {RECORD_REJECTION, "ff-3-77"},
        {RECORD_ORDER, "ff-3-77"},
    };
    char name[RECORD_EVENT_SIZE];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct record record = {.kind = (uint16_t)rows[i].kind,
                                .time = 255,
                                .shard = 3,
                                .sequence = 77,
                                .recipient_index = 12};
        assert_string_equal(rows[i].name, record_event_format(&record, name));
        if (i >= 4)
            continue;
        record.time++; /* another run's */
        record.shard++;
        record.sequence++;
        record.flags = RECORD_REPLAYED;
        assert_string_equal(rows[i].name, record_event_format(&record, name));
    }
    struct record largest = {
        .kind = RECORD_ORDER, .time = INT64_MIN, .shard = UINT32_MAX, .sequence = UINT64_MAX};
    assert_string_equal("8000000000000000-4294967295-18446744073709551615",
                        record_event_format(&largest, name));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines_stay),
        cmocka_unit_test(test_no_room),
        cmocka_unit_test(test_lines_wait_for_a_new_file),
        cmocka_unit_test(test_first_line_comes_later),
        cmocka_unit_test(test_torn_by_a_crash),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_position),
        cmocka_unit_test(test_hold),
        cmocka_unit_test(test_hold_and_reopen),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_position_moves),
        cmocka_unit_test(test_position_stays),
        cmocka_unit_test(test_position_begins),
        cmocka_unit_test(test_replays_are_kept_first),
        cmocka_unit_test(test_event_names),
    };
    static const char *const names[] = {
        "kept",           "lost",           "sync", "position", "drop", "torn",    "moves",
        "moves.position", "stays.position", "anew", "nothing",  "half", "reopened"};

    log_set_threshold(LOG_FATAL);
    signal(SIGXFSZ, SIG_IGN);
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (uint32_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    rmdir(folder);
    return failed;
}
