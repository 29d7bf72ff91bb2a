/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_TCP_SCOREBOARD_H
#define DATAPLANE_WIRE_TCP_SCOREBOARD_H

#include "dataplane/wire/tcp/tcp.h"

/*
 * Private to recovery: recovery.c (when), scoreboard.c (what is marked), digest.c (what an ACK
 * says), rack.c and tlp.c (RFC 8985), prr.c (how much), undo.c (what was no loss), congestion.c
 * with cubic.c and newreno.c (the window).
 */

/* The work one segment can cause: descriptors newly SACKED, and as many newly judged LOST. What is
 * beyond is done with the next segment or timer: both walks go on where they stopped. */
#define TCP_SACK_BUDGET   256u
#define TCP_DUP_THRESHOLD 3u

/* A transmission that was not the first, in the order of time. */
struct tcp_resent {
    uint32_t last;    /* its last sequence number */
    uint32_t sent_at; /* low half of the descriptor's: where they differ the entry is stale */
};

/* F-RTO (RFC 5682), for peers without timestamps. */
enum tcp_frto { TCP_FRTO_OFF, TCP_FRTO_RESENT, TCP_FRTO_NEW_DATA };

struct tcp_scoreboard {
    /* Retransmissions: [again, judged) were found lost and wait to be sent again, [judged, tail)
     * are in the network. Indices run freely, masked by the capacity. */
    struct tcp_resent *resent;
    uint32_t capacity, again, judged, tail;
    uint32_t judged_to;   /* what was sent only once below here is SACKED or LOST */
    uint32_t resend_from; /* below here what is LOST was sent again before, or waits in `resent` */
    tick_us reorder_at;   /* when the next one becomes LOST without another ACK */
    /* RFC 6937 */
    uint32_t prr_delivered, prr_out, recover_size;
    /* What an undo restores, and what allows it. */
    uint32_t ssthresh_prior, w_max_prior;
    uint32_t undo_timestamp; /* of the first retransmission of the episode; with is_undo_stamped */
    uint32_t undo_count;     /* retransmissions not yet shown to be needless by a DSACK */
    uint32_t undo_until;     /* the episode is over and forgotten when snd_una is here */
    uint32_t duplicate_size; /* without SACK: what DUPACKs said left the network */
    uint8_t frto;
    bool is_undo_stamped;
};

/* ---- scoreboard.c ---- */

/** The tcb's scoreboard, made now if it has none. */
struct tcp_scoreboard *tcp_scoreboard(struct tcb *tcb);
/** First index at or after `index` that is not SACKED, or count; one that is SACKED when *budget,
 * which the jumps are taken from, is spent. */
uint32_t tcp_scoreboard_skip(struct tcb *tcb, uint32_t index, uint32_t *budget);
/** Descriptors within [start, end) become SACKED, at most *budget of them; each that was not yet is
 * told to `ret_ack`. */
void tcp_scoreboard_sack(const struct stack *stack, struct tcb *tcb, struct tcp_sack_block block,
                         uint32_t *budget, struct tcp_ack *ret_ack);
void tcp_scoreboard_lose(struct tcb *tcb, struct tcp_sent *sent);
/** After an RTO: everything sent before `deadline`, and the first in any case, is LOST. O(sent). */
void tcp_scoreboard_lose_all(struct tcb *tcb, tick_us deadline);
/** The peer dropped what it had SACKed (RFC 2018 section 8). O(sent). */
void tcp_scoreboard_renege(struct tcb *tcb);
/** What waits to be sent again was not lost; looks at `budget` descriptors from snd_una on, the
 * rest is sent again. */
void tcp_scoreboard_find_again(struct tcb *tcb, uint32_t budget);
/** The descriptor that `entry` of `resent` speaks of; UINT32_MAX if it is stale. */
uint32_t tcp_scoreboard_resent_at(const struct tcb *tcb, uint32_t entry);

/* ---- digest.c ---- */

/** One descriptor was delivered, the first time we hear of it. */
void tcp_digest_delivered(const struct stack *stack, struct tcb *tcb, const struct tcp_sent *sent,
                          struct tcp_ack *ret_ack);

/* ---- rack.c ---- */

/** RFC 8985 6.2 steps 2 to 4: the state RACK keeps, from what was delivered. */
void tcp_rack_update(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack);
/** Step 5: marks LOST what should have been delivered by now, within the budget. */
void tcp_rack_detect(struct stack *stack, struct tcb *tcb);
/** Something was sent again and arrived by itself: more patience from now on, once a round trip. */
void tcp_rack_widen(struct tcb *tcb);
/** An episode of recovery ended. */
void tcp_rack_recovered(struct tcb *tcb);
uint32_t tcp_rack_reorder_window(const struct tcb *tcb);

/* ---- tlp.c ---- */

/** RFC 8985 7.4: true if the probe repaired a loss, which the window must answer for. */
bool tcp_tlp_ack(struct tcb *tcb, const struct tcp_ack *ack);
/** There is something new to send and the peer's window takes it. */
bool tcp_has_sendable(const struct tcb *tcb);

/* ---- prr.c ---- */

void tcp_prr_enter(struct tcb *tcb);
/** `delivered` octets left the network: how much may follow them. Forced: one segment at least. */
void tcp_prr_ack(struct tcb *tcb, uint32_t delivered, bool is_forced);
/** In flight, with what DUPACKs tell about peers without SACK. */
uint32_t tcp_prr_pipe(const struct tcb *tcb);

/* ---- undo.c ---- */

/** From here on retransmissions may prove needless. */
void tcp_undo_begin(struct tcb *tcb);
void tcp_undo_on_resent(const struct stack *stack, struct tcb *tcb);
/** The ACK shows that nothing was lost: the window is as before. */
bool tcp_undo_ack(struct stack *stack, struct tcb *tcb, const struct tcp_ack *ack);

/* ---- hystart.c ---- */

void tcp_hystart_begin(struct tcb *tcb);
/** What slow start may grow by instead of `growth`; 0: it is over. */
uint32_t tcp_hystart_growth(struct tcb *tcb, uint32_t growth, uint32_t rtt_us);

/* ---- cubic.c, newreno.c ---- */

/** Congestion avoidance: `acked` more octets were acknowledged. */
void tcp_cubic_acked(struct stack *stack, struct tcb *tcb, uint32_t acked);
/** Congestion at cwnd: the new ssthresh. */
uint32_t tcp_cubic_reduce(struct tcb *tcb);
void tcp_newreno_acked(struct tcb *tcb, uint32_t acked);
uint32_t tcp_newreno_reduce(const struct tcb *tcb);

#endif
