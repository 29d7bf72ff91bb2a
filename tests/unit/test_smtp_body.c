/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body scanner beyond the end of data (test_end_of_data.c): flags, line lengths, normalizing,
 * BDAT content; all variants agree on random text at random cuts. And the header tracker.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "relay/smtp_body.h"

#define SIZE_MAX_TEST 8192u

struct result {
    uint8_t content[2 * SIZE_MAX_TEST];
    uint32_t size, used, flags;
    bool is_end, is_at_line_start;
};

/* Scan in pieces of at most `piece` octets; 0: whole. */
static void scan(struct span in, bool is_data, bool is_normalizing, uint32_t piece,
                 enum smtp_body_variant variant, struct result *result)
{
    struct smtp_body body;
    uint32_t at = 0;

    result->size = 0;
    result->is_end = false;
    smtp_body_init(&body, is_data, is_normalizing, 1000, variant);
    while (at < in.size && !result->is_end) {
        uint32_t left = in.size - at, stop = piece == 0 ? left : piece - at % piece;
        struct smtp_body_step step =
            smtp_body_scan(&body, span_of(in.data + at, stop < left ? stop : left));
        memcpy(result->content + result->size, in.data + at, step.pass);
        result->size += step.pass;
        if (step.insert.size > 0)
            memcpy(result->content + result->size, step.insert.data, step.insert.size);
        result->size += step.insert.size;
        at += step.pass + step.skip;
        result->is_end = step.is_end;
    }
    result->used = at;
    if (!is_data) {
        struct span rest = smtp_body_finish(&body);
        if (rest.size > 0)
            memcpy(result->content + result->size, rest.data, rest.size);
        result->size += rest.size;
    }
    result->flags = smtp_body_flags(&body);
    result->is_at_line_start = smtp_body_is_at_line_start(&body);
}

static enum smtp_body_variant variants[] = {SMTP_BODY_PORTABLE, SMTP_BODY_AVX2};

static uint32_t variant_count(void)
{
    return smtp_body_has_avx2() ? 2 : 1;
}

static void test_content(void **state)
{
    static const struct {
        const char *name, *in;
        bool is_data, is_normalizing;
        const char *content;
        uint32_t flags;
        bool is_at_line_start;
    } rows[] = {
        {"empty DATA", ".\r\n", true, false, "", 0, true},
        {"one line", "a\r\n.\r\n", true, false, "a\r\n", 0, true},
        {"stuffed dot", "..a\r\n.\r\n", true, false, ".a\r\n", SMTP_BODY_DOT_LINES, true},
        {"only a stuffed dot", "..\r\n.\r\n", true, false, ".\r\n", SMTP_BODY_DOT_LINES, true},
        {"dot taken from a line that needed none", ".a\r\n.\r\n", true, false, "a\r\n", 0, true},
        {"dot and space", ". \r\n.\r\n", true, false, " \r\n", 0, true},
        {"dots inside", "a.\r\nb..c\r\n.\r\n", true, false, "a.\r\nb..c\r\n", 0, true},
        {"eight bit", "\xc3\xa9\r\n.\r\n", true, false, "\xc3\xa9\r\n", SMTP_BODY_EIGHT_BIT, true},
        {"normalized LF", "a\nb\r\n.\r\n", true, true, "a\r\nb\r\n", SMTP_BODY_BARE_LF, true},
        {"normalized CR", "a\rb\r\n.\r\n", true, true, "a b\r\n", SMTP_BODY_BARE_CR, true},
        {"normalized CR CR LF", "a\r\r\n.\r\n", true, true, "a \r\n", SMTP_BODY_BARE_CR, true},
        {"normalized LF and dot is content", "a\n.\r\n.\r\n", true, true, "a\r\n.\r\n",
         SMTP_BODY_BARE_LF | SMTP_BODY_DOT_LINES, true},
        {"normalized LF dot LF is content", "a\n.\nb\r\n.\r\n", true, true, "a\r\n.\r\nb\r\n",
         SMTP_BODY_BARE_LF | SMTP_BODY_DOT_LINES, true},
        {"normalized dot LF", ".\nb\r\n.\r\n", true, true, "\r\nb\r\n", SMTP_BODY_BARE_LF, true},
        {"normalized dot CR", ".\rb\r\n.\r\n", true, true, " b\r\n", SMTP_BODY_BARE_CR, true},
        {"normalized dot CR CR LF", ".\r\r\n.\r\n", true, true, " \r\n", SMTP_BODY_BARE_CR, true},
        {"empty BDAT", "", false, false, "", 0, true},
        {"BDAT keeps dots", ".\r\n..a\r\n.\r\n", false, false, ".\r\n..a\r\n.\r\n",
         SMTP_BODY_DOT_LINES, true},
        {"BDAT without a last CRLF", "a\r\nb", false, false, "a\r\nb", 0, false},
        {"BDAT with a last CR", "a\r", false, false, "a\r", SMTP_BODY_BARE_CR, false},
        {"BDAT with a last CR, normalized", "a\r", false, true, "a ", SMTP_BODY_BARE_CR, false},
        {"BDAT with a last LF, normalized", "a\n", false, true, "a\r\n", SMTP_BODY_BARE_LF, true},
        {"other line ends are text",
         "a\x0b.\x0b"
         "b\x0c.\x0c"
         "c\x85.\x85"
         "d\x8d\x8a.\x8d\x8a"
         "\xe2\x80\xa8.\xe2\x80\xa8\r\n.\r\n",
         true, false,
         "a\x0b.\x0b"
         "b\x0c.\x0c"
         "c\x85.\x85"
         "d\x8d\x8a.\x8d\x8a"
         "\xe2\x80\xa8.\xe2\x80\xa8\r\n",
         SMTP_BODY_EIGHT_BIT, true},
    };
    static struct result result;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        for (uint32_t piece = 0; piece <= strlen(rows[i].in); piece++) {
            scan(span_from_text(rows[i].in), rows[i].is_data, rows[i].is_normalizing, piece,
                 SMTP_BODY_BEST, &result);
            result.content[result.size] = '\0';
            assert_string_equal(rows[i].content, result.content);
            assert_int_equal(rows[i].flags, result.flags);
            assert_int_equal(rows[i].is_data, result.is_end);
            assert_int_equal(strlen(rows[i].in), result.used);
            assert_int_equal(rows[i].is_at_line_start, result.is_at_line_start);
        }
    }
}

