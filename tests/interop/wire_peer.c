/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One end of a conversation with another TCP: this one stands on the dataplane, the other
 * (wire_peer.py) on the kernel's sockets; either may serve or ask. A request is a line, then octets
 * whose value follows from their position, so that both ends can tell a lost, doubled or changed
 * one:
 *
 *   SINK n       n octets follow; answered "OK n", then FIN
 *   SOURCE n     answered by n octets and FIN
 *   ECHO n       n octets and FIN follow; the same comes back, then FIN (half-close)
 *   RESET        answered by a RST
 *   STALL ms n   as SINK, but nothing is read for ms milliseconds (the window closes)
 *
 * usage: wire_peer serve IP:PORT options            until SIGTERM
 *        wire_peer ask IP:PORT COUNT AT_A_TIME options -- REQUEST...
 *            COUNT conversations, AT_A_TIME at once, requests in turn; exit status 0 when all went
 *            as they should
 *   options: -D DEVICE -A IP/BITS ... -G GATEWAY ... -m MTU -K PREFIX
 */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/dataplane.h"

#define CONVERSATION_MAX 4096u
#define WORDS_MAX        64u
#define CHUNK            16384u
#define LISTENER         UINT64_MAX
#define PATIENCE         TICK_S(60)

enum kind { KIND_NONE, KIND_SINK, KIND_SOURCE, KIND_ECHO, KIND_RESET, KIND_STALL };

struct conversation {
    struct flow flow;
    bool is_used, is_asker, has_line, is_shut;
    enum kind kind;
    uint64_t size;        /* n */
    uint64_t sent, got;   /* octets of the pattern */
    tick_us reads_from;   /* STALL */
    char line[WORDS_MAX]; /* asker: what was asked */
    char answer[WORDS_MAX];
    uint32_t answer_size;
};

struct peer {
    struct flow_plane *plane;
    struct conversation *conversations;
    struct flow_address address;
    char *const *requests;
    uint32_t request_count, asked, wanted, running, running_max, good, bad;
    tick_us now;
};

static volatile sig_atomic_t is_stopping;

static void on_signal(int number)
{
    (void)number;
    is_stopping = 1;
}

static uint8_t pattern(uint64_t position)
{
    return (uint8_t)(position * 7 + (position >> 8) * 13 + (position >> 16) * 31);
}

/* ---- one conversation ---- */

static void conversation_end(struct peer *peer, struct conversation *conversation, bool is_good,
                             const char *why)
{
    if (conversation->is_asker) {
        peer->running--;
        if (is_good)
            peer->good++;
        else
            peer->bad++;
        if (!is_good)
            (void)fprintf(stderr, "wire_peer: %s: %s (sent %llu, got %llu)\n", conversation->line,
                          why, (unsigned long long)conversation->sent,
                          (unsigned long long)conversation->got);
    } else if (!is_good) {
        (void)fprintf(stderr, "wire_peer: served %s: %s\n", conversation->line, why);
    }
    *conversation = (struct conversation){0};
}

static bool line_understand(struct conversation *conversation)
{
    unsigned long long size = 0, time = 0;
    const char *line = conversation->line;

    conversation->has_line = true;
    if (sscanf(line, "SINK %llu", &size) == 1)
        conversation->kind = KIND_SINK;
    else if (sscanf(line, "SOURCE %llu", &size) == 1)
        conversation->kind = KIND_SOURCE;
    else if (sscanf(line, "ECHO %llu", &size) == 1)
        conversation->kind = KIND_ECHO;
    else if (strcmp(line, "RESET") == 0)
        conversation->kind = KIND_RESET;
    else if (sscanf(line, "STALL %llu %llu", &time, &size) == 2)
        conversation->kind = KIND_STALL;
    else
        return false;
    conversation->size = size;
    conversation->reads_from = TICK_MS(time);
    return true;
}

/* Fill the flow with the pattern up to `until`. */
static void pattern_send(struct peer *peer, struct conversation *conversation, uint64_t until)
{
    uint8_t octets[CHUNK];

    while (conversation->sent < until && flow_unsent(peer->plane, conversation->flow) < 4 * CHUNK) {
        uint64_t left = until - conversation->sent;
        uint32_t size = left < CHUNK ? (uint32_t)left : CHUNK;
        struct buf_queue queue;

        buf_queue_init(&queue);
        for (uint32_t i = 0; i < size; i++)
            octets[i] = pattern(conversation->sent + i);
        if (buf_queue_append_copy(&queue, peer->plane->pool, span_of(octets, size)) != ERR_OK)
            return;
        flow_append(peer->plane, conversation->flow, &queue);
        conversation->sent += size;
    }
}

