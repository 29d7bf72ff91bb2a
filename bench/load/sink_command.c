/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dialogue of the sink: just enough of RFC 5321, 3030 and 3207 to take mail from anybody.
 *
 *   COMMANDS -DATA-> TEXT -dot-> COMMANDS     COMMANDS -BDAT-> CHUNK -all octets-> COMMANDS
 *   COMMANDS -STARTTLS, reply out-> HANDSHAKE -> COMMANDS
 *
 * Replies are in order: while one is held back (mood, tarpit), nothing is read.
 */
#include "bench/load/sink_internal.h"

#define PEEK_MAX 16u

void sink_session_greet(struct sink *sink, struct sink_session *session)
{
    struct mood_verdict verdict = mood_draw(&sink->options->mood, MOOD_CONNECT, &sink->rng);

    (void)sink_answer(sink, session, MOOD_CONNECT, &verdict, "220 sink.example ESMTP\r\n");
}

static bool answer(struct sink *sink, struct sink_session *session, enum mood_step step,
                   const char *reply)
{
    struct mood_verdict verdict = {0};

    if (reply[0] == '2' || reply[0] == '3')
        verdict = mood_draw(&sink->options->mood, step, &sink->rng);
    return sink_answer(sink, session, step, &verdict, reply);
}

static bool line_is(struct span line, const char *verb)
{
    struct span name = span_from_text(verb);

    return span_has_prefix_nocase(line, name) &&
           (line.size == name.size || line.data[name.size] <= ' ');
}

/* ---- commands ---- */

static bool on_hello(struct sink *sink, struct sink_session *session, struct span line)
{
    const char *reply = session->stream.tls != NULL ? sink->hello_tls : sink->hello;

    sink_transaction_reset(session);
    return answer(sink, session, MOOD_HELLO,
                  line_is(line, "EHLO") ? reply : "250 sink.example\r\n");
}

static bool on_mail(struct sink *sink, struct sink_session *session, struct span line)
{
    struct mood_verdict verdict = mood_draw(&sink->options->mood, MOOD_MAIL, &sink->rng);

    (void)line;
    if (sink->first_mail == 0)
        sink->first_mail = sink->now.tick;
    sink_transaction_reset(session);
    session->has_sender = !verdict.is_drop && verdict.reply == NULL;
    return sink_answer(sink, session, MOOD_MAIL, &verdict, "250 2.1.0 ok\r\n");
}

static bool sink_is_moody(const struct sink *sink)
{
    return sink->now.tick < sink->started + TICK_S(sink->options->moody_s);
}

static bool on_rcpt(struct sink *sink, struct sink_session *session, struct span line)
{
    const uint8_t *open = memchr(line.data, '<', line.size);
    const uint8_t *close = memrchr(line.data, '>', line.size);

    if (!session->has_sender || open == NULL || close == NULL || close < open)
        return answer(sink, session, MOOD_RCPT, "501 5.5.4 no recipient\r\n");
    if (sink_is_moody(sink)) {
        meter_count(sink->meter, METER_TEMPFAILS, 1);
        return answer(sink, session, MOOD_RCPT, "450 4.2.0 come back later\r\n");
    }
    if (session->recipient_count == SINK_RECIPIENT_MAX)
        return answer(sink, session, MOOD_RCPT, "452 4.5.3 too many recipients\r\n");
    struct mood_verdict verdict = mood_draw(&sink->options->mood, MOOD_RCPT, &sink->rng);
    if (!verdict.is_drop && verdict.reply == NULL)
        sink_recipient_add(sink, session, span_of(open + 1, (uint32_t)(close - open - 1)));
    return sink_answer(sink, session, MOOD_RCPT, &verdict, "250 2.1.5 ok\r\n");
}

