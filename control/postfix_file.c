/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Postfix's two files. A logical line begins at the left edge and goes on over lines that begin
 * with a blank; empty lines and comments count nowhere, also between those. Both are joined in
 * place: ends of lines and comments become blanks.
 *
 * Limits: POSTFIX_PARAMETERS_MAX, POSTFIX_SERVICES_MAX, POSTFIX_VALUE_SIZE, EXPAND_DEPTH_MAX names
 * within names.
 */
#include "control/postfix_file.h"

#include <stdio.h>

#define EXPAND_DEPTH_MAX 8u
#define SERVICE_FIELDS   7u /* behind the name: type, private, ... maxproc, command */

struct lines {
    uint8_t *data;
    uint32_t size, offset, line;
};

static bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t' || octet == '\r' || octet == '\n';
}

static struct span trim(struct span text)
{
    while (text.size > 0 && is_blank(text.data[0]))
        text = span_skip(text, 1);
    while (text.size > 0 && is_blank(text.data[text.size - 1]))
        text.size--;
    return text;
}

static uint32_t line_end(const struct lines *lines, uint32_t from)
{
    const uint8_t *end = memchr(lines->data + from, '\n', lines->size - from);

    return end == NULL ? lines->size : (uint32_t)(end - lines->data) + 1;
}

static bool is_nothing(const struct lines *lines, uint32_t from, uint32_t end)
{
    struct span text = trim(span_of(lines->data + from, end - from));

    return text.size == 0 || text.data[0] == '#';
}

/* The next logical line, and where it begins. */
static bool lines_next(struct lines *lines, struct span *ret_text, uint32_t *ret_line)
{
    uint32_t from = lines->offset, end;

    for (; from < lines->size; from = end) {
        end = line_end(lines, from);
        lines->line += 1;
        if (!is_nothing(lines, from, end))
            break;
    }
    if (from >= lines->size)
        return false;
    *ret_line = lines->line;
    end = line_end(lines, from);
    uint32_t begun = lines->line, seen = lines->line;
    for (uint32_t next = end, after; next < lines->size; next = after) {
        after = line_end(lines, next);
        seen += 1;
        if (is_nothing(lines, next, after))
            continue;
        if (!is_blank(lines->data[next]))
            break;
        memset(lines->data + end - 1, ' ', next - end + 1);
        end = after;
        begun = seen;
    }
    lines->line = begun;
    lines->offset = end;
    *ret_text = trim(span_of(lines->data + from, end - from));
    return true;
}

enum err postfix_main_parse(struct postfix *postfix, struct span_mut text, uint32_t *ret_line)
{
    struct lines lines = {.data = text.data, .size = text.size};
    struct span line;

    while (lines_next(&lines, &line, ret_line)) {
        const uint8_t *sign = memchr(line.data, '=', line.size);
        if (sign == NULL || sign == line.data)
            return ERR_CONFIG_SYNTAX;
        if (postfix->parameter_count == POSTFIX_PARAMETERS_MAX)
            return ERR_LIMIT;
        uint32_t size = (uint32_t)(sign - line.data);
        postfix->parameters[postfix->parameter_count++] = (struct postfix_parameter){
            .name = trim(span_head(line, size)),
            .value = trim(span_skip(line, size + 1)),
            .line = *ret_line,
        };
    }
    return ERR_OK;
}

bool postfix_word_next(struct span *rest, const char *separators, struct span *ret_word)
{
    uint32_t from = 0, size = 0;

    while (from < rest->size && (is_blank(rest->data[from]) || rest->data[from] == '\0' ||
                                 strchr(separators, rest->data[from]) != NULL))
        from++;
    *rest = span_skip(*rest, from);
    while (size < rest->size && !is_blank(rest->data[size]) && rest->data[size] != '\0' &&
           strchr(separators, rest->data[size]) == NULL)
        size++;
    *ret_word = span_head(*rest, size);
    *rest = span_skip(*rest, size);
    return size > 0;
}

enum err postfix_master_parse(struct postfix *postfix, struct span_mut text, uint32_t *ret_line)
{
    struct lines lines = {.data = text.data, .size = text.size};
    struct span line;

