/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Traces: who sees which lines, what is never shown, and what becomes of lines that find no room.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/trace.h"

static struct {
    struct trace trace;
    struct trace_batch batches[2];
    struct trace_filter filters[TRACE_VIEWERS_MAX];
    struct tick_now now;
    struct trace_batch *sent; /* with control */
    uint32_t sent_count, serial;
    struct flow_address peer;
    struct envelope envelope;
    struct envelope_recipient recipients[102];
} f;

static void on_send(void *context, struct trace_batch *batch)
{
    (void)context;
    assert_null(f.sent);
    f.sent = batch;
    f.sent_count += 1;
}

static int set_up(void **state)
{
    (void)state;
    memset(&f, 0, sizeof(f));
    f.now = (struct tick_now){TICK_S(100), 1000000};
    f.trace = (struct trace){.now = &f.now, .send = on_send};
    assert_int_equal(ERR_OK, flow_address_parse_ip(SPAN_LITERAL("192.0.2.1"), &f.peer));
    f.envelope = (struct envelope){
        .sender = SPAN_LITERAL("a@client.test"),
        .client = SPAN_LITERAL("host.client.test [198.51.100.7]"),
        .recipients = f.recipients,
        .recipient_count = 2,
        .id = {.high = 1, .low = 2},
    };
    f.recipients[0].domain = SPAN_LITERAL("one.test");
    f.recipients[1].domain = SPAN_LITERAL("Two.Test");
    return 0;
}

static void apply(void)
{
    trace_set(&f.trace, f.filters, f.batches);
}

/* A viewer of this in that place. */
static void look(uint32_t place, const char *what, bool is_only_new)
{
    struct trace_filter *filter = &f.filters[place];

    *filter = (struct trace_filter){.serial = ++f.serial, .is_only_new = is_only_new};
    (void)snprintf(filter->name, sizeof(filter->name), "%s", what);
    filter->kind = TRACE_KIND_NAME;
    if (flow_prefix_parse(span_from_text(what), &filter->prefix) == ERR_OK)
        filter->kind = TRACE_KIND_ADDRESS;
    else if (message_id_parse(span_from_text(what), &filter->id) == ERR_OK)
        filter->kind = TRACE_KIND_MESSAGE;
    apply();
}

static struct trace_subject subject_of(enum trace_side side, bool has_envelope)
{
    struct trace_subject subject = {
        .side = side, .session = 7, .began = f.now.tick, .peer = &f.peer};

    if (has_envelope) {
        subject.envelope = &f.envelope;
        subject.id = f.envelope.id;
    }
    if (side == TRACE_OUTBOUND)
        subject.site = SPAN_LITERAL("provider");
    if (side == TRACE_OUTBOUND && has_envelope)
        subject.domain = f.recipients[0].domain;
    return subject;
}

/* All lines that are gathered, joined by '|'. */
static const char *gathered(void)
{
    static char text[4096];
    uint32_t offset = 0, used = 0;
    struct span line;

    text[0] = '\0';
    while (trace_batch_next(f.trace.filling, &offset, &line) != NULL)
        used += (uint32_t)snprintf(text + used, sizeof(text) - used, "%s%.*s", used > 0 ? "|" : "",
                                   (int)line.size, (const char *)line.data);
    return text;
}

