/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages through the session engine: what ends one and what does not (smuggling), BDAT, what is
 * refused at the end of data, normalizing, and the envelope that is handed on.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/dkim_fixture.h"
#include "tests/unit/smtpd_harness.h"

#define E "EHLO client.example\r\n"
#define M "MAIL FROM:<a@client.example>\r\n"
#define R "RCPT TO:<b@served.example>\r\n"
#define T M R "DATA\r\n"

static struct harness harness;

static void begin(void)
{
    harness_connect(&harness, "192.0.2.1");
    harness_send_text(&harness, E);
    harness_clear(&harness);
}

static const char *codes(void)
{
    static char text[8192];
    return harness_codes(&harness, text, sizeof(text));
}

/* The content behind our trace field. */
static const char *content(uint32_t index)
{
    const char *end = strstr((const char *)harness.messages[index].body, "+0000\r\n");
    assert_non_null(end);
    return end + strlen("+0000\r\n");
}

/* ---- smuggling ---- */

/* Candidates for an end of data that is none. NUL is written as %, and put in before use. */
static const struct {
    const char *name, *text;
    bool is_content; /* legal text: the message is accepted, as one */
} candidates[] = {
    {"LF dot LF", "\n.\n", false},
    {"LF dot CRLF", "\n.\r\n", false},
    {"CRLF dot LF", "\r\n.\n", false},
    {"CR dot CR", "\r.\r", false},
    {"CR dot LF", "\r.\n", false},
    {"LF dot CR", "\n.\r", false},
    {"CR dot CRLF", "\r.\r\n", false},
    {"CRLF dot CR", "\r\n.\r", false},
    {"CRLF dot CR CRLF", "\r\n.\r\r\n", false},
    {"CR CRLF dot CR CRLF", "\r\r\n.\r\r\n", false},
    {"CRLF NUL dot CRLF", "\r\n%.\r\n", false},
    {"CRLF dot NUL CRLF", "\r\n.%\r\n", false},
    {"CRLF dot space CRLF", "\r\n. \r\n", true},
    {"CRLF dot tab CRLF", "\r\n.\t\r\n", true},
    {"CRLF dot dot CRLF", "\r\n..\r\n", true},
    {"vertical tabs", "\x0b.\x0b", true},
    {"form feeds", "\x0c.\x0c", true},
    {"NEL in Latin-1", "\x85.\x85", true},
    {"NEL in UTF-8", "\xc2\x85.\xc2\x85", true},
    {"line separator", "\xe2\x80\xa8.\xe2\x80\xa8", true},
    {"fullwidth dot", "\r\n\xef\xbc\x8e\r\n", true},
    {"CRLF with the high bit", "\x8d\x8a.\x8d\x8a", true},
};

#define SMUGGLED                                                                                   \
    "MAIL FROM:<smuggled@client.example>\r\nRCPT TO:<c@served.example>\r\nDATA\r\n"                \
    "Subject: smuggled\r\n\r\nno\r\n.\r\n"

static uint32_t make_body(const char *before, const char *candidate, char *ret_text, uint32_t size)
{
    int used = snprintf(ret_text, size, "%s%s" SMUGGLED, before, candidate);
    for (int i = 0; i < used; i++)
        ret_text[i] = ret_text[i] == '%' ? '\0' : ret_text[i];
    return (uint32_t)used;
}

static void play_candidate(size_t i, const char *before, uint32_t piece, bool is_normalizing)
{
    static char text[4096];
    uint32_t size = make_body(before, candidates[i].text, text, sizeof(text));
    bool has_nul = memchr(text, '\0', size) != NULL;
    bool is_taken = candidates[i].is_content || (is_normalizing && !has_nul);

    harness_init(&harness);
    harness.listener.bare_lf =
        is_normalizing ? SETTINGS_BARE_LF_NORMALIZE : SETTINGS_BARE_LF_REJECT;
    begin();
    harness_send_text(&harness, T);
    harness_send(&harness, span_of(text, size), piece);
    harness_send_text(&harness, "NOOP\r\n");
    if (strcmp(is_taken ? "250 250 354 250 250" : "250 250 354 550 250", codes()) != 0)
        print_message("# %s, pieces of %u, normalizing %d\n", candidates[i].name, piece,
                      is_normalizing);
    assert_string_equal(is_taken ? "250 250 354 250 250" : "250 250 354 550 250", codes());
    assert_int_equal(is_taken, harness.message_count);
    if (is_taken)
        assert_string_equal("b@served.example", harness.messages[0].recipients[0]);
    else
        assert_non_null(strstr(harness.output, "550 5.6.11 "));
    for (uint32_t k = 0; is_taken && k < harness.messages[0].size; k++) {
        uint8_t octet = harness.messages[0].body[k];
        if (octet == '\n')
            assert_int_equal('\r', harness.messages[0].body[k - 1]);
        if (octet == '\r')
            assert_int_equal('\n', harness.messages[0].body[k + 1]);
    }
    harness_fini(&harness);
}

