/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The contract of dataplane/flow.h, the same tests for every driver: kernel sockets over IPv4,
 * IPv6 and Unix sockets, the simulated network, and our engine, two stacks back to back in virtual
 * time, over IPv4 and IPv6.
 *
 * A world has two planes, `server` and `client`, each with a pool of its own (every buffer a heap
 * block), and remembers per user value which events were reported. world_turn() is one turn of
 * both; user values are small numbers that the tests choose.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/rng.h"
#include "dataplane/flow_pair.h"
#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/stack.h"
#include "tests/sim/net_sim.h"

#define USER_MAX      256u
#define TURN_MAX      20000u
#define FLOW_MAX      512u
#define DATA_SIZE     2048u
#define POOL_MAX      4096u
#define ORPHAN_TIME   TICK_MS(300)
#define SERVER        0u
#define CLIENT        1u
#define LISTENER_USER 1u
#define CLIENT_USER   2u
#define SERVER_USER   3u

/* PAIR_*: both dataplanes in one plane; the addresses used are the kernel's, or the engine's. */
enum world_kind { HOST_IP4, HOST_IP6, HOST_UNIX, SIM, WIRE_IP4, WIRE_IP6, PAIR_HOST, PAIR_WIRE };

struct world {
    enum world_kind kind;
    struct net_sim *sim;
    const struct tick_source *clock;
    struct tick_source wire_clock;
    tick_us wire_now;
    struct link_sim *link;
    struct flow_plane *planes[2];
    struct buf_pool *pools[2], *header_pools[2], *clone_pools[2]; /* the latter: wire */
    uint32_t seen[USER_MAX], last[USER_MAX], reports[USER_MAX];
    struct flow listener, server, client;
    struct flow_address address;
    char unix_path[64];
    uint16_t port_next;
};

/* ---- worlds ---- */

static struct flow_address address_of(const char *ip, uint16_t port)
{
    struct flow_address address;

    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(ip), &address));
    address.port = port;
    return address;
}

/* The engine carries the octets. */
static bool is_wire(const struct world *world)
{
    return world->kind == WIRE_IP4 || world->kind == WIRE_IP6 || world->kind == PAIR_WIRE;
}

static bool is_pair(const struct world *world)
{
    return world->kind == PAIR_HOST || world->kind == PAIR_WIRE;
}

/* Our own time passes, in place of the kernel's. */
static bool is_virtual(const struct world *world)
{
    return world->kind == SIM || is_wire(world);
}

static tick_us wire_monotonic(void *context)
{
    return ((const struct world *)context)->wire_now;
}

static struct flow_plane *wire_plane_new(struct world *world, uint32_t index, uint32_t flow_max)
{
    const struct stack_address addresses[] = {
        {address_of(index == SERVER ? "10.0.0.1" : "10.0.0.2", 0), 24},
        {address_of(index == SERVER ? "fd00::1" : "fd00::2", 0), 64},
    };
    struct stack *stack = NULL;
    struct nic *nic = NULL;

    world->header_pools[index] = buf_pool_new(&(struct buf_pool_options){
        .data_size = STACK_HEADER_SIZE, .count_max = 1024, .backing = BUF_BACKING_HEAP});
    world->clone_pools[index] = buf_pool_new(
        &(struct buf_pool_options){.data_size = 1, .count_max = 4096, .backing = BUF_BACKING_HEAP});
    link_sim_attach(world->link,
                    &(struct link_sim_station_options){.mac = {2, 0, 0, 0, 0, (uint8_t)(index + 1)},
                                                       .offloads = NIC_TX_MULTI_SEGMENT,
                                                       .pools = {world->pools[index]},
                                                       .path = {.delay = 200}},
                    &nic);
    const struct stack_port_options port = {
        .nic = nic, .addresses = addresses, .address_count = COUNT_OF(addresses)};
    assert_int_equal(ERR_OK,
                     stack_new(&(struct stack_options){.pool = world->pools[index],
                                                       .header_pool = world->header_pools[index],
                                                       .clone_pool = world->clone_pools[index],
                                                       .ports = &port,
                                                       .port_count = 1,
                                                       .flow_count_max = flow_max,
                                                       .time_wait_max = 64,
                                                       .syn_cache_max = 1024,
                                                       .neighbour_max = 16,
                                                       .destination_max = 16,
                                                       .orphan_time = ORPHAN_TIME,
                                                       .now = world->wire_now,
                                                       .seed = {index + 1, 7},
                                                       .core_count = 1,
                                                       .tcp = tcp_policy_default()},
                               &stack));
    return stack_plane(stack);
}

static struct flow_plane *host_plane_new(const struct world *world, uint32_t index,
                                         uint32_t flow_max)
{
    struct flow_plane *plane = NULL;

    assert_int_equal(ERR_OK, flow_host_new(&(struct flow_host_options){.pool = world->pools[index],
                                                                       .flow_count_max = flow_max,
                                                                       .orphan_time = ORPHAN_TIME,
                                                                       .seed = index + 1},
                                           &plane));
    return plane;
}

static uint64_t frames_received(struct flow_plane *wire)
{
    return stack_counter(stack_of_plane(wire), STACK_FRAMES_RECEIVED);
}

static struct flow_plane *world_plane_new(struct world *world, uint32_t index, uint32_t flow_max)
{
    if (is_pair(world))
        return flow_pair_new(
            &(struct flow_pair_options){.host = host_plane_new(world, index, flow_max),
                                        .wire = wire_plane_new(world, index, flow_max),
                                        .received = frames_received});
    if (is_wire(world))
        return wire_plane_new(world, index, flow_max);
    if (world->kind == SIM) {
        return net_sim_plane_new(
            world->sim, &(struct net_sim_plane_options){
                            .pool = world->pools[index],
                            .flow_count_max = flow_max,
                            .orphan_time = ORPHAN_TIME,
                            .address4 = address_of(index == SERVER ? "10.0.0.1" : "10.0.0.2", 0),
                            .address6 = address_of(index == SERVER ? "fd00::1" : "fd00::2", 0)});
    }
    return host_plane_new(world, index, flow_max);
}

static void world_pass_time(struct world *world);

static struct world *world_new(enum world_kind kind, uint32_t flow_max, uint32_t pool_max,
                               uint64_t seed)
{
    struct world *world = calloc(1, sizeof(*world));
    assert_non_null(world);

    world->kind = kind;
    world->clock = tick_source_system();
    if (kind == SIM) {
        world->sim = net_sim_new(&(struct net_sim_options){
            .seed = seed, .start = TICK_S(1), .faults = net_sim_faults_none()});
        world->clock = net_sim_clock(world->sim);
    }
    if (is_wire(world) || is_pair(world)) {
        world->link = link_sim_new(seed);
        world->wire_now = TICK_S(1);
    }
    if (is_wire(world)) {
        world->wire_clock = (struct tick_source){.monotonic = wire_monotonic, .context = world};
        world->clock = &world->wire_clock;
    }
    for (uint32_t i = 0; i < 2; i++) {
        world->pools[i] = buf_pool_new(&(struct buf_pool_options){
            .data_size = DATA_SIZE, .count_max = pool_max, .backing = BUF_BACKING_HEAP});
        world->planes[i] = world_plane_new(world, i, flow_max);
    }
    snprintf(world->unix_path, sizeof(world->unix_path), "/tmp/flow_contract.%d", (int)getpid());
    if (is_wire(world))
        world_pass_time(world);
    return world;
}

static void world_free(struct world *world)
{
    for (uint32_t i = 0; i < 2; i++) {
        flow_plane_free(world->planes[i]);
        buf_pool_free(world->pools[i]);
        buf_pool_free(world->header_pools[i]);
        buf_pool_free(world->clone_pools[i]);
    }
    if (world->link != NULL)
        link_sim_free(world->link);
    if (world->sim != NULL)
        net_sim_free(world->sim);
    unlink(world->unix_path);
    free(world);
}

