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
 *
 * Several threads do it, each a bucket of rows at a time (spool_deal.c). What a thread learns of
 * segments it notes for itself; that is put together at the end. A MESSAGE whose index told enough
 * is not read: if it is damaged, who reads it first finds out.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/crew.h"
#include "queue/pages.h"
#include "queue/spool_recovery.h"

struct merge_worker {
    uint64_t *refers;  /* segment_count times `words` */
    uint32_t *parents; /* union-find */
    bool *is_damaged;  /* per segment */
    uint32_t *live;    /* per segment: messages */
    uint64_t *octets;  /* and what they have */
    uint32_t *wanted;  /* per segment: rows of those */
    uint32_t lost;
    struct recovery_block *blocks; /* read here */
};

struct merge {
    struct spool_recovery *recovery;
    uint32_t words; /* of a bit for each segment */
    struct recovery_bucket *buckets;
    uint32_t bucket_count;
    struct merge_worker workers[CREW_SIZE_MAX];
};

/* ---- groups of segments ---- */

uint32_t spool_recovery_root(const struct spool_recovery *recovery, uint32_t segment)
{
    while (recovery->segments[segment].parent != segment)
        segment = recovery->segments[segment].parent;
    return segment;
}

static uint32_t parents_root(const uint32_t *parents, uint32_t segment)
{
    while (parents[segment] != segment)
        segment = parents[segment];
    return segment;
}

static void parents_join(uint32_t *parents, uint32_t a, uint32_t b)
{
    uint32_t root_a = parents_root(parents, a), root_b = parents_root(parents, b);
    uint32_t root = root_a < root_b ? root_a : root_b;

    /* Keep the paths short: all four now hang below the root directly. */
    parents[root_a] = parents[root_b] = parents[a] = parents[b] = root;
}

/* ---- one id ---- */

struct group {
    struct merge *merge;
    struct merge_worker *worker;
    struct recovery_row **rows;
    uint32_t count;
    uint32_t first; /* index of rows[0] */
};

static void group_refer(const struct group *group, uint32_t from, uint32_t to)
{
    if (from != to)
        group->worker->refers[from * (size_t)group->merge->words + to / 64] |= (uint64_t)1
                                                                               << to % 64;
}

/* Apply VOID. Only a row with the same key can be its target. */
static void group_void(struct group *group)
{
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->rows[i]->type != SPOOL_VOID || SPOOL_HAS_BUG(VOID_IGNORED))
            continue;
        for (uint32_t j = 0; j < group->count; j++) {
            if (group->rows[j]->type == SPOOL_VOID ||
                spool_recovery_compare_keys(group->rows[i], group->rows[j]) != 0)
                continue;
            group->rows[j]->is_void = true;
            group_refer(group, group->rows[i]->segment, group->rows[j]->segment);
        }
    }
}

static const struct recovery_row *group_find_done(const struct group *group)
{
    const struct recovery_row *done = NULL;
    for (uint32_t i = 0; i < group->count; i++) {
        if (group->rows[i]->type == SPOOL_DONE && !group->rows[i]->is_void)
            done = group->rows[i];
    }
    return done;
}

/* Every DONE must outlive the MESSAGE rows below it, and all of them are one spool's business. One
 * that is void must not: the message may have been copied behind it, to where its VOID is, and each
 * of the two segments would wait for the other. */
static void group_join(struct group *group)
{
    bool has_message = false;
    for (uint32_t i = 0; i < group->count; i++) {
        bool is_end = group->rows[i]->type == SPOOL_DONE && !group->rows[i]->is_void;
        has_message |= group->rows[i]->type == SPOOL_MESSAGE;
        for (uint32_t j = 0; j < i && is_end; j++) {
            if (group->rows[j]->type == SPOOL_MESSAGE)
                group_refer(group, group->rows[i]->segment, group->rows[j]->segment);
        }
    }
    for (uint32_t i = 1; has_message && i < group->count; i++)
        parents_join(group->worker->parents, group->rows[0]->segment, group->rows[i]->segment);
}

