/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: every request ends in one result that tells the truth, whatever the servers do, and every
 * connection in one on_closed(). The client runs against scripted servers on the simulated network,
 * in virtual time.
 *
 * A server's script, one step a string:
 *   "text"   sends text and CRLF              "<text"   sends exactly text
 *   "C text" the next line is text            "B text"  the next octets are text (\n means CRLF)
 *   "N n"    n octets of body are swallowed   "wait n"  sends nothing for n seconds
 *   "tls"    starts TLS                       "fin"     the client's FIN, or QUIT and FIN, is in
 *   "close"  FIN                              "reset"   RST
 *   "rst"    the client reset the connection  "silent"  never says anything again
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "relay/client.h"
#include "relay/stream.h"
#include "relay/tls_self_signed.h"
#include "tests/sim/net_sim.h"

#define HOSTS_MAX    3
#define SERVERS_MAX  6
#define LINES_MAX    30
#define REQUESTS_MAX 4
#define TURNS_MAX    200000u
#define SITE         77u
#define LISTENER_TAG 1000u

struct server_script {
    uint32_t host; /* 1 to HOSTS_MAX: which listener this connection comes to */
    const char *lines[LINES_MAX];
};

/* One message. */
struct mail {
    const char *body; /* \n means CRLF */
    uint32_t body_repeat;
    uint32_t flags;
    uint32_t recipient_count;
    bool is_alone;
    uint32_t cut; /* octets of a slice; 0: all in one */
};

struct client_case {
    const char *name;
    uint32_t hosts; /* how many; 0 means 1 */
    uint32_t tls;   /* enum settings_tls_level */
    bool has_auth, use_bdat;
    uint32_t messages_max;
    uint32_t dead_hosts; /* bit n: nobody answers at host n + 1 */
    uint32_t unheard;    /* bit n: host n + 1 refuses connections */
    tick_us attempt_time;
    tick_us ends_by; /* from the start; 0: whenever */
    bool is_dual;    /* host 1 is the IPv6 and host 2 the IPv4 address of one host */
    bool has_no_more_slots;
    tick_us latency; /* of every octet, one way; 0: as it comes */
    uint64_t races, races_won;
    struct mail mails[REQUESTS_MAX];
    /* Of each: its recipients ("ok 250", "failed 550", "due 0", "now 452"; by commas), then "in
     * doubt" or "unconnected". */
    const char *expected[REQUESTS_MAX];
    struct server_script servers[SERVERS_MAX];
    const char *tls_version; /* of the last result */
};

struct server {
    const struct server_script *script;
    struct stream stream;
    bool is_open, is_fin, is_reset;
    uint32_t line;
    uint32_t swallowed;
    tick_us waits_until;
};

static const struct settings_source us = {.name = "us", .hello_name = "us.example"};

struct fixture {
    const struct client_case *c;
    struct net_sim *sim;
    struct buf_pool *pool;
    struct flow_plane *plane, *world;
    struct flow listeners[HOSTS_MAX];
    struct rng rng;
    struct settings settings;
    struct settings_route route;
    struct mx_answer hosts;
    struct client *client;
    struct server servers[SERVERS_MAX];
    uint32_t server_count;
    struct envelope envelope;
    struct envelope_recipient recipients[4];
    struct buf_queue body;
    uint32_t started, finished, closed, opened_slots, hosts_bad, hosts_good;
    uint32_t mails_used;
    tick_us mail_told, finished_at;      /* the last */
    void (*on_found)(struct fixture *f); /* between client_has_idle() and client_start() */
    struct settings other;
    bool may_start;
    const char *tls_version;
};

static const struct settings_auth auth = {"joe", "secret"};
static struct {
    char folder[64], certificate[TLS_SELF_SIGNED_PATH_MAX], key[TLS_SELF_SIGNED_PATH_MAX];
    struct ssl_ctx_st *server, *may, *verify;
} tls;

static tick_us now_of(const struct fixture *f)
{
    return net_sim_now(f->sim);
}

static struct flow_address address_of(const struct client_case *c, uint32_t host)
{
    if (c->is_dual && host == 1)
        return (struct flow_address){
            .family = FLOW_FAMILY_IP6,
            .port = 25,
            .ip = {0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}};
    return (struct flow_address){
        .family = FLOW_FAMILY_IP4, .port = 25, .ip = {198, 51, 100, (uint8_t)host}};
}

/* ---- the relay's side ---- */

static void check_recipient(const struct client_recipient_result *result, const char *text)
{
    char word[8];
    unsigned int code;

    assert_int_equal(2, sscanf(text, "%7s %u", word, &code));
    enum recipient_state expected = strcmp(word, "ok") == 0       ? RECIPIENT_DELIVERED
                                    : strcmp(word, "failed") == 0 ? RECIPIENT_FAILED
                                                                  : RECIPIENT_DUE;
    assert_int_equal(expected, result->state);
    assert_int_equal(strcmp(word, "now") == 0, result->retry_now);
    assert_int_equal(code, result->code);
    assert_true(result->reply.size > 0 && result->reply.size <= 1000);
    for (uint32_t i = 0; i < result->reply.size; i++)
        assert_in_range(result->reply.data[i], ' ', '~');
}

static void on_result(void *context, const struct client_result *result)
{
    struct fixture *f = context;
    const char *expected = f->c->expected[f->finished], *text = expected;

    assert_int_equal(f->finished, result->user);
    assert_int_equal(f->envelope.recipient_count, result->recipient_count);
    for (uint32_t i = 0; i < result->recipient_count; i++) {
        print_message("# result: %.*s\n", SPAN_PRINTF(result->recipients[i].reply));
        check_recipient(&result->recipients[i], text);
        text = strchr(text, ',') != NULL ? strchr(text, ',') + 1 : text;
    }
    assert_int_equal(strstr(expected, "in doubt") != NULL, result->is_in_doubt);
    assert_int_equal(strstr(expected, "unconnected") == NULL, result->has_connected);
    assert_true(result->was_attempted);
    f->tls_version = result->tls_version;
    f->finished_at = now_of(f);
    f->finished++;
    buf_queue_fini(&f->body);
}

static void on_closed(void *context, uint64_t site)
{
    struct fixture *f = context;
    assert_int_equal(SITE, site);
    f->closed++;
    f->may_start = true;
}

static void on_idle(void *context, uint64_t site)
{
    struct fixture *f = context;
    assert_int_equal(SITE, site);
    f->may_start = true;
}

static void on_host(void *context, uint64_t site, const struct flow_address *address, bool is_ok)
{
    struct fixture *f = context;
    assert_int_equal(SITE, site);
    assert_int_equal(25, address->port);
    if (is_ok)
        f->hosts_good++;
    else
        f->hosts_bad++;
}

static bool may_mail(void *context, uint64_t site, bool has_right)
{
    (void)context, (void)site, (void)has_right;
    return true;
}

static void on_mail(void *context, uint64_t site, bool was_used)
{
    struct fixture *f = context;
    assert_int_equal(SITE, site);
    f->mails_used += was_used;
    f->mail_told = now_of(f);
}

static bool may_race(void *context, uint64_t site)
{
    struct fixture *f = context;
    assert_int_equal(SITE, site);
    f->opened_slots += !f->c->has_no_more_slots;
    return !f->c->has_no_more_slots;
}

