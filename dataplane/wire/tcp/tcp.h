/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_TCP_TCP_H
#define DATAPLANE_WIRE_TCP_TCP_H

#include "dataplane/wire/net/net.h"

/*
 * Private to dataplane/wire: TCP. Read RFC 9293 beside it.
 *
 * Sequence space of what we send: `slot.unsent` holds all octets from snd_una on that were appended
 * (SYN and FIN are not in it); [snd_una, snd_nxt) of them are in flight and described, segment by
 * segment, by `sent`. What the peer acknowledged is dropped from both. So a retransmission reads
 * from the same buffers, and nothing is copied.
 *
 * Sequence space of what we receive: octets before rcv_nxt are in slot.received or gone to the
 * owner; out of order ones are in `reassembly`.
 *
 * A connection exists as: an entry of the SYN cache or a cookie (no tcb), a tcb, a TIME_WAIT record
 * (no tcb). tcp_table finds tcbs and records.
 */

/* SEQ arithmetic, RFC 9293 3.4. */
static inline bool seq_lt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}
static inline bool seq_le(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) <= 0;
}
static inline bool seq_gt(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) > 0;
}
static inline bool seq_ge(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) >= 0;
}

#define TCP_STATES(X)                                                                              \
    X(CLOSED)                                                                                      \
    X(SYN_SENT)                                                                                    \
    X(SYN_RECEIVED)                                                                                \
    X(ESTABLISHED)                                                                                 \
    X(FIN_WAIT_1)                                                                                  \
    X(FIN_WAIT_2)                                                                                  \
    X(CLOSE_WAIT)                                                                                  \
    X(CLOSING)                                                                                     \
    X(LAST_ACK)
enum tcp_state {
#define X(name) TCP_##name,
    TCP_STATES(X)
#undef X
        TCP_STATE_COUNT
};
/* LISTEN is a listener's slot; TIME_WAIT is a struct tcp_time_wait. SYN_RECEIVED is reached by a
 * tcb only in a simultaneous open. */

struct tcp_key { /* as sent by us: local first */
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port; /* host order */
    uint8_t family, reserved[3];
};
_Static_assert(sizeof(struct tcp_key) == 40, "compared and hashed as octets");

/* One segment in flight (never longer than the mss; TSO joins neighbours when it sends). */
enum tcp_sent_flags {
    TCP_SENT_SACKED = 1u << 0,
    TCP_SENT_LOST = 1u << 1,          /* deemed lost, not sent again yet */
    TCP_SENT_RETRANSMITTED = 1u << 2, /* sent more than once: no RTT sample */
    TCP_SENT_FIN = 1u << 3,           /* its last sequence number is the FIN */
    TCP_SENT_SYN = 1u << 4,
    TCP_SENT_PROBE = 1u << 5, /* TLP */
};
struct tcp_sent {
    uint32_t sequence;
    uint16_t size; /* sequence numbers: octets, +1 for SYN or FIN */
    uint8_t flags;
    uint8_t transmissions; /* saturates */
    union {
        tick_us sent_at;    /* last transmission */
        uint32_t sacked_to; /* SACKED: all descriptors up to here are, too; tcp/scoreboard.c */
    };
};
_Static_assert(sizeof(struct tcp_sent) == 16, "");

/* In order of sequence, without gaps from snd_una to snd_nxt. A single one lies in the queue
 * itself; more go to a ring that grows by doubling and is freed when empty at the end of a turn. */
struct tcp_sent_queue {
    uint32_t capacity; /* of the ring, a power of two; 0: none, at most `one` */
    uint32_t count;
    union {
        struct tcp_sent one;
        struct {
            struct tcp_sent *ring;
            uint32_t head;
        };
    };
};
static inline struct tcp_sent *tcp_sent_at(const struct tcp_sent_queue *queue, uint32_t index)
{
    if (queue->capacity == 0)
        return (struct tcp_sent *)(uintptr_t)&queue->one;
    return &queue->ring[(queue->head + index) & (queue->capacity - 1)];
}

struct tcp_reassembly; /* tcp/receive_queue.c; exists only while something is out of order */

enum tcb_flags {
    TCB_ACK_NOW = 1u << 0,
    TCB_ACK_DELAYED = 1u << 1,
    TCB_HAS_SACK = 1u << 2,
    TCB_HAS_TIMESTAMPS = 1u << 3,
    TCB_HAS_WINDOW_SCALE = 1u << 4,
    TCB_HAS_ECN = 1u << 5,
    TCB_ECE_SEND = 1u << 6, /* CE was seen: ECE until CWR comes */
    TCB_CWR_SEND = 1u << 7,
    TCB_FIN_RECEIVED = 1u << 8,
    TCB_FIN_SENT = 1u << 9, /* snd_nxt includes it */
    TCB_IS_PASSIVE = 1u << 10,
    TCB_IN_RECOVERY = 1u << 11,
    TCB_IN_LOSS = 1u << 12, /* after an RTO, until snd_una >= recover */
    TCB_TLP_IN_FLIGHT = 1u << 13,
    TCB_SYN_DUE = 1u << 14, /* send it again */
    TCB_CWND_LIMITED = 1u << 15,
    TCB_SPURIOUS_CHECK = 1u << 16,    /* Eifel/F-RTO undo is possible */
    TCB_SYN_RETRANSMITTED = 1u << 17, /* RFC 6298 5.7 */
    TCB_TLP_PENDING = 1u << 18,       /* the next new segment is a probe and may exceed cwnd */
    TCB_DSACK_SEND = 1u << 19,
    TCB_ZERO_WINDOW = 1u << 20, /* the peer's window is closed */
    TCB_DSACK_ROUND = 1u << 21, /* a DSACK widened the reordering window in this round trip */
    TCB_LINGERS = 1u << 22,     /* orphan: our FIN waits for the peer's */
};

/* What `rtx_at` means. */
enum tcp_rtx_mode { TCP_RTX_NONE, TCP_RTX_RTO, TCP_RTX_REORDER, TCP_RTX_TLP, TCP_RTX_PERSIST };

