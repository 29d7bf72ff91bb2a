/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is left of a reply: rows build one each to the same question, as an attacker, or a broken
 * server, would send it. Only the chain from the question's name counts; nonsense is an error.
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

static const struct query_limits limits = {5, 86400, 900};
static struct codec_message scratch;
static struct query_answer answer;

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

static void rcode_nxdomain(struct wire *wire)
{
    wire->data[3] |= 3;
}

static void nothing(struct wire *wire)
{
    (void)wire;
}

/* ---- what of the reply counts ---- */

/* "10 mx.example, 20 mx2.example" or "192.0.2.1, 192.0.2.2". */
static void value_format(uint16_t type, char *ret_text, size_t size)
{
    size_t used = 0;

    ret_text[0] = '\0';
    for (uint32_t at = 0; at < answer.value_size;) {
        const uint8_t *v = answer.value + at;
        uint16_t preference;
        used += (size_t)snprintf(ret_text + used, size - used, "%s", at > 0 ? ", " : "");
        if (type == MX) {
            memcpy(&preference, v, 2);
            used += (size_t)snprintf(ret_text + used, size - used, "%u %.*s", preference, v[2],
                                     (const char *)v + 3);
            at += 3u + v[2];
        } else {
            used += (size_t)snprintf(ret_text + used, size - used, "%u.%u.%u.%u", v[0], v[1], v[2],
                                     v[3]);
            at += type == A ? 4 : 16;
        }
    }
}

static void mx_two(struct wire *wire)
{
    wire_mx(wire, "q.example", 300, 20, "b.example");
    wire_mx(wire, "Q.Example", 200, 10, "A.Example");
}
static void mx_of_others(struct wire *wire)
{
    wire_mx(wire, "evil.example", 300, 1, "evil.example");
    wire_mx(wire, "q.example", 300, 10, "a.example");
    wire_mx(wire, "sub.q.example", 300, 1, "evil.example");
    wire_a(wire, "a.example", 300, 0x7f000001);
}
static void mx_only_of_others(struct wire *wire)
{
    wire_mx(wire, "evil.example", 300, 1, "evil.example");
    wire_cname(wire, "other.example", 300, "q.example");
}
static void mx_in_authority(struct wire *wire)
{
    wire_mx(wire, "q.example", 300, 1, "evil.example");
    wire_count(wire, 6, (uint32_t)-1);
    wire_count(wire, 8, 1);
}
static void mx_in_additional(struct wire *wire)
{
    wire_mx(wire, "q.example", 300, 1, "evil.example");
    wire_count(wire, 6, (uint32_t)-1);
    wire_count(wire, 10, 1);
}
static void chain_of(struct wire *wire, uint32_t links)
{
    char from[32] = "q.example", to[32];

    for (uint32_t i = 0; i < links; i++) {
        snprintf(to, sizeof(to), "c%u.example", i);
        wire_cname(wire, from, 300 - i, to);
        memcpy(from, to, sizeof(from));
    }
    wire_mx(wire, from, 300, 10, "a.example");
}
static void chain_of_one(struct wire *wire)
{
    chain_of(wire, 1);
}
static void chain_of_eight(struct wire *wire)
{
    chain_of(wire, 8);
}
static void chain_of_nine(struct wire *wire)
{
    chain_of(wire, 9);
}
static void chain_of_a_thousand(struct wire *wire)
{
    chain_of(wire, 1000);
}
static void chain_loop(struct wire *wire)
{
    wire_cname(wire, "q.example", 300, "r.example");
    wire_cname(wire, "r.example", 300, "q.example");
}
static void chain_to_itself(struct wire *wire)
{
    wire_cname(wire, "q.example", 300, "q.example");
}
static void chain_not_from_question(struct wire *wire)
{
    wire_cname(wire, "r.example", 300, "s.example");
    wire_mx(wire, "s.example", 300, 1, "evil.example");
}
static void chain_without_end(struct wire *wire)
{
    wire_cname(wire, "q.example", 300, "r.example");
}
static void chain_nodata(struct wire *wire)
{
    wire_cname(wire, "q.example", 300, "r.example");
    wire_soa(wire, "example", 300, 100);
}
static void chain_to_no_name(struct wire *wire)
{
    wire_cname(wire, "q.example", 300, "r\r\n.example");
    wire_soa(wire, "example", 300, 100);
}
static void dname(struct wire *wire)
{
    wire_record(wire, "example", 39, 300, "\1r\0", 3);
    wire_cname(wire, "q.example", 300, "q.r");
    wire_mx(wire, "q.r", 300, 10, "a.example");
}
static void nodata(struct wire *wire)
{
    wire_soa(wire, "example", 300, 100);
}
static void nodata_long(struct wire *wire)
{
    wire_soa(wire, "example", 86400, 86400);
}
static void nodata_foreign_soa(struct wire *wire)
{
    wire_soa(wire, "evil.test", 800, 800);
}
static void nxdomain_with_records(struct wire *wire)
{
    rcode_nxdomain(wire);
    wire_mx(wire, "q.example", 300, 10, "a.example");
    wire_soa(wire, ".", 300, 100);
}
static void ttl_zero(struct wire *wire)
{
    wire_mx(wire, "q.example", 0, 10, "a.example");
}
static void ttl_top_bit(struct wire *wire)
{
    wire_mx(wire, "q.example", 0x80000000u, 10, "a.example");
}
static void ttl_all_bits(struct wire *wire)
{
    wire_mx(wire, "q.example", 0xffffffffu, 10, "a.example");
}
static void ttl_huge(struct wire *wire)
{
    wire_mx(wire, "q.example", 0x7fffffffu, 10, "a.example");
}
static void negative_ttl_top_bit(struct wire *wire)
{
    wire_soa(wire, "example", 0x80000000u, 0x80000000u);
}
static void mx_root(struct wire *wire)
{
    wire_mx(wire, "q.example", 300, 0, ".");
}
static void mx_odd_octets(struct wire *wire)
{
    wire_mx(wire, "q.example", 300, 1, "a\r\nb.example");
    wire_mx(wire, "q.example", 300, 2, "ok.example");
}
static void class_chaos(struct wire *wire)
{
    uint32_t before = wire->size;
    wire_mx(wire, "q.example", 300, 1, "evil.example");
    wire->data[before + 11 + 3] = 3;
}

