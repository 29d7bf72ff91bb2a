/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of a seed: hosts, policies, offloads, paths, connections.
 *
 * Everything is drawn wide, and most things are left as usual in half of the seeds, so that one
 * strange thing at a time meets everything else as often as many at once. What cannot end well by
 * itself is not drawn together: a path that loses much and eats large packets silently needs longer
 * than a connection lives.
 */
#include "tests/sim/sim_wire.h"

#define PORT          25u
#define HEAL_MAX      TICK_S(25)
#define START         TICK_S(4) /* duplicate address detection is over */
#define SIZE_USUAL    200000u
#define ECHO_READ_MAX 100000u /* segments stay whole */
#define SIZE_LARGE    2000000u
#define USER_TIME     TICK_S(600)
#define MTU_MIN4      600u
#define MTU_MIN6      1280u

static uint32_t draw(struct sim_wire *sim, uint32_t bound)
{
    return rng_below(&sim->rng, bound);
}

static uint32_t draw_between(struct sim_wire *sim, uint32_t least, uint32_t most)
{
    return least + draw(sim, most - least + 1);
}

static bool one_in(struct sim_wire *sim, uint32_t n)
{
    return draw(sim, n) == 0;
}

/* Small numbers as often as large ones. */
static uint32_t draw_log(struct sim_wire *sim, uint32_t least, uint32_t most)
{
    uint32_t bits = 0;

    while (bits < 31 && least << bits < most && least << bits >= least)
        bits++;
    uint32_t bound = least << draw(sim, bits + 1);
    uint32_t value = draw_between(sim, least, bound < least || bound > most ? most : bound);
    return value;
}

/* ---- policy ---- */

static void draw_policy(struct sim_wire *sim, struct tcp_policy *policy)
{
    *policy = tcp_policy_default();
    policy->user_time = USER_TIME;
    policy->has_sack = !one_in(sim, 4);
    policy->has_timestamps = !one_in(sim, 4);
    policy->has_window_scale = !one_in(sim, 4);
    policy->has_ecn = one_in(sim, 2);
    policy->is_newreno = one_in(sim, 3);
    if (one_in(sim, 2)) {
        policy->receive_window_start = draw_log(sim, 1000, 65535);
        policy->receive_window_max = draw_log(sim, policy->receive_window_start, 1u << 22);
        policy->window_scale_max = (uint8_t)draw(sim, 15);
    }
    if (one_in(sim, 2)) {
        policy->send_window_max = draw_log(sim, 3000, 1u << 22);
        policy->initial_window = draw_between(sim, 1, 20);
        policy->mss_min = (uint16_t)draw_between(sim, 64, 536);
    }
    if (one_in(sim, 2)) {
        policy->rto_min = TICK_MS(draw_log(sim, 5, 1000));
        policy->rto_initial = policy->rto_min + TICK_MS(draw(sim, 2000));
        policy->rto_max = TICK_S(draw_between(sim, 4, 60));
        policy->delayed_ack_time = TICK_MS(draw(sim, 200));
        policy->quick_acks = draw(sim, 17);
    }
    if (one_in(sim, 3)) {
        policy->out_of_order_segments_max = draw_log(sim, 2, 2048);
        /* Less than two buffers, and every reordering is a time-out. */
        policy->out_of_order_octets_max = draw_log(sim, 10000, 1u << 22);
    }
    policy->time_wait_time = TICK_S(draw_between(sim, 1, 60));
    policy->challenge_acks_per_second = draw_between(sim, 1, 10);
}

/* ---- hosts ---- */

static void draw_card(struct sim_wire *sim, struct link_sim_station_options *station)
{
    station->segments_max = (uint16_t)draw_between(sim, 2, 40);
    station->tso_size_max = draw_between(sim, 9100, 65000);
    station->offloads |= draw(sim, 2) * NIC_TX_MULTI_SEGMENT | draw(sim, 2) * NIC_TX_TCP_CHECKSUM |
                         draw(sim, 2) * NIC_TX_UDP_CHECKSUM | draw(sim, 2) * NIC_TX_IP4_CHECKSUM |
                         draw(sim, 2) * NIC_RX_CHECKSUM;
    /* No card segments what it does not checksum. */
    if ((station->offloads & NIC_TX_TCP_CHECKSUM) && (station->offloads & NIC_TX_IP4_CHECKSUM))
        station->offloads |= draw(sim, 2) * NIC_TX_TSO;
    station->has_partial = one_in(sim, 3);
    station->has_exception = one_in(sim, 3);
    station->refuse = one_in(sim, 3) ? draw(sim, 300000) : 0;
    station->split =
        one_in(sim, 3) ? (uint16_t)draw_log(sim, 64u + station->mtu_max / 30u, 2000) : 0;
}

