/* SPDX-License-Identifier: Apache-2.0 */
/* Canonical forms, octet by octet: what tables say, and the same for every split. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "relay/dkim_internal.h"

#define ROUNDS   400u
#define BODY_MAX 3000u

struct collected {
    uint8_t octets[3 * BODY_MAX];
    uint32_t size;
};

static void collect(void *opaque, struct span octets)
{
    struct collected *collected = opaque;

    assert_true(octets.size > 0 && octets.size <= sizeof(collected->octets) - collected->size);
    memcpy(collected->octets + collected->size, octets.data, octets.size);
    collected->size += octets.size;
}

static struct span body_form(struct collected *collected, enum dkim_canon canon, struct span body,
                             struct rng *rng)
{
    struct dkim_body state;

    collected->size = 0;
    dkim_body_init(&state, canon, collect, collected);
    while (body.size > 0) {
        uint32_t size = rng == NULL ? body.size : 1 + rng_below(rng, 40);
        size = size < body.size ? size : body.size;
        dkim_body_feed(&state, span_head(body, size));
        body = span_skip(body, size);
    }
    dkim_body_finish(&state);
    return span_of(collected->octets, collected->size);
}

static void assert_form(const char *name, const char *expected, struct span form)
{
    if (!span_is_equal(span_from_text(expected), form))
        print_message("# %s: %.*s\n", name, SPAN_PRINTF(form));
    assert_true(span_is_equal(span_from_text(expected), form));
}

/* Goal: RFC 6376 sections 3.4.3 and 3.4.4. */
static void body_has_its_form(void **state)
{
    static const struct {
        const char *name, *body, *simple, *relaxed;
    } rows[] = {
        {"nothing", "", "\r\n", ""},
        {"one empty line", "\r\n", "\r\n", ""},
        {"empty lines", "\r\n\r\n\r\n", "\r\n", ""},
        {"one line", "a\r\n", "a\r\n", "a\r\n"},
        {"no end of line", "a", "a\r\n", "a\r\n"},
        {"no end of the last line", "a\r\nb", "a\r\nb\r\n", "a\r\nb\r\n"},
        {"empty lines behind", "a\r\n\r\n\r\n", "a\r\n", "a\r\n"},
        {"empty lines between", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n", "a\r\n\r\n\r\nb\r\n"},
        {"empty lines before", "\r\n\r\na\r\n", "\r\n\r\na\r\n", "\r\n\r\na\r\n"},
        {"the example of 3.4.5", " C \r\nD \t E\r\n\r\n\r\n", " C \r\nD \t E\r\n", " C\r\nD E\r\n"},
        {"blanks behind", "a \t\r\nb\t\r\n", "a \t\r\nb\t\r\n", "a\r\nb\r\n"},
        {"blanks alone in a line", "a\r\n \t \r\nb\r\n", "a\r\n \t \r\nb\r\n", "a\r\n\r\nb\r\n"},
        {"blanks alone at the end", "a\r\n \r\n\t\r\n", "a\r\n \r\n\t\r\n", "a\r\n"},
        {"blanks alone", " \t", " \t\r\n", ""},
        {"blanks alone in lines", " \r\n \r\n", " \r\n \r\n", ""},
        {"blanks at the end, no line end", "a\r\n  ", "a\r\n  \r\n", "a\r\n"},
        {"a dot", ".\r\n", ".\r\n", ".\r\n"},
        {"a CR inside", "a\rb\r\n", "a\rb\r\n", "a\rb\r\n"},
        {"a CR before the line end", "a\r\r\n", "a\r\r\n", "a\r\r\n"},
        {"a CR at the end", "a\r", "a\r\r\n", "a\r\r\n"},
        {"an LF inside", "a\nb\r\n", "a\nb\r\n", "a\nb\r\n"},
        {"a blank, then a CR", "a \rb\r\n", "a \rb\r\n", "a \rb\r\n"},
        {"octets above 127", "\xe4 \xf6\r\n", "\xe4 \xf6\r\n", "\xe4 \xf6\r\n"},
        {"other white space", "a\v\f\r\n", "a\v\f\r\n", "a\v\f\r\n"},
    };
    struct collected collected;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct span body = span_from_text(rows[i].body);
        assert_form(rows[i].name, rows[i].simple, body_form(&collected, DKIM_SIMPLE, body, NULL));
        assert_form(rows[i].name, rows[i].relaxed, body_form(&collected, DKIM_RELAXED, body, NULL));
    }
}

