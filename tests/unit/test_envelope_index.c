/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of an envelope: it says what the envelope says, has one spelling, and is refused when
 * damaged.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/envelope_index.h"

#define RECIPIENTS_MAX 128u

static const struct message_id id = {0x0123456789abcdefu, 0xfedcba9876543210u};
static char domains[RECIPIENTS_MAX][ENVELOPE_DOMAIN_SIZE_MAX + 1];
static struct envelope_recipient recipients[RECIPIENTS_MAX];

/* Recipient i goes to the domain named by letter i. */
static struct envelope sample(const char *letters)
{
    uint32_t count = (uint32_t)strlen(letters);

    assert_true(count <= RECIPIENTS_MAX);
    for (uint32_t i = 0; i < count; i++) {
        snprintf(domains[i], sizeof(domains[i]), "%c.example", letters[i]);
        recipients[i] = (struct envelope_recipient){
            .address = SPAN_LITERAL("user@elsewhere.example"),
            .domain = span_from_text(domains[i]),
        };
    }
    return (struct envelope){
        .id = id,
        .arrived = 1700000000000000,
        .expires = 1700432000000000,
        .body_size = 5000000000u,
        .flags = ENVELOPE_EIGHT_BIT | 1u << 31,
        .class = 9,
        .source_pool = SPAN_LITERAL("bulk"),
        .sender = SPAN_LITERAL("\"a@b\"@X.example"),
        .recipients = recipients,
        .recipient_count = count,
    };
}

static void assert_span_equal(struct span expected, struct span actual)
{
    assert_int_equal(expected.size, actual.size);
    assert_true(span_is_equal(expected, actual));
}

/* Encoded and decoded again it says the same. */
static void assert_comes_back(const struct envelope *envelope, const struct envelope_index *index)
{
    uint8_t encoded[ENVELOPE_INDEX_SIZE_MAX];
    struct envelope_index back;
    uint32_t size = envelope_index_encoded_size(index);

    envelope_index_encode(index, encoded);
    assert_int_equal(ERR_OK, envelope_index_decode(span_of(encoded, size), id, &back));
    assert_true(message_id_is_equal(envelope->id, back.id));
    assert_int_equal(envelope->arrived, back.arrived);
    assert_int_equal(envelope->expires, back.expires);
    assert_int_equal(envelope->body_size, back.body_size);
    assert_int_equal(envelope->flags, back.flags);
    assert_int_equal(envelope->class, back.class);
    assert_int_equal(index->notify, back.notify);
    assert_int_equal(index->is_notify_open, back.is_notify_open);
    assert_int_equal(envelope->sender.size == 0, back.is_null_sender);
    assert_span_equal(envelope->source_pool, back.source_pool);
    assert_span_equal(index->sender_domain, back.sender_domain);
    assert_int_equal(envelope->recipient_count, back.recipient_count);
    assert_int_equal(index->run_count, back.run_count);
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        uint32_t place = envelope_index_find(&back, i);
        assert_span_equal(envelope->recipients[i].domain, back.deliveries[place].domain);
        assert_true(back.deliveries[place].first <= i);
    }
}

static const struct shape {
    const char *name, *letters;
    uint32_t deliveries, runs;
    uint32_t first[4], count[4];
} shapes[] = {
    {"one recipient", "a", 1, 1, {0}, {1}},
    {"one domain", "aaaa", 1, 1, {0}, {4}},
    {"two domains, apart", "aabbb", 2, 2, {0, 2}, {2, 3}},
    {"two domains, mixed", "abab", 2, 4, {0, 1}, {2, 2}},
    {"comes back to the first", "abca", 3, 4, {0, 1, 2}, {2, 1, 1}},
    {"comes back to the second", "abbcb", 3, 4, {0, 1, 3}, {1, 3, 1}},
};

static void index_knows_each_recipients_delivery(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(shapes); i++) {
        const struct shape *shape = &shapes[i];
        print_message("# %s\n", shape->name);
        struct envelope envelope = sample(shape->letters);
        struct envelope_index index;
        assert_true(envelope_index_of(&envelope, &index));
        assert_int_equal(shape->deliveries, index.delivery_count);
        assert_int_equal(shape->runs, index.run_count);
        for (uint32_t j = 0; j < shape->deliveries; j++) {
            assert_int_equal(shape->first[j], index.deliveries[j].first);
            assert_int_equal(shape->count[j], index.deliveries[j].count);
        }
        assert_comes_back(&envelope, &index);
    }
}

