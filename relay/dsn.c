/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery status notifications: what a sender is told about recipients that failed for good, were
 * handed to a mail system that tells nothing, or wait for long.
 *
 *   multipart/report; report-type=delivery-status
 *     text/plain                        for people
 *     message/delivery-status           per recipient, for programs (message/global-delivery-status
 *                                       when an address is not ASCII, RFC 6533)
 *     text/rfc822-headers               the original's header, cut (message/global-headers when it
 *                                       has octets above 127); or
 *     message/rfc822                    the original, whole (message/global likewise): RET=FULL was
 *                                       said, somebody failed, it is not large and has no line that
 *                                       we would have to cut
 *
 * Invariants
 *   1. Null sender, one recipient: the original's sender. A message with a null sender never gets
 *      here (RFC 5321 section 4.5.5), so a notification never causes another.
 *   2. Every line ends in CRLF and has at most DSN_LINE_MAX octets before it, whatever the
 * original's header and the servers' replies look like; no NUL, no bare CR or LF.
 *   3. The boundary holds the notification's id, whose low half nobody outside knew when the
 *      original's header was written: no header can close our parts.
 *   4. Same failures, same `now`: same octets. The id depends on (message, run) alone.
 *
 * Limits: all failures are listed, with REPLIES_SIZE_MAX octets of replies in all, or
 * REPLY_SIZE_MIN of each; the original's header up to header_size_max octets, the original up to
 * message_size_max. Not here: when a notification is owed (queue), its commit (transfer_dsn.c),
 * octets (dsn_write.c).
 */
#include "relay/dsn.h"

#include <stdio.h>

#include "dns/dns.h"
#include "relay/dsn_write.h"
#include "relay/smtp_dsn.h"
#include "relay/smtp_reply.h"

/* Of the servers' replies, all together, with room for a few words of each; each is there twice. */
#define REPLIES_SIZE_MAX (256u << 10)
#define REPLY_SIZE_MIN   80u

struct dsn_context {
    const struct qmgr_dsn *dsn;
    const char *hostname, *postmaster;
    char boundary[MESSAGE_ID_TEXT_SIZE + 8];
    struct message_id id;
    wall_us now;
    uint32_t reply_size_max;
    bool is_global, is_original_global, is_eight_bit, is_whole;
};

/* ---- what is in it ---- */

static bool is_ascii(struct span octets)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] > 127)
            return false;
    }
    return true;
}

static struct span failure_address(const struct dsn_context *context, uint32_t index)
{
    const struct qmgr_failure *failure = &context->dsn->failures[index];

    CHECK(failure->recipient_index < context->dsn->envelope->recipient_count);
    return context->dsn->envelope->recipients[failure->recipient_index].address;
}

static bool has_global_address(const struct dsn_context *context)
{
    for (uint32_t i = 0; i < context->dsn->failure_count; i++) {
        if (!is_ascii(failure_address(context, i)))
            return true;
    }
    return !is_ascii(context->dsn->envelope->sender);
}

static const char *dsn_subject(const struct dsn_context *context)
{
    if (context->dsn->has_failed)
        return "Undelivered mail returned to sender";
    return context->dsn->has_delayed ? "Delayed mail, delivery will be tried again"
                                     : "Mail was relayed";
}

static void dsn_write_header(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DSN_DATE_SIZE], id[MESSAGE_ID_TEXT_SIZE];

    dsn_date_format(context->now, date);
    dsn_printf(writer, "Date: %s\n", date);
    dsn_printf(writer, "From: Mail Delivery System <MAILER-DAEMON@%s>\nTo: <", context->hostname);
    dsn_put_clean(writer, context->dsn->envelope->sender);
    dsn_printf(writer, ">\nSubject: %s\n", dsn_subject(context));
    dsn_printf(writer, "Message-ID: <%s@%s>\n", message_id_format(context->id, id),
               context->hostname);
    //= rfc3834#section-5
    //# The keyword 'auto-replied' [...] SHOULD be used on messages sent in direct response to
    //# another message by an automatic process.
    dsn_put_text(writer, "Auto-Submitted: auto-replied\nMIME-Version: 1.0\n");
    dsn_printf(writer,
               "Content-Type: multipart/report; report-type=delivery-status;\n"
               "\tboundary=\"%s\"\n",
               context->boundary);
    if (context->is_global || context->is_eight_bit)
        dsn_put_text(writer, "Content-Transfer-Encoding: 8bit\n");
    dsn_put_text(writer, "\n");
}

