/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_SOURCE_H
#define RELAY_SOURCE_H

#include "base/tick.h"
#include "relay/settings.h"

/*
 * The sources of one shard: whose turn it is, and which may not be used now, where and why. Knows
 * no mail and no connections: transfer_place.c asks before it lets a delivery go, and
 * transfer_source.c says how that went.
 */

/* ---- turns ---- */

/* Smooth weighted round robin: of weights 3 and 1 the turns are a a b a, not a a a b. */
struct source_turn {
    int64_t weight, credit;
};
/** Whose turn it is among those of `mask`, one of at most 64; `mask` is not empty. */
uint32_t source_turn_next(const struct source_turn *turns, uint32_t count, uint64_t mask);
/** `taken` had its turn; those of `mask`, and it, could have had it. */
void source_turn_taken(struct source_turn *turns, uint32_t count, uint64_t mask, uint32_t taken);

/* ---- what may be used ---- */

struct source_set;

#define SOURCE_REASON_SIZE  200u
#define SOURCE_SITE_SIZE    64u
#define SOURCE_SAID_SIZE    128u
#define SOURCE_EVIDENCE_MAX 4u /* of a rest; more sites are counted */

enum source_use {
    SOURCE_USE_YES,
    SOURCE_USE_NO,
};

enum source_cause {
    SOURCE_WELL,
    SOURCE_BROKEN,    /* nothing leaves from its address */
    SOURCE_REFUSED,   /* sites refuse it: the address, not the mail */
    SOURCE_UNREACHED, /* it reaches nobody whom others reach */
    SOURCE_CAUSE_COUNT
};
/* What of a source rests. */
enum source_part { SOURCE_WHOLE, SOURCE_IP4, SOURCE_IP6, SOURCE_PART_COUNT };

struct source_evidence {
    tick_us at;
    char site[SOURCE_SITE_SIZE]; /* as people call it */
    char said[SOURCE_SAID_SIZE]; /* printable */
};

/* In force until `until`; from then on one attempt at a time may try, until one says that it is
 * well. */
struct source_rest {
    enum source_cause cause; /* WELL: none */
    tick_us since, until;
    tick_us probe_until; /* nobody else may try before */
    uint32_t times;      /* rests in a row */
    uint32_t taken;      /* REFUSED: sites that took its mail before */
    tick_us ended;       /* WELL: when the last was over */
    uint32_t sites;      /* that say so */
    uint32_t evidence_count;
    struct source_evidence evidence[SOURCE_EVIDENCE_MAX];
    char reason[SOURCE_REASON_SIZE];
};

/* What one shard tells the others. */
enum source_news_kind {
    SOURCE_NEWS_REFUSED, /* `site` refuses the source: evidence[0] of `rest` */
    SOURCE_NEWS_TAKEN,   /* `site` does no longer */
    SOURCE_NEWS_REST     /* what a part of it does from now on */
};
struct source_news {
    uint8_t kind; /* enum source_news_kind */
    char name[SETTINGS_SOURCE_NAME_MAX + 1];
    uint8_t part; /* enum source_part */
    uint32_t origin;
    uint64_t site;
    struct source_rest rest;
};

/** Heap; start-up. */
struct source_set *source_set_new(const struct settings *settings);
void source_set_free(struct source_set *sources);
/** What is known stays with the names. The settings live until the next call. */
void source_set_settings(struct source_set *sources, const struct settings *settings);
/** Who hears what the other shards should know; borrowed. */
void source_set_tell(struct source_set *sources, void *context,
                     void (*tell)(void *context, const struct source_news *news));
/** What another shard told. */
void source_on_news(struct source_set *sources, const struct source_news *news);

/** May this source (by number) be used? At one site it may still be suspended or pause: site.h. */
enum source_use source_may_use(const struct source_set *sources, uint32_t number, tick_us now);
/** Families that rest, 1 << enum flow_family each. */
uint32_t source_families_resting(const struct source_set *sources, uint32_t number, tick_us now);
/** Does this site (of whatever source) refuse the source? Others of the pool come first there. */
bool source_is_refused_at(const struct source_set *sources, uint32_t number, uint64_t site,
                          tick_us now);
/** May it be used at this site, as far as its rest goes? After a rest for refusals sites that are
 * not known to refuse it have the first try, for a while; its end is waited for. */
bool source_may_try_at(struct source_set *sources, uint32_t number, uint64_t site,
                       tick_us now) MUST_CHECK;
/** Which member of a pool has the first turn at a site that has had none. */
uint32_t source_first_turn(struct source_set *sources, const struct settings_pool *pool);

