/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_TCP_SYN_CACHE_H
#define DATAPLANE_WIRE_TCP_SYN_CACHE_H

#include "dataplane/wire/tcp/tcp.h"

/*
 * Private to syn_cache.c (the entries and their time) and syn_input.c (the segments of a
 * handshake).
 */
#define SYN_WAYS   8u
#define SYN_LEVELS 8u
#define SYN_NONE   UINT32_MAX

enum syn_entry_flags {
    SYN_ENTRY_IS_IP6 = 1u << 0,
    SYN_ENTRY_HAS_SACK = 1u << 1,
    SYN_ENTRY_HAS_TIMESTAMPS = 1u << 2,
    SYN_ENTRY_HAS_ECN = 1u << 3,
    SYN_ENTRY_IS_REPEATED = 1u << 4, /* the SYN-ACK went out twice: no RTT sample */
};
#define SYN_ENTRY_LEVEL_SHIFT 5 /* of flags: the level in the top three bits */

struct syn_entry {
    uint8_t local[16], remote[16];
    uint16_t local_port, remote_port;
    uint32_t irs, iss, ts_recent;
    uint32_t sent_at; /* us, wrapping */
    uint16_t mss;
    uint8_t scales; /* the peer's in the low half (TCP_SCALE_NONE), ours in the high one */
    uint8_t flags;
    uint32_t next, previous;
};
_Static_assert(sizeof(struct syn_entry) == 64, "one line");

struct syn_list {
    uint32_t first, last;
};

struct tcp_syn_cache {
    struct syn_entry *entries;
    uint16_t *tags;
    uint32_t set_count, count, count_pressure;
    struct syn_list levels[SYN_LEVELS];
    tick_us cookies_until; /* they are believed */
};

/** The entry of `key`, or SYN_NONE. `hash`: tcp_key_hash(). */
uint32_t syn_entry_find(const struct tcp_syn_cache *cache, const struct tcp_key *key,
                        uint64_t hash);
/** Where an entry with this hash can be, or SYN_NONE: no room, or too little of it left. */
uint32_t syn_entry_place(const struct tcp_syn_cache *cache, uint64_t hash);
/** An entry at that place, whose SYN-ACK the caller sends now. */
void syn_entry_add(struct stack *stack, uint32_t at, uint64_t hash, const struct tcp_key *key,
                   const struct tcp_agreed *agreed);
void syn_entry_remove(struct tcp_syn_cache *cache, uint32_t at);
/** What was agreed, all of it but the window of the final ACK. */
struct tcp_agreed syn_entry_agreed(struct stack *stack, const struct syn_entry *entry,
                                   const struct tcp_key *key, const struct tcp_listener *listener);
/** The SYN-ACK, again. */
void syn_entry_answer(struct stack *stack, const struct syn_entry *entry,
                      const struct tcp_listener *listener);
/** The window of a SYN-ACK: never scaled (RFC 7323 2.2). */
uint16_t syn_window_offered(const struct stack *stack, const struct tcp_listener *listener);
void syn_ack_send(struct stack *stack, const struct tcp_key *key, const struct tcp_agreed *agreed,
                  uint32_t timestamp);

#endif
