/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AUTH in the session engine: dialogues, bounds of lines, names and passwords, what is forgotten,
 * what may follow. Every dialogue is played whole line by line and in pieces: the replies are the
 * same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/base64.h"
#include "relay/dkim.h"
#include "tests/unit/dkim_fixture.h"
#include "tests/unit/smtpd_harness.h"

#define E      "EHLO client.example\r\n"
#define M      "MAIL FROM:<bob@served.example>\r\n"
#define R      "RCPT TO:<x@elsewhere.example>\r\n"
#define D      "DATA\r\n"
#define BODY   "Subject: x\r\n\r\nhello\r\n.\r\n"
#define ALICE  "AGFsaWNlAHNlY3JldA=="                     /* \0alice\0secret */
#define WRONG  "AGFsaWNlAHdyb25n"                         /* \0alice\0wrong */
#define BOB    "AGJvYkBzZXJ2ZWQuZXhhbXBsZQBwYXNzIHdvcmQ=" /* \0bob@served.example\0pass word */
#define NOBODY "AG5vYm9keQB4"                             /* \0nobody\0x */

static void prepare(struct harness *harness)
{
    harness_init(harness);
    harness->listener.auth = AUTH_OPTIONAL;
    harness->settings.auth.plaintext = AUTH_PLAINTEXT_LOOPBACK;
}

/* Line by line, as a client that waits for every reply; each in pieces of at most `piece`. */
static void send_lines(struct harness *harness, const char *input, uint32_t piece)
{
    while (*input != '\0' && !harness->is_closed) {
        const char *end = strstr(input, "\r\n");
        uint32_t size = end == NULL ? (uint32_t)strlen(input) : (uint32_t)(end + 2 - input);
        harness_send(harness, span_of(input, size), piece);
        input += size;
    }
}

