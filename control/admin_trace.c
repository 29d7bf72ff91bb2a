/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Viewers of conversations: the shards are told who there is, and their lines go to whom they are
 * for.
 *
 *   {"verb":"trace","id":"192.0.2.0/24","only_new":true,"terse":true,"seconds":N,"count":N}
 *   -> {"row":{"time_us":...,"side":"inbound","speaker":"client","session":"...","text":"..."}}
 *      {"lost":12}     lines that this viewer did not get, at that place
 *      {"quiet":true}  nothing was said for QUIET_TIME
 *      {"ok":true,"lines":...,"lost":...}
 *
 * All shards are told at once; changes that come meanwhile wait for the last answer, and then go
 * out together.
 *
 * Invariants
 *   1. `order` does not change while a shard may read it.
 *   2. A viewer that does not read costs UNSENT_MAX octets at most, and nobody's time: what is
 *      beyond is lost and counted.
 *   3. A place is free as soon as its client has left: lines carry the serial of whom they are for.
 */
#include "control/admin_trace.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/admin_internal.h"
#include "dns/dns.h"
#include "relay/smtp_reply.h"

#define UNSENT_MAX  262144u
#define QUIET_TIME  TICK_S(15)
#define SECONDS_MAX 86400

/* ---- requests ---- */

/* A domain, or what else a site can be called: a provider of `sites`, a word; an address in
 * brackets. */
static bool is_name(struct span text)
{
    char name[MX_NAME_MAX];
    uint32_t size, plain = 0;

    if (dns_name_normalize(text, name, &size) == ERR_OK)
        return true;
    if (text.data[0] == '[' && text.data[text.size - 1] == ']')
        return true;
    while (plain < text.size && (isalnum(text.data[plain]) || strchr("._-", text.data[plain])))
        plain++;
    return plain == text.size && text.size <= SITE_LABEL_MAX;
}

static bool what_parse(const char *what, struct trace_filter *filter)
{
    struct span text = span_from_text(what);

    if (text.size == 0 || text.size >= sizeof(filter->name))
        return false;
    memcpy(filter->name, what, text.size);
    filter->kind = TRACE_KIND_NAME;
    if (message_id_parse(text, &filter->id) == ERR_OK)
        filter->kind = TRACE_KIND_MESSAGE;
    else if (flow_prefix_parse(text, &filter->prefix) == ERR_OK)
        filter->kind = TRACE_KIND_ADDRESS;
    return filter->kind != TRACE_KIND_NAME || is_name(text);
}

bool admin_trace_parse(const json_t *request, struct admin_trace_viewer *ret_viewer,
                       char ret_why[ADMIN_TRACE_WHY_SIZE])
{
    const char *what = json_string_value(json_object_get(request, "id"));
    json_int_t seconds = json_integer_value(json_object_get(request, "seconds"));
    json_int_t count = json_integer_value(json_object_get(request, "count"));

    *ret_viewer = (struct admin_trace_viewer){
        .is_terse = json_is_true(json_object_get(request, "terse")),
        .line_max = count > 0 ? (uint64_t)count : 0,
        .deadline = TICK_NEVER,
        .filter.is_only_new = json_is_true(json_object_get(request, "only_new")),
    };
    if (seconds > 0)
        ret_viewer->deadline = TICK_S(seconds < SECONDS_MAX ? seconds : SECONDS_MAX);
    if (what != NULL && what_parse(what, &ret_viewer->filter))
        return true;
    (void)snprintf(ret_why, ADMIN_TRACE_WHY_SIZE,
                   "trace what? an address, a prefix, a site, a domain or a message's id: this can "
                   "be none of these");
    return false;
}

/* ---- the shards ---- */

static bool memory_get(struct admin *admin)
{
    struct admin_trace *trace = &admin->trace;
    uint32_t count = admin->options.shard_count;

    if (trace->batches == NULL)
        trace->batches = calloc(2 * (size_t)count, sizeof(*trace->batches));
    if (trace->queries == NULL)
        trace->queries = calloc(count, sizeof(*trace->queries));
    return trace->batches != NULL && trace->queries != NULL;
}

