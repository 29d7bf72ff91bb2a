/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines against each other on one core: what a segment, a request, or a connection costs both
 * ends together, without any driver. Frames are copied from one end's buffers into the other's, as
 * net_memif does it; everything else is the engine: checksums computed and verified in software.
 *
 * Time is virtual and moves one microsecond per turn.
 */
#include <stdlib.h>

#include "bench/micro/harness.h"
#include "dataplane/wire/stack.h"

#define QUEUE       256u
#define FRAME_SIZE  1600u
#define SEGMENT     1448u
#define PAYLOAD     65536u
#define WINDOW      (1u << 20)
#define REQUEST     64u
#define PORT        25u
#define STREAMS_MAX 10000u

struct end {
    struct nic nic;
    struct end *other;
    struct buf_pool *pool, *headers, *clones;
    struct flow_plane *plane;
    struct buf *frames[QUEUE]; /* on their way to us, in our buffers */
    uint32_t first, count;
};

struct pair {
    struct end ends[2]; /* 0 serves */
    struct flow flows[STREAMS_MAX];
    struct flow listener;
    struct buf_queue payload;
    tick_us now;
    uint64_t done; /* octets received, replies received, connections ended */
    uint32_t streams;
    bool is_request, is_connect;
};

static struct end *end_of(struct nic *nic)
{
    return (struct end *)(void *)nic;
}

static uint32_t pipe_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct end *end = end_of(nic);
    uint32_t got = 0;
    (void)now;

    while (got < max && end->count > 0) {
        ret_frames[got++] = end->frames[end->first];
        end->first = (end->first + 1) % QUEUE;
        end->count--;
    }
    return got;
}

static uint32_t pipe_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    struct end *to = end_of(nic)->other;
    uint32_t sent = 0;
    (void)now;

    for (; sent < count && to->count < QUEUE; sent++) {
        struct buf *copy = buf_acquire(to->pool);
        CHECK(copy != NULL);
        for (struct rte_mbuf *part = &frames[sent]->mbuf; part != NULL; part = part->next) {
            memcpy(buf_data(copy) + buf_size(copy), buf_data((struct buf *)(void *)part),
                   part->data_len);
            buf_extend(copy, part->data_len);
        }
        to->frames[(to->first + to->count++) % QUEUE] = copy;
        buf_release_chain(frames[sent]);
    }
    return sent;
}

static void pipe_free(struct nic *nic)
{
    struct end *end = end_of(nic);

    for (; end->count > 0; end->count--)
        buf_release(end->frames[(end->first + end->count - 1) % QUEUE]);
}

static const struct nic_ops pipe_ops = {
    .receive = pipe_receive, .send = pipe_send, .free = pipe_free};

static struct flow_address address_of(uint8_t last, uint16_t port)
{
    return (struct flow_address){FLOW_FAMILY_IP4, 0, port, {10, 0, 0, last}};
}

static struct buf_pool *pool_of(uint32_t size, uint32_t count)
{
    return buf_pool_new(&(struct buf_pool_options){.data_size = size, .count_max = count});
}

static void end_begin(struct pair *pair, uint32_t index)
{
    struct end *end = &pair->ends[index];
    struct stack_address address = {address_of((uint8_t)(index + 1), 0), 24};
    struct stack_port_options port = {.nic = &end->nic, .addresses = &address, .address_count = 1};
    struct stack_options options = {.ports = &port,
                                    .port_count = 1,
                                    .flow_count_max = 4 * STREAMS_MAX,
                                    .time_wait_max = 65536,
                                    .syn_cache_max = 4096,
                                    .neighbour_max = 16,
                                    .destination_max = 64,
                                    .orphan_time = TICK_S(10),
                                    .seed = {index, 4711},
                                    .core_count = 1,
                                    .tcp = tcp_policy_default()};
    struct stack *stack;

    end->other = &pair->ends[1 - index];
    end->nic = (struct nic){.ops = &pipe_ops,
                            .mtu_max = 1500,
                            .segments_max = 8,
                            .offloads = NIC_IS_L3 | NIC_TX_MULTI_SEGMENT,
                            .steering = {.queue_count = 1, .reta_size = 1}};
    options.pool = end->pool = pool_of(2048, 65536);
    options.header_pool = end->headers = pool_of(STACK_HEADER_SIZE, 8192);
    options.clone_pool = end->clones = pool_of(64, 16384);
    enum err err = stack_new(&options, &stack);
    CHECK(err == ERR_OK);
    end->plane = stack_plane(stack);
}

