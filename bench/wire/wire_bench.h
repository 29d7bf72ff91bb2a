/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_WIRE_WIRE_BENCH_H
#define BENCH_WIRE_WIRE_BENCH_H

#include "base/rng.h"
#include "dataplane/dataplane.h"

/*
 * angarium-wire-bench: one end of a measurement of the network alone, on either dataplane. Two
 * processes, a server and a client, one core each, run the same work:
 *
 *   bulk      the client sends on `streams` connections without end; the server drops what it reads
 *   connect   connect, request of 64 octets, reply of 64 octets, close; `streams` at a time. The
 *             server closes first, as an SMTP server does after 221
 *   request   64 octets there and back, one at a time on each of `streams` connections
 *   idle      `streams` connections are opened and kept; then requests go over a few of them drawn
 * at random
 *
 * What counts is counted by the client (bulk: by the server) between warm-up and end.
 */
#define WIRE_BENCH_REQUEST_SIZE 64u
#define WIRE_BENCH_SOURCE_MAX   64u
#define WIRE_BENCH_LISTENER     UINT64_MAX

enum wire_bench_mode { WIRE_BENCH_BULK, WIRE_BENCH_CONNECT, WIRE_BENCH_REQUEST, WIRE_BENCH_IDLE };

struct wire_bench_options {
    enum wire_bench_mode mode;
    bool is_server, is_json, has_counters;
    struct flow_address peer;                           /* where the server listens */
    struct flow_address sources[WIRE_BENCH_SOURCE_MAX]; /* of the client, in turn; none: any */
    uint32_t source_count;
    uint32_t streams;
    uint32_t window; /* receive and send limit of a flow, octets */
    uint32_t rate;   /* request: per second over all streams; 0: as fast as replies come */
    tick_us warm_up, duration;
    tick_us idle;   /* server: connections on which nothing came for so long are reset; 0: none */
    tick_us settle; /* server: how long it goes on after SIGTERM, for what is to end by itself */
    struct dataplane_options dataplane;
};

struct wire_bench_result {
    uint64_t operations, octets, failures, opened;
    tick_us time;
    uint64_t latency_us_total, latency_us_max; /* of operations */
    uint64_t poll_cycles, work_cycles, flush_cycles, turns, idle_turns;
    uint64_t resident_before, resident_after; /* octets; idle: around opening the connections */
};

struct wire_bench {
    const struct wire_bench_options *options;
    struct flow_plane *plane;
    tick_us now;
    bool is_measuring, is_done;
    struct wire_bench_result result;
    struct buf_queue payload; /* bulk: what is sent, again and again by reference */
    struct rng rng;
    /* the connections by user value: the client's, or with `idle` the server's */
    struct wire_bench_stream *streams;
    uint32_t open, to_open, opening, sampled; /* idle: how far the opening is */
    /* With a rate: streams that wait for their turn, and how many requests the time so far allows.
     * The server's: those that are free. */
    uint32_t *waiting, waiting_count;
    tick_us paced_since;
    uint64_t paced_count;
    uint32_t swept; /* server: the next stream to be looked at */
};

struct wire_bench_stream {
    struct flow flow;
    uint32_t got; /* octets of the reply so far */
    uint32_t source;
    bool is_waiting; /* for its turn, see `waiting` */
    tick_us began;
};

/** One event on any flow. */
void wire_bench_server_turn(struct wire_bench *bench);
void wire_bench_server_event(struct wire_bench *bench, const struct flow_event *event);
void wire_bench_client_event(struct wire_bench *bench, const struct flow_event *event);
/** At the beginning of each turn: open what is to be opened. */
void wire_bench_client_turn(struct wire_bench *bench);
void wire_bench_client_begin(struct wire_bench *bench);
enum err wire_bench_server_begin(struct wire_bench *bench) MUST_CHECK;
void wire_bench_end(struct wire_bench *bench);

#endif
