/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in binary: what is encoded is read back as it was, nothing else is, and a reader finds
 * its way behind whatever does not belong there.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/record_json.h"
#include "control/record_raw.h"
#include "control/record_reader.h"
#include "control/record_writer.h"
#include "queue/way.h"

static char folder[] = "/tmp/test_record_raw.XXXXXX";

#define TIME_END 253402300800000000ll /* the year 10000 */

static const struct record delivery = {
    .kind = RECORD_DELIVERY,
    .code = 250,
    .enhanced = {2, 0, 1},
    .attempts = 2,
    .way = WAY_STREAM,
    .flags = RECORD_UNCERTAIN | RECORD_REPLAYED,
    .shard = 3,
    .time = 1700000065123456,
    .id = {1700000000000000, 7},
    .size = 5000000000,
    .session = 1ull << 60,
    .source = {.family = FLOW_FAMILY_IP4, .port = 40000, .ip = {198, 51, 100, 7}},
    .peer = {.family = FLOW_FAMILY_IP6, .port = 25, .ip = {0x20, 1, 0xd, 0xb8, [15] = 1}},
    .delays_ms = {10, 0, 120, 300},
    .connection_use = 9,
    .recipient_count = 65535,
    .recipient_index = 70000,
    .sequence = 1ull << 40,
    .source_name = "out1",
    .tls = "TLSv1.3",
    .host = "mx.example.org",
    .site = "example.org",
    .user = "u",
    .sender = "a@example.com",
    .recipient = "b@example.org",
    .text = "2.0.0 ok, \"queued\"\xff",
};

static uint32_t encode(const struct record *record, uint8_t *ret_octets)
{
    (void)record_raw_pack(record, record->sequence, ret_octets);
    return record_raw_seal(ret_octets);
}

/* All that is not decoded is zero, so that records can be compared as a whole. */
static void texts_fill(struct record *record, char octet)
{
    memset(record->tls, octet, sizeof(record->tls) - 1);
    memset(record->host, octet, sizeof(record->host) - 1);
    memset(record->site, octet, sizeof(record->site) - 1);
    memset(record->source_name, octet, sizeof(record->source_name) - 1);
    memset(record->user, octet, sizeof(record->user) - 1);
    memset(record->sender, octet, sizeof(record->sender) - 1);
    memset(record->recipient, octet, sizeof(record->recipient) - 1);
    memset(record->text, octet, sizeof(record->text) - 1);
}

/* Goal: every field comes back, at both ends of the size. */
static void test_round(void **state)
{
    struct {
        const char *name;
        struct record record;
        uint32_t size;
    } rows[] = {
        {"usual", delivery, 0},
        {"nothing said", {.kind = RECORD_RECEPTION}, RECORD_RAW_SIZE_MIN},
        {"all that fits", delivery, RECORD_RAW_SIZE_MAX},
        {"last kind and way, end of the year 9999",
         {.kind = RECORD_ORDER,
          .way = WAY_COUNT - 1,
          .time = TIME_END - 1,
          .id = {TIME_END - 1, 0}},
         0},
        {"socket", {.kind = RECORD_BOUNCE, .peer = {.family = FLOW_FAMILY_UNIX}}, 0},
    };

    (void)state;
    texts_fill(&rows[2].record, '\x01');
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t octets[RECORD_RAW_ROOM];
        struct record record;
        uint32_t used = 0, size = encode(&rows[i].record, octets);
        print_message("# %s\n", rows[i].name);
        if (rows[i].size != 0)
            assert_int_equal(rows[i].size, size);
        assert_int_equal(ERR_OK, record_raw_decode(span_of(octets, size), &record, &used));
        assert_int_equal(size, used);
        assert_memory_equal(&rows[i].record, &record, sizeof(record));
    }
}

/* Goal: cut at any length it is waited for; with any bit turned it is no record, but may be one
 * that is longer than what is there. */