static int setup(void **state)
{
    enum world_kind kind = *(const enum world_kind *)*state;
    *state = world_new(kind, FLOW_MAX, POOL_MAX, 1);
    return 0;
}

static int teardown(void **state)
{
    world_free(*state);
    return 0;
}

static tick_us world_now(const struct world *world)
{
    return world->clock->monotonic(world->clock->context);
}

static uint32_t world_poll(struct world *world, uint32_t index)
{
    struct flow_event events[64];
    uint32_t count = flow_poll(world->planes[index], world_now(world), events, COUNT_OF(events));

    for (uint32_t i = 0; i < count; i++) {
        assert_true(events[i].user < USER_MAX);
        world->seen[events[i].user] |= events[i].events;
        world->last[events[i].user] = events[i].events;
        world->reports[events[i].user]++;
    }
    return count;
}

/* To what happens next, but no further than `most`. */
static void world_advance(struct world *world, tick_us most)
{
    tick_us deadline = TICK_NEVER, limit = world_now(world) + most;

    if (world->kind == SIM) {
        deadline = net_sim_deadline(world->sim);
        net_sim_advance(world->sim, deadline < limit ? deadline : limit);
        return;
    }
    for (uint32_t i = 0; i < 2; i++) {
        tick_us at = flow_deadline(world->planes[i]);
        deadline = at < deadline ? at : deadline;
        struct flow_plane *wire = flow_pair_wire(world->planes[i]);
        stack_verify(stack_of_plane(wire != NULL ? wire : world->planes[i]));
    }
    deadline = deadline > world->wire_now ? deadline : world->wire_now + 1;
    world->wire_now = deadline < limit ? deadline : limit;
}

/* One turn of both planes; where nothing happened, time passes. */
static void world_turn(struct world *world)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < 2; i++) {
        count += world_poll(world, i);
        flow_flush(world->planes[i], world_now(world));
    }
    if (count > 0)
        return;
    if (is_virtual(world)) {
        world_advance(world, TICK_MS(1));
        return;
    }
    for (uint32_t i = 0; i < 2; i++)
        flow_wait(world->planes[i], world_now(world), world_now(world) + 200);
}

/* Duplicate address detection is done: IPv6 addresses can be used. */
static void world_pass_time(struct world *world)
{
    tick_us end = world_now(world) + TICK_S(3);

    while (world_now(world) < end) {
        for (uint32_t i = 0; i < 2; i++) {
            assert_int_equal(0, world_poll(world, i));
            flow_flush(world->planes[i], world_now(world));
        }
        world_advance(world, TICK_MS(100));
    }
}

static void world_turns_ms(struct world *world, uint32_t ms)
{
    tick_us end = world_now(world) + TICK_MS(ms);

    for (uint32_t i = 0; i < TURN_MAX && world_now(world) < end; i++)
        world_turn(world);
}

static void world_settle(struct world *world)
{
    for (uint32_t i = 0; i < 30; i++) {
        world_turn(world);
        if (world->kind == PAIR_HOST) /* which looks at the kernel's sockets by the clock */
            world_turns_ms(world, 1);
    }
}

/* True when every event of `mask` was reported for `user` since the test began or forgot it. */
static bool world_wait(struct world *world, uint64_t user, uint32_t mask)
{
    for (uint32_t i = 0; i < TURN_MAX && (world->seen[user] & mask) != mask; i++)
        world_turn(world);
    return (world->seen[user] & mask) == mask;
}

static const char *world_ip(const struct world *world, uint32_t plane)
{
    switch (world->kind) {
    case SIM:
        return "10.0.0.1";
    case WIRE_IP4:
    case PAIR_WIRE:
        return plane == SERVER ? "10.0.0.1" : "10.0.0.2";
    case WIRE_IP6:
        return plane == SERVER ? "fd00::1" : "fd00::2";
    case HOST_IP6:
        return "::1";
    default:
        return "127.0.0.1";
    }
}

static enum err world_listen_on(struct world *world, uint32_t plane, uint64_t user, uint16_t port,
                                const struct flow_listen_options *limits, struct flow *ret_flow)
{
    struct flow_listen_options options = *limits;

    options.user = user;
    if (world->kind == HOST_UNIX) {
        options.address = (struct flow_address){.family = FLOW_FAMILY_UNIX};
        options.unix_path = world->unix_path;
        unlink(world->unix_path);
    } else {
        options.address = address_of(world_ip(world, SERVER),
                                     port != 0 ? port : (uint16_t)(is_virtual(world) ? 25 : 0));
    }
    enum err err = flow_listen(world->planes[plane], &options, ret_flow);
    if (err == ERR_OK) {
        struct flow_address peer;
        assert_int_equal(ERR_OK,
                         flow_addresses(world->planes[plane], *ret_flow, &world->address, &peer));
    }
    return err;
}

static void world_listen(struct world *world, const struct flow_listen_options *limits)
{
    assert_int_equal(ERR_OK,
                     world_listen_on(world, SERVER, LISTENER_USER, 0, limits, &world->listener));
}

static enum err world_connect(struct world *world, uint64_t user, tick_us deadline,
                              struct flow *ret_flow)
{
    return flow_connect(world->planes[CLIENT],
                        &(struct flow_connect_options){.remote = world->address,
                                                       .unix_path = world->unix_path,
                                                       .deadline = deadline,
                                                       .user = user},
                        ret_flow);
}

/* world->client is connected to world->server. */
static void world_pair(struct world *world, const struct flow_listen_options *limits)
{
    struct flow_address peer;

    world_listen(world, limits);
    assert_int_equal(
        ERR_OK, world_connect(world, CLIENT_USER, world_now(world) + TICK_S(5), &world->client));
    assert_true(world_wait(world, CLIENT_USER, FLOW_CONNECTED));
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    assert_int_equal(ERR_OK, flow_accept(world->planes[SERVER], world->listener, SERVER_USER,
                                         &world->server, &peer));
}

static const struct flow_listen_options no_limits = {0};

static void world_send(struct world *world, uint32_t plane, struct flow flow, const void *data,
                       uint32_t size)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    assert_int_equal(ERR_OK,
                     buf_queue_append_copy(&queue, world->pools[plane], span_of(data, size)));
    flow_append(world->planes[plane], flow, &queue);
    assert_int_equal(0, queue.size);
    buf_queue_fini(&queue);
}

static void world_send_text(struct world *world, uint32_t plane, struct flow flow, const char *text)
{
    world_send(world, plane, flow, text, (uint32_t)strlen(text));
}

static bool world_wait_readable(struct world *world, uint32_t plane, struct flow flow,
                                uint32_t size)
{
    for (uint32_t i = 0; i < TURN_MAX && flow_readable(world->planes[plane], flow) < size; i++)
        world_turn(world);
    return flow_readable(world->planes[plane], flow) >= size;
}

static void world_expect_text(struct world *world, uint32_t plane, struct flow flow,
                              const char *text)
{
    uint32_t size = (uint32_t)strlen(text);

    assert_true(world_wait_readable(world, plane, flow, size));
    struct span octets = flow_pull(world->planes[plane], flow, size);
    assert_int_equal(size, octets.size);
    assert_memory_equal(text, octets.data, size);
    flow_consume(world->planes[plane], flow, size);
}

/* ---- connecting ---- */

