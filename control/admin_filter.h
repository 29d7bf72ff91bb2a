/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_FILTER_H
#define CONTROL_ADMIN_FILTER_H

#include <stdbool.h>

#include <jansson.h>

/**
 * The filter of a request, if it has one, and its `id` where that may name a domain: domains with
 * letters beyond ASCII become A-labels, as the queue has them (IDNA2008). What is no domain stays,
 * and is refused with it.
 *
 * Errors:     false: no memory.
 */
bool admin_filter_normalize(json_t *request) __attribute__((warn_unused_result));

#endif
