/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The health of sources: what attempts tell of the address they left from, and when it rests.
 *
 *   BROKEN     nothing leaves from its address of a family. That family rests, for a minute at
 *              first, an hour at most.
 *   REFUSED    several sites refuse the address itself (a blocklist, its reputation, its name).
 *              The source rests as a whole.
 *   UNREACHED  over one family no connection comes about to several sites that somebody reached
 *              within the last hour. That family rests.
 *
 *   WELL --told so--> rests --until--> one attempt tries --well--> WELL
 *                       ^                  |
 *                       +--- not well -----+   twice as long
 *
 * A try that is refused counts as "not well" only when the rule of REFUSED holds again, with what
 * is remembered from before the rest; else the source is used again, but for the sites that refuse.
 * For TRY_ELSEWHERE after a rest only sites that are not known to refuse the source may try it:
 * what those say is known, and mail for others waits. After that anybody may: no other mail came.
 *
 * How many sites it takes, within what time, and how long a rest is, say the settings. How it is
 * told from what is not the source's fault:
 *   - One site counts once, however often and to whatever domain it says so.
 *   - REFUSED: sites in one network (source_origin()) count as one, for it and against it, and so
 *     does a provider that the settings name: a stranger has as many names as he likes, but not as
 *     many networks.
 *   - REFUSED: sites that take its mail speak for it; those that refuse must be one in
 *     SHARE_MIN of all. A site that takes its mail again is struck off.
 *   - UNREACHED: somebody else - another source, or the other family - must have connected since
 *     the first of the failures: a network that is dead for all is nobody's fault. When a family
 *     that failed, too, is the first to connect, it was the network; what began before counts no
 *     more.
 *
 * A site that refuses a source is remembered for REFUSED_MEMORY: the other sources of the pool come
 * first there (transfer_place.c), so that mail which one source may not bring is brought by
 * another.
 *
 * Shards. Refusals are told to all shards, and count on all; so are rests, their tries and their
 * ends. The shard that heard the last word decides, and alone writes the record.
 *
 * Invariants
 *   1. A rest that is over is not forgotten before an attempt has shown that the source is well;
 *      while one tries no other does, for PROBE_TIME.
 *   2. The source that the system chooses (`is_implied`) never rests as a whole: there is no other.
 */
#include "relay/source_internal.h"

#include <stdio.h>

#define BROKEN_MIN     TICK_S(60)
#define BROKEN_MAX     TICK_S(3600)
#define PROBE_TIME     TICK_S(120) /* for an attempt to tell how it went */
#define PROBE_AGAIN    TICK_S(30)  /* after one that told nothing */
#define SHARE_MIN      5u          /* one site of so many must refuse */
#define REACHED_MEMORY TICK_S(3600)
#define REFUSED_MEMORY TICK_S(3600)
#define TRY_ELSEWHERE  TICK_S(60)   /* as long as mail that found no source stays away */
#define REST_MEMORY    TICK_S(3600) /* after that, and as long as it was, the next is short again */
#define TELL_TIME      TICK_S(60)   /* the same refusal is told the others no sooner again */

static const char *const causes[SOURCE_CAUSE_COUNT] = {
    [SOURCE_WELL] = "it is well",
    [SOURCE_BROKEN] = "nothing leaves from its address",
    [SOURCE_REFUSED] = "refused by",
    [SOURCE_UNREACHED] = "reaches nobody at",
};

/* ---- small things ---- */

static uint32_t digest(uint64_t site)
{
    return (uint32_t)(site * 0x9e3779b97f4a7c15ull >> 32);
}

static enum source_part part_of(enum flow_family family)
{
    return family == FLOW_FAMILY_IP6 ? SOURCE_IP6 : SOURCE_IP4;
}

bool source_rest_holds(const struct source_rest *rest, tick_us now)
{
    return rest->cause != SOURCE_WELL && (now < rest->until || now < rest->probe_until);
}

uint32_t source_families_resting(const struct source_set *sources, uint32_t number, tick_us now)
{
    const struct source_rest *rests = sources->states[number].rests;

    return (uint32_t)source_rest_holds(&rests[SOURCE_IP4], now) << FLOW_FAMILY_IP4 |
           (uint32_t)source_rest_holds(&rests[SOURCE_IP6], now) << FLOW_FAMILY_IP6;
}

void source_rests_clear(struct source_state *state)
{
    memset(state->rests, 0, sizeof(state->rests));
    memset(state->failures, 0, sizeof(state->failures));
    state->refused_count = 0;
}

