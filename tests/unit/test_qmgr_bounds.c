/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue manager at its bounds: bodies in memory, the number of messages, the largest messages,
 * look-ups. qmgr_verify() follows every step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

/* ---- what is kept for work with a message ---- */

/* More messages lose their first attempt at a time than have such things kept for reuse. */
static void more_end_at_once_than_is_kept_for_reuse(void **state)
{
    struct qmgr_options options = {.message_count_max = 2000,
                                   .body_memory_max = 8u << 20,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(3600)};
    struct fixture f;

    (void)state;
    fixture_init(&f, &options);
    f.is_new = true;
    for (uint64_t id = 1; id <= 1100; id++) {
        struct message_options message = {.id = id, .recipients = "b@y"};
        assert_int_equal(ERR_OK, fixture_insert(&f, &message, NULL));
    }
    struct qmgr_delivery *delivery;
    uint32_t count = 0;
    while ((delivery = fixture_take_one(&f)) != NULL) {
        fixture_finish_all(&f, delivery, RECIPIENT_DUE, "451 later");
        count++;
    }
    assert_int_equal(1100, count);
    assert_sound(&f);
    fixture_fini(&f);
}

/* ---- bodies ---- */

static struct buf_pool *body_pool(void)
{
    struct buf_pool_options options = {
        .data_size = 2048, .count_max = 64, .backing = BUF_BACKING_HEAP};
    return buf_pool_new(&options);
}

static void body_fill(struct buf_queue *body, struct buf_pool *pool, uint32_t size)
{
    static uint8_t octets[4096];

    buf_queue_init(body);
    assert_int_equal(ERR_OK, buf_queue_append_copy(body, pool, span_of(octets, size)));
}

static void body_is_kept_for_first_attempts(void **state)
{
    struct buf_pool *pool = body_pool();
    struct buf_queue body;
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    body_fill(&body, pool, 1000);
    struct message_options options = {.id = 1, .recipients = "a@v b@w", .body = &body};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    assert_true(buf_queue_is_empty(&body));
    assert_int_equal(1000, qmgr_get_stats(f.qmgr).body_memory);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_int_equal(1000, qmgr_delivery_view(f.qmgr, delivery).body->size);
    finish_all(&f, delivery, RECIPIENT_DUE, "451 later"); /* the other one is still fresh */
    assert_int_equal(1000, qmgr_get_stats(f.qmgr).body_memory);
    delivery = fixture_take_one(&f);
    assert_int_equal(1000, qmgr_delivery_view(f.qmgr, delivery).body->size);
    struct qmgr_finish unattempted = {.was_attempted = false};
    defer(&f, delivery, &unattempted); /* no first attempt yet */
    assert_int_equal(1000, qmgr_get_stats(f.qmgr).body_memory);
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 later");
    assert_int_equal(0, qmgr_get_stats(f.qmgr).body_memory);
    assert_int_equal(0, buf_pool_in_use(pool));
    fixture_fini(&f);
    buf_pool_free(pool);
}

static void body_is_kept_for_a_dsn(void **state)
{
    struct buf_pool *pool = body_pool();
    struct buf_queue body;
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    body_fill(&body, pool, 1000);
    struct message_options options = {.id = 1, .recipients = "a@v b@w", .body = &body};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 later");
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_int_equal(1000, qmgr_dsn_view(f.qmgr, message).body->size);
    /* An attempt that ends meanwhile does not take it away. */
    fixture_pass(&f, TICK_S(400));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DUE, "451 later");
    assert_int_equal(1000, qmgr_dsn_view(f.qmgr, message).body->size);
    qmgr_dsn_failed(f.qmgr, message, f.now); /* the disk may be full for long */
    assert_sound(&f);
    assert_int_equal(0, buf_pool_in_use(pool));
    fixture_pass(&f, TICK_S(400));
    message = qmgr_dsn_next(f.qmgr, f.now);
    assert_true(buf_queue_is_empty(qmgr_dsn_view(f.qmgr, message).body));
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_sound(&f);
    fixture_fini(&f);
    buf_pool_free(pool);
}

static void body_memory_is_bounded(void **state)
{
    struct qmgr_options options = {.message_count_max = 10,
                                   .body_memory_max = 2000,
                                   .retry_min = TICK_S(1),
                                   .retry_max = TICK_S(1)};
    static const struct {
        uint32_t size;
        uint64_t memory;
    } rows[] = {{1000, 1000}, {1001, 1000}, {1000, 2000}, {1, 2000}};
    struct buf_pool *pool = body_pool();
    struct fixture f;

    (void)state;
    fixture_init(&f, &options);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct buf_queue body;
        body_fill(&body, pool, rows[i].size);
        struct message_options message = {.id = i, .recipients = "a@v", .body = &body};
        assert_int_equal(ERR_OK, fixture_insert(&f, &message, NULL));
        assert_true(buf_queue_is_empty(&body));
        assert_int_equal(rows[i].memory, qmgr_get_stats(f.qmgr).body_memory);
        assert_sound(&f);
    }
    fixture_fini(&f); /* gives bodies back */
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
}

