/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Askers: a table of questions and how often each is asked. A question is a connection of its own
 * to the control socket, as the programs' are; it is read without waiting, since the one who
 * answers has the same thread.
 *
 *   due -> sent (fd >= 0) -> all read -> due again, a period after it was due
 *
 * Not here: what the sockets cost the kernel, and libmicrohttpd's parsing of a request.
 */
#include "bench/line/watch.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/admin.h"
#include "control/ask.h"
#include "control/metrics.h"

#define ASKER_MAX    24u
#define QUESTION_MAX 256u
#define LOOK_TIME    20u /* microseconds: how often it is looked for an answer */
#define REPLY_SITES  6u  /* whose last replies the dashboard shows (lists.js) */

/* Of whom the question is decides what is done with the answer: top is a program of its own; a
 * scrape asks twice. */
enum of { OF_TOP, OF_PAGE, OF_SCRAPE, OF_SCRAPE_END };

struct asker {
    enum of of;
    char question[QUESTION_MAX + 48]; /* with its verb and age */
    tick_us period, due;
    int fd; /* -1: nothing is asked */
    char *text;
    size_t size, capacity;
    char *before; /* OF_SCRAPE_END: the first answer */
};

struct watch {
    struct admin *admin;
    struct ring_group *group;
    uint32_t shard_count, asker_count;
    char path[64];
    uint64_t answers;
    struct asker askers[ASKER_MAX];
};

static const struct {
    enum of of;
    uint32_t period_s;
    const char *question;
} questions[] = {
    /* control/cli_top_ask.c */
    {OF_TOP, 1, "\"status\""},
    {OF_TOP, 1, "\"queue summary\",\"by\":\"site\",\"limit\":1000"},
    /* control/dashboard/main.js, lists.js, drill.js */
    {OF_PAGE, 1, "\"status\""},
    {OF_PAGE, 2, "\"queue summary\",\"by\":\"site\",\"limit\":15"},
    {OF_PAGE, 3, "\"site show\",\"limit\":200"},
    {OF_PAGE, 5, "\"source show\",\"limit\":100"},
    {OF_PAGE, 5, "\"explain\",\"id\":\"sink.test\""},
    {OF_PAGE, 5, "\"queue list\",\"filter\":\"domain=sink.test\",\"limit\":50"},
    /* control/http.c */
    {OF_SCRAPE, 15, "\"status\""},
    {OF_SCRAPE_END, 0, "\"queue summary\",\"by\":\"site\",\"limit\":20"},
};

/* ---- answers ---- */

/* Kept apart, with their names, for who counts: here all of the relay's own work beside the shards
 * is done. */
#define COUNTED __attribute__((noinline, used))

COUNTED void watch_http(const char *answer, size_t size, const char *before)
{
    char *text = NULL;

    CHECK(ask_is_ok(answer, size));
    if (before == NULL) { /* it goes on as it came */
        text = malloc(size);
        CHECK(text != NULL);
        memcpy(text, answer, size);
    } else {
        json_t *status = json_loads(before, 0, NULL), *sites = json_loadb(answer, size, 0, NULL);
        FILE *out = open_memstream(&text, &size);
        CHECK(out != NULL && status != NULL && sites != NULL);
        metrics_write(status, sites, out);
        (void)fclose(out);
        json_decref(status);
        json_decref(sites);
    }
    free(text);
}

static void answer_take(struct watch *watch, struct asker *asker, tick_us now)
{
    size_t size = asker->size;

    asker->text[size] = '\0';
    CHECK(ask_is_ok(asker->text, size) && asker->text[size - 1] == '\n');
    asker->size = 0;
    asker->due = asker->due + asker->period > now ? asker->due + asker->period : now;
    watch->answers++;
    if (asker->of == OF_SCRAPE) {
        asker[1].before = strdup(asker->text);
        asker[1].due = now;
    } else if (asker->of == OF_SCRAPE_END) {
        watch_http(asker->text, size, asker->before);
        free(asker->before);
        asker->before = NULL;
        asker->due = TICK_NEVER;
    } else if (asker->of == OF_PAGE) {
        watch_http(asker->text, size, NULL);
    }
}

static void answer_read(struct watch *watch, struct asker *asker, tick_us now)
{
    ssize_t got = 1;

    while (got > 0) {
        if (asker->capacity - asker->size < 4096) {
            asker->capacity = asker->capacity * 2 + 8192;
            asker->text = realloc(asker->text, asker->capacity);
            CHECK(asker->text != NULL);
        }
        got = recv(asker->fd, asker->text + asker->size, asker->capacity - asker->size - 1,
                   MSG_DONTWAIT);
        asker->size += got > 0 ? (size_t)got : 0;
    }
    if (got < 0) {
        CHECK(errno == EAGAIN);
        return;
    }
    close(asker->fd);
    asker->fd = -1;
    answer_take(watch, asker, now);
}

