/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One message: its commands, header and body. Commands and header are put together in a buffer on
 * the stack and appended by copy; the body goes by reference. Nothing is allocated per message but
 * what the plane itself needs.
 */
#include "bench/load/source_internal.h"

#include <stdlib.h>
#include <time.h>

#define PIECE_SIZE      3500u /* of a flight of commands */
#define COMMAND_MAX     640u
#define TEXT_MEMORY_MAX (512u << 20)

/* ---- the text ---- */

static bool text_copy(struct source *source, const uint8_t *text, uint32_t size,
                      struct buf_queue *into)
{
    buf_queue_init(into);
    if (buf_queue_append_copy(into, source->plane->pool, span_of(text, size)) == ERR_OK)
        return true;
    (void)fprintf(stderr, "angarium-load source: no memory for the text of the messages\n");
    return false;
}

static uint32_t row_size(const struct source *source, uint32_t row)
{
    uint32_t size = source->options->size;

    if (source->sizes.count > 0)
        CHECK(dist_size_parse(
                  span_of(source->sizes.rows[row].name, source->sizes.rows[row].name_size),
                  &size) == ERR_OK);
    return size;
}

bool source_texts_make(struct source *source)
{
    uint32_t rows = source->sizes.count > 0 ? source->sizes.count : 1, size_max = 0;
    uint32_t copies = 1 + source->options->sessions / SOURCE_COPY_SESSIONS;
    bool is_ok = true;

    source->plans = calloc(rows, sizeof(*source->plans));
    source->texts = calloc(copies, sizeof(*source->texts));
    CHECK(source->plans != NULL && source->texts != NULL);
    for (uint32_t i = 0; i < rows; i++)
        size_max = row_size(source, i) > size_max ? row_size(source, i) : size_max;
    if ((uint64_t)size_max * copies > TEXT_MEMORY_MAX) {
        (void)fprintf(stderr,
                      "angarium-load source: messages of %u octets from %u sessions want "
                      "more than 512 MB of text\n",
                      size_max, source->options->sessions);
        return false;
    }
    uint8_t *text = text_new(size_max);
    for (uint32_t i = 0; i < rows; i++)
        text_plan_make(text, row_size(source, i), &source->plans[i].plan);
    for (uint32_t i = 0; i < copies && is_ok; i++) {
        is_ok = text_copy(source, text, size_max, &source->texts[i]);
        source->text_count += is_ok;
    }
    free(text);
    return is_ok;
}

/* ---- commands ---- */

void source_session_write(struct source *source, struct source_session *session, struct span octets)
{
    if (stream_write(&session->stream, octets) != ERR_OK)
        source_fail(source, "no buffers are left", SPAN_LITERAL(""));
}

static struct span sender_domain(struct source *source)
{
    if (source->sender_domains.count == 0)
        return (struct span){NULL, 0};
    const struct dist_row *row =
        &source->sender_domains.rows[dist_pick(&source->sender_domains, &source->rng)];
    return span_of(row->name, row->name_size);
}

static char *put_mail(struct source *source, char *at)
{
    struct span sender = span_from_text(source->options->sender), domain = sender_domain(source);
    const uint8_t *sign = sender.size == 0 ? NULL : memrchr(sender.data, '@', sender.size);

    at = text_put(at, SPAN_LITERAL("MAIL FROM:<"));
    if (domain.data != NULL) {
        at =
            text_put(at, sign == NULL ? sender : span_head(sender, (uint32_t)(sign - sender.data)));
        *at++ = '@';
        at = text_put(at, domain);
    } else {
        at = text_put(at, sender);
    }
    return text_put(at, SPAN_LITERAL(">\r\n"));
}

static char *put_rcpt(struct source *source, char *at, uint32_t index)
{
    struct dist *domains = &source->domains;

    at = text_put(at, SPAN_LITERAL("RCPT TO:<u"));
    at = text_put_number(at, index);
    *at++ = '@';
    const struct dist_row *row = &domains->rows[dist_pick(domains, &source->rng)];
    at = text_put(at, span_of(row->name, row->name_size));
    return text_put(at, SPAN_LITERAL(">\r\n"));
}

static bool has_bdat(const struct source *source)
{
    return source->options->has_chunking;
}

static bool is_pipelining(const struct source *source, const struct source_session *session)
{
    return session->offers & OFFER_PIPELINING && !source->options->has_no_pipelining;
}

void source_message_commands(struct source *source, struct source_session *session)
{
    char piece[PIECE_SIZE + COMMAND_MAX] UNINITIALIZED;
    uint32_t count = source->options->recipients + (has_bdat(source) ? 1 : 2);
    bool is_flight = is_pipelining(source, session);
    char *at = piece;

    session->since = source->now.tick;
    do {
        uint32_t index = session->commands_sent++;
        if (index == 0)
            at = put_mail(source, at);
        else if (index <= source->options->recipients)
            at = put_rcpt(source, at, index - 1);
        else
            at = text_put(at, SPAN_LITERAL("DATA\r\n"));
        session->commands_left++;
        if (at - piece > PIECE_SIZE) {
            source_session_write(source, session, span_of(piece, (uint32_t)(at - piece)));
            at = piece;
        }
    } while (is_flight && session->commands_sent < count);
    source_session_write(source, session, span_of(piece, (uint32_t)(at - piece)));
    /* RFC 3030 section 4.2: BDAT may be in the same flight as the commands before it. */
    if (is_flight && has_bdat(source))
        source_message_body(source, session, false);
}

