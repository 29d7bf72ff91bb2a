/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: whoever reads a message that passes sees none but the user's own addresses in From and
 * Sender, however they are written and wherever the stream is split. The user here owns
 * me@own.example and everything at all.example.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay/author.h"

static const char *shown; /* what `owns` must have seen: addresses, each with a space behind it */
static char seen[2048];

static bool owns(const void *context, const struct smtp_address *address)
{
    static const struct span all = {(const uint8_t *)"all.example", 11};

    assert_ptr_equal(&shown, context);
    assert_true(strlen(seen) + address->text.size + 2 < sizeof(seen));
    (void)strncat(seen, (const char *)address->text.data, address->text.size);
    (void)strncat(seen, " ", 2);
    return span_is_equal_nocase(span_of(address->domain_key, address->domain_key_size), all) ||
           span_is_equal_nocase(address->text, SPAN_LITERAL("me@own.example"));
}

#define A64  "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define A320 A64 A64 A64 A64 A64

static const struct {
    const char *name, *header;
    bool is_refused;
    const char *seen;
} rows[] = {
    {"nobody's", "Subject: x\r\n\r\n", false, ""},
    {"empty", "", false, ""},
    {"own", "From: me@own.example\r\n\r\n", false, "me@own.example "},
    {"own, in other letters", "FROM:ME@Own.Example\r\n\r\n", false, "ME@Own.Example "},
    {"own, in brackets", "From: Me <me@own.example>\r\n\r\n", false, "me@own.example "},
    {"own, and nothing behind", "From: me@own.example", false, "me@own.example "},
    {"foreign", "From: boss@own.example\r\n\r\n", true, "boss@own.example "},
    {"foreign, and nothing behind", "Subject: x\r\nFrom: boss@own.example", true,
     "boss@own.example "},
    {"foreign, on the next line", "From:\r\n Boss\r\n\t<boss@own.example>\r\n\r\n", true,
     "boss@own.example "},
    {"foreign, blanks before the colon", "From \t: boss@own.example\r\n\r\n", true,
     "boss@own.example "},
    {"foreign Sender", "From: me@own.example\r\nSender: boss@own.example\r\n\r\n", true,
     "me@own.example boss@own.example "},
    {"own Sender", "Sender: x@all.example\r\nFrom: me@own.example\r\n\r\n", false,
     "x@all.example me@own.example "},
    {"two From, the second foreign", "From: me@own.example\r\nFrom: boss@own.example\r\n\r\n", true,
     "me@own.example boss@own.example "},
    {"behind the header", "From: me@own.example\r\n\r\nFrom: boss@own.example\r\n", false,
     "me@own.example "},
    {"another field",
     "X-From: boss@own.example\r\nFrom-: boss@own.example\r\nFro: b@o.example\r\n"
     "Resent-From: boss@own.example\r\nReply-To: boss@own.example\r\n\r\n",
     false, ""},
    {"a continuation of another field", "To: x@y.example,\r\n From: boss@own.example\r\n\r\n",
     false, ""},
    {"a line that is no field", "garbage\r\nFrom: boss@own.example\r\n\r\n", true,
     "boss@own.example "},
    {"several, all own", "From: me@own.example, <a@all.example>\r\n ,,X <b@all.example>,\r\n\r\n",
     false, "me@own.example a@all.example b@all.example "},
    {"several, one foreign", "From: me@own.example, boss@own.example\r\n\r\n", true,
     "me@own.example boss@own.example "},
    {"a group", "From: Us: me@own.example, Y <a@all.example>;\r\n\r\n", false,
     "me@own.example a@all.example "},
    {"a group with a foreign one", "From: me@own.example:boss@own.example;\r\n\r\n", true,
     "boss@own.example "},
    {"an empty group", "From: Undisclosed:;\r\n\r\n", true, ""},
    {"no address", "From: \r\n\r\n", true, ""},
    {"a name alone", "From: Boss\r\n\r\n", true, ""},
    {"the name is another address", "From: boss@own.example <me@own.example>\r\n\r\n", false,
     "me@own.example "},
    {"a quoted name with brackets", "From: \"<boss@own.example>, \\\" x\" <me@own.example>\r\n\r\n",
     false, "me@own.example "},
    {"a comment with brackets", "From: (<boss@own.example>, \\) (x)) me@own.example (y)\r\n\r\n",
     false, "me@own.example "},
    {"comments inside", "From: me (x) @ own (y) . (z) example\r\n\r\n", false, "me@own.example "},
    {"a quoted local part", "From: \"a b\"@all.example\r\n\r\n", false, "\"a b\"@all.example "},
    {"two words", "From: boss@own.example me@own.example\r\n\r\n", true, ""},
    {"two words parted by a comment", "From: boss@x.example(c)me@own.example\r\n\r\n", true, ""},
    {"two words in brackets", "From: <boss me@own.example>\r\n\r\n", true, ""},
    {"two in brackets", "From: <boss@own.example> <me@own.example>\r\n\r\n", true,
     "me@own.example "},
    {"something behind", "From: <me@own.example> boss@own.example\r\n\r\n", true, ""},
    {"brackets in brackets", "From: <boss@x.example<me@own.example>\r\n\r\n", true,
     "me@own.example "},
    {"brackets without an end", "From: <me@own.example\r\n\r\n", true, ""},
    {"an end without brackets", "From: me@own.example>\r\n\r\n", true, "me@own.example "},
    {"a string without an end", "From: me@own.example, \"x\r\n\r\n", true, "me@own.example "},
    {"a comment without an end", "From: me@own.example (x\r\n\r\n", true, "me@own.example "},
    {"a source route", "From: <@boss.example,@x.example:me@own.example>\r\n\r\n", false,
     "me@own.example "},
    {"the null sender", "From: <>\r\n\r\n", true, ""},
    {"a literal", "From: me@[192.0.2.1]\r\n\r\n", true, ""},
    {"a long name", "From: " A320 A320 " <me@own.example>\r\n\r\n", false, "me@own.example "},
    {"a long address", "From: " A320 "@own.example\r\n\r\n", true, ""},
    {"longest that fits not", "From: " A64 A64 A64 A64 "\r\n\r\n", true, ""},
    {"in other words than ASCII", "From: m\xc3\xa9 <m\xc3\xa9@all.example>\r\n\r\n", false,
     "m\xc3\xa9@all.example "},
    {"a bare CR is no end", "From: me@own.example\r,boss@own.example\r\n\r\n", true,
     "me@own.example boss@own.example "},
};

