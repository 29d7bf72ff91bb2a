/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket with shards that are tables: requests and answers, bounds, several clients at
 * once, clients that leave early, the network's verbs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/ask.h"
#include "tests/unit/admin_fixture.h"

static void test_socket_is_private(void **state)
{
    struct stat status;
    struct admin *second = NULL;
    struct admin_options options = {.path = admin_fixture_socket,
                                    .shard_count = ADMIN_FIXTURE_SHARDS,
                                    .query = admin_fixture_on_query,
                                    .reload = admin_fixture_on_reload};

    (void)state;
    assert_int_equal(0, stat(admin_fixture_socket, &status));
    assert_int_equal(0600, status.st_mode & 0777);
    assert_int_equal(ERR_DISK_LOCKED, admin_new(&options, &second));
}

static void test_status_is_summed(void **state)
{
    json_t *answer = admin_fixture_ask("{\"verb\":\"status\"}\n");
    json_t *server = json_object_get(answer, "server"), *spool = json_object_get(answer, "spool");

    (void)state;
    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_int_equal(33, json_integer_value(json_object_get(server, "messages_accepted")));
    assert_int_equal(2, json_integer_value(json_object_get(json_object_get(answer, "sources"),
                                                           "resting"))); /* no sum */
    assert_int_equal(1, json_integer_value(json_object_get(spool, "is_full")));
    assert_int_equal(ADMIN_FIXTURE_SHARDS, json_integer_value(json_object_get(answer, "cores")));
    assert_true(json_is_integer(json_object_get(answer, "uptime_us")));
    const json_t *cores = json_object_get(answer, "per_core");
    assert_int_equal(ADMIN_FIXTURE_SHARDS, json_array_size(cores));
    for (uint32_t i = 0; i < ADMIN_FIXTURE_SHARDS; i++) {
        const json_t *core = json_array_get(cores, i);
        assert_int_equal(10 + i, json_integer_value(json_object_get(core, "messages")));
        assert_int_equal(1, json_integer_value(json_object_get(core, "queued")));
    }
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
    json_decref(answer);
}

/* Goal: metrics are a page, with an empty line behind it, of what all shards and queues tell. */
static void test_metrics(void **state)
{
    static const char *const wanted[] = {
        "\nangarium_server_messages_accepted_total 33\n",
        "\nangarium_sources_resting 2\n", /* no sum */
        "\nangarium_cores 3\n",
        "\nangarium_queue_site_deliveries{site=\"big.example\"} 24\n"
        "angarium_queue_site_deliveries{site=\"\\\\xff.example\"} 2\n"
        "angarium_queue_site_deliveries{site=\"\"} 0\n\n",
    };
    int fd = admin_fixture_open();
    size_t size;

    (void)state;
    admin_fixture_send(fd, "{\"verb\":\"metrics\"}\n");
    const char *text = admin_fixture_receive_text(fd, &size);
    assert_memory_equal("# HELP angarium_build_info ", text, 27);
    assert_memory_equal("\n\n", text + size - 2, 2);
    for (uint32_t i = 0; i < COUNT_OF(wanted); i++)
        assert_non_null(memmem(text, size, wanted[i], strlen(wanted[i])));
    assert_int_equal(3 * ADMIN_FIXTURE_SHARDS, admin_fixture.asked); /* two slices of each queue */
}

/* Goal: what would be forgotten with this process is not promised: it is said, and nothing is done.
 */
static void test_drain_while_parting(void **state)
{
    (void)state;
    admin_fixture.is_parting = true;
    json_t *answer = admin_fixture_ask("{\"verb\":\"drain\"}\n");
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_non_null(strstr(json_string_value(json_object_get(answer, "error")), "ask again"));
    assert_int_equal(0, admin_fixture.asked);
    assert_false(admin_is_drained(admin_fixture.admin));
    json_decref(answer);
}

/* Goal: who wants to know something short need not wait for metrics of a large queue. */
static void test_metrics_let_others_first(void **state)
{
    int first = admin_fixture_open(), second = admin_fixture_open();
    size_t size;

    (void)state;
    admin_fixture_send(first, "{\"verb\":\"metrics\"}\n");
    admin_fixture_send(second, "{\"verb\":\"flows\"}\n");
    admin_fixture_answer();
    assert_int_equal(SHARD_QUERY_PLANE, admin_fixture.query->kind);
    json_t *answer = admin_fixture_receive(second);
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
    const char *text = admin_fixture_receive_text(first, &size);
    assert_non_null(memmem(text, size, "accepted_total 33\n", 18));
}

