/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdlib.h>

#include "tests/unit/wire_pair.h"

#define START       TICK_S(1000)
#define ETHERNET    ETHERNET_HEADER_SIZE
#define CHUNK       4096u
#define TURNS_MAX   2000000u
#define DETECT_TIME TICK_S(3) /* IPv6 addresses can be used */

struct flow_address pair_address(const struct pair *pair, enum pair_side side, uint16_t port)
{
    struct flow_address address = {.family = pair->options.family, .port = port};
    const uint8_t ip4[4] = {10, 0, 0, (uint8_t)(side + 1)};

    if (address.family == FLOW_FAMILY_IP4) {
        memcpy(address.ip, ip4, sizeof(ip4));
    } else {
        address.ip[0] = 0xfd;
        address.ip[15] = (uint8_t)(side + 1);
    }
    return address;
}

/* ---- what is on the link ---- */

static bool segment_read(const uint8_t *octets, uint32_t size, struct pair_segment *ret_segment)
{
    struct span l3 = span_of(octets + ETHERNET, size - ETHERNET);
    uint16_t type = load_be16(octets + 12);

    if (type != ETHERTYPE_IP4 && type != ETHERTYPE_IP6)
        return false;
    if ((type == ETHERTYPE_IP4 ? ip4_parse(l3, l3.size, false, &ret_segment->ip)
                               : ip6_parse(l3, l3.size, &ret_segment->ip)) != PACKET_OK ||
        ret_segment->ip.protocol != IP_PROTOCOL_TCP)
        return false;
    struct span l4 =
        span_head(span_skip(l3, ret_segment->ip.header_size), ret_segment->ip.payload_size);
    if (tcp_parse(l4, &ret_segment->tcp) != PACKET_OK)
        return false;
    ret_segment->size = l4.size - ret_segment->tcp.header_size;
    return true;
}

static bool pair_filter(void *context, uint32_t station, tick_us now, uint8_t *octets,
                        uint32_t size)
{
    struct pair *pair = context;
    struct pair_segment segment = {.at = now, .from = (enum pair_side)station};

    if (!segment_read(octets, size, &segment))
        return true;
    segment.is_dropped = pair->judge != NULL && !pair->judge(pair, &segment);
    if (pair->segment_count < PAIR_SEGMENTS_MAX)
        pair->segments[pair->segment_count++] = segment;
    return !segment.is_dropped;
}

const struct pair_segment *pair_find(const struct pair *pair, enum pair_side side, uint8_t flags,
                                     uint32_t *index)
{
    while (*index < pair->segment_count) {
        const struct pair_segment *segment = &pair->segments[(*index)++];
        if (segment->from == side && (segment->tcp.flags & flags) == flags)
            return segment;
    }
    return NULL;
}

/* ---- made and freed ---- */

