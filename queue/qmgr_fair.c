/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fair order: whose mail goes next.
 *
 * What is due in a line is kept in parts, one for each sender domain. Of a part the oldest message
 * goes first. The parts of a line take turns, one delivery each, so that a sender with a million
 * letters does not keep another's one waiting.
 *
 * Lines that are served together (all domains at one site) are in one round. There the lowest class
 * goes first. One that is promised n percent earns n hundredths of a turn whenever somebody else
 * has one, and goes first with a whole one; what it did not use is gone when nothing of it is left.
 * Inside a class the shares take turns, one delivery each: a share is one sender domain
 * with all its parts in that round, which take turns in their share. So ten thousand domains at one
 * provider give a sender no more than one does.
 *
 * A part keeps what came in order of arrival, nearly everything, in a list: O(1). What comes later
 * than it arrived (a retry) is in a leftist tree beside it: O(log n) in the worst case. Both are
 * links inside the deliveries, in the place of the timer that nobody needs while they are READY.
 *
 *   (none) -> part    qmgr_fair_push(), its sender's first in the line    part -> (none)  its last
 *   (none) -> share   a part comes to the round, its sender's first       share -> (none) its last
 *
 * Invariants
 *   1. A part has at least one delivery; a share has at least one part. All parts of a line that is
 *      in a round are in its shares.
 *   2. list: left arrived no later than right. Tree: nobody arrived before its `up`; the rank is
 *      one more than the right one's, which is at most the left one's. rank 0: in the list.
 *   3. shares of a class stand in the order of `since`: when they came, or had their last turn.
 *
 * Limits: QMGR_FAIR_PARTS_MAX senders of a line have parts of their own; those that come while
 * there are so many are one part together (`sender` NULL). Classes from QMGR_ROUND_CLASS_COUNT - 1
 * on are one in a round.
 */
#include <stdio.h>
#include <stdlib.h>

#include "queue/qmgr_state.h"

#define WHOLE_TURN       100u
#define RANK_CLASS_SHIFT 54u /* microseconds since 1970 are below for five centuries */

struct qmgr_round {
    struct qmgr_share_list classes[QMGR_ROUND_CLASS_COUNT];
    const struct qmgr *qmgr;
    uint32_t occupied;                      /* bit c: there is a share in class c */
    uint32_t due;                           /* deliveries */
    uint8_t earned[QMGR_ROUND_CLASS_COUNT]; /* hundredths of a turn */
};

static wall_us arrived_of(const struct qmgr_delivery *delivery)
{
    return delivery->message->arrived;
}

/* ---- the tree ---- */

static uint32_t rank_of(const struct qmgr_delivery *delivery)
{
    return delivery == NULL ? 0 : delivery->rank;
}

/* The children are right: make the node so. Returns whether its rank is another now. */
static bool tree_settle(struct qmgr_delivery *node)
{
    uint8_t before = node->rank;

    if (rank_of(node->ready.left) < rank_of(node->ready.right)) {
        struct qmgr_delivery *left = node->ready.left;
        node->ready.left = node->ready.right;
        node->ready.right = left;
    }
    node->rank = (uint8_t)(rank_of(node->ready.right) + 1);
    return node->rank != before;
}

/* One tree of two; walks their right edges, of which none is longer than log2 of the nodes. */
static struct qmgr_delivery *tree_merge(struct qmgr_delivery *a, struct qmgr_delivery *b)
{
    struct qmgr_delivery *root = NULL, *up = NULL;
    struct qmgr_delivery **link = &root;

    while (a != NULL && b != NULL) {
        if (arrived_of(b) < arrived_of(a)) {
            struct qmgr_delivery *older = b;
            b = a;
            a = older;
        }
        *link = a;
        a->ready.up = up;
        up = a;
        link = &a->ready.right;
        a = *link;
    }
    *link = a != NULL ? a : b;
    if (*link != NULL)
        (*link)->ready.up = up;
    for (; up != NULL; up = up->ready.up)
        (void)tree_settle(up);
    return root;
}

static void tree_add(struct qmgr_part *part, struct qmgr_delivery *delivery)
{
    delivery->ready.up = delivery->ready.left = delivery->ready.right = NULL;
    delivery->rank = 1;
    part->root = tree_merge(part->root, delivery);
}

