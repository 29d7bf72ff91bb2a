/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The end of a message in the spool, which may have to wait for its records.
 *
 *   ended -> DONE             records are not held for, and none is being replayed
 *   ended -> WAITING -> DONE  when all records up to this moment are kept
 *
 * What a WAITING message has come to is in the spool already, as PROGRESS
 * (qmgr_options.keeps_ends): after a crash it comes back as one of which nothing is due, its
 * records are replayed, and it ends again.
 *
 * Invariants
 *   1. Messages end in the order in which they came here: numbers of records only rise.
 *   2. A message that is read for a replay is not DONE before the read has ended, and what was then
 *      told is kept as well: it may have come here before.
 *
 * Limits: as many wait as mail ends while the sink is not yet behind; nothing new is begun then. At
 * the end of the process those that wait stay as they are, and end at the next start.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#define ENDS_SIZE_FIRST 64u
#define ENDS_LOOK_TIME  TICK_MS(50) /* records are kept by a thread that wakes nobody */

bool transfer_end_waits(const struct transfer *transfer)
{
    return transfer->options.records.is_holding || transfer->replays_active > 0 ||
           transfer->ends.count > 0;
}

static uint64_t record_number(const struct transfer *transfer)
{
    const struct record_sink *records = &transfer->options.records;

    return records->holder == NULL ? 0 : records->holder->emitted(records->context);
}

static uint64_t record_number_kept(const struct transfer *transfer)
{
    const struct record_sink *records = &transfer->options.records;

    return records->is_holding ? records->holder->kept(records->context) : UINT64_MAX;
}

static void ends_grow(struct transfer_ends *ends)
{
    uint32_t size = ends->size == 0 ? ENDS_SIZE_FIRST : 2 * ends->size;
    struct transfer_end *items = malloc(size * sizeof(*items));

    CHECK(items != NULL && size > ends->size);
    for (uint32_t i = 0; i < ends->count; i++)
        items[i] = ends->items[(ends->first + i) & (ends->size - 1)];
    free(ends->items);
    ends->items = items;
    ends->size = size;
    ends->first = 0;
}

void transfer_entry_end(struct transfer *transfer, struct spool_entry *entry)
{
    struct transfer_ends *ends = &transfer->ends;

    if (!transfer_end_waits(transfer)) {
        spool_done(transfer->options.spool, entry);
        return;
    }
    if (ends->count == ends->size)
        ends_grow(ends);
    ends->items[(ends->first + ends->count++) & (ends->size - 1)] =
        (struct transfer_end){entry, record_number(transfer)};
}

void transfer_ends_told(struct transfer *transfer)
{
    transfer->ends.told = record_number(transfer);
}

void transfer_ends_run(struct transfer *transfer)
{
    struct transfer_ends *ends = &transfer->ends;

    if (transfer->replays_active > 0) {
        transfer_replays_run(transfer);
        return;
    }
    uint64_t kept = ends->count == 0 ? 0 : record_number_kept(transfer);
    while (ends->count > 0 && ends->told <= kept && ends->items[ends->first].number <= kept) {
        spool_done(transfer->options.spool, ends->items[ends->first].entry);
        ends->first = (ends->first + 1) & (ends->size - 1);
        ends->count--;
    }
    const struct record_sink *records = &transfer->options.records;
    if (transfer->is_replay_told || !transfer->has_adopted || records->holder == NULL ||
        transfer->is_draining)
        return;
    transfer->is_replay_told = true;
    records->holder->replayed(records->context);
}

tick_us transfer_ends_deadline(const struct transfer *transfer)
{
    return transfer->ends.count + transfer->replays_active > 0 ? transfer->now.tick + ENDS_LOOK_TIME
                                                               : TICK_NEVER;
}

void transfer_ends_free(struct transfer *transfer)
{
    free(transfer->ends.items); /* entries are the spool's */
}
