/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams in the clear and under TLS, over kernel sockets on loopback: both ends are driven by this
 * test, and where one of them must misbehave it writes into its flow behind the stream's back.
 *
 * The whole test runs under an openssl.cnf that forbids everything below TLS 1.3: what the relay
 * does must not depend on it.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/ssl.h>

#include "base/rng.h"
#include "relay/tls_self_signed.h"
#include "relay/tlsio.h"

#define TURNS_MAX 20000u
#define NAME      "mx.example.org"

enum { LISTENER, CLIENT, SERVER };

struct fixture {
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct flow listener;
    struct stream client, server;
    uint32_t client_events, server_events; /* of the last turn */
    bool is_accepted, is_connected;
};

/* Made once for all tests. */
static struct {
    char folder[64], certificate[TLS_SELF_SIGNED_PATH_MAX], key[TLS_SELF_SIGNED_PATH_MAX];
    char other_certificate[TLS_SELF_SIGNED_PATH_MAX], other_key[TLS_SELF_SIGNED_PATH_MAX];
    struct ssl_ctx_st *server, *may, *verify, *verify_other;
} tls;

static tick_us now(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

/* One turn: events go into the streams, what is appended goes out. */
static void turn(struct fixture *f)
{
    struct flow_event events[16];

    f->client_events = 0;
    f->server_events = 0;
    flow_flush(f->plane, now());
    flow_wait(f->plane, now(), now() + TICK_MS(1));
    uint32_t count = flow_poll(f->plane, now(), events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++) {
        struct flow flow;
        struct flow_address peer;

        switch (events[i].user) {
        case LISTENER:
            if (!f->is_accepted &&
                flow_accept(f->plane, f->listener, SERVER, &flow, &peer) == ERR_OK) {
                stream_init(&f->server, f->plane, flow);
                f->is_accepted = true;
            }
            break;
        case CLIENT:
            f->is_connected |= (events[i].events & FLOW_CONNECTED) != 0;
            f->client_events = stream_on_event(&f->client, &events[i]);
            break;
        default:
            f->server_events = stream_on_event(&f->server, &events[i]);
            break;
        }
    }
    flow_flush(f->plane, now());
}

#define TURN_UNTIL(f, condition)                                                                   \
    do {                                                                                           \
        for (uint32_t turns_ = 0; !(condition); turns_++) {                                        \
            if (turns_ == TURNS_MAX)                                                               \
                fail_msg("never: %s", #condition);                                                 \
            turn(f);                                                                               \
        }                                                                                          \
    } while (0)

static void fixture_open(struct fixture *f, uint32_t buffers)
{
    struct flow_listen_options listen = {
        .address = {.family = FLOW_FAMILY_IP4, .ip = {127, 0, 0, 1}},
        .backlog = 4,
        .receive_limit = 65536,
        .send_limit = 65536,
        .user = LISTENER};
    struct flow_connect_options connect = {
        .deadline = now() + TICK_S(5), .receive_limit = 65536, .send_limit = 65536, .user = CLIENT};
    struct flow_host_options host = {.flow_count_max = 8, .orphan_time = TICK_MS(100)};
    struct flow_address peer;
    struct flow flow;

    *f = (struct fixture){0};
    f->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = buffers, .backing = BUF_BACKING_HEAP});
    host.pool = f->pool;
    assert_int_equal(ERR_OK, flow_host_new(&host, &f->plane));
    assert_int_equal(ERR_OK, flow_listen(f->plane, &listen, &f->listener));
    assert_int_equal(ERR_OK, flow_addresses(f->plane, f->listener, &connect.remote, &peer));
    assert_int_equal(ERR_OK, flow_connect(f->plane, &connect, &flow));
    stream_init(&f->client, f->plane, flow);
    TURN_UNTIL(f, f->is_accepted && f->is_connected);
}

static void fixture_close(struct fixture *f)
{
    stream_abort(&f->client);
    stream_abort(&f->server);
    flow_abort(f->plane, f->listener);
    flow_plane_free(f->plane);
    assert_int_equal(0, buf_pool_in_use(f->pool));
    buf_pool_free(f->pool);
}

