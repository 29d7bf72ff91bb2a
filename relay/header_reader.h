/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_HEADER_READER_H
#define RELAY_HEADER_READER_H

#include "relay/smtp_body.h"

/*
 * Header fields that say something to us, read while the message streams in; those that are orders
 * to us are cut out of it, and what users' programs have left out is added at its end. A stage
 * behind the scanner of smtp_body.h, with steps of the same form.
 */
enum header_field {
    HEADER_CLASS,            /* the priority class; its name is configured, it is cut out */
    HEADER_POOL,             /* the pool of sources; as the class */
    HEADER_LIST_UNSUBSCRIBE, /* RFC 2369 */
    HEADER_PRECEDENCE,
    HEADER_DATE, /* this and the next: looked for where they are added */
    HEADER_MESSAGE_ID,
    HEADER_FIELD_COUNT
};
#define HEADER_NAME_MAX  64u
#define HEADER_VALUE_MAX 64u /* a longer value is no value */
#define HEADER_PART_MAX  64u /* what the stages before may make of one octet */

/* What to look for; part of the configuration, and outlives all readers. */
struct header_names {
    struct {
        const char *name; /* NULL: not looked for; at most HEADER_NAME_MAX octets */
        bool is_cut;
        bool is_lenient; /* a blank behind the name makes a line the field, with a colon or not */
    } fields[HEADER_FIELD_COUNT];
};

/* What the end of a header is when fields are missing: they, and the empty line. Each at most
 * HEADER_COMPLETION_MAX octets. */
struct header_completion {
    struct span date, message_id, both;
};
#define HEADER_COMPLETION_MAX 512u

struct header_reader {
    const struct header_names *names;
    const struct header_completion *completion; /* NULL: nothing is added */
    uint8_t state;                              /* enum in header_reader.c */
    uint8_t held_size;
    uint8_t field;     /* enum header_field: the one that was found last */
    bool is_in_field;  /* a continuation line would belong to it */
    bool is_first;     /* it is the first of its name: its value counts */
    bool is_colon_due; /* of a lenient one nothing but blanks was read behind its name */
    /* Bits by enum header_field: may be what is held; were found; are not clear. */
    uint32_t matches, seen, unclear;
    uint64_t cut_size; /* octets cut out, and held back */
    struct header_value {
        bool is_too_long;
        uint8_t size;
    } values[HEADER_FIELD_COUNT];

    /* From here on octets, good as far as something says: nothing clears them. */
    uint8_t octets[HEADER_FIELD_COUNT][HEADER_VALUE_MAX]; /* of values */
    uint8_t held[HEADER_NAME_MAX + 8];
    uint8_t out[2 * HEADER_NAME_MAX + 2 * HEADER_PART_MAX + 16 + HEADER_COMPLETION_MAX];
};

/** Begin a message. `names` is borrowed; NULL, or no name in it: nothing will be done. */
void header_reader_init(struct header_reader *reader, const struct header_names *names);

/** What is missing is to be added. Before any octet; Date and Message-ID are among the names.
 * `completion` is borrowed for as long as the message. */
void header_reader_complete(struct header_reader *reader,
                            const struct header_completion *completion);

/** How many octets from the front of `octets` may be scanned at once before header_reader_step().
 * Not 0 unless `octets` is empty. */
uint32_t header_reader_wants(const struct header_reader *reader, struct span octets);

/**
 * The scanner's step over at most header_reader_wants() octets, less what is held back or cut out.
 *
 * Spec:      RFC 5322 section 2.2; blanks before the colon as in section 4.5. RFC 6409 sections 8.2
 *            and 8.3: adding Date and Message-ID.
 * Ownership: ret->insert may lie in the reader: it is good until the next step, `*ret_is_borrowed`
 *            says so.
 */
struct smtp_body_step header_reader_step(struct header_reader *reader, struct span octets,
                                         const struct smtp_body_step *scanned,
                                         bool *ret_is_borrowed);

/**
 * The message is at its end: what the last step inserts, `before`, then what the scanner still has,
 * `rest`, then what was held back. Borrowed.
 */
struct span header_reader_finish(struct header_reader *reader, struct span before,
                                 struct span rest);

/** Was there such a field? */
static inline bool header_reader_has(const struct header_reader *reader, enum header_field field)
{
    return reader->seen >> field & 1;
}
/** There was one such field, not more, and its colon was where one belongs. */
static inline bool header_reader_is_clear(const struct header_reader *reader,
                                          enum header_field field)
{
    return header_reader_has(reader, field) && !(reader->unclear >> field & 1);
}
/** Its value, unfolded, without blanks at the ends; empty when there was none, or it was too long.
 */
struct span header_reader_value(const struct header_reader *reader, enum header_field field);

#endif
