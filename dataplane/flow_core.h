/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_FLOW_CORE_H
#define DATAPLANE_FLOW_CORE_H

#include <sys/uio.h>

#include "dataplane/flow.h"

/*
 * The half of a flow plane that every driver shares: handles, the received and the unsent octets of
 * a flow, its charge, and what poll reports. A driver embeds struct flow_core as the first member
 * of its plane and struct flow_slot as the first member of its flows, puts the flow_core_*
 * functions that have a driver's signature into its struct flow_ops, and moves octets between the
 * slots and its transport. See flow_core.c for the rules.
 */
struct flow_link {
    struct flow_link *next, *prev; /* NULL when not linked */
};

/* A circular list with a head of its own; drivers use the links of their slots for more lists. */
static inline void flow_link_init(struct flow_link *head)
{
    head->next = head->prev = head;
}
/** To the end of the list; no effect on a link that is on a list. */
static inline void flow_link_push(struct flow_link *head, struct flow_link *link)
{
    if (link->next != NULL)
        return;
    link->prev = head->prev;
    link->next = head;
    head->prev->next = link;
    head->prev = link;
}
/** From whatever list it is on, if it is on one. */
static inline void flow_link_remove(struct flow_link *link)
{
    if (link->next == NULL)
        return;
    link->next->prev = link->prev;
    link->prev->next = link->next;
    link->next = link->prev = NULL;
}
static inline bool flow_link_is_empty(const struct flow_link *head)
{
    return head->next == head;
}

enum flow_slot_kind { FLOW_SLOT_FREE, FLOW_SLOT_LISTENER, FLOW_SLOT_DATAGRAM, FLOW_SLOT_STREAM };

enum flow_slot_flags {
    FLOW_SLOT_OPEN = 1u << 0,       /* connected: octets may pass */
    FLOW_SLOT_NEWS = 1u << 1,       /* CONNECTED has not been reported yet */
    FLOW_SLOT_PENDING = 1u << 2,    /* listener: accept may give one; datagram: receive may */
    FLOW_SLOT_MORE = 1u << 3,       /* the transport may have octets that were not read yet */
    FLOW_SLOT_EOF = 1u << 4,        /* the peer's FIN was read */
    FLOW_SLOT_IS_RESET = 1u << 5,   /* see slot->error */
    FLOW_SLOT_IS_FAILED = 1u << 6,  /* see slot->error */
    FLOW_SLOT_CORKED = 1u << 7,     /* hold back what does not fill FLOW_CORK_UNIT */
    FLOW_SLOT_FIN_WANTED = 1u << 8, /* FIN once `unsent` is empty */
    FLOW_SLOT_FIN_SENT = 1u << 9,
    FLOW_SLOT_BLOCKED = 1u << 10,    /* the transport takes no more until it says so */
    FLOW_SLOT_ORPHAN = 1u << 11,     /* closed by its owner, finishing by itself */
    FLOW_SLOT_HUNG_UP = 1u << 12,    /* a FIN or an error follows what can still be read */
    FLOW_SLOT_UNACCEPTED = 1u << 13, /* nobody owns it yet: not reported */
};

struct flow_slot {
    uint32_t index, generation;
    uint32_t incarnation; /* never repeats soon: what a driver hands to its transport as a name */
    uint8_t kind, wanted, error, reserved; /* flow_slot_kind, flow_events, enum err */
    uint32_t flags;
    uint32_t charge; /* memory pinned by `received` and by what was taken and not credited */
    uint32_t taken;  /* octets taken and not credited */
    uint32_t held;   /* octets at the end of `unsent` that a cork keeps back */
    uint32_t receive_limit, send_limit;
    uint64_t user;
    struct buf_queue received, unsent;
    struct buf *tail; /* last receive buffer: small reads are put behind each other in it */
    struct flow_link report, read, dirty, warm;
};

/* The slot of a link that is on one of its lists. */
#define FLOW_SLOT_OF(link_pointer, member)                                                         \
    ((struct flow_slot *)(void *)((char *)(link_pointer)-offsetof(struct flow_slot, member)))