/* Goal: exactly one message comes of each candidate, or none; in the body, in the header, as the
 * first line; whole, octet by octet, and at every single cut. */
static void test_smuggling(void **state)
{
    static const char *const before[] = {"Subject: x\r\n\r\nhello", "Subject: x", ""};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(candidates); i++) {
        for (size_t k = 0; k < COUNT_OF(before); k++) {
            for (uint32_t piece = 0; piece < 40; piece++) {
                play_candidate(i, before[k], piece, false);
                play_candidate(i, before[k], piece, true);
            }
        }
    }
}

/* Goal: a true end of data with a stray CR in front is one, refused, message. */
static void test_stray_cr_before_the_end(void **state)
{
    (void)state;
    for (uint32_t piece = 0; piece < 8; piece++) {
        harness_init(&harness);
        begin();
        harness_send_text(&harness, T);
        harness_send(&harness, SPAN_LITERAL("a\r\r\n.\r\nNOOP\r\n"), piece);
        assert_string_equal("250 250 354 550 250", codes());
        harness_fini(&harness);
    }
}

/* Goal: candidates behind a line of 100 KB, at every place of the scanner's blocks. */
static void test_smuggling_behind_a_long_line(void **state)
{
    static char text[110000];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(candidates); i++) {
        for (uint32_t shift = 0; shift < 64; shift += 7) {
            uint32_t line = 100000 + shift;
            memset(text, 'x', line);
            uint32_t size =
                line + make_body("", candidates[i].text, text + line, sizeof(text) - line);
            harness_init(&harness);
            begin();
            harness_send_text(&harness, T);
            harness_send(&harness, span_of(text, size), 0);
            if (strlen(codes()) != 15)
                print_message("# %s %u\n", candidates[i].name, shift);
            assert_string_equal(candidates[i].is_content ? "250 250 354 250" : "250 250 354 550",
                                codes());
            harness_fini(&harness);
        }
    }
}

/* Goal: there is no list of friends for whom another rule holds. */
static void test_no_exemptions(void **state)
{
    (void)state;
    harness_init(&harness);
    harness_connect(&harness, "10.1.2.3"); /* may relay */
    harness_send_text(&harness, E);
    harness_clear(&harness);
    harness_send_text(&harness, T);
    harness_send_text(&harness, "a\n.\nMAIL FROM:<x@y.example>\r\n.\r\n");
    assert_string_equal("250 250 354 550", codes());
    harness_fini(&harness);
}

/* ---- the verdict ---- */

