/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shard that is measured: what relay/transfer does with a message, without a session around it.
 *
 * A message is one recipient at one of SHARD_DOMAINS domains. Its body comes from buffers that are
 * used in turn, so that it is as cold in the cache as one that was received. Between commits the
 * shard sleeps on the disk's eventfd, as the relay does.
 */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "bench/queue/queue_bench.h"

#define SEGMENT_SIZE   (64u << 20) /* the daemon's defaults */
#define SPARE_COUNT    2u
#define ENVELOPE_SIZE  1024u
#define EVENTS_MAX     256u
#define ADOPTION_SLICE 512u /* as the daemon's shards do it */
#define LIFETIME_US    (5ll * 86400 * 1000000)

static void die(const char *what, enum err err)
{
    (void)fprintf(stderr, "bench_queue: %s: %s\n", what, err_text(err));
    exit(1);
}

/* ---- clocks and meters ---- */

static double seconds_of(clockid_t clock)
{
    struct timespec time;
    CHECK(clock_gettime(clock, &time) == 0);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

double cpu_thread(void)
{
    return seconds_of(CLOCK_THREAD_CPUTIME_ID);
}

double cpu_process(void)
{
    return seconds_of(CLOCK_PROCESS_CPUTIME_ID);
}

double seconds_now(void)
{
    return seconds_of(CLOCK_MONOTONIC);
}

uint64_t memory_resident(void)
{
    unsigned long pages = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    CHECK(file != NULL);
    CHECK(fscanf(file, "%*u %lu", &pages) == 1);
    (void)fclose(file);
    return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

uint64_t memory_highest(void)
{
    struct rusage usage;
    CHECK(getrusage(RUSAGE_SELF, &usage) == 0);
    return (uint64_t)usage.ru_maxrss * 1024;
}

static struct tick_now real_now(void)
{
    return tick_now_read(tick_source_system());
}

struct tick_now shard_now(const struct shard *shard)
{
    struct tick_now now = real_now();
    now.tick += shard->ahead;
    now.wall += (wall_us)shard->ahead;
    return now;
}

/* ---- life ---- */

static void on_done(void *context, struct spool_entry *entry)
{
    spool_done(((struct shard *)context)->spool, entry);
}

static void on_line_gone(void *context, void *user)
{
    (void)context;
    (void)user;
}

static void on_expired(void *context, const struct envelope *envelope, uint32_t recipient_index)
{
    (void)context;
    (void)envelope;
    (void)recipient_index;
}

static void shard_fill_buffers(struct shard *shard)
{
    for (uint32_t i = 0; i < SHARD_BUFFER_COUNT; i++) {
        struct buf *buf = buf_acquire(shard->pool);
        CHECK(buf != NULL);
        rng_fill(&shard->rng, buf_data(buf), SHARD_BUFFER_SIZE);
        buf_extend(buf, SHARD_BUFFER_SIZE);
        shard->buffers[i] = buf;
    }
}

uint64_t epoch_next(const struct shard_options *options)
{
    struct disk *disk;
    uint64_t epoch = 0;
    enum err err = disk_new(options->directory, DISK_KIND_THREAD, &disk);
    if (err != ERR_OK)
        die(options->directory, err);
    err = spool_epoch_next(disk, &epoch);
    if (err != ERR_OK)
        die("spool", err);
    disk_free(disk);
    return epoch;
}

struct shard *shard_new(const struct shard_options *options)
{
    struct shard *shard = calloc(1, sizeof(*shard));
    CHECK(shard != NULL);
    shard->options = *options;
    uint64_t epoch = options->epoch > 0 ? options->epoch : epoch_next(options);
    rng_init_seed(&shard->rng, epoch * SHARD_COUNT_MAX + options->shard); /* salts and ids differ */
    shard->pool = buf_pool_new(&(struct buf_pool_options){.data_size = SHARD_BUFFER_SIZE,
                                                          .count_max = SHARD_BUFFER_COUNT + 4096});
    shard_fill_buffers(shard);
    enum err err = disk_new(options->directory, options->kind, &shard->disk);
    if (err != ERR_OK)
        die(options->directory, err);
    struct spool_options spool = {
        .segment_size = SEGMENT_SIZE,
        .size_max = options->size_max,
        .reserve_size = SEGMENT_SIZE,
        .segment_spare_min = SPARE_COUNT,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_S(1),
        .pool = shard->pool,
        .shard = options->shard,
        .epoch = epoch,
    };
    err = spool_new(&spool, shard->disk, &shard->rng, real_now(), &shard->spool);
    if (err != ERR_OK)
        die("spool", err);
    struct qmgr_options qmgr = {
        .message_count_max = options->message_count_max,
        .body_memory_max = 64u << 20,
        .retry_min = TICK_S(SHARD_RETRY_SECONDS),
        .retry_max = TICK_S(4 * SHARD_RETRY_SECONDS),
        .context = shard,
        .on_done = on_done,
        .on_line_gone = on_line_gone,
        .on_expired = on_expired,
    };
    shard->qmgr = qmgr_new(&qmgr, shard->spool, &shard->rng, shard_now(shard));
    return shard;
}

void shard_settle(struct shard *shard)
{
    spool_flush(shard->spool);
    while (!spool_is_idle(shard->spool))
        shard_turn(shard);
}

void shard_free(struct shard *shard)
{
    shard_settle(shard);
    qmgr_free(shard->qmgr);
    spool_free(shard->spool);
    disk_free(shard->disk);
    for (uint32_t i = 0; i < SHARD_BUFFER_COUNT; i++)
        buf_release(shard->buffers[i]);
    buf_pool_free(shard->pool);
    free(shard);
}

/* ---- messages ---- */

static void body_make(struct shard *shard, struct buf_queue *ret_body)
{
    buf_queue_init(ret_body);
    for (uint32_t left = shard->options.body_size; left > 0;) {
        uint32_t size = left < SHARD_BUFFER_SIZE ? left : SHARD_BUFFER_SIZE;
        buf_queue_append(ret_body, shard->buffers[shard->buffer_next], BUF_HEADROOM, size);
        shard->buffer_next = (shard->buffer_next + 1) % SHARD_BUFFER_COUNT;
        left -= size;
    }
}

/* What printf() would take is none of the queue's time. */
static uint32_t text_put(char *to, const char *text, uint64_t number, uint32_t digits)
{
    uint32_t size = (uint32_t)strlen(text);

    memcpy(to, text, size);
    for (uint32_t i = digits; i-- > 0; number /= 10)
        to[size + i] = (char)('0' + number % 10);
    return size + digits;
}

static struct span envelope_make(const struct shard *shard, struct message_id id,
                                 uint8_t encoded[ENVELOPE_SIZE])
{
    char address[96] UNINITIALIZED;
    uint32_t local_size = text_put(address, "someone.else", shard->entered % 1000000, 6);
    uint32_t size =
        local_size + text_put(address + local_size, "@example", shard->entered % SHARD_DOMAINS, 3);
    size += text_put(address + size, ".test", 0, 0);
    struct span whole = span_of(address, size);
    struct envelope_recipient recipient = {
        .address = whole,
        .domain = span_skip(whole, local_size + 1),
    };
    wall_us wall = shard_now(shard).wall;
    struct envelope envelope = {
        .id = id,
        .arrived = wall,
        .expires = wall + LIFETIME_US,
        .body_size = shard->options.body_size,
        .header_size = shard->options.body_size / 4,
        .sender = SPAN_LITERAL("news-bounces+4711@sender.example.test"),
        .client = SPAN_LITERAL("mail.sender.example.test [192.0.2.17]"),
        .recipients = &recipient,
        .recipient_count = 1,
    };
    uint32_t encoded_size = envelope_encoded_size(&envelope);
    CHECK(encoded_size <= ENVELOPE_SIZE);
    envelope_encode(&envelope, encoded);
    return span_of(encoded, encoded_size);
}

/* What a COMMITTED needs to know of its message. */
struct passage {
    uint32_t size;
    uint8_t encoded[];
};

bool shard_enter(struct shard *shard)
{
    struct message_id id = {(uint64_t)real_now().wall, rng_u64(&shard->rng)};
    struct spool_transaction *transaction =
        spool_begin(shard->spool, id, shard->options.body_size, false);
    if (transaction == NULL) {
        shard->refused++;
        return false;
    }
    struct buf_queue body;
    body_make(shard, &body);
    enum err err = spool_write_body(shard->spool, transaction, &body);
    buf_queue_fini(&body);
    if (err != ERR_OK)
        die("write", err);
    uint8_t octets[ENVELOPE_SIZE] UNINITIALIZED;
    struct span encoded = envelope_make(shard, id, octets);
    struct passage *passage = malloc(sizeof(*passage) + encoded.size);
    CHECK(passage != NULL);
    passage->size = encoded.size;
    memcpy(passage->encoded, encoded.data, encoded.size);
    shard->entered++;
    spool_commit(shard->spool, transaction, encoded, (uintptr_t)passage);
    return true;
}

static void shard_on_event(struct shard *shard, struct spool_event *event)
{
    if (qmgr_owns_token(event->token)) {
        qmgr_on_read(shard->qmgr, event, shard_now(shard));
        return;
    }
    struct passage *passage = (struct passage *)(uintptr_t)event->token;
    shard->committed += event->err == ERR_OK;
    shard->failed += event->err != ERR_OK;
    if (event->err == ERR_OK && shard->options.fate == FATE_SETTLED) {
        spool_done(shard->spool, event->entry);
    } else if (event->err == ERR_OK) {
        struct qmgr_insert insert = {.encoded = span_of(passage->encoded, passage->size),
                                     .is_new = true,
                                     .entry = event->entry};
        enum err err = qmgr_insert(shard->qmgr, &insert, shard_now(shard));
        if (err != ERR_OK)
            die("insert", err);
    }
    free(passage);
}

void shard_turn(struct shard *shard)
{
    struct spool_event events[EVENTS_MAX];
    uint32_t count = spool_poll(shard->spool, real_now(), events, EVENTS_MAX);
    for (uint32_t i = 0; i < count; i++)
        shard_on_event(shard, &events[i]);
    if (count > 0)
        return;
    struct pollfd event = {.fd = disk_eventfd(shard->disk), .events = POLLIN};
    (void)poll(&event, 1, 1);
}

/* ---- attempts ---- */

static void delivery_attempt(struct shard *shard, struct qmgr_delivery *delivery,
                             struct tick_now now)
{
    static const struct span reply = {(const uint8_t *)"451 4.7.1 Greylisted, try later", 31};
    struct qmgr_view view = qmgr_delivery_view(shard->qmgr, delivery);
    struct qmgr_result result = {.recipient_index = view.recipients[0],
                                 .state = RECIPIENT_DUE,
                                 .reply = reply,
                                 .code = 451,
                                 .enhanced = {4, 7, 1}};
    struct qmgr_finish finish = {.results = &result, .result_count = 1, .was_attempted = true};
    qmgr_finish(shard->qmgr, delivery, &finish, now);
    shard->retried++;
}

static void line_attempt(struct shard *shard, struct qmgr_line *line, struct tick_now now)
{
    struct qmgr_delivery *delivery;
    while ((delivery = qmgr_take(shard->qmgr, line, now)) != NULL) {
        if (qmgr_delivery_is_loaded(delivery))
            delivery_attempt(shard, delivery, now);
        else
            shard->loading++;
    }
    qmgr_line_return(shard->qmgr, line, now);
}

/* Those whose envelopes have come. */
static void loaded_attempt(struct shard *shard, struct tick_now now)
{
    struct qmgr_delivery *delivery;
    bool is_loaded;
    while ((delivery = qmgr_loaded_next(shard->qmgr, &is_loaded)) != NULL) {
        CHECK(is_loaded);
        shard->loading--;
        delivery_attempt(shard, delivery, now);
    }
}

void shard_attempt(struct shard *shard)
{
    struct tick_now now = shard_now(shard);
    struct qmgr_line *line;
    qmgr_advance(shard->qmgr, now);
    while ((line = qmgr_line_next(shard->qmgr, now)) != NULL)
        line_attempt(shard, line, now);
    while (shard->loading > 0) {
        shard_turn(shard);
        loaded_attempt(shard, now);
    }
}

/* ---- recovery ---- */

static void on_recovered(void *context, const struct spool_recovered *message)
{
    struct shard *shard = context;
    struct envelope_index index UNINITIALIZED;
    struct qmgr_insert insert = {
        .encoded = message->envelope,
        .entry = message->entry,
        .progress = message->progress,
        .progress_count = message->progress_count,
    };
    enum err err = ERR_OK;
    if (message->envelope.size == 0) {
        err = envelope_index_decode(message->index, spool_entry_id(message->entry), &index);
        insert.index = &index;
    }
    if (err == ERR_OK)
        err = qmgr_insert(shard->qmgr, &insert, shard->turn);
    if (err != ERR_OK)
        die("insert", err);
}

uint64_t shard_adopt(struct shard *shard, struct spool_recovery *recovery, uint32_t index,
                     uint32_t count, double *ret_slice_max)
{
    struct spool_adoption *adoption = spool_adoption_new(recovery, shard->spool, index, count);
    qmgr_expect(shard->qmgr, spool_recovery_messages(recovery) / count);
    double slice_max = 0, start = seconds_now();
    bool is_more = true;
    while (is_more) {
        shard->turn = shard_now(shard);
        is_more = spool_adoption_step(adoption, ADOPTION_SLICE, on_recovered, shard);
        double end = seconds_now();
        slice_max = end - start > slice_max ? end - start : slice_max;
        start = end;
    }
    spool_adoption_free(adoption);
    *ret_slice_max = slice_max;
    return spool_get_stats(shard->spool).messages_recovered;
}
