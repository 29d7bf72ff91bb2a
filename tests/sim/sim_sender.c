/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Senders: scripted SMTP clients that press the relay and write down what it says.
 *
 * Each connection draws its manners: lockstep or pipelining (also across transactions), DATA or
 * BDAT, patience, and a chance to leave at any step. Every command sent puts what its reply is for
 * on a queue, and each reply is held against the front of it: an enhanced code that belongs to
 * another command is a violation (replies out of order).
 *
 *   IDLE -> CONNECTING -> OPEN (banner, EHLO, transactions, QUIT) -> IDLE, until all messages of
 *   this sender are spent
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define EXPECT_MAX   256u
#define REPLY_WAIT   TICK_S(700)
#define PAUSE_MAX    TICK_S(5)
#define POOL_COUNT   65536u
#define AHEAD_MAX    3u
#define CHUNK_MAX    4u
#define SENDER_START TICK_MS(1)

enum expect_kind {
    EXPECT_BANNER,
    EXPECT_HELLO,
    EXPECT_MAIL,
    EXPECT_RCPT,
    EXPECT_DATA,
    EXPECT_CHUNK,
    EXPECT_END,
    EXPECT_QUIT
};

static const char *const expect_names[] = {"banner", "EHLO",  "MAIL",        "RCPT",
                                           "DATA",   "chunk", "end of data", "QUIT"};

struct expect {
    enum expect_kind kind;
    uint32_t message, recipient;
};

enum sender_state { SENDER_IDLE, SENDER_CONNECTING, SENDER_OPEN, SENDER_DONE };

struct sender {
    enum sender_state state;
    struct flow flow;
    tick_us deadline; /* IDLE: connect then; else: give up then */
    uint32_t messages_left;
    bool is_pipelining, has_chunking;
    uint32_t leave_chance; /* per million, at every step */
    struct sim_text received;
    struct expect expects[EXPECT_MAX];
    uint32_t expect_head, expect_count;
    uint32_t unanswered_ends;
    bool has_quit;
};

struct senders {
    struct senders_options options;
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct rng rng;
    struct sender *senders;
};

static bool chance(struct senders *senders, uint32_t per_million)
{
    return rng_below(&senders->rng, 1000000) < per_million;
}

/* ---- the connection ---- */

static void sender_rest(struct senders *senders, struct sender *sender)
{
    sim_text_fini(&sender->received);
    sender->expect_head = sender->expect_count = sender->unanswered_ends = 0;
    sender->has_quit = false;
    sender->state = sender->messages_left > 0 ? SENDER_IDLE : SENDER_DONE;
    sender->deadline =
        net_sim_now(senders->options.net) + rng_below(&senders->rng, (uint32_t)PAUSE_MAX);
}

static void sender_leave(struct senders *senders, struct sender *sender, bool is_abort)
{
    if (is_abort)
        flow_abort(senders->plane, sender->flow);
    else
        flow_close(senders->plane, sender->flow);
    sender_rest(senders, sender);
}

static void sender_connect(struct senders *senders, struct sender *sender)
{
    uint64_t user = (uint64_t)(sender - senders->senders);
    tick_us now = net_sim_now(senders->options.net);

    sender->is_pipelining = rng_below(&senders->rng, 2) == 0;
    sender->has_chunking = rng_below(&senders->rng, 3) == 0;
    sender->leave_chance = rng_below(&senders->rng, 4) == 0 ? 20000 : 0;
    if (senders->options.ledger->is_streaming && sender->leave_chance > 0)
        sender->leave_chance = 80000;
    sender->state = SENDER_CONNECTING;
    sender->deadline = now + REPLY_WAIT;
    enum err err = flow_connect(senders->plane,
                                &(struct flow_connect_options){.remote = senders->options.relay,
                                                               .deadline = now + TICK_S(30),
                                                               .user = user},
                                &sender->flow);
    CHECK(err == ERR_OK);
    sender->expects[0] = (struct expect){.kind = EXPECT_BANNER};
    sender->expect_count = 1;
}

static void sender_send(struct senders *senders, struct sender *sender, const void *octets,
                        uint32_t size)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    enum err err = buf_queue_append_copy(&queue, senders->pool, span_of(octets, size));
    CHECK(err == ERR_OK);
    flow_append(senders->plane, sender->flow, &queue);
    buf_queue_fini(&queue);
}

static void sender_say(struct senders *senders, struct sender *sender, const char *line,
                       enum expect_kind kind, uint32_t message, uint32_t recipient)
{
    CHECK(sender->expect_count < EXPECT_MAX);
    sender->expects[(sender->expect_head + sender->expect_count++) % EXPECT_MAX] =
        (struct expect){kind, message, recipient};
    sender_send(senders, sender, line, (uint32_t)strlen(line));
    ledger_trace(senders->options.ledger, "sender %td: %.*s", sender - senders->senders,
                 (int)strcspn(line, "\r"), line);
}

