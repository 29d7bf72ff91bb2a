/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Groups of a queue. A name may come many times, from each shard and from each line of a site, so
 * groups are found by a table; strangers choose the names, so its hash has a random key. Names are
 * kept as they are shown. The largest are found by a heap of as many as are wanted, with that on
 * top which is the first to go.
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
#include "control/digits.h"

#define GROUPS_FIRST 256u
#define NONE         UINT32_MAX
#define ROW_USUAL    128u /* octets of an answer */

static const char others[] = "(others)";

struct group {
    uint32_t name, name_size, next;
    uint64_t begins; /* its first octets, as a number that orders as they do */
    uint64_t total;  /* as of admin_summary_largest() */
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

static uint64_t hash_of(const struct admin_summary *summary, struct span name)
{
    return keyed_hash_octets(&summary->hash, name);
}

static struct span group_span(const struct admin_summary *summary, uint32_t index)
{
    return span_of(group_name(summary, index), summary->groups[index].name_size);
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
        group_link(summary, i, hash_of(summary, group_span(summary, i)));
}

static struct group *group_find(const struct admin_summary *summary, struct span name,
                                uint64_t hash)
{
    uint32_t index = summary->chains[hash & (summary->capacity - 1)];

    for (; index != NONE; index = summary->groups[index].next) {
        if (summary->groups[index].name_size == name.size &&
            memcmp(group_name(summary, index), name.data, name.size) == 0)
            return &summary->groups[index];
    }
    return NULL;
}

static uint64_t begins_of(struct span name)
{
    uint64_t octets = 0;

    memcpy(&octets, name.data, name.size < sizeof(octets) ? name.size : sizeof(octets));
    return __builtin_bswap64(octets);
}

/* The octet behind the name ends it. */
static struct group *group_get(struct admin_summary *summary, struct span name)
{
    uint64_t hash = hash_of(summary, name);
    struct group *group = group_find(summary, name, hash);

    if (group == NULL && summary->count >= ADMIN_SUMMARY_GROUP_MAX) {
        name = span_from_text(others);
        hash = hash_of(summary, name);
        group = group_find(summary, name, hash);
    }
    if (group != NULL)
        return group;
    if (summary->count == summary->capacity)
        groups_grow(summary);
    group = &summary->groups[summary->count];
    *group = (struct group){
        .name = (uint32_t)summary->names.size, .name_size = name.size, .begins = begins_of(name)};
    json_text_octets(&summary->names, name.data, name.size + 1); /* with its end */
    group_link(summary, summary->count++, hash);
    return group;
}

struct admin_summary *admin_summary_new(const struct keyed_hash *hash)
{
    struct admin_summary *summary = calloc(1, sizeof(*summary));

    CHECK(summary != NULL);
    summary->hash = *hash;
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

/* Most need no escapes, and stay where they are. */
static struct span name_escape(const char *name, char *ret_text, uint32_t size)
{
    uint32_t used = 0;

    while (name[used] >= ' ' && name[used] < 0x7f && name[used] != '"' && name[used] != '\\')
        used++;
    if (name[used] == '\0')
        return span_of(name, used);
    return span_from_text(log_escape(span_from_text(name), ret_text, size));
}

void admin_summary_add(struct admin_summary *summary, const struct shard_query *query)
{
    char escaped[4 * ENVELOPE_ADDRESS_SIZE_MAX + 1] UNINITIALIZED;

    for (uint32_t i = 0; i < query->row_count; i++) {
        const struct qmgr_group *counted = &query->groups[i];
        struct group *group =
            group_get(summary, name_escape(counted->name, escaped, sizeof(escaped)));
        for (uint32_t k = 0; k < QMGR_AGE_BUCKET_COUNT; k++)
            group->ages[k] += counted->ages[k];
    }
}

/* ---- the largest ---- */

/* Is `a` shown before `b`? By size, then by name. */
static inline bool is_before(const struct admin_summary_row *a, const struct admin_summary_row *b)
{
    if (a->total != b->total)
        return a->total > b->total;
    if (a->begins != b->begins)
        return a->begins < b->begins;
    return strcmp(a->name, b->name) < 0;
}

static void heap_rise(struct admin_summary_row *rows, uint32_t place, struct admin_summary_row row)
{
    for (; place > 0 && is_before(&rows[(place - 1) / 2], &row); place = (place - 1) / 2)
        rows[place] = rows[(place - 1) / 2];
    rows[place] = row;
}

/* In place of that on top. Down to the bottom first, and then up to its place: it comes from there,
 * so that it seldom has to rise, and half of the comparisons are not made. */
static void heap_replace(struct admin_summary_row *rows, uint32_t count,
                         struct admin_summary_row row)
{
    uint32_t place = 0, below;

