/* SPDX-License-Identifier: Apache-2.0 */
/* Fields of a header, and who its authors are: what cannot be read in one way only is not read. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/dkim_internal.h"

static void header_is_cut_into_fields(void **state)
{
    static const struct {
        const char *name, *header;
        enum err err;
        const char *fields; /* names and sizes */
    } rows[] = {
        {"nothing", "", ERR_OK, ""},
        {"two", "From: a\r\nTo: b\r\n", ERR_OK, "From 9, To 7"},
        {"folded", "From: a\r\n b\r\n\tc\r\nTo: b\r\n", ERR_OK, "From 17, To 7"},
        {"no last line end", "From: a\r\nTo: b", ERR_OK, "From 9, To 5"},
        {"no value", "A:\r\nB:", ERR_OK, "A 4, B 2"},
        {"white space before the colon", "A \t: b\r\n", ERR_OK, "A 8"},
        {"any printable name", "!\"#~: b\r\n", ERR_OK, "!\"#~ 9"},
        {"LF alone is no line end", "A: a\nB: b\r\n", ERR_OK, "A 11"},
        {"folded at first", " A: b\r\n", ERR_PEER_SYNTAX, ""},
        {"no colon", "A: b\r\nhello\r\n", ERR_PEER_SYNTAX, ""},
        {"no name", ": b\r\n", ERR_PEER_SYNTAX, ""},
        {"mailbox separator", "From a@b Mon Nov 23\r\nA: b\r\n", ERR_PEER_SYNTAX, ""},
        {"space in a name", "A b: c\r\n", ERR_PEER_SYNTAX, ""},
        {"octet above 127 in a name", "\xc3\xa4: c\r\n", ERR_PEER_SYNTAX, ""},
        {"control octet in a name", "A\x01: c\r\n", ERR_PEER_SYNTAX, ""},
        {"a CR for a field", "A: b\r\n\r", ERR_PEER_SYNTAX, ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct dkim_header header = {0};
        char text[200] = "";
        uint32_t used = 0;
        enum err err = dkim_header_parse(span_from_text(rows[i].header), &header);
        for (uint32_t j = 0; j < header.count; j++)
            used += (uint32_t)snprintf(text + used, sizeof(text) - used, "%s%.*s %u",
                                       j == 0 ? "" : ", ", SPAN_PRINTF(header.fields[j].name),
                                       header.fields[j].text.size);
        if (err != rows[i].err || strcmp(text, rows[i].fields) != 0)
            print_message("# %s: %s, %s\n", rows[i].name, err_name(err), text);
        assert_int_equal(rows[i].err, err);
        assert_string_equal(rows[i].fields, text);
        dkim_header_fini(&header);
    }
}

static void fields_are_bounded(void **state)
{
    static char text[(DKIM_FIELD_MAX + 1) * 4 + 1];
    struct dkim_header header = {0};

    (void)state;
    for (uint32_t i = 0; i <= DKIM_FIELD_MAX; i++)
        memcpy(text + (size_t)i * 4, "A:\r\n", 4);
    struct span octets = span_of(text, DKIM_FIELD_MAX * 4);
    assert_int_equal(ERR_OK, dkim_header_parse(octets, &header));
    assert_int_equal(DKIM_FIELD_MAX, header.count);
    dkim_header_fini(&header);
    octets.size += 4;
    assert_int_equal(ERR_LIMIT, dkim_header_parse(octets, &header));
}

static void fields_are_found_from_below(void **state)
{
    struct dkim_header header = {0};
    uint32_t index;

    (void)state;
    assert_int_equal(
        ERR_OK, dkim_header_parse(SPAN_LITERAL("To: a\r\nX: b\r\ntO : c\r\nTox: d\r\n"), &header));
    index = dkim_header_find_above(&header, SPAN_LITERAL("to"), header.count);
    assert_int_equal(2, index);
    index = dkim_header_find_above(&header, SPAN_LITERAL("TO"), index);
    assert_int_equal(0, index);
    assert_int_equal(4, dkim_header_find_above(&header, SPAN_LITERAL("to"), index));
    assert_int_equal(4, dkim_header_find_above(&header, SPAN_LITERAL("From"), header.count));
    dkim_header_fini(&header);
}

