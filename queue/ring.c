/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Message rings between the members of a group, over rte_ring in memory of our own (no EAL).
 *
 * rings[from * count + to] is produced by `from` alone and consumed by `to` alone.
 *
 * Invariants
 *   1. Only member m touches members[m], except for `is_asleep` and the eventfd.
 *   2. A request is enqueued only while less than half of the ring is used; a reply while one slot
 *      is free. While a list of a pair is not empty, nothing of its kind goes past it.
 *   3. A wake-up is never lost. The sleeper stores its flag and then looks at its rings; the sender
 *      stores the message and then looks at the flag. Both have a full fence in between (fence A
 * and fence B, partners), so at least one of the two sees what the other stored.
 *   4. Whoever takes the flag away (atomic exchange) writes the eventfd: one write per sleep,
 *      however many senders there are. A write that comes late ends a later sleep early, once.
 *
 * What orders the octets of a message between the threads is rte_ring's own pair: the producer's
 * release store of prod.tail and the consumer's acquire load of it, and cons.tail the other way
 * round. The C11 variant of these is asked for below: free of cost on x86, and ThreadSanitizer
 * understands it.
 */
#define RTE_USE_C11_MEM_MODEL 1

#include "queue/ring.h"

#include <rte_ring.h>
#include <rte_ring_elem.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define RING_LINE        64u
#define RING_BACKLOG_MIN 16u

_Static_assert(sizeof(struct ring_message) % 4 == 0, "rte_ring copies elements by 4 octets");

enum ring_kind { RING_REQUEST, RING_REPLY, RING_KIND_COUNT };

/* Messages of one kind to one receiver that found no room yet. */
struct ring_backlog {
    struct ring_message *messages; /* ring of `capacity`, a power of two */
    uint32_t capacity, head, count;
};

struct ring_member {
    struct ring_group *group;
    struct ring_backlog *backlogs; /* [receiver * RING_KIND_COUNT + kind] */
    uint32_t index;
    uint32_t next_from;     /* the sender to look at first */
    uint32_t backlog_count; /* messages in all backlogs */
    int eventfd;
    uint64_t wakeups_due; /* senders that took is_asleep back, each writing 1, less what was read */
    struct ring_stats stats;

    _Alignas(RING_LINE) _Atomic bool is_asleep; /* written by everybody */
};
_Static_assert(sizeof(struct ring_member) % RING_LINE == 0, "flags of two members share no line");

struct ring_group {
    uint32_t count, ring_size;
    struct rte_ring **rings;
    struct ring_member *members;
};

/* ---- start and end ---- */

static void *ring_allocate(size_t size)
{
    size_t whole = (size + RING_LINE - 1) / RING_LINE * RING_LINE;
    void *memory = aligned_alloc(RING_LINE, whole);

    CHECK(memory != NULL);
    memset(memory, 0, whole);
    return memory;
}

static struct rte_ring *ring_new(uint32_t size)
{
    ssize_t octets = rte_ring_get_memsize_elem(sizeof(struct ring_message), size);

    CHECK(octets > 0);
    struct rte_ring *ring = ring_allocate((size_t)octets);
    CHECK(rte_ring_init(ring, "angarium", size, RING_F_SP_ENQ | RING_F_SC_DEQ) == 0);
    return ring;
}

static void ring_member_init(struct ring_member *member, struct ring_group *group, uint32_t index)
{
    member->group = group;
    member->index = index;
    member->backlogs = ring_allocate(group->count * RING_KIND_COUNT * sizeof(*member->backlogs));
    member->eventfd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(member->eventfd >= 0);
    atomic_init(&member->is_asleep, false);
}

struct ring_group *ring_group_new(uint32_t member_count, uint32_t ring_size)
{
    CHECK(member_count > 0 && member_count <= RING_MEMBERS_MAX);
    CHECK(ring_size >= RING_SIZE_MIN && (ring_size & (ring_size - 1)) == 0);