bool spool_recovery_find_segment(const struct spool_recovery *recovery, uint64_t salt,
                                 uint32_t hint, uint32_t *ret_index)
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
        if (!spool_recovery_find_segment(recovery, extent.salt, home, &segment))
            return false;
        uint64_t end = (uint64_t)extent.offset + sizeof(struct spool_record) + extent.size;
        if (extent.offset < SPOOL_BLOCK_SIZE || extent.offset % 8 != 0 ||
            end > recovery->segments[segment].end)
            return false;
    }
    return true;
}

enum err spool_recovery_open(const struct recovery_row *row, struct recovery_content *ret_content)
{
    struct recovery_content content = {0};
    struct span detail = span_of(row->detail, row->detail_size);

    if (row->is_whole)
        TRY(spool_message_open(detail, &content.message, &content.extents, &content.envelope));
    else
        TRY(spool_message_detail_open(detail, &content.message, &content.extents, &content.index));
    *ret_content = content;
    return ERR_OK;
}

/* Read the record of this row. False when it is not there. */
static bool row_read(const struct group *group, struct recovery_row *row)
{
    struct spool_record record;
    struct recovery_block *block;

    if (spool_recovery_read(group->merge->recovery, row->segment, row->offset, row->payload_size,
                            &record, &block) != ERR_OK)
        return false;
    block->next = group->worker->blocks;
    group->worker->blocks = block;
    if (record.type != row->type || !message_id_is_equal(record.id, row->id) ||
        record.sequence != row->sequence || record.epoch != row->epoch)
        return false;
    row->detail = block->octets;
    row->detail_size = record.payload_size;
    row->is_whole = true;
    return true;
}

/* False when this MESSAGE, or a body record of it, is not there. */
static bool message_load(const struct group *group, struct recovery_row *row,
                         struct recovery_content *ret_content)
{
    const struct spool_recovery *recovery = group->merge->recovery;
    bool is_enough =
        row->detail != NULL && spool_recovery_open(row, ret_content) == ERR_OK &&
        (row->is_whole || (ret_content->index.size > 0 && !recovery->options.has_envelopes));

    if (!is_enough && (!row_read(group, row) || spool_recovery_open(row, ret_content) != ERR_OK))
        return false;
    return extents_are_present(recovery, ret_content->extents, row->segment);
}

/* The PROGRESS rows above the MESSAGE that count: from the last one back, each key once, and of
 * what the next one of its delivery replaced the last. */
static void message_want_progress(const struct group *group, uint32_t message)
{
    uint64_t seen[SPOOL_RETRY_MAX / 64 + 1] = {0};
    const struct recovery_row *last = NULL;

    for (uint32_t i = group->count; i-- > message + 1;) {
        struct recovery_row *row = group->rows[i];
        if (row->type != SPOOL_PROGRESS || row->is_void ||
            spool_recovery_compare_keys(group->rows[message], row) >= 0 ||
            (last != NULL && spool_recovery_compare_keys(last, row) == 0))
            continue;
        if (row->detail == NULL && !row_read(group, row)) {
            group->worker->is_damaged[row->segment] = true;
            continue; /* a second delivery at worst */
        }
        last = row;
        uint16_t retry = spool_progress_retry(span_of(row->detail, row->detail_size));
        uint64_t bit = (uint64_t)1 << retry % 64;
        row->retry = retry;
        row->is_wanted = retry == 0 || !(seen[retry / 64] & bit);
        seen[retry / 64] |= bit;
    }
}

static void message_join(const struct group *group, uint32_t home,
                         const struct recovery_content *content)
{
    for (uint32_t i = 0; i < content->message.extent_count; i++) {
        struct spool_body_extent extent;
        uint32_t segment;
        memcpy(&extent, content->extents.data + i * sizeof(extent), sizeof(extent));
        bool is_found =
            spool_recovery_find_segment(group->merge->recovery, extent.salt, home, &segment);
        CHECK(is_found);
        if (segment != home)
            parents_join(group->worker->parents, home, segment);
    }
}

