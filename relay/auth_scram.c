/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SCRAM-SHA-256, the server's side. With H = SHA-256, and HMAC of it (RFC 5802 section 3):
 *
 *   SaltedPassword = PBKDF2(password, salt, iterations)
 *   StoredKey      = H(HMAC(SaltedPassword, "Client Key"))
 *   ServerKey      = HMAC(SaltedPassword, "Server Key")
 *   AuthMessage    = client-first-message-bare "," server-first-message ","
 *                    client-final-message-without-proof
 *
 *   C: n,,n=user,r=cnonce          begin    S: r=cnonce snonce,s=salt,i=iterations
 *   C: c=biws,r=...,p=proof        prove    S: v=signature
 *
 * The client proves that it has ClientKey, of which we keep the hash; the signature proves that we
 * have ServerKey. Both are made of what was said, nonces included, so that neither serves twice.
 *
 * The password is taken as its octets are: SASLprep, which RFC 5802 asks for, is the client's
 * business, as it is for those who make the keys (`doveadm pw`); of ASCII it changes nothing.
 */
#include "relay/auth_scram.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/base64.h"

#define ITERATIONS_MADE 20000u
#define SALT_MADE       16u
#define FIELD_MAX       ((AUTH_SCRAM_SALT_MAX + 2) / 3 * 4)

_Static_assert(AUTH_SCRAM_NONCE_MAX + AUTH_SCRAM_NONCE_OWN + FIELD_MAX + 24 <=
                   AUTH_SCRAM_CHALLENGE_MAX,
               "the longest first challenge");
_Static_assert(BASE64_SIZE(AUTH_SCRAM_CHALLENGE_MAX) <= AUTH_CHALLENGE_MAX, "as a reply has it");

static void hmac(const uint8_t key[AUTH_SCRAM_KEY], struct span text, uint8_t ret[AUTH_SCRAM_KEY])
{
    CHECK(HMAC(EVP_sha256(), key, AUTH_SCRAM_KEY, text.data, text.size, ret, NULL) != NULL);
}

/* ---- what the file keeps ---- */

bool auth_scram_is_hash(const char *text)
{
    return strncmp(text, AUTH_SCRAM_PREFIX, strlen(AUTH_SCRAM_PREFIX)) == 0;
}

/* The part up to a comma, which is taken with it, or the end. */
static struct span part_take(struct span *rest)
{
    const uint8_t *end = rest->size == 0 ? NULL : memchr(rest->data, ',', rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span part = span_head(*rest, size);

    *rest = span_skip(*rest, end == NULL ? size : size + 1);
    return part;
}

static bool number_take(struct span text, uint32_t *ret_number)
{
    uint32_t number = 0;

    if (text.size == 0 || text.size > 7 || text.data[0] == '0')
        return false;
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < '0' || text.data[i] > '9')
            return false;
        number = number * 10 + (uint32_t)(text.data[i] - '0');
    }
    *ret_number = number;
    return true;
}

static bool octets_take(struct span text, uint8_t *ret_octets, uint32_t max, uint32_t *ret_size)
{
    uint8_t octets[FIELD_MAX];

    if (text.size > FIELD_MAX || base64_decode(text, octets, ret_size) != ERR_OK || *ret_size > max)
        return false;
    memcpy(ret_octets, octets, *ret_size);
    return true;
}

static bool key_take(struct span text, uint8_t ret_key[AUTH_SCRAM_KEY])
{
    uint32_t size = 0;

    return octets_take(text, ret_key, AUTH_SCRAM_KEY, &size) && size == AUTH_SCRAM_KEY;
}

enum err auth_scram_parse(const char *text, struct auth_scram_secret *ret_secret)
{
    struct auth_scram_secret secret = {0};

    if (!auth_scram_is_hash(text))
        return ERR_CONFIG_SYNTAX;
    struct span rest = span_from_text(text + strlen(AUTH_SCRAM_PREFIX));
    struct span iterations = part_take(&rest), salt = part_take(&rest);
    struct span stored_key = part_take(&rest), server_key = part_take(&rest);
    bool is_good = number_take(iterations, &secret.iterations) &&
                   secret.iterations >= AUTH_SCRAM_ITERATIONS_MIN &&
                   secret.iterations <= AUTH_SCRAM_ITERATIONS_MAX &&
                   octets_take(salt, secret.salt, sizeof(secret.salt), &secret.salt_size) &&
                   secret.salt_size > 0 && key_take(stored_key, secret.stored_key) &&
                   key_take(server_key, secret.server_key) && rest.size == 0;
    if (is_good)
        *ret_secret = secret;
    OPENSSL_cleanse(&secret, sizeof(secret));
    return is_good ? ERR_OK : ERR_CONFIG_SYNTAX;
}

