/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records: every line is JSON whatever a peer sent; none is lost without being counted; a slow or
 * failing file stops nobody.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/record_json.h"
#include "control/record_writer.h"
#include "queue/way.h"

static char directory[] = "/tmp/test_record_writer.XXXXXX";

static const struct record delivery = {
    .kind = RECORD_DELIVERY,
    .code = 250,
    .enhanced = {2, 0, 0},
    .attempts = 2,
    .shard = 3,
    .time = 1700000000123456,
    .id = {1700000000000000, 7},
    .size = 5000000000,
    .session = 0xfedcba9876543210,
    .source = {.family = FLOW_FAMILY_IP4, .port = 40000, .ip = {198, 51, 100, 7}},
    .source_name = "out1",
    .peer = {.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 1}},
    .delays_ms = {12, 1500, 0, 61000},
    .connection_use = 4,
    .flags = RECORD_UNCERTAIN,
    .tls = "TLSv1.3",
    .host = "mx.example.org",
    .site = "example.org",
    .sender = "a@example.com",
    .recipient = "b@example.org",
    .text = "2.0.0 ok",
};

static json_t *parse(const struct record *record)
{
    char line[RECORD_JSON_SIZE_MAX];
    struct record_time time = {0};
    uint32_t size = record_json_format(record, &time, line);
    json_error_t error;

    assert_int_equal('\n', line[size - 1]);
    json_t *json = json_loadb(line, size - 1, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        print_message("# %s at %d\n", error.text, error.position);
    assert_non_null(json);
    return json;
}

static const char *text_of(json_t *json, const char *name)
{
    const char *text = json_string_value(json_object_get(json, name));
    return text == NULL ? "(none)" : text;
}

static void test_fields(void **state)
{
    json_t *json = parse(&delivery);

    (void)state;
    assert_string_equal("delivery", text_of(json, "type"));
    assert_string_equal("2023-11-14T22:13:20.123456Z", text_of(json, "time"));
    assert_string_equal("fedcba9876543210", text_of(json, "session"));
    assert_string_equal("a@example.com", text_of(json, "sender"));
    assert_string_equal("192.0.2.1:25", text_of(json, "peer"));
    assert_string_equal("198.51.100.7:40000", text_of(json, "source"));
    assert_string_equal("out1", text_of(json, "source_name"));
    assert_string_equal("2.0.0", text_of(json, "enhanced"));
    assert_string_equal("0.012/1.5/0/61", text_of(json, "delays"));
    assert_string_equal("TLSv1.3", text_of(json, "tls"));
    assert_int_equal(26, strlen(text_of(json, "id")));
    assert_int_equal(5000000000, json_integer_value(json_object_get(json, "size")));
    assert_int_equal(250, json_integer_value(json_object_get(json, "code")));
    assert_int_equal(2, json_integer_value(json_object_get(json, "attempts")));
    assert_int_equal(4, json_integer_value(json_object_get(json, "connection_use")));
    assert_int_equal(3, json_integer_value(json_object_get(json, "shard")));
    assert_true(json_is_true(json_object_get(json, "uncertain")));
    assert_null(json_object_get(json, "way")); /* it was not noted */
    assert_null(json_object_get(json, "passed_on"));
    json_decref(json);
}

/* Goal: which way a message went, and why; and who heard of a refusal. */
static void test_ways(void **state)
{
    (void)state;
    for (enum way way = WAY_READY; way < WAY_COUNT; way++) {
        struct record record = delivery;
        record.way = (uint8_t)way;
        record.flags = RECORD_PASSED_ON;
        json_t *json = parse(&record);
        bool is_straight = way == WAY_READY || way == WAY_STREAM;
        assert_string_equal(way == WAY_READY    ? "cut-through"
                            : way == WAY_STREAM ? "stream"
                                                : "spool",
                            text_of(json, "way"));
        assert_string_equal(is_straight ? "ready" : way_name(way), text_of(json, "way_reason"));
        assert_true(json_is_true(json_object_get(json, "passed_on")));
        json_decref(json);
    }
}

/* Goal: what has no value is not there, but a null sender is. */
static void test_empty_fields(void **state)
{
    struct record record = {.kind = RECORD_RECEPTION, .time = -1, .recipient_count = 2};
    json_t *json = parse(&record);

    (void)state;
    assert_string_equal("reception", text_of(json, "type"));
    assert_string_equal("1969-12-31T23:59:59.999999Z", text_of(json, "time"));
    assert_string_equal("", text_of(json, "sender"));
    assert_int_equal(2, json_integer_value(json_object_get(json, "recipients")));
    assert_int_equal(6, json_object_size(json)); /* and event, shard */
    json_decref(json);
}

/* Goal: what was not taken says why, in one word; what was taken does not. */
static void test_class(void **state)
{
    static const struct {
        uint16_t kind;
        const char *class;
    } cases[] = {{RECORD_BOUNCE, "bad-mailbox"}, {RECORD_DEFERRAL, "bad-mailbox"},
                 {RECORD_EXPIRY, "bad-mailbox"}, {RECORD_DELIVERY, "(none)"},
                 {RECORD_REJECTION, "(none)"},   {RECORD_RECEPTION, "(none)"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct record record = delivery;
        record.kind = cases[i].kind;
        record.code = 550;
        memcpy(record.enhanced, (uint8_t[]){5, 1, 1}, 3);
        json_t *json = parse(&record);
        assert_string_equal(cases[i].class, text_of(json, "class"));
        json_decref(json);
    }
}

static void test_texts(void **state)
{
    static const struct {
        const char *name, *text, *expected;
    } cases[] = {
        {"ascii", "plain text ~", "plain text ~"},
        {"quote and backslash", "a\"b\\c", "a\"b\\c"},
        {"control", "a\r\n\tb\x01\x1f\x7f", "a\r\n\tb\x01\x1f\x7f"},
        {"two octets", "\xc3\xa4", "\xc3\xa4"},
        {"three octets", "\xe2\x82\xac", "\xe2\x82\xac"},
        {"four octets", "\xf0\x9f\x93\xa8", "\xf0\x9f\x93\xa8"},
        {"highest", "\xf4\x8f\xbf\xbf", "\xf4\x8f\xbf\xbf"},
        {"beyond", "\xf4\x90\x80\x80", "\ufffd\ufffd\ufffd\ufffd"},
        {"overlong", "\xc0\xaf", "\ufffd\ufffd"},
        {"overlong three", "\xe0\x80\xaf", "\ufffd\ufffd\ufffd"},
        {"surrogate", "\xed\xa0\x80", "\ufffd\ufffd\ufffd"},
        {"cut off", "a\xe2\x82", "a\ufffd\ufffd"},
        {"continuation alone", "\x80z", "\ufffdz"},
        {"latin-1", "M\xfcller", "M\ufffdller"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct record record = delivery;
        print_message("# case: %s\n", cases[i].name);
        snprintf(record.text, sizeof(record.text), "%s", cases[i].text);
        json_t *json = parse(&record);
        assert_string_equal(cases[i].expected, text_of(json, "text"));
        json_decref(json);
    }
}

/* Goal: fields filled to the brim with the octet that grows most fit a line, without a NUL. */
static void test_longest_line(void **state)
{
    struct record record = delivery;

    (void)state;
    for (uint32_t octet = 1; octet < 256; octet++) {
        memset(&record.delays_ms, 0xff, sizeof(record.delays_ms));
        memset(record.tls, (int)octet, sizeof(record.tls));
        memset(record.host, (int)octet, sizeof(record.host));
        memset(record.site, (int)octet, sizeof(record.site));
        memset(record.sender, (int)octet, sizeof(record.sender));
        memset(record.recipient, (int)octet, sizeof(record.recipient));
        memset(record.text, (int)octet, sizeof(record.text));
        record.size = UINT64_MAX >> 1;
        json_t *json = parse(&record);
        if (octet < 128)
            assert_int_equal(sizeof(record.text), strlen(text_of(json, "text")));
        json_decref(json);
    }
}

/* ---- the writer ---- */

static const char *path_of(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    return path;
}

static struct record_writer *writer_on(const char *path, uint32_t shards, uint32_t buffer_count)
{
    struct record_file_options file = {.path = path, .head = ""};
    struct record_writer_options options = {
        .json = &file, .shard_count = shards, .buffer_count = buffer_count};
    struct record_writer *writer = NULL;
    const char *which;
    assert_int_equal(ERR_OK, record_writer_new(&options, &writer, &which));
    return writer;
}

/* Lines of a file; checks that each shard's records are whole and in order. */
static uint64_t lines_check(FILE *file, uint64_t last_size[4])
{
    char line[RECORD_JSON_SIZE_MAX];
    uint64_t lines = 0;

    while (fgets(line, sizeof(line), file) != NULL) {
        json_t *json = json_loads(line, 0, NULL);
        assert_non_null(json);
        uint64_t shard = (uint64_t)json_integer_value(json_object_get(json, "shard"));
        uint64_t size = (uint64_t)json_integer_value(json_object_get(json, "size"));
        assert_true(shard < 4);
        assert_true(size > last_size[shard]);
        last_size[shard] = size;
        json_decref(json);
        lines++;
    }
    return lines;
}

struct producer {
    pthread_t thread;
    struct record_sink sink;
    uint32_t shard, count;
};

static void *producer_main(void *argument)
{
    struct producer *producer = argument;
    struct record record = delivery;

    record.shard = producer->shard;
    for (uint32_t i = 1; i <= producer->count; i++) {
        record.size = i;
        producer->sink.emit(producer->sink.context, &record);
        if (i % 1000 == 0)
            usleep(200); /* let the writer fall asleep now and then */
    }
    return NULL;
}

/* Goal: with producers in parallel, written + dropped is what was emitted, in order. */
static void test_threads(void **state)
{
    struct producer producers[3];
    uint64_t last_size[4] = {0};
    const char *path = path_of("threads");
    struct record_writer *writer = writer_on(path, 3, 5000);

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        producers[i] =
            (struct producer){.sink = record_writer_sink(writer, i), .shard = i, .count = 8000};
        assert_int_equal(0,
                         pthread_create(&producers[i].thread, NULL, producer_main, &producers[i]));
    }
    for (uint32_t i = 0; i < 3; i++)
        pthread_join(producers[i].thread, NULL);
    for (uint32_t i = 0; i < 5000; i++) {
        struct record_writer_stats stats = record_writer_get_stats(writer);
        if (stats.written + stats.dropped == 24000)
            break;
        usleep(1000); /* also shows that a sleeping writer wakes */
    }
    struct record_writer_stats stats = record_writer_get_stats(writer);
    record_writer_free(writer);
    assert_int_equal(24000, stats.written + stats.dropped);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(stats.written, lines_check(file, last_size));
    fclose(file);
}

static void *free_main(void *argument)
{
    record_writer_free(argument);
    return NULL;
}

/* Goal: a file that takes nothing drops records, and says how many; nobody waits. */
static void test_slow_file(void **state)
{
    uint64_t last_size[4] = {0};
    const char *path = path_of("fifo");

    (void)state;
    assert_int_equal(0, mkfifo(path, 0600));
    int fifo = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fifo >= 0);
    struct record_writer *writer = writer_on(path, 1, 64);
    struct record_sink sink = record_writer_sink(writer, 0);
    struct record record = delivery;
    for (uint32_t i = 1; i <= 20000; i++) {
        record.shard = 0;
        record.size = i;
        sink.emit(sink.context, &record);
    }
    struct record_writer_stats stats = record_writer_get_stats(writer);
    assert_true(stats.dropped > 1000);

    FILE *reader = fopen(path, "r");
    assert_non_null(reader);
    close(fifo); /* the reader sees the end when the writer closes */
    pthread_t thread;
    assert_int_equal(0, pthread_create(&thread, NULL, free_main, writer));
    uint64_t lines = lines_check(reader, last_size);
    pthread_join(thread, NULL);
    fclose(reader);
    assert_int_equal(20000, lines + stats.dropped);
}

/* Goal: a full disk is counted and survived. */
static void test_full_disk(void **state)
{
    struct record_writer *writer = writer_on("/dev/full", 1, 64);
    struct record_sink sink = record_writer_sink(writer, 0);

    (void)state;
    for (uint32_t i = 0; i < 10; i++)
        sink.emit(sink.context, &delivery);
    for (uint32_t i = 0; i < 5000 && record_writer_get_stats(writer).dropped < 10; i++)
        usleep(1000);
    struct record_writer_stats stats = record_writer_get_stats(writer);
    assert_int_equal(0, stats.written);
    assert_int_equal(10, stats.dropped);
    assert_true(stats.write_failures >= 1);
    record_writer_free(writer);
}

/* Goal: after a rename and a reopen, new records go to the new file and none is lost. */
static void test_reopen(void **state)
{
    char old[300];
    uint64_t last_size[4] = {0};
    const char *path = path_of("reopen");
    struct record_writer *writer = writer_on(path, 1, 64);
    struct record_sink sink = record_writer_sink(writer, 0);
    struct record record = {.kind = RECORD_DEFERRAL, .size = 1};

    (void)state;
    sink.emit(sink.context, &record);
    for (uint32_t i = 0; i < 5000 && record_writer_get_stats(writer).written < 1; i++)
        usleep(1000);
    snprintf(old, sizeof(old), "%s.1", path);
    assert_int_equal(0, rename(path, old));
    record_writer_reopen(writer);
    for (uint32_t i = 0; i < 5000 && access(path, F_OK) != 0; i++)
        usleep(1000);
    record.size = 2;
    sink.emit(sink.context, &record);
    record_writer_free(writer);
    FILE *file = fopen(old, "r");
    assert_int_equal(1, lines_check(file, last_size));
    fclose(file);
    file = fopen(path, "r");
    assert_int_equal(1, lines_check(file, last_size));
    fclose(file);
}

/* Goal: the writer is behind with more than half of a ring, on both sides of it. */
static void test_behind(void **state)
{
    const char *path = path_of("behind");

    (void)state;
    assert_int_equal(0, mkfifo(path, 0600));
    int fifo = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fifo >= 0);
    struct record_writer *writer = writer_on(path, 1, 1024);
    struct record_sink sink = record_writer_sink(writer, 0);
    uint32_t emitted = 0, last = 0;
    char octets[65536];
    assert_false(sink.is_behind(sink.context));
    /* Until the pipe is full, and the writer stands still in it. */
    for (; !sink.is_behind(sink.context) && emitted < 100000; emitted++)
        sink.emit(sink.context, &delivery);
    assert_true(emitted > 512 && emitted < 100000);
    while (sink.is_behind(sink.context) && last++ < 1000)
        assert_true(read(fifo, octets, sizeof(octets)) > 0);
    assert_false(sink.is_behind(sink.context));
    FILE *reader = fopen(path, "r");
    pthread_t thread;
    assert_non_null(reader);
    close(fifo);
    assert_int_equal(0, pthread_create(&thread, NULL, free_main, writer));
    while (fread(octets, 1, sizeof(octets), reader) > 0)
        continue;
    pthread_join(thread, NULL);
    fclose(reader);
}

