/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes: what is encoded comes back, what is damaged never comes back as valid, every bound
 * holds on both sides.
 */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/rng.h"
#include "queue/envelope.h"

#define SAMPLE_RECIPIENTS 3u

static struct envelope_recipient sample_recipients[SAMPLE_RECIPIENTS];

static struct envelope sample(void)
{
    sample_recipients[0] = (struct envelope_recipient){
        .address = SPAN_LITERAL("b@y.example"),
        .domain = SPAN_LITERAL("y.example"),
        .notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY,
    };
    sample_recipients[1] = (struct envelope_recipient){
        .address = SPAN_LITERAL("\"a@b\"@Z.Example"),
        .domain = SPAN_LITERAL("z.example"),
        .state = RECIPIENT_DELIVERED,
    };
    sample_recipients[2] = (struct envelope_recipient){
        .address = SPAN_LITERAL("postmaster"),
        .domain = SPAN_LITERAL("w.example"),
        .orcpt = SPAN_LITERAL("rfc822;Bob+2B@w.example"),
        .state = RECIPIENT_FAILED,
        .notify = ENVELOPE_NOTIFY_NEVER,
    };
    return (struct envelope){
        .id = {0x0123456789abcdefu, 0xfedcba9876543210u},
        .arrived = 1700000000000000,
        .expires = 1700432000000000,
        .body_size = 5000000000u,
        .header_size = 777,
        .flags = ENVELOPE_EIGHT_BIT | ENVELOPE_DOT_LINES | 1u << 31,
        .class = 9,
        .source_pool = SPAN_LITERAL("bulk"),
        .sender = SPAN_LITERAL("a@x.example"),
        .client = SPAN_LITERAL("mail.x.example [192.0.2.1]"),
        .envid = SPAN_LITERAL("QQ314159"),
        .recipients = sample_recipients,
        .recipient_count = SAMPLE_RECIPIENTS,
        .prefix = SPAN_LITERAL("DKIM-Signature: v=1;\r\n\tb=x\r\n"),
        .user = SPAN_LITERAL("alice"),
        .unknown = SPAN_LITERAL("\x80\x02\0\0\0hi\xff\0\0\0\0"),
    };
}

static uint8_t *encode(const struct envelope *envelope, uint32_t *ret_size)
{
    *ret_size = envelope_encoded_size(envelope);
    uint8_t *encoded = malloc(*ret_size);
    assert_non_null(encoded);
    envelope_encode(envelope, encoded);
    return encoded;
}

static void assert_span_equal(struct span expected, struct span actual)
{
    assert_int_equal(expected.size, actual.size);
    assert_true(span_is_equal(expected, actual));
}

static void assert_envelope_equal(const struct envelope *a, const struct envelope *b)
{
    assert_true(message_id_is_equal(a->id, b->id));
    assert_int_equal(a->arrived, b->arrived);
    assert_int_equal(a->expires, b->expires);
    assert_int_equal(a->body_size, b->body_size);
    assert_int_equal(a->header_size, b->header_size);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->class, b->class);
    assert_span_equal(a->source_pool, b->source_pool);
    assert_span_equal(a->sender, b->sender);
    assert_span_equal(a->client, b->client);
    assert_span_equal(a->envid, b->envid);
    assert_span_equal(a->user, b->user);
    assert_span_equal(a->prefix, b->prefix);
    assert_span_equal(a->unknown, b->unknown);
    assert_int_equal(a->recipient_count, b->recipient_count);
    for (uint32_t i = 0; i < a->recipient_count; i++) {
        assert_span_equal(a->recipients[i].address, b->recipients[i].address);
        assert_span_equal(a->recipients[i].domain, b->recipients[i].domain);
        assert_int_equal(a->recipients[i].state, b->recipients[i].state);
        assert_int_equal(a->recipients[i].notify, b->recipients[i].notify);
        assert_span_equal(a->recipients[i].orcpt, b->recipients[i].orcpt);
    }
}

