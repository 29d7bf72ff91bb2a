/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record writer: one ring per shard (record_ring.h), one thread that empties them into files
 * (record_file.h).
 *
 *   shard --lane_emit()--> ring --writer_drain()--> buffers --writer_flush()--> files
 *
 * Records lie in a ring as they stand in a binary file, so that there the writer adds a checksum
 * and copies: it may share its core with a shard. For a text file a record is unpacked.
 *
 * Invariants
 *   1. Each ring has one producer (its shard) and one consumer (the writer).
 *   2. A shard waits for at most hold_ms, and only if the writer holds; not again
 * before there has been room. A full ring drops the record and counts it.
 *   3. With one file, of JSON or raw, written + dropped = emitted, once the writer is freed; unless
 * it holds and the file takes nothing.
 *   4. lane->kept: all records before it are in files that were written and, if that is wanted,
 *      synced. It rises only in kept_publish(), behind a flush that left no line in a buffer.
 *   5. The position (record_position.h) is a moment that was read before tails that `kept` has
 *      reached. None is read while records of the run before are to be replayed: until every shard
 *      said that there are none.
 *
 * Sleep. The writer sets `is_asleep`, full fence (A), looks at the rings once more, then waits on
 * the eventfd. A producer publishes its tail, full fence (B), then looks at `is_asleep`. A pairs
 * with B: either the writer sees the record or the producer sees the flag. Before that the writer
 * lingers LINGER_MS, so that a busy shard writes the eventfd seldom; where many records come, up to
 * LINGER_MAX_MS: its wakes cost a shard on its core more than what it does then, which, on the
 * other hand, holds up that shard's mail for as long.
 */
#include "control/record_writer.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdalign.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include "base/log.h"
#include "control/record_csv.h"
#include "control/record_json.h"
#include "control/record_position.h"
#include "control/record_raw.h"
#include "control/record_ring.h"

#define DRAIN_BURST   256u
#define LINGER_MS     1
#define LINGER_MAX_MS 4
#define LINGER_MANY   192u /* records in a millisecond */
#define HOLD_SHARE    8    /* of a ring: in use, the shard is behind */
#define STUCK_MS      100
#define FLUSH_TIME    TICK_MS(100) /* also when records come without a pause */
#define MARK_TIME     TICK_MS(200)
#define CACHE_LINE    64
#define TURN_TRIES    3000u /* of a millisecond */

/* From one shard. */
struct lane {
    struct record_ring ring;
    alignas(CACHE_LINE) _Atomic uint64_t dropped; /* the shard's, as the next two */
    atomic_bool is_replayed;
    bool has_waited;                           /* for room, in vain */
    alignas(CACHE_LINE) _Atomic uint64_t kept; /* the writer's */
    struct record_writer *writer;
};

enum format { FORMAT_JSON, FORMAT_CSV, FORMAT_RAW, FORMAT_COUNT };

struct record_writer {
    struct lane *lanes;
    uint32_t lane_count;
    int eventfd;
    pthread_t thread;
    bool is_finished; /* and joined */
    atomic_bool is_asleep, must_reopen, must_stop;
    _Atomic uint32_t turning; /* enum record_turning */

    /* the thread's own */
    struct record_file files[FORMAT_COUNT];
    bool has_file[FORMAT_COUNT];
    struct record_time time;
    struct record_position position;
    struct {
        wall_us wall; /* 0: none was made */
        uint64_t *tails;
    } mark;
    tick_us flushed, marked;
    uint64_t replays;
    uint32_t linger_ms;
    uint64_t woken_count; /* records since it slept */

    bool must_hold;
    uint32_t hold_ms;
    _Atomic uint64_t written, lost, failures, replayed; /* of the files, for others to read */
};

/* ---- the shard's side ---- */

static void writer_wake(struct record_writer *writer)
{
    uint64_t one = 1;

    if (atomic_exchange_explicit(&writer->is_asleep, false, memory_order_relaxed)) {
        ssize_t size = write(writer->eventfd, &one, sizeof(one));
        (void)size; /* a full eventfd is readable, which is all that is wanted */
    }
}

