/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much waits for how long, by group: read off lines, or senders, which keep the ages of their
 * mail. No message is looked at. A name may come more than once, as a site has several lines: who
 * asks adds up.
 */
#include "queue/qmgr_state.h"

static void name_set(char *ret_name, struct span name, const char *when_empty)
{
    if (name.size == 0)
        name = span_from_text(when_empty);
    CHECK(name.size <= ENVELOPE_ADDRESS_SIZE_MAX);
    memcpy(ret_name, name.data, name.size);
    ret_name[name.size] = '\0';
}

static void line_group(const struct qmgr *qmgr, const struct qmgr_line *line, enum qmgr_group_by by,
                       struct qmgr_group *ret_group)
{
    char name[QMGR_CLASS_NAME_SIZE];
    struct span site = qmgr_line_site(line);

    if (by == QMGR_BY_SOURCE)
        name_set(ret_group->name, qmgr_line_source_pool(line), "default");
    else if (by == QMGR_BY_CLASS)
        name_set(ret_group->name, span_from_text(qmgr_class_name(qmgr, line->class, name)), "");
    else if (by == QMGR_BY_SITE && site.size > 0)
        name_set(ret_group->name, site, "");
    else
        name_set(ret_group->name, qmgr_line_domain(line), "");
}

uint32_t qmgr_groups(const struct qmgr *qmgr, enum qmgr_group_by by, uint64_t *cursor,
                     struct qmgr_group *ret_groups, uint32_t max, struct tick_now now)
{
    const struct slab *slab = by == QMGR_BY_SENDER ? &qmgr->senders : &qmgr->lines;

    for (uint32_t count = 0; count < max; count++) {
        const void *place = slab_next(slab, cursor);
        if (place == NULL) {
            *cursor = UINT64_MAX;
            return count;
        }
        const struct qmgr_sender *sender = place;
        const struct qmgr_line *line = place;
        memset(ret_groups[count].ages, 0, sizeof(ret_groups[count].ages));
        if (by == QMGR_BY_SENDER)
            name_set(ret_groups[count].name, qmgr_sender_name(sender), "<>");
        else
            line_group(qmgr, line, by, &ret_groups[count]);
        qmgr_ages_count(by == QMGR_BY_SENDER ? &sender->ages : &line->ages, now.wall,
                        ret_groups[count].ages);
    }
    return max;
}
