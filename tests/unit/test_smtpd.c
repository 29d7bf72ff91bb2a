/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The session engine: dialogues, limits, reply order, deadlines. Every dialogue is played whole,
 * and, where pipelining is not its point, octet by octet and in pieces: the replies are the same.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/smtpd_harness.h"

#define E    "EHLO client.example\r\n"
#define M    "MAIL FROM:<a@client.example>\r\n"
#define R    "RCPT TO:<b@served.example>\r\n"
#define D    "DATA\r\n"
#define BODY "Subject: x\r\n\r\nhello\r\n.\r\n"
#define Q    "QUIT\r\n"

struct dialogue {
    const char *name, *input, *codes;
    uint32_t messages;
    bool is_closed;
    bool is_whole_only; /* the split matters: it is about what comes in one piece */
};

/* EHLO is fed on its own, as a client that waits for its reply sends it. */
static void play(const struct dialogue *row, uint32_t piece, const char *ip)
{
    static struct harness harness;
    char codes[4096];
    uint32_t start = 0;

    harness_init(&harness);
    harness.listener.offer_starttls = true;
    harness_connect(&harness, ip);
    if (!row->is_whole_only) {
        const char *eol = strstr(row->input, "\r\n");
        if (eol != NULL)
            start = (uint32_t)(eol + 2 - row->input);
    }
    harness_send(&harness, span_of(row->input, start), piece);
    harness_send(&harness, span_skip(span_from_text(row->input), start), piece);
    assert_string_equal(row->codes, harness_codes(&harness, codes, sizeof(codes)));
    assert_int_equal(row->messages, harness.message_count);
    assert_int_equal(row->is_closed, harness.is_closed);
    harness_fini(&harness);
}

static void play_rows(const struct dialogue *rows, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        print_message("# case: %s\n", rows[i].name);
        play(&rows[i], 0, "192.0.2.1");
        if (rows[i].is_whole_only)
            continue;
        for (uint32_t piece = 1; piece <= 40; piece += 1 + piece / 4)
            play(&rows[i], piece, "192.0.2.1");
    }
}

