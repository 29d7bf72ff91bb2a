/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records that a crash may have taken are written again, from what the spool knows of a message
 * that comes back: that it was received, and what became of recipients of which PROGRESS tells.
 *
 *   transfer_replay() -> told      its envelope came with it
 *                     -> READING   it is read
 *   READING -> told                or not, if it cannot be read
 *           -> PUT OFF -> READING  there was no memory for it, or none for its records
 *
 * Which: those at or after transfer->replay_since, a moment before which all records were
 * kept, less what the clock of a turn and of a transaction may lag behind: a message's id has the
 * time when it began. Some are thus written although they were kept: a record of the same event
 * bears the same name (record_event_format()).
 *
 * What the spool does not know is left out of them: next hop, source, connection, TLS, delays.
 * Not here, because the spool has nothing of them: deferrals, rejections, orders, and all about
 * mail that went straight through and was never stored.
 *
 * Limits: with REPLAYS_MAX envelopes being read, or while a sink that holds is behind, the shard
 * adopts no more messages for a while (transfer_is_replaying()), so that those and one step of
 * adoption are read at a time. What was put off is read again when the sink is behind no more,
 * REPLAYS_AGAIN a turn: more would come back only to be put off once more.
 */
#include "relay/transfer_internal.h"

#include <stdlib.h>

#include "base/log.h"
#include "queue/envelope_index.h"

#define TURN_TIME        ((wall_us)TICK_S(10)) /* a record's time is that of its turn's beginning */
#define TRANSACTION_TIME ((wall_us)TICK_S(60)) /* from a message's id to its reception ... */
#define OCTETS_PER_S     1000u                 /* ... and what a slow client may take besides ... */
#define SLOW_TIME_MAX    ((wall_us)TICK_S(3600)) /* ... at most */
#define REPLAYS_MAX      256u
#define REPLAYS_AGAIN    16u
#define ARENA_BLOCK      4096u
#define ARENA_MAX        (4u << 20)

struct transfer_replay {
    struct transfer_token token;
    LIST_ENTRY(transfer_replay) link;
    struct spool_entry *entry; /* not DONE before this is over */
    bool is_put_off;
    struct span *progress; /* copies of those that are to be told */
    uint32_t progress_count;
};

/* ---- what is to be told ---- */

static bool is_reception_due(wall_us since, struct message_id id, uint64_t body_size,
                             uint32_t flags)
{
    wall_us slow = (wall_us)(body_size / OCTETS_PER_S) * 1000000;

    if ((flags & ENVELOPE_IS_DSN) != 0)
        return false;
    return (wall_us)id.high >=
           since - TRANSACTION_TIME - (slow < SLOW_TIME_MAX ? slow : SLOW_TIME_MAX);
}

static bool is_progress_due(wall_us since, struct span payload, struct arena *arena,
                            struct envelope_progress *ret_progress)
{
    return envelope_progress_decode(payload, arena, ret_progress) == ERR_OK &&
           ret_progress->told_time > 0 && ret_progress->told_time >= since - TURN_TIME;
}

/* ---- telling ---- */

static struct record record_begin(const struct transfer *transfer, const struct envelope *envelope)
{
    struct record record = {
        .shard = transfer->options.shard,
        .id = envelope->id,
        .size = envelope->body_size,
        .flags = RECORD_REPLAYED,
    };

    if ((envelope->flags & ENVELOPE_IS_DSN) != 0)
        record.flags |= RECORD_IS_DSN;
    record_text(record.sender, sizeof(record.sender), envelope->sender);
    record_text(record.user, sizeof(record.user), envelope->user);
    return record;
}

static void tell_reception(struct transfer *transfer, const struct envelope *envelope)
{
    struct record record = record_begin(transfer, envelope);

    record.kind = RECORD_RECEPTION;
    record.code = 250;
    memcpy(record.enhanced, (uint8_t[3]){2, 0, 0}, sizeof(record.enhanced));
    record.time = envelope->arrived;
    record.recipient_count = (uint16_t)envelope->recipient_count;
    record_text(record.recipient, sizeof(record.recipient), envelope->recipients[0].address);
    record_text(record.host, sizeof(record.host), envelope->client);
    transfer->options.records.emit(transfer->options.records.context, &record);
}

static uint16_t kind_of(const struct envelope_settle *settle)
{
    if (settle->is_expired)
        return RECORD_EXPIRY;
    return settle->state == RECIPIENT_DELIVERED || settle->state == RECIPIENT_RELAYED
               ? RECORD_DELIVERY
               : RECORD_BOUNCE;
}

static void tell_progress(struct transfer *transfer, const struct envelope *envelope,
                          const struct envelope_progress *progress)
{
    struct record record = record_begin(transfer, envelope);

    record.time = progress->told_time;
    for (uint32_t i = 0; i < progress->settle_count; i++) {
        const struct envelope_settle *settle = &progress->settles[i];
        if ((i >= progress->told_count && !settle->is_expired) ||
            settle->recipient_index >= envelope->recipient_count)
            continue;
        const struct envelope_recipient *recipient = &envelope->recipients[settle->recipient_index];
        record.kind = kind_of(settle);
        record.code = settle->code;
        memcpy(record.enhanced, settle->enhanced, sizeof(record.enhanced));
        record.recipient_index = settle->recipient_index;
        record_text(record.recipient, sizeof(record.recipient), recipient->address);
        record_text(record.site, sizeof(record.site), recipient->domain);
        record_text(record.text, sizeof(record.text), settle->reply);
        transfer->options.records.emit(transfer->options.records.context, &record);
    }
}

