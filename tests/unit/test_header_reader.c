/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Header fields that are for us: found, read, cut out, however they are written and wherever the
 * stream is split; and nothing else is touched. Then which class a message belongs to.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/class.h"

#define N64 "x234567890123456789012345678901234567890123456789012345678901234"

static const struct header_names names = {
    .fields = {[HEADER_CLASS] = {"X-Class", true, false},
               [HEADER_POOL] = {"X-Pool", true, true},
               [HEADER_LIST_UNSUBSCRIBE] = {"X-Class-List", false, false},
               [HEADER_PRECEDENCE] = {"Precedence", false, false}}};

struct result {
    struct header_reader reader;
    char content[4096];
    uint32_t size;
};

static void add(struct result *result, struct span octets)
{
    CHECK(result->size + octets.size < sizeof(result->content));
    if (octets.size > 0)
        memcpy(result->content + result->size, octets.data, octets.size);
    result->size += octets.size;
    result->content[result->size] = '\0';
}

/* As the session does it, in pieces of at most `piece` octets. */
static void read_through(const struct header_names *look_for, const char *text, uint32_t piece,
                         bool is_normalizing, struct result *result)
{
    struct span left = span_from_text(text), before = {0};
    struct smtp_body body;
    bool is_borrowed;

    smtp_body_init(&body, false, is_normalizing, 1000, SMTP_BODY_BEST);
    header_reader_init(&result->reader, look_for);
    result->size = 0;
    result->content[0] = '\0';
    while (left.size > 0) {
        struct span part = span_head(left, left.size < piece ? left.size : piece);
        uint32_t wanted = header_reader_wants(&result->reader, part);
        CHECK(wanted > 0 && wanted <= part.size);
        part = span_head(part, wanted);
        struct smtp_body_step step = smtp_body_scan(&body, part);
        step = header_reader_step(&result->reader, part, &step, &is_borrowed);
        add(result, span_head(part, step.pass));
        left = span_skip(left, step.pass + step.skip);
        before = step.insert;
        if (left.size > 0)
            add(result, before);
    }
    add(result, header_reader_finish(&result->reader, before, smtp_body_finish(&body)));
}

/* ---- what is missing ---- */

#define D "Date: D\r\n"
#define M "Message-ID: <m>\r\n"

static const struct {
    const char *name, *in, *out; /* without the end of DATA */
    const char *out_of_bdat;     /* where DATA cannot end: `out` is NULL */
} missing_rows[] = {
    {"both", "From: a\r\n\r\nbody\r\n", "From: a\r\n" D M "\r\nbody\r\n", NULL},
    {"neither", "Date: x\r\nmessage-id: y\r\n\r\nbody\r\n",
     "Date: x\r\nmessage-id: y\r\n\r\nbody\r\n", NULL},
    {"the date", "Message-ID: y\r\nFrom: a\r\n\r\n", "Message-ID: y\r\nFrom: a\r\n" D "\r\n", NULL},
    {"the id", "DATE : y\r\n more\r\n\r\n", "DATE : y\r\n more\r\n" M "\r\n", NULL},
    {"fields of other names", "Dates: y\r\nDat: x\r\nX-Date: y\r\nMessage-I: d\r\n\r\n",
     "Dates: y\r\nDat: x\r\nX-Date: y\r\nMessage-I: d\r\n" D M "\r\n", NULL},
    {"continuations are no fields", "A: b\r\n Date: x\r\n\r\n", "A: b\r\n Date: x\r\n" D M "\r\n",
     NULL},
    {"the body has none", "\r\nDate: x\r\n\r\nb\r\n", D M "\r\nDate: x\r\n\r\nb\r\n", NULL},
    {"a header alone", "From: a\r\n", "From: a\r\n" D M, NULL},
    {"a header alone, and its date", "Date: a\r\n", "Date: a\r\n" M, NULL},
    {"nothing at all", "", D M, NULL},
    {"behind what was cut out", "X-Class: bulk\r\n\r\nb\r\n", D M "\r\nb\r\n", NULL},
    {"behind a name that did not come", "X-Cla\r\n\r\nb\r\n", "X-Cla\r\n" D M "\r\nb\r\n", NULL},
    {"a last line without an end", "From: a", NULL, "From: a"},
    {"a CR at the end", "From: a\r\n\r", NULL, "From: a\r\n\r"},
};

