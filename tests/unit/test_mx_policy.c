/* SPDX-License-Identifier: Apache-2.0 */
/* Which addresses mail may go to: both sides of every range that is refused by default. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "dns/dns.h"

struct deny_row {
    const char *address;
    enum err err;
};

static void test_policy_by_default(void **state)
{
    static const struct deny_row deny_rows[] = {
        {"0.0.0.0", ERR_REFUSED},
        {"0.255.255.255", ERR_REFUSED},
        {"1.0.0.0", ERR_OK},
        {"126.255.255.255", ERR_OK},
        {"127.0.0.0", ERR_REFUSED},
        {"127.255.255.255", ERR_REFUSED},
        {"128.0.0.0", ERR_OK},
        {"169.253.255.255", ERR_OK},
        {"169.254.0.0", ERR_REFUSED},
        {"169.254.169.254", ERR_REFUSED},
        {"169.255.0.0", ERR_OK},
        {"223.255.255.255", ERR_OK},
        {"224.0.0.1", ERR_REFUSED},
        {"240.0.0.1", ERR_REFUSED},
        {"255.255.255.255", ERR_REFUSED},
        {"10.0.0.1", ERR_OK},
        {"::", ERR_REFUSED},
        {"::1", ERR_REFUSED},
        {"::7f00:1", ERR_REFUSED},
        {"::ffff:127.0.0.1", ERR_REFUSED},
        {"::ffff:192.0.2.1", ERR_REFUSED},
        {"fe7f::1", ERR_OK},
        {"fe80::1", ERR_REFUSED},
        {"febf::1", ERR_REFUSED},
        {"fec0::1", ERR_OK},
        {"ff02::1", ERR_REFUSED},
        {"feff::1", ERR_OK},
        {"64:ff9b::7f00:1", ERR_REFUSED},
        {"64:ff9b::c000:201", ERR_OK},
        {"2001:db8::1", ERR_OK},
    };
    struct mx_policy policy = {.port = 25, .ipv4 = true, .ipv6 = true};
    struct flow_address address;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(deny_rows); i++) {
        assert_int_equal(ERR_OK,
                         flow_address_parse_ip(span_from_text(deny_rows[i].address), &address));
        if (mx_policy_check(&policy, &address) != deny_rows[i].err)
            fail_msg("%s", deny_rows[i].address);
    }
}

static void test_policy_allow_deny_own(void **state)
{
    struct flow_prefix allow, deny;
    struct flow_address own, address;
    (void)state;

    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("127.0.0.0/8"), &allow));
    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("10.0.0.0/8"), &deny));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("127.0.0.1"), &own));
    own.port = 2525;
    struct mx_policy policy = {.allow = &allow,
                               .allow_count = 1,
                               .deny = &deny,
                               .deny_count = 1,
                               .own = &own,
                               .own_count = 1,
                               .port = 2526,
                               .ipv4 = true};

    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("10.1.1.1"), &address));
    assert_int_equal(ERR_REFUSED, mx_policy_check(&policy, &address));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("127.0.0.1"), &address));
    address.port = 2526;
    assert_int_equal(ERR_OK, mx_policy_check(&policy, &address)); /* allow wins over the list */
    address.port = 2525;
    assert_int_equal(ERR_LIMIT, mx_policy_check(&policy, &address)); /* but not over ourselves */
    own.port = 0;
    address.port = 2526;
    assert_int_equal(ERR_LIMIT, mx_policy_check(&policy, &address));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("::ffff:127.0.0.1"), &address));
    assert_int_equal(ERR_LIMIT, mx_policy_check(&policy, &address));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policy_by_default),
        cmocka_unit_test(test_policy_allow_deny_own),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