/* The body in slices of `cut` octets that do not touch, or in as few as may be. */
static void body_make(struct fixture *f, const struct mail *mail)
{
    char text[256];
    uint32_t size = 0;

    for (const char *at = mail->body; *at != '\0'; at++) {
        if (*at == '\n')
            text[size++] = '\r';
        text[size++] = *at;
    }
    buf_queue_init(&f->body);
    for (uint32_t i = 0; i <= mail->body_repeat; i++) {
        uint32_t cut = mail->cut != 0 ? mail->cut : size;
        for (uint32_t from = 0; from < size; from += cut) {
            struct span octets = span_of(text + from, size - from < cut ? size - from : cut);
            struct buf_queue piece;

            buf_queue_init(&piece);
            assert_int_equal(
                ERR_OK, buf_queue_append_copy(mail->cut != 0 ? &piece : &f->body, f->pool, octets));
            buf_queue_move(&f->body, &piece);
            buf_queue_fini(&piece);
        }
    }
}

static void start_next(struct fixture *f)
{
    const struct mail *mail = &f->c->mails[f->started];
    static const uint32_t indexes[4] = {0, 1, 2, 3};
    static const char *const addresses[4] = {"r0@y.example", "r1@y.example", "r2@y.example",
                                             "r3@y.example"};

    f->may_start = false;
    body_make(f, mail);
    f->envelope = (struct envelope){
        .flags = mail->flags,
        .sender = SPAN_LITERAL("a@x.example"),
        .body_size = f->body.size,
        .recipients = f->recipients,
        .recipient_count = mail->recipient_count == 0 ? 1 : mail->recipient_count,
    };
    for (uint32_t i = 0; i < 4; i++)
        f->recipients[i].address = span_from_text(addresses[i]);
    struct client_request request = {
        .user = f->started,
        .source = &us,
        .route = &f->route,
        .site = SITE,
        .hosts = &f->hosts,
        .envelope = &f->envelope,
        .recipients = indexes,
        .recipient_count = f->envelope.recipient_count,
        .body = &f->body,
        .deadline = now_of(f) + (f->c->attempt_time != 0 ? f->c->attempt_time : TICK_S(1800)),
        .is_alone = mail->is_alone,
    };
    bool has_idle = client_has_idle(f->client, &request);
    f->opened_slots += !has_idle;
    if (has_idle && f->on_found != NULL)
        f->on_found(f);
    f->started++;
    assert_int_equal(ERR_OK, client_start(f->client, &request, now_of(f)));
}

/* ---- the servers' side ---- */

static void server_send(struct server *server, const char *text, bool is_line)
{
    assert_int_equal(ERR_OK, stream_write(&server->stream, span_from_text(text)));
    if (is_line)
        assert_int_equal(ERR_OK, stream_write(&server->stream, SPAN_LITERAL("\r\n")));
}

/* The next octets are `text`: false while they are not all in. */
static bool server_expect(struct server *server, const char *text, const char *end)
{
    char wanted[2048];
    uint32_t size = 0;

    for (const char *at = text; *at != '\0'; at++) {
        if (*at == '\n')
            wanted[size++] = '\r';
        wanted[size++] = *at;
    }
    memcpy(wanted + size, end, strlen(end));
    size += (uint32_t)strlen(end);
    uint32_t readable = stream_readable(&server->stream);
    struct span got = stream_pull(&server->stream, readable < size ? readable : size);
    if (got.size > 0 && memcmp(got.data, wanted, got.size) != 0)
        print_message("# wanted: %.*s\n# got: %.*s\n", (int)size, wanted, SPAN_PRINTF(got));
    if (got.size > 0)
        assert_memory_equal(wanted, got.data, got.size);
    if (got.size < size)
        return false;
    stream_consume(&server->stream, size);
    return true;
}

static bool server_swallow(struct server *server, uint32_t size)
{
    uint32_t readable = stream_readable(&server->stream);
    uint32_t left = size - server->swallowed;
    uint32_t take = readable < left ? readable : left;

    stream_consume(&server->stream, take);
    server->swallowed += take;
    if (server->swallowed < size)
        return false;
    server->swallowed = 0;
    return true;
}

/* QUIT is said before a FIN, or not: both are fine. */
static bool server_expect_fin(struct server *server)
{
    uint32_t readable = stream_readable(&server->stream);

    if (readable > 0)
        stream_consume(&server->stream, readable);
    if (readable == 6 && server->is_open) {
        server_send(server, "221 bye", true);
        stream_close(&server->stream);
        server->is_open = false;
        return true;
    }
    return server->is_fin || server->is_reset;
}

/* One step; false when it has to wait. */
static bool server_step(struct fixture *f, struct server *server, const char *line)
{
    if (strncmp(line, "C ", 2) == 0)
        return server_expect(server, line + 2, "\r\n");
    if (strncmp(line, "B ", 2) == 0)
        return server_expect(server, line + 2, "");
    if (strncmp(line, "N ", 2) == 0)
        return server_swallow(server, (uint32_t)atoi(line + 2));
    if (strncmp(line, "wait ", 5) == 0) {
        if (server->waits_until == 0)
            server->waits_until = now_of(f) + TICK_S(atoi(line + 5));
        if (now_of(f) < server->waits_until)
            return false;
        server->waits_until = 0;
        return true;
    }
    if (strcmp(line, "fin") == 0)
        return server_expect_fin(server);
    if (strcmp(line, "rst") == 0)
        return server->is_reset;
    if (strcmp(line, "silent") == 0)
        return false;
    if (strcmp(line, "tls") == 0)
        assert_int_equal(ERR_OK, stream_start_tls_server(&server->stream, tls.server));
    else if (strcmp(line, "close") == 0 || strcmp(line, "reset") == 0) {
        if (line[0] == 'c')
            stream_close(&server->stream);
        else
            stream_abort(&server->stream);
        server->is_open = false;
    } else {
        server_send(server, line[0] == '<' ? line + 1 : line, line[0] != '<');
    }
    return true;
}

static bool server_run(struct fixture *f, struct server *server)
{
    bool has_moved = false;

    while (server->is_open && server->line < LINES_MAX &&
           server->script->lines[server->line] != NULL &&
           stream_get_state(&server->stream) != STREAM_HANDSHAKE &&
           server_step(f, server, server->script->lines[server->line])) {
        server->line++;
        has_moved = true;
    }
    return has_moved;
}

static void server_accept(struct fixture *f, uint32_t host)
{
    struct flow_address peer;
    struct flow flow;

    assert_true(f->server_count < SERVERS_MAX);
    struct server *server = &f->servers[f->server_count];
    if (flow_accept(f->world, f->listeners[host], f->server_count, &flow, &peer) != ERR_OK)
        return;
    server->script = &f->c->servers[f->server_count];
    if (server->script->host != host + 1)
        fail_msg("connection %u came to host %u", f->server_count, host + 1);
    stream_init(&server->stream, f->world, flow);
    server->is_open = true;
    f->server_count++;
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
    uint32_t events = stream_on_event(&server->stream, event);
    server->is_fin |= (events & FLOW_PEER_CLOSED) != 0;
    server->is_reset |= (events & FLOW_RESET) != 0;
}

/* ---- the world ---- */

