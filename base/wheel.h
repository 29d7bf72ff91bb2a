/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_WHEEL_H
#define BASE_WHEEL_H

#include "base/check.h"
#include "base/tick.h"

/*
 * Timers of one shard: a hierarchical wheel, 4 levels of 256 slots, 1 ms a slot at the bottom,
 * intrusive links, so arm and cancel are O(1) and allocate nothing. A timer never fires early and
 * at most one slot (1 ms) late plus the turn. Deadlines beyond the top (about 49 days) are parked
 * in its last slot and re-armed there.
 */
struct wheel_timer {
    struct wheel_timer *next, *prev; /* NULL when not armed */
    tick_us deadline;
    uint32_t kind; /* the owner's enum: says which handler and which containing struct */
    uint16_t level, slot;
};

#define WHEEL_LEVELS 4
#define WHEEL_SLOTS  256

struct wheel {
    /* What every turn asks, together. */
    tick_us now; /* timers whose deadline, rounded up to a slot, is <= now are out or in `due` */
    /* The first slot to look at, when is_next_known: where it is and when it starts. */
    tick_us next_start; /* TICK_NEVER: all are empty */
    uint16_t next_level, next_slot;
    bool is_next_known;
    struct wheel_timer due;

    uint64_t armed; /* timers linked now */
    uint64_t occupied[WHEEL_LEVELS][WHEEL_SLOTS / 64];
    struct wheel_timer slots[WHEEL_LEVELS][WHEEL_SLOTS];
};
_Static_assert(offsetof(struct wheel, armed) <= 64, "one line");

void wheel_init(struct wheel *wheel, tick_us now);
/** Link, or move if linked already. A deadline in the past fires at the next advance. */
void wheel_arm(struct wheel *wheel, struct wheel_timer *timer, tick_us deadline);
/** Unlink; no effect when not armed. */
void wheel_cancel(struct wheel *wheel, struct wheel_timer *timer);
static inline bool wheel_is_armed(const struct wheel_timer *timer)
{
    return timer->next != NULL;
}
/** Move time forward, then hand out due timers one by one (unlinked before return); NULL when there
 * is none left. Timers may be armed and cancelled freely between calls; one armed for <= now fires
 * in the same round. */
static inline struct wheel_timer *wheel_expire_next(struct wheel *wheel, tick_us now);
/** When wheel_expire_next() is needed next (a timer falls due, or a slot must be spread out): how
 * long the shard may sleep. TICK_NEVER when nothing is armed. */
static inline tick_us wheel_deadline(const struct wheel *wheel);

/* A turn asks several wheels, mostly in vain: that is answered without a call. */
static inline bool wheel_is_quiet(const struct wheel *wheel)
{
    return wheel->is_next_known && wheel->due.next == &wheel->due;
}

struct wheel_timer *wheel_expire_slow(struct wheel *wheel, tick_us now);
tick_us wheel_deadline_slow(const struct wheel *wheel);

static inline struct wheel_timer *wheel_expire_next(struct wheel *wheel, tick_us now)
{
    if (now >= wheel->next_start || !wheel_is_quiet(wheel))
        return wheel_expire_slow(wheel, now);
    if (now > wheel->now)
        wheel->now = now;
    return NULL;
}

static inline tick_us wheel_deadline(const struct wheel *wheel)
{
    return wheel_is_quiet(wheel) ? wheel->next_start : wheel_deadline_slow(wheel);
}

#define WHEEL_OWNER(timer_pointer, type, member)                                                   \
    ((type *)(void *)((char *)(timer_pointer)-offsetof(type, member)))

#endif