/* ---- bounds and look-ups ---- */

static void insert_refuses_only_what_is_no_message(void **state)
{
    struct qmgr_options options = {.message_count_max = 2,
                                   .body_memory_max = 2000,
                                   .retry_min = TICK_S(1),
                                   .retry_max = TICK_S(1)};
    struct buf_pool *pool = body_pool();
    struct buf_queue body;
    struct fixture f;

    (void)state;
    fixture_init(&f, &options);
    body_fill(&body, pool, 10);
    insert(&f, 1, "a@v");
    struct message_options same = {.id = 1, .recipients = "a@v", .body = &body};
    assert_int_equal(ERR_DISK_CORRUPT, fixture_insert(&f, &same, NULL));
    struct qmgr_insert rubbish = {.encoded = SPAN_LITERAL("rubbish"), .body = &body};
    assert_int_equal(ERR_DISK_CORRUPT, qmgr_insert(f.qmgr, &rubbish, f.now));
    rubbish.encoded.size = 0;
    assert_int_equal(ERR_DISK_CORRUPT, qmgr_insert(f.qmgr, &rubbish, f.now));
    assert_int_equal(10, body.size);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).messages);
    assert_sound(&f);
    /* What is durable is taken, also beyond the bound that the door keeps. */
    insert(&f, 2, "a@v");
    struct message_options third = {.id = 3, .recipients = "a@v", .body = &body};
    assert_int_equal(ERR_OK, fixture_insert(&f, &third, NULL));
    assert_int_equal(3, qmgr_get_stats(f.qmgr).messages);
    assert_sound(&f);
    fixture_fini(&f);
    buf_pool_free(pool);
}

static void largest_messages_work(void **state)
{
    struct fixture f;
    bool is_one_domain = *state != NULL;
    char *recipients = malloc(ENVELOPE_RECIPIENT_MAX * 16 + 1), *end = recipients;

    for (uint32_t i = 0; i < ENVELOPE_RECIPIENT_MAX; i++)
        end += snprintf(end, 17, is_one_domain ? "%u@y " : "u@%u ", i);
    fixture_init(&f, NULL);
    insert(&f, 1, recipients);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_int_equal(is_one_domain ? ENVELOPE_RECIPIENT_MAX : 1,
                     qmgr_delivery_view(f.qmgr, delivery).recipient_count);
    char reply[900];
    memset(reply, 'r', sizeof(reply) - 1);
    reply[sizeof(reply) - 1] = '\0';
    if (is_one_domain) {
        finish_all(&f, delivery, RECIPIENT_FAILED, reply); /* replies do not fit one PROGRESS */
    } else {
        finish_all(&f, delivery, RECIPIENT_DUE, reply);
        fixture_pass(&f, 6 * DAY);
        assert_int_equal(ENVELOPE_RECIPIENT_MAX, f.expired_count);
    }
    assert_sound(&f);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(ENVELOPE_RECIPIENT_MAX, dsn.failure_count);
    assert_int_equal(9999, dsn.failures[9999].recipient_index);
    assert_true(dsn.is_done);
    fixture_restart(&f); /* from PROGRESS alone */
    message = qmgr_dsn_next(f.qmgr, f.now);
    assert_int_equal(ENVELOPE_RECIPIENT_MAX, qmgr_dsn_view(f.qmgr, message).failure_count);
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
    free(recipients);
}

static void messages_are_found_and_walked(void **state)
{
    struct fixture f;
    uint64_t cursor = 0, sum = 0;
    struct qmgr_message *message;

    (void)state;
    fixture_init(&f, NULL);
    for (uint64_t id = 1; id <= 900; id++) {
        struct message_options options = {.id = id, .recipients = "a@v"};
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    }
    while ((message = qmgr_next(f.qmgr, &cursor)) != NULL)
        sum += qmgr_message_id(message).low;
    assert_int_equal(900 * 901 / 2, sum);
    for (uint64_t id = 1; id <= 900; id++) {
        struct message_id key = {(uint64_t)f.now.wall, id};
        message = qmgr_find(f.qmgr, key);
        assert_non_null(message);
        assert_int_equal(id, qmgr_message_id(message).low);
    }
    assert_null(qmgr_find(f.qmgr, (struct message_id){(uint64_t)f.now.wall, 901}));
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    message =
        qmgr_find(f.qmgr, (struct message_id){(uint64_t)f.now.wall, delivery_id(&f, delivery)});
    assert_true(fixture_status(&f, message, 0).is_active);
    fixture_fini(&f);
}

int main(void)
{
    static int one_domain;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(more_end_at_once_than_is_kept_for_reuse),
        cmocka_unit_test(body_is_kept_for_first_attempts),
        cmocka_unit_test(body_is_kept_for_a_dsn),
        cmocka_unit_test(body_memory_is_bounded),
        cmocka_unit_test(insert_refuses_only_what_is_no_message),
        {"largest_messages_work: one domain", largest_messages_work, NULL, NULL, &one_domain},
        {"largest_messages_work: as many domains", largest_messages_work, NULL, NULL, NULL},
        cmocka_unit_test(messages_are_found_and_walked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
