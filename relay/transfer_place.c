/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the lines of one pool wait for one site, and which source takes what is next.
 *
 * A place is served while it has a READY job or a line with due mail, and one of its members can
 * take it: the source may be used there, the site does not pause as seen from it, and a connection
 * can be had - a kept one, or a slot - with the right to say MAIL. Lines take turns, one delivery
 * each, so that a big domain does not starve a small one at the same provider. Members take turns
 * by weight (source.h); who is busy is passed over, and catches up. Whom the site has refused, the
 * source and not the mail, has no turn while another could take it, and is not where a source is
 * tried after a rest before other places had time to (source_may_try_at()).
 *
 * While no member may be used nothing is taken from the lines: mail waits in the queue, without an
 * attempt, until a site or a source wakes us. A READY job goes back then, to free its memory.
 *
 * Deliveries of other shards (transfer_guest.c) have places of their own, with one member: their
 * owner has chosen the source already.
 *
 * Invariants
 *   1. A place exists while it has lines or jobs; while it exists its members keep their sites.
 *   2. Members and turns are those of the settings the place was made under. Under newer ones it
 *      gives back its lines and its READY jobs, and lives until the rest have ended.
 *   3. Who finds no member open has asked every pausing site to wake it.
 *
 * Warm-up is a window of a day more at the member's sites, as large as the day has it; it changes
 * at midnight, UTC (transfer_places_warm_up()).
 *
 * Mail that must be read back is read ahead: of a place, one for each of its connections that has
 * work, two for each that has none, and TRANSFER_READ_AHEAD at least. Fewer would leave connections
 * idle for as many turns as a read takes, and mail that comes meanwhile would push still more out
 * of memory. Memory for it is limited in transfer_job.c. What is due of an earlier class overtakes
 * what was read ahead.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#define PLACE_WHOLE_TURN 100u       /* percent */
#define PLACE_RETRY_TIME TICK_S(60) /* for a job that only pausing members could take */
#define PLACE_TIED_TIME  TICK_S(20) /* for one that waits for one member, which is busy */

/* ---- the table ---- */

static struct transfer_place **place_bucket(struct transfer *transfer, uint64_t key)
{
    return &transfer->places_by_key[(uint32_t)(key >> 32 ^ key) % TRANSFER_SITE_BUCKETS];
}

/* Pools are told apart by where they lie in the settings: a key of both would have to be hashed for
 * each line. NULL: of guests. */
static struct transfer_place *place_find(struct transfer *transfer, uint64_t key,
                                         const struct settings_pool *pool)
{
    struct transfer_place *place = *place_bucket(transfer, key);
    while (place != NULL && (place->key != key || place->pool != pool ||
                             place->serial != transfer->settings->serial))
        place = place->hash_next;
    return place;
}

static struct transfer_place *place_new(struct transfer *transfer, uint64_t key, uint64_t base,
                                        const struct settings_pool *pool, uint32_t member_count)
{
    size_t size = sizeof(struct transfer_place) + member_count * sizeof(struct transfer_member);
    struct transfer_place *place = calloc(1, size + member_count * sizeof(struct source_turn));
    struct transfer_place **bucket = place_bucket(transfer, key);

    CHECK(place != NULL && member_count > 0 && member_count <= SETTINGS_MEMBER_MAX);
    place->key = key;
    place->base = base;
    place->pool = pool;
    place->is_guest = pool == NULL;
    place->settings = transfer->settings;
    place->serial = transfer->settings->serial;
    place->rank = INT64_MAX;
    place->member_count = member_count;
    place->turns = (struct source_turn *)(void *)((uint8_t *)place + size);
    TAILQ_INIT(&place->lines);
    TAILQ_INIT(&place->ready);
    place->round = qmgr_round_new(transfer->qmgr);
    place->hash_next = *bucket;
    *bucket = place;
    return place;
}

static void member_set(struct transfer_place *place, uint32_t index, uint32_t number,
                       uint32_t weight, uint64_t site_key)
{
    place->members[index] = (struct transfer_member){.place = place,
                                                     .source = &place->settings->sources[number],
                                                     .number = number,
                                                     .site_key = site_key};
    place->turns[index].weight = weight;
}

