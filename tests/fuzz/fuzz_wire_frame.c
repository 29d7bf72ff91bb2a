/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One frame into a stack that is at work: a listener with a half-open connection, connections in
 * every state, octets out of order and in flight, a record in TIME_WAIT, an open datagram flow.
 * Nothing may crash, leak, or break an invariant, then and in the seconds that follow.
 *
 * The first octet says what is done for the frame, so that chance need not do it: bit 0, its
 * checksums are made right; bits 1 to 4, it is aimed at one of the connections (addresses, ports,
 * sequence and acknowledgement numbers are taken as relative to it); bit 5, it comes twice in one
 * burst.
 */
#include <stdlib.h>

#include "tests/wire/world.h"

#define PORT       25u
#define FIRST_PORT 40000u
#define AFTERMATH  TICK_S(3)
#define CLEARED    TICK_S(200)

enum aim {
    AIM_HALF_OPEN,
    AIM_IN_FLIGHT,
    AIM_OUT_OF_ORDER,
    AIM_FIN_WAIT_1,
    AIM_FIN_WAIT_2,
    AIM_CLOSE_WAIT,
    AIM_LAST_ACK,
    AIM_TIME_WAIT,
    AIM_SYN_SENT,
    AIM_COUNT
};

struct target { /* where a connection stands, as its peer sees it */
    uint16_t local_port;
    uint32_t next, seen;
    struct flow flow;
    bool has_flow;
};

