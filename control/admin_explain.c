/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Why mail of a site goes, or does not. A visit runs on each shard's thread, a slice at a time, and
 * copies what that shard knows; when all have told, the answer is made of it
 * (admin_explain_answer.c).
 *
 * Invariant: what shards own is copied, nothing of theirs is followed after their reply.
 *
 * Limits: SITES_PER_LOOK sites in one look; SEEN_MAX rows of sites in all.
 */
#include "control/admin_explain_internal.h"

#include <stdlib.h>
#include <string.h>

#define SITES_PER_LOOK 4096u
#define SEEN_MAX       1024u

/* ---- on the shards ---- */

/* It can be used, though not by both of its families. */
static void family_look(const struct source_view *view, struct explain_source *seen, tick_us now)
{
    static const char *const names[SOURCE_PART_COUNT] = {
        [SOURCE_IP4] = "IPv4", [SOURCE_IP6] = "IPv6"};

    for (uint32_t part = SOURCE_IP4; part <= SOURCE_IP6 && !view->is_broken; part++) {
        const struct source_rest *rest = &view->rests[part];
        if (!source_rest_holds(rest, now))
            continue;
        seen->family = names[part];
        seen->family_left = rest->until > now ? rest->until - now : 0;
        memcpy(seen->family_reason, rest->reason, sizeof(seen->family_reason));
    }
}

static void source_look(struct source_set *sources, const char *name, struct explain_source *seen,
                        tick_us now)
{
    const struct tick_source *clock = tick_source_system();
    wall_us wall = clock->wall(clock->context);

    for (uint32_t i = 0; i < source_count(sources); i++) {
        struct source_view view = source_get_view(sources, i, now);
        const struct settings_warmup *warmup = &view.source->warmup;
        if (strcmp(view.source->is_implied ? "" : view.source->name, name) != 0)
            continue;
        seen->is_suspended = view.is_suspended;
        seen->is_broken = view.is_broken;
        seen->left = view.until > now ? view.until - now : 0;
        (void)snprintf(seen->reason, sizeof(seen->reason), "%s", view.reason);
        family_look(&view, seen, now);
        seen->limit = settings_warmup_limit(view.source, wall);
        if (seen->limit == SETTINGS_WARM)
            return;
        seen->day_count = warmup->day_count;
        if (wall < warmup->start)
            seen->cold_left = (tick_us)(warmup->start - wall);
        else
            seen->day = (uint32_t)((wall - warmup->start) / SETTINGS_DAY) + 1;
        return;
    }
}

static void site_copy(struct explain_asked *asked, const struct site_view *view,
                      struct transfer *transfer, tick_us now)
{
    struct explain_site *site = &asked->sites[asked->site_count++];

    *site = (struct explain_site){.core = asked->core_count - 1, .view = *view, .now = now};
    memcpy(site->label, view->label.data, view->label.size);
    if (view->source.size > 0)
        memcpy(site->source, view->source.data, view->source.size);
    if (view->order_count > 0) {
        site->orders = reallocarray(NULL, view->order_count, sizeof(*site->orders));
        CHECK(site->orders != NULL);
        memcpy(site->orders, view->orders, view->order_count * sizeof(*site->orders));
    }
    site->view.orders = NULL;
    site->view.label = site->view.source = (struct span){0};
    site->transfer = transfer_get_site_view(transfer, view->key);
    source_look(transfer_sources(transfer), site->source, &site->from, now);
}

static void sites_look(struct explain_asked *asked, struct transfer *transfer, tick_us now)
{
    struct site_view view;

    for (uint32_t i = 0; i < SITES_PER_LOOK && asked->site_count < SEEN_MAX; i++) {
        if (!site_next(transfer_sites(transfer), &asked->site_cursor, &view)) {
            asked->are_sites_done = true;
            return;
        }
        if (span_is_equal_nocase(view.label, span_from_text(asked->name)))
            site_copy(asked, &view, transfer, now);
    }
    asked->are_sites_done = asked->site_count == SEEN_MAX;
}

/* The first look at a core. */
static void core_begin(struct explain_asked *asked, struct transfer *transfer)
{
    struct explain_core *cores =
        reallocarray(asked->cores, asked->core_count + 1, sizeof(*asked->cores));
    const struct qmgr_classes *classes = qmgr_get_classes(transfer_queue(transfer));

    CHECK(cores != NULL);
    asked->cores = cores;
    struct explain_core *core = &cores[asked->core_count++];
    core->client = client_get_stats(transfer_client(transfer));
    core->transfer = transfer_get_view(transfer);
    asked->retry_min = core->transfer.queue->retry_min;
    asked->retry_max = core->transfer.queue->retry_max;
    core->transfer.queue = NULL;
    asked->site_cursor = 0;
    asked->are_sites_done = false;
    asked->line_cursor = 0;
    for (uint32_t i = 0; i < QMGR_ROUND_CLASS_COUNT; i++) {
        (void)qmgr_class_name(transfer_queue(transfer), (uint8_t)i, asked->class_names[i]);
        asked->least[i] = classes != NULL && i < classes->count ? classes->least[i] : 0;
    }
}

static void visit_explain(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct explain_asked *asked = query->found;

    if (query->cursor == 0)
        core_begin(asked, transfer);
    query->cursor = 1;
    asked->now = now;
    if (!asked->are_sites_done)
        sites_look(asked, transfer, now);
    else if (asked->line_cursor != UINT64_MAX)
        qmgr_name_use_add(transfer_queue(transfer), span_from_text(asked->name),
                          &asked->line_cursor, &asked->mail, now);
    if (asked->line_cursor == UINT64_MAX)
        query->cursor = UINT64_MAX;
}

/* ---- requests ---- */

bool admin_explain_prepare(const char *verb, const json_t *request, struct shard_query *query)
{
    const char *name = json_string_value(json_object_get(request, "id"));

    if (strcmp(verb, "explain") != 0)
        return false;
    struct explain_asked *asked = calloc(1, sizeof(*asked));
    struct explain_site *sites = calloc(SEEN_MAX, sizeof(*sites));
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_explain;
    query->found = sites == NULL ? NULL : asked;
    if (query->found == NULL) {
        free(asked);
        free(sites);
        return true;
    }
    asked->sites = sites;
    if (name != NULL)
        memcpy(asked->name, name, strnlen(name, sizeof(asked->name) - 1));
    return true;
}

bool admin_explain_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit_explain;
}

void admin_explain_end(struct shard_query *query)
{
    struct explain_asked *asked = query->found;

    for (uint32_t i = 0; asked != NULL && i < asked->site_count; i++)
        free(asked->sites[i].orders);
    if (asked != NULL) {
        free(asked->sites);
        free(asked->cores);
    }
    free(asked);
    query->found = NULL;
}
