/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nics of the fixture, its frames, and the TCP that only takes notes. The functions of tcp/
 * that net/ calls are defined here, so that the library's are not linked and net/ is tested alone.
 */
#include "tests/unit/wire_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "dataplane/wire/tcp/tcp.h"

const uint8_t fixture_mac[6] = {2, 0, 0, 0, 0, 1};
const uint8_t fixture_peer_mac[6] = {2, 0, 0, 0, 0, 0x10};
const uint8_t fixture_router_mac[6] = {2, 0, 0, 0, 0, 0xfe};
const uint8_t fixture_evil_mac[6] = {2, 0, 0, 0, 0, 0x66};
const uint8_t fixture_broadcast_mac[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

static struct fixture *fixture_of(const struct stack *stack)
{
    return stack->options.context;
}

/* ---- TCP, which is not there ---- */

struct tcp_shared *tcp_shared_new(struct stack *stack)
{
    struct tcp_shared *tcp = calloc(1, sizeof(*tcp));

    (void)stack;
    assert_non_null(tcp);
    return tcp;
}

void tcp_shared_free(struct stack *stack)
{
    free(stack->tcp);
}

void tcp_input(struct stack *stack, struct packet *packet)
{
    struct fixture *fixture = fixture_of(stack);

    fixture->segment_count++;
    fixture->segment_ip = packet->ip;
    fixture->segment_size = packet->l4_size;
    fixture->is_segment_checksum_known = packet->is_l4_checksum_known;
    fixture->is_segment_checksum_good = packet_l4_checksum_is_good(packet);
    fixture->segment_frame_size = packet->buf->mbuf.pkt_len - packet->l4_offset;
    assert_int_equal(packet->l4_size, fixture->segment_frame_size);
    assert_true(packet_l4(packet).size >= 20 || packet_l4(packet).size == packet->l4_size);
}

void tcp_input_next(struct stack *stack, struct packet *packet, const struct packet_next *nexts,
                    uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        packet_step(packet, &nexts[i]);
        tcp_input(stack, packet);
        buf_release_chain(packet->buf);
    }
}

void tcp_prefetch(struct stack *stack, struct packet *packet)
{
    (void)stack;
    packet->has_key_hash = true;
}

struct tcb *tcp_table_prefetch_found(struct stack *stack, uint64_t hash)
{
    (void)stack, (void)hash;
    return NULL;
}

void tcp_prefetch_buffers(const struct tcb *tcb)
{
    (void)tcb;
}

void tcp_on_icmp_error(struct stack *stack, const struct icmp_error *error)
{
    struct fixture *fixture = fixture_of(stack);

    fixture->error_count++;
    fixture->error = *error;
}

static void never(void)
{
    fail_msg("TCP is not there");
}

void tcb_on_timer(struct stack *stack, struct tcb *tcb)
{
    (void)stack;
    (void)tcb;
    never();
}

void tcp_list_on_timer(struct stack *stack)
{
    fixture_of(stack)->list_timer_count++;
}

void tcp_close(struct stack *stack, struct flow_slot *slot)
{
    (void)stack;
    (void)slot;
    never();
}

void tcp_abort(struct stack *stack, struct flow_slot *slot)
{
    tcp_close(stack, slot);
}

void tcb_verify(const struct stack *stack, const struct tcb *tcb)
{
    (void)stack;
    (void)tcb;
    never();
}

#define NOTHING_OF(type, name)                                                                     \
    type name(const struct stack *stack)                                                           \
    {                                                                                              \
        (void)stack;                                                                               \
        return 0;                                                                                  \
    }
#define NOTHING_TO_VERIFY(name)                                                                    \
    void name(struct stack *stack)                                                                 \
    {                                                                                              \
        (void)stack;                                                                               \
    }
NOTHING_OF(uint32_t, tcp_syn_cache_count)
NOTHING_OF(uint32_t, tcp_time_waits_count)
NOTHING_OF(uint32_t, tcp_receive_buffers)
NOTHING_OF(uint64_t, tcp_table_memory)
NOTHING_OF(uint64_t, tcp_time_waits_memory)
NOTHING_OF(uint64_t, tcp_syn_cache_memory)
NOTHING_OF(uint64_t, tcp_limits_memory)
NOTHING_TO_VERIFY(tcp_table_verify)
NOTHING_TO_VERIFY(tcp_time_waits_verify)
NOTHING_TO_VERIFY(tcp_syn_cache_verify)
NOTHING_TO_VERIFY(tcp_limits_verify)

