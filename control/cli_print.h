/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_CLI_PRINT_H
#define CONTROL_CLI_PRINT_H

#include <jansson.h>
#include <stdio.h>

#include "base/tick.h"

/* Answers of the control socket as text for people: aligned columns, ages as "5m". Everything that
 * peers sent is printed escaped: a terminal is no place for their octets. */
void cli_status_print(const json_t *answer, FILE *out);
void cli_flows_print(const json_t *answer, wall_us now, FILE *out);
void cli_counters_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_list_print(const json_t *answer, wall_us now, FILE *out);
void cli_queue_show_print(const json_t *answer, wall_us now, FILE *out);

/** "45s", "5m", "3h", "2d": the largest unit that fits. Returns ret_text. */
const char *cli_age_format(int64_t us, char ret_text[24]);
/** "999", "10k", "1.5M": three digits. Returns ret_text. */
const char *cli_size_format(uint64_t octets, char ret_text[24]);

#endif
