/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message as it is stored, look by look: exact octets whatever they are, nothing that grows with
 * the message, and a clear end when the message leaves, or cannot be read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "control/shard_cat.h"
#include "qmgr_fixture.h"

#define LARGE_SIZE (3u << 20)

static const struct message_id id = {1700000000000000, 1};

/* One asker, and what it has been told. */
struct asker {
    struct shard_cat cat;
    struct shard_query query;
    uint8_t *octets;
    uint64_t size;
    uint32_t rows, looks;
};

static void asker_begin(struct asker *asker, bool has_envelope, bool has_header, bool has_body)
{
    memset(asker, 0, sizeof(*asker));
    asker->cat.has_envelope = has_envelope;
    asker->cat.has_header = has_header;
    asker->cat.has_body = has_body;
    asker->query =
        (struct shard_query){.kind = SHARD_QUERY_QUEUE_CAT, .id = id, .cat = &asker->cat};
    asker->octets = malloc(LARGE_SIZE + ENVELOPE_PREFIX_SIZE_MAX);
    assert_non_null(asker->octets);
}

/* False: nothing more comes. */
static bool asker_look(struct asker *asker, struct fixture *f)
{
    struct shard_cat *cat = &asker->cat;

    shard_query_cat(f->qmgr, &asker->query, f->now);
    asker->looks++;
    memcpy(asker->octets + asker->size, cat->octets, cat->octet_count);
    asker->size += cat->octet_count;
    asker->rows += cat->row_count;
    return asker->query.err == ERR_OK && asker->query.cursor != UINT64_MAX;
}

static void asker_run(struct asker *asker, struct fixture *f)
{
    for (uint32_t i = 0; i < 1000 && asker_look(asker, f); i++) {
        if (asker->query.is_waiting)
            fixture_reads_end(f, 1);
    }
    assert_false(asker->query.is_waiting);
    assert_int_equal(0, f->read_count);
}

static void asker_end(struct asker *asker)
{
    free(asker->octets);
}

static struct spool_entry *insert(struct fixture *f, struct span prefix, struct span body)
{
    struct arena arena;

    fixture_init(f, NULL);
    f->is_slow = true;
    arena_init(&arena, 4096, 1u << 20);
    struct message_options options = {
        .id = 1, .recipients = "a@y.example b@y.example c@z.example", .pool = "pool"};
    struct envelope envelope = fixture_envelope(f, &options, &arena);
    envelope.prefix = prefix;
    envelope.body_size = prefix.size + body.size;
    envelope.header_size = prefix.size + (body.size < 7 ? body.size : 7);
    envelope.flags = ENVELOPE_EIGHT_BIT;
    envelope.envid = SPAN_LITERAL("QQ314159");
    envelope.recipients[1].orcpt = SPAN_LITERAL("rfc822;b@old.example");
    envelope.recipients[1].notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY;
    struct spool_entry *entry = fixture_entry_new(f, &envelope);
    arena_fini(&arena);
    entry->body = body;
    assert_int_equal(ERR_OK, fixture_insert_entry(f, entry, NULL));
    return entry;
}

static void octets_are_exact(void **state)
{
    static const char eight_bit[] = "X: \xe4\r\n\r\n\x01\x7f\x80\xff\r\n";
    static uint8_t large[LARGE_SIZE];
    const struct {
        const char *name;
        struct span prefix, body;
    } cases[] = {
        {"nothing", SPAN_LITERAL(""), SPAN_LITERAL("")},
        {"prefix alone", SPAN_LITERAL("P: 1\r\n"), SPAN_LITERAL("")},
        {"dots", SPAN_LITERAL(""), SPAN_LITERAL("A: 1\r\n\r\n.\r\n..\r\n...x\r\n.")},
        {"eight bits", SPAN_LITERAL("P: 1\r\n"), SPAN_LITERAL(eight_bit)},
        {"a NUL", SPAN_LITERAL(""), SPAN_LITERAL("A: 1\r\n\r\n\0\r\n")},
        {"no final CRLF", SPAN_LITERAL("P: 1\r\n"), SPAN_LITERAL("A: 1\r\n\r\nend")},
        {"one piece", SPAN_LITERAL(""), span_of(large, SHARD_CAT_OCTETS_MAX)},
        {"one octet more", SPAN_LITERAL("P: 1\r\n"), span_of(large, SHARD_CAT_OCTETS_MAX + 1)},
        {"large", SPAN_LITERAL("P: 1\r\n"), span_of(large, LARGE_SIZE)},
    };

    (void)state;
    for (uint32_t i = 0; i < LARGE_SIZE; i++)
        large[i] = (uint8_t)(i * 7 + i / 251);
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct span prefix = cases[i].prefix, body = cases[i].body;
        uint64_t size = prefix.size + (uint64_t)body.size;
        struct fixture f;
        static struct asker asker;
        print_message("# case: %s\n", cases[i].name);
        insert(&f, prefix, body);
        asker_begin(&asker, true, true, true);
        asker_run(&asker, &f);
        assert_int_equal(ERR_OK, asker.query.err);
        assert_int_equal(UINT64_MAX, asker.query.cursor);
        assert_int_equal(size, asker.size);
        assert_memory_equal(prefix.data, asker.octets, prefix.size);
        assert_memory_equal(body.data, asker.octets + prefix.size, body.size);
        assert_int_equal(3, asker.rows);
        /* Most looks of a large one are pieces, begun and taken. */
        assert_in_range(asker.looks, 2, 6 + 2 * (size / SHARD_CAT_OCTETS_MAX + 1));
        asker_end(&asker);
        fixture_fini(&f);
    }
}

