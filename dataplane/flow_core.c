/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all flow planes share, first half: handles, lists and reports. (flow_octets.c has the
 * octets.)
 *
 * Slots live in blocks that are never moved or given back (on huge pages when there are many); a
 * handle is the slot's index and its generation, which changes when the owner lets go and again
 * when the slot is free, so that an old handle is recognised. Slots that need something done are on
 * lists, so that a turn costs nothing for flows on which nothing happened:
 *
 *   report   poll has something to say          flow_core_touch()       flow_core_report()
 *   read     the transport may have octets      flow_core_resume()      flow_core_read_round()
 *   dirty    octets or a FIN may go             flow_core_send_later()  flow_core_dirty_round()
 *   warm     holds buffers it may not need      flow_core_warm()        flow_core_settle()
 *
 * Invariants
 *   1. A slot is on each list at most once; a free slot is on the free list alone.
 *   2. poll reports a slot when something changed since the last report: octets came, went out, or
 *      were consumed; a state was entered; flow_want() added something. The mask then shows all
 * that is true. A flow whose owner looked and left everything (half a command line) is not repeated
 *      until something changes, so that it costs neither turns nor sleep.
 *   3. CONNECTED is reported once.
 *   4. A slot on which nothing is received, taken or unsent holds no buffer after the settle.
 *
 * Limits: slot_count_max; a block is of as many slots as that, at least 1 << SLOT_SHIFT_MIN and at
 * most 1 << SLOT_SHIFT_MAX. Its memory is real from a slot's first use on.
 */
#include "dataplane/flow_core.h"

#include <stdlib.h>

#include "base/pages.h"

#define SLOT_SHIFT_MIN 6u
#define SLOT_SHIFT_MAX 15u
#define SLOT_ALWAYS    ((uint32_t) ~(FLOW_READABLE | FLOW_WRITABLE | FLOW_SENT))
#define LEFTOVER_MAX   4096u

/* ---- lists ---- */

/* Moves all of `from` to the empty head `to`: what is pushed meanwhile waits for the next round. */
static void link_move(struct flow_link *to, struct flow_link *from)
{
    flow_link_init(to);
    if (flow_link_is_empty(from))
        return;
    *to = *from;
    to->next->prev = to;
    to->prev->next = to;
    flow_link_init(from);
}

/* ---- slots ---- */

void flow_core_init(struct flow_core *core, const struct flow_ops *ops, struct buf_pool *pool,
                    uint32_t slot_size, uint32_t slot_count_max)
{
    CHECK(ops != NULL && pool != NULL);
    CHECK(slot_size >= sizeof(struct flow_slot) && slot_count_max > 0);

    *core = (struct flow_core){.plane = {.ops = ops, .pool = pool},
                               .slot_size = slot_size,
                               .slot_count_max = slot_count_max};
    core->block_shift = SLOT_SHIFT_MIN;
    while (core->block_shift < SLOT_SHIFT_MAX && 1u << core->block_shift < slot_count_max)
        core->block_shift++;
    core->block_count = ((slot_count_max - 1) >> core->block_shift) + 1;
    core->blocks = calloc(core->block_count, sizeof(*core->blocks));
    CHECK(core->blocks != NULL);
    flow_link_init(&core->free);
    flow_link_init(&core->report);
    flow_link_init(&core->read);
    flow_link_init(&core->dirty);
    flow_link_init(&core->warm);
}

static size_t block_size(const struct flow_core *core)
{
    return (size_t)core->slot_size << core->block_shift;
}

void flow_core_fini(struct flow_core *core)
{
    for (uint32_t i = 0; i < core->slot_count; i++)
        CHECK(flow_core_slot_at(core, i)->kind == FLOW_SLOT_FREE);
    flow_core_settle(core);
    if (core->leftover != NULL)
        buf_release(core->leftover);
    for (uint32_t i = 0; i < core->block_count; i++)
        pages_free(core->blocks[i], block_size(core));
    free(core->blocks);
}

uint64_t flow_core_memory(const struct flow_core *core)
{
    return (uint64_t)core->slot_count * core->slot_size + core->block_count * sizeof(*core->blocks);
}

