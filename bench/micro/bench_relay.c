/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engines on the path of every message: commands of the client, octets of the body, replies of
 * the next hop. Commands run through a whole session, replies included; nothing is sent.
 */
#include "bench/micro/harness.h"

#include <stdlib.h>

#include "relay/smtp_reply.h"
#include "relay/smtpd.h"

static const struct settings_pool the_pool = {.name = "default"};

/* ---- commands ---- */

struct session_context {
    struct settings_route route;
    struct settings_listener listener;
    struct settings settings;
    struct flow_prefix clients;
    struct smtpd_context context;
    struct smtpd_session session;
    struct tick_now now;
};

static void drop_record(void *context, const struct record *record)
{
    (void)context;
    (void)record;
}

static void session_say(struct session_context *context, struct span commands)
{
    while (commands.size > 0) {
        uint32_t used;

        CHECK(smtpd_feed_command(&context->context, &context->session, commands, context->now,
                                 &used) == ERR_OK);
        commands = span_skip(commands, used);
    }
    context->context.output_size = 0;
}

static void *session_set_up(void)
{
    struct session_context *context = calloc(1, sizeof(*context));

    CHECK(context != NULL);
    context->route = (struct settings_route){.pattern = "*", .kind = SETTINGS_ROUTE_MX};
    context->listener.limits = (struct settings_limits){.command_line_size_max = 2048,
                                                        .recipient_max = 1000,
                                                        .message_size_max = 1u << 20,
                                                        .text_line_size_max = 1000,
                                                        .received_max = 100,
                                                        .error_max = UINT32_MAX,
                                                        .junk_max = UINT32_MAX,
                                                        .session_max = 1,
                                                        .transactions_ahead_max = 2,
                                                        .command_timeout = TICK_S(300),
                                                        .data_timeout = TICK_S(180),
                                                        .session_timeout = TICK_S(3600),
                                                        .transaction_timeout = TICK_S(1800)};
    CHECK(flow_prefix_parse(SPAN_LITERAL("0.0.0.0/0"), &context->clients) == ERR_OK);
    context->settings = (struct settings){.hostname = "relay.example.org",
                                          .listeners = &context->listener,
                                          .listener_count = 1,
                                          .relay_from = &context->clients,
                                          .relay_from_count = 1,
                                          .pools = &the_pool,
                                          .pool_count = 1,
                                          .routes = &context->route,
                                          .route_count = 1,
                                          .message_lifetime = TICK_S(432000)};
    context->now = (struct tick_now){.tick = TICK_S(1), .wall = 1};
    smtpd_context_init(&context->context, 0, (struct record_sink){.emit = drop_record});
    smtpd_init(&context->session,
               &(struct smtpd_session_options){
                   .settings = &context->settings,
                   .listener = &context->listener,
                   .peer = {.family = FLOW_FAMILY_IP4, .port = 40000, .ip = {192, 0, 2, 1}},
                   .local = {.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 2}},
                   .id = 1},
               context->now);
    smtpd_greet(&context->context, &context->session, false, context->now);
    session_say(context, SPAN_LITERAL("EHLO client.example.net\r\n"));
    return context;
}

static void session_tear_down(void *pointer)
{
    struct session_context *context = pointer;

    smtpd_hang_up(&context->context, &context->session);
    smtpd_fini(&context->context, &context->session);
    smtpd_context_fini(&context->context);
    free(context);
}

static void session_commands(void *pointer, uint64_t iterations)
{
    for (uint64_t i = 0; i < iterations; i++) {
        session_say(pointer, SPAN_LITERAL("MAIL FROM:<newsletter-4711@lists.example.net> "
                                          "SIZE=10240 BODY=8BITMIME\r\n"
                                          "RCPT TO:<somebody.or.other@mail.example.org>\r\n"
                                          "RSET\r\n"));
    }
}

/* ---- body ---- */

#define BODY_SIZE 10240u
#define LINE_SIZE 78u

struct body_context {
    struct smtp_body body;
    uint8_t octets[BODY_SIZE];
};

static void *body_new(enum smtp_body_variant variant)
{
    struct body_context *context = malloc(sizeof(*context));

    CHECK(context != NULL);
    for (uint32_t i = 0; i < BODY_SIZE; i++) {
        uint32_t column = i % LINE_SIZE;

        context->octets[i] = column == LINE_SIZE - 2   ? '\r'
                             : column == LINE_SIZE - 1 ? '\n'
                                                       : (uint8_t)('a' + i % 23);
    }
    smtp_body_init(&context->body, true, false, 1000, variant);
    return context;
}

static void *body_set_up(void)
{
    return body_new(SMTP_BODY_BEST);
}

static void *body_set_up_portable(void)
{
    return body_new(SMTP_BODY_PORTABLE);
}

static void body_scan(void *pointer, uint64_t iterations)
{
    struct body_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++) {
        for (struct span left = span_of(context->octets, BODY_SIZE); left.size > 0;) {
            struct smtp_body_step step = smtp_body_scan(&context->body, left);

            CHECK(!step.is_end);
            left = span_skip(left, step.pass + step.skip);
        }
    }
}

/* ---- replies ---- */

static void *reply_set_up(void)
{
    struct smtp_reply_parser *parser = malloc(sizeof(*parser));

    CHECK(parser != NULL);
    smtp_reply_parser_init(parser);
    return parser;
}

/* What a server says to one message: MAIL, RCPT, DATA, end of data. */
static void reply_parse(void *parser, uint64_t iterations)
{
    static const struct span replies =
        SPAN_LITERAL("250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n354 End data with <CR><LF>.<CR><LF>\r\n"
                     "250 2.0.0 Ok: queued as 4bXyZ12345\r\n");

    for (uint64_t i = 0; i < iterations; i++) {
        for (struct span left = replies; left.size > 0;) {
            uint32_t consumed;

            CHECK(smtp_reply_feed(parser, left, &consumed) == ERR_OK);
            left = span_skip(left, consumed);
        }
    }
}

const struct micro_bench micro_bench_relay[] = {
    {"smtpd_command", session_set_up, session_commands, session_tear_down, 3, 0,
     "MAIL with SIZE and BODY, RCPT, RSET through a session, per command, 1 core"},
    {"smtp_body_scan", body_set_up, body_scan, free, 1, BODY_SIZE,
     "10 KB, lines of 78 octets, best code for this processor, in cache, 1 core"},
    {"smtp_body_scan_portable", body_set_up_portable, body_scan, free, 1, BODY_SIZE,
     "10 KB, lines of 78 octets, portable code, in cache, 1 core"},
    {"smtp_reply_parse", reply_set_up, reply_parse, free, 4, 0,
     "replies to MAIL, RCPT, DATA and end of data, per reply, 1 core"},
    {0},
};
