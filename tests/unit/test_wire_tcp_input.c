/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Single segments against an open connection: what is believed, what is answered, what is neither
 * (RFC 9293 3.10.7.4, RFC 5961, RFC 7323).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/wire_pair.h"

/* Side B of the pair is worked by hand; what it sends is looked at in its flags, or on the link. */
struct target {
    struct pair *pair;
    struct stack *stack;
    struct tcb *tcb;
};

static struct target target_of(struct pair *pair, enum pair_side side)
{
    return (struct target){pair, pair->stacks[side], pair_tcb(pair, side)};
}

/* Relative to rcv_nxt, snd_una and ts_recent. */
struct shot {
    int32_t sequence, acknowledgement, timestamp;
    uint32_t size;
    uint8_t flags;
    uint16_t window;
    uint8_t window_scale; /* of a SYN; 0: none */
    bool has_no_timestamp, is_ce;
};

static bool drop_all(struct pair *pair, const struct pair_segment *segment)
{
    (void)pair;
    (void)segment;
    return false;
}

static void shoot(const struct target *target, const struct shot *shot)
{
    struct tcb *tcb = target->tcb;
    struct buf *buf = buf_acquire(target->stack->options.pool);
    assert_non_null(buf);
    memset(buf_data(buf), 'x', shot->size);
    buf_extend(buf, shot->size);
    struct packet packet = {.buf = buf,
                            .port = &target->stack->ports[0],
                            .ip = {.family = 4},
                            .l4_size = (uint16_t)(shot->size + TCP_HEADER_SIZE)};
    struct segment segment = {
        .packet = &packet,
        .header = {.sequence = tcb->rcv_nxt + (uint32_t)shot->sequence,
                   .acknowledgement = tcb->snd_una + (uint32_t)shot->acknowledgement,
                   .flags = shot->flags,
                   .window = shot->window,
                   .header_size = TCP_HEADER_SIZE,
                   .options = {.has_window_scale = shot->window_scale > 0,
                               .window_scale = shot->window_scale,
                               .has_timestamps = !shot->has_no_timestamp,
                               .timestamp_value = tcb->ts_recent + (uint32_t)shot->timestamp}},
        .key = tcb->key,
        .size = shot->size,
        .flags = shot->flags,
        .window = (uint32_t)shot->window << tcb->snd_scale,
        .is_ce = shot->is_ce,
    };

    memcpy(packet.ip.source, tcb->key.remote, sizeof(packet.ip.source));
    memcpy(packet.ip.destination, tcb->key.local, sizeof(packet.ip.destination));
    segment.sequence = segment.header.sequence;
    segment.end = segment.sequence + shot->size + (shot->flags & TCP_SYN ? 1 : 0) +
                  (shot->flags & TCP_FIN ? 1 : 0);
    tcp_input_segment(target->stack, tcb, &segment);
    buf_release_chain(packet.buf);
    tcb_verify(target->stack, tcb);
}

static struct pair *pair_of(const struct tcp_policy *policy)
{
    struct pair *pair =
        pair_new(&(struct pair_options){.policy = {policy, policy}, .paths = {{.delay = 1000}}});
    pair_connect(pair);
    pair_run(pair, TICK_MS(100));
    return pair;
}

/* ---- acceptance ---- */

enum reaction { NOTHING, ACK, CHALLENGE, TAKEN, RESET };

