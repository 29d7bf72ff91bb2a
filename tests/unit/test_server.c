/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server over real sockets on loopback, with a transfer of its own that keeps what it gets:
 * octets, intakes, commits, back pressure, deadlines, shutdown, reload, TLS.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/ssl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rng.h"
#include "relay/server_internal.h"
#include "relay/tls_self_signed.h"

#define E          "EHLO client.example\r\n"
#define T          "MAIL FROM:<a@client.example>\r\nRCPT TO:<b@served.example>\r\nDATA\r\n"
#define BODY       "Subject: x\r\n\r\n..dot\r\nhello\r\n.\r\n"
#define HOST_FLOWS 64

/* ---- the transfer ---- */

static const struct settings_pool the_pool = {.name = "default"};

struct transfer_intake {
    struct buf_queue body;
};

struct kept {
    char *body;
    uint32_t size, flags, header_size;
    uint64_t user;
    bool is_committed;
};

static struct {
    struct kept kept[64];
    uint32_t count, begun, aborted, bodies, reliefs;
    enum err begin_err, body_err;
    uint64_t pending;
} store;

bool transfer_can_store(const struct transfer *transfer)
{
    (void)transfer;
    return true;
}

enum err transfer_begin(struct transfer *transfer, const struct transfer_offer *offer,
                        struct tick_now now, struct transfer_intake **ret_intake,
                        struct message_id *ret_id)
{
    (void)transfer, (void)offer, (void)now;
    if (store.begin_err != ERR_OK)
        return store.begin_err;
    struct transfer_intake *intake = calloc(1, sizeof(*intake));
    assert_non_null(intake);
    buf_queue_init(&intake->body);
    *ret_intake = intake;
    *ret_id = (struct message_id){.high = ++store.begun, .low = 1};
    return ERR_OK;
}

enum err transfer_body(struct transfer *transfer, struct transfer_intake *intake,
                       struct buf_queue *octets)
{
    (void)transfer;
    store.bodies += 1;
    if (store.body_err != ERR_OK)
        return store.body_err;
    buf_queue_move(&intake->body, octets);
    return ERR_OK;
}

bool transfer_relieve(struct transfer *transfer)
{
    (void)transfer;
    return ++store.reliefs % 3 == 0;
}

bool transfer_wants_stream(const struct transfer *transfer, const struct transfer_intake *intake)
{
    (void)transfer;
    (void)intake;
    return false;
}

enum err transfer_stream_begin(struct transfer *transfer, struct transfer_intake *intake,
                               struct envelope *envelope, enum way reason, struct tick_now now)
{
    (void)transfer;
    (void)intake;
    (void)envelope;
    (void)reason;
    (void)now;
    return ERR_OK;
}

uint64_t transfer_pending(const struct transfer_intake *intake)
{
    (void)intake;
    return store.pending;
}

static void intake_free(struct transfer_intake *intake)
{
    buf_queue_fini(&intake->body);
    free(intake);
}

void transfer_end(struct transfer *transfer, struct transfer_intake *intake,
                  struct envelope *envelope, uint64_t user, struct tick_now now)
{
    (void)transfer, (void)now;
    assert_true(store.count < 64);
    struct kept *kept = &store.kept[store.count++];
    *kept = (struct kept){.size = (uint32_t)intake->body.size,
                          .flags = envelope->flags,
                          .header_size = envelope->header_size,
                          .user = user};
    assert_int_equal(envelope->body_size, intake->body.size);
    kept->body = malloc(kept->size + 1);
    assert_non_null(kept->body);
    buf_queue_copy_out(&intake->body, 0, kept->body, kept->size);
    kept->body[kept->size] = '\0';
    intake_free(intake);
}

void transfer_set_heard(struct transfer_intake *intake, uint64_t heard)
{
    (void)intake;
    (void)heard;
}

void transfer_abort(struct transfer *transfer, struct transfer_intake *intake)
{
    (void)transfer;
    store.aborted += 1;
    intake_free(intake);
}

/* ---- the house around the server ---- */

static struct {
    struct settings settings;
    struct settings_listener listeners[2];
    struct settings_route routes[2];
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct server *server;
    struct tick_now now;
    struct record records[64];
    uint32_t record_count;
    uint16_t port;
    bool holds_commits;
    tick_us step; /* of a turn */
} house;

static void on_record(void *context, const struct record *record)
{
    (void)context;
    assert_true(house.record_count < 64);
    house.records[house.record_count++] = *record;
}

static void make_settings(void)
{
    struct flow_address loopback;

    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("127.0.0.1"), &loopback));
    house.routes[0] = (struct settings_route){.pattern = "served.example", .is_served = true};
    house.routes[1] = (struct settings_route){.pattern = "*"};
    house.listeners[0] =
        (struct settings_listener){.address = loopback,
                                   .limits = {.command_line_size_max = 2048,
                                              .recipient_max = 100,
                                              .message_size_max = 8u << 20,
                                              .text_line_size_max = 1000,
                                              .received_max = 100,
                                              .error_max = 20,
                                              .junk_max = 100,
                                              .session_max = 8,
                                              .transactions_ahead_max = 2,
                                              .command_timeout = TICK_S(300),
                                              .data_timeout = TICK_S(180),
                                              .session_timeout = TICK_S(3600),
                                              .transaction_timeout = TICK_S(1800)}};
    house.settings = (struct settings){.hostname = "relay.example",
                                       .listeners = house.listeners,
                                       .listener_count = 1,
                                       .pools = &the_pool,
                                       .pool_count = 1,
                                       .routes = house.routes,
                                       .route_count = 2,
                                       .message_lifetime = TICK_S(432000),
                                       .serial = 1};
}