/* ---- a transaction ---- */

static struct ledger_message *message_of(struct senders *senders, uint32_t number)
{
    return &senders->options.ledger->messages[number];
}

static void sender_say_rcpt(struct senders *senders, struct sender *sender, uint32_t number,
                            uint32_t recipient)
{
    char address[64], line[160];

    ledger_address(message_of(senders, number), recipient, address);
    bool wants_all = message_of(senders, number)->recipients[recipient].wants_all;
    snprintf(line, sizeof(line), "RCPT TO:<%s>%s\r\n", address,
             wants_all ? " NOTIFY=SUCCESS,FAILURE,DELAY" : "");
    sender_say(senders, sender, line, EXPECT_RCPT, number, recipient);
}

static void message_finished(struct senders *senders, struct sender *sender, uint32_t number)
{
    struct ledger_message *message = message_of(senders, number);

    message->fate = LEDGER_UNKNOWN;
    message->finished = net_sim_now(senders->options.net);
    sender->unanswered_ends++;
}

/* What the message consists of; every other one says its class, for the relay alone to see. */
static void sender_content(struct senders *senders, uint32_t number, struct sim_text *ret_content)
{
    static const char *const classes[] = {"X-Angarium-Class: bulk\r\n", "",
                                          "x-angarium-class:\r\n transactional\r\n", ""};
    const char *field = classes[number % COUNT_OF(classes)];
    struct sim_text content = {0};

    ledger_content(senders->options.ledger, message_of(senders, number), &content);
    sim_text_format(ret_content, "%s", field);
    sim_text_add(ret_content, content.data, content.size);
    sim_text_fini(&content);
}

static void sender_send_chunks(struct senders *senders, struct sender *sender, uint32_t number)
{
    struct sim_text content = {0};
    char line[64];
    uint32_t at = 0;

    sender_content(senders, number, &content);
    for (uint32_t i = 0; i < CHUNK_MAX; i++) {
        bool is_last = i == CHUNK_MAX - 1 || rng_below(&senders->rng, 2) == 0;
        uint32_t left = content.size - at;
        uint32_t size = is_last ? left : rng_below(&senders->rng, left + 1);
        snprintf(line, sizeof(line), "BDAT %u%s\r\n", size, is_last ? " LAST" : "");
        sender_say(senders, sender, line, is_last ? EXPECT_END : EXPECT_CHUNK, number, 0);
        sender_send(senders, sender, content.data + at, size);
        at += size;
        if (is_last)
            break;
    }
    message_finished(senders, sender, number);
    sim_text_fini(&content);
}

/* Dot-stuffed content and the final dot. False: the sender left half way. */
static bool sender_send_content(struct senders *senders, struct sender *sender, uint32_t number)
{
    struct sim_text content = {0}, stuffed = {0};
    bool is_line_start = true;

    sender_content(senders, number, &content);
    for (uint32_t i = 0; i < content.size; i++) {
        if (is_line_start && content.data[i] == '.')
            sim_text_add(&stuffed, ".", 1);
        sim_text_add(&stuffed, &content.data[i], 1);
        is_line_start = content.data[i] == '\n';
    }
    bool is_leaving = chance(senders, sender->leave_chance * 3);
    if (is_leaving) {
        sender_send(senders, sender, stuffed.data, rng_below(&senders->rng, stuffed.size));
        sender_leave(senders, sender, rng_below(&senders->rng, 2) == 0);
    } else {
        sender_send(senders, sender, stuffed.data, stuffed.size);
        sender_say(senders, sender, ".\r\n", EXPECT_END, number, 0);
        message_finished(senders, sender, number);
    }
    sim_text_fini(&content);
    sim_text_fini(&stuffed);
    return !is_leaving;
}

static void sender_begin(struct senders *senders, struct sender *sender)
{
    char line[128];

    sender->messages_left--;
    struct ledger_message *message =
        ledger_message_new(senders->options.ledger, &senders->rng, senders->options.domain_count);
    uint32_t number = message->number, count = message->recipient_count;
    snprintf(line, sizeof(line), "MAIL FROM:<s%u@sender.example>\r\n", number);
    sender_say(senders, sender, line, EXPECT_MAIL, number, 0);
    if (!sender->is_pipelining)
        return;
    for (uint32_t i = 0; i < count; i++)
        sender_say_rcpt(senders, sender, number, i);
    if (sender->has_chunking)
        sender_send_chunks(senders, sender, number);
    else
        sender_say(senders, sender, "DATA\r\n", EXPECT_DATA, number, 0);
}

