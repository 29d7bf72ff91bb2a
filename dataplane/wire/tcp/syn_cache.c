/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Half-open inbound connections (RFC 4987): what a SYN agreed on waits here, in one cache line, for
 * the final ACK. No tcb exists before that ACK, no memory is taken, and whoever sends SYNs from
 * forged addresses gets nothing but these entries.
 *
 * An array of sets of eight entries; SipHash-1-3 of the tuple chooses the set, and its top 16 bits
 * are the tag by which an entry is recognised without being read (0: free). When the set of a SYN
 * is full, or the whole cache to three quarters, the answer is a cookie (syn_cookie.c) and no
 * entry; it is not sent again. No entry is ever evicted: those who came first keep what they have.
 *
 * Life of an entry                                  Edge done by
 *   (none) -> level 0      SYN                      tcp_syn_input()
 *   level i -> level i+1   time: SYN-ACK again      tcp_syn_cache_advance()
 *   last level -> (none)   time: given up           tcp_syn_cache_advance()
 *   any -> (none)          the exact final ACK      tcp_syn_complete(): a tcb takes over
 *   any -> (none)          RST at RCV.NXT, ICMP     tcp_syn_complete(), tcp_syn_on_icmp_error()
 *   any -> (none)          the listener closed      tcp_listener_closed()
 * A repeated SYN is answered again at once and changes no time, so nobody prolongs an entry.
 *
 * Level i waits for syn_ack_time doubled i times. That is constant, so each level is a list with
 * the oldest in front and needs no timer per entry.
 *
 * Invariants
 *   1. A tag is not zero if and only if its entry is on the list of its level.
 *   2. `count` is the number of those; each list is in order of sent_at.
 *
 * Limits: syn_cache_max entries, rounded up to whole sets (0: cookies only). SYN_LEVELS.
 * ADVANCE_MAX entries per call of tcp_syn_cache_advance().
 *
 * Not here: what segments do to entries (syn_input.c).
 */
#include <stdlib.h>
#include <string.h>

#include "dataplane/wire/tcp/syn_cache.h"

#define ADVANCE_MAX                 1024u
#define DELAY_MAX                   TICK_S(60)
#define TAG_SHIFT                   48
#define RECEIVE_WINDOW_UNSCALED_MAX 65535u

/* ---- what a SYN-ACK says ---- */

uint8_t tcp_window_scale_offer(const struct tcp_policy *policy)
{
    uint8_t scale = 0;

    CHECK(policy->window_scale_max <= 14); /* RFC 7323 2.3 */
    while (scale < policy->window_scale_max &&
           policy->receive_window_max >> scale > RECEIVE_WINDOW_UNSCALED_MAX)
        scale++;
    return scale;
}

uint16_t tcp_mss_offer(struct stack *stack, const struct tcp_key *key)
{
    const struct stack_local *local = stack_local_find(stack, key->family, key->local);
    uint32_t headers =
        (key->family == FLOW_FAMILY_IP6 ? IP6_HEADER_SIZE : IP4_HEADER_SIZE) + TCP_HEADER_SIZE;

    if (local == NULL)
        return key->family == FLOW_FAMILY_IP6 ? 1220 : 536; /* RFC 9293 MUST-15 */
    CHECK(stack->ports[local->port].mtu > headers);
    return (uint16_t)(stack->ports[local->port].mtu - headers);
}

uint16_t syn_window_offered(const struct stack *stack, const struct tcp_listener *listener)
{
    return (uint16_t)tcp_window_start(stack, listener->receive_limit);
}

void syn_ack_send(struct stack *stack, const struct tcp_key *key, const struct tcp_agreed *agreed,
                  uint32_t timestamp)
{
    struct tcp_header header = {
        .source_port = key->local_port,
        .destination_port = key->remote_port,
        .sequence = agreed->iss,
        .acknowledgement = agreed->irs + 1,
        .window = agreed->window_offered,
        .flags = (uint8_t)(TCP_SYN | TCP_ACK | (agreed->has_ecn ? TCP_ECE : 0)),
        .options =
            {
                .has_mss = true,
                .mss = tcp_mss_offer(stack, key),
                .has_window_scale = agreed->has_window_scale,
                .window_scale = agreed->rcv_scale,
                .has_sack_permitted = agreed->has_sack,
                .has_timestamps = agreed->has_timestamps,
                .timestamp_value = timestamp,
                .timestamp_echo = agreed->ts_recent,
            },
    };
    tcp_send_plain(stack, key, &header);
}

