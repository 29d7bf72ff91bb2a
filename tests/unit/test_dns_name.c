/* SPDX-License-Identifier: Apache-2.0 */
/* Names as people write them, and resolv.conf. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "dns/dns.h"

#define L63 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define L61 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define L62 L61 "a"

static const struct name_row {
    const char *label, *text, *name; /* NULL: ERR_PEER_SYNTAX */
} name_rows[] = {
    {"plain", "example.org", "example.org"},
    {"capitals", "ExAmPlE.ORG", "example.org"},
    {"final dot", "example.org.", "example.org"},
    {"one label", "localhost", "localhost"},
    {"digits", "1and1.example", "1and1.example"},
    {"hyphen inside", "a-b.example", "a-b.example"},
    {"two hyphens elsewhere", "a--b.example", "a--b.example"},
    {"U-label",
     "b\xc3\xbc"
     "cher.example",
     "xn--bcher-kva.example"},
    {"U-label, capital",
     "B\xc3\x9c"
     "CHER.example",
     "xn--bcher-kva.example"},
    {"A-label", "xn--bcher-kva.example", "xn--bcher-kva.example"},
    {"A-label, capitals", "XN--BCHER-KVA.example", "xn--bcher-kva.example"},
    {"sharp s stays (non-transitional)",
     "stra\xc3\x9f"
     "e.example",
     "xn--strae-oqa.example"},
    {"ideographic full stop",
     "a\xe3\x80\x82"
     "example",
     "a.example"},
    {"label 63", L63 ".example", L63 ".example"},
    {"name 253", L63 "." L63 "." L63 "." L61, L63 "." L63 "." L63 "." L61},
    {"name 253 and final dot", L63 "." L63 "." L63 "." L61 ".", L63 "." L63 "." L63 "." L61},
    {"name 254", L63 "." L63 "." L63 "." L62, NULL},
    {"label 64", L63 "a.example", NULL},
    {"empty", "", NULL},
    {"dot", ".", NULL},
    {"two final dots", "example..", NULL},
    {"leading dot", ".example", NULL},
    {"empty label", "a..example", NULL},
    {"leading hyphen", "-a.example", NULL},
    {"trailing hyphen", "a-.example", NULL},
    {"underscore", "_a.example", NULL},
    {"space", "a b.example", NULL},
    {"tab in a U-label", "b\xc3\xbc\t.example", NULL},
    {"line end", "a\r\n.example", NULL},
    {"quote", "a\".example", NULL},
    {"slash", "a/b.example", NULL},
    {"at sign", "a@b.example", NULL},
    {"not UTF-8",
     "b\xfc"
     "cher.example",
     NULL},
    {"UTF-8 cut short", "b\xc3", NULL},
    {"surrogate", "\xed\xa0\x80.example", NULL},
    {"A-label of nonsense", "xn--\x7f.example", NULL},
    {"A-label that is no punycode", "xn--a-\xc3\xbc.example", NULL},
    {"A-label that should be ASCII", "xn--abc-.example", NULL},
    {"reserved hyphens in a U-label", "ab--\xc3\xbc.example", NULL},
};

static void test_normalize(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(name_rows); i++) {
        const struct name_row *row = &name_rows[i];
        char name[MX_NAME_MAX] = "untouched";
        uint32_t size = 77;
        enum err err = dns_name_normalize(span_from_text(row->text), name, &size);
        const char *expected = row->name != NULL ? row->name : "untouched";
        if (err != (row->name != NULL ? ERR_OK : ERR_PEER_SYNTAX) || strcmp(name, expected) != 0)
            fail_msg("%s: %s \"%s\"", row->label, err_name(err), name);
        assert_int_equal(row->name != NULL ? strlen(row->name) : 77, size);
        if (err == ERR_OK) { /* what came out goes in again unchanged */
            char again[MX_NAME_MAX];
            assert_int_equal(ERR_OK, dns_name_normalize(span_of(name, size), again, &size));
            assert_string_equal(name, again);
        }
    }
}

static void test_normalize_nul_and_length(void **state)
{
    static char large[2000];
    char name[MX_NAME_MAX];
    uint32_t size;
    (void)state;

    assert_int_equal(ERR_PEER_SYNTAX, dns_name_normalize(span_of("a\0b.example", 11), name, &size));
    memset(large, 'a', sizeof(large));
    assert_int_equal(ERR_PEER_SYNTAX,
                     dns_name_normalize(span_of(large, sizeof(large)), name, &size));
    memset(large, 0xc3, sizeof(large));
    for (uint32_t length = 0; length < sizeof(large); length++)
        assert_int_equal(ERR_PEER_SYNTAX, dns_name_normalize(span_of(large, length), name, &size));
}

static const struct conf_row {
    const char *label, *text;
    uint32_t max;
    const char *addresses;
} conf_rows[] = {
    {"empty", "", 4, ""},
    {"one", "nameserver 192.0.2.1\n", 4, "192.0.2.1:53 "},
    {"no line end", "nameserver 192.0.2.1", 4, "192.0.2.1:53 "},
    {"CR LF", "nameserver 192.0.2.1\r\nnameserver ::1\r\n", 4, "192.0.2.1:53 [::1]:53 "},
    {"tabs and blanks", "\t nameserver \t 192.0.2.1 \t\n", 4, "192.0.2.1:53 "},
    {"others between",
     "# x\nsearch example\nnameserver 192.0.2.1\noptions rotate\n;nameserver 1.1.1.1\n"
     "nameserver 2001:db8::1 # trailing\n",
     4, "192.0.2.1:53 [2001:db8::1]:53 "},
    {"the first ones", "nameserver 192.0.2.1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n", 2,
     "192.0.2.1:53 192.0.2.2:53 "},
    {"none wanted", "nameserver 192.0.2.1\n", 0, ""},
    {"duplicates", "nameserver 192.0.2.1\nnameserver 192.0.2.1\n", 4, "192.0.2.1:53 "},
    {"scoped", "nameserver fe80::1%eth0\nnameserver 192.0.2.1\n", 4, "192.0.2.1:53 "},
    {"no address", "nameserver\nnameserver x\nnameserver 1.2.3\nnameserver 1.2.3.4.5\n", 4, ""},
    {"no blank", "nameserver192.0.2.1\n", 4, ""},
    {"only line ends", "\n\n\n", 4, ""},
};

static void test_resolv_conf(void **state)
{
    char text[FLOW_ADDRESS_TEXT_MAX];
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(conf_rows); i++) {
        struct flow_address addresses[4] = {0};
        char all[512] = "";
        size_t used = 0;
        uint32_t count =
            dns_resolv_conf_parse(span_from_text(conf_rows[i].text), addresses, conf_rows[i].max);
        assert_true(count <= conf_rows[i].max);
        for (uint32_t j = 0; j < count; j++) {
            used += (size_t)snprintf(all + used, sizeof(all) - used, "%s ",
                                     flow_address_format(&addresses[j], text));
        }
        if (strcmp(all, conf_rows[i].addresses) != 0)
            fail_msg("%s: \"%s\"", conf_rows[i].label, all);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_normalize),
        cmocka_unit_test(test_normalize_nul_and_length),
        cmocka_unit_test(test_resolv_conf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
