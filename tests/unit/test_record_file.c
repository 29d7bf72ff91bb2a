/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A file of lines over time: when it is turned over and what is kept, that no line is lost or cut
 * by it, and what happens when the disk says no.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "base/log.h"
#include "control/record_file.h"

static char folder[] = "/tmp/test_record_file.XXXXXX";
static char path[64];

static void put(struct record_file *file, const char *line, tick_us now)
{
    memcpy(record_file_room(file, 100, now), line, strlen(line));
    record_file_take(file, (uint32_t)strlen(line));
}

/* What a file has in it; "(none)": there is no such file. */
static const char *content(uint32_t number)
{
    static char text[4][4096];
    static uint32_t next;
    char name[80], *into = text[next++ % 4];

    snprintf(name, sizeof(name), number == 0 ? "%s" : "%s.%u", path, number);
    FILE *in = fopen(name, "r");
    if (in == NULL)
        return "(none)";
    into[fread(into, 1, 4095, in)] = '\0';
    fclose(in);
    return into;
}

static struct record_file open_file(struct record_file_options options)
{
    struct record_file file;

    options.path = path;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    return file;
}

static int setup(void **state)
{
    static uint32_t number;

    (void)state;
    snprintf(path, sizeof(path), "%s/%u", folder, number++);
    return 0;
}

/* Goal: at the size it is turned over, below it is not; each file begins with the head; the oldest
 * goes. */
static void test_size(void **state)
{
    struct record_file file =
        open_file((struct record_file_options){.head = "head\n", .rotate_size = 15, .keep = 2});

    (void)state;
    put(&file, "1234\n", 1);
    record_file_flush(&file, 1); /* 10 octets */
    assert_string_equal("(none)", content(1));
    put(&file, "123\n", 1);
    record_file_flush(&file, 1); /* 14 */
    assert_string_equal("(none)", content(1));
    put(&file, "\n", 1);
    record_file_flush(&file, 1); /* 15 */
    assert_string_equal("head\n1234\n123\n\n", content(1));
    assert_string_equal("head\n", content(0));
    for (char c = 'a'; c <= 'd'; c++) {
        char line[] = "-123456789\n";
        line[0] = c;
        put(&file, line, 2);
        record_file_flush(&file, 2);
    }
    assert_string_equal("head\nd123456789\n", content(1));
    assert_string_equal("head\nc123456789\n", content(2));
    assert_string_equal("(none)", content(3));
    assert_int_equal(7, file.written);
    assert_int_equal(0, file.lost + file.failures);
    record_file_close(&file);
}

/* Goal: so long after its first line it is turned over, also when nothing comes; an empty file is
 * left alone. */
static void test_time(void **state)
{
    struct record_file file =
        open_file((struct record_file_options){.head = "", .rotate_time = TICK_S(60), .keep = 1});

    (void)state;
    record_file_flush(&file, TICK_S(1000));
    assert_int_equal(TICK_NEVER, record_file_deadline(&file));
    put(&file, "a\n", TICK_S(1000));
    record_file_flush(&file, TICK_S(1000));
    assert_int_equal(TICK_S(1060), record_file_deadline(&file));
    record_file_flush(&file, TICK_S(1060) - 1);
    assert_string_equal("(none)", content(1));
    record_file_flush(&file, TICK_S(1060));
    assert_string_equal("a\n", content(1));
    assert_string_equal("", content(0));
    assert_int_equal(TICK_NEVER, record_file_deadline(&file));
    record_file_close(&file);
}

/* Goal: while another process writes to it, too, it is not turned over, and asks for no time to do
 * so; afterwards it is. */
static void test_turning(void **state)
{
    _Atomic uint32_t turning = RECORD_TURNING_NOT;
    struct record_file file = open_file((struct record_file_options){
        .head = "", .rotate_size = 2, .rotate_time = TICK_S(1), .keep = 1, .turning = &turning});

    (void)state;
    put(&file, "a\n", 1);
    record_file_flush(&file, TICK_S(5));
    assert_string_equal("(none)", content(1));
    assert_int_equal(TICK_NEVER, record_file_deadline(&file));
    turning = RECORD_TURNING_FREE;
    record_file_flush(&file, TICK_S(5));
    assert_string_equal("a\n", content(1));
    assert_int_equal(RECORD_TURNING_FREE, turning);
    record_file_close(&file);
}

/* Goal: what was written waits for its sync no longer than told. */
static void test_sync(void **state)
{
    struct record_file file =
        open_file((struct record_file_options){.head = "", .sync_time = TICK_S(1)});

    (void)state;
    put(&file, "a\n", 5);
    record_file_flush(&file, 5);
    put(&file, "b\n", 100);
    record_file_flush(&file, 100);
    assert_int_equal(5 + TICK_S(1), record_file_deadline(&file));
    record_file_flush(&file, 5 + TICK_S(1));
    assert_int_equal(TICK_NEVER, record_file_deadline(&file));
    assert_string_equal("a\nb\n", content(0));
    record_file_close(&file);
}

