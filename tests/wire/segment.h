/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WIRE_SEGMENT_H
#define TESTS_WIRE_SEGMENT_H

#include "base/span.h"

/*
 * TCP segments as a test's peer writes and reads them, with Ethernet and IP headers around. Apart
 * from dataplane/wire/format, which is under test.
 */
#define SEGMENT_FIN 0x01u
#define SEGMENT_SYN 0x02u
#define SEGMENT_RST 0x04u
#define SEGMENT_PSH 0x08u
#define SEGMENT_ACK 0x10u
#define SEGMENT_URG 0x20u
#define SEGMENT_ECE 0x40u
#define SEGMENT_CWR 0x80u

#define TEST_FRAME_MAX   9300u
#define TEST_OPTIONS_MAX 40u
#define TEST_L2_SIZE     14u

struct test_options {
    bool has_mss, has_scale, has_sack_permitted, has_timestamps;
    uint16_t mss;
    uint8_t scale;
    uint32_t timestamp_value, timestamp_echo;
    uint32_t sack_count;
    uint32_t sack[4][2];
};

struct test_segment {
    uint8_t source_mac[6], destination_mac[6];
    uint8_t family, source[16], destination[16];
    uint16_t source_port, destination_port;
    uint8_t ttl, tos;
    uint32_t sequence, acknowledgement;
    uint16_t window, urgent;
    uint8_t flags;
    struct test_options options;
    uint8_t raw_options[TEST_OPTIONS_MAX]; /* instead of `options`, as they are */
    uint32_t raw_options_size;
    const uint8_t *payload; /* parsed: in the frame */
    uint32_t payload_size;
};

/** Sequence numbers the segment takes. */
static inline uint32_t test_segment_length(const struct test_segment *segment)
{
    return segment->payload_size + (segment->flags & SEGMENT_SYN ? 1 : 0) +
           (segment->flags & SEGMENT_FIN ? 1 : 0);
}

/** Returns the frame's size. Checksums are right. */
uint32_t test_segment_build(const struct test_segment *segment, uint8_t ret_frame[TEST_FRAME_MAX]);
/** NULL, or what is wrong with the frame as something that a stack sends: every checksum, length,
 * option and reserved bit is looked at. Frames that are not TCP: "not TCP". */
const char *test_segment_parse(struct span frame, struct test_segment *ret_segment);

/** What a stream carries at a position: every position its own octet, so that nothing moved,
 * repeated or lost goes unseen. */
static inline uint8_t test_stream_octet(uint64_t stream, uint64_t position)
{
    return (uint8_t)(((position + 1) * 0x9e3779b97f4a7c15u ^ stream * 0xbf58476d1ce4e5b9u) >> 56);
}

#endif