/* Tell the shards, unless some have not answered the last time yet. */
static void shards_tell(struct admin *admin)
{
    struct admin_trace *trace = &admin->trace;

    if (!trace->is_changed || trace->answers_due > 0 || trace->is_stopped)
        return;
    trace->is_changed = false;
    trace->order.batches = trace->batches;
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++)
        trace->order.filters[i] =
            trace->viewers[i].client == NULL ? (struct trace_filter){0} : trace->viewers[i].filter;
    for (uint32_t i = 0; i < admin->options.shard_count; i++) {
        trace->queries[i] = (struct shard_query){.kind = SHARD_QUERY_TRACE, .trace = &trace->order};
        trace->answers_due += 1;
        admin->options.query(admin->options.context, i, &trace->queries[i]);
    }
}

bool admin_trace_on_reply(struct admin *admin, const struct shard_query *query)
{
    struct admin_trace *trace = &admin->trace;

    if (trace->queries == NULL || query < trace->queries ||
        query >= trace->queries + admin->options.shard_count)
        return false;
    CHECK(trace->answers_due > 0);
    trace->answers_due -= 1;
    shards_tell(admin);
    return true;
}

/* ---- viewers ---- */

void admin_trace_begin(struct admin *admin, struct admin_client *client, tick_us now)
{
    struct admin_trace *trace = &admin->trace;
    struct admin_trace_viewer *place = NULL, viewer;
    char why[ADMIN_TRACE_WHY_SIZE];

    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        if (trace->viewers[i].client == NULL)
            place = &trace->viewers[i];
    }
    if (place == NULL || !memory_get(admin)) {
        admin_client_refuse(admin, client,
                            place == NULL ? "too many look on already" : "no memory");
        return;
    }
    if (!admin_trace_parse(client->parsed, &viewer, why)) {
        admin_client_refuse(admin, client, why);
        return;
    }
    *place = viewer;
    place->client = client;
    place->filter.serial = ++trace->serial;
    place->quiet_at = now + QUIET_TIME;
    place->deadline = viewer.deadline == TICK_NEVER ? TICK_NEVER : now + viewer.deadline;
    client->state = ADMIN_CLIENT_WORKING;
    client->deadline = TICK_NEVER;
    log_line(LOG_INFO, "event=trace what=%s", place->filter.name);
    trace->is_changed = true;
    shards_tell(admin);
}

void admin_trace_forget_client(struct admin *admin, const struct admin_client *client)
{
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        if (admin->trace.viewers[i].client != client)
            continue;
        admin->trace.viewers[i].client = NULL;
        admin->trace.is_changed = true;
        shards_tell(admin);
    }
}

static void viewer_end(struct admin *admin, struct admin_trace_viewer *viewer, tick_us now)
{
    struct admin_client *client = viewer->client;
    json_t *answer = json_pack("{sb,sI,sI}", "ok", 1, "lines", (json_int_t)viewer->lines, "lost",
                               (json_int_t)(viewer->lost + viewer->lost_untold));

    admin_trace_forget_client(admin, client);
    client->deadline = now + ADMIN_CLIENT_TIME;
    admin_client_answer(admin, client, answer);
}

/* False: no room, or no memory. Consumes `json`. */
static bool viewer_append(struct admin_trace_viewer *viewer, json_t *json)
{
    if (viewer->client->answer.size < UNSENT_MAX)
        return admin_client_append(viewer->client, json);
    json_decref(json);
    return false;
}

/* What it missed stands where it was missed. */
static bool viewer_tell_lost(struct admin_trace_viewer *viewer)
{
    if (viewer->lost_untold == 0)
        return true;
    if (!viewer_append(viewer, json_pack("{sI}", "lost", (json_int_t)viewer->lost_untold)))
        return false;
    viewer->lost += viewer->lost_untold;
    viewer->lost_untold = 0;
    return true;
}

/* ---- lines ---- */

bool admin_trace_shorten(struct span *line)
{
    uint32_t size = 3;
    uint16_t parts[3];

    if (line->size < 4)
        return true;
    if (line->data[3] == '-')
        return false;
    uint32_t enhanced = smtp_enhanced_parse(span_skip(*line, 4), parts);
    if (enhanced > 0)
        size += 1 + enhanced;
    *line = span_head(*line, size);
    return true;
}

