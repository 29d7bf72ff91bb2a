/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A webhook's thread.
 *
 *   GATHERING -> POSTING         the batch is full, or its first record has waited batch_time
 *   POSTING -> GATHERING         2xx: the place behind the batch is noted
 *           -> POSTING           413: half as many records
 *           -> WAITING           anything else
 *   WAITING -> POSTING           the pause is over: the same batch again
 *   POSTING -> GONE              410: the receiver wants no more
 *
 * Invariants
 *   1. A batch is posted again until it is taken, and nothing behind it before that: a receiver has
 *      all records of its kinds, in the order of the file, some of them twice.
 *   2. The place that is noted never passes a record that was not taken.
 *   3. Memory is bounded: one batch, whatever waits.
 *
 * Limits: what the files of records still have. A file that was removed before it was read is a
 * gap, counted and told in the log.
 */
#include "control/webhook.h"

#include <errno.h>
#include <inttypes.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/rng.h"
#include "control/record_json.h"
#include "control/webhook_cursor.h"
#include "control/webhook_post.h"

#define LOOK_TIME    TICK_MS(200) /* for more records, and whether to stop */
#define WAITING_TIME TICK_S(1)    /* how far it is behind is measured so often */
#define PAUSE_JITTER 5u           /* a fifth, both ways */

struct webhook {
    const struct config_webhook *config; /* of the first configuration, which stays */
    const atomic_bool *must_stop;
    pthread_t thread;
    bool is_started;

    /* the thread's own */
    struct record_reader reader;
    struct webhook_cursor cursor;
    struct webhook_post *post;
    struct rng rng;
    char *body;
    uint32_t size, count; /* of the batch: octets, records */
    uint32_t count_max;   /* less than the configuration's after a 413 */
    uint32_t failures;    /* in a row */
    struct record_place begin;
    tick_us begun, measured;
    bool has_told; /* that the place cannot be noted */

    _Atomic uint64_t batches, events, failed, waiting, gaps;
    _Atomic uint32_t answer;
    atomic_bool is_failing, is_gone;
};

struct webhook_set {
    atomic_bool must_stop;
    uint32_t count;
    struct webhook *hooks;
};

/* ---- pure parts ---- */

void webhook_sign(const char *secret, int64_t seconds, struct span body,
                  char ret_text[WEBHOOK_SIGNATURE_SIZE])
{
    char time_text[24];
    uint8_t digest[32];
    size_t digest_size = 0;
    int size = snprintf(time_text, sizeof(time_text), "%" PRId64 ".", seconds);
    EVP_PKEY *key =
        EVP_PKEY_new_raw_private_key(EVP_PKEY_HMAC, NULL, (const uint8_t *)secret, strlen(secret));
    EVP_MD_CTX *context = EVP_MD_CTX_new();

    CHECK(key != NULL && context != NULL);
    digest_size = sizeof(digest);
    CHECK(EVP_DigestSignInit(context, NULL, EVP_sha256(), NULL, key) == 1 &&
          EVP_DigestSignUpdate(context, time_text, (size_t)size) == 1 &&
          EVP_DigestSignUpdate(context, body.data, body.size) == 1 &&
          EVP_DigestSignFinal(context, digest, &digest_size) == 1 && digest_size == sizeof(digest));
    EVP_MD_CTX_free(context);
    EVP_PKEY_free(key);
    size = snprintf(ret_text, WEBHOOK_SIGNATURE_SIZE, "t=%" PRId64 ",v1=", seconds);
    for (uint32_t i = 0; i < sizeof(digest); i++)
        (void)snprintf(ret_text + size + 2 * i, 3, "%02x", digest[i]);
}

