/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is where on the links: the table of neighbours and its states.
 *
 * Both protocols fill one table and go by the states of RFC 4861 7.3.2; for ARP that is what
 * RFC 1122 2.3.2.1 asks for (entries that time out, a unicast poll before).
 *
 *              resolve                    answer
 *   (nothing) --------> INCOMPLETE ----------------> REACHABLE <---------------+
 *                        |  ^                          | time passed           |
 *             no answer  |  | no answer, in use        v            used       | answer, or
 *                        v  +---- PROBE <---- DELAY <-- STALE                  | progress of TCP
 *   (nothing) <----- FAILED        |           |                               | behind it
 *       time passed, or heard      +-----------+-------------------------------+
 *
 * A connection whose segments stay unanswered doubts its next hop: REACHABLE and STALE become
 * PROBE, so that a station that took over an address without a word is found within seconds and not
 * when REACHABLE has run out. Hosts far away die more often than routers near by, so a next hop is
 * asked for this reason once in DELAY_TIME.
 *
 * neigh_enter() is the only writer of a state. A packet for a neighbour that is being asked for
 * waits with it, so that the first SYN of a connection is not lost, nor that of a hundred
 * connections to a next hop that was silent for a while.
 *
 * Poisoning (HAZARDS TC-15). Nothing that was not asked for makes an entry. An entry whose address
 * is known does not take another because somebody says so, in whatever form: the old address is
 * asked first, VERIFY_TIME apart, and only when it is silent the new one is believed. That is more
 * careful than RFC 826 and RFC 4861 7.2.5, at the price of about a second when an address moves.
 * An INCOMPLETE entry takes the first answer.
 *
 * Invariants
 *   1. Every state has a time-out; that of STALE is when the entry is forgotten.
 *   2. Whenever an address that was given out is no longer to be used, link_generation changes.
 *
 * Not here: the table (neighbour_table.c), the packets (neighbour_packet.c).
 */
#include "dataplane/wire/net/neighbour.h"

/* RFC 4861 10. */
#define REACHABLE_TIME  TICK_S(30) /* times 0.5 to 1.5 */
#define DELAY_TIME      TICK_S(5)
#define RETRANSMIT_TIME TICK_S(1)
/* Ours. */
#define VERIFY_TIME TICK_MS(300) /* between questions to an address that another one claims */
#define FAILED_TIME TICK_S(1)
#define STALE_TIME  TICK_S(120)

#define EDGE(state) (1u << NEIGH_##state)
static const uint32_t neigh_edges[NEIGH_STATE_COUNT] = {
    [NEIGH_INCOMPLETE] = EDGE(REACHABLE) | EDGE(STALE) | EDGE(FAILED),
    [NEIGH_REACHABLE] = EDGE(REACHABLE) | EDGE(STALE) | EDGE(PROBE),
    [NEIGH_STALE] = EDGE(REACHABLE) | EDGE(DELAY) | EDGE(PROBE),
    [NEIGH_DELAY] = EDGE(REACHABLE) | EDGE(PROBE),
    [NEIGH_PROBE] = EDGE(REACHABLE) | EDGE(PROBE) | EDGE(INCOMPLETE),
    [NEIGH_FAILED] = 0,
};

static tick_us solicit_time(const struct neigh *neigh)
{
    return neigh->state == NEIGH_PROBE && neigh->is_claimed ? VERIFY_TIME : RETRANSMIT_TIME;
}

static void neigh_ask(struct stack *stack, struct neigh *neigh)
{
    neigh->tries++;
    neigh_timer_set(stack, neigh, stack->now + solicit_time(neigh));
    neigh_solicit(stack, neigh, neigh->state == NEIGH_PROBE);
}

static tick_us reachable_time(struct stack *stack)
{
    /* RFC 4861 6.3.2: spread, so that entries do not expire in step. */
    return REACHABLE_TIME / 2 + rng_below(&stack->rng, (uint32_t)REACHABLE_TIME);
}

/* The only writer of a state. */
static void neigh_enter(struct stack *stack, struct neigh *neigh, enum neigh_state next)
{
    CHECK(neigh_edges[neigh->state] & 1u << next);
    neigh_relist(stack, neigh, next);
    neigh->tries = 0;
    neigh->is_used = false;
    if (next != NEIGH_PROBE)
        neigh->is_claimed = false;
    switch (next) {
    case NEIGH_REACHABLE:
        neigh->reachable_until = stack->now + reachable_time(stack);
        neigh_timer_set(stack, neigh, neigh->reachable_until);
        return;
    case NEIGH_STALE:
        neigh_timer_set(stack, neigh, stack->now + STALE_TIME);
        return;
    case NEIGH_DELAY:
        neigh_timer_set(stack, neigh, stack->now + DELAY_TIME);
        return;
    case NEIGH_FAILED:
        neigh_timer_set(stack, neigh, stack->now + FAILED_TIME);
        return;
    case NEIGH_INCOMPLETE:
        stack->link_generation++;
        neigh_ask(stack, neigh);
        return;
    case NEIGH_PROBE:
        neigh_ask(stack, neigh);
        return;
    case NEIGH_STATE_COUNT:
        break;
    }
    CHECK(!"no such state");
}

