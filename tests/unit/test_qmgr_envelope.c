/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes that are not in memory: read when they are needed, told to whoever waits, tried again
 * when they cannot be read, and never asked for twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

static struct qmgr_message *only_message(struct fixture *f)
{
    uint64_t cursor = 0;
    struct qmgr_message *message = qmgr_next(f->qmgr, &cursor);

    assert_non_null(message);
    return message;
}

static void insert_slow(struct fixture *f, const char *recipients, struct spool_entry **ret_entry)
{
    fixture_init(f, NULL);
    f->is_slow = true;
    assert_int_equal(
        ERR_OK,
        fixture_insert(f, &(struct message_options){.id = 1, .recipients = recipients}, ret_entry));
}

static void assert_sound(struct fixture *f)
{
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

/* ---- attempts ---- */

static void an_attempt_begins_when_the_envelope_is_here(void **state)
{
    struct fixture f;
    struct spool_entry *entry;
    bool is_loaded = false;

    (void)state;
    insert_slow(&f, "a@y.example b@y.example", &entry);
    assert_int_equal(0, f.read_count); /* nobody asked yet */
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_non_null(delivery);
    assert_false(qmgr_delivery_is_loaded(delivery));
    assert_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_int_equal(1, f.read_count);
    assert_sound(&f);

    fixture_reads_end(&f, 1);
    assert_sound(&f);
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_true(is_loaded);
    assert_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_int_equal(2, qmgr_delivery_view(f.qmgr, delivery).recipient_count);
    fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_true(entry->is_done);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_memory);
    fixture_fini(&f);
}

static void one_read_serves_all_deliveries_of_a_message(void **state)
{
    struct fixture f;
    struct qmgr_delivery *deliveries[2];
    bool is_loaded = false;

    (void)state;
    insert_slow(&f, "a@y.example b@z.example", NULL);
    deliveries[0] = fixture_take_one(&f);
    deliveries[1] = fixture_take_one(&f);
    assert_int_equal(1, f.read_count);
    fixture_reads_end(&f, 1);
    for (uint32_t i = 0; i < 2; i++) {
        assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
        assert_true(is_loaded);
    }
    fixture_finish_all(&f, deliveries[0], RECIPIENT_DUE, "450 later");
    assert_true(qmgr_get_stats(f.qmgr).envelope_memory > 0); /* the other one is under way */
    fixture_finish_all(&f, deliveries[1], RECIPIENT_DUE, "450 later");
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_memory);
    assert_sound(&f);
    fixture_fini(&f);
}

/* What an earlier attempt settled is not tried again, though the envelope on disk says DUE. */
static void states_are_applied_to_what_is_read(void **state)
{
    struct fixture f;
    bool is_loaded;

    (void)state;
    insert_slow(&f, "a@y.example b@y.example c@y.example", NULL);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    struct qmgr_result result = {.recipient_index = 1, .state = RECIPIENT_DELIVERED, .code = 250};
    qmgr_finish(f.qmgr, delivery,
                &(struct qmgr_finish){.results = &result, .result_count = 1, .was_attempted = true},
                f.now);
    fixture_pass(&f, TICK_S(600));
    delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    struct qmgr_view view = qmgr_delivery_view(f.qmgr, delivery);
    assert_int_equal(2, view.recipient_count);
    assert_int_equal(0, view.recipients[0]);
    assert_int_equal(2, view.recipients[1]);
    assert_int_equal(RECIPIENT_DELIVERED, view.envelope->recipients[1].state);
    assert_sound(&f);
    fixture_fini(&f);
}

static void an_envelope_that_cannot_be_read_is_tried_again(void **state)
{
    struct fixture f;
    struct spool_entry *entry;
    bool is_loaded = true;

    (void)state;
    insert_slow(&f, "a@y.example", &entry);
    entry->is_unreadable = true;
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_sound(&f);
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_false(is_loaded);
    qmgr_finish(f.qmgr, delivery, &(struct qmgr_finish){.retry_now = true}, f.now);
    struct qmgr_stats stats = qmgr_get_stats(f.qmgr);
    assert_int_equal(1, stats.unreadable);
    assert_int_equal(1, stats.envelope_failures);
    assert_int_equal(1, stats.deliveries_waiting);
    assert_sound(&f);

    fixture_pass(&f, f.options.retry_min - TICK_MS(1));
    assert_null(fixture_take_one(&f));
    fixture_pass(&f, TICK_MS(2));
    entry->is_unreadable = false;
    assert_ptr_equal(delivery, fixture_take_one(&f));
    fixture_reads_end(&f, 1);
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_true(is_loaded);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).unreadable);
    fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_true(entry->is_done);
    fixture_fini(&f);
}

