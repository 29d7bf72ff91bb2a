/* SPDX-License-Identifier: Apache-2.0 */
/* Which rule of `delivery_rules` decides: the first of which all is so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "relay/settings.h"

#define AUTO  SETTINGS_DELIVERY_AUTO
#define WAIT  SETTINGS_DELIVERY_CUT_THROUGH
#define SPOOL SETTINGS_DELIVERY_SPOOL

static const char *const shops[] = {"shop.example", "*.shop.example"}, *const all[] = {"*"};
static const struct flow_prefix inside = {{FLOW_FAMILY_IP4, 0, 0, {10, 1}}, 16};
static const struct settings_delivery_rule rules[] = {
    {.senders = shops, .sender_count = 2, .user = "*@bulk.example", .delivery = AUTO},
    {.senders = shops, .sender_count = 2, .delivery = SPOOL},
    {.clients = &inside, .client_count = 1, .delivery = WAIT},
    {.user = "alice", .delivery = SPOOL},
};
static const struct settings_delivery_rule last = {
    .senders = all, .sender_count = 1, .delivery = SPOOL};

static void test_first_that_fits(void **state)
{
    static const struct {
        const char *name, *domain, *user;
        uint8_t ip[4];
        enum settings_delivery expected;
    } rows[] = {
        {"by the domain", "shop.example", "", {192, 0, 2, 1}, SPOOL},
        {"in capitals", "SHOP.example", "", {192, 0, 2, 1}, SPOOL},
        {"below it", "a.b.shop.example", "", {192, 0, 2, 1}, SPOOL},
        {"another that ends so", "workshop.example", "", {192, 0, 2, 1}, SETTINGS_DELIVERY_UNSAID},
        {"by domain and user", "shop.example", "x@bulk.example", {192, 0, 2, 1}, AUTO},
        {"the user alone is not all of it",
         "other.example",
         "x@bulk.example",
         {192, 0, 2, 1},
         SETTINGS_DELIVERY_UNSAID},
        {"by the client", "other.example", "", {10, 1, 255, 255}, WAIT},
        {"beside its network", "other.example", "", {10, 2, 0, 0}, SETTINGS_DELIVERY_UNSAID},
        {"an earlier rule comes first", "shop.example", "alice", {10, 1, 0, 1}, SPOOL},
        {"by the user", "other.example", "Alice", {192, 0, 2, 1}, SPOOL},
        {"no sender", "", "", {192, 0, 2, 1}, SETTINGS_DELIVERY_UNSAID},
        {"no sender, by the client", "", "", {10, 1, 0, 0}, WAIT},
    };
    const struct settings settings = {.delivery_rules = rules,
                                      .delivery_rule_count = COUNT_OF(rules)};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address client = {.family = FLOW_FAMILY_IP4, .port = 40000};
        struct settings_mail mail = {.sender_domain = span_from_text(rows[i].domain),
                                     .user = span_from_text(rows[i].user),
                                     .client = &client};
        print_message("# %s\n", rows[i].name);
        memcpy(client.ip, rows[i].ip, sizeof(rows[i].ip));
        assert_int_equal(rows[i].expected, settings_delivery_find(&settings, &mail));
    }
}

/* Goal: "*" is for all mail that has a sender; without rules nothing is said. */
static void test_ends(void **state)
{
    const struct flow_address client = {.family = FLOW_FAMILY_IP6};
    struct settings_mail mail = {.sender_domain = span_from_text("a.example"), .client = &client};
    struct settings settings = {.delivery_rules = &last, .delivery_rule_count = 1};

    (void)state;
    assert_int_equal(SPOOL, settings_delivery_find(&settings, &mail));
    mail.sender_domain = (struct span){0};
    assert_int_equal(SETTINGS_DELIVERY_UNSAID, settings_delivery_find(&settings, &mail));
    mail.sender_domain = span_from_text("a.example");
    settings.delivery_rule_count = 0;
    assert_int_equal(SETTINGS_DELIVERY_UNSAID, settings_delivery_find(&settings, &mail));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_that_fits),
        cmocka_unit_test(test_ends),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
