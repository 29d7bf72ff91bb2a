/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_NET_H
#define DATAPLANE_WIRE_NET_NET_H

#include "base/wheel.h"
#include "dataplane/flow_core.h"
#include "dataplane/wire/format/packet.h"
#include "dataplane/wire/net/stage.h"
#include "dataplane/wire/stack.h"

/*
 * Private to dataplane/wire: the stack itself and everything below TCP. tcp/tcp.h has TCP.
 *
 * The way in:  flow_poll -> stack_poll() -> nic_receive burst -> net_input() per frame
 *              -> neigh_input_arp() | icmp_input() | udp_input() | tcp_input()
 * The way out: flow_flush -> tcp_flush() -> tcp_output() per connection -> ip_output()
 *              -> neigh_resolve() -> packets wait in the port's burst -> stack_flush_ports()
 */
struct tcp_shared; /* tables and slabs of TCP, tcp/tcp.h */
struct udp_shared;
struct neigh_table;
struct destination_table;

struct siphash_key {
    uint64_t words[2];
};

#define STACK_SEND_QUEUE 256u

struct rss_table;

/* What is reached on a port without a router: the prefixes of its addresses, each once. */
struct stack_prefix {
    uint8_t family, bits;
    uint8_t ip[16];
};

struct stack_port {
    struct nic *nic;
    uint16_t index, mtu, vlan;
    uint16_t segments_max; /* buffers per frame: 1 without NIC_TX_MULTI_SEGMENT */
    uint8_t mac[6];
    bool is_l3;            /* NIC_IS_L3: no link addresses */
    struct rss_table *rss; /* of the nic's key; NULL with one queue */
    struct flow_address gateway4, gateway6;
    struct stack_prefix prefixes[STACK_ADDRESS_MAX];
    uint32_t prefix_count;
    struct buf *waiting[STACK_SEND_QUEUE]; /* built this turn, or refused by the nic */
    uint32_t waiting_count;
    uint32_t waiting_refused; /* of them, by the nic in an earlier turn */
    tick_us accepted_at;      /* when the nic last took a frame, or had none to take */
};

struct stack_local { /* one of our addresses */
    struct stack_address address;
    uint16_t port;       /* index into ports */
    bool is_tentative;   /* IPv6: duplicate address detection still runs; not used as a source */
    bool is_duplicate;   /* somebody else has it: unusable, counted */
    tick_us defended_at; /* IPv4: last announcement against a claim (RFC 5227 2.4) */
};

/* Any address of ours is found in one look: open addressing, 1 + index into locals; 0: free. */
#define STACK_LOCAL_SLOTS 256u
_Static_assert(STACK_ADDRESS_MAX * 4 <= STACK_LOCAL_SLOTS, "chains stay short");

/* How many more may go in this second. */
struct icmp_bucket {
    uint32_t second, tokens;
};
#define ICMP_BUCKETS 256u

struct stack {
    struct flow_core core; /* first: the stack is the plane */
    struct stack_options options;
    struct stack_port ports[STACK_PORT_MAX];
    uint32_t port_count;
    struct stack_local locals[STACK_ADDRESS_MAX];
    uint32_t local_count;
    uint8_t local_slots[STACK_LOCAL_SLOTS];
    tick_us now; /* of this turn */
    struct wheel wheel;
    struct rng rng;
    struct siphash_key hash_key; /* tables whose keys strangers choose */
    struct siphash_key isn_key, port_key, cookie_key, timestamp_key;
    uint32_t link_generation; /* changes when a link address that destinations may hold is void */
    struct neigh_table *neighbours;
    struct destination_table *destinations;
    struct udp_shared *udp;
    struct tcp_shared *tcp;
    stack_tap *tap;
    void *tap_context;
    struct icmp_bucket echo_buckets[ICMP_BUCKETS], unreachable_buckets[ICMP_BUCKETS];
    struct icmp_bucket news_bucket;
    struct stack_stages stages;
    uint64_t counters[STACK_COUNTER_COUNT];
};

