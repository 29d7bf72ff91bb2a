/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session engine: states, command lines, dispatch, deadlines. What is legal where is data: the
 * edges of the state machine and the command table below.
 *
 *   CONNECTED -> GREETED        banner sent                    smtpd_greet()
 *   GREETED -> READY            EHLO or HELO                   smtpd_on_ehlo(), smtpd_on_helo()
 *   READY -> MAIL -> RCPT       sender, recipients             smtpd_mail.c
 *   RCPT -> DATA, CHUNKS        the message's octets           smtpd_body.c
 *   any of these -> READY       end of the transaction         smtpd_transaction_reset()
 *   READY -> GREETED            TLS began, all is forgotten    smtpd_tls_started()
 *   all -> CLOSING              QUIT, fatal errors, deadlines
 *
 * Invariants
 *   1. smtpd_enter() is the only writer of the state, and CHECKs the edge.
 *   2. A transaction exists in MAIL, RCPT, DATA and CHUNKS and in no other state; every way out of
 *      these leads through smtpd_transaction_reset() or makes the transaction pending.
 *   3. Octets of a message or of a BDAT chunk, refused or not, are never read as commands.
 *   4. A command line ends in CRLF. An LF alone ends the session: two parties that disagree about
 *      where a line ends must not go on talking.
 *   5. Replies leave in the order of the commands, see smtpd_reply.c.
 *
 * Limits: the listener's settings_limits; SMTPD_SKIP_MAX octets of an over-long line.
 */
#include <stdlib.h>

#include "relay/smtpd_auth.h"
#include "relay/smtpd_internal.h"

#define SMTPD_SKIP_MAX         65536u
#define SMTPD_POOL_MAX         256u
#define SMTPD_ARENA_BLOCK_SIZE 4096u
#define SMTPD_ARENA_SIZE_MAX   (8u << 20)

#define IN(name)       (1u << SMTPD_##name)
#define IN_TRANSACTION (IN(MAIL) | IN(RCPT))
#define IN_ANY_COMMAND (IN(GREETED) | IN(READY) | IN_TRANSACTION | IN(CHUNKS))

static const uint32_t smtpd_edges[SMTPD_STATE_COUNT] = {
    [SMTPD_CONNECTED] = IN(GREETED) | IN(CLOSING),
    [SMTPD_GREETED] = IN(READY) | IN(CLOSING),
    [SMTPD_READY] = IN(READY) | IN(MAIL) | IN(GREETED) | IN(CLOSING),
    [SMTPD_MAIL] = IN(READY) | IN(RCPT) | IN(CLOSING),
    [SMTPD_RCPT] = IN(READY) | IN(RCPT) | IN(DATA) | IN(CHUNKS) | IN(CLOSING),
    [SMTPD_DATA] = IN(READY) | IN(CLOSING),
    [SMTPD_CHUNKS] = IN(READY) | IN(CHUNKS) | IN(CLOSING),
    [SMTPD_CLOSING] = 0,
};

enum command_flags {
    COMMAND_IS_JUNK = 1, /* brings no mail nearer */
    COMMAND_IS_LAST = 2, /* RFC 2920: may only be the last of a pipelined group */
};