static void house_open(void)
{
    uint32_t index;

    memset(&store, 0, sizeof(store));
    struct buf_pool_options pool = {
        .data_size = 4096, .count_max = 8192, .backing = BUF_BACKING_HEAP};
    house.pool = buf_pool_new(&pool);
    struct flow_host_options host = {
        .pool = house.pool, .flow_count_max = HOST_FLOWS, .orphan_time = TICK_S(5), .seed = 1};
    assert_int_equal(ERR_OK, flow_host_new(&host, &house.plane));
    house.now = (struct tick_now){.tick = TICK_S(1000), .wall = 1700000000000000};
    house.record_count = 0;
    house.holds_commits = false;
    house.step = TICK_MS(1);
    struct rng rng;
    rng_init_seed(&rng, 1);
    struct server_options options = {.plane = house.plane,
                                     .rng = &rng,
                                     .records = {.emit = on_record},
                                     .shard_count = 1,
                                     .body_octets = BODY_GATE_OCTETS};
    house.server = server_new(&options, &house.settings, house.now);
    assert_int_equal(ERR_OK, server_listen(house.server, &index));
    struct flow_address local, peer;
    assert_int_equal(ERR_OK,
                     flow_addresses(house.plane, house.server->listeners[0].flow, &local, &peer));
    house.port = local.port;
}

static void house_close(void)
{
    server_free(house.server);
    flow_plane_free(house.plane);
    buf_pool_free(house.pool); /* every buffer came back */
    for (uint32_t i = 0; i < store.count; i++)
        free(store.kept[i].body);
}

static void commit(struct kept *kept, uint16_t code)
{
    struct message_fate fate = {.id = {.high = 1, .low = 2}, .code = code};

    kept->is_committed = true;
    server_on_commit(house.server, kept->user, &fate, house.now);
}

static void turn(void)
{
    struct flow_event events[64];

    house.now.tick += house.step;
    uint32_t count = flow_poll(house.plane, house.now.tick, events, 64);
    for (uint32_t i = 0; i < count; i++)
        server_on_flow(house.server, &events[i], house.now);
    for (uint32_t i = 0; i < store.count && !house.holds_commits; i++) {
        if (!store.kept[i].is_committed)
            commit(&store.kept[i], 250);
    }
    server_advance(house.server, house.now);
    flow_flush(house.plane, house.now.tick);
}

static void turns(uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        turn();
}

/* ---- clients ---- */

static int client_connect(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(house.port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), on = 1;

    assert_true(fd >= 0);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* every send a segment of its own */
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(0, connect(fd, (struct sockaddr *)&to, sizeof(to)));
    return fd;
}

static void client_send(int fd, const char *text)
{
    assert_int_equal(strlen(text), send(fd, text, strlen(text), MSG_NOSIGNAL));
    turns(4);
}

/* What has come, as the codes of complete replies; "closed" when the FIN is in as well. */
static const char *client_codes(int fd)
{
    static char codes[1024], text[65536];
    ssize_t got, size = 0;

    turns(2);
    while ((got = recv(fd, text + size, sizeof(text) - 1 - (size_t)size, MSG_DONTWAIT)) > 0)
        size += got;
    text[size] = codes[0] = '\0';
    for (char *line = text, *end; (end = strstr(line, "\r\n")) != NULL; line = end + 2) {
        if (line[3] == ' ')
            snprintf(codes + strlen(codes), sizeof(codes) - strlen(codes), "%.3s ", line);
    }
    if (got == 0)
        snprintf(codes + strlen(codes), sizeof(codes) - strlen(codes), "closed ");
    if (codes[0] != '\0')
        codes[strlen(codes) - 1] = '\0';
    return codes;
}

static int client_hello(void)
{
    int fd = client_connect();

    turns(3);
    assert_string_equal("220", client_codes(fd));
    client_send(fd, E);
    assert_string_equal("250", client_codes(fd));
    return fd;
}

/* ---- tests ---- */

static const char want_body[] = "Received: from client.example ([127.0.0.1])\r\n"
                                "\tby relay.example with ESMTP id ";
static const char want_content[] = "Subject: x\r\n\r\n.dot\r\nhello\r\n";

/* Goal: what is stored is the trace field and the content, unstuffed. */
static void test_one_message(void **state)
{
    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    client_send(fd, T);
    assert_string_equal("250 250 354", client_codes(fd));
    client_send(fd, BODY "QUIT\r\n");
    assert_string_equal("250 221 closed", client_codes(fd));
    assert_int_equal(1, store.count);
    const struct kept *kept = &store.kept[0];
    assert_memory_equal(want_body, kept->body, strlen(want_body));
    const char *content = strstr(kept->body, "Subject:");
    assert_string_equal(want_content, content);
    assert_memory_equal(" +0000\r\n", content - 8, 8);
    assert_int_equal(ENVELOPE_DOT_LINES, kept->flags);
    assert_int_equal(content + strlen("Subject: x\r\n\r\n") - kept->body, kept->header_size);
    assert_int_equal(1, house.record_count);
    assert_int_equal(RECORD_RECEPTION, house.records[0].kind);
    assert_int_equal(kept->size, house.records[0].size);
    assert_string_equal("client.example", house.records[0].host);
    close(fd);
    turns(2);
    assert_int_equal(0, server_get_stats(house.server).open);
    assert_int_equal(1, server_get_stats(house.server).messages_accepted);
    house_close();
}

