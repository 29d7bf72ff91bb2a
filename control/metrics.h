/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_METRICS_H
#define CONTROL_METRICS_H

#include <stdio.h>

#include "control/admin_answer.h"

/*
 * Metrics for Prometheus (its text format, version 0.0.4): every number of status.def under the
 * name angarium_GROUP_NAME, counters with _total, times in seconds; and the mail that waits for the
 * sites with the most of it. So many series there are and no more, whatever the mail.
 */
#define METRICS_SITES_MAX 20u /* with metrics of their own */

/* What is the same in each page. */
struct metrics;

struct metrics_sites {
    uint64_t total; /* that waits for any site */
    uint32_t count;
    struct metrics_site {
        const char *name; /* "": is one of the others */
        uint64_t total;
    } sites[METRICS_SITES_MAX];
};

struct metrics_values {
    const struct status_sums *sums; /* of a shard at least */
    uint32_t core_count;
    tick_us uptime;
    const struct record_writer_stats *records; /* NULL: none are written */
    struct admin_webhooks webhooks;
    struct metrics_sites sites;
};

/** Heap, never NULL. */
struct metrics *metrics_new(const char *version);
/** NULL is legal. */
void metrics_free(struct metrics *metrics);
/** The page, appended. */
void metrics_write(const struct metrics *metrics, const struct metrics_values *values,
                   struct json_text *out);
/** The page docs/metrics.md. */
void metrics_write_reference(FILE *out);

#endif
