/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers rise with time, a second each, so that they come round after 48 days only, when the mail
 * of that time is gone. Who orders faster runs ahead of the clock, and the clock may be set back:
 * then the next is one more than the last. How far that went is in the file `orders`, written a
 * number of steps ahead, so that a script's orders do not each wait for the disk: "angarium orders
 * 2\n" and one row, a u32 (kept_file.c).
 *
 * Mail of a dead host that is taken over may be held by that one's orders. How far their numbers
 * went comes with it, in a file beside ours of the same form, since the relay here may be running:
 * its next start begins behind both. Numbers that the two gave before that, in the same second, are
 * the same: whoever cancels one cancels both.
 *
 * Invariant: every number given so far is at or before the one in the file, if that could be
 * written. If not, the log says so, and orders are carried out all the same.
 */
#include "control/order_number.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "control/kept_file.h"

#define KEPT_MAGIC "angarium orders 2\n"
#define KEPT_AHEAD 64u
#define PATH_SIZE  4200u

static const struct kept_form kept_form = {"orders", KEPT_MAGIC, sizeof(uint32_t), 1};
static const struct kept_form adopted_form = {ORDER_NUMBERS_ADOPTED, KEPT_MAGIC, sizeof(uint32_t),
                                              1};

/* On the circle of numbers. */
static bool is_behind(uint32_t number, uint32_t other)
{
    return ((number - other) & QMGR_ORDER_ID_MAX) > QMGR_ORDER_ID_MAX / 2;
}

/* The number in a file of that form. */
static enum kept_state number_read(const char *directory, const struct kept_form *form,
                                   uint32_t *ret_number)
{
    void *rows = NULL;
    uint32_t count, number = UINT32_MAX;
    enum kept_state state = kept_file_read(directory, form, &rows, &count);

    if (state != KEPT_WHOLE)
        return state;
    if (count == 1)
        memcpy(&number, rows, sizeof(number));
    free(rows);
    if (number > QMGR_ORDER_ID_MAX)
        return KEPT_DAMAGED;
    *ret_number = number;
    return KEPT_WHOLE;
}

static void keep(struct order_numbers *numbers)
{
    if (numbers->directory == NULL)
        return;
    uint32_t kept = (numbers->last + KEPT_AHEAD) & QMGR_ORDER_ID_MAX;
    if (kept_file_write(numbers->directory, &kept_form, &kept, 1))
        numbers->kept = kept;
    else
        log_line(LOG_WARNING, "orders=%s/orders: the number of an order could not be kept: %s",
                 numbers->directory, strerror(errno));
}

/* Those of a dead host are behind us, too, from now on. */
static void load_adopted(struct order_numbers *numbers)
{
    char path[PATH_SIZE];
    uint32_t number;

    if (number_read(numbers->directory, &adopted_form, &number) != KEPT_WHOLE)
        return;
    if (!numbers->is_known || is_behind(numbers->last, number))
        numbers->last = number;
    numbers->is_known = true;
    numbers->kept = numbers->last;
    keep(numbers);
    (void)snprintf(path, sizeof(path), "%s/" ORDER_NUMBERS_ADOPTED, numbers->directory);
    if (numbers->kept != numbers->last)
        (void)unlinkat(AT_FDCWD, path, 0);
}

void order_numbers_load(struct order_numbers *numbers, const char *directory)
{
    uint32_t number;

    *numbers = (struct order_numbers){.directory = directory};
    if (directory == NULL)
        return;
    enum kept_state state = number_read(directory, &kept_form, &number);
    if (state == KEPT_DAMAGED)
        log_line(LOG_WARNING, "orders=%s/orders: is damaged: numbers begin with the time",
                 directory);
    if (state == KEPT_WHOLE) {
        numbers->last = numbers->kept = number;
        numbers->is_known = true;
    }
    load_adopted(numbers);
}

bool order_numbers_adopt(const char *from, const char *to)
{
    static const struct kept_form *const forms[] = {&kept_form, &adopted_form};
    uint32_t number, latest = 0;
    bool is_known = number_read(to, &adopted_form, &latest) == KEPT_WHOLE;

    for (uint32_t i = 0; i < COUNT_OF(forms); i++) {
        if (number_read(from, forms[i], &number) != KEPT_WHOLE)
            continue;
        latest = !is_known || is_behind(latest, number) ? number : latest;
        is_known = true;
    }
    return !is_known || kept_file_write(to, &adopted_form, &latest, 1);
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