/* ---- questions ---- */

static void question_send(const struct watch *watch, struct asker *asker)
{
    json_t *question = json_loads(asker->question, 0, NULL);

    asker->fd = ask_connect(watch->path);
    CHECK(question != NULL && asker->fd >= 0);
    CHECK(ask_send(asker->fd, question));
    json_decref(question);
}

/* The thread of a connection over HTTP asks; what its request costs libmicrohttpd is not here. */
COUNTED static void watch_ask(const struct watch *watch, struct asker *asker)
{
    question_send(watch, asker);
}

static void asker_add(struct watch *watch, enum of of, uint32_t period_s, const char *question,
                      tick_us now)
{
    struct asker *asker = &watch->askers[watch->asker_count++];

    CHECK(watch->asker_count <= ASKER_MAX && strlen(question) < QUESTION_MAX);
    *asker = (struct asker){.of = of, .period = TICK_S(period_s), .fd = -1};
    asker->due = of == OF_SCRAPE_END ? TICK_NEVER : now;
    char age[32] = "";
    if (of == OF_TOP || of == OF_PAGE)
        (void)snprintf(age, sizeof(age), ",\"max_age_ms\":%d", ASK_AGE_MS);
    (void)snprintf(asker->question, sizeof(asker->question), "{\"verb\":%s%s}", question, age);
}

/* ---- the turn ---- */

COUNTED static void watch_control(struct watch *watch, tick_us now)
{
    admin_run(watch->admin, now);
}

void watch_turn(struct watch *watch, tick_us now)
{
    struct pollfd wakes = {.fd = admin_fd(watch->admin), .events = POLLIN};

    for (uint32_t i = 0; i < watch->asker_count; i++) {
        struct asker *asker = &watch->askers[i];
        if (asker->fd >= 0 || asker->due > now)
            continue;
        if (asker->of == OF_TOP)
            question_send(watch, asker);
        else
            watch_ask(watch, asker);
    }
    if (poll(&wakes, 1, 0) > 0) /* the daemon sleeps until then, and until a client is late */
        watch_control(watch, now);
    for (uint32_t i = 0; i < watch->asker_count; i++) {
        if (watch->askers[i].fd >= 0)
            answer_read(watch, &watch->askers[i], now);
    }
}

COUNTED void watch_on_message(struct watch *watch, const struct ring_message *message, tick_us now)
{
    struct shard_control control;

    memcpy(&control, message->payload, sizeof(control));
    if (message->kind == SHARD_MESSAGE_QUERY)
        admin_on_reply(watch->admin, control.query, now);
}

tick_us watch_deadline(const struct watch *watch, tick_us now)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < watch->asker_count; i++) {
        if (watch->askers[i].fd >= 0)
            return now + LOOK_TIME;
        if (watch->askers[i].due < deadline)
            deadline = watch->askers[i].due;
    }
    return deadline;
}

uint64_t watch_answers(const struct watch *watch)
{
    return watch->answers;
}

/* ---- start and end ---- */

static void shard_ask(void *context, uint32_t shard, struct shard_query *query)
{
    const struct watch *watch = context;
    struct shard_control control = {.query = query};
    struct ring_message message = {.kind = SHARD_MESSAGE_QUERY, .payload_size = sizeof(control)};

    memcpy(message.payload, &control, sizeof(control));
    ring_send(ring_member_get(watch->group, watch->shard_count), shard, &message);
}

struct watch *watch_new(struct ring_group *group, uint32_t shard_count, uint32_t sites, tick_us now)
{
    struct watch *watch = calloc(1, sizeof(*watch));

    CHECK(watch != NULL);
    watch->group = group;
    watch->shard_count = shard_count;
    (void)snprintf(watch->path, sizeof(watch->path), "/tmp/angarium-line.%d", (int)getpid());
    for (uint32_t i = 0; i < COUNT_OF(questions); i++)
        asker_add(watch, questions[i].of, questions[i].period_s, questions[i].question, now);
    for (uint32_t i = 0; i < REPLY_SITES && i < sites; i++) {
        char question[QUESTION_MAX];
        (void)snprintf(question, sizeof(question),
                       "\"queue list\",\"filter\":\"domain=w%u.test state=waiting\",\"limit\":10",
                       i);
        asker_add(watch, OF_PAGE, 6, question, now);
    }
    struct admin_options options = {
        .path = watch->path, .shard_count = shard_count, .context = watch, .query = shard_ask};
    enum err err = admin_new(&options, &watch->admin);
    CHECK(err == ERR_OK);
    return watch;
}

void watch_free(struct watch *watch)
{
    if (watch == NULL)
        return;
    for (uint32_t i = 0; i < watch->asker_count; i++) {
        if (watch->askers[i].fd >= 0)
            close(watch->askers[i].fd);
        free(watch->askers[i].text);
        free(watch->askers[i].before);
    }
    admin_free(watch->admin);
    free(watch);
}
