/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of MAIL and RCPT: the grammar of RFC 5321 section 4.1.2 with RFC 6531's UTF-8, nothing
 * more.
 *
 * One parse result serves policy and relaying alike, so that the two can never disagree about whose
 * address it is. The exact octets are kept; only the domain is interpreted, once, to lower-case
 * A-labels. A source route is read and forgotten, never followed.
 *
 *   path         = "<" [ a-d-l ":" ] mailbox ">"  |  "<>"  |  "<postmaster>"
 *   a-d-l        = "@" domain *( "," "@" domain )
 *   mailbox      = local-part "@" domain             (address literals: ERR_REFUSED)
 *   local-part   = atom *( "." atom )  |  quoted-string
 *
 * Invariants
 *   1. The cursor only moves forward and never past the end of the text.
 *   2. No octet below 32 and no 127 is in a result; octets above 127 are in it only as well-formed
 *      UTF-8 and only with SMTP_PATH_UTF8_OK.
 *   3. Outputs are written at the very end, and only on success.
 *
 * Limits: SMTP_LOCAL_PART_MAX, SMTP_DOMAIN_MAX, SMTP_PATH_MAX, 63 octets a label; ERR_LIMIT.
 * Not here: whether the domain is one that we relay to (policy.c).
 */
#include "relay/smtp_address.h"

#define SMTP_LABEL_MAX 63u

/* Forward-only reader. `end` is the end of the whole text. */
struct cursor {
    const uint8_t *at;
    const uint8_t *end;
    bool is_utf8_ok;
    bool is_utf8;  /* an octet above 127 was read */
    bool is_plain; /* the domain read last has none, and no two hyphens side by side */
};

enum octet_class { OF_LABEL = 1, OF_ATOM = 2 };

/* Letters and digits are in both; the other atext of RFC 5322 is in atoms alone. */
#define L (OF_LABEL | OF_ATOM)
#define A OF_ATOM
static const uint8_t octet_classes[256] = {
    ['0'] = L, ['1'] = L, ['2'] = L, ['3'] = L,  ['4'] = L, ['5'] = L, ['6'] = L, ['7'] = L,
    ['8'] = L, ['9'] = L, ['A'] = L, ['B'] = L,  ['C'] = L, ['D'] = L, ['E'] = L, ['F'] = L,
    ['G'] = L, ['H'] = L, ['I'] = L, ['J'] = L,  ['K'] = L, ['L'] = L, ['M'] = L, ['N'] = L,
    ['O'] = L, ['P'] = L, ['Q'] = L, ['R'] = L,  ['S'] = L, ['T'] = L, ['U'] = L, ['V'] = L,
    ['W'] = L, ['X'] = L, ['Y'] = L, ['Z'] = L,  ['a'] = L, ['b'] = L, ['c'] = L, ['d'] = L,
    ['e'] = L, ['f'] = L, ['g'] = L, ['h'] = L,  ['i'] = L, ['j'] = L, ['k'] = L, ['l'] = L,
    ['m'] = L, ['n'] = L, ['o'] = L, ['p'] = L,  ['q'] = L, ['r'] = L, ['s'] = L, ['t'] = L,
    ['u'] = L, ['v'] = L, ['w'] = L, ['x'] = L,  ['y'] = L, ['z'] = L, ['!'] = A, ['#'] = A,
    ['$'] = A, ['%'] = A, ['&'] = A, ['\''] = A, ['*'] = A, ['+'] = A, ['-'] = A, ['/'] = A,
    ['='] = A, ['?'] = A, ['^'] = A, ['_'] = A,  ['`'] = A, ['{'] = A, ['|'] = A, ['}'] = A,
    ['~'] = A,
};
#undef L
#undef A

static bool cursor_has(const struct cursor *cursor, uint8_t octet)
{
    return cursor->at < cursor->end && *cursor->at == octet;
}

static bool cursor_accept(struct cursor *cursor, uint8_t octet)
{
    if (!cursor_has(cursor, octet))
        return false;
    cursor->at += 1;
    return true;
}

static void cursor_skip(struct cursor *cursor, enum octet_class class)
{
    const uint8_t *at = cursor->at, *end = cursor->end;

    while (at < end && (octet_classes[*at] & class) != 0)
        at += 1;
    cursor->at = at;
}

