/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of `sites`: each is for a provider or for domains, none twice; for the relay providers
 * come first.
 */
#include <string.h>

#include "control/config.h"

static void site_check(const struct config_site *site, struct config_report *report)
{
    const struct settings_site *settings = &site->settings;

    if ((settings->pattern == NULL) == (settings->provider == NULL))
        config_complain(report, site->line, "sites[]", "expected `match` or `provider`");
    else if ((settings->provider != NULL) != (site->mx.count > 0))
        config_complain(report, site->line, "sites[].mx",
                        settings->provider != NULL ? "must be given for a provider"
                                                   : "is only for a `provider`");
}

static bool is_same(const char *a, const char *b)
{
    return a != NULL && b != NULL && strcmp(a, b) == 0;
}

static void sites_check_unique(const struct config *config, struct config_report *report)
{
    const struct config_site *items = config->sites.items;
    char where[CONFIG_WHERE_SIZE];

    for (uint32_t i = 0; i < config->sites.count; i++) {
        for (uint32_t j = 0; j < i; j++) {
            if (is_same(items[i].settings.pattern, items[j].settings.pattern) ||
                is_same(items[i].settings.provider, items[j].settings.provider))
                config_complain(report, items[i].line, "sites[]", "has a rule in %s already",
                                config_where(report, items[j].line, where));
        }
    }
}

enum err config_sites_assemble(struct config *config, struct config_report *report)
{
    struct config_site *items = config->sites.items;
    uint32_t count = config->sites.count, used = 0;
    struct settings_site *sites =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*sites));

    if (sites == NULL) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    for (uint32_t round = 0; round < 2; round++) { /* providers, then domains */
        for (uint32_t i = 0; i < count; i++) {
            if ((items[i].settings.provider != NULL) != (round == 0))
                continue;
            site_check(&items[i], report);
            sites[used] = items[i].settings;
            sites[used].mx = items[i].mx.items;
            sites[used++].mx_count = items[i].mx.count;
        }
    }
    sites_check_unique(config, report);
    config->settings.sites = sites;
    config->settings.site_count = used;
    return ERR_OK;
}
