/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A burst does what its frames would do one by one: see wire_twins.h. The frames are those of three
 * clients, mostly several of one behind each other: octets in order, holes, repetitions, ACKs of
 * all, of some and of nothing yet sent, RST, FIN, SYN inside, old timestamps and none, wrong
 * checksums, windows that close and stay closed, marks of congestion, ACKs that overtake, IPv4
 * options, and connections that begin anew between two frames of the old one. Amidst them are
 * frames with the same addresses and ports that do not come through: to all stations, of another
 * VLAN, fragments, datagrams, and with our own address as their source.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "tests/unit/wire_twins.h"

#define CLIENTS     3u
#define TURNS       150u
#define SEEDS       40u
#define WINDOW_SEEN 8192u

struct client {
    uint16_t port;
    bool is_open;
    uint32_t next, acknowledged, last_size; /* ours: next number; theirs: next number expected */
    uint32_t timestamp;
    /* For a while: */
    uint16_t window;
    bool is_marked; /* by a router */
    bool is_deaf;   /* acknowledges nothing new */
};

struct world {
    struct rng rng;
    struct twins twins;
    struct client clients[CLIENTS];
    uint16_t port_next;
    tick_us now;
};

/* ---- clients ---- */

static void client_begin(struct world *world, struct client *client)
{
    /* Often on the tuple that it had. */
    if (client->port == 0 || rng_below(&world->rng, 2) == 0)
        client->port = ++world->port_next;
    client->next += 100000;
    client->is_open = true;
    client->window = WINDOW_SEEN;
    client->is_deaf = false;
    client->acknowledged = 0;
    twins_give(&world->twins, client->port,
               &(struct twins_shape){.flags = TCP_SYN | TCP_ECE | TCP_CWR,
                                     .sequence = client->next++,
                                     .window = WINDOW_SEEN,
                                     .timestamp = client->timestamp = 1000000});
}

/* Something unusual, built on the frame that would have been usual. */
static void shape_bend(struct world *world, struct client *client, struct twins_shape *shape)
{
    switch (rng_below(&world->rng, 20)) {
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
    case 10:
        shape->is_to_all = true;
        return;
    case 11:
        shape->is_of_other_vlan = true;
        return;
    case 12:
        shape->is_fragment = true;
        return;
    case 13:
        shape->is_datagram = true;
        return;
    case 14:
        shape->is_from_us = true;
        return;
    case 15:
        shape->has_other_options = true;
        return;
    case 16: /* with text */
        shape->flags |= TCP_RST;
        client->is_open = rng_below(&world->rng, 2) == 0;
        return;
    case 17: /* its window is reduced */
        shape->flags |= TCP_CWR;
        return;
    case 18: /* an ACK that came before what was sent before it */
        shape->sequence += 1 + rng_below(&world->rng, 3000);
        shape->size = 0;
        return;
    default:
        shape->has_ip_options = true;
        shape->is_alert = rng_below(&world->rng, 2) == 0;
    }
}

static void client_speak(struct world *world, struct client *client)
{
    struct twins_shape shape = {.flags = TCP_ACK,
                                .sequence = client->next,
                                .acknowledgement = client->acknowledged,
                                .window = client->window,
                                .timestamp = client->timestamp,
                                .is_marked = client->is_marked};

    if (!client->is_open) {
        client_begin(world, client);
        return;
    }
    if (rng_below(&world->rng, 4) > 0)
        shape.size = rng_below(&world->rng, 3) > 0 ? 1400 : 1 + rng_below(&world->rng, 200);
    uint32_t usual = shape.size;
    if (rng_below(&world->rng, 8) == 0)
        shape_bend(world, client, &shape);
    twins_give(&world->twins, client->port, &shape);
    if (shape.sequence == client->next && !shape.is_damaged && shape.size == usual) {
        client->next += shape.size + (shape.flags & TCP_FIN ? 1 : 0);
        client->last_size = shape.size;
    }
    client->timestamp += rng_below(&world->rng, 2);
}

