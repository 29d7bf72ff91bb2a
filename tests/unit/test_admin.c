/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket with shards that are tables: requests and answers, bounds, several clients at
 * once, clients that leave early.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/admin.h"
#include "control/shard_cat.h"

#define SHARDS 3u

static char path[] = "/tmp/test_admin.XXXXXX";
static char socket_path[64];

/* What the shards hold, and the query that is with one of them. */
static struct world {
    struct admin *admin;
    uint32_t rows[SHARDS]; /* recipients in each queue */
    bool is_asked;
    uint32_t shard;
    struct shard_query *query;
    uint32_t asked; /* queries so far */
    bool reload_works;
    uint32_t pieces; /* of the message that is printed */
    const char *cat_fails;
    uint32_t visits, ended;          /* of transfers; walks that were given up */
    uint32_t changes, changes_after; /* of what is kept; and the visits before the last */
} world;

static void on_query(void *context, uint32_t shard, struct shard_query *query)
{
    (void)context;
    assert_false(world.is_asked); /* one at a time */
    assert_true(shard < SHARDS);
    world.is_asked = true;
    world.shard = shard;
    world.query = query;
    world.asked += !query->is_end;
}

static void on_changed(void *context)
{
    (void)context;
    world.changes++;
    world.changes_after = world.visits;
}

static bool on_reload(void *context, char ret_text[ADMIN_ERROR_SIZE])
{
    (void)context;
    snprintf(ret_text, ADMIN_ERROR_SIZE, world.reload_works ? "reloaded" : "x.yaml:3: no \"y\"");
    return world.reload_works;
}

static void row_fill(struct shard_queue_row *row, uint32_t shard, uint32_t number)
{
    *row = (struct shard_queue_row){
        .id = {1000 * shard + number + 1, 7},
        .arrived = number,
        .shard = shard,
        .attempts = 2,
        .size = 5000000000,
    };
    snprintf(row->sender, sizeof(row->sender), "a@x.example");
    snprintf(row->recipient, sizeof(row->recipient), "\xff%u@y.example", number);
    snprintf(row->last_reply, sizeof(row->last_reply), "451 later \"now\"");
}

/* Shard 1 has a message of `pieces` pieces. */
static void cat_answer(struct shard_query *query, struct shard_cat *cat)
{
    cat->row_count = cat->octet_count = 0;
    if (world.shard != 1 || query->id.high != 1) {
        query->cursor = UINT64_MAX;
        return;
    }
    if (cat->is_at_octets && world.cat_fails != NULL) {
        query->err = ERR_DISK_CORRUPT;
        cat->why = world.cat_fails;
    } else if (cat->is_at_octets) {
        memset(cat->octets, 'x', sizeof(cat->octets));
        cat->octet_count = sizeof(cat->octets);
        cat->offset += cat->octet_count;
    } else {
        cat->is_found = cat->is_at_octets = true;
        cat->end = cat->has_body ? (uint64_t)world.pieces * SHARD_CAT_OCTETS_MAX : 0;
        snprintf(cat->sender, sizeof(cat->sender), "\xff@x.example");
        cat->flags = ENVELOPE_EIGHT_BIT | ENVELOPE_IN_DOUBT;
        cat->row_count = cat->has_envelope;
    }
    query->cursor = cat->is_at_octets && cat->offset == cat->end ? UINT64_MAX : 7;
}

