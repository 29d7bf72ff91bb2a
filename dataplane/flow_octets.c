/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What all flow planes share, second half: received and unsent octets, and what they are charged.
 *
 * Receiving. A driver asks for room and says how much it filled. The room begins with what is left
 * in the flow's last receive buffer (`tail`), as long as octets of it are still charged: so single
 * octets that arrive one by one end up behind each other in one buffer, also when the owner took
 * the earlier ones. Only the flow writes into its tail, always behind its end, so slices taken
 * earlier never change.
 *
 * A driver that receives into buffers of its own hands them over whole; then the tail stays as it
 * is and later small reads go on in it only if nothing came between (the slices keep the order).
 *
 * Charge. Every new receive buffer charges its whole size; the charge goes with the octets,
 * in proportion, as they are consumed or credited, and is exactly zero when none is left. A flow
 * whose charge has reached its limit is not read from until consume or credit brings it below.
 *
 * Sending. `unsent` holds what was appended; the last `held` octets of it are kept back by a cork.
 * Corked octets go when they fill FLOW_CORK_UNIT, on push, uncork, shutdown and close.
 *
 * Limits: a flow is overcharged by at most the buffers of one read. reserve gives at most what a
 * buffer of the pool holds; one reservation is outstanding per plane.
 */
#include "dataplane/flow_core.h"

#define TAIL_ROOM_MIN 64u

static struct flow_core *core_of(struct flow_plane *plane)
{
    return (struct flow_core *)(void *)plane;
}

/* As flow_core_find(): orphans and free slots have another generation than any handle. */
static inline struct flow_slot *stream_find(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = flow_core_slot_at(core_of(plane), flow.index);

    if (slot == NULL || slot->generation != flow.generation || slot->kind != FLOW_SLOT_STREAM ||
        flow.generation == 0)
        return NULL;
    return slot;
}

/* ---- receiving ---- */

static bool tail_is_usable(const struct flow_slot *slot)
{
    return slot->tail != NULL && slot->charge > 0 && buf_room(slot->tail) >= TAIL_ROOM_MIN;
}

static void spares_fill(struct flow_core *core, uint32_t count)
{
    while (core->spare_count < count) {
        struct buf *buf = buf_acquire(core->plane.pool);
        if (buf == NULL)
            break;
        core->spares[core->spare_count++] = buf;
    }
}

static uint32_t spares_needed(const struct flow_core *core, const struct flow_slot *slot)
{
    uint32_t data_size = buf_pool_data_size(core->plane.pool);
    uint32_t room = slot->receive_limit - slot->charge;
    uint32_t octets = room < FLOW_RECEIVE_SIZE_MAX ? room : FLOW_RECEIVE_SIZE_MAX;
    uint32_t count = (octets + data_size - 1) / data_size;
    return count < COUNT_OF(core->spares) ? count : (uint32_t)COUNT_OF(core->spares);
}

uint32_t flow_core_receive_begin(struct flow_core *core, struct flow_slot *slot,
                                 struct iovec ret_vector[FLOW_RECEIVE_VECTOR_MAX])
{
    uint32_t count = 0;

    core->is_tail_offered = false;
    if (slot->charge >= slot->receive_limit)
        return 0;
    if (tail_is_usable(slot)) {
        uint8_t *end = buf_data(slot->tail) + buf_size(slot->tail);
        ret_vector[count++] = (struct iovec){end, buf_room(slot->tail)};
        core->is_tail_offered = true;
    }
    uint32_t needed = spares_needed(core, slot);
    spares_fill(core, needed);
    uint32_t have = needed < core->spare_count ? needed : core->spare_count;
    /* The last spare is used first, so that taking them away is a matter of counting down. */
    for (uint32_t i = 0; i < have; i++) {
        struct buf *buf = core->spares[core->spare_count - 1 - i];
        ret_vector[count++] = (struct iovec){buf_data(buf), buf_room(buf)};
    }
    core->is_starved = count == 0;
    return count;
}

static uint32_t slot_receive_into(struct flow_slot *slot, struct buf *buf, uint32_t size)
{
    uint32_t offset = buf->mbuf.data_off + buf_size(buf);
    uint32_t count = size < buf_room(buf) ? size : buf_room(buf);

    buf_extend(buf, count);
    buf_queue_append(&slot->received, buf, offset, count);
    return count;
}

