/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packed records: texts of every size that a field has come back as they were, whatever lay in the
 * place before, and nothing outside a record's place is touched.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "relay/record.h"

#define DIRT 0xa5

static char *text_of(struct record *record, uint32_t i)
{
    return (char *)record + record_texts[i].offset;
}

/* A text of `size` octets in field i, and what packing and unpacking make of it. On the heap, so
 * that a sanitizer sees what is beyond. */
static void check_field(uint32_t i, uint32_t size)
{
    struct record *record = calloc(1, sizeof(*record)), *packed = malloc(sizeof(*packed)),
                  *back = malloc(sizeof(*back));

    assert_true(record != NULL && packed != NULL && back != NULL);
    memset(packed, DIRT, sizeof(*packed));
    memset(back, DIRT, sizeof(*back));
    for (uint32_t k = 0; k < RECORD_TEXT_COUNT; k++)
        memset(text_of(record, k), 'a' + (int)k, k % 2 == 0 ? record_texts[k].size - 1u : k);
    memset(text_of(record, i), '\0', record_texts[i].size);
    memset(text_of(record, i), 0x80, size);
    record->sequence = 1ull << 60;
    record->peer.port = 65535;
    record_pack(record, packed);
    record_unpack(packed, back);
    assert_memory_equal(record, back, offsetof(struct record, tls));
    for (uint32_t k = 0; k < RECORD_TEXT_COUNT; k++)
        assert_string_equal(text_of(record, k), text_of(back, k));
    free(record);
    free(packed);
    free(back);
}

static void test_texts_come_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++)
        for (uint32_t size = 0; size < record_texts[i].size; size++)
            check_field(i, size);
}

static void test_full_record_fills_its_place(void **state)
{
    struct record record = {0}, packed = {0};

    (void)state;
    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++)
        memset(text_of(&record, i), 'x', record_texts[i].size - 1);
    record_pack(&record, &packed);
    assert_memory_equal(&record, &packed, sizeof(record));
}

static void test_short_record_takes_a_few_lines(void **state)
{
    struct record record = {.kind = RECORD_DELIVERY, .tls = "TLSv1.3", .text = "2.0.0 ok"}, packed;

    (void)state;
    memset(&packed, DIRT, sizeof(packed));
    record_pack(&record, &packed);
    const uint8_t *octets = (const uint8_t *)&packed;
    for (size_t i = offsetof(struct record, tls) + 64; i < sizeof(packed); i++)
        assert_int_equal(DIRT, octets[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_come_back),
        cmocka_unit_test(test_full_record_fills_its_place),
        cmocka_unit_test(test_short_record_takes_a_few_lines),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
