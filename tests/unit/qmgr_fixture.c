/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the tests of the queue manager share: a spool that keeps committed envelopes and PROGRESS
 * payloads in memory, messages from one line of text, and virtual time.
 */
#include "qmgr_fixture.h"

#include <stdlib.h>

#define START_TICK TICK_S(1000)
#define START_WALL 1700000000000000

void spool_progress(struct spool *spool, struct spool_entry *entry, struct span progress)
{
    (void)spool;
    entry->progress =
        realloc(entry->progress, (entry->progress_count + 1) * sizeof(*entry->progress));
    CHECK(entry->progress != NULL);
    uint8_t *copy = malloc(progress.size);
    CHECK(copy != NULL);
    memcpy(copy, progress.data, progress.size);
    entry->progress[entry->progress_count++] = span_of(copy, progress.size);
}

void spool_repair(struct spool *spool, struct spool_entry *entry, struct span envelope,
                  const struct buf_queue *body)
{
    (void)spool;
    entry->repairs++;
    CHECK(entry->encoded_size == envelope.size);
    entry->repaired_body_size = body->size;
}

static void on_done(void *context, struct spool_entry *entry)
{
    struct fixture *fixture = context;

    CHECK(!entry->is_done);
    entry->is_done = true;
    fixture->done_count++;
}

static void on_line_gone(void *context, void *user)
{
    struct fixture *fixture = context;

    fixture->line_gone_count++;
    fixture->line_gone_user = user;
}

static void on_expired(void *context, const struct envelope *envelope, uint32_t recipient_index)
{
    struct fixture *fixture = context;

    CHECK(envelope->recipients[recipient_index].state == RECIPIENT_DUE);
    fixture->expired_count++;
    fixture->expired_index = recipient_index;
}

void fixture_init(struct fixture *fixture, const struct qmgr_options *options)
{
    *fixture = (struct fixture){.now = {START_TICK, START_WALL}};
    fixture->options = (struct qmgr_options){
        .message_count_max = 1000,
        .body_memory_max = 100000,
        .retry_min = TICK_S(300),
        .retry_max = TICK_S(4 * 3600),
    };
    if (options != NULL)
        fixture->options = *options;
    fixture->options.context = fixture;
    fixture->options.on_done = on_done;
    fixture->options.on_line_gone = on_line_gone;
    fixture->options.on_expired = on_expired;
    rng_init_seed(&fixture->rng, 42);
    fixture->qmgr = qmgr_new(&fixture->options, NULL, &fixture->rng, fixture->now);
}

static void entry_free(struct spool_entry *entry)
{
    for (uint32_t i = 0; i < entry->progress_count; i++)
        free((void *)(uintptr_t)entry->progress[i].data);
    free(entry->progress);
    free(entry->encoded);
    free(entry);
}

void fixture_fini(struct fixture *fixture)
{
    qmgr_free(fixture->qmgr);
    while (fixture->entries != NULL) {
        struct spool_entry *entry = fixture->entries;
        fixture->entries = entry->next;
        entry_free(entry);
    }
}

void fixture_restart(struct fixture *fixture)
{
    qmgr_free(fixture->qmgr);
    fixture->qmgr = qmgr_new(&fixture->options, NULL, &fixture->rng, fixture->now);
    for (struct spool_entry *entry = fixture->entries; entry != NULL; entry = entry->next) {
        if (!entry->is_done)
            CHECK(fixture_insert_entry(fixture, entry, NULL) == ERR_OK);
    }
}

void fixture_pass(struct fixture *fixture, tick_us time)
{
    fixture->now.tick += time;
    fixture->now.wall += (wall_us)time;
    qmgr_advance(fixture->qmgr, fixture->now);
}

/* "b@y c@z": domains lower case already. */
static uint32_t parse_recipients(const char *text, struct envelope_recipient *recipients)
{
    uint32_t count = 0;

    while (*text != '\0') {
        uint32_t size = (uint32_t)strcspn(text, " ");
        struct span address = span_of(text, size);
        const char *at = memrchr(text, '@', size);
        CHECK(at != NULL);
        struct span domain = span_of(at + 1, (uint32_t)(text + size - at - 1));
        recipients[count++] = (struct envelope_recipient){.address = address, .domain = domain};
        text += size;
        text += *text == ' ';
    }
    return count;
}

