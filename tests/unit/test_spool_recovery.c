/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a start finds on a real directory: the same messages with and without envelopes, by one
 * thread or several, at once or in slices; a spool that the version before wrote; and a segment is
 * not used again while a start is still taking its messages.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <poll.h>

#include "queue/crew.h"
#include "queue/envelope_index.h"
#include "queue/spool_recovery.h"

#define SEGMENT_SIZE (128u << 10)
#define MESSAGES     400u

struct found { /* of a message */
    uint32_t count;
    bool has_envelope, has_index;
    uint32_t progress, attempts;
    uint64_t body_size;
};

struct fixture {
    char path[64];
    struct disk *disk;
    struct spool *spool;
    struct buf_pool *pool;
    struct rng rng;
    struct spool_entry *entries[MESSAGES];
    uint32_t commits, steps;
    struct found found[MESSAGES];
    struct arena arena;
};

static struct tick_now now(void)
{
    return tick_now_read(tick_source_system());
}

__attribute__((format(printf, 1, 2))) static void shell(const char *format, ...)
{
    char command[400];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(command, sizeof(command), format, arguments);
    va_end(arguments);
    assert_int_equal(0, system(command));
}

static void open_spool(struct fixture *fixture)
{
    assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &fixture->disk));
    struct spool_options options = {
        .segment_size = SEGMENT_SIZE,
        .size_max = 200ull * SEGMENT_SIZE,
        .reserve_size = SEGMENT_SIZE,
        .segment_spare_min = 1,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_MS(5),
        .pool = fixture->pool,
    };
    assert_int_equal(ERR_OK, spool_epoch_next(fixture->disk, &options.epoch));
    assert_int_equal(ERR_OK,
                     spool_new(&options, fixture->disk, &fixture->rng, now(), &fixture->spool));
}

static struct fixture *fixture_new(void)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    snprintf(fixture->path, sizeof(fixture->path), "/tmp/angarium-test-recovery-XXXXXX");
    assert_non_null(mkdtemp(fixture->path));
    rng_init_seed(&fixture->rng, 1);
    fixture->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 4096, .count_max = 5000, .backing = BUF_BACKING_HEAP});
    arena_init(&fixture->arena, 4096, 1u << 20);
    return fixture;
}

static void turn(struct fixture *fixture)
{
    struct spool_event events[8];
    uint32_t count = spool_poll(fixture->spool, now(), events, 8);
    for (uint32_t i = 0; i < count; i++) {
        assert_int_equal(ERR_OK, events[i].err);
        if (events[i].kind == SPOOL_EVENT_COMMITTED)
            fixture->entries[events[i].token] = events[i].entry;
        buf_queue_fini(&events[i].octets);
        fixture->commits++;
    }
    struct pollfd event = {.fd = disk_eventfd(fixture->disk), .events = POLLIN};
    if (count == 0)
        poll(&event, 1, 1);
}

static void close_spool(struct fixture *fixture)
{
    spool_flush(fixture->spool);
    for (uint32_t i = 0; i < 10000 && !spool_is_idle(fixture->spool); i++)
        turn(fixture);
    assert_true(spool_is_idle(fixture->spool));
    spool_free(fixture->spool);
    disk_free(fixture->disk);
}

static void fixture_free(struct fixture *fixture)
{
    shell("rm -r %s", fixture->path);
    buf_pool_free(fixture->pool);
    arena_fini(&fixture->arena);
    free(fixture);
}

/* ---- messages ---- */

static uint32_t body_size(uint32_t key)
{
    return key % 50 == 7 ? 40000 + key : key * 37 % 3000; /* some of several records */
}

static uint32_t attempts_of(uint32_t key)
{
    return key % 4;
}

static bool is_finished(uint32_t key)
{
    return key % 5 == 3;
}

/* Every tenth has more domains than an index takes. */
static uint32_t recipients_of(uint32_t key)
{
    return key % 10 == 9 ? ENVELOPE_INDEX_DELIVERY_MAX + 1 : 1 + key % 3;
}

