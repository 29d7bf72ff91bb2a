/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts of a domain: zones as rows, the hosts and verdicts expected as text. A verdict that ends
 * mail must never come from a failure, from a time-out or from a stale answer.
 */
#include "tests/unit/mx_fixture.h"

#include <stdio.h>

static const struct fake_row zone[] = {
    {"two.example", MX, "20 mx2.example"},
    {"two.example", MX, "10 mx1.example"},
    {"mx1.example", A, "192.0.2.1"},
    {"mx1.example", AAAA, "2001:db8::1"},
    {"mx2.example", A, "192.0.2.2"},
    {"implicit.example", A, "192.0.2.9"},
    {"six.example", AAAA, "2001:db8::9"},
    {"null.example", MX, "0 ."},
    {"nullish.example", MX, "0 ."},
    {"nullish.example", MX, "10 mx1.example"},
    {"gone.example", 0, "NXDOMAIN"},
    {"empty.example", 0, "NODATA"},
    {"servfail.example", 0, "SERVFAIL"},
    {"refused.example", 0, "REFUSED"},
    {"timeout.example", 0, "TIMEOUT"},
    {"broken.example", 0, "BROKEN"},
    {"half.example", MX, "10 mx1.example"},
    {"half.example", MX, "5 servfail.example"},
    {"unresolved.example", MX, "5 servfail.example"},
    {"nohost.example", MX, "5 gone.example"},
    {"nodata-a-fails.example", A, "SERVFAIL"},
    {"localhost-mx.example", MX, "5 localhost"},
    {"literal.example", MX, "5 192.0.2.1"},
    {"loopback.example", MX, "5 loop.example"},
    {"loop.example", A, "127.0.0.1"},
    {"loop.example", AAAA, "::1"},
    {"mapped.example", AAAA, "::ffff:127.0.0.1"},
    {"some-denied.example", MX, "5 loop.example"},
    {"some-denied.example", MX, "6 mx2.example"},
    {"denied-or-failed.example", MX, "5 loop.example"},
    {"denied-or-failed.example", MX, "6 servfail.example"},
    {"own.example", MX, "10 mx1.example"},
    {"own.example", MX, "20 self.example"},
    {"own.example", MX, "30 mx2.example"},
    {"ownfirst.example", MX, "10 self.example"},
    {"ownfirst.example", MX, "30 mx2.example"},
    {"ownequal.example", MX, "10 mx2.example"},
    {"ownequal.example", MX, "10 self.example"},
    {"ownequal-failed.example", MX, "10 servfail.example"},
    {"ownequal-failed.example", MX, "10 self.example"},
    {"ownworse-failed.example", MX, "10 self.example"},
    {"ownworse-failed.example", MX, "20 servfail.example"},
    {"ownbetter-failed.example", MX, "5 servfail.example"},
    {"ownbetter-failed.example", MX, "10 self.example"},
    {"self.example", A, "198.51.100.7"},
    {"alias.example", CN, "two.example"},
    {"mx-alias.example", MX, "5 target-alias.example"},
    {"target-alias.example", CN, "mx2.example"},
    {"cname-loop-a.example", CN, "cname-loop-b.example"},
    {"cname-loop-b.example", CN, "cname-loop-a.example"},
    {"short.example", MX | FAKE_TTL_1, "10 mx2.example"},
    {"bignull.example", MX | FAKE_TRUNCATED, "10 ."},
    {"tcp.example", MX | FAKE_TRUNCATED, "10 mx2.example"},
    {"alien.example", MX, "10 bad name.example"},
};

struct row {
    const char *label, *domain;
    enum mx_verdict verdict;
    const char *hosts;
};

