/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The durable form of envelopes and of their progress: the payloads of the spool's MESSAGE and
 * PROGRESS records. Both are sequences of TLVs
 *
 *     type u8, length u32, `length` octets of value
 *
 * with every number little-endian and nothing aligned. A string that is empty has no TLV.
 *
 * Types below 128 must be understood: a new one comes with a new version of the spool's format
 * (spool_record.h), which older programs refuse as a whole, so that none of them sends what the
 * newer one had held, or tries again what it had ended. One that is met all the same, in a version
 * that we read, is damage. Types from 128 on may be left out by who does not know them, and may be
 * added to a version: nothing that decides what becomes of a recipient goes there.
 *
 * MESSAGE, types in rising order
 *    1 BASIC (first, once), 49 octets:
 *        0 id.high u64       8 id.low u64        16 arrived i64       24 expires i64
 *       32 body_size u64    40 header_size u32   44 flags u32         48 class u8
 *    2 SENDER (at most once)       1 to 512 octets; absent: the null sender
 *    3 CLIENT (at most once)       1 to 1024 octets
 *    4 SOURCE_POOL (at most once)  1 to 255 octets; absent: the default pool
 *    5 RECIPIENT (1 to 10,000 times, in order: its position is its index)
 *        0 state u8          1 address_size u16    3 address, 1 to 512 octets
 *        then the domain, 0 to 255 octets; absent when it equals what follows the last '@' of the
 *        address
 *    6 ENVID (at most once)        1 to 100 octets
 *    7 RECIPIENT_DSN (for recipients of which something was said, by rising index)
 *        0 recipient_index u32    4 notify u8    5 ORCPT, 0 to 500 octets
 *    8 PREFIX (at most once)       1 to 16,384 octets of header fields that go out ahead of the
 *                                  body
 *    9 USER (at most once)         1 to 255 octets: who was logged in
 *   10 to 127: damage
 *  128 to 255: unknown here, behind all others; kept verbatim and written back
 *
 * PROGRESS, types in rising order
 *    1 BASIC (first, once), 24 octets:
 *        0 next_try i64      8 attempts u32       12 flags u32
 *       16 delivery u32     20 dsn_runs u32
 *    2 LAST_REPLY (at most once)   1 to 1,000 octets
 *    3 SETTLE (0 to 10,000 times)
 *        0 recipient_index u32    4 state u8    5 code u16    7 enhanced u8[3]
 *       10 is_expired u8, 0 or 1 11 reply, 0 to 1,000 octets
 *    4 HOLD (at most once)         the delivery is held until next_try, by order u32, not 0
 *    5 ROUTE (at most once)        1 to 255 octets: the domain that the delivery is routed by
 *    6 WISH (0 to 10,000 times)    as SETTLE: what becomes of the recipient, FAILED or SETTLED, if
 *                                  no SETTLE of any record says otherwise
 *    7 TOLD (at most once), 12 octets: of which settles a record tells
 *        0 time i64, not 0        8 count u32: the first so many, and those that are expired
 *    8 to 127: damage
 *  128 to 255: unknown here, behind all others; passed over
 *
 * Invariants
 *   1. One definition of valid for both directions: envelope_is_valid() and
 *      envelope_progress_is_valid(). The encoder CHECKs it, the decoder answers ERR_DISK_CORRUPT.
 *   2. What decodes, encodes to the same octets. Every field has one spelling.
 *   3. The offsets of BASIC and of a recipient's state never change during the life of an encoded
 *      copy: envelope_patch_state(), envelope_patch_flags() and envelope_patch_sizes() write in
 *      place.
 *
 * Not here: checksums (the spool's), whether an index exists in a message (qmgr_recover.c).
 */
#include "queue/envelope.h"

#include <stdlib.h>

#define TLV_HEADER_SIZE          5u
#define BASIC_SIZE               49u
#define BASIC_BODY_SIZE_OFFSET   (TLV_HEADER_SIZE + 32u)
#define BASIC_HEADER_SIZE_OFFSET (TLV_HEADER_SIZE + 40u)
#define BASIC_FLAGS_OFFSET       (TLV_HEADER_SIZE + 44u)
#define RECIPIENT_FIXED_SIZE     3u
#define RECIPIENT_DSN_SIZE       5u
#define PROGRESS_BASIC_SIZE      24u
#define PROGRESS_SETTLE_SIZE     11u
#define PROGRESS_HOLD_SIZE       4u
#define PROGRESS_TOLD_SIZE       12u
#define PROGRESS_ATTEMPTS_LIMIT  (1u << 30)

enum envelope_tlv {
    ENVELOPE_TLV_BASIC = 1,
    ENVELOPE_TLV_SENDER,
    ENVELOPE_TLV_CLIENT,
    ENVELOPE_TLV_SOURCE_POOL,
    ENVELOPE_TLV_RECIPIENT,
    ENVELOPE_TLV_ENVID,
    ENVELOPE_TLV_RECIPIENT_DSN,
    ENVELOPE_TLV_PREFIX,
    ENVELOPE_TLV_USER,
};

enum progress_tlv {
    PROGRESS_TLV_BASIC = 1,
    PROGRESS_TLV_LAST_REPLY,
    PROGRESS_TLV_SETTLE,
    PROGRESS_TLV_HOLD,
    PROGRESS_TLV_ROUTE,
    PROGRESS_TLV_WISH,
    PROGRESS_TLV_TOLD,
};

#define TLV_OPTIONAL_MIN 128u /* of both */

/* ---- little-endian octets ---- */

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "octets lie as they do in the format");