/* One turn of both planes; false when nothing happened. */
static bool world_turn(struct fixture *f)
{
    struct flow_event events[16];
    tick_us now = now_of(f);
    bool has_moved = false;

    client_advance(f->client, now);
    if (f->may_start && f->started == f->finished && f->started < REQUESTS_MAX &&
        f->c->mails[f->started].body != NULL) {
        start_next(f);
        has_moved = true;
    }
    uint32_t count = flow_poll(f->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        client_on_flow(f->client, &events[i], now);
    flow_flush(f->plane, now);
    has_moved |= count > 0;
    count = flow_poll(f->world, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        world_on_event(f, &events[i]);
    for (uint32_t i = 0; i < f->server_count; i++)
        has_moved |= server_run(f, &f->servers[i]);
    flow_flush(f->world, now);
    return has_moved || count > 0;
}

static bool world_is_done(const struct fixture *f)
{
    return f->closed == f->opened_slots && f->finished == f->started &&
           (f->started == REQUESTS_MAX || f->c->mails[f->started].body == NULL);
}

static void world_run(struct fixture *f)
{
    for (uint32_t turns = 0; !world_is_done(f); turns++) {
        if (turns == TURNS_MAX)
            fail_msg("no end");
        if (world_turn(f) || world_is_done(f))
            continue;
        tick_us next = client_deadline(f->client);
        tick_us net = net_sim_deadline(f->sim);
        next = net < next ? net : next;
        for (uint32_t i = 0; i < f->server_count; i++) {
            if (f->servers[i].waits_until != 0 && f->servers[i].waits_until < next)
                next = f->servers[i].waits_until;
        }
        if (next == TICK_NEVER)
            fail_msg("nothing will ever happen again: started %u, finished %u, slots %u, closed %u",
                     f->started, f->finished, f->opened_slots, f->closed);
        net_sim_advance(f->sim, next > now_of(f) ? next : now_of(f) + 1);
    }
}

static void settings_make(struct fixture *f)
{
    f->settings = (struct settings){
        .client = {.connect_timeout = TICK_S(30),
                   .race_after = TICK_MS(250),
                   .greeting_timeout = TICK_S(300),
                   .command_timeout = TICK_S(300),
                   .data_init_timeout = TICK_S(120),
                   .data_block_timeout = TICK_S(180),
                   .data_end_timeout = TICK_S(600),
                   .idle_timeout = TICK_S(5),
                   .messages_per_connection_max =
                       f->c->messages_max != 0 ? f->c->messages_max : 100,
                   .recipients_per_transaction_max = 100,
                   .use_bdat = f->c->use_bdat,
                   .tls_may = tls.may},
        .serial = 1,
    };
    f->route = (struct settings_route){
        .pattern = "*",
        .tls = (enum settings_tls_level)f->c->tls,
        .tls_client = f->c->tls == SETTINGS_TLS_VERIFY    ? tls.verify
                      : f->c->tls == SETTINGS_TLS_ENCRYPT ? tls.may
                                                          : NULL,
        .auth = f->c->has_auth ? &auth : NULL,
    };
}

static void world_listen(struct fixture *f)
{
    uint32_t count = f->c->hosts == 0 ? 1 : f->c->hosts;

    f->hosts = (struct mx_answer){.verdict = MX_OK, .host_count = f->c->is_dual ? 1 : count};
    for (uint32_t i = 0; i < count; i++) {
        struct flow_address address = address_of(f->c, i + 1);
        struct mx_host *host = &f->hosts.hosts[f->c->is_dual ? 0 : i];
        snprintf(host->name, sizeof(host->name), "mx%u.y.example", i + 1);
        host->addresses[host->address_count++] = address;
        if ((f->c->dead_hosts & 1u << i) != 0) {
            struct flow_prefix prefix = {address, address.family == FLOW_FAMILY_IP6 ? 128 : 32};
            prefix.address.port = 0;
            net_sim_set_black_hole(f->sim, &prefix);
        } else if ((f->c->unheard & 1u << i) == 0) {
            assert_int_equal(ERR_OK,
                             flow_listen(f->world,
                                         &(struct flow_listen_options){.address = address,
                                                                       .backlog = 10,
                                                                       .user = LISTENER_TAG + i},
                                         &f->listeners[i]));
        }
    }
}

static void fixture_open(struct fixture *f, const struct client_case *c, uint64_t seed)
{
    *f = (struct fixture){.c = c, .may_start = true};
    struct net_sim_faults faults = net_sim_faults_none();
    if (c->latency != 0)
        faults.latency_min = faults.latency_max = c->latency;
    f->sim = net_sim_new(
        &(struct net_sim_options){.seed = seed, .start = TICK_S(1000), .faults = faults});
    f->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = 4096, .backing = BUF_BACKING_HEAP});
    struct net_sim_plane_options plane = {
        .pool = f->pool,
        .flow_count_max = 64,
        .orphan_time = TICK_S(10),
        .address4 = {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 1}},
        .address6 = {.family = FLOW_FAMILY_IP6, .ip = {0x20, 1, 0x0d, 0xb8, 1}}};
    f->plane = net_sim_plane_new(f->sim, &plane);
    plane.address4.ip[3] = 2;
    f->world = net_sim_plane_new(f->sim, &plane);
    rng_init_seed(&f->rng, seed);
    settings_make(f);
    world_listen(f);
    f->client = client_new(&(struct client_options){.plane = f->plane,
                                                    .rng = &f->rng,
                                                    .connection_count_max = 4,
                                                    .context = f,
                                                    .on_result = on_result,
                                                    .on_closed = on_closed,
                                                    .on_idle = on_idle,
                                                    .may_mail = may_mail,
                                                    .on_mail = on_mail,
                                                    .may_race = may_race,
                                                    .on_host = on_host},
                           &f->settings);
}

static void fixture_close(struct fixture *f)
{
    client_free(f->client);
    for (uint32_t i = 0; i < f->server_count; i++) {
        if (f->servers[i].is_open)
            stream_abort(&f->servers[i].stream);
    }
    flow_plane_free(f->plane);
    flow_plane_free(f->world);
    net_sim_free(f->sim);
    assert_int_equal(0, buf_pool_in_use(f->pool));
    buf_pool_free(f->pool);
}

/* Were all scripts played to their end? "silent" is one. */
static void check_scripts(const struct fixture *f)
{
    for (uint32_t i = 0; i < SERVERS_MAX; i++) {
        if (f->c->servers[i].host == 0)
            break;
        assert_true(i < f->server_count);
        const char *line =
            f->servers[i].line == LINES_MAX ? NULL : f->c->servers[i].lines[f->servers[i].line];
        if (line != NULL && strcmp(line, "silent") != 0)
            fail_msg("server %u stands at: %s", i, line);
    }
}

static void run_case(const struct client_case *c)
{
    for (uint64_t seed = 1; seed <= 3; seed++) {
        struct fixture f;

        print_message("# case: %s, seed %u\n", c->name, (uint32_t)seed);
        fixture_open(&f, c, seed);
        world_run(&f);
        for (uint32_t i = 0; i < 20; i++) /* let the servers read the last octets */
            if (!world_turn(&f) && net_sim_deadline(f.sim) < now_of(&f) + TICK_S(1))
                net_sim_advance(f.sim, net_sim_deadline(f.sim));
        check_scripts(&f);
        assert_true(c->ends_by == 0 || now_of(&f) < TICK_S(1000) + c->ends_by);
        struct client_stats stats = client_get_stats(f.client);
        assert_int_equal(0, stats.open);
        assert_int_equal(0, stats.idle);
        assert_int_equal(c->races, stats.races);
        assert_int_equal(c->races_won, stats.races_won);
        if (c->tls_version != NULL)
            assert_string_equal(c->tls_version, f.tls_version == NULL ? "" : f.tls_version);
        fixture_close(&f);
    }
}

static void run_cases(const struct client_case *cases, size_t count)
{
    for (size_t i = 0; i < count; i++)
        run_case(&cases[i]);
}

#define HELLO    "220 hi", "C EHLO us.example", "250-y\r\n250 PIPELINING"
#define PLAIN    "220 hi", "C EHLO us.example", "250 y"
#define MAIL     "C MAIL FROM:<a@x.example>"
#define RCPT(n)  "C RCPT TO:<r" #n "@y.example>"
#define FLIGHT   MAIL, RCPT(0), "C DATA"
#define TAKEN    "250 ok\r\n250 ok\r\n354 go"
#define ONE      FLIGHT, TAKEN, "B x\n.\n", "250 queued"
#define CHUNKING "220 hi", "C EHLO us.example", "250-y\r\n250-CHUNKING\r\n250 PIPELINING"
#define CHUNK    MAIL, RCPT(0), "250 ok\r\n250 ok", "C BDAT 3 LAST", "B x\n"
#define X                                                                                          \
    {                                                                                              \
        .body = "x\n"                                                                              \
    }