static void decode_gives_back_what_was_encoded(void **state)
{
    struct envelope envelope = sample(), back;
    struct arena arena;
    uint32_t size;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    uint8_t *encoded = encode(&envelope, &size);
    assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
    assert_envelope_equal(&envelope, &back);
    struct envelope_basic basic = envelope_basic_get(encoded);
    assert_true(message_id_is_equal(envelope.id, basic.id));
    assert_int_equal(envelope.arrived, basic.arrived);
    assert_int_equal(envelope.expires, basic.expires);
    assert_int_equal(envelope.flags, basic.flags);
    assert_int_equal(envelope.class, basic.class);
    assert_int_equal(envelope.body_size, basic.body_size);
    assert_int_equal(envelope.header_size, basic.header_size);
    free(encoded);
    arena_fini(&arena);
}

/* Goal: the octets are those of the specification, so that another program can read them. */
static void encoding_is_as_specified(void **state)
{
    static const uint8_t expected[] = {
        1, 49, 0, 0, 0,                                                                /* BASIC */
        8, 7,  6, 5, 4, 3,   2,   1,   0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11, /* id */
        5, 0,  0, 0, 0, 0,   0,   0,   6,    1,    0,    0,    0,    0,    0,    0,    /* times */
        9, 0,  0, 0, 0, 0,   0,   0,   4,    0,    0,    0,    1,    0,    0,    0,
        2,                                                          /* sizes, flags */
        2, 3,  0, 0, 0, 'a', '@', 'x',                              /* SENDER */
        5, 6,  0, 0, 0, 0,   3,   0,   'b',  '@',  'y',             /* RECIPIENT, domain shown */
        5, 7,  0, 0, 0, 2,   3,   0,   'b',  '@',  'Y',  'y',       /* RECIPIENT, domain written */
        6, 2,  0, 0, 0, 'i', 'd',                                   /* ENVID */
        7, 8,  0, 0, 0, 1,   0,   0,   0,    12,   'u',  ';',  'b', /* RECIPIENT_DSN */
        8, 4,  0, 0, 0, 'A', ':', 13,  10,                          /* PREFIX */
        9, 2,  0, 0, 0, 'm', 'e',                                   /* USER */
    };
    struct envelope_recipient recipients[2] = {
        {.address = SPAN_LITERAL("b@y"), .domain = SPAN_LITERAL("y")},
        {.address = SPAN_LITERAL("b@Y"),
         .domain = SPAN_LITERAL("y"),
         .orcpt = SPAN_LITERAL("u;b"),
         .state = RECIPIENT_FAILED,
         .notify = ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY},
    };
    struct envelope envelope = {
        .id = {0x0102030405060708u, 0x1112131415161718u},
        .arrived = 5,
        .expires = 262,
        .body_size = 9,
        .header_size = 4,
        .flags = 1,
        .class = 2,
        .sender = SPAN_LITERAL("a@x"),
        .envid = SPAN_LITERAL("id"),
        .prefix = SPAN_LITERAL("A:\r\n"),
        .user = SPAN_LITERAL("me"),
        .recipients = recipients,
        .recipient_count = 2,
    };
    uint32_t size;

    (void)state;
    uint8_t *encoded = encode(&envelope, &size);
    assert_int_equal(sizeof(expected), size);
    assert_memory_equal(expected, encoded, size);
    free(encoded);
}

static void patches_change_only_what_they_name(void **state)
{
    struct envelope envelope = sample(), back;
    struct arena arena;
    uint32_t size;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    uint8_t *encoded = encode(&envelope, &size);
    assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
    envelope_patch_state(encoded, &back.recipients[2], RECIPIENT_SETTLED);
    assert_int_equal(RECIPIENT_SETTLED, back.recipients[2].state);
    envelope_patch_flags(encoded, envelope.flags | ENVELOPE_IN_DOUBT);
    sample_recipients[2].state = RECIPIENT_SETTLED;
    envelope.flags |= ENVELOPE_IN_DOUBT;
    assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
    assert_envelope_equal(&envelope, &back);
    free(encoded);
    arena_fini(&arena);
}

