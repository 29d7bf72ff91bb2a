/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How one question reaches a resolver and its answer comes back.
 *
 * Each try opens a flow of its own, so that the flow plane draws a source port for it, and carries
 * a query of its own, with a new ID and new letter case. A packet that is not the reply to exactly
 * this try is counted and otherwise has no effect.
 *
 *   IDLE -> UDP      a query was sent: exchange_try()
 *   IDLE -> TCP      the reply to it was truncated: exchange_ask_tcp(), same resolver
 *   IDLE -> PAUSED   nothing can be sent just now, or every resolver is unreachable
 *   * -> IDLE        exchange_drop(): between two tries, and at the end
 *
 * Invariants
 *   1. A flow is open exactly in UDP and TCP; `octets` is held in TCP only.
 *   2. At most tries_max tries, and none begins after deadline_all; so transport_time_max() bounds
 *      an exchange whatever resolvers do.
 *   3. A resolver that gave SERVFAIL, REFUSED or nonsense is not asked this question again; when
 *      all did, the exchange fails without more tries. SERVFAIL says something of the question, so
 *      only time-outs, REFUSED and unreachability count against the resolver.
 *   4. A TCP answer is kept as long as its own length says, at most 65,535 octets, and is read
 *      under one deadline from connect to last octet: an octet a second does not help it.
 *
 * Resolvers are preferred in the order configured. After TRANSPORT_FAILURE_MAX failures in a row
 * one is avoided, for longer each time; when all are avoided, the one that is due first is asked.
 */
#include "dns/transport.h"

#include <stdlib.h>

#define DATAGRAMS_PER_EVENT 64u
#define READS_PER_EVENT     64u
#define TCP_LIMIT           (128u * 1024u)

static const uint32_t transport_edges[TRANSPORT_STATE_COUNT] = {
    [TRANSPORT_IDLE] =
        1u << TRANSPORT_UDP | 1u << TRANSPORT_TCP | 1u << TRANSPORT_PAUSED | 1u << TRANSPORT_IDLE,
    [TRANSPORT_UDP] = 1u << TRANSPORT_IDLE,
    [TRANSPORT_TCP] = 1u << TRANSPORT_IDLE,
    [TRANSPORT_PAUSED] = 1u << TRANSPORT_IDLE,
};

/* The only writer of exchange->state; arms its deadline. */
static void transport_enter(struct transport *transport, struct transport_exchange *exchange,
                            enum transport_state next, tick_us deadline)
{
    CHECK(next < TRANSPORT_STATE_COUNT);
    CHECK(transport_edges[exchange->state] & 1u << next);
    CHECK((next == TRANSPORT_UDP || next == TRANSPORT_TCP) == !flow_is_none(exchange->flow));

    if (exchange->state == TRANSPORT_TCP)
        transport->tcp_count--;
    if (next == TRANSPORT_TCP)
        transport->tcp_count++;
    exchange->state = next;
    exchange->deadline = deadline;
}

/* End what the current try holds. A TCP connection that served us well is closed, not reset. */
static void exchange_drop(struct transport *transport, struct transport_exchange *exchange,
                          bool is_graceful)
{
    if (exchange->state == TRANSPORT_TCP && !is_graceful)
        flow_abort(transport->plane, exchange->flow);
    else if (!flow_is_none(exchange->flow))
        flow_close(transport->plane, exchange->flow);
    free(exchange->octets);
    exchange->octets = NULL;
    exchange->octets_size = exchange->octets_used = exchange->prefix_used = 0;
    exchange->is_asked = false;
    exchange->flow = (struct flow){0};
    transport_enter(transport, exchange, TRANSPORT_IDLE, TICK_NEVER);
}

static void resolver_succeeded(struct transport *transport,
                               const struct transport_exchange *exchange)
{
    struct transport_resolver *resolver = &transport->resolvers[exchange->resolver];

    resolver->failures = 0;
    resolver->avoid_until = 0;
}

static void resolver_failed(struct transport *transport, const struct transport_exchange *exchange,
                            tick_us now)
{
    struct transport_resolver *resolver = &transport->resolvers[exchange->resolver];
    tick_us avoid = TRANSPORT_AVOID_MIN;

    resolver->failures++;
    if (resolver->failures < TRANSPORT_FAILURE_MAX)
        return;
    for (uint32_t i = TRANSPORT_FAILURE_MAX; i < resolver->failures; i++) {
        avoid *= 2;
        if (avoid >= TRANSPORT_AVOID_MAX)
            break;
    }
    resolver->avoid_until = now + (avoid < TRANSPORT_AVOID_MAX ? avoid : TRANSPORT_AVOID_MAX);
}

