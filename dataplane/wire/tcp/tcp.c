/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of a tcb: made, connected, closed, lost, freed.
 *
 *   tcp_connect()       CLOSED -> SYN_SENT                    a SYN goes out
 *   tcp_accept_ready()  CLOSED -> ESTABLISHED                 listen.c, after the SYN cache
 *   tcp_connected()     SYN_SENT, SYN_RECEIVED -> ESTABLISHED
 *   output.c            ESTABLISHED -> FIN_WAIT_1, CLOSE_WAIT -> LAST_ACK   our FIN goes out
 *   input.c             the other edges                       its FIN comes, ours is acknowledged
 *   tcb_finished()      -> CLOSED, perhaps a TIME_WAIT record
 *   tcb_lost()          -> CLOSED, the owner hears RESET or FAILED
 *
 * A tcb in CLOSED is out of the table and has no timer, descriptors or destination: what is left is
 * a slot that its owner may still read from until he closes it. Without an owner it is freed.
 *
 * Closing. flow_close() gives the connection up: it becomes an orphan, which sends what was
 * appended and the FIN, reads and drops what comes (a RST would take our last reply from the peer),
 * and ends with the peer's FIN, or with a RST at the end of orphan_time, or when the peer goes on
 * sending beyond TCP_ORPHAN_DROP_MAX. This is where we differ from the SHOULD of RFC 1122 4.2.2.13,
 * which has the RST at once: it comes when there is nothing left to lose by it. flow_abort() is a
 * RST, where a connection may exist on the other side (RFC 9293 3.10.5).
 *
 * Whoever sends the first FIN has TIME_WAIT, and with it one port less. A client that said QUIT
 * knows that the server closes (RFC 5321 4.1.1.10), so when we opened the connection our FIN waits
 * for the peer's, two round trips but at most LINGER_MAX: the orphan `lingers`.
 *
 * Invariants
 *   1. tcb_enter() is the only writer of tcb->state.
 *   2. A tcb is in the table exactly while it is not CLOSED (but for the moment of its making).
 *   3. FLOW_SLOT_MORE is set as long as the connection lives: consuming puts it on core.read, where
 *      tcp_flush() finds that its window may have opened.
 *
 * Limits: flow_count_max; TCP_ORPHANS_MAX orphans: one more, and the oldest is aborted.
 */
#include "dataplane/wire/tcp/tcp.h"

#include <stdlib.h>

#define CONNECT_TIME_MAX TICK_S(180) /* RFC 1122 4.2.3.5: R2 of a SYN is at least 3 minutes */
#define LINGER_MIN       TICK_MS(10)
#define LINGER_MAX       TICK_S(1)

#define EDGE(state) (1u << TCP_##state)
static const uint16_t tcp_edges[TCP_STATE_COUNT] = {
    [TCP_CLOSED] = EDGE(SYN_SENT) | EDGE(ESTABLISHED),
    [TCP_SYN_SENT] = EDGE(SYN_RECEIVED) | EDGE(ESTABLISHED) | EDGE(CLOSED),
    [TCP_SYN_RECEIVED] = EDGE(ESTABLISHED) | EDGE(CLOSED),
    [TCP_ESTABLISHED] = EDGE(FIN_WAIT_1) | EDGE(CLOSE_WAIT) | EDGE(CLOSED),
    [TCP_FIN_WAIT_1] = EDGE(FIN_WAIT_2) | EDGE(CLOSING) | EDGE(CLOSED),
    [TCP_FIN_WAIT_2] = EDGE(CLOSED),
    [TCP_CLOSE_WAIT] = EDGE(LAST_ACK) | EDGE(CLOSED),
    [TCP_CLOSING] = EDGE(CLOSED),
    [TCP_LAST_ACK] = EDGE(CLOSED),
};

/* ---- states ---- */

