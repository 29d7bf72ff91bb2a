/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as PowerMTA's accounting: what each kind becomes, that every line has as many columns as
 * the head, and that no octet of a peer begins a column or a line.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "control/record_csv.h"

static const struct record delivery = {
    .kind = RECORD_DELIVERY,
    .code = 250,
    .enhanced = {2, 0, 0},
    .attempts = 2,
    .time = 1700000065123456,
    .id = {1700000000000000, 7},
    .size = 5000000000,
    .source = {.family = FLOW_FAMILY_IP4, .port = 40000, .ip = {198, 51, 100, 7}},
    .source_name = "out1",
    .peer = {.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 1}},
    .tls = "TLSv1.3",
    .host = "mx.example.org",
    .site = "example.org",
    .sender = "a@example.com",
    .recipient = "b@example.org",
    .text = "2.0.0 ok, \"queued\"",
};

static const char *line_of(const struct record *record)
{
    static char line[RECORD_CSV_SIZE_MAX + 1];

    uint32_t size = record_csv_format(record, line);
    assert_true(size <= RECORD_CSV_SIZE_MAX);
    line[size] = '\0';
    return line;
}

/* Columns of a line, by RFC 4180; 0: it is not one line. */
static uint32_t columns(const char *line)
{
    uint32_t count = 1;
    bool is_quoted = false;

    for (; *line != '\0'; line++) {
        if (*line == '"')
            is_quoted = !is_quoted;
        else if (*line == ',' && !is_quoted)
            count++;
        else if (*line == '\n')
            return !is_quoted && line[1] == '\0' ? count : 0;
    }
    return 0;
}

/* Goal: a delivery has every column that we know of. */
static void test_delivery(void **state)
{
    char id[MESSAGE_ID_TEXT_SIZE], wanted[RECORD_CSV_SIZE_MAX];

    (void)state;
    snprintf(wanted, sizeof(wanted),
             "d,\"2023-11-14 22:14:25+0000\",\"2023-11-14 22:13:20+0000\",65,a@example.com,"
             "b@example.org,relayed,2.0.0,\"smtp;250 2.0.0 ok, \"\"queued\"\"\","
             "\"mx.example.org (192.0.2.1)\",,smtp,smtp,198.51.100.7,192.0.2.1,5000000000,out1,"
             "example.org/out1,TLSv1.3,2,%s,%s-d0\n",
             message_id_format(delivery.id, id), id);
    assert_string_equal(wanted, line_of(&delivery));
    assert_int_equal(columns(record_csv_head), columns(line_of(&delivery)));
}

/* Goal: each kind has its type, action and category; what accounting does not have is left out. */
static void test_kinds(void **state)
{
    const struct {
        uint16_t kind, code;
        const char *type, *action, *category;
    } rows[] = {
        {RECORD_RECEPTION, 250, "r", "", ""},
        {RECORD_DEFERRAL, 452, "t", "delayed", "quota-issues"},
        {RECORD_BOUNCE, 550, "b", "failed", "bad-mailbox"},
        {RECORD_EXPIRY, 0, "b", "failed", "message-expired"},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct record record = {.kind = rows[i].kind, .code = rows[i].code, .id = {1, 1}};
        char middle[64], category[64];
        if (rows[i].code == 550)
            memcpy(record.enhanced, (uint8_t[3]){5, 1, 1}, 3);
        if (rows[i].code == 452)
            memcpy(record.enhanced, (uint8_t[3]){4, 2, 2}, 3);
        const char *line = line_of(&record);
        snprintf(middle, sizeof(middle), ",,,%s,", rows[i].action);
        snprintf(category, sizeof(category), ",%s,smtp,", rows[i].category);
        assert_int_equal(rows[i].type[0], line[0]);
        assert_non_null(strstr(line, middle));
        assert_non_null(strstr(line, category));
        assert_int_equal(columns(record_csv_head), columns(line));
    }
    assert_string_equal("", line_of(&(struct record){.kind = RECORD_REJECTION}));
    assert_string_equal("", line_of(&(struct record){.kind = RECORD_ORDER}));
}

/* Goal: whatever octets a peer sent, a line stays a line with its columns, and has room. */
static void test_octets(void **state)
{
    static const char octets[] = {'"', ',', '\n', '\r', '\t', 0x01, 0x7f, (char)0xff, ' ', '='};

    (void)state;
    for (size_t i = 0; i < COUNT_OF(octets); i++) {
        struct record record = delivery;
        char *const fields[] = {record.tls,    record.host,      record.site, record.source_name,
                                record.sender, record.recipient, record.text};
        const size_t sizes[] = {sizeof(record.tls),    sizeof(record.host),
                                sizeof(record.site),   sizeof(record.source_name),
                                sizeof(record.sender), sizeof(record.recipient),
                                sizeof(record.text)};
        for (size_t f = 0; f < COUNT_OF(fields); f++) {
            memset(fields[f], octets[i], sizes[f]);
            fields[f][sizes[f] - 1] = '\0';
        }
        assert_int_equal(columns(record_csv_head), columns(line_of(&record)));
        assert_null(strpbrk(line_of(&record), "\r\t\x01\x7f"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_delivery),
        cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_octets),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