/* The next transaction; with BDAT, which waits for no reply, several. */
static void sender_next(struct senders *senders, struct sender *sender)
{
    if (sender->messages_left == 0) {
        if (!sender->has_quit)
            sender_say(senders, sender, "QUIT\r\n", EXPECT_QUIT, 0, 0);
        sender->has_quit = true;
        return;
    }
    do {
        sender_begin(senders, sender);
    } while (sender->is_pipelining && sender->has_chunking && sender->messages_left > 0 &&
             sender->unanswered_ends < AHEAD_MAX);
}

/* ---- replies ---- */

static bool code_is_positive(uint16_t code)
{
    return code >= 200 && code < 400;
}

static void message_answered(struct senders *senders, uint32_t number, uint16_t code)
{
    struct ledger_message *message = message_of(senders, number);

    message->code = code;
    message->answered = net_sim_now(senders->options.net);
    message->fate = code_is_positive(code) ? LEDGER_ACCEPTED
                    : code < 500           ? LEDGER_DEFERRED
                                           : LEDGER_REFUSED;
    if (message->fate == LEDGER_ACCEPTED && message->is_poisoned)
        ledger_violation(senders->options.ledger, "message %u has a bare LF and was accepted",
                         number);
}

static void reply_check(struct senders *senders, const struct expect *expect, uint16_t code,
                        const char *text)
{
    static const char *const prefixes[] = {
        [EXPECT_BANNER] = "220",        [EXPECT_HELLO] = "250", [EXPECT_MAIL] = "250 2.1.0",
        [EXPECT_RCPT] = "250 2.1.5",    [EXPECT_DATA] = "354",  [EXPECT_CHUNK] = "250 2.0.0 chunk",
        [EXPECT_END] = "250 2.0.0 ok ", [EXPECT_QUIT] = "221"};

    if (code_is_positive(code) &&
        strncmp(text, prefixes[expect->kind], strlen(prefixes[expect->kind])) != 0)
        ledger_violation(senders->options.ledger,
                         "out of order: the reply to %s (message %u) is: %s",
                         expect_names[expect->kind], expect->message, text);
}

static void on_rcpt_reply(struct senders *senders, struct sender *sender,
                          const struct expect *expect, uint16_t code)
{
    struct ledger_message *message = message_of(senders, expect->message);

    message->recipients[expect->recipient].is_accepted = code_is_positive(code);
    if (sender->is_pipelining)
        return;
    if (expect->recipient + 1 < message->recipient_count)
        sender_say_rcpt(senders, sender, expect->message, expect->recipient + 1);
    else if (sender->has_chunking)
        sender_send_chunks(senders, sender, expect->message);
    else
        sender_say(senders, sender, "DATA\r\n", EXPECT_DATA, expect->message, 0);
}

static void on_data_reply(struct senders *senders, struct sender *sender,
                          const struct expect *expect, uint16_t code)
{
    if (code != 354) {
        message_answered(senders, expect->message, code);
        sender_next(senders, sender);
        return;
    }
    if (!sender_send_content(senders, sender, expect->message))
        return;
    if (sender->is_pipelining && sender->unanswered_ends < AHEAD_MAX)
        sender_next(senders, sender);
}

/* Returns false when the connection is over. */
static bool sender_on_reply(struct senders *senders, struct sender *sender, uint16_t code,
                            const char *text)
{
    ledger_trace(senders->options.ledger, "sender %td: < %s", sender - senders->senders, text);
    if (sender->expect_count == 0 || code == 421) {
        if (code != 421)
            ledger_violation(senders->options.ledger, "a reply to nothing: %s", text);
        sender_leave(senders, sender, false);
        return false;
    }
    struct expect expect = sender->expects[sender->expect_head];
    sender->expect_head = (sender->expect_head + 1) % EXPECT_MAX;
    sender->expect_count--;
    reply_check(senders, &expect, code, text);
    if (chance(senders, sender->leave_chance)) {
        sender_leave(senders, sender, rng_below(&senders->rng, 2) == 0);
        return false;
    }
    switch (expect.kind) {
    case EXPECT_BANNER:
        sender->state = SENDER_OPEN;
        sender_say(senders, sender, "EHLO client.example\r\n", EXPECT_HELLO, 0, 0);
        break;
    case EXPECT_HELLO:
        sender_next(senders, sender);
        break;
    case EXPECT_MAIL:
        if (sender->is_pipelining)
            break;
        if (code_is_positive(code)) {
            sender_say_rcpt(senders, sender, expect.message, 0);
        } else {
            message_answered(senders, expect.message, code);
            sender_next(senders, sender);
        }
        break;
    case EXPECT_RCPT:
        on_rcpt_reply(senders, sender, &expect, code);
        break;
    case EXPECT_DATA:
        on_data_reply(senders, sender, &expect, code);
        break;
    case EXPECT_CHUNK:
        break;
    case EXPECT_END:
        message_answered(senders, expect.message, code);
        sender->unanswered_ends--;
        if (sender->expect_count == 0)
            sender_next(senders, sender);
        break;
    case EXPECT_QUIT:
        sender_leave(senders, sender, false);
        return false;
    }
    return sender->state == SENDER_OPEN;
}

