/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_DNS_FAKE_H
#define TESTS_UNIT_DNS_FAKE_H

#include "dns/dns.h"
#include "dns/query.h"

/*
 * A flow plane of a few rooms for the DNS tests: whatever is sent becomes a fake_query that the
 * test answers, or leaves, or answers wrongly. A zone of rows answers by itself where a test wants
 * that.
 */
#define FAKE_FLOW_MAX  1280u
#define FAKE_QUERY_MAX 8192u

struct fake_octets { /* heap */
    uint8_t *data;
    uint32_t size, from_index;
    struct flow_address from;
    struct fake_octets *next;
};

struct fake_flow {
    bool is_open, is_tcp, is_connected;
    uint32_t generation;
    uint64_t user;
    struct flow_address local, remote;
    struct fake_octets *inbox; /* datagrams, or one growing stream */
    uint8_t reserved[512];
    uint32_t events; /* besides READABLE */
    enum err error;  /* what receive_datagram says when the inbox is empty */
    tick_us deadline;
};

struct fake_query {
    struct flow flow;
    struct flow_address local, remote;
    bool is_tcp, is_done;
    char name[CODEC_NAME_MAX]; /* lower case */
    uint16_t type;
    uint8_t packet[QUERY_SIZE_MAX];
    uint32_t size;
};

#define FAKE_TRUNCATED 0x10000u /* over UDP only TC */
#define FAKE_TTL_1     0x20000u /* TTL 1 s instead of 300 s */

struct fake_row {
    const char *name;
    uint32_t type;    /* 0: any; and the flags above */
    const char *data; /* "192.0.2.1", "2001:db8::1", "10 mx.example", "alias.example" (type CNAME),
                         or NXDOMAIN NODATA SERVFAIL REFUSED TIMEOUT BROKEN */
};

struct fake {
    struct flow_plane plane;
    struct rng rng;
    struct fake_flow flows[FAKE_FLOW_MAX];
    struct fake_query queries[FAKE_QUERY_MAX];
    uint32_t query_count, open_count;
    enum err open_error, send_error, connect_error;
    const struct fake_row *rows;
    uint32_t row_count;
    uint32_t opened_tcp, closed_tcp;
};

struct fake *fake_new(uint64_t seed);
/** CHECKs that no flow was left open. */
void fake_free(struct fake *fake);

/* A message under construction. */
struct wire {
    uint32_t size;
    uint8_t data[CODEC_MESSAGE_MAX + 1024];
};
void wire_u16(struct wire *wire, uint32_t value);
void wire_u32(struct wire *wire, uint32_t value);
void wire_octets(struct wire *wire, const void *data, uint32_t size);
/** Labels of a dotted name; "." is the root. */
void wire_name(struct wire *wire, const char *name);
/** Header and question of a reply to a query packet; counts zero but QDCOUNT. */
void wire_reply(struct wire *wire, const uint8_t *query, uint32_t query_size, uint32_t flags);
/** Add to a count: 6 answers, 8 authority, 10 additional. */
void wire_count(struct wire *wire, uint32_t at, uint32_t more);
void wire_record(struct wire *wire, const char *owner, uint16_t type, uint32_t ttl,
                 const void *rdata, uint32_t size);
void wire_mx(struct wire *wire, const char *owner, uint32_t ttl, uint16_t preference,
             const char *target);
void wire_cname(struct wire *wire, const char *owner, uint32_t ttl, const char *target);
void wire_a(struct wire *wire, const char *owner, uint32_t ttl, uint32_t ip);
void wire_soa(struct wire *wire, const char *owner, uint32_t ttl, uint32_t minimum);

#define WIRE_RESPONSE 0x8180u /* QR RD RA */
#define WIRE_TC       0x0200u

/** Put octets in reach of the flow: a datagram, or more of the stream. Returns the event due. */
struct flow_event fake_deliver(struct fake *fake, const struct fake_query *query, const void *data,
                               uint32_t size, const struct flow_address *from);
struct flow_event fake_event(struct fake *fake, struct flow flow, uint32_t events);
/** The stream of a TCP query gets a framed message. */
struct flow_event fake_deliver_framed(struct fake *fake, const struct fake_query *query,
                                      const struct wire *wire);
/** Newest query, or NULL. */
struct fake_query *fake_last(struct fake *fake);
/** Answer every open query by the rows, feeding events to `dns`, until there is none left. */
void fake_answer_all(struct fake *fake, struct dns *dns, struct tick_now now);
/** Complete a TCP connect; the query then appears as a fake_query. */
void fake_connect(struct fake *fake, struct dns *dns, struct tick_now now);

#endif
