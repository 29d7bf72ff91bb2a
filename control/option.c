/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The option table and what can be said of a row without a value: where it is, what it expects,
 * its default, the room of its list. Values are parsed in option_value.c, the reference page is
 * written by option_reference.c.
 *
 * Invariants, proven by tests/unit/test_option.c for every row
 *   1. Its group has a row of its own that comes before it.
 *   2. Its default passes its own parser, and so do min and max; min - 1 and max + 1 do not.
 *   3. Its max fits its field.
 */
#include "control/option.h"

#include <stdlib.h>
#include <string.h>

#include "control/config.h"

#define OWNER_CONFIG        struct config
#define OWNER_LISTENER      struct config_listener
#define OWNER_ROUTE         struct config_route
#define OWNER_HOST          struct config_host
#define OWNER_PORT          struct config_port
#define OWNER_SITE          struct config_site
#define OWNER_SOURCE        struct config_source
#define OWNER_POOL          struct config_pool
#define OWNER_MEMBER        struct config_member
#define OWNER_PATTERN       struct config_pattern
#define OWNER_POOL_RULE     struct config_pool_rule
#define OWNER_DELIVERY_RULE struct config_delivery_rule
#define OWNER_CLASS         struct config_class
#define OWNER_CLASS_RULE    struct config_class_rule
#define OWNER_DKIM          struct config_dkim
#define OWNER_WEBHOOK       struct config_webhook

#define RELOAD true
#define START  false

