/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every state x every segment, against the text of RFC 9293 3.10.7.
 *
 * Segments: all 16 combinations of SYN, ACK, RST and FIN, with and without text, at seven places
 * around the receive window, with six acknowledgement numbers: left, right, inside and exact. For
 * each the engine's answer, next state, and what the application gets are held against `expect_*`
 * below: the RFC's paragraphs in their order, amended by RFC 5961 as RFC 9293 says, and by nothing
 * that was learnt from the engine.
 *
 * Where the RFC leaves a choice, or the engine has a reason to differ, both answers are allowed and
 * the reason stands beside it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/wire/world.h"

#define FLAG_COMBINATIONS 16u
#define ISN               0x70000000u
#define PEER_WINDOW       4000u
#define IN_FLIGHT         50u
#define TEXT              10u
#define USER_LISTENER     1u
#define USER_FLOW         2u

enum state {
    CLOSED,
    LISTEN,
    SYN_SENT,
    SYN_RECEIVED,         /* passive: an entry of the SYN cache */
    SYN_RECEIVED_CROSSED, /* by a simultaneous open */
    ESTABLISHED,
    FIN_WAIT_1,
    FIN_WAIT_2,
    CLOSE_WAIT,
    CLOSING,
    LAST_ACK,
    TIME_WAIT,
    STATE_COUNT
};

static const char *const state_names[STATE_COUNT] = {
    "CLOSED",       "LISTEN",      "SYN_SENT",   "SYN_RECEIVED (cache)",
    "SYN_RECEIVED", "ESTABLISHED", "FIN_WAIT_1", "FIN_WAIT_2",
    "CLOSE_WAIT",   "CLOSING",     "LAST_ACK",   "TIME_WAIT"};

enum place { FAR_LEFT, OVERLAPPING, EXACT, INSIDE, LAST, EDGE, FAR_RIGHT, PLACE_COUNT };
static const char *const place_names[PLACE_COUNT] = {
    "far left", "overlapping", "exact", "inside", "last", "edge", "far right"};

enum ack { ACK_ANCIENT, ACK_OLD, ACK_UNA, ACK_MIDDLE, ACK_ALL, ACK_BEYOND, ACK_COUNT };
static const char *const ack_names[ACK_COUNT] = {"ancient", "old", "una",
                                                 "middle",  "all", "beyond"};

enum reply { /* bits: what may be sent */
             NOTHING = 1u << 0,
             AN_ACK = 1u << 1,      /* <SEQ=SND.NXT><ACK=RCV.NXT><CTL=ACK> */
             RST_BY_ACK = 1u << 2,  /* <SEQ=SEG.ACK><CTL=RST> */
             RST_AND_ACK = 1u << 3, /* <SEQ=0><ACK=SEG.SEQ+SEG.LEN><CTL=RST,ACK> */
             A_SYN_ACK = 1u << 4,
             OTHERWISE = 1u << 5
};

struct situation { /* a connection brought into a state */
    struct world *world;
    enum state state;
    uint32_t iss, snd_una, snd_nxt, rcv_nxt, rcv_edge;
    struct flow flow, listener;
    bool has_flow, has_listener, is_acceptable;
    uint32_t events;
};

struct event {
    uint8_t flags;
    bool has_text;
    enum place place;
    enum ack ack;
    /* as sent */
    uint32_t sequence, acknowledgement, text, length;
};

struct expected {
    uint32_t replies; /* of enum reply */
    uint32_t states;  /* bits of enum state */
    uint32_t delivered;
    bool is_closed;        /* PEER_CLOSED is told */
    bool is_lost;          /* RESET or FAILED is told */
    bool is_any_text;      /* delivered may also be nothing */
    uint32_t acknowledged; /* rcv_nxt afterwards: what an ACK must say */
};

/* ---- the peer ---- */

static void send_segment(struct world *world, const struct test_segment *segment)
{
    static uint8_t frame[TEST_FRAME_MAX];
    struct test_segment full = *segment;

    memcpy(full.source_mac, world_peer_mac, 6);
    memcpy(full.destination_mac, world_stack_mac, 6);
    memcpy(full.source, world_peer4.ip, 16);
    memcpy(full.destination, world_stack4.ip, 16);
    full.family = 4;
    full.ttl = 64;
    full.window = PEER_WINDOW;
    world_send(world, frame, test_segment_build(&full, frame));
}

