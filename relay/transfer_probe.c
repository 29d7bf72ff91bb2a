/* SPDX-License-Identifier: Apache-2.0 */
#include "relay/transfer_probe.h"

#include "relay/transfer_internal.h"

void transfer_probe_on_dns(struct transfer_probe *probe)
{
    probe->is_asking = false;
}

static enum err probe_resolve(struct transfer *transfer, struct transfer_probe *probe)
{
    const struct mx_policy *policy = &transfer->settings->mx;
    uint64_t user = transfer_probe_user(probe);

    if (probe->is_host_only)
        return mx_lookup_host(transfer->options.dns, policy, probe->domain, policy->port, user,
                              transfer->now, &probe->answer);
    if (!probe->is_dns_only &&
        (probe->route->kind == SETTINGS_ROUTE_HOSTS || probe->route->kind == SETTINGS_ROUTE_LMTP))
        return transfer_route_resolve(transfer, probe->route, user, &probe->answer);
    if (probe->is_dns_only || probe->route->kind == SETTINGS_ROUTE_MX)
        return mx_lookup(transfer->options.dns, policy, probe->domain, user, transfer->now,
                         &probe->answer);
    probe->answer = (struct mx_answer){.verdict = MX_OK, .reason = ""};
    return ERR_OK;
}

enum err transfer_probe_run(struct transfer *transfer, struct transfer_probe *probe,
                            struct tick_now now)
{
    transfer->now = now;
    if (probe->is_asking)
        return ERR_AGAIN;
    probe->route = settings_route_find(transfer->settings, probe->domain);
    enum err err = probe_resolve(transfer, probe);
    probe->is_asking = err == ERR_AGAIN;
    probe->was_asked = probe->was_asked || probe->is_asking;
    if (err != ERR_OK)
        return err;
    for (uint32_t i = 0; i < probe->answer.host_count; i++)
        probe->is_dead[i] = transfer_host_is_dead(transfer, &probe->answer.hosts[i]);
    probe->limits = (struct settings_site_limits){0};
    if (probe->answer.host_count > 0)
        probe->limits = settings_site_find(transfer->settings, probe->domain, &probe->answer);
    return ERR_OK;
}
