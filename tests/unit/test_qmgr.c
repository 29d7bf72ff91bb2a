/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue manager, rule by rule: order, turns, retries, expiry. qmgr_verify() follows every step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

#define DAY TICK_S(86400)

static void assert_sound(struct fixture *f)
{
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static void insert(struct fixture *f, uint64_t id, const char *recipients)
{
    struct message_options options = {.id = id, .recipients = recipients};
    assert_int_equal(ERR_OK, fixture_insert(f, &options, NULL));
    assert_sound(f);
}

static uint64_t delivery_id(struct fixture *f, struct qmgr_delivery *delivery)
{
    return qmgr_delivery_view(f->qmgr, delivery).envelope->id.low;
}

static void finish_all(struct fixture *f, struct qmgr_delivery *delivery,
                       enum recipient_state state, const char *reply)
{
    fixture_finish_all(f, delivery, state, reply);
    assert_sound(f);
}

static void defer(struct fixture *f, struct qmgr_delivery *delivery,
                  const struct qmgr_finish *finish)
{
    qmgr_finish(f->qmgr, delivery, finish, f->now);
    assert_sound(f);
}

static struct qmgr_status only_status(struct fixture *f, uint32_t recipient_index)
{
    uint64_t cursor = 0;
    struct qmgr_message *message = qmgr_next(f->qmgr, &cursor);
    assert_non_null(message);
    return fixture_status(f, message, recipient_index);
}

/* ---- the fast path ---- */

static void delivered_mail_leaves_no_trace(void **state)
{
    struct fixture f;
    struct spool_entry *entry;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options options = {.id = 1, .recipients = "b@y c@y"};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_non_null(delivery);
    assert_sound(&f);
    struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
    assert_int_equal(2, view.recipient_count);
    assert_int_equal(0, view.recipients[0]);
    assert_int_equal(1, view.recipients[1]);
    assert_ptr_equal(entry, view.entry);
    assert_int_equal(0, view.attempts);
    assert_int_equal(f.now.wall, view.active_since);
    assert_true(buf_queue_is_empty(view.body));
    finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_true(entry->is_done);
    assert_int_equal(0, entry->progress_count);
    struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
    assert_int_equal(0, stats.messages + stats.lines + stats.deliveries_active);
    assert_int_equal(2, stats.delivered_recipients);
    assert_int_equal(1, stats.done);
    assert_int_equal(TICK_NEVER, qmgr_deadline(f.qmgr));
    fixture_fini(&f);
}

static void recipients_are_grouped_by_domain(void **state)
{
    static const char *const domains[] = {"w", "z", "y"};
    struct fixture f;
    uint32_t seen = 0;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@y b@z c@y d@w e@z f@y");
    assert_int_equal(3, qmgr_get_stats(f.qmgr).deliveries_ready);
    for (uint32_t i = 0; i < 3; i++) {
        struct qmgr_line *line;
        struct qmgr_delivery *delivery = fixture_take(&f, &line);
        struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
        uint32_t which = 0;
        while (!span_is_equal(span_from_text(domains[which]), qmgr_line_domain(line)))
            which++;
        seen |= 1u << which;
        assert_int_equal(which + 1, view.recipient_count);
        for (uint32_t r = 0; r < view.recipient_count; r++)
            assert_true(span_is_equal(qmgr_line_domain(line),
                                      view.envelope->recipients[view.recipients[r]].domain));
        assert_null(qmgr_take(f.qmgr, line, f.now));
        qmgr_line_return(f.qmgr, line, f.now);
        finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    assert_int_equal(7, seen);
    assert_int_equal(1, f.done_count);
    fixture_fini(&f);
}

/* ---- order and turns ---- */

/* Goal: what arrived first goes first, also when it was tried before and comes due again late. */
static void line_is_served_in_order_of_arrival(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "b@y");
    struct qmgr_delivery *first = fixture_take_one(&f);
    finish_all(&f, first, RECIPIENT_DUE, "451 later");
    for (uint64_t id = 2; id < 20; id++) {
        fixture_pass(&f, TICK_S(1));
        insert(&f, id, "b@y");
    }
    fixture_pass(&f, TICK_S(3600));
    assert_sound(&f);
    struct qmgr_line *line = qmgr_line_next(f.qmgr, f.now);
    for (uint64_t id = 1; id < 20; id++) {
        assert_int_equal(20 - id, qmgr_line_due(line));
        struct qmgr_delivery *delivery = qmgr_take(f.qmgr, line, f.now);
        assert_int_equal(id, delivery_id(&f, delivery));
        finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    assert_null(qmgr_take(f.qmgr, line, f.now));
    qmgr_line_return(f.qmgr, line, f.now);
    fixture_fini(&f);
}

static void lines_take_turns_and_lower_classes_go_first(void **state)
{
    /* Lines in the order in which they must come, each given back at once. */
    static const char *const expected[] = {"y", "z", "y", "z", "w", "v", "w"};
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options messages[] = {
        {.id = 1, .recipients = "b@w", .class = 7}, {.id = 2, .recipients = "b@v", .class = 7},
        {.id = 3, .recipients = "c@w", .class = 7}, {.id = 4, .recipients = "b@y", .class = 3},
        {.id = 5, .recipients = "b@z", .class = 3}, {.id = 6, .recipients = "c@y", .class = 3},
        {.id = 7, .recipients = "c@z", .class = 3},
    };
    for (uint32_t i = 0; i < COUNT_OF(messages); i++)
        assert_int_equal(ERR_OK, fixture_insert(&f, &messages[i], NULL));
    for (uint32_t i = 0; i < COUNT_OF(expected); i++) {
        struct qmgr_line *line;
        struct qmgr_delivery *delivery = fixture_take(&f, &line);
        assert_true(span_is_equal(span_from_text(expected[i]), qmgr_line_domain(line)));
        qmgr_line_return(f.qmgr, line, f.now);
        finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    assert_null(qmgr_line_next(f.qmgr, f.now));
    fixture_fini(&f);
}

static void pool_and_class_make_lines_of_their_own(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options messages[] = {
        {.id = 1, .recipients = "b@y"},
        {.id = 2, .recipients = "b@y", .class = 255},
        {.id = 3, .recipients = "b@y", .pool = "bulk"},
        {.id = 4, .recipients = "b@ybulk"},
        {.id = 5, .recipients = "c@y"},
    };
    for (uint32_t i = 0; i < COUNT_OF(messages); i++)
        assert_int_equal(ERR_OK, fixture_insert(&f, &messages[i], NULL));
    assert_int_equal(4, qmgr_get_stats(f.qmgr).lines);
    struct qmgr_line *line, *last = NULL;
    uint32_t count = 0;
    while ((line = qmgr_line_next(f.qmgr, f.now)) != NULL) {
        count++;
        last = line;
        assert_sound(&f);
    }
    assert_int_equal(4, count);
    assert_non_null(qmgr_take(f.qmgr, last, f.now)); /* class 255 comes last, and comes */
    fixture_fini(&f);
}

static void parked_line_stays_with_its_holder(void **state)
{
    struct fixture f;
    int user;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "b@y");
    struct qmgr_line *line;
    struct qmgr_delivery *delivery = fixture_take(&f, &line);
    assert_null(qmgr_line_user(line));
    qmgr_line_set_user(line, &user);
    assert_ptr_equal(&user, qmgr_line_user(line));
    insert(&f, 2, "b@y");
    assert_null(qmgr_line_next(f.qmgr, f.now));
    finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(1, qmgr_line_due(line));
    qmgr_line_return(f.qmgr, line, f.now);
    assert_int_equal(0, f.line_gone_count);

    /* The same line again; emptied while parked it outlives its mail until it is given back. */
    delivery = fixture_take(&f, &line);
    finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(1, qmgr_get_stats(f.qmgr).lines);
    assert_int_equal(0, f.line_gone_count);
    qmgr_line_return(f.qmgr, line, f.now);
    assert_int_equal(1, f.line_gone_count);
    assert_ptr_equal(&user, f.line_gone_user);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).lines);
    fixture_fini(&f);
}

