/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users who log in: AUTH with PLAIN and LOGIN (RFC 4954, RFC 4616), and SCRAM-SHA-256 (RFC 5802,
 * RFC 7677), of which somebody else makes the exchange: its messages are passed to and fro.
 *
 *   step          waits for                                      left by
 *   IDLE          AUTH                                           smtpd_on_auth()
 *   RESPONSE      the client's whole PLAIN or next SCRAM message  line_run()
 *   NAME          LOGIN: the name                                line_run()
 *   PASSWORD      LOGIN: the password                            line_run()
 *   READY         the driver, to take the request                smtpd_auth_take()
 *   WAITING       the verdict, a challenge, or its time          smtpd_auth_verdict(), _expire(),
 *                                                                 _challenge(): back to RESPONSE
 *
 * `*` in the client's place, a response that cannot be decoded, and every verdict lead back to
 * IDLE. Nothing is read from the client in READY and WAITING, and nothing may have been sent ahead:
 * AUTH and every response are the last of their group (RFC 4954 section 4).
 *
 * Invariants
 *   1. An exchange (names, passwords, parts of lines) is memory of its own, overwritten before it
 *      is freed, and exists in every step but IDLE.
 *   2. A verdict counts only for the request that it names, by its number: one that comes too late
 *      says nothing about the next.
 *   3. Who is logged in is known from a verdict alone, and forgotten as a whole when TLS begins.
 *   4. No octet of a password goes into a reply, a record or a log.
 *
 * Limits: AUTH_LINE_MAX octets of a line, AUTH_NAME_MAX and AUTH_PASSWORD_MAX of what is in it;
 * failure_max refusals in a connection, then 421. Not here: who is right (server_auth.c).
 */
#include "relay/smtpd_auth.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/base64.h"
#include "relay/auth_users.h"
#include "relay/scram.h"
#include "relay/smtp_dsn.h"

#define DECODED_MAX         (AUTH_LINE_MAX / 4 * 3)
#define LINE_FIRST          512u
#define AUTH_PARAM_MAX      500u /* RFC 4954 section 5 */
#define CHALLENGE_COUNT_MAX 4u   /* SCRAM has two */

enum auth_step { STEP_IDLE, STEP_RESPONSE, STEP_NAME, STEP_PASSWORD, STEP_READY, STEP_WAITING };

/* What must not be left lying about. */
struct exchange {
    char name[AUTH_NAME_MAX + 1], password[AUTH_PASSWORD_MAX + 1];
    uint32_t name_size, password_size;
    bool is_scram; /* `password` has the client's message */
    uint32_t challenge_count;
    uint8_t *line; /* the part of a line that has come; NULL: none */
    uint32_t line_size, line_capacity;
};

struct smtpd_auth {
    uint8_t step; /* enum auth_step */
    uint32_t number;
    uint32_t failure_count;
    struct exchange *exchange;    /* NULL in STEP_IDLE */
    const struct auth_user *user; /* of the snapshot's file; NULL: known by name alone */
    char *name;                   /* who is logged in; NULL: nobody */
    struct quota_waiter waiter;   /* whoever that is */
};

/* ---- exchanges ---- */

static void line_forget(struct exchange *exchange)
{
    if (exchange->line != NULL)
        explicit_bzero(exchange->line, exchange->line_capacity);
    free(exchange->line);
    exchange->line = NULL;
    exchange->line_size = exchange->line_capacity = 0;
}

static void exchange_end(struct smtpd_auth *auth)
{
    if (auth->exchange != NULL) {
        line_forget(auth->exchange);
        explicit_bzero(auth->exchange, sizeof(*auth->exchange));
    }
    free(auth->exchange);
    auth->exchange = NULL;
    auth->step = STEP_IDLE;
}

static bool exchange_begin(struct smtpd_session *session)
{
    if (session->auth == NULL)
        session->auth = calloc(1, sizeof(*session->auth));
    if (session->auth == NULL)
        return false;
    CHECK(session->auth->exchange == NULL);
    session->auth->exchange = calloc(1, sizeof(*session->auth->exchange));
    return session->auth->exchange != NULL;
}

