/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer to `status`. Numbers are rows of status.def, summed over the shards; `per_core` has a
 * few of them for each. They are asked for once a second for as long as anybody looks, so they go
 * to text without a tree in between, and what is always the same is made once.
 */
#include "control/admin_answer.h"

#include "control/confine.h"
#include "control/digits.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define KEY_SIZE     48u
#define GROUP_SIZE   24u
#define POSTURE_TIME TICK_S(60)

/* A member's name as it is written behind another; longer ones do not build. It is copied whole. */
struct key {
    char text[KEY_SIZE];
    uint8_t size;
};
#define KEY(name)                                                                                  \
    {                                                                                              \
        ",\"" name "\":", sizeof(",\"" name "\":") - 1                                             \
    }

static const struct field {
    const char *group;
    struct key key;
} fields[] = {
#define STATUS(group, name, type, help) {#group, KEY(#name)},
#define SHARED(group, name, help)       {#group, KEY(#name)},
#define OWN(name, type, help)           {"shards", KEY(#name)},
#include "control/status.def"
};

static const struct span latencies[] = {
#define LATENCY(name, help) {(const uint8_t *)"\"" #name "\":", sizeof("\"" #name "\":") - 1},
#include "control/status.def"
};

static const struct span fines[] = {
#define FINE(name, help) {(const uint8_t *)"\"" #name "\":", sizeof("\"" #name "\":") - 1},
#include "control/status.def"
};

struct admin_status {
    struct status_sums sums;
    struct shard_status told;
    struct json_text cores; /* rows, without their brackets */
};

struct admin_status_texts {
    struct json_text tops; /* of a latency's buckets: an array */
    struct json_text fine_tops;
    uint16_t fine_ends[LATENCY_FINE_BUCKET_COUNT + 1]; /* so much of it has so many */
    struct json_text posture;
    tick_us posture_until;
};

/* ---- what is always the same ---- */

struct admin_status_texts *admin_status_texts_new(void)
{
    struct admin_status_texts *texts = calloc(1, sizeof(*texts));
    uint64_t tops[LATENCY_BUCKET_COUNT];

    CHECK(texts != NULL);
    for (uint32_t i = 0; i < LATENCY_BUCKET_COUNT; i++)
        tops[i] = latency_bucket_top(i);
    json_text_numbers(&texts->tops, tops, LATENCY_BUCKET_COUNT);
    json_text_open(&texts->fine_tops, '[');
    texts->fine_ends[0] = 1;
    for (uint32_t i = 0; i < LATENCY_FINE_BUCKET_COUNT; i++) {
        json_text_number(&texts->fine_tops, (int64_t)latency_fine_bucket_top(i));
        texts->fine_ends[i + 1] = (uint16_t)texts->fine_tops.size;
    }
    return texts;
}

void admin_status_texts_free(struct admin_status_texts *texts)
{
    if (texts == NULL)
        return;
    json_text_free(&texts->tops);
    json_text_free(&texts->fine_tops);
    json_text_free(&texts->posture);
    free(texts);
}

/* ---- sums ---- */

struct admin_status *admin_status_new(void)
{
    struct admin_status *status = malloc(sizeof(*status)); /* much, and written before it is read */

    CHECK(status != NULL);
    status->sums.shard_count = 0;
    status->cores = (struct json_text){0};
    return status;
}

void admin_status_free(struct admin_status *status)
{
    if (status == NULL)
        return;
    json_text_free(&status->cores);
    free(status);
}

struct shard_status *admin_status_room(struct admin_status *status)
{
    return &status->told;
}

const struct status_sums *admin_status_sums(const struct admin_status *status)
{
    return &status->sums;
}

/* Of each shard by itself: how evenly they are loaded, and with what. */
static void core_add(struct json_text *cores, const struct shard_status *status)
{
    json_text_open(cores, '{');
    json_text_set_number(cores, JSON_KEY("turns"), status->turns);
    json_text_set_number(cores, JSON_KEY("busy_us"), status->busy_us);
    json_text_set_number(cores, JSON_KEY("sessions"), status->server.open);
    json_text_set_number(cores, JSON_KEY("connections"), status->client.open);
    json_text_set_number(cores, JSON_KEY("messages"), status->server.messages_accepted);
    json_text_set_number(cores, JSON_KEY("deliveries"), status->client.accepted);
    json_text_set_number(cores, JSON_KEY("queued"), status->queue.messages);
    json_text_close(cores, '}');
}

