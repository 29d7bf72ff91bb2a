/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records as JSON lines, by hand: at hundreds of thousands a second a library that builds a tree
 * for each would be most of the work.
 *
 *   {"type":"delivery","time":"2026-11-23T22:17:47.123456Z","id":"...","session":"...",
 *    "sender":"a@x","user":"a","recipient":"b@y","site":"y","host":"mx.y","peer":"192.0.2.1:25",
 *    "source":"198.51.100.7:40000","source_name":"out1","size":1234,"code":250,"enhanced":"2.0.0","text":"ok",
 *    "delays":"0.01/0/0.12/0.3","connection_use":1,"tls":"TLSv1.3","attempts":1,"shard":0}
 *
 * Fields without a value are left out; type, time, id, sender, shard are always there. `delays` is
 * Postfix's: seconds before the queue, in the queue, for the connection, for the transmission.
 * `session` and `id` are text, since JSON's numbers lose what is above 2^53. Further fields:
 * recipients (how many, of a reception), uncertain: true (the connection was lost before the reply
 * to the end of data, so the message may arrive twice), dsn: true (a bounce of ours), class (of a
 * deferral, bounce or expiry: relay/bounce_class.h), way and way_reason (docs/cut-through.md),
 * passed_on: true (of a bounce: the client heard the refusal, nothing is returned), next_ahead:
 * true and bdat_ahead: true (docs/cut-through.md, sent before its turn).
 *
 * Every line is valid UTF-8 and valid JSON, whatever octets a peer sent.
 */
#include "control/record_json.h"

#include "queue/way.h"
#include "relay/bounce_class.h"

#include <string.h>
#include <time.h>

struct cursor {
    char *at;
};

static void put_octet(struct cursor *cursor, char octet)
{
    *cursor->at++ = octet;
}

static void put_octets(struct cursor *cursor, const void *octets, size_t size)
{
    memcpy(cursor->at, octets, size);
    cursor->at += size;
}

static void put_text(struct cursor *cursor, const char *text)
{
    put_octets(cursor, text, strlen(text));
}

