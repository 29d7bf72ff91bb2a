/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue manager against a model: seeded traffic over virtual weeks, with restarts and jumps of
 * the wall clock. The model keeps, for every message, what each recipient's state must be and when
 * each delivery is due; after every operation the queue's counts must be the model's and
 * qmgr_verify() must find every message with a next event. At the end every message has ended.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

#define MESSAGES_LIVE_MAX 40u
#define RECIPIENTS        5u
#define DOMAINS           4u
#define CLASSES           2u
#define OPERATIONS        6000u

enum model_delivery_state { NONE, WAITING, READY, ACTIVE };

struct model_delivery { /* one per domain */
    enum model_delivery_state state;
    tick_us due;                  /* WAITING */
    struct qmgr_delivery *handle; /* ACTIVE */
    uint32_t attempts;
    wall_us durable_next_try; /* what a restart knows */
    uint32_t durable_attempts;
};

struct model_message {
    bool is_live, is_null_sender, is_expired;
    uint64_t id;
    uint8_t class;
    wall_us arrived, expires;
    tick_us expires_tick;
    struct spool_entry *entry;
    uint32_t recipient_count;
    uint32_t domains[RECIPIENTS];
    enum recipient_state states[RECIPIENTS];
    struct model_delivery deliveries[DOMAINS];
    struct qmgr_message *reported; /* its DSN is being made */
    bool is_reported[RECIPIENTS], is_last;
    tick_us dsn_delayed_until; /* 0: not */
    uint32_t runs;
};

struct model {
    struct fixture f;
    struct model_message messages[MESSAGES_LIVE_MAX];
    struct qmgr_line *parked[DOMAINS][CLASSES];
    uint64_t next_id, ended, restarts;
};

static const char *const domain_names[DOMAINS] = {"v", "w", "y", "z"};

static uint32_t below(struct model *m, uint32_t bound)
{
    return rng_below(&m->f.rng, bound);
}

/* The wheel's rule: fires in the first whole millisecond at or after the deadline. */
static bool has_fired(tick_us deadline, tick_us now)
{
    return (deadline + 999) / 1000 <= now / 1000;
}

static uint32_t count_state(const struct model_message *message, enum recipient_state state)
{
    uint32_t count = 0;
    for (uint32_t i = 0; i < message->recipient_count; i++)
        count += message->states[i] == state;
    return count;
}

static bool has_due(const struct model_message *message, uint32_t domain)
{
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (message->domains[i] == domain && message->states[i] == RECIPIENT_DUE)
            return true;
    }
    return false;
}

static uint32_t active_count(const struct model_message *message)
{
    uint32_t count = 0;
    for (uint32_t d = 0; d < DOMAINS; d++)
        count += message->deliveries[d].state == ACTIVE;
    return count;
}

static void model_fail(struct model_message *message, uint32_t recipient)
{
    message->states[recipient] = message->is_null_sender ? RECIPIENT_SETTLED : RECIPIENT_FAILED;
}

/* Does the message end now? Then the queue must have said so. */
static void model_review(struct model *m, struct model_message *message)
{
    bool is_over =
        count_state(message, RECIPIENT_DUE) + count_state(message, RECIPIENT_FAILED) == 0;

    assert_int_equal(is_over, message->entry->is_done);
    if (!is_over)
        return;
    message->is_live = false;
    m->ended++;
}

static void model_expire_domain(struct model_message *message, uint32_t domain)
{
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (message->domains[i] == domain && message->states[i] == RECIPIENT_DUE)
            model_fail(message, i);
    }
    message->deliveries[domain].state = NONE;
}

/* What qmgr_advance() must have done. */
static void model_advance(struct model *m)
{
    tick_us now = m->f.now.tick;

    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        struct model_message *message = &m->messages[i];
        if (!message->is_live)
            continue;
        bool expires = !message->is_expired && has_fired(message->expires_tick, now);
        message->is_expired |= expires;
        for (uint32_t d = 0; d < DOMAINS; d++) {
            struct model_delivery *delivery = &message->deliveries[d];
            if (delivery->state == WAITING && has_fired(delivery->due, now))
                delivery->state = READY;
            if (expires && (delivery->state == WAITING || delivery->state == READY))
                model_expire_domain(message, d);
        }
        if (message->dsn_delayed_until != 0 && has_fired(message->dsn_delayed_until, now))
            message->dsn_delayed_until = 0;
        model_review(m, message);
    }
}

