/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base64: the vectors of RFC 4648 section 10, every octet value, and what is no base64.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/base64.h"

static void test_vectors(void **state)
{
    static const struct {
        const char *octets, *text;
    } cases[] = {
        {"", ""},
        {"f", "Zg=="},
        {"fo", "Zm8="},
        {"foo", "Zm9v"},
        {"foob", "Zm9vYg=="},
        {"fooba", "Zm9vYmE="},
        {"foobar", "Zm9vYmFy"},
        {"\xfb\xff\xfe", "+//+"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct span octets = span_from_text(cases[i].octets), text = span_from_text(cases[i].text);
        char encoded[16];
        uint8_t decoded[16];
        uint32_t size = 99;
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(text.size, BASE64_SIZE(octets.size));
        base64_encode(octets, encoded);
        assert_memory_equal(cases[i].text, encoded, text.size);
        assert_int_equal(ERR_OK, base64_decode(text, decoded, &size));
        assert_int_equal(octets.size, size);
        assert_memory_equal(cases[i].octets, decoded, size);
    }
}

static void test_every_octet(void **state)
{
    uint8_t octets[256], decoded[258];
    char text[BASE64_SIZE(sizeof(octets))];

    (void)state;
    for (uint32_t i = 0; i < sizeof(octets); i++)
        octets[i] = (uint8_t)i;
    for (uint32_t size = 0; size <= sizeof(octets); size++) {
        uint32_t got = 0;
        base64_encode(span_of(octets, size), text);
        assert_int_equal(ERR_OK, base64_decode(span_of(text, BASE64_SIZE(size)), decoded, &got));
        assert_int_equal(size, got);
        assert_memory_equal(octets, decoded, size);
    }
}

static void test_refused(void **state)
{
    static const char *const cases[] = {
        "Z",        "Zg",   "Zg=",  "Zm9vY", "====", "Z===", "=m9v",   "Z=9v",
        "Zg==Zm9v", "Zm9-", "Zm9_", "Zm\n=", "Zh==", "Zm9=", "Zm9\xff"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        uint8_t decoded[16];
        uint32_t size;
        print_message("# case: %u\n", i);
        assert_int_equal(ERR_PEER_SYNTAX, base64_decode(span_from_text(cases[i]), decoded, &size));
    }
    uint8_t decoded[16];
    uint32_t size;
    assert_int_equal(ERR_PEER_SYNTAX, base64_decode(span_of("Zm9\0", 4), decoded, &size));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_every_octet),
        cmocka_unit_test(test_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
