/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hostile frames. One is made whenever the rate says so, when the stack above polls; at most
 * BURST_MAX per poll, so that a late turn does not become a burst of its own.
 */
#include "bench/wire/flood.h"

#include <stdlib.h>

#include "dataplane/wire/format/packet.h"

#define BURST_MAX    256u
#define SOURCE_FIRST 0x0a400000u /* 10.64.0.0/10 */
#define SOURCE_MASK  0x003fffffu
#define PAYLOAD_SIZE 64u

struct flood {
    struct nic nic; /* first */
    struct flood_options options;
    struct buf_pool *pool;
    struct rng rng;
    uint64_t rate, due_sent;
    tick_us began;
    uint8_t target_mac[6];
    bool has_target_mac;
    uint32_t counter; /* makes sources and sequence numbers different */
    struct flood_stats stats;
};

static struct flood *flood_of(struct nic *nic)
{
    return (struct flood *)(void *)nic;
}

enum flood_kind flood_kind_of(const char *name)
{
    static const char *const names[] = {
#define X(name, text) text,
        FLOOD_KINDS(X)
#undef X
    };
    uint32_t kind = 0;

    while (kind < FLOOD_KIND_COUNT && strcmp(names[kind], name) != 0)
        kind++;
    return (enum flood_kind)kind;
}

/* ---- frames ---- */

/* The headers up to IP, for `size` octets behind them. */
static uint8_t *frame_begin(struct flood *flood, struct buf *buf, uint32_t source, uint8_t protocol,
                            uint32_t size)
{
    struct ethernet_header ethernet = {.type = ETHERTYPE_IP4};
    struct ip_header ip = {.family = 4,
                           .protocol = protocol,
                           .ttl = 60,
                           .header_size = IP4_HEADER_SIZE,
                           .payload_size = (uint16_t)size,
                           .is_dont_fragment = true};
    uint8_t *octets = buf_data(buf);

    memcpy(ethernet.destination, flood->target_mac, 6);
    memcpy(ethernet.source, flood->options.below->mac, 6);
    store_be32(ip.source, source);
    memcpy(ip.destination, flood->options.target, 4);
    ethernet_build(&ethernet, octets);
    ip4_build(&ip, true, octets + ETHERNET_HEADER_SIZE);
    buf_extend(buf, ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + size);
    return octets + ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE;
}

static void tcp_finish(struct flood *flood, uint32_t source, uint8_t *octets, uint32_t size)
{
    uint8_t from[16] = {0}, to[16] = {0};

    store_be32(from, source);
    memcpy(to, flood->options.target, 4);
    uint16_t sum = wire_sum_finish(wire_sum_pseudo(4, from, to, IP_PROTOCOL_TCP, size) +
                                   wire_sum(octets, size));
    memcpy(octets + 16, &sum, sizeof(sum));
}

static void tcp_frame(struct flood *flood, struct buf *buf, uint32_t source,
                      const struct tcp_header *header, uint32_t payload)
{
    uint8_t built[60];
    uint32_t size = tcp_build(header, built);
    uint8_t *octets = frame_begin(flood, buf, source, IP_PROTOCOL_TCP, size + payload);

    memcpy(octets, built, size);
    memset(octets + size, 'f', payload);
    tcp_finish(flood, source, octets, size + payload);
}

static uint32_t source_draw(struct flood *flood)
{
    return SOURCE_FIRST | (rng_u32(&flood->rng) & SOURCE_MASK);
}

static struct tcp_header header_draw(struct flood *flood, uint8_t flags)
{
    uint32_t chance = rng_u32(&flood->rng);

    return (struct tcp_header){.source_port = (uint16_t)(1024 + chance % 60000),
                               .destination_port = flood->options.port,
                               .sequence = rng_u32(&flood->rng),
                               .acknowledgement = flags & TCP_ACK ? ~chance : 0,
                               .window = (uint16_t)(chance >> 16),
                               .flags = flags};
}

static void syn_frame(struct flood *flood, struct buf *buf)
{
    struct tcp_header header = header_draw(flood, TCP_SYN);
    uint32_t chance = rng_u32(&flood->rng);

    if (flood->options.kind == FLOOD_SYN_CLOSED)
        header.destination_port = (uint16_t)(flood->options.port + 1);
    header.options = (struct tcp_options){
        .has_mss = true,
        .mss = flood->options.kind == FLOOD_TINY_MSS ? 1 : 1460,
        .has_sack_permitted = chance & 1,
        .has_window_scale = chance & 2,
        .window_scale = 7,
        .has_timestamps = chance & 4 && flood->options.kind == FLOOD_SYN,
        .timestamp_value = chance,
    };
    if (flood->options.kind == FLOOD_SOCKSTRESS)
        header.window = 0;
    tcp_frame(flood, buf, source_draw(flood), &header, 0);
}

