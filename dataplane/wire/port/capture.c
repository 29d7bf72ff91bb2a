/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames on their way from stacks to a pcap file.
 *
 * A ring per stack, one producer (its shard) and one consumer (the control thread), of records:
 *
 *   record   size, captured, original (4 octets each), reserved, time (8), octets; to a multiple of
 * 8 filler   size with FILLER set: the rest of the ring up to its end
 *
 * A record lies in one piece. head and tail only grow; their difference is what is in use. The
 * producer writes octets, then stores tail (release); the consumer loads tail (acquire), reads,
 * then stores head (release), which the producer loads (acquire) before it writes there again.
 *
 * A chain is gathered in the ring and filtered there, so that the filter sees all that is captured
 * of it; if it does not match, tail just stays. A frame in one buffer is filtered where it is.
 *
 * The file (all numbers in the order of this machine, as readers expect and recognise):
 *
 *   header   magic a1b2c3d4, version 2.4, zone 0, accuracy 0, snap size, link type   24 octets
 *   frame    seconds, microseconds, octets captured, octets of the frame             16 octets
 *            and the octets captured
 *
 * Invariants
 *   1. The file never exceeds size_max nor holds more than frames_max frames. Its frames are whole,
 *      but for the last one when the disk fails, or who reads a stream is still behind at the end.
 *   2. Among what the rings hold at the same time, frames are written in the order of their times.
 */
#include "dataplane/wire/port/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#define RING_SIZE      (1u << 20) /* a power of two; 16 of the longest frames, 700 usual ones */
#define FILLER         (1u << 31)
#define ROOM           (1u << 17) /* what goes out at once: the longest frame, and more */
#define SIZE_MAX_LEAST 4096u
#define MAGIC          0xa1b2c3d4u
#define LINK_ETHERNET  1u
#define LINK_IP        101u
#define LINE           64u

struct record {
    uint32_t size; /* with this header, a multiple of 8; or FILLER | octets */
    uint32_t captured, original;
    uint32_t reserved;
    tick_us time;
};
_Static_assert(sizeof(struct record) % 8 == 0 && sizeof(struct record) == 24, "records align");

struct file_header {
    uint32_t magic;
    uint16_t version_major, version_minor;
    uint32_t zone, accuracy, snap_size, link;
};
_Static_assert(sizeof(struct file_header) == 24, "as in the file");

struct frame_header {
    uint32_t seconds, microseconds, captured, original;
};
_Static_assert(sizeof(struct frame_header) == 16, "as in the file");
_Static_assert(ROOM >= sizeof(struct frame_header) + CAPTURE_SNAP_MAX, "a frame fits");

struct source {
    struct capture *capture;
    uint8_t *ring;
    _Alignas(LINE) _Atomic uint64_t tail; /* the shard's */
    _Atomic uint64_t dropped;
    _Alignas(LINE) _Atomic uint64_t head; /* the control thread's */
};

struct capture {
    struct capture_filter *filter;
    int fd; /* of the file, or the stream; -1: none yet */
    bool is_stream, is_stopping;
    uint8_t *room; /* `held` octets that are to go out, of which `given` did */
    uint32_t held, given;
    uint32_t snap_size, frames_max, port, source_count;
    uint64_t size_max;
    wall_us offset; /* wall time - tick */
    struct capture_stats stats;
    _Atomic bool is_over;
    struct source *sources;
};

/* ---- shards ---- */

/* Room for `size` octets in one piece at `*ret_tail`, behind a filler if it must be. */
static struct record *ring_reserve(struct source *source, uint32_t size, uint64_t *ret_tail)
{
    uint64_t tail = atomic_load_explicit(&source->tail, memory_order_relaxed);
    uint64_t head = atomic_load_explicit(&source->head, memory_order_acquire);
    uint32_t at = (uint32_t)(tail & (RING_SIZE - 1)), to_end = RING_SIZE - at;
    uint32_t filler = to_end < size ? to_end : 0;

