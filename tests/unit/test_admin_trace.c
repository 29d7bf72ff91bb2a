/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What viewers of conversations may ask for, and what terse ones see of a reply.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "control/admin_trace.h"

/* Goal: what is asked for is one of the kinds that there are, or refused. */
static void test_parse(void **state)
{
    static const struct {
        const char *request;
        int kind; /* -1: refused */
    } rows[] = {
        {"{\"id\":\"192.0.2.1\"}", TRACE_KIND_ADDRESS},
        {"{\"id\":\"2001:db8::/32\"}", TRACE_KIND_ADDRESS},
        {"{\"id\":\"aadgckcewtj4v57ch2f23dzjeq\"}", TRACE_KIND_MESSAGE},
        {"{\"id\":\"example.org\"}", TRACE_KIND_NAME},
        {"{\"id\":\"192.0.2.1/24\"}", -1},
        {"{\"id\":\"192.0.2.0/33\"}", -1},
        {"{\"id\":\"a@example.org\"}", -1},
        {"{\"id\":\"big_mail-1\"}", TRACE_KIND_NAME},
        {"{\"id\":\"m\u00fcnchen.example\"}", TRACE_KIND_NAME},
        {"{\"id\":\"[192.0.2.1]\"}", TRACE_KIND_NAME},
        {"{\"id\":\"a b\"}", -1},
        {"{\"id\":\"what?\"}", -1},
        {"{\"id\":\"--help=\"}", -1},
        {"{\"id\":\"a!b.example\"}", -1},
        {"{\"id\":\"\"}", -1},
        {"{\"id\":7}", -1},
        {"{}", -1},
    };
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct admin_trace_viewer viewer;
        char why[ADMIN_TRACE_WHY_SIZE];
        json_t *request = json_loads(rows[i].request, 0, NULL);
        bool is_ok = admin_trace_parse(request, &viewer, why);
        if (is_ok != (rows[i].kind >= 0) || (is_ok && (int)viewer.filter.kind != rows[i].kind))
            fail_msg("%s: %d", rows[i].request, is_ok);
        json_decref(request);
    }
}

#define NAME_MAX_OF_DNS 253u

/* Goal: a name as long as may be, and one octet more; bounds of time. */
static void test_bounds(void **state)
{
    char name[TRACE_NAME_SIZE + 1], why[ADMIN_TRACE_WHY_SIZE];
    struct admin_trace_viewer viewer;
    (void)state;

    memset(name, 'x', sizeof(name));
    for (uint32_t dot = 63; dot < sizeof(name); dot += 64)
        name[dot] = '.';
    for (uint32_t size = NAME_MAX_OF_DNS; size <= NAME_MAX_OF_DNS + 1; size++) {
        name[size] = '\0';
        json_t *request =
            json_pack("{ss,si,si,sb}", "id", name, "seconds", 100000, "count", 5, "only_new", 1);
        assert_int_equal(size == NAME_MAX_OF_DNS, admin_trace_parse(request, &viewer, why));
        json_decref(request);
        name[size] = 'x';
    }
    assert_int_equal(TICK_S(86400), viewer.deadline);
    assert_int_equal(5, viewer.line_max);
    assert_true(viewer.filter.is_only_new && !viewer.is_terse);
}

/* Goal: terse is the last line of a reply, and of it the codes. */
static void test_shorten(void **state)
{
    static const struct {
        const char *line, *shown; /* NULL: nothing */
    } rows[] = {
        {"250-first", NULL},        {"250 2.1.0 sender ok", "250 2.1.0"},
        {"250 ok", "250"},          {"354", "354"},
        {"550 5.7.1", "550 5.7.1"}, {"550 9.7.1 what", "550"},
        {"220-2.0.0 ready", NULL},  {"25", "25"},
    };
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct span line = span_from_text(rows[i].line);
        bool is_shown = admin_trace_shorten(&line);
        if (is_shown != (rows[i].shown != NULL) ||
            (is_shown && !span_is_equal(line, span_from_text(rows[i].shown))))
            fail_msg("%s", rows[i].line);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_shorten),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