static void send_plain(struct situation *situation, uint8_t flags, uint32_t sequence,
                       uint32_t acknowledgement, uint16_t port)
{
    struct test_segment segment = {.source_port = 40000,
                                   .destination_port = port,
                                   .flags = flags,
                                   .sequence = sequence,
                                   .acknowledgement = acknowledgement};

    if (flags & SEGMENT_SYN)
        segment.options = (struct test_options){.has_mss = true, .mss = 1460};
    send_segment(situation->world, &segment);
}

/* The next segment of the stack; false: none. */
static bool receive_segment(struct world *world, struct test_segment *ret_segment)
{
    struct world_frame *frame = world_take(world);

    if (frame == NULL)
        return false;
    assert_null(test_segment_parse(span_of(frame->octets, frame->size), ret_segment));
    ret_segment->payload = NULL; /* goes with the frame */
    free(frame);
    return true;
}

static void receive_all(struct world *world)
{
    struct test_segment segment;

    while (receive_segment(world, &segment))
        ;
}

/* ---- bringing a connection into a state ---- */

static void on_event(void *context, const struct flow_event *event)
{
    struct situation *situation = context;

    if (event->user == USER_LISTENER)
        situation->is_acceptable = true;
    else
        situation->events |= event->events;
}

static uint16_t local_port = 25;

static void begin_listening(struct situation *situation)
{
    struct flow_listen_options options = {.address = {.family = FLOW_FAMILY_IP4, .port = 25},
                                          .backlog = 8,
                                          .receive_limit = 40000,
                                          .user = USER_LISTENER};

    assert_int_equal(ERR_OK, flow_listen(situation->world->plane, &options, &situation->listener));
    situation->has_listener = true;
}

static void begin_half_open(struct situation *situation)
{
    struct test_segment segment;

    begin_listening(situation);
    send_plain(situation, SEGMENT_SYN, ISN, 0, 25);
    assert_true(receive_segment(situation->world, &segment));
    assert_int_equal(SEGMENT_SYN | SEGMENT_ACK, segment.flags);
    situation->iss = segment.sequence;
    situation->rcv_nxt = ISN + 1;
    situation->rcv_edge = situation->rcv_nxt + segment.window;
    situation->snd_una = situation->iss;
    situation->snd_nxt = situation->iss + 1;
}

static void begin_connecting(struct situation *situation)
{
    struct flow_connect_options options = {
        .remote = world_peer4, .deadline = TICK_NEVER, .receive_limit = 40000, .user = USER_FLOW};
    struct test_segment segment;

    options.remote.port = 40000;
    assert_int_equal(ERR_OK, flow_connect(situation->world->plane, &options, &situation->flow));
    situation->has_flow = true;
    world_settle(situation->world);
    assert_true(receive_segment(situation->world, &segment));
    assert_int_equal(SEGMENT_SYN, segment.flags);
    local_port = segment.source_port;
    situation->iss = segment.sequence;
    situation->snd_una = situation->iss;
    situation->snd_nxt = situation->iss + 1;
    /* Nothing is known of the peer: its numbers are where the test thinks they are. */
    situation->rcv_nxt = ISN;
    situation->rcv_edge = ISN + segment.window;
}

static void begin_crossed(struct situation *situation)
{
    struct test_segment segment;

    begin_connecting(situation);
    send_plain(situation, SEGMENT_SYN, ISN, 0, local_port);
    assert_true(receive_segment(situation->world, &segment));
    assert_int_equal(SEGMENT_SYN | SEGMENT_ACK, segment.flags);
    situation->rcv_nxt = ISN + 1;
    situation->rcv_edge = situation->rcv_nxt + segment.window;
}

