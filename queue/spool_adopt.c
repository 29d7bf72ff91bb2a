/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Handing recovered segments and messages to the spools of this process.
 *
 * Groups of segments that belong together are dealt out to the shares by what lives in them, the
 * largest first, and those without mail by the room that each share has. By octets, not by the
 * number of messages: what a spool may hold is limited so that it never comes to a stand
 * (spool_space.c), and one that was given more than that would stand on a full disk. Every adoption
 * computes the same deal, so that shares may be adopted in any order, by different threads,
 * whatever the number of shards was before.
 *
 *   segments, one by one -> their references -> messages, one by one -> done
 *
 * Invariants
 *   1. A segment passes to exactly one spool: the recovery closes it, which frees its lock, and the
 *      spool opens and locks it through its own disk. If somebody else is faster, the segment and
 *      its messages are theirs.
 *   2. An adopted segment is SEALED, older than every own one, and obeys the rules of
 *      spool_segment.c from then on: references are translated, damaged segments are held for ever.
 *   3. The recovery itself is only read, except for what belongs to this share. The rows of a
 *      segment go with the last message that has one there: all these are in the same group.
 *   4. Until all messages are there, every adopted segment is held: none is used again meanwhile.
 *
 * A file that never got a header is removed.
 */
#include <stdlib.h>

#include "base/log.h"
#include "queue/spool_recovery.h"

#define NOT_ADOPTED   UINT32_MAX
#define DEAL_MESSAGE  1024u /* octets of one besides its own: headers, rows, its end */
#define PROGRESS_FEW  8u
#define AHEAD_ROWS    16u /* messages whose rows are fetched into the cache ahead of their turn */
#define AHEAD_DETAILS 8u  /* and whose details */

struct spool_adoption {
    struct spool_recovery *recovery;
    struct spool *spool;
    uint32_t *shares;  /* per segment */
    uint32_t *adopted; /* per segment: index in the spool, or NOT_ADOPTED */
    uint32_t index;
    uint32_t segment, message; /* the next ones; segments come first */
    bool is_over;
};

static uint32_t deal_least(const uint64_t *loads, uint32_t count)
{
    uint32_t least = 0;

    for (uint32_t i = 1; i < count; i++) {
        if (loads[i] < loads[least])
            least = i;
    }
    return least;
}

/* Per group, at its root: octets that are free, or will be when what is live was copied. */
static uint64_t *groups_room(const struct spool_recovery *recovery)
{
    uint64_t *rooms = calloc(recovery->segment_count + 1, sizeof(*rooms));

    CHECK(rooms != NULL);
    for (uint32_t i = 0; i < recovery->segment_count; i++)
        rooms[spool_recovery_root(recovery, i)] += recovery->segments[i].header.segment_size;
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        uint64_t live = recovery->segments[i].live_octets;
        rooms[i] = rooms[i] > live ? rooms[i] - live : 0;
    }
    return rooms;
}

struct deal_group {
    uint64_t load; /* octets that live, and what keeping so many messages takes */
    uint32_t root;
};

struct deal {
    uint64_t *loads, *rooms;   /* of the shares */
    const uint64_t *room_each; /* of the groups */
    uint32_t count;
};

/* The largest first, those of a size in their order. */
static int deal_compare(const void *a, const void *b)
{
    const struct deal_group *x = a, *y = b;

    if (x->load != y->load)
        return x->load > y->load ? -1 : 1;
    return x->root < y->root ? -1 : 1;
}

static struct deal_group *deal_groups(const struct spool_recovery *recovery, uint32_t *ret_count)
{
    struct deal_group *groups = calloc(recovery->segment_count + 1, sizeof(*groups));
    uint32_t count = 0;

    CHECK(groups != NULL);
    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        const struct recovery_segment *segment = &recovery->segments[i];
        if (segment->parent != i)
            continue;
        groups[count++] = (struct deal_group){
            .load = segment->live_octets + segment->live * (uint64_t)DEAL_MESSAGE, .root = i};
    }
    if (count > 0)
        qsort(groups, count, sizeof(*groups), deal_compare);
    *ret_count = count;
    return groups;
}

/* With mail: to the share with the least so far. Without: to the one that has the least room. */
static uint32_t deal_group(struct deal *deal, const struct deal_group *group)
{
    uint32_t share = deal_least(group->load > 0 ? deal->loads : deal->rooms, deal->count);

    deal->loads[share] += group->load;
    deal->rooms[share] += deal->room_each[group->root];
    return share;
}

