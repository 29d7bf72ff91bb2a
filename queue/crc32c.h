/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_CRC32C_H
#define QUEUE_CRC32C_H

#include "base/span.h"

/**
 * CRC-32C (Castagnoli) of `octets` continued from `checksum`; start with 0.
 *
 * Spec:       RFC 3720 appendix B.4 (polynomial 0x1EDC6F41, reflected, inverted at both ends).
 * Threading:  any.
 */
uint32_t crc32c_update(uint32_t checksum, struct span octets);
/** The same without instructions that a processor may lack. */
uint32_t crc32c_update_portable(uint32_t checksum, struct span octets);

#endif
