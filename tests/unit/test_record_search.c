/* SPDX-License-Identifier: Apache-2.0 */
/* The records of one message: of every format, the oldest file first, and no more than was asked.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/record_raw.h"
#include "control/record_search.h"

static char folder[] = "/tmp/angarium-search-XXXXXX";
static const struct message_id wanted = {.high = 1, .low = 2};

static const char *path_of(const char *name)
{
    static char path[128];

    (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void file_write(const char *name, const void *octets, size_t size)
{
    int fd = open(path_of(name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(size, write(fd, octets, size));
    close(fd);
}

static const char *line_of(struct message_id id, const char *text)
{
    static char line[256];
    char name[MESSAGE_ID_TEXT_SIZE];

    (void)snprintf(line, sizeof(line), "{\"id\":\"%s\",\"text\":\"%s\"}\n",
                   message_id_format(id, name), text);
    return line;
}

static char said[1024];

static void on_line(void *context, struct span line)
{
    size_t size = strlen(said);

    (void)context;
    (void)snprintf(said + size, sizeof(said) - size, "%.*s;", SPAN_PRINTF(line));
}

static struct record_search search_new(void)
{
    struct record_search search;

    record_search_init(&search, wanted);
    search.on_line = on_line;
    said[0] = '\0';
    return search;
}

static void files_make(void)
{
    const struct message_id other = {.high = 3, .low = 4};
    char text[1024];

    file_write("log.1", line_of(wanted, "first"), strlen(line_of(wanted, "first")));
    (void)snprintf(text, sizeof(text), "%s", line_of(other, "x"));
    strcat(text, line_of(wanted, "second"));
    strcat(text, line_of(wanted, "third"));
    file_write("log", text, strlen(text));
}

/* Goal: the oldest first, and nothing of another message. */
static void test_lines(void **state)
{
    struct record_search search = search_new();

    (void)state;
    files_make();
    assert_true(record_search_file(&search, path_of("log")));
    assert_int_equal(3, search.found);
    const char *first = strstr(said, "first"), *second = strstr(said, "second");
    assert_true(first != NULL && second > first && strstr(said, "third") > second);
}

/* Goal: each bound holds on both sides. */
static void test_bounds(void **state)
{
    (void)state;
    files_make();
    for (uint64_t max = 0; max <= 4; max++) {
        struct record_search search = search_new();
        search.found_max = max;
        assert_int_equal(max >= 3, record_search_file(&search, path_of("log")));
        assert_int_equal(max < 3 ? max : 3, search.found);
    }
    struct record_search whole = search_new();
    assert_true(record_search_file(&whole, path_of("log")));
    for (uint64_t less = 0; less < 2; less++) {
        struct record_search search = search_new();
        search.octets_max = whole.octets - less;
        assert_int_equal(less == 0, record_search_file(&search, path_of("log")));
    }
}

/* Goal: records in binary are told as JSON; what is no file has none. */
static void test_raw(void **state)
{
    struct record record = {.kind = RECORD_DELIVERY, .id = wanted, .recipient = "b@far.test"};
    uint8_t octets[RECORD_RAW_HEAD_SIZE + RECORD_RAW_ROOM];
    struct record_search search = search_new();

    (void)state;
    memcpy(octets, record_raw_head, RECORD_RAW_HEAD_SIZE);
    (void)record_raw_pack(&record, 1, octets + RECORD_RAW_HEAD_SIZE);
    uint32_t size = record_raw_seal(octets + RECORD_RAW_HEAD_SIZE);
    file_write("raw", octets, RECORD_RAW_HEAD_SIZE + size);
    assert_true(record_file_is_raw(path_of("raw")));
    assert_true(record_search_file(&search, path_of("raw")));
    assert_int_equal(1, search.found);
    assert_non_null(strstr(said, "\"b@far.test\""));
    search = search_new();
    assert_false(record_file_is_raw(path_of("gone")));
    assert_true(record_search_file(&search, path_of("gone")));
    assert_int_equal(0, search.found);
}

/* Goal: what is no record takes no longer than the time that there is, and is told. */
static void test_damaged(void **state)
{
    enum { SIZE = 8 << 20, LOOK = 1 << 20 };
    char *octets = malloc(SIZE);

    (void)state;
    assert_non_null(octets);
    for (uint32_t is_raw = 0; is_raw < 2; is_raw++) {
        memset(octets, 'x', SIZE); /* no end of a line either */
        if (is_raw)
            memcpy(octets, record_raw_head, RECORD_RAW_HEAD_SIZE);
        file_write("damaged", octets, SIZE);
        struct record_search search = search_new();
        search.deadline = 0;
        assert_false(record_search_file(&search, path_of("damaged")));
        assert_in_range(search.octets, LOOK, 2 * LOOK);
        assert_in_range(search.left, SIZE - 2 * LOOK, SIZE - LOOK);
        search = search_new();
        assert_true(record_search_file(&search, path_of("damaged")));
        assert_int_equal(0, search.found + search.left);
        assert_int_equal(is_raw ? SIZE - RECORD_RAW_HEAD_SIZE : 0, search.passed);
    }
    free(octets);
}

/* Goal: a line is shown whatever its octets are. */
static void test_rows(void **state)
{
    static const struct {
        const char *line, *shown;
    } rows[] = {
        {"d,b\xc3\xb6@far.test", "d,b\xc3\xb6@far.test"},
        {"d,b\xf6@far.test", "d,b\\xf6@far.test"},
        {"{\"type\":\"\xf6\"}", "{\\\"type\\\":\\\"\\xf6\\\"}"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        json_t *row = record_search_row(span_from_text(rows[i].line));
        assert_string_equal(rows[i].shown, json_string_value(row));
        json_decref(row);
    }
    json_t *record = record_search_row(span_from_text("{\"type\":\"delivery\"}"));
    assert_true(json_is_object(record));
    json_decref(record);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),   cmocka_unit_test(test_bounds), cmocka_unit_test(test_raw),
        cmocka_unit_test(test_damaged), cmocka_unit_test(test_rows),
    };

    assert_non_null(mkdtemp(folder));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    static const char *const names[] = {"log", "log.1", "raw"};
    for (size_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    rmdir(folder);
    return failed;
}
