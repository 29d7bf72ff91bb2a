/* SPDX-License-Identifier: Apache-2.0 */
/* Records, indexes and segment headers of the spool: known checksums, every bit flip, every length.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/crc32c.h"
#include "queue/spool_record.h"

#define SALT 0x1122334455667788u

static void test_crc32c_known_values(void **state)
{
    (void)state;
    uint8_t zeros[32] = {0}, ones[32], rising[32];
    memset(ones, 0xff, sizeof(ones));
    for (uint32_t i = 0; i < sizeof(rising); i++)
        rising[i] = (uint8_t)i;
    const struct {
        const char *name;
        struct span octets;
        uint32_t checksum;
    } rows[] = {
        /* RFC 3720 appendix B.4 */
        {"32 zeros", span_of(zeros, 32), 0x8a9136aau},
        {"32 ones", span_of(ones, 32), 0x62a8ab43u},
        {"32 rising", span_of(rising, 32), 0x46dd794eu},
        {"nothing", span_of(zeros, 0), 0},
        {"check", SPAN_LITERAL("123456789"), 0xe3069283u},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        assert_int_equal(rows[i].checksum, crc32c_update(0, rows[i].octets));
        assert_int_equal(rows[i].checksum, crc32c_update_portable(0, rows[i].octets));
    }
}

/* Both ways of computing agree at every size around the lanes, at any alignment, in any pieces. */
static void test_crc32c_ways_agree(void **state)
{
    (void)state;
    static uint8_t data[16384];
    struct rng rng;
    rng_init_seed(&rng, 1);
    rng_fill(&rng, data, sizeof(data));
    for (uint32_t size = 0; size <= 7000; size += size < 900 ? 1 : 37) {
        struct span octets = span_of(data + size % 9, size);
        uint32_t whole = crc32c_update_portable(0, octets);
        assert_int_equal(whole, crc32c_update(0, octets));
        uint32_t cut = size == 0 ? 0 : rng_below(&rng, size);
        uint32_t part = crc32c_update(0, span_head(octets, cut));
        assert_int_equal(whole, crc32c_update(part, span_skip(octets, cut)));
    }
}

static struct spool_record record_make(struct span payload)
{
    struct spool_record record = {
        .type = SPOOL_PROGRESS,
        .payload_size = payload.size,
        .id = {1, 2},
        .sequence = 3,
        .salt = SALT,
        .epoch = 4,
        .payload_checksum = crc32c_update(0, payload),
    };
    spool_record_seal(&record);
    return record;
}

/* A record and its payload are read back only as they were written. */
static bool is_read_back(struct span octets)
{
    struct spool_record record;
    if (spool_record_open(octets, SALT, &record) != ERR_OK)
        return false;
    struct span payload = span_skip(octets, sizeof(record));
    return payload.size >= record.payload_size &&
           spool_payload_is_valid(&record, span_head(payload, record.payload_size));
}

static void test_record_bit_flips(void **state)
{
    (void)state;
    struct span payload = SPAN_LITERAL("recipients settled, attempts, next try");
    struct spool_record record = record_make(payload);
    uint8_t octets[256];
    uint32_t size = (uint32_t)sizeof(record) + payload.size;
    memcpy(octets, &record, sizeof(record));
    memcpy(octets + sizeof(record), payload.data, payload.size);
    assert_true(is_read_back(span_of(octets, size)));
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        octets[bit / 8] = (uint8_t)(octets[bit / 8] ^ 1u << bit % 8);
        assert_false(is_read_back(span_of(octets, size)));
        octets[bit / 8] = (uint8_t)(octets[bit / 8] ^ 1u << bit % 8);
    }
    for (uint32_t cut = 0; cut < size; cut++)
        assert_false(is_read_back(span_of(octets, cut)));
    assert_true(is_read_back(span_of(octets, size)));
}

/* Of a message of two kilobytes, one to three bits that change by chance, wherever they are
 * (HAZARDS M19): as many as a checksum of this length is certain to see. */
