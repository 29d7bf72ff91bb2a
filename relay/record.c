/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of what happened to mail are fixed in size: text is cut to its field and always ends in a
 * NUL. What the octets are is the writer's business, who escapes them.
 */
#include "relay/record.h"

#include <inttypes.h>
#include <stdio.h>

#define TEXT(field)                                                                                \
    {                                                                                              \
        offsetof(struct record, field), sizeof(((struct record *)NULL)->field)                     \
    }
const struct record_field record_texts[RECORD_TEXT_COUNT] = {
    TEXT(tls),  TEXT(host),   TEXT(site),      TEXT(source_name),
    TEXT(user), TEXT(sender), TEXT(recipient), TEXT(text),
};

void record_text(char *ret_field, uint32_t field_size, struct span text)
{
    CHECK(field_size > 0);
    uint32_t size = text.size < field_size ? text.size : field_size - 1;
    if (size > 0)
        memcpy(ret_field, text.data, size);
    ret_field[size] = '\0';
}

/* ---- packed ---- */

#define TEXTS offsetof(struct record, tls)
#define WORD  8u /* octets moved at a time */

static inline uint64_t lowest_bits(uint64_t word)
{
    return word & 0x7f7f7f7f7f7f7f7full;
}

/* The top bit of each octet that is NUL, and no other. */
static inline uint64_t nuls_find(uint64_t word)
{
    return ~((lowest_bits(word) + 0x7f7f7f7f7f7f7f7full) | word | 0x7f7f7f7f7f7f7f7full);
}

/* Move a text with its NUL, and up to seven octets behind it. Returns its size, NUL included. */
static inline uint32_t text_move(uint8_t *ret_text, const uint8_t *text)
{
    for (uint32_t done = 0;; done += WORD) {
        uint64_t word;
        memcpy(&word, text + done, WORD);
        memcpy(ret_text + done, &word, WORD);
        uint64_t nuls = nuls_find(word);
        if (nuls != 0)
            return done + (uint32_t)__builtin_ctzll(nuls) / 8 + 1;
    }
}

/* Fields are whole words, so a word that begins in one ends in it; and no text is further ahead
 * packed than it is in a record. */
_Static_assert(sizeof(struct record) - TEXTS == 24 + 96 + 64 + 32 + 64 + 128 + 128 + 256,
               "nothing but texts, of whole words");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the first octet is the lowest");

void record_pack(const struct record *record, struct record *ret_packed)
{
    uint8_t *at = (uint8_t *)ret_packed + TEXTS;

    memcpy(ret_packed, record, TEXTS);
    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++)
        at += text_move(at, (const uint8_t *)record + record_texts[i].offset);
}

void record_unpack(const struct record *packed, struct record *ret_record)
{
    const uint8_t *at = (const uint8_t *)packed + TEXTS;

    memcpy(ret_record, packed, TEXTS);
    for (uint32_t i = 0; i < RECORD_TEXT_COUNT; i++)
        at += text_move((uint8_t *)ret_record + record_texts[i].offset, at);
}

/* ---- events ---- */

/* 0: no event that a later run can name again. */
static char event_letter(uint32_t kind)
{
    switch (kind) {
    case RECORD_RECEPTION:
        return 'r';
    case RECORD_DELIVERY:
        return 'd';
    case RECORD_BOUNCE:
        return 'b';
    case RECORD_EXPIRY:
        return 'x';
    default:
        return 0;
    }
}

const char *record_event_format(const struct record *record, char ret_text[RECORD_EVENT_SIZE])
{
    char letter = event_letter(record->kind), id[MESSAGE_ID_TEXT_SIZE];

    if (letter == 0)
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%" PRIx64 "-%u-%" PRIu64,
                       (uint64_t)record->time, record->shard, record->sequence);
    else if (record->kind == RECORD_RECEPTION)
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%s-r", message_id_format(record->id, id));
    else
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%s-%c%u", message_id_format(record->id, id),
                       letter, record->recipient_index);
    return ret_text;
}
