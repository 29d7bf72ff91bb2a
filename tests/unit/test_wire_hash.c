/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hashes of the wire engine: SipHash and Toeplitz against published vectors, the Toeplitz
 * tables against the definition, and what sequence numbers and timestamp offsets are made of.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "dataplane/wire/tcp/tcp.h"

/* Key 00 01 .. 0f, message 00 01 .. of each size from 0 to 63. The first table is the one published
 * with the algorithm; the second, for which its authors gave none, is OpenSSL's. */
static const uint64_t siphash24_expected[64] = {
    0x726fdb47dd0e0e31, 0x74f839c593dc67fd, 0x0d6c8009d9a94f5a, 0x85676696d7fb7e2d,
    0xcf2794e0277187b7, 0x18765564cd99a68d, 0xcbc9466e58fee3ce, 0xab0200f58b01d137,
    0x93f5f5799a932462, 0x9e0082df0ba9e4b0, 0x7a5dbbc594ddb9f3, 0xf4b32f46226bada7,
    0x751e8fbc860ee5fb, 0x14ea5627c0843d90, 0xf723ca908e7af2ee, 0xa129ca6149be45e5,
    0x3f2acc7f57c29bdb, 0x699ae9f52cbe4794, 0x4bc1b3f0968dd39c, 0xbb6dc91da77961bd,
    0xbed65cf21aa2ee98, 0xd0f2cbb02e3b67c7, 0x93536795e3a33e88, 0xa80c038ccd5ccec8,
    0xb8ad50c6f649af94, 0xbce192de8a85b8ea, 0x17d835b85bbb15f3, 0x2f2e6163076bcfad,
    0xde4daaaca71dc9a5, 0xa6a2506687956571, 0xad87a3535c49ef28, 0x32d892fad841c342,
    0x7127512f72f27cce, 0xa7f32346f95978e3, 0x12e0b01abb051238, 0x15e034d40fa197ae,
    0x314dffbe0815a3b4, 0x027990f029623981, 0xcadcd4e59ef40c4d, 0x9abfd8766a33735c,
    0x0e3ea96b5304a7d0, 0xad0c42d6fc585992, 0x187306c89bc215a9, 0xd4a60abcf3792b95,
    0xf935451de4f21df2, 0xa9538f0419755787, 0xdb9acddff56ca510, 0xd06c98cd5c0975eb,
    0xe612a3cb9ecba951, 0xc766e62cfcadaf96, 0xee64435a9752fe72, 0xa192d576b245165a,
    0x0a8787bf8ecb74b2, 0x81b3e73d20b49b6f, 0x7fa8220ba3b2ecea, 0x245731c13ca42499,
    0xb78dbfaf3a8d83bd, 0xea1ad565322a1a0b, 0x60e61c23a3795013, 0x6606d7e446282b93,
    0x6ca4ecb15c5f91e1, 0x9f626da15c9625f3, 0xe51b38608ef25f57, 0x958a324ceb064572,
};
static const uint64_t siphash13_expected[64] = {
    0xabac0158050fc4dc, 0xc9f49bf37d57ca93, 0x82cb9b024dc7d44d, 0x8bf80ab8e7ddf7fb,
    0xcf75576088d38328, 0xdef9d52f49533b67, 0xc50d2b50c59f22a7, 0xd3927d989bb11140,
    0x369095118d299a8e, 0x25a48eb36c063de4, 0x79de85ee92ff097f, 0x70c118c1f94dc352,
    0x78a384b157b4d9a2, 0x306f760c1229ffa7, 0x605aa111c0f95d34, 0xd320d86d2a519956,
    0xcc4fdd1a7d908b66, 0x9cf2689063dbd80c, 0x8ffc389cb473e63e, 0xf21f9de58d297d1c,
    0xc0dc2f46a6cce040, 0xb992abfe2b45f844, 0x7ffe7b9ba320872e, 0x525a0e7fdae6c123,
    0xf464aeb267349c8c, 0x45cd5928705b0979, 0x3a3e35e3ca9913a5, 0xa91dc74e4ade3b35,
    0xfb0bed02ef6cd00d, 0x88d93cb44ab1e1f4, 0x540f11d643c5e663, 0x2370dd1f8c21d1bc,
    0x81157b6c16a7b60d, 0x4d54b9e57a8ff9bf, 0x759f12781f2a753e, 0xcea1a3bebf186b91,
    0x2cf508d3ada26206, 0xb6101c2da3c33057, 0xb3f47496ae3a36a1, 0x626b57547b108392,
    0xc1d2363299e41531, 0x667cc1923f1ad944, 0x65704ffec8138825, 0x24f280d1c28949a6,
    0xc2ca1cedfaf8876b, 0xc2164bfc9f042196, 0xa16e9c9368b1d623, 0x49fb169c8b5114fd,
    0x9f3143f8df074c46, 0xc6fdaf2412cc86b3, 0x7eaf49d10a52098f, 0x1cf313559d292f9a,
    0xc44a30dda2f41f12, 0x36fae98943a71ed0, 0x318fb34c73f0bce6, 0xa27abf3670a7e980,
    0xb4bcc0db243c6d75, 0x23f8d852fdb71513, 0x8f035f4da67d8a08, 0xd89cd0e5b7e8f148,
    0xf6f4e6bcf7a644ee, 0xaec59ad80f1837f2, 0xc3b2f6154b6694e0, 0x9d199062b7bbb3a8,
};