/* Keep a part of a line. False: without memory. */
static bool line_append(struct exchange *exchange, struct span octets)
{
    uint32_t needed = exchange->line_size + octets.size;

    CHECK(needed <= AUTH_LINE_MAX);
    if (needed > exchange->line_capacity) {
        uint32_t capacity = exchange->line_capacity == 0 ? LINE_FIRST : exchange->line_capacity;
        while (capacity < needed)
            capacity *= 2;
        uint8_t *line = malloc(capacity);
        if (line == NULL)
            return false;
        if (exchange->line_size > 0)
            memcpy(line, exchange->line, exchange->line_size);
        uint32_t size = exchange->line_size;
        line_forget(exchange);
        exchange->line = line;
        exchange->line_size = size;
        exchange->line_capacity = capacity;
    }
    memcpy(exchange->line + exchange->line_size, octets.data, octets.size);
    exchange->line_size = needed;
    return true;
}

/* ---- what is offered ---- */

static bool is_local(const struct flow_address *peer)
{
    static const uint8_t loopback6[16] = {[15] = 1};

    if (peer->family == FLOW_FAMILY_IP4)
        return peer->ip[0] == 127;
    return peer->family == FLOW_FAMILY_UNIX ||
           (peer->family == FLOW_FAMILY_IP6 && memcmp(peer->ip, loopback6, 16) == 0);
}

static bool is_protected(const struct smtpd_session *session)
{
    return session->is_tls || (session->settings->auth.plaintext == AUTH_PLAINTEXT_LOOPBACK &&
                               is_local(&session->peer));
}

static bool is_offered(const struct smtpd_session *session)
{
    return session->listener->auth != AUTH_OFF && session->is_esmtp && is_protected(session);
}

struct span smtpd_auth_offer(const struct smtpd_context *context,
                             const struct smtpd_session *session, char ret_text[64])
{
    if (!is_offered(session))
        return (struct span){0};
    snprintf(ret_text, 64, "250-AUTH PLAIN LOGIN%s\r\n",
             context->has_scram ? " SCRAM-SHA-256" : "");
    return span_from_text(ret_text);
}

static const char *user_name(const struct smtpd_session *session)
{
    return session->auth == NULL ? NULL : session->auth->name;
}

struct span smtpd_user(const struct smtpd_session *session)
{
    const char *name = user_name(session);

    return name == NULL ? (struct span){0} : span_from_text(name);
}

enum smtpd_reply smtpd_auth_mail_check(const struct smtpd_session *session)
{
    if (session->listener->auth != AUTH_REQUIRED || user_name(session) != NULL)
        return SMTPD_REPLY_OK;
    return is_protected(session) || !session->listener->offer_starttls ? SMTPD_REPLY_AUTH_REQUIRED
                                                                       : SMTPD_REPLY_TLS_REQUIRED;
}

/* ---- responses ---- */

static void refuse(struct smtpd_context *context, struct smtpd_session *session,
                   enum smtpd_reply reply)
{
    exchange_end(session->auth);
    smtpd_reply(context, session, reply);
}

/* RFC 4616 forbids NUL alone; names and records bear no control characters, and a password with a
 * line end is an attack on whoever reads it line by line. */
static bool text_is_clean(struct span text, bool is_password)
{
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        if (octet == '\0' || octet == '\r' || octet == '\n')
            return false;
        if (!is_password && (octet < ' ' || octet == 127))
            return false;
    }
    return true;
}

static bool text_take(struct span text, bool is_password, char *ret_text, uint32_t *ret_size)
{
    uint32_t max = is_password ? AUTH_PASSWORD_MAX : AUTH_NAME_MAX;

    if (text.size == 0 || text.size > max || !text_is_clean(text, is_password))
        return false;
    memcpy(ret_text, text.data, text.size);
    ret_text[text.size] = '\0';
    *ret_size = text.size;
    return true;
}

/* message = [authzid] NUL authcid NUL passwd (RFC 4616 section 2). To act for somebody else is
 * nobody's right here. */
static bool plain_take(struct exchange *exchange, struct span message)
{
    const uint8_t *first = message.size == 0 ? NULL : memchr(message.data, '\0', message.size);
    uint32_t size = first == NULL ? 0 : (uint32_t)(first - message.data);

    if (first == NULL)
        return false;
    struct span authzid = span_head(message, size), rest = span_skip(message, size + 1);
    const uint8_t *second = rest.size == 0 ? NULL : memchr(rest.data, '\0', rest.size);
    if (second == NULL)
        return false;
    struct span name = span_head(rest, (uint32_t)(second - rest.data));
    if (authzid.size > 0 && !span_is_equal_nocase(authzid, name))
        return false;
    return text_take(name, false, exchange->name, &exchange->name_size) &&
           text_take(span_skip(rest, name.size + 1), true, exchange->password,
                     &exchange->password_size);
}

