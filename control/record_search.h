/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_SEARCH_H
#define CONTROL_RECORD_SEARCH_H

#include <jansson.h>

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
    uint64_t passed;             /* of these: in binary, and no record */
    uint64_t left;               /* octets behind the bound that was reached */
    tick_us deadline;            /* by the clock of tick_source_system() */
};

/** Without bounds: the caller may set some. */
void record_search_init(struct record_search *search, struct message_id id);
/** False: a bound was reached before the end. */
bool record_search_file(struct record_search *search, const char *path);
/** A line that was found, for an answer: a record, or a text, in which all that is not ASCII is
 * escaped as in the log if it is not UTF-8. The caller frees it. */
json_t *record_search_row(struct span line);
/** By its first line. */
bool record_file_is_raw(const char *path);

#endif
