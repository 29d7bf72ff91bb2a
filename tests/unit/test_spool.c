/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The spool through its API on real directories, with both disks: what is committed is read back
 * and recovered, what is finished is not; limits on both sides. Crashes:
 * tests/sim/test_spool_crash.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "spool_sim_clock.h"
#include <poll.h>
#include <sys/eventfd.h>

#include "queue/spool_internal.h"
#include "tests/sim/disk_sim.h"

#define READS_MAX    128u       /* that the spool has under way at a time */
#define PATIENCE     TICK_S(20) /* for a disk that others use as well */
#define SEGMENT_SIZE (512u << 10)
#define MESSAGES_MAX 600u

struct fixture {
    char path[64];
    enum disk_kind kind;
    uint32_t segment_size;
    uint64_t size_max;
    struct disk *disk;
    struct spool *spool;
    struct buf_pool *pool;
    struct rng rng;
    struct spool_entry *entries[MESSAGES_MAX]; /* by id.high */
    enum err errs[MESSAGES_MAX];               /* of the commit; ERR_AGAIN before */
    uint32_t commits;
    struct spool_event read; /* the last READ */
    bool has_read;
    bool has_one_event; /* a turn: there are many reads at a time */
    uint32_t recovered, progress;
};

static struct tick_now now(void)
{
    return tick_now_read(tick_source_system());
}

static void open_spool(struct fixture *fixture)
{
    enum err err = disk_new(fixture->path, fixture->kind, &fixture->disk);
    if (err != ERR_OK && fixture->kind == DISK_KIND_URING) {
        print_message("# io_uring is denied here\n");
        skip();
    }
    assert_int_equal(ERR_OK, err);
    struct spool_options options = {
        .segment_size = fixture->segment_size,
        .size_max = fixture->size_max,
        .reserve_size = fixture->segment_size,
        .segment_spare_min = 1,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_MS(20),
        .pool = fixture->pool,
    };
    assert_int_equal(ERR_OK, spool_epoch_next(fixture->disk, &options.epoch));
    assert_int_equal(ERR_OK,
                     spool_new(&options, fixture->disk, &fixture->rng, now(), &fixture->spool));
}

static struct fixture *fixture_new(enum disk_kind kind, uint32_t segment_size, uint64_t size_max)
{
    struct fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    snprintf(fixture->path, sizeof(fixture->path), "/tmp/angarium-test-spool-XXXXXX");
    assert_non_null(mkdtemp(fixture->path));
    fixture->kind = kind;
    fixture->segment_size = segment_size;
    fixture->size_max = size_max;
    rng_init_seed(&fixture->rng, 1);
    struct buf_pool_options pool = {
        .data_size = 4096, .count_max = 20000, .backing = BUF_BACKING_HEAP};
    fixture->pool = buf_pool_new(&pool);
    open_spool(fixture);
    return fixture;
}

static void turn(struct fixture *fixture)
{
    struct spool_event events[8];
    uint32_t count = spool_poll(fixture->spool, now(), events, fixture->has_one_event ? 1 : 8);
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].kind == SPOOL_EVENT_READ) {
            assert_false(fixture->has_read);
            fixture->read = events[i];
            fixture->has_read = true;
            continue;
        }
        assert_int_equal(ERR_AGAIN, fixture->errs[events[i].token]); /* exactly one COMMITTED */
        fixture->errs[events[i].token] = events[i].err;
        fixture->entries[events[i].token] = events[i].entry;
        fixture->commits++;
    }
    if (count > 0)
        return;
    tick_us deadline = spool_deadline(fixture->spool), tick = now().tick;
    int timeout = deadline <= tick ? 0 : deadline - tick < TICK_MS(20) ? 1 : 20;
    struct pollfd event = {.fd = disk_eventfd(fixture->disk), .events = POLLIN};
    eventfd_t ignored;
    if (poll(&event, 1, timeout) == 1)
        assert_int_equal(0, eventfd_read(event.fd, &ignored));
}

