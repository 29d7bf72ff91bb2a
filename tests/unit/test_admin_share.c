/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers that several may have: who gets one that was made for another, and that nobody sees what
 * was before an order.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>

#include "control/admin_share.h"
#include "tests/unit/admin_fixture.h"

static const char status[] = "{\"verb\":\"status\",\"max_age_ms\":500}\n";
static const char hold[] = "{\"verb\":\"site suspend\",\"id\":\"big.example\",\"reason\":\"x\","
                           "\"duration\":\"1h\"}\n";

static void end(int fd)
{
    json_t *answer = admin_fixture_receive(fd);

    assert_true(json_is_object(answer));
    json_decref(answer);
}

/* How many times shards were asked for it. */
static uint32_t cost_of(const char *request)
{
    uint32_t before = admin_fixture.asked;
    json_t *answer = admin_fixture_ask(request);

    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
    return admin_fixture.asked - before;
}

/* Goal: the age that is taken is the bound, and a second is the most. */
static void test_age(void **state)
{
    static const struct {
        const char *name, *request;
        tick_us later;
        uint32_t cost;
    } rows[] = {
        {"as old as it may be", status, TICK_MS(500) - 1, 0},
        {"older", status, TICK_MS(500), ADMIN_FIXTURE_SHARDS},
        {"who says nothing", "{\"verb\":\"status\"}\n", 0, ADMIN_FIXTURE_SHARDS},
        {"who wants a new one", "{\"verb\":\"status\",\"max_age_ms\":0}\n", 0,
         ADMIN_FIXTURE_SHARDS},
        {"less than nothing", "{\"verb\":\"status\",\"max_age_ms\":-1}\n", 0, ADMIN_FIXTURE_SHARDS},
        {"no number", "{\"verb\":\"status\",\"max_age_ms\":\"500\"}\n", 0, ADMIN_FIXTURE_SHARDS},
        {"a second", "{\"verb\":\"status\",\"max_age_ms\":1000}\n", TICK_MS(1000) - 1, 0},
        {"a second, and it is over", "{\"verb\":\"status\",\"max_age_ms\":1000}\n", TICK_MS(1000),
         ADMIN_FIXTURE_SHARDS},
        {"an hour", "{\"verb\":\"status\",\"max_age_ms\":3600000}\n", TICK_MS(1000) - 1, 0},
        {"an hour, and a second is over", "{\"verb\":\"status\",\"max_age_ms\":3600000}\n",
         TICK_MS(1000), ADMIN_FIXTURE_SHARDS},
        {"for ever", "{\"verb\":\"status\",\"max_age_ms\":9223372036854775807}\n", TICK_MS(1000),
         ADMIN_FIXTURE_SHARDS},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        admin_fixture.now += TICK_S(2);
        assert_int_equal(ADMIN_FIXTURE_SHARDS, cost_of(status));
        admin_fixture.now += rows[i].later;
        assert_int_equal(rows[i].cost, cost_of(rows[i].request));
    }
}

/* Goal: it is the same question whatever the order of its members, and no other is. */
static void test_question(void **state)
{
    (void)state;
    admin_fixture.rows[0] = 5;
    assert_int_not_equal(0, cost_of("{\"verb\":\"queue list\",\"limit\":2,\"max_age_ms\":500}\n"));
    assert_int_equal(0, cost_of("{\"max_age_ms\":400,\"limit\":2,\"verb\":\"queue list\"}\n"));
    assert_int_not_equal(0, cost_of("{\"verb\":\"queue list\",\"limit\":3,\"max_age_ms\":500}\n"));
    assert_int_not_equal(0, cost_of("{\"verb\":\"queue list\",\"max_age_ms\":500}\n"));
    for (uint32_t i = 0; i < 2; i++) { /* a stream goes to one */
        uint32_t asked = admin_fixture.asked;
        json_decref(
            admin_fixture_ask("{\"verb\":\"queue list\",\"stream\":true,\"max_age_ms\":500}\n"));
        assert_int_not_equal(asked, admin_fixture.asked);
    }
}