struct tcp_hystart { /* RFC 9406; the first slow start, while ssthresh is TCP_CWND_MAX */
    uint32_t round_end, last_minimum, minimum, baseline; /* us */
    uint8_t samples, rounds;                             /* rounds: of the conservative phase */
};
struct tcp_cubic { /* RFC 9438 */
    uint32_t w_max, w_est, k_ms;
    tick_us epoch; /* 0: none begun */
};
struct tcp_congestion {      /* tcp/congestion.c, cubic.c, newreno.c, hystart.c */
    uint32_t cwnd, ssthresh; /* octets */
    uint32_t cwnd_prior;     /* at the last reduction */
    uint32_t acked;          /* octets acknowledged in congestion avoidance, not yet used */
    uint32_t limited_end;    /* what was sent below here had cwnd in its way */
    uint32_t grown_at;       /* us, wrapping: last ACK that was judged */
    union {
        struct tcp_hystart hystart;
        struct tcp_cubic cubic;
    };
};
#define TCP_CWND_MAX (1u << 30)
struct tcp_rtt {
    uint32_t srtt, rttvar, rto; /* us; srtt 0: no sample yet */
    uint32_t minimum;
    uint32_t progress_at; /* us, wrapping: last ACK of something new */
    uint8_t backoff;      /* how often the RTO doubled */
};
struct tcp_rack {    /* RFC 8985 */
    tick_us sent_at; /* of the most recently sent segment that was delivered */
    uint32_t end_sequence, rtt;
    uint8_t reorder_multiple, reorder_persist;
    bool is_reordering_seen : 1;
    bool is_tlp_retransmission : 1;
    bool is_retransmission : 1; /* what sent_at and end_sequence speak of */
    uint32_t dsack_round;       /* with TCB_DSACK_ROUND */
    uint32_t tlp_end_sequence;
    uint32_t fack; /* highest sequence delivered */
};
struct tcp_scoreboard; /* tcp/scoreboard.h: exists while something is SACKED, LOST or undoable */

struct tcb {
    struct flow_slot slot; /* first */
    struct tcp_key key;    /* beside what a segment touches first: the look-up compares it */
    /* receiving */
    uint32_t rcv_nxt, rcv_edge; /* rcv_edge: right edge of the window we advertised */
    uint32_t snd_una, snd_nxt, snd_wnd, snd_wl1, snd_wl2, snd_wnd_max;
    uint32_t ts_recent, ts_recent_at /* ms */, ts_offset, last_ack_sent;
    uint32_t flags; /* enum tcb_flags */
    uint8_t state, rcv_scale, snd_scale, rtx_mode;
    uint16_t mss;      /* payload octets per segment now: path MTU, peer's MSS, less options */
    uint16_t peer_mss; /* as offered, floored */
    uint32_t retransmit_count;
    /* sending */
    struct tcp_sent_queue sent;
    uint32_t sacked, lost, retransmitted; /* octets of `sent` with these flags; for the pipe */
    uint32_t send_slice, send_offset;     /* where snd_nxt is in slot.unsent */
    uint32_t recover;                     /* recovery ends when snd_una reaches it */
    struct tcp_congestion congestion;
    struct tcp_rtt rtt;
    struct tcp_rack rack;
    struct tcp_scoreboard *scoreboard;
    struct tcp_reassembly *reassembly;
    struct destination *destination;
    /* time */
    struct wheel_timer timer;        /* at or before the earliest of: */
    tick_us rtx_at, ack_at, life_at; /* TICK_NEVER: none. life: connect, FIN_WAIT_2, orphan */
    tick_us unacked_since;           /* first transmission of what is at snd_una; user time-out */
    /* cold */
    uint32_t window_limit; /* receive window that is offered now; grows to slot.receive_limit */
    uint32_t measure_sequence, measure_at; /* receive-window growth, one round trip; us, wrapping */
    uint32_t dsack_start, dsack_end;
    uint32_t opened_at, challenge_at;                            /* ms, wrapping */
    uint8_t dupacks, syn_count, challenge_left, quick_acks_left; /* saturate */
    uint64_t octets_received, octets_sent;
};
_Static_assert(offsetof(struct tcb, slot) == 0, "the core's slots are tcbs");
_Static_assert(sizeof(struct tcb) == 576, "nine cache lines: slots begin at one; docs/engine.md");

/* A listener, in a slot of the size of a tcb. */
struct tcp_listener {
    struct flow_slot slot; /* first */
    struct flow_address address;
    uint32_t backlog, ready_count;
    struct flow_link ready; /* head: tcbs by slot.read: handshake done, not accepted */
    uint32_t receive_limit, send_limit;
    uint32_t turned_away; /* for want of a slot, since accept last said so */
};
_Static_assert(sizeof(struct tcp_listener) <= sizeof(struct tcb), "");

static inline struct tcb *tcb_of(struct flow_slot *slot)
{
    return (struct tcb *)(void *)slot;
}

/* A parsed segment on its way through the machine. */
struct segment {
    struct packet *packet;
    struct tcp_header header;
    struct tcp_key key;      /* as we would send: local = its destination */
    uint32_t sequence, size; /* of payload, after trimming */
    uint32_t end;            /* sequence + size, + 1 for FIN */
    uint64_t payload_sum;    /* with is_summed: of all the payload that came */
    uint16_t payload_offset; /* from buf_data(packet->buf) */
    uint8_t flags;
    uint32_t window; /* scaled */
    bool is_ce;      /* IP said congestion experienced */
    bool is_summed, is_trimmed;
};

struct tcp_time_wait {
    struct tcp_key key;
    uint32_t snd_nxt, rcv_nxt, ts_recent, ts_offset;
    uint32_t at;           /* entered, or saw the peer's FIN again; ms, rounded up, wrapping */
    uint32_t newer, older; /* the list by age; UINT32_MAX: none. Free records by `newer` */
    uint16_t window;       /* as in the header of our last ACK */
    bool is_used, has_timestamps;
};
_Static_assert(sizeof(struct tcp_time_wait) == 72,
               "with 64 / 3 octets of the table at worst it stays under 96");

struct tcp_table;      /* tcp/table.c: open addressing over tcbs and TIME_WAIT records */
struct tcp_time_waits; /* tcp/time_wait.c */
struct tcp_syn_cache;  /* tcp/syn_cache.c */
struct tcp_ports;      /* tcp/port.c */
struct tcp_limits;     /* tcp/limit.c */
struct tcp_receive;    /* tcp/receive_queue.c: slabs of reassembly */