/* Goal: both sides of each bound on a message, and what is left of the session. */
static void test_verdicts(void **state)
{
    static char many_received[8192], long_line[1200], longer_line[1200];
    static const struct {
        const char *name, *body;
        enum settings_long_lines long_lines;
        const char *codes;
    } rows[] = {
        {"99 Received fields", many_received, SETTINGS_LONG_LINES_PASS, "250 250 354 250"},
        {"Received in the body", "\r\nReceived: x\r\n.\r\n", SETTINGS_LONG_LINES_PASS,
         "250 250 354 250"},
        {"line at the limit", long_line, SETTINGS_LONG_LINES_REJECT, "250 250 354 250"},
        {"line beyond", longer_line, SETTINGS_LONG_LINES_REJECT, "250 250 354 550"},
        {"line beyond, let pass", longer_line, SETTINGS_LONG_LINES_PASS, "250 250 354 250"},
    };
    uint32_t size = 0;

    (void)state;
    for (uint32_t i = 0; i < 99; i++)
        size += (uint32_t)snprintf(many_received + size, sizeof(many_received) - size,
                                   "%s: from x\r\n", i % 2 ? "received" : "ReCeived");
    snprintf(many_received + size, sizeof(many_received) - size, "\r\n.\r\n");
    memset(long_line, 'x', 998);
    memcpy(long_line + 998, "\r\n.\r\n", 6);
    memset(longer_line, 'x', 999);
    memcpy(longer_line + 999, "\r\n.\r\n", 6);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        harness.listener.long_lines = rows[i].long_lines;
        begin();
        harness_send_text(&harness, T);
        harness_send_text(&harness, rows[i].body);
        assert_string_equal(rows[i].codes, codes());
        harness_fini(&harness);
    }
    /* One more field closes the loop. */
    harness_init(&harness);
    begin();
    harness_send_text(&harness, T);
    harness_send_text(&harness, "RECEIVED: from y\r\n");
    harness_send_text(&harness, many_received);
    assert_string_equal("250 250 354 554", codes());
    assert_non_null(strstr(harness.output, "554 5.4.6 "));
    assert_int_equal(0, harness.message_count);
    assert_int_equal(1, harness.aborted_count);
    harness_fini(&harness);
}

static void send_filler(uint32_t size)
{
    static char filler[1024];
    memset(filler, 'x', sizeof(filler));
    memcpy(filler + sizeof(filler) - 2, "\r\n", 2);
    uint32_t rest = size % (uint32_t)sizeof(filler);
    harness_send(&harness, span_of(filler, rest), 0); /* the first line is longer by so much */
    for (size -= rest; size > 0; size -= (uint32_t)sizeof(filler))
        harness_send(&harness, span_of(filler, sizeof(filler)), 0);
}

/* Goal: message_size_max is content octets, exact; what is too big is read to its end; what may be
 * read so is bounded. */
static void test_message_size(void **state)
{
    static const struct {
        const char *name;
        uint32_t size;
        const char *codes;
        bool is_closed;
    } rows[] = {
        {"at the limit", HARNESS_BODY_MAX / 2, "250 250 354 250", false},
        {"one more", HARNESS_BODY_MAX / 2 + 1, "250 250 354 552", false},
        {"twice the limit behind it", HARNESS_BODY_MAX, "250 250 354 552", false},
        {"four times", 2 * HARNESS_BODY_MAX, "250 250 354 521", true},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        harness_init(&harness);
        begin();
        harness_send_text(&harness, T);
        send_filler(rows[i].size);
        harness_send_text(&harness, ".\r\n");
        assert_string_equal(rows[i].codes, codes());
        assert_int_equal(rows[i].is_closed, harness.is_closed);
        assert_false(harness.is_open);
        harness_fini(&harness);
    }
}

/* Goal: behind a violation not more is read than the bound, then 521. */
static void test_much_after_a_violation(void **state)
{
    (void)state;
    harness_init(&harness);
    begin();
    harness_send_text(&harness, T);
    harness_send_text(&harness, "a\nb\r\n");
    send_filler(HARNESS_BODY_MAX - 1024);
    assert_false(harness.is_closed);
    send_filler(2048);
    assert_string_equal("250 250 354 521", codes());
    assert_true(harness.is_closed);
    harness_fini(&harness);
}

/* ---- BDAT ---- */

