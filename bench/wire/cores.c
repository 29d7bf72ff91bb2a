/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What two processors are good for right now: how far apart they are, and how fast each is.
 *
 * Everything that two processes on two cores do with each other is paid in nanoseconds for a cache
 * line to the other one and back. A virtual machine's processors move: now they share a cache, a
 * second later they do not, and a memif carries a third of what it did. And each shares its core
 * with a sibling that works for somebody else, or rests: a loop that asks for all that a core can
 * do in a cycle then takes half as long again, or not. So every figure that takes two cores is
 * reported with these.
 *
 * usage: angarium-cores FIRST SECOND     prints nanoseconds there and back, and for the first and
 * the second how long a round of the loop takes, in microseconds: medians of ROUNDS and of LAPS
 */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "base/check.h"

#define ROUNDS 9u
#define HOPS   10000u /* there and back, each round */
#define LAPS   31u    /* of the loop, at the same time on both */
#define STEPS  100000u

/* The line that goes to and fro: odd is for the second processor, even for the first. */
struct shared {
    _Alignas(128) atomic_uint turn;
    _Alignas(128) int processor;
    double pace;
};

static void pin_to(int processor)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET((size_t)processor, &set);
    if (sched_setaffinity(0, sizeof(set), &set) != 0) {
        fprintf(stderr, "angarium-cores: no processor %d for us\n", processor);
        exit(1);
    }
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

static double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(values[0]), compare);
    return values[count / 2];
}

/* Six sums that do not wait for each other: as much in a cycle as a core can take. */
static uint64_t lap(uint64_t seed)
{
    uint64_t a = seed, b = 2, c = 3, d = 4, e = 5, f = 6;

    for (uint64_t i = 0; i < STEPS; i++) {
        a += b ^ i;
        b += c ^ i;
        c += d ^ i;
        d += e ^ i;
        e += f ^ i;
        f += a ^ i;
    }
    return a + b + c + d + e + f;
}

static double pace(void)
{
    double laps[LAPS];
    volatile uint64_t sum = 1;

    for (unsigned i = 0; i < LAPS; i++) {
        double begin = now();
        sum = lap(sum);
        laps[i] = now() - begin;
    }
    return median(laps, LAPS) / 1e3;
}

static void wait_for(struct shared *shared, unsigned turn)
{
    while (atomic_load_explicit(&shared->turn, memory_order_acquire) != turn)
        ;
}

static void *second(void *pointer)
{
    struct shared *shared = pointer;

    pin_to(shared->processor);
    for (unsigned i = 0; i < ROUNDS * HOPS; i++) {
        wait_for(shared, 2 * i + 1);
        atomic_store_explicit(&shared->turn, 2 * i + 2, memory_order_release);
    }
    shared->pace = pace();
    return NULL;
}

static double distance(struct shared *shared)
{
    double rounds[ROUNDS];

    for (unsigned round = 0; round < ROUNDS; round++) {
        double begin = now();
        for (unsigned i = round * HOPS; i < (round + 1) * HOPS; i++) {
            atomic_store_explicit(&shared->turn, 2 * i + 1, memory_order_release);
            wait_for(shared, 2 * i + 2);
        }
        rounds[round] = now() - begin;
    }
    return median(rounds, ROUNDS) / HOPS;
}

int main(int count, char **arguments)
{
    static struct shared shared;
    pthread_t thread;

    if (count != 3) {
        fprintf(stderr, "usage: angarium-cores FIRST SECOND\n");
        return 2;
    }
    shared.processor = atoi(arguments[2]);
    pin_to(atoi(arguments[1]));
    CHECK(pthread_create(&thread, NULL, second, &shared) == 0);
    double apart = distance(&shared), first = pace();
    CHECK(pthread_join(thread, NULL) == 0);
    printf("%.0f %.1f %.1f\n", apart, first, shared.pace);
    return 0;
}
