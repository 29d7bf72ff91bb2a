/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of neighbours: entries found by port and address, made, and forgotten for others.
 *
 * Poisoned tables are neighbour.c's concern, full ones this file's. Asking for many addresses that
 * do not exist (a scan of our prefix, RFC 6583) must not push out those that do: at most half of
 * the table is unresolved, and in a full table only a STALE entry or the oldest unresolved one
 * makes room.
 *
 * Invariants
 *   1. An entry is in one bucket and on one list, the one of its state; its timer is armed.
 *   2. Packets wait only in INCOMPLETE entries.
 *
 * Limits: neighbour_max entries; NEIGH_QUEUE_MAX packets each, and NEIGH_WAITING_MAX together but
 * for NEIGH_QUEUE_SURE of each.
 */
#include <stdlib.h>

#include "dataplane/wire/net/neighbour.h"

#define EVICT_LOOK_MAX 16u /* resolved entries looked at for one to evict */

static struct neigh *neigh_at(const struct neigh_table *table, uint32_t index)
{
    return wire_slab_at(&table->slab, index);
}

/* ---- lists and the table ---- */

static void list_push(struct neigh_table *table, struct neigh_list *list, uint32_t index)
{
    struct neigh *neigh = neigh_at(table, index);

    neigh->list_next = WIRE_SLAB_NONE;
    neigh->list_prev = list->last;
    if (list->last == WIRE_SLAB_NONE)
        list->first = index;
    else
        neigh_at(table, list->last)->list_next = index;
    list->last = index;
    list->count++;
}

static void list_remove(struct neigh_table *table, struct neigh_list *list, uint32_t index)
{
    const struct neigh *neigh = neigh_at(table, index);

    CHECK(list->count > 0);
    list->count--;
    if (neigh->list_prev == WIRE_SLAB_NONE)
        list->first = neigh->list_next;
    else
        neigh_at(table, neigh->list_prev)->list_next = neigh->list_next;
    if (neigh->list_next == WIRE_SLAB_NONE)
        list->last = neigh->list_prev;
    else
        neigh_at(table, neigh->list_next)->list_prev = neigh->list_prev;
}

static struct neigh_list *list_of(struct neigh_table *table, uint32_t state)
{
    return state == NEIGH_INCOMPLETE || state == NEIGH_FAILED ? &table->unresolved
                                                              : &table->resolved;
}

struct neigh_table *neigh_table_new(struct stack *stack)
{
    struct neigh_table *table = calloc(1, sizeof(*table));
    uint32_t count = 64;

    CHECK(table != NULL);
    wire_slab_init(&table->slab, sizeof(struct neigh), stack->options.neighbour_max);
    while (count < stack->options.neighbour_max && count < 1u << 16)
        count *= 2;
    table->buckets = malloc(count * sizeof(*table->buckets));
    CHECK(table->buckets != NULL);
    memset(table->buckets, 0xff, count * sizeof(*table->buckets));
    table->bucket_mask = count - 1;
    table->resolved = table->unresolved = (struct neigh_list){WIRE_SLAB_NONE, WIRE_SLAB_NONE, 0};
    table->announce_timer.kind = STACK_TIMER_ANNOUNCE;
    return table;
}

static void queue_drop(struct neigh_table *table, struct neigh *neigh)
{
    for (uint32_t i = 0; i < neigh->queue_count; i++)
        buf_release_chain(neigh->queue[i]);
    table->waiting -= neigh->queue_count;
    neigh->queue_count = 0;
}

void neigh_table_free(struct neigh_table *table)
{
    struct neigh_list *lists[] = {&table->resolved, &table->unresolved};

    for (uint32_t i = 0; i < COUNT_OF(lists); i++) {
        for (uint32_t index = lists[i]->first; index != WIRE_SLAB_NONE;) {
            struct neigh *neigh = neigh_at(table, index);
            queue_drop(table, neigh);
            index = neigh->list_next;
        }
    }
    wire_slab_fini(&table->slab);
    free(table->buckets);
    free(table);
}

