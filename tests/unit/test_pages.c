/* SPDX-License-Identifier: Apache-2.0 */
/* base/pages: zeroed, aligned, writable to the last octet, and given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "base/pages.h"
#include "base/span.h"

static void test_alignment_and_content(void **state)
{
    static const struct {
        const char *name;
        size_t size, alignment;
    } rows[] = {
        {"one octet", 1, PAGES_ALIGNMENT},
        {"a page", PAGES_ALIGNMENT, PAGES_ALIGNMENT},
        {"a page and an octet", PAGES_ALIGNMENT + 1, PAGES_ALIGNMENT},
        {"less than a huge page", PAGES_HUGE_SIZE - PAGES_ALIGNMENT, PAGES_ALIGNMENT},
        {"rounded up to a huge page", PAGES_HUGE_SIZE - 1, PAGES_HUGE_SIZE},
        {"a huge page", PAGES_HUGE_SIZE, PAGES_HUGE_SIZE},
        {"more than a huge page", PAGES_HUGE_SIZE + 1, PAGES_HUGE_SIZE},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        uint8_t *pages = pages_new(rows[i].size);
        assert_non_null(pages);
        assert_int_equal(0, (uintptr_t)pages % rows[i].alignment);
        for (size_t at = 0; at < rows[i].size; at++)
            assert_int_equal(0, pages[at]);
        memset(pages, 0xa5, rows[i].size);
        pages_free(pages, rows[i].size);
    }
    pages_free(NULL, 1);
}

/* Octets of address space in use. */
static uint64_t mapped_size(void)
{
    FILE *file = fopen("/proc/self/statm", "re");
    unsigned long pages = 0;

    assert_non_null(file);
    assert_int_equal(1, fscanf(file, "%lu", &pages));
    fclose(file);
    return pages * (uint64_t)PAGES_ALIGNMENT;
}

static void test_all_is_given_back(void **state)
{
    uint64_t before = mapped_size();
    (void)state;

    for (int i = 0; i < 100; i++) {
        uint8_t *pages = pages_new(PAGES_HUGE_SIZE + 5000);
        assert_non_null(pages);
        pages[PAGES_HUGE_SIZE + 4999] = 1;
        pages_free(pages, PAGES_HUGE_SIZE + 5000);
    }
    assert_true(mapped_size() < before + PAGES_HUGE_SIZE);
}

static void test_too_much_is_an_error(void **state)
{
    (void)state;

    assert_null(pages_new((size_t)1 << 60));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alignment_and_content),
        cmocka_unit_test(test_all_is_given_back),
        cmocka_unit_test(test_too_much_is_an_error),
    };
    return cmocka_run_group_tests_name("pages", tests, NULL, NULL);
}