static void settle(struct fixture *fixture)
{
    spool_flush(fixture->spool);
    for (tick_us end = now().tick + PATIENCE; now().tick < end && !spool_is_idle(fixture->spool);)
        turn(fixture);
    assert_true(spool_is_idle(fixture->spool));
}

static void close_spool(struct fixture *fixture)
{
    spool_free(fixture->spool);
    disk_free(fixture->disk);
    assert_int_equal(0, buf_pool_in_use(fixture->pool));
}

static void remove_name(void *context, const char *name)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", (char *)context, name);
    unlink(path);
}

static void fixture_free(struct fixture *fixture)
{
    spool_free(fixture->spool);
    assert_int_equal(ERR_OK, disk_list(fixture->disk, remove_name, fixture->path));
    disk_free(fixture->disk);
    buf_pool_free(fixture->pool);
    assert_int_equal(0, rmdir(fixture->path));
    free(fixture);
}

static void fixture_end(struct fixture *fixture)
{
    settle(fixture);
    fixture_free(fixture);
}

/* The octets of message `key` are a function of key and offset. */
static uint8_t octet_of(uint64_t key, uint64_t offset)
{
    return (uint8_t)((key * 131 + offset * 7 + offset / 251) & 0xff);
}

static void body_make(struct fixture *fixture, uint64_t key, uint64_t offset, uint32_t size,
                      uint32_t slice_size, struct buf_queue *ret_octets)
{
    buf_queue_init(ret_octets);
    while (size > 0) {
        struct buf *buf = buf_acquire(fixture->pool);
        assert_non_null(buf);
        uint32_t slice = slice_size < size ? slice_size : size;
        for (uint32_t i = 0; i < slice; i++)
            buf_data(buf)[i] = octet_of(key, offset + i);
        buf_extend(buf, slice);
        buf_queue_append(ret_octets, buf, BUF_HEADROOM, slice);
        buf_release(buf);
        offset += slice;
        size -= slice;
    }
}

/* False when the spool refuses it. */
static bool commit(struct fixture *fixture, uint32_t key, uint32_t body_size,
                   uint32_t envelope_size, uint32_t slice_size)
{
    struct spool_transaction *transaction =
        spool_begin(fixture->spool, (struct message_id){key, key}, body_size, false);
    if (transaction == NULL)
        return false;
    struct buf_queue octets;
    body_make(fixture, key, 0, body_size, slice_size, &octets);
    assert_int_equal(ERR_OK, spool_write_body(fixture->spool, transaction, &octets));
    assert_true(buf_queue_is_empty(&octets));
    buf_queue_fini(&octets);
    uint8_t *envelope = malloc(envelope_size + 1);
    assert_non_null(envelope);
    for (uint32_t i = 0; i < envelope_size; i++)
        envelope[i] = octet_of(key + 1000000, i);
    fixture->errs[key] = ERR_AGAIN;
    spool_commit(fixture->spool, transaction, span_of(envelope, envelope_size), key);
    free(envelope);
    return true;
}

static void wait_commits(struct fixture *fixture, uint32_t count)
{
    for (tick_us end = now().tick + PATIENCE; now().tick < end && fixture->commits < count;)
        turn(fixture);
    assert_int_equal(count, fixture->commits);
}

static void check_octets(struct fixture *fixture, uint64_t key, uint64_t offset, uint64_t size)
{
    for (tick_us end = now().tick + PATIENCE; now().tick < end && !fixture->has_read;)
        turn(fixture);
    assert_true(fixture->has_read);
    fixture->has_read = false;
    assert_int_equal(ERR_OK, fixture->read.err);
    assert_int_equal(key, fixture->read.token);
    struct buf_queue *octets = &fixture->read.octets;
    assert_int_equal(size, octets->size);
    for (uint32_t i = 0; i < octets->count; i++) {
        struct span span = buf_slice_span(buf_queue_get(octets, i));
        for (uint32_t j = 0; j < span.size; j++)
            assert_int_equal(octet_of(key, offset++), span.data[j]);
    }
    buf_queue_fini(octets);
}

