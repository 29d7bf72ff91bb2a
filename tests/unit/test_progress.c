/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Progress payloads come back as they were written, damaged ones never as something else; and a
 * message id has one spelling.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/envelope.h"

static uint8_t long_text[ENVELOPE_REPLY_SIZE_MAX + 1];

static void assert_span_equal(struct span expected, struct span actual)
{
    assert_int_equal(expected.size, actual.size);
    assert_true(span_is_equal(expected, actual));
}

static const struct envelope_settle sample_settles[] = {
    {3, RECIPIENT_DELIVERED, 250, {2, 0, 0}, false, {NULL, 0}},
    {ENVELOPE_RECIPIENT_MAX - 1,
     RECIPIENT_FAILED,
     550,
     {5, 1, 1},
     false,
     {(const uint8_t *)"550 5.1.1 nobody", 16}},
    {7, RECIPIENT_SETTLED, 0, {4, 4, 7}, true, {NULL, 0}},
};

static const struct envelope_settle sample_wishes[] = {
    {4, RECIPIENT_FAILED, 554, {5, 7, 1}, false, {(const uint8_t *)"their list", 10}},
    {5, RECIPIENT_SETTLED, 554, {5, 7, 1}, false, {NULL, 0}},
};

static struct envelope_progress sample_progress(void)
{
    return (struct envelope_progress){
        .next_try = 1700000300000000,
        .attempts = 3,
        .flags = ENVELOPE_IN_DOUBT,
        .delivery = 7,
        .dsn_runs = 2,
        .last_reply = SPAN_LITERAL("451 4.7.1 later"),
        .settles = sample_settles,
        .settle_count = COUNT_OF(sample_settles),
        .hold_order = 4194303,
        .route = SPAN_LITERAL("other.example"),
        .wishes = sample_wishes,
        .wish_count = COUNT_OF(sample_wishes),
        .told_time = 1700000000000000,
        .told_count = 2,
    };
}

static void assert_settle_equal(const struct envelope_settle *x, const struct envelope_settle *y)
{
    assert_int_equal(x->recipient_index, y->recipient_index);
    assert_int_equal(x->state, y->state);
    assert_int_equal(x->code, y->code);
    assert_memory_equal(x->enhanced, y->enhanced, 3);
    assert_int_equal(x->is_expired, y->is_expired);
    assert_span_equal(x->reply, y->reply);
}

static void assert_progress_equal(const struct envelope_progress *a,
                                  const struct envelope_progress *b)
{
    assert_int_equal(a->next_try, b->next_try);
    assert_int_equal(a->attempts, b->attempts);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->delivery, b->delivery);
    assert_int_equal(a->dsn_runs, b->dsn_runs);
    assert_span_equal(a->last_reply, b->last_reply);
    assert_int_equal(a->settle_count, b->settle_count);
    assert_int_equal(a->hold_order, b->hold_order);
    assert_span_equal(a->route, b->route);
    for (uint32_t i = 0; i < a->settle_count; i++)
        assert_settle_equal(&a->settles[i], &b->settles[i]);
    assert_int_equal(a->wish_count, b->wish_count);
    for (uint32_t i = 0; i < a->wish_count; i++)
        assert_settle_equal(&a->wishes[i], &b->wishes[i]);
    assert_int_equal(a->told_time, b->told_time);
    assert_int_equal(a->told_count, b->told_count);
}

static void retry_is_told_from_news(void **state)
{
    static const struct row {
        const char *name;
        struct envelope_progress progress;
        bool is_retry;
    } rows[] = {
        {"retry", {.next_try = 1, .attempts = 2, .delivery = 7}, true},
        {"with a reply", {.next_try = 1, .last_reply = {(const uint8_t *)"451", 3}}, true},
        {"held", {.next_try = INT64_MAX, .hold_order = 9}, true},
        {"rerouted", {.next_try = 1, .route = {(const uint8_t *)"x", 1}}, true},
        {"no time", {.attempts = 2, .delivery = 7}, false},
        {"in doubt", {.next_try = 1, .flags = ENVELOPE_IN_DOUBT}, false},
        {"of no delivery", {.next_try = 1, .delivery = ENVELOPE_DELIVERY_NONE}, false},
        {"settles", {.next_try = 1, .settles = sample_settles, .settle_count = 1}, false},
        {"told", {.next_try = 1, .told_time = 1}, false},
        {"wishes", {.next_try = 1, .wishes = sample_wishes, .wish_count = 1}, false},
    };
    uint8_t octets[512];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint32_t delivery = 1234, size = envelope_progress_encoded_size(&rows[i].progress);
        print_message("# %s\n", rows[i].name);
        envelope_progress_encode(&rows[i].progress, octets);
        assert_int_equal(rows[i].is_retry,
                         envelope_progress_is_retry(span_of(octets, size), &delivery));
        if (rows[i].is_retry)
            assert_int_equal(rows[i].progress.delivery, delivery);
        assert_false(envelope_progress_is_retry(span_of(octets, size - 1), &delivery));
        memcpy(octets + size, "\x80\x01\0\0\0x", 6); /* something that a newer program says */
        assert_false(envelope_progress_is_retry(span_of(octets, size + 6), &delivery));
    }
}