/* The shard that was asked answers. */
static void shard_answer(void)
{
    struct shard_query *query = world.query;

    assert_true(world.is_asked);
    if (query->kind == SHARD_QUERY_STATUS) {
        query->status = (struct shard_status){.server.messages_accepted = 10 + world.shard,
                                              .queue.messages = 1,
                                              .sources.resting = 2 - world.shard % 2,
                                              .spool.is_full = world.shard == 1};
    } else if (query->kind == SHARD_QUERY_PLANE) {
        static const struct flow_ops none;
        struct flow_plane kernel = {.ops = &none};
        query->look(query, &kernel);
    } else if (query->kind == SHARD_QUERY_QUEUE_SHOW) {
        if (query->id.high == 1 && world.shard == 0)
            row_fill(&query->rows[query->row_count++], 0, 0);
        query->cursor = UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_CAT) {
        cat_answer(query, query->cat);
    } else if (query->kind == SHARD_QUERY_TRANSFER) {
        world.visits++;
        query->cursor = UINT64_MAX;
    } else if (query->is_end) {
        world.ended++;
        query->cursor = UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_SUMMARY) {
        query->groups[0] = (struct qmgr_group){.name = "big.example", .ages = {3, 0, 1}};
        query->groups[1] = (struct qmgr_group){.name = "\xff.example", .ages = {1}};
        query->row_count = world.shard == 1 ? 2 : 1;
        query->cursor = query->cursor == 0 ? 7 : UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_ACT) {
        query->acted.matched += 3;
        query->acted.done += query->is_dry_run ? 0 : 2;
        query->acted.in_flight += query->is_dry_run ? 0 : 1;
        query->cursor = query->cursor == 0 ? 7 : UINT64_MAX;
    } else {
        while (query->row_count < query->row_max && query->cursor < world.rows[world.shard])
            row_fill(&query->rows[query->row_count++], world.shard, (uint32_t)query->cursor++);
        if (query->cursor >= world.rows[world.shard])
            query->cursor = UINT64_MAX;
    }
    world.is_asked = false;
    admin_on_reply(world.admin, query, 0);
}

static int client_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", socket_path);
    assert_int_equal(0, connect(fd, (const struct sockaddr *)&address, sizeof(address)));
    admin_run(world.admin, 0);
    return fd;
}