/* Goal: each way through an exchange, and what it leaves behind. */
static void test_dialogues(void **state)
{
    static const struct {
        const char *name, *input, *codes;
        bool is_closed;
    } rows[] = {
        {"PLAIN with the initial response", E "AUTH PLAIN " ALICE "\r\n", "220 250 235", false},
        {"PLAIN asked for", E "AUTH PLAIN\r\n" ALICE "\r\n", "220 250 334 235", false},
        {"small letters", E "auth plain " ALICE "\r\n", "220 250 235", false},
        {"LOGIN", E "AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\n", "220 250 334 334 235", false},
        {"LOGIN with the name", E "AUTH LOGIN YWxpY2U=\r\nc2VjcmV0\r\n", "220 250 334 235", false},
        {"wrong password", E "AUTH PLAIN " WRONG "\r\nNOOP\r\n", "220 250 535 250", false},
        {"wrong, then right", E "AUTH PLAIN " WRONG "\r\nAUTH PLAIN " ALICE "\r\n",
         "220 250 535 235", false},
        {"cannot be checked", E "AUTH PLAIN " NOBODY "\r\nAUTH PLAIN " ALICE "\r\n",
         "220 250 454 235", false},
        {"three wrong ones end the session",
         E "AUTH PLAIN " WRONG "\r\nAUTH PLAIN " WRONG "\r\nAUTH PLAIN " WRONG "\r\n",
         "220 250 535 535 535 421", true},
        {"cancelled", E "AUTH PLAIN\r\n*\r\nNOOP\r\n", "220 250 334 501 250", false},
        {"cancelled, then another mechanism", E "AUTH LOGIN\r\n*\r\nAUTH PLAIN\r\n" ALICE "\r\n",
         "220 250 334 501 334 235", false},
        {"cancelled at the password", E "AUTH LOGIN\r\nYWxpY2U=\r\n*\r\nAUTH PLAIN " ALICE "\r\n",
         "220 250 334 334 501 235", false},
        {"no base64", E "AUTH PLAIN ????\r\nNOOP\r\n", "220 250 501 250", false},
        {"base64 of 4n+3", E "AUTH PLAIN AGFsaWNlAHNlY3JldA=\r\n", "220 250 501", false},
        {"base64 with blanks", E "AUTH PLAIN AGFsaWNl AHNlY3JldA==\r\n", "220 250 501", false},
        {"base64 with octets behind the padding", E "AUTH PLAIN " ALICE "AAAA\r\n", "220 250 501",
         false},
        {"empty initial response", E "AUTH PLAIN =\r\n", "220 250 501", false},
        {"empty response", E "AUTH PLAIN\r\n\r\n", "220 250 334 501", false},
        {"one NUL", E "AUTH PLAIN AGFsaWNl\r\n", "220 250 501", false},
        {"no NUL", E "AUTH PLAIN YWxpY2U=\r\n", "220 250 501", false},
        {"three NULs", E "AUTH PLAIN AGFsaWNlAHNlAHQ=\r\n", "220 250 501", false},
        {"no name", E "AUTH PLAIN AABzZWNyZXQ=\r\n", "220 250 501", false},
        {"no password", E "AUTH PLAIN AGFsaWNlAA==\r\n", "220 250 501", false},
        {"authzid of oneself", E "AUTH PLAIN YWxpY2UAYWxpY2UAc2VjcmV0\r\n", "220 250 235", false},
        {"authzid of another", E "AUTH PLAIN Ym9iAGFsaWNlAHNlY3JldA==\r\n", "220 250 501", false},
        {"line end in the name", E "AUTH PLAIN AGFsaQpjZQBzZWNyZXQ=\r\n", "220 250 501", false},
        {"line end in the password", E "AUTH PLAIN AGFsaWNlAHNlYw0KcmV0\r\n", "220 250 501", false},
        {"unknown mechanism", E "AUTH CRAM-MD5\r\nNOOP\r\n", "220 250 504 250", false},
        {"no mechanism", E "AUTH\r\n", "220 250 501", false},
        {"before EHLO", "AUTH PLAIN " ALICE "\r\n", "220 503", false},
        {"after HELO", "HELO c\r\nAUTH PLAIN " ALICE "\r\n", "220 250 503", false},
        {"twice", E "AUTH PLAIN " ALICE "\r\nAUTH PLAIN " ALICE "\r\n", "220 250 235 503", false},
        {"inside a transaction", E "MAIL FROM:<a@b.example>\r\nAUTH PLAIN " ALICE "\r\n",
         "220 250 250 503", false},
        {"relays", E "AUTH PLAIN " BOB "\r\n" M R D BODY, "220 250 235 250 250 354 250", false},
        {"strangers do not", E M R, "220 250 250 550", false},
        {"RSET and EHLO forget nobody", E "AUTH PLAIN " BOB "\r\nRSET\r\n" E M R,
         "220 250 235 250 250 250 250", false},
        {"somebody else's address", E "AUTH PLAIN " BOB "\r\nMAIL FROM:<eve@served.example>\r\n" M,
         "220 250 235 553 250", false},
        {"case of an address", E "AUTH PLAIN " BOB "\r\nMAIL FROM:<Bob@Served.Example>\r\n",
         "220 250 235 250", false},
        {"null sender", E "AUTH PLAIN " BOB "\r\nMAIL FROM:<>\r\n", "220 250 235 250", false},
        {"a name without a domain has no address",
         E "AUTH PLAIN " ALICE "\r\nMAIL FROM:<alice@served.example>\r\n", "220 250 235 553",
         false},
        {"AUTH= of MAIL", E "MAIL FROM:<a@b.example> AUTH=<>\r\n", "220 250 250", false},
        {"AUTH= in xtext", E "MAIL FROM:<a@b.example> AUTH=e+3Dmc2@example.com\r\n", "220 250 250",
         false},
        {"AUTH= with a line end", E "MAIL FROM:<a@b.example> AUTH=a+0Ab\r\n", "220 250 501", false},
        {"AUTH= half encoded", E "MAIL FROM:<a@b.example> AUTH=a+0\r\n", "220 250 501", false},
        {"AUTH= without a value", E "MAIL FROM:<a@b.example> AUTH\r\n", "220 250 501", false},
        {"AUTH= twice", E "MAIL FROM:<a@b.example> AUTH=<> AUTH=<>\r\n", "220 250 501", false},
        {"response with a bare LF", E "AUTH PLAIN\r\n" ALICE "\n", "220 250 334 500", true},
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        for (uint32_t piece = 0; piece <= 30; piece += 1 + piece / 3) {
            prepare(&harness);
            harness_connect(&harness, "127.0.0.1");
            send_lines(&harness, rows[i].input, piece);
            assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
            assert_int_equal(rows[i].is_closed, harness.is_closed);
            harness_fini(&harness);
        }
    }
}

