/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DNS_QUERY_H
#define DNS_QUERY_H

#include "base/rng.h"
#include "dns/codec.h"

#define QUERY_SIZE_MAX (12u + 255u + 4u + 11u)
#define QUERY_EDNS_SIZE                                                                            \
    1232u                      /* what we let resolvers send over UDP: fits any path unfragmented  \
                                */
#define QUERY_NAME_MAX    253u /* text, without the final dot */
#define QUERY_CNAME_MAX   8u
#define QUERY_MX_MAX      16u
#define QUERY_ADDRESS_MAX 16u /* per name and family; users take fewer */
#define QUERY_VALUE_MAX   (QUERY_MX_MAX * (3u + QUERY_NAME_MAX))

/* A question as it was sent: what a reply must repeat, octet by octet. */
struct query {
    uint16_t type;
    uint16_t question_end; /* octets up to the end of the question section */
    uint16_t size;
    char name[CODEC_NAME_MAX];
    uint8_t packet[QUERY_SIZE_MAX];
};

enum dns_outcome {
    DNS_OUTCOME_POSITIVE, /* value follows */
    DNS_OUTCOME_NODATA,
    DNS_OUTCOME_NXDOMAIN,
    DNS_OUTCOME_FAILED /* no answer that can be relied on: never a permanent failure */
};

/*
 * The value of a positive answer, also in the cache and between shards:
 *   A     4 octets each          AAAA  16 octets each
 *   MX    preference (2, host order), name size (1), name; ordered by preference; the name "." is
 *         a null MX, the empty name one that no host can have
 */
struct query_answer {
    enum dns_outcome outcome;
    uint32_t ttl_s; /* clamped */
    uint32_t value_size;
    uint8_t value[QUERY_VALUE_MAX];
};

struct query_limits {
    uint32_t ttl_min_s, ttl_max_s, negative_ttl_max_s;
};

enum query_verdict {
    QUERY_WRONG,     /* not the reply to this query: ignore it, keep waiting */
    QUERY_TRUNCATED, /* ask again over TCP */
    QUERY_SERVFAIL,  /* this resolver cannot answer this question */
    QUERY_REFUSED,   /* this resolver does not serve us */
    QUERY_ANSWERED   /* NOERROR or NXDOMAIN: query_read() it */
};

/**
 * What will be asked.
 *
 * Bounds: `name` passes query_name_is_sound() (CHECKed).
 */
void query_init(struct query *query, struct span name, uint16_t type);

/** Write the packet: random ID, random case (0x20), RD, EDNS. Each try writes it anew. */
void query_write(struct query *query, struct rng *rng);

/** Lower-case text without final dot, 1 to QUERY_NAME_MAX octets, labels of 1 to 63 of [a-z0-9_-].
 */
bool query_name_is_sound(struct span name);

/** Is this packet the reply to `query`? ID, QR, opcode, question count, question to the letter. */
enum query_verdict query_judge(const struct query *query, struct span packet);

/**
 * Take from a reply that is QUERY_ANSWERED what answers the question.
 *
 * Spec:   RFC 2308 (negative answers), RFC 2181 section 8 (TTL), RFC 1034 section 3.6.2 (CNAME).
 * Bounds: only the CNAME chain from the question's name, QUERY_CNAME_MAX links, and the records of
 *         the asked type at its end; QUERY_MX_MAX, QUERY_ADDRESS_MAX; all else is not looked at.
 * Errors: ERR_PEER_SYNTAX: malformed, or a chain that loops or is too long.
 */
enum err query_read(const struct query *query, struct span packet,
                    const struct query_limits *limits, struct codec_message *scratch,
                    struct query_answer *ret_answer) MUST_CHECK;

#endif
