/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS over a flow. OpenSSL runs on a BIO of ours (tls_bio.c) that reads received buffers in place
 * and writes into reserved ones.
 *
 *   flow --peek/consume--> BIO --> SSL_read  --> `in`  --> the owner
 *   flow <-reserve/commit- BIO <-- SSL_write <-- `out` <-- the owner
 *
 * States                                       Edge done by
 *   HANDSHAKE -> OPEN         handshake done   tlsio_handshake()
 *   OPEN -> CLOSED            close_notify     tlsio_judge()
 *   HANDSHAKE, OPEN -> FAILED error, RST, FIN  tlsio_judge()
 *
 * Invariants
 *   1. In CLOSED and FAILED nothing is decrypted any more, and what the flow still receives is
 *      dropped: the end of TLS is the end of the connection. No octet that came in the clear
 *      ever gets into `in`.
 *   2. `in` holds at most STREAM_UNREAD_MAX octets (plus one read), and with what was taken and
 *      not credited at most STREAM_CHARGE_MAX. At the limit the flow is no longer read from.
 *   3. Octets enter `in` in order, behind each other in `tail`, into which only this file writes,
 *      always behind its end: slices taken earlier never change.
 *   4. `out` keeps its octets until OpenSSL took them whole, so that a record that could not be
 *      written for want of buffers is offered again with the same octets in front.
 *   5. A stream that holds no unread and no taken octets holds no buffer.
 *
 * A flow reports what its peer did; it knows nothing of octets that wait in `in`. When the owner
 * leaves some, or asks for READABLE while some wait, the flow is asked for WRITABLE once, and the
 * owner finds READABLE in that event: the same as a flow does for octets of its own.
 *
 * Not here: what certificates and versions are good (tls_context.c), when to start (smtpd, smtpc).
 */
#include "relay/tlsio.h"

#include <arpa/inet.h>
#include <stdlib.h>

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "relay/tls_bio.h"

#define TLSIO_RECORD_SIZE 16384u

struct tlsio {
    SSL *ssl;
    struct flow_plane *plane;
    struct flow flow;
    struct tls_bio wire; /* what OpenSSL reads from and writes to: the flow */
    enum stream_state state;
    enum err error;
    const char *reason; /* static text */

    /* receiving */
    struct buf_queue in;
    struct buf *tail; /* our own reference; NULL when there is none */
    uint8_t *pulled;  /* FLOW_PULL_MAX octets while a split view is out, else NULL */
    uint64_t taken;   /* octets moved out and not credited */
    bool is_blocked;  /* reading stopped at the limit, or for want of a buffer */
    bool is_fin;      /* the flow's FIN is in */
    enum err lost;    /* the flow failed or was reset; else ERR_OK */

    /* sending */
    struct buf_queue out;
    bool is_corked;

    /* events */
    uint32_t wanted;      /* by the owner */
    uint32_t flow_wanted; /* as last told to the flow */
    bool is_wake_wanted;  /* see above */
    bool is_wake_told;    /* and the flow has not reported since */
};

/* ---- events ---- */

static bool tlsio_is_over(const struct tlsio *io)
{
    return io->state == STREAM_PEER_CLOSED || io->state == STREAM_FAILED;
}

static bool tlsio_has_room(const struct tlsio *io)
{
    return io->in.size < STREAM_UNREAD_MAX && io->in.size + io->taken < STREAM_CHARGE_MAX;
}

/* Tell the flow what is wanted of it now. */
static void tlsio_tell_wants(struct tlsio *io)
{
    uint32_t wants = io->wanted & (FLOW_WRITABLE | FLOW_SENT);

    if (io->state == STREAM_HANDSHAKE)
        wants |= FLOW_READABLE;
    else if (io->state == STREAM_OPEN && tlsio_has_room(io))
        wants |= io->wanted & FLOW_READABLE;
    if (io->is_wake_wanted && !io->is_wake_told) {
        /* What is asked for anew is reported anew. */
        io->is_wake_told = true;
        flow_want(io->plane, io->flow, wants & ~(uint32_t)FLOW_WRITABLE);
        io->flow_wanted = wants & ~(uint32_t)FLOW_WRITABLE;
    }
    if (io->is_wake_told)
        wants |= FLOW_WRITABLE;
    if (wants == io->flow_wanted)
        return;
    io->flow_wanted = wants;
    flow_want(io->plane, io->flow, wants);
}

static void tlsio_fail(struct tlsio *io, enum err err, const char *reason)
{
    io->state = STREAM_FAILED;
    io->error = err;
    io->reason = reason;
    buf_queue_fini(&io->out);
}

