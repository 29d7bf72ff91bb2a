/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The wheel against a model: an unsorted table of deadlines, searched whole. A seeded walk arms,
 * moves and cancels timers over years of virtual time and checks after every step that exactly
 * those fired whose time had come: never early, and at the first look a millisecond after it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "base/wheel.h"

#define TIMERS 64u

struct fixture {
    struct wheel wheel;
    struct wheel_timer timers[TIMERS];
    bool is_armed[TIMERS];
    tick_us now;
    struct rng rng;
};

static void fixture_init(struct fixture *f, tick_us now, uint64_t seed)
{
    *f = (struct fixture){.now = now};
    wheel_init(&f->wheel, now);
    rng_init_seed(&f->rng, seed);
}

/* When the timer must have fired at the latest: its deadline rounded up to a millisecond. */
static tick_us latest(tick_us deadline)
{
    return (deadline + 999) / 1000 * 1000;
}

static void fixture_verify(const struct fixture *f)
{
    tick_us earliest = TICK_NEVER;
    uint64_t armed = 0;

    for (uint32_t i = 0; i < TIMERS; i++) {
        assert_int_equal(f->is_armed[i], wheel_is_armed(&f->timers[i]));
        if (!f->is_armed[i])
            continue;
        armed++;
        if (latest(f->timers[i].deadline) < earliest)
            earliest = latest(f->timers[i].deadline);
    }
    assert_int_equal(armed, f->wheel.armed);
    tick_us deadline = wheel_deadline(&f->wheel);
    if (armed == 0)
        assert_true(deadline == TICK_NEVER);
    else
        assert_true(deadline <= earliest || deadline <= f->now);
}

/* What a handler may do in the middle of expiry. */
static void meddle(struct fixture *f)
{
    uint32_t i = rng_below(&f->rng, TIMERS);

    if (rng_below(&f->rng, 2) == 0) {
        wheel_cancel(&f->wheel, &f->timers[i]);
        f->is_armed[i] = false;
    } else {
        wheel_arm(&f->wheel, &f->timers[i], f->now + rng_below(&f->rng, 5000));
        f->is_armed[i] = true;
    }
}

static void advance(struct fixture *f, tick_us by)
{
    struct wheel_timer *timer;
    uint32_t fired = 0;

    f->now += by;
    while ((timer = wheel_expire_next(&f->wheel, f->now)) != NULL) {
        uint32_t i = (uint32_t)(timer - f->timers);

        assert_true(i < TIMERS && f->is_armed[i]);
        assert_false(wheel_is_armed(timer));
        assert_true(timer->deadline <= f->now);
        f->is_armed[i] = false;
        if (++fired < 10 && rng_below(&f->rng, 3) == 0)
            meddle(f);
    }
    for (uint32_t i = 0; i < TIMERS; i++)
        assert_false(f->is_armed[i] && latest(f->timers[i].deadline) <= f->now);
}

/* A span of time of any magnitude up to `bits` bits of microseconds. */
static tick_us any_time(struct rng *rng, uint32_t bits)
{
    return rng_u64(rng) >> (64 - 1 - rng_below(rng, bits));
}

static void walk(struct fixture *f, uint32_t steps, uint32_t arm_bits, uint32_t advance_bits)
{
    for (uint32_t step = 0; step < steps; step++) {
        uint32_t i = rng_below(&f->rng, TIMERS);

        switch (rng_below(&f->rng, 8)) {
        case 0:
            wheel_cancel(&f->wheel, &f->timers[i]);
            f->is_armed[i] = false;
            break;
        case 1: { /* into the past, or this very moment */
            tick_us past = any_time(&f->rng, 30);

            wheel_arm(&f->wheel, &f->timers[i], past < f->now ? f->now - past : f->now);
            f->is_armed[i] = true;
            break;
        }
        case 2:
        case 3:
            advance(f, any_time(&f->rng, advance_bits));
            break;
        case 4: { /* exactly to the time the wheel asks for */
            tick_us deadline = wheel_deadline(&f->wheel);

            advance(f, deadline != TICK_NEVER && deadline > f->now ? deadline - f->now : 0);
            break;
        }
        default:
            wheel_arm(&f->wheel, &f->timers[i], f->now + any_time(&f->rng, arm_bits));
            f->is_armed[i] = true;
            break;
        }
        fixture_verify(f);
    }
}

