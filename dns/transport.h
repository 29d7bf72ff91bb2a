/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_TRANSPORT_H
#define DNS_TRANSPORT_H

#include "dataplane/flow.h"
#include "dns/dns.h"
#include "dns/query.h"

/* Exchanges of one question with the resolvers: UDP, then TCP, then another resolver. */
#define TRANSPORT_RESOLVER_MAX 4u
#define TRANSPORT_TCP_TIME     TICK_S(5) /* connect, ask and read all of the answer */
#define TRANSPORT_TCP_MAX      64u       /* exchanges over TCP at a time */
#define TRANSPORT_PAUSE        TICK_MS(250)
#define TRANSPORT_FAILURE_MAX  3u /* in a row, then a resolver is avoided */
#define TRANSPORT_AVOID_MIN    TICK_S(5)
#define TRANSPORT_AVOID_MAX    TICK_S(60)

struct transport_resolver {
    struct flow_address address;
    uint32_t failures; /* since its last answer */
    tick_us avoid_until;
};

struct transport {
    struct flow_plane *plane;
    struct rng *rng;
    struct dns_stats *stats;
    struct transport_resolver resolvers[TRANSPORT_RESOLVER_MAX];
    uint32_t resolver_count, tries_max, tcp_count;
    tick_us query_timeout;
};

#define TRANSPORT_STATES                                                                           \
    X(IDLE, "no exchange")                                                                         \
    X(UDP, "a datagram is out")                                                                    \
    X(TCP, "connecting, or waiting for the framed answer")                                         \
    X(PAUSED, "no resolver can be reached just now; the next try waits")

enum transport_state {
#define X(name, text) TRANSPORT_##name,
    TRANSPORT_STATES
#undef X
        TRANSPORT_STATE_COUNT
};

/* One question in flight. */
struct transport_exchange {
    enum transport_state state;
    struct flow flow;
    uint64_t user; /* of the flows opened for it */
    uint8_t resolver, tries;
    uint8_t useless;      /* bit per resolver: answered, but not with an answer */
    tick_us deadline;     /* of this state: transport_expire() then */
    tick_us deadline_all; /* no try begins after it */
    uint8_t *octets;      /* TCP: the message being read, heap */
    uint32_t octets_size, octets_used;
    uint8_t prefix[2]; /* TCP: its length */
    uint32_t prefix_used;
    bool is_asked; /* TCP: the query has been appended */
    struct query query;
};

enum transport_result {
    TRANSPORT_WAITING, /* until exchange->deadline, or an event */
    TRANSPORT_ANSWERED,
    TRANSPORT_FAILED
};

void transport_init(struct transport *transport, const struct dns_options *options,
                    struct flow_plane *plane, struct rng *rng, struct dns_stats *stats);

/** How long an exchange can take at most. */
tick_us transport_time_max(const struct transport *transport);

/** Begin to ask. Never ends inside this call: what fails at once is tried again by expire. */
void transport_begin(struct transport *transport, struct transport_exchange *exchange,
                     struct span name, uint16_t type, uint64_t user, tick_us now);

/**
 * An event of exchange->flow. With ANSWERED, `*ret_packet` is a reply that query_judge() calls
 * ANSWERED, valid until the next call on the plane or on this exchange.
 */
enum transport_result transport_on_flow(struct transport *transport,
                                        struct transport_exchange *exchange,
                                        const struct flow_event *event, tick_us now,
                                        struct span *ret_packet);
/** exchange->deadline is over. */
enum transport_result transport_expire(struct transport *transport,
                                       struct transport_exchange *exchange, tick_us now);
/** The reply handed out could not be read: as SERVFAIL. */
enum transport_result transport_reject(struct transport *transport,
                                       struct transport_exchange *exchange, tick_us now);
/** Close what is open; the exchange is IDLE. Due after ANSWERED and FAILED, legal at any time. */
void transport_end(struct transport *transport, struct transport_exchange *exchange);

#endif