struct emitter {
    struct record_sink sink;
    atomic_bool must_stop;
};

static void *emit_main(void *argument)
{
    struct emitter *emitter = argument;

    while (!atomic_load(&emitter->must_stop))
        emitter->sink.emit(emitter->sink.context, &delivery);
    return NULL;
}

/* Goal: what was emitted before the end is written, though another shard never stops emitting. */
static void test_finish_while_emitting(void **state)
{
    const char *path = path_of("finish");
    struct record_writer *writer = writer_on(path, 2, 64);
    struct emitter emitter = {.sink = record_writer_sink(writer, 0)};
    struct record_sink sink = record_writer_sink(writer, 1);
    struct record record = {.kind = RECORD_DEFERRAL, .shard = 1};
    char line[8192];
    uint32_t found = 0;
    pthread_t thread;

    (void)state;
    assert_int_equal(0, pthread_create(&thread, NULL, emit_main, &emitter));
    for (uint32_t i = 0; i < 64; i++)
        sink.emit(sink.context, &record);
    bool is_finished = record_writer_finish(writer, 20);
    atomic_store(&emitter.must_stop, true);
    pthread_join(thread, NULL);
    assert_true(is_finished);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof(line), file) != NULL)
        found += strstr(line, "\"deferral\"") != NULL;
    fclose(file);
    assert_int_equal(64, found);
    record_writer_free(writer);
}

