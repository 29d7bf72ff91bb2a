/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TLS contexts: made by the control thread at start and reload, then shared by all shards and never
 * changed again.
 *
 * Servers take TLS 1.2 and later with authenticated ciphers and forward secrecy where the client
 * can. No renegotiation, no compression, no early data (a replayed MAIL would be a second message).
 * Sessions resume by ticket only: nothing is kept here. Tickets are sealed with keys of this
 * context and carry the listener's name, so that none is good at a listener with another policy.
 *
 * Clients come in two kinds. With a CA, or verifying, they want TLS 1.2 and good ciphers. The
 * opportunistic one takes whatever the other side has, TLS 1.0 and small keys included, since the
 * alternative is clear text (RFC 7435). It must not depend on the machine's openssl.cnf, which in
 * Debian forbids just that: so it has a library context of its own with the default provider alone,
 * and every setting that the file could reach is set here.
 */
#include "relay/stream.h"

#include <stdio.h>
#include <sys/stat.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/provider.h>
#include <openssl/ssl.h>

#define CIPHERS_MODERN                                                                             \
    "ECDHE+AESGCM:ECDHE+CHACHA20:ECDHE+AES:AESGCM:!aNULL:!eNULL:!SHA1:@SECLEVEL=1"
#define CIPHERS_ANY  "ALL:!aNULL:!eNULL:@SECLEVEL=0"
#define CIPHERSUITES "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
#define GROUPS       "X25519:P-256:P-384:P-521"
#define SIGNATURES_MODERN                                                                          \
    "ECDSA+SHA256:ed25519:ECDSA+SHA384:ECDSA+SHA512:RSA-PSS+SHA256:RSA-PSS+SHA384:RSA-PSS+SHA512:" \
    "RSA+SHA256:RSA+SHA384:RSA+SHA512"
#define SIGNATURES_ANY SIGNATURES_MODERN ":ECDSA+SHA1:RSA+SHA1"

/* Always: whoever negotiates again or compresses wants something else than mail. */
#define OPTIONS_ALWAYS                                                                             \
    (SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_SSLv3 |                           \
     SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_ENABLE_MIDDLEBOX_COMPAT)

/* What a kind of peer must be able to do. */
struct tls_strength {
    int version_min;
    const char *ciphers, *signatures;
};

static const struct tls_strength tls_modern = {TLS1_2_VERSION, CIPHERS_MODERN, SIGNATURES_MODERN};
static const struct tls_strength tls_any = {TLS1_VERSION, CIPHERS_ANY, SIGNATURES_ANY};

static enum err refuse(SSL_CTX *context, const char *what, const char *subject, char why[256])
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());

    snprintf(why, 256, "%s %.120s: %.90s", what, subject, reason != NULL ? reason : "failed");
    ERR_clear_error();
    SSL_CTX_free(context);
    return ERR_CONFIG_VALUE;
}

/* What holds for every context, whatever openssl.cnf says. */
static bool context_set_common(SSL_CTX *context, const struct tls_strength *strength)
{
    SSL_CTX_clear_options(context, SSL_CTX_get_options(context));
    SSL_CTX_set_options(context, OPTIONS_ALWAYS);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                                  SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    return SSL_CTX_set_min_proto_version(context, strength->version_min) == 1 &&
           SSL_CTX_set_max_proto_version(context, 0) == 1 &&
           SSL_CTX_set_cipher_list(context, strength->ciphers) == 1 &&
           SSL_CTX_set_ciphersuites(context, CIPHERSUITES) == 1 &&
           SSL_CTX_set1_groups_list(context, GROUPS) == 1 &&
           SSL_CTX_set1_sigalgs_list(context, strength->signatures) == 1;
}