/* What the members' sites are allowed from now on. */
static void place_limit(struct transfer *transfer, struct transfer_place *place,
                        const struct settings_route *route,
                        const struct settings_site_limits *limits)
{
    place->route = route;
    place->is_local = !settings_route_has_source(route);
    place->limits = *limits;
    for (uint32_t i = 0; i < place->member_count; i++) {
        if (place->members[i].site != NULL)
            transfer_site_limit(transfer, place->members[i].site, place->members[i].source, route,
                                limits);
    }
}

/* The member's site, known from now on. False: all sites are busy. */
static bool member_find_site(struct transfer *transfer, struct transfer_member *member)
{
    struct transfer_place *place = member->place;

    if (member->site != NULL)
        return true;
    struct transfer_site *site =
        transfer_site_get(transfer, member->site_key, span_from_text(place->label),
                          span_from_text(member->source->is_implied ? "" : member->source->name));
    if (site == NULL)
        return false;
    member->site = site;
    TAILQ_INSERT_TAIL(&site->members, member, link);
    transfer_site_limit(transfer, site, member->source, place->route, &place->limits);
    return true;
}

void transfer_place_review(struct transfer *transfer, struct transfer_place *place)
{
    if (place->is_woken || place->jobs > 0 || !TAILQ_EMPTY(&place->lines))
        return;
    struct transfer_place **link = place_bucket(transfer, place->key);
    while (*link != place)
        link = &(*link)->hash_next;
    *link = place->hash_next;
    for (uint32_t i = 0; i < place->member_count; i++) {
        struct transfer_site *site = place->members[i].site;
        if (site == NULL)
            continue;
        TAILQ_REMOVE(&site->members, &place->members[i], link);
        transfer_site_review(transfer, site);
    }
    qmgr_round_free(place->round);
    free(place);
}

/* The site as it is called already, if it is known, gives its name to the place. */
static bool place_begin(struct transfer *transfer, struct transfer_place *place, uint32_t first,
                        struct span label)
{
    uint32_t size = label.size < SITE_LABEL_MAX ? label.size : SITE_LABEL_MAX;

    memcpy(place->label, label.data, size);
    if (!member_find_site(transfer, &place->members[first])) {
        transfer_place_review(transfer, place);
        return false;
    }
    struct span known = site_get_view(place->members[first].site->site).label;
    memcpy(place->label, known.data, known.size);
    place->label[known.size] = '\0';
    return true;
}

static struct transfer_place *place_make(struct transfer *transfer,
                                         const struct settings_pool *pool, uint64_t base,
                                         const struct transfer_line *line,
                                         const struct settings_site_limits *limits)
{
    struct transfer_place *place = place_new(transfer, base, base, pool, pool->member_count);
    uint32_t first = source_first_turn(transfer->sources, pool);
    int64_t total = 0;

    for (uint32_t i = 0; i < pool->member_count; i++) {
        uint32_t number = pool->members[i].source;
        member_set(place, i, number, pool->members[i].weight,
                   transfer_site_key(base, &transfer->settings->sources[number]));
        total += pool->members[i].weight;
    }
    place->turns[first].credit = total - place->turns[first].weight;
    place_limit(transfer, place, line->route, limits);
    struct span label =
        limits->provider == NULL ? qmgr_line_domain(line->line) : span_from_text(limits->provider);
    return place_begin(transfer, place, first, label) ? place : NULL;
}

struct transfer_place *transfer_place_get(struct transfer *transfer, struct transfer_line *line,
                                          const struct settings_site_limits *limits)
{
    const struct settings_pool *pool =
        settings_pool_of(transfer->settings, qmgr_line_source_pool(line->line));
    uint64_t base = transfer_site_base(transfer, &line->answer, limits);
    struct transfer_place *place = place_find(transfer, base, pool);

    if (place == NULL)
        return place_make(transfer, pool, base, line, limits);
    place_limit(transfer, place, line->route, limits);
    return place;
}