/* Goal: the order of commands, and what is left of a transaction after each of its ends. */
static void test_dialogues(void **state)
{
    static const struct dialogue rows[] = {
        {"one message", E M R D BODY Q, "220 250 250 250 354 250 221", 1, true, false},
        {"two messages", E M R D BODY M R D BODY Q, "220 250 250 250 354 250 250 250 354 250 221",
         2, true, false},
        {"empty message", E M R D ".\r\n", "220 250 250 250 354 250", 1, false, false},
        {"null sender", E "MAIL FROM:<>\r\n" R D BODY, "220 250 250 250 354 250", 1, false, false},
        {"lower case",
         "ehlo c\r\nmail from:<a@b.example>\r\nrcpt to:<b@served.example>\r\ndata\r\n" BODY
         "quit\r\n",
         "220 250 250 250 354 250 221", 1, true, false},
        {"spaces behind the colon and at the end",
         E "MAIL FROM: <a@b.example> \r\n"
           "RCPT TO:  <b@served.example> \r\n",
         "220 250 250 250", 0, false, false},
        {"HELO", "HELO c\r\n" M, "220 250 250", 0, false, false},
        {"MAIL before EHLO", M, "220 503", 0, false, false},
        {"RCPT before MAIL", E R, "220 250 503", 0, false, false},
        {"DATA before MAIL", E D, "220 250 503", 0, false, false},
        {"DATA before RCPT", E M D, "220 250 250 503", 0, false, false},
        {"nested MAIL", E M M R D BODY, "220 250 250 503 250 354 250", 1, false, false},
        {"EHLO inside a transaction", E M E, "220 250 250 503", 0, false, false},
        {"HELO inside a transaction", E M R "HELO x\r\n", "220 250 250 250 503", 0, false, false},
        {"RSET forgets the sender", E M "RSET\r\n" R, "220 250 250 250 503", 0, false, false},
        {"RSET forgets recipients", E M R "RSET\r\n" D, "220 250 250 250 250 503", 0, false, false},
        {"RSET before EHLO", "RSET\r\n" M, "220 250 503", 0, false, false},
        {"second EHLO", E E, "220 250 250", 0, false, false},
        {"refused at the end of data, then RCPT and DATA", E M R D "a\nb\r\n.\r\n" R D,
         "220 250 250 250 354 550 503 503", 0, false, false},
        {"accepted, then RCPT and DATA", E M R D BODY R D, "220 250 250 250 354 250 503 503", 1,
         false, false},
        {"VRFY with UTF-8 inside a transaction", E M R "VRFY \xc3\xa9\r\n" D BODY,
         "220 250 250 250 252 354 250", 1, false, false},
        {"all recipients refused", E M "RCPT TO:<x@elsewhere.example>\r\n" D, "220 250 250 550 554",
         0, false, false},
        {"all recipients refused, then a good one",
         E M "RCPT TO:<x@elsewhere.example>\r\n" D R D BODY, "220 250 250 550 554 250 354 250", 1,
         false, false},
        {"refused MAIL", E "MAIL FROM:<a@>\r\n" R D, "220 250 501 503 503", 0, false, false},
        {"unknown commands", E "FOO\r\n\r\n XPTO\r\nAUTH PLAIN AA==\r\nXCLIENT A=B\r\n",
         "220 250 500 500 500 500 500", 0, false, false},
        {"PROXY header", "PROXY TCP4 1.2.3.4 1.2.3.5 1 25\r\n", "220 500", 0, false, false},
        {"arguments where none belong", E "RSET x\r\nQUIT now\r\n" M R "DATA x\r\n",
         "220 250 501 501 250 250 501", 0, false, false},
        {"STARTTLS with an argument", E "STARTTLS x\r\n", "220 250 501", 0, false, false},
        {"NOOP, HELP and VRFY", E "NOOP anything\r\nHELP\r\nVRFY x\r\nVRFY\r\n",
         "220 250 250 214 252 501", 0, false, false},
        {"nothing after QUIT", E "QUIT\r\nMAIL FROM:<a@b.example>\r\n", "220 250 221", 0, true,
         false},
        {"GET", "GET / HTTP/1.1\r\n", "220 554", 0, true, false},
        {"POST", "POST / HTTP/1.1\r\nHost: x\r\n\r\n" E M, "220 554", 0, true, true},
        {"CONNECT in the middle", E "CONNECT x:25 HTTP/1.0\r\n", "220 250 554", 0, true, false},
        {"command with bare LF", E "NOOP\n", "220 250 500", 0, true, false},
        {"bare LF hides a command", E "NOOP\nMAIL FROM:<a@b.example>\r\n", "220 250 500", 0, true,
         false},
        {"command with CR inside", E "NOOP a\rb\r\n", "220 250 500", 0, false, false},
        {"command with a tab", E "NOOP\ta\r\n", "220 250 500", 0, false, false},
        {"pipelining before EHLO", E M, "220 554", 0, true, true},
        {"pipelined HELO", "HELO c\r\n" M R, "220 554", 0, true, true},
        {"octets behind STARTTLS", E "STARTTLS\r\nNOOP\r\n", "220 250 554", 0, true, false},
        {"whole session in one piece", E M R D BODY Q, "220 554", 0, true, true},
    };

    (void)state;
    /* Pieces that end exactly behind STARTTLS do not show what is behind it: whole only. */
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool is_starttls = strstr(rows[i].name, "behind STARTTLS") != NULL;
        if (!is_starttls) {
            play_rows(&rows[i], 1);
        } else {
            play(&rows[i], 0, "192.0.2.1");
        }
    }
}

/* Goal: a NUL behind a verb of three letters does not make one of four of it. */
static void test_verbs_with_nul(void **state)
{
    static const char lines[][7] = {"GET\0\r\n", "PUT\0\r\n", "QUI\0\r\n", "\0\0\0\0\r\n"};
    static struct harness harness;
    char codes[64];

    (void)state;
    harness_init(&harness);
    harness_connect(&harness, "192.0.2.1");
    for (size_t i = 0; i < COUNT_OF(lines); i++)
        harness_send(&harness, span_of(lines[i], sizeof(lines[i]) - 1), 0);
    assert_string_equal("220 500 500 500 500", harness_codes(&harness, codes, sizeof(codes)));
    assert_false(harness.is_closed);
    harness_fini(&harness);
}

