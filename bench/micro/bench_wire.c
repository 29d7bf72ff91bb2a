/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the wire engine does once per segment: the checksum of its payload, alone and with a copy,
 * its header, the hash of its tuple. All data is in the nearest cache; the payload lies where it
 * lies in a frame, 54 octets behind a cache line.
 */
#include "bench/micro/harness.h"

#include <stdlib.h>

#include "base/rng.h"
#include "dataplane/wire/format/checksum.h"
#include "dataplane/wire/tcp/tcp.h"

#define PAYLOAD 1448u
#define OFFSET  54u

struct wire_context {
    _Alignas(64) uint8_t frame[OFFSET + PAYLOAD];
    _Alignas(64) uint8_t copy[OFFSET + PAYLOAD];
    uint8_t segment[60];
    uint32_t segment_size;
    struct siphash_key key;
    struct tcp_key tuple;
    struct rss_table *rss;
};

static void *wire_set_up(void)
{
    struct wire_context *context = aligned_alloc(64, sizeof(*context));
    static const uint8_t rss_key[NIC_RSS_KEY_SIZE] = {1, 2, 3};
    struct rng rng;

    CHECK(context != NULL);
    rng_init_seed(&rng, 1);
    rng_fill(&rng, context, sizeof(*context));
    struct tcp_header header = {
        .source_port = 25,
        .destination_port = 40000,
        .flags = TCP_ACK,
        .options = {.has_timestamps = true, .timestamp_value = 1, .timestamp_echo = 2}};
    context->segment_size = tcp_build(&header, context->segment);
    context->rss = rss_table_new(rss_key);
    return context;
}

static void wire_tear_down(void *pointer)
{
    struct wire_context *context = pointer;

    rss_table_free(context->rss);
    free(context);
}

static void sum(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(wire_sum(context->frame + OFFSET, PAYLOAD));
}

static void sum_portable(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(wire_sum_portable(context->frame + OFFSET, PAYLOAD));
}

static void sum_copy(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(wire_sum_copy(context->copy, context->frame + OFFSET, PAYLOAD));
}

static void sum_copy_portable(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(wire_sum_copy_portable(context->copy, context->frame + OFFSET, PAYLOAD));
}

static void parse_segment(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;
    struct tcp_header header;

    for (uint64_t i = 0; i < iterations; i++) {
        CHECK(tcp_parse(span_of(context->segment, context->segment_size), &header) == PACKET_OK);
        micro_keep((uint64_t)(uintptr_t)&header);
    }
}

static void build_segment(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;
    struct tcp_header header;
    uint8_t octets[60];

    CHECK(tcp_parse(span_of(context->segment, context->segment_size), &header) == PACKET_OK);
    for (uint64_t i = 0; i < iterations; i++) {
        header.sequence += PAYLOAD;
        micro_keep(tcp_build(&header, octets));
    }
}

static void hash13(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(siphash13(&context->key, &context->tuple, sizeof(context->tuple)));
}

static void hash24(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(siphash24(&context->key, &context->tuple, sizeof(context->tuple)));
}

static void hash_toeplitz(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(rss_base(context->rss, 4, context->tuple.remote, context->tuple.local, 25) ^
                   rss_port(context->rss, 4, (uint16_t)i));
}

static void try_port(void *pointer, uint64_t iterations)
{
    struct wire_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(rss_port(context->rss, 4, (uint16_t)(i * 7919)));
}

const struct micro_bench micro_bench_wire[] = {
    {"checksum", wire_set_up, sum, wire_tear_down, 1, 0,
     "1,448 octets, AVX2 where there is one, in cache, 1 core"},
    {"checksum_portable", wire_set_up, sum_portable, wire_tear_down, 1, 0,
     "1,448 octets without AVX2, in cache, 1 core"},
    {"checksum_copy", wire_set_up, sum_copy, wire_tear_down, 1, 0,
     "1,448 octets summed and copied, AVX2 where there is one, in cache, 1 core"},
    {"checksum_copy_portable", wire_set_up, sum_copy_portable, wire_tear_down, 1, 0,
     "1,448 octets summed and copied without AVX2, in cache, 1 core"},
    {"tcp_parse", wire_set_up, parse_segment, wire_tear_down, 1, 0,
     "header of 32 octets with timestamps, 1 core"},
    {"tcp_build", wire_set_up, build_segment, wire_tear_down, 1, 0,
     "header of 32 octets with timestamps, 1 core"},
    {"siphash13_tuple", wire_set_up, hash13, wire_tear_down, 1, 0, "40 octets, 1 core"},
    {"siphash24_tuple", wire_set_up, hash24, wire_tear_down, 1, 0, "40 octets, 1 core"},
    {"rss_tuple", wire_set_up, hash_toeplitz, wire_tear_down, 1, 0,
     "IPv4 tuple of 12 octets, from tables, 1 core"},
    {"rss_port", wire_set_up, try_port, wire_tear_down, 1, 0,
     "one candidate port, from tables, 1 core"},
    {0},
};