/* RFC 5802 section 7: printable, in UTF-8. The last one, which only says that the server's was
 * good, is empty. */
static bool scram_take(struct exchange *exchange, struct span message)
{
    bool is_first = exchange->challenge_count == 0;

    if (message.size > AUTH_PASSWORD_MAX || !text_is_clean(message, false))
        return false;
    if (is_first && scram_name(message, exchange->name, &exchange->name_size) != ERR_OK)
        return false;
    if (message.size > 0)
        memcpy(exchange->password, message.data, message.size);
    exchange->password_size = message.size;
    return true;
}

static void message_take(struct smtpd_context *context, struct smtpd_session *session,
                         struct span message)
{
    struct smtpd_auth *auth = session->auth;
    struct exchange *exchange = auth->exchange;
    bool is_good = false;

    switch ((enum auth_step)auth->step) {
    case STEP_RESPONSE:
        is_good =
            exchange->is_scram ? scram_take(exchange, message) : plain_take(exchange, message);
        auth->step = STEP_READY;
        break;
    case STEP_NAME:
        is_good = text_take(message, false, exchange->name, &exchange->name_size);
        auth->step = STEP_PASSWORD;
        if (is_good)
            smtpd_reply(context, session, SMTPD_REPLY_AUTH_ASK_PASSWORD);
        break;
    case STEP_PASSWORD:
        is_good = text_take(message, true, exchange->password, &exchange->password_size);
        auth->step = STEP_READY;
        break;
    case STEP_IDLE:
    case STEP_READY:
    case STEP_WAITING:
        CHECK(false && "a response that nobody asked for");
    }
    if (!is_good)
        refuse(context, session, SMTPD_REPLY_AUTH_SYNTAX);
}

/* One response, in base64. "=" is the empty one, as an initial response (RFC 4954 section 4). */
static void response_take(struct smtpd_context *context, struct smtpd_session *session,
                          struct span text)
{
    uint8_t octets[DECODED_MAX] UNINITIALIZED;
    uint32_t size = 0;

    CHECK(text.size <= AUTH_LINE_MAX);
    if (base64_decode(text, octets, &size) == ERR_OK)
        message_take(context, session, span_of(octets, size));
    else
        refuse(context, session, SMTPD_REPLY_AUTH_SYNTAX);
    explicit_bzero(octets, sizeof(octets));
}

static void line_run(struct smtpd_context *context, struct smtpd_session *session, struct span line)
{
    /*= rfc4954#section-4
     * If the client wishes to cancel the authentication exchange, it issues a line with a single
     * "*". If the server receives such a response, it MUST reject the AUTH command by sending a 501
     * reply. */
    if (span_is_equal(line, SPAN_LITERAL("*")))
        refuse(context, session, SMTPD_REPLY_AUTH_CANCELLED);
    else
        response_take(context, session, line);
}

bool smtpd_auth_is_asking(const struct smtpd_session *session)
{
    return session->auth != NULL && session->auth->step >= STEP_RESPONSE &&
           session->auth->step <= STEP_PASSWORD && session->state == SMTPD_READY;
}

/* The octets that belong to the line, which has its end: with what came of it before. */
static void line_end(struct smtpd_context *context, struct smtpd_session *session,
                     struct span octets)
{
    struct exchange *exchange = session->auth->exchange;
    struct span line = octets;

    if (exchange->line != NULL) {
        if (!line_append(exchange, octets)) {
            refuse(context, session, SMTPD_REPLY_MEMORY);
            return;
        }
        line = span_of(exchange->line, exchange->line_size);
    }
    if (line.size < 2 || line.data[line.size - 2] != '\r') {
        exchange_end(session->auth);
        smtpd_dismiss(context, session, SMTPD_REPLY_COMMAND_BARE_LF);
        return;
    }
    /* The next step may end the exchange, and with it the line. */
    uint8_t copy[AUTH_LINE_MAX] UNINITIALIZED;
    memcpy(copy, line.data, line.size);
    line_forget(exchange);
    line_run(context, session, span_of(copy, line.size - 2));
    explicit_bzero(copy, line.size);
}

enum err smtpd_auth_feed(struct smtpd_context *context, struct smtpd_session *session,
                         struct span octets, struct tick_now now, uint32_t *ret_used)
{
    struct exchange *exchange = session->auth->exchange;

