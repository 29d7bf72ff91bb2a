/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Finding the dot that ends a message. Inside a cut the reader jumps from dot to dot by memchr()
 * and looks at what stands before it, so that text without dots costs a vector compare per 32
 * octets; only at the edges of cuts is there a state machine.
 *
 *   LINE_START, TEXT, CR  --dot after CR LF-->  DOT  --CR-->  DOT_CR  --LF-->  END
 *   DOT, DOT_CR --anything else--> TEXT, the CR given out, the dot not (it was stuffed)
 */
#include "bench/load/body_reader.h"

static bool is_line_start(const struct body_reader *reader, struct span input, uint32_t at)
{
    if (at >= 2)
        return input.data[at - 1] == '\n' && input.data[at - 2] == '\r';
    if (at == 1)
        return input.data[0] == '\n' && reader->state == BODY_CR;
    return reader->state == BODY_LINE_START;
}

/* What the cut ended in, if it was text to its end. */
static enum body_reader_state state_after(const struct body_reader *reader, struct span text)
{
    if (text.data[text.size - 1] == '\r')
        return BODY_CR;
    return is_line_start(reader, text, text.size) ? BODY_LINE_START : BODY_TEXT;
}

static uint32_t after_dot(struct body_reader *reader, struct span input, struct span *ret_text)
{
    bool is_dot = reader->state == BODY_DOT;

    *ret_text = span_head(input, 0);
    if (is_dot && input.data[0] == '\r') {
        reader->state = BODY_DOT_CR;
        return 1;
    }
    if (!is_dot && input.data[0] == '\n') {
        reader->state = BODY_END;
        return 1;
    }
    if (!is_dot) { /* the octet after it has its turn in the next call */
        *ret_text = SPAN_LITERAL("\r");
        reader->state = BODY_CR;
        return 0;
    }
    /* A stuffed dot: what follows is text, even another dot. */
    *ret_text = span_head(input, 1);
    reader->state = BODY_TEXT;
    return 1;
}

uint32_t body_reader_next(struct body_reader *reader, struct span input, struct span *ret_text)
{
    CHECK(reader->state != BODY_END);
    if (input.size == 0) {
        *ret_text = input;
        return 0;
    }
    if (reader->state == BODY_DOT || reader->state == BODY_DOT_CR)
        return after_dot(reader, input, ret_text);
    uint32_t at = 0;
    while (at < input.size) {
        const uint8_t *dot = memchr(input.data + at, '.', input.size - at);
        if (dot == NULL)
            break;
        at = (uint32_t)(dot - input.data);
        if (is_line_start(reader, input, at)) {
            *ret_text = span_head(input, at);
            reader->state = BODY_DOT;
            return at + 1;
        }
        at++;
    }
    *ret_text = input;
    reader->state = state_after(reader, input);
    return input.size;
}