/* The policy of these rows: 198.51.100.7 is ourselves. */
static const struct row rows[] = {
    {"by preference, families alternate", "two.example", MX_OK,
     "mx1.example=2001:db8::1,192.0.2.1 mx2.example=192.0.2.2"},
    {"no MX: the domain's address", "implicit.example", MX_OK, "implicit.example=192.0.2.9"},
    {"no MX: IPv6 alone will do", "six.example", MX_OK, "six.example=2001:db8::9"},
    {"null MX", "null.example", MX_NULL, ""},
    {"null MX over TCP, any preference", "bignull.example", MX_NULL, ""},
    {"dot beside a host is left out", "nullish.example", MX_OK,
     "mx1.example=2001:db8::1,192.0.2.1"},
    {"NXDOMAIN", "gone.example", MX_NOT_FOUND, ""},
    {"NODATA for MX, A, AAAA", "empty.example", MX_NOT_FOUND, ""},
    {"SERVFAIL is temporary", "servfail.example", MX_TEMPORARY, ""},
    {"REFUSED is temporary", "refused.example", MX_TEMPORARY, ""},
    {"time-out is temporary", "timeout.example", MX_TEMPORARY, ""},
    {"malformed is temporary", "broken.example", MX_TEMPORARY, ""},
    {"best host does not resolve: the other", "half.example", MX_OK,
     "mx1.example=2001:db8::1,192.0.2.1 +servfail.example"},
    {"no host resolves", "unresolved.example", MX_TEMPORARY, ""},
    {"hosts that do not exist defer", "nohost.example", MX_TEMPORARY, ""},
    {"no MX, A fails, no AAAA", "nodata-a-fails.example", MX_TEMPORARY, ""},
    {"localhost", "localhost-mx.example", MX_ALL_DENIED, ""},
    {"address literal", "literal.example", MX_TEMPORARY, ""},
    {"target with a space", "alien.example", MX_TEMPORARY, ""},
    {"loopback", "loopback.example", MX_ALL_DENIED, ""},
    {"mapped loopback", "mapped.example", MX_ALL_DENIED, ""},
    {"denied host is dropped, not fatal", "some-denied.example", MX_OK,
     "mx2.example=192.0.2.2 +loop.example"},
    {"denied, or not resolving", "denied-or-failed.example", MX_TEMPORARY, ""},
    {"ourselves: this and worse go", "own.example", MX_OK,
     "mx1.example=2001:db8::1,192.0.2.1 +self.example +mx2.example"},
    {"ourselves best: nothing left", "ownfirst.example", MX_ALL_DENIED, ""},
    {"ourselves: equal preference goes too", "ownequal.example", MX_ALL_DENIED, ""},
    {"ourselves, an equal one fails", "ownequal-failed.example", MX_ALL_DENIED, ""},
    {"ourselves, worse one fails", "ownworse-failed.example", MX_ALL_DENIED, ""},
    {"ourselves, better one fails", "ownbetter-failed.example", MX_TEMPORARY, ""},
    {"alias at the owner", "alias.example", MX_OK,
     "mx1.example=2001:db8::1,192.0.2.1 mx2.example=192.0.2.2"},
    {"alias as target", "mx-alias.example", MX_OK, "target-alias.example=192.0.2.2"},
    {"alias loop is temporary", "cname-loop-a.example", MX_TEMPORARY, ""},
    {"truncated, then TCP", "tcp.example", MX_OK, "mx2.example=192.0.2.2"},
    {"no name at all", "a..example", MX_NOT_FOUND, ""},
};

static void test_verdicts(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    struct flow_address own;
    char text[4096];
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        fixture_init(&f, zone, COUNT_OF(zone));
        assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("198.51.100.7"), &own));
        f.policy.own = &own;
        f.policy.own_count = 1;
        for (uint32_t round = 0; round < 8; round++) { /* equal hosts are shuffled */
            look_up(&f, rows[i].domain, &answer);
            answer_format(&answer, text, sizeof(text));
            if (answer.verdict != rows[i].verdict || strcmp(text, rows[i].hosts) != 0)
                fail_msg("%s: verdict %d, hosts \"%s\"", rows[i].label, answer.verdict, text);
            assert_non_null(answer.reason);
            bool is_loop = strncmp(rows[i].domain, "own", 3) == 0;
            assert_int_equal(is_loop, answer.is_loop);
        }
        fixture_fini(&f);
    }
}

static void test_families(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    char text[512];
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    f.policy.ipv6 = false;
    look_up(&f, "two.example", &answer);
    answer_format(&answer, text, sizeof(text));
    assert_string_equal("mx1.example=192.0.2.1 mx2.example=192.0.2.2", text);
    look_up(&f, "six.example", &answer);
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    f.policy.ipv6 = true;
    f.policy.ipv4 = false;
    look_up(&f, "two.example", &answer);
    answer_format(&answer, text, sizeof(text));
    assert_string_equal("mx1.example=2001:db8::1 +mx2.example", text);
    assert_int_equal(25, answer.hosts[0].addresses[0].port);
    fixture_fini(&f);
}

/* Each of three equal hosts comes first in about a third of the answers; order between
 * preferences never changes. */
