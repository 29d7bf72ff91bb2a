/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Mail whose client waits: what the queue tells its owner, what is stored of it, and what comes
 * back after a restart. qmgr_verify() follows every step.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

/* What the owner was told. */
struct owner {
    uint32_t ended, store_due;
    uint16_t code; /* of the refusal; 0: none */
    enum way reason;
    bool is_deaf; /* nobody hears a refusal */
};

static bool on_end(void *context, void *user, const struct qmgr_result *refusal)
{
    struct owner *owner = user;

    (void)context;
    if (refusal != NULL && owner->is_deaf)
        return false;
    owner->ended++;
    owner->code = refusal == NULL ? 0 : refusal->code;
    return true;
}

static void on_store_due(void *context, void *user, enum way reason)
{
    struct owner *owner = user;

    (void)context;
    owner->store_due++;
    owner->reason = reason;
}

static void begin(struct fixture *f)
{
    struct qmgr_options options = {
        .message_count_max = 1000,
        .body_memory_max = 100000,
        .retry_min = TICK_S(300),
        .retry_max = TICK_S(4 * 3600),
        .on_unstored_end = on_end,
        .on_store_due = on_store_due,
    };

    fixture_init(f, &options);
}

static void assert_sound(struct fixture *f)
{
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

/* `is_open`: its owner has the body, which is still coming. */
static struct qmgr_message *insert_as(struct fixture *f, struct owner *owner,
                                      const char *recipients, bool is_open)
{
    static const uint8_t text[] = "Subject: hello\r\n\r\nx\r\n";
    struct message_options options = {.id = 7, .recipients = recipients, .class = 1};
    uint8_t encoded[1024];
    struct buf_queue body;
    struct arena arena;

    arena_init(&arena, 4096, 1u << 20);
    buf_queue_init(&body);
    assert_int_equal(ERR_OK,
                     buf_queue_append_copy(&body, f->pool, span_of(text, sizeof(text) - 1)));
    struct envelope envelope = fixture_envelope(f, &options, &arena);
    uint32_t size = envelope_encoded_size(&envelope);
    assert_true(size <= sizeof(encoded));
    envelope_encode(&envelope, encoded);
    struct qmgr_insert insert = {.encoded = span_of(encoded, size),
                                 .is_new = true,
                                 .body = is_open ? NULL : &body,
                                 .owner = owner,
                                 .way = is_open ? WAY_STREAM : WAY_READY};
    assert_int_equal(ERR_OK, qmgr_insert(f->qmgr, &insert, f->now));
    struct qmgr_message *message = qmgr_find(f->qmgr, envelope.id);
    assert_non_null(message);
    assert_int_equal(insert.way, qmgr_message_way(message));
    buf_queue_fini(&body);
    arena_fini(&arena);
    assert_sound(f);
    return message;
}

static struct qmgr_message *insert(struct fixture *f, struct owner *owner, const char *recipients)
{
    return insert_as(f, owner, recipients, false);
}

/* As the spool does it: the entry has MESSAGE and the PROGRESS that came with it. */
static struct spool_entry *store(struct fixture *f, struct qmgr_message *message, enum way reason,
                                 bool is_in_doubt)
{
    struct envelope envelope;
    struct arena arena;
    bool is_open = qmgr_message_way(message) == WAY_STREAM;
    struct qmgr_storing storing = qmgr_store(f->qmgr, message, reason, is_in_doubt, f->now);

    arena_init(&arena, 4096, 1u << 20);
    assert_int_equal(is_open ? 0 : 21, storing.body->size); /* an open one's is with its owner */
    assert_int_equal(ERR_OK, envelope_decode(storing.encoded, &arena, &envelope));
    struct spool_entry *entry = fixture_entry_new(f, &envelope);
    if (storing.progress.size > 0)
        spool_progress(NULL, entry, storing.progress);
    arena_fini(&arena);
    assert_sound(f);
    return entry;
}

static void stored(struct fixture *f, struct qmgr_message *message, struct spool_entry *entry)
{
    qmgr_stored(f->qmgr, message, entry, f->now);
    assert_sound(f);
}

/* One result for each recipient: '+' delivered, '-' refused, '?' deferred. */
static void finish(struct fixture *f, struct qmgr_delivery *delivery, const char *fates,
                   bool is_in_doubt)
{
    struct qmgr_result results[4] = {{0}};
    uint32_t count = (uint32_t)strlen(fates);

    for (uint32_t i = 0; i < count; i++) {
        results[i] = (struct qmgr_result){.recipient_index = i, .reply = SPAN_LITERAL("so it is")};
        results[i].state = fates[i] == '+'   ? RECIPIENT_DELIVERED
                           : fates[i] == '-' ? RECIPIENT_FAILED
                                             : RECIPIENT_DUE;
        results[i].code = fates[i] == '+' ? 250 : fates[i] == '-' ? (uint16_t)(550 + i) : 450;
    }
    struct qmgr_finish end = {.results = results,
                              .result_count = count,
                              .was_attempted = count > 0,
                              .is_in_doubt = is_in_doubt};
    qmgr_finish(f->qmgr, delivery, &end, f->now);
    assert_sound(f);
}

/* ---- the end of an attempt ---- */

static void outcome_of_an_attempt(void **state)
{
    static const struct row {
        const char *name, *fates;
        bool is_in_doubt, is_deaf;
        uint32_t ended, store_due;
        uint16_t code;
        enum way reason;
        uint32_t due_after, notices_after; /* a restart */
    } rows[] = {
        {"both accepted", "++", false, false, 1, 0, 0, WAY_UNKNOWN, 0, 0},
        {"both refused", "--", false, false, 1, 0, 550, WAY_UNKNOWN, 0, 0},
        {"both refused, nobody hears it", "--", false, true, 0, 1, 0, WAY_LEFT, 0, 2},
        {"both deferred", "??", false, false, 0, 1, 0, WAY_TEMPORARY, 2, 0},
        {"one accepted, one deferred", "+?", false, false, 0, 1, 0, WAY_MIXED, 1, 0},
        {"one accepted, one refused", "+-", false, false, 0, 1, 0, WAY_MIXED, 0, 1},
        {"one refused, one deferred", "-?", false, false, 0, 1, 0, WAY_MIXED, 1, 1},
        {"lost behind the end of data", "??", true, false, 0, 1, 0, WAY_UNCERTAIN, 2, 0},
        {"not attempted", "", false, false, 0, 0, 0, WAY_UNKNOWN, 0, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct owner owner = {.is_deaf = rows[i].is_deaf};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v b@v");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        assert_ptr_equal(delivery, qmgr_unstored_active(message));
        assert_ptr_equal(&owner, qmgr_delivery_owner(delivery));
        finish(&f, delivery, rows[i].fates, rows[i].is_in_doubt);
        assert_int_equal(rows[i].ended, owner.ended);
        assert_int_equal(rows[i].store_due, owner.store_due);
        assert_int_equal(rows[i].code, owner.code);
        assert_int_equal(rows[i].reason, owner.reason);
        assert_int_equal(rows[i].ended == 0, qmgr_get_stats(f.qmgr).messages);
        assert_null(qmgr_dsn_next(f.qmgr, f.now)); /* nothing that is not stored is returned */
        if (rows[i].store_due > 0) {
            stored(&f, message, store(&f, message, owner.reason, false));
            assert_int_equal(rows[i].reason, qmgr_message_way(message));
            fixture_restart(&f); /* as a crash right behind the commit */
            assert_sound(&f);
            fixture_pass(&f, TICK_S(4000));
            struct qmgr_delivery *again = fixture_take_one(&f);
            assert_int_equal(rows[i].due_after > 0, again != NULL);
            if (again != NULL) {
                struct qmgr_view view = qmgr_delivery_view(f.qmgr, again);
                assert_int_equal(rows[i].due_after, view.recipient_count);
                assert_int_equal(1, view.attempts);
                assert_int_equal(rows[i].is_in_doubt,
                                 (view.envelope->flags & ENVELOPE_IN_DOUBT) != 0);
                qmgr_finish(f.qmgr, again, &(struct qmgr_finish){.retry_now = true}, f.now);
            }
            struct qmgr_message *owing = qmgr_dsn_next(f.qmgr, f.now);
            assert_int_equal(rows[i].notices_after > 0, owing != NULL);
            if (owing != NULL) {
                struct qmgr_dsn dsn = qmgr_dsn_view(f.qmgr, owing);
                assert_int_equal(rows[i].notices_after, dsn.failure_count);
                assert_true(span_is_equal(SPAN_LITERAL("so it is"), dsn.failures[0].reply));
                qmgr_dsn_failed(f.qmgr, owing, f.now);
            }
        }
        fixture_fini(&f);
    }
}

/* ---- stored while it waits, or is under way ---- */

static void what_is_being_stored_is_not_begun(void **state)
{
    struct owner owner = {0};
    struct fixture f;

    (void)state;
    begin(&f);
    struct qmgr_message *message = insert(&f, &owner, "a@v");
    struct spool_entry *entry = store(&f, message, WAY_BUSY, false);
    assert_null(fixture_take_one(&f));
    fixture_pass(&f, TICK_S(60));
    assert_null(fixture_take_one(&f));
    stored(&f, message, entry);
    struct qmgr_delivery *delivery = fixture_take_one(&f);
    assert_non_null(delivery);
    assert_null(qmgr_delivery_owner(delivery));
    finish(&f, delivery, "+", false);
    assert_true(entry->is_done);
    assert_int_equal(0, owner.ended + owner.store_due);
    fixture_fini(&f);
}

/* What happens during the commit is told behind it. */
static void results_come_while_it_is_stored(void **state)
{
    static const struct row {
        const char *name, *fates;
        bool is_done;
        uint32_t progress_count;
    } rows[] = {
        {"accepted", "++", true, 0},
        {"deferred", "??", false, 1},
        {"mixed", "+-", false, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct owner owner = {0};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v b@v");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        struct spool_entry *entry = store(&f, message, WAY_PATIENCE, true);
        assert_int_equal(0, entry->progress_count);
        finish(&f, delivery, rows[i].fates, false);
        assert_false(entry->is_done);
        stored(&f, message, entry);
        assert_int_equal(rows[i].is_done, entry->is_done);
        assert_int_equal(rows[i].progress_count, entry->progress_count);
        assert_int_equal(0, owner.ended + owner.store_due);
        fixture_fini(&f);
    }
}

/* A crash while the next hop's reply is waited for: it comes back in doubt. */
static void copy_in_doubt_comes_back_marked(void **state)
{
    for (uint32_t is_index_only = 0; is_index_only < 2; is_index_only++) {
        struct owner owner = {0};
        struct fixture f;

        (void)state;
        begin(&f);
        f.is_index_only = is_index_only != 0;
        struct qmgr_message *message = insert(&f, &owner, "a@v");
        struct qmgr_delivery *delivery = fixture_take_one(&f);
        assert_int_equal(0,
                         qmgr_delivery_view(f.qmgr, delivery).envelope->flags & ENVELOPE_IN_DOUBT);
        stored(&f, message, store(&f, message, WAY_PATIENCE, true));
        assert_null(fixture_take_one(&f)); /* not before the connection is lost */
        fixture_restart(&f);
        delivery = fixture_take_one(&f);
        assert_non_null(delivery);
        assert_int_equal(ENVELOPE_IN_DOUBT,
                         qmgr_delivery_view(f.qmgr, delivery).envelope->flags & ENVELOPE_IN_DOUBT);
        finish(&f, delivery, "+", false);
        fixture_fini(&f);
    }
}

/* ---- a commit that fails ---- */

static void failed_commit(void **state)
{
    static const struct row {
        const char *name;
        bool is_active;
        const char *fates; /* before the commit fails; NULL: still under way */
        bool is_delivered;
    } rows[] = {
        {"waiting", false, NULL, false},          {"under way", true, NULL, false},
        {"deferred meanwhile", true, "?", false}, {"refused meanwhile", true, "-", false},
        {"delivered meanwhile", true, "+", true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_delivery *delivery = NULL;
        struct owner owner = {0};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v");
        if (rows[i].is_active)
            delivery = fixture_take_one(&f);
        (void)store(&f, message, WAY_PATIENCE, false);
        if (rows[i].fates != NULL)
            finish(&f, delivery, rows[i].fates, false);
        assert_int_equal(rows[i].is_delivered, qmgr_store_failed(f.qmgr, message));
        assert_sound(&f);
        bool is_under_way = rows[i].is_active && rows[i].fates == NULL;
        assert_int_equal(is_under_way, qmgr_get_stats(f.qmgr).messages);
        if (is_under_way) {
            assert_true(qmgr_delivery_is_cancelled(delivery));
            finish(&f, delivery, "-", false);
            assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
        }
        assert_null(qmgr_dsn_next(f.qmgr, f.now));
        assert_int_equal(0, owner.ended + owner.store_due);
        fixture_fini(&f);
    }
}

/* ---- orders, and the end of its life ---- */

static void act(struct fixture *f, struct qmgr_message *message, enum qmgr_verb verb)
{
    struct qmgr_order order = {.verb = verb, .id = 1, .until = QMGR_HOLD_FOR_EVER, .reason = "no"};
    struct qmgr_acted acted = {0};
    struct qmgr_match matches[2];
    const struct envelope *envelope = qmgr_message_envelope(message);

    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        matches[i] = (struct qmgr_match){.message = message, .recipient_index = i};
        matches[i].delivery = (struct qmgr_delivery *)(uintptr_t)qmgr_message_delivery(
            message, envelope, &envelope->recipients[i]);
    }
    qmgr_act(f->qmgr, matches, envelope->recipient_count, &order, &acted, f->now);
    assert_sound(f);
}

/* An order about mail that is under way while it is stored, or was before: told with that commit,
 * or behind it. The relay dies before the attempt has ended. */
static void wishes_are_stored_with_the_message(void **state)
{
    static const struct row {
        const char *name;
        enum qmgr_verb verb;
        bool is_before; /* the commit begins */
        uint32_t held, failed, done;
    } rows[] = {
        {"hold, then stored", QMGR_VERB_HOLD, true, 1, 0, 0},
        {"hold while it is stored", QMGR_VERB_HOLD, false, 1, 0, 0},
        {"bounce, then stored", QMGR_VERB_BOUNCE, true, 0, 2, 0},
        {"bounce while it is stored", QMGR_VERB_BOUNCE, false, 0, 2, 0},
        {"delete, then stored", QMGR_VERB_DELETE, true, 0, 0, 1},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct owner owner = {0};
        struct fixture f;
        struct spool_entry *entry;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v b@v");
        assert_non_null(fixture_take_one(&f));
        if (rows[i].is_before) {
            act(&f, message, rows[i].verb);
            assert_int_equal(0, owner.store_due); /* it is not ours before that */
            entry = store(&f, message, WAY_PATIENCE, true);
            assert_int_equal(1, entry->progress_count);
        } else {
            entry = store(&f, message, WAY_PATIENCE, true);
            act(&f, message, rows[i].verb);
            assert_int_equal(0, entry->progress_count);
        }
        stored(&f, message, entry);
        assert_int_equal(1, entry->progress_count);
        fixture_restart(&f);
        assert_sound(&f);
        assert_int_equal(rows[i].held, qmgr_get_stats(f.qmgr).deliveries_held);
        assert_int_equal(rows[i].failed, qmgr_get_stats(f.qmgr).failed_recipients);
        assert_int_equal(rows[i].done, f.done_count);
        assert_null(fixture_take_one(&f));
        fixture_fini(&f);
    }
}

/* Held by an order that stands, and released, before it was stored. */
static void what_was_released_unstored_is_not_held_again(void **state)
{
    (void)state;
    for (uint32_t is_released = 0; is_released < 2; is_released++) {
        struct owner owner = {0};
        struct fixture f;
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v b@v");
        assert_non_null(fixture_take_one(&f));
        struct qmgr_standing standing = {.order = {.verb = QMGR_VERB_HOLD, .id = 1, .reason = "no"},
                                         .given = f.now.wall,
                                         .until = f.now.wall + (wall_us)TICK_S(1000)};
        assert_int_equal(ERR_OK, qmgr_standing_add(f.qmgr, &standing, f.now));
        act(&f, message, QMGR_VERB_HOLD);
        if (is_released)
            act(&f, message, QMGR_VERB_RELEASE);
        stored(&f, message, store(&f, message, WAY_PATIENCE, false));
        f.standing = &standing;
        f.standing_count = 1;
        fixture_restart(&f);
        assert_sound(&f);
        assert_int_equal(!is_released, qmgr_get_stats(f.qmgr).deliveries_held);
        fixture_fini(&f);
    }
}

static void orders_find_it(void **state)
{
    static const struct row {
        const char *name;
        enum qmgr_verb verb;
        uint32_t ended, store_due;
        bool is_held, is_returned;
    } rows[] = {
        {"hold", QMGR_VERB_HOLD, 0, 1, true, false},
        {"bounce", QMGR_VERB_BOUNCE, 0, 1, false, true},
        {"delete", QMGR_VERB_DELETE, 1, 0, false, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct owner owner = {0};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert(&f, &owner, "a@v");
        act(&f, message, rows[i].verb);
        assert_int_equal(rows[i].ended, owner.ended);
        assert_int_equal(rows[i].store_due, owner.store_due);
        if (owner.store_due > 0) {
            assert_int_equal(WAY_ORDER, owner.reason);
            stored(&f, message, store(&f, message, owner.reason, false));
            fixture_restart(&f);
            assert_int_equal(rows[i].is_held, qmgr_get_stats(f.qmgr).deliveries_held);
            struct qmgr_message *owing = qmgr_dsn_next(f.qmgr, f.now);
            assert_int_equal(rows[i].is_returned, owing != NULL);
            if (owing != NULL) {
                assert_int_equal(1, qmgr_dsn_view(f.qmgr, owing).failure_count);
                qmgr_dsn_failed(f.qmgr, owing, f.now);
            }
        }
        fixture_fini(&f);
    }
}

/* ---- a body that is still coming ---- */

/* What is known only at its end is in the queue's copy, in the spool's, and outlives a restart;
 * what came of it meanwhile stays. */
static void body_that_comes_later(void **state)
{
    static const struct row {
        const char *name, *fates; /* of the attempt that began before; NULL: none has */
        bool is_in_doubt, is_complete_first;
        uint32_t flags;
    } rows[] = {
        {"nobody has begun", NULL, false, true, ENVELOPE_EIGHT_BIT | ENVELOPE_DOT_LINES},
        {"refused for now before its end", "??", false, false, ENVELOPE_DOT_LINES},
        {"refused for now behind it", "??", false, true, ENVELOPE_NO_FINAL_CRLF},
        {"one of two taken", "+?", false, true, 0},
        {"in doubt", "??", true, true, ENVELOPE_EIGHT_BIT},
    };
    const struct qmgr_completion none = {.body_size = 300000, .header_size = 77};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct qmgr_completion completion = none;
        struct owner owner = {0};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        completion.flags = rows[i].flags;
        struct qmgr_message *message = insert_as(&f, &owner, "a@v b@v", true);
        struct qmgr_delivery *delivery = rows[i].fates == NULL ? NULL : fixture_take_one(&f);
        if (rows[i].is_complete_first)
            qmgr_unstored_complete(f.qmgr, message, &completion);
        assert_sound(&f);
        if (delivery != NULL) {
            assert_int_equal(rows[i].is_complete_first ? 300000 : 1000, /* as its sender says */
                             qmgr_delivery_view(f.qmgr, delivery).envelope->body_size);
            finish(&f, delivery, rows[i].fates, rows[i].is_in_doubt);
            assert_int_equal(1, owner.store_due);
        }
        if (!rows[i].is_complete_first)
            qmgr_unstored_complete(f.qmgr, message, &completion);
        enum way reason = delivery == NULL ? WAY_BUSY : owner.reason;
        stored(&f, message, store(&f, message, reason, rows[i].is_in_doubt));
        fixture_restart(&f);
        assert_sound(&f);
        f.now.tick += TICK_S(4000); /* its retry is due */
        f.now.wall += (wall_us)TICK_S(4000);
        qmgr_advance(f.qmgr, f.now);
        struct qmgr_view view = qmgr_delivery_view(f.qmgr, fixture_take_one(&f));
        assert_int_equal(300000, view.envelope->body_size);
        assert_int_equal(77, view.envelope->header_size);
        assert_int_equal(rows[i].flags | (rows[i].is_in_doubt ? ENVELOPE_IN_DOUBT : 0),
                         view.envelope->flags);
        fixture_fini(&f);
    }
}

/* It is forgotten: nobody is told anything, nothing is returned, and nothing is stored. */
static void body_that_never_comes(void **state)
{
    static const struct row {
        const char *name, *fates; /* of the attempt that was under way; NULL: none was */
        bool is_in_doubt;
    } rows[] = {
        {"nobody has begun", NULL, false},   {"the attempt is given up", "??", false},
        {"refused for good", "--", false},   {"one was refused for good", "-?", false},
        {"taken all the same", "++", false}, {"in doubt", "??", true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct owner owner = {0};
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        struct qmgr_message *message = insert_as(&f, &owner, "a@v b@v", true);
        struct message_id id = {0};
        struct qmgr_delivery *delivery = rows[i].fates == NULL ? NULL : fixture_take_one(&f);
        if (delivery != NULL)
            id = qmgr_delivery_view(f.qmgr, delivery).envelope->id;
        qmgr_unstored_forget(f.qmgr, message, f.now);
        assert_sound(&f);
        if (delivery != NULL) {
            assert_ptr_equal(message, qmgr_find(f.qmgr, id));
            assert_null(qmgr_delivery_owner(delivery));
            finish(&f, delivery, rows[i].fates, rows[i].is_in_doubt);
        }
        assert_int_equal(0, qmgr_get_stats(f.qmgr).messages);
        assert_int_equal(0, owner.ended + owner.store_due);
        assert_null(qmgr_dsn_next(f.qmgr, f.now));
        assert_int_equal(0, f.done_count);
        fixture_fini(&f);
    }
}

/* ---- what makes new mail take the spool ---- */

static void stored_mail_that_is_due_goes_first(void **state)
{
    static const struct row {
        const char *name, *domain;
        uint8_t class;
        bool is_due, is_waited_for;
    } rows[] = {
        {"of the same class", "a@v", 1, true, true},
        {"of an earlier class", "a@v", 0, true, true},
        {"of a later class", "a@v", 2, true, false},
        {"of another domain", "a@w", 1, true, false},
        {"that waits for a retry", "a@v", 1, false, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct message_options options = {
            .id = 1, .recipients = rows[i].domain, .class = rows[i].class};
        struct message_options new = {.id = 2, .recipients = "a@v", .class = 1};
        struct owner owner = {0};
        struct arena arena;
        struct fixture f;

        print_message("# %s\n", rows[i].name);
        begin(&f);
        arena_init(&arena, 4096, 1u << 20);
        struct envelope envelope = fixture_envelope(&f, &new, &arena);
        assert_false(qmgr_is_waited_for(f.qmgr, &envelope));
        (void)insert(&f, &owner, "a@v"); /* what is not stored itself makes nobody wait */
        assert_false(qmgr_is_waited_for(f.qmgr, &envelope));
        assert_int_equal(ERR_OK, fixture_insert(&f, &options, NULL));
        if (!rows[i].is_due) {
            struct qmgr_line *line;
            struct qmgr_delivery *first = fixture_take(&f, &line);
            struct qmgr_delivery *second = qmgr_take(f.qmgr, line, f.now);
            finish(&f, qmgr_delivery_owner(first) == NULL ? first : second, "?", false);
            qmgr_line_return(f.qmgr, line, f.now);
        }
        assert_int_equal(rows[i].is_waited_for, qmgr_is_waited_for(f.qmgr, &envelope));
        assert_sound(&f);
        arena_fini(&arena);
        fixture_fini(&f);
    }
}

static void bodies_are_bounded(void **state)
{
    struct owner owner = {0};
    struct fixture f;

    (void)state;
    begin(&f);
    assert_true(qmgr_has_body_room(f.qmgr, 100000));
    assert_false(qmgr_has_body_room(f.qmgr, 100001));
    (void)insert(&f, &owner, "a@v");
    assert_true(qmgr_has_body_room(f.qmgr, 100000 - 21));
    assert_false(qmgr_has_body_room(f.qmgr, 100001 - 21));
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outcome_of_an_attempt),
        cmocka_unit_test(what_is_being_stored_is_not_begun),
        cmocka_unit_test(results_come_while_it_is_stored),
        cmocka_unit_test(wishes_are_stored_with_the_message),
        cmocka_unit_test(copy_in_doubt_comes_back_marked),
        cmocka_unit_test(failed_commit),
        cmocka_unit_test(what_was_released_unstored_is_not_held_again),
        cmocka_unit_test(orders_find_it),
        cmocka_unit_test(body_that_comes_later),
        cmocka_unit_test(body_that_never_comes),
        cmocka_unit_test(stored_mail_that_is_due_goes_first),
        cmocka_unit_test(bodies_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
