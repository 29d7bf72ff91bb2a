/* SPDX-License-Identifier: Apache-2.0 */
/* Memory is scarce: each message that the transfer has gives up what it keeps, a slice of them in
 * each call, whatever becomes of them in between. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "relay/transfer_internal.h"

#define SLICE TRANSFER_RELIEF_SLICE
#define COUNT (3 * SLICE)

static struct transfer *transfer;
static struct transfer_intake intakes[COUNT];

/* intakes[0] is the last of the list. */
static int set_up(void **state)
{
    (void)state;
    transfer = calloc(1, sizeof(*transfer));
    assert_non_null(transfer);
    for (uint32_t i = 0; i < COUNT; i++) {
        intakes[i] = (struct transfer_intake){.state = TRANSFER_INTAKE_RECEIVING, .is_kept = true};
        buf_queue_init(&intakes[i].body);
        LIST_INSERT_HEAD(&transfer->intakes_by_state[TRANSFER_INTAKE_RECEIVING], &intakes[i], link);
    }
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    free(transfer);
    return 0;
}

static uint32_t kept_count(void)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < COUNT; i++)
        count += intakes[i].is_kept;
    return count;
}

/* Goal: a slice in each call, and all of them in the end. */
static void test_slices(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 3; i++) {
        assert_false(transfer_relieve(transfer));
        assert_int_equal(COUNT - i * SLICE, kept_count());
    }
}

/* Goal: one that leaves the list between two calls, be it the next, ends no round early. */
static void test_leaving(void **state)
{
    (void)state;
    assert_false(transfer_relieve(transfer));
    transfer_intake_enter(transfer, &intakes[COUNT - SLICE - 1], TRANSFER_INTAKE_UNSTORED);
    transfer_intake_enter(transfer, &intakes[COUNT - 1], TRANSFER_INTAKE_UNSTORED);
    transfer_intake_enter(transfer, &intakes[0], TRANSFER_INTAKE_UNSTORED);
    assert_false(transfer_relieve(transfer));
    assert_int_equal(SLICE, kept_count());
    assert_true(intakes[COUNT - SLICE - 1].is_kept && intakes[0].is_kept);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_slices, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_leaving, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