    struct ring_group *group = ring_allocate(sizeof(*group));
    group->count = member_count;
    group->ring_size = ring_size;
    group->rings = ring_allocate((size_t)member_count * member_count * sizeof(struct rte_ring *));
    group->members = ring_allocate(member_count * sizeof(*group->members));
    for (uint32_t from = 0; from < member_count; from++) {
        ring_member_init(&group->members[from], group, from);
        for (uint32_t to = 0; to < member_count; to++) {
            if (from != to)
                group->rings[from * member_count + to] = ring_new(ring_size);
        }
    }
    return group;
}

void ring_group_free(struct ring_group *group)
{
    if (group == NULL)
        return;
    for (uint32_t i = 0; i < group->count * group->count; i++)
        free(group->rings[i]);
    for (uint32_t i = 0; i < group->count; i++) {
        struct ring_member *member = &group->members[i];

        for (uint32_t list = 0; list < group->count * RING_KIND_COUNT; list++)
            free(member->backlogs[list].messages);
        free(member->backlogs);
        close(member->eventfd);
    }
    free(group->members);
    free(group->rings);
    free(group);
}

struct ring_member *ring_member_get(struct ring_group *group, uint32_t index)
{
    CHECK(index < group->count);
    return &group->members[index];
}

static struct rte_ring *ring_between(const struct ring_group *group, uint32_t from, uint32_t to)
{
    return group->rings[from * group->count + to];
}

/* ---- backlog ---- */

static void backlog_grow(struct ring_backlog *backlog)
{
    uint32_t capacity = backlog->capacity > 0 ? backlog->capacity * 2 : RING_BACKLOG_MIN;
    struct ring_message *messages = malloc(capacity * sizeof(*messages));

    CHECK(messages != NULL);
    for (uint32_t i = 0; i < backlog->count; i++)
        messages[i] = backlog->messages[(backlog->head + i) & (backlog->capacity - 1)];
    free(backlog->messages);
    backlog->messages = messages;
    backlog->capacity = capacity;
    backlog->head = 0;
}

static void backlog_push(struct ring_member *member, struct ring_backlog *backlog,
                         const struct ring_message *message)
{
    CHECK(member->backlog_count < RING_BACKLOG_MAX);
    if (backlog->count == backlog->capacity)
        backlog_grow(backlog);
    backlog->messages[(backlog->head + backlog->count) & (backlog->capacity - 1)] = *message;
    backlog->count++;
    member->backlog_count++;
    if (member->backlog_count > member->stats.backlog_max)
        member->stats.backlog_max = member->backlog_count;
}

static void backlog_pop(struct ring_member *member, struct ring_backlog *backlog)
{
    backlog->head = (backlog->head + 1) & (backlog->capacity - 1);
    backlog->count--;
    member->backlog_count--;
}

/* ---- sending ---- */

/* Invariant 2: room for one more of this kind. Producer only. */
static bool ring_has_room(const struct ring_group *group, const struct rte_ring *ring,
                          enum ring_kind kind)
{
    uint32_t used = ring->prod.head - __atomic_load_n(&ring->cons.tail, __ATOMIC_ACQUIRE);

    return used < (kind == RING_REPLY ? group->ring_size - 1 : group->ring_size / 2);
}

static bool ring_enqueue(const struct ring_group *group, struct rte_ring *ring, enum ring_kind kind,
                         const struct ring_message *message)
{
    if (!ring_has_room(group, ring, kind))
        return false;
    CHECK(rte_ring_sp_enqueue_elem(ring, (void *)(uintptr_t)message, sizeof(*message)) == 0);
    return true;
}