    if (RING_SIZE - (tail - head) < (uint64_t)filler + size)
        return NULL;
    if (filler > 0) {
        uint32_t mark = FILLER | filler;

        memcpy(source->ring + at, &mark, sizeof(mark));
        at = 0;
    }
    *ret_tail = tail + filler;
    return (struct record *)(void *)(source->ring + at);
}

/* The first `size` octets of a chain. */
static void gather(const struct buf *frame, uint8_t *ret_octets, uint32_t size)
{
    for (const struct rte_mbuf *at = &frame->mbuf; at != NULL && size > 0; at = at->next) {
        uint32_t part = at->data_len < size ? at->data_len : size;

        memcpy(ret_octets, (const uint8_t *)at->buf_addr + at->data_off, part);
        ret_octets += part;
        size -= part;
    }
}

static uint32_t chain_size(const struct buf *frame)
{
    uint32_t size = 0;

    for (const struct rte_mbuf *at = &frame->mbuf; at != NULL; at = at->next)
        size += at->data_len;
    return size;
}

static bool first_buffer_matches(const struct capture *capture, const struct buf *frame,
                                 uint32_t size)
{
    return capture_filter_matches(capture->filter, span_of(buf_data(frame), buf_size(frame)), size);
}

/* Nothing is known of what lies behind the first buffer: such a frame may be counted wrongly. */
static void drop(struct source *source, const struct buf *frame, uint32_t size)
{
    if (first_buffer_matches(source->capture, frame, size)) {
        uint64_t dropped = atomic_load_explicit(&source->dropped, memory_order_relaxed);

        atomic_store_explicit(&source->dropped, dropped + 1, memory_order_relaxed);
    }
}

void capture_tap(void *context, uint32_t port, bool is_sent, const struct buf *frame, tick_us now)
{
    struct source *source = context;
    const struct capture *capture = source->capture;
    uint64_t tail = 0;

    (void)is_sent;
    if (atomic_load_explicit(&capture->is_over, memory_order_relaxed) ||
        (capture->port != CAPTURE_EVERY_PORT && capture->port != port)) {
        return;
    }
    bool is_chain = frame->mbuf.next != NULL;
    uint32_t size = is_chain ? chain_size(frame) : buf_size(frame);
    if (!is_chain && !first_buffer_matches(capture, frame, size))
        return;

    uint32_t captured = size < capture->snap_size ? size : capture->snap_size;
    uint32_t record_size = ((uint32_t)sizeof(struct record) + captured + 7) / 8 * 8;
    struct record *record = ring_reserve(source, record_size, &tail);
    if (record == NULL) {
        drop(source, frame, size);
        return;
    }
    uint8_t *octets = (uint8_t *)(record + 1);
    gather(frame, octets, captured);
    if (is_chain && !capture_filter_matches(capture->filter, span_of(octets, captured), size))
        return;
    *record =
        (struct record){.size = record_size, .captured = captured, .original = size, .time = now};
    atomic_store_explicit(&source->tail, tail + record_size, memory_order_release);
}

/* ---- the control thread ---- */

/* The oldest record of a ring; NULL: none. Goes past fillers. */
static const struct record *ring_peek(struct source *source)
{
    uint64_t tail = atomic_load_explicit(&source->tail, memory_order_acquire);
    uint64_t head = atomic_load_explicit(&source->head, memory_order_relaxed);
    uint32_t mark;

    if (head == tail)
        return NULL;
    memcpy(&mark, source->ring + (head & (RING_SIZE - 1)), sizeof(mark));
    if ((mark & FILLER) != 0) {
        head += mark & ~FILLER;
        atomic_store_explicit(&source->head, head, memory_order_release);
    }
    return (const struct record *)(const void *)(source->ring + (head & (RING_SIZE - 1)));
}