/* Goal: no prefix of an envelope that ends inside a TLV is an envelope. */
static void truncation_is_corrupt(void **state)
{
    struct envelope envelope = sample(), back;
    struct arena arena;
    uint32_t size, valid = 0;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    uint8_t *encoded = encode(&envelope, &size);
    for (uint32_t cut = 0; cut < size; cut++) {
        uint8_t *copy = malloc(cut + 1); /* exact, so that an overrun is seen */
        memcpy(copy, encoded, cut);
        enum err err = envelope_decode(span_of(copy, cut), &arena, &back);
        assert_true(err == ERR_OK || err == ERR_DISK_CORRUPT);
        valid += err == ERR_OK;
        free(copy);
        arena_reset(&arena);
    }
    /* After each recipient, the ENVID, what was said of two recipients, the prefix, the user, and
     * between the two unknown TLVs. */
    assert_int_equal(SAMPLE_RECIPIENTS + 6, valid);
    free(encoded);
    arena_fini(&arena);
}

/* Goal: damage gives an error or an envelope that encodes to the very octets it was read from. */
static void damage_is_refused_or_canonical(void **state)
{
    struct envelope envelope = sample(), back;
    struct arena arena;
    struct rng rng;
    uint32_t size, refused = 0;

    (void)state;
    rng_init_seed(&rng, 7);
    arena_init(&arena, 512, 1u << 20);
    uint8_t *encoded = encode(&envelope, &size), *copy = malloc(size), *again = malloc(size);
    for (uint32_t round = 0; round < 20000; round++) {
        memcpy(copy, encoded, size);
        for (uint32_t i = 0; i <= round % 3; i++)
            copy[rng_below(&rng, size)] ^= (uint8_t)(1u << rng_below(&rng, 8));
        arena_reset(&arena);
        if (envelope_decode(span_of(copy, size), &arena, &back) != ERR_OK) {
            refused++;
            continue;
        }
        assert_int_equal(size, envelope_encoded_size(&back));
        envelope_encode(&back, again);
        assert_memory_equal(copy, again, size);
    }
    assert_true(refused > 1000);
    free(encoded);
    free(copy);
    free(again);
    arena_fini(&arena);
}

static struct span random_text(struct rng *rng, uint8_t *room, uint32_t size_min, uint32_t size_max)
{
    uint32_t size = size_min + rng_below(rng, size_max - size_min + 1);
    for (uint32_t i = 0; i < size; i++)
        room[i] = (uint8_t)("ab.@\x80\xff \t-"[rng_below(rng, 9)]);
    return span_of(room, size);
}

static void random_envelopes_come_back(void **state)
{
    static uint8_t room[8][1200], envid[1200], user[1200], orcpt[8][1200];
    struct envelope_recipient recipients[5];
    struct arena arena;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 8);
    arena_init(&arena, 256, 1u << 20);
    for (uint32_t round = 0; round < 3000; round++) {
        struct envelope envelope =
                            {
                                .id = {rng_u64(&rng), rng_u64(&rng)},
                                .arrived = (wall_us)(rng_u64(&rng) >> 3),
                                .body_size = rng_u64(&rng) | UINT32_MAX,
                                .header_size = rng_u32(&rng),
                                .flags = rng_u32(&rng),
                                .class = (uint8_t)rng_u32(&rng),
                                .source_pool =
                                    random_text(&rng, room[0], 0, ENVELOPE_POOL_SIZE_MAX),
                                .sender = random_text(&rng, room[1], 0, ENVELOPE_ADDRESS_SIZE_MAX),
                                .client = random_text(&rng, room[2], 0, ENVELOPE_CLIENT_SIZE_MAX),
                                .envid = random_text(&rng, envid, 0, ENVELOPE_ENVID_SIZE_MAX),
                                .user = random_text(&rng, user, 0, ENVELOPE_USER_SIZE_MAX),
                                .recipients = recipients,
                                .recipient_count = 1 + rng_below(&rng, COUNT_OF(recipients)),
                            },
                        back;
        envelope.expires = envelope.arrived + rng_u32(&rng);
        for (uint32_t i = 0; i < envelope.recipient_count; i++) {
            recipients[i] = (struct envelope_recipient){
                .address = random_text(&rng, room[3 + i], 1, i < 2 ? 6 : ENVELOPE_ADDRESS_SIZE_MAX),
                .domain =
                    random_text(&rng, room[3 + i] + 600, 1, i < 2 ? 3 : ENVELOPE_DOMAIN_SIZE_MAX),
                .orcpt = random_text(&rng, orcpt[i], 0, i < 2 ? 1 : ENVELOPE_ORCPT_SIZE_MAX),
                .state = (enum recipient_state)rng_below(&rng, RECIPIENT_STATE_COUNT),
                .notify = (uint8_t)(rng_below(&rng, 8) == 0 ? ENVELOPE_NOTIFY_NEVER
                                                            : 2 * rng_below(&rng, 8)),
            };
        }
        uint32_t size;
        assert_true(envelope_is_valid(&envelope));
        uint8_t *encoded = encode(&envelope, &size);
        arena_reset(&arena);
        assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
        assert_envelope_equal(&envelope, &back);
        free(encoded);
    }
    arena_fini(&arena);
}

