/* SPDX-License-Identifier: Apache-2.0 */
/* Paths: what the grammar takes and refuses, both sides of each length, and who may relay where. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/policy.h"

#define REVERSE (SMTP_PATH_NULL_OK | SMTP_PATH_UTF8_OK)
#define FORWARD (SMTP_PATH_POSTMASTER_OK | SMTP_PATH_UTF8_OK)

#define X8  "xxxxxxxx"
#define X63 X8 X8 X8 X8 X8 X8 X8 "xxxxxxx"
#define X64 X8 X8 X8 X8 X8 X8 X8 X8

struct row {
    const char *name, *text;
    uint32_t flags;
    enum err err;
    const char *address, *local_part, *key;
};

/* The parse result, or outputs untouched. */
static void check_row(const struct row *row)
{
    struct smtp_address address = {.domain_key_size = 12345};
    uint32_t size = 54321;

    enum err err = smtp_path_parse(span_from_text(row->text), row->flags, &address, &size);
    if (err != row->err)
        print_message("# %s: %s\n", row->name, err_name(err));
    assert_int_equal(row->err, err);
    if (err != ERR_OK) {
        assert_int_equal(12345, address.domain_key_size);
        assert_int_equal(54321, size);
        return;
    }
    assert_true(span_is_equal(span_from_text(row->address), address.text));
    assert_true(span_is_equal(span_from_text(row->local_part), address.local_part));
    assert_string_equal(row->key, address.domain_key);
    assert_int_equal(strlen(row->key), address.domain_key_size);
    assert_int_equal('>', row->text[size - 1]);
}