    while (lines_next(&lines, &line, ret_line)) {
        struct postfix_service service = {.line = *ret_line};
        struct span word;
        bool is_whole = postfix_word_next(&line, "", &service.name);
        for (uint32_t i = 0; i < SERVICE_FIELDS && is_whole; i++) {
            is_whole = postfix_word_next(&line, "", &word);
            if (i == 0)
                service.type = word;
        }
        if (!is_whole)
            return ERR_CONFIG_SYNTAX;
        if (postfix->service_count == POSTFIX_SERVICES_MAX)
            return ERR_LIMIT;
        service.command = word;
        service.options = line;
        postfix->services[postfix->service_count++] = service;
    }
    return ERR_OK;
}

struct postfix_parameter *postfix_find(struct postfix *postfix, struct span name)
{
    for (uint32_t i = postfix->parameter_count; i > 0; i--) {
        if (span_is_equal(postfix->parameters[i - 1].name, name))
            return &postfix->parameters[i - 1];
    }
    return NULL;
}

static bool is_name_octet(uint8_t octet)
{
    return (octet >= 'a' && octet <= 'z') || (octet >= 'A' && octet <= 'Z') ||
           (octet >= '0' && octet <= '9') || octet == '_';
}

/* The name behind a `$`. False: it has a condition, or no end. */
static bool name_take(struct span *rest, struct span *ret_name)
{
    bool is_wrapped = rest->size > 0 && (rest->data[0] == '{' || rest->data[0] == '(');
    uint8_t end = !is_wrapped ? 0 : rest->data[0] == '{' ? '}' : ')';
    uint32_t size = 0;

    if (is_wrapped)
        *rest = span_skip(*rest, 1);
    while (size < rest->size && is_name_octet(rest->data[size]))
        size++;
    *ret_name = span_head(*rest, size);
    *rest = span_skip(*rest, size);
    if (!is_wrapped)
        return true;
    if (rest->size == 0 || rest->data[0] != end)
        return false;
    *rest = span_skip(*rest, 1);
    return true;
}

bool postfix_expand(struct postfix *postfix, struct span value, char ret_text[POSTFIX_VALUE_SIZE])
{
    struct span stack[EXPAND_DEPTH_MAX] = {value};
    uint32_t depth = 1, size = 0, steps = 0;

    while (depth > 0) {
        struct span *rest = &stack[depth - 1];
        if (rest->size == 0) {
            depth--;
            continue;
        }
        uint8_t octet = rest->data[0];
        *rest = span_skip(*rest, 1);
        bool is_name = octet == '$' && !(rest->size > 0 && rest->data[0] == '$');
        if (octet == '$' && !is_name)
            *rest = span_skip(*rest, 1);
        if (++steps > 4 * POSTFIX_VALUE_SIZE || (!is_name && size + 1 >= POSTFIX_VALUE_SIZE))
            return false;
        if (!is_name) {
            ret_text[size++] = is_blank(octet) ? ' ' : (char)octet;
            continue;
        }
        struct span name;
        if (!name_take(rest, &name) || depth == EXPAND_DEPTH_MAX ||
            postfix->lookup_count == POSTFIX_LOOKUPS_MAX)
            return false;
        postfix->lookup_count++;
        const struct postfix_parameter *found = postfix_find(postfix, name);
        if (found != NULL)
            stack[depth++] = found->value;
    }
    ret_text[size] = '\0';
    return true;
}

bool postfix_option_find(struct span options, const char *name, struct span *ret_value)
{
    struct span wanted = span_from_text(name), word;
    bool is_option = false, is_found = false;

    while (postfix_word_next(&options, "", &word)) {
        const uint8_t *sign = memchr(word.data, '=', word.size);
        if (is_option && sign != NULL &&
            span_is_equal(span_head(word, (uint32_t)(sign - word.data)), wanted)) {
            *ret_value = span_skip(word, (uint32_t)(sign - word.data) + 1);
            is_found = true;
        }
        is_option = span_is_equal(word, SPAN_LITERAL("-o"));
    }
    return is_found;
}