static void test_damage(void **state)
{
    uint8_t octets[RECORD_RAW_ROOM];
    struct record record;
    uint32_t used, size = encode(&delivery, octets);

    (void)state;
    for (uint32_t i = 0; i < size; i++)
        assert_int_equal(ERR_AGAIN, record_raw_decode(span_of(octets, i), &record, &used));
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
        enum err err = record_raw_decode(span_of(octets, size), &record, &used);
        assert_true(err == ERR_PEER_SYNTAX || (err == ERR_AGAIN && (bit / 8 == 2 || bit / 8 == 3)));
        octets[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

/* Goal: what the checksum holds for is looked at all the same. */
static void test_sealed_nonsense(void **state)
{
    static const struct {
        const char *name;
        struct record record;
    } rows[] = {
        {"no kind", {.kind = 0}},
        {"a kind too many", {.kind = RECORD_ORDER + 1}},
        {"a way too many", {.kind = RECORD_ORDER, .way = WAY_COUNT}},
        {"before 1970", {.kind = RECORD_ORDER, .time = -1}},
        {"the year 10000", {.kind = RECORD_ORDER, .time = TIME_END}},
        {"a message of that year", {.kind = RECORD_ORDER, .id = {TIME_END, 0}}},
        {"another family", {.kind = RECORD_ORDER, .source = {.family = 5}}},
        {"another family of the peer's", {.kind = RECORD_ORDER, .peer = {.family = 10}}},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t octets[RECORD_RAW_ROOM];
        struct record record;
        uint32_t used, size = encode(&rows[i].record, octets);
        print_message("# %s\n", rows[i].name);
        assert_int_equal(ERR_PEER_SYNTAX, record_raw_decode(span_of(octets, size), &record, &used));
    }
}

/* Goal: of octets that end in the middle the whole records are known. */
static void test_whole(void **state)
{
    char octets[3 * RECORD_RAW_ROOM];
    uint32_t ends[3], size = 0, count;

    (void)state;
    for (uint32_t i = 0; i < 3; i++) {
        size += encode(&delivery, (uint8_t *)octets + size);
        ends[i] = size;
    }
    for (uint32_t i = 0; i <= size; i++) {
        uint32_t whole = record_raw_whole(octets, i, &count);
        assert_int_equal(count == 0 ? 0 : ends[count - 1], whole);
        assert_true(count == 3 || i < ends[count]);
    }
    assert_int_equal(3, count);
}

/* ---- files ---- */

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void put(FILE *out, uint64_t number, uint32_t cut)
{
    uint8_t octets[RECORD_RAW_ROOM];
    struct record record = delivery;

    record.sequence = number;
    uint32_t size = encode(&record, octets);
    assert_int_equal(size - cut, fwrite(octets, 1, size - cut, out));
}

/* What is read of `path`: numbers of records, up to `max`; 0 behind them. */
static uint64_t numbers_read(const char *path, uint64_t *ret_numbers, uint32_t max)
{
    struct record_reader reader;
    struct record record;
    uint32_t count = 0;

    memset(ret_numbers, 0, max * sizeof(*ret_numbers));
    record_reader_open(&reader, path, RECORD_READER_OLDEST, NULL);
    while (count < max && record_reader_next_raw(&reader, &record))
        ret_numbers[count++] = record.sequence;
    uint64_t passed = reader.passed;
    record_reader_close(&reader);
    return passed;
}

/* Goal: files that were turned over come first; what a cut write left is passed over, in the middle
 * and at the end; a magic number that announces more than there is hides nothing. */
static void test_reader(void **state)
{
    static const uint64_t expected[] = {1, 2, 3, 4, 5, 0};
    uint64_t numbers[COUNT_OF(expected)];
    char older[160];
    const char *path = path_of("files");

    (void)state;
    snprintf(older, sizeof(older), "%s.1", path);
    FILE *out = fopen(older, "w");
    assert_non_null(out);
    fputs(record_raw_head, out);
    put(out, 1, 0);
    put(out, 99, 30);
    put(out, 2, 0);
    put(out, 99, 1);
    fclose(out);
    out = fopen(path, "w");
    assert_non_null(out);
    fputs(record_raw_head, out);
    put(out, 3, 0);
    fputs("\xa7\x01\xa0\x03 and so on", out);
    put(out, 4, 0);
    put(out, 5, 0);
    fputs("\xa7", out);
    fclose(out);
    assert_true(numbers_read(path, numbers, COUNT_OF(numbers)) > 0);
    assert_memory_equal(expected, numbers, sizeof(expected));
}

/* Goal: what the writer makes of a ring is what JSON would have said of it, also over more than one
 * buffer of the file, and nothing of it makes no record. */
static void test_writer(void **state)
{
    enum { COUNT = 3000 };
    static uint64_t numbers[COUNT + 1];
    const char *path = path_of("written"), *which;
    struct record_file_options raw = {
        .path = path, .head = record_raw_head, .whole = record_raw_whole};
    struct record_writer_options options = {
        .raw = &raw, .shard_count = 1, .buffer_count = 4096, .must_hold = true, .hold_ms = 1000};
    struct record_writer *writer = NULL;

    (void)state;
    assert_int_equal(ERR_OK, record_writer_new(&options, &writer, &which));
    struct record_sink sink = record_writer_sink(writer, 0);
    for (uint32_t i = 0; i < COUNT; i++)
        sink.emit(sink.context, &delivery);
    assert_true(record_writer_finish(writer, 10));
    assert_int_equal(COUNT, sink.holder->kept(sink.context));
    assert_int_equal(COUNT, record_writer_get_stats(writer).written);
    record_writer_free(writer);
    assert_int_equal(0, numbers_read(path, numbers, COUNT + 1));
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(i + 1, numbers[i]);
    assert_int_equal(0, numbers[COUNT]);
}

/* Goal: a disk that takes a part of a buffer makes no record twice, and none that is cut counts. */
static void test_part_written(void **state)
{
    struct record_file_options options = {
        .path = "/dev/full", .head = "", .must_keep = true, .whole = record_raw_whole};
    struct record_file file;

    (void)state;
    assert_int_equal(ERR_OK, record_file_open(&file, &options));
    uint8_t *room = (uint8_t *)record_file_room(&file, RECORD_RAW_ROOM, 0);
    record_file_take(&file, encode(&delivery, room));
    record_file_flush(&file, 1);
    assert_true(file.is_stuck);
    assert_int_equal(1, file.count);
    assert_int_equal(0, file.written);
    record_file_close(&file);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(folder) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    char command[128];

    (void)state;
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command) == 0 ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),           cmocka_unit_test(test_damage),
        cmocka_unit_test(test_sealed_nonsense), cmocka_unit_test(test_whole),
        cmocka_unit_test(test_reader),          cmocka_unit_test(test_writer),
        cmocka_unit_test(test_part_written),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