static void test_a_million_flips(void **state)
{
    const char *is_long = getenv("ANGARIUM_TEST_LONG");
    uint32_t rounds = is_long != NULL && is_long[0] == '1' ? 1000000 : 50000;
    uint8_t octets[sizeof(struct spool_record) + 2048];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 19);
    for (uint32_t i = sizeof(struct spool_record); i < sizeof(octets); i++)
        octets[i] = (uint8_t)rng_below(&rng, 256);
    struct span payload = span_skip(span_of(octets, sizeof(octets)), sizeof(struct spool_record));
    struct spool_record record = record_make(payload);
    memcpy(octets, &record, sizeof(record));
    for (uint32_t round = 0; round < rounds; round++) {
        uint32_t bits[3], count = 1 + round % 3;
        for (uint32_t i = 0; i < count; i++) {
            bits[i] = rng_below(&rng, 8 * sizeof(octets));
            octets[bits[i] / 8] = (uint8_t)(octets[bits[i] / 8] ^ 1u << bits[i] % 8);
        }
        bool is_undone = count == 2 && bits[0] == bits[1];
        assert_int_equal(is_undone, is_read_back(span_of(octets, sizeof(octets))));
        for (uint32_t i = 0; i < count; i++)
            octets[bits[i] / 8] = (uint8_t)(octets[bits[i] / 8] ^ 1u << bits[i] % 8);
    }
    assert_true(is_read_back(span_of(octets, sizeof(octets))));
}

static void test_record_of_another_generation(void **state)
{
    (void)state;
    struct spool_record record = record_make((struct span){0}), back;
    struct span octets = span_of(&record, sizeof(record));
    assert_int_equal(ERR_OK, spool_record_open(octets, SALT, &back));
    assert_int_equal(ERR_DISK_CORRUPT, spool_record_open(octets, SALT + 1, &back));
}

static void test_record_end(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint32_t offset, payload_size;
        uint8_t flags;
        uint64_t end;
    } rows[] = {
        {"empty", 4096, 0, 0, 4160},
        {"one octet is padded to eight", 4096, 1, 0, 4168},
        {"eight octets are not", 4096, 8, 0, 4168},
        {"the last of a batch ends its block", 4096, 1, SPOOL_RECORD_LAST, 8192},
        {"a full block ends there", 4096, 4032, SPOOL_RECORD_LAST, 8192},
        {"one more octet takes another block", 4096, 4033, SPOOL_RECORD_LAST, 12288},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct spool_record record = {.payload_size = rows[i].payload_size, .flags = rows[i].flags};
        assert_int_equal(rows[i].end, spool_record_end(&record, rows[i].offset));
    }
}

static void test_segment_header_bit_flips(void **state)
{
    (void)state;
    struct spool_segment_header header = {
        .salt = SALT, .epoch = 1, .segment_size = SPOOL_SEGMENT_SIZE_MIN};
    spool_segment_header_seal(&header);
    struct spool_segment_header back;
    uint8_t *octets = (uint8_t *)&header;
    assert_int_equal(ERR_OK, spool_segment_header_open(span_of(octets, 64), &back));
    for (uint32_t bit = 0; bit < 64 * 8; bit++) {
        octets[bit / 8] = (uint8_t)(octets[bit / 8] ^ 1u << bit % 8);
        assert_int_equal(ERR_DISK_CORRUPT, spool_segment_header_open(span_of(octets, 64), &back));
        octets[bit / 8] = (uint8_t)(octets[bit / 8] ^ 1u << bit % 8);
    }
    for (uint32_t cut = 0; cut < 64; cut++)
        assert_int_equal(ERR_DISK_CORRUPT, spool_segment_header_open(span_of(octets, cut), &back));
}

static enum err index_open(struct span trailer_octets, struct span rows)
{
    struct spool_trailer trailer;
    TRY(spool_trailer_open(trailer_octets, SALT, SPOOL_SEGMENT_SIZE_MIN, &trailer));
    if (rows.size != spool_index_size(&trailer))
        return ERR_DISK_CORRUPT;
    return spool_index_verify(&trailer, rows);
}

