/* SPDX-License-Identifier: Apache-2.0 */
/*
 * webhook.NAME in the spool directory:
 *
 *   "angarium webhook 1 " inode " " birth " " offset "\n"        each of 20 digits
 *
 * It needs no room on a full disk. It is not synced: after a loss of power an older place costs
 * batches that are posted again.
 */
#include "control/webhook_cursor.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAGIC     "angarium webhook 1 "
#define LINE_SIZE (sizeof(MAGIC) - 1 + 3 * 21)
#define PATH_SIZE 4200u

static bool line_parse(const char *line, ssize_t size, struct record_place *ret_place)
{
    int end = 0;

    return size == (ssize_t)LINE_SIZE && line[LINE_SIZE - 1] == '\n' &&
           sscanf(line, MAGIC "%20" SCNu64 " %20" SCNu64 " %20" SCNu64 "%n", &ret_place->inode,
                  &ret_place->birth, &ret_place->offset, &end) == 3 &&
           end == (int)LINE_SIZE - 1;
}

enum err webhook_cursor_open(struct webhook_cursor *cursor, const char *directory, const char *name,
                             enum record_reader_from *ret_from, struct record_place *ret_place)
{
    char path[PATH_SIZE], line[LINE_SIZE + 1] = "";
    struct record_place place = {0};

    (void)snprintf(path, sizeof(path), "%s/webhook.%s", directory, name);
    bool is_new = access(path, F_OK) != 0 && errno == ENOENT;
    cursor->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (cursor->fd < 0)
        return ERR_SYSTEM;
    bool is_known = line_parse(line, pread(cursor->fd, line, LINE_SIZE, 0), &place);
    *ret_from = is_new ? RECORD_READER_END : is_known ? RECORD_READER_PLACE : RECORD_READER_OLDEST;
    *ret_place = place;
    return ERR_OK;
}

bool webhook_cursor_set(const struct webhook_cursor *cursor, const struct record_place *place)
{
    char line[LINE_SIZE + 1];

    (void)snprintf(line, sizeof(line), MAGIC "%020" PRIu64 " %020" PRIu64 " %020" PRIu64 "\n",
                   place->inode, place->birth, place->offset);
    return pwrite(cursor->fd, line, LINE_SIZE, 0) == (ssize_t)LINE_SIZE;
}

void webhook_cursor_close(struct webhook_cursor *cursor)
{
    close(cursor->fd);
}
