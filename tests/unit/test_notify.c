/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service manager's side of notify.c: a datagram socket that reads what sd_notify(3) says, with
 * shards that are tables and a clock that is a number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/log.h"
#include "control/notify.h"

#define SHARDS   3u
#define WATCHDOG TICK_S(8) /* an interval is 2 s */

static int manager = -1;
static struct notify *notify;
static struct shard_query *asked[SHARDS];  /* not replied to yet */
static struct shard_query *behind[SHARDS]; /* new settings; the same */
static char said[4096];

static void on_query(void *context, uint32_t shard, struct shard_query *query)
{
    (void)context;
    assert_true(shard < SHARDS);
    if (query->kind == SHARD_QUERY_TRANSFER) {
        assert_null(behind[shard]);
        behind[shard] = query;
        return;
    }
    assert_null(asked[shard]);
    assert_int_equal(SHARD_QUERY_STATUS, query->kind);
    asked[shard] = query;
}

static void answer(uint32_t shard)
{
    struct shard_query *query = asked[shard];

    assert_non_null(query);
    asked[shard] = NULL;
    query->status->server.open = shard;
    query->status->queue.messages = 100;
    assert_true(notify_owns(notify, query));
    notify_on_reply(notify, query);
}

/* It has the new settings. */
static void answer_behind(uint32_t shard)
{
    struct shard_query *query = behind[shard];

    assert_non_null(query);
    behind[shard] = NULL;
    query->visit(query, NULL, 0);
    assert_true(query->cursor == UINT64_MAX);
    assert_true(notify_owns(notify, query));
    notify_on_reply(notify, query);
}

/* All that was said since the last look, datagrams joined by a blank line. */
static const char *hear(void)
{
    size_t size = 0;
    ssize_t got;

    while ((got = recv(manager, said + size, sizeof(said) - size - 3, MSG_DONTWAIT)) > 0) {
        size += (size_t)got;
        memcpy(said + size, "\n\n", 2);
        size += 2;
    }
    said[size] = '\0';
    return said;
}

static bool is_fed(void)
{
    return strstr(hear(), "WATCHDOG=1") != NULL;
}

static int begin(void **state)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char name[64];
    int size = snprintf(name, sizeof(name), "@test_notify.%d", (int)getpid());
    struct notify_options options = {.shard_count = SHARDS, .query = on_query};

    (void)state;
    memset(asked, 0, sizeof(asked));
    memset(behind, 0, sizeof(behind));
    memcpy(address.sun_path + 1, name + 1, (size_t)size - 1);
    manager = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (bind(manager, (const struct sockaddr *)&address,
             (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)size)) != 0)
        return -1;
    setenv("NOTIFY_SOCKET", name, 1);
    setenv("WATCHDOG_USEC", "8000000", 1);
    unsetenv("WATCHDOG_PID");
    return notify_new(&options, &notify) == ERR_OK ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    notify_free(notify);
    close(manager);
    return 0;
}

static void answer_all(void)
{
    for (uint32_t i = 0; i < SHARDS; i++)
        answer(i);
}

static void says_what_happens(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    assert_string_equal("READY=1\nSTATUS=serving\n\n", hear());
    notify_reloading(notify, 77);
    assert_string_equal("RELOADING=1\nMONOTONIC_USEC=77\n\n", hear());
    notify_reloaded(notify, false);
    assert_string_equal("READY=1\n\n", hear());
    notify_stopping(notify, TICK_S(30), 0);
    assert_string_equal("STOPPING=1\nSTATUS=draining: no new mail is taken\n"
                        "EXTEND_TIMEOUT_USEC=35000000\n\nWATCHDOG=1\n\n",
                        hear());
}

/* Goal: a reload is over when all shards have the newest settings, not when these are on their way.
 */
static void a_reload_ends_with_the_last_shard(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    hear();
    notify_reloaded(notify, true);
    notify_run(notify, 0); /* a round beside it */
    answer_all();
    assert_true(is_fed());
    answer_behind(0);
    answer_behind(2);
    assert_string_equal("", hear());
    answer_behind(1);
    assert_string_equal("READY=1\n\n", hear());
    for (uint32_t is_ok = 0; is_ok < 2; is_ok++) { /* another one comes, well or not */
        notify_reloaded(notify, true);
        answer_behind(1);
        notify_reloaded(notify, is_ok);
        notify_reloaded(notify, true);
        answer_behind(0);
        answer_behind(2);
        assert_string_equal("", hear());
        for (uint32_t i = 0; i < SHARDS; i++)
            answer_behind(i);
        assert_string_equal("READY=1\n\n", hear());
    }
}