/* A session's context is compared at resumption: 32 octets, hence the hash of the name. */
static bool context_bind(SSL_CTX *context, const char *listener_name)
{
    unsigned char hash[EVP_MAX_MD_SIZE];
    unsigned size = 0;

    return EVP_Digest(listener_name, strlen(listener_name), hash, &size, EVP_sha256(), NULL) == 1 &&
           SSL_CTX_set_session_id_context(context, hash, size) == 1;
}

/* OpenSSL would wait for who writes a pipe. */
static bool is_no_file(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && !S_ISREG(status.st_mode);
}

enum err tls_server_context_new(const char *certificate_file, const char *key_file,
                                const char *listener_name, struct ssl_ctx_st **ret_context,
                                char ret_why[256])
{
    SSL_CTX *context = SSL_CTX_new(TLS_server_method());

    if (context == NULL || !context_set_common(context, &tls_modern) ||
        !context_bind(context, listener_name) || SSL_CTX_set_max_early_data(context, 0) != 1 ||
        SSL_CTX_set_num_tickets(context, 1) != 1)
        return refuse(context, "cannot set TLS up for", listener_name, ret_why);
    if (is_no_file(certificate_file) || is_no_file(key_file))
        return refuse(context, "cannot use what is no regular file:",
                      is_no_file(certificate_file) ? certificate_file : key_file, ret_why);
    if (SSL_CTX_use_certificate_chain_file(context, certificate_file) != 1)
        return refuse(context, "cannot use certificate", certificate_file, ret_why);
    if (SSL_CTX_use_PrivateKey_file(context, key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(context) != 1)
        return refuse(context, "cannot use key", key_file, ret_why);
    *ret_context = context;
    return ERR_OK;
}

/* A library context with the default provider and nothing else. It is never freed: contexts made
 * from it live as long as the snapshots that hold them, and reloads share it. */
static OSSL_LIB_CTX *plain_library;
static CRYPTO_ONCE plain_library_once = CRYPTO_ONCE_STATIC_INIT;

static void plain_library_make(void)
{
    OSSL_LIB_CTX *library = OSSL_LIB_CTX_new();

    if (library != NULL && OSSL_PROVIDER_load(library, "default") == NULL) {
        OSSL_LIB_CTX_free(library);
        library = NULL;
    }
    plain_library = library;
}

static enum err opportunistic_context_new(struct ssl_ctx_st **ret_context, char why[256])
{
    if (CRYPTO_THREAD_run_once(&plain_library_once, plain_library_make) != 1 ||
        plain_library == NULL)
        return refuse(NULL, "cannot set up", "OpenSSL's default provider", why);

    SSL_CTX *context = SSL_CTX_new_ex(plain_library, NULL, TLS_client_method());
    if (context == NULL || !context_set_common(context, &tls_any))
        return refuse(context, "cannot set up", "opportunistic TLS", why);
    SSL_CTX_set_options(context, SSL_OP_LEGACY_SERVER_CONNECT);
    SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
    *ret_context = context;
    return ERR_OK;
}

enum err tls_client_context_new(bool verify, const char *ca_file, struct ssl_ctx_st **ret_context,
                                char ret_why[256])
{
    if (!verify && ca_file == NULL)
        return opportunistic_context_new(ret_context, ret_why);

    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (context == NULL || !context_set_common(context, &tls_modern))
        return refuse(context, "cannot set up", "TLS for clients", ret_why);
    bool is_system = ca_file == NULL || strcmp(ca_file, "system") == 0;
    if ((is_system ? SSL_CTX_set_default_verify_paths(context)
                   : SSL_CTX_load_verify_file(context, ca_file)) != 1)
        return refuse(context, "cannot use CA file", is_system ? "of the system" : ca_file,
                      ret_why);
    SSL_CTX_set_verify(context, verify ? SSL_VERIFY_PEER : SSL_VERIFY_NONE, NULL);
    *ret_context = context;
    return ERR_OK;
}

void tls_context_free(struct ssl_ctx_st *context)
{
    SSL_CTX_free(context);
}