void admin_status_add(struct admin_status *status)
{
    status_sums_add(&status->sums, &status->told);
    core_add(&status->cores, &status->told);
}

/* ---- the answer ---- */

/* `,"group":{`, behind the end of the group before. */
static char *group_open(char *room, const char *group, bool is_first)
{
    size_t size = strlen(group);

    CHECK(size + 6 <= GROUP_SIZE);
    if (!is_first)
        *room++ = '}';
    *room++ = ',';
    *room++ = '"';
    memcpy(room, group, size);
    memcpy(room + size, "\":{", 3);
    return room + size + 3;
}

/* Rows of a group stand together: a group is opened once. There is room for all of them. */
static void groups_write(const uint64_t *numbers, struct json_text *text)
{
    char *room = json_text_room(text, COUNT_OF(fields) * (KEY_SIZE + DIGITS_MAX + GROUP_SIZE) + 1);
    const char *group = "";

    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        const struct key *key = &fields[i].key;
        bool is_other = group != fields[i].group && strcmp(group, fields[i].group) != 0;
        if (is_other)
            room = group_open(room, fields[i].group, i == 0);
        group = fields[i].group;
        memcpy(room, key->text + is_other, KEY_SIZE - 1); /* without a comma, the first */
        room = digits_put(room + key->size - is_other, numbers[i]);
    }
    *room++ = '}';
    json_text_written(text, room);
}

/* Of each bucket its top, the same for all; and how many. */
static void latencies_write(const struct status_sums *sums, const struct admin_status_texts *texts,
                            struct json_text *text)
{
    json_text_key(text, JSON_KEY("latency"));
    json_text_open(text, '{');
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++) {
        json_text_key(text, latencies[i]);
        json_text_open(text, '{');
        json_text_set_number(text, JSON_KEY("sum_us"), sums->latencies[i].sum_us);
        json_text_key(text, JSON_KEY("bounds_us"));
        json_text_octets(text, texts->tops.data, texts->tops.size);
        json_text_key(text, JSON_KEY("counts"));
        json_text_numbers(text, sums->latencies[i].counts, LATENCY_BUCKET_COUNT);
        json_text_close(text, '}');
    }
    json_text_close(text, '}');
}

/* Without the empty buckets behind the last that counts something: there may be none at all. */
static void fine_write(const struct latency_fine *latency, const struct admin_status_texts *texts,
                       struct json_text *text)
{
    uint32_t used = LATENCY_FINE_BUCKET_COUNT;

    while (used > 0 && latency->counts[used - 1] == 0)
        used--;
    json_text_open(text, '{');
    json_text_set_number(text, JSON_KEY("sum_ns"), latency->sum_ns);
    json_text_key(text, JSON_KEY("bounds_ns"));
    json_text_octets(text, texts->fine_tops.data, texts->fine_ends[used]);
    json_text_close(text, ']');
    json_text_key(text, JSON_KEY("counts"));
    json_text_numbers(text, latency->counts, used);
    json_text_close(text, '}');
}

void admin_status_write(const struct admin_status *status, const struct admin_status_texts *texts,
                        struct json_text *text)
{
    groups_write(status->sums.numbers, text);
    latencies_write(&status->sums, texts, text);
    json_text_key(text, JSON_KEY("latency_ns"));
    json_text_open(text, '{');
    for (uint32_t i = 0; i < COUNT_OF(fines); i++) {
        json_text_key(text, fines[i]);
        fine_write(&status->sums.fines[i], texts, text);
    }
    json_text_close(text, '}');
    json_text_key(text, JSON_KEY("per_core"));
    json_text_open(text, '[');
    json_text_octets(text, status->cores.data, status->cores.size);
    json_text_close(text, ']');
}