static void test_shuffle(void **state)
{
    static const struct fake_row equal[] = {
        {"eq.example", MX, "10 a.example"}, {"eq.example", MX, "10 b.example"},
        {"eq.example", MX, "10 c.example"}, {"eq.example", MX, "20 d.example"},
        {"a.example", A, "192.0.2.1"},      {"b.example", A, "192.0.2.2"},
        {"c.example", A, "192.0.2.3"},      {"d.example", A, "192.0.2.4"},
    };
    static struct mx_answer answer;
    struct fixture f;
    uint32_t first[4] = {0};
    (void)state;

    fixture_init(&f, equal, COUNT_OF(equal));
    for (uint32_t i = 0; i < 3000; i++) {
        look_up(&f, "eq.example", &answer);
        assert_int_equal(4, answer.host_count);
        assert_string_equal("d.example", answer.hosts[3].name);
        first[answer.hosts[0].name[0] - 'a']++;
    }
    for (uint32_t i = 0; i < 3; i++)
        assert_in_range(first[i], 850, 1150);
    fixture_fini(&f);
}

/* A thousand exchangers with a hundred addresses each: 16 hosts, 5 addresses, 32 questions. */
static void test_caps(void **state)
{
    static struct fake_row many[60 + 60 * 12];
    static char names[60][32], texts[60][32], addresses[12][32];
    static struct mx_answer answer;
    struct fixture f;
    uint32_t count = 0;
    (void)state;

    for (uint32_t i = 0; i < 12; i++)
        snprintf(addresses[i], sizeof(addresses[i]), "192.0.2.%u", i + 1);
    for (uint32_t i = 0; i < 60; i++) {
        snprintf(names[i], sizeof(names[i]), "mx%u.example", i);
        snprintf(texts[i], sizeof(texts[i]), "%u mx%u.example", 1000 - i, i);
        many[count++] = (struct fake_row){"many.example", MX, texts[i]};
        for (uint32_t j = 0; j < 12; j++)
            many[count++] = (struct fake_row){names[i], A, addresses[j]};
    }
    fixture_init(&f, many, count);
    look_up(&f, "many.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    assert_in_range(answer.host_count, 15, MX_HOST_MAX);
    assert_string_equal("mx59.example", answer.hosts[0].name);
    for (uint32_t i = 0; i < answer.host_count; i++)
        assert_int_equal(MX_ADDRESS_MAX, answer.hosts[i].address_count);
    assert_true(dns_get_stats(f.dns).queries_udp <= 32);
    fixture_fini(&f);
}

static void test_coalescing(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    for (uint64_t user = 1; user <= 5; user++) {
        assert_int_equal(ERR_AGAIN, mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), user,
                                              f.now, &answer));
    }
    assert_int_equal(1, f.fake->query_count);
    /* alias.example leads to the same hosts: their addresses are asked for once. */
    assert_int_equal(ERR_AGAIN,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("alias.example"), 6, f.now, &answer));
    settle(&f);
    assert_int_equal(6, f.wakes);
    assert_int_equal(6, f.fake->query_count);
    assert_int_equal(ERR_OK,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 1, f.now, &answer));
    fixture_fini(&f);
}

static void test_limit_of_outstanding(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    char name[32];
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    for (uint32_t i = 0; i < 64; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        assert_int_equal(ERR_AGAIN,
                         mx_lookup(f.dns, &f.policy, span_from_text(name), i, f.now, &answer));
    }
    assert_int_equal(ERR_LIMIT,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 65, f.now, &answer));
    settle(&f);
    assert_int_equal(64, f.wakes);
    look_up(&f, "two.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    fixture_fini(&f);
}

/* Silent names hold all places: after the time of one try they make room, one place for each who
 * was turned away, and not before. */
static void test_silence_makes_room(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    char name[32];
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    for (uint32_t i = 0; i < 64; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        assert_int_equal(ERR_AGAIN,
                         mx_lookup(f.dns, &f.policy, span_from_text(name), i, f.now, &answer));
    }
    for (tick_us passed = 0; passed < TICK_MS(2000); passed += TICK_MS(100)) {
        assert_int_equal(ERR_LIMIT, mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 65,
                                              f.now, &answer));
        pass(&f, TICK_MS(100));
    }
    assert_int_equal(1, f.wakes);
    assert_int_equal(ERR_AGAIN,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 65, f.now, &answer));
    for (uint32_t i = 0; i < 10; i++) {
        fake_answer_all(f.fake, f.dns, f.now);
        pass(&f, TICK_MS(1));
    }
    assert_int_equal(ERR_OK,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 65, f.now, &answer));
    assert_int_equal(MX_OK, answer.verdict);
    fixture_fini(&f);
}