static void progress_comes_back(void **state)
{
    struct envelope_progress progress = sample_progress(), back;
    struct arena arena;
    uint8_t octets[512];

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    uint32_t size = envelope_progress_encoded_size(&progress);
    assert_true(size + 12 <= sizeof(octets));
    envelope_progress_encode(&progress, octets);
    assert_int_equal(ERR_OK, envelope_progress_decode(span_of(octets, size), &arena, &back));
    assert_progress_equal(&progress, &back);

    /* What need not be understood is passed over, what is broken is not. */
    memcpy(octets + size, "\x80\x01\0\0\0x\xff\0\0\0\0", 11);
    assert_int_equal(ERR_OK, envelope_progress_decode(span_of(octets, size + 11), &arena, &back));
    assert_progress_equal(&progress, &back);
    for (uint32_t cut = size + 1; cut < size + 6; cut++)
        assert_int_equal(ERR_DISK_CORRUPT,
                         envelope_progress_decode(span_of(octets, cut), &arena, &back));
    /* What must be understood, and is not, is refused, first or behind others: the next type that a
     * new version may have, and the last. */
    static const uint8_t types[] = {8, 127};
    for (uint32_t i = 0; i < COUNT_OF(types); i++) {
        octets[size] = types[i];
        octets[size + 6] = 0xff;
        assert_int_equal(ERR_DISK_CORRUPT,
                         envelope_progress_decode(span_of(octets, size + 6), &arena, &back));
        octets[size] = 0x80;
        octets[size + 6] = types[i];
        assert_int_equal(ERR_DISK_CORRUPT,
                         envelope_progress_decode(span_of(octets, size + 11), &arena, &back));
    }
    arena_fini(&arena);
}

