/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a reply is read the same however the network cuts it, and no server can make the parser
 * keep, print or wait for more than its bounds.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/smtp_reply.h"

/* Feed until a reply is complete, an error comes, or the input ends. */
static enum err feed_reply(struct smtp_reply_parser *parser, struct span input, uint32_t step,
                           uint32_t *ret_used)
{
    uint32_t used = 0;

    while (used < input.size) {
        uint32_t size = input.size - used < step ? input.size - used : step;
        uint32_t consumed = 0;
        enum err err = smtp_reply_feed(parser, span_head(span_skip(input, used), size), &consumed);
        if (err != ERR_OK && err != ERR_AGAIN)
            return err;
        used += consumed;
        if (err == ERR_OK && parser->is_last) {
            *ret_used = used;
            return ERR_OK;
        }
    }
    return ERR_AGAIN;
}

#define S(text) SPAN_LITERAL(text)
#define SYNTAX  ERR_PEER_SYNTAX

static const struct {
    const char *name;
    struct span input;
    enum err err;
    uint16_t code;
    uint8_t enhanced[3];
    const char *text;
} cases[] = {
    {"one line", S("250 OK\r\n"), ERR_OK, 250, {0, 0, 0}, "250 OK"},
    {"bare code", S("354\r\n"), ERR_OK, 354, {0, 0, 0}, "354"},
    {"code and space", S("354 \r\n"), ERR_OK, 354, {0, 0, 0}, "354"},
    {"lone LF", S("220 hi\n"), ERR_OK, 220, {0, 0, 0}, "220 hi"},
    {"two lines", S("250-a\r\n250 b\r\n"), ERR_OK, 250, {0, 0, 0}, "250 a b"},
    {"enhanced", S("550 5.1.1 no\r\n"), ERR_OK, 550, {5, 1, 1}, "550 5.1.1 no"},
    {"enhanced alone", S("250 2.0.0\r\n"), ERR_OK, 250, {2, 0, 0}, "250 2.0.0"},
    {"repeated", S("550-5.7.1 a\r\n550 5.7.1 b\r\n"), ERR_OK, 550, {5, 7, 1}, "550 5.7.1 a b"},
    {"large detail", S("550 5.7.509 x\r\n"), ERR_OK, 550, {5, 7, 255}, "550 5.7.509 x"},
    {"wrong class", S("450 5.1.1 x\r\n"), ERR_OK, 450, {0, 0, 0}, "450 5.1.1 x"},
    {"leading zero", S("550 5.1.01 x\r\n"), ERR_OK, 550, {0, 0, 0}, "550 5.1.01 x"},
    {"four digits", S("550 5.1.1000 x\r\n"), ERR_OK, 550, {0, 0, 0}, "550 5.1.1000 x"},
    {"controls", S("250 a\0b\033[1m\r\xff\tz\r\n"), ERR_OK, 250, {0, 0, 0}, "250 a?b?[1m?? z"},
    {"lowest code", S("200 x\r\n"), ERR_OK, 200, {0, 0, 0}, "200 x"},
    {"highest code", S("599 x\r\n"), ERR_OK, 599, {0, 0, 0}, "599 x"},
    {"never finished", S("250-a\r\n250-b\r\n"), ERR_AGAIN, 0, {0, 0, 0}, NULL},
    {"code changes inside", S("250-a\r\n550 b\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"empty line", S("\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"two digits", S("25\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"four digits in code", S("2500 ok\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"first digit too low", S("199 x\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"first digit too high", S("600 x\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"letter in the code", S("25o x\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"bad separator", S("250_x\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
    {"HTTP", S("HTTP/1.1 400 Bad Request\r\n"), SYNTAX, 0, {0, 0, 0}, NULL},
};

/* Every row, cut at every step. */
static void test_reply_forms(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        for (uint32_t step = 1; step <= cases[i].input.size; step++) {
            struct smtp_reply_parser parser;
            uint32_t used = 0;

            smtp_reply_parser_init(&parser);
            assert_int_equal(cases[i].err, feed_reply(&parser, cases[i].input, step, &used));
            if (cases[i].err != ERR_OK)
                continue;
            assert_int_equal(cases[i].input.size, used);
            assert_int_equal(cases[i].code, parser.reply.code);
            assert_memory_equal(cases[i].enhanced, parser.reply.enhanced, 3);
            assert_true(
                span_is_equal(span_from_text(cases[i].text), smtp_reply_text(&parser.reply)));
        }
    }
}

/* What stands behind a reply is left there, whatever it is: a second reply, or lines meant for a
 * queue file (CVE-2020-8794). */
static void test_surplus_is_left(void **state)
{
    static const struct span inputs[] = {S("250 ok\r\n250 ok\r\n"),
                                         S("553-\r\n553\r\n\r\nmda: x\0")};
    static const uint32_t used_expected[] = {8, 11};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(inputs); i++) {
        struct smtp_reply_parser parser;
        uint32_t used = 0;

        smtp_reply_parser_init(&parser);
        assert_int_equal(ERR_OK, feed_reply(&parser, inputs[i], 1000, &used));
        assert_int_equal(used_expected[i], used);
        assert_null(memchr(parser.reply.text, '\n', parser.reply.text_size));
    }
}

/* Replies follow one another in one parser, nothing of the first is left in the second. */
static void test_replies_in_sequence(void **state)
{
    struct smtp_reply_parser parser;
    struct span input = SPAN_LITERAL("550-5.1.1 a\r\n550 5.1.1 b\r\n250\r\n354 go\r\n");
    uint32_t used = 0;

    (void)state;
    smtp_reply_parser_init(&parser);
    assert_int_equal(ERR_OK, feed_reply(&parser, input, 1000, &used));
    assert_int_equal(550, parser.reply.code);
    input = span_skip(input, used);
    assert_int_equal(ERR_OK, feed_reply(&parser, input, 1000, &used));
    assert_int_equal(250, parser.reply.code);
    assert_int_equal(0, parser.reply.enhanced[0]);
    assert_int_equal(3, parser.reply.text_size);
    input = span_skip(input, used);
    assert_int_equal(ERR_OK, feed_reply(&parser, input, 1000, &used));
    assert_int_equal(354, parser.reply.code);
    assert_int_equal(input.size, used);
}

static void test_line_text(void **state)
{
    struct smtp_reply_parser parser;
    struct span input = SPAN_LITERAL("250-SIZE 1000\r\n250 \x01 x\r\n");
    uint32_t used = 0;

    (void)state;
    smtp_reply_parser_init(&parser);
    assert_int_equal(ERR_OK, smtp_reply_feed(&parser, input, &used));
    assert_false(parser.is_last);
    assert_true(span_is_equal(SPAN_LITERAL("SIZE 1000"), smtp_reply_line_text(&parser)));
    assert_int_equal(ERR_OK, smtp_reply_feed(&parser, span_skip(input, used), &used));
    assert_true(span_is_equal(SPAN_LITERAL("\x01 x"), smtp_reply_line_text(&parser)));
}

/* One line of `size` octets with its CRLF. */
static enum err feed_long_line(uint32_t size, uint32_t step, struct smtp_reply_parser *parser)
{
    uint8_t *line = malloc(size);
    uint32_t used = 0;

    assert_non_null(line);
    memset(line, 'x', size);
    memcpy(line, "250 ", 4);
    memcpy(line + size - 2, "\r\n", 2);
    smtp_reply_parser_init(parser);
    enum err err = feed_reply(parser, span_of(line, size), step, &used);
    free(line);
    return err;
}

static void test_line_size_limit(void **state)
{
    struct smtp_reply_parser parser;
    static const uint32_t steps[] = {1, 7, 512, 513, 4096};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(steps); i++) {
        for (uint32_t size = SMTP_REPLY_LINE_KEPT - 2; size <= SMTP_REPLY_LINE_KEPT + 4; size++)
            assert_int_equal(ERR_OK, feed_long_line(size, steps[i], &parser));
        assert_int_equal(ERR_OK, feed_long_line(SMTP_REPLY_LINE_MAX, steps[i], &parser));
        assert_int_equal(SMTP_REPLY_LINE_KEPT, parser.reply.text_size);
        assert_int_equal(ERR_LIMIT, feed_long_line(SMTP_REPLY_LINE_MAX + 1, steps[i], &parser));
        /* The hundred-megabyte line is refused at the bound, not at its end. */
        assert_int_equal(ERR_LIMIT, feed_long_line(1u << 20, steps[i], &parser));
    }
}

static enum err feed_lines(uint32_t count, uint32_t line_size, struct smtp_reply_parser *parser)
{
    enum err err = ERR_OK;
    uint8_t line[SMTP_REPLY_LINE_MAX];
    uint32_t used;

    memset(line, 'x', sizeof(line));
    memcpy(line, "250-", 4);
    memcpy(line + line_size - 2, "\r\n", 2);
    smtp_reply_parser_init(parser);
    for (uint32_t i = 0; i < count && err == ERR_OK; i++) {
        if (i == count - 1)
            line[3] = ' ';
        err = smtp_reply_feed(parser, span_of(line, line_size), &used);
    }
    return err;
}

static void test_line_count_and_reply_size_limits(void **state)
{
    struct smtp_reply_parser parser;

    (void)state;
    assert_int_equal(ERR_OK, feed_lines(SMTP_REPLY_LINES_MAX, 10, &parser));
    assert_int_equal(ERR_LIMIT, feed_lines(SMTP_REPLY_LINES_MAX + 1, 10, &parser));
    assert_int_equal(ERR_OK, feed_lines(SMTP_REPLY_SIZE_MAX / 1024, 1024, &parser));
    assert_int_equal(SMTP_REPLY_TEXT_MAX, parser.reply.text_size);
    assert_int_equal(ERR_LIMIT, feed_lines(SMTP_REPLY_SIZE_MAX / 1024 + 1, 1024, &parser));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reply_forms),
        cmocka_unit_test(test_surplus_is_left),
        cmocka_unit_test(test_replies_in_sequence),
        cmocka_unit_test(test_line_text),
        cmocka_unit_test(test_line_size_limit),
        cmocka_unit_test(test_line_count_and_reply_size_limits),
    };
    return cmocka_run_group_tests_name("smtp_reply", tests, NULL, NULL);
}
