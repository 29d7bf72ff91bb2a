/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many notifications a sender gets: at most options.dsn_per_sender_max in any hour, from this
 * shard. What is beyond waits for its turn; nothing is dropped.
 *
 * A turn is reserved once, when a notification could go: the sender's next free turn moves on by an
 * interval, and half of an hour's share may go at once. So any hour sees at most that half, and the
 * other half at its pace. Whoever waits has its own turn and need not ask again.
 *
 * The table has QMGR_DSN_SHARE_SETS sets of QMGR_DSN_SHARE_WAYS. A sender whose turns are all in
 * the past is as good as a new one: its place is free. In a full set the one with the least ahead
 * of it is forgotten, and counted: it may get more than its share then, never less.
 */
#include "queue/qmgr_state.h"

#define SHARE_WINDOW TICK_S(3600)

static struct qmgr_dsn_share *share_find(struct qmgr *qmgr, struct span sender, tick_us now)
{
    uint64_t hash = keyed_hash_octets(&qmgr->hash, sender) | 1; /* 0: nobody */
    struct qmgr_dsn_share *set = qmgr->dsn_shares[(hash >> 8) % QMGR_DSN_SHARE_SETS];
    struct qmgr_dsn_share *least = &set[0];

    for (uint32_t i = 0; i < QMGR_DSN_SHARE_WAYS; i++) {
        if (set[i].hash == hash)
            return &set[i];
        if (set[i].next < least->next)
            least = &set[i];
    }
    if (least->next > now)
        qmgr->stats.dsn_senders_forgotten++;
    *least = (struct qmgr_dsn_share){.hash = hash};
    return least;
}

tick_us qmgr_dsn_reserve(struct qmgr *qmgr, struct span sender, struct tick_now now)
{
    uint32_t at_once = qmgr->options.dsn_per_sender_max / 2;

    if (qmgr->options.dsn_per_sender_max == 0)
        return now.tick;
    CHECK(at_once > 0);
    struct qmgr_dsn_share *of = share_find(qmgr, sender, now.tick);
    tick_us interval = SHARE_WINDOW / at_once;
    tick_us ahead = (at_once - 1) * interval;

    if (of->next < now.tick)
        of->next = now.tick;
    tick_us turn = of->next > now.tick + ahead ? of->next - ahead : now.tick;
    of->next += interval;
    return turn;
}
