/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_SMTPD_HARNESS_H
#define TESTS_UNIT_SMTPD_HARNESS_H

#include "relay/smtpd.h"

/*
 * A client, the session engine, and a store that keeps what was handed over, all in memory. Input
 * is fed in pieces of any size, so that every dialogue can be played whole, octet by octet, or cut
 * anywhere.
 *
 * The settings: we are relay.example; "served.example" and "*.sub.example" are served,
 * "refused.example" is refused with a text of its own, all else is "*". 10.0.0.0/8 may relay.
 */
#define HARNESS_MESSAGE_MAX 64
#define HARNESS_BODY_MAX    (256u << 10)

struct harness_message {
    uint8_t *body;
    uint32_t size;
    struct envelope envelope; /* spans stay valid until the commit only */
    char recipients[4][300], sender[300], domain[300];
    uint16_t sequence;
};

struct harness {
    struct settings settings;
    struct settings_listener listener;
    struct settings_route routes[4];
    struct flow_prefix relay_from;
    struct smtpd_context context;
    struct smtpd_session session;
    struct tick_now now;

    uint32_t input_size;
    uint32_t output_size;
    bool is_closed;

    /* Who checks passwords: "alice" has "secret", "bob@served.example" has "pass word"; "nobody"
     * cannot be checked now. */
    bool holds_verdicts; /* harness_verdict() is the test's business */
    uint32_t login_count, login_number;
    enum auth_verdict login_verdict;
    char login_name[AUTH_NAME_MAX + 1], login_password[AUTH_PASSWORD_MAX + 1];

    /* The store. */
    enum err begin_err, body_err;
    bool holds_commits; /* harness_commit() is the test's business */
    bool is_open;
    uint32_t open_size;
    struct harness_message messages[HARNESS_MESSAGE_MAX];
    uint32_t message_count, aborted_count;

    struct record records[HARNESS_MESSAGE_MAX];
    uint32_t record_count;

    /* Last, and not cleared by harness_init(). */
    uint8_t input[4 * HARNESS_BODY_MAX]; /* what is not consumed yet */
    char output[HARNESS_BODY_MAX];       /* all replies so far, NUL-terminated */
    uint8_t open_body[HARNESS_BODY_MAX];
};

/** Settings with defaults; change them before harness_connect(). */
void harness_init(struct harness *harness);
void harness_fini(struct harness *harness);
/** A client at `ip` connects and gets the banner. */
void harness_connect(struct harness *harness, const char *ip);
/** Feed text in pieces of at most `piece` octets; 0: whole. */
void harness_send(struct harness *harness, struct span octets, uint32_t piece);
void harness_send_text(struct harness *harness, const char *text);
void harness_commit(struct harness *harness, uint16_t sequence, uint16_t code);
void harness_fate(struct harness *harness, uint16_t sequence, const struct message_fate *fate);
/** The verdict that was held back. */
void harness_verdict(struct harness *harness);
/** What the session waited for has come. */
void harness_go_on(struct harness *harness);
/** The codes of all complete replies so far: "220 250 354". */
const char *harness_codes(const struct harness *harness, char *ret_codes, uint32_t size);
/** Forget the replies so far. */
void harness_clear(struct harness *harness);

#endif