/* ---- packets ---- */

static void queue_push(struct stack *stack, struct neigh *neigh, struct buf *packet)
{
    if (neigh->queue_count == NEIGH_QUEUE_MAX ||
        (neigh->queue_count >= NEIGH_QUEUE_SURE &&
         stack->neighbours->waiting >= NEIGH_WAITING_MAX)) {
        STACK_COUNT(stack, NEIGHBOUR_QUEUE_DROPPED);
        buf_release_chain(neigh->queue[0]);
        neigh->queue_count--;
        memmove(neigh->queue, neigh->queue + 1, neigh->queue_count * sizeof(neigh->queue[0]));
        stack->neighbours->waiting--;
    }
    neigh->queue[neigh->queue_count++] = packet;
    stack->neighbours->waiting++;
}

static void queue_send(struct stack *stack, struct neigh *neigh)
{
    uint16_t type = neigh->family == 4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6;

    for (uint32_t i = 0; i < neigh->queue_count; i++)
        ip_output_link(stack, neigh->port, neigh->mac, type, neigh->queue[i]);
    stack->neighbours->waiting -= neigh->queue_count;
    neigh->queue_count = 0;
}

/* Nobody answered: whoever waits hears it, as by an ICMP error of a router (RFC 4861 7.2.2). */
static void queue_fail(struct stack *stack, struct neigh *neigh)
{
    struct buf *packets[NEIGH_QUEUE_MAX];
    uint32_t count = neigh->queue_count;

    memcpy(packets, neigh->queue, count * sizeof(packets[0]));
    stack->neighbours->waiting -= count;
    neigh->queue_count = 0;
    STACK_COUNT_BY(stack, NEIGHBOUR_UNREACHABLE, count);
    /* From here on the entry is not touched: TCP may send, and so make room for another. */
    for (uint32_t i = 0; i < count; i++) {
        icmp_report_unreachable(stack, packets[i]);
        buf_release_chain(packets[i]);
    }
}

/* ---- use ---- */

enum err neigh_resolve(struct stack *stack, struct stack_port *port, uint8_t family,
                       const uint8_t ip[16], struct buf *packet, uint8_t ret_mac[6],
                       tick_us *ret_until)
{
    struct neigh *neigh = neigh_find(stack, port, family, ip);

    if (neigh == NULL) {
        neigh = neigh_new(stack, port, family, ip);
        if (neigh == NULL) {
            STACK_COUNT(stack, NEIGHBOUR_FULL);
            return ERR_PEER_UNREACHABLE;
        }
        queue_push(stack, neigh, packet);
        neigh_ask(stack, neigh);
        return ERR_AGAIN;
    }
    if (neigh->state == NEIGH_FAILED)
        return ERR_PEER_UNREACHABLE;
    if (neigh->state == NEIGH_INCOMPLETE) {
        queue_push(stack, neigh, packet);
        return ERR_AGAIN;
    }
    if (neigh->state == NEIGH_STALE)
        neigh_enter(stack, neigh, NEIGH_DELAY);
    neigh->is_used = true;
    memcpy(ret_mac, neigh->mac, sizeof(neigh->mac));
    *ret_until = neigh->state == NEIGH_REACHABLE ? neigh->reachable_until : neigh->timer.deadline;
    return ERR_OK;
}

void neigh_confirm(struct stack *stack, struct stack_port *port, uint8_t family,
                   const uint8_t ip[16], tick_us at)
{
    struct neigh *neigh = neigh_find(stack, port, family, ip);

    /* What was answered before the address changed says nothing about the new one. */
    if (neigh == NULL || at <= neigh->learnt_at || stack->now - at > REACHABLE_TIME / 2)
        return;
    if (neigh->state == NEIGH_REACHABLE) {
        tick_us until = at + REACHABLE_TIME / 2;
        if (until > neigh->reachable_until)
            neigh->reachable_until = until; /* the timer finds it */
        return;
    }
    if (neigh->state == NEIGH_STALE || neigh->state == NEIGH_DELAY || neigh->state == NEIGH_PROBE) {
        neigh_enter(stack, neigh, NEIGH_REACHABLE);
        neigh->reachable_until -= stack->now - at;
    }
}

