/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and hashes of the signer: all of it that sees OpenSSL.
 *
 * Keys are loaded by the control thread and never changed; every shard signs with them at once,
 * each signature with a context of its own.
 *
 * A key's file holds a secret: whoever may write it can sign as us, so others may neither read nor
 * write it. A passphrase cannot be asked for: there is nobody to ask.
 *
 * Algorithms: rsa-sha256 with 2,048 bits (RFC 8301 section 3.2) to 4,096, as much as verifiers must
 * know; ed25519-sha256 (RFC 8463), which signs the digest, not the text.
 */
#include "relay/dkim_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#define RSA_BITS_MIN      2048
#define RSA_BITS_MAX      4096
#define KEY_FILE_SIZE_MAX 65536u
#define COST_RSA          8u /* of 2,048 bits; eight times as much with twice the bits */

struct dkim_key {
    EVP_PKEY *pkey;
    bool is_rsa;
    uint32_t cost;
};

struct dkim_hash {
    EVP_MD_CTX *context;
    EVP_MD *algorithm;
    bool has_failed;
};

/* ---- files ---- */

__attribute__((format(printf, 2, 3))) static enum err refuse(char why[DKIM_KEY_WHY_SIZE],
                                                             const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(why, DKIM_KEY_WHY_SIZE, format, arguments);
    va_end(arguments);
    ERR_clear_error();
    return ERR_CONFIG_VALUE;
}

static enum err file_check(int fd, const char *path, char why[DKIM_KEY_WHY_SIZE])
{
    struct stat status;

    if (fstat(fd, &status) != 0)
        return refuse(why, "%.180s: %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode))
        return refuse(why, "%.180s: is no regular file", path);
    if ((status.st_mode & (S_IRWXO | S_IWGRP)) != 0)
        return refuse(why, "%.180s: has mode %04o: expected no right for others, such as 0640",
                      path, (unsigned)status.st_mode & 07777);
    if (status.st_size > (off_t)KEY_FILE_SIZE_MAX)
        return refuse(why, "%.180s: is too large to be a key", path);
    return ERR_OK;
}

/* Octets of the file; < 0: it cannot be read, with the reason in `why`. */
static int file_read(const char *path, uint8_t octets[KEY_FILE_SIZE_MAX],
                     char why[DKIM_KEY_WHY_SIZE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    uint32_t size = 0;
    ssize_t got = 1;

    if (fd < 0) {
        (void)refuse(why, "%.180s: %s", path, strerror(errno));
        return -1;
    }
    if (file_check(fd, path, why) != ERR_OK) {
        close(fd);
        return -1;
    }
    while (got > 0 && size < KEY_FILE_SIZE_MAX) {
        got = read(fd, octets + size, KEY_FILE_SIZE_MAX - size);
        size += got > 0 ? (uint32_t)got : 0;
    }
    if (got < 0)
        (void)refuse(why, "%.180s: %s", path, strerror(errno));
    close(fd);
    return got < 0 ? -1 : (int)size;
}

/* OpenSSL would ask the terminal. */
static int no_passphrase(char *text, int size, int is_writing, void *user)
{
    (void)text;
    (void)size;
    (void)is_writing;
    (void)user;
    return -1;
}

/* ---- keys ---- */

static enum err key_judge(EVP_PKEY *pkey, const char *path, struct dkim_key *ret_key,
                          char why[DKIM_KEY_WHY_SIZE])
{
    int bits = EVP_PKEY_get_bits(pkey);

    if (EVP_PKEY_get_base_id(pkey) == EVP_PKEY_ED25519) {
        *ret_key = (struct dkim_key){.pkey = pkey, .cost = 1};
        return ERR_OK;
    }
    if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA)
        return refuse(why, "%.180s: is neither an RSA nor an Ed25519 key", path);
    /*= rfc8301#section-3.2
     * Signers SHOULD use RSA keys of at least 2048 bits. */
    if (bits < RSA_BITS_MIN || bits > RSA_BITS_MAX)
        return refuse(why, "%.160s: is an RSA key of %d bits: expected %d to %d", path, bits,
                      RSA_BITS_MIN, RSA_BITS_MAX);
    uint32_t scale = (uint32_t)bits / 256; /* eight at the least size */
    *ret_key = (struct dkim_key){
        .pkey = pkey, .is_rsa = true, .cost = COST_RSA * scale * scale * scale / 512};
    return ERR_OK;
}

static enum err key_parse(const char *path, const uint8_t *octets, int size,
                          struct dkim_key *ret_key, char why[DKIM_KEY_WHY_SIZE])
{
    BIO *bio = BIO_new_mem_buf(octets, size);
    EVP_PKEY *pkey = bio == NULL ? NULL : PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

