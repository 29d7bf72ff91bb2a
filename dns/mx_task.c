/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the hosts of a domain are collected: first the MX records, then the addresses of every target
 * at once; and which verdict follows.
 *
 *   MX answer          then
 *   records            A and AAAA of each target; the only record "." means null MX (RFC 7505)
 *   NODATA             the domain itself is the host (RFC 5321 section 5.1, implicit MX)
 *   NXDOMAIN           NOT_FOUND, see below
 *   failure            TEMPORARY
 *
 * A target that is "localhost" stands for the loopback addresses, without a question; policy
 * decides. A target that is an address literal, or has octets that no host name has, can have no
 * address. Targets that are aliases are followed (query.c), as everybody does, though RFC 2181
 * section 10.3 forbids them.
 *
 * Invariants
 *   1. At most MX_QUESTION_MAX questions per task; what is over counts as unresolved.
 *   2. NOT_FOUND comes only from negative answers within their TTL. For a name that worked within
 *      WORKED_TIME it takes two, WORKED_CONFIRM apart; the first gives TEMPORARY.
 *   3. MX records whose targets do not resolve are never NOT_FOUND: TEMPORARY.
 *   4. NULL and NOT_FOUND never rest on a stale answer (nor does ALL_DENIED, see mx.c).
 *   5. A task that finds no question free waits in line for one; since every question ends, so does
 *      the wait. `pending` counts slots asked and slots deferred.
 */
#include "dns/mx_task.h"

#define MX_QUESTION_MAX 32u
#define MX_PARTIAL_TIME TICK_S(60) /* hosts known, but for some that do not resolve now */

static const uint16_t family_type[MX_FAMILY_COUNT] = {DNS_TYPE_A, DNS_TYPE_AAAA};