static struct source_evidence evidence_of(const struct source_attempt *attempt, struct span said)
{
    struct source_evidence evidence = {.at = attempt->now};
    uint32_t size = said.size < SOURCE_SAID_SIZE - 1 ? said.size : SOURCE_SAID_SIZE - 1;

    (void)snprintf(evidence.site, sizeof(evidence.site), "%s", attempt->label);
    for (uint32_t i = 0; i < size; i++)
        evidence.said[i] = said.data[i] >= ' ' && said.data[i] <= '~' ? (char)said.data[i] : '?';
    return evidence;
}

static void news_tell(struct source_set *sources, const struct source_news *news)
{
    if (sources->tell != NULL)
        sources->tell(sources->context, news);
}

static void rest_tell(struct source_set *sources, const struct source_state *state,
                      enum source_part part)
{
    struct source_news news = {
        .kind = SOURCE_NEWS_REST, .part = (uint8_t)part, .rest = state->rests[part]};

    memcpy(news.name, state->name, sizeof(news.name));
    news_tell(sources, &news);
}

/* ---- lists of sites ---- */

/* Its place; `count`: it is not there. */
static uint32_t site_find(const struct source_site *sites, uint32_t count, uint64_t site)
{
    uint32_t i = 0;

    while (i < count && sites[i].site != site)
        i++;
    return i;
}

/* One more, or the same again; of a full list the oldest goes. */
static void site_put(struct source_site *sites, uint32_t *count, uint32_t max,
                     const struct source_site *site)
{
    uint32_t place = site_find(sites, *count, site->site);

    if (place == *count && *count == max) {
        place = 0;
        for (uint32_t i = 1; i < max; i++) {
            if (sites[i].evidence.at < sites[place].evidence.at)
                place = i;
        }
    } else if (place == *count) {
        (*count)++;
    }
    sites[place] = *site;
}

static void sites_drop_older(struct source_site *sites, uint32_t *count, tick_us than)
{
    uint32_t i = 0;

    while (i < *count) {
        if (sites[i].evidence.at < than)
            sites[i] = sites[--*count];
        else
            i++;
    }
}

/* Of several with one origin the last counts. */
static uint32_t origins_since(const struct source_site *sites, uint32_t count, tick_us since)
{
    uint32_t found = 0;

    for (uint32_t i = 0; i < count; i++) {
        bool is_last = sites[i].evidence.at >= since;
        for (uint32_t j = i + 1; j < count && is_last; j++)
            is_last = sites[j].origin != sites[i].origin || sites[j].evidence.at < since;
        found += is_last;
    }
    return found;
}

/* ---- rests ---- */

static tick_us rest_time(const struct source_set *sources, enum source_cause cause, uint32_t times)
{
    const struct settings_source_rest *settings = &sources->settings->source_rest;
    tick_us time = cause == SOURCE_BROKEN ? BROKEN_MIN : settings->first;
    tick_us max = cause == SOURCE_BROKEN ? BROKEN_MAX : settings->longest;

    for (uint32_t i = 0; i < times && time < max; i++)
        time *= 2;
    return time < max ? time : max;
}

/* "refused by 3 sites: a.example: 554 5.7.1 ...; b.example: ..." */
static void reason_make(struct source_rest *rest)
{
    char text[SOURCE_REASON_SIZE];
    size_t used = (size_t)snprintf(text, sizeof(text), "%s", causes[rest->cause]);

    if (rest->sites > 0)
        used += (size_t)snprintf(text + used, sizeof(text) - used, " %u site%s", rest->sites,
                                 rest->sites == 1 ? "" : "s");
    for (uint32_t i = 0; i < rest->evidence_count && used < sizeof(text); i++)
        used +=
            (size_t)snprintf(text + used, sizeof(text) - used, "%s %s: %.60s", i == 0 ? ":" : ";",
                             rest->evidence[i].site, rest->evidence[i].said);
    memcpy(rest->reason, text, sizeof(text));
}

/* What `sites` say since then goes into the rest, the newest first. */
static void evidence_take(struct source_rest *rest, const struct source_site *sites, uint32_t count,
                          tick_us since)
{
    tick_us before = TICK_NEVER;

    rest->sites = origins_since(sites, count, since);
    rest->evidence_count = 0;
    while (rest->evidence_count < SOURCE_EVIDENCE_MAX && rest->evidence_count < rest->sites) {
        const struct source_evidence *next = NULL;
        for (uint32_t i = 0; i < count; i++) {
            const struct source_evidence *evidence = &sites[i].evidence;
            if (evidence->at >= since && evidence->at < before &&
                (next == NULL || evidence->at > next->at))
                next = evidence;
        }
        if (next == NULL) /* several of one moment: one of them speaks for all */
            break;
        rest->evidence[rest->evidence_count++] = *next;
        before = next->at;
    }
}