/* Goal: TLS forgets everything and is not offered twice. */
static void test_starttls_forgets(void **state)
{
    static struct harness harness;
    char codes[256];

    (void)state;
    harness_init(&harness);
    harness.listener.offer_starttls = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    assert_non_null(strstr(harness.output, "250-STARTTLS\r\n"));
    harness_send_text(&harness, M);
    harness_send_text(&harness, "STARTTLS\r\n"); /* inside a transaction */
    harness_send_text(&harness, "RSET\r\n");
    harness_send_text(&harness, "STARTTLS\r\n");
    assert_true(harness.session.is_tls);
    harness_send_text(&harness, M); /* the EHLO from before does not count */
    harness_clear(&harness);
    harness_send_text(&harness, E);
    assert_null(strstr(harness.output, "STARTTLS"));
    harness_send_text(&harness, "STARTTLS\r\n");
    harness_send_text(&harness, M R D BODY);
    assert_string_equal("250 503 250 250 354 250", harness_codes(&harness, codes, sizeof(codes)));
    assert_non_null(strstr((char *)harness.messages[0].body, " with ESMTPS id "));
    assert_string_equal("TLSv1.3", harness.records[harness.record_count - 1].tls);
    harness_fini(&harness);

    harness_init(&harness); /* not offered */
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, "STARTTLS\r\n");
    assert_null(strstr(harness.output, "250-STARTTLS"));
    assert_string_equal("220 250 502", harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Goal: both sides of each limit. `count` repetitions of `repeat` end in the reply `last`. */
static void test_limits(void **state)
{
    static const struct {
        const char *name, *before, *repeat;
        uint32_t count;
        const char *last;
        bool is_closed;
    } rows[] = {
        {"errors at the limit", E, "FOO\r\n", 20, "500", false},
        {"errors beyond", E, "FOO\r\n", 21, "421", true},
        {"junk at the limit", E, "NOOP\r\n", 99, "250", false}, /* EHLO was the first */
        {"junk beyond", E, "NOOP\r\n", 100, "421", true},
        {"RSET beyond", E, "RSET\r\n", 100, "421", true},
        {"VRFY beyond", E, "VRFY x\r\n", 100, "421", true},
        {"HELP beyond", E, "HELP\r\n", 100, "421", true},
        {"empty chunks beyond", E M R, "BDAT 0\r\n", 100, "421", true},
        {"recipients at the limit", E M, R, 100, "250", false},
        {"recipients beyond", E M, R, 101, "452", false},
        {"RCPT commands at twice the limit", E M, R, 201, "452", false},
        {"RCPT commands beyond twice the limit", E M, R, 202, "421", true},
    };
    static struct harness harness;
    char codes[4096];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        harness_connect(&harness, "192.0.2.1");
        harness_send(&harness, span_from_text(E), 0);
        harness_send_text(&harness, rows[i].before + strlen(E));
        for (uint32_t n = 0; n < rows[i].count; n++)
            harness_send_text(&harness, rows[i].repeat);
        harness_codes(&harness, codes, sizeof(codes));
        assert_string_equal(rows[i].last, codes + strlen(codes) - 3);
        assert_int_equal(rows[i].is_closed, harness.is_closed);
        harness_fini(&harness);
    }
}

/* Goal: mail takes the junk count back to zero, and the number of messages can be bounded. */
static void test_messages_per_session(void **state)
{
    static struct harness harness;
    char codes[4096];

    (void)state;
    harness_init(&harness);
    harness.listener.limits.messages_per_session_max = 2;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t n = 0; n < 90; n++)
            harness_send_text(&harness, "NOOP\r\n");
        harness_send_text(&harness, M R D BODY);
    }
    assert_int_equal(2, harness.message_count);
    harness_clear(&harness);
    harness_send_text(&harness, M R);
    assert_string_equal("421", harness_codes(&harness, codes, sizeof(codes)));
    assert_true(harness.is_closed);
    harness_fini(&harness);
}

/* Goal: command lines of 2,048 octets with CRLF pass, one more does not, and the rest of a longer
 * one is not taken for a command. */
static void test_line_size(void **state)
{
    static const struct {
        const char *name;
        uint32_t size; /* with CRLF */
        const char *codes;
    } rows[] = {
        {"at the limit", 2048, "220 250 250 250"},
        {"one more", 2049, "220 250 500 250"},
        {"twice", 4096, "220 250 500 250"},
        {"far beyond", 20000, "220 250 500 250"},
    };
    static struct harness harness;
    static uint8_t line[20000];
    char codes[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        for (uint32_t piece = 0; piece <= 1500; piece += 500) {
            print_message("# case: %s, pieces of %u\n", rows[i].name, piece);
            memset(line, 'x', sizeof(line));
            memcpy(line, "NOOP ", 5);
            if (rows[i].size > 3000) /* a command where the reader might think a line begins */
                memcpy(line + 2048, "QUIT", 4);
            memcpy(line + rows[i].size - 2, "\r\n", 2);
            harness_init(&harness);
            harness_connect(&harness, "192.0.2.1");
            harness_send_text(&harness, E);
            harness_send(&harness, span_of(line, rows[i].size), piece);
            harness_send_text(&harness, "NOOP\r\n");
            assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
            harness_fini(&harness);
        }
    }
}