/* ---- entries ---- */

/* The first of the eight places for this hash. */
static uint32_t set_first(const struct tcp_syn_cache *cache, uint64_t hash)
{
    return (uint32_t)(((hash & UINT32_MAX) * cache->set_count) >> 32) * SYN_WAYS;
}

static uint16_t tag_of(uint64_t hash)
{
    uint16_t tag = (uint16_t)(hash >> TAG_SHIFT);

    return tag != 0 ? tag : 1;
}

static struct tcp_key entry_key(const struct syn_entry *entry)
{
    struct tcp_key key = {.local_port = entry->local_port,
                          .remote_port = entry->remote_port,
                          .family =
                              entry->flags & SYN_ENTRY_IS_IP6 ? FLOW_FAMILY_IP6 : FLOW_FAMILY_IP4};

    memcpy(key.local, entry->local, sizeof(key.local));
    memcpy(key.remote, entry->remote, sizeof(key.remote));
    return key;
}

uint32_t syn_entry_find(const struct tcp_syn_cache *cache, const struct tcp_key *key, uint64_t hash)
{
    uint16_t tag = tag_of(hash);

    if (cache->count == 0)
        return SYN_NONE;
    for (uint32_t at = set_first(cache, hash), end = at + SYN_WAYS; at < end; at++) {
        if (cache->tags[at] != tag)
            continue;
        struct tcp_key candidate = entry_key(&cache->entries[at]);
        if (tcp_key_is_equal(&candidate, key))
            return at;
    }
    return SYN_NONE;
}

uint32_t syn_entry_place(const struct tcp_syn_cache *cache, uint64_t hash)
{
    if (cache->count >= cache->count_pressure)
        return SYN_NONE;
    for (uint32_t at = set_first(cache, hash), end = at + SYN_WAYS; at < end; at++) {
        if (cache->tags[at] == 0)
            return at;
    }
    return SYN_NONE;
}

static uint32_t entry_level(const struct syn_entry *entry)
{
    return entry->flags >> SYN_ENTRY_LEVEL_SHIFT;
}

/* To the end of the list of `level`, from now on. */
static void entry_link(struct stack *stack, uint32_t at, uint32_t level)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    struct syn_entry *entry = &cache->entries[at];
    struct syn_list *list = &cache->levels[level];

    entry->flags = (uint8_t)((entry->flags & ((1u << SYN_ENTRY_LEVEL_SHIFT) - 1)) |
                             level << SYN_ENTRY_LEVEL_SHIFT);
    entry->sent_at = (uint32_t)stack->now;
    entry->next = SYN_NONE;
    entry->previous = list->last;
    if (list->last != SYN_NONE)
        cache->entries[list->last].next = at;
    else
        list->first = at;
    list->last = at;
}

static void entry_unlink(struct tcp_syn_cache *cache, uint32_t at)
{
    const struct syn_entry *entry = &cache->entries[at];
    struct syn_list *list = &cache->levels[entry_level(entry)];

    if (entry->previous != SYN_NONE)
        cache->entries[entry->previous].next = entry->next;
    else
        list->first = entry->next;
    if (entry->next != SYN_NONE)
        cache->entries[entry->next].previous = entry->previous;
    else
        list->last = entry->previous;
}

void syn_entry_remove(struct tcp_syn_cache *cache, uint32_t at)
{
    entry_unlink(cache, at);
    cache->tags[at] = 0;
    cache->count--;
}

static tick_us level_delay(const struct stack *stack, uint32_t level)
{
    tick_us delay = stack->options.tcp.syn_ack_time << level;

    return delay < DELAY_MAX ? delay : DELAY_MAX;
}

static uint32_t level_last(const struct stack *stack)
{
    uint32_t retries = stack->options.tcp.syn_ack_retries;

    return retries < SYN_LEVELS ? retries : SYN_LEVELS - 1;
}

