/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The servers' owner answers each kilobyte with three, and closes what its peer has ended, and now
 * and then what it has not. Frames are built here and not by the engine's own way out, so that they
 * can be wrong.
 */
#include "tests/unit/wire_twins.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#define LOG_MAX    (4u << 20)
#define LISTENER   1000u
#define EVENTS_MAX 64u
#define FRAME_MAX  1600u

static const uint8_t mac_ours[6] = {2, 0, 0, 0, 0, 1}, mac_peers[6] = {2, 0, 0, 0, 0, 2};

static void log_put(struct twin *server, const void *octets, uint32_t size)
{
    assert_true(server->log_size + size <= LOG_MAX);
    memcpy(server->log + server->log_size, octets, size);
    server->log_size += size;
}

/* ---- the nic ---- */

static uint32_t server_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct twin *server = (struct twin *)(void *)nic;
    uint32_t count = 0, most = server->is_one_by_one ? 1 : max;

    (void)now;
    while (count < most && server->arriving_taken < server->arriving_count)
        ret_frames[count++] = server->arriving[server->arriving_taken++];
    return count;
}

static uint32_t server_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    struct twin *server = (struct twin *)(void *)nic;

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

/* ---- begin and end ---- */

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
        .data_size = size, .count_max = TWINS_BUFFERS, .backing = BUF_BACKING_HEAP});
}

static void server_start(const struct twins *twins, struct twin *server, tick_us now)
{
    struct stack_address address = {address_of(twins->family, 1),
                                    twins->family == FLOW_FAMILY_IP4 ? 24 : 64};
    struct stack_port_options port = {
        .nic = &server->nic, .vlan = twins->vlan, .addresses = &address, .address_count = 1};
    struct flow_listen_options listen = {.address = address_of(twins->family, 1),
                                         .backlog = 16,
                                         .receive_limit = twins->receive_limit,
                                         .user = LISTENER};

    server->nic = (struct nic){.ops = &server_ops,
                               .mtu_max = 1500,
                               .segments_max = 4,
                               .offloads = NIC_TX_MULTI_SEGMENT | (twins->is_link ? 0 : NIC_IS_L3),
                               .steering = {.queue_count = 1, .reta_size = 1}};
    memcpy(server->nic.mac, mac_ours, sizeof(mac_ours));
    server->pool = pool_of(2048);
    server->header_pool = pool_of(STACK_HEADER_SIZE);
    server->clone_pool = pool_of(1);
    server->log = malloc(LOG_MAX);
    assert_non_null(server->log);
    struct tcp_policy policy = tcp_policy_default();
    policy.receive_window_start = twins->window_start;
    const struct stack_options options = {.pool = server->pool,
                                          .header_pool = server->header_pool,
                                          .clone_pool = server->clone_pool,
                                          .receive_pool = server->pool,
                                          .receive_reserve = twins->receive_reserve,
                                          .ports = &port,
                                          .port_count = 1,
                                          .flow_count_max = TWINS_FLOWS,
                                          .time_wait_max = 16,
                                          .syn_cache_max = 64,
                                          .neighbour_max = 8,
                                          .destination_max = 8,
                                          .orphan_time = TICK_S(1),
                                          .now = now,
                                          .seed = {7, 11},
                                          .core_count = 1,
                                          .tcp = policy};
    assert_int_equal(ERR_OK, stack_new(&options, &server->stack));
    server->plane = stack_plane(server->stack);
    listen.address.port = TWINS_PORT;
    assert_int_equal(ERR_OK, flow_listen(server->plane, &listen, &server->listener));
}

static void server_end(struct twin *server)
{
    server->log_size = 0;
    flow_plane_free(server->plane);
    buf_pool_free(server->pool);
    buf_pool_free(server->header_pool);
    buf_pool_free(server->clone_pool);
    free(server->log);
}

void twins_start(struct twins *twins, tick_us now)
{
    twins->servers[1].is_one_by_one = true;
    server_start(twins, &twins->servers[0], now);
    server_start(twins, &twins->servers[1], now);
}

void twins_end(struct twins *twins)
{
    server_end(&twins->servers[0]);
    server_end(&twins->servers[1]);
}

/* ---- frames ---- */

static void arrive(struct twin *server, const uint8_t *octets, uint32_t size)
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