/* Invariant 2. True: there is room. */
static bool lane_wait(struct lane *lane)
{
    struct timespec moment = {.tv_nsec = 1000000};

    if (!lane->writer->must_hold || lane->has_waited)
        return false;
    for (uint32_t i = 0; i < lane->writer->hold_ms; i++) {
        nanosleep(&moment, NULL);
        if (!record_ring_is_full(&lane->ring))
            return true;
    }
    lane->has_waited = true;
    return false;
}

static void lane_emit(void *context, const struct record *record)
{
    struct lane *lane = context;

    if (record_ring_is_full(&lane->ring) && !lane_wait(lane)) {
        atomic_fetch_add_explicit(&lane->dropped, 1, memory_order_relaxed);
        return;
    }
    lane->has_waited = false;
    record_ring_push(&lane->ring, record);
    atomic_thread_fence(memory_order_seq_cst); /* B, pairs with A in writer_sleep() */
    if (atomic_load_explicit(&lane->writer->is_asleep, memory_order_relaxed))
        writer_wake(lane->writer);
}

static bool lane_is_behind(void *context)
{
    struct lane *lane = context;
    uint64_t share = lane->writer->must_hold ? HOLD_SHARE : 2;

    return record_ring_tail(&lane->ring) - record_ring_head(&lane->ring) > lane->ring.limit / share;
}

static uint64_t lane_emitted(void *context)
{
    struct lane *lane = context;

    return record_ring_tail(&lane->ring);
}

static uint64_t lane_kept(void *context)
{
    struct lane *lane = context;

    return atomic_load_explicit(&lane->kept, memory_order_acquire);
}

static wall_us lane_since(void *context)
{
    struct lane *lane = context;

    return record_position_get(&lane->writer->position);
}

static void lane_replayed(void *context)
{
    struct lane *lane = context;

    atomic_store_explicit(&lane->is_replayed, true, memory_order_release);
}

static void record_forget(void *context, const struct record *record)
{
    (void)context;
    (void)record;
}

/* ---- the thread ---- */

static tick_us tick_read(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

static void stats_publish(struct record_writer *writer)
{
    uint64_t written = 0, lost = 0, failures = 0;

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        written += writer->files[i].written;
        lost += writer->files[i].lost;
        failures += writer->files[i].failures;
    }
    atomic_store_explicit(&writer->written, written, memory_order_relaxed);
    atomic_store_explicit(&writer->lost, lost, memory_order_relaxed);
    atomic_store_explicit(&writer->failures, failures, memory_order_relaxed);
    atomic_store_explicit(&writer->replayed, writer->replays, memory_order_relaxed);
}

/* Invariant 4. */
static void kept_publish(struct record_writer *writer)
{
    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i] && !record_file_is_kept(&writer->files[i]))
            return;
    }
    for (uint32_t i = 0; i < writer->lane_count; i++)
        atomic_store_explicit(&writer->lanes[i].kept, record_ring_head(&writer->lanes[i].ring),
                              memory_order_release);
}

static bool mark_is_reached(const struct record_writer *writer)
{
    for (uint32_t i = 0; i < writer->lane_count; i++) {
        if (atomic_load_explicit(&writer->lanes[i].kept, memory_order_relaxed) <
            writer->mark.tails[i])
            return false;
    }
    return writer->mark.wall != 0;
}

/* A mark from before that would be reached while what was replayed is still in a ring. */
static bool all_is_replayed(const struct record_writer *writer)
{
    for (uint32_t i = 0; i < writer->lane_count; i++) {
        if (!atomic_load_explicit(&writer->lanes[i].is_replayed, memory_order_acquire))
            return false;
    }
    return true;
}

/* Invariant 5. */
static void mark_make(struct record_writer *writer)
{
    const struct tick_source *clock = tick_source_system();

    writer->mark.wall = clock->wall(clock->context);
    for (uint32_t i = 0; i < writer->lane_count; i++)
        writer->mark.tails[i] = record_ring_tail(&writer->lanes[i].ring);
}

static void position_review(struct record_writer *writer)
{
    if (writer->position.fd < 0)
        return;
    if (mark_is_reached(writer)) {
        record_position_set(&writer->position, writer->mark.wall);
        writer->mark.wall = 0;
    }
    tick_us now = tick_read();
    if (writer->mark.wall == 0 && now >= writer->marked + MARK_TIME && all_is_replayed(writer)) {
        writer->marked = now;
        mark_make(writer);
    }
}

