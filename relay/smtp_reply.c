/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reply parser: what a server says, with a bound on everything it may say.
 *
 * A line is collected in `line` (its first SMTP_REPLY_LINE_KEPT octets; the rest is counted, not
 * kept) and judged when its LF is in.
 *
 * Invariants
 *   1. One feed consumes at most one line: octets behind it are the caller's to judge.
 *   2. All lines of a reply carry one code; only the last has a space (or nothing) behind it.
 *   3. `reply.text` holds printable ASCII only: no server can put a line end, a NUL or an escape
 *      sequence into a queue file, a log or a bounce (CVE-2020-8794 was such a line end).
 *   4. After any error other than ERR_AGAIN the parser is of no more use.
 *
 * Limits: SMTP_REPLY_*_MAX, all ERR_LIMIT. Tolerated: lone LF as line end, codes whose second digit
 * is above 5 (571 is in use), text longer than RFC 5321 allows.
 *
 * Not here: what a reply means (judge.c), which command it answers (smtpc.c).
 */
#include "relay/smtp_reply.h"

static bool octet_is_digit(uint8_t octet)
{
    return octet >= '0' && octet <= '9';
}

void smtp_reply_parser_init(struct smtp_reply_parser *parser)
{
    parser->reply.code = 0;
    memset(parser->reply.enhanced, 0, sizeof(parser->reply.enhanced));
    parser->reply.text_size = 0;
    parser->line_count = 0;
    parser->size = 0;
    parser->line_size = 0;
    parser->is_line_done = false;
    parser->is_last = false;
}

/* One number of an enhanced code: 1 to 3 digits, no leading zero unless it is zero itself. */
static uint32_t enhanced_number_parse(struct span text, uint16_t *ret_number)
{
    uint32_t size = 0, number = 0;

    while (size < text.size && size < 3 && octet_is_digit(text.data[size])) {
        number = number * 10 + (uint32_t)(text.data[size] - '0');
        size++;
    }
    if (size == 0 || (size > 1 && text.data[0] == '0'))
        return 0;
    *ret_number = (uint16_t)number;
    return size;
}

uint32_t smtp_enhanced_parse(struct span text, uint16_t ret_parts[3])
{
    uint16_t subject, detail;

    if (text.size < 5 || text.data[1] != '.' ||
        (text.data[0] != '2' && text.data[0] != '4' && text.data[0] != '5'))
        return 0;
    /* As nearly all of them are: one digit each. */
    if (text.size > 5 && octet_is_digit(text.data[2]) && text.data[3] == '.' &&
        octet_is_digit(text.data[4]) && text.data[5] == ' ') {
        ret_parts[0] = (uint16_t)(text.data[0] - '0');
        ret_parts[1] = (uint16_t)(text.data[2] - '0');
        ret_parts[2] = (uint16_t)(text.data[4] - '0');
        return 5;
    }
    uint32_t size = 2;
    uint32_t used = enhanced_number_parse(span_skip(text, size), &subject);
    size += used;
    if (used == 0 || size >= text.size || text.data[size] != '.')
        return 0;
    size++;
    used = enhanced_number_parse(span_skip(text, size), &detail);
    size += used;
    if (used == 0 || (size < text.size && text.data[size] != ' '))
        return 0;
    ret_parts[0] = (uint16_t)(text.data[0] - '0');
    ret_parts[1] = subject;
    ret_parts[2] = detail;
    return size;
}

/* All of it printable ASCII, and long enough for looking at that at once: then it may be copied as
 * it is. */
static bool is_printable(struct span octets)
{
    uint64_t ones = 0x0101010101010101ull, bad = 0, word;
    uint32_t last = octets.size - (uint32_t)sizeof(word);

    if (octets.size < sizeof(word))
        return false;
    for (uint32_t i = 0;; i = i + sizeof(word) < last ? i + (uint32_t)sizeof(word) : last) {
        memcpy(&word, octets.data + i, sizeof(word));
        /* below ' ', or above '~' */
        bad |= ((word - ones * ' ') & ~word) | (word + ones * (0x7f - '~')) | word;
        if (i == last)
            return (bad & ones << 7) == 0;
    }
}

static void text_append(struct smtp_reply *reply, struct span octets)
{
    if (octets.size <= SMTP_REPLY_TEXT_MAX - reply->text_size && is_printable(octets)) {
        memcpy(reply->text + reply->text_size, octets.data, octets.size);
        reply->text_size = (uint16_t)(reply->text_size + octets.size);
        return;
    }
    for (uint32_t i = 0; i < octets.size && reply->text_size < SMTP_REPLY_TEXT_MAX; i++) {
        uint8_t octet = octets.data[i];
        if (octet == '\t')
            octet = ' ';
        reply->text[reply->text_size++] = octet >= ' ' && octet <= '~' ? (char)octet : '?';
    }
}

