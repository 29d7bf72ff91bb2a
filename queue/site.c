/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sites, a shard's own side: which slots it has, what it waits for, when it must pause.
 *
 * Slots travel between a shard and the site's home:
 *
 *   WANT(n, rank)      I have mail waiting since `rank`, n slots would help
 *   GRANT(n, until)    n slots are yours; all earlier WANTs of yours and RECALLs of mine are over
 *   RECALL(n, rank)    n slots are wanted by a shard whose mail waits since `rank`
 *   RETURN(n, m)       n slots are yours again, of my last WANT at most m are still wanted
 *   OUTCOME, PAUSE     a shard's experience with the site; the home's verdict, to all who asked
 *   LEARN              whether successes are of interest, since fewer slots are given out than are
 *                      configured (site_learn.c)
 *   ORDER, SLOW        an order for the home to keep; that one slows the site (site_order.c)
 *
 * A lease is exact on the safe side: a slot counts as given out until its RETURN is in, however
 * late. The home takes nothing back by the clock, since it could not know whether the connection is
 * gone; the holder does: at the end of its lease a shard returns what is idle and goes on holding
 * what is in use. So there are never more connections than slots, whatever is delayed.
 *
 * A slot that comes free stays here for the next connection of this shard: no message is needed
 * while nobody else wants it. A recalled one goes back as soon as it is idle, unless our own mail
 * has waited longer than the recaller's; then we have SITE_GRACE_TIME to use it.
 *
 * Invariants (site_set_verify())
 *   1. used <= held; owed <= held; held > 0 exactly while the lease timer is armed.
 *   2. Who waits has something coming: an asked slot, a wake, or the end of a pause.
 *   3. wake() is called from site_advance() only, so that no call of ours comes back into the
 *      caller.
 *
 * Not here: which sites there are (site_table.c), rights to say MAIL (site_rate.c).
 */
#include <stdlib.h>

#include "queue/site_state.h"

#define SITE_GRACE_TIME  TICK_MS(5)
#define SITE_BUCKETS_MAX (1u << 20)

struct site_set *site_set_new(const struct site_options *options, struct rng *rng)
{
    uint32_t buckets = 16;

    CHECK(options->shard < options->shard_count);
    CHECK(options->site_count_max > 0 && options->connection_max > 0);
    CHECK(options->connection_start > 0);
    CHECK(options->lease_time > 0 && options->host_dead_time > 0);
    CHECK(options->backoff_min > 0 && options->backoff_min <= options->backoff_max);
    struct site_set *sites = calloc(1, sizeof(*sites));
    CHECK(sites != NULL);
    while (buckets < options->site_count_max && buckets < SITE_BUCKETS_MAX)
        buckets *= 2;
    sites->options = *options;
    sites->drafts = calloc(options->shard_count, sizeof(*sites->drafts));
    sites->standing = calloc(SITE_STANDING_MAX, sizeof(*sites->standing));
    sites->names = calloc(options->shard_count, sizeof(*sites->names));
    CHECK(sites->drafts != NULL && sites->names != NULL && sites->standing != NULL);
    sites->rng = rng;
    sites->hash = (struct keyed_hash){{rng_u64(rng), rng_u64(rng)}};
    sites->buckets = calloc(buckets, sizeof(struct site *));
    CHECK(sites->buckets != NULL);
    sites->bucket_mask = buckets - 1;
    slab_init(&sites->sites, sizeof(struct site), UINT32_MAX, sites);
    TAILQ_INIT(&sites->idle);
    TAILQ_INIT(&sites->waking);
    wheel_init(&sites->wheel, 0);
    return sites;
}

void site_set_free(struct site_set *sites)
{
    struct site *site;
    uint64_t cursor = 0;

    while ((site = slab_next(&sites->sites, &cursor)) != NULL)
        site_home_free(sites, site);
    slab_fini(&sites->sites);
    free(sites->drafts);
    free(sites->names);
    free(sites->standing);
    free(sites->buckets);
    free(sites);
}

void site_start(struct site_set *sites, tick_us now)
{
    if (!sites->is_started)
        wheel_init(&sites->wheel, now);
    sites->is_started = true;
}

/* ---- lists ---- */

void site_waking_append(struct site_set *sites, struct site *site)
{
    if (site->is_waking)
        return;
    site->is_waking = true;
    sites->waking_count++;
    TAILQ_INSERT_TAIL(&sites->waking, site, waking_link);
}

void site_waking_remove(struct site_set *sites, struct site *site)
{
    if (!site->is_waking)
        return;
    site->is_waking = false;
    sites->waking_count--;
    TAILQ_REMOVE(&sites->waking, site, waking_link);
}

/* Nobody is to be woken for a slot. */
static void waking_remove_slot(struct site_set *sites, struct site *site)
{
    if (!site->is_mail_waiting)
        site_waking_remove(sites, site);
}