/* The resolver to ask next; false when all of them were useless for this question. */
static bool resolver_choose(const struct transport *transport,
                            const struct transport_exchange *exchange, tick_us now,
                            uint8_t *ret_resolver)
{
    uint32_t first = exchange->tries == 0 ? 0 : exchange->resolver + 1u;
    bool is_found = false;
    tick_us due = TICK_NEVER;

    for (uint32_t i = 0; i < transport->resolver_count; i++) {
        uint32_t index = (first + i) % transport->resolver_count;
        tick_us avoid_until = transport->resolvers[index].avoid_until;
        if (exchange->useless & 1u << index)
            continue;
        if (avoid_until <= now) {
            *ret_resolver = (uint8_t)index;
            return true;
        }
        if (avoid_until < due) {
            due = avoid_until;
            *ret_resolver = (uint8_t)index;
            is_found = true;
        }
    }
    return is_found;
}

static void exchange_pause(struct transport *transport, struct transport_exchange *exchange,
                           tick_us now)
{
    exchange_drop(transport, exchange, false);
    transport_enter(transport, exchange, TRANSPORT_PAUSED, now + TRANSPORT_PAUSE);
}

/* Ask the chosen resolver by datagram, from a port of its own. */
static void exchange_try(struct transport *transport, struct transport_exchange *exchange,
                         tick_us now)
{
    const struct flow_address *remote = &transport->resolvers[exchange->resolver].address;
    struct flow_address local = {.family = remote->family};
    struct query *query = &exchange->query;

    exchange->tries++;
    query_write(query, transport->rng);
    enum err err =
        flow_open_datagram(transport->plane, &local, remote, exchange->user, &exchange->flow);
    if (err == ERR_OK) {
        transport_enter(transport, exchange, TRANSPORT_UDP, now + transport->query_timeout);
        err = flow_send_datagram(transport->plane, exchange->flow,
                                 span_of(query->packet, query->size));
    } else {
        exchange->flow = (struct flow){0};
    }
    if (err != ERR_OK) {
        exchange_pause(transport, exchange, now);
        return;
    }
    transport->stats->queries_udp++;
}

/* The current try is over without an answer: another resolver, another try, or the end. */
static enum transport_result exchange_next(struct transport *transport,
                                           struct transport_exchange *exchange, tick_us now)
{
    uint8_t resolver = 0;

    exchange_drop(transport, exchange, false);
    if (exchange->tries >= transport->tries_max || now >= exchange->deadline_all ||
        !resolver_choose(transport, exchange, now, &resolver)) {
        return TRANSPORT_FAILED;
    }
    exchange->resolver = resolver;
    exchange_try(transport, exchange, now);
    return TRANSPORT_WAITING;
}

/* The resolver cannot be reached. Others are asked at once; when each had its turn, a pause keeps
 * the tries from being spent in one moment, for instance while a local resolver restarts. */
static enum transport_result exchange_unreachable(struct transport *transport,
                                                  struct transport_exchange *exchange, tick_us now)
{
    resolver_failed(transport, exchange, now);
    if (exchange->tries < transport->resolver_count || exchange->tries >= transport->tries_max)
        return exchange_next(transport, exchange, now);
    exchange_pause(transport, exchange, now);
    return TRANSPORT_WAITING;
}

static enum transport_result exchange_useless(struct transport *transport,
                                              struct transport_exchange *exchange, tick_us now)
{
    exchange->useless |= (uint8_t)(1u << exchange->resolver);
    return exchange_next(transport, exchange, now);
}

static void exchange_ask_tcp(struct transport *transport, struct transport_exchange *exchange,
                             tick_us now)
{
    exchange_drop(transport, exchange, true);
    struct flow_connect_options options = {
        .remote = transport->resolvers[exchange->resolver].address,
        .deadline = now + TRANSPORT_TCP_TIME,
        .receive_limit = TCP_LIMIT,
        .send_limit = TCP_LIMIT,
        .user = exchange->user,
    };
    if (transport->tcp_count == TRANSPORT_TCP_MAX ||
        flow_connect(transport->plane, &options, &exchange->flow) != ERR_OK) {
        exchange->flow = (struct flow){0};
        exchange_pause(transport, exchange, now);
        return;
    }
    transport_enter(transport, exchange, TRANSPORT_TCP, options.deadline);
    query_write(&exchange->query, transport->rng);
    transport->stats->queries_tcp++;
}

