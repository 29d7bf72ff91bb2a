/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Standing orders: what may stand, each verb on mail that comes later, mail that comes back after a
 * restart, ends and cancellations. qmgr_verify() follows every step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

static uint32_t told; /* recipients that on_order reported */

static void on_order(void *context, const struct envelope *envelope, uint32_t recipient_index,
                     const struct qmgr_order *order)
{
    (void)context;
    assert_true(envelope->recipients[recipient_index].address.size > 0);
    assert_string_equal("because", order->reason);
    told++;
}

static void begin(struct fixture *f)
{
    struct qmgr_options options = {.message_count_max = 1000,
                                   .body_memory_max = 100000,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(600),
                                   .on_order = on_order};
    fixture_init(f, &options);
    f->is_new = true;
    told = 0;
}

static void insert(struct fixture *f, uint64_t id, const char *sender, const char *recipients)
{
    struct message_options options = {.id = id, .sender = sender, .recipients = recipients};
    assert_int_equal(ERR_OK, fixture_insert(f, &options, NULL));
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static struct qmgr_standing standing_of(const struct fixture *f, uint32_t id, enum qmgr_verb verb,
                                        const char *terms, tick_us time)
{
    struct qmgr_standing standing = {
        .order = {.verb = verb, .id = id, .until = QMGR_HOLD_FOR_EVER, .reason = "because"},
        .given = f->now.wall,
        .until = f->now.wall + (wall_us)time,
    };

    if (verb == QMGR_VERB_REROUTE)
        standing.order.route[0] = 'w';
    snprintf(standing.terms, sizeof(standing.terms), "%s", terms);
    return standing;
}

static void stand(struct fixture *f, uint32_t id, enum qmgr_verb verb, const char *terms,
                  tick_us time)
{
    struct qmgr_standing standing = standing_of(f, id, verb, terms, time);
    assert_int_equal(ERR_OK, qmgr_standing_add(f->qmgr, &standing, f->now));
}

/* Carries out `verb` on what matches; with `is_cancel` as a cancelled hold is released. */
static uint32_t act(struct fixture *f, enum qmgr_verb verb, const char *terms, bool is_cancel)
{
    struct qmgr_order order = {
        .verb = verb, .id = 999, .until = QMGR_HOLD_FOR_EVER, .reason = "because"};
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
        for (uint32_t i = 0; i < count && is_cancel; i++)
            qmgr_standing_hold_again(f->qmgr, &matches[i], f->now);
        assert_int_equal(0, qmgr_verify(f->qmgr));
    }
    return (uint32_t)acted.matched;
}

static uint32_t held_by(struct fixture *f, uint32_t id)
{
    struct qmgr_filter filter;
    char terms[32], why[QMGR_FILTER_WHY_SIZE];
    uint64_t count = 0, sum = 0;
    bool is_done = false;

    snprintf(terms, sizeof(terms), "order=%u", id);
    assert_int_equal(ERR_OK, qmgr_filter_parse(span_from_text(terms), &filter, why));
    uint64_t handle = qmgr_count_begin(f->qmgr, &filter, f->now);
    while (!is_done) {
        assert_int_equal(ERR_OK, qmgr_count_step(f->qmgr, handle, &count, &is_done, f->now));
        sum += count;
    }
    return (uint32_t)sum;
}

/* ---- what may stand ---- */

static void what_cannot_be_judged_is_refused(void **state)
{
    static const struct {
        const char *terms;
        enum err err;
    } rows[] = {
        {"", ERR_OK},
        {"domain=v", ERR_OK},
        {"sender=<>", ERR_OK},
        {"sender_domain=x.example recipient=a@v source=default class=3", ERR_OK},
        {"id=aaaaaaaaaaaaaaaaaaaaaaaaaa", ERR_CONFIG_VALUE},
        {"site=v", ERR_CONFIG_VALUE},
        {"domain=v site=v", ERR_CONFIG_VALUE},
        {"state=ready", ERR_CONFIG_VALUE},
        {"order=7", ERR_CONFIG_VALUE},
        {"older=1h", ERR_CONFIG_VALUE},
        {"younger=1h", ERR_CONFIG_VALUE},
        {"colour=red", ERR_CONFIG_VALUE},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_filter filter;
        char why[QMGR_FILTER_WHY_SIZE] = "";
        print_message("# %s\n", rows[i].terms);
        assert_int_equal(rows[i].err,
                         qmgr_standing_filter_parse(span_from_text(rows[i].terms), &filter, why));
        assert_int_equal(rows[i].err != ERR_OK, why[0] != '\0');
    }
    for (enum qmgr_verb verb = 0; verb < QMGR_VERB_COUNT; verb++)
        assert_int_equal(verb != QMGR_VERB_RELEASE && verb != QMGR_VERB_RETRY,
                         qmgr_verb_may_stand(verb));
}

