/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: the client engine sends exactly the commands the dialogue calls for, gives every reply to
 * its command, and stops at the first octet that makes no sense.
 *
 * A case is a script:
 *   "< text"  the server sends text and CRLF          "<< text" exactly text
 *   "> text"  the engine has sent exactly text (\n stands for CRLF) since the last such line
 *   "+ EVENT" the last feed ended in this event       "= STATE" the engine is in this state
 *   "tls"     the handshake is done                   "begin"   a transaction begins
 *   "body"    the body and its end were sent          "lost"    the connection is lost
 *   "quit"    the driver leaves
 *   "follow"  a transaction for n0@y.example, n1@... is sent behind the last one
 *   "unfollow" nobody wants the last of them any more
 *   "room N"  may another one follow?      "doubt N" is the failure one in doubt?
 *   "chunk N" a chunk of an open body is sent; "last N" its last one, and its end
 *   "may N"   may a chunk be sent?
 *   What goes ahead is followed by its body, [body], at once.
 *   "r N S C" recipient N has state S (due, ok, failed, now: due and for the next batch at once)
 *             and code C; from 4 on those of transactions that followed, one each
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/judge.h"
#include "relay/smtpc.h"

#define SCRIPT_MAX 40

struct fixture {
    struct smtpc session;
    struct arena arena;
    struct envelope envelope;
    struct smtpc_recipient recipients[4];
    struct smtpc_transaction next[SMTPC_NEXT_MAX];
    struct smtpc_recipient next_recipients[SMTPC_NEXT_MAX];
    uint32_t next_count;
    struct client_recipient_result results[4 + SMTPC_NEXT_MAX];
    enum smtpc_event event;
    char sent[8192];
    uint32_t sent_size;
};

static const struct settings_auth auth = {"joe", "secret"};

static const char *const event_names[] = {"MORE",      "START_TLS", "READY",
                                          "SEND_BODY", "FINISHED",  "FAILED"};
static const char *const state_names[] = {
#define X(name) #name,
    SMTPC_STATES
#undef X
};

struct setup {
    uint32_t tls; /* enum settings_tls_level */
    bool has_tls, has_auth, use_bdat, is_alone, bounce_eight_bit, is_lmtp, is_ahead;
    bool is_open, is_size_unsaid;
    uint32_t avoid;
    uint32_t flags; /* of the envelope */
    uint32_t recipient_count;
    const char *sender, *recipient; /* in place of a@x.example, rN@y.example */
};

static void fixture_init(struct fixture *fixture, const struct setup *setup)
{
    memset(fixture, 0, sizeof(*fixture));
    arena_init(&fixture->arena, 4096, 65536);
    smtpc_init(&fixture->session,
               &(struct smtpc_options){
                   .hello_name = "us.example",
                   .tls = (enum settings_tls_level)setup->tls,
                   .has_tls = setup->has_tls,
                   .use_bdat = setup->use_bdat,
                   .is_lmtp = setup->is_lmtp,
                   .eight_bit = setup->bounce_eight_bit ? SETTINGS_EIGHT_BIT_BOUNCE
                                                        : SETTINGS_EIGHT_BIT_SEND,
                   .auth = setup->has_auth ? &auth : NULL,
                   .avoid = setup->avoid,
               });
    fixture->envelope.flags = setup->flags;
    fixture->envelope.sender =
        span_from_text(setup->sender != NULL ? setup->sender : "a@x.example");
}

static void drain(struct fixture *fixture)
{
    uint8_t room[SMTPC_ROOM_MIN];
    uint32_t size;

    if (fixture->session.state == SMTPC_STATE_FAILED)
        return;
    while ((size = smtpc_drain(&fixture->session, (struct span_mut){room, sizeof(room)})) > 0) {
        assert_true(fixture->sent_size + size < sizeof(fixture->sent));
        memcpy(fixture->sent + fixture->sent_size, room, size);
        fixture->sent_size += size;
        if (smtpc_is_body_due(&fixture->session)) {
            memcpy(fixture->sent + fixture->sent_size, "[body]\r\n", 8);
            fixture->sent_size += 8;
            smtpc_body_done(&fixture->session);
        }
    }
}

/* Feed everything, in pieces of `step`, as the driver does: read all, then drain. */
static void feed(struct fixture *fixture, struct span input, uint32_t step)
{
    fixture->event = SMTPC_MORE;
    while (input.size > 0 && fixture->event != SMTPC_FAILED) {
        uint32_t consumed = 0;
        uint32_t size = input.size < step ? input.size : step;
        enum smtpc_event event = smtpc_feed(&fixture->session, span_head(input, size), &consumed);
        assert_true(consumed <= size);
        if (event != SMTPC_FAILED)
            input = span_skip(input, consumed);
        if (event != SMTPC_MORE)
            fixture->event = event;
    }
    drain(fixture);
}

static void begin(struct fixture *fixture, const struct setup *setup)
{
    static const char *const addresses[] = {"r0@y.example", "r1@y.example", "r2@y.example",
                                            "r3@y.example"};
    uint32_t count = setup->recipient_count == 0 ? 1 : setup->recipient_count;

    memset(fixture->results, 0, sizeof(fixture->results));
    for (uint32_t i = 0; i < count; i++)
        fixture->recipients[i] = (struct smtpc_recipient){
            .address = span_from_text(i == 0 && setup->recipient != NULL ? setup->recipient
                                                                         : addresses[i]),
            .result = &fixture->results[i],
        };
    fixture->event =
        smtpc_begin(&fixture->session, &(struct smtpc_transaction){
                                           .envelope = &fixture->envelope,
                                           .body_size = setup->is_size_unsaid ? 0 : 1234,
                                           .is_open = setup->is_open,
                                           .recipients = fixture->recipients,
                                           .recipient_count = count,
                                           .arena = &fixture->arena,
                                           .is_alone = setup->is_alone,
                                           .is_ahead = setup->is_ahead,
                                       });
    drain(fixture);
}

static void follow(struct fixture *fixture, const struct setup *setup)
{
    static const char *const addresses[SMTPC_NEXT_MAX] = {
        "n0@y.example", "n1@y.example", "n2@y.example", "n3@y.example",
        "n4@y.example", "n5@y.example", "n6@y.example"};
    uint32_t index = fixture->next_count++;

    fixture->next_recipients[index] = (struct smtpc_recipient){
        .address = span_from_text(addresses[index]), .result = &fixture->results[4 + index]};
    fixture->next[index] =
        (struct smtpc_transaction){.envelope = &fixture->envelope,
                                   .body_size = 5,
                                   .recipients = &fixture->next_recipients[index],
                                   .recipient_count = 1,
                                   .arena = &fixture->arena,
                                   .is_ahead = setup->is_ahead};
    assert_int_equal(SMTPC_MORE, smtpc_follow(&fixture->session, &fixture->next[index]));
    drain(fixture);
}

static void check_sent(struct fixture *fixture, const char *expected)
{
    char text[8192];
    uint32_t size = 0;

    for (const char *at = expected; *at != '\0'; at++) {
        if (*at == '\n')
            text[size++] = '\r';
        text[size++] = *at;
    }
    text[size] = '\0';
    fixture->sent[fixture->sent_size] = '\0';
    assert_string_equal(text, fixture->sent);
    fixture->sent_size = 0;
}

static void check_result(const struct fixture *fixture, const char *statement)
{
    unsigned int index, code;
    char word[8];

    assert_int_equal(3, sscanf(statement, "r %u %7s %u", &index, word, &code));
    const struct client_recipient_result *result = &fixture->results[index];
    enum recipient_state expected = strcmp(word, "ok") == 0       ? RECIPIENT_DELIVERED
                                    : strcmp(word, "failed") == 0 ? RECIPIENT_FAILED
                                                                  : RECIPIENT_DUE;
    assert_int_equal(expected, result->state);
    assert_int_equal(strcmp(word, "now") == 0, result->retry_now);
    assert_int_equal(code, result->code);
}