static void pass(struct model *m, tick_us time)
{
    fixture_pass(&m->f, time);
    model_advance(m);
}

/* ---- operations ---- */

static void op_insert(struct model *m)
{
    struct model_message *message = m->messages;
    char text[RECIPIENTS * 4 + 1] = "";

    while (message < m->messages + MESSAGES_LIVE_MAX && message->is_live)
        message++;
    if (message == m->messages + MESSAGES_LIVE_MAX)
        return;
    *message = (struct model_message){
        .is_live = true,
        .is_null_sender = below(m, 5) == 0,
        .id = ++m->next_id,
        .class = (uint8_t)below(m, CLASSES),
        .arrived = m->f.now.wall,
        .recipient_count = 1 + below(m, RECIPIENTS),
    };
    tick_us lifetime = TICK_S(3600) + TICK_S(below(m, 4 * 86400));
    message->expires = message->arrived + (wall_us)lifetime;
    message->expires_tick = m->f.now.tick + lifetime;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        message->domains[i] = below(m, DOMAINS);
        const char one[4] = {' ', (char)('a' + i), '@', domain_names[message->domains[i]][0]};
        memcpy(text + 4 * i, one, sizeof(one));
        message->deliveries[message->domains[i]].state = READY;
    }
    struct message_options options = {.id = message->id,
                                      .sender = message->is_null_sender ? "" : NULL,
                                      .recipients = text + 1,
                                      .class = message->class,
                                      .lifetime = lifetime};
    assert_int_equal(ERR_OK, fixture_insert(&m->f, &options, &message->entry));
}

static bool line_is_ready(const struct model *m, uint32_t domain, uint32_t class)
{
    if (m->parked[domain][class] != NULL)
        return false;
    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        const struct model_message *message = &m->messages[i];
        if (message->is_live && message->class == class &&
            message->deliveries[domain].state == READY)
            return true;
    }
    return false;
}

static uint32_t lowest_ready_class(const struct model *m)
{
    for (uint32_t class = 0; class < CLASSES; class ++) {
        for (uint32_t d = 0; d < DOMAINS; d++) {
            if (line_is_ready(m, d, class))
                return class;
        }
    }
    return CLASSES;
}

/* The READY delivery of the class to the domain that arrived first, of one sender. */
static struct model_message *oldest_ready(struct model *m, uint32_t domain, uint32_t class,
                                          bool is_null_sender)
{
    struct model_message *oldest = NULL;

    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        struct model_message *message = &m->messages[i];
        if (!message->is_live || message->class != class ||
            message->is_null_sender != is_null_sender || message->deliveries[domain].state != READY)
            continue;
        if (oldest == NULL || message->arrived < oldest->arrived)
            oldest = message;
    }
    return oldest;
}

/* Whose turn it is is another test's business. */
static void take_from(struct model *m, struct qmgr_line *line, uint32_t domain, uint32_t class)
{
    struct qmgr_delivery *handle = qmgr_take(m->f.qmgr, line, m->f.now);
    struct model_message *named = oldest_ready(m, domain, class, false);
    struct model_message *unnamed = oldest_ready(m, domain, class, true), *taken = NULL;

    assert_int_equal(named == NULL && unnamed == NULL, handle == NULL);
    if (handle == NULL)
        return;
    struct qmgr_view view = qmgr_delivery_view(m->f.qmgr, handle);
    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        if (m->messages[i].is_live && m->messages[i].id == view.envelope->id.low)
            taken = &m->messages[i];
    }
    assert_non_null(taken);
    const struct model_message *oldest = taken->is_null_sender ? unnamed : named;
    assert_non_null(oldest);
    assert_int_equal(oldest->arrived, taken->arrived);
    assert_int_equal(READY, taken->deliveries[domain].state);
    assert_int_equal(taken->deliveries[domain].attempts, view.attempts);
    uint32_t place = 0;
    for (uint32_t i = 0; i < taken->recipient_count; i++) {
        assert_int_equal(taken->states[i], view.envelope->recipients[i].state);
        if (taken->domains[i] == domain && taken->states[i] == RECIPIENT_DUE)
            assert_int_equal(i, view.recipients[place++]);
    }
    assert_int_equal(place, view.recipient_count);
    taken->deliveries[domain].state = ACTIVE;
    taken->deliveries[domain].handle = handle;
}

