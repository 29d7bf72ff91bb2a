/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handshakes of others: SYNs for listeners, and what completes or ends a half-open connection.
 *
 * A SYN is answered by a SYN-ACK with what both sides can do. Where that is kept is syn_cache.c's
 * matter; when it says that there is no room, the SYN-ACK itself carries it (syn_cookie.c). The
 * ACK that fits is accepted once: the prefix's limit is entered, tcp_accept_ready() makes the tcb,
 * and the ACK goes through the machine as the tcb's first segment, so that data, FIN or urgent
 * pointer that came with it are not lost.
 *
 * Rules
 *   1. An ACK must acknowledge exactly our SYN. For an entry its sequence number may be anywhere in
 *      the window (data overtook the bare ACK); for a cookie it must be the first, being part of
 * it.
 *   2. What does not fit is ignored, but for a wrong acknowledgement, which RFC 9293 answers with
 *      RST. Neither ends the entry: forgers do not close what they cannot see.
 *   3. A full backlog loses nothing: SYNs go unanswered, final ACKs are ignored while our SYN-ACKs
 *      ask for them again.
 *   4. A cookie is believed only in the two periods after one was given: without a flood nobody can
 *      open a connection blindly by guessing one.
 */
#include "dataplane/wire/tcp/syn_cache.h"

/* What the SYN offers and we take. */
static struct tcp_agreed agree(struct stack *stack, const struct tcp_listener *listener,
                               const struct segment *segment)
{
    const struct tcp_policy *policy = &stack->options.tcp;
    const struct tcp_options *options = &segment->header.options;
    uint16_t mss = segment->key.family == FLOW_FAMILY_IP6 ? 1220 : 536; /* RFC 9293 MUST-15 */
    const uint8_t ecn = TCP_ECE | TCP_CWR;

    if (options->has_mss)
        mss = options->mss;
    struct tcp_agreed agreed = {
        .irs = segment->header.sequence,
        .window_offered = syn_window_offered(stack, listener),
        .mss = mss > policy->mss_min ? mss : policy->mss_min,
        .has_window_scale = options->has_window_scale && policy->has_window_scale,
        .has_sack = options->has_sack_permitted && policy->has_sack,
        .has_timestamps = options->has_timestamps && policy->has_timestamps,
        .has_ecn = policy->has_ecn && (segment->header.flags & ecn) == ecn, /* RFC 3168 6.1.1 */
    };
    if (agreed.has_window_scale) {
        /* RFC 7323 2.3: more than 14 means 14. */
        agreed.snd_scale = options->window_scale > 14 ? 14 : options->window_scale;
        agreed.rcv_scale = tcp_window_scale_offer(policy);
    }
    if (agreed.has_timestamps) {
        agreed.ts_recent = options->timestamp_value;
        agreed.ts_offset = tcp_timestamp_offset(stack, &segment->key);
    }
    return agreed;
}

/* ---- SYN ---- */

static void cookie_send(struct stack *stack, const struct tcp_key *key, struct tcp_agreed *agreed)
{
    struct tcp_cookie_terms terms = {.snd_scale = agreed->has_window_scale ? agreed->snd_scale
                                                                           : TCP_SCALE_NONE,
                                     .has_sack = agreed->has_sack,
                                     .has_ecn = agreed->has_ecn};
    uint32_t timestamp = tcp_timestamp_now(stack, agreed->ts_offset);

    if (agreed->has_timestamps)
        timestamp = tcp_cookie_timestamp(timestamp, &terms);
    else /* nothing remembers these: do not agree on them */
        agreed->has_window_scale = agreed->has_sack = agreed->has_ecn = false;
    agreed->iss = tcp_cookie_make(stack, key, agreed->irs, agreed->mss);
    stack->tcp->syn_cache->cookies_until = stack->now + 2 * TCP_COOKIE_PERIOD;
    STACK_COUNT(stack, TCP_COOKIES_SENT);
    syn_ack_send(stack, key, agreed, timestamp);
}

/*
 * The same answer again, also when the SYN has another sequence number: the old one may be the
 * forged one. A client that did not send the SYN we know answers with RST, which removes the entry,
 * and its next SYN is the first again (RFC 9293 3.5, recovery from old duplicates).
 */