static void side_new(struct pair *pair, enum pair_side side)
{
    const struct pair_options *options = &pair->options;
    struct stack_address address = {pair_address(pair, side, 0),
                                    options->family == FLOW_FAMILY_IP4 ? 24 : 64};
    const struct tcp_policy policy = tcp_policy_default();
    struct nic *nic;

    pair->pools[side] = buf_pool_new(&(struct buf_pool_options){.data_size = options->pool_size,
                                                                .count_max = options->pool_max,
                                                                .backing = BUF_BACKING_HEAP});
    pair->header_pools[side] =
        buf_pool_new(&(struct buf_pool_options){.data_size = STACK_HEADER_SIZE,
                                                .count_max = options->header_max,
                                                .backing = BUF_BACKING_HEAP});
    pair->clone_pools[side] = buf_pool_new(
        &(struct buf_pool_options){.data_size = 1, .count_max = 4096, .backing = BUF_BACKING_HEAP});
    link_sim_attach(
        pair->link,
        &(struct link_sim_station_options){.mac = {2, 0, 0, 0, 0, (uint8_t)(side + 1)},
                                           .mtu_max = options->mtu,
                                           .offloads = options->offloads,
                                           .segments_max = options->segments_max,
                                           .split = options->split,
                                           .refuse = side == PAIR_A ? options->refuse : 0,
                                           .pools = {pair->pools[side]},
                                           .path = options->paths[side]},
        &nic);
    const struct stack_port_options port = {
        .nic = nic, .mtu = options->mtu, .addresses = &address, .address_count = 1};
    const struct stack_options stack_options = {
        .pool = pair->pools[side],
        .header_pool = pair->header_pools[side],
        .clone_pool = pair->clone_pools[side],
        .receive_pool = pair->pools[side],
        .receive_reserve = options->receive_reserve,
        .ports = &port,
        .port_count = 1,
        .flow_count_max = options->flow_max,
        .time_wait_max = 64,
        .syn_cache_max = 256,
        .neighbour_max = 8,
        .destination_max = 8,
        .connections_per_prefix_max = 1000,
        .orphan_time = options->orphan_time,
        .now = pair->now,
        .seed = {options->seed + side, 11},
        .core_count = 1,
        .tcp = options->policy[side] == NULL ? policy : *options->policy[side],
    };
    assert_int_equal(ERR_OK, stack_new(&stack_options, &pair->stacks[side]));
    pair->planes[side] = stack_plane(pair->stacks[side]);
}

static void options_complete(struct pair_options *options)
{
    const struct pair_options defaults = {.family = FLOW_FAMILY_IP4,
                                          .offloads = NIC_TX_MULTI_SEGMENT,
                                          .mtu = 1500,
                                          .pool_size = 2048,
                                          .pool_max = 4096,
                                          .flow_max = 64,
                                          .header_max = 1024,
                                          .orphan_time = TICK_S(20)};
#define DEFAULT(member) options->member = options->member == 0 ? defaults.member : options->member
    DEFAULT(family);
    DEFAULT(offloads);
    DEFAULT(mtu);
    DEFAULT(pool_size);
    DEFAULT(pool_max);
    DEFAULT(flow_max);
    DEFAULT(header_max);
    DEFAULT(orphan_time);
#undef DEFAULT
}

struct pair *pair_new(const struct pair_options *options)
{
    struct pair *pair = calloc(1, sizeof(*pair));

    assert_non_null(pair);
    pair->options = *options;
    options_complete(&pair->options);
    pair->now = START;
    pair->segments = calloc(PAIR_SEGMENTS_MAX, sizeof(*pair->segments));
    assert_non_null(pair->segments);
    pair->link = link_sim_new(options->seed);
    link_sim_set_filter(pair->link, pair_filter, pair);
    side_new(pair, PAIR_A);
    side_new(pair, PAIR_B);
    if (!options->is_fresh)
        pair_run(pair, DETECT_TIME);
    return pair;
}

void pair_free(struct pair *pair)
{
    for (uint32_t i = 0; i < 2; i++) {
        flow_plane_free(pair->planes[i]);
        buf_pool_free(pair->pools[i]);
        buf_pool_free(pair->header_pools[i]);
        buf_pool_free(pair->clone_pools[i]);
    }
    link_sim_free(pair->link);
    free(pair->segments);
    free(pair);
}

/* ---- turns ---- */

static void side_turn(struct pair *pair, enum pair_side side)
{
    struct flow_event events[16];
    uint32_t count = flow_poll(pair->planes[side], pair->now, events, COUNT_OF(events));

    for (uint32_t i = 0; i < count; i++) {
        assert_true(events[i].user < PAIR_USERS);
        pair->seen[side][events[i].user] |= events[i].events;
    }
    flow_flush(pair->planes[side], pair->now);
    stack_verify(pair->stacks[side]);
}

void pair_turn(struct pair *pair)
{
    tick_us next = pair->now + TICK_MS(1);

    side_turn(pair, PAIR_A);
    side_turn(pair, PAIR_B);
    for (uint32_t i = 0; i < 2; i++) {
        tick_us at = flow_deadline(pair->planes[i]);
        next = at < next ? at : next;
    }
    pair->now = next > pair->now ? next : pair->now + 1;
}