/* Goal: who stops, or is the relay no more, is not called ready by late replies. */
static void a_reload_ends_with_the_relay(void **state)
{
    (void)state;
    for (uint32_t is_moved = 0; is_moved < 2; is_moved++) {
        notify_ready(notify, 0);
        notify_reloaded(notify, true);
        if (is_moved)
            notify_moved(notify, 1);
        else
            notify_stopping(notify, TICK_S(30), 0);
        hear();
        for (uint32_t i = 0; i < SHARDS; i++)
            answer_behind(i);
        assert_string_equal("", hear());
        assert_int_equal(0, end(state));
        assert_int_equal(0, begin(state));
    }
}

static void says_how_it_is(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    hear();
    notify_run(notify, 0);
    answer_all();
    assert_string_equal("WATCHDOG=1\n\nSTATUS=3 sessions open, 300 messages in the queue\n\n",
                        hear());
    notify_reloading(notify, 0);
    notify_reloaded(notify, false);
    notify_run(notify, TICK_S(2));
    answer_all();
    assert_non_null(strstr(hear(), "in the queue; the last reload failed, see the log\n"));
}

static void is_fed_by_complete_rounds_alone(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    notify_run(notify, 0);
    assert_false(is_fed());
    answer(0);
    answer(2);
    assert_false(is_fed());
    answer(1);
    assert_true(is_fed());
    notify_run(notify, TICK_S(2) - 1); /* not yet */
    assert_null(asked[0]);
    notify_run(notify, TICK_S(2));
    answer_all();
    assert_true(is_fed());
}

static void is_starved_by_one_stuck_shard(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    notify_run(notify, 0);
    answer(0);
    answer(2);
    hear();
    for (tick_us now = 0; now < 4 * WATCHDOG; now += TICK_MS(100)) {
        notify_run(notify, now);
        assert_null(asked[0]); /* no second round behind the first */
    }
    assert_string_equal("", hear());
    answer(1); /* it moves again */
    assert_true(is_fed());
    notify_run(notify, 4 * WATCHDOG);
    answer_all();
    assert_true(is_fed());
}

static void tells_of_adoption(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    notify_adopting(notify, true);
    hear();
    notify_run(notify, 0);
    answer_all();
    assert_non_null(strstr(hear(), "; taking over mail of earlier runs\n"));
    notify_adopting(notify, false);
    notify_run(notify, 4 * WATCHDOG);
    answer_all();
    assert_null(strstr(hear(), "taking over"));
}

static void drains_on_time_alone(void **state)
{
    (void)state;
    notify_ready(notify, 0);
    notify_run(notify, 0);
    notify_stopping(notify, TICK_S(30), TICK_S(1));
    hear();
    notify_run(notify, TICK_S(3) - 1);
    assert_false(is_fed());
    notify_run(notify, TICK_S(3));
    assert_true(is_fed());
    answer_all(); /* late replies are taken, and start nothing */
    assert_string_equal("", hear());
}

static void is_silent_without_a_manager(void **state)
{
    (void)state;
    unsetenv("NOTIFY_SOCKET");
    notify_ready(notify, 0);
    assert_true(notify_deadline(notify) == TICK_NEVER);
    notify_run(notify, TICK_S(100));
    assert_null(asked[0]);
    notify_reloading(notify, 0);
    notify_reloaded(notify, true);
    assert_null(behind[0]);
    notify_stopping(notify, TICK_S(30), 0);
    assert_true(notify_deadline(notify) == TICK_NEVER);
    assert_string_equal("", hear());
}

static void does_without_a_watchdog(void **state)
{
    (void)state;
    unsetenv("WATCHDOG_USEC");
    notify_ready(notify, 0);
    hear();
    notify_run(notify, 0);
    answer_all();
    assert_string_equal("STATUS=3 sessions open, 300 messages in the queue\n\n", hear());
    notify_run(notify, NOTIFY_INTERVAL_MAX - 1);
    assert_null(asked[0]);
    notify_run(notify, NOTIFY_INTERVAL_MAX);
    assert_non_null(asked[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(says_what_happens, begin, end),
        cmocka_unit_test_setup_teardown(a_reload_ends_with_the_last_shard, begin, end),
        cmocka_unit_test_setup_teardown(a_reload_ends_with_the_relay, begin, end),
        cmocka_unit_test_setup_teardown(says_how_it_is, begin, end),
        cmocka_unit_test_setup_teardown(is_fed_by_complete_rounds_alone, begin, end),
        cmocka_unit_test_setup_teardown(is_starved_by_one_stuck_shard, begin, end),
        cmocka_unit_test_setup_teardown(tells_of_adoption, begin, end),
        cmocka_unit_test_setup_teardown(drains_on_time_alone, begin, end),
        cmocka_unit_test_setup_teardown(is_silent_without_a_manager, begin, end),
        cmocka_unit_test_setup_teardown(does_without_a_watchdog, begin, end),
    };
    log_set_threshold(LOG_FATAL); /* what is said on standard error must not cut a line of TAP */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
