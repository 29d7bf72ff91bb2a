/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What arrives at the sink. The header is copied until it is over, looked through for X-Load, and
 * the body only runs through the checksum: a message of any size costs the sink SINK_HEAD_SIZE
 * octets, kept from one message to the next.
 *
 * The ledger's lines are written in the turn in which the reply leaves, and reach the kernel before
 * it (ledger.c).
 */
#include "bench/load/sink_internal.h"

#include <stdlib.h>

#include "queue/crc32c.h"

#define HEAD_PIECE         512u /* copied at a time: a header is seldom longer */
#define CHECK_WANTED(sink) ((sink)->ledger != NULL || (sink)->options->is_checking)

void sink_transaction_reset(struct sink_session *session)
{
    session->has_sender = false;
    session->recipient_count = session->recipients_size = 0;
    session->size = 0;
}

void sink_recipient_add(struct sink *sink, struct sink_session *session, struct span recipient)
{
    session->recipient_count++;
    if (sink->ledger == NULL)
        return;
    uint32_t needed = session->recipients_size + recipient.size + 1;
    if (needed > session->recipients_capacity) {
        session->recipients_capacity = needed * 2 + 64;
        session->recipients = realloc(session->recipients, session->recipients_capacity);
        CHECK(session->recipients != NULL);
    }
    char *end = text_put(session->recipients + session->recipients_size, recipient);
    *end = '\0';
    session->recipients_size = needed;
}

void sink_message_begin(struct sink *sink, struct sink_session *session)
{
    (void)sink;
    if (session->head == NULL)
        session->head = malloc(SINK_HEAD_SIZE);
    CHECK(session->head != NULL);
    session->reader = (struct body_reader){0};
    session->is_head = true;
    session->head_size = session->checksum = session->body_size = 0;
    session->size = session->kept_size = 0;
}

static void keep(struct sink_session *session, struct span text)
{
    size_t needed = session->kept_size + text.size;

    if (needed > SINK_MESSAGE_MAX)
        return; /* it will be refused */
    if (needed > session->kept_capacity) {
        session->kept_capacity = needed * 2 + 4096;
        session->kept = realloc(session->kept, session->kept_capacity);
        CHECK(session->kept != NULL);
    }
    memcpy(session->kept + session->kept_size, text.data, text.size);
    session->kept_size = needed;
}

/* The header's part of the text, or the beginning of it, taken into `head`. Returns the rest. */
static struct span feed_head(struct sink_session *session, struct span text)
{
    uint32_t from = session->head_size > 3 ? session->head_size - 3 : 0;
    uint32_t room = SINK_HEAD_SIZE - session->head_size;
    uint32_t size = text.size < room ? text.size : room;

    size = size < HEAD_PIECE ? size : HEAD_PIECE;
    memcpy(session->head + session->head_size, text.data, size);
    const char *end = memmem(session->head + from, session->head_size + size - from, "\r\n\r\n", 4);
    if (end != NULL) {
        uint32_t head_size = (uint32_t)(end - session->head) + 4;
        text = span_skip(text, head_size - session->head_size);
        session->head_size = head_size;
        session->is_head = false;
        return text;
    }
    session->head_size += size;
    session->is_head = session->head_size < SINK_HEAD_SIZE;
    return span_skip(text, size);
}

void sink_message_feed(struct sink *sink, struct sink_session *session, struct span text)
{
    session->size += text.size;
    if (sink->options->keep_directory != NULL)
        keep(session, text);
    while (session->is_head && text.size > 0)
        text = feed_head(session, text);
    session->body_size += text.size;
    if (text.size > 0 && CHECK_WANTED(sink))
        session->checksum = crc32c_update(session->checksum, text);
}

/* Whose message is it? False: the field is there and does not make sense. */
static bool identify(const struct sink_session *session, struct text_seen *ret_seen)
{
    static const char name[] = "\r\nX-Load: ";
    struct span head = span_of(session->head, session->head_size);

    *ret_seen = (struct text_seen){.id = "-"};
    const uint8_t *field =
        head.size == 0 ? NULL : memmem(head.data, head.size, name, sizeof(name) - 1);
    if (field == NULL)
        return true;
    struct span value = span_skip(head, (uint32_t)(field - head.data) + (uint32_t)sizeof(name) - 1);
    const uint8_t *end = value.size == 0 ? NULL : memchr(value.data, '\r', value.size);
    return end != NULL &&
           text_field_parse(span_head(value, (uint32_t)(end - value.data)), ret_seen) == ERR_OK;
}

static bool is_whole(const struct sink_session *session, const struct text_seen *seen)
{
    return seen->covered.size == 0 || /* not one of ours */
           (session->body_size == seen->size &&
            crc32c_update(session->checksum, seen->covered) == seen->checksum);
}

static void write_ledger(struct sink *sink, const struct sink_session *session, const char *id,
                         bool is_good)
{
    const char *recipient = session->recipients;

    for (uint32_t i = 0; i < session->recipient_count; i++) {
        struct span name = span_from_text(recipient);
        ledger_sink(sink->ledger, id, name, is_good);
        recipient += name.size + 1;
    }
}

static void write_file(struct sink *sink, const struct sink_session *session)
{
    char path[4096];
    int size = snprintf(path, sizeof(path), "%s/%08llu", sink->options->keep_directory,
                        (unsigned long long)sink->kept_count++);
    FILE *file = size > 0 && (size_t)size < sizeof(path) ? fopen(path, "w") : NULL;

    if (file == NULL || fwrite(session->kept, 1, session->kept_size, file) != session->kept_size ||
        fclose(file) != 0) {
        perror(path);
        exit(1);
    }
}

static void measure(struct sink *sink, const struct sink_session *session,
                    const struct text_seen *seen)
{
    meter_count(sink->meter, METER_MESSAGES, 1);
    meter_count(sink->meter, METER_RECIPIENTS, session->recipient_count);
    meter_count(sink->meter, METER_OCTETS, session->size);
    if (seen->stamp == 0)
        return;
    if (seen->stamp > sink->now.wall)
        meter_count(sink->meter, METER_SKEWED, 1);
    else
        meter_latency(sink->meter, METER_END_TO_END, (tick_us)(sink->now.wall - seen->stamp));
}

bool sink_message_end(struct sink *sink, struct sink_session *session)
{
    const struct mood *mood = &sink->options->mood;
    struct mood_verdict verdict = mood_draw(mood, MOOD_END, &sink->rng);
    struct text_seen seen;

    session->state = SINK_COMMANDS;
    if (session->size > SINK_MESSAGE_MAX) /* RFC 1870 section 6.3 */
        verdict.reply = "552 5.3.4 larger than EHLO said\r\n";
    if (verdict.is_drop || verdict.reply != NULL) {
        sink_transaction_reset(session);
        return sink_answer(sink, session, MOOD_END, &verdict, NULL);
    }
    bool is_good = identify(session, &seen);
    is_good = is_good && (!CHECK_WANTED(sink) || is_whole(session, &seen));
    meter_count(sink->meter, METER_DAMAGED, !is_good);
    if (sink->ledger != NULL)
        write_ledger(sink, session, seen.id, is_good);
    if (sink->options->keep_directory != NULL)
        write_file(sink, session);
    measure(sink, session, &seen);
    sink_transaction_reset(session);
    struct mood_verdict taken = mood_draw(mood, MOOD_TAKEN, &sink->rng);
    verdict.is_drop = taken.is_drop;
    return sink_answer(sink, session, MOOD_END, &verdict, "250 2.0.0 taken\r\n");
}
