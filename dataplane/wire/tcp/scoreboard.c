/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of each segment in flight: the flags of the descriptors in tcb->sent (RFC 6675),
 * and three orders over them that make every question cheap however many there are.
 *
 *   Runs of SACKED. A SACKED descriptor has no use for its time; it holds instead a sequence number
 *   up to which everything is SACKED, too (sacked_to), shortened on the way like the paths of a
 *   union-find. So a block that is reported again costs a search and a jump, not a walk.
 *
 *   First transmissions are in order of time because they are in order of sequence: `judged_to`
 *   moves up through them once (rack.c), `resend_from` follows it and hands out what is LOST.
 *
 *   Later transmissions are in order of time in the ring `resent`. One found LOST again is in front
 *   of those still in the network and goes out in the same order. An entry is believed if the
 *   descriptor that now holds its sequence number has its time: descriptors may be dropped,
 *   SACKED, sent again or cut in two without telling the ring.
 *
 * Flags of a descriptor                                     Edge done by
 *   sent -> SACKED                                          tcp_scoreboard_sack()
 *   sent -> LOST                                            tcp_scoreboard_lose(), _lose_all(),
 *                                                           tcp_recovery_lose_longer()
 *   LOST -> RETRANSMITTED                                   tcp_recovery_on_resent()
 *   LOST -> SACKED, RETRANSMITTED -> SACKED                 tcp_scoreboard_sack()
 *   RETRANSMITTED -> RETRANSMITTED | LOST                   tcp_scoreboard_lose(), _lose_all()
 *   LOST -> sent, or RETRANSMITTED (the loss was none)      tcp_scoreboard_find_again()
 *   SACKED -> LOST (the peer reneged)                       tcp_scoreboard_renege()
 *
 * Invariants
 *   1. tcb->sacked, lost and retransmitted are the sizes of the descriptors with the flag;
 *      tcp_sent_mark() keeps them. No descriptor is SACKED and LOST.
 *   2. sacked_to of a SACKED descriptor lies behind it, and all between are SACKED.
 *   3. What is LOST lies at index 0, at or above resend_from, or has an entry in [again, judged);
 * or it is part of a descriptor cut in two, which the last resort of tcp_recovery_next_lost()
 *      finds.
 *
 * Work: one segment's blocks mark and jump at most TCP_SACK_BUDGET times, each a binary search at
 * worst; what is left is done with the next segment. Everything is walked over after an RTO only.
 * Limits: RESENT_MAX entries; a retransmission beyond them is found lost by the RTO only.
 * Not here: which are lost (rack.c, recovery.c), when to send (prr.c).
 */
#include "dataplane/wire/tcp/scoreboard.h"

#include <stdlib.h>
#include <string.h>

#define RESENT_MIN 32u
#define RESENT_MAX 65536u

struct tcp_scoreboard *tcp_scoreboard(struct tcb *tcb)
{
    if (tcb->scoreboard != NULL)
        return tcb->scoreboard;
    struct tcp_scoreboard *scoreboard = calloc(1, sizeof(*scoreboard));
    /* A hundred octets are not to be had: nothing sensible can go on. */
    CHECK(scoreboard != NULL);
    scoreboard->judged_to = tcb->snd_una;
    scoreboard->resend_from = tcb->snd_una;
    scoreboard->undo_until = tcb->snd_una;
    scoreboard->reorder_at = TICK_NEVER;
    tcb->scoreboard = scoreboard;
    return scoreboard;
}

void tcp_recovery_free(struct tcb *tcb)
{
    if (tcb->scoreboard == NULL)
        return;
    free(tcb->scoreboard->resent);
    free(tcb->scoreboard);
    tcb->scoreboard = NULL;
}

/* ---- runs ---- */

static uint32_t end_of(const struct tcp_sent *sent)
{
    return sent->sequence + sent->size;
}

static bool is_sacked(const struct tcb *tcb, uint32_t index)
{
    return index < tcb->sent.count && tcp_sent_at(&tcb->sent, index)->flags & TCP_SENT_SACKED;
}

uint32_t tcp_scoreboard_skip(struct tcb *tcb, uint32_t index, uint32_t *budget)
{
    while (*budget > 0 && is_sacked(tcb, index)) {
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
        uint32_t next = tcp_sent_find(tcb, sent->sacked_to);

        CHECK(next > index);
        /* Half the path: whoever comes next jumps over the one jumped to. */
        if (is_sacked(tcb, next))
            sent->sacked_to = tcp_sent_at(&tcb->sent, next)->sacked_to;
        index = next;
        (*budget)--;
    }
    return index;
}