/* ---- bounds ---- */

static uint8_t long_text[ENVELOPE_SIZE_MAX];

enum bound_field { SENDER, CLIENT, POOL, ADDRESS, DOMAIN, ENVID, ORCPT, USER };

static void text_bounds_hold_on_both_sides(void **state)
{
    static const struct {
        const char *name;
        enum bound_field field;
        uint32_t size;
        const char *odd; /* octet put into the text, NULL: none */
        bool is_valid;
    } rows[] = {
        {"null sender", SENDER, 0, NULL, true},
        {"longest sender", SENDER, ENVELOPE_ADDRESS_SIZE_MAX, NULL, true},
        {"sender too long", SENDER, ENVELOPE_ADDRESS_SIZE_MAX + 1, NULL, false},
        {"sender with CR", SENDER, 9, "\r", false},
        {"no client", CLIENT, 0, NULL, true},
        {"longest client", CLIENT, ENVELOPE_CLIENT_SIZE_MAX, NULL, true},
        {"client too long", CLIENT, ENVELOPE_CLIENT_SIZE_MAX + 1, NULL, false},
        {"client with LF", CLIENT, 9, "\n", false},
        {"longest ENVID", ENVID, ENVELOPE_ENVID_SIZE_MAX, NULL, true},
        {"ENVID too long", ENVID, ENVELOPE_ENVID_SIZE_MAX + 1, NULL, false},
        {"ENVID with LF", ENVID, 9, "\n", false},
        {"longest ORCPT", ORCPT, ENVELOPE_ORCPT_SIZE_MAX, NULL, true},
        {"ORCPT too long", ORCPT, ENVELOPE_ORCPT_SIZE_MAX + 1, NULL, false},
        {"ORCPT with CR", ORCPT, 9, "\r", false},
        {"nobody", USER, 0, NULL, true},
        {"longest user", USER, ENVELOPE_USER_SIZE_MAX, NULL, true},
        {"user too long", USER, ENVELOPE_USER_SIZE_MAX + 1, NULL, false},
        {"user with LF", USER, 9, "\n", false},
        {"default pool", POOL, 0, NULL, true},
        {"longest pool", POOL, ENVELOPE_POOL_SIZE_MAX, NULL, true},
        {"pool too long", POOL, ENVELOPE_POOL_SIZE_MAX + 1, NULL, false},
        {"empty address", ADDRESS, 0, NULL, false},
        {"shortest address", ADDRESS, 1, NULL, true},
        {"longest address", ADDRESS, ENVELOPE_ADDRESS_SIZE_MAX, NULL, true},
        {"address too long", ADDRESS, ENVELOPE_ADDRESS_SIZE_MAX + 1, NULL, false},
        {"address with LF", ADDRESS, 9, "\n", false},
        {"address with NUL", ADDRESS, 9, "", false},
        {"address with DEL", ADDRESS, 9, "\x7f", true},
        {"empty domain", DOMAIN, 0, NULL, false},
        {"shortest domain", DOMAIN, 1, NULL, true},
        {"longest domain", DOMAIN, ENVELOPE_DOMAIN_SIZE_MAX, NULL, true},
        {"domain too long", DOMAIN, ENVELOPE_DOMAIN_SIZE_MAX + 1, NULL, false},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct envelope envelope = sample();
        struct span *fields[] = {&envelope.sender,
                                 &envelope.client,
                                 &envelope.source_pool,
                                 &sample_recipients[1].address,
                                 &sample_recipients[1].domain,
                                 &envelope.envid,
                                 &sample_recipients[1].orcpt,
                                 &envelope.user};
        memset(long_text, 'a', sizeof(long_text));
        if (rows[i].odd != NULL)
            long_text[4] = (uint8_t)rows[i].odd[0];
        *fields[rows[i].field] = span_of(long_text, rows[i].size);
        if (envelope_is_valid(&envelope) != rows[i].is_valid)
            fail_msg("%s", rows[i].name);
    }
}

