/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_DKIM_FIXTURE_H
#define TESTS_UNIT_DKIM_FIXTURE_H

#include "relay/dkim.h"

/*
 * Keys for tests, and a verifier: RFC 6376 section 6, as far as it takes no DNS. The Ed25519 key is
 * the one of RFC 8463 appendix A.2, so that its signatures are always the same; the RSA key is a
 * new one in each process.
 */
#define DKIM_FIXTURE_PATH_SIZE 64u

enum dkim_fixture_key { DKIM_FIXTURE_ED25519, DKIM_FIXTURE_RSA };

struct evp_pkey_st;

/** A new private key, or the RFC's. */
struct evp_pkey_st *dkim_fixture_ed25519(void);
struct evp_pkey_st *dkim_fixture_rsa(uint32_t bits);
/** From the base64 of a SubjectPublicKeyInfo, as DNS records of RSA keys have it. */
struct evp_pkey_st *dkim_fixture_public(const char *base64);
void dkim_fixture_key_free(struct evp_pkey_st *key);
/** A file with this text; it exists as long as the process. Returns ret_path. */
const char *dkim_fixture_file(const char *text, uint32_t size, uint32_t mode,
                              char ret_path[DKIM_FIXTURE_PATH_SIZE]);
/** A file with this key in PEM, mode 0600. */
const char *dkim_fixture_key_file(struct evp_pkey_st *key, char ret_path[DKIM_FIXTURE_PATH_SIZE]);
/** Is DKIM-Signature number `index`, from the top, a good one by this key? NULL if it is, else the
 * reason. */
const char *dkim_fixture_verify(struct span message, uint32_t index, struct evp_pkey_st *key);
/** The value of a tag of a field, without white space; "" without the tag. Returns ret_value. */
const char *dkim_fixture_tag(struct span field, const char *name, char *ret_value, uint32_t size);

#endif