static const struct read_row {
    const char *label;
    void (*build)(struct wire *wire);
    enum err err;
    enum dns_outcome outcome;
    uint32_t ttl;
    const char *value;
} read_rows[] = {
    {"two hosts, least TTL, by preference", mx_two, ERR_OK, DNS_OUTCOME_POSITIVE, 200,
     "10 a.example, 20 b.example"},
    {"records of other names", mx_of_others, ERR_OK, DNS_OUTCOME_POSITIVE, 300, "10 a.example"},
    {"only records of other names", mx_only_of_others, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"records in the authority section", mx_in_authority, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"records in the additional section", mx_in_additional, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"chain that does not start at the question", chain_not_from_question, ERR_OK,
     DNS_OUTCOME_NODATA, 60, ""},
    {"another class", class_chaos, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"one alias, least TTL", chain_of_one, ERR_OK, DNS_OUTCOME_POSITIVE, 300, "10 a.example"},
    {"eight aliases", chain_of_eight, ERR_OK, DNS_OUTCOME_POSITIVE, 293, "10 a.example"},
    {"nine aliases", chain_of_nine, ERR_PEER_SYNTAX, 0, 0, ""},
    {"a thousand aliases", chain_of_a_thousand, ERR_PEER_SYNTAX, 0, 0, ""},
    {"loop", chain_loop, ERR_PEER_SYNTAX, 0, 0, ""},
    {"alias of itself", chain_to_itself, ERR_PEER_SYNTAX, 0, 0, ""},
    {"alias without end is no proof", chain_without_end, ERR_PEER_SYNTAX, 0, 0, ""},
    {"alias of what is no name is no proof", chain_to_no_name, ERR_PEER_SYNTAX, 0, 0, ""},
    {"DNAME beside its CNAME", dname, ERR_OK, DNS_OUTCOME_POSITIVE, 300, "10 a.example"},
    {"NODATA behind an alias", chain_nodata, ERR_OK, DNS_OUTCOME_NODATA, 100, ""},
    {"NODATA, SOA minimum", nodata, ERR_OK, DNS_OUTCOME_NODATA, 100, ""},
    {"NODATA, clamped", nodata_long, ERR_OK, DNS_OUTCOME_NODATA, 900, ""},
    {"NODATA without SOA", nothing, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"SOA of another zone says nothing", nodata_foreign_soa, ERR_OK, DNS_OUTCOME_NODATA, 60, ""},
    {"NXDOMAIN, records beside it do not count", nxdomain_with_records, ERR_OK,
     DNS_OUTCOME_NXDOMAIN, 100, ""},
    {"TTL 0", ttl_zero, ERR_OK, DNS_OUTCOME_POSITIVE, 5, "10 a.example"},
    {"TTL 2^31", ttl_top_bit, ERR_OK, DNS_OUTCOME_POSITIVE, 5, "10 a.example"},
    {"TTL -1", ttl_all_bits, ERR_OK, DNS_OUTCOME_POSITIVE, 5, "10 a.example"},
    {"TTL 2^31 - 1", ttl_huge, ERR_OK, DNS_OUTCOME_POSITIVE, 86400, "10 a.example"},
    {"negative TTL 2^31", negative_ttl_top_bit, ERR_OK, DNS_OUTCOME_NODATA, 5, ""},
    {"root as target", mx_root, ERR_OK, DNS_OUTCOME_POSITIVE, 300, "0 ."},
    {"target with line ends becomes no name", mx_odd_octets, ERR_OK, DNS_OUTCOME_POSITIVE, 300,
     "1 , 2 ok.example"},
};

