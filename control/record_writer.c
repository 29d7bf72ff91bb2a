/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record writer: one ring per shard, one thread that empties them into files (record_file.h).
 *
 *   shard --record_ring_push()--> ring --writer_drain()--> lines --writer_flush()--> files
 *
 * Invariants
 *   1. Each ring has one producer (its shard) and one consumer (the writer): tail is written by the
 *      producer alone, head by the consumer alone; each publishes with release and reads the
 *      other's with acquire.
 *   2. A shard never waits. A full ring drops the record and counts it.
 *   3. With one file of JSON, written + dropped = emitted, once the writer is freed.
 *
 * Sleep. The writer sets `is_asleep`, full fence (A), looks at the rings once more, then waits on
 * the eventfd. A producer publishes its tail, full fence (B), then looks at `is_asleep`. A pairs
 * with B: either the writer sees the record or the producer sees the flag. Before that the writer
 * lingers LINGER_MS, so that a busy shard writes the eventfd seldom.
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

#define DRAIN_BURST 256u
#define LINGER_MS   1
#define CACHE_LINE  64

struct record_ring {
    alignas(CACHE_LINE) _Atomic uint64_t tail; /* producer */
    uint64_t head_seen;
    _Atomic uint64_t dropped;
    alignas(CACHE_LINE) _Atomic uint64_t head; /* consumer */
    alignas(CACHE_LINE) struct record *slots;  /* nobody after the start, as all below */
    uint64_t mask;
    struct record_writer *writer;
};

enum format { FORMAT_JSON, FORMAT_CSV, FORMAT_COUNT };

struct record_writer {
    struct record_ring *rings;
    uint32_t ring_count;
    int eventfd;
    pthread_t thread;
    bool is_finished; /* and joined */
    atomic_bool is_asleep, must_reopen, must_stop;

    /* the thread's own */
    struct record_file files[FORMAT_COUNT];
    bool has_file[FORMAT_COUNT];
    struct record_time time;

    _Atomic uint64_t written, lost, failures; /* of the files, for others to read */
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

static void record_ring_push(void *context, const struct record *record)
{
    struct record_ring *ring = context;
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);

    if (tail - ring->head_seen > ring->mask)
        ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
    if (tail - ring->head_seen > ring->mask) {
        atomic_fetch_add_explicit(&ring->dropped, 1, memory_order_relaxed);
        return;
    }
    ring->slots[tail & ring->mask] = *record;
    atomic_store_explicit(&ring->tail, tail + 1, memory_order_release);
    atomic_thread_fence(memory_order_seq_cst); /* B, pairs with A in writer_sleep() */
    if (atomic_load_explicit(&ring->writer->is_asleep, memory_order_relaxed))
        writer_wake(ring->writer);
}

static bool record_ring_is_behind(void *context)
{
    struct record_ring *ring = context;

    ring->head_seen = atomic_load_explicit(&ring->head, memory_order_acquire);
    uint64_t used = atomic_load_explicit(&ring->tail, memory_order_relaxed) - ring->head_seen;
    return used > ring->mask / 2 + 1;
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
    stats_publish(writer);
}

static void record_write(struct record_writer *writer, const struct record *record, tick_us now)
{
    struct record_file *json = &writer->files[FORMAT_JSON], *csv = &writer->files[FORMAT_CSV];

    if (writer->has_file[FORMAT_JSON])
        record_file_take(json,
                         record_json_format(record, &writer->time,
                                            record_file_room(json, RECORD_JSON_SIZE_MAX, now)));
    if (!writer->has_file[FORMAT_CSV])
        return;
    uint32_t size = record_csv_format(record, record_file_room(csv, RECORD_CSV_SIZE_MAX, now));
    if (size > 0)
        record_file_take(csv, size);
}

static uint32_t ring_drain(struct record_writer *writer, struct record_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t count = atomic_load_explicit(&ring->tail, memory_order_acquire) - head;

    if (count == 0)
        return 0;
    if (count > DRAIN_BURST)
        count = DRAIN_BURST;
    tick_us now = tick_read();
    for (uint64_t i = 0; i < count; i++)
        record_write(writer, &ring->slots[(head + i) & ring->mask], now);
    atomic_store_explicit(&ring->head, head + count, memory_order_release);
    return (uint32_t)count;
}

/* One burst of every ring; returns how many records there were. */
static uint32_t writer_drain(struct record_writer *writer)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < writer->ring_count; i++)
        count += ring_drain(writer, &writer->rings[i]);
    return count;
}

static bool writer_has_work(const struct record_writer *writer)
{
    for (uint32_t i = 0; i < writer->ring_count; i++) {
        const struct record_ring *ring = &writer->rings[i];
        if (atomic_load_explicit(&ring->tail, memory_order_acquire) !=
            atomic_load_explicit(&ring->head, memory_order_relaxed))
            return true;
    }
    return atomic_load(&writer->must_stop) || atomic_load(&writer->must_reopen);
}

