/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue manager over a slow disk that fails at times: reads of envelopes end late, in the midst
 * of everything else, or with an error. Seeded traffic with attempts, orders, notifications,
 * expiries and restarts, from envelopes and from indexes. A ledger keeps what became of every
 * recipient: each has one end, nobody is tried after it, everybody is told of once, and at the end
 * every message has ended. After every operation qmgr_verify() must find the queue sound.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

#define MESSAGES   400u
#define LIVE_MAX   30u
#define RECIPIENTS 6u
#define HANDS_MAX  64u
#define OPERATIONS 4000u

struct ledger_recipient {
    enum recipient_state state; /* SETTLED: deleted, or told of */
    enum recipient_state wish;  /* what a restart makes of it, if it is DUE then; DUE: nothing */
    uint32_t tried;
};

struct ledger {
    struct fixture f; /* first */
    struct {
        bool is_null_sender;
        uint32_t count;
        struct ledger_recipient recipients[RECIPIENTS];
    } messages[MESSAGES];
    uint32_t message_count;
    struct qmgr_delivery *active[HANDS_MAX]; /* loaded */
    uint32_t active_count, waiting_count;    /* taken: loaded, and not yet */
    struct qmgr_message *reported;
    uint32_t order;
    uint64_t failures, told, restarts, deleted, relayed, lost, wished;
};

static uint32_t below(struct ledger *l, uint32_t bound)
{
    return rng_below(&l->f.rng, bound);
}

static struct ledger_recipient *ledger_get(struct ledger *l, const struct envelope *envelope,
                                           uint32_t index)
{
    assert_in_range(envelope->id.low, 1, l->message_count);
    assert_true(index < l->messages[envelope->id.low - 1].count);
    return &l->messages[envelope->id.low - 1].recipients[index];
}

/* From DUE to its end, once. */
static void ledger_end(struct ledger *l, const struct envelope *envelope, uint32_t index,
                       enum recipient_state state)
{
    struct ledger_recipient *recipient = ledger_get(l, envelope, index);

    assert_int_equal(RECIPIENT_DUE, recipient->state);
    if (state == RECIPIENT_RELAYED)
        state = RECIPIENT_DELIVERED; /* nobody asked to hear of it */
    if (state == RECIPIENT_FAILED && l->messages[envelope->id.low - 1].is_null_sender)
        state = RECIPIENT_SETTLED;
    recipient->state = state;
}

static void on_expired(void *context, const struct envelope *envelope, uint32_t index)
{
    ledger_end(context, envelope, index, RECIPIENT_FAILED);
}

static void on_order(void *context, const struct envelope *envelope, uint32_t index,
                     const struct qmgr_order *order)
{
    struct ledger *l = context;

    assert_int_equal(RECIPIENT_DUE, ledger_get(l, envelope, index)->state);
    l->deleted += order->verb == QMGR_VERB_DELETE;
    if (order->verb == QMGR_VERB_DELETE)
        ledger_end(l, envelope, index, RECIPIENT_SETTLED);
    else if (order->verb == QMGR_VERB_BOUNCE)
        ledger_end(l, envelope, index, RECIPIENT_FAILED);
}

/* ---- operations ---- */

static void op_insert(struct ledger *l)
{
    char text[RECIPIENTS * 4 + 1] = "";

    if (l->message_count == MESSAGES || qmgr_get_stats(l->f.qmgr).messages >= LIVE_MAX)
        return;
    uint32_t place = l->message_count++;
    l->messages[place].count = 1 + below(l, RECIPIENTS);
    l->messages[place].is_null_sender = below(l, 5) == 0;
    for (uint32_t i = 0; i < l->messages[place].count; i++) {
        const char one[4] = {' ', (char)('a' + i), '@', (char)('w' + below(l, 3))};
        memcpy(text + 4 * i, one, sizeof(one));
    }
    l->f.is_new = below(l, 2) == 0;
    struct message_options options = {.id = place + 1,
                                      .sender =
                                          l->messages[place].is_null_sender ? "" : "a@x.example",
                                      .recipients = text + 1,
                                      .lifetime = TICK_S(3600 + below(l, 4 * 3600))};
    assert_int_equal(ERR_OK, fixture_insert(&l->f, &options, NULL));
    l->f.is_new = false;
}

