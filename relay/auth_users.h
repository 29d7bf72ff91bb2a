/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_AUTH_USERS_H
#define RELAY_AUTH_USERS_H

#include "relay/auth.h"

/*
 * The users of a file: names, hashes of their passwords, and the addresses that each may send
 * under. See auth_users.c for the file's form. Immutable once loaded.
 */
#define AUTH_USERS_MAX           1000000u
#define AUTH_USERS_FILE_SIZE_MAX (256u << 20)
#define AUTH_USERS_WHY_SIZE      256u

struct auth_address {
    const char *local;  /* NULL: any */
    const char *domain; /* a pattern as settings_name_matches() takes it */
};

struct auth_user {
    const char *name; /* ASCII letters small */
    const char *hash; /* for crypt(3), or auth_scram.h; NULL: locked */
    const struct auth_address *addresses;
    uint32_t address_count;
    const struct rate_set *messages, *recipients, *held; /* NULL: as for all */
    const enum auth_beyond *beyond;                      /* NULL: as for all */
};

/**
 * Read users from text.
 *
 * Threading: control thread; heap.
 * Errors:    ERR_CONFIG_SYNTAX with line and reason in ret_why, ERR_MEMORY.
 */
enum err auth_users_parse(struct span text, struct auth_users **ret_users,
                          char ret_why[AUTH_USERS_WHY_SIZE]) MUST_CHECK;
/** The same from a file, which must not be readable by others. Errors: also ERR_NOT_FOUND. */
enum err auth_users_load(const char *path, struct auth_users **ret_users,
                         char ret_why[AUTH_USERS_WHY_SIZE]) MUST_CHECK;
void auth_users_free(struct auth_users *users);
uint32_t auth_users_count(const struct auth_users *users);
/** ASCII case does not matter. NULL: there is no such user. */
const struct auth_user *auth_users_find(const struct auth_users *users, struct span name);
/**
 * A hash to check the password of an unknown or locked user against, so that both take as long as
 * others; always the same one for a name. NULL when no user has a hash.
 */
const char *auth_users_decoy(const struct auth_users *users, struct span name);
/** Has everybody who can log in keys for SCRAM? Who has none would be refused by it, and a client
 * that knows it uses it. */
bool auth_users_has_scram(const struct auth_users *users);
/** May this user send as `local`@`domain`? The domain is normalized. */
bool auth_user_owns(const struct auth_user *user, struct span local, struct span domain);

#endif