/* What the process may do changes only as it starts; its user's name is read from a file. */
static void posture_write(struct admin_status_texts *texts, tick_us uptime, struct json_text *text)
{
    if (uptime >= texts->posture_until) {
        json_text_free(&texts->posture);
        json_text_tree(&texts->posture, confine_posture());
        texts->posture_until = uptime + POSTURE_TIME;
    }
    json_text_key(text, JSON_KEY("confinement"));
    json_text_octets(text, texts->posture.data, texts->posture.size);
}

void admin_status_finish(struct admin_status_texts *texts, uint32_t shard_count, tick_us uptime,
                         const struct record_writer_stats *records, struct json_text *text)
{
    json_text_set_string(text, JSON_KEY("version"), ANGARIUM_VERSION);
    json_text_set_number(text, JSON_KEY("pid"), (uint64_t)getpid());
    json_text_set_number(text, JSON_KEY("cores"), shard_count);
    posture_write(texts, uptime, text);
    json_text_set_number(text, JSON_KEY("uptime_s"), uptime / TICK_S(1));
    json_text_set_number(text, JSON_KEY("uptime_us"), uptime);
    if (records == NULL)
        return;
    json_text_key(text, JSON_KEY("records"));
    json_text_open(text, '{');
    json_text_set_number(text, JSON_KEY("written"), records->written);
    json_text_set_number(text, JSON_KEY("dropped"), records->dropped);
    json_text_set_number(text, JSON_KEY("write_failures"), records->write_failures);
    json_text_set_number(text, JSON_KEY("replayed"), records->replayed);
    json_text_set_number(text, JSON_KEY("holding"), records->is_holding);
    json_text_close(text, '}');
}

/* ---- webhooks ---- */

static void webhook_row(const struct webhook_stats *stats, struct json_text *text)
{
    json_text_open(text, '{');
    json_text_set_string(text, JSON_KEY("name"), stats->name);
    json_text_set_number(text, JSON_KEY("batches"), stats->batches);
    json_text_set_number(text, JSON_KEY("events"), stats->events);
    json_text_set_number(text, JSON_KEY("failures"), stats->failures);
    json_text_set_number(text, JSON_KEY("waiting"), stats->waiting);
    json_text_set_number(text, JSON_KEY("gaps"), stats->gaps);
    json_text_set_number(text, JSON_KEY("answer"), stats->answer);
    json_text_set_string(text, JSON_KEY("state"),
                         stats->is_gone      ? "gone"
                         : stats->is_failing ? "failing"
                                             : "ok");
    json_text_close(text, '}');
}

struct admin_webhooks admin_status_webhooks(const struct webhook_set *webhooks)
{
    struct admin_webhooks all = {.count = webhook_set_count(webhooks)};

    for (uint32_t i = 0; i < all.count; i++) {
        struct webhook_stats stats = webhook_get_stats(webhooks, i);
        all.batches += stats.batches;
        all.events += stats.events;
        all.failures += stats.failures;
        all.waiting += stats.waiting;
        all.gaps += stats.gaps;
        all.failing += stats.is_failing;
        all.gone += stats.is_gone;
    }
    return all;
}

void admin_status_webhooks_write(const struct webhook_set *webhooks, struct json_text *text)
{
    struct admin_webhooks all = admin_status_webhooks(webhooks);

    if (all.count == 0)
        return;
    json_text_key(text, JSON_KEY("webhook"));
    json_text_open(text, '[');
    for (uint32_t i = 0; i < all.count; i++) {
        struct webhook_stats stats = webhook_get_stats(webhooks, i);
        webhook_row(&stats, text);
    }
    json_text_close(text, ']');
    json_text_key(text, JSON_KEY("webhooks"));
    json_text_open(text, '{');
    json_text_set_number(text, JSON_KEY("batches"), all.batches);
    json_text_set_number(text, JSON_KEY("events"), all.events);
    json_text_set_number(text, JSON_KEY("failures"), all.failures);
    json_text_set_number(text, JSON_KEY("waiting"), all.waiting);
    json_text_set_number(text, JSON_KEY("gaps"), all.gaps);
    json_text_set_number(text, JSON_KEY("failing"), all.failing);
    json_text_set_number(text, JSON_KEY("gone"), all.gone);
    json_text_close(text, '}');
}
