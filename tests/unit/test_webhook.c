/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Webhooks without a network: how record files are read through all that becomes of them, what a
 * place outlives, signatures, pauses, and which lines are records. The posts: tests/interop.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "control/record_reader.h"
#include "control/secret_file.h"
#include "control/webhook.h"
#include "control/webhook_cursor.h"
#include "relay/record.h"

static char folder[] = "/tmp/test_webhook.XXXXXX";
static char path[128];

static int setup(void **state)
{
    static uint32_t number;

    (void)state;
    snprintf(path, sizeof(path), "%s/%u", folder, number++);
    return 0;
}

static const char *named(const char *suffix)
{
    static char names[4][160];
    static uint32_t next;
    char *name = names[next++ % 4];

    snprintf(name, sizeof(names[0]), "%s%s", path, suffix);
    return name;
}

static void append(const char *name, const char *text)
{
    FILE *out = fopen(name, "a");

    assert_non_null(out);
    fputs(text, out);
    fclose(out);
}

/* NAME becomes NAME.1 and so on; `keep` stay. */
static void turn(uint32_t keep)
{
    char from[160], to[160];

    for (uint32_t i = keep; i >= 1; i--) {
        snprintf(from, sizeof(from), i == 1 ? "%s" : "%s.%u", path, i - 1);
        snprintf(to, sizeof(to), "%s.%u", path, i);
        (void)rename(from, to);
    }
}

/* All lines that there are now, with a '|' behind each. */
static const char *read_all(struct record_reader *reader)
{
    static char text[4][1024];
    static uint32_t next;
    char *into = text[next++ % 4];
    struct span line;
    size_t size = 0;

    while (record_reader_next(reader, &line))
        size += (size_t)snprintf(into + size, sizeof(text[0]) - size, "%.*s|", (int)line.size,
                                 (const char *)line.data);
    into[size] = '\0';
    return into;
}

/* Goal: lines come once and in order, whole, while files are turned over under the reader. */
static void test_turned_over(void **state)
{
    struct record_reader reader;

    (void)state;
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    assert_string_equal("", read_all(&reader)); /* there is no file yet */
    append(path, "a\nb");
    assert_string_equal("a|", read_all(&reader));
    append(path, "b\n");
    assert_string_equal("bb|", read_all(&reader));
    append(path, "c\n");
    turn(3);
    append(path, "");
    assert_string_equal("c|", read_all(&reader)); /* what is empty does not end the old one */
    append(named(".1"), "d\n");
    assert_int_equal(2, record_reader_waiting(&reader));
    append(path, "e\n");
    assert_int_equal(4, record_reader_waiting(&reader));
    assert_string_equal("d|e|", read_all(&reader));
    append(path, "f\n");
    turn(3);
    append(path, "g\n");
    turn(3);
    append(path, "h\n");
    assert_int_equal(6, record_reader_waiting(&reader));
    assert_string_equal("f|g|h|", read_all(&reader));
    assert_int_equal(0, record_reader_waiting(&reader));
    assert_int_equal(0, reader.gaps);
    record_reader_close(&reader);
}

/* Goal: another program's names are as good; a line that is cut at the end of a file is passed
 * over. */
static void test_renamed_by_another(void **state)
{
    struct record_reader reader;

    (void)state;
    append(path, "a\nb\ncut");
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    assert_string_equal("a|b|", read_all(&reader));
    assert_int_equal(0, rename(path, named("-20261126")));
    append(path, "c\n");
    assert_string_equal("c|", read_all(&reader));
    record_reader_close(&reader);
}

/* Goal: from a place on, whatever its file is called now; of a file that is gone, from the oldest
 * on; of one that a power loss has cut, from its end. */
static void test_place(void **state)
{
    struct record_reader reader;
    struct record_place place;
    struct span line;

    (void)state;
    append(path, "a\nb\nc\n");
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    assert_true(record_reader_next(&reader, &line));
    place = reader.place;
    assert_int_equal(2, place.offset);
    record_reader_rewind(&reader, 0);
    assert_string_equal("a|b|c|", read_all(&reader));
    record_reader_close(&reader);

    turn(2);
    append(path, "d\n");
    record_reader_open(&reader, path, RECORD_READER_PLACE, &place);
    assert_string_equal("b|c|d|", read_all(&reader));
    record_reader_close(&reader);

    assert_int_equal(0, truncate(named(".1"), 1));
    record_reader_open(&reader, path, RECORD_READER_PLACE, &place);
    assert_string_equal("d|", read_all(&reader));
    assert_int_equal(0, reader.gaps);
    record_reader_close(&reader);

    assert_int_equal(0, unlink(named(".1")));
    turn(2);
    append(path, "e\n");
    record_reader_open(&reader, path, RECORD_READER_PLACE, &place);
    assert_int_equal(1, reader.gaps);
    assert_string_equal("d|e|", read_all(&reader));
    record_reader_close(&reader);

    record_reader_open(&reader, path, RECORD_READER_END, NULL);
    assert_string_equal("", read_all(&reader));
    append(path, "f\n");
    assert_string_equal("f|", read_all(&reader));
    record_reader_close(&reader);
}

