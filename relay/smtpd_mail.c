/* SPDX-License-Identifier: Apache-2.0 */
/*
 * MAIL and RCPT: paths, parameters, policy, and the envelope they fill.
 *
 * Parameters are read by a cursor that only moves forward: keyword, '=', value, space. A keyword
 * that was not announced is refused (RFC 5321 section 4.1.1.11: 555), also AUTH's where it is not
 * offered. What DSN's parameters may say is in smtp_dsn.c; who has not said EHLO has not been
 * offered them, but is not refused for that.
 *
 * Limits: recipient_max per message (452), twice as many RCPT commands (421), the durable
 * envelope's ENVELOPE_SIZE_MAX.
 */
#include "relay/policy.h"
#include "relay/smtp_dsn.h"
#include "relay/smtpd_auth.h"
#include "relay/smtpd_internal.h"

/* What one recipient, and an envelope without recipients, take at most besides their text. */
#define ENVELOPE_RECIPIENT_OVERHEAD 48u
#define ENVELOPE_OVERHEAD           (4096u + ENVELOPE_PREFIX_SIZE_MAX)
#define RECIPIENT_CAPACITY_MIN      8u

enum path_parameters {
    MAIL_SIZE = 1,
    MAIL_BODY = 2,
    MAIL_SMTPUTF8 = 4,
    MAIL_RET = 8,
    MAIL_ENVID = 16,
    RCPT_NOTIFY = 32,
    RCPT_ORCPT = 64,
    MAIL_AUTH = 128
};

struct path_arguments {
    uint32_t seen; /* enum path_parameters */
    uint64_t size;
    uint32_t ret;   /* of enum envelope_flags */
    uint8_t notify; /* enum envelope_notify */
    struct span envid, orcpt;
};

/* ---- parameters ---- */

struct parameter {
    struct span keyword, value;
    bool has_value;
};

static bool is_keyword_octet(uint8_t octet, bool is_first)
{
    return (octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'z') ||
           (octet >= 'A' && octet <= 'Z') || (octet == '-' && !is_first);
}

/* esmtp-param of RFC 5321 section 4.1.2 at the front of `text`, which is moved behind it. */
static enum err parameter_next(struct span *text, struct parameter *ret_parameter)
{
    struct parameter parameter = {0};
    uint32_t size = 0;

    while (size < text->size && is_keyword_octet(text->data[size], size == 0))
        size += 1;
    parameter.keyword = span_head(*text, size);
    *text = span_skip(*text, size);
    if (size == 0)
        return ERR_PEER_SYNTAX;
    if (text->size > 0 && text->data[0] == '=') {
        *text = span_skip(*text, 1);
        size = 0;
        while (size < text->size && text->data[size] > 32 && text->data[size] < 127 &&
               text->data[size] != '=')
            size += 1;
        parameter.has_value = true;
        parameter.value = span_head(*text, size);
        *text = span_skip(*text, size);
        if (size == 0)
            return ERR_PEER_SYNTAX;
    }
    if (text->size > 0 && text->data[0] != ' ')
        return ERR_PEER_SYNTAX;
    *ret_parameter = parameter;
    return ERR_OK;
}

static bool keyword_is(const struct parameter *parameter, const char *keyword)
{
    return span_is_equal_nocase(parameter->keyword, span_from_text(keyword));
}

static bool is_body_type(struct span value)
{
    return span_is_equal_nocase(value, SPAN_LITERAL("8BITMIME")) ||
           span_is_equal_nocase(value, SPAN_LITERAL("7BIT"));
}

/* RFC 3461 section 4.3. */
static bool ret_parse(struct span value, uint32_t *ret_flag)
{
    if (span_is_equal_nocase(value, SPAN_LITERAL("FULL")))
        *ret_flag = ENVELOPE_RET_FULL;
    else if (span_is_equal_nocase(value, SPAN_LITERAL("HDRS")))
        *ret_flag = ENVELOPE_RET_HEADERS;
    else
        return false;
    return true;
}

/* Each parameter at most once. */
static enum smtpd_reply parameter_note(struct path_arguments *arguments, uint32_t which)
{
    if (arguments->seen & which)
        return SMTPD_REPLY_ARGUMENT;
    arguments->seen |= which;
    return SMTPD_REPLY_OK;
}

