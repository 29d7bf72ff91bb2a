/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_TLS_BIO_H
#define RELAY_TLS_BIO_H

#include <openssl/bio.h>

#include "dataplane/flow.h"

/* A flow as OpenSSL sees it. Lives at least as long as the BIO. */
struct tls_bio {
    struct flow_plane *plane;
    struct flow flow;
    bool is_ended; /* no octets come after those that are readable now */
};

/** A BIO over the flow; NULL without memory. Owner shard only, like the flow. */
BIO *tls_bio_new(struct tls_bio *wire);

#endif
