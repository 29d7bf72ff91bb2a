/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders of operators: each verb on each state of a delivery, mail under way, restarts, expiry.
 * qmgr_verify() follows every order.
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
    assert_int_equal(RECIPIENT_DUE, envelope->recipients[recipient_index].state);
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
    told = 0;
}

static void insert(struct fixture *f, uint64_t id, const char *sender, const char *recipients)
{
    struct message_options options = {.id = id, .sender = sender, .recipients = recipients};
    assert_int_equal(ERR_OK, fixture_insert(f, &options, NULL));
}

static struct qmgr_acted act_by(struct fixture *f, uint32_t id, enum qmgr_verb verb,
                                const char *terms, wall_us until)
{
    struct qmgr_order order = {
        .verb = verb, .id = id, .until = until, .route = "w", .reason = "because"};
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
    return acted;
}

static struct qmgr_acted act(struct fixture *f, enum qmgr_verb verb, const char *terms,
                             wall_us until)
{
    return act_by(f, 7, verb, terms, until);
}

static void defer_all(struct fixture *f)
{
    struct qmgr_delivery *delivery;

    while ((delivery = fixture_take_one(f)) != NULL)
        fixture_finish_all(f, delivery, RECIPIENT_DUE, "451 later");
}

/* ---- verbs and states ---- */

enum { NOW_READY, NOW_WAITING, NOW_HELD };
static const struct {
    enum qmgr_verb verb;
    uint32_t state;
    bool is_done;
    uint32_t ready, waiting, held, messages, failed, deleted;
} verb_rows[] = {
    {QMGR_VERB_HOLD, NOW_READY, true, 0, 0, 1, 1, 0, 0},
    {QMGR_VERB_HOLD, NOW_WAITING, true, 0, 0, 1, 1, 0, 0},
    {QMGR_VERB_RELEASE, NOW_HELD, true, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_RELEASE, NOW_WAITING, false, 0, 1, 0, 1, 0, 0},
    {QMGR_VERB_RELEASE, NOW_READY, false, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_RETRY, NOW_WAITING, true, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_RETRY, NOW_READY, false, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_RETRY, NOW_HELD, false, 0, 0, 1, 1, 0, 0},
    {QMGR_VERB_BOUNCE, NOW_READY, true, 0, 0, 0, 1, 2, 0},
    {QMGR_VERB_BOUNCE, NOW_WAITING, true, 0, 0, 0, 1, 2, 0},
    {QMGR_VERB_BOUNCE, NOW_HELD, true, 0, 0, 0, 1, 2, 0},
    {QMGR_VERB_DELETE, NOW_READY, true, 0, 0, 0, 0, 0, 2},
    {QMGR_VERB_DELETE, NOW_WAITING, true, 0, 0, 0, 0, 0, 2},
    {QMGR_VERB_DELETE, NOW_HELD, true, 0, 0, 0, 0, 0, 2},
    {QMGR_VERB_REROUTE, NOW_READY, true, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_REROUTE, NOW_WAITING, true, 1, 0, 0, 1, 0, 0},
    {QMGR_VERB_REROUTE, NOW_HELD, true, 0, 0, 1, 1, 0, 0},
};

static void every_verb_on_every_state(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(verb_rows); i++) {
        struct fixture f;
        print_message("# verb %u on state %u\n", verb_rows[i].verb, verb_rows[i].state);
        begin(&f);
        insert(&f, 1, NULL, "a@v b@v");
        if (verb_rows[i].state == NOW_WAITING)
            defer_all(&f);
        if (verb_rows[i].state == NOW_HELD)
            (void)act(&f, QMGR_VERB_HOLD, "", QMGR_HOLD_FOR_EVER);
        told = 0;
        struct qmgr_acted acted = act(&f, verb_rows[i].verb, "domain=v", QMGR_HOLD_FOR_EVER);
        struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
        assert_int_equal(2, acted.matched);
        assert_int_equal(verb_rows[i].is_done ? 2 : 0, acted.done);
        assert_int_equal(verb_rows[i].is_done ? 2 : 0, told);
        assert_int_equal(verb_rows[i].ready, stats.deliveries_ready);
        assert_int_equal(verb_rows[i].waiting, stats.deliveries_waiting);
        assert_int_equal(verb_rows[i].held, stats.deliveries_held);
        assert_int_equal(verb_rows[i].messages, stats.messages);
        assert_int_equal(verb_rows[i].failed, stats.failed_recipients);
        assert_int_equal(verb_rows[i].deleted, stats.deleted_recipients);
        assert_int_equal(1 - verb_rows[i].messages, f.done_count);
        fixture_fini(&f);
    }
}

