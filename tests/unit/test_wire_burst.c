/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A burst does what its frames would do one by one. Two servers, equal to the last random number,
 * get the same frames: one in bursts as they are drawn, the other each by itself, at the same time.
 * After every turn they must have reported the same, hold the same octets, and have sent the same
 * frames. The frames are those of three clients, mostly several of one behind each other: octets in
 * order, holes, repetitions, ACKs of all, of some and of nothing yet sent, RST, FIN, SYN inside,
 * old timestamps, wrong checksums, windows that close, IPv4 options, and connections that begin
 * anew between two frames of the old one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/tcp/tcp.h"

#define CLIENTS     3u
#define TURNS       150u
#define SEEDS       12u
#define PORT        25u
#define LOG_MAX     (4u << 20)
#define LISTENER    1000u
#define EVENTS_MAX  64u
#define WINDOW_SEEN 8192u

struct server {
    struct nic nic; /* first */
    bool is_one_by_one;
    struct buf *arriving[NIC_BURST];
    uint32_t arriving_count, arriving_taken;
    struct buf_pool *pool, *header_pool, *clone_pool;
    struct stack *stack;
    struct flow_plane *plane;
    struct flow listener;
    uint8_t *log; /* what it sent, after reports_size of what it reported and received */
    uint32_t log_size, reports_size;
};

struct client {
    uint16_t port;
    bool is_open;
    uint32_t next, acknowledged, last_size; /* ours: next number; theirs: next number expected */
    uint32_t timestamp;
};

struct world {
    struct rng rng;
    struct server servers[2];
    struct client clients[CLIENTS];
    uint8_t family;
    bool has_timestamps;
    uint16_t port_next;
    tick_us now;
};

static void log_put(struct server *server, const void *octets, uint32_t size)
{
    assert_true(server->log_size + size <= LOG_MAX);
    memcpy(server->log + server->log_size, octets, size);
    server->log_size += size;
}

/* ---- the nic ---- */

static uint32_t server_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct server *server = (struct server *)(void *)nic;
    uint32_t count = 0, most = server->is_one_by_one ? 1 : max;

    (void)now;
    while (count < most && server->arriving_taken < server->arriving_count)
        ret_frames[count++] = server->arriving[server->arriving_taken++];
    return count;
}

static uint32_t server_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    struct server *server = (struct server *)(void *)nic;

    (void)now;
    for (uint32_t i = 0; i < count; i++) {
        log_put(server, &frames[i]->mbuf.pkt_len, sizeof(frames[i]->mbuf.pkt_len));
        for (const struct rte_mbuf *part = &frames[i]->mbuf; part != NULL; part = part->next)
            log_put(server, buf_data((const struct buf *)(const void *)part), part->data_len);
        buf_release_chain(frames[i]);
    }
    return count;
}

static void server_free(struct nic *nic)
{
    (void)nic;
}

static const struct nic_ops server_ops = {
    .receive = server_receive, .send = server_send, .free = server_free};

/* ---- the world ---- */

static struct flow_address address_of(uint8_t family, uint8_t host)
{
    struct flow_address address = {.family = family};

    address.ip[0] = family == FLOW_FAMILY_IP4 ? 10 : 0xfd;
    address.ip[family == FLOW_FAMILY_IP4 ? 3 : 15] = host;
    return address;
}

static struct buf_pool *pool_of(uint32_t size)
{
    return buf_pool_new(&(struct buf_pool_options){
        .data_size = size, .count_max = 4096, .backing = BUF_BACKING_HEAP});
}

static void server_start(const struct world *world, struct server *server)
{
    struct stack_address address = {address_of(world->family, 1),
                                    world->family == FLOW_FAMILY_IP4 ? 24 : 64};
    struct stack_port_options port = {
        .nic = &server->nic, .addresses = &address, .address_count = 1};
    struct flow_listen_options listen = {.address = address_of(world->family, 1),
                                         .backlog = 16,
                                         .receive_limit = 65536,
                                         .user = LISTENER};

    server->nic = (struct nic){.ops = &server_ops,
                               .mtu_max = 1500,
                               .segments_max = 4,
                               .offloads = NIC_IS_L3 | NIC_TX_MULTI_SEGMENT,
                               .steering = {.queue_count = 1, .reta_size = 1}};
    server->pool = pool_of(2048);
    server->header_pool = pool_of(STACK_HEADER_SIZE);
    server->clone_pool = pool_of(1);
    server->log = malloc(LOG_MAX);
    assert_non_null(server->log);
    const struct stack_options options = {.pool = server->pool,
                                          .header_pool = server->header_pool,
                                          .clone_pool = server->clone_pool,
                                          .receive_pool = server->pool,
                                          .receive_reserve = 64,
                                          .ports = &port,
                                          .port_count = 1,
                                          .flow_count_max = 16,
                                          .time_wait_max = 16,
                                          .syn_cache_max = 64,
                                          .neighbour_max = 8,
                                          .destination_max = 8,
                                          .orphan_time = TICK_S(1),
                                          .now = world->now,
                                          .seed = {7, 11},
                                          .core_count = 1,
                                          .tcp = tcp_policy_default()};
    assert_int_equal(ERR_OK, stack_new(&options, &server->stack));
    server->plane = stack_plane(server->stack);
    listen.address.port = PORT;
    assert_int_equal(ERR_OK, flow_listen(server->plane, &listen, &server->listener));
}