static void writer_flush(struct record_writer *writer, bool must_reopen)
{
    tick_us now = tick_read();

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i] && must_reopen)
            record_file_reopen(&writer->files[i], now);
        else if (writer->has_file[i])
            record_file_flush(&writer->files[i], now);
    }
    writer->flushed = now;
    kept_publish(writer);
    position_review(writer);
    stats_publish(writer);
}

/* The end: whatever the configuration says of syncing. */
static void writer_sync(struct record_writer *writer)
{
    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i])
            record_file_sync(&writer->files[i], tick_read());
    }
    kept_publish(writer);
    position_review(writer);
    if (writer->position.fd >= 0 && all_is_replayed(writer)) {
        mark_make(writer);
        position_review(writer);
    }
    stats_publish(writer);
}

/* False: a file has no room, and nothing was written. */
static bool record_write(struct record_writer *writer, uint8_t *octets, tick_us now)
{
    static const uint32_t size_max[FORMAT_COUNT] = {
        [FORMAT_JSON] = RECORD_JSON_SIZE_MAX,
        [FORMAT_CSV] = RECORD_CSV_SIZE_MAX,
        [FORMAT_RAW] = RECORD_RAW_SIZE_MAX,
    };
    struct record_file *files = writer->files;
    struct record record UNINITIALIZED;
    char *room[FORMAT_COUNT] = {0};
    uint32_t size;

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i] &&
            (room[i] = record_file_room(&files[i], size_max[i], now)) == NULL)
            return false;
    }
    if (room[FORMAT_JSON] != NULL || room[FORMAT_CSV] != NULL)
        record_raw_unpack(octets, &record);
    if (room[FORMAT_JSON] != NULL)
        record_file_take(&files[FORMAT_JSON],
                         record_json_format(&record, &writer->time, room[FORMAT_JSON]));
    if (room[FORMAT_CSV] != NULL && (size = record_csv_format(&record, room[FORMAT_CSV])) > 0)
        record_file_take(&files[FORMAT_CSV], size);
    if (room[FORMAT_RAW] != NULL) {
        size = record_raw_seal(octets);
        memcpy(room[FORMAT_RAW], octets, size);
        record_file_take(&files[FORMAT_RAW], size);
    }
    writer->replays += (record_raw_flags(octets) & RECORD_REPLAYED) != 0;
    return true;
}

static uint32_t ring_drain(struct record_writer *writer, struct record_ring *ring)
{
    uint8_t *octets;
    uint32_t count = record_ring_peek(ring, DRAIN_BURST, &octets), taken = 0, size = 0;

    if (count == 0)
        return 0;
    tick_us now = tick_read();
    while (taken < count && record_write(writer, octets + size, now)) {
        size += record_raw_size(octets + size);
        taken++;
    }
    record_ring_drop(ring, taken, size);
    return taken;
}

/* One burst of every ring; returns how many records there were. */
static uint32_t writer_drain(struct record_writer *writer)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < writer->lane_count; i++)
        count += ring_drain(writer, &writer->lanes[i].ring);
    return count;
}

static bool writer_has_work(const struct record_writer *writer)
{
    for (uint32_t i = 0; i < writer->lane_count; i++) {
        const struct record_ring *ring = &writer->lanes[i].ring;
        if (record_ring_tail(ring) != record_ring_head(ring))
            return true;
    }
    return atomic_load(&writer->must_stop) || atomic_load(&writer->must_reopen);
}

static bool writer_is_stuck(const struct record_writer *writer)
{
    bool is_stuck = false;

    for (uint32_t i = 0; i < FORMAT_COUNT; i++)
        is_stuck |= writer->has_file[i] && writer->files[i].is_stuck;
    return is_stuck;
}

/* Until a file is to be turned over or synced; -1: for as long as nothing comes. */
static int wait_ms(const struct record_writer *writer)
{
    tick_us deadline = TICK_NEVER, now = tick_read();

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i] && record_file_deadline(&writer->files[i]) < deadline)
            deadline = record_file_deadline(&writer->files[i]);
    }
    if (writer_is_stuck(writer))
        return 0;
    if (deadline == TICK_NEVER)
        return -1;
    if (deadline <= now)
        return 0;
    return deadline - now > TICK_S(3600) ? 3600000 : (int)((deadline - now) / 1000 + 1);
}

