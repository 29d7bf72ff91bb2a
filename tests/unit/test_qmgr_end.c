/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How messages end, and come back: notifications that are owed, and recovery from what was durable.
 * qmgr_verify() follows every step.
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

/* ---- damage ---- */

static void buf_queue_of(struct buf_pool *pool, uint32_t size, struct buf_queue *ret_octets)
{
    struct buf *buf = buf_acquire(pool);
    buf_queue_init(ret_octets);
    buf_extend(buf, size);
    buf_queue_append(ret_octets, buf, BUF_HEADROOM, size);
    buf_release(buf);
}

/* What memory still has is written anew; what it has not ends, and its sender hears why. */
static void damaged_message_is_mended_or_returned(void **state)
{
    static const struct row {
        const char *name;
        uint8_t damage;
        bool is_new, has_body, is_mended, is_good, is_kept;
    } rows[] = {
        {"progress", SPOOL_DAMAGE_PROGRESS, true, false, false, true, true},
        {"envelope", SPOOL_DAMAGE_ENVELOPE, true, false, true, true, true},
        {"body in memory", SPOOL_DAMAGE_BODY, true, true, true, true, true},
        {"both in memory", SPOOL_DAMAGE_BODY | SPOOL_DAMAGE_ENVELOPE, true, true, true, true, true},
        {"body on the disk only", SPOOL_DAMAGE_BODY, true, false, false, false, false},
        {"nothing in memory", SPOOL_DAMAGE_BODY, false, false, false, true, false},
        {"no envelope in memory", SPOOL_DAMAGE_BODY, false, true, true, true, true},
        {"no envelope anywhere", SPOOL_DAMAGE_ENVELOPE, false, false, false, true, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        struct spool_entry *entry;
        struct buf_queue body;
        struct buf_pool *pool =
            buf_pool_new(&(struct buf_pool_options){.data_size = 512, .count_max = 4});

        print_message("# %s\n", rows[i].name);
        fixture_init(&f, NULL);
        f.is_new = rows[i].is_new;
        buf_queue_of(pool, 100, &body);
        struct message_options options = {
            .id = 7, .recipients = "a@v b@w", .body = rows[i].has_body ? &body : NULL};
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
        entry->is_unreadable = !rows[i].is_new && rows[i].damage == SPOOL_DAMAGE_ENVELOPE;
        bool is_good = qmgr_damaged(f.qmgr, (struct message_id){(uint64_t)f.now.wall, 7},
                                    rows[i].damage, f.now);
        assert_sound(&f);
        assert_int_equal(rows[i].is_good, is_good);
        assert_int_equal(entry->is_unreadable, qmgr_get_stats(f.qmgr).unreadable);
        assert_int_equal(rows[i].is_mended, entry->repairs);
        assert_int_equal(rows[i].is_mended && rows[i].has_body ? 100 : 0,
                         entry->repaired_body_size);
        struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
        assert_int_equal(!rows[i].is_kept, message != NULL);
        if (message != NULL) {
            struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
            assert_int_equal(2, dsn.failure_count);
            assert_true(dsn.is_done);
            assert_true(span_is_equal(SPAN_LITERAL("the stored message failed its checksum"),
                                      dsn.failures[0].reply));
            qmgr_dsn_failed(f.qmgr, message, f.now);
        }
        buf_queue_fini(&body);
        fixture_fini(&f);
        buf_pool_free(pool);
    }
}

/* It may have ended since. */
static void damage_of_a_message_that_is_gone(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    assert_true(qmgr_damaged(f.qmgr, (struct message_id){1, 1}, SPOOL_DAMAGE_BODY, f.now));
    fixture_fini(&f);
}

/* ---- DSNs ---- */

static void dsn_waits_for_what_is_in_flight_only(void **state)
{
    struct fixture f;
    struct spool_entry *entry;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options options = {.id = 1, .recipients = "a@v b@w c@y d@z e@w"};
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
    struct qmgr_delivery *deliveries[4]; /* by domain: v, w, y, z */
    for (uint32_t i = 0; i < 4; i++) {
        struct qmgr_line *line;
        struct qmgr_delivery *delivery = fixture_take(&f, &line);
        deliveries[strchr("vwyz", qmgr_line_domain(line).data[0]) - "vwyz" < 2
                       ? qmgr_line_domain(line).data[0] - 'v'
                       : qmgr_line_domain(line).data[0] - 'v' - 1] = delivery;
        qmgr_line_return(f.qmgr, line, f.now);
    }
    finish_all(&f, deliveries[0], RECIPIENT_FAILED, "550 5.1.1 no a");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    finish_all(&f, deliveries[1], RECIPIENT_FAILED, "550 5.1.1 no b");
    finish_all(&f, deliveries[2], RECIPIENT_DUE, "451 later");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    finish_all(&f, deliveries[3], RECIPIENT_DELIVERED, "250 ok");

    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    assert_null(qmgr_dsn_next(f.qmgr, f.now)); /* reported once */
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(3, dsn.failure_count);
    assert_int_equal(0, dsn.failures[0].recipient_index);
    assert_int_equal(1, dsn.failures[1].recipient_index);
    assert_int_equal(4, dsn.failures[2].recipient_index);
    assert_int_equal(550, dsn.failures[0].code);
    assert_memory_equal("\5\1\1", dsn.failures[0].enhanced, 3);
    assert_true(span_is_equal(SPAN_LITERAL("550 5.1.1 no b"), dsn.failures[2].reply));
    assert_false(dsn.is_done);
    assert_int_equal(0, dsn.run);
    assert_ptr_equal(entry, dsn.entry);
    assert_sound(&f);

    /* While it is being written the waiting one comes due, and fails as well: a second DSN. */
    fixture_pass(&f, TICK_S(400));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 5.1.1 no c");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(3, qmgr_dsn_view(f.qmgr, message).failure_count);
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_sound(&f);
    assert_ptr_equal(message, qmgr_dsn_next(f.qmgr, f.now));
    dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(1, dsn.failure_count);
    assert_int_equal(2, dsn.failures[0].recipient_index);
    assert_int_equal(1, dsn.run);
    assert_true(dsn.is_done);
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    assert_int_equal(0, f.done_count);
    fixture_fini(&f);
}

static void attempt_takes_a_listed_dsn_back(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@v b@w");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    struct qmgr_delivery *other = fixture_take_one(&f);
    assert_sound(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    finish_all(&f, other, RECIPIENT_FAILED, "550 no");
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_int_equal(2, qmgr_dsn_view(f.qmgr, message).failure_count);
    fixture_fini(&f);
}

static void failed_dsn_commit_is_reported_again(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@v");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    (void)qmgr_dsn_view(f.qmgr, message);
    qmgr_dsn_failed(f.qmgr, message, f.now);
    assert_sound(&f);
    fixture_pass(&f, TICK_S(300) - 1);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_pass(&f, 1001);
    assert_sound(&f);
    assert_ptr_equal(message, qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(0, qmgr_dsn_view(f.qmgr, message).run);
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

/* Goal: a message delivered while its DSN, not the last word, was on its way ends by on_done. */
static void message_may_end_with_a_dsn_that_was_not_last(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@v b@w");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_false(qmgr_dsn_view(f.qmgr, message).is_done);
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DELIVERED, "250 ok");
    assert_false(qmgr_dsn_view(f.qmgr, message).is_done); /* said once */
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(1, f.done_count);
    fixture_fini(&f);
}

/* RFC 5321 section 4.5.5: a notification must not cause another. */
static void null_sender_gets_no_dsn(void **state)
{
    struct fixture f;
    struct message_options options = {.id = 1, .sender = "", .recipients = "a@v b@w"};

    (void)state;
    fixture_init(&f, NULL);
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(1, qmgr_get_stats(f.qmgr).failed_recipients);
    fixture_pass(&f, 6 * DAY); /* the other one expires */
    assert_int_equal(1, f.expired_count);
    assert_int_equal(1, f.done_count);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

/* ---- recovery ---- */

static void restart_brings_everything_back(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert(&f, 1, "a@v b@v c@w d@y");
    struct qmgr_delivery *v, *w, *y;
    struct qmgr_delivery **by_letter[] = {&v, &w, NULL, &y};
    for (uint32_t i = 0; i < 3; i++) {
        struct qmgr_line *line;
        struct qmgr_delivery *delivery = fixture_take(&f, &line);
        *by_letter[qmgr_line_domain(line).data[0] - 'v'] = delivery;
        qmgr_line_return(f.qmgr, line, f.now);
    }
    struct qmgr_result results[] = {
        {.recipient_index = 0, .state = RECIPIENT_DELIVERED, .code = 250},
        {.recipient_index = 1,
         .state = RECIPIENT_DUE,
         .code = 451,
         .reply = SPAN_LITERAL("451 busy")},
    };
    struct qmgr_finish finish = {
        .results = results, .result_count = 2, .was_attempted = true, .is_in_doubt = true};
    defer(&f, v, &finish);
    finish_all(&f, w, RECIPIENT_FAILED, "550 5.1.1 no c");
    finish_all(&f, y, RECIPIENT_DUE, "421 gone");
    wall_us next_try = only_status(&f, 1).next_try;

    fixture_restart(&f);
    assert_sound(&f);
    assert_int_equal(RECIPIENT_DELIVERED, only_status(&f, 0).state);
    struct qmgr_status status = only_status(&f, 1);
    assert_int_equal(RECIPIENT_DUE, status.state);
    assert_int_equal(1, status.attempts);
    assert_int_equal(next_try, status.next_try);
    assert_true(span_is_equal(SPAN_LITERAL("451 busy"), status.last_reply));
    assert_true(span_is_equal(SPAN_LITERAL("421 gone"), only_status(&f, 3).last_reply));

    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(1, dsn.failure_count);
    assert_int_equal(2, dsn.failures[0].recipient_index);
    assert_int_equal(550, dsn.failures[0].code);
    assert_memory_equal("\5\1\1", dsn.failures[0].enhanced, 3);
    assert_true(span_is_equal(SPAN_LITERAL("550 5.1.1 no c"), dsn.failures[0].reply));
    assert_true(dsn.envelope->flags & ENVELOPE_IN_DOUBT);

    /* The crash comes after the DSN's commit, before we hear of it. */
    spool_progress(NULL, dsn.entry, dsn.progress);
    fixture_restart(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(RECIPIENT_SETTLED, only_status(&f, 2).state);
    fixture_pass(&f, TICK_S(400));
    finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
    finish_all(&f, fixture_take_one(&f), RECIPIENT_DELIVERED, "250 ok");
    message = qmgr_dsn_next(f.qmgr, f.now);
    assert_int_equal(1, qmgr_dsn_view(f.qmgr, message).run); /* not the id of the first again */

    /* All is settled, only DONE was lost. */
    dsn = qmgr_dsn_view(f.qmgr, message);
    spool_progress(NULL, dsn.entry, dsn.progress);
    fixture_restart(&f);
    assert_int_equal(1, f.done_count);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

static void damaged_progress_costs_an_attempt_at_most(void **state)
{
    static const struct envelope_settle back[] = {
        {.recipient_index = 0, .state = RECIPIENT_DUE},
        {.recipient_index = 1, .state = RECIPIENT_FAILED},
        {.recipient_index = 9, .state = RECIPIENT_SETTLED}};
    static const struct envelope_settle forth[] = {
        {.recipient_index = 0, .state = RECIPIENT_DELIVERED},
        {.recipient_index = 1, .state = RECIPIENT_SETTLED}};
    struct envelope_progress progress[] = {
        {.delivery = 9, .attempts = 7, .settles = forth, .settle_count = 2},
        {.delivery = 2,
         .attempts = 1u << 30,
         .next_try = INT64_MAX,
         .settles = back,
         .settle_count = 3},
    };
    struct fixture f;
    struct spool_entry *entry;
    struct message_options options = {.id = 1, .recipients = "a@v b@v c@w"};

    (void)state;
    fixture_init(&f, NULL);
    assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
    for (uint32_t i = 0; i < COUNT_OF(progress); i++) {
        uint8_t octets[200];
        envelope_progress_encode(&progress[i], octets);
        spool_progress(NULL, entry, span_of(octets, envelope_progress_encoded_size(&progress[i])));
    }
    spool_progress(NULL, entry, SPAN_LITERAL("rubbish"));
    fixture_restart(&f);
    assert_sound(&f);
    assert_int_equal(RECIPIENT_DELIVERED, only_status(&f, 0).state);
    assert_int_equal(RECIPIENT_SETTLED, only_status(&f, 1).state);
    struct qmgr_status status = only_status(&f, 2);
    assert_int_equal(RECIPIENT_DUE, status.state);
    assert_int_equal(UINT16_MAX, status.attempts);
    assert_in_range(status.next_try - f.now.wall, TICK_S(4 * 3600), TICK_S(5 * 3600));
    assert_int_equal(2, qmgr_get_stats(f.qmgr).progress_corrupt);
    fixture_fini(&f);
}

/* Goal: where room is tight, only what must not come to pass again is written of an attempt. */
static void nothing_that_can_be_forgotten_is_written_where_room_is_tight(void **state)
{
    static const struct row {
        const char *name;
        enum recipient_state state;
        bool is_in_doubt, is_written;
    } rows[] = {
        {"deferred", RECIPIENT_DUE, false, false},
        {"refused, nobody has been told", RECIPIENT_FAILED, false, false},
        {"delivered", RECIPIENT_DELIVERED, false, true},
        {"in doubt", RECIPIENT_DUE, true, true},
        {"expired", RECIPIENT_STATE_COUNT, false, false},
    };

    (void)state;
    for (uint32_t i = 0; i < 2 * COUNT_OF(rows); i++) {
        const struct row *row = &rows[i / 2];
        struct message_options options = {.id = 1, .recipients = "a@v b@w", .lifetime = TICK_S(60)};
        struct spool_entry *entry;
        struct fixture f;

        print_message("# %s, %s\n", row->name, i % 2 == 0 ? "room" : "tight");
        fixture_init(&f, NULL);
        f.is_tight = i % 2 != 0;
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, &entry));
        if (row->state == RECIPIENT_STATE_COUNT) {
            fixture_pass(&f, TICK_S(61));
        } else if (row->is_in_doubt) {
            struct qmgr_finish finish = {.was_attempted = true, .is_in_doubt = true};
            defer(&f, fixture_take_one(&f), &finish);
        } else {
            finish_all(&f, fixture_take_one(&f), row->state, "450 or so");
        }
        assert_int_equal(!f.is_tight || row->is_written ? 1 : 0, entry->progress_count);
        fixture_fini(&f);
    }
}

/* Goal: what was not written is told again after a crash: its notification has it. */
static void what_was_spared_is_in_the_notification(void **state)
{
    static const struct {
        const char *name;
        bool keeps_ends, is_tight, is_told;
    } rows[] = {
        {"room", true, false, false},
        {"tight", true, true, true},
        {"tight, records are not held for", false, true, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_options changed = {.message_count_max = 10,
                                       .retry_min = TICK_S(300),
                                       .retry_max = TICK_S(3600),
                                       .keeps_ends = rows[i].keeps_ends};
        struct message_options options = {.id = 1, .recipients = "a@v b@w"};
        struct envelope_progress progress;
        struct arena arena;
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        fixture_init(&f, &changed);
        arena_init(&arena, 512, 1u << 16);
        f.is_tight = rows[i].is_tight;
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
        finish_all(&f, fixture_take_one(&f), RECIPIENT_FAILED, "550 no");
        struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
        struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
        assert_int_equal(ERR_OK, envelope_progress_decode(dsn.progress, &arena, &progress));
        assert_int_equal(1, progress.settle_count);
        assert_int_equal(rows[i].is_told ? 1 : 0, progress.told_count);
        assert_int_equal(rows[i].is_told ? f.now.wall : 0, progress.told_time);
        assert_int_equal(rows[i].is_told ? dsn.failures[0].code : 0, progress.settles[0].code);
        arena_fini(&arena);
        fixture_fini(&f);
    }
}

/* Goal: a message committed with failures, as after a partly refused hand-over, gets its DSN. */
static void committed_failures_are_reported(void **state)
{
    struct fixture f;
    struct arena arena;
    struct message_options options = {.id = 1, .recipients = "a@v b@v c@w"};

    (void)state;
    fixture_init(&f, NULL);
    arena_init(&arena, 512, 1u << 16);
    struct envelope envelope = fixture_envelope(&f, &options, &arena);
    envelope.recipients[0].state = RECIPIENT_FAILED;
    envelope.recipients[1].state = RECIPIENT_DELIVERED;
    assert_int_equal(ERR_OK, fixture_insert_entry(&f, fixture_entry_new(&f, &envelope), NULL));
    assert_sound(&f);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(1, dsn.failure_count);
    assert_int_equal(0, dsn.failures[0].recipient_index);
    assert_int_equal(1, qmgr_get_stats(f.qmgr).deliveries_ready);
    arena_fini(&arena);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_message_is_mended_or_returned),
        cmocka_unit_test(damage_of_a_message_that_is_gone),
        cmocka_unit_test(dsn_waits_for_what_is_in_flight_only),
        cmocka_unit_test(attempt_takes_a_listed_dsn_back),
        cmocka_unit_test(failed_dsn_commit_is_reported_again),
        cmocka_unit_test(message_may_end_with_a_dsn_that_was_not_last),
        cmocka_unit_test(null_sender_gets_no_dsn),
        cmocka_unit_test(restart_brings_everything_back),
        cmocka_unit_test(damaged_progress_costs_an_attempt_at_most),
        cmocka_unit_test(committed_failures_are_reported),
        cmocka_unit_test(nothing_that_can_be_forgotten_is_written_where_room_is_tight),
        cmocka_unit_test(what_was_spared_is_in_the_notification),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
