/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What patterns do about refusals: a reply that matches one becomes an order about its site, which
 * the site's home keeps (queue/site_order.c); what operators see there, cancel and count is the
 * same for both.
 *
 *   refusal -> reaction_find() -> order to the home -> in force: a record, and for BOUNCE
 *                                                      transfer_bounces_run() on every shard
 *
 * Returning what is queued goes the way of an operator's `bounce`: a scan of the site's mail, a
 * slice a turn, one site after the other.
 *
 * Invariants
 *   1. A callback of the client or the sites only notes: mail is returned in the shard's turn.
 *   2. The number of an order is drawn: two of four million may be alike, and are cancelled
 *      together.
 *
 * Limits: BOUNCES_MAX sites wait to be returned; more are passed over and said in the log: their
 * mail expires in its time.
 */
#include "relay/transfer_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"

#define BOUNCES_MAX  64u
#define BOUNCE_SLICE 64u
#define SLOW_STEPS   3u

struct transfer_bounce {
    STAILQ_ENTRY(transfer_bounce) link;
    struct qmgr_order order;
    struct qmgr_filter filter;
    uint64_t scan; /* 0: not begun */
    struct qmgr_acted acted;
};

static const char *const kind_names[SITE_ORDER_KIND_COUNT] = {
    [SITE_ORDER_SUSPEND] = "suspend",
    [SITE_ORDER_SLOW] = "slow",
    [SITE_ORDER_SKIP_HOST] = "skip_mx",
    [SITE_ORDER_BOUNCE] = "bounce",
};

/* ---- from a reply to an order ---- */

static enum site_order_kind kind_of(enum reaction_action action)
{
    switch (action) {
    case REACTION_SLOW:
        return SITE_ORDER_SLOW;
    case REACTION_SKIP_MX:
        return SITE_ORDER_SKIP_HOST;
    case REACTION_BOUNCE:
        return SITE_ORDER_BOUNCE;
    default:
        return SITE_ORDER_SUSPEND;
    }
}

static struct site_order order_of(struct transfer *transfer, const struct reaction_spec *rule,
                                  const struct client_refusal *refusal)
{
    struct site_order order = {
        .id = 1 + rng_below(transfer->options.rng, QMGR_ORDER_GIVEN_MAX),
        .kind = (uint8_t)kind_of(rule->action),
        .is_pattern = true,
        .is_doubled = rule->action == REACTION_BACK_OFF,
        .until = transfer->now.tick + rule->duration,
        .duration = rule->duration,
        .given = transfer->now.wall,
    };

    if (rule->trigger.count > 0) {
        order.needed = (uint16_t)rule->trigger.rates[0].count;
        order.needed_window = rule->trigger.rates[0].window;
    }
    if (rule->action == REACTION_SLOW) {
        order.connection_max = rule->connection_max;
        order.steps = SLOW_STEPS;
        if (rule->rate.count > 0)
            order.rate = rule->rate.rates[0];
    }
    if (rule->action == REACTION_SKIP_MX) {
        order.host_size = sizeof(refusal->peer);
        memcpy(order.host, &refusal->peer, sizeof(refusal->peer));
    }
    record_text(order.by, sizeof(order.by), span_from_text(rule->name));
    (void)snprintf(order.reason, sizeof(order.reason), "%s said: %.*s", refusal->host,
                   SPAN_PRINTF(refusal->text));
    return order;
}
_Static_assert(sizeof(struct flow_address) <= SITE_ADDRESS_MAX, "an order holds one");

void transfer_on_refusal(void *context, const struct client_refusal *refusal)
{
    struct transfer *transfer = context;
    struct transfer_job *job = (struct transfer_job *)(uintptr_t)refusal->user;
    struct qmgr_view view = transfer_job_view(transfer, job);
    struct reaction_reply reply = {
        .domain = view.envelope->recipients[view.recipients[0]].domain,
        .provider = site_get_view(job->member->site->site).label,
        .host = span_from_text(refusal->host),
        .stage = refusal->stage,
        .code = refusal->code,
        .enhanced = {refusal->enhanced[0], refusal->enhanced[1], refusal->enhanced[2]},
        .text = refusal->text,
    };

    const struct reaction_spec *rule = reaction_find(transfer->matcher, &reply);
    if (refusal->is_about_address || (rule != NULL && rule->action == REACTION_MOVE))
        transfer_source_refused(transfer, job, &refusal->peer, refusal->text);
    const struct settings_pool *pool =
        settings_pool_of(transfer->settings, view.envelope->source_pool);
    if (rule == NULL || (rule->action == REACTION_MOVE && pool->member_count < 2) ||
        (rule->action == REACTION_BOUNCE && refusal->is_about_address &&
         transfer_source_has_other(transfer, job, pool)))
        return;
    struct site_order order = order_of(transfer, rule, refusal);
    site_order_give(transfer->sites, job->member->site->site, &order, transfer->now.tick);
}

