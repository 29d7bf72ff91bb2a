/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Damage and failed syncs on the simulated disk. What was acknowledged in a file whose sync failed
 * is read back into a healthy one. The scrubber: a bit that flips in a sealed segment is found,
 * told once, and mended from what memory has; what nobody needs any more costs nothing; the rate is
 * kept, and the disk is left to those who wait for it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/spool_internal.h"
#include "tests/sim/disk_sim.h"

#define SEGMENT_SIZE (128u << 10)
#define MESSAGES     40u
#define BODY_SIZE    8000u
#define RATE         (1u << 20)

struct world {
    tick_us tick;
    struct tick_source clock;
    struct disk_sim *sim;
    struct disk *disk;
    struct spool *spool;
    struct buf_pool *pool;
    struct rng rng;
    struct spool_entry *entries[MESSAGES];
    uint32_t commits, failures, damaged, recovered;
    struct spool_event last; /* DAMAGED */
    struct spool_event read;
    bool has_read;
};

static tick_us world_monotonic(void *context)
{
    return ((struct world *)context)->tick;
}

static wall_us world_wall(void *context)
{
    return (wall_us)((struct world *)context)->tick;
}

static uint8_t octet_of(uint32_t key, uint32_t offset)
{
    return (uint8_t)(key * 31 + offset * 7 + offset / 251);
}

static void open_spool(struct world *world, uint64_t scrub_rate)
{
    world->disk = disk_sim_open(world->sim);
    struct spool_options options = {
        .segment_size = SEGMENT_SIZE,
        .size_max = 32 * SEGMENT_SIZE,
        .reserve_size = SEGMENT_SIZE,
        .segment_spare_min = 1,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_MS(100),
        .scrub_rate = scrub_rate,
        .scrub_pause = TICK_S(10),
        .pool = world->pool,
    };
    assert_int_equal(ERR_OK, spool_epoch_next(world->disk, &options.epoch));
    assert_int_equal(ERR_OK, spool_new(&options, world->disk, &world->rng,
                                       tick_now_read(&world->clock), &world->spool));
}

static void turn(struct world *world, tick_us step)
{
    struct spool_event events[8];
    world->tick += step;
    uint32_t count = spool_poll(world->spool, tick_now_read(&world->clock), events, 8);
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].kind == SPOOL_EVENT_DAMAGED) {
            world->last = events[i];
            world->damaged++;
        } else if (events[i].kind == SPOOL_EVENT_READ) {
            world->read = events[i];
            world->has_read = true;
        } else {
            world->failures += events[i].err != ERR_OK;
            world->entries[events[i].token] = events[i].entry;
            world->commits++;
        }
    }
}

static void run(struct world *world, tick_us time)
{
    for (tick_us end = world->tick + time; world->tick < end;)
        turn(world, TICK_MS(1));
}

static void body_of(struct world *world, uint32_t key, struct buf_queue *ret_body)
{
    buf_queue_init(ret_body);
    for (uint32_t offset = 0; offset < BODY_SIZE;) {
        struct buf *buf = buf_acquire(world->pool);
        uint32_t size = BODY_SIZE - offset < 3000 ? BODY_SIZE - offset : 3000;
        for (uint32_t i = 0; i < size; i++)
            buf_data(buf)[i] = octet_of(key, offset + i);
        buf_extend(buf, size);
        buf_queue_append(ret_body, buf, BUF_HEADROOM, size);
        buf_release(buf);
        offset += size;
    }
}

static void enter(struct world *world, uint32_t key)
{
    struct buf_queue body;
    struct spool_transaction *transaction =
        spool_begin(world->spool, (struct message_id){key + 1, key}, BODY_SIZE, false);
    assert_non_null(transaction);
    body_of(world, key, &body);
    assert_int_equal(ERR_OK, spool_write_body(world->spool, transaction, &body));
    buf_queue_fini(&body);
    spool_commit(world->spool, transaction, SPAN_LITERAL("envelope"), key);
    for (uint32_t i = 0; i < 1000 && world->commits <= key; i++)
        turn(world, TICK_MS(1));
    assert_int_equal(key + 1, world->commits);
}