/* Goal: none is kept when none is to be; a file that was there goes on, without another head. */
static void test_keep_none(void **state)
{
    struct record_file_options options = {.head = "head\n", .rotate_size = 20};
    struct record_file file = open_file(options);

    (void)state;
    put(&file, "12345678\n", 1);
    record_file_close(&file);
    file = open_file(options);
    assert_int_equal(14, file.file_size);
    put(&file, "123456\n", 1);
    assert_string_equal("head\n12345678\n", content(0));
    record_file_flush(&file, 1);
    assert_string_equal("head\n", content(0));
    assert_string_equal("(none)", content(1));
    record_file_close(&file);
}

/* Goal: what cannot be renamed is kept and grows, and it is counted; nothing is lost. */
static void test_stuck(void **state)
{
    char name[80];
    struct record_file file =
        open_file((struct record_file_options){.head = "", .rotate_size = 2, .keep = 1});

    (void)state;
    snprintf(name, sizeof(name), "%s.1", path);
    assert_int_equal(0, mkdir(name, 0700)); /* in its way */
    put(&file, "a\n", 1);
    record_file_flush(&file, 1);
    put(&file, "b\n", 1);
    record_file_flush(&file, 1);
    assert_string_equal("a\nb\n", content(0));
    assert_int_equal(2, file.failures);
    assert_int_equal(2, file.written);
    assert_int_equal(0, rmdir(name));
    put(&file, "c\n", 2);
    record_file_flush(&file, 2);
    assert_string_equal("a\nb\nc\n", content(1));
    record_file_close(&file);
}

/* From now on no file can be opened, though those that are open go on; or all is well again. */
static void descriptors_set(bool are_left)
{
    static rlim_t before;
    struct rlimit limit;

    assert_int_equal(0, getrlimit(RLIMIT_NOFILE, &limit));
    if (are_left) {
        limit.rlim_cur = before;
    } else {
        int next = dup(STDIN_FILENO);
        assert_true(next >= 0);
        close(next);
        before = limit.rlim_cur;
        limit.rlim_cur = (rlim_t)next;
    }
    assert_int_equal(0, setrlimit(RLIMIT_NOFILE, &limit));
}

/* Goal: where the new file cannot be opened, those from before stay what they are, however often
 * that is tried again, and lines go on in the old one. */
static void test_not_opened(void **state)
{
    struct record_file file =
        open_file((struct record_file_options){.head = "", .rotate_size = 2, .keep = 3});
    const char *lines[] = {"a\n", "b\n", "c\n", "d\n", "e\n"};

    (void)state;
    for (tick_us i = 0; i < 5; i++) {
        if (i == 2)
            descriptors_set(false);
        put(&file, lines[i], i + 1);
        record_file_flush(&file, i + 1);
    }
    assert_int_equal(3, file.failures);
    descriptors_set(true);
    assert_string_equal("(none)", content(0));
    assert_string_equal("c\nd\ne\n", content(1));
    assert_string_equal("b\n", content(2));
    assert_string_equal("a\n", content(3));
    put(&file, "f\n", 9);
    record_file_flush(&file, 9);
    assert_string_equal("", content(0));
    assert_string_equal("c\nd\ne\nf\n", content(1));
    assert_string_equal("a\n", content(3));
    record_file_close(&file);
}

/* Goal: likewise where somebody has moved the file and has not said so. */
static void test_moved(void **state)
{
    char name[80];
    struct record_file file =
        open_file((struct record_file_options){.head = "", .rotate_size = 2, .keep = 2});

    (void)state;
    snprintf(name, sizeof(name), "%s.2", path);
    put(&file, "a\n", 1);
    record_file_flush(&file, 1);
    assert_int_equal(0, rename(path, name));
    put(&file, "b\n", 2);
    record_file_flush(&file, 2);
    assert_string_equal("", content(0));
    assert_string_equal("a\n", content(1));
    assert_string_equal("b\n", content(2));
    assert_int_equal(0, file.failures);
    record_file_close(&file);
}

/* Goal: a device is never turned over; what it does not take is lost, and counted. */
static void test_device(void **state)
{
    struct record_file_options options = {
        .path = "/dev/full", .head = "", .rotate_size = 1, .rotate_time = 1, .keep = 1};
    struct record_file file;

    (void)state;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    put(&file, "a\n", 1);
    put(&file, "b\n", 1);
    record_file_flush(&file, 10);
    assert_int_equal(2, file.lost);
    assert_int_equal(0, file.written);
    assert_int_equal(TICK_NEVER, record_file_deadline(&file));
    record_file_close(&file);
    assert_int_equal(0, access("/dev/full", F_OK));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_size, setup),
        cmocka_unit_test_setup(test_time, setup),
        cmocka_unit_test_setup(test_sync, setup),
        cmocka_unit_test_setup(test_keep_none, setup),
        cmocka_unit_test_setup(test_stuck, setup),
        cmocka_unit_test_setup(test_not_opened, setup),
        cmocka_unit_test_setup(test_moved, setup),
        cmocka_unit_test_setup(test_turning, setup),
        cmocka_unit_test(test_device),
    };

    log_set_threshold(LOG_FATAL);
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (uint32_t i = 0; i < 4 * COUNT_OF(tests); i++) {
        const char *const ends[] = {"", ".1", ".2", ".3"};
        snprintf(path, sizeof(path), "%s/%u%s", folder, i / 4, ends[i % 4]);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