static uint8_t *put(uint8_t *to, uint64_t value, uint32_t size)
{
    memcpy(to, &value, size);
    return to + size;
}

static uint64_t get(const uint8_t *from, uint32_t size)
{
    uint64_t value = 0;

    memcpy(&value, from, size);
    return value;
}

static uint8_t *put_octets(uint8_t *to, struct span octets)
{
    if (octets.size > 0)
        memcpy(to, octets.data, octets.size);
    return to + octets.size;
}

static uint8_t *put_tlv(uint8_t *to, uint8_t type, uint32_t size)
{
    *to = type;
    return put(to + 1, size, 4);
}

static uint8_t *put_text_tlv(uint8_t *to, uint8_t type, struct span text)
{
    if (text.size == 0)
        return to;
    return put_octets(put_tlv(to, type, text.size), text);
}

static uint32_t text_tlv_size(struct span text)
{
    return text.size == 0 ? 0 : TLV_HEADER_SIZE + text.size;
}

/* Cut the first TLV off `rest`. False when there is no whole one. */
static bool tlv_next(struct span *rest, uint8_t *ret_type, struct span *ret_value)
{
    if (rest->size < TLV_HEADER_SIZE)
        return false;
    uint32_t size = (uint32_t)get(rest->data + 1, 4);
    if (size > rest->size - TLV_HEADER_SIZE)
        return false;
    *ret_type = rest->data[0];
    *ret_value = span_of(rest->data + TLV_HEADER_SIZE, size);
    *rest = span_skip(*rest, TLV_HEADER_SIZE + size);
    return true;
}

/* Only whole TLVs that need not be understood. */
static bool tlvs_are_optional(struct span rest)
{
    while (rest.size > 0) {
        uint8_t type;
        struct span value;
        if (!tlv_next(&rest, &type, &value) || type < TLV_OPTIONAL_MIN)
            return false;
    }
    return true;
}

/* ---- what is valid ---- */

/* NUL, CR and LF would end a command line early: an address from a damaged disk must not become
 * SMTP commands. */
static bool text_is_clean(struct span text)
{
    if (!span_has_control(text))
        return true;
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        if (octet == '\0' || octet == '\r' || octet == '\n')
            return false;
    }
    return true;
}

static bool text_is_valid(struct span text, uint32_t size_min, uint32_t size_max)
{
    if (text.size == 0)
        return size_min == 0;
    return text.size >= size_min && text.size <= size_max && text_is_clean(text);
}

/*
 * Lines of tabs and printable ASCII that end in CRLF and do not begin with a dot: they mean the
 * same after DATA and after BDAT, to servers with and without 8BITMIME. The first begins a field,
 * no line is the empty one.
 */
