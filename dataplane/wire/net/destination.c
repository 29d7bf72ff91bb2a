/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known of remote addresses: the way to each, the MTU of its path, the link header to put
 * in front, and what finished connections learnt about it.
 *
 * A connection holds a reference to its destination for as long as it lives, so that a segment that
 * goes out finds everything in one place and looks up nothing. Entries without references are kept,
 * least recently used first to go, for mail goes to the same few hosts again and again.
 *
 * Paths. MTUs only fall, by word of ICMP that TCP or UDP found true, or of another core; after
 * MTU_TIME they are the port's again (RFC 1191 6.3, RFC 8201 4: at least 5 minutes, 10 advised), so
 * that a path that grew is found. Below the floors nothing is believed: there, small segments are
 * an attack (HAZARDS TC-04).
 *
 * Routes. An address on a prefix of a port is reached there, the longest prefix first; any other by
 * the router of the first port that has one, or over a port without link addresses.
 *
 * Invariants
 *   1. An entry is in exactly one chain of `buckets`; its key never changes.
 *   2. It is on the list of the unreferenced exactly when references is 0.
 *   3. mtu <= the port's; mtu_expires is TICK_NEVER exactly when it is the port's.
 *
 * Limits: destination_max entries; when all are referenced, there is no new one (counted).
 */
#include <stdlib.h>

#include "dataplane/wire/net/slab.h"
#include "dataplane/wire/net/stack_internal.h"

#define MTU_FLOOR4   552u  /* as of most stacks; RFC 1191 3 would allow 68 */
#define MTU_FLOOR6   1280u /* RFC 8201 4: a smaller one is discarded */
#define MTU_TIME     TICK_S(600)
#define METRICS_TIME TICK_S(3600) /* what is older says nothing about now (RFC 9040) */

struct entry {
    uint32_t chain_next; /* first: slab.h. Index of the next in the bucket */
    uint32_t lru_next, lru_prev;
    uint32_t bucket;
    tick_us released_at;
    struct destination destination;
};

struct destination_table {
    struct wire_slab slab;
    uint32_t *buckets; /* heads of chains */
    uint32_t bucket_mask;
    uint32_t lru_first, lru_last; /* unreferenced, oldest first */
    uint32_t referenced_count;
};

static struct entry *entry_of(const struct destination *destination)
{
    return (struct entry *)(void *)((char *)(uintptr_t)destination -
                                    offsetof(struct entry, destination));
}

static struct entry *entry_at(const struct destination_table *table, uint32_t index)
{
    return wire_slab_at(&table->slab, index);
}

/* ---- the table ---- */

struct destination_table *destination_table_new(struct stack *stack)
{
    struct destination_table *table = calloc(1, sizeof(*table));
    uint32_t count = 64;

    CHECK(table != NULL);
    wire_slab_init(&table->slab, sizeof(struct entry), stack->options.destination_max);
    while (count < stack->options.destination_max && count < 1u << 20)
        count *= 2;
    table->buckets = malloc(count * sizeof(*table->buckets));
    CHECK(table->buckets != NULL);
    memset(table->buckets, 0xff, count * sizeof(*table->buckets));
    table->bucket_mask = count - 1;
    table->lru_first = table->lru_last = WIRE_SLAB_NONE;
    return table;
}

void destination_table_free(struct destination_table *table)
{
    CHECK(table->referenced_count == 0);
    wire_slab_fini(&table->slab);
    free(table->buckets);
    free(table);
}

static uint32_t bucket_of(const struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    uint8_t key[17];

    memcpy(key, ip, 16);
    key[16] = family;
    return (uint32_t)siphash13(&stack->hash_key, key, sizeof(key)) &
           stack->destinations->bucket_mask;
}

static uint32_t entry_find(const struct destination_table *table, uint32_t bucket, uint8_t family,
                           const uint8_t ip[16])
{
    uint32_t index = table->buckets[bucket];

    while (index != WIRE_SLAB_NONE) {
        const struct entry *entry = entry_at(table, index);
        if (memcmp(entry->destination.ip, ip, 16) == 0 && entry->destination.family == family)
            break;
        index = entry->chain_next;
    }
    return index;
}

static void lru_push(struct destination_table *table, uint32_t index)
{
    struct entry *entry = entry_at(table, index);

    entry->lru_next = WIRE_SLAB_NONE;
    entry->lru_prev = table->lru_last;
    if (table->lru_last == WIRE_SLAB_NONE)
        table->lru_first = index;
    else
        entry_at(table, table->lru_last)->lru_next = index;
    table->lru_last = index;
}

static void lru_remove(struct destination_table *table, uint32_t index)
{
    struct entry *entry = entry_at(table, index);

    if (entry->lru_prev == WIRE_SLAB_NONE)
        table->lru_first = entry->lru_next;
    else
        entry_at(table, entry->lru_prev)->lru_next = entry->lru_next;
    if (entry->lru_next == WIRE_SLAB_NONE)
        table->lru_last = entry->lru_prev;
    else
        entry_at(table, entry->lru_next)->lru_prev = entry->lru_prev;
}