/* Servers that do as they should. */
static const struct client_case good_cases[] = {
    {.name = "one message, then QUIT",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "C QUIT", "221 bye", "close"}}}},
    {.name = "three messages, one connection",
     .mails = {X, X, X},
     .expected = {"ok 250", "ok 250", "ok 250"},
     .servers = {{1, {HELLO, ONE, ONE, ONE, "fin"}}}},
    {.name = "messages per connection",
     .messages_max = 2,
     .mails = {X, X, X},
     .expected = {"ok 250", "ok 250", "ok 250"},
     .servers = {{1, {HELLO, ONE, ONE, "fin"}}, {1, {HELLO, ONE, "fin"}}}},
    {.name = "QUIT is not answered",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "C QUIT", "rst"}}}},
    {.name = "lock-step",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1,
                  {PLAIN, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "354 go", "B x\n.\n",
                   "250 ok", "fin"}}}},
    {.name = "in-doubt mail goes alone",
     .mails = {{.body = "x\n", .is_alone = true}},
     .expected = {"ok 250"},
     .servers = {{1,
                  {HELLO, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "354 go", "B x\n.\n",
                   "250 ok", "fin"}}}},
    {.name = "dots are stuffed",
     .mails = {{.body = ".\n..\na.b\n.c\n", .flags = ENVELOPE_DOT_LINES}},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B ..\n...\na.b\n..c\n.\n", "250 ok", "fin"}}}},
    {.name = "dots are stuffed, however the body is cut",
     .mails = {{.body = ".\n..\na.b\n.c\n", .flags = ENVELOPE_DOT_LINES, .cut = 1}},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B ..\n...\na.b\n..c\n.\n", "250 ok", "fin"}}}},
    {.name = "a missing final CRLF is added",
     .mails = {{.body = "x\ny", .flags = ENVELOPE_NO_FINAL_CRLF}},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\ny\n.\n", "250 ok", "fin"}}}},
    {.name = "an empty body",
     .mails = {{.body = ""}},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B .\n", "250 ok", "fin"}}}},
    {.name = "BDAT: neither dots nor CRLF are touched",
     .use_bdat = true,
     .mails = {{.body = ".\nx", .flags = ENVELOPE_DOT_LINES | ENVELOPE_NO_FINAL_CRLF}},
     .expected = {"ok 250"},
     .servers = {{1,
                  {"220 hi", "C EHLO us.example", "250-y\r\n250-CHUNKING\r\n250 PIPELINING", MAIL,
                   RCPT(0), "250 ok\r\n250 ok", "C BDAT 4 LAST", "B .\nx", "250 ok", "fin"}}}},
    {.name = "a megabyte",
     .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 32767}},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "N 1048576", "B .\n", "250 ok", "fin"}}}},
    {.name = "some refused",
     .mails = {{.body = "x\n", .recipient_count = 3}},
     .expected = {"failed 550,ok 250,now 452"},
     .servers = {{1,
                  {HELLO, MAIL, RCPT(0), RCPT(1), RCPT(2), "C DATA",
                   "250 ok\r\n550 5.1.1 no\r\n250 ok\r\n452 4.5.3 enough\r\n354 go", "B x\n.\n",
                   "250 ok", "fin"}}}},
    {.name = "all refused, RSET, the next message",
     .mails = {X, X},
     .expected = {"failed 550", "ok 250"},
     .servers = {{1,
                  {HELLO, FLIGHT, "250 ok\r\n550 5.1.1 no\r\n554 none", "C RSET", "250 ok", ONE,
                   "fin"}}}},
    {.name = "all refused and 354: lone dot, close",
     .mails = {X},
     .expected = {"failed 550"},
     .servers = {{1,
                  {HELLO, FLIGHT, "250 ok\r\n550 5.1.1 no\r\n354 go", "B .\nQUIT\n",
                   "554 none\r\n221 bye", "close"}}}},
    {.name = "SMTPUTF8 is needed and not offered; the connection is kept",
     .mails = {{.body = "x\n", .flags = ENVELOPE_UTF8_NEEDED}, X},
     .expected = {"failed 550", "ok 250"},
     .servers = {{1, {HELLO, ONE, "fin"}}}},
    {.name = "the same on a kept connection: told later, never inside client_start()",
     .mails = {X, {.body = "x\n", .flags = ENVELOPE_UTF8_NEEDED}, X},
     .expected = {"ok 250", "failed 550", "ok 250"},
     .servers = {{1, {HELLO, ONE, ONE, "fin"}}}},
};

static void test_good_servers(void **state)
{
    (void)state;
    run_cases(good_cases, COUNT_OF(good_cases));
}

/* Hosts in order, and what makes the next one's turn. */
static const struct client_case host_cases[] = {
    {.name = "nobody listens at the first",
     .hosts = 2,
     .unheard = 1,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{2, {HELLO, ONE, "fin"}}}},
    {.name = "the first is a black hole",
     .hosts = 2,
     .dead_hosts = 1,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{2, {HELLO, ONE, "fin"}}}},
    {.name = "nobody listens anywhere",
     .hosts = 3,
     .unheard = 7,
     .mails = {X},
     .expected = {"due 0 unconnected"}},
    {.name = "the attempt's time ends at the first black hole",
     .hosts = 2,
     .dead_hosts = 1,
     .attempt_time = TICK_S(20),
     .mails = {X},
     .expected = {"due 0 unconnected"}},
    {.name = "greeting 421, then 554, then good",
     .hosts = 3,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {"421 busy", "close"}}, {2, {"554 no", "fin"}}, {3, {HELLO, ONE, "fin"}}}},
    {.name = "421 at MAIL",
     .hosts = 2,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, "421 closing", "close"}}, {2, {HELLO, ONE, "fin"}}}},
    {.name = "421 at RCPT: who was refused is not asked again",
     .hosts = 2,
     .mails = {{.body = "x\n", .recipient_count = 2}},
     .expected = {"failed 550,ok 250"},
     .servers = {{1,
                  {HELLO, MAIL, RCPT(0), RCPT(1), "C DATA", "250 ok\r\n550 5.1.1 no\r\n421 closing",
                   "close"}},
                 {2, {HELLO, MAIL, RCPT(1), "C DATA", TAKEN, "B x\n.\n", "250 ok", "fin"}}}},
    {.name = "all refused, then 421 to DATA: nobody is left to try another host for",
     .hosts = 2,
     .mails = {X},
     .expected = {"failed 550"},
     .servers = {{1, {HELLO, FLIGHT, "250 ok\r\n550 5.1.1 no\r\n421 closing", "close"}}}},
    {.name = "all refused, then closed: nobody is left to try another host for",
     .hosts = 2,
     .mails = {X},
     .expected = {"failed 550"},
     .servers = {{1, {HELLO, FLIGHT, "250 ok\r\n550 5.1.1 no", "close"}}}},
    {.name = "421 to the end of data",
     .hosts = 2,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "421 no", "close"}},
                 {2, {HELLO, ONE, "fin"}}}},
    {.name = "421 everywhere",
     .hosts = 2,
     .mails = {X},
     .expected = {"due 421"},
     .servers = {{1, {HELLO, FLIGHT, "421 a", "close"}}, {2, {HELLO, FLIGHT, "421 b", "close"}}}},
    {.name = "reset in each step",
     .hosts = 3,
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1, {"reset"}},
                 {2, {HELLO, FLIGHT, "reset"}},
                 {3, {HELLO, FLIGHT, TAKEN, "reset"}}}},
    {.name = "our address is unwelcome: other hosts are not asked",
     .hosts = 2,
     .mails = {X},
     .expected = {"due 550"},
     .servers = {{1,
                  {HELLO, FLIGHT, "550 5.7.1 your ip is listed\r\n503 x\r\n503 x", "C RSET",
                   "250 ok", "fin"}}}},
    {.name = "closed at EHLO: HELO on a new connection",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {"220 hi", "C EHLO us.example", "close"}},
                 {1,
                  {"220 hi", "C HELO us.example", "250 y", MAIL, "250 ok", RCPT(0), "250 ok",
                   "C DATA", "354 go", "B x\n.\n", "250 ok", "fin"}}}},
    {.name = "a kept connection is closed between messages",
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers = {{1, {HELLO, ONE, FLIGHT, "close"}}, {1, {HELLO, ONE, "fin"}}}},
    {.name = "a kept connection says 421 to the next MAIL",
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers = {{1, {HELLO, ONE, FLIGHT, "421 idle", "close"}}, {1, {HELLO, ONE, "fin"}}}},
    {.name = "a kept connection takes no more messages, as it says to MAIL",
     .hosts = 2,
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers =
         {{1, {HELLO, ONE, FLIGHT, "452 4.5.3 Too many messages sent\r\n503 x\r\n503 x", "rst"}},
          {1, {HELLO, ONE, "fin"}}}},
    {.name = "the same, to DATA",
     .hosts = 2,
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers = {{1,
                  {HELLO, ONE, FLIGHT,
                   "250 ok\r\n250 ok\r\n452 4.4.5 Maximum number of messages per session exceeded.",
                   "fin"}},
                 {1, {HELLO, ONE, "fin"}}}},
    {.name = "the same, to the end of BDAT",
     .use_bdat = true,
     .hosts = 2,
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers = {{1,
                  {CHUNKING, CHUNK, "250 ok", CHUNK,
                   "452 4.4.5 Maximum number of messages per session exceeded.", "fin"}},
                 {1, {CHUNKING, CHUNK, "250 ok", "fin"}}}},
    {.name = "a new connection that says so is like one that refuses",
     .hosts = 2,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, "452 4.5.3 Too many messages sent\r\n503 x\r\n503 x", "rst"}},
                 {2, {HELLO, ONE, "fin"}}}},
};

