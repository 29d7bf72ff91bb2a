/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of packet tests: one stack, one cable, one peer card.
 *
 * A turn: poll, events to the test, flush, then everything the stack sent is taken off the cable.
 * The world is settled when the cable is empty and the stack's deadline lies ahead.
 *
 * Limits: SETTLE_MAX turns at one time; a stack that wants more is restless, which tests check.
 */
#include "tests/wire/world.h"

#include <stdlib.h>

#define SETTLE_MAX  2000u
#define EVENT_MAX   64u
#define FRAME_MAX   256u
#define MLD_REPORT  143u /* RFC 3810: for the switches in between */
#define HEADER_SIZE STACK_HEADER_SIZE
#define START       TICK_S(1000)
#define WARM_UP     TICK_S(5)

const uint8_t world_stack_mac[6] = {2, 0, 0, 0, 0, 1}, world_peer_mac[6] = {2, 0, 0, 0, 0, 2};
const struct flow_address world_stack4 = {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 1}};
const struct flow_address world_peer4 = {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 2}};
const struct flow_address world_stack6 = {.family = FLOW_FAMILY_IP6,
                                          .ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 1}};
const struct flow_address world_peer6 = {.family = FLOW_FAMILY_IP6,
                                         .ip = {0x20, 0x01, 0x0d, 0xb8, [15] = 2}};

struct world_options world_options_default(void)
{
    return (struct world_options){
        .tcp = tcp_policy_default(),
        .stack = {.flow_count_max = 4096,
                  .time_wait_max = 1024,
                  .syn_cache_max = 256,
                  .neighbour_max = 64,
                  .destination_max = 256,
                  .orphan_time = TICK_S(60)},
        .mtu = 1500,
        .addresses = {{world_stack4, 24}, {world_stack6, 64}},
        .address_count = 2,
        .buffer_size = 2048,
        .buffer_count = 16384,
        .receive_count = 4096,
        .header_count = 8192,
        .clone_count = 16384,
        .is_verified = true,
        .seed = 1,
    };
}

/* ---- the peer's card ---- */

static void world_keep(struct world *world, const struct buf *frame)
{
    struct world_frame *kept = malloc(sizeof(*kept) + frame->mbuf.pkt_len);
    CHECK(kept != NULL);

    *kept = (struct world_frame){.time = world->now};
    for (const struct rte_mbuf *mbuf = &frame->mbuf; mbuf != NULL; mbuf = mbuf->next) {
        memcpy(kept->octets + kept->size, (const uint8_t *)mbuf->buf_addr + mbuf->data_off,
               mbuf->data_len);
        kept->size += mbuf->data_len;
    }
    if (world->first == NULL)
        world->first = kept;
    else
        world->last->next = kept;
    world->last = kept;
}

static void peer_transmit(struct world *world, const uint8_t *octets, uint32_t size)
{
    struct buf *head = NULL, *tail = NULL;
    uint32_t room = buf_pool_data_size(world->peer_pool);

    for (uint32_t at = 0; at < size; at += room) {
        struct buf *buf = buf_acquire(world->peer_pool);
        CHECK(buf != NULL);
        uint32_t part = size - at < room ? size - at : room;
        memcpy(buf_data(buf), octets + at, part);
        buf_extend(buf, part);
        if (head == NULL)
            head = buf;
        else
            tail->mbuf.next = &buf->mbuf;
        tail = buf;
        head->mbuf.nb_segs = (uint16_t)(at / room + 1);
    }
    head->mbuf.pkt_len = size;
    CHECK(nic_send(world->peer, world->now, &head, 1) == 1);
}

static bool is_of_stack(const struct world *world, uint8_t family, const uint8_t *ip)
{
    for (uint32_t i = 0; i < world->options.address_count; i++) {
        const struct flow_address *own = &world->options.addresses[i].address;
        if (own->family == family && memcmp(own->ip, ip, family == 4 ? 4 : 16) == 0)
            return true;
    }
    return false;
}