static void server_end(struct server *server)
{
    server->log_size = 0;
    flow_plane_free(server->plane);
    buf_pool_free(server->pool);
    buf_pool_free(server->header_pool);
    buf_pool_free(server->clone_pool);
    free(server->log);
}

/* ---- frames ---- */

struct shape { /* zero: a plain ACK */
    uint8_t flags;
    uint32_t sequence, acknowledgement, size;
    uint16_t window;
    uint32_t timestamp;
    bool is_damaged, has_ip_options, is_alert;
};

static void arrive(struct server *server, const uint8_t *octets, uint32_t size)
{
    struct buf *buf = buf_acquire(server->pool);

    assert_non_null(buf);
    assert_true(server->arriving_count < NIC_BURST);
    memcpy(buf_data(buf), octets, size);
    buf_extend(buf, size);
    server->arriving[server->arriving_count++] = buf;
}

/* Behind an IPv4 header that was built: four NOPs, or a router alert, which is not for hosts. */
static uint32_t options_insert(uint8_t *frame, uint32_t size, bool is_alert)
{
    const uint8_t alert[4] = {148, 4, 0, 0};

    memmove(frame + IP4_HEADER_SIZE + 4, frame + IP4_HEADER_SIZE, size - IP4_HEADER_SIZE);
    memset(frame + IP4_HEADER_SIZE, 1, 4);
    if (is_alert)
        memcpy(frame + IP4_HEADER_SIZE, alert, sizeof(alert));
    frame[0] = 0x46;
    store_be16(frame + 2, (uint16_t)(size + 4));
    store_be16(frame + 10, 0);
    uint16_t checksum = wire_sum_finish(wire_sum_header(frame, IP4_HEADER_SIZE + 4));
    memcpy(frame + 10, &checksum, sizeof(checksum));
    return size + 4;
}

static void frame_give(struct world *world, const struct client *client, const struct shape *shape)
{
    uint8_t frame[1600] = {0};
    struct ip_header ip = {.family = world->family, .protocol = IP_PROTOCOL_TCP, .ttl = 60};
    struct tcp_header tcp = {.source_port = client->port,
                             .destination_port = PORT,
                             .sequence = shape->sequence,
                             .acknowledgement = shape->acknowledgement,
                             .window = shape->window,
                             .flags = shape->flags};
    uint32_t l3_size = world->family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;

    memcpy(ip.source, address_of(world->family, 2).ip, 16);
    memcpy(ip.destination, address_of(world->family, 1).ip, 16);
    if (shape->flags & TCP_SYN)
        tcp.options =
            (struct tcp_options){.has_mss = true, .mss = 1440, .has_sack_permitted = true};
    tcp.options.has_timestamps = world->has_timestamps;
    tcp.options.timestamp_value = shape->timestamp;
    uint32_t size = tcp_build(&tcp, frame + l3_size);
    for (uint32_t i = 0; i < shape->size; i++)
        frame[l3_size + size + i] = (uint8_t)(shape->sequence + i);
    size += shape->size;
    uint64_t sum = wire_sum(frame + l3_size, size) +
                   wire_sum_pseudo(world->family, ip.source, ip.destination, IP_PROTOCOL_TCP, size);
    uint16_t checksum = (uint16_t)(wire_sum_finish(sum) ^ (shape->is_damaged ? 1 : 0));
    memcpy(frame + l3_size + 16, &checksum, sizeof(checksum));
    ip.payload_size = (uint16_t)size;
    size += l3_size;
    if (world->family == 4)
        ip4_build(&ip, true, frame);
    else
        ip6_build(&ip, frame);
    if (shape->has_ip_options && world->family == 4)
        size = options_insert(frame, size, shape->is_alert);
    arrive(&world->servers[0], frame, size);
    arrive(&world->servers[1], frame, size);
}

