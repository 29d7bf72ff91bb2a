/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A walk over a slab meets every object that lives, once, in any mixture of the living and the
 * free; a slab that was large and is nearly empty is walked quickly. References find their objects.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/slab.h"

#define OBJECT_SIZE 4096u /* few in a block: many blocks */
#define COUNT       20000u

struct object {
    uint32_t number;
    bool was_seen;
};

static uint32_t walk(const struct slab *slab)
{
    uint64_t cursor = 0;
    uint32_t seen = 0;

    for (struct object *object = slab_next(slab, &cursor); object != NULL;
         object = slab_next(slab, &cursor)) {
        assert_false(object->was_seen);
        object->was_seen = true;
        seen++;
    }
    assert_null(slab_next(slab, &cursor));
    cursor = 0;
    for (struct object *object = slab_next(slab, &cursor); object != NULL;
         object = slab_next(slab, &cursor))
        object->was_seen = false;
    return seen;
}

static void test_walk_meets_what_lives(void **state)
{
    static const uint32_t shares[] = {0, 1, 50, 99, 100}; /* per cent that stays */
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 3);
    for (uint32_t i = 0; i < COUNT_OF(shares); i++) {
        struct slab slab;
        struct object *objects[1500];
        uint32_t left = 0;
        slab_init(&slab, OBJECT_SIZE, UINT32_MAX, NULL);
        assert_int_equal(0, walk(&slab));
        for (uint32_t j = 0; j < COUNT_OF(objects); j++) {
            objects[j] = slab_acquire(&slab);
            assert_non_null(objects[j]);
        }
        for (uint32_t j = 0; j < COUNT_OF(objects); j++) {
            if (rng_below(&rng, 100) < shares[i])
                left++;
            else
                slab_release(&slab, objects[j]);
        }
        assert_int_equal(left, slab.in_use);
        assert_int_equal(left, walk(&slab));
        assert_non_null(slab_acquire(&slab));
        assert_int_equal(left + 1, walk(&slab));
        slab_fini(&slab);
    }
}

static double cpu_seconds(void)
{
    struct timespec time;
    assert_int_equal(0, clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time));
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

/* A step over what is free costs next to nothing: a thousand steps of an all but empty slab. */
static void test_free_objects_cost_nothing(void **state)
{
    static void *objects[COUNT];
    struct slab slab;

    (void)state;
    slab_init(&slab, 64, UINT32_MAX, NULL);
    for (uint32_t i = 0; i < COUNT; i++)
        objects[i] = slab_acquire(&slab);
    for (uint32_t i = 0; i + 1 < COUNT; i++)
        slab_release(&slab, objects[i]);
    double start = cpu_seconds();
    for (uint32_t i = 0; i < 10000; i++) {
        uint64_t cursor = 0;
        assert_ptr_equal(objects[COUNT - 1], slab_next(&slab, &cursor));
    }
    /* One by one these would be two hundred million looks. */
    assert_true(cpu_seconds() - start < 0.2);
    slab_fini(&slab);
}

/* Objects and their references, over several blocks. */
static void test_references_find_their_objects(void **state)
{
    static void *objects[COUNT];
    struct slab slab;

    (void)state;
    slab_init(&slab, 40, COUNT, NULL);
    assert_int_equal(0, slab_ref(NULL));
    assert_null(slab_at(&slab, 0));
    for (uint32_t i = 0; i < COUNT; i++) {
        objects[i] = slab_acquire(&slab);
        assert_non_null(objects[i]);
    }
    assert_true(slab.block_count > 2);
    for (uint32_t i = 0; i < COUNT; i++) {
        uint32_t ref = slab_ref(objects[i]);
        assert_int_not_equal(0, ref);
        assert_ptr_equal(objects[i], slab_at(&slab, ref));
        assert_ptr_equal(objects[i], slab_peer(objects[COUNT - 1 - i], ref));
    }
    assert_null(slab_peer(objects[0], 0));
    slab_fini(&slab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walk_meets_what_lives),
        cmocka_unit_test(test_free_objects_cost_nothing),
        cmocka_unit_test(test_references_find_their_objects),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
