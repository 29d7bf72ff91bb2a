/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which rule of `sites` is for a destination, and what it allows.
 *
 * A provider's rule names mail exchangers: it is for every domain all of whose hosts it matches,
 * and these domains are one site together, whatever names their hosts have (MX roll-up). Else the
 * most specific rule for the domain decides; a domain with a rule of its own is a site of its own,
 * even if it shares its mail exchangers with others. All others are one site for each set of hosts.
 * What a rule does not say, the rule for "*" says, and what that does not say, `client`.
 *
 * Limits: rules are searched from end to end, once for each time a domain's mail comes to its turn.
 */
#include "relay/settings.h"

#include <stdio.h>

bool settings_name_matches(const char *pattern, struct span name)
{
    struct span wanted = span_from_text(pattern);

    if (pattern[0] != '*')
        return span_is_equal_nocase(wanted, name);
    wanted = span_skip(wanted, 1); /* "" or ".example.org" */
    return name.size > wanted.size &&
           span_is_equal_nocase(wanted, span_skip(name, name.size - wanted.size));
}

static bool host_is_of(const struct settings_site *rule, struct span name)
{
    for (uint32_t i = 0; i < rule->mx_count; i++) {
        if (settings_name_matches(rule->mx[i], name))
            return true;
    }
    return false;
}

static bool provider_matches(const struct settings_site *rule, const struct mx_answer *answer)
{
    for (uint32_t i = 0; i < answer->host_count + answer->other_count; i++) {
        if (!host_is_of(rule, span_from_text(answer->hosts[i].name)))
            return false;
    }
    return answer->host_count > 0;
}

/* An exact name counts most, then the longer pattern. */
static uint32_t domain_score(const struct settings_site *rule, struct span domain)
{
    if (!settings_name_matches(rule->pattern, domain))
        return 0;
    return rule->pattern[0] == '*' ? (uint32_t)strlen(rule->pattern) : UINT32_MAX;
}

static const struct settings_site *rule_find(const struct settings *settings, struct span domain,
                                             const struct mx_answer *answer)
{
    const struct settings_site *best = NULL;
    uint32_t best_score = 0;

    for (uint32_t i = 0; i < settings->site_count; i++) {
        const struct settings_site *rule = &settings->sites[i];
        if (rule->provider != NULL) {
            if (provider_matches(rule, answer))
                return rule; /* providers stand first */
            continue;
        }
        uint32_t score = domain_score(rule, domain);
        if (score > best_score) {
            best = rule;
            best_score = score;
        }
    }
    return best;
}

bool settings_site_is_default(const struct settings_site *rule)
{
    return rule->provider == NULL && strcmp(rule->pattern, "*") == 0;
}

static void limits_fill(struct settings_site_limits *limits, const struct settings_site *rule)
{
    if (limits->connection_max == 0)
        limits->connection_max = rule->connection_max;
    if (limits->messages_per_connection_max == 0)
        limits->messages_per_connection_max = rule->messages_per_connection_max;
    if (limits->recipient_max == 0)
        limits->recipient_max = rule->recipient_max;
    if (limits->rates.count == 0)
        limits->rates = rule->rates;
    if (limits->delivery == SETTINGS_DELIVERY_UNSAID)
        limits->delivery = rule->delivery;
    if (limits->bdat_ahead == SETTINGS_BDAT_AHEAD_UNSAID)
        limits->bdat_ahead = rule->bdat_ahead;
}

struct settings_site_limits settings_site_find(const struct settings *settings, struct span domain,
                                               const struct mx_answer *answer)
{
    const struct settings_site *rule = rule_find(settings, domain, answer);
    struct settings_site_limits limits = {.delivery = SETTINGS_DELIVERY_UNSAID,
                                          .bdat_ahead = SETTINGS_BDAT_AHEAD_UNSAID};

    if (rule == NULL)
        return limits;
    limits_fill(&limits, rule);
    for (uint32_t i = 0; i < settings->site_count; i++) {
        if (settings_site_is_default(&settings->sites[i]))
            limits_fill(&limits, &settings->sites[i]);
    }
    if (rule->provider != NULL)
        (void)snprintf(limits.name, sizeof(limits.name), "provider/%s", rule->provider);
    else if (!settings_site_is_default(rule))
        (void)snprintf(limits.name, sizeof(limits.name), "rule/%s", rule->pattern);
    limits.provider = rule->provider;
    return limits;
}