static void terms_have_a_bound(void **state)
{
    char text[QMGR_STANDING_TERMS_SIZE + 1], why[QMGR_FILTER_WHY_SIZE];
    struct qmgr_filter filter;

    (void)state;
    memset(text, ' ', sizeof(text));
    assert_int_equal(ERR_OK, qmgr_standing_filter_parse(span_of(text, QMGR_STANDING_TERMS_SIZE - 1),
                                                        &filter, why));
    assert_int_equal(ERR_CONFIG_VALUE, qmgr_standing_filter_parse(
                                           span_of(text, QMGR_STANDING_TERMS_SIZE), &filter, why));
}

static void the_table_has_a_bound(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    for (uint32_t id = 1; id <= QMGR_STANDING_MAX; id++)
        stand(&f, id, QMGR_VERB_HOLD, "domain=v", TICK_S(id == 5 ? 10 : 100));
    struct qmgr_standing more = standing_of(&f, 1000, QMGR_VERB_HOLD, "domain=v", TICK_S(100));
    assert_int_equal(ERR_LIMIT, qmgr_standing_add(f.qmgr, &more, f.now));
    fixture_pass(&f, TICK_S(10)); /* the fifth has ended and makes room */
    assert_int_equal(ERR_OK, qmgr_standing_add(f.qmgr, &more, f.now));
    assert_int_equal(ERR_CONFIG_VALUE, qmgr_standing_add(f.qmgr, &more, f.now));
    assert_false(qmgr_standing_end(f.qmgr, 5, f.now));
    assert_true(qmgr_standing_end(f.qmgr, 1000, f.now));
    assert_false(qmgr_standing_end(f.qmgr, 1000, f.now));
    struct qmgr_standing damaged = standing_of(&f, 2000, QMGR_VERB_RETRY, "", TICK_S(100));
    assert_int_equal(ERR_CONFIG_VALUE, qmgr_standing_add(f.qmgr, &damaged, f.now));
    damaged = standing_of(&f, 2000, QMGR_VERB_HOLD, "", TICK_S(100));
    memset(damaged.terms, ' ', sizeof(damaged.terms));
    assert_int_equal(ERR_CONFIG_VALUE, qmgr_standing_add(f.qmgr, &damaged, f.now));
    fixture_fini(&f);
}

/* ---- new mail ---- */

static void each_verb_meets_new_mail(void **state)
{
    static const struct {
        enum qmgr_verb verb;
        uint32_t ready, held, done, told;
        const char *domain; /* of what is due */
    } rows[] = {
        {QMGR_VERB_HOLD, 0, 1, 0, 2, NULL},
        {QMGR_VERB_BOUNCE, 0, 0, 0, 2, NULL},
        {QMGR_VERB_DELETE, 0, 0, 1, 2, NULL},
        {QMGR_VERB_REROUTE, 1, 0, 0, 2, "w"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        uint32_t index = 0;
        begin(&f);
        print_message("# %s\n", qmgr_verb_name(rows[i].verb));
        stand(&f, 7, rows[i].verb, "domain=v", TICK_S(100));
        insert(&f, 1, NULL, "a@v b@v");
        struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
        assert_int_equal(rows[i].ready, stats.deliveries_ready);
        assert_int_equal(rows[i].held, stats.deliveries_held);
        assert_int_equal(rows[i].done, f.done_count);
        assert_int_equal(rows[i].told, told);
        assert_int_equal(2, qmgr_standing_next(f.qmgr, &index, f.now)->done_since);
        assert_null(qmgr_standing_next(f.qmgr, &index, f.now));
        struct qmgr_message *owed = qmgr_dsn_next(f.qmgr, f.now);
        assert_int_equal(rows[i].verb == QMGR_VERB_BOUNCE, owed != NULL);
        if (owed != NULL) {
            struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, owed);
            assert_true(span_is_equal(SPAN_LITERAL("because"), dsn.failures[0].reply));
        }
        struct qmgr_delivery *delivery = owed != NULL ? NULL : fixture_take_one(&f);
        assert_int_equal(rows[i].domain != NULL, delivery != NULL);
        if (delivery != NULL)
            fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
        fixture_fini(&f);
    }
}

