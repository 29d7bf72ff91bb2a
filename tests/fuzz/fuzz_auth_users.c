/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a file of users: refused with a reason, or users that are found by their own names,
 * with hashes that crypt(3) can be asked for.
 */
#include <stdlib.h>

#include "relay/auth_users.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char why[AUTH_USERS_WHY_SIZE] = "";
    struct auth_users *users = NULL;

    if (size > 65536)
        return 0;
    struct span text = span_of(data, (uint32_t)size);
    if (auth_users_parse(text, &users, why) != ERR_OK) {
        CHECK(users == NULL && why[0] != '\0');
        return 0;
    }
    struct span line = text;
    while (line.size > 0) { /* every line's front is a name, a comment, or somebody unknown */
        uint32_t end = 0;
        while (end < line.size && line.data[end] != ':' && line.data[end] != '\n')
            end++;
        const struct auth_user *user = auth_users_find(users, span_head(line, end));
        if (user != NULL) {
            CHECK(span_is_equal_nocase(span_from_text(user->name), span_head(line, end)));
            CHECK(user->hash == NULL || strlen(user->hash) <= AUTH_HASH_MAX);
            (void)auth_user_owns(user, SPAN_LITERAL("a"), SPAN_LITERAL("example.org"));
        }
        while (end < line.size && line.data[end] != '\n')
            end++;
        line = span_skip(line, end < line.size ? end + 1 : end);
    }
    const char *decoy = auth_users_decoy(users, SPAN_LITERAL("nobody"));
    CHECK(decoy == NULL || decoy[0] == '$' || decoy[0] == '{');
    auth_users_free(users);
    return 0;
}