static void on_recovered(void *context, const struct spool_recovered *message)
{
    struct fixture *fixture = context;
    uint64_t key = spool_entry_id(message->entry).high;
    assert_in_range(key, 0, MESSAGES_MAX - 1);
    assert_null(fixture->entries[key]);
    fixture->entries[key] = message->entry;
    fixture->recovered++;
    fixture->progress += message->progress_count;
    for (uint32_t i = 0; i < message->envelope.size; i++)
        assert_int_equal(octet_of(key + 1000000, i), message->envelope.data[i]);
}

static void recover(struct fixture *fixture)
{
    memset(fixture->entries, 0, sizeof(fixture->entries));
    fixture->recovered = fixture->progress = 0;
    open_spool(fixture);
    struct disk *disk;
    struct spool_recovery *recovery;
    assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &disk));
    assert_int_equal(ERR_OK, spool_recovery_run(disk, NULL, &recovery));
    spool_recovery_adopt(recovery, fixture->spool, 0, 1, on_recovered, fixture);
    spool_recovery_free(recovery);
    disk_free(disk);
}

/* Commit, finish half, restart, read the rest back, restart again. */
static void check_lives(enum disk_kind kind)
{
    struct fixture *fixture = fixture_new(kind, SEGMENT_SIZE, 64 * (uint64_t)SEGMENT_SIZE);
    static const uint32_t sizes[] = {0, 1, 100, 4096, 10000, 70000, 131072, 131073, 400000};
    const uint32_t count = 90;
    for (uint32_t key = 0; key < count; key++)
        assert_true(commit(fixture, key, sizes[key % COUNT_OF(sizes)], 1 + key * 3, 4096));
    wait_commits(fixture, count);
    for (uint32_t key = 0; key < count; key++) {
        assert_int_equal(ERR_OK, fixture->errs[key]);
        if (key % 2 == 0)
            spool_done(fixture->spool, fixture->entries[key]);
        else
            spool_progress(fixture->spool, fixture->entries[key], SPAN_LITERAL("progress"));
    }
    struct spool_stats stats = spool_get_stats(fixture->spool);
    assert_int_equal(count, stats.commits);
    assert_true(stats.syncs < count / 2); /* group commit */
    settle(fixture);
    close_spool(fixture);

    for (uint32_t life = 0; life < 2; life++) {
        recover(fixture);
        assert_int_equal(count / 2, fixture->recovered);
        assert_int_equal(count / 2, fixture->progress);
        for (uint32_t key = 1; key < count; key += 2) {
            uint32_t size = sizes[key % COUNT_OF(sizes)];
            assert_int_equal(size, spool_entry_body_size(fixture->entries[key]));
            spool_read_body(fixture->spool, fixture->entries[key], 0, size, key);
            check_octets(fixture, key, 0, size);
            spool_read_body(fixture->spool, fixture->entries[key], size / 3, size / 2, key);
            check_octets(fixture, key, size / 3, size / 2);
            spool_read_envelope(fixture->spool, fixture->entries[key], key + 1000000);
            check_octets(fixture, key + 1000000, 0, 1 + key * 3);
        }
        settle(fixture);
        close_spool(fixture);
    }
    recover(fixture);
    for (uint32_t key = 1; key < count; key += 2)
        spool_done(fixture->spool, fixture->entries[key]);
    settle(fixture);
    close_spool(fixture);
    recover(fixture);
    assert_int_equal(0, fixture->recovered);
    fixture_end(fixture);
}

static void test_lives_thread(void **state)
{
    (void)state;
    check_lives(DISK_KIND_THREAD);
}