/* Goal: where AUTH is not to be used, and what is said instead. */
static void test_offer(void **state)
{
    static const struct {
        const char *name;
        enum auth_need need;
        enum auth_plaintext plaintext;
        bool is_tls, has_starttls;
        const char *ip, *input, *codes;
        bool is_offered;
    } rows[] = {
        {"off", AUTH_OFF, 0, true, false, "192.0.2.1", E "AUTH PLAIN " ALICE "\r\n", "220 250 500",
         false},
        {"off: AUTH= is unknown", AUTH_OFF, 0, true, false, "192.0.2.1",
         E "MAIL FROM:<a@b.example> AUTH=<>\r\n", "220 250 555", false},
        {"TLS", AUTH_OPTIONAL, 0, true, false, "192.0.2.1", E "AUTH PLAIN " ALICE "\r\n",
         "220 250 235", true},
        {"in the clear", AUTH_OPTIONAL, 0, false, true, "192.0.2.1",
         E "AUTH PLAIN " ALICE "\r\nMAIL FROM:<a@b.example> AUTH=<>\r\n", "220 250 530 501", false},
        {"in the clear, from here", AUTH_OPTIONAL, 0, false, true, "127.0.0.1",
         E "AUTH PLAIN " ALICE "\r\n", "220 250 530", false},
        {"in the clear, from here, as configured", AUTH_OPTIONAL, AUTH_PLAINTEXT_LOOPBACK, false,
         true, "127.0.0.1", E "AUTH PLAIN " ALICE "\r\n", "220 250 235", true},
        {"the same over IPv6", AUTH_OPTIONAL, AUTH_PLAINTEXT_LOOPBACK, false, true, "::1",
         E "AUTH PLAIN " ALICE "\r\n", "220 250 235", true},
        {"in the clear, from elsewhere", AUTH_OPTIONAL, AUTH_PLAINTEXT_LOOPBACK, false, true,
         "10.0.0.1", E "AUTH PLAIN " ALICE "\r\n", "220 250 530", false},
        {"required", AUTH_REQUIRED, 0, true, false, "10.0.0.1", E M "AUTH PLAIN " BOB "\r\n" M,
         "220 250 530 235 250", true},
        {"required, TLS first", AUTH_REQUIRED, 0, false, true, "10.0.0.1", E M, "220 250 530",
         false},
        {"required and wrong", AUTH_REQUIRED, 0, true, false, "10.0.0.1",
         E "AUTH PLAIN " WRONG "\r\n" M, "220 250 535 530", true},
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        harness.listener.auth = rows[i].need;
        harness.listener.offer_starttls = rows[i].has_starttls;
        harness.settings.auth.plaintext = rows[i].plaintext;
        harness_connect(&harness, rows[i].ip);
        harness.session.is_tls = rows[i].is_tls;
        send_lines(&harness, rows[i].input, 0);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        assert_int_equal(rows[i].is_offered,
                         strstr(harness.output, "250-AUTH PLAIN LOGIN\r\n") != NULL);
        harness_fini(&harness);
    }
}

/* Goal: sent ahead of our answer, AUTH and its responses end the session. */
static void test_nothing_is_sent_ahead(void **state)
{
    static const struct {
        const char *name, *first, *input, *codes;
    } rows[] = {
        {"behind AUTH", E, "AUTH PLAIN " ALICE "\r\nNOOP\r\n", "220 250 554"},
        {"response with AUTH", E, "AUTH PLAIN\r\n" ALICE "\r\n", "220 250 554"},
        {"behind the response", E "AUTH PLAIN\r\n", ALICE "\r\nNOOP\r\n", "220 250 334 554"},
        {"both responses of LOGIN", E "AUTH LOGIN\r\n", "YWxpY2U=\r\nc2VjcmV0\r\n",
         "220 250 334 554"},
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        prepare(&harness);
        harness_connect(&harness, "127.0.0.1");
        send_lines(&harness, rows[i].first, 0);
        harness_send_text(&harness, rows[i].input);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        assert_true(harness.is_closed);
        assert_int_equal(0, harness.login_count);
        harness_fini(&harness);
    }
}

/* The base64 of a message of `name_size` and `password_size` octets. */
static char *plain_new(uint32_t name_size, uint32_t password_size)
{
    uint32_t size = name_size + password_size + 2;
    uint8_t *message = malloc(size);
    char *text = malloc(BASE64_SIZE(size) + 3);

    memset(message, 'n', size);
    memset(message + name_size + 2, 'p', password_size);
    message[0] = message[name_size + 1] = '\0';
    base64_encode(span_of(message, size), text);
    memcpy(text + BASE64_SIZE(size), "\r\n", 3);
    free(message);
    return text;
}

/* Goal: names and passwords up to their bounds are taken, longer ones are not. */
static void test_sizes(void **state)
{
    static const struct {
        uint32_t name_size, password_size;
        const char *codes;
    } rows[] = {
        {1, 1, "220 250 334 535"},
        {AUTH_NAME_MAX, 1, "220 250 334 535"},
        {AUTH_NAME_MAX + 1, 1, "220 250 334 501"},
        {1, AUTH_PASSWORD_MAX, "220 250 334 535"},
        {1, AUTH_PASSWORD_MAX + 1, "220 250 334 501"},
        {1, 9000, "220 250 334 501"},
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *text = plain_new(rows[i].name_size, rows[i].password_size);
        prepare(&harness);
        harness_connect(&harness, "127.0.0.1");
        send_lines(&harness, E "AUTH PLAIN\r\n", 0);
        send_lines(&harness, text, 1000);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        harness_fini(&harness);
        free(text);
    }
}

/* Goal: a line of AUTH_LINE_MAX octets is read to its end, a longer one is refused, swallowed, and
 * the session goes on. */
static void test_line_size(void **state)
{
    static const struct {
        uint32_t size, piece;
        const char *codes;
    } rows[] = {
        {AUTH_LINE_MAX, 0, "220 250 334 501 250"},
        {AUTH_LINE_MAX, 1, "220 250 334 501 250"},
        {AUTH_LINE_MAX, 1024, "220 250 334 501 250"},
        {AUTH_LINE_MAX + 1, 0, "220 250 334 500 250"},
        {AUTH_LINE_MAX + 1, 1, "220 250 334 500 250"},
        {AUTH_LINE_MAX + 1, 1024, "220 250 334 500 250"},
        {3 * AUTH_LINE_MAX, 1000, "220 250 334 500 250"},
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        char *text = malloc(rows[i].size + 1);
        memset(text, 'A', rows[i].size);
        memcpy(text + rows[i].size - 2, "\r\n", 3);
        prepare(&harness);
        harness_connect(&harness, "127.0.0.1");
        send_lines(&harness, E "AUTH PLAIN\r\n", 0);
        send_lines(&harness, text, rows[i].piece);
        send_lines(&harness, "NOOP\r\n", 0);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        assert_int_equal(rows[i].size > AUTH_LINE_MAX,
                         strstr(harness.output, "500 5.5.6 ") != NULL);
        harness_fini(&harness);
        free(text);
    }
}