#define FLOW_CORK_UNIT          16384u
#define FLOW_RECEIVE_LIMIT      262144u /* when the owner gives 0 */
#define FLOW_SEND_LIMIT         262144u
#define FLOW_RECEIVE_VECTOR_MAX 33u
#define FLOW_RECEIVE_SIZE_MAX   65536u /* about this much is read from one flow per poll */

struct flow_core {
    struct flow_plane plane;
    struct flow_stats stats;
    uint32_t slot_size, slot_count_max, slot_count; /* slot_count: made so far */
    uint32_t incarnation;
    void **blocks;
    uint32_t block_count, block_shift;                /* a block has 1 << block_shift slots */
    struct flow_link free, report, read, dirty, warm; /* heads of circular lists */
    struct buf *spares[FLOW_RECEIVE_VECTOR_MAX - 1];  /* for the next read; none between turns */
    uint32_t spare_count;
    bool is_tail_offered; /* the vector handed out begins with the tail's room */
    bool is_starved;      /* the pool was empty when a flow had something to read */
    struct buf *leftover; /* what owners left over at the end of turns, copied together */
    struct buf *reserved; /* where flow_reserve() gives room */
    struct flow reservation;
    uint32_t reservation_size;
    uint8_t pulled[FLOW_PULL_MAX];
};

/** `slot_size`: octets of the driver's flow, which begins with a flow_slot. */
void flow_core_init(struct flow_core *core, const struct flow_ops *ops, struct buf_pool *pool,
                    uint32_t slot_size, uint32_t slot_count_max);
/** Every slot must be free. */
void flow_core_fini(struct flow_core *core);

/** A slot with a fresh handle, driver's part zeroed; NULL at the limit. */
struct flow_slot *flow_core_slot_new(struct flow_core *core, enum flow_slot_kind kind,
                                     uint64_t user);
/** Give the slot back: its buffers are released, its handle becomes stale. */
void flow_core_slot_free(struct flow_core *core, struct flow_slot *slot);
/** The owner let go: the handle becomes stale, received octets go, unsent ones stay. */
void flow_core_slot_orphan(struct flow_core *core, struct flow_slot *slot);
/** Octets of slots and the list of their blocks. */
uint64_t flow_core_memory(const struct flow_core *core);
/** The slot of a live handle, or NULL. */
struct flow_slot *flow_core_find(struct flow_core *core, struct flow flow);
/** Slot number `index` of those made so far, whatever its state; NULL beyond them. */
static inline struct flow_slot *flow_core_slot_at(struct flow_core *core, uint32_t index)
{
    if (index >= core->slot_count)
        return NULL;
    char *block = core->blocks[index >> core->block_shift];
    uint32_t within = index & ((1u << core->block_shift) - 1);
    return (struct flow_slot *)(void *)(block + (size_t)within * core->slot_size);
}
static inline struct flow flow_core_handle(const struct flow_slot *slot)
{
    return (struct flow){slot->index, slot->generation};
}

/** Something about the slot changed that poll may have to report. */
static inline void flow_core_touch(struct flow_core *core, struct flow_slot *slot)
{
    if (!(slot->flags & (FLOW_SLOT_ORPHAN | FLOW_SLOT_UNACCEPTED)))
        flow_link_push(&core->report, &slot->report);
}
/** Report what changed: at most `max` entries, the rest stays for the next poll. */
uint32_t flow_core_report(struct flow_core *core, struct flow_event *ret_events, uint32_t max);
/** Put the slot on the list of those to read from, if it may have more and its charge allows. */
void flow_core_resume(struct flow_core *core, struct flow_slot *slot);
/** Put the slot on the list of those to send from, if it has something that may go. */
void flow_core_send_later(struct flow_core *core, struct flow_slot *slot);
/** Put the slot on that list whatever it has: the transport has something of its own to say. */
static inline void flow_core_send_now(struct flow_core *core, struct flow_slot *slot)
{
    flow_link_push(&core->dirty, &slot->dirty);
}
/** Look at the slot's buffers at the end of the turn. */
static inline void flow_core_warm(struct flow_core *core, struct flow_slot *slot)
{
    flow_link_push(&core->warm, &slot->warm);
}
/**
 * All slots on the list, as a round of its own: what is put on the list meanwhile waits for the
 * next one. The round must be walked to its end; slots may be freed during it.
 */
