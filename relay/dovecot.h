/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_DOVECOT_H
#define RELAY_DOVECOT_H

#include "dataplane/flow.h"
#include "relay/auth.h"

/*
 * The protocol of Dovecot's authentication service as a client speaks it (version 1): lines of
 * fields with tabs between. No I/O: what a line says, and what is to be sent.
 */
#define DOVECOT_LINE_MAX    4096u
#define DOVECOT_HELLO_MAX   64u
#define DOVECOT_REQUEST_MAX 2304u
#define DOVECOT_CANCEL_MAX  24u

enum dovecot_word {
    DOVECOT_OTHER,   /* nothing that we have to know */
    DOVECOT_VERSION, /* `number`: the major one */
    DOVECOT_MECH,    /* a mechanism; is_plain, is_scram: one that we speak */
    DOVECOT_DONE,    /* of the handshake */
    DOVECOT_OK,      /* `number`: of the request, as in the next two */
    DOVECOT_FAIL,    /* is_temporary: it cannot be said now */
    DOVECOT_CONT,    /* more is wanted of the client: `challenge`; never for PLAIN */
};

struct dovecot_line {
    enum dovecot_word word;
    uint32_t number;
    bool is_plain, is_scram, is_temporary;
    /* OK: who that is. Dovecot may have changed the name (auth_username_format, a master user). */
    uint32_t user_size; /* 0: it did not say, or said what can be no name here */
    char user[AUTH_NAME_MAX];
    /* CONT: in base64, as the client gets it. */
    uint32_t challenge_size;
    char challenge[AUTH_CHALLENGE_MAX];
};

/** A line without its LF. Errors: ERR_PEER_SYNTAX; *ret_line is then unchanged. */
enum err dovecot_line_parse(struct span line, struct dovecot_line *ret_line) MUST_CHECK;
/** What a client says first. `client` tells connections of one machine apart. */
struct span dovecot_hello_format(uint32_t client, char ret_text[DOVECOT_HELLO_MAX]);

struct dovecot_client {
    const struct flow_address *local, *peer;
    bool is_secured; /* the password came under TLS */
};
/** A request to check a password, or to begin an exchange. The text holds the password: overwrite
 * it when it is sent. */
struct span dovecot_request_format(uint32_t number, const struct auth_request *request,
                                   const struct dovecot_client *client,
                                   char ret_text[DOVECOT_REQUEST_MAX]);
/** The client's next message. */
struct span dovecot_continue_format(uint32_t number, const struct auth_request *request,
                                    char ret_text[DOVECOT_REQUEST_MAX]);
/** The client has given the exchange up. */
struct span dovecot_cancel_format(uint32_t number, char ret_text[DOVECOT_CANCEL_MAX]);

#endif