/* Goal: a line of 1,000 octets with CRLF is not long, 1,001 is, wherever it lies. */
static void test_line_sizes(void **state)
{
    static uint8_t in[SIZE_MAX_TEST];
    static struct result result;

    (void)state;
    for (uint32_t before = 0; before < 130; before += 13) {
        for (uint32_t size = 998; size <= 1003; size++) {
            for (uint32_t has_end = 0; has_end < 2; has_end++) {
                memset(in, 'x', sizeof(in));
                if (before >= 2)
                    memcpy(in + before - 2, "\r\n", 2);
                uint32_t end = (before >= 2 ? before : 0) + size;
                if (has_end)
                    memcpy(in + end - 2, "\r\n", 2);
                for (uint32_t v = 0; v < variant_count(); v++) {
                    for (uint32_t piece = 0; piece < 700; piece += 233) {
                        scan(span_of(in, end), false, false, piece, variants[v], &result);
                        assert_int_equal(size > 1000 ? SMTP_BODY_LONG_LINE : 0, result.flags);
                    }
                }
            }
        }
    }
}

/* Goal: NUL and high octets are seen at every place of a block, and only where they are. */
static void test_single_octets(void **state)
{
    static uint8_t in[400];
    static struct result result;

    (void)state;
    for (uint32_t v = 0; v < variant_count(); v++) {
        for (uint32_t at = 0; at < 300; at++) {
            for (uint32_t octet = 0; octet < 256; octet += octet == 1 || octet == 254 ? 1 : 127) {
                memset(in, 'x', sizeof(in));
                in[at] = (uint8_t)octet;
                memcpy(in + 300, "\r\n.\r\n\0\xff", 7); /* behind the end: commands */
                scan(span_of(in, 307), true, false, 0, variants[v], &result);
                assert_int_equal(octet == 0     ? SMTP_BODY_NUL
                                 : octet >= 128 ? SMTP_BODY_EIGHT_BIT
                                                : 0,
                                 result.flags);
                assert_int_equal(305, result.used);
            }
        }
    }
}

/* ---- windows ---- */

#define WINDOWS_SIZE 400u

static void bodies_compare(const struct smtp_body *want, const struct smtp_body *got)
{
    assert_int_equal(want->state, got->state);
    assert_int_equal(want->run.line_size, got->run.line_size);
    assert_int_equal(smtp_body_flags(want), smtp_body_flags(got));
}

