/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list of operations on one connection: segments of a peer that does what it likes, calls of the
 * application, time. Each octet of both streams is known by its place, so whatever the list is:
 *   - what the application reads is the peer's stream, without a gap;
 *   - what the stack sends is the application's stream, in well-formed segments, within the largest
 *     window that was offered;
 *   - it never acknowledges what was not sent, nor less than before;
 *   - the peer's end is told only when everything before it can be read;
 *   - nothing crashes, leaks, or breaks an invariant, and afterwards nothing is left.
 *
 * An operation is one octet and what it needs of those that follow (0 when there are none left).
 */
#include <stdlib.h>

#include "tests/wire/world.h"

#define PORT           25u
#define PEER_PORT      40000u
#define ISN            0xffff0000u /* wraps soon */
#define WRITTEN_MAX    200000u
#define OPERATIONS_MAX 400u
#define CLEARED        TICK_S(400)
#define USER_FLOW      1u
#define MSS            1460u

struct input {
    const uint8_t *data;
    size_t size, at;
};

struct dialogue {
    struct world *world;
    struct input *input;
    struct flow listener, flow;
    bool has_flow, is_told_closed, is_reset;
    uint64_t written, read;
    struct buf_queue taken;
    /* the peer */
    uint32_t iss, next, seen; /* next: contiguous end of what it sent; seen: of what came */
    uint32_t sent_end;        /* highest number it ever sent, plus one */
    uint32_t edge, ack, fin;  /* edge: largest window it offered; ack: the stack's latest */
    bool has_iss, has_fin, has_ack, has_timestamps;
    uint8_t scale;
    uint32_t timestamp_last;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint8_t take8(struct input *input)
{
    return input->at < input->size ? input->data[input->at++] : 0;
}

static uint16_t take16(struct input *input)
{
    uint8_t high = take8(input);
    return (uint16_t)(high << 8 | take8(input));
}

static bool before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* ---- what the stack sends ---- */

static void look_payload(struct dialogue *dialogue, const struct test_segment *segment)
{
    uint32_t position = segment->sequence - dialogue->iss - 1;

    for (uint32_t i = 0; i < segment->payload_size; i++)
        CHECK(segment->payload[i] == test_stream_octet(1, (uint64_t)position + i));
    CHECK((uint64_t)position + segment->payload_size <= dialogue->written);
    CHECK(!before(dialogue->edge, segment->sequence + segment->payload_size));
}

static void look_segment(struct dialogue *dialogue, const struct test_segment *segment)
{
    uint32_t end = segment->sequence + test_segment_length(segment);

    if (segment->flags & SEGMENT_RST)
        return;
    if (segment->flags & SEGMENT_SYN) {
        dialogue->iss = segment->sequence;
        dialogue->has_iss = true;
        dialogue->seen = end;
        dialogue->has_ack = false; /* perhaps another connection */
        return;
    }
    if (segment->payload_size > 0)
        look_payload(dialogue, segment);
    if (segment->options.has_timestamps)
        dialogue->timestamp_last = segment->options.timestamp_value;
    CHECK(!before(dialogue->sent_end, segment->acknowledgement));
    CHECK(!dialogue->has_ack || !before(segment->acknowledgement, dialogue->ack));
    dialogue->ack = segment->acknowledgement;
    dialogue->has_ack = true;
    if (!before(dialogue->seen, segment->sequence) && before(dialogue->seen, end))
        dialogue->seen = end;
}

static void look(struct dialogue *dialogue)
{
    struct world_frame *frame;
    struct test_segment segment;

    while ((frame = world_take(dialogue->world)) != NULL) {
        const char *wrong = test_segment_parse(span_of(frame->octets, frame->size), &segment);
        CHECK(wrong == NULL || strcmp(wrong, "not TCP") == 0);
        if (wrong == NULL && segment.destination_port == PEER_PORT)
            look_segment(dialogue, &segment);
        free(frame);
    }
    CHECK(!dialogue->world->is_restless);
}

/* ---- what the peer sends ---- */

static void offer(struct dialogue *dialogue, const struct test_segment *segment)
{
    uint8_t scale = segment->flags & SEGMENT_SYN ? 0 : dialogue->scale;
    uint32_t edge = segment->acknowledgement + ((uint32_t)segment->window << scale);

    /* Only what the stack may believe counts: an ACK of what it has sent. */
    if (segment->flags & SEGMENT_ACK && !before(dialogue->seen, segment->acknowledgement) &&
        before(dialogue->edge, edge))
        dialogue->edge = edge;
}

static void peer_send(struct dialogue *dialogue, struct test_segment *segment)
{
    static uint8_t frame[TEST_FRAME_MAX], octets[MSS];
    uint32_t position = segment->sequence - ISN - (segment->flags & SEGMENT_SYN ? 0 : 1);
    uint32_t end = segment->sequence + test_segment_length(segment);

    for (uint32_t i = 0; i < segment->payload_size; i++)
        octets[i] = test_stream_octet(2, position + i);
    segment->family = 4;
    segment->ttl = 64;
    segment->source_port = PEER_PORT;
    segment->destination_port = PORT;
    segment->payload = octets;
    memcpy(segment->source_mac, world_peer_mac, 6);
    memcpy(segment->destination_mac, world_stack_mac, 6);
    memcpy(segment->source, world_peer4.ip, 16);
    memcpy(segment->destination, world_stack4.ip, 16);
    offer(dialogue, segment);
    if (before(dialogue->sent_end, end))
        dialogue->sent_end = end;
    world_send(dialogue->world, frame, test_segment_build(segment, frame));
    look(dialogue);
}

static void options_take(struct dialogue *dialogue, struct test_segment *segment)
{
    struct input *input = dialogue->input;
    uint8_t kind = take8(input);
    uint32_t now = (uint32_t)(dialogue->world->now / 1000);

    if (dialogue->has_timestamps && (kind & 15) != 0) {
        segment->options.has_timestamps = true;
        segment->options.timestamp_value = (kind & 14) == 2 ? now - take16(input) * 100u : now;
        segment->options.timestamp_echo =
            (kind & 14) == 4 ? take16(input) : dialogue->timestamp_last;
    }
    segment->options.sack_count = kind >> 4 & 3;
    if (segment->options.sack_count > 3u - segment->options.has_timestamps)
        segment->options.sack_count = 1;
    for (uint32_t i = 0; i < segment->options.sack_count; i++) {
        segment->options.sack[i][0] = dialogue->iss + 1 + take16(input);
        segment->options.sack[i][1] = segment->options.sack[i][0] + take16(input) % 4000;
    }
}

/* Any segment. A FIN always has the same number, as every peer's has that can be called one. */
static void on_any_segment(struct dialogue *dialogue)
{
    static const int32_t steps[] = {1, 100, 1460, 40000};
    struct input *input = dialogue->input;
    struct test_segment segment = {.flags = take8(input)};
    uint8_t distance = take8(input), acknowledged = take8(input);

    segment.sequence =
        dialogue->next + (uint32_t)((distance >> 2) - 32) * (uint32_t)steps[distance & 3];
    segment.payload_size = take8(input) * (distance & 1 ? 5u : 1u);
    if (segment.flags & SEGMENT_ACK)
        segment.acknowledgement = dialogue->seen + (uint32_t)((acknowledged >> 2) - 48) *
                                                       (uint32_t)steps[acknowledged & 3];
    segment.window = (uint16_t)(take8(input) << (acknowledged & 7));
    segment.urgent = segment.flags & SEGMENT_URG ? distance : 0;
    options_take(dialogue, &segment);
    if (segment.flags & SEGMENT_SYN)
        segment.payload_size = 0;
    if (segment.flags & SEGMENT_FIN) {
        segment.payload_size %= 1000;
        if (!dialogue->has_fin)
            dialogue->fin = before(segment.sequence + segment.payload_size, dialogue->sent_end)
                                ? dialogue->sent_end
                                : segment.sequence + segment.payload_size;
        dialogue->has_fin = true;
        segment.sequence = dialogue->fin - segment.payload_size;
    }
    /* Nothing comes behind the FIN. */
    if (dialogue->has_fin && before(dialogue->fin, segment.sequence + segment.payload_size))
        segment.payload_size = 0;
    peer_send(dialogue, &segment);
}

static void plain(struct dialogue *dialogue, struct test_segment *segment)
{
    segment->flags |= SEGMENT_ACK;
    segment->acknowledgement = dialogue->seen;
    if (dialogue->has_timestamps) {
        segment->options.has_timestamps = true;
        segment->options.timestamp_value = (uint32_t)(dialogue->world->now / 1000);
        segment->options.timestamp_echo = dialogue->timestamp_last;
    }
    peer_send(dialogue, segment);
}

/* The next octets, in order, everything acknowledged. */
static void on_good_data(struct dialogue *dialogue)
{
    struct test_segment segment = {.sequence = dialogue->next, .window = 30000};

    segment.payload_size = 1 + take8(dialogue->input) * 5u;
    if (dialogue->has_fin && !before(dialogue->next, dialogue->fin))
        segment.payload_size = 0;
    else if (dialogue->has_fin && before(dialogue->fin, segment.sequence + segment.payload_size))
        segment.payload_size = dialogue->fin - dialogue->next;
    dialogue->next += segment.payload_size;
    plain(dialogue, &segment);
}

static void on_good_ack(struct dialogue *dialogue)
{
    struct test_segment segment = {.sequence = dialogue->next};

    segment.window = (uint16_t)(take8(dialogue->input) << 8);
    plain(dialogue, &segment);
}

static void on_good_fin(struct dialogue *dialogue)
{
    struct test_segment segment = {.flags = SEGMENT_FIN, .window = 30000};

    if (!dialogue->has_fin)
        dialogue->fin = dialogue->sent_end;
    dialogue->has_fin = true;
    segment.sequence = dialogue->fin;
    plain(dialogue, &segment);
}

/* ---- what the application does ---- */

static void on_event(void *context, const struct flow_event *event)
{
    struct dialogue *dialogue = context;

    if (event->user != USER_FLOW)
        return;
    dialogue->is_told_closed |= (event->events & FLOW_PEER_CLOSED) != 0;
    dialogue->is_reset |= (event->events & FLOW_RESET) != 0;
}

static void check_octets(struct dialogue *dialogue, const uint8_t *octets, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++)
        CHECK(octets[i] == test_stream_octet(2, dialogue->read + i));
    dialogue->read += size;
}

