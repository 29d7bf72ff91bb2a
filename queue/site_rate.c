/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates of sites, a shard's own side: rights to say MAIL.
 *
 *   RATE(i of n)        the rates as my configuration has them; before them LABEL, the site's name
 *   MAIL_WANT(n, rank)  n rights would help; so many were used since I told you last
 *   MAIL_GRANT(n)       n rights are yours for the time of a lease; your WANT is answered
 *   MAIL_RETURN(n)      n rights are yours again; so many were used, the last of them at that time
 *
 * Exactness. A right counts against every window from its GRANT until the home hears of its end,
 * and from then on, if it was used, as one MAIL said at the time of use. "Used" is said when the
 * answer to MAIL is in, or the connection is over: by then the peer has seen it, so that neither
 * our connecting nor the network's delay can press two windows' worth into one at the peer. Several
 * used rights are told together with the time of the last: late, never early. MAIL that began
 * before there was a rate, or an order's, is told when it is used, and was no right: that is told,
 * too.
 *
 * At the end of a lease, which is short, a shard returns what nobody used, so that no right lies
 * idle here while it is wanted elsewhere.
 *
 * Invariants (site_mail_verify())
 *   1. The timer is armed exactly while rights are at hand or their use is not told.
 *   2. Who waits for a right has asked for one, or is being woken, now or when the site's pause
 *      ends.
 *   3. The home has our rates whenever we hold or want a right; it may have forgotten them when
 *      not, and is told again.
 */
#include "queue/site_state.h"

#define MAIL_WANT_MAX  64u /* rights asked for at once */
#define MAIL_LEASE_MAX TICK_S(1)
#define MAIL_LEASE_MIN TICK_MS(20)

/* A small part of the shortest window: what is told late is counted late. */
static tick_us mail_lease_time(const struct site *site)
{
    tick_us time = site->rates.count == 0 ? MAIL_LEASE_MAX : site->rates.rates[0].window / 16;

    if (site->slow_window > 0 && site->slow_window / 16 < time)
        time = site->slow_window / 16;
    if (time > MAIL_LEASE_MAX)
        return MAIL_LEASE_MAX;
    return time < MAIL_LEASE_MIN ? MAIL_LEASE_MIN : time;
}

static void mail_timer_arm(struct site_set *sites, struct site *site, tick_us now)
{
    if (site->mail_held == 0 && site->mail_used == 0)
        wheel_cancel(&sites->wheel, &site->mail_timer);
    else if (!wheel_is_armed(&site->mail_timer))
        wheel_arm(&sites->wheel, &site->mail_timer, now + mail_lease_time(site));
}

/* Nothing of ours binds the home any more: it may forget the site. */
static void mail_home_may_forget(struct site *site)
{
    if (site->mail_held == 0 && site->mail_out_leased == 0 && site->mail_asked == 0)
        site->is_home_told = false;
}

static void text_tell(struct site_set *sites, const struct site *site, struct span text,
                      bool is_source)
{
    for (uint32_t from = 0; from < text.size; from += SITE_TEXT_SIZE) {
        struct site_message message = {.kind = SITE_MESSAGE_LABEL,
                                       .count = text.size,
                                       .waiting = from,
                                       .limit = is_source ? 1 : 0};
        uint32_t size = text.size - from;
        memcpy(message.text, text.data + from, size < SITE_TEXT_SIZE ? size : SITE_TEXT_SIZE);
        site_post_home(sites, site, &message);
    }
}

/* For who asks the home what binds the site; the home may never have met it itself. */
void site_label_tell(struct site_set *sites, const struct site *site)
{
    if (site->key % sites->options.shard_count == sites->options.shard)
        return;
    text_tell(sites, site, span_of(site->source, site->source_size), true);
    text_tell(sites, site, span_of(site->label, site->label_size), false);
}

/* Domains of one site may come to different shards: all call it as its home does. */
void site_on_name(struct site_set *sites, struct site *site, const struct site_message *message)
{
    char *draft = sites->names[message->from_shard];
    uint32_t size = message->count - message->waiting;

    CHECK(message->count <= SITE_LABEL_MAX && message->waiting < message->count);
    memcpy(draft + message->waiting, message->text, size < SITE_TEXT_SIZE ? size : SITE_TEXT_SIZE);
    if (size > SITE_TEXT_SIZE)
        return;
    memcpy(site->label, draft, message->count);
    site->label_size = (uint8_t)message->count;
    if (sites->options.on_name != NULL)
        sites->options.on_name(sites->options.context, site);
}

static void mail_tell_rates(struct site_set *sites, struct site *site)
{
    uint32_t count = site->rates.count;

    if (!site->is_home_told)
        site_label_tell(sites, site);
    for (uint32_t i = 0; i < (count > 0 ? count : 1); i++)
        site_post_home(sites, site,
                       &(struct site_message){.kind = SITE_MESSAGE_RATE,
                                              .count = count,
                                              .waiting = i,
                                              .limit = site->rates.rates[i].count,
                                              .until = site->rates.rates[i].window});
    site->is_home_told = true;
}