static void test_lives_uring(void **state)
{
    (void)state;
    check_lives(DISK_KIND_URING);
}

static void test_full_and_reserve(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 8 * SEGMENT_SIZE);
    uint32_t key = 0;
    while (key < MESSAGES_MAX && commit(fixture, key, 20000, 100, 4096)) {
        wait_commits(fixture, ++key);
        assert_int_equal(ERR_OK, fixture->errs[key - 1]);
    }
    print_message("# %u messages of 20,000 octets in 8 segments of 512 KB\n", key);
    assert_in_range(key, 60, 200);
    assert_int_equal(ERR_DISK_FULL, spool_refusal(fixture->spool));
    assert_true(spool_get_stats(fixture->spool).is_full);
    assert_true(spool_get_stats(fixture->spool).octets_used <= 8 * SEGMENT_SIZE);

    /* A DSN still goes, by the reserve, and so do an attempt and the end of a message. */
    struct spool_transaction *dsn =
        spool_begin(fixture->spool, (struct message_id){550, 550}, 1000, true);
    assert_non_null(dsn);
    fixture->errs[550] = ERR_AGAIN;
    uint8_t envelope[3] = {octet_of(1000550, 0), octet_of(1000550, 1), octet_of(1000550, 2)};
    spool_commit_dsn(fixture->spool, dsn, span_of(envelope, 3), fixture->entries[0],
                     (struct span){0}, true, 550);
    wait_commits(fixture, key + 1);
    assert_int_equal(ERR_OK, fixture->errs[550]);
    uint64_t syncs = spool_get_stats(fixture->spool).syncs;
    spool_progress(fixture->spool, fixture->entries[key - 1], SPAN_LITERAL("an attempt"));
    settle(fixture);
    assert_true(spool_get_stats(fixture->spool).syncs > syncs);
    for (uint32_t i = 1; i < key - 1; i++)
        spool_done(fixture->spool, fixture->entries[i]);
    for (uint32_t i = 0; i < 200 && !commit(fixture, 551, 20000, 100, 4096); i++)
        turn(fixture);
    wait_commits(fixture, key + 2);
    settle(fixture);
    close_spool(fixture);
    recover(fixture);
    assert_int_equal(3, fixture->recovered);
    assert_int_equal(1, fixture->progress);
    assert_non_null(fixture->entries[key - 1]);
    assert_non_null(fixture->entries[550]);
    assert_non_null(fixture->entries[551]);
    fixture_end(fixture);
}

/* Where nothing can be written nobody looks at it without end. */
static void test_full_spool_rests(void **state)
{
    static uint8_t progress[300000];

    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 4 * SEGMENT_SIZE);
    assert_true(commit(fixture, 1, 100, 100, 4096));
    wait_commits(fixture, 1);
    assert_false(spool_get_stats(fixture->spool).is_stuck);
    for (uint32_t i = 0; i < 40; i++) {
        spool_progress(fixture->spool, fixture->entries[1], span_of(progress, sizeof(progress)));
        for (uint32_t j = 0; j < 10; j++)
            turn(fixture);
    }
    tick_us start = now().tick;
    while (now().tick < start + TICK_MS(100)) {
        tick_us before = now().tick;
        turn(fixture);
        assert_true(spool_deadline(fixture->spool) >= before);
    }
    assert_false(spool_is_idle(fixture->spool)); /* it was about a full one */
    assert_true(spool_get_stats(fixture->spool).is_stuck);
    fixture_free(fixture);
}