static void entry_repeat(struct stack *stack, struct syn_entry *entry,
                         const struct tcp_listener *listener, const struct segment *segment)
{
    const struct tcp_options *options = &segment->header.options;

    STACK_COUNT(stack, TCP_SYNS_REPEATED);
    entry->flags |= SYN_ENTRY_IS_REPEATED;
    if (segment->header.sequence == entry->irs) {
        if ((entry->flags & SYN_ENTRY_HAS_TIMESTAMPS) && options->has_timestamps &&
            seq_gt(options->timestamp_value, entry->ts_recent))
            entry->ts_recent = options->timestamp_value;
        /* RFC 3168 6.1.1.1: one SYN without it is enough. */
        if ((segment->header.flags & (TCP_ECE | TCP_CWR)) != (TCP_ECE | TCP_CWR))
            entry->flags &= (uint8_t)~SYN_ENTRY_HAS_ECN;
    }
    syn_entry_answer(stack, entry, listener);
}

void tcp_syn_input(struct stack *stack, struct tcp_listener *listener,
                   const struct segment *segment, uint32_t iss_min)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    const struct tcp_key *key = &segment->key;
    uint64_t hash = tcp_key_hash(stack, key);
    uint32_t at = syn_entry_find(cache, key, hash);

    STACK_COUNT(stack, TCP_SYNS);
    if (segment->header.flags & TCP_FIN) {
        STACK_COUNT(stack, TCP_SYNS_ODD);
        return;
    }
    if (at != SYN_NONE) {
        entry_repeat(stack, &cache->entries[at], listener, segment);
        return;
    }
    if (listener->ready_count >= listener->backlog) {
        STACK_COUNT(stack, TCP_ACCEPT_FULL);
        return;
    }
    struct tcp_agreed agreed = agree(stack, listener, segment);
    at = syn_entry_place(cache, hash);
    if (at == SYN_NONE) {
        /* A cookie cannot respect iss_min; timestamps keep the segments of the two connections
         * apart then, as in RFC 6191. */
        cookie_send(stack, key, &agreed);
        return;
    }
    agreed.iss = tcp_isn(stack, key);
    if (iss_min != 0 && seq_lt(agreed.iss, iss_min))
        agreed.iss = iss_min;
    syn_entry_add(stack, at, hash, key, &agreed);
    syn_ack_send(stack, key, &agreed, tcp_timestamp_now(stack, agreed.ts_offset));
}

/* ---- the final ACK ---- */

static void complete(struct stack *stack, struct tcp_listener *listener, struct segment *segment,
                     struct tcp_agreed *agreed)
{
    const struct tcp_key *key = &segment->key;

    if (!tcp_limit_enter(stack, key->family, key->remote)) {
        STACK_COUNT(stack, TCP_PREFIX_LIMIT);
        tcp_send_reset_for(stack, segment);
        return;
    }
    agreed->window = (uint32_t)segment->header.window << agreed->snd_scale;
    struct tcb *tcb = tcp_accept_ready(stack, listener, key, agreed);
    if (tcb == NULL) {
        tcp_limit_leave(stack, key->family, key->remote);
        return;
    }
    STACK_COUNT(stack, TCP_HANDSHAKES);
    segment->window = agreed->window;
    tcp_input_segment(stack, tcb, segment);
}

/* RFC 9293 3.10.7.4 first check, and PAWS (RFC 7323 5.3): is it from this connection at all? */
static bool entry_accepts(const struct syn_entry *entry, const struct tcp_agreed *agreed,
                          const struct segment *segment)
{
    const struct tcp_options *options = &segment->header.options;
    uint32_t offset = segment->header.sequence - (entry->irs + 1);

    if (offset != 0 && offset >= agreed->window_offered)
        return false;
    if (!agreed->has_timestamps)
        return true;
    /* RFC 7323 3.2: once agreed, every segment has them. */
    return options->has_timestamps && seq_ge(options->timestamp_value, entry->ts_recent);
}