static void test_connect_and_accept(void **state)
{
    struct world *world = *state;
    struct flow extra;
    struct flow_address local, peer, client_local, client_peer;

    world_pair(world, &no_limits);
    assert_int_equal(ERR_AGAIN,
                     flow_accept(world->planes[SERVER], world->listener, 9, &extra, &peer));
    world_settle(world);
    assert_int_equal(1, world->reports[CLIENT_USER]); /* CONNECTED, once */
    assert_int_equal(ERR_OK, flow_error(world->planes[CLIENT], world->client));
    assert_int_equal(ERR_OK, flow_addresses(world->planes[SERVER], world->server, &local, &peer));
    assert_int_equal(
        ERR_OK, flow_addresses(world->planes[CLIENT], world->client, &client_local, &client_peer));
    if (world->kind != HOST_UNIX) {
        assert_true(flow_address_is_equal(&local, &client_peer));
        assert_true(flow_address_is_equal(&peer, &client_local));
        assert_true(flow_address_is_equal(&local, &world->address));
    }
    assert_int_equal(2, flow_plane_stats(world->planes[SERVER]).flows);
}

static void test_refused(void **state)
{
    struct world *world = *state;
    struct flow flow;

    world_listen(world, &no_limits);
    flow_close(world->planes[SERVER], world->listener);
    assert_int_equal(ERR_OK,
                     world_connect(world, CLIENT_USER, world_now(world) + TICK_S(5), &flow));
    assert_int_equal(0, world->reports[CLIENT_USER]);
    assert_true(world_wait(world, CLIENT_USER, FLOW_FAILED));
    assert_int_equal(FLOW_FAILED, world->last[CLIENT_USER]);
    assert_int_equal(ERR_REFUSED, flow_error(world->planes[CLIENT], flow));
    flow_close(world->planes[CLIENT], flow);
    assert_int_equal(ERR_STALE, flow_error(world->planes[CLIENT], flow));
}

/* A backlog of one is soon full; further SYNs get no answer. */
static void test_connect_deadline(void **state)
{
    struct world *world = *state;
    struct flow flows[6];
    uint32_t failed = 0;

    if (world->kind == HOST_UNIX) {
        print_message("# a Unix socket never keeps one waiting\n");
        return;
    }
    world_listen(world, &(struct flow_listen_options){.backlog = 1});
    for (uint32_t i = 0; i < COUNT_OF(flows); i++) {
        assert_int_equal(ERR_OK,
                         world_connect(world, 10 + i, world_now(world) + TICK_MS(60), &flows[i]));
        /* Half-open connections are none yet: the first must have become one. */
        for (uint32_t turn = 0; turn < 10 && is_wire(world); turn++)
            world_turn(world);
    }
    assert_true(flow_deadline(world->planes[CLIENT]) <= world_now(world) + TICK_MS(60));
    assert_true(world_wait(world, 15, FLOW_FAILED));
    for (uint32_t i = 0; i < COUNT_OF(flows); i++) {
        if (!(world->seen[10 + i] & FLOW_FAILED))
            continue;
        assert_int_equal(ERR_TIMEOUT, flow_error(world->planes[CLIENT], flows[i]));
        assert_false(world->seen[10 + i] & FLOW_CONNECTED);
        failed++;
    }
    assert_in_range(failed, 1, 5);
}

static void test_refuse(void **state)
{
    struct world *world = *state;

    world_listen(world, &no_limits);
    assert_int_equal(ERR_OK, world_connect(world, CLIENT_USER, TICK_NEVER, &world->client));
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    assert_int_equal(ERR_OK, flow_refuse(world->planes[SERVER], world->listener));
    assert_int_equal(ERR_AGAIN, flow_refuse(world->planes[SERVER], world->listener));
    for (uint32_t i = 0; i < TURN_MAX && !(world->seen[CLIENT_USER] &
                                           (FLOW_RESET | FLOW_FAILED | FLOW_PEER_CLOSED));
         i++)
        world_turn(world);
    assert_true(world->seen[CLIENT_USER] & (FLOW_RESET | FLOW_FAILED | FLOW_PEER_CLOSED));
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).refused);
}

/* Two shards listen on one address; each gets some of the connections, none is lost. */
static void test_shared_listener(void **state)
{
    struct world *world = *state;
    struct flow listeners[2], flow;
    struct flow_address peer;
    uint32_t accepted[2] = {0, 0};
    const struct flow_listen_options shared = {.is_shared = true};

    if (world->kind == HOST_UNIX || is_wire(world))
        return; /* wire: two stacks share an address where they share a port, not here */
    assert_int_equal(ERR_OK, world_listen_on(world, SERVER, 10, 0, &shared, &listeners[0]));
    assert_int_equal(
        ERR_OK, world_listen_on(world, CLIENT, 11, world->address.port, &shared, &listeners[1]));
    assert_int_equal(ERR_SYSTEM,
                     world_listen_on(world, SERVER, 12, world->address.port, &no_limits, &flow));
    for (uint32_t i = 0; i < 40; i++)
        assert_int_equal(ERR_OK, world_connect(world, 20 + i, TICK_NEVER, &flow));
    for (uint32_t i = 0; i < 200 && accepted[0] + accepted[1] < 40; i++) {
        world_turn(world);
        for (uint32_t j = 0; j < 2; j++) {
            while (flow_accept(world->planes[j], listeners[j], 13, &flow, &peer) == ERR_OK)
                accepted[j]++;
        }
    }
    assert_int_equal(40, accepted[0] + accepted[1]);
    assert_true(accepted[0] > 0 && accepted[1] > 0);
}

static void test_flow_limit(void **state)
{
    enum world_kind kind = ((const struct world *)*state)->kind;
    struct world *world = world_new(kind, 4, POOL_MAX, 1);
    struct flow flows[5], client[4];
    struct flow_address peer;

    world_listen(world, &no_limits);
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(ERR_OK, world_connect(world, 10 + i, TICK_NEVER, &client[i]));
    assert_int_equal(ERR_LIMIT, world_connect(world, 14, TICK_NEVER, &flows[4]));
    for (uint32_t i = 0; i < 3; i++) {
        enum err err = ERR_AGAIN;
        for (uint32_t turn = 0; turn < TURN_MAX && err == ERR_AGAIN; turn++) {
            world_turn(world);
            err =
                flow_accept(world->planes[SERVER], world->listener, SERVER_USER, &flows[i], &peer);
        }
        assert_int_equal(ERR_OK, err);
    }
    enum err err = ERR_AGAIN;
    for (uint32_t turn = 0; turn < TURN_MAX && err == ERR_AGAIN; turn++) {
        world_turn(world);
        err = flow_accept(world->planes[SERVER], world->listener, SERVER_USER, &flows[3], &peer);
    }
    assert_int_equal(ERR_LIMIT, err);
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).refused);
    flow_abort(world->planes[SERVER], flows[0]);
    assert_int_equal(ERR_AGAIN, flow_accept(world->planes[SERVER], world->listener, SERVER_USER,
                                            &flows[3], &peer));
    world_free(world);
}

/* Out of descriptors: the connection is refused, not left waiting, and the listener goes on. */
static void test_descriptors_exhausted(void **state)
{
    struct world *world = *state;
    struct rlimit before, now;
    struct flow flow;
    struct flow_address peer;

    if (is_virtual(world))
        return;
    world_listen(world, &no_limits);
    assert_int_equal(ERR_OK, world_connect(world, CLIENT_USER, TICK_NEVER, &world->client));
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    int highest = dup(0);
    close(highest);
    getrlimit(RLIMIT_NOFILE, &before);
    now = before;
    now.rlim_cur = (rlim_t)highest;
    setrlimit(RLIMIT_NOFILE, &now);
    enum err err = flow_accept(world->planes[SERVER], world->listener, 9, &flow, &peer);
    setrlimit(RLIMIT_NOFILE, &before);
    assert_int_equal(ERR_LIMIT, err);
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).refused);
    assert_int_equal(ERR_OK, world_connect(world, 10, TICK_NEVER, &flow));
    world->seen[LISTENER_USER] = 0;
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    err = ERR_AGAIN;
    for (uint32_t i = 0; i < TURN_MAX && err == ERR_AGAIN; i++) {
        world_turn(world);
        err =
            flow_accept(world->planes[SERVER], world->listener, SERVER_USER, &world->server, &peer);
    }
    assert_int_equal(ERR_OK, err);
}

