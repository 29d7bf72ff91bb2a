/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Planes of the simulated network as stacks of the engine on a simulated link.
 *
 * Every host is a station of the link with one stack per core; hosts come and go with their planes.
 * All addresses are on one link (their prefixes have no bits). What the seed wants to go wrong is
 * translated: latencies and lost, doubled datagrams become those of packets; a stream that is to be
 * lost gets a RST from somewhere in between; one that is to fall silent is never let through again;
 * SYNs and datagrams into a black hole vanish.
 *
 * One party needs a datagram flow that takes from anybody (the resolver). flow.h has none, so its
 * datagrams are taken out of the frames in front of its stack, and its answers are written as
 * frames.
 *
 * Limits: HOST_MAX hosts alive, MUTE_MAX silent connections (then the oldest speaks again).
 */
#include "tests/sim/net_wire.h"

#include <stdlib.h>

#include "dataplane/wire/port/link_sim.h"
#include "dataplane/wire/port/link_sim_frame.h"
#include "dataplane/wire/stack.h"
#include "tests/sim/net_sim_internal.h"

#define HOST_MAX     48u
#define MUTE_MAX     64u
#define INBOX_MAX    256u
#define FRAME_SIZE   1600u
#define HEADERS      28u /* IPv4 and UDP */
#define L2           14u
#define LOSS_SHARE   4u /* of the share of lost datagrams: TCP sends many more packets */
#define MTU_LEAST    576u
#define MTU_MOST     1500u
#define TCP_RST_FLAG 0x04u
#define TCP_SYN_FLAG 0x02u
#define SEGMENTS     40u

struct wire_host;

struct wire_nic {   /* in front of the link's, to see its end and to take datagrams out */
    struct nic nic; /* first */
    struct nic *inner;
    struct wire_host *host;
};

struct wire_datagram {
    struct flow_address from;
    uint8_t mac[6];
    uint16_t size;
    uint8_t octets[FRAME_SIZE];
};

struct wire_member {
    struct wire_nic *nic;     /* NULL once the stack has freed it */
    struct flow_plane *plane; /* NULL: not made yet, or gone */
    struct buf_pool *header_pool, *clone_pool, *receive_pool;
};

struct wire_host {
    struct net_wire *wire;
    bool is_used;
    uint32_t station, core_count;
    uint8_t mac[6];
    struct wire_member members[LINK_SIM_QUEUE_MAX];
    struct flow_address bound; /* family NONE: no datagrams are taken out */
    struct wire_datagram inbox[INBOX_MAX];
    uint32_t inbox_head, inbox_count;
    struct wire_datagram looked_at;
};

struct wire_mute { /* both ways */
    uint8_t ips[8];
    uint16_t ports[2];
};

struct net_wire {
    struct net_sim *sim;
    struct link_sim *link;
    struct rng rng;
    struct wire_host hosts[HOST_MAX];
    struct wire_host *last; /* the host whose further cores are made next */
    struct link_sim_path path;
    struct wire_mute mutes[MUTE_MAX];
    uint32_t mute_count;
};

static uint16_t get16(const uint8_t *octets)
{
    return (uint16_t)(octets[0] << 8 | octets[1]);
}

static void put16(uint8_t *octets, uint32_t value)
{
    octets[0] = (uint8_t)(value >> 8);
    octets[1] = (uint8_t)value;
}

/* ---- nics ---- */

static struct wire_nic *wire_nic_of(struct nic *nic)
{
    return (struct wire_nic *)(void *)nic;
}