static bool on_data(struct sink *sink, struct sink_session *session, struct span line)
{
    struct mood_verdict verdict = mood_draw(&sink->options->mood, MOOD_DATA, &sink->rng);

    (void)line;
    if (session->recipient_count == 0)
        return answer(sink, session, MOOD_DATA, "554 5.5.1 no valid recipients\r\n");
    if (!verdict.is_drop && verdict.reply == NULL) {
        session->state = SINK_TEXT;
        sink_message_begin(sink, session);
    }
    return sink_answer(sink, session, MOOD_DATA, &verdict, "354 go on\r\n");
}

/* Whose octets cannot be told from commands is not listened to any more. */
static bool refuse_chunk(struct sink *sink, struct sink_session *session, const char *reply)
{
    session->after = SINK_AFTER_CLOSE;
    return answer(sink, session, MOOD_DATA, reply);
}

/* RFC 3030 section 2: the octets follow, whatever the reply will be. */
static bool on_bdat(struct sink *sink, struct sink_session *session, struct span line)
{
    struct span rest = span_skip(line, 4);
    uint32_t digits = 1;
    uint64_t size;

    while (digits < rest.size && rest.data[digits] > ' ')
        digits++;
    if (!sink->options->has_chunking || rest.size < 2 ||
        span_parse_u64(span_of(rest.data + 1, digits - 1), &size) != ERR_OK)
        return refuse_chunk(sink, session, "501 5.5.4 no chunk\r\n");
    if (size > SINK_MESSAGE_MAX || session->size + size > SINK_MESSAGE_MAX)
        return refuse_chunk(sink, session, "552 5.3.4 larger than EHLO said\r\n");
    struct span last = span_skip(rest, digits);
    session->is_last_chunk = last.size > 0 && line_is(span_skip(last, 1), "LAST");
    session->is_refusing = session->recipient_count == 0;
    if (session->size == 0 || session->is_refusing)
        sink_message_begin(sink, session);
    session->chunk_left = size;
    session->state = SINK_CHUNK;
    return true;
}

static bool on_starttls(struct sink *sink, struct sink_session *session, struct span line)
{
    (void)line;
    if (sink->options->tls != LOAD_TLS_START || session->stream.tls != NULL)
        return answer(sink, session, MOOD_OTHER, "502 5.5.1 not here\r\n");
    session->after = SINK_AFTER_TLS;
    struct mood_verdict none = {0};
    return sink_answer(sink, session, MOOD_OTHER, &none, "220 2.0.0 go on\r\n");
}

static bool on_other(struct sink *sink, struct sink_session *session, struct span line)
{
    if (line_is(line, "RSET"))
        sink_transaction_reset(session);
    return answer(sink, session, MOOD_OTHER, "250 2.0.0 ok\r\n");
}

static bool on_quit(struct sink *sink, struct sink_session *session, struct span line)
{
    (void)line;
    session->after = SINK_AFTER_CLOSE;
    return answer(sink, session, MOOD_OTHER, "221 2.0.0 bye\r\n");
}

static const struct {
    const char *verb;
    bool (*on_command)(struct sink *sink, struct sink_session *session, struct span line);
} commands[] = {
    {"RCPT", on_rcpt},         {"MAIL", on_mail},  {"DATA", on_data},  {"BDAT", on_bdat},
    {"EHLO", on_hello},        {"HELO", on_hello}, {"RSET", on_other}, {"NOOP", on_other},
    {"STARTTLS", on_starttls}, {"QUIT", on_quit},
};

static bool on_line(struct sink *sink, struct sink_session *session, struct span line)
{
    for (size_t i = 0; i < COUNT_OF(commands); i++) {
        if (line_is(line, commands[i].verb))
            return commands[i].on_command(sink, session, line);
    }
    return answer(sink, session, MOOD_OTHER, "500 5.5.1 unknown\r\n");
}

/* ---- octets ---- */

