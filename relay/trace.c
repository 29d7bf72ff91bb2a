/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lines of conversations: whose they are, what may be shown of them, and how they get to control.
 *
 * A line is written into the batch that is being filled. At the end of a turn, or when it is full,
 * the batch goes to control if the other one is back; else it waits, and what finds no room is
 * counted for each viewer.
 *
 *   filling -> (with control) -> spare -> filling        trace_flush(), trace_return()
 *
 * Invariants
 *   1. Nothing of a login is written: behind the mechanism, and of lines that belong to it, the
 *      text is replaced before it is stored; the server's challenges are as well.
 *   2. A client's line that begins with no known command is not written, but its size: it may be a
 *      password that came at the wrong time, or a body that nobody asked for.
 *   3. Bodies never come here.
 *   4. At most one batch is with control.
 *   5. A viewer's bit means the viewer of `serials` in the same batch: bits of one that has left
 *      are cleared before another takes its place.
 *
 * Limits: TRACE_VIEWERS_MAX viewers, two batches, TRACE_TEXT_MAX octets of a line,
 * RECIPIENTS_LOOKED_AT recipients of a message, TRACE_STICKY_MAX inbound sessions shown for a
 * domain or an id at once (the oldest is forgotten: it shows again with its next message).
 */
#include "relay/trace.h"

#include <stdarg.h>
#include <stdio.h>

#define RECIPIENTS_LOOKED_AT 100u
#define LOGIN_TEXT_SIZE      64u
#define HIDDEN               "[hidden]"

_Static_assert(TRACE_VIEWERS_MAX <= 8, "trace_line.viewers");

/* ---- batches ---- */

static uint32_t line_size(uint32_t text_size)
{
    return (uint32_t)((sizeof(struct trace_line) + text_size + 7) / 8 * 8);
}

static void batch_reset(struct trace_batch *batch, const struct trace *trace)
{
    batch->used = 0;
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        batch->serials[i] = trace->filters[i].serial;
        batch->lost[i] = 0;
    }
}

static bool batch_is_empty(const struct trace_batch *batch)
{
    uint64_t lost = 0;

    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++)
        lost += batch->lost[i];
    return batch->used == 0 && lost == 0;
}

void trace_flush(struct trace *trace)
{
    if (trace->spare == NULL || batch_is_empty(trace->filling))
        return;
    struct trace_batch *full = trace->filling;
    trace->filling = trace->spare;
    trace->spare = NULL;
    batch_reset(trace->filling, trace);
    trace->send(trace->context, full);
}

void trace_return(struct trace *trace, struct trace_batch *batch)
{
    CHECK(trace->spare == NULL && batch != trace->filling);
    trace->spare = batch;
}

const struct trace_line *trace_batch_next(const struct trace_batch *batch, uint32_t *offset,
                                          struct span *ret_text)
{
    CHECK(batch->used <= TRACE_BATCH_SIZE && *offset <= batch->used);
    if (*offset == batch->used)
        return NULL;
    const struct trace_line *line = (const void *)(batch->octets + *offset);
    *ret_text = span_of(line + 1, line->size);
    *offset += line_size(line->size);
    return line;
}

static struct trace_line *batch_room(struct trace *trace, uint32_t size)
{
    struct trace_batch *batch = trace->filling;

    if (TRACE_BATCH_SIZE - batch->used < size) {
        trace_flush(trace);
        batch = trace->filling;
    }
    if (TRACE_BATCH_SIZE - batch->used < size)
        return NULL;
    batch->used += size;
    return (struct trace_line *)(void *)(batch->octets + batch->used - size);
}

static void line_write(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                       enum trace_speaker speaker, struct span text)
{
    uint32_t size = text.size < TRACE_TEXT_MAX ? text.size : TRACE_TEXT_MAX;
    struct trace_line *line = batch_room(trace, line_size(size));

    for (uint32_t i = 0; line == NULL && i < TRACE_VIEWERS_MAX; i++)
        trace->filling->lost[i] += viewers >> i & 1;
    if (line == NULL)
        return;
    *line = (struct trace_line){
        .time = trace->now->wall,
        .session = subject->session,
        .id = subject->id,
        .peer = *subject->peer,
        .side = (uint8_t)subject->side,
        .speaker = (uint8_t)speaker,
        .viewers = (uint8_t)viewers,
        .is_cut = text.size > size,
        .size = (uint16_t)size,
    };
    if (size > 0)
        memcpy(line + 1, text.data, size);
}

/* ---- viewers ---- */

