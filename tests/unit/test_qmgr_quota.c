/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is beyond a user's quota: held as it comes, held when it comes back, with and without what
 * the spool was told of the hold, and released by an operator alone. qmgr_verify() follows every
 * step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

static uint32_t told;

static void on_order(void *context, const struct envelope *envelope, uint32_t recipient_index,
                     const struct qmgr_order *order)
{
    (void)context;
    assert_true(envelope->recipients[recipient_index].address.size > 0);
    if (order->verb != QMGR_VERB_HOLD)
        return;
    assert_int_equal(QMGR_ORDER_QUOTA, order->id);
    assert_string_equal("quota", order->reason);
    told++;
}

static void begin(struct fixture *f, uint64_t body_memory)
{
    struct qmgr_options options = {.message_count_max = 1000,
                                   .body_memory_max = body_memory,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(600),
                                   .on_order = on_order};
    fixture_init(f, &options);
    f->is_new = true;
    told = 0;
}

static struct spool_entry *insert(struct fixture *f, uint32_t flags, const char *recipients)
{
    struct message_options options = {.id = 1, .flags = flags, .recipients = recipients};
    struct spool_entry *entry;

    assert_int_equal(ERR_OK, fixture_insert(f, &options, &entry));
    assert_int_equal(0, qmgr_verify(f->qmgr));
    return entry;
}

/* The crash took back what the spool was told since. */
static void forget(struct spool_entry *entry)
{
    for (uint32_t i = 0; i < entry->progress_count; i++)
        free((uint8_t *)(uintptr_t)entry->progress[i].data);
    entry->progress_count = 0;
}

static uint32_t act(struct fixture *f, enum qmgr_verb verb, const char *terms)
{
    struct qmgr_order order = {.verb = verb, .id = 9, .until = QMGR_HOLD_FOR_EVER};
    struct qmgr_filter filter;
    struct qmgr_match matches[4];
    struct qmgr_acted acted = {0};
    char why[QMGR_FILTER_WHY_SIZE];
    bool is_done = false;
    uint32_t count;

    assert_int_equal(ERR_OK, qmgr_filter_parse(span_from_text(terms), &filter, why));
    uint64_t handle = qmgr_scan_begin(f->qmgr, &filter, f->now);
    while (!is_done) {
        assert_int_equal(ERR_OK,
                         qmgr_scan_step(f->qmgr, handle, matches, 4, &count, &is_done, f->now));
        qmgr_act(f->qmgr, matches, count, &order, &acted, f->now);
        assert_int_equal(0, qmgr_verify(f->qmgr));
    }
    return (uint32_t)acted.done;
}

static void come_back(struct fixture *f, bool is_index_only)
{
    f->is_new = false;
    f->is_index_only = is_index_only;
    fixture_restart(f);
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static void held_and_ready(const struct fixture *f, uint32_t held, uint32_t ready)
{
    struct qmgr_stats stats = qmgr_get_stats(f->qmgr);

    assert_int_equal(held, stats.deliveries_held);
    assert_true(stats.quota_held <= held);
    assert_int_equal(ready, stats.deliveries_ready);
}

static void it_is_held_as_it_comes(void **state)
{
    static const struct {
        const char *name;
        uint64_t body_memory; /* 0: there is no room for envelopes either */
        uint32_t flags, held, ready, told;
    } rows[] = {
        {"within the quota", 100000, 0, 0, 2, 0},
        {"beyond it", 100000, ENVELOPE_OVER_QUOTA, 2, 0, 3},
        {"beyond it, without room", 0, ENVELOPE_OVER_QUOTA, 2, 0, 3},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        print_message("# %s\n", rows[i].name);
        begin(&f, rows[i].body_memory);
        insert(&f, rows[i].flags, "a@v b@v c@w");
        held_and_ready(&f, rows[i].held, rows[i].ready);
        assert_int_equal(rows[i].told, told);
        fixture_pass(&f, TICK_S(86400)); /* no time releases it */
        held_and_ready(&f, rows[i].held, rows[i].ready);
        fixture_fini(&f);
    }
}

static void it_is_held_when_it_comes_back(void **state)
{
    static const struct {
        const char *name;
        bool is_index_only, is_forgotten; /* the crash took back what was told of the hold */
    } rows[] = {
        {"envelope", false, false},
        {"index", true, false},
        {"envelope, the hold was not durable", false, true},
        {"index, the hold was not durable", true, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        print_message("# %s\n", rows[i].name);
        begin(&f, 100000);
        struct spool_entry *entry = insert(&f, ENVELOPE_OVER_QUOTA, "a@v b@w");
        if (rows[i].is_forgotten)
            forget(entry);
        come_back(&f, rows[i].is_index_only);
        held_and_ready(&f, 2, 0);
        assert_int_equal(2, told);
        assert_int_equal(2, act(&f, QMGR_VERB_RELEASE, ""));
        held_and_ready(&f, 0, 2);
        come_back(&f, rows[i].is_index_only);
        held_and_ready(&f, 0, 2);
        fixture_fini(&f);
    }
}

/* The hold of what was not released is in the spool although the crash took back what was told of
 * it before. */
static void a_part_that_is_released_takes_no_other_along(void **state)
{
    (void)state;
    for (uint32_t is_index_only = 0; is_index_only < 2; is_index_only++) {
        struct fixture f;
        begin(&f, 100000);
        struct spool_entry *entry = insert(&f, ENVELOPE_OVER_QUOTA, "a@v b@w c@u");
        forget(entry);
        come_back(&f, is_index_only);
        assert_int_equal(1, act(&f, QMGR_VERB_RELEASE, "domain=w"));
        held_and_ready(&f, 2, 1);
        come_back(&f, is_index_only);
        held_and_ready(&f, 2, 1);
        assert_int_equal(2, act(&f, QMGR_VERB_RELEASE, "order=4194302"));
        held_and_ready(&f, 0, 3);
        fixture_fini(&f);
    }
}

static void other_orders_meet_it(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f, 100000);
    insert(&f, ENVELOPE_OVER_QUOTA, "a@v b@w c@u");
    assert_int_equal(0, act(&f, QMGR_VERB_RETRY, ""));
    assert_int_equal(0, act(&f, QMGR_VERB_HOLD, ""));
    assert_int_equal(1, act(&f, QMGR_VERB_DELETE, "domain=v"));
    held_and_ready(&f, 2, 0);
    come_back(&f, true);
    held_and_ready(&f, 2, 0);
    fixture_pass(&f, TICK_S(6 * 86400)); /* it expires as what is held does */
    held_and_ready(&f, 0, 0);
    assert_non_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_fini(&f);
}

static void its_number_is_nobody_elses(void **state)
{
    struct fixture f;
    struct qmgr_standing standing = {.order = {.verb = QMGR_VERB_HOLD}};

    (void)state;
    begin(&f, 100000);
    standing.until = f.now.wall + 1000;
    standing.order.id = QMGR_ORDER_GIVEN_MAX;
    assert_int_equal(ERR_OK, qmgr_standing_add(f.qmgr, &standing, f.now));
    standing.order.id = QMGR_ORDER_QUOTA;
    assert_int_equal(ERR_CONFIG_VALUE, qmgr_standing_add(f.qmgr, &standing, f.now));
    assert_int_equal(4194302, QMGR_ORDER_QUOTA); /* docs/submission.md */
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_held_as_it_comes),
        cmocka_unit_test(it_is_held_when_it_comes_back),
        cmocka_unit_test(a_part_that_is_released_takes_no_other_along),
        cmocka_unit_test(other_orders_meet_it),
        cmocka_unit_test(its_number_is_nobody_elses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