/* Nothing is wrong with the message: soon again, and not counted. */
static void no_memory_for_an_envelope_is_a_matter_of_seconds(void **state)
{
    struct fixture f;
    struct spool_entry *entry;
    bool is_loaded = true;

    (void)state;
    insert_slow(&f, "a@y.example", &entry);
    entry->has_no_memory = true;
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_false(is_loaded);
    qmgr_finish(f.qmgr, delivery,
                &(struct qmgr_finish){.retry_not_before = f.now.wall + (wall_us)TICK_S(1)}, f.now);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).unreadable);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_failures);
    fixture_pass(&f, TICK_S(1) + TICK_MS(1));
    assert_ptr_equal(delivery, fixture_take_one(&f));

    fixture_pass(&f, TICK_S(5 * 86400)); /* it expires, and waits for the same read */
    assert_int_equal(1, f.read_count);
    fixture_reads_end(&f, 1);
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    qmgr_finish(f.qmgr, delivery, &(struct qmgr_finish){.retry_now = true}, f.now);
    assert_int_equal(0, f.expired_count);
    entry->has_no_memory = false;
    fixture_pass(&f, TICK_S(1) + TICK_MS(1));
    assert_int_equal(1, f.read_count);
    fixture_reads_end(&f, 1);
    assert_int_equal(1, f.expired_count);
    assert_sound(&f);
    fixture_fini(&f);
}

static void nothing_is_left_of_a_queue_that_ends_while_it_reads(void **state)
{
    struct fixture f;

    (void)state;
    insert_slow(&f, "a@y.example b@z.example", NULL);
    assert_non_null(fixture_take_one(&f));
    assert_non_null(fixture_take_one(&f));
    fixture_restart(&f);
    assert_sound(&f);
    assert_non_null(fixture_take_one(&f));
    fixture_reads_end(&f, 1); /* the transfer has not heard of it when the queue ends */
    fixture_fini(&f);
}

/* ---- memory ---- */

static void a_new_envelope_is_kept_for_its_first_attempt(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    f.is_slow = f.is_new = true;
    assert_int_equal(
        ERR_OK,
        fixture_insert(&f, &(struct message_options){.id = 1, .recipients = "a@y.example"}, NULL));
    assert_true(qmgr_get_stats(f.qmgr).envelope_memory > 0);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_true(qmgr_delivery_is_loaded(delivery));
    fixture_finish_all(&f, delivery, RECIPIENT_DUE, "450 later");
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_memory);
    assert_int_equal(0, f.reads_total);
    assert_sound(&f);
    fixture_fini(&f);
}

static void kept_envelopes_are_bounded(void **state)
{
    struct fixture f;
    uint64_t kept = 0;

    (void)state;
    fixture_init(&f, NULL);
    f.is_slow = f.is_new = true;
    for (uint64_t id = 1; id <= 100; id++) {
        assert_int_equal(
            ERR_OK,
            fixture_insert(&f, &(struct message_options){.id = id, .recipients = "a@y.example"},
                           NULL));
        kept = qmgr_get_stats(f.qmgr).envelope_memory;
    }
    assert_in_range(kept, f.options.body_memory_max / 4 - 2000, f.options.body_memory_max / 4);
    assert_sound(&f);
    for (uint32_t i = 0; i < 100; i++)
        assert_non_null(fixture_take_one(&f));
    assert_true(f.read_count > 50 && f.read_count < 100);
    fixture_reads_end(&f, f.read_count);
    assert_sound(&f);
    fixture_fini(&f);
}

/* ---- the end of messages ---- */

