/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: of the DSN parameters' values exactly those of RFC 3461 are taken that decode to printable
 * ASCII, up to their sizes; what is taken can be said again.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "queue/envelope.h"
#include "relay/smtp_dsn.h"

#define N ENVELOPE_NOTIFY_NEVER
#define S ENVELOPE_NOTIFY_SUCCESS
#define F ENVELOPE_NOTIFY_FAILURE
#define D ENVELOPE_NOTIFY_DELAY

static void test_notify(void **state)
{
    static const struct {
        const char *value;
        uint8_t notify; /* 0: refused */
    } rows[] = {
        {"NEVER", N},
        {"never", N},
        {"SUCCESS", S},
        {"FAILURE", F},
        {"DELAY", D},
        {"DELAY,SUCCESS", S | D},
        {"success,Failure", S | F},
        {"FAILURE,DELAY", F | D},
        {"SUCCESS,FAILURE,DELAY", S | F | D},
        {"", 0},
        {",", 0},
        {"NEVER,", 0},
        {",NEVER", 0},
        {"NEVER,SUCCESS", 0},
        {"DELAY,NEVER", 0},
        {"DELAY,DELAY", 0},
        {"NEVER,NEVER", 0},
        {"SUCCESS, DELAY", 0},
        {"SUCCESS,,DELAY", 0},
        {"SUCCES", 0},
        {"SUCCESSS", 0},
        {"FAILURE,DELAY,", 0},
        {"S", 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        uint8_t notify = 0, again = 0;
        enum err err = smtp_notify_parse(span_from_text(rows[i].value), &notify);
        if (err != (rows[i].notify != 0 ? ERR_OK : ERR_PEER_SYNTAX) || notify != rows[i].notify)
            fail_msg("%s", rows[i].value);
        if (err != ERR_OK)
            continue;
        assert_int_equal(ERR_OK, smtp_notify_parse(smtp_notify_text(notify), &again));
        assert_int_equal(notify, again);
    }
    assert_int_equal(0, smtp_notify_text(0).size);
}

static void test_xtext(void **state)
{
    static const struct {
        const char *value, *decoded; /* NULL: refused */
    } rows[] = {
        {"a", "a"},         {"QQ314159", "QQ314159"},
        {"+2B", "+"},       {"a+3Db", "a=b"},
        {"+20", " "},       {"+7E", "~"},
        {"!~", "!~"},       {"+41+42", "AB"},
        {"", NULL},         {"+", NULL},
        {"+4", NULL},       {"+2", NULL},
        {"a=b", NULL},      {"+2b", NULL}, /* lower case is no hexchar */
        {"+1F", NULL},      {"+7F", NULL},
        {"+00", NULL},      {"+0D+0A", NULL},
        {"+80", NULL},      {"+FF", NULL},
        {"+G0", NULL},      {"+ 0", NULL},
        {"a b", NULL},      {"a\x7f", NULL},
        {"\xc3\xa9", NULL}, {"+:0", NULL},
    };
    uint8_t octets[64];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct span value = span_from_text(rows[i].value);
        if (smtp_envid_is_valid(value) != (rows[i].decoded != NULL))
            fail_msg("%s", rows[i].value);
        if (rows[i].decoded == NULL)
            continue;
        uint32_t size = smtp_xtext_decode(value, octets);
        assert_true(span_is_equal(span_from_text(rows[i].decoded), span_of(octets, size)));
    }
}

static void test_orcpt(void **state)
{
    static const struct {
        const char *value;
        bool is_valid;
    } rows[] = {
        {"rfc822;b@y.example", true},
        {"x;y", true},
        {"RFC822;b+2Bc@y", true},
        {"utf-8;\\x{E9}@y", true},
        {"rfc822;a;b", true},
        {"", false},
        {";", false},
        {"x;", false},
        {";x", false},
        {"rfc822", false},
        {"x y;z", false},
        {"x+41;z", false},
        {"x=;z", false},
        {"x;z=", false},
        {"x@y;z", false},
        {"x.y;z", false},
        {"\xc3\xa9;z", false},
        {"x;+0A", false},
        {"x\x7f;z", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        if (smtp_orcpt_is_valid(span_from_text(rows[i].value)) != rows[i].is_valid)
            fail_msg("%s", rows[i].value);
    }
}

static void test_sizes(void **state)
{
    uint8_t text[ENVELOPE_ORCPT_SIZE_MAX + 1];

    (void)state;
    memset(text, 'a', sizeof(text));
    assert_true(smtp_envid_is_valid(span_of(text, ENVELOPE_ENVID_SIZE_MAX)));
    assert_false(smtp_envid_is_valid(span_of(text, ENVELOPE_ENVID_SIZE_MAX + 1)));
    text[1] = ';';
    assert_true(smtp_orcpt_is_valid(span_of(text, ENVELOPE_ORCPT_SIZE_MAX)));
    assert_false(smtp_orcpt_is_valid(span_of(text, ENVELOPE_ORCPT_SIZE_MAX + 1)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_notify),
        cmocka_unit_test(test_xtext),
        cmocka_unit_test(test_orcpt),
        cmocka_unit_test(test_sizes),
    };
    return cmocka_run_group_tests_name("smtp_dsn", tests, NULL, NULL);
}