static void run_line(struct fixture *fixture, const struct setup *setup, const char *line,
                     uint32_t step)
{
    char text[4096];

    if (strncmp(line, "<< ", 3) == 0) {
        feed(fixture, span_from_text(line + 3), step);
    } else if (strncmp(line, "< ", 2) == 0) {
        int size = snprintf(text, sizeof(text), "%s\r\n", line + 2);
        feed(fixture, span_of(text, (uint32_t)size), step);
    } else if (strncmp(line, "> ", 2) == 0) {
        check_sent(fixture, line + 2);
    } else if (strncmp(line, "+ ", 2) == 0) {
        assert_string_equal(line + 2, event_names[fixture->event]);
    } else if (strncmp(line, "= ", 2) == 0) {
        assert_string_equal(line + 2, state_names[fixture->session.state]);
    } else if (strcmp(line, "tls") == 0) {
        smtpc_tls_done(&fixture->session);
        drain(fixture);
    } else if (strcmp(line, "begin") == 0) {
        begin(fixture, setup);
    } else if (strcmp(line, "body") == 0) {
        smtpc_body_done(&fixture->session);
    } else if (strcmp(line, "lost") == 0) {
        smtpc_lost(&fixture->session, "4.4.2 the connection was lost");
    } else if (strcmp(line, "follow") == 0) {
        follow(fixture, setup);
    } else if (strncmp(line, "chunk ", 6) == 0 || strncmp(line, "last ", 5) == 0) {
        bool is_last = line[0] == 'l';
        smtpc_chunk(&fixture->session, (uint64_t)atoi(strchr(line, ' ')), is_last);
        drain(fixture);
        if (is_last)
            smtpc_body_done(&fixture->session);
    } else if (strncmp(line, "may ", 4) == 0) {
        assert_int_equal(atoi(line + 4), smtpc_may_chunk(&fixture->session));
    } else if (strcmp(line, "unfollow") == 0) {
        smtpc_unfollow(&fixture->session);
    } else if (strncmp(line, "room ", 5) == 0) {
        assert_int_equal(atoi(line + 5), smtpc_may_follow(&fixture->session));
    } else if (strncmp(line, "doubt ", 6) == 0) {
        assert_int_equal(SMTPC_STATE_FAILED, fixture->session.state);
        assert_int_equal(atoi(line + 6), fixture->session.failure.is_in_doubt);
    } else if (strcmp(line, "quit") == 0) {
        smtpc_quit(&fixture->session);
        drain(fixture);
    } else {
        assert_int_equal('r', line[0]);
        check_result(fixture, line);
    }
}

struct script {
    const char *name;
    struct setup setup;
    const char *lines[SCRIPT_MAX];
};

static void run_scripts(const struct script *scripts, size_t count)
{
    static const uint32_t steps[] = {10000, 1, 7};

    for (size_t i = 0; i < count; i++) {
        print_message("# case: %s\n", scripts[i].name);
        for (size_t step = 0; step < COUNT_OF(steps); step++) {
            struct fixture fixture;
            fixture_init(&fixture, &scripts[i].setup);
            for (uint32_t line = 0; line < SCRIPT_MAX && scripts[i].lines[line] != NULL; line++)
                run_line(&fixture, &scripts[i].setup, scripts[i].lines[line], steps[step]);
            arena_fini(&fixture.arena);
        }
    }
}

#define EHLO     "> EHLO us.example\n"
#define MAIL     "MAIL FROM:<a@x.example>"
#define RCPT0    "RCPT TO:<r0@y.example>\n"
#define RCPT1    "RCPT TO:<r1@y.example>\n"
#define RCPT2    "RCPT TO:<r2@y.example>\n"
#define PIPELINE "< 220 hi", EHLO, "< 250-y.example\r\n250 PIPELINING", "+ READY", "begin"
#define PLAIN    "< 220 hi", EHLO, "< 250 y.example", "+ READY", "begin"
#define FLIGHT1  "> " MAIL "\n" RCPT0 "DATA\n"
#define FLIGHT2  "> " MAIL "\n" RCPT0 RCPT1 "DATA\n"

/* Up to READY: names, extensions, HELO, TLS levels, AUTH. */
static const struct script hello_scripts[] = {
    {"greeting refused", {0}, {"< 554 no", "+ FAILED", "quit", "> QUIT\n"}},
    {"greeting is not SMTP", {0}, {"< SSH-2.0-x", "+ FAILED", "> "}},
    {"greeting 250", {0}, {"< 250 hi", "+ FAILED", "> "}},
    {"multi-line greeting", {0}, {"< 220-a\r\n220-b\r\n220 c", EHLO}},
    {"early octets after the greeting", {0}, {"< 220 hi\r\n250 y", "+ FAILED", "> "}},
    {"EHLO temporarily refused", {0}, {"< 220 hi", EHLO, "< 450 no", "+ FAILED"}},
    {"HELO after 502",
     {0},
     {"< 220 hi", EHLO, "< 502 what", "> HELO us.example\n", "< 250 y", "+ READY", "begin",
      "> " MAIL "\n"}},
    {"HELO refused too",
     {0},
     {"< 220 hi", EHLO, "< 502 what", "> HELO us.example\n", "< 502 no", "+ FAILED"}},
    {"HELO when EHLO is to be avoided",
     {.avoid = SMTPC_ESMTP},
     {"< 220 hi", "> HELO us.example\n", "< 250 y", "+ READY"}},
    {"unknown extensions are skipped",
     {0},
     {"< 220 hi", EHLO, "< 250-y\r\n250-XFOO bar\r\n250-\r\n250 pipelining", "+ READY", "begin",
      FLIGHT1}},
    {"extensions on the first line do not count",
     {0},
     {"< 220 hi", EHLO, "< 250-PIPELINING\r\n250 HELP", "+ READY", "begin", "> " MAIL "\n"}},
    {"all parameters",
     {.flags = ENVELOPE_EIGHT_BIT | ENVELOPE_SMTPUTF8},
     {"< 220 hi", EHLO, "< 250-y\r\n250-SIZE 99999\r\n250-8BITMIME\r\n250 SMTPUTF8", "+ READY",
      "begin", "> " MAIL " SIZE=1234 BODY=8BITMIME SMTPUTF8\n"}},
    {"SIZE=-1 is no bound",
     {0},
     {"< 220 hi", EHLO, "< 250-y\r\n250 SIZE -1", "begin", "> " MAIL " SIZE=1234\n"}},
    {"eight bits to a seven-bit server",
     {.flags = ENVELOPE_EIGHT_BIT},
     {"< 220 hi", EHLO, "< 250 y", "begin", "> " MAIL "\n"}},
    {"none: STARTTLS is not used",
     {.tls = SETTINGS_TLS_NONE, .has_tls = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "+ READY"}},
    {"may: STARTTLS, and the clear extensions are forgotten",
     {.tls = SETTINGS_TLS_MAY, .has_tls = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-PIPELINING\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go",
      "+ START_TLS", "tls", EHLO, "< 250 y", "+ READY", "begin", "> " MAIL "\n"}},
    {"may: not offered",
     {.tls = SETTINGS_TLS_MAY, .has_tls = true},
     {"< 220 hi", EHLO, "< 250 y", "+ READY"}},
    {"may: refused, never clear on this connection",
     {.tls = SETTINGS_TLS_MAY, .has_tls = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 454 no", "+ FAILED", "quit",
      "> QUIT\n"}},
    {"may: avoided on the new connection",
     {.tls = SETTINGS_TLS_MAY, .has_tls = true, .avoid = SMTPC_STARTTLS},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "+ READY"}},
    {"encrypt: stripped from EHLO",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true},
     {"< 220 hi", EHLO, "< 250 y", "+ FAILED"}},
    {"encrypt: never clear, even when told to avoid STARTTLS",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .avoid = SMTPC_STARTTLS},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "+ FAILED"}},
    {"encrypt: HELO does not get around it",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true},
     {"< 220 hi", EHLO, "< 502 what", "> HELO us.example\n", "< 250 y", "+ FAILED"}},
    {"verify: stripped from EHLO",
     {.tls = SETTINGS_TLS_VERIFY, .has_tls = true},
     {"< 220 hi", EHLO, "< 250 y", "+ FAILED"}},
    {"AUTH never in the clear",
     {.has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 AUTH PLAIN", "+ FAILED", "> "}},
    {"AUTH PLAIN",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go", "tls", EHLO,
      "< 250-y\r\n250 AUTH LOGIN PLAIN", "> AUTH PLAIN AGpvZQBzZWNyZXQ=\n", "< 235 ok", "+ READY"}},
    {"AUTH LOGIN",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go", "tls", EHLO,
      "< 250-y\r\n250 AUTH LOGIN", "> AUTH LOGIN\n", "< 334 VXNlcm5hbWU6", "> am9l\n",
      "< 334 UGFzc3dvcmQ6", "> c2VjcmV0\n", "< 235 ok", "+ READY"}},
    {"AUTH LOGIN asks a third time",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go", "tls", EHLO,
      "< 250-y\r\n250 AUTH LOGIN", "> AUTH LOGIN\n", "< 334 a", "> am9l\n", "< 334 b",
      "> c2VjcmV0\n", "< 334 c", "+ FAILED", "> "}},
    {"AUTH refused",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go", "tls", EHLO,
      "< 250-y\r\n250 AUTH PLAIN", "> AUTH PLAIN AGpvZQBzZWNyZXQ=\n", "< 535 5.7.8 no", "+ FAILED",
      "quit", "> QUIT\n"}},
    {"AUTH not offered",
     {.tls = SETTINGS_TLS_ENCRYPT, .has_tls = true, .has_auth = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250 STARTTLS", "> STARTTLS\n", "< 220 go", "tls", EHLO,
      "< 250-y\r\n250 AUTH GSSAPI", "+ FAILED"}},
};

