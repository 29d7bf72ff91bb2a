/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TLS_SELF_SIGNED_H
#define RELAY_TLS_SELF_SIGNED_H

#include <stdbool.h>

#include "base/err.h"

#define TLS_SELF_SIGNED_PATH_MAX 4200u

/** Is the pair there that tls_self_signed_ensure() would keep? */
bool tls_self_signed_is_made(const char *directory);
/**
 * Make sure that `directory` holds a private key and a certificate for `hostname` signed by itself:
 * self-signed.pem and self-signed.key (mode 0600). What is there is kept.
 *
 * Threading: control thread; blocks on files.
 * Errors:    ERR_CONFIG_VALUE with text in ret_why.
 */
enum err tls_self_signed_ensure(const char *directory, const char *hostname,
                                char ret_certificate[TLS_SELF_SIGNED_PATH_MAX],
                                char ret_key[TLS_SELF_SIGNED_PATH_MAX],
                                char ret_why[256]) MUST_CHECK;

#endif