struct transfer_place *transfer_place_get_guest(struct transfer *transfer,
                                                const struct handover *handover,
                                                const struct settings_route *route,
                                                const struct settings_site_limits *limits)
{
    struct transfer_place *place = place_find(transfer, handover->site, NULL);
    const struct settings_source *source =
        settings_source_find(transfer->settings, span_from_text(handover->source));

    if (source == NULL)
        return NULL;
    if (place == NULL) {
        uint64_t base = transfer_site_base(transfer, &handover->hosts, limits);
        place = place_new(transfer, handover->site, base, NULL, 1);
        member_set(place, 0, (uint32_t)(source - transfer->settings->sources), 1, handover->site);
        place_limit(transfer, place, route, limits);
        return place_begin(transfer, place, 0, span_from_text(handover->label)) ? place : NULL;
    }
    place_limit(transfer, place, route, limits);
    return place;
}

void transfer_place_wake(struct transfer *transfer, struct transfer_place *place)
{
    if (place->is_woken)
        return;
    place->is_woken = true;
    TAILQ_INSERT_TAIL(&transfer->woken_places, place, woken_link);
}

void transfer_places_wake(struct transfer *transfer)
{
    for (uint32_t bucket = 0; bucket < TRANSFER_SITE_BUCKETS; bucket++) {
        struct transfer_place *place = transfer->places_by_key[bucket];
        for (; place != NULL; place = place->hash_next)
            transfer_place_wake(transfer, place);
    }
}

uint32_t transfer_place_waiting(const struct transfer_place *place)
{
    return place->jobs + qmgr_round_due(place->round);
}

/* ---- who may take it ---- */

static bool member_source_is_open(const struct transfer *transfer,
                                  const struct transfer_member *member)
{
    tick_us now = transfer->now.tick;

    if (member->place->is_local)
        return true;
    if (source_may_use(transfer->sources, member->number, now) == SOURCE_USE_NO ||
        settings_warmup_limit(member->source, transfer->now.wall) == 0)
        return false;
    return member->place->is_guest || /* its owner has asked */
           source_may_try_at(transfer->sources, member->number, member->place->base, now);
}

/* A site that pauses is asked to wake us; one that is suspended loses what is kept. */
static bool member_is_open(struct transfer *transfer, const struct transfer_member *member)
{
    tick_us now = transfer->now.tick;

    if (!member_source_is_open(transfer, member))
        return false;
    if (member->site == NULL || site_paused_until(member->site->site) <= now)
        return true;
    if (site_is_suspended(member->site->site, now))
        client_close_idle(transfer->client, member->site_key, now);
    enum err err = site_slot_acquire(transfer->sites, member->site->site,
                                     transfer_site_rank(member->site), 1, now);
    CHECK(err == ERR_TIMEOUT);
    return false;
}

static uint64_t place_open_members(struct transfer *transfer, const struct transfer_place *place)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < place->member_count; i++) {
        if (member_is_open(transfer, &place->members[i]))
            mask |= 1ull << i;
    }
    return mask;
}

/* But for families of `resting`: 1 << enum flow_family. */
static bool source_reaches(const struct settings_source *source, const struct mx_answer *answer,
                           uint32_t resting)
{
    for (uint32_t i = 0; i < answer->host_count; i++) {
        for (uint32_t j = 0; j < answer->hosts[i].address_count; j++) {
            enum flow_family family = answer->hosts[i].addresses[j].family;
            if ((resting & 1u << family) == 0 && settings_source_has_family(source, family))
                return true;
        }
    }
    return false;
}

static uint64_t place_reaching_members(const struct transfer_place *place,
                                       const struct mx_answer *answer)
{
    uint64_t mask = 0;

    for (uint32_t i = 0; i < place->member_count; i++) {
        if (place->is_local || source_reaches(place->members[i].source, answer, 0))
            mask |= 1ull << i;
    }
    return mask;
}

/* Of those that are open: over families that do not rest; and before those that the site refuses,
 * the source and not the mail, the others. */