static void test_reactions(void **state)
{
    static const struct {
        const char *name;
        struct shot shot;
        enum reaction expected;
    } rows[] = {
        {"the next octets", {.size = 10, .flags = TCP_ACK}, TAKEN},
        {"half old, half new", {.sequence = -5, .size = 10, .flags = TCP_ACK}, TAKEN},
        {"octets we have", {.sequence = -10, .size = 10, .flags = TCP_ACK}, ACK},
        {"before those", {.sequence = -100, .size = 10, .flags = TCP_ACK}, ACK},
        {"beyond the window", {.sequence = 70000, .size = 10, .flags = TCP_ACK}, ACK},
        {"an old ACK", {.sequence = -1, .flags = TCP_ACK}, CHALLENGE},
        {"an ACK beyond the window", {.sequence = 70000, .flags = TCP_ACK}, CHALLENGE},
        {"an ACK in the window", {.sequence = 100, .flags = TCP_ACK}, NOTHING},
        {"an ACK at the right edge", {.sequence = 65535, .flags = TCP_ACK}, NOTHING},
        {"an octet at the right edge", {.sequence = 65535, .size = 1, .flags = TCP_ACK}, ACK},
        {"an ACK behind the right edge", {.sequence = 65536, .flags = TCP_ACK}, CHALLENGE},
        {"no ACK at all", {.size = 10, .flags = TCP_PSH}, NOTHING},
        {"ACK of what was not sent",
         {.acknowledgement = 1, .size = 10, .flags = TCP_ACK},
         CHALLENGE},
        {"ACK within the largest window",
         {.acknowledgement = -60000, .size = 10, .flags = TCP_ACK},
         TAKEN},
        {"ACK older than any window",
         {.acknowledgement = -70000, .size = 10, .flags = TCP_ACK},
         CHALLENGE},
        {"RST, exact", {.flags = TCP_RST}, RESET},
        {"RST in the window", {.sequence = 1, .flags = TCP_RST}, CHALLENGE},
        {"RST at the last octet", {.sequence = 60000, .flags = TCP_RST}, CHALLENGE},
        {"RST before the window", {.sequence = -1, .flags = TCP_RST}, NOTHING},
        {"RST beyond the window", {.sequence = 70000, .flags = TCP_RST}, NOTHING},
        {"RST with an old timestamp", {.timestamp = -1, .flags = TCP_RST}, RESET},
        {"RST without a timestamp", {.flags = TCP_RST, .has_no_timestamp = true}, RESET},
        {"SYN, next", {.flags = TCP_SYN}, CHALLENGE},
        {"SYN, anywhere", {.sequence = -5000000, .flags = TCP_SYN}, CHALLENGE},
        {"SYN with an old timestamp", {.timestamp = -9, .flags = TCP_SYN}, CHALLENGE},
        {"SYN without a timestamp", {.flags = TCP_SYN, .has_no_timestamp = true}, CHALLENGE},
        {"SYN-ACK again", {.sequence = -1, .flags = TCP_SYN | TCP_ACK}, CHALLENGE},
        {"an old timestamp", {.timestamp = -1, .size = 10, .flags = TCP_ACK}, ACK},
        {"an old timestamp, bare", {.timestamp = -1, .flags = TCP_ACK}, CHALLENGE},
        {"no timestamp", {.size = 10, .flags = TCP_ACK, .has_no_timestamp = true}, NOTHING},
        {"urgent octets are octets", {.size = 10, .flags = TCP_ACK | TCP_URG}, TAKEN},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_of(NULL);
        struct target target = target_of(pair, PAIR_B);
        struct shot shot = rows[i].shot;
        uint32_t before = target.tcb->rcv_nxt;
        uint64_t challenges = pair_count(pair, PAIR_B, STACK_TCP_CHALLENGES);
        target.tcb->quick_acks_left = 0;
        shot.window = 500;
        shoot(&target, &shot);
        bool is_challenged = pair_count(pair, PAIR_B, STACK_TCP_CHALLENGES) > challenges;
        uint32_t taken = target.tcb->rcv_nxt - before;
        bool is_reset = target.tcb->state == TCP_CLOSED;
        bool is_answered = target.tcb->flags & TCB_ACK_NOW;
        enum reaction reaction = is_reset        ? RESET
                                 : is_challenged ? CHALLENGE
                                 : taken > 0     ? TAKEN
                                 : is_answered   ? ACK
                                                 : NOTHING;
        if (reaction != rows[i].expected)
            fail_msg("%s: %d", rows[i].name, reaction);
        bool is_told =
            rows[i].shot.size > 0 && rows[i].shot.sequence < 0 && rows[i].expected != CHALLENGE;
        if (is_told != ((target.tcb->flags & TCB_DSACK_SEND) != 0))
            fail_msg("%s: DSACK", rows[i].name);
        if (reaction == TAKEN && taken != rows[i].shot.size + (uint32_t)rows[i].shot.sequence)
            fail_msg("%s: %u octets", rows[i].name, taken);
        pair_free(pair);
    }
}

