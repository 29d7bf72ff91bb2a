/* SPDX-License-Identifier: Apache-2.0 */
/* Text of scenarios: growing strings, escapes, patterns, times, and what is said when one fails. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/scenario/scenario.h"

static void text_reserve(struct scenario_text *text, size_t more)
{
    if (text->size + more + 1 <= text->capacity)
        return;
    text->capacity = (text->size + more + 1) * 2;
    text->data = realloc(text->data, text->capacity);
    CHECK(text->data != NULL);
}

void scenario_text_append(struct scenario_text *text, const void *octets, size_t size)
{
    text_reserve(text, size);
    if (size > 0)
        memcpy(text->data + text->size, octets, size);
    text->size += size;
    text->data[text->size] = '\0';
}

__attribute__((format(printf, 2, 0))) static void text_add_list(struct scenario_text *text,
                                                                const char *format, va_list list)
{
    char *line = NULL;
    int size = vasprintf(&line, format, list);

    CHECK(size >= 0);
    scenario_text_append(text, line, (size_t)size);
    free(line);
}

void scenario_text_number(struct scenario_text *text, const char *pattern, uint32_t number)
{
    const char *at;

    while ((at = strstr(pattern, "%n")) != NULL) {
        scenario_text_append(text, pattern, (size_t)(at - pattern));
        scenario_text_add(text, "%u", number);
        pattern = at + 2;
    }
    scenario_text_append(text, pattern, strlen(pattern));
}

void scenario_text_add(struct scenario_text *text, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    text_add_list(text, format, list);
    va_end(list);
}

bool scenario_fail(struct scenario *scenario, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    text_add_list(&scenario->why, format, list);
    va_end(list);
    scenario->has_failed = true;
    return false;
}

void scenario_note(struct scenario *scenario, const char *format, ...)
{
    tick_us now = scenario->net == NULL ? 0 : net_sim_now(scenario->net) - TICK_S(1);
    va_list list;

    scenario_text_add(&scenario->dialogue, "%9llu.%03llu ", (unsigned long long)(now / 1000000),
                      (unsigned long long)(now / 1000 % 1000));
    va_start(list, format);
    text_add_list(&scenario->dialogue, format, list);
    va_end(list);
    scenario_text_append(&scenario->dialogue, "\n", 1);
}

/* The usual way with one star remembered: on a mismatch the star takes one octet more. */
bool scenario_matches(const char *pattern, const char *text)
{
    const char *star = NULL, *star_text = NULL;

    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            star_text = text;
        } else if (*pattern == *text) {
            pattern++;
            text++;
        } else if (star != NULL) {
            pattern = star + 1;
            text = ++star_text;
        } else {
            return false;
        }
    }
    while (*pattern == '*')
        pattern++;
    return *pattern == '\0';
}

static int hex_value(char digit)
{
    if (digit >= '0' && digit <= '9')
        return digit - '0';
    if (digit >= 'a' && digit <= 'f')
        return digit - 'a' + 10;
    if (digit >= 'A' && digit <= 'F')
        return digit - 'A' + 10;
    return -1;
}

bool scenario_unescape(const char *text, struct scenario_text *ret_octets)
{
    static const char letters[] = "rnt0\\", octets[] = "\r\n\t\0\\";

    for (; *text != '\0'; text++) {
        if (*text != '\\') {
            scenario_text_append(ret_octets, text, 1);
            continue;
        }
        text++;
        const char *letter = *text == '\0' ? NULL : strchr(letters, *text);
        if (letter != NULL) {
            scenario_text_append(ret_octets, &octets[letter - letters], 1);
        } else if (*text == 'x' && hex_value(text[1]) >= 0 && hex_value(text[2]) >= 0) {
            char octet = (char)(hex_value(text[1]) * 16 + hex_value(text[2]));
            scenario_text_append(ret_octets, &octet, 1);
            text += 2;
        } else {
            return false;
        }
    }
    return true;
}

void scenario_escape(const char *octets, size_t size, struct scenario_text *ret_text)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char octet = (unsigned char)octets[i];
        if (octet == '\\')
            scenario_text_append(ret_text, "\\\\", 2);
        else if (octet >= ' ' && octet < 0x7f)
            scenario_text_append(ret_text, &octets[i], 1);
        else
            scenario_text_add(ret_text, "\\x%02x", octet);
    }
}

bool scenario_parse_time(const char *text, tick_us *ret_time)
{
    static const struct {
        const char *unit;
        tick_us time;
    } units[] = {{"ms", TICK_MS(1)},
                 {"s", TICK_S(1)},
                 {"m", TICK_S(60)},
                 {"h", TICK_S(3600)},
                 {"d", TICK_S(86400)}};
    char *end = NULL;
    unsigned long long number = strtoull(text, &end, 10);

    if (end == text || number > 1000000)
        return false;
    for (uint32_t i = 0; i < COUNT_OF(units); i++) {
        if (strcmp(end, units[i].unit) == 0) {
            *ret_time = number * units[i].time;
            return true;
        }
    }
    return false;
}
