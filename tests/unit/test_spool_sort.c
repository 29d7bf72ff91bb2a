/* SPDX-License-Identifier: Apache-2.0 */
/* queue/spool_sort: any order of rows becomes the one order; nothing is lost on the way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/spool_recovery.h"

#define ROWS 1000u

/* Two rows in order: no later one may stand before. */
static bool is_in_order(const struct recovery_row *x, const struct recovery_row *y)
{
    uint64_t a[] = {x->id.high, x->id.low, x->epoch, x->sequence, x->copy, x->segment};
    uint64_t b[] = {y->id.high, y->id.low, y->epoch, y->sequence, y->copy, y->segment};

    for (uint32_t i = 0; i < COUNT_OF(a); i++) {
        if (a[i] != b[i])
            return a[i] < b[i];
    }
    return true;
}

static void test_rows_come_in_order(void **state)
{
    static const struct {
        const char *name;
        uint32_t count;
        uint32_t values; /* of each field */
        uint32_t run;    /* rows that ascend by id already */
    } cases[] = {
        {"none", 0, 1, 1},
        {"one", 1, 1, 1},
        {"two", 2, 2, 1},
        {"three", 3, 2, 1},
        {"all the same", 100, 1, 1},
        {"few values", ROWS, 2, 1},
        {"many values", ROWS, 1000000, 1},
        {"one run", ROWS, 1000000, ROWS},
        {"runs of fifty", ROWS, 1000000, 50},
        {"runs, and a rest", 999, 1000000, 64},
    };
    static struct recovery_row rows[ROWS];
    struct recovery_row *order[ROWS];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 5);
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t values = cases[i].values, seen = 0;
        print_message("# %s\n", cases[i].name);
        for (uint32_t j = 0; j < cases[i].count; j++) {
            uint64_t high = cases[i].run > 1 ? j % cases[i].run : rng_below(&rng, values);
            rows[j] = (struct recovery_row){
                .id = {high, rng_below(&rng, values)},
                .epoch = rng_below(&rng, values),
                .sequence = rng_below(&rng, values),
                .copy = rng_below(&rng, values),
                .segment = (uint16_t)rng_below(&rng, 3),
            };
            order[j] = &rows[j];
        }
        spool_recovery_sort(order, cases[i].count);
        for (uint32_t j = 0; j < cases[i].count; j++) {
            assert_true(j == 0 || is_in_order(order[j - 1], order[j]));
            seen += order[j]->type++ == 0;
        }
        assert_int_equal(cases[i].count, seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_rows_come_in_order)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
