/* SPDX-License-Identifier: Apache-2.0 */
/*
 * queue/qmgr_keep.c: memory for bodies and envelopes is for mail that moves.
 *
 * Each row fills the memory with messages of one kind, waits, and lets one more come: what of the
 * old is kept then, and is the new one?
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"

#define BODY   1000u
#define KEPT   4u
#define MEMORY (KEPT * BODY)

static const struct qmgr_options options = {.message_count_max = 100,
                                            .body_memory_max = MEMORY,
                                            .retry_min = TICK_S(100),
                                            .retry_max = TICK_S(100)};

static struct buf_pool *body_pool(void)
{
    struct buf_pool_options pool = {
        .data_size = 2048, .count_max = 64, .backing = BUF_BACKING_HEAP};
    return buf_pool_new(&pool);
}

static void insert_with_body(struct fixture *f, struct buf_pool *pool, uint64_t id,
                             const char *recipients)
{
    static uint8_t octets[BODY];
    struct buf_queue body;

    buf_queue_init(&body);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&body, pool, span_of(octets, BODY)));
    struct message_options message = {.id = id, .recipients = recipients, .body = &body};
    assert_int_equal(ERR_OK, fixture_insert(f, &message, NULL));
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

static uint64_t body_memory(const struct fixture *f)
{
    return qmgr_get_stats(f->qmgr).body_memory;
}

/* Ends the oldest message's attempt of the next line, as deferred, and with it its body. */
static void move(struct fixture *f)
{
    struct qmgr_delivery *delivery = fixture_take_one(f);

    assert_non_null(delivery);
    fixture_finish_all(f, delivery, RECIPIENT_DUE, "451 later");
}

static void what_stands_still_gives_way(void **state)
{
    static const struct {
        const char *name, *recipients;
        tick_us waited;
        bool is_moving; /* one of their line was tried when they had come, and went away */
        bool is_active; /* all are being tried */
        uint64_t after; /* octets kept when another one came */
    } rows[] = {
        {"too short a time", "a@dead", TICK_S(1) - 1, false, false, MEMORY},
        {"long enough", "a@dead", TICK_S(1), false, false, BODY},
        {"the line moved", "a@dead", TICK_S(1), true, false, MEMORY},
        {"it moved too long ago", "a@dead", TICK_S(2), true, false, BODY},
        {"they are being tried", "a@dead", TICK_S(60), false, true, MEMORY},
        {"eight lines", "a@1 a@2 a@3 a@4 a@5 a@6 a@7 a@8", TICK_S(1), false, false, BODY},
        {"nine lines", "a@1 a@2 a@3 a@4 a@5 a@6 a@7 a@8 a@9", TICK_S(1), false, false, MEMORY},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct buf_pool *pool = body_pool();
        struct fixture f;
        print_message("# %s\n", rows[i].name);
        fixture_init(&f, &options);
        f.is_new = true;
        fixture_pass(&f, TICK_S(10));
        for (uint64_t id = 1; id <= KEPT; id++)
            insert_with_body(&f, pool, id, rows[i].recipients);
        if (rows[i].is_moving) {
            fixture_pass(&f, TICK_S(1));
            move(&f);
            insert_with_body(&f, pool, 50, rows[i].recipients);
        }
        for (uint32_t taken = 0; rows[i].is_active && taken < KEPT; taken++)
            assert_non_null(fixture_take_one(&f));
        assert_int_equal(MEMORY, body_memory(&f));
        fixture_pass(&f, rows[i].is_moving ? rows[i].waited - TICK_S(1) : rows[i].waited);
        insert_with_body(&f, pool, 99, "a@living");
        assert_int_equal(rows[i].after, body_memory(&f));
        fixture_fini(&f);
        assert_int_equal(0, buf_pool_in_use(pool));
        buf_pool_free(pool);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stands_still_gives_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
