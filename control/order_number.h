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

/** What earlier lives gave. */
void order_numbers_load(struct order_numbers *numbers, const char *directory);
/** The next, at this time; 1 to QMGR_ORDER_GIVEN_MAX. */
uint32_t order_numbers_next(struct order_numbers *numbers, wall_us now);

#endif