static void entry_evict(struct stack *stack, uint32_t index)
{
    struct destination_table *table = stack->destinations;
    struct entry *entry = entry_at(table, index);
    uint32_t *link = &table->buckets[entry->bucket];

    CHECK(entry->destination.references == 0);
    lru_remove(table, index);
    while (*link != index)
        link = &entry_at(table, *link)->chain_next;
    *link = entry->chain_next;
    wire_slab_release(&table->slab, index);
    STACK_COUNT(stack, DESTINATION_EVICTED);
}

/* A new entry for an address that has none, unreferenced; WIRE_SLAB_NONE: no route, or no room. */
static uint32_t entry_new(struct stack *stack, uint32_t bucket, uint8_t family,
                          const uint8_t ip[16])
{
    struct destination_table *table = stack->destinations;
    struct stack_port *port;
    uint8_t next_hop[16];

    if (!stack_route(stack, family, ip, &port, next_hop)) {
        STACK_COUNT(stack, IP_NO_ROUTE);
        return WIRE_SLAB_NONE;
    }
    uint32_t index = wire_slab_acquire(&table->slab);
    if (index == WIRE_SLAB_NONE && table->lru_first != WIRE_SLAB_NONE) {
        entry_evict(stack, table->lru_first);
        index = wire_slab_acquire(&table->slab);
    }
    if (index == WIRE_SLAB_NONE) {
        STACK_COUNT(stack, DESTINATION_FULL);
        return WIRE_SLAB_NONE;
    }
    struct entry *entry = entry_at(table, index);
    entry->bucket = bucket;
    entry->destination.family = family;
    entry->destination.port = port;
    entry->destination.mtu = port->mtu;
    entry->destination.mtu_expires = TICK_NEVER;
    memcpy(entry->destination.ip, ip, 16);
    memcpy(entry->destination.next_hop, next_hop, 16);
    entry->chain_next = table->buckets[bucket];
    table->buckets[bucket] = index;
    lru_push(table, index);
    return index;
}

static uint32_t entry_find_or_new(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    uint32_t bucket = bucket_of(stack, family, ip);
    uint32_t index = entry_find(stack->destinations, bucket, family, ip);

    return index == WIRE_SLAB_NONE ? entry_new(stack, bucket, family, ip) : index;
}

static void metrics_age(const struct stack *stack, struct entry *entry)
{
    struct destination *destination = &entry->destination;

    if (stack->now - entry->released_at < METRICS_TIME)
        return;
    destination->srtt_us = destination->rttvar_us = destination->ssthresh = 0;
    destination->is_ecn_broken = false;
}

struct destination *destination_acquire(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    struct destination_table *table = stack->destinations;
    uint32_t index = entry_find_or_new(stack, family, ip);

    if (index == WIRE_SLAB_NONE)
        return NULL;
    struct entry *entry = entry_at(table, index);
    if (entry->destination.references++ == 0) {
        lru_remove(table, index);
        table->referenced_count++;
        metrics_age(stack, entry);
    }
    return &entry->destination;
}

void destination_release(struct stack *stack, struct destination *destination)
{
    struct destination_table *table = stack->destinations;
    struct entry *entry = entry_of(destination);

    CHECK(destination->references > 0);
    if (--destination->references > 0)
        return;
    entry->released_at = stack->now;
    table->referenced_count--;
    uint32_t index = entry_find(table, entry->bucket, destination->family, destination->ip);
    CHECK(index != WIRE_SLAB_NONE && entry_at(table, index) == entry);
    lru_push(table, index);
}

/* ---- path MTU ---- */

static void mtu_age(const struct stack *stack, struct destination *destination)
{
    if (stack->now < destination->mtu_expires)
        return;
    destination->mtu = destination->port->mtu;
    destination->mtu_expires = TICK_NEVER;
    destination->is_black_hole = false;
}

uint16_t destination_mtu(struct stack *stack, struct destination *destination)
{
    mtu_age(stack, destination);
    return destination->mtu;
}

bool destination_mtu_lower(struct stack *stack, uint8_t family, const uint8_t ip[16], uint16_t mtu,
                           bool is_news)
{
    if (mtu < (family == 4 ? MTU_FLOOR4 : MTU_FLOOR6)) {
        STACK_COUNT(stack, PMTU_IGNORED);
        return false;
    }
    uint32_t index = entry_find_or_new(stack, family, ip);
    if (index == WIRE_SLAB_NONE)
        return false;
    struct destination *destination = &entry_at(stack->destinations, index)->destination;
    mtu_age(stack, destination);
    if (mtu >= destination->mtu) {
        STACK_COUNT(stack, PMTU_IGNORED);
        return false;
    }
    destination->mtu = mtu;
    destination->mtu_expires = stack->now + MTU_TIME;
    STACK_COUNT(stack, PMTU_LOWERED);
    if (is_news)
        return true;
    struct stack_news news = {.kind = STACK_NEWS_PMTU,
                              .port = (uint8_t)destination->port->index,
                              .mtu = mtu,
                              .address = {.family = family}};
    memcpy(news.address.ip, ip, 16);
    stack_tell(stack, &news);
    return true;
}

