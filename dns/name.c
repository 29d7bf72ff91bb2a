/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Domain names as people write them, to the one form that all comparisons, cache keys and queries
 * use: lower-case A-labels without the final dot.
 *
 * libidn2 does IDNA2008 (non-transitional: sharp s stays itself) and checks A-labels by decoding
 * them. Names that are plain ASCII without an A-label need none of it and are only lowered. What
 * comes out of either way is checked once more against the letters, digits and hyphens that a mail
 * domain has.
 */
#include <idn2.h>

#include "dns/dns.h"

#define NAME_MAX_OCTETS  253u
#define LABEL_MAX        63u
#define INPUT_MAX_OCTETS 1024u /* UTF-8 of 253 octets of A-labels is shorter */

static bool octet_is_alnum(uint8_t octet)
{
    return (octet >= 'a' && octet <= 'z') || (octet >= '0' && octet <= '9');
}

/* Lower-case LDH, labels of 1 to 63 that neither begin nor end with a hyphen. */
static bool name_is_ldh(struct span name)
{
    uint32_t label = 0;

    if (name.size < 1 || name.size > NAME_MAX_OCTETS)
        return false;
    for (uint32_t i = 0; i <= name.size; i++) {
        if (i < name.size && name.data[i] != '.') {
            if (!octet_is_alnum(name.data[i]) && name.data[i] != '-')
                return false;
            continue;
        }
        if (i == label || i - label > LABEL_MAX || name.data[label] == '-' ||
            name.data[i - 1] == '-') {
            return false;
        }
        label = i + 1;
    }
    return true;
}

/* Lower `domain` into `ret_text`. True if that was all: ASCII, and no label with "--" at 3 and 4,
 * which RFC 5890 section 2.3.1 reserves for A-labels. */
static bool ascii_lower(struct span domain, char *ret_text)
{
    bool is_plain = true;
    uint32_t label = 0;

    for (uint32_t i = 0; i < domain.size; i++) {
        uint8_t octet = domain.data[i];
        bool is_upper = octet >= 'A' && octet <= 'Z';
        ret_text[i] = (char)(is_upper ? octet + ('a' - 'A') : octet);
        if (octet == '.')
            label = i + 1;
        if (octet > 127 || (octet == '-' && i == label + 3 && ret_text[i - 1] == '-'))
            is_plain = false;
    }
    ret_text[domain.size] = '\0';
    return is_plain;
}

static enum err name_accept(struct span name, char ret_name[MX_NAME_MAX], uint32_t *ret_size)
{
    if (!name_is_ldh(name))
        return ERR_PEER_SYNTAX;
    memcpy(ret_name, name.data, name.size);
    ret_name[name.size] = '\0';
    *ret_size = name.size;
    return ERR_OK;
}

static struct span without_final_dot(struct span name)
{
    if (name.size > 0 && name.data[name.size - 1] == '.')
        return span_head(name, name.size - 1);
    return name;
}

enum err dns_name_normalize(struct span domain, char ret_name[MX_NAME_MAX], uint32_t *ret_size)
{
    char text[INPUT_MAX_OCTETS + 1], *ascii = NULL;

    domain = without_final_dot(domain);
    if (domain.size < 1 || domain.size > INPUT_MAX_OCTETS ||
        memchr(domain.data, '\0', domain.size) != NULL) {
        return ERR_PEER_SYNTAX;
    }
    if (ascii_lower(domain, text))
        return name_accept(span_of(text, domain.size), ret_name, ret_size);

    int result = idn2_to_ascii_8z(text, &ascii, IDN2_NONTRANSITIONAL | IDN2_NFC_INPUT);
    if (result != IDN2_OK)
        return ERR_PEER_SYNTAX;
    enum err err = name_accept(without_final_dot(span_from_text(ascii)), ret_name, ret_size);
    idn2_free(ascii);
    return err;
}