/* ---- what the ends do ---- */

static void server_event(struct pair *pair, const struct flow_event *event)
{
    struct flow_plane *plane = pair->ends[0].plane;
    struct flow_address peer;
    struct flow flow;

    while (event->events & FLOW_ACCEPTABLE &&
           flow_accept(plane, event->flow, 0, &flow, &peer) == ERR_OK)
        continue;
    if (event->events & FLOW_READABLE) {
        uint32_t size = flow_readable(plane, event->flow);
        flow_consume(plane, event->flow, size);
        pair->done += pair->is_request ? 0 : size;
        if (pair->is_request && size >= REQUEST) {
            struct span_mut room = flow_reserve(plane, event->flow, REQUEST);
            memset(room.data, 'r', REQUEST);
            flow_commit(plane, event->flow, REQUEST);
            if (pair->is_connect)
                flow_close(plane, event->flow);
        }
    }
    if (event->events & (FLOW_PEER_CLOSED | FLOW_RESET))
        flow_close(plane, event->flow);
}

static void request_send(struct pair *pair, struct flow flow)
{
    struct flow_plane *plane = pair->ends[1].plane;
    struct span_mut room = flow_reserve(plane, flow, REQUEST);

    memset(room.data, 'q', REQUEST);
    flow_commit(plane, flow, REQUEST);
}

static void bulk_send(struct pair *pair, struct flow flow)
{
    struct flow_plane *plane = pair->ends[1].plane;

    while (flow_unsent(plane, flow) < WINDOW) {
        struct buf_queue octets;
        buf_queue_init(&octets);
        buf_queue_append_queue(&octets, &pair->payload);
        flow_append(plane, flow, &octets);
    }
}

static void client_open(struct pair *pair, uint32_t index)
{
    struct flow_connect_options options = {.remote = address_of(1, PORT),
                                           .deadline = pair->now + TICK_S(10),
                                           .receive_limit = WINDOW,
                                           .send_limit = WINDOW,
                                           .user = index};
    enum err err = flow_connect(pair->ends[1].plane, &options, &pair->flows[index]);
    CHECK(err == ERR_OK);
}

static void client_event(struct pair *pair, const struct flow_event *event)
{
    struct flow_plane *plane = pair->ends[1].plane;

    if (event->events & FLOW_CONNECTED && !pair->is_request)
        flow_want(plane, event->flow, FLOW_READABLE | FLOW_WRITABLE);
    if (event->events & FLOW_CONNECTED && pair->is_request)
        request_send(pair, event->flow);
    if (event->events & FLOW_WRITABLE && !pair->is_request)
        bulk_send(pair, event->flow);
    if (event->events & FLOW_READABLE) {
        flow_consume(plane, event->flow, flow_readable(plane, event->flow));
        pair->done += !pair->is_connect;
        if (!pair->is_connect)
            request_send(pair, event->flow);
    }
    if (event->events & FLOW_PEER_CLOSED) {
        flow_close(plane, event->flow);
        pair->done++;
        client_open(pair, (uint32_t)event->user);
    }
}

