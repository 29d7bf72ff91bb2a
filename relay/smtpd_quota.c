/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a user who is logged in may send: counts of messages and recipients in windows
 * (relay/quota.h), and what becomes of what is beyond.
 *
 *   room in the window          counted, sent
 *   none, beyond: hold          the message is held (queue/qmgr_quota.c), and counted as held
 *   none, so many are held      452
 *   none, beyond: refuse        452
 *
 * Where the answer is with another shard, the command waits for it: it leaves no trace, and is fed
 * again when the answer is there. So it is asked before anything of the command counts.
 *
 * Limits: those of the user in the file, else those of all.
 */
#include "relay/auth_users.h"
#include "relay/smtpd_auth.h"

struct limits {
    const struct rate_set *rates[QUOTA_KIND_COUNT];
    bool is_soft;
    uint64_t serial;
};

/* Of the settings in force, not of those that the session began with: a reload is for all. */
static struct limits limits_of(const struct smtpd_context *context,
                               const struct smtpd_session *session)
{
    const struct settings *settings =
        context->settings != NULL ? context->settings : session->settings;
    const struct auth_settings *all = &settings->auth;
    const struct auth_user *user =
        all->users == NULL ? NULL : auth_users_find(all->users, smtpd_user(session));
    struct limits limits = {.rates = {[QUOTA_MESSAGES] = &all->messages,
                                      [QUOTA_RECIPIENTS] = &all->recipients,
                                      [QUOTA_HELD] = &all->held},
                            .is_soft = all->beyond == AUTH_BEYOND_HOLD,
                            .serial = settings->serial};

    if (user == NULL)
        return limits;
    if (user->messages != NULL)
        limits.rates[QUOTA_MESSAGES] = user->messages;
    if (user->recipients != NULL)
        limits.rates[QUOTA_RECIPIENTS] = user->recipients;
    if (user->held != NULL)
        limits.rates[QUOTA_HELD] = user->held;
    if (user->beyond != NULL)
        limits.is_soft = *user->beyond == AUTH_BEYOND_HOLD;
    return limits;
}

static struct quota_question question_of(const struct smtpd_session *session,
                                         const struct limits *limits, enum quota_kind kind)
{
    return (struct quota_question){.user = quota_key_of(smtpd_user(session)),
                                   .kind = kind,
                                   .rates = limits->rates[kind],
                                   .serial = limits->serial};
}

static enum quota_answer ask(struct smtpd_context *context, const struct smtpd_session *session,
                             const struct limits *limits, enum quota_kind kind, tick_us now,
                             bool *ret_is_first)
{
    struct quota_question question = question_of(session, limits, kind);

    return quota_ask(context->quota, &question, smtpd_auth_waiter(session), now, ret_is_first);
}

bool smtpd_quota_find(struct smtpd_context *context, struct smtpd_session *session,
                      bool is_recipient, struct tick_now now, struct smtpd_quota *ret_quota)
{
    struct smtpd_quota quota = {.reply = SMTPD_REPLY_OK,
                                .kind = is_recipient ? QUOTA_RECIPIENTS : QUOTA_MESSAGES};

    *ret_quota = quota;
    if (smtpd_user(session).size == 0 || context->quota == NULL)
        return true;
    struct limits limits = limits_of(context, session);
    enum quota_answer answer =
        ask(context, session, &limits, quota.kind, now.tick, &quota.is_first);
    if (answer == QUOTA_NO && limits.is_soft) {
        quota.kind = QUOTA_HELD;
        quota.is_held = true;
        answer = ask(context, session, &limits, QUOTA_HELD, now.tick, &quota.is_first);
    }
    if (answer == QUOTA_WAIT)
        return false;
    quota.is_counted = answer == QUOTA_YES;
    if (answer == QUOTA_NO) {
        quota.is_held = false;
        quota.reply = is_recipient ? SMTPD_REPLY_QUOTA_RECIPIENTS : SMTPD_REPLY_QUOTA_MESSAGES;
    }
    *ret_quota = quota;
    return true;
}

void smtpd_quota_count(struct smtpd_context *context, const struct smtpd_session *session,
                       const struct smtpd_quota *quota, struct tick_now now)
{
    context->auth.messages_refused += quota->reply == SMTPD_REPLY_QUOTA_MESSAGES;
    context->auth.recipients_refused += quota->reply == SMTPD_REPLY_QUOTA_RECIPIENTS;
    context->auth.messages_held += quota->is_held;
    if (!quota->is_counted)
        return;
    struct limits limits = limits_of(context, session);
    struct quota_question question = question_of(session, &limits, quota->kind);
    quota_take(context->quota, &question, now.tick);
}

bool smtpd_quota_is_awaited(const struct smtpd_session *session)
{
    const struct quota_waiter *waiter = smtpd_auth_waiter(session);

    return waiter != NULL && waiter->lease != NULL;
}

void smtpd_quota_forget(const struct smtpd_session *session)
{
    if (smtpd_auth_waiter(session) != NULL)
        quota_leave(smtpd_auth_waiter(session));
}
