/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The record writer: one ring per shard, one thread that empties them into one file.
 *
 *   shard --record_ring_push()--> ring --writer_drain()--> line buffer --writer_flush()--> file
 *
 * Invariants
 *   1. Each ring has one producer (its shard) and one consumer (the writer): tail is written by the
 *      producer alone, head by the consumer alone; each publishes with release and reads the
 *      other's with acquire.
 *   2. A shard never waits. A full ring drops the record and counts it.
 *   3. Written + dropped = emitted, once the writer is freed.
 *   4. Lines are whole: after a write that ended in the middle, the next one starts on a new line.
 *
 * Sleep. The writer sets `is_asleep`, full fence (A), looks at the rings once more, then waits on
 * the eventfd. A producer publishes its tail, full fence (B), then looks at `is_asleep`. A pairs
 * with B: either the writer sees the record or the producer sees the flag. Before that the writer
 * lingers LINGER_MS, so that a busy shard writes the eventfd seldom.
 */
#include "control/record_writer.h"

#include <errno.h>
#include <fcntl.h>
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
#include "control/record_json.h"

#define LINE_BUFFER_SIZE (256u * 1024u)
#define DRAIN_BURST      256u
#define LINGER_MS        1
#define CACHE_LINE       64

struct record_ring {
    alignas(CACHE_LINE) _Atomic uint64_t tail; /* producer */
    uint64_t head_seen;
    _Atomic uint64_t dropped;
    alignas(CACHE_LINE) _Atomic uint64_t head; /* consumer */
    alignas(CACHE_LINE) struct record *slots;  /* nobody after the start, as all below */
    uint64_t mask;
    struct record_writer *writer;
};

struct record_writer {
    char *path;
    struct record_ring *rings;
    uint32_t ring_count;
    int fd, eventfd;
    pthread_t thread;
    bool is_finished; /* and joined */
    atomic_bool is_asleep, must_reopen, must_stop;

    /* the thread's own */
    char *lines;
    uint32_t lines_size, lines_count; /* octets, records */
    bool is_torn;                     /* the last write ended in the middle of a line */
    struct record_time time;

    _Atomic uint64_t written, dropped_unwritten, write_failures;
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

static void record_forget(void *context, const struct record *record)
{
    (void)context;
    (void)record;
}

/* ---- the thread ---- */

/* All octets, or false with errno; *ret_done octets were written. */
static bool write_all(int fd, const char *octets, uint32_t size, uint32_t *ret_done)
{
    *ret_done = 0;
    while (*ret_done < size) {
        ssize_t got = write(fd, octets + *ret_done, size - *ret_done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return false;
        *ret_done += (uint32_t)got;
    }
    return true;
}

static void writer_fail(struct record_writer *writer, uint32_t done)
{
    uint32_t whole = 0;

    for (uint32_t i = 0; i < done; i++)
        whole += writer->lines[i] == '\n';
    writer->is_torn = writer->is_torn || (done > 0 && writer->lines[done - 1] != '\n');
    atomic_fetch_add_explicit(&writer->written, whole, memory_order_relaxed);
    atomic_fetch_add_explicit(&writer->dropped_unwritten, writer->lines_count - whole,
                              memory_order_relaxed);
    if (atomic_fetch_add_explicit(&writer->write_failures, 1, memory_order_relaxed) == 0)
        log_line(LOG_ERROR, "records file=%s error=\"%s\": records are being dropped", writer->path,
                 strerror(errno));
}

static void writer_flush(struct record_writer *writer)
{
    uint32_t done;

    if (writer->lines_size == 0)
        return;
    if (writer->is_torn && write_all(writer->fd, "\n", 1, &done))
        writer->is_torn = false;
    if (write_all(writer->fd, writer->lines, writer->lines_size, &done))
        atomic_fetch_add_explicit(&writer->written, writer->lines_count, memory_order_relaxed);
    else
        writer_fail(writer, done);
    writer->lines_size = 0;
    writer->lines_count = 0;
}

static uint32_t ring_drain(struct record_writer *writer, struct record_ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    uint64_t count = atomic_load_explicit(&ring->tail, memory_order_acquire) - head;

    if (count > DRAIN_BURST)
        count = DRAIN_BURST;
    for (uint64_t i = 0; i < count; i++) {
        if (LINE_BUFFER_SIZE - writer->lines_size < RECORD_JSON_SIZE_MAX)
            writer_flush(writer);
        writer->lines_size += record_json_format(&ring->slots[(head + i) & ring->mask],
                                                 &writer->time, writer->lines + writer->lines_size);
        writer->lines_count++;
    }
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

static int file_open(const char *path)
{
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
}

static void writer_open_anew(struct record_writer *writer)
{
    int fd = file_open(writer->path);

    if (fd < 0) {
        log_line(LOG_ERROR, "records file=%s error=\"%s\": the old file is kept", writer->path,
                 strerror(errno));
        return;
    }
    close(writer->fd);
    writer->fd = fd;
    writer->is_torn = false;
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

static void writer_sleep(struct record_writer *writer)
{
    struct timespec linger = {.tv_nsec = LINGER_MS * 1000000l};
    struct pollfd wait = {.fd = writer->eventfd, .events = POLLIN};
    uint64_t count;

    nanosleep(&linger, NULL);
    atomic_store_explicit(&writer->is_asleep, true, memory_order_relaxed);
    atomic_thread_fence(memory_order_seq_cst); /* A, pairs with B in record_ring_push() */
    if (!writer_has_work(writer))
        poll(&wait, 1, -1);
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
            writer_flush(writer);
        if (must_reopen)
            writer_open_anew(writer);
        if (must_stop && (count == 0 || --rounds_left == 0)) {
            writer_flush(writer);
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
    for (uint32_t i = 0; i < writer->ring_count; i++)
        free(writer->rings[i].slots);
    free(writer->rings);
    free(writer->lines);
    free(writer->path);
    if (writer->fd >= 0)
        close(writer->fd);
    if (writer->eventfd >= 0)
        close(writer->eventfd);
    free(writer);
}

enum err record_writer_new(const struct record_writer_options *options,
                           struct record_writer **ret_writer)
{
    struct record_writer *writer = calloc(1, sizeof(*writer));

    CHECK(writer != NULL && options->shard_count > 0 && options->buffer_count > 0);
    writer->ring_count = options->shard_count;
    writer->path = strdup(options->path);
    writer->lines = malloc(LINE_BUFFER_SIZE);
    CHECK(writer->path != NULL && writer->lines != NULL);
    rings_make(writer, options->buffer_count);
    writer->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    writer->fd = file_open(writer->path);
    if (writer->fd < 0 || writer->eventfd < 0 ||
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
    return (struct record_sink){record_ring_push, &writer->rings[shard]};
}

struct record_sink record_sink_none(void)
{
    return (struct record_sink){record_forget, NULL};
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
        .dropped = atomic_load_explicit(&writer->dropped_unwritten, memory_order_relaxed),
        .write_failures = atomic_load_explicit(&writer->write_failures, memory_order_relaxed),
    };

    for (uint32_t i = 0; i < writer->ring_count; i++)
        stats.dropped += atomic_load_explicit(&writer->rings[i].dropped, memory_order_relaxed);
    return stats;
}
