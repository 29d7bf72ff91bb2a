/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a segment's addresses and ports to what it belongs to: a tcb or a TIME_WAIT record.
 *
 * An open-addressing table of buckets of one cache line: eight tags of 16 bits, eight indices of
 * 32, and how many entries passed by. A look-up reads the bucket, compares all tags at once, and
 * touches only entries whose tag agrees (a stranger's does once in 65,536), so it costs the
 * bucket's line and the entry's. The keys themselves are in the entries.
 *
 * Strangers choose the tuples, so the hash is SipHash-1-3 under the stack's secret: tuples cannot
 * be chosen to share buckets (HAZARDS TC-17). Low bits of the hash say the home bucket, the top 16
 * are the tag, and the tag also says the step to the next bucket: an odd number, so that a walk
 * comes to every bucket of a power of two.
 *
 * An entry lies in the first bucket of its walk that had room. Each full bucket it passed counts it
 * in `overflow`; a search ends at a bucket that nobody passed. Removing an entry walks the same way
 * and counts down. So nothing is left of a removed entry, however long the table lives.
 *
 * Invariants
 *   1. A key is in the table at most once.
 *   2. bucket.overflow is the number of entries that lie further along a walk through this bucket.
 *   3. count <= count_max, and there is room for a third more: adding finds room.
 *
 * Listeners are few: they stand in an array, searched from the front, the port compared first.
 *
 * Limits: count_max = flow_count_max + time_wait_max; TCP_LISTENER_MAX listeners.
 */
#include <stdlib.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "base/pages.h"
#include "dataplane/wire/tcp/tcp.h"

#define WAYS      8u
#define FILL_MAX  6u         /* entries per bucket on average when the table is full */
#define TIME_WAIT (1u << 31) /* in an index: it is a record's, not a slot's */
#define TAG_SHIFT 48
#define LINE_SIZE 64u

struct bucket {
    uint16_t tags[WAYS]; /* 0: free */
    uint32_t indices[WAYS];
    uint32_t overflow, reserved[3];
};
_Static_assert(sizeof(struct bucket) == LINE_SIZE, "one line");

struct listener_row {
    struct flow_address address;
    struct tcp_listener *listener;
};

struct tcp_table {
    struct bucket *buckets;
    uint32_t mask, count, count_max;
    uint32_t listener_count;
    struct listener_row listeners[TCP_LISTENER_MAX];
};

/* Where a walk is. */
struct walk {
    uint32_t at, step;
    uint16_t tag;
};

static const uint8_t any_address[16];

/* ---- keys ---- */

/* IPv4 hashes twelve octets and not forty: half the time. SipHash takes the length in, so the two
 * families do not meet. */
uint64_t tcp_key_hash(const struct stack *stack, const struct tcp_key *key)
{
    uint8_t octets[12];

    if (key->family != FLOW_FAMILY_IP4)
        return siphash13(&stack->hash_key, key, sizeof(*key));
    memcpy(octets, key->local, 4);
    memcpy(octets + 4, key->remote, 4);
    memcpy(octets + 8, &key->local_port, 2);
    memcpy(octets + 10, &key->remote_port, 2);
    return siphash13(&stack->hash_key, octets, sizeof(octets));
}

static uint32_t index_of(struct tcp_found what)
{
    CHECK(what.kind != TCP_FOUND_NONE && what.index < TIME_WAIT);
    return what.kind == TCP_FOUND_TIME_WAIT ? what.index | TIME_WAIT : what.index;
}

static struct tcp_found found_of(uint32_t index)
{
    return (struct tcp_found){index & TIME_WAIT ? TCP_FOUND_TIME_WAIT : TCP_FOUND_TCB,
                              index & ~TIME_WAIT};
}

static const struct tcp_key *entry_key(struct stack *stack, uint32_t index)
{
    if (index & TIME_WAIT)
        return &tcp_time_wait_at(stack, index & ~TIME_WAIT)->key;
    struct flow_slot *slot = flow_core_slot_at(&stack->core, index);
    CHECK(slot != NULL);
    return &tcb_of(slot)->key;
}

/* ---- walking ---- */

static struct walk walk_of(const struct tcp_table *table, uint64_t hash)
{
    uint16_t tag = (uint16_t)(hash >> TAG_SHIFT);

    if (tag == 0)
        tag = 1;
    return (struct walk){(uint32_t)hash & table->mask, tag * 2u + 1, tag};
}

static void walk_on(const struct tcp_table *table, struct walk *walk)
{
    walk->at = (walk->at + walk->step) & table->mask;
}

/* Bit i: tag i of the bucket is `tag`. */
static uint32_t bucket_match(const struct bucket *bucket, uint16_t tag)
{
#ifdef __SSE2__
    __m128i tags = _mm_loadu_si128((const __m128i *)(const void *)bucket->tags);
    __m128i equal = _mm_cmpeq_epi16(tags, _mm_set1_epi16((short)tag));

    return (uint32_t)_mm_movemask_epi8(_mm_packs_epi16(equal, _mm_setzero_si128()));
#else
    uint32_t matches = 0;

    for (uint32_t way = 0; way < WAYS; way++)
        matches |= (uint32_t)(bucket->tags[way] == tag) << way;
    return matches;
#endif
}

/* The way of `index` in this bucket, or WAYS. */
static uint32_t bucket_way(const struct bucket *bucket, uint16_t tag, uint32_t index)
{
    for (uint32_t matches = bucket_match(bucket, tag); matches != 0; matches &= matches - 1) {
        uint32_t way = (uint32_t)__builtin_ctz(matches);
        if (bucket->indices[way] == index)
            return way;
    }
    return WAYS;
}

/* Where `index` lies on its walk; NULL: nowhere. */
static struct bucket *entry_bucket(const struct tcp_table *table, struct walk walk, uint32_t index,
                                   uint32_t *ret_way)
{
    for (uint32_t i = 0; i <= table->mask; i++, walk_on(table, &walk)) {
        struct bucket *bucket = &table->buckets[walk.at];
        uint32_t way = bucket_way(bucket, walk.tag, index);
        if (way < WAYS) {
            *ret_way = way;
            return bucket;
        }
        if (bucket->overflow == 0)
            return NULL;
    }
    return NULL;
}

/* ---- the table ---- */

struct tcp_table *tcp_table_new(struct stack *stack)
{
    uint64_t count_max = (uint64_t)stack->options.flow_count_max + stack->options.time_wait_max;
    struct tcp_table *table = calloc(1, sizeof(*table));
    uint64_t bucket_count = 1;

    CHECK(table != NULL);
    CHECK(stack->options.flow_count_max < TIME_WAIT && stack->options.time_wait_max < TIME_WAIT);
    while (bucket_count * FILL_MAX < count_max)
        bucket_count *= 2;
    CHECK(bucket_count <= UINT32_MAX / 2);
    table->mask = (uint32_t)bucket_count - 1;
    table->count_max = (uint32_t)count_max;
    table->buckets = pages_new(bucket_count * sizeof(struct bucket));
    CHECK(table->buckets != NULL);
    /* Touched now, not one page after the other in the middle of traffic. */
    memset(table->buckets, 0, bucket_count * sizeof(struct bucket));
    return table;
}

void tcp_table_free(struct tcp_table *table)
{
    pages_free(table->buckets, ((size_t)table->mask + 1) * sizeof(struct bucket));
    free(table);
}

uint64_t tcp_table_memory(const struct stack *stack)
{
    const struct tcp_table *table = stack->tcp->table;

    return sizeof(*table) + ((uint64_t)table->mask + 1) * sizeof(struct bucket);
}

uint64_t tcp_table_prefetch(struct stack *stack, const struct tcp_key *key)
{
    const struct tcp_table *table = stack->tcp->table;
    uint64_t hash = tcp_key_hash(stack, key);

    __builtin_prefetch(&table->buckets[walk_of(table, hash).at]);
    return hash;
}

struct tcb *tcp_table_prefetch_found(struct stack *stack, uint64_t hash)
{
    const struct tcp_table *table = stack->tcp->table;
    struct walk walk = walk_of(table, hash);
    const struct bucket *bucket = &table->buckets[walk.at];
    uint32_t matches = bucket_match(bucket, walk.tag);

    if (matches == 0)
        return NULL;
    uint32_t index = bucket->indices[__builtin_ctz(matches)];
    if (index & TIME_WAIT) {
        __builtin_prefetch(tcp_time_wait_at(stack, index & ~TIME_WAIT));
        return NULL;
    }
    struct tcb *tcb = tcb_of(flow_core_slot_at(&stack->core, index));
    for (uint32_t at = 0; at < sizeof(*tcb); at += LINE_SIZE)
        __builtin_prefetch((const char *)tcb + at);
    return tcb;
}

struct tcp_found tcp_table_find_hashed(struct stack *stack, const struct tcp_key *key,
                                       uint64_t hash)
{
    const struct tcp_table *table = stack->tcp->table;
    struct walk walk = walk_of(table, hash);

    for (uint32_t i = 0; i <= table->mask; i++, walk_on(table, &walk)) {
        const struct bucket *bucket = &table->buckets[walk.at];
        uint32_t matches = bucket_match(bucket, walk.tag);
        for (; matches != 0; matches &= matches - 1) {
            uint32_t index = bucket->indices[__builtin_ctz(matches)];
            if (tcp_key_is_equal(entry_key(stack, index), key))
                return found_of(index);
        }
        if (bucket->overflow == 0)
            break;
    }
    return (struct tcp_found){TCP_FOUND_NONE, 0};
}

struct tcp_found tcp_table_find(struct stack *stack, const struct tcp_key *key)
{
    return tcp_table_find_hashed(stack, key, tcp_key_hash(stack, key));
}

enum err tcp_table_add(struct stack *stack, const struct tcp_key *key, struct tcp_found what)
{
    struct tcp_table *table = stack->tcp->table;
    uint32_t index = index_of(what);
    uint64_t hash = tcp_key_hash(stack, key);
    struct walk walk = walk_of(table, hash);

    CHECK(tcp_key_is_equal(entry_key(stack, index), key));
    CHECK(tcp_table_find_hashed(stack, key, hash).kind == TCP_FOUND_NONE);
    if (table->count >= table->count_max)
        return ERR_LIMIT;
    for (uint32_t i = 0; i <= table->mask; i++, walk_on(table, &walk)) {
        struct bucket *bucket = &table->buckets[walk.at];
        uint32_t free_ways = bucket_match(bucket, 0);
        if (free_ways != 0) {
            uint32_t way = (uint32_t)__builtin_ctz(free_ways);
            bucket->tags[way] = walk.tag;
            bucket->indices[way] = index;
            table->count++;
            return ERR_OK;
        }
        bucket->overflow++;
    }
    CHECK(!"a table below its limit has room");
    return ERR_LIMIT;
}

void tcp_table_remove(struct stack *stack, const struct tcp_key *key, struct tcp_found what)
{
    struct tcp_table *table = stack->tcp->table;
    struct walk walk = walk_of(table, tcp_key_hash(stack, key));
    uint32_t way;
    struct bucket *bucket = entry_bucket(table, walk, index_of(what), &way);

    if (bucket == NULL)
        return;
    for (; &table->buckets[walk.at] != bucket; walk_on(table, &walk)) {
        CHECK(table->buckets[walk.at].overflow > 0);
        table->buckets[walk.at].overflow--;
    }
    bucket->tags[way] = 0;
    bucket->indices[way] = 0;
    table->count--;
}

void tcp_table_replace(struct stack *stack, const struct tcp_key *key, struct tcp_found from,
                       struct tcp_found to)
{
    struct tcp_table *table = stack->tcp->table;
    uint32_t index = index_of(to), way;
    struct bucket *bucket =
        entry_bucket(table, walk_of(table, tcp_key_hash(stack, key)), index_of(from), &way);

    CHECK(bucket != NULL);
    CHECK(tcp_key_is_equal(entry_key(stack, index), key));
    bucket->indices[way] = index;
}

/* Every entry is found where it lies, and each passed its full buckets. */
void tcp_table_verify(struct stack *stack)
{
    struct tcp_table *table = stack->tcp->table;
    uint32_t *passed = calloc((size_t)table->mask + 1, sizeof(*passed));
    uint32_t count = 0;

    CHECK(passed != NULL);
    for (uint32_t at = 0; at <= table->mask; at++) {
        for (uint32_t way = 0; way < WAYS; way++) {
            if (table->buckets[at].tags[way] == 0)
                continue;
            uint32_t index = table->buckets[at].indices[way];
            const struct tcp_key *key = entry_key(stack, index);
            CHECK(index_of(tcp_table_find(stack, key)) == index);
            struct walk walk = walk_of(table, tcp_key_hash(stack, key));
            for (; walk.at != at; walk_on(table, &walk))
                passed[walk.at]++;
            count++;
        }
    }
    for (uint32_t at = 0; at <= table->mask; at++)
        CHECK(passed[at] == table->buckets[at].overflow);
    CHECK(count == table->count && count <= table->count_max);
    free(passed);
}

/* ---- listeners ---- */

enum err tcp_listener_add(struct stack *stack, struct tcp_listener *listener)
{
    struct tcp_table *table = stack->tcp->table;

    for (uint32_t i = 0; i < table->listener_count; i++) {
        if (flow_address_is_equal(&table->listeners[i].address, &listener->address))
            return ERR_SYSTEM;
    }
    if (table->listener_count == TCP_LISTENER_MAX)
        return ERR_LIMIT;
    table->listeners[table->listener_count++] = (struct listener_row){listener->address, listener};
    return ERR_OK;
}

void tcp_listener_remove(struct stack *stack, struct tcp_listener *listener)
{
    struct tcp_table *table = stack->tcp->table;

    for (uint32_t i = 0; i < table->listener_count; i++) {
        if (table->listeners[i].listener != listener)
            continue;
        table->listeners[i] = table->listeners[--table->listener_count];
        return;
    }
    CHECK(!"a listener that is removed was added");
}

struct tcp_listener *tcp_listener_find(struct stack *stack, uint8_t family, const uint8_t local[16],
                                       uint16_t port)
{
    const struct tcp_table *table = stack->tcp->table;
    struct tcp_listener *any = NULL;

    for (uint32_t i = 0; i < table->listener_count; i++) {
        const struct flow_address *address = &table->listeners[i].address;
        if (address->port != port || address->family != family)
            continue;
        if (memcmp(address->ip, local, sizeof(address->ip)) == 0)
            return table->listeners[i].listener;
        if (memcmp(address->ip, any_address, sizeof(address->ip)) == 0)
            any = table->listeners[i].listener;
    }
    return any;
}

bool tcp_listener_has_port(const struct stack *stack, uint8_t family, uint16_t port)
{
    const struct tcp_table *table = stack->tcp->table;

    for (uint32_t i = 0; i < table->listener_count; i++) {
        if (table->listeners[i].address.port == port &&
            table->listeners[i].address.family == family)
            return true;
    }
    return false;
}