/** An operator's word: not before that time. `reason` is for people. False: there is no such
 * source. */
bool source_suspend(struct source_set *sources, struct span name, tick_us until,
                    const char *reason) MUST_CHECK;
/** What suspends it, or makes it rest, ends now, and what led to it is forgotten. False: there is
 * no such source. */
bool source_resume(struct source_set *sources, struct span name, tick_us now) MUST_CHECK;

/* ---- what attempts tell ---- */

/* Where an attempt went. */
struct source_attempt {
    uint32_t number;    /* of the source */
    uint64_t site;      /* whatever the source */
    uint32_t origin;    /* of its host: source_origin() */
    const char *label;  /* of the site, for people */
    tick_us began, now; /* `now`: when it told */
};
enum source_change { SOURCE_CHANGE_NONE, SOURCE_CHANGE_RESTS, SOURCE_CHANGE_WELL };

/** As what a host counts when sites refuse a source: its network, /24 or /48, so that names on one
 * host are one. Without an address, or with one that says nothing (NULL): the site itself. */
uint32_t source_origin(uint64_t site, const struct flow_address *host);
/** An attempt begins, to hosts of these families (bits, as above; 0: over a kept connection): what
 * has rested long enough is tried by it, and by no other for a while. */
void source_on_attempt(struct source_set *sources, uint32_t number, uint32_t families, tick_us now);
/** Nothing could leave from its address of that family. */
enum source_change source_on_broken(struct source_set *sources, uint32_t number,
                                    enum flow_family family, tick_us now);
/** A connection came about. */
enum source_change source_on_connected(struct source_set *sources,
                                       const struct source_attempt *attempt,
                                       enum flow_family family);
/** None came about over that family; `said`: why not. */
enum source_change source_on_unreached(struct source_set *sources,
                                       const struct source_attempt *attempt,
                                       enum flow_family family, struct span said);
/** The site refuses the source, and said so. */
enum source_change source_on_refused(struct source_set *sources,
                                     const struct source_attempt *attempt, struct span said);
/** The site has nothing against the source. */
enum source_change source_on_taken(struct source_set *sources,
                                   const struct source_attempt *attempt);

/* ---- over a restart ---- */

#define SOURCE_KEPT_SUSPENSION SOURCE_PART_COUNT

struct source_kept { /* a suspension, or what makes a part rest; times of the wall clock */
    char name[SETTINGS_SOURCE_NAME_MAX + 1];
    uint8_t part; /* enum source_part, or SOURCE_KEPT_SUSPENSION */
    uint8_t cause, evidence_count, reserved;
    uint32_t times, sites, reserved_too;
    wall_us since, until;
    char reason[SOURCE_REASON_SIZE];
    struct {
        wall_us at;
        char site[SOURCE_SITE_SIZE], said[SOURCE_SAID_SIZE];
    } evidence[SOURCE_EVIDENCE_MAX];
};
#define SOURCE_KEPT_MAX      (SOURCE_PART_COUNT + 1u) /* rows of one source, at most */
#define SOURCE_KEPT_TIME_MAX (TICK_S(86400) * 31)

/** The rows of source `number`; how many. */
uint32_t source_keep(const struct source_set *sources, uint32_t number, struct tick_now now,
                     struct source_kept rows[SOURCE_KEPT_MAX]);
/** Before the first mail: as it was. Rows of sources that are no more, that are over or make no
 * sense are passed over. */
void source_keep_restore(struct source_set *sources, const struct source_kept *rows, uint32_t count,
                         struct tick_now now);

/* ---- for people, and time ---- */

struct source_view {
    const struct settings_source *source;
    bool is_suspended, is_broken;    /* is_broken: it may not be used, for what attempts told */
    tick_us until;                   /* of that */
    uint32_t failures;               /* rests in a row */
    const char *reason;              /* "" without one */
    const struct source_rest *rests; /* by part; valid until the next call */
};
struct source_view source_get_view(const struct source_set *sources, uint32_t number, tick_us now);
/** Does the rest hold now, or is another shard's or attempt's try awaited? */
bool source_rest_holds(const struct source_rest *rest, tick_us now);
uint32_t source_count(const struct source_set *sources);

/* Sources by what keeps them, or a part of them, from being used. */
struct source_counts {
    uint32_t suspended;
    uint32_t resting;        /* none of their families is used */
    uint32_t resting_partly; /* one family rests, the other is used */
};
struct source_counts source_get_counts(const struct source_set *sources, tick_us now);

/** True when something may be used again that could not be. */
bool source_advance(struct source_set *sources, tick_us now);
tick_us source_deadline(const struct source_set *sources);

#endif