static enum source_change rest_begin(struct source_set *sources, struct source_state *state,
                                     enum source_part part, enum source_cause cause, tick_us now)
{
    struct source_rest *rest = &state->rests[part];
    tick_us last = rest->until > rest->since ? rest->until - rest->since : 0;

    if (rest->cause == SOURCE_WELL && now - rest->ended > (last > REST_MEMORY ? last : REST_MEMORY))
        rest->times = 0;
    rest->cause = cause;
    rest->since = now;
    rest->until = now + rest_time(sources, cause, rest->times);
    rest->probe_until = 0;
    rest->times += rest->times < 32;
    reason_make(rest);
    source_ends_at(sources, rest->until);
    rest_tell(sources, state, part);
    return SOURCE_CHANGE_RESTS;
}

static enum source_change rest_end(struct source_set *sources, struct source_state *state,
                                   enum source_part part, tick_us now)
{
    struct source_rest *rest = &state->rests[part];
    bool forgets = rest->cause != SOURCE_REFUSED; /* for those a connection is proof */

    rest->cause = SOURCE_WELL;
    rest->ended = now;
    rest->times = forgets ? 0 : rest->times;
    source_ends_at(sources, now); /* whoever waits gets a look */
    rest_tell(sources, state, part);
    return SOURCE_CHANGE_WELL;
}

/* It was tried, and that told nothing: soon again. */
static void rest_try_again(struct source_set *sources, struct source_rest *rest, tick_us now)
{
    rest->probe_until = now + PROBE_AGAIN;
    source_ends_at(sources, rest->probe_until);
}

/* Did an attempt that began then try it? */
static bool is_try(const struct source_rest *rest, tick_us began)
{
    return rest->cause != SOURCE_WELL && began >= rest->until;
}

void source_on_attempt(struct source_set *sources, uint32_t number, uint32_t families, tick_us now)
{
    static const uint32_t bits[SOURCE_PART_COUNT] = {UINT32_MAX, 1u << FLOW_FAMILY_IP4,
                                                     1u << FLOW_FAMILY_IP6};
    struct source_state *state = &sources->states[number];

    for (uint32_t part = 0; part < SOURCE_PART_COUNT; part++) {
        struct source_rest *rest = &state->rests[part];
        bool is_meant = part == SOURCE_WHOLE || (families & bits[part]) != 0;
        if (!is_meant || rest->cause == SOURCE_WELL || source_rest_holds(rest, now))
            continue;
        rest->probe_until = now + PROBE_TIME;
        source_ends_at(sources, rest->probe_until);
        rest_tell(sources, state, (enum source_part)part);
    }
}

/* ---- nothing leaves ---- */

enum source_change source_on_broken(struct source_set *sources, uint32_t number,
                                    enum flow_family family, tick_us now)
{
    struct source_state *state = &sources->states[number];
    struct source_rest *rest = &state->rests[part_of(family)];

    if (rest->cause != SOURCE_WELL && now < rest->until)
        return SOURCE_CHANGE_NONE; /* an attempt that began before */
    rest->sites = rest->evidence_count = 0;
    return rest_begin(sources, state, part_of(family), SOURCE_BROKEN, now);
}

/* ---- connections ---- */

static struct source_reached *reached_of(struct source_set *sources, uint64_t site)
{
    return &sources->reached[digest(site) % SOURCE_REACHED_MAX];
}

enum source_change source_on_connected(struct source_set *sources,
                                       const struct source_attempt *attempt,
                                       enum flow_family family)
{
    struct source_state *state = &sources->states[attempt->number];
    enum source_part part = part_of(family);

    *reached_of(sources, attempt->site) = (struct source_reached){attempt->site, attempt->now};
    state->connected_at[part] = attempt->now;
    if (state->failures[part].count > 0)
        sources->alive_since = attempt->now;
    state->failures[part].count = 0;
    if (state->rests[part].cause == SOURCE_WELL)
        return SOURCE_CHANGE_NONE;
    return rest_end(sources, state, part, attempt->now);
}

/* Has anybody else connected since then? */
static bool is_network_alive(const struct source_set *sources, const struct source_state *but,
                             enum source_part but_part, tick_us since)
{
    for (uint32_t i = 0; i < sources->settings->source_count; i++) {
        const struct source_state *state = &sources->states[i];
        for (uint32_t part = SOURCE_IP4; part < SOURCE_PART_COUNT; part++) {
            bool is_it = state == but && part == but_part;
            if (!is_it && state->connected_at[part] != 0 && state->connected_at[part] >= since)
                return true;
        }
    }
    return false;
}