void flow_core_read_round(struct flow_core *core, struct flow_link *ret_round);
struct flow_slot *flow_core_read_next(struct flow_link *round);
void flow_core_dirty_round(struct flow_core *core, struct flow_link *ret_round);
struct flow_slot *flow_core_dirty_next(struct flow_link *round);
/** What is left of the round waits for the next one, before all that is on the list: ends the walk.
 */
void flow_core_dirty_return(struct flow_core *core, struct flow_link *round);
/** End of turn: what owners left over is copied together, idle flows let their buffers go. */
void flow_core_settle(struct flow_core *core);
/** Nothing waits to be reported, read or sent. */
bool flow_core_is_quiet(const struct flow_core *core);

/** Room for received octets; 0: the limit is reached, or the pool is empty (is_starved). */
uint32_t flow_core_receive_begin(struct flow_core *core, struct flow_slot *slot,
                                 struct iovec ret_vector[FLOW_RECEIVE_VECTOR_MAX]);
/** `size` octets were written into that room. */
void flow_core_receive_end(struct flow_core *core, struct flow_slot *slot, uint32_t size);
/**
 * Octets [offset, offset + size) of `buf` (offset from buf_addr) were received in place. Takes over
 * the caller's reference; the whole buffer is charged.
 */
void flow_core_receive_buf(struct flow_core *core, struct flow_slot *slot, struct buf *buf,
                           uint32_t offset, uint32_t size);
/** Octets were copied, for a reason: a field of core->stats.copied. */
static inline void flow_core_copied(struct flow_core *core, uint64_t *reason, uint64_t size)
{
    *reason += size;
    core->stats.copies++;
    core->stats.copied_octets += size;
}
/** Copy received octets behind those that were copied before. Returns how many there was room for:
 * fewer when the pool is empty. `reason`: as above. */
uint32_t flow_core_receive_copy(struct flow_core *core, struct flow_slot *slot, struct span octets,
                                uint64_t *reason) MUST_CHECK;
/** Octets that may go now. */
static inline uint64_t flow_core_sendable(const struct flow_slot *slot)
{
    return slot->unsent.size - slot->held;
}
/** The front of what may go, as at most `max` pieces; returns how many. */
uint32_t flow_core_send_vector(const struct flow_slot *slot, struct iovec *ret_vector,
                               uint32_t max);
/** `size` octets from the front were handed to the transport. */
void flow_core_sent(struct flow_core *core, struct flow_slot *slot, uint64_t size);
/** The connection is lost: nothing more can be sent. */
void flow_core_reset(struct flow_core *core, struct flow_slot *slot, enum err err);
/** connect() ended: ERR_OK, or why not. */
void flow_core_connected(struct flow_core *core, struct flow_slot *slot, enum err err);

/* For struct flow_ops. */
void flow_core_set_user(struct flow_plane *plane, struct flow flow, uint64_t user);
enum err flow_core_error(struct flow_plane *plane, struct flow flow);
uint32_t flow_core_readable(struct flow_plane *plane, struct flow flow);
uint32_t flow_core_peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                        uint32_t max);
struct span flow_core_pull(struct flow_plane *plane, struct flow flow, uint32_t size);
void flow_core_consume(struct flow_plane *plane, struct flow flow, uint32_t size);
void flow_core_take(struct flow_plane *plane, struct flow flow, uint32_t size,
                    struct buf_queue *into);
void flow_core_credit(struct flow_plane *plane, struct flow flow, uint64_t charge);
void flow_core_append(struct flow_plane *plane, struct flow flow, struct buf_queue *octets);
struct span_mut flow_core_reserve(struct flow_plane *plane, struct flow flow, uint32_t size);
void flow_core_commit(struct flow_plane *plane, struct flow flow, uint32_t size);
uint64_t flow_core_unsent(struct flow_plane *plane, struct flow flow);
uint64_t flow_core_pending(struct flow_plane *plane, struct flow flow);
void flow_core_cork(struct flow_plane *plane, struct flow flow, bool is_corked);
void flow_core_push(struct flow_plane *plane, struct flow flow);
void flow_core_want(struct flow_plane *plane, struct flow flow, uint32_t events);
void flow_core_shutdown(struct flow_plane *plane, struct flow flow);
struct flow_stats flow_core_stats(struct flow_plane *plane);

#endif
