/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `sources` and `pools`: names that occur once, addresses that belong to one source alone, members
 * that exist.
 *
 * Without `sources` there is one, without an address; without `pools` there is one, of all sources
 * with weight 1. Both are named "default".
 *
 * Invariants of the result
 *   1. There is at least one source, and one pool; every pool has a member.
 *   2. A pool named "default", if there is one, is the default pool: mail of the default pool is
 *      shown under that name.
 */
#include <string.h>
#include <strings.h>

#include "control/config.h"

#define NAME_DEFAULT "default"

static enum err no_memory(struct config_report *report)
{
    config_complain(report, 0, "", "the configuration is too large");
    return ERR_MEMORY;
}

/* ---- sources ---- */

static void source_take_addresses(struct config_source *source, struct config_report *report)
{
    const struct flow_address *addresses = source->addresses.items;

    for (uint32_t i = 0; i < source->addresses.count; i++) {
        struct flow_address *into =
            addresses[i].family == FLOW_FAMILY_IP4 ? &source->settings.ip4 : &source->settings.ip6;
        if (into->family != FLOW_FAMILY_NONE)
            config_complain(report, source->line, "sources[].addresses",
                            "two addresses of one family");
        *into = addresses[i];
    }
}

static bool is_same_address(const struct flow_address *a, const struct flow_address *b)
{
    return a->family != FLOW_FAMILY_NONE && flow_address_is_equal(a, b);
}

static bool is_same_name(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0; /* NULL: the parser has complained */
}

static void source_check(const struct config_source *source, const struct config_source *earlier,
                         struct config_report *report)
{
    const struct settings_source *a = &source->settings, *b = &earlier->settings;
    char where[CONFIG_WHERE_SIZE];

    if (is_same_name(a->name, b->name))
        config_complain(report, source->line, "sources[].name",
                        "%s is the name of a source in %s already", a->name,
                        config_where(report, earlier->line, where));
    if (is_same_address(&a->ip4, &b->ip4) || is_same_address(&a->ip6, &b->ip6))
        config_complain(report, source->line, "sources[].addresses",
                        "has an address of the source in %s",
                        config_where(report, earlier->line, where));
}

/* A warm-up is one more window of every site. */
static void rates_check(const struct config *config, struct config_report *report)
{
    const struct config_site *sites = config->sites.items;

    for (uint32_t i = 0; i < config->sites.count; i++) {
        if (sites[i].settings.rates.count == RATE_MAX)
            config_complain(report, sites[i].line, "sites[].rate",
                            "expected one window less: a source warms up");
    }
}

static enum err sources_make(struct config *config, struct config_report *report)
{
    struct config_source *items = config->sources.items;
    uint32_t count = config->sources.count;
    struct settings_source *sources =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*sources));

    if (sources == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        source_take_addresses(&items[i], report);
        items[i].settings.warmup.schedule = items[i].schedule.items;
        items[i].settings.warmup.day_count = items[i].schedule.count;
        if (items[i].warmup_line > 0)
            rates_check(config, report);
        sources[i] = items[i].settings;
        for (uint32_t j = 0; j < i; j++)
            source_check(&items[i], &items[j], report);
    }
    if (count == 0)
        sources[count++] = (struct settings_source){.name = NAME_DEFAULT, .is_implied = true};
    config->settings.sources = sources;
    config->settings.source_count = count;
    return ERR_OK;
}

/* ---- pools ---- */

static uint32_t source_number(const struct config *config, const char *name)
{
    uint32_t number = 0;

    while (number < config->settings.source_count &&
           !is_same_name(config->settings.sources[number].name, name))
        number++;
    return number;
}

static enum err members_make(struct config *config, struct config_pool *pool,
                             struct config_report *report)
{
    char where[CONFIG_WHERE_SIZE];
    const struct config_member *items = pool->members.items;
    uint32_t count = pool->members.count;
    struct settings_member *members =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*members));

    if (members == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        members[i] =
            (struct settings_member){source_number(config, items[i].source), items[i].weight};
        if (members[i].source == config->settings.source_count)
            config_complain(report, items[i].line, "pools[].members[].source",
                            "there is no source of that name");
        for (uint32_t j = 0; j < i; j++) {
            if (members[j].source == members[i].source)
                config_complain(report, items[i].line, "pools[].members[].source",
                                "is a member in %s already",
                                config_where(report, items[j].line, where));
        }
    }
    if (count == 0)
        config_complain(report, pool->line, "pools[].members", "must be given");
    pool->settings.members = members;
    pool->settings.member_count = count;
    return ERR_OK;
}

static enum err pool_make_default(struct config *config, struct settings_pool *ret_pool,
                                  struct config_report *report)
{
    uint32_t count = config->settings.source_count;
    struct settings_member *members = arena_acquire(&config->arena, count * sizeof(*members));

    if (members == NULL)
        return no_memory(report);
    if (count > SETTINGS_MEMBER_MAX) {
        config_complain(report, 0, "sources", "more than %u need `pools`", SETTINGS_MEMBER_MAX);
        count = SETTINGS_MEMBER_MAX;
    }
    for (uint32_t i = 0; i < count; i++)
        members[i] = (struct settings_member){i, 1};
    *ret_pool = (struct settings_pool){NAME_DEFAULT, members, count};
    return ERR_OK;
}

