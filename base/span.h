/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BASE_SPAN_H
#define BASE_SPAN_H

#include <string.h>

#include "base/err.h"

/* Borrowed octets. Never freed through a span, never NUL-terminated. */
struct span {
    const uint8_t *data;
    uint32_t size;
};

/* Borrowed octets that may be written. */
struct span_mut {
    uint8_t *data;
    uint32_t size;
};

/* A text that grows at its end, in room that whoever made it knows to be enough. */
struct span_text {
    uint8_t *data;
    uint32_t size, size_max;
};

#define SPAN_LITERAL(text) ((struct span){(const uint8_t *)(text), (uint32_t)sizeof(text) - 1})
/* For printf("%.*s"): only for text already known to be printable. */
#define SPAN_PRINTF(s) (int)(s).size, (const char *)(s).data

static inline struct span span_of(const void *data, uint32_t size)
{
    return (struct span){(const uint8_t *)data, size};
}

static inline struct span span_from_text(const char *text)
{
    return (struct span){(const uint8_t *)text, (uint32_t)strlen(text)};
}

static inline bool span_is_equal(struct span a, struct span b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

/** The part from offset to the end. CHECKs offset <= size. */
static inline struct span span_skip(struct span s, uint32_t offset)
{
    CHECK(offset <= s.size);
    return (struct span){s.data + offset, s.size - offset};
}

/** Append to a text. CHECKs the room. */
static inline void span_text_put(struct span_text *text, struct span part)
{
    CHECK(part.size <= text->size_max - text->size);
    if (part.size > 0)
        memcpy(text->data + text->size, part.data, part.size);
    text->size += part.size;
}
/** Append a number's decimal digits. CHECKs the room. */
void span_text_put_u64(struct span_text *text, uint64_t value);

static inline struct span span_text_get(const struct span_text *text)
{
    return (struct span){text->data, text->size};
}

/** The first size octets. CHECKs size <= s.size. */
static inline struct span span_head(struct span s, uint32_t size)
{
    CHECK(size <= s.size);
    return (struct span){s.data, size};
}

/** Does it have an octet below 0x20, or 0x7f? */
bool span_has_control(struct span s);
/** The same octets with ASCII capitals as small letters. */
void span_to_lower(struct span s, uint8_t *ret_octets);

/** ASCII letters compare without case; all other octets exactly. Locale plays no part. */
bool span_is_equal_nocase(struct span a, struct span b);

/** True if `s` begins with `prefix`, ASCII case ignored. */
static inline bool span_has_prefix_nocase(struct span s, struct span prefix)
{
    if (prefix.size > s.size)
        return false;
    /* Most are told apart by their first octet, whose case is one bit. */
    return (prefix.size == 0 || (uint8_t)((s.data[0] ^ prefix.data[0]) & 0xdf) == 0) &&
           span_is_equal_nocase(span_head(s, prefix.size), prefix);
}

/**
 * Parse 1*20DIGIT that fits 64 bits: no sign, no space, no base prefix; leading zeros are allowed.
 *
 * Errors: ERR_PEER_SYNTAX for anything else, also on overflow; output untouched.
 */
enum err span_parse_u64(struct span s, uint64_t *ret_value) MUST_CHECK;

#endif