static struct world *world_new(uint64_t scrub_rate)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);
    world->tick = TICK_S(1);
    world->clock = (struct tick_source){world_monotonic, world_wall, world};
    struct disk_sim_options options = {
        .clock = &world->clock, .size = 64u << 20, .latency_min = 10, .latency_max = 500};
    world->sim = disk_sim_new(&options);
    rng_init_seed(&world->rng, 5);
    world->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 4096, .count_max = 1000, .backing = BUF_BACKING_HEAP});
    open_spool(world, scrub_rate);
    for (uint32_t key = 0; key < MESSAGES; key++)
        enter(world, key);
    spool_progress(world->spool, world->entries[0], SPAN_LITERAL("progress"));
    for (uint32_t key = MESSAGES / 2; key < MESSAGES; key++) /* until that segment is sealed, too */
        spool_done(world->spool, world->entries[key]);
    run(world, TICK_MS(300));
    return world;
}

static void close_spool(struct world *world)
{
    spool_flush(world->spool);
    for (uint32_t i = 0; i < 10000 && !spool_is_idle(world->spool); i++)
        turn(world, TICK_MS(1));
    assert_true(spool_is_idle(world->spool));
    spool_free(world->spool);
    disk_free(world->disk);
}

static void world_free(struct world *world)
{
    close_spool(world);
    assert_int_equal(0, buf_pool_in_use(world->pool));
    buf_pool_free(world->pool);
    disk_sim_free(world->sim);
    free(world);
}

static void flip(struct world *world, const struct spool_place *place, uint32_t offset)
{
    const char *name = world->spool->segments[place->segment]->name;
    assert_int_equal(ERR_OK, disk_sim_flip(world->sim, name, place->offset + (uint64_t)offset, 3));
}

static void check_body(struct world *world, uint32_t key)
{
    world->has_read = false;
    spool_read_body(world->spool, world->entries[key], 0, BODY_SIZE, key);
    for (uint32_t i = 0; i < 1000 && !world->has_read; i++)
        turn(world, TICK_MS(1));
    assert_true(world->has_read);
    assert_int_equal(ERR_OK, world->read.err);
    uint32_t offset = 0;
    for (uint32_t i = 0; i < world->read.octets.count; i++) {
        struct span octets = buf_slice_span(buf_queue_get(&world->read.octets, i));
        for (uint32_t j = 0; j < octets.size; j++)
            assert_int_equal(octet_of(key, offset++), octets.data[j]);
    }
    assert_int_equal(BODY_SIZE, offset);
    buf_queue_fini(&world->read.octets);
}

static struct spool_stats stats_of(const struct world *world)
{
    return spool_get_stats(world->spool);
}

static void test_a_sound_spool(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    run(world, TICK_S(9));
    assert_int_equal(0, stats_of(world).scrub_rounds); /* it lets a start pass by */
    run(world, TICK_S(2));
    assert_int_equal(1, stats_of(world).scrub_rounds);
    assert_true(stats_of(world).scrubbed_octets > 2 * SEGMENT_SIZE * 3 / 4);
    assert_int_equal(0, stats_of(world).damaged_ranges);
    run(world, TICK_S(11));
    assert_int_equal(2, stats_of(world).scrub_rounds);
    assert_int_equal(0, world->damaged);
    world_free(world);
}

static void test_off(void **state)
{
    (void)state;
    struct world *world = world_new(0);
    run(world, TICK_S(20));
    assert_int_equal(0, stats_of(world).scrubbed_octets);
    world_free(world);
}

static const struct row {
    const char *name;
    enum spool_place_kind kind;
    uint32_t offset; /* of the bit, from the header on */
    uint8_t damage;
} rows[] = {
    {"payload of a body", SPOOL_PLACE_BODY, 64 + 4321, SPOOL_DAMAGE_BODY},
    {"header of a body", SPOOL_PLACE_BODY, 20, SPOOL_DAMAGE_BODY},
    {"last octet of a body", SPOOL_PLACE_BODY, 64 + BODY_SIZE - 1, SPOOL_DAMAGE_BODY},
    {"envelope", SPOOL_PLACE_MESSAGE, 64 + 35, SPOOL_DAMAGE_ENVELOPE},
    {"header of a message", SPOOL_PLACE_MESSAGE, 0, SPOOL_DAMAGE_ENVELOPE},
};

