/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Orders: what operators and reply patterns impose on a site for a time, kept by its home.
 *
 *   SUSPEND   no connection, no MAIL. The shards hear of it as of a pause (PAUSE with `waiting`).
 *   SKIP_HOST one address of the site is tried last, on all shards.
 *   BOUNCE    the shards with mail for the site return it, once; until the order ends it is not
 *             given again.
 *   SLOW      fewer connections, a rate more. The home's limit and windows are the tighter ones; a
 *             shard that has no rate hears (SLOW) that MAIL needs a right all the same.
 *
 * An order ends by its time, or is cancelled by its number. One of a pattern that is given again
 * while it holds is lengthened; one that doubles is not, since what was under way when it came sees
 * the same trouble: it lasts twice as long as the last when that is not SITE_BACK_OFF_MEMORY ago.
 * One that needs several matches is counted until it has them. From a shard to the home an order
 * travels in pieces of SITE_TEXT_SIZE octets (ORDER); all pieces of one come in a row.
 *
 * Afterwards the site ramps up: one connection, and more as it takes mail (site_learn.c); the rate
 * of an order with `steps` doubles for a quarter of its time at each of them, and then ends.
 *
 * Invariants (site_orders_verify())
 *   1. Orders tighten: the limit stays within what is configured and learned, windows are added.
 *   2. The timer is armed for the end of the first order that ends; the home is not forgotten
 *      before.
 *   3. No order is in force at or behind its end, as far as any shard can tell: every message to
 *      the home looks first.
 *
 * Limits: SITE_ORDER_MAX of a site, SITE_ORDERS_MAX of a home shard, of both the last few for
 * orders of operators only (SITE_ORDER_KEPT, SITE_ORDERS_KEPT); RATE_MAX windows with those of the
 * configuration.
 */
#include <stdlib.h>

#include "queue/site_state.h"

struct site_orders {
    uint32_t count;
    struct site_order orders[SITE_ORDER_MAX];
};

/* ---- what is in force ---- */

tick_us site_home_suspended_until(const struct site_home *home)
{
    tick_us until = 0;

    for (uint32_t i = 0; home->orders != NULL && i < home->orders->count; i++) {
        const struct site_order *order = &home->orders->orders[i];
        if (order->kind == SITE_ORDER_SUSPEND && order->until > until)
            until = order->until;
    }
    return until;
}

uint32_t site_home_order_limit(const struct site_home *home)
{
    uint32_t limit = UINT32_MAX;

    for (uint32_t i = 0; home->orders != NULL && i < home->orders->count; i++) {
        const struct site_order *order = &home->orders->orders[i];
        if (order->connection_max > 0 && order->connection_max < limit)
            limit = order->connection_max;
    }
    return limit;
}

tick_us site_home_slow_window(const struct site_home *home)
{
    tick_us window = 0;

    for (uint32_t i = 0; home->orders != NULL && i < home->orders->count; i++) {
        const struct site_order *order = &home->orders->orders[i];
        if (order->rate.count > 0 && (window == 0 || order->rate.window < window))
            window = order->rate.window;
    }
    return window;
}

enum err site_home_order_rates_add(const struct site_home *home, struct rate_set *set)
{
    for (uint32_t i = 0; home->orders != NULL && i < home->orders->count; i++) {
        const struct site_order *order = &home->orders->orders[i];
        if (order->rate.count > 0)
            TRY(rate_set_add(set, order->rate));
    }
    return ERR_OK;
}

const struct site_order *site_home_orders(const struct site_home *home, uint32_t *ret_count)
{
    *ret_count = home->orders == NULL ? 0 : home->orders->count;
    return home->orders == NULL ? NULL : home->orders->orders;
}

/* ---- changes ---- */

static void timer_arm(struct site_set *sites, struct site_home *home)
{
    tick_us first = TICK_NEVER;

    for (uint32_t i = 0; home->orders != NULL && i < home->orders->count; i++) {
        if (home->orders->orders[i].until < first)
            first = home->orders->orders[i].until;
    }
    if (first == TICK_NEVER)
        wheel_cancel(&sites->wheel, &home->order_timer);
    else
        wheel_arm(&sites->wheel, &home->order_timer, first);
}

/* ---- what the shards do ---- */