/* Octets and FIN beyond the edge are cut: the FIN comes again with the octets before it. */
static void test_window_cuts(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    uint32_t edge = target.tcb->rcv_nxt + 100;

    (void)state;
    target.tcb->rcv_edge = edge;
    shoot(&target, &(struct shot){.size = 150, .flags = TCP_ACK | TCP_FIN, .window = 500});
    assert_int_equal(edge, target.tcb->rcv_nxt);
    assert_int_equal(TCP_ESTABLISHED, target.tcb->state);
    assert_int_equal(100, flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]));
    /* A FIN alone needs no room. */
    target.tcb->rcv_edge = target.tcb->rcv_nxt;
    shoot(&target, &(struct shot){.size = 10, .flags = TCP_ACK, .window = 500});
    assert_int_equal(edge, target.tcb->rcv_nxt);
    shoot(&target, &(struct shot){.flags = TCP_ACK | TCP_FIN, .window = 500});
    assert_int_equal(TCP_CLOSE_WAIT, target.tcb->state);
    pair_free(pair);
}

/* ---- limits of answers ---- */

static void test_challenges_are_limited(void **state)
{
    struct tcp_policy policy = tcp_policy_default();
    const struct shot shot = {.sequence = 1, .flags = TCP_RST, .window = 500};

    (void)state;
    policy.challenge_acks_per_second = 5;
    struct pair *pair = pair_of(&policy);
    struct target target = target_of(pair, PAIR_B);
    for (uint32_t second = 1; second <= 3; second++) {
        for (uint32_t i = 0; i < 20; i++)
            shoot(&target, &shot);
        assert_int_equal(5 * second, pair_count(pair, PAIR_B, STACK_TCP_CHALLENGES));
        assert_int_equal(15 * second, pair_count(pair, PAIR_B, STACK_TCP_CHALLENGES_LIMITED));
        pair_run(pair, TICK_MS(1002));
    }
    /* Another connection has its own. */
    pair_connect(pair);
    target = target_of(pair, PAIR_B);
    shoot(&target, &shot);
    assert_int_equal(16, pair_count(pair, PAIR_B, STACK_TCP_CHALLENGES));
    pair_free(pair);
}

/* ---- time ---- */

/* RFC 7323 5.5: a timestamp that was not renewed for 24 days says nothing any more. */
static void test_old_timestamps_expire(void **state)
{
    const struct shot shot = {.timestamp = -1, .size = 10, .flags = TCP_ACK, .window = 500};
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    uint32_t before = target.tcb->rcv_nxt, recent = target.tcb->ts_recent;

    (void)state;
    target.stack->now += TICK_S(24ull * 24 * 3600) - TICK_S(1);
    shoot(&target, &shot);
    assert_int_equal(before, target.tcb->rcv_nxt);
    target.stack->now += TICK_S(1);
    shoot(&target, &shot);
    assert_int_equal(before + 10, target.tcb->rcv_nxt);
    assert_int_equal(recent - 1, target.tcb->ts_recent);
    pair_free(pair);
}