void syn_entry_add(struct stack *stack, uint32_t at, uint64_t hash, const struct tcp_key *key,
                   const struct tcp_agreed *agreed)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    struct syn_entry *entry = &cache->entries[at];
    uint32_t snd_scale = agreed->has_window_scale ? agreed->snd_scale : TCP_SCALE_NONE;

    CHECK(cache->tags[at] == 0);
    *entry = (struct syn_entry){
        .local_port = key->local_port,
        .remote_port = key->remote_port,
        .irs = agreed->irs,
        .iss = agreed->iss,
        .ts_recent = agreed->ts_recent,
        .mss = agreed->mss,
        .scales = (uint8_t)(snd_scale | (uint32_t)agreed->rcv_scale << 4),
        .flags = (uint8_t)((key->family == FLOW_FAMILY_IP6 ? SYN_ENTRY_IS_IP6 : 0) |
                           (agreed->has_sack ? SYN_ENTRY_HAS_SACK : 0) |
                           (agreed->has_timestamps ? SYN_ENTRY_HAS_TIMESTAMPS : 0) |
                           (agreed->has_ecn ? SYN_ENTRY_HAS_ECN : 0)),
    };
    memcpy(entry->local, key->local, sizeof(entry->local));
    memcpy(entry->remote, key->remote, sizeof(entry->remote));
    cache->tags[at] = tag_of(hash);
    cache->count++;
    entry_link(stack, at, 0);
    tcp_list_timer_set(stack, stack->now + level_delay(stack, 0));
}

struct tcp_agreed syn_entry_agreed(struct stack *stack, const struct syn_entry *entry,
                                   const struct tcp_key *key, const struct tcp_listener *listener)
{
    bool is_sent_once = entry_level(entry) == 0 && !(entry->flags & SYN_ENTRY_IS_REPEATED);
    struct tcp_agreed agreed = {
        .iss = entry->iss,
        .irs = entry->irs,
        .window_offered = syn_window_offered(stack, listener),
        .mss = entry->mss,
        .has_window_scale = (entry->scales & 0xf) != TCP_SCALE_NONE,
        .has_sack = (entry->flags & SYN_ENTRY_HAS_SACK) != 0,
        .has_timestamps = (entry->flags & SYN_ENTRY_HAS_TIMESTAMPS) != 0,
        .has_ecn = (entry->flags & SYN_ENTRY_HAS_ECN) != 0,
        .ts_recent = entry->ts_recent,
        .syn_ack_at = is_sent_once ? stack->now - ((uint32_t)stack->now - entry->sent_at) : 0,
    };
    if (agreed.has_window_scale) {
        agreed.snd_scale = entry->scales & 0xf;
        agreed.rcv_scale = entry->scales >> 4;
    }
    if (agreed.has_timestamps)
        agreed.ts_offset = tcp_timestamp_offset(stack, key);
    return agreed;
}

void syn_entry_answer(struct stack *stack, const struct syn_entry *entry,
                      const struct tcp_listener *listener)
{
    struct tcp_key key = entry_key(entry);
    struct tcp_agreed agreed = syn_entry_agreed(stack, entry, &key, listener);

    syn_ack_send(stack, &key, &agreed, tcp_timestamp_now(stack, agreed.ts_offset));
}

/* ---- the cache ---- */

struct tcp_syn_cache *tcp_syn_cache_new(struct stack *stack)
{
    struct tcp_syn_cache *cache = calloc(1, sizeof(*cache));
    uint32_t set_count = (stack->options.syn_cache_max + SYN_WAYS - 1) / SYN_WAYS;

    CHECK(cache != NULL);
    CHECK(stack->options.syn_cache_max < SYN_NONE - SYN_WAYS);
    cache->set_count = set_count;
    cache->count_pressure = set_count * SYN_WAYS / 4 * 3;
    if (set_count > 0) {
        size_t count = (size_t)set_count * SYN_WAYS;
        cache->entries = aligned_alloc(sizeof(struct syn_entry), count * sizeof(struct syn_entry));
        cache->tags = calloc(count, sizeof(*cache->tags));
        CHECK(cache->entries != NULL && cache->tags != NULL);
    }
    for (uint32_t level = 0; level < SYN_LEVELS; level++)
        cache->levels[level] = (struct syn_list){SYN_NONE, SYN_NONE};
    return cache;
}

void tcp_syn_cache_free(struct tcp_syn_cache *cache)
{
    free(cache->entries);
    free(cache->tags);
    free(cache);
}

