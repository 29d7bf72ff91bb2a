/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the spool keeps of a message: places survive being packed at both ends of every bound, and
 * an entry keeps any number of them in order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "queue/spool_internal.h"

#define SERIAL 77u

struct fixture {
    struct spool spool;
    struct spool_segment segment;
    struct spool_segment *segments[SPOOL_SEGMENT_COUNT_MAX];
};

static struct fixture *fixture_new(void)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    fixture->segment.serial = SERIAL;
    for (uint32_t i = 0; i < SPOOL_SEGMENT_COUNT_MAX; i++)
        fixture->segments[i] = &fixture->segment;
    fixture->spool.segments = fixture->segments;
    fixture->spool.segment_count = SPOOL_SEGMENT_COUNT_MAX;
    slab_init(&fixture->spool.entries, sizeof(struct spool_entry), 10, &fixture->spool);
    return fixture;
}

static void fixture_free(struct fixture *fixture)
{
    assert_int_equal(0, fixture->spool.entries.in_use);
    slab_fini(&fixture->spool.entries);
    free(fixture);
}

static void assert_place(const struct spool_place *want, const struct spool_place *got)
{
    assert_int_equal(want->serial, got->serial);
    assert_int_equal(want->segment, got->segment);
    assert_int_equal(want->kind, got->kind);
    assert_int_equal(want->is_held, got->is_held);
    assert_int_equal(want->retry, got->retry);
    assert_int_equal(want->offset, got->offset);
    assert_int_equal(want->payload_size, got->payload_size);
}

static void test_places_are_kept(void **state)
{
    (void)state;
    const struct {
        const char *name;
        struct spool_place place;
    } rows[] = {
        {"least", {.serial = SERIAL, .kind = SPOOL_PLACE_PROGRESS}},
        {"held", {.serial = SERIAL, .kind = SPOOL_PLACE_PROGRESS, .is_held = 1}},
        {"last segment",
         {.serial = SERIAL,
          .kind = SPOOL_PLACE_PROGRESS,
          .segment = SPOOL_SEGMENT_COUNT_MAX - 1,
          .offset = 4096}},
        {"last offset",
         {.serial = SERIAL, .kind = SPOOL_PLACE_PROGRESS, .offset = SPOOL_SEGMENT_SIZE_MAX - 8}},
        {"largest payload",
         {.serial = SERIAL,
          .kind = SPOOL_PLACE_PROGRESS,
          .is_held = 1,
          .payload_size = SPOOL_PAYLOAD_SIZE_MAX}},
        {"everything",
         {.serial = SERIAL,
          .kind = SPOOL_PLACE_PROGRESS,
          .is_held = 1,
          .segment = SPOOL_SEGMENT_COUNT_MAX - 1,
          .offset = SPOOL_SEGMENT_SIZE_MAX - 8,
          .payload_size = SPOOL_PAYLOAD_SIZE_MAX}},
        {"least retry", {.serial = SERIAL, .kind = SPOOL_PLACE_PROGRESS, .is_held = 1, .retry = 1}},
        {"largest retry",
         {.serial = SERIAL,
          .kind = SPOOL_PLACE_PROGRESS,
          .is_held = 1,
          .retry = SPOOL_RETRY_MAX,
          .segment = SPOOL_SEGMENT_COUNT_MAX - 1,
          .offset = SPOOL_SEGMENT_SIZE_MAX - 8,
          .payload_size = SPOOL_RETRY_SIZE_MAX}},
        {"old, least", {.kind = SPOOL_PLACE_OLD}},
        {"old, of another generation",
         {.serial = UINT32_MAX, .kind = SPOOL_PLACE_OLD, .segment = SPOOL_SEGMENT_COUNT_MAX - 1}},
    };
    struct fixture *fixture = fixture_new();
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct spool_entry *entry = spool_entry_new(&fixture->spool, (struct message_id){1, i});
        spool_entry_add_place(entry, &rows[i].place);
        struct spool_place place = spool_entry_place(&fixture->spool, entry, 0);
        assert_place(&rows[i].place, &place);
        slab_release(&fixture->spool.entries, entry);
    }
    fixture_free(fixture);
}

static struct spool_place numbered(uint32_t number)
{
    return (struct spool_place){
        .serial = SERIAL, .kind = SPOOL_PLACE_PROGRESS, .offset = 8 * number};
}

/* Goal: every count has every place, whether it grew or shrank to it. */
static void test_any_number_of_places(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new();
    struct spool_entry *entry = spool_entry_new(&fixture->spool, (struct message_id){1, 1});
    for (uint32_t round = 0; round < 3; round++) {
        while (entry->place_count < 70) {
            struct spool_place place = numbered(entry->place_count);
            spool_entry_add_place(entry, &place);
            for (uint32_t i = 0; i < entry->place_count; i++)
                assert_int_equal(8 * i, spool_entry_place(&fixture->spool, entry, i).offset);
        }
        while (entry->place_count > round) { /* the last: the others keep their numbers */
            spool_entry_remove_place(entry, entry->place_count - 1);
            for (uint32_t i = 0; i < entry->place_count; i++)
                assert_int_equal(8 * i, spool_entry_place(&fixture->spool, entry, i).offset);
        }
    }
    spool_entry_remove_place(entry, 0); /* of two: the other takes its number */
    assert_int_equal(1, entry->place_count);
    assert_int_equal(8, spool_entry_place(&fixture->spool, entry, 0).offset);
    spool_entry_remove_place(entry, 0);
    slab_release(&fixture->spool.entries, entry);
    fixture_free(fixture);
}

static void test_bodies_come_first(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new();
    struct spool_entry *entry = spool_entry_new(&fixture->spool, (struct message_id){1, 1});
    for (uint32_t i = 0; i < 3; i++) {
        struct spool_place place = numbered(i);
        place.kind = i < 2 ? SPOOL_PLACE_BODY : SPOOL_PLACE_PROGRESS;
        place.payload_size = 100 + i;
        spool_entry_add_place(entry, &place);
        if (i < 2)
            entry->body_count++;
    }
    assert_int_equal(SPOOL_PLACE_BODY, spool_entry_place(&fixture->spool, entry, 1).kind);
    assert_int_equal(SPOOL_PLACE_PROGRESS, spool_entry_place(&fixture->spool, entry, 2).kind);
    assert_int_equal(100, spool_entry_payload_size(entry, 0));
    assert_int_equal(101, spool_entry_payload_size(entry, 1));
    free(entry->spots);
    slab_release(&fixture->spool.entries, entry);
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_are_kept),
        cmocka_unit_test(test_any_number_of_places),
        cmocka_unit_test(test_bodies_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
