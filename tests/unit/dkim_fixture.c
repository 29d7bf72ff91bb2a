/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and a verifier for tests of DKIM: see dkim_fixture.h. */
#include "tests/unit/dkim_fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>

#include "relay/dkim_internal.h"

#define VALUE_SIZE 4096u

/* ---- keys ---- */

EVP_PKEY *dkim_fixture_ed25519(void)
{
    static const uint8_t seed[32] = {0x9d, 0x61, 0xb1, 0x9d, 0xef, 0xfd, 0x5a, 0x60,
                                     0xba, 0x84, 0x4a, 0xf4, 0x92, 0xec, 0x2c, 0xc4,
                                     0x44, 0x49, 0xc5, 0x69, 0x7b, 0x32, 0x69, 0x19,
                                     0x70, 0x3b, 0xac, 0x03, 0x1c, 0xae, 0x7f, 0x60};
    EVP_PKEY *key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));

    CHECK(key != NULL);
    return key;
}

EVP_PKEY *dkim_fixture_rsa(uint32_t bits)
{
    EVP_PKEY *key = EVP_RSA_gen(bits);

    CHECK(key != NULL);
    return key;
}

static uint32_t base64_decode(const char *text, uint8_t *ret_octets, uint32_t size)
{
    uint32_t length = (uint32_t)strlen(text);

    CHECK(length % 4 == 0 && length / 4 * 3 <= size);
    int got = EVP_DecodeBlock(ret_octets, (const uint8_t *)text, (int)length);
    if (got < 0)
        return 0;
    while (length > 0 && text[--length] == '=')
        got--;
    return (uint32_t)got;
}

EVP_PKEY *dkim_fixture_public(const char *base64)
{
    uint8_t octets[1024];
    const uint8_t *at = octets;
    uint32_t size = base64_decode(base64, octets, sizeof(octets));
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)size);

    CHECK(key != NULL);
    return key;
}

void dkim_fixture_key_free(EVP_PKEY *key)
{
    EVP_PKEY_free(key);
}

const char *dkim_fixture_file(const char *text, uint32_t size, uint32_t mode,
                              char ret_path[DKIM_FIXTURE_PATH_SIZE])
{
    int fd = memfd_create("dkim", 0);

    CHECK(fd >= 0 && write(fd, text, size) == (ssize_t)size && fchmod(fd, mode) == 0);
    snprintf(ret_path, DKIM_FIXTURE_PATH_SIZE, "/proc/self/fd/%d", fd);
    return ret_path;
}

const char *dkim_fixture_key_file(EVP_PKEY *key, char ret_path[DKIM_FIXTURE_PATH_SIZE])
{
    BIO *bio = BIO_new(BIO_s_mem());
    char *text;

    CHECK(bio != NULL && PEM_write_bio_PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL) == 1);
    long size = BIO_get_mem_data(bio, &text);
    dkim_fixture_file(text, (uint32_t)size, 0600, ret_path);
    BIO_free(bio);
    return ret_path;
}

/* ---- the verifier ---- */

/* Where the value of a tag is in a field: between '=' and ';' or the end. */
static struct span tag_find(struct span field, const char *name)
{
    const uint8_t *colon = memchr(field.data, ':', field.size);
    struct span rest = span_skip(field, (uint32_t)(colon - field.data) + 1);

    while (rest.size > 0) {
        const uint8_t *end = memchr(rest.data, ';', rest.size);
        struct span tag = span_head(rest, end == NULL ? rest.size : (uint32_t)(end - rest.data));
        rest = span_skip(rest, tag.size + (end != NULL));
        while (tag.size > 0 && strchr(" \t\r\n", tag.data[0]) != NULL)
            tag = span_skip(tag, 1);
        const uint8_t *equals = memchr(tag.data, '=', tag.size);
        if (equals == NULL)
            continue;
        struct span found = span_head(tag, (uint32_t)(equals - tag.data));
        if (span_is_equal(found, span_from_text(name)))
            return span_skip(tag, found.size + 1);
    }
    return (struct span){0};
}

const char *dkim_fixture_tag(struct span field, const char *name, char *ret_value, uint32_t size)
{
    struct span value = tag_find(field, name);
    uint32_t used = 0;

    for (uint32_t i = 0; i < value.size && used + 1 < size; i++) {
        if (strchr(" \t\r\n", value.data[i]) == NULL)
            ret_value[used++] = (char)value.data[i];
    }
    ret_value[used] = '\0';
    return ret_value;
}

static enum dkim_canon canon_of(const char *text)
{
    return strncmp(text, "relaxed", 7) == 0 ? DKIM_RELAXED : DKIM_SIMPLE;
}

