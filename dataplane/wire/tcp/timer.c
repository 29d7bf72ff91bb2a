/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Time of a connection: three deadlines and one timer of the wheel.
 *
 *   rtx_at    by rtx_mode: RTO (also SYNs), reordering, TLP, persist
 *   ack_at    a delayed ACK is due
 *   life_at   connect's deadline; the linger, FIN_WAIT_2 and the end of an orphan
 *
 * Deadlines are moved all the time and mostly later, so the wheel is touched only when one lies
 * before the timer. A timer that fires early finds nothing due and is armed for what there is.
 *
 * How a connection ends in time, whatever the peer does or does not:
 *   SYN_SENT, SYN_RECEIVED   connect's deadline, at most CONNECT_TIME_MAX (RFC 1122 4.2.3.5)
 *   data or FIN in flight    policy.user_time without progress (RFC 9293 3.8.3, RFC 5482)
 *   zero window              lasts while the peer acknowledges probes (RFC 1122 4.2.2.17); the
 *                            owner's own patience ends it (RFC 6429)
 *   closed by its owner      the plane's orphan_time, then RST; FIN_WAIT_2 policy.fin_wait_2_time
 *   anything else            is an open connection with nothing to send: its owner's business
 */
#include "dataplane/wire/tcp/tcp.h"

static tick_us earliest(const struct tcb *tcb)
{
    tick_us at = tcb->rtx_at < tcb->ack_at ? tcb->rtx_at : tcb->ack_at;
    return at < tcb->life_at ? at : tcb->life_at;
}

void tcb_timer_set(struct stack *stack, struct tcb *tcb)
{
    tick_us at = earliest(tcb);

    if (at == TICK_NEVER || (wheel_is_armed(&tcb->timer) && tcb->timer.deadline <= at))
        return;
    wheel_arm(&stack->wheel, &tcb->timer, at);
}

/* ---- what rtx_at is for ---- */

static void rtx_none(struct tcb *tcb)
{
    tcb->rtx_mode = TCP_RTX_NONE;
    tcb->rtx_at = TICK_NEVER;
}

/* SYNs go by a schedule from connect() on and not by a doubling time-out: mail has another MX. */
static void rtx_set_syn(struct stack *stack, struct tcb *tcb)
{
    const tick_us *times = stack->options.tcp.syn_times;
    tick_us gone = TICK_MS((uint32_t)(stack->now / TICK_MS(1)) - tcb->opened_at);

    rtx_none(tcb);
    if (tcb->syn_count >= COUNT_OF(stack->options.tcp.syn_times) || times[tcb->syn_count] == 0)
        return;
    tcb->rtx_mode = TCP_RTX_RTO;
    tcb->rtx_at =
        times[tcb->syn_count] > gone ? stack->now + times[tcb->syn_count] - gone : stack->now;
}

/* No later than the user's patience ends. */
static tick_us within_user_time(const struct stack *stack, const struct tcb *tcb, tick_us at)
{
    tick_us end = tcb->unacked_since + stack->options.tcp.user_time;
    return at < end ? at : end;
}

static void rtx_set_in_flight(struct stack *stack, struct tcb *tcb)
{
    tick_us reorder_at = tcp_recovery_reorder_at(stack, tcb);
    tick_us tlp_at = tcp_recovery_tlp_at(stack, tcb);

    tcb->rtx_mode = TCP_RTX_RTO;
    tcb->rtx_at = within_user_time(stack, tcb, tcp_recovery_rto_at(stack, tcb));
    if (tlp_at < tcb->rtx_at) {
        tcb->rtx_mode = TCP_RTX_TLP;
        tcb->rtx_at = tlp_at;
    }
    if (reorder_at < tcb->rtx_at) {
        tcb->rtx_mode = TCP_RTX_REORDER;
        tcb->rtx_at = reorder_at;
    }
}

void tcb_rtx_set(struct stack *stack, struct tcb *tcb)
{
    if (tcb->state == TCP_SYN_SENT || tcb->state == TCP_SYN_RECEIVED) {
        rtx_set_syn(stack, tcb);
    } else if (tcb->snd_una != tcb->snd_nxt) {
        rtx_set_in_flight(stack, tcb);
    } else if (tcb_unsent_size(tcb) == 0) {
        rtx_none(tcb);
    } else if (tcb->rtx_mode != TCP_RTX_PERSIST) {
        /* Nothing in flight, and something that the window does not let go. */
        tcb->rtx_mode = TCP_RTX_PERSIST;
        tcb->unacked_since = stack->now;
        tcb->rtx_at = within_user_time(stack, tcb, stack->now + tcb->rtt.rto);
    }
}

