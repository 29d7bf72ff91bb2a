/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: senders hear what they asked for and nothing else: of failures, of relayed successes, once
 * of a delay; and no sender gets more notices in an hour than its share, while none is lost.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/qmgr_fixture.h"

#define N ENVELOPE_NOTIFY_NEVER
#define S ENVELOPE_NOTIFY_SUCCESS
#define F ENVELOPE_NOTIFY_FAILURE
#define D ENVELOPE_NOTIFY_DELAY

#define HOUR TICK_S(3600)

static const struct qmgr_options defaults = {
    .message_count_max = 1000,
    .body_memory_max = 100000,
    .retry_min = TICK_S(300),
    .retry_max = HOUR,
    .delay_after = 4 * HOUR,
};

static void assert_sound(struct fixture *f)
{
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static void insert(struct fixture *f, uint64_t id, const char *sender, const char *recipients,
                   const uint8_t *notify)
{
    struct message_options options = {
        .id = id, .sender = sender, .recipients = recipients, .notify = notify};
    assert_int_equal(ERR_OK, fixture_insert(f, &options, NULL));
    assert_sound(f);
}

/* The DSN that is owed now becomes durable, crash or not. */
static void write_dsn(struct fixture *f, struct qmgr_message *message)
{
    struct qmgr_dsn dsn = qmgr_dsn_view(f->qmgr, message);
    spool_progress(NULL, dsn.entry, dsn.progress);
    qmgr_dsn_written(f->qmgr, message, f->now);
    assert_sound(f);
}

static void notices_are_those_asked_for(void **state)
{
    static const struct {
        const char *name, *sender;
        uint8_t notify;
        enum recipient_state state; /* how the attempt ends */
        bool is_told;
        enum qmgr_notice notice;
    } rows[] = {
        {"failure, nothing said", NULL, 0, RECIPIENT_FAILED, true, QMGR_NOTICE_FAILED},
        {"failure, asked", NULL, F, RECIPIENT_FAILED, true, QMGR_NOTICE_FAILED},
        {"failure, never", NULL, N, RECIPIENT_FAILED, false, 0},
        {"failure, other things asked", NULL, S | D, RECIPIENT_FAILED, false, 0},
        {"failure, null sender", "", F, RECIPIENT_FAILED, false, 0},
        {"relayed, nothing said", NULL, 0, RECIPIENT_RELAYED, false, 0},
        {"relayed, asked", NULL, S, RECIPIENT_RELAYED, true, QMGR_NOTICE_RELAYED},
        {"relayed, other things asked", NULL, F | D, RECIPIENT_RELAYED, false, 0},
        {"relayed, null sender", "", S, RECIPIENT_RELAYED, false, 0},
        {"passed on with what was asked", NULL, S, RECIPIENT_DELIVERED, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        fixture_init(&f, &defaults);
        insert(&f, 1, rows[i].sender, "a@v", &rows[i].notify);
        fixture_finish_all(&f, fixture_take_one(&f), rows[i].state, "250 2.0.0 so it is");
        if ((qmgr_get_stats(f.qmgr).messages > 0) != rows[i].is_told)
            fail_msg("%s", rows[i].name);
        struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
        if ((message != NULL) != rows[i].is_told)
            fail_msg("%s", rows[i].name);
        if (message != NULL) {
            struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
            assert_int_equal(rows[i].notice, dsn.failures[0].notice);
            assert_int_equal(rows[i].notice == QMGR_NOTICE_FAILED, dsn.has_failed);
            assert_true(dsn.is_done);
            qmgr_dsn_written(f.qmgr, message, f.now);
        }
        assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
        fixture_fini(&f);
    }
}

/* Failures and successes of one message are told together, and a restart changes nothing. */
static void relayed_recipients_survive_a_restart(void **state)
{
    static const uint8_t notify[] = {S, S | F, 0, S};
    struct fixture f;

    (void)state;
    fixture_init(&f, &defaults);
    insert(&f, 1, NULL, "a@v b@v c@v d@w", notify);
    struct qmgr_line *line;
    struct qmgr_delivery *delivery = fixture_take(&f, &line);
    if (qmgr_line_domain(line).data[0] == 'w') {
        struct qmgr_line *other;
        struct qmgr_delivery *w = delivery;
        delivery = fixture_take(&f, &other);
        fixture_finish_all(&f, w, RECIPIENT_DUE, "451 later");
        qmgr_line_return(f.qmgr, other, f.now);
    } else {
        fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 later");
    }
    qmgr_line_return(f.qmgr, line, f.now);
    struct qmgr_result results[] = {
        {.recipient_index = 0, .state = RECIPIENT_RELAYED, .reply = SPAN_LITERAL("250 ok a")},
        {.recipient_index = 1,
         .state = RECIPIENT_FAILED,
         .code = 550,
         .reply = SPAN_LITERAL("550")},
        {.recipient_index = 2, .state = RECIPIENT_RELAYED, .reply = SPAN_LITERAL("250 ok c")},
    };
    qmgr_finish(f.qmgr, delivery,
                &(struct qmgr_finish){.results = results, .result_count = 3, .was_attempted = true},
                f.now);
    assert_sound(&f);
    for (uint32_t round = 0; round < 2; round++) {
        struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
        assert_non_null(message);
        struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
        assert_int_equal(2, dsn.failure_count);
        assert_int_equal(0, dsn.failures[0].recipient_index);
        assert_int_equal(QMGR_NOTICE_RELAYED, dsn.failures[0].notice);
        assert_true(span_is_equal(SPAN_LITERAL("250 ok a"), dsn.failures[0].reply));
        assert_int_equal(QMGR_NOTICE_FAILED, dsn.failures[1].notice);
        assert_false(dsn.is_done);
        if (round == 0)
            fixture_restart(&f);
        else
            write_dsn(&f, message);
        assert_sound(&f);
    }
    fixture_restart(&f);
    assert_sound(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    uint64_t cursor = 0;
    struct qmgr_message *message = qmgr_next(f.qmgr, &cursor);
    assert_int_equal(RECIPIENT_DELIVERED, fixture_status(&f, message, 0).state);
    assert_int_equal(RECIPIENT_SETTLED, fixture_status(&f, message, 1).state);
    assert_int_equal(RECIPIENT_DELIVERED, fixture_status(&f, message, 2).state);
    assert_int_equal(RECIPIENT_DUE, fixture_status(&f, message, 3).state);
    fixture_fini(&f);
}

/* ---- delays ---- */

static void defer_all(struct fixture *f)
{
    struct qmgr_delivery *delivery;
    while ((delivery = fixture_take_one(f)) != NULL)
        fixture_finish_all(f, delivery, RECIPIENT_DUE, "451 4.2.1 busy");
    assert_sound(f);
}

static void delay_is_told_at_its_time_and_once(void **state)
{
    static const uint8_t notify[] = {D, 0, N, F | D};
    struct fixture f;

    (void)state;
    fixture_init(&f, &defaults);
    insert(&f, 1, NULL, "a@v b@v c@v d@w", notify);
    defer_all(&f);
    fixture_pass(&f, 4 * HOUR - TICK_S(1));
    defer_all(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, TICK_S(2));
    assert_sound(&f);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(2, dsn.failure_count);
    assert_int_equal(0, dsn.failures[0].recipient_index);
    assert_int_equal(3, dsn.failures[1].recipient_index);
    assert_int_equal(QMGR_NOTICE_DELAYED, dsn.failures[0].notice);
    assert_true(span_is_equal(SPAN_LITERAL("451 4.2.1 busy"), dsn.failures[0].reply));
    assert_false(dsn.has_failed);
    assert_true(dsn.has_delayed);
    assert_false(dsn.is_done);
    assert_sound(&f);

    /* Its commit fails: it is told later. */
    qmgr_dsn_failed(f.qmgr, message, f.now);
    assert_sound(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, TICK_S(301));
    defer_all(&f);
    message = qmgr_dsn_next(f.qmgr, f.now);
    assert_int_equal(0, qmgr_dsn_view(f.qmgr, message).run);
    write_dsn(&f, message);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).delays_told);

    /* Not again, neither now nor after a restart; the failure that follows is another run. */
    fixture_pass(&f, HOUR);
    defer_all(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_restart(&f);
    assert_sound(&f);
    fixture_pass(&f, HOUR);
    defer_all(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, 5 * 24 * HOUR);
    message = qmgr_dsn_next(f.qmgr, f.now);
    dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(2, dsn.failure_count); /* b and d; c wants nothing, a only delays */
    assert_int_equal(1, dsn.failures[0].recipient_index);
    assert_true(dsn.failures[0].is_expired);
    assert_int_equal(1, dsn.run);
    fixture_fini(&f);
}

static void expiry_comes_at_its_time_behind_a_delay(void **state)
{
    static const uint8_t notify[] = {F | D};
    struct fixture f;

    (void)state;
    fixture_init(&f, &defaults);
    insert(&f, 1, NULL, "a@v", notify);
    fixture_pass(&f, 4 * HOUR + TICK_S(1));
    write_dsn(&f, qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, 116 * HOUR - TICK_S(2));
    assert_int_equal(0, f.expired_count);
    fixture_pass(&f, TICK_S(2));
    assert_int_equal(1, f.expired_count);
    assert_sound(&f);
    fixture_fini(&f);
}

static void delay_is_not_told_when_it_has_no_point(void **state)
{
    static const uint8_t delay[] = {D, 0};
    static const struct {
        const char *name, *sender;
        const uint8_t *notify;
        tick_us after, lifetime;
        bool is_unasked, is_told;
    } rows[] = {
        {"asked", NULL, delay, 4 * HOUR, 0, false, true},
        {"switched off", NULL, delay, 0, 0, false, false},
        {"not asked", NULL, NULL, 4 * HOUR, 0, false, false},
        {"not asked, told all the same", NULL, NULL, 4 * HOUR, 0, true, true},
        {"null sender", "", delay, 4 * HOUR, 0, true, false},
        {"life ends before", NULL, delay, 4 * HOUR, 4 * HOUR, true, false},
        {"life ends a second later", NULL, delay, 4 * HOUR, 4 * HOUR + TICK_S(1), false, true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_options options = defaults;
        struct fixture f;
        options.delay_after = rows[i].after;
        options.is_delay_unasked = rows[i].is_unasked;
        fixture_init(&f, &options);
        struct message_options message = {.id = 1,
                                          .sender = rows[i].sender,
                                          .recipients = "a@v b@v",
                                          .notify = rows[i].notify,
                                          .lifetime = rows[i].lifetime};
        assert_int_equal(ERR_OK, fixture_insert(&f, &message, NULL));
        fixture_pass(&f, 4 * HOUR + TICK_S(1) / 2);
        struct qmgr_message *owed = qmgr_dsn_next(f.qmgr, f.now);
        bool is_told = owed != NULL && qmgr_dsn_view(f.qmgr, owed).has_delayed;
        if (is_told != rows[i].is_told)
            fail_msg("%s", rows[i].name);
        assert_sound(&f);
        fixture_fini(&f);
    }
}

/* Who asked has had the mail when the notice could go. */
static void delivered_mail_is_not_late(void **state)
{
    static const uint8_t notify[] = {D, 0};
    struct fixture f;

    (void)state;
    fixture_init(&f, &defaults);
    insert(&f, 1, NULL, "a@v b@w", notify);
    struct qmgr_line *line;
    struct qmgr_delivery *first = fixture_take(&f, &line), *second;
    bool is_v = qmgr_line_domain(line).data[0] == 'v';
    qmgr_line_return(f.qmgr, line, f.now);
    second = fixture_take_one(&f);
    fixture_pass(&f, 4 * HOUR + TICK_S(1));
    fixture_finish_all(&f, is_v ? first : second, RECIPIENT_DELIVERED, "250 ok");
    fixture_finish_all(&f, is_v ? second : first, RECIPIENT_DUE, "451 no");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_sound(&f);

    /* And a message that is delivered while the notice is being written ends after it. */
    insert(&f, 2, NULL, "a@v", notify);
    struct qmgr_delivery *late = fixture_take_one(&f);
    fixture_finish_all(&f, late, RECIPIENT_DUE, "451 no");
    fixture_pass(&f, 4 * HOUR + TICK_S(1));
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    assert_true(qmgr_dsn_view(f.qmgr, message).has_delayed);
    struct qmgr_delivery *delivery;
    while ((delivery = fixture_take_one(&f)) != NULL)
        fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_sound(&f);
    uint32_t done_count = f.done_count;
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(done_count + 1, f.done_count);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

/* ---- the share ---- */

/* Whatever fails when: no hour sees more than the share of a sender, and all is told in the end. */
static void share_of_a_sender_is_never_exceeded(void **state)
{
    enum { SHARE = 4, COUNT = 30 };
    struct qmgr_options options = defaults;
    tick_us told[COUNT];
    uint32_t count = 0;
    struct fixture f;

    (void)state;
    options.dsn_per_sender_max = SHARE;
    fixture_init(&f, &options);
    for (uint32_t i = 0; i < COUNT; i++) {
        insert(&f, i + 1, NULL, "a@v", NULL);
        fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 5.1.1 no");
    }
    insert(&f, 1000, "other@x.example", "a@v", NULL);
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 5.1.1 no");
    bool is_other_told = false;
    for (uint32_t minute = 0; minute < 60 * COUNT && count < COUNT; minute++) {
        struct qmgr_message *message;
        while ((message = qmgr_dsn_next(f.qmgr, f.now)) != NULL) {
            struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
            if (dsn.envelope->id.low == 1000) {
                is_other_told = true;
                assert_int_equal(0, minute); /* others do not wait for this one */
            } else {
                told[count++] = f.now.tick;
            }
            write_dsn(&f, message);
        }
        fixture_pass(&f, TICK_S(60));
    }
    assert_int_equal(COUNT, count);
    assert_true(is_other_told);
    for (uint32_t i = SHARE; i < COUNT; i++)
        assert_true(told[i] - told[i - SHARE] >= HOUR);
    assert_true(told[COUNT - 1] - told[0] <= (COUNT / (SHARE / 2) + 1) * HOUR);
    assert_int_equal(COUNT - SHARE / 2, qmgr_get_stats(f.qmgr).dsns_capped);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

/* What else fails while a notice waits for its turn is told in it. */
static void waiting_notice_gathers_failures(void **state)
{
    struct qmgr_options options = defaults;
    struct fixture f;

    (void)state;
    options.dsn_per_sender_max = 2;
    fixture_init(&f, &options);
    insert(&f, 1, NULL, "a@v", NULL);
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    write_dsn(&f, qmgr_dsn_next(f.qmgr, f.now));
    insert(&f, 2, NULL, "a@v b@w", NULL);
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 no");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_sound(&f);
    fixture_pass(&f, TICK_S(400));
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, HOUR);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    assert_int_equal(2, qmgr_dsn_view(f.qmgr, message).failure_count);
    fixture_fini(&f);
}

static void more_senders_than_the_table_holds_are_counted(void **state)
{
    struct qmgr_options options = defaults;
    struct fixture f;
    char sender[32];

    (void)state;
    options.dsn_per_sender_max = 2;
    options.message_count_max = 10000;
    fixture_init(&f, &options);
    for (uint32_t i = 0; i < 9000; i++) {
        snprintf(sender, sizeof(sender), "s%u@x.example", i);
        struct message_options message = {.id = i + 1, .sender = sender, .recipients = "a@v"};
        assert_int_equal(ERR_OK, fixture_insert(&f, &message, NULL));
        fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
        struct qmgr_message *owed = qmgr_dsn_next(f.qmgr, f.now);
        assert_non_null(owed);
        qmgr_dsn_view(f.qmgr, owed);
        qmgr_dsn_written(f.qmgr, owed, f.now);
    }
    assert_true(qmgr_get_stats(f.qmgr).dsn_senders_forgotten >= 9000 - 4096);
    assert_true(qmgr_get_stats(f.qmgr).dsn_senders_forgotten < 9000);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(notices_are_those_asked_for),
        cmocka_unit_test(relayed_recipients_survive_a_restart),
        cmocka_unit_test(delay_is_told_at_its_time_and_once),
        cmocka_unit_test(expiry_comes_at_its_time_behind_a_delay),
        cmocka_unit_test(delay_is_not_told_when_it_has_no_point),
        cmocka_unit_test(delivered_mail_is_not_late),
        cmocka_unit_test(share_of_a_sender_is_never_exceeded),
        cmocka_unit_test(waiting_notice_gathers_failures),
        cmocka_unit_test(more_senders_than_the_table_holds_are_counted),
    };
    return cmocka_run_group_tests_name("qmgr_notice", tests, NULL, NULL);
}
