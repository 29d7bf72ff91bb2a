/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two engines in one program, joined by a wire of 5 ms, in virtual time: no DPDK environment, no
 * kernel network, no threads. One listens and answers, the other connects, asks and prints.
 *
 * A nic is all that an embedding program provides. This one brings IP packets (NIC_IS_L3), keeps
 * them for the wire's delay, and copies them into the receiver's buffers.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/wire/stack.h"

#define DELAY   TICK_MS(5)
#define FRAMES  256u
#define PACKETS 1500u

struct end { /* one end of the wire */
    struct nic nic;
    struct end *other;
    struct buf_pool *pool, *headers, *clones;
    struct stack *stack;
    struct frame {
        tick_us arrival;
        uint32_t size;
        uint8_t octets[PACKETS];
    } frames[FRAMES]; /* on their way to us */
    uint32_t first, count;
};

static struct end *end_of(struct nic *nic)
{
    return (struct end *)(void *)nic;
}

static uint32_t wire_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct end *end = end_of(nic);
    uint32_t got = 0;

    while (got < max && end->count > 0 && end->frames[end->first].arrival <= now) {
        const struct frame *frame = &end->frames[end->first];
        struct buf *buf = buf_acquire(end->pool);
        if (buf == NULL)
            break;
        memcpy(buf_data(buf), frame->octets, frame->size);
        buf_extend(buf, frame->size);
        ret_frames[got++] = buf;
        end->first = (end->first + 1) % FRAMES;
        end->count--;
    }
    return got;
}

static uint32_t wire_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    struct end *to = end_of(nic)->other;
    uint32_t sent = 0;

    for (; sent < count && to->count < FRAMES; sent++) {
        struct frame *frame = &to->frames[(to->first + to->count++) % FRAMES];
        frame->arrival = now + DELAY;
        frame->size = 0;
        for (struct rte_mbuf *part = &frames[sent]->mbuf; part != NULL; part = part->next) {
            memcpy(frame->octets + frame->size, buf_data((struct buf *)(void *)part),
                   part->data_len);
            frame->size += part->data_len;
        }
        buf_release_chain(frames[sent]);
    }
    return sent;
}

static tick_us wire_deadline(struct nic *nic)
{
    const struct end *end = end_of(nic);
    return end->count > 0 ? end->frames[end->first].arrival : TICK_NEVER;
}

static void wire_free(struct nic *nic)
{
    (void)nic; /* the ends are static */
}

static const struct nic_ops wire_ops = {
    .receive = wire_receive, .send = wire_send, .deadline = wire_deadline, .free = wire_free};

static struct flow_address address_of(uint8_t last, uint16_t port)
{
    return (struct flow_address){FLOW_FAMILY_IP4, 0, port, {10, 0, 0, last}};
}

static struct buf_pool *pool_of(uint32_t size)
{
    return buf_pool_new(&(struct buf_pool_options){.data_size = size, .count_max = 1024});
}

static struct flow_plane *end_begin(struct end *end, struct end *other, uint8_t number)
{
    struct stack_address address = {address_of(number, 0), 24};
    struct stack_port_options port = {.nic = &end->nic, .addresses = &address, .address_count = 1};
    struct stack_options options = {.ports = &port,
                                    .port_count = 1,
                                    .flow_count_max = 64,
                                    .time_wait_max = 64,
                                    .syn_cache_max = 64,
                                    .neighbour_max = 16,
                                    .destination_max = 64,
                                    .orphan_time = TICK_S(10),
                                    .seed = {number, 4711}, /* from getrandom(2) in earnest */
                                    .core_count = 1,
                                    .tcp = tcp_policy_default()};

    end->other = other;
    end->nic = (struct nic){.ops = &wire_ops,
                            .mtu_max = PACKETS,
                            .segments_max = 16,
                            .offloads = NIC_IS_L3 | NIC_TX_MULTI_SEGMENT,
                            .steering = {.queue_count = 1, .reta_size = 1}};
    options.pool = end->pool = pool_of(2048);
    options.header_pool = end->headers = pool_of(STACK_HEADER_SIZE);
    options.clone_pool = end->clones = pool_of(64);
    if (stack_new(&options, &end->stack) != ERR_OK)
        abort();
    return stack_plane(end->stack);
}

static void say(struct flow_plane *plane, struct flow flow, const char *text)
{
    struct buf_queue octets;

    buf_queue_init(&octets);
    if (buf_queue_append_copy(&octets, plane->pool, span_from_text(text)) != ERR_OK)
        abort();
    flow_append(plane, flow, &octets);
}

/* What is readable, printed and consumed. */
static void hear(struct flow_plane *plane, struct flow flow, tick_us now, const char *who)
{
    struct span text = flow_pull(plane, flow, FLOW_PULL_MAX);

    printf("%6.1f ms  %s hears \"%.*s\"\n", (double)now / 1e3, who, SPAN_PRINTF(text));
    flow_consume(plane, flow, text.size);
}

static void server_event(struct flow_plane *plane, const struct flow_event *event, tick_us now)
{
    struct flow_address peer;
    struct flow flow;

    while (event->events & FLOW_ACCEPTABLE &&
           flow_accept(plane, event->flow, 0, &flow, &peer) == ERR_OK)
        say(plane, flow, "who is there?");
    if (event->events & FLOW_READABLE)
        hear(plane, event->flow, now, "server");
    if (event->events & FLOW_PEER_CLOSED)
        flow_close(plane, event->flow);
}

/* True when the server has closed, too. */
static bool client_event(struct flow_plane *plane, const struct flow_event *event, tick_us now)
{
    if (event->events & FLOW_READABLE) {
        hear(plane, event->flow, now, "client");
        say(plane, event->flow, "a rider with a bag");
        flow_shutdown(plane, event->flow);
    }
    return event->events & FLOW_PEER_CLOSED;
}

int main(void)
{
    static struct end ends[2];
    struct flow_plane *server = end_begin(&ends[0], &ends[1], 1);
    struct flow_plane *client = end_begin(&ends[1], &ends[0], 2);
    struct flow_event event;
    struct flow flow;
    tick_us now = 0;
    bool is_done = false;

    if (flow_listen(server,
                    &(struct flow_listen_options){.address = address_of(1, 25), .backlog = 8},
                    &flow) != ERR_OK ||
        flow_connect(
            client,
            &(struct flow_connect_options){.remote = address_of(1, 25), .deadline = TICK_S(10)},
            &flow) != ERR_OK)
        return 1;
    while (!is_done && now < TICK_S(60)) {
        while (flow_poll(server, now, &event, 1) > 0)
            server_event(server, &event, now);
        while (flow_poll(client, now, &event, 1) > 0)
            is_done |= client_event(client, &event, now);
        flow_flush(server, now);
        flow_flush(client, now);
        tick_us next = flow_deadline(server), other = flow_deadline(client);
        next = other < next ? other : next;
        now = next > now ? next : now + 1; /* nothing sleeps: time jumps */
    }
    printf("%6.1f ms  closed\n", (double)now / 1e3);
    for (uint32_t i = 0; i < 2; i++) {
        flow_plane_free(i == 0 ? server : client);
        buf_pool_free(ends[i].pool);
        buf_pool_free(ends[i].headers);
        buf_pool_free(ends[i].clones);
    }
    return is_done ? 0 : 1;
}
