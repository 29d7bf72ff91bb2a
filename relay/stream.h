/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_STREAM_H
#define RELAY_STREAM_H

#include "dataplane/flow.h"

/*
 * A connection as SMTP sees it: a flow, in the clear or under TLS, with one set of calls. In the
 * clear every call is flow.h's own; under TLS octets pass through OpenSSL by a BIO that reads
 * received buffers and writes reserved ones.
 *
 * End of TLS is end of connection: after close_notify or a TLS error nothing more is readable,
 * whatever the flow still holds: text sent behind it in the clear is dropped unseen.
 * stream_get_state() says PEER_CLOSED or FAILED. What was decrypted before stays readable.
 *
 * Under TLS at most STREAM_UNREAD_MAX clear octets wait for the owner, and at most
 * STREAM_CHARGE_MAX with those taken and not credited; beyond that nothing is decrypted, the flow
 * fills up and the peer is stopped.
 */
#define STREAM_UNREAD_MAX 65536u
#define STREAM_CHARGE_MAX (1u << 20)

struct ssl_ctx_st;
struct ssl_session_st;
struct tlsio; /* OpenSSL behind: relay/tlsio.c */

enum stream_state {
    STREAM_OPEN,        /* plain, or handshake done */
    STREAM_HANDSHAKE,   /* TLS handshake under way */
    STREAM_PEER_CLOSED, /* FIN (plain) or close_notify (TLS) is in; what is readable may still be
                           read */
    STREAM_FAILED, /* RST, TLS error, or FIN without close_notify under TLS; stream_error() says
                      which */
};

struct stream {
    struct flow_plane *plane;
    struct flow flow;
    struct tlsio *tls;              /* NULL: in the clear */
    uint32_t wanted;                /* as set by stream_want() */
    bool is_peer_closed, is_failed; /* in the clear; tlsio has its own */
    enum err error;
};

void stream_init(struct stream *stream, struct flow_plane *plane, struct flow flow);
/** Feed a flow event in before anything else is done with it: runs TLS forward. Returns the events
 * as they are for the stream: under TLS READABLE means clear octets, and a flow may be reported
 * only because clear octets still wait (as flow.h reports those of a flow again). */
uint32_t stream_on_event(struct stream *stream, const struct flow_event *event);
enum stream_state stream_get_state(const struct stream *stream);
enum err stream_error(const struct stream *stream);

/* The same contract as the flow calls of the same name. While corked, clear octets are gathered
 * into whole TLS records. */
uint32_t stream_readable(struct stream *stream);
uint32_t stream_peek(struct stream *stream, struct span *ret_spans, uint32_t max);
struct span stream_pull(struct stream *stream, uint32_t size);
void stream_consume(struct stream *stream, uint32_t size);
void stream_take(struct stream *stream, uint32_t size, struct buf_queue *into);
void stream_credit(struct stream *stream, uint64_t charge);
void stream_append(struct stream *stream, struct buf_queue *octets);
/** Append by copy (commands, replies). Errors: ERR_MEMORY; then nothing was appended. */
enum err stream_write(struct stream *stream, struct span octets) MUST_CHECK;
uint64_t stream_unsent(struct stream *stream);
void stream_cork(struct stream *stream, bool is_corked);
void stream_push(struct stream *stream);
void stream_want(struct stream *stream, uint32_t events);
void stream_close(struct stream *stream);
void stream_abort(struct stream *stream);

/**
 * Start TLS on a plain stream.
 *
 * What was appended before still goes out in the clear, in front of the handshake.
 *
 * Errors: ERR_PEER_SYNTAX when octets already received wait in the clear (command injection,
 * CVE-2011-0411): the caller refuses or aborts; ERR_MEMORY.
 */
enum err stream_start_tls_server(struct stream *stream, struct ssl_ctx_st *context) MUST_CHECK;
/** The same where no clear octet was ever expected (RFC 8314 section 3): what has been received is
 * TLS already. Errors: ERR_MEMORY. */
enum err stream_begin_tls_server(struct stream *stream, struct ssl_ctx_st *context) MUST_CHECK;
/** `name`: SNI, and, with verify, the name the certificate must match; NULL for neither. */
enum err stream_start_tls_client(struct stream *stream, struct ssl_ctx_st *context,
                                 const char *name, bool verify) MUST_CHECK;
/** The same for a name of NULL, offering to resume `session`, which stays the caller's; NULL: none.
 */
enum err stream_resume_tls_client(struct stream *stream, struct ssl_ctx_st *context,
                                  struct ssl_session_st *session) MUST_CHECK;
/** "TLSv1.3" and cipher name, static; NULL in the clear or before the handshake is done. */
const char *stream_tls_version(const struct stream *stream);
const char *stream_tls_cipher(const struct stream *stream);
/** Did the handshake that is done resume a session? */
bool stream_tls_is_resumed(const struct stream *stream);
/** Why TLS failed ("certificate has expired"), static; NULL when it did not. */
const char *stream_tls_reason(const struct stream *stream);

/* ---- contexts (control thread, start and reload) ---- */
/** Server context from PEM files. `listener_name` binds session tickets to this
 * listener. * Errors: ERR_CONFIG_VALUE with text in ret_why. */
enum err tls_server_context_new(const char *certificate_file, const char *key_file,
                                const char *listener_name, struct ssl_ctx_st **ret_context,
                                char ret_why[256]) MUST_CHECK;
/** Client context: opportunistic when ca_file is NULL and !verify (takes old TLS, checks nothing,
 * ignores openssl.cnf); ca_file "system": Debian's. Errors: ERR_CONFIG_VALUE with text in ret_why.
 */
enum err tls_client_context_new(bool verify, const char *ca_file, struct ssl_ctx_st **ret_context,
                                char ret_why[256]) MUST_CHECK;
void tls_context_free(struct ssl_ctx_st *context);

#endif