static void ring_drop_first(struct source *source, const struct record *record)
{
    uint64_t head = atomic_load_explicit(&source->head, memory_order_relaxed);

    atomic_store_explicit(&source->head, head + record->size, memory_order_release);
}

static void end(struct capture *capture, enum err err)
{
    capture->stats.err = err;
    atomic_store_explicit(&capture->is_over, true, memory_order_relaxed);
}

/* False: not all of it is out, as a reader is behind, or never will be. */
static bool room_flush(struct capture *capture)
{
    while (capture->given < capture->held) {
        const uint8_t *octets = capture->room + capture->given;
        size_t size = capture->held - capture->given;
        ssize_t got = capture->is_stream
                          ? send(capture->fd, octets, size, MSG_NOSIGNAL | MSG_DONTWAIT)
                          : write(capture->fd, octets, size);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0 && capture->is_stream && errno == EAGAIN)
            return false;
        if (got <= 0) {
            end(capture, ERR_DISK_IO);
            return false;
        }
        capture->given += (uint32_t)got;
    }
    capture->held = capture->given = 0;
    return true;
}

static void room_add(struct capture *capture, const void *octets, uint32_t size)
{
    CHECK(size <= ROOM - capture->held);
    memcpy(capture->room + capture->held, octets, size);
    capture->held += size;
}

/* Of a stream: nobody reads it any more. */
static bool reader_has_left(const struct capture *capture)
{
    struct pollfd look = {.fd = capture->fd, .events = POLLRDHUP};

    return capture->is_stream && poll(&look, 1, 0) > 0;
}

/* False: the file ends here, or there is no room for more now. */
static bool write_record(struct capture *capture, const struct record *record)
{
    uint64_t wall = (uint64_t)(capture->offset + (wall_us)record->time);
    const struct frame_header header = {
        .seconds = (uint32_t)(wall / 1000000),
        .microseconds = (uint32_t)(wall % 1000000),
        .captured = record->captured,
        .original = record->original,
    };
    uint64_t size = sizeof(header) + record->captured;

    if (capture->stats.written == capture->frames_max ||
        capture->stats.size + size > capture->size_max) {
        end(capture, ERR_LIMIT);
        return false;
    }
    if (size > ROOM - capture->held && !room_flush(capture))
        return false;
    room_add(capture, &header, sizeof(header));
    room_add(capture, record + 1, record->captured);
    capture->stats.written++;
    capture->stats.size += size;
    return true;
}

/* Whose oldest record is the oldest of all. */
static struct source *oldest_source(struct capture *capture, const struct record **ret_record)
{
    struct source *oldest = NULL;

    for (uint32_t i = 0; i < capture->source_count; i++) {
        const struct record *record = ring_peek(&capture->sources[i]);

        if (record != NULL && (oldest == NULL || record->time < (*ret_record)->time)) {
            oldest = &capture->sources[i];
            *ret_record = record;
        }
    }
    return oldest;
}

bool capture_drain(struct capture *capture)
{
    /* Bounded: what shards add meanwhile waits for the next call. */
    uint32_t records_max = capture->source_count * (RING_SIZE / sizeof(struct record));
    const struct record *record = NULL;

    for (uint32_t i = 0; i < records_max && capture->stats.err == ERR_OK; i++) {
        struct source *source = oldest_source(capture, &record);

        if (source == NULL || !write_record(capture, record))
            break;
        ring_drop_first(source, record);
    }
    (void)room_flush(capture); /* what came before a bound, too */
    if (capture->stats.err != ERR_DISK_IO && reader_has_left(capture))
        end(capture, ERR_DISK_IO);
    bool is_out = capture->held == 0;
    if (capture->is_stopping && is_out && capture->stats.err == ERR_OK &&
        oldest_source(capture, &record) == NULL)
        end(capture, ERR_LIMIT);
    return capture->stats.err == ERR_OK || (capture->stats.err == ERR_LIMIT && !is_out);
}