static void write_some(struct situation *situation)
{
    uint8_t octets[IN_FLIGHT] = {0};
    struct buf_queue queue;

    buf_queue_init(&queue);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, situation->world->pool,
                                                   span_of(octets, sizeof(octets))));
    flow_append(situation->world->plane, situation->flow, &queue);
    buf_queue_fini(&queue);
    world_settle(situation->world);
    situation->snd_nxt += IN_FLIGHT;
}

static void begin_established(struct situation *situation)
{
    struct flow_address from;

    begin_half_open(situation);
    send_plain(situation, SEGMENT_ACK, ISN + 1, situation->iss + 1, 25);
    assert_int_equal(ERR_OK, flow_accept(situation->world->plane, situation->listener, USER_FLOW,
                                         &situation->flow, &from));
    situation->has_flow = true;
    situation->snd_una = situation->iss + 1;
}

static void shut_down(struct situation *situation)
{
    flow_shutdown(situation->world->plane, situation->flow);
    world_settle(situation->world);
    situation->snd_nxt++;
}

static void acknowledge_all(struct situation *situation)
{
    send_plain(situation, SEGMENT_ACK, situation->rcv_nxt, situation->snd_nxt, 25);
    situation->snd_una = situation->snd_nxt;
}

/* The peer's FIN, which acknowledges nothing new. */
static void take_fin(struct situation *situation)
{
    send_plain(situation, SEGMENT_FIN | SEGMENT_ACK, situation->rcv_nxt, situation->snd_una, 25);
    situation->rcv_nxt++;
}

static void begin(struct situation *situation, enum state state)
{
    struct world_options options = world_options_default();

    options.tcp.quick_acks = 1000; /* every answer at once */
    options.tcp.has_timestamps = options.tcp.has_sack = options.tcp.has_window_scale = false;
    options.address_count = 1;
    *situation = (struct situation){.world = world_new(&options), .state = state};
    situation->world->on_event = on_event;
    situation->world->context = situation;
    local_port = 25;
    if (state == CLOSED) {
        situation->rcv_nxt = ISN;
        situation->rcv_edge = ISN + PEER_WINDOW;
        situation->snd_una = situation->snd_nxt = 5000;
    } else if (state == LISTEN) {
        begin_listening(situation);
        situation->rcv_nxt = ISN;
        situation->rcv_edge = ISN + PEER_WINDOW;
        situation->snd_una = situation->snd_nxt = 5000;
    } else if (state == SYN_SENT) {
        begin_connecting(situation);
    } else if (state == SYN_RECEIVED) {
        begin_half_open(situation);
    } else if (state == SYN_RECEIVED_CROSSED) {
        begin_crossed(situation);
    } else {
        begin_established(situation);
    }
    if (state == ESTABLISHED || state == FIN_WAIT_1 || state == CLOSE_WAIT)
        write_some(situation);
    if (state == FIN_WAIT_1 || state == FIN_WAIT_2 || state == CLOSING || state == TIME_WAIT)
        shut_down(situation);
    if (state == FIN_WAIT_2 || state == TIME_WAIT)
        acknowledge_all(situation);
    if (state == CLOSE_WAIT || state == CLOSING || state == LAST_ACK || state == TIME_WAIT)
        take_fin(situation);
    if (state == LAST_ACK)
        shut_down(situation);
    receive_all(situation->world);
    situation->events = 0;
    if (situation->rcv_edge - situation->rcv_nxt > PEER_WINDOW * 10) /* our FIN's ACK moved it */
        situation->rcv_edge = situation->rcv_nxt + PEER_WINDOW * 10;
}

static void end(struct situation *situation)
{
    struct flow_plane *plane = situation->world->plane;

    if (situation->has_flow)
        flow_abort(plane, situation->flow);
    if (situation->has_listener)
        flow_close(plane, situation->listener);
    world_settle(situation->world);
    world_free(situation->world);
}

/* ---- the segment ---- */

