/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The table of messages, by id.
 *
 * Linear hashing: the table grows by one bucket with every message, by splitting one, so that no
 * insert ever pays for all. With mask = 2^k - 1 and 2^k <= count < 2^(k+1) buckets, those below
 * count - 2^k are split already: their messages are found by k + 1 bits of the hash.
 *
 * Of millions of messages no bucket is in the cache. A message that is linked therefore waits in
 * `linking` while memory brings its bucket, until QMGR_TABLE_LINKING others have come, or somebody
 * looks for one.
 *
 * Invariants
 *   1. A message is in its bucket's chain or in `linking`, in one of them once.
 *   2. Whoever walks a chain puts away what is in `linking` first.
 *
 * Limits: TABLE_BUCKETS_MAX buckets, with longer chains beyond.
 */
#include "base/pages.h"
#include "queue/qmgr_state.h"

#define TABLE_BUCKETS_MIN 16u
#define TABLE_BUCKETS_MAX (1u << 24)
#define SPLITS_AHEAD      32u /* buckets that one link makes ahead of those that are to come */

void qmgr_table_init(struct qmgr_table *table, uint32_t message_count_max)
{
    uint32_t max = TABLE_BUCKETS_MIN;

    while (max < message_count_max && max < TABLE_BUCKETS_MAX)
        max *= 2;
    *table = (struct qmgr_table){
        .buckets = pages_new(max * sizeof(*table->buckets)),
        .count = TABLE_BUCKETS_MIN,
        .max = max,
        .mask = TABLE_BUCKETS_MIN - 1,
    };
    CHECK(table->buckets != NULL);
}

void qmgr_table_fini(struct qmgr_table *table)
{
    pages_free(table->buckets, table->max * sizeof(*table->buckets));
}

/* No stranger chooses ids: half of each is random, or follows from one that was. One multiplication
 * makes the upper half of the product depend on all of them. */
uint32_t qmgr_table_hash(const struct qmgr *qmgr, struct message_id id)
{
    uint64_t both = id.low + id.high * (qmgr->hash.key[0] | 1);

    return (uint32_t)(both * (qmgr->hash.key[1] | 1) >> 32);
}

static uint32_t *table_bucket(const struct qmgr_table *table, uint32_t hash)
{
    uint32_t index = hash & (2 * table->mask + 1);

    if (index >= table->count)
        index = hash & table->mask;
    return &table->buckets[index];
}

static struct qmgr_message *message_at(const struct qmgr *qmgr, uint32_t ref)
{
    return slab_at(&qmgr->messages, ref);
}

static void table_push(struct qmgr_table *table, struct qmgr_message *message)
{
    uint32_t *bucket = table_bucket(table, message->hash);

    message->hash_next = *bucket;
    *bucket = slab_ref(message);
}

static void table_put_away(struct qmgr_table *table)
{
    for (uint32_t i = 0; i < table->linking_count; i++)
        table_push(table, table->linking[i]);
    table->linking_count = 0;
}

static void table_split(struct qmgr *qmgr)
{
    struct qmgr_table *table = &qmgr->table;
    uint32_t index = table->count++ & table->mask;
    struct qmgr_message *message = message_at(qmgr, table->buckets[index]);

    table->buckets[index] = 0;
    while (message != NULL) {
        struct qmgr_message *next = message_at(qmgr, message->hash_next);
        table_push(table, message);
        message = next;
    }
    if (table->count > 2 * table->mask + 1)
        table->mask = 2 * table->mask + 1;
}

/* What is known to come finds the table as large as it will be: to split a bucket that is empty
 * costs next to nothing. */
static void table_grow(struct qmgr *qmgr)
{
    struct qmgr_table *table = &qmgr->table;
    uint32_t expected = table->expected < table->max ? table->expected : table->max;

    for (uint32_t i = 0; i < SPLITS_AHEAD && table->count < expected; i++)
        table_split(qmgr);
    if (qmgr->messages.in_use > table->count && table->count < table->max)
        table_split(qmgr);
}

void qmgr_expect(struct qmgr *qmgr, uint32_t count)
{
    qmgr->table.expected = qmgr->messages.in_use + count;
}

struct qmgr_message *qmgr_find(struct qmgr *qmgr, struct message_id id)
{
    return qmgr_table_find(qmgr, id, qmgr_table_hash(qmgr, id));
}

struct qmgr_message *qmgr_table_find(struct qmgr *qmgr, struct message_id id, uint32_t hash)
{
    table_put_away(&qmgr->table);
    struct qmgr_message *message = message_at(qmgr, *table_bucket(&qmgr->table, hash));
    while (message != NULL &&
           (message->hash != hash || !message_id_is_equal(qmgr_message_id(message), id)))
        message = message_at(qmgr, message->hash_next);
    return message;
}

void qmgr_table_link(struct qmgr *qmgr, struct qmgr_message *message)
{
    struct qmgr_table *table = &qmgr->table;

    table_grow(qmgr);
    __builtin_prefetch(table_bucket(table, message->hash), 1);
    table->linking[table->linking_count++] = message;
    if (table->linking_count == QMGR_TABLE_LINKING)
        table_put_away(table);
}

void qmgr_table_unlink(struct qmgr *qmgr, struct qmgr_message *message)
{
    table_put_away(&qmgr->table);
    uint32_t *link = table_bucket(&qmgr->table, message->hash);
    while (*link != slab_ref(message)) {
        struct qmgr_message *other = message_at(qmgr, *link);
        CHECK(other != NULL);
        link = &other->hash_next;
    }
    *link = message->hash_next;
}
