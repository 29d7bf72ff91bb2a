/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration checked for programs: what is wrong and where; and that a text opens nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config_check.h"

static json_t *check(const char *text)
{
    return config_check_text(span_from_text(text));
}

/* Of the first error; 0 and "": it is not there. */
static json_int_t number_of(const json_t *answer, const char *name)
{
    return json_integer_value(
        json_object_get(json_array_get(json_object_get(answer, "errors"), 0), name));
}

static const char *text_of(const json_t *answer, const char *list, const char *name)
{
    const char *text =
        json_string_value(json_object_get(json_array_get(json_object_get(answer, list), 0), name));

    return text == NULL ? "" : text;
}

/* Goal: each mistake has its place, as far as one is known. */
static void test_places(void **state)
{
    static const struct {
        const char *text;
        json_int_t line, column;
        const char *option;
    } rows[] = {
        {"cores: many\n", 1, 8, "cores"},
        {"hostname: a.test\ndns: {timeout: soon}\n", 2, 16, "dns.timeout"},
        {"hostnames: a.test\n", 1, 1, ""},
        {"hostname: [\n", 2, 1, ""},
        {"a", 1, 1, ""},
        {"routes: [{match: a.test}, {match: a.test}]\n", 1, 0, "routes[].match"},
        {"hostname: a.test\ninclude: /etc/angarium/more.yaml\n", 2, 0, "include"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        json_t *answer = check(rows[i].text);
        assert_true(json_is_false(json_object_get(answer, "ok")));
        assert_int_equal(1, json_array_size(json_object_get(answer, "errors")));
        assert_int_equal(rows[i].line, number_of(answer, "line"));
        assert_int_equal(rows[i].column, number_of(answer, "column"));
        assert_string_equal(rows[i].option, text_of(answer, "errors", "option"));
        assert_true(*text_of(answer, "errors", "text") != '\0');
        json_decref(answer);
    }
}

/* Goal: whether a file is there, and what is in it, makes no difference to a text. */
static void test_no_oracle(void **state)
{
    static const struct {
        const char *before, *between, *after; /* of two paths */
    } forms[] = {
        {"listen: [{address: \"127.0.0.1:25\", tls: {certificate: ", ", key: ", "}}]\n"},
        {"patterns_file: ", "\nhttp: {socket: ", "}\n"},
        {"include: [", ", ", "]\n"},
        {"auth: {users_file: ", "}\nhttp: {admin_token_file: ", ", listen: \"127.0.0.1:8025\"}\n"},
    };
    char path[] = "/tmp/angarium-check-XXXXXX", text[512];
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(7, write(fd, "secret\n", 7));
    close(fd);
    for (size_t i = 0; i < COUNT_OF(forms); i++) {
        char *shown[2];
        for (size_t there = 0; there < 2; there++) {
            if (there == 1)
                unlink(path);
            (void)snprintf(text, sizeof(text), "%s%s%s%s%s", forms[i].before, path,
                           forms[i].between, path, forms[i].after);
            json_t *answer = check(text);
            shown[there] = json_dumps(answer, JSON_COMPACT);
            json_decref(answer);
        }
        assert_string_equal(shown[0], shown[1]);
        assert_null(strstr(shown[0], "secret"));
        free(shown[0]);
        free(shown[1]);
        fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
        close(fd);
    }
    unlink(path);
}

/* Goal: what is good is ok, and files that were not looked at are warnings, up to a bound. */
static void test_warnings(void **state)
{
    char text[65536] = "";
    size_t size = 0;
    json_t *answer = check("hostname: a.test\npatterns_file: x.yaml\n");

    (void)state;
    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_null(json_object_get(answer, "error"));
    assert_int_equal(1, json_array_size(json_object_get(answer, "warnings")));
    assert_string_equal("patterns_file", text_of(answer, "warnings", "option"));
    json_decref(answer);
    for (uint32_t i = 0; i < CONFIG_WARNINGS_MAX + 1; i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size,
                                 "%s  - {domain: d%u.test, selector: s, key: /k}\n",
                                 i == 0 ? "dkim:\n" : "", i);
    answer = check(text);
    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_int_equal(CONFIG_WARNINGS_MAX, json_array_size(json_object_get(answer, "warnings")));
    json_decref(answer);
}

/* Goal: what would keep the parser busy is refused, and as much as is allowed is not. */
static void test_excess(void **state)
{
    static const struct {
        const char *before, *each, *after;
        uint32_t max;
        bool is_good; /* up to there */
    } rows[] = {
        {"a: ", "[", "", 200, false},
        {"hostname: a.test # ", "{", "\n", 200, true},
        {"hostname: a.test # ", "[]", "\n", 100000, true},
        {"hostname: a.test # ", "&", "\n", 1000, true},
        {"", "%x\n", "--- {hostname: a.test}\n", 100, false}, /* it is none that is known */
    };
    static char text[300000];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (uint32_t more = 0; more < 2; more++) {
            size_t size = (size_t)snprintf(text, sizeof(text), "%s", rows[i].before);
            for (uint32_t j = 0; j < rows[i].max + more; j++)
                size += (size_t)snprintf(text + size, sizeof(text) - size, "%s", rows[i].each);
            (void)snprintf(text + size, sizeof(text) - size, "%s", rows[i].after);
            json_t *answer = check(text);
            bool is_excess = strstr(text_of(answer, "errors", "text"), "too many") != NULL;
            assert_int_equal(more > 0 && rows[i].max < 100000, is_excess);
            if (more == 0)
                assert_int_equal(rows[i].is_good, json_is_true(json_object_get(answer, "ok")));
            json_decref(answer);
        }
    }
}

/* Goal: a file is checked as a whole, and one that is not there is an error. */
static void test_file(void **state)
{
    char path[] = "/tmp/angarium-check-XXXXXX";
    int fd = mkstemp(path);

    (void)state;
    assert_int_equal(12, write(fd, "cores: many\n", 12));
    close(fd);
    json_t *answer = config_check_file(path);
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_string_equal(path, text_of(answer, "errors", "file"));
    assert_int_equal(8, number_of(answer, "column"));
    json_decref(answer);
    unlink(path);
    answer = config_check_file(path);
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_non_null(strstr(text_of(answer, "errors", "text"), "cannot be read"));
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places),   cmocka_unit_test(test_no_oracle),
        cmocka_unit_test(test_warnings), cmocka_unit_test(test_excess),
        cmocka_unit_test(test_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