    if (octets.size == 0)
        return ERR_AGAIN;
    const uint8_t *lf = memchr(octets.data, '\n', octets.size);
    uint32_t size = lf == NULL ? octets.size : (uint32_t)(lf - octets.data) + 1;
    *ret_used = size;
    if (size > AUTH_LINE_MAX - exchange->line_size) {
        /*= rfc4954#section-4
         * If the client sends a line that is too long, the server fails the AUTH command with a 500
         * reply (enhanced code 5.5.6). */
        session->is_skipping_line = lf == NULL;
        session->skipped_size = size;
        refuse(context, session, SMTPD_REPLY_AUTH_LONG);
    } else if (lf == NULL) {
        if (!line_append(exchange, octets)) {
            session->is_skipping_line = true;
            refuse(context, session, SMTPD_REPLY_MEMORY);
        }
    } else if (octets.size > size) {
        smtpd_dismiss(context, session, SMTPD_REPLY_PIPELINING);
    } else {
        session->phase_deadline = now.tick + session->listener->limits.command_timeout;
        line_end(context, session, span_head(octets, size));
    }
    return ERR_OK;
}

/* ---- the command ---- */

static bool mechanism_find(const struct smtpd_context *context, struct span name,
                           enum auth_mechanism *ret_mechanism)
{
    static const char *const names[AUTH_MECHANISM_COUNT] = {
#define X(name, word) [AUTH_##name] = word,
        AUTH_MECHANISMS
#undef X
    };

    for (uint32_t i = 0; i < AUTH_MECHANISM_COUNT; i++) {
        if (span_is_equal_nocase(name, span_from_text(names[i]))) {
            *ret_mechanism = (enum auth_mechanism)i;
            return i != AUTH_SCRAM_SHA_256 || context->has_scram;
        }
    }
    return false;
}

/* Why AUTH cannot be used now; SMTPD_REPLY_OK if it can. */
static enum smtpd_reply auth_check(const struct smtpd_session *session)
{
    CHECK(session->listener->auth != AUTH_OFF);
    if (!session->is_esmtp)
        return SMTPD_REPLY_SEQUENCE;
    if (user_name(session) != NULL)
        return SMTPD_REPLY_AUTH_ACTIVE;
    if (!is_protected(session))
        return SMTPD_REPLY_TLS_REQUIRED;
    return SMTPD_REPLY_OK;
}

static void mechanism_begin(struct smtpd_context *context, struct smtpd_session *session,
                            enum auth_mechanism mechanism, struct span initial)
{
    struct smtpd_auth *auth = session->auth;

    auth->step = mechanism == AUTH_LOGIN ? STEP_NAME : STEP_RESPONSE;
    auth->exchange->is_scram = mechanism == AUTH_SCRAM_SHA_256;
    if (span_is_equal(initial, SPAN_LITERAL("=")))
        message_take(context, session, (struct span){0});
    else if (initial.size > 0)
        response_take(context, session, initial);
    else
        smtpd_reply(context, session,
                    mechanism == AUTH_LOGIN ? SMTPD_REPLY_AUTH_ASK_NAME : SMTPD_REPLY_AUTH_ASK);
}

void smtpd_on_auth(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    enum auth_mechanism mechanism;
    uint32_t size = 0;

    (void)now;
    enum smtpd_reply reply = auth_check(session);
    while (size < line->argument.size && line->argument.data[size] != ' ')
        size += 1;
    struct span initial = span_skip(line->argument, size < line->argument.size ? size + 1 : size);
    if (reply == SMTPD_REPLY_OK && size == 0)
        reply = SMTPD_REPLY_ARGUMENT;
    if (reply == SMTPD_REPLY_OK &&
        !mechanism_find(context, span_head(line->argument, size), &mechanism))
        reply = SMTPD_REPLY_AUTH_MECHANISM;
    if (reply == SMTPD_REPLY_OK && !exchange_begin(session))
        reply = SMTPD_REPLY_MEMORY;
    if (reply == SMTPD_REPLY_OK)
        mechanism_begin(context, session, mechanism, initial);
    else
        smtpd_reply(context, session, reply);
}

/* ---- the driver's side ---- */

enum smtpd_need smtpd_auth_need(const struct smtpd_session *session)
{
    if (session->auth == NULL)
        return SMTPD_NEED_COMMAND;
    if (session->auth->step == STEP_READY)
        return SMTPD_NEED_AUTH;
    return session->auth->step == STEP_WAITING ? SMTPD_NEED_VERDICT : SMTPD_NEED_COMMAND;
}