/* False: no whole line is there, or the session is gone. */
static bool read_command(struct sink *sink, struct sink_session *session)
{
    char copy[FLOW_PULL_MAX] UNINITIALIZED;
    struct span seen = stream_pull(&session->stream, FLOW_PULL_MAX);
    const uint8_t *end = seen.size == 0 ? NULL : memchr(seen.data, '\n', seen.size);

    if (end == NULL) {
        if (seen.size == FLOW_PULL_MAX) {
            (void)answer(sink, session, MOOD_OTHER, "500 5.5.2 line too long\r\n");
            sink_session_end(sink, session, true);
        }
        return false;
    }
    uint32_t size = (uint32_t)(end - seen.data) + 1;
    struct span line = span_of(copy, size > 1 && end[-1] == '\r' ? size - 2 : size - 1);
    memcpy(copy, seen.data, line.size);
    stream_consume(&session->stream, size);
    return on_line(sink, session, line);
}

static bool is_dropped_in_body(struct sink *sink, struct sink_session *session)
{
    if (session->size > 0 || !mood_draw(&sink->options->mood, MOOD_BODY, &sink->rng).is_drop)
        return false;
    meter_count(sink->meter, METER_LOST, 1);
    sink_session_end(sink, session, false);
    return true;
}

static bool read_text(struct sink *sink, struct sink_session *session)
{
    struct span spans[PEEK_MAX];
    uint32_t count = stream_peek(&session->stream, spans, PEEK_MAX), used = 0;

    if (count == 0 || is_dropped_in_body(sink, session))
        return false;
    for (uint32_t i = 0; i < count && session->reader.state != BODY_END; i++) {
        struct span input = spans[i], text;
        while (input.size > 0 && session->reader.state != BODY_END) {
            uint32_t part = body_reader_next(&session->reader, input, &text);
            sink_message_feed(sink, session, text);
            input = span_skip(input, part);
            used += part;
        }
    }
    stream_consume(&session->stream, used);
    return session->reader.state != BODY_END || sink_message_end(sink, session);
}

static bool end_chunk(struct sink *sink, struct sink_session *session)
{
    session->state = SINK_COMMANDS;
    if (session->is_refusing) {
        sink_transaction_reset(session);
        return answer(sink, session, MOOD_DATA, "503 5.5.1 no valid recipients\r\n");
    }
    if (session->is_last_chunk)
        return sink_message_end(sink, session);
    struct mood_verdict verdict = mood_draw(&sink->options->mood, MOOD_DATA, &sink->rng);
    if (verdict.reply != NULL) /* RFC 3030 section 2: then the transaction has failed */
        sink_transaction_reset(session);
    return sink_answer(sink, session, MOOD_DATA, &verdict, "250 2.0.0 go on\r\n");
}

static bool read_chunk(struct sink *sink, struct sink_session *session)
{
    struct span spans[PEEK_MAX];
    uint32_t count = stream_peek(&session->stream, spans, PEEK_MAX), used = 0;

    if (session->chunk_left == 0)
        return end_chunk(sink, session);
    if (count == 0 || is_dropped_in_body(sink, session))
        return false;
    for (uint32_t i = 0; i < count && session->chunk_left > 0; i++) {
        struct span text = spans[i];
        if (text.size > session->chunk_left)
            text.size = (uint32_t)session->chunk_left;
        if (!session->is_refusing)
            sink_message_feed(sink, session, text);
        session->chunk_left -= text.size;
        used += text.size;
    }
    stream_consume(&session->stream, used);
    return session->chunk_left > 0 || end_chunk(sink, session);
}

void sink_session_read(struct sink *sink, struct sink_session *session)
{
    bool goes_on = true;

    while (goes_on && !sink_session_is_late(session)) {
        if (session->state == SINK_COMMANDS)
            goes_on = read_command(sink, session);
        else if (session->state == SINK_TEXT)
            goes_on = read_text(sink, session);
        else if (session->state == SINK_CHUNK)
            goes_on = read_chunk(sink, session);
        else
            goes_on = false;
    }
}
