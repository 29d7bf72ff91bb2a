/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_WEBHOOK_CURSOR_H
#define CONTROL_WEBHOOK_CURSOR_H

#include "base/err.h"
#include "control/record_reader.h"

/* How far a webhook is, in a file of one line that is written over in place. */
struct webhook_cursor {
    int fd;
};

/**
 * Open, or make, the file of the webhook in the spool directory.
 *
 * What to read from: RECORD_READER_END for one that was just made, the place for one that says it,
 * else, after damage, the oldest records: twice is better than never.
 */
enum err webhook_cursor_open(struct webhook_cursor *cursor, const char *directory, const char *name,
                             enum record_reader_from *ret_from,
                             struct record_place *ret_place) MUST_CHECK;
/** False with errno. */
bool webhook_cursor_set(const struct webhook_cursor *cursor, const struct record_place *place);
void webhook_cursor_close(struct webhook_cursor *cursor);

#endif
