/* SPDX-License-Identifier: Apache-2.0 */
/* The server's end of a measurement: reads and drops (bulk), or answers requests. */
#include "bench/wire/wire_bench.h"

#include <stdlib.h>

#define SWEEP 64u /* connections looked at in a turn */

enum err wire_bench_server_begin(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;
    struct flow listener;

    if (options->idle > 0) {
        uint32_t count = options->dataplane.flow_count_max;

        bench->streams = calloc(count, sizeof(*bench->streams));
        bench->waiting = calloc(count, sizeof(*bench->waiting));
        CHECK(bench->streams != NULL && bench->waiting != NULL);
        while (bench->waiting_count < count) {
            bench->waiting[bench->waiting_count] = bench->waiting_count;
            bench->waiting_count++;
        }
    }
    return flow_listen(bench->plane,
                       &(struct flow_listen_options){.address = options->peer,
                                                     .backlog = 65535,
                                                     .receive_limit = options->window,
                                                     .send_limit = options->window,
                                                     .user = WIRE_BENCH_LISTENER},
                       &listener);
}

static void stream_forget(struct wire_bench *bench, struct wire_bench_stream *stream)
{
    stream->flow = (struct flow){0};
    bench->waiting[bench->waiting_count++] = (uint32_t)(stream - bench->streams);
}

static void server_accept(struct wire_bench *bench, struct flow listener)
{
    struct flow_address peer;
    struct flow flow;

    while (flow_accept(bench->plane, listener, 0, &flow, &peer) == ERR_OK) {
        bench->result.opened++;
        if (bench->streams == NULL)
            continue;
        CHECK(bench->waiting_count > 0);
        uint32_t index = bench->waiting[--bench->waiting_count];
        flow_set_user(bench->plane, flow, index);
        bench->streams[index] = (struct wire_bench_stream){.flow = flow, .began = bench->now};
    }
}

void wire_bench_server_turn(struct wire_bench *bench)
{
    const struct wire_bench_options *options = bench->options;

    for (uint32_t i = 0; bench->streams != NULL && i < SWEEP; i++) {
        struct wire_bench_stream *stream = &bench->streams[bench->swept];

        bench->swept = (bench->swept + 1) % options->dataplane.flow_count_max;
        if (flow_is_none(stream->flow) || bench->now - stream->began < options->idle)
            continue;
        flow_abort(bench->plane, stream->flow);
        stream_forget(bench, stream);
    }
}

/* Bulk: what arrived is gone at once. */
static void server_drop(struct wire_bench *bench, struct flow flow)
{
    uint32_t size = flow_readable(bench->plane, flow);

    flow_consume(bench->plane, flow, size);
    if (bench->is_measuring)
        bench->result.octets += size;
}

static void server_answer(struct wire_bench *bench, struct flow flow)
{
    while (flow_readable(bench->plane, flow) >= WIRE_BENCH_REQUEST_SIZE) {
        struct span request = flow_pull(bench->plane, flow, WIRE_BENCH_REQUEST_SIZE);
        struct span_mut reply = flow_reserve(bench->plane, flow, WIRE_BENCH_REQUEST_SIZE);

        if (reply.data == NULL) {
            bench->result.failures++;
            flow_abort(bench->plane, flow);
            return;
        }
        memcpy(reply.data, request.data, WIRE_BENCH_REQUEST_SIZE);
        flow_consume(bench->plane, flow, WIRE_BENCH_REQUEST_SIZE);
        flow_commit(bench->plane, flow, WIRE_BENCH_REQUEST_SIZE);
        bench->result.operations += bench->is_measuring;
        if (bench->options->mode == WIRE_BENCH_CONNECT) {
            flow_close(bench->plane, flow);
            return;
        }
    }
}

void wire_bench_server_event(struct wire_bench *bench, const struct flow_event *event)
{
    if (event->user == WIRE_BENCH_LISTENER) {
        server_accept(bench, event->flow);
        return;
    }
    struct wire_bench_stream *stream = bench->streams != NULL ? &bench->streams[event->user] : NULL;
    if (event->events & FLOW_READABLE) {
        if (stream != NULL)
            stream->began = bench->now;
        if (bench->options->mode == WIRE_BENCH_BULK)
            server_drop(bench, event->flow);
        else
            server_answer(bench, event->flow);
    }
    if (event->events & (FLOW_RESET | FLOW_FAILED)) {
        bench->result.failures++;
        flow_abort(bench->plane, event->flow);
    } else if (event->events & FLOW_PEER_CLOSED) {
        flow_close(bench->plane, event->flow);
    } else {
        return;
    }
    if (stream != NULL)
        stream_forget(bench, stream);
}
