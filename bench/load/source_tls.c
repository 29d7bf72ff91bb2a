/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS of the source. With --resume the newest session that the peer gave is offered in every
 * handshake: a ticket may be used more than once (RFC 8446 section 4.6.1 leaves that to the server,
 * and section C.4 advises against it, for privacy's sake, which a load has no use for).
 *
 * Invariant: source->tls_session is ours, one reference; on_session() is the only writer while
 * connections run.
 */
#include "bench/load/source_internal.h"

#include <openssl/ssl.h>

/* Takes over the session: 1. */
static int on_session(SSL *ssl, SSL_SESSION *session)
{
    struct source *source = SSL_CTX_get_app_data(SSL_get_SSL_CTX(ssl));

    SSL_SESSION_free(source->tls_session);
    source->tls_session = session;
    return 1;
}

bool source_tls_make(struct source *source)
{
    char why[256];

    if (source->options->tls == LOAD_TLS_NONE)
        return true;
    if (tls_client_context_new(false, NULL, &source->tls, why) != ERR_OK) {
        (void)fprintf(stderr, "angarium-load source: %s\n", why);
        return false;
    }
    if (source->options->is_resuming) {
        SSL_CTX_set_app_data(source->tls, source);
        SSL_CTX_set_session_cache_mode(source->tls,
                                       SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
        SSL_CTX_sess_set_new_cb(source->tls, on_session);
    }
    return true;
}

void source_tls_free(struct source *source)
{
    SSL_SESSION_free(source->tls_session);
    tls_context_free(source->tls);
}

enum err source_tls_start(struct source *source, struct stream *stream)
{
    return stream_resume_tls_client(stream, source->tls, source->tls_session);
}