/* Goal: EHLO's argument can neither be missing nor carry anything into headers and logs. */
static void test_hello_names(void **state)
{
    static char long_name[300], name_255[300];
    static const struct {
        const char *argument;
        uint16_t code;
    } rows[] = {
        {"client.example", 250},
        {"[192.0.2.1]", 250},
        {"[IPv6:2001:db8::1]", 250},
        {"my_host", 250},
        {name_255, 250},
        {long_name, 501},
        {"", 501},
        {"a b", 501},
        {"a\x1b]x", 500},
        {"%n%s", 501},
        {"a\x7f", 500},
        {"caf\xc3\xa9", 501},
        {"a;b", 501},
        {"(a)", 501},
        {"a\"b", 501},
        {"<a>", 501},
    };
    static struct harness harness;
    char line[400], codes[64], want[32];

    (void)state;
    memset(long_name, 'a', 256);
    memset(name_255, 'a', 255);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %u octets, wants %d\n", (unsigned)strlen(rows[i].argument),
                      rows[i].code);
        harness_init(&harness);
        harness_connect(&harness, "192.0.2.1");
        snprintf(line, sizeof(line), "EHLO %s\r\n", rows[i].argument);
        harness_send_text(&harness, line);
        snprintf(want, sizeof(want), "220 %u", rows[i].code);
        assert_string_equal(want, harness_codes(&harness, codes, sizeof(codes)));
        harness_fini(&harness);
    }
}

/* Goal: MAIL's parameters. */
static void test_parameters(void **state)
{
    static const struct {
        const char *command;
        uint16_t code;
    } rows[] = {
        {"MAIL FROM:<a@b.example> SIZE=1000", 250},
        {"MAIL FROM:<a@b.example>  size=0  body=8bitmime", 250},
        {"MAIL FROM:<a@b.example> BODY=7BIT SMTPUTF8 SIZE=1", 250},
        {"MAIL FROM:<a@b.example> SIZE=131072", 250},
        {"MAIL FROM:<a@b.example> SIZE=131073", 552},
        {"MAIL FROM:<a@b.example> SIZE=18446744073709551615", 552},
        {"MAIL FROM:<a@b.example> SIZE=18446744073709551616", 501},
        {"MAIL FROM:<a@b.example> SIZE=99999999999999999999999", 501},
        {"MAIL FROM:<a@b.example> SIZE=-1", 501},
        {"MAIL FROM:<a@b.example> SIZE", 501},
        {"MAIL FROM:<a@b.example> SIZE=", 501},
        {"MAIL FROM:<a@b.example> SIZE=1 SIZE=1", 501},
        {"MAIL FROM:<a@b.example> BODY=X", 555},
        {"MAIL FROM:<a@b.example> BODY=BINARYMIME", 555},
        {"MAIL FROM:<a@b.example> BODY", 501},
        {"MAIL FROM:<a@b.example> SMTPUTF8=yes", 501},
        {"MAIL FROM:<a@b.example> =", 501},
        {"MAIL FROM:<a@b.example> =x", 501},
        {"MAIL FROM:<a@b.example> X=\"", 555},
        {"MAIL FROM:<a@b.example> AUTH=<+0A>", 555},
        {"MAIL FROM:<a@b.example> RET=HDRS", 250},
        {"MAIL FROM:<a@b.example> ret=full ENVID=QQ+2B314159", 250},
        {"MAIL FROM:<> RET=FULL", 250},
        {"MAIL FROM:<a@b.example> RET=HDRS RET=FULL", 501},
        {"MAIL FROM:<a@b.example> RET=ALL", 501},
        {"MAIL FROM:<a@b.example> RET", 501},
        {"MAIL FROM:<a@b.example> ENVID", 501},
        {"MAIL FROM:<a@b.example> ENVID=a ENVID=a", 501},
        {"MAIL FROM:<a@b.example> ENVID=a+00b", 501},
        {"MAIL FROM:<a@b.example> NOTIFY=NEVER", 555},
        {"MAIL FROM:<a@b.example>SIZE=1", 501},
        {"MAIL FROM:<a@b.example>x", 501},
        {"MAIL FROM:<a@b.example>,<c@d.example>", 501},
        {"MAIL FROM:<a@b.example> <c@d.example>", 501},
        {"MAIL FROM:a@b.example", 501},
        {"MAIL FROM <a@b.example>", 501},
        {"MAIL TO:<a@b.example>", 501},
        {"MAIL", 501},
        {"MAIL FROM:", 501},
        {"MAIL FROM:<a@[192.0.2.1]>", 553},
        {"MAIL FROM:<\xc3\xa9@b.example>", 553},
        {"MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8", 250},
        {"MAIL FROM:<\xff@b.example> SMTPUTF8", 501},
        {"RCPT TO:<b@served.example>", 250},
        {"RCPT TO:<b@served.example> NOTIFY=NEVER", 250},
        {"RCPT TO:<b@served.example> notify=success,Failure,DELAY ORCPT=rfc822;b@served.example",
         250},
        {"RCPT TO:<b@served.example> ORCPT=utf-8;b\\x{E9}@served.example", 250},
        {"RCPT TO:<b@served.example> NOTIFY=NEVER,DELAY", 501},
        {"RCPT TO:<b@served.example> NOTIFY=NEVER NOTIFY=NEVER", 501},
        {"RCPT TO:<b@served.example> NOTIFY", 501},
        {"RCPT TO:<b@served.example> ORCPT", 501},
        {"RCPT TO:<b@served.example> ORCPT=rfc822;a ORCPT=rfc822;a", 501},
        {"RCPT TO:<b@served.example> ORCPT=rfc822;a+0D+0Ab", 501},
        {"RCPT TO:<b@served.example> RET=FULL", 555},
        {"RCPT TO:<b@served.example>x", 501},
        {"RCPT TO:<>", 501},
        {"RCPT TO:<\xc3\xa9@served.example>", 553},
        {"RCPT FROM:<b@served.example>", 501},
    };
    static struct harness harness;
    char line[400], codes[64], want[32];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        bool is_rcpt = rows[i].command[0] == 'R';
        harness_init(&harness);
        harness_connect(&harness, "192.0.2.1");
        harness_send_text(&harness, E);
        if (is_rcpt)
            harness_send_text(&harness, M);
        snprintf(line, sizeof(line), "%s\r\n", rows[i].command);
        harness_send_text(&harness, line);
        snprintf(want, sizeof(want), "220 250 %s%u", is_rcpt ? "250 " : "", rows[i].code);
        harness_codes(&harness, codes, sizeof(codes));
        if (strcmp(want, codes) != 0)
            print_message("# %s\n", rows[i].command);
        assert_string_equal(want, codes);
        harness_fini(&harness);
    }
}

