/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The canonical forms of header and body (RFC 6376 section 3.4): what a signature is really over.
 *
 * simple   header: as it is. Body: empty lines at its end become one line end; an empty body is
 * one. relaxed  header: name in lower case, unfolded, white space as single spaces, none at the
 * ends. Body: white space as single spaces, none at the ends of lines, no empty lines at the end.
 *
 * What may turn out to be the end (line ends, white space, a CR) is not put out but noted, and put
 * out when something follows; so no octet is kept, and the input may be split anywhere.
 *
 * Invariants
 *   1. A body's form is empty (relaxed only) or ends in CRLF.
 *   2. Only CRLF ends a line; a CR or LF by itself is an octet like any other.
 */
#include "relay/dkim_internal.h"

/* ---- sinks ---- */

void dkim_sink_init(struct dkim_sink *sink, void (*emit)(void *context, struct span octets),
                    void *context)
{
    sink->emit = emit;
    sink->context = context;
    sink->size = 0;
}

void dkim_sink_flush(struct dkim_sink *sink)
{
    if (sink->size > 0)
        sink->emit(sink->context, span_of(sink->octets, sink->size));
    sink->size = 0;
}

void dkim_sink_put(struct dkim_sink *sink, struct span octets)
{
    if (octets.size > DKIM_SINK_SIZE - sink->size) {
        dkim_sink_flush(sink);
        if (octets.size > DKIM_SINK_SIZE / 2) { /* not worth a copy */
            sink->emit(sink->context, octets);
            return;
        }
    }
    if (octets.size > 0)
        memcpy(sink->octets + sink->size, octets.data, octets.size);
    sink->size += octets.size;
}

static bool is_space(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

/* ---- body ---- */

void dkim_body_init(struct dkim_body *body, enum dkim_canon canon,
                    void (*emit)(void *context, struct span octets), void *context)
{
    dkim_sink_init(&body->sink, emit, context);
    body->canon = canon;
    body->empty_lines = 0;
    body->is_cr = body->has_space = body->is_in_line = body->has_content = false;
}

/* Content follows: what was noted counts. */
static void body_put(struct dkim_body *body, struct span octets)
{
    for (; body->empty_lines > 0; body->empty_lines--)
        dkim_sink_put(&body->sink, SPAN_LITERAL("\r\n"));
    if (body->has_space)
        dkim_sink_put(&body->sink, SPAN_LITERAL(" "));
    dkim_sink_put(&body->sink, octets);
    body->has_space = false;
    body->is_in_line = body->has_content = true;
}

static void body_end_line(struct dkim_body *body)
{
    if (body->is_in_line)
        dkim_sink_put(&body->sink, SPAN_LITERAL("\r\n"));
    else
        body->empty_lines++;
    body->has_space = body->is_in_line = false;
}

/* Octets at the front that are content, whatever follows. */
static uint32_t text_size(const struct dkim_body *body, struct span octets)
{
    uint32_t size = 0;

    if (body->canon == DKIM_SIMPLE) {
        const uint8_t *cr = memchr(octets.data, '\r', octets.size);
        return cr == NULL ? octets.size : (uint32_t)(cr - octets.data);
    }
    while (size < octets.size && octets.data[size] != '\r' && !is_space(octets.data[size]))
        size++;
    return size;
}

void dkim_body_feed(struct dkim_body *body, struct span octets)
{
    while (octets.size > 0) { /* each round moves on by an octet at least */
        uint8_t octet = octets.data[0];
        if (body->is_cr) {
            body->is_cr = false;
            if (octet == '\n') {
                body_end_line(body);
                octets = span_skip(octets, 1);
                continue;
            }
            body_put(body, SPAN_LITERAL("\r"));
        }
        uint32_t size = text_size(body, octets);
        if (size > 0) {
            body_put(body, span_head(octets, size));
        } else {
            size = 1;
            body->is_cr = octet == '\r';
            body->has_space |= octet != '\r';
        }
        octets = span_skip(octets, size);
    }
}

void dkim_body_finish(struct dkim_body *body)
{
    if (body->is_cr)
        body_put(body, SPAN_LITERAL("\r"));
    body->is_cr = false;
    /*= rfc6376#section-3.4.3
     * If there is no body or no trailing CRLF on the message body, a CRLF is added. */
    if (body->is_in_line || (body->canon == DKIM_SIMPLE && !body->has_content))
        dkim_sink_put(&body->sink, SPAN_LITERAL("\r\n"));
    body->is_in_line = false;
    dkim_sink_flush(&body->sink);
}

/* ---- header ---- */

static struct span trim(struct span text)
{
    while (text.size > 0 && is_space(text.data[0]))
        text = span_skip(text, 1);
    while (text.size > 0 && is_space(text.data[text.size - 1]))
        text.size--;
    return text;
}

static bool is_line_end(struct span text)
{
    return text.size >= 2 && text.data[0] == '\r' && text.data[1] == '\n';
}

static void put_lower_case(struct dkim_sink *sink, struct span name)
{
    for (uint32_t i = 0; i < name.size; i++) {
        uint8_t octet = name.data[i];
        octet |= octet >= 'A' && octet <= 'Z' ? 0x20 : 0;
        dkim_sink_put(sink, span_of(&octet, 1));
    }
}

/* Unfolded, and white space made single spaces. */
static void put_relaxed_value(struct dkim_sink *sink, struct span value)
{
    bool has_space = false, has_content = false;

    while (value.size > 0) {
        uint32_t size = 0;
        while (size < value.size && !is_space(value.data[size]) &&
               !is_line_end(span_skip(value, size)))
            size++;
        if (size == 0) {
            has_space |= is_space(value.data[0]);
            value = span_skip(value, is_space(value.data[0]) ? 1 : 2);
            continue;
        }
        if (has_space && has_content)
            dkim_sink_put(sink, SPAN_LITERAL(" "));
        dkim_sink_put(sink, span_head(value, size));
        has_space = false;
        has_content = true;
        value = span_skip(value, size);
    }
}

void dkim_field_put(struct dkim_sink *sink, enum dkim_canon canon, struct span field, bool is_ended)
{
    const uint8_t *colon = memchr(field.data, ':', field.size);

    CHECK(colon != NULL); /* dkim_header_parse() lets nothing else be a field */
    if (field.size >= 2 && is_line_end(span_skip(field, field.size - 2)))
        field.size -= 2;
    if (canon == DKIM_SIMPLE) {
        dkim_sink_put(sink, field);
    } else {
        uint32_t name_size = (uint32_t)(colon - field.data);
        put_lower_case(sink, trim(span_head(field, name_size)));
        dkim_sink_put(sink, SPAN_LITERAL(":"));
        put_relaxed_value(sink, span_skip(field, name_size + 1));
    }
    if (is_ended)
        dkim_sink_put(sink, SPAN_LITERAL("\r\n"));
}