static void index_gathers_what_senders_asked_for(void **state)
{
    struct envelope envelope = sample("ab");
    struct envelope_index index;

    (void)state;
    assert_true(envelope_index_of(&envelope, &index));
    assert_int_equal(0, index.notify);
    assert_true(index.is_notify_open);
    assert_span_equal(SPAN_LITERAL("X.example"), index.sender_domain);
    recipients[0].notify = ENVELOPE_NOTIFY_SUCCESS;
    recipients[1].notify = ENVELOPE_NOTIFY_DELAY | ENVELOPE_NOTIFY_FAILURE;
    assert_true(envelope_index_of(&envelope, &index));
    assert_int_equal(ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY | ENVELOPE_NOTIFY_FAILURE,
                     index.notify);
    assert_false(index.is_notify_open);
    assert_comes_back(&envelope, &index);
    envelope.sender = SPAN_LITERAL("postmaster");
    assert_true(envelope_index_of(&envelope, &index));
    assert_int_equal(0, index.sender_domain.size);
    assert_false(index.is_null_sender);
    assert_comes_back(&envelope, &index);
    envelope.sender = (struct span){0};
    assert_true(envelope_index_of(&envelope, &index));
    assert_true(index.is_null_sender);
    assert_comes_back(&envelope, &index);
}

static void a_settled_recipient_means_no_index(void **state)
{
    struct envelope envelope = sample("ab");
    struct envelope_index index;

    (void)state;
    recipients[1].state = RECIPIENT_DELIVERED;
    assert_false(envelope_index_of(&envelope, &index));
}

/* As many domains, and runs, as are taken, and one more. */
static void counts_are_bounded_on_both_sides(void **state)
{
    char letters[RECIPIENTS_MAX + 1] = "";
    struct envelope_index index;

    (void)state;
    for (uint32_t i = 0; i <= ENVELOPE_INDEX_DELIVERY_MAX; i++)
        letters[i] = (char)('A' + i);
    struct envelope envelope = sample(letters);
    assert_false(envelope_index_of(&envelope, &index));
    envelope.recipient_count = ENVELOPE_INDEX_DELIVERY_MAX;
    assert_true(envelope_index_of(&envelope, &index));
    assert_comes_back(&envelope, &index);

    for (uint32_t i = 0; i <= ENVELOPE_INDEX_RUN_MAX; i++)
        letters[i] = (char)('a' + i % 2);
    envelope = sample(letters);
    assert_false(envelope_index_of(&envelope, &index));
    envelope.recipient_count = ENVELOPE_INDEX_RUN_MAX;
    assert_true(envelope_index_of(&envelope, &index));
    assert_comes_back(&envelope, &index);
}

static void size_is_bounded_on_both_sides(void **state)
{
    struct envelope envelope = sample("abcd");
    struct envelope_index index;

    (void)state;
    for (uint32_t i = 0; i < 4; i++) {
        memset(domains[i] + 9, 'x', ENVELOPE_DOMAIN_SIZE_MAX - 9);
        recipients[i].domain = span_of(domains[i], ENVELOPE_DOMAIN_SIZE_MAX);
    }
    assert_false(envelope_index_of(&envelope, &index));
    uint32_t excess = envelope_index_encoded_size(&index) - ENVELOPE_INDEX_SIZE_MAX;
    assert_in_range(excess, 1, 120);
    recipients[3].domain.size -= excess;
    assert_true(envelope_index_of(&envelope, &index));
    assert_int_equal(ENVELOPE_INDEX_SIZE_MAX, envelope_index_encoded_size(&index));
    assert_comes_back(&envelope, &index);
    recipients[3].domain.size++;
    assert_false(envelope_index_of(&envelope, &index));
}