/* Goal: a thousand parameters are as harmless as two. */
static void test_many_parameters(void **state)
{
    static struct harness harness;
    static char line[2048] = "MAIL FROM:<a@b.example>";
    char codes[64];

    (void)state;
    while (strlen(line) + 6 < sizeof(line))
        memcpy(line + strlen(line), " X=", 4), memcpy(line + strlen(line), "1", 2);
    memcpy(line + strlen(line), "\r\n", 3);
    harness_init(&harness);
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, line);
    assert_string_equal("220 250 555", harness_codes(&harness, codes, sizeof(codes)));
    harness_fini(&harness);
}

/* Goal: replies leave in the order of commands, whatever the order of commits. */
static void test_reply_order(void **state)
{
    static struct harness harness;
    char codes[256];

    (void)state;
    harness_init(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D BODY M R D);
    assert_string_equal("220 250 250 250 354", harness_codes(&harness, codes, sizeof(codes)));
    harness_send_text(&harness, BODY M R D BODY);
    assert_int_equal(3, harness.message_count);
    assert_int_equal(SMTPD_NEED_COMMIT, smtpd_need(&harness.session));
    harness_send_text(&harness, Q); /* not read: two are ahead already */
    assert_int_equal(strlen(Q), harness.input_size);

    harness_clear(&harness);
    harness_commit(&harness, harness.messages[1].sequence, 451);
    assert_string_equal("", harness.output); /* 451 does not overtake */
    harness_commit(&harness, harness.messages[0].sequence, 250);
    assert_string_equal("250 250 250 354 451 250 250 354",
                        harness_codes(&harness, codes, sizeof(codes)));
    assert_false(harness.is_closed); /* 221 waits for the third */
    harness_commit(&harness, harness.messages[2].sequence, 452);
    assert_string_equal("250 250 250 354 451 250 250 354 452 221",
                        harness_codes(&harness, codes, sizeof(codes)));
    assert_true(harness.is_closed);
    harness_fini(&harness);
}

/* Goal: what is remembered of a client's name ends with the name; a message that is pending keeps
 * the one it came with. */
static void test_another_hello(void **state)
{
    static struct harness harness;

    (void)state;
    harness_init(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D BODY M R D BODY);
    harness_send_text(&harness, "EHLO other.example\r\n");
    harness_send_text(&harness, M R D BODY);
    assert_int_equal(3, harness.message_count);
    for (uint32_t i = 0; i < 3; i++) {
        const char *name = i < 2 ? "client.example" : "other.example";
        struct span client = harness.messages[i].envelope.client;
        char wanted[64];

        snprintf(wanted, sizeof(wanted), "%s [192.0.2.1]", name);
        assert_int_equal(strlen(wanted), client.size);
        assert_memory_equal(wanted, client.data, client.size);
        snprintf(wanted, sizeof(wanted), "Received: from %s ([192.0.2.1])\r\n", name);
        assert_true(harness.messages[i].size > strlen(wanted));
        assert_memory_equal(wanted, harness.messages[i].body, strlen(wanted));
    }
    for (uint32_t i = 0; i < 3; i++)
        harness_commit(&harness, harness.messages[i].sequence, 250);
    harness_fini(&harness);
}

