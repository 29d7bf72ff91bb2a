/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What viewers see of inbound sessions (trace.h): commands when they were done, replies when they
 * are sent, and what became of the connection. Called only while somebody looks on.
 */
#include "relay/server_internal.h"

/* The message in hand; else the first of those whose fate is open. */
static struct trace_subject subject_of(const struct server_session *session)
{
    const struct smtpd_session *smtpd = &session->smtpd;
    const struct smtpd_transaction *transaction =
        smtpd->transaction != NULL ? smtpd->transaction : smtpd->pending;
    struct trace_subject subject = {
        .side = TRACE_INBOUND,
        .session = smtpd->id,
        .began = session->accepted,
        .peer = &smtpd->peer,
        .envelope = transaction == NULL ? NULL : &transaction->envelope,
    };

    if (transaction != NULL)
        subject.id = transaction->commit_id;
    return subject;
}

void server_trace_command(struct server *server, const struct server_session *session,
                          struct span octets, bool is_secret)
{
    struct trace_subject subject = subject_of(session);
    uint32_t viewers = trace_match(server->options.trace, &subject);

    if (viewers != 0)
        trace_commands(server->options.trace, &subject, viewers, octets, is_secret);
}

void server_trace_replies(struct server *server, const struct server_session *session,
                          struct span octets)
{
    struct trace_subject subject = subject_of(session);
    uint32_t viewers = trace_match(server->options.trace, &subject);

    if (viewers != 0)
        trace_replies(server->options.trace, &subject, viewers, octets);
}

void server_trace_note(struct server *server, const struct server_session *session,
                       const char *text)
{
    struct trace_subject subject = subject_of(session);
    uint32_t viewers = trace_match(server->options.trace, &subject);

    if (viewers != 0)
        trace_note(server->options.trace, &subject, viewers, "%s", text);
}

void server_trace_body(struct server *server, const struct server_session *session)
{
    const struct smtpd_transaction *transaction = session->smtpd.transaction;
    struct trace_subject subject = subject_of(session);
    uint32_t viewers = trace_match(server->options.trace, &subject);

    CHECK(transaction != NULL);
    if (viewers != 0)
        trace_note(server->options.trace, &subject, viewers, "message of %llu octets",
                   (unsigned long long)transaction->content_size);
}