static json_t *row_new(const struct trace_line *line, struct span text)
{
    static const char *const sides[] = {[TRACE_INBOUND] = "inbound", [TRACE_OUTBOUND] = "outbound"};
    static const char *const speakers[] = {
        [TRACE_CLIENT] = "client", [TRACE_SERVER] = "server", [TRACE_NOTE] = "note"};
    char peer[FLOW_ADDRESS_TEXT_MAX], session[20], id[MESSAGE_ID_TEXT_SIZE];
    char escaped[4 * TRACE_TEXT_MAX + 1];
    struct message_id none = {0};
    json_t *row = json_object();

    (void)snprintf(session, sizeof(session), "%016" PRIx64, line->session);
    json_object_set_new(row, "time_us", json_integer(line->time));
    json_object_set_new(row, "side", json_string(sides[line->side]));
    json_object_set_new(row, "speaker", json_string(speakers[line->speaker]));
    json_object_set_new(row, "session", json_string(session));
    json_object_set_new(row, "peer", json_string(flow_address_format(&line->peer, peer)));
    if (!message_id_is_equal(line->id, none))
        json_object_set_new(row, "id", json_string(message_id_format(line->id, id)));
    json_object_set_new(row, "text", json_string(log_escape(text, escaped, sizeof(escaped))));
    if (line->is_cut)
        json_object_set_new(row, "cut", json_true());
    return row;
}

static void viewer_show(struct admin_trace_viewer *viewer, const struct trace_line *line,
                        struct span text)
{
    if (viewer->line_max > 0 && viewer->lines >= viewer->line_max)
        return;
    if (viewer->is_terse && line->speaker == TRACE_SERVER && !admin_trace_shorten(&text))
        return;
    if (viewer_tell_lost(viewer) &&
        viewer_append(viewer, json_pack("{so}", "row", row_new(line, text))))
        viewer->lines += 1;
    else
        viewer->lost_untold += 1;
}

/* What was appended goes out as far as its client takes it. It may be gone afterwards. */
static void viewer_push(struct admin *admin, struct admin_trace_viewer *viewer, tick_us now)
{
    struct admin_client *client = viewer->client;

    if (client->answer.size > client->answer_sent)
        viewer->quiet_at = now + QUIET_TIME;
    if (viewer->line_max > 0 && viewer->lines >= viewer->line_max)
        viewer_end(admin, viewer, now);
    else if (!admin_client_push(admin, client))
        return; /* the rest goes when there is room */
}

void admin_trace_show(struct admin *admin, const struct trace_batch *batch, tick_us now)
{
    struct admin_trace_viewer *viewers = admin->trace.viewers;
    const struct trace_line *line;
    uint32_t offset = 0, present = 0;
    struct span text;

    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        if (viewers[i].client == NULL || viewers[i].filter.serial != batch->serials[i])
            continue;
        present |= 1u << i;
    }
    while ((line = trace_batch_next(batch, &offset, &text)) != NULL) {
        for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
            if ((line->viewers & present & 1u << i) != 0)
                viewer_show(&viewers[i], line, text);
        }
    }
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        if ((present & 1u << i) == 0)
            continue;
        viewers[i].lost_untold += batch->lost[i];
        viewer_push(admin, &viewers[i], now);
    }
}

/* ---- time ---- */

void admin_trace_run(struct admin *admin, tick_us now)
{
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        struct admin_trace_viewer *viewer = &admin->trace.viewers[i];
        if (viewer->client == NULL)
            continue;
        if (now >= viewer->deadline) {
            viewer_end(admin, viewer, now);
        } else if (now >= viewer->quiet_at) {
            (void)viewer_tell_lost(viewer);
            (void)viewer_append(viewer, json_pack("{sb}", "quiet", 1));
            viewer->quiet_at = now + QUIET_TIME;
            viewer_push(admin, viewer, now);
        }
    }
}

tick_us admin_trace_deadline(const struct admin_trace *trace)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        const struct admin_trace_viewer *viewer = &trace->viewers[i];
        if (viewer->client == NULL)
            continue;
        deadline = viewer->deadline < deadline ? viewer->deadline : deadline;
        deadline = viewer->quiet_at < deadline ? viewer->quiet_at : deadline;
    }
    return deadline;
}

void admin_trace_stop(struct admin_trace *trace)
{
    trace->is_stopped = true;
}

void admin_trace_fini(struct admin_trace *trace)
{
    free(trace->batches);
    free(trace->queries);
}
