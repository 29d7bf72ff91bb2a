/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An operator who suspends sites at random times, for random times, and lifts some suspensions
 * early. The receiver of a suspended site is told to be quiet: from OPERATOR_GRACE on, when what
 * was on its way has arrived, to the end of the suspension no MAIL may come (sim_receiver.c looks).
 *
 * Planted bug: a deaf relay is told of no order.
 */
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define OPERATOR_GRACE TICK_S(1)
#define OPERATOR_STEPS 10000u

struct sim_operator {
    struct sim_operator_options options;
    struct rng rng;
    uint32_t order_id, orders_left, suspended;
    tick_us next, lift_at;
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

void sim_operator_turn(struct sim_operator *operator, struct node * node, tick_us now)
{
    if (node == NULL)
        return;
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
