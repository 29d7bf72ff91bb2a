/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ports whose other end is the kernel: net_tap, net_af_packet and net_af_xdp, and the exception
 * path. Everything happens in a network namespace that ends with this process.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <arpa/inet.h>
#include <cmocka.h>
#include <pthread.h>
#include <rte_mbuf_core.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "dataplane/wire/format/packet.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/nic_eth.h"
#include "kernel_net.h"

#define TIME_MAX      TICK_S(10)
#define SILENCE       TICK_MS(50)
#define KERNEL_IP     "10.99.1.1"
#define OUR_IP        "10.99.1.2"
#define KERNEL_PORT   7000u
#define OUR_PORT      9000u
#define XDP_POOL_SIZE 5000u
#define POOL_SIZE     1024u
#define SIZE_MAX_UDP  1472u /* of a datagram in one packet of 1,500 octets */

static tick_us now_read(void)
{
    const struct tick_source *source = tick_source_system();

    return source->monotonic(source->context);
}

/* ---- one port ---- */

struct end {
    struct buf_pool *pool;
    struct nic_eth_port *port;
    struct nic *nic;
    uint8_t kernel_mac[6];
};

struct wish {
    const char *device;
    const char *interface; /* the kernel's end */
    const char *exception;
    uint32_t data_size, pool_size, offloads;
};

static void end_open(struct end *end, const struct wish *wish)
{
    char error[NIC_ETH_ERROR_SIZE];

    *end = (struct end){0};
    assert_int_equal(ERR_OK, buf_pool_new_on_mempool("receive", wish->pool_size, wish->data_size,
                                                     BUF_MEMPOOL_ANY_NODE, &end->pool));
    const struct nic_eth_options options = {
        .device = wish->device,
        .queue_count = 1,
        .pools = &end->pool,
        .offloads = wish->offloads,
        .exception = wish->exception,
    };
    if (nic_eth_port_new(&options, &end->port, error) != ERR_OK)
        fail_msg("%s: %s", wish->device, error);
    end->nic = nic_eth_queue(end->port, 0);
    assert_true(nic_eth_port_wait_link(end->port, TIME_MAX));
    assert_true(kernel_mac_get(wish->interface, end->kernel_mac));
}

static void end_close(struct end *end)
{
    nic_free(end->nic);
    nic_eth_port_free(end->port);
    assert_int_equal(0, buf_pool_in_use(end->pool));
    buf_pool_free(end->pool);
}

/* ---- frames ---- */

static void fill(uint8_t *octets, uint32_t size, uint32_t seed)
{
    for (uint32_t i = 0; i < size; i++)
        octets[i] = (uint8_t)(seed + i * 13 + (i >> 8));
}

static uint32_t frame_copy(const struct buf *frame, uint8_t *ret_octets, uint32_t size_max)
{
    uint32_t size = 0;

    for (const struct rte_mbuf *at = &frame->mbuf; at != NULL; at = at->next) {
        assert_true(size + at->data_len <= size_max);
        memcpy(ret_octets + size, (const uint8_t *)at->buf_addr + at->data_off, at->data_len);
        size += at->data_len;
    }
    assert_int_equal(frame->mbuf.pkt_len, size);
    return size;
}

/* Is it the datagram that the kernel was asked to send? The sums of IP and UDP are checked. */
static bool is_datagram(const uint8_t *octets, uint32_t size, const uint8_t *payload,
                        uint32_t payload_size)
{
    struct ethernet_header ethernet;
    struct ip_header ip;
    struct udp_header udp;

    if (ethernet_parse(span_of(octets, size), &ethernet) != PACKET_OK ||
        ethernet.type != ETHERTYPE_IP4)
        return false;
    struct span packet = span_skip(span_of(octets, size), ethernet.size);
    if (ip4_parse(packet, packet.size, false, &ip) != PACKET_OK || ip.protocol != IP_PROTOCOL_UDP)
        return false;
    struct span l4 = span_skip(packet, ip.header_size);
    if (udp_parse(l4, ip.payload_size, &udp) != PACKET_OK || udp.destination_port != OUR_PORT)
        return false;
    assert_int_equal(payload_size + UDP_HEADER_SIZE, udp.size);
    assert_memory_equal(payload, l4.data + UDP_HEADER_SIZE, payload_size);
    uint64_t sum = wire_sum_pseudo(4, ip.source, ip.destination, IP_PROTOCOL_UDP, udp.size);
    assert_int_equal(0, wire_sum_finish(sum + wire_sum(l4.data, udp.size)));
    return true;
}