/* ---- holds ---- */

static void held_mail_is_not_tried(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v b@w c@v");
    struct qmgr_acted acted =
        act(&f, QMGR_VERB_HOLD, "sender_domain=x.example", QMGR_HOLD_FOR_EVER);
    assert_int_equal(3, acted.done);
    fixture_pass(&f, TICK_S(3600));
    assert_null(fixture_take_one(&f));
    acted = act(&f, QMGR_VERB_RELEASE, "order=8", 0);
    assert_int_equal(0, acted.matched);
    acted = act(&f, QMGR_VERB_RELEASE, "order=7 domain=w", 0);
    assert_int_equal(1, acted.done);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_non_null(delivery);
    fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_held);
    fixture_fini(&f);
}

static void hold_has_an_end(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v");
    (void)act(&f, QMGR_VERB_HOLD, "domain=v", f.now.wall + 60000000);
    fixture_pass(&f, TICK_S(59));
    assert_null(fixture_take_one(&f));
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_held);
    fixture_pass(&f, TICK_S(1) + 1000);
    assert_int_equal(0, qmgr_verify(f.qmgr));
    assert_non_null(fixture_take_one(&f));
    fixture_fini(&f);
}

static void holds_survive_a_restart(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v b@w c@u d@t");
    (void)act(&f, QMGR_VERB_HOLD, "domain=v", QMGR_HOLD_FOR_EVER);
    (void)act(&f, QMGR_VERB_HOLD, "domain=w", f.now.wall + 60000000);
    (void)act(&f, QMGR_VERB_HOLD, "domain=u", f.now.wall + 7200000000);
    (void)act(&f, QMGR_VERB_HOLD, "domain=t", QMGR_HOLD_FOR_EVER);
    (void)act(&f, QMGR_VERB_RELEASE, "domain=t", 0);
    f.now.tick += TICK_S(3600); /* w's hold ends while we are away */
    f.now.wall += 3600000000;
    fixture_restart(&f);
    assert_int_equal(0, qmgr_verify(f.qmgr));
    assert_int_equal(2, qmgr_get_stats(f.qmgr).deliveries_held);
    assert_int_equal(2, qmgr_get_stats(f.qmgr).deliveries_ready);
    fixture_pass(&f, TICK_S(3601));
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_held);
    struct qmgr_acted acted = act(&f, QMGR_VERB_RELEASE, "order=7", 0);
    assert_int_equal(1, acted.done);
    fixture_fini(&f);
}

static void held_mail_expires(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v");
    (void)act(&f, QMGR_VERB_HOLD, "", QMGR_HOLD_FOR_EVER);
    fixture_pass(&f, TICK_S(6 * 86400));
    assert_int_equal(1, f.expired_count);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).deliveries_held);
    assert_int_equal(0, qmgr_verify(f.qmgr));
    fixture_fini(&f);
}

/* ---- under way ---- */

static void results_win_over_orders(void **state)
{
    static const enum qmgr_verb verbs[] = {QMGR_VERB_HOLD, QMGR_VERB_BOUNCE, QMGR_VERB_DELETE};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(verbs); i++) {
        struct fixture f;
        begin(&f);
        insert(&f, 1, NULL, "a@v b@v");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        struct qmgr_acted acted = act(&f, verbs[i], "domain=v", QMGR_HOLD_FOR_EVER);
        assert_int_equal(2, acted.in_flight);
        assert_int_equal(0, told);
        assert_true(qmgr_delivery_is_cancelled(delivery));
        struct qmgr_result result = {
            .recipient_index = 0, .state = RECIPIENT_DELIVERED, .code = 250};
        struct qmgr_finish finish = {.results = &result, .result_count = 1, .was_attempted = true};
        qmgr_finish(f.qmgr, delivery, &finish, f.now);
        struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
        assert_int_equal(1, stats.delivered_recipients);
        assert_int_equal(1, told); /* the other one got the order */
        assert_int_equal(verbs[i] == QMGR_VERB_HOLD, stats.deliveries_held);
        assert_int_equal(verbs[i] == QMGR_VERB_BOUNCE, stats.failed_recipients);
        assert_int_equal(verbs[i] == QMGR_VERB_DELETE, stats.deleted_recipients);
        assert_int_equal(verbs[i] == QMGR_VERB_DELETE, f.done_count);
        assert_int_equal(0, qmgr_verify(f.qmgr));
        fixture_restart(&f); /* what was wished and carried out is in the spool */
        assert_int_equal(verbs[i] == QMGR_VERB_HOLD, qmgr_get_stats(f.qmgr).deliveries_held);
        fixture_fini(&f);
    }
}