static uint64_t place_fit_members(const struct transfer *transfer,
                                  const struct transfer_place *place,
                                  const struct mx_answer *answer, uint64_t open)
{
    uint64_t fit = 0, refused = 0;

    if (place->is_local)
        return open;
    for (uint32_t i = 0; i < place->member_count; i++) {
        uint32_t number = place->members[i].number;
        uint32_t resting = source_families_resting(transfer->sources, number, transfer->now.tick);
        if ((open & 1ull << i) == 0 || !source_reaches(place->members[i].source, answer, resting))
            continue;
        fit |= 1ull << i;
        if (source_is_refused_at(transfer->sources, number, place->base, transfer->now.tick))
            refused |= 1ull << i;
    }
    return (fit & ~refused) != 0 ? fit & ~refused : fit;
}

/* ---- warm-up ---- */

static bool member_makes_wait(const struct transfer *transfer, const struct transfer_member *member)
{
    return !member->place->is_local && member->source->warmup.overflow == SETTINGS_OVERFLOW_WAIT &&
           settings_warmup_limit(member->source, transfer->now.wall) != SETTINGS_WARM;
}

/*
 * Those of the pool that may take this job: mail that falls to a source that makes it wait is tied
 * to it while it is open, and it gets no other. What falls to whom is drawn by weight from the
 * message's id, so that it is the same at every attempt.
 */
static uint64_t place_members_for(struct transfer *transfer, const struct transfer_place *place,
                                  struct transfer_job *job, uint64_t open, uint64_t reaching,
                                  bool *ret_is_tied)
{
    int64_t total = 0, point;
    uint64_t waiting = 0;

    *ret_is_tied = false;
    for (uint32_t i = 0; i < place->member_count; i++) {
        total += place->turns[i].weight;
        if (member_makes_wait(transfer, &place->members[i]))
            waiting |= 1ull << i;
    }
    if (waiting == 0 || place->member_count == 1) /* a guest's, too */
        return reaching;
    struct message_id id = transfer_job_view(transfer, job).envelope->id;
    point = (int64_t)((id.high ^ id.low) * 0x9e3779b97f4a7c15ull >> 33) % total;
    uint32_t chosen = 0;
    while (point >= place->turns[chosen].weight)
        point -= place->turns[chosen++].weight;
    *ret_is_tied = (open & reaching & waiting & 1ull << chosen) != 0;
    if (*ret_is_tied)
        return 1ull << chosen;
    return (reaching & ~waiting) != 0 ? reaching & ~waiting : reaching;
}

void transfer_places_warm_up(struct transfer *transfer)
{
    bool is_set_back = transfer->now.wall < transfer->warmup_seen;

    transfer->warmup_seen = transfer->now.wall;
    if (transfer->now.wall < transfer->warmup_next && !is_set_back)
        return;
    transfer->warmup_next = settings_warmup_next(transfer->settings, transfer->now.wall);
    for (uint32_t bucket = 0; bucket < TRANSFER_SITE_BUCKETS; bucket++) {
        struct transfer_place *place = transfer->places_by_key[bucket];
        for (; place != NULL; place = place->hash_next) {
            if (place->serial != transfer->settings->serial)
                continue;
            struct settings_site_limits limits = place->limits;
            place_limit(transfer, place, place->route, &limits);
            transfer_place_wake(transfer, place);
        }
    }
}

/* ---- serving ---- */

/* A line comes up only while something is due in it. One that was emptied by anything else but its
 * turn (expiry, an order) is found here: one line is looked at for each delivery that is taken. */
static void place_sweep(struct transfer *transfer, struct transfer_place *place)
{
    struct transfer_line *line = TAILQ_FIRST(&place->lines);

    if (line == NULL)
        return;
    if (qmgr_line_due(line->line) == 0) {
        transfer_line_finish(transfer, line);
        return;
    }
    TAILQ_REMOVE(&place->lines, line, link);
    TAILQ_INSERT_TAIL(&place->lines, line, link);
}