struct stage {
    struct world *world;
    struct flow listener, datagram;
    struct target targets[AIM_COUNT];
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* ---- the peer ---- */

static void peer_send(struct stage *stage, enum aim aim, uint8_t flags, uint32_t sequence,
                      uint32_t payload)
{
    static uint8_t frame[TEST_FRAME_MAX], octets[1500];
    struct target *target = &stage->targets[aim];
    struct test_segment segment = {.family = 4,
                                   .source_port = (uint16_t)(FIRST_PORT + aim),
                                   .destination_port = target->local_port,
                                   .ttl = 64,
                                   .flags = flags,
                                   .sequence = sequence,
                                   .acknowledgement = flags & SEGMENT_ACK ? target->seen : 0,
                                   .window = 20000,
                                   .payload = octets,
                                   .payload_size = payload};

    if (flags & SEGMENT_SYN)
        segment.options =
            (struct test_options){.has_mss = true, .mss = 1460, .has_sack_permitted = true};
    memcpy(segment.source_mac, world_peer_mac, 6);
    memcpy(segment.destination_mac, world_stack_mac, 6);
    memcpy(segment.source, world_peer4.ip, 16);
    memcpy(segment.destination, world_stack4.ip, 16);
    world_send(stage->world, frame, test_segment_build(&segment, frame));
}

/* The peers learn where the stack's numbers are. */
static void peers_read(struct stage *stage)
{
    struct world_frame *frame;
    struct test_segment segment;

    while ((frame = world_take(stage->world)) != NULL) {
        if (test_segment_parse(span_of(frame->octets, frame->size), &segment) == NULL) {
            uint32_t aim = segment.destination_port - FIRST_PORT;
            if (aim < AIM_COUNT && !(segment.flags & SEGMENT_RST)) {
                stage->targets[aim].seen = segment.sequence + test_segment_length(&segment);
                stage->targets[aim].local_port = segment.source_port;
            }
        }
        free(frame);
    }
}

/* ---- the stage ---- */

static void stage_write(struct stage *stage, enum aim aim, uint32_t size)
{
    static const uint8_t octets[4000];
    struct buf_queue queue;

    buf_queue_init(&queue);
    CHECK(buf_queue_append_copy(&queue, stage->world->pool, span_of(octets, size)) == ERR_OK);
    flow_append(stage->world->plane, stage->targets[aim].flow, &queue);
    buf_queue_fini(&queue);
    world_settle(stage->world);
}

static void stage_open(struct stage *stage, enum aim aim)
{
    struct target *target = &stage->targets[aim];
    struct flow_address from;

    peer_send(stage, aim, SEGMENT_SYN, target->next, 0);
    target->next++;
    peers_read(stage);
    if (aim == AIM_HALF_OPEN)
        return;
    peer_send(stage, aim, SEGMENT_ACK, target->next, 0);
    target->has_flow =
        flow_accept(stage->world->plane, stage->listener, aim, &target->flow, &from) == ERR_OK;
    CHECK(target->has_flow);
}

static void stage_shut_down(struct stage *stage, enum aim aim)
{
    flow_shutdown(stage->world->plane, stage->targets[aim].flow);
    world_settle(stage->world);
    if (aim == AIM_FIN_WAIT_1)
        return;
    peers_read(stage);
    peer_send(stage, aim, SEGMENT_ACK, stage->targets[aim].next, 0);
}

static void stage_take_fin(struct stage *stage, enum aim aim)
{
    peer_send(stage, aim, SEGMENT_FIN | SEGMENT_ACK, stage->targets[aim].next, 0);
    stage->targets[aim].next++;
}

static void stage_connect(struct stage *stage)
{
    struct target *target = &stage->targets[AIM_SYN_SENT];
    struct flow_connect_options options = {
        .remote = world_peer4, .deadline = TICK_NEVER, .user = AIM_SYN_SENT};

    options.remote.port = FIRST_PORT + AIM_SYN_SENT;
    target->has_flow = flow_connect(stage->world->plane, &options, &target->flow) == ERR_OK;
    world_settle(stage->world);
}

static void stage_datagram(struct stage *stage)
{
    struct flow_address local = world_stack4, remote = world_peer4;

    local.port = 5000;
    remote.port = 53;
    CHECK(flow_open_datagram(stage->world->plane, &local, &remote, 0, &stage->datagram) == ERR_OK);
    CHECK(flow_send_datagram(stage->world->plane, stage->datagram, SPAN_LITERAL("question")) ==
          ERR_OK);
}

static void stage_begin(struct stage *stage)
{
    struct world_options options = world_options_default();
    struct flow_listen_options listen = {.address = {.family = FLOW_FAMILY_IP4, .port = PORT},
                                         .receive_limit = 60000,
                                         .backlog = 16};

    options.is_verified = false;
    options.stack.flow_count_max = options.stack.time_wait_max = 64;
    options.stack.syn_cache_max = options.stack.destination_max = 64;
    options.tcp.time_wait_time = TICK_S(30);
    options.tcp.user_time = TICK_S(100);
    stage->world = world_new(&options);
    CHECK(flow_listen(stage->world->plane, &listen, &stage->listener) == ERR_OK);
    for (enum aim aim = 0; aim < AIM_COUNT; aim++) {
        stage->targets[aim] = (struct target){.local_port = PORT, .next = 0x1000u * aim};
        if (aim != AIM_SYN_SENT)
            stage_open(stage, aim);
    }
    stage_write(stage, AIM_IN_FLIGHT, 4000);
    peer_send(stage, AIM_OUT_OF_ORDER, SEGMENT_ACK, stage->targets[AIM_OUT_OF_ORDER].next + 100,
              50);
    peer_send(stage, AIM_OUT_OF_ORDER, SEGMENT_ACK, stage->targets[AIM_OUT_OF_ORDER].next + 300,
              90);
    stage_shut_down(stage, AIM_FIN_WAIT_1);
    stage_shut_down(stage, AIM_FIN_WAIT_2);
    stage_shut_down(stage, AIM_TIME_WAIT);
    stage_take_fin(stage, AIM_TIME_WAIT);
    stage_take_fin(stage, AIM_CLOSE_WAIT);
    stage_take_fin(stage, AIM_LAST_ACK);
    flow_shutdown(stage->world->plane, stage->targets[AIM_LAST_ACK].flow);
    stage_connect(stage);
    stage_datagram(stage);
    world_settle(stage->world);
    peers_read(stage);
}

/* Reads what there is, so that octets meet an owner. */
static void stage_read(struct stage *stage)
{
    struct flow_plane *plane = stage->world->plane;
    struct flow_address from;
    struct span octets;
    struct flow flow;

    for (uint32_t i = 0; i < AIM_COUNT; i++) {
        struct target *target = &stage->targets[i];
        if (target->has_flow)
            flow_consume(plane, target->flow, flow_readable(plane, target->flow));
    }
    while (flow_accept(plane, stage->listener, AIM_COUNT, &flow, &from) == ERR_OK)
        flow_close(plane, flow);
    (void)!flow_receive_datagram(plane, stage->datagram, &from, &octets);
}

static void stage_end(struct stage *stage)
{
    struct flow_plane *plane = stage->world->plane;

    for (uint32_t i = 0; i < AIM_COUNT; i++) {
        if (stage->targets[i].has_flow)
            flow_abort(plane, stage->targets[i].flow);
    }
    flow_close(plane, stage->listener);
    flow_close(plane, stage->datagram);
    world_run(stage->world, stage->world->now + CLEARED);
    struct stack_usage usage = stack_get_usage(stage->world->stack);
    CHECK(usage.connections + usage.half_open + usage.time_wait + usage.orphans == 0);
    CHECK(usage.out_of_order_buffers + usage.sent_segments + usage.frames_waiting == 0);
    CHECK(buf_pool_in_use(stage->world->receive_pool) == 0);
    CHECK(!stage->world->is_restless);
    world_free(stage->world);
}

/* ---- the frame ---- */

static void add32(uint8_t *octets, uint32_t amount)
{
    uint32_t value = (uint32_t)octets[0] << 24 | (uint32_t)octets[1] << 16 |
                     (uint32_t)octets[2] << 8 | octets[3];

    value += amount;
    for (uint32_t i = 0; i < 4; i++)
        octets[i] = (uint8_t)(value >> (24 - 8 * i));
}

static void frame_aim(const struct stage *stage, enum aim aim, uint8_t *frame,
                      const struct link_frame *map)
{
    const struct target *target = &stage->targets[aim];
    uint8_t *ip = frame + map->l3, *tcp = frame + map->l4;

    if (map->family != 4 || map->protocol != 6 || map->end - map->l4 < 20)
        return;
    memcpy(frame, world_stack_mac, 6);
    memcpy(frame + 6, world_peer_mac, 6);
    memcpy(ip + 12, world_peer4.ip, 4);
    memcpy(ip + 16, world_stack4.ip, 4);
    tcp[0] = (uint8_t)((FIRST_PORT + aim) >> 8);
    tcp[1] = (uint8_t)(FIRST_PORT + aim);
    tcp[2] = (uint8_t)(target->local_port >> 8);
    tcp[3] = (uint8_t)target->local_port;
    add32(tcp + 4, target->next);
    if (tcp[13] & SEGMENT_ACK)
        add32(tcp + 8, target->seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct stage stage = {0};
    struct link_frame map;

    if (size < 1 + 14 || size > 1600)
        return 0;
    uint32_t frame_size = (uint32_t)size - 1, aim = data[0] >> 1 & 15;
    uint8_t *frame = malloc(frame_size);
    CHECK(frame != NULL);
    memcpy(frame, data + 1, frame_size);
    stage_begin(&stage);
    if (link_frame_parse(span_of(frame, frame_size), false, &map)) {
        if (aim < AIM_COUNT)
            frame_aim(&stage, (enum aim)aim, frame, &map);
        if (data[0] & 1)
            link_frame_complete(frame, &map, true, true);
    }
    if (data[0] & 1 << 5)
        world_send_twice(stage.world, frame, frame_size);
    else
        world_send(stage.world, frame, frame_size);
    stack_verify(stage.world->stack);
    stage_read(&stage);
    world_run(stage.world, stage.world->now + AFTERMATH);
    stack_verify(stage.world->stack);
    stage_end(&stage);
    free(frame);
    return 0;
}
