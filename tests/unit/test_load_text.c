/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The messages of angarium-load: every size makes clean lines, what was made is recognised, any
 * changed octet is not; and the sink's reader of bodies, cut at every place.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/load/body_reader.h"
#include "bench/load/text.h"
#include "queue/crc32c.h"

/* ---- the reader ---- */

/* What a body is, read octet by octet. Returns octets used, 0 if it does not end. */
static uint32_t read_plainly(struct span input, char *ret_text, uint32_t *ret_size)
{
    uint32_t size = 0;

    for (uint32_t i = 0; i < input.size; i++) {
        bool is_start = i == 0 || (i >= 2 && memcmp(input.data + i - 2, "\r\n", 2) == 0);
        if (is_start && input.size - i >= 3 && memcmp(input.data + i, ".\r\n", 3) == 0) {
            *ret_size = size;
            return i + 3;
        }
        if (is_start && input.data[i] == '.')
            continue;
        ret_text[size++] = (char)input.data[i];
    }
    return 0;
}

static uint32_t read_in_cuts(struct span input, uint32_t cut, char *ret_text, uint32_t *ret_size)
{
    struct body_reader reader = {0};
    uint32_t used = 0, size = 0;

    while (used < input.size && reader.state != BODY_END) {
        struct span text, part = span_skip(input, used);
        part.size = part.size < cut ? part.size : cut;
        used += body_reader_next(&reader, part, &text);
        memcpy(ret_text + size, text.data, text.size);
        size += text.size;
    }
    *ret_size = size;
    return reader.state == BODY_END ? used : 0;
}

static void bodies_are_read_alike_in_all_cuts(void **state)
{
    static const char *const cases[] = {
        ".\r\n",
        "..\r\n.\r\n",
        "a\r\n.\r\nQUIT\r\n",
        "a\r\n..b\r\n...\r\n.\r\n",
        ".\r\r\n.\r\n",
        ".\ra\r\n.\r\n",
        "a\n.\nb\r\n.\r\n",
        "a\r.\r\nb\r\n.\r\n",
        "a.\r\n.\r\n",
        "\r\n.\r\n",
        "\r\n\r\n..\r\n.\r\n.",
        ".\n\r\n.\r\n",
        "..\r\r\n\r\n.\r\n",
        ".a..\r\n.b\r\n.\r\n",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char wanted[64], got[64];
        uint32_t wanted_size = 0, got_size = 0;
        struct span input = span_from_text(cases[i]);
        uint32_t used = read_plainly(input, wanted, &wanted_size);
        print_message("# case %zu\n", i);
        assert_int_not_equal(0, used);
        for (uint32_t cut = 1; cut <= input.size; cut++) {
            assert_int_equal(used, read_in_cuts(input, cut, got, &got_size));
            assert_int_equal(wanted_size, got_size);
            assert_memory_equal(wanted, got, wanted_size);
        }
    }
}

static void a_body_without_end_goes_on(void **state)
{
    static const char *const cases[] = {"", ".", ".\r", "a\r\n.", "a\r\n.\r", "a\n.\n", "a\r\n.a"};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[64];
        uint32_t size;
        for (uint32_t cut = 1; cut < 8; cut++)
            assert_int_equal(0, read_in_cuts(span_from_text(cases[i]), cut, text, &size));
    }
}

/* ---- messages ---- */

static const struct text_identity identity = {
    .run = 0xabc123, .number = 42, .size = 0, .recipients = 3, .stamp = 1700000000000000};

/* The body as it goes out, and its field. */
static uint32_t make(const uint8_t *text, uint32_t size, uint8_t *ret_body,
                     char ret_field[TEXT_FIELD_MAX])
{
    struct text_identity mine = identity;
    struct text_plan plan;
    char tail[TEXT_TAIL_MAX];

    mine.size = size;
    text_plan_make(text, size, &plan);
    uint32_t tail_size = text_tail(&plan, &mine, tail);
    memcpy(ret_body, text, plan.prefix);
    memcpy(ret_body + plan.prefix, tail, tail_size);
    assert_int_equal(size, plan.prefix + tail_size);
    return text_field(&plan, &mine, span_of(tail, tail_size), ret_field);
}