static bool prefix_is_valid(struct span prefix)
{
    bool is_line_start = true;

    if (prefix.size > ENVELOPE_PREFIX_SIZE_MAX)
        return false;
    for (uint32_t i = 0; i < prefix.size; i++) {
        uint8_t octet = prefix.data[i];
        bool is_space = octet == ' ' || octet == '\t';
        if (octet == '\r') {
            i++;
            if (is_line_start || i == prefix.size || prefix.data[i] != '\n')
                return false;
            is_line_start = true;
            continue;
        }
        if ((octet < ' ' && octet != '\t') || octet > '~' || (octet == '.' && is_line_start) ||
            (is_space && i == 0))
            return false;
        is_line_start = false;
    }
    return is_line_start;
}

/* NEVER stands alone (RFC 3461 section 4.1). */
static bool notify_is_valid(uint8_t notify)
{
    const uint8_t others =
        ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY;

    return notify == ENVELOPE_NOTIFY_NEVER || (notify & ~others) == 0;
}

static bool recipient_is_valid(const struct envelope_recipient *recipient)
{
    return (uint32_t)recipient->state < RECIPIENT_STATE_COUNT &&
           notify_is_valid(recipient->notify) &&
           text_is_valid(recipient->orcpt, 0, ENVELOPE_ORCPT_SIZE_MAX) &&
           text_is_valid(recipient->address, 1, ENVELOPE_ADDRESS_SIZE_MAX) &&
           text_is_valid(recipient->domain, 1, ENVELOPE_DOMAIN_SIZE_MAX);
}

/* But for its size as a whole. */
static bool parts_are_valid(const struct envelope *envelope)
{
    if (envelope->arrived < 0 || envelope->expires < envelope->arrived ||
        envelope->header_size > envelope->body_size ||
        envelope->prefix.size > envelope->header_size || !prefix_is_valid(envelope->prefix))
        return false;
    if (!text_is_valid(envelope->sender, 0, ENVELOPE_ADDRESS_SIZE_MAX) ||
        !text_is_valid(envelope->client, 0, ENVELOPE_CLIENT_SIZE_MAX) ||
        !text_is_valid(envelope->envid, 0, ENVELOPE_ENVID_SIZE_MAX) ||
        !text_is_valid(envelope->source_pool, 0, ENVELOPE_POOL_SIZE_MAX) ||
        !text_is_valid(envelope->user, 0, ENVELOPE_USER_SIZE_MAX))
        return false;
    if (envelope->recipient_count == 0 || envelope->recipient_count > ENVELOPE_RECIPIENT_MAX)
        return false;
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        if (!recipient_is_valid(&envelope->recipients[i]))
            return false;
    }
    return envelope->unknown.size <= ENVELOPE_SIZE_MAX && tlvs_are_optional(envelope->unknown);
}

bool envelope_is_valid(const struct envelope *envelope)
{
    return parts_are_valid(envelope) && envelope_encoded_size(envelope) <= ENVELOPE_SIZE_MAX;
}

static bool settle_is_valid(const struct envelope_settle *settle)
{
    return settle->recipient_index < ENVELOPE_RECIPIENT_MAX &&
           (uint32_t)settle->state < RECIPIENT_STATE_COUNT &&
           text_is_valid(settle->reply, 0, ENVELOPE_REPLY_SIZE_MAX);
}

/* An operator wants recipients to end, and never that they were delivered. */
static bool wish_is_valid(const struct envelope_settle *wish)
{
    return settle_is_valid(wish) &&
           (wish->state == RECIPIENT_FAILED || wish->state == RECIPIENT_SETTLED);
}

bool envelope_progress_is_valid(const struct envelope_progress *progress)
{
    if (progress->next_try < 0 || progress->told_time < 0 ||
        (progress->told_time == 0 && progress->told_count > 0) ||
        progress->attempts > PROGRESS_ATTEMPTS_LIMIT ||
        progress->dsn_runs > PROGRESS_ATTEMPTS_LIMIT ||
        progress->settle_count > ENVELOPE_RECIPIENT_MAX ||
        progress->wish_count > ENVELOPE_RECIPIENT_MAX ||
        !text_is_valid(progress->last_reply, 0, ENVELOPE_REPLY_SIZE_MAX) ||
        !text_is_valid(progress->route, 0, ENVELOPE_DOMAIN_SIZE_MAX))
        return false;
    if (progress->delivery >= ENVELOPE_RECIPIENT_MAX &&
        progress->delivery != ENVELOPE_DELIVERY_NONE)
        return false;
    for (uint32_t i = 0; i < progress->settle_count; i++) {
        if (!settle_is_valid(&progress->settles[i]))
            return false;
    }
    for (uint32_t i = 0; i < progress->wish_count; i++) {
        if (!wish_is_valid(&progress->wishes[i]))
            return false;
    }
    return envelope_progress_encoded_size(progress) <= ENVELOPE_SIZE_MAX;
}

