/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TLSIO_H
#define RELAY_TLSIO_H

#include "relay/stream.h"

/*
 * TLS over one flow: what stream.c calls when a stream is not in the clear. The calls keep the
 * contract of the stream calls of the same name.
 */
struct tlsio_options {
    struct flow_plane *plane;
    struct flow flow;
    struct ssl_ctx_st *context;
    bool is_server;
    const char *name; /* client: SNI, and with `verify` the name to match; or NULL */
    bool verify;
    struct ssl_session_st *session; /* client: offered for resumption; or NULL */
    uint32_t wanted;
};

/** Begin the handshake. Errors: ERR_MEMORY. */
enum err tlsio_new(const struct tlsio_options *options, struct tlsio **ret_io) MUST_CHECK;
/** Free without a word to the peer. */
void tlsio_free(struct tlsio *io);
/** Encrypt all that waits, and close_notify. False: it could not all be appended to the flow. */
bool tlsio_finish(struct tlsio *io) MUST_CHECK;

/** Run forward on flow events; returns the events for the owner. */
uint32_t tlsio_run(struct tlsio *io, uint32_t events);
enum stream_state tlsio_get_state(const struct tlsio *io);
enum err tlsio_error(const struct tlsio *io);
const char *tlsio_reason(const struct tlsio *io);
const char *tlsio_version(const struct tlsio *io);
const char *tlsio_cipher(const struct tlsio *io);
bool tlsio_is_resumed(const struct tlsio *io);

const struct buf_queue *tlsio_received(const struct tlsio *io); /* clear octets, unread */
struct span tlsio_pull(struct tlsio *io, uint32_t size);
void tlsio_consume(struct tlsio *io, uint32_t size);
void tlsio_take(struct tlsio *io, uint32_t size, struct buf_queue *into);
void tlsio_credit(struct tlsio *io, uint64_t charge);

void tlsio_append(struct tlsio *io, struct buf_queue *octets);
enum err tlsio_write(struct tlsio *io, struct span octets) MUST_CHECK;
uint64_t tlsio_unsent(const struct tlsio *io);
void tlsio_cork(struct tlsio *io, bool is_corked);
void tlsio_push(struct tlsio *io);
void tlsio_want(struct tlsio *io, uint32_t events);

#endif