static void turn(struct pair *pair)
{
    struct flow_event events[64];
    uint32_t count;

    pair->now++;
    for (uint32_t i = 0; i < 2; i++) {
        count = flow_poll(pair->ends[i].plane, pair->now, events, COUNT_OF(events));
        for (uint32_t j = 0; j < count; j++) {
            if (i == 0)
                server_event(pair, &events[j]);
            else
                client_event(pair, &events[j]);
        }
        flow_flush(pair->ends[i].plane, pair->now);
    }
}

/* ---- rows ---- */

static struct pair *pair_new(uint32_t streams, bool is_request, bool is_connect)
{
    struct pair *pair = calloc(1, sizeof(*pair));
    static const uint8_t octets[PAYLOAD];

    CHECK(pair != NULL);
    pair->streams = streams;
    pair->is_request = is_request;
    pair->is_connect = is_connect;
    end_begin(pair, 0);
    end_begin(pair, 1);
    struct flow_listen_options listen = {.address = address_of(1, PORT),
                                         .backlog = STREAMS_MAX,
                                         .receive_limit = WINDOW,
                                         .send_limit = WINDOW};
    enum err err = flow_listen(pair->ends[0].plane, &listen, &pair->listener);
    CHECK(err == ERR_OK);
    err = buf_queue_append_copy(&pair->payload, pair->ends[1].pool, span_of(octets, PAYLOAD));
    CHECK(err == ERR_OK);
    for (uint32_t i = 0; i < streams; i++)
        client_open(pair, i);
    for (uint32_t i = 0; i < 20000; i++) /* past slow start and the growth of windows */
        turn(pair);
    return pair;
}

static void *bulk_set_up(void)
{
    return pair_new(1, false, false);
}
static void *bulk_100_set_up(void)
{
    return pair_new(100, false, false);
}
static void *request_set_up(void)
{
    return pair_new(1000, true, false);
}

static void *request_10000_set_up(void)
{
    return pair_new(10000, true, false);
}
static void *connect_set_up(void)
{
    return pair_new(200, true, true);
}

static void pair_tear_down(void *context)
{
    struct pair *pair = context;

    buf_queue_fini(&pair->payload);
    for (uint32_t i = 0; i < 2; i++)
        flow_plane_free(pair->ends[i].plane);
    for (uint32_t i = 0; i < 2; i++) {
        pipe_free(&pair->ends[i].nic); /* what the other end said last */
        buf_pool_free(pair->ends[i].pool);
        buf_pool_free(pair->ends[i].headers);
        buf_pool_free(pair->ends[i].clones);
    }
    free(pair);
}

/* Until `iterations` more units are done; a transfer that stands still would never end. */
static void run_until(struct pair *pair, uint64_t iterations, uint64_t unit)
{
    uint64_t end = pair->done + iterations * unit, last = pair->done;

    for (uint32_t idle = 0; pair->done < end; idle++) {
        turn(pair);
        if (pair->done != last)
            idle = 0;
        last = pair->done;
        CHECK(idle < 10000000);
    }
}

static void bulk_run(void *context, uint64_t iterations)
{
    run_until(context, iterations, SEGMENT);
}

static void operation_run(void *context, uint64_t iterations)
{
    run_until(context, iterations, 1);
}

const struct micro_bench micro_bench_stack[] = {
    {"stack.segment", bulk_set_up, bulk_run, pair_tear_down, 1, 0,
     "1,448 octets through two engines and a copy, checksums in software, one stream, 1 core"},
    {"stack.segment.100", bulk_100_set_up, bulk_run, pair_tear_down, 1, 0,
     "the same over 100 streams in turn"},
    {"stack.request", request_set_up, operation_run, pair_tear_down, 1, 0,
     "64 octets there and back over 1,000 connections, both ends, 1 core"},
    {"stack.request.10000", request_10000_set_up, operation_run, pair_tear_down, 1, 0,
     "the same over 10,000"},
    {"stack.connect", connect_set_up, operation_run, pair_tear_down, 1, 0,
     "connect, request, reply, close by the server; both ends, 200 at a time, 1 core"},
    {0},
};