void spool_recovery_deal(const struct spool_recovery *recovery, uint32_t count,
                         uint32_t *ret_shares)
{
    uint32_t group_count = 0;
    uint64_t *room_each = groups_room(recovery);
    struct deal_group *groups = deal_groups(recovery, &group_count);
    struct deal deal = {.loads = calloc(count, sizeof(*deal.loads)),
                        .rooms = calloc(count, sizeof(*deal.rooms)),
                        .room_each = room_each,
                        .count = count};

    CHECK(deal.loads != NULL && deal.rooms != NULL);
    for (uint32_t i = 0; i < group_count; i++)
        ret_shares[groups[i].root] = deal_group(&deal, &groups[i]);
    for (uint32_t i = 0; i < recovery->segment_count; i++)
        ret_shares[i] = ret_shares[spool_recovery_root(recovery, i)];
    free(deal.loads);
    free(deal.rooms);
    free(groups);
    free(room_each);
}

static void adopt_segment(struct spool_adoption *adoption, uint32_t index)
{
    struct spool *spool = adoption->spool;
    struct recovery_segment *from = &adoption->recovery->segments[index];
    disk_close(adoption->recovery->disk, from->file);
    from->file = NULL;
    if (from->is_blank) {
        enum err err = disk_unlink(spool->disk, from->name);
        if (err != ERR_OK && err != ERR_NOT_FOUND)
            log_line(LOG_ERROR, "spool segment=%s remove=%s", from->name, err_name(err));
        return;
    }
    if (from->header.segment_size == 0)
        return; /* the header itself is damaged: left where it is */
    struct disk_file *file;
    enum err err = disk_open(spool->disk, from->name, 0, &file);
    if (err == ERR_OK) {
        err = disk_lock(spool->disk, file);
        if (err != ERR_OK)
            disk_close(spool->disk, file);
    }
    if (err != ERR_OK) {
        log_line(LOG_ERROR, "spool segment=%s adopt=%s", from->name, err_name(err));
        return;
    }
    struct spool_segment *segment = spool_segment_adopt(spool, file, from->name, &from->header);
    segment->used = from->end;
    segment->is_zeroed = segment->has_index = from->is_sealed;
    segment->is_end_known = from->is_end_known;
    segment->holds += 1u + from->is_damaged; /* invariant 4 */
    adoption->adopted[index] = segment->index;
}

/* What an adopted segment refers to; a target that is not ours pins it for ever. */
static void adopt_references(struct spool_adoption *adoption, uint32_t index)
{
    const struct recovery_segment *from = &adoption->recovery->segments[index];
    struct spool_segment *segment = adoption->spool->segments[adoption->adopted[index]];
    for (uint32_t i = 0; i < adoption->recovery->segment_count; i++) {
        if (!(from->refers[i / 64] >> i % 64 & 1))
            continue;
        uint32_t target = adoption->adopted[i];
        if (target == NOT_ADOPTED)
            segment->holds++;
        else
            segment->refers[target / 64] |= (uint64_t)1 << target % 64;
    }
}

static bool adopt_place(const struct spool_adoption *adoption, const struct recovery_row *row,
                        enum spool_place_kind kind, struct spool_place *ret_place)
{
    uint32_t target = adoption->adopted[row->segment];
    if (target == NOT_ADOPTED)
        return false;
    *ret_place = (struct spool_place){
        .serial = adoption->spool->segments[target]->serial,
        .segment = (uint16_t)target,
        .kind = (uint8_t)kind,
        .offset = row->offset,
        .payload_size = row->payload_size,
    };
    return true;
}

static bool adopt_bodies(const struct spool_adoption *adoption, const struct recovery_row *message,
                         const struct recovery_content *content, struct spool_entry *entry)
{
    for (uint32_t i = 0; i < content->message.extent_count; i++) {
        struct spool_body_extent extent;
        uint32_t segment = 0;
        memcpy(&extent, content->extents.data + i * sizeof(extent), sizeof(extent));
        bool is_found = spool_recovery_find_segment(adoption->recovery, extent.salt,
                                                    message->segment, &segment);
        CHECK(is_found); /* the merge found it */
        struct recovery_row row = {
            .segment = (uint16_t)segment, .offset = extent.offset, .payload_size = extent.size};
        struct spool_place place;
        if (!adopt_place(adoption, &row, SPOOL_PLACE_BODY, &place))
            return false;
        spool_hold(adoption->spool, &place);
        spool_entry_add_place(entry, &place);
        entry->body_count++;
    }
    entry->part_count = entry->body_count;
    return true;
}