/* ---- envelopes ---- */

/* What follows the last '@'; empty when there is none. */
static struct span address_domain(struct span address)
{
    const uint8_t *at = memrchr(address.data, '@', address.size);

    if (at == NULL)
        return (struct span){NULL, 0};
    return span_skip(address, (uint32_t)(at + 1 - address.data));
}

/* The domain as it is written: not at all when the address shows it. */
static struct span recipient_written_domain(const struct envelope_recipient *recipient)
{
    if (span_is_equal(address_domain(recipient->address), recipient->domain))
        return (struct span){NULL, 0};
    return recipient->domain;
}

static uint32_t recipient_size(const struct envelope_recipient *recipient)
{
    return RECIPIENT_FIXED_SIZE + recipient->address.size +
           recipient_written_domain(recipient).size;
}

static bool recipient_has_dsn(const struct envelope_recipient *recipient)
{
    return recipient->notify != 0 || recipient->orcpt.size > 0;
}

uint32_t envelope_encoded_size(const struct envelope *envelope)
{
    uint32_t size = TLV_HEADER_SIZE + BASIC_SIZE + text_tlv_size(envelope->sender) +
                    text_tlv_size(envelope->client) + text_tlv_size(envelope->source_pool) +
                    text_tlv_size(envelope->envid) + text_tlv_size(envelope->prefix) +
                    text_tlv_size(envelope->user) + envelope->unknown.size;

    CHECK(envelope->recipient_count <= ENVELOPE_RECIPIENT_MAX);
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        size += TLV_HEADER_SIZE + recipient_size(recipient);
        if (recipient_has_dsn(recipient))
            size += TLV_HEADER_SIZE + RECIPIENT_DSN_SIZE + recipient->orcpt.size;
    }
    return size;
}

static uint8_t *put_basic(uint8_t *to, const struct envelope *envelope)
{
    to = put_tlv(to, ENVELOPE_TLV_BASIC, BASIC_SIZE);
    to = put(to, envelope->id.high, 8);
    to = put(to, envelope->id.low, 8);
    to = put(to, (uint64_t)envelope->arrived, 8);
    to = put(to, (uint64_t)envelope->expires, 8);
    to = put(to, envelope->body_size, 8);
    to = put(to, envelope->header_size, 4);
    to = put(to, envelope->flags, 4);
    return put(to, envelope->class, 1);
}

static uint8_t *put_recipient_dsns(uint8_t *to, const struct envelope *envelope)
{
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        if (!recipient_has_dsn(recipient))
            continue;
        to = put_tlv(to, ENVELOPE_TLV_RECIPIENT_DSN, RECIPIENT_DSN_SIZE + recipient->orcpt.size);
        to = put(to, i, 4);
        to = put(to, recipient->notify, 1);
        to = put_octets(to, recipient->orcpt);
    }
    return to;
}

static void encode(const struct envelope *envelope, uint8_t *ret_data, uint32_t size)
{
    /* Our own bug if not: crash before it is durable. */
    CHECK(parts_are_valid(envelope) && size <= ENVELOPE_SIZE_MAX);
    uint8_t *to = put_basic(ret_data, envelope);
    to = put_text_tlv(to, ENVELOPE_TLV_SENDER, envelope->sender);
    to = put_text_tlv(to, ENVELOPE_TLV_CLIENT, envelope->client);
    to = put_text_tlv(to, ENVELOPE_TLV_SOURCE_POOL, envelope->source_pool);
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        const struct envelope_recipient *recipient = &envelope->recipients[i];
        struct span domain = recipient_written_domain(recipient);
        to = put_tlv(to, ENVELOPE_TLV_RECIPIENT,
                     RECIPIENT_FIXED_SIZE + recipient->address.size + domain.size);
        to = put(to, recipient->state, 1);
        to = put(to, recipient->address.size, 2);
        to = put_octets(to, recipient->address);
        to = put_octets(to, domain);
    }
    to = put_text_tlv(to, ENVELOPE_TLV_ENVID, envelope->envid);
    to = put_recipient_dsns(to, envelope);
    to = put_text_tlv(to, ENVELOPE_TLV_PREFIX, envelope->prefix);
    to = put_text_tlv(to, ENVELOPE_TLV_USER, envelope->user);
    to = put_octets(to, envelope->unknown);
    CHECK(to == ret_data + size);
}