/* As the session does it: by DATA, to the end of data; else by BDAT. */
static void read_completing(const char *text, uint32_t piece, bool is_data, struct result *result)
{
    static const struct header_completion completion = {
        .date = {(const uint8_t *)D "\r\n", sizeof(D) + 1},
        .message_id = {(const uint8_t *)M "\r\n", sizeof(M) + 1},
        .both = {(const uint8_t *)D M "\r\n", sizeof(D M) + 1}};
    static const struct header_names submission = {
        .fields = {[HEADER_CLASS] = {"X-Class", true, false},
                   [HEADER_DATE] = {"Date", false, false},
                   [HEADER_MESSAGE_ID] = {"Message-ID", false, false}}};
    struct smtp_body_step step = {0};
    struct span left = span_from_text(text);
    struct smtp_body body;
    bool is_borrowed;

    smtp_body_init(&body, is_data, false, 1000, SMTP_BODY_BEST);
    header_reader_init(&result->reader, &submission);
    header_reader_complete(&result->reader, &completion);
    result->size = 0;
    result->content[0] = '\0';
    while (left.size > 0) {
        struct span part = span_head(left, left.size < piece ? left.size : piece);
        part = span_head(part, header_reader_wants(&result->reader, part));
        step = smtp_body_scan(&body, part);
        step = header_reader_step(&result->reader, part, &step, &is_borrowed);
        add(result, span_head(part, step.pass));
        left = span_skip(left, step.pass + step.skip);
        if (left.size > 0 || is_data)
            add(result, step.insert);
    }
    if (is_data)
        assert_true(step.is_end);
    else
        add(result, header_reader_finish(&result->reader, step.insert, smtp_body_finish(&body)));
    /* What was added counts as if it had come: less than nothing was cut out. */
    uint64_t came = strlen(text) - (is_data ? 3 : 0);
    assert_true(came == result->size + result->reader.cut_size);
}

static void test_missing_is_added(void **state)
{
    static struct result result;
    char data[256];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(missing_rows); i++) {
        print_message("# case: %s\n", missing_rows[i].name);
        const char *out = missing_rows[i].out;
        for (uint32_t piece = 1; piece < 40; piece++) {
            read_completing(missing_rows[i].in, piece, false, &result);
            assert_string_equal(out == NULL ? missing_rows[i].out_of_bdat : out, result.content);
            if (out == NULL)
                continue;
            (void)snprintf(data, sizeof(data), "%s.\r\n", missing_rows[i].in);
            read_completing(data, piece, true, &result);
            assert_string_equal(out, result.content);
        }
    }
}

/* ---- the reader ---- */

