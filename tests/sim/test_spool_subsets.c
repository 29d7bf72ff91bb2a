/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool after a power loss at every moment of its life, with every legal part of what was not
 * synced.
 *
 * A life is run once. Before each disk call and each completion it is copied, as the power would
 * leave it there, with the ledger's promises at that moment; a moment at which neither has changed
 * is the same point. Lives begin in an empty directory, and the power fails once in the middle: the
 * calls of starts are among the points, and those that cut, seal, use again and remove segments.
 *
 * What may be lost, by the rules of HAZARDS 1.2:
 *   - sectors of 512 octets of writes that no successful sync has covered since they were written,
 *     in any combination: the cache of a disk knows no order (R1 makes the sync the barrier, not
 *     the write), and a write may be torn (R4). A sector itself is old or new as a whole. Writes
 *     that a failed sync had covered stay among them for ever (R5).
 *   - of a write under way the same; nothing of a commit behind it, which has not begun (disk.h).
 *   - a name that was made or removed since the last sync of the directory (R3): there or not.
 *   - the size of a file that was just being made, but of no other: a segment is made, extended and
 *     synced before it is used (R3).
 *
 * Of the 2^n parts of n sectors, all are tried that a start can tell apart: spool_units.c puts the
 * sectors into k classes and argues why 2^k parts have every outcome. All 2^k are tried at every
 * point; no life here has a point with more than CLASSES_MAX, and that is checked. "A class is
 * lost" is: all of its sectors, one, or some by chance. The argument is tried out twice: where few
 * sectors differ, all 2^n parts of them give exactly the outcomes of the 2^k; and parts drawn by
 * sector, at every point, have no outcome that is not among those.
 *
 * Each part is a node that starts, with another number of shards than before, is compared with the
 * ledger, reads every body, loses power and starts again with still another number (R9: a start
 * changes nothing). Depth 2: in every DEPTH2-th the power fails before that, at a call of a start
 * or of the work after it drawn by chance, and with a part by chance.
 *
 * The same program is built once per planted bug of the spool, which some part must show.
 *
 * ANGARIUM_TEST_LONG=1: more seeds. --short: the first life only.
 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/spool_record.h"
#include "tests/sim/spool_units.h"
#include "tests/sim/spool_world.h"

#define DEPTH2         5u
#define DRAWS          4u  /* by sector, at every point */
#define DIFFERENT_FULL 8u  /* so many sectors and names: all parts of them are tried */
#define FULL_POINTS    12u /* at so many points of a life */
#define CLASSES_MAX    18u
#define OUTCOMES_MAX   (1u << CLASSES_MAX)

struct life {
    const char *name;
    uint32_t shards[2];     /* before and after the power loss in the middle */
    uint32_t operations[2]; /* the same */
    uint32_t segments;      /* room for so many */
    uint32_t live_max;
    uint32_t body_size_max;
    uint32_t sync_fails; /* which of the syncs, in the second half; 0: none */
    uint64_t seeds[2];   /* the first one in the quick form, all of them in the long one */
};

/* Little is under way at a time, so that every part can be tried. */
static const struct life lives[] = {
    {"one shard, then two", {1, 2}, {60, 60}, 12, 0, 2000, 0, {1, 16}},
    {"two shards, then three", {2, 3}, {30, 30}, 12, 0, 1200, 0, {2, 9}},
    {"three shards, then one", {3, 1}, {30, 30}, 12, 0, 1200, 0, {3, 10}},
    {"bodies of many sectors", {1, 2}, {50, 50}, 12, 0, 9000, 0, {4, 13}},
    {"a sync fails", {1, 1}, {60, 60}, 12, 0, 2000, 3, {4, 13}},
    {"segments used again", {1, 1}, {250, 250}, 4, 6, 1500, 0, {5, 12}},
};

struct tally {
    uint64_t moments, points, parts, deep, drawn, full, violations;
    uint32_t classes_max, different_max;
    uint64_t recycled;
    uint32_t not_whole; /* points at which not every part was tried */
};

/* ---- one part ---- */

enum part_kind {
    PART_OF_CLASSES,
    PART_OF_UNITS, /* bit for each unit that is not SAME */
    PART_DRAWN,
};

struct part {
    const struct spool_units *units;
    enum part_kind kind;
    uint32_t number;
    struct rng rng;
    uint32_t different;           /* units that were asked for */
    uint32_t asked[UNIT_CLASSES]; /* of each class */
};