static void parts_are_what_they_say(void **state)
{
    static const struct {
        const char *name, *octets;
        bool has_envelope, has_header, has_body;
    } cases[] = {
        {"envelope", "", true, false, false},
        {"header", "P: 1\r\nA: 1\r\n\r", false, true, false}, /* of as many octets as it has */
        {"message", "P: 1\r\nA: 1\r\n\r\nx", false, true, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture f;
        static struct asker asker;
        print_message("# case: %s\n", cases[i].name);
        insert(&f, SPAN_LITERAL("P: 1\r\n"), SPAN_LITERAL("A: 1\r\n\r\nx"));
        asker_begin(&asker, cases[i].has_envelope, cases[i].has_header, cases[i].has_body);
        asker_run(&asker, &f);
        assert_int_equal(ERR_OK, asker.query.err);
        assert_int_equal(cases[i].has_envelope ? 3 : 0, asker.rows);
        assert_int_equal(strlen(cases[i].octets), asker.size);
        assert_memory_equal(cases[i].octets, asker.octets, asker.size);
        asker_end(&asker);
        fixture_fini(&f);
    }
}

static void the_envelope_is_told(void **state)
{
    struct fixture f;
    static struct asker asker;

    (void)state;
    insert(&f, SPAN_LITERAL(""), SPAN_LITERAL("A: 1\r\n\r\n"));
    asker_begin(&asker, true, false, false);
    asker_look(&asker, &f);
    assert_true(asker.query.is_waiting);
    fixture_reads_end(&f, 1);
    asker_look(&asker, &f);
    const struct shard_cat *cat = &asker.cat;
    assert_true(cat->is_found);
    assert_string_equal("a@x.example", cat->sender);
    assert_string_equal("client.example [192.0.2.1]", cat->client);
    assert_string_equal("pool", cat->source);
    assert_string_equal("QQ314159", cat->envid);
    assert_int_equal(ENVELOPE_EIGHT_BIT, cat->flags);
    assert_int_equal(3, cat->row_count);
    assert_string_equal("b@y.example", cat->rows[1].address);
    assert_string_equal("rfc822;b@old.example", cat->rows[1].orcpt);
    assert_int_equal(ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY, cat->rows[1].notify);
    assert_string_equal("z.example", cat->rows[2].domain);
    assert_true(cat->rows[2].is_ready);
    asker_end(&asker);
    fixture_fini(&f);
}

static void an_unknown_message_is_not_found(void **state)
{
    struct fixture f;
    static struct asker asker;

    (void)state;
    insert(&f, SPAN_LITERAL(""), SPAN_LITERAL("x"));
    asker_begin(&asker, true, true, true);
    asker.query.id.low = 2;
    asker_run(&asker, &f);
    assert_int_equal(ERR_OK, asker.query.err);
    assert_false(asker.cat.is_found);
    asker_end(&asker);
    fixture_fini(&f);
}

/* An operator deletes it. */
static void message_end(struct fixture *f)
{
    struct qmgr_filter filter = {.terms = QMGR_FILTER_ID, .id = id};
    struct qmgr_order order = {.verb = QMGR_VERB_DELETE, .id = 1, .reason = "test"};
    uint64_t handle = qmgr_scan_begin(f->qmgr, &filter, f->now);
    struct qmgr_match matches[4];
    struct qmgr_acted acted = {0};
    uint32_t count = 0;
    bool is_done;

    for (uint32_t i = 0; i < 2 && count == 0; i++) {
        assert_int_equal(ERR_OK,
                         qmgr_scan_step(f->qmgr, handle, matches, 4, &count, &is_done, f->now));
        fixture_reads_end(f, f->read_count);
    }
    assert_int_equal(3, count);
    qmgr_act(f->qmgr, matches, count, &order, &acted, f->now);
    assert_null(qmgr_find(f->qmgr, id));
}

/* Goal: what was begun is told as it was, what comes after the end is refused, nothing is left. */
static void a_message_may_end_while_it_is_read(void **state)
{
    static uint8_t body[3 * SHARD_CAT_OCTETS_MAX];

    (void)state;
    for (uint32_t at_look = 1; at_look <= 5; at_look++) {
        struct fixture f;
        static struct asker asker;
        print_message("# case: after look %u\n", at_look);
        insert(&f, SPAN_LITERAL("P: 1\r\n"), span_of(body, sizeof(body)));
        asker_begin(&asker, true, true, true);
        for (uint32_t i = 0; i < at_look; i++) {
            assert_true(asker_look(&asker, &f));
            if (asker.query.is_waiting && i + 1 < at_look)
                fixture_reads_end(&f, 1);
        }
        message_end(&f);
        asker_run(&asker, &f);
        if (at_look == 1) { /* nothing was told yet */
            assert_int_equal(ERR_OK, asker.query.err);
            assert_false(asker.cat.is_found);
        } else {
            assert_int_equal(ERR_STALE, asker.query.err);
            assert_non_null(strstr(asker.cat.why, "left the queue"));
        }
        asker_end(&asker);
        fixture_fini(&f);
    }
}

static void what_cannot_be_read_is_said(void **state)
{
    static const struct {
        const char *name, *why;
        enum err body_err, expected;
        bool is_unreadable, is_short;
    } cases[] = {
        {"envelope", "envelope cannot be read", ERR_OK, ERR_DISK_CORRUPT, true, false},
        {"body damaged", "damaged", ERR_DISK_CORRUPT, ERR_DISK_CORRUPT, false, false},
        {"disk fails", "damaged", ERR_DISK_IO, ERR_DISK_IO, false, false},
        {"no memory", "no memory", ERR_MEMORY, ERR_MEMORY, false, false},
        {"body too short", "damaged", ERR_OK, ERR_DISK_CORRUPT, false, true},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture f;
        static struct asker asker;
        print_message("# case: %s\n", cases[i].name);
        struct spool_entry *entry = insert(&f, SPAN_LITERAL(""), SPAN_LITERAL("A: 1\r\n\r\nxy"));
        entry->body_err = cases[i].body_err;
        entry->is_unreadable = cases[i].is_unreadable;
        entry->body.size -= cases[i].is_short;
        asker_begin(&asker, true, true, true);
        asker_run(&asker, &f);
        assert_int_equal(cases[i].expected, asker.query.err);
        assert_non_null(strstr(asker.cat.why, cases[i].why));
        assert_int_equal(0, asker.size);
        asker_end(&asker);
        fixture_fini(&f);
    }
}

/* Goal: two at once do not meet; pieces are bounded, and free again afterwards. */
static void several_at_once(void **state)
{
    static uint8_t body[2 * SHARD_CAT_OCTETS_MAX];
    struct fixture f;
    static struct asker askers[QMGR_PIECE_MAX + 1];

    (void)state;
    for (uint32_t i = 0; i < sizeof(body); i++)
        body[i] = (uint8_t)(i / 3);
    insert(&f, SPAN_LITERAL(""), span_of(body, sizeof(body)));
    for (uint32_t i = 0; i < COUNT_OF(askers); i++) {
        asker_begin(&askers[i], false, true, true);
        for (uint32_t j = 0; j < 2 && !askers[i].cat.is_at_octets; j++) {
            asker_look(&askers[i], &f);
            fixture_reads_end(&f, f.read_count);
        }
        assert_true(askers[i].cat.is_at_octets);
    }
    for (uint32_t i = 0; i < COUNT_OF(askers); i++)
        assert_int_equal(i < QMGR_PIECE_MAX, asker_look(&askers[i], &f));
    assert_int_equal(ERR_LIMIT, askers[QMGR_PIECE_MAX].query.err);
    assert_int_equal(QMGR_PIECE_MAX, f.read_count);
    for (uint32_t round = 0; round < 5; round++) {
        fixture_reads_end(&f, f.read_count);
        for (uint32_t i = 0; i < QMGR_PIECE_MAX; i++) {
            if (askers[i].query.cursor != UINT64_MAX)
                asker_look(&askers[i], &f);
        }
    }
    for (uint32_t i = 0; i < COUNT_OF(askers); i++) {
        assert_int_equal(i < QMGR_PIECE_MAX ? sizeof(body) : 0, askers[i].size);
        assert_memory_equal(body, askers[i].octets, askers[i].size);
        asker_end(&askers[i]);
    }
    fixture_fini(&f);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(octets_are_exact),
        cmocka_unit_test(parts_are_what_they_say),
        cmocka_unit_test(the_envelope_is_told),
        cmocka_unit_test(an_unknown_message_is_not_found),
        cmocka_unit_test(a_message_may_end_while_it_is_read),
        cmocka_unit_test(what_cannot_be_read_is_said),
        cmocka_unit_test(several_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
