/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A server of any kind against the client engine: no crash, no octet of the server's gets into our
 * commands, a recipient is delivered only by a reply to an end of data, and in doubt is nothing but
 * an unanswered end of data. Whole input also goes through the judge, as replies at any stage.
 *
 * First octet: what the session is like (bits: lock-step, BDAT, TLS, AUTH, 8-bit message; two bits:
 * recipients; the last: LMTP). Second: how many octets the network gives at a time, and, the first
 * bit, whether what can go before its turn does: then also no transaction hears what was said of
 * another. The rest: the server.
 */
#include "relay/judge.h"
#include "relay/smtpc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define RECIPIENTS_MAX   4u
#define TRANSACTIONS_MAX 3u
#define NEXT_MAX         9u /* transactions that follow another */
#define AHEAD            128u

enum setup {
    LOCK_STEP = 1,
    BDAT = 2,
    TLS = 4,
    AUTH = 8,
    EIGHT_BIT = 16,
    RECIPIENTS_SHIFT = 5,
    LMTP = 128
};

struct next {
    struct smtpc_transaction transaction;
    struct smtpc_recipient recipient;
    struct client_recipient_result result;
};

struct world {
    struct smtpc session;
    struct next nexts[NEXT_MAX];
    uint32_t next_count, next_begun; /* sent behind another; of these, answered or being answered */
    struct arena arena;
    struct envelope envelope;
    struct smtpc_recipient recipients[RECIPIENTS_MAX];
    struct client_recipient_result results[RECIPIENTS_MAX];
    uint32_t recipient_count, begun;
    bool is_alone, is_running, was_ended, is_ahead;
};

static void result_check(const struct world *world, const struct client_recipient_result *result)
{
    CHECK(result->reply.size <= SMTP_REPLY_TEXT_MAX);
    for (uint32_t at = 0; at < result->reply.size; at++)
        CHECK(result->reply.data[at] >= ' ' && result->reply.data[at] <= '~');
    CHECK(result->state != RECIPIENT_DELIVERED || (world->was_ended && result->code / 100 == 2));
    CHECK(result->state != RECIPIENT_FAILED || result->code / 100 == 5);
}

static void results_check(const struct world *world)
{
    for (uint32_t i = 0; i < world->recipient_count; i++)
        result_check(world, &world->results[i]);
    for (uint32_t i = 0; i < world->next_count; i++) {
        result_check(world, &world->nexts[i].result);
        CHECK(i < world->next_begun || world->nexts[i].result.code == 0);
    }
}

static void body_done(struct world *world)
{
    smtpc_body_done(&world->session);
    world->was_ended = true;
}

static void drain(struct world *world)
{
    uint8_t room[SMTPC_ROOM_MIN];
    uint32_t size;

    if (world->session.state == SMTPC_STATE_FAILED)
        return;
    while ((size = smtpc_drain(&world->session, (struct span_mut){room, sizeof(room)})) > 0) {
        CHECK(size <= sizeof(room) && room[size - 1] == '\n');
        for (uint32_t i = 0; i < size; i++)
            CHECK((room[i] >= ' ' && room[i] <= '~') || room[i] == '\r' || room[i] == '\n');
        if (smtpc_is_body_due(&world->session))
            body_done(world);
    }
}

/* Behind what was sent, while that may be. */
static void follow(struct world *world)
{
    while (world->is_ahead && world->is_running && world->next_count < NEXT_MAX &&
           smtpc_may_follow(&world->session)) {
        struct next *next = &world->nexts[world->next_count++];

        next->recipient = (struct smtpc_recipient){.address = SPAN_LITERAL("next@y.example"),
                                                   .result = &next->result};
        next->transaction = (struct smtpc_transaction){.envelope = &world->envelope,
                                                       .body_size = 7,
                                                       .recipients = &next->recipient,
                                                       .recipient_count = 1,
                                                       .arena = &world->arena,
                                                       .is_ahead = true};
        if (smtpc_follow(&world->session, &next->transaction) == SMTPC_FINISHED) {
            world->next_count--; /* the server lacks what all of them need */
            return;
        }
        drain(world);
    }
}

