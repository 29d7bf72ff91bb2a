/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what the client says of a message agrees with what servers did, for any seed: servers that
 * refuse, stumble, fall silent, hang up or take a message and die before they say so, on a network
 * that loses connections; requests follow others on their connections, and bodies go ahead of
 * replies.
 *
 *   1. Every request ends in one result, every slot in one on_closed().
 *   2. DELIVERED: a server took the message for that recipient, whole.
 *   3. FAILED, or DUE and not in doubt: no server took it in this attempt. So only mail in doubt
 *      can ever arrive twice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/client.h"
#include "relay/stream.h"
#include "tests/sim/net_sim.h"

#define SEEDS          60u
#define HOSTS          3u
#define MESSAGES       40u
#define RECIPIENTS_MAX 3u
#define REQUESTS_MAX   6u
#define SERVERS_MAX    1000u
#define SLOTS          3u
#define LINE_MAX_SIZE  600u
#define BODY_MAX       40000u
#define LISTENER_TAG   100000u

enum server_mode { COMMANDS, DATA, BDAT, SILENT };

struct server {
    struct stream stream;
    bool is_open;
    enum server_mode mode;
    uint32_t message;
    bool rcpt_taken[RECIPIENTS_MAX];
    bool has_mail, has_bdat;
    uint32_t taken_count;
    uint32_t size, bdat_left; /* of the body so far */
    char *body;
    char line[LINE_MAX_SIZE];
    uint32_t line_size;
};

struct message {
    struct envelope envelope;
    struct envelope_recipient recipients[RECIPIENTS_MAX];
    char sender[32], addresses[RECIPIENTS_MAX][32];
    char body_text[BODY_MAX];
    uint32_t body_size;
    struct buf_queue body;
    uint32_t taken[RECIPIENTS_MAX]; /* the ledger: how often a server took it */
    uint32_t results;
};

static const struct settings_source us = {.name = "us", .hello_name = "us.example"};

struct fixture {
    struct net_sim *sim;
    struct buf_pool *pool;
    struct flow_plane *plane, *world;
    struct flow listeners[HOSTS];
    struct rng rng;
    struct settings settings;
    struct settings_route route;
    struct mx_answer hosts;
    enum settings_bdat_ahead bdat_ahead;
    struct client *client;
    struct server *servers;
    uint32_t server_count;
    struct message *messages;
    uint32_t started, finished, slots, closed;
    uint32_t delivered, in_doubt;
    bool has_idle_news;
};

static bool chance(struct fixture *f, uint32_t percent)
{
    return rng_below(&f->rng, 100) < percent;
}

/* ---- servers ---- */

static void server_say(struct server *server, const char *text)
{
    assert_int_equal(ERR_OK, stream_write(&server->stream, span_from_text(text)));
}

static void server_gone(struct server *server, bool is_abort)
{
    if (is_abort)
        stream_abort(&server->stream);
    else
        stream_close(&server->stream);
    server->is_open = false;
}

/* Something other than an answer; true when it happened. */
static bool server_stumbles(struct fixture *f, struct server *server)
{
    if (!chance(f, 4))
        return false;
    switch (rng_below(&f->rng, 6)) {
    case 0:
        server_say(server, "421 4.3.2 closing\r\n");
        server_gone(server, false);
        break;
    case 1:
        server_gone(server, true);
        break;
    case 2:
        server_gone(server, false);
        break;
    case 3:
        server->mode = SILENT;
        break;
    case 4:
        server_say(server, "250-what\r\n354 is this\r\n");
        break;
    default:
        /* No lies around BDAT: a 250 too many that arrives after the chunk was sent cannot be told
         * from the chunk's reply. */
        server_say(server, server->has_bdat ? "450 one\r\n" : "250 one\r\n250 too many\r\n");
        break;
    }
    return true;
}

