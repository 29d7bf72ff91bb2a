/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DKIM_H
#define RELAY_DKIM_H

#include "relay/settings.h"

/*
 * DKIM signatures (RFC 6376, RFC 8301, RFC 8463) as an engine: the octets of a message go in as
 * they come, header fields to put in front of it come out. It knows no session, no spool and no
 * clock.
 *
 *   dkim_signer_new() -> (dkim_signer_feed())* -> dkim_signer_finish() -> DKIM_SIGN: _sign()
 *                                                                    \-> all else: not signed
 */
#define DKIM_PREFIX_SIZE_MAX 16384u
#define DKIM_SIGNATURE_MAX   8u /* of one message */
#define DKIM_KEY_WHY_SIZE    256u

/* What becomes of a message. */
#define DKIM_VERDICTS                                                                              \
    X(OPEN, "its header is not complete yet")                                                      \
    X(SIGN, "it is to be signed")                                                                  \
    X(UNMATCHED, "no rule is for its domain")                                                      \
    X(OVERSIZED, "its header is larger than is kept for signing")                                  \
    X(NOT_A_FIELD, "a line of its header is no field")                                             \
    X(FROM_ABSENT, "it has no From field")                                                         \
    X(FROM_TWICE, "it has several From fields")                                                    \
    X(FROM_UNCLEAR, "its From field names no domain, or several")

enum dkim_verdict {
#define X(name, text) DKIM_##name,
    DKIM_VERDICTS
#undef X
        DKIM_VERDICT_COUNT
};

/** The header is not one that can be signed, whatever the rules say. */
static inline bool dkim_is_malformed(enum dkim_verdict verdict)
{
    return verdict >= DKIM_NOT_A_FIELD;
}

/* Where a message comes from, for the choice of rules. */
struct dkim_origin {
    const struct settings_listener *listener;
    const struct flow_address *client;
    struct span sender; /* MAIL FROM; empty: the null sender */
    /* May the client be the author of mail of this domain? NULL: of any. Asked while the header is
     * fed, with `context`. */
    bool (*is_author)(const void *context, struct span domain);
    const void *context;
};

struct dkim_signer;

/**
 * A signer for one message of a client in relay_from.
 *
 * Ownership:  what `settings` points to must outlive the signer. *ret_signer is NULL when no rule
 *             can be for this client.
 * Errors:     ERR_MEMORY.
 */
enum err dkim_signer_new(const struct settings *settings, const struct dkim_origin *origin,
                         struct dkim_signer **ret_signer) MUST_CHECK;
void dkim_signer_free(struct dkim_signer *signer);
/** The next octets of the message, header first, as they will be delivered. Cost: bounded memory;
 * without a rule for the message nothing behind its header is looked at. */
void dkim_signer_feed(struct dkim_signer *signer, struct span octets);
/** The message is complete. */
enum dkim_verdict dkim_signer_finish(struct dkim_signer *signer);
/** How much signing will cost, in Ed25519 signatures (about 50 microseconds each); after finish. */
uint32_t dkim_signer_cost(const struct dkim_signer *signer);
/**
 * Make the DKIM-Signature fields of a message with verdict DKIM_SIGN, each with its CRLF.
 *
 * Bounds:     at most DKIM_PREFIX_SIZE_MAX octets: printable ASCII, folded.
 * Ownership:  *ret_fields borrows from the signer.
 * Errors:     ERR_MEMORY, ERR_LIMIT (the fields do not fit), ERR_SYSTEM (the library failed).
 */
enum err dkim_signer_sign(struct dkim_signer *signer, wall_us now, struct span *ret_fields,
                          uint32_t *ret_count) MUST_CHECK;

/* ---- keys ---- */

struct dkim_key;

/**
 * Load a private key: RSA of 2,048 to 4,096 bits, or Ed25519, PEM without a passphrase, in a file
 * that others can neither read nor write.
 *
 * Threading:  control thread; blocks on the file. The key may be used by every shard at once.
 * Errors:     ERR_CONFIG_VALUE with text in ret_why.
 */
enum err dkim_key_load(const char *path, struct dkim_key **ret_key,
                       char ret_why[DKIM_KEY_WHY_SIZE]) MUST_CHECK;
void dkim_key_free(struct dkim_key *key);

#endif
