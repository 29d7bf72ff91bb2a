/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Words, numbers, times and addresses of packet scripts, and what is said when one fails.
 *
 * Expressions know + - * / % and parentheses over integers and the variables i and j:
 *
 *     sum = product {(+|-) product}    product = factor {(*|/|%) factor}
 *     factor = number | i | j | - factor | ( sum )
 *
 * Limits: EXPRESSION_DEPTH parentheses, so that the recursion is bounded.
 */
#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/wire/script.h"

#define EXPRESSION_DEPTH 16u

/* ---- what is said ---- */

static void text_add(struct script_text *text, const char *format, va_list arguments)
{
    char line[2 * SCRIPT_LINE_MAX];
    int size = vsnprintf(line, sizeof(line), format, arguments);
    size_t length = size < 0 ? 0 : (size_t)size < sizeof(line) ? (size_t)size : sizeof(line) - 1;

    while (text->size + length + 1 > text->capacity) {
        text->capacity = text->capacity == 0 ? 4096 : text->capacity * 2;
        text->data = realloc(text->data, text->capacity);
        CHECK(text->data != NULL);
    }
    memcpy(text->data + text->size, line, length);
    text->size += length;
    text->data[text->size] = '\0';
}

void script_text_add(struct script_text *text, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    text_add(text, format, arguments);
    va_end(arguments);
}

bool script_fail(struct script *script, const char *format, ...)
{
    va_list arguments;

    if (!script->has_failed) {
        va_start(arguments, format);
        text_add(&script->why, format, arguments);
        va_end(arguments);
    }
    script->has_failed = true;
    return false;
}

static void note(struct script *script, tick_us time, const char *format, va_list arguments)
{
    script_text_add(&script->dialogue, "%10llu.%03llu ms  ", (unsigned long long)(time / 1000),
                    (unsigned long long)(time % 1000));
    text_add(&script->dialogue, format, arguments);
    script_text_add(&script->dialogue, "\n");
}

void script_note(struct script *script, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    note(script, script->world == NULL ? 0 : script->world->now, format, arguments);
    va_end(arguments);
}

void script_note_at(struct script *script, tick_us time, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    note(script, time, format, arguments);
    va_end(arguments);
}

/* ---- expressions ---- */

struct expression {
    const char *at;
    const int64_t *variables;
    bool is_bad;
};

static int64_t expression_sum(struct expression *expression, uint32_t depth);

static void expression_space(struct expression *expression)
{
    while (*expression->at == ' ')
        expression->at++;
}

static int64_t expression_factor(struct expression *expression, uint32_t depth)
{
    int64_t value = 0;
    char *end;

    expression_space(expression);
    char first = *expression->at;
    if (depth > EXPRESSION_DEPTH) {
        expression->is_bad = true;
    } else if (first == '(') {
        expression->at++;
        value = expression_sum(expression, depth + 1);
        expression_space(expression);
        expression->is_bad = expression->is_bad || *expression->at != ')';
        expression->at++;
    } else if (first == '-') {
        expression->at++;
        value = -expression_factor(expression, depth + 1);
    } else if (first == 'i' || first == 'j') {
        expression->at++;
        value = expression->variables[first - 'i'];
    } else if (isdigit((unsigned char)first)) {
        value = strtoll(expression->at, &end, 10);
        expression->at = end;
    } else {
        expression->is_bad = true;
    }
    return value;
}

static int64_t expression_product(struct expression *expression, uint32_t depth)
{
    int64_t value = expression_factor(expression, depth);

    while (!expression->is_bad) {
        expression_space(expression);
        char operation = *expression->at;
        if (operation != '*' && operation != '/' && operation != '%')
            break;
        expression->at++;
        int64_t right = expression_factor(expression, depth);
        if (operation == '*')
            value *= right;
        else if (right == 0)
            expression->is_bad = true;
        else
            value = operation == '/' ? value / right : value % right;
    }
    return value;
}

static int64_t expression_sum(struct expression *expression, uint32_t depth)
{
    int64_t value = expression_product(expression, depth);

    while (!expression->is_bad) {
        expression_space(expression);
        char operation = *expression->at;
        if (operation != '+' && operation != '-')
            break;
        expression->at++;
        int64_t right = expression_product(expression, depth);
        value = operation == '+' ? value + right : value - right;
    }
    return value;
}

bool script_substitute(struct script *script, const char *line, char ret_line[SCRIPT_LINE_MAX])
{
    size_t size = 0;

    while (*line != '\0') {
        if (size + 24 > SCRIPT_LINE_MAX)
            return script_fail(script, "the line is too long");
        if (*line != '$') {
            ret_line[size++] = *line++;
            continue;
        }
        struct expression expression = {.at = line + 1, .variables = script->variables};
        int64_t value = expression_factor(&expression, 0);
        if (expression.is_bad)
            return script_fail(script, "bad expression: %s", line);
        size += (size_t)snprintf(ret_line + size, 24, "%lld", (long long)value);
        line = expression.at;
    }
    ret_line[size] = '\0';
    return true;
}

/* ---- words ---- */