static void client_send(int fd, const char *text)
{
    assert_int_equal(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
    admin_run(world.admin, 0);
}

/* The whole answer; the connection must end with it. */
static json_t *client_receive(int fd)
{
    static char text[8 << 20];
    size_t size = 0;
    ssize_t got = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (got != 0 && size < sizeof(text)) {
        got = read(fd, text + size, sizeof(text) - size);
        assert_true(got >= 0 || errno == EAGAIN);
        size += got > 0 ? (size_t)got : 0;
        admin_run(world.admin, 0);
        if (got < 0 && world.is_asked)
            shard_answer();
    }
    close(fd);
    return json_loadb(text, size, 0, NULL);
}

static json_t *ask(const char *request)
{
    int fd = client_open();
    client_send(fd, request);
    return client_receive(fd);
}

static int setup(void **state)
{
    struct admin_options options = {.path = socket_path,
                                    .shard_count = SHARDS,
                                    .query = on_query,
                                    .reload = on_reload,
                                    .changed = on_changed};

    (void)state;
    world = (struct world){0};
    return admin_new(&options, &world.admin) == ERR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    admin_free(world.admin);
    return access(socket_path, F_OK) == 0 ? -1 : 0; /* the socket is gone */
}

static void test_socket_is_private(void **state)
{
    struct stat status;
    struct admin *second = NULL;
    struct admin_options options = {
        .path = socket_path, .shard_count = SHARDS, .query = on_query, .reload = on_reload};

    (void)state;
    assert_int_equal(0, stat(socket_path, &status));
    assert_int_equal(0600, status.st_mode & 0777);
    assert_int_equal(ERR_DISK_LOCKED, admin_new(&options, &second));
}

static void test_status_is_summed(void **state)
{
    json_t *answer = ask("{\"verb\":\"status\"}\n");
    json_t *server = json_object_get(answer, "server"), *spool = json_object_get(answer, "spool");

    (void)state;
    assert_true(json_is_true(json_object_get(answer, "ok")));
    assert_int_equal(33, json_integer_value(json_object_get(server, "messages_accepted")));
    assert_int_equal(2, json_integer_value(json_object_get(json_object_get(answer, "sources"),
                                                           "resting"))); /* no sum */
    assert_int_equal(1, json_integer_value(json_object_get(spool, "is_full")));
    assert_int_equal(SHARDS, json_integer_value(json_object_get(answer, "cores")));
    assert_true(json_is_integer(json_object_get(answer, "uptime_us")));
    const json_t *cores = json_object_get(answer, "per_core");
    assert_int_equal(SHARDS, json_array_size(cores));
    for (uint32_t i = 0; i < SHARDS; i++) {
        const json_t *core = json_array_get(cores, i);
        assert_int_equal(10 + i, json_integer_value(json_object_get(core, "messages")));
        assert_int_equal(1, json_integer_value(json_object_get(core, "queued")));
    }
    assert_int_equal(SHARDS, world.asked);
    json_decref(answer);
}

/* Goal: lists go over all shards, in slices, up to the limit. */
static void test_list_limits(void **state)
{
    static const struct {
        const char *name, *request;
        uint32_t rows[SHARDS], expected, asked;
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
        memcpy(world.rows, cases[i].rows, sizeof(world.rows));
        world.asked = 0;
        json_t *answer = ask(cases[i].request);
        assert_true(json_is_true(json_object_get(answer, "ok")));
        assert_int_equal(cases[i].expected, json_array_size(json_object_get(answer, "rows")));
        assert_int_equal(cases[i].has_more, json_is_true(json_object_get(answer, "has_more")));
        assert_int_equal(cases[i].asked, world.asked);
        json_decref(answer);
        for (uint32_t j = 0; j < 2 && world.is_asked; j++)
            shard_answer(); /* that the walk behind the last row is given up */
    }
}

/* Goal: the filter of a request reaches the shards; one that is wrong is refused with the reason.
 */
static void test_list_filter(void **state)
{
    int fd = client_open();

    (void)state;
    client_send(fd, "{\"verb\":\"queue list\",\"filter\":\"domain=Y.example class=3\"}\n");
    assert_true(world.is_asked);
    assert_int_equal(QMGR_FILTER_DOMAIN | QMGR_FILTER_CLASS, world.query->filter->terms);
    json_decref(client_receive(fd));
    json_t *answer = ask("{\"verb\":\"queue list\",\"filter\":\"class=300\"}\n");
    assert_string_equal("class= wants a name, or a number from 0 to 255",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
    answer = ask("{\"verb\":\"queue list\",\"filter\":7}\n");
    assert_string_equal("the filter is no text",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
}

/* Goal: a summary adds up the shards, the largest group first. */
static void test_summary(void **state)
{
    (void)state;
    json_t *answer = ask("{\"verb\":\"queue summary\",\"by\":\"domain\"}\n");
    const json_t *rows = json_object_get(answer, "rows");
    assert_int_equal(2, json_array_size(rows));
    assert_string_equal("big.example",
                        json_string_value(json_object_get(json_array_get(rows, 0), "name")));
    assert_int_equal(24, json_integer_value(json_object_get(json_array_get(rows, 0), "total")));
    assert_int_equal(2, json_integer_value(json_object_get(json_array_get(rows, 1), "total")));
    assert_int_equal(26, json_integer_value(json_object_get(answer, "total")));
    assert_int_equal(20, json_integer_value(json_array_get(json_object_get(answer, "ages"), 0)));
    assert_int_equal(6, world.asked);
    json_decref(answer);
    answer = ask("{\"verb\":\"queue summary\",\"limit\":1}\n");
    assert_int_equal(1, json_array_size(json_object_get(answer, "rows")));
    assert_int_equal(2, json_integer_value(json_object_get(answer, "groups")));
    json_decref(answer);
    answer = ask("{\"verb\":\"queue summary\",\"by\":\"moon\"}\n");
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
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":7}\n", "a duration is a time"},
        {"{\"verb\":\"hold\",\"all\":true,\"reason\":7}\n", "a reason is printable"},
        {"{\"verb\":\"delete\",\"all\":true,\"reason\":\"\"}\n", "a reason is printable"},
        {"{\"verb\":\"bounce\",\"all\":true,\"reason\":\"a\\nb\"}\n", "a reason is printable"},
        {"{\"verb\":\"retry\",\"all\":true,\"duration\":\"5m\"}\n",
         "only hold, bounce, delete and reroute have"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"0s\"}\n", "a duration is a time"},
        {"{\"verb\":\"hold\",\"all\":true,\"duration\":\"soon\"}\n", "a duration is a time"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *answer = ask(cases[i].request);
        const char *error = json_string_value(json_object_get(answer, "error"));
        print_message("# case: %s\n", cases[i].error);
        assert_non_null(error);
        assert_memory_equal(cases[i].error, error, strlen(cases[i].error));
        json_decref(answer);
    }
    assert_int_equal(0, world.asked);
}

/* Goal: an order goes to all shards, is numbered and adds up; a dry run changes nothing. */
static void test_orders_add_up(void **state)
{
    (void)state;
    int fd = client_open();
    client_send(fd, "{\"verb\":\"bounce\",\"filter\":\"domain=v\",\"reason\":\"gone\"}\n");
    assert_int_equal(QMGR_VERB_BOUNCE, world.query->order->verb);
    assert_string_equal("gone", world.query->order->reason);
    assert_int_equal(QMGR_FILTER_DOMAIN, world.query->filter->terms);
    json_t *answer = client_receive(fd);
    json_int_t order = json_integer_value(json_object_get(answer, "order"));
    assert_true(order > 0);
    assert_int_equal(18, json_integer_value(json_object_get(answer, "matched")));
    assert_int_equal(12, json_integer_value(json_object_get(answer, "done")));
    assert_int_equal(6, json_integer_value(json_object_get(answer, "in_flight")));
    assert_int_equal(6, world.asked);
    json_decref(answer);
    for (uint32_t i = 0; i < 3; i++) { /* every order has a number of its own */
        answer = ask("{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\"}\n");
        assert_true(json_integer_value(json_object_get(answer, "order")) > order);
        order = json_integer_value(json_object_get(answer, "order"));
        json_decref(answer);
    }
    answer = ask("{\"verb\":\"delete\",\"all\":true,\"dry_run\":true}\n");
    assert_int_equal(18, json_integer_value(json_object_get(answer, "matched")));
    assert_int_equal(0, json_integer_value(json_object_get(answer, "done")));
    json_decref(answer);
}

/* Goal: an order with a duration is in force on all shards before mail that waits is looked for,
 * and on all of them or none when its client leaves. */
static void test_orders_stand(void **state)
{
    (void)state;
    json_t *answer = ask("{\"verb\":\"delete\",\"filter\":\"sender_domain=v\",\"reason\":\"spam\","
                         "\"duration\":\"1h\"}\n");
    assert_int_equal(SHARDS, world.visits);
    assert_int_equal(SHARDS + 2 * SHARDS, world.asked);
    assert_int_equal(SHARDS, world.changes_after); /* kept when all had it */
    assert_true(json_integer_value(json_object_get(answer, "stands_until_us")) > 0);
    json_decref(answer);
    world.visits = world.asked = world.changes = 0;
    int fd = client_open();
    client_send(fd, "{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\"}\n");
    shard_answer();
    close(fd);
    admin_run(world.admin, 0);
    for (uint32_t i = 0; i < 10 && world.is_asked; i++)
        shard_answer();
    assert_int_equal(SHARDS, world.visits);
    assert_int_equal(SHARDS, world.asked); /* and no walk */
    assert_int_equal(1, world.changes);
    world.visits = 0;
    json_decref(ask("{\"verb\":\"hold\",\"all\":true,\"duration\":\"1h\",\"dry_run\":true}\n"));
    json_decref(ask("{\"verb\":\"hold\",\"all\":true}\n"));
    assert_int_equal(0, world.visits);
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
        {"{\"verb\":\"queue cancel\",\"id\":\"7\",\"keep\":true}\n", "no such order", SHARDS},
        {"{\"verb\":\"queue cancel\",\"id\":\"7\"}\n", NULL, 3 * SHARDS},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        world.asked = 0;
        json_t *answer = ask(cases[i].request);
        const char *error = json_string_value(json_object_get(answer, "error"));
        print_message("# case: %s", cases[i].request);
        assert_int_equal(cases[i].error != NULL, error != NULL);
        if (error != NULL)
            assert_memory_equal(cases[i].error, error, strlen(cases[i].error));
        assert_int_equal(cases[i].asked, world.asked);
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
    int fd = client_open(), other = client_open();
    uint32_t lines = 0;

    (void)state;
    world.rows[0] = 30000;
    client_send(fd, "{\"verb\":\"queue list\",\"stream\":true}\n");
    for (uint32_t i = 0; i < 1000 && world.is_asked; i++)
        shard_answer();
    assert_false(world.is_asked); /* the socket is full: nothing more is asked */
    assert_in_range(world.asked, 1, 50);
    client_send(other, "{\"verb\":\"status\"}\n");
    json_decref(client_receive(other));
    for (uint32_t i = 0; i < 1000 && lines < 30000; i++) {
        lines += stream_read(fd, last);
        admin_run(world.admin, 0);
        for (uint32_t j = 0; j < 1000 && world.is_asked; j++)
            shard_answer();
    }
    for (uint32_t i = 0; i < 10 && strstr(last, "\"count\":30000") == NULL; i++) {
        admin_run(world.admin, 0);
        lines += stream_read(fd, last);
    }
    assert_int_equal(30000, lines);
    assert_non_null(strstr(last, "{\"ok\":true,\"has_more\":false,\"count\":30000}"));
    close(fd);
}

/* Goal: a client that leaves ends its stream, blocked or not; the next one is served. */
static void test_stream_is_cancelled(void **state)
{
    (void)state;
    world.rows[0] = 30000;
    for (uint32_t is_blocked = 0; is_blocked < 2; is_blocked++) {
        int fd = client_open();
        client_send(fd, "{\"verb\":\"queue list\",\"stream\":true}\n");
        for (uint32_t i = 0; i < 1000 && world.is_asked && (is_blocked || i < 1); i++)
            shard_answer();
        assert_int_equal(!is_blocked, world.is_asked);
        close(fd);
        admin_run(world.admin, 0);
        for (uint32_t i = 0; i < 2 && world.is_asked; i++)
            shard_answer();
        assert_false(world.is_asked);
        assert_int_equal(is_blocked + 1, world.ended); /* the shard's walk, too */
        json_decref(ask("{\"verb\":\"queue summary\"}\n"));
    }
}

/* Goal: walks take turns; a short question does not wait for their end. */
static void test_walks_in_turn(void **state)
{
    int first = client_open(), second = client_open(), third = client_open();

    (void)state;
    world.rows[0] = 1000;
    client_send(first, "{\"verb\":\"queue list\",\"limit\":1000}\n");
    client_send(second, "{\"verb\":\"queue summary\"}\n");
    client_send(third, "{\"verb\":\"status\"}\n");
    assert_int_equal(SHARD_QUERY_QUEUE_LIST, world.query->kind);
    shard_answer();
    assert_int_equal(SHARD_QUERY_STATUS, world.query->kind);
    json_decref(client_receive(third));
    assert_true(world.is_asked);
    assert_int_equal(SHARD_QUERY_QUEUE_LIST, world.query->kind);
    json_t *answer = client_receive(first);
    assert_int_equal(1000, json_array_size(json_object_get(answer, "rows")));
    json_decref(answer);
    json_decref(client_receive(second));
}

static void test_show(void **state)
{
    char id[MESSAGE_ID_TEXT_SIZE], request[128];
    struct message_id known = {1, 7}, unknown = {2, 7};

    (void)state;
    snprintf(request, sizeof(request), "{\"verb\":\"queue show\",\"id\":\"%s\"}\n",
             message_id_format(known, id));
    json_t *answer = ask(request);
    json_t *row = json_array_get(json_object_get(answer, "rows"), 0);
    assert_string_equal(id, json_string_value(json_object_get(row, "id")));
    assert_int_equal(5000000000, json_integer_value(json_object_get(row, "size")));
    /* An octet that is no UTF-8 is escaped, not dropped. */
    assert_string_equal("\\xff0@y.example", json_string_value(json_object_get(row, "recipient")));
    json_decref(answer);

    snprintf(request, sizeof(request), "{\"verb\":\"queue show\",\"id\":\"%s\"}\n",
             message_id_format(unknown, id));
    answer = ask(request);
    assert_true(json_is_false(json_object_get(answer, "ok")));
    assert_string_equal("no such message in the queue",
                        json_string_value(json_object_get(answer, "error")));
    json_decref(answer);
}

static int cat_open(uint32_t number, const char *more)
{
    char id[MESSAGE_ID_TEXT_SIZE], request[128];
    int fd = client_open();

    snprintf(request, sizeof(request), "{\"verb\":\"queue cat\",\"id\":\"%s\"%s}\n",
             message_id_format((struct message_id){number, 7}, id), more);
    client_send(fd, request);
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
        uint32_t asked = world.asked;
        for (uint32_t j = 0; j < 100 && world.is_asked; j++)
            shard_answer();
        asked_ahead = world.asked - asked > asked_ahead ? world.asked - asked : asked_ahead;
        got = read(fd, text, sizeof(text));
        for (ssize_t j = 0; j < got; j++)
            lines += text[j] == '\n';
        if (got > 0)
            snprintf(last, 512, "%.*s", got < 511 ? (int)got : 511,
                     text + (got < 511 ? 0 : got - 511));
        admin_run(world.admin, 0);
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
    world.pieces = 12;
    assert_int_equal(2 + 12, cat_read(cat_open(1, ""), last));
    assert_non_null(strstr(last, "{\"ok\":true,\"has_more\":false,\"octets\":2359296}"));
    assert_int_equal(2 + 12, world.asked);
    assert_int_equal(12, cat_read(cat_open(1, ",\"part\":\"message\""), last));
    assert_int_equal(2, cat_read(cat_open(1, ",\"part\":\"envelope\""), last));
    assert_non_null(strstr(last, "\"sender\":\"\\\\xff@x.example\""));
    assert_non_null(strstr(last, "\"flags\":[\"8-bit\",\"in doubt\"]"));
    assert_int_equal(0, cat_read(cat_open(2, ""), last));
    assert_non_null(strstr(last, "no such message in the queue"));
    assert_int_equal(0, cat_read(cat_open(1, ",\"part\":\"tail\""), last));
    assert_non_null(strstr(last, "which part?"));
    world.cat_fails = "its body is damaged";
    assert_int_equal(2, cat_read(cat_open(1, ""), last));
    assert_non_null(strstr(last, "{\"ok\":false,\"error\":\"its body is damaged\"}"));
}

/* Goal: several messages go out at once; who does not read, or leaves halfway, holds up nobody. */
static void test_cats_at_once(void **state)
{
    char last[512];
    int gone = cat_open(1, ""), second = cat_open(1, ""), third = cat_open(1, "");

    (void)state;
    world.pieces = 8;
    for (uint32_t i = 0; i < 100 && world.is_asked; i++)
        shard_answer();
    assert_false(world.is_asked); /* none of them reads */
    json_t *answer = ask("{\"verb\":\"queue summary\"}\n");
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
    close(gone);
    admin_run(world.admin, 0);
    assert_int_equal(2 + 8, cat_read(second, last));
    close(third);
    admin_run(world.admin, 0);
    assert_false(world.is_asked);
    assert_int_equal(2 + 8, cat_read(cat_open(1, ""), last));
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
        {"{\"verb\":\"reload\"}\n", "x.yaml:3: no \"y\""},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        json_t *answer = ask(cases[i].request);
        print_message("# case: %s\n", cases[i].error);
        assert_true(json_is_false(json_object_get(answer, "ok")));
        assert_string_equal(cases[i].error, json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
    assert_int_equal(0, world.asked);
    world.reload_works = true;
    json_t *answer = ask("{\"verb\":\"reload\"}\n");
    assert_string_equal("reloaded", json_string_value(json_object_get(answer, "text")));
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
        json_t *answer = ask(request);
        assert_string_equal(size <= 4096 ? "unknown verb" : "the request is too long",
                            json_string_value(json_object_get(answer, "error")));
        json_decref(answer);
    }
}

/* Goal: a request may come octet by octet. */
static void test_slow_request(void **state)
{
    static const char request[] = "{\"verb\":\"status\"}\n";
    int fd = client_open();

    (void)state;
    for (uint32_t i = 0; i < sizeof(request) - 1; i++) {
        char octet[2] = {request[i], '\0'};
        client_send(fd, octet);
    }
    json_t *answer = client_receive(fd);
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
}

/* Goal: clients are served in turn; one that leaves while a shard fills its query harms nobody. */
static void test_clients_in_turn(void **state)
{
    int first = client_open(), second = client_open(), third = client_open();

    (void)state;
    world.rows[0] = 1;
    client_send(first, "{\"verb\":\"queue list\"}\n");
    client_send(second, "{\"verb\":\"status\"}\n");
    client_send(third, "{\"verb\":\"queue list\"}\n");
    assert_int_equal(1, world.asked);
    close(first);
    admin_run(world.admin, 0);
    assert_true(world.is_asked); /* its memory is still with the shard */
    shard_answer();
    assert_int_equal(SHARD_QUERY_STATUS, world.query->kind);
    json_t *answer = client_receive(second);
    assert_int_equal(33, json_integer_value(json_object_get(json_object_get(answer, "server"),
                                                            "messages_accepted")));
    json_decref(answer);
    answer = client_receive(third);
    assert_int_equal(1, json_array_size(json_object_get(answer, "rows")));
    json_decref(answer);
}

/* Goal: idle clients hold a place for their time only. */
static void test_time_out(void **state)
{
    int fds[16];
    char octet;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = client_open();
    int late = client_open(); /* no place: closed at once */
    assert_int_equal(0, read(late, &octet, 1));
    close(late);
    tick_us deadline = admin_deadline(world.admin);
    assert_int_equal(TICK_S(30), deadline);
    admin_run(world.admin, deadline - 1);
    assert_int_equal(deadline, admin_deadline(world.admin));
    admin_run(world.admin, deadline);
    assert_int_equal(TICK_NEVER, admin_deadline(world.admin));
    for (uint32_t i = 0; i < COUNT_OF(fds); i++) {
        assert_int_equal(0, read(fds[i], &octet, 1));
        close(fds[i]);
    }
    json_t *answer = ask("{\"verb\":\"status\"}\n");
    assert_true(json_is_true(json_object_get(answer, "ok")));
    json_decref(answer);
}

/* The answer to one request, all shards asked. */
static json_t *ask_all(const char *request)
{
    int fd = client_open();

    client_send(fd, request);
    for (uint32_t i = 0; i < SHARDS && world.is_asked; i++)
        shard_answer();
    return client_receive(fd);
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
        uint32_t asked = world.asked;
        json_t *answer = ask_all(requests[i]);
        assert_true(json_is_true(json_object_get(answer, "ok")));
        assert_int_equal(0, json_array_size(json_object_get(answer, "rows")));
        assert_int_equal(asked + SHARDS, world.asked);
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
    snprintf(file, sizeof(file), "%s/x.pcap", path);
    snprintf(start, sizeof(start), "{\"verb\":\"capture\",\"file\":\"%s\",\"seconds\":1}\n", file);
    assert_refused("{\"verb\":\"capture stop\"}\n", "no capture runs");
    assert_refused("{\"verb\":\"capture\"}\n", "absolute path");
    assert_refused("{\"verb\":\"capture\",\"file\":\"x.pcap\"}\n", "absolute path");
    assert_refused("{\"verb\":\"capture\",\"file\":\"/nowhere/x.pcap\"}\n", "");
    assert_refused("{\"verb\":\"capture\",\"file\":\"/tmp/x\",\"id\":\"tcp prot 25\"}\n", "");

    uint32_t asked = world.asked;
    assert_done(start, "capturing");
    assert_int_equal(asked + SHARDS, world.asked);
    assert_refused(start, "a capture runs");
    assert_done("{\"verb\":\"capture stop\"}\n", "captured 0 frames");
    assert_int_equal(asked + 2 * SHARDS, world.asked);
    assert_refused(start, ""); /* the file is there */
    assert_int_equal(0, unlink(file));

    /* Its time over, it ends by itself, and the next may begin. */
    assert_done(start, "capturing");
    const struct tick_source *clock = tick_source_system();
    asked = world.asked;
    admin_run(world.admin, clock->monotonic(clock->context) + TICK_S(2));
    for (uint32_t i = 0; i < SHARDS && world.is_asked; i++)
        shard_answer();
    assert_int_equal(asked + SHARDS, world.asked);
    assert_int_equal(0, unlink(file));
    assert_done(start, "capturing");
    assert_int_equal(0, unlink(file));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_socket_is_private),
        TEST(test_status_is_summed),
        TEST(test_list_limits),
        TEST(test_list_filter),
        TEST(test_summary),
        TEST(test_orders_are_careful),
        TEST(test_orders_add_up),
        TEST(test_orders_stand),
        TEST(test_cancel),
        TEST(test_stream),
        TEST(test_stream_is_cancelled),
        TEST(test_walks_in_turn),
        TEST(test_show),
        TEST(test_cat),
        TEST(test_cats_at_once),
        TEST(test_bad_requests),
        TEST(test_request_size),
        TEST(test_slow_request),
        TEST(test_clients_in_turn),
        TEST(test_time_out),
        TEST(test_looking_at_the_network),
        TEST(test_capture),
    };

    CHECK(mkdtemp(path) != NULL);
    snprintf(socket_path, sizeof(socket_path), "%s/control", path);
    int failed = cmocka_run_group_tests_name("admin", tests, NULL, NULL);
    rmdir(path);
    return failed;
}
