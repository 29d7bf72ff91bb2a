/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any frames, in any pieces, at any time, with flows opened, used and closed in between: every
 * structure stays in order after every step, and in the end nothing is left. The frames are right
 * ones of all kinds in which some octets were changed, so that they get far.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "base/rng.h"
#include "tests/unit/wire_fixture.h"

#define SEEDS     24u
#define STEPS     400u
#define FLOWS     16u
#define ADDRESSES 10u

static const char *const hosts4[ADDRESSES] = {
    "192.0.2.1",    "192.0.2.1", "192.0.2.10",  "192.0.2.11", "192.0.2.254",
    "198.51.100.7", "10.1.0.1",  "192.0.2.255", "0.0.0.0",    "224.0.0.1"};
static const char *const hosts6[ADDRESSES] = {
    "2001:db8::1", "2001:db8::1", "2001:db8::10", "2001:db8::11", "2001:db8::fe",
    "2001:db9::7", "fe80::1",     "ff02::1",      "::",           "ff02::1:ff00:1"};
static const uint8_t *const stations[] = {fixture_mac,      fixture_mac,
                                          fixture_peer_mac, fixture_router_mac,
                                          fixture_evil_mac, fixture_broadcast_mac};

struct world {
    struct fixture *fixture;
    struct rng rng;
    struct flow flows[FLOWS];
    uint16_t ports[FLOWS];
};

static uint32_t below(struct world *world, uint32_t bound)
{
    return rng_below(&world->rng, bound);
}

static const char *any_host(struct world *world, bool is_ip4)
{
    uint32_t index = below(world, ADDRESSES);
    return is_ip4 ? hosts4[index] : hosts6[index];
}

/* ---- frames ---- */

static uint32_t arp_frame(struct world *world, uint8_t *ret_frame)
{
    struct ethernet_header ethernet = {.type = ETHERTYPE_ARP};
    struct arp_packet arp = {.operation = (uint16_t)(1 + below(world, 2))};
    struct flow_address sender = fixture_address(any_host(world, true), 0);
    struct flow_address target = fixture_address(any_host(world, true), 0);

    memcpy(ethernet.destination, stations[below(world, COUNT_OF(stations))], 6);
    memcpy(ethernet.source, stations[below(world, COUNT_OF(stations))], 6);
    memcpy(arp.sender_mac, ethernet.source, 6);
    memcpy(arp.sender_ip, sender.ip, 4);
    memcpy(arp.target_ip, target.ip, 4);
    uint32_t size = ethernet_build(&ethernet, ret_frame);
    arp_build(&arp, ret_frame + size);
    return size + ARP_SIZE;
}

/* An ICMP message of any kind that means something; errors quote a datagram of ours. */
static uint32_t icmp_message(struct world *world, bool is_ip4, uint8_t *ret_message)
{
    static const uint8_t types4[] = {0, 3, 4, 5, 8, 11, 12}, types6[] = {1, 2, 3, 4, 128, 134, 137};
    uint32_t which = below(world, 7);
    struct flow_address target = fixture_address(any_host(world, is_ip4), 0);

    memset(ret_message, 0, 8);
    ret_message[0] = is_ip4 ? types4[which] : types6[which];
    ret_message[1] = (uint8_t)below(world, 6);
    store_be16(ret_message + 6, (uint16_t)below(world, 2000));
    if (!is_ip4 && below(world, 2) == 0 && target.ip[0] != 0xff) {
        struct nd_packet nd = {.type = (uint8_t)(135 + below(world, 2)),
                               .is_solicited = below(world, 2),
                               .is_override = below(world, 2),
                               .has_link_address = below(world, 2)};
        memcpy(nd.target, target.ip, 16);
        memcpy(nd.link_address, stations[below(world, 5)], 6);
        return nd_build(&nd, ret_message);
    }
    const struct fixture_packet quoted = {.source = is_ip4 ? "192.0.2.1" : "2001:db8::1",
                                          .destination = any_host(world, is_ip4),
                                          .protocol = below(world, 4) == 0 ? IP_PROTOCOL_TCP
                                                                           : IP_PROTOCOL_UDP,
                                          .source_port = world->ports[below(world, FLOWS)],
                                          .destination_port = 53,
                                          .payload = SPAN_LITERAL("the data that was sent"),
                                          .is_l3 = true};
    return 8 + fixture_build(&quoted, ret_message + 8);
}

static uint32_t ip_frame(struct world *world, uint8_t *ret_frame)
{
    static uint8_t data[1400];
    bool is_ip4 = below(world, 2);
    uint8_t message[256];
    struct fixture_packet packet = {
        .source = any_host(world, is_ip4),
        .destination = any_host(world, is_ip4),
        .from = stations[below(world, COUNT_OF(stations))],
        .to = stations[below(world, COUNT_OF(stations))],
        .ttl = below(world, 4) == 0 ? 64 : 255,
        .vlan = (uint16_t)(below(world, 20) == 0),
        .source_port = 53,
        .destination_port = world->ports[below(world, FLOWS)],
    };
    switch (below(world, 3)) {
    case 0:
        packet.protocol = IP_PROTOCOL_UDP;
        packet.payload = span_of(data, below(world, sizeof(data)));
        break;
    case 1:
        packet.protocol = IP_PROTOCOL_TCP;
        data[12] = 0x50;
        packet.payload = span_of(data, TCP_HEADER_SIZE + below(world, 100));
        break;
    default:
        packet.protocol = is_ip4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMP6;
        packet.payload = span_of(message, icmp_message(world, is_ip4, message));
        break;
    }
    return fixture_build(&packet, ret_frame);
}