#define STACK_COUNT(stack, SYMBOL) ((void)((stack)->counters[STACK_##SYMBOL]++))
#define STACK_COUNT_BY(stack, SYMBOL, amount)                                                      \
    ((void)((stack)->counters[STACK_##SYMBOL] += (amount)))

/* What a wheel_timer of the stack belongs to (wheel_timer.kind). */
enum stack_timer_kind {
    STACK_TIMER_TCP,        /* struct tcb.timer */
    STACK_TIMER_NEIGHBOUR,  /* net/neighbour.c */
    STACK_TIMER_LIST,       /* one for all constant-delay lists of tcp (TIME_WAIT, SYN cache) */
    STACK_TIMER_ANNOUNCE,   /* net/neighbour_announce.c: duplicate address detection */
    STACK_TIMER_MEMBERSHIP, /* net/membership.c */
};

extern const struct flow_ops stack_ops; /* flow_wire.c */

static inline struct stack *stack_of(struct flow_plane *plane)
{
    return (struct stack *)(void *)plane;
}

/* A received packet on its way up: parsed, checksums judged. */
struct packet {
    struct buf
        *buf; /* the frame; owned by whoever has the packet; a consumer takes it and sets NULL */
    struct stack_port *port;
    struct ip_header ip;
    uint16_t l3_offset; /* from buf_data() of the first buffer */
    uint16_t l4_offset;
    uint16_t l4_size;          /* octets from the L4 header to the end of the IP payload */
    bool is_l4_checksum_known; /* the nic found it good, or partial: need not be verified */
    bool is_copied; /* the first buffer is from our pool now, which other cores must not touch */
    bool has_key_hash;
    bool is_next; /* TCP, of the same connection as the packet before it in the burst */
    uint8_t source_mac[6];
    uint64_t key_hash; /* tcp_prefetch() */
};
/* One that follows another on its connection: in all else it is as that one. */
struct packet_next {
    struct buf *buf; /* a single one, to the end of the IP payload */
    uint16_t l4_size;
};
/** The packet is now the one that follows it. */
static inline void packet_step(struct packet *packet, const struct packet_next *next)
{
    packet->buf = next->buf;
    packet->l4_size = packet->ip.payload_size = next->l4_size;
    if (packet->ip.family == 4)
        packet->ip.identification = load_be16(buf_data(next->buf) + packet->l3_offset + 4);
}
/** The octets of the packet from the L4 header on that lie in the first buffer. */
static inline struct span packet_l4(const struct packet *packet)
{
    uint32_t contiguous = buf_size(packet->buf) - packet->l4_offset;
    return span_of(buf_data(packet->buf) + packet->l4_offset,
                   contiguous < packet->l4_size ? contiguous : packet->l4_size);
}
/** Over L4 header and payload, all buffers of the chain. */
bool packet_l4_checksum_is_good(const struct packet *packet);

/* ---- net/siphash.c ---- */

/** SipHash-2-4: sequence numbers, cookies, ports (RFC 6528). */
uint64_t siphash24(const struct siphash_key *key, const void *octets, uint32_t size);
/** SipHash-1-3: tables. */
uint64_t siphash13(const struct siphash_key *key, const void *octets, uint32_t size);

/* ---- net/stack.c ---- */

/** The local address that equals ip, or NULL; also one that is not usable (yet). */
struct stack_local *stack_local_find(struct stack *stack, uint8_t family, const uint8_t ip[16]);
/** It may be sent from and answered for. */
static inline bool stack_local_is_usable(const struct stack_local *local)
{
    return !local->is_tentative && !local->is_duplicate;
}
/** The usable address of `port` to speak from to `remote` there, or NULL. */
struct stack_local *stack_local_choose(struct stack *stack, const struct stack_port *port,
                                       uint8_t family, const uint8_t remote[16]);
/** The source address for a destination when the application named none: one on the outgoing port,
 * same scope, on the same prefix if there is one. NULL: none. */
struct stack_local *stack_source_choose(struct stack *stack, uint8_t family,
                                        const uint8_t remote[16]);
/** The same for who can wait for duplicate detection to end: also one that is tentative. */
struct stack_local *stack_source_choose_soon(struct stack *stack, uint8_t family,
                                             const uint8_t remote[16]);
/** True if a frame of this tuple (as received: source = remote) belongs to another core; then
 * `*ret_queue` is its queue. */
bool stack_is_foreign(const struct stack *stack, const struct stack_port *port, uint8_t family,
                      const uint8_t source[16], const uint8_t destination[16], uint16_t source_port,
                      uint16_t destination_port, uint16_t *ret_queue);
/** One more out of at most about `per_second` in this second? */
bool stack_bucket_take(struct stack *stack, struct icmp_bucket *bucket, uint32_t per_second);
/** Receive and process a burst of every port, run timers. */
void stack_poll_ports(struct stack *stack, tick_us now);
/** Give the nics what was built. */
void stack_flush_ports(struct stack *stack);
/** When stack_poll_ports() is needed next though nothing arrives: timers, simulated links, frames
 * that wait for a nic. For flow_deadline(). */
tick_us stack_deadline(struct stack *stack);
/** For flow_plane_free(): aborts what is left, sends the RSTs, frees stack and nics. */
void stack_free(struct stack *stack);
/** A frame that is not the engine's: to the exception path; without one it stays the packet's and
 * is counted as `why`. */
void stack_port_except(struct stack *stack, struct packet *packet, enum stack_counter why);

/* ---- net/port.c ---- */

/** Queue a complete frame for a port; takes it. */
void stack_port_send(struct stack *stack, struct stack_port *port, struct buf *frame);
/** Offer what waits to the nic; what it refuses waits on, until it took nothing for a second. */
void stack_port_flush(struct stack *stack, struct stack_port *port);

/* ---- net/rss.c: Toeplitz ---- */

/** The hash that a nic with this key finds for a received packet of this tuple. */
uint32_t rss_hash(const uint8_t key[NIC_RSS_KEY_SIZE], uint8_t family, const uint8_t source[16],
                  const uint8_t destination[16], uint16_t source_port, uint16_t destination_port);

/* The same from tables, for one key: what every octet of a tuple contributes at its place. 36 KB;
 * one per port of a stack. Find a local port whose replies reach us: rss_base() once, then try
 * rss_base XOR rss_port(port). */
#define RSS_TUPLE_SIZE_MAX 36u
struct rss_table {
    uint32_t octets[RSS_TUPLE_SIZE_MAX][256];
};
struct rss_table *rss_table_new(const uint8_t key[NIC_RSS_KEY_SIZE]);
void rss_table_free(struct rss_table *table);
/** The hash of a packet from remote to local, but for its destination port. */
uint32_t rss_base(const struct rss_table *table, uint8_t family, const uint8_t remote[16],
                  const uint8_t local[16], uint16_t remote_port);
static inline uint32_t rss_ip_size(uint8_t family)
{
    return family == 4 ? 4 : 16;
}
/** What is missing: rss_base() ^ rss_port() == rss_hash(). */
static inline uint32_t rss_port(const struct rss_table *table, uint8_t family, uint16_t local_port)
{
    uint32_t place = 2 * rss_ip_size(family) + 2;

    return table->octets[place][local_port >> 8] ^ table->octets[place + 1][local_port & 0xff];
}

/* ---- net/neighbour.c: ARP (RFC 826, 1122 2.3.2) and ND (RFC 4861) ---- */

struct neigh_table *neigh_table_new(struct stack *stack);
void neigh_table_free(struct neigh_table *table);
/**
 * The link address of the next hop `ip` on `port`, good until *ret_until unless
 * stack->link_generation changes before.
 *
 * ERR_OK: ret_mac is filled. ERR_AGAIN: resolving; `packet` (complete but for the Ethernet header,
 * with room for it) was taken and goes out when the answer is in, or is dropped and counted, oldest
 * first, at 3 per neighbour. ERR_PEER_UNREACHABLE: failed a moment ago; packet stays the caller's.
 */
enum err neigh_resolve(struct stack *stack, struct stack_port *port, uint8_t family,
                       const uint8_t ip[16], struct buf *packet, uint8_t ret_mac[6],
                       tick_us *ret_until) MUST_CHECK;
/** Something that was sent by way of this next hop was answered at `at` (RFC 4861 7.3.1): no probe
 * needed for a while from then. Connections say destination_confirm(). */
void neigh_confirm(struct stack *stack, struct stack_port *port, uint8_t family,
                   const uint8_t ip[16], tick_us at);
/** What was sent by way of this next hop is not answered: it is asked whether it is there, at most
 * once in five seconds. Connections say destination_doubt(). */
void neigh_doubt(struct stack *stack, struct stack_port *port, uint8_t family,
                 const uint8_t ip[16]);
void neigh_input_arp(struct stack *stack, struct packet *packet);
/** Neighbour solicitations and advertisements; checksum and hop limit already checked. */
void neigh_input_nd(struct stack *stack, struct packet *packet, const struct nd_packet *nd);
/** Gratuitous ARP and duplicate address detection at start. */
void neigh_announce(struct stack *stack);
void neigh_on_timer(struct stack *stack, struct wheel_timer *timer);
void neigh_announce_on_timer(struct stack *stack);
/** An MLD query; checksum already checked. */
void membership_input(struct stack *stack, struct packet *packet);
void membership_on_timer(struct stack *stack, struct wheel_timer *timer);
void neigh_on_news(struct stack *stack, const struct stack_news *news);

/* ---- net/destination.c: what is known of a remote address ---- */

struct destination {
    uint8_t family;
    uint8_t ip[16];
    struct stack_port *port;
    uint8_t next_hop[16];
    uint16_t mtu;        /* of the path (RFC 1191, 8201); the port's to begin with */
    tick_us mtu_expires; /* aged after 10 minutes; TICK_NEVER: it is the port's */
    bool is_black_hole;  /* large packets vanish without ICMP */
    bool is_ecn_broken;
    uint32_t srtt_us, rttvar_us, ssthresh; /* of finished connections; 0: unknown */
    uint32_t references;
    uint8_t l2_header[ETHERNET_HEADER_SIZE + ETHERNET_VLAN_SIZE]; /* template while is_resolved */
    uint16_t l2_size;
    uint32_t l2_generation;
    tick_us resolved_until; /* the template holds until then; 0: ask neigh_resolve() */
    tick_us confirmed_at;   /* last progress of a connection */
};
struct destination_table *destination_table_new(struct stack *stack);
void destination_table_free(struct destination_table *table);
/** Find or make, one more reference. NULL: no route to it, or all are in use (counted). */
struct destination *destination_acquire(struct stack *stack, uint8_t family, const uint8_t ip[16]);
void destination_release(struct stack *stack, struct destination *destination);
/** The path to `ip` takes no more than `mtu`; ignored when it is no decrease or below the floors
 * 552 and 1280. News for the other cores unless `is_news`. True if it changed. */
bool destination_mtu_lower(struct stack *stack, uint8_t family, const uint8_t ip[16], uint16_t mtu,
                           bool is_news);
/** The mtu now, aged. */
uint16_t destination_mtu(struct stack *stack, struct destination *destination);
/** A connection to it made progress (an ACK that advanced): its next hop is alive. Costs a store.
 */
static inline void destination_confirm(const struct stack *stack, struct destination *destination)
{
    destination->confirmed_at = stack->now;
}
/** Segments of a connection to it stay unanswered, time and again: its next hop may have moved. */
static inline void destination_doubt(struct stack *stack, const struct destination *destination)
{
    if (!destination->port->is_l3)
        neigh_doubt(stack, destination->port, destination->family, destination->next_hop);
}
/** The way to `ip`: on a port's own prefix, else by its router. False: none. */
bool stack_route(struct stack *stack, uint8_t family, const uint8_t ip[16],
                 struct stack_port **ret_port, uint8_t ret_next_hop[16]);
void destination_on_news(struct stack *stack, const struct stack_news *news);

/* ---- net/ip_input.c, net/ip_input_burst.c, net/ip_output.c ---- */

/** A frame from a nic; takes it. */
void net_input(struct stack *stack, struct stack_port *port, struct buf *frame);
/** The same for up to NIC_BURST: what they will need of tables is asked for before any is worked.
 */
void net_input_burst(struct stack *stack, struct stack_port *port, struct buf *const *frames,
                     uint32_t count);

/* The headers of a packet, for those of the same connection that leave behind it in the same turn
 * (a train): they differ in size, and in what TCP writes itself. */
#define IP_TRAIN_SIZE 128u
struct ip_train {
    uint8_t octets[IP_TRAIN_SIZE]; /* link, IP and TCP header: the last `size` of them */
    uint16_t l3_offset, l4_offset; /* from the first header */
    uint16_t size;                 /* of all three; 0: no packet has gone ahead */
    uint16_t l4_size;              /* of the latest packet: header and payload */
    uint16_t l4_size_max;          /* what the port takes */
    uint64_t ol_flags, tx_offload;
    uint64_t l4_sum; /* TCP's: of the words that are the same for all; segment.c */
};
static inline const uint8_t *ip_train_l4(const struct ip_train *train)
{
    return train->octets + IP_TRAIN_SIZE - (train->size - train->l4_offset);
}
_Static_assert(ETHERNET_HEADER_SIZE + ETHERNET_VLAN_SIZE + IP6_HEADER_SIZE + TCP_HEADER_SIZE +
                       TCP_OPTIONS_SIZE_MAX <=
                   IP_TRAIN_SIZE,
               "all headers");
/** The checksum of a segment that differs in these from the others. */
static inline uint16_t ip_train_checksum(const struct ip_train *train, uint32_t sequence,
                                         uint8_t flags, uint32_t l4_size, uint64_t payload_sum)
{
    return wire_sum_finish(train->l4_sum + payload_sum + htobe32(sequence) +
                           htobe32((uint32_t)flags << 16) + htobe32(l4_size));
}
/** What its nic is to go on from. */
static inline uint16_t ip_train_checksum_begin(const struct ip_train *train, uint32_t l4_size)
{
    return (uint16_t)~wire_sum_finish(train->l4_sum + htobe32(l4_size));
}

struct ip_send {
    struct ip_train *train; /* where to keep the headers if the link's is known; NULL: nowhere */
    const uint8_t *source;  /* 16 octets */
    uint8_t protocol, ecn;  /* ecn: the two bits */
    uint8_t ttl;            /* 0: 64 */
    uint16_t l4_header_size;
    uint16_t tso_size; /* payload octets per segment; 0: no TSO. The pseudo-header sum is then one
                          of size 0, as DPDK wants it */
    bool is_checksum_complete; /* the nic is to leave the L4 checksum alone */
};
/** Offloads that ip_output() will use for this destination: the caller leaves out what they do. */
static inline uint32_t destination_offloads(const struct destination *destination)
{
    return destination->port->nic->offloads;
}
/**
 * Put IP and Ethernet headers in front and send. Takes `packet`, a chain whose first buffer begins
 * with the L4 header and has STACK_L4_HEADROOM in front; mbuf.pkt_len and nb_segs are set. The L4
 * checksum field is complete, or holds the pseudo-header sum where the nic computes it.
 */
void ip_output(struct stack *stack, struct destination *destination, const struct ip_send *send,
               struct buf *packet);
#define STACK_L4_HEADROOM 64u
/**
 * Headers of a packet that went ahead, so that they end at `end` (from buf_addr): the buffer begins
 * with them and ends there. Returns where its L4 header is, to be changed where this one differs.
 *
 * Bounds: the IP_TRAIN_SIZE octets before `end` are the buffer's and overwritten.
 */
uint8_t *ip_train_begin(const struct ip_train *train, struct buf *packet, uint32_t end);
/** Send what ip_train_begin() began: `l4_size` octets of L4 header and payload are in the chain, at
 * most train->l4_size_max. Takes `packet`. */
void ip_train_send(struct stack *stack, struct destination *destination, struct ip_train *train,
                   uint16_t l4_size, struct buf *packet);
/** As ip_output(), to a remote of which nothing is remembered, so that strangers cannot fill the
 * table of destinations: answers without a connection. The L4 checksum is complete. */
void ip_output_stateless(struct stack *stack, uint8_t family, const uint8_t remote[16],
                         const struct ip_send *send, struct buf *packet);
/** As above, but back to the station that `request` came from, without any look-up. */
void ip_output_reply(struct stack *stack, const struct packet *request, const struct ip_send *send,
                     struct buf *packet);

/* ---- net/icmp.c ---- */

void icmp_input(struct stack *stack, struct packet *packet);
/** Rate-limited port unreachable for a UDP packet to a closed port. */
void icmp_send_port_unreachable(struct stack *stack, const struct packet *packet);

/* ---- net/udp.c: datagram flows ---- */

struct udp_shared *udp_shared_new(struct stack *stack);
void udp_shared_free(struct udp_shared *udp);
void udp_input(struct stack *stack, struct packet *packet);
void udp_on_icmp_error(struct stack *stack, const struct icmp_error *error);
enum err udp_open(struct flow_plane *plane, const struct flow_address *local,
                  const struct flow_address *remote, uint64_t user, struct flow *ret_flow);
enum err udp_send(struct flow_plane *plane, struct flow flow, struct span octets);
enum err udp_receive(struct flow_plane *plane, struct flow flow, struct flow_address *ret_from,
                     struct span *ret_octets);
/** Free the flow's queue and the slot. */
void udp_close(struct stack *stack, struct flow_slot *slot);
enum err udp_addresses(struct stack *stack, const struct flow_slot *slot,
                       struct flow_address *ret_local, struct flow_address *ret_peer);

#endif
