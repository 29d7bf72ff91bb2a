/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text form of a message id: 26 letters of base32 (RFC 4648 section 6, lower case, no padding)
 * over the 16 octets high, low in network order. It stands in `Received:` fields, logs and records,
 * so it must survive case folding and people's hands: parsing takes either case.
 *
 * 26 letters carry 130 bits; the last two are zero, and an id whose last letter says otherwise is
 * refused, so that every id has exactly one spelling up to case.
 */
#include "queue/envelope.h"

#define MESSAGE_ID_LETTERS (MESSAGE_ID_TEXT_SIZE - 1)

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

#define WORD_LETTERS 12u /* of the 60 upper bits of a word */

/* Letters of five bits each, from the most significant. */
static inline char *letters_put(char *at, uint64_t bits, uint32_t count)
{
#pragma GCC unroll 12
    for (uint32_t i = 0; i < count; i++)
        *at++ = alphabet[bits >> (59 - 5 * i) & 31u];
    return at;
}

const char *message_id_format(struct message_id id, char ret_text[MESSAGE_ID_TEXT_SIZE])
{
    char *at = letters_put(ret_text, id.high, WORD_LETTERS);

    /* The upper half's last four bits and the lower one's first 56; its last eight, and two zeros.
     */
    at = letters_put(at, id.high << 60 | id.low >> 4, WORD_LETTERS);
    at = letters_put(at, id.low << 56, 2);
    *at = '\0';
    return ret_text;
}

/* 0 to 31, or 32 for an octet outside the alphabet. */
static uint32_t letter_value(uint8_t octet)
{
    if (octet >= 'a' && octet <= 'z')
        return (uint32_t)(octet - 'a');
    if (octet >= 'A' && octet <= 'Z')
        return (uint32_t)(octet - 'A');
    if (octet >= '2' && octet <= '7')
        return (uint32_t)(octet - '2') + 26;
    return 32;
}

/** Errors: ERR_PEER_SYNTAX when `text` is no id; output untouched. */
enum err message_id_parse(struct span text, struct message_id *ret_id)
{
    unsigned __int128 bits = 0;

    CHECK(ret_id != NULL);
    if (text.size != MESSAGE_ID_LETTERS)
        return ERR_PEER_SYNTAX;
    for (uint32_t i = 0; i < MESSAGE_ID_LETTERS - 1; i++) {
        uint32_t value = letter_value(text.data[i]);
        if (value > 31)
            return ERR_PEER_SYNTAX;
        bits = bits << 5 | value;
    }
    uint32_t last = letter_value(text.data[MESSAGE_ID_LETTERS - 1]);
    if (last > 31 || (last & 3u) != 0)
        return ERR_PEER_SYNTAX;
    bits = bits << 3 | last >> 2;
    *ret_id = (struct message_id){(uint64_t)(bits >> 64), (uint64_t)bits};
    return ERR_OK;
}