static void tree_remove(struct qmgr_part *part, struct qmgr_delivery *delivery)
{
    struct qmgr_delivery *up = delivery->ready.up;
    struct qmgr_delivery *merged = tree_merge(delivery->ready.left, delivery->ready.right);

    if (merged != NULL)
        merged->ready.up = up;
    if (up == NULL)
        part->root = merged;
    else if (up->ready.left == delivery)
        up->ready.left = merged;
    else
        up->ready.right = merged;
    while (up != NULL && tree_settle(up))
        up = up->ready.up;
}

/* ---- the list ---- */

static void list_append(struct qmgr_part *part, struct qmgr_delivery *delivery)
{
    delivery->ready.up = delivery->ready.right = NULL;
    delivery->ready.left = part->last;
    delivery->rank = 0;
    if (part->last != NULL)
        part->last->ready.right = delivery;
    else
        part->first = delivery;
    part->last = delivery;
}

static void list_remove(struct qmgr_part *part, const struct qmgr_delivery *delivery)
{
    if (delivery->ready.left != NULL)
        delivery->ready.left->ready.right = delivery->ready.right;
    else
        part->first = delivery->ready.right;
    if (delivery->ready.right != NULL)
        delivery->ready.right->ready.left = delivery->ready.left;
    else
        part->last = delivery->ready.left;
}

/* ---- shares ---- */

/* Of addresses of our own: nobody chooses them. */
static uint32_t pair_hash(const void *a, const void *b)
{
    uint64_t hash = (uint64_t)(uintptr_t)a * 0x9e3779b97f4a7c15u;

    hash = (hash ^ hash >> 32 ^ (uint64_t)(uintptr_t)b) * 0x9e3779b97f4a7c15u;
    return (uint32_t)(hash >> 32);
}

static uint32_t round_class(uint32_t class)
{
    return class < QMGR_ROUND_CLASS_COUNT ? class : QMGR_ROUND_CLASS_COUNT - 1;
}

static struct qmgr_share **share_bucket(const struct qmgr *qmgr,
                                        const struct qmgr_share_list *class,
                                        const struct qmgr_sender *sender)
{
    return &qmgr->share_buckets[pair_hash(class, sender) & qmgr->line_mask];
}

static struct qmgr_share *share_get(struct qmgr *qmgr, struct qmgr_share_list *class,
                                    struct qmgr_sender *sender, wall_us since)
{
    struct qmgr_share **bucket = share_bucket(qmgr, class, sender);
    struct qmgr_share *share = *bucket;

    while (share != NULL && (share->class != class || share->sender != sender))
        share = share->hash_next;
    if (share != NULL)
        return share;
    share = slab_acquire(&qmgr->shares);
    CHECK(share != NULL);
    share->hash_next = *bucket;
    *bucket = share;
    share->class = class;
    share->sender = sender;
    share->since = since;
    TAILQ_INIT(&share->parts);
    TAILQ_INSERT_TAIL(class, share, link);
    return share;
}

static void share_join(struct qmgr *qmgr, struct qmgr_part *part, wall_us since)
{
    struct qmgr_round *round = part->line->round;
    uint32_t class = round_class(part->line->class);

    part->share = share_get(qmgr, &round->classes[class], part->sender, since);
    TAILQ_INSERT_TAIL(&part->share->parts, part, share_link);
    round->occupied |= 1u << class;
}

static void share_leave(struct qmgr *qmgr, struct qmgr_part *part)
{
    struct qmgr_round *round = part->line->round;
    struct qmgr_share *share = part->share;

    part->share = NULL;
    TAILQ_REMOVE(&share->parts, part, share_link);
    if (!TAILQ_EMPTY(&share->parts))
        return;
    struct qmgr_share **link = share_bucket(qmgr, share->class, share->sender);
    while (*link != share)
        link = &(*link)->hash_next;
    *link = share->hash_next;
    TAILQ_REMOVE(share->class, share, link);
    if (TAILQ_EMPTY(share->class)) {
        round->occupied &= ~(1u << (share->class - round->classes));
        round->earned[share->class - round->classes] = 0;
    }
    slab_release(&qmgr->shares, share);
}