/* Found, told once, mended from memory, and still there after a start. */
static void test_mended(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct world *world = world_new(RATE);
        const uint32_t key = 3;
        struct spool_place place = rows[i].kind == SPOOL_PLACE_BODY
                                       ? spool_entry_place(world->spool, world->entries[key], 0)
                                       : spool_entry_message(world->spool, world->entries[key]);
        assert_int_equal(SPOOL_SEGMENT_SEALED, world->spool->segments[place.segment]->state);
        flip(world, &place, rows[i].offset);
        run(world, TICK_S(25));
        assert_int_equal(1, world->damaged);
        assert_int_equal(key, world->last.id.low);
        assert_int_equal(rows[i].damage, world->last.damage);
        assert_int_equal(1, stats_of(world).damaged_messages);
        assert_int_equal(1, stats_of(world).damaged_ranges);

        struct buf_queue body;
        body_of(world, key, &body);
        spool_repair(world->spool, world->entries[key], SPAN_LITERAL("envelope"), &body);
        buf_queue_fini(&body);
        run(world, TICK_S(1));
        assert_int_equal(1, stats_of(world).repaired_messages);
        check_body(world, key);
        run(world, TICK_S(25));
        assert_int_equal(1, world->damaged);
        world_free(world);
    }
}

static void on_recovered(void *context, const struct spool_recovered *message)
{
    struct world *world = context;
    uint32_t key = (uint32_t)spool_entry_id(message->entry).low;
    assert_true(span_is_equal(message->envelope, SPAN_LITERAL("envelope")));
    world->entries[key] = message->entry;
    world->recovered++;
}

/* What a start finds: all that was not finished, whole. */
static void check_start(struct world *world)
{
    close_spool(world);
    memset(world->entries, 0, sizeof(world->entries));
    open_spool(world, RATE);
    struct disk *disk = disk_sim_open(world->sim);
    struct spool_recovery *recovery;
    assert_int_equal(ERR_OK, spool_recovery_run(disk, NULL, &recovery));
    spool_recovery_adopt(recovery, world->spool, 0, 1, on_recovered, world);
    spool_recovery_free(recovery);
    disk_free(disk);
    assert_int_equal(MESSAGES / 2, world->recovered);
    for (uint32_t key = 0; key < MESSAGES / 2; key++)
        check_body(world, key);
}

static void test_a_start_finds_what_was_mended(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    struct spool_place place = spool_entry_message(world->spool, world->entries[5]);
    struct buf_queue body;
    flip(world, &place, 4);
    body_of(world, 5, &body);
    run(world, TICK_S(12));
    spool_repair(world->spool, world->entries[5], SPAN_LITERAL("envelope"), &body);
    buf_queue_fini(&body);
    run(world, TICK_S(1));
    check_start(world);
    world_free(world);
}

static bool is_in_retired(const struct world *world, const struct spool_place *place)
{
    return world->spool->segments[place->segment]->state == SPOOL_SEGMENT_RETIRED;
}

static uint32_t count_in_retired(struct world *world)
{
    uint32_t count = 0;
    for (uint32_t key = 0; key < MESSAGES / 2; key++) {
        const struct spool_entry *entry = world->entries[key];
        struct spool_place place = spool_entry_message(world->spool, entry);
        count += is_in_retired(world, &place);
        for (uint32_t i = 0; i < entry->body_count; i++) {
            place = spool_entry_place(world->spool, entry, i);
            count += is_in_retired(world, &place);
        }
    }
    return count;
}

/* A sync fails: the message is void before anything else is written, and what was acknowledged
 * before in that file is read back and gets a healthy home. The file is never synced again. */
static void test_failed_sync_is_read_back(void **state)
{
    (void)state;
    struct world *world = world_new(0);
    for (uint32_t key = 0; key < MESSAGES / 2; key++) { /* some of the living are in its segment */
        if (key % 3 > 0)
            continue;
        struct buf_queue body;
        body_of(world, key, &body);
        spool_repair(world->spool, world->entries[key], SPAN_LITERAL("envelope"), &body);
        buf_queue_fini(&body);
    }
    run(world, TICK_S(1));
    struct spool_segment *failed = world->spool->active;
    disk_sim_fail_at(world->sim, DISK_SIM_SYNC, 1, ERR_DISK_IO);
    world->commits = 0; /* of a message more */
    struct spool_transaction *transaction =
        spool_begin(world->spool, (struct message_id){9999, 9999}, 0, false);
    spool_commit(world->spool, transaction, SPAN_LITERAL("envelope"), MESSAGES - 1);
    while (failed->state != SPOOL_SEGMENT_RETIRED)
        turn(world, TICK_MS(1));
    assert_true(count_in_retired(world) > 0);
    while (world->spool->active == NULL || world->spool->active->row_count == 0)
        turn(world, 10);
    assert_int_equal(SPOOL_VOID, world->spool->active->rows[0].type);
    run(world, TICK_S(2));
    assert_int_equal(1, world->failures);
    assert_int_equal(1, stats_of(world).voids);
    assert_int_equal(0, count_in_retired(world));
    assert_null(failed->entries);
    assert_int_equal(SPOOL_SEGMENT_RETIRED, failed->state);
    check_start(world);
    world_free(world);
}