/* Of a class that is lost: all of it, one unit, or some, but at least the last. */
static bool part_keeps_of_lost(struct part *part, uint16_t class)
{
    uint32_t size = part->units->sizes[class], index = part->asked[class]++;
    switch ((part->number ^ part->number >> 3 ^ class) % 3) {
    case 0:
        return false;
    case 1:
        return index != part->number % size;
    default:
        return index + 1 < size && rng_below(&part->rng, 2) == 0;
    }
}

static bool part_keeps(void *context, uint32_t unit)
{
    struct part *part = context;
    uint16_t class = part->units->classes[unit];

    if (class == UNIT_SAME)
        return true;
    if (part->kind == PART_OF_UNITS)
        return part->number >> part->different++ & 1;
    if (part->kind == PART_DRAWN)
        return rng_below(&part->rng, 8) < 1 + part->number % 7;
    if (class == UNIT_UNTOLD)
        return rng_below(&part->rng, 2) == 0;
    return part->number >> class & 1 || part_keeps_of_lost(part, class);
}

/* ---- a life, and what is done at each point of it ---- */

struct hunt {
    const struct life *life;
    uint64_t seed;
    struct world *world, *point, *trial;
    struct spool_units units;
    uint64_t changes, promises; /* of the point before */
    uint64_t outcomes[OUTCOMES_MAX];
    uint32_t outcome_count;
    uint32_t full_left;
    bool has_to_find; /* ends with the first violation */
    struct tally tally;
};

static bool hunt_has_outcome(const struct hunt *hunt, uint64_t outcome)
{
    for (uint32_t i = 0; i < hunt->outcome_count; i++) {
        if (hunt->outcomes[i] == outcome)
            return true;
    }
    return false;
}

static void hunt_tell(struct hunt *hunt, const struct part *part, const char *what)
{
    if (hunt->tally.violations++ == 0)
        print_message("# \"%s\", seed %lu, point %lu, part %d.%u: %s\n", hunt->life->name,
                      hunt->seed, hunt->tally.points, (int)part->kind, part->number, what);
}

/* The power fails once more, by chance. */
static void trial_deep(struct world *trial, struct part *part)
{
    uint32_t more = 1 + rng_below(&part->rng, 60);
    disk_sim_stop_at(trial->sim, disk_sim_calls(trial->sim) + more);
    if (world_start(trial, 1 + part->number % WORLD_SHARDS_MAX))
        world_work(trial, 20);
    world_crash(trial, false);
}

/* One node finds what this part leaves. Returns the outcome of its first start. */
static uint64_t hunt_try(struct hunt *hunt, struct part *part, bool is_deep)
{
    struct world *trial = hunt->trial;
    uint32_t shards = hunt->life->shards[0];

    rng_init_seed(&part->rng, hunt->tally.points * 1000003 + part->number);
    part->units = &hunt->units;
    world_copy(trial, hunt->point);
    rng_init_seed(&trial->chance, hunt->tally.parts);
    disk_sim_lose(trial->sim, part_keeps, part);
    if (is_deep)
        trial_deep(trial, part);
    bool is_up = world_start(trial, 1 + shards % WORLD_SHARDS_MAX);
    uint64_t outcome = trial->outcome;
    if (is_up) {
        world_read_all(trial);
        world_crash(trial, false);
        is_up = world_start(trial, 1 + (shards + 1) % WORLD_SHARDS_MAX);
    }
    world_crash(trial, false);
    if (trial->violations > 0 || !is_up)
        hunt_tell(hunt, part, is_up ? trial->first_violation : "no start");
    hunt->tally.parts++;
    hunt->tally.deep += is_deep;
    return outcome;
}

static bool hunt_is_over(const struct hunt *hunt)
{
    return hunt->has_to_find && hunt->tally.violations > 0;
}

static void hunt_classes(struct hunt *hunt)
{
    hunt->outcome_count = 0;
    for (uint32_t number = 0; number < (uint32_t)1 << hunt->units.class_count; number++) {
        struct part part = {.kind = PART_OF_CLASSES, .number = number};
        bool is_deep = (hunt->tally.parts + 1) % DEPTH2 == 0;
        uint64_t outcome = hunt_try(hunt, &part, false);
        if (!hunt_has_outcome(hunt, outcome)) {
            CHECK(hunt->outcome_count < OUTCOMES_MAX);
            hunt->outcomes[hunt->outcome_count++] = outcome;
        }
        if (is_deep)
            (void)hunt_try(hunt, &part, true);
        if (hunt_is_over(hunt))
            return;
    }
}