void envelope_encode(const struct envelope *envelope, uint8_t *ret_data)
{
    encode(envelope, ret_data, envelope_encoded_size(envelope));
}

uint8_t *envelope_encode_new(const struct envelope *envelope, uint32_t *ret_size)
{
    uint32_t size = envelope_encoded_size(envelope);
    uint8_t *data = malloc(size);

    CHECK(data != NULL);
    encode(envelope, data, size);
    *ret_size = size;
    return data;
}

struct envelope_basic envelope_basic_get(const uint8_t *encoded)
{
    const uint8_t *basic = encoded + TLV_HEADER_SIZE;

    CHECK(encoded[0] == ENVELOPE_TLV_BASIC);
    return (struct envelope_basic){
        .id = {get(basic, 8), get(basic + 8, 8)},
        .arrived = (wall_us)get(basic + 16, 8),
        .expires = (wall_us)get(basic + 24, 8),
        .body_size = get(basic + 32, 8),
        .header_size = (uint32_t)get(basic + 40, 4),
        .flags = (uint32_t)get(basic + 44, 4),
        .class = basic[48],
    };
}

void envelope_patch_flags(uint8_t *encoded, uint32_t flags)
{
    CHECK(encoded[0] == ENVELOPE_TLV_BASIC);
    put(encoded + BASIC_FLAGS_OFFSET, flags, 4);
}

void envelope_patch_sizes(uint8_t *encoded, uint64_t body_size, uint32_t header_size)
{
    CHECK(encoded[0] == ENVELOPE_TLV_BASIC && header_size <= body_size);
    put(encoded + BASIC_BODY_SIZE_OFFSET, body_size, 8);
    put(encoded + BASIC_HEADER_SIZE_OFFSET, header_size, 4);
}

void envelope_patch_state(uint8_t *encoded, struct envelope_recipient *recipient,
                          enum recipient_state state)
{
    CHECK(recipient->address.data >= encoded + TLV_HEADER_SIZE + BASIC_SIZE + RECIPIENT_FIXED_SIZE);
    uint8_t *octet = encoded + (recipient->address.data - encoded) - RECIPIENT_FIXED_SIZE;
    CHECK(*octet == recipient->state);
    *octet = (uint8_t)state;
    recipient->state = state;
}

static bool recipient_decode(struct span value, struct envelope_recipient *ret_recipient)
{
    if (value.size < RECIPIENT_FIXED_SIZE)
        return false;
    uint32_t address_size = (uint32_t)get(value.data + 1, 2);
    if (address_size == 0 || address_size > value.size - RECIPIENT_FIXED_SIZE)
        return false;
    struct span address = span_of(value.data + RECIPIENT_FIXED_SIZE, address_size);
    struct span written = span_skip(value, RECIPIENT_FIXED_SIZE + address_size);
    struct span shown = address_domain(address);
    if (written.size > 0 && span_is_equal(written, shown))
        return false; /* the other spelling is the one we write */
    *ret_recipient = (struct envelope_recipient){
        .address = address,
        .domain = written.size > 0 ? written : shown,
        .state = (enum recipient_state)value.data[0],
    };
    return true;
}

/* How many of the TLVs in `rest` are of this type; stops at the first broken one. */
static uint32_t tlv_count(struct span rest, uint8_t type_wanted)
{
    uint32_t count = 0;
    uint8_t type;
    struct span value;

    while (tlv_next(&rest, &type, &value))
        count += type == type_wanted;
    return count;
}

/* Where a decoding is: the type of the TLV before, and the least index that may come next. */
struct decoding {
    uint8_t type;
    uint32_t dsn_index;
};

static bool recipient_dsn_decode(struct envelope *envelope, struct span value,
                                 struct decoding *decoding)
{
    if (value.size < RECIPIENT_DSN_SIZE)
        return false;
    uint32_t index = (uint32_t)get(value.data, 4);
    if (index < decoding->dsn_index || index >= envelope->recipient_count)
        return false;
    struct envelope_recipient *recipient = &envelope->recipients[index];
    recipient->notify = value.data[4];
    recipient->orcpt = span_skip(value, RECIPIENT_DSN_SIZE);
    decoding->dsn_index = index + 1;
    return recipient_has_dsn(recipient);
}