/* From `size` octets of an IP packet on, for both. */
static void packet_give(struct twins *twins, const struct twins_shape *shape, uint16_t type,
                        const uint8_t *packet, uint32_t size)
{
    uint8_t frame[FRAME_MAX];
    struct ethernet_header header = {.type = type, .vlan = twins->vlan};
    uint32_t link_size = 0;

    memcpy(header.source, mac_peers, sizeof(mac_peers));
    memcpy(header.destination, mac_ours, sizeof(mac_ours));
    if (shape->is_to_all)
        memset(header.destination, 0xff, sizeof(header.destination));
    if (shape->is_of_other_vlan)
        header.vlan++;
    if (twins->is_link)
        link_size = ethernet_build(&header, frame);
    memcpy(frame + link_size, packet, size);
    arrive(&twins->servers[0], frame, link_size + size);
    arrive(&twins->servers[1], frame, link_size + size);
}

static uint32_t tcp_put(const struct twins *twins, uint16_t port, const struct twins_shape *shape,
                        const struct ip_header *ip, uint8_t *l4)
{
    struct tcp_header tcp = {.source_port = port,
                             .destination_port = TWINS_PORT,
                             .sequence = shape->sequence,
                             .acknowledgement = shape->acknowledgement,
                             .window = shape->window,
                             .flags = shape->flags};

    if (shape->flags & TCP_SYN)
        tcp.options =
            (struct tcp_options){.has_mss = true, .mss = 1440, .has_sack_permitted = true};
    tcp.options.has_timestamps = twins->has_timestamps;
    tcp.options.timestamp_value = shape->timestamp;
    uint32_t size = tcp_build(&tcp, l4);
    if (shape->has_other_options)
        memset(l4 + TCP_HEADER_SIZE, 1, size - TCP_HEADER_SIZE);
    for (uint32_t i = 0; i < shape->size; i++)
        l4[size + i] = (uint8_t)(shape->sequence + i);
    size += shape->size;
    uint64_t sum = wire_sum(l4, size) + wire_sum_pseudo(twins->family, ip->source, ip->destination,
                                                        IP_PROTOCOL_TCP, size);
    uint16_t checksum = (uint16_t)(wire_sum_finish(sum) ^ (shape->is_damaged ? 1 : 0));
    memcpy(l4 + 16, &checksum, sizeof(checksum));
    return size;
}

/* The first of several, of an IPv4 packet without options. */
static void fragment_make(uint8_t *packet)
{
    packet[6] = 0x20;
    store_be16(packet + 10, 0);
    uint16_t checksum = wire_sum_finish(wire_sum_header(packet, IP4_HEADER_SIZE));
    memcpy(packet + 10, &checksum, sizeof(checksum));
}

void twins_give(struct twins *twins, uint16_t port, const struct twins_shape *shape)
{
    uint8_t packet[FRAME_MAX - ETHERNET_HEADER_SIZE - ETHERNET_VLAN_SIZE] = {0};
    struct ip_header ip = {.family = twins->family,
                           .protocol = shape->is_datagram ? IP_PROTOCOL_UDP : IP_PROTOCOL_TCP,
                           .traffic_class = shape->is_marked ? 3 : 0,
                           .ttl = 60};
    bool is_four = twins->family == FLOW_FAMILY_IP4;
    uint32_t l3_size = is_four ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;

    memcpy(ip.source, address_of(twins->family, shape->is_from_us ? 1 : 2).ip, 16);
    memcpy(ip.destination, address_of(twins->family, 1).ip, 16);
    uint32_t size = tcp_put(twins, port, shape, &ip, packet + l3_size);
    ip.payload_size = (uint16_t)size;
    size += l3_size;
    if (is_four)
        ip4_build(&ip, true, packet);
    else
        ip6_build(&ip, packet);
    if (shape->is_fragment && is_four)
        fragment_make(packet);
    else if (shape->has_ip_options && is_four)
        size = options_insert(packet, size, shape->is_alert);
    packet_give(twins, shape, is_four ? ETHERTYPE_IP4 : ETHERTYPE_IP6, packet, size);
}

/* ---- what they sent ---- */

static void arp_answer(struct twins *twins, struct span packet)
{
    uint8_t answer[ARP_SIZE];
    struct arp_packet arp;

    assert_int_equal(PACKET_OK, arp_parse(packet, &arp));
    if (arp.operation != 1 || memcmp(arp.target_ip, arp.sender_ip, 4) == 0)
        return;
    struct arp_packet reply = {.operation = 2};
    memcpy(reply.sender_mac, mac_peers, sizeof(mac_peers));
    memcpy(reply.sender_ip, arp.target_ip, 4);
    memcpy(reply.target_mac, arp.sender_mac, 6);
    memcpy(reply.target_ip, arp.sender_ip, 4);
    arp_build(&reply, answer);
    packet_give(twins, &(struct twins_shape){0}, ETHERTYPE_ARP, answer, sizeof(answer));
}

