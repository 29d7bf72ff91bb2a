/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_BODY_BLOCK_H
#define RELAY_SMTP_BODY_BLOCK_H

#include "relay/smtp_body.h"

/*
 * One block of 64 octets, given as bit masks (bit n: octet n): the part of the fast loop that all
 * variants share. What is left of a piece behind its last whole block is a block with fewer octets:
 * pieces end where segments do, and 63 octets taken one by one cost more than all the blocks
 * before. Private to smtp_body*.c.
 */
#define SMTP_BODY_BLOCK 64u
#define SMTP_BODY_PAD   'x' /* behind a block with fewer octets: nothing happens there */

struct smtp_body_masks {
    uint64_t cr, lf, dot;
};

/**
 * Advance over a block of `size` octets in which every CR is before an LF and every LF behind a CR,
 * and, in DATA, no line begins with a dot. Returns `size`; with nothing changed the number of
 * octets in front of the first that is not like that.
 *
 * Bounds:     1 to SMTP_BODY_BLOCK octets; no bits at or above `size`.
 */
static inline __attribute__((always_inline)) uint32_t
smtp_body_block_step(struct smtp_body_run *run, const struct smtp_body_masks *masks, uint32_t size)
{
    uint64_t inside = UINT64_MAX >> (SMTP_BODY_BLOCK - size);
    uint64_t behind_cr = (masks->cr << 1 | (uint64_t)run->is_cr) & inside;
    uint64_t starts = masks->lf << 1 | (uint64_t)run->is_start;
    uint64_t dots = masks->dot & starts;
    uint64_t bad = (behind_cr ^ masks->lf) | (run->is_data ? dots : 0);

    if (__builtin_expect(bad != 0, 0))
        return (uint32_t)__builtin_ctzll(bad);
    if (__builtin_expect(dots != 0, 0))
        run->flags |= SMTP_BODY_DOT_LINES;
    run->is_cr = masks->cr >> (size - 1) & 1;
    run->is_start = masks->lf >> (size - 1) & 1;

    /* Only the block's first line can be the end of a long one: the others begin in the block. */
    uint64_t first = masks->lf != 0 ? (uint64_t)__builtin_ctzll(masks->lf) : size;
    if (__builtin_expect(run->line_size + first + (masks->lf != 0) > run->line_size_max, 0))
        run->flags |= SMTP_BODY_LONG_LINE;
    run->line_size = masks->lf != 0
                         ? (uint64_t)__builtin_clzll(masks->lf) - (SMTP_BODY_BLOCK - size)
                         : run->line_size + size;
    return size;
}

/* The octets of a block with fewer, padded. */
static inline void smtp_body_block_pad(uint8_t ret_block[SMTP_BODY_BLOCK], const uint8_t *data,
                                       uint32_t size)
{
    memset(ret_block, SMTP_BODY_PAD, SMTP_BODY_BLOCK);
    memcpy(ret_block, data, size);
}

#endif