/* Reads until the datagram is there; everything else the kernel says (ND, MLD) is let go. */
static bool expect_datagram(struct end *end, const uint8_t *payload, uint32_t size,
                            uint64_t *ret_flags)
{
    tick_us deadline = now_read() + TIME_MAX;
    bool is_found = false;

    while (!is_found && now_read() < deadline) {
        struct buf *frames[NIC_BURST];
        uint32_t count = nic_receive(end->nic, now_read(), frames, NIC_BURST);
        uint8_t octets[4096];

        for (uint32_t i = 0; i < count; i++) {
            uint32_t frame_size = frame_copy(frames[i], octets, sizeof(octets));

            if (is_datagram(octets, frame_size, payload, size)) {
                is_found = true;
                *ret_flags = frames[i]->mbuf.ol_flags;
            }
            buf_release_chain(frames[i]);
        }
        if (count == 0)
            usleep(100);
    }
    return is_found;
}

static uint32_t datagram_build(const uint8_t source_mac[6], const uint8_t destination_mac[6],
                               const uint8_t *payload, uint32_t size, bool has_checksums,
                               uint8_t *ret_octets)
{
    struct ethernet_header ethernet = {.type = ETHERTYPE_IP4};
    struct ip_header ip = {.family = 4,
                           .protocol = IP_PROTOCOL_UDP,
                           .ttl = 64,
                           .payload_size = (uint16_t)(UDP_HEADER_SIZE + size)};
    struct udp_header udp = {.source_port = OUR_PORT,
                             .destination_port = KERNEL_PORT,
                             .size = (uint16_t)(UDP_HEADER_SIZE + size)};
    uint8_t *l4 = ret_octets + ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE;

    memcpy(ethernet.source, source_mac, 6);
    memcpy(ethernet.destination, destination_mac, 6);
    inet_pton(AF_INET, OUR_IP, ip.source);
    inet_pton(AF_INET, KERNEL_IP, ip.destination);
    ethernet_build(&ethernet, ret_octets);
    ip4_build(&ip, has_checksums, ret_octets + ETHERNET_HEADER_SIZE);
    udp_build(&udp, l4);
    memcpy(l4 + UDP_HEADER_SIZE, payload, size);
    uint64_t sum = wire_sum_pseudo(4, ip.source, ip.destination, IP_PROTOCOL_UDP, udp.size);
    uint16_t checksum = wire_sum_finish(has_checksums ? sum + wire_sum(l4, udp.size) : sum);
    if (!has_checksums)
        checksum = (uint16_t)~checksum; /* the sum itself: what a card goes on from */
    memcpy(l4 + 6, &checksum, 2);
    return ETHERNET_HEADER_SIZE + IP4_HEADER_SIZE + udp.size;
}

/* As a chain of buffers of at most `part` octets. */
static struct buf *frame_of(struct buf_pool *pool, const uint8_t *octets, uint32_t size,
                            uint32_t part)
{
    struct buf *head = NULL, *last = NULL;

    for (uint32_t at = 0; at < size;) {
        struct buf *buf = buf_acquire(pool);
        uint32_t here = size - at < part ? size - at : part;

        assert_non_null(buf);
        buf_extend(buf, here);
        memcpy(buf_data(buf), octets + at, here);
        at += here;
        if (head == NULL)
            head = buf;
        else {
            last->mbuf.next = &buf->mbuf;
            head->mbuf.nb_segs++;
        }
        last = buf;
    }
    head->mbuf.pkt_len = size;
    return head;
}

