/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inbound brakes: counts by (listener, client network), an IPv4 address or an IPv6 /64 unless
 * configured otherwise.
 *
 * A minute is any minute, wherever it begins: what was counted counts for a minute from then on,
 * for each kind by itself, and what is beyond the limit is refused. Limits up to BRAKE_EXACT_MAX
 * remember each moment, larger ones the moments of BRAKE_CELL_TIME together, from the last of them
 * on: never more than the limit in any minute, and 15 of 16 of it at least. Refused recipients and
 * errors are counted when they happen; a network that had its share of them is not let in any more
 * before there is room.
 *
 * Invariants
 *   1. A client with open connections has a place and keeps it; `idle` holds the others, the one
 * not used for the longest time first, and that one is forgotten when a place is needed.
 *   2. Settings are asked at every count: a reload takes effect at once, for open sessions with
 * their own snapshot.
 *   3. No cell has moments from before and behind a parting (brake_keep.c): for that there is one
 * cell more than a minute needs.
 *
 * Limits: BRAKE_PLACES networks. With connections from more at a time the others are not braked,
 * and counted as untracked. Cost: a hash and a chain of a few places per connection; a comparison
 * per message or recipient.
 * Not here: what outlives the process (brake_keep.c).
 */
#include <stdlib.h>

#include "base/rng.h"
#include "relay/brake_internal.h"

/* When nothing is free, a fresh place is. */
static void free_refill(struct brake *brake)
{
    if (!LIST_EMPTY(&brake->free) || brake->fresh == BRAKE_PLACES)
        return;
    struct brake_client *client = &brake->places[brake->fresh++];
    LIST_INSERT_HEAD(&brake->free, client, chain);
}

struct brake *brake_new(uint64_t seed)
{
    struct brake *brake = calloc(1, sizeof(*brake));
    struct rng rng;

    CHECK(brake != NULL);
    rng_init_seed(&rng, seed);
    brake->hash = (struct keyed_hash){{rng_u64(&rng), rng_u64(&rng)}};
    TAILQ_INIT(&brake->idle);
    free_refill(brake);
    return brake;
}

void brake_free(struct brake *brake)
{
    free(brake);
}

void brake_set_time(struct brake *brake, tick_us now)
{
    brake->now = now;
}

struct brake_stats brake_get_stats(const struct brake *brake)
{
    return brake->stats;
}

/* ---- places ---- */

/* IPv4 inside IPv6 is counted as IPv4. */
struct flow_address brake_network_of(const struct flow_address *peer,
                                     const struct settings_brakes *limits)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    struct flow_address network = {.family = peer->family};
    uint32_t size = 4, bits = limits->ipv4_prefix;

    memcpy(network.ip, peer->ip, sizeof(network.ip));
    if (peer->family == FLOW_FAMILY_IP6 && memcmp(peer->ip, mapped, sizeof(mapped)) == 0) {
        network = (struct flow_address){.family = FLOW_FAMILY_IP4};
        memcpy(network.ip, peer->ip + sizeof(mapped), 4);
    } else if (peer->family == FLOW_FAMILY_IP6) {
        size = 16;
        bits = limits->ipv6_prefix;
    }
    for (uint32_t i = 0; i < sizeof(network.ip); i++) {
        uint32_t kept = i >= size || bits <= 8 * i ? 0 : bits - 8 * i;
        if (kept < 8)
            network.ip[i] &= (uint8_t)(0xff00u >> kept);
    }
    return network;
}

static uint32_t bucket_of(const struct brake *brake, const struct brake_key *key)
{
    return (uint32_t)(keyed_hash_octets(&brake->hash, span_of(key, sizeof(*key))) % BRAKE_BUCKETS);
}

struct brake_client *brake_client_find(struct brake *brake, const struct brake_key *key)
{
    struct brake_client *client;

    LIST_FOREACH(client, &brake->buckets[bucket_of(brake, key)], chain)
    {
        if (memcmp(&client->key, key, sizeof(*key)) == 0)
            return client;
    }
    return NULL;
}

struct brake_client *brake_client_new(struct brake *brake, const struct brake_key *key)
{
    struct brake_client *client = LIST_FIRST(&brake->free);

    if (client == NULL) {
        client = TAILQ_FIRST(&brake->idle);
        if (client == NULL)
            return NULL;
        TAILQ_REMOVE(&brake->idle, client, link);
        brake->stats.forgotten++;
        brake->stats.networks--;
    }
    LIST_REMOVE(client, chain);
    free_refill(brake);
    *client = (struct brake_client){.key = *key};
    LIST_INSERT_HEAD(&brake->buckets[bucket_of(brake, key)], client, chain);
    TAILQ_INSERT_TAIL(&brake->idle, client, link);
    brake->stats.networks++;
    return client;
}

/* ---- counts ---- */

static uint32_t limit_of(const struct settings_brakes *limits, enum brake_kind kind)
{
    switch (kind) {
#define X(name, field)                                                                             \
    case BRAKE_##name:                                                                             \
        return limits->field;
        BRAKE_KINDS
#undef X
    case BRAKE_KIND_COUNT:
        break;
    }
    CHECK(false && "a brake kind");
    return 0;
}

