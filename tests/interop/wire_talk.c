/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The conversations of wire_talk.h, all on one plane: those that others began (served) and those
 * that we began (asked). A conversation is found by the user value of its flow.
 *
 * An asker is content when every octet was as expected and the peer's FIN came (RESET: the RST);
 * one who serves cannot know, and only complains of wrong octets. What went wrong is said on
 * stderr, for the test's log.
 *
 * Limits: TALK_COUNT_MAX conversations, PATIENCE for a connect. There is no other time-out: tests
 * have their own.
 */
#include "tests/interop/wire_talk.h"

#include <stdio.h>
#include <stdlib.h>

#define CHUNK    16384u
#define AHEAD    (4u * CHUNK) /* octets that wait in a flow before we stop making more */
#define LISTENER UINT64_MAX
#define PATIENCE TICK_S(60)

enum kind { KIND_NONE, KIND_SINK, KIND_SOURCE, KIND_ECHO, KIND_RESET, KIND_STALL };

struct conversation {
    struct flow flow;
    bool is_used, is_asker, has_line, is_shut;
    enum kind kind;
    uint64_t size;      /* n */
    uint64_t sent, got; /* octets of the pattern */
    tick_us reads_from; /* STALL */
    char line[TALK_LINE_SIZE];
    char answer[TALK_LINE_SIZE]; /* asker */
    uint32_t answer_size;
};

struct talk {
    struct flow_plane *plane;
    struct buf_queue queue; /* what is being appended */
    struct conversation *conversations;
    struct talk_order order;
    struct talk_result result;
    uint32_t asked, running; /* of the order */
    bool is_asking;
    uint32_t stalled; /* conversations that wait for their time */
    tick_us now;
};

static uint8_t pattern(uint64_t position)
{
    return (uint8_t)(position * 7 + (position >> 8) * 13 + (position >> 16) * 31);
}

/* ---- one conversation ---- */

static void conversation_end(struct talk *talk, struct conversation *conversation, bool is_good,
                             const char *why)
{
    if (!is_good)
        (void)fprintf(stderr, "wire_peer: %s \"%s\": %s (sent %llu, got %llu)\n",
                      conversation->is_asker ? "asked" : "served", conversation->line, why,
                      (unsigned long long)conversation->sent,
                      (unsigned long long)conversation->got);
    if (conversation->is_asker) {
        talk->running--;
        if (is_good)
            talk->result.good++;
        else
            talk->result.bad++;
    }
    if (conversation->kind == KIND_STALL && !conversation->is_asker)
        talk->stalled--;
    *conversation = (struct conversation){0};
}

static void conversation_abort(struct talk *talk, struct conversation *conversation, bool is_good,
                               const char *why)
{
    flow_abort(talk->plane, conversation->flow);
    conversation_end(talk, conversation, is_good, why);
}

static bool line_understand(struct conversation *conversation)
{
    unsigned long long size = 0, time = 0;
    const char *line = conversation->line;

    if (sscanf(line, "SINK %llu", &size) == 1)
        conversation->kind = KIND_SINK;
    if (sscanf(line, "SOURCE %llu", &size) == 1)
        conversation->kind = KIND_SOURCE;
    if (sscanf(line, "ECHO %llu", &size) == 1)
        conversation->kind = KIND_ECHO;
    if (strcmp(line, "RESET") == 0)
        conversation->kind = KIND_RESET;
    if (sscanf(line, "STALL %llu %llu", &time, &size) == 2)
        conversation->kind = KIND_STALL;
    conversation->size = size;
    conversation->reads_from = TICK_MS(time);
    return conversation->kind != KIND_NONE;
}

/* False: no buffer now. */
static bool octets_send(struct talk *talk, struct flow flow, struct span octets)
{
    if (buf_queue_append_copy(&talk->queue, talk->plane->pool, octets) != ERR_OK)
        return false;
    flow_append(talk->plane, flow, &talk->queue);
    return true;
}

