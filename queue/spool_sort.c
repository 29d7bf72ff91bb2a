/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rows of a bucket in the order in which the merge looks at them: by id, epoch, sequence, copy,
 * segment.
 *
 * Rows of a segment stand much as they are wanted: those of new messages by their ids, which begin
 * with the time, and among them those of attempts, again by id. So there are few ascending runs,
 * which are merged by twos until one is left: O(rows * log2(runs)). What is compared nearly always
 * is the upper half of an id, which is kept beside the address, so that rows stay out of it.
 */
#include <stdlib.h>

#include "queue/spool_recovery.h"

struct sort_key {
    uint64_t high; /* of the row's id */
    struct recovery_row *row;
};

struct sort {
    struct sort_key *from, *to;
    uint32_t *ends; /* of the runs in `from` */
    uint32_t run_count;
};

int spool_recovery_compare_keys(const struct recovery_row *x, const struct recovery_row *y)
{
    if (x->epoch != y->epoch)
        return x->epoch < y->epoch ? -1 : 1;
    if (x->sequence != y->sequence)
        return x->sequence < y->sequence ? -1 : 1;
    return 0;
}

static int row_compare(const struct recovery_row *x, const struct recovery_row *y)
{
    int id = spool_recovery_compare_ids(x->id, y->id);
    if (id != 0)
        return id;
    int key = spool_recovery_compare_keys(x, y);
    if (key != 0)
        return key;
    if (x->copy != y->copy)
        return x->copy < y->copy ? -1 : 1;
    return x->segment < y->segment ? -1 : x->segment > y->segment;
}

static inline bool is_after(const struct sort_key *x, const struct sort_key *y)
{
    return x->high != y->high ? x->high > y->high : row_compare(x->row, y->row) > 0;
}

static void runs_find(struct sort *sort, struct recovery_row *const *rows, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        sort->from[i] = (struct sort_key){rows[i]->id.high, rows[i]};
        if (i > 0 && is_after(&sort->from[i - 1], &sort->from[i]))
            sort->ends[sort->run_count++] = i;
    }
    sort->ends[sort->run_count++] = count;
}

/* Of equal ones the first run's come first. */
static void runs_merge(const struct sort_key *from, uint32_t start, uint32_t middle, uint32_t end,
                       struct sort_key *to)
{
    uint32_t left = start, right = middle;

    for (uint32_t i = start; i < end; i++) {
        bool is_right = left == middle || (right < end && is_after(&from[left], &from[right]));
        to[i] = from[is_right ? right++ : left++];
    }
}

/* Each two runs become one. */
static void runs_halve(struct sort *sort)
{
    uint32_t start = 0, kept = 0;

    for (uint32_t i = 0; i < sort->run_count; i += 2) {
        bool is_last = i + 1 == sort->run_count;
        uint32_t middle = sort->ends[i], end = is_last ? middle : sort->ends[i + 1];
        runs_merge(sort->from, start, middle, end, sort->to);
        sort->ends[kept++] = end;
        start = end;
    }
    sort->run_count = kept;
    struct sort_key *from = sort->from;
    sort->from = sort->to;
    sort->to = from;
}

void spool_recovery_sort(struct recovery_row **rows, uint32_t count)
{
    if (count == 0)
        return;
    struct sort sort = {
        .from = malloc(count * sizeof(*sort.from)),
        .to = malloc(count * sizeof(*sort.to)),
        .ends = malloc(count * sizeof(*sort.ends)),
    };
    CHECK(sort.from != NULL && sort.to != NULL && sort.ends != NULL);
    runs_find(&sort, rows, count);
    while (sort.run_count > 1)
        runs_halve(&sort);
    for (uint32_t i = 0; i < count; i++)
        rows[i] = sort.from[i].row;
    free(sort.from);
    free(sort.to);
    free(sort.ends);
}
