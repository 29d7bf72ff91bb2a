/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `delivery_rules`: which way mail of some senders goes. Who a rule is about must be said: for all
 * mail there is `delivery`.
 */
#include "control/config.h"

enum err config_delivery_assemble(struct config *config, struct config_report *report)
{
    const struct config_delivery_rule *items = config->delivery_rules.items;
    uint32_t count = config->delivery_rules.count;
    struct settings_delivery_rule *rules =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*rules));

    if (rules == NULL) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++) {
        rules[i] = items[i].settings;
        rules[i].senders = items[i].senders.items;
        rules[i].sender_count = items[i].senders.count;
        rules[i].clients = items[i].clients.items;
        rules[i].client_count = items[i].clients.count;
        if (rules[i].sender_count == 0 && rules[i].client_count == 0 && rules[i].user == NULL)
            config_complain(report, items[i].line, "delivery_rules[]",
                            "says nothing: expected `senders`, `user` or `clients`");
    }
    config->settings.delivery_rules = rules;
    config->settings.delivery_rule_count = count;
    return ERR_OK;
}
