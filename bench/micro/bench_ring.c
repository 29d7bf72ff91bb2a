/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages between cores.
 *
 * ring_hop: the main thread on one processor sends a message, a second thread on another one sends
 * it back, both looking without pause; an iteration is two hops. ring_stream: messages one way in
 * bursts of 32, the second thread answers each burst with one message.
 */
#include "bench/micro/harness.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "queue/ring.h"

#define BURST 32u

enum { KIND_ECHO = 1, KIND_COUNT, KIND_STOP };

struct ring_context {
    struct ring_group *group;
    pthread_t thread;
};

static void pin_to(uint32_t nth)
{
    cpu_set_t allowed, one;

    CHECK(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &allowed) && nth-- == 0) {
            CPU_SET(cpu, &one);
            CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
            return;
        }
    }
}

static void ring_wait(struct ring_member *member, struct ring_message *ret_message)
{
    while (ring_receive(member, ret_message) != ERR_OK)
        __builtin_ia32_pause();
}

static void *ring_other_side(void *pointer)
{
    struct ring_member *member = ring_member_get(pointer, 1);
    struct ring_message message;
    uint32_t counted = 0;

    pin_to(1);
    for (;;) {
        ring_wait(member, &message);
        if (message.kind == KIND_STOP)
            return NULL;
        if (message.kind == KIND_COUNT && ++counted % BURST != 0)
            continue;
        message.is_reply = true;
        ring_send(member, 0, &message);
    }
}

static void *ring_set_up(void)
{
    struct ring_context *context = calloc(1, sizeof(*context));

    CHECK(context != NULL);
    context->group = ring_group_new(2, 1024);
    CHECK(pthread_create(&context->thread, NULL, ring_other_side, context->group) == 0);
    return context;
}

static void ring_tear_down(void *pointer)
{
    struct ring_context *context = pointer;
    struct ring_message stop = {.kind = KIND_STOP};

    ring_send(ring_member_get(context->group, 0), 1, &stop);
    pthread_join(context->thread, NULL);
    ring_group_free(context->group);
    free(context);
}

/* The main thread keeps to its processor only while it measures. */
static void ring_run(void *pointer, uint64_t iterations, uint16_t kind, uint32_t burst)
{
    struct ring_member *member = ring_member_get(((struct ring_context *)pointer)->group, 0);
    struct ring_message message = {.kind = kind, .payload_size = RING_MESSAGE_PAYLOAD}, reply;
    cpu_set_t before;

    CHECK(sched_getaffinity(0, sizeof(before), &before) == 0);
    pin_to(0);
    for (uint64_t i = 0; i < iterations; i++) {
        for (uint32_t sent = 0; sent < burst; sent++)
            ring_send(member, 1, &message);
        ring_wait(member, &reply);
    }
    CHECK(sched_setaffinity(0, sizeof(before), &before) == 0);
}

static void ring_hop(void *pointer, uint64_t iterations)
{
    ring_run(pointer, iterations, KIND_ECHO, 1);
}

static void ring_stream(void *pointer, uint64_t iterations)
{
    ring_run(pointer, iterations, KIND_COUNT, BURST);
}

const struct micro_bench micro_bench_ring[] = {
    {"ring_hop", ring_set_up, ring_hop, ring_tear_down, 2, 0,
     "120-octet message to another core and back, per hop, 2 cores polling"},
    {"ring_stream", ring_set_up, ring_stream, ring_tear_down, BURST, 0,
     "bursts of 32 messages one way, per message, 2 cores polling"},
    {0},
};