static struct envelope envelope_of(uint32_t key, struct arena *arena)
{
    uint32_t count = recipients_of(key);
    struct envelope envelope = {
        .id = {1000 + key, key},
        .arrived = 1000 + key,
        .expires = 1000000 + key,
        .body_size = body_size(key),
        .sender = SPAN_LITERAL("a@sender.example"),
        .client = SPAN_LITERAL("client.example [192.0.2.1]"),
        .recipients = arena_acquire(arena, count * sizeof(*envelope.recipients)),
        .recipient_count = count,
    };
    for (uint32_t i = 0; i < count; i++) {
        char text[64];
        snprintf(text, sizeof(text), "user%u@d%u-%u.example", key, key % 7, i);
        struct span address = arena_copy(arena, span_from_text(text));
        uint32_t local = (uint32_t)(strchr(text, '@') - text) + 1;
        envelope.recipients[i] =
            (struct envelope_recipient){.address = address, .domain = span_skip(address, local)};
    }
    return envelope;
}

static struct span encoded_of(struct fixture *fixture, uint32_t key)
{
    arena_reset(&fixture->arena);
    struct envelope envelope = envelope_of(key, &fixture->arena);
    uint32_t size = envelope_encoded_size(&envelope);
    uint8_t *octets = arena_acquire(&fixture->arena, size);
    envelope_encode(&envelope, octets);
    return span_of(octets, size);
}

static void enter(struct fixture *fixture, uint32_t key)
{
    struct buf_queue body;
    uint32_t size = body_size(key);
    struct spool_transaction *transaction =
        spool_begin(fixture->spool, (struct message_id){1000 + key, key}, size, false);
    assert_non_null(transaction);
    buf_queue_init(&body);
    while (size > 0) {
        struct buf *buf = buf_acquire(fixture->pool);
        uint32_t slice = size < 4096 ? size : 4096;
        memset(buf_data(buf), (int)key, slice);
        buf_extend(buf, slice);
        buf_queue_append(&body, buf, BUF_HEADROOM, slice);
        buf_release(buf);
        size -= slice;
    }
    assert_int_equal(ERR_OK, spool_write_body(fixture->spool, transaction, &body));
    buf_queue_fini(&body);
    spool_commit(fixture->spool, transaction, encoded_of(fixture, key), key);
}

static void attempt(struct fixture *fixture, uint32_t key, uint32_t attempts)
{
    uint8_t octets[200];
    struct envelope_progress progress = {
        .next_try = 5000, .attempts = attempts, .last_reply = SPAN_LITERAL("451 4.7.1 later")};
    envelope_progress_encode(&progress, octets);
    spool_progress(fixture->spool, fixture->entries[key],
                   span_of(octets, envelope_progress_encoded_size(&progress)));
}

static void fill(struct fixture *fixture)
{
    open_spool(fixture);
    for (uint32_t key = 0; key < MESSAGES; key++) {
        enter(fixture, key);
        while (fixture->commits <= key)
            turn(fixture);
        for (uint32_t i = 1; i <= attempts_of(key); i++)
            attempt(fixture, key, i);
        if (is_finished(key))
            spool_done(fixture->spool, fixture->entries[key]);
    }
    close_spool(fixture);
}

/* ---- what is found ---- */

static void check_index(struct fixture *fixture, uint32_t key, struct span octets)
{
    struct envelope_index index;
    arena_reset(&fixture->arena);
    struct envelope envelope = envelope_of(key, &fixture->arena);
    assert_int_equal(ERR_OK, envelope_index_decode(octets, envelope.id, &index));
    assert_int_equal(envelope.arrived, index.arrived);
    assert_int_equal(envelope.expires, index.expires);
    assert_int_equal(envelope.recipient_count, index.delivery_count);
    assert_true(span_is_equal(envelope.recipients[0].domain, index.deliveries[0].domain));
}

