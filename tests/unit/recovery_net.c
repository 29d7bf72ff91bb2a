/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/recovery_net.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define EVENTS_MAX 65536u
#define TIME_MAX   TICK_S(4 * 3600)

struct event {
    tick_us at;
    uint32_t order; /* of those at the same time */
    bool is_ack, is_delayed;
    uint32_t segment; /* or the acknowledgement */
    uint32_t timestamp;
    uint32_t block_count, blocks[4][2];
};

struct net {
    struct recovery_fixture f;
    const struct recovery_path *path;
    struct rng rng;
    struct event events[EVENTS_MAX];
    uint32_t event_count, order;
    /* the receiver */
    bool received[RECOVERY_NET_SEGMENTS];
    uint32_t next, ts_recent, unacknowledged;
    uint32_t recent[4]; /* segments that came out of order, latest first */
    struct recovery_result result;
};

static bool chance(struct net *net, uint32_t of_10000)
{
    return rng_below(&net->rng, 10000) < of_10000;
}

static void event_at(struct net *net, tick_us at, const struct event *event)
{
    assert_true(net->event_count < EVENTS_MAX);
    struct event *added = &net->events[net->event_count++];
    *added = *event;
    added->at = at;
    added->order = net->order++;
}

/* Something goes over the path. */
static void event_add(struct net *net, const struct event *event)
{
    tick_us delay = net->path->rtt / 2 + rng_below(&net->rng, (uint32_t)net->path->jitter + 1);

    event_at(net, net->f.stack->now + delay, event);
}

/* The sender sends. */
static void on_segment(struct recovery_fixture *f, uint32_t segment)
{
    struct net *net = f->context;
    struct event event = {.segment = segment,
                          .timestamp = tcp_timestamp_now(f->stack, f->tcb->ts_offset)};

    net->result.sent++;
    if (chance(net, net->path->loss)) {
        net->result.lost++;
        return;
    }
    event_add(net, &event);
    if (chance(net, net->path->duplicate))
        event_add(net, &event);
}

static bool block_around(const struct net *net, uint32_t segment, uint32_t ret_block[2])
{
    if (segment < net->next || !net->received[segment])
        return false;
    ret_block[0] = ret_block[1] = segment;
    while (ret_block[0] > net->next && net->received[ret_block[0] - 1])
        ret_block[0]--;
    while (ret_block[1] < net->path->segments && net->received[ret_block[1]])
        ret_block[1]++;
    return true;
}

static void blocks_add(struct net *net, struct event *event, bool is_duplicate, uint32_t segment)
{
    if (is_duplicate) { /* RFC 2883 */
        event->blocks[0][0] = segment;
        event->blocks[0][1] = segment + 1;
        event->block_count = 1;
    }
    for (uint32_t i = 0; i < 4 && event->block_count < 3; i++) {
        uint32_t block[2];
        bool is_new = block_around(net, net->recent[i], block);

        for (uint32_t n = is_duplicate; is_new && n < event->block_count; n++)
            is_new = event->blocks[n][0] != block[0];
        if (is_new)
            memcpy(event->blocks[event->block_count++], block, sizeof(block));
    }
    if (net->path->is_liar && chance(net, 2000)) {
        uint32_t start = rng_below(&net->rng, net->path->segments);
        event->blocks[0][0] = start;
        event->blocks[0][1] = start + rng_below(&net->rng, 50);
        event->block_count = event->block_count > 0 ? event->block_count : 1;
    }
}

static void acknowledge(struct net *net, bool is_duplicate, uint32_t segment)
{
    struct event event = {.is_ack = true, .segment = net->next, .timestamp = net->ts_recent};

    net->unacknowledged = 0;
    if (net->path->flags & TCB_HAS_SACK)
        blocks_add(net, &event, is_duplicate, segment);
    if (!chance(net, net->path->ack_loss))
        event_add(net, &event);
}

static void receive(struct net *net, const struct event *event)
{
    uint32_t segment = event->segment, before = net->next;
    bool is_duplicate = net->received[segment];

    net->result.needless += is_duplicate;
    if (segment <= net->next)
        net->ts_recent = event->timestamp; /* RFC 7323 4.3 */
    net->received[segment] = true;
    while (net->next < net->path->segments && net->received[net->next])
        net->next++;
    if (segment > before) {
        memmove(net->recent + 1, net->recent, 3 * sizeof(net->recent[0]));
        net->recent[0] = segment;
    }
    /* RFC 5681 4.2: at once for what is out of order or fills a hole; else every other one, or
     * 40 ms later. */
    bool is_plain = segment == before && net->next == before + 1 && !is_duplicate;
    net->unacknowledged++;
    if (is_plain && net->path->is_delayed_ack && net->unacknowledged < 2 &&
        net->next < net->path->segments) {
        event_at(net, net->f.stack->now + TICK_MS(40), &(struct event){.is_delayed = true});
        return;
    }
    acknowledge(net, is_duplicate, segment);
}