    BIO_free(bio);
    if (pkey == NULL)
        return refuse(why, "%.160s: holds no private key in PEM without a passphrase", path);
    enum err err = key_judge(pkey, path, ret_key, why);
    if (err != ERR_OK)
        EVP_PKEY_free(pkey);
    return err;
}

enum err dkim_key_load(const char *path, struct dkim_key **ret_key, char ret_why[DKIM_KEY_WHY_SIZE])
{
    uint8_t *octets = malloc(KEY_FILE_SIZE_MAX);
    struct dkim_key *key = calloc(1, sizeof(*key));
    enum err err = ERR_CONFIG_VALUE;

    CHECK(octets != NULL && key != NULL); /* control thread, start or reload */
    int size = file_read(path, octets, ret_why);
    if (size >= 0)
        err = key_parse(path, octets, size, key, ret_why);
    explicit_bzero(octets, KEY_FILE_SIZE_MAX);
    free(octets);
    if (err != ERR_OK) {
        free(key);
        return err;
    }
    *ret_key = key;
    return ERR_OK;
}

void dkim_key_free(struct dkim_key *key)
{
    if (key == NULL)
        return;
    EVP_PKEY_free(key->pkey);
    free(key);
}

const char *dkim_key_algorithm(const struct dkim_key *key)
{
    return key->is_rsa ? "rsa-sha256" : "ed25519-sha256";
}

uint32_t dkim_key_cost(const struct dkim_key *key)
{
    return key->cost;
}

static bool rsa_sign(EVP_PKEY *pkey, const uint8_t *digest, uint8_t *signature, size_t *size)
{
    EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(pkey, NULL);
    bool is_ok = context != NULL && EVP_PKEY_sign_init(context) == 1 &&
                 EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1 &&
                 EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) == 1 &&
                 EVP_PKEY_sign(context, signature, size, digest, DKIM_DIGEST_SIZE) == 1;

    EVP_PKEY_CTX_free(context);
    return is_ok;
}

/*= rfc8463#section-3
 * The signature is of the SHA-256 digest, as PureEdDSA. */
static bool ed25519_sign(EVP_PKEY *pkey, const uint8_t *digest, uint8_t *signature, size_t *size)
{
    EVP_MD_CTX *context = EVP_MD_CTX_new();
    bool is_ok = context != NULL && EVP_DigestSignInit(context, NULL, NULL, NULL, pkey) == 1 &&
                 EVP_DigestSign(context, signature, size, digest, DKIM_DIGEST_SIZE) == 1;

    EVP_MD_CTX_free(context);
    return is_ok;
}

enum err dkim_key_sign(const struct dkim_key *key, const uint8_t digest[DKIM_DIGEST_SIZE],
                       uint8_t ret_signature[DKIM_SIGNATURE_SIZE_MAX], uint32_t *ret_size)
{
    size_t size = DKIM_SIGNATURE_SIZE_MAX;
    bool is_ok = key->is_rsa ? rsa_sign(key->pkey, digest, ret_signature, &size)
                             : ed25519_sign(key->pkey, digest, ret_signature, &size);

    if (!is_ok) {
        ERR_clear_error(); /* TLS on this thread must not find it */
        return ERR_SYSTEM;
    }
    CHECK(size <= DKIM_SIGNATURE_SIZE_MAX);
    *ret_size = (uint32_t)size;
    return ERR_OK;
}

/* ---- hashes ---- */

static void hash_begin(struct dkim_hash *hash)
{
    hash->has_failed = EVP_DigestInit_ex(hash->context, hash->algorithm, NULL) != 1;
}

struct dkim_hash *dkim_hash_new(void)
{
    struct dkim_hash *hash = calloc(1, sizeof(*hash));

    if (hash == NULL)
        return NULL;
    hash->context = EVP_MD_CTX_new();
    hash->algorithm = EVP_MD_fetch(NULL, "SHA256", NULL);
    if (hash->context == NULL || hash->algorithm == NULL) {
        ERR_clear_error();
        dkim_hash_free(hash);
        return NULL;
    }
    hash_begin(hash);
    return hash;
}

void dkim_hash_free(struct dkim_hash *hash)
{
    if (hash == NULL)
        return;
    EVP_MD_CTX_free(hash->context);
    EVP_MD_free(hash->algorithm);
    free(hash);
}

void dkim_hash_add(void *opaque, struct span octets)
{
    struct dkim_hash *hash = opaque;

    if (!hash->has_failed)
        hash->has_failed = EVP_DigestUpdate(hash->context, octets.data, octets.size) != 1;
}

enum err dkim_hash_end(struct dkim_hash *hash, uint8_t ret_digest[DKIM_DIGEST_SIZE])
{
    unsigned int size = 0;
    bool is_ok = !hash->has_failed && EVP_DigestFinal_ex(hash->context, ret_digest, &size) == 1;

    CHECK(!is_ok || size == DKIM_DIGEST_SIZE);
    ERR_clear_error();
    hash_begin(hash);
    return is_ok ? ERR_OK : ERR_SYSTEM;
}
