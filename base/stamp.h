/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_STAMP_H
#define BASE_STAMP_H

#include <stdint.h>
#include <time.h>

/*
 * The processor's time stamp counter: how long something of a few microseconds took, at some 20
 * cycles a look. Its rate is constant and unknown: whoever turns stamps into time measures it
 * against the kernel's clock (relay/stamps.c). It only measures: nothing is decided by it, so that
 * a run can be replayed (base/tick.h).
 */
static inline uint64_t stamp_read(void)
{
#ifdef __x86_64__
    return __builtin_ia32_rdtsc();
#else
    struct timespec time;

    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
#endif
}

#endif