bool smtpd_has_secrets(const struct smtpd_session *session)
{
    return session->auth != NULL && session->auth->exchange != NULL;
}

struct auth_request smtpd_auth_take(struct smtpd_session *session, struct tick_now now,
                                    uint32_t *ret_number)
{
    struct smtpd_auth *auth = session->auth;

    CHECK(smtpd_need(session) == SMTPD_NEED_AUTH);
    auth->step = STEP_WAITING;
    bool goes_on = auth->exchange->challenge_count > 0;
    struct span message = span_of(auth->exchange->password, auth->exchange->password_size);
    auth->number += !goes_on;
    *ret_number = auth->number;
    session->phase_deadline = now.tick + (tick_us)session->settings->auth.timeout;
    struct auth_request request = {.name = span_of(auth->exchange->name, auth->exchange->name_size),
                                   .is_scram = auth->exchange->is_scram,
                                   .goes_on = goes_on};
    if (request.is_scram)
        request.message = message;
    else
        request.password = message;
    return request;
}

static bool log_in(struct smtpd_session *session)
{
    struct smtpd_auth *auth = session->auth;
    const struct auth_users *users = session->settings->auth.users;
    struct span name = span_of(auth->exchange->name, auth->exchange->name_size);

    auth->name = strndup(auth->exchange->name, auth->exchange->name_size);
    if (auth->name == NULL)
        return false;
    auth->user = users == NULL ? NULL : auth_users_find(users, name);
    auth->waiter.owner = session;
    session->is_relay_client = true;
    return true;
}

static void on_rejected(struct smtpd_context *context, struct smtpd_session *session,
                        bool is_locked, struct tick_now now)
{
    struct smtpd_auth *auth = session->auth;

    auth->failure_count += 1;
    context->auth.rejected += !is_locked;
    context->auth.locked += is_locked;
    smtpd_reject(context, session, is_locked ? SMTPD_REPLY_AUTH_LOCKED : SMTPD_REPLY_AUTH_REJECTED,
                 (struct span){0}, NULL, now);
    if (auth->failure_count >= session->settings->auth.failure_max)
        smtpd_dismiss(context, session, SMTPD_REPLY_AUTH_FAILURES);
}

static bool is_awaited(const struct smtpd_auth *auth, uint32_t number)
{
    return auth != NULL && auth->step == STEP_WAITING && auth->number == number;
}

void smtpd_auth_name(struct smtpd_session *session, uint32_t number, struct span name)
{
    CHECK(name.size > 0 && name.size <= AUTH_NAME_MAX);
    if (!is_awaited(session->auth, number))
        return;
    struct exchange *exchange = session->auth->exchange;
    memcpy(exchange->name, name.data, name.size);
    exchange->name[name.size] = '\0';
    exchange->name_size = name.size;
}

bool smtpd_auth_goes_on(const struct smtpd_session *session, uint32_t number)
{
    const struct smtpd_auth *auth = session->auth;

    return auth != NULL && auth->exchange != NULL && auth->number == number &&
           auth->step != STEP_IDLE;
}

void smtpd_auth_challenge(struct smtpd_context *context, struct smtpd_session *session,
                          uint32_t number, struct span challenge, struct tick_now now)
{
    char text[AUTH_CHALLENGE_MAX + 8];
    struct smtpd_auth *auth = session->auth;

    CHECK(challenge.size <= AUTH_CHALLENGE_MAX); /* dovecot.c: it is base64 */
    if (!is_awaited(auth, number))
        return;
    if (!auth->exchange->is_scram || auth->exchange->challenge_count == CHALLENGE_COUNT_MAX) {
        smtpd_auth_verdict(context, session, number, AUTH_UNAVAILABLE, now);
        return;
    }
    auth->exchange->challenge_count += 1;
    auth->step = STEP_RESPONSE;
    session->phase_deadline = now.tick + session->listener->limits.command_timeout;
    int size = snprintf(text, sizeof(text), "334 %.*s\r\n", SPAN_PRINTF(challenge));
    smtpd_reply_text(context, session, span_of(text, (uint32_t)size));
}