static void start_tls(struct fixture *f, struct ssl_ctx_st *server, struct ssl_ctx_st *client,
                      const char *name, bool verify)
{
    assert_int_equal(ERR_OK, stream_start_tls_server(&f->server, server));
    assert_int_equal(ERR_OK, stream_start_tls_client(&f->client, client, name, verify));
    assert_int_equal(STREAM_HANDSHAKE, stream_get_state(&f->client));
    assert_null(stream_tls_version(&f->client));
    TURN_UNTIL(f, stream_get_state(&f->client) != STREAM_HANDSHAKE &&
                      stream_get_state(&f->server) != STREAM_HANDSHAKE);
}

static void open_tls(struct fixture *f)
{
    fixture_open(f, 1000);
    start_tls(f, tls.server, tls.may, NULL, false);
    assert_int_equal(STREAM_OPEN, stream_get_state(&f->client));
    assert_int_equal(STREAM_OPEN, stream_get_state(&f->server));
}

/* Write into the client's flow, past its stream. */
static void inject(struct fixture *f, const char *text)
{
    struct buf_queue octets;

    buf_queue_init(&octets);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&octets, f->pool, span_from_text(text)));
    flow_append(f->plane, f->client.flow, &octets);
    buf_queue_fini(&octets);
}

static void assert_reads(struct stream *stream, const char *text)
{
    assert_int_equal(strlen(text), stream_readable(stream));
    assert_true(span_is_equal(span_from_text(text), stream_pull(stream, 4096)));
    stream_consume(stream, (uint32_t)strlen(text));
}

/* ---- handshakes ---- */

static void test_handshake(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_string_equal("TLSv1.3", stream_tls_version(&f.server));
    assert_string_equal("TLS_AES_128_GCM_SHA256", stream_tls_cipher(&f.client));
    assert_null(stream_tls_reason(&f.client));

    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("EHLO a\r\n")));
    TURN_UNTIL(&f, f.server_events & FLOW_READABLE);
    assert_reads(&f.server, "EHLO a\r\n");
    assert_int_equal(ERR_OK, stream_write(&f.server, SPAN_LITERAL("250 b\r\n")));
    TURN_UNTIL(&f, f.client_events & FLOW_READABLE);
    assert_reads(&f.client, "250 b\r\n");
    fixture_close(&f);
}

static void test_verification(void **state)
{
    struct {
        const char *name;
        struct ssl_ctx_st *context;
        const char *expected_name;
        bool verify;
        enum err err;
    } cases[] = {
        {"right name", tls.verify, NAME, true, ERR_OK},
        {"right name, other case", tls.verify, "MX.Example.ORG", true, ERR_OK},
        {"wrong name", tls.verify, "mx.example.net", true, ERR_PEER_CERTIFICATE},
        {"name is a suffix only", tls.verify, "example.org", true, ERR_PEER_CERTIFICATE},
        {"address instead of name", tls.verify, "127.0.0.1", true, ERR_PEER_CERTIFICATE},
        {"unknown CA", tls.verify_other, NAME, true, ERR_PEER_CERTIFICATE},
        {"unknown CA, not asked", tls.verify_other, NAME, false, ERR_OK},
        {"opportunistic, any name", tls.may, "mx.example.net", false, ERR_OK},
        {"opportunistic context, but verify", tls.may, NAME, true, ERR_PEER_CERTIFICATE},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture f;

        print_message("# case: %s\n", cases[i].name);
        fixture_open(&f, 1000);
        start_tls(&f, tls.server, cases[i].context, cases[i].expected_name, cases[i].verify);
        if (cases[i].err == ERR_OK) {
            assert_int_equal(STREAM_OPEN, stream_get_state(&f.client));
        } else {
            assert_int_equal(STREAM_FAILED, stream_get_state(&f.client));
            assert_int_equal(cases[i].err, stream_error(&f.client));
            assert_non_null(stream_tls_reason(&f.client));
            assert_int_equal(0, stream_readable(&f.client));
            TURN_UNTIL(&f, stream_get_state(&f.server) == STREAM_FAILED); /* by our alert */
            assert_int_equal(ERR_PEER_TLS, stream_error(&f.server));
        }
        fixture_close(&f);
    }
}

/* Goal: opportunistic TLS takes what old servers have, whatever openssl.cnf says; our servers and
 * verified routes do not stoop to it. */