/* What is said of those with this notice, before they are named. */
static void dsn_write_verdict(const struct dsn_context *context, enum qmgr_notice notice,
                              struct dsn_writer *writer)
{
    char date[DSN_DATE_SIZE];

    switch (notice) {
    case QMGR_NOTICE_FAILED:
        dsn_put_text(writer, "\nIt could not be delivered to the recipients below, and no further\n"
                             "attempt will be made.\n");
        break;
    case QMGR_NOTICE_RELAYED:
        dsn_put_text(writer,
                     "\nIt was handed to the mail systems of the recipients below, which do not\n"
                     "confirm deliveries: there will be no further notice about them.\n");
        break;
    case QMGR_NOTICE_DELAYED:
        dsn_date_format(context->dsn->envelope->expires, date);
        dsn_printf(writer,
                   "\nIt could not be delivered to the recipients below yet. There is no need to\n"
                   "send it again: delivery will be tried until\n%s.\n",
                   date);
        break;
    }
}

static struct span failure_reply(const struct dsn_context *context,
                                 const struct qmgr_failure *failure)
{
    return failure->reply.size > context->reply_size_max
               ? span_head(failure->reply, context->reply_size_max)
               : failure->reply;
}

static void dsn_write_notices(const struct dsn_context *context, enum qmgr_notice notice,
                              struct dsn_writer *writer)
{
    bool is_first = true;

    for (uint32_t i = 0; i < context->dsn->failure_count; i++) {
        const struct qmgr_failure *failure = &context->dsn->failures[i];
        if (failure->notice != notice)
            continue;
        if (is_first)
            dsn_write_verdict(context, notice, writer);
        is_first = false;
        dsn_put_text(writer, "\n<");
        dsn_put_clean(writer, failure_address(context, i));
        dsn_put_text(writer, failure->is_expired
                                 ? ">:\n    it could not be delivered in time; the last trouble:\n"
                                 : ">:\n");
        dsn_put_text(writer, "    ");
        if (failure->reply.size > 0)
            dsn_put_folded(writer, failure_reply(context, failure), "    ");
        else
            dsn_put_text(writer, "no reason was recorded\n");
    }
}

static void dsn_write_text(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DSN_DATE_SIZE];

    dsn_date_format(context->dsn->envelope->arrived, date);
    dsn_printf(writer,
               "This is a delivery status notification in MIME format.\n\n--%s\n"
               "Content-Type: text/plain; charset=%s\n%s\n"
               "This is the mail system at %s,\nabout your message of %s.\n",
               context->boundary, context->is_global ? "utf-8" : "us-ascii",
               context->is_global ? "Content-Transfer-Encoding: 8bit\n" : "", context->hostname,
               date);
    if (context->postmaster != NULL)
        dsn_printf(writer, "For help, write to <%s>.\n", context->postmaster);
    dsn_write_notices(context, QMGR_NOTICE_FAILED, writer);
    dsn_write_notices(context, QMGR_NOTICE_DELAYED, writer);
    dsn_write_notices(context, QMGR_NOTICE_RELAYED, writer);
    dsn_put_text(writer, "\n");
}

/* Did a server say this? Then it begins with the code, see smtp_reply.h. Of a delay only the text
 * is known. */
static bool failure_is_smtp(const struct qmgr_failure *failure)
{
    char code[8];

    if (failure->notice == QMGR_NOTICE_DELAYED)
        return failure->reply.size > 4 && failure->reply.data[0] == '4' &&
               failure->reply.data[1] >= '0' && failure->reply.data[1] <= '5' &&
               failure->reply.data[2] >= '0' && failure->reply.data[2] <= '9' &&
               failure->reply.data[3] == ' ';
    snprintf(code, sizeof(code), "%u", failure->code);
    return failure->code != 0 && failure->reply.size >= 3 &&
           memcmp(failure->reply.data, code, 3) == 0;
}