static void expiry_waits_for_the_envelope(void **state)
{
    struct fixture f;
    bool is_loaded;

    (void)state;
    insert_slow(&f, "a@y.example b@y.example", NULL);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    fixture_finish_all(&f, delivery, RECIPIENT_DUE, "450 later");
    fixture_pass(&f, TICK_S(5 * 86400));
    assert_int_equal(0, f.expired_count);
    assert_int_equal(1, f.read_count);
    assert_sound(&f);
    fixture_reads_end(&f, 1);
    assert_int_equal(2, f.expired_count);
    assert_int_equal(2, qmgr_get_stats(f.qmgr).failed_recipients);
    assert_sound(&f);
    assert_ptr_equal(only_message(&f), qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(2, qmgr_dsn_view(f.qmgr, only_message(&f)).failure_count);
    fixture_fini(&f);
}

static void expiry_of_what_cannot_be_read_comes_again(void **state)
{
    struct fixture f;
    struct spool_entry *entry;

    (void)state;
    insert_slow(&f, "a@y.example", &entry);
    entry->is_unreadable = true;
    fixture_pass(&f, TICK_S(5 * 86400) + TICK_MS(1));
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(1, f.read_count);
        fixture_reads_end(&f, 1);
        assert_int_equal(0, f.expired_count);
        assert_sound(&f);
        fixture_pass(&f, f.options.retry_min + TICK_MS(1));
    }
    entry->is_unreadable = false;
    fixture_reads_end(&f, 1);
    assert_int_equal(1, f.expired_count);
    assert_sound(&f);
    fixture_fini(&f);
}

/* The attempt that was under way when the time was over ends first. */
static void expiry_and_an_attempt_share_a_read(void **state)
{
    struct fixture f;
    bool is_loaded;

    (void)state;
    insert_slow(&f, "a@y.example b@z.example", NULL);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_pass(&f, TICK_S(5 * 86400) + TICK_MS(1));
    assert_int_equal(1, f.read_count);
    assert_sound(&f);
    fixture_reads_end(&f, 1);
    assert_int_equal(1, f.expired_count); /* of the other domain */
    assert_ptr_equal(delivery, qmgr_loaded_next(f.qmgr, &is_loaded));
    assert_true(is_loaded && qmgr_delivery_is_cancelled(delivery));
    fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(1, f.expired_count);
    assert_sound(&f);
    fixture_fini(&f);
}

static void a_notification_waits_for_the_envelope(void **state)
{
    struct fixture f;
    struct spool_entry *entry;
    bool is_loaded;

    (void)state;
    insert_slow(&f, "a@y.example", &entry);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    fixture_reads_end(&f, 1);
    assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    fixture_finish_all(&f, delivery, RECIPIENT_FAILED, "550 no");
    f.is_index_only = true;
    fixture_restart(&f);
    assert_sound(&f);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_null(qmgr_dsn_next(f.qmgr, f.now)); /* asked for once */
    assert_int_equal(1, f.read_count);
    entry->is_unreadable = true;
    fixture_reads_end(&f, 1);
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    assert_int_equal(0, f.read_count);
    assert_sound(&f);

    entry->is_unreadable = false;
    fixture_pass(&f, f.options.retry_min + TICK_MS(1));
    assert_null(qmgr_dsn_next(f.qmgr, f.now));
    fixture_reads_end(&f, 1);
    struct qmgr_message *message = qmgr_dsn_next(f.qmgr, f.now);
    assert_non_null(message);
    struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, message);
    assert_int_equal(1, dsn.failure_count);
    assert_true(dsn.is_done && span_is_equal(dsn.failures[0].reply, SPAN_LITERAL("550 no")));
    qmgr_dsn_written(f.qmgr, message, f.now);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    fixture_fini(&f);
}

static uint32_t tell_all(struct fixture *f)
{
    struct qmgr_message *message;
    uint32_t count = 0;

    while ((message = qmgr_dsn_next(f->qmgr, f->now)) != NULL) {
        (void)qmgr_dsn_view(f->qmgr, message);
        qmgr_dsn_written(f->qmgr, message, f->now);
        count++;
    }
    return count;
}

/* Mail that is late at the same time: some is told now, the rest at the end of its next attempt. */
static void late_mail_is_told_in_parts(void **state)
{
    const uint32_t messages = 1100, at_once = 1024;
    struct qmgr_delivery *delivery;
    struct fixture f;

    (void)state;
    fixture_init(&f, &(struct qmgr_options){.message_count_max = messages,
                                            .retry_min = TICK_S(300),
                                            .retry_max = TICK_S(3600),
                                            .delay_after = TICK_S(3600),
                                            .is_delay_unasked = true});
    for (uint64_t id = 1; id <= messages; id++)
        assert_int_equal(
            ERR_OK,
            fixture_insert(&f, &(struct message_options){.id = id, .recipients = "a@y.example"},
                           NULL));
    fixture_pass(&f, TICK_S(3600) + TICK_MS(1));
    assert_sound(&f);
    assert_int_equal(at_once, tell_all(&f));
    assert_sound(&f);
    while ((delivery = fixture_take_one(&f)) != NULL)
        fixture_finish_all(&f, delivery, RECIPIENT_DUE, "450 later");
    assert_int_equal(messages - at_once, tell_all(&f));
    assert_int_equal(messages, qmgr_get_stats(f.qmgr).delays_told);
    assert_sound(&f);
    fixture_fini(&f);
}