static void draw_pools(struct sim_wire *sim, struct sim_host *host, uint16_t mtu)
{
    bool is_tight = one_in(sim, 4);

    host->buffer_size = draw_between(sim, 500, 4000);
    if (!(host->station.offloads & NIC_TX_MULTI_SEGMENT) ||
        host->buffer_size * (host->station.segments_max - 1u) < mtu)
        host->buffer_size += mtu;
    host->receive_size = draw_between(sim, 512, 3000);
    host->pool_size[0] = is_tight ? draw_between(sim, 1000, 4000) : 40000;
    host->pool_size[1] = is_tight ? draw_between(sim, 300, 1000) : 20000;
    host->pool_size[2] = is_tight ? draw_between(sim, 300, 1000) : 40000;
    host->pool_size[3] = is_tight ? draw_between(sim, 600, 2000) : 40000;
    host->stack.receive_reserve = one_in(sim, 2) ? draw(sim, host->pool_size[3] / 2) : 0;
}

static struct flow_address address_draw(uint8_t family, uint8_t last)
{
    if (family == FLOW_FAMILY_IP4)
        return (struct flow_address){.family = family, .ip = {192, 0, 2, last}};
    return (struct flow_address){.family = family, .ip = {0x20, 1, 0x0d, 0xb8, [15] = last}};
}

static void draw_host(struct sim_wire *sim, uint32_t index, uint8_t family, uint32_t offloads,
                      uint16_t vlan)
{
    static const uint16_t mtus[] = {1280, 1500, 1500, 1500, 4000, 9000};
    struct sim_host *host = &sim->hosts[index];
    uint16_t mtu = mtus[draw(sim, COUNT_OF(mtus))];

    if (one_in(sim, 4))
        mtu = (uint16_t)draw_between(sim, family == FLOW_FAMILY_IP4 ? MTU_MIN4 : MTU_MIN6, 2000);
    host->mac[0] = 2;
    host->mac[5] = (uint8_t)(index + 1);
    host->address = address_draw(family, (uint8_t)(index + 1));
    host->stack_count = one_in(sim, 3) ? 2 : 1;
    host->station = (struct link_sim_station_options){.mtu_max = mtu, .offloads = offloads};
    memcpy(host->station.mac, host->mac, 6);
    host->station.queue_count = host->stack_count;
    host->station.steering = one_in(sim, 2) ? LINK_SIM_NO_RSS : LINK_SIM_RSS;
    host->station.misplace = host->stack_count > 1 && one_in(sim, 3) ? draw(sim, 200000) : 0;
    draw_card(sim, &host->station);
    host->local[0] = (struct stack_address){host->address, family == FLOW_FAMILY_IP4 ? 24 : 64};
    host->port = (struct stack_port_options){
        .mtu = mtu, .vlan = vlan, .addresses = host->local, .address_count = 1};
    host->stack = (struct stack_options){.flow_count_max = 512,
                                         .time_wait_max = draw_log(sim, 4, 1024),
                                         .syn_cache_max = draw_log(sim, 8, 1024),
                                         .neighbour_max = 16,
                                         .destination_max = 16,
                                         .orphan_time = TICK_S(600)};
    draw_policy(sim, &host->stack.tcp);
    draw_pools(sim, host, mtu);
    host->receive_limit = one_in(sim, 3) ? draw_log(sim, 2000, 200000) : 0;
}

/* ---- paths ---- */

static void draw_faults(struct sim_wire *sim, struct link_sim_path *path)
{
    path->lose = one_in(sim, 2) ? draw(sim, one_in(sim, 5) ? 150000 : 30000) : 0;
    if (one_in(sim, 4)) {
        path->burst_begin = draw(sim, 10000);
        path->burst_end = draw_between(sim, 50000, 500000);
        path->burst_lose = draw(sim, 900000);
    }
    path->corrupt = one_in(sim, 2) ? draw(sim, 20000) : 0;
    path->duplicate = one_in(sim, 2) ? draw(sim, 50000) : 0;
    if (one_in(sim, 2)) {
        path->reorder = draw(sim, 100000);
        path->reorder_delay = TICK_MS(draw_log(sim, 1, 100));
    }
}

