/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_WIRE_FLOOD_H
#define BENCH_WIRE_FLOOD_H

#include "base/rng.h"
#include "dataplane/wire/nic.h"

/*
 * A nic around another one that adds hostile frames to what is sent, at a rate, from addresses
 * behind the real one (10.64.0.0/10: the target needs a route there through us), and keeps what
 * comes back to those addresses away from the stack above.
 *
 * Some kinds are only frames; others first shake hands: the answer to a SYN-ACK is made from that
 * frame alone, so that a million half-dead connections cost nothing here.
 */
#define FLOOD_KINDS(X)                                                                             \
    X(SYN, "syn")               /* to an open port, random sources and options */                  \
    X(SYN_CLOSED, "syn-closed") /* to a closed port */                                             \
    X(ACK, "ack")               /* of no connection */                                             \
    X(RST, "rst")                                                                                  \
    X(FIN, "fin")                                                                                  \
    X(DATA, "data")             /* 64 octets, of no connection */                                  \
    X(XMAS, "xmas")             /* any flags, options of noise */                                  \
    X(FRAGMENT, "fragment")     /* IP fragments */                                                 \
    X(ICMP, "icmp")             /* echo requests */                                                \
    X(UDP, "udp")               /* to any port */                                                  \
    X(SOCKSTRESS, "sockstress") /* handshake and a request, window 0 for ever after */             \
    X(SEGMENTS, "segments")     /* handshake, then single octets out of order */                   \
    X(TINY_MSS, "tiny-mss")     /* handshake with an MSS of 1, and a request */
enum flood_kind {
#define X(name, text) FLOOD_##name,
    FLOOD_KINDS(X)
#undef X
        FLOOD_KIND_COUNT
};

struct flood_options {
    struct nic *below; /* taken over */
    enum flood_kind kind;
    uint8_t target[4];
    uint16_t port; /* an open one */
    uint64_t seed;
};

struct flood_stats {
    uint64_t sent, answered /* SYN-ACKs that came back */, refused /* by the nic below */;
};

/** Heap. Freed by nic_free(). The frames' buffers come from `pool`. */
struct nic *flood_new(const struct flood_options *options, struct buf_pool *pool);
/** Frames per second from now on; 0: none. */
void flood_set_rate(struct nic *flood, uint64_t rate);
struct flood_stats flood_get_stats(const struct nic *flood);
/** By name; FLOOD_KIND_COUNT: there is none of that name. */
enum flood_kind flood_kind_of(const char *name);

#endif