static const struct smtpd_command {
    const char *verb;
    uint32_t states; /* in which the verb is legal; elsewhere 503 */
    uint32_t flags;
    void (*on_command)(struct smtpd_context *context, struct smtpd_session *session,
                       const struct smtpd_line *line, struct tick_now now);
} smtpd_commands[] = {
    {"RCPT", IN_TRANSACTION, 0, smtpd_on_rcpt},
    {"MAIL", IN(READY), 0, smtpd_on_mail},
    {"DATA", IN_TRANSACTION, 0, smtpd_on_data},
    {"BDAT", IN_ANY_COMMAND, 0, smtpd_on_bdat},
    {"QUIT", IN_ANY_COMMAND, 0, smtpd_on_quit},
    {"RSET", IN_ANY_COMMAND, COMMAND_IS_JUNK, smtpd_on_rset},
    {"EHLO", IN(GREETED) | IN(READY), COMMAND_IS_JUNK | COMMAND_IS_LAST, smtpd_on_ehlo},
    {"HELO", IN(GREETED) | IN(READY), COMMAND_IS_JUNK | COMMAND_IS_LAST, smtpd_on_helo},
    {"STARTTLS", IN(READY), COMMAND_IS_LAST, smtpd_on_starttls},
    {"AUTH", IN(READY), COMMAND_IS_LAST, smtpd_on_auth},
    {"NOOP", IN_ANY_COMMAND, COMMAND_IS_JUNK, smtpd_on_noop},
    {"VRFY", IN_ANY_COMMAND, COMMAND_IS_JUNK, smtpd_on_vrfy},
    {"HELP", IN_ANY_COMMAND, COMMAND_IS_JUNK, smtpd_on_help},
    /* Browsers that were told to post to us, with SMTP in the body of their request. */
    {"GET", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"POST", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"PUT", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"HEAD", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"CONNECT", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"OPTIONS", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"DELETE", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"PATCH", IN_ANY_COMMAND, 0, smtpd_on_http},
    {"TRACE", IN_ANY_COMMAND, 0, smtpd_on_http},
};

const char *smtpd_state_name(enum smtpd_state state)
{
    static const char *const names[SMTPD_STATE_COUNT] = {
#define X(name, text) #name,
        SMTPD_STATES
#undef X
    };
    CHECK(state < SMTPD_STATE_COUNT);
    return names[state];
}

/* The only writer of session->state. */
void smtpd_enter(struct smtpd_session *session, enum smtpd_state next)
{
    bool has_transaction = session->transaction != NULL;

    CHECK(next < SMTPD_STATE_COUNT);
    CHECK(smtpd_edges[session->state] & 1u << next);
    CHECK(has_transaction == ((1u << next & (IN_TRANSACTION | IN(DATA) | IN(CHUNKS))) != 0));
    if (next == SMTPD_DATA || next == SMTPD_CHUNKS)
        CHECK(session->transaction->envelope.recipient_count > 0);
    session->state = (uint8_t)next;
}

/* ---- transactions ---- */

void smtpd_transaction_release(struct smtpd_context *context, struct smtpd_transaction *transaction)
{
    free(transaction->held);
    dkim_signer_free(transaction->dkim);
    if (context->free_count >= SMTPD_POOL_MAX) {
        arena_fini(&transaction->arena);
        free(transaction);
        return;
    }
    arena_reset(&transaction->arena);
    transaction->next = context->free;
    context->free = transaction;
    context->free_count += 1;
}

void smtpd_transaction_reset(struct smtpd_context *context, struct smtpd_session *session)
{
    if (session->transaction != NULL)
        smtpd_transaction_release(context, session->transaction);
    session->transaction = NULL;
    memset(&session->attempt, 0, sizeof(session->attempt));
    memset(&session->chunk, 0, sizeof(session->chunk));
    if (session->state != SMTPD_GREETED && session->state != SMTPD_CONNECTED)
        smtpd_enter(session, SMTPD_READY);
}

struct smtpd_transaction *smtpd_transaction_acquire(struct smtpd_context *context)
{
    struct smtpd_transaction *transaction = context->free;

    if (transaction == NULL) {
        transaction = malloc(sizeof(*transaction));
        if (transaction == NULL)
            return NULL;
        arena_init(&transaction->arena, SMTPD_ARENA_BLOCK_SIZE, SMTPD_ARENA_SIZE_MAX);
    } else {
        context->free = transaction->next;
        context->free_count -= 1;
    }
    transaction->next = NULL;
    memset(&transaction->envelope, 0,
           offsetof(struct smtpd_transaction, fields) -
               offsetof(struct smtpd_transaction, envelope));
    return transaction;
}

void smtpd_context_init(struct smtpd_context *context, uint32_t shard, struct record_sink records)
{
    *context = (struct smtpd_context){.shard = shard, .records = records};
    context->output = malloc(SMTPD_OUTPUT_SIZE);
    CHECK(context->output != NULL); /* start-up */
}