/* ---- octets ---- */

struct pump {
    struct rng rng;
    uint8_t *octets;
    uint32_t size, sent, received;
};

static void pump_send(struct world *world, struct pump *pump)
{
    uint32_t left = pump->size - pump->sent;
    uint32_t size = left < 5000 ? left : 1 + rng_below(&pump->rng, 5000);

    if (size == 0 || flow_unsent(world->planes[CLIENT], world->client) > 100000)
        return;
    if (rng_below(&pump->rng, 3) == 0) {
        size = size < 700 ? size : 700;
        struct span_mut room = flow_reserve(world->planes[CLIENT], world->client, size);
        assert_non_null(room.data);
        assert_true(room.size >= size);
        memcpy(room.data, pump->octets + pump->sent, size);
        flow_commit(world->planes[CLIENT], world->client, size);
    } else {
        world_send(world, CLIENT, world->client, pump->octets + pump->sent, size);
    }
    pump->sent += size;
}

static void pump_receive(struct world *world, struct pump *pump)
{
    struct flow_plane *plane = world->planes[SERVER];
    uint32_t readable = flow_readable(plane, world->server);
    struct buf_queue queue;
    uint8_t copy[FLOW_PULL_MAX];

    if (readable == 0)
        return;
    uint32_t size = 1 + rng_below(&pump->rng, readable);
    size = size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX;
    if (rng_below(&pump->rng, 2) == 0) {
        struct span octets = flow_pull(plane, world->server, size);
        assert_int_equal(size, octets.size);
        assert_memory_equal(pump->octets + pump->received, octets.data, size);
        flow_consume(plane, world->server, size);
    } else {
        buf_queue_init(&queue);
        flow_take(plane, world->server, size, &queue);
        assert_int_equal(size, queue.size);
        buf_queue_copy_out(&queue, 0, copy, size);
        assert_memory_equal(pump->octets + pump->received, copy, size);
        buf_queue_fini(&queue);
        flow_credit(plane, world->server, size);
    }
    pump->received += size;
}

static void test_octets_in_order(void **state)
{
    struct world *world = *state;
    struct pump pump = {.size = 1000000};

    rng_init_seed(&pump.rng, 7);
    pump.octets = malloc(pump.size);
    assert_non_null(pump.octets);
    rng_fill(&pump.rng, pump.octets, pump.size);
    world_pair(world, &(struct flow_listen_options){.receive_limit = 20000});
    for (uint32_t i = 0; i < 100 * TURN_MAX && pump.received < pump.size; i++) {
        pump_send(world, &pump);
        for (uint32_t j = 0; j < 4; j++)
            pump_receive(world, &pump);
        world_turn(world);
    }
    assert_int_equal(pump.size, pump.received);
    if (is_wire(world)) /* octets count as unsent until they are acknowledged */
        world_turns_ms(world, 50);
    assert_int_equal(0, flow_unsent(world->planes[CLIENT], world->client));
    assert_int_equal(pump.size, flow_plane_stats(world->planes[SERVER]).octets_received);
    assert_int_equal(pump.size, flow_plane_stats(world->planes[CLIENT]).octets_sent);
    world_settle(world);
    assert_int_equal(0, buf_pool_in_use(world->pools[SERVER])); /* idle flows hold no buffer */
    assert_int_equal(0, buf_pool_in_use(world->pools[CLIENT]));
    free(pump.octets);
}

static void test_append_before_connected(void **state)
{
    struct world *world = *state;
    struct flow_address peer;

    world_listen(world, &no_limits);
    assert_int_equal(ERR_OK, world_connect(world, CLIENT_USER, TICK_NEVER, &world->client));
    world_send_text(world, CLIENT, world->client, "early");
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    assert_int_equal(ERR_OK, flow_accept(world->planes[SERVER], world->listener, SERVER_USER,
                                         &world->server, &peer));
    world_expect_text(world, SERVER, world->server, "early");
}

static void test_peek_and_pull_across_buffers(void **state)
{
    struct world *world = *state;
    uint8_t octets[5000], seen[5000];
    struct span spans[8];
    uint32_t size = 0;

    for (uint32_t i = 0; i < sizeof(octets); i++)
        octets[i] = (uint8_t)(i * 7 + i / 256);
    world_pair(world, &no_limits);
    world_send(world, CLIENT, world->client, octets, sizeof(octets));
    assert_true(world_wait_readable(world, SERVER, world->server, sizeof(octets)));
    uint32_t count = flow_peek(world->planes[SERVER], world->server, spans, COUNT_OF(spans));
    for (uint32_t i = 0; i < count; i++) {
        memcpy(seen + size, spans[i].data, spans[i].size);
        size += spans[i].size;
    }
    assert_int_equal(sizeof(octets), size);
    assert_memory_equal(octets, seen, size);
    assert_int_equal(1, flow_peek(world->planes[SERVER], world->server, spans, 1));
    struct span all = flow_pull(world->planes[SERVER], world->server, FLOW_PULL_MAX);
    assert_int_equal(FLOW_PULL_MAX, all.size);
    assert_memory_equal(octets, all.data, all.size);
    flow_consume(world->planes[SERVER], world->server, 4999);
    all = flow_pull(world->planes[SERVER], world->server, FLOW_PULL_MAX);
    assert_int_equal(1, all.size);
    assert_int_equal(octets[4999], all.data[0]);
}

static void test_cork_holds_until_push(void **state)
{
    struct world *world = *state;
    struct flow_plane *client = world->planes[CLIENT];
    static uint8_t unit[20000];

    world_pair(world, &no_limits);
    flow_cork(client, world->client, true);
    world_send_text(world, CLIENT, world->client, "half");
    world_settle(world);
    assert_int_equal(0, flow_readable(world->planes[SERVER], world->server));
    assert_int_equal(4, flow_unsent(client, world->client));
    world_send_text(world, CLIENT, world->client, " whole");
    flow_push(client, world->client);
    world_expect_text(world, SERVER, world->server, "half whole");
    world_send_text(world, CLIENT, world->client, "x");
    world_settle(world);
    assert_int_equal(0, flow_readable(world->planes[SERVER], world->server));
    flow_cork(client, world->client, false);
    world_expect_text(world, SERVER, world->server, "x");
    /* What fills whole units goes by itself. */
    flow_cork(client, world->client, true);
    world_send(world, CLIENT, world->client, unit, sizeof(unit));
    assert_true(world_wait_readable(world, SERVER, world->server, 16384));
    world_settle(world);
    assert_int_equal(16384, flow_readable(world->planes[SERVER], world->server));
    flow_shutdown(client, world->client);
    assert_true(world_wait_readable(world, SERVER, world->server, sizeof(unit)));
}

static void test_reserve_goes_behind_append(void **state)
{
    struct world *world = *state;
    struct flow_plane *client = world->planes[CLIENT];

    world_pair(world, &no_limits);
    world_send_text(world, CLIENT, world->client, "one ");
    struct span_mut room = flow_reserve(client, world->client, 100);
    assert_true(room.size >= 100);
    memcpy(room.data, "two ", 4);
    flow_commit(client, world->client, 4);
    world_send_text(world, CLIENT, world->client, "three ");
    room = flow_reserve(client, world->client, 100);
    memcpy(room.data, "four", 4);
    flow_commit(client, world->client, 4);
    assert_int_equal(18, flow_unsent(client, world->client));
    world_expect_text(world, SERVER, world->server, "one two three four");
}

