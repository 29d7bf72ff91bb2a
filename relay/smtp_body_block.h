/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_BODY_BLOCK_H
#define RELAY_SMTP_BODY_BLOCK_H

#include "relay/smtp_body.h"

/*
 * One block of 64 octets, the step of the fast loops. What is left of a piece behind its last whole
 * block is a block with fewer octets: pieces end where segments do, and 63 octets taken one by one
 * cost more than all the blocks before. Private to smtp_body*.c.
 */
#define SMTP_BODY_BLOCK 64u
#define SMTP_BODY_PAD   'x' /* behind a block with fewer octets: nothing happens there */

/* The octets of a block with fewer, padded. */
static inline void smtp_body_block_pad(uint8_t ret_block[SMTP_BODY_BLOCK], const uint8_t *data,
                                       uint32_t size)
{
    memset(ret_block, SMTP_BODY_PAD, SMTP_BODY_BLOCK);
    memcpy(ret_block, data, size);
}

#endif