static enum smtpd_reply mail_parameter(const struct smtpd_session *session,
                                       const struct parameter *parameter,
                                       struct path_arguments *arguments)
{
    uint32_t which;

    if (keyword_is(parameter, "SIZE")) {
        which = MAIL_SIZE;
        if (!parameter->has_value || span_parse_u64(parameter->value, &arguments->size) != ERR_OK)
            return SMTPD_REPLY_ARGUMENT;
    } else if (keyword_is(parameter, "BODY")) {
        which = MAIL_BODY;
        if (!parameter->has_value)
            return SMTPD_REPLY_ARGUMENT;
        if (!is_body_type(parameter->value))
            return SMTPD_REPLY_PARAMETER;
    } else if (keyword_is(parameter, "SMTPUTF8")) {
        which = MAIL_SMTPUTF8;
        if (parameter->has_value)
            return SMTPD_REPLY_ARGUMENT;
    } else if (keyword_is(parameter, "RET")) {
        which = MAIL_RET;
        if (!parameter->has_value || !ret_parse(parameter->value, &arguments->ret))
            return SMTPD_REPLY_ARGUMENT;
    } else if (keyword_is(parameter, "ENVID")) {
        which = MAIL_ENVID;
        if (!parameter->has_value || !smtp_envid_is_valid(parameter->value))
            return SMTPD_REPLY_ARGUMENT;
        arguments->envid = parameter->value;
    } else if (keyword_is(parameter, "AUTH") && session->listener->auth != AUTH_OFF) {
        which = MAIL_AUTH;
        if (!parameter->has_value || !smtpd_auth_parameter_is_good(session, parameter->value))
            return SMTPD_REPLY_ARGUMENT;
    } else {
        return SMTPD_REPLY_PARAMETER;
    }
    return parameter_note(arguments, which);
}

static enum smtpd_reply rcpt_parameter(const struct parameter *parameter,
                                       struct path_arguments *arguments)
{
    if (keyword_is(parameter, "NOTIFY")) {
        if (!parameter->has_value ||
            smtp_notify_parse(parameter->value, &arguments->notify) != ERR_OK)
            return SMTPD_REPLY_ARGUMENT;
        return parameter_note(arguments, RCPT_NOTIFY);
    }
    if (keyword_is(parameter, "ORCPT")) {
        if (!parameter->has_value || !smtp_orcpt_is_valid(parameter->value))
            return SMTPD_REPLY_ARGUMENT;
        arguments->orcpt = parameter->value;
        return parameter_note(arguments, RCPT_ORCPT);
    }
    return SMTPD_REPLY_PARAMETER;
}

static enum smtpd_reply parameters_parse(const struct smtpd_session *session, struct span text,
                                         bool is_mail, struct path_arguments *arguments)
{
    struct parameter parameter;

    if (text.size > 0 && text.data[0] != ' ')
        return SMTPD_REPLY_ARGUMENT;
    while (text.size > 0) {
        if (text.data[0] == ' ') {
            text = span_skip(text, 1);
            continue;
        }
        if (parameter_next(&text, &parameter) != ERR_OK)
            return SMTPD_REPLY_ARGUMENT;
        enum smtpd_reply reply = is_mail ? mail_parameter(session, &parameter, arguments)
                                         : rcpt_parameter(&parameter, arguments);
        if (reply != SMTPD_REPLY_OK)
            return reply;
    }
    return SMTPD_REPLY_OK;
}

/* ---- paths ---- */

/* "FROM:<path>" or "TO:<path>"; spaces before the bracket are a common slip and harmless. The rest
 * of the argument is in *ret_rest. */
static enum smtpd_reply path_parse(struct span argument, struct span keyword, uint32_t flags,
                                   enum smtpd_reply on_syntax, struct smtp_address *ret_address,
                                   struct span *ret_rest)
{
    uint32_t size;

    if (!span_has_prefix_nocase(argument, keyword))
        return SMTPD_REPLY_ARGUMENT;
    argument = span_skip(argument, keyword.size);
    while (argument.size > 0 && argument.data[0] == ' ')
        argument = span_skip(argument, 1);
    switch (smtp_path_parse(argument, flags | SMTP_PATH_UTF8_OK, ret_address, &size)) {
    case ERR_OK:
        *ret_rest = span_skip(argument, size);
        return SMTPD_REPLY_OK;
    case ERR_REFUSED:
        return SMTPD_REPLY_ADDRESS_LITERAL;
    default:
        return on_syntax;
    }
}