/* What the path turned out to be, for the next connection to this host (RFC 9040). */
static void destination_learn(struct tcb *tcb)
{
    struct destination *destination = tcb->destination;

    if (tcb->rtt.srtt == 0)
        return;
    destination->srtt_us = tcb->rtt.srtt;
    destination->rttvar_us = tcb->rtt.rttvar;
}

/* Everything a connection holds but the slot and what was received. */
static void tcb_let_go(struct stack *stack, struct tcb *tcb)
{
    if (tcb->destination == NULL)
        return;
    destination_learn(tcb);
    destination_release(stack, tcb->destination);
    tcb->destination = NULL;
    tcp_table_remove(stack, &tcb->key, tcp_found_tcb(tcb));
    if (tcb->flags & TCB_IS_PASSIVE)
        tcp_limit_leave(stack, tcb->key.family, tcb->key.remote);
    wheel_cancel(&stack->wheel, &tcb->timer);
    tcb->rtx_at = tcb->ack_at = tcb->life_at = TICK_NEVER;
    tcb->rtx_mode = TCP_RTX_NONE;
    tcb->flags &= ~(uint32_t)(TCB_ACK_NOW | TCB_ACK_DELAYED | TCB_LINGERS);
    tcb->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
    tcp_recovery_free(tcb);
    tcp_sent_free(tcb);
    tcp_reassembly_free(stack, tcb);
    tcb->snd_una = tcb->snd_nxt;
    stack->tcp->connection_count--;
}

void tcb_enter(struct stack *stack, struct tcb *tcb, enum tcp_state next)
{
    CHECK(next < TCP_STATE_COUNT && tcp_edges[tcb->state] & 1u << next);

    tcb->state = (uint8_t)next;
    if (next == TCP_CLOSED)
        tcb_let_go(stack, tcb);
    else if (next == TCP_ESTABLISHED)
        tcb->life_at = TICK_NEVER;
    else if (next == TCP_FIN_WAIT_2)
        tcb_life_limit(stack, tcb, stack->options.tcp.fin_wait_2_time);
}

/* An orphan has no more than `time` from now on. */
void tcb_life_limit(struct stack *stack, struct tcb *tcb, tick_us time)
{
    tick_us at = stack->now + time;

    if (!(tcb->slot.flags & FLOW_SLOT_ORPHAN) || tcb->life_at <= at)
        return;
    tcb->life_at = at;
    tcb_timer_set(stack, tcb);
}

void tcb_linger_end(struct stack *stack, struct tcb *tcb)
{
    if (!(tcb->flags & TCB_LINGERS))
        return;
    tcb->flags &= ~(uint32_t)TCB_LINGERS;
    tcb->life_at = stack->now + stack->options.orphan_time;
    tcb_timer_set(stack, tcb);
    tcb_output_later(stack, tcb);
}

/* ---- made and freed ---- */

static void tcb_init(struct stack *stack, struct tcb *tcb)
{
    const struct tcp_policy *policy = &stack->options.tcp;

    tcb->timer.kind = STACK_TIMER_TCP;
    tcb->rtx_at = tcb->ack_at = tcb->life_at = TICK_NEVER;
    tcb->unacked_since = stack->now;
    tcb->opened_at = (uint32_t)(stack->now / TICK_MS(1));
    tcb->ts_offset = tcp_timestamp_offset(stack, &tcb->key);
    tcb->peer_mss = tcb->key.family == FLOW_FAMILY_IP6 ? 1220 : 536; /* RFC 9293 MUST-15 */
    tcb->quick_acks_left =
        (uint8_t)(policy->quick_acks < UINT8_MAX ? policy->quick_acks : UINT8_MAX);
    tcb->slot.flags |= FLOW_SLOT_MORE;
    tcb_mss_update(stack, tcb);
    tcp_rtt_init(&tcb->rtt, policy, tcb->destination);
}

struct tcb *tcb_new(struct stack *stack, const struct tcp_key *key, uint64_t user)
{
    struct flow_slot *slot = flow_core_slot_new(&stack->core, FLOW_SLOT_STREAM, user);

