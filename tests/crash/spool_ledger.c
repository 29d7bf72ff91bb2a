/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The writer, the ledger and the audit.
 *
 * The writer says COMMITTING before it commits, LIVE after COMMITTED, FINISHING before DONE and
 * GONE when the spool came to rest after it. Each word is one write to a pipe, which outlives the
 * writer: what it said last is never more than what it was promised.
 *
 * The body of message `key` is a function of the key, and so is its size: mixing and truncation
 * show.
 */
#include "tests/crash/spool_ledger.h"

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#define SEGMENT_SIZE (1u << 20)
#define SIZE_MAX_    (24ull << 20)
#define LIVE_MAX     120u
#define WINDOW       24u /* commits under way */
#define EVENTS       32u

struct word {
    uint32_t key;
    uint32_t state;
};

static struct tick_now now(void)
{
    return tick_now_read(tick_source_system());
}

static uint32_t body_size(uint32_t key)
{
    static const uint32_t bounds[] = {200, 4000, 4000, 20000, 300000};
    uint32_t x = key * 2654435761u;
    return x % bounds[x >> 16 & 3];
}

static uint8_t octet_of(uint32_t key, uint32_t offset)
{
    return (uint8_t)((key * 2654435761u >> 13) + offset * 7 + offset / 251);
}

/* ---- the writer ---- */

struct writer {
    int pipe;
    struct disk *disk;
    struct spool *spool;
    struct buf_pool *pool;
    struct rng rng;
    struct spool_entry *live[LIVE_MAX + WINDOW];
    uint32_t live_count, committing, next;
    uint32_t finishing[LIVE_MAX + WINDOW + 1024];
    uint32_t finishing_count;
};

static void writer_say(const struct writer *writer, uint32_t key, enum ledger_state state)
{
    struct word word = {key, state};
    CHECK(write(writer->pipe, &word, sizeof(word)) == sizeof(word));
}

static const struct disk_ops *safe_ops;

static void unsafe_submit_write(struct disk *disk, struct disk_file *file, uint64_t offset,
                                const struct iovec *vector, uint32_t count, bool then_sync,
                                uint64_t token)
{
    (void)then_sync;
    safe_ops->submit_write(disk, file, offset, vector, count, false, token);
}

/* False when the disk fails, as it does once its power is cut. */
static bool open_spool(const char *path, enum disk_kind kind, struct buf_pool *pool,
                       struct rng *rng, struct disk **ret_disk, struct spool **ret_spool)
{
    if (disk_new(path, kind, ret_disk) != ERR_OK)
        return false;
    struct spool_options options = {
        .segment_size = SEGMENT_SIZE,
        .size_max = SIZE_MAX_,
        .reserve_size = SEGMENT_SIZE,
        .segment_spare_min = 1,
        .commit_deadline = TICK_S(60),
        .lazy_time = TICK_MS(5),
        .pool = pool,
    };
    return spool_epoch_next(*ret_disk, &options.epoch) == ERR_OK &&
           spool_new(&options, *ret_disk, rng, now(), ret_spool) == ERR_OK;
}

/* False when the disk fails. */
static bool adopt(const char *path, struct spool *spool,
                  void (*on_message)(void *context, const struct spool_recovered *message),
                  void *context)
{
    struct disk *disk;
    struct spool_recovery *recovery;
    if (disk_new(path, DISK_KIND_THREAD, &disk) != ERR_OK)
        return false;
    bool is_read = spool_recovery_run(disk, NULL, &recovery) == ERR_OK;
    if (is_read) {
        spool_recovery_adopt(recovery, spool, 0, 1, on_message, context);
        spool_recovery_free(recovery);
    }
    disk_free(disk);
    return is_read;
}

static struct buf_pool *new_pool(void)
{
    struct buf_pool_options options = {.data_size = 4096, .count_max = 50000};
    return buf_pool_new(&options);
}

static void writer_finish(struct writer *writer, struct spool_entry *entry)
{
    uint32_t key = (uint32_t)spool_entry_id(entry).low;
    writer_say(writer, key, LEDGER_FINISHING);
    spool_done(writer->spool, entry);
    writer->finishing[writer->finishing_count++] = key;
}

static void writer_adopted(void *context, const struct spool_recovered *message)
{
    struct writer *writer = context;
    if (writer->live_count < LIVE_MAX)
        writer->live[writer->live_count++] = message->entry;
    else if (writer->finishing_count < COUNT_OF(writer->finishing))
        writer_finish(writer, message->entry);
}

