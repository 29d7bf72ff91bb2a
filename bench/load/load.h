/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include <stdio.h>

#include "base/rng.h"
#include "dataplane/dataplane.h"

/*
 * angarium-load: SMTP source and sink with a ledger, independent of the relay's own SMTP code, so
 * that a mistake there cannot hide itself here.
 *
 * Every message says who it is: the header field
 *     X-Load: <run>-<sequence> <template>
 * and a body that is one of LOAD_TEMPLATE_COUNT texts made from the size and the template's number.
 * A sink that is told the size rebuilds the texts and compares every octet.
 *
 * Ledger lines, one event each:
 *     S <id>            source: the end of data was sent
 *     A <id> <code>     source: the reply to the end of data
 *     F <id> <code>     source: refused before the end of data
 *     R <id> <recipient> ok|bad   sink: a message arrived, whole or damaged
 */
#define LOAD_TEMPLATE_COUNT 16u
#define LOAD_LINE_MAX       2048u
#define LOAD_PORT_MAX       2u
#define LOAD_ADDRESS_MAX    32u

struct load_options {
    struct flow_address target, listen;
    uint32_t sessions, messages, recipients, size, messages_per_session;
    uint32_t duration_s; /* 0: until `messages` are answered */
    uint32_t rate;       /* messages per second, 0: as fast as it goes */
    const char *sender;
    const char *domains; /* comma separated; recipients take turns */
    const char *ledger_path;
    uint64_t run;
    bool is_patient; /* source: reconnect for as long as it takes */
    bool is_quiet, is_json, has_messages;
    /* sink */
    uint32_t latency_ms;                         /* before the reply to the end of data */
    uint32_t percent_tempfail, percent_permfail; /* of recipients */
    uint32_t moody_s;                            /* 4xx for everything during the first seconds */
    const char *keep_directory;                  /* every message into a file of its own */
    uint64_t seed;
    struct dataplane_port_options ports[LOAD_PORT_MAX]; /* of DPDK; none: kernel sockets */
    struct flow_prefix addresses[LOAD_PORT_MAX][LOAD_ADDRESS_MAX];
    uint32_t port_count;
};

struct load_stats {
    uint64_t connections, messages, recipients, octets, tempfails, permfails, lost_connections,
        damaged;
};

/* The body text number `index` for messages of `size` octets: CRLF lines, no line begins with a
 * dot. Heap, built once. */
struct span load_template(uint32_t size, uint32_t index);

/*
 * Source and sink are engines on a plane that belongs to load_run(): events whose user value has
 * LOAD_SINK_USER are the sink's. One process may run both, on one core.
 */
#define LOAD_SINK_USER (1ull << 63)

struct source;
struct sink;

/** NULL: told why on standard error. */
struct source *source_new(const struct load_options *options, struct flow_plane *plane,
                          tick_us now);
void source_on_event(struct source *source, const struct flow_event *event, tick_us now);
/** Once a turn, after the events. False: all is sent and answered. */
bool source_turn(struct source *source, tick_us now);
/** Figures since the last call, if it is time; always and in all, if `is_total`. */
void source_print(struct source *source, tick_us now, bool is_total);
void source_free(struct source *source);

struct sink *sink_new(const struct load_options *options, struct flow_plane *plane, tick_us now);
void sink_on_event(struct sink *sink, const struct flow_event *event, tick_us now);
/** False: as many messages as were asked for are in. */
bool sink_turn(struct sink *sink, tick_us now);
/** How soon sink_turn() is needed. */
tick_us sink_patience(const struct sink *sink);
void sink_print(struct sink *sink, tick_us now, bool is_total);
void sink_free(struct sink *sink);

/** A plane, and source or sink or both on it, until they are done. Exit status. */
int load_run(const struct load_options *options, bool has_source, bool has_sink);
/* Compare ledgers: paths of sources' and sinks' files in any order. Prints the account; 0 only when
 * nothing was lost, damaged or invented. */
int load_audit_run(int path_count, char *const *paths, uint32_t recipients, bool is_json);

/* Set by SIGTERM, SIGINT. */
extern volatile int load_is_stopping;

void load_print_line(const struct load_options *options, const char *what,
                     const struct load_stats *now, const struct load_stats *before, double seconds);

#endif