const struct reaction_set *transfer_reactions(const struct transfer *transfer)
{
    return transfer->settings->reactions;
}

struct reaction_stats transfer_reaction_stats(const struct transfer *transfer, uint32_t index)
{
    return reaction_matcher_stats(transfer->matcher, index);
}

/* ---- an order begins ---- */

static void order_record(struct transfer *transfer, struct span label,
                         const struct site_order *order)
{
    struct record record = {
        .kind = RECORD_ORDER, .shard = transfer->options.shard, .time = transfer->now.wall};
    char escaped[4 * sizeof(order->reason) + 1], text[512];

    record_text(record.site, sizeof(record.site), label);
    (void)snprintf(text, sizeof(text), "%s for %llu s, order %u, pattern %s: %s",
                   kind_names[order->kind], (unsigned long long)(order->duration / 1000000),
                   order->id, order->by, order->reason);
    record_text(record.text, sizeof(record.text), span_from_text(text));
    transfer->options.records.emit(transfer->options.records.context, &record);
    log_line(LOG_INFO,
             "event=site_order verb=%s order=%u site=\"%.*s\" pattern=\"%s\" reason=\"%s\"",
             kind_names[order->kind], order->id, SPAN_PRINTF(label), order->by,
             log_escape(span_from_text(order->reason), escaped, sizeof(escaped)));
}

static void bounce_begin(struct transfer *transfer, struct span label,
                         const struct site_order *order)
{
    char terms[SITE_LABEL_MAX + 8], why[QMGR_FILTER_WHY_SIZE];
    char reason[SITE_ORDER_BY_SIZE + SITE_ORDER_TEXT_SIZE + 4];

    if (transfer->bounce_count == BOUNCES_MAX) {
        log_line(LOG_WARNING, "event=bounce_passed_over site=\"%.*s\"", SPAN_PRINTF(label));
        return;
    }
    struct transfer_bounce *bounce = calloc(1, sizeof(*bounce));
    CHECK(bounce != NULL);
    (void)snprintf(terms, sizeof(terms), "site=%.*s", SPAN_PRINTF(label));
    if (qmgr_filter_parse(span_from_text(terms), &bounce->filter, why) != ERR_OK) {
        log_line(LOG_WARNING, "event=bounce_passed_over site=\"%.*s\" reason=\"%s\"",
                 SPAN_PRINTF(label), why);
        free(bounce);
        return;
    }
    bounce->order = (struct qmgr_order){.verb = QMGR_VERB_BOUNCE, .id = order->id};
    (void)snprintf(reason, sizeof(reason), "%s: %s", order->by, order->reason);
    record_text(bounce->order.reason, sizeof(bounce->order.reason), span_from_text(reason));
    STAILQ_INSERT_TAIL(&transfer->bounces, bounce, link);
    transfer->bounce_count++;
}

void transfer_on_site_order(void *context, struct span label, const struct site_order *order,
                            bool is_home)
{
    struct transfer *transfer = context;

    if (is_home)
        order_record(transfer, label, order);
    else if (label.size > 0)
        bounce_begin(transfer, label, order);
}

/* ---- returning mail ---- */

static void bounce_end(struct transfer *transfer)
{
    struct transfer_bounce *bounce = STAILQ_FIRST(&transfer->bounces);

    STAILQ_REMOVE_HEAD(&transfer->bounces, link);
    transfer->bounce_count--;
    free(bounce);
}

void transfer_bounces_run(struct transfer *transfer)
{
    struct transfer_bounce *bounce = STAILQ_FIRST(&transfer->bounces);
    struct qmgr_match matches[BOUNCE_SLICE] UNINITIALIZED;
    uint32_t count = 0;
    bool is_done = false;

    if (bounce == NULL)
        return;
    if (bounce->scan == 0)
        bounce->scan = qmgr_scan_begin(transfer->qmgr, &bounce->filter, transfer->now);
    enum err err = qmgr_scan_step(transfer->qmgr, bounce->scan, matches, BOUNCE_SLICE, &count,
                                  &is_done, transfer->now);
    if (err != ERR_OK) { /* operators' scans took its place: from the beginning */
        bounce->scan = 0;
        return;
    }
    qmgr_act(transfer->qmgr, matches, count, &bounce->order, &bounce->acted, transfer->now);
    if (is_done)
        bounce_end(transfer);
}

bool transfer_has_bounces(const struct transfer *transfer)
{
    return !STAILQ_EMPTY(&transfer->bounces);
}

/* Is there something to do now? An envelope that is being read wakes the shard. */
bool transfer_bounces_are_due(const struct transfer *transfer)
{
    const struct transfer_bounce *bounce = STAILQ_FIRST(&transfer->bounces);

    return bounce != NULL && !qmgr_scan_is_waiting(transfer->qmgr, bounce->scan);
}

void transfer_bounces_free(struct transfer *transfer)
{
    while (transfer_has_bounces(transfer))
        bounce_end(transfer);
}