/* PROGRESS records, and the other MESSAGE records of this id, which its DONE must outlive. */
static void adopt_others(const struct spool_adoption *adoption, const struct recovery_message *from,
                         struct spool_entry *entry)
{
    for (uint32_t i = 0; i < from->row_count; i++) {
        const struct recovery_row *row = adoption->recovery->rows[from->first_row + i];
        struct spool_place place;
        if (row->is_wanted && adopt_place(adoption, row, SPOOL_PLACE_PROGRESS, &place)) {
            spool_hold(adoption->spool, &place);
            place.retry = row->retry;
            spool_entry_add_place(entry, &place);
        }
        if (row->type == SPOOL_MESSAGE && from->first_row + i != from->row &&
            adopt_place(adoption, row, SPOOL_PLACE_OLD, &place))
            spool_entry_add_place(entry, &place);
    }
}

/* The live message as an entry of the spool, or NULL when a segment of it went to somebody else. */
static struct spool_entry *adopt_entry(const struct spool_adoption *adoption,
                                       const struct recovery_message *from,
                                       const struct recovery_content *content)
{
    struct spool *spool = adoption->spool;
    const struct recovery_row *row = adoption->recovery->rows[from->row];
    struct spool_entry *entry = spool_entry_new(spool, row->id);
    struct spool_place place;
    if (!adopt_place(adoption, row, SPOOL_PLACE_MESSAGE, &place) ||
        !adopt_bodies(adoption, row, content, entry)) {
        spool_entry_end(spool, entry);
        return NULL;
    }
    spool_hold(spool, &place);
    spool_entry_set_message(entry, &place);
    adopt_others(adoption, from, entry);
    entry->state = SPOOL_ENTRY_LIVE;
    spool_entry_settle(spool, entry);
    spool->stats.messages_live++;
    spool->stats.messages_recovered++;
    return entry;
}

/* PROGRESS payloads that count, oldest first, for the call; they are few but for rare messages. */
static struct span *adopt_progress(const struct spool_adoption *adoption,
                                   const struct recovery_message *from,
                                   struct span few[PROGRESS_FEW], uint32_t *ret_count)
{
    struct span *progress = few;
    uint32_t count = 0;

    for (uint32_t i = 0; i < from->row_count; i++) {
        const struct recovery_row *row = adoption->recovery->rows[from->first_row + i];
        if (!row->is_wanted)
            continue;
        if (count == PROGRESS_FEW && progress == few) {
            progress = calloc(from->row_count, sizeof(*progress));
            CHECK(progress != NULL);
            memcpy(progress, few, PROGRESS_FEW * sizeof(*few));
        }
        progress[count++] = span_of(row->detail, row->detail_size);
    }
    *ret_count = count;
    return progress;
}

static void adopt_message(const struct spool_adoption *adoption,
                          const struct recovery_message *from,
                          void (*on_message)(void *context, const struct spool_recovered *message),
                          void *context)
{
    const struct recovery_row *row = adoption->recovery->rows[from->row];
    struct span few[PROGRESS_FEW];
    struct recovery_content content;
    bool is_open = spool_recovery_open(row, &content) == ERR_OK; /* the merge did it before */

    CHECK(is_open);
    struct spool_recovered message = {
        .entry = adopt_entry(adoption, from, &content),
        .envelope = content.envelope,
        .index = content.index,
    };
    if (message.entry == NULL)
        return;
    struct span *progress = adopt_progress(adoption, from, few, &message.progress_count);
    message.progress = progress;
    on_message(context, &message);
    if (progress != few)
        free(progress);
}

/* The memory of segments that are done with becomes that of the queue. */
static void adopt_forget(const struct spool_adoption *adoption, const struct recovery_message *from)
{
    for (uint32_t i = from->first_row; i < from->first_row + from->row_count; i++) {
        uint32_t index = adoption->recovery->rows[i]->segment;
        struct recovery_segment *segment = &adoption->recovery->segments[index];
        if (--segment->wanted == 0)
            spool_recovery_forget_rows(segment);
    }
}

static bool message_is_ours(const struct spool_adoption *adoption, uint32_t message)
{
    const struct recovery_message *from = &adoption->recovery->messages[message];
    return adoption->shares[from->segment] == adoption->index;
}