/* ---- what is due ---- */

/* False: the peer did not answer for longer than a user waits, and the connection is lost. */
static bool is_patient(struct stack *stack, struct tcb *tcb)
{
    if (stack->now - tcb->unacked_since < stack->options.tcp.user_time)
        return true;
    STACK_COUNT(stack, TCP_TIMED_OUT);
    tcb_lost(stack, tcb, ERR_TIMEOUT);
    return false;
}

/* One loss is the path's; two in a row may be a next hop that is somewhere else now. */
static void doubt_from(struct stack *stack, const struct tcb *tcb, uint32_t unanswered)
{
    if (unanswered >= 2)
        destination_doubt(stack, tcb->destination);
}

static bool on_rto(struct stack *stack, struct tcb *tcb)
{
    if (tcb->state < TCP_ESTABLISHED) {
        tcb->flags |= TCB_SYN_DUE;
        doubt_from(stack, tcb, tcb->syn_count);
        return true;
    }
    if (!is_patient(stack, tcb))
        return false;
    STACK_COUNT(stack, TCP_TIMEOUTS);
    tcp_recovery_on_rto(stack, tcb);
    doubt_from(stack, tcb, tcb->rtt.backoff);
    tcp_pmtu_on_rto(stack, tcb);
    return true;
}

/* RFC 9293 3.8.6.1; also the time-out that overrides silly window avoidance (3.8.6.2.1). */
static bool on_persist(struct stack *stack, struct tcb *tcb)
{
    if (!is_patient(stack, tcb))
        return false;
    tcp_rtt_back_off(&tcb->rtt, &stack->options.tcp);
    doubt_from(stack, tcb, tcb->rtt.backoff);
    tcb->rtx_at = within_user_time(stack, tcb, stack->now + tcb->rtt.rto);
    if (tcb->snd_wnd > 0) {
        tcp_output_forced(stack, tcb);
        return true;
    }
    STACK_COUNT(stack, TCP_PROBES);
    tcp_send_probe(stack, tcb);
    return true;
}

/* False: the tcb is lost, and gone if nobody owned it. */
static bool on_rtx(struct stack *stack, struct tcb *tcb)
{
    enum tcp_rtx_mode mode = (enum tcp_rtx_mode)tcb->rtx_mode;

    if (mode == TCP_RTX_PERSIST)
        return on_persist(stack, tcb);
    rtx_none(tcb); /* set again by tcp_output(), at the end of this turn */
    tcb_output_later(stack, tcb);
    if (mode == TCP_RTX_RTO)
        return on_rto(stack, tcb);
    if (mode == TCP_RTX_REORDER) {
        tcp_recovery_on_reorder_timer(stack, tcb);
    } else {
        STACK_COUNT(stack, TCP_TAIL_PROBES);
        tcp_recovery_on_tlp_timer(stack, tcb);
    }
    return true;
}

static void on_life(struct stack *stack, struct tcb *tcb)
{
    tcb->life_at = TICK_NEVER;
    if (tcb->state < TCP_ESTABLISHED) {
        tcb_lost(stack, tcb, ERR_TIMEOUT);
        return;
    }
    CHECK(tcb->slot.flags & FLOW_SLOT_ORPHAN);
    if (tcb->flags & TCB_LINGERS) {
        tcb_linger_end(stack, tcb);
        return;
    }
    STACK_COUNT(stack, TCP_ORPHANS_EXPIRED);
    tcp_abort(stack, &tcb->slot);
}

void tcb_on_timer(struct stack *stack, struct tcb *tcb)
{
    if (stack->now >= tcb->life_at) {
        on_life(stack, tcb);
        return;
    }
    if (stack->now >= tcb->ack_at) {
        tcb->ack_at = TICK_NEVER;
        tcb->flags |= TCB_ACK_NOW;
        STACK_COUNT(stack, TCP_ACKS_DELAYED);
        tcb_output_later(stack, tcb);
    }
    /* What came in this turn, before the timer, counts: an ACK in time is in time. */
    if (stack->now >= tcb->rtx_at && tcb->slot.dirty.next != NULL)
        tcb_rtx_set(stack, tcb);
    if (stack->now >= tcb->rtx_at && !on_rtx(stack, tcb))
        return;
    tcb_timer_set(stack, tcb);
}