/* Goal: the same, whatever the segments: the session is cut at every octet. */
static void test_every_split(void **state)
{
    static const char script[] = T BODY;

    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    for (uint32_t cut = 1; cut < strlen(script); cut += 3) {
        if (store.count == 60)
            break;
        send(fd, script, cut, MSG_NOSIGNAL);
        turns(2);
        send(fd, script + cut, strlen(script) - cut, MSG_NOSIGNAL);
        turns(2);
        assert_string_equal("250 250 354 250", client_codes(fd));
        assert_string_equal(want_content, strstr(store.kept[store.count - 1].body, "Subject:"));
        house.record_count = 0;
    }
    close(fd);
    turns(3);
    house_close();
}

/* Goal: replies to what is pipelined behind a pending commit wait for it; reading stops at the
 * bound; a client that leaves meanwhile has handed its message over. */
static void test_pending_commits(void **state)
{
    (void)state;
    make_settings();
    house_open();
    house.holds_commits = true;
    int fd = client_hello();
    client_send(fd, T BODY T BODY T BODY T BODY "QUIT\r\n");
    assert_string_equal("250 250 354", client_codes(fd));
    assert_int_equal(3, store.count);
    commit(&store.kept[0], 250);
    turns(3);
    assert_int_equal(4, store.count);
    assert_string_equal("250 250 250 354", client_codes(fd));
    commit(&store.kept[2], 250);
    turns(3);
    assert_string_equal("", client_codes(fd));
    close(fd); /* with replies unread: a reset */
    turns(3);
    assert_int_equal(1, server_get_stats(house.server).open);
    commit(&store.kept[1], 451);
    commit(&store.kept[3], 250);
    turns(3);
    assert_int_equal(0, server_get_stats(house.server).open);
    assert_int_equal(4, house.record_count);
    assert_int_equal(RECORD_REJECTION, house.records[1].kind);
    assert_int_equal(451, house.records[1].code);
    house_close();
}

/* Goal: a client that leaves inside a message leaves nothing behind. */
static void test_lost_clients(void **state)
{
    static const struct {
        const char *name, *input;
        bool is_reset;
        uint32_t begun;
    } rows[] = {
        {"before EHLO", "", false, 0},
        {"inside a command", "MAIL FR", false, 0},
        {"in a transaction", "MAIL FROM:<>\r\n", true, 0},
        {"inside DATA", T "half a message\r\n.", false, 1},
        {"inside DATA, reset", T "half a message\r\n", true, 1},
        {"inside a chunk", "MAIL FROM:<>\r\nRCPT TO:<b@served.example>\r\nBDAT 100 LAST\r\nx",
         false, 1},
        {"between chunks", "MAIL FROM:<>\r\nRCPT TO:<b@served.example>\r\nBDAT 1\r\nx", true, 1},
    };

    (void)state;
    make_settings();
    house_open();
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct linger linger = {.l_onoff = 1};
        print_message("# case: %s\n", rows[i].name);
        store.begun = store.aborted = 0;
        int fd = client_hello();
        client_send(fd, rows[i].input);
        assert_int_equal(1, server_get_stats(house.server).open);
        if (rows[i].is_reset)
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
        close(fd);
        turns(4);
        assert_int_equal(0, server_get_stats(house.server).open);
        assert_int_equal(rows[i].begun, store.begun);
        assert_int_equal(rows[i].begun, store.aborted);
        assert_int_equal(0, store.count);
    }
    house_close();
}

/* Goal: a client that shuts down its sending side behind QUIT still gets every reply. */
static void test_half_closed_client(void **state)
{
    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    house.holds_commits = true;
    client_send(fd, T BODY);
    shutdown(fd, SHUT_WR);
    turns(3);
    assert_string_equal("250 250 354", client_codes(fd));
    commit(&store.kept[0], 250);
    turns(3);
    assert_string_equal("250 closed", client_codes(fd));
    close(fd);
    house_close();
}

/* Goal: octets before the banner end the session. */
static void test_early_talker(void **state)
{
    (void)state;
    make_settings();
    house_open();
    int fd = client_connect();
    send(fd, E, strlen(E), MSG_NOSIGNAL);
    turns(4);
    assert_string_equal("554 closed", client_codes(fd));
    close(fd);
    house_close();
}

/* Goal: both sides of session_max. */
static void test_session_max(void **state)
{
    int fds[9];

    (void)state;
    make_settings();
    house_open();
    for (uint32_t i = 0; i < 9; i++) {
        fds[i] = client_connect();
        turns(3);
        assert_string_equal(i < 8 ? "220" : "421 closed", client_codes(fds[i]));
    }
    close(fds[0]);
    turns(3);
    close(client_hello());
    for (uint32_t i = 1; i < 9; i++)
        close(fds[i]);
    turns(3);
    assert_int_equal(1, server_get_stats(house.server).refused);
    house_close();
}

/* Goal: with so many flows in use, of whatever kind, a client is reset at the door and the sessions
 * go on; there is room again when one has left. */
static void test_scarce_flows(void **state)
{
    char octet;
    int fds[5];

    (void)state;
    make_settings();
    house_open();
    house.server->options.flow_max = 5; /* the listener is one */
    for (uint32_t i = 0; i < 5; i++) {
        fds[i] = client_connect();
        turns(3);
        if (i < 4)
            assert_string_equal("220", client_codes(fds[i]));
    }
    assert_int_equal(-1, recv(fds[4], &octet, 1, MSG_DONTWAIT));
    assert_int_equal(ECONNRESET, errno);
    assert_int_equal(1, server_get_stats(house.server).refused);
    client_send(fds[0], "NOOP\r\n");
    assert_string_equal("250", client_codes(fds[0]));
    close(fds[0]);
    turns(3);
    close(client_hello());
    for (uint32_t i = 1; i < 5; i++)
        close(fds[i]);
    turns(3);
    house_close();
}