void auth_scram_decoy(const struct auth_scram_secret *like, struct span name,
                      struct auth_scram_secret *ret_secret)
{
    char text[AUTH_NAME_MAX + 1];
    uint8_t salt[2 * AUTH_SCRAM_KEY];
    struct auth_scram_secret secret = {.iterations = like->iterations,
                                       .salt_size = like->salt_size};
    uint8_t *const made[] = {salt, salt + AUTH_SCRAM_KEY, secret.stored_key, secret.server_key};

    CHECK(name.size <= AUTH_NAME_MAX && sizeof(salt) >= AUTH_SCRAM_SALT_MAX);
    for (uint32_t i = 0; i < name.size; i++) /* case does not tell names apart */
        text[1 + i] =
            (char)(name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] | 0x20 : name.data[i]);
    for (uint32_t i = 0; i < COUNT_OF(made); i++) {
        text[0] = (char)i;
        hmac(like->server_key, span_of(text, 1 + name.size), made[i]);
    }
    memcpy(secret.salt, salt, secret.salt_size);
    *ret_secret = secret;
}

static bool keys_make(const char *password, struct auth_scram_secret *secret)
{
    uint8_t salted[AUTH_SCRAM_KEY], client_key[AUTH_SCRAM_KEY];

    if (PKCS5_PBKDF2_HMAC(password, (int)strlen(password), secret->salt, (int)secret->salt_size,
                          (int)secret->iterations, EVP_sha256(), sizeof(salted), salted) != 1)
        return false;
    hmac(salted, SPAN_LITERAL("Client Key"), client_key);
    SHA256(client_key, sizeof(client_key), secret->stored_key);
    hmac(salted, SPAN_LITERAL("Server Key"), secret->server_key);
    OPENSSL_cleanse(salted, sizeof(salted));
    OPENSSL_cleanse(client_key, sizeof(client_key));
    return true;
}

bool auth_scram_matches(const char *password, const struct auth_scram_secret *secret)
{
    struct auth_scram_secret made = *secret;

    return keys_make(password, &made) &&
           CRYPTO_memcmp(made.stored_key, secret->stored_key, AUTH_SCRAM_KEY) == 0;
}

bool auth_scram_make(const char *password, char *ret_text)
{
    struct auth_scram_secret secret = {.iterations = ITERATIONS_MADE, .salt_size = SALT_MADE};
    char salt[FIELD_MAX], stored_key[FIELD_MAX], server_key[FIELD_MAX];

    if (RAND_bytes(secret.salt, SALT_MADE) != 1 || !keys_make(password, &secret))
        return false;
    base64_encode(span_of(secret.salt, SALT_MADE), salt);
    base64_encode(span_of(secret.stored_key, AUTH_SCRAM_KEY), stored_key);
    base64_encode(span_of(secret.server_key, AUTH_SCRAM_KEY), server_key);
    (void)snprintf(ret_text, AUTH_HASH_MAX + 1, AUTH_SCRAM_PREFIX "%u,%.*s,%.*s,%.*s",
                   secret.iterations, (int)BASE64_SIZE(SALT_MADE), salt,
                   (int)BASE64_SIZE(AUTH_SCRAM_KEY), stored_key, (int)BASE64_SIZE(AUTH_SCRAM_KEY),
                   server_key);
    return true;
}

/* ---- the exchange ---- */

/* RFC 5802 section 7: printable, and no comma. */
static bool nonce_is_good(struct span nonce)
{
    for (uint32_t i = 0; i < nonce.size; i++) {
        if (nonce.data[i] <= ' ' || nonce.data[i] > '~')
            return false;
    }
    return nonce.size > 0 && nonce.size <= AUTH_SCRAM_NONCE_MAX;
}

/* "n=user" "," "r=nonce", behind the header of three octets. Extensions that may be ignored follow
 * (section 5.1). */
static bool first_take(struct span message, struct span *ret_bare, struct span *ret_nonce)
{
    static const struct span headers[] = {SPAN_LITERAL("n,,"), SPAN_LITERAL("y,,")};
    bool has_header = false;

    for (uint32_t i = 0; i < COUNT_OF(headers); i++)
        has_header = has_header || (message.size > headers[i].size &&
                                    memcmp(message.data, headers[i].data, headers[i].size) == 0);
    if (!has_header)
        return false;
    struct span bare = span_skip(message, 3), rest = bare;
    struct span name = part_take(&rest), nonce = part_take(&rest);
    if (name.size < 3 || memcmp(name.data, "n=", 2) != 0 || nonce.size < 3 ||
        memcmp(nonce.data, "r=", 2) != 0 || !nonce_is_good(span_skip(nonce, 2)))
        return false;
    *ret_bare = bare;
    *ret_nonce = span_skip(nonce, 2);
    return true;
}