static bool slots_grow(struct flow_core *core)
{
    if (core->slot_count == core->slot_count_max)
        return false;
    void **block = &core->blocks[core->slot_count >> core->block_shift];
    if (*block == NULL)
        *block = pages_new(block_size(core));
    if (*block == NULL)
        return false;
    uint32_t index = core->slot_count++;
    struct flow_slot *slot = flow_core_slot_at(core, index);
    slot->index = index;
    flow_link_push(&core->free, &slot->report);
    return true;
}

struct flow_slot *flow_core_slot_new(struct flow_core *core, enum flow_slot_kind kind,
                                     uint64_t user)
{
    CHECK(kind != FLOW_SLOT_FREE);
    if (flow_link_is_empty(&core->free) && !slots_grow(core))
        return NULL;
    struct flow_slot *slot = FLOW_SLOT_OF(core->free.next, report);
    CHECK(slot->kind == FLOW_SLOT_FREE);
    flow_link_remove(&slot->report);

    uint32_t index = slot->index, generation = slot->generation + 1;
    memset(slot, 0, core->slot_size);
    slot->index = index;
    slot->generation = generation == 0 ? 1 : generation;
    slot->incarnation = ++core->incarnation;
    slot->kind = (uint8_t)kind;
    slot->wanted = FLOW_READABLE;
    slot->user = user;
    slot->receive_limit = FLOW_RECEIVE_LIMIT;
    slot->send_limit = FLOW_SEND_LIMIT;
    buf_queue_init(&slot->received);
    buf_queue_init(&slot->unsent);
    core->stats.flows++;
    return slot;
}

static void slot_let_go_received(struct flow_slot *slot)
{
    buf_queue_fini(&slot->received);
    if (slot->tail != NULL)
        buf_release(slot->tail);
    slot->tail = NULL;
    slot->charge = slot->taken = 0;
}

void flow_core_slot_free(struct flow_core *core, struct flow_slot *slot)
{
    CHECK(slot->kind != FLOW_SLOT_FREE);
    slot_let_go_received(slot);
    buf_queue_fini(&slot->unsent);
    flow_link_remove(&slot->report);
    flow_link_remove(&slot->read);
    flow_link_remove(&slot->dirty);
    flow_link_remove(&slot->warm);
    if (slot->flags & FLOW_SLOT_ORPHAN)
        core->stats.orphans--;
    else
        core->stats.flows--;
    slot->kind = FLOW_SLOT_FREE;
    slot->generation++;
    slot->incarnation = 0;
    flow_link_push(&core->free, &slot->report);
}

void flow_core_slot_orphan(struct flow_core *core, struct flow_slot *slot)
{
    CHECK(slot->kind == FLOW_SLOT_STREAM && !(slot->flags & FLOW_SLOT_ORPHAN));
    slot_let_go_received(slot);
    flow_link_remove(&slot->report);
    flow_link_remove(&slot->warm);
    slot->generation++;
    slot->wanted = 0;
    slot->held = 0;
    slot->flags |= FLOW_SLOT_ORPHAN | FLOW_SLOT_FIN_WANTED;
    core->stats.flows--;
    core->stats.orphans++;
    flow_core_send_later(core, slot);
}

struct flow_slot *flow_core_find(struct flow_core *core, struct flow flow)
{
    if (flow.generation == 0)
        return NULL;
    struct flow_slot *slot = flow_core_slot_at(core, flow.index);
    if (slot == NULL || slot->kind == FLOW_SLOT_FREE || slot->generation != flow.generation ||
        slot->flags & FLOW_SLOT_ORPHAN)
        return NULL;
    return slot;
}

/* ---- what is to be done ---- */

void flow_core_resume(struct flow_core *core, struct flow_slot *slot)
{
    if (slot->flags & FLOW_SLOT_MORE && slot->charge < slot->receive_limit)
        flow_link_push(&core->read, &slot->read);
}

void flow_core_send_later(struct flow_core *core, struct flow_slot *slot)
{
    bool has_fin = slot->flags & FLOW_SLOT_FIN_WANTED && !(slot->flags & FLOW_SLOT_FIN_SENT);
    if (slot->flags & FLOW_SLOT_OPEN && !(slot->flags & FLOW_SLOT_BLOCKED) &&
        (flow_core_sendable(slot) > 0 || has_fin))
        flow_link_push(&core->dirty, &slot->dirty);
}

