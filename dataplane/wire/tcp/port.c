/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From which port to connect (RFC 6056 section 3.3.4, algorithm 4).
 *
 * The ports PORT_FIRST to 65535 are a ring. A keyed hash of our address, theirs and their port says
 * where on it this destination begins, by which stride it goes round, and which of COUNTERS
 * counters says how many steps were made. The stride has no common factor with the ring, so every
 * port comes once before any comes again, as late as can be. Who sees the ports of one destination
 * learns nothing about another's: he cannot guess a connection. (With a stride of 1, as in the RFC,
 * the first good port after a random one would be a poor choice once the nic's hash says which are
 * good: they come in runs, and the first of a run would be taken far more often than the others.)
 *
 * A port need only be new for its destination: the tuple is what must be unique. So each pair of
 * our address and theirs has the whole ring, and more of our addresses bring as many more.
 *
 * Replies must come to the queue we poll. The nic finds the queue by the Toeplitz hash of the
 * reply, in which our port's share is independent of the rest (net/rss.c): a candidate is judged by
 * two table look-ups, and one in queue_count is good. Stacks that share a port therefore never
 * choose the same tuple. A nic that does not hash at all is served by the same rule: the stacks
 * pass frames on by it (net/stack_local.c).
 *
 * Passed over are ports that we listen on, for what comes to them is for the listener, and tuples
 * in use. One in TIME_WAIT is taken when tcp_time_wait_reuse() says so.
 *
 * Limits: LOOKUPS_MAX tuples are looked up per call. When all of those are in use the next call
 * goes on behind them.
 */
#include <stdlib.h>
#include <string.h>

#include "dataplane/wire/tcp/tcp.h"

#define PORT_FIRST  1024u
#define PORT_COUNT  (65536u - PORT_FIRST) /* 2^10 * 3^2 * 7 */
#define COUNTERS    1024u
#define LOOKUPS_MAX 2048u

struct tcp_ports {
    uint32_t counters[COUNTERS];
    struct {
        uint8_t key[NIC_RSS_KEY_SIZE]; /* that `table` is made from */
        struct rss_table *table;       /* NULL: not needed so far */
    } rss[STACK_PORT_MAX];
};

/* Where a destination is on the ring. */
struct walk {
    uint32_t place, stride;
    uint32_t *steps; /* its counter */
};

/* Who among the candidates gets its replies. */
struct landing {
    const struct nic_steering *steering; /* NULL: everybody */
    const struct rss_table *table;
    uint32_t base;
};

struct tcp_ports *tcp_ports_new(struct stack *stack)
{
    struct tcp_ports *ports = calloc(1, sizeof(*ports));

    CHECK(ports != NULL);
    rng_fill(&stack->rng, ports->counters, sizeof(ports->counters));
    return ports;
}

void tcp_ports_free(struct tcp_ports *ports)
{
    for (uint32_t i = 0; i < STACK_PORT_MAX; i++)
        rss_table_free(ports->rss[i].table);
    free(ports);
}

/* The table for the key the nic has now. */
static const struct rss_table *rss_table_of(struct tcp_ports *ports, uint32_t index,
                                            const struct nic_steering *steering)
{
    if (ports->rss[index].table != NULL &&
        memcmp(ports->rss[index].key, steering->key, NIC_RSS_KEY_SIZE) == 0)
        return ports->rss[index].table;
    rss_table_free(ports->rss[index].table);
    ports->rss[index].table = rss_table_new(steering->key);
    memcpy(ports->rss[index].key, steering->key, NIC_RSS_KEY_SIZE);
    return ports->rss[index].table;
}

static struct landing landing_of(struct stack *stack, const struct tcp_key *key)
{
    const struct stack_local *local = stack_local_find(stack, key->family, key->local);

    CHECK(local != NULL);
    const struct nic_steering *steering = &stack->ports[local->port].nic->steering;
    if (steering->queue_count <= 1)
        return (struct landing){.steering = NULL};
    CHECK(steering->reta_size > 0 && (steering->reta_size & (steering->reta_size - 1)) == 0);
    const struct rss_table *table = rss_table_of(stack->tcp->ports, local->port, steering);
    return (struct landing){
        steering, table, rss_base(table, key->family, key->remote, key->local, key->remote_port)};
}

static bool lands_here(const struct landing *landing, uint8_t family, uint16_t port)
{
    const struct nic_steering *steering = landing->steering;

    if (steering == NULL)
        return true;
    uint32_t hash = landing->base ^ rss_port(landing->table, family, port);
    return steering->reta[hash & (steering->reta_size - 1u)] == steering->queue;
}

static struct walk walk_of(struct stack *stack, const struct tcp_key *destination)
{
    uint64_t hash = siphash24(&stack->port_key, destination, sizeof(*destination));
    uint32_t *steps = &stack->tcp->ports->counters[(hash >> 54) % COUNTERS];
    uint32_t start = (uint32_t)hash % PORT_COUNT;
    uint32_t stride = (uint32_t)(hash >> 32) % PORT_COUNT | 1;

    while (stride % 3 == 0 || stride % 7 == 0)
        stride += 2; /* ends: PORT_COUNT - 1 has none of these factors */
    _Static_assert((uint64_t)PORT_COUNT * PORT_COUNT < UINT32_MAX, "the product fits");
    return (struct walk){(start + *steps % PORT_COUNT * stride) % PORT_COUNT, stride, steps};
}

static void walk_on(struct walk *walk)
{
    walk->place = (walk->place + walk->stride) % PORT_COUNT;
    ++*walk->steps;
}

static bool is_available(struct stack *stack, const struct tcp_key *key, uint32_t *ret_iss_min)
{
    *ret_iss_min = 0;
    if (tcp_listener_has_port(stack, key->family, key->local_port))
        return false;
    switch (tcp_table_find(stack, key).kind) {
    case TCP_FOUND_NONE:
        return true;
    case TCP_FOUND_TIME_WAIT:
        return tcp_time_wait_reuse(stack, key, ret_iss_min);
    default:
        return false;
    }
}

enum err tcp_port_choose(struct stack *stack, struct tcp_key *key, uint32_t *ret_iss_min)
{
    struct landing landing = landing_of(stack, key);
    struct tcp_key candidate = *key;

    candidate.local_port = 0;
    struct walk walk = walk_of(stack, &candidate);
    for (uint32_t tries = 0, lookups = 0; tries < PORT_COUNT && lookups < LOOKUPS_MAX; tries++) {
        candidate.local_port = (uint16_t)(PORT_FIRST + walk.place);
        walk_on(&walk);
        if (!lands_here(&landing, key->family, candidate.local_port))
            continue;
        lookups++;
        if (is_available(stack, &candidate, ret_iss_min)) {
            key->local_port = candidate.local_port;
            return ERR_OK;
        }
    }
    STACK_COUNT(stack, TCP_PORTS_EXHAUSTED);
    return ERR_LIMIT;
}
