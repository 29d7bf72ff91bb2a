/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many inbound connections each client network holds: an IPv4 address or an IPv6 /64, which is
 * what one customer has. Counted from the final ACK on, when the address is known to be true, to
 * the end of the tcb; half-open connections are not counted, so that forged SYNs use up nobody's
 * share.
 *
 * A table with linear probing, its hash keyed because strangers choose the prefixes. A removed
 * entry leaves no mark: those behind it that may be moved into the gap are (each entry remembers 32
 * bits of its hash, which say its home). At most four fifths are ever full.
 *
 * Invariants
 *   1. Every entry has a count > 0, and `used` of them exist.
 *   2. Between an entry's home and its place there is no gap.
 *
 * Limits: one more prefix than flow_count_max connections can have; at the bound, or with the
 * policy off (connections_per_prefix_max 0), no memory is taken.
 */
#include <stdlib.h>
#include <string.h>

#include "dataplane/wire/tcp/tcp.h"

struct limit_entry {
    uint64_t prefix; /* as octets; IPv4 in the first four */
    uint32_t hash;
    uint32_t is_ip6 : 1, count : 31; /* 0: free */
};
_Static_assert(sizeof(struct limit_entry) == 16, "four to a line");

struct tcp_limits {
    struct limit_entry *entries;
    uint32_t size, used, used_max;
};

static struct limit_entry prefix_of(const struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    struct limit_entry entry = {.is_ip6 = family == FLOW_FAMILY_IP6};
    uint8_t octets[9] = {family};

    memcpy(&entry.prefix, ip, entry.is_ip6 ? 8 : 4);
    memcpy(octets + 1, &entry.prefix, 8);
    entry.hash = (uint32_t)siphash13(&stack->hash_key, octets, sizeof(octets));
    return entry;
}

static uint32_t home_of(const struct tcp_limits *limits, uint32_t hash)
{
    return (uint32_t)((uint64_t)hash * limits->size >> 32);
}

static uint32_t next_of(const struct tcp_limits *limits, uint32_t at)
{
    return at + 1 < limits->size ? at + 1 : 0;
}

/* Steps from the entry's home to `at`. */
static uint32_t distance(const struct tcp_limits *limits, const struct limit_entry *entry,
                         uint32_t at)
{
    uint32_t home = home_of(limits, entry->hash);

    return at >= home ? at - home : at + limits->size - home;
}

/* The place of this prefix, or the free one where it would go. */
static uint32_t place_of(const struct tcp_limits *limits, const struct limit_entry *wanted)
{
    uint32_t at = home_of(limits, wanted->hash);

    for (;;) { /* ends: a fifth is free */
        const struct limit_entry *entry = &limits->entries[at];
        if (entry->count == 0 || (entry->hash == wanted->hash && entry->prefix == wanted->prefix &&
                                  entry->is_ip6 == wanted->is_ip6))
            return at;
        at = next_of(limits, at);
    }
}

/* Close the gap at `gap`: whoever came past it moves into it, and leaves a gap in turn. */
static void gap_close(struct tcp_limits *limits, uint32_t gap)
{
    for (uint32_t at = next_of(limits, gap), passed = 1; limits->entries[at].count > 0;
         at = next_of(limits, at), passed++) {
        if (distance(limits, &limits->entries[at], at) < passed)
            continue;
        limits->entries[gap] = limits->entries[at];
        gap = at;
        passed = 0;
    }
    limits->entries[gap] = (struct limit_entry){0};
}

struct tcp_limits *tcp_limits_new(struct stack *stack)
{
    struct tcp_limits *limits = calloc(1, sizeof(*limits));

    CHECK(limits != NULL);
    if (stack->options.connections_per_prefix_max == 0)
        return limits;
    CHECK(stack->options.flow_count_max < UINT32_MAX / 2);
    limits->used_max = stack->options.flow_count_max + 1;
    limits->size = limits->used_max + limits->used_max / 4 + 1;
    limits->entries = calloc(limits->size, sizeof(*limits->entries));
    CHECK(limits->entries != NULL);
    return limits;
}

void tcp_limits_free(struct tcp_limits *limits)
{
    free(limits->entries);
    free(limits);
}

bool tcp_limit_enter(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    struct tcp_limits *limits = stack->tcp->limits;

    if (limits->size == 0)
        return true;
    struct limit_entry wanted = prefix_of(stack, family, ip);
    struct limit_entry *entry = &limits->entries[place_of(limits, &wanted)];
    if (entry->count >= stack->options.connections_per_prefix_max)
        return false;
    if (entry->count == 0) {
        if (limits->used >= limits->used_max)
            return false;
        *entry = wanted;
        limits->used++;
    }
    entry->count++;
    return true;
}

void tcp_limit_leave(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    struct tcp_limits *limits = stack->tcp->limits;

    if (limits->size == 0)
        return;
    struct limit_entry wanted = prefix_of(stack, family, ip);
    uint32_t at = place_of(limits, &wanted);
    CHECK(limits->entries[at].count > 0);
    limits->entries[at].count--;
    if (limits->entries[at].count > 0)
        return;
    limits->used--;
    gap_close(limits, at);
}

uint32_t tcp_limit_count(const struct stack *stack)
{
    return stack->tcp->limits->used;
}

uint64_t tcp_limits_memory(const struct stack *stack)
{
    const struct tcp_limits *limits = stack->tcp->limits;

    return sizeof(*limits) + (uint64_t)limits->size * sizeof(*limits->entries);
}

void tcp_limits_verify(struct stack *stack)
{
    const struct tcp_limits *limits = stack->tcp->limits;
    uint32_t used = 0;

    for (uint32_t at = 0; at < limits->size; at++) {
        const struct limit_entry *entry = &limits->entries[at];
        if (entry->count == 0)
            continue;
        CHECK(place_of(limits, entry) == at);
        CHECK(entry->count <= stack->options.connections_per_prefix_max);
        used++;
    }
    CHECK(used == limits->used && used <= limits->used_max);
}
