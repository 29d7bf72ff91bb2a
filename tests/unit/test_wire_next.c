/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A frame that is read by comparison with the one before it is read as if it came alone. Two equal
 * stacks get a frame, then the same frame with one bit of its headers turned, then the first again:
 * one in a burst, the other one by one. Every bit of the Ethernet header, the IP header and the
 * ports is turned in turn, with the IPv4 checksum as it was and made right again; and frames with a
 * tag, with padding, in two buffers, with another verdict of the nic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "tests/unit/wire_fixture.h"

#define FRAME_MAX 256u

struct pair {
    struct fixture *burst, *single;
    uint8_t family;
    uint8_t frame[FRAME_MAX];
    uint32_t size;
};

static struct pair pair_new(uint8_t family, const struct fixture_options *options)
{
    static const uint8_t l4[TCP_HEADER_SIZE + 30] = {0x12, 0x34, 0, 25, [12] = 0x50, 0x10};
    struct pair pair = {
        .burst = fixture_new(options), .single = fixture_new(options), .family = family};
    const struct fixture_packet packet = {
        .source = family == 4 ? "192.0.2.77" : "2001:db8::77",
        .destination = family == 4 ? "192.0.2.1" : "2001:db8::1",
        .vlan = options->vlan,
        .protocol = IP_PROTOCOL_TCP,
        .payload = span_of(l4, sizeof(l4)),
    };
    pair.size = fixture_build(&packet, pair.frame);
    return pair;
}

static void pair_free(struct pair *pair)
{
    fixture_free(pair->burst);
    fixture_free(pair->single);
}

static void pair_compare(const struct pair *pair)
{
    const struct fixture *burst = pair->burst, *single = pair->single;

    for (uint32_t i = 0; i < STACK_COUNTER_COUNT; i++)
        assert_int_equal(fixture_counter(single, (enum stack_counter)i),
                         fixture_counter(burst, (enum stack_counter)i));
    assert_int_equal(single->segment_count, burst->segment_count);
    assert_int_equal(single->segment_size, burst->segment_size);
    assert_int_equal(single->segment_frame_size, burst->segment_frame_size);
    assert_int_equal(single->is_segment_checksum_known, burst->is_segment_checksum_known);
    assert_int_equal(single->is_segment_checksum_good, burst->is_segment_checksum_good);
    assert_memory_equal(&single->segment_ip, &burst->segment_ip,
                        offsetof(struct ip_header, destination) + 16);
}

static void turn_single(struct pair *pair)
{
    fixture_turn(pair->single, NULL, 0);
}

/* The frame, then the other one, then the frame again if `is_third`. */
static void pair_give(struct pair *pair, const uint8_t *other, uint32_t size, bool is_third)
{
    const struct span frames[] = {span_of(pair->frame, pair->size), span_of(other, size),
                                  span_of(pair->frame, pair->size)};

    for (uint32_t i = 0; i < (is_third ? 3u : 2u); i++) {
        fixture_inject(pair->burst, 0, frames[i]);
        fixture_inject(pair->single, 0, frames[i]);
        turn_single(pair);
    }
    fixture_turn(pair->burst, NULL, 0);
    pair_compare(pair);
    fixture_forget(pair->burst, 0);
    fixture_forget(pair->single, 0);
}

static void checksum_mend(uint8_t *l3)
{
    uint32_t size = (l3[0] & 15u) * 4;

    if (size < IP4_HEADER_SIZE)
        return;
    store_be16(l3 + 10, 0);
    uint16_t checksum = wire_sum_finish(wire_sum_header(l3, size));
    memcpy(l3 + 10, &checksum, sizeof(checksum));
}

static void turn_every_bit(struct pair *pair, uint32_t l3_at)
{
    uint32_t headers = l3_at + (pair->family == 4 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE) + 4;

    for (uint32_t bit = 0; bit < headers * 8; bit++) {
        for (uint32_t way = 0; way < 4; way++) {
            uint8_t other[FRAME_MAX];
            memcpy(other, pair->frame, pair->size);
            other[bit / 8] ^= (uint8_t)(1u << bit % 8);
            if (way & 1 && pair->family == 4)
                checksum_mend(other + l3_at);
            pair_give(pair, other, pair->size, way & 2);
        }
    }
}