/* ---- recovery from an index ---- */

static void index_and_envelope_make_the_same_queue(void **state)
{
    static const uint8_t notify[] = {ENVELOPE_NOTIFY_SUCCESS, 0, ENVELOPE_NOTIFY_DELAY, 0};
    const struct message_options options = {
        .id = 1, .recipients = "a@y.example b@z.example c@y.example d@w.example", .notify = notify};
    struct qmgr_stats stats[2];
    bool is_loaded;

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct fixture f;
        fixture_init(&f, NULL);
        f.is_slow = true;
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
        while (fixture_take_one(&f) != NULL)
            ;
        fixture_reads_end(&f, 1);
        struct qmgr_delivery *delivery;
        while ((delivery = qmgr_loaded_next(f.qmgr, &is_loaded)) != NULL) {
            if (qmgr_delivery_view(f.qmgr, delivery).recipients[0] == 0)
                fixture_finish_all(&f, delivery, RECIPIENT_RELAYED, "250 relayed");
        }
        f.is_index_only = i == 1;
        fixture_restart(&f);
        assert_sound(&f);
        stats[i] = qmgr_get_stats(f.qmgr);
        struct qmgr_message *message = only_message(&f);
        assert_int_equal(RECIPIENT_RELAYED, fixture_status(&f, message, 0).state);
        assert_int_equal(RECIPIENT_DUE, fixture_status(&f, message, 1).state);
        assert_int_equal(RECIPIENT_DELIVERED, fixture_status(&f, message, 2).state);
        assert_int_equal(RECIPIENT_DUE, fixture_status(&f, message, 3).state);
        assert_sound(&f);
        fixture_fini(&f);
    }
    assert_int_equal(stats[0].deliveries_ready, stats[1].deliveries_ready);
    assert_int_equal(stats[0].lines, stats[1].lines);
}

/* ---- operators ---- */

static uint32_t step(struct fixture *f, uint64_t handle, struct qmgr_match matches[4],
                     bool *ret_is_done)
{
    uint32_t count = 0;

    assert_int_equal(ERR_OK,
                     qmgr_scan_step(f->qmgr, handle, matches, 4, &count, ret_is_done, f->now));
    return count;
}

static void a_scan_waits_for_envelopes(void **state)
{
    struct qmgr_filter filter = {0};
    struct qmgr_match matches[4];
    struct fixture f;
    bool is_done;

    (void)state;
    fixture_init(&f, &(struct qmgr_options){.message_count_max = 10,
                                            .retry_min = TICK_S(300),
                                            .retry_max = TICK_S(3600)}); /* no room to keep any */
    f.is_slow = true;
    assert_int_equal(
        ERR_OK,
        fixture_insert(
            &f, &(struct message_options){.id = 1, .recipients = "a@y.example b@z.example"}, NULL));
    uint64_t handle = qmgr_scan_begin(f.qmgr, &filter, f.now);
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_true(!is_done && qmgr_scan_is_waiting(f.qmgr, handle));
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_int_equal(1, f.read_count);
    fixture_reads_end(&f, 1);
    assert_false(qmgr_scan_is_waiting(f.qmgr, handle));
    assert_int_equal(2, step(&f, handle, matches, &is_done));
    assert_non_null(qmgr_message_envelope(matches[0].message));
    assert_false(is_done);
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_true(is_done);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_memory);
    assert_sound(&f);

    handle = qmgr_scan_begin(f.qmgr, &filter, f.now); /* cancelled while it waits */
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    qmgr_scan_end(f.qmgr, handle);
    assert_sound(&f);
    fixture_reads_end(&f, 1);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).envelope_memory);
    assert_sound(&f);
    fixture_fini(&f);
}

