/* SPDX-License-Identifier: Apache-2.0 */
/*
 * OpenSSL's input and output: received octets are copied from where they lie straight into
 * OpenSSL's record buffer and consumed, records are copied straight into reserved buffers of the
 * flow. There is no buffer in between.
 *
 * Without octets a read asks to be retried, unless the flow has ended: then it is the end of the
 * file. Without buffers a write asks to be retried; a part of a record may have gone out before.
 */
#include "relay/tls_bio.h"

#include <openssl/crypto.h>

#define TLS_BIO_SPANS 8u

static int bio_read(BIO *bio, char *octets, size_t size, size_t *ret_size)
{
    struct tls_bio *wire = BIO_get_data(bio);
    struct span spans[TLS_BIO_SPANS];
    size_t copied = 0;

    BIO_clear_retry_flags(bio);
    uint32_t count = flow_peek(wire->plane, wire->flow, spans, TLS_BIO_SPANS);
    for (uint32_t i = 0; i < count && copied < size; i++) {
        size_t part = spans[i].size < size - copied ? spans[i].size : size - copied;

        memcpy(octets + copied, spans[i].data, part);
        copied += part;
    }
    if (copied == 0) {
        if (!wire->is_ended)
            BIO_set_retry_read(bio);
        return 0;
    }
    flow_consume(wire->plane, wire->flow, (uint32_t)copied);
    *ret_size = copied;
    return 1;
}

static int bio_write(BIO *bio, const char *octets, size_t size, size_t *ret_size)
{
    struct tls_bio *wire = BIO_get_data(bio);
    size_t copied = 0;

    BIO_clear_retry_flags(bio);
    while (copied < size) {
        struct span_mut room = flow_reserve(wire->plane, wire->flow, 1);

        if (room.data == NULL)
            break;
        size_t part = room.size < size - copied ? room.size : size - copied;
        memcpy(room.data, octets + copied, part);
        flow_commit(wire->plane, wire->flow, (uint32_t)part);
        copied += part;
    }
    if (copied == 0) {
        BIO_set_retry_write(bio);
        return 0;
    }
    *ret_size = copied;
    return 1;
}

static long bio_control(BIO *bio, int command, long number, void *pointer)
{
    const struct tls_bio *wire = BIO_get_data(bio);

    (void)number;
    (void)pointer;
    switch (command) {
    case BIO_CTRL_FLUSH:
        return 1;
    case BIO_CTRL_EOF:
        return wire->is_ended;
    default:
        return 0;
    }
}

/* A constant table, but OpenSSL wants it built; once per process, never freed. */
static BIO_METHOD *bio_method;
static CRYPTO_ONCE bio_once = CRYPTO_ONCE_STATIC_INIT;

static void bio_method_make(void)
{
    BIO_METHOD *method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "flow");

    if (method == NULL || BIO_meth_set_read_ex(method, bio_read) != 1 ||
        BIO_meth_set_write_ex(method, bio_write) != 1 ||
        BIO_meth_set_ctrl(method, bio_control) != 1) {
        BIO_meth_free(method);
        return;
    }
    bio_method = method;
}

BIO *tls_bio_new(struct tls_bio *wire)
{
    if (CRYPTO_THREAD_run_once(&bio_once, bio_method_make) != 1 || bio_method == NULL)
        return NULL;
    BIO *bio = BIO_new(bio_method);
    if (bio == NULL)
        return NULL;
    BIO_set_data(bio, wire);
    BIO_set_init(bio, 1);
    return bio;
}