void tcp_scoreboard_sack(const struct stack *stack, struct tcb *tcb, struct tcp_sack_block block,
                         uint32_t *budget, struct tcp_ack *ret_ack)
{
    uint32_t index = tcp_sent_find(tcb, block.start);

    /* A descriptor that is covered in part stays: it is sent again whole, or acknowledged. */
    if (index < tcb->sent.count && seq_lt(tcp_sent_at(&tcb->sent, index)->sequence, block.start))
        index++;
    uint32_t first = index;
    while (*budget > 0) {
        index = tcp_scoreboard_skip(tcb, index, budget);
        if (*budget == 0 || index >= tcb->sent.count)
            break;
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
        if (seq_gt(end_of(sent), block.end))
            break;
        tcp_digest_delivered(stack, tcb, sent, ret_ack);
        tcp_sent_mark(tcb, sent, TCP_SENT_SACKED, TCP_SENT_LOST);
        sent->sacked_to = end_of(sent);
        index++;
        (*budget)--;
    }
    /* The next report of this block jumps here at once. */
    if (index > first)
        tcp_sent_at(&tcb->sent, first)->sacked_to = end_of(tcp_sent_at(&tcb->sent, index - 1));
}

/* ---- losses ---- */

void tcp_scoreboard_lose(struct tcb *tcb, struct tcp_sent *sent)
{
    CHECK(!(sent->flags & (TCP_SENT_SACKED | TCP_SENT_LOST)));
    tcp_sent_mark(tcb, sent, TCP_SENT_LOST, 0);
}

void tcp_scoreboard_lose_all(struct tcb *tcb, tick_us deadline)
{
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);
    uint32_t judged_to = tcb->snd_nxt;
    bool is_judged = true;

    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        if (sent->flags & (TCP_SENT_SACKED | TCP_SENT_LOST))
            continue;
        if (index == 0 || sent->sent_at <= deadline) {
            tcp_scoreboard_lose(tcb, sent);
        } else if (is_judged && !(sent->flags & TCP_SENT_RETRANSMITTED)) {
            judged_to = sent->sequence;
            is_judged = false;
        }
    }
    scoreboard->judged_to = judged_to;
    scoreboard->resend_from = tcb->snd_una;
}

void tcp_recovery_lose_longer(struct tcb *tcb, uint32_t octets)
{
    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
        uint32_t size = sent->size - (sent->flags & TCP_SENT_FIN ? 1u : 0u);

        if (size <= octets || sent->flags & (TCP_SENT_SACKED | TCP_SENT_LOST | TCP_SENT_SYN))
            continue;
        tcp_scoreboard(tcb)->resend_from = tcb->snd_una;
        tcp_scoreboard_lose(tcb, sent);
    }
}

void tcp_scoreboard_renege(struct tcb *tcb)
{
    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        if (!(sent->flags & TCP_SENT_SACKED))
            continue;
        tcp_sent_mark(tcb, sent, 0, TCP_SENT_SACKED);
        sent->sent_at = 0; /* its place held sacked_to: long ago */
    }
}

void tcp_scoreboard_find_again(struct tcb *tcb, uint32_t budget)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    uint32_t index = 0;

    while (index < tcb->sent.count && tcb->lost > 0 && budget > 0) {
        if (is_sacked(tcb, index)) {
            index = tcp_scoreboard_skip(tcb, index, &budget);
            continue;
        }
        tcp_sent_mark(tcb, tcp_sent_at(&tcb->sent, index), 0, TCP_SENT_LOST);
        index++;
        budget--;
    }
    scoreboard->judged_to = tcb->snd_una;
    scoreboard->resend_from =
        index < tcb->sent.count ? tcp_sent_at(&tcb->sent, index)->sequence : tcb->snd_nxt;
    /* Those that were found lost again are in the network again, and in order still. */
    scoreboard->judged = scoreboard->again;
}

/* ---- what was sent again ---- */

static void resent_grow(struct tcp_scoreboard *scoreboard)
{
    uint32_t capacity = scoreboard->capacity > 0 ? scoreboard->capacity * 2 : RESENT_MIN;
    struct tcp_resent *resent = malloc(capacity * sizeof(*resent));

    CHECK(resent != NULL); /* a few kilobytes, half a megabyte at most */
    for (uint32_t i = scoreboard->again; i != scoreboard->tail; i++)
        resent[i & (capacity - 1)] = scoreboard->resent[i & (scoreboard->capacity - 1)];
    free(scoreboard->resent);
    scoreboard->resent = resent;
    scoreboard->capacity = capacity;
}

uint32_t tcp_scoreboard_resent_at(const struct tcb *tcb, uint32_t entry)
{
    const struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    const struct tcp_resent *resent = &scoreboard->resent[entry & (scoreboard->capacity - 1)];

    if (seq_lt(resent->last, tcb->snd_una))
        return UINT32_MAX;
    uint32_t index = tcp_sent_find(tcb, resent->last);
    CHECK(index < tcb->sent.count);
    const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
    if (sent->flags & TCP_SENT_SACKED || (uint32_t)sent->sent_at != resent->sent_at)
        return UINT32_MAX;
    return index;
}

/* The first that was found lost again and was not sent since; UINT32_MAX: none. What is in front of
 * it is forgotten. */