/* Goal: an answer for another is the same, octet for octet. */
static void test_same(void **state)
{
    static const char summary[] = "{\"verb\":\"queue summary\",\"max_age_ms\":500}\n";
    json_t *first = admin_fixture_ask(summary), *second = admin_fixture_ask(summary);

    (void)state;
    assert_true(json_equal(first, second));
    assert_int_equal(26, json_integer_value(json_object_get(second, "total")));
    json_decref(first);
    json_decref(second);
}

/* Goal: several who ask at once cost as much as one. */
static void test_at_once(void **state)
{
    int fds[8];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(fds); i++) {
        fds[i] = admin_fixture_open();
        admin_fixture_send(fds[i], status);
    }
    for (uint32_t i = 0; i < COUNT_OF(fds); i++)
        end(fds[i]);
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
}

/* Goal: who gave an order sees what it did, and not what was before. */
static void test_after_order(void **state)
{
    static const char summary[] = "{\"verb\":\"queue summary\",\"max_age_ms\":1000}\n";

    (void)state;
    (void)cost_of(status);
    json_decref(admin_fixture_ask(hold));
    assert_int_equal(ADMIN_FIXTURE_SHARDS, cost_of(status));

    /* A walk that was begun before the order, and parked for it, ends after it. */
    int walker = admin_fixture_open();
    admin_fixture_send(walker, summary);
    int holder = admin_fixture_open();
    admin_fixture_send(holder, hold);
    admin_fixture_answer();
    assert_int_equal(SHARD_QUERY_TRANSFER, admin_fixture.query->kind); /* it goes first */
    end(holder);
    end(walker);
    assert_int_equal(2 * ADMIN_FIXTURE_SHARDS, cost_of(summary));
    assert_int_equal(0, cost_of(summary));

    /* What an order's own client sees when it asks before it has been carried out. */
    holder = admin_fixture_open();
    admin_fixture_send(holder, hold);
    assert_int_equal(3 * ADMIN_FIXTURE_SHARDS - 1, cost_of(summary)); /* one was asked before */
    end(holder);
    assert_int_equal(0, cost_of(summary));
    admin_fixture.reload_works = true;
    json_decref(admin_fixture_ask("{\"verb\":\"reload\"}\n"));
    assert_int_not_equal(0, cost_of(summary));
    assert_int_equal(0, cost_of(summary));
    admin_forget_answers(admin_fixture.admin); /* as a reload by SIGHUP does */
    assert_int_not_equal(0, cost_of(summary));
}

/* Goal: so many answers are kept, the oldest goes first, and none that is too long. */
static void test_bounds(void **state)
{
    char request[80];

    (void)state;
    for (uint32_t i = 0; i <= ADMIN_SHARE_MAX; i++) {
        (void)snprintf(request, sizeof(request),
                       "{\"verb\":\"queue summary\",\"limit\":%u,\"max_age_ms\":1000}\n", i + 1);
        admin_fixture.now += 1;
        assert_int_not_equal(0, cost_of(request));
    }
    assert_int_equal(0, cost_of(request));
    assert_int_equal(0, cost_of("{\"verb\":\"queue summary\",\"limit\":2,\"max_age_ms\":1000}\n"));
    assert_int_not_equal(0,
                         cost_of("{\"verb\":\"queue summary\",\"limit\":1,\"max_age_ms\":1000}\n"));

    static const char all[] = "{\"verb\":\"queue list\",\"limit\":10000,\"max_age_ms\":1000}\n";
    admin_fixture.rows[0] = 300;
    assert_int_not_equal(0, cost_of(all));
    assert_int_equal(0, cost_of(all));
    admin_fixture.rows[0] = 1500;
    admin_fixture.now += TICK_S(1);
    assert_int_not_equal(0, cost_of(all));
    assert_int_not_equal(0, cost_of(all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADMIN_FIXTURE_TEST(test_age),         ADMIN_FIXTURE_TEST(test_question),
        ADMIN_FIXTURE_TEST(test_same),        ADMIN_FIXTURE_TEST(test_at_once),
        ADMIN_FIXTURE_TEST(test_after_order), ADMIN_FIXTURE_TEST(test_bounds),
    };

    admin_fixture_begin();
    int failed = cmocka_run_group_tests_name("admin_share", tests, NULL, NULL);
    admin_fixture_end();
    return failed;
}