/* One TLV behind BASIC. */
static bool envelope_decode_tlv(struct envelope *envelope, uint8_t type, struct span value,
                                struct decoding *decoding)
{
    bool is_repeatable = type == ENVELOPE_TLV_RECIPIENT || type == ENVELOPE_TLV_RECIPIENT_DSN;

    if (type < decoding->type || (type == decoding->type && !is_repeatable) || value.size == 0)
        return false;
    decoding->type = type;
    switch (type) {
    case ENVELOPE_TLV_SENDER:
        envelope->sender = value;
        return true;
    case ENVELOPE_TLV_CLIENT:
        envelope->client = value;
        return true;
    case ENVELOPE_TLV_SOURCE_POOL:
        envelope->source_pool = value;
        return true;
    case ENVELOPE_TLV_ENVID:
        envelope->envid = value;
        return true;
    case ENVELOPE_TLV_PREFIX:
        envelope->prefix = value;
        return true;
    case ENVELOPE_TLV_USER:
        envelope->user = value;
        return true;
    case ENVELOPE_TLV_RECIPIENT_DSN:
        return recipient_dsn_decode(envelope, value, decoding);
    default:
        return recipient_decode(value, &envelope->recipients[envelope->recipient_count++]);
    }
}

static bool tlvs_decode(struct span rest, struct envelope *envelope)
{
    struct decoding decoding = {.type = ENVELOPE_TLV_BASIC};

    while (rest.size > 0) {
        struct span before = rest;
        uint8_t type;
        struct span value;
        if (!tlv_next(&rest, &type, &value))
            return false;
        if (type > ENVELOPE_TLV_USER) {
            envelope->unknown = before;
            return true; /* what follows is judged by envelope_is_valid() */
        }
        if (!envelope_decode_tlv(envelope, type, value, &decoding))
            return false;
    }
    return true;
}

static enum err decode(struct span encoded, struct arena *arena, bool is_known,
                       struct envelope *ret_envelope)
{
    struct span rest = encoded, value;
    uint8_t type;

    CHECK(arena != NULL && ret_envelope != NULL);
    if (encoded.size > ENVELOPE_SIZE_MAX || !tlv_next(&rest, &type, &value) ||
        type != ENVELOPE_TLV_BASIC || value.size != BASIC_SIZE)
        return ERR_DISK_CORRUPT;
    uint32_t recipient_count = tlv_count(rest, ENVELOPE_TLV_RECIPIENT);
    if (recipient_count == 0 || recipient_count > ENVELOPE_RECIPIENT_MAX)
        return ERR_DISK_CORRUPT;

    struct envelope_basic basic = envelope_basic_get(encoded.data);
    struct envelope envelope = {
        .id = basic.id,
        .arrived = basic.arrived,
        .expires = basic.expires,
        .body_size = basic.body_size,
        .header_size = basic.header_size,
        .flags = basic.flags,
        .class = basic.class,
        .recipients = arena_acquire(arena, recipient_count * sizeof(*envelope.recipients)),
    };
    if (envelope.recipients == NULL)
        return ERR_MEMORY;
    if (!tlvs_decode(rest, &envelope) || (!is_known && !envelope_is_valid(&envelope)))
        return ERR_DISK_CORRUPT;
    *ret_envelope = envelope;
    return ERR_OK;
}

enum err envelope_decode(struct span encoded, struct arena *arena, struct envelope *ret_envelope)
{
    return decode(encoded, arena, false, ret_envelope);
}

enum err envelope_decode_known(struct span encoded, struct arena *arena,
                               struct envelope *ret_envelope)
{
    return decode(encoded, arena, true, ret_envelope);
}

/* ---- progress ---- */

static uint32_t settle_size(const struct envelope_settle *settle)
{
    return TLV_HEADER_SIZE + PROGRESS_SETTLE_SIZE + settle->reply.size;
}

