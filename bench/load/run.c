/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of source and sink: one plane, one thread, until each has what it was asked for.
 *
 * The clock is read once a turn, after octets were received and before anything is made of them. So
 * a time is taken too late by at most what the rest of a turn takes, for sending as for receiving:
 * that time is measured as well ("own turn").
 *
 * With both in one process the source's end is the end, after everything that was acknowledged has
 * arrived or drain_s is over.
 */
#include "bench/load/load.h"

#include <sys/resource.h>

#define LOAD_EVENTS        256u
#define FLUSH_OCTETS       32768u
#define DESCRIPTORS_BESIDE 64u

struct load {
    const struct load_options *options;
    struct flow_plane *plane;
    struct ledger *ledger;
    struct source *source; /* NULL: none, as the sink */
    struct sink *sink;
    struct tick_now now;
    tick_us wall_read;
    tick_us source_end; /* 0: not yet */
    uint64_t octets_flushed;
};

static void time_read(struct load *load)
{
    tick_now_renew(&load->now, &load->wall_read, tick_source_system());
}

static void dispatch(struct load *load, const struct flow_event *event)
{
    if (event->user & LOAD_SINK_USER)
        sink_on_event(load->sink, event, load->now);
    else
        source_on_event(load->source, event, load->now);
}

static void show(struct load *load, struct meter *meter)
{
    const struct meter_sample *sample = meter_tick(meter, load->now.tick);

    if (sample != NULL && !load->options->is_quiet)
        meter_print_sample(meter, sample, load->options->is_json);
}

static uint64_t recipients_missing(const struct load *load)
{
    uint64_t sent = source_meter(load->source)->counts[METER_RECIPIENTS];
    uint64_t arrived = sink_meter(load->sink)->counts[METER_RECIPIENTS];

    return sent > arrived ? sent - arrived : 0;
}

static bool is_drained(struct load *load)
{
    if (load->source_end == 0)
        load->source_end = load->now.tick;
    return recipients_missing(load) == 0 || load_is_stopping > 1 ||
           load->now.tick >= load->source_end + TICK_S(load->options->drain_s);
}

static bool is_done(struct load *load, bool has_source_work, bool has_sink_work)
{
    if (load->source == NULL)
        return !has_sink_work || load_is_stopping;
    if (has_source_work)
        return load_is_stopping > 1;
    return load->sink == NULL || source_has_failed(load->source) || is_drained(load);
}

static tick_us deadline(const struct load *load)
{
    tick_us source = load->source == NULL ? TICK_NEVER : source_wakes(load->source);
    tick_us sink = load->sink == NULL ? TICK_NEVER : sink_deadline(load->sink);

    return source < sink ? source : sink;
}

static void measure_turn(struct load *load)
{
    const struct tick_source *clock = tick_source_system();
    tick_us turn = clock->monotonic(clock->context) - load->now.tick;

    if (load->source != NULL)
        meter_latency(source_meter(load->source), METER_TURN, turn);
    if (load->sink != NULL)
        meter_latency(sink_meter(load->sink), METER_TURN, turn);
}

static uint64_t octets_sent(const struct load *load)
{
    return load->source == NULL ? 0 : source_meter(load->source)->counts[METER_OCTETS];
}

/* Not only at a turn's end: else the peer's core gets nothing for as long as it takes to answer
 * thirty 354 with bodies, then all of them at once, and the two work one after the other. */
static void flush(struct load *load)
{
    load->octets_flushed = octets_sent(load);
    if (load->ledger != NULL)
        ledger_flush(load->ledger); /* before replies leave */
    flow_flush(load->plane, load->now.tick);
}

/* One turn. False: done. */
static bool turn(struct load *load)
{
    struct flow_event events[LOAD_EVENTS] UNINITIALIZED;

    time_read(load);
    uint32_t count = flow_poll(load->plane, load->now.tick, events, LOAD_EVENTS);
    if (count > 0)
        time_read(load);
    for (uint32_t i = 0; i < count; i++) {
        dispatch(load, &events[i]);
        if (octets_sent(load) >= load->octets_flushed + FLUSH_OCTETS)
            flush(load);
    }
    bool has_source_work = load->source != NULL && source_turn(load->source, load->now);
    bool has_sink_work = load->sink != NULL && sink_turn(load->sink, load->now);
    flush(load);
    if (load->source != NULL)
        show(load, source_meter(load->source));
    if (load->sink != NULL)
        show(load, sink_meter(load->sink));
    if (is_done(load, has_source_work, has_sink_work))
        return false;
    if (count == 0 && flow_spins(load->plane, load->now.tick))
        flow_wait(load->plane, load->now.tick, load->now.tick);
    else if (count == 0)
        flow_wait(load->plane, load->now.tick, deadline(load));
    else
        measure_turn(load);
    return true;
}