/* Size of the well-formed UTF-8 sequence above U+007F at `at`, 0 if there is none: no overlong
 * forms, no surrogates, nothing beyond U+10FFFF (Unicode table 3-7). */
static uint32_t utf8_size(const uint8_t *at, const uint8_t *end)
{
    uint32_t left = (uint32_t)(end - at);
    uint8_t first = at[0], low = 0x80, high = 0xbf;
    uint32_t size;

    if (first >= 0xc2 && first <= 0xdf)
        size = 2;
    else if (first >= 0xe0 && first <= 0xef)
        size = 3;
    else if (first >= 0xf0 && first <= 0xf4)
        size = 4;
    else
        return 0;
    if (left < size)
        return 0;
    if (first == 0xe0)
        low = 0xa0;
    else if (first == 0xed)
        high = 0x9f;
    else if (first == 0xf0)
        low = 0x90;
    else if (first == 0xf4)
        high = 0x8f;
    if (at[1] < low || at[1] > high)
        return 0;
    for (uint32_t i = 2; i < size; i++) {
        if (at[i] < 0x80 || at[i] > 0xbf)
            return 0;
    }
    return size;
}

/* Read one character above U+007F. */
static bool cursor_accept_utf8(struct cursor *cursor)
{
    if (cursor->at == cursor->end || *cursor->at < 0x80 || !cursor->is_utf8_ok)
        return false;
    uint32_t size = utf8_size(cursor->at, cursor->end);
    cursor->at += size;
    cursor->is_utf8 |= size > 0;
    return size > 0;
}

static enum err parse_dot_string(struct cursor *cursor)
{
    do {
        const uint8_t *start = cursor->at;
        do
            cursor_skip(cursor, OF_ATOM);
        while (cursor_accept_utf8(cursor));
        if (cursor->at == start)
            return ERR_PEER_SYNTAX;
    } while (cursor_accept(cursor, '.'));
    return ERR_OK;
}

static enum err parse_quoted_string(struct cursor *cursor)
{
    CHECK(cursor_has(cursor, '"'));
    cursor->at += 1;
    while (cursor->at < cursor->end) {
        uint8_t octet = *cursor->at;
        if (octet == '"') {
            cursor->at += 1;
            return ERR_OK;
        }
        if (octet == '\\') {
            cursor->at += 1;
            if (cursor->at == cursor->end || *cursor->at < 32 || *cursor->at > 126)
                return ERR_PEER_SYNTAX;
            cursor->at += 1;
        } else if (octet >= 32 && octet <= 126) {
            cursor->at += 1;
        } else if (!cursor_accept_utf8(cursor)) {
            return ERR_PEER_SYNTAX;
        }
    }
    return ERR_PEER_SYNTAX;
}

/* One label: letters and digits, hyphens inside. */
static enum err parse_label(struct cursor *cursor)
{
    const uint8_t *start = cursor->at;
    bool was_utf8 = false;

    for (;;) {
        cursor_skip(cursor, OF_LABEL);
        if (cursor_has(cursor, '-') && cursor->at > start) {
            cursor->is_plain = cursor->is_plain && cursor->at[-1] != '-';
            cursor->at += 1;
        } else if (cursor_accept_utf8(cursor)) {
            was_utf8 = true;
        } else {
            break;
        }
    }
    cursor->is_plain = cursor->is_plain && !was_utf8;
    uint32_t size = (uint32_t)(cursor->at - start);
    if (size == 0 || start[size - 1] == '-')
        return ERR_PEER_SYNTAX;
    /* A U-label's bound is that of its A-label: dns_name_normalize() looks after it. */
    return size > SMTP_LABEL_MAX && !was_utf8 ? ERR_LIMIT : ERR_OK;
}

static enum err parse_domain(struct cursor *cursor, struct span *ret_domain)
{
    const uint8_t *start = cursor->at;

    cursor->is_plain = true;
    do {
        TRY(parse_label(cursor));
    } while (cursor_accept(cursor, '.'));
    uint32_t size = (uint32_t)(cursor->at - start);
    if (size > SMTP_DOMAIN_MAX)
        return ERR_LIMIT;
    *ret_domain = span_of(start, size);
    return ERR_OK;
}

/* "@a,@b:" in front of the mailbox. */
static enum err parse_route(struct cursor *cursor, bool *ret_had_route)
{
    struct span domain;