static void wish_to_hold_is_withdrawn(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v");
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    (void)act(&f, QMGR_VERB_HOLD, "domain=v", QMGR_HOLD_FOR_EVER);
    struct qmgr_acted acted = act(&f, QMGR_VERB_RELEASE, "domain=v", 0);
    assert_int_equal(1, acted.done);
    assert_false(qmgr_delivery_is_cancelled(delivery));
    fixture_finish_all(&f, delivery, RECIPIENT_DUE, "451 later");
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_waiting);
    delivery = NULL;
    (void)act(&f, QMGR_VERB_RETRY, "domain=v", 0);
    delivery = fixture_take_one(&f);
    (void)act(&f, QMGR_VERB_DELETE, "domain=v", 0); /* leaves nothing to the next */
    (void)act(&f, QMGR_VERB_BOUNCE, "domain=v", 0);
    fixture_finish_all(&f, delivery, RECIPIENT_DUE, "451 later");
    assert_int_equal(0, qmgr_get_stats(f.qmgr).failed_recipients);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deleted_recipients);
    fixture_fini(&f);
}

/* What is left of an attempt that never ended. */
static void wishes_outlive_a_restart(void **state)
{
    static const struct {
        const char *name;
        enum qmgr_verb verbs[3];
        uint32_t count;
        const char *terms; /* of the first order */
        bool is_index, is_null_sender;
        uint32_t held, failed, ready, done;
        const char *domain; /* of what is left */
    } rows[] = {
        {"hold", {QMGR_VERB_HOLD}, 1, "domain=v", 0, 0, 1, 0, 0, 0, "v"},
        {"hold, by its index", {QMGR_VERB_HOLD}, 1, "domain=v", 1, 0, 1, 0, 0, 0, "v"},
        {"released", {QMGR_VERB_HOLD, QMGR_VERB_RELEASE}, 2, "", 0, 0, 0, 0, 1, 0, "v"},
        {"bounce", {QMGR_VERB_BOUNCE}, 1, "", 0, 0, 0, 2, 0, 0, NULL},
        {"bounce, by its index", {QMGR_VERB_BOUNCE}, 1, "", 1, 0, 0, 2, 0, 0, NULL},
        {"bounce of one", {QMGR_VERB_BOUNCE}, 1, "recipient=b@v", 0, 0, 0, 1, 1, 0, "v"},
        {"bounce of a notification", {QMGR_VERB_BOUNCE}, 1, "", 1, 1, 0, 0, 0, 1, NULL},
        {"delete", {QMGR_VERB_DELETE}, 1, "", 0, 0, 0, 0, 0, 1, NULL},
        {"delete, bounce", {QMGR_VERB_DELETE, QMGR_VERB_BOUNCE}, 2, "", 0, 0, 0, 0, 0, 1, NULL},
        {"delete of one, bounce",
         {QMGR_VERB_DELETE, QMGR_VERB_BOUNCE},
         2,
         "recipient=b@v",
         0,
         0,
         0,
         1,
         0,
         0,
         NULL},
        {"delete of one, hold",
         {QMGR_VERB_DELETE, QMGR_VERB_HOLD},
         2,
         "recipient=b@v",
         0,
         0,
         1,
         0,
         0,
         0,
         "v"},
        {"reroute", {QMGR_VERB_REROUTE}, 1, "", 0, 0, 0, 0, 1, 0, "w"},
        {"hold, reroute", {QMGR_VERB_HOLD, QMGR_VERB_REROUTE}, 2, "", 0, 0, 1, 0, 0, 0, "w"},
        {"hold, reroute, release",
         {QMGR_VERB_HOLD, QMGR_VERB_REROUTE, QMGR_VERB_RELEASE},
         3,
         "",
         1,
         0,
         0,
         0,
         1,
         0,
         "w"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        begin(&f);
        print_message("# %s\n", rows[i].name);
        f.is_index_only = rows[i].is_index;
        insert(&f, 1, rows[i].is_null_sender ? "" : NULL, "a@v b@v");
        assert_non_null(fixture_take_one(&f));
        for (uint32_t j = 0; j < rows[i].count; j++)
            (void)act_by(&f, 7 + j, rows[i].verbs[j], j == 0 ? rows[i].terms : "",
                         QMGR_HOLD_FOR_EVER);
        for (uint32_t lives = 0; lives < 2; lives++) { /* a start changes nothing */
            fixture_restart(&f);
            struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
            assert_int_equal(rows[i].held, stats.deliveries_held);
            assert_int_equal(rows[i].failed, stats.failed_recipients);
            assert_int_equal(rows[i].ready, stats.deliveries_ready);
            assert_int_equal(rows[i].done, f.done_count);
            assert_int_equal(0, stats.progress_corrupt);
            assert_int_equal(0, qmgr_verify(f.qmgr));
        }
        char terms[16];
        if (rows[i].domain != NULL) {
            (void)snprintf(terms, sizeof(terms), "domain=%s", rows[i].domain);
            assert_true(act(&f, QMGR_VERB_RETRY, terms, 0).matched > 0);
        }
        fixture_fini(&f);
    }
}

/* Results are told by a later PROGRESS, or an earlier one: they win all the same. */
static void results_win_over_wishes_that_come_back(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v b@v c@v");
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    (void)act_by(&f, 7, QMGR_VERB_BOUNCE, "", 0);
    struct qmgr_result result = {.recipient_index = 1, .state = RECIPIENT_DELIVERED, .code = 250};
    struct qmgr_finish finish = {.results = &result, .result_count = 1, .was_attempted = true};
    qmgr_finish(f.qmgr, delivery, &finish, f.now);
    fixture_restart(&f);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(2, dsn.failure_count);
    assert_int_equal(0, dsn.failures[0].recipient_index);
    assert_int_equal(554, dsn.failures[0].code);
    assert_true(span_is_equal(dsn.failures[0].reply, SPAN_LITERAL("because")));
    assert_int_equal(2, dsn.failures[1].recipient_index);
    assert_true(dsn.is_done);
    fixture_fini(&f);
}

/* Orders that contradict each other end as they would about mail that waits; whether the attempt
 * ends or never does. */
static void orders_about_mail_under_way_contradict(void **state)
{
    static const struct {
        const char *name;
        struct {
            enum qmgr_verb verb;
            const char *terms;
            tick_us duration; /* 0: for ever */
        } orders[3];          /* 7, 8, 9 */
        uint32_t count;
        const char *held; /* NULL: nothing is */
    } rows[] = {
        {"released by its number",
         {{QMGR_VERB_HOLD, "", 0}, {QMGR_VERB_RELEASE, "order=7", 0}},
         2,
         NULL},
        {"released by another number",
         {{QMGR_VERB_HOLD, "", 0}, {QMGR_VERB_RELEASE, "order=8", 0}},
         2,
         "order=7"},
        {"a retry releases nothing",
         {{QMGR_VERB_HOLD, "", 0}, {QMGR_VERB_RETRY, "", 0}},
         2,
         "order=7"},
        {"a shorter hold takes over nothing",
         {{QMGR_VERB_HOLD, "", 0}, {QMGR_VERB_HOLD, "", TICK_S(1000)}},
         2,
         "order=7"},
        {"a longer hold takes over",
         {{QMGR_VERB_HOLD, "", TICK_S(1000)}, {QMGR_VERB_HOLD, "", 0}},
         2,
         "order=8"},
        {"the longer one is released",
         {{QMGR_VERB_HOLD, "", 0},
          {QMGR_VERB_HOLD, "", TICK_S(1000)},
          {QMGR_VERB_RELEASE, "order=7", 0}},
         3,
         NULL},
    };

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        uint32_t row = i / 2;
        struct fixture f;
        begin(&f);
        print_message("# %s\n", rows[row].name);
        insert(&f, 1, NULL, "a@v b@v");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        for (uint32_t j = 0; j < rows[row].count; j++) {
            tick_us duration = rows[row].orders[j].duration;
            (void)act_by(&f, 7 + j, rows[row].orders[j].verb, rows[row].orders[j].terms,
                         duration == 0 ? QMGR_HOLD_FOR_EVER : f.now.wall + (wall_us)duration);
        }
        if (i % 2 == 0)
            fixture_finish_all(&f, delivery, RECIPIENT_DUE, "451 later");
        else
            fixture_restart(&f);
        assert_int_equal(rows[row].held != NULL, qmgr_get_stats(f.qmgr).deliveries_held);
        if (rows[row].held != NULL)
            assert_int_equal(2, act(&f, QMGR_VERB_RELEASE, rows[row].held, 0).done);
        fixture_fini(&f);
    }
}