static tick_us first_of(const struct source_failures *failures)
{
    tick_us first = TICK_NEVER;

    for (uint32_t i = 0; i < failures->count; i++)
        first = failures->sites[i].evidence.at < first ? failures->sites[i].evidence.at : first;
    return first;
}

enum source_change source_on_unreached(struct source_set *sources,
                                       const struct source_attempt *attempt,
                                       enum flow_family family, struct span said)
{
    const struct settings_source_rest *settings = &sources->settings->source_rest;
    struct source_state *state = &sources->states[attempt->number];
    enum source_part part = part_of(family);
    struct source_rest *rest = &state->rests[part];
    struct source_failures *failures = &state->failures[part];
    const struct source_reached *reached = reached_of(sources, attempt->site);
    tick_us now = attempt->now;
    bool is_known = reached->site == attempt->site && reached->at != 0 &&
                    now - reached->at <= REACHED_MEMORY && attempt->began >= sources->alive_since;

    if (is_try(rest, attempt->began) && !is_known)
        rest_try_again(sources, rest, now);
    if (!is_known || settings->sites == 0 || (rest->cause != SOURCE_WELL && now < rest->until))
        return SOURCE_CHANGE_NONE;
    struct source_evidence evidence = evidence_of(attempt, said);
    sites_drop_older(failures->sites, &failures->count,
                     now > settings->within ? now - settings->within : 0);
    site_put(failures->sites, &failures->count, SOURCE_FAILED_MAX,
             &(struct source_site){attempt->site, source_origin(attempt->site, NULL), evidence});
    bool is_alone = !is_network_alive(sources, state, part, first_of(failures));
    if (is_try(rest, attempt->began) && is_alone)
        rest_try_again(sources, rest, now);
    if (is_alone || (rest->cause == SOURCE_WELL && failures->count < settings->sites))
        return SOURCE_CHANGE_NONE;
    evidence_take(rest, failures->sites, failures->count, 0);
    failures->count = 0;
    return rest_begin(sources, state, part, SOURCE_UNREACHED, now);
}

/* ---- refusals ---- */

static void taken_add(struct source_set *sources, struct source_state *state, uint32_t origin,
                      tick_us now)
{
    tick_us within = sources->settings->source_rest.within;
    uint32_t bit = digest(origin) % (SOURCE_TAKEN_WORDS * 64);

    if (now - state->taken_since >= within) {
        bool is_next = now - state->taken_since < 2 * within;
        for (uint32_t i = 0; i < SOURCE_TAKEN_WORDS; i++) {
            state->taken[1][i] = is_next ? state->taken[0][i] : 0;
            state->taken[0][i] = 0;
        }
        state->taken_since = now;
    }
    state->taken[0][bit / 64] |= 1ull << bit % 64;
}

/* About how many sites took its mail within the window, and up to one before. */
static uint32_t taken_count(const struct source_set *sources, const struct source_state *state,
                            tick_us now)
{
    uint32_t count = 0;

    if (now - state->taken_since >= 2 * sources->settings->source_rest.within)
        return 0;
    for (uint32_t i = 0; i < SOURCE_TAKEN_WORDS; i++)
        count += (uint32_t)__builtin_popcountll(state->taken[0][i] | state->taken[1][i]);
    return count;
}

bool source_is_refused_at(const struct source_set *sources, uint32_t number, uint64_t site,
                          tick_us now)
{
    const struct source_state *state = &sources->states[number];
    uint32_t place = site_find(state->refused, state->refused_count, site);

    return place < state->refused_count && now - state->refused[place].evidence.at < REFUSED_MEMORY;
}

/* What is older than the memory goes only now: until the try after a longer rest it is known. */
static void refused_put(struct source_state *state, const struct source_site *site)
{
    tick_us at = site->evidence.at;

    sites_drop_older(state->refused, &state->refused_count,
                     at > REFUSED_MEMORY ? at - REFUSED_MEMORY : 0);
    site_put(state->refused, &state->refused_count, SOURCE_REFUSED_MAX, site);
}

