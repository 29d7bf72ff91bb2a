/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_CRASH_SPOOL_LEDGER_H
#define TESTS_CRASH_SPOOL_LEDGER_H

#include <sys/types.h>

#include "queue/spool.h"

/*
 * A process that fills a spool on a real directory and tells over a pipe what it was promised, a
 * ledger that believes it, and the audit of a directory against the ledger.
 */
#define LEDGER_MESSAGES_MAX 200000u

enum ledger_state {
    LEDGER_NONE,
    LEDGER_COMMITTING, /* may be present */
    LEDGER_LIVE,       /* must be present, whole */
    LEDGER_FINISHING,  /* DONE issued: may be present */
    LEDGER_GONE,       /* DONE durable, or once seen absent: must be absent */
};

struct ledger {
    uint8_t states[LEDGER_MESSAGES_MAX];
    uint32_t next; /* first key not used yet */
    uint32_t acknowledged, finished, violations;
    char first_violation[160];
};

/** Start the writer on the directory; `is_unsafe` plants a bug: syncs are left out. */
pid_t ledger_spawn(const char *path, enum disk_kind kind, uint32_t first_key, bool is_unsafe,
                   uint64_t seed, int *ret_pipe);
/** Take in what the writer says: at least `count` words, unless `tick` comes before, or its end. */
void ledger_listen(struct ledger *ledger, int pipe, uint32_t count, tick_us tick);
/** Recover the directory and compare. */
void ledger_audit(struct ledger *ledger, const char *path, enum disk_kind kind);

#endif
