/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What waits for one site or domain, counted for operators: by class, and by what each delivery
 * waits for.
 *
 * The lines know how many of their deliveries are ready and active; whether the others wait for a
 * time or are held only the deliveries know.
 *
 * Limits: LINES_PER_LOOK lines in one look; of one line DELIVERIES_PER_LINE deliveries are looked
 * at, of one look DELIVERIES_PER_LOOK and what is left of a line; the rest counts as `unseen`.
 */
#include "queue/qmgr_state.h"

#define LINES_PER_LOOK      4096u
#define DELIVERIES_PER_LINE 10000u
#define DELIVERIES_PER_LOOK 10000u

/* Deliveries looked at. */
static uint32_t line_add(const struct qmgr_line *line, struct qmgr_class_use *use, tick_us now)
{
    const struct qmgr_delivery *delivery = line->first_delivery;
    uint32_t seen = 0, others = 0;

    use->ready += line->ready_count;
    use->active += line->active_count;
    for (; delivery != NULL && seen < DELIVERIES_PER_LINE; seen++) {
        if (delivery->state == QMGR_HELD) {
            use->held++;
            others++;
        } else if (delivery->state == QMGR_WAITING) {
            tick_us next = delivery->timer.deadline > now ? delivery->timer.deadline : now;
            use->next_try = use->waiting == 0 || next < use->next_try ? next : use->next_try;
            use->waiting++;
            others++;
        }
        delivery = qmgr_delivery_line_next(delivery);
    }
    uint32_t known = line->ready_count + line->active_count + others;
    use->unseen += line->delivery_count > known ? line->delivery_count - known : 0;
    return seen;
}

static void site_add(struct qmgr_name_use *use, struct span site)
{
    for (uint32_t i = 0; i < use->site_count; i++) {
        if (span_is_equal_nocase(span_from_text(use->sites[i]), site))
            return;
    }
    if (use->site_count == QMGR_NAME_SITES_MAX || site.size == 0 || site.size > SITE_LABEL_MAX)
        return;
    memcpy(use->sites[use->site_count], site.data, site.size);
    use->sites[use->site_count++][site.size] = '\0';
}

/* Lines of a domain, one for each pool of sources and each core, hear of it one after the other. */
static void unresolved_add(struct qmgr_name_use *use, const struct qmgr_line *line)
{
    if (use->unresolved != NULL && use->unresolved_since <= line->unresolved_since)
        return;
    use->unresolved = line->unresolved;
    use->unresolved_since = line->unresolved_since;
}

void qmgr_name_use_add(const struct qmgr *qmgr, struct span name, uint64_t *cursor,
                       struct qmgr_name_use *use, tick_us now)
{
    uint32_t seen = 0;

    for (uint32_t i = 0; i < LINES_PER_LOOK && seen < DELIVERIES_PER_LOOK; i++) {
        const struct qmgr_line *line = slab_next(&qmgr->lines, cursor);
        if (line == NULL) {
            *cursor = UINT64_MAX;
            return;
        }
        bool is_domain = span_is_equal_nocase(qmgr_line_domain(line), name);
        if (!is_domain && !span_is_equal_nocase(qmgr_line_site(line), name))
            continue;
        if (is_domain)
            site_add(use, qmgr_line_site(line));
        if (is_domain && line->unresolved != NULL)
            unresolved_add(use, line);
        use->has_unasked |= is_domain && line->unresolved == NULL && qmgr_line_site(line).size == 0;
        uint32_t class =
            line->class < QMGR_ROUND_CLASS_COUNT ? line->class : QMGR_ROUND_CLASS_COUNT - 1;
        seen += line_add(line, &use->classes[class], now);
    }
}
