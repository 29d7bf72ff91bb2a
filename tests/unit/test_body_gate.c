/* SPDX-License-Identifier: Apache-2.0 */
/* The gate for large bodies, at each of its bounds, both sides. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "relay/body_gate.h"

#define SIZE_MIN (BODY_GATE_OCTETS / BODY_GATE_PLACES)
#define NOW      TICK_S(5)

static struct body_gate gate;

static int set_up(void **state)
{
    (void)state;
    body_gate_init(&gate, BODY_GATE_OCTETS);
    return 0;
}

static void test_small_ones_pass(void **state)
{
    (void)state;
    assert_false(body_gate_is_for(&gate, SIZE_MIN - 1));
    assert_true(body_gate_is_for(&gate, SIZE_MIN));
    assert_true(body_gate_is_for(&gate, UINT64_MAX));
}

/* As many as may be of the smallest, and not one more. */
static void test_room(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < BODY_GATE_PLACES; i++) {
        assert_true(body_gate_has_room(&gate, SIZE_MIN, NOW));
        assert_int_not_equal(BODY_GATE_NO_PLACE, body_gate_enter(&gate, SIZE_MIN, i, NOW));
    }
    assert_int_equal(BODY_GATE_OCTETS, gate.octets);
    assert_false(body_gate_has_room(&gate, SIZE_MIN, NOW));
}

static void test_room_to_the_octet(void **state)
{
    (void)state;
    body_gate_enter(&gate, BODY_GATE_OCTETS / 2, 1, NOW);
    assert_true(body_gate_has_room(&gate, BODY_GATE_OCTETS / 2, NOW));
    assert_false(body_gate_has_room(&gate, BODY_GATE_OCTETS / 2 + 1, NOW));
}

/* A body that is larger than all room comes alone. */
static void test_giant(void **state)
{
    (void)state;
    uint8_t place = body_gate_enter(&gate, UINT64_MAX, 1, NOW);
    assert_false(body_gate_has_room(&gate, SIZE_MIN, NOW));
    body_gate_leave(&gate, place, 1);
    assert_int_equal(0, gate.octets);
    body_gate_enter(&gate, SIZE_MIN, 2, NOW);
    assert_false(body_gate_has_room(&gate, UINT64_MAX, NOW));
}

/* Slow ones hold a place for a while and no longer. */
static void test_time(void **state)
{
    (void)state;
    assert_int_equal(TICK_NEVER, body_gate_deadline(&gate));
    body_gate_enter(&gate, BODY_GATE_OCTETS, 1, NOW);
    assert_int_equal(NOW + BODY_GATE_PLACE_TIME, body_gate_deadline(&gate));
    assert_false(body_gate_has_room(&gate, SIZE_MIN, NOW + BODY_GATE_PLACE_TIME - 1));
    assert_true(body_gate_has_room(&gate, SIZE_MIN, NOW + BODY_GATE_PLACE_TIME));
    assert_int_equal(TICK_NEVER, body_gate_deadline(&gate));
}

/* The oldest goes first, and the deadline is the next one's then. */
static void test_one_after_another(void **state)
{
    (void)state;
    body_gate_enter(&gate, BODY_GATE_OCTETS / 2, 1, NOW);
    body_gate_enter(&gate, BODY_GATE_OCTETS / 2, 2, NOW + 1000);
    assert_true(body_gate_has_room(&gate, BODY_GATE_OCTETS / 2, NOW + BODY_GATE_PLACE_TIME));
    assert_false(body_gate_has_room(&gate, BODY_GATE_OCTETS / 2 + 1, NOW + BODY_GATE_PLACE_TIME));
    assert_int_equal(NOW + 1000 + BODY_GATE_PLACE_TIME, body_gate_deadline(&gate));
}

/* A place that was given away belongs to whoever has it now. */
static void test_left_too_late(void **state)
{
    (void)state;
    uint8_t old = body_gate_enter(&gate, BODY_GATE_OCTETS, 1, NOW);
    uint8_t now = body_gate_enter(&gate, BODY_GATE_OCTETS, 2, NOW + BODY_GATE_PLACE_TIME);
    assert_int_equal(old, now);
    body_gate_leave(&gate, old, 1);
    assert_int_equal(BODY_GATE_OCTETS, gate.octets);
    body_gate_leave(&gate, now, 2);
    body_gate_leave(&gate, now, 2);
    body_gate_leave(&gate, BODY_GATE_NO_PLACE, 2);
    assert_int_equal(0, gate.octets);
    assert_int_equal(0, gate.count);
}

/* What the sums and the deadline have to be, counted anew. */
static void verify(tick_us now)
{
    uint64_t octets = 0;
    uint32_t count = 0;

    for (uint32_t i = 0; i < BODY_GATE_PLACES; i++) {
        const struct body_gate_place *place = &gate.places[i];
        octets += place->octets;
        count += place->octets != 0;
        if (place->octets != 0) {
            assert_true(body_gate_deadline(&gate) <= place->expires);
            assert_true(place->expires <= now + BODY_GATE_PLACE_TIME);
        }
    }
    assert_int_equal(octets, gate.octets);
    assert_int_equal(count, gate.count);
    assert_true(octets <= BODY_GATE_OCTETS);
}

/* Whoever enters, leaves, leaves twice or too late, at random: the invariants hold, and nothing is
 * in use when the time of all is over. */
static void test_random(void **state)
{
    static uint8_t places[64];
    tick_us now = NOW;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t owner = rng_below(&rng, COUNT_OF(places));
        uint64_t size = SIZE_MIN + rng_below(&rng, i % 100 == 0 ? 2 * BODY_GATE_OCTETS : 200000);
        now += rng_below(&rng, 400);
        body_gate_leave(&gate, places[owner], owner);
        if (rng_below(&rng, 2) == 0)
            places[owner] = BODY_GATE_NO_PLACE;
        if (rng_below(&rng, 4) != 0 && body_gate_has_room(&gate, size, now))
            places[owner] = body_gate_enter(&gate, size, owner, now);
        verify(now);
    }
    assert_true(body_gate_has_room(&gate, UINT64_MAX, now + BODY_GATE_PLACE_TIME));
    assert_int_equal(0, gate.count);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_small_ones_pass, set_up),
        cmocka_unit_test_setup(test_room, set_up),
        cmocka_unit_test_setup(test_room_to_the_octet, set_up),
        cmocka_unit_test_setup(test_giant, set_up),
        cmocka_unit_test_setup(test_time, set_up),
        cmocka_unit_test_setup(test_one_after_another, set_up),
        cmocka_unit_test_setup(test_left_too_late, set_up),
        cmocka_unit_test_setup(test_random, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