static void writer_begin(struct writer *writer)
{
    uint32_t key = writer->next, size = body_size(key);
    struct spool_transaction *transaction =
        spool_begin(writer->spool, (struct message_id){1, key}, size, false);
    if (transaction == NULL)
        return;
    struct buf_queue octets;
    buf_queue_init(&octets);
    for (uint32_t offset = 0; offset < size;) {
        struct buf *buf = buf_acquire(writer->pool);
        CHECK(buf != NULL);
        uint32_t slice = size - offset < 4096 ? size - offset : 4096;
        for (uint32_t i = 0; i < slice; i++)
            buf_data(buf)[i] = octet_of(key, offset + i);
        buf_extend(buf, slice);
        buf_queue_append(&octets, buf, BUF_HEADROOM, slice);
        buf_release(buf);
        offset += slice;
    }
    if (spool_write_body(writer->spool, transaction, &octets) != ERR_OK) {
        buf_queue_fini(&octets);
        spool_abort(writer->spool, transaction);
        return;
    }
    buf_queue_fini(&octets);
    writer->next++;
    writer->committing++;
    writer_say(writer, key, LEDGER_COMMITTING);
    spool_commit(writer->spool, transaction, span_of(&key, sizeof(key)), key);
}

static void writer_turn(struct writer *writer)
{
    struct spool_event events[EVENTS];
    uint32_t count = spool_poll(writer->spool, now(), events, EVENTS);
    for (uint32_t i = 0; i < count; i++) {
        writer->committing--;
        if (events[i].err != ERR_OK)
            continue; /* the disk is going down: the ledger goes on with "may be present" */
        writer_say(writer, (uint32_t)events[i].token, LEDGER_LIVE);
        writer->live[writer->live_count++] = events[i].entry;
    }
    if (count > 0)
        return;
    struct pollfd event = {.fd = disk_eventfd(writer->disk), .events = POLLIN};
    poll(&event, 1, 1);
}

/* Come to rest: every DONE issued is durable. */
static void writer_settle(struct writer *writer)
{
    spool_flush(writer->spool);
    while (!spool_is_idle(writer->spool))
        writer_turn(writer);
    if (spool_get_stats(writer->spool).is_failed || spool_get_stats(writer->spool).sync_failures)
        _exit(0);
    for (uint32_t i = 0; i < writer->finishing_count; i++)
        writer_say(writer, writer->finishing[i], LEDGER_GONE);
    writer->finishing_count = 0;
}

__attribute__((noreturn)) static void writer_main(struct writer *writer, const char *path,
                                                  enum disk_kind kind, bool is_unsafe)
{
    struct disk_ops unsafe_ops;
    writer->pool = new_pool();
    if (!open_spool(path, kind, writer->pool, &writer->rng, &writer->disk, &writer->spool))
        _exit(0);
    if (is_unsafe) {
        safe_ops = writer->disk->ops;
        unsafe_ops = *safe_ops;
        unsafe_ops.submit_write = unsafe_submit_write;
        writer->disk->ops = &unsafe_ops;
    }
    if (!adopt(path, writer->spool, writer_adopted, writer))
        _exit(0);
    for (;;) {
        while (writer->committing < WINDOW && writer->live_count < LIVE_MAX &&
               writer->next < LEDGER_MESSAGES_MAX && rng_below(&writer->rng, 8) > 0)
            writer_begin(writer);
        while (writer->live_count > 20 && writer->finishing_count < 1000 &&
               rng_below(&writer->rng, LIVE_MAX) < writer->live_count) {
            uint32_t index = rng_below(&writer->rng, writer->live_count);
            writer_finish(writer, writer->live[index]);
            writer->live[index] = writer->live[--writer->live_count];
        }
        writer_turn(writer);
        if (rng_below(&writer->rng, 40) == 0 || writer->finishing_count >= 1000)
            writer_settle(writer);
    }
}

pid_t ledger_spawn(const char *path, enum disk_kind kind, uint32_t first_key, bool is_unsafe,
                   uint64_t seed, int *ret_pipe)
{
    int ends[2];
    CHECK(pipe(ends) == 0);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child > 0) {
        close(ends[1]);
        *ret_pipe = ends[0];
        return child;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(ends[0]);
    struct writer *writer = calloc(1, sizeof(*writer));
    CHECK(writer != NULL);
    writer->pipe = ends[1];
    writer->next = first_key;
    rng_init_seed(&writer->rng, seed);
    writer_main(writer, path, kind, is_unsafe);
}

/* ---- the ledger ---- */

static void ledger_violation(struct ledger *ledger, const char *what, uint32_t key)
{
    if (ledger->violations++ == 0)
        snprintf(ledger->first_violation, sizeof(ledger->first_violation), "message %u: %s", key,
                 what);
}

