/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words of a filter, and the ages of a group: each term at its bounds, counts that stay exact
 * whatever is added and taken out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/qmgr_ages.h"
#include "queue/qmgr_filter.h"

/* ---- filters ---- */

#define LABEL_63 "aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffff123"

static const struct {
    const char *name, *text, *why; /* why NULL: accepted */
    uint32_t terms, states;
    tick_us older;
} filter_rows[] = {
    {"nothing is everything", "", NULL, 0, 0, 0},
    {"only spaces", "   ", NULL, 0, 0, 0},
    {"a domain", "domain=example.org", NULL, QMGR_FILTER_DOMAIN, 0, 0},
    {"two terms", " domain=a.example  class=255 ", NULL, QMGR_FILTER_DOMAIN | QMGR_FILTER_CLASS, 0,
     0},
    {"class beyond its type", "class=256", "class= wants", 0, 0, 0},
    {"class by name", "class=bulk", NULL, QMGR_FILTER_CLASS, 0, 0},
    {"class of nothing", "class=", "class= wants", 0, 0, 0},
    {"class by number and name", "class=1bulk", "class= wants", 0, 0, 0},
    {"one state", "state=ready", NULL, QMGR_FILTER_STATE, QMGR_FILTER_READY, 0},
    {"all states", "state=ready,waiting,active,held,failed", NULL, QMGR_FILTER_STATE, 31, 0},
    {"an order", "order=4194303", NULL, QMGR_FILTER_ORDER, 0, 0},
    {"a user", "user=alice@example.org", NULL, QMGR_FILTER_USER, 0, 0},
    {"no user", "user=", "user= wants", 0, 0, 0},
    {"no number of an order", "order=x", "order= wants", 0, 0, 0},
    {"a state that is none", "state=ready,stuck", "state= wants", 0, 0, 0},
    {"no state", "state=", "state= wants", 0, 0, 0},
    {"seconds", "older=90s", NULL, QMGR_FILTER_OLDER, 0, TICK_S(90)},
    {"units together", "older=1d12h", NULL, QMGR_FILTER_OLDER, 0, TICK_S(129600)},
    {"weeks", "older=2w", NULL, QMGR_FILTER_OLDER, 0, TICK_S(1209600)},
    {"ten years", "older=3660d", NULL, QMGR_FILTER_OLDER, 0, TICK_S(3660ull * 86400)},
    {"more than ten years", "older=3660d1s", "older= wants", 0, 0, 0},
    {"a time that overflows", "older=99999999999999999999s", "older= wants", 0, 0, 0},
    {"a product that overflows", "older=18446744073709551615w", "older= wants", 0, 0, 0},
    {"a time without a unit", "older=5", "older= wants", 0, 0, 0},
    {"a unit without a number", "older=m", "older= wants", 0, 0, 0},
    {"a sign", "older=-5m", "older= wants", 0, 0, 0},
    {"no time", "younger=", "younger= wants", 0, 0, 0},
    {"the null sender", "sender=<>", NULL, QMGR_FILTER_SENDER, 0, 0},
    {"no sender", "sender=", "sender= wants", 0, 0, 0},
    {"an id that is none", "id=x", "id= wants", 0, 0, 0},
    {"twice", "domain=a domain=b", "domain= comes twice", 0, 0, 0},
    {"a word alone", "example.org", "expected TERM=VALUE", 0, 0, 0},
    {"an unknown term", "doman=a", "expected TERM=VALUE", 0, 0, 0},
    {"a control octet", "sender=a\x01@b", "sender= wants", 0, 0, 0},
    {"a domain in A-labels", "domain=xn--bcher-kva.example", NULL, QMGR_FILTER_DOMAIN, 0, 0},
    {"a domain in U-labels",
     "domain=b\xc3\xbc"
     "cher.example",
     "domain= wants a domain, its letters", 0, 0, 0},
    {"the longest domain", "domain=" LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63, NULL,
     QMGR_FILTER_DOMAIN, 0, 0},
    {"a longer domain", "domain=" LABEL_63 "." LABEL_63 "." LABEL_63 "." LABEL_63 "x",
     "domain= wants", 0, 0, 0},
};

static void filters_are_read(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(filter_rows); i++) {
        struct qmgr_filter filter = {.terms = 77};
        char why[QMGR_FILTER_WHY_SIZE] = "";
        enum err err = qmgr_filter_parse(span_from_text(filter_rows[i].text), &filter, why);
        print_message("# %s\n", filter_rows[i].name);
        if (filter_rows[i].why != NULL) {
            assert_int_equal(ERR_CONFIG_VALUE, err);
            assert_int_equal(77, filter.terms);
            assert_memory_equal(filter_rows[i].why, why, strlen(filter_rows[i].why));
            continue;
        }
        assert_int_equal(ERR_OK, err);
        assert_int_equal(filter_rows[i].terms, filter.terms);
        assert_int_equal(filter_rows[i].states, filter.states);
        assert_int_equal(filter_rows[i].older, filter.older);
    }
}