static void op_take(struct model *m)
{
    uint32_t class = lowest_ready_class(m);
    struct qmgr_line *line = qmgr_line_next(m->f.qmgr, m->f.now);

    assert_int_equal(class == CLASSES, line == NULL);
    if (line == NULL)
        return;
    uint32_t domain = 0;
    while (domain_names[domain][0] != qmgr_line_domain(line).data[0])
        domain++;
    assert_true(line_is_ready(m, domain, class));
    m->parked[domain][class] = line;
    take_from(m, line, domain, class);
}

static void op_parked(struct model *m)
{
    uint32_t domain = below(m, DOMAINS), class = below(m, CLASSES);
    struct qmgr_line *line = m->parked[domain][class];

    if (line == NULL)
        return;
    if (below(m, 2) == 0) {
        take_from(m, line, domain, class);
        return;
    }
    qmgr_line_return(m->f.qmgr, line, m->f.now);
    m->parked[domain][class] = NULL;
}

static void model_schedule(struct model *m, struct model_message *message, uint32_t domain,
                           const struct qmgr_finish *finish, bool is_durable)
{
    struct model_delivery *delivery = &message->deliveries[domain];
    struct qmgr_message *found =
        qmgr_find(m->f.qmgr, (struct message_id){(uint64_t)message->arrived, message->id});
    uint32_t recipient = 0;

    while (message->domains[recipient] != domain || message->states[recipient] != RECIPIENT_DUE)
        recipient++;
    struct qmgr_status status = fixture_status(&m->f, found, recipient);
    tick_us wait = (tick_us)(status.next_try - m->f.now.wall);
    bool backs_off = finish->was_attempted && !finish->retry_now;
    if (backs_off) {
        tick_us base = TICK_S(300) << (delivery->attempts < 8 ? delivery->attempts - 1 : 7);
        base = base < TICK_S(4 * 3600) ? base : TICK_S(4 * 3600);
        assert_in_range(wait, base / 10 * 8, base / 10 * 12);
    } else {
        assert_int_equal(0, wait);
    }
    assert_int_equal(delivery->attempts, status.attempts);
    delivery->state = backs_off ? WAITING : READY;
    delivery->due = m->f.now.tick + wait;
    if (is_durable) {
        delivery->durable_attempts = delivery->attempts;
        delivery->durable_next_try = status.next_try;
    }
}

static void finish_delivery(struct model *m, struct model_message *message, uint32_t domain)
{
    static const enum recipient_state fates[] = {RECIPIENT_DUE, RECIPIENT_DUE, RECIPIENT_DELIVERED,
                                                 RECIPIENT_DELIVERED, RECIPIENT_FAILED};
    struct model_delivery *delivery = &message->deliveries[domain];
    struct qmgr_result results[RECIPIENTS];
    struct qmgr_finish finish = {.results = results,
                                 .was_attempted = below(m, 5) != 0,
                                 .retry_now = below(m, 6) == 0,
                                 .is_in_doubt = below(m, 10) == 0};
    bool has_settled = false;

    assert_int_equal(message->is_expired, qmgr_delivery_is_cancelled(delivery->handle));
    for (uint32_t i = 0; finish.was_attempted && i < message->recipient_count; i++) {
        if (message->domains[i] != domain || message->states[i] != RECIPIENT_DUE ||
            below(m, 5) == 0)
            continue;
        enum recipient_state state = fates[below(m, COUNT_OF(fates))];
        results[finish.result_count++] = (struct qmgr_result){.recipient_index = i,
                                                              .state = state,
                                                              .code = 400,
                                                              .reply = SPAN_LITERAL("400 a reply")};
        has_settled |= state != RECIPIENT_DUE;
        if (state == RECIPIENT_DELIVERED)
            message->states[i] = RECIPIENT_DELIVERED;
        else if (state == RECIPIENT_FAILED)
            model_fail(message, i);
    }
    qmgr_finish(m->f.qmgr, delivery->handle, &finish, m->f.now);
    delivery->attempts += finish.was_attempted;
    delivery->state = NONE;
    if (has_due(message, domain) && message->is_expired)
        model_expire_domain(message, domain);
    else if (has_due(message, domain))
        model_schedule(m, message, domain, &finish,
                       finish.was_attempted || finish.is_in_doubt || has_settled);
    model_review(m, message);
}