static const struct {
    const char *name, *in, *out; /* out NULL: as it came in */
    const char *class, *list;    /* NULL: no such field */
    bool is_normalizing;
} rows[] = {
    {"nothing", "", NULL, NULL, NULL, false},
    {"no header", "\r\nX-Class: a\r\n", NULL, NULL, NULL, false},
    {"alone", "X-Class: bulk\r\n\r\nbody", "\r\nbody", "bulk", NULL, false},
    {"between", "A: b\r\nX-Class: bulk\r\nC: d\r\n\r\n", "A: b\r\nC: d\r\n\r\n", "bulk", NULL,
     false},
    {"any case", "x-cLASS:BULK \t\r\n\r\n", "\r\n", "BULK", NULL, false},
    {"blanks before the colon", "X-Class \t : a\r\n\r\n", "\r\n", "a", NULL, false},
    {"folded", "X-Class:\r\n bulk\r\n\tmail\r\nA: b\r\n\r\n", "A: b\r\n\r\n", "bulk\tmail", NULL,
     false},
    {"folded twice cut", "X-Class: a\r\nX-Class: b\r\n c\r\n\r\n", "\r\n", "a", NULL, false},
    {"first counts", "X-Class: a\r\nB: c\r\nX-Class: b\r\n\r\n", "B: c\r\n\r\n", "a", NULL, false},
    {"empty value", "X-Class:\r\nX-Class: b\r\n\r\n", "\r\n", "", NULL, false},
    {"name that goes on", "X-Classy: a\r\nX-Clas: b\r\n\r\n", NULL, NULL, NULL, false},
    {"name that is longer and known", "X-Class-List: a\r\n\r\n", NULL, NULL, "a", false},
    {"name that is longer and half known", "X-Class-Lis: a\r\n\r\n", NULL, NULL, NULL, false},
    {"continuation of another", "A: b\r\n X-Class: a\r\n\r\n", NULL, NULL, NULL, false},
    {"continuation of a kept one", "X-Class-List: a\r\n X-Class: b\r\n\r\n", NULL, NULL,
     "a X-Class: b", false},
    {"continuation of nothing", " X-Class: a\r\n\r\n", NULL, NULL, NULL, false},
    {"in the body", "A: b\r\n\r\nX-Class: a\r\n", NULL, NULL, NULL, false},
    {"no colon", "X-Class\r\nX-Class bulk\r\n\r\n", NULL, NULL, NULL, false},
    {"ends in the name", "A: b\r\nX-Cla", NULL, NULL, NULL, false},
    {"ends behind the name", "X-Class", NULL, NULL, NULL, false},
    {"ends behind blanks", "X-Class  ", NULL, NULL, NULL, false},
    {"ends in the value", "X-Class: bu", "", "bu", NULL, false},
    {"ends in the line break", "X-Class: bu\r", "", "bu", NULL, false},
    {"value at the bound", "X-Class: " N64 " \r\n\r\n", "\r\n", N64, NULL, false},
    {"value beyond it", "X-Class: " N64 "5\r\n\r\n", "\r\n", "", NULL, false},
    {"control octets", "X-Class: a\x01\r\n\r\n", "\r\n", "a\x01", NULL, false},
    {"CR at the beginning of a line", "\rX-Class: a\r\n\r\n", NULL, NULL, NULL, false},
    {"bare LF", "A: b\nX-Class: bulk\nC: d\n\nX-Class: a\n", "A: b\r\nC: d\r\n\r\nX-Class: a\r\n",
     "bulk", NULL, true},
    {"bare CR", "X-Class: a\rb\r\nX\r-Class: c\r\n\r\n", "X -Class: c\r\n\r\n", "a b", NULL, true},
    {"bare LF in front of others", "X-Pool: a\nX\nX-\nX-P\nB: 2\n", "X\r\nX-\r\nX-P\r\nB: 2\r\n",
     NULL, NULL, true},
    {"dots at the beginning of a line", ".\r\n.A: b\r\nX-Class: a\r\n..\r\n\r\n",
     ".\r\n.A: b\r\n..\r\n\r\n", "a", NULL, false},
    {"CR in front of a colon", "X-Pool\r: a\nX-Class\r: b\n\n", "\r\n", "b", NULL, true},
    {"CR in front of a field", "A: b\n\rX-Class: a\n\n", "A: b\r\n X-Class: a\r\n\r\n", NULL, NULL,
     true},
    {"CR at the end", "X-Class-List: a\r", "X-Class-List: a ", NULL, "a", true},
};

static void check_value(const char *name, const struct result *result, enum header_field field,
                        const char *expected)
{
    struct span value = header_reader_value(&result->reader, field);

    if (header_reader_has(&result->reader, field) != (expected != NULL) ||
        !span_is_equal(value, span_from_text(expected != NULL ? expected : "")))
        fail_msg("%s: value %.*s", name, (int)value.size, (const char *)value.data);
}

