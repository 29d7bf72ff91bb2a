/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium-flood: does a server keep serving while it is flooded? One process, one core: an engine
 * that does honest work (requests of 64 octets on some connections, or bulk), and hostile frames
 * through the same port. The rate of the honest work is measured before, during and after.
 *
 *   angarium-flood KIND request|bulk DEVICE OUR-IP/BITS SERVER-IP:PORT RATE SECONDS [REQUESTS]
 *
 * REQUESTS: honest ones per second; else as many as get through, which is what two saturated cores
 * have left beside the flood and says little of the server.
 *
 * One line of JSON: honest work per second in each phase, frames sent per second.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/wire/flood.h"
#include "bench/wire/wire_bench.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/nic_eth.h"
#include "dataplane/wire/stack.h"

#define MEMORY_MB   512u
#define STREAMS     1000u
#define EVENT_BURST 256u
#define SETTLE_TIME TICK_S(1)

struct setup {
    struct buf_pool *retained, *receive, *headers, *clones;
    struct nic_eth_port *port;
    struct nic *flood;
    struct stack *stack;
};

__attribute__((noreturn)) static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "angarium-flood: %s: %s\n", what, why);
    exit(1);
}

static struct buf_pool *pool_new(const char *name, uint32_t count, uint32_t size)
{
    struct buf_pool *pool = NULL;

    if (buf_pool_new_on_mempool(name, count, size, BUF_MEMPOOL_ANY_NODE, &pool) != ERR_OK)
        fail(name, "no memory");
    return pool;
}

static void port_open(struct setup *setup, const char *device)
{
    struct eal_options eal = {.memory_mb = MEMORY_MB};
    struct eal_report report;
    char error[NIC_ETH_ERROR_SIZE] = "";

    if (eal_start(&eal, &report) != ERR_OK)
        fail("DPDK", report.error);
    setup->retained = pool_new("retained", 4096, 16384);
    setup->receive = pool_new("receive", 16384, 2048);
    setup->headers = pool_new("headers", 8192, STACK_HEADER_SIZE);
    setup->clones = pool_new("clones", 16384, 64);
    struct nic_eth_options options = {.device = device,
                                      .queue_count = 1,
                                      .pools = &setup->receive,
                                      .mtu = 1500,
                                      .offloads = NIC_ETH_OFFLOADS_AUTO,
                                      .connect_time = TICK_S(10)};
    if (nic_eth_port_new(&options, &setup->port, error) != ERR_OK)
        fail(device, error);
}

static struct flow_plane *stack_begin(struct setup *setup, const struct stack_address *address,
                                      struct nic *nic)
{
    const struct tick_source *clock = tick_source_system();
    struct stack_port_options port = {
        .nic = nic, .mtu = 1500, .addresses = address, .address_count = 1};
    struct stack_options options = {.pool = setup->retained,
                                    .header_pool = setup->headers,
                                    .clone_pool = setup->clones,
                                    .ports = &port,
                                    .port_count = 1,
                                    .flow_count_max = 4096,
                                    .time_wait_max = 4096,
                                    .syn_cache_max = 1024,
                                    .neighbour_max = 64,
                                    .destination_max = 64,
                                    .orphan_time = TICK_S(5),
                                    .now = clock->monotonic(clock->context),
                                    .seed = {1, 2},
                                    .core_count = 1,
                                    .tcp = tcp_policy_default()};

    if (stack_new(&options, &setup->stack) != ERR_OK)
        fail("engine", "impossible options");
    return stack_plane(setup->stack);
}

static void turn(struct wire_bench *bench)
{
    const struct tick_source *clock = tick_source_system();
    struct flow_event events[EVENT_BURST] UNINITIALIZED;

    bench->now = clock->monotonic(clock->context);
    uint32_t count = flow_poll(bench->plane, bench->now, events, EVENT_BURST);
    wire_bench_client_turn(bench);
    for (uint32_t i = 0; i < count; i++)
        wire_bench_client_event(bench, &events[i]);
    flow_flush(bench->plane, bench->now);
}