/* One call, and all that the scanner knows afterwards. */
static void variants_compare(const uint8_t *in, uint32_t size, bool is_data, uint32_t line_size_max)
{
    struct smtp_body body[2];
    struct smtp_body_step step[2];

    for (uint32_t v = 0; v < variant_count(); v++) {
        smtp_body_init(&body[v], is_data, false, line_size_max, variants[v]);
        step[v] = smtp_body_scan(&body[v], span_of(in, size));
        if (v == 0)
            continue;
        assert_int_equal(step[0].pass, step[v].pass);
        assert_int_equal(step[0].skip, step[v].skip);
        assert_int_equal(step[0].is_end, step[v].is_end);
        bodies_compare(&body[0], &body[v]);
    }
}

/* Content in pieces, as far as it goes in one step each: all that the scanner knows behind each
 * piece. */
static void pieces_compare(const uint8_t *in, const uint32_t *pieces, uint32_t count, bool is_data)
{
    struct smtp_body body[2];

    for (uint32_t v = 0; v < variant_count(); v++)
        smtp_body_init(&body[v], is_data, false, 100, variants[v]);
    for (uint32_t i = 0; i < count; in += pieces[i++]) {
        uint32_t pass = smtp_body_scan(&body[0], span_of(in, pieces[i])).pass;
        if (variant_count() > 1) {
            assert_int_equal(pass, smtp_body_scan(&body[1], span_of(in, pieces[i])).pass);
            bodies_compare(&body[0], &body[1]);
        }
        if (pass < pieces[i])
            return;
    }
}

static const struct {
    const char *octets;
    uint32_t size;
} words[] = {
    {"\r", 1},        {"\n", 1},      {".", 1},       {"\0", 1},      {"\xff", 1},
    {"\r\n", 2},      {"\n\r", 2},    {"\r\r", 2},    {"\n.", 2},     {"\r.", 2},
    {"\r\n.", 3},     {"\r\n\0", 3},  {"\r\r\n", 3},  {"\r\n\n", 3},  {"\r\n\r\n", 4},
    {"\r\n.\r\n", 5}, {"\r\n.\n", 4}, {"\r\n.\r", 4}, {"\n.\r\n", 4}, {"\r\n..\r\n", 6},
};

/* Goal: what matters is seen wherever it lies to blocks and windows, alone and behind a line's end;
 * each size, so that each place is once the last. */
static void test_every_place(void **state)
{
    uint8_t in[WINDOWS_SIZE + 8];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(words) * WINDOWS_SIZE; i++) {
        uint32_t at = i / COUNT_OF(words), word = i % COUNT_OF(words);
        memset(in, 'x', sizeof(in));
        memcpy(in + at, words[word].octets, words[word].size);
        for (uint32_t size = 0; size <= WINDOWS_SIZE; size += size < at ? 64 : 1) {
            variants_compare(in, size, true, 1000);
            variants_compare(in, size, false, 1000);
        }
    }
}

/* Goal: the same with a cut in front of it, in it and behind it; what is behind the cut is shorter
 * and longer than what the fast loops take whole. */
static void test_every_cut(void **state)
{
    uint8_t in[2 * WINDOWS_SIZE];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(words) * 140; i++) {
        uint32_t at = 1 + i / COUNT_OF(words), word = i % COUNT_OF(words);
        memset(in, 'x', sizeof(in));
        memcpy(in + at, words[word].octets, words[word].size);
        for (uint32_t cut = at > 2 ? at - 2 : 0; cut <= at + words[word].size + 1; cut++) {
            for (uint32_t rest = 1; rest < 140; rest++) {
                uint32_t pieces[] = {cut, rest, 9};
                pieces_compare(in, pieces, COUNT_OF(pieces), true);
                pieces_compare(in, pieces, COUNT_OF(pieces), false);
            }
        }
    }
}

/* Goal: the limit of a line, which may be any, is where it is in both variants. */
static void test_every_limit(void **state)
{
    uint8_t in[WINDOWS_SIZE];

    (void)state;
    for (uint32_t max = 64u; max < WINDOWS_SIZE; max++) {
        for (uint32_t end = 2; end <= WINDOWS_SIZE; end++) {
            memset(in, 'x', sizeof(in));
            memcpy(in + end - 2, "\r\n", 2);
            variants_compare(in, sizeof(in), false, max);
            memcpy(in + 62, "\r\n", 2);
            variants_compare(in, sizeof(in), true, max);
        }
    }
}