/* ---- the plane ---- */

static uint32_t plane_poll(struct flow_plane *plane, tick_us now, struct flow_event *ret_events,
                           uint32_t max)
{
    struct stack *stack = stack_of(plane);

    stack_poll_ports(stack, now);
    return flow_core_report(&stack->core, ret_events, max);
}

static void plane_flush(struct flow_plane *plane, tick_us now)
{
    struct stack *stack = stack_of(plane);

    stack->now = now;
    stack_flush_ports(stack);
    flow_core_settle(&stack->core);
}

static tick_us plane_deadline(struct flow_plane *plane)
{
    return stack_deadline(stack_of(plane));
}

static enum err plane_addresses(struct flow_plane *plane, struct flow flow,
                                struct flow_address *ret_local, struct flow_address *ret_peer)
{
    struct flow_slot *slot = flow_core_find(&stack_of(plane)->core, flow);
    return slot == NULL ? ERR_STALE : udp_addresses(stack_of(plane), slot, ret_local, ret_peer);
}

static void plane_close(struct flow_plane *plane, struct flow flow)
{
    struct flow_slot *slot = flow_core_find(&stack_of(plane)->core, flow);
    if (slot != NULL)
        udp_close(stack_of(plane), slot);
}

static void plane_free(struct flow_plane *plane)
{
    stack_free(stack_of(plane));
}

const struct flow_ops stack_ops = {
    .open_datagram = udp_open,
    .send_datagram = udp_send,
    .receive_datagram = udp_receive,
    .set_user = flow_core_set_user,
    .error = flow_core_error,
    .addresses = plane_addresses,
    .want = flow_core_want,
    .close = plane_close,
    .abort = plane_close,
    .poll = plane_poll,
    .flush = plane_flush,
    .deadline = plane_deadline,
    .stats = flow_core_stats,
    .free = plane_free,
};

/* ---- nics ---- */

static struct fixture_nic *nic_of(struct nic *nic)
{
    return (struct fixture_nic *)(void *)nic;
}

static const struct buf *chain_next(const struct buf *buf)
{
    return (const struct buf *)(const void *)buf->mbuf.next;
}

/* The frame as octets, at the end of `frames`; the buffers are released. */
static void frame_keep(struct fixture_frames *frames, struct buf *buf, uint16_t queue)
{
    struct fixture_frame *frame = calloc(1, sizeof(*frame));

    assert_non_null(frame);
    assert_true(frames->count < FIXTURE_FRAMES);
    frame->queue = queue;
    frame->ol_flags = buf->mbuf.ol_flags;
    frame->tx_offload = buf->mbuf.tx_offload;
    for (const struct buf *part = buf; part != NULL; part = chain_next(part)) {
        assert_true(frame->size + buf_size(part) <= FIXTURE_FRAME_SIZE);
        memcpy(frame->octets + frame->size, buf_data(part), buf_size(part));
        frame->size += buf_size(part);
        frame->segments++;
    }
    assert_int_equal(frame->segments, buf->mbuf.nb_segs);
    assert_int_equal(frame->size, buf->mbuf.pkt_len);
    frames->frames[frames->count++] = frame;
    buf_release_chain(buf);
}

static void frames_fini(struct fixture_frames *frames)
{
    for (uint32_t i = 0; i < frames->count; i++)
        free(frames->frames[i]);
    frames->count = frames->taken = 0;
}

static uint32_t nic_on_receive(struct nic *base, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct fixture_nic *nic = nic_of(base);
    uint32_t count = nic->arriving_count < max ? nic->arriving_count : max;

    (void)now;
    memcpy(ret_frames, nic->arriving, count * sizeof(ret_frames[0]));
    nic->arriving_count -= count;
    memmove(nic->arriving, nic->arriving + count, nic->arriving_count * sizeof(ret_frames[0]));
    return count;
}

static uint32_t nic_on_send(struct nic *base, tick_us now, struct buf **frames, uint32_t count)
{
    struct fixture_nic *nic = nic_of(base);
    uint32_t taken = count < nic->room ? count : nic->room;

    (void)now;
    for (uint32_t i = 0; i < taken; i++)
        frame_keep(&nic->sent, frames[i], 0);
    if (nic->room != UINT32_MAX)
        nic->room -= taken;
    return taken;
}

static void nic_on_pass(struct nic *base, uint16_t queue, struct buf *frame)
{
    assert_int_equal(1, frame->mbuf.refcnt);
    frame_keep(&nic_of(base)->passed, frame, queue);
}