static void first_line_enter(struct smtp_reply *reply, struct span line, struct span text)
{
    uint16_t parts[3];

    /* Code, space, and text: the line as it came, but for its separator. */
    text_append(reply, span_head(line, text.size > 0 ? line.size : 3));
    if (text.size > 0)
        reply->text[3] = ' ';
    if (smtp_enhanced_parse(text, parts) == 0 || parts[0] != reply->code / 100)
        return;
    for (uint32_t i = 0; i < 3; i++)
        reply->enhanced[i] = (uint8_t)(parts[i] > 255 ? 255 : parts[i]);
}

/* Servers that use enhanced codes repeat them on every line: once is enough for people. */
static struct span repeated_code_strip(const struct smtp_reply *reply, struct span text)
{
    uint16_t parts[3];
    uint32_t size = smtp_enhanced_parse(text, parts);

    if (size == 0 || reply->enhanced[0] == 0 || parts[0] != reply->enhanced[0])
        return text;
    return span_skip(text, size < text.size ? size + 1 : size);
}

static void next_line_enter(struct smtp_reply *reply, struct span text)
{
    text = repeated_code_strip(reply, text);
    if (text.size == 0)
        return;
    text_append(reply, SPAN_LITERAL(" "));
    text_append(reply, text);
}

static enum err line_finish(struct smtp_reply_parser *parser)
{
    struct smtp_reply *reply = &parser->reply;
    struct span line = span_of(parser->line, parser->line_size);

    if (line.size < 3 || line.data[0] < '2' || line.data[0] > '5' ||
        !octet_is_digit(line.data[1]) || !octet_is_digit(line.data[2]))
        return ERR_PEER_SYNTAX;
    /* A bare code is legal and means "last line, no text": some servers send "354" alone. */
    uint8_t separator = line.size == 3 ? ' ' : line.data[3];
    if (separator != ' ' && separator != '-')
        return ERR_PEER_SYNTAX;
    uint16_t code =
        (uint16_t)((line.data[0] - '0') * 100 + (line.data[1] - '0') * 10 + (line.data[2] - '0'));
    if (parser->line_count > 0 && code != reply->code)
        return ERR_PEER_SYNTAX;

    struct span text = span_skip(line, line.size == 3 ? 3 : 4);
    reply->code = code;
    if (parser->line_count == 0)
        first_line_enter(reply, line, text);
    else
        next_line_enter(reply, text);
    parser->line_count++;
    parser->is_last = separator == ' ';
    parser->is_line_done = true;
    return ERR_OK;
}

enum err smtp_reply_feed(struct smtp_reply_parser *parser, struct span input,
                         uint32_t *ret_consumed)
{
    CHECK(parser != NULL && ret_consumed != NULL);

    if (parser->is_last)
        smtp_reply_parser_init(parser);
    if (parser->is_line_done) {
        parser->is_line_done = false;
        parser->line_size = 0;
    }
    if (input.size == 0) {
        *ret_consumed = 0;
        return ERR_AGAIN;
    }
    const uint8_t *end = memchr(input.data, '\n', input.size);
    uint32_t size = end == NULL ? input.size : (uint32_t)(end - input.data) + 1;
    if (size > SMTP_REPLY_LINE_MAX - parser->line_size ||
        size > SMTP_REPLY_SIZE_MAX - parser->size || parser->line_count == SMTP_REPLY_LINES_MAX)
        return ERR_LIMIT;

    if (parser->line_size < SMTP_REPLY_LINE_KEPT) {
        uint32_t room = SMTP_REPLY_LINE_KEPT - parser->line_size;
        memcpy(parser->line + parser->line_size, input.data, size < room ? size : room);
    }
    parser->line_size += size;
    parser->size += size;
    if (end == NULL) {
        *ret_consumed = size;
        return ERR_AGAIN;
    }

    parser->line_size--; /* the LF */
    if (parser->line_size > SMTP_REPLY_LINE_KEPT)
        parser->line_size = SMTP_REPLY_LINE_KEPT;
    else if (parser->line_size > 0 && parser->line[parser->line_size - 1] == '\r')
        parser->line_size--;
    TRY(line_finish(parser));
    *ret_consumed = size;
    return ERR_OK;
}

struct span smtp_reply_line_text(const struct smtp_reply_parser *parser)
{
    CHECK(parser->is_line_done);
    CHECK(parser->line_size >= 3);

    return span_skip(span_of(parser->line, parser->line_size), parser->line_size == 3 ? 3 : 4);
}