/* Goal: a file that was removed under the reader is read to its end, then comes the oldest. */
static void test_removed(void **state)
{
    struct record_reader reader;

    (void)state;
    append(path, "a\nb\n");
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    struct span line;
    assert_true(record_reader_next(&reader, &line));
    turn(1);
    append(path, "c\n");
    turn(2);
    append(path, "d\n");
    assert_int_equal(0, unlink(named(".2")));
    assert_string_equal("b|c|d|", read_all(&reader));
    record_reader_close(&reader);
}

/* Goal: lines across the edge of the buffer, and one that is larger than it. */
static void test_long_lines(void **state)
{
    struct record_reader reader;
    char *text = malloc(3 * RECORD_READER_BUFFER);
    struct span line;
    uint32_t count = 0;

    (void)state;
    assert_non_null(text);
    for (uint32_t i = 0; i < 40; i++) {
        memset(text, 'a' + (int)(i % 26), 5000);
        memcpy(text + 5000, "\n", 2);
        append(path, text);
    }
    memset(text, 'x', 2 * RECORD_READER_BUFFER);
    memcpy(text + 2 * RECORD_READER_BUFFER, "\nlast\n", 7);
    append(path, text);
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    while (record_reader_next(&reader, &line) && line.size == 5000)
        assert_int_equal('a' + (count++ % 26), line.data[4999]);
    assert_int_equal(40, count);
    while (line.size != 4 && record_reader_next(&reader, &line))
        continue; /* the rest of the long one */
    assert_memory_equal("last", line.data, 4);
    assert_false(record_reader_next(&reader, &line));
    record_reader_close(&reader);
    free(text);
}

static void test_cursor(void **state)
{
    static const struct {
        const char *name, *text;
        enum record_reader_from from;
    } rows[] = {
        {"whole",
         "angarium webhook 1 00000000000000000012 18446744073709551615 00000000000000000003\n",
         RECORD_READER_PLACE},
        {"empty", "", RECORD_READER_OLDEST},
        {"cut", "angarium webhook 1 00000000000000000012 0000000000000", RECORD_READER_OLDEST},
        {"another version",
         "angarium webhook 2 00000000000000000012 18446744073709551615 00000000000000000003\n",
         RECORD_READER_OLDEST},
    };
    char name[32];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct webhook_cursor cursor;
        enum record_reader_from from;
        struct record_place place;
        print_message("# %s\n", rows[i].name);
        snprintf(name, sizeof(name), "w%u", i);
        snprintf(path, sizeof(path), "%s/webhook.%s", folder, name);
        assert_int_equal(ERR_OK, webhook_cursor_open(&cursor, folder, name, &from, &place));
        assert_int_equal(RECORD_READER_END, from); /* it was not there */
        webhook_cursor_close(&cursor);
        assert_int_equal(0, truncate(path, 0));
        append(path, rows[i].text);
        assert_int_equal(ERR_OK, webhook_cursor_open(&cursor, folder, name, &from, &place));
        assert_int_equal(rows[i].from, from);
        if (from == RECORD_READER_PLACE)
            assert_true(place.inode == 12 && place.birth == UINT64_MAX && place.offset == 3);
        assert_true(webhook_cursor_set(&cursor, &(struct record_place){7, 8, UINT64_MAX}));
        webhook_cursor_close(&cursor);
        assert_int_equal(ERR_OK, webhook_cursor_open(&cursor, folder, name, &from, &place));
        assert_int_equal(RECORD_READER_PLACE, from);
        assert_true(place.inode == 7 && place.birth == 8 && place.offset == UINT64_MAX);
        webhook_cursor_close(&cursor);
        unlink(path);
    }
}

/* The sum is another program's: openssl dgst -sha256 -hmac. */
static void test_signature(void **state)
{
    char text[WEBHOOK_SIGNATURE_SIZE];

    (void)state;
    webhook_sign("Jefe", 1700000000, SPAN_LITERAL("[{\"n\":1}]"), text);
    assert_string_equal(
        "t=1700000000,v1=d88c4af73e446e77afaa3fce3addc46e266c8454dded05042858373f9ed46ae1", text);
}