static tick_us tick_min(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

/* ---- one answer comes in ---- */

static void task_note(struct mx_task *task, const struct dns_result *result)
{
    const struct cache_note *note = &result->note;

    task->expires = tick_min(task->expires, note->is_stale ? note->retry_at : note->expires);
    task->refresh_at = tick_min(task->refresh_at, note->refresh_at);
    task->fetched = tick_min(task->fetched, note->fetched);
    task->is_stale |= note->is_stale;
    task->has_worked |= result->has_worked;
}

static void set_verdict(struct mx_set *set, enum mx_verdict verdict, const char *reason)
{
    set->verdict = verdict;
    set->reason = reason;
    if (verdict != MX_OK)
        set->host_count = 0;
}

static struct mx_set_host *set_add_host(struct mx_set *set, struct span name, uint16_t preference)
{
    CHECK(set->host_count < MX_HOST_MAX && name.size < MX_NAME_MAX);
    struct mx_set_host *host = &set->hosts[set->host_count++];

    *host = (struct mx_set_host){.preference = preference, .name_size = (uint8_t)name.size};
    memcpy(host->name, name.data, name.size);
    return host;
}

/* The exchangers of an MX answer; "." beside others says nothing and is left out. */
static void task_take_exchangers(struct mx_task *task, struct span value)
{
    while (value.size > 0) {
        uint16_t preference;
        CHECK(value.size >= 3);
        memcpy(&preference, value.data, sizeof(preference));
        struct span name = span_head(span_skip(value, 3), value.data[2]);
        value = span_skip(value, 3 + name.size);
        if (!span_is_equal(name, SPAN_LITERAL(".")))
            set_add_host(&task->set, name, preference);
    }
    if (task->set.host_count == 0)
        set_verdict(&task->set, MX_NULL, "the domain takes no mail (null MX)");
}

static void task_take_mx(struct mx_task *task, const struct dns_result *result)
{
    task_note(task, result);
    task->has_targets = true;
    switch (result->note.outcome) {
    case DNS_OUTCOME_POSITIVE:
        task_take_exchangers(task, result->value);
        break;
    case DNS_OUTCOME_NODATA:
        task->is_implicit = true;
        set_add_host(&task->set, mx_task_name(task), 0);
        break;
    case DNS_OUTCOME_NXDOMAIN:
        set_verdict(&task->set, MX_NOT_FOUND, "the domain does not exist");
        break;
    default:
        set_verdict(&task->set, MX_TEMPORARY, "the name servers of the domain do not answer");
        break;
    }
}

static void task_take_addresses(struct mx_task *task, uint32_t index, enum mx_family family,
                                const struct dns_result *result)
{
    struct mx_set_host *host = &task->set.hosts[index];
    uint32_t size = family == MX_FAMILY_4 ? 4 : 16;

    /* A host that does not resolve must not make all of the set short-lived: see task_pack(). */
    if (result->note.outcome != DNS_OUTCOME_FAILED)
        task_note(task, result);
    task->outcomes[index][family] = result->note.outcome;
    if (result->note.outcome != DNS_OUTCOME_POSITIVE)
        return;
    for (uint32_t at = 0; at < result->value.size; at += size) {
        if (host->counts[family] == MX_ADDRESS_MAX)
            break;
        memcpy(host->addresses[family][host->counts[family]++], result->value.data + at, size);
    }
}

static void task_take(struct mx_task *task, uint32_t slot, const struct dns_result *result)
{
    if (slot == MX_TASK_SLOT_MX)
        task_take_mx(task, result);
    else
        task_take_addresses(task, (slot - 1) / MX_FAMILY_COUNT, (slot - 1) % MX_FAMILY_COUNT,
                            result);
}

/* ---- questions go out ---- */

/* Wait for a free question, behind those who wait already. */
static void task_defer(struct dns *dns, struct mx_task *task, uint32_t slot)
{
    struct mx_task **link = &dns->tasks_starved;

    if (task->deferred == 0) {
        while (*link != NULL)
            link = &(*link)->next_starved;
        *link = task;
        task->next_starved = NULL;
    }
    dns->turned_away++;
    task->deferred |= 1ull << slot;
    task->pending++;
}

static void task_ask(struct dns *dns, struct mx_task *task, uint32_t slot, tick_us now)
{
    /* Freshness beyond the TTL matters for what could end in a bounce: the domain's own name. */
    bool is_own_name = slot == MX_TASK_SLOT_MX || task->is_implicit;
    struct dns_want want = {is_own_name ? task->want.fetched_after : 0, task->want.is_refresh};
    struct dns_waiter *waiter = &task->waiters[slot];
    struct span name = mx_task_name(task);
    uint16_t type = DNS_TYPE_MX;
    struct dns_result result;

    if (slot != MX_TASK_SLOT_MX) {
        const struct mx_set_host *host = &task->set.hosts[(slot - 1) / MX_FAMILY_COUNT];
        name = span_of(host->name, host->name_size);
        type = family_type[(slot - 1) % MX_FAMILY_COUNT];
    }
    if (task->questions == MX_QUESTION_MAX) {
        result = (struct dns_result){.note.outcome = DNS_OUTCOME_FAILED};
        task_take(task, slot, &result);
        return;
    }
    *waiter = (struct dns_waiter){.task = task, .slot = slot};
    enum err err = dns_ask(dns, name, type, &want, waiter, now, &result);
    if (err == ERR_LIMIT) {
        task_defer(dns, task, slot);
        return;
    }
    task->questions++;
    if (err == ERR_AGAIN)
        task->pending++;
    else
        task_take(task, slot, &result);
}

/* RFC 6761 section 6.3: "localhost" and names below it. */
static bool name_is_localhost(struct span name)
{
    struct span local = SPAN_LITERAL("localhost");

    if (name.size < local.size || !span_is_equal(span_skip(name, name.size - local.size), local))
        return false;
    return name.size == local.size || name.data[name.size - local.size - 1] == '.';
}

/* RFC 3696 section 2: no top-level domain is all digits, so this is an address or a mistake. */
static bool name_is_numeric(struct span name)
{
    for (uint32_t i = name.size; i > 0 && name.data[i - 1] != '.'; i--) {
        if (name.data[i - 1] < '0' || name.data[i - 1] > '9')
            return false;
    }
    return true;
}

/* RFC 6761 section 6.3: localhost is never asked for. */
static void host_set_localhost(struct mx_set_host *host)
{
    host->counts[MX_FAMILY_4] = host->counts[MX_FAMILY_6] = 1;
    host->addresses[MX_FAMILY_4][0][0] = 127;
    host->addresses[MX_FAMILY_4][0][3] = 1;
    host->addresses[MX_FAMILY_6][0][15] = 1;
}

static void task_ask_addresses(struct dns *dns, struct mx_task *task, tick_us now)
{
    for (uint32_t i = 0; i < task->set.host_count; i++) {
        struct mx_set_host *host = &task->set.hosts[i];
        struct span name = span_of(host->name, host->name_size);
        task->outcomes[i][MX_FAMILY_4] = task->outcomes[i][MX_FAMILY_6] = DNS_OUTCOME_NODATA;
        if (name_is_localhost(name)) {
            host_set_localhost(host);
            continue;
        }
        if (!query_name_is_sound(name) || name_is_numeric(name))
            continue;
        for (uint32_t family = 0; family < MX_FAMILY_COUNT; family++)
            task_ask(dns, task, 1 + MX_FAMILY_COUNT * i + family, now);
    }
}

void mx_task_begin(struct dns *dns, struct mx_task *task, tick_us now)
{
    uint64_t hash = cache_hash_of(dns->cache, mx_task_name(task), 0);
    struct worked_entry *worked = worked_find(dns->worked, hash, now);

    task->fetched = TICK_NEVER;
    task->expires = now + TICK_S((tick_us)dns->options.ttl_max_s);
    task->refresh_at = task->expires;
    if (worked != NULL && worked->negative_at != 0 && now >= worked->negative_at + WORKED_CONFIRM)
        task->want.fetched_after = worked->negative_at + WORKED_CONFIRM;
    set_verdict(&task->set, MX_OK, "ok");
    /* A route's host has no MX: it is itself the only target. */
    if (task->type == DNS_TYPE_HOST_SET) {
        task->has_targets = true;
        set_add_host(&task->set, mx_task_name(task), 0);
    }
}

bool mx_task_proceed(struct dns *dns, struct mx_task *task, tick_us now)
{
    if (task->pending > 0)
        return false;
    if (!task->has_targets) {
        task_ask(dns, task, MX_TASK_SLOT_MX, now);
        if (task->pending > 0)
            return false;
    }
    if (!task->has_addresses) {
        task->has_addresses = true;
        task_ask_addresses(dns, task, now);
    }
    return task->pending == 0;
}

/* ---- the end of a task ---- */

static void task_judge_host(struct mx_task *task, uint32_t index)
{
    struct mx_set_host *host = &task->set.hosts[index];
    const uint8_t *outcomes = task->outcomes[index];

    if (host->counts[MX_FAMILY_4] + host->counts[MX_FAMILY_6] > 0)
        host->state = MX_HOST_RESOLVED;
    else if (outcomes[MX_FAMILY_4] == DNS_OUTCOME_FAILED ||
             outcomes[MX_FAMILY_6] == DNS_OUTCOME_FAILED)
        host->state = MX_HOST_FAILED;
    else
        host->state = MX_HOST_EMPTY;
}

/* Some address is not known just now: what is known serves for a while, and is looked at again
 * soon; with nothing known, a new try comes soon. */
static void task_limit_unresolved(struct mx_task *task, tick_us now)
{
    bool has_failed = false, has_host = false;

    for (uint32_t i = 0; i < task->set.host_count; i++) {
        task_judge_host(task, i);
        has_failed |= task->outcomes[i][MX_FAMILY_4] == DNS_OUTCOME_FAILED ||
                      task->outcomes[i][MX_FAMILY_6] == DNS_OUTCOME_FAILED;
        has_host |= task->set.hosts[i].state == MX_HOST_RESOLVED;
    }
    if (!has_failed)
        return;
    task->refresh_at = tick_min(task->refresh_at, now + DNS_FAILURE_TTL);
    task->expires = tick_min(task->expires, now + (has_host ? MX_PARTIAL_TIME : DNS_FAILURE_TTL));
}

/* Verdict of a task whose hosts are judged. */
static void task_judge(struct mx_task *task)
{
    struct mx_set *set = &task->set;
    bool is_only_empty = set->host_count == 1 && set->hosts[0].state == MX_HOST_EMPTY;

    if (is_only_empty && task->type == DNS_TYPE_HOST_SET)
        set_verdict(set, MX_TEMPORARY, "the configured host has no address");
    else if (is_only_empty && task->is_implicit)
        set_verdict(set, MX_NOT_FOUND, "the domain has neither mail hosts nor an address");
    if (task->is_stale && (set->verdict == MX_NULL || set->verdict == MX_NOT_FOUND))
        set_verdict(set, MX_TEMPORARY, "the name servers of the domain do not answer");
}

/* A permanent failure of a name that worked lately needs a second negative answer. */
static void task_confirm(struct dns *dns, struct mx_task *task, tick_us now)
{
    uint64_t hash = cache_hash_of(dns->cache, mx_task_name(task), 0);
    struct worked_entry *worked = worked_find(dns->worked, hash, now);

    if (task->set.verdict != MX_NOT_FOUND)
        return;
    if (worked == NULL && task->has_worked) {
        /* Its home shard remembers it; from now on we do as well. */
        worked_note(dns->worked, hash, now);
        worked = worked_find(dns->worked, hash, now);
    }
    if (worked == NULL)
        return;
    if (worked->negative_at == 0)
        worked->negative_at = task->fetched;
    tick_us confirm_at = worked->negative_at + WORKED_CONFIRM;
    if (task->fetched >= confirm_at)
        return;
    set_verdict(&task->set, MX_TEMPORARY,
                "the domain was just reported not to exist, though it worked lately");
    task->expires = confirm_at > now ? confirm_at : now + DNS_FAILURE_TTL;
    task->refresh_at = task->expires;
}

struct cache_entry *mx_task_pack(struct dns *dns, struct mx_task *task, tick_us now)
{
    uint8_t octets[MX_SET_SIZE_MAX];

    task_limit_unresolved(task, now);
    task_judge(task);
    task_confirm(dns, task, now);
    if (task->set.verdict == MX_OK && !task->is_stale)
        worked_note(dns->worked, cache_hash_of(dns->cache, mx_task_name(task), 0), now);
    struct cache_note note = {
        .outcome = (uint8_t)task->set.verdict,
        .is_stale = task->is_stale,
        .fetched = task->fetched,
        .expires = task->expires,
        .refresh_at = task->refresh_at,
    };
    uint32_t size = mx_set_pack(&task->set, octets);
    cache_advance(dns->cache, now);
    return cache_put(dns->cache, task->hash, mx_task_name(task), task->type, &note,
                     span_of(octets, size));
}

static void task_done_when_complete(struct dns *dns, struct mx_task *task, tick_us now)
{
    if (!mx_task_proceed(dns, task, now))
        return;
    task->next = dns->tasks_done;
    dns->tasks_done = task;
}

void mx_task_on_result(struct dns *dns, struct mx_task *task, uint32_t slot,
                       const struct dns_result *result, tick_us now)
{
    CHECK(task->pending > 0);
    task->pending--;
    task_take(task, slot, result);
    task_done_when_complete(dns, task, now);
}

void mx_tasks_feed(struct dns *dns, tick_us now)
{
    while (dns->tasks_starved != NULL && dns->free != 0) {
        struct mx_task *task = dns->tasks_starved;
        uint64_t deferred = task->deferred;
        dns->tasks_starved = task->next_starved;
        task->deferred = 0;
        for (uint32_t slot = 0; slot < MX_TASK_SLOT_COUNT; slot++) {
            if (!(deferred >> slot & 1))
                continue;
            task->pending--;
            task_ask(dns, task, slot, now);
        }
        task_done_when_complete(dns, task, now);
    }
}