/* Every connection of its sites has a job and the one after it, or as good as. */
static bool place_reads_enough(const struct transfer_place *place)
{
    uint32_t connections = 0;

    if (place->reading < TRANSFER_READ_AHEAD)
        return false;
    for (uint32_t i = 0; i < place->member_count; i++) {
        if (place->members[i].site != NULL)
            connections += place->members[i].site->connections;
    }
    return place->jobs >= 2 * connections;
}

/* The next delivery of the place's lines becomes a job. False: none. */
static bool place_take(struct transfer *transfer, struct transfer_place *place)
{
    struct qmgr_line *next;
    int64_t rank;

    if (transfer->is_draining || place_reads_enough(place))
        return false;
    while ((next = qmgr_round_next(place->round)) != NULL) {
        struct transfer_line *line = qmgr_line_user(next);
        if (!transfer_line_is_fresh(transfer, line)) {
            transfer_line_renew(transfer, line);
            continue;
        }
        struct qmgr_delivery *delivery =
            qmgr_round_take(transfer->qmgr, place->round, transfer->now, &rank);
        (void)transfer_job_new(transfer, line, delivery, rank);
        if (qmgr_line_due(line->line) == 0)
            transfer_line_finish(transfer, line);
        place_sweep(transfer, place);
        return true;
    }
    while (!TAILQ_EMPTY(&place->lines)) /* nothing is due in any of them */
        transfer_line_finish(transfer, TAILQ_FIRST(&place->lines));
    return false;
}

/* No source of the pool, whatever its state, has an address of a family that the hosts have. */
static void job_settle_unreachable(struct transfer *transfer, struct transfer_job *job)
{
    if (job->guest == NULL)
        transfer_job_settle_all(
            transfer, job,
            &(struct transfer_verdict){RECIPIENT_DUE,
                                       451,
                                       {4, 4, 1},
                                       "no source of the pool has an address of their families",
                                       true,
                                       0});
    else
        transfer_job_put_back(transfer, job, 0);
}

static bool place_send_away(struct transfer *transfer, struct transfer_place *place,
                            struct transfer_job *job, uint64_t busy)
{
    for (uint32_t i = 0; i < place->member_count; i++) {
        if ((busy & 1ull << i) != 0 && transfer_job_try_away(transfer, job, &place->members[i]))
            return true;
    }
    return false;
}

/* The member's next turn comes after those of other places at its site. */
static void member_step_back(struct transfer_member *member)
{
    TAILQ_REMOVE(&member->site->members, member, link);
    TAILQ_INSERT_TAIL(&member->site->members, member, link);
}

/* Start a READY job over the member whose turn it is, or the next that can take it. False: none can
 * before it wakes us; `*ret_busy` are those that may be used, and have nothing free. */
static bool place_try(struct transfer *transfer, struct transfer_place *place,
                      struct transfer_job *job, uint64_t open, uint64_t *ret_busy)
{
    uint64_t busy = 0;

    while ((open & ~busy) != 0) { /* each round makes a member busy, or closes it */
        uint32_t next = source_turn_next(place->turns, place->member_count, open & ~busy);
        struct transfer_member *member = &place->members[next];
        enum transfer_try result = TRANSFER_TRY_PAUSED;
        if (member_find_site(transfer, member))
            result = transfer_job_try(transfer, job, member);
        if (result == TRANSFER_TRY_STARTED) {
            source_turn_taken(place->turns, place->member_count, open, next);
            member_step_back(member);
            return true;
        }
        if (result == TRANSFER_TRY_BUSY)
            busy |= 1ull << next;
        else
            open &= ~(1ull << next);
    }
    *ret_busy = busy;
    return false;
}

/* A READY job is started, sent away or ended. False: it waits until we are woken. */
static bool place_start(struct transfer *transfer, struct transfer_place *place,
                        struct transfer_job *job)
{
    uint64_t reaching = place_reaching_members(place, &job->answer), busy = 0;
    bool is_tied;

