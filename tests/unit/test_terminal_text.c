/* SPDX-License-Identifier: Apache-2.0 */
/* What peers sent, as a terminal is shown it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <ctype.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "control/terminal_text.h"

/* Goal: what a reader can see stays; what would hide, move or mean something else is escaped. */
static void test_rows(void **state)
{
    static const struct {
        const char *octets, *shown;
    } rows[] = {
        {"plain.example", "plain.example"},
        {"b\xc3\xbc"
         "cher.example",
         "b\xc3\xbc"
         "cher.example"},
        {"\xe4\xbe\x8b\xe3\x81\x88", "\xe4\xbe\x8b\xe3\x81\x88"},
        {"\xf0\x9f\x93\xa7", "\xf0\x9f\x93\xa7"},
        {"a\"b\\c", "a\\\"b\\\\c"},
        {"\x1b[2J\x7f", "\\x1b[2J\\x7f"},
        {"\xc2\x9b"
         "2J",
         "\\xc2\\x9b"
         "2J"},                                       /* CSI */
        {"\xe2\x80\xae", "\\xe2\\x80\\xae"},          /* right to left */
        {"\xe2\x81\xa6", "\\xe2\\x81\\xa6"},          /* an isolate */
        {"\xe2\x80\x8b", "\\xe2\\x80\\x8b"},          /* no width */
        {"\xe2\x80\xa8", "\\xe2\\x80\\xa8"},          /* an end of a line */
        {"\xef\xbb\xbf", "\\xef\\xbb\\xbf"},          /* no width */
        {"\xee\x80\x80", "\\xee\\x80\\x80"},          /* private */
        {"\xf3\xa0\x81\x81", "\\xf3\\xa0\\x81\\x81"}, /* a tag */
        {"\xf0\x9d\x85\xb3", "\\xf0\\x9d\\x85\\xb3"}, /* of notes */
        {"\xed\xa0\x80", "\\xed\\xa0\\x80"},          /* half a character of UTF-16 */
        {"\xef\xbf\xbf", "\\xef\\xbf\\xbf"},          /* none */
        {"\xc0\xaf", "\\xc0\\xaf"},                   /* longer than it need be */
        {"\xe0\x80\xaf", "\\xe0\\x80\\xaf"},
        {"\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80"}, /* beyond the last */
        {"\xff\xfe", "\\xff\\xfe"},
        {"\xc3", "\\xc3"}, /* cut off */
        {"\xe4\xbe", "\\xe4\\xbe"},
        {"\xc3(", "\\xc3("},
    };
    char text[64];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_string_equal(
            rows[i].shown, terminal_text(span_from_text(rows[i].octets), true, text, sizeof(text)));
    assert_string_equal("b\\xc3\\xbc",
                        terminal_text(SPAN_LITERAL("b\xc3\xbc"), false, text, sizeof(text)));
}

/* Goal: whatever the room, it ends behind a whole character or escape. */
static void test_room(void **state)
{
    static const char octets[] = "a\xc3\xbc\xe4\xbe\x8b\x1b\xf0\x9f\x93\xa7";
    static const struct {
        uint32_t size, used;
    } rows[] = {{1, 0}, {2, 1},  {3, 1},   {4, 3},   {6, 3},
                {7, 6}, {10, 6}, {11, 10}, {14, 10}, {15, 14}};
    char text[32];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        assert_int_equal(rows[i].used,
                         strlen(terminal_text(SPAN_LITERAL(octets), true, text, rows[i].size)));
}

/* Goal: a line keeps what means something in it, and nothing that the terminal would obey. */
static void test_line(void **state)
{
    static const struct {
        const char *octets, *shown;
    } rows[] = {
        {"", "\n"},
        {"d,\"smtp;550 \"\"no\"\"\",a\\b", "d,\"smtp;550 \"\"no\"\"\",a\\b\n"},
        {"\x1b]0;x\x07\x1b[2J\x7f", "\\x1b]0;x\\x07\\x1b[2J\\x7f\n"},
        {"a\r\n\tb", "a\\x0d\\x0a\\x09b\n"},
        {"\xc2\x9b"
         "2J\x9b",
         "\\xc2\\x9b"
         "2J\\x9b\n"},
        {"b\xc3\xbc\"", "b\xc3\xbc\"\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char shown[64] = "";
        FILE *out = fmemopen(shown, sizeof(shown), "w");
        assert_non_null(out);
        terminal_line(span_from_text(rows[i].octets), true, out);
        assert_int_equal(0, fclose(out));
        assert_string_equal(rows[i].shown, shown);
    }
}

/* Goal: what the terminal shows is asked of the environment, and is no other way to read letters.
 */
static void test_environment(void **state)
{
    static const char *const latin[] = {"C", "POSIX", "nowhere"};

    (void)state;
    assert_int_equal(0, setenv("LC_ALL", "C.UTF-8", 1));
    assert_true(terminal_has_utf8());
    assert_false(isalpha(0xe4));
    assert_string_equal("C", setlocale(LC_CTYPE, NULL));
    for (size_t i = 0; i < COUNT_OF(latin); i++) {
        assert_int_equal(0, setenv("LC_ALL", latin[i], 1));
        assert_false(terminal_has_utf8());
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_room),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_environment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