static void on_read(struct dialogue *dialogue)
{
    struct flow_plane *plane = dialogue->world->plane;
    uint32_t size = take16(dialogue->input), readable = flow_readable(plane, dialogue->flow);

    size = size < readable ? size : readable;
    size = size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX;
    if (size == 0)
        return;
    struct span octets = flow_pull(plane, dialogue->flow, size);
    CHECK(octets.size == size);
    check_octets(dialogue, octets.data, size);
    flow_consume(plane, dialogue->flow, size);
}

static void on_take(struct dialogue *dialogue)
{
    struct flow_plane *plane = dialogue->world->plane;
    uint32_t size = take16(dialogue->input), readable = flow_readable(plane, dialogue->flow);
    uint64_t before_size = dialogue->taken.size;
    uint8_t octets[FLOW_PULL_MAX];

    size = size < readable ? size : readable;
    size = size < sizeof(octets) ? size : (uint32_t)sizeof(octets);
    if (size == 0)
        return;
    flow_take(plane, dialogue->flow, size, &dialogue->taken);
    CHECK(dialogue->taken.size == before_size + size);
    buf_queue_copy_out(&dialogue->taken, before_size, octets, size);
    check_octets(dialogue, octets, size);
}

static void on_credit(struct dialogue *dialogue)
{
    uint64_t size = take16(dialogue->input);

    size = size < dialogue->taken.size ? size : dialogue->taken.size;
    buf_queue_drop(&dialogue->taken, size);
    flow_credit(dialogue->world->plane, dialogue->flow, size);
}