static void put_number(struct cursor *cursor, uint64_t number)
{
    char digits[20];
    uint32_t count = 0;

    do {
        digits[count++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (count > 0)
        put_octet(cursor, digits[--count]);
}

static void put_number_padded(struct cursor *cursor, uint64_t number, uint32_t width)
{
    for (uint32_t i = width; i-- > 0;) {
        cursor->at[i] = (char)('0' + number % 10);
        number /= 10;
    }
    cursor->at += width;
}

/* Octets of the UTF-8 sequence (RFC 3629 section 4) at the start of `text`, 0 if there is none. */
static uint32_t utf8_size(const uint8_t *text, uint32_t size)
{
    static const struct {
        uint8_t first_min, first_max, second_min, second_max, size;
    } forms[] = {
        {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3}, {0xe1, 0xec, 0x80, 0xbf, 3},
        {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3}, {0xf0, 0xf0, 0x90, 0xbf, 4},
        {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (uint32_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
        if (text[0] < forms[i].first_min || text[0] > forms[i].first_max)
            continue;
        if (forms[i].size > size || text[1] < forms[i].second_min || text[1] > forms[i].second_max)
            return 0;
        for (uint32_t j = 2; j < forms[i].size; j++) {
            if ((text[j] & 0xc0) != 0x80)
                return 0;
        }
        return forms[i].size;
    }
    return 0;
}

static bool octet_is_plain(uint8_t octet)
{
    return octet >= ' ' && octet < 127 && octet != '"' && octet != '\\';
}

/* One octet or sequence that cannot stand as it is; returns how many octets it was. */
static uint32_t put_escaped(struct cursor *cursor, const uint8_t *text, uint32_t size)
{
    static const char digits[] = "0123456789abcdef";
    uint32_t sequence = text[0] < 0x80 ? 1 : utf8_size(text, size);

    if (sequence == 0) {
        put_octets(cursor, "\xef\xbf\xbd", 3); /* U+FFFD */
        return 1;
    }
    if (sequence > 1) {
        put_octets(cursor, text, sequence);
    } else if (text[0] == '"' || text[0] == '\\') {
        put_octet(cursor, '\\');
        put_octet(cursor, (char)text[0]);
    } else {
        put_octets(cursor, "\\u00", 4);
        put_octet(cursor, digits[text[0] >> 4]);
        put_octet(cursor, digits[text[0] & 15]);
    }
    return sequence;
}

static void put_string(struct cursor *cursor, const char *field, uint32_t field_size)
{
    const uint8_t *text = (const uint8_t *)field;
    uint32_t size = (uint32_t)strnlen(field, field_size);

    put_octet(cursor, '"');
    while (size > 0) {
        uint32_t plain = 0;
        while (plain < size && octet_is_plain(text[plain]))
            plain++;
        put_octets(cursor, text, plain);
        text += plain;
        size -= plain;
        if (size > 0) {
            uint32_t used = put_escaped(cursor, text, size);
            text += used;
            size -= used;
        }
    }
    put_octet(cursor, '"');
}

/* ---- fields ---- */

/* ,"name": - the name is a literal of ours. */
static void put_name(struct cursor *cursor, const char *name)
{
    put_octets(cursor, ",\"", 2);
    put_text(cursor, name);
    put_octets(cursor, "\":", 2);
}

static void put_string_field(struct cursor *cursor, const char *name, const char *field,
                             uint32_t field_size)
{
    if (*field == '\0')
        return;
    put_name(cursor, name);
    put_string(cursor, field, field_size);
}

static void put_number_field(struct cursor *cursor, const char *name, uint64_t number)
{
    if (number == 0)
        return;
    put_name(cursor, name);
    put_number(cursor, number);
}

static void put_address_field(struct cursor *cursor, const char *name,
                              const struct flow_address *address)
{
    char text[FLOW_ADDRESS_TEXT_MAX];

    if (address->family != FLOW_FAMILY_NONE)
        put_string_field(cursor, name, flow_address_format(address, text), sizeof(text));
}

static void put_session(struct cursor *cursor, uint64_t session)
{
    static const char digits[] = "0123456789abcdef";

    if (session == 0)
        return;
    put_name(cursor, "session");
    put_octet(cursor, '"');
    for (int shift = 60; shift >= 0; shift -= 4)
        put_octet(cursor, digits[session >> shift & 15]);
    put_octet(cursor, '"');
}

/* Seconds, with milliseconds where there are some: "0", "1.5", "0.012". */
static void put_delay(struct cursor *cursor, uint32_t ms)
{
    uint32_t fraction = ms % 1000;

    put_number(cursor, ms / 1000);
    if (fraction == 0)
        return;
    put_octet(cursor, '.');
    put_number_padded(cursor, fraction, 3);
    while (cursor->at[-1] == '0')
        cursor->at--;
}

static void put_delays(struct cursor *cursor, const struct record *record)
{
    if (record->kind == RECORD_RECEPTION || record->kind == RECORD_REJECTION)
        return;
    put_name(cursor, "delays");
    for (uint32_t i = 0; i < 4; i++) {
        put_octet(cursor, i == 0 ? '"' : '/');
        put_delay(cursor, record->delays_ms[i]);
    }
    put_octet(cursor, '"');
}

static void put_enhanced(struct cursor *cursor, const uint8_t enhanced[3])
{
    if (enhanced[0] == 0)
        return;
    put_name(cursor, "enhanced");
    for (uint32_t i = 0; i < 3; i++) {
        put_octet(cursor, i == 0 ? '"' : '.');
        put_number(cursor, enhanced[i]);
    }
    put_octet(cursor, '"');
}

/* RFC 3339, UTC, microseconds. */
static void put_time(struct cursor *cursor, wall_us wall, struct record_time *time)
{
    int64_t second = wall / 1000000, us = wall % 1000000;

    if (us < 0) {
        us += 1000000;
        second -= 1;
    }
    if (second != time->second || time->text[0] == '\0') {
        struct tm parts = {0};
        time_t value = second;
        time->second = second;
        if (gmtime_r(&value, &parts) == NULL ||
            strftime(time->text, sizeof(time->text), "%Y-%m-%dT%H:%M:%S", &parts) == 0)
            memcpy(time->text, "1970-01-01T00:00:00", 20);
    }
    put_octets(cursor, ",\"time\":\"", 9);
    put_text(cursor, time->text);
    put_octet(cursor, '.');
    put_number_padded(cursor, (uint64_t)us, 6);
    put_octets(cursor, "Z\"", 2);
}

static void put_id(struct cursor *cursor, struct message_id id)
{
    char text[MESSAGE_ID_TEXT_SIZE];

    if (id.high != 0 || id.low != 0)
        put_string_field(cursor, "id", message_id_format(id, text), sizeof(text));
}

const char *record_kind_name(uint32_t kind)
{
    static const char *const names[] = {
        [RECORD_RECEPTION] = "reception", [RECORD_DELIVERY] = "delivery",
        [RECORD_DEFERRAL] = "deferral",   [RECORD_BOUNCE] = "bounce",
        [RECORD_EXPIRY] = "expiry",       [RECORD_REJECTION] = "rejection",
        [RECORD_ORDER] = "order",
    };

    return kind < sizeof(names) / sizeof(names[0]) && names[kind] != NULL ? names[kind] : "unknown";
}

/* Why a recipient's mail was not taken. */
static void put_class(struct cursor *cursor, const struct record *record)
{
    if (record->kind != RECORD_DEFERRAL && record->kind != RECORD_BOUNCE &&
        record->kind != RECORD_EXPIRY)
        return;
    struct span text = span_of(record->text, (uint32_t)strnlen(record->text, sizeof(record->text)));
    put_name(cursor, "class");
    put_octet(cursor, '"');
    put_text(cursor, bounce_class_name(bounce_classify(record->code, record->enhanced, text)));
    put_octet(cursor, '"');
}

/* Which way the message went, and why. */
static void put_way(struct cursor *cursor, const struct record *record)
{
    const char *kind = way_kind((enum way)record->way);
    const char *reason = way_reason((enum way)record->way);

    if (record->way == WAY_UNKNOWN)
        return;
    put_string_field(cursor, "way", kind, (uint32_t)strlen(kind) + 1);
    put_string_field(cursor, "way_reason", reason, (uint32_t)strlen(reason) + 1);
}

uint32_t record_json_format(const struct record *record, struct record_time *time, char *ret_text)
{
    struct cursor cursor = {ret_text};
    char event[RECORD_EVENT_SIZE];

    put_text(&cursor, "{\"type\":\"");
    put_text(&cursor, record_kind_name(record->kind));
    put_octet(&cursor, '"');
    put_time(&cursor, record->time, time);
    put_string_field(&cursor, "event", record_event_format(record, event), sizeof(event));
    put_id(&cursor, record->id);
    put_session(&cursor, record->session);
    put_name(&cursor, "sender"); /* also when it is null: that says something */
    put_string(&cursor, record->sender, sizeof(record->sender));
    put_string_field(&cursor, "user", record->user, sizeof(record->user));
    put_string_field(&cursor, "recipient", record->recipient, sizeof(record->recipient));
    put_number_field(&cursor, "recipients", record->recipient_count);
    put_string_field(&cursor, "site", record->site, sizeof(record->site));
    put_string_field(&cursor, "host", record->host, sizeof(record->host));
    put_address_field(&cursor, "peer", &record->peer);
    put_address_field(&cursor, "source", &record->source);
    put_string_field(&cursor, "source_name", record->source_name, sizeof(record->source_name));
    put_number_field(&cursor, "size", record->size);
    put_number_field(&cursor, "code", record->code);
    put_enhanced(&cursor, record->enhanced);
    put_string_field(&cursor, "text", record->text, sizeof(record->text));
    put_class(&cursor, record);
    put_delays(&cursor, record);
    put_number_field(&cursor, "connection_use", record->connection_use);
    put_string_field(&cursor, "tls", record->tls, sizeof(record->tls));
    put_number_field(&cursor, "attempts", record->attempts);
    put_way(&cursor, record);
    put_name(&cursor, "shard");
    put_number(&cursor, record->shard);
    if (record->flags & RECORD_UNCERTAIN)
        put_text(&cursor, ",\"uncertain\":true");
    if (record->flags & RECORD_IS_DSN)
        put_text(&cursor, ",\"dsn\":true");
    if (record->flags & RECORD_PASSED_ON)
        put_text(&cursor, ",\"passed_on\":true");
    if (record->flags & RECORD_REPLAYED)
        put_text(&cursor, ",\"replayed\":true");
    if (record->flags & RECORD_NEXT_AHEAD)
        put_text(&cursor, ",\"next_ahead\":true");
    if (record->flags & RECORD_BDAT_AHEAD)
        put_text(&cursor, ",\"bdat_ahead\":true");
    put_text(&cursor, "}\n");

    uint32_t size = (uint32_t)(cursor.at - ret_text);
    CHECK(size <= RECORD_JSON_SIZE_MAX);
    return size;
}