/* ---- the ends of recipients ---- */

static void bounce_is_told_with_its_reason(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v b@w");
    (void)act(&f, QMGR_VERB_BOUNCE, "recipient=b@w", 0);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(1, dsn.failure_count);
    assert_int_equal(1, dsn.failures[0].recipient_index);
    assert_int_equal(554, dsn.failures[0].code);
    assert_false(dsn.failures[0].is_expired);
    assert_true(span_is_equal(dsn.failures[0].reply, SPAN_LITERAL("because")));
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_ready); /* the other one goes on */
    fixture_fini(&f);
}

static void null_sender_is_told_nothing(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, "", "a@v");
    (void)act(&f, QMGR_VERB_BOUNCE, "sender=<>", 0);
    assert_int_equal(1, f.done_count);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_fini(&f);
}

static uint32_t matching(struct fixture *f, const char *terms)
{
    return (uint32_t)act(f, QMGR_VERB_RELEASE, terms, 0).matched;
}

/* Recipients of three domains, in turn, end in one line, as three deliveries. */
static void rerouted_mail_keeps_its_recipients(void **state)
{
    struct fixture f;
    (void)state;

    for (uint32_t is_restarted = 0; is_restarted < 2; is_restarted++) {
        begin(&f);
        insert(&f, 1, NULL, "a@u b@v c@u d@w e@v");
        assert_int_equal(2, act(&f, QMGR_VERB_REROUTE, "domain=u", 0).done);
        assert_int_equal(2, act(&f, QMGR_VERB_REROUTE, "domain=v", 0).done);
        assert_int_equal(0, act(&f, QMGR_VERB_REROUTE, "domain=w", 0).done); /* they are there */
        if (is_restarted)
            fixture_restart(&f);
        assert_int_equal(5, matching(&f, "domain=w"));
        assert_int_equal(0, matching(&f, "domain=u"));
        assert_int_equal(1, matching(&f, "recipient=c@u"));
        for (uint32_t i = 0; i < 3; i++) {
            struct qmgr_delivery *delivery = fixture_take_one(&f);
            assert_non_null(delivery);
            struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
            const struct envelope_recipient *first = &view.envelope->recipients[view.recipients[0]];
            assert_int_equal('w', first->domain.data[0]);
            uint8_t own = first->address.data[first->address.size - 1];
            assert_int_equal(own == 'w' ? 1 : 2, view.recipient_count);
            for (uint32_t j = 0; j < view.recipient_count; j++) {
                struct span address = view.envelope->recipients[view.recipients[j]].address;
                assert_int_equal(own, address.data[address.size - 1]);
            }
            fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
            assert_int_equal(0, qmgr_verify(f.qmgr));
        }
        assert_int_equal(1, f.done_count);
        fixture_fini(&f);
    }
}

