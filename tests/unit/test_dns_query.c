/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which packet is the reply to a question: rows change one thing in the right one, as an attacker
 * who guesses, or a broken server, would send it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/dns_fake.h"

#define A    DNS_TYPE_A
#define AAAA DNS_TYPE_AAAA
#define MX   DNS_TYPE_MX

static void query_make(struct query *query, const char *name, uint16_t type)
{
    struct rng rng;

    rng_init_seed(&rng, 3);
    query_init(query, span_from_text(name), type);
    query_write(query, &rng);
}

static void reply_begin(struct wire *wire, const struct query *query, uint32_t flags)
{
    wire_reply(wire, query->packet, query->size, flags);
}

/* ---- which packet is the reply ---- */

static void break_id_high(struct wire *wire)
{
    wire->data[0] ^= 0x80;
}
static void break_id_low(struct wire *wire)
{
    wire->data[1] ^= 1;
}
static void break_qr(struct wire *wire)
{
    wire->data[2] &= 0x7f;
}
static void break_opcode(struct wire *wire)
{
    wire->data[2] |= 0x10;
}
static void break_question_count_none(struct wire *wire)
{
    wire->data[5] = 0;
}
static void break_question_count_two(struct wire *wire)
{
    wire->data[5] = 2;
}
static void break_name(struct wire *wire)
{
    wire->data[13] = 'x';
}
static void break_case(struct wire *wire)
{
    wire->data[13] ^= 0x20;
}
static void break_type(struct wire *wire)
{
    wire->data[wire->size - 3] = 1;
}
static void break_class(struct wire *wire)
{
    wire->data[wire->size - 1] = 3;
}
static void break_size(struct wire *wire)
{
    wire->size--;
}
static void break_all(struct wire *wire)
{
    wire->size = 0;
}
static void rcode_servfail(struct wire *wire)
{
    wire->data[3] |= 2;
}
static void rcode_refused(struct wire *wire)
{
    wire->data[3] |= 5;
}
static void rcode_formerr(struct wire *wire)
{
    wire->data[3] |= 1;
}
static void rcode_nxdomain(struct wire *wire)
{
    wire->data[3] |= 3;
}
static void truncate(struct wire *wire)
{
    wire->data[2] |= 2;
}
static void nothing(struct wire *wire)
{
    (void)wire;
}

static const struct judge_row {
    const char *label;
    void (*change)(struct wire *wire);
    enum query_verdict verdict;
} judge_rows[] = {
    {"as it should be", nothing, QUERY_ANSWERED},
    {"NXDOMAIN", rcode_nxdomain, QUERY_ANSWERED},
    {"truncated", truncate, QUERY_TRUNCATED},
    {"SERVFAIL", rcode_servfail, QUERY_SERVFAIL},
    {"REFUSED", rcode_refused, QUERY_REFUSED},
    {"FORMERR", rcode_formerr, QUERY_REFUSED},
    {"ID, first octet", break_id_high, QUERY_WRONG},
    {"ID, last octet", break_id_low, QUERY_WRONG},
    {"a query, not a response", break_qr, QUERY_WRONG},
    {"opcode", break_opcode, QUERY_WRONG},
    {"no question", break_question_count_none, QUERY_WRONG},
    {"two questions", break_question_count_two, QUERY_WRONG},
    {"another name", break_name, QUERY_WRONG},
    {"another case", break_case, QUERY_WRONG},
    {"another type", break_type, QUERY_WRONG},
    {"another class", break_class, QUERY_WRONG},
    {"question cut by an octet", break_size, QUERY_WRONG},
    {"empty", break_all, QUERY_WRONG},
};

static void test_judge(void **state)
{
    static struct wire wire;
    struct query query;
    (void)state;

    query_make(&query, "mail.example", MX);
    for (uint32_t i = 0; i < COUNT_OF(judge_rows); i++) {
        reply_begin(&wire, &query, WIRE_RESPONSE);
        judge_rows[i].change(&wire);
        if (query_judge(&query, span_of(wire.data, wire.size)) != judge_rows[i].verdict)
            fail_msg("%s", judge_rows[i].label);
    }
}

/* Every octet of header ID and question counts: flip each bit of the question, none is accepted. */
static void test_judge_every_bit_of_the_question(void **state)
{
    static struct wire wire;
    struct query query;
    (void)state;

    query_make(&query, "mail.example", MX);
    for (uint32_t at = 12; at < query.question_end; at++) {
        for (uint32_t bit = 0; bit < 8; bit++) {
            reply_begin(&wire, &query, WIRE_RESPONSE);
            wire.data[at] ^= (uint8_t)(1u << bit);
            assert_int_equal(QUERY_WRONG, query_judge(&query, span_of(wire.data, wire.size)));
        }
    }
}

static void test_query_layout(void **state)
{
    struct query query;
    char name[QUERY_NAME_MAX + 1];
    (void)state;

    query_make(&query, "a.b", A);
    assert_int_equal(12 + 5 + 4, query.question_end);
    assert_int_equal(query.question_end + 11, query.size);
    assert_int_equal(1, query.packet[2]); /* RD */
    assert_int_equal(41, query.packet[query.question_end + 2]);
    assert_int_equal(1232, query.packet[query.question_end + 3] << 8 |
                               query.packet[query.question_end + 4]);

    memset(name, 'a', QUERY_NAME_MAX);
    for (uint32_t i = 63; i < QUERY_NAME_MAX; i += 64)
        name[i] = '.';
    name[QUERY_NAME_MAX] = '\0';
    query_make(&query, name, A); /* 253 octets: the longest */
    assert_int_equal(QUERY_SIZE_MAX, query.size);
}

static const struct name_row {
    const char *label, *name;
    bool is_sound;
} name_rows[] = {
    {"one letter", "a", true},
    {"labels", "mx-1._tcp.example", true},
    {"empty", "", false},
    {"root", ".", false},
    {"final dot", "a.", false},
    {"leading dot", ".a", false},
    {"two dots", "a..b", false},
    {"capital", "A", false},
    {"space", "a b", false},
    {"63", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b", true},
    {"64", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa.b", false},
};

static void test_names(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(name_rows); i++) {
        if (query_name_is_sound(span_from_text(name_rows[i].name)) != name_rows[i].is_sound)
            fail_msg("%s", name_rows[i].label);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge),
        cmocka_unit_test(test_judge_every_bit_of_the_question),
        cmocka_unit_test(test_query_layout),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