/* Honest work per second over `time`, after it settled. */
static double phase(struct wire_bench *bench, tick_us time)
{
    tick_us begin = bench->now;
    uint64_t sent = 0;

    while (bench->now < begin + SETTLE_TIME)
        turn(bench);
    begin = bench->now;
    sent = flow_plane_stats(bench->plane).octets_sent;
    bench->result.operations = 0;
    bench->is_measuring = true;
    while (bench->now < begin + time)
        turn(bench);
    bench->is_measuring = false;
    double work = bench->options->mode == WIRE_BENCH_BULK
                      ? (double)(flow_plane_stats(bench->plane).octets_sent - sent)
                      : (double)bench->result.operations;
    return work * 1e6 / (double)(bench->now - begin);
}

static uint64_t number_of(const char *text)
{
    uint64_t value;

    if (span_parse_u64(span_from_text(text), &value) != ERR_OK)
        fail(text, "not a number");
    return value;
}

/* "10.9.0.1:25" or "10.9.1.1/16": the address, and the number behind the mark. */
static struct flow_address address_of(const char *text, char mark, uint64_t *ret_number)
{
    const char *end = strchr(text, mark);
    struct flow_address address;

    if (end == NULL ||
        flow_address_parse_ip(span_of(text, (uint32_t)(end - text)), &address) != ERR_OK ||
        address.family != FLOW_FAMILY_IP4)
        fail(text, "expected an IPv4 address");
    *ret_number = number_of(end + 1);
    return address;
}

static void run(struct wire_bench *bench, struct setup *setup, uint64_t rate, tick_us time)
{
    double before = phase(bench, time);
    struct flood_stats start = flood_get_stats(setup->flood);
    tick_us begin = bench->now;

    flood_set_rate(setup->flood, rate);
    double during = phase(bench, time);
    struct flood_stats end = flood_get_stats(setup->flood);
    double seconds = (double)(bench->now - begin) / 1e6;
    flood_set_rate(setup->flood, 0);
    double after = phase(bench, time);
    (void)printf("{\"before\":%.0f,\"during\":%.0f,\"after\":%.0f,\"kept\":%.3f,"
                 "\"frames_per_second\":%.0f,\"refused\":%llu,\"answered\":%llu,"
                 "\"failures\":%llu}\n",
                 before, during, after, during / before, (double)(end.sent - start.sent) / seconds,
                 (unsigned long long)(end.refused - start.refused),
                 (unsigned long long)(end.answered - start.answered),
                 (unsigned long long)bench->result.failures);
}

int main(int count, char **words)
{
    struct wire_bench_options options = {.streams = STREAMS, .window = 262144};
    struct wire_bench bench = {.options = &options};
    struct setup setup = {0};
    uint64_t bits, port;

    if (count != 8 && count != 9)
        fail("usage",
             "KIND request|bulk DEVICE OUR-IP/BITS SERVER-IP:PORT RATE SECONDS [REQUESTS]");
    struct flood_options flood = {.kind = flood_kind_of(words[1]), .seed = 4711};
    options.mode = strcmp(words[2], "bulk") == 0 ? WIRE_BENCH_BULK : WIRE_BENCH_REQUEST;
    struct stack_address ours = {.address = address_of(words[4], '/', &bits)};
    options.peer = address_of(words[5], ':', &port);
    ours.prefix_bits = (uint8_t)bits;
    options.peer.port = flood.port = (uint16_t)port;
    memcpy(flood.target, options.peer.ip, 4);
    if (flood.kind == FLOOD_KIND_COUNT)
        fail(words[1], "no such flood");
    if (count == 9)
        options.rate = (uint32_t)number_of(words[8]);

    port_open(&setup, words[3]);
    flood.below = nic_eth_queue(setup.port, 0);
    setup.flood = flood_new(&flood, setup.retained);
    bench.plane = stack_begin(&setup, &ours, setup.flood);
    rng_init_seed(&bench.rng, 1);
    wire_bench_client_begin(&bench);
    turn(&bench);
    run(&bench, &setup, number_of(words[6]), TICK_S(number_of(words[7])));
    wire_bench_end(&bench);
    flow_plane_free(bench.plane);
    nic_eth_port_free(setup.port);
    buf_pool_free(setup.retained);
    buf_pool_free(setup.receive);
    buf_pool_free(setup.headers);
    buf_pool_free(setup.clones);
    return 0;
}