/* Goal: whatever a damaged disk says, the prefix means the same in every way of sending it. */
static void prefix_is_whole_lines(void **state)
{
    static const struct {
        const char *name;
        struct span prefix;
        bool is_valid;
    } rows[] = {
        {"none", SPAN_LITERAL(""), true},
        {"a field", SPAN_LITERAL("A: b\r\n"), true},
        {"folded", SPAN_LITERAL("A: b\r\n c\r\n\td\r\n"), true},
        {"two", SPAN_LITERAL("A: b\r\nB: c~\r\n"), true},
        {"no end", SPAN_LITERAL("A: b"), false},
        {"half an end", SPAN_LITERAL("A: b\r"), false},
        {"LF alone", SPAN_LITERAL("A: b\n"), false},
        {"CR alone", SPAN_LITERAL("A:\rb\r\n"), false},
        {"an empty line", SPAN_LITERAL("A: b\r\n\r\n"), false},
        {"only an empty line", SPAN_LITERAL("\r\n"), false},
        {"a dot", SPAN_LITERAL("A: b\r\n.\r\n"), false},
        {"a dot inside", SPAN_LITERAL("A: .b\r\n .\r\n"), true},
        {"folded at first", SPAN_LITERAL(" b\r\n"), false},
        {"NUL", SPAN_LITERAL("A: \0\r\n"), false},
        {"an octet above 127", SPAN_LITERAL("A: \x80\r\n"), false},
        {"DEL", SPAN_LITERAL("A: \x7f\r\n"), false},
    };
    static uint8_t text[ENVELOPE_PREFIX_SIZE_MAX + 1];
    struct envelope envelope = sample();

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        envelope.prefix = rows[i].prefix;
        if (envelope_is_valid(&envelope) != rows[i].is_valid)
            fail_msg("%s", rows[i].name);
    }
    envelope.header_size = sizeof(text);
    for (uint32_t excess = 0; excess < 2; excess++) {
        uint32_t size = ENVELOPE_PREFIX_SIZE_MAX + excess;
        memset(text, 'a', sizeof(text));
        memcpy(text + size - 2, "\r\n", 2);
        envelope.prefix = span_of(text, size);
        assert_int_equal(excess == 0, envelope_is_valid(&envelope));
    }
}

static void number_bounds_hold_on_both_sides(void **state)
{
    struct envelope envelope = sample();

    (void)state;
    envelope.expires = envelope.arrived;
    assert_true(envelope_is_valid(&envelope));
    envelope.expires = envelope.arrived - 1;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    envelope.arrived = 0;
    assert_true(envelope_is_valid(&envelope));
    envelope.arrived = -1;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    envelope.header_size = envelope.prefix.size;
    assert_true(envelope_is_valid(&envelope));
    assert_int_equal(envelope.body_size - envelope.header_size, envelope_stored_size(&envelope));
    envelope.header_size--;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    envelope.body_size = envelope.header_size;
    assert_true(envelope_is_valid(&envelope));
    envelope.body_size--;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    sample_recipients[0].state = RECIPIENT_STATE_COUNT;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    envelope.recipient_count = 0;
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    envelope.unknown = SPAN_LITERAL("\x09\0\0\0\0"); /* a known type among the unknown */
    assert_false(envelope_is_valid(&envelope));
    envelope.unknown = SPAN_LITERAL("\x80\x01\0\0\0"); /* cut */
    assert_false(envelope_is_valid(&envelope));
    envelope = sample();
    sample_recipients[0].notify = ENVELOPE_NOTIFY_NEVER | ENVELOPE_NOTIFY_DELAY;
    assert_false(envelope_is_valid(&envelope));
    sample_recipients[0].notify = 2 * ENVELOPE_NOTIFY_DELAY;
    assert_false(envelope_is_valid(&envelope));
    sample_recipients[0].notify = 2 * ENVELOPE_NOTIFY_DELAY - 2;
    assert_true(envelope_is_valid(&envelope));
}

