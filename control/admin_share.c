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

#define AGE_MEMBER  "max_age_ms"
#define MEMBERS_MAX 16u /* of a question that may have an answer of another */

/* What is not here may be an order. */
static const char *const looks[] = {
    "status",     "queue summary", "queue list",  "queue show", "queue orders", "explain",
    "site show",  "site patterns", "source show", "user quota", "flows",        "counters",
    "dns lookup", "route",         "queue cat",   "metrics",
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

/* Of all members but the age, by name: NULL if these are more than any question has. */
static uint32_t names_sort(const json_t *request, const char *ret_names[MEMBERS_MAX])
{
    uint32_t count = 0;
    const char *name;
    json_t *value;

    if (json_object_size(request) > MEMBERS_MAX)
        return 0;
    json_object_foreach((json_t *)(uintptr_t)request, name, value)
    {
        uint32_t place = count;
        if (strcmp(name, AGE_MEMBER) == 0)
            continue;
        for (; place > 0 && strcmp(ret_names[place - 1], name) > 0; place--)
            ret_names[place] = ret_names[place - 1];
        ret_names[place] = name;
        count++;
    }
    return count;
}

/* As JSON; and quicker than jansson would write it, as all who look on pay for it. */
static char *question_text(const json_t *request)
{
    const char *names[MEMBERS_MAX];
    struct json_text text = {0};
    uint32_t count = names_sort(request, names);

    for (uint32_t i = 0; i < count; i++) {
        json_t *value = json_object_get(request, names[i]);
        json_text_name(&text, names[i]);
        if (json_is_string(value))
            json_text_string(&text, json_string_value(value), json_string_length(value));
        else if (json_is_integer(value))
            json_text_number(&text, json_integer_value(value));
        else
            json_text_tree(&text, json_incref(value));
    }
    if (count > 0)
        json_text_octets(&text, "", 1);
    return text.data;
}

char *admin_share_question(const json_t *request, tick_us *ret_age_max)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    json_int_t age_ms = json_integer_value(json_object_get(request, AGE_MEMBER));

    if (age_ms <= 0 || verb == NULL || !admin_share_is_look(verb) ||
        strcmp(verb, "queue cat") == 0 || json_is_true(json_object_get(request, "stream")))
        return NULL;
    char *question = question_text(request);
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

void admin_share_keep(struct admin_share *share, char *question, struct json_text answer,
                      tick_us made, uint64_t changes)
{
    if (changes != share->changes || answer.size > ADMIN_SHARE_SIZE_MAX) {
        free(question);
        json_text_free(&answer);
        return;
    }
    struct admin_shared *place = place_get(share, question, made);
    place->question = question;
    place->made = made;
    place->answer = answer;
}

void admin_share_forget(struct admin_share *share)
{
    admin_share_fini(share);
    share->changes++;
}