/* Goal: while the verdict is out nothing is read; without one 454 follows, and one that comes after
 * that changes nothing. */
static void test_verdict_that_is_late(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.holds_verdicts = true;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " ALICE "\r\n", 0);
    assert_int_equal(SMTPD_NEED_VERDICT, smtpd_need(&harness.session));
    assert_true(smtpd_has_secrets(&harness.session));
    harness_send_text(&harness, "NOOP\r\n");
    assert_string_equal("220 250", harness_codes(&harness, codes, sizeof(codes)));

    harness.now.tick += TICK_S(30) - 1;
    assert_true(smtpd_deadline(&harness.session) > harness.now.tick);
    harness.now.tick += 1;
    assert_int_equal(harness.now.tick, smtpd_deadline(&harness.session));
    uint32_t late = harness.login_number;
    smtpd_expire(&harness.context, &harness.session, harness.now);
    assert_false(smtpd_has_secrets(&harness.session));
    harness_send_text(&harness, "");
    harness_verdict(&harness); /* on the request that was given up */
    assert_string_equal("220 250 454 250", harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(0, smtpd_user(&harness.session).size);

    send_lines(&harness, "AUTH PLAIN " WRONG "\r\n", 0);
    assert_int_not_equal(late, harness.login_number);
    smtpd_auth_verdict(&harness.context, &harness.session, late, AUTH_ACCEPTED, harness.now);
    assert_int_equal(SMTPD_NEED_VERDICT, smtpd_need(&harness.session));
    harness_verdict(&harness);
    assert_string_equal("220 250 454 250 535", harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Goal: who checks passwords may say who that is, and then that is who it is: no right comes of the
 * name that the client gave. A word on another request counts for nothing. */
static void test_name_of_the_verdict(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.holds_verdicts = true;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\n", 0);
    smtpd_auth_name(&harness.session, harness.login_number + 1, SPAN_LITERAL("eve"));
    smtpd_auth_name(&harness.session, harness.login_number, SPAN_LITERAL("carol@served.example"));
    harness_verdict(&harness);
    smtpd_auth_name(&harness.session, harness.login_number, SPAN_LITERAL("eve"));
    assert_true(span_is_equal(smtpd_user(&harness.session), SPAN_LITERAL("carol@served.example")));
    send_lines(&harness, M "MAIL FROM:<carol@served.example>\r\n", 0);
    assert_string_equal("220 250 235 553 250", harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Goal: the reply to AUTH waits for the commit before it. */
static void test_reply_waits_for_commit(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness,
               E "MAIL FROM:<a@b.example>\r\nRCPT TO:<b@served.example>\r\n" D BODY
                 "AUTH PLAIN " ALICE "\r\n",
               0);
    assert_string_equal("220 250 250 250 354", harness_codes(&harness, codes, sizeof(codes)));
    harness_commit(&harness, harness.messages[0].sequence, 250);
    assert_string_equal("220 250 250 250 354 250 235",
                        harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(0, harness.messages[0].envelope.user.size);
    harness_fini(&harness);
}

/* Goal: STARTTLS forgets who was logged in, and what that allowed (RFC 3207 section 4.2). */
static void test_starttls_forgets(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.listener.offer_starttls = true;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\nSTARTTLS\r\n", 0);
    assert_int_equal(0, smtpd_user(&harness.session).size);
    assert_false(harness.session.is_relay_client);
    send_lines(&harness, E M R "RSET\r\nAUTH PLAIN " BOB "\r\n" M R, 0);
    assert_string_equal("220 250 235 220 250 250 550 250 235 250 250",
                        harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Goal: failures are counted over the whole connection. */
static void test_failures_survive_starttls(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.listener.offer_starttls = true;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness,
               E "AUTH PLAIN " WRONG "\r\nAUTH PLAIN " WRONG "\r\nSTARTTLS\r\n" E
                 "AUTH PLAIN " WRONG "\r\n",
               0);
    assert_string_equal("220 250 535 535 220 250 535 421",
                        harness_codes(&harness, codes, sizeof(codes)));
    assert_true(harness.is_closed);
    harness_fini(&harness);
}

/* Goal: who was logged in is in the envelope, the trace and the records; passwords are nowhere. */
static void test_traces(void **state)
{
    static const struct {
        bool is_tls;
        const char *mail, *with;
    } rows[] = {
        {false, "MAIL FROM:<bob@served.example>\r\n", " with ESMTPA id "},
        {true, "MAIL FROM:<bob@served.example>\r\n", " with ESMTPSA id "},
        {false, "MAIL FROM:<bob@served.example> SMTPUTF8\r\n", " with UTF8SMTPA id "},
        {true, "MAIL FROM:<bob@served.example> SMTPUTF8\r\n", " with UTF8SMTPSA id "},
    };
    (void)state;
    static struct harness harness;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        prepare(&harness);
        harness_connect(&harness, "127.0.0.1");
        harness.session.is_tls = rows[i].is_tls;
        send_lines(&harness, E "AUTH PLAIN " WRONG "\r\nAUTH PLAIN " BOB "\r\n", 0);
        send_lines(&harness, rows[i].mail, 0);
        send_lines(&harness, R D BODY, 0);
        assert_int_equal(1, harness.message_count);
        assert_non_null(strstr((const char *)harness.messages[0].body, rows[i].with));
        assert_int_equal(2, harness.record_count);
        assert_int_equal(RECORD_REJECTION, harness.records[0].kind);
        assert_int_equal(535, harness.records[0].code);
        assert_string_equal("alice", harness.records[0].user);
        assert_string_equal("bob@served.example", harness.records[1].user);
        for (uint32_t j = 0; j < 2; j++)
            assert_null(memmem(&harness.records[j], sizeof(harness.records[j]), "wrong\0", 6));
        harness_fini(&harness);
    }
}

/* Goal: who is logged in is signed for where it has an address, and not as somebody else. */
static void test_signed_as_own(void **state)
{
    static const char *const names[] = {"From"}, *const all[] = {"*"};
    static const struct {
        const char *login, *domain, *mail, *from;
        enum settings_dkim_by by;
        bool is_signed;
    } rows[] = {
        {BOB, NULL, M, "bob@served.example", SETTINGS_DKIM_BY_FROM, true},
        {BOB, NULL, M, "x@Served.Example", SETTINGS_DKIM_BY_FROM, true},
        {BOB, NULL, M, "boss@other.example", SETTINGS_DKIM_BY_FROM, false},
        {BOB, NULL, M, "x@sub.served.example", SETTINGS_DKIM_BY_FROM, false},
        {BOB, NULL, M, "bob@served.example, boss@other.example", SETTINGS_DKIM_BY_FROM, false},
        {BOB, NULL, M, "\"bob@served.example\" <boss@other.example>", SETTINGS_DKIM_BY_FROM, false},
        {BOB, NULL, "MAIL FROM:<>\r\n", "boss@other.example", SETTINGS_DKIM_BY_FROM, false},
        {BOB, NULL, M, "boss@other.example", SETTINGS_DKIM_BY_SENDER, true},
        {BOB, "other.example", M, "boss@other.example", SETTINGS_DKIM_BY_FROM, false},
        {ALICE, NULL, "MAIL FROM:<>\r\n", "a@served.example", SETTINGS_DKIM_BY_FROM, false},
        {ALICE, "served.example", "MAIL FROM:<>\r\n", "a@served.example", SETTINGS_DKIM_BY_FROM,
         true},
    };
    struct evp_pkey_st *pkey = dkim_fixture_ed25519();
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE], field[128];
    struct dkim_key *key;
    static struct harness harness;
    (void)state;

    assert_int_equal(ERR_OK, dkim_key_load(dkim_fixture_key_file(pkey, path), &key, why));
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct settings_dkim rule = {.key = key,
                                     .domain = "served.example",
                                     .selector = "s",
                                     .match = all,
                                     .match_count = 1,
                                     .by = rows[i].by,
                                     .headers = names,
                                     .header_count = COUNT_OF(names)};
        print_message("# case: %s\n", rows[i].from);
        prepare(&harness);
        harness.settings.auth.domain = rows[i].domain;
        harness.settings.auth.from = AUTH_FROM_ANY;
        harness.settings.dkim = &rule;
        harness.settings.dkim_count = 1;
        harness_connect(&harness, "127.0.0.1");
        send_lines(&harness, E "AUTH PLAIN ", 0);
        send_lines(&harness, rows[i].login, 0);
        send_lines(&harness, "\r\n", 0);
        send_lines(&harness, rows[i].mail, 0);
        snprintf(field, sizeof(field), "From: %s\r\n", rows[i].from);
        send_lines(&harness, R D, 0);
        send_lines(&harness, field, 0);
        send_lines(&harness, BODY, 0);
        assert_int_equal(1, harness.message_count);
        assert_int_equal(rows[i].is_signed, harness.context.dkim.messages);
        harness_fini(&harness);
    }
    dkim_key_free(key);
    dkim_fixture_key_free(pkey);
}

/* Goal: with auth.domain a bare name is an address there. */
#define SCRAM "AUTH SCRAM-SHA-256 biwsbj11c2VyLHI9eA==\r\n" /* n,,n=user,r=x */

/* SCRAM's messages are passed to and fro, each as its own line; what ends the exchange ends it. */
static void test_scram(void **state)
{
    static const struct {
        const char *name, *lines, *codes;
        bool is_offered, is_in;
    } rows[] = {
        {"not offered", E SCRAM, "220 250 504", false, false},
        {"to the end", E SCRAM "ZmluYWw=\r\n\r\n", "220 250 334 334 235", true, true},
        {"without an initial response",
         E "AUTH scram-sha-256\r\nbiwsbj11c2VyLHI9eA==\r\nZmluYWw=\r\n\r\n",
         "220 250 334 334 334 235", true, true},
        {"a wrong answer", E SCRAM "eA==\r\n", "220 250 334 535", true, false},
        {"given up", E SCRAM "*\r\n", "220 250 334 501", true, false},
        {"given up, and once more", E SCRAM "*\r\n" SCRAM "ZmluYWw=\r\n\r\n",
         "220 250 334 501 334 334 235", true, true},
        {"not base64", E SCRAM "x\r\n", "220 250 334 501", true, false},
        {"control characters", E SCRAM "AAE=\r\n", "220 250 334 501", true, false},
        {"not SCRAM", E "AUTH SCRAM-SHA-256 eA==\r\n", "220 250 501", true, false},
        {"an empty first message", E "AUTH SCRAM-SHA-256 =\r\n", "220 250 501", true, false},
    };
    static struct harness harness;
    char codes[256];
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        for (uint32_t piece = 0; piece < 4; piece++) {
            prepare(&harness);
            harness.context.has_scram = rows[i].is_offered;
            harness_connect(&harness, "127.0.0.1");
            send_lines(&harness, rows[i].lines, piece);
            assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
            assert_int_equal(rows[i].is_offered, strstr(harness.output, "SCRAM-SHA-256") != NULL);
            assert_true(span_is_equal(smtpd_user(&harness.session),
                                      span_from_text(rows[i].is_in ? "user" : "")));
            if (rows[i].is_in)
                assert_non_null(strstr(harness.output, "334 bGFzdA==\r\n235 "));
            harness_fini(&harness);
        }
    }
}

/* Whoever is logged in is asked for an own name in From, unless the configuration says otherwise;
 * however the octets come. */
static void test_own_name_alone(void **state)
{
    static const struct {
        const char *login, *header;
        enum auth_from from;
        bool is_taken;
    } rows[] = {
        {BOB, "From: bob@served.example\r\n", AUTH_FROM_OWN, true},
        {BOB, "From: Boss <boss@served.example>\r\n", AUTH_FROM_OWN, false},
        {BOB, "From: Boss <boss@served.example>\r\n", AUTH_FROM_ANY, true},
        {BOB, "Subject: x\r\nSender: boss@served.example\r\n", AUTH_FROM_OWN, false},
        {BOB, "Subject: x\r\n", AUTH_FROM_OWN, true},
        {NULL, "From: boss@served.example\r\n", AUTH_FROM_OWN, true},
    };
    static struct harness harness;
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (uint32_t piece = 0; piece < 3; piece++) {
            print_message("# case: %zu\n", i);
            prepare(&harness);
            harness.listener.auth = AUTH_OPTIONAL;
            harness.settings.auth.from = rows[i].from;
            harness_connect(&harness, "127.0.0.1");
            send_lines(&harness, E, 0);
            if (rows[i].login != NULL) {
                send_lines(&harness, "AUTH PLAIN ", 0);
                send_lines(&harness, rows[i].login, 0);
                send_lines(&harness, "\r\n", 0);
            }
            send_lines(&harness, "MAIL FROM:<>\r\nRCPT TO:<c@served.example>\r\nDATA\r\n", 0);
            send_lines(&harness, rows[i].header, piece);
            send_lines(&harness, ".\r\n", piece); /* a header without an end */
            assert_int_equal(rows[i].is_taken, harness.message_count);
            assert_int_equal(!rows[i].is_taken,
                             harness.context.replies[SMTPD_REPLY_AUTHOR_NOT_OWN]);
            harness_fini(&harness);
        }
    }
}

static void test_domain(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    harness.settings.auth.domain = "served.example";
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness,
               E "AUTH PLAIN " ALICE "\r\n"
                 "MAIL FROM:<alice@served.example>\r\nRSET\r\n"
                 "MAIL FROM:<alice@sub.served.example>\r\n"
                 "MAIL FROM:<bob@served.example>\r\n",
               0);
    assert_string_equal("220 250 235 250 250 553 553",
                        harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Quotas, of one shard, or of shard 0 while the home of all users is another. */
static struct quota_message quota_sent[8];
static uint32_t quota_sent_count, quota_wakes;

static void on_quota_send(void *context, uint32_t to_shard, const struct quota_message *message)
{
    (void)context, (void)to_shard;
    assert_true(quota_sent_count < COUNT_OF(quota_sent));
    quota_sent[quota_sent_count++] = *message;
}

static void on_quota_wake(void *context, void *owner)
{
    struct harness *harness = context;

    assert_ptr_equal(&harness->session, owner);
    quota_wakes++;
}

static void quota_begin(struct harness *harness, uint32_t shard_count)
{
    struct quota_key user = quota_key_of(SPAN_LITERAL("bob@served.example"));
    struct quota_options options = {.shard = 0,
                                    .shard_count = shard_count,
                                    .place_max = 8,
                                    .context = harness,
                                    .send = on_quota_send,
                                    .wake = on_quota_wake};

    if (shard_count > 1 && quota_home_of(user, shard_count) == 0)
        options.shard = 1;
    quota_sent_count = quota_wakes = 0;
    harness->context.quota = quota_set_new(&options, harness->now.tick);
}

static void quota_end(struct harness *harness)
{
    struct quota_set *quota = harness->context.quota;

    harness_fini(harness);
    quota_set_free(quota);
}

/* The home's word. */
static void quota_hear(struct harness *harness, enum quota_message_kind kind, uint32_t count,
                       tick_us time)
{
    struct quota_message message = quota_sent[quota_sent_count - 1];

    message.kind = (uint8_t)kind;
    message.count = count;
    message.used = 0;
    message.time = time;
    message.is_first = true;
    quota_receive(harness->context.quota, &message, harness->now.tick);
    quota_verify(harness->context.quota);
    harness_go_on(harness);
}

/* Goal: while the home of its user is asked, a session waits, and says nothing; then its command
 * counts once, however often it was looked at. */
static void test_quota_is_elsewhere(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    quota_begin(&harness, 2);
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("9/1h"), &harness.settings.auth.messages));
    assert_int_equal(ERR_OK,
                     rate_set_parse(SPAN_LITERAL("9/1h"), &harness.settings.auth.recipients));
    harness.listener.limits.recipient_max = 2;
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\n", 0);
    harness_clear(&harness);
    harness_send_text(&harness, M R R "RSET\r\n" M "NOOP\r\n"); /* pipelined */
    assert_int_equal(SMTPD_NEED_QUOTA, smtpd_need(&harness.session));
    assert_int_equal(1, quota_sent_count);
    harness_go_on(&harness); /* nothing has come */
    assert_string_equal("", harness_codes(&harness, codes, sizeof(codes)));
    quota_hear(&harness, QUOTA_MESSAGE_GRANT, 2, harness.now.tick + TICK_S(1));
    assert_string_equal("250", harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(QUOTA_RECIPIENTS, quota_sent[1].of);
    quota_hear(&harness, QUOTA_MESSAGE_GRANT, 1, harness.now.tick + TICK_S(1));
    assert_string_equal("250 250", harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(1, quota_sent[2].used); /* the recipient before */
    assert_int_equal(1, harness.session.attempt.rcpt_count);
    quota_hear(&harness, QUOTA_MESSAGE_REFUSE, 0, harness.now.tick + TICK_S(9));
    assert_string_equal("250 250 452 250 250 250", harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(3, quota_sent_count); /* the second message had a right */
    assert_int_equal(3, quota_wakes);
    assert_int_equal(1, harness.context.auth.recipients_refused);
    quota_end(&harness);
}

/* Goal: a session that ends while it waits leaves nothing behind (the sanitizer looks), and the
 * answer finds nobody. */
static void test_quota_is_not_awaited(void **state)
{
    (void)state;
    static struct harness harness;

    prepare(&harness);
    quota_begin(&harness, 2);
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("9/1h"), &harness.settings.auth.messages));
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\n" M, 0);
    assert_int_equal(SMTPD_NEED_QUOTA, smtpd_need(&harness.session));
    smtpd_dismiss(&harness.context, &harness.session, SMTPD_REPLY_SHUTDOWN);
    quota_verify(harness.context.quota);
    quota_hear(&harness, QUOTA_MESSAGE_GRANT, 1, harness.now.tick + TICK_S(1));
    assert_int_equal(0, quota_wakes);
    quota_advance(harness.context.quota, harness.now.tick + TICK_S(2));
    assert_int_equal(QUOTA_MESSAGE_RETURN, quota_sent[1].kind);
    assert_int_equal(1, quota_sent[1].count);
    quota_end(&harness);
}

/* Goal: the message, and the recipient, beyond a user's rate is refused; a stranger has none. */
static void test_quota(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    quota_begin(&harness, 1);
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("2/1h"), &harness.settings.auth.messages));
    assert_int_equal(ERR_OK,
                     rate_set_parse(SPAN_LITERAL("3/1h"), &harness.settings.auth.recipients));
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E M "RSET\r\n" M "RSET\r\n" M "RSET\r\n", 0);
    harness_clear(&harness);
    send_lines(&harness, "AUTH PLAIN " BOB "\r\n" M R R "RSET\r\n" M R R "RSET\r\n" M, 0);
    assert_string_equal("235 250 250 250 250 250 250 452 250 452",
                        harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(1, harness.context.auth.messages_refused);
    assert_int_equal(1, harness.context.auth.recipients_refused);
    quota_end(&harness);
}