static void noise_frame(struct flood *flood, struct buf *buf)
{
    uint32_t source = source_draw(flood);
    uint8_t *octets = frame_begin(flood, buf, source, IP_PROTOCOL_TCP, 60);

    rng_fill(&flood->rng, octets, 60);
    store_be16(octets + 2, flood->options.port);
    octets[12] = 0xf0; /* the header is 60 octets: options of noise */
    memset(octets + 16, 0, 2);
    tcp_finish(flood, source, octets, 60);
}

static void fragment_frame(struct flood *flood, struct buf *buf)
{
    uint8_t *octets = frame_begin(flood, buf, source_draw(flood), IP_PROTOCOL_TCP, PAYLOAD_SIZE);
    uint8_t *ip = octets - IP4_HEADER_SIZE;
    uint16_t sum = 0;

    rng_fill(&flood->rng, octets, PAYLOAD_SIZE);
    store_be16(ip + 6, (uint16_t)(0x2000u | (flood->counter++ & 0x1fff)));
    memcpy(ip + 10, &sum, 2);
    sum = wire_sum_finish(wire_sum(ip, IP4_HEADER_SIZE));
    memcpy(ip + 10, &sum, 2);
}

static void icmp_frame(struct flood *flood, struct buf *buf)
{
    uint8_t *octets = frame_begin(flood, buf, source_draw(flood), IP_PROTOCOL_ICMP, PAYLOAD_SIZE);
    uint16_t sum = 0;

    memset(octets, 0, PAYLOAD_SIZE);
    octets[0] = ICMP_ECHO_REQUEST4;
    store_be16(octets + 6, (uint16_t)flood->counter++);
    sum = wire_sum_finish(wire_sum(octets, PAYLOAD_SIZE));
    memcpy(octets + 2, &sum, 2);
}

static void udp_frame(struct flood *flood, struct buf *buf)
{
    uint32_t chance = rng_u32(&flood->rng);
    struct udp_header header = {.source_port = (uint16_t)chance,
                                .destination_port = (uint16_t)(chance >> 16),
                                .size = UDP_HEADER_SIZE + PAYLOAD_SIZE};
    uint8_t *octets = frame_begin(flood, buf, source_draw(flood), IP_PROTOCOL_UDP, header.size);

    memset(octets, 0, header.size);
    udp_build(&header, octets); /* without a checksum, as IPv4 allows */
}

static void frame_make(struct flood *flood, struct buf *buf)
{
    struct tcp_header header;

    switch (flood->options.kind) {
    case FLOOD_ACK:
    case FLOOD_DATA:
        header = header_draw(flood, TCP_ACK);
        tcp_frame(flood, buf, source_draw(flood), &header,
                  flood->options.kind == FLOOD_DATA ? PAYLOAD_SIZE : 0);
        break;
    case FLOOD_RST:
        header = header_draw(flood, TCP_RST);
        tcp_frame(flood, buf, source_draw(flood), &header, 0);
        break;
    case FLOOD_FIN:
        header = header_draw(flood, TCP_FIN | TCP_ACK);
        tcp_frame(flood, buf, source_draw(flood), &header, 0);
        break;
    case FLOOD_XMAS:
        noise_frame(flood, buf);
        break;
    case FLOOD_FRAGMENT:
        fragment_frame(flood, buf);
        break;
    case FLOOD_ICMP:
        icmp_frame(flood, buf);
        break;
    case FLOOD_UDP:
        udp_frame(flood, buf);
        break;
    default:
        syn_frame(flood, buf);
        break;
    }
}

/* ---- what comes back ---- */

/* The answer to a SYN-ACK: the connection stands, as far as the target can see. */
static void handshake_answer(struct flood *flood, struct buf *buf, uint32_t source,
                             const struct tcp_header *from)
{
    struct tcp_header header = {.source_port = from->destination_port,
                                .destination_port = from->source_port,
                                .sequence = from->acknowledgement,
                                .acknowledgement = from->sequence + 1,
                                .window = 65535,
                                .flags = TCP_ACK | TCP_PSH};
    uint32_t payload = PAYLOAD_SIZE;

    if (flood->options.kind == FLOOD_SOCKSTRESS)
        header.window = 0;
    if (flood->options.kind == FLOOD_SEGMENTS) {
        header.sequence += 1 + 2 * (flood->counter++ % 4096); /* every second octet is missing */
        payload = 1;
    }
    tcp_frame(flood, buf, source, &header, payload);
}

