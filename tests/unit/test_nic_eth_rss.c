/* SPDX-License-Identifier: Apache-2.0 */
/* When a card's hash is believed: frames are made by hand, the EAL is not started. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/net/net.h"
#include "dataplane/wire/port/nic_eth_internal.h"

#define QUEUES 4u

static struct buf_pool *pool;
static struct rng rng;

struct port {
    struct nic_eth_port port;
    struct nic_eth queues[QUEUES];
};

static void port_init(struct port *port)
{
    *port = (struct port){.port.queue_count = QUEUES, .port.queues = port->queues};
    for (uint16_t i = 0; i < QUEUES; i++) {
        struct nic_eth *queue = &port->queues[i];

        queue->port = &port->port;
        queue->queue = i;
        queue->is_judged = true;
        queue->hashes_needed[0] = queue->hashes_needed[1] = NIC_ETH_HASHES_NEEDED;
        queue->nic.steering = (struct nic_steering){.queue_count = QUEUES, .reta_size = 128};
        for (uint16_t k = 0; k < 128; k++)
            queue->nic.steering.reta[k] = k % QUEUES;
        for (uint32_t k = 0; k < NIC_RSS_KEY_SIZE; k++)
            queue->nic.steering.key[k] = (uint8_t)(k * 73 + 11);
    }
}

/* What may be the matter with a frame. */
struct shape {
    const char *name;
    uint8_t family, protocol;
    uint16_t source_port, destination_port;
    uint8_t first_octet; /* of the IP header; 0: as it should be */
    uint16_t fragment;   /* IPv4 */
    uint64_t flags;      /* besides RTE_MBUF_F_RX_RSS_HASH */
    bool is_short;       /* no room for a header of L4 */
    bool is_judged;      /* its hash is compared at all */
};

static struct buf *frame_new(const struct shape *shape)
{
    struct buf *frame = buf_acquire(pool);
    uint8_t *octets = buf_data(frame);
    bool is_ip4 = shape->family == 4;
    uint32_t l3 = is_ip4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE, l4 = shape->is_short ? 3 : 20;
    uint8_t *ip = octets + ETHERNET_HEADER_SIZE;

    buf_extend(frame, ETHERNET_HEADER_SIZE + l3 + l4);
    rng_fill(&rng, octets, buf_size(frame));
    store_be16(octets + 12, is_ip4 ? ETHERTYPE_IP4 : ETHERTYPE_IP6);
    ip[0] = shape->first_octet > 0 ? shape->first_octet : is_ip4 ? 0x45 : 0x60;
    if (is_ip4) {
        store_be16(ip + 2, (uint16_t)(l3 + l4));
        store_be16(ip + 6, shape->fragment);
        ip[9] = shape->protocol;
    } else {
        store_be16(ip + 4, (uint16_t)l4);
        ip[6] = shape->protocol;
    }
    if (!shape->is_short) {
        store_be16(ip + l3, shape->source_port);
        store_be16(ip + l3 + 2, shape->destination_port);
    }
    frame->mbuf.ol_flags = RTE_MBUF_F_RX_RSS_HASH | shape->flags;
    return frame;
}

static uint32_t hash_of(const struct nic_steering *steering, const struct buf *frame,
                        uint8_t family)
{
    const uint8_t *ip = buf_data(frame) + ETHERNET_HEADER_SIZE;
    const uint8_t *source = ip + (family == 4 ? 12 : 8);
    uint32_t size = family == 4 ? 4 : 16;
    const uint8_t *l4 = ip + (family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE);

    return rss_hash(steering->key, family, source, source + size, load_be16(l4), load_be16(l4 + 2));
}

/* A card that does it right gives the frame to the right queue; returns that queue. */
static struct nic_eth *deliver(struct port *port, const struct shape *shape, uint32_t error)
{
    struct buf *frame = frame_new(shape);
    uint32_t hash = hash_of(&port->queues[0].nic.steering, frame, shape->family);
    struct nic_eth *queue = &port->queues[hash % 128 % QUEUES];