static void names_are_made_canonical(void **state)
{
    struct qmgr_filter filter;
    char why[QMGR_FILTER_WHY_SIZE];

    (void)state;
    assert_int_equal(ERR_OK, qmgr_filter_parse(SPAN_LITERAL("domain=Example.ORG. source=default "
                                                            "sender=\"a b\"@x sender_domain=<>"),
                                               &filter, why));
    assert_true(span_is_equal(qmgr_filter_span(&filter.domain), SPAN_LITERAL("example.org")));
    assert_int_equal(0, filter.source.size);
    assert_true(span_is_equal(qmgr_filter_span(&filter.sender), SPAN_LITERAL("\"a b\"@x")));
    assert_int_equal(0, filter.sender_domain.size);
}

/* ---- ages ---- */

#define NOW 1700000000000000

static void ages_fall_into_buckets(void **state)
{
    static const struct {
        int64_t age_s;
        uint32_t bucket;
    } rows[] = {
        {0, 0},         {200, 0},         {400, 1},      {700, 2},      {1300, 3},
        {60 * 70, 4},   {60 * 130, 5},    {60 * 250, 6}, {60 * 500, 7}, {60 * 1000, 8},
        {60 * 1500, 9}, {86400 * 400, 9}, {-3600, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_ages ages = {0};
        uint32_t buckets[QMGR_AGE_BUCKET_COUNT] = {0};
        qmgr_ages_add(&ages, NOW - rows[i].age_s * 1000000);
        qmgr_ages_count(&ages, NOW, buckets);
        assert_int_equal(1, buckets[rows[i].bucket]);
        qmgr_ages_fini(&ages);
    }
}

static uint32_t ages_sum(const struct qmgr_ages *ages)
{
    uint32_t buckets[QMGR_AGE_BUCKET_COUNT] = {0}, sum = 0;

    qmgr_ages_count(ages, NOW, buckets);
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        sum += buckets[i];
    return sum;
}

/* Bins stay few, in order, and narrow for their age. */
static void assert_bins(const struct qmgr_ages *ages)
{
    assert_true(ages->bin_count <= QMGR_AGES_BINS_MAX);
    for (uint32_t i = 0; i < ages->bin_count; i++) {
        uint32_t age = (uint32_t)(NOW / 1000000) - ages->bins[i].start;
        assert_true(ages->bins[i].end > ages->bins[i].start);
        assert_true(i == 0 || ages->bins[i - 1].end <= ages->bins[i].start);
        assert_true(ages->bins[i].end - ages->bins[i].start <= 64 + age / 2);
    }
}

static void counts_stay_exact(void **state)
{
    static wall_us arrived[3000];
    struct qmgr_ages ages = {0};
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 7);
    for (uint32_t i = 0; i < COUNT_OF(arrived); i++) {
        uint32_t range = 60u << rng_below(&rng, 13); /* up to 5 days, most of it young */
        arrived[i] = NOW - (wall_us)rng_below(&rng, range) * 1000000;
        qmgr_ages_add(&ages, arrived[i]);
        assert_int_equal(i + 1, ages_sum(&ages));
        assert_true(qmgr_ages_may_hold(&ages, arrived[i], arrived[i]));
    }
    assert_bins(&ages);
    assert_false(qmgr_ages_may_hold(&ages, 0, NOW - 86400000000 * 30));
    assert_false(qmgr_ages_may_hold(&ages, NOW + 3600000000, INT64_MAX));
    for (uint32_t i = COUNT_OF(arrived); i-- > 0;) {
        qmgr_ages_remove(&ages, arrived[i]);
        assert_int_equal(i, ages_sum(&ages));
    }
    assert_null(ages.bins);
}

static void mail_in_order_is_told_apart(void **state)
{
    struct qmgr_ages ages = {0};

    (void)state;
    for (int64_t second = 5 * 86400; second > 0; second -= 60)
        qmgr_ages_add(&ages, NOW - second * 1000000);
    assert_bins(&ages);
    uint32_t buckets[QMGR_AGE_BUCKET_COUNT] = {0};
    qmgr_ages_count(&ages, NOW, buckets);
    for (uint32_t i = 1; i < QMGR_AGE_BUCKET_COUNT; i++) { /* one a minute: the true counts */
        uint32_t wanted = i + 1 < QMGR_AGE_BUCKET_COUNT ? 5u << (i - 1) : 7200 - 1280;
        assert_in_range(buckets[i], wanted - wanted / 2 - 2, wanted + wanted / 2 + 2);
    }
    qmgr_ages_fini(&ages);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filters_are_read),
        cmocka_unit_test(names_are_made_canonical),
        cmocka_unit_test(ages_fall_into_buckets),
        cmocka_unit_test(counts_stay_exact),
        cmocka_unit_test(mail_in_order_is_told_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
