/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What explains a site: its rows, one of each core that knows it, become facts, of which explain.c
 * says what binds; and the rows become an answer.
 *
 * Invariant: of a site's limits its home alone knows what all cores have used. Rows of a site whose
 * home has forgotten it say what is configured.
 */
#include "control/admin_explain_internal.h"

#include "control/admin_site.h"
#include "control/explain.h"

/* ---- facts ---- */

static tick_us later(tick_us a, tick_us b)
{
    return a > b ? a : b;
}

static uint32_t ordered_limit(const struct explain_site *home)
{
    uint32_t limit = EXPLAIN_NOT_SET;

    for (uint32_t i = 0; i < home->view.order_count; i++) {
        const struct site_order *order = &home->orders[i];
        if (order->kind == SITE_ORDER_SLOW && order->connection_max > 0 &&
            order->connection_max < limit)
            limit = order->connection_max;
    }
    return limit;
}

static void facts_add_home(struct explain_facts *facts, const struct explain_site *home)
{
    const struct site_view *view = &home->view;

    facts->configured = view->connection_max;
    facts->learned = view->allowed;
    facts->ordered = ordered_limit(home);
    facts->mail_out = view->mail_out;
    facts->rate_count = view->use_count;
    for (uint32_t i = 0; i < view->use_count; i++) {
        tick_us next = view->uses[i].next;
        bool is_known = next > home->now && next != TICK_NEVER;
        facts->rates[i] = (struct explain_rate){view->uses[i].rate, view->uses[i].used,
                                                is_known ? next - home->now : 0};
    }
}

static void facts_add_source(struct explain_facts *facts, const struct explain_source *from)
{
    if (from->is_suspended)
        facts->source_suspended = later(facts->source_suspended, from->left);
    else if (from->is_broken)
        facts->source_rests = later(facts->source_rests, from->left);
    facts->source_cold = later(facts->source_cold, from->cold_left);
}

/* The core with the least room stands for all. */
static void facts_add_core(struct explain_facts *facts, const struct explain_site *site,
                           const struct explain_core *core)
{
    if (!site->transfer.has_room || core->client.open >= facts->outbound) {
        facts->outbound = core->client.open;
        facts->outbound_max = core->client.open_max;
    }
    facts->is_crowded = facts->is_crowded || !site->transfer.has_room;
    if (core->transfer.read_memory >= facts->memory) {
        facts->memory = core->transfer.read_memory;
        facts->memory_max = core->transfer.read_memory_max;
    }
}

static void facts_add(struct explain_facts *facts, const struct explain_site *site,
                      const struct explain_core *core)
{
    const struct site_view *view = &site->view;
    tick_us until = view->paused_until, paused = until > site->now ? until - site->now : 0;

    if (view->is_suspended)
        facts->suspended = later(facts->suspended, paused);
    else
        facts->paused = later(facts->paused, paused);
    facts->connections += view->slots_used;
    facts->idle += site->transfer.idle;
    facts->unread += site->transfer.unread;
    facts_add_source(facts, &site->from);
    facts_add_core(facts, site, core);
}

/* Of all rows of a site; `*ret_home` is its home's, or the first. */
static struct explain_facts facts_of(const struct explain_asked *asked,
                                     const struct explain_site *first,
                                     const struct explain_site **ret_home)
{
    struct explain_facts facts = {.configured = first->view.connection_max,
                                  .ordered = EXPLAIN_NOT_SET,
                                  .learned = EXPLAIN_NOT_SET};
    uint32_t mail_held = 0;

    *ret_home = first;
    for (const struct explain_site *site = first; site < asked->sites + asked->site_count; site++) {
        if (site->view.key != first->view.key)
            continue;
        facts_add(&facts, site, &asked->cores[site->core]);
        mail_held += site->view.mail_held;
        if (site->view.is_home)
            *ret_home = site;
    }
    if ((*ret_home)->view.is_home)
        facts_add_home(&facts, *ret_home);
    facts.mail_out = facts.mail_out > mail_held ? facts.mail_out - mail_held : 0;
    return facts;
}

/* ---- answers ---- */

static void number_set(json_t *row, const char *name, uint64_t value)
{
    json_object_set_new(row, name, json_integer((json_int_t)value));
}