/* The whole body is in. The message is taken, or not; and then the sender hears of it, or not. */
static void server_end(struct fixture *f, struct server *server)
{
    struct message *message = &f->messages[server->message];
    bool is_taken = chance(f, 80);

    server->mode = COMMANDS;
    server->has_mail = false;
    if (server->taken_count ==
        0) { /* RFC 3030 section 2: a chunk for nobody is read, and refused */
        server_say(server, "503 5.5.1 no recipients\r\n");
        return;
    }
    server->taken_count = 0;
    if (is_taken) {
        assert_int_equal(message->body_size, server->size);
        assert_memory_equal(message->body_text, server->body, server->size);
    }
    for (uint32_t i = 0; i < RECIPIENTS_MAX && is_taken; i++)
        message->taken[i] += server->rcpt_taken[i];
    if (chance(f, 5))
        server_gone(server, chance(f, 50));
    else if (chance(f, 2))
        server->mode = SILENT;
    else if (is_taken)
        server_say(server, "250 2.0.0 taken\r\n");
    else
        server_say(server, chance(f, 50) ? "451 4.7.1 later\r\n" : "554 5.6.0 never\r\n");
}

static void server_on_mail(struct fixture *f, struct server *server)
{
    uint32_t number = 0;

    assert_int_equal(1, sscanf(server->line, "MAIL FROM:<m%u@", &number));
    memset(server->rcpt_taken, 0, sizeof(server->rcpt_taken));
    server->taken_count = 0;
    server->message = number;
    server->has_mail = !chance(f, 6);
    server_say(server, server->has_mail ? "250 ok\r\n"
                       : chance(f, 50)  ? "450 4.1.8 later\r\n"
                                        : "550 5.1.8 never\r\n");
}

static void server_on_rcpt(struct fixture *f, struct server *server)
{
    uint32_t number = 0;

    assert_int_equal(1, sscanf(server->line, "RCPT TO:<r%u@", &number));
    if (!server->has_mail) {
        server_say(server, "503 5.5.1 no MAIL\r\n");
    } else if (chance(f, 20)) {
        server_say(server, chance(f, 50) ? "450 4.2.0 later\r\n" : "550 5.1.1 never\r\n");
    } else {
        server->rcpt_taken[number] = true;
        server->taken_count++;
        server_say(server, "250 ok\r\n");
    }
}

static void server_on_command(struct fixture *f, struct server *server)
{
    uint32_t size = 0;

    if (strncmp(server->line, "QUIT", 4) == 0) {
        server_say(server, "221 bye\r\n");
        server_gone(server, false);
    } else if (server_stumbles(f, server)) {
        return;
    } else if (strncmp(server->line, "EHLO", 4) == 0) {
        server_say(server, "250-y\r\n250-8BITMIME\r\n");
        server->has_bdat = chance(f, 50);
        if (server->has_bdat)
            server_say(server, "250-CHUNKING\r\n");
        server_say(server, chance(f, 70) ? "250 PIPELINING\r\n" : "250 HELP\r\n");
    } else if (strncmp(server->line, "MAIL", 4) == 0) {
        server_on_mail(f, server);
    } else if (strncmp(server->line, "RCPT", 4) == 0) {
        server_on_rcpt(f, server);
    } else if (strncmp(server->line, "DATA", 4) == 0 && server->taken_count > 0) {
        server->mode = DATA;
        server->size = 0;
        server_say(server, "354 go\r\n");
    } else if (sscanf(server->line, "BDAT %u LAST", &size) == 1) {
        server->mode = BDAT;
        server->size = 0;
        server->bdat_left = size;
        if (size == 0)
            server_end(f, server);
    } else {
        server_say(server,
                   strncmp(server->line, "RSET", 4) == 0 || strncmp(server->line, "HELO", 4) == 0
                       ? "250 ok\r\n"
                       : "554 5.5.1 no\r\n");
    }
}

static void server_on_line(struct fixture *f, struct server *server)
{
    const char *line = server->line;

    if (server->mode == COMMANDS) {
        server_on_command(f, server);
        return;
    }
    if (strcmp(line, ".\r\n") == 0) {
        server_end(f, server);
        return;
    }
    uint32_t size = server->line_size;
    if (line[0] == '.') {
        line++;
        size--;
    }
    assert_true(server->size + size <= BODY_MAX);
    memcpy(server->body + server->size, line, size);
    server->size += size;
}