static void test_read(void **state)
{
    static struct wire wire;
    struct query query;
    char text[1024];
    (void)state;

    query_make(&query, "q.example", MX);
    for (uint32_t i = 0; i < COUNT_OF(read_rows); i++) {
        const struct read_row *row = &read_rows[i];
        reply_begin(&wire, &query, WIRE_RESPONSE);
        row->build(&wire);
        enum err err =
            query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer);
        if (err != row->err)
            fail_msg("%s: error %s", row->label, err_name(err));
        if (err != ERR_OK)
            continue;
        value_format(MX, text, sizeof(text));
        if (answer.outcome != row->outcome || answer.ttl_s != row->ttl ||
            strcmp(text, row->value) != 0)
            fail_msg("%s: outcome %d, TTL %u, \"%s\"", row->label, answer.outcome, answer.ttl_s,
                     text);
    }
}

/* ---- malformed ---- */

static const struct octet_row {
    const char *label;
    const char *octets; /* behind the question at offset 27 (q.example, MX) */
    uint32_t size, answers;
    uint16_t type; /* of the question: MX unless A */
    enum err err;
} octet_rows[] = {
#define ROW(text) text, sizeof(text) - 1
    /* owner pointer to the question (offset 12), A 192.0.2.1: the sound one */
    {"sound", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_OK},
    {"pointer to itself", ROW("\xc0\x1b\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"pointer forward", ROW("\xc0\x1d\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"pointer beyond the packet", ROW("\xff\xff\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A,
     ERR_PEER_SYNTAX},
    {"pointer into the header", ROW("\xc0\x04\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A,
     ERR_PEER_SYNTAX},
    {"pointer to offset 0", ROW("\xc0\x00\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"label and pointer back to it", ROW("\1a\xc0\x1b\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A,
     ERR_PEER_SYNTAX},
    {"pointer into a label", ROW("\xc0\x0f\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"pointer cut at the end", ROW("\xc0"), 1, A, ERR_PEER_SYNTAX},
    {"label 64", ROW("\x40 aaaaaaaa"), 1, A, ERR_PEER_SYNTAX},
    {"label type 10", ROW("\x80\0\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"label beyond the packet",
     ROW("\x3f"
         "aaa"),
     1, A, ERR_PEER_SYNTAX},
    {"no record", ROW(""), 1, A, ERR_PEER_SYNTAX},
    {"record cut in its header", ROW("\xc0\x0c\0\1\0\1\0\0\1"), 1, A, ERR_PEER_SYNTAX},
    {"RDLENGTH beyond the packet", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\5\xc0\0\2\1"), 1, A,
     ERR_PEER_SYNTAX},
    {"RDLENGTH 65,535", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\xff\xff\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"A of 3", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\3\xc0\0\2"), 1, A, ERR_PEER_SYNTAX},
    {"A of 0", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\0"), 1, A, ERR_PEER_SYNTAX},
    {"AAAA of 4", ROW("\xc0\x0c\0\x1c\0\1\0\0\1\0\0\4\xc0\0\2\1"), 1, A, ERR_PEER_SYNTAX},
    {"MX of 0", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\0"), 1, MX, ERR_PEER_SYNTAX},
    {"MX of 1", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\1\0"), 1, MX, ERR_PEER_SYNTAX},
    {"MX of 2", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\2\0\5"), 1, MX, ERR_PEER_SYNTAX},
    {"MX of 3: the root", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\3\0\5\0"), 1, MX, ERR_OK},
    {"MX name beyond RDLENGTH", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\4\0\5\1a\0"), 1, MX,
     ERR_PEER_SYNTAX},
    {"MX octets behind the name", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\5\0\5\0\0\0"), 1, MX,
     ERR_PEER_SYNTAX},
    {"MX pointer to its own RDATA", ROW("\xc0\x0c\0\xf\0\1\0\0\1\0\0\4\0\5\xc0\x29"), 1, MX,
     ERR_PEER_SYNTAX},
    {"TXT overrun in a record nobody asked for is stepped over",
     ROW("\xc0\x0c\0\x10\0\1\0\0\1\0\0\3\xff"
         "ab"),
     1, A, ERR_OK},
    {"TLSA of 2 likewise", ROW("\xc0\x0c\0\x34\0\1\0\0\1\0\0\2\3\1"), 1, A, ERR_OK},
    {"count says two, one is there", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 2, A,
     ERR_PEER_SYNTAX},
    {"count says 65,535", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1"), 65535, A, ERR_PEER_SYNTAX},
    {"count says none: what follows is not read", ROW("\xc0\x0c\0\1\0\1\0\0\1\0\0\3\xc0"), 0, A,
     ERR_OK},
};

static void test_malformed(void **state)
{
    static struct wire wire;
    struct query query;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(octet_rows); i++) {
        const struct octet_row *row = &octet_rows[i];
        query_make(&query, "q.example", row->type);
        assert_int_equal(27, query.question_end);
        reply_begin(&wire, &query, WIRE_RESPONSE);
        wire_octets(&wire, row->octets, row->size);
        wire_count(&wire, 6, row->answers);
        /* In a block of its own size, so that a read past the end is seen. */
        uint8_t *packet = malloc(wire.size);
        assert_non_null(packet);
        memcpy(packet, wire.data, wire.size);
        enum err err = query_read(&query, span_of(packet, wire.size), &limits, &scratch, &answer);
        free(packet);
        if (err != row->err)
            fail_msg("%s: %s", row->label, err_name(err));
    }
}

/* A chain of 126 pointers is followed, one of 127 is not; a name of 255 octets is, 256 is not. */
static void test_pointer_and_name_bounds(void **state)
{
    static struct wire wire;
    struct query query;
    (void)state;

    query_make(&query, "q.example", A);
    for (uint32_t jumps = 126; jumps <= 127; jumps++) {
        reply_begin(&wire, &query, WIRE_RESPONSE);
        /* An unasked record (type 16) whose RDATA is the chain; each pointer to the one before. */
        wire_octets(&wire, "\xc0\x0c\0\x10\0\1\0\0\1\0", 10);
        wire_u16(&wire, (jumps - 1) * 2);
        uint32_t last = 12;
        for (uint32_t i = 0; i < jumps - 1; i++) {
            uint32_t here = wire.size;
            wire_u16(&wire, 0xc000u | last);
            last = here;
        }
        wire_u16(&wire, 0xc000u | last);
        wire_octets(&wire, "\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1", 14);
        wire_count(&wire, 6, 2);
        enum err err =
            query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer);
        assert_int_equal(jumps == 126 ? ERR_OK : ERR_PEER_SYNTAX, err);
    }
    for (uint32_t last = 61; last <= 62; last++) {
        reply_begin(&wire, &query, WIRE_RESPONSE);
        for (uint32_t i = 0; i < 4; i++) {
            uint32_t size = i < 3 ? 63 : last;
            wire.data[wire.size++] = (uint8_t)size;
            memset(wire.data + wire.size, 'a', size);
            wire.size += size;
        }
        wire_octets(&wire, "\0\0\1\0\1\0\0\1\0\0\4\xc0\0\2\1", 15);
        wire_count(&wire, 6, 1);
        enum err err =
            query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer);
        assert_int_equal(last == 61 ? ERR_OK : ERR_PEER_SYNTAX, err);
    }
}

/* Of a thousand records a hundred are read; that is no proof that there are no others. */
static void test_caps(void **state)
{
    static struct wire wire;
    struct query query;
    char name[32];
    (void)state;

    query_make(&query, "q.example", MX);
    reply_begin(&wire, &query, WIRE_RESPONSE);
    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "mx%u.example", i);
        wire_mx(&wire, "q.example", 300, (uint16_t)(2000 - i), name);
    }
    assert_int_equal(ERR_OK,
                     query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer));
    assert_int_equal(CODEC_RECORD_MAX, scratch.answer_count);
    char text[1024];
    value_format(MX, text, sizeof(text));
    assert_memory_equal("1901 mx99.example, 1902 mx98.example, ", text, 38);

    query_make(&query, "q.example", A);
    reply_begin(&wire, &query, WIRE_RESPONSE);
    for (uint32_t i = 0; i < 100; i++)
        wire_a(&wire, "q.example", 300, 0xc0000200u + i);
    assert_int_equal(ERR_OK,
                     query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer));
    assert_int_equal(QUERY_ADDRESS_MAX * 4, answer.value_size);

    reply_begin(&wire, &query, WIRE_RESPONSE);
    for (uint32_t i = 0; i < 101; i++)
        wire_a(&wire, "other.example", 300, 0xc0000200u + i);
    wire_a(&wire, "q.example", 300, 0xc0000201u);
    assert_int_equal(ERR_PEER_SYNTAX,
                     query_read(&query, span_of(wire.data, wire.size), &limits, &scratch, &answer));
}

/* Any cut and any flipped bit of a good reply: no crash, no read past the end, and never a value
 * that the reply did not hold in a sound form. */
static void test_every_cut_and_flip(void **state)
{
    static struct wire wire;
    struct query query;
    (void)state;

    query_make(&query, "q.example", MX);
    reply_begin(&wire, &query, WIRE_RESPONSE);
    wire_cname(&wire, "q.example", 300, "r.example");
    wire_mx(&wire, "r.example", 300, 10, "a.example");
    wire_mx(&wire, "r.example", 300, 20, "b.example");
    wire_soa(&wire, "example", 300, 100);
    for (uint32_t size = query.question_end; size <= wire.size; size++) {
        uint8_t *packet = malloc(size);
        assert_non_null(packet);
        memcpy(packet, wire.data, size);
        enum err err = query_read(&query, span_of(packet, size), &limits, &scratch, &answer);
        assert_int_equal(size == wire.size ? ERR_OK : ERR_PEER_SYNTAX, err);
        free(packet);
    }
    for (uint32_t bit = query.question_end * 8; bit < wire.size * 8; bit++) {
        uint8_t *packet = malloc(wire.size);
        assert_non_null(packet);
        memcpy(packet, wire.data, wire.size);
        packet[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (query_read(&query, span_of(packet, wire.size), &limits, &scratch, &answer) == ERR_OK)
            assert_in_range(answer.ttl_s, limits.ttl_min_s, limits.ttl_max_s);
        free(packet);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_pointer_and_name_bounds),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_every_cut_and_flip),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
