/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_AUTHOR_H
#define RELAY_AUTHOR_H

#include "relay/smtp_address.h"

/*
 * Under whose name does a message go? Every address in its From and Sender fields is shown to
 * whoever knows what belongs to the user, while the header streams in. An engine: no session, no
 * memory of its own.
 */
struct author_check {
    bool (*owns)(const void *context, const struct smtp_address *address);
    const void *context;
    uint8_t state; /* enum in author.c */
    uint8_t name_size;
    bool is_in_field; /* a continuation line would belong to From or Sender */
    bool
        is_refused; /* an address of somebody else, or a field that is read in more ways than one */
    char name[8];
    /* The address in hand: what is outside of comments, as a path in angle brackets. */
    uint32_t depth; /* of comments */
    uint32_t address_count;
    uint16_t size;
    bool is_quoted, is_escaped, is_angle, was_angle;
    bool has_gap;   /* white space or a comment, behind what was put last */
    bool is_broken; /* two words in a row, or more octets than an address has */
    uint8_t text[SMTP_PATH_MAX + 2];
};

/** `owns` is asked while the header is fed, with `context`. */
void author_check_init(struct author_check *check,
                       bool (*owns)(const void *context, const struct smtp_address *address),
                       const void *context);
/** The next octets of the message, lines ended by CRLF. Cost: nothing behind the header's end. */
void author_check_feed(struct author_check *check, struct span octets);
/** The message is at its end, and may have had no empty line. */
void author_check_finish(struct author_check *check);
/** Some address is not the user's, as far as was fed, or cannot be told. A message without From is
 * nobody's, and passes. */
static inline bool author_check_is_refused(const struct author_check *check)
{
    return check->is_refused;
}

#endif
