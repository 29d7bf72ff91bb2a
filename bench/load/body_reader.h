/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_BODY_READER_H
#define BENCH_LOAD_BODY_READER_H

#include "base/span.h"

/* The text after DATA, dots taken off, in any cuts. */
enum body_reader_state {
    BODY_LINE_START,
    BODY_TEXT,
    BODY_CR,     /* CR was the last octet of the cut */
    BODY_DOT,    /* a dot at the start of a line: not given out */
    BODY_DOT_CR, /* and a CR, neither given out */
    BODY_END
};

struct body_reader {
    enum body_reader_state state; /* LINE_START at first: all-zero */
};

/**
 * The next piece of text in `input`; call until it is used up or the state is BODY_END.
 *
 * Spec:      RFC 5321 section 4.5.2; only CR LF ends a line.
 * Bounds:    uses an octet, or gives text, when there is input.
 * Ownership: `ret_text` borrows from `input` or is static; it may be empty.
 * Returns:   octets of `input` used.
 */
uint32_t body_reader_next(struct body_reader *reader, struct span input, struct span *ret_text);

#endif
