/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_TRACE_H
#define CONTROL_ADMIN_TRACE_H

#include <jansson.h>

#include "control/shard.h"

/*
 * `trace`: who looks on at conversations (relay/trace.h). A viewer's client gets a line of JSON for
 * each line of a conversation, until it leaves, or what it asked for is over.
 */
#define ADMIN_TRACE_WHY_SIZE 96u

struct admin;
struct admin_client;

struct admin_trace_viewer {
    struct admin_client *client; /* NULL: free */
    struct trace_filter filter;
    bool is_terse;
    uint64_t line_max; /* 0: no bound */
    uint64_t lines, lost, lost_untold;
    tick_us deadline, quiet_at; /* the end; when a sign of life is due */
};

struct admin_trace {
    struct admin_trace_viewer viewers[TRACE_VIEWERS_MAX];
    uint32_t serial;
    struct trace_batch *batches; /* two for each shard, from the first viewer on */
    struct shard_query *queries; /* one for each shard */
    struct shard_trace_order order;
    uint32_t answers_due;
    bool is_stopped; /* the shards are gone */
    bool is_changed; /* viewers have changed since the shards were told */
};

/** What is asked for. False: why not. */
bool admin_trace_parse(const json_t *request, struct admin_trace_viewer *ret_viewer,
                       char ret_why[ADMIN_TRACE_WHY_SIZE]) MUST_CHECK;
/** A client's request for `trace`. It is refused, or WORKING until its trace is over. */
void admin_trace_begin(struct admin *admin, struct admin_client *client, tick_us now);
void admin_trace_forget_client(struct admin *admin, const struct admin_client *client);
/** True: the query was for the viewers, and is done with. */
bool admin_trace_on_reply(struct admin *admin, const struct shard_query *query);
/** Lines of a shard. */
void admin_trace_show(struct admin *admin, const struct trace_batch *batch, tick_us now);
/** The relay ends: shards are told no more. */
void admin_trace_stop(struct admin_trace *trace);
void admin_trace_run(struct admin *admin, tick_us now);
tick_us admin_trace_deadline(const struct admin_trace *trace);
void admin_trace_fini(struct admin_trace *trace);

/** What a terse viewer sees of a line of the server: of the last line of a reply its codes. False:
 * nothing. */
bool admin_trace_shorten(struct span *line);

#endif