struct tcp_shared {
    struct tcp_table *table;
    struct tcp_time_waits *time_waits;
    struct tcp_syn_cache *syn_cache;
    struct tcp_ports *ports;
    struct tcp_limits *limits;
    struct tcp_receive *receive;
    struct wheel_timer list_timer; /* STACK_TIMER_LIST: TIME_WAIT and SYN cache */
    struct flow_link orphans;      /* oldest first, by slot.report */
    struct icmp_bucket reset_bucket;
    uint32_t connection_count;
    uint32_t latest; /* index of the slot that the last segment was for */
};

#define TCP_ORPHANS_MAX     16384u
#define TCP_ORPHAN_DROP_MAX (16u << 20) /* octets */
#define TCP_SENT_MAX        16384u      /* descriptors of a connection */
#define TCP_TSO_SIZE_MAX    64000u      /* what an IP packet holds, less headers */

/* ================= who implements what ================= */

/* ---- tcp/table.c: finds by tuple ---- */

enum tcp_found_kind { TCP_FOUND_NONE, TCP_FOUND_TCB, TCP_FOUND_TIME_WAIT };
struct tcp_found {
    enum tcp_found_kind kind;
    uint32_t index; /* of the slot, or of the record */
};
struct tcp_table *tcp_table_new(struct stack *stack);
/** Listeners and entries may be left; they are forgotten. */
void tcp_table_free(struct tcp_table *table);
/** SipHash-1-3 of the tuple under the stack's secret: what table and SYN cache hash by. */
uint64_t tcp_key_hash(const struct stack *stack, const struct tcp_key *key);
static inline bool tcp_key_is_equal(const struct tcp_key *a, const struct tcp_key *b)
{
    uint64_t words[2][5] UNINITIALIZED;

    memcpy(words[0], a, sizeof(words[0]));
    memcpy(words[1], b, sizeof(words[1]));
    return ((words[0][0] ^ words[1][0]) | (words[0][1] ^ words[1][1]) |
            (words[0][2] ^ words[1][2]) | (words[0][3] ^ words[1][3]) |
            (words[0][4] ^ words[1][4])) == 0;
}
struct tcp_found tcp_table_find(struct stack *stack, const struct tcp_key *key);
/** Steps for a burst, so that memory is waited for once: the hash, and its bucket's line is asked
 * for; then the line of what that bucket names; then the look-up. The middle one may be left out.
 */
uint64_t tcp_table_prefetch(struct stack *stack, const struct tcp_key *key);
struct tcb *tcp_table_prefetch_found(struct stack *stack, uint64_t hash);
struct tcp_found tcp_table_find_hashed(struct stack *stack, const struct tcp_key *key,
                                       uint64_t hash);
/** The key of `what` must be set already. ERR_LIMIT: full. CHECKs that the key is new. */
enum err tcp_table_add(struct stack *stack, const struct tcp_key *key,
                       struct tcp_found what) MUST_CHECK;
/** No effect when the tuple is not held by `what` (any more): so tcb_free() may say it also after
 * tcp_time_wait_enter() put a record in the tcb's place. */
void tcp_table_remove(struct stack *stack, const struct tcp_key *key, struct tcp_found what);
/** The tuple, held by `from`, is held by `to` from now on. CHECKs that it was. */
void tcp_table_replace(struct stack *stack, const struct tcp_key *key, struct tcp_found from,
                       struct tcp_found to);
static inline struct tcp_found tcp_found_tcb(const struct tcb *tcb)
{
    return (struct tcp_found){TCP_FOUND_TCB, tcb->slot.index};
}
/** Listeners are known from add to remove. ERR_SYSTEM: that very address and port are taken.
 * ERR_LIMIT: TCP_LISTENER_MAX. */
enum err tcp_listener_add(struct stack *stack, struct tcp_listener *listener) MUST_CHECK;
void tcp_listener_remove(struct stack *stack, struct tcp_listener *listener);
/** The listener for a local address and port: exact first, then any-address of the same family.
 * NULL: none. */
struct tcp_listener *tcp_listener_find(struct stack *stack, uint8_t family, const uint8_t local[16],
                                       uint16_t port);
/** Some listener has this port, on whatever address: no port to connect from. */
bool tcp_listener_has_port(const struct stack *stack, uint8_t family, uint16_t port);
uint64_t tcp_table_memory(const struct stack *stack);
/** CHECKs every invariant. O(size). Like the _verify() and _memory() of the files below. */
void tcp_table_verify(struct stack *stack);
#define TCP_LISTENER_MAX 256u

/* ---- tcp/time_wait.c: RFC 9293 3.6.1, RFC 6191, RFC 1337 ---- */

struct tcp_time_waits *tcp_time_waits_new(struct stack *stack);
void tcp_time_waits_free(struct tcp_time_waits *waits);
/** A record in place of the tcb, also in the table (the caller then frees the tcb); evicts the
 * oldest when full. CHECKs that the table has the tcb. With time_wait_max 0 there is no record: the
 * tuple is free once the tcb is. */
void tcp_time_wait_enter(struct stack *stack, const struct tcb *tcb);
/** Only while tcp_table_find() names it. */
struct tcp_time_wait *tcp_time_wait_at(const struct stack *stack, uint32_t index);
/** A segment for a record. True: it was dealt with. False: a new SYN that may reuse the tuple; the
 * record is gone, `*ret_iss_min` is the least safe initial sequence number (never 0: there 0 means
 * that any will do, here as everywhere). */
bool tcp_time_wait_input(struct stack *stack, uint32_t index, const struct segment *segment,
                         uint32_t *ret_iss_min);
/** For connect(): the tuple is in TIME_WAIT but may be reused (timestamps, at least a second old).
 */
bool tcp_time_wait_reuse(struct stack *stack, const struct tcp_key *key, uint32_t *ret_iss_min);
/** Expire what is due, a bounded number; returns the next deadline. Same for the SYN cache below.
 */
