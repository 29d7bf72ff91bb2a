/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_INTEROP_WIRE_TALK_H
#define TESTS_INTEROP_WIRE_TALK_H

#include "dataplane/flow.h"

/*
 * Conversations with another TCP, over any flow plane; wire_peer.py leads them over the kernel's
 * sockets, lwip_peer.c over lwIP. A request is a line, then octets whose value follows from their
 * position, so that both ends can tell a lost, doubled or changed one:
 *
 *   SINK n       n octets follow; answered "OK n", then FIN
 *   SOURCE n     answered by n octets and FIN
 *   ECHO n       n octets and FIN follow; the same comes back, then FIN (half-close)
 *   RESET        answered by a RST
 *   STALL ms n   as SINK, but nothing is read for ms milliseconds (the window closes)
 */
#define TALK_LINE_SIZE   64u   /* of a request and of an answer, with the final zero */
#define TALK_COUNT_MAX   4096u /* conversations at a time */
#define TALK_REQUEST_MAX 16u

/* What to ask of others. */
struct talk_order {
    struct flow_address address; /* the first of address_count, taken in turn */
    uint32_t address_count, count, at_a_time;
    char requests[TALK_REQUEST_MAX][TALK_LINE_SIZE]; /* taken in turn */
    uint32_t request_count;
};

struct talk_result {
    uint32_t good, bad;
};

struct talk;

struct talk *talk_new(struct flow_plane *plane);
/** The plane stays the caller's, with all flows in it. */
void talk_free(struct talk *talk);
enum err talk_serve(struct talk *talk, const struct flow_address *address) MUST_CHECK;
/** Errors: ERR_CONFIG_VALUE: no such request, or a count that cannot be. CHECKs that it does not
 * ask already. */
enum err talk_ask(struct talk *talk, const struct talk_order *order) MUST_CHECK;
/** Everything that was asked came to an end, good or bad: once per talk_ask(). */
bool talk_is_answered(struct talk *talk, struct talk_result *ret_result);
/** One turn of the loop, which waits a little when there is nothing to do. */
void talk_turn(struct talk *talk, tick_us now);

#endif