static void test_bad_requests(void **state)
{
    static const struct {
        const char *request, *error;
    } cases[] = {
        {"\n", "expected one JSON object on a line"},
        {"[]\n", "expected one JSON object on a line"},
        {"{\"verb\":\"status\"\n", "expected one JSON object on a line"},
        {"{}\n", "unknown verb"},
        {"{\"verb\":7}\n", "unknown verb"},
        {"{\"verb\":\"stop\"}\n", "unknown verb"},
        {"{\"verb\":\"queue show\"}\n", "this is no message id"},
        {"{\"verb\":\"queue show\",\"id\":\"x\"}\n", "this is no message id"},
        {"{\"verb\":\"queue cat\",\"id\":\"x\"}\n", "this is no message id"},
        {"{\"verb\":\"user quota\"}\n", "say which user"},
        {"{\"verb\":\"reload\"}\n", "x.yaml:3: no \"y\""},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *answer = admin_fixture_ask(cases[i].request);
        print_message("# case: %s\n", cases[i].error);
        assert_true(json_is_false(json_object_get(answer, "ok")));
        assert_string_equal(cases[i].error, json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
    assert_int_equal(0, admin_fixture.asked);
    admin_fixture.reload_works = true;
    json_t *answer = admin_fixture_ask("{\"verb\":\"reload\"}\n");
    assert_string_equal("reloaded", json_string_value(json_object_get(answer, "text")));
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.asked); /* behind the new settings */
    json_decref(answer);
}

/* Goal: a request of the largest size is read, one octet more is refused. */
static void test_request_size(void **state)
{
    static char request[4200];

    (void)state;
    for (uint32_t size = 4095; size <= 4097; size++) {
        memset(request, ' ', sizeof(request));
        memcpy(request, "{\"verb\":\"stop\"}", 15);
        request[size - 1] = '\n';
        request[size] = '\0';
        json_t *answer = admin_fixture_ask(request);
        assert_string_equal(size <= 4096 ? "unknown verb" : "the request is too long",
                            json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
}

/* Goal: a request may come octet by octet. */
static void test_slow_request(void **state)
{
    static const char request[] = "{\"verb\":\"status\"}\n";
    int fd = admin_fixture_open();

    (void)state;
    for (uint32_t i = 0; i < sizeof(request) - 1; i++) {
        char octet[2] = {request[i], '\0'};
        admin_fixture_send(fd, octet);
    }
    json_t *answer = admin_fixture_receive(fd);
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
}

/* Goal: clients are served in turn; one that leaves while a shard fills its query harms nobody. */
static void test_clients_in_turn(void **state)
{
    int first = admin_fixture_open(), second = admin_fixture_open(), third = admin_fixture_open();

    (void)state;
    admin_fixture.rows[0] = 1;
    admin_fixture_send(first, "{\"verb\":\"queue list\"}\n");
    admin_fixture_send(second, "{\"verb\":\"status\"}\n");
    admin_fixture_send(third, "{\"verb\":\"queue list\"}\n");
    assert_int_equal(1, admin_fixture.asked);
    close(first);
    admin_run(admin_fixture.admin, 0);
    assert_true(admin_fixture.is_asked); /* its memory is still with the shard */
    admin_fixture_answer();
    assert_int_equal(SHARD_QUERY_STATUS, admin_fixture.query->kind);
    json_t *answer = admin_fixture_receive(second);
    assert_int_equal(33, json_integer_value(json_object_get(json_object_get(answer, "server"),
                                                            "messages_accepted")));
    json_decref(answer);
    answer = admin_fixture_receive(third);
    assert_int_equal(1, json_array_size(json_object_get(answer, "rows")));
    json_decref(answer);
}

/* Goal: idle clients hold a place for their time only. */
static void test_time_out(void **state)
{
    int fds[24]; /* as many as are served at a time */
    char octet;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = admin_fixture_open();
    int late = admin_fixture_open(); /* no place: closed at once */
    assert_int_equal(0, read(late, &octet, 1));
    close(late);
    tick_us deadline = admin_deadline(admin_fixture.admin);
    assert_int_equal(TICK_S(30), deadline);
    admin_run(admin_fixture.admin, deadline - 1);
    assert_int_equal(deadline, admin_deadline(admin_fixture.admin));
    admin_run(admin_fixture.admin, deadline);
    assert_int_equal(TICK_NEVER, admin_deadline(admin_fixture.admin));
    for (uint32_t i = 0; i < COUNT_OF(fds); i++) {
        assert_int_equal(0, read(fds[i], &octet, 1));
        close(fds[i]);
    }
    json_t *answer = admin_fixture_ask("{\"verb\":\"status\"}\n");
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
}

/* The answer to one request, all shards asked. */
static json_t *ask_all(const char *request)
{
    int fd = admin_fixture_open();

    admin_fixture_send(fd, request);
    for (uint32_t i = 0; i < ADMIN_FIXTURE_SHARDS && admin_fixture.is_asked; i++)
        admin_fixture_answer();
    return admin_fixture_receive(fd);
}

static void assert_refused(const char *request, const char *why)
{
    json_t *answer = ask_all(request);

    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_non_null(strstr(json_string_value(json_object_get(answer, "error")), why));
    json_decref(answer);
}

/* Goal: kernel sockets have no flows and no counters of ours, and say so without failing. */
static void test_looking_at_the_network(void **state)
{
    static const char *const requests[] = {"{\"verb\":\"flows\"}\n", "{\"verb\":\"counters\"}\n"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(requests); i++) {
        uint32_t asked = admin_fixture.asked;
        json_t *answer = ask_all(requests[i]);
        assert_true(json_is_true(json_object_get(answer, "ok")));
        assert_int_equal(0, json_array_size(json_object_get(answer, "rows")));
        assert_int_equal(asked + ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
        json_decref(answer);
    }
}

static void assert_done(const char *request, const char *text)
{
    json_t *answer = ask_all(request);

    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_non_null(strstr(json_string_value(json_object_get(answer, "text")), text));
    json_decref(answer);
}

/* Goal: one capture at a time; every shard's tap goes on and off; what is wrong is said. */
static void test_capture(void **state)
{
    char start[256], file[128];

    (void)state;
    snprintf(file, sizeof(file), "%s/x.pcap", admin_fixture_folder);
    snprintf(start, sizeof(start), "{\"verb\":\"capture\",\"file\":\"%s\",\"seconds\":1}\n", file);
    assert_refused("{\"verb\":\"capture stop\"}\n", "no capture runs");
    assert_refused("{\"verb\":\"capture\"}\n", "absolute path");
    assert_refused("{\"verb\":\"capture\",\"file\":\"x.pcap\"}\n", "absolute path");
    assert_refused("{\"verb\":\"capture\",\"file\":\"/nowhere/x.pcap\"}\n", "");
    assert_refused("{\"verb\":\"capture\",\"file\":\"/tmp/x\",\"id\":\"tcp prot 25\"}\n", "");

    uint32_t asked = admin_fixture.asked;
    assert_done(start, "capturing");
    assert_int_equal(asked + ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
    assert_refused(start, "a capture runs");
    assert_done("{\"verb\":\"capture stop\"}\n", "captured 0 frames");
    assert_int_equal(asked + 2 * ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
    assert_refused(start, ""); /* the file is there */
    assert_int_equal(0, unlink(file));

    /* Its time over, it ends by itself, and the next may begin. */
    assert_done(start, "capturing");
    const struct tick_source *clock = tick_source_system();
    asked = admin_fixture.asked;
    admin_run(admin_fixture.admin, clock->monotonic(clock->context) + TICK_S(2));
    for (uint32_t i = 0; i < ADMIN_FIXTURE_SHARDS && admin_fixture.is_asked; i++)
        admin_fixture_answer();
    assert_int_equal(asked + ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
    assert_int_equal(0, unlink(file));
    assert_done(start, "capturing");
    assert_int_equal(0, unlink(file));
}

/* Goal: who asks a relay that has just handed its place on is told to ask its successor. */
static void test_leaving(void **state)
{
    static const char question[] = "{\"verb\":\"status\"}\n";
    char text[256] = "";
    int fd = admin_fixture_open();

    (void)state;
    admin_run(admin_fixture.admin, admin_fixture.now); /* it is accepted before */
    admin_leave(admin_fixture.admin);
    assert_int_equal(sizeof(question) - 1, write(fd, question, sizeof(question) - 1));
    admin_run(admin_fixture.admin, admin_fixture.now);
    ssize_t size = read(fd, text, sizeof(text) - 1);
    assert_true(size > 0 && ask_is_again(text, (size_t)size) && !ask_is_ok(text, (size_t)size));
    assert_false(ask_is_again("{\"ok\":false,\"error\":\"again\"}", 30));
    close(fd);
    assert_int_equal(0, unlink(admin_fixture_socket));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADMIN_FIXTURE_TEST(test_leaving),
        ADMIN_FIXTURE_TEST(test_socket_is_private),
        ADMIN_FIXTURE_TEST(test_status_is_summed),
        ADMIN_FIXTURE_TEST(test_metrics),
        ADMIN_FIXTURE_TEST(test_metrics_let_others_first),
        ADMIN_FIXTURE_TEST(test_drain_while_parting),
        ADMIN_FIXTURE_TEST(test_bad_requests),
        ADMIN_FIXTURE_TEST(test_request_size),
        ADMIN_FIXTURE_TEST(test_slow_request),
        ADMIN_FIXTURE_TEST(test_clients_in_turn),
        ADMIN_FIXTURE_TEST(test_time_out),
        ADMIN_FIXTURE_TEST(test_looking_at_the_network),
        ADMIN_FIXTURE_TEST(test_capture),
    };

    admin_fixture_begin();
    int failed = cmocka_run_group_tests_name("admin", tests, NULL, NULL);
    admin_fixture_end();
    return failed;
}