void flow_core_receive_end(struct flow_core *core, struct flow_slot *slot, uint32_t size)
{
    uint32_t left = size;

    if (size == 0)
        return;
    if (core->is_tail_offered)
        left -= slot_receive_into(slot, slot->tail, left);
    while (left > 0) {
        CHECK(core->spare_count > 0);
        struct buf *buf = core->spares[--core->spare_count];
        left -= slot_receive_into(slot, buf, left);
        slot->charge += buf_charge(buf);
        if (slot->tail != NULL)
            buf_release(slot->tail);
        slot->tail = buf;
    }
    core->is_tail_offered = false;
    core->stats.octets_received += size;
    flow_core_touch(core, slot);
    flow_core_warm(core, slot);
}

void flow_core_receive_buf(struct flow_core *core, struct flow_slot *slot, struct buf *buf,
                           uint32_t offset, uint32_t size)
{
    slot->charge += buf_charge(buf);
    buf_queue_append_own(&slot->received, buf, offset, size);
    core->stats.octets_received += size;
    flow_core_touch(core, slot);
    flow_core_warm(core, slot);
}

uint32_t flow_core_receive_copy(struct flow_core *core, struct flow_slot *slot, struct span octets,
                                uint64_t *reason)
{
    uint32_t left = octets.size;

    while (left > 0) {
        if (!tail_is_usable(slot)) {
            struct buf *buf = buf_acquire(core->plane.pool);
            if (buf == NULL)
                break;
            if (slot->tail != NULL)
                buf_release(slot->tail);
            slot->tail = buf;
            slot->charge += buf_charge(buf);
        }
        const uint8_t *from = octets.data + (octets.size - left);
        uint32_t room = buf_room(slot->tail);
        memcpy(buf_data(slot->tail) + buf_size(slot->tail), from, left < room ? left : room);
        left -= slot_receive_into(slot, slot->tail, left);
    }
    core->stats.octets_received += octets.size - left;
    flow_core_copied(core, reason, octets.size - left);
    flow_core_touch(core, slot);
    flow_core_warm(core, slot);
    return octets.size - left;
}

/* `size` octets are gone: their share of the charge with them. */
static void slot_discharge(struct flow_core *core, struct flow_slot *slot, uint64_t size,
                           uint64_t charged)
{
    CHECK(size <= charged);
    if (size == charged)
        slot->charge = 0;
    else
        slot->charge -= (uint32_t)(slot->charge * size / charged);
    flow_core_warm(core, slot);
    flow_core_resume(core, slot);
}

uint32_t flow_core_readable(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = stream_find(plane, flow);
    return slot == NULL ? 0 : (uint32_t)slot->received.size;
}

uint32_t flow_core_peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                        uint32_t max)
{
    struct flow_slot *slot = stream_find(plane, flow);
    if (slot == NULL)
        return 0;
    uint32_t count = slot->received.count < max ? slot->received.count : max;
    for (uint32_t i = 0; i < count; i++)
        ret_spans[i] = buf_slice_span(buf_queue_get(&slot->received, i));
    return count;
}

struct span flow_core_pull(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    CHECK(size <= FLOW_PULL_MAX);
    if (slot == NULL || slot->received.size == 0)
        return (struct span){NULL, 0};
    if (size > slot->received.size)
        size = (uint32_t)slot->received.size;
    struct span first = buf_slice_span(buf_queue_get(&slot->received, 0));
    if (size <= first.size)
        return span_head(first, size);
    buf_queue_copy_out(&slot->received, 0, core->pulled, size);
    flow_core_copied(core, &core->stats.copied.split, size);
    return span_of(core->pulled, size);
}

void flow_core_consume(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    if (slot == NULL || size == 0)
        return;
    CHECK(size <= slot->received.size);
    uint64_t charged = slot->received.size + slot->taken;
    buf_queue_drop(&slot->received, size);
    slot_discharge(core, slot, size, charged);
    if (slot->received.size > 0)
        flow_core_touch(core, slot);
}

void flow_core_take(struct flow_plane *plane, struct flow flow, uint32_t size,
                    struct buf_queue *into)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    if (slot == NULL || size == 0)
        return;
    CHECK(size <= slot->received.size);
    slot->taken += size;
    bool is_all = size == slot->received.size;
    buf_queue_take(into, &slot->received, size);
    if (!is_all)
        flow_core_touch(core, slot);
}

void flow_core_credit(struct flow_plane *plane, struct flow flow, uint64_t charge)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    if (slot == NULL || charge == 0)
        return;
    CHECK(charge <= slot->taken);
    uint64_t charged = slot->received.size + slot->taken;
    slot->taken -= (uint32_t)charge;
    slot_discharge(core, slot, charge, charged);
}

/* ---- sending ---- */

static bool slot_takes_octets(const struct flow_slot *slot)
{
    return !(slot->flags & (FLOW_SLOT_IS_RESET | FLOW_SLOT_IS_FAILED | FLOW_SLOT_FIN_WANTED));
}