tick_us tcp_time_waits_advance(struct stack *stack, tick_us now);
uint32_t tcp_time_waits_count(const struct stack *stack);
uint64_t tcp_time_waits_memory(const struct stack *stack);
void tcp_time_waits_verify(struct stack *stack);
/** Both lists get their turn no later than `deadline`. They call it themselves. */
static inline void tcp_list_timer_set(struct stack *stack, tick_us deadline)
{
    struct wheel_timer *timer = &stack->tcp->list_timer;
    if (deadline == TICK_NEVER || (wheel_is_armed(timer) && timer->deadline <= deadline))
        return;
    timer->kind = STACK_TIMER_LIST;
    wheel_arm(&stack->wheel, timer, deadline);
}
/** STACK_TIMER_LIST fired: advance both, arm again (tcp/list_timer.c). */
void tcp_list_on_timer(struct stack *stack);

/* ---- tcp/syn_cache.c, tcp/syn_cookie.c: RFC 4987 ---- */

struct tcp_syn_cache *tcp_syn_cache_new(struct stack *stack);
void tcp_syn_cache_free(struct tcp_syn_cache *cache);
/** A SYN (without ACK or RST) for a listener: an entry, or a cookie when the bucket is full;
 * answers with SYN-ACK. A repeated one gets the same answer again. `iss_min` 0: any. */
void tcp_syn_input(struct stack *stack, struct tcp_listener *listener,
                   const struct segment *segment, uint32_t iss_min);
/** Anything but a SYN without a tcb: does it complete an entry or a cookie? True: dealt with.
 * False: it belongs to no half-open connection, the caller answers with RST where RFC 9293
 * 3.10.7.2 says so. On completion the prefix's limit is entered, a tcb is made by
 * tcp_accept_ready(), and the segment is fed to it with all it carries. */
bool tcp_syn_complete(struct stack *stack, struct tcp_listener *listener, struct segment *segment);
/** An ICMP error that says unreachable, for a half-open one; `sequence` as quoted must be that of
 * our SYN-ACK (RFC 5927). */
void tcp_syn_on_icmp_error(struct stack *stack, const struct tcp_key *key, uint32_t sequence);
tick_us tcp_syn_cache_advance(struct stack *stack, tick_us now);
uint32_t tcp_syn_cache_count(const struct stack *stack);
uint64_t tcp_syn_cache_memory(const struct stack *stack);
void tcp_syn_cache_verify(struct stack *stack);
/* What the handshake agreed on, from entry or cookie. */
struct tcp_agreed {
    uint32_t iss, irs, window; /* window: of the final ACK, scaled */
    uint16_t window_offered;   /* in our SYN-ACK: rcv_edge is irs + 1 + this */
    uint16_t mss;              /* as the peer offered, floored */
    uint8_t snd_scale, rcv_scale;
    bool has_window_scale, has_sack, has_timestamps, has_ecn;
    uint32_t ts_recent, ts_offset;
    tick_us syn_ack_at; /* 0: unknown (cookie, or sent twice): no RTT sample */
};
/** Forget its entries. Before tcp_listener_remove(). */
void tcp_listener_closed(struct stack *stack, const struct tcp_listener *listener);
/** The window shift to offer, for active and passive opens alike: the least with which the largest
 * window of the policy can be said (RFC 7323 2.3). */
uint8_t tcp_window_scale_offer(const struct tcp_policy *policy);
/** The MSS to offer: what our port takes, less the fixed headers (RFC 6691). */
uint16_t tcp_mss_offer(struct stack *stack, const struct tcp_key *key);

/* What a SYN asked for, in the words of a cookie. */
struct tcp_cookie_terms {
    uint16_t mss;
    uint8_t snd_scale; /* TCP_SCALE_NONE: no window scaling */
    bool has_sack, has_ecn;
};
#define TCP_SCALE_NONE        15u
#define TCP_COOKIE_PERIOD     TICK_S(32)
#define TCP_COOKIE_TERMS_BITS 6u
/** The sequence number of a SYN-ACK that stands for the connection. */
uint32_t tcp_cookie_make(struct stack *stack, const struct tcp_key *key, uint32_t irs,
                         uint16_t mss);
/** Was it given for this tuple and irs, less than two periods ago? */
bool tcp_cookie_check(struct stack *stack, const struct tcp_key *key, uint32_t irs, uint32_t cookie,
                      uint16_t *ret_mss);
/** Scale, SACK and ECN in the lowest bits of a timestamp that is not later than `timestamp`. */
uint32_t tcp_cookie_timestamp(uint32_t timestamp, const struct tcp_cookie_terms *terms);
/** Reads what an echoed one says (mss untouched). False: it is none of the last two periods. */
bool tcp_cookie_timestamp_read(uint32_t timestamp, uint32_t echoed, struct tcp_cookie_terms *terms);

/* ---- tcp/port.c, tcp/limit.c ---- */

struct tcp_ports *tcp_ports_new(struct stack *stack);
void tcp_ports_free(struct tcp_ports *ports);
/** Choose key->local_port (RFC 6056 algorithm 4) such that the tuple is free or safely reusable and
 * replies land on our core. The rest of the key is given, its local address is ours.
 * `*ret_iss_min` 0: any. The caller puts the tuple into the table before it asks again, or the port
 * may come back a round later. ERR_LIMIT: none found among those looked at; the next call looks at
 * others, and another source address of ours has as many again. */
enum err tcp_port_choose(struct stack *stack, struct tcp_key *key,
                         uint32_t *ret_iss_min) MUST_CHECK;
struct tcp_limits *tcp_limits_new(struct stack *stack);
void tcp_limits_free(struct tcp_limits *limits);
/** One more inbound connection of this prefix (/32, /64). False: at the limit. */
bool tcp_limit_enter(struct stack *stack, uint8_t family, const uint8_t ip[16]);
/** One fewer: from tcb_free() for every tcb of tcp_accept_ready() (TCB_IS_PASSIVE). CHECKs that it
 * was entered. */
void tcp_limit_leave(struct stack *stack, uint8_t family, const uint8_t ip[16]);
uint32_t tcp_limit_count(const struct stack *stack); /* prefixes known now */
uint64_t tcp_limits_memory(const struct stack *stack);
void tcp_limits_verify(struct stack *stack);

/* ---- tcp/isn.c: RFC 6528, RFC 7323 5.4 ---- */