static void test_siphash_of_every_size(void **state)
{
    const struct siphash_key key = {{0x0706050403020100, 0x0f0e0d0c0b0a0908}};

    (void)state;
    for (uint32_t size = 0; size < 64; size++) {
        uint8_t *message = malloc(size + 1); /* from 1 on: misaligned, and its end is guarded */
        assert_non_null(message);
        for (uint32_t i = 0; i < size; i++)
            message[1 + i] = (uint8_t)i;
        assert_true(siphash24_expected[size] == siphash24(&key, message + 1, size));
        assert_true(siphash13_expected[size] == siphash13(&key, message + 1, size));
        free(message);
    }
}

/* The key and the tuples of Microsoft's "Verifying the RSS Hash Calculation"; the 12 octets more
 * that our keys have play no part. */
static const uint8_t verification_key[NIC_RSS_KEY_SIZE] = {
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43,
    0xa3, 0x8f, 0xb0, 0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb,
    0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c, 0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01,
    0xfa, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
};

static void test_toeplitz_vectors(void **state)
{
    static const struct {
        const char *destination;
        uint16_t destination_port;
        const char *source;
        uint16_t source_port;
        uint32_t hash;
    } rows[] = {
        {"161.142.100.80", 1766, "66.9.149.187", 2794, 0x51ccc178},
        {"65.69.140.83", 4739, "199.92.111.2", 14230, 0xc626b0ea},
        {"12.22.207.184", 38024, "24.19.198.95", 12898, 0x5c2b394a},
        {"209.142.163.6", 2217, "38.27.205.30", 48228, 0xafc7327f},
        {"202.188.127.2", 1303, "153.39.163.191", 44251, 0x10e828a2},
        {"3ffe:2501:200:3::1", 1766, "3ffe:2501:200:1fff::7", 2794, 0x40207d3d},
        {"ff02::1", 4739, "3ffe:501:8::260:97ff:fe40:efab", 14230, 0xdde51bbf},
        {"fe80::200:f8ff:fe21:67cf", 38024, "3ffe:1900:4545:3:200:f8ff:fe21:67cf", 44251,
         0x02d1feef},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address source, destination;

        print_message("# case: %s\n", rows[i].source);
        assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(rows[i].source), &source));
        assert_int_equal(ERR_OK,
                         flow_address_parse_ip(span_from_text(rows[i].destination), &destination));
        assert_int_equal(rows[i].hash,
                         rss_hash(verification_key, source.family, source.ip, destination.ip,
                                  rows[i].source_port, rows[i].destination_port));
    }
}

/* Goal: tables and definition agree for any key and tuple, so that the queue of a reply is known
 * before the port is chosen. */
static void test_tables_are_the_hash(void **state)
{
    uint8_t key[NIC_RSS_KEY_SIZE], remote[16], local[16];
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 1);
    for (uint32_t round = 0; round < 5; round++) {
        rng_fill(&rng, key, sizeof(key));
        struct rss_table *table = rss_table_new(key);
        for (uint32_t i = 0; i < 2000; i++) {
            uint8_t family = i % 2 == 0 ? 4 : 6;
            uint16_t remote_port = (uint16_t)rng_u32(&rng), local_port = (uint16_t)rng_u32(&rng);

            rng_fill(&rng, remote, sizeof(remote));
            rng_fill(&rng, local, sizeof(local));
            assert_int_equal(rss_hash(key, family, remote, local, remote_port, local_port),
                             rss_base(table, family, remote, local, remote_port) ^
                                 rss_port(table, family, local_port));
        }
        rss_table_free(table);
    }
}