/* True: it was a datagram for the bound address, and is in the inbox or lost. */
static bool divert(struct wire_host *host, struct buf *frame)
{
    struct link_frame map;
    const uint8_t *octets = buf_data(frame), *ip = octets + L2;

    if (host->bound.family == FLOW_FAMILY_NONE || frame->mbuf.next != NULL ||
        !link_frame_parse(span_of(octets, buf_size(frame)), false, &map) || map.family != 4 ||
        map.protocol != 17 || !map.has_l4 || get16(octets + map.l4 + 2) != host->bound.port)
        return false;
    uint32_t size = map.end - map.l4 - 8;
    if (host->inbox_count == INBOX_MAX || size > FRAME_SIZE ||
        !link_frame_ip4_is_good(octets, &map) || !link_frame_l4_is_good(octets, &map))
        return true;
    struct wire_datagram *datagram =
        &host->inbox[(host->inbox_head + host->inbox_count++) % INBOX_MAX];
    datagram->from =
        (struct flow_address){.family = FLOW_FAMILY_IP4, .port = get16(octets + map.l4)};
    memcpy(datagram->from.ip, ip + 12, 4);
    memcpy(datagram->mac, octets + 6, 6);
    memcpy(datagram->octets, octets + map.l4 + 8, size);
    datagram->size = (uint16_t)size;
    return true;
}

static uint32_t wire_receive(struct nic *base, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct wire_nic *nic = wire_nic_of(base);
    uint32_t count = nic_receive(nic->inner, now, ret_frames, max), kept = 0;

    for (uint32_t i = 0; i < count; i++) {
        if (divert(nic->host, ret_frames[i]))
            buf_release_chain(ret_frames[i]);
        else
            ret_frames[kept++] = ret_frames[i];
    }
    return kept;
}

static uint32_t wire_send(struct nic *base, tick_us now, struct buf **frames, uint32_t count)
{
    return nic_send(wire_nic_of(base)->inner, now, frames, count);
}

static void wire_pass(struct nic *base, uint16_t queue, struct buf *frame)
{
    nic_pass(wire_nic_of(base)->inner, queue, frame);
}

static tick_us wire_deadline(struct nic *base)
{
    return nic_deadline(wire_nic_of(base)->inner);
}

static void wire_nic_free(struct nic *base)
{
    struct wire_nic *nic = wire_nic_of(base);

    for (uint32_t i = 0; i < nic->host->core_count; i++) {
        if (nic->host->members[i].nic == nic) {
            nic->host->members[i].nic = NULL;
            nic->host->members[i].plane = NULL;
        }
    }
    nic_free(nic->inner);
    free(nic);
}

static const struct nic_ops wire_ops = {
    .receive = wire_receive,
    .send = wire_send,
    .pass = wire_pass,
    .deadline = wire_deadline,
    .free = wire_nic_free,
};

static struct wire_nic *wire_nic_new(struct wire_host *host, struct nic *inner)
{
    struct wire_nic *nic = calloc(1, sizeof(*nic));
    CHECK(nic != NULL);

    nic->nic = *inner;
    nic->nic.ops = &wire_ops;
    nic->inner = inner;
    nic->host = host;
    return nic;
}

/* ---- hosts ---- */

static bool host_is_alive(const struct wire_host *host)
{
    for (uint32_t i = 0; host->is_used && i < host->core_count; i++) {
        if (host->members[i].nic != NULL)
            return true;
    }
    return false;
}

/* What is left of hosts whose last stack is gone. */
static void hosts_reap(struct net_wire *wire)
{
    for (uint32_t i = 0; i < HOST_MAX; i++) {
        struct wire_host *host = &wire->hosts[i];
        if (!host->is_used || host_is_alive(host))
            continue;
        for (uint32_t j = 0; j < host->core_count; j++) {
            buf_pool_free(host->members[j].header_pool);
            buf_pool_free(host->members[j].clone_pool);
            buf_pool_free(host->members[j].receive_pool);
        }
        host->is_used = false;
    }
}

static struct buf_pool *pool_new(uint32_t data_size)
{
    return buf_pool_new(&(struct buf_pool_options){
        .data_size = data_size, .count_max = 65536, .backing = BUF_BACKING_HEAP});
}

