/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What deliveries tell of the sources they left from: for source_rest.c, for people (a record and a
 * line in the log when a source rests, or is well again) and for the other shards.
 *
 * Invariants
 *   1. A member of a place of earlier settings tells nothing: its number may be another source's.
 *   2. Nor does a place of mailbox servers: they do not see where mail leaves from.
 *   3. News go to each shard in pieces, in a row; the last piece makes them whole.
 */
#include "relay/transfer_internal.h"

#include <stdio.h>

#include "base/log.h"

static const char *const parts[SOURCE_PART_COUNT] = {
    [SOURCE_WHOLE] = "", [SOURCE_IP4] = " over IPv4", [SOURCE_IP6] = " over IPv6"};
static const enum flow_family families[] = {FLOW_FAMILY_IP4, FLOW_FAMILY_IP6};

/* ---- for people ---- */

static void source_record(struct transfer *transfer, const struct settings_source *source,
                          enum source_part part, const char *text)
{
    struct record record = {
        .kind = RECORD_ORDER, .shard = transfer->options.shard, .time = transfer->now.wall};

    if (part != SOURCE_WHOLE)
        record.source =
            settings_source_address(source, part == SOURCE_IP6 ? FLOW_FAMILY_IP6 : FLOW_FAMILY_IP4);
    record_text(record.source_name, sizeof(record.source_name), span_from_text(source->name));
    record_text(record.text, sizeof(record.text), span_from_text(text));
    transfer->options.records.emit(transfer->options.records.context, &record);
}

static void source_changed(struct transfer *transfer, uint32_t number, enum source_part part,
                           enum source_change change)
{
    if (change == SOURCE_CHANGE_NONE)
        return;
    const struct source_view view = source_get_view(transfer->sources, number, transfer->now.tick);
    const struct source_rest *rest = &view.rests[part];
    char text[SOURCE_REASON_SIZE + 64], escaped[4 * SOURCE_REASON_SIZE + 1];
    tick_us time = rest->until - rest->since;

    if (change == SOURCE_CHANGE_WELL)
        (void)snprintf(text, sizeof(text), "source is used again%s", parts[part]);
    else
        (void)snprintf(text, sizeof(text), "source rests%s for %llu s: %s", parts[part],
                       (unsigned long long)(time / 1000000), rest->reason);
    source_record(transfer, view.source, part, text);
    log_line(change == SOURCE_CHANGE_WELL ? LOG_INFO : LOG_WARNING,
             "event=source source=%s change=\"%s%s\" duration_s=%llu reason=\"%s\"",
             view.source->name, change == SOURCE_CHANGE_WELL ? "used again" : "rests", parts[part],
             (unsigned long long)(change == SOURCE_CHANGE_WELL ? 0 : time / 1000000),
             log_escape(span_from_text(rest->reason), escaped, sizeof(escaped)));
}

/* ---- attempts ---- */

static bool is_told_of(const struct transfer *transfer, const struct transfer_job *job)
{
    return !job->place->is_local && job->member->place->serial == transfer->settings->serial;
}

static struct source_attempt attempt_of(const struct transfer *transfer,
                                        const struct transfer_job *job,
                                        const struct flow_address *host)
{
    bool is_provider = job->place->limits.provider != NULL;

    return (struct source_attempt){.number = job->member->number,
                                   .site = job->place->base,
                                   .origin =
                                       source_origin(job->place->base, is_provider ? NULL : host),
                                   .label = job->place->label,
                                   .began = job->started_tick,
                                   .now = transfer->now.tick};
}

void transfer_source_begin(struct transfer *transfer, const struct transfer_job *job, bool is_new)
{
    uint32_t bits = 0;

    if (job->place->is_local)
        return;
    for (uint32_t i = 0; is_new && i < job->answer.host_count; i++) {
        const struct mx_host *host = &job->answer.hosts[i];
        for (uint32_t j = 0; j < host->address_count; j++)
            bits |= 1u << host->addresses[j].family;
    }
    source_on_attempt(transfer->sources, job->member->number, bits, transfer->now.tick);
}

