/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a process with DPDK has: the EAL, for each core pools on mempools, for each port a queue per
 * core, and an engine per core over its queues.
 *
 *   receive    per core, filled by the ports' drivers: dataplane.memory divided by the cores
 *   retained   per core, buffers of the mail on its way: as much as with kernel sockets
 *   header, clone  per core, for frames on their way out: as many as the ports' queues can hold
 *
 * What one engine learns of the network (a neighbour's address, a smaller MTU) goes to all others
 * over rings (queue/ring.h) that are looked at in every turn. The group has one member per core and
 * carries nothing else; a full ring makes news wait at its sender.
 *
 * Limits: DATAPLANE_PORT_MAX ports. The EAL's memory is the sum of the pools, a quarter more, and
 * EAL_OVERHEAD.
 */
#include "dataplane/dataplane_dpdk.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dataplane/flow_pair.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/nic_eth.h"
#include "dataplane/wire/stack.h"
#include "queue/ring.h"

#define MEGABYTE           (1u << 20)
#define EAL_OVERHEAD       (96ull * MEGABYTE)
#define BUFFER_OVERHEAD    384u /* mbuf, headroom, mempool's header and alignment */
#define RECEIVE_ROOM_MIN   2048u
#define RECEIVE_ROOM_EXTRA 64u /* Ethernet header, tag, alignment */
#define RECEIVE_COUNT_MIN  4096u
#define HEADER_COUNT       8192u
#define CLONE_COUNT        16384u
#define RECEIVE_RESERVE    8u /* one in so many receive buffers is kept for frames to come */
#define NEWS_RING_SIZE     256u
#define TIME_WAIT_PER_FLOW 4u
#define TIME_WAIT_MIN      65536u
#define SYN_CACHE_COUNT    16384u
#define NEIGHBOUR_COUNT    4096u
#define DESTINATION_COUNT  65536u
#define ORPHAN_TIME        TICK_S(30)
#define WATCH_INTERVAL     TICK_S(1)
#define CONNECT_TIME       TICK_S(10) /* for the other end of a memif */

struct core {
    struct dataplane_dpdk *dpdk;
    uint16_t index;
    struct buf_pool *retained, *receive, *headers, *clones;
    struct stack *stack; /* the pair's, so freed with it */
    struct nic *nics[DATAPLANE_PORT_MAX];
    bool has_nics; /* nics are ours; else the stack's, which frees them */
};

struct dataplane_dpdk {
    const struct dataplane_options *options;
    struct nic_eth_port *ports[DATAPLANE_PORT_MAX];
    struct core *cores;
    struct ring_group *news;          /* NULL with one core */
    bool is_gone[DATAPLANE_PORT_MAX]; /* and it was said */
    tick_us watch_next;
};

static enum err fail(char why[DATAPLANE_WHY_SIZE], enum err err, const char *what,
                     const char *detail)
{
    snprintf(why, DATAPLANE_WHY_SIZE, "%s: %.300s", what,
             detail == NULL || *detail == '\0' ? err_text(err) : detail);
    return err;
}

/* ---- sizes ---- */

static uint32_t receive_room(const struct dataplane_options *options)
{
    uint32_t room = RECEIVE_ROOM_MIN;

    for (uint32_t i = 0; i < options->port_count; i++) {
        uint32_t needed = options->ports[i].mtu + RECEIVE_ROOM_EXTRA;
        room = needed > room ? needed : room;
    }
    return (room + 63) / 64 * 64;
}

static uint32_t receive_count(const struct dataplane_options *options)
{
    uint64_t each = receive_room(options) + BUFFER_OVERHEAD;
    uint64_t count = options->memory / options->core_count / each;

    if (count < RECEIVE_COUNT_MIN)
        count = RECEIVE_COUNT_MIN;
    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

static uint32_t retained_count(const struct dataplane_options *options)
{
    uint64_t count = options->buffer_memory / (options->buffer_size + BUFFER_OVERHEAD);

    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

static uint32_t eal_memory_mb(const struct dataplane_options *options)
{
    uint64_t each = (uint64_t)receive_count(options) * (receive_room(options) + BUFFER_OVERHEAD) +
                    (uint64_t)retained_count(options) * (options->buffer_size + BUFFER_OVERHEAD) +
                    HEADER_COUNT * (uint64_t)(STACK_HEADER_SIZE + BUFFER_OVERHEAD) +
                    CLONE_COUNT * (uint64_t)(64 + BUFFER_OVERHEAD);

    /* A quarter more: pools are aligned, have rings, and do not fill the heap without gaps. */
    return (uint32_t)((each * options->core_count * 5 / 4 + EAL_OVERHEAD) / MEGABYTE);
}

/* ---- start ---- */

/* There is no way back: the process ends with it. */
static enum err environment_start(const struct dataplane_options *options,
                                  char why[DATAPLANE_WHY_SIZE])
{
    const char *pci[DATAPLANE_PORT_MAX];
    struct eal_options eal = {
        .memory_mb = eal_memory_mb(options),
        .huge = options->huge_pages == DATAPLANE_HUGE_NEVER ? EAL_HUGE_NEVER : EAL_HUGE_AUTO,
        .pci_devices = pci,
    };
    struct eal_report report;

    if (eal.memory_mb > EAL_MEMORY_MB_MAX)
        return fail(why, ERR_CONFIG_VALUE, "cannot start DPDK",
                    "dataplane.memory and the buffers of all cores are more than 1 TiB");
    for (uint32_t i = 0; i < options->port_count; i++) {
        if (strncmp(options->ports[i].device, "net_", 4) != 0)
            pci[eal.pci_count++] = options->ports[i].device;
    }
    enum err err = eal_start(&eal, &report);
    if (err != ERR_OK)
        return fail(why, err, "cannot start DPDK", report.error);
    return ERR_OK;
}

static enum err pool_new(const char *kind, uint16_t core, uint32_t count, uint32_t data_size,
                         struct buf_pool **ret_pool, char why[DATAPLANE_WHY_SIZE])
{
    char name[BUF_MEMPOOL_NAME_MAX + 1];

    snprintf(name, sizeof(name), "%s_%u", kind, core);
    enum err err = buf_pool_new_on_mempool(name, count, data_size, BUF_MEMPOOL_ANY_NODE, ret_pool);
    return err == ERR_OK ? ERR_OK : fail(why, err, "cannot get memory for buffers", NULL);
}

static enum err core_begin(struct dataplane_dpdk *dpdk, uint16_t index,
                           char why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = dpdk->options;
    struct core *core = &dpdk->cores[index];

    core->dpdk = dpdk;
    core->index = index;
    core->has_nics = true;
    TRY(pool_new("retained", index, retained_count(options), options->buffer_size, &core->retained,
                 why));
    TRY(pool_new("receive", index, receive_count(options), receive_room(options), &core->receive,
                 why));
    TRY(pool_new("header", index, HEADER_COUNT, STACK_HEADER_SIZE, &core->headers, why));
    return pool_new("clone", index, CLONE_COUNT, 64, &core->clones, why);
}

static enum err port_open(struct dataplane_dpdk *dpdk, uint32_t index, char why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = dpdk->options;
    struct buf_pool *pools[STACK_CORE_MAX];
    char error[NIC_ETH_ERROR_SIZE] = "";
    struct nic_eth_options eth = {
        .device = options->ports[index].device,
        .queue_count = options->core_count,
        .pools = pools,
        .mtu = options->ports[index].mtu,
        .has_no_checksums = options->ports[index].has_no_checksums,
        .offloads = NIC_ETH_OFFLOADS_AUTO,
        .exception = options->ports[index].exception,
        .connect_time = CONNECT_TIME,
    };

    for (uint16_t i = 0; i < options->core_count; i++)
        pools[i] = dpdk->cores[i].receive;
    enum err err = nic_eth_port_new(&eth, &dpdk->ports[index], error);
    if (err != ERR_OK)
        return fail(why, err, options->ports[index].device, error);
    for (uint16_t i = 0; i < options->core_count; i++)
        dpdk->cores[i].nics[index] = nic_eth_queue(dpdk->ports[index], i);
    return ERR_OK;
}

static enum err dpdk_begin(struct dataplane_dpdk *dpdk, char why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = dpdk->options;

    if (options->core_count > NIC_ETH_QUEUES_MAX)
        return fail(why, ERR_CONFIG_VALUE, "cores", "a port has no more than 64 queues");
    TRY(environment_start(options, why));
    for (uint16_t i = 0; i < options->core_count; i++)
        TRY(core_begin(dpdk, i, why));
    for (uint32_t i = 0; i < options->port_count; i++)
        TRY(port_open(dpdk, i, why));
    if (options->core_count > 1)
        dpdk->news = ring_group_new(options->core_count, NEWS_RING_SIZE);
    return ERR_OK;
}

enum err dataplane_dpdk_new(const struct dataplane_options *options,
                            struct dataplane_dpdk **ret_dpdk, char ret_why[DATAPLANE_WHY_SIZE])
{
    struct dataplane_dpdk *dpdk = calloc(1, sizeof(*dpdk));

    CHECK(dpdk != NULL && options->port_count <= DATAPLANE_PORT_MAX);
    dpdk->options = options;
    dpdk->cores = calloc(options->core_count, sizeof(*dpdk->cores));
    CHECK(dpdk->cores != NULL);
    enum err err = dpdk_begin(dpdk, ret_why);
    if (err != ERR_OK) {
        dataplane_dpdk_free(dpdk);
        return err;
    }
    *ret_dpdk = dpdk;
    return ERR_OK;
}

static void core_end(struct core *core)
{
    struct buf_pool *pools[] = {core->retained, core->receive, core->headers, core->clones};

    for (uint32_t i = 0; i < COUNT_OF(pools); i++) {
        if (pools[i] != NULL)
            buf_pool_free(pools[i]);
    }
}

/* Ports hold receive buffers until they are closed, so they go before the pools. */
void dataplane_dpdk_free(struct dataplane_dpdk *dpdk)
{
    for (uint16_t i = 0; i < dpdk->options->core_count; i++) {
        for (uint32_t j = 0; j < DATAPLANE_PORT_MAX && dpdk->cores[i].has_nics; j++) {
            if (dpdk->cores[i].nics[j] != NULL)
                nic_free(dpdk->cores[i].nics[j]);
        }
    }
    for (uint32_t i = 0; i < DATAPLANE_PORT_MAX; i++) {
        if (dpdk->ports[i] != NULL)
            nic_eth_port_free(dpdk->ports[i]);
    }
    for (uint16_t i = 0; i < dpdk->options->core_count; i++)
        core_end(&dpdk->cores[i]);
    if (dpdk->news != NULL)
        ring_group_free(dpdk->news);
    free(dpdk->cores);
    free(dpdk);
}

tick_us dataplane_dpdk_watch(struct dataplane_dpdk *dpdk, tick_us now)
{
    bool is_watching = false;

    for (uint32_t i = 0; i < dpdk->options->port_count && now >= dpdk->watch_next; i++) {
        if (dpdk->is_gone[i] || !nic_eth_port_is_gone(dpdk->ports[i]))
            continue;
        dpdk->is_gone[i] = true;
        log_line(LOG_ERROR,
                 "event=port_gone device=\"%s\": its interface was deleted, or moved to another "
                 "namespace; nothing goes by this port until the relay is started again",
                 dpdk->options->ports[i].device);
    }
    for (uint32_t i = 0; i < dpdk->options->port_count; i++)
        is_watching = is_watching || (!dpdk->is_gone[i] && nic_eth_port_is_kernel(dpdk->ports[i]));
    if (!is_watching)
        return TICK_NEVER;
    if (now >= dpdk->watch_next)
        dpdk->watch_next = now + WATCH_INTERVAL;
    return dpdk->watch_next;
}

struct buf_pool *dataplane_dpdk_pool(struct dataplane_dpdk *dpdk, uint16_t core)
{
    return dpdk->cores[core].retained;
}

/* ---- news ---- */

static void news_send(void *context, const struct stack_news *news)
{
    struct core *core = context;
    struct dataplane_dpdk *dpdk = core->dpdk;
    struct ring_message message = {.payload_size = sizeof(*news)};

    _Static_assert(sizeof(*news) <= RING_MESSAGE_PAYLOAD, "news fit a message");
    memcpy(message.payload, news, sizeof(*news));
    for (uint16_t i = 0; i < dpdk->options->core_count; i++) {
        if (i != core->index)
            ring_send(ring_member_get(dpdk->news, core->index), i, &message);
    }
}

static void news_receive(void *context)
{
    struct core *core = context;
    struct ring_message message;
    struct stack_news news;

    while (ring_receive(ring_member_get(core->dpdk->news, core->index), &message) == ERR_OK) {
        memcpy(&news, message.payload, sizeof(news));
        stack_on_news(core->stack, &news);
    }
}

/* ---- a core's plane ---- */

static struct flow_plane *wire_of(struct flow_plane *plane)
{
    return flow_pair_wire(plane);
}

static uint64_t frames_received(struct flow_plane *wire)
{
    return stack_counter(stack_of_plane(wire), STACK_FRAMES_RECEIVED);
}

/* stack_address and flow_prefix have the same parts; the engine's has another name for them. */
static uint32_t addresses_fill(const struct dataplane_port_options *port,
                               struct stack_address *addresses)
{
    for (uint32_t i = 0; i < port->address_count; i++)
        addresses[i] = (struct stack_address){port->addresses[i].address, port->addresses[i].bits};
    return port->address_count;
}

static void ports_fill(struct core *core, struct stack_port_options *ports,
                       struct stack_address *addresses)
{
    const struct dataplane_options *options = core->dpdk->options;

    for (uint32_t i = 0; i < options->port_count; i++) {
        const struct dataplane_port_options *port = &options->ports[i];
        ports[i] = (struct stack_port_options){.nic = core->nics[i],
                                               .mtu = port->mtu,
                                               .vlan = port->vlan,
                                               .addresses = addresses,
                                               .address_count = port->address_count,
                                               .gateway4 = port->gateway4,
                                               .gateway6 = port->gateway6};
        addresses += addresses_fill(port, addresses);
    }
}

static enum err stack_begin(struct core *core, char why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = core->dpdk->options;
    const struct tick_source *clock = tick_source_system();
    struct stack_port_options ports[DATAPLANE_PORT_MAX];
    struct stack_address addresses[DATAPLANE_ADDRESS_MAX];
    uint32_t time_wait = options->flow_count_max * TIME_WAIT_PER_FLOW;
    struct rng rng;

    ports_fill(core, ports, addresses);
    if (rng_init_system(&rng) != ERR_OK)
        return fail(why, ERR_SYSTEM, "no randomness", NULL);
    struct stack_options stack = {
        .pool = core->retained,
        .header_pool = core->headers,
        .clone_pool = core->clones,
        .receive_pool = core->receive,
        .receive_reserve = receive_count(options) / RECEIVE_RESERVE,
        .ports = ports,
        .port_count = options->port_count,
        .flow_count_max = options->flow_count_max,
        .time_wait_max = time_wait < TIME_WAIT_MIN ? TIME_WAIT_MIN : time_wait,
        .syn_cache_max = SYN_CACHE_COUNT,
        .neighbour_max = NEIGHBOUR_COUNT,
        .destination_max = DESTINATION_COUNT,
        .connections_per_prefix_max = options->connections_per_prefix_max,
        .orphan_time = ORPHAN_TIME,
        .now = clock->monotonic(clock->context),
        .seed = {rng_u64(&rng), rng_u64(&rng)},
        .core = core->index,
        .core_count = options->core_count,
        .tcp = tcp_policy_default(),
        .context = core,
        .on_news = options->core_count > 1 ? news_send : NULL,
    };
    enum err err = stack_new(&stack, &core->stack);
    if (err != ERR_OK)
        return fail(why, err, "cannot make the TCP engine", NULL);
    core->has_nics = false;
    return ERR_OK;
}

enum err dataplane_dpdk_join(struct dataplane_dpdk *dpdk, uint16_t index, struct flow_plane *host,
                             struct flow_plane **ret_plane, char ret_why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = dpdk->options;
    struct core *core = &dpdk->cores[index];
    enum err err = stack_begin(core, ret_why);

    if (err != ERR_OK) {
        flow_plane_free(host);
        return err;
    }
    *ret_plane = flow_pair_new(&(struct flow_pair_options){
        .host = host,
        .wire = stack_plane(core->stack),
        .kernel = options->kernel,
        .kernel_count = options->kernel_count,
        .poll = options->poll == DATAPLANE_BUSY ? FLOW_PAIR_BUSY : FLOW_PAIR_ADAPTIVE,
        .received = frames_received,
        .turn = options->core_count > 1 ? news_receive : NULL,
        .context = core,
    });
    return ERR_OK;
}

/* ---- seeing ---- */

uint32_t dataplane_dpdk_flows(struct flow_plane *plane, uint64_t *cursor,
                              struct dataplane_flow *ret_flows, uint32_t max)
{
    struct stack *stack = stack_of_plane(wire_of(plane));
    struct stack_flow_row row;
    uint32_t count = 0;

    while (count < max && stack_flows(stack, cursor, &row, 1) == 1) {
        ret_flows[count++] = (struct dataplane_flow){
            .local = row.local,
            .remote = row.remote,
            .state = row.state,
            .receive_queued = row.receive_queued,
            .send_queued = row.send_queued,
            .in_flight = row.in_flight,
            .window_congestion = row.window_congestion,
            .window_peer = row.window_peer,
            .mss = row.mss,
            .rtt_us = row.rtt_us,
            .rto_us = row.rto_us,
            .retransmitted = row.retransmitted,
            .octets_received = row.octets_received,
            .octets_sent = row.octets_sent,
            .age = row.age,
        };
    }
    if (count < max)
        *cursor = UINT64_MAX;
    return count;
}

/* Counters of a queue or a port: fields of the two structures of nic_eth.h, all 64 bits. */
struct port_counter {
    uint32_t offset;
    const char *name, *severity, *text, *meaning;
};

#define QUEUE(field, severity, text, meaning)                                                      \
    {                                                                                              \
        offsetof(struct nic_eth_queue_stats, field), #field, severity, text, meaning               \
    }
#define PORT(field, severity, text, meaning)                                                       \
    {                                                                                              \
        offsetof(struct nic_eth_port_stats, field), "port_" #field, severity, text, meaning        \
    }

static const struct port_counter queue_counters[] = {
    QUEUE(received, "INFO", "frames received on this queue", ""),
    QUEUE(sent, "INFO", "frames sent on this queue", ""),
    QUEUE(send_full, "NOTE", "frames the transmit queue had no room for", "sent a turn later"),
    QUEUE(send_invalid, "WARN", "frames the driver would not send", "please report this"),
    QUEUE(passed, "INFO", "frames passed to another core", "the port has no usable RSS"),
    QUEUE(taken, "INFO", "frames taken over from another core", "the port has no usable RSS"),
    QUEUE(pass_dropped, "WARN", "frames dropped on the way to another core", "it is too slow"),
    QUEUE(take_dropped, "WARN", "frames of another core dropped for want of a buffer", ""),
    QUEUE(except_dropped, "NOTE", "frames the exception interface had no room for", ""),
    QUEUE(hash_good, "INFO", "hashes of the card that were as computed", ""),
    QUEUE(hash_bad, "NOTE", "hashes of the card that were not", "cores pass frames on themselves"),
};

static const struct port_counter port_counters[] = {
    PORT(missed, "WARN", "frames the port had no room for", "the cores are too slow"),
    PORT(errors, "NOTE", "damaged or over-long frames", "cable, switch, or MTU"),
    PORT(without_buffer, "WARN", "frames dropped since the receive buffers were used up",
         "dataplane.memory is too small"),
    PORT(send_errors, "WARN", "frames the port failed to send", ""),
    PORT(exceptions_out, "INFO", "frames given to the kernel", ""),
    PORT(exceptions_in, "INFO", "frames of the kernel sent", ""),
    PORT(exceptions_dropped, "NOTE", "frames to or from the kernel dropped", ""),
    PORT(gone, "WARN", "the kernel's interface below the port is gone",
         "deleted, or moved to another namespace: no mail by this port until a restart"),
};

static uint32_t rows_fill(const struct port_counter *table, uint32_t table_size, const void *stats,
                          const char *device, struct dataplane_counter *ret_counters, uint32_t max)
{
    uint32_t count = table_size < max ? table_size : max;

    for (uint32_t i = 0; i < count; i++) {
        ret_counters[i] = (struct dataplane_counter){.name = table[i].name,
                                                     .severity = table[i].severity,
                                                     .text = table[i].text,
                                                     .meaning = table[i].meaning};
        snprintf(ret_counters[i].port, sizeof(ret_counters[i].port), "%.*s",
                 (int)strcspn(device, ","), device);
        memcpy(&ret_counters[i].value, (const uint8_t *)stats + table[i].offset, sizeof(uint64_t));
    }
    return count;
}

/* What is in use now: fields of struct stack_usage, 32 bits but for the last. */
#define USAGE(field, text)                                                                         \
    {                                                                                              \
        offsetof(struct stack_usage, field), sizeof(((struct stack_usage *)NULL)->field),          \
            "now_" #field, text                                                                    \
    }
static const struct {
    size_t offset, size;
    const char *name, *text;
} usage_rows[] = {
    USAGE(connections, "connections"),
    USAGE(half_open, "handshakes not complete"),
    USAGE(time_wait, "connections in TIME_WAIT"),
    USAGE(orphans, "closed connections that finish by themselves"),
    USAGE(neighbours, "neighbours known"),
    USAGE(destinations, "remote addresses known"),
    USAGE(datagram_flows, "UDP flows"),
    USAGE(out_of_order_buffers, "received buffers that wait for a gap to fill"),
    USAGE(sent_segments, "segments sent and not acknowledged"),
    USAGE(armed_timers, "timers"),
    USAGE(frames_waiting, "frames that wait for a port"),
    USAGE(memory, "octets of tables"),
};

static uint32_t usage_rows_fill(const struct stack *stack, struct dataplane_counter *ret_counters,
                                uint32_t max)
{
    struct stack_usage usage = {0};
    uint32_t count = COUNT_OF(usage_rows) < max ? (uint32_t)COUNT_OF(usage_rows) : max;

    if (stack != NULL)
        usage = stack_get_usage(stack);
    for (uint32_t i = 0; i < count; i++) {
        ret_counters[i] = (struct dataplane_counter){.name = usage_rows[i].name,
                                                     .severity = "INFO",
                                                     .text = usage_rows[i].text,
                                                     .meaning = "in use now"};
        memcpy(&ret_counters[i].value, (const uint8_t *)&usage + usage_rows[i].offset,
               usage_rows[i].size);
    }
    return count;
}

static uint32_t stack_rows_fill(const struct stack *stack, struct dataplane_counter *ret_counters,
                                uint32_t max)
{
    uint32_t count = usage_rows_fill(stack, ret_counters, max);

    for (uint32_t i = 0; i < STACK_COUNTER_COUNT && count < max; i++) {
        enum stack_counter counter = (enum stack_counter)i;
        ret_counters[count++] =
            (struct dataplane_counter){.name = stack_counter_name(counter),
                                       .text = stack_counter_text(counter),
                                       .severity = stack_counter_severity(counter),
                                       .meaning = stack_counter_meaning(counter),
                                       .value = stack == NULL ? 0 : stack_counter(stack, counter)};
    }
    return count;
}

static uint32_t stage_rows_fill(const struct stack *stack, struct dataplane_counter *ret_counters,
                                uint32_t max)
{
    uint32_t count = 0;

    while (count < max) {
        struct dataplane_counter row = {.severity = "INFO", .meaning = "cycles"};
        if (!stack_stage_cycles(stack, count, &row.name, &row.text, &row.value))
            return count;
        ret_counters[count++] = row;
    }
    return count;
}

/* What the port as a whole counts is shown by the first core. */
uint32_t dataplane_dpdk_counters(struct flow_plane *plane, struct dataplane_counter *ret_counters,
                                 uint32_t max)
{
    const struct core *core = flow_pair_context(plane);
    const struct dataplane_options *options = core->dpdk->options;
    uint32_t count = stack_rows_fill(core->stack, ret_counters, max);

    count += stage_rows_fill(core->stack, ret_counters + count, max - count);
    for (uint32_t i = 0; i < options->port_count; i++) {
        const char *device = options->ports[i].device;
        struct nic_eth_queue_stats queue = nic_eth_queue_stats(core->nics[i]);
        count += rows_fill(queue_counters, COUNT_OF(queue_counters), &queue, device,
                           ret_counters + count, max - count);
        if (core->index > 0)
            continue;
        struct nic_eth_port_stats port = nic_eth_port_stats(core->dpdk->ports[i]);
        count += rows_fill(port_counters, COUNT_OF(port_counters), &port, device,
                           ret_counters + count, max - count);
    }
    return count;
}

uint32_t dataplane_dpdk_counters_known(struct dataplane_counter *ret_counters, uint32_t max)
{
    static const struct nic_eth_queue_stats queue;
    static const struct nic_eth_port_stats port;
    uint32_t count = stack_rows_fill(NULL, ret_counters, max);

    count += rows_fill(queue_counters, COUNT_OF(queue_counters), &queue, "port",
                       ret_counters + count, max - count);
    return count + rows_fill(port_counters, COUNT_OF(port_counters), &port, "port",
                             ret_counters + count, max - count);
}