/* Goal: a deadline's 421 stays behind a pending commit; a client that leaves has still handed its
 * message over. */
static void test_pending_at_the_end_of_session(void **state)
{
    static struct harness harness;
    char codes[256];

    (void)state;
    harness_init(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D BODY);
    harness_clear(&harness);
    harness.now.tick += TICK_S(3600);
    smtpd_expire(&harness.context, &harness.session, harness.now);
    assert_int_equal(SMTPD_NEED_COMMIT, smtpd_need(&harness.session));
    harness_commit(&harness, harness.messages[0].sequence, 250);
    assert_string_equal("250 421", harness_codes(&harness, codes, sizeof(codes)));
    assert_true(harness.is_closed);
    harness_fini(&harness);

    harness_init(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D BODY M R D "half of");
    smtpd_hang_up(&harness.context, &harness.session);
    assert_int_equal(SMTPD_NEED_COMMIT, smtpd_need(&harness.session));
    harness_commit(&harness, harness.messages[0].sequence, 250);
    assert_int_equal(SMTPD_NEED_CLOSE, smtpd_need(&harness.session));
    assert_int_equal(1, harness.record_count);
    assert_int_equal(RECORD_RECEPTION, harness.records[0].kind);
    assert_string_equal("b@served.example", harness.records[0].recipient);
    harness_fini(&harness);
}

/* Goal: what a next hop said to its refusal is passed on, as one harmless line that RFC 2034
 * allows, in its turn, and is no error of the client's. */
static void test_refusals_of_next_hops(void **state)
{
    static const struct row {
        const char *name;
        uint16_t code;
        uint8_t enhanced[3];
        const char *reply, *line;
    } rows[] = {
        {"complete", 550, {5, 1, 1}, "550 5.1.1 no such user", "550 5.1.1 no such user"},
        {"no enhanced code", 550, {0}, "550 no such user", "550 5.0.0 no such user"},
        {"of another class", 554, {4, 4, 2}, "554 what", "554 5.0.0 what"},
        {"words of our own", 550, {5, 1, 2}, "no such domain", "550 5.1.2 no such domain"},
        {"bare code", 554, {0}, "554", "554 5.0.0 "},
        {"only codes", 554, {5, 6, 0}, "554 5.6.0", "554 5.6.0 "},
        {"no text", 554, {0}, "", "554 5.0.0 "},
        {"controls", 554, {0}, "554 a\r\n250 ok\t\xff", "554 5.0.0 a??250 ok??"},
    };
    static struct harness harness;
    char line[600], text[700];

    (void)state;
    harness_init(&harness);
    harness.holds_commits = true;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct message_fate fate = {.code = rows[i].code, .way = WAY_READY};

        print_message("# %s\n", rows[i].name);
        harness_send_text(&harness, M R D BODY);
        harness_clear(&harness);
        fate.reply = span_from_text(rows[i].reply);
        memcpy(fate.enhanced, rows[i].enhanced, sizeof(fate.enhanced));
        harness_fate(&harness, harness.messages[i].sequence, &fate);
        snprintf(line, sizeof(line), "%s\r\n", rows[i].line);
        assert_string_equal(line, harness.output);
        assert_int_equal(0, harness.session.error_count);
        assert_int_equal(RECORD_REJECTION, harness.records[i].kind);
        assert_int_equal(WAY_READY, harness.records[i].way);
        assert_int_equal(rows[i].code, harness.records[i].code);
    }
    /* 512 octets with CRLF, however much it said. */
    struct message_fate fate = {.code = 550, .enhanced = {5, 1, 1}, .way = WAY_READY};
    memset(text, 'x', sizeof(text));
    fate.reply = span_of(text, sizeof(text));
    harness_send_text(&harness, M R D BODY);
    harness_clear(&harness);
    harness_fate(&harness, harness.messages[COUNT_OF(rows)].sequence, &fate);
    assert_int_equal(512, strlen(harness.output));
    harness_fini(&harness);
}