/* Until a file is to be turned over or synced; -1: for as long as nothing comes. */
static int wait_ms(const struct record_writer *writer)
{
    tick_us deadline = TICK_NEVER, now = tick_read();

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i] && record_file_deadline(&writer->files[i]) < deadline)
            deadline = record_file_deadline(&writer->files[i]);
    }
    if (deadline == TICK_NEVER)
        return -1;
    if (deadline <= now)
        return 0;
    return deadline - now > TICK_S(3600) ? 3600000 : (int)((deadline - now) / 1000 + 1);
}

static void writer_sleep(struct record_writer *writer)
{
    struct timespec linger = {.tv_nsec = LINGER_MS * 1000000l};
    struct pollfd wait = {.fd = writer->eventfd, .events = POLLIN};
    uint64_t count;
    int patience = wait_ms(writer);

    nanosleep(&linger, NULL);
    atomic_store_explicit(&writer->is_asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* A, pairs with B in record_ring_push() */
    if (!writer_has_work(writer))
        poll(&wait, 1, patience);
    atomic_store_explicit(&writer->is_asleep, false, memory_order_relaxed);
    ssize_t size = read(writer->eventfd, &count, sizeof(count));
    (void)size; /* EAGAIN: nobody had written */
}

static void *writer_main(void *argument)
{
    struct record_writer *writer = argument;

    for (uint64_t rounds_left = writer->rings[0].mask / DRAIN_BURST + 2;;) {
        /* Read before the rings are found empty: records emitted before the stop are written, and
         * so many rounds take them all, however fast a shard goes on emitting. */
        bool must_stop = atomic_load(&writer->must_stop);
        uint32_t count = writer_drain(writer);
        bool must_reopen = atomic_exchange(&writer->must_reopen, false);
        if (count == 0 || must_reopen)
            writer_flush(writer, must_reopen);
        if (must_stop && (count == 0 || --rounds_left == 0)) {
            writer_flush(writer, false);
            return NULL;
        }
        if (count == 0)
            writer_sleep(writer);
    }
}

/* ---- start and end ---- */

static void rings_make(struct record_writer *writer, uint32_t buffer_count)
{
    uint64_t slots = 1;

    while (slots < buffer_count)
        slots *= 2;
    writer->rings = aligned_alloc(CACHE_LINE, writer->ring_count * sizeof(struct record_ring));
    CHECK(writer->rings != NULL);
    memset(writer->rings, 0, writer->ring_count * sizeof(struct record_ring));
    for (uint32_t i = 0; i < writer->ring_count; i++) {
        writer->rings[i].slots = calloc(slots, sizeof(struct record));
        writer->rings[i].mask = slots - 1;
        writer->rings[i].writer = writer;
        CHECK(writer->rings[i].slots != NULL);
    }
}

static void writer_release(struct record_writer *writer)
{
    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (writer->has_file[i])
            record_file_close(&writer->files[i]);
    }
    for (uint32_t i = 0; i < writer->ring_count; i++)
        free(writer->rings[i].slots);
    free(writer->rings);
    if (writer->eventfd >= 0)
        close(writer->eventfd);
    free(writer);
}

/* Open what is wanted; *ret_path: which could not be. */
static enum err files_open(struct record_writer *writer,
                           const struct record_writer_options *options, const char **ret_path)
{
    const struct record_file_options *wanted[FORMAT_COUNT] = {options->json, options->csv};

    for (uint32_t i = 0; i < FORMAT_COUNT; i++) {
        if (wanted[i] == NULL)
            continue;
        *ret_path = wanted[i]->path;
        TRY(record_file_open(&writer->files[i], wanted[i]));
        writer->has_file[i] = true;
    }
    return ERR_OK;
}

enum err record_writer_new(const struct record_writer_options *options,
                           struct record_writer **ret_writer, const char **ret_path)
{
    struct record_writer *writer = calloc(1, sizeof(*writer));

    CHECK(writer != NULL && options->shard_count > 0 && options->buffer_count > 0);
    writer->ring_count = options->shard_count;
    rings_make(writer, options->buffer_count);
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

struct record_sink record_writer_sink(struct record_writer *writer, uint32_t shard)
{
    CHECK(shard < writer->ring_count);
    return (struct record_sink){record_ring_push, &writer->rings[shard], record_ring_is_behind};
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

struct record_writer_stats record_writer_get_stats(const struct record_writer *writer)
{
    struct record_writer_stats stats = {
        .written = atomic_load_explicit(&writer->written, memory_order_relaxed),
        .dropped = atomic_load_explicit(&writer->lost, memory_order_relaxed),
        .write_failures = atomic_load_explicit(&writer->failures, memory_order_relaxed),
    };

    for (uint32_t i = 0; i < writer->ring_count; i++)
        stats.dropped += atomic_load_explicit(&writer->rings[i].dropped, memory_order_relaxed);
    return stats;
}
