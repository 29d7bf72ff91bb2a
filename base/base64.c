/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Base64 (RFC 4648 section 4): three octets are four characters of six bits each, the last group is
 * filled up with '='.
 *
 * There is one text for given octets: what decodes encodes to the same again.
 */
#include "base/base64.h"

#include <string.h>

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

void base64_encode(struct span octets, char *ret_text)
{
    for (uint32_t i = 0; i < octets.size; i += 3) {
        uint32_t left = octets.size - i;
        uint32_t bits = (uint32_t)octets.data[i] << 16;
        bits |= left > 1 ? (uint32_t)octets.data[i + 1] << 8 : 0;
        bits |= left > 2 ? octets.data[i + 2] : 0;
        *ret_text++ = alphabet[bits >> 18];
        *ret_text++ = alphabet[bits >> 12 & 63];
        *ret_text++ = left > 1 ? alphabet[bits >> 6 & 63] : '=';
        *ret_text++ = left > 2 ? alphabet[bits & 63] : '=';
    }
}

/* 64: it is none. */
static uint32_t value_of(uint8_t character)
{
    const char *at = character == '\0' ? NULL : strchr(alphabet, character);

    return at == NULL ? 64 : (uint32_t)(at - alphabet);
}

enum err base64_decode(struct span text, uint8_t *ret_octets, uint32_t *ret_size)
{
    uint32_t size = 0, padding = 0;

    if (text.size % 4 != 0)
        return ERR_PEER_SYNTAX;
    while (padding < 2 && padding < text.size && text.data[text.size - 1 - padding] == '=')
        padding++;
    for (uint32_t i = 0; i < text.size; i += 4) {
        uint32_t missing = i + 4 == text.size ? padding : 0, bits = 0;
        for (uint32_t j = 0; j < 4; j++) {
            uint32_t value = j < 4 - missing ? value_of(text.data[i + j]) : 0;
            if (value == 64)
                return ERR_PEER_SYNTAX;
            bits = bits << 6 | value;
        }
        if (bits & ((1u << 8 * missing) - 1))
            return ERR_PEER_SYNTAX;
        for (uint32_t j = 0; j < 3 - missing; j++)
            ret_octets[size++] = (uint8_t)(bits >> (16 - 8 * j));
    }
    *ret_size = size;
    return ERR_OK;
}