static void begin(struct ledger *l, struct qmgr_delivery *delivery)
{
    struct qmgr_view view = qmgr_delivery_view(l->f.qmgr, delivery);

    for (uint32_t i = 0; i < view.recipient_count; i++) {
        struct ledger_recipient *recipient = ledger_get(l, view.envelope, view.recipients[i]);
        assert_int_equal(RECIPIENT_DUE, recipient->state);
        recipient->tried++;
    }
    l->active[l->active_count++] = delivery;
}

static void op_take(struct ledger *l)
{
    if (l->active_count + l->waiting_count == HANDS_MAX)
        return;
    struct qmgr_line *line = qmgr_line_next(l->f.qmgr, l->f.now);
    if (line == NULL)
        return;
    struct qmgr_delivery *delivery = qmgr_take(l->f.qmgr, line, l->f.now);
    if (delivery != NULL && qmgr_delivery_is_loaded(delivery))
        begin(l, delivery);
    else if (delivery != NULL)
        l->waiting_count++;
    qmgr_line_return(l->f.qmgr, line, l->f.now);
}

static void op_reads_end(struct ledger *l)
{
    uint32_t count = below(l, l->f.read_count + 1);

    for (uint32_t i = 0; i < count; i++) {
        l->f.reads[0].entry->is_unreadable = below(l, 6) == 0;
        fixture_reads_end(&l->f, 1);
    }
}

static void op_loaded(struct ledger *l)
{
    struct qmgr_delivery *delivery;
    bool is_loaded;

    while ((delivery = qmgr_loaded_next(l->f.qmgr, &is_loaded)) != NULL) {
        l->waiting_count--;
        if (is_loaded) {
            begin(l, delivery);
            continue;
        }
        l->failures++;
        qmgr_finish(l->f.qmgr, delivery, &(struct qmgr_finish){.retry_now = true}, l->f.now);
    }
}

static void op_finish(struct ledger *l)
{
    static const enum recipient_state fates[] = {RECIPIENT_DUE, RECIPIENT_DUE, RECIPIENT_DELIVERED,
                                                 RECIPIENT_RELAYED, RECIPIENT_FAILED};
    struct qmgr_result results[RECIPIENTS];
    struct qmgr_finish finish = {.results = results, .was_attempted = below(l, 6) > 0};

    if (l->active_count == 0)
        return;
    uint32_t place = below(l, l->active_count);
    struct qmgr_delivery *delivery = l->active[place];
    l->active[place] = l->active[--l->active_count];
    struct qmgr_view view = qmgr_delivery_view(l->f.qmgr, delivery);
    for (uint32_t i = 0; i < view.recipient_count && finish.was_attempted; i++) {
        if (below(l, 4) == 0)
            continue;
        enum recipient_state state = fates[below(l, COUNT_OF(fates))];
        results[finish.result_count++] = (struct qmgr_result){.recipient_index = view.recipients[i],
                                                              .state = state,
                                                              .reply = SPAN_LITERAL("a reply")};
        l->relayed += state == RECIPIENT_RELAYED;
        if (state != RECIPIENT_DUE)
            ledger_end(l, view.envelope, view.recipients[i], state);
    }
    finish.is_in_doubt = finish.was_attempted && below(l, 10) == 0;
    qmgr_finish(l->f.qmgr, delivery, &finish, l->f.now);
}

/* What is under way comes back ended, if its attempt has no end before. */
static void note_wishes(struct ledger *l, const struct qmgr_match *matches, uint32_t count,
                        const struct qmgr_order *order)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct envelope *envelope = qmgr_message_envelope(matches[i].message);
        if (order->verb < QMGR_VERB_BOUNCE || order->verb > QMGR_VERB_DELETE || envelope == NULL ||
            !qmgr_message_status(matches[i].message, matches[i].recipient_index, l->f.now)
                 .is_active)
            continue;
        struct ledger_recipient *recipient = ledger_get(l, envelope, matches[i].recipient_index);
        bool is_told =
            order->verb == QMGR_VERB_BOUNCE && !l->messages[envelope->id.low - 1].is_null_sender;
        if (recipient->wish == RECIPIENT_DUE)
            recipient->wish = is_told ? RECIPIENT_FAILED : RECIPIENT_SETTLED;
    }
}

