/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: how much of it there is, and who may take it, so that a spool never comes to a stand, not
 * even on a disk where not one segment more is to be had.
 *
 * All that the disk gives us is `total`. Some of it is live (records that some message needs), some
 * is free (segments that are ready, reusable or creatable, and the rest of the active one), and the
 * rest is garbage, which the copier turns into free room. Two things count: the room that there is
 * now, and what there will be when all garbage was copied away: `total` less what lives, and less
 * what copying wastes. These may write as long as they leave, of both, at least
 *
 *   new mail                            the margin, a segment and a 64th of all; and of the room
 *                                       now reserve_size (else 452)
 *   attempts, failures not yet told     the margin and half a segment (else only memory has them:
 *                                       after a restart they come to pass once more)
 *   notifications                       the margin (else their mail owes them, and tries again)
 *   copies                              nothing: they take less than they free
 *   ends (DONE, VOID), deliveries,      nothing: while copies are made they travel with these
 *   orders
 *
 * The margin is three segments, and SPOOL_END_OCTETS for each live message; a segment that failed
 * was one of the three. What there will be is counted less another 64th: so much garbage is not
 * worth a turn of the copier. Where there is no room now for attempts any more, room is tight: the
 * copier is at work as long as there is garbage enough, a 64th of all (spool_victim.c).
 *
 * Why there is always room for an end
 *   1. What is counted as ours stays ours: other spools leave it to us (spool_share.c). One that
 *      has nothing at all takes a segment (spool_supply.c): the one kept for what is lost.
 *   2. Under the margin nothing is written that stays live but a message's last results, which
 *      SPOOL_END_OCTETS counts. So the margin's segments will be free, and what is missing of them
 *      now is garbage: an end that has a block for itself is that from the beginning, and so is
 *      what a death leaves unwritten of a segment, or what was left for a zeroed one.
 *   3. So copying begins when a 64th is missing, with two segments free yet: what lives in any
 *      other fits, and what its copies waste.
 *   4. The oldest segment refers to no other: empty, it is used again, and what referred to it goes
 *      on without it. Each gives back a whole segment for what lives in it and the waste of one. So
 *      one turn over all of them makes all garbage free, and never needs more than will be free,
 *      and the segment that is being copied.
 *   5. Meanwhile an end takes SPOOL_END_OCTETS, which the margin has for each message once. So the
 *      segment that the copier needs is never taken by somebody else.
 * Why there is something to end, or room for a notification
 *   6. Mail leaves more than notifications do, of what will be free: a segment, half of which may
 *      be attempts, and a 64th. What takes that is notifications, which wait in the queue and end,
 *      delivered or expired. Then there will be room for a next one; and there is now, or there is
 *      garbage for a turn of the copier.
 *   7. A start keeps it so: what lives is dealt out evenly among the spools (spool_adopt.c). One
 *      that got more than notifications may fill would hold mail that owes some for ever.
 * Where all segments are live through and through, only ends are written: the first 64th of them is
 * what the copier begins with. Each ends a message, and none is added.
 *
 * Limits: this holds from SPACE_SEGMENTS_MIN segments on; smaller spools keep what they can. The
 * configuration asks for SPACE_SEGMENTS_MANY, so that one may fail, or be lost with a process that
 * dies, and mail have room besides. A segment that failed (RETIRED) gives nothing back before the
 * next start. A process that dies loses the rest of its active segment: one is kept for a death
 * amid copying; a second one, before the copier of the next process has emptied a segment, may
 * bring it to a stand, until there are SPOOL_SEGMENT_SIZE_MIN octets on the disk (spool_supply.c).
 */
#include "queue/spool_internal.h"

#define SPOOL_OVERHEAD                                                                             \
    8192u /* of a message on the disk, besides body: headers, padding, envelope */
#define SPOOL_END_OCTETS    (2 * SPOOL_DONE_OCTETS) /* of a message: last results, and DONE */
#define SPACE_SEGMENTS_MIN  6u
#define SPACE_SEGMENTS_MANY 8u

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

/* Segments: the copier's, one for ends, and one for what is lost by a death or a failing disk. */
static uint64_t space_kept(const struct spool *spool)
{
    uint64_t lost = spool->census.lost / spool->options.segment_size;
    uint64_t segments = spool->census.total / spool->options.segment_size + lost;

    if (segments < SPACE_SEGMENTS_MIN)
        return segments / 4;
    return segments < SPACE_SEGMENTS_MANY || lost > 0 ? 2 : 3;
}

static uint64_t space_margin(const struct spool *spool)
{
    if (SPOOL_HAS_BUG(NO_MARGIN))
        return SPOOL_DONE_OCTETS * spool->stats.messages_live;
    return space_kept(spool) * spool->options.segment_size +
           SPOOL_END_OCTETS * spool->stats.messages_live;
}

/* Besides the margin, for mail that ends: notifications of it, and what else is told. */
static uint64_t space_notices(const struct spool *spool)
{
    return spool->options.segment_size + spool->census.total / 64;
}

/* What is kept free of the room that there is. */
static uint64_t space_reserve(const struct spool *spool)
{
    uint64_t reserve = spool->options.reserve_size, quarter = spool->census.total / 4;
    uint64_t least = space_margin(spool) + space_notices(spool);

    reserve = reserve > quarter ? quarter : reserve;
    return reserve < least ? least : reserve;
}

/* Of `total`, what lives, and will when all that waits is written, leaves that much free once
 * everything else was copied away. */
static bool space_will_have(const struct spool *spool, uint64_t total, uint64_t wanted,
                            uint64_t kept)
{
    uint64_t segment = spool->options.segment_size, segments = total / segment;
    uint64_t waste = spool->part_size_max + 3 * (uint64_t)SPOOL_BLOCK_SIZE + segment / 32;
    uint64_t live = spool->live_octets + spool->live_records * SPOOL_ROW_OCTETS;

    return segments < SPACE_SEGMENTS_MIN ||
           segments * (segment - waste) >= live + wanted + kept + total / 64;
}

static uint64_t space_wanted(const struct spool *spool, uint64_t size)
{
    return spool->promised + spool->pending_octets + size + SPOOL_OVERHEAD;
}

/* Notifications may take more than `size_max`, mail may not. */
bool spool_has_room(const struct spool *spool, uint64_t size, bool with_reserve)
{
    uint64_t wanted = space_wanted(spool, size), margin = space_margin(spool);

    if (spool_room(spool) >= wanted + space_reserve(spool) &&
        space_will_have(spool, spool->census.total, wanted, margin + space_notices(spool)))
        return true;
    return with_reserve && spool_room_urgent(spool) >= wanted + margin &&
           space_will_have(spool, spool->census.total_urgent, wanted, margin);
}

bool spool_may_waste(const struct spool *spool, uint64_t size)
{
    return spool_has_room(spool, size, false);
}

uint64_t spool_promise(uint64_t size)
{
    return size + SPOOL_OVERHEAD;
}

bool spool_room_is_tight(const struct spool *spool)
{
    return spool_room_urgent(spool) <
           spool->pending_octets + space_margin(spool) + spool->options.segment_size / 2;
}

bool spool_is_tight(const struct spool *spool)
{
    uint64_t kept = space_margin(spool) + spool->options.segment_size / 2;
    return spool_room_is_tight(spool) ||
           !space_will_have(spool, spool->census.total_urgent, spool->pending_octets, kept);
}