static void skip_host_tell(struct site_set *sites, const struct site *site, uint32_t shard,
                           const struct site_order *order, tick_us until)
{
    struct site_message message = {
        .kind = SITE_MESSAGE_SKIP_HOST, .count = order->host_size, .until = until};
    const uint8_t *host = order->host;

    memcpy(message.text, host, 16);
    memcpy(&message.rank, host + 16, 8);
    memcpy(&message.limit, host + 24, 4);
    memcpy(&message.holder, host + 28, 4);
    site_post(sites, site, shard, &message);
}

void site_on_skip_host(struct site_set *sites, const struct site_message *message)
{
    uint8_t host[SITE_ADDRESS_MAX];

    memcpy(host, message->text, 16);
    memcpy(host + 16, &message->rank, 8);
    memcpy(host + 24, &message->limit, 4);
    memcpy(host + 28, &message->holder, 4);
    site_host_skip(sites, host, message->count, message->until);
}

void site_orders_tell(struct site_set *sites, const struct site *site, uint32_t shard)
{
    const struct site_orders *orders = site->home->orders;

    for (uint32_t i = 0; orders != NULL && i < orders->count; i++) {
        if (orders->orders[i].kind == SITE_ORDER_SKIP_HOST)
            skip_host_tell(sites, site, shard, &orders->orders[i], orders->orders[i].until);
    }
}

static void order_send(struct site_set *sites, const struct site *site, uint32_t shard,
                       enum site_message_kind kind, const struct site_order *order)
{
    for (uint32_t from = 0; from < sizeof(*order); from += SITE_TEXT_SIZE) {
        struct site_message message = {.kind = kind, .waiting = from};
        memcpy(message.text, (const char *)order + from, SITE_TEXT_SIZE);
        site_post(sites, site, shard, &message);
    }
}

/* True: the draft is whole. */
static bool order_take(struct site_order *draft, const struct site_message *message)
{
    CHECK(message->waiting <= sizeof(*draft) - SITE_TEXT_SIZE);
    memcpy((char *)draft + message->waiting, message->text, SITE_TEXT_SIZE);
    return message->waiting + SITE_TEXT_SIZE == sizeof(*draft);
}

static void order_do(struct site_set *sites, const struct site *site,
                     const struct site_order *order)
{
    if (sites->options.on_order != NULL)
        sites->options.on_order(sites->options.context, span_of(site->label, site->label_size),
                                order, false);
}

void site_on_do_order(struct site_set *sites, const struct site *site,
                      const struct site_message *message)
{
    struct site_order *draft = &sites->drafts[message->from_shard];

    if (!order_take(draft, message))
        return;
    CHECK(site_order_is_valid(draft));
    order_do(sites, site, draft);
}

/* An order begins. */
static void order_begin(struct site_set *sites, struct site *site, const struct site_order *order)
{
    if (order->is_pattern && !order->is_restored && sites->options.on_order != NULL)
        sites->options.on_order(sites->options.context, span_of(site->label, site->label_size),
                                order, true);
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        bool is_here = i == sites->options.shard;
        if (!is_here && !site->home->shares[i].is_known)
            continue;
        if (order->kind == SITE_ORDER_SKIP_HOST)
            skip_host_tell(sites, site, i, order, order->until);
        else if (order->kind == SITE_ORDER_BOUNCE && is_here)
            order_do(sites, site, order);
        else if (order->kind == SITE_ORDER_BOUNCE)
            order_send(sites, site, i, SITE_MESSAGE_DO_ORDER, order);
    }
}

static void order_remove(struct site_set *sites, struct site_home *home, uint32_t index)
{
    struct site_orders *orders = home->orders;

    orders->orders[index] = orders->orders[--orders->count];
    sites->order_count--;
    if (orders->count == 0) {
        free(orders);
        home->orders = NULL;
    }
}

void site_orders_free(struct site_set *sites, struct site_home *home)
{
    if (home->orders != NULL)
        sites->order_count -= home->orders->count;
    free(home->orders);
    home->orders = NULL;
    wheel_cancel(&sites->wheel, &home->order_timer);
}

/* True: it goes on, at a higher rate. */
static bool order_step(struct site_order *order, tick_us now)
{
    if (order->steps == 0 || order->rate.count == 0 || order->rate.count > RATE_COUNT_MAX / 2)
        return false;
    order->steps--;
    order->rate.count *= 2;
    order->connection_max = 0;
    order->until = now + order->duration / 4 + 1;
    return true;
}

