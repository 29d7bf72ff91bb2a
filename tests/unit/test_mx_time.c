/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hosts of a domain as time passes: TTLs, failures, stale answers, refreshing early, and the second
 * answer that it takes to believe that a domain which worked is gone.
 */
#include "tests/unit/mx_fixture.h"

static const struct fake_row zone[] = {
    {"two.example", MX, "20 mx2.example"},
    {"two.example", MX, "10 mx1.example"},
    {"mx1.example", A, "192.0.2.1"},
    {"mx1.example", AAAA, "2001:db8::1"},
    {"mx2.example", A, "192.0.2.2"},
    {"servfail.example", 0, "SERVFAIL"},
    {"short.example", MX | FAKE_TTL_1, "10 mx2.example"},
};

static void test_ttl(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    look_up(&f, "two.example", &answer);
    assert_int_equal(f.now.tick + TICK_S(300), answer.valid_until);
    uint32_t asked = f.fake->query_count;
    pass(&f, TICK_S(299));
    look_up(&f, "two.example", &answer);
    settle(&f);
    /* Found twice in its life: not popular, so not refreshed. */
    assert_int_equal(asked, f.fake->query_count);
    pass(&f, TICK_S(1));
    look_up(&f, "two.example", &answer);
    assert_true(f.fake->query_count > asked);

    look_up(&f, "short.example", &answer);
    assert_int_equal(f.now.tick + TICK_S(5), answer.valid_until); /* clamped up from 1 s */
    fixture_fini(&f);
}

static void test_failure_is_cached_briefly(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    look_up(&f, "servfail.example", &answer);
    uint32_t asked = f.fake->query_count;
    look_up(&f, "servfail.example", &answer);
    assert_int_equal(asked, f.fake->query_count);
    pass(&f, TICK_S(11));
    look_up(&f, "servfail.example", &answer);
    assert_true(f.fake->query_count > asked);
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    fixture_fini(&f);
}