static void host_station(struct net_wire *wire, struct wire_host *host)
{
    struct link_sim_station_options options = {.queue_count = host->core_count,
                                               .segments_max = SEGMENTS,
                                               .offloads = NIC_TX_MULTI_SEGMENT,
                                               .path = wire->path};
    struct nic *nics[LINK_SIM_QUEUE_MAX];

    memcpy(options.mac, host->mac, sizeof(options.mac));
    options.steering = rng_below(&wire->rng, 2) == 0 ? LINK_SIM_RSS : LINK_SIM_NO_RSS;
    options.mtu_max = (uint16_t)(MTU_LEAST + rng_below(&wire->rng, MTU_MOST - MTU_LEAST + 1));
    if (rng_below(&wire->rng, 2) == 0)
        options.offloads |= NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_UDP_CHECKSUM |
                            NIC_TX_TSO | NIC_RX_CHECKSUM;
    for (uint32_t i = 0; i < host->core_count; i++) {
        struct wire_member *member = &host->members[i];
        member->header_pool = pool_new(STACK_HEADER_SIZE);
        member->clone_pool = pool_new(1);
        member->receive_pool = pool_new(2048);
        options.pools[i] = member->receive_pool;
    }
    host->station = link_sim_attach(wire->link, &options, nics);
    for (uint32_t i = 0; i < host->core_count; i++)
        host->members[i].nic = wire_nic_new(host, nics[i]);
}

static struct wire_host *host_new(struct net_wire *wire, uint32_t core_count,
                                  const struct flow_address *address)
{
    uint32_t index = 0;

    hosts_reap(wire);
    while (index < HOST_MAX && wire->hosts[index].is_used)
        index++;
    CHECK(index < HOST_MAX && core_count <= LINK_SIM_QUEUE_MAX);
    struct wire_host *host = &wire->hosts[index];
    *host = (struct wire_host){.wire = wire, .is_used = true, .core_count = core_count};
    host->mac[0] = 2;
    memcpy(host->mac + 2, address->ip, 4);
    host_station(wire, host);
    return host;
}

static struct wire_host *host_of(struct net_wire *wire, const struct flow_plane *plane)
{
    for (uint32_t i = 0; i < HOST_MAX; i++) {
        for (uint32_t j = 0; j < wire->hosts[i].core_count; j++) {
            if (wire->hosts[i].is_used && wire->hosts[i].members[j].plane == plane)
                return &wire->hosts[i];
        }
    }
    CHECK(!"a plane is of a host");
    return NULL;
}

/* ---- planes ---- */

/* One thread: the sibling is not at work, so it may hear at once. */
static void on_news(void *context, const struct stack_news *news)
{
    struct wire_host *host = context;

    for (uint32_t i = 0; i < host->core_count; i++) {
        if (host->members[i].plane != NULL)
            stack_on_news(stack_of_plane(host->members[i].plane), news);
    }
}

static uint32_t addresses_fill(const struct net_sim_plane_options *options,
                               struct stack_address *ret_addresses)
{
    uint32_t count = 0;

    CHECK(options->address_count < STACK_ADDRESS_MAX);
    ret_addresses[count] = (struct stack_address){options->address4, 0};
    ret_addresses[count++].address.port = 0;
    for (uint32_t i = 0; i < options->address_count; i++)
        ret_addresses[count++] = (struct stack_address){options->addresses[i], 0};
    return count;
}

struct flow_plane *net_wire_plane_new(struct net_wire *wire,
                                      const struct net_sim_plane_options *options)
{
    struct stack_address addresses[STACK_ADDRESS_MAX];
    uint32_t core_count = options->core_count == 0 ? 1 : options->core_count;
    struct stack *stack;

    if (options->core == 0)
        wire->last = host_new(wire, core_count, &options->address4);
    struct wire_host *host = wire->last;
    CHECK(host->core_count == core_count && options->core < core_count);
    struct wire_member *member = &host->members[options->core];
    struct stack_port_options port = {.nic = &member->nic->nic,
                                      .addresses = addresses,
                                      .address_count = addresses_fill(options, addresses)};
    struct stack_options stack_options = {.pool = options->pool,
                                          .header_pool = member->header_pool,
                                          .clone_pool = member->clone_pool,
                                          .receive_pool = member->receive_pool,
                                          .ports = &port,
                                          .port_count = 1,
                                          .flow_count_max = options->flow_count_max,
                                          .time_wait_max = 4096,
                                          .syn_cache_max = 1024,
                                          .neighbour_max = 128,
                                          .destination_max = 1024,
                                          .orphan_time = options->orphan_time,
                                          .now = net_sim_now(wire->sim),
                                          .core = (uint16_t)options->core,
                                          .core_count = (uint16_t)core_count,
                                          .tcp = tcp_policy_default(),
                                          .context = host,
                                          .on_news = core_count > 1 ? on_news : NULL};
    stack_options.seed[0] = rng_u64(&wire->rng);
    stack_options.seed[1] = rng_u64(&wire->rng);
    CHECK(stack_new(&stack_options, &stack) == ERR_OK);
    member->plane = stack_plane(stack);
    return member->plane;
}