/* ---- messages ---- */

void site_post(struct site_set *sites, const struct site *site, uint32_t to_shard,
               const struct site_message *message)
{
    struct site_message filled = *message;

    filled.key = site->key;
    filled.from_shard = sites->options.shard;
    if (to_shard != sites->options.shard) {
        sites->options.send(sites->options.context, to_shard, &filled);
        return;
    }
    CHECK(sites->self_count < SITE_SELF_QUEUE_MAX);
    sites->self[(sites->self_head + sites->self_count++) % SITE_SELF_QUEUE_MAX] = filled;
}

void site_post_home(struct site_set *sites, const struct site *site,
                    const struct site_message *message)
{
    site_post(sites, site, site_home_shard(sites, site->key), message);
}

/* ---- slots ---- */

static uint32_t site_idle_slots(const struct site *site)
{
    return site->held - site->used;
}

static bool site_is_paused(const struct site *site, tick_us now)
{
    return site->paused_until > now;
}

/* Does our own waiting mail rank before the recaller's? */
static bool site_keeps_recalled(const struct site *site)
{
    return site->is_waiting && site->waiting_rank <= site->owed_rank;
}

/* Who returns a slot that nobody here waits for takes the rest of the WANT back with it. */
void site_give_back(struct site_set *sites, struct site *site, uint32_t count)
{
    if (count == 0)
        return;
    CHECK(count <= site_idle_slots(site));
    if (!site->is_waiting)
        site->asked = 0;
    site->held -= count;
    site->owed -= site->owed < count ? site->owed : count;
    if (site->held == 0)
        wheel_cancel(&sites->wheel, &site->lease_timer);
    site_post_home(sites, site,
                   &(struct site_message){
                       .kind = SITE_MESSAGE_RETURN, .count = count, .waiting = site->asked});
}

static void site_give_back_owed(struct site_set *sites, struct site *site)
{
    uint32_t idle = site_idle_slots(site);

    site_give_back(sites, site, idle < site->owed ? idle : site->owed);
}

/* Ask the home, if we wait and neither have asked nor have a slot at hand. */
static void site_ask(struct site_set *sites, struct site *site, uint32_t waiting, tick_us now)
{
    if (!site->is_waiting || site_is_paused(site, now) || site_idle_slots(site) > 0)
        return;
    if (site->asked > 0 && site->asked_rank <= site->waiting_rank)
        return;
    uint32_t count = waiting < site->limit ? waiting : site->limit;
    site->asked = count > 0 ? count : 1;
    site->asked_rank = site->waiting_rank;
    if (site->held == 0) /* the home may have forgotten it */
        site_label_tell(sites, site);
    site_post_home(sites, site,
                   &(struct site_message){.kind = SITE_MESSAGE_WANT,
                                          .count = site->asked,
                                          .waiting = waiting,
                                          .rank = site->waiting_rank,
                                          .limit = site->limit});
}

/* We wait: something must be coming. */
static void site_wait_on(struct site_set *sites, struct site *site, tick_us now)
{
    if (!site->is_waiting || site_is_paused(site, now))
        return;
    if (site_idle_slots(site) > 0)
        site_waking_append(sites, site);
    else
        site_ask(sites, site, 1, now);
}

/* ---- what the home says ---- */

static void site_on_grant(struct site_set *sites, struct site *site,
                          const struct site_message *message, tick_us now)
{
    site->is_learning = message->waiting > 0;
    site->is_scarce = message->holder != SITE_HOLDER_NONE;
    site->holder = message->holder;
    if (message->count == 0) {
        if (site->is_waiting)
            site_waking_append(sites, site); /* what waits may now be handed over */
        return;
    }
    if (site->held == 0)
        wheel_arm(&sites->wheel, &site->lease_timer, message->until);
    site->held += message->count;
    site->asked = 0; /* a GRANT answers the whole WANT */
    site->owed = 0;  /* and whoever waits for slots now is told of behind it */
    site_wait_on(sites, site, now);
}

static void site_on_recall(struct site_set *sites, struct site *site,
                           const struct site_message *message, tick_us now)
{
    if (site->held == 0)
        return; /* our RETURN is on its way */
    uint32_t count = message->count < site->held ? message->count : site->held;
    if (site->owed == 0 || message->rank < site->owed_rank)
        site->owed_rank = message->rank;
    if (count > site->owed)
        site->owed = count;
    if (!site_keeps_recalled(site))
        site_give_back_owed(sites, site);
    else if (site_idle_slots(site) > 0)
        wheel_arm(&sites->wheel, &site->lease_timer, now + SITE_GRACE_TIME);
    site_wait_on(sites, site, now);
}