static void test_limits_of_a_message(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, 4u << 20, 64u << 20);
    assert_true(commit(fixture, 1, 10, ENVELOPE_SIZE_MAX, 4096));
    assert_true(commit(fixture, 2, 15000, 100, 1));       /* an octet a buffer */
    assert_true(commit(fixture, 3, 9u << 20, 100, 4096)); /* more than two segments */
    wait_commits(fixture, 3);
    for (uint32_t key = 1; key <= 3; key++)
        assert_int_equal(ERR_OK, fixture->errs[key]);
    spool_read_body(fixture->spool, fixture->entries[2], 0, 15000, 2);
    check_octets(fixture, 2, 0, 15000);
    spool_read_body(fixture->spool, fixture->entries[3], 100, 8u << 20, 3);
    check_octets(fixture, 3, 100, 8u << 20);
    fixture_end(fixture);

    /* An envelope that no segment can take. */
    fixture = fixture_new(DISK_KIND_AUTO, SPOOL_SEGMENT_SIZE_MIN, 64 * SPOOL_SEGMENT_SIZE_MIN);
    uint32_t room = SPOOL_SEGMENT_SIZE_MIN - 4 * SPOOL_BLOCK_SIZE - 64 - 16;
    assert_true(commit(fixture, 1, 0, room, 4096));
    assert_true(commit(fixture, 2, 0, room + 1, 4096));
    wait_commits(fixture, 2);
    assert_int_equal(ERR_OK, fixture->errs[1]);
    assert_int_equal(ERR_LIMIT, fixture->errs[2]);
    fixture_end(fixture);
}

/* Goal: when a message ends, reads of it that have not begun yet, or not ended, say so: its
 * segments may be somebody else's. */
static void test_reads_of_what_ends(void **state)
{
    const uint32_t reads = 3000;
    uint32_t ended = 0, stale = 0, late = 0;

    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 16 * SEGMENT_SIZE);
    assert_true(commit(fixture, 1, 15000, 100, 1)); /* several records */
    wait_commits(fixture, 1);
    fixture->has_one_event = true;
    for (uint32_t i = 0; i < reads; i++)
        spool_read_body(fixture->spool, fixture->entries[1], 0, 15000, 1);
    spool_done(fixture->spool, fixture->entries[1]);
    spool_flush(fixture->spool);
    for (tick_us end = now().tick + PATIENCE; now().tick < end && ended < reads;) {
        turn(fixture);
        if (!fixture->has_read)
            continue;
        ended++;
        if (fixture->read.err == ERR_OK) {
            late += stale > 0; /* its last record was under way when the message ended */
            check_octets(fixture, 1, 0, 15000);
            continue;
        }
        assert_int_equal(ERR_STALE, fixture->read.err);
        fixture->has_read = false;
        stale++;
    }
    assert_int_equal(reads, ended);
    assert_in_range(stale, 1, reads);
    assert_true(late <= READS_MAX);
    fixture_end(fixture);
}

static void test_abort_frees(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 16 * SEGMENT_SIZE);
    struct spool_transaction *transaction =
        spool_begin(fixture->spool, (struct message_id){1, 1}, 300000, false);
    assert_non_null(transaction);
    struct buf_queue octets;
    body_make(fixture, 1, 0, 300000, 4096, &octets);
    assert_int_equal(ERR_OK, spool_write_body(fixture->spool, transaction, &octets));
    buf_queue_fini(&octets);
    assert_int_equal(300000, spool_unwritten(transaction));
    for (tick_us end = now().tick + PATIENCE;
         now().tick < end && spool_unwritten(transaction) >= 131072;)
        turn(fixture);
    assert_true(spool_unwritten(transaction) <
                131072); /* full parts go to the disk by themselves */
    spool_abort(fixture->spool, transaction);
    settle(fixture);
    assert_int_equal(0, buf_pool_in_use(fixture->pool));
    close_spool(fixture);
    recover(fixture);
    assert_int_equal(0, fixture->recovered);
    fixture_end(fixture);
}

