/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop taking mail, and take it again. Each shard closes its listeners, tells sessions outside a
 * transaction 421, and lets the others end their transaction, for a time; what waits is delivered
 * on. A restart takes mail again. A dry run tells who would be waited for.
 */
#include "control/admin_intake.h"

#include <stdio.h>
#include <stdlib.h>

#define SECONDS_DEFAULT 60
#define SECONDS_MAX     86400

bool admin_intake_prepare(const char *verb, const json_t *request, struct admin_intake *intake,
                          struct shard_query *query)
{
    const struct tick_source *clock = tick_source_system();
    const char *reason = json_string_value(json_object_get(request, "reason"));
    json_int_t seconds = json_integer_value(json_object_get(request, "seconds"));
    bool is_end = strcmp(verb, "drain end") == 0;

    if (!is_end && strcmp(verb, "drain") != 0)
        return false;
    struct shard_intake *found = calloc(1, sizeof(*found));
    query->kind = SHARD_QUERY_INTAKE;
    query->found = found;
    if (found == NULL)
        return true;
    if (seconds <= 0)
        seconds = SECONDS_DEFAULT;
    found->is_closed = !is_end;
    found->time = TICK_S(seconds < SECONDS_MAX ? seconds : SECONDS_MAX);
    found->is_dry_run = json_is_true(json_object_get(request, "dry_run"));
    if (found->is_dry_run)
        return true;
    *intake = (struct admin_intake){.is_closed = !is_end, .since = clock->wall(clock->context)};
    if (reason != NULL && !is_end)
        (void)snprintf(intake->reason, sizeof(intake->reason), "%s", reason);
    return true;
}

bool admin_intake_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_INTAKE;
}

static void dry_run_finish(json_t *answer, const struct shard_intake *found)
{
    json_object_set_new(answer, "dry_run", json_true());
    json_object_set_new(answer, "sessions", json_integer(found->open));
    json_object_set_new(answer, "deliveries", json_integer((json_int_t)found->deliveries));
    json_object_set_new(answer, "messages", json_integer((json_int_t)found->messages));
    json_object_set_new(
        answer, "text",
        json_sprintf("nothing was done: %u sessions would have %llu s to end; %llu deliveries are "
                     "under way, of %llu messages in the queue",
                     found->open, (unsigned long long)(found->time / TICK_S(1)),
                     (unsigned long long)found->deliveries, (unsigned long long)found->messages));
}

const char *admin_intake_finish(json_t *answer, const struct shard_query *query)
{
    const struct shard_intake *found = query->found;
    char text[160];

    if (found->is_dry_run) {
        dry_run_finish(answer, found);
        return NULL;
    }
    if (found->failed > 0)
        return "some listeners could not be opened again: see the log";
    if (found->is_closed)
        (void)snprintf(text, sizeof(text),
                       "no new mail is taken; %u sessions are open, and have %llu s to end",
                       found->open, (unsigned long long)(found->time / TICK_S(1)));
    else
        (void)snprintf(text, sizeof(text), "mail is taken again");
    json_object_set_new(answer, "text", json_string(text));
    json_object_set_new(answer, "sessions", json_integer(found->open));
    return NULL;
}

void admin_intake_end(struct shard_query *query)
{
    free(query->found);
    query->found = NULL;
}

void admin_intake_status(const struct admin_intake *intake, struct json_text *text)
{
    json_text_key(text, JSON_KEY("intake"));
    json_text_open(text, '{');
    json_text_set_boolean(text, JSON_KEY("is_closed"), intake->is_closed);
    if (intake->is_closed) {
        json_text_set_number(text, JSON_KEY("since_us"), (uint64_t)intake->since);
        json_text_set_string(text, JSON_KEY("reason"), intake->reason);
    }
    json_text_close(text, '}');
}