static void recipient_count_is_bounded(void **state)
{
    static struct envelope_recipient many[ENVELOPE_RECIPIENT_MAX + 1];
    struct envelope envelope = sample(), back;
    struct arena arena;
    uint32_t size;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    for (uint32_t i = 0; i < COUNT_OF(many); i++)
        many[i] = (struct envelope_recipient){.address = SPAN_LITERAL("b@y"),
                                              .domain = SPAN_LITERAL("y")};
    envelope.recipients = many;
    envelope.recipient_count = ENVELOPE_RECIPIENT_MAX;
    envelope.envid = (struct span){NULL, 0}; /* recipients last */
    envelope.user = (struct span){NULL, 0};
    envelope.unknown = (struct span){NULL, 0};
    assert_true(envelope_is_valid(&envelope));
    uint8_t *encoded = encode(&envelope, &size);
    assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
    assert_int_equal(ENVELOPE_RECIPIENT_MAX, back.recipient_count);

    /* One more, written by hand: the encoder would not. */
    uint8_t *more = malloc(size + 11);
    memcpy(more, encoded, size);
    memcpy(more + size, "\x05\x06\0\0\0\0\x03\0b@y", 11);
    assert_int_equal(ERR_DISK_CORRUPT, envelope_decode(span_of(more, size + 11), &arena, &back));
    envelope.recipient_count = ENVELOPE_RECIPIENT_MAX + 1;
    assert_false(envelope_is_valid(&envelope));
    free(encoded);
    free(more);
    arena_fini(&arena);
}

static void encoded_size_is_bounded(void **state)
{
    struct envelope envelope = sample(), back;
    struct arena arena;
    uint32_t size;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    memset(long_text, 'u', sizeof(long_text));
    envelope.unknown = (struct span){NULL, 0};
    uint32_t room = ENVELOPE_SIZE_MAX - envelope_encoded_size(&envelope);
    uint32_t value = room - 5;
    memcpy(long_text, "\xe3", 1);
    memcpy(long_text + 1, &value, 4);
    envelope.unknown = span_of(long_text, room);
    assert_true(envelope_is_valid(&envelope));
    uint8_t *encoded = encode(&envelope, &size);
    assert_int_equal(ENVELOPE_SIZE_MAX, size);
    assert_int_equal(ERR_OK, envelope_decode(span_of(encoded, size), &arena, &back));
    value++;
    memcpy(long_text + 1, &value, 4);
    envelope.unknown = span_of(long_text, room + 1);
    assert_false(envelope_is_valid(&envelope));
    free(encoded);

    /* What the decoder cannot hold is a lack of memory, not damage. */
    struct arena small;
    arena_init(&small, 16, 64);
    envelope = sample();
    encoded = encode(&envelope, &size);
    assert_int_equal(ERR_MEMORY, envelope_decode(span_of(encoded, size), &small, &back));
    free(encoded);
    arena_fini(&small);
    arena_fini(&arena);
}

