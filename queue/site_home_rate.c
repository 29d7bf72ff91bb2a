/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of sites, the home's side: the windows, and who gets the rights to say MAIL.
 *
 * Rights go one by one to the shards that want some, in each round the one whose mail waits longest
 * first; BATCH_MAX at most to a shard in one GRANT, so that none lie idle with one while another
 * waits. Without room the timer says when an old MAIL leaves its window, or a RETURN makes some.
 *
 * Invariants (site_home_mail_verify())
 *   1. In every window: MAILs said and rights out are together at most its number, unless that was
 *      lowered or a shard said MAIL before it had heard of a rate.
 *   2. A right is out until its shard says so, used or not.
 *   3. Who wants has the timer, or a right is out whose return it waits for.
 *   4. What was said is kept as long as a window is long: the site is not forgotten before.
 */
#include "base/log.h"
#include "queue/site_state.h"

#define BATCH_MAX 16u

static bool share_is_before(const struct site_share *a, const struct site_share *b)
{
    return a->mail_given < b->mail_given ||
           (a->mail_given == b->mail_given && a->mail_rank < b->mail_rank);
}

static struct site_share *next_to_grant(const struct site_set *sites, struct site_home *home)
{
    struct site_share *best = NULL;

    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        struct site_share *share = &home->shares[i];
        if (share->mail_want > 0 && share->mail_given < BATCH_MAX &&
            (best == NULL || share_is_before(share, best)))
            best = share;
    }
    return best;
}

static bool somebody_wants(const struct site_set *sites, const struct site_home *home)
{
    bool is_wanted = false;

    for (uint32_t i = 0; i < sites->options.shard_count; i++)
        is_wanted = is_wanted || home->shares[i].mail_want > 0;
    return is_wanted;
}

/* When all that was said is older than the windows; 0: it is. */
static tick_us mails_end(const struct rate_limiter *mails)
{
    tick_us end = 0;

    for (uint32_t i = 0; i < mails->count; i++) {
        const struct rate_window *window = &mails->windows[i];
        if (window->used == 0)
            continue;
        tick_us here = window->cells[(window->head + window->used - 1) % window->capacity].last +
                       window->rate.window + 1;
        end = here > end ? here : end;
    }
    return end;
}

static void home_timer_arm(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;
    tick_us when = TICK_NEVER;

    if (somebody_wants(sites, home))
        when = rate_limiter_next(&home->mails, home->mail_out_total, now);
    else if (rate_limiter_room(&home->mails, now) != UINT32_MAX && mails_end(&home->mails) > 0)
        when = mails_end(&home->mails);
    if (when == TICK_NEVER)
        wheel_cancel(&sites->wheel, &home->timer);
    else
        wheel_arm(&sites->wheel, &home->timer, when);
}

static void grant(struct site_set *sites, struct site *site, uint32_t shard)
{
    struct site_share *share = &site->home->shares[shard];

    site_post(sites, site, shard,
              &(struct site_message){.kind = SITE_MESSAGE_MAIL_GRANT, .count = share->mail_given});
    share->mail_want = 0; /* what it still wants then, it asks for */
    share->mail_given = 0;
}

static void home_mail_balance(struct site_set *sites, struct site *site, tick_us now)
{
    struct site_home *home = site->home;
    struct site_share *share;
    uint32_t room = rate_limiter_room(&home->mails, now);

    while (home->mail_out_total < room && (share = next_to_grant(sites, home)) != NULL) {
        share->mail_given++;
        share->mail_want--;
        share->mail_out++;
        home->mail_out_total++;
    }
    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        if (home->shares[i].mail_given > 0)
            grant(sites, site, i);
    }
    home_timer_arm(sites, site, now);
}

/* What was restored is kept until a shard has told what there should be. */
static void windows_set(struct site_home *home, tick_us now)
{
    struct rate_set known = {.count = home->mails.count}, wanted = home->told_rates;

    for (uint32_t i = 0; i < known.count; i++) {
        known.rates[i] = home->mails.windows[i].rate;
        if (!home->has_told_rates && known.rates[i].count == RATE_COUNT_MAX)
            wanted.rates[wanted.count++] = known.rates[i];
    }
    /* Orders that no longer fit, the configuration having more windows now, do not bind. */
    if (site_home_order_rates_add(home, &wanted) != ERR_OK)
        log_line(LOG_WARNING, "event=order_without_window reason=\"too many rates\"");
    if (!rate_set_is_equal(&known, &wanted))
        rate_limiter_set(&home->mails, &wanted, now);
}

