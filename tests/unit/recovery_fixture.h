/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_RECOVERY_FIXTURE_H
#define TESTS_UNIT_RECOVERY_FIXTURE_H

#include "dataplane/wire/tcp/scoreboard.h"

/*
 * One connection without a network: a tcb and its queue of what is in flight, driven as input.c,
 * timer.c and output.c would, and after every step verified. Segments are counted from 0 in units
 * of one mss; tests speak of numbers of segments.
 */
#define FIXTURE_MSS 1000u
#define FIXTURE_ISS 0xfffff000u /* sequence numbers wrap within the first five segments */

struct recovery_fixture {
    struct stack *stack;
    struct tcb *tcb;
    struct buf_pool *pool;
    struct buf *octets;
    bool is_endless;         /* the owner always has more */
    uint32_t timestamp_echo; /* of the next ACK; with TCB_HAS_TIMESTAMPS */
    uint32_t resent[64];     /* numbers of segments sent again, in order */
    uint32_t resent_count;   /* since the last fixture_output() */
    uint32_t sent_count;     /* segments sent for the first time since then */
    bool is_ece;             /* of the next ACK */
    uint32_t window;         /* of the next ACK */
    void *context;           /* of on_segment(), which may be NULL: a segment goes out */
    void (*on_segment)(struct recovery_fixture *f, uint32_t segment);
    uint32_t step; /* where a scenario is, for whoever debugs it */
};

struct tcp_policy fixture_policy(void);
/** With SACK; open, everything acknowledged, cwnd `cwnd` segments, in congestion avoidance. */
void fixture_open(struct recovery_fixture *f, uint32_t cwnd);
void fixture_close(struct recovery_fixture *f);
/** Send `count` new segments now, whatever the window says. */
void fixture_send(struct recovery_fixture *f, uint32_t count);
/** The owner gives `count` segments more. */
void fixture_owner(struct recovery_fixture *f, uint32_t count);
/** Send what may go, as tcp_output() does. */
void fixture_output(struct recovery_fixture *f);
/** An ACK up to segment `acknowledged` with `count` blocks [start, end) of segments. */
struct tcp_ack fixture_ack(struct recovery_fixture *f, uint32_t acknowledged, uint32_t count,
                           const uint32_t blocks[][2]);
/** The same without blocks. */
struct tcp_ack fixture_ack_plain(struct recovery_fixture *f, uint32_t acknowledged);
uint32_t fixture_sequence(uint32_t segment);
void fixture_advance(struct recovery_fixture *f, tick_us time);
/** Flags of the descriptors as letters: '.' sent, 'S'acked, 'L'ost, 'R'etransmitted, 'l' lost
 * again. */
const char *fixture_flags(const struct recovery_fixture *f);

#endif
