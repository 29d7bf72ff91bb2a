/* SPDX-License-Identifier: Apache-2.0 */
/* Look-ups among sources and pools: both are few, and searched from end to end. And what a route to
 * mailbox servers has to do with them: nothing. */
#include "relay/settings.h"

const struct settings_pool *settings_pool_find(const struct settings *settings, struct span name)
{
    for (uint32_t i = 0; i < settings->pool_count; i++) {
        if (span_is_equal_nocase(span_from_text(settings->pools[i].name), name))
            return &settings->pools[i];
    }
    return NULL;
}

const struct settings_pool *settings_pool_of(const struct settings *settings, struct span name)
{
    const struct settings_pool *pool = name.size > 0 ? settings_pool_find(settings, name) : NULL;

    CHECK(settings->default_pool < settings->pool_count);
    return pool != NULL ? pool : &settings->pools[settings->default_pool];
}

static bool rule_has_listener(const struct settings_pool_rule *rule,
                              const struct flow_address *listener)
{
    for (uint32_t i = 0; i < rule->listener_count; i++) {
        if (flow_address_is_equal(&rule->listeners[i], listener))
            return true;
    }
    return rule->listener_count == 0;
}

static bool rule_has_sender(const struct settings_pool_rule *rule, struct span domain)
{
    for (uint32_t i = 0; i < rule->sender_count; i++) {
        if (settings_name_matches(rule->senders[i], domain))
            return true;
    }
    return rule->sender_count == 0;
}

const struct settings_pool *settings_pool_choose(const struct settings *settings,
                                                 const struct flow_address *listener,
                                                 struct span sender_domain, struct span user)
{
    for (uint32_t i = 0; i < settings->pool_rule_count; i++) {
        const struct settings_pool_rule *rule = &settings->pool_rules[i];
        bool is_user = rule->user == NULL || settings_user_matches(rule->user, user);
        if (is_user && rule_has_listener(rule, listener) && rule_has_sender(rule, sender_domain))
            return settings_pool_of(settings, span_from_text(rule->pool));
    }
    return settings_pool_of(settings, (struct span){0});
}

bool settings_pool_header_is_allowed(const struct settings *settings,
                                     const struct flow_address *client)
{
    for (uint32_t i = 0; i < settings->pool_header_from_count; i++) {
        if (flow_prefix_contains(&settings->pool_header_from[i], client))
            return true;
    }
    return false;
}

const struct settings_source *settings_source_find(const struct settings *settings,
                                                   struct span name)
{
    for (uint32_t i = 0; i < settings->source_count; i++) {
        if (span_is_equal_nocase(span_from_text(settings->sources[i].name), name))
            return &settings->sources[i];
    }
    return NULL;
}

/* The day of the warm-up, from 0 on; below 0 before it. */
static int64_t warmup_day(const struct settings_warmup *warmup, wall_us now)
{
    return now < warmup->start ? -1 : (now - warmup->start) / SETTINGS_DAY;
}

uint32_t settings_warmup_limit(const struct settings_source *source, wall_us now)
{
    int64_t day = warmup_day(&source->warmup, now);

    if (source->warmup.day_count == 0 || day >= source->warmup.day_count)
        return SETTINGS_WARM;
    return day < 0 ? 0 : source->warmup.schedule[day];
}

wall_us settings_warmup_next(const struct settings *settings, wall_us now)
{
    wall_us next = INT64_MAX;

    for (uint32_t i = 0; i < settings->source_count; i++) {
        const struct settings_warmup *warmup = &settings->sources[i].warmup;
        int64_t day = warmup_day(warmup, now);
        if (warmup->day_count == 0 || day >= warmup->day_count)
            continue;
        wall_us change = warmup->start + (day + 1) * SETTINGS_DAY;
        next = change < next ? change : next;
    }
    return next;
}

struct flow_address settings_source_address(const struct settings_source *source,
                                            enum flow_family family)
{
    return family == FLOW_FAMILY_IP6 ? source->ip6 : source->ip4;
}

struct flow_address settings_socket_address(const char *path)
{
    struct flow_address address = {.family = FLOW_FAMILY_UNIX};
    uint64_t sum = 0xcbf29ce484222325u; /* FNV-1a: nobody but the operator chooses paths */

    for (const char *at = path; *at != '\0'; at++)
        sum = (sum ^ (uint8_t)*at) * 0x100000001b3u;
    memcpy(address.ip, &sum, sizeof(sum));
    return address;
}

bool settings_route_has_source(const struct settings_route *route)
{
    return route->kind != SETTINGS_ROUTE_LMTP;
}

bool settings_source_has_family(const struct settings_source *source, enum flow_family family)
{
    if (source->ip4.family == FLOW_FAMILY_NONE && source->ip6.family == FLOW_FAMILY_NONE)
        return true;
    return settings_source_address(source, family).family != FLOW_FAMILY_NONE;
}