uint32_t tcp_isn(struct stack *stack, const struct tcp_key *key);
uint32_t tcp_timestamp_offset(struct stack *stack, const struct tcp_key *key);
/** The timestamp clock: milliseconds plus the connection's offset. */
static inline uint32_t tcp_timestamp_now(const struct stack *stack, uint32_t offset)
{
    return (uint32_t)(stack->now / 1000u) + offset;
}

/* ---- tcp/tcp.c: life of a tcb ---- */

struct tcp_shared *tcp_shared_new(struct stack *stack);
void tcp_shared_free(struct stack *stack);
/** The only writer of tcb->state: CHECKs the edge. CLOSED lets go of all but the slot. */
void tcb_enter(struct stack *stack, struct tcb *tcb, enum tcp_state next);
/** A tcb with key, destination, policy; in CLOSED, in the table. NULL: a limit (counted). */
struct tcb *tcb_new(struct stack *stack, const struct tcp_key *key, uint64_t user);
/** Out of table, timers, lists; slot freed. Sends nothing. */
void tcb_free(struct stack *stack, struct tcb *tcb);
/** The handshake is done, everything agreed on is set: ESTABLISHED. */
void tcb_opened(struct stack *stack, struct tcb *tcb);
/** Our SYN was acknowledged. */
void tcp_connected(struct stack *stack, struct tcb *tcb, uint32_t acknowledgement);
/** The connection is over for the owner: RESET, or FAILED while connecting; frees an orphan. */
void tcb_lost(struct stack *stack, struct tcb *tcb, enum err err);
/** Both FINs are acknowledged: TIME_WAIT or nothing; the owner sees what it has not read yet. */
void tcb_finished(struct stack *stack, struct tcb *tcb, bool is_time_wait);
/** An orphan ends no later than `time` from now; no effect on others. */
void tcb_life_limit(struct stack *stack, struct tcb *tcb, tick_us time);
/** The FIN of an orphan that lingers may go. */
void tcb_linger_end(struct stack *stack, struct tcb *tcb);
enum err tcp_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                     struct flow *ret_flow);
/** Of a stream, or a listener. */
void tcp_close(struct stack *stack, struct flow_slot *slot);
void tcp_abort(struct stack *stack, struct flow_slot *slot);
static inline struct flow_address tcp_key_local(const struct tcp_key *key)
{
    struct flow_address address = {.family = key->family, .port = key->local_port};
    memcpy(address.ip, key->local, sizeof(address.ip));
    return address;
}
static inline struct flow_address tcp_key_remote(const struct tcp_key *key)
{
    struct flow_address address = {.family = key->family, .port = key->remote_port};
    memcpy(address.ip, key->remote, sizeof(address.ip));
    return address;
}

/* ---- tcp/listen.c ---- */

enum err tcp_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                    struct flow *ret_flow);
enum err tcp_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                    struct flow *ret_flow, struct flow_address *ret_peer);
enum err tcp_refuse(struct flow_plane *plane, struct flow listener);
/** Handshake done by SYN cache or cookie: an ESTABLISHED tcb on the listener's ready list, for
 * which tcp_limit_enter() was said. NULL: a limit; then a RST was sent. */
struct tcb *tcp_accept_ready(struct stack *stack, struct tcp_listener *listener,
                             const struct tcp_key *key, const struct tcp_agreed *agreed);
void tcp_listener_close(struct stack *stack, struct flow_slot *slot);
/** An unaccepted tcb goes. */
void tcp_listener_forget(struct stack *stack, struct tcb *tcb);
/** 0: as they are. */
void flow_slot_set_limits(struct flow_slot *slot, uint32_t receive_limit, uint32_t send_limit);

/* ---- tcp/demux.c, input.c: RFC 9293 3.10.7 ---- */

void tcp_input(struct stack *stack, struct packet *packet);
/** The packet will come to tcp_input() soon: its bucket of the table is asked for, and its hash
 * kept. tcp_table_prefetch_found() is the second step. */
void tcp_prefetch(struct stack *stack, struct packet *packet);
/** The third step, when the tcb's lines are there: the buffers that the segment will release. */
void tcp_prefetch_buffers(const struct tcb *tcb);
void tcp_on_icmp_error(struct stack *stack, const struct icmp_error *error);
/** The machine for a segment of a tcb; also called by the SYN cache for the ACK that completed. The
 * tcb may be gone afterwards. */
void tcp_input_segment(struct stack *stack, struct tcb *tcb, struct segment *segment);
/** So many segments with text came in order: an ACK is due, now or soon. */
void tcp_ack_schedule(struct stack *stack, struct tcb *tcb, uint32_t segments);

/* ---- tcp/input_next.c ---- */

/** Packets that follow `packet` in a burst, on its connection; takes them. The packet is then one
 * of them. */
void tcp_input_next(struct stack *stack, struct packet *packet, const struct packet_next *nexts,
                    uint32_t count);

/* ---- tcp/output.c ---- */

/** Look at it in tcp_flush(): puts it on core.dirty. */
void tcb_output_later(struct stack *stack, struct tcb *tcb);
/** Everything that may go now: data, retransmissions, FIN, ACK. Called once per turn and connection
 * that is on the list. */
void tcp_output(struct stack *stack, struct tcb *tcb);
/** The same, and a segment of any size that the window takes. */
void tcp_output_forced(struct stack *stack, struct tcb *tcb);
/** All on core.dirty; before that, window updates of all on core.read (their owners made room). */
void tcp_flush(struct stack *stack);
/** Send again the segment `index` of tcb->sent; if it is longer than the mss, its first part.
 * False: for want of a buffer nothing was sent. */
bool tcp_retransmit(struct stack *stack, struct tcb *tcb, uint32_t index);
/** mss from path MTU, peer and options; called when any of them changes. */
void tcb_mss_update(struct stack *stack, struct tcb *tcb);

/* ---- tcp/train.c ---- */

/* Places in the port's queue that bulk data leaves to ACKs and handshakes. */
#define TCP_PORT_ROOM_MIN (STACK_SEND_QUEUE / 8)
/**
 * Send what leaves in the buffers it came in (tcp/whole.h), behind a first segment that left its
 * headers: segments as long as each next one is such a one, there is more than an mss of
 * `available` octets, and at most `most`. Returns how many octets went.
 */
uint32_t tcp_train_go(struct stack *stack, struct tcb *tcb, struct ip_train *train,
                      uint32_t available, uint32_t most);

