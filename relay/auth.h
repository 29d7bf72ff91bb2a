/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_AUTH_H
#define RELAY_AUTH_H

#include "base/err.h"
#include "base/span.h"
#include "queue/rate.h"

/*
 * Users who log in (RFC 4954): words that the session engine, those who check passwords, and the
 * configuration share.
 */
#define AUTH_NAME_MAX     255u   /* of a user */
#define AUTH_PASSWORD_MAX 1024u  /* octets */
#define AUTH_LINE_MAX     12288u /* a client's line of an exchange, with CRLF */
#define AUTH_HASH_MAX     383u   /* of a password, as crypt(5) writes it */

#define AUTH_MECHANISMS                                                                            \
    X(PLAIN, "PLAIN")                 /* RFC 4616 */                                               \
    X(LOGIN, "LOGIN")                 /* never standardised, used by many */                       \
    X(SCRAM_SHA_256, "SCRAM-SHA-256") /* RFC 7677; with keys, or where Dovecot does it */

enum auth_mechanism {
#define X(name, word) AUTH_##name,
    AUTH_MECHANISMS
#undef X
        AUTH_MECHANISM_COUNT
};

enum auth_verdict {
    AUTH_ACCEPTED,
    AUTH_REJECTED,    /* wrong name or password: 535 */
    AUTH_UNAVAILABLE, /* nobody can say now: 454 */
    AUTH_LOCKED,      /* too many wrong ones before: not asked, 454 */
    AUTH_CHALLENGED,  /* no verdict yet: SCRAM goes on, it is the client's turn */
};

/* May clients log in at a listener? */
enum auth_need { AUTH_OFF, AUTH_OPTIONAL, AUTH_REQUIRED };

enum auth_plaintext { AUTH_PLAINTEXT_NEVER, AUTH_PLAINTEXT_LOOPBACK };

/* What may be in From and Sender of users' mail. */
enum auth_from {
    AUTH_FROM_OWN, /* addresses of their own */
    AUTH_FROM_ANY,
};

/* What becomes of messages beyond what a user may send. */
enum auth_beyond {
    AUTH_BEYOND_REFUSE, /* 452 */
    AUTH_BEYOND_HOLD,   /* taken, and held until an operator releases it */
};

struct auth_users;

struct auth_settings {              /* part of struct settings */
    const struct auth_users *users; /* NULL: none can log in; owned by the snapshot */
    const char *dovecot;            /* path of its authentication socket; NULL: it is not asked */
    const char *domain;             /* of names without one; NULL: they have no address */
    enum auth_plaintext plaintext;  /* logging in without TLS */
    enum auth_from from;
    uint32_t failure_max; /* of a connection */
    /* Wrong passwords for one user from one network, and from one network in all. */
    struct rate_set user_failures, network_failures;
    /* Of each user, unless the file says otherwise. */
    struct rate_set messages, recipients;
    enum auth_beyond beyond;
    struct rate_set held; /* messages taken beyond; then they are refused */
    uint64_t timeout;     /* microseconds to wait for a verdict */
};

#define AUTH_CHALLENGE_MAX 1024u /* of a server's message, in base64 */

/* Who wants to log in. Borrowed from the session, to be copied. */
struct auth_request {
    struct span name, password;
    struct span message;    /* SCRAM: the client's, instead of a password */
    bool is_scram, goes_on; /* goes_on: it answers a challenge */
};

#endif
