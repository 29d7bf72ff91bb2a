/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every turn of a shard does many times: timers, buffers, slices, random numbers.
 *
 * The wheel is filled with 10,000 armed timers, deadlines spread over five minutes, as in a shard
 * with that many sessions. An iteration of timer_rearm takes the next of them in a shuffled order,
 * moves its deadline and, every 100 iterations, lets a millisecond pass.
 */
#include "bench/micro/harness.h"

#include <stdlib.h>

#include "base/buf.h"
#include "base/rng.h"
#include "base/wheel.h"

#define TIMERS 10000u

struct wheel_context {
    struct wheel wheel;
    struct wheel_timer timers[TIMERS];
    tick_us delays[TIMERS];
    tick_us now;
    uint32_t next;
};

static void *wheel_set_up(void)
{
    struct wheel_context *context = calloc(1, sizeof(*context));
    struct rng rng;

    CHECK(context != NULL);
    rng_init_seed(&rng, 1);
    wheel_init(&context->wheel, 0);
    for (uint32_t i = 0; i < TIMERS; i++) {
        context->delays[i] = rng_below(&rng, 300u * 1000 * 1000);
        wheel_arm(&context->wheel, &context->timers[i], context->delays[i]);
    }
    return context;
}

static void wheel_rearm(void *pointer, uint64_t iterations)
{
    struct wheel_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++) {
        uint32_t at = context->next;

        wheel_arm(&context->wheel, &context->timers[at], context->now + context->delays[at]);
        context->next = (at + 7919) % TIMERS;
        if (i % 100 == 0) {
            context->now += 1000;
            while (wheel_expire_next(&context->wheel, context->now) != NULL)
                ;
        }
    }
}

static void wheel_arm_cancel(void *pointer, uint64_t iterations)
{
    struct wheel_context *context = pointer;
    struct wheel_timer timer = {0};

    for (uint64_t i = 0; i < iterations; i++) {
        wheel_arm(&context->wheel, &timer, context->delays[i % TIMERS]);
        wheel_cancel(&context->wheel, &timer);
    }
}

static void *pool_set_up(void)
{
    return buf_pool_new(&(struct buf_pool_options){.data_size = 2048, .count_max = 4096});
}

static void pool_tear_down(void *pool)
{
    buf_pool_free(pool);
}

static void pool_acquire_release(void *pool, uint64_t iterations)
{
    for (uint64_t i = 0; i < iterations; i++) {
        struct buf *buf = buf_acquire(pool);

        micro_keep((uint64_t)(uintptr_t)buf);
        buf_release(buf);
    }
}

/* One buffer of a body on its way through: received, appended, sent. */
static void queue_append_drop(void *pool, uint64_t iterations)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    for (uint64_t i = 0; i < iterations; i++) {
        struct buf *buf = buf_acquire(pool);

        buf_extend(buf, 1448);
        buf_queue_append(&queue, buf, BUF_HEADROOM, 1448);
        buf_release(buf);
        if (queue.count == 7)
            buf_queue_drop(&queue, queue.size);
    }
    buf_queue_fini(&queue);
}

static void *rng_set_up(void)
{
    struct rng *rng = malloc(sizeof(*rng));

    CHECK(rng != NULL);
    rng_init_seed(rng, 1);
    return rng;
}

static void rng_draw(void *rng, uint64_t iterations)
{
    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(rng_u32(rng));
}

const struct micro_bench micro_bench_base[] = {
    {"timer_rearm", wheel_set_up, wheel_rearm, free, 1, 0,
     "10,000 timers armed within 300 s, 1 ms passes every 100, 1 core"},
    {"timer_arm_cancel", wheel_set_up, wheel_arm_cancel, free, 1, 0,
     "arm and cancel one timer, 10,000 others armed, 1 core"},
    {"buf_acquire_release", pool_set_up, pool_acquire_release, pool_tear_down, 1, 0,
     "slab pool, 2,048 octets, 1 core"},
    {"buf_queue_append_drop", pool_set_up, queue_append_drop, pool_tear_down, 1, 0,
     "acquire, append 1,448 octets, drop, per buffer, 1 core"},
    {"rng_u32", rng_set_up, rng_draw, free, 1, 0, "ChaCha20 with key erasure, 1 core"},
    {0},
};
