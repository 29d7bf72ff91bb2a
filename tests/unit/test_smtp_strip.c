/* SPDX-License-Identifier: Apache-2.0 */
/* One field is taken out of a header, whatever the split, and nothing else is touched. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/smtp_strip.h"

static struct smtp_strip strip;
static char out[1 << 17];
static uint32_t out_size;

static void put(struct span octets)
{
    assert_true(out_size + octets.size < sizeof(out));
    if (octets.size > 0)
        memcpy(out + out_size, octets.data, octets.size);
    out_size += octets.size;
}

/* As smtpd_pool.c does, the content being what the client sends; pieces of at most `step`. */
static void feed(struct span text, uint32_t step)
{
    smtp_strip_init(&strip, SPAN_LITERAL("X-Pool"));
    out_size = 0;
    while (text.size > 0) {
        struct span piece = span_head(text, text.size < step ? text.size : step);
        put(smtp_strip_release(&strip, piece));
        piece = span_head(piece, smtp_strip_limit(piece));
        if (!smtp_strip_takes(&strip, piece))
            put(piece);
        text = span_skip(text, piece.size);
    }
    put(smtp_strip_release(&strip, SPAN_LITERAL("\n")));
}

/* Goal: what is left and what is found, for every split. */
static void test_fields(void **state)
{
    static const struct {
        const char *name, *in, *left, *value; /* value NULL: none; "": malformed */
    } cases[] = {
        {"none", "Subject: a\r\n\r\n", "Subject: a\r\n\r\n", NULL},
        {"alone", "X-Pool: bulk\r\n", "", "bulk"},
        {"between others", "A: 1\r\nX-Pool: bulk\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n", "bulk"},
        {"any case", "x-POOL:Bulk\r\nB: 2\r\n", "B: 2\r\n", "bulk"},
        {"blanks around", "X-Pool: \t bulk \t \r\n", "", "bulk"},
        {"blank in front of the colon", "X-Pool \t: bulk\r\nB: 2\r\n", "B: 2\r\n", "bulk"},
        {"folded", "X-Pool:\r\n bulk\r\n\t\r\nB: 2\r\n", "B: 2\r\n", "bulk"},
        {"folded in the middle", "X-Pool: bu\r\n lk\r\nB: 2\r\n", "B: 2\r\n", ""},
        {"folded in front of the colon", "X-Pool\r\n : bulk\r\nB: 2\r\n",
         "X-Pool\r\n : bulk\r\nB: 2\r\n", NULL},
        {"repeated", "X-Pool: a\r\nX-Pool: a\r\nB: 2\r\n", "B: 2\r\n", ""},
        {"no value", "X-Pool:\r\nB: 2\r\n", "B: 2\r\n", ""},
        {"no colon", "X-Pool bulk\r\nB: 2\r\n", "B: 2\r\n", ""},
        {"two words", "X-Pool: a b\r\n", "", ""},
        {"not a name", "X-Pool: a/b\r\n", "", ""},
        {"a backslash", "X-Pool: a\\\r\n", "", ""},
        {"31 octets", "X-Pool: a234567890123456789012345678901\r\n", "",
         "a234567890123456789012345678901"},
        {"32 octets", "X-Pool: a2345678901234567890123456789012\r\n", "", ""},
        {"name of another", "X-Pools: a\r\nX-Poo: b\r\n", "X-Pools: a\r\nX-Poo: b\r\n", NULL},
        {"in a continuation", "A: 1\r\n X-Pool: a\r\n", "A: 1\r\n X-Pool: a\r\n", NULL},
        {"in the middle of a line", "A: X-Pool: a\r\n", "A: X-Pool: a\r\n", NULL},
        {"begins alike, ends short", "X-P\r\nX-Pool\r\nX", "X-P\r\nX-Pool\r\nX", NULL},
        {"first line is a blank", " X-Pool: a\r\nB: 2\r\n", " X-Pool: a\r\nB: 2\r\n", NULL},
        {"alike behind the field", "X-Pool: a\r\nX-Poo: b\r\n", "X-Poo: b\r\n", "a"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct span in = span_from_text(cases[i].in);
        print_message("# case: %s\n", cases[i].name);
        for (uint32_t step = 1; step <= in.size; step++) {
            struct span value;
            feed(in, step);
            enum err err = smtp_strip_value(&strip, &value);
            assert_true(span_is_equal(span_of(out, out_size), span_from_text(cases[i].left)));
            assert_int_equal(in.size - out_size, strip.size);
            assert_int_equal(cases[i].value == NULL    ? ERR_NOT_FOUND
                             : *cases[i].value == '\0' ? ERR_PEER_SYNTAX
                                                       : ERR_OK,
                             err);
            if (err == ERR_OK)
                assert_true(span_is_equal(value, span_from_text(cases[i].value)));
        }
    }
}

/* Goal: a field of 64 KB, folded a thousand times, is taken out whole, and no name. */
static void test_huge_field(void **state)
{
    static char text[1 << 17];
    uint32_t size = (uint32_t)snprintf(text, sizeof(text), "A: 1\r\nX-Pool: ");

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        size += (uint32_t)snprintf(text + size, sizeof(text) - size, "%063u\r\n ", i);
    size += (uint32_t)snprintf(text + size, sizeof(text) - size, "\r\nB: 2\r\n");
    for (uint32_t step = 1; step < 1500; step = step * 3 + 1) {
        struct span value;
        feed(span_of(text, size), step);
        assert_true(span_is_equal(span_of(out, out_size), SPAN_LITERAL("A: 1\r\nB: 2\r\n")));
        assert_int_equal(ERR_PEER_SYNTAX, smtp_strip_value(&strip, &value));
    }
}

/* Goal: what the scanner puts in takes part: a bare LF that becomes CRLF ends a field, or gives
 * back what was held; spans stay good while others follow. */
static void test_inserts(void **state)
{
    struct span spans[SMTP_STRIP_SLOTS - 1];

    (void)state;
    smtp_strip_init(&strip, SPAN_LITERAL("X-Pool"));
    for (uint32_t i = 0; i < COUNT_OF(spans); i++) {
        char text[2] = {i % 2 == 0 ? 'X' : 'x', '-'};
        assert_true(smtp_strip_takes(&strip, span_of(text, 2)));
        spans[i] = smtp_strip_insert(&strip, SPAN_LITERAL("\r\n"));
    }
    for (uint32_t i = 0; i < COUNT_OF(spans); i++)
        assert_true(
            span_is_equal(spans[i], i % 2 == 0 ? SPAN_LITERAL("X-\r\n") : SPAN_LITERAL("x-\r\n")));
    assert_true(smtp_strip_takes(&strip, SPAN_LITERAL("X-Pool: a")));
    assert_int_equal(0, smtp_strip_insert(&strip, SPAN_LITERAL("\r\n")).size);
    assert_false(smtp_strip_takes(&strip, SPAN_LITERAL("B: 1")));
    assert_int_equal(2, smtp_strip_insert(&strip, SPAN_LITERAL("\r\n")).size);
    assert_int_equal(0, smtp_strip_insert(&strip, (struct span){0}).size);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_huge_field),
        cmocka_unit_test(test_inserts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