static void what_cannot_be_read_is_listed_and_can_be_deleted(void **state)
{
    struct qmgr_order order = {.verb = QMGR_VERB_BOUNCE, .id = 1};
    struct qmgr_filter filter = {0};
    struct qmgr_acted acted = {0};
    struct qmgr_match matches[4];
    struct spool_entry *entry;
    struct fixture f;
    bool is_done;

    (void)state;
    insert_slow(&f, "a@y.example b@y.example", &entry);
    entry->is_unreadable = true;
    uint64_t handle = qmgr_scan_begin(f.qmgr, &filter, f.now);
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    fixture_reads_end(&f, 1);
    assert_int_equal(1, step(&f, handle, matches, &is_done));
    assert_true(matches[0].is_unreadable);
    assert_null(qmgr_message_envelope(matches[0].message));
    qmgr_act(f.qmgr, matches, 1, &order, &acted, f.now); /* nobody knows whom to tell */
    assert_int_equal(2, acted.matched); /* both: recipients are counted, not steps */
    assert_int_equal(0, acted.done);
    assert_sound(&f);
    order.verb = QMGR_VERB_DELETE;
    qmgr_act(f.qmgr, matches, 1, &order, &acted, f.now);
    assert_int_equal(2, acted.done);
    assert_true(entry->is_done);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
    assert_int_equal(0, qmgr_get_stats(f.qmgr).unreadable);
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_true(is_done);
    fixture_fini(&f);
}

static const struct {
    const char *filter;
    uint64_t count, reads;
} counts[] = {
    {"domain=y.example", 200, 0},
    {"sender_domain=x.example", 300, 0},
    {"state=ready", 300, 0},
    {"", 300, 0},
    {"recipient=a@y.example", 100, 100},
    {"sender=a@x.example domain=z.example", 100, 100},
};

/* What only counts reads no envelope that it can do without. */
static void counting_reads_only_what_it_must(void **state)
{
    char why[QMGR_FILTER_WHY_SIZE];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(counts); i++) {
        struct qmgr_filter filter;
        struct fixture f;
        uint64_t total = 0, found;
        bool is_done = false;
        print_message("# %s\n", counts[i].filter);
        fixture_init(&f, NULL);
        for (uint64_t id = 1; id <= 100; id++)
            assert_int_equal(
                ERR_OK,
                fixture_insert(&f,
                               &(struct message_options){
                                   .id = id, .recipients = "a@y.example b@y.example c@z.example"},
                               NULL));
        assert_int_equal(ERR_OK, qmgr_filter_parse(span_from_text(counts[i].filter), &filter, why));
        uint64_t handle = qmgr_count_begin(f.qmgr, &filter, f.now);
        for (uint32_t step = 0; step < 100 && !is_done; step++) {
            assert_int_equal(ERR_OK, qmgr_count_step(f.qmgr, handle, &found, &is_done, f.now));
            total += found;
        }
        assert_true(is_done);
        assert_int_equal(counts[i].count, total);
        assert_int_equal(counts[i].reads, f.reads_total);
        assert_sound(&f);
        fixture_fini(&f);
    }
}

static void a_message_may_end_while_a_scan_has_it(void **state)
{
    struct qmgr_filter filter = {0};
    struct qmgr_match matches[4];
    struct fixture f;
    bool is_done, is_loaded;

    (void)state;
    insert_slow(&f, "a@y.example", NULL);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    uint64_t handle = qmgr_scan_begin(f.qmgr, &filter, f.now);
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_int_equal(1, f.read_count);
    fixture_reads_end(&f, 1);
    assert_non_null(qmgr_loaded_next(f.qmgr, &is_loaded));
    fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(0, step(&f, handle, matches, &is_done));
    assert_true(is_done);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_attempt_begins_when_the_envelope_is_here),
        cmocka_unit_test(one_read_serves_all_deliveries_of_a_message),
        cmocka_unit_test(states_are_applied_to_what_is_read),
        cmocka_unit_test(an_envelope_that_cannot_be_read_is_tried_again),
        cmocka_unit_test(no_memory_for_an_envelope_is_a_matter_of_seconds),
        cmocka_unit_test(nothing_is_left_of_a_queue_that_ends_while_it_reads),
        cmocka_unit_test(a_new_envelope_is_kept_for_its_first_attempt),
        cmocka_unit_test(kept_envelopes_are_bounded),
        cmocka_unit_test(expiry_waits_for_the_envelope),
        cmocka_unit_test(expiry_of_what_cannot_be_read_comes_again),
        cmocka_unit_test(expiry_and_an_attempt_share_a_read),
        cmocka_unit_test(a_notification_waits_for_the_envelope),
        cmocka_unit_test(late_mail_is_told_in_parts),
        cmocka_unit_test(index_and_envelope_make_the_same_queue),
        cmocka_unit_test(a_scan_waits_for_envelopes),
        cmocka_unit_test(what_cannot_be_read_is_listed_and_can_be_deleted),
        cmocka_unit_test(a_message_may_end_while_a_scan_has_it),
        cmocka_unit_test(counting_reads_only_what_it_must),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