static json_t *limit_row(const struct explain_limit *limit)
{
    json_t *row = json_object();

    json_object_set_new(row, "limit", json_string(explain_kind_name(limit->kind)));
    if (limit->kind >= EXPLAIN_RATE) {
        number_set(row, "used", limit->used);
        number_set(row, "max", limit->max);
    }
    if (limit->kind == EXPLAIN_RATE) {
        struct rate_set rates = {1, {{(uint32_t)limit->max, limit->window}}};
        char text[RATE_TEXT_SIZE];
        json_object_set_new(row, "rate", json_string(rate_set_format(&rates, text)));
    }
    json_object_set_new(row, "bars", json_boolean(limit->bars));
    json_object_set_new(row, "binds", json_boolean(limit->binds));
    number_set(row, "next_us", limit->left);
    return row;
}

static void limits_add(json_t *row, const struct explain_facts *facts)
{
    struct explain_limit limits[EXPLAIN_LIMIT_MAX];
    uint32_t count = explain_limits(facts, limits);
    json_t *rows = json_array();

    json_object_set_new(row, "binds", json_null());
    for (uint32_t i = 0; i < count; i++) {
        json_array_append_new(rows, limit_row(&limits[i]));
        if (limits[i].binds)
            json_object_set_new(row, "binds", json_string(explain_kind_name(limits[i].kind)));
    }
    json_object_set_new(row, "limits", rows);
}

static void source_add(json_t *row, const struct explain_source *from)
{
    json_object_set_new(row, "source_reason", json_string(from->reason));
    if (from->family != NULL) {
        json_object_set_new(row, "family_rests", json_string(from->family));
        number_set(row, "family_left_us", from->family_left);
        json_object_set_new(row, "family_reason", json_string(from->family_reason));
    }
    if (from->day_count == 0)
        return;
    number_set(row, "warmup_day", from->day);
    number_set(row, "warmup_days", from->day_count);
    number_set(row, "warmup_limit", from->limit);
}

/* Dead hosts are each core's own; that with the most knows best. */
static void hosts_add(json_t *row, const struct explain_asked *asked,
                      const struct explain_site *first)
{
    const struct transfer_site_view *best = &first->transfer;
    char ip[FLOW_ADDRESS_TEXT_MAX];
    json_t *dead = json_array();

    for (const struct explain_site *site = first; site < asked->sites + asked->site_count; site++) {
        if (site->view.key != first->view.key || site->transfer.dead_count < best->dead_count ||
            site->transfer.address_count < best->address_count)
            continue;
        best = &site->transfer;
    }
    for (uint32_t i = 0; i < best->dead_count && i < TRANSFER_VIEW_HOST_MAX; i++)
        json_array_append_new(dead, json_pack("{ss,sI}", "address",
                                              flow_address_format_ip(&best->dead[i], ip), "left_us",
                                              (json_int_t)(best->dead_until[i] - first->now)));
    number_set(row, "addresses", best->address_count);
    number_set(row, "addresses_dead", best->dead_count);
    json_object_set_new(row, "dead", dead);
}

/* Cores hear of a pause one after the other. */
static uint32_t failures_of(const struct explain_asked *asked, const struct explain_site *first)
{
    uint32_t failures = 0;

    for (const struct explain_site *site = first; site < asked->sites + asked->site_count; site++) {
        if (site->view.key == first->view.key && site->view.failures > failures)
            failures = site->view.failures;
    }
    return failures;
}

/* Each core learns for itself: what the one knows that has learned most, and how many do so. */
static json_t *ahead_object(const struct explain_asked *asked, const struct explain_site *first)
{
    const struct explain_site *best = first;
    uint32_t cores = 0, having = 0;

    for (const struct explain_site *site = first; site < asked->sites + asked->site_count; site++) {
        if (site->view.key != first->view.key)
            continue;
        cores++;
        having += site->transfer.ahead.has_bdat;
        if (site->transfer.ahead.shy_until > best->transfer.ahead.shy_until ||
            (best->transfer.ahead.shy_until == 0 &&
             site->transfer.ahead.learned > best->transfer.ahead.learned))
            best = site;
    }
    json_t *ahead = admin_site_ahead(&best->transfer.ahead, best->now);
    number_set(ahead, "cores", cores);
    number_set(ahead, "cores_bdat", having);
    return ahead;
}

static json_t *site_row(const struct explain_asked *asked, const struct explain_site *first)
{
    const struct explain_site *home;
    struct explain_facts facts = facts_of(asked, first, &home);
    const struct site_view *view = &home->view;
    json_t *row = json_object();
    char key[32];

    snprintf(key, sizeof(key), "%016llx", (unsigned long long)view->key);
    json_object_set_new(row, "site", json_string(first->label));
    json_object_set_new(row, "source", json_string(first->source));
    json_object_set_new(row, "key", json_string(key));
    number_set(row, "connections", facts.connections);
    number_set(row, "idle", facts.idle);
    number_set(row, "failures", failures_of(asked, first));
    if (view->is_home) {
        json_object_set_new(row, "allowed_reason",
                            json_string(admin_site_learn_reason(view->allowed_reason)));
        number_set(row, "allowed_for_us",
                   home->now > view->allowed_since ? home->now - view->allowed_since : 0);
    }
    limits_add(row, &facts);
    json_object_set_new(row, "orders",
                        admin_site_orders(home->orders, view->order_count, home->now));
    source_add(row, &home->from);
    hosts_add(row, asked, first);
    json_object_set_new(row, "ahead", ahead_object(asked, first));
    return row;
}