void source_message_begin(struct source *source, struct source_session *session)
{
    struct pace pace = {.rate = source->options->rate, .ramp = TICK_S(source->options->ramp_s)};

    session->sequence = source->sequence++;
    session->intended = source->now.tick;
    if (pace.rate > 0) {
        session->intended = source->started + pace_due(&pace, session->sequence);
        meter_latency(source->meter, METER_WAIT, source->now.tick - session->intended);
        pace_spacing_note(&source->spacing, &pace, source->now.tick);
    }
    session->stamp = source->now.wall - (wall_us)(source->now.tick - session->intended);
    session->size_row = source->sizes.count > 0 ? dist_pick(&source->sizes, &source->rng) : 0;
    session->failed_code = 0;
    session->accepted = session->commands_sent = session->commands_left = 0;
    session->has_body = false;
    session->state = SESSION_ENVELOPE;
    source_message_commands(source, session);
}

/* ---- header and body ---- */

/* From, To, Date and Subject are the same for a second. */
static void head_refresh(struct source *source)
{
    time_t seconds = (time_t)(source->now.wall / 1000000);
    struct tm broken;
    char date[64];

    if (source->now.wall < source->head_until)
        return;
    CHECK(gmtime_r(&seconds, &broken) != NULL);
    CHECK(strftime(date, sizeof(date), "%a, %d %b %Y %H:%M:%S +0000", &broken) > 0);
    int size = snprintf(source->head, sizeof(source->head),
                        "From: <%.300s>\r\nTo: undisclosed:;\r\nSubject: load\r\nDate: %s\r\n"
                        "Message-ID: <",
                        source->options->sender, date);
    CHECK(size > 0 && (size_t)size < sizeof(source->head));
    source->head_size = (uint32_t)size;
    source->head_until = ((wall_us)seconds + 1) * 1000000;
}

static uint32_t header_make(struct source *source, const struct text_plan *plan,
                            const struct text_identity *identity, struct span tail, char *header)
{
    char *at = header;

    head_refresh(source);
    at = text_put(at, span_of(source->head, source->head_size));
    at = text_put_id(at, identity->run, identity->number);
    at = text_put(at, SPAN_LITERAL("@load.example>\r\n"));
    at += text_field(plan, identity, tail, at);
    at = text_put(at, SPAN_LITERAL("\r\n"));
    return (uint32_t)(at - header);
}

static void append_prefix(struct source *source, struct source_session *session, uint32_t size)
{
    uint32_t copy = (uint32_t)(session - source->sessions) / SOURCE_COPY_SESSIONS;
    const struct buf_queue *text = &source->texts[copy];
    struct buf_queue octets;

    buf_queue_init(&octets);
    for (uint32_t i = 0; size > 0; i++) {
        const struct buf_slice *slice = buf_queue_get(text, i);
        uint32_t part = slice->size < size ? slice->size : size;
        buf_queue_append(&octets, slice->buf, slice->offset, part);
        size -= part;
    }
    stream_append(&session->stream, &octets);
    buf_queue_fini(&octets);
}

static void write_bdat(struct source *source, struct source_session *session, uint32_t size)
{
    char command[64];
    char *at = text_put(command, SPAN_LITERAL("BDAT "));

    at = text_put_number(at, size);
    at = text_put(at, SPAN_LITERAL(" LAST\r\n"));
    source_session_write(source, session, span_of(command, (uint32_t)(at - command)));
}

void source_message_body(struct source *source, struct source_session *session, bool is_empty)
{
    const struct text_plan *plan = &source->plans[session->size_row].plan;
    const struct text_identity identity = {.run = source->options->run,
                                           .number = session->sequence,
                                           .size = plan->size,
                                           .recipients = source->options->recipients,
                                           .stamp = session->stamp};
    char header[sizeof(source->head) + TEXT_ID_SIZE + TEXT_FIELD_MAX + 32] UNINITIALIZED;
    char tail[TEXT_TAIL_MAX + 4] UNINITIALIZED;

    session->has_body = true;
    session->since = source->now.tick;
    if (is_empty) { /* RFC 2920 section 3.1: 354 though no recipient was taken */
        source_session_write(source, session, SPAN_LITERAL(".\r\n"));
        return;
    }
    uint32_t tail_size = text_tail(plan, &identity, tail);
    uint32_t header_size = header_make(source, plan, &identity, span_of(tail, tail_size), header);
    if (has_bdat(source))
        write_bdat(source, session, header_size + plan->size);
    source_session_write(source, session, span_of(header, header_size));
    append_prefix(source, session, plan->prefix);
    if (!has_bdat(source))
        tail_size = (uint32_t)(text_put(tail + tail_size, SPAN_LITERAL(".\r\n")) - tail);
    source_session_write(source, session, span_of(tail, tail_size));
    meter_count(source->meter, METER_OCTETS, header_size + plan->size);
    if (source->ledger != NULL)
        ledger_source(
            source->ledger, 'S', identity.run, identity.number,
            is_pipelining(source, session) && has_bdat(source) ? -1 : (int)session->accepted, -1);
}