static void fields_are_found_wherever_the_stream_is_split(void **state)
{
    static struct result result;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        const char *out = rows[i].out != NULL ? rows[i].out : rows[i].in;
        for (uint32_t piece = 1; piece <= strlen(rows[i].in) + 1; piece++) {
            read_through(&names, rows[i].in, piece, rows[i].is_normalizing, &result);
            if (strcmp(result.content, out) != 0 || result.size != strlen(out))
                fail_msg("%s by %u: %s", rows[i].name, piece, result.content);
            check_value(rows[i].name, &result, HEADER_CLASS, rows[i].class);
            check_value(rows[i].name, &result, HEADER_LIST_UNSUBSCRIBE, rows[i].list);
        }
    }
}

static void without_names_nothing_is_done(void **state)
{
    static const struct header_names none;
    static struct result result;
    const char *text = "X-Class: a\r\n\r\n";

    (void)state;
    read_through(&none, text, 100, false, &result);
    assert_string_equal(text, result.content);
    header_reader_init(&result.reader, NULL);
    assert_int_equal(14, header_reader_wants(&result.reader, span_from_text(text)));
}

/* Goal: the longest name that may be configured, and blanks behind it, fit. */
static void longest_name_is_found(void **state)
{
    static const struct header_names longest = {.fields = {[HEADER_CLASS] = {N64, true, false}}};
    static struct result result;

    (void)state;
    assert_int_equal(HEADER_NAME_MAX, strlen(N64));
    read_through(&longest, N64 "    : a\r\n\r\n", 7, false, &result);
    assert_string_equal("\r\n", result.content);
    read_through(&longest, N64 "     : a\r\n\r\n", 7, false, &result); /* a blank too many */
    assert_string_equal(N64 "     : a\r\n\r\n", result.content);
    read_through(&longest, N64 "5: a\r\n\r\n", 7, false, &result);
    assert_string_equal(N64 "5: a\r\n\r\n", result.content);
}

/* ---- lenient fields ---- */

/* In pieces of any size: what is left, and what is found. */
static const struct {
    const char *name, *in, *out, *pool; /* NULL: no such field */
    bool is_clear;
} lenient_rows[] = {
    {"none", "Subject: a\r\n\r\n", "Subject: a\r\n\r\n", NULL, false},
    {"alone", "X-Pool: bulk\r\n", "", "bulk", true},
    {"between others", "A: 1\r\nX-Pool: bulk\r\nB: 2\r\n", "A: 1\r\nB: 2\r\n", "bulk", true},
    {"any case", "x-POOL:Bulk\r\nB: 2\r\n", "B: 2\r\n", "Bulk", true},
    {"blanks around", "X-Pool: \t bulk \t \r\n", "", "bulk", true},
    {"blank in front of the colon", "X-Pool \t: bulk\r\nB: 2\r\n", "B: 2\r\n", "bulk", true},
    {"folded", "X-Pool:\r\n bulk\r\n\t\r\nB: 2\r\n", "B: 2\r\n", "bulk", true},
    {"folded in the middle", "X-Pool: bu\r\n lk\r\nB: 2\r\n", "B: 2\r\n", "bu lk", true},
    {"folded in front of the colon", "X-Pool\r\n : bulk\r\nB: 2\r\n",
     "X-Pool\r\n : bulk\r\nB: 2\r\n", NULL, false},
    {"repeated", "X-Pool: a\r\nX-Pool: b\r\nB: 2\r\n", "B: 2\r\n", "a", false},
    {"no value", "X-Pool:\r\nB: 2\r\n", "B: 2\r\n", "", true},
    {"no colon", "X-Pool bulk\r\nB: 2\r\n", "B: 2\r\n", "", false},
    {"two words", "X-Pool: a b\r\n", "", "a b", true},
    {"name of another", "X-Pools: a\r\nX-Poo: b\r\n", "X-Pools: a\r\nX-Poo: b\r\n", NULL, false},
    {"in a continuation", "A: 1\r\n X-Pool: a\r\n", "A: 1\r\n X-Pool: a\r\n", NULL, false},
    {"in the middle of a line", "A: X-Pool: a\r\n", "A: X-Pool: a\r\n", NULL, false},
    {"begins alike, ends short", "X-P\r\nX-Pool\r\nX", "X-P\r\nX-Pool\r\nX", NULL, false},
    {"first line is a blank", " X-Pool: a\r\nB: 2\r\n", " X-Pool: a\r\nB: 2\r\n", NULL, false},
    {"alike behind the field", "X-Pool: a\r\nX-Poo: b\r\n", "X-Poo: b\r\n", "a", true},
    {"repeated, without a colon", "X-Pool: a\r\nX-Pool b\r\nB: 2\r\n", "B: 2\r\n", "a", false},
    {"nothing but blanks", "X-Pool \t \r\n \r\nB: 2\r\n", "B: 2\r\n", "", false},
    {"colon in a continuation", "X-Pool \r\n : a\r\nB: 2\r\n", "B: 2\r\n", "a", true},
    {"ends behind a blank", "B: 2\r\nX-Pool ", "B: 2\r\n", "", false},
    {"ends behind the name", "B: 2\r\nX-Pool", "B: 2\r\nX-Pool", NULL, false},
    {"eight-bit", "\xc3\xa9: 1\r\nX-Pool: \xc3\xa9\r\nB: 2\r\n", "\xc3\xa9: 1\r\nB: 2\r\n",
     "\xc3\xa9", true},
    {"both orders", "X-Class: c\r\nX-Pool: a\r\nX-Class: c\r\n\r\n", "\r\n", "a", true},
    {"in the body", "B: 2\r\n\r\nX-Pool: a\r\n", "B: 2\r\n\r\nX-Pool: a\r\n", NULL, false},
};

