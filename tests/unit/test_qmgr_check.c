/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The watchman of the queue: he finds each kind of message that nothing would ever move again,
 * planted here by damaging the structures, and nothing in a sound queue.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"
#include "queue/qmgr_state.h"

#define ROUND TICK_S(60)

static void insert(struct fixture *f, uint64_t id, const char *recipients)
{
    struct message_options options = {.id = id, .recipients = recipients};
    assert_int_equal(ERR_OK, fixture_insert(f, &options, NULL));
}

/* As the shard turns: timers at their time. */
static void pass(struct fixture *f, tick_us time)
{
    for (tick_us end = f->now.tick + time; f->now.tick < end;)
        fixture_pass(f, TICK_MS(250));
}

static struct qmgr_message *first(struct fixture *f)
{
    uint64_t cursor = 0;

    return qmgr_next(f->qmgr, &cursor);
}

/* ---- plants: each damages and repairs one message ---- */

static tick_us planted_deadline;
static struct qmgr_delivery *planted;

static void expiry_damage(struct fixture *f, struct qmgr_message *message)
{
    planted_deadline = message->expiry.deadline;
    wheel_cancel(&f->qmgr->wheel, &message->expiry);
}

static void expiry_repair(struct fixture *f, struct qmgr_message *message)
{
    wheel_arm(&f->qmgr->wheel, &message->expiry, planted_deadline);
}

static void retry_damage(struct fixture *f, struct qmgr_message *message)
{
    struct qmgr_delivery *delivery = fixture_take_one(f);
    fixture_finish_all(f, delivery, RECIPIENT_DUE, "451 later");
    planted = message->deliveries;
    while (planted->state != QMGR_WAITING)
        planted = qmgr_delivery_next(planted);
    wheel_cancel(&f->qmgr->wheel, &planted->timer);
}

static void retry_repair(struct fixture *f, struct qmgr_message *message)
{
    (void)message;
    wheel_arm(&f->qmgr->wheel, &planted->timer, f->now.tick + TICK_S(3600));
}

static void line_damage(struct fixture *f, struct qmgr_message *message)
{
    (void)f;
    message->deliveries->line->state = QMGR_LINE_IDLE;
}

static void line_repair(struct fixture *f, struct qmgr_message *message)
{
    (void)f;
    message->deliveries->line->state = QMGR_LINE_READY;
}

static void recipient_damage(struct fixture *f, struct qmgr_message *message)
{
    (void)f;
    message->deliveries->due_count--;
}

static void recipient_repair(struct fixture *f, struct qmgr_message *message)
{
    (void)f;
    message->deliveries->due_count++;
}

static void notification_damage(struct fixture *f, struct qmgr_message *message)
{
    fixture_finish_all(f, fixture_take_one(f), RECIPIENT_FAILED, "550 no");
    assert_int_equal(QMGR_DSN_LISTED, message->work->dsn_state);
    message->work->dsn_state = QMGR_DSN_NONE;
}

static void notification_repair(struct fixture *f, struct qmgr_message *message)
{
    (void)f;
    message->work->dsn_state = QMGR_DSN_LISTED;
}

static const struct {
    const char *name;
    void (*damage)(struct fixture *f, struct qmgr_message *message);
    void (*repair)(struct fixture *f, struct qmgr_message *message);
} plants[] = {
    {"no expiry", expiry_damage, expiry_repair},
    {"no retry", retry_damage, retry_repair},
    {"due in a line that is not in the round", line_damage, line_repair},
    {"a recipient without a delivery", recipient_damage, recipient_repair},
    {"a notification that nobody makes", notification_damage, notification_repair},
};

static void what_is_planted_is_found(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(plants); i++) {
        struct fixture f;
        print_message("# %s\n", plants[i].name);
        fixture_init(&f, NULL);
        insert(&f, 1, "a@v b@w");
        pass(&f, ROUND + TICK_S(1));
        assert_int_equal(0, qmgr_get_stats(f.qmgr).stuck);
        plants[i].damage(&f, first(&f));
        pass(&f, ROUND);
        assert_int_equal(1, qmgr_get_stats(f.qmgr).stuck);
        plants[i].repair(&f, first(&f));
        pass(&f, ROUND);
        assert_int_equal(0, qmgr_get_stats(f.qmgr).stuck);
        assert_int_equal(0, qmgr_verify(f.qmgr));
        fixture_fini(&f);
    }
}

/* A large queue is walked in slices, and one planted at its end is found by the end of a round. */
static void rounds_are_walked_in_slices(void **state)
{
    struct qmgr_options options = {.message_count_max = 5000,
                                   .body_memory_max = 1000,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(600)};
    struct qmgr_message *message, *last = NULL;
    struct fixture f;
    uint64_t cursor = 0;

    (void)state;
    fixture_init(&f, &options);
    for (uint32_t i = 1; i <= 2500; i++)
        insert(&f, i, "a@v");
    while ((message = qmgr_next(f.qmgr, &cursor)) != NULL)
        last = message;
    expiry_damage(&f, last);
    fixture_pass(&f, TICK_MS(251));
    assert_int_equal(1024, qmgr_get_stats(f.qmgr).checked);
    fixture_pass(&f, TICK_MS(251));
    assert_int_equal(2048, qmgr_get_stats(f.qmgr).checked);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).stuck);
    fixture_pass(&f, TICK_MS(251));
    assert_int_equal(2500, qmgr_get_stats(f.qmgr).checked);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).check_rounds);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).stuck);
    expiry_repair(&f, last);
    fixture_fini(&f);
}

/* An empty queue lets the shard sleep. */
static void empty_queue_is_not_walked(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    assert_true(qmgr_deadline(f.qmgr) == TICK_NEVER);
    insert(&f, 1, "a@v");
    fixture_finish_all(&f, fixture_take_one(&f), RECIPIENT_DELIVERED, "250 ok");
    pass(&f, TICK_S(2));
    assert_true(qmgr_deadline(f.qmgr) == TICK_NEVER);
    insert(&f, 2, "a@v");
    pass(&f, TICK_S(2));
    assert_int_equal(1, qmgr_get_stats(f.qmgr).checked);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_planted_is_found),
        cmocka_unit_test(rounds_are_walked_in_slices),
        cmocka_unit_test(empty_queue_is_not_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