static void event_place(const struct situation *situation, struct event *event)
{
    const uint32_t places[PLACE_COUNT] = {
        [FAR_LEFT] = situation->rcv_nxt - 1000,
        [OVERLAPPING] = situation->rcv_nxt - TEXT / 2,
        [EXACT] = situation->rcv_nxt,
        [INSIDE] = situation->rcv_nxt + 100,
        [LAST] = situation->rcv_edge - 1,
        [EDGE] = situation->rcv_edge,
        [FAR_RIGHT] = situation->rcv_edge + 100000,
    };
    const uint32_t acks[ACK_COUNT] = {
        [ACK_ANCIENT] = situation->snd_una - PEER_WINDOW - 1,
        [ACK_OLD] = situation->snd_una - 1,
        [ACK_UNA] = situation->snd_una,
        [ACK_MIDDLE] = situation->snd_una + (situation->snd_nxt - situation->snd_una) / 2,
        [ACK_ALL] = situation->snd_nxt,
        [ACK_BEYOND] = situation->snd_nxt + 1,
    };

    event->sequence = places[event->place];
    event->acknowledgement = event->flags & SEGMENT_ACK ? acks[event->ack] : 0;
    event->text = event->has_text ? TEXT : 0;
    event->length =
        event->text + (event->flags & SEGMENT_SYN ? 1 : 0) + (event->flags & SEGMENT_FIN ? 1 : 0);
}

static void event_send(struct situation *situation, const struct event *event)
{
    static const uint8_t text[TEXT] = "0123456789";
    struct test_segment segment = {.source_port = 40000,
                                   .destination_port = local_port,
                                   .flags = event->flags,
                                   .sequence = event->sequence,
                                   .acknowledgement = event->acknowledgement,
                                   .payload = text,
                                   .payload_size = event->text};

    send_segment(situation->world, &segment);
}

/* ---- RFC 9293 3.10.7 ---- */

static bool before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

static struct expected dropped(const struct situation *situation, uint32_t replies)
{
    return (struct expected){
        .replies = replies, .states = 1u << situation->state, .acknowledged = situation->rcv_nxt};
}

/* 3.10.7.1. */
static struct expected expect_closed(const struct situation *situation, const struct event *event)
{
    if (event->flags & SEGMENT_RST)
        return dropped(situation, NOTHING);
    return dropped(situation, event->flags & SEGMENT_ACK ? RST_BY_ACK : RST_AND_ACK);
}

/* 3.10.7.2. */
static struct expected expect_listen(const struct situation *situation, const struct event *event)
{
    struct expected opened = {.replies = A_SYN_ACK, .states = 1u << SYN_RECEIVED};

    if (event->flags & SEGMENT_RST)
        return dropped(situation, NOTHING);
    if (event->flags & SEGMENT_ACK)
        return dropped(situation, RST_BY_ACK);
    if (!(event->flags & SEGMENT_SYN))
        return dropped(situation, NOTHING);
    opened.acknowledged = event->sequence + 1;
    /* Text may wait for its repetition; no client sends SYN with FIN, so it may be dropped. */
    if (event->flags & SEGMENT_FIN) {
        opened.replies |= NOTHING;
        opened.states |= 1u << LISTEN;
    }
    return opened;
}

/* 3.10.7.3. */
static struct expected expect_syn_sent(const struct situation *situation, const struct event *event)
{
    bool has_ack = event->flags & SEGMENT_ACK;
    bool is_acceptable = before(situation->iss, event->acknowledgement) &&
                         !before(situation->snd_nxt, event->acknowledgement);
    struct expected opened = {.replies = AN_ACK, .states = 1u << ESTABLISHED};

    if (has_ack && !is_acceptable)
        return dropped(situation, event->flags & SEGMENT_RST ? NOTHING : RST_BY_ACK);
    if (event->flags & SEGMENT_RST) {
        if (!has_ack)
            return dropped(situation, NOTHING);
        return (struct expected){.replies = NOTHING, .states = 1u << CLOSED, .is_lost = true};
    }
    if (!(event->flags & SEGMENT_SYN))
        return dropped(situation, NOTHING);
    opened.acknowledged = event->sequence + 1;
    if (!has_ack) {
        opened.replies = A_SYN_ACK;
        opened.states = 1u << SYN_RECEIVED_CROSSED;
        return opened; /* "queue them for processing after ESTABLISHED": or they come again */
    }
    /* "If there are other controls or text in the segment, then continue at the sixth step." */
    opened.delivered = event->text;
    opened.acknowledged += event->text;
    if (event->flags & SEGMENT_FIN) {
        opened.acknowledged++;
        opened.states = 1u << CLOSE_WAIT;
        opened.is_closed = true;
    }
    return opened;
}

