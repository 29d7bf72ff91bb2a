/* SPDX-License-Identifier: Apache-2.0 */
/* The largest groups of a queue, in order, are those that sorting all of them would give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/rng.h"
#include "control/admin_summary.h"

#define GROUPS_MAX 300u

static struct qmgr_group groups[GROUPS_MAX];

/* Totals that are often the same, and names that begin alike. */
static struct admin_summary *summary_of(uint32_t count, struct rng *rng)
{
    static const struct keyed_hash hash = {{1, 2}};
    struct admin_summary *summary = admin_summary_new(&hash);
    struct shard_query query = {.groups = groups, .row_count = count};

    memset(groups, 0, sizeof(groups));
    for (uint32_t i = 0; i < count; i++) {
        snprintf(groups[i].name, sizeof(groups[i].name), "%s%u.example",
                 i % 3 == 0 ? "longer-than-eight-" : "", rng_u32(rng) % (2 * GROUPS_MAX));
        groups[i].ages[rng_u32(rng) % QMGR_AGE_BUCKET_COUNT] = rng_u32(rng) % 4; /* or none */
    }
    admin_summary_add(summary, &query);
    admin_summary_add(summary, &query); /* as of another shard */
    return summary;
}

static int row_compare(const void *a, const void *b)
{
    const struct admin_summary_row *left = a, *right = b;

    if (left->total != right->total)
        return left->total > right->total ? -1 : 1;
    return strcmp(left->name, right->name);
}

/* What the groups add up to, the plain way. */
static uint32_t sort_all(struct admin_summary_row rows[GROUPS_MAX], uint32_t count)
{
    uint32_t used = 0;

    for (uint32_t i = 0; i < count; i++) {
        struct admin_summary_row *row = rows;
        uint64_t total = 0;
        for (uint32_t k = 0; k < QMGR_AGE_BUCKET_COUNT; k++)
            total += 2 * groups[i].ages[k];
        while (row < rows + used && strcmp(row->name, groups[i].name) != 0)
            row++;
        if (row == rows + used && total > 0)
            rows[used++] = (struct admin_summary_row){.name = groups[i].name};
        if (total > 0)
            row->total += total;
    }
    qsort(rows, used, sizeof(*rows), row_compare);
    return used;
}

static void test_largest(void **state)
{
    struct admin_summary_row expected[GROUPS_MAX], largest[GROUPS_MAX + 1];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 7);
    for (uint32_t count = 0; count <= GROUPS_MAX; count += count < 20 ? 1 : 40) {
        struct admin_summary *summary = summary_of(count, &rng);
        struct admin_summary_sums sums = admin_summary_sum(summary);
        uint32_t used = sort_all(expected, count);
        assert_int_equal(used, sums.group_count);
        for (uint32_t max = 0; max <= used + 1; max++) {
            uint32_t got = admin_summary_largest(summary, max, largest);
            assert_int_equal(max < used ? max : used, got);
            for (uint32_t i = 0; i < got; i++) {
                assert_string_equal(expected[i].name, largest[i].name);
                assert_int_equal(expected[i].total, largest[i].total);
            }
        }
        admin_summary_free(summary);
    }
}

/* Goal: a name of any octets is one group, shown as the log would show it. */
static void test_names(void **state)
{
    static const char *const names[][2] = {
        {"", ""},
        {"a.example", "a.example"},
        {"12345678", "12345678"},
        {"a\x7f", "a\\x7f"},
        {"a\n\"b\\", "a\\x0a\\\"b\\\\"},
        {"\xff", "\\xff"},
    };
    static const struct keyed_hash hash = {{1, 2}};
    struct admin_summary *summary = admin_summary_new(&hash);
    struct shard_query query = {.groups = groups, .row_count = COUNT_OF(names)};
    struct admin_summary_row rows[COUNT_OF(names)];

    (void)state;
    memset(groups, 0, sizeof(groups));
    for (uint32_t i = 0; i < COUNT_OF(names); i++) {
        snprintf(groups[i].name, sizeof(groups[i].name), "%s", names[i][0]);
        groups[i].ages[0] = COUNT_OF(names) - i; /* in this order */
    }
    admin_summary_add(summary, &query);
    (void)admin_summary_sum(summary);
    assert_int_equal(COUNT_OF(names), admin_summary_largest(summary, COUNT_OF(names), rows));
    for (uint32_t i = 0; i < COUNT_OF(names); i++)
        assert_string_equal(names[i][1], rows[i].name);
    admin_summary_free(summary);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_largest),
        cmocka_unit_test(test_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