static void nic_on_except(struct nic *base, struct buf *frame)
{
    frame_keep(&nic_of(base)->excepted, frame, 0);
}

static void nic_on_free(struct nic *base)
{
    struct fixture_nic *nic = nic_of(base);

    for (uint32_t i = 0; i < nic->arriving_count; i++)
        buf_release_chain(nic->arriving[i]);
    frames_fini(&nic->sent);
    frames_fini(&nic->passed);
    frames_fini(&nic->excepted);
    nic->is_freed = true;
}

static const struct nic_ops nic_ops = {
    .receive = nic_on_receive, .send = nic_on_send, .pass = nic_on_pass, .free = nic_on_free};
static const struct nic_ops nic_ops_with_exception = {.receive = nic_on_receive,
                                                      .send = nic_on_send,
                                                      .pass = nic_on_pass,
                                                      .except = nic_on_except,
                                                      .free = nic_on_free};

static void nic_init(struct fixture_nic *nic, const struct fixture_options *options, uint8_t number)
{
    struct nic_steering *steering = &nic->nic.steering;

    nic->nic.ops = options->has_exception ? &nic_ops_with_exception : &nic_ops;
    memcpy(nic->nic.mac, fixture_mac, 6);
    nic->nic.mac[4] = number;
    nic->nic.mtu_max = options->nic_mtu;
    nic->nic.offloads = options->offloads;
    nic->nic.segments_max = (uint16_t)options->segments_max;
    nic->nic.tso_size_max = 16384;
    nic->room = UINT32_MAX;
    steering->queue = (uint16_t)options->core;
    steering->queue_count = (uint16_t)options->queue_count;
    steering->is_hardware = options->is_hardware;
    steering->reta_size = 128;
    for (uint32_t i = 0; i < sizeof(steering->key); i++)
        steering->key[i] = (uint8_t)(i * 37 + 11);
    for (uint32_t i = 0; i < steering->reta_size; i++)
        steering->reta[i] = (uint16_t)(i % options->queue_count);
}

/* ---- new and free ---- */

struct flow_address fixture_address(const char *text, uint16_t port)
{
    struct flow_address address;

    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(text), &address));
    address.port = port;
    return address;
}

bool fixture_ip_is(const uint8_t ip[16], const char *text)
{
    struct flow_address address = fixture_address(text, 0);
    return memcmp(address.ip, ip, 16) == 0;
}

struct fixture_options fixture_defaults(void)
{
    return (struct fixture_options){
        .port_count = 1,
        .offloads = NIC_TX_MULTI_SEGMENT,
        .segments_max = 8,
        .queue_count = 1,
        .core_count = 1,
        .neighbour_max = 16,
        .destination_max = 16,
        .flow_count_max = 1024,
        .header_pool_max = 512,
        .nic_mtu = 1500,
        .pool_size = 2048,
        .pool_count = 256,
    };
}

static void on_news(void *context, const struct stack_news *news)
{
    struct fixture *fixture = context;

    if (fixture->news_count < COUNT_OF(fixture->news))
        fixture->news[fixture->news_count] = *news;
    fixture->news_count++;
}

struct stack_options fixture_stack_options(struct fixture *fixture,
                                           const struct fixture_options *options,
                                           struct stack_port_options *ret_ports,
                                           struct stack_address *ret_addresses)
{
    ret_addresses[0] = (struct stack_address){fixture_address("192.0.2.1", 0), 24};
    ret_addresses[1] = (struct stack_address){fixture_address("2001:db8::1", 0), 64};
    ret_addresses[2] = (struct stack_address){fixture_address("fe80::1", 0), 64};
    ret_addresses[3] = (struct stack_address){fixture_address("10.1.0.1", 0), 16};
    ret_ports[0] = (struct stack_port_options){
        .nic = &fixture->nics[0].nic,
        .mtu = options->mtu,
        .vlan = options->vlan,
        .addresses = ret_addresses,
        .address_count = 3,
        .gateway4 = fixture_address("192.0.2.254", 0),
        .gateway6 = fixture_address("2001:db8::fe", 0),
    };
    ret_ports[1] = (struct stack_port_options){
        .nic = &fixture->nics[1].nic, .addresses = &ret_addresses[3], .address_count = 1};
    return (struct stack_options){
        .pool = fixture->pool,
        .header_pool = fixture->header_pool,
        .clone_pool = fixture->clone_pool,
        .receive_pool = fixture->receive_pool,
        .receive_reserve = options->receive_reserve,
        .ports = ret_ports,
        .port_count = options->port_count,
        .flow_count_max = options->flow_count_max,
        .time_wait_max = 16,
        .syn_cache_max = 16,
        .neighbour_max = options->neighbour_max,
        .destination_max = options->destination_max,
        .orphan_time = TICK_S(10),
        .now = fixture->now,
        .seed = {1, 2},
        .core = (uint16_t)options->core,
        .core_count = (uint16_t)options->core_count,
        .tcp = tcp_policy_default(),
        .context = fixture,
        .on_news = on_news,
    };
}

