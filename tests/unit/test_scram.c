/* SPDX-License-Identifier: Apache-2.0 */
/* Goal: the name in a SCRAM client's first message is taken as RFC 5802 has it, and nothing else
 * is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/scram.h"

static void test_names(void **state)
{
    char longest[AUTH_NAME_MAX + 1], fits[AUTH_NAME_MAX + 32], beyond[AUTH_NAME_MAX + 32];
    memset(longest, 'u', AUTH_NAME_MAX);
    longest[AUTH_NAME_MAX] = '\0';
    (void)snprintf(fits, sizeof(fits), "n,,n=%s,r=x", longest);
    (void)snprintf(beyond, sizeof(beyond), "n,,n=%su,r=x", longest);
    const struct {
        const char *message, *name; /* NULL: refused */
    } rows[] = {
        {"n,,n=user,r=rOprNGfwEbeRWgbNEkqO", "user"}, /* RFC 7677 section 3 */
        {"y,,n=alice@example.org,r=x", "alice@example.org"},
        {"n,,n=a=2Cb=3Dc,r=x", "a,b=c"},
        {"n,,n=j\xc3\xb6rg,r=x,ext=1", "j\xc3\xb6rg"},
        {fits, longest},
        {beyond, NULL},
        {"p=tls-unique,,n=user,r=x", NULL},
        {"n,a=boss,n=user,r=x", NULL},
        {"n,,m=x,n=user,r=x", NULL},
        {"n,,n=,r=x", NULL},
        {"n,,n=user", NULL},
        {"n,,n=user,", NULL},
        {"n,,n=user,r=", NULL},
        {"n,,n=user,x=1,r=x", NULL},
        {"n,,n=a=2cb,r=x", NULL},
        {"n,,n=a=,r=x", NULL},
        {"n,,n=a\tb,r=x", NULL},
        {"N,,n=user,r=x", NULL},
        {"n,,", NULL},
        {"", NULL},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char name[AUTH_NAME_MAX + 1] = "untouched";
        uint32_t size = 9;
        print_message("# case: %zu\n", i);
        enum err err = scram_name(span_from_text(rows[i].message), name, &size);
        assert_int_equal(rows[i].name == NULL ? ERR_PEER_SYNTAX : ERR_OK, err);
        assert_string_equal(rows[i].name == NULL ? "untouched" : rows[i].name, name);
        assert_int_equal(strlen(name), size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
    };
    return cmocka_run_group_tests_name("scram", tests, NULL, NULL);
}