/* After a call into OpenSSL that did not succeed: what that means. */
static void tlsio_judge(struct tlsio *io, int result)
{
    int kind = SSL_get_error(io->ssl, result);
    int reason = ERR_GET_REASON(ERR_peek_last_error());

    switch (kind) {
    case SSL_ERROR_WANT_READ:
        return;
    case SSL_ERROR_WANT_WRITE: /* no buffer for the record: again next turn */
        io->is_wake_wanted = true;
        return;
    case SSL_ERROR_ZERO_RETURN:
        io->state = STREAM_PEER_CLOSED;
        return;
    default:
        break;
    }
    if (io->lost != ERR_OK)
        tlsio_fail(io, io->lost, "the connection was lost");
    else if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        tlsio_fail(io, ERR_PEER_CERTIFICATE,
                   X509_verify_cert_error_string(SSL_get_verify_result(io->ssl)));
    else if (io->is_fin &&
             (reason == SSL_R_UNEXPECTED_EOF_WHILE_READING || kind == SSL_ERROR_SYSCALL))
        tlsio_fail(io, ERR_PEER_CLOSED, "closed without close_notify");
    else {
        const char *text = ERR_reason_error_string(ERR_peek_last_error());

        tlsio_fail(io, ERR_PEER_TLS, text != NULL ? text : "TLS failed");
    }
    ERR_clear_error();
}

/* ---- running forward ---- */

static void tlsio_handshake(struct tlsio *io)
{
    ERR_clear_error();
    int result = SSL_do_handshake(io->ssl);

    if (result == 1)
        io->state = STREAM_OPEN;
    else
        tlsio_judge(io, result);
}

/* Somewhere to decrypt into, or NULL. */
static struct buf *tlsio_tail(struct tlsio *io)
{
    if (io->tail != NULL && buf_room(io->tail) > 0)
        return io->tail;
    if (io->tail != NULL)
        buf_release(io->tail);
    io->tail = buf_acquire(io->plane->pool);
    return io->tail;
}

/* Invariant 5. */
static void tlsio_let_go(struct tlsio *io)
{
    if (io->in.size > 0 || io->taken > 0)
        return;
    buf_queue_fini(&io->in);
    free(io->pulled);
    io->pulled = NULL;
    if (io->tail != NULL)
        buf_release(io->tail);
    io->tail = NULL;
}

static void tlsio_read(struct tlsio *io)
{
    io->is_blocked = false;
    while (io->state == STREAM_OPEN) {
        struct buf *tail = tlsio_has_room(io) ? tlsio_tail(io) : NULL;
        size_t size;

        if (tail == NULL) {
            io->is_blocked = true;
            io->is_wake_wanted |= tlsio_has_room(io); /* no buffer: again next turn */
            return;
        }
        ERR_clear_error();
        int result = SSL_read_ex(io->ssl, buf_data(tail) + buf_size(tail), buf_room(tail), &size);
        if (result != 1) {
            tlsio_judge(io, result);
            break;
        }
        uint32_t offset = tail->mbuf.data_off + buf_size(tail);
        buf_extend(tail, (uint32_t)size);
        buf_queue_append(&io->in, tail, offset, (uint32_t)size);
    }
    tlsio_let_go(io);
}

static int tlsio_encrypt(struct tlsio *io, const void *octets, size_t size)
{
    size_t written = 0;

    ERR_clear_error();
    int result = SSL_write_ex(io->ssl, octets, size, &written);
    if (result == 1)
        buf_queue_drop(&io->out, written);
    return result;
}

/* Many small slices make one record: copying is cheap beside encrypting. */
static int tlsio_encrypt_gathered(struct tlsio *io)
{
    __attribute__((uninitialized)) uint8_t octets[TLSIO_RECORD_SIZE];
    uint32_t size = io->out.size < sizeof(octets) ? (uint32_t)io->out.size : sizeof(octets);

    buf_queue_copy_out(&io->out, 0, octets, size);
    return tlsio_encrypt(io, octets, size);
}

/* Encrypt what may go: all of it, or whole records only while corked. */
static void tlsio_flush(struct tlsio *io)
{
    while (io->out.size > 0 && (!io->is_corked || io->out.size >= TLSIO_RECORD_SIZE)) {
        struct span first = buf_slice_span(buf_queue_get(&io->out, 0));
        bool is_whole = first.size == io->out.size || first.size >= TLSIO_RECORD_SIZE;
        int result =
            is_whole ? tlsio_encrypt(io, first.data, first.size) : tlsio_encrypt_gathered(io);

        if (result != 1) {
            tlsio_judge(io, result);
            return;
        }
    }
}