/* ---- retries ---- */

static void retries_double_up_to_the_maximum(void **state)
{
    static const uint32_t base_s[] = {300, 600, 1200, 2400, 4800, 9600, 14400, 14400, 14400};
    struct fixture f;
    tick_us least = TICK_NEVER, most = 0;

    (void)state;
    fixture_init(&f, NULL);
    for (uint64_t round = 0; round < 60; round++) {
        insert(&f, round, "b@y");
        for (uint32_t i = 0; i < COUNT_OF(base_s); i++) {
            struct qmgr_delivery *delivery = fixture_take_one(&f);
            assert_int_equal(i, qmgr_delivery_view(f.qmgr, delivery).attempts);
            finish_all(&f, delivery, RECIPIENT_DUE, "451 later");
            tick_us wait = (tick_us)(only_status(&f, 0).next_try - f.now.wall);
            assert_in_range(wait, TICK_S(base_s[i]) / 10 * 8, TICK_S(base_s[i]) / 10 * 12);
            least = i == 0 && wait < least ? wait : least;
            most = i == 0 && wait > most ? wait : most;
            assert_true(qmgr_deadline(f.qmgr) <= f.now.tick + wait);
            fixture_pass(&f, wait - 1);
            assert_null(fixture_take_one(&f));
            fixture_pass(&f, 1001); /* a slot of the wheel late at most */
        }
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    assert_true(least < TICK_S(255) && most > TICK_S(345)); /* the jitter uses its range */
    assert_int_equal(60 * COUNT_OF(base_s), qmgr_get_stats(f.qmgr).deferrals);
    fixture_fini(&f);
}

static void retry_times_follow_the_finish(void **state)
{
    struct fixture f;
    const struct {
        const char *name;
        struct qmgr_finish finish;
        tick_us not_before, wait_min, wait_max;
        uint32_t attempts;
    } rows[] = {
        {"not attempted: at once", {.was_attempted = false}, 0, 0, 0, 0},
        {"not attempted, later", {.was_attempted = false}, TICK_S(77), TICK_S(77), TICK_S(77), 0},
        {"rest of a batch", {.was_attempted = true, .retry_now = true}, 0, 0, 0, 1},
        {"deferred", {.was_attempted = true}, 0, TICK_S(240), TICK_S(360), 1},
        {"deferred, not before", {.was_attempted = true}, TICK_S(900), TICK_S(900), TICK_S(900), 1},
        {"not before in the past", {.was_attempted = true}, TICK_S(1), TICK_S(240), TICK_S(360), 1},
        {"not before beyond a week", {.was_attempted = true}, 9 * DAY, 7 * DAY, 7 * DAY, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        fixture_init(&f, NULL);
        insert(&f, 1, "b@y");
        struct qmgr_finish finish = rows[i].finish;
        if (rows[i].not_before != 0)
            finish.retry_not_before = f.now.wall + (wall_us)rows[i].not_before;
        defer(&f, fixture_take_one(&f), &finish);
        struct qmgr_status status = only_status(&f, 0);
        tick_us wait = (tick_us)(status.next_try - f.now.wall);
        if (wait < rows[i].wait_min || wait > rows[i].wait_max ||
            status.attempts != rows[i].attempts)
            fail_msg("%s: %lu", rows[i].name, (unsigned long)wait);
        assert_int_equal(rows[i].wait_max == 0, qmgr_get_stats(f.qmgr).deliveries_ready);
        fixture_fini(&f);
    }
}

static void unmentioned_recipients_stay_due(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@y b@y c@y");
    struct qmgr_result results[] = {
        {.recipient_index = 2, .state = RECIPIENT_DELIVERED, .code = 250},
        {.recipient_index = 0, .state = RECIPIENT_DUE, .reply = SPAN_LITERAL("452 too\r\nmany")},
    };
    struct qmgr_finish finish = {
        .results = results, .result_count = 2, .was_attempted = true, .retry_now = true};
    defer(&f, fixture_take_one(&f), &finish);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
    assert_int_equal(2, view.recipient_count);
    assert_int_equal(0, view.recipients[0]);
    assert_int_equal(1, view.recipients[1]);
    assert_int_equal(RECIPIENT_DELIVERED, view.envelope->recipients[2].state);
    assert_true(span_is_equal(SPAN_LITERAL("452 too??many"), view.last_reply));
    assert_int_equal(1, view.attempts);
    finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(1, f.done_count);
    fixture_fini(&f);
}

/* The states of eight recipients are in the message itself, those of more beside it. */
static void states_of_few_and_many(void **state)
{
    static const char *const recipients[] = {"a@y", "a@y b@y c@y d@y e@y f@y g@y h@y",
                                             "a@y b@y c@y d@y e@y f@y g@y h@y i@y"};
    static const uint32_t counts[] = {1, 8, 9};

    (void)state;
    for (uint32_t row = 0; row < COUNT_OF(counts); row++) {
        struct fixture f;
        uint32_t last = counts[row] - 1;

        fixture_init(&f, NULL);
        insert(&f, 1, recipients[row]);
        struct qmgr_result result = {
            .recipient_index = last, .state = RECIPIENT_DELIVERED, .code = 250};
        struct qmgr_finish finish = {
            .results = &result, .result_count = 1, .was_attempted = true, .retry_now = true};
        if (last == 0)
            qmgr_finish(f.qmgr, fixture_take_one(&f), &finish, f.now);
        else
            defer(&f, fixture_take_one(&f), &finish);
        assert_sound(&f);
        assert_int_equal(last == 0, f.done_count);
        if (last > 0) {
            struct qmgr_delivery *delivery = fixture_take_one(&f);
            struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
            assert_int_equal(last, view.recipient_count);
            for (uint32_t i = 0; i <= last; i++)
                assert_int_equal(i == last ? RECIPIENT_DELIVERED : RECIPIENT_DUE,
                                 view.envelope->recipients[i].state);
            finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
            assert_int_equal(1, f.done_count);
        }
        fixture_fini(&f);
    }
}

/* ---- expiry ---- */

static void expiry_ends_what_waits(void **state)
{
    struct fixture f;
    struct spool_entry *entry;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options options = {.id = 1, .recipients = "b@y c@z", .lifetime = TICK_S(1000)};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 try later");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 try later");
    fixture_pass(&f, TICK_S(1000) - 1);
    assert_int_equal(0, f.expired_count);
    fixture_pass(&f, 1001);
    assert_sound(&f);
    assert_int_equal(2, f.expired_count);
    assert_int_equal(2, qmgr_get_stats(f.qmgr).expired_recipients);
    assert_null(fixture_take_one(&f));
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(2, dsn.failure_count);
    assert_true(dsn.is_done);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(i, dsn.failures[i].recipient_index);
        assert_true(dsn.failures[i].is_expired);
        assert_memory_equal("\4\4\7", dsn.failures[i].enhanced, 3);
        assert_true(span_is_equal(SPAN_LITERAL("451 try later"), dsn.failures[i].reply));
    }
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_sound(&f);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    assert_int_equal(0, f.done_count); /* the commit of the DSN did it */
    fixture_fini(&f);
}

