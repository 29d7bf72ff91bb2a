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

/**
 * Encode a record; returns its size.
 *
 * Bounds: ret_octets has room for RECORD_RAW_SIZE_MAX. Text ends at its first NUL.
 * Cost:   no allocation, no syscall.
 */
uint32_t record_raw_encode(const struct record *record, uint8_t *ret_octets);

/**
 * Decode the record at the front of `octets`.
 *
 * Bounds: any octets. What is decoded is as it was encoded: encoded again it gives the same.
 * Errors: ERR_AGAIN: it may begin one, and more is needed; ERR_PEER_SYNTAX: it begins none, look an
 *         octet further on. *ret_record and *ret_size are then as they were.
 */
enum err record_raw_decode(struct span octets, struct record *ret_record,
                           uint32_t *ret_size) MUST_CHECK;

/** Octets of the whole records in front of the first that is cut; how many there are. As
 * record_file_options.whole: of what record_raw_encode() made. */
uint32_t record_raw_whole(const char *octets, uint32_t size, uint32_t *ret_count);

#endif
