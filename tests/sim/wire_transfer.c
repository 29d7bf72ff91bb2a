/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/wire_transfer.h"

#include <stdlib.h>
#include <string.h>

#include "dataplane/flow.h"

#define FLOWS_MAX  16u
#define DATA_SIZE  16384u /* of a buffer of the stream: many segments, as a file that is read */
#define FRAME_SIZE 2048u
#define UNSENT_MIN (6u << 20) /* more than any window */
#define LIMIT      (16u << 20)
#define PORT       25u

struct end {
    struct buf_pool *pool, *header_pool, *clone_pool, *frame_pool;
    struct stack *stack;
    struct flow_plane *plane;
    struct flow flows[FLOWS_MAX];
    uint32_t flow_count;
    uint64_t received[FLOWS_MAX];
};

struct world {
    const struct wire_transfer *transfer;
    struct link_sim *link;
    struct end sender, receiver;
    struct buf *octets;
    struct flow listener;
    tick_us now;
    uint64_t turns;
};

static struct flow_address address_of(uint8_t host, uint16_t port)
{
    return (struct flow_address){.family = FLOW_FAMILY_IP4, .port = port, .ip = {192, 0, 2, host}};
}

static struct buf_pool *pool_new(uint32_t data_size)
{
    return buf_pool_new(&(struct buf_pool_options){.data_size = data_size, .count_max = 1u << 18});
}

static void end_open(struct world *world, struct end *end, uint8_t host,
                     const struct link_sim_path *path, const struct tcp_policy *policy)
{
    const struct stack_address address = {address_of(host, 0), 24};
    struct nic *nic = NULL;

    end->pool = pool_new(DATA_SIZE);
    end->header_pool = pool_new(STACK_HEADER_SIZE);
    end->clone_pool = pool_new(1);
    end->frame_pool = pool_new(FRAME_SIZE);
    const struct link_sim_station_options station = {.mac = {2, 0, 0, 0, 0, host},
                                                     .offloads = NIC_TX_MULTI_SEGMENT,
                                                     .pools = {end->frame_pool},
                                                     .path = *path};
    link_sim_attach(world->link, &station, &nic);
    const struct stack_port_options port = {.nic = nic, .addresses = &address, .address_count = 1};
    const struct stack_options options = {.pool = end->pool,
                                          .header_pool = end->header_pool,
                                          .clone_pool = end->clone_pool,
                                          .ports = &port,
                                          .port_count = 1,
                                          .flow_count_max = 64,
                                          .time_wait_max = 64,
                                          .syn_cache_max = 64,
                                          .neighbour_max = 16,
                                          .destination_max = 16,
                                          .orphan_time = TICK_S(60),
                                          .now = world->now,
                                          .seed = {world->transfer->seed, host},
                                          .core_count = 1,
                                          .tcp = *policy};
    CHECK(stack_new(&options, &end->stack) == ERR_OK);
    end->plane = stack_plane(end->stack);
}

static void end_close(struct end *end)
{
    flow_plane_free(end->plane);
    buf_pool_free(end->pool);
    buf_pool_free(end->header_pool);
    buf_pool_free(end->clone_pool);
    buf_pool_free(end->frame_pool);
}

/* ---- the applications ---- */

static void send_more(struct world *world, struct flow flow)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    for (uint64_t unsent = flow_unsent(world->sender.plane, flow); unsent < UNSENT_MIN;
         unsent += DATA_SIZE)
        buf_queue_append(&queue, world->octets, BUF_HEADROOM, DATA_SIZE);
    flow_append(world->sender.plane, flow, &queue);
    buf_queue_fini(&queue);
}

static void sender_on_event(struct world *world, const struct flow_event *event)
{
    CHECK(!(event->events & (FLOW_FAILED | FLOW_RESET)));
    if (event->events & (FLOW_CONNECTED | FLOW_WRITABLE)) {
        flow_want(world->sender.plane, event->flow, FLOW_READABLE | FLOW_WRITABLE);
        send_more(world, event->flow);
    }
}

static void receiver_on_event(struct world *world, const struct flow_event *event)
{
    struct end *end = &world->receiver;

    CHECK(!(event->events & (FLOW_FAILED | FLOW_RESET)));
    while (event->events & FLOW_ACCEPTABLE && end->flow_count < FLOWS_MAX) {
        struct flow_address peer;
        struct flow *flow = &end->flows[end->flow_count];

        if (flow_accept(end->plane, world->listener, end->flow_count, flow, &peer) != ERR_OK)
            break;
        end->flow_count++;
    }
    if (!(event->events & FLOW_READABLE))
        return;
    uint32_t size = flow_readable(end->plane, event->flow);
    flow_consume(end->plane, event->flow, size);
    end->received[event->user] += size;
}