/* What is written anew names the committed domains, so that deliveries keep their recipients. */
static void mended_mail_keeps_its_recipients(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    f.is_new = true;
    insert(&f, 1, NULL, "a@v b@w c@v d@w");
    struct message_id id = {(uint64_t)f.now.wall, 1};
    assert_int_equal(2, act(&f, QMGR_VERB_REROUTE, "domain=v", 0).done);
    assert_true(qmgr_damaged(f.qmgr, id, SPOOL_DAMAGE_ENVELOPE, f.now));
    defer_all(&f); /* from now on the envelope is read back */
    assert_int_equal(4, act(&f, QMGR_VERB_RETRY, "", 0).done);
    for (uint32_t i = 0; i < 2; i++) {
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        assert_non_null(delivery);
        struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
        assert_int_equal(2, view.recipient_count);
        assert_int_equal(view.recipients[0] + 2, view.recipients[1]);
        fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    assert_int_equal(1, f.done_count);
    fixture_fini(&f);
}

/* More recipients than a step tells: what is moved is moved as a whole, and counted once. */
static void large_deliveries_are_counted_whole(void **state)
{
    static const struct {
        enum qmgr_verb verb;
        const char *terms;
        uint32_t matched, done;
    } rows[] = {
        {QMGR_VERB_REROUTE, "domain=v", 10, 10},
        {QMGR_VERB_REROUTE, "", 20, 20},
        {QMGR_VERB_HOLD, "state=ready", 20, 20},
        {QMGR_VERB_HOLD, "sender_domain=x.example", 20, 20},
        {QMGR_VERB_RELEASE, "", 20, 0},
        {QMGR_VERB_BOUNCE, "domain=u", 10, 10},
        {QMGR_VERB_HOLD, "recipient=d@v", 1, 1},
    };
    char recipients[256] = "";

    (void)state;
    for (uint32_t i = 0; i < 10; i++) {
        size_t size = strlen(recipients);
        snprintf(recipients + size, sizeof(recipients) - size, "%s%c@v %c@u", i > 0 ? " " : "",
                 'a' + (int)i, 'a' + (int)i);
    }
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        begin(&f);
        insert(&f, 1, NULL, recipients);
        print_message("# %s\n", rows[i].terms);
        struct qmgr_acted acted = act(&f, rows[i].verb, rows[i].terms, QMGR_HOLD_FOR_EVER);
        assert_int_equal(rows[i].matched, acted.matched);
        assert_int_equal(rows[i].done, acted.done);
        if (rows[i].verb == QMGR_VERB_HOLD && rows[i].done > 1) {
            acted = act(&f, QMGR_VERB_RELEASE, "state=held", 0);
            assert_int_equal(20, acted.done);
        }
        fixture_fini(&f);
    }
}