/* ---- brakes ---- */

/* May the client's network have one more of these in this minute? */
static bool is_braked(struct smtpd_context *context, struct smtpd_session *session,
                      enum brake_kind kind, bool *ret_is_first)
{
    *ret_is_first = false;
    return session->brake != NULL &&
           !brake_take(context->brake, session->brake, session->listener, kind, ret_is_first);
}

/* Braked clients come again and again: one record in a minute says enough. */
static void braked_reply(struct smtpd_context *context, struct smtpd_session *session,
                         enum smtpd_reply reply, bool is_first, struct span recipient,
                         struct tick_now now)
{
    if (is_first)
        smtpd_reject(context, session, reply, recipient, NULL, now);
    else
        smtpd_reply(context, session, reply);
}

/* ---- MAIL ---- */

static enum smtpd_reply mail_check(const struct smtpd_session *session,
                                   const struct smtp_address *address,
                                   const struct path_arguments *arguments)
{
    /*= rfc6531#section-3.5
     * A non-ASCII address in a command without the SMTPUTF8 parameter: 553 (or 550). */
    if (address->is_utf8 && !(arguments->seen & MAIL_SMTPUTF8))
        return SMTPD_REPLY_ADDRESS_UTF8;
    if (arguments->size > session->listener->limits.message_size_max)
        return SMTPD_REPLY_SIZE_MAX;
    if (!smtpd_auth_owns(session, address))
        return SMTPD_REPLY_SENDER_NOT_OWN;
    return SMTPD_REPLY_OK;
}

static enum smtpd_reply mail_begin(struct smtpd_context *context, struct smtpd_session *session,
                                   const struct smtp_address *address,
                                   const struct path_arguments *arguments, struct tick_now now)
{
    struct smtpd_transaction *transaction = smtpd_transaction_acquire(context);

    if (transaction == NULL)
        return SMTPD_REPLY_MEMORY;
    struct envelope *envelope = &transaction->envelope;
    envelope->sender = arena_copy(&transaction->arena, address->text);
    envelope->envid = arena_copy(&transaction->arena, arguments->envid);
    envelope->user = arena_copy(&transaction->arena, smtpd_user(session));
    if ((envelope->user.data == NULL && smtpd_user(session).size > 0) ||
        (envelope->sender.data == NULL && address->text.size > 0) ||
        (envelope->envid.data == NULL && arguments->envid.size > 0)) {
        smtpd_transaction_release(context, transaction);
        return SMTPD_REPLY_MEMORY;
    }
    envelope->arrived = now.wall;
    envelope->body_size = arguments->size; /* as announced, until the end of data knows */
    envelope->flags = arguments->ret | (arguments->seen & MAIL_SMTPUTF8 ? ENVELOPE_SMTPUTF8 : 0);
    transaction->is_utf8_address = address->is_utf8;
    transaction->encoded_size = ENVELOPE_OVERHEAD + address->text.size;
    transaction->deadline = now.tick + session->listener->limits.transaction_timeout;
    session->transaction = transaction;
    smtpd_enter(session, SMTPD_MAIL);
    return SMTPD_REPLY_SENDER_OK;
}