static void send_datagram(struct end *end, const uint8_t *payload, uint32_t size)
{
    uint8_t octets[4096];
    bool has_offload = (end->nic->offloads & NIC_TX_UDP_CHECKSUM) != 0;
    uint32_t frame_size =
        datagram_build(end->nic->mac, end->kernel_mac, payload, size, !has_offload, octets);
    uint32_t part = (end->nic->offloads & NIC_TX_MULTI_SEGMENT) != 0 ? 700 : UINT32_MAX;
    uint32_t room = buf_pool_data_size(end->pool);
    struct buf *frame = frame_of(end->pool, octets, frame_size, part < room ? part : room);
    tick_us deadline = now_read() + TIME_MAX;

    if (has_offload) {
        frame->mbuf.ol_flags =
            RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_UDP_CKSUM;
        frame->mbuf.l2_len = ETHERNET_HEADER_SIZE;
        frame->mbuf.l3_len = IP4_HEADER_SIZE;
    }
    while (nic_send(end->nic, now_read(), &frame, 1) == 0)
        assert_true(now_read() < deadline);
}

/* Datagrams of several sizes, both ways. `flags` gets what the last received one said. */
static void exchange(struct end *end, int udp, uint64_t *ret_flags)
{
    static const uint32_t sizes[] = {1, 18, 600, SIZE_MAX_UDP};

    for (uint32_t i = 0; i < COUNT_OF(sizes); i++) {
        uint8_t payload[SIZE_MAX_UDP], got[2048];

        fill(payload, sizes[i], i);
        assert_true(kernel_udp_send(udp, OUR_IP, OUR_PORT, payload, sizes[i]));
        if (!expect_datagram(end, payload, sizes[i], ret_flags))
            fail_msg("%u octets from the kernel did not arrive", sizes[i]);
        fill(payload, sizes[i], 100 + i);
        send_datagram(end, payload, sizes[i]);
        assert_int_equal(sizes[i], kernel_receive(udp, got, sizeof(got), TIME_MAX));
        assert_memory_equal(payload, got, sizes[i]);
    }
}

static int kernel_end(const struct end *end, const char *interface)
{
    assert_true(kernel_address_add(interface, KERNEL_IP));
    assert_true(kernel_neighbour_add(interface, OUR_IP, end->nic->mac));
    int udp = kernel_udp_open(KERNEL_IP, KERNEL_PORT);
    assert_true(udp >= 0);
    return udp;
}

/* ---- net_tap ---- */

static void test_tap(void **state)
{
    const struct wish wish = {.device = "net_tap0,iface=wiretap0",
                              .interface = "wiretap0",
                              .data_size = 2048,
                              .pool_size = POOL_SIZE,
                              .offloads = NIC_ETH_OFFLOADS_AUTO};
    struct end end;
    uint64_t flags = 0;
    (void)state;

    end_open(&end, &wish);
    assert_int_equal(NIC_TX_MULTI_SEGMENT, end.nic->offloads);
    assert_int_equal(1500, end.nic->mtu_max);
    assert_int_equal(1500, kernel_mtu_get("wiretap0"));
    assert_memory_not_equal(end.kernel_mac, end.nic->mac, 6);
    int udp = kernel_end(&end, "wiretap0");
    exchange(&end, udp, &flags);
    assert_int_equal(0, flags & (RTE_MBUF_F_RX_L4_CKSUM_MASK | RTE_MBUF_F_RX_IP_CKSUM_MASK));
    assert_int_equal(0, nic_eth_port_stats(end.port).without_buffer);
    close(udp);
    end_close(&end);
}

