/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_LOAD_H
#define BENCH_LOAD_LOAD_H

#include <stdio.h>

#include "base/rng.h"
#include "dataplane/flow.h"

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
};

struct load_stats {
    uint64_t connections, messages, recipients, octets, tempfails, permfails, lost_connections,
        damaged;
};

/* The body text number `index` for messages of `size` octets: CRLF lines, no line begins with a
 * dot. Heap, built once. */
struct span load_template(uint32_t size, uint32_t index);

/** Kernel sockets with buffers enough for the options' sessions. Both are the caller's to free, the
 * plane first. */
enum err load_plane_new(const struct load_options *options, struct buf_pool **ret_pool,
                        struct flow_plane **ret_plane) MUST_CHECK;

int load_source_run(const struct load_options *options);
int load_sink_run(const struct load_options *options);
/* Compare ledgers: paths of sources' and sinks' files in any order. Prints the account; 0 only when
 * nothing was lost, damaged or invented. */
int load_audit_run(int path_count, char *const *paths, uint32_t recipients, bool is_json);

/* Set by SIGTERM, SIGINT. */
extern volatile int load_is_stopping;

void load_print_line(const struct load_options *options, const char *what,
                     const struct load_stats *now, const struct load_stats *before, double seconds);

#endif
