/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operator who suspends sites at random times, for random times, and lifts some suspensions
 * early. The receiver of a suspended site is told to be quiet: from OPERATOR_GRACE on, when what
 * was on its way has arrived, to the end of the suspension no MAIL may come (sim_receiver.c looks).
 *
 * Or (is_holding) one who holds all mail, what waits and what comes: then every receiver must hear
 * nothing, also of what was accepted meanwhile, and when the relay dies and comes back. The order
 * is given to each new life before its first turn, as the keeper of the daemon does.
 *
 * Or (is_bouncing) one who returns what waits for a domain, and makes the relay crash soon after:
 * what he was told is done must not be tried again from then on, in no life, also when it was under
 * way and that attempt never ended.
 *
 * Planted bug: a deaf relay is told of no order.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define OPERATOR_GRACE TICK_S(1)
/* What is under way is looked for once a second; if another core has it, there a second later; its
 * MAIL may be on the wire then, or be sent again by TCP. */
#define HOLD_GRACE     TICK_S(4)
#define OPERATOR_STEPS 10000u
/* Behind `spool.lazy_time`: the disk's own time. */
#define DURABLE_MARGIN TICK_S(1)
#define CRASH_SOON     8000000u /* micro-seconds */

struct sim_operator {
    struct sim_operator_options options;
    struct rng rng;
    uint32_t order_id, orders_left, suspended;
    tick_us next, lift_at;
    /* The last hold. */
    struct qmgr_standing standing; /* id 0: none yet */
    tick_us until;
    bool was_down;   /* at the last turn */
    bool is_waiting; /* for what the relay does */
    bool is_walking; /* on this shard, with this query */
    uint32_t shard;
    struct shard_query walk;
    struct qmgr_filter filter; /* of what he walks over */
    /* The last bounce. */
    uint32_t domain;
    tick_us begun, durable_at; /* the latter: 0 when there is none, or the relay died before */
};

static void act_on_shard(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    if (!site_act_step(transfer_sites(transfer), query->found, &query->cursor, now))
        query->cursor = UINT64_MAX;
}

static uint32_t act(struct node *node, struct site_act *act)
{
    for (uint32_t shard = 0; shard < node_shard_count(node); shard++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = act_on_shard, .found = act};
        for (uint32_t i = 0; i < OPERATOR_STEPS && query.cursor != UINT64_MAX; i++)
            node_query(node, shard, &query);
    }
    return act->done;
}

static void suspend(struct sim_operator *operator, struct node * node, tick_us now)
{
    uint32_t receiver = rng_below(&operator->rng, operator->options.receiver_count);
    tick_us duration = TICK_S(5) + rng_below(&operator->rng, (uint32_t)TICK_S(40));
    struct site_order order = {.id = ++operator->order_id,
                               .kind = SITE_ORDER_SUSPEND,
                               .until = now + duration,
                               .duration = duration,
                               .by = "operator",
                               .reason = "because"};
    struct site_act suspension = {.order = &order, .is_dry_run = operator->options.is_deaf };

    memcpy(suspension.name, operator->options.labels[receiver], SITE_LABEL_MAX);
    uint32_t done = act(node, &suspension);
    if (operator->options.is_deaf ? suspension.matched == 0 : done == 0)
        return; /* nothing was sent there yet */
    operator->suspended++;
    receivers_set_quiet(operator->options.receivers, receiver, now + OPERATOR_GRACE, order.until);
    operator->lift_at = TICK_NEVER;
    if (rng_below(&operator->rng, 3) == 0)
        operator->lift_at = now + rng_below(&operator->rng, (uint32_t)duration);
    operator->next = order.until;
}

/* Of all sites: one is suspended at a time. */
static void lift(struct sim_operator *operator, struct node * node)
{
    struct site_act resume = {.id = operator->order_id, .kinds = 1u << SITE_ORDER_SUSPEND};

    for (uint32_t i = 0; i < operator->options.receiver_count; i++)
        receivers_set_quiet(operator->options.receivers, i, 0, 0);
    (void)act(node, &resume);
    operator->lift_at = TICK_NEVER;
}

/* ---- holds ---- */

static void stand_on_shard(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct sim_operator *operator= query->found;

    enum err err = qmgr_standing_add(transfer_queue(transfer), &operator->standing,
                                     (struct tick_now){now, operator->options.wall +(wall_us) now});
    CHECK(err == ERR_OK);
    query->cursor = UINT64_MAX;
}

static void visit_shards(struct sim_operator *operator, struct node * node,
                         void (*visit)(struct shard_query *, struct transfer *, tick_us))
{
    for (uint32_t shard = 0; shard < node_shard_count(node); shard++) {
        struct shard_query query = {
            .kind = SHARD_QUERY_TRANSFER, .visit = visit, .found = operator};
        node_query(node, shard, &query);
    }
}

/* What waits now, shard by shard, as far as no disk must answer first. True: that was all. */
static bool walk(struct sim_operator *operator, struct node * node)
{
    for (uint32_t i = 0; i < OPERATOR_STEPS && operator->shard<node_shard_count(node); i++) {
        if (operator->walk.cursor == 0)
            operator->walk =(struct shard_query){.kind = SHARD_QUERY_QUEUE_ACT,
                                                 .filter = &operator->filter,
                                                 .order = &operator->standing.order };
        node_query(node, operator->shard, &operator->walk);
        if (operator->walk.is_waiting)
            return false;
        if (operator->walk.cursor == UINT64_MAX) {
            operator->walk.cursor = 0;
            operator->shard++;
        }
    }
    return operator->shard == node_shard_count(node);
}