static bool body_hash_is_good(struct span field, struct span body)
{
    char value[VALUE_SIZE], canon[VALUE_SIZE];
    uint8_t digest[DKIM_DIGEST_SIZE], wanted[64];
    struct dkim_hash *hash = dkim_hash_new();
    struct dkim_body state;

    dkim_fixture_tag(field, "c", canon, sizeof(canon));
    const char *slash = strchr(canon, '/');
    CHECK(slash != NULL);
    dkim_body_init(&state, canon_of(slash + 1), dkim_hash_add, hash);
    dkim_body_feed(&state, body);
    dkim_body_finish(&state);
    CHECK(dkim_hash_end(hash, digest) == ERR_OK);
    dkim_hash_free(hash);
    dkim_fixture_tag(field, "bh", value, sizeof(value));
    return base64_decode(value, wanted, sizeof(wanted)) == sizeof(digest) &&
           memcmp(wanted, digest, sizeof(digest)) == 0;
}

/* The signature's own field with an empty b=. */
static void put_own(struct dkim_sink *sink, enum dkim_canon canon, struct span field)
{
    struct span value = tag_find(field, "b");
    uint32_t before = (uint32_t)(value.data - field.data);
    uint8_t *text = malloc(field.size);

    CHECK(text != NULL && value.size > 0);
    memcpy(text, field.data, before);
    memcpy(text + before, value.data + value.size, field.size - before - value.size);
    dkim_field_put(sink, canon, span_of(text, field.size - value.size), false);
    free(text);
}

static void header_hash(const struct dkim_header *header, struct span own,
                        uint8_t digest[DKIM_DIGEST_SIZE])
{
    char names[VALUE_SIZE], canon_text[VALUE_SIZE], *rest = names;
    enum dkim_canon canon = canon_of(dkim_fixture_tag(own, "c", canon_text, sizeof(canon_text)));
    struct dkim_hash *hash = dkim_hash_new();
    bool *is_used = calloc(header->count, sizeof(*is_used));
    struct dkim_sink sink;

    CHECK(is_used != NULL);
    dkim_sink_init(&sink, dkim_hash_add, hash);
    dkim_fixture_tag(own, "h", names, sizeof(names));
    for (char *name; (name = strsep(&rest, ":")) != NULL;) {
        for (uint32_t i = header->count; i-- > 0;) {
            if (is_used[i] || !span_is_equal_nocase(header->fields[i].name, span_from_text(name)))
                continue;
            is_used[i] = true;
            dkim_field_put(&sink, canon, header->fields[i].text, true);
            break;
        }
    }
    put_own(&sink, canon, own);
    dkim_sink_flush(&sink);
    CHECK(dkim_hash_end(hash, digest) == ERR_OK);
    dkim_hash_free(hash);
    free(is_used);
}

static bool signature_is_good(EVP_PKEY *key, const uint8_t *digest, struct span signature)
{
    bool is_good;

    if (EVP_PKEY_get_base_id(key) == EVP_PKEY_RSA) {
        EVP_PKEY_CTX *context = EVP_PKEY_CTX_new(key, NULL);
        is_good =
            EVP_PKEY_verify_init(context) == 1 &&
            EVP_PKEY_CTX_set_rsa_padding(context, RSA_PKCS1_PADDING) == 1 &&
            EVP_PKEY_CTX_set_signature_md(context, EVP_sha256()) == 1 &&
            EVP_PKEY_verify(context, signature.data, signature.size, digest, DKIM_DIGEST_SIZE) == 1;
        EVP_PKEY_CTX_free(context);
    } else {
        EVP_MD_CTX *context = EVP_MD_CTX_new();
        is_good = EVP_DigestVerifyInit(context, NULL, NULL, NULL, key) == 1 &&
                  EVP_DigestVerify(context, signature.data, signature.size, digest,
                                   DKIM_DIGEST_SIZE) == 1;
        EVP_MD_CTX_free(context);
    }
    return is_good;
}

const char *dkim_fixture_verify(struct span message, uint32_t index, EVP_PKEY *key)
{
    const uint8_t *empty = memmem(message.data, message.size, "\r\n\r\n", 4);
    uint32_t header_size = empty == NULL ? message.size : (uint32_t)(empty - message.data) + 2;
    uint32_t body_offset = empty == NULL ? message.size : header_size + 2;
    struct dkim_header header;
    uint8_t digest[DKIM_DIGEST_SIZE], signature[VALUE_SIZE];
    char value[VALUE_SIZE];
    struct span own = {0};

    if (dkim_header_parse(span_head(message, header_size), &header) != ERR_OK)
        return "the header does not parse";
    for (uint32_t i = 0; i < header.count && own.size == 0; i++) {
        if (span_is_equal_nocase(header.fields[i].name, SPAN_LITERAL("DKIM-Signature")) &&
            index-- == 0)
            own = header.fields[i].text;
    }
    const char *reason = own.size == 0 ? "no such signature" : NULL;
    if (reason == NULL && !body_hash_is_good(own, span_skip(message, body_offset)))
        reason = "the body hash is wrong";
    if (reason == NULL) {
        header_hash(&header, own, digest);
        dkim_fixture_tag(own, "b", value, sizeof(value));
        uint32_t size = base64_decode(value, signature, sizeof(signature));
        if (!signature_is_good(key, digest, span_of(signature, size)))
            reason = "the signature is wrong";
    }
    dkim_header_fini(&header);
    return reason;
}