static uint32_t bucket_of(const struct stack *stack, const struct stack_port *port, uint8_t family,
                          const uint8_t ip[16])
{
    uint8_t key[18];

    memcpy(key, ip, 16);
    key[16] = family;
    key[17] = (uint8_t)port->index;
    return (uint32_t)siphash13(&stack->hash_key, key, sizeof(key)) & stack->neighbours->bucket_mask;
}

static uint32_t index_find(const struct neigh_table *table, uint32_t bucket,
                           const struct stack_port *port, uint8_t family, const uint8_t ip[16])
{
    uint32_t index = table->buckets[bucket];

    while (index != WIRE_SLAB_NONE) {
        const struct neigh *neigh = neigh_at(table, index);
        if (memcmp(neigh->ip, ip, 16) == 0 && neigh->port == port && neigh->family == family)
            break;
        index = neigh->chain_next;
    }
    return index;
}

struct neigh *neigh_find(struct stack *stack, const struct stack_port *port, uint8_t family,
                         const uint8_t ip[16])
{
    uint32_t bucket = bucket_of(stack, port, family, ip);
    uint32_t index = index_find(stack->neighbours, bucket, port, family, ip);

    return index == WIRE_SLAB_NONE ? NULL : neigh_at(stack->neighbours, index);
}

static uint32_t index_of(const struct neigh_table *table, const struct neigh *neigh)
{
    return index_find(table, neigh->bucket, neigh->port, neigh->family, neigh->ip);
}

/* ---- timers ---- */

void neigh_timer_set(struct stack *stack, struct neigh *neigh, tick_us deadline)
{
    if (!wheel_is_armed(&neigh->timer))
        stack->neighbours->timers_armed++;
    neigh->timer.kind = STACK_TIMER_NEIGHBOUR;
    wheel_arm(&stack->wheel, &neigh->timer, deadline);
}

static void timer_cancel(struct stack *stack, struct neigh *neigh)
{
    if (!wheel_is_armed(&neigh->timer))
        return;
    stack->neighbours->timers_armed--;
    wheel_cancel(&stack->wheel, &neigh->timer);
}

/* ---- life of an entry ---- */

void neigh_forget(struct stack *stack, struct neigh *neigh)
{
    struct neigh_table *table = stack->neighbours;
    uint32_t index = index_of(table, neigh), *link = &table->buckets[neigh->bucket];

    CHECK(index != WIRE_SLAB_NONE);
    queue_drop(table, neigh);
    timer_cancel(stack, neigh);
    if (list_of(table, neigh->state) == &table->resolved)
        stack->link_generation++;
    list_remove(table, list_of(table, neigh->state), index);
    while (*link != index)
        link = &neigh_at(table, *link)->chain_next;
    *link = neigh->chain_next;
    wire_slab_release(&table->slab, index);
}

/* Room for one more: the oldest unresolved where they take their half, else a stale one, else the
 * oldest unresolved. False: all are in use. */
static bool table_make_room(struct stack *stack)
{
    struct neigh_table *table = stack->neighbours;
    uint32_t max = stack->options.neighbour_max, half = max > 1 ? max / 2 : 1;
    uint32_t index = table->resolved.first;

    if (table->slab.in_use < max && table->unresolved.count < half)
        return true;
    if (table->unresolved.count < half) {
        for (uint32_t i = 0; i < EVICT_LOOK_MAX && index != WIRE_SLAB_NONE; i++) {
            struct neigh *neigh = neigh_at(table, index);
            if (neigh->state == NEIGH_STALE) {
                STACK_COUNT(stack, NEIGHBOUR_EVICTED);
                neigh_forget(stack, neigh);
                return true;
            }
            index = neigh->list_next;
        }
    }
    if (table->unresolved.count == 0)
        return false;
    STACK_COUNT(stack, NEIGHBOUR_EVICTED);
    struct neigh *oldest = neigh_at(table, table->unresolved.first);
    STACK_COUNT_BY(stack, NEIGHBOUR_QUEUE_DROPPED, oldest->queue_count);
    neigh_forget(stack, oldest);
    return true;
}

