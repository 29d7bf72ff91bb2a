/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values of the DSN extension's parameters: NOTIFY, and the xtext in ENVID and ORCPT.
 *
 * xtext (RFC 3461 section 4): printable ASCII but for '+' and '=' stands for itself, any octet may
 * be written as '+' and two digits of upper-case hexadecimal. We take only what decodes to
 * printable ASCII: a notice shows it in a header field, where a line end or a NUL would be
 * somebody's attack.
 *
 * Invariants
 *   1. What is valid decodes, to printable ASCII alone, and to no more octets than it has.
 *   2. Every valid set of NOTIFY keywords has one text.
 */
#include "relay/smtp_dsn.h"

#include "queue/envelope.h"

static const struct {
    const char *name;
    uint8_t notify;
} notify_keywords[] = {
    {"NEVER", ENVELOPE_NOTIFY_NEVER},
    {"SUCCESS", ENVELOPE_NOTIFY_SUCCESS},
    {"FAILURE", ENVELOPE_NOTIFY_FAILURE},
    {"DELAY", ENVELOPE_NOTIFY_DELAY},
};

/* By the value of the set. */
static const char *const notify_texts[] = {
    [0] = "",
    [ENVELOPE_NOTIFY_NEVER] = "NEVER",
    [ENVELOPE_NOTIFY_SUCCESS] = "SUCCESS",
    [ENVELOPE_NOTIFY_FAILURE] = "FAILURE",
    [ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE] = "SUCCESS,FAILURE",
    [ENVELOPE_NOTIFY_DELAY] = "DELAY",
    [ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_DELAY] = "SUCCESS,DELAY",
    [ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY] = "FAILURE,DELAY",
    [ENVELOPE_NOTIFY_SUCCESS | ENVELOPE_NOTIFY_FAILURE | ENVELOPE_NOTIFY_DELAY] =
        "SUCCESS,FAILURE,DELAY",
};

static uint8_t notify_find(struct span word)
{
    for (uint32_t i = 0; i < COUNT_OF(notify_keywords); i++) {
        if (span_is_equal_nocase(word, span_from_text(notify_keywords[i].name)))
            return notify_keywords[i].notify;
    }
    return 0;
}

enum err smtp_notify_parse(struct span value, uint8_t *ret_notify)
{
    uint8_t notify = 0;
    bool has_more = true;

    while (has_more) { /* a keyword each round, and none twice */
        const uint8_t *comma = value.size == 0 ? NULL : memchr(value.data, ',', value.size);
        uint32_t size = comma == NULL ? value.size : (uint32_t)(comma - value.data);
        uint8_t one = notify_find(span_head(value, size));
        if (one == 0 || (notify & one) != 0)
            return ERR_PEER_SYNTAX;
        notify |= one;
        has_more = comma != NULL;
        value = span_skip(value, has_more ? size + 1 : size);
    }
    if ((notify & ENVELOPE_NOTIFY_NEVER) != 0 && notify != ENVELOPE_NOTIFY_NEVER)
        return ERR_PEER_SYNTAX;
    *ret_notify = notify;
    return ERR_OK;
}

struct span smtp_notify_text(uint8_t notify)
{
    CHECK(notify < COUNT_OF(notify_texts) && notify_texts[notify] != NULL);
    return span_from_text(notify_texts[notify]);
}

/* Of an upper-case hexadecimal digit, else 16. */
static uint8_t hex_value(uint8_t digit)
{
    if (digit >= '0' && digit <= '9')
        return (uint8_t)(digit - '0');
    if (digit >= 'A' && digit <= 'F')
        return (uint8_t)(digit - 'A' + 10);
    return 16;
}

bool smtp_xtext_is_valid(struct span text)
{
    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        if (octet <= ' ' || octet > '~' || octet == '=')
            return false;
        if (octet != '+')
            continue;
        if (text.size - i < 3)
            return false;
        uint8_t high = hex_value(text.data[i + 1]), low = hex_value(text.data[i + 2]);
        if (high > 15 || low > 15 || high < 2 || high > 7 || (high == 7 && low == 15))
            return false;
        i += 2;
    }
    return text.size > 0;
}

bool smtp_envid_is_valid(struct span value)
{
    return value.size <= ENVELOPE_ENVID_SIZE_MAX && smtp_xtext_is_valid(value);
}

/* An atom of RFC 5322 without the characters that xtext does not know. */
static bool is_type_octet(uint8_t octet)
{
    return octet > ' ' && octet <= '~' && strchr("()<>@,;:\\\".[]+=", octet) == NULL;
}

bool smtp_orcpt_is_valid(struct span value)
{
    uint32_t type_size = 0;

    while (type_size < value.size && is_type_octet(value.data[type_size]))
        type_size++;
    if (type_size == 0 || type_size == value.size || value.data[type_size] != ';')
        return false;
    return value.size <= ENVELOPE_ORCPT_SIZE_MAX &&
           smtp_xtext_is_valid(span_skip(value, type_size + 1));
}

uint32_t smtp_xtext_decode(struct span value, uint8_t *ret_octets)
{
    uint32_t size = 0;

    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t octet = value.data[i];
        if (octet == '+' && value.size - i >= 3) {
            octet = (uint8_t)(hex_value(value.data[i + 1]) << 4 | hex_value(value.data[i + 2]));
            i += 2;
        }
        ret_octets[size++] = octet;
    }
    return size;
}