static bool is_handshaking(enum flood_kind kind)
{
    return kind == FLOOD_SOCKSTRESS || kind == FLOOD_SEGMENTS || kind == FLOOD_TINY_MSS;
}

/* Send one frame that `make` fills. */
static void frame_send(struct flood *flood, tick_us now, struct buf *buf)
{
    if (nic_send(flood->options.below, now, &buf, 1) == 1) {
        flood->stats.sent++;
        return;
    }
    flood->stats.refused++;
    buf_release(buf);
}

/* True: the frame was for one of the addresses we pretend to have. */
static bool frame_is_ours(struct flood *flood, tick_us now, struct buf *frame)
{
    struct span octets = span_of(buf_data(frame), buf_size(frame));
    struct ethernet_header ethernet;
    struct ip_header ip;
    struct tcp_header tcp;

    if (ethernet_parse(octets, &ethernet) != PACKET_OK)
        return false;
    memcpy(flood->target_mac, ethernet.source, 6);
    flood->has_target_mac = true;
    if (ethernet.type != ETHERTYPE_IP4)
        return false;
    octets = span_skip(octets, ethernet.size);
    if (ip4_parse(octets, octets.size, true, &ip) != PACKET_OK ||
        (load_be32(ip.destination) & ~SOURCE_MASK) != SOURCE_FIRST)
        return false;
    if (!is_handshaking(flood->options.kind) || ip.protocol != IP_PROTOCOL_TCP ||
        tcp_parse(span_skip(octets, ip.header_size), &tcp) != PACKET_OK ||
        (tcp.flags & (TCP_SYN | TCP_ACK)) != (TCP_SYN | TCP_ACK))
        return true;
    struct buf *answer = buf_acquire(flood->pool);
    flood->stats.answered++;
    if (answer != NULL) {
        handshake_answer(flood, answer, load_be32(ip.destination), &tcp);
        frame_send(flood, now, answer);
    }
    return true;
}

static void flood_run(struct flood *flood, tick_us now)
{
    uint64_t due = flood->rate * (now - flood->began) / 1000000u;
    uint32_t count = 0;

    while (flood->due_sent < due && count++ < BURST_MAX) {
        struct buf *buf = buf_acquire(flood->pool);
        flood->due_sent++;
        if (buf == NULL)
            break;
        frame_make(flood, buf);
        frame_send(flood, now, buf);
    }
    if (flood->due_sent + 4 * BURST_MAX < due)
        flood->due_sent = due - 4 * BURST_MAX; /* what could not be kept up with is not owed */
}

/* ---- the nic ---- */

/* What the server says to the flood must not stand in the way of what it says to honest clients. */
#define DRAIN_ROUNDS 16u

static uint32_t flood_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct flood *flood = flood_of(nic);
    uint32_t kept = 0;

    for (uint32_t rounds = 0; rounds < DRAIN_ROUNDS && kept < max; rounds++) {
        uint32_t fresh = kept;
        uint32_t count = nic_receive(flood->options.below, now, ret_frames + fresh, max - fresh);

        for (uint32_t i = fresh; i < fresh + count; i++) {
            if (frame_is_ours(flood, now, ret_frames[i]))
                buf_release_chain(ret_frames[i]);
            else
                ret_frames[kept++] = ret_frames[i];
        }
        if (count == 0)
            break;
    }
    if (flood->rate > 0 && flood->has_target_mac)
        flood_run(flood, now);
    return kept;
}

static uint32_t flood_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    return nic_send(flood_of(nic)->options.below, now, frames, count);
}

static void flood_free(struct nic *nic)
{
    nic_free(flood_of(nic)->options.below);
    free(nic);
}

static const struct nic_ops flood_ops = {
    .receive = flood_receive, .send = flood_send, .free = flood_free};

struct nic *flood_new(const struct flood_options *options, struct buf_pool *pool)
{
    struct flood *flood = calloc(1, sizeof(*flood));

    CHECK(flood != NULL);
    flood->nic = *options->below;
    flood->nic.ops = &flood_ops;
    flood->options = *options;
    flood->pool = pool;
    rng_init_seed(&flood->rng, options->seed);
    return &flood->nic;
}

void flood_set_rate(struct nic *nic, uint64_t rate)
{
    const struct tick_source *clock = tick_source_system();

    flood_of(nic)->rate = rate;
    flood_of(nic)->began = clock->monotonic(clock->context);
    flood_of(nic)->due_sent = 0;
}

struct flood_stats flood_get_stats(const struct nic *nic)
{
    return ((const struct flood *)(const void *)nic)->stats;
}