static bool is_recognised(struct span body, struct span field)
{
    struct text_seen seen;

    if (text_field_parse(field, &seen) != ERR_OK)
        return false;
    return seen.size == body.size &&
           seen.checksum == crc32c_update(crc32c_update(0, body), seen.covered);
}

/* Over two whole periods of lines and around the smallest unique size. */
static void bodies_of_every_size_are_whole(void **state)
{
    enum { SIZE = 400 };
    uint8_t *text = text_new(SIZE), body[SIZE];
    char field[TEXT_FIELD_MAX];

    (void)state;
    for (uint32_t size = TEXT_SIZE_MIN; size <= SIZE; size++) {
        uint32_t field_size = make(text, size, body, field);
        struct span value = span_of(field + 8, field_size - 10);
        assert_memory_equal("X-Load: ", field, 8);
        assert_memory_equal("\r\n", field + field_size - 2, 2);
        assert_memory_equal("\r\n", body + size - 2, 2);
        for (uint32_t i = 0; i < size; i++) {
            bool is_cr = body[i] == '\r', is_lf = body[i] == '\n';
            assert_true(!is_cr || body[i + 1] == '\n');
            assert_true(!is_lf || (i > 0 && body[i - 1] == '\r'));
            assert_int_not_equal('.', body[i]);
        }
        assert_true(is_recognised(span_of(body, size), value));
    }
    free(text);
}

static void changed_octets_are_seen(void **state)
{
    enum { SIZE = 300 };
    uint8_t *text = text_new(SIZE), body[SIZE];
    char field[TEXT_FIELD_MAX];
    uint32_t field_size = make(text, SIZE, body, field);
    struct span value = span_of(field + 8, field_size - 10);

    (void)state;
    for (uint32_t i = 0; i < SIZE; i++) {
        body[i] ^= 1;
        assert_false(is_recognised(span_of(body, SIZE), value));
        body[i] ^= 1;
    }
    for (uint32_t i = 0; i < value.size; i++) {
        field[8 + i] = field[8 + i] == '5' ? '6' : '5';
        assert_false(is_recognised(span_of(body, SIZE), value));
        (void)make(text, SIZE, body, field);
    }
    assert_false(is_recognised(span_of(body, SIZE - 1), value));
    assert_true(is_recognised(span_of(body, SIZE), value));
    free(text);
}

static void fields_are_read(void **state)
{
    static const struct {
        const char *text;
        enum err err;
    } cases[] = {
        {"a1-7 100 2 1700000000000000 0a1b2c3d", ERR_OK},
        {"a1-7 100 2 1700000000000000 0a1b2c3", ERR_PEER_SYNTAX},
        {"a1-7 100 2 1700000000000000 0A1b2c3d", ERR_PEER_SYNTAX},
        {"a1-7 100 2 1700000000000000", ERR_PEER_SYNTAX},
        {"a1-7 67108864 2 1 0a1b2c3d", ERR_OK},
        {"a1-7 67108865 2 1 0a1b2c3d", ERR_PEER_SYNTAX},
        {"a1-7 1 4294967295 1 0a1b2c3d", ERR_OK},
        {"a1-7 1 4294967296 1 0a1b2c3d", ERR_PEER_SYNTAX},
        {"a1-7 1 1 9223372036854775807 0a1b2c3d", ERR_OK},
        {"a1-7 1 1 9223372036854775808 0a1b2c3d", ERR_PEER_SYNTAX},
        {"12345678901234567890123456789012345678901234567 1 1 1 0a1b2c3d", ERR_OK},
        {"123456789012345678901234567890123456789012345678 1 1 1 0a1b2c3d", ERR_PEER_SYNTAX},
        {"x1-7 1 1 1 0a1b2c3d", ERR_PEER_SYNTAX},
        {" 1 1 1 0a1b2c3d", ERR_PEER_SYNTAX},
        {"", ERR_PEER_SYNTAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct text_seen seen;
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(cases[i].err, text_field_parse(span_from_text(cases[i].text), &seen));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bodies_are_read_alike_in_all_cuts),
        cmocka_unit_test(a_body_without_end_goes_on),
        cmocka_unit_test(bodies_of_every_size_are_whole),
        cmocka_unit_test(changed_octets_are_seen),
        cmocka_unit_test(fields_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