void smtpd_context_fini(struct smtpd_context *context)
{
    while (context->free != NULL) {
        struct smtpd_transaction *next = context->free->next;
        arena_fini(&context->free->arena);
        free(context->free);
        context->free = next;
    }
    free(context->output);
    *context = (struct smtpd_context){0};
}

/* ---- life of a session ---- */

void smtpd_init(struct smtpd_session *session, const struct smtpd_session_options *options,
                struct tick_now now)
{
    const struct settings_limits *limits = &options->listener->limits;

    CHECK(limits->command_line_size_max <= SMTPD_LINE_SIZE_MAX); /* the configuration's bound */
    *session = (struct smtpd_session){
        .state = SMTPD_CONNECTED,
        .settings = options->settings,
        .listener = options->listener,
        .peer = options->peer,
        .local = options->local,
        .brake = options->brake,
        .id = options->id,
        .is_tls = options->is_tls,
        .is_relay_client = settings_relay_is_allowed(options->settings, &options->peer),
        .discard_left = 2 * limits->message_size_max,
        .deadline = now.tick + limits->session_timeout,
        .phase_deadline = now.tick + limits->command_timeout,
    };
}

void smtpd_hang_up(struct smtpd_context *context, struct smtpd_session *session)
{
    if (session->state == SMTPD_CLOSING)
        return;
    smtpd_quota_forget(session);
    smtpd_transaction_reset(context, session);
    smtpd_enter(session, SMTPD_CLOSING);
}

void smtpd_forget_pending(struct smtpd_context *context, struct smtpd_session *session)
{
    while (session->pending != NULL) {
        struct smtpd_transaction *transaction = session->pending;
        session->pending = transaction->next;
        smtpd_transaction_release(context, transaction);
    }
    session->pending_last = NULL;
    session->pending_count = 0;
    session->held_size = 0;
}

void smtpd_fini(struct smtpd_context *context, struct smtpd_session *session)
{
    smtpd_hang_up(context, session);
    CHECK(session->pending == NULL);
    smtpd_hello_set(session, NULL);
    smtpd_auth_fini(session);
}

void smtpd_dismiss(struct smtpd_context *context, struct smtpd_session *session,
                   enum smtpd_reply reply)
{
    smtpd_reply(context, session, reply);
    smtpd_hang_up(context, session);
}

void smtpd_hello_set(struct smtpd_session *session, char *name)
{
    free(session->hello_name);
    free(session->client_text);
    session->hello_name = name;
    session->client_text = NULL;
}

bool smtpd_is_idle(const struct smtpd_session *session)
{
    return session->transaction == NULL && session->pending == NULL && !session->chunk.is_active;
}

void smtpd_tls_started(struct smtpd_context *context, struct smtpd_session *session,
                       const char *tls_version, struct tick_now now)
{
    CHECK(session->is_tls_wanted && smtpd_is_idle(session));
    /*= rfc3207#section-4.2
     * The server MUST discard any knowledge obtained from the client, such as the argument to the
     * EHLO command, which was not obtained from the TLS negotiation itself. */
    smtpd_transaction_reset(context, session);
    smtpd_enter(session, SMTPD_GREETED);
    smtpd_hello_set(session, NULL);
    smtpd_auth_forget(session);
    session->is_esmtp = false;
    session->is_tls_wanted = false;
    session->is_tls = true;
    session->tls_version = tls_version;
    session->phase_deadline = now.tick + session->listener->limits.command_timeout;
}

/* ---- what comes next ---- */

static bool is_waiting_for_begin(const struct smtpd_session *session)
{
    return (session->state == SMTPD_DATA || session->state == SMTPD_CHUNKS) &&
           !session->transaction->is_begun && session->transaction->failure == 0;
}

enum smtpd_need smtpd_need(const struct smtpd_session *session)
{
    const struct settings_limits *limits = &session->listener->limits;