static void test_hello(void **state)
{
    (void)state;
    run_scripts(hello_scripts, COUNT_OF(hello_scripts));
}

/* Transactions with well-behaved servers. */
static const struct script transaction_scripts[] = {
    {"one flight",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "+ SEND_BODY", "body", "= END",
      "< 250 2.0.0 queued", "+ FINISHED", "= READY", "r 0 ok 250"}},
    {"lock-step",
     {0},
     {PLAIN, "> " MAIL "\n", "< 250 ok", "> " RCPT0, "< 250 ok", "> DATA\n", "< 354 go",
      "+ SEND_BODY", "body", "< 250 ok", "+ FINISHED", "r 0 ok 250"}},
    {"alone: lock-step although PIPELINING is offered",
     {.is_alone = true},
     {PIPELINE, "> " MAIL "\n", "< 250 ok", "> " RCPT0, "< 250 ok", "> DATA\n", "< 354 go",
      "+ SEND_BODY"}},
    {"avoided PIPELINING", {.avoid = SMTPC_PIPELINING}, {PIPELINE, "> " MAIL "\n"}},
    {"two transactions",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 ok", "+ FINISHED", "begin",
      FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 ok", "+ FINISHED", "quit",
      "> QUIT\n"}},
    {"null sender", {.sender = ""}, {PLAIN, "> MAIL FROM:<>\n"}},
    {"some refused, some not yet",
     {.recipient_count = 3},
     {PIPELINE, "> " MAIL "\n" RCPT0 RCPT1 RCPT2 "DATA\n",
      "< 250 ok\r\n550 5.1.1 no\r\n250 ok\r\n450 later\r\n354 go", "+ SEND_BODY", "body",
      "< 250 ok", "+ FINISHED", "r 0 failed 550", "r 1 ok 250", "r 2 due 450"}},
    {"too many recipients: the rest at once",
     {.recipient_count = 3},
     {PIPELINE, "> " MAIL "\n" RCPT0 RCPT1 RCPT2 "DATA\n",
      "< 250 ok\r\n250 ok\r\n452 4.5.3 enough\r\n552 5.5.3 enough\r\n354 go", "body", "< 250 ok",
      "r 0 ok 250", "r 1 now 452", "r 2 now 552"}},
    {"too many recipients, but none was taken: later",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 250 ok\r\n452 4.5.3 a\r\n452 4.5.3 b\r\n554 none", "+ FINISHED",
      "r 0 due 452", "r 1 due 452"}},
    {"all refused: RSET, then reuse",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n550 5.1.1 no\r\n554 none", "+ FINISHED", "> RSET\n", "= RSET",
      "r 0 failed 550", "< 250 ok", "+ READY", "begin", FLIGHT1}},
    {"all refused in lock-step: no DATA",
     {0},
     {PLAIN, "> " MAIL "\n", "< 250 ok", "> " RCPT0, "< 550 no", "+ FINISHED", "> RSET\n"}},
    {"all refused, and 354: a lone dot and the end",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n550 5.1.1 no\r\n354 go", "+ FINISHED", "= QUIT",
      "r 0 failed 550", "> .\nQUIT\n", "< 554 none\r\n221 bye", "+ MORE"}},
    {"MAIL refused for good",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 550 5.1.8 no\r\n503 x\r\n503 x\r\n503 x", "+ FINISHED", "> RSET\n",
      "r 0 failed 550", "r 1 failed 550"}},
    {"MAIL refused for now, in lock-step",
     {0},
     {PLAIN, "> " MAIL "\n", "< 450 no", "+ FINISHED", "> RSET\n", "r 0 due 450"}},
    {"MAIL refused, and 354",
     {0},
     {PIPELINE, FLIGHT1, "< 550 5.1.8 no\r\n503 x\r\n354 go", "+ FINISHED", "= QUIT", "> .\nQUIT\n",
      "r 0 failed 550"}},
    {"MAIL refused, RCPT taken, and 354: the refusal stands",
     {0},
     {PIPELINE, FLIGHT1, "< 550 5.1.8 no\r\n250 ok\r\n354 go", "+ FINISHED", "> .\nQUIT\n",
      "r 0 failed 550"}},
    {"DATA refused",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 250 ok\r\n550 5.1.1 no\r\n250 ok\r\n550 5.6.0 no", "+ FINISHED",
      "> RSET\n", "r 0 failed 550", "r 1 failed 550"}},
    {"DATA refused for now",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n450 no", "+ FINISHED", "> RSET\n", "r 0 due 450"}},
    {"end of data refused for good",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 250 ok\r\n250 ok\r\n450 no\r\n354 go", "body", "< 554 5.6.0 no",
      "+ FINISHED", "= READY", "r 0 failed 554", "r 1 due 450"}},
    {"end of data refused for now",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 451 no", "+ FINISHED",
      "= READY", "r 0 due 451"}},
    {"BDAT",
     {.use_bdat = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin", "> " MAIL "\n" RCPT0,
      "< 250 ok\r\n250 ok", "+ SEND_BODY", "> BDAT 1234 LAST\n", "body", "< 250 ok", "+ FINISHED",
      "= READY", "r 0 ok 250"}},
    {"BDAT refused: RSET",
     {.use_bdat = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin", "> " MAIL "\n" RCPT0,
      "< 250 ok\r\n250 ok", "> BDAT 1234 LAST\n", "body", "< 554 no", "+ FINISHED", "> RSET\n"}},
    {"BDAT, nobody accepted",
     {.use_bdat = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin", "> " MAIL "\n" RCPT0,
      "< 250 ok\r\n550 no", "+ FINISHED", "> RSET\n", "r 0 failed 550"}},
    {"BDAT offered and not wanted",
     {0},
     {"< 220 hi", EHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin", FLIGHT1}},
};

static void test_transactions(void **state)
{
    (void)state;
    run_scripts(transaction_scripts, COUNT_OF(transaction_scripts));
}

/* What cannot go to this server, and what can go nowhere. */
static const struct script unfit_scripts[] = {
    {"SMTPUTF8 needed, not offered",
     {.flags = ENVELOPE_UTF8_NEEDED},
     {PLAIN, "+ FINISHED", "= READY", "> ", "r 0 failed 550"}},
    {"SMTPUTF8 needed, but it was us who said HELO",
     {.flags = ENVELOPE_UTF8_NEEDED, .avoid = SMTPC_ESMTP},
     {"< 220 hi", "> HELO us.example\n", "< 250 y", "begin", "+ FINISHED", "r 0 due 550"}},
    {"SMTPUTF8 asked for, not needed", {.flags = ENVELOPE_SMTPUTF8}, {PLAIN, "> " MAIL "\n"}},
    {"size at the bound",
     {0},
     {"< 220 hi", EHLO, "< 250-y\r\n250 SIZE 1234", "begin", "> " MAIL " SIZE=1234\n"}},
    {"size above the bound",
     {0},
     {"< 220 hi", EHLO, "< 250-y\r\n250 SIZE 1233", "begin", "+ FINISHED", "> ", "r 0 failed 552"}},
    {"eight bits, and bouncing is configured",
     {.flags = ENVELOPE_EIGHT_BIT, .bounce_eight_bit = true},
     {PLAIN, "+ FINISHED", "> ", "r 0 failed 554"}},
    {"CR LF in the sender",
     {.sender = "a\r\nRCPT TO:<b"},
     {PLAIN, "+ FINISHED", "> ", "r 0 failed 553"}},
    {"CR LF in a recipient: the others go",
     {.recipient = "b>\r\nDATA\r\n", .recipient_count = 2},
     {PIPELINE, "> " MAIL "\n" RCPT1 "DATA\n", "r 0 failed 553", "< 250 ok\r\n250 ok\r\n354 go",
      "body", "< 250 ok", "r 0 failed 553", "r 1 ok 250"}},
    {"CR LF in the only recipient",
     {.recipient = "b>\r\nDATA\r\n"},
     {PIPELINE, "+ FINISHED", "= READY", "> ", "r 0 failed 553"}},
};

static void test_unfit_messages(void **state)
{
    (void)state;
    run_scripts(unfit_scripts, COUNT_OF(unfit_scripts));
}

/* Servers that lie, stumble or vanish. */
static const struct script hostile_scripts[] = {
    {"reply without text, then lines for a queue file (CVE-2020-8794)",
     {0},
     {PLAIN, "> " MAIL "\n", "< 250 ok", "> " RCPT0,
      "<< 553-\r\n553\r\n\r\ndispatcher: x\r\nmda-exec: y", "r 0 failed 553"}},
    {"code changes inside a reply",
     {0},
     {PLAIN, "> " MAIL "\n", "< 250-ok\r\n550 no", "+ FAILED", "r 0 due 0"}},
    {"an extra reply shifts the flight: 250 to DATA, all is forgotten",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 250 ok\r\n250 extra\r\n550 5.1.1 no\r\n250 ok", "+ FAILED", "r 0 due 0",
      "r 1 due 0"}},
    {"an extra reply in lock-step",
     {0},
     {PLAIN, "> " MAIL "\n", "< 250 ok\r\n250 ok", "+ FAILED", "> ", "r 0 due 0"}},
    {"an extra reply to the end of data, after the result",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 ok\r\n250 ok", "= FAILED",
      "r 0 ok 250"}},
    {"an unsolicited reply between transactions",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 ok", "+ FINISHED",
      "< 421 idle too long", "+ FAILED"}},
    {"250 before the final dot",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "+ SEND_BODY", "< 250 ok", "+ FAILED",
      "r 0 due 0"}},
    {"5xx before the final dot: believed, and the connection is of no more use",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "+ SEND_BODY", "< 552 5.3.4 big",
      "+ FINISHED", "= FAILED", "r 0 failed 552"}},
    {"500 to the body's first line: not believed",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "+ SEND_BODY", "< 500 what", "+ FAILED",
      "r 0 due 0"}},
    {"354 to MAIL", {0}, {PLAIN, "> " MAIL "\n", "< 354 go", "+ FAILED", "r 0 due 0"}},
    {"354 to RCPT", {0}, {PIPELINE, FLIGHT1, "< 250 ok\r\n354 go", "+ FAILED", "r 0 due 0"}},
    {"250 to DATA",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n250 ok", "+ FAILED", "r 0 due 0"}},
    {"421 to EHLO", {0}, {"< 220 hi", EHLO, "< 421 no", "+ FAILED"}},
    {"421 to MAIL", {0}, {PIPELINE, FLIGHT1, "< 421 no", "+ FAILED", "r 0 due 0"}},
    {"421 to RCPT: refusals already read are kept",
     {.recipient_count = 2},
     {PIPELINE, FLIGHT2, "< 250 ok\r\n550 5.1.1 no\r\n421 closing", "+ FAILED", "r 0 failed 550",
      "r 1 due 0"}},
    {"421 to DATA",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n421 no", "+ FAILED", "r 0 due 0"}},
    {"421 to the end of data: not in doubt, it was not taken",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 421 no", "+ FAILED",
      "r 0 due 0"}},
    {"RSET refused",
     {0},
     {PIPELINE, FLIGHT1, "< 250 ok\r\n550 no\r\n554 no", "+ FINISHED", "< 500 what", "+ FAILED"}},
};

