/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Delivery status notifications: what a sender is told about recipients that failed for good.
 *
 *   multipart/report; report-type=delivery-status
 *     text/plain                        for people
 *     message/delivery-status           per recipient, for programs (message/global-delivery-status
 *                                       when an address is not ASCII, RFC 6533)
 *     text/rfc822-headers               the original's header, cut (message/global-headers when it
 *                                       has octets above 127)
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
 * Limits: all failures are listed, the original's header up to header_size_max octets, its body
 * never.
 * Not here: when a notification is owed (queue), its commit (transfer_dsn.c).
 */
#include "relay/dsn.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>

#include "dns/dns.h"
#include "relay/smtp_reply.h"

#define DSN_LINE_MAX 990u /* RFC 5322 section 2.1.1 allows 998 */
#define FOLD_MAX     900u /* leaves room for a field's name */
#define FOLD_SIZE    76u
#define DATE_SIZE    40u

struct dsn_writer {
    struct buf_queue *body;
    struct buf_pool *pool;
    enum err err;   /* of the first append that failed */
    uint64_t size;  /* octets written */
    uint32_t flags; /* of the envelope, found while writing */
    bool is_line_start;
    uint32_t used;
    uint8_t chunk[2048];
};

struct dsn_context {
    const struct qmgr_dsn *dsn;
    const char *hostname, *postmaster;
    char boundary[MESSAGE_ID_TEXT_SIZE + 8];
    struct message_id id;
    wall_us now;
    bool is_global, is_header_global;
};

/* ---- writing ---- */

static void dsn_flush(struct dsn_writer *writer)
{
    if (writer->err == ERR_OK)
        writer->err =
            buf_queue_append_copy(writer->body, writer->pool, span_of(writer->chunk, writer->used));
    writer->used = 0;
}

static void dsn_put_octet(struct dsn_writer *writer, uint8_t octet)
{
    if (writer->used == sizeof(writer->chunk))
        dsn_flush(writer);
    if (octet > 127)
        writer->flags |= ENVELOPE_EIGHT_BIT;
    if (writer->is_line_start && octet == '.')
        writer->flags |= ENVELOPE_DOT_LINES;
    writer->is_line_start = octet == '\n';
    writer->chunk[writer->used++] = octet;
    writer->size++;
}

/* Text of ours, LF written as CRLF. */
static void dsn_put_text(struct dsn_writer *writer, const char *text)
{
    for (; *text != '\0'; text++) {
        if (*text == '\n')
            dsn_put_octet(writer, '\r');
        dsn_put_octet(writer, (uint8_t)*text);
    }
}

__attribute__((format(printf, 2, 3))) static void dsn_printf(struct dsn_writer *writer,
                                                             const char *format, ...)
{
    char text[1024];
    va_list arguments;

    va_start(arguments, format);
    int size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    CHECK(size >= 0 && (uint32_t)size < sizeof(text)); /* bounded texts only */
    dsn_put_text(writer, text);
}

/* An octet of something a peer said, as it may stand in a line. */
static uint8_t octet_clean(uint8_t octet)
{
    return octet < ' ' || octet == 0x7f ? '?' : octet;
}

/* Where to break `text`: behind the last space within FOLD_SIZE octets, else at FOLD_MAX. */
static uint32_t fold_find(struct span text)
{
    if (text.size <= FOLD_SIZE)
        return text.size;
    for (uint32_t i = FOLD_SIZE; i > 0; i--) {
        if (text.data[i] == ' ')
            return i;
    }
    for (uint32_t i = FOLD_SIZE; i < text.size && i < FOLD_MAX; i++) {
        if (text.data[i] == ' ')
            return i;
    }
    return text.size < FOLD_MAX ? text.size : FOLD_MAX;
}

/* `text` over as many lines as it needs, each but the first begun by `indent`, ended by CRLF. */
static void dsn_put_folded(struct dsn_writer *writer, struct span text, const char *indent)
{
    while (text.size > 0) { /* at least one octet a round */
        uint32_t size = fold_find(text);
        for (uint32_t i = 0; i < size; i++)
            dsn_put_octet(writer, octet_clean(text.data[i]));
        text = span_skip(text, size);
        while (text.size > 0 && text.data[0] == ' ')
            text = span_skip(text, 1);
        if (text.size > 0)
            dsn_printf(writer, "\n%s", indent);
    }
    dsn_put_text(writer, "\n");
}

