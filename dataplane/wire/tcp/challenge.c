/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Challenge ACKs (RFC 5961): the answer to a segment that may be forged.
 *
 * A RST that does not name exactly rcv_nxt, a SYN inside a connection, an ACK of what was never
 * sent, a segment outside the window: each may come from a blind attacker, or from a peer that
 * crashed or lags. Our ACK tells the second where we are, and the first nothing.
 *
 * How many are sent is bounded for each connection by itself. A bound common to all would tell an
 * attacker who exhausts it whether two strangers have a connection (CVE-2016-5696). The same bound
 * ends an exchange of ACKs between two sides that disagree (HAZARDS TC-07).
 *
 * Limits: policy.challenge_acks_per_second in any second that begins with a challenge.
 */
#include "dataplane/wire/tcp/tcp.h"

#define SECOND_MS 1000u

void tcp_challenge(struct stack *stack, struct tcb *tcb)
{
    uint32_t now = (uint32_t)(stack->now / TICK_MS(1));
    uint32_t per_second = stack->options.tcp.challenge_acks_per_second;

    if (tcb->challenge_at == 0 || now - tcb->challenge_at >= SECOND_MS) {
        tcb->challenge_at = now == 0 ? 1 : now; /* 0: never */
        tcb->challenge_left = (uint8_t)(per_second < UINT8_MAX ? per_second : UINT8_MAX);
    }
    if (tcb->challenge_left == 0) {
        STACK_COUNT(stack, TCP_CHALLENGES_LIMITED);
        return;
    }
    tcb->challenge_left--;
    STACK_COUNT(stack, TCP_CHALLENGES);
    tcb->flags |= TCB_ACK_NOW;
    tcb_output_later(stack, tcb);
}