static void test_hosts(void **state)
{
    (void)state;
    run_cases(host_cases, COUNT_OF(host_cases));
}

/* Servers that lie, stall or vanish. */
static const struct client_case hostile_cases[] = {
    {.name = "a reply without text and lines for a queue file (CVE-2020-8794)",
     .mails = {X},
     .expected = {"failed 553"},
     .servers = {{1,
                  {PLAIN, MAIL, "250 ok", RCPT(0),
                   "<553-\r\n553\r\n\r\ndispatcher: x\r\nmda-exec: y", "rst"}}}},
    {.name = "code changes inside a reply: once more without PIPELINING, then later",
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1, {HELLO, FLIGHT, "250-a\r\n550 b", "rst"}},
                 {1, {HELLO, MAIL, "250-a\r\n550 b", "rst"}}}},
    {.name = "EHLO without end",
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1,
                  {"220 hi", "C EHLO us.example",
                   "250-a\r\n250-a\r\n250-a\r\n250-a\r\n250-a\r\n250-a\r\n250-a", "silent"}}}},
    {.name = "an extra reply shifts the flight: lock-step on a new connection",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, "250 ok\r\n250 extra\r\n250 ok\r\n354 go", "rst"}},
                 {1,
                  {HELLO, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "354 go", "B x\n.\n",
                   "250 ok", "fin"}}}},
    {.name = "250 before the dot",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, "250 ok\r\n250 ok\r\n354 go\r\n250 done", "rst"}},
                 {1,
                  {HELLO, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "354 go", "B x\n.\n",
                   "250 ok", "fin"}}}},
    {.name = "354 to MAIL, 250 to DATA: later",
     .mails = {X},
     .expected = {"due 250"},
     .servers = {{1, {HELLO, FLIGHT, "354 go", "rst"}},
                 {1, {HELLO, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "250 ok", "rst"}}}},
    {.name = "an unsolicited reply on a kept connection closes it quietly",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "wait 1", "421 idle too long", "C QUIT", "close"}}}},
    {.name = "lost after the dot: in doubt, no other host",
     .hosts = 2,
     .mails = {X},
     .expected = {"due 0 in doubt"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "reset"}}}},
    {.name = "closed after the dot: in doubt, and the refusal at RCPT is kept",
     .mails = {{.body = "x\n", .recipient_count = 2}},
     .expected = {"failed 550,due 0 in doubt"},
     .servers = {{1,
                  {HELLO, MAIL, RCPT(0), RCPT(1), "C DATA",
                   "250 ok\r\n550 5.1.1 no\r\n250 ok\r\n354 go", "B x\n.\n", "close"}}}},
    {.name = "lost after BDAT's octets: in doubt",
     .use_bdat = true,
     .mails = {X},
     .expected = {"due 0 in doubt"},
     .servers = {{1,
                  {"220 hi", "C EHLO us.example", "250-y\r\n250-CHUNKING\r\n250 PIPELINING", MAIL,
                   RCPT(0), "250 ok\r\n250 ok", "C BDAT 3 LAST", "B x\n", "reset"}}}},
    {.name = "lost in the middle of a large body: not in doubt",
     .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 49151}},
     .expected = {"due 0"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "N 100000", "close"}}}},
    {.name = "silent after connect",
     .ends_by = TICK_S(301),
     .mails = {X},
     .expected = {"due 0 unconnected"},
     .servers = {{1, {"silent"}}}},
    {.name = "one octet a minute does not move the deadline",
     .ends_by = TICK_S(301),
     .mails = {X},
     .expected = {"due 0 unconnected"},
     .servers = {{1,
                  {"<2", "wait 60", "<2", "wait 60", "<0", "wait 60", "< ", "wait 60", "<h",
                   "wait 59", "<i", "silent"}}}},
    {.name = "silent after DATA",
     .ends_by = TICK_S(121),
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1, {HELLO, FLIGHT, "250 ok\r\n250 ok", "wait 119", "silent"}}}},
    {.name = "silent after the dot, just in time",
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "wait 599", "250 ok", "fin"}}}},
    {.name = "silent after the dot, too late",
     .ends_by = TICK_S(601),
     .mails = {X},
     .expected = {"due 0 in doubt"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "wait 599", "silent"}}}},
    {.name = "a body that nobody reads",
     .ends_by = TICK_S(181),
     .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 49151}},
     .expected = {"due 0"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "silent"}}}},
    {.name = "421 at each step of each host",
     .hosts = 3,
     .mails = {X},
     .expected = {"due 421"},
     .servers = {{1, {"220 hi", "C EHLO us.example", "421 a", "close"}},
                 {2, {HELLO, FLIGHT, "250 ok\r\n421 b", "close"}},
                 {3, {HELLO, FLIGHT, "250 ok\r\n250 ok\r\n421 c", "close"}}}},
    {.name = "a refusal before the dot is believed, and the connection given up",
     .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 49151}},
     .expected = {"failed 552"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "N 1000", "552 5.3.4 too big", "silent"}}}},
    {.name = "a refusal in front of a FIN is seen",
     .mails = {X},
     .expected = {"failed 554"},
     .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "554 5.6.0 no", "close"}}}},
};