uint32_t envelope_progress_encoded_size(const struct envelope_progress *progress)
{
    uint32_t size = TLV_HEADER_SIZE + PROGRESS_BASIC_SIZE + text_tlv_size(progress->last_reply) +
                    text_tlv_size(progress->route);

    if (progress->hold_order > 0)
        size += TLV_HEADER_SIZE + PROGRESS_HOLD_SIZE;
    if (progress->told_time > 0)
        size += TLV_HEADER_SIZE + PROGRESS_TOLD_SIZE;
    CHECK(progress->settle_count <= ENVELOPE_RECIPIENT_MAX &&
          progress->wish_count <= ENVELOPE_RECIPIENT_MAX);
    for (uint32_t i = 0; i < progress->settle_count; i++)
        size += settle_size(&progress->settles[i]);
    for (uint32_t i = 0; i < progress->wish_count; i++)
        size += settle_size(&progress->wishes[i]);
    return size;
}

static uint8_t *put_settle(uint8_t *to, enum progress_tlv type,
                           const struct envelope_settle *settle)
{
    to = put_tlv(to, (uint8_t)type, PROGRESS_SETTLE_SIZE + settle->reply.size);
    to = put(to, settle->recipient_index, 4);
    to = put(to, settle->state, 1);
    to = put(to, settle->code, 2);
    to = put_octets(to, span_of(settle->enhanced, 3));
    to = put(to, settle->is_expired, 1);
    return put_octets(to, settle->reply);
}

void envelope_progress_encode(const struct envelope_progress *progress, uint8_t *ret_data)
{
    CHECK(envelope_progress_is_valid(progress));
    uint8_t *to = put_tlv(ret_data, PROGRESS_TLV_BASIC, PROGRESS_BASIC_SIZE);
    to = put(to, (uint64_t)progress->next_try, 8);
    to = put(to, progress->attempts, 4);
    to = put(to, progress->flags, 4);
    to = put(to, progress->delivery, 4);
    to = put(to, progress->dsn_runs, 4);
    to = put_text_tlv(to, PROGRESS_TLV_LAST_REPLY, progress->last_reply);
    for (uint32_t i = 0; i < progress->settle_count; i++)
        to = put_settle(to, PROGRESS_TLV_SETTLE, &progress->settles[i]);
    if (progress->hold_order > 0)
        to = put(put_tlv(to, PROGRESS_TLV_HOLD, PROGRESS_HOLD_SIZE), progress->hold_order,
                 PROGRESS_HOLD_SIZE);
    to = put_text_tlv(to, PROGRESS_TLV_ROUTE, progress->route);
    for (uint32_t i = 0; i < progress->wish_count; i++)
        to = put_settle(to, PROGRESS_TLV_WISH, &progress->wishes[i]);
    if (progress->told_time > 0) {
        to = put_tlv(to, PROGRESS_TLV_TOLD, PROGRESS_TOLD_SIZE);
        to = put(to, (uint64_t)progress->told_time, 8);
        to = put(to, progress->told_count, 4);
    }
    CHECK(to == ret_data + envelope_progress_encoded_size(progress));
}

static bool hold_decode(struct span value, uint32_t *ret_order)
{
    if (value.size != PROGRESS_HOLD_SIZE)
        return false;
    *ret_order = (uint32_t)get(value.data, PROGRESS_HOLD_SIZE);
    return *ret_order > 0; /* one spelling: absent when it is 0 */
}

static bool told_decode(struct span value, struct envelope_progress *progress)
{
    if (value.size != PROGRESS_TOLD_SIZE)
        return false;
    progress->told_time = (wall_us)get(value.data, 8);
    progress->told_count = (uint32_t)get(value.data + 8, 4);
    return progress->told_time > 0; /* one spelling: absent when it is 0 */
}

static bool settle_decode(struct span value, struct envelope_settle *ret_settle)
{
    if (value.size < PROGRESS_SETTLE_SIZE || value.data[10] > 1)
        return false;
    *ret_settle = (struct envelope_settle){
        .recipient_index = (uint32_t)get(value.data, 4),
        .state = (enum recipient_state)value.data[4],
        .code = (uint16_t)get(value.data + 5, 2),
        .enhanced = {value.data[7], value.data[8], value.data[9]},
        .is_expired = value.data[10] == 1,
        .reply = span_skip(value, PROGRESS_SETTLE_SIZE),
    };
    return true;
}