static void family_judge(struct transfer *transfer, const struct transfer_job *job,
                         const struct client_result *result, enum flow_family family)
{
    uint32_t seen = result->families_connected | result->families_broken | result->families_failed;

    if ((seen & 1u << family) == 0) /* as with a connection that was kept */
        return;
    struct source_attempt attempt = attempt_of(transfer, job, &result->peer);
    enum source_part part = family == FLOW_FAMILY_IP6 ? SOURCE_IP6 : SOURCE_IP4;
    enum source_change change = SOURCE_CHANGE_NONE;

    if ((result->families_connected & 1u << family) != 0)
        change = source_on_connected(transfer->sources, &attempt, family);
    else if ((result->families_broken & 1u << family) != 0)
        change = source_on_broken(transfer->sources, attempt.number, family, transfer->now.tick);
    else if ((result->families_failed & 1u << family) != 0)
        change = source_on_unreached(transfer->sources, &attempt, family,
                                     SPAN_LITERAL("no connection came about"));
    source_changed(transfer, attempt.number, part, change);
}

void transfer_source_judge(struct transfer *transfer, const struct transfer_job *job,
                           const struct client_result *result)
{
    if (!is_told_of(transfer, job))
        return;
    /* What connected first: it is what shows that the network lives. */
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        if ((result->families_connected & 1u << families[i]) != 0)
            family_judge(transfer, job, result, families[i]);
    }
    for (uint32_t i = 0; i < COUNT_OF(families); i++) {
        if ((result->families_connected & 1u << families[i]) == 0)
            family_judge(transfer, job, result, families[i]);
    }
    if (!result->was_attempted || transfer_outcome_of(result) != SITE_OUTCOME_OK)
        return;
    struct source_attempt attempt = attempt_of(transfer, job, &result->peer);
    source_changed(transfer, attempt.number, SOURCE_WHOLE,
                   source_on_taken(transfer->sources, &attempt));
}

void transfer_source_refused(struct transfer *transfer, const struct transfer_job *job,
                             const struct flow_address *host, struct span text)
{
    if (!is_told_of(transfer, job))
        return;
    struct source_attempt attempt = attempt_of(transfer, job, host);
    source_changed(transfer, attempt.number, SOURCE_WHOLE,
                   source_on_refused(transfer->sources, &attempt, text));
}

bool transfer_source_has_other(const struct transfer *transfer, const struct transfer_job *job,
                               const struct settings_pool *pool)
{
    tick_us now = transfer->now.tick;

    for (uint32_t i = 0; i < pool->member_count; i++) {
        uint32_t number = pool->members[i].source;
        const struct settings_source *source = &transfer->settings->sources[number];
        if (strcmp(source->name, job->member->source->name) != 0 &&
            source_may_use(transfer->sources, number, now) == SOURCE_USE_YES &&
            !source_is_refused_at(transfer->sources, number, job->place->base, now) &&
            settings_warmup_limit(source, transfer->now.wall) > 0)
            return true;
    }
    return false;
}

/* ---- other shards ---- */

void transfer_on_source_news(void *context, const struct source_news *news)
{
    struct transfer *transfer = context;

    for (uint32_t i = 0; i < transfer->options.sites.shard_count; i++) {
        if (i == transfer->options.shard)
            continue;
        for (uint32_t from = 0; from < sizeof(*news); from += HANDOVER_PIECE) {
            struct handover_message message = {
                .kind = HANDOVER_SOURCE, .from = transfer->options.shard, .offset = from};
            memcpy(message.piece, (const uint8_t *)news + from, HANDOVER_PIECE);
            transfer->options.send_handover(transfer->options.server, i, &message);
        }
    }
}

void transfer_source_on_piece(struct transfer *transfer, const struct handover_message *message)
{
    CHECK(message->from < transfer->options.sites.shard_count);
    struct source_news *draft = &transfer->news_drafts[message->from];

    CHECK(message->offset <= sizeof(*draft) - HANDOVER_PIECE);
    memcpy((uint8_t *)draft + message->offset, message->piece, HANDOVER_PIECE);
    if (message->offset + HANDOVER_PIECE == sizeof(*draft))
        source_on_news(transfer->sources, draft);
}
