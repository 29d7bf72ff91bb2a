/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Look-ups in a settings snapshot.
 *
 * Routes are found through an open-addressed table of their patterns, made once per snapshot by
 * settings_route_table_new(): one probe for the exact name, then one for each "*." suffix from the
 * longest to the shortest (a name has at most 127 labels), then the default. A snapshot without a
 * table (a handful of routes, as in tests) is searched from end to end.
 */
#include "relay/settings.h"

#include <stdlib.h>

static uint32_t pattern_hash(bool is_wild, struct span name)
{
    uint32_t hash = is_wild ? 2166136261u ^ '*' : 2166136261u; /* FNV-1a */

    for (uint32_t i = 0; i < name.size; i++)
        hash = (hash ^ name.data[i]) * 16777619u;
    return hash ^ hash >> 15;
}

/* A pattern is "*", a name, or "*." and a name. */
static struct span pattern_name(const char *pattern, bool *ret_is_wild)
{
    *ret_is_wild = pattern[0] == '*' && pattern[1] == '.';
    return span_from_text(*ret_is_wild ? pattern + 2 : pattern);
}

static bool pattern_is(const char *pattern, bool is_wild, struct span name)
{
    bool has_star;
    struct span own_name = pattern_name(pattern, &has_star);

    return has_star == is_wild && span_is_equal(own_name, name);
}

uint32_t *settings_route_table_new(const struct settings *settings, uint32_t *ret_size)
{
    uint32_t size = 16;

    while (size < 2 * settings->route_count)
        size *= 2;
    uint32_t *table = calloc(size, sizeof(*table));
    CHECK(table != NULL); /* control thread, start or reload */
    for (uint32_t i = 0; i < settings->route_count; i++) {
        bool is_wild;
        struct span name = pattern_name(settings->routes[i].pattern, &is_wild);
        uint32_t slot = pattern_hash(is_wild, name) & (size - 1);
        while (table[slot] != 0)
            slot = (slot + 1) & (size - 1);
        table[slot] = i + 1;
    }
    *ret_size = size;
    return table;
}

static const struct settings_route *route_find(const struct settings *settings, bool is_wild,
                                               struct span name)
{
    if (settings->route_table == NULL) {
        for (uint32_t i = 0; i < settings->route_count; i++) {
            if (pattern_is(settings->routes[i].pattern, is_wild, name))
                return &settings->routes[i];
        }
        return NULL;
    }
    uint32_t mask = settings->route_table_size - 1, slot = pattern_hash(is_wild, name) & mask;
    for (; settings->route_table[slot] != 0; slot = (slot + 1) & mask) {
        const struct settings_route *route = &settings->routes[settings->route_table[slot] - 1];
        if (pattern_is(route->pattern, is_wild, name))
            return route;
    }
    return NULL;
}

const struct settings_route *settings_route_find(const struct settings *settings,
                                                 struct span domain)
{
    CHECK(settings->route_count > 0);
    if (settings->route_count == 1)
        return &settings->routes[0];

    const struct settings_route *route = route_find(settings, false, domain);
    for (uint32_t i = 0; i < domain.size && route == NULL; i++) {
        if (domain.data[i] == '.')
            route = route_find(settings, true, span_skip(domain, i + 1));
    }
    return route != NULL ? route : &settings->routes[settings->route_count - 1];
}

bool settings_user_matches(const char *pattern, struct span user)
{
    struct span end = span_from_text(pattern);

    if (end.size == 0 || end.data[0] != '*')
        return user.size > 0 && span_is_equal_nocase(end, user);
    end = span_skip(end, 1);
    return user.size > end.size && span_is_equal_nocase(span_skip(user, user.size - end.size), end);
}

bool settings_relay_is_allowed(const struct settings *settings, const struct flow_address *client)
{
    for (uint32_t i = 0; i < settings->relay_from_count; i++) {
        if (flow_prefix_contains(&settings->relay_from[i], client))
            return true;
    }
    return false;
}