/* The full code of the reply where it has one of its class (its numbers may not fit an octet), else
 * what the queue knows, else what the reply code says. */
static void dsn_put_status(struct dsn_writer *writer, const struct qmgr_failure *failure)
{
    uint16_t parts[3], class = failure->notice == QMGR_NOTICE_DELAYED ? 4 : 5;

    if (failure->is_expired) {
        dsn_put_text(writer, "4.4.7");
    } else if (failure->notice == QMGR_NOTICE_RELAYED) {
        dsn_put_text(writer, "2.1.9"); /* relayed to a mailer without DSN */
    } else if (failure_is_smtp(failure) && failure->reply.size > 4 &&
               smtp_enhanced_parse(span_skip(failure->reply, 4), parts) > 0 && parts[0] == class) {
        dsn_printf(writer, "%u.%u.%u", parts[0], parts[1], parts[2]);
    } else if (failure->enhanced[0] != 0) {
        dsn_printf(writer, "%u.%u.%u", failure->enhanced[0], failure->enhanced[1],
                   failure->enhanced[2]);
    } else {
        dsn_put_text(writer, class == 4 ? "4.0.0" : "5.0.0");
    }
    dsn_put_text(writer, "\n");
}

/* RFC 3464 section 2.3.1: as the sender's system named it, without the encoding of the way. */
static void dsn_put_xtext(struct dsn_writer *writer, struct span text)
{
    uint8_t octets[ENVELOPE_ORCPT_SIZE_MAX];

    CHECK(text.size <= sizeof(octets));
    dsn_put_clean(writer, span_of(octets, smtp_xtext_decode(text, octets)));
}

static void dsn_write_recipient(const struct dsn_context *context, uint32_t index,
                                struct dsn_writer *writer)
{
    static const char *const actions[] = {
        [QMGR_NOTICE_FAILED] = "failed",
        [QMGR_NOTICE_RELAYED] = "relayed",
        [QMGR_NOTICE_DELAYED] = "delayed",
    };
    const struct qmgr_failure *failure = &context->dsn->failures[index];
    struct span orcpt = context->dsn->envelope->recipients[failure->recipient_index].orcpt;
    char date[DSN_DATE_SIZE];

    dsn_put_text(writer, "\n");
    if (orcpt.size > 0) {
        dsn_put_text(writer, "Original-Recipient: ");
        dsn_put_xtext(writer, orcpt);
        dsn_put_text(writer, "\n");
    }
    dsn_printf(writer, "Final-Recipient: %s; ", context->is_global ? "utf-8" : "rfc822");
    dsn_put_clean(writer, failure_address(context, index));
    dsn_printf(writer, "\nAction: %s\nStatus: ", actions[failure->notice]);
    dsn_put_status(writer, failure);
    if (failure->reply.size > 0) {
        dsn_printf(writer, "Diagnostic-Code: %s; ",
                   failure_is_smtp(failure) ? "smtp" : "x-angarium");
        dsn_put_folded(writer, failure_reply(context, failure), "    ");
    }
    if (failure->notice == QMGR_NOTICE_DELAYED) {
        dsn_date_format(context->dsn->envelope->expires, date);
        dsn_printf(writer, "Will-Retry-Until: %s\n", date);
    }
}

static void dsn_write_status(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DSN_DATE_SIZE];

    dsn_date_format(context->dsn->envelope->arrived, date);
    dsn_printf(writer, "--%s\nContent-Type: message/%s\n%s\n", context->boundary,
               context->is_global ? "global-delivery-status" : "delivery-status",
               context->is_global ? "Content-Transfer-Encoding: 8bit\n" : "");
    if (context->dsn->envelope->envid.size > 0) {
        dsn_put_text(writer, "Original-Envelope-Id: ");
        dsn_put_xtext(writer, context->dsn->envelope->envid);
        dsn_put_text(writer, "\n");
    }
    dsn_printf(writer, "Reporting-MTA: dns; %s\nArrival-Date: %s\n", context->hostname, date);
    for (uint32_t i = 0; i < context->dsn->failure_count; i++)
        dsn_write_recipient(context, i, writer);
    dsn_put_text(writer, "\n");
}