/* First, of 3.10.7.4: the table of four cases. */
static bool is_acceptable(const struct situation *situation, const struct event *event)
{
    uint32_t last = event->sequence + event->length - 1;
    bool begins_inside = !before(event->sequence, situation->rcv_nxt) &&
                         before(event->sequence, situation->rcv_edge);
    bool ends_inside = !before(last, situation->rcv_nxt) && before(last, situation->rcv_edge);

    if (event->length == 0)
        return begins_inside;
    return begins_inside || ends_inside;
}

/* Second: RST (RFC 5961 3.2, taken over). */
static struct expected expect_rst(const struct situation *situation, const struct event *event)
{
    struct expected over = {.replies = NOTHING, .states = 1u << CLOSED};

    if (event->sequence != situation->rcv_nxt)
        return dropped(situation, AN_ACK);
    switch (situation->state) {
    case SYN_RECEIVED: /* passive: back to LISTEN, nobody is told */
        over.states = 1u << LISTEN;
        break;
    case TIME_WAIT: /* RFC 1337 section 3, fix 1: ignored */
        over.states = 1u << TIME_WAIT;
        break;
    case CLOSING:
    case LAST_ACK: /* "enter the CLOSED state": all was said */
        break;
    default:
        over.is_lost = true;
    }
    return over;
}

static enum state state_when_fin_is_acknowledged(enum state state)
{
    return state == FIN_WAIT_1 ? FIN_WAIT_2
           : state == CLOSING  ? TIME_WAIT
           : state == LAST_ACK ? CLOSED
                               : state;
}

/* Eighth: FIN, in sequence. */
static void expect_fin(struct expected *expected, enum state state)
{
    enum state next = state == FIN_WAIT_1 ? CLOSING : state == FIN_WAIT_2 ? TIME_WAIT : CLOSE_WAIT;

    expected->states = 1u << next;
    expected->acknowledged++;
    expected->replies = AN_ACK;
    expected->is_closed = true;
}

/* Seventh and eighth, for the states that receive. */
static struct expected expect_text(const struct situation *situation, const struct event *event,
                                   enum state state)
{
    uint32_t end = event->sequence + event->text;
    struct expected expected = {.replies = event->length > 0 ? AN_ACK : NOTHING,
                                .states = 1u << state,
                                .acknowledged = situation->rcv_nxt};
    bool is_in_order = !before(situation->rcv_nxt, event->sequence);

    if (event->length == 0 || !is_in_order)
        return expected; /* kept for later, and acknowledged as it stands */
    if (before(situation->rcv_nxt, end)) {
        expected.delivered = end - situation->rcv_nxt;
        expected.acknowledged = end;
    }
    if (event->flags & SEGMENT_FIN && !before(end, situation->rcv_nxt))
        expect_fin(&expected, state);
    return expected;
}

/* Fifth: ACK, and all that follows. */
static struct expected expect_ack(const struct situation *situation, const struct event *event)
{
    uint32_t ack = event->acknowledgement;
    enum state state = situation->state;
    bool is_half_open = state == SYN_RECEIVED || state == SYN_RECEIVED_CROSSED;

    if (!(event->flags & SEGMENT_ACK))
        return dropped(situation, NOTHING);
    if (is_half_open) {
        if (!before(situation->snd_una, ack) || before(situation->snd_nxt, ack))
            return dropped(situation, RST_BY_ACK);
        return expect_text(situation, event, ESTABLISHED);
    }
    /* RFC 5961 5.2: [SND.UNA - MAX.SND.WND, SND.NXT]. */
    if (before(ack, situation->snd_una - PEER_WINDOW) || before(situation->snd_nxt, ack))
        return dropped(situation, AN_ACK);
    bool has_fin_out = state == FIN_WAIT_1 || state == CLOSING || state == LAST_ACK;
    if (has_fin_out && ack == situation->snd_nxt)
        state = state_when_fin_is_acknowledged(state);
    if (situation->state == ESTABLISHED || situation->state == FIN_WAIT_1 ||
        situation->state == FIN_WAIT_2)
        return expect_text(situation, event, state);
    struct expected expected = dropped(situation, NOTHING);
    expected.states = 1u << state;
    return expected;
}