/* Checksums by the driver, when somebody insists; TSO never, as it would block the queue. */
static void test_tap_offloads(void **state)
{
    const struct wish wish = {.device = "net_tap0,iface=wiretap1",
                              .interface = "wiretap1",
                              .data_size = 2048,
                              .pool_size = POOL_SIZE,
                              .offloads = NIC_TX_IP4_CHECKSUM | NIC_TX_UDP_CHECKSUM |
                                          NIC_TX_TCP_CHECKSUM | NIC_RX_CHECKSUM | NIC_TX_TSO |
                                          NIC_TX_MULTI_SEGMENT};
    struct end end;
    uint64_t flags = 0;
    (void)state;

    end_open(&end, &wish);
    assert_int_equal(wish.offloads & ~(uint32_t)NIC_TX_TSO, end.nic->offloads);
    assert_int_equal(0, end.nic->tso_size_max);
    int udp = kernel_end(&end, "wiretap1");
    exchange(&end, udp, &flags);
    assert_int_equal(RTE_MBUF_F_RX_L4_CKSUM_GOOD, flags & RTE_MBUF_F_RX_L4_CKSUM_MASK);
    assert_int_equal(RTE_MBUF_F_RX_IP_CKSUM_GOOD, flags & RTE_MBUF_F_RX_IP_CKSUM_MASK);
    close(udp);
    end_close(&end);
}

/* Frames over several small buffers; and an empty pool loses frames, but is survived. */
static void test_tap_scatter(void **state)
{
    const struct wish wish = {.device = "net_tap0,iface=wiretap2",
                              .interface = "wiretap2",
                              .data_size = 512,
                              .pool_size = 64,
                              .offloads = NIC_TX_MULTI_SEGMENT};
    struct buf *held[64];
    struct end end;
    uint32_t held_count = 0;
    uint64_t flags = 0;
    uint8_t payload[SIZE_MAX_UDP] = {0};
    (void)state;

    end_open(&end, &wish);
    int udp = kernel_end(&end, "wiretap2");
    exchange(&end, udp, &flags);
    while (buf_pool_available(end.pool) > 0)
        held[held_count++] = buf_acquire(end.pool);
    assert_true(kernel_udp_send(udp, OUR_IP, OUR_PORT, payload, SIZE_MAX_UDP));
    for (tick_us end_at = now_read() + SILENCE; now_read() < end_at; usleep(1000)) {
        struct buf *frames[4];
        assert_int_equal(0, nic_receive(end.nic, now_read(), frames, 4));
    }
    assert_true(nic_eth_port_stats(end.port).without_buffer > 0);
    for (uint32_t i = 0; i < held_count; i++)
        buf_release(held[i]);
    exchange(&end, udp, &flags);
    close(udp);
    end_close(&end);
}

/* The signal that a file descriptor falls back to when real-time signals overflow. */
static void test_sigio_is_survived(void **state)
{
    (void)state;
    assert_int_equal(0, kill(getpid(), SIGIO));
    usleep(1000);
}

/* ---- net_af_packet, net_af_xdp ---- */

/* net_af_xdp lets go of its ring without freeing it. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libxdp.so\n";
}

static void run_on_veth(const struct wish *wish)
{
    struct end end;
    uint64_t flags = 0;

    end_open(&end, wish);
    int udp = kernel_end(&end, wish->interface);
    exchange(&end, udp, &flags);
    close(udp);
    end_close(&end);
}

static void test_af_packet(void **state)
{
    struct wish wish = {.device = "net_af_packet0,iface=wireveth0",
                        .interface = "wireveth1",
                        .data_size = 2048,
                        .pool_size = POOL_SIZE,
                        .offloads = NIC_ETH_OFFLOADS_AUTO};
    (void)state;

    if (!kernel_veth_new("wireveth0", "wireveth1"))
        skip();
    run_on_veth(&wish);
    /* Closed and opened again, with larger frames in the ring. */
    wish.device = "net_af_packet1,iface=wireveth0,framesz=4096,blocksz=65536";
    wish.data_size = 4096;
    run_on_veth(&wish);
    kernel_interface_delete("wireveth0");
}