void smtpd_on_mail(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    const struct settings_limits *limits = &session->listener->limits;
    struct path_arguments arguments = {0};
    struct smtp_address address UNINITIALIZED;
    struct span rest = {0};
    struct smtpd_quota quota = {.reply = SMTPD_REPLY_OK};
    bool is_first;

    smtp_address_clear(&address);
    if (limits->messages_per_session_max > 0 &&
        session->message_count >= limits->messages_per_session_max) {
        smtpd_dismiss(context, session, SMTPD_REPLY_MESSAGES_MAX);
        return;
    }
    if (context->is_storage_lost) {
        smtpd_dismiss(context, session, SMTPD_REPLY_STORAGE_LOST);
        return;
    }
    enum smtpd_reply reply = smtpd_auth_mail_check(session);
    if (reply == SMTPD_REPLY_OK)
        reply = path_parse(line->argument, SPAN_LITERAL("FROM:"), SMTP_PATH_NULL_OK,
                           SMTPD_REPLY_SENDER_SYNTAX, &address, &rest);
    if (reply == SMTPD_REPLY_OK)
        reply = parameters_parse(session, rest, true, &arguments);
    if (reply == SMTPD_REPLY_OK)
        reply = mail_check(session, &address, &arguments);
    if (reply == SMTPD_REPLY_OK && !smtpd_quota_find(context, session, false, now, &quota))
        return; /* it comes again */
    session->attempt.is_mail_seen = true;
    if (reply == SMTPD_REPLY_OK && record_sink_holds(&context->records)) {
        smtpd_reply(context, session, SMTPD_REPLY_RECORDS_BEHIND); /* and no record of it */
        return;
    }
    if (reply == SMTPD_REPLY_OK && is_braked(context, session, BRAKE_MESSAGES, &is_first)) {
        braked_reply(context, session, SMTPD_REPLY_BRAKE_MESSAGES, is_first, (struct span){0}, now);
        return;
    }
    if (reply == SMTPD_REPLY_OK) {
        smtpd_quota_count(context, session, &quota, now);
        if (quota.reply != SMTPD_REPLY_OK) {
            braked_reply(context, session, quota.reply, quota.is_first, (struct span){0}, now);
            return;
        }
        reply = mail_begin(context, session, &address, &arguments, now);
    }
    if (reply == SMTPD_REPLY_SENDER_OK && quota.is_held)
        session->transaction->envelope.flags |= ENVELOPE_OVER_QUOTA;
    if (reply == SMTPD_REPLY_SENDER_OK)
        smtpd_reply(context, session, reply);
    else
        smtpd_reject(context, session, reply, (struct span){0}, NULL, now);
}

/* ---- RCPT ---- */

static enum smtpd_reply rcpt_grow(struct smtpd_transaction *transaction)
{
    struct envelope *envelope = &transaction->envelope;

    if (envelope->recipient_count < transaction->recipient_capacity)
        return SMTPD_REPLY_OK;
    uint32_t capacity = transaction->recipient_capacity == 0 ? RECIPIENT_CAPACITY_MIN
                                                             : 2 * transaction->recipient_capacity;
    struct envelope_recipient *recipients =
        arena_acquire(&transaction->arena, capacity * sizeof(*recipients));
    if (recipients == NULL)
        return SMTPD_REPLY_MEMORY;
    if (envelope->recipient_count > 0)
        memcpy(recipients, envelope->recipients, envelope->recipient_count * sizeof(*recipients));
    envelope->recipients = recipients;
    transaction->recipient_capacity = capacity;
    return SMTPD_REPLY_OK;
}

static enum smtpd_reply rcpt_add(struct smtpd_session *session,
                                 const struct policy_recipient *recipient,
                                 const struct path_arguments *arguments)
{
    struct smtpd_transaction *transaction = session->transaction;
    struct envelope *envelope = &transaction->envelope;
    uint32_t size = recipient->address.size + recipient->domain.size + arguments->orcpt.size +
                    ENVELOPE_RECIPIENT_OVERHEAD;

    if (transaction->encoded_size + size > ENVELOPE_SIZE_MAX)
        return SMTPD_REPLY_RECIPIENTS_MAX;
    enum smtpd_reply reply = rcpt_grow(transaction);
    if (reply != SMTPD_REPLY_OK)
        return reply;
    struct span address = arena_copy(&transaction->arena, recipient->address);
    struct span domain = arena_copy(&transaction->arena, recipient->domain);
    struct span orcpt = arena_copy(&transaction->arena, arguments->orcpt);
    if (address.data == NULL || domain.data == NULL ||
        (orcpt.data == NULL && arguments->orcpt.size > 0))
        return SMTPD_REPLY_MEMORY;
    envelope->recipients[envelope->recipient_count++] =
        (struct envelope_recipient){.address = address,
                                    .domain = domain,
                                    .orcpt = orcpt,
                                    .state = RECIPIENT_DUE,
                                    .notify = arguments->notify};
    transaction->encoded_size += size;
    smtpd_enter(session, SMTPD_RCPT);
    return SMTPD_REPLY_RECIPIENT_OK;
}