void capture_stop(struct capture *capture)
{
    capture->is_stopping = true;
    atomic_store_explicit(&capture->is_over, true, memory_order_relaxed);
}

struct capture_stats capture_get_stats(const struct capture *capture)
{
    struct capture_stats stats = capture->stats;

    for (uint32_t i = 0; i < capture->source_count; i++)
        stats.dropped += atomic_load_explicit(&capture->sources[i].dropped, memory_order_relaxed);
    return stats;
}

/* ---- start and end ---- */

static enum err open_file(struct capture *capture, const struct capture_options *options,
                          char *error)
{
    const struct file_header header = {
        .magic = MAGIC,
        .version_major = 2,
        .version_minor = 4,
        .snap_size = capture->snap_size,
        .link = options->is_l3 ? LINK_IP : LINK_ETHERNET,
    };

    capture->is_stream = options->path == NULL;
    capture->fd =
        capture->is_stream
            ? options->stream
            : open(options->path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (capture->fd >= 0) {
        room_add(capture, &header, sizeof(header));
        capture->stats.size = sizeof(header);
        if (room_flush(capture))
            return ERR_OK;
    }
    snprintf(error, CAPTURE_ERROR_SIZE, "%s: %s", capture->is_stream ? "stream" : options->path,
             strerror(errno));
    if (capture->is_stream)
        capture->fd = -1; /* the caller's */
    return ERR_DISK_IO;
}

static void make_sources(struct capture *capture, uint32_t count)
{
    capture->sources = aligned_alloc(LINE, count * sizeof(*capture->sources));
    CHECK(capture->sources != NULL);
    memset(capture->sources, 0, count * sizeof(*capture->sources));
    capture->source_count = count;
    for (uint32_t i = 0; i < count; i++) {
        capture->sources[i].capture = capture;
        capture->sources[i].ring = malloc(RING_SIZE);
        CHECK(capture->sources[i].ring != NULL);
    }
}

enum err capture_new(const struct capture_options *options, struct capture **ret_capture,
                     char ret_error[CAPTURE_ERROR_SIZE])
{
    CHECK(options->source_count > 0 && options->source_count <= STACK_CORE_MAX);
    CHECK(options->size_max >= SIZE_MAX_LEAST && options->frames_max > 0);
    CHECK(options->snap_size <= CAPTURE_SNAP_MAX);
    struct capture *capture = calloc(1, sizeof(*capture));
    CHECK(capture != NULL);
    capture->snap_size = options->snap_size > 0 ? options->snap_size : CAPTURE_SNAP_MAX;
    capture->frames_max = options->frames_max;
    capture->size_max = options->size_max;
    capture->port = options->port;
    capture->offset = options->now.wall - (wall_us)options->now.tick;
    capture->fd = -1;
    capture->room = malloc(ROOM);
    CHECK(capture->room != NULL);
    make_sources(capture, options->source_count);

    enum err err = capture_filter_new(options->filter, options->is_l3, &capture->filter, ret_error);
    if (err == ERR_OK)
        err = open_file(capture, options, ret_error);
    if (err != ERR_OK) {
        (void)capture_free(capture);
        return err;
    }
    *ret_capture = capture;
    return ERR_OK;
}

struct capture_stats capture_free(struct capture *capture)
{
    if (capture->fd >= 0) {
        (void)capture_drain(capture);
        if (close(capture->fd) != 0 && capture->stats.err == ERR_OK)
            capture->stats.err = ERR_DISK_IO;
    }
    struct capture_stats stats = capture_get_stats(capture);

    for (uint32_t i = 0; i < capture->source_count; i++)
        free(capture->sources[i].ring);
    free(capture->sources);
    free(capture->room);
    capture_filter_free(capture->filter);
    free(capture);
    return stats;
}

void *capture_source(struct capture *capture, uint32_t index)
{
    CHECK(index < capture->source_count);
    return &capture->sources[index];
}
