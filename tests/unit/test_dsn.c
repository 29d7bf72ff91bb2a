/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: a notification is well-formed mail that says who failed and why, whatever the original's
 * header and the servers' replies contain, and its id depends on the message and the run alone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/dsn.h"

#define TEXT_MAX 2000000u

struct fixture {
    struct buf_pool *pool;
    struct arena arena;
    struct buf_queue body;
    struct envelope about, envelope;
    struct envelope_recipient recipients[3];
    struct qmgr_failure failures[3];
    struct qmgr_dsn dsn;
    char *text; /* the notification, NUL-terminated */
    enum err err;
};

static const struct tick_now now = {.tick = 1, .wall = 1793621646000000}; /* 2 Nov 2026 12:14:06 */

static void fixture_open(struct fixture *f)
{
    *f = (struct fixture){0};
    f->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = 1000, .backing = BUF_BACKING_HEAP});
    arena_init(&f->arena, 4096, 65536);
    buf_queue_init(&f->body);
    f->about = (struct envelope){
        .id = {1793621600000000, 42},
        .arrived = 1793621600000000,
        .sender = SPAN_LITERAL("joe@Example.ORG"),
        .recipients = f->recipients,
        .recipient_count = 3,
        .class = 2,
        .source_pool = SPAN_LITERAL("bulk"),
    };
    f->recipients[0].address = SPAN_LITERAL("a@y.example");
    f->recipients[1].address = SPAN_LITERAL("b@y.example");
    f->recipients[2].address = SPAN_LITERAL("c@y.example");
    f->failures[0] = (struct qmgr_failure){
        .recipient_index = 1,
        .code = 550,
        .enhanced = {5, 1, 1},
        .reply = SPAN_LITERAL("550 5.1.1 no such user"),
    };
    f->dsn = (struct qmgr_dsn){.envelope = &f->about,
                               .failures = f->failures,
                               .failure_count = 1,
                               .run = 0,
                               .has_failed = true};
    f->text = malloc(TEXT_MAX);
    assert_non_null(f->text);
}

static void fixture_close(struct fixture *f)
{
    free(f->text);
    buf_queue_fini(&f->body);
    arena_fini(&f->arena);
    assert_int_equal(0, buf_pool_in_use(f->pool));
    buf_pool_free(f->pool);
}

/* Rules for every notification: line ends, line lengths, flags and sizes that fit the octets. */
static void check_form(const struct fixture *f, uint32_t size)
{
    uint32_t line = 0;
    bool has_dot_lines = f->text[0] == '.', has_eight_bit = false;

    for (uint32_t i = 0; i < size; i++) {
        uint8_t octet = (uint8_t)f->text[i];
        assert_int_not_equal(0, octet);
        assert_int_equal(octet == '\r', i + 1 < size && f->text[i + 1] == '\n');
        if (octet == '\n') {
            assert_true(line <= 998);
            line = 0;
            has_dot_lines |= f->text[i + 1] == '.';
        } else if (octet != '\r') {
            line++;
        }
        has_eight_bit |= octet > 127;
    }
    assert_memory_equal("\r\n", f->text + size - 2, 2);
    assert_int_equal(has_dot_lines, (f->envelope.flags & ENVELOPE_DOT_LINES) != 0);
    assert_int_equal(has_eight_bit, (f->envelope.flags & ENVELOPE_EIGHT_BIT) != 0);
    assert_int_equal(0, f->envelope.flags & ENVELOPE_NO_FINAL_CRLF);
    assert_true(f->envelope.flags & ENVELOPE_IS_DSN);
    assert_int_equal(size, f->envelope.body_size);
    const char *empty = strstr(f->text, "\r\n\r\n");
    assert_non_null(empty);
    assert_int_equal(empty + 4 - f->text, f->envelope.header_size);
    assert_true(envelope_is_valid(&f->envelope));
}

static void build(struct fixture *f, struct span header, uint32_t header_size_max)
{
    struct dsn_options options = {.hostname = "relay.example",
                                  .postmaster = "help@example.org",
                                  .header_size_max = header_size_max,
                                  .message_size_max = 50000,
                                  .now = now.wall,
                                  .lifetime = 432000000000};

    if (f->about.header_size == 0)
        f->about.header_size = header.size;
    assert_int_equal(
        ERR_OK, dsn_build(&f->dsn, &options, header, f->pool, &f->arena, &f->body, &f->envelope));
    uint32_t size = (uint32_t)f->body.size;
    assert_true(size < TEXT_MAX);
    buf_queue_copy_out(&f->body, 0, f->text, size);
    f->text[size] = '\0';
    check_form(f, size);
}