void smtpd_auth_verdict(struct smtpd_context *context, struct smtpd_session *session,
                        uint32_t number, enum auth_verdict verdict, struct tick_now now)
{
    struct smtpd_auth *auth = session->auth;

    if (!is_awaited(auth, number))
        return;
    session->phase_deadline = now.tick + session->listener->limits.command_timeout;
    if (verdict == AUTH_ACCEPTED && !log_in(session))
        verdict = AUTH_UNAVAILABLE;
    if (verdict == AUTH_ACCEPTED) {
        context->auth.accepted += 1;
        session->junk_count = 0;
        smtpd_reply(context, session, SMTPD_REPLY_AUTH_OK);
    } else if (verdict == AUTH_REJECTED || verdict == AUTH_LOCKED) {
        on_rejected(context, session, verdict == AUTH_LOCKED, now);
    } else {
        context->auth.unavailable += 1;
        smtpd_reject(context, session, SMTPD_REPLY_AUTH_UNAVAILABLE, (struct span){0}, NULL, now);
    }
    exchange_end(auth);
}

bool smtpd_auth_expire(struct smtpd_context *context, struct smtpd_session *session,
                       struct tick_now now)
{
    if (smtpd_auth_need(session) != SMTPD_NEED_VERDICT || now.tick >= session->deadline)
        return false;
    smtpd_auth_verdict(context, session, session->auth->number, AUTH_UNAVAILABLE, now);
    return true;
}

struct span smtpd_auth_candidate(const struct smtpd_session *session)
{
    if (!smtpd_has_secrets(session))
        return smtpd_user(session);
    return span_of(session->auth->exchange->name, session->auth->exchange->name_size);
}

/* ---- what a user may do ---- */

/* A name that is an address, or becomes one with the configured domain. */
static bool name_is_address(const struct smtpd_session *session, struct span name,
                            const struct smtp_address *address)
{
    const char *domain = session->settings->auth.domain;
    struct span domain_key = span_of(address->domain_key, address->domain_key_size);
    const uint8_t *at = memrchr(name.data, '@', name.size);

    if (at == NULL)
        return domain != NULL && span_is_equal_nocase(name, address->local_part) &&
               span_is_equal_nocase(span_from_text(domain), domain_key);
    struct span local = span_head(name, (uint32_t)(at - name.data));
    struct span own_domain = span_skip(name, local.size + 1);
    return span_is_equal_nocase(local, address->local_part) &&
           (span_is_equal_nocase(own_domain, domain_key) ||
            span_is_equal_nocase(own_domain, address->domain));
}

bool smtpd_auth_owns(const struct smtpd_session *session, const struct smtp_address *address)
{
    const struct smtpd_auth *auth = session->auth;

    if (auth == NULL || auth->name == NULL || address->is_null)
        return true;
    if (name_is_address(session, span_from_text(auth->name), address))
        return true;
    return auth->user != NULL &&
           auth_user_owns(auth->user, address->local_part,
                          span_of(address->domain_key, address->domain_key_size));
}

bool smtpd_auth_owns_domain(const struct smtpd_session *session, struct span domain)
{
    const struct auth_user *user = session->auth == NULL ? NULL : session->auth->user;
    const char *name = user_name(session), *own = session->settings->auth.domain;

    if (name == NULL)
        return true;
    const char *at = strrchr(name, '@');
    if (at != NULL)
        own = at + 1;
    if (own != NULL && span_is_equal_nocase(span_from_text(own), domain))
        return true;
    for (uint32_t i = 0; user != NULL && i < user->address_count; i++) {
        if (settings_name_matches(user->addresses[i].domain, domain))
            return true;
    }
    return false;
}

struct quota_waiter *smtpd_auth_waiter(const struct smtpd_session *session)
{
    return session->auth == NULL ? NULL : &session->auth->waiter;
}

/* xtext or <> (RFC 4954 section 5). What it says is another server's word for its user, and is not
 * taken on. */
bool smtpd_auth_parameter_is_good(const struct smtpd_session *session, struct span value)
{
    if (!is_offered(session))
        return false;
    return span_is_equal(value, SPAN_LITERAL("<>")) ||
           (value.size <= AUTH_PARAM_MAX && smtp_xtext_is_valid(value));
}

/* ---- the end ---- */

void smtpd_auth_forget(struct smtpd_session *session)
{
    struct smtpd_auth *auth = session->auth;

    if (auth == NULL)
        return;
    exchange_end(auth);
    quota_leave(&auth->waiter);
    free(auth->name);
    auth->name = NULL;
    auth->user = NULL;
    session->is_relay_client = settings_relay_is_allowed(session->settings, &session->peer);
}

void smtpd_auth_fini(struct smtpd_session *session)
{
    smtpd_auth_forget(session);
    free(session->auth);
    session->auth = NULL;
}
