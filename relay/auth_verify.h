/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_AUTH_VERIFY_H
#define RELAY_AUTH_VERIFY_H

#include "relay/auth.h"

/*
 * Passwords are checked against their hashes by a helper thread: that takes as long as thousands of
 * messages. One for each shard, started when it is first asked.
 */
#define AUTH_VERIFY_QUEUE 64u /* passwords that wait, with the one in hand */

struct auth_verifier;

/** Heap; start-up. Inline: without a thread; the work is done by auth_verifier_poll(). */
struct auth_verifier *auth_verifier_new(bool is_inline);
/** What is in hand is waited for, the rest forgotten. */
void auth_verifier_free(struct auth_verifier *verifier);
/** Readable when auth_verifier_poll() has something; -1 inline. */
int auth_verifier_eventfd(const struct auth_verifier *verifier);
/**
 * Check a password, later.
 *
 * Bounds:    at most AUTH_PASSWORD_MAX and AUTH_HASH_MAX octets, without NUL; both are copied.
 * Threading: owner core only, as all here.
 * Errors:    ERR_LIMIT: AUTH_VERIFY_QUEUE wait; ERR_SYSTEM: no thread can be had.
 */
enum err auth_verifier_submit(struct auth_verifier *verifier, struct span password,
                              const char *hash, uint32_t token) MUST_CHECK;
/** The next result, in the order of submission. False: none now. */
bool auth_verifier_poll(struct auth_verifier *verifier, uint32_t *ret_token, bool *ret_is_match);
/** Something may come. */
bool auth_verifier_is_busy(const struct auth_verifier *verifier);

/** Does the password belong to the hash? Takes as long as the hash asks for. */
bool auth_password_matches(const char *password, const char *hash);

#endif
