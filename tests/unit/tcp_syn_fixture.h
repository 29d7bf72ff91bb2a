/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TCP_SYN_FIXTURE_H
#define TESTS_UNIT_TCP_SYN_FIXTURE_H

#include "tcp_tables_fixture.h"

/* A stack that listens on port 25 of all addresses, clients that shake hands with it, and, in place
 * of the rest of TCP, a record of what it was told. */
#define SYN_START TICK_S(1000)
#define SYN_IRS   7000u
#define SYN_TS    500u

struct syn_others {
    uint32_t resets, accepted, fed;
    bool is_refusing; /* tcp_accept_ready() has no tcb to give */
    struct tcp_agreed agreed;
    struct tcp_key key;
    struct segment *segment;
};
extern struct syn_others syn_others;
extern struct tcp_listener *syn_listener; /* of IPv4 */

/** syn_cache_max 0: cookies only. */
struct stack *syn_stack_new(uint32_t syn_cache_max);
/** Verifies what is left. */
void syn_stack_free(struct stack *stack);
struct tcp_key syn_client(void);
/** A SYN as systems of today send it. */
struct segment syn_modern(const struct tcp_key *key);
void syn_send(struct stack *stack, const struct tcp_key *key);
/** The answer to the SYN-ACK that was sent last. */
struct segment syn_final_ack(const struct tcp_key *key);
/** tcp_syn_complete(). */
bool syn_answer(struct stack *stack, struct segment segment);

#endif