static void test_index_bit_flips(void **state)
{
    (void)state;
    struct {
        struct spool_row rows[3];
        uint8_t details[16];
    } index = {.details = "details"};
    for (uint32_t i = 0; i < 3; i++)
        index.rows[i] = (struct spool_row){.id = {i, i},
                                           .offset = SPOOL_BLOCK_SIZE,
                                           .payload_size = 100,
                                           .type = SPOOL_MESSAGE,
                                           .detail_size = i < 2 ? 8 : 0};
    struct span rows_span = span_of(&index, sizeof(index));
    struct spool_trailer trailer = {
        .salt = SALT,
        .index_offset = SPOOL_SEGMENT_SIZE_MIN - 2 * SPOOL_BLOCK_SIZE,
        .row_count = 3,
        .details_size = sizeof(index.details),
        .log_end = SPOOL_BLOCK_SIZE + 200,
    };
    spool_trailer_seal(&trailer, rows_span);
    struct span trailer_span = span_of(&trailer, sizeof(trailer));
    assert_int_equal(ERR_OK, index_open(trailer_span, rows_span));
    uint8_t *parts[] = {(uint8_t *)&trailer, (uint8_t *)&index};
    const uint32_t sizes[] = {sizeof(trailer), sizeof(index)};
    for (uint32_t part = 0; part < 2; part++) {
        for (uint32_t bit = 0; bit < sizes[part] * 8; bit++) {
            parts[part][bit / 8] = (uint8_t)(parts[part][bit / 8] ^ 1u << bit % 8);
            assert_int_equal(ERR_DISK_CORRUPT, index_open(trailer_span, rows_span));
            parts[part][bit / 8] = (uint8_t)(parts[part][bit / 8] ^ 1u << bit % 8);
        }
    }
}

/* An index that is sealed, but says what cannot be, is refused as well. */
/* Goal: what is older than the one before is not ours, what is newer is refused as that. */
static void test_versions(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint32_t version;
        enum err err;
    } rows[] = {
        {"none", 0, ERR_DISK_CORRUPT},
        {"before the oldest that is read", SPOOL_VERSION_MIN - 1, ERR_DISK_CORRUPT},
        {"the oldest that is read", SPOOL_VERSION_MIN, ERR_OK},
        {"ours", SPOOL_VERSION, ERR_OK},
        {"newer", SPOOL_VERSION + 1, ERR_DISK_VERSION},
        {"newest", UINT32_MAX, ERR_DISK_VERSION},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct spool_segment_header header = {.salt = SALT,
                                              .epoch = 1,
                                              .segment_size = SPOOL_SEGMENT_SIZE_MIN},
                                    back;
        spool_segment_header_seal(&header);
        header.version = rows[i].version;
        header.checksum = crc32c_update(0, span_of(&header, 60));
        assert_int_equal(rows[i].err,
                         spool_segment_header_open(span_of(&header, sizeof(header)), &back));
    }
}

static void test_index_bounds(void **state)
{
    (void)state;
    const uint32_t end = SPOOL_SEGMENT_SIZE_MIN - 2 * SPOOL_BLOCK_SIZE;
    const struct {
        const char *name;
        uint32_t index_offset, offset, payload_size;
        uint8_t type;
        enum err err;
    } rows[] = {
        {"possible", end, end - 168, 104, SPOOL_DONE, ERR_OK},
        {"ends in the index", end, end - 168, 105, SPOOL_DONE, ERR_DISK_CORRUPT},
        {"begins at no multiple of 8", end, end - 172, 100, SPOOL_DONE, ERR_DISK_CORRUPT},
        {"begins in the header", end, SPOOL_BLOCK_SIZE - 8, 1, SPOOL_DONE, ERR_DISK_CORRUPT},
        {"BODY", end, 4096, 1, SPOOL_BODY, ERR_DISK_CORRUPT},
        {"no type", end, 4096, 1, SPOOL_RECORD_TYPE_END, ERR_DISK_CORRUPT},
        {"payload too large", end, 4096, SPOOL_PAYLOAD_SIZE_MAX + 1, SPOOL_MESSAGE,
         ERR_DISK_CORRUPT},
        {"index at an odd place", end + 1, 4096, 1, SPOOL_DONE, ERR_DISK_CORRUPT},
        {"index in the trailer", end + SPOOL_BLOCK_SIZE, 4096, 1, SPOOL_DONE, ERR_DISK_CORRUPT},
        {"index in the header", 0, 4096, 1, SPOOL_DONE, ERR_DISK_CORRUPT},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct spool_row row = {
            .offset = rows[i].offset, .payload_size = rows[i].payload_size, .type = rows[i].type};
        struct span span = span_of(&row, sizeof(row));
        struct spool_trailer trailer = {
            .salt = SALT, .index_offset = rows[i].index_offset, .row_count = 1};
        spool_trailer_seal(&trailer, span);
        assert_int_equal(rows[i].err, index_open(span_of(&trailer, sizeof(trailer)), span));
    }
}