/* ---- reports ---- */

static void test_left_over_octets_are_not_repeated(void **state)
{
    struct world *world = *state;
    struct flow_plane *server = world->planes[SERVER];

    world_pair(world, &no_limits);
    world_send_text(world, CLIENT, world->client, "MAIL FR");
    assert_true(world_wait(world, SERVER_USER, FLOW_READABLE));
    world_settle(world);
    uint32_t reports = world->reports[SERVER_USER];
    world_settle(world);
    assert_int_equal(reports, world->reports[SERVER_USER]); /* nothing changed: silence */
    flow_consume(server, world->server, 5);
    world_settle(world);
    assert_int_equal(reports + 1, world->reports[SERVER_USER]); /* some are left */
    flow_want(server, world->server, 0);
    world_send_text(world, CLIENT, world->client, "OM:<>\r\n");
    assert_true(world_wait_readable(world, SERVER, world->server, 9));
    assert_int_equal(reports + 1, world->reports[SERVER_USER]); /* not wanted */
    flow_want(server, world->server, FLOW_READABLE);
    world_settle(world);
    assert_int_equal(reports + 2, world->reports[SERVER_USER]);
    assert_int_equal(FLOW_READABLE, world->last[SERVER_USER]);
    world_expect_text(world, SERVER, world->server, "FROM:<>\r\n");
}

static void test_writable_and_sent(void **state)
{
    struct world *world = *state;
    struct flow_plane *server = world->planes[SERVER];
    static uint8_t octets[100000];

    world_pair(world, &(struct flow_listen_options){.send_limit = 10000});
    world_settle(world);
    assert_int_equal(0, world->seen[SERVER_USER] & (FLOW_WRITABLE | FLOW_SENT));
    flow_want(server, world->server, FLOW_WRITABLE | FLOW_SENT);
    assert_true(world_wait(world, SERVER_USER, FLOW_WRITABLE | FLOW_SENT));
    flow_cork(server, world->server, true);
    world_send(world, SERVER, world->server, octets, 9999);
    world_settle(world);
    assert_int_equal(FLOW_WRITABLE, world->last[SERVER_USER]); /* one octet of room */
    world->seen[SERVER_USER] = 0;
    world_send(world, SERVER, world->server, octets, 1);
    world_settle(world);
    assert_int_equal(0, world->seen[SERVER_USER]);
    flow_push(server, world->server);
    assert_true(world_wait(world, SERVER_USER, FLOW_WRITABLE | FLOW_SENT));
    assert_int_equal(0, flow_unsent(server, world->server));
}

static void test_user_value_can_change(void **state)
{
    struct world *world = *state;

    world_pair(world, &no_limits);
    flow_set_user(world->planes[SERVER], world->server, 77);
    world_send_text(world, CLIENT, world->client, "x");
    assert_true(world_wait(world, 77, FLOW_READABLE));
    assert_int_equal(0, world->reports[SERVER_USER]);
}

/* More flows have news than fit into one poll: none is forgotten. */
static void test_small_event_array(void **state)
{
    struct world *world = *state;
    struct flow flow;
    struct flow_address peer;
    struct flow_event events[3];
    uint32_t accepted = 0, reported = 0;
    bool seen[40] = {false};

    world_listen(world, &no_limits);
    for (uint32_t i = 0; i < 40; i++) {
        assert_int_equal(ERR_OK, world_connect(world, 100 + i, TICK_NEVER, &flow));
        world_send_text(world, CLIENT, flow, "hello");
        for (uint32_t turn = 0; turn < TURN_MAX && accepted == i; turn++) {
            world_turn(world);
            if (flow_accept(world->planes[SERVER], world->listener, 20 + i, &flow, &peer) == ERR_OK)
                accepted++;
        }
    }
    for (uint32_t turn = 0; turn < TURN_MAX && reported < 40; turn++) {
        uint32_t count = flow_poll(world->planes[SERVER], world_now(world), events, 3);
        assert_true(count <= 3);
        for (uint32_t i = 0; i < count; i++) {
            if (events[i].user < 20 || events[i].user >= 60 || seen[events[i].user - 20])
                continue;
            seen[events[i].user - 20] = true;
            reported++;
        }
        world_poll(world, CLIENT);
        flow_flush(world->planes[CLIENT], world_now(world));
        if (is_virtual(world) && count == 0)
            world_advance(world, 100);
    }
    for (uint32_t i = 0; i < 40; i++)
        reported += (!seen[i] && world->seen[20 + i] & FLOW_READABLE) ? 1u : 0u;
    assert_int_equal(40, reported);
}

/* ---- endings ---- */

static void test_half_close(void **state)
{
    struct world *world = *state;

    world_pair(world, &no_limits);
    world_send_text(world, CLIENT, world->client, "last words");
    flow_shutdown(world->planes[CLIENT], world->client);
    world_send_text(world, CLIENT, world->client, "after the end"); /* dropped */
    assert_true(world_wait(world, SERVER_USER, FLOW_PEER_CLOSED));
    assert_int_equal(10, flow_readable(world->planes[SERVER], world->server));
    world_expect_text(world, SERVER, world->server, "last words");
    world_send_text(world, SERVER, world->server, "heard");
    world_expect_text(world, CLIENT, world->client, "heard");
    assert_int_equal(ERR_OK, flow_error(world->planes[SERVER], world->server));
    flow_close(world->planes[SERVER], world->server);
    assert_true(world_wait(world, CLIENT_USER, FLOW_PEER_CLOSED));
    assert_false(world->seen[CLIENT_USER] & FLOW_RESET);
}

static void test_octets_before_reset_stay(void **state)
{
    struct world *world = *state;

    world_pair(world, &no_limits);
    world_send_text(world, SERVER, world->server, "554 no\r\n");
    assert_true(world_wait_readable(world, CLIENT, world->client, 8));
    flow_abort(world->planes[SERVER], world->server);
    if (world->kind == HOST_UNIX) {
        assert_true(world_wait(world, CLIENT_USER, FLOW_PEER_CLOSED));
    } else {
        assert_true(world_wait(world, CLIENT_USER, FLOW_RESET));
        assert_int_equal(ERR_PEER_RESET, flow_error(world->planes[CLIENT], world->client));
    }
    world_expect_text(world, CLIENT, world->client, "554 no\r\n");
    flow_close(world->planes[CLIENT], world->client);
}

/* The peer answers and goes while we still send: its answer must be read although sends fail. */
static void test_answer_is_read_after_failed_send(void **state)
{
    struct world *world = *state;
    static uint8_t octets[60000];

    world_pair(world, &no_limits);
    world_send_text(world, SERVER, world->server, "421 bye\r\n");
    flow_flush(world->planes[SERVER], world_now(world));
    world_settle(world);
    flow_abort(world->planes[SERVER], world->server);
    for (uint32_t i = 0;
         i < TURN_MAX && !(world->seen[CLIENT_USER] & (FLOW_RESET | FLOW_PEER_CLOSED)); i++) {
        if (flow_unsent(world->planes[CLIENT], world->client) == 0)
            world_send(world, CLIENT, world->client, octets, sizeof(octets));
        world_turn(world);
    }
    assert_true(world->seen[CLIENT_USER] & (FLOW_RESET | FLOW_PEER_CLOSED));
    world_expect_text(world, CLIENT, world->client, "421 bye\r\n");
}