/* Goal: when buffers are nearly used up, what messages in the middle have gathered is handed on, a
 * few in each turn, so that many of them do not make it long. */
static void test_relief(void **state)
{
    static struct buf *taken[8192];
    static char text[79 * 100 + 1];
    uint32_t count = 0;
    int fds[8];

    (void)state;
    for (uint32_t i = 0; i < 100; i++)
        (void)snprintf(text + 79ul * i, 80, "%077u\r\n", i);
    make_settings();
    house_open();
    for (uint32_t i = 0; i < 8; i++)
        fds[i] = client_hello();
    for (uint32_t i = 1; i < 8; i++) {
        client_send(fds[i], T);
        client_send(fds[i], i < 7 ? text : "too small to be worth it\r\n");
    }
    turns(20);
    assert_int_equal(0, store.bodies);
    while (buf_pool_available(house.pool) >= buf_pool_count_max(house.pool) / 8)
        taken[count++] = buf_acquire(house.pool);
    turn();
    assert_int_equal(SERVER_RELIEF_HANDS, store.bodies);
    assert_int_equal(0, server_deadline(house.server));
    turn();
    assert_int_equal(6, store.bodies);
    for (uint32_t i = 1; i <= 3; i++) { /* then what the transfer has, a part in each turn */
        assert_int_equal(i, store.reliefs);
        assert_int_equal(i < 3, server_deadline(house.server) == 0);
        if (i < 3)
            turn();
    }
    assert_true(server_deadline(house.server) > house.now.tick);
    turns(20);
    assert_int_equal(6, store.bodies);
    assert_int_equal(3, server_get_stats(house.server).reliefs);
    while (count > 0)
        buf_release(taken[--count]);
    for (uint32_t i = 0; i < 8; i++)
        close(fds[i]);
    turns(3);
    house_close();
}

/* ---- large bodies ---- */

#define BODY_MIN (BODY_GATE_OCTETS / BODY_GATE_PLACES)

#define ENVELOPE(size)                                                                             \
    "MAIL FROM:<a@client.example> SIZE=" size "\r\nRCPT TO:<b@served.example>\r\nDATA\r\n"
#define LARGE  ENVELOPE("40000")
#define LITTLE ENVELOPE("8191")

/* As if the bodies of others left so much room, for as long as the test likes. */
static void gate_set_room(uint32_t octets)
{
    body_gate_init(&house.server->gate, BODY_GATE_OCTETS);
    house.server->gate.octets = BODY_GATE_OCTETS - octets;
    house.server->gate.count = octets < BODY_GATE_OCTETS;
}

/* Clients, and a time that hardly passes: the gate's limits are short. */
static void gate_open(int *fds, uint32_t count)
{
    make_settings();
    house_open();
    for (uint32_t i = 0; i < count; i++)
        fds[i] = client_hello();
    house.step = 1;
}

static void gate_close(int *fds, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        close(fds[i]);
    turns(4);
    assert_int_equal(0, server_get_stats(house.server).open);
    assert_true(TAILQ_EMPTY(&house.server->queues[SERVER_QUEUE_GATE]));
    house_close();
}

/* Goal: a large message is asked for when there is room for it, in the order of DATA; a small one
 * passes. */
static void test_gate(void **state)
{
    int fds[3];

    (void)state;
    gate_open(fds, 3);
    gate_set_room(39999);
    client_send(fds[0], LARGE);
    client_send(fds[1], LARGE);
    client_send(fds[2], LITTLE);
    assert_string_equal("250 250 354", client_codes(fds[2]));
    assert_string_equal("250 250", client_codes(fds[0]));
    assert_string_equal("250 250", client_codes(fds[1]));
    assert_int_equal(2, server_get_stats(house.server).gate_waits);
    gate_set_room(40000);
    turn();
    assert_string_equal("", client_codes(fds[1]));
    assert_string_equal("354", client_codes(fds[0]));
    client_send(fds[0], BODY);
    assert_string_equal("250", client_codes(fds[0]));
    assert_string_equal("354", client_codes(fds[1]));
    client_send(fds[1], BODY);
    assert_string_equal("250", client_codes(fds[1]));
    gate_close(fds, 3);
}

/* Goal: without a word about its size a message is taken for one like those before it. */
static void test_gate_unannounced(void **state)
{
    int fds[2];

    (void)state;
    gate_open(fds, 2);
    gate_set_room(0);
    house.server->body_mean = BODY_MIN - 1;
    client_send(fds[0], T);
    assert_string_equal("250 250 354", client_codes(fds[0]));
    house.server->body_mean = BODY_MIN;
    client_send(fds[1], T);
    assert_string_equal("250 250", client_codes(fds[1]));
    client_send(fds[0], BODY); /* a small one: they are smaller now */
    assert_string_equal("250", client_codes(fds[0]));
    assert_true(house.server->body_mean < BODY_MIN);
    assert_string_equal("354", client_codes(fds[1]));
    gate_close(fds, 2);
}