static void test_pause(void **state)
{
    const struct config_webhook webhook = {.retry_min = TICK_S(1), .retry_max = TICK_S(60)};
    static const struct {
        uint32_t failures;
        tick_us asked, pause;
    } rows[] = {
        {1, 0, TICK_S(1)},
        {2, 0, TICK_S(2)},
        {6, 0, TICK_S(32)},
        {7, 0, TICK_S(60)},
        {1000, 0, TICK_S(60)},
        {1, TICK_S(10), TICK_S(10)},
        {1, TICK_S(600), TICK_S(60)},
        {3, TICK_S(1), TICK_S(4)},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        tick_us spread = rows[i].pause * 2 / 5;
        assert_int_equal(rows[i].pause - spread / 2,
                         webhook_pause(&webhook, rows[i].failures, rows[i].asked, 0));
        for (uint32_t random = 1; random < 4000000000u; random += 399999999u) {
            tick_us pause = webhook_pause(&webhook, rows[i].failures, rows[i].asked, random);
            assert_true(pause >= rows[i].pause - spread / 2 && pause < rows[i].pause + spread / 2);
        }
    }
}

static void test_lines_that_are_wanted(void **state)
{
    static const struct {
        const char *line;
        uint32_t kinds;
        bool is_wanted;
    } rows[] = {
        {"{\"type\":\"delivery\",\"n\":1}", 1u << RECORD_DELIVERY, true},
        {"{\"type\":\"delivery\",\"n\":1}", ~(1u << RECORD_DELIVERY), false},
        {"{\"type\":\"order\"}", UINT32_MAX, true},
        {"{\"type\":\"reception\"}", 1u << RECORD_RECEPTION, true},
        {"{\"type\":\"delivery\",\"n\":1", UINT32_MAX, false},
        {"{\"type\":\"deliver\"}", UINT32_MAX, false},
        {"{\"type\":\"deliveryx\"}", UINT32_MAX, false},
        {"{\"type\":\"delivery}", UINT32_MAX, false},
        {"very\",\"n\":1}", UINT32_MAX, false},
        {"{\"type\":\"", UINT32_MAX, false},
        {"", UINT32_MAX, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].is_wanted,
                         webhook_wants(rows[i].kinds, span_from_text(rows[i].line)));
}

static void test_secret_file(void **state)
{
    static const struct {
        const char *name, *text;
        mode_t mode;
        const char *line; /* NULL: refused */
    } rows[] = {
        {"a line", "secret\n", 0600, "secret"},
        {"without its end", "secret", 0400, "secret"},
        {"CR LF, and more behind", "sec ret\r\nmore\n", 0640, "sec ret"},
        {"as long as there is room", "1234567\n", 0600, "1234567"},
        {"too long", "12345678\n", 0600, NULL},
        {"empty", "", 0600, NULL},
        {"an empty line", "\nsecret\n", 0600, NULL},
        {"others may read it", "secret\n", 0604, NULL},
        {"its group may write it", "secret\n", 0660, NULL},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        char line[8] = "before", why[SECRET_WHY_SIZE] = "";
        print_message("# %s\n", rows[i].name);
        unlink(path);
        append(path, rows[i].text);
        assert_int_equal(0, chmod(path, rows[i].mode));
        enum err err = secret_line_read(path, line, sizeof(line), why);
        assert_int_equal(rows[i].line == NULL ? ERR_CONFIG_VALUE : ERR_OK, err);
        if (rows[i].line != NULL)
            assert_string_equal(rows[i].line, line);
        assert_int_equal(rows[i].line == NULL, why[0] != '\0');
    }
    char line[8], why[SECRET_WHY_SIZE];
    assert_int_equal(ERR_SYSTEM, secret_line_read("/nonexistent", line, sizeof(line), why));
    assert_int_equal(ERR_CONFIG_VALUE, secret_line_read("/dev/null", line, sizeof(line), why));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_turned_over, setup),
        cmocka_unit_test_setup(test_renamed_by_another, setup),
        cmocka_unit_test_setup(test_place, setup),
        cmocka_unit_test_setup(test_removed, setup),
        cmocka_unit_test_setup(test_long_lines, setup),
        cmocka_unit_test_setup(test_secret_file, setup),
        cmocka_unit_test(test_cursor),
        cmocka_unit_test(test_signature),
        cmocka_unit_test(test_pause),
        cmocka_unit_test(test_lines_that_are_wanted),
    };
    static const char *const ends[] = {"", ".1", ".2", ".3", "-20261126"};

    log_set_threshold(LOG_FATAL);
    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (uint32_t i = 0; i < COUNT_OF(tests) * COUNT_OF(ends); i++) {
        snprintf(path, sizeof(path), "%s/%u%s", folder, i / (uint32_t)COUNT_OF(ends),
                 ends[i % COUNT_OF(ends)]);
        unlink(path);
    }
    rmdir(folder);
    return failed;
}
