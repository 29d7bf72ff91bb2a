/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium-wire-bench: the command line, the loop, the figures.
 *
 * Warm-up begins when all connections stand (at once in mode connect); then it is measured for
 * the duration. The server measures from the first octet of a connection on and ends with SIGTERM.
 */
#include "bench/wire/wire_bench.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>
#include <x86intrin.h>

#define EVENT_BURST 256u
#define OPEN_TIME   TICK_S(120) /* to bring all connections up */

static volatile sig_atomic_t is_stopping;

static const char usage[] =
    "usage: angarium-wire-bench server|client MODE [options] IP:PORT    MODE: bulk connect request "
    "idle\n"
    "  --device D --address A/BITS ...   ports: a DPDK device with our addresses; none: kernel "
    "sockets\n"
    "  --gateway A      IPv4 router                     --settle N      server: seconds after the "
    "end\n"
    "  --mtu N          of the device                   --streams N     connections at a time\n"
    "  --window N       octets a flow may hold          --seconds N     measured, after --warm-up "
    "N\n"
    "  --flows N        at most                         --memory N, --buffer N, --port-memory N "
    "(octets)\n"
    "  --json           one line for programs           --counters     to standard error at the "
    "end\n"
    "  --no-checksums   neither computed nor verified, at both ends\n"
    "  --idle N         server: reset connections on which nothing came for N seconds\n";

static void on_signal(int number)
{
    (void)number;
    is_stopping = 1;
}

__attribute__((noreturn)) static void usage_exit(void)
{
    (void)fputs(usage, stderr);
    exit(2);
}

static uint64_t number_of(const char *text)
{
    uint64_t value;

    if (span_parse_u64(span_from_text(text), &value) != ERR_OK)
        usage_exit();
    return value;
}

static struct flow_prefix interface_of(const char *text)
{
    const char *slash = strchr(text, '/');
    struct flow_prefix result = {0};

    if (slash == NULL ||
        flow_address_parse_ip(span_of(text, (uint32_t)(slash - text)), &result.address) != ERR_OK)
        usage_exit();
    result.bits = (uint8_t)number_of(slash + 1);
    return result;
}

static struct flow_address endpoint_of(const char *text)
{
    const char *colon = strrchr(text, ':');
    struct flow_address address;
    bool is_bracketed = text[0] == '[';
    uint32_t skip = is_bracketed ? 1 : 0;

    if (colon == NULL ||
        flow_address_parse_ip(span_of(text + skip, (uint32_t)(colon - text) - 2 * skip),
                              &address) != ERR_OK)
        usage_exit();
    address.port = (uint16_t)number_of(colon + 1);
    return address;
}

/* ---- options ---- */

struct arguments {
    struct wire_bench_options options;
    struct dataplane_port_options port;
    struct flow_prefix addresses[WIRE_BENCH_SOURCE_MAX];
};

static void option_apply(struct arguments *arguments, int letter, const char *value)
{
    struct wire_bench_options *options = &arguments->options;

    switch (letter) {
    case 'd':
        arguments->port.device = value;
        break;
    case 'a':
        if (arguments->port.address_count == WIRE_BENCH_SOURCE_MAX)
            usage_exit();
        arguments->addresses[arguments->port.address_count++] = interface_of(value);
        break;
    case 'g':
        if (flow_address_parse_ip(span_from_text(value), &arguments->port.gateway4) != ERR_OK)
            usage_exit();
        break;
    case 'm':
        arguments->port.mtu = (uint16_t)number_of(value);
        break;
    case 's':
        options->streams = (uint32_t)number_of(value);
        break;
    case 'w':
        options->window = (uint32_t)number_of(value);
        break;
    case 't':
        options->duration = TICK_S(number_of(value));
        break;
    case 'u':
        options->warm_up = TICK_S(number_of(value));
        break;
    case 'f':
        options->dataplane.flow_count_max = (uint32_t)number_of(value);
        break;
    case 'M':
        options->dataplane.buffer_memory = number_of(value);
        break;
    case 'b':
        options->dataplane.buffer_size = (uint32_t)number_of(value);
        break;
    case 'p':
        options->dataplane.memory = number_of(value);
        break;
    case 'e':
        options->settle = TICK_S(number_of(value));
        break;
    case 'j':
        options->is_json = true;
        break;
    case 'c':
        options->has_counters = true;
        break;
    case 'i':
        options->idle = TICK_S(number_of(value));
        break;
    case 'n':
        arguments->port.has_no_checksums = true;
        break;
    default:
        usage_exit();
    }
}

static void options_finish(struct arguments *arguments)
{
    struct wire_bench_options *options = &arguments->options;
    struct dataplane_options *dataplane = &options->dataplane;

    arguments->port.addresses = arguments->addresses;
    if (arguments->port.device != NULL) {
        dataplane->driver = DATAPLANE_DPDK;
        dataplane->ports = &arguments->port;
        dataplane->port_count = 1;
    }
    for (uint32_t i = 0; i < arguments->port.address_count; i++)
        options->sources[i] = arguments->addresses[i].address;
    options->source_count = arguments->port.address_count;
    if (options->streams == 0 || options->window == 0)
        usage_exit();
}