static void test_bdat(void **state)
{
    static const struct {
        const char *name, *input, *codes;
        bool is_closed;
        uint32_t messages;
        const char *content;
    } rows[] = {
        {"one chunk", M R "BDAT 7 LAST\r\nA: b\r\n\r", "250 250 550", false, 0, NULL},
        {"one good chunk", M R "BDAT 8 LAST\r\nA: b\r\n\r\nNOOP\r\n", "250 250 250 250", false, 1,
         "A: b\r\n\r\n"},
        {"two chunks", M R "BDAT 3\r\nA: BDAT 3 LAST\r\nb\r\n", "250 250 250 250", false, 1,
         "A: b\r\n"},
        {"empty last chunk", M R "BDAT 6\r\nA: b\r\nBDAT 0 LAST\r\n", "250 250 250 250", false, 1,
         "A: b\r\n"},
        {"nothing at all", M R "BDAT 0 LAST\r\n", "250 250 250", false, 1, ""},
        {"lower case", M R "bdat 1 last\r\nx", "250 250 250", false, 1, "x"},
        {"leading zero", M R "BDAT 07 LAST\r\nA: b\r\n\n", "250 250 550", false, 0, NULL},
        {"dots are content", M R "BDAT 3\r\n.\r\nBDAT 5 LAST\r\n..a\r\n", "250 250 250 250", false,
         1, ".\r\n..a\r\n"},
        {"end of data inside", M R "BDAT 11 LAST\r\na\r\n.\r\nQUIT\r\n", "250 250 550 500", true, 0,
         NULL},
        {"end of data inside, whole", M R "BDAT 12 LAST\r\na\r\n.\r\nQUIT\r\n", "250 250 250",
         false, 1, "a\r\n.\r\nQUIT\r\n"},
        {"LF dot LF inside", M R "BDAT 5 LAST\r\na\n.\nbNOOP\r\n", "250 250 550 250", false, 0,
         NULL},
        {"CR and LF in two chunks", M R "BDAT 2\r\na\rBDAT 3 LAST\r\n\nb\r", "250 250 250 550",
         false, 0, NULL},
        {"CRLF over two chunks", M R "BDAT 2\r\na\rBDAT 1 LAST\r\n\n", "250 250 250 250", false, 1,
         "a\r\n"},
        {"no argument", M R "BDAT\r\nMAIL\r\n", "250 250 501", true, 0, NULL},
        {"negative", M R "BDAT -1\r\nNOOP\r\n", "250 250 501", true, 0, NULL},
        {"33 bits", M R "BDAT 4294967296 LAST\r\nx", "250 250 521", true, 0, NULL},
        {"65 bits", M R "BDAT 18446744073709551616\r\nx", "250 250 501", true, 0, NULL},
        {"64 bits", M R "BDAT 18446744073709551615\r\nx", "250 250 521", true, 0, NULL},
        {"exponent", M R "BDAT 1e3\r\nx", "250 250 501", true, 0, NULL},
        {"hexadecimal", M R "BDAT 0x10\r\nx", "250 250 501", true, 0, NULL},
        {"high octet", M R "BDAT \x7f\r\nx", "250 250 501", true, 0, NULL},
        {"LASTX", M R "BDAT 5 LASTX\r\nabcde", "250 250 501", true, 0, NULL},
        {"LAST twice", M R "BDAT 5 LAST LAST\r\nabcde", "250 250 501", true, 0, NULL},
        {"other word", M R "BDAT 5 FIRST\r\nabcde", "250 250 501", true, 0, NULL},
        {"two spaces", M R "BDAT 5  LAST\r\nabcde", "250 250 501", true, 0, NULL},
        {"bad size before any mail", "FOO\r\nBDAT 1\r\n:BDAT x\r\nz", "500 503 501", true, 0, NULL},
        {"without MAIL", "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n", "503 250", false, 0, NULL},
        {"without MAIL, at the bound of mercy", "BDAT 65537 LAST\r\nQUIT\r\n", "521", true, 0,
         NULL},
        {"RSET forgets that there was a MAIL", M "RSET\r\nBDAT 65537 LAST\r\n", "250 250 521", true,
         0, NULL},
        {"so does the end of a message", M R "DATA\r\n.\r\nBDAT 65537 LAST\r\n",
         "250 250 354 250 521", true, 1, NULL},
        {"behind a refused MAIL", "MAIL FROM:<@>\r\n" R "BDAT 6 LAST\r\nQUIT\r\nNOOP\r\n",
         "501 503 503 250", false, 0, NULL},
        {"without RCPT", M "BDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\nQUIT\r\n" M, "250 503 503 250", false,
         0, NULL},
        {"all recipients refused",
         M "RCPT TO:<x@elsewhere.example>\r\nBDAT 6\r\nQUIT\r\nBDAT 6 "
           "LAST\r\nQUIT\r\n" M,
         "250 550 554 554 250", false, 0, NULL},
        {"error, then DATA", M R "BDAT 200000 LAST\r\n", "250 250", false, 0, NULL},
        {"DATA between chunks", M R "BDAT 1\r\nxDATA\r\nBDAT 1 LAST\r\ny", "250 250 250 503 250",
         false, 1, "xy"},
        {"MAIL and RCPT between chunks", M R "BDAT 1\r\nx" M R "BDAT 1 LAST\r\ny",
         "250 250 250 503 503 250", false, 1, "xy"},
        {"EHLO between chunks", M R "BDAT 1\r\nxEHLO x\r\n", "250 250 250 503", false, 0, NULL},
        {"RSET between chunks", M R "BDAT 1\r\nxRSET\r\n" R M R "BDAT 1 LAST\r\ny",
         "250 250 250 250 503 250 250 250", false, 1, "y"},
        {"BDAT after DATA's end", M R "DATA\r\nx\r\n.\r\nBDAT 6 LAST\r\nQUIT\r\n",
         "250 250 354 250 503", false, 1, "x\r\n"},
        {"QUIT between chunks", M R "BDAT 1\r\nxQUIT\r\n", "250 250 250 221", true, 0, NULL},
        {"refused chunk, then the rest",
         M R "BDAT 2\r\n\n\nBDAT 6\r\nQUIT\r\nBDAT 6 LAST\r\n"
             "QUIT\r\n" R,
         "250 250 550 550 550 503", false, 0, NULL},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        bool is_split_shown = strstr(rows[i].name, "EHLO") == NULL;
        for (uint32_t piece = 0; piece < (is_split_shown ? 50u : 1u); piece += 1 + piece / 5) {
            harness_init(&harness);
            begin();
            harness_send(&harness, span_from_text(rows[i].input), piece);
            assert_string_equal(rows[i].codes, codes());
            assert_int_equal(rows[i].is_closed, harness.is_closed);
            assert_int_equal(rows[i].messages, harness.message_count);
            if (rows[i].content != NULL)
                assert_string_equal(rows[i].content, content(0));
            harness_fini(&harness);
        }
    }
}

