/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_METRICS_H
#define CONTROL_METRICS_H

#include <jansson.h>
#include <stdio.h>

/*
 * Metrics for Prometheus (its text format, version 0.0.4): every number of status.def under the
 * name angarium_GROUP_NAME, counters with _total, times in seconds; and the mail that waits for the
 * sites with the most of it. So many series there are and no more, whatever the mail.
 */

/** `status` and `sites` are answers to "status" and to "queue summary" by site. */
void metrics_write(const json_t *status, const json_t *sites, FILE *out);
/** The page docs/metrics.md. */
void metrics_write_reference(FILE *out);

#endif
