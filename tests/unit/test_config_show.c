/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every option with its value and where it comes from: what a file says, what it leaves out, in
 * sections, in lists and in elements of lists.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config_show.h"
#include "control/option.h"

static char path[] = "/tmp/test_config_show.XXXXXX";

/* What is shown of a file with this text; NULL: it was refused. */
static char *show(const char *text)
{
    char *shown = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "w"), *out = open_memstream(&shown, &size),
         *null = fopen("/dev/null", "w");

    fputs(text, file);
    fclose(file);
    bool is_ok = config_show(path, out, null);
    fclose(out);
    fclose(null);
    if (is_ok)
        return shown;
    assert_string_equal("", shown);
    free(shown);
    return NULL;
}

static void expect(const char *shown, const char *option, const char *value, uint32_t line)
{
    char wanted[256], from[64] = "default";

    if (line > 0)
        snprintf(from, sizeof(from), "%s:%u", path, line);
    snprintf(wanted, sizeof(wanted), "\n%-44s %-28s # %s\n", option, value, from);
    if (strstr(shown, wanted) == NULL)
        print_message("# no %s\n", wanted);
    assert_non_null(strstr(shown, wanted));
}

static const char text[] = "hostname: Relay.Example\n"
                           "listen:\n"
                           "  - address: 127.0.0.1:25\n"
                           "    limits: {errors: 7}\n"
                           "  - {address: \"127.0.0.2:25\"}\n"
                           "relay_from: [10.0.0.0/8, 192.0.2.0/24]\n"
                           "dns: {resolvers: [127.0.0.1], timeout: 3s}\n"
                           "destinations: {deny: []}\n";

static void test_origins(void **state)
{
    char *shown = show(text);

    (void)state;
    assert_non_null(shown);
    expect(shown, "hostname", "Relay.Example", 1);
    expect(shown, "listen[0].address", "127.0.0.1:25", 3);
    expect(shown, "listen[0].limits.errors", "7", 4);
    expect(shown, "listen[0].limits.junk", "100", 0);
    expect(shown, "listen[0].bare_lf", "reject", 0);
    expect(shown, "listen[1].address", "127.0.0.2:25", 5);
    expect(shown, "listen[1].limits.errors", "20", 0); /* a section that is not there at all */
    expect(shown, "relay_from[0]", "10.0.0.0/8", 6);
    expect(shown, "relay_from[1]", "192.0.2.0/24", 6);
    expect(shown, "dns.resolvers[0]", "127.0.0.1", 7);
    expect(shown, "dns.timeout", "3s", 7);
    expect(shown, "dns.tries", "4", 0);
    expect(shown, "destinations.deny", "[]", 8);
    free(shown);
}

/* Goal: of an empty file every option is the default, each once, in order. */
static void test_defaults(void **state)
{
    char *shown = show(""), *line = shown;
    uint32_t lines = 0, wanted = 0;
    char before[256] = "";

    (void)state;
    assert_non_null(shown);
    for (char *end; *line != '\0'; line = end + 1) {
        char place[256];
        end = strchr(line, '\n');
        assert_non_null(end);
        snprintf(place, sizeof(place), "%.*s", (int)strcspn(line, " "), line);
        assert_true(strverscmp(before, place) < 0);
        strcpy(before, place);
        lines++;
    }
    for (uint32_t i = 0; i < option_count; i++) {
        const struct option *option = &option_table[i];
        wanted += option->kind != OPTION_MAPPING && option->kind != OPTION_SEQUENCE &&
                  strchr(option->path, '[') == NULL && option->default_text != NULL;
    }
    assert_int_equal(wanted, lines);
    free(shown);
}

/* Goal: the same for programs. */
static void test_json(void **state)
{
    char *shown = show(text);
    json_t *answer = config_show_json(path), *row;
    bool has_errors = false;
    size_t index;

    (void)state;
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_array_foreach(json_object_get(answer, "rows"), index, row)
    {
        if (strcmp(json_string_value(json_object_get(row, "option")), "listen[0].limits.errors") !=
            0)
            continue;
        assert_string_equal("7", json_string_value(json_object_get(row, "value")));
        assert_int_equal(4, json_integer_value(json_object_get(row, "line")));
        has_errors = true;
    }
    assert_true(has_errors);
    json_decref(answer);
    free(shown);
}

/* Goal: a file with a mistake shows nothing. */
static void test_mistake(void **state)
{
    (void)state;
    assert_null(show("cores: many\n"));
    json_t *answer = config_show_json(path);
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_null(json_object_get(answer, "rows"));
    assert_non_null(strstr(json_string_value(json_object_get(answer, "error")), ":1: cores: "));
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_origins),
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_mistake),
    };

    close(mkstemp(path));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    unlink(path);
    return failed;
}
