/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hierarchical timer wheel.
 *
 * Time is counted in milliseconds here: `current` is floor(now / 1 ms), a timer's due time is
 * ceil(deadline / 1 ms), so that it never fires early. Level L has 256 slots of 256^L ms. A timer
 * sits at the level of the highest octet in which its due time differs from `current`, in the slot
 * that this octet of its due time names. When `current` reaches the start of a slot above level 0
 * its timers are placed anew, further down; in a level 0 slot they are due.
 *
 * Invariants
 *   1. The slot that `current` stands in is empty at every level. At levels 0 to 2 so are the slots
 *      before it; level 3 is circular, and what is more than 255 of its slots away is parked in the
 *      one that comes round last.
 *   2. So all slots of a lower level start before any of a higher one: the next slot to look at is
 *      the first occupied one of the lowest level that has any.
 *   3. A bit of `occupied` is set exactly when the list of its slot is not empty.
 *   4. While is_next_known, next_start is when the first occupied slot starts: a slot that a timer
 *      comes into may be the first, one that the last timer leaves may have been.
 *
 * A turn asks several wheels for what is due and until when there is nothing, mostly in vain: that
 * is a few comparisons of what lies together, and no call (wheel.h).
 *
 * Arm and cancel are O(1). Moving time is O(slots passed that are occupied): empty time costs
 * nothing, however long it was.
 */
#include "base/wheel.h"

#define WHEEL_SLOT_US   1000u
#define WHEEL_LEVEL_DUE WHEEL_LEVELS /* in `due`, which has no bit */

static uint64_t due_ms(tick_us deadline)
{
    return deadline / WHEEL_SLOT_US + (deadline % WHEEL_SLOT_US != 0);
}

static uint64_t current_ms(const struct wheel *wheel)
{
    return wheel->now / WHEEL_SLOT_US;
}

static void list_init(struct wheel_timer *head)
{
    head->next = head;
    head->prev = head;
}

static void list_append(struct wheel_timer *head, struct wheel_timer *timer)
{
    timer->next = head;
    timer->prev = head->prev;
    head->prev->next = timer;
    head->prev = timer;
}

void wheel_init(struct wheel *wheel, tick_us now)
{
    *wheel = (struct wheel){.now = now, .next_start = TICK_NEVER, .is_next_known = true};
    for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
        for (uint32_t slot = 0; slot < WHEEL_SLOTS; slot++)
            list_init(&wheel->slots[level][slot]);
    }
    list_init(&wheel->due);
}

/* Invariant 4, for a slot that was perhaps empty. */
static void wheel_note_slot(struct wheel *wheel, uint32_t level, uint32_t slot, tick_us start)
{
    if (start >= wheel->next_start)
        return;
    wheel->next_start = start;
    wheel->next_level = (uint16_t)level;
    wheel->next_slot = (uint16_t)slot;
}

/* Link where the deadline belongs as seen from `current`. */
static void wheel_place(struct wheel *wheel, struct wheel_timer *timer, uint64_t current)
{
    uint64_t due = due_ms(timer->deadline);

    if (due <= current || timer->deadline <= wheel->now) {
        timer->level = WHEEL_LEVEL_DUE;
        timer->slot = 0;
        list_append(&wheel->due, timer);
        return;
    }
    uint32_t level = (63u - (uint32_t)__builtin_clzll(due ^ current)) / 8;
    if (level >= WHEEL_LEVELS - 1) {
        uint64_t farthest = (current >> 24) + WHEEL_SLOTS - 1;

        level = WHEEL_LEVELS - 1;
        if (due >> 24 > farthest)
            due = farthest << 24;
    }
    uint32_t slot = due >> 8 * level & (WHEEL_SLOTS - 1);
    timer->level = (uint16_t)level;
    timer->slot = (uint16_t)slot;
    list_append(&wheel->slots[level][slot], timer);
    wheel->occupied[level][slot / 64] |= UINT64_C(1) << slot % 64;
    wheel_note_slot(wheel, level, slot, (due >> 8 * level << 8 * level) * WHEEL_SLOT_US);
}

static void wheel_unlink(struct wheel *wheel, struct wheel_timer *timer)
{
    CHECK(timer->next->prev == timer && timer->prev->next == timer);
    timer->next->prev = timer->prev;
    timer->prev->next = timer->next;
    if (timer->level < WHEEL_LEVELS) {
        struct wheel_timer *head = &wheel->slots[timer->level][timer->slot];

        if (head->next == head) {
            wheel->occupied[timer->level][timer->slot / 64] &= ~(UINT64_C(1) << timer->slot % 64);
            if (timer->level == wheel->next_level && timer->slot == wheel->next_slot)
                wheel->is_next_known = false;
        }
    }
    timer->next = NULL;
    timer->prev = NULL;
}