static void test_hostile_servers(void **state)
{
    (void)state;
    run_cases(hostile_cases, COUNT_OF(hostile_cases));
}

/* The two address families of a host. */
#define DUAL .hosts = 2, .is_dual = true, .messages_max = 1
static const struct client_case race_cases[] = {
    {.name = "both answer soon: no race",
     DUAL,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "fin"}}},
     .ends_by = TICK_S(1)},
    {.name = "one family is a black hole: the other takes over",
     DUAL,
     .dead_hosts = 1,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{2, {HELLO, ONE, "fin"}}},
     .races = 1,
     .races_won = 1,
     .ends_by = TICK_S(2)},
    {.name = "no second slot: one after the other",
     DUAL,
     .dead_hosts = 1,
     .has_no_more_slots = true,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{2, {HELLO, ONE, "fin"}}}},
    {.name = "the first is there first: the rival is let go",
     DUAL,
     .latency = TICK_MS(300),
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "fin"}}, {2, {"220 hi", "rst"}}},
     .races = 1},
    {.name = "the first is refused while the rival is on its way",
     DUAL,
     .latency = TICK_MS(300),
     .unheard = 1,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{2, {HELLO, ONE, "fin"}}},
     .races = 1},
    {.name = "the rival is refused: each address is tried once",
     DUAL,
     .dead_hosts = 1,
     .unheard = 2,
     .mails = {X},
     .expected = {"due 0 unconnected"},
     .races = 1,
     .ends_by = TICK_S(31)},
    {.name = "two black holes: no longer than the later of them",
     DUAL,
     .dead_hosts = 3,
     .mails = {X},
     .expected = {"due 0 unconnected"},
     .races = 1,
     .ends_by = TICK_S(31)},
    {.name = "two black holes, and the attempt's time is over",
     DUAL,
     .dead_hosts = 3,
     .attempt_time = TICK_S(10),
     .mails = {X},
     .expected = {"due 0 unconnected"},
     .races = 1,
     .ends_by = TICK_S(11)},
    {.name = "the winner says 421: nothing is left",
     DUAL,
     .dead_hosts = 1,
     .mails = {X},
     .expected = {"due 421 unconnected"},
     .servers = {{2, {"421 busy", "close"}}},
     .races = 1,
     .races_won = 1},
};

static void test_families_race(void **state)
{
    (void)state;
    run_cases(race_cases, COUNT_OF(race_cases));
}

#define HELLO_TLS "220 hi", "C EHLO us.example", "250-y\r\n250 STARTTLS", "C STARTTLS"
#define AFTER_TLS "tls", "C EHLO us.example", "250-y\r\n250 PIPELINING"

/* STARTTLS by the route's level. */
static const struct client_case tls_cases[] = {
    {.name = "may: encrypted where offered",
     .tls = SETTINGS_TLS_MAY,
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers = {{1, {HELLO_TLS, "220 go", AFTER_TLS, ONE, ONE, "fin"}}},
     .tls_version = "TLSv1.3"},
    {.name = "may: a megabyte under TLS",
     .tls = SETTINGS_TLS_MAY,
     .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 32767}},
     .expected = {"ok 250"},
     .servers = {{1,
                  {HELLO_TLS, "220 go", AFTER_TLS, FLIGHT, TAKEN, "N 1048576", "B .\n", "250 ok",
                   "fin"}}},
     .tls_version = "TLSv1.3"},
    {.name = "may: 454, then clear on a new connection, remembered",
     .tls = SETTINGS_TLS_MAY,
     .messages_max = 1,
     .mails = {X, X},
     .expected = {"ok 250", "ok 250"},
     .servers =
         {{1, {HELLO_TLS, "454 no", "fin"}},
          {1,
           {"220 hi", "C EHLO us.example", "250-y\r\n250-STARTTLS\r\n250 PIPELINING", ONE, "fin"}},
          {1,
           {"220 hi", "C EHLO us.example", "250-y\r\n250-STARTTLS\r\n250 PIPELINING", ONE, "fin"}}},
     .tls_version = ""},
    {.name = "may: the handshake fails, then clear on a new connection",
     .tls = SETTINGS_TLS_MAY,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO_TLS, "220 go", "N 5", "this is not TLS", "rst"}},
                 {1, {HELLO, ONE, "fin"}}}},
    {.name = "may: stripped from EHLO",
     .tls = SETTINGS_TLS_MAY,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, ONE, "fin"}}},
     .tls_version = ""},
    {.name = "encrypt: stripped from EHLO: next host, never clear",
     .tls = SETTINGS_TLS_ENCRYPT,
     .hosts = 2,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO, "fin"}}, {2, {HELLO_TLS, "220 go", AFTER_TLS, ONE, "fin"}}},
     .tls_version = "TLSv1.3"},
    {.name = "encrypt: 454",
     .tls = SETTINGS_TLS_ENCRYPT,
     .mails = {X},
     .expected = {"due 454"},
     .servers = {{1, {HELLO_TLS, "454 no", "fin"}}}},
    {.name = "encrypt: the handshake fails",
     .tls = SETTINGS_TLS_ENCRYPT,
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1, {HELLO_TLS, "220 go", "N 5", "this is not TLS", "rst"}}}},
    {.name = "verify: the certificate fits",
     .tls = SETTINGS_TLS_VERIFY,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO_TLS, "220 go", AFTER_TLS, ONE, "fin"}}},
     .tls_version = "TLSv1.3"},
    {.name = "verify: another name on the certificate",
     .tls = SETTINGS_TLS_VERIFY,
     .hosts = 2,
     .unheard = 1,
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{2, {HELLO_TLS, "220 go", "tls", "silent"}}}},
    {.name = "may: a line behind 220 is not read as TLS's, nor the mail sent in its light",
     .tls = SETTINGS_TLS_MAY,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1, {HELLO_TLS, "<220 go\r\n250-SMTPUTF8 INJECTED\r\n", "rst"}},
                 {1, {HELLO, ONE, "fin"}}}},
    {.name = "encrypt: a fragment behind 220",
     .tls = SETTINGS_TLS_ENCRYPT,
     .mails = {X},
     .expected = {"due 0"},
     .servers = {{1, {HELLO_TLS, "<220 go\r\n250-SMTP", "rst"}}}},
    {.name = "AUTH under TLS",
     .tls = SETTINGS_TLS_ENCRYPT,
     .has_auth = true,
     .mails = {X},
     .expected = {"ok 250"},
     .servers = {{1,
                  {HELLO_TLS, "220 go", "tls", "C EHLO us.example",
                   "250-y\r\n250-PIPELINING\r\n250 AUTH PLAIN",
                   "C AUTH PLAIN AGpvZQBzZWNyZXQ=", "235 ok", ONE, "fin"}}}},
    {.name = "AUTH: may with credentials never goes clear",
     .tls = SETTINGS_TLS_MAY,
     .has_auth = true,
     .mails = {X},
     .expected = {"due 454"},
     .servers = {{1, {HELLO_TLS, "454 no", "fin"}}}},
    {.name = "AUTH refused: later, no other host",
     .tls = SETTINGS_TLS_ENCRYPT,
     .has_auth = true,
     .hosts = 2,
     .mails = {X},
     .expected = {"due 535"},
     .servers = {{1,
                  {HELLO_TLS, "220 go", "tls", "C EHLO us.example", "250-y\r\n250 AUTH PLAIN",
                   "C AUTH PLAIN AGpvZQBzZWNyZXQ=", "535 5.7.8 no", "fin"}}}},
};

static void test_tls_levels(void **state)
{
    (void)state;
    run_cases(tls_cases, COUNT_OF(tls_cases));
}

