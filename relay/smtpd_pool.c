/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pool a message is for: the field in its header that names one, if its client may, else the
 * rules, by listener, sender and user.
 *
 * The field is taken out of the header as it comes (header_reader.h), so what is stored has never
 * had it, and all sizes are of what is stored. Octets that are taken out still count against the
 * size of a message.
 *
 * Mail of the default pool names none: it follows when the configuration makes another the default.
 */
#include "relay/smtpd_internal.h"

static struct span sender_domain(const struct smtpd_transaction *transaction)
{
    struct span sender = transaction->envelope.sender;
    const uint8_t *at = sender.size == 0 ? NULL : memrchr(sender.data, '@', sender.size);

    return at == NULL ? (struct span){0} : span_skip(sender, (uint32_t)(at - sender.data) + 1);
}

/* The pool that the header names; NULL: it names none, or may not. */
static const struct settings_pool *header_pool(const struct smtpd_session *session,
                                               bool *ret_is_unknown)
{
    const struct header_reader *fields = &session->transaction->fields;

    *ret_is_unknown = false;
    if (!header_reader_has(fields, HEADER_POOL) ||
        !settings_pool_header_is_allowed(session->settings, &session->peer))
        return NULL;
    const struct settings_pool *pool = NULL;
    if (header_reader_is_clear(fields, HEADER_POOL))
        pool = settings_pool_find(session->settings, header_reader_value(fields, HEADER_POOL));
    *ret_is_unknown = pool == NULL;
    return pool;
}

enum smtpd_reply smtpd_pool_choose(struct smtpd_context *context, struct smtpd_session *session)
{
    const struct settings *settings = session->settings;
    struct smtpd_transaction *transaction = session->transaction;
    bool is_unknown;

    const struct settings_pool *pool = header_pool(session, &is_unknown);
    context->pools_unknown += is_unknown;
    if (is_unknown && settings->pool_unknown == SETTINGS_POOL_UNKNOWN_REFUSE)
        return SMTPD_REPLY_POOL_UNKNOWN;
    if (pool == NULL)
        pool = settings_pool_choose(settings, &session->listener->address,
                                    sender_domain(transaction), transaction->envelope.user);
    if (pool != &settings->pools[settings->default_pool])
        transaction->envelope.source_pool = span_from_text(pool->name);
    return SMTPD_REPLY_OK;
}