static void test_versions(void **state)
{
    struct {
        const char *name;
        int server_min, server_max, client_max;
        bool verify;
        const char *version; /* NULL: no handshake */
    } cases[] = {
        {"may, TLS 1.0 server", TLS1_VERSION, TLS1_VERSION, 0, false, "TLSv1"},
        {"may, TLS 1.1 server", TLS1_1_VERSION, TLS1_1_VERSION, 0, false, "TLSv1.1"},
        {"may, TLS 1.2 server", TLS1_2_VERSION, TLS1_2_VERSION, 0, false, "TLSv1.2"},
        {"verify, TLS 1.2 server", TLS1_2_VERSION, TLS1_2_VERSION, 0, true, "TLSv1.2"},
        {"verify, TLS 1.1 server", TLS1_1_VERSION, TLS1_1_VERSION, 0, true, NULL},
        {"our server, TLS 1.2 client", 0, 0, TLS1_2_VERSION, false, "TLSv1.2"},
        {"our server, TLS 1.1 client", 0, 0, TLS1_1_VERSION, false, NULL},
        {"our server, TLS 1.0 client", 0, 0, TLS1_VERSION, false, NULL},
    };

    (void)state;
    SSL_CTX *ordinary = SSL_CTX_new(TLS_client_method());
    assert_int_equal(TLS1_3_VERSION, SSL_CTX_get_min_proto_version(ordinary)); /* the file works */
    SSL_CTX_free(ordinary);
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ssl_ctx_st *server = NULL, *client = NULL;
        char why[256];
        struct fixture f;

        print_message("# case: %s\n", cases[i].name);
        assert_int_equal(ERR_OK,
                         tls_server_context_new(tls.certificate, tls.key, "a", &server, why));
        assert_int_equal(ERR_OK, tls_client_context_new(cases[i].verify,
                                                        cases[i].verify ? tls.certificate : NULL,
                                                        &client, why));
        if (cases[i].server_min != 0) { /* an old machine */
            SSL_CTX_set_min_proto_version(server, cases[i].server_min);
            SSL_CTX_set_max_proto_version(server, cases[i].server_max);
            SSL_CTX_set_cipher_list(server, "ALL:@SECLEVEL=0");
            SSL_CTX_set1_sigalgs_list(server, "ECDSA+SHA1:ECDSA+SHA256");
        }
        if (cases[i].client_max != 0)
            SSL_CTX_set_max_proto_version(client, cases[i].client_max);
        fixture_open(&f, 1000);
        start_tls(&f, server, client, NAME, cases[i].verify);
        if (cases[i].version != NULL) {
            assert_int_equal(STREAM_OPEN, stream_get_state(&f.client));
            assert_string_equal(cases[i].version, stream_tls_version(&f.client));
        } else {
            TURN_UNTIL(&f, stream_get_state(&f.client) == STREAM_FAILED);
            assert_int_equal(ERR_PEER_TLS, stream_error(&f.client));
        }
        fixture_close(&f);
        tls_context_free(server);
        tls_context_free(client);
    }
}

static void test_contexts_refuse_bad_files(void **state)
{
    struct ssl_ctx_st *context = NULL;
    char why[256];

    (void)state;
    assert_int_equal(ERR_CONFIG_VALUE,
                     tls_server_context_new("/nonexistent", tls.key, "a", &context, why));
    assert_non_null(strstr(why, "/nonexistent"));
    assert_int_equal(ERR_CONFIG_VALUE,
                     tls_server_context_new(tls.certificate, tls.other_key, "a", &context, why));
    assert_non_null(strstr(why, tls.other_key));
    assert_int_equal(ERR_CONFIG_VALUE, tls_client_context_new(true, "/nonexistent", &context, why));
    assert_int_equal(ERR_CONFIG_VALUE, tls_client_context_new(true, tls.key, &context, why));
    assert_null(context);
    assert_int_equal(ERR_OK, tls_client_context_new(true, "system", &context, why));
    tls_context_free(context);
}

/* ---- tickets ---- */

/* Shake hands over a pair of BIOs; returns whether `session` was resumed. */
static bool is_resumed(SSL_CTX *server_context, SSL_CTX *client_context, SSL_SESSION *session,
                       SSL_SESSION **ret_session)
{
    SSL *server = SSL_new(server_context), *client = SSL_new(client_context);
    BIO *server_end, *client_end;
    char octet;

    assert_int_equal(1, BIO_new_bio_pair(&server_end, 65536, &client_end, 65536));
    SSL_set_bio(server, server_end, server_end);
    SSL_set_bio(client, client_end, client_end);
    if (session != NULL)
        SSL_set_session(client, session);
    for (uint32_t i = 0; i < 10; i++) {
        SSL_connect(client);
        SSL_accept(server);
    }
    assert_true(SSL_is_init_finished(client) && SSL_is_init_finished(server));
    assert_true(SSL_read(client, &octet, 1) < 0); /* takes the tickets in */
    bool was_resumed = SSL_session_reused(client) == 1;
    assert_int_equal(was_resumed, SSL_session_reused(server));
    if (ret_session != NULL) {
        *ret_session = SSL_get1_session(client);
        assert_true(SSL_SESSION_is_resumable(*ret_session));
        /* No early data: it could be replayed. */
        assert_int_equal(0, SSL_SESSION_get_max_early_data(*ret_session));
    }
    SSL_shutdown(client);
    SSL_free(client);
    SSL_free(server);
    return was_resumed;
}

