/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The position of records, one line of fixed size that is written over in place, so that it needs
 * no room on a full disk and is in one sector:
 *
 *   "angarium records 1 " microseconds since 1970, 20 digits "\n"
 */
#include "control/record_position.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"

#define MAGIC     "angarium records 1 "
#define LINE_SIZE (sizeof(MAGIC) - 1 + 20 + 1)

static wall_us line_parse(const char *line, ssize_t size)
{
    char *end;

    if (size != (ssize_t)LINE_SIZE || memcmp(line, MAGIC, sizeof(MAGIC) - 1) != 0)
        return INT64_MAX;
    errno = 0;
    wall_us wall = strtoll(line + sizeof(MAGIC) - 1, &end, 10);
    return errno != 0 || *end != '\n' || wall < 0 ? INT64_MAX : wall;
}

enum err record_position_open(struct record_position *position, const char *path, bool must_sync)
{
    *position = (struct record_position){.must_sync = must_sync};
    position->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (position->fd < 0)
        return ERR_SYSTEM;
    return ERR_OK;
}

void record_position_none(struct record_position *position)
{
    *position = (struct record_position){.fd = -1};
}

wall_us record_position_get(const struct record_position *position)
{
    char line[LINE_SIZE + 1] = "";

    return position->fd < 0 ? INT64_MAX : line_parse(line, pread(position->fd, line, LINE_SIZE, 0));
}

void record_position_set(struct record_position *position, wall_us wall)
{
    char line[LINE_SIZE + 1];

    if (position->fd < 0 || wall < 0)
        return;
    (void)snprintf(line, sizeof(line), MAGIC "%020" PRId64 "\n", wall);
    if (pwrite(position->fd, line, LINE_SIZE, 0) == (ssize_t)LINE_SIZE &&
        (!position->must_sync || fdatasync(position->fd) == 0))
        return;
    if (!position->has_failed)
        log_line(LOG_ERROR,
                 "records: their position cannot be kept, more are written again after "
                 "a crash: %s",
                 strerror(errno));
    position->has_failed = true;
}

void record_position_close(struct record_position *position)
{
    if (position->fd >= 0)
        close(position->fd);
    position->fd = -1;
}
