/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which hosts take mail for a domain: the lookups, their cache, and who waits.
 *
 * What a task collects (mx_task.c) is packed (mx_set.c) and cached under the domain as a whole, so
 * that the next lookup is one find. All who ask for a domain while its task runs wait for the same
 * task. An answer that is asked for often is collected anew shortly before it expires, in the
 * background, so that nobody waits for it.
 *
 * Invariants
 *   1. wake() is called once per ERR_AGAIN, after dns/ has finished everything else in that call.
 *   2. A task is in its bucket from its start until it is packed; it is freed after its last user
 *      was told.
 *   3. A verdict that ends mail (NULL, NOT_FOUND, ALL_DENIED) never rests on a stale answer.
 *
 * Limits: outstanding_max tasks, MX_USER_MAX waiting users; then ERR_LIMIT.
 */
#include <stdlib.h>

#include "dns/mx_task.h"

#define MX_USER_MAX 65536u

static void task_unlink(struct dns *dns, struct mx_task *task)
{
    struct mx_task **link = &dns->task_buckets[task->hash & dns->bucket_mask];

    while (*link != task) {
        CHECK(*link != NULL);
        link = &(*link)->bucket_next;
    }
    *link = task->bucket_next;
    dns->task_count--;
    dns->user_count -= task->user_count;
}

static void task_free(struct mx_task *task)
{
    free(task->users);
    free(task);
}

void mx_tasks_report(struct dns *dns, tick_us now)
{
    mx_tasks_feed(dns, now);
    while (dns->tasks_done != NULL) {
        struct mx_task *task = dns->tasks_done;
        dns->tasks_done = task->next;
        mx_task_pack(dns, task, now);
        task_unlink(dns, task);
        for (uint32_t i = 0; i < task->user_count; i++)
            dns->options.wake(dns->options.context, task->users[i]);
        task_free(task);
    }
}

void mx_tasks_free(struct dns *dns)
{
    for (uint32_t i = 0; i <= dns->bucket_mask; i++) {
        while (dns->task_buckets[i] != NULL) {
            struct mx_task *task = dns->task_buckets[i];
            dns->task_buckets[i] = task->bucket_next;
            task_free(task);
        }
    }
}

static struct mx_task *task_find(struct dns *dns, uint64_t hash, struct span name, uint16_t type)
{
    struct mx_task *task = dns->task_buckets[hash & dns->bucket_mask];

    while (task != NULL) {
        if (task->hash == hash && task->type == type && span_is_equal(mx_task_name(task), name))
            return task;
        task = task->bucket_next;
    }
    return NULL;
}

static struct mx_task *task_begin(struct dns *dns, uint64_t hash, struct span name, uint16_t type,
                                  tick_us now)
{
    if (dns->task_count == dns->options.outstanding_max) {
        dns->turned_away++;
        return NULL;
    }
    struct mx_task *task = calloc(1, sizeof(*task));
    CHECK(task != NULL);
    task->hash = hash;
    task->type = type;
    task->name_size = (uint8_t)name.size;
    memcpy(task->name, name.data, name.size);
    task->bucket_next = dns->task_buckets[hash & dns->bucket_mask];
    dns->task_buckets[hash & dns->bucket_mask] = task;
    dns->task_count++;
    mx_task_begin(dns, task, now);
    return task;
}

static enum err task_add_user(struct dns *dns, struct mx_task *task, uint64_t user)
{
    if (dns->user_count == MX_USER_MAX)
        return ERR_LIMIT;
    if (task->user_count == task->user_capacity) {
        task->user_capacity = task->user_capacity == 0 ? 4 : 2 * task->user_capacity;
        task->users = realloc(task->users, task->user_capacity * sizeof(*task->users));
        CHECK(task->users != NULL);
    }
    task->users[task->user_count++] = user;
    dns->user_count++;
    return ERR_AGAIN;
}