static uint32_t pool_number(const struct config *config, const char *name)
{
    uint32_t number = 0;

    while (number < config->settings.pool_count &&
           !is_same_name(config->settings.pools[number].name, name))
        number++;
    return number;
}

static void default_choose(struct config *config, struct config_report *report)
{
    uint32_t count = config->settings.pool_count;
    uint32_t wanted = pool_number(config, config->default_pool);
    uint32_t named = pool_number(config, NAME_DEFAULT);

    if (config->default_pool != NULL && wanted == count)
        config_complain(report, 0, "default_pool", "there is no pool named %s",
                        config->default_pool);
    else if (config->default_pool != NULL && named != count && named != wanted)
        config_complain(report, 0, "default_pool",
                        "there is a pool named default: it is the default");
    config->settings.default_pool = wanted != count ? wanted : named != count ? named : 0;
}

static enum err pools_make(struct config *config, struct config_report *report)
{
    char where[CONFIG_WHERE_SIZE];
    struct config_pool *items = config->pools.items;
    uint32_t count = config->pools.count;
    struct settings_pool *pools =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*pools));

    if (pools == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        TRY(members_make(config, &items[i], report));
        pools[i] = items[i].settings;
        for (uint32_t j = 0; j < i; j++) {
            if (is_same_name(pools[i].name, pools[j].name))
                config_complain(report, items[i].line, "pools[].name",
                                "%s is the name of a pool in %s already", pools[i].name,
                                config_where(report, items[j].line, where));
        }
    }
    if (count == 0)
        TRY(pool_make_default(config, &pools[count++], report));
    config->settings.pools = pools;
    config->settings.pool_count = count;
    default_choose(config, report);
    return ERR_OK;
}

/* ---- which pool ---- */

bool config_has_listener(const struct config *config, const struct flow_address *address)
{
    for (uint32_t i = 0; i < config->settings.listener_count; i++) {
        struct flow_address listener = config->settings.listeners[i].address;
        if (address->port == 0)
            listener.port = 0;
        if (flow_address_is_equal(&listener, address))
            return true;
    }
    return false;
}

static void rule_check(const struct config *config, const struct config_pool_rule *rule,
                       struct config_report *report)
{
    const struct flow_address *listeners = rule->listeners.items;
    char text[FLOW_ADDRESS_TEXT_MAX];

    if (rule->settings.pool != NULL &&
        settings_pool_find(&config->settings, span_from_text(rule->settings.pool)) == NULL)
        config_complain(report, rule->line, "pool_rules[].pool", "there is no pool named %s",
                        rule->settings.pool);
    for (uint32_t i = 0; i < rule->listeners.count; i++) {
        if (!config_has_listener(config, &listeners[i]))
            config_complain(report, rule->line, "pool_rules[].listeners",
                            "%s is no address of `listen`",
                            flow_address_format(&listeners[i], text));
    }
}

static enum err rules_make(struct config *config, struct config_report *report)
{
    const struct config_pool_rule *items = config->pool_rules.items;
    uint32_t count = config->pool_rules.count;
    struct settings_pool_rule *rules =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*rules));

    if (rules == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        rule_check(config, &items[i], report);
        rules[i] = (struct settings_pool_rule){.listeners = items[i].listeners.items,
                                               .listener_count = items[i].listeners.count,
                                               .senders = items[i].senders.items,
                                               .sender_count = items[i].senders.count,
                                               .user = items[i].settings.user,
                                               .pool = items[i].settings.pool};
    }
    config->settings.pool_rules = rules;
    config->settings.pool_rule_count = count;
    config->settings.pool_header_from = config->pool_header_from.items;
    config->settings.pool_header_from_count = config->pool_header_from.count;
    return ERR_OK;
}

/* What is cut out of everybody's mail must be nobody else's. */
bool config_is_own_field(const char *name)
{
    return strncasecmp(name, "x-", 2) == 0 && name[2] != '\0';
}

static void rest_check(const struct config *config, struct config_report *report)
{
    const struct settings_source_rest *rest = &config->settings.source_rest;

    if (rest->longest < rest->first)
        config_complain(report, config->source_rest_line, "source_rest.longest",
                        "is less than source_rest.first");
}

enum err config_sources_assemble(struct config *config, struct config_report *report)
{
    const char *header = config->pool_header;
    bool has_header = header != NULL && header[0] != '\0';

    if (has_header && !config_is_own_field(header))
        config_complain(report, config->pool_header_line, "pool_header.name",
                        "is cut out of mail: it must begin with X-");
    config->settings.header.fields[HEADER_POOL].name = has_header ? header : NULL;
    config->settings.header.fields[HEADER_POOL].is_cut = true;
    config->settings.header.fields[HEADER_POOL].is_lenient = true;
    rest_check(config, report);
    TRY(sources_make(config, report));
    TRY(pools_make(config, report));
    return rules_make(config, report);
}