/* Goal: each kind of viewer sees what it is for, on both sides, and nothing else. */
static void test_match(void **state)
{
    static const struct {
        const char *name, *what;
        enum trace_side side;
        bool has_envelope, is_seen;
    } rows[] = {
        {"the peer", "192.0.2.1", TRACE_INBOUND, false, true},
        {"its network", "192.0.2.0/24", TRACE_OUTBOUND, false, true},
        {"another network", "192.0.3.0/24", TRACE_INBOUND, true, false},
        {"outbound, whom the message is from", "198.51.100.0/24", TRACE_OUTBOUND, true, true},
        {"inbound the peer alone counts", "198.51.100.7", TRACE_INBOUND, true, false},
        {"no message, no client of it", "198.51.100.7", TRACE_OUTBOUND, false, false},
        {"a recipient's domain", "two.test", TRACE_INBOUND, true, true},
        {"outbound the domain that it goes to", "ONE.test", TRACE_OUTBOUND, true, true},
        {"not another recipient's", "two.test", TRACE_OUTBOUND, true, false},
        {"the site, with a message or none", "provider", TRACE_OUTBOUND, false, true},
        {"no site inbound", "provider", TRACE_INBOUND, true, false},
        {"part of a domain is none", "e.test", TRACE_INBOUND, true, false},
    };
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        set_up(state);
        look(1, rows[i].what, false);
        struct trace_subject subject = subject_of(rows[i].side, rows[i].has_envelope);
        uint32_t seen = trace_match(&f.trace, &subject);
        if (seen != (rows[i].is_seen ? 2u : 0u))
            fail_msg("%s: %u", rows[i].name, seen);
    }
}

/* Goal: an id shows its message, and no message has no id. */
static void test_match_message(void **state)
{
    char id[MESSAGE_ID_TEXT_SIZE];
    struct trace_subject with = subject_of(TRACE_OUTBOUND, true);
    struct trace_subject without = subject_of(TRACE_OUTBOUND, false);
    (void)state;

    look(0, message_id_format(f.envelope.id, id), false);
    assert_int_equal(TRACE_KIND_MESSAGE, f.filters[0].kind);
    assert_int_equal(1, trace_match(&f.trace, &with));
    assert_int_equal(0, trace_match(&f.trace, &without));
    with.id.low += 1;
    assert_int_equal(0, trace_match(&f.trace, &with));
    f.filters[0].id = (struct message_id){0};
    f.filters[0].serial = ++f.serial;
    apply();
    assert_int_equal(0, trace_match(&f.trace, &without));
}

/* Goal: a session that showed itself by a recipient is seen to its end, and what was missed is
 * told once. */
static void test_sticky(void **state)
{
    struct trace_subject before = subject_of(TRACE_INBOUND, false);
    struct trace_subject with = subject_of(TRACE_INBOUND, true);
    (void)state;

    look(0, "two.test", false);
    assert_int_equal(0, trace_match(&f.trace, &before));
    assert_int_equal(1, trace_match(&f.trace, &with));
    assert_int_equal(1, trace_match(&f.trace, &with));
    assert_int_equal(1, trace_match(&f.trace, &before));
    assert_string_equal("from here on; mail of <a@client.test>", gathered());
    before.session = 8;
    assert_int_equal(0, trace_match(&f.trace, &before));
    /* Others push it out, TRACE_STICKY_MAX of them and not one fewer. */
    for (uint32_t i = 1; i < TRACE_STICKY_MAX; i++) {
        with.session = 100 + i;
        assert_int_equal(1, trace_match(&f.trace, &with));
    }
    before.session = 7;
    assert_int_equal(1, trace_match(&f.trace, &before));
    with.session = 100;
    assert_int_equal(1, trace_match(&f.trace, &with));
    assert_int_equal(0, trace_match(&f.trace, &before));
    /* A new viewer in the place has not seen them. */
    look(0, "three.test", false);
    with.envelope = NULL;
    assert_int_equal(0, trace_match(&f.trace, &with));
}

/* Goal: so many recipients are looked at, and no more. */
static void test_recipients(void **state)
{
    struct trace_subject subject = subject_of(TRACE_INBOUND, true);
    (void)state;

    look(0, "last.test", false);
    f.envelope.recipient_count = 100;
    f.recipients[99].domain = SPAN_LITERAL("last.test");
    assert_int_equal(1, trace_match(&f.trace, &subject));
    look(0, "last.test", false);
    f.envelope.recipient_count = 102;
    f.recipients[99].domain = (struct span){0};
    f.recipients[100].domain = SPAN_LITERAL("last.test");
    subject.session += 1;
    assert_int_equal(0, trace_match(&f.trace, &subject));
}