static void server_on_octet(struct fixture *f, struct server *server, uint8_t octet)
{
    if (server->mode == BDAT) {
        server->body[server->size++] = (char)octet;
        if (--server->bdat_left == 0)
            server_end(f, server);
        return;
    }
    assert_true(server->line_size < LINE_MAX_SIZE - 1);
    server->line[server->line_size++] = (char)octet;
    if (octet != '\n')
        return;
    assert_true(server->line_size >= 2 && server->line[server->line_size - 2] == '\r');
    server->line[server->line_size] = '\0';
    server_on_line(f, server);
    server->line_size = 0;
}

static void server_read(struct fixture *f, struct server *server)
{
    struct span octets;

    while (server->is_open && stream_peek(&server->stream, &octets, 1) > 0) {
        uint8_t piece[512];
        uint32_t size = octets.size < sizeof(piece) ? octets.size : (uint32_t)sizeof(piece);

        memcpy(piece, octets.data, size);
        stream_consume(&server->stream, size);
        for (uint32_t i = 0; i < size && server->is_open && server->mode != SILENT; i++)
            server_on_octet(f, server, piece[i]);
    }
}

static void server_accept(struct fixture *f, uint32_t host)
{
    struct flow_address peer;
    struct flow flow;
    struct server *server = &f->servers[f->server_count];

    assert_true(f->server_count < SERVERS_MAX);
    if (flow_accept(f->world, f->listeners[host], f->server_count, &flow, &peer) != ERR_OK)
        return;
    f->server_count++;
    stream_init(&server->stream, f->world, flow);
    server->is_open = true;
    server->body = malloc(BODY_MAX);
    assert_non_null(server->body);
    if (chance(f, 5)) {
        server->mode = SILENT;
    } else if (chance(f, 5)) {
        server_say(server, "421 busy\r\n");
        server_gone(server, false);
    } else {
        server_say(server, "220 hi\r\n");
    }
}

static void world_on_event(struct fixture *f, const struct flow_event *event)
{
    if (event->user >= LISTENER_TAG) {
        server_accept(f, (uint32_t)(event->user - LISTENER_TAG));
        return;
    }
    struct server *server = &f->servers[event->user];
    if (!server->is_open)
        return;
    stream_on_event(&server->stream, event);
    server_read(f, server);
    if (server->is_open && stream_get_state(&server->stream) != STREAM_OPEN)
        server_gone(server, stream_get_state(&server->stream) == STREAM_FAILED);
}

/* ---- the relay's side ---- */

static void on_result(void *context, const struct client_result *result)
{
    struct fixture *f = context;
    struct message *message = &f->messages[result->user];

    assert_int_equal(0, message->results++);
    for (uint32_t i = 0; i < result->recipient_count; i++) {
        const struct client_recipient_result *recipient = &result->recipients[i];

        assert_true(recipient->reply.size > 0);
        if (recipient->state == RECIPIENT_DELIVERED)
            assert_int_equal(1, message->taken[i]);
        else if (recipient->state == RECIPIENT_FAILED || !result->is_in_doubt)
            assert_int_equal(0, message->taken[i]);
        f->delivered += recipient->state == RECIPIENT_DELIVERED;
        f->in_doubt += recipient->state == RECIPIENT_DUE && result->is_in_doubt;
    }
    f->finished++;
    buf_queue_fini(&message->body);
}

static void on_closed(void *context, uint64_t site)
{
    struct fixture *f = context;
    (void)site;
    f->closed++;
}

static void on_idle(void *context, uint64_t site)
{
    struct fixture *f = context;
    (void)site;
    f->has_idle_news = true;
}

static void on_room(void *context, uint64_t site)
{
    struct fixture *f = context;
    (void)site;
    f->has_idle_news = true;
}

static void on_host(void *context, uint64_t site, const struct flow_address *address, bool is_ok)
{
    (void)context;
    (void)site;
    (void)address;
    (void)is_ok;
}