static void arguments_read(struct arguments *arguments, int count, char **words)
{
    static const struct option names[] = {
        {"device", 1, NULL, 'd'},  {"address", 1, NULL, 'a'},      {"gateway", 1, NULL, 'g'},
        {"mtu", 1, NULL, 'm'},     {"streams", 1, NULL, 's'},      {"window", 1, NULL, 'w'},
        {"seconds", 1, NULL, 't'}, {"warm-up", 1, NULL, 'u'},      {"flows", 1, NULL, 'f'},
        {"memory", 1, NULL, 'M'},  {"buffer", 1, NULL, 'b'},       {"port-memory", 1, NULL, 'p'},
        {"settle", 1, NULL, 'e'},  {"json", 0, NULL, 'j'},         {"counters", 0, NULL, 'c'},
        {"idle", 1, NULL, 'i'},    {"no-checksums", 0, NULL, 'n'}, {NULL, 0, NULL, 0}};
    static const char *const modes[] = {"bulk", "connect", "request", "idle"};
    struct wire_bench_options *options = &arguments->options;
    uint32_t mode = 0;
    int letter;

    if (count < 4 || (strcmp(words[1], "server") != 0 && strcmp(words[1], "client") != 0))
        usage_exit();
    options->is_server = strcmp(words[1], "server") == 0;
    while (mode < COUNT_OF(modes) && strcmp(modes[mode], words[2]) != 0)
        mode++;
    if (mode == COUNT_OF(modes))
        usage_exit();
    options->mode = (enum wire_bench_mode)mode;
    optind = 3;
    while ((letter = getopt_long(count, words, "", names, NULL)) != -1)
        option_apply(arguments, letter, optarg);
    if (optind + 1 != count)
        usage_exit();
    options->peer = endpoint_of(words[optind]);
    options_finish(arguments);
}

/* ---- the loop ---- */