/* RFC 7323 4.3: the timestamp to echo is that of the earliest segment not yet acknowledged. */
static void test_timestamp_to_echo(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    uint32_t recent = target.tcb->ts_recent;

    (void)state;
    target.tcb->quick_acks_left = 0;
    shoot(&target, &(struct shot){.timestamp = 5, .size = 10, .flags = TCP_ACK, .window = 500});
    assert_int_equal(recent + 5, target.tcb->ts_recent);
    shoot(&target, &(struct shot){.timestamp = 3, .size = 10, .flags = TCP_ACK, .window = 500});
    assert_int_equal(recent + 5, target.tcb->ts_recent); /* that one is answered by the same ACK */
    uint32_t index = pair->segment_count;
    flow_flush(pair->planes[PAIR_B], pair->now);
    const struct pair_segment *ack = pair_find(pair, PAIR_B, TCP_ACK, &index);
    assert_non_null(ack);
    assert_int_equal(recent + 5, ack->tcp.options.timestamp_echo);
    shoot(&target,
          &(struct shot){
              .sequence = 50, .timestamp = 9, .size = 10, .flags = TCP_ACK, .window = 500});
    assert_int_equal(recent + 5, target.tcb->ts_recent); /* out of order */
    shoot(&target, &(struct shot){.timestamp = 8, .size = 10, .flags = TCP_ACK, .window = 500});
    assert_int_equal(recent + 13, target.tcb->ts_recent);
    pair_free(pair);
}

/* ---- ECN ---- */

/* RFC 3168 6.1.3: from CE to CWR every ACK says ECE; only where both agreed on it. */
static void test_congestion_is_echoed(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct pair *pair = pair_of(NULL);
        struct target target = target_of(pair, PAIR_B);
        uint32_t index = pair->segment_count;
        pair->judge = drop_all; /* A has not sent any of this, and would say so */
        target.tcb->flags |= i == 0 ? TCB_HAS_ECN : 0u;
        shoot(&target, &(struct shot){.size = 10, .flags = TCP_ACK, .window = 500, .is_ce = true});
        pair_run(pair, TICK_MS(100));
        shoot(&target, &(struct shot){.size = 10, .flags = TCP_ACK, .window = 500});
        pair_run(pair, TICK_MS(100));
        shoot(&target, &(struct shot){.size = 10, .flags = TCP_ACK | TCP_CWR, .window = 500});
        pair_run(pair, TICK_MS(100));
        const bool expected[] = {true, true, false};
        for (uint32_t j = 0; j < COUNT_OF(expected); j++) {
            const struct pair_segment *ack = pair_find(pair, PAIR_B, TCP_ACK, &index);
            assert_non_null(ack);
            assert_int_equal(i == 0 && expected[j], (ack->tcp.flags & TCP_ECE) != 0);
        }
        pair_free(pair);
    }
}

/* RFC 3168 6.1.2, 6.1.5: CWR once, on new octets; what is sent again is not ECN-capable. */
static void test_reduction_is_told(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    uint32_t index = pair->segment_count, seen = 0;
    const struct pair_segment *segment;

    (void)state;
    pair->judge = drop_all;
    target.tcb->flags |= TCB_HAS_ECN | TCB_CWR_SEND;
    pair_send(pair, PAIR_B, 0, 4000);
    pair_run(pair, TICK_S(2));
    while ((segment = pair_find(pair, PAIR_B, 0, &index)) != NULL) {
        bool is_new = seen < 3;
        assert_int_equal(seen == 0, (segment->tcp.flags & TCP_CWR) != 0);
        assert_int_equal(is_new ? 2 : 0, segment->ip.traffic_class & 3);
        seen++;
    }
    assert_true(seen > 3);
    pair_free(pair);
}

/* ---- RST ---- */