/* After an enqueue: wake the receiver if it sleeps. */
static void ring_notify(struct ring_member *sender, struct ring_member *receiver)
{
    uint64_t one = 1;

    /* Fence B, partner of fence A in ring_sleep_begin(): prod.tail before is_asleep. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load_explicit(&receiver->is_asleep, memory_order_relaxed))
        return;
    if (!atomic_exchange_explicit(&receiver->is_asleep, false, memory_order_relaxed))
        return;
    sender->stats.wakeups++;
    CHECK(write(receiver->eventfd, &one, sizeof(one)) == (ssize_t)sizeof(one));
}

/* Move the backlog to one receiver on as far as there is room. */
static void ring_move_on(struct ring_member *member, uint32_t to)
{
    struct rte_ring *ring = ring_between(member->group, member->index, to);
    bool is_moved = false;

    for (int kind = RING_KIND_COUNT - 1; kind >= 0; kind--) { /* replies first */
        struct ring_backlog *backlog = &member->backlogs[to * RING_KIND_COUNT + (uint32_t)kind];

        while (backlog->count > 0 && ring_enqueue(member->group, ring, (enum ring_kind)kind,
                                                  &backlog->messages[backlog->head])) {
            backlog_pop(member, backlog);
            is_moved = true;
        }
    }
    if (is_moved)
        ring_notify(member, &member->group->members[to]);
}

void ring_send(struct ring_member *member, uint32_t to, const struct ring_message *message)
{
    struct ring_group *group = member->group;
    struct ring_message stamped = *message;
    enum ring_kind kind = message->is_reply ? RING_REPLY : RING_REQUEST;

    CHECK(to < group->count && to != member->index);
    CHECK(message->payload_size <= RING_MESSAGE_PAYLOAD);
    stamped.from = (uint8_t)member->index;
    member->stats.sent++;

    struct ring_backlog *backlog = &member->backlogs[to * RING_KIND_COUNT + kind];
    if (backlog->count > 0)
        ring_move_on(member, to);
    if (backlog->count == 0 &&
        ring_enqueue(group, ring_between(group, member->index, to), kind, &stamped)) {
        ring_notify(member, &group->members[to]);
        return;
    }
    member->stats.full++;
    backlog_push(member, backlog, &stamped);
}

/* ---- receiving ---- */

enum err ring_receive(struct ring_member *member, struct ring_message *ret_message)
{
    struct ring_group *group = member->group;

    for (uint32_t to = 0; to < group->count && member->backlog_count > 0; to++) {
        if (to != member->index)
            ring_move_on(member, to);
    }
    for (uint32_t i = 0; i < group->count; i++) {
        uint32_t from = member->next_from;

        member->next_from = from + 1 == group->count ? 0 : from + 1;
        if (from == member->index)
            continue;
        if (rte_ring_sc_dequeue_elem(ring_between(group, from, member->index), ret_message,
                                     sizeof(*ret_message)) == 0) {
            CHECK(ret_message->from == from);
            member->stats.received++;
            return ERR_OK;
        }
    }
    return ERR_AGAIN;
}

int ring_member_eventfd(const struct ring_member *member)
{
    return member->eventfd;
}

static bool ring_is_anything_in(const struct ring_member *member)
{
    const struct ring_group *group = member->group;

    for (uint32_t from = 0; from < group->count; from++) {
        if (from == member->index)
            continue;
        const struct rte_ring *ring = ring_between(group, from, member->index);
        if (__atomic_load_n(&ring->prod.tail, __ATOMIC_ACQUIRE) != ring->cons.head)
            return true;
    }
    return false;
}

static void sleep_is_over(struct ring_member *member)
{
    if (!atomic_exchange_explicit(&member->is_asleep, false, memory_order_relaxed))
        member->wakeups_due++;
}

bool ring_sleep_begin(struct ring_member *member)
{
    if (member->backlog_count > 0)
        return false;
    atomic_store_explicit(&member->is_asleep, true, memory_order_relaxed);
    /* Fence A, partner of fence B in ring_notify(): is_asleep before prod.tail. */
    atomic_thread_fence(memory_order_seq_cst);
    if (!ring_is_anything_in(member))
        return true;
    sleep_is_over(member);
    return false;
}

void ring_sleep_end(struct ring_member *member)
{
    uint64_t count;

    /* Nobody writes for whom we were not asleep: a system call less in most turns. A sender that
     * took the flag may not have written yet; then the next sleep ends early. */
    sleep_is_over(member);
    if (member->wakeups_due == 0)
        return;
    if (read(member->eventfd, &count, sizeof(count)) == (ssize_t)sizeof(count)) {
        CHECK(count <= member->wakeups_due);
        member->wakeups_due -= count;
    }
}

struct ring_stats ring_member_stats(const struct ring_member *member)
{
    return member->stats;
}
