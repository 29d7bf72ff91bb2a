/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A key and a certificate signed by itself, for STARTTLS before a real certificate is had: senders
 * that encrypt when they can do not look at names.
 *
 * ECDSA P-256, ten years. The key is written first and the certificate last, both under temporary
 * names that are renamed, so that a certificate in place means a whole pair.
 */
#include "relay/tls_self_signed.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#define VALID_DAYS 3650

static enum err refuse(char why[256], const char *what, const char *path)
{
    snprintf(why, 256, "%s %.150s: %s", what, path, errno != 0 ? strerror(errno) : "failed");
    return ERR_CONFIG_VALUE;
}

static bool extension_add(X509 *certificate, int kind, const char *value)
{
    X509V3_CTX context;

    X509V3_set_ctx(&context, certificate, certificate, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &context, kind, value);
    bool is_ok = extension != NULL && X509_add_ext(certificate, extension, -1) == 1;
    X509_EXTENSION_free(extension);
    return is_ok;
}

static bool certificate_fill(X509 *certificate, EVP_PKEY *key, const char *hostname)
{
    X509_NAME *name = X509_get_subject_name(certificate);
    char alternative[300];

    snprintf(alternative, sizeof(alternative), "DNS:%.253s", hostname);
    return X509_set_version(certificate, X509_VERSION_3) == 1 &&
           ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate), (uint64_t)time(NULL)) == 1 &&
           X509_gmtime_adj(X509_getm_notBefore(certificate), -3600) != NULL &&
           X509_time_adj_ex(X509_getm_notAfter(certificate), VALID_DAYS, 0, NULL) != NULL &&
           X509_set_pubkey(certificate, key) == 1 &&
           /* a common name has room for 64 octets only (X.520): the alternative name is what counts
            */
           X509_NAME_add_entry_by_txt(
               name, "CN", MBSTRING_UTF8,
               (const unsigned char *)(strlen(hostname) <= 64 ? hostname : "relay"), -1, -1,
               0) == 1 &&
           X509_set_issuer_name(certificate, name) == 1 &&
           extension_add(certificate, NID_subject_alt_name, alternative) &&
           X509_sign(certificate, key, EVP_sha256()) > 0;
}

/* Write by `put` under a temporary name, then rename. */
static bool file_write(const char *path, bool (*put)(FILE *file, void *what), void *what)
{
    char temporary[TLS_SELF_SIGNED_PATH_MAX + 8];

    snprintf(temporary, sizeof(temporary), "%s.new", path);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    FILE *file = fd < 0 ? NULL : fdopen(fd, "w");
    if (file == NULL)
        return false;
    bool is_ok = put(file, what);
    is_ok = fclose(file) == 0 && is_ok;
    return is_ok && rename(temporary, path) == 0;
}

static bool key_put(FILE *file, void *key)
{
    return PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL) == 1;
}

static bool certificate_put(FILE *file, void *certificate)
{
    return PEM_write_X509(file, certificate) == 1;
}

static enum err pair_make(const char *hostname, const char *certificate_path, const char *key_path,
                          char why[256])
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *certificate = X509_new();
    enum err err = ERR_OK;

    errno = 0;
    if (key == NULL || certificate == NULL || !certificate_fill(certificate, key, hostname))
        err = refuse(why, "cannot make a certificate for", hostname);
    else if (!file_write(key_path, key_put, key))
        err = refuse(why, "cannot write", key_path);
    else if (!file_write(certificate_path, certificate_put, certificate))
        err = refuse(why, "cannot write", certificate_path);
    X509_free(certificate);
    EVP_PKEY_free(key);
    return err;
}

static void paths_make(const char *directory, char ret_certificate[TLS_SELF_SIGNED_PATH_MAX],
                       char ret_key[TLS_SELF_SIGNED_PATH_MAX])
{
    CHECK(strlen(directory) + 32 < TLS_SELF_SIGNED_PATH_MAX);
    snprintf(ret_certificate, TLS_SELF_SIGNED_PATH_MAX, "%s/self-signed.pem", directory);
    snprintf(ret_key, TLS_SELF_SIGNED_PATH_MAX, "%s/self-signed.key", directory);
}

bool tls_self_signed_is_made(const char *directory)
{
    char certificate[TLS_SELF_SIGNED_PATH_MAX], key[TLS_SELF_SIGNED_PATH_MAX];

    paths_make(directory, certificate, key);
    return access(certificate, F_OK) == 0 && access(key, F_OK) == 0;
}

enum err tls_self_signed_ensure(const char *directory, const char *hostname,
                                char ret_certificate[TLS_SELF_SIGNED_PATH_MAX],
                                char ret_key[TLS_SELF_SIGNED_PATH_MAX], char ret_why[256])
{
    paths_make(directory, ret_certificate, ret_key);
    if (mkdir(directory, 0700) != 0 && errno != EEXIST)
        return refuse(ret_why, "cannot make", directory);
    if (tls_self_signed_is_made(directory))
        return ERR_OK;
    return pair_make(hostname, ret_certificate, ret_key, ret_why);
}