/* All parts of all units: they have the outcomes of the parts of classes, and those have theirs. */
static void hunt_full(struct hunt *hunt)
{
    bool is_met[OUTCOMES_MAX] = {false};
    struct part part = {.kind = PART_OF_UNITS};
    for (uint32_t number = 0; number < (uint32_t)1 << hunt->units.different; number++) {
        part = (struct part){.kind = PART_OF_UNITS, .number = number};
        uint64_t outcome = hunt_try(hunt, &part, false);
        if (!hunt_has_outcome(hunt, outcome))
            hunt_tell(hunt, &part, "an outcome that no part of classes has");
        for (uint32_t i = 0; i < hunt->outcome_count; i++)
            is_met[i] |= hunt->outcomes[i] == outcome;
    }
    for (uint32_t i = 0; i < hunt->outcome_count; i++) {
        if (!is_met[i])
            hunt_tell(hunt, &part, "an outcome that only a part of classes has");
    }
    hunt->tally.full++;
}

static void hunt_drawn(struct hunt *hunt)
{
    for (uint32_t number = 0; number < DRAWS && !hunt_is_over(hunt); number++) {
        struct part part = {.kind = PART_DRAWN, .number = number};
        uint64_t outcome = hunt_try(hunt, &part, false);
        if (!hunt_is_over(hunt) && !hunt_has_outcome(hunt, outcome))
            hunt_tell(hunt, &part, "an outcome that no part of classes has");
        hunt->tally.drawn++;
    }
}

static void hunt_moment(void *context)
{
    struct hunt *hunt = context;
    struct tally *tally = &hunt->tally;
    uint64_t changes = disk_sim_changes(hunt->world->sim), promises = world_promises(hunt->world);

    tally->moments++;
    if (hunt_is_over(hunt) || (changes == hunt->changes && promises == hunt->promises))
        return;
    hunt->changes = changes;
    hunt->promises = promises;
    tally->points++;
    world_copy(hunt->point, hunt->world);
    spool_units_find(&hunt->units, hunt->point->sim);
    uint32_t classes = hunt->units.class_count, different = hunt->units.different;
    tally->classes_max = classes > tally->classes_max ? classes : tally->classes_max;
    tally->different_max = different > tally->different_max ? different : tally->different_max;
    if (getenv("ANGARIUM_TEST_VERBOSE") != NULL)
        (void)fprintf(stderr, "# point %lu: %u units, %u differ, %u told, %u classes\n",
                      tally->points, hunt->units.count, different, hunt->units.told, classes);
    if (classes > CLASSES_MAX) {
        tally->not_whole++;
        return;
    }
    hunt_classes(hunt);
    if (different > classes)
        hunt_drawn(hunt);
    if (different > classes && different <= DIFFERENT_FULL && hunt->full_left > 0 &&
        !hunt_is_over(hunt)) {
        hunt->full_left--;
        hunt_full(hunt);
    }
}

static void hunt_live(struct hunt *hunt)
{
    const struct life *life = hunt->life;
    struct world *world = hunt->world;

    disk_sim_watch(world->sim, hunt_moment, hunt);
    assert_true(world_start(world, life->shards[0]));
    world_work(world, life->operations[0]);
    hunt_moment(hunt);
    world_crash(world, false);
    assert_true(world_start(world, life->shards[1]));
    if (life->sync_fails > 0)
        disk_sim_fail_at(world->sim, DISK_SIM_SYNC, life->sync_fails, ERR_DISK_IO);
    world_work(world, life->operations[1]);
    world_settle(world);
    hunt_moment(hunt);
}

/* Which syncs do nothing: bugs of the disk. */
enum plant { PLANT_NONE, PLANT_NO_SYNC, PLANT_NO_DIRECTORY_SYNC };

static struct world_options hunt_options(const struct life *life, uint64_t seed, enum plant plant)
{
    return (struct world_options){
        .seed = seed,
        .segment_size = SPOOL_SEGMENT_SIZE_MIN,
        .size_max = (uint64_t)life->segments * SPOOL_SEGMENT_SIZE_MIN,
        .disk_size = 64u << 20,
        .latency_max = 300,
        .body_size_max = life->body_size_max,
        .live_max = life->live_max,
        .is_brisk = true,
        .is_false_sync = plant == PLANT_NO_SYNC,
        .is_false_directory_sync = plant == PLANT_NO_DIRECTORY_SYNC,
    };
}