/* Those that are over, and those that `act` means, if any. How many have ended. */
static uint32_t orders_end(struct site_set *sites, struct site *site, const struct site_act *act,
                           tick_us now)
{
    struct site_home *home = site->home;
    uint32_t ended = 0, i = 0;

    while (home->orders != NULL && i < home->orders->count) {
        struct site_order *order = &home->orders->orders[i];
        bool is_cancelled = act != NULL && site_act_means(act, order);
        bool is_over = order->until <= now;
        if (is_cancelled || (is_over && !order_step(order, now))) {
            for (uint32_t shard = 0;
                 order->kind == SITE_ORDER_SKIP_HOST && shard < sites->options.shard_count; shard++)
                skip_host_tell(sites, site, shard, order, 0);
            order_remove(sites, home, i);
            ended++;
        } else {
            i++;
        }
    }
    return ended;
}

void site_orders_review(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;

    if (home->orders == NULL)
        return;
    bool is_due = !wheel_is_armed(&home->order_timer);
    for (uint32_t i = 0; i < home->orders->count; i++)
        is_due = is_due || home->orders->orders[i].until <= now;
    if (!is_due)
        return;
    if (orders_end(sites, site, NULL, now) > 0)
        site_learn_restart(home, now);
    timer_arm(sites, home);
    site_home_orders_changed(sites, site, now);
}

uint32_t site_orders_cancel(struct site_set *sites, struct site *site, const struct site_act *act,
                            tick_us now)
{
    site_start(sites, now);
    if (site->home == NULL || site->home->orders == NULL)
        return 0;
    site_orders_review(sites, site, now);
    uint32_t ended = orders_end(sites, site, act, now);
    if (ended > 0) {
        site_learn_restart(site->home, now);
        timer_arm(sites, site->home);
        site_home_orders_changed(sites, site, now);
    }
    site_drain(sites, now);
    site_review(sites, site);
    return ended;
}

/* The place for an order: of the same pattern, or a new one. NULL: there is none. */
static struct site_order *order_place(struct site_set *sites, struct site_home *home,
                                      const struct site_order *order)
{
    if (home->orders == NULL) {
        home->orders = calloc(1, sizeof(*home->orders));
        CHECK(home->orders != NULL);
    }
    struct site_orders *orders = home->orders;
    for (uint32_t i = 0; i < orders->count && order->is_pattern; i++) {
        struct site_order *known = &orders->orders[i];
        if (known->is_pattern && known->kind == order->kind && strcmp(known->by, order->by) == 0 &&
            memcmp(known->host, order->host, sizeof(known->host)) == 0)
            return known;
    }
    /* What strangers' replies bring about never bars an operator. */
    uint32_t site_max = SITE_ORDER_MAX - (order->is_pattern ? SITE_ORDER_KEPT : 0);
    uint32_t all_max = SITE_ORDERS_MAX - (order->is_pattern ? SITE_ORDERS_KEPT : 0);
    if (orders->count >= site_max || sites->order_count >= all_max)
        return NULL;
    sites->order_count++;
    orders->orders[orders->count] = (struct site_order){0};
    return &orders->orders[orders->count++];
}

bool site_order_is_valid(const struct site_order *order)
{
    bool is_slow = order->connection_max > 0 || order->rate.count > 0;

    return order->id > 0 && order->kind < SITE_ORDER_KIND_COUNT &&
           is_slow == (order->kind == SITE_ORDER_SLOW) && order->host_size <= SITE_ADDRESS_MAX &&
           (order->host_size > 0) == (order->kind == SITE_ORDER_SKIP_HOST) &&
           (!order->is_doubled || order->kind == SITE_ORDER_SUSPEND) &&
           order->duration <= SITE_ORDER_TIME_MAX && order->rate.count <= RATE_COUNT_MAX &&
           (order->rate.count == 0 ||
            (order->rate.window >= RATE_WINDOW_MIN && order->rate.window <= RATE_WINDOW_MAX)) &&
           memchr(order->by, '\0', sizeof(order->by)) != NULL &&
           memchr(order->reason, '\0', sizeof(order->reason)) != NULL;
}

/* Has it been given often enough? */
static bool order_is_due(struct site_home *home, const struct site_order *order, tick_us now)
{
    struct site_matches *free_place = &home->matches[0];

    if (order->needed <= 1)
        return true;
    for (uint32_t i = 0; i < SITE_MATCHES_MAX; i++) {
        struct site_matches *matches = &home->matches[i];
        bool is_its = matches->count > 0 && strcmp(matches->by, order->by) == 0;
        if (is_its && now - matches->since <= order->needed_window) {
            if (++matches->count < order->needed)
                return false;
            matches->count = 0;
            return true;
        }
        if (is_its ||
            (free_place->count > 0 && (matches->count == 0 || matches->since < free_place->since)))
            free_place = matches;
        if (is_its)
            break;
    }
    *free_place = (struct site_matches){.count = 1, .since = now};
    memcpy(free_place->by, order->by, sizeof(free_place->by));
    return false;
}