/* Goal: with `hold` the same is taken, as far as so much may be held, and is to be held. */
static void test_quota_holds(void **state)
{
    static const struct {
        const char *input, *codes;
        bool is_held;
    } rows[] = {
        {M R R, "250 250 250", false},
        {M R, "250 250", false},
        {"RSET\r\n" M, "250 250", true}, /* the third message; its recipients do not count */
        {R R R R R, "250 250 250 250 250", true},
        {"RSET\r\n" M, "250 452", false}, /* one may be held */
    };
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    quota_begin(&harness, 1);
    harness.settings.auth.beyond = AUTH_BEYOND_HOLD;
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("2/1h"), &harness.settings.auth.messages));
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("1/1h"), &harness.settings.auth.held));
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\n", 0);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        harness_clear(&harness);
        if (i == 1)
            send_lines(&harness, "RSET\r\n", 0);
        harness_clear(&harness);
        send_lines(&harness, rows[i].input, 0);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        const struct smtpd_transaction *transaction = harness.session.transaction;
        assert_int_equal(rows[i].is_held,
                         transaction != NULL && transaction->envelope.flags & ENVELOPE_OVER_QUOTA);
    }
    assert_int_equal(1, harness.context.auth.messages_held);
    assert_int_equal(1, harness.context.auth.messages_refused);
    quota_end(&harness);
}

