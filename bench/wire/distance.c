/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How far apart two processors are: nanoseconds for a cache line to the other one and back.
 *
 * Everything that two processes on two cores do with each other is paid in this coin. A virtual
 * machine's processors move: now they share a cache, a second later they do not, and a memif
 * carries a third of what it did. So every figure that takes two cores is reported with this one.
 *
 * usage: angarium-core-distance FIRST SECOND     prints the median of ROUNDS measurements
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"

#define ROUNDS 9u
#define HOPS   10000u /* there and back, each round */

/* The line that goes to and fro: odd is for the second processor, even for the first. */
struct shared {
    _Alignas(128) atomic_uint turn;
    _Alignas(128) int processor;
};

static void pin_to(int processor)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        fprintf(stderr, "angarium-core-distance: no processor %d for us\n", processor);
        exit(1);
    }
}

static void wait_for(struct shared *shared, unsigned turn)
{
    while (atomic_load_explicit(&shared->turn, memory_order_acquire) != turn)
        ;
}

static void *answer(void *pointer)
{
    struct shared *shared = pointer;

    pin_to(shared->processor);
    for (unsigned i = 0; i < ROUNDS * HOPS; i++) {
        wait_for(shared, 2 * i + 1);
        atomic_store_explicit(&shared->turn, 2 * i + 2, memory_order_release);
    }
    return NULL;
}

static double now(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (double)time.tv_sec * 1e9 + (double)time.tv_nsec;
}

static int compare(const void *a, const void *b)
{
    double left = *(const double *)a, right = *(const double *)b;

    return (left > right) - (left < right);
}

int main(int count, char **arguments)
{
    static struct shared shared;
    double rounds[ROUNDS];
    pthread_t thread;

    if (count != 3) {
        fprintf(stderr, "usage: angarium-core-distance FIRST SECOND\n");
        return 2;
    }
    shared.processor = atoi(arguments[2]);
    pin_to(atoi(arguments[1]));
    CHECK(pthread_create(&thread, NULL, answer, &shared) == 0);
    for (unsigned i = 0; i < ROUNDS * HOPS; i++) {
        if (i % HOPS == 0)
            rounds[i / HOPS] = now();
        atomic_store_explicit(&shared.turn, 2 * i + 1, memory_order_release);
        wait_for(&shared, 2 * i + 2);
        if (i % HOPS == HOPS - 1)
            rounds[i / HOPS] = now() - rounds[i / HOPS];
    }
    CHECK(pthread_join(thread, NULL) == 0);
    qsort(rounds, ROUNDS, sizeof(rounds[0]), compare);
    printf("%.0f\n", rounds[ROUNDS / 2] / HOPS);
    return 0;
}