/* Goal: a ticket of listener A is good at A and not at B, also if both had the same ticket keys. */
static void test_tickets_are_bound_to_their_listener(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};
    unsigned char keys[80];
    char why[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(versions); i++) {
        struct ssl_ctx_st *a = NULL, *b = NULL, *client = NULL;
        SSL_SESSION *session = NULL;

        assert_int_equal(ERR_OK, tls_server_context_new(tls.certificate, tls.key, "a", &a, why));
        assert_int_equal(ERR_OK, tls_server_context_new(tls.certificate, tls.key, "b", &b, why));
        assert_int_equal(ERR_OK, tls_client_context_new(false, NULL, &client, why));
        SSL_CTX_set_max_proto_version(client, versions[i]);
        assert_false(is_resumed(a, client, NULL, &session));
        assert_true(is_resumed(a, client, session, NULL));
        assert_false(is_resumed(b, client, session, NULL));
        assert_int_equal(1, SSL_CTX_get_tlsext_ticket_keys(a, keys, sizeof(keys)));
        assert_int_equal(1, SSL_CTX_set_tlsext_ticket_keys(b, keys, sizeof(keys)));
        assert_false(is_resumed(b, client, session, NULL));
        SSL_SESSION_free(session);
        tls_context_free(a);
        tls_context_free(b);
        tls_context_free(client);
    }
}

/* ---- injection, and the end ---- */

/* CVE-2011-0411 and its kin: octets behind STARTTLS, or behind its 220, in the clear. */
static void test_clear_octets_before_the_handshake(void **state)
{
    static const char *const injected[] = {"NOOP\r\n", "x",
                                           "EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT"};
    struct fixture f;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(injected); i++) {
        fixture_open(&f, 1000);
        inject(&f, injected[i]);
        TURN_UNTIL(&f, stream_readable(&f.server) > 0);
        assert_int_equal(ERR_PEER_SYNTAX, stream_start_tls_server(&f.server, tls.server));
        assert_int_equal(ERR_PEER_SYNTAX, stream_start_tls_client(&f.server, tls.may, NULL, false));
        assert_int_equal(ERR_PEER_SYNTAX, stream_resume_tls_client(&f.server, tls.may, NULL));
        assert_null(f.server.tls);
        fixture_close(&f);

        /* They come too late to be seen: then they are no handshake. */
        fixture_open(&f, 1000);
        assert_int_equal(ERR_OK, stream_start_tls_server(&f.server, tls.server));
        inject(&f, injected[i]);
        flow_shutdown(f.plane, f.client.flow);
        TURN_UNTIL(&f, stream_get_state(&f.server) == STREAM_FAILED);
        assert_int_equal(0, stream_readable(&f.server));
        assert_int_equal(0, flow_readable(f.plane, f.server.flow));
        fixture_close(&f);
    }
}

/* Goal: the end of TLS is the end of the connection: what follows close_notify in the clear is
 * never seen, what came before it is. */
static void test_clear_octets_after_close_notify(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("BDAT 100\r\nhalf")));
    assert_true(tlsio_finish(f.client.tls));
    inject(&f, "RSET\r\nMAIL FROM:<evil@example.net>\r\n");
    TURN_UNTIL(&f, stream_get_state(&f.server) == STREAM_PEER_CLOSED);
    inject(&f, "more");
    for (uint32_t i = 0; i < 20; i++)
        turn(&f);
    assert_int_equal(STREAM_PEER_CLOSED, stream_get_state(&f.server));
    assert_reads(&f.server, "BDAT 100\r\nhalf");
    assert_int_equal(0, stream_readable(&f.server));

    /* Our own last words still go out encrypted. */
    assert_int_equal(ERR_OK, stream_write(&f.server, SPAN_LITERAL("221 bye\r\n")));
    fixture_close(&f);
}