/* Goal: every local port's contribution is right, all 65,536 of them. */
static void test_every_port(void **state)
{
    static const uint8_t ip[16];
    struct rss_table *table = rss_table_new(verification_key);

    (void)state;
    for (uint32_t port = 0; port <= UINT16_MAX; port++) {
        assert_int_equal(rss_hash(verification_key, 4, ip, ip, 0, (uint16_t)port),
                         rss_port(table, 4, (uint16_t)port));
        assert_int_equal(rss_hash(verification_key, 6, ip, ip, 0, (uint16_t)port),
                         rss_port(table, 6, (uint16_t)port));
    }
    rss_table_free(table);
}

static struct stack *stack_of_keys(void)
{
    struct stack *stack = calloc(1, sizeof(*stack)); /* only keys and time are looked at */

    assert_non_null(stack);
    stack->isn_key = (struct siphash_key){{1, 2}};
    stack->timestamp_key = (struct siphash_key){{3, 4}};
    stack->now = 1000000;
    return stack;
}

static const struct tcp_key tuple = {.local = {192, 0, 2, 1},
                                     .remote = {192, 0, 2, 2},
                                     .local_port = 40000,
                                     .remote_port = 25,
                                     .family = 4};

/* RFC 6528 3: ISN = M + F(localip, localport, remoteip, remoteport, secretkey), M a clock of 4
 * microseconds. */
static void test_isn_is_a_clock_per_tuple(void **state)
{
    struct stack *stack = stack_of_keys();
    uint32_t first = tcp_isn(stack, &tuple);

    (void)state;
    assert_int_equal(first, (uint32_t)siphash24(&stack->isn_key, &tuple, 40) + 250000);
    stack->now += 3;
    assert_int_equal(first, tcp_isn(stack, &tuple));
    stack->now += 1;
    assert_int_equal(first + 1, tcp_isn(stack, &tuple));
    stack->now +=
        UINT64_C(4) << 32; /* 4.77 hours: the clock is round, and not cut off by 32 bits */
    assert_int_equal(first + 1, tcp_isn(stack, &tuple));
    stack->now += 4000;
    assert_int_equal(first + 1001, tcp_isn(stack, &tuple));
    free(stack);
}

/* Goal: every part of the tuple and every bit of the key makes another sequence; the offset of the
 * timestamps is a sequence of its own, and does not move with time. */
static void test_every_part_of_the_tuple_counts(void **state)
{
    struct stack *stack = stack_of_keys();
    uint32_t isn = tcp_isn(stack, &tuple), offset = tcp_timestamp_offset(stack, &tuple);
    static const uint8_t places[] = {0, 3, 15, 16, 19, 31, 32, 33, 34, 35, 36};

    (void)state;
    assert_int_not_equal(isn - 250000, offset);
    for (size_t i = 0; i < COUNT_OF(places); i++) {
        struct tcp_key other = tuple;
        ((uint8_t *)&other)[places[i]] ^= 1;
        assert_int_not_equal(isn, tcp_isn(stack, &other));
        assert_int_not_equal(offset, tcp_timestamp_offset(stack, &other));
    }
    for (uint32_t bit = 0; bit < 128; bit++) {
        stack->isn_key.words[bit / 64] ^= UINT64_C(1) << bit % 64;
        stack->timestamp_key.words[bit / 64] ^= UINT64_C(1) << bit % 64;
        assert_int_not_equal(isn, tcp_isn(stack, &tuple));
        assert_int_not_equal(offset, tcp_timestamp_offset(stack, &tuple));
        stack->isn_key.words[bit / 64] ^= UINT64_C(1) << bit % 64;
        stack->timestamp_key.words[bit / 64] ^= UINT64_C(1) << bit % 64;
    }
    stack->now += 123456789;
    assert_int_equal(offset, tcp_timestamp_offset(stack, &tuple));
    free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_siphash_of_every_size),
        cmocka_unit_test(test_toeplitz_vectors),
        cmocka_unit_test(test_tables_are_the_hash),
        cmocka_unit_test(test_every_port),
        cmocka_unit_test(test_isn_is_a_clock_per_tuple),
        cmocka_unit_test(test_every_part_of_the_tuple_counts),
    };
    return cmocka_run_group_tests_name("wire_hash", tests, NULL, NULL);
}