/* Goal: a chunk that would make the message too big is swallowed, and the session goes on. */
static void test_bdat_size(void **state)
{
    char line[64];

    (void)state;
    for (uint32_t extra = 0; extra < 2; extra++) {
        harness_init(&harness);
        begin();
        harness_send_text(&harness, M R "BDAT 1000\r\n");
        send_filler(1000);
        uint32_t size = HARNESS_BODY_MAX / 2 - 1000 + extra;
        snprintf(line, sizeof(line), "BDAT %u LAST\r\n", size);
        harness_send_text(&harness, line);
        send_filler(size);
        harness_send_text(&harness, "DATA\r\n" M);
        assert_string_equal(extra ? "250 250 250 552 503 250" : "250 250 250 250 503 250", codes());
        assert_int_equal(extra ? 0 : 1, harness.message_count);
        harness_fini(&harness);
    }
}

/* Goal: ten thousand chunks of one octet take no more memory than one. */
static void test_many_chunks(void **state)
{
    (void)state;
    harness_init(&harness);
    begin();
    harness_send_text(&harness, M R "BDAT 1\r\nx");
    uint64_t size = harness.session.transaction->arena.size;
    for (uint32_t i = 0; i < 10000; i++)
        harness_send_text(&harness, "BDAT 1\r\nx");
    assert_int_equal(size, harness.session.transaction->arena.size);
    harness_send_text(&harness, "BDAT 2 LAST\r\n\r\n");
    assert_int_equal(1, harness.message_count);
    harness_fini(&harness);
}

/* ---- the envelope ---- */

