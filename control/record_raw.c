/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records in binary: what shards emit, less the empty ends of its text fields.
 *
 * A file begins with the line record_raw_head; one record stands behind the other. Numbers are
 * little endian.
 *
 *   offset  octets
 *        0       2  magic, "\xa7\x01"
 *        2       2  size of the whole record
 *        4       4  CRC-32C of the record without these four octets
 *        8       1  kind (enum record_kind)
 *        9       1  way (enum way)
 *       10       2  reply code
 *       12       3  enhanced code
 *       15       1  attempts
 *       16       2  flags (enum record_flags)
 *       18       2  recipients, of a reception
 *       20       4  shard
 *       24       4  which recipient of the message
 *       28       4  use of the connection
 *       32       8  time, microseconds since 1970
 *       40      16  message id: high, low
 *       56       8  size of the message
 *       64       8  session
 *       72       8  number among the shard's records
 *       80      16  delays in milliseconds: before the queue, in it, connection, transmission
 *       96      20  our address: family (enum flow_family; 0: none), 0, port, 16 octets
 *      116      20  the peer's
 *      136       -  eight texts, an octet of size in front of each: TLS, host, site, source's name,
 *                   user, sender, recipient, text of the reply
 *
 * Invariants
 *   1. Nothing else is read back as a record than what was encoded: sizes, kinds, times, families
 * and texts are looked at, and the checksum holds for all of it.
 *   2. A reader that lands in the middle, or behind a write that was cut short, finds the next
 * record by going on octet by octet.
 *
 * Limits: RECORD_RAW_SIZE_MAX. A new field goes to the end, with the next octet for the magic.
 */
#include "control/record_raw.h"

#include "queue/crc32c.h"
#include "queue/way.h"

#define MAGIC_FIRST  0xa7u
#define MAGIC_SECOND 0x01u
#define HEADER_SIZE  8u
#define FIXED_SIZE   136u
#define ADDRESS_SIZE 20u
#define TIME_END     253402300800000000ll /* the year 10000 */

const char record_raw_head[] = "angarium records in binary 1\n";
_Static_assert(sizeof(record_raw_head) - 1 == RECORD_RAW_HEAD_SIZE, "without its NUL");

_Static_assert(RECORD_RAW_SIZE_MIN == FIXED_SIZE + RECORD_TEXT_COUNT, "of empty texts");
_Static_assert(RECORD_RAW_SIZE_MAX ==
                   FIXED_SIZE + RECORD_TEXT_COUNT + 23 + 95 + 63 + 31 + 63 + 127 + 127 + 255,
               "of full ones");

/* Numbers of the fixed part, where they stand in it and in a record. All platforms are little
 * endian (control/admin_answer.c says so, too). */
#define NUMBER(at, field)                                                                          \
    {                                                                                              \
        at, offsetof(struct record, field), sizeof(((struct record *)NULL)->field)                 \
    }
static const struct {
    uint8_t at;
    uint16_t offset;
    uint8_t size;
} numbers[] = {
    NUMBER(9, way),
    NUMBER(10, code),
    NUMBER(12, enhanced),
    NUMBER(15, attempts),
    NUMBER(16, flags),
    NUMBER(18, recipient_count),
    NUMBER(20, shard),
    NUMBER(24, recipient_index),
    NUMBER(28, connection_use),
    NUMBER(32, time),
    NUMBER(40, id),
    NUMBER(56, size),
    NUMBER(64, session),
    NUMBER(72, sequence),
    NUMBER(80, delays_ms),
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format's");
_Static_assert(sizeof(struct message_id) == 16, "two numbers, high first");

static uint32_t checksum_of(const uint8_t *octets, uint32_t size)
{
    uint32_t checksum = crc32c_update(0, span_of(octets, 4));

    return crc32c_update(checksum, span_of(octets + HEADER_SIZE, size - HEADER_SIZE));
}

/* ---- encoding ---- */

static void address_put(uint8_t *octets, const struct flow_address *address)
{
    octets[0] = address->family;
    memcpy(octets + 2, &address->port, 2);
    memcpy(octets + 4, address->ip, 16);
}

uint32_t record_raw_encode(const struct record *record, uint8_t *ret_octets)
{
    uint32_t size = FIXED_SIZE;

    memset(ret_octets, 0, FIXED_SIZE);
    ret_octets[0] = MAGIC_FIRST;
    ret_octets[1] = MAGIC_SECOND;
    ret_octets[8] = (uint8_t)record->kind;
    for (uint32_t i = 0; i < COUNT_OF(numbers); i++)
        memcpy(ret_octets + numbers[i].at, (const uint8_t *)record + numbers[i].offset,
               numbers[i].size);
    address_put(ret_octets + 96, &record->source);
    address_put(ret_octets + 96 + ADDRESS_SIZE, &record->peer);
    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++) {
        const char *text = (const char *)record + record_texts[i].offset;
        uint8_t length = (uint8_t)strnlen(text, record_texts[i].size - 1);
        ret_octets[size] = length;
        memcpy(ret_octets + size + 1, text, length);
        size += 1u + length;
    }
    CHECK(size <= RECORD_RAW_SIZE_MAX);
    memcpy(ret_octets + 2, &(uint16_t){(uint16_t)size}, 2);
    memcpy(ret_octets + 4, &(uint32_t){checksum_of(ret_octets, size)}, 4);
    return size;
}