/* Policy, then the envelope. SMTPD_REPLY_OK: it waits for the user's quota, nothing was done. */
static enum smtpd_reply rcpt_judge(struct smtpd_context *context, struct smtpd_session *session,
                                   const struct smtp_address *address,
                                   const struct path_arguments *arguments, struct tick_now now,
                                   const char **ret_text, bool *ret_is_first)
{
    struct smtpd_transaction *transaction = session->transaction;
    uint32_t count_max = session->listener->limits.recipient_max;
    struct policy_recipient recipient;

    if (address->is_utf8 && !(transaction->envelope.flags & ENVELOPE_SMTPUTF8))
        return SMTPD_REPLY_ADDRESS_UTF8;
    switch (
        policy_recipient_check(session->settings, session->is_relay_client, address, &recipient)) {
    case POLICY_OK:
        break;
    case POLICY_RELAY_DENIED:
        return SMTPD_REPLY_RELAY_DENIED;
    case POLICY_ROUTE_REFUSED:
        *ret_text = recipient.route->refuse_text;
        return SMTPD_REPLY_ROUTE_REFUSED;
    case POLICY_POSTMASTER_ABSENT:
        return SMTPD_REPLY_POSTMASTER_ABSENT;
    }
    if (transaction->envelope.recipient_count >= count_max ||
        transaction->envelope.recipient_count >= ENVELOPE_RECIPIENT_MAX)
        return SMTPD_REPLY_RECIPIENTS_MAX;
    struct smtpd_quota quota = {.reply = SMTPD_REPLY_OK};
    if (!(transaction->envelope.flags & ENVELOPE_OVER_QUOTA) && /* who is held was not sent to */
        !smtpd_quota_find(context, session, true, now, &quota))
        return SMTPD_REPLY_OK;
    if (is_braked(context, session, BRAKE_RECIPIENTS, ret_is_first))
        return SMTPD_REPLY_BRAKE_RECIPIENTS;
    smtpd_quota_count(context, session, &quota, now);
    *ret_is_first = quota.is_first;
    if (quota.reply != SMTPD_REPLY_OK)
        return quota.reply;
    if (quota.is_held)
        transaction->envelope.flags |= ENVELOPE_OVER_QUOTA;
    enum smtpd_reply reply = rcpt_add(session, &recipient, arguments);
    if (reply == SMTPD_REPLY_RECIPIENT_OK)
        transaction->is_utf8_address |= address->is_utf8;
    return reply;
}

void smtpd_on_rcpt(struct smtpd_context *context, struct smtpd_session *session,
                   const struct smtpd_line *line, struct tick_now now)
{
    uint32_t count_max = session->listener->limits.recipient_max;
    struct path_arguments arguments = {0};
    struct smtp_address address UNINITIALIZED;
    struct span rest = {0};
    const char *text = NULL;
    bool is_first = false;

    smtp_address_clear(&address);
    session->attempt.rcpt_count += 1;
    if (session->attempt.rcpt_count / 2 > count_max) {
        smtpd_dismiss(context, session, SMTPD_REPLY_RECIPIENTS_FLOOD);
        return;
    }
    enum smtpd_reply reply =
        path_parse(line->argument, SPAN_LITERAL("TO:"), SMTP_PATH_POSTMASTER_OK,
                   SMTPD_REPLY_RECIPIENT_SYNTAX, &address, &rest);
    if (reply == SMTPD_REPLY_OK)
        reply = parameters_parse(session, rest, false, &arguments);
    if (reply == SMTPD_REPLY_OK)
        reply = rcpt_judge(context, session, &address, &arguments, now, &text, &is_first);
    if (reply == SMTPD_REPLY_OK) { /* it comes again */
        session->attempt.rcpt_count -= 1;
        return;
    }
    if (reply == SMTPD_REPLY_RECIPIENT_OK) {
        context->recipients_accepted += 1;
        smtpd_reply(context, session, reply);
        return;
    }
    context->recipients_rejected += 1;
    struct span recipient = address.text.size > 0 ? address.text : line->argument;
    if (reply == SMTPD_REPLY_BRAKE_RECIPIENTS || reply == SMTPD_REPLY_QUOTA_RECIPIENTS) {
        braked_reply(context, session, reply, is_first, recipient, now);
    } else if (smtpd_reply_code(reply) >= 500 &&
               is_braked(context, session, BRAKE_REFUSED, &is_first)) {
        braked_reply(context, session, SMTPD_REPLY_BRAKE_REFUSED, is_first, recipient, now);
        smtpd_hang_up(context, session);
    } else {
        smtpd_reject(context, session, reply, recipient, text, now);
    }
}