static void tlsio_step(struct tlsio *io)
{
    if (io->state == STREAM_HANDSHAKE)
        tlsio_handshake(io);
    if (io->state == STREAM_OPEN)
        tlsio_read(io);
    if (io->lost != ERR_OK)
        buf_queue_fini(&io->out);
    if (io->state == STREAM_OPEN || io->state == STREAM_PEER_CLOSED)
        tlsio_flush(io);
    if (tlsio_is_over(io))
        flow_consume(io->plane, io->flow, flow_readable(io->plane, io->flow));
}

uint32_t tlsio_run(struct tlsio *io, uint32_t events)
{
    enum stream_state before = io->state;
    uint32_t mask = io->wanted & (FLOW_WRITABLE | FLOW_SENT) & events;

    if (events & FLOW_PEER_CLOSED)
        io->wire.is_ended = io->is_fin = true;
    if (events & (FLOW_RESET | FLOW_FAILED)) {
        enum err err = flow_error(io->plane, io->flow);

        io->lost = err != ERR_OK ? err : ERR_PEER_RESET;
        io->wire.is_ended = true;
    }
    io->is_wake_wanted = false;
    io->is_wake_told = false;
    tlsio_step(io);
    tlsio_tell_wants(io);
    if (before == STREAM_HANDSHAKE && io->state == STREAM_OPEN)
        mask |= FLOW_CONNECTED;
    if (io->in.size > 0)
        mask |= io->wanted & FLOW_READABLE;
    if (io->out.size > 0)
        mask &= ~(uint32_t)FLOW_SENT;
    if (io->state == STREAM_PEER_CLOSED)
        mask |= FLOW_PEER_CLOSED;
    if (io->state == STREAM_FAILED)
        mask |= FLOW_RESET;
    return mask;
}

/* ---- start and end ---- */

static bool is_address(const char *name)
{
    uint8_t address[16];

    return inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;
}

static bool ssl_set_name(SSL *ssl, const char *name, bool verify)
{
    bool is_ip = is_address(name);

    if (!is_ip && SSL_set_tlsext_host_name(ssl, name) != 1) /* RFC 6066: no addresses in SNI */
        return false;
    if (!verify)
        return true;
    /* RFC 6125: names are those in subjectAltName, wildcards stand for one whole label. */
    SSL_set_hostflags(ssl,
                      X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    return is_ip ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name) == 1
                 : SSL_set1_host(ssl, name) == 1;
}