static void terms_are_judged_on_new_mail(void **state)
{
    static const struct {
        const char *terms;
        uint32_t done; /* recipients of two messages that are deleted */
    } rows[] = {
        {"", 5},
        {"domain=v", 2},
        {"domain=W.", 3},
        {"domain=u", 0},
        {"sender_domain=x.example", 3},
        {"sender=<>", 2},
        {"sender=A@x.EXAMPLE", 3},
        {"sender=a@y.example", 0},
        {"user=alice", 0}, /* nobody was logged in */
        {"recipient=b@w", 1},
        {"recipient=b@w domain=v", 0},
        {"source=default", 5},
        {"source=bulk", 0},
        {"class=0 domain=v", 2},
        {"class=1", 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        for (uint32_t is_full = 0; is_full < 2; is_full++) {
            struct fixture f;
            begin(&f);
            if (is_full) /* no room to keep envelopes */
                f.is_new = false;
            print_message("# %s\n", rows[i].terms);
            stand(&f, 7, QMGR_VERB_DELETE, rows[i].terms, TICK_S(100));
            insert(&f, 1, NULL, "a@v b@w c@w");
            insert(&f, 2, "", "a@v d@w");
            assert_int_equal(rows[i].done, qmgr_get_stats(f.qmgr).deleted_recipients);
            assert_int_equal(rows[i].done, told);
            fixture_fini(&f);
        }
    }
}

static void an_order_ends(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    stand(&f, 7, QMGR_VERB_HOLD, "", TICK_S(100));
    insert(&f, 1, NULL, "a@v");
    fixture_pass(&f, TICK_S(60));
    insert(&f, 2, NULL, "b@v");
    assert_int_equal(2, held_by(&f, 7));
    fixture_pass(&f, TICK_S(41));
    assert_int_equal(0, held_by(&f, 7)); /* a hold lasts as long as its order */
    insert(&f, 3, NULL, "c@v");
    assert_int_equal(3, qmgr_get_stats(f.qmgr).deliveries_ready);
    fixture_fini(&f);
}

static void the_longest_hold_holds(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    stand(&f, 1, QMGR_VERB_HOLD, "domain=v", TICK_S(100));
    insert(&f, 1, NULL, "a@v");
    stand(&f, 2, QMGR_VERB_HOLD, "recipient=b@v", TICK_S(300));
    stand(&f, 3, QMGR_VERB_HOLD, "", TICK_S(200));
    insert(&f, 2, NULL, "b@v");
    insert(&f, 3, NULL, "c@v");
    assert_int_equal(1, held_by(&f, 1));
    assert_int_equal(1, held_by(&f, 2));
    assert_int_equal(1, held_by(&f, 3));
    /* What a cancelled hold lets go, another one holds on. */
    assert_true(qmgr_standing_end(f.qmgr, 2, f.now));
    assert_int_equal(1, act(&f, QMGR_VERB_RELEASE, "order=2", true));
    assert_int_equal(2, held_by(&f, 3));
    assert_true(qmgr_standing_end(f.qmgr, 3, f.now));
    assert_int_equal(2, act(&f, QMGR_VERB_RELEASE, "order=3", true));
    assert_int_equal(3, held_by(&f, 1));
    /* What an operator releases goes. */
    assert_int_equal(3, act(&f, QMGR_VERB_RELEASE, "", false));
    assert_int_equal(3, qmgr_get_stats(f.qmgr).deliveries_ready);
    fixture_fini(&f);
}

static void orders_follow_one_another(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    stand(&f, 1, QMGR_VERB_REROUTE, "domain=v", TICK_S(100)); /* to w */
    stand(&f, 2, QMGR_VERB_HOLD, "domain=w", TICK_S(100));
    stand(&f, 3, QMGR_VERB_DELETE, "recipient=b@v", TICK_S(100));
    insert(&f, 1, NULL, "a@v b@v c@w d@u");
    assert_int_equal(2, held_by(&f, 2)); /* a@v, by w now, and c@w */
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deleted_recipients);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_ready);
    fixture_fini(&f);
}

/* ---- mail that comes back ---- */

