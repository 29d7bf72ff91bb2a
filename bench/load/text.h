/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_TEXT_H
#define BENCH_LOAD_TEXT_H

#include "base/span.h"

/*
 * The messages of a load. Each says who it is and what it must look like:
 *
 *     X-Load: <run>-<number> <body size> <recipients> <stamp> <checksum>
 *
 * stamp: microseconds since 1970 at which it was meant to be sent. checksum: CRC-32C, eight hex
 * digits, of the body (with CR LF, without dots added) followed by the field's text up to the
 * checksum.
 *
 * The body is the first part of one text without repetition, and ends, from TEXT_UNIQUE_MIN octets
 * on, in a line with the message's own number: two bodies exchanged on the way do not go unseen. No
 * line begins with a dot.
 */
#define TEXT_SIZE_MIN   4u
#define TEXT_SIZE_MAX   (64u << 20)
#define TEXT_LINE_SIZE  78u /* CR LF included */
#define TEXT_UNIQUE_MIN 64u
#define TEXT_TAIL_MAX   64u
#define TEXT_ID_SIZE    48u
#define TEXT_FIELD_MAX  160u

/** The text of which all bodies are the beginning: `size` octets on the heap. */
uint8_t *text_new(uint32_t size);

/* What is common to all messages of one size. */
struct text_plan {
    uint32_t size;   /* of the body */
    uint32_t prefix; /* octets of the text that begin it; the tail follows */
    bool has_filler, has_unique;
    uint32_t checksum; /* of the body up to the line of its own */
};
/** CHECKs the bounds; `text` has at least size octets. */
void text_plan_make(const uint8_t *text, uint32_t size, struct text_plan *ret_plan);

struct text_identity {
    uint64_t run, number;
    uint32_t size, recipients;
    int64_t stamp;
};

/** What follows the prefix. Returns its size. */
uint32_t text_tail(const struct text_plan *plan, const struct text_identity *identity,
                   char ret_tail[TEXT_TAIL_MAX]);
/** The field's line with its CR LF. Returns its size. */
uint32_t text_field(const struct text_plan *plan, const struct text_identity *identity,
                    struct span tail, char ret_field[TEXT_FIELD_MAX]);

/* A field that came in. */
struct text_seen {
    char id[TEXT_ID_SIZE]; /* "<run>-<number>" */
    uint32_t size, recipients;
    int64_t stamp;
    uint32_t checksum;
    struct span covered; /* the field's text under the checksum */
};
/** The field's text behind "X-Load: ". Errors: ERR_PEER_SYNTAX. */
enum err text_field_parse(struct span text, struct text_seen *ret_seen) MUST_CHECK;

/** Appends by copy or number; returns the new end. The caller has the room. */
char *text_put(char *at, struct span octets);
char *text_put_number(char *at, uint64_t number);
/** "<run>-<number>" */
char *text_put_id(char *at, uint64_t run, uint64_t number);

#endif