    if (transfer_cut_hold_back(transfer, place, job))
        return true;
    if (reaching == 0) {
        job_settle_unreachable(transfer, job);
        return true;
    }
    uint64_t open =
        place_fit_members(transfer, place, &job->answer, place_open_members(transfer, place));
    reaching = place_members_for(transfer, place, job, open, reaching, &is_tied);
    if (place_try(transfer, place, job, open & reaching, &busy))
        return true;
    if (busy != 0 && is_tied) { /* the others need not wait with it */
        bool is_mail_short = place->members[__builtin_ctzll(busy)].site->is_mail_short;
        transfer_job_put_back(transfer, job,
                              transfer->now.wall + (wall_us)(is_mail_short
                                                                 ? PLACE_TIED_TIME
                                                                 : TRANSFER_RESOLVE_RETRY_TIME));
        return true;
    }
    if (busy != 0)
        return place_send_away(transfer, place, job, busy);
    /* Those that pause wake us; with others open, the next job would be this one again. */
    open = place_open_members(transfer, place);
    transfer_job_put_back(transfer, job,
                          open == 0 ? 0 : transfer->now.wall + (wall_us)PLACE_RETRY_TIME);
    return true;
}

static void place_give_back(struct transfer *transfer, struct transfer_place *place)
{
    struct transfer_job *job;

    while ((job = TAILQ_FIRST(&place->ready)) != NULL)
        transfer_job_put_back(transfer, job, 0);
    while (!TAILQ_EMPTY(&place->lines))
        transfer_line_finish(transfer, TAILQ_FIRST(&place->lines));
}

/* The next delivery of the lines becomes a job, if a member may be used. */
static bool place_take_next(struct transfer *transfer, struct transfer_place *place)
{
    return !TAILQ_EMPTY(&place->lines) && place_open_members(transfer, place) != 0 &&
           place_take(transfer, place);
}

/* Something of an earlier class than the first READY job is due: it becomes one, and goes before
 * it. But for the turns that are promised to the later class. */
static bool place_overtake(struct transfer *transfer, struct transfer_place *place,
                           const struct transfer_job *job)
{
    uint32_t least = qmgr_rank_least(transfer->qmgr, job->rank);

    if (place->promised >= PLACE_WHOLE_TURN || !qmgr_round_overtakes(place->round, job->rank) ||
        !place_take_next(transfer, place))
        return false;
    place->promised += least;
    return true;
}

/* A job goes although something of an earlier class is due: that was a promised turn. */
static void place_turn_taken(struct transfer_place *place, int64_t rank)
{
    if (place->promised >= PLACE_WHOLE_TURN && qmgr_round_overtakes(place->round, rank))
        place->promised -= PLACE_WHOLE_TURN;
}

/* One step. True: there may be more to do at once. */
static bool place_serve(struct transfer *transfer, struct transfer_place *place)
{
    struct transfer_job *job = TAILQ_FIRST(&place->ready);
    bool is_done = false;

    if (place->serial != transfer->settings->serial) {
        place_give_back(transfer, place);
        return false;
    }
    place->rank = INT64_MAX;
    if (job == NULL)
        return place_take_next(transfer, place);
    if (place_overtake(transfer, place, job))
        return true;
    int64_t rank = place->rank = job->rank;
    is_done = place_start(transfer, place, job);
    if (is_done) {
        place_turn_taken(place, rank);
        place->rank = INT64_MAX;
    }
    return is_done;
}

void transfer_places_run(struct transfer *transfer)
{
    struct transfer_place *place;

    /* Places take turns, a step each: every step starts, takes or ends a job, and all run out. */
    while ((place = TAILQ_FIRST(&transfer->woken_places)) != NULL) {
        TAILQ_REMOVE(&transfer->woken_places, place, woken_link);
        place->is_woken = false;
        if (place_serve(transfer, place))
            transfer_place_wake(transfer, place);
        transfer_place_review(transfer, place);
    }
}

void transfer_places_free(struct transfer *transfer)
{
    for (uint32_t bucket = 0; bucket < TRANSFER_SITE_BUCKETS; bucket++) {
        struct transfer_place *place = transfer->places_by_key[bucket];
        while (place != NULL) {
            struct transfer_place *next = place->hash_next;
            transfer_line_list_free(transfer, &place->lines);
            qmgr_round_free(place->round);
            free(place);
            place = next;
        }
    }
}
