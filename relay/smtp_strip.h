/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_STRIP_H
#define RELAY_SMTP_STRIP_H

#include "base/err.h"
#include "base/span.h"

/*
 * Takes one field out of the header of a message on its way in, and keeps its value. Fed with the
 * stored form behind the scanner (smtp_body.h), any split, as long as each piece lies in one line.
 */
#define SMTP_STRIP_NAME_MAX  40u
#define SMTP_STRIP_VALUE_MAX 31u
/* Spans that smtp_strip_insert() and smtp_strip_release() returned last and are still good: more
 * than pieces of one body are gathered before they are copied. */
#define SMTP_STRIP_SLOTS 68u

struct smtp_strip {
    struct span name;
    uint8_t state;   /* enum in smtp_strip.c */
    uint8_t matched; /* octets of the name, at the beginning of the line */
    uint8_t slot;
    bool has_colon, is_bad;
    uint32_t field_count;
    uint64_t size; /* octets that were taken out */
    uint8_t value_size;
    char value[SMTP_STRIP_VALUE_MAX + 1];
    uint8_t slots[SMTP_STRIP_SLOTS][SMTP_STRIP_NAME_MAX + 2];
};

/** Begin a message. `name` is borrowed. CHECKs 1 to SMTP_STRIP_NAME_MAX octets. */
void smtp_strip_init(struct smtp_strip *strip, struct span name);
/** How many of these octets, read from the client, may be scanned and fed in one piece. */
uint32_t smtp_strip_limit(struct span octets);
/** What was held back and turns out to belong to the message, before these octets are scanned;
 * mostly nothing. */
struct span smtp_strip_release(struct smtp_strip *strip, struct span octets);
/** True when this piece is not for the message, or not yet. Empty pieces are never. */
bool smtp_strip_takes(struct smtp_strip *strip, struct span piece);
/** What the scanner puts in behind that piece: `insert`, or nothing, or more. At most 2 octets. */
struct span smtp_strip_insert(struct smtp_strip *strip, struct span insert);
/** The value of the field: lower case, without blanks around it. ERR_NOT_FOUND: no field.
 * ERR_PEER_SYNTAX: more than one, or none that could be a name of ours. */
enum err smtp_strip_value(const struct smtp_strip *strip, struct span *ret_value) MUST_CHECK;

#endif