void wheel_arm(struct wheel *wheel, struct wheel_timer *timer, tick_us deadline)
{
    if (wheel_is_armed(timer))
        wheel_unlink(wheel, timer);
    else
        wheel->armed++;
    timer->deadline = deadline;
    wheel_place(wheel, timer, current_ms(wheel));
}

void wheel_cancel(struct wheel *wheel, struct wheel_timer *timer)
{
    if (!wheel_is_armed(timer))
        return;
    CHECK(wheel->armed > 0);
    wheel_unlink(wheel, timer);
    wheel->armed--;
}

/* The first occupied slot of a level at or behind `from`, as a distance from it; WHEEL_SLOTS when
 * the level is empty. */
static uint32_t level_find(const struct wheel *wheel, uint32_t level, uint32_t from)
{
    const uint64_t *words = wheel->occupied[level];
    uint32_t first = from / 64;

    /* Most levels of most wheels, and every turn asks. */
    _Static_assert(WHEEL_SLOTS / 64 == 4, "four words");
    if ((words[0] | words[1] | words[2] | words[3]) == 0)
        return WHEEL_SLOTS;
    for (uint32_t i = 0; i <= WHEEL_SLOTS / 64; i++) {
        uint32_t index = (first + i) % (WHEEL_SLOTS / 64);
        uint64_t word = words[index];

        if (i == 0)
            word &= ~UINT64_C(0) << from % 64;
        else if (i == WHEEL_SLOTS / 64) /* the first word again, now its lower part */
            word &= ~(~UINT64_C(0) << from % 64);
        if (word != 0)
            return (index * 64 + (uint32_t)__builtin_ctzll(word) - from) % WHEEL_SLOTS;
    }
    return WHEEL_SLOTS;
}

/* When the first occupied slot starts, and which it is; TICK_NEVER: all are empty. */
static tick_us wheel_first_slot(const struct wheel *wheel, uint32_t *ret_level, uint32_t *ret_slot)
{
    uint64_t current = current_ms(wheel);

    for (uint32_t level = 0; level < WHEEL_LEVELS; level++) {
        uint64_t position = current >> 8 * level;
        uint32_t distance = level_find(wheel, level, position & (WHEEL_SLOTS - 1));

        if (distance == WHEEL_SLOTS)
            continue;
        CHECK(distance > 0);
        *ret_level = level;
        *ret_slot = (position + distance) & (WHEEL_SLOTS - 1);
        return ((position + distance) << 8 * level) * WHEEL_SLOT_US;
    }
    return TICK_NEVER;
}

/* Invariant 4 holds afterwards. */
static void wheel_learn_next(struct wheel *wheel)
{
    uint32_t level = 0, slot = 0;

    if (wheel->is_next_known)
        return;
    wheel->next_start = wheel_first_slot(wheel, &level, &slot);
    wheel->next_level = (uint16_t)level;
    wheel->next_slot = (uint16_t)slot;
    wheel->is_next_known = true;
}

/* Empty one slot: its timers go to `due` or to lower levels. */
static void wheel_open_slot(struct wheel *wheel, uint32_t level, uint32_t slot, uint64_t current)
{
    struct wheel_timer *head = &wheel->slots[level][slot];
    struct wheel_timer *timer = head->next;

    list_init(head);
    wheel->occupied[level][slot / 64] &= ~(UINT64_C(1) << slot % 64);
    wheel->is_next_known = false;
    while (timer != head) {
        struct wheel_timer *next = timer->next;

        wheel_place(wheel, timer, current);
        timer = next;
    }
}

static void wheel_advance(struct wheel *wheel, tick_us now)
{
    wheel_learn_next(wheel);
    while (wheel->next_start <= now) {
        wheel->now = wheel->next_start;
        wheel_open_slot(wheel, wheel->next_level, wheel->next_slot, current_ms(wheel));
        wheel_learn_next(wheel);
    }
    wheel->now = now;
}

struct wheel_timer *wheel_expire_slow(struct wheel *wheel, tick_us now)
{
    if (now > wheel->now)
        wheel_advance(wheel, now);
    struct wheel_timer *timer = wheel->due.next;
    if (timer == &wheel->due)
        return NULL;
    wheel_cancel(wheel, timer);
    return timer;
}

tick_us wheel_deadline_slow(const struct wheel *wheel)
{
    uint32_t level, slot;

    if (wheel->due.next != &wheel->due)
        return wheel->now;
    return wheel->is_next_known ? wheel->next_start : wheel_first_slot(wheel, &level, &slot);
}
