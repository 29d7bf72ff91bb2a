/* SPDX-License-Identifier: Apache-2.0 */
#include "control/record_csv.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "relay/bounce_class.h"

const char record_csv_head[] =
    "type,timeLogged,timeQueued,totalSecondsQueued,orig,rcpt,dsnAction,dsnStatus,dsnDiag,dsnMta,"
    "bounceCat,srcType,dlvType,dlvSourceIp,dlvDestinationIp,dlvSize,vmta,queue,dlvTlsProtocol,"
    "attempts,id,event\n";

struct line {
    char *text;
    uint32_t size;
};

static void put_octet(struct line *line, char octet)
{
    CHECK(line->size < RECORD_CSV_SIZE_MAX);
    line->text[line->size++] = octet;
}

/* A column: in quotes where it has to be. */
static void put(struct line *line, const char *text)
{
    bool is_quoted = text[strcspn(text, ",\" ")] != '\0';

    if (line->size > 0)
        put_octet(line, ',');
    if (is_quoted)
        put_octet(line, '"');
    for (; *text != '\0'; text++) {
        if (*text == '"')
            put_octet(line, '"');
        put_octet(line, (unsigned char)*text < ' ' || *text == 0x7f ? ' ' : *text);
    }
    if (is_quoted)
        put_octet(line, '"');
}

static void put_format(struct line *line, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
static void put_format(struct line *line, const char *format, ...)
{
    char text[640];
    va_list arguments;

    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    put(line, text);
}

/* Local time with its distance from UTC, as PowerMTA writes it; ours is UTC. */
static void put_time(struct line *line, wall_us wall)
{
    char text[40];
    struct tm parts = {0};
    time_t value = wall / 1000000;

    if (gmtime_r(&value, &parts) == NULL ||
        strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S+0000", &parts) == 0)
        text[0] = '\0';
    put(line, text);
}

static void put_ip(struct line *line, const struct flow_address *address)
{
    char text[FLOW_ADDRESS_TEXT_MAX] = "";

    if (address->family != FLOW_FAMILY_NONE)
        (void)flow_address_format_ip(address, text);
    put(line, text);
}

/* Type and action of a kind. NULL: accounting has none of the kind. */
static const char *type_of(uint32_t kind, const char **ret_action)
{
    switch (kind) {
    case RECORD_RECEPTION:
        *ret_action = "";
        return "r";
    case RECORD_DELIVERY:
        *ret_action = "relayed";
        return "d";
    case RECORD_DEFERRAL:
        *ret_action = "delayed";
        return "t";
    case RECORD_BOUNCE:
    case RECORD_EXPIRY:
        *ret_action = "failed";
        return "b";
    default:
        return NULL;
    }
}

static const char *category_of(const struct record *record)
{
    struct span text = span_of(record->text, (uint32_t)strnlen(record->text, sizeof(record->text)));

    if (record->kind == RECORD_EXPIRY)
        return "message-expired";
    if (record->kind != RECORD_BOUNCE && record->kind != RECORD_DEFERRAL)
        return "";
    return bounce_class_name(bounce_classify(record->code, record->enhanced, text));
}

static void put_reply(struct line *line, const struct record *record)
{
    if (record->enhanced[0] != 0)
        put_format(line, "%u.%u.%u", record->enhanced[0], record->enhanced[1], record->enhanced[2]);
    else
        put(line, "");
    if (record->code != 0)
        put_format(line, "smtp;%u %.256s", record->code, record->text);
    else
        put(line, "");
}

static void put_next_hop(struct line *line, const struct record *record)
{
    char ip[FLOW_ADDRESS_TEXT_MAX];

    if (record->kind == RECORD_RECEPTION || record->host[0] == '\0')
        put(line, "");
    else if (record->peer.family == FLOW_FAMILY_NONE)
        put(line, record->host);
    else
        put_format(line, "%s (%s)", record->host, flow_address_format_ip(&record->peer, ip));
}

uint32_t record_csv_format(const struct record *record, char ret_text[RECORD_CSV_SIZE_MAX])
{
    static const struct flow_address nobody = {0};
    bool is_reception = record->kind == RECORD_RECEPTION;
    struct line line = {ret_text, 0};
    char id[MESSAGE_ID_TEXT_SIZE], event[RECORD_EVENT_SIZE];
    const char *action, *type = type_of(record->kind, &action);
    wall_us queued = (wall_us)record->id.high;

    if (type == NULL)
        return 0;
    put(&line, type);
    put_time(&line, record->time);
    put_time(&line, queued);
    put_format(&line, "%" PRId64, record->time > queued ? (record->time - queued) / 1000000 : 0);
    put(&line, record->sender);
    put(&line, record->recipient);
    put(&line, action);
    put_reply(&line, record);
    put_next_hop(&line, record);
    put(&line, category_of(record));
    put(&line, record->flags & RECORD_IS_DSN ? "local" : "smtp");
    put(&line, is_reception ? "" : "smtp");
    put_ip(&line, is_reception ? &nobody : &record->source);
    put_ip(&line, is_reception ? &nobody : &record->peer);
    put_format(&line, "%" PRIu64, record->size);
    put(&line, record->source_name);
    put_format(&line, "%s%s%s", record->site, record->source_name[0] != '\0' ? "/" : "",
               record->source_name);
    put(&line, record->tls);
    put_format(&line, "%u", record->attempts);
    put(&line, message_id_format(record->id, id));
    put(&line, record_event_format(record, event));
    put_octet(&line, '\n');
    return line.size;
}