    if (session->state == SMTPD_DATA && !session->transaction->is_complete) /* most of them */
        return is_waiting_for_begin(session) ? SMTPD_NEED_BEGIN : SMTPD_NEED_BODY;
    if (session->state == SMTPD_CLOSING)
        return session->pending != NULL ? SMTPD_NEED_COMMIT : SMTPD_NEED_CLOSE;
    if (session->state == SMTPD_CONNECTED)
        return SMTPD_NEED_GREETING;
    if (session->is_tls_wanted)
        return session->pending != NULL ? SMTPD_NEED_COMMIT : SMTPD_NEED_TLS;
    if (is_waiting_for_begin(session))
        return SMTPD_NEED_BEGIN;
    if (session->transaction != NULL && session->transaction->is_complete)
        return session->transaction->is_sign_due ? SMTPD_NEED_SIGN : SMTPD_NEED_END;
    if (session->state == SMTPD_DATA || session->chunk.is_active)
        return SMTPD_NEED_BODY;
    if (session->pending_count > limits->transactions_ahead_max ||
        session->held_size > SMTPD_HELD_MAX)
        return SMTPD_NEED_COMMIT;
    if (session->auth == NULL)
        return SMTPD_NEED_COMMAND;
    return smtpd_quota_is_awaited(session) ? SMTPD_NEED_QUOTA : smtpd_auth_need(session);
}

tick_us smtpd_deadline(const struct smtpd_session *session)
{
    tick_us deadline = session->deadline;
    bool is_our_turn =
        session->pending != NULL && session->state != SMTPD_DATA && !session->chunk.is_active;

    if (session->state == SMTPD_CLOSING)
        return TICK_NEVER;
    if (!is_our_turn && session->phase_deadline < deadline)
        deadline = session->phase_deadline;
    if (session->transaction != NULL && session->transaction->deadline < deadline)
        deadline = session->transaction->deadline;
    return deadline;
}

void smtpd_expire(struct smtpd_context *context, struct smtpd_session *session, struct tick_now now)
{
    if (now.tick >= smtpd_deadline(session) && !smtpd_auth_expire(context, session, now))
        smtpd_dismiss(context, session, SMTPD_REPLY_TIMEOUT);
}

/* ---- command lines ---- */

/* Where nobody logs in there is no AUTH. */
static bool is_known(const struct smtpd_session *session, const struct smtpd_command *command)
{
    return command->on_command != smtpd_on_auth || session->listener->auth != AUTH_OFF;
}

/* `row` is of capitals alone, three or more: most are told apart by the first four octets, in which
 * a letter's case is one bit, and with four they are the same. */
static bool verb_is(struct span verb, const char *row)
{
    uint32_t said, wanted;

    if (verb.size != 4)
        return span_is_equal_nocase(verb, span_from_text(row));
    memcpy(&said, verb.data, 4);
    memcpy(&wanted, row, 4); /* with its NUL */
    return (said & 0xdfdfdfdf) == wanted && row[3] != '\0' && row[4] == '\0';
}

static const struct smtpd_command *command_find(const struct smtpd_session *session,
                                                struct span verb)
{
    for (uint32_t i = 0; i < COUNT_OF(smtpd_commands) && verb.size > 0; i++) {
        if (verb_is(verb, smtpd_commands[i].verb))
            return is_known(session, &smtpd_commands[i]) ? &smtpd_commands[i] : NULL;
    }
    return NULL;
}

static struct smtpd_line line_split(struct span text, uint32_t behind)
{
    uint32_t verb_size = 0;

    while (text.size > 0 && text.data[text.size - 1] == ' ')
        text.size -= 1;
    while (verb_size < text.size && text.data[verb_size] != ' ')
        verb_size += 1;
    uint32_t skip = verb_size < text.size ? verb_size + 1 : verb_size;
    return (struct smtpd_line){
        .verb = span_head(text, verb_size), .argument = span_skip(text, skip), .behind = behind};
}

/* Pipelining was not announced yet, or the command may only be the last of its group. A client
 * that does it nevertheless does not read our replies. */
static bool is_pipelining_forbidden(const struct smtpd_session *session,
                                    const struct smtpd_command *command)
{
    if (command->on_command == smtpd_on_quit)
        return false;
    return !session->is_esmtp || (command->flags & COMMAND_IS_LAST) != 0;
}