static void slot_appended(struct flow_core *core, struct flow_slot *slot, uint64_t size)
{
    if (slot->flags & FLOW_SLOT_CORKED)
        slot->held = (uint32_t)((slot->held + size) % FLOW_CORK_UNIT);
    flow_core_send_later(core, slot);
    if (slot->wanted & (FLOW_WRITABLE | FLOW_SENT))
        flow_core_touch(core, slot);
}

void flow_core_append(struct flow_plane *plane, struct flow flow, struct buf_queue *octets)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);
    uint64_t size = octets->size;

    if (slot == NULL || !slot_takes_octets(slot)) {
        buf_queue_fini(octets);
        return;
    }
    if (size == 0)
        return;
    buf_queue_move(&slot->unsent, octets);
    slot_appended(core, slot, size);
}

struct span_mut flow_core_reserve(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    CHECK(size <= FLOW_RESERVE_MAX);
    if (slot == NULL || !slot_takes_octets(slot))
        return (struct span_mut){NULL, 0};
    if (core->reserved != NULL && buf_room(core->reserved) < size) {
        buf_release(core->reserved);
        core->reserved = NULL;
    }
    if (core->reserved == NULL)
        core->reserved = buf_acquire(plane->pool);
    if (core->reserved == NULL || buf_room(core->reserved) < size)
        return (struct span_mut){NULL, 0};
    core->reservation = flow;
    core->reservation_size = buf_room(core->reserved);
    return (struct span_mut){buf_data(core->reserved) + buf_size(core->reserved),
                             core->reservation_size};
}

void flow_core_commit(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    struct flow_core *core = core_of(plane);
    struct flow_slot *slot = stream_find(plane, flow);

    if (slot == NULL || size == 0 || !slot_takes_octets(slot))
        return;
    CHECK(core->reservation.index == flow.index && core->reservation.generation == flow.generation);
    CHECK(core->reserved != NULL && size <= core->reservation_size);
    core->reservation = (struct flow){0};
    uint32_t offset = core->reserved->mbuf.data_off + buf_size(core->reserved);
    buf_extend(core->reserved, size);
    buf_queue_append(&slot->unsent, core->reserved, offset, size);
    slot_appended(core, slot, size);
}

uint64_t flow_core_unsent(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = stream_find(plane, flow);
    return slot == NULL ? 0 : slot->unsent.size;
}

/* Of transports that keep octets in `unsent` until they are in segments. */
uint64_t flow_core_pending(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = stream_find(plane, flow);

    if (slot == NULL || slot->flags & (FLOW_SLOT_IS_RESET | FLOW_SLOT_IS_FAILED))
        return FLOW_PENDING_STALE;
    return slot->unsent.size;
}

void flow_core_push(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = stream_find(plane, flow);
    if (slot == NULL)
        return;
    slot->held = 0;
    flow_core_send_later(core_of(plane), slot);
}

void flow_core_cork(struct flow_plane *plane, struct flow flow, bool is_corked)
{
    struct flow_slot *slot = stream_find(plane, flow);
    if (slot == NULL)
        return;
    if (is_corked) {
        slot->flags |= FLOW_SLOT_CORKED;
        return;
    }
    slot->flags &= ~(uint32_t)FLOW_SLOT_CORKED;
    flow_core_push(plane, flow);
}

void flow_core_shutdown(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = stream_find(plane, flow);
    if (slot == NULL || !slot_takes_octets(slot))
        return;
    slot->flags |= FLOW_SLOT_FIN_WANTED;
    flow_core_push(plane, flow);
}

uint32_t flow_core_send_vector(const struct flow_slot *slot, struct iovec *ret_vector, uint32_t max)
{
    uint64_t left = flow_core_sendable(slot);
    uint32_t count = 0;

    while (left > 0 && count < max) {
        struct span octets = buf_slice_span(buf_queue_get(&slot->unsent, count));
        uint32_t size = octets.size < left ? octets.size : (uint32_t)left;
        /* iovec serves both directions and so has no const; nobody writes here. */
        ret_vector[count++] = (struct iovec){(void *)(uintptr_t)octets.data, size};
        left -= size;
    }
    return count;
}

void flow_core_sent(struct flow_core *core, struct flow_slot *slot, uint64_t size)
{
    CHECK(size <= flow_core_sendable(slot));
    buf_queue_drop(&slot->unsent, size);
    core->stats.octets_sent += size;
    if (slot->wanted & (FLOW_WRITABLE | FLOW_SENT))
        flow_core_touch(core, slot);
    if (slot->unsent.size == 0)
        flow_core_warm(core, slot);
}