static void test_hostile_servers(void **state)
{
    (void)state;
    run_scripts(hostile_scripts, COUNT_OF(hostile_scripts));
}

/* One reply more than there were commands, in one piece with them: a refusal among them may be
 * anybody's, and none is believed. */
static void test_surplus_makes_refusals_worthless(void **state)
{
    static const char *const replies[] = {
        "< 250 ok\r\n250 ok\r\n550 5.1.1 shifted\r\n250 ok",
        "< 250 ok\r\n550 5.1.1 shifted\r\n554 none\r\n250 ok",
        "< 550 5.1.8 shifted\r\n503 x\r\n503 x\r\n250 ok",
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(replies); i++) {
        static const struct setup setup = {0};
        static const char *const before[] = {PIPELINE, FLIGHT1};
        struct fixture fixture;

        fixture_init(&fixture, &setup);
        for (size_t line = 0; line < COUNT_OF(before); line++)
            run_line(&fixture, &setup, before[line], 10000);
        run_line(&fixture, &setup, replies[i], 10000);
        assert_int_equal(SMTPC_FAILED, fixture.event);
        assert_int_equal(SMTP_SCOPE_PROTOCOL, fixture.session.failure.scope);
        assert_int_equal(RECIPIENT_DUE, fixture.results[0].state);
        arena_fini(&fixture.arena);
    }
}

/* A line of `size` octets, an EHLO of `count` keywords: the bounds hold inside the engine too. */
static void test_endless_replies(void **state)
{
    struct fixture fixture;
    static const struct setup setup = {0};

    (void)state;
    fixture_init(&fixture, &setup);
    feed(&fixture, SPAN_LITERAL("220 hi\r\n250-y\r\n"), 8);
    for (uint32_t i = 0; i < 10000 && fixture.event != SMTPC_FAILED; i++)
        feed(&fixture, SPAN_LITERAL("250-XKEYWORD\r\n"), 100);
    assert_int_equal(SMTPC_FAILED, fixture.event);
    assert_true(fixture.session.failure.is_broken);
    arena_fini(&fixture.arena);
}