static void tell_all(struct transfer *transfer, struct span encoded, const struct span *progress,
                     uint32_t progress_count)
{
    wall_us since = transfer->replay_since;
    struct envelope envelope;
    struct arena arena;

    arena_init(&arena, ARENA_BLOCK, ARENA_MAX);
    if (envelope_decode(encoded, &arena, &envelope) == ERR_OK) {
        if (is_reception_due(since, envelope.id, envelope.body_size, envelope.flags))
            tell_reception(transfer, &envelope);
        for (uint32_t i = 0; i < progress_count; i++) {
            struct envelope_progress told;
            if (is_progress_due(since, progress[i], &arena, &told))
                tell_progress(transfer, &envelope, &told);
        }
    }
    arena_fini(&arena);
    transfer_ends_told(transfer);
}

/* ---- envelopes that are read ---- */

static void replay_free(struct transfer *transfer, struct transfer_replay *replay)
{
    CHECK(transfer->replays_active > 0);
    transfer->replays_active--;
    LIST_REMOVE(replay, link);
    for (uint32_t i = 0; i < replay->progress_count; i++)
        free((void *)(uintptr_t)replay->progress[i].data);
    free(replay->progress);
    free(replay);
}

static struct span span_copy(struct span span)
{
    uint8_t *octets = malloc(span.size + 1u);

    CHECK(octets != NULL);
    memcpy(octets, span.data, span.size);
    return span_of(octets, span.size);
}

/* `due`: which of the message's PROGRESS. */
static void replay_read(struct transfer *transfer, const struct spool_recovered *message,
                        const bool *due)
{
    struct transfer_replay *replay = calloc(1, sizeof(*replay));

    CHECK(replay != NULL);
    replay->token.kind = TRANSFER_TOKEN_REPLAY;
    replay->entry = message->entry;
    replay->progress = calloc(message->progress_count + 1u, sizeof(*replay->progress));
    CHECK(replay->progress != NULL);
    for (uint32_t i = 0; i < message->progress_count; i++) {
        if (due[i])
            replay->progress[replay->progress_count++] = span_copy(message->progress[i]);
    }
    LIST_INSERT_HEAD(&transfer->replays, replay, link);
    transfer->replays_active++;
    spool_read_envelope(transfer->options.spool, message->entry, (uint64_t)(uintptr_t)replay);
}

void transfer_replay_on_read(struct transfer *transfer, struct transfer_replay *replay,
                             struct spool_event *event)
{
    uint32_t size = event->err == ERR_OK ? (uint32_t)event->octets.size : 0;

    if (event->err == ERR_MEMORY || record_sink_holds(&transfer->options.records)) {
        replay->is_put_off = true;
        buf_queue_fini(&event->octets);
        return;
    }
    uint8_t *encoded = malloc(size + 1u);

    CHECK(encoded != NULL);
    if (size > 0 && size <= ENVELOPE_SIZE_MAX) {
        buf_queue_copy_out(&event->octets, 0, encoded, size);
        tell_all(transfer, span_of(encoded, size), replay->progress, replay->progress_count);
    } else {
        log_line(LOG_ERROR, "event=replay reason=\"%s\" (records of a message are lost)",
                 err_text(event->err));
    }
    free(encoded);
    buf_queue_fini(&event->octets);
    replay_free(transfer, replay);
}

/* ---- a message comes back ---- */

static bool any_is_due(const bool *due, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (due[i])
            return true;
    }
    return false;
}

/* Which PROGRESS payloads are to be told; the caller frees it. */
static bool *progress_due(wall_us since, const struct spool_recovered *message)
{
    bool *due = calloc(message->progress_count + 1u, sizeof(*due));
    struct arena arena;

    CHECK(due != NULL);
    arena_init(&arena, ARENA_BLOCK, ARENA_MAX);
    for (uint32_t i = 0; i < message->progress_count; i++) {
        struct envelope_progress progress;
        arena_reset(&arena);
        due[i] = is_progress_due(since, message->progress[i], &arena, &progress);
    }
    arena_fini(&arena);
    return due;
}

void transfer_replay(struct transfer *transfer, const struct spool_recovered *message,
                     const struct envelope_index *index)
{
    wall_us since = transfer->replay_since;
    struct message_id id = spool_entry_id(message->entry);

    if (since == INT64_MAX)
        return;
    if (index == NULL) {
        tell_all(transfer, message->envelope, message->progress, message->progress_count);
        return;
    }
    bool *due = progress_due(since, message);
    if (is_reception_due(since, id, index->body_size, index->flags) ||
        any_is_due(due, message->progress_count))
        replay_read(transfer, message, due);
    free(due);
}

void transfer_replays_run(struct transfer *transfer)
{
    struct transfer_replay *replay;
    uint32_t count = 0;

    if (record_sink_holds(&transfer->options.records))
        return;
    LIST_FOREACH(replay, &transfer->replays, link)
    {
        if (!replay->is_put_off)
            continue;
        if (count++ == REPLAYS_AGAIN)
            return;
        replay->is_put_off = false;
        spool_read_envelope(transfer->options.spool, replay->entry, (uint64_t)(uintptr_t)replay);
    }
}

bool transfer_is_replaying(const struct transfer *transfer)
{
    return transfer->replays_active >= REPLAYS_MAX || record_sink_holds(&transfer->options.records);
}

void transfer_replays_free(struct transfer *transfer)
{
    while (!LIST_EMPTY(&transfer->replays))
        replay_free(transfer, LIST_FIRST(&transfer->replays));
}
