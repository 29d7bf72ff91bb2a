/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of sources outlives the process: suspensions, and what makes a part of one rest, also when
 * the rest is over and nobody has tried yet. In between the clock of this process is none: times
 * are those of the wall clock. Which sites refuse a source is learned anew.
 *
 * Invariant: a row is what the writer made, or is passed over: nothing in it is trusted.
 */
#include "relay/source_internal.h"

static wall_us wall_of(tick_us tick, struct tick_now now)
{
    return now.wall + (wall_us)tick - (wall_us)now.tick;
}

/* What was before this clock began is 0. */
static tick_us tick_of(wall_us wall, struct tick_now now)
{
    wall_us before = now.wall - wall;

    if (before >= (wall_us)now.tick)
        return 0;
    return (tick_us)((wall_us)now.tick - before);
}

/* ---- out ---- */

static struct source_kept suspension_row(const struct source_state *state, struct tick_now now)
{
    struct source_kept row = {
        .part = SOURCE_KEPT_SUSPENSION, .since = 0, .until = wall_of(state->suspended_until, now)};

    memcpy(row.name, state->name, sizeof(row.name));
    memcpy(row.reason, state->reason, sizeof(row.reason));
    return row;
}

static struct source_kept rest_row(const struct source_state *state, uint32_t part,
                                   struct tick_now now)
{
    const struct source_rest *rest = &state->rests[part];
    struct source_kept row = {.part = (uint8_t)part,
                              .cause = (uint8_t)rest->cause,
                              .evidence_count = (uint8_t)rest->evidence_count,
                              .times = rest->times,
                              .sites = rest->sites,
                              .since = wall_of(rest->since, now),
                              .until = wall_of(rest->until, now)};

    memcpy(row.name, state->name, sizeof(row.name));
    memcpy(row.reason, rest->reason, sizeof(row.reason));
    for (uint32_t i = 0; i < rest->evidence_count; i++) {
        row.evidence[i].at = wall_of(rest->evidence[i].at, now);
        memcpy(row.evidence[i].site, rest->evidence[i].site, SOURCE_SITE_SIZE);
        memcpy(row.evidence[i].said, rest->evidence[i].said, SOURCE_SAID_SIZE);
    }
    return row;
}

uint32_t source_keep(const struct source_set *sources, uint32_t number, struct tick_now now,
                     struct source_kept rows[SOURCE_KEPT_MAX])
{
    const struct source_state *state = &sources->states[number];
    uint32_t count = 0;

    CHECK(number < sources->settings->source_count);
    if (state->suspended_until > now.tick)
        rows[count++] = suspension_row(state, now);
    for (uint32_t part = 0; part < SOURCE_PART_COUNT; part++) {
        if (state->rests[part].cause != SOURCE_WELL)
            rows[count++] = rest_row(state, part, now);
    }
    return count;
}

/* ---- in ---- */

static bool is_text(const char *text, size_t size)
{
    size_t length = strnlen(text, size);

    for (size_t i = 0; i < length; i++) {
        if (text[i] < ' ' || text[i] > '~')
            return false;
    }
    return length < size;
}

static bool row_is_sane(const struct source_kept *row)
{
    bool is_suspension = row->part == SOURCE_KEPT_SUSPENSION;

    if (!is_text(row->name, sizeof(row->name)) || !is_text(row->reason, sizeof(row->reason)) ||
        row->part > SOURCE_KEPT_SUSPENSION || row->evidence_count > SOURCE_EVIDENCE_MAX ||
        row->cause >= SOURCE_CAUSE_COUNT || (row->cause == SOURCE_WELL) != is_suspension ||
        row->since < 0 || row->until < 0)
        return false;
    for (uint32_t i = 0; i < row->evidence_count; i++) {
        if (row->evidence[i].at < 0 || !is_text(row->evidence[i].site, SOURCE_SITE_SIZE) ||
            !is_text(row->evidence[i].said, SOURCE_SAID_SIZE))
            return false;
    }
    return true;
}

static void rest_restore(struct source_rest *rest, const struct source_kept *row,
                         struct tick_now now)
{
    *rest = (struct source_rest){.cause = (enum source_cause)row->cause,
                                 .since = tick_of(row->since, now),
                                 .until = tick_of(row->until, now),
                                 .times = row->times < 32 ? row->times : 32,
                                 .sites = row->sites,
                                 .evidence_count = row->evidence_count};
    memcpy(rest->reason, row->reason, sizeof(rest->reason));
    for (uint32_t i = 0; i < row->evidence_count; i++) {
        rest->evidence[i].at = tick_of(row->evidence[i].at, now);
        memcpy(rest->evidence[i].site, row->evidence[i].site, SOURCE_SITE_SIZE);
        memcpy(rest->evidence[i].said, row->evidence[i].said, SOURCE_SAID_SIZE);
    }
}

void source_keep_restore(struct source_set *sources, const struct source_kept *rows, uint32_t count,
                         struct tick_now now)
{
    for (uint32_t i = 0; i < count; i++) {
        struct source_state *state =
            row_is_sane(&rows[i]) ? source_state_find(sources, span_from_text(rows[i].name)) : NULL;
        /* No order, and no rest, is longer: it is the clock that was wrong. */
        if (state == NULL || rows[i].until - now.wall > (wall_us)SOURCE_KEPT_TIME_MAX)
            continue;
        if (rows[i].part < SOURCE_PART_COUNT) {
            rest_restore(&state->rests[rows[i].part], &rows[i], now);
        } else if (rows[i].until > now.wall) {
            state->suspended_until = tick_of(rows[i].until, now);
            memcpy(state->reason, rows[i].reason, sizeof(state->reason));
        }
    }
    source_ends_at(sources, 0); /* what ends is found at the first look */
}
