/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of an admin whose shards are tables: one query at a time, answered when the
 * test lets its shard answer.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/admin_fixture.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/shard_cat.h"

char admin_fixture_folder[] = "/tmp/test_admin.XXXXXX";
char admin_fixture_socket[64];

struct admin_fixture admin_fixture;

void admin_fixture_on_query(void *context, uint32_t shard, struct shard_query *query)
{
    (void)context;
    assert_false(admin_fixture.is_asked); /* one at a time */
    assert_true(shard < ADMIN_FIXTURE_SHARDS);
    admin_fixture.is_asked = true;
    admin_fixture.shard = shard;
    admin_fixture.query = query;
    admin_fixture.asked += !query->is_end;
}

static void on_changed(void *context)
{
    (void)context;
    admin_fixture.changes++;
    admin_fixture.changes_after = admin_fixture.visits;
}

bool admin_fixture_on_reload(void *context, bool is_dry_run, char ret_text[ADMIN_ERROR_SIZE])
{
    (void)context;
    (void)is_dry_run;
    snprintf(ret_text, ADMIN_ERROR_SIZE,
             admin_fixture.reload_works ? "reloaded" : "x.yaml:3: no \"y\"");
    return admin_fixture.reload_works;
}

static bool may_close(void *context)
{
    (void)context;
    return !admin_fixture.is_parting;
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
    if (admin_fixture.shard != 1 || query->id.high != 1) {
        query->cursor = UINT64_MAX;
        return;
    }
    if (cat->is_at_octets && admin_fixture.cat_fails != NULL) {
        query->err = ERR_DISK_CORRUPT;
        cat->why = admin_fixture.cat_fails;
    } else if (cat->is_at_octets) {
        memset(cat->octets, 'x', sizeof(cat->octets));
        cat->octet_count = sizeof(cat->octets);
        cat->offset += cat->octet_count;
    } else {
        cat->is_found = cat->is_at_octets = true;
        cat->end = cat->has_body ? (uint64_t)admin_fixture.pieces * SHARD_CAT_OCTETS_MAX : 0;
        snprintf(cat->sender, sizeof(cat->sender), "\xff@x.example");
        cat->flags = ENVELOPE_EIGHT_BIT | ENVELOPE_IN_DOUBT;
        cat->row_count = cat->has_envelope;
    }
    query->cursor = cat->is_at_octets && cat->offset == cat->end ? UINT64_MAX : 7;
}

/* The shard that was asked answers. */
void admin_fixture_answer(void)
{
    struct shard_query *query = admin_fixture.query;

    assert_true(admin_fixture.is_asked);
    if (query->kind == SHARD_QUERY_STATUS) {
        *query->status = (struct shard_status){.server.messages_accepted = 10 + admin_fixture.shard,
                                               .queue.messages = 1,
                                               .sources.resting = 2 - admin_fixture.shard % 2,
                                               .spool.is_full = admin_fixture.shard == 1};
    } else if (query->kind == SHARD_QUERY_PLANE) {
        static const struct flow_ops none;
        struct flow_plane kernel = {.ops = &none};
        query->look(query, &kernel);
    } else if (query->kind == SHARD_QUERY_QUEUE_SHOW) {
        if (query->id.high == 1 && admin_fixture.shard == 0)
            row_fill(&query->rows[query->row_count++], 0, 0);
        query->cursor = UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_CAT) {
        cat_answer(query, query->cat);
    } else if (query->kind == SHARD_QUERY_TRANSFER) {
        admin_fixture.visits++;
        query->cursor = UINT64_MAX;
    } else if (query->is_end) {
        admin_fixture.ended++;
        query->cursor = UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_SUMMARY) {
        query->groups[0] = (struct qmgr_group){.name = "big.example", .ages = {3, 0, 1}};
        query->groups[1] = (struct qmgr_group){.name = "\xff.example", .ages = {1}};
        query->row_count = admin_fixture.shard == 1 ? 2 : 1;
        query->cursor = query->cursor == 0 ? 7 : UINT64_MAX;
    } else if (query->kind == SHARD_QUERY_QUEUE_ACT) {
        query->acted.matched += 3;
        query->acted.done += query->is_dry_run ? 0 : 2;
        query->acted.in_flight += query->is_dry_run ? 0 : 1;
        query->is_stuck |= admin_fixture.is_stuck && admin_fixture.shard == 1;
        query->cursor = query->cursor == 0 ? 7 : UINT64_MAX;
    } else {
        while (query->row_count < query->row_max &&
               query->cursor < admin_fixture.rows[admin_fixture.shard])
            row_fill(&query->rows[query->row_count++], admin_fixture.shard,
                     (uint32_t)query->cursor++);
        if (query->cursor >= admin_fixture.rows[admin_fixture.shard])
            query->cursor = UINT64_MAX;
    }
    admin_fixture.is_asked = false;
    admin_on_reply(admin_fixture.admin, query, admin_fixture.now);
}

int admin_fixture_open(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path, sizeof(address.sun_path), "%s", admin_fixture_socket);
    assert_int_equal(0, connect(fd, (const struct sockaddr *)&address, sizeof(address)));
    admin_run(admin_fixture.admin, admin_fixture.now);
    return fd;
}

void admin_fixture_send(int fd, const char *text)
{
    assert_int_equal(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
    admin_run(admin_fixture.admin, admin_fixture.now);
}

const char *admin_fixture_receive_text(int fd, size_t *ret_size)
{
    static char text[8 << 20];
    size_t size = 0;
    ssize_t got = 1;

    fcntl(fd, F_SETFL, O_NONBLOCK);
    while (got != 0 && size < sizeof(text)) {
        got = read(fd, text + size, sizeof(text) - size);
        assert_true(got >= 0 || errno == EAGAIN);
        size += got > 0 ? (size_t)got : 0;
        admin_run(admin_fixture.admin, admin_fixture.now);
        if (got < 0 && admin_fixture.is_asked)
            admin_fixture_answer();
    }
    close(fd);
    *ret_size = size;
    return text;
}

json_t *admin_fixture_receive(int fd)
{
    size_t size;
    const char *text = admin_fixture_receive_text(fd, &size);

    return json_loadb(text, size, JSON_REJECT_DUPLICATES, NULL);
}

json_t *admin_fixture_ask(const char *request)
{
    int fd = admin_fixture_open();
    admin_fixture_send(fd, request);
    return admin_fixture_receive(fd);
}

int admin_fixture_set_up(void **state)
{
    struct admin_options options = {.path = admin_fixture_socket,
                                    .shard_count = ADMIN_FIXTURE_SHARDS,
                                    .query = admin_fixture_on_query,
                                    .reload = admin_fixture_on_reload,
                                    .changed = on_changed,
                                    .may_close = may_close};

    (void)state;
    admin_fixture = (struct admin_fixture){0};
    return admin_new(&options, &admin_fixture.admin) == ERR_OK ? 0 : -1;
}

int admin_fixture_tear_down(void **state)
{
    (void)state;
    admin_free(admin_fixture.admin);
    return access(admin_fixture_socket, F_OK) == 0 ? -1 : 0; /* the socket is gone */
}

void admin_fixture_begin(void)
{
    CHECK(mkdtemp(admin_fixture_folder) != NULL);
    snprintf(admin_fixture_socket, sizeof(admin_fixture_socket), "%s/control",
             admin_fixture_folder);
}

void admin_fixture_end(void)
{
    rmdir(admin_fixture_folder);
}