static void fulfil_wishes(struct ledger *l)
{
    for (uint32_t i = 0; i < l->message_count; i++) {
        for (uint32_t j = 0; j < l->messages[i].count; j++) {
            struct ledger_recipient *recipient = &l->messages[i].recipients[j];
            bool is_wished = recipient->state == RECIPIENT_DUE && recipient->wish != RECIPIENT_DUE;
            if (is_wished)
                recipient->state = recipient->wish;
            l->wished += is_wished;
        }
    }
}

/* What cannot be read is deleted without a word of who it was for. */
static void act_one(struct ledger *l, struct qmgr_match *match, uint32_t count,
                    const struct qmgr_order *order)
{
    uint64_t id = qmgr_message_id(match->message).low;
    struct qmgr_acted acted = {0};
    bool is_unreadable = match->is_unreadable;

    if (!is_unreadable)
        note_wishes(l, match, count, order);
    qmgr_act(l->f.qmgr, match, count, order, &acted, l->f.now);
    if (!is_unreadable || order->verb != QMGR_VERB_DELETE || acted.done == 0)
        return;
    for (uint32_t i = 0; i < l->messages[id - 1].count; i++) {
        struct ledger_recipient *recipient = &l->messages[id - 1].recipients[i];
        l->lost += recipient->state == RECIPIENT_DUE;
        if (recipient->state == RECIPIENT_DUE)
            recipient->state = RECIPIENT_SETTLED;
    }
}

static void op_order(struct ledger *l)
{
    static const char *const filters[] = {"domain=w", "state=held", "sender_domain=x.example",
                                          "recipient=a@x", "state=ready,waiting domain=y"};
    struct qmgr_order order = {.verb = (enum qmgr_verb)below(l, QMGR_VERB_COUNT),
                               .id = ++l->order,
                               .until = l->f.now.wall + (wall_us)TICK_S(600),
                               .route = {(char)('w' + below(l, 4)), '\0'}};
    struct qmgr_match matches[8];
    struct qmgr_filter filter;
    char why[QMGR_FILTER_WHY_SIZE];
    bool is_done = false;

    if (order.verb >= QMGR_VERB_BOUNCE && below(l, 4) > 0)
        return;
    assert_int_equal(ERR_OK, qmgr_filter_parse(span_from_text(filters[below(l, COUNT_OF(filters))]),
                                               &filter, why));
    uint64_t handle = qmgr_scan_begin(l->f.qmgr, &filter, l->f.now);
    for (uint32_t i = 0; i < 200 && !is_done; i++) {
        uint32_t count;
        if (qmgr_scan_step(l->f.qmgr, handle, matches, COUNT_OF(matches), &count, &is_done,
                           l->f.now) != ERR_OK)
            return;
        for (uint32_t j = 0, same; j < count; j += same) {
            for (same = 1; j + same < count; same++) {
                if (matches[j + same].message != matches[j].message)
                    break;
            }
            act_one(l, &matches[j], same, &order);
        }
        if (qmgr_scan_is_waiting(l->f.qmgr, handle) && below(l, 3) == 0)
            return; /* the operator has left */
        if (qmgr_scan_is_waiting(l->f.qmgr, handle) && l->f.read_count > 0)
            fixture_reads_end(&l->f, 1);
    }
}