/* A reply to our question is in: what it means for the exchange. */
static enum transport_result exchange_judge(struct transport *transport,
                                            struct transport_exchange *exchange,
                                            enum query_verdict verdict, tick_us now)
{
    switch (verdict) {
    case QUERY_ANSWERED:
        resolver_succeeded(transport, exchange);
        transport->stats->answers++;
        return TRANSPORT_ANSWERED;
    case QUERY_TRUNCATED:
        resolver_succeeded(transport, exchange);
        transport->stats->truncated++;
        if (exchange->state == TRANSPORT_TCP)
            return exchange_useless(transport, exchange, now);
        exchange_ask_tcp(transport, exchange, now);
        return TRANSPORT_WAITING;
    case QUERY_SERVFAIL:
        resolver_succeeded(transport, exchange);
        transport->stats->servfail++;
        return exchange_useless(transport, exchange, now);
    default:
        CHECK(verdict == QUERY_REFUSED);
        resolver_failed(transport, exchange, now);
        return exchange_useless(transport, exchange, now);
    }
}

static enum transport_result udp_on_flow(struct transport *transport,
                                         struct transport_exchange *exchange, tick_us now,
                                         struct span *ret_packet)
{
    const struct flow_address *resolver = &transport->resolvers[exchange->resolver].address;
    struct flow_address from;
    struct span packet;

    for (uint32_t i = 0; i < DATAGRAMS_PER_EVENT; i++) {
        enum err err = flow_receive_datagram(transport->plane, exchange->flow, &from, &packet);
        if (err == ERR_AGAIN)
            return TRANSPORT_WAITING;
        if (err != ERR_OK)
            return exchange_unreachable(transport, exchange, now);
        enum query_verdict verdict = flow_address_is_equal(&from, resolver)
                                         ? query_judge(&exchange->query, packet)
                                         : QUERY_WRONG;
        if (verdict == QUERY_WRONG) {
            transport->stats->wrong_packets++;
            continue;
        }
        *ret_packet = packet;
        return exchange_judge(transport, exchange, verdict, now);
    }
    return TRANSPORT_WAITING;
}

static bool tcp_ask(struct transport *transport, struct transport_exchange *exchange)
{
    const struct query *query = &exchange->query;
    uint32_t size = query->size + 2u;
    struct span_mut room = flow_reserve(transport->plane, exchange->flow, size);

    if (room.data == NULL)
        return false;
    room.data[0] = (uint8_t)(query->size >> 8);
    room.data[1] = (uint8_t)query->size;
    memcpy(room.data + 2, query->packet, query->size);
    flow_commit(transport->plane, exchange->flow, size);
    flow_push(transport->plane, exchange->flow);
    exchange->is_asked = true;
    return true;
}

/* Take octets of one framed message; returns how many. The message is whole when octets_used
 * reaches octets_size and the prefix is in. */
static uint32_t tcp_feed(struct transport_exchange *exchange, struct span input)
{
    uint32_t used = 0;

    while (exchange->prefix_used < 2 && used < input.size)
        exchange->prefix[exchange->prefix_used++] = input.data[used++];
    if (exchange->prefix_used < 2)
        return used;
    if (exchange->octets == NULL) {
        exchange->octets_size = (uint32_t)(exchange->prefix[0] << 8 | exchange->prefix[1]);
        exchange->octets = malloc(exchange->octets_size + 1u);
        CHECK(exchange->octets != NULL);
    }
    uint32_t size = exchange->octets_size - exchange->octets_used;
    if (size > input.size - used)
        size = input.size - used;
    if (size > 0)
        memcpy(exchange->octets + exchange->octets_used, input.data + used, size);
    exchange->octets_used += size;
    return used + size;
}

static bool tcp_is_whole(const struct transport_exchange *exchange)
{
    return exchange->octets != NULL && exchange->octets_used == exchange->octets_size;
}

/* A message that is not our reply: forget it and read the next. */
static void tcp_skip(struct transport *transport, struct transport_exchange *exchange)
{
    transport->stats->wrong_packets++;
    free(exchange->octets);
    exchange->octets = NULL;
    exchange->octets_size = exchange->octets_used = exchange->prefix_used = 0;
}

static enum transport_result tcp_read(struct transport *transport,
                                      struct transport_exchange *exchange, tick_us now,
                                      struct span *ret_packet)
{
    struct span input;