/* Goal: a FIN without close_notify fails the stream; what was whole before it stays readable. */
static void test_fin_without_close_notify(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("DATA\r\n")));
    flow_shutdown(f.plane, f.client.flow);
    TURN_UNTIL(&f, stream_get_state(&f.server) != STREAM_OPEN);
    assert_int_equal(STREAM_FAILED, stream_get_state(&f.server));
    assert_int_equal(ERR_PEER_CLOSED, stream_error(&f.server));
    assert_reads(&f.server, "DATA\r\n");
    fixture_close(&f);
}

static void test_reset(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    stream_abort(&f.client);
    TURN_UNTIL(&f, stream_get_state(&f.server) != STREAM_OPEN);
    assert_int_equal(STREAM_FAILED, stream_get_state(&f.server));
    assert_int_equal(ERR_PEER_RESET, stream_error(&f.server));
    assert_int_equal(ERR_OK, stream_write(&f.server, SPAN_LITERAL("into the void")));
    fixture_close(&f);
}

static void test_forged_record(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("before")));
    TURN_UNTIL(&f, stream_readable(&f.server) == 6);
    inject(&f, "\x17\x03\x03\x01\x12not a record that this key ever sealed, nor will..........."
               "............................................................................."
               "............................................................................."
               "...........................................................................");
    TURN_UNTIL(&f, stream_get_state(&f.server) != STREAM_OPEN);
    assert_int_equal(STREAM_FAILED, stream_get_state(&f.server));
    assert_int_equal(ERR_PEER_TLS, stream_error(&f.server));
    assert_reads(&f.server, "before");
    fixture_close(&f);
}

static void test_close_says_close_notify(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    stream_cork(&f.client, true);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("QUIT\r\n")));
    stream_close(&f.client);
    TURN_UNTIL(&f, stream_get_state(&f.server) != STREAM_OPEN);
    assert_int_equal(STREAM_PEER_CLOSED, stream_get_state(&f.server));
    assert_reads(&f.server, "QUIT\r\n");
    fixture_close(&f);
}

/* ---- bulk ---- */

struct pump { /* one direction: octet number i is pattern(i) */
    struct stream *from, *to;
    uint64_t sent, received, uncredited;
    struct buf_queue taken;
};

static uint8_t pattern(uint64_t i)
{
    return (uint8_t)((i * UINT64_C(0x9e3779b97f4a7c15)) >> 56);
}

static void pump_send(struct pump *pump, uint64_t total, struct fixture *f, struct rng *rng)
{
    uint8_t octets[5000];
    struct buf_queue queue;

    while (pump->sent < total && stream_unsent(pump->from) < 100000) {
        uint32_t size = rng_below(rng, 1u << (1 + rng_below(rng, 12))) + 1;

        if (size > total - pump->sent)
            size = (uint32_t)(total - pump->sent);
        for (uint32_t i = 0; i < size; i++)
            octets[i] = pattern(pump->sent + i);
        if (rng_below(rng, 2) == 0) {
            if (stream_write(pump->from, span_of(octets, size)) != ERR_OK)
                return;
        } else {
            buf_queue_init(&queue);
            if (buf_queue_append_copy(&queue, f->pool, span_of(octets, size)) != ERR_OK)
                return;
            stream_append(pump->from, &queue);
            assert_true(buf_queue_is_empty(&queue));
            buf_queue_fini(&queue);
        }
        pump->sent += size;
        if (rng_below(rng, 10) == 0)
            stream_cork(pump->from, rng_below(rng, 2) == 0);
    }
    if (pump->sent == total)
        stream_cork(pump->from, false);
    else if (rng_below(rng, 10) == 0)
        stream_push(pump->from);
}

static void pump_check(struct pump *pump, struct span octets)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        if (octets.data[i] != pattern(pump->received + i))
            fail_msg("octet %u differs", (unsigned)(pump->received + i));
    }
    pump->received += octets.size;
}

static void pump_take(struct pump *pump, uint32_t size)
{
    stream_take(pump->to, size, &pump->taken);
    pump->uncredited += size;
    uint64_t first = pump->taken.size - size;
    uint8_t octets[5000];

    for (uint32_t at = 0; at < size;) {
        uint32_t part = size - at < sizeof(octets) ? size - at : (uint32_t)sizeof(octets);

        buf_queue_copy_out(&pump->taken, first + at, octets, part);
        pump_check(pump, span_of(octets, part));
        at += part;
    }
}