/* No copy of it can be read: their segments are left as they are. Where one can, others tell of no
 * damage: a copy that was not brought to its end has let go of its bodies (spool_copy.c). */
static void group_lose(const struct group *group)
{
    char text[MESSAGE_ID_TEXT_SIZE];

    for (uint32_t i = 0; i < group->count; i++) {
        const struct recovery_row *row = group->rows[i];
        if (row->type == SPOOL_MESSAGE && !row->is_void)
            group->worker->is_damaged[row->segment] = true;
    }
    group->worker->lost++;
    log_line(LOG_ERROR, "spool message=%s is damaged and cannot be recovered",
             message_id_format(group->rows[0]->id, text));
}

/* The live messages of a bucket stand in front of the places of its rows, of which there are at
 * least as many. */
static void bucket_add_message(const struct merge *merge, struct recovery_bucket *bucket,
                               const struct recovery_message *message)
{
    CHECK(bucket->message_count < bucket->row_count);
    merge->recovery->messages[bucket->start + bucket->message_count++] = *message;
}

/* The adoption looks at all of them, whatever they say. */
static void group_want(const struct group *group)
{
    for (uint32_t i = 0; i < group->count; i++)
        group->worker->wanted[group->rows[i]->segment]++;
}

static uint64_t message_octets(const struct recovery_row *row,
                               const struct recovery_content *content)
{
    uint64_t octets = row->payload_size;

    for (uint32_t i = 0; i < content->message.extent_count; i++) {
        struct spool_body_extent extent;
        memcpy(&extent, content->extents.data + i * sizeof(extent), sizeof(extent));
        octets += extent.size;
    }
    return octets;
}

static void group_merge(struct group *group, struct recovery_bucket *bucket)
{
    group_void(group);
    group_join(group);
    const struct recovery_row *done = group_find_done(group);
    bool is_lost = false;
    for (uint32_t i = group->count; i-- > 0;) {
        struct recovery_row *row = group->rows[i];
        struct recovery_content content;
        if (row->type != SPOOL_MESSAGE || row->is_void)
            continue;
        if (done != NULL && spool_recovery_compare_keys(row, done) < 0)
            return;
        if (message_load(group, row, &content)) {
            message_want_progress(group, i);
            message_join(group, row->segment, &content);
            group->worker->live[row->segment]++;
            group->worker->octets[row->segment] += message_octets(row, &content);
            group_want(group);
            bucket_add_message(group->merge, bucket,
                               &(struct recovery_message){.first_row = group->first,
                                                          .row_count = group->count,
                                                          .row = group->first + i,
                                                          .segment = row->segment});
            return;
        }
        is_lost = true;
    }
    if (is_lost)
        group_lose(group);
}

static void bucket_merge(void *context, uint32_t worker, uint32_t index)
{
    struct merge *merge = context;
    struct recovery_bucket *bucket = &merge->buckets[index];
    struct recovery_row **rows = merge->recovery->rows + bucket->start;

    spool_recovery_sort(rows, bucket->row_count);
    for (uint32_t i = 0; i < bucket->row_count;) {
        struct group group = {.merge = merge,
                              .worker = &merge->workers[worker],
                              .rows = &rows[i],
                              .first = bucket->start + i};
        while (i < bucket->row_count && message_id_is_equal(rows[i]->id, group.rows[0]->id))
            i++;
        group.count = bucket->start + i - group.first;
        group_merge(&group, bucket);
    }
}

/* ---- the whole ---- */