static void test_envelope(void **state)
{
    static const struct {
        const char *name, *input;
        uint32_t flags;
        uint32_t content_header_size;
        const char *content;
    } rows[] = {
        {"plain", T "A: b\r\n\r\nc\r\n.\r\n", 0, 8, "A: b\r\n\r\nc\r\n"},
        {"dot lines", T "\r\n..\r\n.\r\n", ENVELOPE_DOT_LINES, 2, "\r\n.\r\n"},
        {"dot line in BDAT", M R "BDAT 4 LAST\r\n\r\n.x",
         ENVELOPE_DOT_LINES | ENVELOPE_NO_FINAL_CRLF, 2, "\r\n.x"},
        {"eight bit body", T "\r\n\xe9\r\n.\r\n", ENVELOPE_EIGHT_BIT, 2, "\r\n\xe9\r\n"},
        {"eight bit header without SMTPUTF8", T "A: \xe9\r\n\r\n.\r\n", ENVELOPE_EIGHT_BIT, 8,
         "A: \xe9\r\n\r\n"},
        {"SMTPUTF8 asked, not needed",
         "MAIL FROM:<a@b.example> SMTPUTF8\r\n" R "DATA\r\nA: b\r\n\r\n\xc3\xa9\r\n.\r\n",
         ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT, 8, "A: b\r\n\r\n\xc3\xa9\r\n"},
        {"SMTPUTF8 header",
         "MAIL FROM:<a@b.example> SMTPUTF8\r\n" R "DATA\r\nA: \xc3\xa9\r\n\r\n.\r\n",
         ENVELOPE_SMTPUTF8 | ENVELOPE_EIGHT_BIT | ENVELOPE_UTF8_NEEDED, 9, "A: \xc3\xa9\r\n\r\n"},
        {"SMTPUTF8 sender", "MAIL FROM:<\xc3\xa9@b.example> SMTPUTF8\r\n" R "DATA\r\n\r\n.\r\n",
         ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_NEEDED, 2, "\r\n"},
        {"SMTPUTF8 recipient",
         "MAIL FROM:<a@b.example> SMTPUTF8\r\nRCPT "
         "TO:<\xc3\xa9@served.example>\r\nDATA\r\n\r\n.\r\n",
         ENVELOPE_SMTPUTF8 | ENVELOPE_UTF8_NEEDED, 2, "\r\n"},
        {"no separator", T "A: b\r\nC: d\r\n.\r\n", 0, 12, "A: b\r\nC: d\r\n"},
        {"no final CRLF", M R "BDAT 5 LAST\r\n\r\nabc", ENVELOPE_NO_FINAL_CRLF, 2, "\r\nabc"},
        {"empty by BDAT", M R "BDAT 0 LAST\r\n", 0, 0, ""},
        {"empty by DATA", T ".\r\n", 0, 0, ""},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# case: %s\n", rows[i].name);
        for (uint32_t piece = 0; piece < 30; piece += 1 + piece / 3) {
            harness_init(&harness);
            begin();
            harness_send(&harness, span_from_text(rows[i].input), piece);
            assert_int_equal(1, harness.message_count);
            const struct harness_message *message = &harness.messages[0];
            assert_int_equal(rows[i].flags, message->envelope.flags);
            assert_int_equal(message->size, message->envelope.body_size);
            assert_string_equal(rows[i].content, content(0));
            uint32_t received = message->size - (uint32_t)strlen(rows[i].content);
            assert_int_equal(received + rows[i].content_header_size, message->envelope.header_size);
            assert_int_equal(harness.now.wall, message->envelope.arrived);
            assert_int_equal(harness.now.wall + 432000000000, message->envelope.expires);
            harness_fini(&harness);
        }
    }
}

/* Goal: recipients are kept as given, in order, twins as well; the key is normalized. */
static void test_recipients_as_given(void **state)
{
    (void)state;
    harness_init(&harness);
    harness.settings.postmaster = "ops@Elsewhere.example";
    begin();
    harness_send_text(&harness, "MAIL FROM:<@x:A@Client.example>\r\n"
                                "RCPT TO:<@y.example:B@SERVED.example>\r\n"
                                "RCPT TO:<b@served.example>\r\nRCPT TO:<b@served.example>\r\n"
                                "RCPT TO:<postmaster>\r\nDATA\r\n\r\n.\r\n");
    assert_string_equal("250 250 250 250 250 354 250", codes());
    assert_int_equal(4, harness.messages[0].envelope.recipient_count);
    assert_string_equal("A@Client.example", harness.messages[0].sender);
    assert_string_equal("B@SERVED.example", harness.messages[0].recipients[0]);
    assert_string_equal("b@served.example", harness.messages[0].recipients[1]);
    assert_string_equal("b@served.example", harness.messages[0].recipients[2]);
    assert_string_equal("ops@Elsewhere.example", harness.messages[0].recipients[3]);
    assert_string_equal("served.example", harness.messages[0].domain);
    harness_fini(&harness);
}

