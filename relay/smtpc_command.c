/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client engine's commands of a transaction, on their way out: whole ones, as many as there is
 * room for and as may be sent now.
 *
 * Not here: what the replies to them lead to (smtpc_transaction.c).
 */
#include "relay/smtpc_internal.h"

#include "relay/smtp_dsn.h"

/* RFC 3461 section 5.2.1: what the sender said goes on as it was said. */
static void smtpc_dsn_write(const struct envelope *envelope, struct smtpc_writer *writer)
{
    if ((envelope->flags & ENVELOPE_RET_FULL) != 0)
        smtpc_put_text(writer, " RET=FULL");
    else if ((envelope->flags & ENVELOPE_RET_HEADERS) != 0)
        smtpc_put_text(writer, " RET=HDRS");
    if (envelope->envid.size > 0) {
        smtpc_put_text(writer, " ENVID=");
        smtpc_put(writer, envelope->envid);
    }
}

static void smtpc_mail_write(const struct smtpc *session,
                             const struct smtpc_transaction *transaction,
                             struct smtpc_writer *writer)
{
    uint32_t flags = transaction->envelope->flags;

    smtpc_put_text(writer, "MAIL FROM:<");
    smtpc_put(writer, transaction->envelope->sender);
    smtpc_put_text(writer, ">");
    if ((session->extensions & SMTPC_SIZE) != 0 &&
        !(transaction->is_open && transaction->body_size == 0)) {
        smtpc_put_text(writer, " SIZE=");
        smtpc_put_number(writer, transaction->body_size);
    }
    if (((flags & ENVELOPE_EIGHT_BIT) != 0 || transaction->is_open) &&
        (session->extensions & SMTPC_8BITMIME) != 0)
        smtpc_put_text(writer, " BODY=8BITMIME");
    if ((flags & (ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_NEEDED)) != 0 &&
        (session->extensions & SMTPC_SMTPUTF8) != 0)
        smtpc_put_text(writer, " SMTPUTF8");
    if ((session->extensions & SMTPC_DSN) != 0)
        smtpc_dsn_write(transaction->envelope, writer);
    smtpc_put_text(writer, "\r\n");
}

static void smtpc_rcpt_write(const struct smtpc *session, const struct smtpc_recipient *recipient,
                             struct smtpc_writer *writer)
{
    bool has_dsn = (session->extensions & SMTPC_DSN) != 0;

    smtpc_put_text(writer, "RCPT TO:<");
    smtpc_put(writer, recipient->address);
    smtpc_put_text(writer, ">");
    if (has_dsn && recipient->notify != 0) {
        smtpc_put_text(writer, " NOTIFY=");
        smtpc_put(writer, smtp_notify_text(recipient->notify));
    }
    if (has_dsn && recipient->orcpt.size > 0) {
        smtpc_put_text(writer, " ORCPT=");
        smtpc_put(writer, recipient->orcpt);
    }
    smtpc_put_text(writer, "\r\n");
}

void smtpc_chunk_write(const struct smtpc_transaction *transaction, struct smtpc_writer *writer)
{
    smtpc_put_text(writer, "BDAT ");
    smtpc_put_number(writer, transaction->chunk.size);
    smtpc_put_text(writer, transaction->chunk.is_last ? " LAST\r\n" : "\r\n");
}

static void smtpc_next_write(const struct smtpc *session,
                             const struct smtpc_transaction *transaction,
                             struct smtpc_writer *writer)
{
    if (transaction->is_reset_due)
        smtpc_put_text(writer, "RSET\r\n");
    else if (transaction->sent == 0)
        smtpc_mail_write(session, transaction, writer);
    else if (transaction->sent <= transaction->recipient_count)
        smtpc_rcpt_write(session, &transaction->recipients[transaction->sent - 1], writer);
    else if (transaction->is_ahead)
        smtpc_chunk_write(transaction, writer);
    else
        smtpc_put_text(writer, "DATA\r\n");
}

void smtpc_envelope_drain(struct smtpc *session, struct smtpc_writer *writer)
{
    struct smtpc_transaction *transaction = smtpc_outgoing(session);
    bool has_last = !transaction->is_bdat || transaction->is_ahead;
    uint32_t count = 1 + transaction->recipient_count + (has_last ? 1 : 0);

    while (transaction->sent < count && (transaction->is_pipelined || session->replies_due == 0)) {
        uint32_t mark = writer->used;

        smtpc_next_write(session, transaction, writer);
        if (writer->is_full) {
            CHECK(mark > 0); /* SMTPC_ROOM_MIN holds any single command */
            writer->used = mark;
            writer->is_full = false;
            return;
        }
        session->replies_due++;
        transaction->is_reset_out |= transaction->is_reset_due;
        if (transaction->is_reset_due)
            transaction->is_reset_due = false;
        else
            transaction->sent++;
    }
}