/* Goal: RFC 6376 sections 3.4.1 and 3.4.2. */
static void field_has_its_form(void **state)
{
    static const struct {
        const char *name, *field, *relaxed; /* simple: as it is, with a line end */
    } rows[] = {
        {"the first example of 3.4.5", "A: X\r\n", "a:X\r\n"},
        {"the second example of 3.4.5", "B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"},
        {"no white space", "Subject:x\r\n", "subject:x\r\n"},
        {"nothing in it", "Subject:\r\n", "subject:\r\n"},
        {"blanks in it", "Subject:  \t\r\n \r\n", "subject:\r\n"},
        {"folded before its text", "Subject:\r\n x\r\n", "subject:x\r\n"},
        {"a colon in it", "SUBJECT: a : b\r\n", "subject:a : b\r\n"},
        {"capitals in it", "X-Y: AbC\r\n", "x-y:AbC\r\n"},
        {"no line end", "Subject: a  b", "subject:a b\r\n"},
        {"folded twice", "S: a\r\n\r\n b\r\n\t\tc \r\n", "s:a b c\r\n"},
        {"octets above 127", "S: \xc3\xa4 \xff\r\n", "s:\xc3\xa4 \xff\r\n"},
    };
    struct collected collected;
    struct dkim_sink sink;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct span field = span_from_text(rows[i].field);
        for (uint32_t is_ended = 0; is_ended < 2; is_ended++) {
            collected.size = 0;
            dkim_sink_init(&sink, collect, &collected);
            dkim_field_put(&sink, DKIM_RELAXED, field, is_ended == 1);
            dkim_sink_flush(&sink);
            struct span form = span_of(collected.octets, collected.size + (is_ended ? 0 : 2));
            memcpy(collected.octets + form.size - 2, "\r\n", 2);
            assert_form(rows[i].name, rows[i].relaxed, form);
        }
        collected.size = 0;
        dkim_sink_init(&sink, collect, &collected);
        dkim_field_put(&sink, DKIM_SIMPLE, field, true);
        dkim_sink_flush(&sink);
        uint32_t size = field.size;
        size -= size >= 2 && memcmp(field.data + size - 2, "\r\n", 2) == 0 ? 2 : 0;
        assert_int_equal(size + 2, collected.size);
        assert_memory_equal(rows[i].field, collected.octets, size);
    }
}

static uint32_t body_draw(struct rng *rng, uint8_t *body)
{
    static const char octets[] = "\r\n\r\n  \t.ab\r\n\n\xe4";
    uint32_t size = rng_below(rng, rng_below(rng, 8) == 0 ? BODY_MAX : 40);
    uint32_t kinds = 2 + rng_below(rng, sizeof(octets) - 2);

    for (uint32_t i = 0; i < size; i++) {
        body[i] = (uint8_t)octets[rng_below(rng, kinds)];
        if (body[i] == '\r' && i + 1 < size && rng_below(rng, 8) > 0)
            body[++i] = '\n';
    }
    return size;
}

/* Goal: invariant 1, and the split plays no part; what comes after the form once is the form. */
static void split_plays_no_part(void **state)
{
    static struct collected whole, split;
    uint8_t body[BODY_MAX];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 6376);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        enum dkim_canon canon = i % 2 == 0 ? DKIM_SIMPLE : DKIM_RELAXED;
        struct span octets = span_of(body, body_draw(&rng, body));
        struct span form = body_form(&whole, canon, octets, NULL);
        assert_true(span_is_equal(form, body_form(&split, canon, octets, &rng)));
        assert_true(form.size >= 2 || (form.size == 0 && canon == DKIM_RELAXED));
        assert_true(form.size == 0 || memcmp(form.data + form.size - 2, "\r\n", 2) == 0);
        assert_true(form.size < 4 || memcmp(form.data + form.size - 4, "\r\n\r\n", 4) != 0);
        struct span again = body_form(&split, canon, form, &rng);
        assert_true(span_is_equal(form, again));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(body_has_its_form),
        cmocka_unit_test(field_has_its_form),
        cmocka_unit_test(split_plays_no_part),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