/* Goal: held replies are bounded. */
static void test_held_replies_are_bounded(void **state)
{
    static struct harness harness;

    (void)state;
    harness_init(&harness);
    harness.holds_commits = true;
    harness.listener.limits.junk_max = 1000000;
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D BODY);
    for (uint32_t i = 0; i < 2000; i++)
        harness_send_text(&harness, "NOOP\r\n");
    assert_int_equal(SMTPD_NEED_COMMIT, smtpd_need(&harness.session));
    assert_in_range(harness.session.held_size, SMTPD_HELD_MAX, SMTPD_HELD_MAX + 2048);
    harness_clear(&harness);
    harness_commit(&harness, harness.messages[0].sequence, 250);
    assert_int_equal(2000, (harness.output_size - strlen(strtok(harness.output, "\n")) - 1) /
                               strlen("250 2.0.0 ok\r\n"));
    harness_fini(&harness);
}

/* Goal: each phase has its deadline, on both sides. */
static void test_deadlines(void **state)
{
    static const struct {
        const char *name, *input;
        tick_us after;
    } rows[] = {
        {"before EHLO", "", TICK_S(300)},
        {"waiting for a command", E, TICK_S(300)},
        {"inside a line", E "MAI", TICK_S(300)},
        {"body", E M R D "x", TICK_S(180)},
        {"chunk", E M R "BDAT 10\r\nx", TICK_S(180)},
        {"between chunks", E M R "BDAT 1\r\nx", TICK_S(300)},
    };
    static struct harness harness;

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        harness_connect(&harness, "192.0.2.1");
        if (rows[i].input[0] != '\0') {
            harness_send_text(&harness, E);
            harness_send_text(&harness, rows[i].input + strlen(E));
        }
        tick_us start = harness.now.tick;
        assert_int_equal(start + rows[i].after, smtpd_deadline(&harness.session));
        harness.now.tick = start + rows[i].after - 1;
        smtpd_expire(&harness.context, &harness.session, harness.now);
        assert_int_not_equal(SMTPD_CLOSING, harness.session.state);
        harness.now.tick += 1;
        smtpd_expire(&harness.context, &harness.session, harness.now);
        assert_int_equal(SMTPD_CLOSING, harness.session.state);
        assert_memory_equal("421 4.4.2", harness.context.output, 9);
        harness.context.output_size = 0;
        harness_fini(&harness);
    }
}

/* Goal: a client that trickles is cut off by the transaction's and the session's deadline. */
static void test_absolute_deadlines(void **state)
{
    static struct harness harness;

    (void)state;
    harness_init(&harness);
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_send_text(&harness, M R D);
    for (uint32_t second = 0; second < 1799; second += 100) {
        harness.now.tick = TICK_S(1000) + TICK_S(second);
        smtpd_expire(&harness.context, &harness.session, harness.now);
        harness_send_text(&harness, "x");
    }
    assert_int_equal(SMTPD_DATA, harness.session.state);
    harness.now.tick = TICK_S(1000) + TICK_S(1800);
    smtpd_expire(&harness.context, &harness.session, harness.now);
    assert_int_equal(SMTPD_CLOSING, harness.session.state);
    harness.context.output_size = 0;
    harness_fini(&harness);
}

/* Goal: the store's refusal is told, and nothing is left of the transaction. */
static void test_store_errors(void **state)
{
    static const struct {
        const char *name, *input;
        enum err begin_err, body_err;
        const char *codes;
    } rows[] = {
        {"full at DATA", M R D M, ERR_DISK_FULL, ERR_OK, "452 250"},
        {"limit at DATA", M R D M, ERR_LIMIT, ERR_OK, "452 250"},
        {"disk error at DATA", M R D M, ERR_DISK_IO, ERR_OK, "451 250"},
        {"full at BDAT", M R "BDAT 3\r\nabcBDAT 2 LAST\r\nabM\r\n", ERR_DISK_FULL, ERR_OK,
         "452 452 500"},
        {"full at the end", M R D BODY M, ERR_OK, ERR_DISK_FULL, "354 452 250"},
        {"disk error at the last chunk", M R "BDAT 5 LAST\r\nabcde" M, ERR_OK, ERR_DISK_IO,
         "451 250"},
    };
    static struct harness harness;
    char codes[256];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        harness.begin_err = rows[i].begin_err;
        harness.body_err = rows[i].body_err;
        harness_connect(&harness, "192.0.2.1");
        harness_send_text(&harness, E);
        harness_send_text(&harness, rows[i].input);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)) + 16);
        assert_int_equal(0, harness.message_count);
        assert_false(harness.is_open);
        harness_fini(&harness);
    }
}

/* Goal: a client that spoke first is refused. */
static void test_early_talker(void **state)
{
    static struct harness harness;
    char codes[64];

    (void)state;
    harness_init(&harness);
    memcpy(harness.input, "EHLO x\r\n", 8);
    harness.input_size = 8;
    harness_connect(&harness, "192.0.2.1");
    assert_string_equal("554", harness_codes(&harness, codes, sizeof(codes)));
    assert_true(harness.is_closed);
    harness_fini(&harness);
}

