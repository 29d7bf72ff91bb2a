/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of options: from the text in the file to the field it belongs to.
 *
 * Each kind has one parser that turns text into a `struct value`, checks the row's bounds, and
 * names what it expected when it refuses. Storing is apart from parsing, so that a refused value
 * changes nothing.
 *
 * Units. Durations: us, ms, s, m, h, d, w and their English names, several in a row ("1h30m",
 * "20 minutes"). Sizes: B; kB, MB, GB, TB are powers of 1,000, KiB, MiB, GiB, TiB of 1,024; a bare
 * number is octets. A bare number is no duration, except 0: 5 of what?
 *
 * Not here: which options exist (option.def), YAML (config_parse.c), relations between options
 * (config_assemble.c).
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "control/option.h"
#include "dns/dns.h"
#include "queue/rate.h"

#define PATH_OCTETS_MAX 4095u
#define FIELD_NAME_MAX  64u

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit duration_units[] = {
    {"us", 1},           {"ms", 1000},           {"s", 1000000},     {"sec", 1000000},
    {"second", 1000000}, {"m", 60000000},        {"min", 60000000},  {"minute", 60000000},
    {"h", 3600000000},   {"hour", 3600000000},   {"d", 86400000000}, {"day", 86400000000},
    {"w", 604800000000}, {"week", 604800000000},
};

static const struct unit size_units[] = {
    {"", 1},
    {"B", 1},
    {"kB", 1000},
    {"KB", 1000},
    {"MB", 1000000},
    {"GB", 1000000000},
    {"TB", 1000000000000},
    {"KiB", 1ull << 10},
    {"MiB", 1ull << 20},
    {"GiB", 1ull << 30},
    {"TiB", 1ull << 40},
};

/* What a kind's parser made of the text: one of these, by kind. */
struct value {
    uint64_t number; /* or wall_us */
    const char *text;
    struct flow_address address;
    struct flow_prefix prefix;
    struct rate_set rates;
};

static struct span span_trim(struct span text)
{
    while (text.size > 0 && text.data[0] == ' ')
        text = span_skip(text, 1);
    while (text.size > 0 && text.data[text.size - 1] == ' ')
        text.size -= 1;
    return text;
}

static uint32_t span_run(struct span text, int (*is_in)(int))
{
    uint32_t size = 0;

    while (size < text.size && is_in(text.data[size]))
        size++;
    return size;
}

/* Cut "12 MiB" into number and unit. */
static enum err number_and_unit_take(struct span *text, uint64_t *ret_number, struct span *ret_unit)
{
    struct span rest = span_trim(*text);
    uint32_t digits = span_run(rest, isdigit);

    TRY(span_parse_u64(span_head(rest, digits), ret_number));
    rest = span_trim(span_skip(rest, digits));
    uint32_t letters = span_run(rest, isalpha);
    *ret_unit = span_head(rest, letters);
    *text = span_trim(span_skip(rest, letters));
    return ERR_OK;
}

static bool unit_is_named(const struct unit *unit, struct span name, bool takes_plural)
{
    if (span_is_equal(name, span_from_text(unit->name)))
        return true;
    /* "minutes", "secs": the plural of a name of three letters or more */
    return takes_plural && name.size >= 4 && name.data[name.size - 1] == 's' &&
           span_is_equal(span_head(name, name.size - 1), span_from_text(unit->name));
}

static enum err unit_apply(const struct unit *units, uint32_t count, struct span name,
                           bool takes_plural, uint64_t *number)
{
    for (uint32_t i = 0; i < count; i++) {
        if (unit_is_named(&units[i], name, takes_plural))
            return __builtin_mul_overflow(*number, units[i].factor, number) ? ERR_PEER_SYNTAX
                                                                            : ERR_OK;
    }
    return ERR_PEER_SYNTAX;
}

enum err option_duration_parse(struct span text, uint64_t *ret_us)
{
    uint64_t total = 0;

