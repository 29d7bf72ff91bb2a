/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looking at sites. The look runs on the shard's thread and fills at most SITE_SLICE rows a turn;
 * they belong to the shard until its reply.
 */
#include "control/admin_site.h"

#include <stdlib.h>
#include <string.h>

#define SITE_SLICE 1000u
#define KEY_DIGITS 16u

struct found_site {
    struct site_view view;
    char label[SITE_LABEL_MAX + 1]; /* the view's is the shard's */
    char source[SITE_SOURCE_MAX + 1];
    struct site_order *orders; /* as are its orders; NULL: none */
    struct client_ahead_view ahead;
};

struct found {
    char name[SITE_LABEL_MAX + 1]; /* "": all */
    tick_us now;
    uint32_t count;
    struct found_site sites[SITE_SLICE];
};

static void look_at_sites(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    struct found *found = query->found;
    uint32_t cursor = (uint32_t)query->cursor;
    struct site_view view;

    found->count = 0;
    found->now = now;
    while (found->count < SITE_SLICE) {
        if (!site_next(transfer_sites(transfer), &cursor, &view)) {
            query->cursor = UINT64_MAX;
            return;
        }
        if (found->name[0] != '\0' &&
            !span_is_equal_nocase(view.label, span_from_text(found->name)))
            continue;
        struct found_site *site = &found->sites[found->count++];
        site->view = view;
        memcpy(site->label, view.label.data, view.label.size);
        site->label[view.label.size] = '\0';
        if (view.source.size > 0)
            memcpy(site->source, view.source.data, view.source.size);
        site->source[view.source.size] = '\0';
        site->ahead = transfer_get_ahead(transfer, view.key);
        site->orders = NULL;
        if (view.order_count > 0) {
            site->orders = reallocarray(NULL, view.order_count, sizeof(*site->orders));
            CHECK(site->orders != NULL);
            memcpy(site->orders, view.orders, view.order_count * sizeof(*site->orders));
        }
    }
    query->cursor = cursor;
}

bool admin_site_prepare(const char *verb, const json_t *request, struct shard_query *query)
{
    const char *name = json_string_value(json_object_get(request, "id"));

    if (strcmp(verb, "site show") != 0)
        return false;
    struct found *found = malloc(sizeof(*found)); /* rows are written before they are read */
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = look_at_sites;
    query->found = found;
    if (found == NULL)
        return true;
    found->count = 0;
    (void)snprintf(found->name, sizeof(found->name), "%s", name == NULL ? "" : name);
    return true;
}

static void orders_free(struct found *found)
{
    for (uint32_t i = 0; i < found->count; i++)
        free(found->sites[i].orders);
    found->count = 0;
}

void admin_site_end(struct shard_query *query)
{
    if (query->found != NULL)
        orders_free(query->found);
    free(query->found);
    query->found = NULL;
}

static void number_set(json_t *row, const char *name, uint64_t value)
{
    json_object_set_new(row, name, json_integer((json_int_t)value));
}

/* 0 when it is over, or never was. */
static uint64_t time_left(tick_us until, tick_us now)
{
    return until > now && until != TICK_NEVER ? until - now : 0;
}

static const char *const learn_reasons[SITE_LEARN_REASON_COUNT] = {
    [SITE_LEARN_START] = "few at first",
    [SITE_LEARN_GROWN] = "more after successes",
    [SITE_LEARN_REFUSED] = "halved after a refusal",
    [SITE_LEARN_UNREACHABLE] = "one after no host answered",
    [SITE_LEARN_ORDER] = "one after an order's end",
};

static const char *const order_kinds[SITE_ORDER_KIND_COUNT] = {
    [SITE_ORDER_SUSPEND] = "suspended",
    [SITE_ORDER_SLOW] = "set",
    [SITE_ORDER_SKIP_HOST] = "skips",
    [SITE_ORDER_BOUNCE] = "returned",
};

static json_t *order_row(const struct site_order *order, tick_us now)
{
    char rate[RATE_TEXT_SIZE], ip[FLOW_ADDRESS_TEXT_MAX];
    struct rate_set rates = {.count = 1, .rates = {order->rate}};
    struct flow_address host;
    json_t *row = json_object();

    number_set(row, "order", order->id);
    json_object_set_new(row, "does", json_string(order_kinds[order->kind]));
    if (order->kind == SITE_ORDER_SKIP_HOST && order->host_size == sizeof(host)) {
        memcpy(&host, order->host, sizeof(host));
        json_object_set_new(row, "host", json_string(flow_address_format_ip(&host, ip)));
    }
    if (order->connection_max > 0)
        number_set(row, "connections", order->connection_max);
    if (order->rate.count > 0)
        json_object_set_new(row, "rate", json_string(rate_set_format(&rates, rate)));
    number_set(row, "left_us", time_left(order->until, now));
    json_object_set_new(row, "given_us", json_integer(order->given));
    json_object_set_new(row, "by", json_string(order->by));
    json_object_set_new(row, "pattern", json_boolean(order->is_pattern));
    json_object_set_new(row, "reason", json_string(order->reason));
    return row;
}

json_t *admin_site_orders(const struct site_order *orders, uint32_t count, tick_us now)
{
    json_t *rows = json_array();

    for (uint32_t i = 0; orders != NULL && i < count; i++)
        json_array_append_new(rows, order_row(&orders[i], now));
    return rows;
}