/* Goal: mail that is stored in any case waits for nobody. */
static void test_gate_stored(void **state)
{
    int fd;

    (void)state;
    gate_open(&fd, 1);
    house.listeners[0].delivery = SETTINGS_DELIVERY_SPOOL;
    gate_set_room(0);
    client_send(fd, LARGE);
    assert_string_equal("250 250 354", client_codes(fd));
    client_send(fd, BODY);
    assert_string_equal("250", client_codes(fd));
    gate_close(&fd, 1);
}

/* Goal: one giant without a word about its size counts as what all room is, so that a few small
 * ones make up for it. */
static void test_gate_giant(void **state)
{
    static char lines[BODY_MIN + 1];
    int fd;

    (void)state;
    for (uint32_t i = 0; i < BODY_MIN; i++)
        lines[i] = i % 64 == 62 ? '\r' : i % 64 == 63 ? '\n' : 'x';
    gate_open(&fd, 1);
    client_send(fd, T "Subject: giant\r\n\r\n");
    for (uint32_t i = 0; i < 2 * BODY_GATE_PLACES; i++)
        client_send(fd, lines);
    client_send(fd, ".\r\n");
    assert_string_equal("250 250 354 250", client_codes(fd));
    assert_true(store.kept[0].size > 2 * BODY_GATE_OCTETS);
    assert_int_equal(BODY_GATE_OCTETS / 8, house.server->body_mean);
    gate_close(&fd, 1);
}

/* Goal: nobody waits longer than that, both sides; and the turn comes by itself. */
static void test_gate_is_patient(void **state)
{
    int fd;

    (void)state;
    gate_open(&fd, 1);
    gate_set_room(0);
    client_send(fd, LARGE);
    assert_string_equal("250 250", client_codes(fd));
    const struct server_session *session = LIST_FIRST(&house.server->sessions);
    uint32_t waited = (uint32_t)house.now.tick - session->gate_since;
    assert_int_equal(house.now.tick + BODY_GATE_WAIT_MAX - waited, server_deadline(house.server));
    house.now.tick += BODY_GATE_WAIT_MAX - waited - 3;
    turn();
    turn();
    assert_int_equal(SERVER_QUEUE_GATE, session->queue);
    turn();
    assert_int_equal(SERVER_QUEUE_NONE, session->queue);
    assert_string_equal("354", client_codes(fd));
    client_send(fd, BODY);
    assert_string_equal("250", client_codes(fd));
    gate_close(&fd, 1);
}

/* Goal: of a crowd that has waited so long as many go on in a turn as one may take, and the others
 * in the next, at once. */
static void test_gate_crowd(void **state)
{
    int fds[SERVER_GATE_PASSES + 1];

    (void)state;
    make_settings();
    house.listeners[0].limits.session_max = COUNT_OF(fds);
    house_open();
    for (uint32_t i = 0; i < COUNT_OF(fds); i++)
        fds[i] = client_hello();
    house.step = 1;
    gate_set_room(0);
    for (uint32_t i = 0; i < COUNT_OF(fds); i++)
        client_send(fds[i], LARGE);
    assert_int_equal(COUNT_OF(fds), server_get_stats(house.server).gate_waits);
    house.now.tick += BODY_GATE_WAIT_MAX;
    turn();
    assert_int_equal(SERVER_GATE_PASSES, store.begun);
    assert_true(server_deadline(house.server) <= house.now.tick);
    turn();
    assert_int_equal(COUNT_OF(fds), store.begun);
    gate_close(fds, COUNT_OF(fds));
}

/* Goal: a place lasts until the message has ended, or for its time; who waits is woken for it. */
static void test_gate_place(void **state)
{
    int fds[2];

    (void)state;
    gate_open(fds, 2);
    house.holds_commits = true;
    client_send(fds[0], ENVELOPE("524288"));
    client_send(fds[0], BODY);
    assert_string_equal("250 250 354", client_codes(fds[0]));
    assert_int_equal(BODY_GATE_OCTETS, house.server->gate.octets);
    client_send(fds[1], LARGE);
    assert_string_equal("250 250", client_codes(fds[1]));
    tick_us expires = house.server->gate.places[0].expires;
    assert_int_equal(expires, server_deadline(house.server));
    house.now.tick = expires - 2;
    turn();
    assert_string_equal("", (house.step = 0, client_codes(fds[1])));
    house.step = 1;
    turn();
    assert_string_equal("354", client_codes(fds[1]));
    client_send(fds[1], BODY);
    commit(&store.kept[0], 250);
    assert_int_equal(1, house.server->gate.count); /* the second's, which has ended not */
    commit(&store.kept[1], 250);
    assert_int_equal(0, house.server->gate.count);
    turns(2);
    assert_string_equal("250", client_codes(fds[0]));
    assert_string_equal("250", client_codes(fds[1]));
    gate_close(fds, 2);
}

/* Goal: behind one that is not answered yet a large message begins with its reply, and its replies
 * are in order. */
static void test_gate_pipelined(void **state)
{
    int fd;

    (void)state;
    gate_open(&fd, 1);
    house.holds_commits = true;
    client_send(fd, T BODY LARGE);
    assert_string_equal("250 250 354", client_codes(fd));
    assert_int_equal(1, store.begun);
    commit(&store.kept[0], 250);
    turns(2);
    assert_string_equal("250 250 250 354", client_codes(fd));
    client_send(fd, BODY);
    commit(&store.kept[1], 250);
    turns(2);
    assert_string_equal("250", client_codes(fd));
    assert_int_equal(0, server_get_stats(house.server).gate_waits);
    gate_close(&fd, 1);
}

/* Goal: a session whose time is over while it waits hears so; one whose client says no more than
 * DATA is asked for its message all the same, and ends without one. */
