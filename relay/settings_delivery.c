/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which way mail of a sender is to go: the first rule that fits, by all that it says. What listener
 * and site say is joined with it where mail begins (server_body.c, transfer_cut.c).
 */
#include "relay/settings.h"

static bool rule_has_sender(const struct settings_delivery_rule *rule, struct span domain)
{
    for (uint32_t i = 0; i < rule->sender_count; i++) {
        if (settings_name_matches(rule->senders[i], domain))
            return true;
    }
    return rule->sender_count == 0;
}

static bool rule_has_client(const struct settings_delivery_rule *rule,
                            const struct flow_address *client)
{
    for (uint32_t i = 0; i < rule->client_count; i++) {
        if (flow_prefix_contains(&rule->clients[i], client))
            return true;
    }
    return rule->client_count == 0;
}

static bool rule_fits(const struct settings_delivery_rule *rule, const struct settings_mail *mail)
{
    if (rule->user != NULL && !settings_user_matches(rule->user, mail->user))
        return false;
    return rule_has_sender(rule, mail->sender_domain) && rule_has_client(rule, mail->client);
}

enum settings_delivery settings_delivery_find(const struct settings *settings,
                                              const struct settings_mail *mail)
{
    for (uint32_t i = 0; i < settings->delivery_rule_count; i++) {
        if (rule_fits(&settings->delivery_rules[i], mail))
            return settings->delivery_rules[i].delivery;
    }
    return SETTINGS_DELIVERY_UNSAID;
}