static void test_af_xdp(void **state)
{
    const struct wish wish = {.device = "net_af_xdp0,iface=wirexdp0",
                              .interface = "wirexdp1",
                              .data_size = 2048,
                              .pool_size = XDP_POOL_SIZE,
                              .offloads = NIC_ETH_OFFLOADS_AUTO};
    (void)state;

    if (!kernel_has_xdp() || !kernel_veth_new("wirexdp0", "wirexdp1"))
        skip();
    run_on_veth(&wish);
    kernel_interface_delete("wirexdp0");
}

/* ---- the exception path ---- */

/* A frame from the cable goes to the kernel's exception interface, and what the kernel sends there
 * leaves by the port. */
static void test_exception(void **state)
{
    const struct wish wish = {.device = "net_af_packet0,iface=wireveth2",
                              .interface = "wireveth3",
                              .exception = "wireexc0",
                              .data_size = 2048,
                              .pool_size = POOL_SIZE,
                              .offloads = NIC_ETH_OFFLOADS_AUTO};
    static const uint8_t far_mac[6] = {2, 0, 0, 0, 0, 9};
    uint8_t octets[2048], payload[1000], mac[6];
    struct end end;
    (void)state;

    if (!kernel_veth_new("wireveth2", "wireveth3"))
        skip();
    end_open(&end, &wish);
    assert_true(nic_has_exception(end.nic));
    assert_true(kernel_mac_get("wireexc0", mac));
    assert_memory_equal(end.nic->mac, mac, 6);
    assert_true(kernel_address_add("wireexc0", KERNEL_IP));
    assert_true(kernel_neighbour_add("wireexc0", OUR_IP, far_mac));
    int udp = kernel_udp_open(KERNEL_IP, KERNEL_PORT), raw = kernel_raw_open("wireveth3");
    assert_true(udp >= 0 && raw >= 0);

    for (uint32_t i = 0; i < 20; i++) {
        uint32_t size = i % 2 == 0 ? 30 : sizeof(payload);

        fill(payload, size, i);
        uint32_t frame_size = datagram_build(far_mac, end.nic->mac, payload, size, true, octets);
        struct buf *frame = frame_of(end.pool, octets, frame_size, 400);
        end.nic->ops->except(end.nic, frame);
        assert_int_equal(size, kernel_receive(udp, octets, sizeof(octets), TIME_MAX));
        assert_memory_equal(payload, octets, size);
        if (i % 5 == 4)
            usleep(20000); /* the thread sleeps, too */
    }

    fill(payload, sizeof(payload), 77);
    assert_true(kernel_udp_send(udp, OUR_IP, OUR_PORT, payload, sizeof(payload)));
    bool is_out = false;
    for (tick_us deadline = now_read() + TIME_MAX; !is_out && now_read() < deadline;) {
        struct buf *frames[NIC_BURST];
        uint32_t count = nic_receive(end.nic, now_read(), frames, NIC_BURST);

        for (uint32_t i = 0; i < count; i++)
            buf_release_chain(frames[i]);
        int size = kernel_receive(raw, octets, sizeof(octets), 1000);
        is_out = size > 0 && is_datagram(octets, (uint32_t)size, payload, sizeof(payload));
    }
    assert_true(is_out);
    struct nic_eth_port_stats stats = nic_eth_port_stats(end.port);
    assert_int_equal(20, stats.exceptions_out);
    assert_true(stats.exceptions_in >= 1);
    close(udp);
    close(raw);
    end_close(&end);
    kernel_interface_delete("wireveth2");
}

