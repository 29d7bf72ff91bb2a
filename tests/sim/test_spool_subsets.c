/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool after a power loss at every disk call, with every legal part of what was not synced.
 *
 * test_spool_crash draws one part for each point; here they are enumerated. The world is run up to
 * the point once. Then each part is tried in a process of its own, forked from there: it loses that
 * part, starts, and compares with the ledger, twice (R9: a start changes nothing).
 *
 * What may be lost, by the rules of HAZARDS 1.2:
 *   - sectors of 512 octets of writes that no successful sync has covered since they were written,
 *     in any combination: the cache of a disk knows no order (R1 makes the sync the barrier, not
 *     the write), and a write may be torn (R4). A sector itself is old or new as a whole. Writes
 *     that a failed sync had covered stay among them for ever (R5).
 *   - of a write under way the same; nothing of a commit behind it, which has not begun (disk.h).
 *   - a name that was made or removed since the last sync of the directory (R3): there or not.
 *   - not the size of a file, nor that it reads as zeros where nothing was written: a segment is
 *     made, extended and synced before it is used (R3), and the medium has no other files.
 *
 * Each sector and each name is a unit. Up to `units_full` units all 2^n parts are tried. For more:
 * all parts by page when there are that many pages, a sector being lost or kept with its page; each
 * single page lost, each single one kept, every prefix and every suffix of pages; each single
 * sector lost, each single one kept; and draws by sector. Of more than `parts_max` parts of a point
 * that many are taken, at equal distances.
 *
 * Depth 2: in every DEPTH2-th of them the power fails again, at a call of the start or of the work
 * after it drawn by chance, and with a part by chance.
 *
 * ANGARIUM_TEST_LONG=1: more points, units and parts.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/sim/spool_world.h"

#define UNITS_MAX 4096u
#define DEPTH2    5u

struct bounds {
    uint32_t seeds, operations, units_full, parts_max, draws;
};
static const struct bounds bounds_quick = {1, 60, 6, 40, 6};
static const struct bounds bounds_long = {6, 80, 10, 1500, 60};

static const struct bounds *bounds_now(void)
{
    const char *is_long = getenv("ANGARIUM_TEST_LONG");
    return is_long != NULL && is_long[0] == '1' ? &bounds_long : &bounds_quick;
}

/* ---- parts ---- */

struct point { /* what a power loss finds */
    uint32_t pages[UNITS_MAX];
    uint32_t unit_count, page_count;
};

enum part_kind { /* in the order in which they are numbered */
                 PART_ALL_UNITS,
                 PART_ALL_PAGES,
                 PART_PAGE_LOST,
                 PART_PAGE_KEPT,
                 PART_PREFIX,
                 PART_SUFFIX,
                 PART_SECTOR_LOST,
                 PART_SECTOR_KEPT,
                 PART_DRAWN,
                 PART_KIND_COUNT
};

struct part {
    const struct point *point;
    enum part_kind kind;
    uint32_t number; /* within its kind */
    struct rng rng;
};

static uint32_t part_count(const struct point *point, enum part_kind kind,
                           const struct bounds *bounds)
{
    bool is_full = point->unit_count <= bounds->units_full;

    if (kind == PART_ALL_UNITS)
        return is_full ? (uint32_t)1 << point->unit_count : 0;
    if (is_full)
        return 0;
    if (kind == PART_ALL_PAGES)
        return point->page_count <= bounds->units_full ? (uint32_t)1 << point->page_count : 0;
    if (kind == PART_DRAWN)
        return bounds->draws;
    if (kind == PART_SECTOR_LOST || kind == PART_SECTOR_KEPT)
        return point->unit_count;
    return point->page_count;
}

static bool part_keeps(void *context, uint32_t unit)
{
    struct part *part = context;
    uint32_t page = part->point->pages[unit], number = part->number;

    switch (part->kind) {
    case PART_ALL_UNITS:
        return number >> unit & 1;
    case PART_ALL_PAGES:
        return number >> page & 1;
    case PART_PAGE_LOST:
        return page != number;
    case PART_PAGE_KEPT:
        return page == number;
    case PART_PREFIX:
        return page <= number;
    case PART_SUFFIX:
        return page >= number;
    case PART_SECTOR_LOST:
        return unit != number;
    case PART_SECTOR_KEPT:
        return unit == number;
    case PART_DRAWN:
    case PART_KIND_COUNT:
        break;
    }
    return rng_below(&part->rng, 8) < 1 + number % 7;
}

/* ---- one part, in a process of its own ---- */

/* Starts, and starts again. False when the disk stopped on the way. */
static bool child_check(struct world *world)
{
    if (!world_start(world, 2))
        return false;
    world_read_all(world);
    world_crash(world, false);
    return world_start(world, 1);
}

static bool draw_keeps(void *context, uint32_t unit)
{
    (void)unit;
    return rng_below(context, 2) == 0;
}

