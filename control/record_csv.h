/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_CSV_H
#define CONTROL_RECORD_CSV_H

#include "relay/record.h"

/*
 * Records as PowerMTA's accounting file has them: comma-separated values (RFC 4180), the type
 * first, so that what reads those reads these. Columns that we know nothing of are there and empty.
 */

/* Text fields have 728 octets in all, each doubled when it is a quote, and what is around them. */
#define RECORD_CSV_SIZE_MAX 2560u

extern const char record_csv_head[]; /* the names of the columns, with the newline */

/** One line with its newline; returns its size, 0 for a record that accounting does not have
 * (rejections and orders). Control characters become blanks. Not NUL-terminated. */
uint32_t record_csv_format(const struct record *record, char ret_text[RECORD_CSV_SIZE_MAX]);

#endif
