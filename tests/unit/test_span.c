/* SPDX-License-Identifier: Apache-2.0 */
/* What may go wrong with spans: case folding beyond ASCII letters, numbers at the edge of 64 bits,
 * and bounds. Also the table of errors, and the escaping of what peers say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/span.h"
#include "death.h"

static void test_parse_u64(void **state)
{
    static const struct {
        const char *name, *text;
        enum err err;
        uint64_t value;
    } cases[] = {
        {"zero", "0", ERR_OK, 0},
        {"one digit", "7", ERR_OK, 7},
        {"leading zeros", "00000000000000000042", ERR_OK, 42},
        {"largest", "18446744073709551615", ERR_OK, UINT64_MAX},
        {"largest plus one", "18446744073709551616", ERR_PEER_SYNTAX, 0},
        {"overflow by ten", "99999999999999999999", ERR_PEER_SYNTAX, 0},
        {"21 digits", "000000000000000000001", ERR_PEER_SYNTAX, 0},
        {"empty", "", ERR_PEER_SYNTAX, 0},
        {"plus sign", "+1", ERR_PEER_SYNTAX, 0},
        {"minus sign", "-1", ERR_PEER_SYNTAX, 0},
        {"space before", " 1", ERR_PEER_SYNTAX, 0},
        {"space behind", "1 ", ERR_PEER_SYNTAX, 0},
        {"hexadecimal", "0x10", ERR_PEER_SYNTAX, 0},
        {"octet below digit", "1/", ERR_PEER_SYNTAX, 0},
        {"octet above digit", "1:", ERR_PEER_SYNTAX, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint64_t value = 99;

        print_message("# case: %s\n", cases[i].name);
        assert_int_equal(cases[i].err, span_parse_u64(span_from_text(cases[i].text), &value));
        assert_true(value == (cases[i].err == ERR_OK ? cases[i].value : 99));
    }
}

/* Goal: exactly the 26 letters fold, over all pairs of octets. */
static void test_nocase_folds_letters_only(void **state)
{
    (void)state;
    for (unsigned a = 0; a < 256; a++) {
        for (unsigned b = 0; b < 256; b++) {
            uint8_t left = (uint8_t)a, right = (uint8_t)b;
            bool is_letter = (a >= 'A' && a <= 'Z') || (a >= 'a' && a <= 'z');
            bool expected = a == b || (is_letter && (a ^ b) == 0x20);

            if (span_is_equal_nocase(span_of(&left, 1), span_of(&right, 1)) != expected)
                fail_msg("octets %u and %u", a, b);
        }
    }
}

static void test_compare(void **state)
{
    static const struct {
        const char *name, *s, *prefix;
        bool has_prefix, is_equal;
    } cases[] = {
        {"same, other case", "Mail From:", "MAIL FROM:", true, true},
        {"longer", "MAIL FROM:", "mail", true, false},
        {"shorter", "MAI", "mail", false, false},
        {"empty prefix", "x", "", true, false},
        {"both empty", "", "", true, true},
        {"last differs", "MAIM", "mail", false, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct span s = span_from_text(cases[i].s), prefix = span_from_text(cases[i].prefix);

        print_message("# case: %s\n", cases[i].name);
        assert_int_equal(cases[i].has_prefix, span_has_prefix_nocase(s, prefix));
        assert_int_equal(cases[i].is_equal, span_is_equal_nocase(s, prefix));
    }
    assert_true(span_is_equal(SPAN_LITERAL("a\0b"), span_of("a\0b", 3)));
    assert_false(span_is_equal(SPAN_LITERAL("a\0b"), SPAN_LITERAL("a\0c")));
    assert_true(span_is_equal((struct span){NULL, 0}, SPAN_LITERAL("")));
}

/* Every octet at every place of spans of all sizes around a word and two. */
static void test_octets_by_words(void **state)
{
    (void)state;
    for (uint32_t size = 0; size <= 17; size++) {
        for (uint32_t i = 0; i < size * 256; i++) {
            uint8_t octets[17], lower[17];
            memset(octets, 'Z', size);
            octets[i / 256] = (uint8_t)i;
            struct span s = span_of(octets, size);
            bool is_control = octets[i / 256] < 0x20 || octets[i / 256] == 0x7f;
            assert_int_equal(is_control, span_has_control(s));
            span_to_lower(s, lower);
            for (uint32_t j = 0; j < size; j++) {
                bool is_capital = octets[j] >= 'A' && octets[j] <= 'Z';
                assert_int_equal(is_capital ? octets[j] + 0x20 : octets[j], lower[j]);
            }
        }
    }
    assert_false(span_has_control((struct span){NULL, 0}));
}

static void skip_too_far(void *context)
{
    (void)context;
    (void)span_skip(SPAN_LITERAL("ab"), 3);
}

static void head_too_long(void *context)
{
    (void)context;
    (void)span_head(SPAN_LITERAL("ab"), 3);
}

static void text_too_long(void *context)
{
    uint8_t octets[3];
    struct span_text text = {.data = octets, .size_max = 2};

    (void)context;
    span_text_put(&text, SPAN_LITERAL("a"));
    span_text_put_u64(&text, 10);
}

static void test_text(void **state)
{
    static const struct {
        uint64_t value;
        const char *text;
    } cases[] = {{0, "a0"},
                 {9, "a9"},
                 {10, "a10"},
                 {65535, "a65535"},
                 {UINT64_MAX, "a18446744073709551615"}};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t octets[32];
        struct span_text text = {.data = octets, .size_max = (uint32_t)strlen(cases[i].text)};

        span_text_put(&text, SPAN_LITERAL("a"));
        span_text_put(&text, SPAN_LITERAL(""));
        span_text_put_u64(&text, cases[i].value);
        assert_true(span_is_equal(span_text_get(&text), span_from_text(cases[i].text)));
    }
    assert_true(death_is_caused_by(text_too_long, NULL));
}

