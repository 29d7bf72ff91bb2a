/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include "base/rng.h"
#include "bench/load/dist.h"
#include "bench/load/ledger.h"
#include "bench/load/meter.h"
#include "bench/load/mood.h"
#include "bench/load/pace.h"
#include "dataplane/dataplane.h"

/*
 * angarium-load: SMTP source and sink with a ledger. Its SMTP is its own, so that a mistake in the
 * relay's cannot hide itself here; TLS is the relay's stream over OpenSSL. text.h has what messages
 * look like, ledger.h the ledger.
 */
#define LOAD_PORT_MAX      2u
#define LOAD_ADDRESS_MAX   32u
#define LOAD_SESSION_MAX   1000000u
#define LOAD_RECIPIENT_MAX 10000u
#define LOAD_RETRY         TICK_MS(50) /* before a connection is made anew */

enum load_tls { LOAD_TLS_NONE, LOAD_TLS_START, LOAD_TLS_IMPLICIT };

struct load_options {
    struct flow_address target, listen;
    uint32_t sessions, messages, recipients, size, messages_per_session;
    uint32_t duration_s; /* 0: until `messages` are answered */
    double rate;         /* messages per second, 0: as fast as it goes */
    uint32_t ramp_s, timeout_s, drain_s;
    const char *sender, *hello;
    struct dist domains, sender_domains, sizes;
    const char *ledger_path, *report_directory;
    uint64_t run;
    uint32_t seed;
    bool is_patient;  /* source: reconnect for as long as it takes */
    bool is_resuming; /* source: TLS sessions */
    uint32_t idle;    /* source: connections besides `sessions` that send nothing */
    bool is_quiet, is_json;
    bool has_no_pipelining, has_chunking;
    enum load_tls tls;
    /* sink */
    struct mood mood;
    uint32_t sink_sessions, sink_messages; /* 0 messages: no end */
    uint32_t limit;                        /* connections; one more gets 421. 0: none */
    uint32_t moody_s;                      /* 4xx for everything during the first seconds */
    uint32_t tarpit_ms;                    /* between octets of replies */
    bool is_checking;                      /* every octet of what arrives */
    const char *keep_directory;            /* every message into a file of its own */
    const char *certificate_file, *key_file;
    /* DPDK; none: kernel sockets */
    struct dataplane_port_options ports[LOAD_PORT_MAX];
    struct flow_prefix addresses[LOAD_PORT_MAX][LOAD_ADDRESS_MAX];
    uint32_t port_count;
};

/*
 * Source and sink are engines on a plane that belongs to load_run(): events whose user value has
 * LOAD_SINK_USER are the sink's. One process may run both, on one core.
 */
#define LOAD_SINK_USER (1ull << 63)

struct source;
struct sink;

/** NULL: told why on standard error. The ledger, or NULL, is borrowed. */
struct source *source_new(const struct load_options *options, struct flow_plane *plane,
                          struct ledger *ledger, struct tick_now now);
void source_on_event(struct source *source, const struct flow_event *event, struct tick_now now);
/** Once a turn, after the events. False: all is sent and answered. */
bool source_turn(struct source *source, struct tick_now now);
/** By when source_turn() is needed. */
tick_us source_wakes(const struct source *source);
struct meter *source_meter(struct source *source);
/** "PIPELINING, TLSv1.3": what the last connection agreed on. */
const char *source_note(const struct source *source);
/** It gave up for a reason told on standard error. */
bool source_has_failed(const struct source *source);
void source_free(struct source *source);

struct sink *sink_new(const struct load_options *options, struct flow_plane *plane,
                      struct ledger *ledger, struct tick_now now);
void sink_on_event(struct sink *sink, const struct flow_event *event, struct tick_now now);
/** False: as many messages as were asked for are in. */
bool sink_turn(struct sink *sink, struct tick_now now);
tick_us sink_deadline(const struct sink *sink);
struct meter *sink_meter(struct sink *sink);
/** When the first MAIL came, or the start. */
tick_us sink_began(const struct sink *sink);
void sink_free(struct sink *sink);

/** A plane, and source or sink or both on it, until they are done. Exit status. */
int load_run(struct load_options *options, bool has_source, bool has_sink);

/** Write chart and figures into options->report_directory; source or sink may be NULL. False: told
 * why on standard error. */
bool load_report(const struct load_options *options, const struct meter *source,
                 const struct meter *sink) MUST_CHECK;
/** The chart alone. */
void load_chart(FILE *file, const char *title, const struct meter *source,
                const struct meter *sink);

/* Set by SIGTERM, SIGINT. */
extern volatile int load_is_stopping;

#endif
