/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a client's two messages of SCRAM, and as keys of a file, with a line feed between
 * them: no crash; what is sent to the client is printable and within its bound; nobody is let in,
 * since nobody can guess a proof.
 */
#include <string.h>

#include "relay/auth_scram.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct span line_take(struct span *rest)
{
    const uint8_t *end = rest->size == 0 ? NULL : memchr(rest->data, '\n', rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span line = span_head(*rest, size);

    *rest = span_skip(*rest, end == NULL ? size : size + 1);
    return line;
}

static void check(struct span challenge)
{
    CHECK(challenge.size > 0 && challenge.size <= AUTH_SCRAM_CHALLENGE_MAX);
    for (uint32_t i = 0; i < challenge.size; i++)
        CHECK(challenge.data[i] > ' ' && challenge.data[i] <= '~');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char usual[] = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,"
                                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=,"
                                "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    char keys[AUTH_HASH_MAX + 1];
    struct auth_scram_secret secret;
    struct auth_scram scram;
    struct span challenge;

    if (size > 8192)
        return 0;
    struct span rest = span_of(data, (uint32_t)size);
    struct span first = line_take(&rest), final = line_take(&rest);
    size_t keys_size = rest.size < AUTH_HASH_MAX ? rest.size : AUTH_HASH_MAX;
    if (keys_size > 0)
        memcpy(keys, rest.data, keys_size);
    keys[keys_size] = '\0';
    if (auth_scram_parse(keys, &secret) != ERR_OK)
        CHECK(auth_scram_parse(usual, &secret) == ERR_OK);
    CHECK(secret.salt_size > 0 && secret.salt_size <= AUTH_SCRAM_SALT_MAX);
    if (auth_scram_begin(&scram, &secret, first, SPAN_LITERAL("server"), &challenge) != ERR_OK)
        return 0;
    check(challenge);
    CHECK(auth_scram_prove(&scram, final, &challenge) != ERR_OK && !scram.is_proved);
    return 0;
}