/* ---- parts ---- */

static struct qmgr_part **part_bucket(const struct qmgr *qmgr, const struct qmgr_line *line,
                                      const struct qmgr_sender *sender)
{
    return &qmgr->part_buckets[pair_hash(line, sender) & qmgr->line_mask];
}

/* Most lines have one sender's mail, or that of the one who came last again. */
static struct qmgr_part *part_find(const struct qmgr *qmgr, const struct qmgr_line *line,
                                   const struct qmgr_sender *sender)
{
    struct qmgr_part *part = TAILQ_LAST(&line->parts, qmgr_part_list);

    if (part == NULL || part->sender == sender)
        return part;
    if (line->part_count == 1)
        return NULL;
    part = *part_bucket(qmgr, line, sender);
    while (part != NULL && (part->line != line || part->sender != sender))
        part = part->hash_next;
    return part;
}

static struct qmgr_part *part_new(struct qmgr *qmgr, struct qmgr_line *line,
                                  struct qmgr_sender *sender, wall_us since)
{
    struct qmgr_part **bucket = part_bucket(qmgr, line, sender);
    struct qmgr_part *part = slab_acquire(&qmgr->parts);

    CHECK(part != NULL);
    part->hash_next = *bucket;
    *bucket = part;
    part->line = line;
    part->sender = sender;
    TAILQ_INSERT_TAIL(&line->parts, part, line_link);
    line->part_count++;
    if (line->round != NULL)
        share_join(qmgr, part, since);
    return part;
}

static void part_free(struct qmgr *qmgr, struct qmgr_part *part)
{
    struct qmgr_part **link = part_bucket(qmgr, part->line, part->sender);

    if (part->share != NULL)
        share_leave(qmgr, part);
    while (*link != part)
        link = &(*link)->hash_next;
    *link = part->hash_next;
    TAILQ_REMOVE(&part->line->parts, part, line_link);
    part->line->part_count--;
    slab_release(&qmgr->parts, part);
}

static struct qmgr_part *part_of(const struct qmgr *qmgr, const struct qmgr_delivery *delivery)
{
    return part_find(qmgr, delivery->line, delivery->is_joint ? NULL : delivery->message->sender);
}

static struct qmgr_delivery *part_oldest(const struct qmgr_part *part)
{
    if (part->root == NULL)
        return part->first;
    if (part->first == NULL || arrived_of(part->root) < arrived_of(part->first))
        return part->root;
    return part->first;
}

/* ---- what is due in a line ---- */

void qmgr_fair_push(struct qmgr *qmgr, struct qmgr_delivery *delivery, wall_us since)
{
    struct qmgr_line *line = delivery->line;
    struct qmgr_sender *sender = delivery->message->sender;
    struct qmgr_part *part = part_find(qmgr, line, sender);

    if (part == NULL && line->part_count >= QMGR_FAIR_PARTS_MAX) {
        sender = NULL;
        part = part_find(qmgr, line, sender);
    }
    if (part == NULL)
        part = part_new(qmgr, line, sender, since);
    delivery->ready.since = since;
    delivery->is_joint = sender == NULL;
    if (part->last == NULL || arrived_of(delivery) >= arrived_of(part->last))
        list_append(part, delivery);
    else
        tree_add(part, delivery);
    line->ready_count++;
    if (line->round != NULL)
        line->round->due++;
}

void qmgr_fair_remove(struct qmgr *qmgr, struct qmgr_delivery *delivery)
{
    struct qmgr_line *line = delivery->line;
    struct qmgr_part *part = part_of(qmgr, delivery);

    CHECK(part != NULL && line->ready_count > 0);
    if (delivery->rank == 0)
        list_remove(part, delivery);
    else
        tree_remove(part, delivery);
    line->ready_count--;
    if (line->round != NULL)
        line->round->due--;
    if (part->first == NULL && part->root == NULL)
        part_free(qmgr, part);
}

struct qmgr_delivery *qmgr_fair_next(struct qmgr_line *line)
{
    struct qmgr_part *part = TAILQ_FIRST(&line->parts);