tick_us webhook_pause(const struct config_webhook *webhook, uint32_t failures, tick_us asked,
                      uint32_t random)
{
    tick_us pause = webhook->retry_min;

    CHECK(failures > 0);
    for (uint32_t i = 1; i < failures && pause < webhook->retry_max; i++)
        pause *= 2;
    if (pause < asked)
        pause = asked;
    if (pause > webhook->retry_max)
        pause = webhook->retry_max;
    tick_us spread = 2 * pause / PAUSE_JITTER;
    return pause - spread / 2 + (spread == 0 ? 0 : random % spread);
}

bool webhook_wants(uint32_t kinds, struct span line)
{
    static const char head[] = "{\"type\":\"";
    uint32_t head_size = sizeof(head) - 1;

    /* What a crash or a full disk left of a line is none. */
    if (line.size < head_size + 2 || memcmp(line.data, head, head_size) != 0 ||
        line.data[line.size - 1] != '}')
        return false;
    struct span rest = span_skip(line, head_size);
    const uint8_t *quote = memchr(rest.data, '"', rest.size);
    for (uint32_t kind = RECORD_RECEPTION; quote != NULL && kind <= RECORD_ORDER; kind++) {
        struct span word = span_head(rest, (uint32_t)(quote - rest.data));
        if (span_is_equal(word, span_from_text(record_kind_name(kind))))
            return (kinds & 1u << kind) != 0;
    }
    return false;
}

/* ---- the thread ---- */

