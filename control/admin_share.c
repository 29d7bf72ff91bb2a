/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A few answers, kept for a moment.
 *
 * Invariants
 *   1. Who gave an order sees no answer from before it: all are forgotten when an order begins and
 *      when it is carried out, and one that was begun before either is not kept. So a reload by
 *      signal (admin_forget_answers()).
 *   2. Nobody gets an older answer than he takes, and it counts from when it was asked for.
 *   3. Who says nothing about age gets an answer of his own.
 *
 * Bounds: ADMIN_SHARE_MAX answers of ADMIN_SHARE_SIZE_MAX octets. An old one stays until its place
 * is wanted, or the next one is kept.
 */
#include "control/admin_share.h"

#include <stdlib.h>
#include <string.h>

#define AGE_MEMBER "max_age_ms"

/* What is not here may be an order. */
static const char *const looks[] = {
    "status",  "queue summary", "queue list",    "queue show",  "queue orders",
    "explain", "site show",     "site patterns", "source show", "user quota",
    "flows",   "counters",      "dns lookup",    "route",       "queue cat",
};

static void shared_free(struct admin_shared *shared)
{
    free(shared->question);
    json_text_free(&shared->answer);
    *shared = (struct admin_shared){0};
}

void admin_share_fini(struct admin_share *share)
{
    for (uint32_t i = 0; i < ADMIN_SHARE_MAX; i++)
        shared_free(&share->answers[i]);
}

bool admin_share_is_look(const char *verb)
{
    for (uint32_t i = 0; i < COUNT_OF(looks); i++) {
        if (strcmp(verb, looks[i]) == 0)
            return true;
    }
    return false;
}

char *admin_share_question(const json_t *request, tick_us *ret_age_max)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    json_int_t age_ms = json_integer_value(json_object_get(request, AGE_MEMBER));

    if (age_ms <= 0 || verb == NULL || !admin_share_is_look(verb) ||
        strcmp(verb, "queue cat") == 0 || json_is_true(json_object_get(request, "stream")))
        return NULL;
    json_t *same = json_copy((json_t *)(uintptr_t)request);
    (void)json_object_del(same, AGE_MEMBER);
    char *question = json_dumps(same, JSON_COMPACT | JSON_SORT_KEYS);
    json_decref(same);
    *ret_age_max = age_ms < (json_int_t)(ADMIN_SHARE_AGE_MAX / TICK_MS(1)) ? TICK_MS(age_ms)
                                                                           : ADMIN_SHARE_AGE_MAX;
    return question;
}

const struct json_text *admin_share_find(const struct admin_share *share, const char *question,
                                         tick_us age_max, tick_us now)
{
    for (uint32_t i = 0; i < ADMIN_SHARE_MAX; i++) {
        const struct admin_shared *shared = &share->answers[i];
        if (shared->question != NULL && shared->made + age_max > now &&
            strcmp(shared->question, question) == 0)
            return &shared->answer;
    }
    return NULL;
}

/* Where an answer is kept: in place of one to the same question, or of the oldest. */
static struct admin_shared *place_get(struct admin_share *share, const char *question, tick_us now)
{
    struct admin_shared *place = &share->answers[0];

    for (uint32_t i = 0; i < ADMIN_SHARE_MAX; i++) {
        struct admin_shared *shared = &share->answers[i];
        if (shared->question == NULL)
            continue;
        if (shared->made + ADMIN_SHARE_AGE_MAX <= now || strcmp(shared->question, question) == 0)
            shared_free(shared);
    }
    for (uint32_t i = 0; i < ADMIN_SHARE_MAX; i++) {
        if (share->answers[i].made < place->made) /* a free place has none */
            place = &share->answers[i];
    }
    shared_free(place);
    return place;
}

void admin_share_keep(struct admin_share *share, char *question, const char *answer, size_t size,
                      tick_us made, uint64_t changes)
{
    if (changes != share->changes || size > ADMIN_SHARE_SIZE_MAX) {
        free(question);
        return;
    }
    struct admin_shared *place = place_get(share, question, made);
    place->question = question;
    place->made = made;
    json_text_octets(&place->answer, answer, size);
}

void admin_share_forget(struct admin_share *share)
{
    admin_share_fini(share);
    share->changes++;
}