static void pump_receive(struct pump *pump, struct rng *rng)
{
    struct span spans[3];
    uint32_t size;

    switch (rng_below(rng, 4)) {
    case 0: {
        uint32_t readable = stream_readable(pump->to), wanted = rng_below(rng, 4097);
        struct span octets = stream_pull(pump->to, wanted);

        assert_int_equal(wanted < readable ? wanted : readable, octets.size);
        pump_check(pump, octets);
        stream_consume(pump->to, octets.size);
        break;
    }
    case 1:
        size = 0;
        for (uint32_t i = 0, count = stream_peek(pump->to, spans, 3); i < count; i++) {
            pump_check(pump, spans[i]);
            size += spans[i].size;
        }
        stream_consume(pump->to, size);
        break;
    case 2:
        pump_take(pump, rng_below(rng, stream_readable(pump->to) + 1));
        break;
    default:
        pump_take(pump, stream_readable(pump->to));
        break;
    }
    if (rng_below(rng, 4) == 0 || pump->uncredited > 20000) {
        stream_credit(pump->to, pump->uncredited);
        pump->uncredited = 0;
        buf_queue_fini(&pump->taken);
    }
}

/* Goal: octets arrive whole and in order both ways at once, whatever the sizes of writes and reads,
 * and although now and then the pool has no buffer. */
static void test_bulk(void **state)
{
    static const struct {
        const char *name;
        bool is_tls;
        int version;
        uint64_t total;
    } cases[] = {
        {"in the clear", false, 0, 1000000},
        {"TLS 1.3", true, TLS1_3_VERSION, 1000000},
        {"TLS 1.2", true, TLS1_2_VERSION, 300000},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct ssl_ctx_st *client = NULL;
        struct fixture f;
        struct rng rng;
        char why[256];

        print_message("# case: %s\n", cases[i].name);
        rng_init_seed(&rng, i);
        fixture_open(&f, 400);
        assert_int_equal(ERR_OK, tls_client_context_new(false, NULL, &client, why));
        if (cases[i].is_tls) {
            SSL_CTX_set_max_proto_version(client, cases[i].version);
            start_tls(&f, tls.server, client, NULL, false);
        }
        struct pump pumps[2] = {{.from = &f.client, .to = &f.server},
                                {.from = &f.server, .to = &f.client}};
        uint32_t turns = 0;
        while (pumps[0].received < cases[i].total || pumps[1].received < cases[i].total) {
            struct buf *hoard[400];
            uint32_t hoarded = 0;

            assert_true(turns++ < TURNS_MAX);
            if (rng_below(&rng, 8) == 0) {
                while (hoarded < 400 && (hoard[hoarded] = buf_acquire(f.pool)) != NULL)
                    hoarded++;
            }
            for (uint32_t way = 0; way < 2; way++) {
                pump_send(&pumps[way], cases[i].total, &f, &rng);
                pump_receive(&pumps[way], &rng);
            }
            turn(&f);
            while (hoarded > 0)
                buf_release(hoard[--hoarded]);
        }
        for (uint32_t way = 0; way < 2; way++) {
            buf_queue_fini(&pumps[way].taken);
            assert_int_equal(STREAM_OPEN, stream_get_state(pumps[way].from));
            assert_int_equal(0, stream_readable(pumps[way].to));
        }
        fixture_close(&f);
        tls_context_free(client);
    }
}

/* Send, and take up to `take` octets a turn, until nothing moves any more. */
static void pump_until_quiet(struct pump *pump, uint64_t total, struct fixture *f, struct rng *rng,
                             uint32_t take)
{
    for (uint32_t quiet = 0; quiet < 30; quiet++) {
        uint64_t before = pump->sent + pump->received;
        uint32_t readable = stream_readable(pump->to);

        pump_send(pump, total, f, rng);
        pump_take(pump, readable < take ? readable : take);
        turn(f);
        if (pump->sent + pump->received != before)
            quiet = 0;
    }
}