static void on_message(void *context, const struct spool_recovered *message)
{
    struct fixture *fixture = context;
    struct message_id id = spool_entry_id(message->entry);
    uint32_t key = (uint32_t)id.low;
    assert_in_range(key, 0, MESSAGES - 1);
    struct found *found = &fixture->found[key];
    found->count++;
    found->has_envelope = message->envelope.size > 0;
    found->has_index = message->index.size > 0;
    found->progress = message->progress_count;
    found->body_size = spool_entry_body_size(message->entry);
    if (found->has_envelope)
        assert_true(span_is_equal(encoded_of(fixture, key), message->envelope));
    if (found->has_index)
        check_index(fixture, key, message->index);
    if (message->progress_count > 0) {
        struct envelope_progress progress;
        arena_reset(&fixture->arena);
        assert_int_equal(
            ERR_OK, envelope_progress_decode(message->progress[0], &fixture->arena, &progress));
        found->attempts = progress.attempts;
    }
    fixture->entries[key] = message->entry;
}

/* The rows of a segment go with the last message that needs them. */
static void check_rows_are_gone(const struct spool_recovery *recovery)
{
    uint32_t gone = 0;

    for (uint32_t i = 0; i < recovery->segment_count; i++) {
        assert_int_equal(0, recovery->segments[i].wanted);
        gone += recovery->segments[i].row_count > 0 && recovery->segments[i].rows == NULL;
    }
    assert_true(gone > 0);
}

static void recover(struct fixture *fixture, const struct spool_recovery_options *options,
                    uint32_t slice)
{
    struct disk *disk;
    struct spool_recovery *recovery;
    memset(fixture->found, 0, sizeof(fixture->found));
    open_spool(fixture);
    assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &disk));
    assert_int_equal(ERR_OK, spool_recovery_run(disk, options, &recovery));
    struct spool_adoption *adoption = spool_adoption_new(recovery, fixture->spool, 0, 1);
    for (fixture->steps = 1; spool_adoption_step(adoption, slice, on_message, fixture);)
        fixture->steps++;
    assert_false(spool_adoption_step(adoption, slice, on_message, fixture));
    spool_adoption_free(adoption);
    check_rows_are_gone(recovery);
    spool_recovery_free(recovery);
    disk_free(disk);
}

static void test_all_ways_find_the_same(void **state)
{
    static const struct row {
        const char *name;
        struct spool_recovery_options options;
        uint32_t slice;
    } rows[] = {
        {"one thread, envelopes", {.threads = 1, .has_envelopes = true}, UINT32_MAX},
        {"one thread", {.threads = 1}, UINT32_MAX},
        {"two threads, slices of one", {.threads = 2}, 1},
        {"four threads, slices of seven", {.threads = 4}, 7},
        {"most threads, envelopes", {.threads = CREW_SIZE_MAX, .has_envelopes = true}, 64},
    };
    (void)state;
    struct fixture *fixture = fixture_new();
    fill(fixture);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint32_t unread = 0;
        print_message("# %s\n", rows[i].name);
        recover(fixture, &rows[i].options, rows[i].slice);
        for (uint32_t key = 0; key < MESSAGES; key++) {
            const struct found *found = &fixture->found[key];
            assert_int_equal(!is_finished(key), found->count);
            if (is_finished(key))
                continue;
            assert_int_equal(body_size(key), found->body_size);
            assert_int_equal(attempts_of(key) > 0, found->progress);
            assert_int_equal(attempts_of(key), found->attempts);
            assert_true(found->has_envelope || found->has_index);
            if (rows[i].options.has_envelopes || recipients_of(key) > ENVELOPE_INDEX_DELIVERY_MAX)
                assert_true(found->has_envelope);
            unread += !found->has_envelope;
            spool_read_body(fixture->spool, fixture->entries[key], 0, body_size(key), key);
        }
        if (!rows[i].options.has_envelopes) /* all but the last segment were sealed */
            assert_true(unread > MESSAGES / 2);
        assert_true(rows[i].slice > MESSAGES || fixture->steps >= MESSAGES / 2 / rows[i].slice);
        close_spool(fixture);
    }
    fixture_free(fixture);
}

