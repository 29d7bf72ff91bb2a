/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DKIM_INTERNAL_H
#define RELAY_DKIM_INTERNAL_H

#include "relay/dkim.h"

/*
 * Shared by the files of the signer: dkim.c (one message's way), dkim_canon.c (canonical forms),
 * dkim_header.c (fields, the author's domain), dkim_field.c (the text of a DKIM-Signature),
 * dkim_key.c (keys and hashes: all that sees OpenSSL).
 */
#define DKIM_HEADER_SIZE_MAX    131072u
#define DKIM_FIELD_MAX          1000u
#define DKIM_SINK_SIZE          1024u
#define DKIM_DIGEST_SIZE        32u
#define DKIM_SIGNATURE_SIZE_MAX 512u /* RSA of 4,096 bits */

/* ---- dkim_canon.c ---- */

/* Where canonical octets go, in portions. */
struct dkim_sink {
    void (*emit)(void *context, struct span octets);
    void *context;
    uint32_t size;
    uint8_t octets[DKIM_SINK_SIZE];
};

void dkim_sink_init(struct dkim_sink *sink, void (*emit)(void *context, struct span octets),
                    void *context);
void dkim_sink_put(struct dkim_sink *sink, struct span octets);
void dkim_sink_flush(struct dkim_sink *sink);

struct dkim_body {
    struct dkim_sink sink;
    enum dkim_canon canon;
    uint64_t empty_lines; /* at the end so far: they count only if something follows */
    bool is_cr;           /* a CR that may be half of a line end */
    bool has_space;  /* relaxed: white space that counts only if something follows in its line */
    bool is_in_line; /* the present line has content */
    bool has_content;
};

/** RFC 6376 sections 3.4.3 and 3.4.4. Any split of the body gives the same octets. */
void dkim_body_init(struct dkim_body *body, enum dkim_canon canon,
                    void (*emit)(void *context, struct span octets), void *context);
void dkim_body_feed(struct dkim_body *body, struct span octets);
void dkim_body_finish(struct dkim_body *body);
/** RFC 6376 sections 3.4.1 and 3.4.2. `field` with or without its last CRLF; is_ended: put one. */
void dkim_field_put(struct dkim_sink *sink, enum dkim_canon canon, struct span field,
                    bool is_ended);

/* ---- dkim_header.c ---- */

struct dkim_field {
    struct span name; /* without white space behind it */
    struct span text; /* the whole field, with its last CRLF where it has one */
};

struct dkim_header {
    struct dkim_field *fields; /* heap */
    uint32_t count;
};

/**
 * Cut a header (without the empty line) into its fields.
 *
 * Ownership: fields borrow from `octets`; dkim_header_fini() frees the array.
 * Errors:    ERR_PEER_SYNTAX (a line that is no field), ERR_LIMIT (DKIM_FIELD_MAX), ERR_MEMORY.
 */
enum err dkim_header_parse(struct span octets, struct dkim_header *ret_header) MUST_CHECK;
void dkim_header_fini(struct dkim_header *header);
/** The next field of this name above `index`, which is that of a field or the count; the count
 * when there is none. */
uint32_t dkim_header_find_above(const struct dkim_header *header, struct span name, uint32_t index);
/** The domain of every author in a From field, in lower-case A-labels. Errors: ERR_PEER_SYNTAX:
 * none, not to be read, or not the same for all. */
enum err dkim_author_domain(struct span from, char ret_domain[MX_NAME_MAX]) MUST_CHECK;
/** A domain in lower-case A-labels. Errors: ERR_PEER_SYNTAX. */
enum err dkim_domain_normalize(struct span domain, char ret_domain[MX_NAME_MAX]) MUST_CHECK;

/* ---- dkim_field.c ---- */

struct dkim_writer {
    uint8_t *octets;
    uint32_t size, room;
    uint32_t column;
    bool is_full; /* something did not fit */
};

/** Write the signature's field up to "b=". `names` is the list for h=, with repetitions. */
void dkim_signature_begin(struct dkim_writer *writer, const struct settings_dkim *rule,
                          const struct dkim_header *header,
                          const uint8_t body_digest[DKIM_DIGEST_SIZE], wall_us now);
/** The value of b=, and the CRLF. */
void dkim_signature_end(struct dkim_writer *writer, struct span signature);
/** Names of h= in order: for each, `visit` is called with the field it stands for, or NULL. */
void dkim_signed_fields(const struct settings_dkim *rule, const struct dkim_header *header,
                        void (*visit)(void *context, struct span name,
                                      const struct dkim_field *field),
                        void *context);

/* ---- dkim_key.c ---- */

struct dkim_hash; /* SHA-256 */

struct dkim_hash *dkim_hash_new(void); /* NULL: no memory */
void dkim_hash_free(struct dkim_hash *hash);
/** As the `emit` of a sink; a failure of the library is remembered until dkim_hash_end(). */
void dkim_hash_add(void *hash, struct span octets);
/** Errors: ERR_SYSTEM. The hash begins anew. */
enum err dkim_hash_end(struct dkim_hash *hash, uint8_t ret_digest[DKIM_DIGEST_SIZE]) MUST_CHECK;

/** "rsa-sha256" or "ed25519-sha256". */
const char *dkim_key_algorithm(const struct dkim_key *key);
uint32_t dkim_key_cost(const struct dkim_key *key);
/** Sign a digest. Errors: ERR_SYSTEM. */
enum err dkim_key_sign(const struct dkim_key *key, const uint8_t digest[DKIM_DIGEST_SIZE],
                       uint8_t ret_signature[DKIM_SIGNATURE_SIZE_MAX],
                       uint32_t *ret_size) MUST_CHECK;

#endif