static SSL *ssl_make(const struct tlsio_options *options, struct tlsio *io)
{
    SSL *ssl = SSL_new(options->context);
    BIO *bio = tls_bio_new(&io->wire);

    if (ssl == NULL || bio == NULL ||
        (options->name != NULL && !options->is_server &&
         !ssl_set_name(ssl, options->name, options->verify))) {
        SSL_free(ssl);
        BIO_free(bio);
        return NULL;
    }
    SSL_set_bio(ssl, bio, bio); /* one reference serves both directions */
    if (options->is_server) {
        SSL_set_accept_state(ssl);
    } else {
        SSL_set_verify(ssl, options->verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
        SSL_set_connect_state(ssl);
        if (options->session != NULL) /* one that does not fit is none: a whole handshake */
            (void)SSL_set_session(ssl, options->session);
    }
    return ssl;
}

enum err tlsio_new(const struct tlsio_options *options, struct tlsio **ret_io)
{
    /* To verify and not to say what for would accept anybody's certificate. */
    CHECK(!options->verify || options->name != NULL);

    struct tlsio *io = calloc(1, sizeof(*io));
    if (io == NULL)
        return ERR_MEMORY;
    io->plane = options->plane;
    io->flow = options->flow;
    io->wire = (struct tls_bio){.plane = options->plane, .flow = options->flow};
    io->state = STREAM_HANDSHAKE;
    io->wanted = options->wanted;
    io->ssl = ssl_make(options, io);
    if (io->ssl == NULL) {
        free(io);
        ERR_clear_error();
        return ERR_MEMORY;
    }
    flow_cork(io->plane, io->flow, false);
    tlsio_step(io);
    io->flow_wanted = UINT32_MAX; /* not known: tell it */
    tlsio_tell_wants(io);
    *ret_io = io;
    return ERR_OK;
}

void tlsio_free(struct tlsio *io)
{
    SSL_free(io->ssl);
    buf_queue_fini(&io->in);
    buf_queue_fini(&io->out);
    if (io->tail != NULL)
        buf_release(io->tail);
    free(io->pulled);
    free(io);
}

bool tlsio_finish(struct tlsio *io)
{
    if (io->state == STREAM_FAILED)
        return true; /* there is an alert on its way at most */
    if (io->state == STREAM_HANDSHAKE)
        return false;
    io->is_corked = false;
    tlsio_flush(io);
    if (io->state == STREAM_FAILED || io->out.size > 0)
        return false;
    ERR_clear_error();
    int result = SSL_shutdown(io->ssl);
    ERR_clear_error();
    return result >= 0;
}

/* ---- what streams show ---- */

enum stream_state tlsio_get_state(const struct tlsio *io)
{
    return io->state;
}

enum err tlsio_error(const struct tlsio *io)
{
    return io->error;
}

const char *tlsio_reason(const struct tlsio *io)
{
    return io->reason;
}

const char *tlsio_version(const struct tlsio *io)
{
    return SSL_is_init_finished(io->ssl) ? SSL_get_version(io->ssl) : NULL;
}

const char *tlsio_cipher(const struct tlsio *io)
{
    return SSL_is_init_finished(io->ssl) ? SSL_get_cipher_name(io->ssl) : NULL;
}

bool tlsio_is_resumed(const struct tlsio *io)
{
    return io->state != STREAM_HANDSHAKE && SSL_session_reused(io->ssl) == 1;
}

const struct buf_queue *tlsio_received(const struct tlsio *io)
{
    return &io->in;
}

/* ---- receiving ---- */

/* Octets went out of `in`, or their charge was given back. */
static void tlsio_resume(struct tlsio *io)
{
    enum stream_state before = io->state;

    tlsio_let_go(io);
    if (io->is_blocked && tlsio_has_room(io))
        tlsio_step(io);
    if ((io->in.size > 0 && io->wanted & FLOW_READABLE) || io->state != before)
        io->is_wake_wanted = true;
    tlsio_tell_wants(io);
}

struct span tlsio_pull(struct tlsio *io, uint32_t size)
{
    CHECK(size <= FLOW_PULL_MAX);
    if (io->in.size == 0)
        return (struct span){NULL, 0};
    if (size > io->in.size)
        size = (uint32_t)io->in.size;
    struct span first = buf_slice_span(buf_queue_get(&io->in, 0));
    if (size <= first.size)
        return span_head(first, size);
    if (io->pulled == NULL)
        io->pulled = malloc(FLOW_PULL_MAX);
    CHECK(io->pulled != NULL);
    buf_queue_copy_out(&io->in, 0, io->pulled, size);
    return span_of(io->pulled, size);
}

void tlsio_consume(struct tlsio *io, uint32_t size)
{
    if (size == 0)
        return;
    buf_queue_drop(&io->in, size);
    tlsio_resume(io);
}

void tlsio_take(struct tlsio *io, uint32_t size, struct buf_queue *into)
{
    CHECK(size <= io->in.size);
    if (size == 0)
        return;
    io->taken += size;
    buf_queue_take(into, &io->in, size);
    tlsio_resume(io);
}

void tlsio_credit(struct tlsio *io, uint64_t charge)
{
    CHECK(charge <= io->taken);
    if (charge == 0)
        return;
    io->taken -= charge;
    tlsio_resume(io);
}

/* ---- sending ---- */

static void tlsio_appended(struct tlsio *io)
{
    if (io->state == STREAM_OPEN || io->state == STREAM_PEER_CLOSED)
        tlsio_flush(io);
    if (io->state == STREAM_FAILED)
        io->is_wake_wanted = true; /* so that the owner hears of it by an event */
    tlsio_tell_wants(io);
}

void tlsio_append(struct tlsio *io, struct buf_queue *octets)
{
    if (io->state == STREAM_FAILED || io->lost != ERR_OK) {
        buf_queue_fini(octets);
        return;
    }
    buf_queue_move(&io->out, octets);
    tlsio_appended(io);
}

enum err tlsio_write(struct tlsio *io, struct span octets)
{
    if (io->state == STREAM_FAILED || io->lost != ERR_OK)
        return ERR_OK;
    TRY(buf_queue_append_copy(&io->out, io->plane->pool, octets));
    tlsio_appended(io);
    return ERR_OK;
}

uint64_t tlsio_unsent(const struct tlsio *io)
{
    return io->out.size;
}

void tlsio_cork(struct tlsio *io, bool is_corked)
{
    io->is_corked = is_corked;
    if (!is_corked)
        tlsio_appended(io);
}

void tlsio_push(struct tlsio *io)
{
    bool was_corked = io->is_corked;

    io->is_corked = false;
    tlsio_appended(io);
    io->is_corked = was_corked;
}

void tlsio_want(struct tlsio *io, uint32_t events)
{
    bool is_new = (events & ~io->wanted & FLOW_READABLE) != 0;

    io->wanted = events;
    if (is_new && (io->in.size > 0 || tlsio_is_over(io)))
        io->is_wake_wanted = true;
    tlsio_tell_wants(io);
}
