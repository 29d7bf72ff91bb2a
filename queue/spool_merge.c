/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which messages live: all rows of all segments, merged by id.
 *
 *   VOID      kills the one row with its id, epoch and sequence
 *   DONE      kills every MESSAGE of its id with a lower (epoch, sequence)
 *   MESSAGE   of those left, the highest (epoch, sequence, copy) that can be read whole counts
 *   PROGRESS  above that, each (epoch, sequence) once, in order; of the attempts of one delivery
 *             the last only
 *
 * The rules are the same whatever the order of segments and however many copies of a record exist.
 *
 * Segments that speak of the same message belong together: they must be adopted by one spool, which
 * then knows when each may be used again (refers, as in spool_segment.c).
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/spool_recovery.h"

static int row_compare_key(const struct recovery_row *x, const struct recovery_row *y)
{
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence ? -1 : 1;
    return 0;
}

static int row_compare(const void *a, const void *b)
{
    const struct recovery_row *x = a, *y = b;
    if (x->id.high != y->id.high)
        return x->id.high < y->id.high ? -1 : 1;
    if (x->id.low != y->id.low)
        return x->id.low < y->id.low ? -1 : 1;
    int key = row_compare_key(x, y);
    if (key != 0)
        return key;
    if (x->copy != y->copy)
        return x->copy < y->copy ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

/* ---- groups of segments ---- */

uint32_t spool_recovery_root(const struct spool_recovery *recovery, uint32_t segment)
{
    while (recovery->segments[segment].parent != segment)
        segment = recovery->segments[segment].parent;
    return segment;
}

static void segments_join(struct spool_recovery *recovery, uint32_t a, uint32_t b)
{
    uint32_t root_a = spool_recovery_root(recovery, a), root_b = spool_recovery_root(recovery, b);
    if (root_a < root_b)
        recovery->segments[root_b].parent = root_a;
    else
        recovery->segments[root_a].parent = root_b;
    /* Keep the paths short: both segments now hang below the root directly. */
    uint32_t root = root_a < root_b ? root_a : root_b;
    recovery->segments[a].parent = recovery->segments[b].parent = root;
}

static void segments_prepare(struct spool_recovery *recovery)
{
    uint32_t words = recovery->segment_count / 64 + 1;
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        recovery->segments[i].parent = i;
        recovery->segments[i].refers = calloc(words, sizeof(uint64_t));
        CHECK(recovery->segments[i].refers != NULL);
    }
}

static void segment_refer(struct spool_recovery *recovery, uint32_t from, uint32_t to)
{
    if (from != to)
        recovery->segments[from].refers[to / 64] |= (uint64_t)1 << to % 64;
}

/* ---- one id ---- */

struct group {
    struct recovery_row *rows;
    uint32_t count;
    uint32_t first; /* index of rows[0] */
};

/* Apply VOID. Only a row with the same key can be its target. */
static void group_void(struct spool_recovery *recovery, struct group *group)
{
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->rows[i].type != SPOOL_VOID || SPOOL_HAS_BUG(VOID_IGNORED))
            continue;
        for (uint32_t j = 0; j < group->count; j++) {
            if (group->rows[j].type == SPOOL_VOID ||
                row_compare_key(&group->rows[i], &group->rows[j]) != 0)
                continue;
            group->rows[j].is_void = true;
            segment_refer(recovery, group->rows[i].segment, group->rows[j].segment);
        }
    }
}

static const struct recovery_row *group_find_done(const struct group *group)
{
    const struct recovery_row *done = NULL;
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->rows[i].type == SPOOL_DONE && !group->rows[i].is_void)
            done = &group->rows[i];
    }
    return done;
}