    if (!cursor_has(cursor, '@'))
        return ERR_OK;
    do {
        if (!cursor_accept(cursor, '@'))
            return ERR_PEER_SYNTAX;
        TRY(parse_domain(cursor, &domain));
    } while (cursor_accept(cursor, ','));
    if (!cursor_accept(cursor, ':'))
        return ERR_PEER_SYNTAX;
    *ret_had_route = true;
    return ERR_OK;
}

static bool has_eight_bit(struct span domain)
{
    for (uint32_t i = 0; i < domain.size; i++) {
        if (domain.data[i] >= 0x80)
            return true;
    }
    return false;
}

static bool has_a_label(struct span domain)
{
    for (uint32_t i = 0; i + 4 <= domain.size; i++) {
        if ((i == 0 || domain.data[i - 1] == '.') &&
            span_has_prefix_nocase(span_skip(domain, i), SPAN_LITERAL("xn--")))
            return true;
    }
    return false;
}

/* The routing key. Plain LDH names, which parse_domain() has proved, need no more than lower case.
 */
static enum err make_domain_key(const struct cursor *cursor, struct smtp_address *address)
{
    struct span domain = address->domain;
    bool is_ldh = cursor->is_plain || (!has_eight_bit(domain) && !has_a_label(domain));

    if (!is_ldh || domain.size > 253)
        return dns_name_normalize(domain, address->domain_key, &address->domain_key_size);
    span_to_lower(domain, (uint8_t *)address->domain_key);
    address->domain_key[domain.size] = '\0';
    address->domain_key_size = domain.size;
    return ERR_OK;
}

static enum err parse_mailbox(struct cursor *cursor, uint32_t flags, struct smtp_address *address)
{
    const uint8_t *start = cursor->at;

    TRY(cursor_has(cursor, '"') ? parse_quoted_string(cursor) : parse_dot_string(cursor));
    address->local_part = span_of(start, (uint32_t)(cursor->at - start));
    if (address->local_part.size > SMTP_LOCAL_PART_MAX)
        return ERR_LIMIT;
    if (cursor_has(cursor, '>')) {
        /*= rfc5321#section-4.5.1
         * The domain-less "Postmaster" MUST be supported as a forward path. */
        bool is_postmaster = span_is_equal_nocase(address->local_part, SPAN_LITERAL("postmaster"));
        if (!(flags & SMTP_PATH_POSTMASTER_OK) || !is_postmaster || address->had_route)
            return ERR_PEER_SYNTAX;
    } else {
        if (!cursor_accept(cursor, '@'))
            return ERR_PEER_SYNTAX;
        address->is_literal = cursor_has(cursor, '[');
        if (address->is_literal)
            return ERR_REFUSED;
        TRY(parse_domain(cursor, &address->domain));
        if (!cursor_has(cursor, '>'))
            return ERR_PEER_SYNTAX;
        TRY(make_domain_key(cursor, address));
    }
    address->text = span_of(start, (uint32_t)(cursor->at - start));
    return ERR_OK;
}

enum err smtp_path_parse(struct span text, uint32_t flags, struct smtp_address *ret_address,
                         uint32_t *ret_size)
{
    struct smtp_address address UNINITIALIZED;

    CHECK(ret_address != NULL && ret_size != NULL);
    smtp_address_clear(&address);
    if (text.size < 2 || text.data[0] != '<')
        return ERR_PEER_SYNTAX;

    struct cursor cursor = {.at = text.data + 1,
                            .end = text.data + text.size,
                            .is_utf8_ok = (flags & SMTP_PATH_UTF8_OK) != 0};
    if ((flags & SMTP_PATH_NULL_OK) && cursor_has(&cursor, '>')) {
        address.is_null = true;
        address.text = span_of(cursor.at, 0);
    } else {
        TRY(parse_route(&cursor, &address.had_route));
        TRY(parse_mailbox(&cursor, flags, &address));
    }
    CHECK(cursor_has(&cursor, '>'));
    cursor.at += 1;
    uint32_t size = (uint32_t)(cursor.at - text.data);
    if (size > SMTP_PATH_MAX)
        return ERR_LIMIT;
    address.is_utf8 = cursor.is_utf8;
    memcpy(ret_address, &address,
           offsetof(struct smtp_address, domain_key) + address.domain_key_size + 1);
    *ret_size = size;
    return ERR_OK;
}