static void on_write(struct dialogue *dialogue)
{
    uint8_t octets[4096];
    uint32_t size = 1 + take16(dialogue->input) % sizeof(octets);
    struct buf_queue queue;

    if (dialogue->written + size > WRITTEN_MAX)
        return;
    for (uint32_t i = 0; i < size; i++)
        octets[i] = test_stream_octet(1, dialogue->written + i);
    buf_queue_init(&queue);
    CHECK(buf_queue_append_copy(&queue, dialogue->world->pool, span_of(octets, size)) == ERR_OK);
    flow_append(dialogue->world->plane, dialogue->flow, &queue);
    buf_queue_fini(&queue);
    dialogue->written += size;
}

static void on_shutdown(struct dialogue *dialogue)
{
    flow_shutdown(dialogue->world->plane, dialogue->flow);
}

static void on_close(struct dialogue *dialogue)
{
    flow_close(dialogue->world->plane, dialogue->flow);
    dialogue->has_flow = false;
}

static void on_abort(struct dialogue *dialogue)
{
    flow_abort(dialogue->world->plane, dialogue->flow);
    dialogue->has_flow = false;
}

static void on_cork(struct dialogue *dialogue)
{
    flow_cork(dialogue->world->plane, dialogue->flow, take8(dialogue->input) & 1);
}

static void on_push(struct dialogue *dialogue)
{
    flow_push(dialogue->world->plane, dialogue->flow);
}

static void on_want(struct dialogue *dialogue)
{
    flow_want(dialogue->world->plane, dialogue->flow, take8(dialogue->input));
}

/* ---- the list ---- */

static void on_time(struct dialogue *dialogue)
{
    uint8_t octet = take8(dialogue->input);

    tick_us time = (tick_us)(octet >> 4) + 1;

    world_run(dialogue->world, dialogue->world->now + (time << (octet & 15)));
}

static void on_long_time(struct dialogue *dialogue)
{
    world_run(dialogue->world, dialogue->world->now + TICK_MS(100) * take8(dialogue->input));
}

