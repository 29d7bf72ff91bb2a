/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_MX_TASK_H
#define DNS_MX_TASK_H

#include "dns/mx_set.h"
#include "dns/resolve.h"

/* One domain, or host of a route, being looked up: collects answers until the set is complete. */
#define MX_TASK_SLOT_MX    0u /* 1 + 2 * host + family: an address */
#define MX_TASK_SLOT_COUNT (1u + MX_FAMILY_COUNT * MX_HOST_MAX)

struct mx_task {
    struct mx_task *next;        /* of dns->tasks or dns->tasks_done */
    struct mx_task *bucket_next; /* of its bucket */
    uint64_t hash;
    uint16_t type; /* DNS_TYPE_MX_SET or DNS_TYPE_HOST_SET */
    uint8_t name_size;
    char name[CODEC_NAME_MAX];
    struct dns_want want;
    uint32_t pending, questions;
    uint64_t deferred; /* bit per slot: no question was free; counted in pending */
    struct mx_task *next_starved;
    bool has_targets;   /* the host list is made */
    bool has_addresses; /* they were asked for */
    bool is_implicit;   /* the one host is the domain itself */
    bool is_stale, has_worked;
    tick_us expires, refresh_at, fetched; /* least of all answers used */
    uint8_t outcomes[MX_HOST_MAX][MX_FAMILY_COUNT];
    uint32_t user_count, user_capacity;
    uint64_t *users;
    struct mx_set set;
    struct dns_waiter waiters[MX_TASK_SLOT_COUNT];
};

static inline struct span mx_task_name(const struct mx_task *task)
{
    return span_of(task->name, task->name_size);
}

/** Make ready a task whose hash, type and name are set. */
void mx_task_begin(struct dns *dns, struct mx_task *task, tick_us now);
/** Go on as far as answers are known. True when the task has all that it can get. */
bool mx_task_proceed(struct dns *dns, struct mx_task *task, tick_us now);
/** Put what was found into the cache. */
struct cache_entry *mx_task_pack(struct dns *dns, struct mx_task *task, tick_us now);
/** Let tasks that wait for a free question have those that there are: first come, first served. */
void mx_tasks_feed(struct dns *dns, tick_us now);

#endif
