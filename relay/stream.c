/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One set of calls for connections in the clear and under TLS.
 *
 * In the clear each call is the flow's own. From stream_start_tls_*() on it is tlsio's, and the
 * flow is touched by tlsio alone. There is no way back: a stream ends as what it was last.
 */
#include "relay/tlsio.h"

#define STREAM_RESERVE_MAX 1024u /* longer texts go as slices */

void stream_init(struct stream *stream, struct flow_plane *plane, struct flow flow)
{
    *stream = (struct stream){.plane = plane, .flow = flow, .wanted = FLOW_READABLE};
}

uint32_t stream_on_event(struct stream *stream, const struct flow_event *event)
{
    if (stream->tls != NULL)
        return tlsio_run(stream->tls, event->events);
    if (event->events & FLOW_PEER_CLOSED)
        stream->is_peer_closed = true;
    if (event->events & (FLOW_RESET | FLOW_FAILED)) {
        enum err err = flow_error(stream->plane, stream->flow);

        stream->is_failed = true;
        stream->error = err != ERR_OK ? err : ERR_PEER_RESET;
    }
    return event->events;
}

enum stream_state stream_get_state(const struct stream *stream)
{
    if (stream->tls != NULL)
        return tlsio_get_state(stream->tls);
    if (stream->is_failed)
        return STREAM_FAILED;
    return stream->is_peer_closed ? STREAM_PEER_CLOSED : STREAM_OPEN;
}

enum err stream_error(const struct stream *stream)
{
    return stream->tls != NULL ? tlsio_error(stream->tls) : stream->error;
}

/* ---- receiving ---- */

uint32_t stream_readable(struct stream *stream)
{
    if (stream->tls != NULL)
        return (uint32_t)tlsio_received(stream->tls)->size;
    return flow_readable(stream->plane, stream->flow);
}

uint32_t stream_peek(struct stream *stream, struct span *ret_spans, uint32_t max)
{
    if (stream->tls == NULL)
        return flow_peek(stream->plane, stream->flow, ret_spans, max);

    const struct buf_queue *received = tlsio_received(stream->tls);
    uint32_t count = received->count < max ? received->count : max;
    for (uint32_t i = 0; i < count; i++)
        ret_spans[i] = buf_slice_span(buf_queue_get(received, i));
    return count;
}

struct span stream_pull(struct stream *stream, uint32_t size)
{
    if (stream->tls != NULL)
        return tlsio_pull(stream->tls, size);
    return flow_pull(stream->plane, stream->flow, size);
}

void stream_consume(struct stream *stream, uint32_t size)
{
    if (size == 0)
        return;
    if (stream->tls != NULL)
        tlsio_consume(stream->tls, size);
    else
        flow_consume(stream->plane, stream->flow, size);
}

void stream_take(struct stream *stream, uint32_t size, struct buf_queue *into)
{
    if (stream->tls != NULL)
        tlsio_take(stream->tls, size, into);
    else
        flow_take(stream->plane, stream->flow, size, into);
}

void stream_credit(struct stream *stream, uint64_t charge)
{
    if (stream->tls != NULL)
        tlsio_credit(stream->tls, charge);
    else
        flow_credit(stream->plane, stream->flow, charge);
}

/* ---- sending ---- */

void stream_append(struct stream *stream, struct buf_queue *octets)
{
    if (stream->tls != NULL)
        tlsio_append(stream->tls, octets);
    else
        flow_append(stream->plane, stream->flow, octets);
}

enum err stream_write(struct stream *stream, struct span octets)
{
    if (octets.size == 0)
        return ERR_OK;
    if (stream->tls != NULL)
        return tlsio_write(stream->tls, octets);

    /* Short texts of many flows share a buffer. */
    if (octets.size <= STREAM_RESERVE_MAX) {
        struct span_mut room = flow_reserve(stream->plane, stream->flow, octets.size);

        if (room.data != NULL && room.size >= octets.size) {
            memcpy(room.data, octets.data, octets.size);
            flow_commit(stream->plane, stream->flow, octets.size);
            return ERR_OK;
        }
    }
    struct buf_queue queue;
    buf_queue_init(&queue);
    TRY(buf_queue_append_copy(&queue, stream->plane->pool, octets));
    flow_append(stream->plane, stream->flow, &queue);
    buf_queue_fini(&queue);
    return ERR_OK;
}