static struct buf_pool *pool_new(uint32_t data_size, uint32_t count_max)
{
    return buf_pool_new(&(struct buf_pool_options){data_size, count_max, BUF_BACKING_HEAP});
}

struct fixture *fixture_new(const struct fixture_options *options)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    struct stack_port_options ports[FIXTURE_PORTS];
    struct stack_address addresses[4];

    assert_non_null(fixture);
    fixture->now = TICK_S(1000);
    fixture->pool = pool_new(options->pool_size, options->pool_count);
    fixture->header_pool = pool_new(STACK_HEADER_SIZE, options->header_pool_max);
    fixture->clone_pool = pool_new(1, 64);
    fixture->receive_pool = pool_new(FIXTURE_FRAME_SIZE, 256);
    for (uint32_t i = 0; i < FIXTURE_PORTS; i++)
        nic_init(&fixture->nics[i], options, (uint8_t)i);
    const struct stack_options stack_options =
        fixture_stack_options(fixture, options, ports, addresses);
    assert_int_equal(ERR_OK, stack_new(&stack_options, &fixture->stack));
    fixture->plane = stack_plane(fixture->stack);
    if (options->is_fresh)
        return fixture;
    fixture_advance(fixture, TICK_S(4));
    for (uint32_t i = 0; i < options->port_count; i++)
        fixture_forget(fixture, i);
    return fixture;
}

void fixture_free(struct fixture *fixture)
{
    flow_plane_free(fixture->plane);
    assert_true(fixture->nics[0].is_freed);
    fixture_free_pools(fixture);
}

void fixture_free_pools(struct fixture *fixture)
{
    buf_pool_free(fixture->pool);
    buf_pool_free(fixture->header_pool);
    buf_pool_free(fixture->clone_pool);
    buf_pool_free(fixture->receive_pool);
    free(fixture);
}

uint32_t fixture_turn(struct fixture *fixture, struct flow_event *ret_events, uint32_t max)
{
    struct flow_event none[64];

    if (ret_events == NULL) {
        ret_events = none;
        max = COUNT_OF(none);
    }
    uint32_t count = flow_poll(fixture->plane, fixture->now, ret_events, max);
    stack_verify(fixture->stack);
    flow_flush(fixture->plane, fixture->now);
    return count;
}

void fixture_advance(struct fixture *fixture, tick_us time)
{
    tick_us end = fixture->now + time;

    fixture_turn(fixture, NULL, 0);
    for (uint32_t i = 0; fixture->now < end; i++) {
        tick_us deadline = flow_deadline(fixture->plane);
        assert_true(i < 1000000);
        if (deadline <= fixture->now)
            deadline = fixture->now + 1;
        fixture->now = deadline < end ? deadline : end;
        fixture_turn(fixture, NULL, 0);
    }
}

/* ---- frames in ---- */

static struct buf *piece_new(struct fixture *fixture, struct span octets, uint32_t headroom)
{
    struct buf *buf = buf_acquire(fixture->receive_pool);

    assert_non_null(buf);
    buf->mbuf.data_off = (uint16_t)headroom;
    assert_true(octets.size <= buf_room(buf));
    if (octets.size > 0)
        memcpy(buf_data(buf), octets.data, octets.size);
    buf_extend(buf, octets.size);
    return buf;
}

void fixture_inject_pieces(struct fixture *fixture, uint32_t port, struct span frame,
                           uint32_t piece, uint32_t headroom)
{
    struct fixture_nic *nic = &fixture->nics[port];
    struct buf *head = NULL, *last = NULL;
    uint32_t size = frame.size;

    do {
        uint32_t part = frame.size < piece ? frame.size : piece;
        struct buf *buf = piece_new(fixture, span_head(frame, part), headroom);
        frame = span_skip(frame, part);
        if (head == NULL) {
            head = buf;
        } else {
            last->mbuf.next = &buf->mbuf;
            head->mbuf.nb_segs++;
        }
        last = buf;
    } while (frame.size > 0);
    head->mbuf.pkt_len = size;
    assert_true(nic->arriving_count < COUNT_OF(nic->arriving));
    nic->arriving[nic->arriving_count++] = head;
}