static void op_finish(struct model *m)
{
    uint32_t start = below(m, MESSAGES_LIVE_MAX);

    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        struct model_message *message = &m->messages[(start + i) % MESSAGES_LIVE_MAX];
        for (uint32_t d = 0; message->is_live && d < DOMAINS; d++) {
            if (message->deliveries[d].state == ACTIVE) {
                finish_delivery(m, message, d);
                return;
            }
        }
    }
}

static bool owes_dsn(const struct model_message *message)
{
    return message->is_live && message->reported == NULL && message->dsn_delayed_until == 0 &&
           active_count(message) == 0 && count_state(message, RECIPIENT_FAILED) > 0;
}

static void op_dsn_next(struct model *m)
{
    struct qmgr_message *handle = qmgr_dsn_next(m->f.qmgr, m->f.now);
    struct model_message *message = NULL;

    if (handle == NULL) {
        for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++)
            assert_false(owes_dsn(&m->messages[i]));
        return;
    }
    struct qmgr_dsn dsn = qmgr_dsn_view(m->f.qmgr, handle);
    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        if (m->messages[i].is_live && m->messages[i].id == dsn.envelope->id.low)
            message = &m->messages[i];
    }
    assert_non_null(message);
    assert_true(owes_dsn(message));
    assert_int_equal(message->runs, dsn.run);
    assert_int_equal(count_state(message, RECIPIENT_FAILED), dsn.failure_count);
    assert_int_equal(count_state(message, RECIPIENT_DUE) == 0, dsn.is_done);
    message->reported = handle;
    message->is_last = dsn.is_done;
    for (uint32_t i = 0; i < dsn.failure_count; i++) {
        uint32_t index = dsn.failures[i].recipient_index;
        assert_int_equal(RECIPIENT_FAILED, message->states[index]);
        message->is_reported[index] = true;
    }
}

static void dsn_conclude(struct model *m, struct model_message *message, bool is_written)
{
    struct qmgr_message *handle = message->reported;
    struct qmgr_dsn dsn = qmgr_dsn_view(m->f.qmgr, handle);

    message->reported = NULL;
    if (!is_written) {
        memset(message->is_reported, 0, sizeof(message->is_reported));
        message->dsn_delayed_until = m->f.now.tick + TICK_S(300);
        qmgr_dsn_failed(m->f.qmgr, handle, m->f.now);
        return;
    }
    if (dsn.is_done)
        message->entry->is_done = true; /* DONE is in the DSN's commit */
    else
        spool_progress(NULL, message->entry, dsn.progress);
    qmgr_dsn_written(m->f.qmgr, handle, m->f.now);
    message->runs++;
    for (uint32_t i = 0; i < message->recipient_count; i++) {
        if (message->is_reported[i])
            message->states[i] = RECIPIENT_SETTLED;
        message->is_reported[i] = false;
    }
    model_review(m, message);
}

static void op_dsn_conclude(struct model *m)
{
    uint32_t start = below(m, MESSAGES_LIVE_MAX);

    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        struct model_message *message = &m->messages[(start + i) % MESSAGES_LIVE_MAX];
        if (message->is_live && message->reported != NULL) {
            dsn_conclude(m, message, below(m, 4) != 0);
            return;
        }
    }
}

static void op_pass(struct model *m)
{
    static const uint32_t seconds[] = {1, 60, 600, 3600, 6 * 3600};
    pass(m, TICK_S(below(m, seconds[below(m, COUNT_OF(seconds))]) + 1));
}

static void op_wall_jump(struct model *m)
{
    m->f.now.wall += (wall_us)below(m, 2000000000) - 1000000000;
}