    for (uint32_t i = 0; i < READS_PER_EVENT; i++) {
        if (flow_peek(transport->plane, exchange->flow, &input, 1) == 0 || input.size == 0)
            return TRANSPORT_WAITING;
        flow_consume(transport->plane, exchange->flow, tcp_feed(exchange, input));
        if (!tcp_is_whole(exchange))
            continue;
        struct span packet = span_of(exchange->octets, exchange->octets_size);
        enum query_verdict verdict = query_judge(&exchange->query, packet);
        if (verdict == QUERY_WRONG) {
            tcp_skip(transport, exchange);
            continue;
        }
        *ret_packet = packet;
        return exchange_judge(transport, exchange, verdict, now);
    }
    return TRANSPORT_WAITING;
}

static enum transport_result tcp_on_flow(struct transport *transport,
                                         struct transport_exchange *exchange, uint32_t events,
                                         tick_us now, struct span *ret_packet)
{
    if (events & FLOW_FAILED)
        return exchange_unreachable(transport, exchange, now);
    if ((events & FLOW_CONNECTED) && !exchange->is_asked && !tcp_ask(transport, exchange)) {
        exchange_pause(transport, exchange, now);
        return TRANSPORT_WAITING;
    }
    struct flow flow = exchange->flow;
    if (events & (FLOW_READABLE | FLOW_PEER_CLOSED | FLOW_RESET)) {
        enum transport_result result = tcp_read(transport, exchange, now, ret_packet);
        bool is_same = exchange->state == TRANSPORT_TCP &&
                       exchange->flow.generation == flow.generation &&
                       exchange->flow.index == flow.index;
        if (result != TRANSPORT_WAITING || !is_same)
            return result;
    }
    if ((events & (FLOW_PEER_CLOSED | FLOW_RESET)) &&
        flow_readable(transport->plane, exchange->flow) == 0) {
        return exchange_unreachable(transport, exchange, now);
    }
    return TRANSPORT_WAITING;
}

void transport_init(struct transport *transport, const struct dns_options *options,
                    struct flow_plane *plane, struct rng *rng, struct dns_stats *stats)
{
    CHECK(options->resolver_count >= 1 && options->resolver_count <= TRANSPORT_RESOLVER_MAX);
    CHECK(options->tries_max >= 1 && options->tries_max <= 16);
    CHECK(options->query_timeout > 0);

    *transport = (struct transport){
        .plane = plane,
        .rng = rng,
        .stats = stats,
        .resolver_count = options->resolver_count,
        .tries_max = options->tries_max,
        .query_timeout = options->query_timeout,
    };
    for (uint32_t i = 0; i < options->resolver_count; i++)
        transport->resolvers[i].address = options->resolvers[i];
}

tick_us transport_time_max(const struct transport *transport)
{
    return (transport->tries_max + 1) * transport->query_timeout + 2 * TRANSPORT_TCP_TIME;
}

void transport_begin(struct transport *transport, struct transport_exchange *exchange,
                     struct span name, uint16_t type, uint64_t user, tick_us now)
{
    CHECK(exchange->state == TRANSPORT_IDLE);

    *exchange = (struct transport_exchange){
        .user = user,
        .deadline_all = now + transport->tries_max * transport->query_timeout + TRANSPORT_TCP_TIME,
    };
    query_init(&exchange->query, name, type);
    bool is_found = resolver_choose(transport, exchange, now, &exchange->resolver);
    CHECK(is_found); /* none is useless yet */
    exchange_try(transport, exchange, now);
}

enum transport_result transport_on_flow(struct transport *transport,
                                        struct transport_exchange *exchange,
                                        const struct flow_event *event, tick_us now,
                                        struct span *ret_packet)
{
    if (exchange->state == TRANSPORT_UDP)
        return udp_on_flow(transport, exchange, now, ret_packet);
    if (exchange->state == TRANSPORT_TCP)
        return tcp_on_flow(transport, exchange, event->events, now, ret_packet);
    return TRANSPORT_WAITING;
}

enum transport_result transport_expire(struct transport *transport,
                                       struct transport_exchange *exchange, tick_us now)
{
    CHECK(exchange->state != TRANSPORT_IDLE);

    if (exchange->state != TRANSPORT_PAUSED) {
        transport->stats->timeouts++;
        resolver_failed(transport, exchange, now);
    }
    return exchange_next(transport, exchange, now);
}

enum transport_result transport_reject(struct transport *transport,
                                       struct transport_exchange *exchange, tick_us now)
{
    transport->stats->servfail++;
    return exchange_useless(transport, exchange, now);
}

void transport_end(struct transport *transport, struct transport_exchange *exchange)
{
    exchange_drop(transport, exchange, true);
}