static const struct hostile {
    const char *name, *octets;
    uint32_t size;
    enum err err;
} hostile[] = {
/* format, class, notify; flags, arrived, lifetime, body; pool, sender domain */
#define HEAD "\1\0\x40\0\7\5\3\0\1x"
#define ROW(name, octets, err)                                                                     \
    {                                                                                              \
        name, octets, sizeof(octets) - 1, err                                                      \
    }
    ROW("least", HEAD "\1\1a\1\0\1", ERR_OK),
    ROW("two deliveries", HEAD "\2\1a\1b\3\0\1\1\2\0\1", ERR_OK),
    ROW("another format", "\2\0\x40\0\7\5\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("unknown notify", "\1\0\x10\0\7\5\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("null sender with a domain", "\1\0\x80\0\7\5\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("number with a zero at its end", "\1\0\x40\x80\0\7\5\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("flags of 33 bits", "\1\0\x40\x80\x80\x80\x80\x20\7\5\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("flags of 32 bits", "\1\0\x40\x80\x80\x80\x80\x08\7\5\3\0\1x\1\1a\1\0\1", ERR_OK),
    ROW("arrived of 64 bits",
        "\1\0\x40\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\1\0\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("expires at the end of time",
        "\1\0\x40\0\xff\xff\xff\xff\xff\xff\xff\xff\x7f\0\3\0\1x\1\1a\1\0\1", ERR_OK),
    ROW("expires beyond the end of time",
        "\1\0\x40\0\xff\xff\xff\xff\xff\xff\xff\xff\x7f\1\3\0\1x\1\1a\1\0\1", ERR_DISK_CORRUPT),
    ROW("no delivery", HEAD "\0\0", ERR_DISK_CORRUPT),
    ROW("empty domain", HEAD "\1\0\1\0\1", ERR_DISK_CORRUPT),
    ROW("a domain twice", HEAD "\2\1a\1a\2\0\1\1\1", ERR_DISK_CORRUPT),
    ROW("no run", HEAD "\1\1a\0", ERR_DISK_CORRUPT),
    ROW("delivery without a run", HEAD "\2\1a\1b\1\0\1", ERR_DISK_CORRUPT),
    ROW("run of no recipient", HEAD "\1\1a\1\0\0", ERR_DISK_CORRUPT),
    ROW("run of an unknown delivery", HEAD "\1\1a\1\1\1", ERR_DISK_CORRUPT),
    ROW("first runs out of order", HEAD "\2\1a\1b\2\1\1\0\1", ERR_DISK_CORRUPT),
    ROW("one run in two", HEAD "\1\1a\2\0\1\0\1", ERR_DISK_CORRUPT),
    ROW("10,000 recipients", HEAD "\1\1a\1\0\x90\x4e", ERR_OK),
    ROW("10,001 recipients", HEAD "\1\1a\1\0\x91\x4e", ERR_DISK_CORRUPT),
    ROW("more behind it", HEAD "\1\1a\1\0\1\0", ERR_DISK_CORRUPT),
    ROW("nothing", "", ERR_DISK_CORRUPT),
};

static void hostile_octets_are_corrupt(void **state)
{
    struct envelope_index index;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(hostile); i++) {
        print_message("# %s\n", hostile[i].name);
        struct span octets = span_of(hostile[i].octets, hostile[i].size);
        assert_int_equal(hostile[i].err, envelope_index_decode(octets, id, &index));
    }
}

static void damage_is_refused_or_canonical(void **state)
{
    struct envelope envelope = sample("abcaab");
    struct envelope_index index, back;
    uint8_t encoded[ENVELOPE_INDEX_SIZE_MAX], again[ENVELOPE_INDEX_SIZE_MAX];

    (void)state;
    assert_true(envelope_index_of(&envelope, &index));
    uint32_t size = envelope_index_encoded_size(&index);
    envelope_index_encode(&index, encoded);
    for (uint32_t cut = 0; cut < size; cut++)
        assert_int_equal(ERR_DISK_CORRUPT, envelope_index_decode(span_of(encoded, cut), id, &back));
    for (uint32_t bit = 0; bit < size * 8; bit++) {
        encoded[bit / 8] ^= (uint8_t)(1u << bit % 8);
        if (envelope_index_decode(span_of(encoded, size), id, &back) == ERR_OK) {
            assert_int_equal(size, envelope_index_encoded_size(&back));
            envelope_index_encode(&back, again);
            assert_memory_equal(encoded, again, size);
        }
        encoded[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
}

static void index_is_made_of_an_encoded_envelope(void **state)
{
    struct envelope envelope = sample("aab");
    uint8_t octets[1024], made[ENVELOPE_INDEX_SIZE_MAX], expected[ENVELOPE_INDEX_SIZE_MAX];
    struct envelope_index index;
    struct arena arena;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    uint32_t size = envelope_encoded_size(&envelope);
    assert_true(size <= sizeof(octets));
    envelope_encode(&envelope, octets);
    assert_true(envelope_index_of(&envelope, &index));
    envelope_index_encode(&index, expected);
    uint32_t made_size = envelope_index_make(span_of(octets, size), &arena, made);
    assert_int_equal(envelope_index_encoded_size(&index), made_size);
    assert_memory_equal(expected, made, made_size);
    assert_int_equal(0, envelope_index_make(span_of(octets, size - 1), &arena, made));
    arena_fini(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(index_knows_each_recipients_delivery),
        cmocka_unit_test(index_gathers_what_senders_asked_for),
        cmocka_unit_test(a_settled_recipient_means_no_index),
        cmocka_unit_test(counts_are_bounded_on_both_sides),
        cmocka_unit_test(size_is_bounded_on_both_sides),
        cmocka_unit_test(hostile_octets_are_corrupt),
        cmocka_unit_test(damage_is_refused_or_canonical),
        cmocka_unit_test(index_is_made_of_an_encoded_envelope),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
