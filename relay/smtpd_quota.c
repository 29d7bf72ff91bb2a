/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much a user who is logged in may send: counts of messages and recipients in windows
 * (relay/tally.h), and what becomes of what is beyond.
 *
 *   room in the window          counted, sent
 *   none, beyond: hold          the message is held (queue/qmgr_quota.c), and counted as held
 *   none, so many are held      452
 *   none, beyond: refuse        452
 *
 * Limits: those of the user in the file, else those of all; per core.
 */
#include "relay/auth_users.h"
#include "relay/smtpd_auth.h"
#include "relay/tally.h"

enum quota_kind { QUOTA_MESSAGES, QUOTA_RECIPIENTS, QUOTA_HELD };

static const struct rate_set *quota_of(const struct smtpd_session *session, enum quota_kind kind)
{
    const struct auth_settings *all = &session->settings->auth;
    const struct auth_user *user = smtpd_auth_user(session);

    switch (kind) {
    case QUOTA_MESSAGES:
        return user != NULL && user->messages != NULL ? user->messages : &all->messages;
    case QUOTA_RECIPIENTS:
        return user != NULL && user->recipients != NULL ? user->recipients : &all->recipients;
    case QUOTA_HELD:
        break;
    }
    return user != NULL && user->held != NULL ? user->held : &all->held;
}

static bool quota_is_soft(const struct smtpd_session *session)
{
    const struct auth_user *user = smtpd_auth_user(session);

    return (user != NULL && user->beyond != NULL
                ? *user->beyond
                : session->settings->auth.beyond) == AUTH_BEYOND_HOLD;
}

/* Count one more, if there is room. */
static bool quota_take(struct smtpd_context *context, const struct smtpd_session *session,
                       enum quota_kind kind, struct tick_now now, bool *ret_is_first)
{
    static const uint8_t marks[] = {
        [QUOTA_MESSAGES] = 'm', [QUOTA_RECIPIENTS] = 'r', [QUOTA_HELD] = 'h'};
    const struct rate_set *rates = quota_of(session, kind);
    struct span name = smtpd_user(session);
    uint8_t key[AUTH_NAME_MAX + 1];

    key[0] = marks[kind];
    for (uint32_t i = 0; i < name.size; i++)
        key[1 + i] =
            name.data[i] >= 'A' && name.data[i] <= 'Z' ? name.data[i] | 0x20 : name.data[i];
    struct span who = span_of(key, name.size + 1);
    if (!tally_has_room(context->quota, who, rates, now.tick, ret_is_first))
        return false;
    tally_add(context->quota, who, rates, now.tick);
    return true;
}

struct smtpd_quota smtpd_auth_quota(struct smtpd_context *context,
                                    const struct smtpd_session *session, bool is_recipient,
                                    struct tick_now now)
{
    enum quota_kind kind = is_recipient ? QUOTA_RECIPIENTS : QUOTA_MESSAGES;
    struct smtpd_quota quota = {.reply = SMTPD_REPLY_OK};

    if (smtpd_user(session).size == 0 || context->quota == NULL ||
        quota_take(context, session, kind, now, &quota.is_first))
        return quota;
    if (quota_is_soft(session) && quota_take(context, session, QUOTA_HELD, now, &quota.is_first)) {
        context->auth.messages_held += 1;
        quota.is_held = true;
        return quota;
    }
    context->auth.messages_refused += !is_recipient;
    context->auth.recipients_refused += is_recipient;
    quota.reply = is_recipient ? SMTPD_REPLY_QUOTA_RECIPIENTS : SMTPD_REPLY_QUOTA_MESSAGES;
    return quota;
}
