/* SPDX-License-Identifier: Apache-2.0 */
/* What sim_wire says: violations always, the world of the seed, its packets and what the counters
 * say at the end with --trace. */
#include <stdarg.h>
#include <stdio.h>

#include "tests/sim/sim_wire.h"

const char *const sim_pool_names[4] = {"", "header ", "clone ", "receive "};

void sim_violation(struct sim_wire *sim, const char *format, ...)
{
    va_list arguments;

    sim->violations++;
    if (sim->violations > SIM_VIOLATION_MAX)
        return;
    printf("# %llu us: VIOLATION: ", (unsigned long long)sim->now);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void sim_trace(struct sim_wire *sim, const char *format, ...)
{
    va_list arguments;

    if (!sim->options.is_traced)
        return;
    printf("# %10llu us  ", (unsigned long long)sim->now);
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    printf("\n");
}

void sim_report_hosts(struct sim_wire *sim)
{
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        const struct sim_host *host = &sim->hosts[i];
        const struct link_sim_path *path = &host->station.path;
        const struct tcp_policy *tcp = &host->stack.tcp;
        sim_trace(sim,
                  "host %u: %u stacks, mtu %u, vlan %u, offloads %02x, segments %u, split %u, "
                  "buffers %u of %u, receive %u of %u, headers %u, clones %u, limit %u",
                  i, host->stack_count, host->port.mtu, host->port.vlan, host->station.offloads,
                  host->station.segments_max, host->station.split, host->pool_size[0],
                  host->buffer_size, host->pool_size[3], host->receive_size, host->pool_size[1],
                  host->pool_size[2], host->receive_limit);
        sim_trace(sim,
                  "host %u: path mtu %u%s, rate %llu, queue %u, delay %llu + %llu, lose %u, "
                  "corrupt %u, duplicate %u, reorder %u by %llu",
                  i, path->mtu, path->has_icmp ? " with ICMP" : "", (unsigned long long)path->rate,
                  path->queue_max, (unsigned long long)path->delay,
                  (unsigned long long)path->jitter, path->lose, path->corrupt, path->duplicate,
                  path->reorder, (unsigned long long)path->reorder_delay);
        sim_trace(sim,
                  "host %u: sack %u ts %u scale %u ecn %u newreno %u, window %u to %u, send %u, "
                  "mss_min %u, rto %llu to %llu, out of order %u segments, %u octets",
                  i, tcp->has_sack, tcp->has_timestamps, tcp->has_window_scale, tcp->has_ecn,
                  tcp->is_newreno, tcp->receive_window_start, tcp->receive_window_max,
                  tcp->send_window_max, tcp->mss_min, (unsigned long long)tcp->rto_min,
                  (unsigned long long)tcp->rto_max, tcp->out_of_order_segments_max,
                  tcp->out_of_order_octets_max);
    }
}

static void report_flows(struct sim_wire *sim, uint32_t host, uint32_t index)
{
    struct stack_flow_row rows[32];
    uint64_t cursor = 0;
    uint32_t count;

    while ((count = stack_flows(sim->hosts[host].stacks[index], &cursor, rows, COUNT_OF(rows))) >
           0) {
        for (uint32_t i = 0; i < count; i++)
            sim_trace(sim,
                      "stack %u.%u: %u > %u %s, %u to be read, %u to be sent, %u in flight, "
                      "windows %u and %u, mss %u, rto %u us",
                      host, index, rows[i].local.port, rows[i].remote.port, rows[i].state,
                      rows[i].receive_queued, rows[i].send_queued, rows[i].in_flight,
                      rows[i].window_congestion, rows[i].window_peer, rows[i].mss, rows[i].rto_us);
    }
}

/* What the counters say, for whoever looks for the reason. */
void sim_report_counters(struct sim_wire *sim)
{
    struct link_sim_stats stats = link_sim_get_stats(sim->link);

    for (uint32_t i = 0; i < SIM_HOST_COUNT * SIM_STACK_MAX; i++) {
        const struct sim_host *host = &sim->hosts[i / SIM_STACK_MAX];
        if (i % SIM_STACK_MAX >= host->stack_count)
            continue;
        report_flows(sim, i / SIM_STACK_MAX, i % SIM_STACK_MAX);
        for (uint32_t j = 0; j < 4; j++)
            sim_trace(sim, "stack %u.%u: %u %sbuffers in use, exhausted %llu times",
                      i / SIM_STACK_MAX, i % SIM_STACK_MAX,
                      buf_pool_in_use(host->pools[i % SIM_STACK_MAX][j]), sim_pool_names[j],
                      (unsigned long long)buf_pool_exhausted(host->pools[i % SIM_STACK_MAX][j]));
        for (uint32_t j = 0; j < STACK_COUNTER_COUNT; j++) {
            uint64_t value = stack_counter(host->stacks[i % SIM_STACK_MAX], (enum stack_counter)j);
            if (value > 0)
                sim_trace(sim, "stack %u.%u: %s %llu", i / SIM_STACK_MAX, i % SIM_STACK_MAX,
                          stack_counter_name((enum stack_counter)j), (unsigned long long)value);
        }
    }
    sim_trace(sim, "link: lost %llu, dropped %llu, too big %llu, pool empty %llu, refused %llu",
              (unsigned long long)stats.lost, (unsigned long long)stats.queue_dropped,
              (unsigned long long)stats.too_big, (unsigned long long)stats.pool_empty,
              (unsigned long long)stats.refused);
}