/* DONE goes to the disk by itself within lazy_time. */
static void test_lazy_records_are_written_in_time(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 16 * SEGMENT_SIZE);
    assert_true(commit(fixture, 1, 100, 100, 4096));
    wait_commits(fixture, 1);
    spool_done(fixture->spool, fixture->entries[1]);
    assert_in_range(spool_deadline(fixture->spool), now().tick - TICK_S(1),
                    now().tick + TICK_MS(20));
    tick_us start = now().tick;
    while (spool_get_stats(fixture->spool).messages_live > 0 && now().tick < start + TICK_S(5))
        turn(fixture);
    assert_int_equal(0, spool_get_stats(fixture->spool).messages_live);
    assert_true(now().tick >= start + TICK_MS(10));
    fixture_end(fixture);
}

/* A running spool's segments are locked: a recovery beside it sees none of them. */
static void test_recovery_beside_a_running_spool(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, SEGMENT_SIZE, 16 * SEGMENT_SIZE);
    assert_true(commit(fixture, 1, 100, 100, 4096));
    wait_commits(fixture, 1);
    uint64_t epoch, again;
    assert_int_equal(ERR_OK, spool_epoch_next(fixture->disk, &epoch));
    assert_int_equal(2, epoch);
    for (uint32_t i = 0; i < 2; i++) {
        struct spool_recovery *recovery;
        struct disk *disk;
        assert_int_equal(ERR_OK, disk_new(fixture->path, DISK_KIND_THREAD, &disk));
        assert_int_equal(ERR_OK, spool_recovery_run(disk, NULL, &recovery));
        spool_recovery_adopt(recovery, fixture->spool, 0, 1, on_recovered, fixture);
        spool_recovery_free(recovery);
        disk_free(disk);
    }
    assert_int_equal(0, fixture->recovered);
    settle(fixture);
    close_spool(fixture);
    recover(fixture);
    assert_int_equal(1, fixture->recovered);
    assert_int_equal(ERR_OK, spool_epoch_next(fixture->disk, &again));
    assert_int_equal(3, again);
    fixture_end(fixture);
}

/* With the shipped sizes a first start takes a fifth of a gigabyte at most, restarts no more. */
static void test_first_start_is_modest(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, 64u << 20, 10ull << 30);
    tick_us start = now().tick;
    while (now().tick < start + TICK_MS(500))
        turn(fixture);
    assert_true(spool_get_stats(fixture->spool).octets_used <= 3 * (64u << 20));
    for (uint32_t i = 0; i < 3; i++) {
        settle(fixture);
        close_spool(fixture);
        recover(fixture);
        start = now().tick;
        while (now().tick < start + TICK_MS(100))
            turn(fixture);
    }
    assert_true(spool_get_stats(fixture->spool).octets_used <= 4 * (64u << 20));
    fixture_end(fixture);
}

/* ---- attempts ---- */

static void progress_of(struct fixture *fixture, uint32_t key, uint32_t delivery, uint32_t attempts)
{
    uint8_t encoded[200];
    struct envelope_progress progress = {
        .next_try = 1000 + attempts,
        .attempts = attempts,
        .delivery = delivery,
        .last_reply = SPAN_LITERAL("451 4.7.1 try later"),
    };
    envelope_progress_encode(&progress, encoded);
    spool_progress(fixture->spool, fixture->entries[key],
                   span_of(encoded, envelope_progress_encoded_size(&progress)));
}

