/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of a queue. A name may come many times, from each shard and from each line of a site, so
 * groups are found by a table; strangers choose the names, so its hash has a random key. Names are
 * kept as they are shown.
 *
 *   names    "big.example\0a.example\0..."
 *   groups   name (an offset), ages, and the next of its chain
 *   chains   as many as there is room for groups
 *
 * Bounds: ADMIN_SUMMARY_GROUP_MAX groups; those that come later are added to one of their own.
 */
#include "control/admin_summary.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/rng.h"
#include "queue/keyed_hash.h"

#define GROUPS_FIRST 256u
#define NONE         UINT32_MAX

static const char others[] = "(others)";

struct group {
    uint32_t name, next;
    uint64_t ages[QMGR_AGE_BUCKET_COUNT];
};

struct admin_summary {
    struct keyed_hash hash;
    struct json_text names;
    struct group *groups;
    uint32_t *chains;
    uint32_t count, capacity; /* a power of two */
};

static const char *group_name(const struct admin_summary *summary, uint32_t index)
{
    return summary->names.data + summary->groups[index].name;
}

static uint64_t hash_of(const struct admin_summary *summary, const char *name)
{
    return keyed_hash_octets(&summary->hash, span_from_text(name));
}

static void group_link(struct admin_summary *summary, uint32_t index, uint64_t hash)
{
    uint32_t *chain = &summary->chains[hash & (summary->capacity - 1)];

    summary->groups[index].next = *chain;
    *chain = index;
}

static void groups_grow(struct admin_summary *summary)
{
    summary->capacity = summary->capacity == 0 ? GROUPS_FIRST : 2 * summary->capacity;
    summary->groups = reallocarray(summary->groups, summary->capacity, sizeof(*summary->groups));
    summary->chains = reallocarray(summary->chains, summary->capacity, sizeof(*summary->chains));
    CHECK(summary->groups != NULL && summary->chains != NULL);
    memset(summary->chains, 0xff, summary->capacity * sizeof(*summary->chains)); /* NONE */
    for (uint32_t i = 0; i < summary->count; i++)
        group_link(summary, i, hash_of(summary, group_name(summary, i)));
}

static struct group *group_find(const struct admin_summary *summary, const char *name,
                                uint64_t hash)
{
    uint32_t index = summary->chains[hash & (summary->capacity - 1)];

    for (; index != NONE; index = summary->groups[index].next) {
        if (strcmp(group_name(summary, index), name) == 0)
            return &summary->groups[index];
    }
    return NULL;
}

static struct group *group_get(struct admin_summary *summary, const char *name)
{
    uint64_t hash = hash_of(summary, name);
    struct group *group = group_find(summary, name, hash);

    if (group == NULL && summary->count >= ADMIN_SUMMARY_GROUP_MAX) {
        name = others;
        hash = hash_of(summary, name);
        group = group_find(summary, name, hash);
    }
    if (group != NULL)
        return group;
    if (summary->count == summary->capacity)
        groups_grow(summary);
    group = &summary->groups[summary->count];
    *group = (struct group){.name = (uint32_t)summary->names.size};
    json_text_octets(&summary->names, name, strlen(name) + 1);
    group_link(summary, summary->count++, hash);
    return group;
}

struct admin_summary *admin_summary_new(void)
{
    struct admin_summary *summary = calloc(1, sizeof(*summary));
    struct rng rng;

    CHECK(summary != NULL);
    enum err err = rng_init_system(&rng);
    CHECK(err == ERR_OK);
    rng_fill(&rng, &summary->hash, sizeof(summary->hash));
    groups_grow(summary);
    return summary;
}

void admin_summary_free(struct admin_summary *summary)
{
    if (summary == NULL)
        return;
    json_text_free(&summary->names);
    free(summary->groups);
    free(summary->chains);
    free(summary);
}

void admin_summary_add(struct admin_summary *summary, const struct shard_query *query)
{
    char escaped[4 * ENVELOPE_ADDRESS_SIZE_MAX + 1];

    for (uint32_t i = 0; i < query->row_count; i++) {
        const struct qmgr_group *counted = &query->groups[i];
        struct group *group =
            group_get(summary, log_escape(span_from_text(counted->name), escaped, sizeof(escaped)));
        for (uint32_t k = 0; k < QMGR_AGE_BUCKET_COUNT; k++)
            group->ages[k] += counted->ages[k];
    }
}

/* ---- the answer ---- */

struct row {
    const char *name;
    const uint64_t *ages;
    uint64_t total;
};

static int row_compare(const void *a, const void *b)
{
    const struct row *left = a, *right = b;

    if (left->total != right->total)
        return (left->total < right->total) - (left->total > right->total);
    return strcmp(left->name, right->name);
}

static void ages_write(const uint64_t ages[QMGR_AGE_BUCKET_COUNT], struct json_text *text)
{
    json_text_key(text, JSON_KEY("ages"));
    json_text_numbers(text, ages, QMGR_AGE_BUCKET_COUNT);
}

static void row_write(const struct row *row, struct json_text *text)
{
    json_text_open(text, '{');
    json_text_set_string(text, JSON_KEY("name"), row->name);
    json_text_set_number(text, JSON_KEY("total"), row->total);
    ages_write(row->ages, text);
    json_text_close(text, '}');
}

/* The groups that have mail: one that has none any more may be known for a while. Also adds all of
 * them up. */
static uint32_t rows_collect(const struct admin_summary *summary, struct row *rows,
                             uint64_t ages[QMGR_AGE_BUCKET_COUNT])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < summary->count; i++) {
        const struct group *group = &summary->groups[i];
        uint64_t total = 0;
        for (uint32_t k = 0; k < QMGR_AGE_BUCKET_COUNT; k++) {
            total += group->ages[k];
            ages[k] += group->ages[k];
        }
        if (total > 0)
            rows[count++] = (struct row){group_name(summary, i), group->ages, total};
    }
    return count;
}

void admin_summary_write(const struct admin_summary *summary, const char *by, uint64_t limit,
                         struct json_text *text)
{
    struct row *rows = calloc(summary->count + 1, sizeof(*rows));
    uint64_t ages[QMGR_AGE_BUCKET_COUNT] = {0}, total = 0;

    CHECK(rows != NULL);
    uint32_t count = rows_collect(summary, rows, ages);
    qsort(rows, count, sizeof(*rows), row_compare);
    json_text_set_string(text, JSON_KEY("by"), by);
    json_text_key(text, JSON_KEY("rows"));
    json_text_open(text, '[');
    for (uint32_t i = 0; i < count && i < limit; i++)
        row_write(&rows[i], text);
    json_text_close(text, ']');
    free(rows);
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++)
        total += ages[i];
    json_text_set_number(text, JSON_KEY("groups"), count);
    json_text_set_number(text, JSON_KEY("total"), total);
    ages_write(ages, text);
}