static void site_on_pause(struct site_set *sites, struct site *site,
                          const struct site_message *message, tick_us now)
{
    site->failures = message->count;
    site->paused_until = message->until;
    bool was_suspended = site->is_suspended;
    site->is_suspended = message->waiting > 0 && site_is_paused(site, now);
    site->asked = 0; /* the home forgets who waits while the site pauses */
    if (site_is_paused(site, now)) {
        waking_remove_slot(sites, site);
        wheel_arm(&sites->wheel, &site->pause_timer, message->until);
        if (site->is_suspended && !was_suspended && site->hold_count > 0) {
            site->is_waiting = true; /* so that kept connections are closed */
            site_waking_append(sites, site);
        }
        return;
    }
    wheel_cancel(&sites->wheel, &site->pause_timer);
    if (site->is_waiting)
        site_waking_append(sites, site);
}

/* ---- handing messages out ---- */

static void site_handle(struct site_set *sites, const struct site_message *message, tick_us now)
{
    bool is_for_home = message->kind <= SITE_MESSAGE_MAIL_RETURN;
    struct site *site = site_find(sites, message->key);

    CHECK(message->kind < SITE_MESSAGE_KIND_COUNT);
    CHECK(message->from_shard < sites->options.shard_count);
    if (site == NULL && is_for_home) {
        CHECK(message->kind != SITE_MESSAGE_RETURN); /* what is out keeps its site */
        site = site_make(sites, message->key);
    }
    if (site == NULL) {
        struct site unknown = {.key = message->key};
        if (message->kind == SITE_MESSAGE_GRANT && message->count > 0)
            site_post_home(
                sites, &unknown,
                &(struct site_message){.kind = SITE_MESSAGE_RETURN, .count = message->count});
        if (message->kind == SITE_MESSAGE_MAIL_GRANT)
            site_post_home(
                sites, &unknown,
                &(struct site_message){.kind = SITE_MESSAGE_MAIL_RETURN, .count = message->count});
        return;
    }
    if (is_for_home)
        site_home_receive(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_GRANT)
        site_on_grant(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_RECALL)
        site_on_recall(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_MAIL_GRANT)
        site_on_mail_grant(sites, site, message, now);
    else if (message->kind == SITE_MESSAGE_LEARN)
        site->is_learning = message->waiting > 0;
    else if (message->kind == SITE_MESSAGE_SKIP_HOST)
        site_on_skip_host(sites, message);
    else if (message->kind == SITE_MESSAGE_DO_ORDER)
        site_on_do_order(sites, site, message);
    else if (message->kind == SITE_MESSAGE_SLOW)
        site_on_slow(sites, site, message);
    else if (message->kind == SITE_MESSAGE_NAME)
        site_on_name(sites, site, message);
    else
        site_on_pause(sites, site, message, now);
    site_review(sites, site);
}

void site_drain(struct site_set *sites, tick_us now)
{
    while (sites->self_count > 0) {
        struct site_message message = sites->self[sites->self_head];
        sites->self_head = (sites->self_head + 1) % SITE_SELF_QUEUE_MAX;
        sites->self_count--;
        site_handle(sites, &message, now);
    }
}

void site_receive(struct site_set *sites, const struct site_message *message, tick_us now)
{
    site_start(sites, now);
    site_handle(sites, message, now);
    site_drain(sites, now);
}

/* ---- for the transfer ---- */

/* An idle slot, unless it is recalled by older mail than `rank`. */
static bool site_take_slot(struct site_set *sites, struct site *site, int64_t rank)
{
    if (site->owed > 0 && rank > site->owed_rank)
        site_give_back_owed(sites, site);
    if (site_idle_slots(site) == 0)
        return false;
    site->used++;
    site->is_waiting = false;
    waking_remove_slot(sites, site);
    return true;
}

enum err site_slot_acquire(struct site_set *sites, struct site *site, int64_t rank,
                           uint32_t waiting, tick_us now)
{
    enum err err = ERR_AGAIN;

    CHECK(site->hold_count > 0);
    site->waiting_rank = rank;
    if (site_is_paused(site, now)) {
        site->is_waiting = true;
        return ERR_TIMEOUT;
    }
    if (site_take_slot(sites, site, rank)) {
        err = ERR_OK;
    } else {
        site->is_waiting = true;
        site_ask(sites, site, waiting, now);
        site_drain(sites, now); /* on the home itself the answer is here */
        if (site_is_paused(site, now))
            err = ERR_TIMEOUT;
        else if (site_take_slot(sites, site, rank))
            err = ERR_OK;
        else
            site_wait_on(sites, site, now);
    }
    site_drain(sites, now);
    return err;
}

bool site_slot_try(struct site_set *sites, struct site *site, tick_us now)
{
    return !site->is_waiting && site_slot_acquire(sites, site, INT64_MAX, 1, now) == ERR_OK;
}