/* False: a wrong octet, or too many. */
static bool pattern_receive(struct peer *peer, struct conversation *conversation)
{
    struct span spans[16];
    uint32_t count, total = 0;

    count = flow_peek(peer->plane, conversation->flow, spans, COUNT_OF(spans));
    for (uint32_t i = 0; i < count; i++) {
        for (uint32_t j = 0; j < spans[i].size; j++) {
            if (spans[i].data[j] != pattern(conversation->got + total + j))
                return false;
        }
        total += spans[i].size;
    }
    flow_consume(peer->plane, conversation->flow, total);
    conversation->got += total;
    return conversation->got <= conversation->size;
}

static void shut_once(struct peer *peer, struct conversation *conversation)
{
    if (!conversation->is_shut)
        flow_shutdown(peer->plane, conversation->flow);
    conversation->is_shut = true;
}

static void text_send(struct peer *peer, struct flow flow, const char *text)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    if (buf_queue_append_copy(&queue, peer->plane->pool, span_from_text(text)) == ERR_OK)
        flow_append(peer->plane, flow, &queue);
}

/* ---- serving ---- */

/* The line of a request, once it is whole. */
static bool line_receive(struct peer *peer, struct conversation *conversation)
{
    struct span seen = flow_pull(peer->plane, conversation->flow, WORDS_MAX);
    const uint8_t *end = seen.size == 0 ? NULL : memchr(seen.data, '\n', seen.size);

    if (end == NULL)
        return false;
    uint32_t size = (uint32_t)(end - seen.data);
    memcpy(conversation->line, seen.data, size);
    conversation->line[size] = '\0';
    flow_consume(peer->plane, conversation->flow, size + 1);
    return true;
}

static void serve_step(struct peer *peer, struct conversation *conversation)
{
    char answer[WORDS_MAX];

    switch (conversation->kind) {
    case KIND_SOURCE:
        pattern_send(peer, conversation, conversation->size);
        if (conversation->sent == conversation->size)
            shut_once(peer, conversation);
        break;
    case KIND_ECHO:
        pattern_send(peer, conversation, conversation->got);
        break;
    default:
        if (conversation->got < conversation->size || conversation->is_shut)
            break;
        (void)snprintf(answer, sizeof(answer), "OK %llu\n", (unsigned long long)conversation->got);
        text_send(peer, conversation->flow, answer);
        shut_once(peer, conversation);
        break;
    }
}

/* False: the conversation is over. */
static bool serve(struct peer *peer, struct conversation *conversation, uint32_t events)
{
    if (!conversation->has_line && line_receive(peer, conversation)) {
        if (!line_understand(conversation) || conversation->kind == KIND_RESET) {
            flow_abort(peer->plane, conversation->flow);
            conversation_end(peer, conversation, conversation->kind == KIND_RESET, "not a request");
            return false;
        }
        if (conversation->kind == KIND_STALL)
            conversation->reads_from += peer->now;
        flow_want(peer->plane, conversation->flow, FLOW_READABLE | FLOW_WRITABLE);
    }
    if (!conversation->has_line)
        return true;
    if (peer->now >= conversation->reads_from && !pattern_receive(peer, conversation)) {
        flow_abort(peer->plane, conversation->flow);
        conversation_end(peer, conversation, false, "a wrong octet");
        return false;
    }
    serve_step(peer, conversation);
    if (events & FLOW_PEER_CLOSED && peer->now >= conversation->reads_from &&
        flow_readable(peer->plane, conversation->flow) == 0 &&
        (conversation->kind != KIND_ECHO || conversation->sent == conversation->got)) {
        flow_close(peer->plane, conversation->flow);
        conversation_end(peer, conversation, true, "");
        return false;
    }
    return true;
}

/* ---- asking ---- */

static void ask_begin(struct peer *peer, struct conversation *conversation)
{
    *conversation = (struct conversation){.is_used = true, .is_asker = true};
    (void)snprintf(conversation->line, WORDS_MAX, "%s",
                   peer->requests[peer->asked++ % peer->request_count]);
    CHECK(line_understand(conversation));
    struct flow_connect_options options = {.remote = peer->address,
                                           .deadline = peer->now + PATIENCE,
                                           .user = (uint64_t)(conversation - peer->conversations)};
    peer->running++;
    if (flow_connect(peer->plane, &options, &conversation->flow) != ERR_OK)
        conversation_end(peer, conversation, false, "cannot connect");
}

static bool is_pattern_asked(const struct conversation *conversation)
{
    return conversation->kind == KIND_SOURCE || conversation->kind == KIND_ECHO;
}

static void ask_send(struct peer *peer, struct conversation *conversation)
{
    if (conversation->kind == KIND_SOURCE || conversation->kind == KIND_RESET)
        return;
    pattern_send(peer, conversation, conversation->size);
    if (conversation->kind == KIND_ECHO && conversation->sent == conversation->size)
        shut_once(peer, conversation);
}