/* Goal: a recipient too many has the message held, once. */
static void test_recipients_hold(void **state)
{
    (void)state;
    static struct harness harness;
    char codes[4096];

    prepare(&harness);
    quota_begin(&harness, 1);
    harness.settings.auth.beyond = AUTH_BEYOND_HOLD;
    assert_int_equal(ERR_OK,
                     rate_set_parse(SPAN_LITERAL("1/1h"), &harness.settings.auth.recipients));
    assert_int_equal(ERR_OK, rate_set_parse(SPAN_LITERAL("1/1h"), &harness.settings.auth.held));
    harness_connect(&harness, "127.0.0.1");
    send_lines(&harness, E "AUTH PLAIN " BOB "\r\n" M R, 0);
    assert_false(harness.session.transaction->envelope.flags & ENVELOPE_OVER_QUOTA);
    harness_clear(&harness);
    send_lines(&harness, R R, 0);
    assert_true(harness.session.transaction->envelope.flags & ENVELOPE_OVER_QUOTA);
    send_lines(&harness, "RSET\r\n" M R, 0);
    assert_string_equal("250 250 250 250 452", harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(1, harness.context.auth.messages_held);
    assert_int_equal(1, harness.context.auth.recipients_refused);
    quota_end(&harness);
}

/* Goal: whom a pattern of users means. */
static void test_user_patterns(void **state)
{
    static const struct {
        const char *pattern, *user;
        bool is_match;
    } rows[] = {
        {"alice", "alice", true},
        {"Alice", "aLICE", true},
        {"alice", "alic", false},
        {"alice", "", false},
        {"*", "alice", true},
        {"*", "", false},
        {"*@example.org", "a@EXAMPLE.org", true},
        {"*@example.org", "@example.org", false},
        {"*@example.org", "a@b.example.org", false},
        {"*@example.org", "example.org", false},
        {"*.example.org", "a@b.example.org", true},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s, %s\n", rows[i].pattern, rows[i].user);
        assert_int_equal(rows[i].is_match,
                         settings_user_matches(rows[i].pattern, span_from_text(rows[i].user)));
    }
}

/* Goal: every end of a session frees what an exchange holds (the sanitizer looks). */
static void test_ends_in_every_step(void **state)
{
    static const char *const inputs[] = {
        E "AUTH PLAIN\r\n",          E "AUTH PLAIN\r\nAGFs",          E "AUTH LOGIN\r\n",
        E "AUTH LOGIN YWxpY2U=\r\n", E "AUTH LOGIN YWxpY2U=\r\nc2Vj", E "AUTH PLAIN " ALICE "\r\n",
    };
    (void)state;
    static struct harness harness;

    for (size_t i = 0; i < COUNT_OF(inputs); i++) {
        prepare(&harness);
        harness.holds_verdicts = true;
        harness_connect(&harness, "127.0.0.1");
        send_lines(&harness, inputs[i], 3);
        assert_true(smtpd_has_secrets(&harness.session));
        harness_fini(&harness);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialogues),
        cmocka_unit_test(test_offer),
        cmocka_unit_test(test_nothing_is_sent_ahead),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_line_size),
        cmocka_unit_test(test_verdict_that_is_late),
        cmocka_unit_test(test_name_of_the_verdict),
        cmocka_unit_test(test_reply_waits_for_commit),
        cmocka_unit_test(test_starttls_forgets),
        cmocka_unit_test(test_failures_survive_starttls),
        cmocka_unit_test(test_traces),
        cmocka_unit_test(test_signed_as_own),
        cmocka_unit_test(test_own_name_alone),
        cmocka_unit_test(test_scram),
        cmocka_unit_test(test_domain),
        cmocka_unit_test(test_quota),
        cmocka_unit_test(test_quota_is_elsewhere),
        cmocka_unit_test(test_quota_is_not_awaited),
        cmocka_unit_test(test_quota_holds),
        cmocka_unit_test(test_recipients_hold),
        cmocka_unit_test(test_user_patterns),
        cmocka_unit_test(test_ends_in_every_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