static void assert_has(const struct fixture *f, const char *text)
{
    if (strstr(f->text, text) == NULL)
        fail_msg("missing: %s\nin:\n%s", text, f->text);
}

static void assert_has_not(const struct fixture *f, const char *text)
{
    if (strstr(f->text, text) != NULL)
        fail_msg("not wanted: %s\nin:\n%s", text, f->text);
}

static void test_plain_notification(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    build(&f, SPAN_LITERAL("Subject: hi\r\nFrom: joe@example.org\r\n\r\n"), 50000);

    assert_has(&f, "Date: Mon, 2 Nov 2026 12:14:06 +0000\r\n");
    assert_has(&f, "From: Mail Delivery System <MAILER-DAEMON@relay.example>\r\n");
    assert_has(&f, "To: <joe@Example.ORG>\r\n");
    assert_has(&f, "Auto-Submitted: auto-replied\r\n");
    assert_has(&f, "Content-Type: multipart/report; report-type=delivery-status;\r\n");
    assert_has(&f, "Content-Type: message/delivery-status\r\n");
    assert_has(&f, "Reporting-MTA: dns; relay.example\r\n");
    assert_has(&f, "\r\n\r\nFinal-Recipient: rfc822; b@y.example\r\nAction: failed\r\n"
                   "Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 no such user\r\n");
    assert_has(&f, "<help@example.org>");
    assert_has(&f, "Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\nFrom: joe@example.org"
                   "\r\n\r\n--=_");
    assert_has_not(&f, "a@y.example");
    assert_has_not(&f, "8bit");

    assert_int_equal(0, f.envelope.sender.size);
    assert_int_equal(1, f.envelope.recipient_count);
    assert_true(span_is_equal(SPAN_LITERAL("joe@Example.ORG"), f.envelope.recipients[0].address));
    assert_true(span_is_equal(SPAN_LITERAL("example.org"), f.envelope.recipients[0].domain));
    assert_true(span_is_equal(SPAN_LITERAL("bulk"), f.envelope.source_pool));
    assert_int_equal(2, f.envelope.class);
    assert_int_equal(now.wall, f.envelope.arrived);
    assert_int_equal(now.wall + 432000000000, f.envelope.expires);
    assert_true(message_id_is_equal(dsn_id(f.about.id, 0), f.envelope.id));
    assert_int_equal(ENVELOPE_IS_DSN, f.envelope.flags);
    fixture_close(&f);
}

