/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: how much of it there is, and who may take it, so that a spool never comes to a stand, not
 * even on a disk where not one segment more is to be had.
 *
 * All that the disk gives us is `total`. Some of it is live (records that some message needs), some
 * is free (segments that are ready, reusable or creatable, and the rest of the active one), and the
 * rest is garbage, which the copier turns into free room. These may write as long as they leave
 * free at least
 *
 *   new mail                            the margin, a segment and a 64th of all; reserve_size
 *                                       (else 452)
 *   attempts, failures not yet told     the margin and half a segment (else only memory has them:
 *                                       after a restart they come to pass once more)
 *   notifications                       the margin (else their mail owes them, and tries again)
 *   copies                              nothing: they take less than they free
 *   ends (DONE, VOID), deliveries,      nothing: while copies are made they travel with these
 *   orders
 *
 * The margin is two segments, or three, a 32nd of all, and SPOOL_END_OCTETS for each live message.
 * Where there is no room for attempts any more, room is tight: the copier is at work as long as
 * there is garbage enough, a 64th of all (spool_victim.c).
 *
 * Why there is always room for an end
 *   1. Under the margin nothing is written that stays live but a message's last results, which
 *      SPOOL_END_OCTETS counts. So live <= total - margin, and what is missing from the margin is
 *      garbage: an end that has a block for itself is that from the beginning, and so is what a
 *      death leaves unwritten of a segment.
 *   2. So copying begins when a 64th is missing, and more than one segment is free yet: what lives
 *      in any other fits.
 *   3. The oldest segment refers to no other: empty, it is used again, and what referred to it goes
 *      on without it. Each gives back a whole segment for less, so one turn over all of them makes
 *      all garbage free, but for what the ends of segments and of batches waste.
 *   4. Meanwhile an end takes SPOOL_END_OCTETS, which the margin has for each message once. So the
 *      segment that the copier needs is never taken by somebody else.
 * Why there is something to end, or room for a notification
 *   5. Attempts leave half a segment more than notifications do, and mail leaves more. What is
 *      missing of that is notifications, which wait in the queue and end, delivered or expired; or
 *      garbage, which is copied away when it is a 64th; or else it is little, and there is room for
 *      a notification.
 * Where all segments are live through and through, only ends are written: the first 64th of them is
 * what the copier begins with. Each ends a message, and none is added.
 *
 * Limits: this holds from SPACE_SEGMENTS_MANY segments on. From SPACE_SEGMENTS_MIN on it holds as a
 * rule: headers and indexes take more of the margin then. Smaller spools keep what they can. A
 * segment that failed (RETIRED) gives nothing back before the next start. A process that dies loses
 * the rest of its active segment: from SPACE_SEGMENTS_MANY on one segment is kept for a death amid
 * copying; a second one, before the copier of the next process has emptied a segment, may bring it
 * to a stand, until there are SPOOL_SEGMENT_SIZE_MIN octets on the disk (spool_supply.c).
 */
#include "queue/spool_internal.h"

#define SPOOL_OVERHEAD                                                                             \
    8192u /* of a message on the disk, besides body: headers, padding, envelope */
#define SPOOL_END_OCTETS    (2 * SPOOL_DONE_OCTETS) /* of a message: last results, and DONE */
#define SPACE_SEGMENTS_MIN  6u
#define SPACE_SEGMENTS_MANY 16u

/* ---- how much there is ---- */

/* What is left of a small segment is for what frees others: ends and copies. */
static uint64_t space_room(const struct spool *spool, uint32_t creatable)
{
    uint64_t capacity = spool->options.segment_size - 4 * SPOOL_BLOCK_SIZE;
    const struct spool_segment *active = spool->active;
    bool has_room = active != NULL && active->size >= spool->options.segment_size;
    return (has_room ? spool_segment_room(active, 64, 0) : 0) + spool->census.room +
           (spool->is_create_refused ? 0 : creatable * capacity);
}

uint64_t spool_room(const struct spool *spool)
{
    return space_room(spool, spool->census.creatable);
}

uint64_t spool_room_urgent(const struct spool *spool)
{
    return space_room(spool, spool->census.creatable_urgent);
}

uint64_t spool_room_small(const struct spool *spool)
{
    const struct spool_segment *active = spool->active;
    uint64_t done = SPOOL_DONE_OCTETS * spool->stats.messages_live, room = 0;
    uint32_t urgent = spool_segment_urgent_size(spool);

    if (active == NULL && urgent > 0)
        room = urgent - 4 * SPOOL_BLOCK_SIZE;
    else if (active != NULL && active->size < spool->options.segment_size)
        room = spool_segment_room(active, 64, 0);
    return room > done ? room - done : 0;
}

/* ---- who may take it ---- */

static uint64_t space_segments(const struct spool *spool)
{
    return spool->census.total / spool->options.segment_size;
}

/* Segments: the copier's, one for ends, and one for a death. */
static uint64_t space_kept(const struct spool *spool)
{
    uint64_t segments = space_segments(spool);

    if (segments < SPACE_SEGMENTS_MIN)
        return segments / 4;
    return segments < SPACE_SEGMENTS_MANY ? 2 : 3;
}

static uint64_t space_margin(const struct spool *spool)
{
    if (SPOOL_HAS_BUG(NO_MARGIN))
        return SPOOL_DONE_OCTETS * spool->stats.messages_live;
    return space_kept(spool) * spool->options.segment_size + spool->census.total / 32 +
           SPOOL_END_OCTETS * spool->stats.messages_live;
}

static uint64_t space_reserve(const struct spool *spool)
{
    uint64_t segment = spool->options.segment_size, quarter = spool->census.total / 4;
    uint64_t reserve = spool->options.reserve_size;
    uint64_t least = space_margin(spool) + segment + spool->census.total / 64;

    reserve = reserve > quarter ? quarter : reserve;
    return reserve < least ? least : reserve;
}

bool spool_has_room(const struct spool *spool, uint64_t size, bool with_reserve)
{
    uint64_t wanted = spool->promised + spool->pending_octets + size + SPOOL_OVERHEAD;

    if (spool_room(spool) >= wanted + space_reserve(spool))
        return true;
    return with_reserve && spool_room_urgent(spool) >= wanted + space_margin(spool);
}

uint64_t spool_promise(uint64_t size)
{
    return size + SPOOL_OVERHEAD;
}

bool spool_is_tight(const struct spool *spool)
{
    return spool_room_urgent(spool) <
           spool->pending_octets + space_margin(spool) + spool->options.segment_size / 2;
}