static void any_frame(struct world *world)
{
    uint8_t frame[2048] = {0};
    uint32_t size = below(world, 4) == 0 ? arp_frame(world, frame) : ip_frame(world, frame);
    uint32_t changes = below(world, 3) == 0 ? 1 + below(world, 3) : 0;

    for (uint32_t i = 0; i < changes; i++)
        frame[below(world, size < 80 ? size : 80)] ^= (uint8_t)(1u << below(world, 8));
    if (below(world, 8) == 0)
        size = below(world, size + 1);
    else if (size < 60 && below(world, 2) == 0)
        size = 60;
    uint32_t piece = below(world, 4) == 0 ? 1 + size / (1 + below(world, 40)) : 2048;
    uint32_t headroom =
        below(world, 3) == 0 ? BUF_HEADROOM + FIXTURE_FRAME_SIZE - 2048 : BUF_HEADROOM;
    fixture_inject_pieces(world->fixture, 0, span_of(frame, size), piece, headroom);
}

/* ---- the owner of flows ---- */

static void any_call(struct world *world)
{
    uint32_t index = below(world, FLOWS);
    struct flow *flow = &world->flows[index];
    struct flow_plane *plane = world->fixture->plane;
    struct flow_address local, peer, from;
    struct span octets;

    if (flow_is_none(*flow)) {
        struct flow_address remote = fixture_address(any_host(world, below(world, 2)), 53);
        if (flow_open_datagram(plane, NULL, &remote, index, flow) == ERR_OK &&
            flow_addresses(plane, *flow, &local, &peer) == ERR_OK)
            world->ports[index] = local.port;
        return;
    }
    switch (below(world, 4)) {
    case 0:
        flow_close(plane, *flow);
        *flow = (struct flow){0};
        return;
    case 1:
        (void)flow_receive_datagram(plane, *flow, &from, &octets);
        return;
    default:
        (void)flow_send_datagram(plane, *flow, SPAN_LITERAL("query"));
        return;
    }
}

static void any_step(struct world *world)
{
    struct fixture *fixture = world->fixture;

    switch (below(world, 8)) {
    case 0:
    case 1:
        any_call(world);
        break;
    case 2:
        fixture->nics[0].room = below(world, 3) == 0 ? below(world, 3) : UINT32_MAX;
        fixture->now += below(world, below(world, 10) == 0 ? 10000000 : 100000);
        break;
    default:
        any_frame(world);
        break;
    }
    fixture_turn(fixture, NULL, 0); /* verifies */
    if (fixture_sent_count(fixture, 0) > 100)
        fixture_forget(fixture, 0);
}

static void run_seed(uint64_t seed)
{
    struct fixture_options options = fixture_defaults();
    struct world world = {0};

    rng_init_seed(&world.rng, seed);
    options.core_count = 1 + below(&world, 2);
    options.has_exception = below(&world, 2);
    options.vlan = 0;
    options.neighbour_max = 1 + below(&world, 6);
    options.destination_max = 1 + below(&world, 6);
    options.offloads |= below(&world, 2) ? 0 : NIC_TX_UDP_CHECKSUM;
    options.offloads &= below(&world, 2) ? UINT32_MAX : ~(uint32_t)NIC_TX_MULTI_SEGMENT;
    options.receive_reserve = below(&world, 2) ? 0 : 256;
    world.fixture = fixture_new(&options);
    for (uint32_t i = 0; i < STEPS; i++)
        any_step(&world);
    world.fixture->nics[0].room = UINT32_MAX;
    for (uint32_t i = 0; i < FLOWS; i++)
        flow_close(world.fixture->plane, world.flows[i]);
    fixture_forget(world.fixture, 0);
    fixture_advance(world.fixture, TICK_S(300));
    const struct stack_usage usage = stack_get_usage(world.fixture->stack);
    assert_int_equal(0, usage.datagram_flows + usage.destinations + usage.neighbours +
                            usage.armed_timers + usage.frames_waiting);
    assert_int_equal(0, world.fixture->stack->wheel.armed);
    assert_int_equal(0, buf_pool_in_use(world.fixture->receive_pool) +
                            buf_pool_in_use(world.fixture->header_pool) +
                            buf_pool_in_use(world.fixture->pool));
    fixture_free(world.fixture);
}

static void test_any_frames(void **state)
{
    const char *count = getenv("WIRE_RANDOM_SEEDS");
    uint64_t seeds = count == NULL ? SEEDS : strtoull(count, NULL, 10);

    (void)state;
    for (uint64_t seed = 1; seed <= seeds; seed++)
        run_seed(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_frames)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