static void begin(struct world *world)
{
    if (world->begun++ == TRANSACTIONS_MAX)
        return;
    memset(world->results, 0, sizeof(world->results));
    for (uint32_t i = 0; i < world->recipient_count; i++)
        world->recipients[i] = (struct smtpc_recipient){.address = SPAN_LITERAL("b@y.example"),
                                                        .orcpt = SPAN_LITERAL("rfc822;b+2Bc@y"),
                                                        .notify = ENVELOPE_NOTIFY_SUCCESS,
                                                        .result = &world->results[i]};
    world->was_ended = world->is_ahead && world->was_ended; /* by one of those before */
    world->is_running =
        smtpc_begin(&world->session,
                    &(struct smtpc_transaction){.envelope = &world->envelope,
                                                .body_size = 1000,
                                                .recipients = world->recipients,
                                                .recipient_count = world->recipient_count,
                                                .arena = &world->arena,
                                                .is_alone = world->is_alone,
                                                .is_ahead = world->is_ahead}) == SMTPC_MORE;
}

static void on_event(struct world *world, enum smtpc_event event)
{
    switch (event) {
    case SMTPC_START_TLS:
        smtpc_tls_done(&world->session);
        break;
    case SMTPC_READY:
        begin(world);
        break;
    case SMTPC_SEND_BODY:
        drain(world);
        body_done(world);
        break;
    case SMTPC_FINISHED:
        CHECK(world->is_running);
        if (world->session.state == SMTPC_STATE_ENVELOPE) {
            world->next_begun++;
            CHECK(world->next_begun <= world->next_count);
            break;
        }
        world->is_running = false;
        if (world->session.state == SMTPC_STATE_READY)
            begin(world);
        break;
    default:
        break;
    }
    results_check(world);
}

static void serve(struct world *world, struct span input, uint32_t step)
{
    drain(world);
    while (input.size > 0 && world->session.state != SMTPC_STATE_FAILED) {
        uint32_t consumed = 0;
        struct span piece = span_head(input, input.size < step ? input.size : step);
        enum smtpc_event event = smtpc_feed(&world->session, piece, &consumed);

        CHECK(consumed <= piece.size);
        CHECK(consumed > 0 || event == SMTPC_FAILED);
        on_event(world, event);
        drain(world);
        if (world->session.state != SMTPC_STATE_FAILED)
            follow(world);
        input = span_skip(input, consumed);
    }
    bool is_ended = world->session.state == SMTPC_STATE_END;
    if (world->session.state != SMTPC_STATE_FAILED) {
        smtpc_lost(&world->session, "4.4.2 lost");
        CHECK(world->is_ahead || world->session.failure.is_in_doubt == is_ended);
    }
    CHECK(!world->session.failure.is_in_doubt || world->was_ended);
    results_check(world);
}

static void judge_all(struct span input)
{
    struct smtp_reply_parser parser;
    uint32_t used;

    smtp_reply_parser_init(&parser);
    while (input.size > 0) {
        enum err err = smtp_reply_feed(&parser, input, &used);
        if (err != ERR_OK)
            return;
        input = span_skip(input, used);
        for (uint32_t stage = 0; parser.is_last && stage < SMTP_STAGE_COUNT; stage++) {
            struct judge_verdict verdict = judge_reply((enum smtp_stage)stage, &parser.reply);
            CHECK(!verdict.is_permanent || parser.reply.code >= 500);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct settings_auth auth = {"joe", "secret"};
    static struct world world;

    if (size < 2)
        return 0;
    uint8_t setup = data[0];
    memset(&world, 0, sizeof(world));
    arena_init(&world.arena, 4096, 65536);
    world.recipient_count = 1 + (setup >> RECIPIENTS_SHIFT) % RECIPIENTS_MAX;
    world.is_alone = (setup & LOCK_STEP) != 0;
    world.is_ahead = !world.is_alone && (data[1] & AHEAD) != 0;
    world.envelope.sender = SPAN_LITERAL("a@x.example");
    world.envelope.flags = (setup & EIGHT_BIT) != 0 ? ENVELOPE_EIGHT_BIT : 0;
    smtpc_init(&world.session, &(struct smtpc_options){
                                   .hello_name = "us.example",
                                   .tls = (setup & TLS) != 0 ? SETTINGS_TLS_MAY : SETTINGS_TLS_NONE,
                                   .has_tls = true,
                                   .use_bdat = (setup & BDAT) != 0,
                                   .is_lmtp = (setup & LMTP) != 0,
                                   .auth = (setup & AUTH) != 0 ? &auth : NULL,
                               });
    struct span input = span_of(data + 2, (uint32_t)size - 2);
    serve(&world, input, 1u + data[1] % AHEAD);
    judge_all(input);
    arena_fini(&world.arena);
    return 0;
}