static void test_reasons(void **state)
{
    static const struct {
        const char *name;
        struct qmgr_failure failure;
        const char *status, *diagnostic;
    } cases[] = {
        {"large detail from the reply",
         {.code = 550, .enhanced = {5, 7, 255}, .reply = SPAN_LITERAL("550 5.7.509 no")},
         "Status: 5.7.509\r\n",
         "Diagnostic-Code: smtp; 550 5.7.509 no\r\n"},
        {"no enhanced code",
         {.code = 554, .reply = SPAN_LITERAL("554 no")},
         "Status: 5.0.0\r\n",
         "Diagnostic-Code: smtp; 554 no\r\n"},
        {"enhanced code of another class",
         {.code = 550, .reply = SPAN_LITERAL("550 4.1.1 no")},
         "Status: 5.0.0\r\n",
         "Diagnostic-Code: smtp; 550 4.1.1 no\r\n"},
        {"our own judgement",
         {.code = 556, .enhanced = {5, 1, 10}, .reply = SPAN_LITERAL("takes no mail")},
         "Status: 5.1.10\r\n",
         "Diagnostic-Code: x-angarium; takes no mail\r\n"},
        {"expired",
         {.code = 451,
          .enhanced = {4, 4, 7},
          .reply = SPAN_LITERAL("451 4.3.0 x"),
          .is_expired = 1},
         "Status: 4.4.7\r\n",
         "Diagnostic-Code: smtp; 451 4.3.0 x\r\n"},
        {"no reply at all", {.enhanced = {5, 0, 0}}, "Status: 5.0.0\r\n\r\n", "no reason"},
        {"line ends in the reply",
         {.code = 550, .reply = SPAN_LITERAL("550 a\r\nAction: delivered\r\n\r\nb")},
         "Status: 5.0.0\r\n",
         "Diagnostic-Code: smtp; 550 a??Action: delivered????b\r\n"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct fixture f;

        print_message("# case: %s\n", cases[i].name);
        fixture_open(&f);
        f.failures[0] = cases[i].failure;
        build(&f, SPAN_LITERAL("\r\n"), 50000);
        assert_has(&f, cases[i].status);
        assert_has(&f, cases[i].diagnostic);
        assert_has(&f, "Final-Recipient: rfc822; a@y.example\r\n");
        fixture_close(&f);
    }
}

/* A reply of a thousand octets, with and without spaces, is folded and complete. */
static void test_long_replies(void **state)
{
    (void)state;
    for (uint32_t words = 0; words < 2; words++) {
        struct fixture f;
        char reply[1000];
        uint32_t count = 0;

        fixture_open(&f);
        for (uint32_t i = 0; i < sizeof(reply); i++)
            reply[i] = words && i % 10 == 9 ? ' ' : 'q';
        f.failures[0].reply = span_of(reply, sizeof(reply));
        build(&f, SPAN_LITERAL("\r\n"), 50000);
        const char *from = strstr(f.text, "Diagnostic-Code"), *to = strstr(from, "\r\n\r\n");
        for (const char *at = from; at < to; at++)
            count += *at == 'q';
        assert_int_equal(words ? 900 : 1000, count);
        fixture_close(&f);
    }
}

static void test_several_recipients(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.failures[1] = f.failures[0];
    f.failures[1].recipient_index = 2;
    f.dsn.failure_count = 2;
    build(&f, SPAN_LITERAL("\r\n"), 50000);
    assert_has(&f, "\r\n\r\nFinal-Recipient: rfc822; b@y.example\r\n");
    assert_has(&f, "\r\n\r\nFinal-Recipient: rfc822; c@y.example\r\n");
    fixture_close(&f);
}

/* RFC 6533: addresses and headers beyond ASCII travel as they are, in the parts made for them. */
static void test_international(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.recipients[1].address = SPAN_LITERAL("b\xc3\xbc@y.example");
    build(&f, SPAN_LITERAL("Subject: hi\r\n\r\n"), 50000);
    assert_has(&f, "Content-Type: message/global-delivery-status\r\n"
                   "Content-Transfer-Encoding: 8bit\r\n");
    assert_has(&f, "Final-Recipient: utf-8; b\xc3\xbc@y.example\r\n");
    assert_has(&f, "Content-Type: text/rfc822-headers\r\n\r\n");
    assert_false(f.envelope.flags & ENVELOPE_UTF8_NEEDED);
    fixture_close(&f);

    fixture_open(&f);
    f.about.sender = SPAN_LITERAL("jo\xc3\xa9@b\xc3\xbc"
                                  "cher.example");
    build(&f, SPAN_LITERAL("Subject: h\xc3\xaf\r\n\r\n"), 50000);
    assert_has(&f, "Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit\r\n\r\n"
                   "Subject: h\xc3\xaf\r\n");
    assert_true(f.envelope.flags & ENVELOPE_UTF8_NEEDED);
    assert_true(
        span_is_equal(SPAN_LITERAL("xn--bcher-kva.example"), f.envelope.recipients[0].domain));
    fixture_close(&f);
}

/* Headers that would break the notification. */
static void test_hostile_headers(void **state)
{
    struct fixture f;
    char *header = malloc(100000);

    (void)state;
    assert_non_null(header);
    memset(header, 'h', 100000);
    memcpy(header, "X: ", 3);
    fixture_open(&f);
    build(&f, span_of(header, 100000), 50000); /* one line, longer than may be quoted */
    assert_true(f.body.size < 55000);
    fixture_close(&f);

    fixture_open(&f);
    build(&f, SPAN_LITERAL(".a: b\r\nX: a\0b\rc\nd\r\n--=_\r\n\r\nbody, never quoted"), 50000);
    assert_has(&f, "\r\n.a: b\r\nX: a?b?c\r\nd\r\n--=_\r\n\r\n--=_");
    assert_has_not(&f, "never quoted");
    assert_true(f.envelope.flags & ENVELOPE_DOT_LINES);
    fixture_close(&f);

    fixture_open(&f);
    build(&f, span_of("Subject: hello\r\n\r\n", 18), 11); /* cut inside a line */
    assert_has(&f, "\r\n\r\nSubject: he\r\n\r\n--=_");
    fixture_close(&f);
    free(header);
}

static void test_ids(void **state)
{
    struct message_id about = {5, 6}, other = {5, 7};

    (void)state;
    assert_true(message_id_is_equal(dsn_id(about, 0), dsn_id(about, 0)));
    assert_false(message_id_is_equal(dsn_id(about, 0), about));
    for (uint32_t run = 1; run < 100; run++) {
        assert_false(message_id_is_equal(dsn_id(about, 0), dsn_id(about, run)));
        assert_false(message_id_is_equal(dsn_id(about, run), dsn_id(other, run)));
    }
}

static void test_same_input_same_octets(void **state)
{
    struct fixture a, b;

    (void)state;
    fixture_open(&a);
    fixture_open(&b);
    build(&a, SPAN_LITERAL("Subject: hi\r\n\r\n"), 50000);
    build(&b, SPAN_LITERAL("Subject: hi\r\n\r\n"), 50000);
    assert_string_equal(a.text, b.text);
    fixture_close(&a);
    fixture_close(&b);
}

/* What the sender's system said comes back, decoded, each in its place (RFC 3464 section 2). */
static void test_what_the_sender_said(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.about.envid = SPAN_LITERAL("QQ+2B31+20x");
    f.recipients[1].orcpt = SPAN_LITERAL("rfc822;B+2Bb@list.example");
    build(&f, SPAN_LITERAL("Subject: hi\r\n\r\n"), 50000);
    assert_has(&f,
               "\r\n\r\nOriginal-Envelope-Id: QQ+31 x\r\nReporting-MTA: dns; relay.example\r\n");
    assert_has(&f, "\r\n\r\nOriginal-Recipient: rfc822;B+b@list.example\r\n"
                   "Final-Recipient: rfc822; b@y.example\r\n");
    assert_int_equal(ENVELOPE_NOTIFY_NEVER, f.envelope.recipients[0].notify);
    fixture_close(&f);
}

static void test_relayed_and_delayed(void **state)
{
    struct fixture f;

    (void)state;
    fixture_open(&f);
    f.about.expires = 1794000000000000;
    f.failures[0] = (struct qmgr_failure){.recipient_index = 0,
                                          .notice = QMGR_NOTICE_RELAYED,
                                          .code = 250,
                                          .enhanced = {2, 0, 0},
                                          .reply = SPAN_LITERAL("250 2.0.0 taken")};
    f.failures[1] = (struct qmgr_failure){.recipient_index = 2,
                                          .notice = QMGR_NOTICE_DELAYED,
                                          .reply = SPAN_LITERAL("451 4.2.1 busy")};
    f.dsn.failure_count = 2;
    f.dsn.has_failed = false;
    f.dsn.has_delayed = true;
    f.about.flags = ENVELOPE_RET_FULL;
    f.about.header_size = 15;
    f.about.body_size = 21;
    build(&f, SPAN_LITERAL("Subject: hi\r\n\r\nbody\r\n"), 50000);
    assert_has(&f, "Subject: Delayed mail, delivery will be tried again\r\n");
    assert_has(&f, "Final-Recipient: rfc822; a@y.example\r\nAction: relayed\r\nStatus: 2.1.9\r\n"
                   "Diagnostic-Code: smtp; 250 2.0.0 taken\r\n");
    assert_has(&f, "Final-Recipient: rfc822; c@y.example\r\nAction: delayed\r\nStatus: 4.2.1\r\n"
                   "Diagnostic-Code: smtp; 451 4.2.1 busy\r\n"
                   "Will-Retry-Until: Fri, 6 Nov 2026 21:20:00 +0000\r\n");
    assert_has_not(&f, "body\r\n"); /* RFC 3461 section 4.3: FULL is about failures */
    assert_has_not(&f, "failed");
    f.dsn.failure_count = 1;
    f.dsn.has_delayed = false;
    buf_queue_fini(&f.body);
    build(&f, SPAN_LITERAL("Subject: hi\r\n\r\nbody\r\n"), 50000);
    assert_has(&f, "Subject: Mail was relayed\r\n");
    fixture_close(&f);
}

/* RET=FULL: whole, octet for octet, or the header only where that cannot be. */
static void test_return_of_the_message(void **state)
{
    static char long_line[1200];
    static const struct {
        const char *name, *original;
        uint32_t flags;
        int32_t missing; /* octets that could not be read */
        bool is_whole;
    } rows[] = {
        {"asked", "Subject: hi\r\n\r\nbody\r\n.dot\r\n", ENVELOPE_RET_FULL, 0, true},
        {"no final line end", "Subject: hi\r\n\r\nbody", ENVELOPE_RET_FULL, 0, true},
        {"8-bit", "Subject: hi\r\n\r\nbody \xc3\xa9\r\n", ENVELOPE_RET_FULL, 0, true},
        {"headers asked", "Subject: hi\r\n\r\nbody\r\n", ENVELOPE_RET_HEADERS, 0, false},
        {"nothing asked", "Subject: hi\r\n\r\nbody\r\n", 0, 0, false},
        {"cut", "Subject: hi\r\n\r\nbody\r\n", ENVELOPE_RET_FULL, 1, false},
        {"long line", long_line, ENVELOPE_RET_FULL, 0, false},
        {"bare LF", "Subject: hi\r\n\r\nbody\nbody\r\n", ENVELOPE_RET_FULL, 0, false},
        {"bare CR", "Subject: hi\r\n\r\nbody\rbody\r\n", ENVELOPE_RET_FULL, 0, false},
    };

    (void)state;
    memset(long_line, 'x', sizeof(long_line) - 1);
    memcpy(long_line, "Subject: hi\r\n\r\nbody", 19);
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        struct span original = span_from_text(rows[i].original);

        print_message("# case: %s\n", rows[i].name);
        fixture_open(&f);
        f.about.flags = rows[i].flags;
        f.about.header_size = 15;
        f.about.body_size = original.size;
        original.size -= (uint32_t)rows[i].missing;
        build(&f, original, 50000);
        if (rows[i].is_whole) {
            assert_has(&f, "Content-Type: message/rfc822\r\n");
            assert_has(&f, rows[i].original);
        } else {
            assert_has(&f, "Content-Type: text/rfc822-headers\r\n\r\nSubject: hi\r\n");
            assert_has_not(&f, "\r\nbody");
        }
        struct dsn_options options = {.header_size_max = 10, .message_size_max = original.size};
        assert_int_equal(
            (rows[i].flags & ENVELOPE_RET_FULL) != 0 && rows[i].missing == 0 ? original.size : 10,
            dsn_original_size(&f.dsn, &options));
        options.message_size_max--;
        options.header_size_max = 16;
        assert_int_equal(15, dsn_original_size(&f.dsn, &options));
        fixture_close(&f);
    }
}

