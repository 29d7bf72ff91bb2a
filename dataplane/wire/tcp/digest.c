/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an ACK says: the cumulative part and the SACK blocks against tcb->sent. Marks SACKED,
 * changes nothing else, and leaves in struct tcp_ack all that recovery, RTT and congestion control
 * want to know; afterwards the acknowledged descriptors may be dropped.
 *
 * Every descriptor is delivered once: by the first ACK that covers it, cumulatively or by a block.
 *
 * RTT samples (RFC 6298 section 3, Karn): the oldest of the newly acknowledged segments if none of
 * them was sent twice, else the oldest newly SACKed that was not, else the timestamp echo
 * (RFC 7323 section 4), which is unambiguous but counts milliseconds.
 *
 * Blocks are taken as RFC 2018 and 2883 have them and believed only within [snd_una, snd_nxt): a
 * block that is empty, reaches beyond what was sent, or lies in the past is no SACK. They are taken
 * from the lowest up, so that work put off by the budget is not mistaken for reordering later.
 */
#include "dataplane/wire/tcp/scoreboard.h"

void tcp_digest_delivered(const struct stack *stack, struct tcb *tcb, const struct tcp_sent *sent,
                          struct tcp_ack *ret_ack)
{
    uint32_t end = sent->sequence + sent->size;

    /* A SYN is no payload that the window should grow by. */
    ret_ack->delivered += sent->size - (sent->flags & TCP_SENT_SYN ? 1u : 0u);
    if (!ret_ack->is_anything_delivered || seq_gt(end, ret_ack->highest_end))
        ret_ack->highest_end = end;
    ret_ack->is_anything_delivered = true;
    if (sent->flags & TCP_SENT_RETRANSMITTED) {
        /* RFC 8985 6.2 step 2: it may be an earlier transmission that arrived. Then its time says
         * nothing. */
        uint32_t sent_at = (uint32_t)(sent->sent_at / 1000u) + tcb->ts_offset;
        if (ret_ack->has_timestamp && seq_lt(ret_ack->timestamp_echo, sent_at))
            return;
        if (stack->now - sent->sent_at < tcb->rtt.minimum)
            return;
    } else {
        ret_ack->is_reordered |= seq_lt(end, tcb->rack.fack);
        ret_ack->is_original_delivered |= seq_le(end, tcb->recover);
        if (!ret_ack->has_once || sent->sent_at < ret_ack->once_sent_at)
            ret_ack->once_sent_at = sent->sent_at;
        ret_ack->has_once = true;
    }
    if (!ret_ack->has_newest || sent->sent_at > ret_ack->newest_sent_at ||
        (sent->sent_at == ret_ack->newest_sent_at && seq_gt(end, ret_ack->newest_end))) {
        ret_ack->has_newest = true;
        ret_ack->newest_sent_at = sent->sent_at;
        ret_ack->newest_end = end;
        ret_ack->is_newest_resent = (sent->flags & TCP_SENT_RETRANSMITTED) != 0;
    }
}

static uint32_t elapsed(const struct stack *stack, tick_us since)
{
    tick_us time = stack->now - since;

    return time == 0 ? 1 : time > UINT32_MAX ? UINT32_MAX : (uint32_t)time;
}

/* The last that `size` numbers from snd_una cover; NULL: none. */
static const struct tcp_sent *last_within(const struct tcb *tcb, uint32_t size)
{
    const struct tcp_sent *last = NULL;

    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);
        if (sent->size > size)
            break;
        size -= sent->size;
        last = sent;
    }
    return last;
}

/* The usual: each was sent once and none is SACKED, so they left in the order of their numbers, and
 * the first and the last of them say what tcp_digest_delivered() would say of all. */
static void digest_cumulative_plain(struct tcb *tcb, struct tcp_ack *ret_ack)
{
    const struct tcp_sent *first = tcp_sent_at(&tcb->sent, 0), *last;

    ret_ack->delivered = ret_ack->acked - (first->flags & TCP_SENT_SYN ? 1u : 0u);
    if (ret_ack->acknowledgement == tcb->snd_nxt)
        last = tcp_sent_at(&tcb->sent, tcb->sent.count - 1);
    else
        last = last_within(tcb, ret_ack->acked);
    if (last == NULL)
        return;
    uint32_t first_end = first->sequence + first->size, end = last->sequence + last->size;
    ret_ack->is_anything_delivered = ret_ack->has_once = ret_ack->has_newest = true;
    ret_ack->is_reordered = seq_lt(first_end, tcb->rack.fack);
    ret_ack->is_original_delivered = seq_le(first_end, tcb->recover);
    ret_ack->once_sent_at = first->sent_at;
    ret_ack->newest_sent_at = last->sent_at;
    ret_ack->highest_end = ret_ack->newest_end = end;
}

static void digest_cumulative(const struct stack *stack, struct tcb *tcb, struct tcp_ack *ret_ack)
{
    uint32_t acknowledged = ret_ack->acknowledgement;

    ret_ack->acked = acknowledged - tcb->snd_una;
    if ((tcb->sacked | tcb->lost | tcb->retransmitted) == 0 && tcb->sent.count > 0) {
        digest_cumulative_plain(tcb, ret_ack);
        return;
    }

    for (uint32_t index = 0; index < tcb->sent.count; index++) {
        const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

        if (seq_ge(sent->sequence, acknowledged))
            break;
        ret_ack->is_retransmit_acked |= (sent->flags & TCP_SENT_RETRANSMITTED) != 0;
        if (sent->flags & TCP_SENT_SACKED)
            continue;
        if (seq_gt(sent->sequence + sent->size, acknowledged)) {
            ret_ack->delivered += acknowledged - sent->sequence;
            break;
        }
        tcp_digest_delivered(stack, tcb, sent, ret_ack);
    }
    if (ret_ack->is_retransmit_acked) /* which may be what all of them waited for */
        ret_ack->has_once = false;
}