/* TIME_WAIT after the sequence check. */
static struct expected expect_time_wait(const struct situation *situation,
                                        const struct event *event)
{
    struct expected expected = dropped(situation, NOTHING);

    if (event->flags & SEGMENT_ACK)
        /* "The only thing that can arrive is a retransmission of the remote FIN. Acknowledge it."
         * Of other things nothing is said: whatever takes numbers may be answered. */
        expected.replies |= event->length > 0 ? AN_ACK : 0;
    return expected;
}

/* 3.10.7.4. */
static struct expected expect_synchronised(const struct situation *situation,
                                           const struct event *event)
{
    if (!is_acceptable(situation, event))
        return dropped(situation, event->flags & SEGMENT_RST ? NOTHING : AN_ACK);
    if (event->flags & SEGMENT_RST)
        return expect_rst(situation, event);
    if (event->flags & SEGMENT_SYN)
        return dropped(situation, AN_ACK); /* Fourth: RFC 5961 4.2 */
    if (situation->state == TIME_WAIT)
        return expect_time_wait(situation, event);
    return expect_ack(situation, event);
}

/* Where both may be right. */
static void allow_choices(const struct situation *situation, const struct event *event,
                          struct expected *expected)
{
    uint8_t flags = event->flags;
    bool is_at_edge = event->place == EDGE && event->length == 0;

    /* A peer that filled our window sends its ACKs from the right edge; taking them there, as most
     * stacks do, is what keeps such a connection alive when an octet was lost. A RST there is then
     * one inside the window. */
    if (is_at_edge && situation->state >= SYN_RECEIVED) {
        struct event inside = *event;
        inside.sequence = situation->rcv_edge - 1;
        struct expected taken = expect_synchronised(situation, &inside);
        expected->replies |= taken.replies;
        expected->states |= taken.states;
    }
    /* Half open, passive, without a tcb: a SYN cache or cookie keeps too little to tell where the
     * window is, and answers to strangers are what a flood wants. Only what completes, resets, or
     * repeats the handshake is looked at. */
    if (situation->state == SYN_RECEIVED) {
        expected->replies |= NOTHING;
        if (flags & SEGMENT_SYN)
            expected->replies |= A_SYN_ACK;
        if (flags & SEGMENT_FIN && expected->states & 1u << CLOSE_WAIT)
            expected->states |= 1u << ESTABLISHED; /* the FIN comes again */
    }
    /* Octets before the first one complete no handshake. */
    if (situation->state == SYN_RECEIVED && event->place == OVERLAPPING)
        expected->states |= 1u << SYN_RECEIVED;
    /* Behind the FIN "this should not occur": the text is ignored, but where some of it lies left
     * or right of the window its sender may need to hear where we stand. */
    if (situation->state >= CLOSE_WAIT && event->text > 0)
        expected->replies |= AN_ACK;
    if (situation->state == TIME_WAIT) {
        /* 3.6.1: a SYN beyond everything opens a new connection; here nobody's SYN-ACK is asked
         * for, but the listener's. */
        if ((flags & (SEGMENT_SYN | SEGMENT_ACK | SEGMENT_RST)) == SEGMENT_SYN &&
            !before(event->sequence, situation->rcv_nxt)) {
            expected->replies |= A_SYN_ACK;
            expected->states |= 1u << SYN_RECEIVED;
        }
        /* Two ends in TIME_WAIT must not answer each other's plain ACKs without end. */
        if (event->length == 0 || !(flags & SEGMENT_ACK))
            expected->replies |= NOTHING;
        /* Beyond our FIN's acknowledgement nothing of the old connection can come. */
        expected->replies |= NOTHING;
    }
}

static struct expected expect(const struct situation *situation, const struct event *event)
{
    struct expected expected;