static void message_make(struct fixture *f, uint32_t number)
{
    struct message *message = &f->messages[number];
    uint32_t lines = rng_below(&f->rng, 200);

    for (uint32_t i = 0; i < lines; i++) {
        static const char *const starts[] = {"", ".", "..", "x."};
        int size = snprintf(message->body_text + message->body_size, 200, "%s%0*u\r\n",
                            starts[rng_below(&f->rng, 4)], (int)rng_below(&f->rng, 120) + 1, i);
        message->body_size += (uint32_t)size;
    }
    buf_queue_init(&message->body);
    assert_int_equal(ERR_OK,
                     buf_queue_append_copy(&message->body, f->pool,
                                           span_of(message->body_text, message->body_size)));
    snprintf(message->sender, sizeof(message->sender), "m%u@x.example", number);
    message->envelope = (struct envelope){
        .flags = ENVELOPE_DOT_LINES,
        .sender = span_from_text(message->sender),
        .recipients = message->recipients,
        .recipient_count = 1 + rng_below(&f->rng, RECIPIENTS_MAX),
    };
    for (uint32_t i = 0; i < RECIPIENTS_MAX; i++) {
        snprintf(message->addresses[i], sizeof(message->addresses[i]), "r%u@y.example", i);
        message->recipients[i].address = span_from_text(message->addresses[i]);
    }
}

static bool start_next(struct fixture *f)
{
    static const uint32_t indexes[RECIPIENTS_MAX] = {0, 1, 2};
    struct message *message = &f->messages[f->started];

    if (f->started == MESSAGES || f->started - f->finished >= REQUESTS_MAX)
        return false;
    message_make(f, f->started);
    struct client_request request = {
        .user = f->started,
        .source = &us,
        .route = &f->route,
        .site = 5 + f->started / 8, /* what one made of it is forgotten with the next */
        .hosts = &f->hosts,
        .envelope = &message->envelope,
        .recipients = indexes,
        .recipient_count = message->envelope.recipient_count,
        .body = &message->body,
        .bdat_ahead = f->bdat_ahead,
        .deadline = net_sim_now(f->sim) + TICK_S(1800),
        .is_alone = chance(f, 20),
    };
    bool follows = client_may_follow(f->client, &request) && chance(f, 70);
    bool is_new = !follows && !client_has_idle(f->client, &request);
    tick_us now = net_sim_now(f->sim);
    bool may_start = !is_new || f->slots - f->closed < SLOTS;
    if (!may_start || (follows ? client_follow(f->client, &request, now)
                               : client_start(f->client, &request, now)) != ERR_OK) {
        buf_queue_fini(&message->body);
        *message = (struct message){0};
        return false;
    }
    f->slots += is_new;
    f->started++;
    if (chance(f, 3))
        client_cancel(f->client, request.user, net_sim_now(f->sim));
    return true;
}

static bool world_turn(struct fixture *f)
{
    struct flow_event events[16];
    tick_us now = net_sim_now(f->sim);
    bool has_moved = false;

    client_advance(f->client, now);
    uint32_t count = flow_poll(f->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        client_on_flow(f->client, &events[i], now);
    while (start_next(f))
        has_moved = true;
    flow_flush(f->plane, now);
    has_moved |= count > 0;
    count = flow_poll(f->world, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        world_on_event(f, &events[i]);
    flow_flush(f->world, now);
    return has_moved || count > 0;
}

static void fixture_open(struct fixture *f, uint64_t seed)
{
    struct net_sim_faults faults = net_sim_faults_none();

    *f = (struct fixture){.bdat_ahead = (enum settings_bdat_ahead)(seed % 3)};
    rng_init_seed(&f->rng, seed);
    faults.lose_stream = seed % 3 == 0 ? 3000 : 0;
    faults.mute_stream = seed % 3 == 1 ? 2000 : 0;
    f->sim =
        net_sim_new(&(struct net_sim_options){.seed = seed, .start = TICK_S(10), .faults = faults});
    f->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = 8192, .backing = BUF_BACKING_HEAP});
    struct net_sim_plane_options plane = {
        .pool = f->pool,
        .flow_count_max = 2000,
        .orphan_time = TICK_S(10),
        .address4 = {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 1}}};
    f->plane = net_sim_plane_new(f->sim, &plane);
    f->world = net_sim_plane_new(f->sim, &plane);
    f->servers = calloc(SERVERS_MAX, sizeof(*f->servers));
    f->messages = calloc(MESSAGES, sizeof(*f->messages));
    assert_true(f->servers != NULL && f->messages != NULL);
    f->hosts.host_count = HOSTS;
    for (uint32_t i = 0; i < HOSTS; i++) {
        struct mx_host *host = &f->hosts.hosts[i];
        snprintf(host->name, sizeof(host->name), "mx%u.example", i);
        host->address_count = 1;
        host->addresses[0] = (struct flow_address){
            .family = FLOW_FAMILY_IP4, .port = 25, .ip = {198, 51, 100, (uint8_t)(i + 1)}};
        assert_int_equal(ERR_OK,
                         flow_listen(f->world,
                                     &(struct flow_listen_options){.address = host->addresses[0],
                                                                   .backlog = 100,
                                                                   .user = LISTENER_TAG + i},
                                     &f->listeners[i]));
    }
    f->settings = (struct settings){.client = {.connect_timeout = TICK_S(30),
                                               .greeting_timeout = TICK_S(300),
                                               .command_timeout = TICK_S(300),
                                               .data_init_timeout = TICK_S(120),
                                               .data_block_timeout = TICK_S(180),
                                               .data_end_timeout = TICK_S(600),
                                               .idle_timeout = TICK_S(5),
                                               .messages_per_connection_max = 10,
                                               .use_bdat = true,
                                               .use_next = seed % 4 != 0},
                                    .serial = 1};
    f->route = (struct settings_route){.pattern = "*"};
    f->client = client_new(&(struct client_options){.plane = f->plane,
                                                    .rng = &f->rng,
                                                    .connection_count_max = SLOTS + REQUESTS_MAX,
                                                    .context = f,
                                                    .on_result = on_result,
                                                    .on_closed = on_closed,
                                                    .on_idle = on_idle,
                                                    .on_room = on_room,
                                                    .on_host = on_host},
                           &f->settings);
}