struct neigh *neigh_new(struct stack *stack, struct stack_port *port, uint8_t family,
                        const uint8_t ip[16])
{
    struct neigh_table *table = stack->neighbours;
    uint32_t bucket = bucket_of(stack, port, family, ip);

    if (!table_make_room(stack))
        return NULL;
    uint32_t index = wire_slab_acquire(&table->slab);
    if (index == WIRE_SLAB_NONE)
        return NULL;
    struct neigh *neigh = neigh_at(table, index);
    neigh->bucket = bucket;
    neigh->port = port;
    neigh->family = family;
    neigh->state = NEIGH_INCOMPLETE;
    memcpy(neigh->ip, ip, 16);
    neigh->chain_next = table->buckets[bucket];
    table->buckets[bucket] = index;
    list_push(table, &table->unresolved, index);
    return neigh;
}

void neigh_relist(struct stack *stack, struct neigh *neigh, enum neigh_state next)
{
    struct neigh_table *table = stack->neighbours;
    uint32_t index = index_of(table, neigh);

    list_remove(table, list_of(table, neigh->state), index);
    neigh->state = (uint8_t)next;
    list_push(table, list_of(table, next), index);
}

/* ---- seeing ---- */

uint32_t neigh_asked_count(const struct stack *stack)
{
    const struct neigh_table *table = stack->neighbours;
    uint32_t count = 0;

    for (uint32_t index = table->unresolved.first; index != WIRE_SLAB_NONE;) {
        const struct neigh *neigh = neigh_at(table, index);
        count += neigh->queue_count > 0;
        index = neigh->list_next;
    }
    return count;
}

uint32_t neigh_timer_count(const struct stack *stack)
{
    const struct neigh_table *table = stack->neighbours;
    uint32_t count = table->timers_armed + wheel_is_armed(&table->announce_timer);

    for (uint32_t i = 0; i < stack->port_count; i++)
        count += wheel_is_armed(&table->memberships[i].timer);
    return count;
}

uint64_t neigh_memory(const struct stack *stack)
{
    const struct neigh_table *table = stack->neighbours;
    return sizeof(*table) + wire_slab_memory(&table->slab) +
           (table->bucket_mask + UINT64_C(1)) * sizeof(*table->buckets);
}

static uint32_t list_verify(struct neigh_table *table, const struct neigh_list *list)
{
    uint32_t count = 0, prev = WIRE_SLAB_NONE, waiting = 0;

    for (uint32_t index = list->first; index != WIRE_SLAB_NONE; count++) {
        const struct neigh *neigh = neigh_at(table, index);
        CHECK(count < list->count && neigh->list_prev == prev);
        CHECK(list_of(table, neigh->state) == list && wheel_is_armed(&neigh->timer));
        CHECK(neigh->queue_count == 0 || neigh->state == NEIGH_INCOMPLETE);
        CHECK(neigh->queue_count <= NEIGH_QUEUE_MAX && neigh->tries <= NEIGH_SOLICIT_MAX);
        CHECK(!neigh->is_claimed || neigh->state == NEIGH_PROBE);
        CHECK(index_of(table, neigh) == index);
        waiting += neigh->queue_count;
        prev = index;
        index = neigh->list_next;
    }
    CHECK(count == list->count && prev == list->last);
    return waiting;
}

void neigh_verify(const struct stack *stack)
{
    struct neigh_table *table = stack->neighbours;
    uint32_t waiting =
        list_verify(table, &table->resolved) + list_verify(table, &table->unresolved);

    CHECK(waiting == table->waiting);
    CHECK(table->resolved.count + table->unresolved.count == table->slab.in_use);
    CHECK(table->timers_armed == table->slab.in_use);
}