/* Lines for those who have left are nobody's. */
static void filling_forget(struct trace *trace, uint32_t viewers)
{
    uint32_t offset = 0;
    struct span text;
    const struct trace_line *line;

    while ((line = trace_batch_next(trace->filling, &offset, &text)) != NULL)
        ((struct trace_line *)(uintptr_t)line)->viewers &= (uint8_t)~viewers;
}

void trace_set(struct trace *trace, const struct trace_filter filters[TRACE_VIEWERS_MAX],
               struct trace_batch *batches)
{
    uint32_t changed = 0;

    if (trace->filling == NULL) {
        trace->filling = &batches[0];
        trace->spare = &batches[1];
        batch_reset(trace->filling, trace);
    }
    CHECK(trace->filling == &batches[0] || trace->filling == &batches[1]);
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        if (trace->filters[i].serial != filters[i].serial)
            changed |= 1u << i;
    }
    filling_forget(trace, changed);
    trace->viewer_count = 0;
    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        trace->viewer_count += filters[i].serial != 0;
        if ((changed & 1u << i) == 0)
            continue;
        trace->filters[i] = filters[i];
        trace->since[i] = trace->now->tick;
        trace->filling->serials[i] = filters[i].serial;
        trace->filling->lost[i] = 0;
    }
    for (uint32_t i = 0; i < TRACE_STICKY_MAX; i++)
        trace->sticky[i].viewers &= ~changed;
}

/* ---- whose lines they are ---- */

/* The address of `name [192.0.2.1]`. */
static bool client_is_within(struct span client, const struct flow_prefix *prefix)
{
    struct flow_address address;
    uint32_t open = client.size;

    if (client.size == 0 || client.data[client.size - 1] != ']')
        return false;
    while (open > 0 && client.data[open - 1] != '[')
        open--;
    return open > 0 &&
           flow_address_parse_ip(span_of(client.data + open, client.size - 1 - open), &address) ==
               ERR_OK &&
           flow_prefix_contains(prefix, &address);
}

static bool has_recipient_at(const struct envelope *envelope, struct span domain)
{
    uint32_t count = envelope->recipient_count < RECIPIENTS_LOOKED_AT ? envelope->recipient_count
                                                                      : RECIPIENTS_LOOKED_AT;

    for (uint32_t i = 0; i < count; i++) {
        if (span_is_equal_nocase(envelope->recipients[i].domain, domain))
            return true;
    }
    return false;
}

static bool is_wanted(const struct trace_filter *filter, const struct trace_subject *subject)
{
    const struct envelope *envelope = subject->envelope;
    struct span name = span_from_text(filter->name);

    switch (filter->kind) {
    case TRACE_KIND_ADDRESS:
        return flow_prefix_contains(&filter->prefix, subject->peer) ||
               (subject->side == TRACE_OUTBOUND && envelope != NULL &&
                client_is_within(envelope->client, &filter->prefix));
    case TRACE_KIND_NAME:
        if (subject->side == TRACE_INBOUND)
            return envelope != NULL && has_recipient_at(envelope, name);
        return span_is_equal_nocase(subject->site, name) ||
               span_is_equal_nocase(subject->domain, name);
    case TRACE_KIND_MESSAGE:
        return envelope != NULL && message_id_is_equal(subject->id, filter->id);
    }
    return false;
}

static uint32_t sticky_get(const struct trace *trace, uint64_t session)
{
    for (uint32_t i = 0; i < TRACE_STICKY_MAX; i++) {
        if (trace->sticky[i].session == session)
            return trace->sticky[i].viewers;
    }
    return 0;
}

/* The session shows itself to `viewers` who did not see it so far: what they missed of it. */
static void sticky_add(struct trace *trace, const struct trace_subject *subject, uint32_t viewers)
{
    uint32_t place = trace->sticky_next;

    for (uint32_t i = 0; i < TRACE_STICKY_MAX; i++) {
        if (trace->sticky[i].session == subject->session)
            place = i;
    }
    if (place == trace->sticky_next) {
        trace->sticky_next = (place + 1) % TRACE_STICKY_MAX;
        trace->sticky[place].viewers = 0;
    }
    trace->sticky[place].session = subject->session;
    trace->sticky[place].viewers |= viewers;
    trace_note(trace, subject, viewers, "from here on; mail of <%.*s>",
               (int)subject->envelope->sender.size, (const char *)subject->envelope->sender.data);
}