static bool ask_receive(struct peer *peer, struct conversation *conversation)
{
    if (is_pattern_asked(conversation))
        return pattern_receive(peer, conversation);
    struct span seen = flow_pull(peer->plane, conversation->flow, WORDS_MAX);
    if (conversation->answer_size + seen.size >= WORDS_MAX)
        return false;
    if (seen.size > 0)
        memcpy(conversation->answer + conversation->answer_size, seen.data, seen.size);
    conversation->answer_size += seen.size;
    flow_consume(peer->plane, conversation->flow, seen.size);
    return true;
}

static bool is_as_expected(const struct conversation *conversation)
{
    char expected[WORDS_MAX];

    if (is_pattern_asked(conversation))
        return conversation->got == conversation->size;
    (void)snprintf(expected, sizeof(expected), "OK %llu\n", (unsigned long long)conversation->size);
    return strcmp(expected, conversation->answer) == 0;
}

static void ask(struct peer *peer, struct conversation *conversation, uint32_t events)
{
    if (events & FLOW_CONNECTED) {
        text_send(peer, conversation->flow, conversation->line);
        text_send(peer, conversation->flow, "\n");
        flow_want(peer->plane, conversation->flow, FLOW_READABLE | FLOW_WRITABLE);
    }
    if (events & (FLOW_CONNECTED | FLOW_WRITABLE))
        ask_send(peer, conversation);
    if (!ask_receive(peer, conversation)) {
        flow_abort(peer->plane, conversation->flow);
        conversation_end(peer, conversation, false, "a wrong octet");
    } else if (events & (FLOW_RESET | FLOW_FAILED)) {
        bool is_good = conversation->kind == KIND_RESET && events & FLOW_RESET;
        enum err err = flow_error(peer->plane, conversation->flow);
        flow_abort(peer->plane, conversation->flow);
        conversation_end(peer, conversation, is_good, err_text(err));
    } else if (events & FLOW_PEER_CLOSED && flow_readable(peer->plane, conversation->flow) == 0) {
        flow_close(peer->plane, conversation->flow);
        conversation_end(peer, conversation, is_as_expected(conversation), "not what was expected");
    }
}

/* ---- the loop ---- */

static struct conversation *conversation_free(struct peer *peer)
{
    for (uint32_t i = 0; i < CONVERSATION_MAX; i++) {
        if (!peer->conversations[i].is_used)
            return &peer->conversations[i];
    }
    return NULL;
}

static void accept_all(struct peer *peer, struct flow listener)
{
    struct conversation *conversation;
    struct flow_address from;
    struct flow flow;

    while ((conversation = conversation_free(peer)) != NULL &&
           flow_accept(peer->plane, listener, (uint64_t)(conversation - peer->conversations), &flow,
                       &from) == ERR_OK)
        *conversation = (struct conversation){.flow = flow, .is_used = true};
}

static void on_event(struct peer *peer, const struct flow_event *event)
{
    if (event->user == LISTENER) {
        accept_all(peer, event->flow);
        return;
    }
    struct conversation *conversation = &peer->conversations[event->user];
    if (!conversation->is_used)
        return;
    if (conversation->is_asker) {
        ask(peer, conversation, event->events);
    } else if (event->events & FLOW_RESET) {
        flow_abort(peer->plane, event->flow);
        conversation_end(peer, conversation, false, "reset");
    } else {
        serve(peer, conversation, event->events);
    }
}

/* Those that did not read for a while. */
static void stalled_step(struct peer *peer)
{
    for (uint32_t i = 0; i < CONVERSATION_MAX; i++) {
        struct conversation *conversation = &peer->conversations[i];
        if (conversation->is_used && !conversation->is_asker && conversation->kind == KIND_STALL &&
            peer->now >= conversation->reads_from)
            serve(peer, conversation, 0);
    }
}

