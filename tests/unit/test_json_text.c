/* SPDX-License-Identifier: Apache-2.0 */
/*
 * JSON as text: what is written is what jansson would have written, at every bound of what is
 * written without it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "control/json_text.h"

/* Ends `text`. */
static void expect(struct json_text *text, const char *expected)
{
    assert_int_equal(strlen(expected), text->size);
    assert_memory_equal(expected, text->data, text->size);
    json_text_free(text);
}

static void test_commas(void **state)
{
    struct json_text text = {0}, more = {0}, none = {0};

    (void)state;
    json_text_open(&text, '{');
    json_text_set_number(&text, JSON_KEY("a"), 1);
    json_text_key(&text, JSON_KEY("b"));
    json_text_open(&text, '[');
    json_text_open(&text, '{');
    json_text_close(&text, '}');
    json_text_open(&text, '[');
    json_text_close(&text, ']');
    json_text_number(&text, 2);
    json_text_string(&text, "{", 1);
    json_text_string(&text, ":", 1);
    json_text_close(&text, ']');
    json_text_set_boolean(&text, JSON_KEY("c"), true);
    json_text_set_boolean(&text, JSON_KEY("d"), false);
    json_text_members(&text, json_object());
    json_text_members(&text, json_pack("{si,s{si}}", "e", 3, "f", "g", 4));
    json_text_set_string(&more, JSON_KEY("h"), "");
    json_text_append(&text, &none);
    json_text_append(&text, &more);
    json_text_name(&text, "i\"");
    json_text_tree(&text, json_pack("[n]"));
    json_text_close(&text, '}');
    json_text_free(&more);
    expect(&text, "{\"a\":1,\"b\":[{},[],2,\"{\",\":\"],\"c\":true,\"d\":false,\"e\":3,"
                  "\"f\":{\"g\":4},\"h\":\"\",\"i\\\"\":[null]}");
    json_text_open(&text, '{');
    json_text_members(&text, json_pack("{sn}", "a"));
    json_text_close(&text, '}');
    expect(&text, "{\"a\":null}");
}

static void test_numbers(void **state)
{
    static const struct {
        int64_t number;
        const char *text;
    } rows[] = {
        {0, "0"},
        {9, "9"},
        {10, "10"},
        {-1, "-1"},
        {99, "99"},
        {100, "100"},
        {INT64_MAX, "9223372036854775807"},
        {INT64_MIN, "-9223372036854775808"},
    };
    struct json_text text = {0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        json_text_number(&text, rows[i].number);
        expect(&text, rows[i].text);
    }
}

/* Writes a string both ways. */
static void same_as_jansson(const char *string, size_t size)
{
    struct json_text text = {0};
    json_t *json = json_stringn(string, size);
    char *expected = json_dumps(json, JSON_COMPACT | JSON_ENCODE_ANY);

    assert_non_null(expected);
    json_decref(json);
    json_text_string(&text, string, size);
    expect(&text, expected);
    free(expected);
}

/* Goal: each octet, at each place of a word of eight and behind it. */
static void test_octets(void **state)
{
    (void)state;
    for (uint32_t octet = 0; octet < 0x80; octet++) {
        for (size_t size = 1; size <= 17; size++) {
            for (size_t at = 0; at < size; at++) {
                char string[17];
                memset(string, 'x', sizeof(string));
                string[at] = (char)octet;
                json_t *json = json_stringn(string, size);
                struct json_text text = {0};
                json_text_string(&text, string, size);
                json_t *read =
                    json_loadb(text.data, text.size, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);
                assert_true(json_equal(json, read));
                json_decref(json);
                json_decref(read);
                json_text_free(&text);
            }
        }
    }
}

static void test_strings(void **state)
{
    static const char *const rows[] = {
        "",
        "a",
        "12345678",
        "a\"b",
        "a\\b",
        "a/b",
        "\x1f",
        "\x20",
        "\x7e",
        "\x7f",
        "\t\r\n\b\f",
        "na\xc3\xafve",
        "\xe2\x82\xac",
        "\xf0\x9f\x93\xa8 mail",
        "<script>",
        "1234567\"",
        "\"1234567",
    };
    struct json_text text = {0};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++)
        same_as_jansson(rows[i], strlen(rows[i]));
    same_as_jansson("a\0b", 3);
    json_text_string(&text, "\xff\"x", 3); /* no UTF-8: it is shown as in the log */
    expect(&text, "\"\\\\xff\\\\\\\"x\"");
}

/* Goal: a buffer grows with what is written, whichever writes it. */
static void test_growth(void **state)
{
    static char large[100000];
    struct json_text text = {0};
    json_t *tree = json_array();

    (void)state;
    memset(large, 'y', sizeof(large));
    json_text_open(&text, '[');
    for (uint32_t i = 0; i < 3000; i++)
        json_text_number(&text, i);
    json_text_string(&text, large, sizeof(large));
    json_array_append_new(tree, json_stringn(large, sizeof(large)));
    json_text_tree(&text, tree);
    json_text_close(&text, ']');
    json_t *read = json_loadb(text.data, text.size, 0, NULL);
    assert_int_equal(3002, json_array_size(read));
    assert_int_equal(2999, json_integer_value(json_array_get(read, 2999)));
    assert_int_equal(sizeof(large), json_string_length(json_array_get(read, 3000)));
    json_decref(read);
    json_text_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_commas), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_octets), cmocka_unit_test(test_strings),
        cmocka_unit_test(test_growth),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