/* Goal: who wants only what is new sees no connection that was there before. */
static void test_only_new(void **state)
{
    struct trace_subject subject = subject_of(TRACE_INBOUND, false);
    (void)state;

    look(0, "192.0.2.1", true);
    look(1, "192.0.2.1", false);
    subject.began = f.now.tick - 1;
    assert_int_equal(2, trace_match(&f.trace, &subject));
    subject.began = f.now.tick;
    assert_int_equal(3, trace_match(&f.trace, &subject));
}

/* Goal: of a login nothing is shown but its mechanism, nor what looks like no command. */
static void test_secrets(void **state)
{
    static const struct {
        const char *line, *shown;
        bool is_secret;
    } rows[] = {
        {"AUTH PLAIN AGEAcGFzc3dvcmQ=\r\n", "AUTH PLAIN [hidden]", true},
        {"AUTH PLAIN AGEAcGFzc3dvcmQ=\r\n", "AUTH PLAIN [hidden]", false},
        {"auth login\r\n", "auth login", true},
        {"AUTH scram-sha-256 bixuPQ==\r\n", "AUTH SCRAM-SHA-256 [hidden]", true},
        {"AUTH cGFzc3dvcmQ=\r\n", "AUTH [hidden]", true},
        {"AUTH  PLAIN cGFzc3dvcmQ=\r\n", "AUTH [hidden]", true},
        {"AUTH PLAINx cGFzc3dvcmQ=\r\n", "AUTH [hidden]", true},
        {"AUTH \r\n", "AUTH [hidden]", true},
        {"cGFzc3dvcmQ=\r\n", "[hidden]", true},
        {"QUIT\r\n", "[hidden]", true},
        {"cGFzc3dvcmQ=\r\n", "12 octets that begin with no command", false},
        {"AUTH\tPLAIN cGFzc3dvcmQ=\r\n", "23 octets that begin with no command", false},
        {"MAILcGFzc3dvcmQ=\r\n", "16 octets that begin with no command", false},
        {"\r\n", "0 octets that begin with no command", false},
        {"MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\nDATA", "MAIL FROM:<a@b>|RCPT TO:<c@d>|DATA", false},
        {".\r\n", ".", false},
        {"rset\r\n", "rset", false},
    };
    struct trace_subject subject;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        set_up(state);
        look(0, "192.0.2.1", false);
        subject = subject_of(TRACE_INBOUND, false);
        trace_commands(&f.trace, &subject, 1, span_from_text(rows[i].line), rows[i].is_secret);
        if (strcmp(gathered(), rows[i].shown) != 0)
            fail_msg("%s shows %s", rows[i].line, gathered());
    }
    set_up(state);
    look(0, "192.0.2.1", false);
    trace_replies(&f.trace, &subject, 1, SPAN_LITERAL("334 UGFzc3dvcmQ6\r\n250-a\r\n250 b\r\n"));
    assert_string_equal("334 [hidden]|250-a|250 b", gathered());
}

/* Goal: a line as long as may be is whole, a longer one is cut and says so. */
static void test_length(void **state)
{
    struct trace_subject subject = subject_of(TRACE_INBOUND, false);
    char text[TRACE_TEXT_MAX + 3];
    const struct trace_line *line;
    uint32_t offset = 0;
    struct span shown;
    (void)state;

    look(0, "192.0.2.1", false);
    memset(text, 'x', sizeof(text));
    memcpy(text, "RCPT ", 5);
    text[TRACE_TEXT_MAX] = '\n';
    trace_commands(&f.trace, &subject, 1, span_of(text, TRACE_TEXT_MAX + 1), false);
    text[TRACE_TEXT_MAX] = 'x';
    text[TRACE_TEXT_MAX + 1] = '\n';
    trace_commands(&f.trace, &subject, 1, span_of(text, TRACE_TEXT_MAX + 2), false);
    line = trace_batch_next(f.trace.filling, &offset, &shown);
    assert_true(!line->is_cut && shown.size == TRACE_TEXT_MAX);
    line = trace_batch_next(f.trace.filling, &offset, &shown);
    assert_true(line->is_cut && shown.size == TRACE_TEXT_MAX);
    assert_true(line->side == TRACE_INBOUND && line->speaker == TRACE_CLIENT);
    assert_true(line->session == 7 && line->time == f.now.wall && line->viewers == 1);
    assert_null(trace_batch_next(f.trace.filling, &offset, &shown));
}

