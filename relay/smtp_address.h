/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SMTP_ADDRESS_H
#define RELAY_SMTP_ADDRESS_H

#include "base/err.h"
#include "base/span.h"
#include "dns/dns.h"

#define SMTP_LOCAL_PART_MAX 64u
#define SMTP_DOMAIN_MAX     255u
#define SMTP_PATH_MAX       256u /* with the angle brackets */

/* One parse result, used for policy and for relaying alike. Spans borrow from the parsed text. */
struct smtp_address {
    struct span text;       /* exact octets between the brackets, source route stripped */
    struct span local_part; /* as written, quotes included */
    struct span domain;     /* as written; empty for "postmaster" alone, or the null path */
    bool is_null;           /* <> */
    bool is_literal;        /* [192.0.2.1] */
    bool is_utf8;           /* some octet above 127 */
    bool had_route;         /* @a,@b: in front, stripped */
    uint32_t domain_key_size;
    char domain_key[MX_NAME_MAX]; /* last; normalized domain: lower-case A-labels; "" when none or
                                     literal; behind its NUL anything */
};

/** No address. All of the key would be more to clear than everything else. */
static inline void smtp_address_clear(struct smtp_address *address)
{
    memset(address, 0, offsetof(struct smtp_address, domain_key));
    address->domain_key[0] = '\0';
}

enum smtp_path_flags {
    SMTP_PATH_NULL_OK = 1,       /* reverse path */
    SMTP_PATH_POSTMASTER_OK = 2, /* forward path */
    SMTP_PATH_UTF8_OK = 4,       /* SMTPUTF8 was given */
};

/**
 * Parse a path in angle brackets at the start of `text`; `*ret_size` octets were read.
 *
 * Spec:   RFC 5321 section 4.1.2, RFC 6531 section 3.3; address literals are refused (ERR_REFUSED).
 * Errors: ERR_PEER_SYNTAX, ERR_LIMIT (a part is too long), ERR_REFUSED; outputs untouched.
 */
enum err smtp_path_parse(struct span text, uint32_t flags, struct smtp_address *ret_address,
                         uint32_t *ret_size) MUST_CHECK;

#endif