static tick_us clamped(wall_us wall, tick_us max, struct tick_now now)
{
    tick_us ahead = wall <= now.wall ? 0 : (tick_us)(wall - now.wall);
    return now.tick + (ahead < max ? ahead : max);
}

static void op_restart(struct model *m)
{
    tick_us retry_ahead_max = TICK_S(5 * 3600);

    memset(m->parked, 0, sizeof(m->parked));
    fixture_restart(&m->f);
    m->restarts++;
    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        struct model_message *message = &m->messages[i];
        if (!message->is_live)
            continue;
        message->reported = NULL;
        message->dsn_delayed_until = 0;
        memset(message->is_reported, 0, sizeof(message->is_reported));
        message->is_expired = false;
        message->expires_tick =
            clamped(message->expires, (tick_us)(message->expires - message->arrived), m->f.now);
        for (uint32_t d = 0; d < DOMAINS; d++) {
            struct model_delivery *delivery = &message->deliveries[d];
            delivery->state = NONE;
            if (!has_due(message, d))
                continue;
            delivery->attempts = delivery->durable_attempts;
            delivery->due = clamped(delivery->durable_next_try, retry_ahead_max, m->f.now);
            delivery->state = delivery->due > m->f.now.tick ? WAITING : READY;
        }
    }
    pass(m, 0);
}

/* ---- checks after every operation ---- */

static void assert_counts(struct model *m)
{
    struct qmgr_stats stats = qmgr_get_stats(m->f.qmgr);
    uint32_t messages = 0, by_state[ACTIVE + 1] = {0};

    for (uint32_t i = 0; i < MESSAGES_LIVE_MAX; i++) {
        messages += m->messages[i].is_live;
        for (uint32_t d = 0; m->messages[i].is_live && d < DOMAINS; d++)
            by_state[m->messages[i].deliveries[d].state]++;
    }
    assert_int_equal(messages, stats.messages);
    assert_int_equal(by_state[WAITING], stats.deliveries_waiting);
    assert_int_equal(by_state[READY], stats.deliveries_ready);
    assert_int_equal(by_state[ACTIVE], stats.deliveries_active);
    assert_int_equal(0, qmgr_verify(m->f.qmgr));
}

/* No mail comes any more: everything ends by itself. */
static void drain(struct model *m)
{
    for (uint32_t round = 0; round < 4000 && qmgr_get_stats(m->f.qmgr).messages > 0; round++) {
        op_take(m);
        op_parked(m);
        op_finish(m);
        op_dsn_next(m);
        op_dsn_conclude(m);
        pass(m, TICK_S(600));
        assert_counts(m);
    }
    assert_int_equal(0, qmgr_get_stats(m->f.qmgr).messages);
}

static void virtual_weeks_match_the_model(void **state)
{
    static const struct {
        void (*run)(struct model *m);
        uint32_t weight;
    } operations[] = {
        {op_insert, 20},      {op_take, 30}, {op_parked, 20},   {op_finish, 35}, {op_dsn_next, 8},
        {op_dsn_conclude, 8}, {op_pass, 20}, {op_wall_jump, 1}, {op_restart, 1},
    };
    uint32_t total = 0;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(operations); i++)
        total += operations[i].weight;
    for (uint64_t seed = 1; seed <= 6; seed++) {
        struct model *m = calloc(1, sizeof(*m));
        fixture_init(&m->f, NULL);
        rng_init_seed(&m->f.rng, seed);
        for (uint32_t step = 0; step < OPERATIONS; step++) {
            uint32_t pick = below(m, total), which = 0;
            while (pick >= operations[which].weight)
                pick -= operations[which++].weight;
            operations[which].run(m);
            assert_counts(m);
        }
        drain(m);
        assert_int_equal(m->next_id, m->ended);
        assert_true(m->next_id > 200 && m->restarts > 10);
        assert_true(m->f.now.tick > TICK_S(7 * 86400));
        print_message("# seed %lu: %lu messages, %lu restarts, %lu days\n", (unsigned long)seed,
                      (unsigned long)m->ended, (unsigned long)m->restarts,
                      (unsigned long)(m->f.now.tick / TICK_S(86400)));
        fixture_fini(&m->f);
        free(m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(virtual_weeks_match_the_model)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
