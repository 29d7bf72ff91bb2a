/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: every reply at every stage has a verdict, and only what is truly the message's or the
 * recipient's fault is ever permanent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "relay/judge.h"

static struct smtp_reply reply_of(const char *text)
{
    struct smtp_reply_parser parser;
    char line[256];
    uint32_t used;

    smtp_reply_parser_init(&parser);
    int size = snprintf(line, sizeof(line), "%s\r\n", text);
    assert_int_equal(ERR_OK, smtp_reply_feed(&parser, span_of(line, (uint32_t)size), &used));
    assert_true(parser.is_last);
    return parser.reply;
}

#define STAGE(name) SMTP_STAGE_##name
#define SCOPE(name) SMTP_SCOPE_##name

static const struct {
    enum smtp_stage stage;
    const char *reply;
    enum smtp_scope scope;
    bool is_permanent, is_too_many;
} cases[] = {
    {STAGE(GREETING), "554 No SMTP service here", SCOPE(HOST), false, false},
    {STAGE(GREETING), "554 5.7.1 blocked using dnsbl.example", SCOPE(HOST), false, false},
    {STAGE(GREETING), "421 busy", SCOPE(HOST), false, false},
    {STAGE(EHLO), "550 5.7.1 bad name", SCOPE(HOST), false, false},
    {STAGE(STARTTLS), "454 TLS not available", SCOPE(PROTOCOL), false, false},
    {STAGE(AUTH), "535 5.7.8 bad credentials", SCOPE(SOURCE), false, false},
    {STAGE(AUTH), "454 4.7.0 temporary", SCOPE(HOST), false, false},
    {STAGE(MAIL), "421 4.3.2 closing", SCOPE(HOST), false, false},
    {STAGE(MAIL), "451 4.3.0 queue file write error", SCOPE(HOST), false, false},
    {STAGE(MAIL), "451 4.4.3 DNS trouble", SCOPE(HOST), false, false},
    {STAGE(MAIL), "452 4.3.1 insufficient storage", SCOPE(HOST), false, false},
    {STAGE(MAIL), "452 4.5.3 Too many recipients: Too many messages sent", SCOPE(HOST), false,
     false},
    {STAGE(MAIL), "451 4.5.3 No more transactions allowed", SCOPE(HOST), false, false},
    {STAGE(MAIL), "451 Mails per session limit", SCOPE(HOST), false, false},
    {STAGE(DATA), "452 4.4.5 Maximum number of messages per session exceeded.", SCOPE(HOST), false,
     false},
    {STAGE(END), "452 4.4.5 Maximum number of messages per session exceeded.", SCOPE(HOST), false,
     false},
    {STAGE(MAIL), "450 4.1.8 sender domain not found", SCOPE(MESSAGE), false, false},
    {STAGE(MAIL), "451 4.7.1 try later", SCOPE(SOURCE), false, false},
    {STAGE(MAIL), "550 5.1.8 sender domain does not exist", SCOPE(MESSAGE), true, false},
    {STAGE(MAIL), "550 5.7.1 Your IP is listed", SCOPE(SOURCE), false, false},
    {STAGE(MAIL), "550 5.7.25 no reverse name", SCOPE(SOURCE), false, false},
    {STAGE(MAIL), "550 5.7.23 SPF failed", SCOPE(MESSAGE), true, false},
    {STAGE(MAIL), "550 Blacklisted by Spamhaus", SCOPE(SOURCE), false, false},
    {STAGE(MAIL), "552 5.3.4 too big", SCOPE(MESSAGE), true, false},
    {STAGE(MAIL), "530 5.7.0 Must issue a STARTTLS first", SCOPE(SOURCE), false, false},
    {STAGE(MAIL), "503 5.5.1 EHLO first", SCOPE(PROTOCOL), false, false},
    {STAGE(MAIL), "555 5.5.4 unsupported option", SCOPE(PROTOCOL), false, false},
    {STAGE(MAIL), "501 5.5.4 bad parameter", SCOPE(PROTOCOL), false, false},
    {STAGE(MAIL), "501 5.1.7 bad sender", SCOPE(MESSAGE), true, false},
    {STAGE(MAIL), "521 5.3.2 no mail here", SCOPE(HOST), false, false},
    {STAGE(MAIL), "354 go ahead", SCOPE(PROTOCOL), false, false},
    {STAGE(RCPT), "550 5.1.1 no such user", SCOPE(RECIPIENT), true, false},
    {STAGE(RCPT), "550 no such user at this ip address", SCOPE(SOURCE), false, false},
    {STAGE(RCPT), "550 5.1.1 no such user at this ip address", SCOPE(RECIPIENT), true, false},
    {STAGE(RCPT), "556 5.1.10 null MX", SCOPE(RECIPIENT), true, false},
    {STAGE(RCPT), "450 4.2.0 greylisted", SCOPE(RECIPIENT), false, false},
    {STAGE(RCPT), "451 4.7.1 greylisted", SCOPE(RECIPIENT), false, false},
    {STAGE(RCPT), "451 4.7.1 rate limited, throttled", SCOPE(SOURCE), false, false},
    {STAGE(RCPT), "452 4.2.2 mailbox full", SCOPE(RECIPIENT), false, false},
    {STAGE(RCPT), "552 5.2.2 mailbox full", SCOPE(RECIPIENT), true, false},
    {STAGE(RCPT), "452 4.5.3 enough", SCOPE(RECIPIENT), false, true},
    {STAGE(RCPT), "552 5.5.3 enough", SCOPE(RECIPIENT), false, true},
    {STAGE(RCPT), "452 enough", SCOPE(RECIPIENT), false, true},
    {STAGE(RCPT), "552 Too many recipients", SCOPE(RECIPIENT), false, true},
    {STAGE(RCPT), "552 exceeded storage allocation", SCOPE(RECIPIENT), true, false},
    {STAGE(RCPT), "503 5.5.1 need MAIL", SCOPE(PROTOCOL), false, false},
    {STAGE(RCPT), "530 5.7.0 authentication required", SCOPE(SOURCE), false, false},
    {STAGE(DATA), "451 4.3.0 no", SCOPE(HOST), false, false},
    {STAGE(DATA), "450 no", SCOPE(MESSAGE), false, false},
    {STAGE(DATA), "550 5.6.0 no", SCOPE(MESSAGE), true, false},
    {STAGE(DATA), "554 5.5.1 no valid recipients", SCOPE(PROTOCOL), false, false},
    {STAGE(DATA), "250 ok", SCOPE(PROTOCOL), false, false},
    {STAGE(BODY), "552 5.3.4 too big", SCOPE(MESSAGE), true, false},
    {STAGE(BODY), "421 4.4.2 timeout", SCOPE(HOST), false, false},
    {STAGE(BODY), "500 what is this", SCOPE(PROTOCOL), false, false},
    {STAGE(END), "550 5.7.1 spam", SCOPE(MESSAGE), true, false},
    {STAGE(END), "554 5.7.1 poor reputation", SCOPE(SOURCE), false, false},
    {STAGE(END), "451 4.3.0 storage", SCOPE(HOST), false, false},
    {STAGE(END), "451 try again", SCOPE(MESSAGE), false, false},
    {STAGE(END), "421 4.3.2 closing", SCOPE(HOST), false, false},
    {STAGE(END), "354 again?", SCOPE(PROTOCOL), false, false},
    {STAGE(END), "503 5.5.1 what", SCOPE(PROTOCOL), false, false},
};