#define FIELD(owner, field)                                                                        \
    OPTION_OWNER_##owner, OPTION_OWNER_COUNT, offsetof(OWNER_##owner, field),                      \
        sizeof(((OWNER_##owner *)NULL)->field)

const struct option option_table[] = {
#define OPTION(path, kind, choices, min, max, default_text, reload, owner, field, help)            \
    {#path, OPTION_##kind, choices, min, max, default_text, reload, FIELD(owner, field), help},
#define OPTION_GROUP(path, kind, max, element, owner, field, help)                                 \
    {#path,                                                                                        \
     OPTION_##kind,                                                                                \
     "",                                                                                           \
     0,                                                                                            \
     max,                                                                                          \
     "",                                                                                           \
     RELOAD,                                                                                       \
     OPTION_OWNER_##owner,                                                                         \
     OPTION_OWNER_##element,                                                                       \
     offsetof(OWNER_##owner, field),                                                               \
     sizeof(((OWNER_##owner *)NULL)->field),                                                       \
     help},
#include "control/option.def"
#undef OPTION
#undef OPTION_GROUP
};

const uint32_t option_count = COUNT_OF(option_table);

static const uint32_t owner_sizes[OPTION_OWNER_COUNT] = {
    [OPTION_OWNER_CONFIG] = sizeof(struct config),
    [OPTION_OWNER_LISTENER] = sizeof(struct config_listener),
    [OPTION_OWNER_ROUTE] = sizeof(struct config_route),
    [OPTION_OWNER_HOST] = sizeof(struct config_host),
    [OPTION_OWNER_PORT] = sizeof(struct config_port),
    [OPTION_OWNER_SITE] = sizeof(struct config_site),
    [OPTION_OWNER_SOURCE] = sizeof(struct config_source),
    [OPTION_OWNER_POOL] = sizeof(struct config_pool),
    [OPTION_OWNER_MEMBER] = sizeof(struct config_member),
    [OPTION_OWNER_PATTERN] = sizeof(struct config_pattern),
    [OPTION_OWNER_POOL_RULE] = sizeof(struct config_pool_rule),
    [OPTION_OWNER_DELIVERY_RULE] = sizeof(struct config_delivery_rule),
    [OPTION_OWNER_CLASS] = sizeof(struct config_class),
    [OPTION_OWNER_CLASS_RULE] = sizeof(struct config_class_rule),
    [OPTION_OWNER_DKIM] = sizeof(struct config_dkim),
    [OPTION_OWNER_WEBHOOK] = sizeof(struct config_webhook),
};

uint32_t option_owner_size(enum option_owner owner)
{
    CHECK(owner < OPTION_OWNER_COUNT);
    return owner_sizes[owner];
}

const char *option_key(const struct option *option)
{
    const char *dot = strrchr(option->path, '.');

    return dot == NULL ? option->path : dot + 1;
}

bool option_is_in(const struct option *option, const char *section)
{
    size_t section_size = (size_t)(option_key(option) - option->path);

    if (section_size > 0)
        section_size -= 1; /* the dot */
    return strlen(section) == section_size && strncmp(option->path, section, section_size) == 0;
}

const struct option *option_find(const char *section, struct span key)
{
    for (uint32_t i = 0; i < option_count; i++) {
        if (option_is_in(&option_table[i], section) &&
            span_is_equal(key, span_from_text(option_key(&option_table[i]))))
            return &option_table[i];
    }
    return NULL;
}

bool option_is_list(const struct option *option)
{
    return option->kind >= OPTION_PREFIX_LIST;
}

bool option_is_text_list(const struct option *option)
{
    return option->kind == OPTION_PATTERN_LIST || option->kind == OPTION_FIELD_LIST ||
           option->kind == OPTION_PATH_LIST;
}

bool option_is_number_list(const struct option *option)
{
    return option->kind == OPTION_LIMIT_LIST || option->kind == OPTION_CHOICE_LIST;
}

bool option_is_prefix_list(const struct option *option)
{
    return option->kind == OPTION_PREFIX_LIST || option->kind == OPTION_INTERFACE_LIST;
}

uint32_t option_element_size(const struct option *option)
{
    if (option->kind == OPTION_SEQUENCE)
        return option_owner_size(option->element);
    CHECK(option_is_list(option));
    if (option_is_text_list(option))
        return sizeof(const char *);
    if (option_is_number_list(option))
        return sizeof(uint32_t);
    return option_is_prefix_list(option) ? sizeof(struct flow_prefix) : sizeof(struct flow_address);
}

enum err option_list_begin(const struct option *option, uint32_t count, struct arena *arena,
                           void *object, char ret_why[OPTION_WHY_SIZE])
{
    struct option_list *list = (struct option_list *)((uint8_t *)object + option->offset);
    uint64_t size = (uint64_t)count * option_element_size(option);

    CHECK(option->size == sizeof(*list));
    if (count < option->min || count > option->max) {
        snprintf(ret_why, OPTION_WHY_SIZE, "expected at most %llu elements, not %u",
                 (unsigned long long)option->max, count);
        return ERR_CONFIG_VALUE;
    }
    void *items = NULL;
    if (size > 0) {
        items = arena_acquire(arena, size);
        if (items == NULL) {
            snprintf(ret_why, OPTION_WHY_SIZE, "the configuration is too large");
            return ERR_MEMORY;
        }
        memset(items, 0, size);
    }
    *list = (struct option_list){items, count};
    return ERR_OK;
}

/* The default of a list is written with commas: the elements are cut apart here. */
static enum err list_set_default(const struct option *option, struct arena *arena, void *object)
{
    const char *rest = option->default_text;
    char why[OPTION_WHY_SIZE];
    uint32_t count = *rest != '\0';

    for (const char *comma = strchr(rest, ','); comma != NULL; comma = strchr(comma + 1, ','))
        count++;
    TRY(option_list_begin(option, count, arena, object, why));
    for (uint32_t i = 0; i < count; i++) {
        rest += strspn(rest, ", ");
        uint32_t size = (uint32_t)strcspn(rest, ",");
        TRY(option_parse(option, span_of(rest, size), arena, object, i, why));
        rest += size;
    }
    return ERR_OK;
}

static enum err option_set_default(const struct option *option, struct arena *arena, void *object)
{
    char why[OPTION_WHY_SIZE];
    uint32_t none = OPTION_CHOICE_NONE;

    if (option->default_text == NULL || option->kind == OPTION_MAPPING)
        return ERR_OK;
    if (option_is_list(option) || option->kind == OPTION_SEQUENCE)
        return list_set_default(option, arena, object);
    if (option->kind == OPTION_ENDPOINT && *option->default_text == '\0')
        return ERR_OK; /* port 0: none */
    if (option->kind != OPTION_CHOICE || *option->default_text != '\0')
        return option_parse(option, span_from_text(option->default_text), arena, object, 0, why);
    memcpy((uint8_t *)object + option->offset, &none, sizeof(none));
    return ERR_OK;
}

enum err option_set_defaults(enum option_owner owner, struct arena *arena, void *object)
{
    for (uint32_t i = 0; i < option_count; i++) {
        if (option_table[i].owner == owner &&
            option_set_default(&option_table[i], arena, object) != ERR_OK)
            return ERR_MEMORY;
    }
    return ERR_OK;
}

static bool text_list_differs(const struct option_list *left, const struct option_list *right)
{
    const char *const *a = left->items, *const *b = right->items;
    bool differs = left->count != right->count;

    for (uint32_t i = 0; !differs && i < left->count; i++)
        differs = strcmp(a[i], b[i]) != 0;
    return differs;
}

bool option_differs(const struct option *option, const void *a, const void *b)
{
    const uint8_t *left = (const uint8_t *)a + option->offset;
    const uint8_t *right = (const uint8_t *)b + option->offset;
    const char *left_text, *right_text;

    CHECK(option->kind != OPTION_MAPPING && option->kind != OPTION_SEQUENCE);
    if (option_is_text_list(option))
        return text_list_differs((const struct option_list *)left,
                                 (const struct option_list *)right);
    if (option_is_list(option)) {
        const struct option_list *l = (const struct option_list *)left;
        const struct option_list *r = (const struct option_list *)right;
        return l->count != r->count ||
               (l->count > 0 &&
                memcmp(l->items, r->items, (size_t)l->count * option_element_size(option)) != 0);
    }
    if (option->kind < OPTION_TEXT || option->kind > OPTION_PATH)
        return memcmp(left, right, option->size) != 0;
    memcpy(&left_text, left, sizeof(left_text));
    memcpy(&right_text, right, sizeof(right_text));
    return strcmp(left_text == NULL ? "" : left_text, right_text == NULL ? "" : right_text) != 0;
}

static void words_format(const char *choices, char *ret_text)
{
    uint32_t size = (uint32_t)snprintf(ret_text, OPTION_WHY_SIZE, "one of ");

    for (; *choices != '\0' && size + 3 < OPTION_WHY_SIZE; choices++) {
        if (*choices == '|')
            ret_text[size++] = ',';
        ret_text[size++] = *choices == '|' ? ' ' : *choices;
    }
    ret_text[size] = '\0';
}

static void range_format(const struct option *option, char *ret_text)
{
    char low[32], high[32];
    unsigned long long min = option->min, max = option->max;

    switch (option->kind) {
    case OPTION_COUNT:
    case OPTION_LIMIT:
        snprintf(ret_text, OPTION_WHY_SIZE, "a number from %llu to %llu", min, max);
        break;
    case OPTION_SIZE:
        snprintf(ret_text, OPTION_WHY_SIZE, "a size from %s to %s", option_size_format(min, low),
                 option_size_format(max, high));
        break;
    case OPTION_SECONDS:
        snprintf(ret_text, OPTION_WHY_SIZE, "a duration from %s to %s, in whole seconds",
                 option_duration_format(min * 1000000, low),
                 option_duration_format(max * 1000000, high));
        break;
    default:
        snprintf(ret_text, OPTION_WHY_SIZE, "a duration from %s to %s",
                 option_duration_format(min, low), option_duration_format(max, high));
    }
}

const char *option_expectation(const struct option *option, char ret_text[OPTION_WHY_SIZE])
{
    static const char *const texts[] = {
        [OPTION_MAPPING] = "a mapping",
        [OPTION_SEQUENCE] = "a list of mappings",
        [OPTION_BOOL] = "true or false",
        [OPTION_DATE] = "a date such as 2026-11-26, not before 2000",
        [OPTION_LIMIT_LIST] = "a number from 1 to 1000000000",
        [OPTION_NAME] = "a domain name",
        [OPTION_PATTERN] = "a domain, \"*.\" and a domain, or \"*\"",
        [OPTION_HOST] = "a host name or an address",
        [OPTION_RATE] = "rates such as `100/10m` or `50/s, 1000/1m`, at most eight windows",
        [OPTION_PATTERN_LIST] = "a domain, \"*.\" and a domain, or \"*\"",
        [OPTION_FIELD_LIST] = "the name of a header field: letters, digits and hyphens",
        [OPTION_PATH_LIST] = "a path, which may have `*`, `?` and `[a-z]`",
        [OPTION_ENDPOINT] = "address:port or [address]:port",
        [OPTION_PREFIX_LIST] = "a prefix such as 192.0.2.0/24 (no bits set behind it)",
        [OPTION_ENDPOINT_LIST] = "an address, address:port or [address]:port",
        [OPTION_IP_LIST] = "an address",
        [OPTION_INTERFACE_LIST] = "an address with the size of its network, such as 192.0.2.1/24",
    };

    switch (option->kind) {
    case OPTION_COUNT:
    case OPTION_LIMIT:
    case OPTION_SIZE:
    case OPTION_DURATION:
    case OPTION_SECONDS:
        range_format(option, ret_text);
        break;
    case OPTION_CHOICE:
    case OPTION_CHOICE_LIST:
        words_format(option->choices, ret_text);
        break;
    case OPTION_TEXT:
    case OPTION_WORD:
    case OPTION_PATH:
        snprintf(ret_text, OPTION_WHY_SIZE, "%s, at most %llu octets",
                 option->kind == OPTION_TEXT   ? "a line of text"
                 : option->kind == OPTION_WORD ? "a name of letters, digits, `.`, `_`, `-`"
                                               : "a path",
                 (unsigned long long)option->max);
        break;
    default:
        snprintf(ret_text, OPTION_WHY_SIZE, "%s", texts[option->kind]);
    }
    return ret_text;
}