void brake_window_review(const struct brake *brake, struct brake_window *window)
{
    while (window->used > 0 && brake->now - window->cells[window->head].last >= BRAKE_MINUTE) {
        window->total -= window->cells[window->head].count;
        window->head = (window->head + 1) % BRAKE_CELLS;
        window->used--;
    }
}

/* Into the newest cell, where that is of this moment, or near enough for so many. */
static void window_add(const struct brake *brake, struct brake_window *window, uint32_t max)
{
    struct brake_cell *cell = brake_cell_at(window, window->used + BRAKE_CELLS - 1);
    tick_us first = cell->last - cell->span;
    tick_us span = max <= BRAKE_EXACT_MAX ? 1 : BRAKE_CELL_TIME;
    bool is_closed = brake->now - first >= span || first < brake->parted;

    if (window->used == 0 || (window->used < BRAKE_CELLS && is_closed)) {
        cell = brake_cell_at(window, window->used);
        *cell = (struct brake_cell){.last = brake->now};
        first = brake->now;
        window->used++;
    }
    cell->last = brake->now;
    cell->span = brake->now - first < UINT32_MAX ? (uint32_t)(brake->now - first) : UINT32_MAX;
    cell->count++;
    window->total++;
}

static void refuse(struct brake *brake, struct brake_client *client, enum brake_kind kind,
                   bool *ret_is_first)
{
    uint64_t *const counters[] = {
        [BRAKE_CONNECTIONS] = &brake->stats.connections,
        [BRAKE_CONNECTION_RATE] = &brake->stats.connection_rate,
        [BRAKE_MESSAGES] = &brake->stats.messages,
        [BRAKE_RECIPIENTS] = &brake->stats.recipients,
        [BRAKE_REFUSED] = &brake->stats.refused,
        [BRAKE_ERRORS] = &brake->stats.errors,
    };

    *counters[kind] += 1;
    *ret_is_first = brake->now >= client->windows[kind].told_until;
    if (*ret_is_first)
        client->windows[kind].told_until = brake->now + BRAKE_MINUTE;
}

/* Is the share of the last minute used up? */
static bool is_used_up(const struct brake *brake, struct brake_client *client,
                       const struct settings_brakes *limits, enum brake_kind kind)
{
    uint32_t max = limit_of(limits, kind);

    brake_window_review(brake, &client->windows[kind]);
    return max > 0 && client->windows[kind].total >= max;
}

bool brake_take(struct brake *brake, struct brake_client *client,
                const struct settings_listener *listener, enum brake_kind kind, bool *ret_is_first)
{
    *ret_is_first = false;
    if (client == NULL)
        return true;
    if (is_used_up(brake, client, &listener->brakes, kind)) {
        refuse(brake, client, kind, ret_is_first);
        return false;
    }
    window_add(brake, &client->windows[kind], limit_of(&listener->brakes, kind));
    return true;
}

/* ---- connections ---- */

static bool has_limits(const struct settings_brakes *limits)
{
    for (enum brake_kind kind = 0; kind < BRAKE_KIND_COUNT; kind++) {
        if (limit_of(limits, kind) > 0)
            return true;
    }
    return false;
}

static bool connection_is_refused(struct brake *brake, struct brake_client *client,
                                  const struct settings_listener *listener, bool *ret_is_first)
{
    static const enum brake_kind closed_by[] = {BRAKE_REFUSED, BRAKE_ERRORS};
    const struct settings_brakes *limits = &listener->brakes;

    if (limits->connection_max > 0 && client->connections >= limits->connection_max) {
        refuse(brake, client, BRAKE_CONNECTIONS, ret_is_first);
        return true;
    }
    for (uint32_t i = 0; i < COUNT_OF(closed_by); i++) {
        if (is_used_up(brake, client, limits, closed_by[i])) {
            refuse(brake, client, closed_by[i], ret_is_first);
            return true;
        }
    }
    return !brake_take(brake, client, listener, BRAKE_CONNECTION_RATE, ret_is_first);
}

enum err brake_connect(struct brake *brake, const struct settings_listener *listener,
                       const struct flow_address *peer, bool is_relay_client,
                       struct brake_client **ret_client, bool *ret_is_first)
{
    const struct settings_brakes *limits = &listener->brakes;
    struct brake_key key = {.listener = listener->address};

    *ret_client = NULL;
    *ret_is_first = false;
    if ((is_relay_client && !limits->brakes_relay_clients) || !has_limits(limits))
        return ERR_OK;
    key.network = brake_network_of(peer, limits);
    struct brake_client *client = brake_client_find(brake, &key);
    if (client == NULL)
        client = brake_client_new(brake, &key);
    if (client == NULL) {
        brake->stats.untracked++;
        return ERR_OK;
    }
    if (client->connections == 0) { /* used now: last to be forgotten */
        TAILQ_REMOVE(&brake->idle, client, link);
        TAILQ_INSERT_TAIL(&brake->idle, client, link);
    }
    if (connection_is_refused(brake, client, listener, ret_is_first))
        return ERR_REFUSED;
    if (client->connections++ == 0)
        TAILQ_REMOVE(&brake->idle, client, link);
    *ret_client = client;
    return ERR_OK;
}

void brake_disconnect(struct brake *brake, struct brake_client *client)
{
    if (client == NULL)
        return;
    CHECK(client->connections > 0);
    if (--client->connections == 0)
        TAILQ_INSERT_TAIL(&brake->idle, client, link);
}
