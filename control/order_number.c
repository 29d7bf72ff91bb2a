/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers rise with time, a second each, so that they come round after 48 days only, when the mail
 * of that time is gone. Who orders faster runs ahead of the clock, and the clock may be set back:
 * then the next is one more than the last. How far that went is in the file `orders`, written a
 * number of steps ahead, so that a script's orders do not each wait for the disk.
 *
 *   "angarium orders 1\n" number "\n"
 *
 * Invariant: every number given so far is at or before the one in the file, if that could be
 * written. If not, the log says so, and orders are carried out all the same.
 */
#include "control/order_number.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/span.h"
#include "control/keeper_source.h"

#define KEPT_MAGIC "angarium orders 1\n"
#define KEPT_AHEAD 64u
#define PATH_SIZE  4200u

/* On the circle of numbers. */
static bool is_behind(uint32_t number, uint32_t other)
{
    return ((number - other) & QMGR_ORDER_ID_MAX) > QMGR_ORDER_ID_MAX / 2;
}

static bool file_write(const char *path, uint32_t number)
{
    char text[64];
    int size = snprintf(text, sizeof(text), KEPT_MAGIC "%u\n", number);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return false;
    bool is_written = keeper_octets_write(fd, text, (size_t)size) && fdatasync(fd) == 0;
    return close(fd) == 0 && is_written;
}

static void keep(struct order_numbers *numbers)
{
    char path[PATH_SIZE], beside[PATH_SIZE];

    if (numbers->directory == NULL)
        return;
    uint32_t kept = (numbers->last + KEPT_AHEAD) & QMGR_ORDER_ID_MAX;
    (void)snprintf(path, sizeof(path), "%s/orders", numbers->directory);
    (void)snprintf(beside, sizeof(beside), "%s/orders.new", numbers->directory);
    if (!file_write(beside, kept) || rename(beside, path) != 0)
        log_line(LOG_WARNING, "orders=%s: the number of an order could not be kept: %s", path,
                 strerror(errno));
    else
        numbers->kept = kept;
}

void order_numbers_load(struct order_numbers *numbers, const char *directory)
{
    char path[PATH_SIZE], text[64];
    uint64_t number;

    *numbers = (struct order_numbers){.directory = directory};
    if (directory == NULL)
        return;
    (void)snprintf(path, sizeof(path), "%s/orders", directory);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return;
    ssize_t size = read(fd, text, sizeof(text));
    (void)close(fd);
    struct span rest = span_of(text, size > 0 ? (uint32_t)size : 0);
    bool is_whole = rest.size > sizeof(KEPT_MAGIC) - 1 && rest.data[rest.size - 1] == '\n' &&
                    span_has_prefix_nocase(rest, SPAN_LITERAL(KEPT_MAGIC));
    rest = is_whole ? span_skip(span_head(rest, rest.size - 1), sizeof(KEPT_MAGIC) - 1) : rest;
    if (!is_whole || span_parse_u64(rest, &number) != ERR_OK || number > QMGR_ORDER_ID_MAX) {
        log_line(LOG_WARNING, "orders=%s: is damaged: numbers begin with the time", path);
        return;
    }
    numbers->last = numbers->kept = (uint32_t)number;
    numbers->is_known = true;
}

uint32_t order_numbers_next(struct order_numbers *numbers, wall_us now)
{
    uint32_t next = (uint32_t)(now / 1000000) & QMGR_ORDER_ID_MAX;

    if (numbers->is_known && (next == numbers->last || is_behind(next, numbers->last)))
        next = numbers->last + 1;
    numbers->last = next == 0 || next > QMGR_ORDER_GIVEN_MAX ? 1 : next;
    if (!numbers->is_known || is_behind(numbers->kept, numbers->last))
        keep(numbers);
    numbers->is_known = true;
    return numbers->last;
}