static void test_bounds_are_checked(void **state)
{
    (void)state;
    assert_int_equal(0, span_skip(SPAN_LITERAL("ab"), 2).size);
    assert_int_equal(2, span_head(SPAN_LITERAL("ab"), 2).size);
    assert_true(death_is_caused_by(skip_too_far, NULL));
    assert_true(death_is_caused_by(head_too_long, NULL));
}

static void test_every_error_has_its_row(void **state)
{
    (void)state;
    assert_int_equal(ERR_CLASS_NONE, err_class(ERR_OK));
    for (int err = ERR_OK + 1; err < ERR_COUNT; err++) {
        assert_int_not_equal(ERR_CLASS_NONE, err_class((enum err)err));
        assert_true(strlen(err_text((enum err)err)) > 0);
        assert_true(strlen(err_name((enum err)err)) > 0);
    }
    assert_string_equal("PEER_SYNTAX", err_name(ERR_PEER_SYNTAX));
    assert_int_equal(ERR_CLASS_DISK, err_class(ERR_DISK_FULL));
}

static void test_log_escape(void **state)
{
    static const struct {
        const char *name;
        struct span octets;
        uint32_t size;
        const char *text;
    } cases[] = {
        {"plain", {(const uint8_t *)"EHLO a", 6}, 64, "EHLO a"},
        {"line end", {(const uint8_t *)"a\r\nb", 4}, 64, "a\\x0d\\x0ab"},
        {"quote and backslash", {(const uint8_t *)"\"\\", 2}, 64, "\\\"\\\\"},
        {"nul and high", {(const uint8_t *)"\0\xff", 2}, 64, "\\x00\\xff"},
        {"delete", {(const uint8_t *)"\x7f", 1}, 64, "\\x7f"},
        {"cut, one octet left", {(const uint8_t *)"abc", 3}, 3, "ab"},
        {"exact fit", {(const uint8_t *)"abc", 3}, 4, "abc"},
        {"no half escape", {(const uint8_t *)"ab\x01", 3}, 6, "ab"},
        {"escape that fits", {(const uint8_t *)"ab\x01", 3}, 7, "ab\\x01"},
        {"room for the end only", {(const uint8_t *)"abc", 3}, 1, ""},
        {"escape sequence in colour", {(const uint8_t *)"\x1b[1m", 4}, 64, "\\x1b[1m"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        char text[64];

        print_message("# case: %s\n", cases[i].name);
        assert_ptr_equal(text, log_escape(cases[i].octets, text, cases[i].size));
        assert_string_equal(cases[i].text, text);
    }
}

/* What `body` writes on standard error, NUL-terminated. */
static void capture_log(void (*body)(void), char *ret_text, size_t size)
{
    int pipe_ends[2], saved = dup(STDERR_FILENO);
    size_t used = 0;
    ssize_t got;

    assert_int_equal(0, pipe(pipe_ends));
    assert_true(dup2(pipe_ends[1], STDERR_FILENO) >= 0);
    close(pipe_ends[1]);
    body();
    assert_true(dup2(saved, STDERR_FILENO) >= 0);
    close(saved);
    while (used < size - 1 && (got = read(pipe_ends[0], ret_text + used, size - 1 - used)) > 0)
        used += (size_t)got;
    ret_text[used] = '\0';
    close(pipe_ends[0]);
}

static void log_some(void)
{
    char large[4000];

    memset(large, 'x', sizeof(large) - 1);
    large[sizeof(large) - 1] = '\0';
    log_line(LOG_DEBUG, "below the threshold");
    log_line(LOG_WARNING, "peer=\"%s\"", "evil\nseverity=fatal");
    log_line(LOG_ERROR, "long=%s", large);
}

static void log_often(void)
{
    for (int i = 0; i < 200; i++)
        log_line(LOG_WARNING, "again=%d", i);
}

static uint32_t line_count(const char *text)
{
    uint32_t count = 0;

    for (; *text != '\0'; text++)
        count += *text == '\n';
    return count;
}

static void test_log_lines(void **state)
{
    static char text[65536];

    (void)state;
    capture_log(log_some, text, sizeof(text));
    assert_int_equal(2, line_count(text));
    assert_non_null(strstr(text, "Z severity=warning peer=\"evil?severity=fatal\"\n"));
    assert_true(strlen(strstr(text, "severity=error")) < 2048);
    assert_null(strstr(text, "below the threshold"));

    /* 50 lines in a window of 10 s; the loop may straddle one boundary. */
    capture_log(log_often, text, sizeof(text));
    assert_in_range(line_count(text), 50, 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_u64),
        cmocka_unit_test(test_nocase_folds_letters_only),
        cmocka_unit_test(test_compare),
        cmocka_unit_test(test_octets_by_words),
        cmocka_unit_test(test_text),
        cmocka_unit_test(test_bounds_are_checked),
        cmocka_unit_test(test_every_error_has_its_row),
        cmocka_unit_test(test_log_escape),
        cmocka_unit_test(test_log_lines),
    };
    return cmocka_run_group_tests_name("span", tests, NULL, NULL);
}