/* Goal: variants and cuts agree on random text that is rich in what matters. */
static void test_random_text(void **state)
{
    static const char *const parts[] = {
        "\r\n", "\r\n.",    ".",      "\r",  "\n", "aaaaaaaaaaaaaaaaaaaaaaa",
        "x",    "\xc3\xa9", "\r\n..", "\r\n"};
    static uint8_t in[SIZE_MAX_TEST];
    static struct result want, got;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 20261123);
    for (uint32_t round = 0; round < 600; round++) {
        uint32_t size = 0, rarity = round % 3 == 0 ? 3 : round % 3 == 1 ? 8 : 40;
        while (size < 1500) {
            const char *part =
                rng_below(&rng, rarity) == 0 ? parts[rng_below(&rng, COUNT_OF(parts))] : parts[5];
            memcpy(in + size, part, strlen(part));
            size += (uint32_t)strlen(part);
        }
        bool is_data = round % 2 != 0, is_normalizing = round % 5 == 0;
        scan(span_of(in, size), is_data, is_normalizing, 1, SMTP_BODY_PORTABLE, &want);
        for (uint32_t v = 0; v < variant_count(); v++) {
            for (uint32_t k = 0; k < 3; k++) {
                uint32_t piece = k == 0 ? 0 : 1 + rng_below(&rng, 300);
                scan(span_of(in, size), is_data, is_normalizing, piece, variants[v], &got);
                assert_int_equal(want.used, got.used);
                assert_int_equal(want.flags, got.flags);
                assert_int_equal(want.is_end, got.is_end);
                assert_int_equal(want.is_at_line_start, got.is_at_line_start);
                assert_int_equal(want.size, got.size);
                assert_memory_equal(want.content, got.content, got.size);
            }
        }
    }
}

/* ---- header ---- */

static void test_header(void **state)
{
    static const struct {
        const char *name, *in;
        uint32_t size, received;
        bool is_eight_bit, is_done;
    } rows[] = {
        {"empty", "", 0, 0, false, false},
        {"only the empty line", "\r\n", 2, 0, false, true},
        {"a field and a body", "A: b\r\n\r\nReceived: x\r\n\xff", 8, 0, false, true},
        {"received", "Received: x\r\n\r\n", 15, 1, false, true},
        {"any case", "rECEIVED: x\r\nRECEIVED:y\r\n\r\n", 27, 2, false, true},
        {"white space before the colon", "Received \t: x\r\n\r\n", 17, 1, false, true},
        {"not quite", "Received-SPF: x\r\nReceive: x\r\nReceivedx: y\r\nX-Received: z\r\n\r\n", 60,
         0, false, true},
        {"in a continuation line", "A: b\r\n Received: x\r\n\tReceived: y\r\n\r\n", 36, 0, false,
         true},
        {"no separator", "A: b\r\nReceived: c", 17, 1, false, false},
        {"high octet in the header", "A: \xc3\xa9\r\n\r\n", 9, 0, true, true},
        {"high octet behind the header", "A: b\r\n\r\n\xc3\xa9", 8, 0, false, true},
        {"white space line is no end", "A: b\r\n \r\n\r\n", 11, 0, false, true},
        {"space instead of a letter", "Receive : x\r\n\r\n", 15, 0, false, true},
        {"underscored case twins", "\x52\x65\x63\x65\x69\x76\x65\x44: x\r\n\r\n", 15, 1, false,
         true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        uint32_t size = (uint32_t)strlen(rows[i].in);
        for (uint32_t piece = 1; piece <= size + 1; piece++) {
            struct smtp_header header;
            smtp_header_init(&header);
            for (uint32_t at = 0; at < size; at += piece)
                smtp_header_feed(
                    &header, span_of(rows[i].in + at, size - at < piece ? size - at : piece), true);
            assert_int_equal(rows[i].size, header.size);
            assert_int_equal(rows[i].received, header.received_count);
            assert_int_equal(rows[i].is_eight_bit, header.is_eight_bit);
            assert_int_equal(rows[i].is_done, header.is_done);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_content),       cmocka_unit_test(test_line_sizes),
        cmocka_unit_test(test_single_octets), cmocka_unit_test(test_random_text),
        cmocka_unit_test(test_every_place),   cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_every_limit),   cmocka_unit_test(test_header),
    };
    return cmocka_run_group_tests_name("smtp body", tests, NULL, NULL);
}