static const struct {
    void (*run)(struct dialogue *dialogue);
    bool needs_flow;
} operations[] = {
    {on_any_segment, false}, {on_good_data, false}, {on_good_ack, false}, {on_good_fin, false},
    {on_read, true},         {on_take, true},       {on_credit, true},    {on_write, true},
    {on_shutdown, true},     {on_close, true},      {on_abort, true},     {on_cork, true},
    {on_push, true},         {on_want, true},       {on_time, false},     {on_long_time, false},
};

static void check(struct dialogue *dialogue)
{
    world_settle(dialogue->world);
    look(dialogue);
    stack_verify(dialogue->world->stack);
    if (!dialogue->has_flow || dialogue->is_reset)
        return;
    uint32_t readable = flow_readable(dialogue->world->plane, dialogue->flow);
    /* Whatever is readable lies before the highest number that was sent, and before the FIN. */
    uint64_t all = dialogue->read + readable;
    CHECK(all <= (uint32_t)(dialogue->sent_end - ISN - 1));
    if (dialogue->is_told_closed)
        CHECK(dialogue->has_fin && all == (uint32_t)(dialogue->fin - ISN - 1));
}

/* ---- beginning and end ---- */

static void begin(struct dialogue *dialogue, uint8_t kind, uint8_t more)
{
    struct world_options options = world_options_default();
    struct flow_listen_options listen = {.address = {.family = FLOW_FAMILY_IP4, .port = PORT}};
    struct test_segment syn = {.flags = SEGMENT_SYN, .sequence = ISN, .window = 5000};
    struct flow_address from;

    options.is_verified = false;
    options.address_count = 1;
    options.stack.flow_count_max = options.stack.time_wait_max = 64;
    options.stack.syn_cache_max = options.stack.destination_max = 64;
    options.tcp.is_newreno = kind & 16;
    options.tcp.has_ecn = kind & 32;
    options.tcp.mss_min = 100;
    options.nic.offloads = more & 63; /* all that card descriptions allow of it: */
    if (!(options.nic.offloads & NIC_TX_TCP_CHECKSUM) ||
        !(options.nic.offloads & NIC_TX_IP4_CHECKSUM))
        options.nic.offloads &= ~(uint32_t)NIC_TX_TSO;
    options.nic.split = more & 64 ? 64 : 0;
    listen.receive_limit = kind & 64 ? 8000 : 100000;
    dialogue->world = world_new(&options);
    dialogue->world->on_event = on_event;
    dialogue->world->context = dialogue;
    CHECK(flow_listen(dialogue->world->plane, &listen, &dialogue->listener) == ERR_OK);
    syn.options = (struct test_options){.has_mss = true,
                                        .mss = kind & 8 ? 100 : MSS,
                                        .has_sack_permitted = kind & 1,
                                        .has_timestamps = kind & 2,
                                        .has_scale = kind & 4,
                                        .scale = 3};
    dialogue->next = dialogue->sent_end = ISN;
    dialogue->edge = 0;
    peer_send(dialogue, &syn);
    CHECK(dialogue->has_iss);
    dialogue->next++;
    dialogue->edge = dialogue->seen + 5000;
    dialogue->scale = kind & 4 ? 3 : 0;
    dialogue->has_timestamps = kind & 2;
    on_good_ack(dialogue);
    CHECK(flow_accept(dialogue->world->plane, dialogue->listener, USER_FLOW, &dialogue->flow,
                      &from) == ERR_OK);
    dialogue->has_flow = true;
}

static void end(struct dialogue *dialogue)
{
    struct world *world = dialogue->world;

    buf_queue_fini(&dialogue->taken);
    if (dialogue->has_flow)
        flow_abort(world->plane, dialogue->flow);
    flow_close(world->plane, dialogue->listener);
    world_run(world, world->now + CLEARED);
    look(dialogue);
    struct stack_usage usage = stack_get_usage(world->stack);
    CHECK(usage.connections + usage.half_open + usage.time_wait + usage.orphans == 0);
    CHECK(usage.out_of_order_buffers + usage.sent_segments + usage.frames_waiting == 0);
    CHECK(buf_pool_in_use(world->receive_pool) == 0 && buf_pool_in_use(world->clone_pool) == 0);
    world_free(world);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input input = {.data = data, .size = size, .at = 2};
    struct dialogue dialogue = {.input = &input};

    if (size < 2)
        return 0;
    begin(&dialogue, data[0], data[1]);
    for (uint32_t i = 0; i < OPERATIONS_MAX && input.at < input.size; i++) {
        uint8_t operation = take8(&input) % COUNT_OF(operations);
        if (operations[operation].needs_flow && !dialogue.has_flow)
            continue;
        operations[operation].run(&dialogue);
        check(&dialogue);
    }
    end(&dialogue);
    return 0;
}
