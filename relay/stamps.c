/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stamps of the time stamp counter at the places where a message passes the relay's edge:
 *
 *   last octet of the body in    the turn began that received it       server_on_flow()
 *   the next hop's 354 in        as above                              connection_send_body()
 *   last octet of it out         the turn's flush is over that         stamps_turn_end()
 *                                handed it to the network
 *   final reply in               the turn began that received it       transfer_job_on_result()
 *   our reply out                as above                              stamps_turn_end()
 *
 * A turn has one stamp for all that it receives, taken before it looks at the network, and one for
 * all that it sends, taken behind the flush: so what a message waits for others of its turn is in
 * its time. What is appended waits in a list until no octet of its flow is left that was not handed
 * to the kernel or the nic: a window that is closed is in the time, too.
 *
 * Invariants
 *   1. Nothing is decided by a stamp.
 *   2. Each wait is counted once, or as missed.
 *
 * Limits: STAMPS_WAIT_MAX waits; what takes longer than the longest bucket is counted there as soon
 * as it does, so that peers that read nothing do not fill the list. What waited in the nic's queue
 * before the turn looked is not seen; octets that a session leaves unread while it waits for a
 * commit count from its last event before that. Nothing is timed in the first RATE_TIME of a shard:
 * the counter's rate is measured meanwhile. Not here: mail that is stored
 * (transfer_latencies.accept), connections under TLS, deliveries over another shard's connection.
 */
#include "relay/stamps.h"

#include <time.h>

#include "relay/stream.h"

#define RATE_SHIFT 24u
#define RATE_TIME  50000000 /* nanoseconds */
#define LONGEST_NS (1ull << LATENCY_FINE_VALUE_BITS)

static int64_t clock_ns(void)
{
    struct timespec time;

    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

void stamps_init(struct stamps *stamps, struct flow_plane *plane)
{
    stamps->plane = plane;
    stamps->count = 0;
    stamps->multiplier = 0;
    stamps->view = (struct stamps_view){0};
    stamps->first_ns = clock_ns();
    stamps->first = stamps->turn = stamp_read();
}

/* The error of the two looks is a ten-thousandth of RATE_TIME. */
static bool rate_is_known(struct stamps *stamps, uint64_t now)
{
    if (stamps->multiplier != 0)
        return true;
    int64_t elapsed = clock_ns() - stamps->first_ns;
    if (elapsed < RATE_TIME || now <= stamps->first)
        return false;
    stamps->multiplier =
        (uint64_t)(((unsigned __int128)(uint64_t)elapsed << RATE_SHIFT) / (now - stamps->first));
    return stamps->multiplier != 0;
}

/* A counter that another processor had ahead counts as nothing. */
static uint64_t elapsed_ns(const struct stamps *stamps, uint64_t since, uint64_t now)
{
    uint64_t cycles = now > since ? now - since : 0;

    return (uint64_t)((unsigned __int128)cycles * stamps->multiplier >> RATE_SHIFT);
}

void stamps_out(struct stamps *stamps, enum stamps_kind kind, const struct stream *stream,
                uint64_t since, uint64_t ready)
{
    if (stamps == NULL || since == 0 || stream->tls != NULL)
        return;
    if (stamps->count == STAMPS_WAIT_MAX) {
        stamps->view.missed++;
        return;
    }
    stamps->waits[stamps->count++] =
        (struct stamps_wait){.flow = stream->flow, .since = since, .ready = ready, .kind = kind};
}

/* True: it is over. */
static bool wait_look(struct stamps *stamps, const struct stamps_wait *wait, uint64_t now)
{
    uint64_t left = flow_pending(stamps->plane, wait->flow);
    uint64_t ns = elapsed_ns(stamps, wait->since, now);

    if (left == FLOW_PENDING_STALE) {
        stamps->view.missed++;
        return true;
    }
    if (left > 0 && ns < LONGEST_NS)
        return false;
    if (wait->kind == STAMPS_BODY)
        latency_fine_add(&stamps->view.ready_out, elapsed_ns(stamps, wait->ready, now));
    latency_fine_add(wait->kind == STAMPS_BODY ? &stamps->view.body_out : &stamps->view.reply_out,
                     ns);
    return true;
}

void stamps_turn_end(struct stamps *stamps)
{
    uint32_t kept = 0;

    if (stamps->count == 0)
        return;
    uint64_t now = stamp_read();
    if (!rate_is_known(stamps, now)) {
        stamps->view.missed += stamps->count;
        stamps->count = 0;
        return;
    }
    for (uint32_t i = 0; i < stamps->count; i++) {
        if (!wait_look(stamps, &stamps->waits[i], now))
            stamps->waits[kept++] = stamps->waits[i];
    }
    stamps->count = kept;
}
