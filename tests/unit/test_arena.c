/* SPDX-License-Identifier: Apache-2.0 */
/* The arena: alignment, the bound on both sides, and what a reset keeps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "base/arena.h"

static void test_memory_is_aligned_and_apart(void **state)
{
    struct arena arena;
    uint8_t *places[200];

    (void)state;
    arena_init(&arena, 256, 1u << 20);
    for (uint32_t i = 0; i < COUNT_OF(places); i++) {
        uint32_t size = i * 7 % 600;

        places[i] = arena_acquire(&arena, size);
        assert_non_null(places[i]);
        assert_int_equal(0, (uintptr_t)places[i] % 16);
        memset(places[i], (int)i, size);
    }
    for (uint32_t i = 0; i < COUNT_OF(places); i++) {
        for (uint32_t at = 0; at < i * 7 % 600; at++)
            assert_int_equal((uint8_t)i, places[i][at]);
    }
    arena_fini(&arena);
}

static void test_bound(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 1024, 4096);
    assert_non_null(arena_acquire(&arena, 4096));
    assert_null(arena_acquire(&arena, 1));
    arena_fini(&arena);

    assert_null(arena_acquire(&arena, 4097));
    assert_null(arena_acquire(&arena, UINT64_MAX));
    assert_int_equal(0, arena.size);
    for (uint32_t i = 0; i < 4096 / 16; i++)
        assert_non_null(arena_acquire(&arena, 16));
    assert_null(arena_acquire(&arena, 1));
    assert_int_equal(4096, arena.size);
    arena_fini(&arena);

    /* Close to the bound, a block is only as large as it must be. */
    arena_init(&arena, 1024, 1040);
    assert_non_null(arena_acquire(&arena, 1024));
    assert_non_null(arena_acquire(&arena, 16));
    assert_null(arena_acquire(&arena, 1));
    arena_fini(&arena);
}

static void test_large_request_leaves_the_block_in_use(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 1024, 1u << 20);
    uint8_t *first = arena_acquire(&arena, 16);
    assert_non_null(arena_acquire(&arena, 5000));
    uint8_t *second = arena_acquire(&arena, 16);
    assert_ptr_equal(first + 16, second);
    arena_fini(&arena);
}

static void test_reset_keeps_one_ordinary_block(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 1024, 1u << 20);
    for (uint32_t i = 0; i < 10; i++)
        assert_non_null(arena_acquire(&arena, 900));
    assert_int_equal(10 * 1024, arena.size);
    arena_reset(&arena);
    assert_int_equal(1024, arena.size);
    void *block = arena.blocks;
    assert_non_null(arena_acquire(&arena, 1024));
    assert_ptr_equal(block, arena.blocks);

    /* A block of unusual size goes. */
    arena_fini(&arena);
    assert_non_null(arena_acquire(&arena, 100000));
    arena_reset(&arena);
    assert_int_equal(0, arena.size);
    arena_reset(&arena);
    arena_fini(&arena);
}

static void test_copy(void **state)
{
    struct arena arena;

    (void)state;
    arena_init(&arena, 64, 64);
    struct span copy = arena_copy(&arena, SPAN_LITERAL("postmaster"));
    assert_true(span_is_equal(copy, SPAN_LITERAL("postmaster")));
    assert_int_equal(0, arena_copy(&arena, SPAN_LITERAL("")).size);
    static const uint8_t large[65];
    assert_null(arena_copy(&arena, span_of(large, sizeof(large))).data);
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory_is_aligned_and_apart),
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_large_request_leaves_the_block_in_use),
        cmocka_unit_test(test_reset_keeps_one_ordinary_block),
        cmocka_unit_test(test_copy),
    };
    return cmocka_run_group_tests_name("arena", tests, NULL, NULL);
}