static void test_judge_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct smtp_reply reply = reply_of(cases[i].reply);
        struct judge_verdict verdict = judge_reply(cases[i].stage, &reply);

        print_message("# case: stage %d, %s\n", (int)cases[i].stage, cases[i].reply);
        assert_int_equal(cases[i].scope, verdict.scope);
        assert_int_equal(cases[i].is_permanent, verdict.is_permanent);
        assert_int_equal(cases[i].is_too_many, verdict.is_too_many);
    }
}

/* Goal: what speaks of our address, also in a greeting; not what asks for patience, nor what a
 * code says to be about something else. */
static void test_about_address(void **state)
{
    static const struct {
        enum smtp_stage stage;
        uint16_t code;
        uint8_t enhanced[3];
        const char *text;
        bool is_about;
    } rows[] = {
        {SMTP_STAGE_GREETING, 554, {0}, "554 blocked using zen.spamhaus.org", true},
        {SMTP_STAGE_MAIL, 550, {5, 7, 1}, "550 5.7.1 poor Reputation", true},
        {SMTP_STAGE_RCPT, 554, {5, 7, 1}, "554 5.7.1 Client host [192.0.2.1] blocked", true},
        {SMTP_STAGE_RCPT, 450, {4, 7, 25}, "450 4.7.25 no", true},
        {SMTP_STAGE_END, 554, {0}, "554 your IP is on a Blocklist", true},
        {SMTP_STAGE_RCPT, 550, {5, 1, 1}, "550 5.1.1 no blacklist here", false},
        {SMTP_STAGE_RCPT, 450, {4, 7, 1}, "450 4.7.1 client host: greylisted", false},
        {SMTP_STAGE_MAIL, 450, {4, 7, 0}, "450 4.7.0 your IP sends too many", false},
        {SMTP_STAGE_GREETING, 421, {0}, "421 reputation", false},
        {SMTP_STAGE_AUTH, 535, {5, 7, 8}, "535 5.7.8 your ip", false},
        {SMTP_STAGE_STARTTLS, 454, {0}, "454 blocklist", false},
        {SMTP_STAGE_MAIL, 399, {0}, "399 blocklist", false},
        {SMTP_STAGE_MAIL, 0, {4, 4, 1}, "4.4.1 blocklist", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].text);
        assert_int_equal(rows[i].is_about,
                         judge_is_about_address(rows[i].stage, rows[i].code, rows[i].enhanced,
                                                span_from_text(rows[i].text)));
    }
}

