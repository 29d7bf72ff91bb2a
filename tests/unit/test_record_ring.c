/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in their ring: what comes out is what went in, in order and numbered, at every size and
 * wherever a round ends; it is full at its limit and not before.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "control/record_raw.h"
#include "control/record_ring.h"

#define HOT_MAX (64 * 1024 + RECORD_RAW_SIZE_MAX) /* where the last of a short round may begin */

/* Sizes differ from record to record; `number` tells them apart. */
static struct record record_of(uint64_t number)
{
    struct record record = {.kind = RECORD_DELIVERY, .size = number, .flags = (uint16_t)number};

    memset(record.text, 'a' + (int)(number % 26), number * 37 % sizeof(record.text));
    memset(record.sender, 'A' + (int)(number % 26), number * 11 % sizeof(record.sender));
    return record;
}

/* The largest that there is. */
static struct record record_full(uint64_t number)
{
    struct record record = record_of(number);

    memset(record.tls, 'x', sizeof(record.tls) - 1);
    memset(record.host, 'x', sizeof(record.host) - 1);
    memset(record.site, 'x', sizeof(record.site) - 1);
    memset(record.source_name, 'x', sizeof(record.source_name) - 1);
    memset(record.user, 'x', sizeof(record.user) - 1);
    memset(record.sender, 'x', sizeof(record.sender) - 1);
    memset(record.recipient, 'x', sizeof(record.recipient) - 1);
    memset(record.text, 'x', sizeof(record.text) - 1);
    return record;
}

typedef struct record record_maker(uint64_t number);

/* Take at most `max` of what is there, the next is the one after `*number`; how many there were. */
static uint32_t take(struct record_ring *ring, uint32_t max, uint64_t *number, record_maker *make)
{
    uint8_t *octets;
    uint32_t count = record_ring_peek(ring, max, &octets), size = 0;

    assert_true(count <= max);
    if (count == 0)
        return 0;
    for (uint32_t i = 0; i < count; i++) {
        struct record expected = make(++*number), record;
        expected.sequence = *number;
        record_raw_unpack(octets + size, &record);
        assert_memory_equal(&expected, &record, sizeof(record));
        size += record_raw_seal(octets + size);
    }
    assert_true(octets >= ring->octets && octets + size <= ring->octets + ring->size);
    record_ring_drop(ring, count, size);
    return count;
}

static void push(struct record_ring *ring, uint64_t number, record_maker *make)
{
    struct record record = make(number);

    assert_false(record_ring_is_full(ring));
    record_ring_push(ring, &record);
}

/* Goal: at its limit it is full, one before it is not, whatever sizes, wherever a round ends. */
static void test_limit(void **state)
{
    static record_maker *const makers[] = {record_of, record_full};

    (void)state;
    for (uint32_t row = 0; row < 2; row++) {
        for (uint64_t limit = 1; limit <= 5; limit++) {
            struct record_ring ring;
            uint64_t pushed = 0, taken = 0;
            record_ring_init(&ring, limit);
            for (uint32_t round = 0; round < 1000; round++) {
                while (pushed - taken < limit)
                    push(&ring, ++pushed, makers[row]);
                assert_true(record_ring_is_full(&ring));
                take(&ring, 1 + round % (uint32_t)limit, &taken, makers[row]);
                assert_false(record_ring_is_full(&ring));
            }
            record_ring_free(&ring);
        }
    }
}

/* Goal: as many are pushed and taken as a seed says; none is lost, changed or out of order. */
static void test_any_order(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed <= 20; seed++) {
        struct record_ring ring;
        uint64_t pushed = 0, taken = 0;
        uint32_t dice = seed;
        record_ring_init(&ring, 1 + seed * 13);
        for (uint32_t round = 0; round < 2000; round++) {
            dice = dice * 1664525 + 1013904223;
            for (uint32_t i = dice >> 24; i > 0 && !record_ring_is_full(&ring); i--)
                push(&ring, ++pushed, record_of);
            for (uint32_t i = dice >> 16 & 7; i > 0; i--)
                take(&ring, dice >> 8 & 0xff, &taken, record_of);
        }
        while (take(&ring, 1, &taken, record_of) > 0)
            continue;
        assert_int_equal(pushed, taken);
        assert_int_equal(pushed, record_ring_tail(&ring));
        record_ring_free(&ring);
    }
}

/* Goal: a consumer that keeps up has the same few pages again and again. */
static void test_short_rounds(void **state)
{
    struct record_ring ring;
    uint64_t pushed = 0, taken = 0;
    size_t furthest = 0;

    (void)state;
    record_ring_init(&ring, 8192);
    while (pushed < 20000) {
        uint8_t *octets = ring.octets;
        for (uint32_t i = 0; i < 3; i++)
            push(&ring, ++pushed, record_full);
        (void)record_ring_peek(&ring, 1, &octets);
        if ((size_t)(octets - ring.octets) > furthest)
            furthest = (size_t)(octets - ring.octets);
        while (take(&ring, 2, &taken, record_full) > 0)
            continue;
    }
    assert_in_range(furthest, 32 * 1024, HOT_MAX);
    record_ring_free(&ring);
}

/* ---- two threads ---- */

#define RACE_COUNT 200000u

static void *race_push(void *argument)
{
    struct record_ring *ring = argument;

    for (uint64_t number = 1; number <= RACE_COUNT; number++) {
        struct record record = record_of(number);
        while (record_ring_is_full(ring))
            sched_yield();
        record_ring_push(ring, &record);
    }
    return NULL;
}

static void test_race(void **state)
{
    (void)state;
    for (uint64_t limit = 7; limit <= 700; limit *= 10) {
        struct record_ring ring;
        pthread_t thread;
        uint64_t taken = 0;
        record_ring_init(&ring, limit);
        assert_int_equal(0, pthread_create(&thread, NULL, race_push, &ring));
        while (taken < RACE_COUNT) {
            if (take(&ring, 64, &taken, record_of) == 0)
                sched_yield();
        }
        pthread_join(thread, NULL);
        assert_int_equal(RACE_COUNT, record_ring_head(&ring));
        record_ring_free(&ring);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_limit),
        cmocka_unit_test(test_any_order),
        cmocka_unit_test(test_short_rounds),
        cmocka_unit_test(test_race),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