/* A segment that the servers sent moves the numbers that its client expects. */
static void client_hear(struct client *client, const struct tcp_header *tcp, uint32_t size)
{
    uint32_t numbers = size + (tcp->flags & (TCP_SYN | TCP_FIN) ? 1 : 0);

    if (client->port != tcp->destination_port)
        return;
    if (numbers > 0 && (!client->is_deaf || tcp->flags & TCP_SYN))
        client->acknowledged = tcp->sequence + numbers;
    if (tcp->flags & TCP_RST)
        client->is_open = false;
    else
        client->next = tcp->acknowledgement; /* goes back to what is missing */
}

static void clients_hear(struct world *world)
{
    struct span frame;
    uint32_t at = 0;

    while (twins_next_frame(&world->twins, &at, &frame)) {
        struct ip_header ip;
        struct tcp_header tcp;
        enum packet_fault fault = world->twins.family == 4
                                      ? ip4_parse(frame, frame.size, false, &ip)
                                      : ip6_parse(frame, frame.size, &ip);
        assert_int_equal(PACKET_OK, fault);
        if (ip.protocol != IP_PROTOCOL_TCP)
            continue;
        struct span l4 = span_skip(frame, ip.header_size);
        assert_int_equal(PACKET_OK, tcp_parse(l4, &tcp));
        uint64_t sum =
            wire_sum(l4.data, l4.size) +
            wire_sum_pseudo(ip.family, ip.source, ip.destination, IP_PROTOCOL_TCP, l4.size);
        assert_int_equal(0, wire_sum_finish(sum));
        for (uint32_t i = 0; i < CLIENTS; i++)
            client_hear(&world->clients[i], &tcp, l4.size - tcp.header_size);
    }
}

/* ---- one run ---- */

static void servers_turn(struct world *world)
{
    twins_turn(&world->twins, world->now);
    clients_hear(world);
}

static void client_change(struct world *world, struct client *client)
{
    static const uint16_t windows[] = {WINDOW_SEEN, WINDOW_SEEN, WINDOW_SEEN, WINDOW_SEEN, 100, 0};

    client->window = windows[rng_below(&world->rng, COUNT_OF(windows))];
    client->is_marked = rng_below(&world->rng, 4) == 0;
    client->is_deaf = rng_below(&world->rng, 4) == 0;
}

static void world_turn(struct world *world)
{
    uint32_t count = 1 + rng_below(&world->rng, NIC_BURST - 2), client = 0;

    /* Timers first, so that none falls between two frames. */
    world->now += rng_below(&world->rng, 8) == 0 ? TICK_MS(50) : TICK_MS(1);
    servers_turn(world);
    for (uint32_t i = 0; i < count; i++) {
        if (rng_below(&world->rng, 6) == 0)
            client = rng_below(&world->rng, CLIENTS);
        if (rng_below(&world->rng, 12) == 0)
            client_change(world, &world->clients[client]);
        client_speak(world, &world->clients[client]);
    }
    servers_turn(world);
}

static void run(uint64_t seed, uint64_t *ret_octets)
{
    struct world *world = calloc(1, sizeof(*world));

    assert_non_null(world);
    const struct twin *servers = world->twins.servers;
    rng_init_seed(&world->rng, seed);
    world->twins.is_link = seed % 4 < 2;
    world->twins.vlan = world->twins.is_link ? seed % 4 * 7 : 0;
    world->twins.family = !world->twins.is_link && seed % 3 == 0 ? 6 : 4;
    world->twins.has_timestamps = seed / 4 % 2 == 0;
    world->twins.receive_limit = seed % 3 == 1 ? 8192 : 1u << 20; /* some send beyond the window */
    world->twins.window_start = 16384;
    world->twins.receive_reserve = seed % 5 == 2 ? TWINS_BUFFERS - 32 : 64; /* or buffers are few */
    world->now = TICK_S(1000);
    world->port_next = 1000;
    twins_start(&world->twins, world->now);
    for (uint32_t i = 0; i < TURNS; i++)
        world_turn(world);
    for (uint32_t i = 0; i < STACK_COUNTER_COUNT; i++)
        assert_int_equal(stack_counter(servers[0].stack, (enum stack_counter)i),
                         stack_counter(servers[1].stack, (enum stack_counter)i));
    *ret_octets += flow_plane_stats(servers[0].plane).octets_received;
    twins_end(&world->twins);
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