static void hostile_envelopes_are_corrupt(void **state)
{
#define BASIC                                                                                      \
    "\x01\x31\0\0\0"                                                                               \
    "12345678abcdefgh"                                                                             \
    "\1\0\0\0\0\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
#define RECIPIENT "\x05\x06\0\0\0\0\x03\0b@y"
    static const struct {
        const char *name;
        struct span encoded;
        enum err err;
    } rows[] = {
        {"smallest", SPAN_LITERAL(BASIC RECIPIENT), ERR_OK},
        {"empty", SPAN_LITERAL(""), ERR_DISK_CORRUPT},
        {"no recipient", SPAN_LITERAL(BASIC), ERR_DISK_CORRUPT},
        {"no basic", SPAN_LITERAL(RECIPIENT), ERR_DISK_CORRUPT},
        {"basic twice", SPAN_LITERAL(BASIC BASIC RECIPIENT), ERR_DISK_CORRUPT},
        {"basic last", SPAN_LITERAL(RECIPIENT BASIC), ERR_DISK_CORRUPT},
        {"sender twice", SPAN_LITERAL(BASIC "\x02\1\0\0\0a\x02\1\0\0\0a" RECIPIENT),
         ERR_DISK_CORRUPT},
        {"sender behind client", SPAN_LITERAL(BASIC "\x03\1\0\0\0a\x02\1\0\0\0a" RECIPIENT),
         ERR_DISK_CORRUPT},
        {"sender behind recipient", SPAN_LITERAL(BASIC RECIPIENT "\x02\1\0\0\0a"),
         ERR_DISK_CORRUPT},
        {"empty sender written", SPAN_LITERAL(BASIC "\x02\0\0\0\0" RECIPIENT), ERR_DISK_CORRUPT},
        {"type 0", SPAN_LITERAL(BASIC "\0\0\0\0\0" RECIPIENT), ERR_DISK_CORRUPT},
        {"unknown before recipient", SPAN_LITERAL(BASIC "\x80\0\0\0\0" RECIPIENT),
         ERR_DISK_CORRUPT},
        {"unknown last", SPAN_LITERAL(BASIC RECIPIENT "\x80\0\0\0\0"), ERR_OK},
        {"unknown, and to be understood", SPAN_LITERAL(BASIC RECIPIENT "\x0a\0\0\0\0"),
         ERR_DISK_CORRUPT},
        {"the last that is to be understood", SPAN_LITERAL(BASIC RECIPIENT "\x7f\0\0\0\0"),
         ERR_DISK_CORRUPT},
        {"one to be understood behind others",
         SPAN_LITERAL(BASIC RECIPIENT "\x80\0\0\0\0\x0a\0\0\0\0"), ERR_DISK_CORRUPT},
        {"length 2^32 - 1", SPAN_LITERAL(BASIC RECIPIENT "\x80\xff\xff\xff\xff"), ERR_DISK_CORRUPT},
        {"prefix of nothing", SPAN_LITERAL(BASIC RECIPIENT "\x08\0\0\0\0"), ERR_DISK_CORRUPT},
        {"prefix beyond the header", SPAN_LITERAL(BASIC RECIPIENT "\x08\4\0\0\0A:\r\n"),
         ERR_DISK_CORRUPT},
        {"prefix before ENVID", SPAN_LITERAL(BASIC RECIPIENT "\x08\4\0\0\0A:\r\n\x06\1\0\0\0a"),
         ERR_DISK_CORRUPT},
        {"ENVID", SPAN_LITERAL(BASIC RECIPIENT "\x06\1\0\0\0a"), ERR_OK},
        {"ENVID of nothing", SPAN_LITERAL(BASIC RECIPIENT "\x06\0\0\0\0"), ERR_DISK_CORRUPT},
        {"ENVID twice", SPAN_LITERAL(BASIC RECIPIENT "\x06\1\0\0\0a\x06\1\0\0\0a"),
         ERR_DISK_CORRUPT},
        {"NOTIFY", SPAN_LITERAL(BASIC RECIPIENT "\x07\5\0\0\0\0\0\0\0\1"), ERR_OK},
        {"NOTIFY of 5 octets less 1", SPAN_LITERAL(BASIC RECIPIENT "\x07\4\0\0\0\0\0\0\0"),
         ERR_DISK_CORRUPT},
        {"NOTIFY that says nothing", SPAN_LITERAL(BASIC RECIPIENT "\x07\5\0\0\0\0\0\0\0\0"),
         ERR_DISK_CORRUPT},
        {"NOTIFY with NEVER and more", SPAN_LITERAL(BASIC RECIPIENT "\x07\5\0\0\0\0\0\0\0\3"),
         ERR_DISK_CORRUPT},
        {"NOTIFY of nobody", SPAN_LITERAL(BASIC RECIPIENT "\x07\5\0\0\0\1\0\0\0\1"),
         ERR_DISK_CORRUPT},
        {"NOTIFY twice",
         SPAN_LITERAL(BASIC RECIPIENT "\x07\5\0\0\0\0\0\0\0\1\x07\5\0\0\0\0\0\0\0\1"),
         ERR_DISK_CORRUPT},
        {"ORCPT with LF", SPAN_LITERAL(BASIC RECIPIENT "\x07\6\0\0\0\0\0\0\0\0\n"),
         ERR_DISK_CORRUPT},
        {"domain written though shown", SPAN_LITERAL(BASIC "\x05\x07\0\0\0\0\x03\0b@yy"),
         ERR_DISK_CORRUPT},
        {"domain written", SPAN_LITERAL(BASIC "\x05\x07\0\0\0\0\x03\0b@Yy"), ERR_OK},
        {"no domain at all", SPAN_LITERAL(BASIC "\x05\x04\0\0\0\0\x01\0b"), ERR_DISK_CORRUPT},
        {"domain empty behind @", SPAN_LITERAL(BASIC "\x05\x05\0\0\0\0\x02\0b@"), ERR_DISK_CORRUPT},
        {"address longer than value", SPAN_LITERAL(BASIC "\x05\x06\0\0\0\0\x04\0b@y"),
         ERR_DISK_CORRUPT},
        {"address of nothing", SPAN_LITERAL(BASIC "\x05\x06\0\0\0\0\0\0b@y"), ERR_DISK_CORRUPT},
        {"state 4", SPAN_LITERAL(BASIC "\x05\x06\0\0\0\x04\x03\0b@y"), ERR_OK},
        {"state 5", SPAN_LITERAL(BASIC "\x05\x06\0\0\0\x05\x03\0b@y"), ERR_DISK_CORRUPT},
        {"short recipient", SPAN_LITERAL(BASIC "\x05\x02\0\0\0\0\x03"), ERR_DISK_CORRUPT},
        {"LF in address", SPAN_LITERAL(BASIC "\x05\x06\0\0\0\0\x03\0\n@y"), ERR_DISK_CORRUPT},
    };
    struct arena arena;
    struct envelope back;

    (void)state;
    arena_init(&arena, 512, 1u << 20);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        if (envelope_decode(rows[i].encoded, &arena, &back) != rows[i].err)
            fail_msg("%s", rows[i].name);
    }
    arena_fini(&arena);
}

