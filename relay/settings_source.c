/* SPDX-License-Identifier: Apache-2.0 */
/* Look-ups among sources and pools: both are few, and searched from end to end. */
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
                                                 struct span sender_domain)
{
    for (uint32_t i = 0; i < settings->pool_rule_count; i++) {
        const struct settings_pool_rule *rule = &settings->pool_rules[i];
        if (rule_has_listener(rule, listener) && rule_has_sender(rule, sender_domain))
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

struct flow_address settings_source_address(const struct settings_source *source,
                                            enum flow_family family)
{
    return family == FLOW_FAMILY_IP6 ? source->ip6 : source->ip4;
}

bool settings_source_has_family(const struct settings_source *source, enum flow_family family)
{
    if (source->ip4.family == FLOW_FAMILY_NONE && source->ip6.family == FLOW_FAMILY_NONE)
        return true;
    return settings_source_address(source, family).family != FLOW_FAMILY_NONE;
}