/* While a start takes its messages, nothing that it has not come to yet is used again. */
static void test_segments_stay_until_all_is_adopted(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new();
    fill(fixture);
    struct disk *disk;
    struct spool_recovery *recovery;
    struct spool_recovery_options options = {.threads = 1};
    open_spool(fixture);
    assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &disk));
    assert_int_equal(ERR_OK, spool_recovery_run(disk, &options, &recovery));
    struct spool_adoption *adoption = spool_adoption_new(recovery, fixture->spool, 0, 1);
    bool is_more = true;
    for (uint32_t i = 0; is_more; i++) {
        is_more = spool_adoption_step(adoption, 1, on_message, fixture);
        if (is_more)
            assert_int_equal(0, spool_get_stats(fixture->spool).recycled_segments);
        if (i % 8 == 0)
            turn(fixture);
    }
    spool_adoption_free(adoption);
    spool_recovery_free(recovery);
    disk_free(disk);
    for (uint32_t key = 0; key < MESSAGES; key++) {
        if (!is_finished(key))
            spool_done(fixture->spool, fixture->entries[key]);
    }
    tick_us end = now().tick + TICK_S(5);
    while (spool_get_stats(fixture->spool).recycled_segments == 0 && now().tick < end)
        turn(fixture);
    assert_true(spool_get_stats(fixture->spool).recycled_segments > 0);
    close_spool(fixture);
    fixture_free(fixture);
}

/* ---- the version before ---- */

static void on_old_message(void *context, const struct spool_recovered *message)
{
    struct fixture *fixture = context;
    struct envelope envelope;
    uint32_t key = (uint32_t)spool_entry_id(message->entry).low;
    char address[32];

    arena_reset(&fixture->arena);
    assert_int_equal(ERR_OK, envelope_decode(message->envelope, &fixture->arena, &envelope));
    snprintf(address, sizeof(address), "user%u@d%u.example", key, key % 4);
    assert_true(span_is_equal(span_from_text(address), envelope.recipients[0].address));
    assert_int_equal(key * 531 % 9000, spool_entry_body_size(message->entry));
    fixture->found[key].count++;
    fixture->found[key].progress = message->progress_count;
    fixture->entries[key] = message->entry;
}

/* 40 messages, of which each fifth is finished and each third was tried once. */
static void check_old(struct fixture *fixture)
{
    struct disk *disk;
    struct spool_recovery *recovery;
    struct spool_recovery_options options = {.threads = 2};
    memset(fixture->found, 0, sizeof(fixture->found));
    open_spool(fixture);
    assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &disk));
    assert_int_equal(ERR_OK, spool_recovery_run(disk, &options, &recovery));
    spool_recovery_adopt(recovery, fixture->spool, 0, 1, on_old_message, fixture);
    spool_recovery_free(recovery);
    disk_free(disk);
    for (uint32_t key = 1; key <= 40; key++) {
        assert_int_equal(key % 5 > 0, fixture->found[key].count);
        assert_int_equal(key % 5 > 0 && key % 3 == 0, fixture->found[key].progress);
        if (key % 5 > 0)
            spool_read_body(fixture->spool, fixture->entries[key], 0, key * 531 % 9000, key);
    }
    close_spool(fixture);
}

static void test_the_version_before_is_read(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new();
    shell("tar xzf %s -C %s", getenv("SPOOL_V1"), fixture->path);
    check_old(fixture);
    check_old(fixture); /* beside segments of ours */
    fixture_free(fixture);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_ways_find_the_same),
        cmocka_unit_test(test_segments_stay_until_all_is_adopted),
        cmocka_unit_test(test_the_version_before_is_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