/* In doubt is the time between the end of the body and its complete reply, and no other. */
static void test_in_doubt(void **state)
{
    static const struct {
        const char *name;
        const char *lines[12];
        bool is_in_doubt;
    } cases[] = {
        {"lost in the greeting", {"lost"}, false},
        {"lost in the envelope", {PIPELINE, "< 250 ok", "lost"}, false},
        {"lost in the body", {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "lost"}, false},
        {"lost after the end", {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "body", "lost"}, true},
        {"lost inside the reply",
         {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "body", "<< 250-o", "lost"},
         true},
        {"an unreadable reply", {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "body", "< huh?"}, true},
        {"421 to the end",
         {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "body", "< 421 no", "lost"},
         false},
        {"by LMTP, before its first reply",
         {PIPELINE, "< 250 ok\r\n250 ok\r\n354 go", "body", "lost"},
         true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture fixture;
        static const struct setup setup = {0};

        print_message("# case: %s\n", cases[i].name);
        fixture_init(&fixture, &setup);
        for (uint32_t line = 0; line < 12 && cases[i].lines[line] != NULL; line++) {
            if (cases[i].lines[line][0] == '>')
                fixture.sent_size = 0;
            else
                run_line(&fixture, &setup, cases[i].lines[line], 1000);
        }
        assert_int_equal(SMTPC_STATE_FAILED, fixture.session.state);
        assert_int_equal(cases[i].is_in_doubt, fixture.session.failure.is_in_doubt);
        assert_true(!cases[i].is_in_doubt || fixture.results[0].state == RECIPIENT_DUE);
        arena_fini(&fixture.arena);
    }
}

#define LHLO "> LHLO us.example\n"
#define LMTP3                                                                                      \
    "< 220 hi", LHLO, "< 250-y.example\r\n250 PIPELINING", "+ READY", "begin",                     \
        "> " MAIL "\n" RCPT0 RCPT1 RCPT2 "DATA\n"
#define LMTP3_TAKEN LMTP3, "< 250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 go", "+ SEND_BODY", "body"

/* RFC 2033: a reply for each accepted recipient behind the end of the body, in their order. */
static const struct script lmtp_scripts[] = {
    {"there is no HELO",
     {.is_lmtp = true},
     {"< 220 hi", LHLO, "< 500 what", "+ FAILED", "quit", "> QUIT\n"}},
    {"all are delivered",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250 2.0.0 a", "+ MORE", "= END", "< 250 b", "= END", "< 250 c", "+ FINISHED",
      "= READY", "r 0 ok 250", "r 1 ok 250", "r 2 ok 250"}},
    {"in one segment, and the next transaction",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250 a\r\n250 b\r\n250 c", "+ FINISHED", "begin",
      "> " MAIL "\n" RCPT0 RCPT1 RCPT2 "DATA\n"}},
    {"each has its own fate",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 452 4.2.2 full", "< 250 b", "< 552 5.2.2 full", "+ FINISHED", "= READY",
      "r 0 due 452", "r 1 ok 250", "r 2 failed 552"}},
    {"replies are those of the accepted",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3, "< 250 a\r\n250 b\r\n550 5.1.1 no\r\n250 d\r\n354 go", "+ SEND_BODY", "body",
      "< 550 5.7.1 no", "= END", "< 250 c", "+ FINISHED", "r 0 failed 550", "r 1 failed 550",
      "r 2 ok 250"}},
    {"the only one accepted is the last",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3, "< 250 a\r\n450 4.2.0 no\r\n550 5.1.1 no\r\n250 d\r\n354 go", "body", "< 250 c",
      "+ FINISHED", "r 0 due 450", "r 1 failed 550", "r 2 ok 250"}},
    {"421 to one is that one's",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250 a", "< 421 4.3.2 closing", "+ MORE", "= END", "lost", "= FAILED",
      "r 0 ok 250", "r 1 due 421", "r 2 due 0"}},
    {"multi-line replies are one each",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250-a\r\n250 a", "= END", "< 250-b\r\n250 b", "= END", "< 550-c\r\n550 c",
      "+ FINISHED", "r 1 ok 250", "r 2 failed 550"}},
    {"503 to one: nobody knows what is answered",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250 a", "< 503 5.5.1 what", "+ FAILED", "r 0 ok 250", "r 1 due 0",
      "r 2 due 0"}},
    {"a reply too many",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "< 250 a", "< 250 b", "< 250 c", "+ FINISHED", "< 250 d", "+ FAILED",
      "r 2 ok 250"}},
    {"refused before the end: whose reply is it?",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3, "< 250 a\r\n250 b\r\n250 c\r\n250 d\r\n354 go", "+ SEND_BODY", "< 552 5.2.2 full",
      "+ FAILED", "r 0 due 0", "r 1 due 0", "r 2 due 0"}},
    {"BDAT: the same replies, RSET after a refusal",
     {.is_lmtp = true, .use_bdat = true, .recipient_count = 2},
     {"< 220 hi", LHLO, "< 250-y.example\r\n250-PIPELINING\r\n250 CHUNKING", "begin",
      "> " MAIL "\n" RCPT0 RCPT1, "< 250 a\r\n250 b\r\n250 c", "+ SEND_BODY", "> BDAT 1234 LAST\n",
      "body", "< 452 4.2.2 full", "= END", "< 250 b", "+ FINISHED", "> RSET\n", "r 0 due 452",
      "r 1 ok 250"}},
    {"BDAT: taken by all, no RSET",
     {.is_lmtp = true, .use_bdat = true, .recipient_count = 2},
     {"< 220 hi", LHLO, "< 250-y.example\r\n250-PIPELINING\r\n250 CHUNKING", "begin",
      "> " MAIL "\n" RCPT0 RCPT1, "< 250 a\r\n250 b\r\n250 c", "body", "< 250 a", "< 250 b",
      "+ FINISHED", "= READY"}},
};

static void test_lmtp(void **state)
{
    (void)state;
    run_scripts(lmtp_scripts, COUNT_OF(lmtp_scripts));
}

#define SENT1                                                                                      \
    PIPELINE, FLIGHT1, "< 250 ok\r\n250 ok\r\n354 go", "+ SEND_BODY", "room 0", "body", "room 1"
#define NEXT   "MAIL FROM:<a@x.example>\n"
#define NEXT0  NEXT "RCPT TO:<n0@y.example>\nDATA\n"
#define BEHIND SENT1, "follow", "> " NEXT0, "room 0", "= END"
#define CHUNKS "< 220 hi", EHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin"

/* RFC 2920 section 3.1: a group of commands may begin behind the end of data. Whatever is said of
 * one message, it is said of that one. */
static const struct script next_scripts[] = {
    {"both are taken",
     {0},
     {BEHIND, "< 250 one", "+ FINISHED", "= ENVELOPE", "r 0 ok 250", "r 4 due 0",
      "< 250 ok\r\n250 ok", "+ MORE", "< 354 go", "+ SEND_BODY", "body", "< 250 two", "+ FINISHED",
      "= READY", "r 0 ok 250", "r 4 ok 250"}},
    {"all in one segment, up to the second 354",
     {0},
     {BEHIND, "< 250-one\r\n250 one\r\n250 ok\r\n250-ok\r\n250 ok\r\n354 go", "r 0 ok 250",
      "= BODY", "body", "room 1", "< 554 no", "r 0 ok 250", "r 4 failed 554"}},
    {"three, each with the end of the one before",
     {0},
     {BEHIND, "< 250 one\r\n250 ok\r\n250 ok\r\n354 go", "= BODY", "room 0", "body", "follow",
      "> " NEXT "RCPT TO:<n1@y.example>\nDATA\n", "< 451 4.6.0 two", "= ENVELOPE",
      "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 three", "= READY", "r 0 ok 250", "r 4 due 451",
      "r 5 ok 250"}},
    {"the first is refused",
     {0},
     {BEHIND, "< 554 5.6.0 no", "+ FINISHED", "= ENVELOPE", "r 0 failed 554", "r 4 due 0",
      "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 two", "r 0 failed 554", "r 4 ok 250"}},
    {"the first is refused for now",
     {0},
     {BEHIND, "< 451 4.6.0 later", "+ FINISHED", "r 0 due 451", "< 250 ok\r\n250 ok\r\n354 go",
      "body", "< 250 two", "r 0 due 451", "r 4 ok 250"}},
    {"the first meets the server's own trouble: the second goes on there",
     {0},
     {BEHIND, "< 451 4.3.0 my disk", "+ FINISHED", "= ENVELOPE", "r 0 due 451",
      "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 two", "r 4 ok 250"}},
    {"421 to the first is both's, and neither is in doubt",
     {0},
     {BEHIND, "< 421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 due 0", "r 4 due 0"}},
    {"421 to the second's MAIL is the second's",
     {0},
     {BEHIND, "< 250 one\r\n421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 ok 250", "r 4 due 0"}},
    {"421 to the second's RCPT, and to its DATA",
     {0},
     {BEHIND, "< 250 one\r\n250 ok", "< 421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 ok 250"}},
    {"lost before the first's reply",
     {0},
     {BEHIND, "lost", "= FAILED", "doubt 1", "r 0 due 0", "r 4 due 0"}},
    {"lost behind the first's reply",
     {0},
     {BEHIND, "< 250 one", "lost", "= FAILED", "doubt 0", "r 0 ok 250", "r 4 due 0"}},
    {"lost behind the second's 354",
     {0},
     {BEHIND, "< 250 one", "< 250 ok\r\n250 ok\r\n354 go", "lost", "doubt 0", "r 0 ok 250",
      "r 4 due 0"}},
    {"lost behind the second's end",
     {0},
     {BEHIND, "< 250 one", "< 250 ok\r\n250 ok\r\n354 go", "body", "lost", "doubt 1",
      "r 0 ok 250"}},
    {"the second's MAIL is refused",
     {0},
     {BEHIND, "< 250 one", "< 550 5.1.8 no\r\n503 x\r\n503 x", "+ FINISHED", "= RSET", "r 0 ok 250",
      "r 4 failed 550"}},
    {"the second's recipient is refused",
     {0},
     {BEHIND, "< 250 one", "< 250 ok\r\n550 5.1.1 no\r\n554 none", "+ FINISHED", "> RSET\n",
      "r 0 ok 250", "r 4 failed 550"}},
    {"the second's recipient is refused, and 354: a lone dot",
     {0},
     {BEHIND, "< 250 one", "< 250 ok\r\n550 5.1.1 no\r\n354 go", "+ FINISHED", "> .\nQUIT\n",
      "r 4 failed 550"}},
    {"the second's DATA is refused",
     {0},
     {BEHIND, "< 250 one", "< 250 ok\r\n250 ok\r\n450 no", "+ FINISHED", "= RSET", "r 4 due 450"}},
    {"the first's reply comes twice: nothing is believed of the second",
     {0},
     {BEHIND, "< 250 one", "< 250 one\r\n250 ok\r\n250 ok", "+ FAILED", "doubt 0", "r 0 ok 250",
      "r 4 due 0"}},
    {"a reply that is none, in between",
     {0},
     {BEHIND, "< 250 one", "< hello", "+ FAILED", "doubt 0", "r 0 ok 250", "r 4 due 0"}},
    {"a server that forgot what was sent behind the end never answers",
     {0},
     {BEHIND, "< 250 one", "lost", "doubt 0", "r 4 due 0"}},
    {"nobody wants the second any more",
     {0},
     {BEHIND, "unfollow", "room 0", "< 250 one", "+ FINISHED", "= FAILED", "r 0 ok 250",
      "r 4 due 0"}},
    {"by LMTP the first has three replies",
     {.is_lmtp = true, .recipient_count = 3},
     {LMTP3_TAKEN, "follow", "> " NEXT0, "< 250 a", "= END", "< 450 4.2.2 b\r\n250 c", "+ FINISHED",
      "= ENVELOPE", "r 1 due 450", "r 2 ok 250", "< 250 ok\r\n250 ok\r\n354 go", "body", "< 250 d",
      "r 4 ok 250"}},
    {"behind BDAT goes RSET",
     {.use_bdat = true},
     {CHUNKS, "> " MAIL "\n" RCPT0, "< 250 ok\r\n250 ok", "> BDAT 1234 LAST\n", "body", "follow",
      "> RSET\n" NEXT "RCPT TO:<n0@y.example>\n", "< 554 no", "= ENVELOPE", "r 0 failed 554",
      "< 250 reset\r\n250 ok\r\n250 ok", "+ SEND_BODY", "> BDAT 5 LAST\n", "body", "< 250 two",
      "r 4 ok 250"}},
    {"that RSET is refused",
     {.use_bdat = true},
     {CHUNKS, "> " MAIL "\n" RCPT0, "< 250 ok\r\n250 ok", "body", "follow", "< 250 one",
      "< 502 what", "+ FAILED", "doubt 0", "r 0 ok 250", "r 4 due 0"}},
    {"no room in lock-step", {0}, {PLAIN, "< 250 ok", "< 250 ok", "< 354 go", "body", "room 0"}},
    {"no room behind mail that goes alone",
     {.is_alone = true},
     {PIPELINE, "< 250 ok", "< 250 ok", "< 354 go", "body", "= END", "room 0"}},
};