/* ---- tcp/segment.c ---- */

/* A segment with payload, or FIN, of a synchronised connection. */
struct tcp_piece {
    uint32_t sequence, offset, size; /* offset: behind snd_una, in slot.unsent */
    uint8_t flags;                   /* PSH, FIN */
    bool is_new;
    struct ip_train *train; /* of new data in this turn; NULL: none */
    struct buf *whole;      /* goes in this buffer, in which it came (tcp/whole.h); NULL: none */
};
/** False: no buffer, nothing was sent. More than an mss: for the nic to cut. */
bool tcp_segment_send(struct stack *stack, struct tcb *tcb,
                      const struct tcp_piece *piece) MUST_CHECK;
/** RFC 3168 6.1.3: ECE in every ACK until CWR comes. */
static inline uint8_t tcp_ack_flags(const struct tcb *tcb, uint8_t flags)
{
    bool has_ece = tcb->flags & TCB_ECE_SEND && !(flags & (TCP_SYN | TCP_RST));

    return flags | TCP_ACK | (has_ece ? TCP_ECE : 0);
}
/** A SYN (or SYN-ACK of a simultaneous open). */
void tcp_send_syn(struct stack *stack, struct tcb *tcb);
/** A bare ACK now. */
void tcp_send_ack(struct stack *stack, struct tcb *tcb);
/** A segment that the peer must answer, to hear whether its window is still closed. */
void tcp_send_probe(struct stack *stack, struct tcb *tcb);
void tcp_send_rst(struct stack *stack, struct tcb *tcb);
/** RFC 9293 3.10.7.1: the RST that answers a segment without a connection; none to a RST.
 * Rate-limited. */
void tcp_send_reset_for(struct stack *stack, const struct segment *segment);
/** A segment without tcb: SYN-ACKs of the cache, ACKs of TIME_WAIT. */
void tcp_send_plain(struct stack *stack, const struct tcp_key *key,
                    const struct tcp_header *header);

/* ---- tcp/window.c ---- */

/** The window of a SYN or SYN-ACK for a flow with this limit (0: the usual one): half of it,
 * because what is received may pin twice its size; never scaled (RFC 7323 2.2). */
static inline uint32_t tcp_window_start(const struct stack *stack, uint32_t receive_limit)
{
    uint32_t half = (receive_limit == 0 ? FLOW_RECEIVE_LIMIT : receive_limit) / 2;
    uint32_t window = stack->options.tcp.receive_window_start;

    window = window < half ? window : half;
    return window < UINT16_MAX ? window : UINT16_MAX;
}
/** The window to offer, octets; never moves the edge left; SWS avoidance (RFC 9293 3.8.6.2.2). */
uint32_t tcp_window_choose(const struct stack *stack, const struct tcb *tcb);
/** The same for a header that is about to be sent: rcv_edge moves. */
uint16_t tcp_window_field(const struct stack *stack, struct tcb *tcb);
/** The owner consumed or credited: the window may have opened. */
void tcp_window_update(struct stack *stack, struct tcb *tcb);
/** The window grows with what a round trip brings: from the handshake on, with every segment. */
void tcp_window_measure_begin(const struct stack *stack, struct tcb *tcb);
void tcp_window_measure(const struct stack *stack, struct tcb *tcb);

/* ---- tcp/send_queue.c ---- */

/** Octets in flight: without SYN and FIN. */
static inline uint32_t tcb_octets_in_flight(const struct tcb *tcb)
{
    uint32_t size = tcb->snd_nxt - tcb->snd_una;
    bool has_control = tcb->flags & TCB_FIN_SENT || tcb->state <= TCP_SYN_RECEIVED;

    return size > 0 && has_control ? size - 1 : size;
}
/** Octets that may go and were not sent yet. */
static inline uint32_t tcb_unsent_size(const struct tcb *tcb)
{
    uint64_t size = flow_core_sendable(&tcb->slot) - tcb_octets_in_flight(tcb);
    return size < UINT32_MAX ? (uint32_t)size : UINT32_MAX;
}
/** The segment [snd_nxt, snd_nxt + size) was sent; snd_nxt moves. ERR_LIMIT: no more descriptors.
 */
enum err tcp_sent_push(struct stack *stack, struct tcb *tcb, uint16_t size,
                       uint8_t flags) MUST_CHECK;
static inline bool tcp_sent_has_room(const struct tcb *tcb, uint32_t count)
{
    return tcb->sent.count + count <= TCP_SENT_MAX;
}
/** The ring with twice the room. */
void tcp_sent_grow(struct tcp_sent_queue *queue);
/** The same but for the cursor, which the caller moves. There is room. */
static inline const struct tcp_sent *tcp_sent_describe(const struct stack *stack, struct tcb *tcb,
                                                       uint16_t size, uint8_t flags)
{
    struct tcp_sent_queue *queue = &tcb->sent;

    if (queue->count > 0 && queue->count >= queue->capacity)
        tcp_sent_grow(queue);
    if (queue->count == 0)
        tcb->unacked_since = stack->now;
    struct tcp_sent *sent = tcp_sent_at(queue, queue->count++);
    sent->sequence = tcb->snd_nxt;
    sent->size = size;
    sent->flags = flags;
    sent->transmissions = 1;
    sent->sent_at = stack->now;
    tcb->snd_nxt += size;
    return sent;
}
/** Descriptor that contains `sequence`; count if beyond. Binary search. */
uint32_t tcp_sent_find(const struct tcb *tcb, uint32_t sequence);
/** Drop up to `acknowledged` (snd_una moves), counters sacked, lost and retransmitted with them; a
 * descriptor acknowledged in part is trimmed in place. */
void tcp_sent_drop(struct stack *stack, struct tcb *tcb, uint32_t acknowledged);
/** Cut descriptor `index` in two at `size`: path MTU fell, or an ACK ended inside it. */
enum err tcp_sent_split(struct stack *stack, struct tcb *tcb, uint32_t index,
                        uint16_t size) MUST_CHECK;
void tcp_sent_free(struct tcb *tcb);
/** How many of `size` octets from `offset` lie in the first `pieces_max` slices. */
uint32_t tcp_send_fitting(const struct tcb *tcb, uint32_t offset, uint32_t size,
                          uint32_t pieces_max);