/* Goal: EHLO names exactly what is offered. */
static void test_ehlo_reply(void **state)
{
    static struct harness harness;

    (void)state;
    harness_init(&harness);
    harness_connect(&harness, "192.0.2.1");
    assert_string_equal("220 relay.example ESMTP Angarium\r\n", harness.output);
    harness_clear(&harness);
    harness_send_text(&harness, E);
    assert_string_equal("250-relay.example\r\n250-PIPELINING\r\n250-SIZE 131072\r\n250-8BITMIME\r\n"
                        "250-SMTPUTF8\r\n250-CHUNKING\r\n250-DSN\r\n250 ENHANCEDSTATUSCODES\r\n",
                        harness.output);
    harness_fini(&harness);
}

/* Goal: every state and every command: what is not legal is refused without a change of state. */
static void test_every_command_in_every_state(void **state)
{
    static const char *const ways[] = {"", "", E, E M, E M R, E M R D, E M R "BDAT 1\r\nx"};
    static const char *const commands[] = {"EHLO x", "HELO x", M,          R,
                                           "DATA",   "BDAT 0", "RSET",     "NOOP",
                                           "VRFY x", "HELP",   "STARTTLS", "BOGUS"};
    /* One row per state (from GREETED on), one letter per command: 2 or 3: taken, 5: refused. */
    static const char *const want[] = {
        "", "225555222255", "225555222255", "555255222255", "555232222255", "", "555552222255"};
    static const char *const want_ready[] = {"222555222225"};
    static struct harness harness;

    (void)state;
    for (size_t way = 1; way < COUNT_OF(ways); way++) {
        if (way == 5)
            continue; /* in DATA there are no commands */
        const char *row = way == 2 ? want_ready[0] : want[way];
        for (size_t i = 0; i < COUNT_OF(commands); i++) {
            harness_init(&harness);
            harness.listener.offer_starttls = true;
            harness_connect(&harness, "192.0.2.1");
            if (ways[way][0] != '\0') {
                harness_send_text(&harness, E);
                harness_send_text(&harness, ways[way] + strlen(E));
            }
            uint8_t before = harness.session.state;
            assert_int_equal(way, before);
            harness_clear(&harness);
            harness_send_text(&harness, commands[i]);
            if (strchr(commands[i], '\n') == NULL)
                harness_send_text(&harness, "\r\n");
            char got = harness.output[0] == '3' ? '3' : harness.output[0];
            if (got != row[i])
                print_message("# state %s command %s reply %s\n", smtpd_state_name(before),
                              commands[i], harness.output);
            assert_int_equal(row[i], got);
            if (got == '5')
                assert_int_equal(before, harness.session.state);
            harness_fini(&harness);
        }
    }
}

/* Goal: HELO announces no pipelining, so none may happen, and DATA waits for its 354. */
static void test_pipelining_after_helo(void **state)
{
    static const struct {
        const char *input, *codes;
        bool is_closed;
    } rows[] = {
        {M, "220 250 250", false},
        {M R, "220 250 554", true},
        {D BODY, "220 250 554", true},
    };
    static struct harness harness;
    char codes[64];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        harness_init(&harness);
        harness_connect(&harness, "192.0.2.1");
        harness_send_text(&harness, "HELO c\r\n");
        harness_send_text(&harness, rows[i].input);
        assert_string_equal(rows[i].codes, harness_codes(&harness, codes, sizeof(codes)));
        assert_int_equal(rows[i].is_closed, harness.is_closed);
        harness_fini(&harness);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dialogues),
        cmocka_unit_test(test_verbs_with_nul),
        cmocka_unit_test(test_pipelining_after_helo),
        cmocka_unit_test(test_every_command_in_every_state),
        cmocka_unit_test(test_starttls_forgets),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_messages_per_session),
        cmocka_unit_test(test_line_size),
        cmocka_unit_test(test_hello_names),
        cmocka_unit_test(test_parameters),
        cmocka_unit_test(test_many_parameters),
        cmocka_unit_test(test_reply_order),
        cmocka_unit_test(test_another_hello),
        cmocka_unit_test(test_pending_at_the_end_of_session),
        cmocka_unit_test(test_refusals_of_next_hops),
        cmocka_unit_test(test_held_replies_are_bounded),
        cmocka_unit_test(test_deadlines),
        cmocka_unit_test(test_absolute_deadlines),
        cmocka_unit_test(test_store_errors),
        cmocka_unit_test(test_early_talker),
        cmocka_unit_test(test_ehlo_reply),
    };
    return cmocka_run_group_tests_name("smtpd", tests, NULL, NULL);
}