uint32_t trace_match(struct trace *trace, const struct trace_subject *subject)
{
    bool is_inbound = subject->side == TRACE_INBOUND;
    uint32_t known = is_inbound ? sticky_get(trace, subject->session) : 0, viewers = known;
    uint32_t joined = 0;

    for (uint32_t i = 0; i < TRACE_VIEWERS_MAX; i++) {
        const struct trace_filter *filter = &trace->filters[i];
        if (filter->serial == 0 || (filter->is_only_new && subject->began < trace->since[i]) ||
            !is_wanted(filter, subject))
            continue;
        viewers |= 1u << i;
        if (filter->kind != TRACE_KIND_ADDRESS)
            joined |= 1u << i;
    }
    if (is_inbound && (joined & ~known) != 0)
        sticky_add(trace, subject, joined & ~known);
    return viewers;
}

/* ---- what may be shown ---- */

static bool is_command(struct span line)
{
    static const char *const commands[] = {"EHLO", "HELO", "MAIL",     "RCPT", "DATA", "BDAT",
                                           "RSET", "NOOP", "QUIT",     "VRFY", "EXPN", "HELP",
                                           "ETRN", "AUTH", "STARTTLS", "TURN"};
    uint32_t size = 0;

    while (size < line.size && line.data[size] != ' ')
        size++;
    for (uint32_t i = 0; i < COUNT_OF(commands); i++) {
        if (span_is_equal_nocase(span_head(line, size), span_from_text(commands[i])))
            return true;
    }
    return line.size == 1 && line.data[0] == '.'; /* the end of data, where nothing was sent */
}

/* Of "AUTH PLAIN AGEAYg==" the first two words, where the second is a mechanism and no slip of the
 * hand; of all else that is secret nothing. */
static struct span login_hide(struct span line, char room[LOGIN_TEXT_SIZE])
{
    static const char *const mechanisms[] = {
        "PLAIN",    "LOGIN",       "CRAM-MD5", "DIGEST-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256",
        "EXTERNAL", "OAUTHBEARER", "XOAUTH2",  "GSSAPI",     "NTLM"};
    bool is_auth = span_has_prefix_nocase(line, SPAN_LITERAL("AUTH "));
    struct span word = is_auth ? span_skip(line, 5) : (struct span){0};
    uint32_t size = 0;

    while (size < word.size && word.data[size] != ' ')
        size++;
    for (uint32_t i = 0; i < COUNT_OF(mechanisms); i++) {
        if (!span_is_equal_nocase(span_head(word, size), span_from_text(mechanisms[i])))
            continue;
        if (size == word.size)
            return line; /* the mechanism alone */
        int used = snprintf(room, LOGIN_TEXT_SIZE, "AUTH %s " HIDDEN, mechanisms[i]);
        return span_of(room, (uint32_t)used);
    }
    return is_auth ? SPAN_LITERAL("AUTH " HIDDEN) : SPAN_LITERAL(HIDDEN);
}

/* The next line of `*rest`, without its end. */
static struct span line_take(struct span *rest)
{
    const uint8_t *end = memchr(rest->data, '\n', rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span line = span_head(*rest, size);

    *rest = span_skip(*rest, end == NULL ? size : size + 1);
    if (line.size > 0 && line.data[line.size - 1] == '\r')
        line.size--;
    return line;
}

void trace_commands(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                    struct span octets, bool is_secret)
{
    char room[LOGIN_TEXT_SIZE];

    while (octets.size > 0) {
        struct span line = line_take(&octets);
        bool is_login = is_secret || span_has_prefix_nocase(line, SPAN_LITERAL("AUTH "));
        if (is_login)
            line = login_hide(line, room);
        if (is_login || is_command(line))
            line_write(trace, subject, viewers, TRACE_CLIENT, line);
        else
            trace_note(trace, subject, viewers, "%u octets that begin with no command", line.size);
    }
}

void trace_replies(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                   struct span octets)
{
    while (octets.size > 0) {
        struct span line = line_take(&octets);
        if (span_has_prefix_nocase(line, SPAN_LITERAL("334")))
            line = SPAN_LITERAL("334 " HIDDEN);
        line_write(trace, subject, viewers, TRACE_SERVER, line);
    }
}

void trace_note(struct trace *trace, const struct trace_subject *subject, uint32_t viewers,
                const char *format, ...)
{
    char text[TRACE_TEXT_MAX];
    va_list arguments;

    va_start(arguments, format);
    int size = vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    CHECK(size >= 0);
    uint32_t used = (uint32_t)size < sizeof(text) ? (uint32_t)size : (uint32_t)sizeof(text) - 1;
    line_write(trace, subject, viewers, TRACE_NOTE, span_of(text, used));
}