enum err auth_scram_begin(struct auth_scram *scram, const struct auth_scram_secret *secret,
                          struct span message, struct span nonce, struct span *ret_challenge)
{
    char salt[FIELD_MAX];
    struct span bare, theirs;

    CHECK(nonce.size > 0 && nonce.size <= AUTH_SCRAM_NONCE_OWN);
    if (message.size > AUTH_PASSWORD_MAX || !first_take(message, &bare, &theirs))
        return ERR_PEER_SYNTAX;
    *scram = (struct auth_scram){.secret = *secret};
    base64_encode(span_head(message, 3), scram->binding);
    base64_encode(span_of(secret->salt, secret->salt_size), salt);
    int size = snprintf(scram->challenge, sizeof(scram->challenge), "r=%.*s%.*s,s=%.*s,i=%u",
                        SPAN_PRINTF(theirs), SPAN_PRINTF(nonce),
                        (int)BASE64_SIZE(secret->salt_size), salt, secret->iterations);
    CHECK(size > 0 && (size_t)size < sizeof(scram->challenge));
    *ret_challenge = span_of(scram->challenge, (uint32_t)size);
    int said = snprintf(scram->said, sizeof(scram->said), "%.*s,%.*s,", SPAN_PRINTF(bare), size,
                        scram->challenge);
    CHECK(said > 0 && (size_t)said < sizeof(scram->said));
    scram->said_size = (uint32_t)said;
    scram->nonce_first = bare.size + 3; /* behind ",r=" */
    scram->nonce_size = theirs.size + nonce.size;
    return ERR_OK;
}

/* Where ",p=" begins, of which the last counts; message.size: nowhere. */
static uint32_t proof_find(struct span message)
{
    for (uint32_t i = message.size; i >= 3; i--) {
        if (memcmp(message.data + i - 3, ",p=", 3) == 0)
            return i - 3;
    }
    return message.size;
}

/* "c=biws,r=nonce", and what may be ignored. */
static bool final_is_good(const struct auth_scram *scram, struct span bare)
{
    struct span binding = part_take(&bare), nonce = part_take(&bare);
    struct span wanted = span_of(scram->said + scram->nonce_first, scram->nonce_size);

    return binding.size == 2 + BASE64_SIZE(3) && memcmp(binding.data, "c=", 2) == 0 &&
           memcmp(binding.data + 2, scram->binding, BASE64_SIZE(3)) == 0 && nonce.size > 2 &&
           memcmp(nonce.data, "r=", 2) == 0 && span_is_equal(span_skip(nonce, 2), wanted);
}

static bool proof_is_right(const struct auth_scram *scram, struct span all,
                           const uint8_t proof[AUTH_SCRAM_KEY])
{
    uint8_t key[AUTH_SCRAM_KEY], hash[AUTH_SCRAM_KEY];

    hmac(scram->secret.stored_key, all, key); /* ClientSignature */
    for (uint32_t i = 0; i < AUTH_SCRAM_KEY; i++)
        key[i] ^= proof[i]; /* ClientKey, if it is right */
    SHA256(key, sizeof(key), hash);
    OPENSSL_cleanse(key, sizeof(key));
    return CRYPTO_memcmp(hash, scram->secret.stored_key, AUTH_SCRAM_KEY) == 0;
}

enum err auth_scram_prove(struct auth_scram *scram, struct span message, struct span *ret_challenge)
{
    char all[sizeof(scram->said) + AUTH_PASSWORD_MAX];
    uint8_t proof[AUTH_SCRAM_KEY], signature[AUTH_SCRAM_KEY];
    uint32_t bare_size = proof_find(message);

    CHECK(!scram->is_proved);
    if (message.size > AUTH_PASSWORD_MAX || bare_size == message.size ||
        !final_is_good(scram, span_head(message, bare_size)) ||
        !key_take(span_skip(message, bare_size + 3), proof))
        return ERR_PEER_SYNTAX;
    memcpy(all, scram->said, scram->said_size);
    memcpy(all + scram->said_size, message.data, bare_size);
    struct span whole = span_of(all, scram->said_size + bare_size);
    if (!proof_is_right(scram, whole, proof))
        return ERR_NOT_FOUND;
    hmac(scram->secret.server_key, whole, signature);
    memcpy(scram->challenge, "v=", 2);
    base64_encode(span_of(signature, sizeof(signature)), scram->challenge + 2);
    *ret_challenge = span_of(scram->challenge, 2 + BASE64_SIZE(AUTH_SCRAM_KEY));
    scram->is_proved = true;
    return ERR_OK;
}