void fixture_inject(struct fixture *fixture, uint32_t port, struct span frame)
{
    fixture_inject_pieces(fixture, port, frame, FIXTURE_FRAME_SIZE, BUF_HEADROOM);
}

static void checksum_put(uint8_t *at, uint64_t sum)
{
    uint16_t checksum = wire_sum_finish(sum);
    memcpy(at, &checksum, sizeof(checksum));
}

/* The checksum of the L4 octets, where their protocol has one. */
static void l4_seal(const struct ip_header *ip, uint8_t *l4, uint32_t size)
{
    uint64_t pseudo = wire_sum_pseudo(ip->family, ip->source, ip->destination, ip->protocol, size);
    uint32_t at;

    if (ip->protocol == IP_PROTOCOL_TCP && size >= TCP_HEADER_SIZE)
        at = 16;
    else if (ip->protocol == IP_PROTOCOL_UDP && size >= UDP_HEADER_SIZE)
        at = 6;
    else if ((ip->protocol == IP_PROTOCOL_ICMP || ip->protocol == IP_PROTOCOL_ICMP6) && size >= 4)
        at = 2;
    else
        return;
    store_be16(l4 + at, 0);
    checksum_put(l4 + at, wire_sum(l4, size) + (ip->protocol == IP_PROTOCOL_ICMP ? 0 : pseudo));
}

uint32_t fixture_build(const struct fixture_packet *packet, uint8_t *ret_frame)
{
    struct flow_address source = fixture_address(packet->source, 0);
    struct flow_address destination = fixture_address(packet->destination, 0);
    uint32_t l4_size = packet->payload.size, at = 0;
    struct ethernet_header ethernet = {.type = source.family == 4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6,
                                       .vlan = packet->vlan};

    memcpy(ethernet.destination, packet->to == NULL ? fixture_mac : packet->to, 6);
    memcpy(ethernet.source, packet->from == NULL ? fixture_peer_mac : packet->from, 6);
    if (!packet->is_l3)
        at = ethernet_build(&ethernet, ret_frame);
    if (packet->protocol == IP_PROTOCOL_UDP)
        l4_size += UDP_HEADER_SIZE;
    struct ip_header ip = {.family = source.family,
                           .protocol = packet->protocol,
                           .ttl = packet->ttl == 0 ? 64 : packet->ttl,
                           .payload_size = (uint16_t)l4_size};
    memcpy(ip.source, source.ip, 16);
    memcpy(ip.destination, destination.ip, 16);
    uint8_t *l3 = ret_frame + at;
    uint8_t *l4 = l3 + (ip.family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE);
    if (ip.family == 4)
        ip4_build(&ip, true, l3);
    else
        ip6_build(&ip, l3);
    uint8_t *payload = l4;
    if (packet->protocol == IP_PROTOCOL_UDP) {
        const struct udp_header udp = {packet->source_port, packet->destination_port,
                                       (uint16_t)l4_size, 0};
        udp_build(&udp, l4);
        payload += UDP_HEADER_SIZE;
    }
    if (packet->payload.size > 0)
        memcpy(payload, packet->payload.data, packet->payload.size);
    l4_seal(&ip, l4, l4_size);
    return (uint32_t)(l4 - ret_frame) + l4_size;
}

void fixture_input(struct fixture *fixture, const struct fixture_packet *packet)
{
    uint8_t frame[FIXTURE_FRAME_SIZE];

    fixture_inject(fixture, 0, span_of(frame, fixture_build(packet, frame)));
    fixture_turn(fixture, NULL, 0);
}

void fixture_input_arp(struct fixture *fixture, uint16_t operation, const uint8_t sender_mac[6],
                       const char *sender, const char *target, const uint8_t to[6])
{
    struct flow_address from_ip = fixture_address(sender, 0), to_ip = fixture_address(target, 0);
    struct ethernet_header ethernet = {.type = ETHERTYPE_ARP};
    struct arp_packet arp = {.operation = operation};
    uint8_t frame[ETHERNET_MIN_SIZE] = {0};

    memcpy(ethernet.destination, to, 6);
    memcpy(ethernet.source, sender_mac, 6);
    memcpy(arp.sender_mac, sender_mac, 6);
    memcpy(arp.sender_ip, from_ip.ip, 4);
    memcpy(arp.target_ip, to_ip.ip, 4);
    arp_build(&arp, frame + ethernet_build(&ethernet, frame));
    fixture_inject(fixture, 0, span_of(frame, sizeof(frame)));
    fixture_turn(fixture, NULL, 0);
}

