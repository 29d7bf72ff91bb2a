/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_JSON_H
#define CONTROL_RECORD_JSON_H

#include "relay/record.h"

/* A record's text fields have 760 octets in all; each may become six ("\u001f"), and the rest of
 * the line is less than 1,024. */
#define RECORD_JSON_SIZE_MAX 5632u

/* The text of the second that was formatted last: records come in order, thousands a second. */
struct record_time {
    int64_t second;
    char text[21]; /* "2026-11-23T22:17:47" and room */
};

/**
 * Format a record as one line of JSON with its newline; returns its size.
 *
 * Bounds: ret_text has room for RECORD_JSON_SIZE_MAX octets. Text fields may hold any octets: what
 *         is not UTF-8 becomes U+FFFD. Not NUL-terminated.
 * Cost:   no allocation, no syscall.
 */
uint32_t record_json_format(const struct record *record, struct record_time *time, char *ret_text);

/** "reception", "delivery" ...; "unknown" for anything else. */
const char *record_kind_name(uint32_t kind);

#endif