/* close() sends everything, and unread input does not turn our last reply into a RST. */
static void test_close_sends_the_rest(void **state)
{
    struct world *world = *state;
    uint32_t size = 400000, received = 0;
    uint8_t *octets = calloc(1, size);
    assert_non_null(octets);

    world_pair(world, &no_limits);
    world_send_text(world, CLIENT, world->client, "QUIT\r\nunread octets");
    assert_true(world_wait(world, SERVER_USER, FLOW_READABLE));
    world_send(world, SERVER, world->server, octets, size);
    flow_close(world->planes[SERVER], world->server);
    assert_int_equal(ERR_STALE, flow_error(world->planes[SERVER], world->server));
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).orphans);
    world_send_text(world, CLIENT, world->client, "more that nobody reads");
    for (uint32_t i = 0; i < TURN_MAX && !(world->seen[CLIENT_USER] & FLOW_PEER_CLOSED); i++) {
        uint32_t readable = flow_readable(world->planes[CLIENT], world->client);
        flow_consume(world->planes[CLIENT], world->client, readable);
        received += readable;
        world_turn(world);
    }
    received += flow_readable(world->planes[CLIENT], world->client);
    assert_int_equal(size, received);
    assert_false(world->seen[CLIENT_USER] & FLOW_RESET);
    flow_close(world->planes[CLIENT], world->client);
    for (uint32_t i = 0; i < TURN_MAX && flow_plane_stats(world->planes[SERVER]).orphans > 0; i++)
        world_turn(world);
    assert_int_equal(0, flow_plane_stats(world->planes[SERVER]).orphans);
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).flows);
    free(octets);
}

/* A peer that never closes cannot keep an orphan for longer than the orphan time. */
static void test_orphan_time(void **state)
{
    struct world *world = *state;

    world_pair(world, &no_limits);
    tick_us start = world_now(world);
    flow_close(world->planes[SERVER], world->server);
    assert_true(world_wait(world, CLIENT_USER, FLOW_PEER_CLOSED));
    assert_int_equal(1, flow_plane_stats(world->planes[SERVER]).orphans);
    for (uint32_t i = 0; i < TURN_MAX && flow_plane_stats(world->planes[SERVER]).orphans > 0; i++)
        world_turn(world);
    assert_int_equal(0, flow_plane_stats(world->planes[SERVER]).orphans);
    assert_true(world_now(world) - start >= ORPHAN_TIME);
}

static void test_stale_handles(void **state)
{
    struct world *world = *state;
    struct flow_plane *server = world->planes[SERVER];
    struct flow_address local, peer;
    struct flow old, again;
    struct buf_queue queue;
    struct span span;

    world_pair(world, &no_limits);
    old = world->server;
    flow_abort(server, old);
    world_settle(world);
    assert_int_equal(ERR_OK, world_connect(world, 10, TICK_NEVER, &again));
    world->seen[LISTENER_USER] = 0;
    assert_true(world_wait(world, LISTENER_USER, FLOW_ACCEPTABLE));
    assert_int_equal(ERR_OK, flow_accept(server, world->listener, 11, &world->server, &peer));
    assert_int_equal(old.index, world->server.index); /* the slot is used again */
    world_send_text(world, CLIENT, again, "for the new one");
    assert_true(world_wait_readable(world, SERVER, world->server, 15));

    assert_int_equal(ERR_STALE, flow_error(server, old));
    assert_int_equal(ERR_STALE, flow_addresses(server, old, &local, &peer));
    assert_int_equal(ERR_STALE, flow_accept(server, old, 1, &again, &peer));
    assert_int_equal(ERR_STALE, flow_refuse(server, old));
    assert_int_equal(ERR_STALE, flow_send_datagram(server, old, SPAN_LITERAL("x")));
    assert_int_equal(ERR_STALE, flow_receive_datagram(server, old, &peer, &span));
    assert_int_equal(0, flow_readable(server, old));
    assert_int_equal(0, flow_peek(server, old, &span, 1));
    assert_int_equal(0, flow_pull(server, old, 10).size);
    assert_null(flow_reserve(server, old, 10).data);
    assert_int_equal(0, flow_unsent(server, old));
    buf_queue_init(&queue);
    flow_take(server, old, 10, &queue);
    assert_int_equal(0, queue.size);
    assert_int_equal(ERR_OK,
                     buf_queue_append_copy(&queue, world->pools[SERVER], SPAN_LITERAL("dropped")));
    flow_append(server, old, &queue);
    assert_int_equal(0, queue.size);
    flow_consume(server, old, 10);
    flow_credit(server, old, 10);
    flow_cork(server, old, true);
    flow_push(server, old);
    flow_want(server, old, 0);
    flow_set_user(server, old, 99);
    flow_shutdown(server, old);
    flow_close(server, old);
    flow_abort(server, old);
    assert_int_equal(ERR_STALE, flow_error(server, (struct flow){0}));
    assert_int_equal(ERR_STALE, flow_error(server, (struct flow){400, 1}));

    world_expect_text(world, SERVER, world->server, "for the new one");
    world_send_text(world, SERVER, world->server, "alive");
    assert_true(world_wait(world, 10, FLOW_READABLE));
}

/* ---- memory ---- */

/* Goal: a flow whose charge reached its limit stops the sender, take alone does not reopen it,
 * credit does. */
static void test_back_pressure(void **state)
{
    struct world *world = *state;
    struct flow_plane *server = world->planes[SERVER];
    uint32_t size = 6000000, limit = 16384, received = 0;
    uint8_t *octets = calloc(1, 100000);
    struct buf_queue queue;
    uint32_t sent = 0;
    assert_non_null(octets);

    world_pair(world, &(struct flow_listen_options){.receive_limit = limit});
    buf_queue_init(&queue);
    for (uint32_t i = 0; i < 2000; i++) {
        if (sent < size && flow_unsent(world->planes[CLIENT], world->client) < 100000) {
            world_send(world, CLIENT, world->client, octets, 100000);
            sent += 100000;
        }
        if (i == 1000)
            flow_take(server, world->server, flow_readable(server, world->server), &queue);
        if (i % 50 == 0 || i == 1001)
            world_turn(world);
        assert_true(flow_readable(server, world->server) <= limit + DATA_SIZE);
        assert_true(buf_pool_in_use(world->pools[SERVER]) * DATA_SIZE <= limit + 2 * DATA_SIZE);
    }
    world_settle(world);
    assert_true(queue.size > 0);
    assert_int_equal(0, flow_readable(server, world->server)); /* taken, not credited */
    assert_true(flow_unsent(world->planes[CLIENT], world->client) > 0);
    received = (uint32_t)queue.size;
    flow_credit(server, world->server, queue.size);
    buf_queue_fini(&queue);
    for (uint32_t i = 0; i < 100 * TURN_MAX && received < size; i++) {
        if (sent < size && flow_unsent(world->planes[CLIENT], world->client) < 100000) {
            world_send(world, CLIENT, world->client, octets, 100000);
            sent += 100000;
        }
        uint32_t readable = flow_readable(server, world->server);
        flow_consume(server, world->server, readable);
        received += readable;
        world_turn(world);
    }
    assert_int_equal(size, received);
    free(octets);
}

/* Goal: octets that come one by one share buffers, also when each was taken at once. */
static void test_single_octets_share_buffers(void **state)
{
    struct world *world = *state;
    struct flow_plane *server = world->planes[SERVER];
    struct buf_queue queue;
    char text[301] = "";

    world_pair(world, &no_limits);
    buf_queue_init(&queue);
    for (uint32_t i = 0; i < 300; i++) {
        char octet = (char)('a' + i % 26);
        world_send(world, CLIENT, world->client, &octet, 1);
        assert_true(world_wait_readable(world, SERVER, world->server, 1));
        flow_take(server, world->server, 1, &queue);
        assert_true(buf_pool_in_use(world->pools[SERVER]) <= 40); /* spares of the turn with it */
    }
    world_settle(world);
    assert_true(buf_pool_in_use(world->pools[SERVER]) <= 2);
    assert_true(queue.count <= 2);
    buf_queue_copy_out(&queue, 0, text, 300);
    for (uint32_t i = 0; i < 300; i++)
        assert_int_equal('a' + i % 26, text[i]);
    flow_credit(server, world->server, 300);
    buf_queue_fini(&queue);
    world_settle(world);
    assert_int_equal(0, buf_pool_in_use(world->pools[SERVER]));
}