    text = span_trim(text);
    if (span_is_equal(text, SPAN_LITERAL("0"))) {
        *ret_us = 0;
        return ERR_OK;
    }
    do {
        uint64_t part;
        struct span unit;
        TRY(number_and_unit_take(&text, &part, &unit));
        TRY(unit_apply(duration_units, COUNT_OF(duration_units), unit, true, &part));
        if (__builtin_add_overflow(total, part, &total))
            return ERR_PEER_SYNTAX;
    } while (text.size > 0);
    *ret_us = total;
    return ERR_OK;
}

enum err option_size_parse(struct span text, uint64_t *ret_octets)
{
    uint64_t number;
    struct span unit;

    TRY(number_and_unit_take(&text, &number, &unit));
    if (text.size > 0)
        return ERR_PEER_SYNTAX;
    TRY(unit_apply(size_units, COUNT_OF(size_units), unit, false, &number));
    *ret_octets = number;
    return ERR_OK;
}

const char *option_duration_format(uint64_t us, char ret_text[32])
{
    static const struct unit shown[] = {
        {"d", 86400000000}, {"h", 3600000000}, {"m", 60000000}, {"s", 1000000}, {"ms", 1000},
    };

    for (uint32_t i = 0; i < COUNT_OF(shown); i++) {
        if (us != 0 && us % shown[i].factor == 0) {
            snprintf(ret_text, 32, "%llu%s", (unsigned long long)(us / shown[i].factor),
                     shown[i].name);
            return ret_text;
        }
    }
    snprintf(ret_text, 32, us == 0 ? "0" : "%lluus", (unsigned long long)us);
    return ret_text;
}

const char *option_size_format(uint64_t octets, char ret_text[32])
{
    static const uint32_t shown[] = {10, 6, 9, 5, 8, 4, 7, 2}; /* TiB, TB, GiB ... kB */

    for (uint32_t i = 0; i < COUNT_OF(shown); i++) {
        const struct unit *unit = &size_units[shown[i]];
        if (octets != 0 && octets % unit->factor == 0) {
            snprintf(ret_text, 32, "%llu%s", (unsigned long long)(octets / unit->factor),
                     unit->name);
            return ret_text;
        }
    }
    snprintf(ret_text, 32, "%llu", (unsigned long long)octets);
    return ret_text;
}

/* ---- kinds ---- */

static bool text_is_printable(struct span text)
{
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] == 127)
            return false;
    }
    return true;
}

static const char *text_keep(struct span text, struct arena *arena)
{
    char *copy = arena_acquire(arena, (uint64_t)text.size + 1);

    if (copy == NULL)
        return NULL;
    if (text.size > 0)
        memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    return copy;
}

/* "[2001:db8::1]:25", "192.0.2.1:25"; without a port only when `is_port_optional`. */
static enum err endpoint_parse(struct span text, bool is_port_optional,
                               struct flow_address *ret_address)
{
    struct flow_address address;
    uint64_t port = 0;
    struct span ip = text, port_text = {0};
    const uint8_t *colon = memrchr(text.data, ':', text.size);
    bool is_bracketed = text.size > 0 && text.data[0] == '[';

    if (is_port_optional && flow_address_parse_ip(text, ret_address) == ERR_OK)
        return ERR_OK;
    if (colon == NULL)
        return ERR_PEER_SYNTAX;
    ip.size = (uint32_t)(colon - text.data);
    port_text = span_skip(text, ip.size + 1);
    if (is_bracketed && (ip.size < 2 || ip.data[ip.size - 1] != ']'))
        return ERR_PEER_SYNTAX;
    if (is_bracketed)
        ip = span_of(ip.data + 1, ip.size - 2);
    TRY(flow_address_parse_ip(ip, &address));
    TRY(span_parse_u64(port_text, &port));
    if (port == 0 || port > 65535 || is_bracketed != (address.family == FLOW_FAMILY_IP6))
        return ERR_PEER_SYNTAX;
    address.port = (uint16_t)port;
    *ret_address = address;
    return ERR_OK;
}

/* RFC 3696 section 2: a top-level domain is never all digits, so this is an address, or part of
 * one, and EHLO would need brackets around it. */
static bool is_numeric(const char *name)
{
    const char *dot = strrchr(name, '.');
    const char *top = dot == NULL ? name : dot + 1;

    return top[strspn(top, "0123456789")] == '\0';
}

