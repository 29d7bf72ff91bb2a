/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints and prefixes: text to address and back, and what lies in a prefix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "dataplane/flow.h"

/* Goal: only the strict forms are addresses; the output is left alone otherwise. */
static void test_parse_ip(void **state)
{
    static const struct {
        const char *name, *text;
        bool is_good;
        const char *formatted;
    } rows[] = {
        {"dotted quad", "192.0.2.1", true, "192.0.2.1"},
        {"all zero", "0.0.0.0", true, "0.0.0.0"},
        {"highest", "255.255.255.255", true, "255.255.255.255"},
        {"octet too large", "192.0.2.256", false, NULL},
        {"leading zero", "192.0.2.01", false, NULL},
        {"octal looking", "010.0.0.1", false, NULL},
        {"hexadecimal", "0x7f.0.0.1", false, NULL},
        {"three parts", "192.0.2", false, NULL},
        {"five parts", "192.0.2.1.1", false, NULL},
        {"one number", "3221225985", false, NULL},
        {"with port", "192.0.2.1:25", false, NULL},
        {"space in front", " 192.0.2.1", false, NULL},
        {"space behind", "192.0.2.1 ", false, NULL},
        {"sign", "+1.0.0.1", false, NULL},
        {"IPv6", "2001:DB8::1", true, "2001:db8::1"},
        {"IPv6 any", "::", true, "::"},
        {"IPv6 mapped", "::ffff:192.0.2.1", true, "::ffff:192.0.2.1"},
        {"IPv6 in full", "2001:db8:0:0:0:0:0:1", true, "2001:db8::1"},
        {"two gaps", "2001::db8::1", false, NULL},
        {"brackets", "[2001:db8::1]", false, NULL},
        {"zone", "fe80::1%eth0", false, NULL},
        {"too many groups", "1:2:3:4:5:6:7:8:9", false, NULL},
        {"group too long", "2001:0db80::1", false, NULL},
        {"longest", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255", true,
         "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
        {"longer than any", "ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.2555", false, NULL},
        {"empty", "", false, NULL},
        {"name", "localhost", false, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address address = {.port = 999};
        char text[FLOW_ADDRESS_TEXT_MAX];

        print_message("# case: %s\n", rows[i].name);
        enum err err = flow_address_parse_ip(span_from_text(rows[i].text), &address);
        assert_int_equal(rows[i].is_good ? ERR_OK : ERR_PEER_SYNTAX, err);
        assert_int_equal(rows[i].is_good ? 0 : 999, address.port);
        if (rows[i].is_good)
            assert_string_equal(rows[i].formatted, flow_address_format_ip(&address, text));
    }
    struct flow_address address;
    assert_int_equal(ERR_PEER_SYNTAX,
                     flow_address_parse_ip(span_of("192.0.2.1\0.5", 12), &address));
}

static void test_format(void **state)
{
    struct flow_address address;
    char text[FLOW_ADDRESS_TEXT_MAX];

    (void)state;
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("192.0.2.1"), &address));
    address.port = 25;
    assert_string_equal("192.0.2.1:25", flow_address_format(&address, text));
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("2001:db8::1"), &address));
    address.port = 65535;
    assert_string_equal("[2001:db8::1]:65535", flow_address_format(&address, text));
    assert_string_equal(
        "unix", flow_address_format(&(struct flow_address){.family = FLOW_FAMILY_UNIX}, text));
    assert_string_equal("none", flow_address_format(&(struct flow_address){0}, text));
}

static void test_prefix(void **state)
{
    static const struct {
        const char *prefix;
        bool is_good;
        const char *inside, *outside;
    } rows[] = {
        {"192.0.2.0/24", true, "192.0.2.255", "192.0.3.0"},
        {"192.0.2.0/25", true, "192.0.2.127", "192.0.2.128"},
        {"192.0.2.7", true, "192.0.2.7", "192.0.2.6"},
        {"192.0.2.7/32", true, "192.0.2.7", "192.0.2.8"},
        {"0.0.0.0/0", true, "203.0.113.9", "2001:db8::1"},
        {"::/0", true, "2001:db8::1", "203.0.113.9"},
        {"2001:db8::/32", true, "2001:db8:ffff::1", "2001:db9::"},
        {"2001:db8::8/125", true, "2001:db8::f", "2001:db8::10"},
        {"2001:db8::1", true, "2001:db8::1", "2001:db8::2"},
        /* The mapped form is the same address, on both sides. */
        {"10.0.0.0/8", true, "::ffff:10.1.2.3", "::ffff:11.0.0.1"},
        {"::ffff:10.0.0.0/104", true, "10.1.2.3", "11.0.0.1"},
        {"::/0", true, "::1", "::ffff:10.1.2.3"},
        {"192.0.2.1/24", false, NULL, NULL}, /* host bits */
        {"192.0.2.0/33", false, NULL, NULL},
        {"2001:db8::/129", false, NULL, NULL},
        {"2001:db8::/31", true, "2001:db9::1", "2001:dba::1"},
        {"192.0.2.0/", false, NULL, NULL},
        {"192.0.2.0/-1", false, NULL, NULL},
        {"192.0.2.0/24x", false, NULL, NULL},
        {"192.0.2.0/0000", false, NULL, NULL},
        {"/24", false, NULL, NULL},
        {"", false, NULL, NULL},
        {"example.org/24", false, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_prefix prefix = {.bits = 77};
        struct flow_address address;

        print_message("# case: %s\n", rows[i].prefix);
        enum err err = flow_prefix_parse(span_from_text(rows[i].prefix), &prefix);
        assert_int_equal(rows[i].is_good ? ERR_OK : ERR_CONFIG_VALUE, err);
        if (!rows[i].is_good) {
            assert_int_equal(77, prefix.bits);
            continue;
        }
        assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(rows[i].inside), &address));
        assert_true(flow_prefix_contains(&prefix, &address));
        assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(rows[i].outside), &address));
        assert_false(flow_prefix_contains(&prefix, &address));
    }
    struct flow_prefix all = {0};
    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("0.0.0.0/0"), &all));
    assert_false(flow_prefix_contains(&all, &(struct flow_address){.family = FLOW_FAMILY_UNIX}));
}

static void test_equality(void **state)
{
    struct flow_address a, b;

    (void)state;
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("192.0.2.1"), &a));
    b = a;
    assert_true(flow_address_is_equal(&a, &b));
    b.port = 25;
    assert_false(flow_address_is_equal(&a, &b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_ip),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_equality),
    };
    return cmocka_run_group_tests_name("flow addresses", tests, NULL, NULL);
}