void site_slot_return(struct site_set *sites, struct site *site, tick_us now)
{
    CHECK(site->used > 0);
    site->used--;
    if (site->owed > 0) {
        if (site_keeps_recalled(site))
            wheel_arm(&sites->wheel, &site->lease_timer, now + SITE_GRACE_TIME);
        else
            site_give_back_owed(sites, site);
    }
    site_wait_on(sites, site, now);
    site_drain(sites, now);
    site_review(sites, site);
}

void site_limit_set(struct site_set *sites, struct site *site, uint32_t connection_max, tick_us now)
{
    CHECK(connection_max > 0);
    if (connection_max == site->limit)
        return;
    site->limit = connection_max;
    if (site->held == 0 && site->asked == 0)
        return; /* the first WANT says it */
    site_post_home(sites, site,
                   &(struct site_message){.kind = SITE_MESSAGE_WANT,
                                          .count = site->asked,
                                          .rank = site->asked_rank,
                                          .limit = site->limit});
    site_drain(sites, now);
    site_review(sites, site);
}

void site_outcome(struct site_set *sites, struct site *site, enum site_outcome outcome,
                  tick_us began, tick_us now)
{
    bool has_heard_of_pause = site->failures > 0 || site->paused_until != 0;
    bool is_news = outcome == SITE_OUTCOME_OK ? site->is_learning : outcome != SITE_OUTCOME_NEUTRAL;

    if (!is_news && !has_heard_of_pause)
        return; /* what everybody knows is not told */
    site_post_home(sites, site,
                   &(struct site_message){.kind = SITE_MESSAGE_OUTCOME,
                                          .count = outcome,
                                          .waiting = has_heard_of_pause,
                                          .until = began});
    site_drain(sites, now);
    site_review(sites, site);
}

bool site_has_excess(const struct site *site)
{
    return site->owed > 0 && site->owed_rank == INT64_MIN;
}

tick_us site_paused_until(const struct site *site)
{
    return site->paused_until;
}

bool site_is_suspended(const struct site *site, tick_us now)
{
    return site->is_suspended && site_is_paused(site, now);
}

bool site_is_scarce(const struct site *site)
{
    return site->is_scarce;
}

uint32_t site_holder(const struct site *site)
{
    const struct site_set *sites = slab_owner(site);

    return site->is_scarce ? site->holder : sites->options.shard;
}

/* ---- time ---- */

static void site_on_timer(struct site_set *sites, struct wheel_timer *timer, tick_us now)
{
    struct site *site;

    if (timer->kind == SITE_TIMER_PAUSE) {
        site = WHEEL_OWNER(timer, struct site, pause_timer);
        if (site->is_waiting)
            site_waking_append(sites, site); /* its acquire asks anew */
        return;
    }
    if (timer->kind == SITE_TIMER_MAIL) {
        site = WHEEL_OWNER(timer, struct site, mail_timer);
        site_on_mail_timer(sites, site, now);
        site_review(sites, site);
        return;
    }
    if (timer->kind == SITE_TIMER_ORDER) {
        site = WHEEL_OWNER(timer, struct site_home, order_timer)->site;
        site_orders_review(sites, site, now);
        site_review(sites, site);
        return;
    }
    if (timer->kind == SITE_TIMER_HOME) {
        site = WHEEL_OWNER(timer, struct site_home, timer)->site;
        site_home_on_timer(sites, site, now);
        site_review(sites, site);
        return;
    }
    CHECK(timer->kind == SITE_TIMER_LEASE);
    site = WHEEL_OWNER(timer, struct site, lease_timer);
    site_give_back(sites, site, site_idle_slots(site));
    if (site->held > 0)
        wheel_arm(&sites->wheel, &site->lease_timer, now + sites->options.lease_time);
    waking_remove_slot(sites, site);
    site_wait_on(sites, site, now);
    site_review(sites, site);
}

void site_advance(struct site_set *sites, tick_us now)
{
    struct wheel_timer *timer;

    site_start(sites, now);
    while ((timer = wheel_expire_next(&sites->wheel, now)) != NULL) {
        site_on_timer(sites, timer, now);
        site_drain(sites, now);
    }
    uint32_t count = sites->waking_count; /* whoever comes to wait in wake() is for the next turn */
    while (count-- > 0 && !TAILQ_EMPTY(&sites->waking)) {
        struct site *site = TAILQ_FIRST(&sites->waking);
        site_waking_remove(sites, site);
        site->is_waiting = site->is_mail_waiting = false;
        site_review(sites, site);
        sites->options.wake(sites->options.context, site);
    }
}

tick_us site_set_deadline(const struct site_set *sites)
{
    if (!TAILQ_EMPTY(&sites->waking))
        return sites->wheel.now;
    return wheel_deadline(&sites->wheel);
}
