/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_BODY_BLOCK_H
#define RELAY_SMTP_BODY_BLOCK_H

#include "relay/smtp_body.h"

/*
 * One block of 64 octets, given as bit masks (bit n: octet n): the part of the fast loop that all
 * variants share. Private to smtp_body*.c.
 */
#define SMTP_BODY_BLOCK 64u

struct smtp_body_masks {
    uint64_t cr, lf, dot;
};

/**
 * Advance over a block in which every CR is before an LF and every LF behind a CR, and, in DATA, no
 * line begins with a dot. False, with nothing changed, when the block is not like that.
 */
static inline __attribute__((always_inline)) bool
smtp_body_block_step(struct smtp_body_run *run, const struct smtp_body_masks *masks)
{
    uint64_t behind_cr = masks->cr << 1 | (uint64_t)run->is_cr;
    uint64_t starts = masks->lf << 1 | (uint64_t)run->is_start;
    uint64_t dots = masks->dot & starts;

    if (__builtin_expect(((behind_cr ^ masks->lf) | (run->is_data ? dots : 0)) != 0, 0))
        return false;
    if (__builtin_expect(dots != 0, 0))
        run->flags |= SMTP_BODY_DOT_LINES;
    run->is_cr = masks->cr >> 63;
    run->is_start = masks->lf >> 63;

    /* Only the block's first line can be the end of a long one: the others begin in the block. */
    uint64_t first = masks->lf != 0 ? (uint64_t)__builtin_ctzll(masks->lf) : SMTP_BODY_BLOCK;
    if (__builtin_expect(run->line_size + first + (masks->lf != 0) > run->line_size_max, 0))
        run->flags |= SMTP_BODY_LONG_LINE;
    run->line_size =
        masks->lf != 0 ? (uint64_t)__builtin_clzll(masks->lf) : run->line_size + SMTP_BODY_BLOCK;
    return true;
}

#endif
