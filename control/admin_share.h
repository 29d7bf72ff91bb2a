/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_SHARE_H
#define CONTROL_ADMIN_SHARE_H

#include "base/tick.h"
#include "control/json_text.h"

/*
 * Answers that several may have: who looks on asks the same again and again, and others ask the
 * same at that time. A question that takes an answer of another, `"max_age_ms":N`, gets it when
 * that is no older.
 */
#define ADMIN_SHARE_AGE_MAX  TICK_MS(1000)
#define ADMIN_SHARE_MAX      16u
#define ADMIN_SHARE_SIZE_MAX (256u << 10) /* octets: longer ones are made for each asker */

struct admin_shared {
    char *question; /* NULL: a free place */
    struct json_text answer;
    tick_us made; /* it is about this time, or a later one */
};

struct admin_share {
    struct admin_shared answers[ADMIN_SHARE_MAX];
    uint64_t changes; /* orders so far, each counted where it begins and where it ends */
};

void admin_share_fini(struct admin_share *share);
/** Does the verb look, and change nothing? */
bool admin_share_is_look(const char *verb);
/**
 * What two questions have in common that may have the same answer; `*ret_age_max`: how old it may
 * be. NULL: the asker wants one of its own.
 *
 * Ownership: the caller's, to be freed.
 */
char *admin_share_question(const json_t *request, tick_us *ret_age_max);
/** NULL: there is none that is as fresh. Valid until the next call. */
const struct json_text *admin_share_find(const struct admin_share *share, const char *question,
                                         tick_us age_max, tick_us now);
/** Keep an answer. Consumes it, and `question`. `made`: when it was begun, `changes`: of that time.
 */
void admin_share_keep(struct admin_share *share, char *question, struct json_text answer,
                      tick_us made, uint64_t changes);
/** Something is changed: no answer from before is given any more. */
void admin_share_forget(struct admin_share *share);

#endif
