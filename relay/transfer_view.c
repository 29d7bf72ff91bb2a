/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The hub as operators see it: nothing here changes anything.
 *
 * The hosts of a site are known by the mail that waits there, of which the first line that has been
 * resolved is asked; those of a site without mail nobody remembers.
 */
#include "relay/transfer_internal.h"

struct transfer_view transfer_get_view(const struct transfer *transfer)
{
    return (struct transfer_view){
        .queue = &transfer->options.queue,
        .read_memory = transfer->read_memory,
        .read_memory_max = transfer->read_memory_max,
        .flows = flow_plane_stats(transfer->options.plane).flows,
    };
}

static void hosts_add(const struct transfer *transfer, const struct mx_answer *answer,
                      struct transfer_site_view *view)
{
    for (uint32_t i = 0; i < answer->host_count; i++) {
        const struct mx_host *host = &answer->hosts[i];
        for (uint32_t j = 0; j < host->address_count; j++) {
            tick_us until = site_host_dead_until(transfer->sites, &host->addresses[j],
                                                 sizeof(host->addresses[j]));
            view->address_count++;
            if (until <= transfer->now.tick)
                continue;
            if (view->dead_count < TRANSFER_VIEW_HOST_MAX) {
                view->dead[view->dead_count] = host->addresses[j];
                view->dead_until[view->dead_count] = until;
            }
            view->dead_count++;
        }
    }
}

static uint32_t unread_count(const struct transfer *transfer, const struct transfer_site *site)
{
    const struct transfer_job *job;
    const struct transfer_member *member;
    uint32_t count = 0;

    TAILQ_FOREACH(job, &transfer->unread, link)
    {
        TAILQ_FOREACH(member, &site->members, link)
        count += member->place == job->place;
    }
    return count;
}

struct client_ahead_view transfer_get_ahead(struct transfer *transfer, uint64_t key)
{
    const struct transfer_site *site = transfer_site_find(transfer, key);
    enum settings_bdat_ahead bdat = site == NULL ? SETTINGS_BDAT_AHEAD_UNSAID : site->bdat_ahead;

    if (bdat == SETTINGS_BDAT_AHEAD_UNSAID)
        bdat = transfer->settings->client.bdat_ahead;
    return client_get_ahead(transfer->client, key, bdat);
}

struct transfer_site_view transfer_get_site_view(struct transfer *transfer, uint64_t key)
{
    const struct transfer_site *site = transfer_site_find(transfer, key);
    struct transfer_site_view view = {
        .idle = client_idle_count(transfer->client, key),
        .has_room = client_has_room(transfer->client, key, transfer->now.tick),
        .ahead = transfer_get_ahead(transfer, key),
    };
    const struct transfer_member *member;

    if (site == NULL)
        return view;
    view.away = site->away;
    view.unread = unread_count(transfer, site);
    TAILQ_FOREACH(member, &site->members, link)
    {
        const struct transfer_line *line = TAILQ_FIRST(&member->place->lines);
        if (line == NULL)
            continue;
        hosts_add(transfer, &line->answer, &view);
        break;
    }
    return view;
}