static void op_dsn(struct ledger *l)
{
    if (l->reported == NULL) {
        l->reported = qmgr_dsn_next(l->f.qmgr, l->f.now);
        return;
    }
    struct qmgr_dsn dsn = qmgr_dsn_view(l->f.qmgr, l->reported);
    struct qmgr_message *message = l->reported;
    l->reported = NULL;
    if (below(l, 4) == 0) {
        qmgr_dsn_failed(l->f.qmgr, message, l->f.now);
        return;
    }
    for (uint32_t i = 0; i < dsn.failure_count; i++) {
        struct ledger_recipient *recipient =
            ledger_get(l, dsn.envelope, dsn.failures[i].recipient_index);
        assert_int_equal(RECIPIENT_FAILED, recipient->state);
        recipient->state = RECIPIENT_SETTLED;
        l->told++;
    }
    if (dsn.is_done)
        dsn.entry->is_done = true;
    else
        spool_progress(NULL, dsn.entry, dsn.progress);
    qmgr_dsn_written(l->f.qmgr, message, l->f.now);
}

static void op_pass(struct ledger *l)
{
    fixture_pass(&l->f, TICK_S(below(l, 900)));
}

static void op_restart(struct ledger *l)
{
    l->f.is_index_only = below(l, 2) == 0;
    fulfil_wishes(l);
    fixture_restart(&l->f);
    l->active_count = l->waiting_count = 0;
    l->reported = NULL;
    l->restarts++;
}

/* ---- the end ---- */

/* What cannot be read has become readable: everything ends. */
static void drain(struct ledger *l)
{
    for (uint32_t round = 0; round < 3000 && qmgr_get_stats(l->f.qmgr).messages > 0; round++) {
        for (struct spool_entry *entry = l->f.entries; entry != NULL; entry = entry->next)
            entry->is_unreadable = false;
        fixture_reads_end(&l->f, l->f.read_count);
        op_loaded(l);
        op_take(l);
        op_finish(l);
        op_dsn(l);
        fixture_pass(&l->f, TICK_S(30));
        assert_int_equal(0, qmgr_verify(l->f.qmgr));
    }
    assert_int_equal(0, qmgr_get_stats(l->f.qmgr).messages);
    for (uint32_t i = 0; i < l->message_count; i++) {
        for (uint32_t j = 0; j < l->messages[i].count; j++) {
            enum recipient_state state = l->messages[i].recipients[j].state;
            assert_true(state == RECIPIENT_DELIVERED || state == RECIPIENT_SETTLED);
        }
    }
    assert_int_equal(0, qmgr_get_stats(l->f.qmgr).envelope_memory);
}

static struct ledger *ledger_new(uint64_t seed)
{
    struct ledger *l = calloc(1, sizeof(*l));

    assert_non_null(l);
    fixture_init(&l->f, NULL);
    l->f.options.on_expired = on_expired;
    l->f.options.on_order = on_order;
    l->f.options.body_memory_max = seed % 2 == 0 ? 40000 : 4; /* room for a few, or for none */
    fixture_restart(&l->f);
    rng_init_seed(&l->f.rng, seed);
    l->f.is_slow = true;
    return l;
}

static void late_and_failing_reads_lose_nothing(void **state)
{
    static const struct {
        void (*run)(struct ledger *l);
        uint32_t weight;
    } operations[] = {
        {op_insert, 12}, {op_take, 25}, {op_reads_end, 25}, {op_loaded, 20}, {op_finish, 22},
        {op_order, 4},   {op_dsn, 14},  {op_pass, 10},      {op_restart, 1},
    };
    uint64_t failures = 0, told = 0, restarts = 0, deleted = 0, relayed = 0, lost = 0, wished = 0;
    uint32_t total = 0;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(operations); i++)
        total += operations[i].weight;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        struct ledger *l = ledger_new(seed);
        for (uint32_t step = 0; step < OPERATIONS; step++) {
            uint32_t pick = below(l, total), which = 0;
            while (pick >= operations[which].weight)
                pick -= operations[which++].weight;
            operations[which].run(l);
            assert_int_equal(0, qmgr_verify(l->f.qmgr));
        }
        drain(l);
        failures += l->failures;
        told += l->told;
        restarts += l->restarts;
        deleted += l->deleted;
        relayed += l->relayed;
        lost += l->lost;
        wished += l->wished;
        fixture_fini(&l->f);
        free(l);
    }
    assert_true(failures > 100 && told > 100 && restarts > 50 && deleted > 50 && relayed > 100);
    assert_true(lost > 0 && wished > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(late_and_failing_reads_lose_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