static void test_paths(void **state)
{
    static const struct row rows[] = {
        {"plain", "<a@b.example>", FORWARD, ERR_OK, "a@b.example", "a", "b.example"},
        {"what follows is not read", "<a@b> SIZE=1", FORWARD, ERR_OK, "a@b", "a", "b"},
        {"case of the domain", "<Aa@B.EXAMPLE>", FORWARD, ERR_OK, "Aa@B.EXAMPLE", "Aa",
         "b.example"},
        {"dots", "<a.b.c@d>", FORWARD, ERR_OK, "a.b.c@d", "a.b.c", "d"},
        {"every special of an atom", "<!#$%&'*+-/=?^_`{|}~@d>", FORWARD, ERR_OK,
         "!#$%&'*+-/=?^_`{|}~@d", "!#$%&'*+-/=?^_`{|}~", "d"},
        {"quoted", "<\"a b\"@c>", FORWARD, ERR_OK, "\"a b\"@c", "\"a b\"", "c"},
        {"quoted at sign", "<\"a@b\"@c>", FORWARD, ERR_OK, "\"a@b\"@c", "\"a@b\"", "c"},
        {"quoted pairs", "<\"a\\\"\\\\b>\"@c>", FORWARD, ERR_OK, "\"a\\\"\\\\b>\"@c",
         "\"a\\\"\\\\b>\"", "c"},
        {"empty quoted string", "<\"\"@c>", FORWARD, ERR_OK, "\"\"@c", "\"\"", "c"},
        {"source route is stripped", "<@x.example,@y:a@b>", FORWARD, ERR_OK, "a@b", "a", "b"},
        {"null", "<>", REVERSE, ERR_OK, "", "", ""},
        {"postmaster", "<PostMaster>", FORWARD, ERR_OK, "PostMaster", "PostMaster", ""},
        {"shell text is only text", "<${run{/bin/sh}}@localhost>", FORWARD, ERR_OK,
         "${run{/bin/sh}}@localhost", "${run{/bin/sh}}", "localhost"},
        {"old routings are only text", "<x!y%z@b>", FORWARD, ERR_OK, "x!y%z@b", "x!y%z", "b"},
        {"encoded word is only text", "<=?utf-8?q?=40?=@z>", FORWARD, ERR_OK, "=?utf-8?q?=40?=@z",
         "=?utf-8?q?=40?=", "z"},
        {"digits in the domain", "<a@127.1>", FORWARD, ERR_OK, "a@127.1", "a", "127.1"},
        {"UTF-8 local part", "<\xc3\xa9@b>", FORWARD, ERR_OK, "\xc3\xa9@b", "\xc3\xa9", "b"},
        {"UTF-8 domain",
         "<a@b\xc3\xbc"
         "cher.example>",
         FORWARD, ERR_OK,
         "a@b\xc3\xbc"
         "cher.example",
         "a", "xn--bcher-kva.example"},
        {"A-label", "<a@XN--bcher-kva.example>", FORWARD, ERR_OK, "a@XN--bcher-kva.example", "a",
         "xn--bcher-kva.example"},
        {"empty", "", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"only a bracket", "<", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"null forward path", "<>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"postmaster as a sender", "<postmaster>", REVERSE, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"another local part alone", "<root>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"route and postmaster", "<@x:postmaster>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"space", "< >", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"at alone", "<@>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"empty domain", "<a@>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"empty local part", "<@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"no closing bracket", "<a@b", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"no opening bracket", "a@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"doubled brackets", "<<a@b>>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"dot first in the domain", "<a@.b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"dot last in the domain", "<a@b.>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"two dots in the domain", "<a@b..c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"two dots in the local part", "<a..b@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"dot first", "<.a@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"dot last", "<a.@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"comment", "<a(c)@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"pair outside quotes", "<a\\@b@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"two ats", "<a@b@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"CR LF in quotes", "<\"a\r\nb\"@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"control in a pair", "<\"a\\\x01\"@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"quotes not closed", "<\"a@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"text behind quotes", "<\"a\"b@c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"shell without a domain", "<;for i in 0 1 2;do read r;done;sh;exit 0;>", REVERSE,
         ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"hyphen first", "<a@-b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"hyphen last", "<a@b->", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"underscore in the domain", "<a@b_c>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"port", "<a@b:25>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"route without colon", "<@x a@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"route with a literal", "<@[192.0.2.1]:a@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"literal", "<a@[127.0.0.1]>", FORWARD, ERR_REFUSED, NULL, NULL, NULL},
        {"IPv6 literal", "<a@[IPv6:::1]>", FORWARD, ERR_REFUSED, NULL, NULL, NULL},
        {"mapped literal", "<a@[IPv6:::ffff:10.0.0.1]>", FORWARD, ERR_REFUSED, NULL, NULL, NULL},
        {"tagged literal", "<a@[tag:x]>", FORWARD, ERR_REFUSED, NULL, NULL, NULL},
        {"UTF-8 without leave", "<\xc3\xa9@b>", SMTP_PATH_POSTMASTER_OK, ERR_PEER_SYNTAX, NULL,
         NULL, NULL},
        {"overlong UTF-8", "<\xc0\xaf@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"overlong UTF-8 of three", "<\xe0\x80\xaf@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"surrogate", "<\xed\xa0\x80@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"beyond Unicode", "<\xf4\x90\x80\x80@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"cut UTF-8", "<\xc3", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
        {"Latin-1", "<\xe9@b>", FORWARD, ERR_PEER_SYNTAX, NULL, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_row(&rows[i]);
}

/* Goal: both sides of each length. */
static void test_lengths(void **state)
{
    /* 64 + 1 + 189 + brackets = 256 */
#define DOMAIN_189 X63 "." X63 "." X8 X8 X8 X8 X8 X8 X8 "xxxxx"
    static const struct row rows[] = {
        {"local part of 64", "<" X64 "@b>", FORWARD, ERR_OK, X64 "@b", X64, "b"},
        {"local part of 65", "<" X64 "x@b>", FORWARD, ERR_LIMIT, NULL, NULL, NULL},
        {"label of 63", "<a@" X63 ".c>", FORWARD, ERR_OK, "a@" X63 ".c", "a", X63 ".c"},
        {"label of 64", "<a@" X64 ".c>", FORWARD, ERR_LIMIT, NULL, NULL, NULL},
        {"path of 256", "<" X64 "@" DOMAIN_189 ">", FORWARD, ERR_OK, X64 "@" DOMAIN_189, X64,
         DOMAIN_189},
        {"path of 257", "<" X64 "@" DOMAIN_189 "x>", FORWARD, ERR_LIMIT, NULL, NULL, NULL},
        {"route counts", "<@y:" X64 "@" DOMAIN_189 ">", FORWARD, ERR_LIMIT, NULL, NULL, NULL},
        {"domain of 252", "<a@" X63 "." X63 "." X63 "." X8 X8 X8 X8 X8 X8 X8 "xxxx>", FORWARD,
         ERR_OK, "a@" X63 "." X63 "." X63 "." X8 X8 X8 X8 X8 X8 X8 "xxxx", "a",
         X63 "." X63 "." X63 "." X8 X8 X8 X8 X8 X8 X8 "xxxx"},
        {"domain of 256", "<a@" X63 "." X63 "." X63 "." X63 ".x>", FORWARD, ERR_LIMIT, NULL, NULL,
         NULL},
    };

    (void)state;
    assert_int_equal(189, strlen(DOMAIN_189));
    for (size_t i = 0; i < COUNT_OF(rows); i++)
        check_row(&rows[i]);
}

/* Goal: every prefix of a path is refused and read no further than its end. */
static void test_truncation(void **state)
{
    static const char text[] = "<@x,@y:\"a\\\"b\"@b\xc3\xbc"
                               "cher.example>";
    struct smtp_address address;
    uint32_t used;

    (void)state;
    for (uint32_t size = 0; size < strlen(text); size++) {
        uint8_t *copy = malloc(size + (size == 0)); /* its end is the sanitizer's */
        assert_non_null(copy);
        memcpy(copy, text, size);
        assert_int_equal(ERR_PEER_SYNTAX,
                         smtp_path_parse(span_of(copy, size), FORWARD, &address, &used));
        free(copy);
    }
}

/* Goal: an octet that no grammar has is in no address, wherever it stands ('$'). */
static void test_no_control_octets(void **state)
{
    static const char *const places[] = {"<a$b@c>",    "<\"a$b\"@c>",  "<a@b$c>",
                                         "<@x$c:a@b>", "<\"\\$c\"@c>", "$<a@b>"};
    struct smtp_address address;
    uint32_t used;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        uint8_t text[32];
        uint32_t size = (uint32_t)strlen(places[i]);
        for (uint8_t octet = 0; octet < 33; octet++) {
            memcpy(text, places[i], size);
            *(uint8_t *)memchr(text, '$', size) = octet == 32 ? 127 : octet;
            assert_int_equal(ERR_PEER_SYNTAX,
                             smtp_path_parse(span_of(text, size), FORWARD, &address, &used));
        }
    }
}

/* ---- policy ---- */

static struct settings_route routes[] = {
    {.pattern = "served.example", .is_served = true},
    {.pattern = "*.served.example", .is_served = false},
    {.pattern = "deep.sub.example", .is_served = false},
    {.pattern = "*.sub.example", .is_served = true},
    {.pattern = "*.x.sub.example", .is_served = false},
    {.pattern = "refused.example", .kind = SETTINGS_ROUTE_REFUSE, .is_served = true},
    {.pattern = "*"},
};

/* Goal: exact, then the longest suffix, then the default; with and without the table. */
static void test_routes(void **state)
{
    static const struct {
        const char *domain;
        uint32_t route;
    } rows[] = {
        {"served.example", 0},
        {"a.served.example", 1},
        {"b.a.served.example", 1},
        {"xserved.example", 6},
        {"sub.example", 6},
        {"a.sub.example", 3},
        {"deep.sub.example", 2},
        {"a.deep.sub.example", 3},
        {"x.sub.example", 3},
        {"a.x.sub.example", 4},
        {"example", 6},
        {"elsewhere.example", 6},
        {"served.example.com", 6},
    };
    struct settings settings = {.routes = routes, .route_count = COUNT_OF(routes)};

    (void)state;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
            const struct settings_route *route =
                settings_route_find(&settings, span_from_text(rows[i].domain));
            assert_string_equal(routes[rows[i].route].pattern, route->pattern);
        }
        if (pass == 0)
            settings.route_table = settings_route_table_new(&settings, &settings.route_table_size);
    }
    free((void *)(uintptr_t)settings.route_table);
}

enum answer { ACCEPTED, DENIED, SYNTAX };

static enum answer ask(const struct settings *settings, bool is_relay_client, struct span path,
                       struct policy_recipient *recipient)
{
    struct smtp_address address;
    uint32_t size;

    if (smtp_path_parse(path, FORWARD, &address, &size) != ERR_OK || size != path.size)
        return SYNTAX;
    return policy_recipient_check(settings, is_relay_client, &address, recipient) == POLICY_OK
               ? ACCEPTED
               : DENIED;
}

/* Goal: the open-relay forms are refused for strangers, whatever the sender (who plays no part in
 * the decision), be S a served domain or our host name. Only D's real owner may be asked for. */
static void test_open_relay_forms(void **state)
{
#define D "elsewhere.example"
#define I "192.0.2.1"
    static const struct {
        const char *path; /* $: our name */
        enum answer answer;
    } rows[] = {
        {"<u@" D ">", DENIED},
        {"<u%" D "@[" I "]>", SYNTAX},
        {"<u%" D "@$>", DENIED},
        {"<\"u@" D "\">", SYNTAX},
        {"<\"u%" D "\">", SYNTAX},
        {"<u@" D "@[" I "]>", SYNTAX},
        {"<\"u@" D "\"@[" I "]>", SYNTAX},
        {"<u@" D "@$>", SYNTAX},
        {"<@[" I "]:u@" D ">", SYNTAX},
        {"<@$:u@" D ">", DENIED},
        {"<" D "!u>", SYNTAX},
        {"<" D "!u@[" I "]>", SYNTAX},
        {"<" D "!u@$>", DENIED},
        {"<\"u%" D "\"@$>", DENIED},
        {"<@$,@x:u@" D ">", DENIED},
        {"<u%" D "%$@" D ">", DENIED},
        {"<u%" D "%$>", SYNTAX},
        {"<u@" D "%$>", SYNTAX},
        {"<$!" D "!u>", SYNTAX},
        {"<u@[198.51.100.7]>", SYNTAX},
        {"<u@" D ".>", SYNTAX},
        {"<\"" D "!u\"@$>", DENIED},
        {"<u@$." D ">", DENIED},
        {"<u@" D "$>", DENIED},
        {"<u@$:25>", SYNTAX},
        {"<u@x$>", DENIED},
        {"<\"u@" D "\"@$>", DENIED},
    };
    static const char *const names[] = {"served.example", "relay.example"};
    struct settings settings = {.routes = routes, .route_count = COUNT_OF(routes)};
    struct policy_recipient recipient;
    char path[300];

    (void)state;
    for (size_t n = 0; n < COUNT_OF(names); n++) {
        for (size_t i = 0; i < COUNT_OF(rows); i++) {
            uint32_t size = 0;
            for (const char *at = rows[i].path; *at != '\0'; at++) {
                if (*at == '$')
                    size += (uint32_t)snprintf(path + size, sizeof(path) - size, "%s", names[n]);
                else
                    path[size++] = *at;
            }
            enum answer answer = ask(&settings, false, span_of(path, size), &recipient);
            if (answer != rows[i].answer)
                print_message("# %.*s\n", (int)size, path);
            assert_int_equal(rows[i].answer, answer);
        }
        /* NUL inside a domain */
        assert_int_equal(SYNTAX,
                         ask(&settings, false, span_of("<u@d\0.served.example>", 21), &recipient));
    }
}

/* Goal: who may send where, and what postmaster becomes. */
static void test_recipients(void **state)
{
    static const struct {
        const char *name, *path, *postmaster;
        bool is_relay_client;
        enum answer answer;
        const char *address, *domain;
    } rows[] = {
        {"served", "<b@served.example>", NULL, false, ACCEPTED, "b@served.example",
         "served.example"},
        {"served, other case", "<b@SERVED.example>", NULL, false, ACCEPTED, "b@SERVED.example",
         "served.example"},
        {"elsewhere", "<b@elsewhere.example>", NULL, false, DENIED, NULL, NULL},
        {"elsewhere, our client", "<b@elsewhere.example>", NULL, true, ACCEPTED,
         "b@elsewhere.example", "elsewhere.example"},
        {"percent, our client", "<b%c@elsewhere.example>", NULL, true, ACCEPTED,
         "b%c@elsewhere.example", "elsewhere.example"},
        {"refused route", "<b@refused.example>", NULL, false, DENIED, NULL, NULL},
        {"refused route, our client", "<b@refused.example>", NULL, true, DENIED, NULL, NULL},
        {"postmaster, none configured", "<postmaster>", NULL, false, DENIED, NULL, NULL},
        {"postmaster", "<Postmaster>", "ops@elsewhere.example", false, ACCEPTED,
         "ops@elsewhere.example", "elsewhere.example"},
        {"postmaster at served", "<PostMaster@served.example>", "ops@elsewhere.example", false,
         ACCEPTED, "ops@elsewhere.example", "elsewhere.example"},
        {"postmaster at served, none configured", "<postmaster@served.example>", NULL, false,
         DENIED, NULL, NULL},
        {"postmaster elsewhere", "<postmaster@elsewhere.example>", "ops@served.example", false,
         DENIED, NULL, NULL},
        {"postmaster elsewhere, our client", "<postmaster@elsewhere.example>", "ops@served.example",
         true, ACCEPTED, "postmaster@elsewhere.example", "elsewhere.example"},
        {"bad postmaster in the settings", "<postmaster>", "ops@", false, DENIED, NULL, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings settings = {
            .routes = routes, .route_count = COUNT_OF(routes), .postmaster = rows[i].postmaster};
        struct policy_recipient recipient;
        struct smtp_address address;
        uint32_t size;

        print_message("# case: %s\n", rows[i].name);
        assert_int_equal(rows[i].answer, ask(&settings, rows[i].is_relay_client,
                                             span_from_text(rows[i].path), &recipient));
        if (rows[i].answer != ACCEPTED)
            continue;
        assert_int_equal(ERR_OK, smtp_path_parse(span_from_text(rows[i].path), FORWARD, &address,
                                                 &size)); /* what recipient borrows from */
        assert_int_equal(POLICY_OK, policy_recipient_check(&settings, rows[i].is_relay_client,
                                                           &address, &recipient));
        assert_true(span_is_equal(span_from_text(rows[i].address), recipient.address));
        assert_true(span_is_equal(span_from_text(rows[i].domain), recipient.domain));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_paths),      cmocka_unit_test(test_lengths),
        cmocka_unit_test(test_truncation), cmocka_unit_test(test_no_control_octets),
        cmocka_unit_test(test_routes),     cmocka_unit_test(test_open_relay_forms),
        cmocka_unit_test(test_recipients),
    };
    return cmocka_run_group_tests_name("smtp address", tests, NULL, NULL);
}
