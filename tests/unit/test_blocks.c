/* SPDX-License-Identifier: Apache-2.0 */
/* queue/blocks: aligned, nobody's twice, from any thread, and cut from memory that was given. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "queue/blocks.h"
#include "queue/pages.h"

#define BLOCKS  70u /* more than two regions */
#define THREADS 4u
#define ROUNDS  20u

/* Each block is full of the address of its place: nobody else writes there. */
static void blocks_hold(void *blocks[BLOCKS])
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        blocks[i] = block_new();
        assert_non_null(blocks[i]);
        assert_int_equal(0, (uintptr_t)blocks[i] % BLOCK_SIZE);
        for (uint32_t at = 0; at < BLOCK_SIZE; at += BLOCK_SIZE / 16)
            memcpy((uint8_t *)blocks[i] + at, &(void **){&blocks[i]}, sizeof(void *));
    }
}

static void blocks_let_go(void *blocks[BLOCKS])
{
    for (uint32_t i = 0; i < BLOCKS; i++) {
        for (uint32_t at = 0; at < BLOCK_SIZE; at += BLOCK_SIZE / 16) {
            void *place;
            memcpy(&place, (uint8_t *)blocks[i] + at, sizeof(place));
            assert_ptr_equal(&blocks[i], place);
        }
        block_free(blocks[i]);
    }
}

static void *blocks_use(void *argument)
{
    void *blocks[BLOCKS];

    for (uint32_t i = 0; i < ROUNDS; i++) {
        blocks_hold(blocks);
        blocks_let_go(blocks);
        if (i % 8 == 0)
            blocks_trim();
    }
    return argument;
}

static void test_a_block_is_one_owners(void **state)
{
    pthread_t threads[THREADS];

    (void)state;
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, blocks_use, NULL));
    for (uint32_t i = 0; i < THREADS; i++)
        assert_int_equal(0, pthread_join(threads[i], NULL));
}

#ifndef __SANITIZE_ADDRESS__

static uint64_t mapped_pages(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    assert_non_null(file);
    assert_int_equal(1, fscanf(file, "%lu", &pages));
    (void)fclose(file);
    return pages;
}

#endif

/* What was given is used first, as far as there are whole blocks in it, and goes back in the end.
 */
static void test_given_memory_is_used(void **state)
{
#ifndef __SANITIZE_ADDRESS__
    static const struct {
        const char *name;
        size_t size, min, max;
    } rows[] = {
        {"nothing", 0, 0, 0},
        {"less than a block", BLOCK_SIZE - 2, 0, 0},
        {"two blocks, wherever they begin", (size_t)2 * BLOCK_SIZE, 1, 2},
        {"aligned to a huge page", (size_t)64 * BLOCK_SIZE - 1, 64, 64},
        {"and an octet", (size_t)64 * BLOCK_SIZE, 64, 64},
        {"but for an octet", (size_t)64 * BLOCK_SIZE - 2, 63, 63},
    };
    void *blocks[BLOCKS];

    (void)state;
    blocks_trim();
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint64_t before = mapped_pages();
        uint8_t *pages = spool_pages_new(rows[i].size);
        uint32_t inside = 0;

        print_message("# %s\n", rows[i].name);
        memset(pages, 0xff, rows[i].size);
        blocks_give(pages, rows[i].size);
        uint64_t given = mapped_pages();
        for (uint32_t j = 0; j < rows[i].max; j++) {
            blocks[j] = block_new();
            inside += (uintptr_t)blocks[j] - (uintptr_t)pages < rows[i].size;
        }
        assert_in_range(inside, rows[i].min, rows[i].max);
        assert_true(given >= before + inside * (BLOCK_SIZE / 4096));
        for (uint32_t j = 0; j < rows[i].max; j++)
            block_free(blocks[j]);
        blocks_trim();
        assert_true(mapped_pages() <= before + 512); /* but for a region that is being cut */
    }
#else
    (void)state;
    blocks_give(spool_pages_new(BLOCK_SIZE), BLOCK_SIZE);
#endif
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_block_is_one_owners),
        cmocka_unit_test(test_given_memory_is_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