    frame->mbuf.hash.rss = hash ^ error;
    if (queue->is_judged)
        nic_eth_rss_judge(queue, &frame, 1);
    buf_release(frame);
    return queue;
}

static const struct shape tcp4 = {"tcp4", 4, 6, 40000, 25, 0, 0, 0, false, true};
static const struct shape tcp6 = {"tcp6", 6, 6, 40000, 25, 0, 0, 0, false, true};

static void test_trust_is_earned(void **state)
{
    struct port port;
    (void)state;

    port_init(&port);
    for (uint32_t i = 0; i < 1000; i++) {
        struct nic_eth *queue = deliver(&port, &tcp4, 0);

        assert_int_equal(queue->stats.hash_good >= NIC_ETH_HASHES_NEEDED,
                         queue->nic.steering.is_hardware);
        assert_int_equal(0, queue->stats.hash_bad);
    }
    for (uint32_t i = 0; i < QUEUES; i++) {
        assert_true(port.queues[i].nic.steering.is_hardware);
        assert_int_equal(NIC_ETH_HASHES_NEEDED, port.queues[i].hashes_needed[1]);
    }
}

/* One version right and the other wrong is wrong. */
static void test_one_wrong_hash_is_enough(void **state)
{
    struct port port;
    (void)state;

    port_init(&port);
    for (uint32_t i = 0; i < 1000; i++)
        (void)deliver(&port, &tcp4, 0);
    struct nic_eth *caught = deliver(&port, &tcp6, 1u << 30);
    assert_int_equal(1, caught->stats.hash_bad);
    assert_false(caught->nic.steering.is_hardware);
    assert_true(port.port.is_hash_wrong);

    /* The other queues hear of it with their next frames, and nobody comes back. */
    for (uint32_t i = 0; i < 1000; i++)
        (void)deliver(&port, &tcp4, 0);
    for (uint32_t i = 0; i < QUEUES; i++) {
        assert_false(port.queues[i].nic.steering.is_hardware);
        assert_false(port.queues[i].is_judged);
    }
}

static void test_wrong_queue(void **state)
{
    struct port port;
    struct buf *frame = frame_new(&tcp4);
    (void)state;

    port_init(&port);
    frame->mbuf.hash.rss = hash_of(&port.queues[0].nic.steering, frame, 4);
    nic_eth_rss_judge(&port.queues[(frame->mbuf.hash.rss + 1) % 128 % QUEUES], &frame, 1);
    assert_true(port.port.is_hash_wrong);
    buf_release(frame);
}

static void test_no_hash_at_all(void **state)
{
    struct port port;
    struct buf *frame = frame_new(&tcp4);
    (void)state;

    port_init(&port);
    frame->mbuf.hash.rss = hash_of(&port.queues[0].nic.steering, frame, 4);
    frame->mbuf.ol_flags = 0;
    nic_eth_rss_judge(&port.queues[frame->mbuf.hash.rss % 128 % QUEUES], &frame, 1);
    assert_true(port.port.is_hash_wrong);
    buf_release(frame);
}

/* Once proved, a sample is still taken now and then. */
static void test_a_card_that_changes(void **state)
{
    struct port port;
    uint32_t frames = 0;
    (void)state;

    port_init(&port);
    for (uint32_t i = 0; i < 2500; i++) {
        (void)deliver(&port, &tcp4, 0);
        (void)deliver(&port, &tcp6, 0);
    }
    for (uint32_t i = 0; i < QUEUES; i++)
        assert_int_equal(0, port.queues[i].hashes_needed[0] + port.queues[i].hashes_needed[1]);
    assert_false(port.port.is_hash_wrong);
    while (!port.port.is_hash_wrong && frames < 2 * QUEUES * 1024) {
        (void)deliver(&port, &tcp4, 1);
        frames++;
    }
    assert_true(port.port.is_hash_wrong);
    assert_true(frames > 16);
}