static tick_us tick_read(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

static bool must_stop(const struct webhook *hook)
{
    return atomic_load_explicit(hook->must_stop, memory_order_relaxed);
}

/* In slices, so that a stop is heard soon. */
static void hook_sleep(const struct webhook *hook, tick_us time)
{
    tick_us until = tick_read() + time;

    for (tick_us now = tick_read(); now < until && !must_stop(hook); now = tick_read()) {
        tick_us slice = until - now < LOOK_TIME ? until - now : LOOK_TIME;
        struct timespec wait = {.tv_nsec = (long)slice * 1000};
        nanosleep(&wait, NULL);
    }
}

static void hook_measure(struct webhook *hook)
{
    struct record_reader behind = hook->reader;
    tick_us now = tick_read();

    if (now < hook->measured + WAITING_TIME)
        return;
    hook->measured = now;
    if (hook->count > 0 && behind.place.inode == hook->begin.inode)
        behind.place.offset = hook->begin.offset;
    atomic_store_explicit(&hook->waiting, record_reader_waiting(&behind), memory_order_relaxed);
    if (hook->reader.gaps > atomic_load_explicit(&hook->gaps, memory_order_relaxed))
        log_line(LOG_ERROR,
                 "event=webhook_gap webhook=%s: a file of records was gone before it was read: "
                 "raise records.keep",
                 hook->config->name);
    atomic_store_explicit(&hook->gaps, hook->reader.gaps, memory_order_relaxed);
}

static void cursor_note(struct webhook *hook)
{
    if (hook->reader.fd < 0 || webhook_cursor_set(&hook->cursor, &hook->reader.place))
        return;
    if (!hook->has_told)
        log_line(LOG_ERROR, "event=webhook webhook=%s: its place cannot be noted: %s",
                 hook->config->name, strerror(errno));
    hook->has_told = true;
}

static void batch_clear(struct webhook *hook)
{
    hook->size = hook->count = 0;
    hook->begin = hook->reader.place;
}

static void batch_add(struct webhook *hook, struct span line)
{
    hook->body[hook->size++] = hook->count == 0 ? '[' : ',';
    memcpy(hook->body + hook->size, line.data, line.size);
    hook->size += line.size;
    hook->count++;
}

/* Records into the batch, as there are. True: it is to be posted. */
static bool batch_gather(struct webhook *hook)
{
    struct span line;
    bool has_passed = false;

    if (hook->count == 0)
        hook->begin = hook->reader.place;
    while (hook->count < hook->count_max && !must_stop(hook)) {
        struct record_place before = hook->reader.place;
        if (!record_reader_next(&hook->reader, &line)) {
            if (has_passed && hook->count == 0)
                cursor_note(hook); /* what is not for it is not read again */
            return hook->count > 0 && tick_read() >= hook->begun + hook->config->batch_time;
        }
        if (!webhook_wants(hook->config->kinds, line)) {
            has_passed = true;
            continue;
        }
        if (hook->count > 0 && hook->size + line.size + 2 > hook->config->batch_size) {
            if (before.inode == hook->reader.place.inode)
                record_reader_rewind(&hook->reader, before.offset);
            else
                record_reader_rewind(&hook->reader, 0); /* it is the first of its file */
            return true;
        }
        if (hook->count == 0)
            hook->begun = tick_read();
        batch_add(hook, line);
    }
    return hook->count == hook->count_max;
}

static void batch_taken(struct webhook *hook)
{
    if (hook->failures > 0)
        log_line(LOG_INFO, "event=webhook webhook=%s: taken again after %u failures",
                 hook->config->name, hook->failures);
    atomic_fetch_add_explicit(&hook->batches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&hook->events, hook->count, memory_order_relaxed);
    atomic_store_explicit(&hook->is_failing, false, memory_order_relaxed);
    hook->failures = 0;
    if (hook->count_max < hook->config->batch_count)
        hook->count_max = hook->count_max > hook->config->batch_count / 2
                              ? hook->config->batch_count
                              : 2 * hook->count_max;
    cursor_note(hook);
    batch_clear(hook);
}

/* A receiver that cannot take so many gets the first half of them, from the batch as it is. */
static void batch_halve(struct webhook *hook)
{
    uint64_t gaps = hook->reader.gaps;

    hook->count_max = hook->count / 2;
    record_reader_close(&hook->reader);
    record_reader_open(&hook->reader, hook->reader.path, RECORD_READER_PLACE, &hook->begin);
    hook->reader.gaps += gaps;
    batch_clear(hook);
}

static void batch_failed(struct webhook *hook, const struct webhook_answer *answer)
{
    atomic_fetch_add_explicit(&hook->failed, 1, memory_order_relaxed);
    if (answer->status == 413 && hook->count > 1) {
        batch_halve(hook);
        return;
    }
    atomic_store_explicit(&hook->is_failing, true, memory_order_relaxed);
    if (answer->status == 410) {
        log_line(LOG_ERROR,
                 "event=webhook webhook=%s: the receiver is gone for good (410): it is "
                 "told nothing more before a restart",
                 hook->config->name);
        atomic_store_explicit(&hook->is_gone, true, memory_order_relaxed);
        return;
    }
    if (hook->failures++ == 0)
        log_line(LOG_WARNING, "event=webhook webhook=%s: not taken, tried again: %s",
                 hook->config->name, answer->why);
    hook_sleep(hook, webhook_pause(hook->config, hook->failures, answer->asked,
                                   rng_below(&hook->rng, UINT32_MAX)));
}

static void batch_post(struct webhook *hook)
{
    struct span body = span_of(hook->body, hook->size + 1);

    hook->body[hook->size] = ']';
    struct webhook_answer answer =
        webhook_post_run(hook->post, body, hook->count, hook->failures + 1);
    if (must_stop(hook) && answer.status == 0)
        return;
    atomic_store_explicit(&hook->answer, answer.status, memory_order_relaxed);
    if (answer.status >= 200 && answer.status < 300)
        batch_taken(hook);
    else
        batch_failed(hook, &answer);
}

static void *hook_main(void *argument)
{
    struct webhook *hook = argument;
    bool is_due = false;

    batch_clear(hook);
    cursor_note(hook);
    while (!must_stop(hook)) {
        hook_measure(hook);
        if (atomic_load_explicit(&hook->is_gone, memory_order_relaxed)) {
            hook_sleep(hook, LOOK_TIME);
            continue;
        }
        is_due = is_due || batch_gather(hook);
        if (!is_due) {
            hook_sleep(hook, LOOK_TIME);
            continue;
        }
        batch_post(hook);
        is_due = hook->failures > 0 && hook->count > 0; /* the same batch; halved, it is none */
    }
    return NULL;
}

/* ---- start and end ---- */

static enum err hook_start(struct webhook *hook, const struct config *config)
{
    enum record_reader_from from;
    struct record_place place;

    if (rng_init_system(&hook->rng) != ERR_OK)
        return ERR_SYSTEM;
    TRY(webhook_cursor_open(&hook->cursor, config->spool.directory, hook->config->name, &from,
                            &place));
    hook->count_max = hook->config->batch_count;
    /* One record may be larger than the batch that it has for itself. */
    hook->body = malloc(hook->config->batch_size + RECORD_READER_BUFFER + 2u);
    CHECK(hook->body != NULL);
    record_reader_open(&hook->reader, config->records.file, from, &place);
    hook->post = webhook_post_new(hook->config, hook->must_stop);
    errno = pthread_create(&hook->thread, NULL, hook_main, hook);
    hook->is_started = errno == 0;
    if (hook->is_started) {
        pthread_setname_np(hook->thread, "webhook");
        return ERR_OK;
    }
    record_reader_close(&hook->reader);
    webhook_cursor_close(&hook->cursor);
    webhook_post_free(hook->post);
    free(hook->body);
    return ERR_SYSTEM;
}

static void hook_end(struct webhook *hook)
{
    if (!hook->is_started)
        return;
    pthread_join(hook->thread, NULL);
    record_reader_close(&hook->reader);
    webhook_cursor_close(&hook->cursor);
    webhook_post_free(hook->post);
    free(hook->body);
}

enum err webhook_set_new(const struct config *config, struct webhook_set **ret_set)
{
    const struct config_webhook *webhooks = config->webhooks.items;

    *ret_set = NULL;
    if (config->webhooks.count == 0)
        return ERR_OK;
    if (!webhook_posts_begin()) {
        errno = ENOMEM;
        return ERR_SYSTEM;
    }
    struct webhook_set *set = calloc(1, sizeof(*set));
    CHECK(set != NULL);
    set->count = config->webhooks.count;
    set->hooks = calloc(set->count, sizeof(*set->hooks));
    CHECK(set->hooks != NULL);
    for (uint32_t i = 0; i < set->count; i++) {
        set->hooks[i].config = &webhooks[i];
        set->hooks[i].must_stop = &set->must_stop;
        if (hook_start(&set->hooks[i], config) == ERR_OK)
            continue;
        int error = errno;
        webhook_set_free(set);
        errno = error;
        return ERR_SYSTEM;
    }
    *ret_set = set;
    return ERR_OK;
}

void webhook_set_free(struct webhook_set *set)
{
    if (set == NULL)
        return;
    atomic_store(&set->must_stop, true);
    for (uint32_t i = 0; i < set->count; i++)
        hook_end(&set->hooks[i]);
    free(set->hooks);
    free(set);
    webhook_posts_end();
}

uint32_t webhook_set_count(const struct webhook_set *set)
{
    return set == NULL ? 0 : set->count;
}

struct webhook_stats webhook_get_stats(const struct webhook_set *set, uint32_t index)
{
    CHECK(index < set->count);
    const struct webhook *hook = &set->hooks[index];
    return (struct webhook_stats){
        .name = hook->config->name,
        .batches = atomic_load_explicit(&hook->batches, memory_order_relaxed),
        .events = atomic_load_explicit(&hook->events, memory_order_relaxed),
        .failures = atomic_load_explicit(&hook->failed, memory_order_relaxed),
        .waiting = atomic_load_explicit(&hook->waiting, memory_order_relaxed),
        .gaps = atomic_load_explicit(&hook->gaps, memory_order_relaxed),
        .answer = atomic_load_explicit(&hook->answer, memory_order_relaxed),
        .is_failing = atomic_load_explicit(&hook->is_failing, memory_order_relaxed),
        .is_gone = atomic_load_explicit(&hook->is_gone, memory_order_relaxed),
    };
}