static uint32_t resent_next(struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    for (; scoreboard->again != scoreboard->judged; scoreboard->again++) {
        uint32_t index = tcp_scoreboard_resent_at(tcb, scoreboard->again);

        if (index != UINT32_MAX && tcp_sent_at(&tcb->sent, index)->flags & TCP_SENT_LOST)
            return index;
    }
    return UINT32_MAX;
}

static void resent_push(struct tcb *tcb, const struct tcp_sent *sent)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (scoreboard->tail - scoreboard->again == scoreboard->capacity)
        (void)resent_next(tcb);
    if (scoreboard->tail - scoreboard->again == scoreboard->capacity) {
        if (scoreboard->capacity == RESENT_MAX)
            return;
        resent_grow(scoreboard);
    }
    scoreboard->resent[scoreboard->tail++ & (scoreboard->capacity - 1)] =
        (struct tcp_resent){end_of(sent) - 1, (uint32_t)sent->sent_at};
}

void tcp_recovery_on_resent(struct stack *stack, struct tcb *tcb, uint32_t index)
{
    struct tcp_scoreboard *scoreboard = tcp_scoreboard(tcb);
    struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

    CHECK(index < tcb->sent.count && !(sent->flags & TCP_SENT_SACKED));
    tcp_sent_mark(tcb, sent, TCP_SENT_RETRANSMITTED, TCP_SENT_LOST);
    sent->sent_at = stack->now;
    if (sent->transmissions < UINT8_MAX)
        sent->transmissions++;
    tcb->retransmit_count++;
    scoreboard->prr_out += sent->size;
    /* Without SACK nothing but a partial ACK or the RTO finds it lost: no order is needed. */
    if (tcb->flags & TCB_HAS_SACK)
        resent_push(tcb, sent);
    tcp_undo_on_resent(stack, tcb);
}

static uint32_t next_lost_from(struct tcb *tcb, uint32_t index)
{
    for (; index < tcb->sent.count; index++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        if (sent->flags & TCP_SENT_LOST) {
            tcb->scoreboard->resend_from = sent->sequence;
            return index;
        }
    }
    return UINT32_MAX;
}

uint32_t tcp_recovery_next_lost(struct tcb *tcb)
{
    struct tcp_scoreboard *scoreboard = tcb->scoreboard;

    if (tcb->lost == 0 || scoreboard->frto == TCP_FRTO_NEW_DATA)
        return UINT32_MAX;
    /* What holds back the peer comes first: RFC 6675 NextSeg() (1). */
    if (tcp_sent_at(&tcb->sent, 0)->flags & TCP_SENT_LOST)
        return 0;
    uint32_t index = resent_next(tcb);
    if (index != UINT32_MAX)
        return index;
    uint32_t from =
        seq_lt(scoreboard->resend_from, tcb->snd_una) ? tcb->snd_una : scoreboard->resend_from;
    index = next_lost_from(tcb, tcp_sent_find(tcb, from));
    if (index == UINT32_MAX)
        index = next_lost_from(tcb, 0); /* part of one that was cut in two */
    CHECK(index != UINT32_MAX);
    return index;
}

/* ---- verification ---- */

static void verify_run(const struct tcb *tcb, uint32_t index)
{
    uint32_t to = tcp_sent_at(&tcb->sent, index)->sacked_to;

    CHECK(seq_ge(to, end_of(tcp_sent_at(&tcb->sent, index))) && seq_le(to, tcb->snd_nxt));
    for (uint32_t i = index; i < tcb->sent.count; i++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, i);

        if (seq_ge(sent->sequence, to))
            break;
        CHECK(sent->flags & TCP_SENT_SACKED);
    }
}

void tcp_recovery_verify(const struct tcb *tcb)
{
    uint32_t sacked = 0, lost = 0, retransmitted = 0;
    bool is_run = false;

    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        CHECK((sent->flags & (TCP_SENT_SACKED | TCP_SENT_LOST)) !=
              (TCP_SENT_SACKED | TCP_SENT_LOST));
        sacked += sent->flags & TCP_SENT_SACKED ? sent->size : 0u;
        lost += sent->flags & TCP_SENT_LOST ? sent->size : 0u;
        retransmitted += sent->flags & TCP_SENT_RETRANSMITTED ? sent->size : 0u;
        if (sent->flags & TCP_SENT_SACKED && !is_run)
            verify_run(tcb, index);
        is_run = sent->flags & TCP_SENT_SACKED;
    }
    CHECK(sacked == tcb->sacked && lost == tcb->lost && retransmitted == tcb->retransmitted);
    const struct tcp_scoreboard *scoreboard = tcb->scoreboard;
    if (scoreboard == NULL) {
        CHECK(sacked == 0 && lost == 0 && !(tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS)));
        return;
    }
    CHECK((tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS)) != (TCB_IN_RECOVERY | TCB_IN_LOSS));
    CHECK(scoreboard->judged - scoreboard->again <= scoreboard->tail - scoreboard->again);
    CHECK(scoreboard->tail - scoreboard->again <= scoreboard->capacity);
    CHECK(scoreboard->frto == TCP_FRTO_OFF || tcb->flags & TCB_IN_LOSS);
}