/* RST, SYN-ACK, or anything else for the entry at `at`. */
static void entry_input(struct stack *stack, uint32_t at, struct tcp_listener *listener,
                        struct segment *segment)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    struct syn_entry *entry = &cache->entries[at];
    struct tcp_agreed agreed = syn_entry_agreed(stack, entry, &segment->key, listener);
    const struct tcp_header *header = &segment->header;

    if (header->flags & TCP_RST) {
        /* RFC 5961 3.2: only at RCV.NXT. */
        if (header->sequence == entry->irs + 1) {
            STACK_COUNT(stack, TCP_HALF_OPEN_RESET);
            syn_entry_remove(cache, at);
        } else {
            STACK_COUNT(stack, TCP_HALF_OPEN_IGNORED);
        }
    } else if ((header->flags & TCP_SYN) || !(header->flags & TCP_ACK) ||
               !entry_accepts(entry, &agreed, segment)) {
        STACK_COUNT(stack, TCP_HALF_OPEN_IGNORED);
    } else if (header->acknowledgement != entry->iss + 1) {
        /* RFC 9293 3.10.7.4, fifth check in SYN-RECEIVED: a RST; the entry stays. */
        STACK_COUNT(stack, TCP_HALF_OPEN_IGNORED);
        tcp_send_reset_for(stack, segment);
    } else if (listener->ready_count >= listener->backlog) {
        STACK_COUNT(stack, TCP_ACCEPT_FULL); /* our next SYN-ACK asks for the ACK again */
    } else {
        syn_entry_remove(cache, at);
        complete(stack, listener, segment, &agreed);
    }
}

/* The terms of a cookie's connection; false: no cookie of ours. */
static bool cookie_agreed(struct stack *stack, const struct tcp_listener *listener,
                          const struct segment *segment, struct tcp_agreed *ret_agreed)
{
    const struct tcp_policy *policy = &stack->options.tcp;
    const struct tcp_options *options = &segment->header.options;
    struct tcp_cookie_terms terms = {.snd_scale = TCP_SCALE_NONE};
    struct tcp_agreed agreed = {
        .iss = segment->header.acknowledgement - 1,
        .irs = segment->header.sequence - 1,
        .window_offered = syn_window_offered(stack, listener),
        .has_timestamps = options->has_timestamps && policy->has_timestamps,
    };

    if (!tcp_cookie_check(stack, &segment->key, agreed.irs, agreed.iss, &terms.mss))
        return false;
    if (agreed.has_timestamps) {
        agreed.ts_recent = options->timestamp_value;
        agreed.ts_offset = tcp_timestamp_offset(stack, &segment->key);
        if (!tcp_cookie_timestamp_read(tcp_timestamp_now(stack, agreed.ts_offset),
                                       options->timestamp_echo, &terms))
            return false;
    }
    agreed.mss = terms.mss > policy->mss_min ? terms.mss : policy->mss_min;
    agreed.has_sack = terms.has_sack;
    agreed.has_ecn = terms.has_ecn;
    agreed.has_window_scale = terms.snd_scale != TCP_SCALE_NONE;
    if (agreed.has_window_scale) {
        agreed.snd_scale = terms.snd_scale;
        agreed.rcv_scale = tcp_window_scale_offer(policy);
    }
    *ret_agreed = agreed;
    return true;
}

bool tcp_syn_complete(struct stack *stack, struct tcp_listener *listener, struct segment *segment)
{
    const struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    uint32_t at = syn_entry_find(cache, &segment->key, tcp_key_hash(stack, &segment->key));
    struct tcp_agreed agreed;

    if (at != SYN_NONE) {
        entry_input(stack, at, listener, segment);
        return true;
    }
    if ((segment->header.flags & (TCP_ACK | TCP_SYN | TCP_RST)) != TCP_ACK ||
        stack->now >= cache->cookies_until)
        return false;
    if (!cookie_agreed(stack, listener, segment, &agreed)) {
        STACK_COUNT(stack, TCP_COOKIES_REJECTED);
        return false;
    }
    if (listener->ready_count >= listener->backlog) {
        STACK_COUNT(stack, TCP_ACCEPT_FULL);
        return true;
    }
    STACK_COUNT(stack, TCP_COOKIES_ACCEPTED);
    complete(stack, listener, segment, &agreed);
    return true;
}