void pair_run(struct pair *pair, tick_us time)
{
    tick_us end = pair->now + time;

    for (uint32_t i = 0; i < TURNS_MAX && pair->now < end; i++)
        pair_turn(pair);
    assert_true(pair->now >= end);
}

bool pair_wait(struct pair *pair, enum pair_side side, uint32_t user, uint32_t events, tick_us time)
{
    tick_us end = pair->now + time;

    while (pair->now < end && (pair->seen[side][user] & events) != events)
        pair_turn(pair);
    return (pair->seen[side][user] & events) == events;
}

/* ---- connections ---- */

void pair_listen(struct pair *pair)
{
    const struct flow_listen_options options = {.address = pair_address(pair, PAIR_B, 25),
                                                .receive_limit = pair->options.receive_limit,
                                                .send_limit = pair->options.send_limit,
                                                .user = PAIR_LISTENER};
    assert_int_equal(ERR_OK, flow_listen(pair->planes[PAIR_B], &options, &pair->listener));
}

void pair_connect(struct pair *pair)
{
    const struct flow_connect_options options = {.remote = pair_address(pair, PAIR_B, 25),
                                                 .deadline = pair->now + TICK_S(60),
                                                 .receive_limit = pair->options.receive_limit,
                                                 .send_limit = pair->options.send_limit,
                                                 .user = PAIR_USER};
    struct flow_address peer;

    if (flow_is_none(pair->listener))
        pair_listen(pair);
    pair->seen[PAIR_A][PAIR_USER] = pair->seen[PAIR_B][PAIR_USER] = 0;
    assert_int_equal(ERR_OK, flow_connect(pair->planes[PAIR_A], &options, &pair->flows[PAIR_A]));
    tick_us end = pair->now + TICK_S(60);
    enum err err = ERR_AGAIN;
    while (err == ERR_AGAIN && pair->now < end) {
        pair_turn(pair);
        err = flow_accept(pair->planes[PAIR_B], pair->listener, PAIR_USER, &pair->flows[PAIR_B],
                          &peer);
    }
    assert_int_equal(ERR_OK, err);
    assert_true(pair_wait(pair, PAIR_A, PAIR_USER, FLOW_CONNECTED, TICK_S(60)));
}

struct tcb *pair_tcb(struct pair *pair, enum pair_side side)
{
    struct flow_slot *slot = flow_core_find(&pair->stacks[side]->core, pair->flows[side]);
    assert_non_null(slot);
    return tcb_of(slot);
}

void pair_send(struct pair *pair, enum pair_side side, uint32_t from, uint32_t size)
{
    uint8_t octets[CHUNK];
    struct buf_queue queue;

    buf_queue_init(&queue);
    while (size > 0) {
        uint32_t part = size < CHUNK ? size : CHUNK;
        for (uint32_t i = 0; i < part; i++)
            octets[i] = pair_octet(from + i);
        assert_int_equal(ERR_OK,
                         buf_queue_append_copy(&queue, pair->pools[side], span_of(octets, part)));
        from += part;
        size -= part;
    }
    flow_append(pair->planes[side], pair->flows[side], &queue);
    buf_queue_fini(&queue);
}

uint32_t pair_receive(struct pair *pair, enum pair_side side, uint32_t from)
{
    struct flow_plane *plane = pair->planes[side];
    uint32_t total = 0, size;

    while ((size = flow_readable(plane, pair->flows[side])) > 0) {
        struct span octets =
            flow_pull(plane, pair->flows[side], size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        for (uint32_t i = 0; i < octets.size; i++)
            assert_int_equal(pair_octet(from + total + i), octets.data[i]);
        total += octets.size;
        flow_consume(plane, pair->flows[side], octets.size);
    }
    return total;
}

uint64_t pair_count(const struct pair *pair, enum pair_side side, enum stack_counter counter)
{
    return stack_counter(pair->stacks[side], counter);
}