/* Goal: half a command line on each of many flows does not pin a buffer each. */
static void test_left_over_octets_share_a_buffer(void **state)
{
    struct world *world = *state;
    struct flow clients[60], servers[60];
    struct flow_address peer;

    world_listen(world, &no_limits);
    for (uint32_t i = 0; i < COUNT_OF(clients); i++) {
        assert_int_equal(ERR_OK, world_connect(world, CLIENT_USER, TICK_NEVER, &clients[i]));
        world_send_text(world, CLIENT, clients[i], "MAIL FROM");
        enum err err = ERR_AGAIN;
        for (uint32_t turn = 0; turn < TURN_MAX && err == ERR_AGAIN; turn++) {
            world_turn(world);
            err = flow_accept(world->planes[SERVER], world->listener, SERVER_USER, &servers[i],
                              &peer);
        }
        assert_int_equal(ERR_OK, err);
        assert_true(world_wait_readable(world, SERVER, servers[i], 9));
    }
    world_settle(world);
    assert_true(buf_pool_in_use(world->pools[SERVER]) <= 2);
    for (uint32_t i = 0; i < COUNT_OF(clients); i++) {
        world_send_text(world, CLIENT, clients[i], ":<a@b.example>\r\n");
        world_expect_text(world, SERVER, servers[i], "MAIL FROM:<a@b.example>\r\n");
    }
    world_settle(world);
    assert_int_equal(0, buf_pool_in_use(world->pools[SERVER]));
}

/* Goal: an empty pool delays octets and loses none. */
static void test_pool_exhausted(void **state)
{
    enum world_kind kind = ((const struct world *)*state)->kind;
    struct world *world = world_new(kind, FLOW_MAX, 60, 1);
    struct flow_plane *server = world->planes[SERVER];
    struct buf *hoard[60];
    uint32_t count = 0, received = 0;
    static uint8_t octets[30000];

    world_pair(world, &no_limits);
    world_settle(world);
    while (buf_pool_available(world->pools[SERVER]) > 0)
        hoard[count++] = buf_acquire(world->pools[SERVER]);
    world_send(world, CLIENT, world->client, octets, sizeof(octets));
    world_settle(world);
    assert_int_equal(0, flow_readable(server, world->server));
    assert_null(flow_reserve(server, world->server, 10).data);
    while (count > 0)
        buf_release(hoard[--count]);
    for (uint32_t i = 0; i < TURN_MAX && received < sizeof(octets); i++) {
        uint32_t readable = flow_readable(server, world->server);
        flow_consume(server, world->server, readable);
        received += readable;
        world_turn(world);
    }
    assert_int_equal(sizeof(octets), received);
    world_free(world);
}

/* ---- datagrams ---- */

static void test_datagrams(void **state)
{
    struct world *world = *state;
    struct flow_address local, peer, from, elsewhere;
    struct flow a, b, c;
    struct span octets;
    const char *ip = world_ip(world, SERVER);

    if (world->kind == HOST_UNIX)
        return;
    struct flow_address nowhere = address_of(is_wire(world) ? world_ip(world, CLIENT) : ip, 9);
    struct flow_address here = address_of(ip, 0), there = address_of(world_ip(world, CLIENT), 0);
    /* `a` finds a port of its own; `b` is connected to it; then `a` is made anew, connected to b.
     */
    assert_int_equal(ERR_OK, flow_open_datagram(world->planes[SERVER], &here, &nowhere, 9, &a));
    assert_int_equal(ERR_OK, flow_addresses(world->planes[SERVER], a, &local, &peer));
    assert_true(local.port >= 1024);
    assert_int_equal(ERR_SYSTEM,
                     flow_open_datagram(world->planes[SERVER], &local, &nowhere, 9, &b));
    assert_int_equal(ERR_OK, flow_open_datagram(world->planes[CLIENT], &there, &local, 11, &b));
    assert_int_equal(ERR_OK, flow_addresses(world->planes[CLIENT], b, &peer, &from));
    flow_close(world->planes[SERVER], a);
    assert_int_equal(ERR_OK, flow_open_datagram(world->planes[SERVER], &local, &peer, 10, &a));
    assert_int_equal(ERR_OK, flow_open_datagram(world->planes[CLIENT], &there, &local, 12, &c));
    assert_int_equal(ERR_OK, flow_addresses(world->planes[CLIENT], c, &elsewhere, &from));
    assert_int_not_equal(elsewhere.port, peer.port);

    assert_int_equal(ERR_AGAIN, flow_receive_datagram(world->planes[SERVER], a, &from, &octets));
    assert_int_equal(ERR_OK, flow_send_datagram(world->planes[CLIENT], c, SPAN_LITERAL("forged")));
    world_settle(world);
    assert_int_equal(ERR_OK, flow_send_datagram(world->planes[CLIENT], b, SPAN_LITERAL("query")));
    assert_true(world_wait(world, 10, FLOW_READABLE));
    assert_int_equal(ERR_OK, flow_receive_datagram(world->planes[SERVER], a, &from, &octets));
    assert_true(span_is_equal(SPAN_LITERAL("query"), octets));
    assert_true(flow_address_is_equal(&peer, &from));
    assert_int_equal(ERR_AGAIN, flow_receive_datagram(world->planes[SERVER], a, &from, &octets));
    assert_int_equal(ERR_OK, flow_send_datagram(world->planes[SERVER], a, SPAN_LITERAL("answer")));
    assert_true(world_wait(world, 11, FLOW_READABLE));
    assert_int_equal(ERR_OK, flow_receive_datagram(world->planes[CLIENT], b, &from, &octets));
    assert_true(span_is_equal(SPAN_LITERAL("answer"), octets));

    /* Nobody there any more: ICMP is heard. */
    assert_int_equal(ERR_AGAIN, flow_receive_datagram(world->planes[CLIENT], b, &from, &octets));
    world_settle(world);
    flow_close(world->planes[SERVER], a);
    world->seen[11] = 0;
    assert_int_equal(ERR_OK, flow_send_datagram(world->planes[CLIENT], b, SPAN_LITERAL("again")));
    assert_true(world_wait(world, 11, FLOW_READABLE));
    assert_int_equal(ERR_PEER_UNREACHABLE,
                     flow_receive_datagram(world->planes[CLIENT], b, &from, &octets));
}

/* Goal: source ports come from the whole unprivileged range and do not repeat. */
static void test_datagram_ports_are_random(void **state)
{
    struct world *world = *state;
    uint16_t least = UINT16_MAX, most = 0;
    struct flow_address local, peer;
    struct flow flow;

    if (world->kind == HOST_UNIX)
        return;
    struct flow_address remote = address_of(world_ip(world, SERVER), 9);
    for (uint32_t i = 0; i < 200; i++) {
        assert_int_equal(ERR_OK,
                         flow_open_datagram(world->planes[CLIENT], NULL, &remote, 9, &flow));
        assert_int_equal(ERR_OK, flow_addresses(world->planes[CLIENT], flow, &local, &peer));
        assert_true(flow_address_is_equal(&remote, &peer));
        least = local.port < least ? local.port : least;
        most = local.port > most ? local.port : most;
    }
    assert_in_range(least, 1024, 8000);
    assert_in_range(most, 58000, 65535);
}