bool envelope_progress_is_retry(struct span encoded, uint32_t *ret_delivery)
{
    struct span rest = encoded, value;
    uint8_t type;

    if (!tlv_next(&rest, &type, &value) || type != PROGRESS_TLV_BASIC ||
        value.size != PROGRESS_BASIC_SIZE)
        return false;
    wall_us next_try = (wall_us)get(value.data, 8);
    uint32_t flags = (uint32_t)get(value.data + 12, 4);
    uint32_t delivery = (uint32_t)get(value.data + 16, 4);
    while (rest.size > 0) {
        if (!tlv_next(&rest, &type, &value) ||
            (type != PROGRESS_TLV_LAST_REPLY && type != PROGRESS_TLV_HOLD &&
             type != PROGRESS_TLV_ROUTE))
            return false;
    }
    *ret_delivery = delivery;
    return next_try > 0 && flags == 0 && delivery != ENVELOPE_DELIVERY_NONE;
}

/* One TLV behind BASIC. */
static bool progress_decode_tlv(uint8_t type, struct span value, struct envelope_settle *settles,
                                struct envelope_settle *wishes, struct envelope_progress *progress)
{
    switch (type) {
    case PROGRESS_TLV_LAST_REPLY:
        progress->last_reply = value;
        return true;
    case PROGRESS_TLV_SETTLE:
        return settle_decode(value, &settles[progress->settle_count++]);
    case PROGRESS_TLV_HOLD:
        return hold_decode(value, &progress->hold_order);
    case PROGRESS_TLV_ROUTE:
        progress->route = value;
        return true;
    case PROGRESS_TLV_TOLD:
        return told_decode(value, progress);
    default:
        return settle_decode(value, &wishes[progress->wish_count++]);
    }
}

/* TLVs behind BASIC. `settles` and `wishes` have room for all. */
static bool progress_decode_rest(struct span rest, struct envelope_settle *settles,
                                 struct envelope_settle *wishes, struct envelope_progress *progress)
{
    uint8_t place = PROGRESS_TLV_BASIC;

    while (rest.size > 0) {
        struct span before = rest, value;
        uint8_t type;
        if (!tlv_next(&rest, &type, &value) || type < place)
            return false;
        if (type > PROGRESS_TLV_TOLD)
            return tlvs_are_optional(before);
        bool is_repeatable = type == PROGRESS_TLV_SETTLE || type == PROGRESS_TLV_WISH;
        if (type == PROGRESS_TLV_BASIC || (type == place && !is_repeatable) || value.size == 0)
            return false;
        place = type;
        if (!progress_decode_tlv(type, value, settles, wishes, progress))
            return false;
    }
    return true;
}

enum err envelope_progress_decode(struct span encoded, struct arena *arena,
                                  struct envelope_progress *ret_progress)
{
    struct span rest = encoded, value;
    uint8_t type;

    CHECK(arena != NULL && ret_progress != NULL);
    if (encoded.size > ENVELOPE_SIZE_MAX || !tlv_next(&rest, &type, &value) ||
        type != PROGRESS_TLV_BASIC || value.size != PROGRESS_BASIC_SIZE)
        return ERR_DISK_CORRUPT;
    uint32_t settle_count = tlv_count(rest, PROGRESS_TLV_SETTLE);
    uint32_t wish_count = tlv_count(rest, PROGRESS_TLV_WISH);
    if (settle_count > ENVELOPE_RECIPIENT_MAX || wish_count > ENVELOPE_RECIPIENT_MAX)
        return ERR_DISK_CORRUPT;
    struct envelope_settle *settles = arena_acquire(arena, settle_count * sizeof(*settles));
    struct envelope_settle *wishes = arena_acquire(arena, wish_count * sizeof(*wishes));
    if (settles == NULL || wishes == NULL)
        return ERR_MEMORY;

    struct envelope_progress progress = {
        .next_try = (wall_us)get(value.data, 8),
        .attempts = (uint32_t)get(value.data + 8, 4),
        .flags = (uint32_t)get(value.data + 12, 4),
        .delivery = (uint32_t)get(value.data + 16, 4),
        .dsn_runs = (uint32_t)get(value.data + 20, 4),
        .settles = settles,
        .wishes = wishes,
    };
    if (!progress_decode_rest(rest, settles, wishes, &progress) ||
        !envelope_progress_is_valid(&progress))
        return ERR_DISK_CORRUPT;
    *ret_progress = progress;
    return ERR_OK;
}