/* How long one that doubles lasts this time. */
static void order_double(struct site_home *home, struct site_order *order, tick_us now)
{
    if (now > home->back_off_until && now - home->back_off_until > SITE_BACK_OFF_MEMORY)
        home->back_offs = 0;
    for (uint32_t i = 0; i < home->back_offs && order->duration < SITE_BACK_OFF_MAX; i++)
        order->duration *= 2;
    if (home->back_offs > 0 && order->duration > SITE_BACK_OFF_MAX)
        order->duration = SITE_BACK_OFF_MAX;
    home->back_offs += home->back_offs < 32;
    order->until = now + order->duration;
    home->back_off_until = order->until;
}

/* What lengthens nothing when it is given again. */
static bool order_is_once(const struct site_order *order)
{
    return order->is_doubled || order->kind == SITE_ORDER_BOUNCE;
}

/* One whose windows do not fit is taken back. */
enum err site_home_order_add(struct site_set *sites, struct site *site,
                             const struct site_order *order, tick_us now)
{
    struct site_home *home = site_home_get(sites, site);

    site_orders_review(sites, site, now);
    if (!order_is_due(home, order, now))
        return ERR_OK;
    struct site_order *place = order_place(sites, home, order);
    bool has_place = place != NULL, is_new = has_place && place->id == 0;
    if (has_place && !is_new && order_is_once(order))
        return ERR_OK;
    if (has_place) {
        uint32_t id = is_new ? order->id : place->id;
        *place = *order;
        place->id = id;
        if (order->is_doubled)
            order_double(home, place, now);
        struct rate_set set = home->told_rates;
        if (site_home_order_rates_add(home, &set) != ERR_OK) {
            order_remove(sites, home, (uint32_t)(place - home->orders->orders));
            has_place = is_new = false;
        }
        if (is_new)
            order_begin(sites, site, place);
    } else if (home->orders->count == 0) {
        free(home->orders);
        home->orders = NULL;
    }
    timer_arm(sites, home);
    site_home_orders_changed(sites, site, now);
    return has_place ? ERR_OK : ERR_LIMIT;
}

enum err site_order_add(struct site_set *sites, uint64_t key, struct span label,
                        const struct site_order *order, tick_us now)
{
    CHECK(key % sites->options.shard_count == sites->options.shard);
    CHECK(site_order_is_valid(order));
    struct site *site = site_get(sites, key, label, now);
    if (site == NULL)
        return ERR_LIMIT;
    enum err err = order->until > now ? site_home_order_add(sites, site, order, now) : ERR_OK;
    site_drain(sites, now);
    site_review(sites, site);
    return err;
}

uint64_t site_orders_refused(const struct site_set *sites)
{
    return sites->orders_refused;
}

/* ---- from another shard ---- */

void site_order_give(struct site_set *sites, struct site *site, const struct site_order *order,
                     tick_us now)
{
    uint32_t home = (uint32_t)(site->key % sites->options.shard_count);

    if (home == sites->options.shard) {
        struct span label = span_of(site->label, site->label_size);
        if (site_order_add(sites, site->key, label, order, now) != ERR_OK)
            sites->orders_refused++;
        return;
    }
    CHECK(site_order_is_valid(order));
    site_label_tell(sites, site);
    order_send(sites, site, home, SITE_MESSAGE_ORDER, order);
    site_drain(sites, now);
}

void site_home_on_order(struct site_set *sites, struct site *site,
                        const struct site_message *message, tick_us now)
{
    struct site_order *draft = &sites->drafts[message->from_shard];

    if (!order_take(draft, message))
        return;
    CHECK(site_order_is_valid(draft));
    if (draft->until > now && site_home_order_add(sites, site, draft, now) != ERR_OK)
        sites->orders_refused++;
}

void site_orders_verify(const struct site_home *home)
{
    CHECK(wheel_is_armed(&home->order_timer) == (home->orders != NULL));
    if (home->orders == NULL)
        return;
    CHECK(home->orders->count > 0 && home->orders->count <= SITE_ORDER_MAX);
    for (uint32_t i = 0; i < home->orders->count; i++)
        CHECK(site_order_is_valid(&home->orders->orders[i]));
}
