/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_SIM_WIRE_H
#define TESTS_SIM_SIM_WIRE_H

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/stack.h"

/*
 * The parts of sim_wire: two hosts of one or two stacks each, the actors that use them, the
 * observer on the wire. See sim_wire.c.
 */
#define SIM_HOST_COUNT 2u
#define SIM_STACK_MAX  2u /* per host */
#define SIM_CONN_MAX   64u
#define SIM_NEWS_MAX   256u

/* What can be planted to see whether it is found (--plant NAME). */
enum sim_plant {
    SIM_PLANT_NONE,
    SIM_PLANT_LYING_CARD, /* a card that calls corrupted segments good */
    SIM_PLANT_LOST_OCTET, /* an octet taken from a stream and given to nobody */
    SIM_PLANT_LEAK,       /* a buffer that is never released */
    SIM_PLANT_REWRITE,    /* a repeated segment with other octets, checksum right */
    SIM_PLANT_BEYOND,     /* a window that is made larger on its way */
    SIM_PLANT_COUNT
};
extern const char *const sim_plant_names[SIM_PLANT_COUNT];

struct sim_wire_options {
    uint64_t seed;
    enum sim_plant plant;
    bool is_traced,
        is_verified; /* is_verified: stack_verify() after every turn, whatever the seed */
};

struct sim_host {
    uint8_t mac[6];
    struct flow_address address;
    uint32_t stack_count;
    struct stack_options stack; /* as drawn; pools and ports are per stack */
    struct stack_port_options port;
    struct stack_address local[1];
    struct link_sim_station_options station;
    uint32_t station_number, pool_size[4]; /* buffers of: pool, header, clone, receive */
    uint32_t buffer_size, receive_size;
    struct buf_pool *pools[SIM_STACK_MAX][4];
    struct stack *stacks[SIM_STACK_MAX];
    struct flow listeners[SIM_STACK_MAX];
    uint32_t receive_limit;                              /* of accepted connections; 0: the usual */
    struct stack_news news[SIM_STACK_MAX][SIM_NEWS_MAX]; /* for that stack, from its sibling */
    uint32_t news_count[SIM_STACK_MAX];
};

/* ---- connections and their two ends ---- */

enum sim_ending {
    SIM_END_SHUTDOWN, /* FIN when all is written, then reads on until the peer's */
    SIM_END_WAIT,     /* closes after the peer has */
    SIM_END_EARLY,    /* closes when all is written, whatever comes */
    SIM_END_ABORT,    /* at some point */
};

enum sim_actor_state { SIM_ACTOR_IDLE, SIM_ACTOR_CONNECTING, SIM_ACTOR_OPEN, SIM_ACTOR_DONE };

struct sim_actor {
    struct sim_wire *sim;
    uint32_t conn, side, host, stack; /* side 0 connected */
    enum sim_actor_state state;
    struct flow flow;
    tick_us wake_at;
    /* manners, as drawn */
    enum sim_ending ending;
    uint64_t size, abort_after; /* octets to write; written or read before an abort */
    uint32_t chunk, read_max, send_limit, receive_limit;
    tick_us pause_max;
    bool takes, corks;
    /* what happened */
    uint64_t written, read;
    struct buf_queue taken;
    bool has_shut_down, has_peer_closed, is_lost;
};

struct sim_conn {
    struct flow_address client; /* as the stack chose it; of the latest attempt */
    bool has_client;
    uint32_t attempts;
    struct sim_actor actors[2];
};

struct sim_observer;

struct sim_wire {
    struct sim_wire_options options;
    struct rng rng; /* draws the world */
    struct rng chance;
    struct link_sim *link;
    tick_us now, heal_at;
    bool is_healed, is_gentle; /* gentle: nothing is lost, so nothing may be reset */
    struct sim_host hosts[SIM_HOST_COUNT];
    struct sim_conn conns[SIM_CONN_MAX];
    uint32_t conn_count, ghost_count;
    struct sim_actor ghosts[SIM_CONN_MAX]; /* connections that a late cookie brought about */
    struct sim_observer *observer;
    uint32_t violations;
    uint64_t octets;
};

#define SIM_VIOLATION_MAX 20u /* more are not printed, and end the run */

/* Who accepts one of these sends back what comes, in the buffers that it came in. */
static inline bool sim_conn_echoes(uint32_t conn)
{
    return conn % 2 == 1;
}

/* A stream's name: what test_stream_octet() calls it. */
static inline uint64_t sim_stream(uint32_t conn, uint32_t side)
{
    return 1000 + conn * 2 + (sim_conn_echoes(conn) ? 0 : side);
}

/* sim_wire_ghost.c */
#define SIM_GHOST_USER 1000000u /* of the first: flows of others are below */
void sim_ghost_welcome(struct sim_wire *sim, uint32_t host, uint32_t stack, struct flow flow);
void sim_ghost_on_event(struct sim_actor *ghost, uint32_t events);

/* sim_wire_report.c */
extern const char *const sim_pool_names[4];
__attribute__((format(printf, 2, 3))) void sim_violation(struct sim_wire *sim, const char *format,
                                                         ...);
__attribute__((format(printf, 2, 3))) void sim_trace(struct sim_wire *sim, const char *format, ...);
/** With --trace: what was drawn, and in the end what the stacks and the link counted. */
void sim_report_hosts(struct sim_wire *sim);
void sim_report_counters(struct sim_wire *sim);
static inline struct flow_plane *sim_plane(const struct sim_wire *sim, uint32_t host,
                                           uint32_t stack)
{
    return stack_plane(sim->hosts[host].stacks[stack]);
}

/* sim_wire_draw.c */
/** Everything about hosts, paths and connections, from the seed. */
void sim_wire_draw(struct sim_wire *sim);
/** From now on only what belongs to the network: delay, rate, MTU. */
void sim_wire_heal(struct sim_wire *sim);

/* sim_wire_actor.c */
void sim_actors_on_event(struct sim_wire *sim, uint32_t host, uint32_t stack,
                         const struct flow_event *event);
/** What the clock asks of the actors of this stack. */
void sim_actors_turn(struct sim_wire *sim, uint32_t host, uint32_t stack);
tick_us sim_actors_deadline(const struct sim_wire *sim);
bool sim_actors_are_done(const struct sim_wire *sim);
/** At the end: was everything delivered that had to be? */
void sim_actors_settle(struct sim_wire *sim);

/* sim_wire_observer.c */
struct sim_observer *sim_observer_new(struct sim_wire *sim);
void sim_observer_free(struct sim_observer *observer);
bool sim_observer_filter(void *context, uint32_t station, tick_us now, uint8_t *octets,
                         uint32_t size);

#endif
