/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Relay policy: the one place that decides whether a recipient is taken.
 *
 *   1. Postmaster, alone or at a served domain, goes to the configured postmaster address.
 *   2. A route of kind REFUSE refuses, whoever asks.
 *   3. Clients in relay_from may send anywhere.
 *   4. Others may send to served domains only, and not with a local part that asks for further
 *      routing (user%elsewhere, elsewhere!user, "user@elsewhere"): a server behind us that still
 *      honours such forms would make the pair an open relay.
 *
 * The decision rests on the final parsed domain, the same octets that are routed later.
 */
#include "relay/policy.h"

static bool has_routing_operator(struct span local_part)
{
    for (uint32_t i = 0; i < local_part.size; i++) {
        uint8_t octet = local_part.data[i];
        if (octet == '%' || octet == '!' || octet == '@')
            return true;
    }
    return false;
}

static enum policy_verdict map_postmaster(const struct settings *settings,
                                          struct policy_recipient *recipient)
{
    char path[SMTP_PATH_MAX + 1];
    uint32_t size = settings->postmaster == NULL ? 0 : (uint32_t)strlen(settings->postmaster);
    uint32_t used;

    if (size == 0 || size + 2 > SMTP_PATH_MAX)
        return POLICY_POSTMASTER_ABSENT;
    path[0] = '<';
    memcpy(path + 1, settings->postmaster, size);
    path[size + 1] = '>';
    if (smtp_path_parse(span_of(path, size + 2), SMTP_PATH_UTF8_OK, &recipient->postmaster,
                        &used) != ERR_OK)
        return POLICY_POSTMASTER_ABSENT;
    recipient->address = span_from_text(settings->postmaster);
    recipient->domain =
        span_of(recipient->postmaster.domain_key, recipient->postmaster.domain_key_size);
    recipient->route = settings_route_find(settings, recipient->domain);
    return POLICY_OK;
}

enum policy_verdict policy_recipient_check(const struct settings *settings, bool is_relay_client,
                                           const struct smtp_address *address,
                                           struct policy_recipient *ret_recipient)
{
    CHECK(!address->is_null && !address->is_literal);

    struct span domain = span_of(address->domain_key, address->domain_key_size);
    bool is_postmaster = span_is_equal_nocase(address->local_part, SPAN_LITERAL("postmaster"));
    if (domain.size == 0) {
        CHECK(is_postmaster); /* the parser lets no other address go without a domain */
        return map_postmaster(settings, ret_recipient);
    }
    const struct settings_route *route = settings_route_find(settings, domain);
    ret_recipient->route = route;
    if (route->kind == SETTINGS_ROUTE_REFUSE)
        return POLICY_ROUTE_REFUSED;
    if (!is_relay_client && (!route->is_served || has_routing_operator(address->local_part)))
        return POLICY_RELAY_DENIED;
    if (is_postmaster && route->is_served)
        return map_postmaster(settings, ret_recipient);
    ret_recipient->address = address->text;
    ret_recipient->domain = domain;
    return POLICY_OK;
}