bool script_word(const char **at, char ret_word[SCRIPT_LINE_MAX])
{
    size_t size = 0;

    while (**at == ' ')
        (*at)++;
    /* "<" alone is an arrow, "<mss 1460>" a list of options. */
    bool is_list = **at == '<' && (*at)[1] != ' ' && (*at)[1] != '=' && (*at)[1] != '\0';
    while (**at != '\0' && size < SCRIPT_LINE_MAX - 1) {
        if (is_list ? size > 0 && (*at)[-1] == '>' : **at == ' ')
            break;
        ret_word[size++] = *(*at)++;
    }
    ret_word[size] = '\0';
    return size > 0;
}

bool script_take(const char **at, const char *word)
{
    const char *rest = *at;
    char next[SCRIPT_LINE_MAX];

    if (!script_word(&rest, next) || strcmp(next, word) != 0)
        return false;
    *at = rest;
    return true;
}

bool script_is_number(const char *word, int64_t *ret_number)
{
    char *end;

    if (word[0] != '-' && !isdigit((unsigned char)word[0]))
        return false;
    int64_t number = strtoll(word, &end, 0);
    if (end == word || *end != '\0')
        return false;
    *ret_number = number;
    return true;
}

bool script_number(const char **at, int64_t *ret_number)
{
    const char *rest = *at;
    char word[SCRIPT_LINE_MAX];

    if (!script_word(&rest, word) || !script_is_number(word, ret_number))
        return false;
    *at = rest;
    return true;
}

bool script_parse_time(const char *word, tick_us *ret_time)
{
    static const struct {
        const char *name;
        double factor;
    } units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}, {"m", 60e6}, {"h", 3600e6}, {"d", 86400e6}};
    char *end;

    if (!isdigit((unsigned char)word[0]))
        return false;
    double number = strtod(word, &end);
    if (number == 0 && *end == '\0') {
        *ret_time = 0;
        return true;
    }
    for (uint32_t i = 0; i < COUNT_OF(units); i++) {
        if (strcmp(end, units[i].name) == 0) {
            *ret_time = (tick_us)(number * units[i].factor + 0.5);
            return true;
        }
    }
    return false;
}

bool script_range(const char **at, int64_t *ret_from, int64_t *ret_to)
{
    char word[SCRIPT_LINE_MAX];

    if (!script_word(at, word))
        return false;
    char *dots = strstr(word, "..");
    if (dots != NULL)
        *dots = '\0';
    if (!script_is_number(word, ret_from))
        return false;
    *ret_to = *ret_from;
    return dots == NULL || script_is_number(dots + 2, ret_to);
}

bool script_hex(const char *word, uint8_t *ret_octets, uint32_t max, uint32_t *ret_size)
{
    uint32_t size = 0;
    int used = 0;

    while (*word != '\0') {
        unsigned octet;
        if (size == max || !isxdigit((unsigned char)word[0]) ||
            sscanf(word, "%2x%n", &octet, &used) != 1 || used != 2)
            return false;
        ret_octets[size++] = (uint8_t)octet;
        word += 2;
    }
    *ret_size = size;
    return true;
}

bool script_address(const char *word, struct flow_address *ret_address)
{
    char ip[SCRIPT_LINE_MAX];
    int64_t port = 0;

    snprintf(ip, sizeof(ip), "%s", word[0] == '[' ? word + 1 : word);
    char *end = word[0] == '[' ? strchr(ip, ']') : strchr(ip, ':');
    bool is_bare6 = word[0] != '[' && end != NULL && strchr(end + 1, ':') != NULL;
    if (end != NULL && !is_bare6) {
        char *colon = *end == ']' ? end + 1 : end;
        if (*colon == ':' && (!script_is_number(colon + 1, &port) || port < 0 || port > 65535))
            return false;
        *end = '\0';
    }
    if (flow_address_parse_ip(span_from_text(ip), ret_address) != ERR_OK)
        return false;
    ret_address->port = (uint16_t)port;
    return true;
}

bool script_mac(const char *word, uint8_t ret_mac[6])
{
    unsigned octets[6];
    int used = 0;

    if (sscanf(word, "%2x:%2x:%2x:%2x:%2x:%2x%n", &octets[0], &octets[1], &octets[2], &octets[3],
               &octets[4], &octets[5], &used) != 6 ||
        word[used] != '\0')
        return false;
    for (uint32_t i = 0; i < 6; i++)
        ret_mac[i] = (uint8_t)octets[i];
    return true;
}

bool script_compare(const char **at, uint64_t value, bool *ret_holds)
{
    static const char *const operators[] = {"==", "!=", "<", "<=", ">", ">="};
    char word[SCRIPT_LINE_MAX], number[SCRIPT_LINE_MAX];
    int64_t right;
    tick_us time;

    if (!script_word(at, word) || !script_word(at, number))
        return false;
    if (!script_is_number(number, &right)) {
        if (!script_parse_time(number, &time))
            return false;
        right = (int64_t)time;
    }
    for (uint32_t i = 0; i < COUNT_OF(operators); i++) {
        int64_t left = (int64_t)value;
        if (strcmp(word, operators[i]) != 0)
            continue;
        *ret_holds = i == 0   ? left == right
                     : i == 1 ? left != right
                     : i == 2 ? left < right
                     : i == 3 ? left <= right
                     : i == 4 ? left > right
                              : left >= right;
        return true;
    }
    return false;
}