/* Goal: the trace field, word for word. */
static void test_received(void **state)
{
    static const struct {
        const char *ip, *hello, *mail, *want;
    } rows[] = {
        {"192.0.2.1", "EHLO [192.0.2.1]\r\n", M,
         "Received: from [192.0.2.1] ([192.0.2.1])\r\n\tby relay.example with ESMTP id "},
        {"2001:db8::1", "EHLO h\r\n", M,
         "Received: from h ([IPv6:2001:db8::1])\r\n\tby relay.example with ESMTP id "},
        {"192.0.2.1", "HELO h\r\n", M,
         "Received: from h ([192.0.2.1])\r\n\tby relay.example with SMTP id "},
        {"192.0.2.1", "EHLO h\r\n", "MAIL FROM:<a@b.example> SMTPUTF8\r\n",
         "Received: from h ([192.0.2.1])\r\n\tby relay.example with UTF8SMTP id "},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        harness_init(&harness);
        harness_connect(&harness, rows[i].ip);
        harness_send_text(&harness, rows[i].hello);
        harness_send_text(&harness, rows[i].mail);
        harness_send_text(&harness, R);
        harness_send_text(&harness, "DATA\r\n");
        harness_send_text(&harness, "\r\n.\r\n");
        assert_int_equal(1, harness.message_count);
        assert_memory_equal(rows[i].want, harness.messages[0].body, strlen(rows[i].want));
        assert_non_null(strstr((char *)harness.messages[0].body,
                               ";\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n\r\n"));
        harness_fini(&harness);
    }
}

/* Goal: records say what was refused, to whom, and why. */
static void test_records(void **state)
{
    (void)state;
    harness_init(&harness);
    begin();
    harness_send_text(&harness, "MAIL FROM:<a@[1.2.3.4]>\r\n" M
                                "RCPT TO:<x@elsewhere.example>\r\nRCPT TO:<x@refused.example>\r\n" R
                                "DATA\r\na\nb\r\n.\r\n" T "\r\n.\r\n");
    static const struct {
        uint16_t kind, code;
        const char *recipient, *text;
        uint8_t enhanced[3];
    } want[] = {
        {RECORD_REJECTION, 553, "", "553 5.1.3 address literals are not accepted", {5, 1, 3}},
        {RECORD_REJECTION, 550, "x@elsewhere.example", "550 5.7.1 relaying denied", {5, 7, 1}},
        {RECORD_REJECTION, 550, "x@refused.example", "550 5.7.1 we know why", {5, 7, 1}},
        {RECORD_REJECTION,
         550,
         "b@served.example",
         "550 5.6.11 bare CR, bare LF or NUL in message",
         {5, 6, 11}},
        {RECORD_RECEPTION, 250, "b@served.example", NULL, {2, 0, 0}},
    };
    assert_int_equal(COUNT_OF(want), harness.record_count);
    for (size_t i = 0; i < COUNT_OF(want); i++) {
        const struct record *record = &harness.records[i];
        assert_int_equal(want[i].kind, record->kind);
        assert_int_equal(want[i].code, record->code);
        assert_memory_equal(want[i].enhanced, record->enhanced, 3);
        assert_string_equal(want[i].recipient, record->recipient);
        assert_string_equal(i == 0 ? "" : "a@client.example", record->sender);
        assert_string_equal("client.example", record->host);
        assert_int_equal(7, record->session);
        if (want[i].text != NULL)
            assert_string_equal(want[i].text, record->text);
    }
    assert_int_equal(1, harness.records[4].recipient_count);
    harness_fini(&harness);
}

/* ---- signatures ---- */

/* Goal: the signature is over what is stored, whatever the way there changes: stuffed dots, line
 * ends made anew, a field that is cut out, content held back until the end. */