static void lenient_fields_are_cut_out_with_or_without_a_colon(void **state)
{
    static struct result result;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(lenient_rows); i++) {
        for (uint32_t piece = 1; piece <= strlen(lenient_rows[i].in) + 1; piece++) {
            read_through(&names, lenient_rows[i].in, piece, false, &result);
            if (strcmp(result.content, lenient_rows[i].out) != 0)
                fail_msg("%s by %u: %s", lenient_rows[i].name, piece, result.content);
            check_value(lenient_rows[i].name, &result, HEADER_POOL, lenient_rows[i].pool);
            if (header_reader_is_clear(&result.reader, HEADER_POOL) != lenient_rows[i].is_clear)
                fail_msg("%s by %u: is it clear?", lenient_rows[i].name, piece);
            assert_int_equal(strlen(lenient_rows[i].in) - result.size, result.reader.cut_size);
        }
    }
}

/* Goal: a field of 64 KB, folded a thousand times, is cut out whole, and has no value. */
static void huge_field_is_cut_out(void **state)
{
    static char text[1 << 17];
    static struct result result;
    uint32_t size = (uint32_t)snprintf(text, sizeof(text), "A: 1\r\nX-Pool: ");

    (void)state;
    for (uint32_t i = 0; i < 1000; i++)
        size += (uint32_t)snprintf(text + size, sizeof(text) - size, "%063u\r\n ", i);
    snprintf(text + size, sizeof(text) - size, "\r\nB: 2\r\n");
    for (uint32_t piece = 1; piece < 1500; piece = piece * 3 + 1) {
        read_through(&names, text, piece, false, &result);
        assert_string_equal("A: 1\r\nB: 2\r\n", result.content);
        check_value("huge", &result, HEADER_POOL, "");
    }
}

/* ---- classes ---- */

static const struct flow_address submission = {
    .family = FLOW_FAMILY_IP4, .port = 587, .ip = {192, 0, 2, 1}};
static const struct class_rule rules[] = {
    {.sender = "news.example", .recipients_min = 3, .class = 2},
    {.sender = "*.shop.example", .class = 0},
    {.listeners = &submission, .listener_count = 1, .class = 0},
    {.is_list_mail = true, .class = 2},
    {.recipients_min = 100, .class = 2},
};
static const struct class_settings classes = {
    .order = {.names = {"first", "normal", "bulk"}, .count = 3},
    .unsaid = 1,
    .rules = rules,
    .rule_count = COUNT_OF(rules),
};