/* Can it be returned octet for octet? */
static bool original_is_plain(struct span original)
{
    uint32_t in_line = 0;

    for (uint32_t i = 0; i < original.size; i++) {
        uint8_t octet = original.data[i];
        bool is_end = octet == '\r' && i + 1 < original.size && original.data[i + 1] == '\n';
        if (octet == 0 || (octet == '\r' && !is_end) || in_line > DSN_LINE_MAX ||
            (octet == '\n' && (i == 0 || original.data[i - 1] != '\r')))
            return false;
        in_line = octet == '\n' || octet == '\r' ? 0 : in_line + 1;
    }
    return in_line <= DSN_LINE_MAX;
}

static bool original_is_whole(const struct qmgr_dsn *dsn, struct span original)
{
    return (dsn->envelope->flags & ENVELOPE_RET_FULL) != 0 && dsn->has_failed &&
           original.size == dsn->envelope->body_size && original_is_plain(original);
}

static void dsn_write_whole(const struct dsn_context *context, struct span original,
                            struct dsn_writer *writer)
{
    dsn_printf(writer, "--%s\nContent-Type: message/%s\n%s\n", context->boundary,
               context->is_original_global ? "global" : "rfc822",
               is_ascii(original) ? "" : "Content-Transfer-Encoding: 8bit\n");
    for (uint32_t i = 0; i < original.size; i++)
        dsn_put_octet(writer, original.data[i]);
    dsn_printf(writer, "%s\n--%s--\n",
               original.size > 0 && original.data[original.size - 1] == '\n' ? "" : "\n",
               context->boundary);
}

static void dsn_write_original(const struct dsn_context *context, struct span header,
                               struct dsn_writer *writer)
{
    dsn_printf(writer, "--%s\nContent-Type: %s\n%s\n", context->boundary,
               context->is_original_global ? "message/global-headers" : "text/rfc822-headers",
               context->is_original_global ? "Content-Transfer-Encoding: 8bit\n" : "");
    while (header.size > 0) {
        const uint8_t *end = memchr(header.data, '\n', header.size);
        uint32_t size = end == NULL ? header.size : (uint32_t)(end - header.data);
        uint32_t next = end == NULL ? size : size + 1;

        if (size > 0 && header.data[size - 1] == '\r')
            size--;
        if (size == 0)
            break; /* the empty line: its end */
        dsn_put_header_line(writer, span_head(header, size));
        header = span_skip(header, next);
    }
    dsn_printf(writer, "\n--%s--\n", context->boundary);
}

/* ---- the envelope ---- */

/* Lower-case A-labels of the sender's domain; as it stands when it is no name, so that the
 * resolution fails and says why. */
static struct span domain_key(struct span address, struct arena *arena)
{
    char name[MX_NAME_MAX];
    uint32_t name_size, at = address.size;

    while (at > 0 && address.data[at - 1] != '@')
        at--;
    struct span domain = span_skip(address, at);
    if (dns_name_normalize(domain, name, &name_size) == ERR_OK)
        domain = span_of(name, name_size);
    else if (domain.size > ENVELOPE_DOMAIN_SIZE_MAX)
        domain.size = ENVELOPE_DOMAIN_SIZE_MAX;
    return arena_copy(arena, domain);
}

static enum err dsn_envelope(const struct dsn_context *context, wall_us lifetime,
                             struct arena *arena, struct envelope *ret_envelope)
{
    const struct envelope *about = context->dsn->envelope;
    struct envelope_recipient *recipient = arena_acquire(arena, sizeof(*recipient));
    struct envelope envelope = {
        .id = context->id,
        .arrived = context->now,
        .expires = context->now + lifetime,
        .flags = ENVELOPE_IS_DSN,
        .class = about->class,
        .source_pool = arena_copy(arena, about->source_pool),
        .recipients = recipient,
        .recipient_count = 1,
    };