static void mail_give_back(struct site_set *sites, struct site *site, uint32_t count)
{
    if (count == 0 && site->mail_used == 0)
        return;
    if (!site->is_home_told)
        mail_tell_rates(sites, site);
    site_post_home(sites, site,
                   &(struct site_message){.kind = SITE_MESSAGE_MAIL_RETURN,
                                          .count = count,
                                          .limit = site->mail_used,
                                          .waiting = site->mail_used_leased,
                                          .until = site->mail_used_at});
    site->mail_held -= count;
    site->mail_used = site->mail_used_leased = 0;
    mail_home_may_forget(site);
}

void site_mail_give_back(struct site_set *sites, struct site *site)
{
    mail_give_back(sites, site, site->mail_held);
    wheel_cancel(&sites->wheel, &site->mail_timer);
}

static void mail_ask(struct site_set *sites, struct site *site, uint32_t waiting)
{
    if (site->mail_asked > 0 && site->mail_asked_rank <= site->mail_rank)
        return;
    if (!site->is_home_told)
        mail_tell_rates(sites, site);
    site->mail_asked = waiting == 0 ? 1 : waiting < MAIL_WANT_MAX ? waiting : MAIL_WANT_MAX;
    site->mail_asked_rank = site->mail_rank;
    site_post_home(sites, site,
                   &(struct site_message){.kind = SITE_MESSAGE_MAIL_WANT,
                                          .count = site->mail_asked,
                                          .rank = site->mail_asked_rank,
                                          .limit = site->mail_used,
                                          .waiting = site->mail_used_leased,
                                          .until = site->mail_used_at});
    site->mail_used = site->mail_used_leased = 0;
}

/* A site without rates, and no order's, needs none. */
static bool mail_needs_right(const struct site *site)
{
    return site->rates.count > 0 || site->slow_window > 0;
}

/* One at hand. */
static bool mail_take(struct site *site)
{
    if (mail_needs_right(site) && site->mail_held == 0)
        return false;
    if (mail_needs_right(site)) {
        site->mail_held--;
        site->mail_out_leased++;
    }
    site->mail_out++;
    return true;
}

enum err site_mail_acquire(struct site_set *sites, struct site *site, int64_t rank,
                           uint32_t waiting, tick_us now)
{
    CHECK(site->hold_count > 0);
    bool is_taken = mail_take(site);
    if (!is_taken) {
        site->mail_rank = rank;
        mail_ask(sites, site, waiting);
        site_drain(sites, now); /* on the home itself the answer is here */
        is_taken = mail_take(site);
    }
    mail_timer_arm(sites, site, now);
    if (!is_taken)
        site->is_mail_waiting = true;
    site_review(sites, site);
    return is_taken ? ERR_OK : ERR_AGAIN;
}

void site_mail_done(struct site_set *sites, struct site *site, bool was_used, tick_us now)
{
    CHECK(site->mail_out > 0);
    site->mail_out--;
    bool was_leased = site->mail_out_leased > 0;
    if (was_leased)
        site->mail_out_leased--;
    if (was_used && (was_leased || mail_needs_right(site))) {
        site->mail_used++;
        site->mail_used_leased += was_leased;
        site->mail_used_at = now;
    } else if (was_leased) {
        site->mail_held++;
    }
    if (site->mail_held == 0 && site->mail_out_leased == 0)
        mail_give_back(sites, site, 0); /* the last one: the home may count from now on */
    if (site->is_mail_waiting && site->mail_held > 0)
        site_waking_append(sites, site);
    mail_timer_arm(sites, site, now);
    site_drain(sites, now);
    site_review(sites, site);
}

void site_rates_set(struct site_set *sites, struct site *site, const struct rate_set *rates,
                    tick_us now)
{
    if (rate_set_is_equal(&site->rates, rates))
        return;
    site->rates = *rates;
    if (site->is_home_told)
        mail_tell_rates(sites, site);
    if (site->is_mail_waiting && !mail_needs_right(site))
        site_waking_append(sites, site);
    site_drain(sites, now);
    site_review(sites, site);
}

void site_on_slow(struct site_set *sites, struct site *site, const struct site_message *message)
{
    site->slow_window = message->until;
    if (site->is_mail_waiting && !mail_needs_right(site))
        site_waking_append(sites, site);
}

void site_on_mail_grant(struct site_set *sites, struct site *site,
                        const struct site_message *message, tick_us now)
{
    CHECK(message->count > 0);
    site->mail_held += message->count;
    site->mail_asked = 0;
    mail_timer_arm(sites, site, now);
    if (site->is_mail_waiting)
        site_waking_append(sites, site);
}

void site_on_mail_timer(struct site_set *sites, struct site *site, tick_us now)
{
    mail_give_back(sites, site, site->mail_held);
    if (site->is_mail_waiting) /* what it was to be woken for has just gone back */
        mail_ask(sites, site, 1);
    mail_timer_arm(sites, site, now);
}

void site_mail_verify(const struct site *site)
{
    CHECK(wheel_is_armed(&site->mail_timer) == (site->mail_held > 0 || site->mail_used > 0));
    CHECK(site->mail_out_leased <= site->mail_out);
    CHECK(site->mail_used_leased <= site->mail_used);
    CHECK(site->is_home_told || site->mail_held + site->mail_out_leased + site->mail_asked == 0);
    if (site->is_mail_waiting)
        CHECK(site->mail_asked > 0 || site->is_waking || wheel_is_armed(&site->pause_timer));
}
