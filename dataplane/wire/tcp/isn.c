/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Initial sequence numbers (RFC 6528) and the offsets of timestamp clocks (RFC 7323 5.4).
 *
 * Both are a clock plus a keyed hash of the tuple. Strangers see numbers that have nothing to do
 * with each other, so they can neither guess a connection's sequence numbers nor read off how long
 * the machine has been up. Who comes back with the same tuple sees a clock that went on: its old
 * segments lie behind (RFC 9293 3.4.1), and a connection in TIME_WAIT can be told from a new one
 * (RFC 6191).
 *
 * The keys are of the stack and are drawn at its start, one for each use: from an offset, which
 * anybody may read from a segment, nothing follows for a sequence number. The tuple is hashed as
 * octets, which is why the reserved ones in struct tcp_key must be zero.
 */
#include "dataplane/wire/tcp/tcp.h"

#define CLOCK_STEP_US 4u /* RFC 6528 3: a timer of 4 microseconds */

uint32_t tcp_isn(struct stack *stack, const struct tcp_key *key)
{
    return (uint32_t)(stack->now / CLOCK_STEP_US) +
           (uint32_t)siphash24(&stack->isn_key, key, sizeof(*key));
}

uint32_t tcp_timestamp_offset(struct stack *stack, const struct tcp_key *key)
{
    return (uint32_t)siphash24(&stack->timestamp_key, key, sizeof(*key));
}