    if (recipient == NULL || (envelope.source_pool.data == NULL && about->source_pool.size > 0))
        return ERR_MEMORY;
    *recipient = (struct envelope_recipient){.address = arena_copy(arena, about->sender),
                                             .domain = domain_key(about->sender, arena),
                                             .state = RECIPIENT_DUE};
    if (recipient->address.data == NULL ||
        (recipient->domain.data == NULL && recipient->domain.size > 0))
        return ERR_MEMORY;
    /* RFC 3461 section 6.1: a notification asks for none. */
    recipient->notify = ENVELOPE_NOTIFY_NEVER;
    if (!is_ascii(about->sender))
        envelope.flags |= ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_NEEDED;
    *ret_envelope = envelope;
    return ERR_OK;
}

/* ---- public ---- */

/* The finalizer of splitmix64: a bijection, so two runs of a message never meet. */
static uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

struct message_id dsn_id(struct message_id about, uint32_t run)
{
    return (struct message_id){
        .high = about.high,
        .low = mix(about.low + (uint64_t)(run + 1) * 0x9e3779b97f4a7c15u),
    };
}

uint32_t dsn_original_size(const struct qmgr_dsn *dsn, const struct dsn_options *options)
{
    uint64_t whole = dsn->envelope->body_size;

    if ((dsn->envelope->flags & ENVELOPE_RET_FULL) != 0 && dsn->has_failed &&
        whole <= options->message_size_max)
        return (uint32_t)whole;
    return dsn->envelope->header_size < options->header_size_max ? dsn->envelope->header_size
                                                                 : options->header_size_max;
}

/* What of `original` is quoted, and how. */
static struct span dsn_prepare(struct dsn_context *context, const struct dsn_options *options,
                               struct span original)
{
    const struct qmgr_dsn *dsn = context->dsn;
    uint32_t header_size = dsn->envelope->header_size, room = REPLIES_SIZE_MAX / dsn->failure_count;
    char id[MESSAGE_ID_TEXT_SIZE];

    if (header_size > options->header_size_max)
        header_size = options->header_size_max;
    if (header_size > original.size)
        header_size = original.size;
    context->is_whole = original_is_whole(dsn, original);
    context->is_original_global = !is_ascii(span_head(original, header_size));
    context->is_eight_bit =
        !is_ascii(context->is_whole ? original : span_head(original, header_size));
    context->is_global = has_global_address(context);
    context->reply_size_max = room > REPLY_SIZE_MIN ? room : REPLY_SIZE_MIN;
    snprintf(context->boundary, sizeof(context->boundary), "=_%s",
             message_id_format(context->id, id));
    return context->is_whole ? original : span_head(original, header_size);
}

enum err dsn_build(const struct qmgr_dsn *dsn, const struct dsn_options *options,
                   struct span original, struct buf_pool *pool, struct arena *arena,
                   struct buf_queue *body, struct envelope *ret_envelope)
{
    struct dsn_context context = {
        .dsn = dsn,
        .hostname = options->hostname,
        .postmaster = options->postmaster,
        .id = dsn_id(dsn->envelope->id, dsn->run),
        .now = options->now,
    };
    struct dsn_writer writer = {.body = body, .pool = pool, .is_line_start = true};
    struct envelope envelope;

    CHECK(dsn->failure_count > 0 && dsn->envelope->sender.size > 0);
    CHECK(strlen(options->hostname) <= 255);
    CHECK(options->postmaster == NULL || strlen(options->postmaster) <= 320);
    original = dsn_prepare(&context, options, original);
    TRY(dsn_envelope(&context, options->lifetime, arena, &envelope));

    dsn_write_header(&context, &writer);
    envelope.header_size = (uint32_t)writer.size;
    dsn_write_text(&context, &writer);
    dsn_write_status(&context, &writer);
    if (context.is_whole)
        dsn_write_whole(&context, original, &writer);
    else
        dsn_write_original(&context, original, &writer);
    dsn_flush(&writer);
    if (writer.err != ERR_OK)
        return writer.err;
    envelope.flags |= writer.flags;
    envelope.body_size = writer.size;
    *ret_envelope = envelope;
    return ERR_OK;
}