/** Of the next `size` octets that were not sent yet, at most an mss, of `available`: how many go
 * best in one frame. *ret_whole: the buffer that they came in and may leave in, or NULL. */
uint32_t tcp_send_cut(const struct tcb *tcb, uint32_t size, uint32_t available,
                      struct buf **ret_whole);
/** Copy `size` octets from `offset` behind snd_una to the end of `into`, which has the room.
 * Returns their wire_sum(). */
uint64_t tcp_send_copy(const struct tcb *tcb, uint32_t offset, uint32_t size, struct buf *into);
/** Append `size` octets from `offset` behind snd_una to the frame `head`, by reference, as buffers
 * chained behind it; copied when they fit into it. False: a pool is empty. */
bool tcp_send_gather(struct stack *stack, struct tcb *tcb, uint32_t offset, uint32_t size,
                     struct buf *head);

/* ---- tcp/deliver.c ---- */

/* The payload of a segment that is in one buffer. */
struct tcp_payload {
    uint32_t offset, size; /* from buf_data() */
    uint64_t sum;          /* wire_sum(), with is_summed */
    bool is_summed, is_trimmed;
};
/** The pool that nics receive into is nearly empty. */
bool tcp_receive_is_low(const struct stack *stack);
/** Is there something to hold `size` octets in? */
bool tcp_deliver_has_room(const struct stack *stack, uint32_t size);
/** Octets from rcv_nxt on; an orphan's are acknowledged and dropped. Takes the chain. */
void tcp_deliver(struct stack *stack, struct tcb *tcb, struct buf *chain, uint32_t size);
/** The payload of a segment from rcv_nxt on, of a flow with an owner; takes the buffer. `is_low`:
 * tcp_receive_is_low(). True: it went in its buffer, and no pool has changed. */
bool tcp_deliver_whole(struct stack *stack, struct tcb *tcb, struct buf *buf,
                       const struct tcp_payload *payload, bool is_low);

/* ---- tcp/receive_queue.c ---- */

struct tcp_receive *tcp_receive_new(struct stack *stack);
void tcp_receive_free(struct tcp_receive *receive);
/** In-order payload to the flow, by reference or copied (reason counted); takes the buffer. CHECKs
 * that nothing waits out of order. False: there is nothing to hold it in; nothing was taken. */
bool tcp_receive_in_order(struct stack *stack, struct tcb *tcb, struct segment *segment);
/** Payload, or FIN, beyond rcv_nxt or where something waits there; bounded, first wins on overlap
 * (HAZARDS TC-13). */
void tcp_receive_out_of_order(struct stack *stack, struct tcb *tcb, struct segment *segment);
/** Move on what is now in order. True: the FIN was reached. */
bool tcp_receive_reassemble(struct stack *stack, struct tcb *tcb);
/** These octets came again: a DSACK says so with the next ACK. */
void tcp_receive_note_duplicate(struct tcb *tcb, uint32_t start, uint32_t end);
/** SACK blocks, most recent first (RFC 2018), a DSACK in front (RFC 2883). */
uint8_t tcp_receive_sack_blocks(struct stack *stack, struct tcb *tcb,
                                struct tcp_sack_block *ret_blocks, uint8_t max);
void tcp_reassembly_free(struct stack *stack, struct tcb *tcb);
void tcp_reassembly_verify(const struct tcb *tcb);
uint32_t tcp_receive_buffers(const struct stack *stack); /* out of order, all connections */

/* ---- tcp/timer.c ---- */

/** Arm the wheel for the earliest of rtx_at, ack_at, life_at, if it is earlier than armed. */
void tcb_timer_set(struct stack *stack, struct tcb *tcb);
void tcb_on_timer(struct stack *stack, struct tcb *tcb);
/** Decide what rtx_at is for now: RTO, TLP, reordering, persist or none. */
void tcb_rtx_set(struct stack *stack, struct tcb *tcb);

/* ---- tcp/rtt.c: RFC 6298 ---- */

void tcp_rtt_init(struct tcp_rtt *rtt, const struct tcp_policy *policy,
                  const struct destination *destination);
void tcp_rtt_sample(struct tcp_rtt *rtt, const struct tcp_policy *policy, uint32_t sample_us);
void tcp_rtt_back_off(struct tcp_rtt *rtt, const struct tcp_policy *policy);
/** The back-off ends: new data was acknowledged without ambiguity. */
void tcp_rtt_progress(struct tcp_rtt *rtt, const struct tcp_policy *policy);
/** The handshake is done and its SYN had to be sent again: RFC 6298 5.7. */
void tcp_rtt_syn_was_lost(struct tcp_rtt *rtt, const struct tcp_policy *policy);

/* ---- tcp/recovery.c, scoreboard.c, rack.c, tlp.c, prr.c: RFC 6675, 8985, 6937, 6582, 3042 ---- */

/*
 * The order for an acceptable ACK of a synchronised state:
 *   tcp_recovery_digest()   while snd_una and snd_wnd are still the old ones
 *   tcp_sent_drop()         if ack.is_advance; snd_una moves
 *   (snd_wnd, snd_wl1, snd_wl2)
 *   tcp_recovery_ack()      takes the RTT sample, judges losses, sets cwnd
 *   tcb_rtx_set(), tcb_output_later()
 * Output sends while tcp_recovery_allowance() lasts: what tcp_recovery_next_lost() names with
 * tcp_retransmit(), then new data; each transmission is told with tcp_recovery_on_*sent().
 */

/* What an ACK told. */
struct tcp_ack {
    uint32_t acknowledgement;
    uint32_t acked;     /* octets the cumulative acknowledgement moved by */
    uint32_t delivered; /* octets newly acknowledged or SACKed */
    uint32_t rtt_us;    /* 0: no sample */
    bool is_advance, is_duplicate, is_ece;
    bool has_sack; /* something is newly SACKED */
    /* For recovery alone. Of what was newly delivered: the one sent last (for RACK), the highest
     * sequence, the first one sent once. */
    bool has_newest, is_newest_resent, is_anything_delivered, has_once, has_timestamp;
    tick_us newest_sent_at, once_sent_at;
    uint32_t newest_end, highest_end, timestamp_echo;
    uint32_t dsack_count;       /* segments */
    bool has_dsack;             /* RFC 2883 */
    bool is_tlp_dsack;          /* and it is for the probe */
    bool is_reordered;          /* something never sent again came later than its successors */
    bool is_original_delivered; /* something sent once, below `recover` */
    bool is_retransmit_acked;   /* the cumulative ACK covers something sent again */
};
/** Digest cumulative ACK and SACK blocks against `sent`: marks SACKED, computes *ret_ack. At most
 * TCP_SACK_BUDGET descriptors are newly SACKED by one segment (HAZARDS TC-03). Drops nothing. */
