/* SPDX-License-Identifier: Apache-2.0 */
/* Weighted choices of angarium-load: what may be written, and that draws follow the weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/load/dist.h"

static void lists_are_read(void **state)
{
    static const struct {
        const char *text;
        int count; /* 0: refused */
        bool is_weighted;
    } cases[] = {
        {"a.example", 1, false},
        {"a.example,b.example", 2, false},
        {"a.example,a.example,b.example", 3, false}, /* twice: twice as often */
        {"gmail.com:67.4,yahoo.com:20,x.example:12.6", 3, true},
        {" a.example : 1 , b.example : 2 ", 2, true},
        {"a:0.0001", 1, true},
        {"a:0.00001", 0, true},
        {"a:1000000", 1, true},
        {"a:1000000.0001", 0, true},
        {"a:1000001", 0, true},
        {"a:0", 0, true},
        {"a:0.0", 0, true},
        {"a:-1", 0, true},
        {"a:1.", 0, true},
        {"a:.5", 0, true},
        {"a:1e3", 0, true},
        {"a:", 0, true},
        {"a:1,b", 0, true},
        {"a,b:1", 0, true},
        {"", 0, false},
        {"a,", 0, false},
        {",a", 0, false},
        {"a b", 0, false},
        {"a>b", 0, false},
        {"a\rb", 0, false},
        {"[IPv6:fd00::1]", 1, false},
        {"[IPv6:fd00::1]:3,[192.0.2.1]:4", 2, true},
    };
    char why[DIST_WHY_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct dist dist;
        enum err err = dist_parse_list(span_from_text(cases[i].text), &dist, why);
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(cases[i].count == 0 ? ERR_CONFIG_VALUE : ERR_OK, err);
        assert_int_equal(cases[i].count, dist.count);
        if (err == ERR_OK)
            assert_int_equal(cases[i].is_weighted, dist.is_weighted);
        dist_fini(&dist);
    }
}

static void rows_are_read(void **state)
{
    static const struct {
        const char *text;
        int count;
    } cases[] = {
        {"1k 5\n10k 3\n", 2},
        {"# sizes\n\n  1k\t5  # small\r\n10k 3", 2},
        {"1k\n", 0},
        {"1k 5 6\n", 0},
        {"1k x\n", 0},
        {"# nothing\n", 0},
        {"", 0},
    };
    char why[DIST_WHY_SIZE];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct dist dist;
        print_message("# case %zu\n", i);
        enum err err = dist_parse_rows(span_from_text(cases[i].text), &dist, why);
        assert_int_equal(cases[i].count == 0 ? ERR_CONFIG_VALUE : ERR_OK, err);
        assert_int_equal(cases[i].count, dist.count);
        dist_fini(&dist);
    }
}

/* 1024 rows and 255 octets of a name are taken, one more of either is not. */
static void bounds_hold(void **state)
{
    char text[DIST_ROW_MAX * 4 + 8], name[DIST_NAME_SIZE + 1], why[DIST_WHY_SIZE];
    struct dist dist;

    (void)state;
    for (uint32_t i = 0; i <= DIST_ROW_MAX; i++)
        memcpy(text + (size_t)i * 2, "a,", 2);
    assert_int_equal(ERR_OK, dist_parse_list(span_of(text, DIST_ROW_MAX * 2 - 1), &dist, why));
    dist_fini(&dist);
    assert_int_equal(ERR_CONFIG_VALUE,
                     dist_parse_list(span_of(text, DIST_ROW_MAX * 2 + 1), &dist, why));
    memset(name, 'a', sizeof(name));
    assert_int_equal(ERR_OK, dist_parse_list(span_of(name, DIST_NAME_SIZE - 1), &dist, why));
    dist_fini(&dist);
    assert_int_equal(ERR_CONFIG_VALUE, dist_parse_list(span_of(name, DIST_NAME_SIZE), &dist, why));
}

static void draws_follow_the_weights(void **state)
{
    char why[DIST_WHY_SIZE];
    uint32_t counts[3] = {0};
    struct dist dist;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 3);
    assert_int_equal(ERR_OK, dist_parse_list(SPAN_LITERAL("a:67.4,b:0.6,c:32"), &dist, why));
    for (uint32_t i = 0; i < 100000; i++)
        counts[dist_pick(&dist, &rng)]++;
    assert_in_range(counts[0], 66900, 67900);
    assert_in_range(counts[1], 500, 700);
    dist_fini(&dist);
    assert_int_equal(ERR_OK, dist_parse_list(SPAN_LITERAL("a,b,c"), &dist, why));
    for (uint32_t i = 0; i < 7; i++)
        assert_int_equal(i % 3, dist_pick(&dist, &rng));
    dist_fini(&dist);
}

static void sizes_are_read(void **state)
{
    static const struct {
        const char *text;
        uint32_t size;
        enum err err;
    } cases[] = {
        {"0", 0, ERR_OK},
        {"10240", 10240, ERR_OK},
        {"10k", 10240, ERR_OK},
        {"2M", 2097152, ERR_OK},
        {"4294967295", UINT32_MAX, ERR_OK},
        {"4294967296", 0, ERR_PEER_SYNTAX},
        {"4095m", 4293918720u, ERR_OK},
        {"4096m", 0, ERR_PEER_SYNTAX},
        {"k", 0, ERR_PEER_SYNTAX},
        {"", 0, ERR_PEER_SYNTAX},
        {"1.5k", 0, ERR_PEER_SYNTAX},
        {"1g", 0, ERR_PEER_SYNTAX},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        uint32_t size = 0;
        print_message("# case: %s\n", cases[i].text);
        assert_int_equal(cases[i].err, dist_size_parse(span_from_text(cases[i].text), &size));
        assert_int_equal(cases[i].size, size);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lists_are_read), cmocka_unit_test(rows_are_read),
        cmocka_unit_test(bounds_hold),    cmocka_unit_test(draws_follow_the_weights),
        cmocka_unit_test(sizes_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