struct envelope fixture_envelope(const struct fixture *fixture,
                                 const struct message_options *options, struct arena *arena)
{
    uint64_t bound = (strlen(options->recipients) / 2 + 1) * sizeof(struct envelope_recipient);
    struct envelope_recipient *recipients = arena_acquire(arena, bound);
    wall_us arrived = options->arrived != 0 ? options->arrived : fixture->now.wall;
    tick_us lifetime = options->lifetime != 0 ? options->lifetime : TICK_S(5 * 86400);

    CHECK(recipients != NULL);
    uint32_t count = parse_recipients(options->recipients, recipients);
    for (uint32_t i = 0; i < count && options->notify != NULL; i++)
        recipients[i].notify = options->notify[i];
    return (struct envelope){
        .id = {(uint64_t)arrived, options->id},
        .arrived = arrived,
        .expires = arrived + (wall_us)lifetime,
        .body_size = 1000,
        .header_size = 100,
        .class = options->class,
        .source_pool = span_from_text(options->pool != NULL ? options->pool : ""),
        .sender = span_from_text(options->sender != NULL ? options->sender : "a@x.example"),
        .client = SPAN_LITERAL("client.example [192.0.2.1]"),
        .recipients = recipients,
        .recipient_count = count,
    };
}

struct spool_entry *fixture_entry_new(struct fixture *fixture, const struct envelope *envelope)
{
    struct spool_entry *entry = calloc(1, sizeof(*entry));

    CHECK(entry != NULL);
    entry->encoded_size = envelope_encoded_size(envelope);
    entry->encoded = malloc(entry->encoded_size);
    CHECK(entry->encoded != NULL);
    envelope_encode(envelope, entry->encoded);
    entry->next = fixture->entries;
    fixture->entries = entry;
    return entry;
}

enum err fixture_insert_entry(struct fixture *fixture, struct spool_entry *entry,
                              struct buf_queue *body)
{
    struct qmgr_insert insert = {
        .encoded = span_of(entry->encoded, entry->encoded_size),
        .entry = entry,
        .body = body,
        .progress = entry->progress,
        .progress_count = entry->progress_count,
    };
    return qmgr_insert(fixture->qmgr, &insert, fixture->now);
}

enum err fixture_insert(struct fixture *fixture, const struct message_options *options,
                        struct spool_entry **ret_entry)
{
    struct arena arena;

    arena_init(&arena, 4096, 1u << 24);
    struct envelope envelope = fixture_envelope(fixture, options, &arena);
    struct spool_entry *entry = fixture_entry_new(fixture, &envelope);
    arena_fini(&arena);
    if (ret_entry != NULL)
        *ret_entry = entry;
    return fixture_insert_entry(fixture, entry, options->body);
}

void fixture_finish_all(struct fixture *fixture, struct qmgr_delivery *delivery,
                        enum recipient_state state, const char *reply)
{
    struct qmgr_view view = qmgr_delivery_view(fixture->qmgr, delivery);
    struct qmgr_result *results = calloc(view.recipient_count, sizeof(*results));

    CHECK(results != NULL);
    for (uint32_t i = 0; i < view.recipient_count; i++) {
        results[i] = (struct qmgr_result){
            .recipient_index = view.recipients[i],
            .state = state,
            .reply = span_from_text(reply),
            .code = state == RECIPIENT_DELIVERED ? 250
                    : state == RECIPIENT_DUE     ? 451
                                                 : 550,
            .enhanced = {5, 1, 1},
        };
    }
    struct qmgr_finish finish = {
        .results = results, .result_count = view.recipient_count, .was_attempted = true};
    qmgr_finish(fixture->qmgr, delivery, &finish, fixture->now);
    free(results);
}

struct qmgr_delivery *fixture_take(struct fixture *fixture, struct qmgr_line **ret_line)
{
    *ret_line = qmgr_line_next(fixture->qmgr, fixture->now);
    return *ret_line == NULL ? NULL : qmgr_take(fixture->qmgr, *ret_line, fixture->now);
}

struct qmgr_delivery *fixture_take_one(struct fixture *fixture)
{
    struct qmgr_line *line;
    struct qmgr_delivery *delivery = fixture_take(fixture, &line);

    if (line != NULL)
        qmgr_line_return(fixture->qmgr, line, fixture->now);
    return delivery;
}