/* RFC 2883 section 4: the first block is below the acknowledgement, or within the second. */
static bool is_dsack(const struct tcp_options *options, uint32_t acknowledged)
{
    const struct tcp_sack_block *first = &options->sack[0], *second = &options->sack[1];

    if (!seq_lt(first->start, first->end))
        return false;
    if (seq_lt(first->start, acknowledged))
        return seq_le(first->end, acknowledged);
    return options->sack_count > 1 && seq_ge(first->start, second->start) &&
           seq_le(first->end, second->end);
}

static void digest_dsack(const struct tcb *tcb, struct tcp_sack_block block,
                         struct tcp_ack *ret_ack)
{
    uint32_t size = block.end - block.start;

    if (seq_gt(block.end, tcb->snd_nxt))
        return;
    ret_ack->has_dsack = true;
    ret_ack->dsack_count = size < tcb->mss ? 1u : (size + tcb->mss - 1) / tcb->mss;
    ret_ack->is_tlp_dsack =
        tcb->flags & TCB_TLP_IN_FLIGHT && block.end == tcb->rack.tlp_end_sequence;
}

/* The blocks that are news of something in flight, lowest first. */
static uint32_t blocks_choose(const struct tcb *tcb, const struct tcp_options *options,
                              uint32_t first, uint32_t acknowledged,
                              struct tcp_sack_block ret_blocks[TCP_SACK_BLOCKS_MAX])
{
    uint32_t floor = seq_gt(acknowledged, tcb->snd_una) ? acknowledged : tcb->snd_una, count = 0;

    for (uint32_t i = first; i < options->sack_count; i++) {
        struct tcp_sack_block block = options->sack[i];

        if (seq_lt(block.start, floor))
            block.start = floor;
        if (!seq_lt(block.start, block.end) || seq_gt(block.end, tcb->snd_nxt) ||
            !seq_lt(options->sack[i].start, options->sack[i].end)) {
            continue;
        }
        uint32_t place = count++;
        for (; place > 0 && seq_gt(ret_blocks[place - 1].start, block.start); place--)
            ret_blocks[place] = ret_blocks[place - 1];
        ret_blocks[place] = block;
    }
    return count;
}

static void digest_blocks(const struct stack *stack, struct tcb *tcb,
                          const struct tcp_options *options, struct tcp_ack *ret_ack)
{
    struct tcp_sack_block blocks[TCP_SACK_BLOCKS_MAX];
    uint32_t first = 0, budget = TCP_SACK_BUDGET;

    if (is_dsack(options, ret_ack->acknowledgement)) {
        digest_dsack(tcb, options->sack[0], ret_ack);
        first = 1;
    }
    uint32_t count = blocks_choose(tcb, options, first, ret_ack->acknowledgement, blocks);
    if (count == 0)
        return;
    uint32_t before = tcb->sacked;
    tcp_scoreboard(tcb);
    for (uint32_t i = 0; i < count; i++)
        tcp_scoreboard_sack(stack, tcb, blocks[i], &budget, ret_ack);
    ret_ack->has_sack = tcb->sacked != before;
}

/* The sample of last resort. */
static uint32_t timestamp_rtt(const struct stack *stack, const struct tcb *tcb,
                              const struct tcp_ack *ack)
{
    uint32_t age = tcp_timestamp_now(stack, tcb->ts_offset) - ack->timestamp_echo;

    /* Of a clock that was never ours: no sample. Ten minutes is more than any segment lives. */
    if (!ack->has_timestamp || age > 600000u)
        return 0;
    return age == 0 ? 1000u : age * 1000u;
}

void tcp_recovery_digest(struct stack *stack, struct tcb *tcb, const struct segment *segment,
                         struct tcp_ack *ret_ack)
{
    const struct tcp_options *options = &segment->header.options;
    uint32_t acknowledged = segment->header.acknowledgement;

    CHECK(seq_le(acknowledged, tcb->snd_nxt)); /* RFC 9293 3.10.7.4: else it was refused */
    *ret_ack = (struct tcp_ack){
        .acknowledgement = acknowledged,
        .timestamp_echo = options->timestamp_echo,
        .has_timestamp = options->has_timestamps && tcb->flags & TCB_HAS_TIMESTAMPS,
        .is_advance = seq_gt(acknowledged, tcb->snd_una),
        .is_ece = tcb->flags & TCB_HAS_ECN && segment->flags & TCP_ECE,
    };
    if (ret_ack->is_advance)
        digest_cumulative(stack, tcb, ret_ack);
    /* RFC 5681 section 2. */
    ret_ack->is_duplicate = acknowledged == tcb->snd_una && tcb->sent.count > 0 &&
                            segment->size == 0 && !(segment->flags & (TCP_SYN | TCP_FIN)) &&
                            segment->window == tcb->snd_wnd;
    if (options->sack_count > 0 && tcb->flags & TCB_HAS_SACK)
        digest_blocks(stack, tcb, options, ret_ack);
    if (ret_ack->is_anything_delivered && seq_gt(ret_ack->highest_end, tcb->rack.fack))
        tcb->rack.fack = ret_ack->highest_end;
    if (ret_ack->has_once)
        ret_ack->rtt_us = elapsed(stack, ret_ack->once_sent_at);
    else if (ret_ack->is_advance)
        ret_ack->rtt_us = timestamp_rtt(stack, tcb, ret_ack);
}