/* Cancelling ends a request soon; after the end of data the reply still has a moment. */
static void test_cancel(void **state)
{
    static const struct client_case cases[] = {
        {.name = "before the greeting",
         .mails = {X},
         .expected = {"due 0 unconnected"},
         .servers = {{1, {"silent"}}}},
        {.name = "in the envelope",
         .mails = {X},
         .expected = {"due 0"},
         .servers = {{1, {HELLO, FLIGHT, "silent"}}}},
        {.name = "after the end of data, the reply comes",
         .mails = {X},
         .expected = {"ok 250"},
         .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "wait 10", "250 ok", "fin"}}}},
        {.name = "after the end of data, no reply",
         .mails = {X},
         .expected = {"due 0 in doubt"},
         .servers = {{1, {HELLO, FLIGHT, TAKEN, "B x\n.\n", "silent"}}}},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture f;

        print_message("# case: cancel %s\n", cases[i].name);
        fixture_open(&f, &cases[i], 1);
        for (uint32_t turns = 0; now_of(&f) < TICK_S(1005); turns++) {
            if (!world_turn(&f))
                net_sim_advance(f.sim, now_of(&f) + TICK_MS(50));
        }
        assert_int_equal(0, f.finished);
        client_cancel(f.client, 0, now_of(&f));
        assert_int_equal(0, f.finished);
        tick_us start = now_of(&f);
        world_run(&f);
        assert_true(now_of(&f) - start < TICK_S(20));
        /* MAIL that is on its way counts when the peer must have seen the reset that follows it. */
        assert_int_equal(i == 0 ? 0 : 1, f.mails_used);
        if (i == 1)
            assert_in_range(f.mail_told - f.finished_at, TICK_MS(500), TICK_MS(510));
        else if (i > 1)
            assert_true(f.mail_told < f.finished_at);
        check_scripts(&f);
        fixture_close(&f);
    }
}

/* A reply that comes before the cancellation is acted on does not give the attempt its time back.
 */
static void test_cancel_as_a_reply_comes(void **state)
{
    static const struct client_case c = {
        .name = "as a reply comes",
        .mails = {X},
        .expected = {"due 0"},
        .servers = {
            {1, {"220 hi", "C EHLO us.example", "wait 6", "250-y\r\n250 PIPELINING", "silent"}}}};
    struct flow_event events[16];
    struct fixture f;

    (void)state;
    fixture_open(&f, &c, 1);
    while (now_of(&f) < TICK_S(1006)) {
        if (!world_turn(&f))
            net_sim_advance(f.sim, now_of(&f) + TICK_MS(50));
    }
    net_sim_advance(f.sim, now_of(&f) + TICK_S(1));
    (void)world_turn(&f); /* the server speaks */
    client_cancel(f.client, 0, now_of(&f));
    for (uint32_t i = 0; i < 20; i++) { /* what came is looked at first, as a shard does */
        uint32_t count = flow_poll(f.plane, now_of(&f), events, COUNT_OF(events));
        for (uint32_t j = 0; j < count; j++)
            client_on_flow(f.client, &events[j], now_of(&f));
        net_sim_advance(f.sim, now_of(&f) + TICK_MS(50));
    }
    assert_int_equal(0, f.finished);
    tick_us start = now_of(&f);
    world_run(&f);
    assert_true(now_of(&f) - start < TICK_S(20));
    check_scripts(&f);
    fixture_close(&f);
}

/* The world goes on while the client looks at nothing; then it hears of all of it at once, as it
 * does of a turn. */
static void client_is_kept_from(struct fixture *f, tick_us time)
{
    struct flow_event events[16], merged = {0};

    for (tick_us end = now_of(f) + time; now_of(f) < end;) {
        net_sim_advance(f->sim, now_of(f) + TICK_MS(1));
        uint32_t count = flow_poll(f->world, now_of(f), events, COUNT_OF(events));
        for (uint32_t i = 0; i < count; i++)
            world_on_event(f, &events[i]);
        for (uint32_t i = 0; i < f->server_count; i++)
            (void)server_run(f, &f->servers[i]);
        flow_flush(f->world, now_of(f));
        count = flow_poll(f->plane, now_of(f), events, COUNT_OF(events));
        for (uint32_t i = 0; i < count; i++) {
            events[i].events |= merged.events;
            merged = events[i];
        }
        flow_flush(f->plane, now_of(f));
    }
    client_on_flow(f->client, &merged, now_of(f));
}

/* Goal: a reply that is here before the end of the body leaves is not one to that end, though the
 * room for all the rest came with it. */
static void test_reply_before_the_end(void **state)
{
    static const struct client_case c = {
        .name = "a reply before the end",
        .mails = {{.body = "0123456789abcdef0123456789abcd\n", .body_repeat = 20999}},
        .expected = {"due 250"},
        .servers = {{1,
                     {PLAIN, MAIL, "250 ok", RCPT(0), "250 ok", "C DATA", "354 go", "wait 10",
                      "N 200000", "250 2.0.0 taken", "silent"}}}};
    struct fixture f;

    (void)state;
    fixture_open(&f, &c, 1);
    while (now_of(&f) < TICK_S(1005)) {
        if (!world_turn(&f))
            net_sim_advance(f.sim, now_of(&f) + TICK_MS(50));
    }
    client_is_kept_from(&f, TICK_S(10));
    world_run(&f);
    check_scripts(&f);
    fixture_close(&f);
}

/* What is kept is so for its time, though a timer of when it was kept before rings meanwhile. */
static void test_idle_time(void **state)
{
    static const struct client_case c = {
        .name = "kept twice",
        .mails = {X, X},
        .expected = {"ok 250", "ok 250"},
        .servers = {
            {1,
             {HELLO, ONE, FLIGHT, TAKEN, "B x\n.\n", "wait 2", "250 queued", "C QUIT", "close"}}}};
    struct fixture f;

    (void)state;
    fixture_open(&f, &c, 1);
    tick_us kept = 0, now;
    for (bool was_kept = false, is_kept = false;; was_kept = is_kept) {
        now = now_of(&f);
        is_kept = client_get_stats(f.client).idle == 1;
        if (f.finished == 2 && was_kept && !is_kept)
            break;
        kept = is_kept && !was_kept ? now : kept;
        if (!world_turn(&f))
            net_sim_advance(f.sim, now + TICK_MS(1));
    }
    assert_in_range(now - kept, TICK_S(5), TICK_S(5) + TICK_MS(20));
    world_run(&f);
    check_scripts(&f);
    fixture_close(&f);
}

/* New settings and a request for room close what is kept. */
static void test_kept_connections_are_closed(void **state)
{
    static const struct client_case c = {.name = "kept",
                                         .mails = {X},
                                         .expected = {"ok 250"},
                                         .servers = {{1, {HELLO, ONE, "C QUIT", "close"}}}};

    (void)state;
    for (uint32_t how = 0; how < 3; how++) {
        struct fixture f;
        struct settings other;

        fixture_open(&f, &c, 1);
        while (client_get_stats(f.client).idle == 0) {
            if (!world_turn(&f))
                net_sim_advance(f.sim, net_sim_deadline(f.sim));
        }
        assert_false(client_uses_settings(f.client, 1));
        tick_us start = now_of(&f);
        client_close_idle(f.client, SITE + 1, start);
        assert_int_equal(1, client_get_stats(f.client).idle);
        other = f.settings;
        other.serial = 2;
        if (how == 0)
            client_close_idle(f.client, SITE, start);
        else if (how == 1)
            client_close_idle(f.client, 0, start);
        else
            client_set_settings(f.client, &other);
        assert_int_equal(0, client_get_stats(f.client).idle);
        world_run(&f);
        assert_true(now_of(&f) - start < TICK_S(1));
        check_scripts(&f);
        fixture_close(&f);
    }
}

