/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites that pause. Each shard with mail for a site knows of its pause, its home also of others':
 * a site is told once, by the first that knows.
 *
 * Limits: SITE_SLICE sites in one look; ADMIN_PAUSED_MAX rows.
 */
#include "control/admin_paused.h"

#include <string.h>

#define SITE_SLICE 4096u

/* When there were too many to note them, all are asked for. */
static bool is_asked_for(const struct qmgr_retried *retried, struct span label)
{
    bool is = retried->has_more;

    for (uint32_t i = 0; i < retried->count && !is; i++)
        is = span_is_equal_nocase(span_from_text(retried->names[i]), label);
    return is;
}

static bool is_told(const struct admin_paused *paused, uint64_t key)
{
    bool is = false;

    for (uint32_t i = 0; i < paused->count; i++)
        is = is || paused->rows[i].key == key;
    return is;
}

static void tell(struct admin_paused *paused, const struct site_view *view, tick_us now)
{
    paused->has_more = paused->count == ADMIN_PAUSED_MAX;
    if (paused->has_more)
        return;
    struct admin_paused_row *row = &paused->rows[paused->count++];
    *row = (struct admin_paused_row){.key = view->key,
                                     .left = view->paused_until - now,
                                     .failures = view->failures,
                                     .is_suspended = view->is_suspended};
    memcpy(row->site, view->label.data, view->label.size);
    if (view->source.size > 0)
        memcpy(row->source, view->source.data, view->source.size);
}

void admin_paused_look(struct admin_paused *paused, struct site_set *sites, uint64_t *cursor,
                       tick_us now)
{
    uint32_t place = (uint32_t)*cursor;
    struct site_view view;

    for (uint32_t i = 0; i < SITE_SLICE && !paused->has_more; i++) {
        if (!site_next(sites, &place, &view)) {
            *cursor = UINT64_MAX;
            return;
        }
        if (view.paused_until > now && is_asked_for(&paused->retried, view.label) &&
            !is_told(paused, view.key))
            tell(paused, &view, now);
    }
    *cursor = paused->has_more ? UINT64_MAX : place;
}

void admin_paused_finish(json_t *answer, const struct admin_paused *paused)
{
    if (paused->count == 0)
        return;
    json_t *rows = json_array();
    for (uint32_t i = 0; i < paused->count; i++) {
        const struct admin_paused_row *row = &paused->rows[i];
        json_array_append_new(rows,
                              json_pack("{ss,ss,sI,sb,sI}", "site", row->site, "source",
                                        row->source, "left_us", (json_int_t)row->left, "suspended",
                                        row->is_suspended, "failures", (json_int_t)row->failures));
    }
    json_object_set_new(answer, "paused", rows);
    json_object_set_new(answer, "paused_has_more", json_boolean(paused->has_more));
}