static json_t *sites_array(const struct explain_asked *asked)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < asked->site_count; i++) {
        uint32_t before = 0;
        while (asked->sites[before].view.key != asked->sites[i].view.key)
            before++;
        if (before == i)
            json_array_append_new(rows, site_row(asked, &asked->sites[i]));
    }
    return rows;
}

/* Classes that have mail. */
static json_t *mail_array(const struct explain_asked *asked)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < QMGR_ROUND_CLASS_COUNT; i++) {
        const struct qmgr_class_use *use = &asked->mail.classes[i];
        if (use->ready + use->active + use->waiting + use->held + use->unseen == 0)
            continue;
        json_t *row = json_object();
        number_set(row, "class", i);
        json_object_set_new(row, "class_name", json_string(asked->class_names[i]));
        number_set(row, "least", asked->least[i]);
        number_set(row, "ready", use->ready);
        number_set(row, "active", use->active);
        number_set(row, "waiting", use->waiting);
        number_set(row, "held", use->held);
        number_set(row, "unseen", use->unseen);
        if (use->waiting > 0)
            number_set(row, "next_us", use->next_try > asked->now ? use->next_try - asked->now : 0);
        json_array_append_new(rows, row);
    }
    return rows;
}

/* Its hosts could not be found. They are looked for again when the next mail is tried; 0: that is
 * now. */
static void dns_add(json_t *answer, const struct explain_asked *asked)
{
    const struct qmgr_name_use *mail = &asked->mail;
    tick_us next = TICK_NEVER;

    if (mail->unresolved == NULL)
        return;
    for (uint32_t i = 0; i < QMGR_ROUND_CLASS_COUNT; i++) {
        const struct qmgr_class_use *use = &mail->classes[i];
        if (use->waiting > 0 && use->next_try < next)
            next = use->next_try;
        if (use->ready + use->active > 0)
            next = asked->now;
    }
    json_t *row = json_pack("{ss}", "text", mail->unresolved);
    number_set(row, "since_us",
               asked->now > mail->unresolved_since ? asked->now - mail->unresolved_since : 0);
    if (next != TICK_NEVER)
        number_set(row, "next_us", next > asked->now ? next - asked->now : 0);
    json_object_set_new(answer, "dns", row);
}

static json_t *cores_array(const struct explain_asked *asked)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; i < asked->core_count; i++) {
        const struct explain_core *core = &asked->cores[i];
        json_t *row = json_object();
        number_set(row, "core", i);
        number_set(row, "connections", core->client.open);
        number_set(row, "connections_max", core->client.open_max);
        number_set(row, "strangers", core->client.strangers);
        number_set(row, "strangers_max", (core->client.open_max + 1) / 2);
        number_set(row, "read_memory", core->transfer.read_memory);
        number_set(row, "read_memory_max", core->transfer.read_memory_max);
        number_set(row, "flows", core->transfer.flows);
        json_array_append_new(rows, row);
    }
    return rows;
}

bool admin_explain_finish(json_t *answer, const struct shard_query *query)
{
    const struct explain_asked *asked = query->found;
    json_t *mail = mail_array(asked), *goes_to = json_array();

    for (uint32_t i = 0; i < asked->mail.site_count; i++)
        json_array_append_new(goes_to, json_string(asked->mail.sites[i]));
    json_object_set_new(answer, "name", json_string(asked->name));
    json_object_set_new(answer, "sites", sites_array(asked));
    json_object_set_new(answer, "mail", mail);
    json_object_set_new(answer, "goes_to", goes_to);
    json_object_set_new(answer, "is_looked_up",
                        json_boolean(!asked->mail.has_unasked || asked->site_count > 0 ||
                                     asked->mail.site_count > 0 || asked->mail.unresolved != NULL));
    dns_add(answer, asked);
    json_object_set_new(answer, "cores", cores_array(asked));
    number_set(answer, "retry_min_us", asked->retry_min);
    number_set(answer, "retry_max_us", asked->retry_max);
    return asked->site_count > 0 || json_array_size(mail) > 0;
}