static void turn(struct peer *peer)
{
    const struct tick_source *clock = tick_source_system();
    struct flow_event events[64];

    peer->now = clock->monotonic(clock->context);
    uint32_t count = flow_poll(peer->plane, peer->now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        on_event(peer, &events[i]);
    stalled_step(peer);
    while (peer->asked < peer->wanted && peer->running < peer->running_max)
        ask_begin(peer, conversation_free(peer));
    flow_flush(peer->plane, peer->now);
    if (count == 0)
        flow_wait(peer->plane, peer->now, peer->now + TICK_MS(10));
}

/* ---- the command line ---- */

struct setup {
    struct dataplane_options options;
    struct dataplane_port_options port;
    struct flow_prefix addresses[DATAPLANE_ADDRESS_MAX], kernel;
};

__attribute__((noreturn)) static void usage(void)
{
    (void)fputs("wire_peer: wrong usage, see the head of its source\n", stderr);
    exit(2);
}

static uint64_t number_of(const char *text)
{
    uint64_t value;

    if (span_parse_u64(span_from_text(text), &value) != ERR_OK)
        usage();
    return value;
}

static struct flow_address address_of(const char *text, size_t size)
{
    struct flow_address address;

    if (flow_address_parse_ip(span_of(text, (uint32_t)size), &address) != ERR_OK)
        usage();
    return address;
}

static struct flow_address endpoint_of(const char *text)
{
    const char *colon = strrchr(text, ':');
    struct flow_address address;

    if (colon == NULL)
        usage();
    address = text[0] == '[' ? address_of(text + 1, (size_t)(colon - text) - 2)
                             : address_of(text, (size_t)(colon - text));
    address.port = (uint16_t)number_of(colon + 1);
    return address;
}

static void option_apply(struct setup *setup, int letter, const char *value)
{
    const char *slash = strchr(value, '/');
    struct flow_address gateway;

    switch (letter) {
    case 'D':
        setup->port.device = value;
        break;
    case 'A':
        if (slash == NULL || setup->port.address_count == DATAPLANE_ADDRESS_MAX)
            usage();
        setup->addresses[setup->port.address_count++] = (struct flow_prefix){
            address_of(value, (size_t)(slash - value)), (uint8_t)number_of(slash + 1)};
        break;
    case 'G':
        gateway = address_of(value, strlen(value));
        *(gateway.family == FLOW_FAMILY_IP4 ? &setup->port.gateway4 : &setup->port.gateway6) =
            gateway;
        break;
    case 'm':
        setup->port.mtu = (uint16_t)number_of(value);
        break;
    case 'K':
        if (flow_prefix_parse(span_from_text(value), &setup->kernel) != ERR_OK)
            usage();
        setup->options.kernel = &setup->kernel;
        setup->options.kernel_count = 1;
        break;
    default:
        usage();
    }
}

static struct flow_plane *plane_new(struct setup *setup, struct dataplane **ret_dataplane)
{
    char why[DATAPLANE_WHY_SIZE] = "";
    struct flow_plane *plane = NULL;

    setup->port.addresses = setup->addresses;
    if (setup->port.device != NULL) {
        setup->options.driver = DATAPLANE_DPDK;
        setup->options.ports = &setup->port;
        setup->options.port_count = 1;
    }
    if (dataplane_new(&setup->options, ret_dataplane, why) != ERR_OK ||
        dataplane_core_new(*ret_dataplane, 0, 1, &plane, why) != ERR_OK) {
        (void)fprintf(stderr, "wire_peer: %s\n", why);
        exit(1);
    }
    dataplane_thread_begin(*ret_dataplane);
    return plane;
}

static void peer_listen(struct peer *peer)
{
    struct flow_listen_options listen = {
        .address = peer->address, .backlog = 1024, .user = LISTENER};
    struct flow listener;

    if (flow_listen(peer->plane, &listen, &listener) != ERR_OK) {
        (void)fprintf(stderr, "wire_peer: cannot listen\n");
        exit(1);
    }
    (void)printf("ready\n");
    (void)fflush(stdout);
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct setup setup = {.options = {.core_count = 1,
                                      .flow_count_max = 2 * CONVERSATION_MAX,
                                      .buffer_size = 8192,
                                      .buffer_memory = 64u << 20,
                                      .memory = 64u << 20},
                          .port = {.mtu = 1500}};
    struct peer peer = {.running_max = 1};
    struct dataplane *dataplane = NULL;
    int letter;

    bool is_server = count >= 3 && strcmp(words[1], "serve") == 0;
    if (count < 3 || (!is_server && (strcmp(words[1], "ask") != 0 || count < 6)))
        usage();
    peer.address = endpoint_of(words[2]);
    if (!is_server) {
        peer.wanted = (uint32_t)number_of(words[3]);
        peer.running_max = (uint32_t)number_of(words[4]);
    }
    optind = is_server ? 3 : 5;
    while ((letter = getopt(count, words, "D:A:G:m:K:")) != -1)
        option_apply(&setup, letter, optarg);
    peer.requests = words + optind;
    peer.request_count = (uint32_t)(count - optind);
    if (!is_server && (peer.request_count == 0 || peer.running_max > CONVERSATION_MAX))
        usage();
    (void)sigaction(SIGTERM, &action, NULL);
    peer.conversations = calloc(CONVERSATION_MAX, sizeof(*peer.conversations));
    CHECK(peer.conversations != NULL);
    peer.plane = plane_new(&setup, &dataplane);
    if (is_server)
        peer_listen(&peer);
    while (!is_stopping && (is_server || peer.good + peer.bad < peer.wanted))
        turn(&peer);
    if (!is_server)
        (void)printf("good %u bad %u\n", peer.good, peer.bad);
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    free(peer.conversations);
    return is_server || peer.bad + (peer.good < peer.wanted) == 0 ? 0 : 1;
}