/* "192.0.2.1/24": the address itself is kept, so the network is checked apart. */
static enum err interface_parse(struct span text, struct flow_prefix *ret_prefix)
{
    const uint8_t *slash = text.size == 0 ? NULL : memchr(text.data, '/', text.size);
    struct flow_address address;
    uint64_t bits = 0;

    if (slash == NULL)
        return ERR_PEER_SYNTAX;
    uint32_t ip_size = (uint32_t)(slash - text.data);
    TRY(flow_address_parse_ip(span_head(text, ip_size), &address));
    TRY(span_parse_u64(span_skip(text, ip_size + 1), &bits));
    if (bits == 0 || bits > (address.family == FLOW_FAMILY_IP4 ? 32 : 128))
        return ERR_PEER_SYNTAX;
    *ret_prefix = (struct flow_prefix){address, (uint8_t)bits};
    return ERR_OK;
}

static enum err name_parse(struct span text, struct arena *arena, const char **ret_text)
{
    char name[MX_NAME_MAX];
    uint32_t size;

    TRY(dns_name_normalize(text, name, &size));
    if (is_numeric(name))
        return ERR_CONFIG_VALUE;
    *ret_text = text_keep(span_of(name, size), arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

/* "*", "example.org", "*.example.org": the domain in its normal form. */
static enum err pattern_parse(struct span text, struct arena *arena, const char **ret_text)
{
    char pattern[MX_NAME_MAX + 2] = "*.", name[MX_NAME_MAX];
    bool is_below = text.size > 2 && text.data[0] == '*' && text.data[1] == '.';
    uint32_t size;

    if (span_is_equal(text, SPAN_LITERAL("*"))) {
        *ret_text = "*";
        return ERR_OK;
    }
    TRY(dns_name_normalize(is_below ? span_skip(text, 2) : text, name, &size));
    memcpy(pattern + (is_below ? 2 : 0), name, size);
    *ret_text = text_keep(span_of(pattern, size + (is_below ? 2 : 0)), arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err host_parse(struct span text, struct arena *arena, const char **ret_text)
{
    struct flow_address address;
    char ip[FLOW_ADDRESS_TEXT_MAX];

    if (flow_address_parse_ip(text, &address) != ERR_OK)
        return name_parse(text, arena, ret_text);
    *ret_text = text_keep(span_from_text(flow_address_format_ip(&address, ip)), arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err word_parse(struct span text, struct arena *arena, const char **ret_text)
{
    char word[64];

    if (text.size >= sizeof(word))
        return ERR_CONFIG_VALUE;
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        if (!isalnum(octet) && strchr("._-", octet) == NULL)
            return ERR_CONFIG_VALUE;
        word[i] = (char)tolower(octet);
    }
    *ret_text = text_keep(span_of(word, text.size), arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err bool_parse(struct span text, uint64_t *ret_number)
{
    if (span_is_equal(text, SPAN_LITERAL("true")) || span_is_equal(text, SPAN_LITERAL("yes")))
        *ret_number = 1;
    else if (span_is_equal(text, SPAN_LITERAL("false")) || span_is_equal(text, SPAN_LITERAL("no")))
        *ret_number = 0;
    else
        return ERR_CONFIG_VALUE;
    return ERR_OK;
}

static enum err choice_parse(const char *choices, struct span text, uint64_t *ret_number)
{
    uint32_t position = 0;

    while (*choices != '\0') {
        uint32_t size = (uint32_t)strcspn(choices, "|");
        if (span_is_equal(span_of(choices, size), text)) {
            *ret_number = position;
            return ERR_OK;
        }
        choices += size + (choices[size] == '|');
        position++;
    }
    return ERR_CONFIG_VALUE;
}

static enum err seconds_parse(struct span text, uint64_t *ret_number)
{
    uint64_t us = 0;

    TRY(option_duration_parse(text, &us));
    if (us % 1000000 != 0)
        return ERR_CONFIG_VALUE;
    *ret_number = us / 1000000;
    return ERR_OK;
}

/* 0 says "none"; anything else may be written as in a rate. */
static enum err limit_parse(struct span text, uint64_t *ret_number)
{
    uint32_t count;

    if (span_parse_u64(text, ret_number) == ERR_OK)
        return ERR_OK;
    TRY(rate_count_parse(text, &count));
    *ret_number = count;
    return ERR_OK;
}

/* The first moment of a day of the calendar, UTC. */
static enum err date_parse(struct span text, uint64_t *ret_number)
{
    char date[11], again[11] = "";
    struct tm tm = {0};

    if (text.size != sizeof(date) - 1)
        return ERR_CONFIG_VALUE;
    memcpy(date, text.data, text.size);
    date[text.size] = '\0';
    const char *end = strptime(date, "%Y-%m-%d", &tm);
    if (end == NULL || *end != '\0' || tm.tm_year < 100)
        return ERR_CONFIG_VALUE;
    time_t seconds = timegm(&tm); /* the 30th of February becomes another day */
    (void)strftime(again, sizeof(again), "%Y-%m-%d", &tm);
    if (strcmp(again, date) != 0)
        return ERR_CONFIG_VALUE;
    *ret_number = (uint64_t)seconds * 1000000;
    return ERR_OK;
}

static enum err limit_list_parse(struct span text, uint64_t *ret_number)
{
    TRY(limit_parse(text, ret_number));
    return *ret_number == 0 || *ret_number > RATE_COUNT_MAX ? ERR_CONFIG_VALUE : ERR_OK;
}

static enum err number_parse(const struct option *option, struct span text, uint64_t *ret_number)
{
    switch (option->kind) {
    case OPTION_COUNT:
        TRY(span_parse_u64(text, ret_number));
        break;
    case OPTION_LIMIT:
        TRY(limit_parse(text, ret_number));
        break;
    case OPTION_SIZE:
        TRY(option_size_parse(text, ret_number));
        break;
    case OPTION_DURATION:
        TRY(option_duration_parse(text, ret_number));
        break;
    case OPTION_SECONDS:
        TRY(seconds_parse(text, ret_number));
        break;
    case OPTION_DATE:
        return date_parse(text, ret_number);
    case OPTION_BOOL:
        return bool_parse(text, ret_number);
    default:
        CHECK(option->kind == OPTION_CHOICE);
        return choice_parse(option->choices, text, ret_number);
    }
    return *ret_number < option->min || *ret_number > option->max ? ERR_CONFIG_VALUE : ERR_OK;
}

static enum err field_parse(struct span text, struct arena *arena, const char **ret_text)
{
    if (text.size == 0 || text.size > FIELD_NAME_MAX)
        return ERR_CONFIG_VALUE;
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        bool is_letter = (octet | 0x20) >= 'a' && (octet | 0x20) <= 'z';
        if (!is_letter && (octet < '0' || octet > '9') && octet != '-')
            return ERR_CONFIG_VALUE;
    }
    *ret_text = text_keep(text, arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err path_list_parse(struct span text, struct arena *arena, const char **ret_text)
{
    if (text.size == 0 || text.size > PATH_OCTETS_MAX || !text_is_printable(text))
        return ERR_CONFIG_VALUE;
    *ret_text = text_keep(text, arena);
    return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
}

static enum err text_parse(const struct option *option, struct span text, struct arena *arena,
                           const char **ret_text)
{
    if (text.size < option->min || text.size > option->max || !text_is_printable(text))
        return ERR_CONFIG_VALUE;
    if (text.size == 0) { /* only where min is 0: as if not given */
        *ret_text = NULL;
        return ERR_OK;
    }
    switch (option->kind) {
    case OPTION_NAME:
        return name_parse(text, arena, ret_text);
    case OPTION_PATTERN:
        return pattern_parse(text, arena, ret_text);
    case OPTION_HOST:
        return host_parse(text, arena, ret_text);
    case OPTION_WORD:
        return word_parse(text, arena, ret_text);
    default:
        *ret_text = text_keep(text, arena);
        return *ret_text == NULL ? ERR_MEMORY : ERR_OK;
    }
}

static enum err value_parse(const struct option *option, struct span text, struct arena *arena,
                            struct value *ret_value)
{
    switch (option->kind) {
    case OPTION_TEXT:
    case OPTION_WORD:
    case OPTION_NAME:
    case OPTION_PATTERN:
    case OPTION_HOST:
    case OPTION_PATH:
        return text_parse(option, text, arena, &ret_value->text);
    case OPTION_PATTERN_LIST:
        return pattern_parse(text, arena, &ret_value->text);
    case OPTION_FIELD_LIST:
        return field_parse(text, arena, &ret_value->text);
    case OPTION_PATH_LIST:
        return path_list_parse(text, arena, &ret_value->text);
    case OPTION_CHOICE_LIST:
        return choice_parse(option->choices, text, &ret_value->number);
    case OPTION_LIMIT_LIST:
        return limit_list_parse(text, &ret_value->number);
    case OPTION_RATE:
        return text.size == 0 ? ERR_OK : rate_set_parse(text, &ret_value->rates);
    case OPTION_ENDPOINT:
        return endpoint_parse(text, false, &ret_value->address);
    case OPTION_ENDPOINT_LIST:
        return endpoint_parse(text, true, &ret_value->address);
    case OPTION_IP_LIST:
        return flow_address_parse_ip(text, &ret_value->address);
    case OPTION_PREFIX_LIST:
        return flow_prefix_parse(text, &ret_value->prefix);
    case OPTION_INTERFACE_LIST:
        return interface_parse(text, &ret_value->prefix);
    default:
        return number_parse(option, text, &ret_value->number);
    }
}

static void number_store(void *field, uint32_t size, uint64_t number)
{
    uint8_t narrow8 = (uint8_t)number;
    uint16_t narrow16 = (uint16_t)number;
    uint32_t narrow32 = (uint32_t)number;
    const void *from = size == 1   ? (const void *)&narrow8
                       : size == 2 ? (const void *)&narrow16
                       : size == 4 ? (const void *)&narrow32
                                   : (const void *)&number;

    CHECK(size == 1 || size == 2 || size == 4 || size == 8);
    CHECK(size == 8 || number >> (8 * size) == 0); /* the row's max fits its field */
    memcpy(field, from, size);
}

static void value_store(const struct option *option, const struct value *value, void *object,
                        uint32_t index)
{
    uint8_t *field = (uint8_t *)object + option->offset;

    if (option_is_list(option)) {
        struct option_list *list = (struct option_list *)field;
        uint32_t size = option_element_size(option);
        CHECK(index < list->count);
        uint32_t number = (uint32_t)value->number;
        memcpy((uint8_t *)list->items + (size_t)index * size,
               option_is_text_list(option)     ? (const void *)&value->text
               : option_is_number_list(option) ? (const void *)&number
               : option_is_prefix_list(option) ? (const void *)&value->prefix
                                               : (const void *)&value->address,
               size);
    } else if (option->kind == OPTION_RATE) {
        memcpy(field, &value->rates, sizeof(value->rates));
    } else if (option->kind == OPTION_ENDPOINT) {
        memcpy(field, &value->address, sizeof(value->address));
    } else if (option->kind >= OPTION_TEXT && option->kind <= OPTION_PATH) {
        memcpy(field, &value->text, sizeof(value->text));
    } else {
        number_store(field, option->size, value->number);
    }
}

enum err option_parse(const struct option *option, struct span text, struct arena *arena,
                      void *object, uint32_t index, char ret_why[OPTION_WHY_SIZE])
{
    struct value value = {0};

    CHECK(option->kind != OPTION_MAPPING && option->kind != OPTION_SEQUENCE);
    enum err err = value_parse(option, text, arena, &value);
    if (err == ERR_MEMORY) {
        snprintf(ret_why, OPTION_WHY_SIZE, "the configuration is too large");
        return ERR_CONFIG_VALUE;
    }
    if (err != ERR_OK) {
        char expected[OPTION_WHY_SIZE], shown[64];
        snprintf(
            ret_why, OPTION_WHY_SIZE, "expected %.150s, not \"%s\"",
            option_expectation(option, expected),
            log_escape(span_head(text, text.size < 40 ? text.size : 40), shown, sizeof(shown)));
        return ERR_CONFIG_VALUE;
    }
    value_store(option, &value, object, index);
    return ERR_OK;
}
