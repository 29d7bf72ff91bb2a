/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Round-trip time and retransmission time-out, RFC 6298, in microseconds.
 *
 *   first sample R    SRTT = R, RTTVAR = R / 2
 *   later samples     RTTVAR = 3/4 RTTVAR + 1/4 |SRTT - R|,  SRTT = 7/8 SRTT + 1/8 R
 *   RTO               SRTT + max(4 RTTVAR, policy.rto_min), at most policy.rto_max
 *   each expiry       RTO doubles (5.5), until something new is acknowledged unambiguously
 *
 * rto_min is a floor under the variance and not under the sum: every ACK brings a sample, so on a
 * steady path RTTVAR decays to nothing within a round trip (RFC 7323 appendix G), and with a round
 * trip longer than the minimum the time-out would be the round trip itself: any delayed ACK would
 * pass for a loss.
 *
 * Invariants
 *   1. rto is within [policy.rto_min, policy.rto_max], before the first sample, too.
 *   2. srtt is 0 exactly as long as there was no sample.
 *   3. The smoothed values know samples of never retransmitted segments, or of timestamps, only
 *      (Karn's rule; the caller's duty: recovery.c).
 *
 * Limits: samples are cut at RTT_SAMPLE_MAX. Not here: when the timer runs (timer.c, recovery.c).
 */
#include "dataplane/wire/tcp/tcp.h"

#define RTT_SAMPLE_MAX         600000000u /* ten minutes: sums of eight fit 32 bits with room */
#define RTT_BACKOFF_MAX        31u
#define RTT_RTO_AFTER_SYN_LOSS TICK_S(3)

static uint32_t rto_bounded(const struct tcp_policy *policy, tick_us rto)
{
    if (rto < policy->rto_min)
        rto = policy->rto_min;
    return (uint32_t)(rto > policy->rto_max ? policy->rto_max : rto);
}

static uint32_t rto_of(const struct tcp_policy *policy, uint32_t srtt, uint32_t rttvar)
{
    tick_us variance = (tick_us)rttvar * 4;

    return rto_bounded(policy, srtt + (variance > policy->rto_min ? variance : policy->rto_min));
}

void tcp_rtt_init(struct tcp_rtt *rtt, const struct tcp_policy *policy,
                  const struct destination *destination)
{
    CHECK(policy->rto_min > 0 && policy->rto_min <= policy->rto_max);
    CHECK(policy->rto_max <= UINT32_MAX / 2);

    *rtt = (struct tcp_rtt){.minimum = UINT32_MAX};
    /* RFC 6298 2.1: a second, unless earlier connections to this host know better (RFC 9040). Only
     * the time-out is taken from them: the first sample of this connection counts in full. */
    rtt->rto = rto_bounded(policy, policy->rto_initial);
    if (destination != NULL && destination->srtt_us > 0)
        rtt->rto = rto_of(policy, destination->srtt_us, destination->rttvar_us);
}

void tcp_rtt_sample(struct tcp_rtt *rtt, const struct tcp_policy *policy, uint32_t sample_us)
{
    uint32_t sample = sample_us == 0 ? 1 : sample_us; /* two events of one turn */

    if (sample > RTT_SAMPLE_MAX)
        sample = RTT_SAMPLE_MAX;
    if (sample < rtt->minimum)
        rtt->minimum = sample;
    if (rtt->srtt == 0) { /* RFC 6298 2.2 */
        rtt->srtt = sample;
        rtt->rttvar = sample / 2;
    } else { /* 2.3; the variance takes the SRTT before its change */
        uint32_t error = sample > rtt->srtt ? sample - rtt->srtt : rtt->srtt - sample;

        rtt->rttvar = (3 * rtt->rttvar + error + 2) / 4;
        rtt->srtt = (uint32_t)((7ull * rtt->srtt + sample + 4) / 8);
    }
    /* RFC 6298 section 5, the last note: with a new sample the back-off is over. */
    tcp_rtt_progress(rtt, policy);
}

void tcp_rtt_back_off(struct tcp_rtt *rtt, const struct tcp_policy *policy)
{
    rtt->rto = rto_bounded(policy, (tick_us)rtt->rto * 2);
    if (rtt->backoff < RTT_BACKOFF_MAX)
        rtt->backoff++;
}

void tcp_rtt_progress(struct tcp_rtt *rtt, const struct tcp_policy *policy)
{
    rtt->backoff = 0;
    /* Without a sample there is nothing to fall back to: the doubled value stays (Karn). */
    if (rtt->srtt > 0)
        rtt->rto = rto_of(policy, rtt->srtt, rtt->rttvar);
}

void tcp_rtt_syn_was_lost(struct tcp_rtt *rtt, const struct tcp_policy *policy)
{
    //= rfc6298#section-5
    //# If the timer expires awaiting the ACK of a SYN segment and the TCP implementation is using
    //# an RTO less than 3 seconds, the RTO MUST be re-initialized to 3 seconds when data
    //# transmission begins
    /* A handshake with timestamps has its sample all the same; then that is the better value. */
    if (rtt->srtt == 0 && rtt->rto < RTT_RTO_AFTER_SYN_LOSS)
        rtt->rto = rto_bounded(policy, RTT_RTO_AFTER_SYN_LOSS);
}