/* Answers a request for any address but the stack's own. True: it was one. */
static bool answer_arp(struct world *world, const uint8_t *frame, uint32_t size)
{
    uint32_t l3 = world->options.vlan == 0 ? 14 : 18;
    uint8_t answer[46];

    if (size < l3 + 28 || frame[l3 - 2] != 0x08 || frame[l3 - 1] != 0x06)
        return false;
    if (frame[l3 + 7] != 1 || is_of_stack(world, 4, frame + l3 + 24))
        return true;
    memcpy(answer, frame, l3);
    memcpy(answer, frame + 6, 6);
    memcpy(answer + 6, world_peer_mac, 6);
    memcpy(answer + l3, frame + l3, 8);
    answer[l3 + 7] = 2;
    memcpy(answer + l3 + 8, world_peer_mac, 6);
    memcpy(answer + l3 + 14, frame + l3 + 24, 4);
    memcpy(answer + l3 + 18, frame + l3 + 8, 10);
    peer_transmit(world, answer, l3 + 28);
    return true;
}

/* RFC 4861 7.2.4: a solicited advertisement with the override flag. */
static bool answer_nd(struct world *world, const uint8_t *frame, uint32_t size)
{
    uint8_t answer[90] = {0};
    struct link_frame map;

    if (!link_frame_parse(span_of(frame, size), false, &map) || map.protocol != 58)
        return false;
    uint32_t l3 = map.l3, l4 = map.l4;
    if (frame[l4] == MLD_REPORT)
        return true;
    if (map.end - l4 < 24 || frame[l4] < 133 || frame[l4] > 136)
        return false;
    if (frame[l4] != 135 || is_of_stack(world, 6, frame + l4 + 8))
        return true; /* advertisements and the stack's duplicate detection */
    memcpy(answer, frame, l3 + 8);
    memcpy(answer, frame + 6, 6);
    memcpy(answer + 6, world_peer_mac, 6);
    memcpy(answer + l3 + 8, frame + l4 + 8, 16);
    memcpy(answer + l3 + 24, frame + l3 + 8, 16);
    answer[l3 + 5] = 32;
    answer[l4] = 136;
    answer[l4 + 4] = 0x60;
    memcpy(answer + l4 + 8, frame + l4 + 8, 16);
    answer[l4 + 24] = 2;
    answer[l4 + 25] = 1;
    memcpy(answer + l4 + 26, world_peer_mac, 6);
    CHECK(link_frame_parse(span_of(answer, l4 + 32), false, &map));
    link_frame_complete(answer, &map, true, true);
    peer_transmit(world, answer, l4 + 32);
    return true;
}

/* Everything that is on the cable towards the peer. */
static void peer_collect(struct world *world)
{
    struct buf *frames[FRAME_MAX];
    uint32_t count;

    while ((count = nic_receive(world->peer, world->now, frames, FRAME_MAX)) > 0) {
        for (uint32_t i = 0; i < count; i++) {
            const uint8_t *octets = buf_data(frames[i]);
            uint32_t size = buf_size(frames[i]);
            if (world->options.is_neighbour_manual ||
                (!answer_arp(world, octets, size) && !answer_nd(world, octets, size)))
                world_keep(world, frames[i]);
            buf_release_chain(frames[i]);
        }
    }
}

/* ---- turns ---- */

static void world_turn(struct world *world)
{
    struct flow_event events[EVENT_MAX];
    uint32_t count = flow_poll(world->plane, world->now, events, EVENT_MAX);

    for (uint32_t i = 0; i < count; i++) {
        if (world->on_event != NULL)
            world->on_event(world->context, &events[i]);
    }
    flow_flush(world->plane, world->now);
    if (world->options.is_verified)
        stack_verify(world->stack);
    peer_collect(world);
}

void world_settle(struct world *world)
{
    for (uint32_t i = 0; i < SETTLE_MAX; i++) {
        world_turn(world);
        if (flow_deadline(world->plane) > world->now)
            return;
    }
    world->is_restless = true;
}