/* Recipients of an envelope that cannot be read cannot be told apart: all of it, or nothing. */
static void unreadable_mail_is_deleted_as_a_whole(void **state)
{
    struct fixture f;

    (void)state;
    begin(&f);
    insert(&f, 1, NULL, "a@v b@w c@v");
    f.entries->is_unreadable = true;
    struct qmgr_acted acted = act(&f, QMGR_VERB_DELETE, "domain=v", 0);
    assert_int_equal(2, acted.matched);
    assert_int_equal(2, acted.unreadable);
    assert_int_equal(0, acted.done);
    acted = act(&f, QMGR_VERB_BOUNCE, "", 0);
    assert_int_equal(3, acted.unreadable);
    acted = act(&f, QMGR_VERB_HOLD, "domain=v", QMGR_HOLD_FOR_EVER);
    assert_int_equal(2, acted.done);
    acted = act(&f, QMGR_VERB_DELETE, "", 0);
    assert_int_equal(3, acted.done);
    assert_int_equal(1, f.done_count);
    fixture_fini(&f);
}

/* All of many, while the scan walks over what it ends. */
static void bulk_ends_all(void **state)
{
    static const char *const filters[] = {"", "domain=v", "sender_domain=x.example", "class=0"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(filters); i++) {
        struct fixture f;
        begin(&f);
        for (uint32_t id = 1; id <= 300; id++)
            insert(&f, id, NULL, "a@v b@v");
        struct qmgr_acted acted = act(&f, QMGR_VERB_DELETE, filters[i], 0);
        assert_int_equal(600, acted.done);
        assert_int_equal(300, f.done_count);
        assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
        fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_verb_on_every_state),
        cmocka_unit_test(held_mail_is_not_tried),
        cmocka_unit_test(hold_has_an_end),
        cmocka_unit_test(holds_survive_a_restart),
        cmocka_unit_test(held_mail_expires),
        cmocka_unit_test(results_win_over_orders),
        cmocka_unit_test(wish_to_hold_is_withdrawn),
        cmocka_unit_test(wishes_outlive_a_restart),
        cmocka_unit_test(orders_about_mail_under_way_contradict),
        cmocka_unit_test(results_win_over_wishes_that_come_back),
        cmocka_unit_test(bounce_is_told_with_its_reason),
        cmocka_unit_test(null_sender_is_told_nothing),
        cmocka_unit_test(rerouted_mail_keeps_its_recipients),
        cmocka_unit_test(mended_mail_keeps_its_recipients),
        cmocka_unit_test(large_deliveries_are_counted_whole),
        cmocka_unit_test(unreadable_mail_is_deleted_as_a_whole),
        cmocka_unit_test(bulk_ends_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