void flow_core_read_round(struct flow_core *core, struct flow_link *ret_round)
{
    link_move(ret_round, &core->read);
}

struct flow_slot *flow_core_read_next(struct flow_link *round)
{
    if (flow_link_is_empty(round))
        return NULL;
    struct flow_slot *slot = FLOW_SLOT_OF(round->next, read);
    flow_link_remove(&slot->read);
    return slot;
}

void flow_core_dirty_round(struct flow_core *core, struct flow_link *ret_round)
{
    link_move(ret_round, &core->dirty);
}

struct flow_slot *flow_core_dirty_next(struct flow_link *round)
{
    if (flow_link_is_empty(round))
        return NULL;
    struct flow_slot *slot = FLOW_SLOT_OF(round->next, dirty);
    flow_link_remove(&slot->dirty);
    return slot;
}

void flow_core_dirty_return(struct flow_core *core, struct flow_link *round)
{
    if (flow_link_is_empty(round))
        return;
    struct flow_link *first = round->next, *last = round->prev;
    first->prev = &core->dirty;
    last->next = core->dirty.next;
    core->dirty.next->prev = last;
    core->dirty.next = first;
    flow_link_init(round);
}

bool flow_core_is_quiet(const struct flow_core *core)
{
    return flow_link_is_empty(&core->report) && flow_link_is_empty(&core->dirty) &&
           flow_link_is_empty(&core->read);
}

/* ---- reports ---- */

static uint32_t slot_stream_mask(const struct flow_slot *slot)
{
    uint32_t mask = 0;
    bool is_lost = slot->flags & (FLOW_SLOT_IS_RESET | FLOW_SLOT_IS_FAILED);

    if (slot->flags & FLOW_SLOT_NEWS)
        mask |= FLOW_CONNECTED;
    if (slot->received.size > 0)
        mask |= FLOW_READABLE;
    if (slot->flags & FLOW_SLOT_OPEN && !is_lost) {
        if (slot->unsent.size < slot->send_limit)
            mask |= FLOW_WRITABLE;
        if (slot->unsent.size == 0)
            mask |= FLOW_SENT;
    }
    if (slot->flags & FLOW_SLOT_EOF)
        mask |= FLOW_PEER_CLOSED;
    if (slot->flags & FLOW_SLOT_IS_RESET)
        mask |= FLOW_RESET;
    if (slot->flags & FLOW_SLOT_IS_FAILED)
        mask |= FLOW_FAILED;
    return mask;
}

static uint32_t slot_mask(const struct flow_slot *slot)
{
    uint32_t mask = 0;

    if (slot->kind == FLOW_SLOT_STREAM)
        mask = slot_stream_mask(slot);
    else if (slot->flags & FLOW_SLOT_PENDING)
        mask = slot->kind == FLOW_SLOT_LISTENER ? FLOW_ACCEPTABLE : FLOW_READABLE;
    return mask & (SLOT_ALWAYS | slot->wanted);
}

uint32_t flow_core_report(struct flow_core *core, struct flow_event *ret_events, uint32_t max)
{
    uint32_t count = 0;

    while (count < max && !flow_link_is_empty(&core->report)) {
        struct flow_slot *slot = FLOW_SLOT_OF(core->report.next, report);
        flow_link_remove(&slot->report);
        uint32_t mask = slot_mask(slot);
        if (mask == 0)
            continue;
        slot->flags &= ~(uint32_t)FLOW_SLOT_NEWS;
        ret_events[count++] = (struct flow_event){flow_core_handle(slot), mask, slot->user};
    }
    return count;
}

void flow_core_connected(struct flow_core *core, struct flow_slot *slot, enum err err)
{
    CHECK(!(slot->flags & FLOW_SLOT_OPEN));
    if (err == ERR_OK) {
        slot->flags |= FLOW_SLOT_OPEN | FLOW_SLOT_NEWS;
        core->stats.connected++;
        flow_core_send_later(core, slot);
    } else {
        slot->flags |= FLOW_SLOT_IS_FAILED;
        slot->error = (uint8_t)err;
        core->stats.connect_failed++;
        buf_queue_fini(&slot->unsent);
        slot->held = 0;
    }
    flow_core_touch(core, slot);
}

