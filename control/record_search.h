/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_SEARCH_H
#define CONTROL_RECORD_SEARCH_H

#include "base/tick.h"
#include "queue/envelope.h"

/*
 * The records of one message, from a file of records of any format and those that it was turned
 * over into, the oldest first. Blocks on the disk; one thread.
 */
#define RECORD_NEEDLE_SIZE (2 * MESSAGE_ID_TEXT_SIZE + 16u)

struct record_search {
    struct message_id id;
    /* What a line of the message has in it, in JSON and in accounting. */
    char json[RECORD_NEEDLE_SIZE], csv[RECORD_NEEDLE_SIZE];
    void *context;
    /* A line, of a record in binary as JSON; without its end. */
    void (*on_line)(void *context, struct span line);
    uint64_t found, found_max;   /* lines */
    uint64_t octets, octets_max; /* looked at */
    tick_us deadline;            /* by the clock of tick_source_system() */
};

/** Without bounds: the caller may set some. */
void record_search_init(struct record_search *search, struct message_id id);
/** False: a bound was reached before the end. */
bool record_search_file(struct record_search *search, const char *path);
/** By its first line. */
bool record_file_is_raw(const char *path);

#endif