static uint32_t lines_in(const struct trace_batch *batch, uint32_t viewer)
{
    uint32_t offset = 0, count = 0;
    const struct trace_line *line;
    struct span text;

    while ((line = trace_batch_next(batch, &offset, &text)) != NULL)
        count += line->viewers >> viewer & 1;
    return count;
}

/* Goal: while control has one batch the other fills; what finds no room is counted for those who
 * miss it, and all lines are accounted for. */
static void test_lost(void **state)
{
    struct trace_subject subject = subject_of(TRACE_INBOUND, false);
    uint32_t said = 0, seen, lost = 0;
    (void)state;

    look(0, "192.0.2.1", false);
    look(2, "192.0.2.1", false);
    trace_flush(&f.trace);
    assert_int_equal(0, f.sent_count); /* nothing to tell */
    while (f.trace.filling->lost[0] == 0 && said < 10000) {
        trace_note(&f.trace, &subject, 1u | 4u, "line %u", said);
        said++;
    }
    assert_int_equal(1, f.sent_count); /* when the first was full */
    seen = lines_in(f.sent, 0) + lines_in(f.trace.filling, 0);
    assert_int_equal(said, seen + 1);
    trace_note(&f.trace, &subject, 4u, "for one of them");
    assert_int_equal(1, f.trace.filling->lost[0]);
    assert_int_equal(0, f.trace.filling->lost[1]);
    assert_int_equal(2, f.trace.filling->lost[2]);
    trace_flush(&f.trace);
    assert_int_equal(1, f.sent_count); /* control has one */
    struct trace_batch *back = f.sent;
    f.sent = NULL;
    trace_return(&f.trace, back);
    trace_flush(&f.trace);
    assert_int_equal(2, f.sent_count);
    lost = (uint32_t)f.sent->lost[2];
    assert_int_equal(2, lost);
    trace_note(&f.trace, &subject, 1u, "there is room again");
    assert_string_equal("there is room again", gathered());
    assert_int_equal(0, f.trace.filling->lost[0]);
}

/* Goal: a bit is the viewer of the batch's serial: who comes into a place sees nothing of who was
 * there before, and who stays loses nothing. */
static void test_places(void **state)
{
    struct trace_subject subject = subject_of(TRACE_INBOUND, false);
    (void)state;

    look(0, "192.0.2.1", false);
    look(1, "192.0.2.1", false);
    trace_note(&f.trace, &subject, 3u, "for both");
    look(0, "192.0.2.1", false);
    assert_int_equal(0, lines_in(f.trace.filling, 0));
    assert_int_equal(1, lines_in(f.trace.filling, 1));
    assert_int_equal(f.filters[0].serial, f.trace.filling->serials[0]);
    assert_int_equal(2, f.trace.viewer_count);
    trace_note(&f.trace, &subject, 3u, "for both of now");
    trace_flush(&f.trace);
    assert_int_equal(1, lines_in(f.sent, 0));
    assert_int_equal(2, lines_in(f.sent, 1));
    memset(f.filters, 0, sizeof(f.filters));
    apply();
    assert_false(trace_is_on(&f.trace));
    assert_false(trace_is_on(NULL));
    assert_int_equal(0, trace_match(&f.trace, &subject));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_match, set_up),
        cmocka_unit_test_setup(test_match_message, set_up),
        cmocka_unit_test_setup(test_sticky, set_up),
        cmocka_unit_test_setup(test_recipients, set_up),
        cmocka_unit_test_setup(test_only_new, set_up),
        cmocka_unit_test_setup(test_secrets, set_up),
        cmocka_unit_test_setup(test_length, set_up),
        cmocka_unit_test_setup(test_lost, set_up),
        cmocka_unit_test_setup(test_places, set_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