/* What cards hash in their own ways neither proves nor disproves anything. */
static const struct shape shapes[] = {
    {"TCP over IPv4", 4, 6, 1, 2, 0, 0, 0, false, true},
    {"TCP over IPv6", 6, 6, 1, 2, 0, 0, 0, false, true},
    {"do not fragment", 4, 6, 1, 2, 0, 0x4000, 0, false, true},
    {"an answer", 4, 17, 53, 16384, 0, 0, 0, false, true},
    {"an answer by IPv6", 6, 17, 53, 65535, 0, 0, 0, false, true},
    {"good checksums", 4, 6, 1, 2, 0, 0, RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD,
     false, true},
    {"UDP to a low port", 4, 17, 53, 16383, 0, 0, 0, false, false},
    {"UDP to a tunnel", 4, 17, 1000, 4789, 0, 0, 0, false, false},
    {"UDP from elsewhere", 6, 17, 54, 40000, 0, 0, 0, false, false},
    {"ICMP", 4, 1, 1, 2, 0, 0, 0, false, false},
    {"an extension header", 6, 0, 1, 2, 0, 0, 0, false, false},
    {"IP options", 4, 6, 1, 2, 0x46, 0, 0, false, false},
    {"version 5", 4, 6, 1, 2, 0x55, 0, 0, false, false},
    {"version 4 as 6", 6, 6, 1, 2, 0x45, 0, 0, false, false},
    {"first fragment", 4, 6, 1, 2, 0, 0x2000, 0, false, false},
    {"last fragment", 4, 6, 1, 2, 0, 0x0001, 0, false, false},
    {"bad IP checksum", 4, 6, 1, 2, 0, 0, RTE_MBUF_F_RX_IP_CKSUM_BAD, false, false},
    {"bad TCP checksum", 4, 6, 1, 2, 0, 0, RTE_MBUF_F_RX_L4_CKSUM_BAD, false, false},
    {"too short", 4, 6, 1, 2, 0, 0, 0, true, false},
    {"too short, IPv6", 6, 6, 1, 2, 0, 0, 0, true, false},
};

static void test_what_is_compared(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(shapes); i++) {
        struct port port;
        struct buf *frame = frame_new(&shapes[i]);

        port_init(&port);
        frame->mbuf.hash.rss = hash_of(&port.queues[0].nic.steering, frame, shapes[i].family) ^ 1;
        nic_eth_rss_judge(&port.queues[0], &frame, 1);
        if (port.queues[0].stats.hash_bad != shapes[i].is_judged)
            fail_msg("%s", shapes[i].name);
        buf_release(frame);
    }
}

/* Sizes that the packet claims, and octets that are not there. */
static void test_every_cut(void **state)
{
    (void)state;
    for (uint32_t family = 4; family <= 6; family += 2) {
        struct buf *whole = frame_new(family == 4 ? &tcp4 : &tcp6);

        for (uint32_t size = 0; size <= buf_size(whole); size++) {
            struct port port;
            struct buf *frame = buf_acquire(pool);

            /* At the end of the buffer, so that AddressSanitizer sees a look behind it. */
            frame->mbuf.data_off = (uint16_t)(frame->mbuf.buf_len - size);
            buf_extend(frame, size);
            memcpy(buf_data(frame), buf_data(whole), size);
            frame->mbuf.ol_flags = RTE_MBUF_F_RX_RSS_HASH;
            port_init(&port);
            nic_eth_rss_judge(&port.queues[0], &frame, 1);
            assert_int_equal(size == buf_size(whole),
                             port.queues[0].stats.hash_bad + port.queues[0].stats.hash_good);
            buf_release(frame);
        }
        buf_release(whole);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_trust_is_earned),     cmocka_unit_test(test_one_wrong_hash_is_enough),
        cmocka_unit_test(test_wrong_queue),         cmocka_unit_test(test_no_hash_at_all),
        cmocka_unit_test(test_a_card_that_changes), cmocka_unit_test(test_what_is_compared),
        cmocka_unit_test(test_every_cut),
    };

    rng_init_seed(&rng, 20261);
    pool = buf_pool_new(
        &(struct buf_pool_options){.data_size = 128, .count_max = 4, .backing = BUF_BACKING_HEAP});
    int failed = cmocka_run_group_tests_name("nic_eth_rss", tests, NULL, NULL);
    buf_pool_free(pool);
    return failed;
}