static uint32_t child_run(struct world *world, struct part *part, bool is_deep)
{
    disk_sim_lose(world->sim, part_keeps, part);
    if (is_deep) {
        uint32_t more = 1 + rng_below(&part->rng, 60);
        disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + more);
        if (world_start(world, 1))
            world_work(world, 20);
        world_power_off(world);
        disk_sim_lose(world->sim, draw_keeps, &part->rng);
    }
    if (!child_check(world) && world->violations == 0)
        return 1;
    if (world->violations > 0 && getenv("ANGARIUM_TEST_VERBOSE") != NULL)
        (void)fprintf(stderr, "# part %d.%u: %s\n", part->kind, part->number,
                      world->first_violation);
    return world->violations > 0;
}

static uint32_t part_try(struct world *world, struct part *part, bool is_deep)
{
    int status;
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0)
        _exit((int)child_run(world, part, is_deep));
    CHECK(waitpid(child, &status, 0) == child);
    return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
}

/* ---- points ---- */

struct tally {
    uint64_t points, parts, deep, violations;
    uint64_t shown, drawn; /* points where something went wrong: in some part; in one draw */
};

static void point_try(struct world *world, uint64_t seed, const struct bounds *bounds,
                      struct tally *tally)
{
    static struct point point;
    uint64_t total = 0, taken = 0, at = 0, before = tally->violations;

    world_power_off(world);
    point.unit_count = disk_sim_units(world->sim, point.pages, UNITS_MAX);
    assert_in_range(point.unit_count, 0, UNITS_MAX);
    point.page_count = point.unit_count == 0 ? 0 : point.pages[point.unit_count - 1] + 1;
    for (uint32_t kind = 0; kind < PART_KIND_COUNT; kind++)
        total += part_count(&point, (enum part_kind)kind, bounds);
    uint64_t wanted = total < bounds->parts_max ? total : bounds->parts_max;
    for (uint32_t kind = 0; kind < PART_KIND_COUNT; kind++) {
        uint32_t count = part_count(&point, (enum part_kind)kind, bounds);
        for (uint32_t number = 0; number < count; number++, at++) {
            if (at * wanted / total < taken)
                continue;
            struct part part = {.point = &point, .kind = (enum part_kind)kind, .number = number};
            bool is_deep = ++taken % DEPTH2 == 0;
            rng_init_seed(&part.rng, seed * 100000 + at);
            tally->violations += part_try(world, &part, is_deep);
            tally->parts++;
            tally->deep += is_deep;
        }
    }
    struct part drawn = {.point = &point, .kind = PART_DRAWN, .number = (uint32_t)seed};
    rng_init_seed(&drawn.rng, seed);
    tally->drawn += part_try(world, &drawn, false);
    tally->shown += tally->violations > before;
    tally->points++;
}

static struct world *world_at_work(const struct world_options *options)
{
    struct world *world = world_new(options);
    assert_true(world_start(world, 1));
    world_work(world, 20);
    return world;
}

static struct tally try_every_point(uint64_t seeds, bool is_false_sync,
                                    bool is_false_directory_sync)
{
    const struct bounds *bounds = bounds_now();
    struct tally tally = {0};

    for (uint64_t seed = 1; seed <= seeds; seed++) {
        struct world_options options = {
            .seed = seed,
            .segment_size = 128u << 10,
            .size_max = 12u * (128u << 10),
            .disk_size = 64u << 20,
            .latency_max = 3000,
            .body_size_max = 6000,
            .is_false_sync = is_false_sync,
            .is_false_directory_sync = is_false_directory_sync,
        };
        bool is_stopped = true;
        for (uint64_t call = 1; is_stopped; call++) {
            struct world *world = world_at_work(&options);
            disk_sim_stop_at(world->sim, disk_sim_calls(world->sim) + call);
            world_work(world, bounds->operations);
            world_settle(world);
            is_stopped = disk_sim_is_stopped(world->sim);
            point_try(world, call, bounds, &tally);
            world_free(world);
        }
    }
    print_message(
        "# %lu points, %lu parts, %lu with a second loss: %lu violations, at %lu points; one "
        "draw for each point shows %lu\n",
        tally.points, tally.parts, tally.deep, tally.violations, tally.shown, tally.drawn);
    return tally;
}

static void test_every_part_at_every_call(void **state)
{
    (void)state;
    struct tally tally = try_every_point(bounds_now()->seeds, false, false);
    assert_true(tally.points > 10 && tally.parts > 10 * tally.points && tally.deep > tally.points);
    assert_int_equal(0, tally.violations + tally.drawn);
}

static void test_syncs_that_do_nothing_are_caught(void **state)
{
    (void)state;
    assert_true(try_every_point(1, true, false).violations > 0);
}

static void test_directory_syncs_that_do_nothing_are_caught(void **state)
{
    (void)state;
    assert_true(try_every_point(1, false, true).violations > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_part_at_every_call),
        cmocka_unit_test(test_syncs_that_do_nothing_are_caught),
        cmocka_unit_test(test_directory_syncs_that_do_nothing_are_caught),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