bool source_may_try_at(struct source_set *sources, uint32_t number, uint64_t site, tick_us now)
{
    const struct source_state *state = &sources->states[number];
    const struct source_rest *rest = &state->rests[SOURCE_WHOLE];
    tick_us over = rest->until > rest->probe_until ? rest->until : rest->probe_until;

    if (rest->cause != SOURCE_REFUSED || now >= over + TRY_ELSEWHERE ||
        site_find(state->refused, state->refused_count, site) == state->refused_count)
        return true;
    source_ends_at(sources, over + TRY_ELSEWHERE);
    return false;
}

static void refused_tell(struct source_set *sources, const struct source_state *state,
                         const struct source_site *site)
{
    struct source_news news = {.kind = SOURCE_NEWS_REFUSED,
                               .site = site->site,
                               .origin = site->origin,
                               .rest = {.evidence = {site->evidence}}};

    memcpy(news.name, state->name, sizeof(news.name));
    news_tell(sources, &news);
}

/* Is it the source, and not just these sites? Before a rest the window counts; after it, what is
 * remembered: sites had no occasion to say more. If so, the rest learns who said it. */
static bool refused_weigh(const struct source_set *sources, struct source_state *state, tick_us now)
{
    struct source_rest *rest = &state->rests[SOURCE_WHOLE];
    bool is_again = rest->cause != SOURCE_WELL;
    tick_us memory = is_again ? REFUSED_MEMORY : sources->settings->source_rest.within;
    tick_us since = now > memory ? now - memory : 0;
    uint32_t against = origins_since(state->refused, state->refused_count, since);
    uint32_t taken = taken_count(sources, state, now);

    if (is_again && rest->taken > taken)
        taken = rest->taken;
    if (against < sources->settings->source_rest.sites || against * (SHARE_MIN - 1) < taken)
        return false;
    rest->taken = taken;
    evidence_take(rest, state->refused, state->refused_count, since);
    return true;
}

enum source_change source_on_refused(struct source_set *sources,
                                     const struct source_attempt *attempt, struct span said)
{
    struct source_state *state = &sources->states[attempt->number];
    struct source_rest *rest = &state->rests[SOURCE_WHOLE];
    struct source_site site = {attempt->site, attempt->origin, evidence_of(attempt, said)};
    tick_us now = attempt->now;
    uint32_t place = site_find(state->refused, state->refused_count, attempt->site);

    if (place == state->refused_count || now - state->refused[place].evidence.at >= TELL_TIME)
        refused_tell(sources, state, &site);
    refused_put(state, &site);
    if (sources->settings->source_rest.sites == 0 ||
        sources->settings->sources[attempt->number].is_implied ||
        (rest->cause != SOURCE_WELL && !is_try(rest, attempt->began)))
        return SOURCE_CHANGE_NONE;
    if (refused_weigh(sources, state, now))
        return rest_begin(sources, state, SOURCE_WHOLE, SOURCE_REFUSED, now);
    if (rest->cause == SOURCE_WELL)
        return SOURCE_CHANGE_NONE;
    return rest_end(sources, state, SOURCE_WHOLE, now);
}

static bool refused_strike(struct source_state *state, uint64_t site)
{
    uint32_t place = site_find(state->refused, state->refused_count, site);

    if (place == state->refused_count)
        return false;
    state->refused[place] = state->refused[--state->refused_count];
    return true;
}

enum source_change source_on_taken(struct source_set *sources, const struct source_attempt *attempt)
{
    struct source_state *state = &sources->states[attempt->number];

    taken_add(sources, state, attempt->origin, attempt->now);
    if (state->refused_count > 0 && refused_strike(state, attempt->site)) {
        struct source_news news = {.kind = SOURCE_NEWS_TAKEN, .site = attempt->site};
        memcpy(news.name, state->name, sizeof(news.name));
        news_tell(sources, &news);
    }
    if (!is_try(&state->rests[SOURCE_WHOLE], attempt->began))
        return SOURCE_CHANGE_NONE;
    return rest_end(sources, state, SOURCE_WHOLE, attempt->now);
}

/* ---- from another shard ---- */

void source_on_news(struct source_set *sources, const struct source_news *news)
{
    struct source_state *state = source_state_find(sources, span_from_text(news->name));

    if (state == NULL) /* it has other settings */
        return;
    if (news->kind == SOURCE_NEWS_REFUSED) {
        refused_put(state, &(struct source_site){news->site, news->origin, news->rest.evidence[0]});
    } else if (news->kind == SOURCE_NEWS_TAKEN) {
        (void)refused_strike(state, news->site);
    } else {
        CHECK(news->part < SOURCE_PART_COUNT);
        state->rests[news->part] = news->rest;
        state->failures[news->part].count = 0;
        source_ends_at(sources, 0); /* whoever waits gets a look, and what ends is found */
    }
}
