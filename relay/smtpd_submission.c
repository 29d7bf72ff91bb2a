/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/smtpd_auth.h"

#include <stdio.h>

/*
 * What a message of a user is asked for, and given, on its way in (RFC 6409 sections 6.1 and 8):
 *   - who is logged in bears no other name in From and Sender (auth.from), as in MAIL FROM;
 *   - at a listener for submission a missing Date and Message-ID are added.
 *
 * Both go by the octets that are stored or passed on, so that they hold for every way a message may
 * take, and what is added is signed like the rest.
 */
#include "relay/smtpd_auth.h"

#include <stdio.h>

_Static_assert(MESSAGE_ID_TEXT_SIZE + SMTP_DOMAIN_MAX + 64 <= HEADER_COMPLETION_MAX,
               "both fields, and the empty line");

static bool user_owns(const void *context, const struct smtp_address *address)
{
    return smtpd_auth_owns(context, address);
}

/* Date, Message-ID, the empty line, and for Date alone: Date, the empty line. */
static enum err completion_make(struct smtpd_context *context, const struct smtpd_session *session,
                                struct smtpd_transaction *transaction, wall_us now)
{
    struct header_completion *completion =
        arena_acquire(&transaction->arena, sizeof(*completion) + 2 * HEADER_COMPLETION_MAX);
    char id[MESSAGE_ID_TEXT_SIZE];

    if (completion == NULL)
        return ERR_MEMORY;
    char *text = (char *)(completion + 1), *alone = text + HEADER_COMPLETION_MAX;
    struct span date = smtpd_date(context, now);
    int date_size = snprintf(text, HEADER_COMPLETION_MAX, "Date: %.*s\r\n", SPAN_PRINTF(date));
    int size = snprintf(text, HEADER_COMPLETION_MAX, "Date: %.*s\r\nMessage-ID: <%s@%.*s>\r\n\r\n",
                        SPAN_PRINTF(date), message_id_format(transaction->commit_id, id),
                        (int)SMTP_DOMAIN_MAX, session->settings->hostname);
    CHECK(size > date_size && size < (int)HEADER_COMPLETION_MAX);
    completion->both = span_of(text, (uint32_t)size);
    completion->message_id = span_skip(completion->both, (uint32_t)date_size);
    memcpy(alone, text, (uint32_t)date_size);
    memcpy(alone + date_size, "\r\n", 2);
    completion->date = span_of(alone, (uint32_t)date_size + 2);
    header_reader_complete(&transaction->fields, completion);
    return ERR_OK;
}

const struct header_names *smtpd_header_names(const struct smtpd_session *session)
{
    return session->listener->is_submission ? &session->settings->header_submission
                                            : &session->settings->header;
}

enum err smtpd_submission_begin(struct smtpd_context *context, const struct smtpd_session *session,
                                struct smtpd_transaction *transaction, wall_us now)
{
    if (smtpd_user(session).size > 0 && session->settings->auth.from == AUTH_FROM_OWN) {
        transaction->author = arena_acquire(&transaction->arena, sizeof(*transaction->author));
        if (transaction->author == NULL)
            return ERR_MEMORY;
        author_check_init(transaction->author, user_owns, session);
    }
    return session->listener->is_submission ? completion_make(context, session, transaction, now)
                                            : ERR_OK;
}
