/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `drain`: what is asked of the shards, within which bounds, and what is told.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "control/admin_intake.h"

/* Goal: the time has a default and bounds, and only the two verbs are meant. */
static void test_prepare(void **state)
{
    static const struct {
        const char *verb, *request;
        bool is_ours, is_closed;
        uint64_t seconds;
    } rows[] = {
        {"drain", "{}", true, true, 60},
        {"drain", "{\"seconds\":1,\"reason\":\"r\"}", true, true, 1},
        {"drain", "{\"seconds\":0}", true, true, 60},
        {"drain", "{\"seconds\":86400}", true, true, 86400},
        {"drain", "{\"seconds\":86401}", true, true, 86400},
        {"drain end", "{\"reason\":\"r\"}", true, false, 60},
        {"drain begin", "{}", false, false, 0},
    };
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct admin_intake intake = {.since = -1};
        struct shard_query query = {.kind = SHARD_QUERY_STATUS};
        json_t *request = json_loads(rows[i].request, 0, NULL);
        bool is_ours = admin_intake_prepare(rows[i].verb, request, &intake, &query);
        json_decref(request);
        assert_int_equal(rows[i].is_ours, is_ours);
        assert_int_equal(is_ours, admin_intake_owns(&query));
        if (!is_ours) {
            assert_int_equal(-1, intake.since);
            continue;
        }
        const struct shard_intake *found = query.found;
        assert_int_equal(rows[i].is_closed, found->is_closed);
        assert_int_equal(rows[i].is_closed, intake.is_closed);
        assert_int_equal(TICK_S(rows[i].seconds), found->time);
        assert_int_equal(rows[i].is_closed && strstr(rows[i].request, "reason") != NULL,
                         intake.reason[0] != '\0');
        admin_intake_end(&query);
        assert_null(query.found);
    }
}

static json_t *status_of(const struct admin_intake *intake)
{
    struct json_text text = {0};

    json_text_open(&text, '{');
    admin_intake_status(intake, &text);
    json_text_close(&text, '}');
    json_t *whole = json_loadb(text.data, text.size, 0, NULL);
    json_t *status = json_incref(json_object_get(whole, "intake"));
    json_decref(whole);
    json_text_free(&text);
    return status;
}

/* Goal: what could not be opened again is a failure; a status says since when and why. */
static void test_tell(void **state)
{
    struct shard_intake found = {.is_closed = true, .open = 3, .time = TICK_S(60)};
    struct shard_query query = {.kind = SHARD_QUERY_INTAKE, .found = &found};
    struct admin_intake intake = {.is_closed = true, .since = 5, .reason = "why"};
    json_t *answer = json_object(), *status = status_of(&intake);
    (void)state;

    assert_null(admin_intake_finish(answer, &query));
    assert_int_equal(3, json_integer_value(json_object_get(answer, "sessions")));
    assert_string_equal("why", json_string_value(json_object_get(status, "reason")));
    assert_int_equal(5, json_integer_value(json_object_get(status, "since_us")));
    json_decref(status);
    found = (struct shard_intake){.failed = 1};
    assert_non_null(admin_intake_finish(answer, &query));
    json_decref(answer);
    intake.is_closed = false;
    status = status_of(&intake);
    assert_null(json_object_get(status, "reason"));
    assert_true(json_is_false(json_object_get(status, "is_closed")));
    json_decref(status);
}

/* Goal: a dry run counts, changes nothing of what is remembered, and says so. */
static void test_dry_run(void **state)
{
    struct admin_intake intake = {.since = -1};
    struct shard_query query = {.kind = SHARD_QUERY_STATUS};
    json_t *request = json_pack("{sb,si}", "dry_run", 1, "seconds", 7), *answer = json_object();
    (void)state;

    assert_true(admin_intake_prepare("drain", request, &intake, &query));
    json_decref(request);
    struct shard_intake *found = query.found;
    assert_true(found->is_dry_run);
    assert_int_equal(-1, intake.since);
    found->open = 3;
    found->deliveries = 4;
    found->messages = 5;
    assert_null(admin_intake_finish(answer, &query));
    assert_true(json_is_true(json_object_get(answer, "dry_run")));
    assert_int_equal(3, json_integer_value(json_object_get(answer, "sessions")));
    assert_int_equal(4, json_integer_value(json_object_get(answer, "deliveries")));
    assert_int_equal(5, json_integer_value(json_object_get(answer, "messages")));
    assert_non_null(strstr(json_string_value(json_object_get(answer, "text")), "7 s"));
    admin_intake_end(&query);
    json_decref(answer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_prepare),
        cmocka_unit_test(test_tell),
        cmocka_unit_test(test_dry_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