/* The invariants, over every stage and code and a choice of enhanced codes and texts. */
static void test_judge_invariants(void **state)
{
    static const char *const tails[] = {"",
                                        " x",
                                        " %u.1.1 x",
                                        " %u.5.3 x",
                                        " %u.7.25 x",
                                        " %u.3.2 blacklist",
                                        " too many recipients"};

    (void)state;
    for (uint16_t code = 200; code <= 599; code++) {
        for (size_t tail = 0; tail < COUNT_OF(tails); tail++) {
            char format[64], text[64];

            snprintf(format, sizeof(format), "%u%s", code, tails[tail]);
            const char *mark = strstr(format, "%u");
            if (mark == NULL)
                snprintf(text, sizeof(text), "%s", format);
            else
                snprintf(text, sizeof(text), "%.*s%u%s", (int)(mark - format), format, code / 100u,
                         mark + 2);
            struct smtp_reply reply = reply_of(text);
            for (uint32_t stage = 0; stage < SMTP_STAGE_COUNT; stage++) {
                struct judge_verdict verdict = judge_reply((enum smtp_stage)stage, &reply);

                if (verdict.is_permanent) {
                    assert_in_range(code, 500, 599);
                    assert_true(verdict.scope == SMTP_SCOPE_MESSAGE ||
                                verdict.scope == SMTP_SCOPE_RECIPIENT);
                    assert_true(stage >= SMTP_STAGE_MAIL);
                }
                if (verdict.is_too_many)
                    assert_false(verdict.is_permanent);
                if (code == 421)
                    assert_int_equal(SMTP_SCOPE_HOST, verdict.scope);
                if (code < 400)
                    assert_int_equal(SMTP_SCOPE_PROTOCOL, verdict.scope);
                if (stage == SMTP_STAGE_RCPT)
                    assert_int_not_equal(SMTP_SCOPE_MESSAGE, verdict.scope);
                else
                    assert_int_not_equal(SMTP_SCOPE_RECIPIENT, verdict.scope);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_judge_rows),
        cmocka_unit_test(test_about_address),
        cmocka_unit_test(test_judge_invariants),
    };
    return cmocka_run_group_tests_name("judge", tests, NULL, NULL);
}
