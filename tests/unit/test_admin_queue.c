/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The verbs about the queue, over the control socket, with shards that are tables: lists,
 * summaries, orders, streams, messages; bounds, and walks that take turns.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/admin_filter.h"
#include "control/shard_cat.h"
#include "tests/unit/admin_fixture.h"

/* Goal: lists go over all shards, in slices, up to the limit. */
static void test_list_limits(void **state)
{
    static const struct {
        const char *name, *request;
        uint32_t rows[ADMIN_FIXTURE_SHARDS], expected, asked;
        bool has_more;
    } cases[] = {
        {"empty", "{\"verb\":\"queue list\"}\n", {0, 0, 0}, 0, 3, false},
        {"all", "{\"verb\":\"queue list\"}\n", {2, 0, 3}, 5, 3, false},
        {"default limit", "{\"verb\":\"queue list\"}\n", {0, 500, 0}, 100, 2, true},
        {"limit across shards", "{\"verb\":\"queue list\",\"limit\":4}\n", {2, 5, 5}, 4, 2, true},
        {"several slices",
         "{\"verb\":\"queue list\",\"limit\":2500}\n",
         {2400, 1, 0},
         2401,
         12,
         false},
        {"limit too high",
         "{\"verb\":\"queue list\",\"limit\":99999999}\n",
         {11000, 9, 9},
         10000,
         40,
         true},
        {"no limit at all", "{\"verb\":\"queue list\",\"limit\":-1}\n", {1, 1, 1}, 3, 3, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        memcpy(admin_fixture.rows, cases[i].rows, sizeof(admin_fixture.rows));
        admin_fixture.asked = 0;
        json_t *answer = admin_fixture_ask(cases[i].request);
        assert_true(json_is_true(json_object_get(answer, "ok")));
        assert_int_equal(cases[i].expected, json_array_size(json_object_get(answer, "rows")));
        assert_int_equal(cases[i].has_more, json_is_true(json_object_get(answer, "has_more")));
        assert_int_equal(cases[i].asked, admin_fixture.asked);
        json_decref(answer);
        for (uint32_t j = 0; j < 2 && admin_fixture.is_asked; j++)
            admin_fixture_answer(); /* that the walk behind the last row is given up */
    }
}

/* Goal: a domain may be written as people do; what is none is refused, and nothing else changes. */
static void test_domains_of_filters(void **state)
{
    static const struct {
        const char *name, *filter, *domain; /* NULL: refused */
    } cases[] = {
        {"ASCII", "domain=y.example", "y.example"},
        {"A-labels", "domain=xn--bcher-kva.example", "xn--bcher-kva.example"},
        {"U-labels",
         "domain=b\xc3\xbc"
         "cher.example",
         "xn--bcher-kva.example"},
        {"capitals, final dot",
         "  domain=B\xc3\x9c"
         "CHER.example.",
         "xn--bcher-kva.example"},
        {"with others",
         "class=3 domain=b\xc3\xbc"
         "cher.example  sender=\xc3\xbc@x",
         "xn--bcher-kva.example"},
        {"no domain", "domain=b\xc3\xbc..example", NULL},
        {"twice", "domain=\xc3\xbc domain=\xc3\xbc", NULL},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        int fd = admin_fixture_open();
        json_t *request = json_pack("{s:s,s:s}", "verb", "queue list", "filter", cases[i].filter);
        char *text = json_dumps(request, 0), line[512];
        snprintf(line, sizeof(line), "%s\n", text);
        print_message("# %s\n", cases[i].name);
        admin_fixture_send(fd, line);
        assert_int_equal(cases[i].domain != NULL, admin_fixture.is_asked);
        if (cases[i].domain != NULL)
            assert_string_equal(cases[i].domain, admin_fixture.query->filter->domain.octets);
        json_decref(admin_fixture_receive(fd));
        json_decref(request);
        free(text);
    }
}

/* Goal: a site may be asked about as people write its domain; other names stay as they are. */
static void test_names_of_sites(void **state)
{
    static const char given[] = "B\xc3\x9c"
                                "cher.example";
    static const char label[] = "xn--bcher-kva.example";
    static const struct {
        const char *verb, *id, *expected;
    } cases[] = {
        {"explain", given, label},
        {"trace", given, label},
        {"site show", given, label},
        {"site suspend", given, label},
        {"explain", "Big.example", "Big.example"},
        {"explain", "\xc3\xbc..example", "\xc3\xbc..example"},
        {"user quota", given, given},
        {"source show", given, given},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *request = json_pack("{ss,ss}", "verb", cases[i].verb, "id", cases[i].id);
        assert_true(admin_filter_normalize(request));
        assert_string_equal(cases[i].expected, json_string_value(json_object_get(request, "id")));
        json_decref(request);
    }
}

/* Goal: the filter of a request reaches the shards; one that is wrong is refused with the reason.
 */
static void test_list_filter(void **state)
{
    int fd = admin_fixture_open();

    (void)state;
    admin_fixture_send(fd, "{\"verb\":\"queue list\",\"filter\":\"domain=Y.example class=3\"}\n");
    assert_true(admin_fixture.is_asked);
    assert_int_equal(QMGR_FILTER_DOMAIN | QMGR_FILTER_CLASS, admin_fixture.query->filter->terms);
    json_decref(admin_fixture_receive(fd));
    json_t *answer = admin_fixture_ask("{\"verb\":\"queue list\",\"filter\":\"class=300\"}\n");
    assert_string_equal("class= wants a name, or a number from 0 to 255",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
    answer = admin_fixture_ask("{\"verb\":\"queue list\",\"filter\":7}\n");
    assert_string_equal("the filter is no text",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
}

/* Goal: a summary adds up the shards, the largest group first. */
static void test_summary(void **state)
{
    (void)state;
    json_t *answer = admin_fixture_ask("{\"verb\":\"queue summary\",\"by\":\"domain\"}\n");
    const json_t *rows = json_object_get(answer, "rows");
    assert_int_equal(2, json_array_size(rows));
    assert_string_equal("big.example",
                        json_string_value(json_object_get(json_array_get(rows, 0), "name")));
    assert_int_equal(24, json_integer_value(json_object_get(json_array_get(rows, 0), "total")));
    assert_int_equal(2, json_integer_value(json_object_get(json_array_get(rows, 1), "total")));
    assert_true(json_is_false(json_object_get(answer, "has_more")));
    assert_int_equal(26, json_integer_value(json_object_get(answer, "total")));
    assert_int_equal(20, json_integer_value(json_array_get(json_object_get(answer, "ages"), 0)));
    assert_int_equal(6, admin_fixture.asked);
    json_decref(answer);
    answer = admin_fixture_ask("{\"verb\":\"queue summary\",\"limit\":1}\n");
    assert_int_equal(1, json_array_size(json_object_get(answer, "rows")));
    assert_int_equal(2, json_integer_value(json_object_get(answer, "groups")));
    assert_true(json_is_true(json_object_get(answer, "has_more")));
    json_decref(answer);
    answer = admin_fixture_ask("{\"verb\":\"queue summary\",\"by\":\"moon\"}\n");
    assert_true(json_is_false(json_object_get(answer, "ok")));
    json_decref(answer);
}

/* Goal: orders are refused unless they say which mail, and why when they end it. */
static void test_orders_are_careful(void **state)
{
    static const struct {
        const char *request, *error;
    } cases[] = {
        {"{\"verb\":\"hold\"}\n", "say which mail: terms, or all"},
        {"{\"verb\":\"hold\",\"filter\":\"\"}\n", "say which mail: terms, or all"},
        {"{\"verb\":\"hold\",\"filter\":\"class=1\",\"all\":true}\n",
         "say which mail: terms, or all"},
        {"{\"verb\":\"hold\",\"filter\":\"clas=1\"}\n", "expected TERM=VALUE: "},
        {"{\"verb\":\"bounce\",\"all\":true}\n", "this cannot be taken back: it wants a reason"},
        {"{\"verb\":\"delete\",\"filter\":\"class=1\"}\n",
         "this cannot be taken back: it wants a reason"},
        {"{\"verb\":\"hold\",\"filter\":\"state=held\",\"duration\":\"1h\"}\n",
         "state= says nothing"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"-1h\"}\n", "a duration is a time"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"367d\"}\n", "a duration is a time"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":7}\n", "duration must be a string"},
        {"{\"verb\":\"delete\",\"all\":true,\"reason\":\"x\",\"dry_run\":\"yes\"}\n",
         "dry_run must be true or false; nothing was done"},
        {"{\"verb\":\"delete\",\"all\":true,\"reason\":\"x\",\"dryrun\":true}\n",
         "there is no member dryrun; nothing was done"},
        {"{\"verb\":\"hold\",\"all\":true,\"reason\":7}\n", "reason must be a string"},
        {"{\"verb\":\"delete\",\"all\":true,\"reason\":\"\"}\n", "a reason is printable"},
        {"{\"verb\":\"bounce\",\"all\":true,\"reason\":\"a\\nb\"}\n", "a reason is printable"},
        {"{\"verb\":\"retry\",\"all\":true,\"duration\":\"5m\"}\n",
         "only hold, bounce, delete and reroute have"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"0s\"}\n", "a duration is a time"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"soon\"}\n", "a duration is a time"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *answer = admin_fixture_ask(cases[i].request);
        const char *error = json_string_value(json_object_get(answer, "error"));
        print_message("# case: %s\n", cases[i].error);
        assert_non_null(error);
        assert_memory_equal(cases[i].error, error, strlen(cases[i].error));
        json_decref(answer);
    }
    assert_int_equal(0, admin_fixture.asked);
}

/* Goal: an order goes to all shards, is numbered and adds up; a dry run changes nothing. */
static void test_orders_add_up(void **state)
{
    (void)state;
    int fd = admin_fixture_open();
    admin_fixture_send(fd, "{\"verb\":\"bounce\",\"filter\":\"domain=v\",\"reason\":\"gone\"}\n");
    assert_int_equal(QMGR_VERB_BOUNCE, admin_fixture.query->order->verb);
    assert_string_equal("gone", admin_fixture.query->order->reason);
    assert_int_equal(QMGR_FILTER_DOMAIN, admin_fixture.query->filter->terms);
    json_t *answer = admin_fixture_receive(fd);
    json_int_t order = json_integer_value(json_object_get(answer, "order"));
    assert_true(order > 0);
    assert_int_equal(18, json_integer_value(json_object_get(answer, "matched")));
    assert_int_equal(12, json_integer_value(json_object_get(answer, "done")));
    assert_int_equal(6, json_integer_value(json_object_get(answer, "in_flight")));
    assert_true(json_is_false(json_object_get(answer, "is_unwritten")));
    assert_null(json_object_get(answer, "duration_us"));
    assert_int_equal(6, admin_fixture.asked);
    json_decref(answer);
    for (uint32_t i = 0; i < 3; i++) { /* every order has a number of its own */
        answer = admin_fixture_ask("{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\"}\n");
        assert_true(json_integer_value(json_object_get(answer, "order")) > order);
        order = json_integer_value(json_object_get(answer, "order"));
        assert_int_equal(3600000000, json_integer_value(json_object_get(answer, "duration_us")));
        json_decref(answer);
    }
    admin_fixture.is_stuck = true; /* of one shard: what it did is in memory only */
    answer = admin_fixture_ask("{\"verb\":\"hold\",\"all\":true}\n");
    assert_true(json_is_true(json_object_get(answer, "is_unwritten")));
    json_decref(answer);
    answer = admin_fixture_ask("{\"verb\":\"hold\",\"all\":true,\"dry_run\":true}\n");
    assert_true(json_is_false(json_object_get(answer, "is_unwritten")));
    json_decref(answer);
    answer = admin_fixture_ask("{\"verb\":\"delete\",\"all\":true,\"dry_run\":true}\n");
    assert_int_equal(18, json_integer_value(json_object_get(answer, "matched")));
    assert_int_equal(0, json_integer_value(json_object_get(answer, "done")));
    json_decref(answer);
}

/* Goal: orders about mail wait until all mail of earlier runs has been found, but for what stands
 * and what is wrong; nobody else waits for them. */
static void test_orders_await_mail(void **state)
{
    static const struct {
        const char *request;
        bool waits;
    } cases[] = {
        {"{\"verb\":\"hold\",\"all\":true}\n", true},
        {"{\"verb\":\"hold\",\"all\":true,\"dry_run\":true}\n", true},
        {"{\"verb\":\"release\",\"filter\":\"state=held\"}\n", true},
        {"{\"verb\":\"queue cancel\",\"id\":\"7\"}\n", true},
        {"{\"verb\":\"hold\",\"filter\":\"id=aadaujaydzaaaaaaaaaaaaaaae\",\"duration\":\"1h\"}\n",
         true},
        {"{\"verb\":\"hold\",\"filter\":\"domain=v\",\"duration\":\"1h\"}\n", false},
        {"{\"verb\":\"hold\",\"filter\":\"colour=red\"}\n", false},
        {"{\"verb\":\"queue list\"}\n", false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# %s", cases[i].request);
        admin_set_finding(admin_fixture.admin, true);
        int fd = admin_fixture_open();
        admin_fixture_send(fd, cases[i].request);
        uint32_t asked = admin_fixture.asked;
        assert_false(cases[i].waits && admin_fixture.is_asked);
        json_decref(admin_fixture_ask("{\"verb\":\"status\"}\n"));
        assert_true(admin_fixture.asked > asked);
        admin_set_finding(admin_fixture.admin, false);
        assert_true(admin_fixture.is_asked || !cases[i].waits);
        json_decref(admin_fixture_receive(fd));
    }
}

/* Goal: an order with a duration is in force on all shards before mail that waits is looked for,
 * and on all of them or none when its client leaves. */
static void test_orders_stand(void **state)
{
    (void)state;
    json_t *answer =
        admin_fixture_ask("{\"verb\":\"delete\",\"filter\":\"sender_domain=v\",\"reason\":\"spam\","
                          "\"duration\":\"1h\"}\n");
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.visits);
    assert_int_equal(ADMIN_FIXTURE_SHARDS + 2 * ADMIN_FIXTURE_SHARDS, admin_fixture.asked);
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.changes_after); /* kept when all had it */
    assert_true(json_integer_value(json_object_get(answer, "stands_until_us")) > 0);
    json_decref(answer);
    admin_fixture.visits = admin_fixture.asked = admin_fixture.changes = 0;
    int fd = admin_fixture_open();
    admin_fixture_send(fd, "{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\"}\n");
    admin_fixture_answer();
    close(fd);
    admin_run(admin_fixture.admin, 0);
    for (uint32_t i = 0; i < 10 && admin_fixture.is_asked; i++)
        admin_fixture_answer();
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.visits);
    assert_int_equal(ADMIN_FIXTURE_SHARDS, admin_fixture.asked); /* and no walk */
    assert_int_equal(1, admin_fixture.changes);
    admin_fixture.visits = 0;
    json_decref(admin_fixture_ask(
        "{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\",\"dry_run\":true}\n"));
    json_decref(admin_fixture_ask("{\"verb\":\"hold\",\"all\":true}\n"));
    assert_int_equal(0, admin_fixture.visits);
}

/* Goal: what is cancelled is looked for by its number, and what it held is released. */
static void test_cancel(void **state)
{
    static const struct {
        const char *request, *error;
        uint32_t asked;
    } cases[] = {
        {"{\"verb\":\"queue cancel\"}\n", "say which order", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"0\"}\n", "say which order", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"-7\"}\n", "say which order", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"7x\"}\n", "say which order", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"4194304\"}\n", "say which order", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"4194303\"}\n", "that number is the relay's own", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"4194302\"}\n", "that number is the relay's own", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"4194288\"}\n", "that number is the relay's own", 0},
        {"{\"verb\":\"queue cancel\",\"id\":\"4194287\",\"keep\":true}\n", "no such order",
         ADMIN_FIXTURE_SHARDS},
        {"{\"verb\":\"queue cancel\",\"id\":\"7\",\"keep\":true}\n", "no such order",
         ADMIN_FIXTURE_SHARDS},
        {"{\"verb\":\"queue cancel\",\"id\":\"7\"}\n", NULL, 3 * ADMIN_FIXTURE_SHARDS},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        admin_fixture.asked = 0;
        json_t *answer = admin_fixture_ask(cases[i].request);
        const char *error = json_string_value(json_object_get(answer, "error"));
        print_message("# case: %s", cases[i].request);
        assert_int_equal(cases[i].error != NULL, error != NULL);
        if (error != NULL)
            assert_memory_equal(cases[i].error, error, strlen(cases[i].error));
        assert_int_equal(cases[i].asked, admin_fixture.asked);
        json_decref(answer);
    }
}

/* Lines of a stream that came so far; the last one is kept. */
static uint32_t stream_read(int fd, char last[512])
{
    static char text[4 << 20];
    static size_t size;
    uint32_t lines = 0;
    ssize_t got;

    size = 0;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (size < sizeof(text) && (got = read(fd, text + size, sizeof(text) - size)) > 0)
        size += (size_t)got;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    size_t tail = size < 511 ? size : 511;
    memcpy(last, text + size - tail, tail);
    last[tail] = '\0';
    return lines;
}

/* Goal: a stream is asked for as fast as its client reads, and short questions go in between. */
static void test_stream(void **state)
{
    char last[512];
    int fd = admin_fixture_open(), other = admin_fixture_open();
    uint32_t lines = 0;

    (void)state;
    admin_fixture.rows[0] = 30000;
    admin_fixture_send(fd, "{\"verb\":\"queue list\",\"stream\":true}\n");
    for (uint32_t i = 0; i < 1000 && admin_fixture.is_asked; i++)
        admin_fixture_answer();
    assert_false(admin_fixture.is_asked); /* the socket is full: nothing more is asked */
    assert_in_range(admin_fixture.asked, 1, 50);
    admin_fixture_send(other, "{\"verb\":\"status\"}\n");
    json_decref(admin_fixture_receive(other));
    for (uint32_t i = 0; i < 1000 && lines < 30000; i++) {
        lines += stream_read(fd, last);
        admin_run(admin_fixture.admin, 0);
        for (uint32_t j = 0; j < 1000 && admin_fixture.is_asked; j++)
            admin_fixture_answer();
    }
    for (uint32_t i = 0; i < 10 && strstr(last, "\"count\":30000") == NULL; i++) {
        admin_run(admin_fixture.admin, 0);
        lines += stream_read(fd, last);
    }
    assert_int_equal(30000 + 1, lines); /* the last says how it ended */
    assert_non_null(strstr(last, "{\"ok\":true,\"has_more\":false,\"count\":30000}"));
    close(fd);
}

/* Goal: a client that leaves ends its stream, blocked or not; the next one is served. */
static void test_stream_is_cancelled(void **state)
{
    (void)state;
    admin_fixture.rows[0] = 30000;
    for (uint32_t is_blocked = 0; is_blocked < 2; is_blocked++) {
        int fd = admin_fixture_open();
        admin_fixture_send(fd, "{\"verb\":\"queue list\",\"stream\":true}\n");
        for (uint32_t i = 0; i < 1000 && admin_fixture.is_asked && (is_blocked || i < 1); i++)
            admin_fixture_answer();
        assert_int_equal(!is_blocked, admin_fixture.is_asked);
        close(fd);
        admin_run(admin_fixture.admin, 0);
        for (uint32_t i = 0; i < 2 && admin_fixture.is_asked; i++)
            admin_fixture_answer();
        assert_false(admin_fixture.is_asked);
        assert_int_equal(is_blocked + 1, admin_fixture.ended); /* the shard's walk, too */
        json_decref(admin_fixture_ask("{\"verb\":\"queue summary\"}\n"));
    }
}

/* Goal: walks take turns; a short question does not wait for their end. */
static void test_walks_in_turn(void **state)
{
    int first = admin_fixture_open(), second = admin_fixture_open(), third = admin_fixture_open();

    (void)state;
    admin_fixture.rows[0] = 1000;
    admin_fixture_send(first, "{\"verb\":\"queue list\",\"limit\":1000}\n");
    admin_fixture_send(second, "{\"verb\":\"queue summary\"}\n");
    admin_fixture_send(third, "{\"verb\":\"status\"}\n");
    assert_int_equal(SHARD_QUERY_QUEUE_LIST, admin_fixture.query->kind);
    admin_fixture_answer();
    assert_int_equal(SHARD_QUERY_STATUS, admin_fixture.query->kind);
    json_decref(admin_fixture_receive(third));
    assert_true(admin_fixture.is_asked);
    assert_int_equal(SHARD_QUERY_QUEUE_LIST, admin_fixture.query->kind);
    json_t *answer = admin_fixture_receive(first);
    assert_int_equal(1000, json_array_size(json_object_get(answer, "rows")));
    json_decref(answer);
    json_decref(admin_fixture_receive(second));
}

static void test_show(void **state)
{
    char id[MESSAGE_ID_TEXT_SIZE], request[128];
    struct message_id known = {1, 7}, unknown = {2, 7};

    (void)state;
    snprintf(request, sizeof(request), "{\"verb\":\"queue show\",\"id\":\"%s\"}\n",
             message_id_format(known, id));
    json_t *answer = admin_fixture_ask(request);
    json_t *row = json_array_get(json_object_get(answer, "rows"), 0);
    assert_string_equal(id, json_string_value(json_object_get(row, "id")));
    assert_int_equal(5000000000, json_integer_value(json_object_get(row, "size")));
    /* An octet that is no UTF-8 is escaped, not dropped. */
    assert_string_equal("\\xff0@y.example", json_string_value(json_object_get(row, "recipient")));
    json_decref(answer);

    snprintf(request, sizeof(request), "{\"verb\":\"queue show\",\"id\":\"%s\"}\n",
             message_id_format(unknown, id));
    answer = admin_fixture_ask(request);
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_string_equal("no such message in the queue",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
}

static int cat_open(uint32_t number, const char *more)
{
    char id[MESSAGE_ID_TEXT_SIZE], request[128];
    int fd = admin_fixture_open();

    snprintf(request, sizeof(request), "{\"verb\":\"queue cat\",\"id\":\"%s\"%s}\n",
             message_id_format((struct message_id){number, 7}, id), more);
    admin_fixture_send(fd, request);
    return fd;
}

/* Lines of the whole answer, which is read slowly; the end of it is kept. */
static uint32_t cat_read(int fd, char last[512])
{
    static char text[65536];
    uint32_t lines = 0, asked_ahead = 0;
    ssize_t got = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    for (uint32_t i = 0; i < 100000 && got != 0; i++) {
        uint32_t asked = admin_fixture.asked;
        for (uint32_t j = 0; j < 100 && admin_fixture.is_asked; j++)
            admin_fixture_answer();
        asked_ahead =
            admin_fixture.asked - asked > asked_ahead ? admin_fixture.asked - asked : asked_ahead;
        got = read(fd, text, sizeof(text));
        for (ssize_t j = 0; j < got; j++)
            lines += text[j] == '\n';
        if (got > 0)
            snprintf(last, 512, "%.*s", got < 511 ? (int)got : 511,
                     text + (got < 511 ? 0 : got - 511));
        admin_run(admin_fixture.admin, 0);
    }
    close(fd);
    assert_in_range(asked_ahead, 0, 8); /* no faster than it is read */
    return lines;
}

/* Goal: a message goes out piece by piece; the shards behind it are not asked. */
static void test_cat(void **state)
{
    char last[512];

    (void)state;
    admin_fixture.pieces = 12;
    assert_int_equal(2 + 12 + 1, cat_read(cat_open(1, ""), last));
    assert_non_null(strstr(last, "{\"ok\":true,\"has_more\":false,\"octets\":2359296}"));
    assert_int_equal(2 + 12, admin_fixture.asked);
    assert_int_equal(12 + 1, cat_read(cat_open(1, ",\"part\":\"message\""), last));
    assert_int_equal(2 + 1, cat_read(cat_open(1, ",\"part\":\"envelope\""), last));
    assert_non_null(strstr(last, "\"sender\":\"\\\\xff@x.example\""));
    assert_non_null(strstr(last, "\"flags\":[\"8-bit\",\"in doubt\"]"));
    assert_int_equal(1, cat_read(cat_open(2, ""), last));
    assert_non_null(strstr(last, "no such message in the queue"));
    assert_int_equal(1, cat_read(cat_open(1, ",\"part\":\"tail\""), last));
    assert_non_null(strstr(last, "which part?"));
    admin_fixture.cat_fails = "its body is damaged";
    assert_int_equal(2 + 1, cat_read(cat_open(1, ""), last));
    assert_non_null(strstr(last, "{\"ok\":false,\"error\":\"its body is damaged\"}"));
}

/* Goal: several messages go out at once; who does not read, or leaves halfway, holds up nobody. */
static void test_cats_at_once(void **state)
{
    char last[512];
    int gone = cat_open(1, ""), second = cat_open(1, ""), third = cat_open(1, "");

    (void)state;
    admin_fixture.pieces = 8;
    for (uint32_t i = 0; i < 100 && admin_fixture.is_asked; i++)
        admin_fixture_answer();
    assert_false(admin_fixture.is_asked); /* none of them reads */
    json_t *answer = admin_fixture_ask("{\"verb\":\"queue summary\"}\n");
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
    close(gone);
    admin_run(admin_fixture.admin, 0);
    assert_int_equal(2 + 8 + 1, cat_read(second, last));
    close(third);
    admin_run(admin_fixture.admin, 0);
    assert_false(admin_fixture.is_asked);
    assert_int_equal(2 + 8 + 1, cat_read(cat_open(1, ""), last));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        ADMIN_FIXTURE_TEST(test_list_limits),
        ADMIN_FIXTURE_TEST(test_list_filter),
        ADMIN_FIXTURE_TEST(test_domains_of_filters),
        ADMIN_FIXTURE_TEST(test_names_of_sites),
        ADMIN_FIXTURE_TEST(test_summary),
        ADMIN_FIXTURE_TEST(test_orders_are_careful),
        ADMIN_FIXTURE_TEST(test_orders_add_up),
        ADMIN_FIXTURE_TEST(test_orders_await_mail),
        ADMIN_FIXTURE_TEST(test_orders_stand),
        ADMIN_FIXTURE_TEST(test_cancel),
        ADMIN_FIXTURE_TEST(test_stream),
        ADMIN_FIXTURE_TEST(test_stream_is_cancelled),
        ADMIN_FIXTURE_TEST(test_walks_in_turn),
        ADMIN_FIXTURE_TEST(test_show),
        ADMIN_FIXTURE_TEST(test_cat),
        ADMIN_FIXTURE_TEST(test_cats_at_once),
    };

    admin_fixture_begin();
    int failed = cmocka_run_group_tests_name("admin_queue", tests, NULL, NULL);
    admin_fixture_end();
    return failed;
}
