/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who has which part of a disk: what spools may take of one that they share, which segments of an
 * earlier run each of them gets, and what mail and notifications leave of what is theirs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/spool_recovery.h"

#define SHARES_MAX   4u
#define SEGMENTS_MAX 8u
#define SEGMENT      (128u << 10)

/* Goal: no spool counts on what another one may take, and nothing is left over. */
static void test_level(void **state)
{
    static const struct {
        const char *name;
        uint32_t count;
        uint64_t octets[SHARES_MAX], octets_free, level; /* octets[0]: ours */
    } rows[] = {
        {"alone", 1, {300}, 700, 1000},
        {"all is new", 2, {0, 0}, 800, 400},
        {"one has taken its part", 2, {0, 400}, 400, 400},
        {"both have", 2, {400, 400}, 0, 400},
        {"one has more than its part", 2, {100, 600}, 100, 200},
        {"the one that has more", 2, {600, 100}, 100, 200},
        {"as much as the others will have", 3, {100, 200, 300}, 300, 300},
        {"a little less", 3, {100, 200, 300}, 298, 299},
        {"more", 3, {100, 200, 300}, 303, 301},
        {"nothing is free", 3, {100, 200, 300}, 0, 100},
        {"two levels", 4, {10, 1000, 20, 500}, 30, 30},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct spool *spool = calloc(1, sizeof(*spool));
        struct spool_shares shares = {.count = rows[i].count};
        print_message("# %s\n", rows[i].name);
        assert_non_null(spool);
        for (uint32_t j = 1; j < rows[i].count; j++)
            shares.octets[j] = rows[i].octets[j];
        spool->options.shares = &shares;
        assert_int_equal(rows[i].level,
                         spool_share_max(spool, rows[i].octets[0], rows[i].octets_free));
        assert_int_equal(rows[i].octets[0], shares.octets[0]);
        free(spool);
    }
}

/* Goal: whatever one takes of its own, the others keep theirs. */
static void test_level_stays(void **state)
{
    struct spool_shares shares = {.count = 3};
    struct spool *spool = calloc(1, sizeof(*spool));
    uint64_t octets[3] = {50, 0, 400}, octets_free = 550;

    (void)state;
    assert_non_null(spool);
    spool->options.shares = &shares;
    for (uint32_t i = 0; i < 3; i++)
        shares.octets[i] = octets[i];
    for (uint32_t i = 0; i < 600; i++) {
        spool->options.shard = i % 2;
        uint64_t level = spool_share_max(spool, octets[i % 2], octets_free);
        assert_int_equal(300, level);
        if (octets[i % 2] == level)
            continue;
        shares.octets[i % 2] = ++octets[i % 2];
        octets_free--;
    }
    assert_int_equal(0, octets_free);
    assert_int_equal(300, octets[0]);
    assert_int_equal(300, octets[1]);
    free(spool);
}

static void test_alone(void **state)
{
    struct spool *spool = calloc(1, sizeof(*spool));

    (void)state;
    assert_non_null(spool);
    assert_true(spool_share_max(spool, 1, 1) == UINT64_MAX);
    free(spool);
}

/* Goal: segments that belong together stay so; mail goes where the least of it lives, so that no
 * share is given more than it may hold, room where there is little. */
