/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_FORMAT_CHECKSUM_H
#define DATAPLANE_WIRE_FORMAT_CHECKSUM_H

#include "dataplane/wire/format/packet.h"

/*
 * The two implementations of wire_sum() and wire_sum_copy(). Private to checksum*.c, their test and
 * their benchmark. All return less than 2^33, so that 2^31 sums may be added up.
 */
bool wire_sum_has_avx2(void);
uint64_t wire_sum_portable(const uint8_t *octets, uint32_t size);
uint64_t wire_sum_copy_portable(uint8_t *ret_octets, const uint8_t *octets, uint32_t size);
/* Only where wire_sum_has_avx2(). */
uint64_t wire_sum_avx2(const uint8_t *octets, uint32_t size);
uint64_t wire_sum_copy_avx2(uint8_t *ret_octets, const uint8_t *octets, uint32_t size);

static inline uint64_t wire_sum_fold32(uint64_t sum)
{
    return (sum & UINT32_MAX) + (sum >> 32);
}

#endif
