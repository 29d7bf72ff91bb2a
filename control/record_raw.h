/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_RECORD_RAW_H
#define CONTROL_RECORD_RAW_H

#include "base/err.h"
#include "relay/record.h"

/*
 * Records as they are, without the cost of formatting them: a file of them is read by `angarium
 * records` (record_raw.c has the format, octet by octet).
 */
#define RECORD_RAW_SIZE_MIN 144u
#define RECORD_RAW_SIZE_MAX 928u

/** First line of each file, with its newline. */
extern const char record_raw_head[];
#define RECORD_RAW_HEAD_SIZE 29u

/** Room that a record needs while it is packed. */
#define RECORD_RAW_ROOM 929u

/**
 * Lay a record down as it stands in a file, with this number among its shard's; only its checksum
 * is missing. Returns its size.
 *
 * Bounds: ret_octets has RECORD_RAW_ROOM octets; what lies behind the size is not defined. Text
 *         ends at its first NUL, and each has one.
 * Cost:   no allocation, no syscall.
 */
uint32_t record_raw_pack(const struct record *record, uint64_t sequence, uint8_t *ret_octets);

/** Give a packed record its checksum; it can be written then. Returns its size. */
uint32_t record_raw_seal(uint8_t *octets);

/** Size of a packed record. */
static inline uint32_t record_raw_size(const uint8_t *octets)
{
    uint16_t size;

    memcpy(&size, octets + 2, sizeof(size));
    return size;
}

/** Its flags (enum record_flags). */
static inline uint32_t record_raw_flags(const uint8_t *octets)
{
    uint16_t flags;

    memcpy(&flags, octets + 16, sizeof(flags));
    return flags;
}

/** The opposite of record_raw_pack(), and of nothing else: octets are trusted. */
void record_raw_unpack(const uint8_t *octets, struct record *ret_record);

/**
 * Decode the record at the front of `octets`.
 *
 * Bounds: any octets. What is decoded is as it was packed: packed again it gives the same.
 * Errors: ERR_AGAIN: it may begin one, and more is needed; ERR_PEER_SYNTAX: it begins none, look an
 *         octet further on. *ret_record and *ret_size are then as they were.
 */
enum err record_raw_decode(struct span octets, struct record *ret_record,
                           uint32_t *ret_size) MUST_CHECK;

/** Octets of the whole records in front of the first that is cut; how many there are. As
 * record_file_options.whole: of what record_raw_pack() made. */
uint32_t record_raw_whole(const char *octets, uint32_t size, uint32_t *ret_count);

#endif