/* RFC 9293 3.10.7.1. */
static void test_resets_for_strangers(void **state)
{
    static const struct {
        uint8_t flags;
        uint32_t size;
        bool is_answered, has_ack;
        uint32_t sequence, acknowledgement; /* of the answer to 1000, 2000 */
    } rows[] = {
        {TCP_ACK, 10, true, false, 2000, 0}, {TCP_SYN, 0, true, true, 0, 1001},
        {TCP_SYN, 5, true, true, 0, 1006},   {TCP_FIN, 5, true, true, 0, 1006},
        {0, 5, true, true, 0, 1005},         {TCP_SYN | TCP_ACK, 0, true, false, 2000, 0},
        {TCP_RST, 0, false, false, 0, 0},    {TCP_RST | TCP_ACK, 0, false, false, 0, 0},
    };
    struct pair *pair = pair_of(NULL);

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct packet packet = {.port = &pair->stacks[PAIR_B]->ports[0],
                                .ip = {.family = 4},
                                .l4_size = (uint16_t)(TCP_HEADER_SIZE + rows[i].size),
                                .source_mac = {2, 0, 0, 0, 0, 1}};
        struct segment segment = {.packet = &packet,
                                  .header = {.sequence = 1000,
                                             .acknowledgement = 2000,
                                             .flags = rows[i].flags,
                                             .header_size = TCP_HEADER_SIZE},
                                  .key = pair_tcb(pair, PAIR_B)->key,
                                  .flags = rows[i].flags};
        uint32_t index = pair->segment_count;
        memcpy(packet.ip.source, segment.key.remote, sizeof(packet.ip.source));
        segment.key.remote_port = 9;
        tcp_send_reset_for(pair->stacks[PAIR_B], &segment);
        flow_flush(pair->planes[PAIR_B], pair->now);
        const struct pair_segment *reset = pair_find(pair, PAIR_B, TCP_RST, &index);
        assert_int_equal(rows[i].is_answered, reset != NULL);
        if (reset == NULL)
            continue;
        assert_int_equal(rows[i].has_ack, (reset->tcp.flags & TCP_ACK) != 0);
        assert_int_equal(rows[i].sequence, reset->tcp.sequence);
        assert_int_equal(rows[i].acknowledgement, reset->tcp.acknowledgement);
    }
    pair_free(pair);
}

/* ---- SACK ---- */

/* Goal: blocks are told although there are octets to send, which have no room for them. */
static void test_blocks_before_octets(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    uint32_t index = pair->segment_count;

    (void)state;
    pair_send(pair, PAIR_B, 0, 3000);
    shoot(&target, &(struct shot){.sequence = 50, .size = 10, .flags = TCP_ACK, .window = 500});
    flow_flush(pair->planes[PAIR_B], pair->now);
    const struct pair_segment *ack = pair_find(pair, PAIR_B, TCP_ACK, &index);
    assert_non_null(ack);
    assert_int_equal(0, ack->size);
    assert_int_equal(1, ack->tcp.options.sack_count);
    ack = pair_find(pair, PAIR_B, TCP_ACK, &index);
    assert_non_null(ack);
    assert_int_equal(1448, ack->size);
    pair_free(pair);
}

/* ---- SYN_SENT ---- */