static void workers_init(struct merge *merge)
{
    uint32_t count = merge->recovery->segment_count;

    merge->words = count / 64 + 1;
    for (uint32_t i = 0; i < merge->recovery->options.threads; i++) {
        struct merge_worker *worker = &merge->workers[i];
        worker->refers = calloc((size_t)count * merge->words + 1, sizeof(*worker->refers));
        worker->parents = calloc(count + 1, sizeof(*worker->parents));
        worker->is_damaged = calloc(count + 1, sizeof(*worker->is_damaged));
        worker->live = calloc(count + 1, sizeof(*worker->live));
        worker->octets = calloc(count + 1, sizeof(*worker->octets));
        worker->wanted = calloc(count + 1, sizeof(*worker->wanted));
        CHECK(worker->refers != NULL && worker->parents != NULL);
        CHECK(worker->is_damaged != NULL && worker->live != NULL && worker->octets != NULL);
        CHECK(worker->wanted != NULL);
        for (uint32_t j = 0; j < count; j++)
            worker->parents[j] = j;
    }
}

/* Put together what one worker learnt, and let it go. */
static void worker_fini(struct merge *merge, struct merge_worker *worker, uint32_t *parents)
{
    struct spool_recovery *recovery = merge->recovery;

    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        struct recovery_segment *segment = &recovery->segments[i];
        for (uint32_t j = 0; j < merge->words; j++)
            segment->refers[j] |= worker->refers[(size_t)i * merge->words + j];
        segment->is_damaged |= worker->is_damaged[i];
        segment->live += worker->live[i];
        segment->live_octets += worker->octets[i];
        segment->wanted += worker->wanted[i];
        parents_join(parents, i, worker->parents[i]);
    }
    recovery->messages_lost += worker->lost;
    while (worker->blocks != NULL) {
        struct recovery_block *block = worker->blocks;
        worker->blocks = block->next;
        block->next = recovery->segments[0].blocks;
        recovery->segments[0].blocks = block;
    }
    free(worker->refers);
    free(worker->parents);
    free(worker->is_damaged);
    free(worker->live);
    free(worker->octets);
    free(worker->wanted);
}

static void merge_conclude(struct merge *merge)
{
    struct spool_recovery *recovery = merge->recovery;
    uint32_t *parents = calloc(recovery->segment_count + 1, sizeof(*parents));

    CHECK(parents != NULL);
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        parents[i] = i;
        recovery->segments[i].refers = calloc(merge->words, sizeof(uint64_t));
        CHECK(recovery->segments[i].refers != NULL);
    }
    for (uint32_t i = 0; i < recovery->options.threads; i++)
        worker_fini(merge, &merge->workers[i], parents);
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        struct recovery_segment *segment = &recovery->segments[i];
        segment->parent = parents_root(parents, i);
        if (segment->parent == i)
            continue;
        recovery->segments[segment->parent].live += segment->live;
        recovery->segments[segment->parent].live_octets += segment->live_octets;
        segment->live = 0;
        segment->live_octets = 0;
    }
    free(parents);
}

/* Close the gaps between the buckets' messages. */
static void merge_collect(struct merge *merge)
{
    struct spool_recovery *recovery = merge->recovery;

    for (uint32_t i = 0; i < merge->bucket_count; i++) {
        const struct recovery_bucket *bucket = &merge->buckets[i];
        memmove(recovery->messages + recovery->message_count, recovery->messages + bucket->start,
                bucket->message_count * sizeof(*recovery->messages));
        recovery->message_count += bucket->message_count;
    }
}

void spool_merge(struct spool_recovery *recovery)
{
    struct merge merge = {.recovery = recovery};
    uint64_t row_count = 0;

    for (uint32_t i = 0; i < recovery->segment_count; i++)
        row_count += recovery->segments[i].row_count;
    CHECK(row_count < UINT32_MAX);
    recovery->row_count = (uint32_t)row_count;
    recovery->rows = spool_pages_new(row_count * sizeof(*recovery->rows));
    recovery->messages = spool_pages_new(row_count * sizeof(*recovery->messages));
    merge.buckets = spool_deal(recovery, &merge.bucket_count);
    workers_init(&merge);
    crew_run(recovery->options.threads, merge.bucket_count, bucket_merge, &merge);
    merge_conclude(&merge);
    merge_collect(&merge);
    free(merge.buckets);
}