/* What cannot be read back is told. */
static void test_damage_met_while_reading_back(void **state)
{
    (void)state;
    struct world *world = world_new(0);
    struct buf_queue body;
    body_of(world, 4, &body);
    spool_repair(world->spool, world->entries[4], SPAN_LITERAL("envelope"), &body);
    buf_queue_fini(&body);
    run(world, TICK_S(1));
    struct spool_place place = spool_entry_place(world->spool, world->entries[4], 0);
    assert_int_equal(SPOOL_SEGMENT_ACTIVE, world->spool->segments[place.segment]->state);
    flip(world, &place, 200);
    disk_sim_fail_at(world->sim, DISK_SIM_SYNC, 1, ERR_DISK_IO);
    spool_progress(world->spool, world->entries[5], SPAN_LITERAL("progress"));
    run(world, TICK_S(2));
    assert_int_equal(1, world->damaged);
    assert_int_equal(5, world->last.id.high);
    assert_int_equal(SPOOL_DAMAGE_BODY, world->last.damage);
    world_free(world);
}

/* Without help of memory it stays as it is, and the copier gives up. */
static void test_nothing_to_mend_with(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    struct spool_place place = spool_entry_place(world->spool, world->entries[1], 0);
    flip(world, &place, 100);
    run(world, TICK_S(12));
    assert_int_equal(1, world->damaged);
    spool_repair(world->spool, world->entries[1], SPAN_LITERAL("envelope"), NULL);
    run(world, TICK_S(12));
    assert_int_equal(0, stats_of(world).repaired_messages);
    spool_read_body(world->spool, world->entries[1], 0, BODY_SIZE, 1);
    run(world, TICK_MS(100));
    assert_int_equal(ERR_DISK_CORRUPT, world->read.err);
    world_free(world);
}

/* What no message needs is told, but costs nobody anything. */
static void test_damage_that_costs_nothing(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    struct spool_segment *segment = world->spool->segments[0];
    assert_int_equal(SPOOL_SEGMENT_SEALED, segment->state);
    assert_int_equal(ERR_OK,
                     disk_sim_flip(world->sim, segment->name, segment->size - SPOOL_BLOCK_SIZE, 0));
    run(world, TICK_S(25));
    assert_int_equal(1, stats_of(world).damaged_ranges); /* the trailer */
    assert_int_equal(0, world->damaged);
    world_free(world);
}

/* A disk that cannot read a sector: the same as octets that are wrong. */
static void test_unreadable(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    disk_sim_fail_at(world->sim, DISK_SIM_READ, 1, ERR_DISK_IO);
    run(world, TICK_S(12));
    assert_int_equal(1, stats_of(world).damaged_ranges);
    assert_true(world->damaged > 0);
    world_free(world);
}

static void test_rate(void **state)
{
    (void)state;
    struct world *world = world_new(1024);
    uint64_t before = stats_of(world).scrubbed_octets;
    run(world, TICK_S(100));
    assert_true(stats_of(world).scrubbed_octets - before <= 100 * 1024 + SEGMENT_SIZE);
    assert_int_equal(0, stats_of(world).scrub_rounds);
    world_free(world);
}

/* While the disk is busy, or stuck, nothing is read. */
static void test_busy(void **state)
{
    (void)state;
    struct world *world = world_new(RATE);
    disk_sim_hold(world->sim, true);
    spool_read_body(world->spool, world->entries[0], 0, 10, 0);
    run(world, TICK_S(20));
    assert_int_equal(0, stats_of(world).scrubbed_octets);
    disk_sim_hold(world->sim, false);
    run(world, TICK_S(1));
    assert_true(stats_of(world).scrubbed_octets > 0);
    buf_queue_fini(&world->read.octets);
    world_free(world);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_sound_spool),
        cmocka_unit_test(test_off),
        cmocka_unit_test(test_mended),
        cmocka_unit_test(test_a_start_finds_what_was_mended),
        cmocka_unit_test(test_failed_sync_is_read_back),
        cmocka_unit_test(test_damage_met_while_reading_back),
        cmocka_unit_test(test_nothing_to_mend_with),
        cmocka_unit_test(test_damage_that_costs_nothing),
        cmocka_unit_test(test_unreadable),
        cmocka_unit_test(test_rate),
        cmocka_unit_test(test_busy),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