static void hold(struct sim_operator *operator, struct node * node, tick_us now)
{
    tick_us duration = TICK_S(5) + rng_below(&operator->rng, (uint32_t)TICK_S(40));
    wall_us wall = operator->options.wall +(wall_us) now;

    operator->standing =(struct qmgr_standing){
        .order = {.verb = QMGR_VERB_HOLD, .id = ++operator->order_id, .reason = "because"},
        .given = wall,
        .until = wall + (wall_us)duration,
    };
    operator->standing.order.until = operator->standing.until;
    operator->until = now + duration;
    operator->next = operator->until + rng_below(&operator->rng, (uint32_t)TICK_S(20));
    operator->suspended++;
    operator->is_walking = true;
    operator->shard = 0;
    operator->walk.cursor = 0;
    if (!operator->options.is_deaf)
        visit_shards(operator, node, stand_on_shard);
}

/* A relay that has died forgets the walk, and knows what stands. */
static void hold_turn(struct sim_operator *operator, struct node * node, tick_us now)
{
    bool is_new = operator->was_down;

    operator->was_down = false;
    if (is_new && operator->standing.order.id> 0 && !operator->options.is_deaf)
        visit_shards(operator, node, stand_on_shard); /* over already: it does nothing */
    operator->is_walking = operator->is_walking && !is_new;
    if (operator->is_walking &&(operator->options.is_deaf || walk(operator, node))) {
        operator->is_walking = false;
        for (uint32_t i = 0; i < operator->options.receiver_count; i++)
            receivers_set_quiet(operator->options.receivers, i, now + HOLD_GRACE, operator->until);
    }
    if (now < operator->next || operator->orders_left == 0)
        return;
    operator->orders_left--;
    hold(operator, node, now);
}

/* ---- bounces ---- */

static void bounce(struct sim_operator *operator, tick_us now)
{
    char terms[32], why[QMGR_FILTER_WHY_SIZE];

    operator->domain = rng_below(&operator->rng, operator->options.domain_count);
    snprintf(terms, sizeof(terms), "domain=d%u.example", operator->domain);
    enum err err = qmgr_filter_parse(span_from_text(terms), &operator->filter, why);
    CHECK(err == ERR_OK);
    operator->standing.order =(struct qmgr_order){
        .verb = QMGR_VERB_BOUNCE, .id = ++operator->order_id, .reason = "because"};
    operator->begun = now;
    operator->suspended++;
    operator->is_walking = true;
    operator->shard = 0;
    operator->walk.cursor = 0;
}

static void bounce_done(struct sim_operator *operator, tick_us now)
{
    operator->is_walking = false;
    operator->durable_at = now + operator->options.ledger->lazy_time + DURABLE_MARGIN;
    operator->next = now + rng_below(&operator->rng, (uint32_t)TICK_S(20));
    if (rng_below(&operator->rng, 2) == 0)
        *operator->options.crash_at = operator->durable_at + rng_below(&operator->rng, CRASH_SOON);
}

/* An order that the relay dies upon, or too soon after, was not promised. */
static void bounce_turn(struct sim_operator *operator, struct node * node, tick_us now)
{
    operator->is_walking = operator->is_walking && !operator->was_down;
    operator->was_down = false;
    if (operator->durable_at> 0 && now >= operator->durable_at) {
        ledger_on_ended(operator->options.ledger, operator->domain, operator->begun);
        operator->durable_at = 0;
    }
    if (operator->is_walking && walk(operator, node))
        bounce_done(operator, now);
    operator->is_waiting = operator->is_walking || !node_is_recovered(node);
    if (now < operator->next || operator->orders_left == 0)
        return;
    if (operator->is_waiting || operator->durable_at> 0)
        return;
    operator->orders_left--;
    operator->is_waiting = true;
    bounce(operator, now);
}

void sim_operator_turn(struct sim_operator *operator, struct node * node, tick_us now)
{
    if (node == NULL) {
        operator->was_down = operator->is_waiting = true;
        operator->durable_at = 0;
        return;
    }
    if (operator->options.is_holding) {
        hold_turn(operator, node, now);
        return;
    }
    if (operator->options.is_bouncing) {
        bounce_turn(operator, node, now);
        return;
    }
    if (now >= operator->lift_at)
        lift(operator, node);
    if (now < operator->next || operator->orders_left == 0)
        return;
    operator->orders_left--;
    operator->next = now + rng_below(&operator->rng, (uint32_t)TICK_S(20));
    suspend(operator, node, now);
}

tick_us sim_operator_deadline(const struct sim_operator *operator)
{
    tick_us next = operator->orders_left> 0 ? operator->next : TICK_NEVER;

    if (operator->durable_at> 0)
        return operator->durable_at;
    if (operator->is_waiting)
        return TICK_NEVER; /* for the relay, which has work */
    return operator->lift_at<next ? operator->lift_at : next;
}

uint32_t sim_operator_suspended(const struct sim_operator *operator)
{
    return operator->suspended;
}

struct sim_operator *sim_operator_new(const struct sim_operator_options *options)
{
    struct sim_operator *operator= calloc(1, sizeof(*operator));

    CHECK(operator!= NULL && options->receiver_count <= COUNT_OF(options->labels));
    operator->options = * options;
    operator->orders_left = options->order_count;
    operator->lift_at = TICK_NEVER;
    rng_init_seed(&operator->rng, options->seed);
    return operator;
}

void sim_operator_free(struct sim_operator *operator)
{
    free(operator);
}