static struct tally hunt_run(const struct life *life, uint64_t seed, enum plant plant,
                             bool has_to_find)
{
    struct world_options options = hunt_options(life, seed, plant);
    struct hunt *hunt = calloc(1, sizeof(*hunt));
    CHECK(hunt != NULL);
    hunt->life = life;
    hunt->seed = seed;
    hunt->world = world_new(&options);
    hunt->point = world_new(&options);
    hunt->trial = world_new(&options);
    hunt->full_left = has_to_find ? 0 : FULL_POINTS;
    hunt->has_to_find = has_to_find;
    hunt_live(hunt);
    struct tally tally = hunt->tally;
    tally.violations += has_to_find ? 0 : hunt->world->violations;
    tally.recycled = hunt->world->recycled;
    print_message("# \"%s\", seed %lu: %lu moments, %lu points, up to %u classes of %u units; %lu "
                  "parts (%lu lose power twice, %lu drawn by sector), all units at %lu points; %lu "
                  "segments used again; %lu violations\n",
                  life->name, seed, tally.moments, tally.points, tally.classes_max,
                  tally.different_max, tally.parts, tally.deep, tally.drawn, tally.full,
                  tally.recycled, tally.violations);
    world_free(hunt->trial);
    world_free(hunt->point);
    world_free(hunt->world);
    free(hunt);
    return tally;
}

static uint64_t seeds_end(const struct life *life)
{
    const char *is_long = getenv("ANGARIUM_TEST_LONG");
    return is_long != NULL && is_long[0] == '1' ? life->seeds[1] : life->seeds[0];
}

static uint32_t life_count = COUNT_OF(lives);

static void test_every_part_at_every_point(void **state)
{
    (void)state;
    uint64_t recycled = 0, full = 0;
    for (uint32_t i = 0; i < life_count; i++) {
        for (uint64_t seed = lives[i].seeds[0]; seed <= seeds_end(&lives[i]); seed++) {
            struct tally tally = hunt_run(&lives[i], seed, PLANT_NONE, false);
            assert_int_equal(0, tally.violations);
            assert_int_equal(0, tally.not_whole);
            assert_true(tally.points > 50 && tally.parts > 3 * tally.points);
            recycled += tally.recycled;
            full += tally.full;
        }
    }
    assert_true(full > 4 * life_count);
    assert_true(recycled > 0 || life_count < COUNT_OF(lives));
}

/* Where to look first: the life that is known to show it soon. */
static const uint32_t lives_first[] = {
    [SPOOL_BUG_EARLY_RECYCLE] = 1,
    [SPOOL_BUG_VOID_IGNORED] = 4,
    [SPOOL_BUG_INDEX_BELIEVED] = 5,
    [SPOOL_BUG_DSN_AFTER_SETTLE] = 0,
};

static void check_plant_is_caught(enum plant plant)
{
    for (uint32_t i = 0; i < COUNT_OF(lives); i++) {
        const struct life *life = &lives[(lives_first[SPOOL_BUG] + i) % COUNT_OF(lives)];
        if (hunt_run(life, life->seeds[0], plant, true).violations > 0)
            return;
    }
    fail_msg("no part at any point shows the planted bug");
}

static void test_syncs_that_do_nothing_are_caught(void **state)
{
    (void)state;
    check_plant_is_caught(PLANT_NO_SYNC);
}

static void test_directory_syncs_that_do_nothing_are_caught(void **state)
{
    (void)state;
    check_plant_is_caught(PLANT_NO_DIRECTORY_SYNC);
}

static void test_bug_is_caught(void **state)
{
    (void)state;
    check_plant_is_caught(PLANT_NONE);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest shipped[] = {
        cmocka_unit_test(test_every_part_at_every_point),
        cmocka_unit_test(test_syncs_that_do_nothing_are_caught),
        cmocka_unit_test(test_directory_syncs_that_do_nothing_are_caught),
    };
    const struct CMUnitTest planted[] = {
        cmocka_unit_test(test_bug_is_caught),
    };
    /* A medium is copied for each part: its memory is kept. */
    mallopt(M_MMAP_THRESHOLD, 256 << 20);
    mallopt(M_TRIM_THRESHOLD, 256 << 20);
    if (argc > 1 && strcmp(argv[1], "--short") == 0)
        life_count = 1;
    if (SPOOL_BUG == SPOOL_BUG_NONE)
        return cmocka_run_group_tests(shipped, NULL, NULL);
    return cmocka_run_group_tests(planted, NULL, NULL);
}