    while ((below = 2 * place + 1) < count) {
        if (below + 1 < count && is_before(&rows[below], &rows[below + 1]))
            below++;
        rows[place] = rows[below];
        place = below;
    }
    heap_rise(rows, place, row);
}

/* What goes first from the top goes to the end. */
static void heap_sort(struct admin_summary_row *rows, uint32_t count)
{
    while (count > 1) {
        struct admin_summary_row worst = rows[0], last = rows[--count];
        heap_replace(rows, count, last);
        rows[count] = worst;
    }
}

struct admin_summary_sums admin_summary_sum(struct admin_summary *summary)
{
    struct admin_summary_sums sums = {0};

    for (uint32_t i = 0; i < summary->count; i++) {
        struct group *group = &summary->groups[i];
        group->total = 0;
        for (uint32_t k = 0; k < QMGR_AGE_BUCKET_COUNT; k++) {
            group->total += group->ages[k];
            sums.ages[k] += group->ages[k];
        }
        sums.total += group->total;
        sums.group_count += group->total > 0;
    }
    return sums;
}

uint32_t admin_summary_largest(const struct admin_summary *summary, uint32_t max,
                               struct admin_summary_row *ret_rows)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < summary->count && max > 0; i++) {
        const struct group *group = &summary->groups[i];
        struct admin_summary_row row = {group->total, group->begins, group_name(summary, i),
                                        group->ages};
        if (row.total == 0)
            continue;
        if (count < max)
            heap_rise(ret_rows, count++, row);
        else if (is_before(&row, &ret_rows[0]))
            heap_replace(ret_rows, count, row);
    }
    heap_sort(ret_rows, count);
    return count;
}

/* ---- the answer ---- */

/* `,"ages":[3,0,...]`. There is room for all of them. */
static char *ages_put(char *room, const uint64_t ages[QMGR_AGE_BUCKET_COUNT])
{
    static const char key[] = ",\"ages\":[";

    memcpy(room, key, sizeof(key) - 1);
    room += sizeof(key) - 1;
    for (uint32_t i = 0; i < QMGR_AGE_BUCKET_COUNT; i++) {
        room = digits_put(room, ages[i]);
        *room++ = ',';
    }
    room[-1] = ']';
    return room;
}

static void numbers_write(uint64_t total, const uint64_t ages[QMGR_AGE_BUCKET_COUNT],
                          struct json_text *text)
{
    static const char key[] = ",\"total\":";
    char *room =
        json_text_room(text, 32 + (QMGR_AGE_BUCKET_COUNT + 1) * (uint32_t)(DIGITS_MAX + 1));

    memcpy(room, key, sizeof(key) - 1);
    room = digits_put(room + sizeof(key) - 1, total);
    json_text_written(text, ages_put(room, ages));
}

bool admin_summary_write(struct admin_summary *summary, const char *by, uint64_t limit,
                         struct json_text *text)
{
    struct admin_summary_sums sums = admin_summary_sum(summary);
    uint32_t max = sums.group_count < limit ? sums.group_count : (uint32_t)limit;
    struct admin_summary_row *largest = reallocarray(NULL, max + 1, sizeof(*largest));

    CHECK(largest != NULL);
    uint32_t count = admin_summary_largest(summary, max, largest);
    json_text_set_string(text, JSON_KEY("by"), by);
    json_text_key(text, JSON_KEY("rows"));
    (void)json_text_room(text, count * (size_t)ROW_USUAL + 2);
    json_text_open(text, '[');
    for (uint32_t i = 0; i < count; i++) {
        json_text_open(text, '{');
        json_text_set_string(text, JSON_KEY("name"), largest[i].name);
        numbers_write(largest[i].total, largest[i].ages, text);
        json_text_close(text, '}');
    }
    json_text_close(text, ']');
    free(largest);
    json_text_set_number(text, JSON_KEY("groups"), sums.group_count);
    numbers_write(sums.total, sums.ages, text);
    return count < sums.group_count;
}