static void progress_damage_is_refused_or_canonical(void **state)
{
    struct envelope_progress progress = sample_progress(), back;
    struct arena arena;
    struct rng rng;
    uint8_t octets[256], copy[256], again[256];
    uint32_t refused = 0;

    (void)state;
    rng_init_seed(&rng, 9);
    arena_init(&arena, 512, 1u << 20);
    uint32_t size = envelope_progress_encoded_size(&progress);
    envelope_progress_encode(&progress, octets);
    for (uint32_t round = 0; round < 20000; round++) {
        memcpy(copy, octets, size);
        for (uint32_t i = 0; i <= round % 3; i++)
            copy[rng_below(&rng, size)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        arena_reset(&arena);
        if (envelope_progress_decode(span_of(copy, size), &arena, &back) != ERR_OK) {
            refused++;
            continue;
        }
        /* Unknown TLVs at the end are dropped; everything before is the same. */
        assert_true(envelope_progress_encoded_size(&back) <= size);
        envelope_progress_encode(&back, again);
        assert_memory_equal(copy, again, envelope_progress_encoded_size(&back));
    }
    assert_true(refused > 1000);
    arena_fini(&arena);
}

static void progress_bounds_hold_on_both_sides(void **state)
{
    struct envelope_progress progress = sample_progress();
    struct envelope_settle settle = sample_settles[1];

    (void)state;
    memset(long_text, 'r', sizeof(long_text));
    progress.last_reply = span_of(long_text, ENVELOPE_REPLY_SIZE_MAX);
    assert_true(envelope_progress_is_valid(&progress));
    progress.last_reply.size++;
    assert_false(envelope_progress_is_valid(&progress));
    progress = sample_progress();
    progress.delivery = ENVELOPE_DELIVERY_NONE;
    assert_true(envelope_progress_is_valid(&progress));
    progress.delivery = ENVELOPE_RECIPIENT_MAX;
    assert_false(envelope_progress_is_valid(&progress));
    progress = sample_progress();
    progress.next_try = -1;
    assert_false(envelope_progress_is_valid(&progress));
    progress = sample_progress();
    progress.told_time = 0; /* of that time a record tells, or of nothing */
    assert_false(envelope_progress_is_valid(&progress));
    progress.told_count = 0;
    assert_true(envelope_progress_is_valid(&progress));
    progress.told_time = -1;
    assert_false(envelope_progress_is_valid(&progress));
    progress = sample_progress();
    progress.settles = &settle;
    progress.settle_count = 1;
    settle.reply = span_of(long_text, ENVELOPE_REPLY_SIZE_MAX);
    assert_true(envelope_progress_is_valid(&progress));
    settle.reply.size++;
    assert_false(envelope_progress_is_valid(&progress));
    settle = sample_settles[1];
    settle.recipient_index = ENVELOPE_RECIPIENT_MAX;
    assert_false(envelope_progress_is_valid(&progress));
    progress = sample_progress();
    progress.wishes = &settle;
    progress.wish_count = 1;
    assert_false(envelope_progress_is_valid(&progress));
    settle.recipient_index = ENVELOPE_RECIPIENT_MAX - 1;
    for (uint32_t i = 0; i < RECIPIENT_STATE_COUNT; i++) {
        settle.state = (enum recipient_state)i;
        assert_int_equal(i == RECIPIENT_FAILED || i == RECIPIENT_SETTLED,
                         envelope_progress_is_valid(&progress));
    }
}

/* ---- message ids ---- */

static void message_ids_have_one_spelling(void **state)
{
    static const struct {
        const char *name, *text;
        enum err err;
    } rows[] = {
        {"zero", "aaaaaaaaaaaaaaaaaaaaaaaaaa", ERR_OK},
        {"all ones",
         "777777777777777777777777"
         "74",
         ERR_OK},
        {"upper case", "ABCDEFGHIJKLMNOPQRSTUVWXY4", ERR_OK},
        {"too short", "aaaaaaaaaaaaaaaaaaaaaaaaa", ERR_PEER_SYNTAX},
        {"too long", "aaaaaaaaaaaaaaaaaaaaaaaaaaa", ERR_PEER_SYNTAX},
        {"bit 129 set", "aaaaaaaaaaaaaaaaaaaaaaaaac", ERR_PEER_SYNTAX},
        {"bit 130 set", "aaaaaaaaaaaaaaaaaaaaaaaaab", ERR_PEER_SYNTAX},
        {"not base32", "aaaaaaaa1aaaaaaaaaaaaaaaaa", ERR_PEER_SYNTAX},
        {"8 is not", "aaaaaaaaaaaaaaaaaaaaaaaaa8", ERR_PEER_SYNTAX},
        {"empty", "", ERR_PEER_SYNTAX},
    };
    char text[MESSAGE_ID_TEXT_SIZE];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct message_id id = {1, 2};
        if (message_id_parse(span_from_text(rows[i].text), &id) != rows[i].err)
            fail_msg("%s", rows[i].name);
        if (rows[i].err != ERR_OK) {
            assert_true(id.high == 1 && id.low == 2);
            continue;
        }
        message_id_format(id, text);
        assert_true(span_is_equal_nocase(span_from_text(rows[i].text), span_from_text(text)));
    }
    /* RFC 4648 section 10: BASE32("foobar") = "MZXW6YTBOI======" */
    struct message_id id = {0x666f6f6261720000u, 0};
    assert_string_equal("mzxw6ytboiaaaaaaaaaaaaaaaa", message_id_format(id, text));

    struct rng rng;
    rng_init_seed(&rng, 10);
    for (uint32_t round = 0; round < 1000; round++) {
        struct message_id back, random = {rng_u64(&rng), rng_u64(&rng)};
        message_id_format(random, text);
        assert_int_equal(ERR_OK, message_id_parse(span_from_text(text), &back));
        assert_true(message_id_is_equal(random, back));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_is_told_from_news),
        cmocka_unit_test(progress_comes_back),
        cmocka_unit_test(progress_damage_is_refused_or_canonical),
        cmocka_unit_test(progress_bounds_hold_on_both_sides),
        cmocka_unit_test(message_ids_have_one_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