    if (slot == NULL) {
        STACK_COUNT(stack, TCP_FLOWS_FULL);
        return NULL;
    }
    struct tcb *tcb = tcb_of(slot);
    tcb->key = *key;
    tcb->destination = destination_acquire(stack, key->family, key->remote);
    if (tcb->destination == NULL) {
        flow_core_slot_free(&stack->core, slot);
        return NULL;
    }
    if (tcp_table_add(stack, key, tcp_found_tcb(tcb)) != ERR_OK) {
        STACK_COUNT(stack, TCP_FLOWS_FULL);
        destination_release(stack, tcb->destination);
        flow_core_slot_free(&stack->core, slot);
        return NULL;
    }
    stack->tcp->connection_count++;
    tcb_init(stack, tcb);
    return tcb;
}

void tcb_free(struct stack *stack, struct tcb *tcb)
{
    tcb_let_go(stack, tcb);
    if (tcb->slot.flags & FLOW_SLOT_UNACCEPTED)
        tcp_listener_forget(stack, tcb);
    flow_core_slot_free(&stack->core, &tcb->slot);
}

/* ---- connect ---- */

/* It is over before it began; the owner hears of it like of everything else. */
static enum err connect_fail(struct stack *stack, uint64_t user, enum err why,
                             struct flow *ret_flow)
{
    struct flow_slot *slot = flow_core_slot_new(&stack->core, FLOW_SLOT_STREAM, user);

    if (slot == NULL)
        return ERR_LIMIT;
    flow_core_connected(&stack->core, slot, why);
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

/* Local address and port. ERR_PEER_UNREACHABLE: we have no address there. One whose duplicate
 * detection still runs will do: tcp_send_syn() waits for its end. A relay that comes back has mail
 * for hosts with IPv6 alone in its first second, too. */
static enum err source_choose(struct stack *stack, const struct flow_address *source,
                              struct tcp_key *key, uint32_t *ret_iss_min)
{
    const struct stack_local *local;

    if (source->family == FLOW_FAMILY_NONE) {
        local = stack_source_choose_soon(stack, key->family, key->remote);
        if (local == NULL)
            return ERR_PEER_UNREACHABLE;
    } else {
        local = source->family == key->family ? stack_local_find(stack, source->family, source->ip)
                                              : NULL;
        if (local == NULL || local->is_duplicate)
            return ERR_SYSTEM;
    }
    memcpy(key->local, local->address.address.ip, sizeof(key->local));
    *ret_iss_min = 0;
    if (source->family == FLOW_FAMILY_NONE || source->port == 0)
        return tcp_port_choose(stack, key, ret_iss_min);
    key->local_port = source->port;
    struct tcp_found found = tcp_table_find(stack, key);
    if (found.kind == TCP_FOUND_NONE ||
        (found.kind == TCP_FOUND_TIME_WAIT && tcp_time_wait_reuse(stack, key, ret_iss_min)))
        return ERR_OK;
    return ERR_SYSTEM;
}

static void syn_begin(struct stack *stack, struct tcb *tcb, uint32_t iss_min, tick_us deadline)
{
    tick_us latest = stack->now + CONNECT_TIME_MAX;
    uint32_t iss = tcp_isn(stack, &tcb->key);

    if (iss_min != 0 && seq_lt(iss, iss_min))
        iss = iss_min;
    tcb->snd_una = tcb->snd_nxt = iss;
    tcb_enter(stack, tcb, TCP_SYN_SENT);
    tcb->life_at = deadline < latest ? deadline : latest;
    tcb_timer_set(stack, tcb);
    tcb_output_later(stack, tcb); /* the SYN */
}

enum err tcp_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                     struct flow *ret_flow)
{
    struct stack *stack = stack_of(plane);
    const struct flow_address *remote = &options->remote;
    struct tcp_key key = {.remote_port = remote->port, .family = remote->family};
    uint32_t iss_min;

