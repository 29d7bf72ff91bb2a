/* SPDX-License-Identifier: Apache-2.0 */
/* Which rule of `sites` decides, and what it leaves to the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/settings.h"

static const char *const big_mx[] = {"*.big.example", "mx.big.net"};
static const struct settings_site rules[] = {
    {.provider = "big", .mx = big_mx, .mx_count = 2, .connection_max = 7},
    {.pattern = "*", .connection_max = 2, .recipient_max = 50, .rates = {1, {{9, TICK_S(60)}}}},
    {.pattern = "one.example", .messages_per_connection_max = 5},
    {.pattern = "*.one.example", .connection_max = 3},
    {.pattern = "*.below.one.example", .rates = {1, {{4, TICK_S(60)}}}},
};

static struct mx_answer hosts_of(const char *first, const char *second)
{
    struct mx_answer answer = {.host_count = second == NULL ? 1 : 2};

    snprintf(answer.hosts[0].name, MX_NAME_MAX, "%s", first);
    snprintf(answer.hosts[1].name, MX_NAME_MAX, "%s", second == NULL ? "" : second);
    return answer;
}

static void rule_is_found(void **state)
{
    static const struct {
        const char *name, *domain, *first, *second;
        const char *site; /* what tells it from others */
        uint32_t connections, messages, recipients, rate;
    } cases[] = {
        {"nobody's", "x.example", "mx.x.example", NULL, "", 2, 0, 50, 9},
        {"named", "one.example", "mx.x.example", NULL, "rule/one.example", 2, 5, 50, 9},
        {"named, in capitals", "ONE.example", "mx.x.example", NULL, "rule/one.example", 2, 5, 50,
         9},
        {"below a name", "a.one.example", "mx.x.example", NULL, "rule/*.one.example", 3, 0, 50, 9},
        {"further below", "a.below.one.example", "mx.x.example", NULL, "rule/*.below.one.example",
         2, 0, 50, 4},
        {"the wildcard's own name", "below.one.example", "mx.x.example", NULL, "rule/*.one.example",
         3, 0, 50, 9},
        {"only the end of a label", "aone.example", "mx.x.example", NULL, "", 2, 0, 50, 9},
        {"provider", "x.example", "mx1.big.example", NULL, "provider/big", 7, 0, 50, 9},
        {"provider, in capitals", "x.example", "MX1.BIG.example", NULL, "provider/big", 7, 0, 50,
         9},
        {"provider before name", "one.example", "mx.big.net", "a.big.example", "provider/big", 7, 0,
         50, 9},
        {"one host elsewhere", "x.example", "mx.big.net", "mx.x.example", "", 2, 0, 50, 9},
    };
    struct settings settings = {.sites = rules, .site_count = COUNT_OF(rules)};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct mx_answer answer = hosts_of(cases[i].first, cases[i].second);
        struct settings_site_limits limits =
            settings_site_find(&settings, span_from_text(cases[i].domain), &answer);
        print_message("# case: %s\n", cases[i].name);
        assert_string_equal(cases[i].site, limits.name);
        assert_int_equal(cases[i].connections, limits.connection_max);
        assert_int_equal(cases[i].messages, limits.messages_per_connection_max);
        assert_int_equal(cases[i].recipients, limits.recipient_max);
        assert_int_equal(cases[i].rate, limits.rates.rates[0].count);
        assert_int_equal(limits.provider != NULL, strncmp(cases[i].site, "provider", 8) == 0);
    }
}

static void no_rule_says_nothing(void **state)
{
    struct settings settings = {0};
    struct mx_answer answer = hosts_of("mx.x.example", NULL), none = {0};
    struct settings_site_limits limits =
        settings_site_find(&settings, SPAN_LITERAL("x.example"), &answer);

    (void)state;
    assert_int_equal(0, limits.connection_max);
    assert_int_equal(0, limits.rates.count);
    assert_string_equal("", limits.name);
    settings = (struct settings){.sites = rules, .site_count = 1}; /* a provider alone */
    assert_null(settings_site_find(&settings, SPAN_LITERAL("x.example"), &none).provider);
    assert_int_equal(SETTINGS_DELIVERY_UNSAID, limits.delivery);
    assert_int_equal(SETTINGS_BDAT_AHEAD_UNSAID, limits.bdat_ahead);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rule_is_found),
        cmocka_unit_test(no_rule_says_nothing),
    };

    return cmocka_run_group_tests_name("settings_site", tests, NULL, NULL);
}