bool twins_next_frame(struct twins *twins, uint32_t *at, struct span *ret_frame)
{
    const struct twin *server = &twins->servers[0];
    struct ethernet_header header;
    uint32_t size;

    *at = *at == 0 ? server->reports_size : *at;
    while (*at < server->log_size) {
        memcpy(&size, server->log + *at, sizeof(size));
        *ret_frame = span_of(server->log + *at + sizeof(size), size);
        *at += (uint32_t)sizeof(size) + size;
        if (!twins->is_link)
            return true;
        assert_int_equal(PACKET_OK, ethernet_parse(*ret_frame, &header));
        assert_int_equal(twins->vlan, header.vlan);
        *ret_frame = span_skip(*ret_frame, header.size);
        if (header.type != ETHERTYPE_ARP)
            return true;
        arp_answer(twins, *ret_frame);
    }
    return false;
}

/* ---- their owner ---- */

/* Answers each kilobyte with three. False: of that beginning it has enough, and closes. */
static bool server_read(struct twin *server, struct flow flow)
{
    static const uint8_t reply[3000] = {1, 2, 3};
    struct span spans[64];
    uint32_t count = flow_peek(server->plane, flow, spans, COUNT_OF(spans)), size = 0;

    for (uint32_t i = 0; i < count; i++) {
        log_put(server, spans[i].data, spans[i].size);
        size += spans[i].size;
    }
    if (size > 0 && spans[0].data[0] == 7)
        return false;
    flow_consume(server->plane, flow, size);
    for (uint32_t i = 0; i < size / 1024; i++) {
        struct buf_queue queue;
        buf_queue_init(&queue);
        enum err err = buf_queue_append_copy(&queue, server->pool, span_of(reply, sizeof(reply)));
        assert_int_equal(ERR_OK, err);
        flow_append(server->plane, flow, &queue);
        buf_queue_fini(&queue);
    }
    return true;
}

static void server_on_event(struct twin *server, const struct flow_event *event)
{
    struct flow_address peer;
    struct flow flow;

    log_put(server, event, sizeof(event->flow) + sizeof(event->events));
    if (event->user == LISTENER) {
        while (flow_accept(server->plane, server->listener, 1, &flow, &peer) == ERR_OK)
            continue;
        return;
    }
    bool is_over = event->events & (FLOW_RESET | FLOW_FAILED | FLOW_PEER_CLOSED);
    if (event->events & FLOW_READABLE && !server_read(server, event->flow))
        is_over = true;
    if (is_over)
        flow_close(server->plane, event->flow);
}

/* All frames, each in a poll of its own or all in one; then what there is to report. */
static void server_turn(struct twin *server, tick_us now)
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

/* NULL: there is none. */
static const struct tcb *connection_of(struct twin *server, uint32_t index)
{
    struct flow_slot *slot = flow_core_slot_at(&server->stack->core, index);

    return slot != NULL && slot->kind == FLOW_SLOT_STREAM ? tcb_of(slot) : NULL;
}

/* What each segment that comes leaves behind, whether it shows in an answer of this turn or not. */
static void connection_compare(const struct tcb *a, const struct tcb *b)
{
    assert_int_equal(a->state, b->state);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->rcv_nxt, b->rcv_nxt);
    assert_int_equal(a->rcv_edge, b->rcv_edge);
    assert_int_equal(a->snd_una, b->snd_una);
    assert_int_equal(a->snd_wnd, b->snd_wnd);
    assert_int_equal(a->snd_wl1, b->snd_wl1);
    assert_int_equal(a->snd_wl2, b->snd_wl2);
    assert_int_equal(a->ts_recent, b->ts_recent);
    assert_int_equal(a->ts_recent_at, b->ts_recent_at);
    assert_int_equal(a->window_limit, b->window_limit);
    assert_int_equal(a->measure_sequence, b->measure_sequence);
    assert_int_equal(a->measure_at, b->measure_at);
    assert_int_equal(a->quick_acks_left, b->quick_acks_left);
    assert_int_equal(a->dupacks, b->dupacks);
    assert_int_equal(a->unacked_since, b->unacked_since);
    assert_int_equal(a->rtx_mode, b->rtx_mode);
    assert_int_equal(a->rtx_at, b->rtx_at);
}

void twins_turn(struct twins *twins, tick_us now)
{
    struct twin *servers = twins->servers;

    server_turn(&servers[0], now);
    server_turn(&servers[1], now);
    assert_int_equal(servers[0].log_size, servers[1].log_size);
    assert_memory_equal(servers[0].log, servers[1].log, servers[0].log_size);
    for (uint32_t i = 0; i < TWINS_FLOWS; i++) {
        const struct tcb *a = connection_of(&servers[0], i), *b = connection_of(&servers[1], i);
        assert_int_equal(a == NULL, b == NULL);
        if (a != NULL)
            connection_compare(a, b);
    }
}