/* ---- decoding ---- */

static bool address_get(const uint8_t *octets, struct flow_address *ret_address)
{
    uint8_t family = octets[0];

    *ret_address = (struct flow_address){.family = family};
    memcpy(&ret_address->port, octets + 2, 2);
    memcpy(ret_address->ip, octets + 4, 16);
    bool is_known = family == FLOW_FAMILY_NONE || family == FLOW_FAMILY_IP4 ||
                    family == FLOW_FAMILY_IP6 || family == FLOW_FAMILY_UNIX;
    return is_known && octets[1] == 0;
}

static bool texts_get(const uint8_t *octets, uint32_t size, struct record *record)
{
    uint32_t at = FIXED_SIZE;

    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++) {
        if (at >= size)
            return false;
        uint32_t length = octets[at++];
        char *text = (char *)record + record_texts[i].offset;
        if (length >= record_texts[i].size || length > size - at ||
            memchr(octets + at, '\0', length) != NULL)
            return false;
        memcpy(text, octets + at, length);
        at += length;
    }
    return at == size;
}

/* A kind and a way that there are, and times that a date can say. */
static bool is_sane(const struct record *record)
{
    return record->kind >= RECORD_RECEPTION && record->kind <= RECORD_ORDER &&
           record->way < WAY_COUNT && record->time >= 0 && record->time < TIME_END &&
           record->id.high < (uint64_t)TIME_END;
}

enum err record_raw_decode(struct span octets, struct record *ret_record, uint32_t *ret_size)
{
    uint16_t size;
    uint32_t checksum;
    struct record record = {0};

    if (octets.size == 0)
        return ERR_AGAIN;
    if (octets.data[0] != MAGIC_FIRST || (octets.size > 1 && octets.data[1] != MAGIC_SECOND))
        return ERR_PEER_SYNTAX;
    if (octets.size < HEADER_SIZE)
        return ERR_AGAIN;
    memcpy(&size, octets.data + 2, sizeof(size));
    memcpy(&checksum, octets.data + 4, sizeof(checksum));
    if (size < RECORD_RAW_SIZE_MIN || size > RECORD_RAW_SIZE_MAX)
        return ERR_PEER_SYNTAX;
    if (octets.size < size)
        return ERR_AGAIN;
    if (checksum_of(octets.data, size) != checksum)
        return ERR_PEER_SYNTAX;
    record.kind = octets.data[8];
    for (uint32_t i = 0; i < COUNT_OF(numbers); i++)
        memcpy((uint8_t *)&record + numbers[i].offset, octets.data + numbers[i].at,
               numbers[i].size);
    if (!is_sane(&record) || !address_get(octets.data + 96, &record.source) ||
        !address_get(octets.data + 96 + ADDRESS_SIZE, &record.peer) ||
        !texts_get(octets.data, size, &record))
        return ERR_PEER_SYNTAX;
    *ret_record = record;
    *ret_size = size;
    return ERR_OK;
}

uint32_t record_raw_whole(const char *octets, uint32_t size, uint32_t *ret_count)
{
    uint32_t whole = 0;
    uint16_t next;

    *ret_count = 0;
    while (size - whole >= HEADER_SIZE) {
        memcpy(&next, octets + whole + 2, sizeof(next));
        CHECK(next >= RECORD_RAW_SIZE_MIN && next <= RECORD_RAW_SIZE_MAX);
        if (size - whole < next)
            break;
        whole += next;
        *ret_count += 1;
    }
    return whole;
}