void tcp_recovery_digest(struct stack *stack, struct tcb *tcb, const struct segment *segment,
                         struct tcp_ack *ret_ack);
/** After the drop: RTT and RTO, RACK loss detection, entering and leaving recovery, PRR, DUPACK
 * rules without SACK, TLP's verdict, undo. Sets LOST flags and cwnd; tcp_output() sends. */
void tcp_recovery_ack(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack);
/** The RTO fired: marks what is lost, cwnd becomes one segment, the RTO doubles. */
void tcp_recovery_on_rto(struct stack *stack, struct tcb *tcb);
void tcp_recovery_on_reorder_timer(struct stack *stack, struct tcb *tcb);
/** The probe time-out fired: sends the last segment again itself, or sets TCB_TLP_PENDING: the
 * allowance is then one segment at least and tcp_output() sends new data. */
void tcp_recovery_on_tlp_timer(struct stack *stack, struct tcb *tcb);
/** When the probe time-out is, or TICK_NEVER if none is to be scheduled (RFC 8985 7.2). */
tick_us tcp_recovery_tlp_at(const struct stack *stack, const struct tcb *tcb);
/** When RACK may judge more to be lost without another ACK, or TICK_NEVER. */
tick_us tcp_recovery_reorder_at(const struct stack *stack, const struct tcb *tcb);
/** When the RTO fires: after the later of the last progress and the transmission at snd_una.
 * TICK_NEVER: nothing is in flight. RFC 6298 5.1, 5.3. */
tick_us tcp_recovery_rto_at(const struct stack *stack, const struct tcb *tcb);
/** Index of the next descriptor to send again, or UINT32_MAX. */
uint32_t tcp_recovery_next_lost(struct tcb *tcb);
/** What is in flight with more than this payload was too long for the path (RFC 1191 6.4): LOST,
 * and no sign of congestion. O(sent). */
void tcp_recovery_lose_longer(struct tcb *tcb, uint32_t octets);
/** Octets in the network by the book: in flight, less sacked, less lost and not sent again. */
static inline uint32_t tcb_pipe(const struct tcb *tcb)
{
    return tcb->snd_nxt - tcb->snd_una - tcb->sacked - tcb->lost;
}
/** Octets that may be sent now by congestion control (PRR in recovery, limited transmit). */
uint32_t tcp_recovery_allowance(const struct stack *stack, const struct tcb *tcb);
/** What tcp_sent_push() described last went out; after it. */
void tcp_recovery_on_sent(struct stack *stack, struct tcb *tcb);
/** Descriptor `index` went out again: sets its flags, time and transmissions. */
void tcp_recovery_on_resent(struct stack *stack, struct tcb *tcb, uint32_t index);
/** Frees the scoreboard; tcb_free() calls it. */
void tcp_recovery_free(struct tcb *tcb);
/** CHECKs the scoreboard's invariants, O(sent); for tcb_verify(). */
void tcp_recovery_verify(const struct tcb *tcb);

/** The only writer of the flags that tcb->sacked, lost and retransmitted count. */
static inline void tcp_sent_mark(struct tcb *tcb, struct tcp_sent *sent, uint8_t set, uint8_t clear)
{
    uint8_t before = sent->flags, after = (uint8_t)((before | set) & ~clear);
    uint8_t on = (uint8_t)(after & ~before), off = (uint8_t)(before & ~after);

    tcb->sacked += on & TCP_SENT_SACKED ? sent->size : 0u;
    tcb->sacked -= off & TCP_SENT_SACKED ? sent->size : 0u;
    tcb->lost += on & TCP_SENT_LOST ? sent->size : 0u;
    tcb->lost -= off & TCP_SENT_LOST ? sent->size : 0u;
    tcb->retransmitted += on & TCP_SENT_RETRANSMITTED ? sent->size : 0u;
    tcb->retransmitted -= off & TCP_SENT_RETRANSMITTED ? sent->size : 0u;
    sent->flags = after;
}

/* ---- tcp/congestion.c, cubic.c, newreno.c: RFC 5681, 9438, 6928, 3465 ---- */

/** Once snd_una, mss and syn_count are known, and before the first tcp_recovery_digest(). */
void tcp_congestion_init(struct stack *stack, struct tcb *tcb);
/** Octets were acknowledged outside recovery; grows only what cwnd was in the way of. */
void tcp_congestion_acked(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack);
/** Sent something new: was cwnd in the way? */
void tcp_congestion_on_sent(struct tcb *tcb);
/** Once per window: loss or ECE. Sets ssthresh (and the state for CUBIC). */
void tcp_congestion_reduce(struct stack *stack, struct tcb *tcb);
void tcp_congestion_on_rto(struct stack *stack, struct tcb *tcb);
void tcp_congestion_idle(struct stack *stack,
                         struct tcb *tcb); /* RFC 5681 4.1, after an RTO of silence */
void tcp_congestion_undo(struct stack *stack, struct tcb *tcb);

/* ---- tcp/pmtu.c: RFC 1191, 8201, 4821 ---- */

/** ICMP said so, validated against what is in flight (RFC 5927). */
void tcp_pmtu_on_icmp(struct stack *stack, struct tcb *tcb, uint16_t mtu);
/** Second RTO on a full-size segment: assume a black hole, lower the path's MTU. */
void tcp_pmtu_on_rto(struct stack *stack, struct tcb *tcb);

/* ---- tcp/challenge.c: RFC 5961 ---- */

/** An ACK for a suspicious segment, bounded per connection. */
void tcp_challenge(struct stack *stack, struct tcb *tcb);

/* ---- tcp/verify.c ---- */

void tcb_verify(const struct stack *stack, const struct tcb *tcb);

#endif