/* Fill the flow with the pattern up to `until`. */
static void pattern_send(struct talk *talk, struct conversation *conversation, uint64_t until)
{
    uint8_t octets[CHUNK];

    while (conversation->sent < until && flow_unsent(talk->plane, conversation->flow) < AHEAD) {
        uint64_t left = until - conversation->sent;
        uint32_t size = left < CHUNK ? (uint32_t)left : CHUNK;

        for (uint32_t i = 0; i < size; i++)
            octets[i] = pattern(conversation->sent + i);
        if (!octets_send(talk, conversation->flow, span_of(octets, size)))
            return;
        conversation->sent += size;
    }
}

/* False: a wrong octet, or too many. */
static bool pattern_receive(struct talk *talk, struct conversation *conversation)
{
    struct span spans[16];
    uint32_t count, total = 0;

    count = flow_peek(talk->plane, conversation->flow, spans, COUNT_OF(spans));
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < spans[i].size; j++) {
            if (spans[i].data[j] != pattern(conversation->got + total + j))
                return false;
        }
        total += spans[i].size;
    }
    flow_consume(talk->plane, conversation->flow, total);
    conversation->got += total;
    return conversation->got <= conversation->size;
}

static void shut_once(struct talk *talk, struct conversation *conversation)
{
    if (!conversation->is_shut)
        flow_shutdown(talk->plane, conversation->flow);
    conversation->is_shut = true;
}

/* ---- serving ---- */

/* The line of a request, once it is whole. */
static bool line_receive(struct talk *talk, struct conversation *conversation)
{
    struct span seen = flow_pull(talk->plane, conversation->flow, TALK_LINE_SIZE);
    const uint8_t *end = seen.size == 0 ? NULL : memchr(seen.data, '\n', seen.size);

    if (end == NULL)
        return false;
    uint32_t size = (uint32_t)(end - seen.data);
    memcpy(conversation->line, seen.data, size);
    conversation->line[size] = '\0';
    flow_consume(talk->plane, conversation->flow, size + 1);
    conversation->has_line = true;
    return true;
}

/* False: the conversation is over. */
static bool serve_begin(struct talk *talk, struct conversation *conversation)
{
    if (!line_understand(conversation) || conversation->kind == KIND_RESET) {
        conversation_abort(talk, conversation, conversation->kind == KIND_RESET, "not a request");
        return false;
    }
    if (conversation->kind == KIND_STALL) {
        conversation->reads_from += talk->now;
        talk->stalled++;
    }
    flow_want(talk->plane, conversation->flow, FLOW_READABLE | FLOW_WRITABLE);
    return true;
}

static void serve_step(struct talk *talk, struct conversation *conversation)
{
    char answer[TALK_LINE_SIZE];

    switch (conversation->kind) {
    case KIND_SOURCE:
        pattern_send(talk, conversation, conversation->size);
        if (conversation->sent == conversation->size)
            shut_once(talk, conversation);
        break;
    case KIND_ECHO:
        pattern_send(talk, conversation, conversation->got);
        break;
    default:
        if (conversation->got < conversation->size || conversation->is_shut)
            break;
        (void)snprintf(answer, sizeof(answer), "OK %llu\n", (unsigned long long)conversation->got);
        CHECK(octets_send(talk, conversation->flow, span_from_text(answer)));
        shut_once(talk, conversation);
        break;
    }
}

static void serve(struct talk *talk, struct conversation *conversation, uint32_t events)
{
    if (!conversation->has_line && line_receive(talk, conversation) &&
        !serve_begin(talk, conversation))
        return;
    if (!conversation->has_line) {
        if (events & FLOW_PEER_CLOSED) /* only looked whether somebody listens */
            conversation_abort(talk, conversation, true, "");
        return;
    }
    if (talk->now < conversation->reads_from)
        return;
    if (!pattern_receive(talk, conversation)) {
        conversation_abort(talk, conversation, false, "a wrong octet");
        return;
    }
    serve_step(talk, conversation);
    if (events & FLOW_PEER_CLOSED && flow_readable(talk->plane, conversation->flow) == 0 &&
        (conversation->kind != KIND_ECHO || conversation->sent == conversation->got)) {
        flow_close(talk->plane, conversation->flow);
        conversation_end(talk, conversation, true, "");
    }
}