/* The encoder refuses by CHECK: a child dies of it. */
static void encoder_checks_its_input(void **state)
{
    struct envelope envelope = sample();
    int status;

    (void)state;
    envelope.recipient_count = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        static uint8_t octets[1024];
        close(STDERR_FILENO);
        signal(SIGABRT, SIG_DFL);
        envelope_encode(&envelope, octets);
        _exit(0);
    }
    assert_int_equal(child, waitpid(child, &status, 0));
    assert_true(WIFSIGNALED(status));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_gives_back_what_was_encoded),
        cmocka_unit_test(encoding_is_as_specified),
        cmocka_unit_test(patches_change_only_what_they_name),
        cmocka_unit_test(truncation_is_corrupt),
        cmocka_unit_test(damage_is_refused_or_canonical),
        cmocka_unit_test(random_envelopes_come_back),
        cmocka_unit_test(text_bounds_hold_on_both_sides),
        cmocka_unit_test(prefix_is_whole_lines),
        cmocka_unit_test(number_bounds_hold_on_both_sides),
        cmocka_unit_test(recipient_count_is_bounded),
        cmocka_unit_test(encoded_size_is_bounded),
        cmocka_unit_test(hostile_envelopes_are_corrupt),
        cmocka_unit_test(encoder_checks_its_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