/* Every DONE must outlive the MESSAGE rows below it, and all of them are one spool's business. */
static void group_join(struct spool_recovery *recovery, const struct group *group)
{
    bool has_message = false;
    for (uint32_t i = 0; i < group->count; i++) {
        has_message |= group->rows[i].type == SPOOL_MESSAGE;
        for (uint32_t j = 0; j < i && group->rows[i].type == SPOOL_DONE; j++) {
            if (group->rows[j].type == SPOOL_MESSAGE)
                segment_refer(recovery, group->rows[i].segment, group->rows[j].segment);
        }
    }
    for (uint32_t i = 1; has_message && i < group->count; i++)
        segments_join(recovery, group->rows[0].segment, group->rows[i].segment);
}

/* The segment with this salt; most often it is `hint`, the one with the MESSAGE. */
static bool segment_find(const struct spool_recovery *recovery, uint64_t salt, uint32_t hint,
                         uint32_t *ret_index)
{
    if (recovery->segments[hint].header.salt == salt) {
        *ret_index = hint;
        return true;
    }
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        const struct recovery_segment *segment = &recovery->segments[i];
        if (!segment->is_blank && segment->end > 0 && segment->header.salt == salt) {
            *ret_index = i;
            return true;
        }
    }
    return false;
}

/* Every extent must lie among the valid records of a segment that we have. */
static bool extents_are_present(const struct spool_recovery *recovery, struct span extents,
                                uint32_t home)
{
    for (uint32_t i = 0; i < extents.size / sizeof(struct spool_body_extent); i++) {
        struct spool_body_extent extent;
        memcpy(&extent, extents.data + i * sizeof(extent), sizeof(extent));
        uint32_t segment;
        if (!segment_find(recovery, extent.salt, home, &segment))
            return false;
        uint64_t end = (uint64_t)extent.offset + sizeof(struct spool_record) + extent.size;
        if (extent.offset < SPOOL_BLOCK_SIZE || extent.offset % 8 != 0 ||
            end > recovery->segments[segment].end)
            return false;
    }
    return true;
}

/* Read the MESSAGE of this row. False when it, or a body record of it, is not there. */
static bool message_load(struct spool_recovery *recovery, const struct recovery_row *row,
                         struct recovery_message *ret_message)
{
    struct recovery_message message = *ret_message;
    struct spool_record record;
    if (spool_recovery_read(recovery, row->segment, row->offset, row->payload_size, &record,
                            &message.payload) != ERR_OK)
        return false;
    if (record.type == SPOOL_MESSAGE && message_id_is_equal(record.id, row->id) &&
        record.sequence == row->sequence && record.epoch == row->epoch &&
        spool_message_open(span_of(message.payload, record.payload_size), &message.message,
                           &message.extents, &message.envelope) == ERR_OK &&
        extents_are_present(recovery, message.extents, row->segment)) {
        *ret_message = message;
        return true;
    }
    free(message.payload);
    return false;
}

static void message_load_progress(struct spool_recovery *recovery, const struct group *group,
                                  struct recovery_message *message)
{
    message->progress = calloc(group->count, sizeof(*message->progress));
    message->progress_rows = calloc(group->count, sizeof(*message->progress_rows));
    CHECK(message->progress != NULL && message->progress_rows != NULL);
    const struct recovery_row *last = &recovery->rows[message->row];
    for (uint32_t i = message->row - group->first + 1; i < group->count; i++) {
        const struct recovery_row *row = &group->rows[i];
        if (row->type != SPOOL_PROGRESS || row->is_void || row_compare_key(last, row) >= 0)
            continue;
        struct spool_record record;
        uint8_t *payload;
        if (spool_recovery_read(recovery, row->segment, row->offset, row->payload_size, &record,
                                &payload) != ERR_OK) {
            recovery->segments[row->segment].is_damaged = true;
            continue; /* a second delivery at worst */
        }
        message->progress_rows[message->progress_count] = group->first + i;
        message->progress[message->progress_count++] = span_of(payload, record.payload_size);
        last = row;
    }
}