void site_home_rates_review(struct site_set *sites, struct site *site, tick_us now)
{
    windows_set(site->home, now);
    home_mail_balance(sites, site, now);
}

static void home_on_rate(struct site_home *home, const struct site_message *message, tick_us now)
{
    CHECK(message->count <= RATE_MAX);
    if (message->waiting == 0)
        home->rates = (struct rate_set){.count = message->count};
    if (message->count > 0)
        home->rates.rates[message->waiting] = (struct rate){message->limit, message->until};
    if (message->waiting + 1 < message->count)
        return;
    home->told_rates = home->rates;
    home->has_told_rates = true;
    windows_set(home, now);
}

/* Is this piece of a label one of ours? */
static bool label_has(const struct site *site, const struct site_message *message, uint32_t size)
{
    return message->count == site->label_size &&
           memcmp(site->label + message->waiting, message->text,
                  size < SITE_TEXT_SIZE ? size : SITE_TEXT_SIZE) == 0;
}

static void home_tell_name(struct site_set *sites, const struct site *site, uint32_t shard)
{
    for (uint32_t from = 0; from < site->label_size; from += SITE_TEXT_SIZE) {
        struct site_message message = {
            .kind = SITE_MESSAGE_NAME, .count = site->label_size, .waiting = from};
        uint32_t size = site->label_size - from;
        memcpy(message.text, site->label + from, size < SITE_TEXT_SIZE ? size : SITE_TEXT_SIZE);
        site_post(sites, site, shard, &message);
    }
}

static void home_on_label(struct site_set *sites, struct site *site,
                          const struct site_message *message)
{
    bool is_source = message->limit == 1;
    char *text = is_source ? site->source : site->label;
    uint8_t *text_size = is_source ? &site->source_size : &site->label_size;

    CHECK(message->count <= (is_source ? SITE_SOURCE_MAX : SITE_LABEL_MAX) &&
          message->waiting < message->count);
    uint32_t size = message->count - message->waiting;
    if (*text_size > 0) { /* it has one */
        if (!is_source && !label_has(site, message, size))
            home_tell_name(sites, site, message->from_shard);
        return;
    }
    memcpy(text + message->waiting, message->text, size < SITE_TEXT_SIZE ? size : SITE_TEXT_SIZE);
    if (size <= SITE_TEXT_SIZE)
        *text_size = (uint8_t)message->count;
}

/* Rights end, and what was used is counted: also MAIL that needed none when it began. */
static void home_on_end(struct site_home *home, struct site_share *share, uint32_t unused,
                        const struct site_message *message)
{
    uint32_t ended = unused + message->waiting;

    rate_limiter_add(&home->mails, message->until, message->limit);
    CHECK(message->waiting <= message->limit && ended <= share->mail_out);
    share->mail_out -= ended;
    home->mail_out_total -= ended;
}

void site_home_mail_receive(struct site_set *sites, struct site *site,
                            const struct site_message *message, tick_us now)
{
    struct site_home *home = site->home;
    struct site_share *share = &home->shares[message->from_shard];

    if (message->kind == SITE_MESSAGE_LABEL) {
        home_on_label(sites, site, message);
    } else if (message->kind == SITE_MESSAGE_RATE) {
        home_on_rate(home, message, now);
    } else if (message->kind == SITE_MESSAGE_MAIL_WANT) {
        home_on_end(home, share, 0, message);
        share->mail_want = message->count;
        share->mail_rank = message->rank;
    } else {
        CHECK(message->kind == SITE_MESSAGE_MAIL_RETURN);
        home_on_end(home, share, message->count, message);
    }
    home_mail_balance(sites, site, now);
}

void site_home_on_timer(struct site_set *sites, struct site *site, tick_us now)
{
    home_mail_balance(sites, site, now);
}

bool site_home_mail_is_idle(const struct site_set *sites, const struct site *site)
{
    const struct site_home *home = site->home;

    return home->mail_out_total == 0 && !somebody_wants(sites, home) &&
           mails_end(&home->mails) == 0;
}

void site_home_mail_verify(const struct site_set *sites, const struct site *site)
{
    const struct site_home *home = site->home;
    uint32_t out = 0;

    for (uint32_t i = 0; i < sites->options.shard_count; i++) {
        out += home->shares[i].mail_out;
        CHECK(home->shares[i].mail_given == 0);
    }
    CHECK(out == home->mail_out_total);
    if (somebody_wants(sites, home))
        CHECK(wheel_is_armed(&home->timer) || out > 0);
    if (mails_end(&home->mails) > 0)
        CHECK(wheel_is_armed(&home->timer) || somebody_wants(sites, home));
    rate_limiter_verify(&home->mails);
}
