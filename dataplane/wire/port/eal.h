/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_EAL_H
#define DATAPLANE_WIRE_PORT_EAL_H

#include <sched.h>

#include "base/err.h"

/*
 * DPDK's Environment Abstraction Layer: one per process, started once, by the control thread before
 * shards run, and there until the process ends. All arguments it gets are made here.
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
    /* For all pools, rings and drivers, taken at the start. With huge pages more can be had later,
     * as long as some are free. */
    uint32_t memory_mb;
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

/** NIC_STACK_FLAG is `owner`'s, and nobody else's. eal_start() claims it for the stack.
 * Errors: ERR_SYSTEM when it is another's already, with ret_report->error. */
enum err eal_flag_claim(const char *owner, struct eal_report *ret_report) MUST_CHECK;

/** The calling thread is known to the EAL from here on: its mempool caches work. For shards.
 * Errors: ERR_LIMIT when too many threads are. */
enum err eal_thread_enter(void) MUST_CHECK;
void eal_thread_leave(void);

/** Returns after run(context) did, in the thread in which drivers handle interrupts, connections
 * and alarms: nothing of these runs at the same time. Threading: not from that thread. */
void eal_run_in_interrupt_thread(void (*run)(void *context), void *context);

/** What DPDK complains of goes to `text`, too, the first complaint only: the others follow from it.
 * NULL ends it. For calls whose own results are mere numbers. Threading: control thread. */
void eal_complaints_to(char *text, uint32_t size);

#endif