void net_wire_silence(struct net_wire *wire, struct flow_plane *plane)
{
    link_sim_set_connected(wire->link, host_of(wire, plane)->station, false);
}

tick_us net_wire_deadline(struct net_wire *wire)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < HOST_MAX; i++) {
        struct wire_host *host = &wire->hosts[i];
        for (uint32_t j = 0; host->is_used && j < host->core_count; j++) {
            if (host->members[j].plane == NULL)
                continue;
            tick_us own = flow_deadline(host->members[j].plane);
            deadline = own < deadline ? own : deadline;
        }
        if (host_is_alive(host) && host->inbox_count > 0)
            deadline = 0;
    }
    return deadline;
}

/* ---- datagrams for a party that takes from anybody ---- */

void net_wire_bind(struct net_wire *wire, struct flow_plane *plane,
                   const struct flow_address *local)
{
    host_of(wire, plane)->bound = *local;
}

enum err net_wire_receive(struct net_wire *wire, struct flow_plane *plane,
                          struct flow_address *ret_from, struct span *ret_octets)
{
    struct wire_host *host = host_of(wire, plane);

    if (host->inbox_count == 0)
        return ERR_AGAIN;
    host->looked_at = host->inbox[host->inbox_head];
    host->inbox_head = (host->inbox_head + 1) % INBOX_MAX;
    host->inbox_count--;
    *ret_from = host->looked_at.from;
    *ret_octets = span_of(host->looked_at.octets, host->looked_at.size);
    return ERR_OK;
}

static void datagram_frame(struct wire_host *host, const struct flow_address *from,
                           const struct flow_address *to, struct span octets)
{
    struct buf *frame = buf_acquire(host->members[0].receive_pool);
    struct link_frame map;
    CHECK(frame != NULL && octets.size + L2 + HEADERS <= buf_room(frame));
    uint8_t *data = buf_data(frame), *ip = data + L2;

    memset(data, 0, L2 + HEADERS);
    memcpy(data, host->looked_at.mac, 6); /* back to whoever asked */
    memcpy(data + 6, host->mac, 6);
    put16(data + 12, 0x0800);
    ip[0] = 0x45;
    put16(ip + 2, HEADERS + octets.size);
    ip[8] = 64;
    ip[9] = 17;
    memcpy(ip + 12, from->ip, 4);
    memcpy(ip + 16, to->ip, 4);
    put16(ip + 20, from->port);
    put16(ip + 22, to->port);
    put16(ip + 24, 8 + octets.size);
    memcpy(ip + HEADERS, octets.data, octets.size);
    buf_extend(frame, L2 + HEADERS + octets.size);
    CHECK(link_frame_parse(span_of(data, buf_size(frame)), false, &map));
    link_frame_complete(data, &map, true, true);
    if (nic_send(host->members[0].nic->inner, net_sim_now(host->wire->sim), &frame, 1) == 0)
        buf_release(frame);
}

void net_wire_send(struct net_wire *wire, struct flow_plane *plane, const struct flow_address *from,
                   const struct flow_address *to, struct span octets)
{
    struct wire_host *host = host_of(wire, plane);
    struct flow_address forged = *from;

    if (octets.size + HEADERS > MTU_LEAST)
        return; /* too long for somebody's link: it would come in fragments, which are dropped */
    datagram_frame(host, from, to, octets);
    forged.port ^= 1;
    if (net_sim_chance(wire->sim, wire->sim->faults.forge_datagram))
        datagram_frame(host, &forged, to, octets);
}

/* ---- what goes wrong in between ---- */