static void test_signed_is_what_is_stored(void **state)
{
    static const char *const names[] = {"From", "X-Class", "Subject", "Date", "Message-ID"};
    static const char *const all[] = {"*"};
    static const char *const dialogues[] = {
        M R "DATA\r\nFrom: a@b.example\r\nSubject: x\r\n\r\n..\r\n..a\r\n b  \r\n\r\n.\r\n",
        M R "DATA\r\nFrom: a@b.example\nX-Class: bulk\n more\nSubject: x\n\n\ra\n.b\n\r\n.\r\n",
        M R "DATA\r\nX-Class: bulk\r\nFrom: a@b.example\r\n.\r\n",
        M R "DATA\r\nFrom: a@b.example\r\n..X: y\r\n.X-Class: bulk\r\n.\r\n",
        M R "BDAT 21\r\nFrom: a@b.example\r\nX-BDAT 17 LAST\r\nClass: x\r\n\r\nend\r\r",
    };
    struct evp_pkey_st *pkey = dkim_fixture_ed25519();
    char path[DKIM_FIXTURE_PATH_SIZE], why[DKIM_KEY_WHY_SIZE];
    struct settings_dkim rule = {.domain = "b.example",
                                 .selector = "s",
                                 .match = all,
                                 .match_count = 1,
                                 .header_canon = DKIM_SIMPLE,
                                 .body_canon = DKIM_SIMPLE,
                                 .headers = names,
                                 .header_count = COUNT_OF(names)};
    struct dkim_key *key;

    (void)state;
    assert_int_equal(ERR_OK, dkim_key_load(dkim_fixture_key_file(pkey, path), &key, why));
    rule.key = key;
    for (uint32_t i = 0; i < COUNT_OF(dialogues) * 6; i++) {
        uint32_t piece = i % 3 == 0 ? 0 : i % 3 * 6 - 5;
        harness_init(&harness);
        harness.settings.header.fields[HEADER_CLASS].name = "X-Class";
        harness.settings.header.fields[HEADER_CLASS].is_cut = true;
        harness.settings.header_submission = harness.settings.header;
        harness.settings.header_submission.fields[HEADER_DATE].name = "Date";
        harness.settings.header_submission.fields[HEADER_MESSAGE_ID].name = "Message-ID";
        harness.listener.is_submission = i % 2;
        harness.settings.dkim = &rule;
        harness.settings.dkim_count = 1;
        harness.listener.bare_lf = SETTINGS_BARE_LF_NORMALIZE;
        harness.holds_commits = true; /* the prefix lives until then */
        harness_connect(&harness, "10.0.0.1");
        harness_send_text(&harness, E);
        harness_send(&harness, span_from_text(dialogues[i / 6]), piece);
        if (harness.message_count != 1)
            print_message("# dialogue %u: %s\n", i / 6, harness.output);
        assert_int_equal(1, harness.message_count);
        const struct harness_message *message = &harness.messages[0];
        struct span prefix = message->envelope.prefix;
        assert_true(prefix.size > 0);
        assert_int_equal(prefix.size + message->size, message->envelope.body_size);
        uint8_t *whole = malloc(prefix.size + message->size);
        assert_non_null(whole);
        memcpy(whole, prefix.data, prefix.size);
        memcpy(whole + prefix.size, message->body, message->size);
        assert_null(memmem(whole, prefix.size + message->size, "Class", 5));
        bool is_added = memmem(message->body, message->size, "\r\nDate: ", 8) != NULL &&
                        memmem(message->body, message->size, "@relay.example>\r\n", 17) != NULL;
        assert_int_equal(i % 2, is_added);
        assert_null(dkim_fixture_verify(span_of(whole, prefix.size + message->size), 0, pkey));
        free(whole);
        assert_int_equal(1, harness.context.dkim.messages);
        harness_fini(&harness);
    }
    dkim_key_free(key);
    dkim_fixture_key_free(pkey);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_smuggling),
        cmocka_unit_test(test_stray_cr_before_the_end),
        cmocka_unit_test(test_smuggling_behind_a_long_line),
        cmocka_unit_test(test_no_exemptions),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_message_size),
        cmocka_unit_test(test_much_after_a_violation),
        cmocka_unit_test(test_bdat),
        cmocka_unit_test(test_bdat_size),
        cmocka_unit_test(test_many_chunks),
        cmocka_unit_test(test_envelope),
        cmocka_unit_test(test_recipients_as_given),
        cmocka_unit_test(test_received),
        cmocka_unit_test(test_records),
        cmocka_unit_test(test_signed_is_what_is_stored),
    };
    return cmocka_run_group_tests_name("smtpd body", tests, NULL, NULL);
}