/* ---- clients ---- */

static void client_begin(struct world *world, struct client *client)
{
    /* Often on the tuple that it had. */
    if (client->port == 0 || rng_below(&world->rng, 2) == 0)
        client->port = ++world->port_next;
    client->next += 100000;
    client->is_open = true;
    client->acknowledged = 0;
    frame_give(world, client,
               &(struct shape){.flags = TCP_SYN,
                               .sequence = client->next++,
                               .window = WINDOW_SEEN,
                               .timestamp = client->timestamp = 1000000});
}

/* Something unusual, built on the frame that would have been usual. */
static void shape_bend(struct world *world, struct client *client, struct shape *shape)
{
    switch (rng_below(&world->rng, 11)) {
    case 0: /* a hole */
        shape->sequence += 1 + rng_below(&world->rng, 3000);
        return;
    case 1: /* again */
        shape->sequence -= client->last_size;
        shape->size = client->last_size;
        return;
    case 2:
        shape->is_damaged = true;
        return;
    case 3: /* older, or of what was not sent yet */
        shape->acknowledgement += rng_below(&world->rng, 6000) - 3000;
        return;
    case 4:
        shape->flags |= TCP_URG;
        return;
    case 5:
        shape->timestamp -= 1000;
        return;
    case 6:
        shape->window = rng_below(&world->rng, 2) == 0 ? 0 : 100;
        return;
    case 7:
        shape->flags |= TCP_SYN;
        return;
    case 8:
        shape->flags = TCP_RST | TCP_ACK;
        shape->size = 0;
        shape->sequence += rng_below(&world->rng, 2) * 10;
        client->is_open = rng_below(&world->rng, 2) == 0;
        return;
    case 9:
        shape->flags |= TCP_FIN;
        client->is_open = rng_below(&world->rng, 2) == 0;
        return;
    default:
        shape->has_ip_options = true;
        shape->is_alert = rng_below(&world->rng, 2) == 0;
    }
}

static void client_speak(struct world *world, struct client *client)
{
    struct shape shape = {.flags = TCP_ACK,
                          .sequence = client->next,
                          .acknowledgement = client->acknowledged,
                          .window = WINDOW_SEEN,
                          .timestamp = client->timestamp};

    if (!client->is_open) {
        client_begin(world, client);
        return;
    }
    if (rng_below(&world->rng, 4) > 0)
        shape.size = rng_below(&world->rng, 3) > 0 ? 1400 : 1 + rng_below(&world->rng, 200);
    uint32_t usual = shape.size;
    if (rng_below(&world->rng, 8) == 0)
        shape_bend(world, client, &shape);
    frame_give(world, client, &shape);
    if (shape.sequence == client->next && !shape.is_damaged && shape.size == usual) {
        client->next += shape.size + (shape.flags & TCP_FIN ? 1 : 0);
        client->last_size = shape.size;
    }
    client->timestamp += rng_below(&world->rng, 2);
}

/* What the servers sent moves the numbers that the clients expect. */
static void clients_hear(struct world *world)
{
    const struct server *server = &world->servers[0];
    uint32_t size;

    for (uint32_t at = server->reports_size; at < server->log_size; at += size) {
        struct ip_header ip;
        struct tcp_header tcp;
        memcpy(&size, server->log + at, sizeof(size));
        at += (uint32_t)sizeof(size);
        struct span frame = span_of(server->log + at, size);
        enum packet_fault fault =
            world->family == 4 ? ip4_parse(frame, size, false, &ip) : ip6_parse(frame, size, &ip);
        assert_int_equal(PACKET_OK, fault);
        if (ip.protocol != IP_PROTOCOL_TCP)
            continue;
        struct span l4 = span_skip(frame, ip.header_size);
        assert_int_equal(PACKET_OK, tcp_parse(l4, &tcp));
        uint64_t sum =
            wire_sum(l4.data, l4.size) +
            wire_sum_pseudo(world->family, ip.source, ip.destination, IP_PROTOCOL_TCP, l4.size);
        assert_int_equal(0, wire_sum_finish(sum));
        uint32_t numbers = l4.size - tcp.header_size + (tcp.flags & (TCP_SYN | TCP_FIN) ? 1 : 0);
        for (uint32_t i = 0; i < CLIENTS; i++) {
            struct client *client = &world->clients[i];
            if (client->port != tcp.destination_port)
                continue;
            if (numbers > 0)
                client->acknowledged = tcp.sequence + numbers;
            if (tcp.flags & TCP_RST)
                client->is_open = false;
            else
                client->next = tcp.acknowledgement; /* goes back to what is missing */
        }
    }
}