static uint64_t resident_octets(void)
{
    unsigned long size = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");

    if (file == NULL || fscanf(file, "%lu %lu", &size, &resident) != 2)
        resident = 0;
    if (file != NULL)
        (void)fclose(file);
    return (uint64_t)resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static void turn(struct wire_bench *bench)
{
    const struct tick_source *clock = tick_source_system();
    struct flow_event events[EVENT_BURST] UNINITIALIZED;

    bench->now = clock->monotonic(clock->context);
    uint64_t start = __rdtsc();
    uint32_t count = flow_poll(bench->plane, bench->now, events, EVENT_BURST);
    uint64_t polled = __rdtsc();
    if (bench->options->is_server)
        wire_bench_server_turn(bench);
    else if (!bench->is_done)
        wire_bench_client_turn(bench);
    for (uint32_t i = 0; i < count; i++) {
        if (bench->options->is_server)
            wire_bench_server_event(bench, &events[i]);
        else
            wire_bench_client_event(bench, &events[i]);
    }
    uint64_t worked = __rdtsc();
    flow_flush(bench->plane, bench->now);
    uint64_t flushed = __rdtsc();
    if (bench->is_measuring) {
        bench->result.turns++;
        bench->result.idle_turns += count == 0;
        bench->result.poll_cycles += polled - start;
        bench->result.work_cycles += worked - polled;
        bench->result.flush_cycles += flushed - worked;
    }
    if (count == 0)
        flow_wait(bench->plane, bench->now, flow_deadline(bench->plane));
}

static void measure(struct wire_bench *bench, tick_us duration)
{
    tick_us begin = bench->now;

    bench->is_measuring = true;
    while (!is_stopping && bench->now < begin + duration)
        turn(bench);
    bench->is_measuring = false;
    bench->result.time = bench->now - begin;
}

static void client_run(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;
    tick_us begin;

    turn(bench);
    begin = bench->now;
    bench->result.resident_before = resident_octets();
    while (!is_stopping && bench->open < options->streams && options->mode != WIRE_BENCH_CONNECT &&
           bench->now < begin + OPEN_TIME)
        turn(bench);
    bench->result.resident_after = resident_octets();
    begin = bench->now;
    while (!is_stopping && bench->now < begin + options->warm_up)
        turn(bench);
    measure(bench, options->duration);
    bench->is_done = true;
}

/* Until SIGTERM; measured is the time between first and last work, in whole seconds of it. */
static void server_run(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;

    bench->result.resident_before = resident_octets();
    while (!is_stopping && bench->result.opened < 1)
        turn(bench);
    while (!is_stopping && options->mode == WIRE_BENCH_IDLE &&
           bench->result.opened < options->streams)
        turn(bench);
    bench->result.resident_after = resident_octets();
    tick_us begin = bench->now;
    while (!is_stopping && bench->now < begin + options->warm_up)
        turn(bench);
    measure(bench, options->duration);
    while (!is_stopping)
        turn(bench);
    begin = bench->now;
    while (bench->now < begin + options->settle)
        turn(bench);
}

/* ---- figures ---- */

static void result_print(const struct wire_bench_options *options,
                         const struct wire_bench_result *result)
{
    double seconds = (double)result->time / 1e6;
    double operations = result->operations > 0 ? (double)result->operations : 1.0;
    double turns = result->turns > 0 ? (double)result->turns : 1.0;
    struct rusage used;

    if (seconds <= 0)
        seconds = 1e-6;
    (void)getrusage(RUSAGE_SELF, &used);
    (void)printf(
        options->is_json
            ? "{\"seconds\":%.3f,\"operations_per_second\":%.1f,\"gbit_per_second\":%.3f,"
              "\"latency_us\":%.1f,\"latency_us_max\":%llu,\"failures\":%llu,\"opened\":%llu,"
              "\"poll_cycles\":%.0f,\"work_cycles\":%.0f,\"flush_cycles\":%.0f,\"idle_turns\":%.3f,"
              "\"resident_growth\":%lld,\"resident_max_kb\":%ld}\n"
            : "%.3f s: %.1f operations/s, %.3f Gbit/s, latency %.1f us (most %llu), %llu failures, "
              "%llu opened\ncycles per turn: poll %.0f, work %.0f, flush %.0f; idle turns %.3f\n"
              "memory: grew %lld octets with the connections, most %ld kB\n",
        seconds, (double)result->operations / seconds, (double)result->octets * 8 / seconds / 1e9,
        (double)result->latency_us_total / operations, (unsigned long long)result->latency_us_max,
        (unsigned long long)result->failures, (unsigned long long)result->opened,
        (double)result->poll_cycles / turns, (double)result->work_cycles / turns,
        (double)result->flush_cycles / turns, (double)result->idle_turns / turns,
        (long long)(result->resident_after - result->resident_before), used.ru_maxrss);
    (void)fflush(stdout);
}

/* What is in use at the end, by name, as one JSON object. */
static void usage_print(struct flow_plane *plane)
{
    struct dataplane_counter *rows = calloc(DATAPLANE_COUNTERS_MAX, sizeof(*rows));
    uint32_t count = rows == NULL ? 0 : dataplane_counters(plane, rows, DATAPLANE_COUNTERS_MAX);
    bool is_first = true;

    (void)printf("{");
    for (uint32_t i = 0; i < count; i++) {
        if (strncmp(rows[i].name, "now_", 4) != 0)
            continue;
        (void)printf("%s\"%s\":%llu", is_first ? "" : ",", rows[i].name,
                     (unsigned long long)rows[i].value);
        is_first = false;
    }
    (void)printf("}\n");
    free(rows);
}

static void counters_print(struct flow_plane *plane)
{
    struct dataplane_counter *rows = calloc(DATAPLANE_COUNTERS_MAX, sizeof(*rows));
    uint32_t count = rows == NULL ? 0 : dataplane_counters(plane, rows, DATAPLANE_COUNTERS_MAX);

    for (uint32_t i = 0; i < count; i++) {
        if (rows[i].value > 0)
            (void)fprintf(stderr, "%14llu %s %s\n", (unsigned long long)rows[i].value, rows[i].port,
                          rows[i].text);
    }
    free(rows);
}

static int run(const struct wire_bench_options *options)
{
    struct wire_bench *bench = calloc(1, sizeof(*bench));
    struct dataplane *dataplane = NULL;
    char why[DATAPLANE_WHY_SIZE] = "";

    CHECK(bench != NULL);
    bench->options = options;
    rng_init_seed(&bench->rng, options->is_server ? 1 : 2);
    if (dataplane_new(&options->dataplane, &dataplane, why) != ERR_OK ||
        dataplane_core_new(dataplane, 0, options->is_server ? 1 : 2, &bench->plane, why) !=
            ERR_OK) {
        (void)fprintf(stderr, "angarium-wire-bench: %s\n", why);
        return 1;
    }
    dataplane_thread_begin(dataplane);
    if (options->is_server && wire_bench_server_begin(bench) != ERR_OK) {
        (void)fprintf(stderr, "angarium-wire-bench: cannot listen\n");
        return 1;
    }
    if (options->is_server) {
        server_run(bench);
    } else {
        wire_bench_client_begin(bench);
        client_run(bench);
    }
    if (options->is_json && options->is_server)
        usage_print(bench->plane);
    result_print(options, &bench->result);
    if (options->has_counters)
        counters_print(bench->plane);
    wire_bench_end(bench);
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    free(bench);
    return 0;
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct arguments arguments = {.options = {.streams = 1,
                                              .window = 1u << 20,
                                              .warm_up = TICK_S(1),
                                              .duration = TICK_S(5),
                                              .dataplane = {.poll = DATAPLANE_BUSY,
                                                            .core_count = 1,
                                                            .flow_count_max = 65536,
                                                            .buffer_size = 16384,
                                                            .buffer_memory = 512u << 20,
                                                            .memory = 512u << 20}},
                                  .port = {.mtu = 1500}};

    arguments_read(&arguments, count, words);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)sigaction(SIGINT, &action, NULL);
    return run(&arguments.options);
}
