/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which pool a message is for: the field in its header that names one, if its client may, else the
 * rules, by listener, sender and user.
 *
 * The field is taken out of the header as it comes (smtp_strip.h), so that what is stored has never
 * had it, and all sizes are of what is stored. Octets that are taken out still count against the
 * size of a message.
 *
 * Mail of the default pool names none: it follows when the configuration makes another the default.
 */
#include "relay/smtpd_internal.h"

void smtpd_pool_begin(struct smtpd_session *session)
{
    struct smtpd_transaction *transaction = session->transaction;
    const char *name = session->settings->pool_header;

    transaction->strip = NULL;
    if (name == NULL)
        return;
    transaction->strip = arena_acquire(&transaction->arena, sizeof(*transaction->strip));
    if (transaction->strip == NULL)
        transaction->failure = SMTPD_REPLY_MEMORY;
    else
        smtp_strip_init(transaction->strip, span_from_text(name));
}

struct smtp_body_step smtpd_pool_scan(struct smtpd_transaction *transaction, struct span octets)
{
    struct smtp_strip *strip = transaction->strip;
    struct span held = smtp_strip_release(strip, octets);

    if (held.size > 0)
        return (struct smtp_body_step){.insert = held};
    struct smtp_body_step step =
        smtp_body_scan(&transaction->body, span_head(octets, smtp_strip_limit(octets)));
    if (smtp_strip_takes(strip, span_head(octets, step.pass))) {
        step.skip += step.pass;
        step.pass = 0;
    }
    step.insert = smtp_strip_insert(strip, step.insert);
    return step;
}

struct span smtpd_pool_finish(struct smtpd_transaction *transaction, struct span rest)
{
    if (transaction->strip == NULL || transaction->header.is_done)
        return rest;
    if (rest.size > 0)
        return smtp_strip_insert(transaction->strip, rest);
    /* The message ends within a line: nothing can follow that makes it the field. */
    return smtp_strip_release(transaction->strip, SPAN_LITERAL("\n"));
}

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
    const struct smtp_strip *strip = session->transaction->strip;
    struct span name;

    *ret_is_unknown = false;
    if (strip == NULL || !settings_pool_header_is_allowed(session->settings, &session->peer))
        return NULL;
    enum err err = smtp_strip_value(strip, &name);
    if (err == ERR_NOT_FOUND)
        return NULL;
    const struct settings_pool *pool =
        err == ERR_OK ? settings_pool_find(session->settings, name) : NULL;
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