    if ((remote->family != FLOW_FAMILY_IP4 && remote->family != FLOW_FAMILY_IP6) ||
        remote->port == 0)
        return ERR_SYSTEM;
    memcpy(key.remote, remote->ip, sizeof(key.remote));
    /* What no packet may come from cannot answer (RFC 1122 4.2.3.10); frames to ourselves do not
     * come back. */
    if (ip_is_martian_source(key.family, key.remote) || ip_is_multicast(key.family, key.remote) ||
        stack_local_find(stack, key.family, key.remote) != NULL)
        return connect_fail(stack, options->user, ERR_PEER_UNREACHABLE, ret_flow);
    enum err err = source_choose(stack, &options->source, &key, &iss_min);
    if (err == ERR_PEER_UNREACHABLE)
        return connect_fail(stack, options->user, err, ret_flow);
    if (err != ERR_OK)
        return err;
    struct tcb *tcb = tcb_new(stack, &key, options->user);
    if (tcb == NULL)
        return ERR_LIMIT;
    flow_slot_set_limits(&tcb->slot, options->receive_limit, options->send_limit);
    *ret_flow = flow_core_handle(&tcb->slot);
    syn_begin(stack, tcb, iss_min, options->deadline);
    return ERR_OK;
}

void tcb_opened(struct stack *stack, struct tcb *tcb)
{
    if (tcb->flags & TCB_SYN_RETRANSMITTED)
        tcp_rtt_syn_was_lost(&tcb->rtt, &stack->options.tcp);
    tcb_mss_update(stack, tcb);
    tcp_congestion_init(stack, tcb);
    tcp_window_measure_begin(stack, tcb);
    tcb->unacked_since = stack->now;
    tcb_enter(stack, tcb, TCP_ESTABLISHED);
}

void tcp_connected(struct stack *stack, struct tcb *tcb, uint32_t acknowledgement)
{
    const struct tcp_sent *syn = tcp_sent_at(&tcb->sent, 0);

    CHECK(tcb->sent.count == 1 && syn->flags & TCP_SENT_SYN);
    if (!(syn->flags & TCP_SENT_RETRANSMITTED))
        tcp_rtt_sample(&tcb->rtt, &stack->options.tcp, (uint32_t)(stack->now - syn->sent_at));
    tcp_sent_drop(stack, tcb, acknowledgement);
    destination_confirm(stack, tcb->destination);
    tcb_opened(stack, tcb);
    flow_core_connected(&stack->core, &tcb->slot, ERR_OK);
    tcb_output_later(stack, tcb);
}

/* ---- ended ---- */

void tcb_finished(struct stack *stack, struct tcb *tcb, bool is_time_wait)
{
    if (is_time_wait)
        tcp_time_wait_enter(stack, tcb);
    tcb_enter(stack, tcb, TCP_CLOSED);
    if (tcb->slot.flags & (FLOW_SLOT_ORPHAN | FLOW_SLOT_UNACCEPTED))
        tcb_free(stack, tcb);
    else
        flow_core_touch(&stack->core, &tcb->slot);
}

void tcb_lost(struct stack *stack, struct tcb *tcb, enum err err)
{
    bool was_connecting = tcb->state == TCP_SYN_SENT || tcb->state == TCP_SYN_RECEIVED;

    tcb_enter(stack, tcb, TCP_CLOSED);
    if (tcb->slot.flags & (FLOW_SLOT_ORPHAN | FLOW_SLOT_UNACCEPTED))
        tcb_free(stack, tcb);
    else if (was_connecting)
        flow_core_connected(&stack->core, &tcb->slot, err);
    else
        flow_core_reset(&stack->core, &tcb->slot, err);
}

/* ---- given up by the owner ---- */