void flow_core_reset(struct flow_core *core, struct flow_slot *slot, enum err err)
{
    if (slot->flags & FLOW_SLOT_IS_RESET)
        return;
    slot->flags |= FLOW_SLOT_IS_RESET;
    slot->flags &= ~(uint32_t)FLOW_SLOT_MORE;
    slot->error = (uint8_t)err;
    core->stats.resets++;
    buf_queue_fini(&slot->unsent);
    slot->held = 0;
    flow_link_remove(&slot->dirty);
    flow_link_remove(&slot->read);
    flow_core_touch(core, slot);
}

/* ---- end of turn ---- */

/* Copies a small rest into the shared buffer, so that it does not pin one of its own. Without room
 * for that it stays where it is. */
static void slot_compact(struct flow_core *core, struct flow_slot *slot)
{
    uint32_t size = (uint32_t)slot->received.size;

    if (size > LEFTOVER_MAX || size * 4 > slot->charge)
        return;
    if (core->leftover != NULL && buf_room(core->leftover) < size) {
        buf_release(core->leftover);
        core->leftover = NULL;
    }
    if (core->leftover == NULL)
        core->leftover = buf_acquire(core->plane.pool);
    if (core->leftover == NULL || buf_room(core->leftover) < size)
        return;

    struct buf *leftover = core->leftover;
    uint32_t offset = leftover->mbuf.data_off + buf_size(leftover);
    buf_queue_copy_out(&slot->received, 0, buf_data(leftover) + buf_size(leftover), size);
    buf_extend(leftover, size);
    buf_queue_drop(&slot->received, size);
    buf_queue_append(&slot->received, leftover, offset, size);
    if (slot->tail != NULL)
        buf_release(slot->tail);
    slot->tail = NULL;
    slot->charge = size;
    flow_core_copied(core, &core->stats.copied.rest, size);
}

static void slot_settle(struct flow_core *core, struct flow_slot *slot)
{
    if (slot->unsent.size == 0)
        buf_queue_fini(&slot->unsent);
    if (slot->taken > 0)
        return;
    if (slot->received.size > 0) {
        slot_compact(core, slot);
        return;
    }
    CHECK(slot->charge == 0);
    slot_let_go_received(slot);
}

void flow_core_settle(struct flow_core *core)
{
    struct flow_link warm;

    link_move(&warm, &core->warm);
    while (!flow_link_is_empty(&warm)) {
        struct flow_slot *slot = FLOW_SLOT_OF(warm.next, warm);
        flow_link_remove(&slot->warm);
        slot_settle(core, slot);
    }
    while (core->spare_count > 0)
        buf_release(core->spares[--core->spare_count]);
    if (core->reserved != NULL)
        buf_release(core->reserved);
    core->reserved = NULL;
    core->reservation = (struct flow){0};
    if (core->leftover != NULL && core->leftover->mbuf.refcnt == 1) {
        buf_release(core->leftover);
        core->leftover = NULL;
    }
}

/* ---- calls of the owner that concern no octets ---- */

void flow_core_set_user(struct flow_plane *plane, struct flow flow, uint64_t user)
{
    struct flow_slot *slot = flow_core_find((struct flow_core *)(void *)plane, flow);
    if (slot != NULL)
        slot->user = user;
}

enum err flow_core_error(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = flow_core_find((struct flow_core *)(void *)plane, flow);
    return slot == NULL ? ERR_STALE : (enum err)slot->error;
}

void flow_core_want(struct flow_plane *plane, struct flow flow, uint32_t events)
{
    struct flow_core *core = (struct flow_core *)(void *)plane;
    struct flow_slot *slot = flow_core_find(core, flow);

    if (slot == NULL)
        return;
    uint32_t added = events & ~(uint32_t)slot->wanted;
    slot->wanted = (uint8_t)(events & (FLOW_READABLE | FLOW_WRITABLE | FLOW_SENT));
    if (slot_mask(slot) & added)
        flow_core_touch(core, slot);
}

struct flow_stats flow_core_stats(struct flow_plane *plane)
{
    return ((const struct flow_core *)(const void *)plane)->stats;
}