static void test_next(void **state)
{
    (void)state;
    run_scripts(next_scripts, COUNT_OF(next_scripts));
}

#define AHEAD     CHUNKS, "> " MAIL "\n" RCPT0 "BDAT 1234 LAST\n[body]\n", "= ENVELOPE", "room 1"
#define AHEAD2    CHUNKS, "> " MAIL "\n" RCPT0 RCPT1 "BDAT 1234 LAST\n[body]\n"
#define NEXT_N(n) "follow", "> RSET\n" NEXT "RCPT TO:<n" #n "@y.example>\nBDAT 5 LAST\n[body]\n"
#define ASKED     .use_bdat = true, .is_ahead = true

/* A whole transaction in one flight, and others behind it. */
static const struct script ahead_scripts[] = {
    {"taken",
     {ASKED},
     {AHEAD, "< 250 ok", "< 250 ok", "= END", "< 250 ok", "+ FINISHED", "= READY", "r 0 ok 250"}},
    {"not without CHUNKING", {ASKED}, {PIPELINE, FLIGHT1}},
    {"not without PIPELINING",
     {ASKED},
     {"< 220 hi", EHLO, "< 250-y\r\n250 CHUNKING", "begin", "> " MAIL "\n"}},
    {"not by LMTP",
     {ASKED, .is_lmtp = true},
     {"< 220 hi", LHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin",
      "> " MAIL "\n" RCPT0}},
    {"not when it goes alone", {ASKED, .is_alone = true}, {CHUNKS, "> " MAIL "\n"}},
    {"MAIL is refused, the chunk too",
     {ASKED},
     {AHEAD, "< 550 5.1.8 no\r\n503 x", "= END", "< 503 x", "+ FINISHED", "> RSET\n",
      "r 0 failed 550"}},
    {"one of two is refused",
     {ASKED, .recipient_count = 2},
     {AHEAD2, "< 250 ok\r\n550 5.1.1 no\r\n250 ok\r\n250 ok", "+ FINISHED", "= READY",
      "r 0 failed 550", "r 1 ok 250"}},
    {"both are refused, the chunk too",
     {ASKED, .recipient_count = 2},
     {AHEAD2, "< 250 ok\r\n550 5.1.1 no\r\n450 later\r\n503 5.5.1 none", "+ FINISHED", "= RSET",
      "r 0 failed 550", "r 1 due 450"}},
    {"too many recipients, none taken: not at once",
     {ASKED},
     {AHEAD, "< 250 ok\r\n452 4.5.3 many\r\n554 none", "+ FINISHED", "r 0 due 452"}},
    {"taken for nobody: what was said of recipients is worth nothing",
     {ASKED},
     {AHEAD, "< 250 ok\r\n550 5.1.1 no\r\n250 ok", "+ FAILED", "doubt 1", "r 0 due 0"}},
    {"the chunk is refused",
     {ASKED},
     {AHEAD, "< 250 ok\r\n250 ok\r\n554 5.6.0 no", "= RSET", "r 0 failed 554"}},
    {"BDAT is not understood there",
     {ASKED},
     {AHEAD, "< 250 ok\r\n250 ok\r\n503 5.5.1 what", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"421 to MAIL", {ASKED}, {AHEAD, "< 421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"421 to RCPT",
     {ASKED},
     {AHEAD, "< 250 ok\r\n421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"421 to the chunk that nobody was to get",
     {ASKED},
     {AHEAD, "< 250 ok\r\n550 5.1.1 no\r\n421 4.3.2 closing", "= FAILED", "r 0 failed 550"}},
    {"521 to RCPT: the chunk may be taken yet",
     {ASKED, .recipient_count = 2},
     {AHEAD2, "< 250 ok\r\n250 ok\r\n521 no mail", "+ FAILED", "doubt 1", "r 0 due 0"}},
    {"503 to MAIL: the chunk is refused",
     {ASKED},
     {AHEAD, "< 503 what", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"354 to MAIL: who knows", {ASKED}, {AHEAD, "< 354 go", "+ FAILED", "doubt 1", "r 0 due 0"}},
    {"lost before any reply", {ASKED}, {AHEAD, "lost", "doubt 1", "r 0 due 0"}},
    {"lost behind MAIL's", {ASKED}, {AHEAD, "< 250 ok", "lost", "doubt 1", "r 0 due 0"}},
    {"lost behind RCPT's", {ASKED}, {AHEAD, "< 250 ok\r\n250 ok", "lost", "doubt 1", "r 0 due 0"}},
    {"lost behind MAIL's refusal",
     {ASKED},
     {AHEAD, "< 550 5.1.8 no", "lost", "doubt 0", "r 0 failed 550"}},
    {"lost behind the only RCPT's refusal",
     {ASKED},
     {AHEAD, "< 250 ok\r\n550 5.1.1 no", "lost", "doubt 0", "r 0 failed 550"}},
    {"lost behind the refusal of one of two",
     {ASKED, .recipient_count = 2},
     {AHEAD2, "< 250 ok\r\n550 5.1.1 no", "lost", "doubt 1", "r 0 failed 550", "r 1 due 0"}},
    {"nonsense among the replies",
     {ASKED, .recipient_count = 2},
     {AHEAD2, "< 250 ok\r\n550 5.1.1 no\r\nhello", "+ FAILED", "doubt 1", "r 0 due 0",
      "r 1 due 0"}},
    {"eight messages before the first reply, each with its own fate",
     {ASKED},
     {AHEAD,
      NEXT_N(0),
      NEXT_N(1),
      NEXT_N(2),
      NEXT_N(3),
      NEXT_N(4),
      NEXT_N(5),
      NEXT_N(6),
      "room 0",
      "< 250 ok\r\n250 ok\r\n554 5.6.0 first",
      "= ENVELOPE",
      "room 1",
      "r 0 failed 554",
      "< 250 r\r\n250 ok\r\n250 ok\r\n250 n0",
      "r 4 ok 250",
      "< 250 r\r\n550 5.1.8 n1\r\n503 x\r\n503 x\r\n250 r\r\n250 ok\r\n550 5.1.1 n2\r\n503 x",
      "r 5 failed 550",
      "r 6 failed 550",
      "lost",
      "doubt 1",
      "r 7 due 0"}},
    {"RSET is refused behind a chunk that was sent ahead",
     {ASKED},
     {AHEAD, NEXT_N(0), "< 250 ok\r\n250 ok\r\n250 first", "< 500 RSET?", "+ FAILED", "doubt 1",
      "r 0 ok 250", "r 4 due 0"}},
};

#define OPEN .use_bdat = true, .is_open = true
#define OPENED                                                                                     \
    CHUNKS, "may 0", "> " MAIL "\n" RCPT0, "< 250 ok\r\n250 ok", "+ SEND_BODY", "> ", "may 1"
#define OPENED1                                                                                    \
    "< 220 hi", EHLO, "< 250-y\r\n250 CHUNKING", "begin", "< 250 ok", "< 250 ok", "+ SEND_BODY",   \
        "> " MAIL "\n" RCPT0

/* A body that is still coming: in chunks, as many ahead of their replies as may be. */
static const struct script chunk_scripts[] = {
    {"the last alone",
     {OPEN},
     {OPENED, "last 7", "> BDAT 7 LAST\n", "= END", "may 0", "< 250 ok", "= READY", "r 0 ok 250"}},
    {"an empty last one",
     {OPEN},
     {OPENED, "chunk 9", "> BDAT 9\n", "last 0", "> BDAT 0 LAST\n", "< 250 chunk", "+ MORE",
      "= END", "< 250 ok", "+ FINISHED", "r 0 ok 250"}},
    {"eight ahead of their replies, not nine",
     {OPEN},
     {OPENED,
      "chunk 1",
      "chunk 2",
      "chunk 3",
      "chunk 4",
      "chunk 5",
      "chunk 6",
      "chunk 7",
      "may 1",
      "chunk 8",
      "may 0",
      "< 250 one",
      "+ MORE",
      "may 1",
      "chunk 9",
      "may 0",
      "< 250 2\r\n250 3\r\n250 4\r\n250 5\r\n250 6\r\n250 7\r\n250 8\r\n250 9",
      "may 1",
      "last 3",
      "= END",
      "< 250 all",
      "= READY",
      "r 0 ok 250"}},
    {"one at a time without PIPELINING",
     {OPEN},
     {OPENED1, "may 1", "chunk 5", "> BDAT 5\n", "may 0", "< 250 ok", "may 1", "last 6",
      "> BDAT 6 LAST\n", "< 250 ok", "= READY", "r 0 ok 250"}},
    {"one is refused, others are on their way: nothing can follow",
     {OPEN},
     {OPENED, "chunk 1", "chunk 2", "chunk 3", "< 250 one\r\n552 5.3.4 too much", "+ FINISHED",
      "= FAILED", "r 0 failed 552"}},
    {"one is refused for now",
     {OPEN},
     {OPENED, "chunk 1", "< 452 4.3.1 no room", "+ FINISHED", "= FAILED", "r 0 due 452"}},
    {"one is refused behind the last",
     {OPEN},
     {OPENED, "chunk 1", "last 2", "< 552 5.3.4 too much", "+ FINISHED", "= FAILED",
      "r 0 failed 552"}},
    {"the last is refused",
     {OPEN},
     {OPENED, "chunk 1", "last 2", "< 250 one", "< 554 5.6.0 no", "+ FINISHED", "= RSET",
      "> BDAT 1\nBDAT 2 LAST\nRSET\n", "r 0 failed 554"}},
    {"421 to a chunk",
     {OPEN},
     {OPENED, "chunk 1", "< 421 4.3.2 closing", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"a reply that no chunk asked for",
     {OPEN},
     {OPENED, "chunk 1", "< 250 one", "< 250 two", "+ FAILED", "doubt 0", "r 0 due 0"}},
    {"lost in the middle is not in doubt",
     {OPEN},
     {OPENED, "chunk 1", "chunk 2", "< 250 one", "lost", "doubt 0", "r 0 due 0"}},
    {"lost behind the last is",
     {OPEN},
     {OPENED, "chunk 1", "last 2", "< 250 one", "lost", "doubt 1", "r 0 due 0"}},
    {"the next message goes behind the last chunk",
     {OPEN},
     {OPENED, "chunk 1", "room 0", "last 2", "room 1", "> BDAT 1\nBDAT 2 LAST\n", "follow",
      "> RSET\n" NEXT "RCPT TO:<n0@y.example>\n", "< 250 one", "= END", "< 250 all", "+ FINISHED",
      "= ENVELOPE", "r 0 ok 250", "< 250 reset\r\n250 ok\r\n250 ok", "+ SEND_BODY"}},
    {"refused behind the last, with the next message behind it",
     {OPEN},
     {OPENED, "chunk 1", "last 2", "follow", "< 552 5.3.4 too much", "+ FINISHED", "= FAILED",
      "r 0 failed 552", "r 4 due 0"}},
    {"by LMTP a refused chunk may be one recipient's",
     {OPEN, .is_lmtp = true, .recipient_count = 2},
     {"< 220 hi", LHLO, "< 250-y\r\n250-CHUNKING\r\n250 PIPELINING", "begin",
      "< 250 a\r\n250 b\r\n250 c", "chunk 1", "< 552 5.2.2 full", "+ FAILED", "r 0 due 0",
      "r 1 due 0"}},
    {"SIZE is said where it is known",
     {OPEN},
     {"< 220 hi", EHLO, "< 250-y\r\n250-SIZE\r\n250 CHUNKING", "begin", "> " MAIL " SIZE=1234\n"}},
    {"and not where it is not",
     {OPEN, .is_size_unsaid = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-SIZE\r\n250 CHUNKING", "begin", "> " MAIL "\n"}},
    {"a server without 8BITMIME that must know the octets",
     {OPEN, .bounce_eight_bit = true},
     {CHUNKS, "+ FINISHED", "= READY", "> ", "r 0 due 0"}},
    {"one with it need not",
     {OPEN, .bounce_eight_bit = true},
     {"< 220 hi", EHLO, "< 250-y\r\n250-8BITMIME\r\n250 CHUNKING", "begin",
      "> " MAIL " BODY=8BITMIME\n"}},
    {"nothing goes ahead of it", {OPEN, .is_ahead = true}, {OPENED}},
};

static void test_chunks(void **state)
{
    (void)state;
    run_scripts(chunk_scripts, COUNT_OF(chunk_scripts));
}

static void test_ahead(void **state)
{
    (void)state;
    run_scripts(ahead_scripts, COUNT_OF(ahead_scripts));
}

/* Every state that awaits a reply, every code: no crash, a failure has a reason, a recipient is
 * given up only for a 5xx, and delivered only for a 2xx to the end of data. */
static void test_states_and_codes(void **state)
{
    static const char *const prefixes[][12] = {
        {NULL},
        {"< 220 hi", NULL},
        {"< 220 hi", "< 502 x", NULL},
        {"< 220 hi", "< 250-y\r\n250 STARTTLS", NULL},
        {"< 220 hi", "< 250-y\r\n250 STARTTLS", "< 220 go", "tls", "< 250-y\r\n250 AUTH LOGIN",
         NULL},
        {PLAIN, NULL},
        {PLAIN, "< 250 ok", NULL},
        {PLAIN, "< 250 ok", "< 250 ok", NULL},
        {PLAIN, "< 250 ok", "< 250 ok", "< 354 go", NULL},
        {PLAIN, "< 250 ok", "< 250 ok", "< 354 go", "body", NULL},
        {PLAIN, "< 250 ok", "< 550 no", NULL},
        /* By LMTP. */
        {PLAIN, NULL},
        {PLAIN, "< 250 ok", "< 250 ok", "< 354 go", NULL},
        {PLAIN, "< 250 ok", "< 250 ok", "< 354 go", "body", NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(prefixes); i++) {
        struct setup setup = {.tls = i == 3 || i == 4 ? SETTINGS_TLS_MAY : SETTINGS_TLS_NONE,
                              .has_tls = true,
                              .has_auth = i == 4,
                              .is_lmtp = i >= 11};
        for (unsigned int code = 200; code < 600; code++) {
            struct fixture fixture;
            char line[16];

            fixture_init(&fixture, &setup);
            for (uint32_t at = 0; prefixes[i][at] != NULL; at++) {
                if (prefixes[i][at][0] != '>' && prefixes[i][at][0] != '+')
                    run_line(&fixture, &setup, prefixes[i][at], 1000);
            }
            fixture.sent_size = 0;
            bool was_refused = fixture.results[0].state == RECIPIENT_FAILED;
            bool was_end = fixture.session.state == SMTPC_STATE_END;
            snprintf(line, sizeof(line), "< %u x", code);
            run_line(&fixture, &setup, line, 1000);
            if (fixture.event == SMTPC_FAILED)
                assert_true(fixture.session.failure.text.size > 0);
            if (fixture.results[0].state == RECIPIENT_FAILED && !was_refused)
                assert_in_range(code, 500, 599);
            assert_int_equal(was_end && code < 300,
                             fixture.results[0].state == RECIPIENT_DELIVERED);
            arena_fini(&fixture.arena);
        }
    }
}

/* A hundred long recipients need several drains and arrive in order, each whole. */
static void test_large_flight(void **state)
{
    static char addresses[100][300];
    struct smtpc_recipient recipients[100];
    struct client_recipient_result results[100];
    struct fixture fixture;
    static const struct setup setup = {0};
    uint8_t room[SMTPC_ROOM_MIN];
    uint32_t size, drains = 0, lines = 0;

    (void)state;
    fixture_init(&fixture, &setup);
    feed(&fixture, SPAN_LITERAL("220 hi\r\n"), 100);
    feed(&fixture, SPAN_LITERAL("250-y\r\n250 PIPELINING\r\n"), 100);
    memset(results, 0, sizeof(results));
    for (uint32_t i = 0; i < 100; i++) {
        snprintf(addresses[i], sizeof(addresses[i]), "%0*u@y.example", 240, i);
        recipients[i] = (struct smtpc_recipient){.address = span_from_text(addresses[i]),
                                                 .result = &results[i]};
    }
    assert_int_equal(SMTPC_MORE, smtpc_begin(&fixture.session, &(struct smtpc_transaction){
                                                                   .envelope = &fixture.envelope,
                                                                   .recipients = recipients,
                                                                   .recipient_count = 100,
                                                                   .arena = &fixture.arena}));
    while ((size = smtpc_drain(&fixture.session, (struct span_mut){room, sizeof(room)})) > 0) {
        drains++;
        assert_memory_equal("\r\n", room + size - 2, 2);
        for (uint32_t i = 0; i < size; i++)
            lines += room[i] == '\n';
    }
    assert_true(drains > 1);
    assert_int_equal(102, lines);
    assert_int_equal(102, fixture.session.replies_due);
    feed(&fixture, SPAN_LITERAL("250 ok\r\n"), 100);
    for (uint32_t i = 0; i < 99; i++)
        feed(&fixture, SPAN_LITERAL("550 5.1.1 no\r\n"), 100);
    feed(&fixture, SPAN_LITERAL("250 ok\r\n354 go\r\n"), 100);
    assert_int_equal(SMTPC_SEND_BODY, fixture.event);
    smtpc_body_done(&fixture.session);
    feed(&fixture, SPAN_LITERAL("250 done\r\n"), 100);
    assert_int_equal(RECIPIENT_FAILED, results[98].state);
    assert_int_equal(RECIPIENT_DELIVERED, results[99].state);
    arena_fini(&fixture.arena);
}

/* RFC 3461 section 5.2: what the sender said of notices goes to hosts that offer DSN, and only
 * there; the result tells whether it went. */
static void test_dsn_is_passed_on(void **state)
{
    static const struct {
        const char *ehlo, *sent;
        uint32_t flags, avoid;
        bool is_passed_on;
    } rows[] = {
        {"250-y\r\n250-PIPELINING\r\n250 DSN\r\n",
         "MAIL FROM:<a@x.example> RET=FULL ENVID=Q+2BQ\r\n"
         "RCPT TO:<r0@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;R0@y.example\r\n"
         "RCPT TO:<r1@y.example>\r\nDATA\r\n",
         ENVELOPE_RET_FULL, 0, true},
        {"250-y\r\n250-dsn\r\n250 PIPELINING\r\n",
         "MAIL FROM:<a@x.example> RET=HDRS ENVID=Q+2BQ\r\n"
         "RCPT TO:<r0@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;R0@y.example\r\n"
         "RCPT TO:<r1@y.example>\r\nDATA\r\n",
         ENVELOPE_RET_HEADERS, 0, true},
        {"250-y\r\n250-DSNS\r\n250 PIPELINING\r\n",
         "MAIL FROM:<a@x.example>\r\nRCPT TO:<r0@y.example>\r\nRCPT TO:<r1@y.example>\r\nDATA\r\n",
         ENVELOPE_RET_FULL, 0, false},
        {"250-y\r\n250-DSN\r\n250 PIPELINING\r\n",
         "MAIL FROM:<a@x.example>\r\nRCPT TO:<r0@y.example>\r\nRCPT TO:<r1@y.example>\r\nDATA\r\n",
         ENVELOPE_RET_FULL, SMTPC_DSN, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        static const struct setup setup = {0};
        struct fixture f;

        fixture_init(&f, &setup);
        f.session.options.avoid = rows[i].avoid;
        feed(&f, SPAN_LITERAL("220 hi\r\n"), 100);
        feed(&f, span_from_text(rows[i].ehlo), 100);
        f.sent_size = 0;
        f.envelope.sender = SPAN_LITERAL("a@x.example");
        f.envelope.envid = SPAN_LITERAL("Q+2BQ");
        f.envelope.flags = rows[i].flags;
        memset(f.results, 0, sizeof(f.results));
        f.recipients[0] = (struct smtpc_recipient){
            .address = SPAN_LITERAL("r0@y.example"),
            .orcpt = SPAN_LITERAL("rfc822;R0@y.example"),
            .notify = ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY,
            .result = &f.results[0],
        };
        f.recipients[1] = (struct smtpc_recipient){.address = SPAN_LITERAL("r1@y.example"),
                                                   .result = &f.results[1]};
        assert_int_equal(SMTPC_MORE, smtpc_begin(&f.session, &(struct smtpc_transaction){
                                                                 .envelope = &f.envelope,
                                                                 .recipients = f.recipients,
                                                                 .recipient_count = 2,
                                                                 .arena = &f.arena}));
        drain(&f);
        f.sent[f.sent_size] = '\0';
        assert_string_equal(rows[i].sent, f.sent);
        feed(&f, SPAN_LITERAL("250 ok\r\n250 ok\r\n550 5.1.1 no\r\n354 go\r\n"), 100);
        smtpc_body_done(&f.session);
        feed(&f, SPAN_LITERAL("250 done\r\n"), 100);
        assert_int_equal(RECIPIENT_DELIVERED, f.results[0].state);
        assert_int_equal(rows[i].is_passed_on, f.results[0].is_dsn_passed_on);
        assert_false(f.results[1].is_dsn_passed_on);
        arena_fini(&f.arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_transactions),
        cmocka_unit_test(test_unfit_messages),
        cmocka_unit_test(test_hostile_servers),
        cmocka_unit_test(test_surplus_makes_refusals_worthless),
        cmocka_unit_test(test_endless_replies),
        cmocka_unit_test(test_in_doubt),
        cmocka_unit_test(test_lmtp),
        cmocka_unit_test(test_next),
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_chunks),
        cmocka_unit_test(test_states_and_codes),
        cmocka_unit_test(test_large_flight),
        cmocka_unit_test(test_dsn_is_passed_on),
    };
    return cmocka_run_group_tests_name("smtpc", tests, NULL, NULL);
}