/* Rows and details are as cold as millions of them are: what comes soon is fetched meanwhile. Two
 * rows are a MESSAGE and the PROGRESS of its last attempt. */
static void adoption_look_ahead(const struct spool_adoption *adoption)
{
    const struct spool_recovery *recovery = adoption->recovery;
    const struct recovery_message *next;
    uint32_t message = adoption->message + AHEAD_ROWS;

    if (message >= recovery->message_count)
        return;
    if (message_is_ours(adoption, message)) {
        next = &recovery->messages[message];
        __builtin_prefetch(recovery->rows[next->first_row]);
        __builtin_prefetch(recovery->rows[next->first_row + next->row_count - 1]);
    }
    message -= AHEAD_ROWS - AHEAD_DETAILS;
    if (message_is_ours(adoption, message)) {
        next = &recovery->messages[message];
        __builtin_prefetch(recovery->rows[next->first_row]->detail);
        __builtin_prefetch(recovery->rows[next->first_row + next->row_count - 1]->detail);
    }
}

/* ---- public ---- */

struct spool_adoption *spool_adoption_new(struct spool_recovery *recovery, struct spool *spool,
                                          uint32_t index, uint32_t count)
{
    CHECK(index < count);
    struct spool_adoption *adoption = calloc(1, sizeof(*adoption));
    CHECK(adoption != NULL);
    *adoption = (struct spool_adoption){.recovery = recovery, .spool = spool, .index = index};
    uint32_t segments = recovery->segment_count;
    adoption->shares = calloc(segments + 1, sizeof(*adoption->shares));
    adoption->adopted = malloc((segments + 1) * sizeof(*adoption->adopted));
    CHECK(adoption->shares != NULL && adoption->adopted != NULL);
    memset(adoption->adopted, 0xff, (segments + 1) * sizeof(*adoption->adopted));
    spool_recovery_deal(recovery, count, adoption->shares);
    return adoption;
}

uint32_t spool_recovery_messages(const struct spool_recovery *recovery)
{
    return recovery->message_count;
}

static void adoption_refer(struct spool_adoption *adoption)
{
    for (uint32_t i = 0; i < adoption->recovery->segment_count; i++) {
        if (adoption->adopted[i] != NOT_ADOPTED)
            adopt_references(adoption, i);
    }
}

/* Everything is held by those who need it. */
static void adoption_end(struct spool_adoption *adoption)
{
    for (uint32_t i = 0; i < adoption->recovery->segment_count; i++) {
        if (adoption->adopted[i] != NOT_ADOPTED)
            adoption->spool->segments[adoption->adopted[i]]->holds--;
    }
    adoption->spool->is_census_due = true;
    adoption->is_over = true;
}

bool spool_adoption_step(struct spool_adoption *adoption, uint32_t max,
                         void (*on_message)(void *context, const struct spool_recovered *message),
                         void *context)
{
    const struct spool_recovery *recovery = adoption->recovery;

    for (uint32_t i = 0; i < max && adoption->segment < recovery->segment_count; i++) {
        uint32_t segment = adoption->segment++;
        if (adoption->shares[segment] == adoption->index)
            adopt_segment(adoption, segment);
        if (adoption->segment == recovery->segment_count)
            adoption_refer(adoption);
        if (i + 1 == max)
            return true;
    }
    for (uint32_t i = 0; i < max && adoption->message < recovery->message_count; i++) {
        adoption_look_ahead(adoption);
        uint32_t message = adoption->message++;
        if (!message_is_ours(adoption, message))
            continue;
        adopt_message(adoption, &recovery->messages[message], on_message, context);
        adopt_forget(adoption, &recovery->messages[message]);
    }
    if (adoption->message < recovery->message_count)
        return true;
    if (!adoption->is_over)
        adoption_end(adoption);
    return false;
}

void spool_adoption_free(struct spool_adoption *adoption)
{
    free(adoption->shares);
    free(adoption->adopted);
    free(adoption);
}

void spool_recovery_adopt(struct spool_recovery *recovery, struct spool *spool, uint32_t index,
                          uint32_t count,
                          void (*on_message)(void *context, const struct spool_recovered *message),
                          void *context)
{
    struct spool_adoption *adoption = spool_adoption_new(recovery, spool, index, count);

    while (spool_adoption_step(adoption, UINT32_MAX, on_message, context))
        ;
    spool_adoption_free(adoption);
}
