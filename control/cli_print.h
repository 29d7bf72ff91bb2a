/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_PRINT_H
#define CONTROL_CLI_PRINT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>

#include "base/tick.h"

/* Answers of the control socket as text for people: aligned columns, ages as "5m". Everything that
 * peers sent is printed escaped: a terminal is no place for their octets. */
void cli_status_print(const json_t *answer, FILE *out);
void cli_site_show_print(const json_t *answer, wall_us now, FILE *out);
void cli_site_patterns_print(const json_t *answer, wall_us now, FILE *out);
void cli_site_order_print(const json_t *answer, wall_us now, FILE *out);
void cli_explain_print(const json_t *answer, wall_us now, FILE *out);
void cli_probe_print(const json_t *answer, wall_us now, FILE *out);
void cli_source_print(const json_t *answer, wall_us now, FILE *out);
void cli_flows_print(const json_t *answer, wall_us now, FILE *out);
void cli_counters_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_row_print(const json_t *row, wall_us now, FILE *out);
void cli_queue_header_print(FILE *out);
void cli_orders_print(const json_t *answer, wall_us now, FILE *out);
void cli_order_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_summary_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_list_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_show_print(const json_t *answer, wall_us now, FILE *out);

/**
 * Everything that explains one message, site or domain: the relay is asked once for the message,
 * and once for each site that mail goes to. The answer, which says "ok": false when something was
 * refused; NULL when `ask` gave none.
 */
json_t *cli_explain_gather(json_t *(*ask)(const void *context, const char *verb, const char *id),
                           const void *context, const char *operand);

/** "45s", "5m", "3h", "2d": the largest unit that fits. Returns ret_text. */
const char *cli_age_format(int64_t us, char ret_text[24]);
/** What is left of a time, to the nearest unit: of an hour that has just begun "1h", where an age
 * would be "59m". */
const char *cli_left_format(int64_t us, char ret_text[24]);
/** "999", "10k", "1.5M": three digits. Returns ret_text. */
const char *cli_size_format(uint64_t octets, char ret_text[24]);

/* ---- for those who print ---- */
#define CLI_SHOWN_MAX  200u /* octets of a peer's text */
#define CLI_SHOWN_SIZE (CLI_SHOWN_MAX * 4 + 1)
/** What is sent to a site before its turn, of an answer. */
void cli_site_ahead_print(const json_t *ahead, FILE *out);
/** One order about a site, of those in an answer, on a line. */
void cli_site_order_row_print(const json_t *row, FILE *out);
/** A number of the answer, or of a group in it (NULL: none); 0 when it is not there. */
int64_t cli_number(const json_t *object, const char *group, const char *name);
/** The time that `parts` of a thousand did not exceed (of a bucket its longest), of what a latency
 * counted since `before`, NULL: ever. False: nothing. */
bool cli_latency_quantile(const json_t *now, const json_t *before, int64_t parts, int64_t *ret_us);
/** A text of the answer, fit for a terminal. */
const char *cli_shown(const json_t *object, const char *name, char text[CLI_SHOWN_SIZE]);

#endif