void neigh_doubt(struct stack *stack, struct stack_port *port, uint8_t family, const uint8_t ip[16])
{
    struct neigh *neigh = neigh_find(stack, port, family, ip);

    if (neigh == NULL || (neigh->state != NEIGH_REACHABLE && neigh->state != NEIGH_STALE))
        return; /* asked already, or about to be */
    if (neigh->doubted_at > 0 && stack->now - neigh->doubted_at < DELAY_TIME)
        return;
    neigh->doubted_at = stack->now;
    neigh->learnt_at = stack->now; /* only what is answered from now on counts for the old place */
    neigh_enter(stack, neigh, NEIGH_PROBE);
    neigh->is_used = true;
}

/* ---- what is heard ---- */

static void neigh_learn(struct stack *stack, struct neigh *neigh, const uint8_t mac[6])
{
    if (memcmp(neigh->mac, mac, sizeof(neigh->mac)) == 0)
        return;
    memcpy(neigh->mac, mac, sizeof(neigh->mac));
    neigh->learnt_at = stack->now;
    stack->link_generation++;
}

static void hear_first(struct stack *stack, struct neigh *neigh, const uint8_t mac[6],
                       enum neigh_word word)
{
    neigh_learn(stack, neigh, mac);
    neigh_enter(stack, neigh, word == NEIGH_ANSWER ? NEIGH_REACHABLE : NEIGH_STALE);
    queue_send(stack, neigh);
}

/* Another address than the one we know. */
static void hear_other(struct stack *stack, struct neigh *neigh, const uint8_t mac[6],
                       bool is_override)
{
    STACK_COUNT(stack, NEIGHBOUR_CLAIMED);
    if (neigh->is_claimed)
        return; /* one at a time */
    if (!is_override) {
        /* RFC 4861 7.2.5 I: a REACHABLE entry becomes STALE, nothing else happens. */
        if (neigh->state == NEIGH_REACHABLE)
            neigh_enter(stack, neigh, NEIGH_STALE);
        return;
    }
    memcpy(neigh->claimed_mac, mac, sizeof(neigh->claimed_mac));
    neigh->is_claimed = true;
    if (neigh->state != NEIGH_PROBE)
        neigh_enter(stack, neigh, NEIGH_PROBE);
}

void neigh_hear(struct stack *stack, struct neigh *neigh, const uint8_t mac[6],
                enum neigh_word word, bool is_override)
{
    switch ((enum neigh_state)neigh->state) {
    case NEIGH_FAILED:
        neigh_forget(stack, neigh); /* it is back: the next packet asks anew */
        return;
    case NEIGH_INCOMPLETE:
        hear_first(stack, neigh, mac, word);
        return;
    default:
        break;
    }
    if (memcmp(neigh->mac, mac, sizeof(neigh->mac)) != 0) {
        hear_other(stack, neigh, mac, is_override);
        return;
    }
    /* Only an answer to our question says that it also hears us (RFC 4861 7.3.1). */
    if (word == NEIGH_ANSWER && neigh->state == NEIGH_PROBE)
        neigh_enter(stack, neigh, NEIGH_REACHABLE);
}

/* ---- time ---- */

static void probe_ended(struct stack *stack, struct neigh *neigh)
{
    if (neigh->is_claimed) {
        /* The old address is silent: ask the new one, which is used from now on. */
        STACK_COUNT(stack, NEIGHBOUR_MOVED);
        neigh_learn(stack, neigh, neigh->claimed_mac);
        neigh->is_claimed = false;
        neigh_enter(stack, neigh, NEIGH_PROBE);
        return;
    }
    if (neigh->is_used)
        neigh_enter(stack, neigh, NEIGH_INCOMPLETE);
    else
        neigh_forget(stack, neigh);
}

static void solicit_again(struct stack *stack, struct neigh *neigh)
{
    if (neigh->tries < NEIGH_SOLICIT_MAX) {
        neigh_ask(stack, neigh);
        return;
    }
    if (neigh->state == NEIGH_PROBE) {
        probe_ended(stack, neigh);
        return;
    }
    STACK_COUNT(stack, NEIGHBOUR_FAILED);
    neigh_enter(stack, neigh, NEIGH_FAILED);
    queue_fail(stack, neigh);
}

void neigh_on_timer(struct stack *stack, struct wheel_timer *timer)
{
    struct neigh *neigh = WHEEL_OWNER(timer, struct neigh, timer);

    stack->neighbours->timers_armed--;
    switch ((enum neigh_state)neigh->state) {
    case NEIGH_REACHABLE:
        if (neigh->reachable_until > stack->now)
            neigh_timer_set(stack, neigh, neigh->reachable_until);
        else
            neigh_enter(stack, neigh, NEIGH_STALE);
        return;
    case NEIGH_DELAY:
        neigh_enter(stack, neigh, NEIGH_PROBE);
        return;
    case NEIGH_INCOMPLETE:
    case NEIGH_PROBE:
        solicit_again(stack, neigh);
        return;
    case NEIGH_STALE:
    case NEIGH_FAILED:
        neigh_forget(stack, neigh);
        return;
    case NEIGH_STATE_COUNT:
        break;
    }
    CHECK(!"no such state");
}
