/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_EAL_H
#define DATAPLANE_WIRE_PORT_EAL_H

#include <sched.h>

#include "base/err.h"

/*
 * DPDK's Environment Abstraction Layer: one per process, started once, by the control thread before
 * shards run. All arguments it gets are made here.
 */
enum eal_huge {
    EAL_HUGE_AUTO,     /* huge pages if enough are free, else ordinary memory */
    EAL_HUGE_NEVER,    /* ordinary memory */
    EAL_HUGE_REQUIRED, /* or an error */
};

#define EAL_PCI_MAX       8u
#define EAL_ERROR_SIZE    256u
#define EAL_MEMORY_MB_MIN 16u
#define EAL_MEMORY_MB_MAX (1u << 20)

struct eal_options {
    uint32_t memory_mb; /* for all pools, rings and drivers */
    enum eal_huge huge;
    /* Physical ports: "0000:01:00.0", driver arguments may follow after a comma. */
    const char *const *pci_devices;
    uint32_t pci_count;
    const cpu_set_t *shard_cpus; /* the EAL's own threads keep off them; NULL: go where they like */
};

struct eal_report {
    bool has_huge_pages;
    char error[EAL_ERROR_SIZE]; /* what was wrong, for people; empty with ERR_OK */
};

/**
 * The EAL is up. The calling thread has its CPUs and signal mask as before and may allocate from
 * mempools.
 *
 * SIGIO is ignored from then on unless it had a handler: net_tap's file descriptors fall back to it
 * when real-time signals overflow, and its default ends the process. The EAL's interrupt thread
 * takes real-time signals, so that other threads may block them.
 *
 * Bounds:     memory_mb within EAL_MEMORY_MB_{MIN,MAX}, pci_count at most EAL_PCI_MAX.
 * Threading:  once per process; a second start, also after a failure, is an error.
 * Errors:     ERR_SYSTEM, with ret_report->error.
 */
enum err eal_start(const struct eal_options *options, struct eal_report *ret_report) MUST_CHECK;
/** After every port is closed and every pool freed. */
void eal_stop(void);

/** The calling thread is known to the EAL from here on: its mempool caches work. For shards.
 * Errors: ERR_LIMIT when too many threads are. */
enum err eal_thread_enter(void) MUST_CHECK;
void eal_thread_leave(void);

#endif
