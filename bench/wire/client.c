/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client's end of a measurement. A stream is a connection and, in the modes with requests, at
 * most one request that waits for its reply. User values are indices of streams.
 *
 * Opening is bounded: OPENING_MAX handshakes at a time. A connection that fails is counted and
 * opened again.
 */
#include "bench/wire/wire_bench.h"

#include <stdlib.h>

#define OPENING_MAX      512u
#define PAYLOAD_SIZE     65536u
#define SAMPLED_MAX      64u /* idle: requests under way at a time */
#define CONNECT_DEADLINE TICK_S(20)

static void stream_open(struct wire_bench *bench, uint32_t index)
{
    const struct wire_bench_options *options = bench->options;
    struct wire_bench_stream *stream = &bench->streams[index];
    struct flow_connect_options connect = {.remote = options->peer,
                                           .deadline = bench->now + CONNECT_DEADLINE,
                                           .receive_limit = options->window,
                                           .send_limit = options->window,
                                           .user = index};

    if (options->source_count > 0)
        connect.source = options->sources[stream->source++ % options->source_count];
    stream->began = bench->now;
    stream->got = 0;
    if (flow_connect(bench->plane, &connect, &stream->flow) != ERR_OK) {
        bench->result.failures++;
        stream->flow = (struct flow){0};
        return;
    }
    bench->opening++;
}

void wire_bench_client_begin(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;
    uint8_t octets[1024];

    bench->streams = calloc(options->streams, sizeof(*bench->streams));
    bench->waiting = calloc(options->streams, sizeof(*bench->waiting));
    CHECK(bench->streams != NULL && bench->waiting != NULL);
    for (uint32_t i = 0; i < options->streams; i++)
        bench->streams[i].source = i;
    rng_fill(&bench->rng, octets, sizeof(octets));
    for (uint32_t size = 0; size < PAYLOAD_SIZE; size += sizeof(octets)) {
        enum err err = buf_queue_append_copy(&bench->payload, bench->plane->pool,
                                             span_of(octets, sizeof(octets)));
        CHECK(err == ERR_OK);
    }
}

void wire_bench_end(struct wire_bench *bench)
{
    buf_queue_fini(&bench->payload);
    free(bench->streams);
    free(bench->waiting);
}

/* ---- work ---- */

static void bulk_send(struct wire_bench *bench, struct flow flow)
{
    while (flow_unsent(bench->plane, flow) < bench->options->window) {
        struct buf_queue octets;

        buf_queue_init(&octets);
        buf_queue_append_queue(&octets, &bench->payload);
        flow_append(bench->plane, flow, &octets);
    }
}

static void request_send(struct wire_bench *bench, struct wire_bench_stream *stream)
{
    struct span_mut room = flow_reserve(bench->plane, stream->flow, WIRE_BENCH_REQUEST_SIZE);

    stream->got = 0;
    if (bench->options->mode != WIRE_BENCH_CONNECT)
        stream->began = bench->now;
    if (room.data == NULL) {
        bench->result.failures++;
        return;
    }
    memset(room.data, 'r', WIRE_BENCH_REQUEST_SIZE);
    flow_commit(bench->plane, stream->flow, WIRE_BENCH_REQUEST_SIZE);
}

static void operation_done(struct wire_bench *bench, const struct wire_bench_stream *stream)
{
    tick_us time = bench->now - stream->began;

    if (!bench->is_measuring)
        return;
    bench->result.operations++;
    bench->result.latency_us_total += time;
    if (time > bench->result.latency_us_max)
        bench->result.latency_us_max = time;
}

static void sample_next(struct wire_bench *bench)
{
    uint32_t index = rng_below(&bench->rng, bench->options->streams);

    if (!flow_is_none(bench->streams[index].flow))
        request_send(bench, &bench->streams[index]);
}