/* What follows a BDAT whose size cannot be read may be a chunk: it must not be read as commands. */
static void refuse_line(struct smtpd_context *context, struct smtpd_session *session,
                        struct span text, enum smtpd_reply reply)
{
    if (span_is_equal_nocase(span_head(text, text.size < 4 ? text.size : 4),
                             span_from_text("BDAT")))
        smtpd_dismiss(context, session, SMTPD_REPLY_CHUNK_SYNTAX);
    else
        smtpd_reply(context, session, reply);
}

static void execute(struct smtpd_context *context, struct smtpd_session *session, struct span text,
                    uint32_t behind, struct tick_now now)
{
    struct smtpd_line line = line_split(text, behind);
    const struct smtpd_command *command = command_find(session, line.verb);

    if (span_has_control(text)) {
        refuse_line(context, session, text, SMTPD_REPLY_COMMAND_OCTETS);
    } else if (command == NULL) {
        smtpd_reply(context, session, SMTPD_REPLY_COMMAND_UNKNOWN);
    } else if (behind > 0 && is_pipelining_forbidden(session, command)) {
        smtpd_dismiss(context, session, SMTPD_REPLY_PIPELINING);
    } else if (!(command->states & 1u << session->state)) {
        smtpd_reply(context, session, SMTPD_REPLY_SEQUENCE);
    } else {
        session->junk_count += (command->flags & COMMAND_IS_JUNK) != 0;
        if (session->junk_count > session->listener->limits.junk_max)
            smtpd_dismiss(context, session, SMTPD_REPLY_JUNK_MAX);
        else
            command->on_command(context, session, &line, now);
    }
}

/* The line is longer than the limit: say so once, and drop it up to its end. */
static void skip_line(struct smtpd_context *context, struct smtpd_session *session,
                      struct span octets, bool has_end)
{
    if (!session->is_skipping_line) {
        session->is_skipping_line = true;
        session->skipped_size = 0;
        refuse_line(context, session, octets, SMTPD_REPLY_COMMAND_LONG);
    }
    session->skipped_size += octets.size;
    session->is_skipping_line = !has_end;
    if (session->skipped_size > SMTPD_SKIP_MAX && session->state != SMTPD_CLOSING)
        smtpd_dismiss(context, session, SMTPD_REPLY_ERRORS_MAX);
}

enum err smtpd_feed_command(struct smtpd_context *context, struct smtpd_session *session,
                            struct span octets, struct tick_now now, uint32_t *ret_used)
{
    const struct settings_limits *limits = &session->listener->limits;

    CHECK(smtpd_need(session) == SMTPD_NEED_COMMAND);
    if (session->auth != NULL && smtpd_auth_is_asking(session) && !session->is_skipping_line)
        return smtpd_auth_feed(context, session, octets, now, ret_used);
    if (octets.size == 0)
        return ERR_AGAIN;

    const uint8_t *lf = memchr(octets.data, '\n', octets.size);
    uint32_t size = lf == NULL ? octets.size : (uint32_t)(lf - octets.data) + 1;
    if (lf == NULL && size < limits->command_line_size_max && !session->is_skipping_line)
        return ERR_AGAIN;
    session->phase_deadline = now.tick + limits->command_timeout;
    *ret_used = size;
    if (size > limits->command_line_size_max || lf == NULL || session->is_skipping_line) {
        skip_line(context, session, span_head(octets, size), lf != NULL);
    } else if (size < 2 || octets.data[size - 2] != '\r') {
        smtpd_dismiss(context, session, SMTPD_REPLY_COMMAND_BARE_LF);
    } else {
        execute(context, session, span_head(octets, size - 2), octets.size - size, now);
        if (session->auth != NULL && smtpd_quota_is_awaited(session))
            return ERR_AGAIN;
    }
    if (session->error_count > limits->error_max && session->state != SMTPD_CLOSING)
        smtpd_dismiss(context, session, SMTPD_REPLY_ERRORS_MAX);
    if (session->is_braked && session->state != SMTPD_CLOSING)
        smtpd_dismiss(context, session, SMTPD_REPLY_BRAKE_ERRORS);
    return ERR_OK;
}