static void test_file_that_cannot_be_made(void **state)
{
    struct record_file_options json = {.path = path_of("made"), .head = ""};
    struct record_file_options csv = {.path = "/nonexistent/records", .head = ""};
    struct record_writer_options options = {
        .json = &json, .csv = &csv, .shard_count = 1, .buffer_count = 64};
    struct record_writer *writer = NULL;
    const char *which = NULL;

    (void)state;
    assert_int_equal(ERR_SYSTEM, record_writer_new(&options, &writer, &which));
    assert_string_equal(csv.path, which);
    assert_null(writer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_ways),
        cmocka_unit_test(test_empty_fields),
        cmocka_unit_test(test_class),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_longest_line),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_behind),
        cmocka_unit_test(test_slow_file),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_reopen),
        cmocka_unit_test(test_finish_while_emitting),
        cmocka_unit_test(test_file_that_cannot_be_made),
    };
    static const char *const names[] = {"threads", "fifo", "reopen", "reopen.1", "finish", "made"};

    CHECK(mkdtemp(directory) != NULL);
    int failed = cmocka_run_group_tests_name("record_writer", tests, NULL, NULL);
    for (uint32_t i = 0; i < COUNT_OF(names); i++)
        unlink(path_of(names[i]));
    rmdir(directory);
    return failed;
}
