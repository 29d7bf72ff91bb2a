/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of data, exhaustively: every string of up to 8 octets over {CR, LF, '.', 'a', NUL}, at
 * every single cut, through every variant of the scanner, against a reference that is short enough
 * to be believed. Then the same strings inside long text, where the fast loops run.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/smtp_body.h"

#define LENGTH_MAX 8

static const uint8_t alphabet[] = {'\r', '\n', '.', 'a', 0};

struct outcome {
    uint8_t content[1024];
    uint32_t size;
    uint32_t used; /* octets up to and with the end of data */
    bool is_end;
    uint32_t flags;
};

/* The reference: look at whole strings, look as far ahead as needed, keep no state. Content is
 * only compared where the message may be stored, so a stray CR is left as it is. */
static void reference_scan(const uint8_t *in, uint32_t size, struct outcome *out)
{
    *out = (struct outcome){0};
    for (uint32_t i = 0; i < size; i++) {
        bool is_start = i == 0 || (i >= 2 && in[i - 2] == '\r' && in[i - 1] == '\n');
        if (is_start && in[i] == '.') {
            if (i + 2 < size && in[i + 1] == '\r' && in[i + 2] == '\n') {
                out->is_end = true;
                out->used = i + 3;
                return;
            }
            if (i + 1 < size && in[i + 1] == '.')
                out->flags |= SMTP_BODY_DOT_LINES;
            continue;
        }
        if (in[i] == '\r' && i + 1 < size && in[i + 1] != '\n')
            out->flags |= SMTP_BODY_BARE_CR;
        if (in[i] == '\n' && (i == 0 || in[i - 1] != '\r'))
            out->flags |= SMTP_BODY_BARE_LF;
        if (in[i] == 0)
            out->flags |= SMTP_BODY_NUL;
        out->content[out->size++] = in[i];
    }
    out->used = size;
}

/* Feed `in` in pieces that end at the cuts. */
static void scan(const uint8_t *in, uint32_t size, uint32_t cut, enum smtp_body_variant variant,
                 bool is_normalizing, struct outcome *out)
{
    struct smtp_body body;
    uint32_t at = 0;

    out->size = 0;
    out->is_end = false;
    smtp_body_init(&body, true, is_normalizing, 1000, variant);
    while (at < size && !out->is_end) {
        uint32_t stop = at < cut ? cut : size;
        struct smtp_body_step step = smtp_body_scan(&body, span_of(in + at, stop - at));
        memcpy(out->content + out->size, in + at, step.pass);
        out->size += step.pass;
        if (step.insert.size > 0) {
            memcpy(out->content + out->size, step.insert.data, step.insert.size);
            out->size += step.insert.size;
        }
        at += step.pass + step.skip;
        out->is_end = step.is_end;
    }
    out->used = at;
    out->flags = smtp_body_flags(&body);
}

#define VIOLATIONS (SMTP_BODY_BARE_CR | SMTP_BODY_BARE_LF | SMTP_BODY_NUL)

/* What is not ended yet may still hold back a CR (behind a line's first dot). */
static bool is_same_content(const struct outcome *want, const struct outcome *got)
{
    uint32_t size = want->size;

    if (!want->is_end && size > got->size && want->content[size - 1] == '\r')
        size -= 1;
    return size == got->size && memcmp(want->content, got->content, size) == 0;
}

static void compare(const uint8_t *in, uint32_t size, uint32_t cut, enum smtp_body_variant variant,
                    const struct outcome *want)
{
    struct outcome got;

    scan(in, size, cut, variant, false, &got);
    if (got.is_end == want->is_end && got.used == want->used && got.flags == want->flags &&
        ((want->flags & VIOLATIONS) != 0 || is_same_content(want, &got)))
        return;
    print_message("# variant %d cut %u:", (int)variant, cut);
    for (uint32_t i = 0; i < size; i++)
        print_message(" %02x", in[i]);
    print_message("\n");
    assert_int_equal(want->is_end, got.is_end);
    assert_int_equal(want->used, got.used);
    assert_int_equal(want->flags, got.flags);
    fail_msg("content differs");
}

static uint32_t make_string(uint32_t number, uint32_t length, uint8_t *ret_text)
{
    for (uint32_t i = 0; i < length; i++, number /= (uint32_t)COUNT_OF(alphabet))
        ret_text[i] = alphabet[number % COUNT_OF(alphabet)];
    return number; /* not 0: `number` was beyond the last string */
}

/* Goal: end, flags and content are the reference's for every string, cut and variant. */
static void test_every_string(void **state)
{
    uint8_t in[LENGTH_MAX];
    struct outcome want;

    (void)state;
    for (uint32_t length = 1; length <= LENGTH_MAX; length++) {
        for (uint32_t number = 0; make_string(number, length, in) == 0; number++) {
            reference_scan(in, length, &want);
            for (uint32_t cut = 0; cut < length; cut++)
                compare(in, length, cut, SMTP_BODY_PORTABLE, &want);
        }
    }
}

/* Goal: the fast loops agree, wherever in a block the string lies and wherever the cut is. */
static void test_every_string_in_long_text(void **state)
{
    enum { PLAIN = 200, LENGTH = 5 };
    uint8_t in[2 * PLAIN + LENGTH + 1];
    uint32_t shift = 0;
    struct outcome want;

    (void)state;
    for (uint32_t number = 0; number < 3125; number++) {
        uint32_t before = 64 + shift++ % 72, size = before + LENGTH + PLAIN;
        memset(in, 'b', sizeof(in));
        memcpy(in + 30, "\r\n", 2);
        memcpy(in + before - 2, "\r\n", 2);
        make_string(number, LENGTH, in + before);
        memcpy(in + size - 5, "\r\n.\r\n", 5);
        reference_scan(in, size, &want);
        for (uint32_t cut = before - 3; cut < before + LENGTH + 2; cut++) {
            compare(in, size, cut, SMTP_BODY_PORTABLE, &want);
            if (smtp_body_has_avx2())
                compare(in, size, cut, SMTP_BODY_AVX2, &want);
        }
    }
}

/* Goal: normalized content has CR and LF only as CRLF, ends where the reference says, and does not
 * depend on the cut. */
static void test_normalized_strings(void **state)
{
    uint8_t in[LENGTH_MAX];
    struct outcome want, whole, got;

    (void)state;
    for (uint32_t length = 1; length <= 7; length++) {
        for (uint32_t number = 0; make_string(number, length, in) == 0; number++) {
            reference_scan(in, length, &want);
            scan(in, length, 0, SMTP_BODY_BEST, true, &whole);
            assert_int_equal(want.is_end, whole.is_end);
            assert_int_equal(want.used, whole.used);
            for (uint32_t i = 0; i < whole.size; i++) {
                if (whole.content[i] == '\r')
                    assert_true(i + 1 < whole.size && whole.content[i + 1] == '\n');
                if (whole.content[i] == '\n')
                    assert_true(i > 0 && whole.content[i - 1] == '\r');
            }
            for (uint32_t cut = 1; cut < length; cut++) {
                scan(in, length, cut, SMTP_BODY_BEST, true, &got);
                assert_int_equal(whole.flags, got.flags);
                assert_int_equal(whole.size, got.size);
                assert_memory_equal(whole.content, got.content, got.size);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_string),
        cmocka_unit_test(test_every_string_in_long_text),
        cmocka_unit_test(test_normalized_strings),
    };
    return cmocka_run_group_tests_name("end of data", tests, NULL, NULL);
}