static void end_turn(struct world *world, struct end *end)
{
    struct flow_event events[32];
    uint32_t count = flow_poll(end->plane, world->now, events, COUNT_OF(events));

    for (uint32_t i = 0; i < count; i++) {
        if (end == &world->sender)
            sender_on_event(world, &events[i]);
        else
            receiver_on_event(world, &events[i]);
    }
    flow_flush(end->plane, world->now);
}

static void run_until(struct world *world, tick_us until)
{
    while (world->now < until) {
        end_turn(world, &world->receiver);
        end_turn(world, &world->sender);
        tick_us a = flow_deadline(world->sender.plane), b = flow_deadline(world->receiver.plane);
        tick_us next = a < b ? a : b;
        if (next > world->now)
            world->now = next < until ? next : until;
        world->turns++;
    }
}

static void open(struct world *world)
{
    const struct wire_transfer *transfer = world->transfer;
    uint32_t count = transfer->flows > 0 ? transfer->flows : 1;

    world->now = TICK_S(1);
    world->link = link_sim_new(transfer->seed);
    end_open(world, &world->sender, 1, &transfer->forth, &transfer->sender);
    end_open(world, &world->receiver, 2, &transfer->back, &transfer->receiver);
    world->octets = buf_acquire(world->sender.pool);
    CHECK(world->octets != NULL && count <= FLOWS_MAX);
    memset((uint8_t *)world->octets->mbuf.buf_addr + BUF_HEADROOM, 'x', DATA_SIZE);
    const struct flow_listen_options listen = {.address = address_of(2, PORT),
                                               .backlog = FLOWS_MAX,
                                               .receive_limit = LIMIT,
                                               .send_limit = LIMIT};
    CHECK(flow_listen(world->receiver.plane, &listen, &world->listener) == ERR_OK);
    for (uint32_t i = 0; i < count; i++) {
        const struct flow_connect_options connect = {.remote = address_of(2, PORT),
                                                     .deadline = world->now + TICK_S(60),
                                                     .receive_limit = LIMIT,
                                                     .send_limit = LIMIT};
        CHECK(flow_connect(world->sender.plane, &connect, &world->sender.flows[i]) == ERR_OK);
    }
    world->sender.flow_count = count;
}

static void close(struct world *world)
{
    buf_release(world->octets);
    for (uint32_t i = 0; i < world->sender.flow_count; i++)
        flow_abort(world->sender.plane, world->sender.flows[i]);
    for (uint32_t i = 0; i < world->receiver.flow_count; i++)
        flow_abort(world->receiver.plane, world->receiver.flows[i]);
    end_close(&world->sender);
    end_close(&world->receiver);
    link_sim_free(world->link);
}

struct wire_transfer_result wire_transfer_run(const struct wire_transfer *transfer)
{
    struct world *world = calloc(1, sizeof(*world));
    struct wire_transfer_result result = {.least = UINT64_MAX};
    uint64_t before[FLOWS_MAX];

    CHECK(world != NULL);
    world->transfer = transfer;
    open(world);
    run_until(world, world->now + transfer->warm_up);
    memcpy(before, world->receiver.received, sizeof(before));
    run_until(world, world->now + transfer->time);
    stack_verify(world->sender.stack);
    stack_verify(world->receiver.stack);
    for (uint32_t i = 0; i < world->receiver.flow_count; i++) {
        uint64_t octets = world->receiver.received[i] - before[i];

        result.octets += octets;
        result.least = octets < result.least ? octets : result.least;
        result.most = octets > result.most ? octets : result.most;
    }
    result.segments = stack_counter(world->sender.stack, STACK_FRAMES_SENT);
    result.retransmitted = stack_counter(world->sender.stack, STACK_TCP_RETRANSMITTED);
    result.time_outs = stack_counter(world->sender.stack, STACK_TCP_TIMEOUTS);
    result.probes = stack_counter(world->sender.stack, STACK_TCP_TAIL_PROBES);
    result.link = link_sim_get_stats(world->link);
    result.turns = world->turns;
    close(world);
    free(world);
    return result;
}