static void test_gate_ends(void **state)
{
    int fds[2];

    (void)state;
    gate_open(fds, 2);
    gate_set_room(0);
    client_send(fds[0], LARGE);
    assert_string_equal("250 250", client_codes(fds[0]));
    struct server_session *session = TAILQ_FIRST(&house.server->queues[SERVER_QUEUE_GATE]);
    session->smtpd.deadline = house.now.tick + 1;
    wheel_arm(&house.server->wheel, &session->timer, session->smtpd.deadline);
    house.now.tick += BODY_GATE_WAIT_MAX / 2; /* the wheel counts in milliseconds */
    turns(2);
    assert_string_equal("421 closed", client_codes(fds[0]));
    assert_int_equal(1, server_get_stats(house.server).timeouts);
    client_send(fds[1], LARGE);
    shutdown(fds[1], SHUT_WR);
    turns(2);
    assert_int_equal(1, server_get_stats(house.server).open);
    gate_set_room(BODY_GATE_OCTETS);
    turns(4);
    assert_string_equal("250 250 354 closed", client_codes(fds[1]));
    assert_int_equal(0, store.count);
    gate_close(fds, 2);
}

/* Goal: a message for which there is no room in the spool when its turn comes keeps no place, and
 * what its client sent behind it is heard. */
static void test_gate_refused(void **state)
{
    int fds[2];

    (void)state;
    gate_open(fds, 2);
    gate_set_room(0);
    client_send(fds[0], LARGE "RSET\r\n" LARGE);
    client_send(fds[1], LARGE);
    store.begin_err = ERR_DISK_FULL;
    gate_set_room(40000);
    turns(4);
    assert_string_equal("250 250 452 250 250 250 452", client_codes(fds[0]));
    assert_string_equal("250 250 452", client_codes(fds[1]));
    store.begin_err = ERR_OK;
    client_send(fds[1], LARGE);
    assert_string_equal("250 250 354", client_codes(fds[1]));
    assert_int_equal(40000, house.server->gate.places[0].octets);
    gate_close(fds, 2);
}