void destination_on_news(struct stack *stack, const struct stack_news *news)
{
    if (news->address.family == FLOW_FAMILY_IP4 || news->address.family == FLOW_FAMILY_IP6)
        destination_mtu_lower(stack, news->address.family, news->address.ip, news->mtu, true);
}

/* ---- routes ---- */

static bool port_has_family(const struct stack_port *port, uint8_t family)
{
    for (uint32_t i = 0; i < port->prefix_count; i++) {
        if (port->prefixes[i].family == family)
            return true;
    }
    return false;
}

/* The port on whose link `ip` is. */
static struct stack_port *route_on_link(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    struct stack_port *best = NULL;
    uint8_t bits, best_bits = 0;

    for (uint32_t i = 0; i < stack->port_count; i++) {
        struct stack_port *port = &stack->ports[i];
        if (stack_port_has_prefix(port, family, ip, &bits) && (best == NULL || bits > best_bits)) {
            best = port;
            best_bits = bits;
        }
    }
    for (uint32_t i = 0; best == NULL && i < stack->port_count; i++) {
        if (stack_port_is_router(&stack->ports[i], family, ip))
            best = &stack->ports[i];
    }
    /* fe80::/10 is on every link; without a zone the first is meant. */
    for (uint32_t i = 0; best == NULL && family == 6 && i < stack->port_count; i++) {
        if (ip_is_link_local(family, ip) && port_has_family(&stack->ports[i], family))
            best = &stack->ports[i];
    }
    return best;
}

bool stack_route(struct stack *stack, uint8_t family, const uint8_t ip[16],
                 struct stack_port **ret_port, uint8_t ret_next_hop[16])
{
    struct stack_port *port = route_on_link(stack, family, ip);

    if (port != NULL) {
        *ret_port = port;
        memcpy(ret_next_hop, ip, 16);
        return true;
    }
    if (family == 6 && ip_is_link_local(family, ip))
        return false;
    for (uint32_t i = 0; i < stack->port_count; i++) {
        port = &stack->ports[i];
        const struct flow_address *gateway = family == 4 ? &port->gateway4 : &port->gateway6;
        if (gateway->family == FLOW_FAMILY_NONE && !(port->is_l3 && port_has_family(port, family)))
            continue;
        *ret_port = port;
        memcpy(ret_next_hop, gateway->family == FLOW_FAMILY_NONE ? ip : gateway->ip, 16);
        return true;
    }
    return false;
}

/* ---- seeing ---- */

uint32_t destination_referenced_count(const struct stack *stack)
{
    return stack->destinations->referenced_count;
}

uint64_t destination_memory(const struct stack *stack)
{
    const struct destination_table *table = stack->destinations;
    return sizeof(*table) + wire_slab_memory(&table->slab) +
           (table->bucket_mask + UINT64_C(1)) * sizeof(*table->buckets);
}

static void entry_verify(const struct entry *entry)
{
    const struct destination *destination = &entry->destination;

    CHECK(destination->mtu <= destination->port->mtu);
    CHECK((destination->mtu_expires == TICK_NEVER) == (destination->mtu == destination->port->mtu));
    CHECK(destination->l2_size <= sizeof(destination->l2_header));
}

void destination_verify(const struct stack *stack)
{
    const struct destination_table *table = stack->destinations;
    uint32_t count = 0, referenced = 0, idle = 0, prev = WIRE_SLAB_NONE;

    for (uint32_t bucket = 0; bucket <= table->bucket_mask; bucket++) {
        for (uint32_t index = table->buckets[bucket]; index != WIRE_SLAB_NONE;) {
            const struct entry *entry = entry_at(table, index);
            CHECK(entry->bucket == bucket && count < table->slab.in_use);
            entry_verify(entry);
            referenced += entry->destination.references > 0;
            count++;
            index = entry->chain_next;
        }
    }
    for (uint32_t index = table->lru_first; index != WIRE_SLAB_NONE; idle++) {
        const struct entry *entry = entry_at(table, index);
        CHECK(entry->destination.references == 0 && entry->lru_prev == prev && idle < count);
        prev = index;
        index = entry->lru_next;
    }
    CHECK(prev == table->lru_last);
    CHECK(count == table->slab.in_use && referenced == table->referenced_count);
    CHECK(idle + referenced == count);
}