static bool check_in_pieces(const char *header, uint32_t piece)
{
    struct author_check check;
    struct span left = span_from_text(header);

    seen[0] = '\0';
    author_check_init(&check, owns, &shown);
    while (left.size > 0) {
        uint32_t size = left.size < piece ? left.size : piece;
        author_check_feed(&check, span_head(left, size));
        left = span_skip(left, size);
    }
    author_check_finish(&check);
    author_check_finish(&check); /* what ended has ended */
    return author_check_is_refused(&check);
}

static void test_rows(void **state)
{
    static const uint32_t pieces[] = {UINT32_MAX, 1, 2, 7};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        for (uint32_t piece = 0; piece < COUNT_OF(pieces); piece++) {
            bool is_refused = check_in_pieces(rows[i].header, pieces[piece]);
            assert_string_equal(rows[i].seen, seen);
            assert_int_equal(rows[i].is_refused, is_refused);
        }
    }
}

/* Refused as soon as it is known: not at the end of the message. */
static void test_refused_early(void **state)
{
    struct author_check check;

    (void)state;
    author_check_init(&check, owns, &shown);
    author_check_feed(&check, SPAN_LITERAL("From: boss@own.example\r\n"));
    assert_false(author_check_is_refused(&check)); /* the next line may go on with it */
    author_check_feed(&check, SPAN_LITERAL("X"));
    assert_true(author_check_is_refused(&check));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refused_early),
    };
    return cmocka_run_group_tests_name("author", tests, NULL, NULL);
}
