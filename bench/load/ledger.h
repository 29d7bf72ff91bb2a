/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_LEDGER_H
#define BENCH_LOAD_LEDGER_H

#include "base/span.h"

/*
 * Ledgers: one event a line.
 *     S <id> <n>                  source: the end of a message for n accepted recipients was sent
 *     A <id> <code> <n>           source: the reply to it
 *     F <id> <code>               source: refused before that
 *     R <id> <recipient> ok|bad   sink: a message arrived, whole or damaged; id "-": nobody's of
 * ours
 */
struct ledger;

/** Append to `path`. NULL: told why on standard error. */
struct ledger *ledger_open(const char *path);
/** Numbers below 0 are left out. */
void ledger_source(struct ledger *ledger, char kind, uint64_t run, uint64_t number, int first,
                   int second);
void ledger_sink(struct ledger *ledger, const char *id, struct span recipient, bool is_whole);
/** Hand all lines to the kernel: once a turn, before replies leave. A failure ends the process. */
void ledger_flush(struct ledger *ledger);
void ledger_close(struct ledger *ledger);

struct audit_sum {
    unsigned long long sent, acknowledged, delivered, lost, damaged, ghosts, duplicated, deferred,
        refused, unknown, foreign;
};
/** Compare ledgers, in any order. `recipients`: of messages whose lines do not say. False: a file
 * could not be read, told why on standard error. */
bool audit_files(int path_count, char *const *paths, uint32_t recipients,
                 struct audit_sum *ret_sum) MUST_CHECK;
bool audit_is_clean(const struct audit_sum *sum);
void audit_print(const struct audit_sum *sum, bool is_json);

#endif