/* However often a delivery is tried, one PROGRESS of it is kept, in memory and for a start. */
static void test_attempts_do_not_pile_up(void **state)
{
    (void)state;
    struct fixture *fixture = fixture_new(DISK_KIND_AUTO, 128u << 10, 64 * (128u << 10));
    assert_true(commit(fixture, 1, 100, 100, 4096));
    wait_commits(fixture, 1);
    for (uint32_t attempts = 1; attempts <= 40; attempts++) {
        for (uint32_t delivery = 0; delivery < 3; delivery++)
            progress_of(fixture, 1, delivery, attempts);
        spool_progress(fixture->spool, fixture->entries[1], SPAN_LITERAL("something else"));
        settle(fixture); /* flushes: each is durable by itself */
        assert_int_equal(1 + 3 + attempts, fixture->entries[1]->place_count);
    }
    for (uint32_t i = 0; i < 3; i++) { /* many in one batch */
        progress_of(fixture, 1, 1, 100 + i);
        progress_of(fixture, 1, 2, 100 + i);
    }
    settle(fixture);
    assert_int_equal(1 + 3 + 40, fixture->entries[1]->place_count);
    close_spool(fixture);
    recover(fixture);
    assert_int_equal(1, fixture->recovered);
    assert_int_equal(3 + 40, fixture->progress);
    assert_int_equal(1 + 3 + 40, fixture->entries[1]->place_count);
    progress_of(fixture, 1, 1, 200);
    settle(fixture);
    assert_int_equal(1 + 3 + 40, fixture->entries[1]->place_count);
    fixture_end(fixture);
}

/* ---- on the simulated disk ---- */

/* One octet a buffer: how many pieces of memory a batch has is ours to choose. */
static struct spool_transaction *sim_begin(struct spool *spool, struct buf_pool *pool, uint64_t key,
                                           uint32_t pieces)
{
    struct spool_transaction *transaction =
        spool_begin(spool, (struct message_id){key, key}, pieces, false);
    assert_non_null(transaction);
    struct buf_queue octets;
    buf_queue_init(&octets);
    for (uint32_t i = 0; i < pieces; i++) {
        struct buf *buf = buf_acquire(pool);
        assert_non_null(buf);
        buf_extend(buf, 1);
        buf_queue_append(&octets, buf, BUF_HEADROOM, 1);
        buf_release(buf);
    }
    assert_int_equal(ERR_OK, spool_write_body(spool, transaction, &octets));
    buf_queue_fini(&octets);
    return transaction;
}

/*
 * A DSN fails and the DONE of its message, which shares its commit, is in the same batch or (where
 * the pieces of memory run out) in the next: the message lives on, and can be finished later.
 */
static void test_dsn_that_fails_ends_nothing(void **state)
{
    (void)state;
    for (uint32_t pieces = 1000; pieces <= 1030; pieces++) {
        struct disk_sim_options medium = {.clock = &sim_clock, .size = 64u << 20, .seed = pieces};
        struct disk_sim *sim = disk_sim_new(&medium);
        struct disk *disk = disk_sim_open(sim);
        struct buf_pool_options buffers = {.data_size = 64, .count_max = 4000};
        struct buf_pool *pool = buf_pool_new(&buffers);
        struct rng rng;
        rng_init_seed(&rng, pieces);
        struct spool_options options = {
            .segment_size = SEGMENT_SIZE,
            .size_max = 16 * SEGMENT_SIZE,
            .segment_spare_min = 2,
            .commit_deadline = TICK_S(60),
            .lazy_time = TICK_MS(20),
            .pool = pool,
            .epoch = 1,
        };
        struct spool *spool;
        assert_int_equal(ERR_OK,
                         spool_new(&options, disk, &rng, tick_now_read(&sim_clock), &spool));
        spool_commit(spool, sim_begin(spool, pool, 1, 1), SPAN_LITERAL("envelope"), 1);
        struct spool_entry *about = sim_wait(spool, SPOOL_EVENT_COMMITTED).entry;

        struct spool_event none;
        for (uint32_t i = 0; i < 300; i++, sim_tick += 1000)
            assert_int_equal(0, spool_poll(spool, tick_now_read(&sim_clock), &none, 1));
        /* The first segment is left for a prepared one. */
        spool_commit(spool, sim_begin(spool, pool, 3, 1), SPAN_LITERAL("envelope"), 3);
        assert_int_equal(ERR_OK, sim_wait(spool, SPOOL_EVENT_COMMITTED).err);
        for (uint32_t i = 0; i < 300; i++, sim_tick += 1000)
            assert_int_equal(0, spool_poll(spool, tick_now_read(&sim_clock), &none, 1));

        struct spool_transaction *dsn = sim_begin(spool, pool, 2, pieces);
        spool_commit_dsn(spool, dsn, SPAN_LITERAL("dsn"), about, (struct span){0}, true, 2);
        disk_sim_fail_at(sim, DISK_SIM_SYNC, 1, ERR_DISK_IO);
        struct spool_event event = sim_wait(spool, SPOOL_EVENT_COMMITTED);
        assert_int_equal(ERR_DISK_IO, event.err);
        assert_int_equal(2, event.token);
        spool_read_body(spool, about, 0, 1, 3);
        event = sim_wait(spool, SPOOL_EVENT_READ);
        assert_int_equal(ERR_OK, event.err);
        buf_queue_fini(&event.octets);
        spool_done(spool, about);
        disk_sim_kill(sim, &rng);
        spool_free(spool);
        disk_free(disk);
        disk_sim_free(sim);
        buf_pool_free(pool);
    }
}