static void found_site_is_closed(struct fixture *f)
{
    client_close_idle(f->client, SITE, now_of(f));
    f->opened_slots++;
}

static void found_all_are_closed(struct fixture *f)
{
    client_close_idle(f->client, 0, now_of(f));
    f->opened_slots++;
}

static void found_is_of_old_settings(struct fixture *f)
{
    f->other = f->settings;
    f->other.serial = 2;
    client_set_settings(f->client, &f->other);
    f->opened_slots++;
}

static void found_is_another_sites(struct fixture *f)
{
    client_close_idle(f->client, SITE + 1, now_of(f));
}

/* What client_has_idle() found is taken by client_start() without another look: not when it was
 * closed between the two, as a suspension or a reload does. */
static void test_found_connection_is_forgotten(void **state)
{
    static const struct client_case another = {
        .name = "found and closed",
        .mails = {X, X},
        .expected = {"ok 250", "ok 250"},
        .servers = {{1, {HELLO, ONE, "C QUIT", "close"}}, {1, {HELLO, ONE, "C QUIT", "close"}}}};
    static const struct client_case same = {.name = "found and taken",
                                            .mails = {X, X},
                                            .expected = {"ok 250", "ok 250"},
                                            .servers = {{1, {HELLO, ONE, ONE, "C QUIT", "close"}}}};
    static const struct {
        const struct client_case *c;
        void (*on_found)(struct fixture *f);
    } rows[] = {{&another, found_site_is_closed},
                {&another, found_all_are_closed},
                {&another, found_is_of_old_settings},
                {&same, found_is_another_sites}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        print_message("# row %u: %s\n", i, rows[i].c->name);
        fixture_open(&f, rows[i].c, 1);
        f.on_found = rows[i].on_found;
        world_run(&f);
        check_scripts(&f);
        fixture_close(&f);
    }
}

/* A request keeps to the settings it began under; its connection is not kept under new ones. */
static void test_new_settings_in_the_middle(void **state)
{
    static const struct client_case c = {
        .name = "reload",
        .mails = {X},
        .expected = {"ok 250"},
        .servers = {{1, {"wait 5", HELLO, ONE, "C QUIT", "221 bye", "close"}}}};
    struct fixture f;
    struct settings other;

    (void)state;
    fixture_open(&f, &c, 1);
    while (now_of(&f) < TICK_S(1002)) {
        if (!world_turn(&f))
            net_sim_advance(f.sim, now_of(&f) + TICK_MS(50));
    }
    other = f.settings;
    other.serial = 2;
    client_set_settings(f.client, &other);
    assert_true(client_uses_settings(f.client, 1));
    world_run(&f);
    assert_false(client_uses_settings(f.client, 1));
    assert_true(now_of(&f) < TICK_S(1007)); /* no idle time */
    check_scripts(&f);
    fixture_close(&f);
}

/* Another site, identity or level never gets a kept connection. */
static void test_key_of_kept_connections(void **state)
{
    static const struct client_case c = {
        .name = "key", .mails = {X}, .expected = {"ok 250"}, .servers = {{1, {HELLO, ONE, "fin"}}}};
    struct fixture f;
    struct settings_route routes[4];

    (void)state;
    fixture_open(&f, &c, 1);
    while (client_get_stats(f.client).idle == 0) {
        if (!world_turn(&f))
            net_sim_advance(f.sim, net_sim_deadline(f.sim));
    }
    static const uint32_t index = 0;
    struct client_request request = {.route = &f.route,
                                     .source = &us,
                                     .site = SITE,
                                     .hosts = &f.hosts,
                                     .envelope = &f.envelope,
                                     .recipients = &index,
                                     .recipient_count = 1,
                                     .body = &f.body};
    assert_true(client_has_idle(f.client, &request));
    for (uint32_t i = 0; i < 4; i++)
        routes[i] = f.route;
    routes[0].tls = SETTINGS_TLS_MAY;
    routes[1].tls_name = "other.example";
    routes[2].auth = &auth;
    routes[3].tls_client = tls.verify;
    for (uint32_t i = 0; i < 4; i++) {
        request.route = &routes[i];
        assert_false(client_has_idle(f.client, &request));
    }
    request.route = &f.route;
    struct settings_source other = {.name = "other", .hello_name = "us.example"};
    request.source = &other;
    assert_false(client_has_idle(f.client, &request));
    request.source = &us;
    request.site = SITE + 256;
    assert_false(client_has_idle(f.client, &request));
    request.site = SITE;
    f.hosts.hosts[0].addresses[0].port = 26;
    assert_false(client_has_idle(f.client, &request));
    f.hosts.hosts[0].addresses[0].port = 25;
    f.hosts.hosts[0].name[0] = 'z';
    assert_false(client_has_idle(f.client, &request));
    world_run(&f);
    fixture_close(&f);
}

/* At the limit the caller keeps its slot. */
static void test_connection_limit(void **state)
{
    static const struct client_case c = {.name = "limit", .mails = {X}};
    struct fixture f;
    static const uint32_t index = 0;

    (void)state;
    fixture_open(&f, &c, 1);
    buf_queue_init(&f.body);
    f.recipients[0].address = SPAN_LITERAL("r0@y.example");
    f.envelope.recipients = f.recipients;
    struct client_request request = {.route = &f.route,
                                     .source = &us,
                                     .site = SITE,
                                     .hosts = &f.hosts,
                                     .envelope = &f.envelope,
                                     .recipients = &index,
                                     .recipient_count = 1,
                                     .body = &f.body,
                                     .deadline = TICK_S(5000)};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(ERR_OK, client_start(f.client, &request, now_of(&f)));
    assert_int_equal(ERR_LIMIT, client_start(f.client, &request, now_of(&f)));
    assert_true(client_uses_settings(f.client, 1));
    assert_false(client_uses_settings(f.client, 2));
    fixture_close(&f);
}

static int group_setup(void **state)
{
    char why[256];

    (void)state;
    snprintf(tls.folder, sizeof(tls.folder), "/tmp/test_client.XXXXXX");
    assert_non_null(mkdtemp(tls.folder));
    assert_int_equal(
        ERR_OK, tls_self_signed_ensure(tls.folder, "mx1.y.example", tls.certificate, tls.key, why));
    assert_int_equal(ERR_OK,
                     tls_server_context_new(tls.certificate, tls.key, "test", &tls.server, why));
    assert_int_equal(ERR_OK, tls_client_context_new(false, NULL, &tls.may, why));
    assert_int_equal(ERR_OK, tls_client_context_new(true, tls.certificate, &tls.verify, why));
    return 0;
}

static int group_teardown(void **state)
{
    (void)state;
    tls_context_free(tls.server);
    tls_context_free(tls.may);
    tls_context_free(tls.verify);
    unlink(tls.certificate);
    unlink(tls.key);
    return rmdir(tls.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_servers),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_hostile_servers),
        cmocka_unit_test(test_families_race),
        cmocka_unit_test(test_tls_levels),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_cancel_as_a_reply_comes),
        cmocka_unit_test(test_reply_before_the_end),
        cmocka_unit_test(test_idle_time),
        cmocka_unit_test(test_kept_connections_are_closed),
        cmocka_unit_test(test_found_connection_is_forgotten),
        cmocka_unit_test(test_new_settings_in_the_middle),
        cmocka_unit_test(test_key_of_kept_connections),
        cmocka_unit_test(test_connection_limit),
    };
    return cmocka_run_group_tests_name("client", tests, group_setup, group_teardown);
}