static void ledger_hear(struct ledger *ledger, struct word word)
{
    CHECK(word.key < LEDGER_MESSAGES_MAX && word.state <= LEDGER_GONE);
    ledger->states[word.key] = (uint8_t)word.state;
    ledger->acknowledged += word.state == LEDGER_LIVE;
    ledger->finished += word.state == LEDGER_GONE;
    if (word.key >= ledger->next)
        ledger->next = word.key + 1;
}

void ledger_listen(struct ledger *ledger, int pipe, uint32_t count, tick_us tick)
{
    struct word words[256];
    for (uint32_t heard = 0; heard < count;) {
        tick_us at = now().tick;
        struct pollfd event = {.fd = pipe, .events = POLLIN};
        int timeout = tick == TICK_NEVER ? -1 : at < tick ? (int)((tick - at) / 1000) : 0;
        if (poll(&event, 1, timeout) <= 0)
            return;
        ssize_t size = read(pipe, words, sizeof(words));
        if (size <= 0)
            return;
        CHECK(size % (ssize_t)sizeof(words[0]) == 0);
        for (uint32_t i = 0; i < (size_t)size / sizeof(words[0]); i++, heard++)
            ledger_hear(ledger, words[i]);
    }
}

/* ---- the audit ---- */

struct audit {
    struct ledger *ledger;
    struct spool *spool;
    uint8_t *seen;
    uint32_t reads;
};

static void audit_message(void *context, const struct spool_recovered *message)
{
    struct audit *audit = context;
    uint32_t key = (uint32_t)spool_entry_id(message->entry).low;
    if (key >= audit->ledger->next) {
        ledger_violation(audit->ledger, "unknown", key);
        return;
    }
    uint8_t state = audit->ledger->states[key];
    if (audit->seen[key]++)
        ledger_violation(audit->ledger, "back twice", key);
    if (state == LEDGER_GONE || state == LEDGER_NONE)
        ledger_violation(audit->ledger, "back from the dead", key);
    if (!span_is_equal(message->envelope, span_of(&key, sizeof(key))))
        ledger_violation(audit->ledger, "envelope differs", key);
    if (spool_entry_body_size(message->entry) != body_size(key)) {
        ledger_violation(audit->ledger, "body has another size", key);
        return;
    }
    spool_read_body(audit->spool, message->entry, 0, body_size(key), key);
    audit->reads++;
}

static void audit_read(struct audit *audit, struct spool_event *event)
{
    uint32_t key = (uint32_t)event->token, offset = 0;
    bool is_same = event->err == ERR_OK && event->octets.size == body_size(key);
    for (uint32_t i = 0; is_same && i < event->octets.count; i++) {
        struct span octets = buf_slice_span(buf_queue_get(&event->octets, i));
        for (uint32_t j = 0; j < octets.size; j++)
            is_same &= octets.data[j] == octet_of(key, offset++);
    }
    if (!is_same)
        ledger_violation(audit->ledger, "body differs", key);
    buf_queue_fini(&event->octets);
    audit->reads--;
}

static void audit_poll(struct audit *audit, struct disk *disk)
{
    struct spool_event events[EVENTS];
    uint32_t count = spool_poll(audit->spool, now(), events, EVENTS);
    for (uint32_t i = 0; i < count; i++)
        audit_read(audit, &events[i]);
    struct pollfd event = {.fd = disk_eventfd(disk), .events = POLLIN};
    if (count == 0)
        poll(&event, 1, 1);
}

void ledger_audit(struct ledger *ledger, const char *path, enum disk_kind kind)
{
    struct disk *disk;
    struct rng rng;
    struct audit audit = {.ledger = ledger, .seen = calloc(1, LEDGER_MESSAGES_MAX)};
    CHECK(audit.seen != NULL);
    CHECK(rng_init_system(&rng) == ERR_OK);
    struct buf_pool *pool = new_pool();
    CHECK(open_spool(path, kind, pool, &rng, &disk, &audit.spool));
    CHECK(adopt(path, audit.spool, audit_message, &audit));
    spool_flush(audit.spool);
    while (audit.reads > 0 || !spool_is_idle(audit.spool))
        audit_poll(&audit, disk);
    for (uint32_t key = 0; key < ledger->next; key++) {
        if (!audit.seen[key] && ledger->states[key] == LEDGER_LIVE)
            ledger_violation(ledger, "acknowledged and lost", key);
        ledger->states[key] = audit.seen[key] ? LEDGER_LIVE : LEDGER_GONE;
    }
    spool_free(audit.spool);
    disk_free(disk);
    buf_pool_free(pool);
    free(audit.seen);
}
