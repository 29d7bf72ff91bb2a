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

bool spool_is_tight(const struct spool *spool)
{
    return ((const struct fixture *)(const void *)spool)->is_tight;
}

void spool_repair(struct spool *spool, struct spool_entry *entry, struct span envelope,
                  const struct buf_queue *body)
{
    (void)spool;
    entry->repairs++;
    entry->encoded = realloc(entry->encoded, envelope.size);
    CHECK(entry->encoded != NULL);
    memcpy(entry->encoded, envelope.data, envelope.size);
    entry->encoded_size = envelope.size;
    entry->repaired_body_size = body->size;
}

struct message_id spool_entry_id(const struct spool_entry *entry)
{
    return entry->id;
}

uint64_t spool_entry_body_size(const struct spool_entry *entry)
{
    return entry->body.size;
}

static void read_end(struct fixture *fixture, const struct fixture_read *read)
{
    struct spool_entry *entry = read->entry;
    struct spool_event event = {.kind = SPOOL_EVENT_READ,
                                .err = read->is_body          ? entry->body_err
                                       : entry->has_no_memory ? ERR_MEMORY
                                       : entry->is_unreadable ? ERR_DISK_CORRUPT
                                                              : ERR_OK,
                                .token = read->token,
                                .entry = entry};
    struct span octets = read->is_body ? read->body : span_of(entry->encoded, entry->encoded_size);

    buf_queue_init(&event.octets);
    if (event.err == ERR_OK)
        CHECK(buf_queue_append_copy(&event.octets, fixture->pool, octets) == ERR_OK);
    CHECK(qmgr_owns_token(read->token));
    qmgr_on_read(fixture->qmgr, &event, fixture->now);
}

static void read_begin(struct spool *spool, const struct fixture_read *read)
{
    struct fixture *fixture = (struct fixture *)(void *)spool;

    fixture->reads_total++;
    if (!fixture->is_slow) {
        read_end(fixture, read);
        return;
    }
    CHECK(fixture->read_count < FIXTURE_READS_MAX);
    fixture->reads[fixture->read_count++] = *read;
}

void spool_read_envelope(struct spool *spool, struct spool_entry *entry, uint64_t token)
{
    read_begin(spool, &(struct fixture_read){.entry = entry, .token = token});
}

void spool_read_body(struct spool *spool, struct spool_entry *entry, uint64_t offset, uint32_t size,
                     uint64_t token)
{
    struct span body = span_head(span_skip(entry->body, (uint32_t)offset), size);

    read_begin(spool, &(struct fixture_read){entry, token, true, body});
}

void fixture_reads_end(struct fixture *fixture, uint32_t count)
{
    CHECK(count <= fixture->read_count);
    for (uint32_t i = 0; i < count; i++) {
        struct fixture_read read = fixture->reads[0];
        fixture->read_count--;
        memmove(fixture->reads, fixture->reads + 1, fixture->read_count * sizeof(read));
        read_end(fixture, &read);
    }
}

struct qmgr_status fixture_status(struct fixture *fixture, const struct qmgr_message *message,
                                  uint32_t recipient_index)
{
    uint64_t handle = qmgr_show_begin(fixture->qmgr, qmgr_message_id(message), fixture->now);
    struct qmgr_match match;
    uint32_t count = 0;
    bool is_done;

    CHECK(qmgr_scan_step(fixture->qmgr, handle, &match, 1, &count, &is_done, fixture->now) ==
          ERR_OK);
    if (qmgr_scan_is_waiting(fixture->qmgr, handle))
        fixture_reads_end(fixture, fixture->read_count);
    struct qmgr_status status = qmgr_message_status(message, recipient_index, fixture->now);
    qmgr_scan_end(fixture->qmgr, handle);
    return status;
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
    fixture->pool = buf_pool_new(&(struct buf_pool_options){.data_size = 4096, .count_max = 1024});
    fixture->qmgr =
        qmgr_new(&fixture->options, (struct spool *)(void *)fixture, &fixture->rng, fixture->now);
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
    buf_pool_free(fixture->pool);
}

void fixture_restart(struct fixture *fixture)
{
    qmgr_free(fixture->qmgr);
    fixture->read_count = 0;
    fixture->qmgr =
        qmgr_new(&fixture->options, (struct spool *)(void *)fixture, &fixture->rng, fixture->now);
    for (uint32_t i = 0; i < fixture->standing_count; i++)
        CHECK(qmgr_standing_add(fixture->qmgr, &fixture->standing[i], fixture->now) == ERR_OK);
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
        .flags = options->flags,
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
    entry->id = envelope->id;
    entry->encoded_size = envelope_encoded_size(envelope);
    entry->encoded = malloc(entry->encoded_size);
    CHECK(entry->encoded != NULL);
    envelope_encode(envelope, entry->encoded);
    entry->next = fixture->entries;
    fixture->entries = entry;
    return entry;
}

static bool index_make(const struct spool_entry *entry, uint8_t octets[ENVELOPE_INDEX_SIZE_MAX],
                       struct envelope_index *ret_index)
{
    struct arena arena;

    arena_init(&arena, 4096, 1u << 24);
    uint32_t size =
        envelope_index_make(span_of(entry->encoded, entry->encoded_size), &arena, octets);
    arena_fini(&arena);
    return size > 0 && envelope_index_decode(span_of(octets, size), entry->id, ret_index) == ERR_OK;
}

enum err fixture_insert_entry(struct fixture *fixture, struct spool_entry *entry,
                              struct buf_queue *body)
{
    uint8_t octets[ENVELOPE_INDEX_SIZE_MAX];
    struct envelope_index index;
    struct qmgr_insert insert = {
        .encoded = span_of(entry->encoded, entry->encoded_size),
        .is_new = fixture->is_new,
        .entry = entry,
        .body = body,
        .progress = entry->progress,
        .progress_count = entry->progress_count,
    };
    if (fixture->is_index_only && index_make(entry, octets, &index)) {
        insert.encoded = (struct span){0};
        insert.index = &index;
    }
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