uint64_t stream_unsent(struct stream *stream)
{
    uint64_t clear = stream->tls != NULL ? tlsio_unsent(stream->tls) : 0;

    return clear + flow_unsent(stream->plane, stream->flow);
}

void stream_cork(struct stream *stream, bool is_corked)
{
    if (stream->tls != NULL)
        tlsio_cork(stream->tls, is_corked);
    else
        flow_cork(stream->plane, stream->flow, is_corked);
}

void stream_push(struct stream *stream)
{
    if (stream->tls != NULL)
        tlsio_push(stream->tls);
    flow_push(stream->plane, stream->flow);
}

void stream_want(struct stream *stream, uint32_t events)
{
    stream->wanted = events;
    if (stream->tls != NULL)
        tlsio_want(stream->tls, events);
    else
        flow_want(stream->plane, stream->flow, events);
}

/* ---- the end ---- */

static void stream_end(struct stream *stream, bool is_graceful)
{
    if (stream->tls != NULL) {
        if (is_graceful)
            is_graceful = tlsio_finish(stream->tls);
        tlsio_free(stream->tls);
        stream->tls = NULL;
    }
    if (is_graceful)
        flow_close(stream->plane, stream->flow);
    else
        flow_abort(stream->plane, stream->flow);
    /* A late call finds no flow; the contract makes it do nothing. */
    stream->flow = (struct flow){0};
}

void stream_close(struct stream *stream)
{
    stream_end(stream, true);
}

void stream_abort(struct stream *stream)
{
    stream_end(stream, false);
}

/* ---- TLS ---- */

static enum err stream_start_tls(struct stream *stream, struct tlsio_options *options)
{
    CHECK(stream->tls == NULL);
    CHECK(options->context != NULL);
    options->plane = stream->plane;
    options->flow = stream->flow;
    options->wanted = stream->wanted;
    return tlsio_new(options, &stream->tls);
}

enum err stream_start_tls_server(struct stream *stream, struct ssl_ctx_st *context)
{
    if (flow_readable(stream->plane, stream->flow) > 0)
        return ERR_PEER_SYNTAX;
    return stream_begin_tls_server(stream, context);
}

enum err stream_begin_tls_server(struct stream *stream, struct ssl_ctx_st *context)
{
    struct tlsio_options options = {.context = context, .is_server = true};

    return stream_start_tls(stream, &options);
}

enum err stream_start_tls_client(struct stream *stream, struct ssl_ctx_st *context,
                                 const char *name, bool verify)
{
    struct tlsio_options options = {.context = context, .name = name, .verify = verify};

    if (flow_readable(stream->plane, stream->flow) > 0)
        return ERR_PEER_SYNTAX;
    return stream_start_tls(stream, &options);
}

enum err stream_resume_tls_client(struct stream *stream, struct ssl_ctx_st *context,
                                  struct ssl_session_st *session)
{
    struct tlsio_options options = {.context = context, .session = session};

    if (flow_readable(stream->plane, stream->flow) > 0)
        return ERR_PEER_SYNTAX;
    return stream_start_tls(stream, &options);
}

const char *stream_tls_version(const struct stream *stream)
{
    return stream->tls != NULL ? tlsio_version(stream->tls) : NULL;
}

const char *stream_tls_cipher(const struct stream *stream)
{
    return stream->tls != NULL ? tlsio_cipher(stream->tls) : NULL;
}

bool stream_tls_is_resumed(const struct stream *stream)
{
    return stream->tls != NULL && tlsio_is_resumed(stream->tls);
}

const char *stream_tls_reason(const struct stream *stream)
{
    return stream->tls != NULL ? tlsio_reason(stream->tls) : NULL;
}