/* As many lookups as there are questions, each with two hosts of its own: addresses have to wait
 * for free questions, and none is taken for unresolved because of that. */
static void test_questions_are_shared(void **state)
{
    static struct fake_row crowd[64 * 4];
    static char names[64][3][32], texts[64][2][40];
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    for (uint32_t i = 0; i < 64; i++) {
        snprintf(names[i][2], sizeof(names[i][2]), "crowd%u.example", i);
        for (uint32_t j = 0; j < 2; j++) {
            snprintf(names[i][j], sizeof(names[i][j]), "mx%u.crowd%u.example", j, i);
            snprintf(texts[i][j], sizeof(texts[i][j]), "%u %s", j, names[i][j]);
            crowd[4 * i + j] = (struct fake_row){names[i][2], MX, texts[i][j]};
            crowd[4 * i + 2 + j] = (struct fake_row){names[i][j], A, "192.0.2.1"};
        }
    }
    fixture_init(&f, crowd, COUNT_OF(crowd));
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(
            ERR_AGAIN, mx_lookup(f.dns, &f.policy, span_from_text(names[i][2]), i, f.now, &answer));
    }
    settle(&f);
    assert_int_equal(64, f.wakes);
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(
            ERR_OK, mx_lookup(f.dns, &f.policy, span_from_text(names[i][2]), i, f.now, &answer));
        assert_int_equal(2, answer.host_count);
    }
    assert_int_equal(64 * 5, f.fake->query_count);
    fixture_fini(&f);
}

static void test_host_of_a_route(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    for (uint32_t i = 0; i < 2; i++) {
        enum err err =
            mx_lookup_host(f.dns, &f.policy, SPAN_LITERAL("mx1.example"), 587, 9, f.now, &answer);
        assert_int_equal(i == 0 ? ERR_AGAIN : ERR_OK, err);
        settle(&f);
    }
    assert_int_equal(1, answer.host_count);
    assert_int_equal(2, answer.hosts[0].address_count);
    assert_int_equal(587, answer.hosts[0].port);
    assert_int_equal(587, answer.hosts[0].addresses[1].port);
    assert_int_equal(2, f.fake->query_count); /* no MX question */

    assert_int_equal(ERR_AGAIN, mx_lookup_host(f.dns, &f.policy, SPAN_LITERAL("gone.example"), 25,
                                               9, f.now, &answer));
    settle(&f);
    assert_int_equal(ERR_OK, mx_lookup_host(f.dns, &f.policy, SPAN_LITERAL("gone.example"), 25, 9,
                                            f.now, &answer));
    assert_int_equal(MX_TEMPORARY, answer.verdict);

    struct flow_prefix allow;
    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("127.0.0.0/8"), &allow));
    assert_int_equal(
        ERR_OK, mx_lookup_host(f.dns, &f.policy, SPAN_LITERAL("localhost"), 25, 9, f.now, &answer));
    assert_int_equal(MX_ALL_DENIED, answer.verdict);
    f.policy.allow = &allow;
    f.policy.allow_count = 1;
    assert_int_equal(
        ERR_OK, mx_lookup_host(f.dns, &f.policy, SPAN_LITERAL("localhost"), 25, 9, f.now, &answer));
    assert_int_equal(1, answer.hosts[0].address_count);
    fixture_fini(&f);
}

/* A hundred thousand names asked once neither grow the cache nor push out a popular one. */
static void test_random_names(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    char name[32];
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    look_up(&f, "two.example", &answer);
    for (uint32_t i = 0; i < 2000; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        enum err err = mx_lookup(f.dns, &f.policy, span_from_text(name), 1, f.now, &answer);
        assert_int_equal(ERR_AGAIN, err);
        fake_answer_all(f.fake, f.dns, f.now);
        f.fake->query_count = 0;
        assert_int_equal(
            ERR_OK, mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 2, f.now, &answer));
        assert_true(dns_get_stats(f.dns).entries <= 512);
    }
    assert_true(dns_get_stats(f.dns).evicted > 1000);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_shuffle),
        cmocka_unit_test(test_caps),
        cmocka_unit_test(test_coalescing),
        cmocka_unit_test(test_limit_of_outstanding),
        cmocka_unit_test(test_silence_makes_room),
        cmocka_unit_test(test_questions_are_shared),
        cmocka_unit_test(test_host_of_a_route),
        cmocka_unit_test(test_random_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