/* ---- asking ---- */

/* Number `index` of the addresses that are asked in turn. */
static struct flow_address address_at(const struct talk_order *order, uint32_t index)
{
    struct flow_address address = order->address;
    uint8_t *last = address.ip + (address.family == FLOW_FAMILY_IP4 ? 2 : 14);
    uint32_t value = (uint32_t)last[0] << 8 | last[1];

    value += index % order->address_count;
    last[0] = (uint8_t)(value >> 8);
    last[1] = (uint8_t)value;
    return address;
}

static void ask_begin(struct talk *talk, struct conversation *conversation)
{
    const struct talk_order *order = &talk->order;
    uint32_t index = talk->asked++;

    *conversation = (struct conversation){.is_used = true, .is_asker = true};
    memcpy(conversation->line, order->requests[index % order->request_count], TALK_LINE_SIZE);
    CHECK(line_understand(conversation));
    struct flow_connect_options options = {.remote = address_at(order, index),
                                           .deadline = talk->now + PATIENCE,
                                           .user = (uint64_t)(conversation - talk->conversations)};
    talk->running++;
    enum err err = flow_connect(talk->plane, &options, &conversation->flow);
    if (err != ERR_OK)
        conversation_end(talk, conversation, false, err_text(err));
}

static bool is_pattern_asked(const struct conversation *conversation)
{
    return conversation->kind == KIND_SOURCE || conversation->kind == KIND_ECHO;
}

static void ask_send(struct talk *talk, struct conversation *conversation)
{
    if (conversation->kind == KIND_SOURCE || conversation->kind == KIND_RESET)
        return;
    pattern_send(talk, conversation, conversation->size);
    if (conversation->kind == KIND_ECHO && conversation->sent == conversation->size)
        shut_once(talk, conversation);
}

static bool ask_receive(struct talk *talk, struct conversation *conversation)
{
    if (is_pattern_asked(conversation))
        return pattern_receive(talk, conversation);
    struct span seen = flow_pull(talk->plane, conversation->flow, TALK_LINE_SIZE);
    if (conversation->answer_size + seen.size >= TALK_LINE_SIZE)
        return false;
    if (seen.size > 0)
        memcpy(conversation->answer + conversation->answer_size, seen.data, seen.size);
    conversation->answer_size += seen.size;
    flow_consume(talk->plane, conversation->flow, seen.size);
    return true;
}

static bool is_as_expected(const struct conversation *conversation)
{
    char expected[TALK_LINE_SIZE];

    if (is_pattern_asked(conversation))
        return conversation->got == conversation->size;
    (void)snprintf(expected, sizeof(expected), "OK %llu\n", (unsigned long long)conversation->size);
    return strcmp(expected, conversation->answer) == 0;
}

static void ask(struct talk *talk, struct conversation *conversation, uint32_t events)
{
    if (events & FLOW_CONNECTED) {
        CHECK(octets_send(talk, conversation->flow, span_from_text(conversation->line)));
        CHECK(octets_send(talk, conversation->flow, span_from_text("\n")));
        flow_want(talk->plane, conversation->flow, FLOW_READABLE | FLOW_WRITABLE);
    }
    if (events & (FLOW_CONNECTED | FLOW_WRITABLE))
        ask_send(talk, conversation);
    if (!ask_receive(talk, conversation)) {
        conversation_abort(talk, conversation, false, "a wrong octet");
    } else if (events & (FLOW_RESET | FLOW_FAILED)) {
        enum err err = flow_error(talk->plane, conversation->flow);
        conversation_abort(talk, conversation,
                           conversation->kind == KIND_RESET && err == ERR_PEER_RESET,
                           err_text(err));
    } else if (events & FLOW_PEER_CLOSED && flow_readable(talk->plane, conversation->flow) == 0) {
        bool is_good = is_as_expected(conversation);
        flow_close(talk->plane, conversation->flow);
        conversation_end(talk, conversation, is_good, "not what was expected");
    }
}