static void world_pass(struct world *world, tick_us until, bool ends_when_sent)
{
    while (world->now < until && !world->is_restless) {
        if (ends_when_sent && world->first != NULL)
            return;
        tick_us deadline = flow_deadline(world->plane);
        world->now = deadline < until ? deadline : until;
        world_settle(world);
    }
}

void world_run(struct world *world, tick_us until)
{
    world_settle(world);
    world_pass(world, until, false);
}

void world_run_until_sent(struct world *world, tick_us until)
{
    world_settle(world);
    world_pass(world, until, true);
}

void world_send(struct world *world, const uint8_t *octets, uint32_t size)
{
    peer_transmit(world, octets, size);
    world_settle(world);
}

void world_send_twice(struct world *world, const uint8_t *octets, uint32_t size)
{
    peer_transmit(world, octets, size);
    peer_transmit(world, octets, size);
    world_settle(world);
}

struct world_frame *world_take(struct world *world)
{
    struct world_frame *frame = world->first;

    if (frame != NULL)
        world->first = frame->next;
    return frame;
}

/* ---- the world ---- */

static struct buf_pool *heap_pool(uint32_t data_size, uint32_t count)
{
    return buf_pool_new(&(struct buf_pool_options){
        .data_size = data_size, .count_max = count, .backing = BUF_BACKING_HEAP});
}

static struct nic *world_cable(struct world *world)
{
    struct link_sim_station_options own = world->options.nic;
    struct link_sim_station_options peer = {
        .mtu_max = TEST_FRAME_MAX - 100, .offloads = NIC_TX_MULTI_SEGMENT, .segments_max = 16};
    struct nic *nic;

    world->link = link_sim_new(world->options.seed);
    memcpy(own.mac, world_stack_mac, 6);
    memcpy(peer.mac, world_peer_mac, 6);
    own.pools[0] = world->receive_pool;
    peer.pools[0] = world->peer_pool;
    (void)link_sim_attach(world->link, &own, &nic);
    (void)link_sim_attach(world->link, &peer, &world->peer);
    return nic;
}

struct world *world_new(const struct world_options *options)
{
    struct world *world = calloc(1, sizeof(*world));
    CHECK(world != NULL);

    world->options = *options;
    world->now = START;
    world->pool = heap_pool(options->buffer_size, options->buffer_count);
    world->receive_pool = heap_pool(options->buffer_size, options->receive_count);
    world->header_pool = heap_pool(HEADER_SIZE, options->header_count);
    world->clone_pool = heap_pool(1, options->clone_count);
    world->peer_pool = heap_pool(TEST_FRAME_MAX, 4096);
    struct stack_port_options port = {.nic = world_cable(world),
                                      .mtu = options->mtu,
                                      .vlan = options->vlan,
                                      .addresses = options->addresses,
                                      .address_count = options->address_count,
                                      .gateway4 = options->gateway4,
                                      .gateway6 = options->gateway6};
    struct stack_options stack = options->stack;
    stack.pool = world->pool;
    stack.header_pool = world->header_pool;
    stack.clone_pool = world->clone_pool;
    stack.receive_pool = world->receive_pool;
    stack.ports = &port;
    stack.port_count = 1;
    stack.now = world->now;
    stack.seed[0] = options->seed;
    stack.core_count = 1;
    stack.tcp = options->tcp;
    CHECK(stack_new(&stack, &world->stack) == ERR_OK);
    world->plane = stack_plane(world->stack);
    /* Duplicate address detection takes its time; tests begin when all addresses are usable. */
    if (!options->is_neighbour_manual)
        world_run(world, world->now + WARM_UP);
    return world;
}

void world_free(struct world *world)
{
    struct world_frame *frame;

    while ((frame = world_take(world)) != NULL)
        free(frame);
    flow_plane_free(world->plane);
    nic_free(world->peer);
    link_sim_free(world->link);
    buf_pool_free(world->pool);
    buf_pool_free(world->receive_pool);
    buf_pool_free(world->header_pool);
    buf_pool_free(world->clone_pool);
    buf_pool_free(world->peer_pool);
    free(world);
}