/* How long to linger now, by what came since the last time. */
static uint32_t linger_choose(struct record_writer *writer)
{
    if (writer->woken_count > (uint64_t)LINGER_MANY * writer->linger_ms)
        writer->linger_ms = LINGER_MAX_MS;
    else if (writer->woken_count < (uint64_t)LINGER_MANY * writer->linger_ms * 3 / 4)
        writer->linger_ms = LINGER_MS;
    writer->woken_count = 0;
    return writer_is_stuck(writer) ? STUCK_MS : writer->linger_ms;
}

static void writer_sleep(struct record_writer *writer)
{
    struct timespec linger = {.tv_nsec = linger_choose(writer) * 1000000l};
    struct pollfd wait = {.fd = writer->eventfd, .events = POLLIN};
    uint64_t count;
    int patience = wait_ms(writer);

    nanosleep(&linger, NULL);
    atomic_store_explicit(&writer->is_asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* A, pairs with B in lane_emit() */
    if (!writer_has_work(writer))
        poll(&wait, 1, patience);
    atomic_store_explicit(&writer->is_asleep, false, memory_order_relaxed);
    ssize_t size = read(writer->eventfd, &count, sizeof(count));
    (void)size; /* EAGAIN: nobody had written */
}

static void *writer_main(void *argument)
{
    struct record_writer *writer = argument;

    for (uint64_t rounds_left = writer->lanes[0].ring.limit / DRAIN_BURST + 2;;) {
        /* Read before the rings are found empty: records emitted before the stop are written, and
         * so many rounds take them all, however fast a shard goes on emitting. */
        bool must_stop = atomic_load(&writer->must_stop);
        uint32_t count = writer_drain(writer);
        writer->woken_count += count;
        bool must_reopen = atomic_exchange(&writer->must_reopen, false);
        if (count == 0 || must_reopen || tick_read() >= writer->flushed + FLUSH_TIME)
            writer_flush(writer, must_reopen);
        if (must_stop && (count == 0 || --rounds_left == 0)) {
            writer_sync(writer);
            return NULL;
        }
        if (count == 0)
            writer_sleep(writer);
    }
}

/* ---- start and end ---- */

static void lanes_make(struct record_writer *writer, uint32_t limit)
{
    writer->lanes = aligned_alloc(CACHE_LINE, writer->lane_count * sizeof(struct lane));
    CHECK(writer->lanes != NULL);
    memset(writer->lanes, 0, writer->lane_count * sizeof(struct lane));
    for (uint32_t i = 0; i < writer->lane_count; i++) {
        record_ring_init(&writer->lanes[i].ring, limit);
        writer->lanes[i].writer = writer;
    }
    writer->mark.tails = calloc(writer->lane_count, sizeof(*writer->mark.tails));
    CHECK(writer->mark.tails != NULL);
}

static void writer_release(struct record_writer *writer)
{
    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i])
            record_file_close(&writer->files[i]);
    }
    for (uint32_t i = 0; i < writer->lane_count; i++)
        record_ring_free(&writer->lanes[i].ring);
    free(writer->lanes);
    free(writer->mark.tails);
    record_position_close(&writer->position);
    if (writer->eventfd >= 0)
        close(writer->eventfd);
    free(writer);
}

/* Open what is wanted; *ret_path: which could not be. */
static enum err files_open(struct record_writer *writer,
                           const struct record_writer_options *options, const char **ret_path)
{
    const struct record_file_options *wanted[FORMAT_COUNT] = {options->json, options->csv,
                                                              options->raw};
    bool must_sync = false;

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (wanted[i] == NULL)
            continue;
        *ret_path = wanted[i]->path;
        TRY(record_file_open(&writer->files[i], wanted[i]));
        writer->has_file[i] = true;
        writer->files[i].options.must_keep = options->must_hold;
        writer->files[i].options.turning = &writer->turning;
        must_sync = must_sync || wanted[i]->sync_time > 0;
    }
    record_position_none(&writer->position);
    if (options->position_path == NULL)
        return ERR_OK;
    *ret_path = options->position_path;
    TRY(record_position_open(&writer->position, options->position_path, must_sync));
    /* A first start that is killed before any mark is reached has records to tell again, too. */
    const struct tick_source *clock = tick_source_system();
    if (record_position_get(&writer->position) == INT64_MAX)
        record_position_set(&writer->position, clock->wall(clock->context));
    return ERR_OK;
}