static void test_answers_to_a_syn(void **state)
{
    const uint8_t syn_ack = TCP_SYN | TCP_ACK;
    const struct {
        const char *name;
        struct shot shot;
        uint8_t expected;
        bool has_reset;
        uint32_t readable;
    } rows[] = {
        {"SYN-ACK", {.acknowledgement = 1, .flags = syn_ack}, TCP_ESTABLISHED, false, 0},
        {"SYN-ACK of another SYN", {.acknowledgement = 2, .flags = syn_ack}, TCP_SYN_SENT, true, 0},
        {"SYN-ACK of an old SYN", {.acknowledgement = 0, .flags = syn_ack}, TCP_SYN_SENT, true, 0},
        {"SYN-ACK with octets",
         {.acknowledgement = 1, .size = 30, .flags = syn_ack},
         TCP_ESTABLISHED,
         false,
         30},
        {"SYN-ACK with octets and FIN",
         {.acknowledgement = 1, .size = 30, .flags = TCP_SYN | TCP_ACK | TCP_FIN},
         TCP_CLOSE_WAIT,
         false,
         30},
        {"SYN", {.size = 30, .flags = TCP_SYN}, TCP_SYN_RECEIVED, false, 0},
        {"RST", {.acknowledgement = 1, .flags = TCP_RST | TCP_ACK}, TCP_CLOSED, false, 0},
        {"RST without ACK", {.flags = TCP_RST}, TCP_SYN_SENT, false, 0},
        {"RST of another SYN",
         {.acknowledgement = 2, .flags = TCP_RST | TCP_ACK},
         TCP_SYN_SENT,
         false,
         0},
        {"ACK", {.acknowledgement = 1, .flags = TCP_ACK}, TCP_SYN_SENT, false, 0},
        {"ACK of another SYN", {.acknowledgement = 5, .flags = TCP_ACK}, TCP_SYN_SENT, true, 0},
        {"nothing", {.size = 5}, TCP_SYN_SENT, false, 0},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct pair *pair = pair_of(NULL);
        const struct flow_connect_options options = {
            .remote = pair_address(pair, PAIR_B, 77), .deadline = TICK_NEVER, .user = 3};
        pair->judge = drop_all;
        assert_int_equal(ERR_OK,
                         flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
        flow_flush(pair->planes[PAIR_A], pair->now); /* the SYN */
        struct target target = target_of(pair, PAIR_A);
        struct shot shot = rows[i].shot;
        uint64_t resets = pair_count(pair, PAIR_A, STACK_TCP_RESETS_SENT);
        shot.window = 500;
        shot.window_scale = 15;
        shoot(&target, &shot);
        if (target.tcb->state != rows[i].expected)
            fail_msg("%s: %u", rows[i].name, target.tcb->state);
        assert_int_equal(rows[i].has_reset,
                         pair_count(pair, PAIR_A, STACK_TCP_RESETS_SENT) - resets);
        assert_int_equal(rows[i].readable,
                         flow_readable(pair->planes[PAIR_A], pair->flows[PAIR_A]));
        /* RFC 7323 2.3: a shift above 14 means 14. */
        if (target.tcb->state >= TCP_SYN_RECEIVED)
            assert_int_equal(14, target.tcb->snd_scale);
        pair_free(pair);
    }
}

/* ---- the peer's window ---- */

static void test_which_segments_tell_the_window(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct target target = target_of(pair, PAIR_B);
    struct tcb *tcb = target.tcb;

    (void)state;
    pair_send(pair, PAIR_B, 0, 3000);
    flow_flush(pair->planes[PAIR_B], pair->now);
    shoot(&target, &(struct shot){.size = 100, .flags = TCP_ACK, .window = 400});
    assert_int_equal(400u << tcb->snd_scale, tcb->snd_wnd);
    /* Older in sequence, and nothing new acknowledged: an old offer. */
    shoot(&target, &(struct shot){.sequence = -150, .size = 160, .flags = TCP_ACK, .window = 300});
    assert_int_equal(400u << tcb->snd_scale, tcb->snd_wnd);
    /* Older in sequence, but it acknowledges more than any before: today's. */
    shoot(&target, &(struct shot){.sequence = -200,
                                  .acknowledgement = 1448,
                                  .size = 210,
                                  .flags = TCP_ACK,
                                  .window = 200});
    assert_int_equal(200u << tcb->snd_scale, tcb->snd_wnd);
    /* The same sequence and acknowledgement: an update. */
    shoot(&target, &(struct shot){.flags = TCP_ACK, .window = 450});
    assert_int_equal(450u << tcb->snd_scale, tcb->snd_wnd);
    pair_free(pair);
}

/* Goal: a peer that closed its window over what is in flight and goes on saying so is not given up,
 * one that says nothing is (RFC 9293 3.8.6.1). */
static void test_window_closed_over_octets_in_flight(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        struct pair *pair = pair_of(NULL);
        struct target target = target_of(pair, PAIR_B);
        bool is_talking = i == 0;
        pair_send(pair, PAIR_B, 0, 3000);
        flow_flush(pair->planes[PAIR_B], pair->now);
        pair->judge = drop_all;
        for (uint32_t second = 0; second < 300 && target.tcb->state != TCP_CLOSED; second += 5) {
            if (is_talking)
                shoot(&target, &(struct shot){.flags = TCP_ACK, .window = 0});
            pair_run(pair, TICK_S(5));
        }
        assert_int_equal(is_talking ? TCP_ESTABLISHED : TCP_CLOSED, target.tcb->state);
        pair_free(pair);
    }
}