static bool is_mute(const struct net_wire *wire, const uint8_t *ip, const uint8_t *l4)
{
    for (uint32_t i = 0; i < wire->mute_count && i < MUTE_MAX; i++) {
        const struct wire_mute *mute = &wire->mutes[i];
        bool is_forward = memcmp(mute->ips, ip + 12, 8) == 0 && mute->ports[0] == get16(l4) &&
                          mute->ports[1] == get16(l4 + 2);
        bool is_back = memcmp(mute->ips, ip + 16, 4) == 0 &&
                       memcmp(mute->ips + 4, ip + 12, 4) == 0 && mute->ports[0] == get16(l4 + 2) &&
                       mute->ports[1] == get16(l4);
        if (is_forward || is_back)
            return true;
    }
    return false;
}

static void mute_add(struct net_wire *wire, const uint8_t *ip, const uint8_t *l4)
{
    struct wire_mute *mute = &wire->mutes[wire->mute_count++ % MUTE_MAX];

    memcpy(mute->ips, ip + 12, 8);
    mute->ports[0] = get16(l4);
    mute->ports[1] = get16(l4 + 2);
}

/* A segment with octets may be the one at which its stream breaks. */
static bool segment_passes(struct net_wire *wire, uint8_t *octets, const struct link_frame *map)
{
    const struct net_sim_faults *faults = &wire->sim->faults;
    uint8_t *ip = octets + map->l3, *l4 = octets + map->l4;

    if (is_mute(wire, ip, l4))
        return false;
    if (map->end - map->l4 <= (l4[12] >> 4) * 4u)
        return true;
    if (net_sim_chance(wire->sim, faults->mute_stream)) {
        mute_add(wire, ip, l4);
        return false;
    }
    if (net_sim_chance(wire->sim, faults->lose_stream)) {
        l4[13] |= TCP_RST_FLAG;
        link_frame_complete(octets, map, false, true);
    }
    return true;
}

static bool wire_filter(void *context, uint32_t station, tick_us now, uint8_t *octets,
                        uint32_t size)
{
    struct net_wire *wire = context;
    struct flow_address to = {.family = FLOW_FAMILY_IP4};
    struct link_frame map;

    (void)station;
    (void)now;
    if (!link_frame_parse(span_of(octets, size), false, &map) || map.family != 4 || !map.has_l4)
        return true;
    bool is_tcp = map.protocol == 6 && map.end - map.l4 >= 20;
    memcpy(to.ip, octets + map.l3 + 16, 4);
    if ((!is_tcp || octets[map.l4 + 13] & TCP_SYN_FLAG) && net_sim_is_black_hole(wire->sim, &to))
        return false;
    return !is_tcp || segment_passes(wire, octets, &map);
}

void net_wire_set_faults(struct net_wire *wire, const struct net_sim_faults *faults)
{
    wire->path = (struct link_sim_path){.delay = faults->latency_min,
                                        .jitter = faults->latency_max - faults->latency_min,
                                        .lose = faults->lose_datagram / LOSS_SHARE,
                                        .duplicate = faults->double_datagram / LOSS_SHARE};
    for (uint32_t i = 0; i < HOST_MAX; i++) {
        if (host_is_alive(&wire->hosts[i]))
            link_sim_set_path(wire->link, wire->hosts[i].station, &wire->path);
    }
}

uint64_t net_wire_fingerprint(const struct net_wire *wire)
{
    return link_sim_fingerprint(wire->link);
}

struct net_wire *net_wire_new(struct net_sim *sim, uint64_t seed)
{
    struct net_wire *wire = calloc(1, sizeof(*wire));
    CHECK(wire != NULL);

    wire->sim = sim;
    rng_init_seed(&wire->rng, seed);
    wire->link = link_sim_new(rng_u64(&wire->rng));
    link_sim_set_filter(wire->link, wire_filter, wire);
    return wire;
}

void net_wire_free(struct net_wire *wire)
{
    hosts_reap(wire);
    for (uint32_t i = 0; i < HOST_MAX; i++)
        CHECK(!wire->hosts[i].is_used);
    link_sim_free(wire->link);
    free(wire);
}