/* Ten thousand failures with long replies make a notification of a few megabytes, not twenty. */
static void test_many_failures(void **state)
{
    static struct envelope_recipient recipients[2000];
    static struct qmgr_failure failures[2000];
    static char reply[1000];
    struct fixture f;

    (void)state;
    fixture_open(&f);
    memset(reply, 'r', sizeof(reply));
    memcpy(reply, "550 5.1.1 ", 10);
    for (uint32_t i = 0; i < 2000; i++) {
        recipients[i].address = SPAN_LITERAL("someone@y.example");
        failures[i] = (struct qmgr_failure){
            .recipient_index = i, .code = 550, .reply = span_of(reply, sizeof(reply))};
    }
    f.about.recipients = recipients;
    f.about.recipient_count = 2000;
    f.dsn.failures = failures;
    f.dsn.failure_count = 2000;
    build(&f, SPAN_LITERAL("Subject: hi\r\n\r\n"), 50000);
    assert_true(f.body.size < 2000 * 500);
    assert_int_equal(RECIPIENT_DUE, f.envelope.recipients[0].state);
    fixture_close(&f);
}

/* Pool and arena run out at every point: an error, nothing leaks. */
static void test_memory(void **state)
{
    static const struct dsn_options options = {
        .hostname = "relay.example", .header_size_max = 1000, .now = 1, .lifetime = 1};

    (void)state;
    for (uint32_t count = 0; count < 3; count++) {
        struct fixture f;
        struct buf_pool *pool = buf_pool_new(&(struct buf_pool_options){
            .data_size = 256, .count_max = 1 + count, .backing = BUF_BACKING_HEAP});

        fixture_open(&f);
        assert_int_equal(ERR_MEMORY, dsn_build(&f.dsn, &options, SPAN_LITERAL("\r\n"), pool,
                                               &f.arena, &f.body, &f.envelope));
        buf_queue_fini(&f.body);
        assert_int_equal(0, buf_pool_in_use(pool));
        buf_pool_free(pool);
        struct arena small;
        arena_init(&small, 16, 32 + 16 * count);
        assert_int_equal(ERR_MEMORY, dsn_build(&f.dsn, &options, SPAN_LITERAL("\r\n"), f.pool,
                                               &small, &f.body, &f.envelope));
        arena_fini(&small);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_notification),
        cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_long_replies),
        cmocka_unit_test(test_several_recipients),
        cmocka_unit_test(test_international),
        cmocka_unit_test(test_hostile_headers),
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_same_input_same_octets),
        cmocka_unit_test(test_what_the_sender_said),
        cmocka_unit_test(test_relayed_and_delayed),
        cmocka_unit_test(test_return_of_the_message),
        cmocka_unit_test(test_many_failures),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests_name("dsn", tests, NULL, NULL);
}