void fixture_input_nd(struct fixture *fixture, const struct nd_packet *nd, const char *source,
                      const char *destination, const uint8_t *from)
{
    uint8_t message[32];
    uint32_t size = nd_build(nd, message);

    fixture_input(fixture, &(struct fixture_packet){.source = source,
                                                    .destination = destination,
                                                    .from = from,
                                                    .protocol = IP_PROTOCOL_ICMP6,
                                                    .ttl = 255,
                                                    .payload = span_of(message, size)});
}

/* ---- frames out ---- */

uint32_t fixture_sent_count(const struct fixture *fixture, uint32_t port)
{
    return fixture->nics[port].sent.count - fixture->nics[port].sent.taken;
}

void fixture_forget(struct fixture *fixture, uint32_t port)
{
    frames_fini(&fixture->nics[port].sent);
}

/* What was left to the nic is right as far as it goes; the rest is right. */
static void view_check_sums(const struct fixture_view *view, const uint8_t *l3)
{
    uint64_t flags = view->frame->ol_flags, sum = 0;
    uint8_t protocol = view->ip.protocol;

    if (view->ip.family == 4 && !(flags & RTE_MBUF_F_TX_IP_CKSUM))
        assert_int_equal(0, wire_sum_finish(wire_sum(l3, view->ip.header_size)));
    if (protocol != IP_PROTOCOL_ICMP)
        sum = wire_sum_pseudo(view->ip.family, view->ip.source, view->ip.destination, protocol,
                              view->l4.size);
    if ((flags & RTE_MBUF_F_TX_L4_MASK) == RTE_MBUF_F_TX_UDP_CKSUM) {
        uint16_t pseudo = (uint16_t)~wire_sum_finish(sum);
        assert_memory_equal(&pseudo, view->l4.data + 6, 2);
    } else if (protocol != IP_PROTOCOL_TCP) {
        assert_int_equal(0, wire_sum_finish(sum + wire_sum(view->l4.data, view->l4.size)));
    }
}

struct fixture_view fixture_take(struct fixture *fixture, uint32_t port)
{
    struct fixture_frames *sent = &fixture->nics[port].sent;
    struct fixture_view view = {0};

    assert_true(sent->taken < sent->count);
    view.frame = sent->frames[sent->taken++];
    struct span octets = span_of(view.frame->octets, view.frame->size);
    uint16_t type = 0;
    if (fixture->stack->ports[port].is_l3) {
        type = octets.data[0] >> 4 == 4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6;
    } else {
        assert_int_equal(PACKET_OK, ethernet_parse(octets, &view.ethernet));
        octets = span_skip(octets, view.ethernet.size);
        type = view.ethernet.type;
    }
    if (type == ETHERTYPE_ARP) {
        assert_int_equal(PACKET_OK, arp_parse(octets, &view.arp));
        return view;
    }
    enum packet_fault fault = type == ETHERTYPE_IP4 ? ip4_parse(octets, octets.size, true, &view.ip)
                                                    : ip6_parse(octets, octets.size, &view.ip);
    assert_int_equal(PACKET_OK, fault);
    assert_int_equal(octets.size, view.ip.header_size + view.ip.payload_size);
    view.l4 = span_skip(octets, view.ip.header_size);
    view_check_sums(&view, octets.data);
    return view;
}

uint64_t fixture_counter(const struct fixture *fixture, enum stack_counter counter)
{
    return stack_counter(fixture->stack, counter);
}

void fixture_answer(struct fixture *fixture, const char *ip, const uint8_t mac[6])
{
    struct flow_address address = fixture_address(ip, 0);

    if (address.family == FLOW_FAMILY_IP4) {
        fixture_input_arp(fixture, 2, mac, ip, "192.0.2.1", fixture_mac);
        return;
    }
    struct nd_packet nd = {.type = ICMP_NEIGHBOUR_ADVERTISEMENT6,
                           .is_solicited = true,
                           .is_override = true,
                           .has_link_address = true};
    memcpy(nd.target, address.ip, 16);
    memcpy(nd.link_address, mac, 6);
    fixture_input_nd(fixture, &nd, ip, "2001:db8::1", mac);
}
