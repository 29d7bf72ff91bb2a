/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_ADMIN_FIXTURE_H
#define TESTS_UNIT_ADMIN_FIXTURE_H

#include <jansson.h>

#include "control/admin.h"

/* A control socket, its clients, and shards that are tables. */
#define ADMIN_FIXTURE_SHARDS 3u

/* What the shards hold, and the query that is with one of them. */
struct admin_fixture {
    struct admin *admin;
    tick_us now;
    uint32_t rows[ADMIN_FIXTURE_SHARDS]; /* recipients in each queue */
    bool is_asked;
    bool is_stuck; /* the second shard can write nothing to its spool */
    uint32_t shard;
    struct shard_query *query;
    uint32_t asked; /* queries so far */
    bool reload_works;
    bool is_parting; /* another process may have the place in a moment */
    uint32_t pieces; /* of the message that is printed */
    const char *cat_fails;
    uint32_t visits, ended;          /* of transfers; walks that were given up */
    uint32_t changes, changes_after; /* of what is kept; and the visits before the last */
};
extern struct admin_fixture admin_fixture;
extern char admin_fixture_folder[], admin_fixture_socket[64];

/* What the relay does, for a test that makes an admin of its own. */
void admin_fixture_on_query(void *context, uint32_t shard, struct shard_query *query);
bool admin_fixture_on_reload(void *context, bool is_dry_run, char ret_text[ADMIN_ERROR_SIZE]);
/* The shard that was asked answers. */
void admin_fixture_answer(void);

int admin_fixture_open(void);
void admin_fixture_send(int fd, const char *text);
/* The whole answer; the connection must end with it. As text: until the next. */
json_t *admin_fixture_receive(int fd);
const char *admin_fixture_receive_text(int fd, size_t *ret_size);
json_t *admin_fixture_ask(const char *request);

/* Of each test. */
int admin_fixture_set_up(void **state);
int admin_fixture_tear_down(void **state);
/* Of a program: runs its tests. */
#define ADMIN_FIXTURE_TEST(name)                                                                   \
    cmocka_unit_test_setup_teardown(name, admin_fixture_set_up, admin_fixture_tear_down)
void admin_fixture_begin(void);
void admin_fixture_end(void);

#endif