/* Goal: a session that ends while it waits, or loses its message, leaves nothing behind. */
static void test_gate_lost(void **state)
{
    struct linger linger = {.l_onoff = 1};
    int fds[4];

    (void)state;
    gate_open(fds, 4);
    client_send(fds[3], ENVELOPE("524288"));
    client_send(fds[0], LARGE);
    client_send(fds[1], LARGE);
    client_send(fds[2], LARGE);
    setsockopt(fds[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fds[0]);
    fds[0] = dup(fds[1]);
    turns(4);
    assert_int_equal(3, server_get_stats(house.server).open);
    setsockopt(fds[3], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fds[3]); /* in the midst of the body that has all room */
    fds[3] = dup(fds[1]);
    turns(4);
    assert_string_equal("250 250 354", client_codes(fds[1]));
    assert_string_equal("250 250 354", client_codes(fds[2]));
    store.body_err = ERR_DISK_IO;
    client_send(fds[1], BODY);
    assert_string_equal("451", client_codes(fds[1]));
    store.body_err = ERR_OK;
    assert_int_equal(1, house.server->gate.count);
    gate_set_room(0);
    client_send(fds[1], LARGE);
    server_dismiss(house.server);
    turns(2);
    assert_string_equal("250 250 421 closed", client_codes(fds[1]));
    assert_string_equal("421 closed", client_codes(fds[2]));
    gate_close(fds, 4);
}

/* Goal: deadlines fire through the wheel, once. */
static void test_timeouts(void **state)
{
    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    house.now.tick += TICK_S(299);
    turn();
    assert_string_equal("", client_codes(fd));
    house.now.tick += TICK_S(2);
    turns(2);
    assert_string_equal("421 closed", client_codes(fd));
    close(fd);
    fd = client_hello();
    client_send(fd, T);
    client_codes(fd);
    house.now.tick += TICK_S(181);
    turns(2);
    assert_string_equal("421 closed", client_codes(fd));
    assert_int_equal(1, store.aborted);
    assert_int_equal(2, server_get_stats(house.server).timeouts);
    close(fd);
    house_close();
}

/* Goal: a large message is stopped while the disk is behind, goes on after it, and arrives whole.
 */
static void test_back_pressure(void **state)
{
    enum { SIZE = 3 << 20 };
    char *body = malloc(SIZE + 6);
    uint32_t sent = 0;

    (void)state;
    assert_non_null(body);
    for (uint32_t i = 0; i < SIZE; i++)
        body[i] = i % 78 == 76 ? '\r' : i % 78 == 77 ? '\n' : (char)('b' + i % 20);
    memcpy(body + SIZE - 2, "\r\n.\r\n", 6);
    make_settings();
    house_open();
    int fd = client_hello();
    client_send(fd, T);
    client_codes(fd);
    store.pending = SERVER_BODY_PENDING_MAX + 1;
    for (uint32_t i = 0; i < 50; i++) {
        ssize_t size = send(fd, body + sent, SIZE + 3 - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += size > 0 ? (uint32_t)size : 0;
        turn();
    }
    assert_int_equal(0, store.bodies); /* nothing was read */
    assert_int_equal(0, server_get_stats(house.server).octets);
    store.pending = 0;
    for (uint32_t i = 0; i < 2000 && store.count == 0; i++) {
        ssize_t size = sent == SIZE + 3
                           ? 0
                           : send(fd, body + sent, SIZE + 3 - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        sent += size > 0 ? (uint32_t)size : 0;
        turn();
    }
    assert_string_equal("250", client_codes(fd));
    assert_int_equal(1, store.count);
    uint32_t header = store.kept[0].size - SIZE;
    assert_memory_equal(body, store.kept[0].body + header, SIZE);
    close(fd);
    free(body);
    house_close();
}

/* Goal: a message of nothing but stuffed dots and bare fragments costs copies, not slices. */
static void test_many_cuts(void **state)
{
    static char body[120000];
    uint32_t size = 0;

    (void)state;
    while (size < sizeof(body) - 8)
        memcpy(body + size, "..\r\n", 4), size += 4;
    memcpy(body + size, ".\r\n", 4);
    make_settings();
    house_open();
    int fd = client_hello();
    client_send(fd, T);
    client_send(fd, body);
    turns(20);
    assert_string_equal("250 250 354 250", client_codes(fd));
    uint32_t dots = 0;
    for (uint32_t i = 0; i + 2 < store.kept[0].size; i++)
        dots += memcmp(store.kept[0].body + i, "\n.\r", 3) == 0;
    assert_int_equal(size / 4, dots);
    close(fd);
    house_close();
}

/* Goal: the transfer's errors are told, and the session goes on. */
static void test_transfer_errors(void **state)
{
    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    store.begin_err = ERR_DISK_FULL;
    client_send(fd, "MAIL FROM:<>\r\nRCPT TO:<b@served.example>\r\nDATA\r\n");
    assert_string_equal("250 250 452", client_codes(fd));
    store.begin_err = ERR_OK;
    store.body_err = ERR_DISK_IO;
    client_send(fd, T BODY);
    assert_string_equal("250 250 354 451", client_codes(fd));
    assert_int_equal(1, store.aborted);
    store.body_err = ERR_OK;
    client_send(fd, T BODY);
    assert_string_equal("250 250 354 250", client_codes(fd));
    close(fd);
    house_close();
}

/* Goal: drain ends idle sessions at once, and others when their message is committed. */
static void test_drain(void **state)
{
    (void)state;
    make_settings();
    house_open();
    house.holds_commits = true;
    int idle = client_hello(), busy = client_hello();
    client_send(busy, T BODY);
    assert_string_equal("250 250 354", client_codes(busy));
    assert_false(server_drain(house.server, house.now));
    assert_string_equal("421 closed", client_codes(idle));
    assert_string_equal("", client_codes(busy));
    commit(&store.kept[0], 250);
    turns(2);
    assert_true(server_drain(house.server, house.now));
    assert_string_equal("250 421 closed", client_codes(busy));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(house.port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(-1, connect(fd, (struct sockaddr *)&to, sizeof(to)));
    close(fd);
    close(idle);
    close(busy);
    house_close();
}

/* Goal: a reload changes new sessions, keeps the socket, and lets go of the old snapshot. */
static void test_reload(void **state)
{
    struct settings_listener listener;

    (void)state;
    make_settings();
    house_open();
    int fd = client_hello();
    struct settings next = house.settings;
    listener = house.listeners[0];
    next.hostname = "other.example";
    next.serial = 2;
    next.listeners = &listener;
    server_set_settings(house.server, &next, house.now);
    assert_true(server_uses_settings(house.server, 1));
    assert_true(server_uses_settings(house.server, 2));
    int fresh = client_hello();
    client_send(fresh, T BODY);
    client_send(fd, T BODY);
    assert_non_null(strstr(store.kept[0].body, "by other.example"));
    assert_non_null(strstr(store.kept[1].body, "by relay.example"));
    close(fd);
    turns(3);
    assert_false(server_uses_settings(house.server, 1));
    next.listener_count = 0;
    server_set_settings(house.server, &next, house.now);
    client_send(fresh, "NOOP\r\n"); /* the session outlives its listener */
    assert_string_equal("250 250 354 250 250", client_codes(fresh));
    close(fresh);
    turns(3);
    house_close();
}

/* ---- TLS ---- */

static void tls_pump(SSL *ssl, const char *send_text, char *ret_text, uint32_t size)
{
    bool is_sent = send_text == NULL;

    ret_text[0] = '\0';
    for (uint32_t i = 0; i < 50; i++) {
        if (!is_sent)
            is_sent = SSL_write(ssl, send_text, (int)strlen(send_text)) > 0;
        turn();
        size_t used = strlen(ret_text);
        int got = SSL_read(ssl, ret_text + used, (int)(size - 1 - used));
        if (got > 0)
            ret_text[used + (size_t)got] = '\0';
    }
}

/* Goal: of many handshakes that come at once a turn takes two, oldest first; commands of others do
 * not wait for them; and all of them end well. */
static void check_handshakes(SSL_CTX *context)
{
    enum { COUNT = 6 };
    SSL *ssls[COUNT];
    int fds[COUNT];
    char octet;

    int other = client_hello();
    for (uint32_t i = 0; i < COUNT; i++) {
        fds[i] = client_hello();
        client_send(fds[i], "STARTTLS\r\n");
        assert_string_equal("220", client_codes(fds[i]));
        ssls[i] = SSL_new(context);
        SSL_set_fd(ssls[i], fds[i]);
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
    }
    for (uint32_t i = 0; i < COUNT; i++)
        assert_int_equal(-1, SSL_connect(ssls[i]));
    assert_int_equal(6, send(other, "NOOP\r\n", 6, 0));
    for (uint32_t answered = 2; answered <= COUNT; answered += 2) {
        turn();
        for (uint32_t i = 0; i < COUNT; i++)
            assert_int_equal(i < answered ? 1 : -1,
                             recv(fds[i], &octet, 1, MSG_DONTWAIT | MSG_PEEK));
        assert_int_equal(1, recv(other, &octet, 1, MSG_DONTWAIT));
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        for (uint32_t round = 0; round < 20 && SSL_connect(ssls[i]) != 1; round++)
            turn();
        assert_true(SSL_is_init_finished(ssls[i]));
        SSL_free(ssls[i]);
        close(fds[i]);
    }
    close(other);
}

/* Goal: keys are not negotiated again (TLS 1.2), however a client asks; others are served on. */
static void check_renegotiation(SSL_CTX *context)
{
    int fd = client_hello();
    SSL *ssl = SSL_new(context);

    client_send(fd, "STARTTLS\r\n");
    assert_string_equal("220", client_codes(fd));
    SSL_set_fd(ssl, fd);
    fcntl(fd, F_SETFL, O_NONBLOCK);
    assert_int_equal(1, SSL_set_max_proto_version(ssl, TLS1_2_VERSION));
    for (uint32_t i = 0; i < 50 && SSL_connect(ssl) != 1; i++)
        turn();
    assert_true(SSL_is_init_finished(ssl));
    assert_int_equal(1, SSL_renegotiate(ssl));
    int result = SSL_do_handshake(ssl);
    for (uint32_t i = 0; i < 20 && SSL_get_error(ssl, result) == SSL_ERROR_WANT_READ; i++) {
        turn();
        result = SSL_do_handshake(ssl);
    }
    assert_int_equal(-1, result);
    assert_int_equal(SSL_ERROR_SSL, SSL_get_error(ssl, result));
    SSL_free(ssl);
    close(fd);
    close(client_hello());
}

/* Goal: a message under TLS, STARTTLS in the clear only, and nothing survives the handshake. */
static void test_tls(void **state)
{
    char certificate[TLS_SELF_SIGNED_PATH_MAX], key[TLS_SELF_SIGNED_PATH_MAX], why[256];
    char directory[] = "/tmp/test_server_XXXXXX", text[8192], path[300];

    (void)state;
    assert_non_null(mkdtemp(directory));
    assert_int_equal(ERR_OK,
                     tls_self_signed_ensure(directory, "relay.example", certificate, key, why));
    make_settings();
    assert_int_equal(ERR_OK, tls_server_context_new(certificate, key, "test",
                                                    &house.listeners[0].tls_server, why));
    house.listeners[0].offer_starttls = true;
    house_open();

    int fd = client_hello();
    client_send(fd, "STARTTLS\r\nEHLO x\r\n"); /* injected in the clear */
    assert_string_equal("554 closed", client_codes(fd));
    close(fd);

    fd = client_hello();
    client_send(fd, "STARTTLS\r\n");
    assert_string_equal("220", client_codes(fd));
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    SSL *ssl = SSL_new(context);
    struct timeval wait = {.tv_usec = 1000};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof(wait));
    SSL_set_fd(ssl, fd);
    for (uint32_t i = 0; i < 50 && SSL_connect(ssl) != 1; i++)
        turn();
    assert_true(SSL_is_init_finished(ssl));
    tls_pump(ssl, "MAIL FROM:<>\r\n", text, sizeof(text));
    assert_memory_equal("503 ", text, 4);
    tls_pump(ssl, E, text, sizeof(text));
    assert_null(strstr(text, "STARTTLS"));
    tls_pump(ssl, T BODY "QUIT\r\n", text, sizeof(text));
    assert_non_null(strstr(text, "\r\n354 "));
    assert_non_null(strstr(text, "\r\n221 "));
    assert_int_equal(1, store.count);
    assert_non_null(strstr(store.kept[0].body, " with ESMTPS id "));
    assert_string_equal(want_content, strstr(store.kept[0].body, "Subject:"));
    assert_string_equal("TLSv1.3", house.records[house.record_count - 1].tls);
    SSL_free(ssl);
    close(fd);
    check_handshakes(context);
    check_renegotiation(context);
    SSL_CTX_free(context);
    turns(3);
    house_close();
    tls_context_free(house.listeners[0].tls_server);
    unlink(certificate);
    unlink(key);
    snprintf(path, sizeof(path), "%s", directory);
    rmdir(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_message),
        cmocka_unit_test(test_every_split),
        cmocka_unit_test(test_pending_commits),
        cmocka_unit_test(test_lost_clients),
        cmocka_unit_test(test_half_closed_client),
        cmocka_unit_test(test_early_talker),
        cmocka_unit_test(test_session_max),
        cmocka_unit_test(test_scarce_flows),
        cmocka_unit_test(test_relief),
        cmocka_unit_test(test_gate),
        cmocka_unit_test(test_gate_unannounced),
        cmocka_unit_test(test_gate_stored),
        cmocka_unit_test(test_gate_giant),
        cmocka_unit_test(test_gate_is_patient),
        cmocka_unit_test(test_gate_crowd),
        cmocka_unit_test(test_gate_place),
        cmocka_unit_test(test_gate_pipelined),
        cmocka_unit_test(test_gate_ends),
        cmocka_unit_test(test_gate_refused),
        cmocka_unit_test(test_gate_lost),
        cmocka_unit_test(test_timeouts),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_many_cuts),
        cmocka_unit_test(test_transfer_errors),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_reload),
        cmocka_unit_test(test_tls),
    };
    return cmocka_run_group_tests_name("server", tests, NULL, NULL);
}