/* Goal: an owner that does not read stops the peer: memory stays bounded on our side. */
static void test_back_pressure(void **state)
{
    struct fixture f;
    struct rng rng;
    struct pump pump = {.from = &f.client, .to = &f.server};
    const uint64_t total = 16u << 20;

    (void)state;
    rng_init_seed(&rng, 3);
    open_tls(&f);
    /* Not wanted, then wanted but left where it is. */
    for (uint32_t wanted = 0; wanted <= FLOW_READABLE; wanted += FLOW_READABLE) {
        stream_want(&f.server, wanted);
        pump_until_quiet(&pump, total, &f, &rng, 0);
        assert_true(pump.sent < total);
        assert_true(stream_readable(&f.server) <= STREAM_UNREAD_MAX + 2048);
        assert_in_range(flow_readable(f.plane, f.server.flow), 1, 65536 + 16384);
    }
    assert_true(stream_readable(&f.server) >= STREAM_UNREAD_MAX);

    /* Taken, but not credited: still bounded. */
    pump_until_quiet(&pump, total, &f, &rng, UINT32_MAX);
    assert_in_range(pump.uncredited, STREAM_CHARGE_MAX, STREAM_CHARGE_MAX + 2048);

    /* Credited: all that is on its way arrives. */
    for (uint32_t turns = 0; pump.received < pump.sent; turns++) {
        assert_true(turns < TURNS_MAX);
        stream_credit(&f.server, pump.uncredited);
        pump.uncredited = 0;
        buf_queue_fini(&pump.taken);
        turn(&f);
        pump_take(&pump, stream_readable(&f.server));
    }
    buf_queue_fini(&pump.taken);
    fixture_close(&f);
}

/* ---- events ---- */

/* Goal: clear octets that wait are reported as a flow reports its own: again after a part was
 * consumed, again when the owner asks anew, and not otherwise. */
static void test_waiting_octets_are_reported(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("NOOP\r\nNOOP\r\nQU")));
    TURN_UNTIL(&f, f.server_events & FLOW_READABLE);
    for (uint32_t i = 0; i < 2; i++) {
        stream_consume(&f.server, 6);
        turn(&f);
        assert_int_equal(FLOW_READABLE, f.server_events);
    }
    for (uint32_t i = 0; i < 20; i++) { /* half a line: nothing to be said */
        turn(&f);
        assert_int_equal(0, f.server_events);
    }
    stream_want(&f.server, 0);
    for (uint32_t i = 0; i < 20; i++) {
        turn(&f);
        assert_int_equal(0, f.server_events & FLOW_READABLE);
    }
    stream_want(&f.server, FLOW_READABLE);
    turn(&f);
    assert_int_equal(FLOW_READABLE, f.server_events);
    assert_reads(&f.server, "QU");
    fixture_close(&f);
}

static void test_writable_and_sent(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    stream_want(&f.client, FLOW_READABLE | FLOW_WRITABLE);
    TURN_UNTIL(&f, f.client_events & FLOW_WRITABLE);
    stream_cork(&f.client, true);
    stream_want(&f.client, FLOW_READABLE | FLOW_SENT);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("x")));
    assert_int_equal(1, stream_unsent(&f.client));
    for (uint32_t i = 0; i < 20; i++) {
        turn(&f);
        assert_int_equal(0, f.client_events & FLOW_SENT);
        assert_int_equal(0, stream_readable(&f.server));
    }
    stream_push(&f.client);
    TURN_UNTIL(&f, f.client_events & FLOW_SENT);
    assert_int_equal(0, stream_unsent(&f.client));
    TURN_UNTIL(&f, stream_readable(&f.server) == 1);
    fixture_close(&f);
}

/* Goal: a record that found no buffer goes out when there are some again, without being asked. */
static void test_record_waits_for_buffers(void **state)
{
    static uint8_t octets[10000];
    struct buf *hoard[1000];
    uint32_t hoarded = 0;
    struct fixture f;

    (void)state;
    open_tls(&f);
    for (uint32_t i = 0; i < 20; i++) /* tickets come and would wake the client */
        turn(&f);
    stream_cork(&f.client, true);
    assert_int_equal(ERR_OK, stream_write(&f.client, span_of(octets, sizeof(octets))));
    while (hoarded < COUNT_OF(hoard) && (hoard[hoarded] = buf_acquire(f.pool)) != NULL)
        hoarded++;
    stream_cork(&f.client, false);
    assert_int_equal(sizeof(octets), tlsio_unsent(f.client.tls));
    assert_int_equal(ERR_MEMORY, stream_write(&f.server, SPAN_LITERAL("250 ok\r\n")));
    for (uint32_t i = 0; i < 5; i++)
        turn(&f);
    assert_int_equal(STREAM_OPEN, stream_get_state(&f.client));
    while (hoarded > 0)
        buf_release(hoard[--hoarded]);
    TURN_UNTIL(&f, stream_readable(&f.server) == sizeof(octets));
    assert_int_equal(0, stream_unsent(&f.client));
    fixture_close(&f);
}

