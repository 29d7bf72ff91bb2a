/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_TCP_TABLES_FIXTURE_H
#define TESTS_UNIT_TCP_TABLES_FIXTURE_H

#include "dataplane/wire/tcp/tcp.h"

/* A stack with nothing in it but what the tables of TCP look at: options, slots, time, wheel, keys
 * by a fixed seed. The test makes the tables it is about and puts them into ->tcp. */
struct stack *fixture_stack_new(const struct stack_options *options);
/** Frees every slot, checks that no timer but the lists' is armed. The tables are the test's. */
void fixture_stack_free(struct stack *stack);

/** A stream slot as a tcb with this key, not in the table. NULL: all slots are taken. */
struct tcb *fixture_tcb_new(struct stack *stack, const struct tcp_key *key);
/** A slot as a listener on this address, known to the table. */
struct tcp_listener *fixture_listener_new(struct stack *stack, const struct flow_address *address,
                                          uint32_t backlog);

/** 192.0.2.`local`:port and 198.51.x.y:port by `remote`. */
struct tcp_key fixture_key4(uint8_t local, uint16_t local_port, uint32_t remote,
                            uint16_t remote_port);
/** 2001:db8::`local` and 2001:db8:1::`remote`. */
struct tcp_key fixture_key6(uint8_t local, uint16_t local_port, uint32_t remote,
                            uint16_t remote_port);

/* In place of tcp/output.c: what was sent without a tcb. */
struct fixture_sent {
    struct tcp_key key;
    struct tcp_header header;
    uint64_t count;
};
extern struct fixture_sent fixture_sent;

/** The statistic of chi square for `count` cells that should be equally full. */
double fixture_chi_square(const uint32_t *cells, uint32_t count, uint64_t total);

#endif
