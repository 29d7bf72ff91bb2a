/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Does mail match a filter? Each term is asked of what knows it: arrival and sender domain of the
 * message, domain, site, pool and class of the line, state and order of the delivery. Addresses are
 * in the envelope, and asked by who has it open (qmgr_scan.c).
 *
 * A line's counts and ages say whether a look at its deliveries can find anything.
 */
#include "queue/qmgr_state.h"

static wall_us wall_before(struct tick_now now, tick_us age)
{
    return now.wall > (wall_us)age ? now.wall - (wall_us)age : 0;
}

static bool arrival_matches(const struct qmgr_filter *filter, wall_us arrived, struct tick_now now)
{
    if (qmgr_filter_has(filter, QMGR_FILTER_OLDER) && arrived > wall_before(now, filter->older))
        return false;
    return !qmgr_filter_has(filter, QMGR_FILTER_YOUNGER) ||
           arrived >= wall_before(now, filter->younger);
}

bool qmgr_matches_message(const struct qmgr_filter *filter, const struct qmgr_message *message,
                          struct tick_now now)
{
    if (qmgr_filter_has(filter, QMGR_FILTER_SENDER_DOMAIN) &&
        !span_is_equal(qmgr_sender_name(message->sender), qmgr_filter_span(&filter->sender_domain)))
        return false;
    return arrival_matches(filter, message->arrived, now);
}

/* A domain that was not resolved yet stands for its site: so the summary calls it, too. */
static struct span site_name(const struct qmgr_line *line)
{
    struct span site = qmgr_line_site(line);

    return site.size > 0 ? site : qmgr_line_domain(line);
}

static bool line_matches(const struct qmgr_filter *filter, const struct qmgr_line *line)
{
    if (qmgr_filter_has(filter, QMGR_FILTER_DOMAIN) &&
        !span_is_equal(qmgr_line_domain(line), qmgr_filter_span(&filter->domain)))
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_SITE) &&
        !span_is_equal_nocase(site_name(line), qmgr_filter_span(&filter->site)))
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_SOURCE) &&
        !span_is_equal_nocase(qmgr_line_source_pool(line), qmgr_filter_span(&filter->source)))
        return false;
    return !qmgr_filter_has(filter, QMGR_FILTER_CLASS) || line->class == filter->class;
}

bool qmgr_may_match_line(const struct qmgr_filter *filter, const struct qmgr_line *line,
                         struct tick_now now)
{
    uint32_t waiting = line->delivery_count - line->active_count - line->ready_count;
    uint32_t states = (line->ready_count > 0 ? QMGR_FILTER_READY : 0u) |
                      (line->active_count > 0 ? QMGR_FILTER_ACTIVE : 0u) |
                      (waiting > 0 ? QMGR_FILTER_WAITING | QMGR_FILTER_HELD : 0u);

    if (qmgr_filter_has(filter, QMGR_FILTER_STATE) && (states & filter->states) == 0)
        return false;
    wall_us from =
        qmgr_filter_has(filter, QMGR_FILTER_YOUNGER) ? wall_before(now, filter->younger) : 0;
    wall_us to =
        qmgr_filter_has(filter, QMGR_FILTER_OLDER) ? wall_before(now, filter->older) : INT64_MAX;
    return line_matches(filter, line) && qmgr_ages_may_hold(&line->ages, from, to);
}

/* The order that holds it, or will when its attempt has ended; 0: none. */
static uint32_t held_by(const struct qmgr_delivery *delivery)
{
    switch (delivery->state) {
    case QMGR_HELD:
        return qmgr_delivery_order(delivery);
    case QMGR_ACTIVE:
        return qmgr_wished_hold(delivery);
    default:
        return 0;
    }
}

bool qmgr_matches_delivery(const struct qmgr_filter *filter, const struct qmgr_delivery *delivery)
{
    static const uint32_t bits[] = {[QMGR_WAITING] = QMGR_FILTER_WAITING,
                                    [QMGR_READY] = QMGR_FILTER_READY,
                                    [QMGR_ACTIVE] = QMGR_FILTER_ACTIVE,
                                    [QMGR_HELD] = QMGR_FILTER_HELD};

    if (qmgr_filter_has(filter, QMGR_FILTER_STATE) && (filter->states & bits[delivery->state]) == 0)
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_ORDER) && held_by(delivery) != filter->order)
        return false;
    return line_matches(filter, delivery->line);
}

bool qmgr_matches_failed(const struct qmgr_filter *filter, const struct envelope *envelope,
                         const struct envelope_recipient *recipient)
{
    if (qmgr_filter_has(filter, QMGR_FILTER_STATE) && !(filter->states & QMGR_FILTER_FAILED))
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_SITE | QMGR_FILTER_ORDER))
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_DOMAIN) &&
        !span_is_equal(recipient->domain, qmgr_filter_span(&filter->domain)))
        return false;
    if (qmgr_filter_has(filter, QMGR_FILTER_SOURCE) &&
        !span_is_equal_nocase(envelope->source_pool, qmgr_filter_span(&filter->source)))
        return false;
    return !qmgr_filter_has(filter, QMGR_FILTER_CLASS) || envelope->class == filter->class;
}