/* A popular answer is asked for again before it expires, so that nobody waits for it. */
static void entry_refresh(struct dns *dns, struct cache_entry *entry, struct span name, tick_us now)
{
    uint64_t hash = entry->hash;
    uint16_t type = entry->type;

    entry->note.retry_at = now + DNS_STALE_RECHECK;
    if (task_find(dns, hash, name, type) != NULL)
        return;
    struct mx_task *task = task_begin(dns, hash, name, type, now);
    if (task == NULL)
        return;
    task->want.is_refresh = true;
    dns->stats.refreshed++;
    if (!mx_task_proceed(dns, task, now))
        return;
    mx_task_pack(dns, task, now);
    task_unlink(dns, task);
    task_free(task);
}

static void entry_answer(struct dns *dns, const struct cache_entry *entry,
                         const struct mx_policy *policy, uint16_t port,
                         struct mx_answer *ret_answer)
{
    ret_answer->is_stale = entry->note.is_stale;
    ret_answer->valid_until = entry->note.expires;
    mx_set_answer(cache_entry_value(entry), policy, port, dns->rng, ret_answer);
    if (ret_answer->is_stale && ret_answer->verdict == MX_ALL_DENIED) {
        ret_answer->verdict = MX_TEMPORARY;
        ret_answer->reason = "the name servers of the domain do not answer";
    }
}

static void answer_no_name(tick_us now, struct mx_answer *ret_answer)
{
    ret_answer->verdict = MX_NOT_FOUND;
    ret_answer->is_stale = ret_answer->is_loop = false;
    ret_answer->valid_until = now;
    ret_answer->host_count = ret_answer->other_count = 0;
    ret_answer->reason = "that is no domain name";
}

static enum err lookup(struct dns *dns, const struct mx_policy *policy, struct span name,
                       uint16_t type, uint16_t port, uint64_t user, tick_us now,
                       struct mx_answer *ret_answer)
{
    uint64_t hash = cache_hash_of(dns->cache, name, type);
    struct cache_entry *entry = cache_find(dns->cache, hash, name, type);

    if (entry != NULL && now < entry->note.expires) {
        dns->stats.hits++;
        entry_answer(dns, entry, policy, port, ret_answer);
        if (now >= entry->note.refresh_at && now >= entry->note.retry_at &&
            entry->hits >= DNS_POPULAR_HITS) {
            entry_refresh(dns, entry, name, now);
        }
        return ERR_OK;
    }
    struct mx_task *task = task_find(dns, hash, name, type);
    if (task != NULL)
        return task_add_user(dns, task, user);
    if (dns->user_count == MX_USER_MAX)
        return ERR_LIMIT;
    task = task_begin(dns, hash, name, type, now);
    if (task == NULL)
        return ERR_LIMIT;
    if (!mx_task_proceed(dns, task, now))
        return task_add_user(dns, task, user);
    entry_answer(dns, mx_task_pack(dns, task, now), policy, port, ret_answer);
    task_unlink(dns, task);
    task_free(task);
    return ERR_OK;
}

enum err mx_lookup(struct dns *dns, const struct mx_policy *policy, struct span domain,
                   uint64_t user, struct tick_now now, struct mx_answer *ret_answer)
{
    if (!query_name_is_sound(domain)) {
        answer_no_name(now.tick, ret_answer);
        return ERR_OK;
    }
    return lookup(dns, policy, domain, DNS_TYPE_MX_SET, policy->port, user, now.tick, ret_answer);
}

enum err mx_lookup_host(struct dns *dns, const struct mx_policy *policy, struct span host,
                        uint16_t port, uint64_t user, struct tick_now now,
                        struct mx_answer *ret_answer)
{
    if (!query_name_is_sound(host)) {
        answer_no_name(now.tick, ret_answer);
        return ERR_OK;
    }
    return lookup(dns, policy, host, DNS_TYPE_HOST_SET, port, user, now.tick, ret_answer);
}