static void on_ack(struct net *net, const struct event *event)
{
    struct recovery_fixture *f = &net->f;

    if (seq_lt(fixture_sequence(event->segment), f->tcb->snd_una))
        return; /* an old one: input.c looks no further */
    f->timestamp_echo = event->timestamp;
    fixture_ack(f, event->segment, event->block_count, event->blocks);
}

/* The receiver waited long enough for a second segment. */
static void on_delayed(struct net *net)
{
    if (net->unacknowledged > 0)
        acknowledge(net, false, 0);
}

static struct event *event_next(struct net *net)
{
    struct event *next = NULL;

    for (uint32_t i = 0; i < net->event_count; i++) {
        struct event *event = &net->events[i];

        if (next == NULL || event->at < next->at ||
            (event->at == next->at && event->order < next->order)) {
            next = event;
        }
    }
    return next;
}

static void event_do(struct net *net, struct event *event)
{
    struct event now = *event;

    *event = net->events[--net->event_count];
    net->f.stack->now = now.at;
    if (now.is_delayed)
        on_delayed(net);
    else if (now.is_ack)
        on_ack(net, &now);
    else
        receive(net, &now);
}

/* The timer of the connection, in timer.c's order of precedence. */
static tick_us timer_at(struct net *net, void (**ret_fire)(struct stack *, struct tcb *))
{
    struct recovery_fixture *f = &net->f;
    tick_us reorder_at = tcp_recovery_reorder_at(f->stack, f->tcb);
    tick_us probe_at = tcp_recovery_tlp_at(f->stack, f->tcb);
    tick_us rto_at = tcp_recovery_rto_at(f->stack, f->tcb);

    if (reorder_at <= rto_at && reorder_at != TICK_NEVER) {
        *ret_fire = tcp_recovery_on_reorder_timer;
        return reorder_at;
    }
    *ret_fire = probe_at <= rto_at ? tcp_recovery_on_tlp_timer : tcp_recovery_on_rto;
    return probe_at <= rto_at ? probe_at : rto_at;
}

static bool step(struct net *net)
{
    void (*fire)(struct stack *, struct tcb *) = NULL;
    struct recovery_fixture *f = &net->f;
    struct event *event = event_next(net);
    tick_us at = timer_at(net, &fire);

    if (event == NULL && at == TICK_NEVER)
        return false;
    if (event != NULL && event->at <= at) {
        event_do(net, event);
    } else {
        if (at > f->stack->now)
            f->stack->now = at;
        net->result.time_outs += fire == tcp_recovery_on_rto;
        net->result.probes += fire == tcp_recovery_on_tlp_timer;
        fire(f->stack, f->tcb);
    }
    fixture_output(f);
    return true;
}

struct recovery_result recovery_net_run(const struct recovery_path *path)
{
    struct net *net = calloc(1, sizeof(*net));

    assert_non_null(net);
    assert_true(path->segments <= RECOVERY_NET_SEGMENTS);
    net->path = path;
    rng_init_seed(&net->rng, path->seed);
    struct recovery_fixture *f = &net->f;
    fixture_open(f, 10);
    f->context = net;
    f->on_segment = on_segment;
    f->tcb->flags = path->flags;
    f->tcb->congestion.ssthresh = TCP_CWND_MAX;
    tcp_rtt_sample(&f->tcb->rtt, &f->stack->options.tcp, (uint32_t)path->rtt);
    tick_us start = f->stack->now;
    fixture_owner(f, path->segments);
    fixture_output(f);
    while (step(net) && f->stack->now - start < TIME_MAX) {
    }
    net->result.time = f->stack->now - start;
    net->result.resent = f->tcb->retransmit_count;
    net->result.is_complete = net->next == path->segments && f->tcb->sent.count == 0 &&
                              f->tcb->sacked == 0 && f->tcb->lost == 0 &&
                              f->tcb->retransmitted == 0;
    struct recovery_result result = net->result;
    fixture_close(f);
    free(net);
    return result;
}
