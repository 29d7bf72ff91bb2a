/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The loop of source and sink: one plane, one thread, until each has what it was asked for. With
 * both and a duration instead of a number of messages, the source's end is the end.
 */
#include "bench/load/load.h"

#define LOAD_EVENTS 256u

struct load {
    const struct load_options *options;
    struct flow_plane *plane;
    struct source *source; /* NULL: none, as the sink */
    struct sink *sink;
    tick_us now;
};

static void dispatch(struct load *load, const struct flow_event *event)
{
    if (event->user & LOAD_SINK_USER)
        sink_on_event(load->sink, event, load->now);
    else
        source_on_event(load->source, event, load->now);
}

static tick_us patience(const struct load *load)
{
    tick_us time = load->options->rate > 0 ? TICK_MS(1) : TICK_MS(50);

    if (load->sink != NULL && sink_patience(load->sink) < time)
        time = sink_patience(load->sink);
    return time;
}

/* One turn. False: done. */
static bool turn(struct load *load)
{
    const struct tick_source *clock = tick_source_system();
    struct flow_event events[LOAD_EVENTS] UNINITIALIZED;

    load->now = clock->monotonic(clock->context);
    uint32_t count = flow_poll(load->plane, load->now, events, LOAD_EVENTS);
    for (uint32_t i = 0; i < count; i++)
        dispatch(load, &events[i]);
    bool has_source_work = load->source != NULL && source_turn(load->source, load->now);
    bool has_sink_work = load->sink != NULL && sink_turn(load->sink, load->now);
    flow_flush(load->plane, load->now);
    if (load->source != NULL)
        source_print(load->source, load->now, false);
    if (load->sink != NULL)
        sink_print(load->sink, load->now, false);
    if (load->source != NULL && load->options->duration_s > 0)
        has_sink_work = false;
    bool is_done = !has_source_work && (!has_sink_work || load_is_stopping);
    if (!is_done && count == 0)
        flow_wait(load->plane, load->now, load->now + patience(load));
    return !is_done;
}

static void load_loop(struct load *load)
{
    while (turn(load))
        continue;
    if (load->source != NULL)
        source_print(load->source, load->now, true);
    if (load->sink != NULL)
        sink_print(load->sink, load->now, true);
}

static enum err plane_new(const struct load_options *options, struct dataplane **ret_dataplane,
                          struct flow_plane **ret_plane)
{
    struct dataplane_options dataplane = {
        .driver = options->port_count > 0 ? DATAPLANE_DPDK : DATAPLANE_HOST,
        .poll = DATAPLANE_ADAPTIVE,
        .core_count = 1,
        .flow_count_max = options->sessions * 4 + 16,
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

int load_run(const struct load_options *options, bool has_source, bool has_sink)
{
    const struct tick_source *clock = tick_source_system();
    struct load load = {.options = options, .now = clock->monotonic(clock->context)};
    struct dataplane *dataplane = NULL;

    if (plane_new(options, &dataplane, &load.plane) != ERR_OK)
        return 1;
    dataplane_thread_begin(dataplane);
    if (has_source && (load.source = source_new(options, load.plane, load.now)) == NULL)
        return 1;
    if (has_sink && (load.sink = sink_new(options, load.plane, load.now)) == NULL)
        return 1;
    load_loop(&load);
    if (load.source != NULL)
        source_free(load.source);
    if (load.sink != NULL)
        sink_free(load.sink);
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    return 0;
}