static void authors_have_one_domain(void **state)
{
    static const struct {
        const char *from, *domain; /* NULL: not to be read */
    } rows[] = {
        {"a@example.org", "example.org"},
        {" a@Example.ORG \r\n", "example.org"},
        {" A B <a@example.org>\r\n", "example.org"},
        {" <a@example.org>", "example.org"},
        {" \"A, B\" <a@example.org>", "example.org"},
        {" \"x@other.example\" <a@example.org>", "example.org"},
        {" x@other.example <a@example.org>", "example.org"},
        {" \"\\\"\" <a@example.org>", "example.org"},
        {" (x@other.example) a@example.org", "example.org"},
        {" a@example.org (x@other.example)", "example.org"},
        {" a@(nested (c) \\) c)example.org", "example.org"},
        {" a@example.org (<x@other.example>, ", NULL},
        {" a @\r\n example . org", "example.org"},
        {" \"a@b\"@example.org", "example.org"},
        {" <@x.example,@y.example:a@example.org>", "example.org"},
        {" a@example.org, B <b@EXAMPLE.org>", "example.org"},
        {" a@example.org,, ", "example.org"},
        {" Group: a@example.org, b@example.org;", "example.org"},
        {" =?utf-8?q?x=40other=2Eexample?= <a@example.org>", "example.org"},
        {" a@b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example"},
        {" a@example.org, b@other.example", NULL},
        {" a@example.org; b@other.example", NULL},
        {" a@sub.example.org, b@example.org", NULL},
        {" <a@example.org> <b@other.example>", NULL},
        {" <a@example.org> b@other.example", NULL},
        {" <<a@example.org>>", NULL},
        {" <a@example.org", NULL},
        {" a@example.org>", NULL},
        {" \"a@example.org", NULL},
        {" Group:;", NULL},
        {"", NULL},
        {" <>", NULL},
        {" a", NULL},
        {" @", NULL},
        {" a@", NULL},
        {" a@example.org, b", NULL},
        {" a@[192.0.2.1]", NULL},
        {" a@exa mple.org\x01", NULL},
        {" a@-", NULL},
    };
    char text[200], domain[MX_NAME_MAX];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        snprintf(text, sizeof(text), "From:%s", rows[i].from);
        memcpy(domain, "kept", 5);
        enum err err = dkim_author_domain(span_from_text(text), domain);
        const char *expected = rows[i].domain == NULL ? "kept" : rows[i].domain;
        if (err != (rows[i].domain == NULL ? ERR_PEER_SYNTAX : ERR_OK) ||
            strcmp(expected, domain) != 0)
            print_message("# %s: %s, %s\n", text, err_name(err), domain);
        assert_int_equal(rows[i].domain == NULL ? ERR_PEER_SYNTAX : ERR_OK, err);
        assert_string_equal(expected, domain);
    }
}

static void addresses_are_bounded(void **state)
{
    char text[600], domain[MX_NAME_MAX];

    (void)state;
    for (uint32_t excess = 0; excess < 2; excess++) {
        uint32_t local_size = 512 - (uint32_t)strlen("@example.org") + excess;
        snprintf(text, sizeof(text), "From: %0*d@example.org", (int)local_size, 0);
        assert_int_equal(excess == 0 ? ERR_OK : ERR_PEER_SYNTAX,
                         dkim_author_domain(span_from_text(text), domain));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(header_is_cut_into_fields),   cmocka_unit_test(fields_are_bounded),
        cmocka_unit_test(fields_are_found_from_below), cmocka_unit_test(authors_have_one_domain),
        cmocka_unit_test(addresses_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
