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