static void dsn_put_address(struct dsn_writer *writer, struct span address)
{
    for (uint32_t i = 0; i < address.size; i++)
        dsn_put_octet(writer, octet_clean(address.data[i]));
}

/* RFC 5322 section 3.3, in UTC; no locale. */
static void date_format(wall_us when, char ret_text[DATE_SIZE])
{
    static const char days[7][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[12][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                       "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    time_t seconds = (time_t)(when / 1000000);
    struct tm tm;

    CHECK(gmtime_r(&seconds, &tm) != NULL);
    snprintf(ret_text, DATE_SIZE, "%s, %d %s %d %02d:%02d:%02d +0000", days[tm.tm_wday], tm.tm_mday,
             months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
}

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

static void dsn_write_header(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DATE_SIZE], id[MESSAGE_ID_TEXT_SIZE];

    date_format(context->now, date);
    dsn_printf(writer, "Date: %s\n", date);
    dsn_printf(writer, "From: Mail Delivery System <MAILER-DAEMON@%s>\nTo: <", context->hostname);
    dsn_put_address(writer, context->dsn->envelope->sender);
    dsn_put_text(writer, ">\nSubject: Undelivered mail returned to sender\n");
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
    if (context->is_global || context->is_header_global)
        dsn_put_text(writer, "Content-Transfer-Encoding: 8bit\n");
    dsn_put_text(writer, "\n");
}

static void dsn_write_text(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DATE_SIZE];

    date_format(context->dsn->envelope->arrived, date);
    dsn_printf(writer,
               "This is a delivery status notification in MIME format.\n\n--%s\n"
               "Content-Type: text/plain; charset=%s\n%s\n"
               "This is the mail system at %s.\n\n"
               "Your message of %s could not be delivered\n"
               "to the recipients below, and no further attempt will be made.\n",
               context->boundary, context->is_global ? "utf-8" : "us-ascii",
               context->is_global ? "Content-Transfer-Encoding: 8bit\n" : "", context->hostname,
               date);
    if (context->postmaster != NULL)
        dsn_printf(writer, "For help, write to <%s>.\n", context->postmaster);
    for (uint32_t i = 0; i < context->dsn->failure_count; i++) {
        const struct qmgr_failure *failure = &context->dsn->failures[i];

        dsn_put_text(writer, "\n<");
        dsn_put_address(writer, failure_address(context, i));
        dsn_put_text(writer, failure->is_expired
                                 ? ">:\n    it could not be delivered in time; the last trouble:\n"
                                 : ">:\n");
        dsn_put_text(writer, "    ");
        if (failure->reply.size > 0)
            dsn_put_folded(writer, failure->reply, "    ");
        else
            dsn_put_text(writer, "no reason was recorded\n");
    }
    dsn_put_text(writer, "\n");
}

/* Did a server say this? Then it begins with the code, see smtp_reply.h. */
static bool failure_is_smtp(const struct qmgr_failure *failure)
{
    char code[8];

    snprintf(code, sizeof(code), "%u", failure->code);
    return failure->code != 0 && failure->reply.size >= 3 &&
           memcmp(failure->reply.data, code, 3) == 0;
}

/* The full code of the reply where it has one of its class (its numbers may not fit an octet), else
 * what the queue knows, else what the reply code says. */
static void dsn_put_status(struct dsn_writer *writer, const struct qmgr_failure *failure)
{
    uint16_t parts[3];

    if (failure->is_expired) {
        dsn_put_text(writer, "4.4.7");
    } else if (failure_is_smtp(failure) && failure->reply.size > 4 &&
               smtp_enhanced_parse(span_skip(failure->reply, 4), parts) > 0 && parts[0] == 5) {
        dsn_printf(writer, "%u.%u.%u", parts[0], parts[1], parts[2]);
    } else if (failure->enhanced[0] != 0) {
        dsn_printf(writer, "%u.%u.%u", failure->enhanced[0], failure->enhanced[1],
                   failure->enhanced[2]);
    } else {
        dsn_put_text(writer, "5.0.0");
    }
    dsn_put_text(writer, "\n");
}

static void dsn_write_status(const struct dsn_context *context, struct dsn_writer *writer)
{
    char date[DATE_SIZE];

    date_format(context->dsn->envelope->arrived, date);
    dsn_printf(writer,
               "--%s\nContent-Type: message/%s\n%s\n"
               "Reporting-MTA: dns; %s\nArrival-Date: %s\n",
               context->boundary, context->is_global ? "global-delivery-status" : "delivery-status",
               context->is_global ? "Content-Transfer-Encoding: 8bit\n" : "", context->hostname,
               date);
    for (uint32_t i = 0; i < context->dsn->failure_count; i++) {
        const struct qmgr_failure *failure = &context->dsn->failures[i];

        dsn_printf(writer, "\nFinal-Recipient: %s; ", context->is_global ? "utf-8" : "rfc822");
        dsn_put_address(writer, failure_address(context, i));
        dsn_put_text(writer, "\nAction: failed\nStatus: ");
        dsn_put_status(writer, failure);
        if (failure->reply.size > 0) {
            dsn_printf(writer, "Diagnostic-Code: %s; ",
                       failure_is_smtp(failure) ? "smtp" : "x-angarium");
            dsn_put_folded(writer, failure->reply, "    ");
        }
    }
    dsn_put_text(writer, "\n");
}

/* One line of the original's header without its end, in pieces if it is too long. */
static void dsn_put_header_line(struct dsn_writer *writer, struct span line)
{
    uint32_t in_line = 0;

    for (uint32_t i = 0; i < line.size; i++) {
        uint8_t octet = line.data[i];
        if (octet == '\r' || octet == 0)
            octet = '?';
        if (in_line == DSN_LINE_MAX) {
            dsn_put_text(writer, "\n ");
            in_line = 1;
        }
        dsn_put_octet(writer, octet);
        in_line++;
    }
    dsn_put_text(writer, "\n");
}

static void dsn_write_original(const struct dsn_context *context, struct span header,
                               struct dsn_writer *writer)
{
    dsn_printf(writer, "--%s\nContent-Type: %s\n%s\n", context->boundary,
               context->is_header_global ? "message/global-headers" : "text/rfc822-headers",
               context->is_header_global ? "Content-Transfer-Encoding: 8bit\n" : "");
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

enum err dsn_build(const struct qmgr_dsn *dsn, const char *hostname, const char *postmaster,
                   struct span header, uint32_t header_size_max, struct tick_now now,
                   wall_us lifetime, struct buf_pool *pool, struct arena *arena,
                   struct buf_queue *body, struct envelope *ret_envelope)
{
    char id[MESSAGE_ID_TEXT_SIZE];
    struct dsn_context context = {
        .dsn = dsn,
        .hostname = hostname,
        .postmaster = postmaster,
        .id = dsn_id(dsn->envelope->id, dsn->run),
        .now = now.wall,
    };
    struct dsn_writer writer = {.body = body, .pool = pool, .is_line_start = true};
    struct envelope envelope;

    CHECK(dsn->failure_count > 0 && dsn->envelope->sender.size > 0);
    CHECK(strlen(hostname) <= 255 && (postmaster == NULL || strlen(postmaster) <= 320));
    if (header.size > header_size_max)
        header.size = header_size_max;
    context.is_global = has_global_address(&context);
    context.is_header_global = !is_ascii(header);
    snprintf(context.boundary, sizeof(context.boundary), "=_%s", message_id_format(context.id, id));
    TRY(dsn_envelope(&context, lifetime, arena, &envelope));

    dsn_write_header(&context, &writer);
    envelope.header_size = (uint32_t)writer.size;
    dsn_write_text(&context, &writer);
    dsn_write_status(&context, &writer);
    dsn_write_original(&context, header, &writer);
    dsn_flush(&writer);
    if (writer.err != ERR_OK)
        return writer.err;
    envelope.flags |= writer.flags;
    envelope.body_size = writer.size;
    *ret_envelope = envelope;
    return ERR_OK;
}