static bool state_is_reset_by_rst(enum tcp_state state)
{
    return state == TCP_SYN_RECEIVED || state == TCP_ESTABLISHED || state == TCP_FIN_WAIT_1 ||
           state == TCP_FIN_WAIT_2 || state == TCP_CLOSE_WAIT;
}

void tcp_abort(struct stack *stack, struct flow_slot *slot)
{
    CHECK(slot->kind == FLOW_SLOT_STREAM);
    struct tcb *tcb = tcb_of(slot);

    if (state_is_reset_by_rst((enum tcp_state)tcb->state))
        tcp_send_rst(stack, tcb);
    if (tcb->state != TCP_CLOSED)
        tcb_enter(stack, tcb, TCP_CLOSED);
    tcb_free(stack, tcb);
}

static bool is_worth_lingering(const struct tcb *tcb)
{
    return tcb->state == TCP_ESTABLISHED && !(tcb->flags & TCB_IS_PASSIVE) &&
           !(tcb->slot.flags & FLOW_SLOT_FIN_WANTED);
}

static void tcb_orphan(struct stack *stack, struct tcb *tcb)
{
    struct flow_link *orphans = &stack->tcp->orphans;
    tick_us linger = tcb->rtt.srtt == 0 ? LINGER_MAX : 2 * (tick_us)tcb->rtt.srtt + LINGER_MIN;
    bool lingers = is_worth_lingering(tcb);

    if (stack->core.stats.orphans >= TCP_ORPHANS_MAX) {
        STACK_COUNT(stack, TCP_ORPHANS_EXPIRED);
        tcp_abort(stack, FLOW_SLOT_OF(orphans->next, report));
    }
    flow_core_slot_orphan(&stack->core, &tcb->slot);
    flow_link_push(orphans, &tcb->slot.report);
    tcb->measure_sequence = tcb->rcv_nxt; /* from here on octets are dropped */
    if (lingers)
        tcb->flags |= TCB_LINGERS;
    tcb->life_at = TICK_NEVER;
    linger = linger < LINGER_MAX ? linger : LINGER_MAX;
    tcb_life_limit(stack, tcb, lingers ? linger : stack->options.orphan_time);
    if (tcb->state == TCP_FIN_WAIT_2)
        tcb_life_limit(stack, tcb, stack->options.tcp.fin_wait_2_time);
    tcb_output_later(stack, tcb);
}

void tcp_close(struct stack *stack, struct flow_slot *slot)
{
    if (slot->kind == FLOW_SLOT_LISTENER) {
        tcp_listener_close(stack, slot);
        return;
    }
    struct tcb *tcb = tcb_of(slot);
    if (tcb->state <= TCP_SYN_RECEIVED)
        tcp_abort(stack, slot);
    else
        tcb_orphan(stack, tcb);
}

/* ---- what all connections share ---- */

struct tcp_shared *tcp_shared_new(struct stack *stack)
{
    struct tcp_shared *shared = calloc(1, sizeof(*shared));

    CHECK(shared != NULL);
    stack->tcp = shared;
    flow_link_init(&shared->orphans);
    shared->table = tcp_table_new(stack);
    shared->time_waits = tcp_time_waits_new(stack);
    shared->syn_cache = tcp_syn_cache_new(stack);
    shared->ports = tcp_ports_new(stack);
    shared->limits = tcp_limits_new(stack);
    shared->receive = tcp_receive_new(stack);
    return shared;
}

void tcp_shared_free(struct stack *stack)
{
    struct tcp_shared *shared = stack->tcp;

    CHECK(shared->connection_count == 0);
    wheel_cancel(&stack->wheel, &shared->list_timer);
    tcp_receive_free(shared->receive);
    tcp_limits_free(shared->limits);
    tcp_ports_free(shared->ports);
    tcp_syn_cache_free(shared->syn_cache);
    tcp_time_waits_free(shared->time_waits);
    tcp_table_free(shared->table);
    free(shared);
    stack->tcp = NULL;
}