/* Goal: only monotonic time expires mail. */
static void wall_clock_jumps_expire_nothing_early(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "b@y");
    f.now.wall += 4000ll * 86400 * 1000000; /* eleven years ahead */
    fixture_pass(&f, 5 * DAY - TICK_S(1));
    assert_int_equal(0, f.expired_count);
    f.now.wall -= 8000ll * 86400 * 1000000; /* and back: no late expiry either */
    fixture_pass(&f, TICK_S(2));
    assert_int_equal(1, f.expired_count);
    assert_sound(&f);

    /* A clock that runs behind when a message comes back does not lengthen its life. */
    struct message_options options = {
        .id = 2, .recipients = "b@y", .arrived = f.now.wall + 90ll * 86400 * 1000000};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    fixture_pass(&f, 5 * DAY + TICK_S(1));
    assert_int_equal(2, f.expired_count);

    /* Expired while the relay was down: ends in the first turn. */
    options = (struct message_options){
        .id = 3, .recipients = "b@y", .arrived = f.now.wall - 6ll * 86400 * 1000000};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    assert_true(qmgr_deadline(f.qmgr) <= f.now.tick);
    fixture_pass(&f, 0);
    assert_int_equal(3, f.expired_count);
    fixture_fini(&f);
}

static void result_of_an_active_delivery_wins_over_expiry(void **state)
{
    static const struct {
        const char *name;
        enum recipient_state state;
        uint32_t expired, done;
        bool owes_dsn;
    } rows[] = {
        {"delivered", RECIPIENT_DELIVERED, 0, 1, false},
        {"refused", RECIPIENT_FAILED, 0, 0, true},
        {"deferred", RECIPIENT_DUE, 1, 0, true},
    };
    struct fixture f;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        fixture_init(&f, NULL);
        insert(&f, 1, "b@y");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        assert_false(qmgr_delivery_is_cancelled(delivery));
        fixture_pass(&f, 6 * DAY);
        assert_sound(&f);
        assert_int_equal(0, f.expired_count);
        assert_true(qmgr_delivery_is_cancelled(delivery));
        assert_null(qmgr_dsn_next(f.qmgr, f.now));
        finish_all(&f, delivery, rows[i].state, "550 text");
        if (f.expired_count != rows[i].expired || f.done_count != rows[i].done ||
            (qmgr_dsn_next(f.qmgr, f.now) != NULL) != rows[i].owes_dsn)
            fail_msg("%s", rows[i].name);
        fixture_fini(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(delivered_mail_leaves_no_trace),
        cmocka_unit_test(recipients_are_grouped_by_domain),
        cmocka_unit_test(line_is_served_in_order_of_arrival),
        cmocka_unit_test(lines_take_turns_and_lower_classes_go_first),
        cmocka_unit_test(pool_and_class_make_lines_of_their_own),
        cmocka_unit_test(parked_line_stays_with_its_holder),
        cmocka_unit_test(retries_double_up_to_the_maximum),
        cmocka_unit_test(retry_times_follow_the_finish),
        cmocka_unit_test(unmentioned_recipients_stay_due),
        cmocka_unit_test(states_of_few_and_many),
        cmocka_unit_test(expiry_ends_what_waits),
        cmocka_unit_test(wall_clock_jumps_expire_nothing_early),
        cmocka_unit_test(result_of_an_active_delivery_wins_over_expiry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