/* ---- the loop ---- */

static struct conversation *conversation_free(struct talk *talk)
{
    for (uint32_t i = 0; i < TALK_COUNT_MAX; i++) {
        if (!talk->conversations[i].is_used)
            return &talk->conversations[i];
    }
    return NULL;
}

static void accept_all(struct talk *talk, struct flow listener)
{
    struct conversation *conversation;
    struct flow_address from;
    struct flow flow;

    while ((conversation = conversation_free(talk)) != NULL &&
           flow_accept(talk->plane, listener, (uint64_t)(conversation - talk->conversations), &flow,
                       &from) == ERR_OK)
        *conversation = (struct conversation){.flow = flow, .is_used = true};
}

static void on_event(struct talk *talk, const struct flow_event *event)
{
    if (event->user == LISTENER) {
        accept_all(talk, event->flow);
        return;
    }
    struct conversation *conversation = &talk->conversations[event->user];
    if (!conversation->is_used)
        return;
    if (conversation->is_asker)
        ask(talk, conversation, event->events);
    else if (event->events & FLOW_RESET)
        conversation_abort(talk, conversation, false, "reset");
    else
        serve(talk, conversation, event->events);
}

/* Those whose time to read has come hear of it by this alone. */
static void stalled_step(struct talk *talk)
{
    for (uint32_t i = 0; talk->stalled > 0 && i < TALK_COUNT_MAX; i++) {
        struct conversation *conversation = &talk->conversations[i];
        if (conversation->is_used && !conversation->is_asker && conversation->kind == KIND_STALL)
            serve(talk, conversation, 0);
    }
}

void talk_turn(struct talk *talk, tick_us now)
{
    struct flow_event events[64];

    talk->now = now;
    uint32_t count = flow_poll(talk->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        on_event(talk, &events[i]);
    stalled_step(talk);
    while (talk->is_asking && talk->asked < talk->order.count &&
           talk->running < talk->order.at_a_time) {
        struct conversation *conversation = conversation_free(talk);
        if (conversation == NULL)
            break;
        ask_begin(talk, conversation);
    }
    flow_flush(talk->plane, now);
    if (count == 0)
        flow_wait(talk->plane, now, now + TICK_MS(10));
}

struct talk *talk_new(struct flow_plane *plane)
{
    struct talk *talk = calloc(1, sizeof(*talk));

    CHECK(talk != NULL);
    talk->plane = plane;
    buf_queue_init(&talk->queue);
    talk->conversations = calloc(TALK_COUNT_MAX, sizeof(*talk->conversations));
    CHECK(talk->conversations != NULL);
    return talk;
}

void talk_free(struct talk *talk)
{
    buf_queue_fini(&talk->queue);
    free(talk->conversations);
    free(talk);
}

enum err talk_serve(struct talk *talk, const struct flow_address *address)
{
    struct flow_listen_options listen = {.address = *address, .backlog = 1024, .user = LISTENER};
    struct flow listener;

    return flow_listen(talk->plane, &listen, &listener);
}

enum err talk_ask(struct talk *talk, const struct talk_order *order)
{
    CHECK(!talk->is_asking);
    if (order->request_count == 0 || order->address_count == 0 || order->at_a_time == 0 ||
        order->at_a_time > TALK_COUNT_MAX)
        return ERR_CONFIG_VALUE;
    for (uint32_t i = 0; i < order->request_count; i++) {
        struct conversation conversation = {0};
        memcpy(conversation.line, order->requests[i], TALK_LINE_SIZE);
        if (!line_understand(&conversation))
            return ERR_CONFIG_VALUE;
    }
    talk->order = *order;
    talk->asked = 0;
    talk->result = (struct talk_result){0};
    talk->is_asking = true;
    return ERR_OK;
}

bool talk_is_answered(struct talk *talk, struct talk_result *ret_result)
{
    if (!talk->is_asking || talk->asked < talk->order.count || talk->running > 0)
        return false;
    *ret_result = talk->result;
    talk->is_asking = false;
    return true;
}
