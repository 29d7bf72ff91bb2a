/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_AUTH_SCRAM_H
#define RELAY_AUTH_SCRAM_H

#include "relay/auth.h"

/*
 * The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677) for users of a file. What the file keeps
 * of a password is, in the form that Dovecot's `doveadm pw -s SCRAM-SHA-256` prints,
 *
 *   {SCRAM-SHA-256}iterations,salt,StoredKey,ServerKey        the last three in base64
 *
 * No channel binding, and nobody acts for somebody else.
 */
#define AUTH_SCRAM_PREFIX         "{SCRAM-SHA-256}"
#define AUTH_SCRAM_ITERATIONS_MIN 4096u /* RFC 7677 section 4 */
#define AUTH_SCRAM_ITERATIONS_MAX 1000000u
#define AUTH_SCRAM_SALT_MAX       64u
#define AUTH_SCRAM_KEY            32u
#define AUTH_SCRAM_NONCE_OWN      32u  /* characters that we add at most to the client's, */
#define AUTH_SCRAM_NONCE_MAX      400u /* which has so many at most */
#define AUTH_SCRAM_CHALLENGE_MAX  600u /* octets, before base64 */

struct auth_scram_secret {
    uint32_t iterations, salt_size;
    uint8_t salt[AUTH_SCRAM_SALT_MAX], stored_key[AUTH_SCRAM_KEY], server_key[AUTH_SCRAM_KEY];
};

/** Is this text of the form above at all? */
bool auth_scram_is_hash(const char *text);
/** Errors: ERR_CONFIG_SYNTAX: it is none, or outside the bounds. */
enum err auth_scram_parse(const char *text, struct auth_scram_secret *ret_secret) MUST_CHECK;
/**
 * What a stranger's name has: iterations and size of the salt as `like`, salt always the same for a
 * name, keys that nobody has. Takes no other time than for a name that exists.
 */
void auth_scram_decoy(const struct auth_scram_secret *like, struct span name,
                      struct auth_scram_secret *ret_secret);
/** Does the password belong to it? As long as its iterations take. */
bool auth_scram_matches(const char *password, const struct auth_scram_secret *secret);
/** Text in the form above, with a NUL. False: no randomness. `ret_text` has AUTH_HASH_MAX + 1. */
bool auth_scram_make(const char *password, char *ret_text) MUST_CHECK;

/* One exchange. */
struct auth_scram {
    struct auth_scram_secret secret;
    char binding[5]; /* what the client's last message must say of it */
    /* "client-first-message-bare,server-first-message,": what is proved begins so */
    char said[AUTH_PASSWORD_MAX + AUTH_SCRAM_CHALLENGE_MAX + 4];
    uint32_t said_size, nonce_first, nonce_size; /* where in it the whole nonce is */
    char challenge[AUTH_SCRAM_CHALLENGE_MAX];
    bool is_proved;
};

/**
 * The client's first message. `nonce`: ours, random, printable characters without a comma.
 *
 * Ownership: *ret_challenge is the server's answer, in the exchange.
 * Errors:    ERR_PEER_SYNTAX.
 */
enum err auth_scram_begin(struct auth_scram *scram, const struct auth_scram_secret *secret,
                          struct span message, struct span nonce,
                          struct span *ret_challenge) MUST_CHECK;
/** The client's last message but an empty one. Errors: ERR_PEER_SYNTAX; ERR_NOT_FOUND: the client
 * does not know the password. */
enum err auth_scram_prove(struct auth_scram *scram, struct span message,
                          struct span *ret_challenge) MUST_CHECK;

#endif