/* Its next request goes when the rate allows one. */
static void stream_wait(struct wire_bench *bench, struct wire_bench_stream *stream)
{
    if (stream->is_waiting)
        return;
    stream->is_waiting = true;
    bench->waiting[bench->waiting_count++] = (uint32_t)(stream - bench->streams);
}

/* What a server that stands still keeps us from sending is sent later, one request a stream. */
static void requests_due(struct wire_bench *bench)
{
    if (bench->paced_since == 0)
        bench->paced_since = bench->now;
    uint64_t allowed = (bench->now - bench->paced_since) * bench->options->rate / TICK_S(1);

    while (bench->paced_count < allowed && bench->waiting_count > 0) {
        struct wire_bench_stream *stream = &bench->streams[bench->waiting[--bench->waiting_count]];

        bench->paced_count++;
        stream->is_waiting = false;
        if (!flow_is_none(stream->flow))
            request_send(bench, stream);
    }
}

static void reply_done(struct wire_bench *bench, struct wire_bench_stream *stream)
{
    operation_done(bench, stream);
    switch (bench->options->mode) {
    case WIRE_BENCH_REQUEST:
        if (bench->options->rate > 0)
            stream_wait(bench, stream);
        else
            request_send(bench, stream);
        break;
    case WIRE_BENCH_IDLE:
        sample_next(bench);
        break;
    default: /* connect: the server closes, and PEER_CLOSED opens the next */
        break;
    }
}

/* ---- events ---- */

static void stream_again(struct wire_bench *bench, uint32_t index)
{
    bench->streams[index].flow = (struct flow){0};
    if (!bench->is_done)
        stream_open(bench, index);
}

static void stream_connected(struct wire_bench *bench, uint32_t index)
{
    struct wire_bench_stream *stream = &bench->streams[index];

    bench->opening--;
    bench->open++;
    bench->result.opened++;
    switch (bench->options->mode) {
    case WIRE_BENCH_BULK:
        flow_want(bench->plane, stream->flow, FLOW_READABLE | FLOW_WRITABLE);
        bulk_send(bench, stream->flow);
        break;
    case WIRE_BENCH_IDLE:
        break;
    default:
        if (bench->options->rate > 0)
            stream_wait(bench, stream);
        else
            request_send(bench, stream);
        break;
    }
}

void wire_bench_client_event(struct wire_bench *bench, const struct flow_event *event)
{
    uint32_t index = (uint32_t)event->user;
    struct wire_bench_stream *stream = &bench->streams[index];

    if (event->events & FLOW_CONNECTED)
        stream_connected(bench, index);
    if (event->events & FLOW_WRITABLE && bench->options->mode == WIRE_BENCH_BULK)
        bulk_send(bench, event->flow);
    if (event->events & FLOW_READABLE) {
        uint32_t size = flow_readable(bench->plane, event->flow);
        flow_consume(bench->plane, event->flow, size);
        stream->got += size;
        if (stream->got >= WIRE_BENCH_REQUEST_SIZE)
            reply_done(bench, stream);
    }
    if (event->events & (FLOW_RESET | FLOW_FAILED)) {
        bench->result.failures++;
        bench->opening -= (event->events & FLOW_FAILED) != 0;
        bench->open -= (event->events & FLOW_RESET) != 0;
        flow_abort(bench->plane, event->flow);
        stream_again(bench, index);
    } else if (event->events & FLOW_PEER_CLOSED) {
        bench->open--;
        flow_close(bench->plane, event->flow);
        stream_again(bench, index);
    }
}

void wire_bench_client_turn(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;

    while (bench->to_open < options->streams && bench->opening < OPENING_MAX)
        stream_open(bench, bench->to_open++);
    if (options->rate > 0)
        requests_due(bench);
    if (options->mode != WIRE_BENCH_IDLE || bench->open < options->streams)
        return;
    while (bench->sampled < SAMPLED_MAX && bench->sampled < options->streams) {
        sample_next(bench);
        bench->sampled++;
    }
}