const char *admin_site_learn_reason(enum site_learn_reason reason)
{
    CHECK(reason < SITE_LEARN_REASON_COUNT);
    return learn_reasons[reason];
}

static const char *const ahead_words[] = {[SETTINGS_BDAT_AHEAD_NEVER] = "never",
                                          [SETTINGS_BDAT_AHEAD_LEARNED] = "learned",
                                          [SETTINGS_BDAT_AHEAD_ALWAYS] = "always"};

json_t *admin_site_ahead(const struct client_ahead_view *ahead, tick_us now)
{
    return json_pack("{sb,sb,ss,sI,sI,sI,sI}", "next", ahead->has_next, "bdat", ahead->has_bdat,
                     "bdat_ahead", ahead_words[ahead->bdat], "learned", (json_int_t)ahead->learned,
                     "learned_of", (json_int_t)CLIENT_LEARN_COUNT, "depth",
                     (json_int_t)CLIENT_DEPTH_MAX, "shy_us",
                     (json_int_t)time_left(ahead->shy_until, now));
}

/* The same, of many. */
static void ahead_add(struct json_text *out, const struct client_ahead_view *ahead, tick_us now)
{
    json_text_key(out, JSON_KEY("ahead"));
    json_text_open(out, '{');
    json_text_set_boolean(out, JSON_KEY("next"), ahead->has_next);
    json_text_set_boolean(out, JSON_KEY("bdat"), ahead->has_bdat);
    json_text_set_string(out, JSON_KEY("bdat_ahead"), ahead_words[ahead->bdat]);
    json_text_set_number(out, JSON_KEY("learned"), ahead->learned);
    json_text_set_number(out, JSON_KEY("learned_of"), CLIENT_LEARN_COUNT);
    json_text_set_number(out, JSON_KEY("depth"), CLIENT_DEPTH_MAX);
    json_text_set_number(out, JSON_KEY("shy_us"), time_left(ahead->shy_until, now));
    json_text_close(out, '}');
}

static void rate_text_set(struct json_text *out, struct span key, const struct rate_set *rates)
{
    char text[RATE_TEXT_SIZE];

    json_text_set_string(out, key, rate_set_format(rates, text));
}

/* What only the home knows. */
static void home_add(struct json_text *out, const struct site_view *view, tick_us now)
{
    json_text_set_number(out, JSON_KEY("connections_allowed"), view->allowed);
    json_text_set_string(out, JSON_KEY("allowed_reason"), learn_reasons[view->allowed_reason]);
    json_text_set_number(out, JSON_KEY("allowed_for_us"),
                         now > view->allowed_since ? now - view->allowed_since : 0);
    if (view->binding.count == 0)
        return;
    struct rate_set binding = {.count = 1, .rates = {view->binding}};
    rate_text_set(out, JSON_KEY("binding"), &binding);
    json_text_set_number(out, JSON_KEY("binding_used"), view->binding_used);
    json_text_set_number(out, JSON_KEY("mails_out"), view->mail_out);
    json_text_set_number(out, JSON_KEY("next_us"), time_left(view->mail_next, now));
}

static const char *key_format(uint64_t key, char ret_text[KEY_DIGITS + 1])
{
    for (uint32_t i = 0; i < KEY_DIGITS; i++)
        ret_text[i] = "0123456789abcdef"[key >> (60 - 4 * i) & 15];
    ret_text[KEY_DIGITS] = '\0';
    return ret_text;
}

static void site_row(struct json_text *out, const struct found_site *site, tick_us now,
                     uint32_t shard)
{
    const struct site_view *view = &site->view;
    char key[KEY_DIGITS + 1];

    json_text_open(out, '{');
    json_text_set_string(out, JSON_KEY("site"), site->label);
    json_text_set_string(out, JSON_KEY("source"), site->source);
    json_text_set_string(out, JSON_KEY("key"), key_format(view->key, key));
    json_text_set_boolean(out, JSON_KEY("home"), view->is_home);
    json_text_set_number(out, JSON_KEY("connections"), view->slots_used);
    json_text_set_number(out, JSON_KEY("connections_leased"), view->slots_held);
    json_text_set_number(out, JSON_KEY("connections_max"), view->connection_max);
    rate_text_set(out, JSON_KEY("rates"), &view->rates);
    json_text_set_number(out, JSON_KEY("failures"), view->failures);
    json_text_set_number(out, JSON_KEY("paused_us"), time_left(view->paused_until, now));
    json_text_set_boolean(out, JSON_KEY("suspended"),
                          view->is_suspended && view->paused_until > now);
    if (view->is_home) {
        home_add(out, view, now);
        json_text_key(out, JSON_KEY("orders"));
        if (view->order_count == 0) /* as most are */
            json_text_octets(out, "[]", 2);
        else
            json_text_tree(out, admin_site_orders(site->orders, view->order_count, now));
    }
    ahead_add(out, &site->ahead, now);
    json_text_set_number(out, JSON_KEY("core"), shard);
    json_text_close(out, '}');
}

uint32_t admin_site_add(struct json_text *out, struct shard_query *query, uint32_t shard,
                        uint64_t limit)
{
    struct found *found = query->found;
    uint32_t count = found->count < limit ? found->count : (uint32_t)limit;

    for (uint32_t i = 0; i < count; i++)
        site_row(out, &found->sites[i], found->now, shard);
    orders_free(found);
    return count;
}
