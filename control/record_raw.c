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
#define TEXT_COUNT   8u
#define TIME_END     253402300800000000ll /* the year 10000 */

const char record_raw_head[] = "angarium records in binary 1\n";
_Static_assert(sizeof(record_raw_head) - 1 == RECORD_RAW_HEAD_SIZE, "without its NUL");

_Static_assert(RECORD_RAW_SIZE_MIN == FIXED_SIZE + TEXT_COUNT, "of empty texts");
_Static_assert(RECORD_RAW_SIZE_MAX ==
                   FIXED_SIZE + TEXT_COUNT + 23 + 95 + 63 + 31 + 63 + 127 + 127 + 255,
               "of full ones");

/* The fixed part as it lies there, anywhere. All platforms are little endian
 * (control/admin_answer.c says so, too). */
#define ANYWHERE __attribute__((packed, aligned(1)))
struct ANYWHERE raw_address {
    uint8_t family, zero;
    uint16_t port;
    uint8_t ip[16];
};
struct ANYWHERE raw_fixed {
    uint8_t magic[2];
    uint16_t size;
    uint32_t checksum;
    uint8_t kind, way;
    uint16_t code;
    uint8_t enhanced[3], attempts;
    uint16_t flags, recipient_count;
    uint32_t shard, recipient_index, connection_use;
    int64_t time;
    struct message_id id;
    uint64_t size_of_message, session, sequence;
    uint32_t delays_ms[4];
    struct raw_address source, peer;
};
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the format's");
_Static_assert(sizeof(struct raw_fixed) == FIXED_SIZE, "no gaps");
_Static_assert(sizeof(struct raw_address) == ADDRESS_SIZE, "no gaps");
_Static_assert(sizeof(struct message_id) == 16, "two numbers, high first");

#define TEXT(field)                                                                                \
    {                                                                                              \
        offsetof(struct record, field), sizeof(((struct record *)NULL)->field)                     \
    }
static const struct {
    uint16_t offset, size; /* in a record; the size with its NUL */
} texts[TEXT_COUNT] = {
    TEXT(tls),  TEXT(host),   TEXT(site),      TEXT(source_name),
    TEXT(user), TEXT(sender), TEXT(recipient), TEXT(text),
};

static uint32_t checksum_of(const uint8_t *octets, uint32_t size)
{
    uint32_t checksum = crc32c_update(0, span_of(octets, 4));

    return crc32c_update(checksum, span_of(octets + HEADER_SIZE, size - HEADER_SIZE));
}

/* ---- encoding ---- */

#define WORD 8u /* octets moved at a time */

/* The top bit of each octet that is NUL, and no other. */
static inline uint64_t nuls_find(uint64_t word)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7full;

    return ~(((word & low) + low) | word | low);
}

/* Move a text, its NUL and up to seven octets behind it. Returns its size, without the NUL. */
static inline uint32_t text_move(uint8_t *ret_text, const uint8_t *text)
{
    for (uint32_t done = 0;; done += WORD) {
        uint64_t word;
        memcpy(&word, text + done, WORD);
        memcpy(ret_text + done, &word, WORD);
        uint64_t nuls = nuls_find(word);
        if (nuls != 0)
            return done + (uint32_t)__builtin_ctzll(nuls) / 8;
    }
}

/* Fields are whole words, so a word that begins in one ends in it; and what is moved past a text's
 * end ends before the place that the next ones could need: RECORD_RAW_ROOM. */
_Static_assert(sizeof(struct record) - offsetof(struct record, tls) ==
                   24 + 96 + 64 + 32 + 64 + 128 + 128 + 256,
               "nothing but texts, of whole words");
_Static_assert(RECORD_RAW_ROOM == RECORD_RAW_SIZE_MAX + 1, "the last text's NUL");

static void address_put(struct raw_address *ret_raw, const struct flow_address *address)
{
    ret_raw->family = address->family;
    ret_raw->zero = 0;
    ret_raw->port = address->port;
    memcpy(ret_raw->ip, address->ip, sizeof(ret_raw->ip));
}

/* Field by field, where they go to: put together elsewhere first, the processor would wait until it
 * can read what was written in other pieces. */
static void fixed_put(struct raw_fixed *ret_fixed, const struct record *record)
{
    ret_fixed->magic[0] = MAGIC_FIRST;
    ret_fixed->magic[1] = MAGIC_SECOND;
    ret_fixed->checksum = 0;
    ret_fixed->kind = (uint8_t)record->kind;
    ret_fixed->way = record->way;
    ret_fixed->code = record->code;
    memcpy(ret_fixed->enhanced, record->enhanced, sizeof(ret_fixed->enhanced));
    ret_fixed->attempts = record->attempts;
    ret_fixed->flags = record->flags;
    ret_fixed->recipient_count = record->recipient_count;
    ret_fixed->shard = record->shard;
    ret_fixed->recipient_index = record->recipient_index;
    ret_fixed->connection_use = record->connection_use;
    ret_fixed->time = record->time;
    ret_fixed->id = record->id;
    ret_fixed->size_of_message = record->size;
    ret_fixed->session = record->session;
    memcpy(ret_fixed->delays_ms, record->delays_ms, sizeof(ret_fixed->delays_ms));
    address_put(&ret_fixed->source, &record->source);
    address_put(&ret_fixed->peer, &record->peer);
}