static void totals(struct load *load)
{
    const struct load_options *options = load->options;
    struct meter *source = load->source == NULL ? NULL : source_meter(load->source);
    struct meter *sink = load->sink == NULL ? NULL : sink_meter(load->sink);

    if (source != NULL) {
        tick_us end = load->source_end > 0 ? load->source_end : load->now.tick;
        meter_end(source, end);
        meter_print_total(source, source->started, end, source_note(load->source),
                          options->is_json);
    }
    if (sink != NULL) {
        meter_end(sink, load->now.tick);
        meter_print_total(sink, sink_began(load->sink), load->now.tick, "", options->is_json);
    }
}

/* The account of a process that knows both ends. False: something is wrong with it. */
static bool settle(struct load *load)
{
    char *paths[] = {(char *)(uintptr_t)load->options->ledger_path};
    struct audit_sum sum;

    if (load->ledger == NULL || load->source == NULL || load->sink == NULL)
        return true;
    if (recipients_missing(load) > 0)
        (void)fprintf(stderr, "angarium-load: %llu acknowledged recipients have not arrived\n",
                      (unsigned long long)recipients_missing(load));
    if (!audit_files(1, paths, load->options->recipients, &sum))
        return false;
    audit_print(&sum, load->options->is_json);
    return audit_is_clean(&sum);
}

static enum err plane_new(const struct load_options *options, uint32_t flows,
                          struct dataplane **ret_dataplane, struct flow_plane **ret_plane)
{
    struct dataplane_options dataplane = {
        .driver = options->port_count > 0 ? DATAPLANE_DPDK : DATAPLANE_HOST,
        .poll = DATAPLANE_ADAPTIVE,
        .core_count = 1,
        .flow_count_max = flows,
        .buffer_size = 16384,
        .buffer_memory = 1u << 30,
        .memory = 256u << 20,
        .ports = options->ports,
        .port_count = options->port_count,
    };
    char why[DATAPLANE_WHY_SIZE] = "";
    enum err err = dataplane_new(&dataplane, ret_dataplane, why);

    if (err == ERR_OK)
        err = dataplane_core_new(*ret_dataplane, 0, options->seed, ret_plane, why);
    if (err != ERR_OK)
        (void)fprintf(stderr, "angarium-load: %s\n", why);
    return err;
}

/* Source, sink and ledger on the plane. False: told why. */
static bool load_begin(struct load *load, bool has_source, bool has_sink)
{
    const struct load_options *options = load->options;

    if (options->ledger_path != NULL && (load->ledger = ledger_open(options->ledger_path)) == NULL)
        return false;
    time_read(load);
    if (has_sink && (load->sink = sink_new(options, load->plane, load->ledger, load->now)) == NULL)
        return false;
    return !has_source ||
           (load->source = source_new(options, load->plane, load->ledger, load->now)) != NULL;
}

static bool load_finish(struct load *load)
{
    const struct load_options *options = load->options;
    bool is_ok = load->source == NULL || !source_has_failed(load->source);

    totals(load);
    if (options->report_directory != NULL)
        is_ok = load_report(options, load->source == NULL ? NULL : source_meter(load->source),
                            load->sink == NULL ? NULL : sink_meter(load->sink)) &&
                is_ok;
    return settle(load) && is_ok;
}

/* Of the sessions that send, twice as many: one that ends may linger while its next one begins. */
static uint32_t flows_needed(const struct load_options *options, bool has_source, bool has_sink)
{
    uint32_t source = options->sessions * 2 + options->idle + options->idle / 8;

    return (has_source ? source : 0) + (has_sink ? options->sink_sessions * 2 : 0) + 64;
}

/* Kernel sockets are descriptors. Where not so many are allowed, connections fail, and are told. */
static void descriptors_raise(const struct load_options *options, uint32_t flows)
{
    struct rlimit limit;

    if (options->port_count > 0 || getrlimit(RLIMIT_NOFILE, &limit) != 0 ||
        limit.rlim_cur >= flows + DESCRIPTORS_BESIDE)
        return;
    limit.rlim_cur = flows + DESCRIPTORS_BESIDE;
    if (limit.rlim_cur > limit.rlim_max)
        limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

int load_run(struct load_options *options, bool has_source, bool has_sink)
{
    uint32_t flows = flows_needed(options, has_source, has_sink);
    struct load load = {.options = options};
    struct dataplane *dataplane = NULL;

    descriptors_raise(options, flows);
    if (plane_new(options, flows, &dataplane, &load.plane) != ERR_OK)
        return 1;
    dataplane_thread_begin(dataplane);
    bool is_ok = load_begin(&load, has_source, has_sink);
    if (is_ok) {
        while (turn(&load))
            continue;
        is_ok = load_finish(&load);
    }
    if (load.source != NULL)
        source_free(load.source);
    if (load.sink != NULL)
        sink_free(load.sink);
    ledger_close(load.ledger);
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    return is_ok ? 0 : 1;
}