/* More than its rings hold is dropped, counted, and given back. */
static void test_exception_flood(void **state)
{
    const struct wish wish = {.device = "net_tap0,iface=wiretap3",
                              .interface = "wiretap3",
                              .exception = "wireexc1",
                              .data_size = 2048,
                              .pool_size = POOL_SIZE,
                              .offloads = NIC_ETH_OFFLOADS_AUTO};
    uint8_t octets[2048], payload[100] = {0};
    struct end end;
    uint32_t given = 0;
    (void)state;

    end_open(&end, &wish);
    uint32_t frame_size =
        datagram_build(end.kernel_mac, end.nic->mac, payload, sizeof(payload), true, octets);
    for (uint32_t i = 0; i < 20000; i++) {
        if (buf_pool_available(end.pool) < 8)
            continue;
        end.nic->ops->except(end.nic, frame_of(end.pool, octets, frame_size, 2048));
        given++;
    }
    struct nic_eth_queue_stats stats = nic_eth_queue_stats(end.nic);
    assert_true(given > 256);
    tick_us deadline = now_read() + TIME_MAX;
    while (nic_eth_port_stats(end.port).exceptions_out + stats.except_dropped +
                   nic_eth_port_stats(end.port).exceptions_dropped <
               given &&
           now_read() < deadline)
        usleep(1000);
    assert_int_equal(given, nic_eth_port_stats(end.port).exceptions_out + stats.except_dropped +
                                nic_eth_port_stats(end.port).exceptions_dropped);
    end_close(&end);
}

static void test_tap_has_no_jumbo_frames(void **state)
{
    struct buf_pool *pool = NULL;
    char error[NIC_ETH_ERROR_SIZE];
    struct nic_eth_port *port = NULL;
    struct nic_eth_options options = {
        .device = "net_tap0,iface=wiretap5", .queue_count = 1, .pools = &pool, .mtu = 1505};
    (void)state;

    assert_int_equal(
        ERR_OK, buf_pool_new_on_mempool("receive", POOL_SIZE, 2048, BUF_MEMPOOL_ANY_NODE, &pool));
    assert_int_equal(ERR_CONFIG_VALUE, nic_eth_port_new(&options, &port, error));
    assert_string_equal("an MTU of 1505 is too large, at most 1504", error);
    options.mtu = 1504;
    assert_int_equal(ERR_OK, nic_eth_port_new(&options, &port, error));
    nic_eth_port_free(port);
    buf_pool_free(pool);
}

static void test_exception_refusals(void **state)
{
    const char *const names[] = {"", "a-name-that-is-too-long", "wiretap4"};
    struct buf_pool *pool = NULL;
    (void)state;

    assert_int_equal(
        ERR_OK, buf_pool_new_on_mempool("receive", POOL_SIZE, 2048, BUF_MEMPOOL_ANY_NODE, &pool));
    for (uint32_t i = 0; i < COUNT_OF(names); i++) {
        char error[NIC_ETH_ERROR_SIZE];
        struct nic_eth_port *port = NULL;
        const struct nic_eth_options options = {.device = "net_tap0,iface=wiretap4",
                                                .queue_count = 1,
                                                .pools = &pool,
                                                .exception = names[i]};

        assert_int_equal(ERR_SYSTEM, nic_eth_port_new(&options, &port, error));
        assert_non_null(strstr(error, "exception interface"));
        assert_int_equal(0, buf_pool_in_use(pool));
    }
    buf_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tap),
        cmocka_unit_test(test_tap_offloads),
        cmocka_unit_test(test_tap_scatter),
        cmocka_unit_test(test_tap_has_no_jumbo_frames),
        cmocka_unit_test(test_sigio_is_survived),
        cmocka_unit_test(test_af_packet),
        cmocka_unit_test(test_af_xdp),
        cmocka_unit_test(test_exception),
        cmocka_unit_test(test_exception_flood),
        cmocka_unit_test(test_exception_refusals),
    };
    const struct eal_options options = {.memory_mb = 128, .huge = EAL_HUGE_NEVER};
    struct eal_report report;
    sigset_t all;

    if (!kernel_net_enter() || access("/dev/net/tun", R_OK | W_OK) != 0) {
        print_message("1..0 # SKIP no network namespace, or no /dev/net/tun\n");
        return 0;
    }
    /* As the daemon does: net_tap must do without this thread's help. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, NULL);
    if (eal_start(&options, &report) != ERR_OK) {
        print_message("Bail out! %s\n", report.error);
        return 1;
    }
    return cmocka_run_group_tests_name("nic_eth_kernel", tests, NULL, NULL);
}