static void test_impossible_options(void **state)
{
    (void)state;
    const struct {
        const char *name;
        uint32_t segment_size, spare;
        uint64_t size_max;
        enum err err;
    } rows[] = {
        {"least", SPOOL_SEGMENT_SIZE_MIN, 1, 2 * SPOOL_SEGMENT_SIZE_MIN, ERR_OK},
        {"a block is not full", SPOOL_SEGMENT_SIZE_MIN + 1, 1, 1 << 20, ERR_OK},
        {"segment too small", SPOOL_SEGMENT_SIZE_MIN - 1, 1, 1 << 20, ERR_CONFIG_VALUE},
        {"segment too large", SPOOL_SEGMENT_SIZE_MAX + 1, 1, 1ull << 40, ERR_CONFIG_VALUE},
        {"no spare", SPOOL_SEGMENT_SIZE_MIN, 0, 1 << 20, ERR_CONFIG_VALUE},
        {"room for one", SPOOL_SEGMENT_SIZE_MIN, 1, 2 * SPOOL_SEGMENT_SIZE_MIN - 1,
         ERR_CONFIG_VALUE},
    };
    struct buf_pool_options buffers = {.data_size = 64, .count_max = 64};
    struct buf_pool *pool = buf_pool_new(&buffers);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct disk_sim_options medium = {.clock = &sim_clock, .size = 64u << 20};
        struct disk_sim *sim = disk_sim_new(&medium);
        struct disk *disk = disk_sim_open(sim);
        struct rng rng;
        rng_init_seed(&rng, i);
        struct spool_options options = {.segment_size = rows[i].segment_size,
                                        .size_max = rows[i].size_max,
                                        .segment_spare_min = rows[i].spare,
                                        .pool = pool,
                                        .epoch = 1};
        struct spool *spool = NULL;
        assert_int_equal(rows[i].err,
                         spool_new(&options, disk, &rng, tick_now_read(&sim_clock), &spool));
        disk_sim_kill(sim, &rng);
        if (spool != NULL)
            spool_free(spool);
        disk_free(disk);
        disk_sim_free(sim);
    }
    buf_pool_free(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attempts_do_not_pile_up),
        cmocka_unit_test(test_lives_thread),
        cmocka_unit_test(test_lives_uring),
        cmocka_unit_test(test_full_and_reserve),
        cmocka_unit_test(test_full_spool_rests),
        cmocka_unit_test(test_limits_of_a_message),
        cmocka_unit_test(test_reads_of_what_ends),
        cmocka_unit_test(test_abort_frees),
        cmocka_unit_test(test_lazy_records_are_written_in_time),
        cmocka_unit_test(test_recovery_beside_a_running_spool),
        cmocka_unit_test(test_first_start_is_modest),
        cmocka_unit_test(test_dsn_that_fails_ends_nothing),
        cmocka_unit_test(test_impossible_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