static void fixture_close(struct fixture *f)
{
    client_free(f->client);
    for (uint32_t i = 0; i < f->server_count; i++) {
        if (f->servers[i].is_open)
            stream_abort(&f->servers[i].stream);
        free(f->servers[i].body);
    }
    free(f->servers);
    free(f->messages);
    flow_plane_free(f->plane);
    flow_plane_free(f->world);
    net_sim_free(f->sim);
    assert_int_equal(0, buf_pool_in_use(f->pool));
    buf_pool_free(f->pool);
}

struct reached {
    uint32_t delivered, in_doubt;
    uint64_t followed, ahead;
};

static void run_seed(uint64_t seed, struct reached *reached)
{
    struct fixture f;

    fixture_open(&f, seed);
    for (uint32_t turns = 0; f.finished < MESSAGES || f.closed < f.slots; turns++) {
        if (turns == 1000000)
            fail_msg("seed %u: no end", (uint32_t)seed);
        if (world_turn(&f))
            continue;
        tick_us next = client_deadline(f.client), net = net_sim_deadline(f.sim);
        next = net < next ? net : next;
        if (next == TICK_NEVER)
            break;
        net_sim_advance(f.sim, next > net_sim_now(f.sim) ? next : net_sim_now(f.sim) + 1);
    }
    assert_int_equal(MESSAGES, f.finished);
    assert_int_equal(f.slots, f.closed);
    assert_int_equal(0, client_get_stats(f.client).open);
    reached->delivered += f.delivered;
    reached->in_doubt += f.in_doubt;
    reached->followed += client_get_stats(f.client).followed;
    reached->ahead += client_get_stats(f.client).bdat_ahead;
    fixture_close(&f);
}

static void test_results_agree_with_servers(void **state)
{
    struct reached reached = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        print_message("# seed %u\n", (uint32_t)seed);
        run_seed(seed, &reached);
    }
    print_message("# recipients delivered: %u, in doubt: %u; followed: %u, ahead: %u\n",
                  reached.delivered, reached.in_doubt, (uint32_t)reached.followed,
                  (uint32_t)reached.ahead);
    /* The seeds reach what they are for. */
    assert_true(reached.delivered > SEEDS * MESSAGES / 2);
    assert_true(reached.in_doubt > SEEDS / 4);
    assert_true(reached.followed > SEEDS * 2);
    assert_true(reached.ahead > SEEDS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_results_agree_with_servers),
    };
    return cmocka_run_group_tests_name("client_chaos", tests, NULL, NULL);
}