static void sender_read(struct senders *senders, struct sender *sender)
{
    uint32_t size;
    char *end;

    while ((size = flow_readable(senders->plane, sender->flow)) > 0) {
        struct span octets =
            flow_pull(senders->plane, sender->flow, size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        sim_text_add(&sender->received, octets.data, octets.size);
        flow_consume(senders->plane, sender->flow, octets.size);
        sender->deadline = net_sim_now(senders->options.net) + REPLY_WAIT;
    }
    while (sender->received.size > 0 &&
           (end = memchr(sender->received.data, '\n', sender->received.size)) != NULL) {
        char line[1024];
        snprintf(line, sizeof(line), "%.*s", (int)(end - sender->received.data),
                 sender->received.data);
        line[strcspn(line, "\r")] = '\0';
        sim_text_drop(&sender->received, (uint32_t)(end - sender->received.data) + 1);
        if (strlen(line) >= 4 && line[3] == '-')
            continue;
        if (!sender_on_reply(senders, sender, (uint16_t)atoi(line), line) &&
            sender->state != SENDER_OPEN)
            return;
    }
}

/* ---- turning ---- */

static void sender_on_event(struct senders *senders, const struct flow_event *event)
{
    struct sender *sender = &senders->senders[event->user];

    if (event->flow.index != sender->flow.index ||
        event->flow.generation != sender->flow.generation)
        return;
    sender_read(senders, sender);
    if (event->events & (FLOW_FAILED | FLOW_RESET | FLOW_PEER_CLOSED) &&
        (sender->state == SENDER_OPEN || sender->state == SENDER_CONNECTING))
        sender_leave(senders, sender, false);
}

void senders_turn(struct senders *senders)
{
    struct flow_event events[64];
    tick_us now = net_sim_now(senders->options.net);

    uint32_t count = flow_poll(senders->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        sender_on_event(senders, &events[i]);
    for (uint32_t i = 0; i < senders->options.sender_count; i++) {
        struct sender *sender = &senders->senders[i];
        if (sender->state == SENDER_DONE || now < sender->deadline)
            continue;
        if (sender->state == SENDER_IDLE)
            sender_connect(senders, sender);
        else
            sender_leave(senders, sender, true);
    }
    flow_flush(senders->plane, now);
}

tick_us senders_deadline(const struct senders *senders)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < senders->options.sender_count; i++) {
        const struct sender *sender = &senders->senders[i];
        if (sender->state != SENDER_DONE && sender->deadline < deadline)
            deadline = sender->deadline;
    }
    return deadline;
}

bool senders_are_done(const struct senders *senders)
{
    for (uint32_t i = 0; i < senders->options.sender_count; i++) {
        if (senders->senders[i].state != SENDER_DONE)
            return false;
    }
    return true;
}

struct senders *senders_new(const struct senders_options *options)
{
    struct senders *senders = calloc(1, sizeof(*senders));
    CHECK(senders != NULL);

    senders->options = *options;
    rng_init_seed(&senders->rng, options->seed);
    senders->senders = calloc(options->sender_count, sizeof(*senders->senders));
    CHECK(senders->senders != NULL);
    senders->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 4096, .count_max = POOL_COUNT, .backing = BUF_BACKING_SLAB});
    struct flow_address address4 = {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 100}};
    senders->plane =
        net_sim_plane_new(options->net, &(struct net_sim_plane_options){.pool = senders->pool,
                                                                        .flow_count_max = 4096,
                                                                        .orphan_time = TICK_S(60),
                                                                        .address4 = address4});
    for (uint32_t i = 0; i < options->sender_count; i++) {
        senders->senders[i].messages_left = options->messages_per_sender;
        senders->senders[i].deadline = net_sim_now(options->net) + SENDER_START +
                                       rng_below(&senders->rng, (uint32_t)options->start_spread);
    }
    return senders;
}

void senders_free(struct senders *senders)
{
    for (uint32_t i = 0; i < senders->options.sender_count; i++)
        sim_text_fini(&senders->senders[i].received);
    flow_plane_free(senders->plane);
    buf_pool_free(senders->pool);
    free(senders->senders);
    free(senders);
}