    switch (situation->state) {
    case CLOSED:
        return expect_closed(situation, event);
    case LISTEN:
        return expect_listen(situation, event);
    case SYN_SENT:
        return expect_syn_sent(situation, event);
    default:
        expected = expect_synchronised(situation, event);
        allow_choices(situation, event, &expected);
        return expected;
    }
}

/* ---- what came of it ---- */

static uint32_t classify(const struct situation *situation, const struct event *event,
                         const struct expected *expected, const struct test_segment *segment)
{
    switch (segment->flags & (uint8_t)~SEGMENT_PSH) {
    case SEGMENT_ACK:
        return segment->sequence == situation->snd_nxt &&
                       segment->acknowledgement == expected->acknowledged
                   ? AN_ACK
                   : OTHERWISE;
    case SEGMENT_RST:
        return segment->sequence == event->acknowledgement ? RST_BY_ACK : OTHERWISE;
    case SEGMENT_RST | SEGMENT_ACK:
        return segment->sequence == 0 && segment->acknowledgement == event->sequence + event->length
                   ? RST_AND_ACK
                   : OTHERWISE;
    case SEGMENT_SYN | SEGMENT_ACK:
        return A_SYN_ACK;
    default:
        return OTHERWISE;
    }
}

static uint32_t state_now(struct situation *situation)
{
    static const struct {
        const char *name;
        enum state state;
    } names[] = {{"SYN_SENT", SYN_SENT},       {"SYN_RECEIVED", SYN_RECEIVED_CROSSED},
                 {"ESTABLISHED", ESTABLISHED}, {"FIN_WAIT_1", FIN_WAIT_1},
                 {"FIN_WAIT_2", FIN_WAIT_2},   {"CLOSE_WAIT", CLOSE_WAIT},
                 {"CLOSING", CLOSING},         {"LAST_ACK", LAST_ACK}};
    struct stack_usage usage = stack_get_usage(situation->world->stack);
    struct stack_flow_row rows[4];
    uint64_t cursor = 0;
    uint32_t count = stack_flows(situation->world->stack, &cursor, rows, COUNT_OF(rows));

    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < COUNT_OF(names); j++) {
            if (rows[i].remote.port != 0 && strcmp(rows[i].state, names[j].name) == 0)
                return 1u << names[j].state;
        }
    }
    if (usage.time_wait > 0)
        return 1u << TIME_WAIT;
    if (usage.half_open > 0)
        return 1u << SYN_RECEIVED;
    /* Nothing but perhaps a listener: LISTEN if that is where it came from. */
    bool is_fresh = situation->state == LISTEN || situation->state == SYN_RECEIVED;
    return 1u << (is_fresh ? LISTEN : CLOSED);
}

/* The application's view; a connection that was just completed is accepted for it. */
static uint32_t readable_now(struct situation *situation)
{
    struct flow_address from;

    if (!situation->has_flow && situation->is_acceptable &&
        flow_accept(situation->world->plane, situation->listener, USER_FLOW, &situation->flow,
                    &from) == ERR_OK) {
        situation->has_flow = true;
        world_settle(situation->world);
    }
    return situation->has_flow ? flow_readable(situation->world->plane, situation->flow) : 0;
}

static void describe(const struct situation *situation, const struct event *event)
{
    print_message(
        "# %s, %s%s%s%s%s%s, %s%s%s\n", state_names[situation->state],
        event->flags & SEGMENT_SYN ? "SYN " : "", event->flags & SEGMENT_ACK ? "ACK " : "",
        event->flags & SEGMENT_RST ? "RST " : "", event->flags & SEGMENT_FIN ? "FIN " : "",
        event->flags == 0 ? "no flag " : "", event->has_text ? "with text" : "without text",
        place_names[event->place], event->flags & SEGMENT_ACK ? ", ack " : "",
        event->flags & SEGMENT_ACK ? ack_names[event->ack] : "");
}