/* Goal: an idle connection holds no buffer. */
static void test_idle_holds_no_buffer(void **state)
{
    struct fixture f;

    (void)state;
    open_tls(&f);
    assert_int_equal(ERR_OK, stream_write(&f.client, SPAN_LITERAL("EHLO a\r\n")));
    TURN_UNTIL(&f, stream_readable(&f.server) == 8);
    assert_reads(&f.server, "EHLO a\r\n");
    for (uint32_t i = 0; i < 20; i++)
        turn(&f);
    uint32_t in_use = buf_pool_in_use(f.pool);
    stream_abort(&f.client);
    stream_abort(&f.server);
    for (uint32_t i = 0; i < 20; i++)
        turn(&f);
    assert_int_equal(in_use, buf_pool_in_use(f.pool)); /* what is left is the plane's own */
    fixture_close(&f);
}

/* ---- set-up ---- */

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(0, fclose(file));
}

static int set_up(void **state)
{
    char path[128], why[256];

    (void)state;
    snprintf(tls.folder, sizeof(tls.folder), "/tmp/angarium-test-stream-XXXXXX");
    assert_non_null(mkdtemp(tls.folder));
    snprintf(path, sizeof(path), "%s/openssl.cnf", tls.folder);
    write_file(path,
               "openssl_conf = all\n[all]\nssl_conf = ssl\n[ssl]\nsystem_default = strict\n"
               "[strict]\nMinProtocol = TLSv1.3\nCipherString = AES256:@SECLEVEL=5\n"
               "SignatureAlgorithms = RSA+SHA512\nGroups = P-521\nOptions = -SessionTicket\n");
    setenv("OPENSSL_CONF", path, 1);
    snprintf(path, sizeof(path), "%s/one", tls.folder);
    assert_int_equal(ERR_OK, tls_self_signed_ensure(path, NAME, tls.certificate, tls.key, why));
    snprintf(path, sizeof(path), "%s/other", tls.folder);
    assert_int_equal(ERR_OK,
                     tls_self_signed_ensure(path, NAME, tls.other_certificate, tls.other_key, why));
    assert_int_equal(ERR_OK,
                     tls_server_context_new(tls.certificate, tls.key, "a", &tls.server, why));
    assert_int_equal(ERR_OK, tls_client_context_new(false, NULL, &tls.may, why));
    assert_int_equal(ERR_OK, tls_client_context_new(true, tls.certificate, &tls.verify, why));
    assert_int_equal(ERR_OK,
                     tls_client_context_new(true, tls.other_certificate, &tls.verify_other, why));
    return 0;
}

static int tear_down(void **state)
{
    char path[128];

    (void)state;
    tls_context_free(tls.server);
    tls_context_free(tls.may);
    tls_context_free(tls.verify);
    tls_context_free(tls.verify_other);
    unlink(tls.certificate);
    unlink(tls.key);
    unlink(tls.other_certificate);
    unlink(tls.other_key);
    snprintf(path, sizeof(path), "%s/openssl.cnf", tls.folder);
    unlink(path);
    snprintf(path, sizeof(path), "%s/one", tls.folder);
    rmdir(path);
    snprintf(path, sizeof(path), "%s/other", tls.folder);
    rmdir(path);
    return rmdir(tls.folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handshake),
        cmocka_unit_test(test_verification),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_contexts_refuse_bad_files),
        cmocka_unit_test(test_tickets_are_bound_to_their_listener),
        cmocka_unit_test(test_clear_octets_before_the_handshake),
        cmocka_unit_test(test_clear_octets_after_close_notify),
        cmocka_unit_test(test_fin_without_close_notify),
        cmocka_unit_test(test_reset),
        cmocka_unit_test(test_forged_record),
        cmocka_unit_test(test_close_says_close_notify),
        cmocka_unit_test(test_bulk),
        cmocka_unit_test(test_back_pressure),
        cmocka_unit_test(test_waiting_octets_are_reported),
        cmocka_unit_test(test_writable_and_sent),
        cmocka_unit_test(test_record_waits_for_buffers),
        cmocka_unit_test(test_idle_holds_no_buffer),
    };
    return cmocka_run_group_tests_name("stream", tests, set_up, tear_down);
}