uint32_t tcp_syn_cache_count(const struct stack *stack)
{
    return stack->tcp->syn_cache->count;
}

uint64_t tcp_syn_cache_memory(const struct stack *stack)
{
    const struct tcp_syn_cache *cache = stack->tcp->syn_cache;

    return sizeof(*cache) +
           (uint64_t)cache->set_count * SYN_WAYS * (sizeof(*cache->entries) + sizeof(*cache->tags));
}

void tcp_syn_cache_verify(struct stack *stack)
{
    const struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    uint32_t used = 0, linked = 0;

    for (uint32_t at = 0; at < cache->set_count * SYN_WAYS; at++) {
        if (cache->tags[at] == 0)
            continue;
        struct tcp_key key = entry_key(&cache->entries[at]);
        CHECK(syn_entry_find(cache, &key, tcp_key_hash(stack, &key)) == at);
        used++;
    }
    for (uint32_t level = 0; level < SYN_LEVELS; level++) {
        uint32_t previous = SYN_NONE;
        for (uint32_t at = cache->levels[level].first; at != SYN_NONE;
             at = cache->entries[at].next) {
            const struct syn_entry *entry = &cache->entries[at];
            CHECK(cache->tags[at] != 0 && entry_level(entry) == level);
            CHECK(entry->previous == previous && linked < used);
            CHECK(previous == SYN_NONE || seq_le(cache->entries[previous].sent_at, entry->sent_at));
            previous = at;
            linked++;
        }
        CHECK(cache->levels[level].last == previous);
    }
    CHECK(used == linked && used == cache->count);
}

/* ---- other ends ---- */

void tcp_syn_on_icmp_error(struct stack *stack, const struct tcp_key *key, uint32_t sequence)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    uint32_t at = syn_entry_find(cache, key, tcp_key_hash(stack, key));

    if (at == SYN_NONE)
        return;
    if (sequence != cache->entries[at].iss) { /* RFC 5927 4.1: nothing else is in flight */
        STACK_COUNT(stack, TCP_HALF_OPEN_IGNORED);
        return;
    }
    STACK_COUNT(stack, TCP_HALF_OPEN_UNREACHABLE);
    syn_entry_remove(cache, at);
}

void tcp_listener_closed(struct stack *stack, const struct tcp_listener *listener)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;

    for (uint32_t at = 0; at < cache->set_count * SYN_WAYS; at++) {
        if (cache->tags[at] == 0)
            continue;
        struct tcp_key key = entry_key(&cache->entries[at]);
        if (tcp_listener_find(stack, key.family, key.local, key.local_port) == listener)
            syn_entry_remove(cache, at);
    }
}

/* The wait of the entry at `at` is over. */
static void entry_on_time(struct stack *stack, uint32_t at)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    struct syn_entry *entry = &cache->entries[at];
    uint32_t level = entry_level(entry);
    const struct tcp_listener *listener = tcp_listener_find(
        stack, entry->flags & SYN_ENTRY_IS_IP6 ? FLOW_FAMILY_IP6 : FLOW_FAMILY_IP4, entry->local,
        entry->local_port);

    if (listener == NULL || level >= level_last(stack)) {
        STACK_COUNT(stack, TCP_HALF_OPEN_EXPIRED);
        syn_entry_remove(cache, at);
        return;
    }
    entry_unlink(cache, at);
    entry_link(stack, at, level + 1);
    STACK_COUNT(stack, TCP_SYN_ACKS_REPEATED);
    syn_entry_answer(stack, entry, listener);
}

tick_us tcp_syn_cache_advance(struct stack *stack, tick_us now)
{
    struct tcp_syn_cache *cache = stack->tcp->syn_cache;
    tick_us deadline = TICK_NEVER;
    uint32_t done = 0;

    for (uint32_t level = 0; level < SYN_LEVELS; level++) {
        uint32_t at;
        while ((at = cache->levels[level].first) != SYN_NONE) {
            tick_us waited = (uint32_t)now - cache->entries[at].sent_at;
            tick_us delay = level_delay(stack, level);
            if (waited < delay || done >= ADVANCE_MAX) {
                tick_us due = waited < delay ? now + delay - waited : now;
                deadline = due < deadline ? due : deadline;
                break;
            }
            entry_on_time(stack, at);
            done++;
        }
    }
    return deadline;
}