/* ---- the simulator itself ---- */

static uint64_t sim_run(uint64_t seed, struct net_sim_faults faults, uint32_t *ret_received)
{
    struct world *world = world_new(SIM, FLOW_MAX, POOL_MAX, seed);
    uint8_t octets[3000];

    net_sim_set_faults(world->sim, &faults);
    memset(octets, 'x', sizeof(octets));
    world_pair(world, &no_limits);
    *ret_received = 0;
    for (uint32_t i = 0; i < 400; i++) {
        world_send(world, CLIENT, world->client, octets, sizeof(octets));
        world_turn(world);
        uint32_t readable = flow_readable(world->planes[SERVER], world->server);
        *ret_received += readable;
        flow_consume(world->planes[SERVER], world->server, readable);
    }
    uint64_t fingerprint = net_sim_fingerprint(world->sim);
    world_free(world);
    return fingerprint;
}

static void test_sim_is_deterministic(void **state)
{
    struct net_sim_faults faults = net_sim_faults_none();
    uint32_t received[3];

    (void)state;
    assert_true(sim_run(5, faults, &received[0]) == sim_run(5, faults, &received[1]));
    assert_int_equal(received[0], received[1]);
    assert_true(sim_run(5, faults, &received[0]) != sim_run(6, faults, &received[2]));
    faults.lose_stream = 20000;
    sim_run(5, faults, &received[1]);
    assert_true(received[1] < received[0]);
    faults.lose_stream = 0;
    faults.mute_stream = 20000;
    sim_run(5, faults, &received[2]);
    assert_true(received[2] < received[0]);
}

static void test_sim_black_hole_and_forgeries(void **state)
{
    struct world *world = world_new(SIM, FLOW_MAX, POOL_MAX, 3);
    struct net_sim_faults faults = net_sim_faults_none();
    struct flow_prefix hole;
    struct flow server, client;
    struct flow_address from, here = address_of("10.0.0.1", 53);
    struct span octets;
    uint32_t answers = 0;

    (void)state;
    world->address = address_of("10.9.9.9", 25);
    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("10.9.0.0/16"), &hole));
    net_sim_set_black_hole(world->sim, &hole);
    assert_int_equal(ERR_OK, world_connect(world, 10, world_now(world) + TICK_MS(50), &client));
    assert_true(world_wait(world, 10, FLOW_FAILED));
    assert_int_equal(ERR_TIMEOUT, flow_error(world->planes[CLIENT], client));

    faults.forge_datagram = faults.double_datagram = 1000000;
    net_sim_set_faults(world->sim, &faults);
    assert_int_equal(ERR_OK,
                     net_sim_open_datagram(world->sim, world->planes[SERVER], &here, 11, &server));
    assert_int_equal(ERR_OK, flow_open_datagram(world->planes[CLIENT], NULL, &here, 12, &client));
    assert_int_equal(ERR_OK,
                     flow_send_datagram(world->planes[CLIENT], client, SPAN_LITERAL("query")));
    assert_true(world_wait(world, 11, FLOW_READABLE));
    world_settle(world);
    while (flow_receive_datagram(world->planes[SERVER], server, &from, &octets) == ERR_OK)
        answers++;
    assert_int_equal(3, answers); /* itself, its double, a forgery: this flow takes all */
    struct flow_address to = from;
    struct flow_address local, peer;
    assert_int_equal(ERR_OK, flow_addresses(world->planes[CLIENT], client, &local, &peer));
    to = local;
    net_sim_send_datagram(world->sim, world->planes[SERVER], &here, &to, SPAN_LITERAL("answer"));
    world_settle(world);
    answers = 0;
    while (flow_receive_datagram(world->planes[CLIENT], client, &from, &octets) == ERR_OK)
        answers++;
    assert_int_equal(2, answers);
    assert_int_equal(1, flow_plane_stats(world->planes[CLIENT]).datagrams_dropped);
    world_free(world);
}

/* How long the plane sleeps when it may sleep 30 ms. */
static tick_us nap(struct world *world)
{
    tick_us start = world->clock->monotonic(world->clock->context);
    struct flow_event event;

    flow_wait(world->planes[SERVER], start, start + TICK_MS(30));
    tick_us end = world->clock->monotonic(world->clock->context);
    assert_int_equal(0, flow_poll(world->planes[SERVER], end, &event, 1));
    return end - start;
}

/* Who finds the results before the eventfd is written has no reason to read it: no spinning then.
 */
static void test_watched_eventfd_that_is_not_read_ends_one_wait(void **state)
{
    struct world *world = world_new(*(const enum world_kind *)*state, FLOW_MAX, POOL_MAX, 1);
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ERR_OK, flow_watch(world->planes[SERVER], fd));
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(0, eventfd_write(fd, 1));
        assert_true(nap(world) < TICK_MS(25));
        assert_true(nap(world) >= TICK_MS(29));
    }
    close(fd);
    world_free(world);
}

static const enum world_kind kinds[] = {HOST_IP4, HOST_IP6, HOST_UNIX, SIM,
                                        WIRE_IP4, WIRE_IP6, PAIR_HOST, PAIR_WIRE};

#define ON(function, kind, label)                                                                  \
    {                                                                                              \
#function " (" label ")", function, setup, teardown, (void *)(uintptr_t)&kinds[kind]       \
    }
#define ON_ALL(function)                                                                           \
    ON(function, HOST_IP4, "host, IPv4"), ON(function, HOST_IP6, "host, IPv6"),                    \
        ON(function, HOST_UNIX, "host, Unix"), ON(function, SIM, "simulator"),                     \
        ON(function, WIRE_IP4, "wire, IPv4"), ON(function, WIRE_IP6, "wire, IPv6"),                \
        ON(function, PAIR_HOST, "both, by the kernel"),                                            \
        ON(function, PAIR_WIRE, "both, by the engine")

int main(void)
{
    const struct CMUnitTest tests[] = {
        ON_ALL(test_connect_and_accept),
        ON_ALL(test_refused),
        ON_ALL(test_connect_deadline),
        ON_ALL(test_refuse),
        ON_ALL(test_shared_listener),
        ON_ALL(test_flow_limit),
        ON_ALL(test_descriptors_exhausted),
        ON_ALL(test_octets_in_order),
        ON_ALL(test_append_before_connected),
        ON_ALL(test_peek_and_pull_across_buffers),
        ON_ALL(test_cork_holds_until_push),
        ON_ALL(test_reserve_goes_behind_append),
        ON_ALL(test_left_over_octets_are_not_repeated),
        ON_ALL(test_writable_and_sent),
        ON_ALL(test_user_value_can_change),
        ON_ALL(test_small_event_array),
        ON_ALL(test_half_close),
        ON_ALL(test_octets_before_reset_stay),
        ON_ALL(test_answer_is_read_after_failed_send),
        ON_ALL(test_close_sends_the_rest),
        ON_ALL(test_orphan_time),
        ON_ALL(test_stale_handles),
        ON_ALL(test_back_pressure),
        ON_ALL(test_single_octets_share_buffers),
        ON_ALL(test_left_over_octets_share_a_buffer),
        ON_ALL(test_pool_exhausted),
        ON_ALL(test_datagrams),
        ON_ALL(test_datagram_ports_are_random),
        ON(test_watched_eventfd_that_is_not_read_ends_one_wait, HOST_IP4, "host"),
        cmocka_unit_test(test_sim_is_deterministic),
        cmocka_unit_test(test_sim_black_hole_and_forgeries),
    };
    return cmocka_run_group_tests_name("flow contract", tests, NULL, NULL);
}
