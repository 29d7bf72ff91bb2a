/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_REACTION_H
#define RELAY_REACTION_H

#include "queue/rate.h"
#include "relay/client.h"

/*
 * What the relay does about refusals that say more than their code: rules that match a reply, each
 * with an action on the site it came from. A set of rules is immutable, shared by all shards; what
 * matching needs besides (struct reaction_matcher) each shard has for itself.
 */
#define REACTION_RULE_MAX    1000u
#define REACTION_REGEX_MAX   500u /* octets of an expression */
#define REACTION_NAME_MAX    47u
#define REACTION_MX_MAX      64u
#define REACTION_SUBJECT_MAX 512u /* octets of a reply that are looked at */
#define REACTION_WHY_SIZE    256u

enum reaction_action {
    REACTION_BACK_OFF, /* suspend, each time for longer */
    REACTION_SUSPEND,
    REACTION_SLOW,
    REACTION_SKIP_MX,
    REACTION_BOUNCE,
    REACTION_MOVE, /* suspend the site for the source that was refused, if its pool has another */
    REACTION_ACTION_COUNT
};

/* A rule as it is written. Text that is NULL, and counts of 0: not said. */
struct reaction_spec {
    const char *name;
    const char *domain;    /* pattern of the recipients' domain */
    const char *provider;  /* of `sites` */
    const char *const *mx; /* patterns of the name of the host that replied */
    uint32_t mx_count;
    uint32_t stages;      /* bits of enum smtp_stage; 0: any */
    const char *code;     /* "421, 45x, 5xx" */
    const char *enhanced; /* "4.7.28, 4.7.*" */
    const char *regex;
    struct rate_set trigger; /* act at the n-th match within that time */
    enum reaction_action action;
    tick_us duration;
    struct rate_set rate; /* SLOW */
    uint32_t connection_max;
};

struct reaction_set;

/* A refusal, and where it came from. */
struct reaction_reply {
    struct span domain, provider, host;
    enum smtp_stage stage;
    uint16_t code;
    uint8_t enhanced[3];
    struct span text; /* code and text, printable */
};

struct reaction_set *reaction_set_new(void);
void reaction_set_free(struct reaction_set *set);
/**
 * Add a rule behind the others.
 *
 * Ownership: everything is copied, but the texts and lists of `spec`, which live as long as the
 * set. Errors:    ERR_CONFIG_VALUE: ret_why for people; the set is as it was.
 */
enum err reaction_set_add(struct reaction_set *set, const struct reaction_spec *spec,
                          char ret_why[REACTION_WHY_SIZE]) MUST_CHECK;
uint32_t reaction_set_count(const struct reaction_set *set);
const struct reaction_spec *reaction_set_get(const struct reaction_set *set, uint32_t index);

struct reaction_stats { /* of one rule */
    uint64_t matches;
    uint64_t given_up; /* matching would have taken too long */
};

struct reaction_matcher;
struct reaction_matcher *reaction_matcher_new(void);
void reaction_matcher_free(struct reaction_matcher *matcher);
/** Another set, or NULL: counts begin anew. */
void reaction_matcher_use(struct reaction_matcher *matcher, const struct reaction_set *set);
/**
 * The first rule that matches; NULL: none does.
 *
 * Threading: the matcher's shard only.
 * Cost:      whatever the expressions and the reply are, MATCH_LIMIT steps of each rule; no heap
 *            beyond HEAP_LIMIT.
 */
const struct reaction_spec *reaction_find(struct reaction_matcher *matcher,
                                          const struct reaction_reply *reply);
/** What became of rule `index` of the set in use. */
struct reaction_stats reaction_matcher_stats(const struct reaction_matcher *matcher,
                                             uint32_t index);

#endif