    if (part == NULL)
        return NULL;
    TAILQ_REMOVE(&line->parts, part, line_link);
    TAILQ_INSERT_TAIL(&line->parts, part, line_link);
    return part_oldest(part);
}

/* ---- rounds ---- */

struct qmgr_round *qmgr_round_new(const struct qmgr *qmgr)
{
    struct qmgr_round *round = calloc(1, sizeof(*round));

    CHECK(round != NULL);
    round->qmgr = qmgr;
    for (uint32_t i = 0; i < QMGR_ROUND_CLASS_COUNT; i++)
        TAILQ_INIT(&round->classes[i]);
    return round;
}

void qmgr_round_free(struct qmgr_round *round)
{
    free(round);
}

void qmgr_round_join(struct qmgr *qmgr, struct qmgr_round *round, struct qmgr_line *line,
                     struct tick_now now)
{
    struct qmgr_part *part;

    CHECK(line->state == QMGR_LINE_PARKED && line->round == NULL);
    line->round = round;
    round->due += line->ready_count;
    TAILQ_FOREACH(part, &line->parts, line_link)
    share_join(qmgr, part, now.wall);
}

void qmgr_round_leave(struct qmgr *qmgr, struct qmgr_line *line)
{
    struct qmgr_part *part;

    CHECK(line->round != NULL);
    TAILQ_FOREACH(part, &line->parts, line_link)
    share_leave(qmgr, part);
    line->round->due -= line->ready_count;
    line->round = NULL;
}

/* The lowest class, or the first behind it that has earned a turn. */
static uint32_t round_class_next(const struct qmgr_round *round)
{
    for (uint32_t left = round->occupied & (round->occupied - 1); left != 0; left &= left - 1) {
        if (round->earned[__builtin_ctz(left)] >= WHOLE_TURN)
            return (uint32_t)__builtin_ctz(left);
    }
    return (uint32_t)__builtin_ctz(round->occupied);
}

static void round_earn(struct qmgr_round *round, uint32_t served)
{
    const struct qmgr_classes *classes = round->qmgr->classes;

    if (round->earned[served] >= WHOLE_TURN)
        round->earned[served] = (uint8_t)(round->earned[served] - WHOLE_TURN);
    for (uint32_t left = round->occupied & (round->occupied - 1); left != 0 && classes != NULL;
         left &= left - 1) {
        uint32_t class = (uint32_t)__builtin_ctz(left);
        if (round->earned[class] < WHOLE_TURN)
            round->earned[class] = (uint8_t)(round->earned[class] + classes->least[class]);
    }
}

static struct qmgr_share *round_share(const struct qmgr_round *round)
{
    if (round->occupied == 0)
        return NULL;
    return TAILQ_FIRST(&round->classes[round_class_next(round)]);
}

struct qmgr_line *qmgr_round_next(const struct qmgr_round *round)
{
    const struct qmgr_share *share = round_share(round);

    return share == NULL ? NULL : TAILQ_FIRST(&share->parts)->line;
}

struct qmgr_delivery *qmgr_round_take(struct qmgr *qmgr, struct qmgr_round *round,
                                      struct tick_now now, int64_t *ret_rank)
{
    struct qmgr_share *share = round_share(round);

    if (share == NULL)
        return NULL;
    struct qmgr_part *part = TAILQ_FIRST(&share->parts);
    struct qmgr_delivery *delivery = part_oldest(part);
    /* A turn that was earned competes with those of the lowest class. */
    *ret_rank = qmgr_rank((uint8_t)__builtin_ctz(round->occupied), share->since);
    round_earn(round, (uint32_t)(share->class - round->classes));
    TAILQ_REMOVE(&share->parts, part, share_link);
    TAILQ_INSERT_TAIL(&share->parts, part, share_link);
    TAILQ_REMOVE(share->class, share, link);
    TAILQ_INSERT_TAIL(share->class, share, link);
    share->since = now.wall;
    qmgr_delivery_activate(qmgr, delivery);
    return delivery;
}

bool qmgr_rank_is_earlier(int64_t rank, int64_t other)
{
    return rank >> RANK_CLASS_SHIFT < other >> RANK_CLASS_SHIFT;
}