static void test_deal(void **state)
{
    static const struct {
        const char *name;
        uint32_t share_count, segment_count;
        struct {
            uint32_t parent, live, live_octets;
        } segments[SEGMENTS_MAX];
        uint32_t shares[SEGMENTS_MAX];
    } rows[] = {
        {"one share", 1, 3, {{0, 2, 10}, {1, 0, 0}, {1, 0, 0}}, {0, 0, 0}},
        {"small mail by its number", 2, 3, {{0, 9, 10}, {1, 5, 10}, {2, 4, 10}}, {0, 1, 1}},
        {"large mail by its octets",
         2,
         3,
         {{0, 14, 229000}, {1, 16, 36000}, {2, 86, 231000}},
         {1, 1, 0}},
        {"the largest first", 2, 3, {{0, 1, 50000}, {1, 1, 50000}, {2, 1, 100000}}, {1, 1, 0}},
        {"of a size, in their order", 2, 2, {{0, 3, 20000}, {1, 3, 20000}}, {0, 1}},
        {"together", 2, 4, {{0, 3, 20}, {0, 0, 0}, {2, 2, 10}, {0, 0, 0}}, {0, 0, 1, 0}},
        {"room for the full, not for who has little mail",
         2,
         6,
         {{0, 9, 150}, {0, 0, 0}, {2, 1, 10}, {2, 0, 0}, {4, 0, 0}, {5, 0, 0}},
         {0, 0, 1, 1, 0, 0}},
        {"room alone", 2, 4, {{0, 0, 0}, {1, 0, 0}, {2, 0, 0}, {3, 0, 0}}, {0, 1, 0, 1}},
        {"more lives than fits", 2, 3, {{0, 1, 200}, {1, 1, 0}, {2, 0, 0}}, {0, 1, 0}},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct recovery_segment segments[SEGMENTS_MAX] = {0};
        struct spool_recovery recovery = {.segments = segments,
                                          .segment_count = rows[i].segment_count};
        uint32_t shares[SEGMENTS_MAX];
        print_message("# %s\n", rows[i].name);
        for (uint32_t j = 0; j < rows[i].segment_count; j++) {
            segments[j].parent = rows[i].segments[j].parent;
            segments[j].live = rows[i].segments[j].live;
            segments[j].live_octets = rows[i].segments[j].live_octets;
            segments[j].header.segment_size = 100;
        }
        spool_recovery_deal(&recovery, rows[i].share_count, shares);
        for (uint32_t j = 0; j < rows[i].segment_count; j++)
            assert_int_equal(rows[i].shares[j], shares[j]);
    }
}

/* ---- room ---- */

/* All of `segments` are free, but for what lives, wherever that is. */
static struct spool *spool_with(uint32_t segments, uint32_t lost, uint64_t live)
{
    struct spool *spool = calloc(1, sizeof(*spool));

    assert_non_null(spool);
    spool->options.segment_size = SEGMENT;
    spool->part_size_max = SEGMENT / 16;
    spool->census.total = spool->census.total_urgent = (uint64_t)segments * SEGMENT;
    spool->census.lost = (uint64_t)lost * SEGMENT;
    spool->census.room = spool->census.total;
    spool->live_octets = live;
    return spool;
}

/* Goal: what lives leaves room for all else, however much of it is free at the moment. */
static void test_live(void **state)
{
    static const struct {
        const char *name;
        uint32_t segments, lost;
        uint64_t live;
        bool has_mail, has_notice, is_tight;
    } rows[] = {
        {"nothing lives", 8, 0, 0, true, true, false},
        {"as much as mail may", 8, 0, 286720, true, true, false},
        {"more", 8, 0, 286721, false, true, false},
        {"as much as attempts may", 8, 0, 376832, false, true, false},
        {"more than these", 8, 0, 376833, false, true, true},
        {"as much as notifications may", 8, 0, 434176, false, true, true},
        {"more than all", 8, 0, 434177, false, false, true},
        {"one has failed", 7, 1, 460800, false, true, true},
        {"one has failed, more", 7, 1, 460801, false, false, true},
        {"too few to say", 5, 0, 600000, true, true, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct spool *spool = spool_with(rows[i].segments, rows[i].lost, rows[i].live);
        print_message("# %s\n", rows[i].name);
        assert_int_equal(rows[i].has_mail, spool_has_room(spool, 0, false));
        assert_int_equal(rows[i].has_notice, spool_has_room(spool, 0, true));
        assert_int_equal(rows[i].is_tight, spool_is_tight(spool));
        assert_false(spool_room_is_tight(spool));
        free(spool);
    }
}

/* Goal: where room is scarce no segment is left half unwritten, though another one is zeroed. */
static void test_nothing_is_wasted(void **state)
{
    struct spool_segment active = {
        .state = SPOOL_SEGMENT_ACTIVE, .size = SEGMENT, .used = SEGMENT / 2};
    struct spool_segment ready = {.state = SPOOL_SEGMENT_READY, .size = SEGMENT, .is_zeroed = true};
    struct spool_segment *segments[] = {&active, &ready};
    struct spool *spool = spool_with(8, 0, 0);

    (void)state;
    active.spool = ready.spool = spool;
    spool->segments = segments;
    spool->segment_count = COUNT_OF(segments);
    spool->active = &active;
    spool->census.ready = 1;
    spool->census.room = SEGMENT;
    assert_ptr_equal(&active, spool_segment_writable(spool));
    assert_ptr_equal(&active, spool->active);
    free(spool);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_level), cmocka_unit_test(test_level_stays),
        cmocka_unit_test(test_alone), cmocka_unit_test(test_deal),
        cmocka_unit_test(test_live),  cmocka_unit_test(test_nothing_is_wasted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