uint32_t record_raw_pack(const struct record *record, uint64_t sequence, uint8_t *ret_octets)
{
    struct raw_fixed *fixed = (struct raw_fixed *)ret_octets;
    uint32_t size = FIXED_SIZE;

    fixed_put(fixed, record);
    fixed->sequence = sequence;
    for (uint32_t i = 0; i < TEXT_COUNT; i++) {
        uint32_t length =
            text_move(ret_octets + size + 1, (const uint8_t *)record + texts[i].offset);
        ret_octets[size] = (uint8_t)length;
        size += 1 + length;
    }
    CHECK(size <= RECORD_RAW_SIZE_MAX);
    fixed->size = (uint16_t)size;
    return size;
}

uint32_t record_raw_seal(uint8_t *octets)
{
    uint32_t size = record_raw_size(octets), checksum = checksum_of(octets, size);

    memcpy(octets + offsetof(struct raw_fixed, checksum), &checksum, sizeof(checksum));
    return size;
}

/* ---- decoding ---- */

static struct flow_address address_get(const struct raw_address *raw)
{
    struct flow_address address = {.family = raw->family, .port = raw->port};

    memcpy(address.ip, raw->ip, sizeof(raw->ip));
    return address;
}

static bool address_is_sane(const struct raw_address *raw)
{
    bool is_known = raw->family == FLOW_FAMILY_NONE || raw->family == FLOW_FAMILY_IP4 ||
                    raw->family == FLOW_FAMILY_IP6 || raw->family == FLOW_FAMILY_UNIX;

    return is_known && raw->zero == 0;
}

static void fixed_get(const struct raw_fixed *fixed, struct record *ret_record)
{
    *ret_record = (struct record){
        .kind = fixed->kind,
        .way = fixed->way,
        .code = fixed->code,
        .attempts = fixed->attempts,
        .flags = fixed->flags,
        .recipient_count = fixed->recipient_count,
        .shard = fixed->shard,
        .recipient_index = fixed->recipient_index,
        .connection_use = fixed->connection_use,
        .time = fixed->time,
        .id = fixed->id,
        .size = fixed->size_of_message,
        .session = fixed->session,
        .sequence = fixed->sequence,
        .source = address_get(&fixed->source),
        .peer = address_get(&fixed->peer),
    };
    memcpy(ret_record->enhanced, fixed->enhanced, sizeof(fixed->enhanced));
    memcpy(ret_record->delays_ms, fixed->delays_ms, sizeof(fixed->delays_ms));
}

/* Of zeroed texts. */
static bool texts_get(const uint8_t *octets, uint32_t size, struct record *record)
{
    uint32_t at = FIXED_SIZE;

    for (uint32_t i = 0; i < TEXT_COUNT; i++) {
        if (at >= size)
            return false;
        uint32_t length = octets[at++];
        char *text = (char *)record + texts[i].offset;
        if (length >= texts[i].size || length > size - at ||
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

/* The size of a whole record at the front, that is as it was sealed. */
static enum err size_get(struct span octets, uint32_t *ret_size)
{
    if (octets.size == 0)
        return ERR_AGAIN;
    if (octets.data[0] != MAGIC_FIRST || (octets.size > 1 && octets.data[1] != MAGIC_SECOND))
        return ERR_PEER_SYNTAX;
    if (octets.size < HEADER_SIZE)
        return ERR_AGAIN;
    uint32_t checksum, size = record_raw_size(octets.data);
    if (size < RECORD_RAW_SIZE_MIN || size > RECORD_RAW_SIZE_MAX)
        return ERR_PEER_SYNTAX;
    if (octets.size < size)
        return ERR_AGAIN;
    memcpy(&checksum, octets.data + offsetof(struct raw_fixed, checksum), sizeof(checksum));
    *ret_size = size;
    return checksum_of(octets.data, size) == checksum ? ERR_OK : ERR_PEER_SYNTAX;
}

enum err record_raw_decode(struct span octets, struct record *ret_record, uint32_t *ret_size)
{
    uint32_t size;
    struct raw_fixed fixed;
    struct record record;

    TRY(size_get(octets, &size));
    memcpy(&fixed, octets.data, sizeof(fixed));
    fixed_get(&fixed, &record);
    if (!is_sane(&record) || !address_is_sane(&fixed.source) || !address_is_sane(&fixed.peer) ||
        !texts_get(octets.data, size, &record))
        return ERR_PEER_SYNTAX;
    *ret_record = record;
    *ret_size = size;
    return ERR_OK;
}

void record_raw_unpack(const uint8_t *octets, struct record *ret_record)
{
    struct raw_fixed fixed;

    memcpy(&fixed, octets, sizeof(fixed));
    fixed_get(&fixed, ret_record);
    CHECK(texts_get(octets, fixed.size, ret_record));
}

uint32_t record_raw_whole(const char *octets, uint32_t size, uint32_t *ret_count)
{
    uint32_t whole = 0;

    *ret_count = 0;
    while (size - whole >= HEADER_SIZE) {
        uint32_t next = record_raw_size((const uint8_t *)octets + whole);
        CHECK(next >= RECORD_RAW_SIZE_MIN && next <= RECORD_RAW_SIZE_MAX);
        if (size - whole < next)
            break;
        whole += next;
        *ret_count += 1;
    }
    return whole;
}