enum err record_writer_new(const struct record_writer_options *options,
                           struct record_writer **ret_writer, const char **ret_path)
{
    struct record_writer *writer = calloc(1, sizeof(*writer));

    CHECK(writer != NULL && options->shard_count > 0 && options->buffer_count > 0);
    writer->lane_count = options->shard_count;
    writer->must_hold = options->must_hold;
    writer->hold_ms = options->hold_ms;
    writer->position.fd = -1;
    writer->linger_ms = LINGER_MS;
    writer->turning = options->is_turning_forbidden ? RECORD_TURNING_NOT : RECORD_TURNING_FREE;
    lanes_make(writer, options->buffer_count * (options->must_hold ? 4 : 1));
    writer->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (files_open(writer, options, ret_path) != ERR_OK || writer->eventfd < 0 ||
        (errno = pthread_create(&writer->thread, NULL, writer_main, writer)) != 0) {
        int error = errno;
        writer_release(writer);
        errno = error;
        return ERR_SYSTEM;
    }
    pthread_setname_np(writer->thread, "records");
    *ret_writer = writer;
    return ERR_OK;
}

bool record_writer_finish(struct record_writer *writer, uint32_t seconds)
{
    struct timespec until;

    atomic_store(&writer->must_stop, true);
    writer_wake(writer);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += seconds;
    writer->is_finished = pthread_timedjoin_np(writer->thread, NULL, &until) == 0;
    return writer->is_finished;
}

void record_writer_free(struct record_writer *writer)
{
    if (!writer->is_finished) {
        atomic_store(&writer->must_stop, true);
        writer_wake(writer);
        pthread_join(writer->thread, NULL);
    }
    writer_release(writer);
}

static const struct record_holder lane_holder = {
    .emitted = lane_emitted,
    .kept = lane_kept,
    .since = lane_since,
    .replayed = lane_replayed,
};

struct record_sink record_writer_sink(struct record_writer *writer, uint32_t shard)
{
    CHECK(shard < writer->lane_count);
    return (struct record_sink){
        .emit = lane_emit,
        .context = &writer->lanes[shard],
        .is_behind = lane_is_behind,
        .holder = &lane_holder,
        .is_holding = writer->must_hold,
    };
}

struct record_sink record_sink_none(void)
{
    return (struct record_sink){.emit = record_forget};
}

void record_writer_reopen(struct record_writer *writer)
{
    atomic_store(&writer->must_reopen, true);
    writer_wake(writer);
}

bool record_writer_turn_not(struct record_writer *writer)
{
    struct timespec moment = {.tv_nsec = 1000000};

    for (uint32_t i = 0; i < TURN_TRIES; i++) {
        uint32_t expected = RECORD_TURNING_FREE;
        if (atomic_compare_exchange_strong(&writer->turning, &expected, RECORD_TURNING_NOT) ||
            expected == RECORD_TURNING_NOT)
            return true;
        nanosleep(&moment, NULL);
    }
    return false;
}

void record_writer_turn(struct record_writer *writer)
{
    uint32_t expected = RECORD_TURNING_NOT;

    (void)atomic_compare_exchange_strong(&writer->turning, &expected, RECORD_TURNING_FREE);
    writer_wake(writer);
}

struct record_writer_stats record_writer_get_stats(const struct record_writer *writer)
{
    struct record_writer_stats stats = {
        .written = atomic_load_explicit(&writer->written, memory_order_relaxed),
        .dropped = atomic_load_explicit(&writer->lost, memory_order_relaxed),
        .write_failures = atomic_load_explicit(&writer->failures, memory_order_relaxed),
        .replayed = atomic_load_explicit(&writer->replayed, memory_order_relaxed),
    };

    for (uint32_t i = 0; i < writer->lane_count; i++) {
        const struct lane *lane = &writer->lanes[i];
        uint64_t head = record_ring_head(&lane->ring), tail = record_ring_tail(&lane->ring);
        stats.dropped += atomic_load_explicit(&lane->dropped, memory_order_relaxed);
        stats.is_holding |= writer->must_hold && tail - head > lane->ring.limit / HOLD_SHARE;
    }
    return stats;
}