static void test_every_bit(void **state)
{
    static const uint32_t offloads[] = {0, NIC_RX_CHECKSUM};

    (void)state;
    for (uint32_t i = 0; i < 8; i++) {
        struct fixture_options options = fixture_defaults();
        options.vlan = i & 2 ? 7 : 0;
        options.offloads |= offloads[i >> 2];
        struct pair pair = pair_new(i & 1 ? 6 : 4, &options);
        turn_every_bit(&pair, ETHERNET_HEADER_SIZE + (i & 2 ? ETHERNET_VLAN_SIZE : 0));
        pair_free(&pair);
    }
}

/* Goal: frames that are as good as the one before are read, and not sent the long way for nothing:
 * each size, with what the link adds behind. */
static void test_sizes_and_padding(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct fixture_options options = fixture_defaults();
        struct pair pair = pair_new(i == 0 ? 4 : 6, &options);
        uint32_t l3_at = ETHERNET_HEADER_SIZE, header = i == 0 ? IP4_HEADER_SIZE : IP6_HEADER_SIZE;
        for (uint32_t l4 = 0; l4 <= TCP_HEADER_SIZE + 40; l4++) {
            for (uint32_t padding = 0; padding < 3; padding++) {
                uint8_t other[FRAME_MAX] = {0};
                memcpy(other, pair.frame, l3_at + header + TCP_HEADER_SIZE);
                store_be16(other + l3_at + (i == 0 ? 2 : 4),
                           (uint16_t)(l4 + (i == 0 ? header : 0)));
                if (i == 0)
                    checksum_mend(other + l3_at);
                pair_give(&pair, other, l3_at + header + l4 + padding, padding == 1);
                /* More is said than there is. */
                if (l4 > 0)
                    pair_give(&pair, other, l3_at + header + l4 - 1, false);
            }
        }
        pair_free(&pair);
    }
}

static void test_two_buffers(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        const struct fixture_options options = fixture_defaults();
        struct pair pair = pair_new(i == 0 ? 4 : 6, &options);
        for (uint32_t piece = 1; piece < pair.size; piece++) {
            const struct span frame = span_of(pair.frame, pair.size);
            for (uint32_t j = 0; j < 3; j++) {
                struct fixture *both[] = {pair.burst, pair.single};
                for (uint32_t k = 0; k < 2; k++) {
                    if (j == 1)
                        fixture_inject_pieces(both[k], 0, frame, piece, 64);
                    else
                        fixture_inject(both[k], 0, frame);
                }
                turn_single(&pair);
            }
            fixture_turn(pair.burst, NULL, 0);
            pair_compare(&pair);
        }
        pair_free(&pair);
    }
}

/* Goal: what the nic found of one frame says nothing of the next. */
static void test_verdicts(void **state)
{
    static const uint64_t verdicts[] = {
        0,
        RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD,
        RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_GOOD,
        RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_BAD,
        RTE_MBUF_F_RX_IP_CKSUM_NONE | RTE_MBUF_F_RX_L4_CKSUM_NONE,
        RTE_MBUF_F_RX_VLAN | RTE_MBUF_F_RX_VLAN_STRIPPED,
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(verdicts) * COUNT_OF(verdicts) * 8; i++) {
        struct fixture_options options = fixture_defaults();
        options.offloads |= NIC_RX_CHECKSUM;
        struct pair pair = pair_new(i & 1 ? 6 : 4, &options);
        if (i & 2)
            pair.frame[ETHERNET_HEADER_SIZE + 10] ^= 1; /* a checksum, or somebody else */
        struct fixture *both[] = {pair.burst, pair.single};
        const uint64_t flags[] = {verdicts[i / 8 % COUNT_OF(verdicts)],
                                  verdicts[i / 8 / COUNT_OF(verdicts)]};
        for (uint32_t j = 0; j < 2; j++) {
            for (uint32_t k = 0; k < 2; k++) {
                struct fixture_nic *nic = &both[k]->nics[0];
                fixture_inject(both[k], 0, span_of(pair.frame, pair.size));
                nic->arriving[nic->arriving_count - 1]->mbuf.ol_flags = flags[j];
                nic->arriving[nic->arriving_count - 1]->mbuf.vlan_tci = i & 4 ? (uint16_t)j : 0;
            }
            turn_single(&pair);
        }
        fixture_turn(pair.burst, NULL, 0);
        pair_compare(&pair);
        pair_free(&pair);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_bit),
        cmocka_unit_test(test_sizes_and_padding),
        cmocka_unit_test(test_two_buffers),
        cmocka_unit_test(test_verdicts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