uint32_t qmgr_rank_least(const struct qmgr *qmgr, int64_t rank)
{
    uint64_t class = (uint64_t)rank >> RANK_CLASS_SHIFT;

    return qmgr->classes != NULL && class < QMGR_ROUND_CLASS_COUNT ? qmgr->classes->least[class]
                                                                   : 0;
}

bool qmgr_round_overtakes(const struct qmgr_round *round, int64_t rank)
{
    return round->occupied != 0 &&
           qmgr_rank_is_earlier(qmgr_rank((uint8_t)__builtin_ctz(round->occupied), 0), rank);
}

uint32_t qmgr_round_due(const struct qmgr_round *round)
{
    return round->due;
}

int64_t qmgr_rank(uint8_t class, wall_us since)
{
    return (int64_t) class << RANK_CLASS_SHIFT | (since & ((1ll << RANK_CLASS_SHIFT) - 1));
}

/* ---- names ---- */

void qmgr_set_classes(struct qmgr *qmgr, const struct qmgr_classes *classes)
{
    CHECK(classes == NULL || classes->count <= QMGR_ROUND_CLASS_COUNT);
    qmgr->classes = classes;
}

const struct qmgr_classes *qmgr_get_classes(const struct qmgr *qmgr)
{
    return qmgr->classes;
}

const char *qmgr_class_name(const struct qmgr *qmgr, uint8_t class,
                            char ret_text[QMGR_CLASS_NAME_SIZE])
{
    if (qmgr->classes != NULL && class < qmgr->classes->count)
        (void)snprintf(ret_text, QMGR_CLASS_NAME_SIZE, "%s", qmgr->classes->names[class]);
    else
        (void)snprintf(ret_text, QMGR_CLASS_NAME_SIZE, "%u", class);
    return ret_text;
}

uint16_t qmgr_class_find(const struct qmgr *qmgr, struct span name)
{
    for (uint16_t i = 0; qmgr->classes != NULL && i < qmgr->classes->count; i++) {
        if (span_is_equal_nocase(span_from_text(qmgr->classes->names[i]), name))
            return i;
    }
    return QMGR_CLASS_COUNT;
}

/* ---- invariants ---- */

bool qmgr_fair_holds(const struct qmgr_delivery *delivery)
{
    const struct qmgr_part *part = part_of(slab_owner(delivery), delivery);
    const struct qmgr_delivery *up = delivery->ready.up;

    if (part == NULL)
        return false;
    if (delivery->rank > 0)
        return up == NULL ? part->root == delivery
                          : up->ready.left == delivery || up->ready.right == delivery;
    const struct qmgr_delivery *left = delivery->ready.left;
    return left == NULL ? part->first == delivery : left->ready.right == delivery;
}

void qmgr_fair_verify(const struct qmgr_delivery *delivery)
{
    const struct qmgr_delivery *left = delivery->ready.left, *right = delivery->ready.right;

    CHECK(qmgr_fair_holds(delivery));
    if (delivery->rank == 0) {
        CHECK(right == NULL || arrived_of(right) >= arrived_of(delivery));
        CHECK(right == NULL || right->ready.left == delivery);
        return;
    }
    CHECK(rank_of(left) >= rank_of(right) && delivery->rank == rank_of(right) + 1);
    CHECK(left == NULL || arrived_of(left) >= arrived_of(delivery));
    CHECK(right == NULL || arrived_of(right) >= arrived_of(delivery));
}

void qmgr_fair_verify_line(const struct qmgr_line *line)
{
    const struct qmgr_part *part;
    uint32_t count = 0;

    TAILQ_FOREACH(part, &line->parts, line_link)
    {
        CHECK(part->line == line && part_oldest(part) != NULL);
        CHECK((part->share != NULL) == (line->round != NULL));
        CHECK(part->share == NULL || part->share->sender == part->sender);
        count++;
    }
    CHECK(count == line->part_count && count <= QMGR_FAIR_PARTS_MAX + 1);
    CHECK((count == 0) == (line->ready_count == 0));
    CHECK(line->round == NULL || line->state == QMGR_LINE_PARKED);
}
