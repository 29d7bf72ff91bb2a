/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of an envelope, and its encoded form:
 *
 *     format u8 (1)
 *     class u8
 *     notify u8           enum envelope_notify of all recipients; 0x40: one left it unsaid; 0x80:
 *                         null sender
 *     flags, arrived, lifetime (expires - arrived), body_size        numbers
 *     source_pool, sender_domain                                     strings
 *     delivery_count                                                 number, 1 to 32
 *         domain          string, 1 to 255 octets, of each, in the order of their first recipients
 *     run_count                                                      number, 1 to 64
 *         delivery, count numbers, of each
 *
 * A number is 1 to 10 octets of 7 bits, the lowest first, the last one below 0x80 and not 0 unless
 * it is alone. A string is its size, a number, and its octets.
 *
 * Invariants
 *   1. Every recipient is in one run; runs that touch are of different deliveries, and the first
 *      run of a delivery comes behind those of the deliveries before it.
 *   2. What decodes, encodes to the same octets. Every field has one spelling.
 *
 * Limits: ENVELOPE_INDEX_SIZE_MAX and both counts; an envelope beyond them has no index.
 * Not here: checksums (the spool's).
 */
#include "queue/envelope_index.h"

#define INDEX_FORMAT      1u
#define INDEX_NOTIFY_OPEN 0x40u
#define INDEX_NULL_SENDER 0x80u
#define INDEX_NOTIFY_ALL                                                                           \
    ((unsigned)ENVELOPE_NOTIFY_NEVER | ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE |         \
     ENVELOPE_NOTIFY_DELAY)

/* ---- numbers and strings ---- */

static uint32_t number_size(uint64_t value)
{
    return (70 - (uint32_t)__builtin_clzll(value | 1)) / 7;
}

static uint8_t *put_number(uint8_t *to, uint64_t value)
{
    for (; value >= 0x80; value >>= 7)
        *to++ = (uint8_t)(value | 0x80);
    *to++ = (uint8_t)value;
    return to;
}

static uint32_t string_size(struct span string)
{
    return number_size(string.size) + string.size;
}

static uint8_t *put_string(uint8_t *to, struct span string)
{
    to = put_number(to, string.size);
    if (string.size > 0)
        memcpy(to, string.data, string.size);
    return to + string.size;
}

static bool take_long_number(struct span *rest, uint64_t max, uint64_t *ret_value)
{
    const uint8_t *data = rest->data;
    uint32_t limit = rest->size < 10 ? rest->size : 10, i = 0;
    uint64_t value = 0;

    while (i < limit && data[i] >= 0x80) {
        value |= (uint64_t)(data[i] & 0x7fu) << 7 * i;
        i++;
    }
    if (i == limit || (i == 9 && data[i] > 1) || (i > 0 && data[i] == 0))
        return false;
    value |= (uint64_t)data[i] << 7 * i;
    if (value > max)
        return false;
    *rest = (struct span){data + i + 1, rest->size - i - 1};
    *ret_value = value;
    return true;
}

/* Cut a number off `rest`; false when there is none, it does not fit or is above `max`. Most are of
 * one octet, and a start takes ten for each message. */
static inline bool take_number(struct span *rest, uint64_t max, uint64_t *ret_value)
{
    if (rest->size == 0 || rest->data[0] >= 0x80 || rest->data[0] > max)
        return take_long_number(rest, max, ret_value);
    *ret_value = rest->data[0];
    *rest = (struct span){rest->data + 1, rest->size - 1};
    return true;
}

static inline bool take_string(struct span *rest, uint32_t size_min, uint32_t size_max,
                               struct span *ret_string)
{
    uint64_t size;

    if (!take_number(rest, size_max, &size) || size < size_min || size > rest->size)
        return false;
    *ret_string = span_head(*rest, (uint32_t)size);
    *rest = span_skip(*rest, (uint32_t)size);
    return true;
}

/* ---- from an envelope ---- */

/* What follows the last '@'. */
static struct span sender_domain_of(struct span sender)
{
    const uint8_t *at = sender.size == 0 ? NULL : memrchr(sender.data, '@', sender.size);

    return at == NULL ? (struct span){0} : span_skip(sender, (uint32_t)(at + 1 - sender.data));
}

/* The place of its domain among the deliveries, the next free one when it is new. */
static uint32_t delivery_place(const struct envelope_index *index, struct span domain)
{
    uint32_t place = index->run_count == 0 ? 0 : index->runs[index->run_count - 1].delivery;

    if (place < index->delivery_count && span_is_equal(index->deliveries[place].domain, domain))
        return place;
    for (place = 0; place < index->delivery_count; place++) {
        if (span_is_equal(index->deliveries[place].domain, domain))
            break;
    }
    return place;
}

/* The next recipient is of the delivery at `place`. False when there is no room for its run. */
static bool run_add(struct envelope_index *index, uint32_t place, uint32_t count)
{
    struct envelope_index_run *last =
        index->run_count == 0 ? NULL : &index->runs[index->run_count - 1];

    index->deliveries[place].count += count;
    index->recipient_count += count;
    if (last != NULL && last->delivery == place) {
        last->count = (uint16_t)(last->count + count);
        return true;
    }
    if (index->run_count == ENVELOPE_INDEX_RUN_MAX)
        return false;
    index->runs[index->run_count++] = (struct envelope_index_run){(uint16_t)place, (uint16_t)count};
    return true;
}

static bool recipient_add(struct envelope_index *index, const struct envelope_recipient *recipient)
{
    uint32_t place = delivery_place(index, recipient->domain);

    if (recipient->state != RECIPIENT_DUE || place == ENVELOPE_INDEX_DELIVERY_MAX)
        return false;
    if (place == index->delivery_count) {
        index->deliveries[index->delivery_count++] = (struct envelope_index_delivery){
            .domain = recipient->domain, .first = index->recipient_count};
    }
    index->notify |= recipient->notify;
    index->is_notify_open |= recipient->notify == 0;
    return run_add(index, place, 1);
}

bool envelope_index_of(const struct envelope *envelope, struct envelope_index *ret_index)
{
    /* Every accepted message comes here: of the arrays only what is used is written. */
    memset(ret_index, 0, offsetof(struct envelope_index, deliveries));
    ret_index->id = envelope->id;
    ret_index->arrived = envelope->arrived;
    ret_index->expires = envelope->expires;
    ret_index->body_size = envelope->body_size;
    ret_index->flags = envelope->flags;
    ret_index->class = envelope->class;
    ret_index->is_null_sender = envelope->sender.size == 0;
    ret_index->source_pool = envelope->source_pool;
    ret_index->sender_domain = sender_domain_of(envelope->sender);
    for (uint32_t i = 0; i < envelope->recipient_count; i++) {
        if (!recipient_add(ret_index, &envelope->recipients[i]))
            return false;
    }
    return envelope_index_encoded_size(ret_index) <= ENVELOPE_INDEX_SIZE_MAX;
}

uint32_t envelope_index_find(const struct envelope_index *index, uint32_t recipient_index)
{
    uint32_t end = 0;

    CHECK(recipient_index < index->recipient_count);
    for (uint32_t i = 0; i < index->run_count; i++) {
        end += index->runs[i].count;
        if (recipient_index < end)
            return index->runs[i].delivery;
    }
    CHECK(false); /* runs hold all recipients */
}

/* ---- encoded ---- */

uint32_t envelope_index_encoded_size(const struct envelope_index *index)
{
    uint32_t size = 3 + number_size(index->flags) + number_size((uint64_t)index->arrived) +
                    number_size((uint64_t)(index->expires - index->arrived)) +
                    number_size(index->body_size) + string_size(index->source_pool) +
                    string_size(index->sender_domain) + number_size(index->delivery_count) +
                    number_size(index->run_count);

    for (uint32_t i = 0; i < index->delivery_count; i++)
        size += string_size(index->deliveries[i].domain);
    for (uint32_t i = 0; i < index->run_count; i++)
        size += number_size(index->runs[i].delivery) + number_size(index->runs[i].count);
    return size;
}

/* Returns the end. */
static uint8_t *index_put(const struct envelope_index *index, uint8_t *to)
{
    *to++ = INDEX_FORMAT;
    *to++ = index->class;
    *to++ = (uint8_t)(index->notify | (index->is_notify_open ? INDEX_NOTIFY_OPEN : 0u) |
                      (index->is_null_sender ? INDEX_NULL_SENDER : 0u));
    to = put_number(to, index->flags);
    to = put_number(to, (uint64_t)index->arrived);
    to = put_number(to, (uint64_t)(index->expires - index->arrived));
    to = put_number(to, index->body_size);
    to = put_string(to, index->source_pool);
    to = put_string(to, index->sender_domain);
    to = put_number(to, index->delivery_count);
    for (uint32_t i = 0; i < index->delivery_count; i++)
        to = put_string(to, index->deliveries[i].domain);
    to = put_number(to, index->run_count);
    for (uint32_t i = 0; i < index->run_count; i++) {
        to = put_number(to, index->runs[i].delivery);
        to = put_number(to, index->runs[i].count);
    }
    return to;
}

void envelope_index_encode(const struct envelope_index *index, uint8_t *ret_data)
{
    uint32_t size = envelope_index_encoded_size(index);

    CHECK(size <= ENVELOPE_INDEX_SIZE_MAX);
    CHECK(index_put(index, ret_data) == ret_data + size);
}

static bool head_decode(struct span *rest, struct envelope_index *index)
{
    uint64_t flags, arrived, lifetime, body_size;

    if (rest->size < 3 || rest->data[0] != INDEX_FORMAT)
        return false;
    uint8_t notify = rest->data[2];
    index->class = rest->data[1];
    index->notify = (uint8_t)(notify & INDEX_NOTIFY_ALL);
    index->is_notify_open = (notify & INDEX_NOTIFY_OPEN) != 0;
    index->is_null_sender = (notify & INDEX_NULL_SENDER) != 0;
    *rest = span_skip(*rest, 3);
    if ((notify & ~(INDEX_NOTIFY_ALL | INDEX_NOTIFY_OPEN | INDEX_NULL_SENDER)) != 0 ||
        !take_number(rest, UINT32_MAX, &flags) || !take_number(rest, INT64_MAX, &arrived) ||
        !take_number(rest, (uint64_t)INT64_MAX - arrived, &lifetime) ||
        !take_number(rest, UINT64_MAX, &body_size))
        return false;
    index->flags = (uint32_t)flags;
    index->arrived = (wall_us)arrived;
    index->expires = (wall_us)(arrived + lifetime);
    index->body_size = body_size;
    return take_string(rest, 0, ENVELOPE_POOL_SIZE_MAX, &index->source_pool) &&
           take_string(rest, 0, ENVELOPE_ADDRESS_SIZE_MAX, &index->sender_domain) &&
           (!index->is_null_sender || index->sender_domain.size == 0);
}

static bool deliveries_decode(struct span *rest, struct envelope_index *index)
{
    uint64_t count;

    if (!take_number(rest, ENVELOPE_INDEX_DELIVERY_MAX, &count) || count == 0)
        return false;
    for (; index->delivery_count < count; index->delivery_count++) {
        struct span domain;
        if (!take_string(rest, 1, ENVELOPE_DOMAIN_SIZE_MAX, &domain))
            return false;
        for (uint32_t i = 0; i < index->delivery_count; i++) {
            if (span_is_equal(index->deliveries[i].domain, domain))
                return false;
        }
        index->deliveries[index->delivery_count] =
            (struct envelope_index_delivery){.domain = domain};
    }
    return true;
}

static bool runs_decode(struct span *rest, struct envelope_index *index)
{
    uint64_t run_count, place, count;
    uint32_t known = 0; /* deliveries that have a run already */

    if (!take_number(rest, ENVELOPE_INDEX_RUN_MAX, &run_count))
        return false;
    while (index->run_count < run_count) {
        uint32_t before = index->run_count;
        if (!take_number(rest, index->delivery_count - 1, &place) || place > known ||
            !take_number(rest, ENVELOPE_RECIPIENT_MAX - index->recipient_count, &count) ||
            count == 0)
            return false;
        if (place == known)
            index->deliveries[known++].first = index->recipient_count;
        if (!run_add(index, (uint32_t)place, (uint32_t)count) || index->run_count == before)
            return false; /* it is of the delivery before it: one spelling */
    }
    return known == index->delivery_count;
}

enum err envelope_index_decode(struct span encoded, struct message_id id,
                               struct envelope_index *ret_index)
{
    struct span rest = encoded;

    /* A start does this for every message: of the arrays only what is used is written. */
    memset(ret_index, 0, offsetof(struct envelope_index, deliveries));
    ret_index->id = id;
    if (encoded.size > ENVELOPE_INDEX_SIZE_MAX || !head_decode(&rest, ret_index) ||
        !deliveries_decode(&rest, ret_index) || !runs_decode(&rest, ret_index) || rest.size > 0)
        return ERR_DISK_CORRUPT;
    return ERR_OK;
}

uint32_t envelope_index_make(struct span envelope, struct arena *arena,
                             uint8_t ret_data[ENVELOPE_INDEX_SIZE_MAX])
{
    struct envelope decoded;
    struct envelope_index index UNINITIALIZED;

    arena_reset(arena);
    if (envelope_decode(envelope, arena, &decoded) != ERR_OK ||
        !envelope_index_of(&decoded, &index))
        return 0;
    return (uint32_t)(index_put(&index, ret_data) - ret_data); /* it fits: it has one */
}