static void a_class_is_found_for_every_mail(void **state)
{
    static const struct header_names look_for = {
        .fields = {[HEADER_CLASS] = {"X-Class", true, false},
                   [HEADER_LIST_UNSUBSCRIBE] = {"List-Unsubscribe", false, false},
                   [HEADER_PRECEDENCE] = {"Precedence", false, false}}};
    static const struct {
        const char *name, *sender, *header;
        uint32_t recipients;
        uint16_t port;
        bool is_stranger;
        uint8_t expected;
    } mails[] = {
        {"nothing said", "a@x.example", "", 1, 25, false, 1},
        {"null sender", "", "", 1, 25, false, 1},
        {"named", "a@x.example", "X-Class: BULK\r\n", 1, 25, false, 2},
        {"named by a stranger", "a@x.example", "X-Class: first\r\n", 1, 25, true, 1},
        {"named goes before rules", "a@s.shop.example", "X-Class: bulk\r\n", 1, 25, false, 2},
        {"no such class", "a@x.example", "X-Class: fastest\r\n", 1, 25, false, 1},
        {"no such class, a rule", "a@s.shop.example", "X-Class: 0\r\n", 1, 25, false, 0},
        {"both of two terms", "a@news.example", "", 3, 25, false, 2},
        {"one of two terms", "a@news.example", "", 2, 25, false, 1},
        {"case of the sender", "a@NEWS.example", "", 3, 25, false, 2},
        {"below a pattern", "a@b.c.shop.example", "", 1, 25, false, 0},
        {"itself is not below", "a@shop.example", "", 1, 25, false, 1},
        {"ends alike", "a@bad-news.example", "", 3, 25, false, 1},
        {"at sign in quotes", "\"a@news.example\"@x.example", "", 3, 25, false, 1},
        {"listener", "a@x.example", "", 1, 587, true, 0},
        {"listener before list", "a@x.example", "Precedence: bulk\r\n", 1, 587, false, 0},
        {"precedence bulk", "a@x.example", "Precedence: Bulk\r\n", 1, 25, false, 2},
        {"precedence list", "a@x.example", "Precedence: list\r\n", 1, 25, false, 2},
        {"precedence junk", "a@x.example", "Precedence: junk\r\n", 1, 25, false, 2},
        {"other precedence", "a@x.example", "Precedence: first-class\r\n", 1, 25, false, 1},
        {"unsubscribe", "a@x.example", "List-Unsubscribe:\r\n <mailto:a@b>\r\n", 1, 25, true, 2},
        {"below the number", "a@x.example", "", 99, 25, false, 1},
        {"at the number", "a@x.example", "", 100, 25, false, 2},
    };
    static struct result result;

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(mails); i++) {
        struct envelope envelope = {.sender = span_from_text(mails[i].sender),
                                    .recipient_count = mails[i].recipients};
        struct flow_address listener = {
            .family = FLOW_FAMILY_IP4, .port = mails[i].port, .ip = {192, 0, 2, 1}};
        read_through(&look_for, mails[i].header, 4096, false, &result);
        struct class_mail mail = {&envelope, &result.reader, &listener, !mails[i].is_stranger};
        if (class_decide(&classes, &mail) != mails[i].expected)
            fail_msg("%s", mails[i].name);
        struct class_settings none = {.unsaid = 0};
        assert_int_equal(0, class_decide(&none, &mail));
    }
    assert_int_equal(2, class_find(&classes, SPAN_LITERAL("Bulk")));
    assert_int_equal(QMGR_ROUND_CLASS_COUNT, class_find(&classes, SPAN_LITERAL("")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_missing_is_added),
        cmocka_unit_test(fields_are_found_wherever_the_stream_is_split),
        cmocka_unit_test(lenient_fields_are_cut_out_with_or_without_a_colon),
        cmocka_unit_test(huge_field_is_cut_out),
        cmocka_unit_test(without_names_nothing_is_done),
        cmocka_unit_test(longest_name_is_found),
        cmocka_unit_test(a_class_is_found_for_every_mail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