static void draw_path(struct sim_wire *sim, uint8_t family, struct link_sim_path *path)
{
    path->delay = one_in(sim, 4) ? draw(sim, 200) : TICK_MS(draw_log(sim, 1, 100));
    path->jitter = one_in(sim, 2) ? draw(sim, (uint32_t)path->delay + 1) : 0;
    if (one_in(sim, 2)) {
        path->rate = draw_log(sim, 100000, 100000000);
        path->queue_max = draw_log(sim, 20000, 400000);
        path->mark_over = one_in(sim, 2) ? path->queue_max / 4 : 0;
    }
    if (one_in(sim, 5)) {
        path->mtu =
            (uint16_t)draw_between(sim, family == FLOW_FAMILY_IP4 ? MTU_MIN4 : MTU_MIN6, 1500);
        path->has_icmp = !one_in(sim, 3);
    }
    bool is_black_hole = path->mtu > 0 && !path->has_icmp;
    if (!sim->is_gentle && !is_black_hole)
        draw_faults(sim, path);
}

void sim_wire_heal(struct sim_wire *sim)
{
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        struct link_sim_path *path = &sim->hosts[i].station.path;
        path->lose = path->burst_begin = path->burst_lose = path->corrupt = 0;
        path->duplicate = path->reorder = 0;
        path->burst_end = 1000000;
        link_sim_set_path(sim->link, sim->hosts[i].station_number, path);
    }
    sim->is_healed = true;
}

/* ---- connections ---- */

static uint64_t draw_size(struct sim_wire *sim)
{
    if (one_in(sim, 4))
        return draw(sim, 3000);
    return draw_log(sim, 1, one_in(sim, 20) ? SIZE_LARGE : SIZE_USUAL);
}

static void draw_actor(struct sim_wire *sim, struct sim_actor *actor)
{
    actor->sim = sim;
    actor->size = one_in(sim, 8) ? 0 : draw_size(sim);
    actor->chunk = draw_log(sim, 1, 20000);
    if (actor->size / actor->chunk > 5000)
        actor->chunk = (uint32_t)(actor->size / 5000);
    actor->read_max = draw_log(sim, 50, 100000);
    actor->send_limit = draw_log(sim, 2000, 500000);
    actor->receive_limit = one_in(sim, 3) ? draw_log(sim, 2000, 200000) : 0;
    actor->pause_max = one_in(sim, 2) ? 0 : TICK_MS(draw_log(sim, 1, 200));
    actor->takes = one_in(sim, 3);
    actor->corks = one_in(sim, 3);
    actor->ending = SIM_END_SHUTDOWN;
    actor->abort_after = draw_log(sim, 1, SIZE_USUAL);
    buf_queue_init(&actor->taken);
}

static void draw_conn(struct sim_wire *sim, uint32_t index)
{
    struct sim_conn *conn = &sim->conns[index];
    uint32_t client = draw(sim, SIM_HOST_COUNT);

    for (uint32_t side = 0; side < 2; side++) {
        struct sim_actor *actor = &conn->actors[side];
        draw_actor(sim, actor);
        actor->conn = index;
        actor->side = side;
        actor->host = side == 0 ? client : 1 - client;
        actor->stack = draw(sim, sim->hosts[actor->host].stack_count);
    }
    if (sim_conn_echoes(index)) {
        conn->actors[1].size = conn->actors[0].size;
        conn->actors[1].read_max = ECHO_READ_MAX;
    }
    conn->actors[0].wake_at = START + draw(sim, (uint32_t)TICK_S(20));
    conn->actors[1].wake_at = TICK_NEVER;
    /* Somebody must close first. */
    if (one_in(sim, 2))
        conn->actors[draw(sim, 2)].ending = SIM_END_WAIT;
    if (one_in(sim, 8))
        conn->actors[draw(sim, 2)].ending = SIM_END_EARLY;
    if (one_in(sim, 8))
        conn->actors[draw(sim, 2)].ending = SIM_END_ABORT;
}

void sim_wire_draw(struct sim_wire *sim)
{
    uint8_t family = one_in(sim, 2) ? FLOW_FAMILY_IP4 : FLOW_FAMILY_IP6;
    uint32_t offloads = one_in(sim, 8) ? NIC_IS_L3 : 0;
    uint16_t vlan = offloads == 0 && one_in(sim, 8) ? (uint16_t)draw_between(sim, 1, 4094) : 0;

    sim->is_gentle = one_in(sim, 4);
    sim->heal_at = START + draw(sim, (uint32_t)HEAL_MAX);
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        draw_host(sim, i, family, offloads, vlan);
        draw_path(sim, family, &sim->hosts[i].station.path);
    }
    sim->conn_count = one_in(sim, 3) ? draw_between(sim, 1, 3) : draw_between(sim, 4, 30);
    for (uint32_t i = 0; i < sim->conn_count; i++)
        draw_conn(sim, i);
}