/* ---- tuples used again ---- */

/* RFC 6191: the sequence numbers of the new connection lie beyond all of the old one's. */
static void test_tuple_of_time_wait(void **state)
{
    struct pair *pair = pair_of(NULL);
    struct flow_connect_options options = {.remote = pair_address(pair, PAIR_B, 25),
                                           .source = pair_address(pair, PAIR_A, 5000),
                                           .deadline = TICK_NEVER,
                                           .user = 7};
    uint32_t sent = 0;

    (void)state;
    assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
    assert_true(pair_wait(pair, PAIR_A, 7, FLOW_CONNECTED, TICK_S(1)));
    struct flow_address peer;
    while (flow_accept(pair->planes[PAIR_B], pair->listener, 1, &pair->flows[PAIR_B], &peer) !=
           ERR_OK)
        pair_turn(pair);
    flow_set_user(pair->planes[PAIR_B], pair->flows[PAIR_B], 8);
    while (!(pair->seen[PAIR_B][8] &
             FLOW_PEER_CLOSED)) { /* more than the clock of sequence numbers goes on in a second */
        if (sent < 2000000 && flow_unsent(pair->planes[PAIR_A], pair->flows[PAIR_A]) < 200000) {
            pair_send(pair, PAIR_A, sent, 100000);
            sent += 100000;
        }
        if (sent == 2000000)
            flow_shutdown(pair->planes[PAIR_A], pair->flows[PAIR_A]);
        pair_turn(pair);
        flow_consume(pair->planes[PAIR_B], pair->flows[PAIR_B],
                     flow_readable(pair->planes[PAIR_B], pair->flows[PAIR_B]));
    }
    pair_run(pair, TICK_MS(10));
    uint32_t end = pair_tcb(pair, PAIR_A)->snd_nxt;
    flow_close(pair->planes[PAIR_B], pair->flows[PAIR_B]);
    pair_run(pair, TICK_MS(50));
    flow_close(pair->planes[PAIR_A], pair->flows[PAIR_A]);
    assert_int_equal(1, stack_get_usage(pair->stacks[PAIR_A]).time_wait);
    assert_int_equal(ERR_SYSTEM,
                     flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
    pair_run(pair, TICK_MS(1100));
    assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
    assert_true(seq_ge(pair_tcb(pair, PAIR_A)->snd_una, end));
    pair->seen[PAIR_A][7] = 0;
    assert_true(pair_wait(pair, PAIR_A, 7, FLOW_CONNECTED, TICK_S(1)));
    pair_free(pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reactions),
        cmocka_unit_test(test_window_cuts),
        cmocka_unit_test(test_challenges_are_limited),
        cmocka_unit_test(test_old_timestamps_expire),
        cmocka_unit_test(test_timestamp_to_echo),
        cmocka_unit_test(test_congestion_is_echoed),
        cmocka_unit_test(test_reduction_is_told),
        cmocka_unit_test(test_resets_for_strangers),
        cmocka_unit_test(test_blocks_before_octets),
        cmocka_unit_test(test_answers_to_a_syn),
        cmocka_unit_test(test_which_segments_tell_the_window),
        cmocka_unit_test(test_window_closed_over_octets_in_flight),
        cmocka_unit_test(test_tuple_of_time_wait),
    };
    return cmocka_run_group_tests_name("wire tcp input", tests, NULL, NULL);
}
