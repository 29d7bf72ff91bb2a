/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ORDER_NUMBER_H
#define CONTROL_ORDER_NUMBER_H

#include <stdbool.h>

#include "queue/qmgr.h"

/*
 * Numbers of orders: what one holds may be held for days, over many lives of the relay, and is
 * known by the number alone. So no number is given twice while mail may have it.
 */
struct order_numbers {
    const char *directory; /* of the file; borrowed; NULL: nothing is kept */
    bool is_known;         /* which was the last */
    uint32_t last;
    uint32_t kept; /* the file says: none behind this one was given */
};

#define ORDER_NUMBERS_ADOPTED "orders.adopted" /* a file */

/** What earlier lives gave, and hosts whose mail was adopted since. */
void order_numbers_load(struct order_numbers *numbers, const char *directory);
/** The next, at this time; 1 to QMGR_ORDER_GIVEN_MAX. */
uint32_t order_numbers_next(struct order_numbers *numbers, wall_us now);
/** The next start on `to` gives no number that was given on `from`. False, with errno: it could not
 * be written. */
bool order_numbers_adopt(const char *from, const char *to);

#endif