static void test_walks(void **state)
{
    static const struct {
        const char *name;
        tick_us start;
        uint32_t arm_bits, advance_bits;
    } cases[] = {
        {"milliseconds", 0, 14, 12},
        {"a second", 999, 20, 18},
        {"an hour", TICK_S(86400), 32, 30},
        {"a year", 12345678, 45, 43},
        {"far, in small steps", 1, 50, 20},
        {"across 49.7 days", TICK_S(4294967) - 100000, 24, 22},
        {"old machine, far timers", TICK_S(86400u * 3650u), 46, 44},
    };
    static struct fixture fixture;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        fixture_init(&fixture, cases[i].start, i + 1);
        walk(&fixture, 20000, cases[i].arm_bits, cases[i].advance_bits);
    }
}

/* Goal: never early, and at the first millisecond at or after the deadline, for deadlines on both
 * sides of every boundary between levels. */
static void test_edges_of_levels(void **state)
{
    static const uint64_t boundaries[] = {
        1, 256, 65536, 16777216, UINT64_C(4278190080), UINT64_C(1) << 32, UINT64_C(1) << 36};
    static const tick_us starts[] = {0, 1, 255 * 1000, 65535999, TICK_S(16777), TICK_S(4294967)};
    static struct fixture f;

    (void)state;
    for (size_t s = 0; s < COUNT_OF(starts); s++) {
        for (size_t b = 0; b < COUNT_OF(boundaries); b++) {
            for (int shift = -1001; shift <= 1001; shift += 77) {
                tick_us now = starts[s];
                tick_us deadline = now + boundaries[b] * 1000 + (tick_us)shift;

                if ((int64_t)deadline <= (int64_t)now)
                    continue;
                fixture_init(&f, now, 1);
                wheel_arm(&f.wheel, &f.timers[0], deadline);
                assert_null(wheel_expire_next(&f.wheel, deadline - 1));
                assert_ptr_equal(&f.timers[0], wheel_expire_next(&f.wheel, latest(deadline)));
                assert_null(wheel_expire_next(&f.wheel, latest(deadline)));
                assert_int_equal(0, f.wheel.armed);
            }
        }
    }
}

static void test_never_is_never(void **state)
{
    static struct fixture f;

    (void)state;
    fixture_init(&f, 5, 1);
    wheel_arm(&f.wheel, &f.timers[0], TICK_NEVER);
    assert_null(wheel_expire_next(&f.wheel, TICK_S(86400) * 3650));
    assert_true(wheel_is_armed(&f.timers[0]));
    wheel_cancel(&f.wheel, &f.timers[0]);
    assert_true(wheel_deadline(&f.wheel) == TICK_NEVER);
    wheel_cancel(&f.wheel, &f.timers[0]);
    assert_int_equal(0, f.wheel.armed);
}

/* Goal: due timers come out in the order of their milliseconds, also after a long sleep. */
static void test_order(void **state)
{
    static const tick_us deadlines[] = {TICK_S(70), TICK_MS(3), TICK_S(3600), TICK_MS(300), 500};
    static const uint32_t order[] = {4, 1, 3, 0, 2};
    static struct fixture f;

    (void)state;
    fixture_init(&f, 0, 1);
    for (uint32_t i = 0; i < COUNT_OF(deadlines); i++) {
        f.timers[i].kind = i;
        wheel_arm(&f.wheel, &f.timers[i], deadlines[i]);
    }
    for (uint32_t i = 0; i < COUNT_OF(order); i++)
        assert_int_equal(order[i], wheel_expire_next(&f.wheel, TICK_S(4000))->kind);
}

/* Goal: a timer that is due but not handed out yet can still be cancelled or moved. */
static void test_cancel_and_move_while_due(void **state)
{
    static struct fixture f;

    (void)state;
    fixture_init(&f, 0, 1);
    for (uint32_t i = 0; i < 4; i++)
        wheel_arm(&f.wheel, &f.timers[i], 1000);
    assert_ptr_equal(&f.timers[0], wheel_expire_next(&f.wheel, 2000));
    wheel_cancel(&f.wheel, &f.timers[1]);
    wheel_arm(&f.wheel, &f.timers[2], 9000);
    wheel_arm(&f.wheel, &f.timers[0], 2000); /* for now: the same round */
    assert_ptr_equal(&f.timers[3], wheel_expire_next(&f.wheel, 2000));
    assert_ptr_equal(&f.timers[0], wheel_expire_next(&f.wheel, 2000));
    assert_null(wheel_expire_next(&f.wheel, 8999));
    assert_ptr_equal(&f.timers[2], wheel_expire_next(&f.wheel, 9000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_walks),
        cmocka_unit_test(test_edges_of_levels),
        cmocka_unit_test(test_never_is_never),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_cancel_and_move_while_due),
    };
    return cmocka_run_group_tests_name("wheel", tests, NULL, NULL);
}