static void test_detail_bounds(void **state)
{
    (void)state;
    const uint32_t end = SPOOL_SEGMENT_SIZE_MIN - 2 * SPOOL_BLOCK_SIZE;
    const struct {
        const char *name;
        uint32_t detail_size, details_size, log_end;
        enum err err;
    } rows[] = {
        {"one that is there", 8, 8, end, ERR_OK},
        {"one that is not there", 8, 7, 0, ERR_DISK_CORRUPT},
        {"one that is nobody's", 8, 9, 0, ERR_DISK_CORRUPT},
        {"largest", SPOOL_DETAIL_SIZE_MAX, SPOOL_DETAIL_SIZE_MAX, 0, ERR_OK},
        {"too large", SPOOL_DETAIL_SIZE_MAX + 1, SPOOL_DETAIL_SIZE_MAX + 1, 0, ERR_DISK_CORRUPT},
        {"in the trailer", 8, 4096, 0, ERR_DISK_CORRUPT},
        {"log that ends in the index", 0, 0, end + 1, ERR_DISK_CORRUPT},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct {
            struct spool_row row;
            uint8_t details[4096];
        } index = {.row = {.offset = 4096,
                           .payload_size = 1,
                           .type = SPOOL_MESSAGE,
                           .detail_size = rows[i].detail_size}};
        struct span span = span_of(&index, (uint32_t)sizeof(index.row) + rows[i].details_size);
        struct spool_trailer trailer = {.salt = SALT,
                                        .index_offset = end,
                                        .row_count = 1,
                                        .details_size = rows[i].details_size,
                                        .log_end = rows[i].log_end};
        spool_trailer_seal(&trailer, span);
        assert_int_equal(rows[i].err, index_open(span_of(&trailer, sizeof(trailer)), span));
    }
}

static void test_message_bounds(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint32_t extent_count, envelope_size, extent_size, payload_size;
        uint64_t body_size;
        enum err err;
    } rows[] = {
        {"one extent", 1, 5, 100, 16 + 16 + 5, 100, ERR_OK},
        {"no body", 0, 5, 0, 16 + 5, 0, ERR_OK},
        {"no envelope", 1, 0, 7, 16 + 16, 7, ERR_OK},
        {"an octet more", 1, 5, 100, 16 + 16 + 6, 100, ERR_DISK_CORRUPT},
        {"an octet less", 1, 5, 100, 16 + 16 + 4, 100, ERR_DISK_CORRUPT},
        {"count that overflows", 0x10000000u, 5, 100, 16 + 16 + 5, 100, ERR_DISK_CORRUPT},
        {"body is not the sum", 1, 5, 100, 16 + 16 + 5, 101, ERR_DISK_CORRUPT},
        {"extent too large", 1, 5, SPOOL_PAYLOAD_SIZE_MAX + 1, 16 + 16 + 5,
         SPOOL_PAYLOAD_SIZE_MAX + 1, ERR_DISK_CORRUPT},
        {"shorter than its head", 0, 0, 0, 15, 0, ERR_DISK_CORRUPT},
    };
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        uint8_t payload[64] = {0};
        struct spool_message message = {rows[i].extent_count, rows[i].envelope_size,
                                        rows[i].body_size};
        struct spool_body_extent extent = {.size = rows[i].extent_size};
        memcpy(payload, &message, sizeof(message));
        if (rows[i].extent_count > 0)
            memcpy(payload + sizeof(message), &extent, sizeof(extent));
        struct span extents, envelope;
        assert_int_equal(rows[i].err, spool_message_open(span_of(payload, rows[i].payload_size),
                                                         &message, &extents, &envelope));
        if (rows[i].err == ERR_OK) {
            assert_int_equal(rows[i].envelope_size, envelope.size);
            assert_int_equal(rows[i].extent_count * 16, extents.size);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crc32c_known_values),
        cmocka_unit_test(test_crc32c_ways_agree),
        cmocka_unit_test(test_record_bit_flips),
        cmocka_unit_test(test_a_million_flips),
        cmocka_unit_test(test_record_of_another_generation),
        cmocka_unit_test(test_record_end),
        cmocka_unit_test(test_segment_header_bit_flips),
        cmocka_unit_test(test_index_bit_flips),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_index_bounds),
        cmocka_unit_test(test_detail_bounds),
        cmocka_unit_test(test_message_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