/* Of those that the next one of their delivery replaced, keep the last. */
static void message_drop_superseded(struct recovery_message *message)
{
    uint64_t seen[SPOOL_RETRY_MAX / 64 + 1] = {0};
    uint32_t kept = message->progress_count;

    for (uint32_t i = message->progress_count; i-- > 0;) {
        uint16_t retry = spool_progress_retry(message->progress[i]);
        uint64_t bit = (uint64_t)1 << retry % 64;
        if (retry > 0 && seen[retry / 64] & bit) {
            free((void *)(uintptr_t)message->progress[i].data);
            continue;
        }
        seen[retry / 64] |= bit;
        message->progress[--kept] = message->progress[i];
        message->progress_rows[kept] = message->progress_rows[i];
    }
    message->progress_count -= kept;
    memmove(message->progress, message->progress + kept,
            message->progress_count * sizeof(*message->progress));
    memmove(message->progress_rows, message->progress_rows + kept,
            message->progress_count * sizeof(*message->progress_rows));
}

static void recovery_add_message(struct spool_recovery *recovery,
                                 const struct recovery_message *message)
{
    if (recovery->message_count == recovery->message_capacity) {
        uint32_t capacity = recovery->message_capacity == 0 ? 256 : 2 * recovery->message_capacity;
        recovery->messages = realloc(recovery->messages, capacity * sizeof(*recovery->messages));
        CHECK(recovery->messages != NULL);
        recovery->message_capacity = capacity;
    }
    recovery->messages[recovery->message_count++] = *message;
}

static void message_join(struct spool_recovery *recovery, const struct recovery_message *message)
{
    uint32_t home = recovery->rows[message->row].segment;
    for (uint32_t i = 0; i < message->message.extent_count; i++) {
        struct spool_body_extent extent;
        uint32_t segment;
        memcpy(&extent, message->extents.data + i * sizeof(extent), sizeof(extent));
        CHECK(segment_find(recovery, extent.salt, home, &segment));
        segments_join(recovery, home, segment);
    }
}

static void group_merge(struct spool_recovery *recovery, struct group *group)
{
    group_void(recovery, group);
    group_join(recovery, group);
    const struct recovery_row *done = group_find_done(group);
    bool is_lost = false;
    for (uint32_t i = group->count; i-- > 0;) {
        const struct recovery_row *row = &group->rows[i];
        if (row->type != SPOOL_MESSAGE || row->is_void)
            continue;
        if (done != NULL && row_compare_key(row, done) < 0)
            return;
        struct recovery_message message = {
            .first_row = group->first, .row_count = group->count, .row = group->first + i};
        if (message_load(recovery, row, &message)) {
            message_load_progress(recovery, group, &message);
            message_drop_superseded(&message);
            message_join(recovery, &message);
            recovery_add_message(recovery, &message);
            return;
        }
        is_lost = true;
        recovery->segments[row->segment].is_damaged = true;
    }
    if (is_lost) {
        recovery->messages_lost++;
        char text[MESSAGE_ID_TEXT_SIZE];
        log_line(LOG_ERROR, "spool message=%s is damaged and cannot be recovered",
                 message_id_format(group->rows[0].id, text));
    }
}

void spool_merge(struct spool_recovery *recovery)
{
    segments_prepare(recovery);
    if (recovery->row_count > 0)
        qsort(recovery->rows, recovery->row_count, sizeof(*recovery->rows), row_compare);
    for (uint64_t i = 0; i < recovery->row_count;) {
        struct group group = {.rows = &recovery->rows[i], .first = (uint32_t)i};
        while (i < recovery->row_count &&
               message_id_is_equal(recovery->rows[i].id, group.rows[0].id)) {
            group.count++;
            i++;
        }
        group_merge(recovery, &group);
    }
    for (uint32_t i = 0; i < recovery->message_count; i++) {
        uint32_t segment = recovery->rows[recovery->messages[i].row].segment;
        recovery->segments[spool_recovery_root(recovery, segment)].live++;
    }
}