/* The order was given while this mail was not in the queue: it is judged before its attempt. */
static void mail_that_comes_back_is_judged_before_its_attempt(void **state)
{
    static const struct {
        enum qmgr_verb verb;
        const char *terms;
        uint32_t held, done;
        bool is_owed, is_rerouted;
    } rows[] = {
        {QMGR_VERB_HOLD, "recipient=b@v", 2, 0, false, false},
        {QMGR_VERB_BOUNCE, "sender=a@x.example", 0, 0, true, false},
        {QMGR_VERB_DELETE, "domain=v", 0, 1, false, false},
        {QMGR_VERB_REROUTE, "domain=v", 0, 0, false, true},
    };

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        struct fixture f;
        uint32_t row = i / 2;
        begin(&f);
        f.is_index_only = i % 2 == 0;
        insert(&f, 1, NULL, "a@v b@v");
        struct qmgr_standing standing =
            standing_of(&f, 7, rows[row].verb, rows[row].terms, TICK_S(100));
        f.standing = &standing;
        f.standing_count = 1;
        f.is_new = false;
        print_message("# %s\n", qmgr_verb_name(rows[row].verb));
        fixture_restart(&f);
        struct qmgr_line *line = qmgr_line_next(f.qmgr, f.now);
        struct qmgr_delivery *delivery = line == NULL ? NULL : qmgr_take(f.qmgr, line, f.now);
        bool is_loaded = true;
        if (delivery != NULL && !qmgr_delivery_is_loaded(delivery)) {
            assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
            assert_false(is_loaded);
            qmgr_finish(f.qmgr, delivery, &(struct qmgr_finish){0}, f.now);
        }
        if (line != NULL)
            qmgr_line_return(f.qmgr, line, f.now);
        assert_int_equal(0, qmgr_verify(f.qmgr));
        assert_int_equal(rows[row].held, held_by(&f, 7));
        assert_int_equal(rows[row].done, f.done_count);
        assert_int_equal(rows[row].is_owed, qmgr_dsn_next(f.qmgr, f.now) != NULL);
        if (rows[row].is_rerouted)
            assert_int_equal(2, act(&f, QMGR_VERB_RETRY, "domain=w", false));
        assert_true(told >= 1);
        fixture_fini(&f);
    }
}

static void what_was_released_is_not_held_again(void **state)
{
    (void)state;
    for (uint32_t is_released = 0; is_released < 2; is_released++) {
        struct fixture f;
        begin(&f);
        struct qmgr_standing standing = standing_of(&f, 7, QMGR_VERB_HOLD, "", TICK_S(1000));
        assert_int_equal(ERR_OK, qmgr_standing_add(f.qmgr, &standing, f.now));
        insert(&f, 1, NULL, "a@v");
        assert_int_equal(1, held_by(&f, 7));
        if (is_released)
            assert_int_equal(1, act(&f, QMGR_VERB_RELEASE, "", false));
        f.standing = &standing;
        f.standing_count = 1;
        f.is_new = false;
        f.is_index_only = true;
        fixture_restart(&f);
        assert_int_equal(!is_released, held_by(&f, 7));
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        assert_int_equal(is_released, delivery != NULL);
        if (delivery != NULL)
            fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
        assert_int_equal(is_released, f.done_count);
        fixture_fini(&f);
    }
}

/* The same, of mail that was under way when it was to be held, and released. */
static void what_was_released_under_way_is_not_held_again(void **state)
{
    (void)state;
    for (uint32_t is_released = 0; is_released < 2; is_released++) {
        struct fixture f;
        begin(&f);
        insert(&f, 1, NULL, "a@v");
        assert_non_null(fixture_take_one(&f));
        struct qmgr_standing standing = standing_of(&f, 999, QMGR_VERB_HOLD, "", TICK_S(1000));
        assert_int_equal(ERR_OK, qmgr_standing_add(f.qmgr, &standing, f.now));
        assert_int_equal(1, act(&f, QMGR_VERB_HOLD, "", false));
        assert_int_equal(1, held_by(&f, 999));
        if (is_released)
            assert_int_equal(1, act(&f, QMGR_VERB_RELEASE, "order=999", false));
        f.standing = &standing;
        f.standing_count = 1;
        f.is_new = false;
        fixture_restart(&f);
        assert_int_equal(!is_released, held_by(&f, 999));
        fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_judged_is_refused),
        cmocka_unit_test(terms_have_a_bound),
        cmocka_unit_test(the_table_has_a_bound),
        cmocka_unit_test(each_verb_meets_new_mail),
        cmocka_unit_test(terms_are_judged_on_new_mail),
        cmocka_unit_test(an_order_ends),
        cmocka_unit_test(the_longest_hold_holds),
        cmocka_unit_test(orders_follow_one_another),
        cmocka_unit_test(mail_that_comes_back_is_judged_before_its_attempt),
        cmocka_unit_test(what_was_released_is_not_held_again),
        cmocka_unit_test(what_was_released_under_way_is_not_held_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
