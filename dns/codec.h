/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_CODEC_H
#define DNS_CODEC_H

#include "base/span.h"

/* Records of one message as plain data; every name is lower-case text without the final dot. */
#define CODEC_RECORD_MAX                                                                           \
    100u /* answer records read; the rest of a larger answer is not looked at */
#define CODEC_MESSAGE_MAX 65535u /* octets */
#define CODEC_HEADER_SIZE 12u
#define CODEC_NAME_MAX    256u /* text with NUL */

enum codec_type {
    CODEC_TYPE_A = 1,
    CODEC_TYPE_CNAME = 5,
    CODEC_TYPE_SOA = 6,
    CODEC_TYPE_MX = 15,
    CODEC_TYPE_AAAA = 28
};

struct codec_record {
    uint16_t type; /* one of enum codec_type */
    uint16_t preference;
    uint32_t ttl; /* as received */
    uint32_t soa_minimum;
    uint8_t ip[16];              /* A: the first four */
    char owner[CODEC_NAME_MAX];  /* "." is the root */
    char target[CODEC_NAME_MAX]; /* MX, CNAME; "" when it has octets outside LDH and underscore */
};

struct codec_message {
    uint32_t answer_count;
    bool is_cut; /* there were more answer records than we read */
    bool has_soa;
    struct codec_record soa; /* the first of the authority section */
    struct codec_record answers[CODEC_RECORD_MAX];
};

/**
 * Read the answer section, and the SOA of the authority section, of a message whose question ends
 * at `offset`.
 *
 * Spec:   RFC 1035 section 4.1. Compression pointers must point strictly backward, behind the
 *         header, at most 126 per name.
 * Bounds: packet.size <= CODEC_MESSAGE_MAX, offset <= packet.size.
 * Errors: ERR_PEER_SYNTAX: some record up to the last one read is malformed, or the counts lie;
 *         `*ret_message` is then undefined.
 */
enum err codec_message_parse(struct span packet, uint32_t offset,
                             struct codec_message *ret_message) MUST_CHECK;

#endif
