/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_BODY_H
#define RELAY_SMTP_BODY_H

#include "base/err.h"
#include "base/span.h"

/*
 * The octets of a message on their way in: where it ends, what to cut out of it, what is wrong with
 * it. Two machines that know nothing of sessions: the scanner (one pass, any split, AVX2 where the
 * processor has it) and the header tracker (fed with the stored form).
 */
enum smtp_body_flags {
    SMTP_BODY_BARE_CR = 1u << 0,
    SMTP_BODY_BARE_LF = 1u << 1,
    SMTP_BODY_NUL = 1u << 2,
    SMTP_BODY_EIGHT_BIT = 1u << 3,
    SMTP_BODY_DOT_LINES = 1u << 4, /* a line of the stored form begins with '.' */
    SMTP_BODY_LONG_LINE = 1u << 5, /* longer than line_size_max */
};

enum smtp_body_variant { SMTP_BODY_BEST, SMTP_BODY_PORTABLE, SMTP_BODY_AVX2 };

/* What the fast loops carry from block to block. */
struct smtp_body_run {
    uint64_t line_size;     /* octets of the current line so far */
    uint64_t line_size_max; /* with CRLF */
    uint32_t flags;
    bool is_data;  /* dots at the beginning of a line are the caller's business */
    bool is_start; /* at the beginning of a line: CRLF was last, or nothing */
    bool is_cr;    /* CR was last */
};

struct smtp_body {
    struct smtp_body_run run;
    uint32_t (*run_fast)(struct smtp_body_run *run, const uint8_t *data, uint32_t size);
    uint8_t state; /* enum in smtp_body.c */
    bool is_normalizing;
    bool is_after_bare_lf; /* the stored form is at the beginning of a line, the input is not */
};

/* One step of the scan: `pass` octets of the input are content as they are, the next `skip` are
 * not, and `insert` is content in their place. */
struct smtp_body_step {
    uint32_t pass, skip;
    struct span insert; /* static octets */
    bool is_end;        /* the end of data was read: what follows are commands */
};

/**
 * Begin a message.
 *
 * Bounds: is_data: dot-stuffed up to CRLF.CRLF; else BDAT content, which the caller delimits.
 *         is_normalizing: bare LF becomes CRLF and stray CR becomes SP. variant: SMTP_BODY_AVX2
 *         needs smtp_body_has_avx2().
 */
void smtp_body_init(struct smtp_body *body, bool is_data, bool is_normalizing,
                    uint32_t line_size_max, enum smtp_body_variant variant);

/**
 * Scan the front of `octets`. pass + skip octets are dealt with; the caller comes back with the
 * rest until all are, or is_end. A step may deal with no octet and only insert.
 *
 * Spec:  RFC 5321 section 4.5.2: only CR LF "." CR LF ends the data. RFC 3030 for BDAT.
 * Cost:  no allocation; 64 octets in a handful of cycles where nothing is to be cut.
 */
struct smtp_body_step smtp_body_scan(struct smtp_body *body, struct span octets);

/** The last chunk of BDAT was scanned: content to append (a held CR, normalized), mostly none. */
struct span smtp_body_finish(struct smtp_body *body);

/** enum smtp_body_flags so far. */
static inline uint32_t smtp_body_flags(const struct smtp_body *body)
{
    return body->run.flags;
}
/** The content so far is empty or ends in CRLF. */
bool smtp_body_is_at_line_start(const struct smtp_body *body);
bool smtp_body_has_avx2(void);

/* The processor-specific loop (smtp_body_avx2.c): as far as nothing happens that needs the careful
 * loop; returns octets done. */
uint32_t smtp_body_run_avx2(struct smtp_body_run *run, const uint8_t *data, uint32_t size);

/* ---- header ---- */

struct smtp_header {
    uint64_t size;           /* octets up to and with the empty line, or all so far */
    uint32_t received_count; /* fields named Received */
    uint32_t column;         /* octets of the current line so far, saturated */
    bool is_match;           /* the current line is "Received" up to here */
    bool is_cr_first;        /* the current line began with a CR */
    bool is_eight_bit;
    bool is_done; /* the empty line was seen */
};

void smtp_header_init(struct smtp_header *header);
/** Feed stored content in order; after is_done a no-op. `may_be_eight_bit`: false when it is known,
 * as by smtp_body_flags(), that no octet up to here is above 127. */
void smtp_header_feed(struct smtp_header *header, struct span octets, bool may_be_eight_bit);

#endif