/* RFC 8767: positive answers, only after the refresh failed, at most stale_max_s past the TTL. */
static void test_stale(void **state)
{
    static struct fake_row changing[] = {{"s.example", MX, "10 h.example"},
                                         {"h.example", A, "192.0.2.1"},
                                         {"null.example", MX, "0 ."}};
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    changing[0].data = "10 h.example";
    fixture_init(&f, changing, COUNT_OF(changing));
    look_up(&f, "s.example", &answer);
    look_up(&f, "null.example", &answer);
    assert_int_equal(MX_NULL, answer.verdict);
    for (uint32_t i = 0; i < COUNT_OF(changing); i++) {
        changing[i].type = 0;
        changing[i].data = "SERVFAIL";
    }

    pass(&f, TICK_S(301));
    look_up(&f, "s.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    assert_true(answer.is_stale);
    assert_int_equal(1, answer.host_count);
    assert_true(dns_get_stats(f.dns).stale_served > 0);
    uint32_t asked = f.fake->query_count;
    look_up(&f, "s.example", &answer); /* within the recheck time: no new question */
    assert_true(answer.is_stale);
    assert_int_equal(asked, f.fake->query_count);

    look_up(&f, "null.example", &answer); /* a permanent verdict never from a stale answer */
    assert_int_equal(MX_TEMPORARY, answer.verdict);

    pass(&f, TICK_S(3500));
    look_up(&f, "s.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    pass(&f, TICK_S(200)); /* 3,600 s past the TTL: over */
    look_up(&f, "s.example", &answer);
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    assert_false(answer.is_stale);

    changing[0] = (struct fake_row){"s.example", MX, "10 h.example"};
    changing[1] = (struct fake_row){"h.example", A, "192.0.2.1"};
    pass(&f, TICK_S(40));
    look_up(&f, "s.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    assert_false(answer.is_stale);
    fixture_fini(&f);
}

/* A refresh that works is never answered with the stale data. */
static void test_stale_is_not_used_when_refresh_works(void **state)
{
    static struct fake_row changing[] = {{"s.example", MX, "10 h.example"},
                                         {"h.example", A, "192.0.2.1"}};
    static struct mx_answer answer;
    struct fixture f;
    char text[256];
    (void)state;

    changing[1].data = "192.0.2.1";
    fixture_init(&f, changing, COUNT_OF(changing));
    look_up(&f, "s.example", &answer);
    changing[1].data = "192.0.2.77";
    pass(&f, TICK_S(301));
    look_up(&f, "s.example", &answer);
    answer_format(&answer, text, sizeof(text));
    assert_string_equal("h.example=192.0.2.77", text);
    assert_false(answer.is_stale);
    fixture_fini(&f);
}

static void test_refresh_of_popular(void **state)
{
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    fixture_init(&f, zone, COUNT_OF(zone));
    for (uint32_t i = 0; i < 3; i++)
        look_up(&f, "two.example", &answer);
    uint32_t asked = f.fake->query_count;
    pass(&f, TICK_S(280));
    assert_int_equal(ERR_OK,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 1, f.now, &answer));
    assert_int_equal(asked + 1, f.fake->query_count); /* in the background */
    assert_int_equal(1, dns_get_stats(f.dns).refreshed);
    uint32_t wakes = f.wakes;
    settle(&f);
    assert_int_equal(wakes, f.wakes); /* nobody waits */
    pass(&f, TICK_S(30));             /* past the first TTL */
    assert_int_equal(ERR_OK,
                     mx_lookup(f.dns, &f.policy, SPAN_LITERAL("two.example"), 1, f.now, &answer));
    fixture_fini(&f);
}

/* The first "no such domain" for one that worked counts as temporary; the second, a minute later,
 * is believed. One that never worked is believed at once. */
static void test_negative_is_confirmed(void **state)
{
    static struct fake_row changing[] = {{"w.example", A, "192.0.2.1"}};
    static const struct fake_row works = {"w.example", A, "192.0.2.1"};
    static struct mx_answer answer;
    struct fixture f;
    (void)state;

    changing[0] = works;
    fixture_init(&f, changing, COUNT_OF(changing));
    look_up(&f, "w.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);

    changing[0].type = 0;
    changing[0].data = "NXDOMAIN";
    pass(&f, TICK_S(301));
    look_up(&f, "w.example", &answer);
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    tick_us first = f.now.tick;
    uint32_t asked = f.fake->query_count;
    pass(&f, TICK_S(59));
    look_up(&f, "w.example", &answer);
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    assert_int_equal(asked, f.fake->query_count);
    pass(&f, TICK_S(2));
    look_up(&f, "w.example", &answer); /* asks again although the negative TTL is not over */
    assert_true(f.fake->query_count > asked);
    assert_int_equal(MX_NOT_FOUND, answer.verdict);
    assert_true(f.now.tick >= first + TICK_S(60));

    changing[0] = works;
    pass(&f, TICK_S(901));
    look_up(&f, "w.example", &answer);
    assert_int_equal(MX_OK, answer.verdict);
    changing[0].type = 0;
    changing[0].data = "NODATA";
    pass(&f, TICK_S(301));
    look_up(&f, "w.example", &answer);
    assert_int_equal(MX_TEMPORARY, answer.verdict); /* the memory started anew */
    changing[0] = works;
    pass(&f, TICK_S(61));
    look_up(&f, "w.example", &answer); /* and the second answer may be a good one */
    assert_int_equal(MX_OK, answer.verdict);

    changing[0].type = 0;
    changing[0].data = "NXDOMAIN";
    pass(&f, TICK_S(7 * 86400 + 400));
    look_up(&f, "w.example", &answer); /* worked longer ago than a week */
    assert_int_equal(MX_NOT_FOUND, answer.verdict);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ttl),
        cmocka_unit_test(test_failure_is_cached_briefly),
        cmocka_unit_test(test_stale),
        cmocka_unit_test(test_stale_is_not_used_when_refresh_works),
        cmocka_unit_test(test_refresh_of_popular),
        cmocka_unit_test(test_negative_is_confirmed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