/* ---- the servers' owner ---- */

/* Answers each kilobyte with three. */
static void server_read(struct server *server, struct flow flow)
{
    static const uint8_t reply[3000] = {1, 2, 3};
    struct span spans[64];
    uint32_t count = flow_peek(server->plane, flow, spans, COUNT_OF(spans)), size = 0;

    for (uint32_t i = 0; i < count; i++) {
        log_put(server, spans[i].data, spans[i].size);
        size += spans[i].size;
    }
    flow_consume(server->plane, flow, size);
    for (uint32_t i = 0; i < size / 1024; i++) {
        struct buf_queue queue;
        buf_queue_init(&queue);
        enum err err = buf_queue_append_copy(&queue, server->pool, span_of(reply, sizeof(reply)));
        assert_int_equal(ERR_OK, err);
        flow_append(server->plane, flow, &queue);
        buf_queue_fini(&queue);
    }
}

static void server_on_event(struct server *server, const struct flow_event *event)
{
    struct flow_address peer;
    struct flow flow;

    log_put(server, event, sizeof(event->flow) + sizeof(event->events));
    if (event->user == LISTENER) {
        while (flow_accept(server->plane, server->listener, 1, &flow, &peer) == ERR_OK)
            continue;
        return;
    }
    if (event->events & FLOW_READABLE)
        server_read(server, event->flow);
    if (event->events & (FLOW_RESET | FLOW_FAILED | FLOW_PEER_CLOSED))
        flow_close(server->plane, event->flow);
}

/* All frames, each in a poll of its own or all in one; then what there is to report. */
static void server_turn(struct server *server, tick_us now)
{
    struct flow_event events[EVENTS_MAX];

    server->log_size = 0;
    while (server->arriving_taken < server->arriving_count)
        (void)flow_poll(server->plane, now, events, 0);
    server->arriving_count = server->arriving_taken = 0;
    uint32_t count = flow_poll(server->plane, now, events, EVENTS_MAX);
    for (uint32_t i = 0; i < count; i++)
        server_on_event(server, &events[i]);
    server->reports_size = server->log_size;
    stack_verify(server->stack);
    flow_flush(server->plane, now);
}

/* ---- one run ---- */

static void servers_turn(struct world *world)
{
    struct server *servers = world->servers;

    server_turn(&servers[0], world->now);
    server_turn(&servers[1], world->now);
    assert_int_equal(servers[0].log_size, servers[1].log_size);
    assert_memory_equal(servers[0].log, servers[1].log, servers[0].log_size);
    clients_hear(world);
}

static void world_turn(struct world *world)
{
    uint32_t count = 1 + rng_below(&world->rng, NIC_BURST), client = 0;

    /* Timers first, so that none falls between two frames. */
    world->now += rng_below(&world->rng, 8) == 0 ? TICK_MS(50) : TICK_MS(1);
    servers_turn(world);
    for (uint32_t i = 0; i < count; i++) {
        if (rng_below(&world->rng, 6) == 0)
            client = rng_below(&world->rng, CLIENTS);
        client_speak(world, &world->clients[client]);
    }
    servers_turn(world);
}

static void run(uint64_t seed, uint64_t *ret_fast)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    rng_init_seed(&world->rng, seed);
    world->family = seed % 3 == 0 ? 6 : 4;
    world->has_timestamps = seed % 2 == 0;
    world->now = TICK_S(1000);
    world->port_next = 1000;
    world->servers[1].is_one_by_one = true;
    server_start(world, &world->servers[0]);
    server_start(world, &world->servers[1]);
    for (uint32_t i = 0; i < TURNS; i++)
        world_turn(world);
    for (uint32_t i = 0; i < STACK_COUNTER_COUNT; i++)
        assert_int_equal(stack_counter(world->servers[0].stack, (enum stack_counter)i),
                         stack_counter(world->servers[1].stack, (enum stack_counter)i));
    *ret_fast += flow_plane_stats(world->servers[0].plane).octets_received;
    server_end(&world->servers[0]);
    server_end(&world->servers[1]);
    free(world);
}

static void test_a_burst_is_its_frames(void **state)
{
    uint64_t octets = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++)
        run(seed, &octets);
    /* The clients were heard, mostly. */
    assert_true(octets > SEEDS * TURNS * 1000u);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_burst_is_its_frames)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
