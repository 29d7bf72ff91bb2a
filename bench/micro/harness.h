/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_MICRO_HARNESS_H
#define BENCH_MICRO_HARNESS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A micro-benchmark: `run` does its work `iterations` times and Google Benchmark takes the time,
 * without set-up and tear-down. A row says what is measured in numbers; the value that is reported
 * is the median of several repetitions.
 */
struct micro_bench {
    const char *name;
    void *(*set_up)(void); /* what `run` gets; once per repetition */
    void (*run)(void *context, uint64_t iterations);
    void (*tear_down)(void *context);
    uint64_t items;  /* per iteration; the value is nanoseconds per item ... */
    uint64_t octets; /* ... or, if this is not 0, octets per iteration: gigabytes per second */
    const char *conditions;
};

/* The tables, each ended by a row without a name. */
extern const struct micro_bench micro_bench_base[];
extern const struct micro_bench micro_bench_ring[];
extern const struct micro_bench micro_bench_spool[];
extern const struct micro_bench micro_bench_dns[];
extern const struct micro_bench micro_bench_relay[];
extern const struct micro_bench micro_bench_wire[];
extern const struct micro_bench micro_bench_stack[];

/** Keep the compiler from leaving out what computes `value`. */
static inline void micro_keep(uint64_t value)
{
    __asm__ volatile("" : : "r"(value) : "memory");
}

#ifdef __cplusplus
}
#endif

#endif