/* NULL, or what is wrong. */
static const char *judge(struct situation *situation, const struct event *event)
{
    struct expected expected = expect(situation, event);
    struct test_segment segment;
    uint32_t replies = 0, count = 0;

    event_send(situation, event);
    while (receive_segment(situation->world, &segment)) {
        replies |= classify(situation, event, &expected, &segment);
        count++;
    }
    if (count == 0)
        replies = NOTHING;
    if (situation->world->is_restless)
        return "the stack does not come to rest";
    if (count > 1)
        return "more than one answer";
    if (!(expected.replies & replies))
        return replies == NOTHING ? "no answer" : "another answer";
    if (!(expected.states & state_now(situation)))
        return "another state";
    uint32_t readable = readable_now(situation);
    if (readable != expected.delivered && !(situation->state == SYN_RECEIVED && readable == 0))
        return "other text was delivered";
    bool is_closed = situation->events & FLOW_PEER_CLOSED;
    /* Events are levels: once closed, always closed. */
    if (is_closed != expected.is_closed && situation->state < CLOSE_WAIT &&
        !(situation->state == SYN_RECEIVED && !is_closed))
        return "the peer's end was told, or not";
    bool is_lost = situation->events & (FLOW_RESET | FLOW_FAILED);
    return is_lost != expected.is_lost ? "the connection was lost, or not" : NULL;
}

static uint8_t flags_of(uint32_t combination)
{
    return (uint8_t)((combination & 1 ? SEGMENT_SYN : 0) | (combination & 2 ? SEGMENT_ACK : 0) |
                     (combination & 4 ? SEGMENT_RST : 0) | (combination & 8 ? SEGMENT_FIN : 0));
}

static bool case_is_good(enum state state, struct event event)
{
    struct situation situation;

    begin(&situation, state);
    event_place(&situation, &event);
    const char *wrong = judge(&situation, &event);
    if (wrong != NULL) {
        describe(&situation, &event);
        print_message("#   %s\n", wrong);
    }
    end(&situation);
    return wrong == NULL;
}

static void state_test(enum state state)
{
    uint32_t failed = 0, count = 0;

    for (uint32_t i = 0; i < FLAG_COMBINATIONS * 2 * PLACE_COUNT * ACK_COUNT; i++) {
        struct event event = {.flags = flags_of(i % FLAG_COMBINATIONS),
                              .has_text = i / FLAG_COMBINATIONS % 2 == 1,
                              .place = (enum place)(i / FLAG_COMBINATIONS / 2 % PLACE_COUNT),
                              .ack = (enum ack)(i / FLAG_COMBINATIONS / 2 / PLACE_COUNT)};
        if (!(event.flags & SEGMENT_ACK) && event.ack != ACK_UNA)
            continue;
        failed += !case_is_good(state, event);
        count++;
    }
    print_message("# %s: %u segments\n", state_names[state], count);
    assert_int_equal(0, failed);
}

#define STATE_TEST(name, state)                                                                    \
    static void name(void **context)                                                               \
    {                                                                                              \
        (void)context;                                                                             \
        state_test(state);                                                                         \
    }
STATE_TEST(test_closed, CLOSED)
STATE_TEST(test_listen, LISTEN)
STATE_TEST(test_syn_sent, SYN_SENT)
STATE_TEST(test_syn_received_by_listening, SYN_RECEIVED)
STATE_TEST(test_syn_received_by_crossing, SYN_RECEIVED_CROSSED)
STATE_TEST(test_established, ESTABLISHED)
STATE_TEST(test_fin_wait_1, FIN_WAIT_1)
STATE_TEST(test_fin_wait_2, FIN_WAIT_2)
STATE_TEST(test_close_wait, CLOSE_WAIT)
STATE_TEST(test_closing, CLOSING)
STATE_TEST(test_last_ack, LAST_ACK)
STATE_TEST(test_time_wait, TIME_WAIT)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_closed),
        cmocka_unit_test(test_listen),
        cmocka_unit_test(test_syn_sent),
        cmocka_unit_test(test_syn_received_by_listening),
        cmocka_unit_test(test_syn_received_by_crossing),
        cmocka_unit_test(test_established),
        cmocka_unit_test(test_fin_wait_1),
        cmocka_unit_test(test_fin_wait_2),
        cmocka_unit_test(test_close_wait),
        cmocka_unit_test(test_closing),
        cmocka_unit_test(test_last_ack),
        cmocka_unit_test(test_time_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
