/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One field of the header is taken out, whatever client it comes from: who may not choose a pool
 * here must not choose one at the next hop, either.
 *
 *   START --name--> NAME --name complete, then colon or blank--> VALUE --end of line--> FOLD
 *     ^               \--anything else--> PASS --end of line--> START                     |
 *     '------------------- anything but a blank ------------------------------------------'
 *                          (a blank: VALUE again, RFC 5322 section 2.2.3)
 *
 * While the octets of a line may still become the name they are held back; when they do not they
 * are put in again, as they were, in front of what follows. A name with a blank and no colon behind
 * it is no field, but taken out all the same: others read it as one (RFC 5322 section 4.5).
 *
 * Invariants
 *   1. What is held back is at most the name, and all of it matches the name.
 *   2. Put together, what goes on is the message without the lines of the field, octet for octet.
 *
 * Limits: a field may be of any length; of its value SMTP_STRIP_VALUE_MAX octets are kept, and more
 * make it no name. Which messages end, and when the header does, the caller knows.
 */
#include "relay/smtp_strip.h"

#include <ctype.h>

enum { STRIP_START, STRIP_NAME, STRIP_PASS, STRIP_VALUE, STRIP_FOLD };

void smtp_strip_init(struct smtp_strip *strip, struct span name)
{
    CHECK(name.size > 0 && name.size <= SMTP_STRIP_NAME_MAX);
    *strip = (struct smtp_strip){.name = name};
}

uint32_t smtp_strip_limit(struct span octets)
{
    const uint8_t *end = octets.size == 0 ? NULL : memchr(octets.data, '\n', octets.size);

    return end == NULL ? octets.size : (uint32_t)(end - octets.data) + 1;
}

static bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

/* Octets of `piece` that go on matching the name. */
static uint32_t match(const struct smtp_strip *strip, struct span piece)
{
    uint32_t count = 0;

    while (count < piece.size && strip->matched + count < strip->name.size &&
           tolower(piece.data[count]) == tolower(strip->name.data[strip->matched + count]))
        count++;
    return count;
}

/* After `count` octets of the piece the line can no longer be, or become, the field's. */
static bool is_other(const struct smtp_strip *strip, struct span piece, uint32_t count)
{
    if (count == piece.size)
        return false;
    return strip->matched + count < strip->name.size ||
           (piece.data[count] != ':' && !is_blank(piece.data[count]));
}

static void value_add(struct smtp_strip *strip, struct span octets)
{
    for (uint32_t i = 0; i < octets.size; i++) {
        uint8_t octet = octets.data[i];
        if (octet == '\r' || octet == '\n')
            continue;
        if (!strip->has_colon) {
            strip->has_colon = octet == ':';
            strip->is_bad = strip->is_bad || (octet != ':' && !is_blank(octet));
            continue;
        }
        if (is_blank(octet) && strip->value_size == 0)
            continue;
        /* One blank is kept, as the sign that nothing may follow it. */
        bool is_behind = strip->value_size > 0 && strip->value[strip->value_size - 1] == ' ';
        if (is_blank(octet) && is_behind)
            continue;
        if (is_behind || strip->value_size == sizeof(strip->value) ||
            (!is_blank(octet) && !isalnum(octet) && strchr("._-", octet) == NULL) || octet == 0) {
            strip->is_bad = true;
            continue;
        }
        strip->value[strip->value_size++] = is_blank(octet) ? ' ' : (char)tolower(octet);
    }
}

static void value_begin(struct smtp_strip *strip)
{
    strip->state = STRIP_VALUE;
    strip->field_count += strip->field_count < UINT32_MAX;
    strip->has_colon = false;
    strip->value_size = 0;
}

static bool ends_line(struct span piece)
{
    return piece.data[piece.size - 1] == '\n';
}

static uint8_t *slot_of(struct smtp_strip *strip)
{
    return strip->slots[strip->slot];
}

/* What is held goes on: its octets stay good until all other slots were used. */
static struct span held_take(struct smtp_strip *strip)
{
    struct span held = span_of(slot_of(strip), strip->matched);

    strip->size -= held.size;
    strip->slot = (uint8_t)((strip->slot + 1) % SMTP_STRIP_SLOTS);
    strip->matched = 0;
    strip->state = STRIP_PASS;
    return held;
}

struct span smtp_strip_release(struct smtp_strip *strip, struct span octets)
{
    if (strip->state != STRIP_NAME || strip->matched == 0 ||
        !is_other(strip, octets, match(strip, octets)))
        return (struct span){0};
    return held_take(strip);
}

/* At the beginning of a line, or within its name. */
static bool name_takes(struct smtp_strip *strip, struct span piece)
{
    uint32_t count = match(strip, piece);

    if (is_other(strip, piece, count)) {
        CHECK(strip->matched == 0); /* smtp_strip_release() comes first */
        strip->state = ends_line(piece) ? STRIP_START : STRIP_PASS;
        return false;
    }
    if (count == piece.size) {
        memcpy(slot_of(strip) + strip->matched, piece.data, count);
        strip->matched = (uint8_t)(strip->matched + count);
        strip->state = STRIP_NAME;
        return true;
    }
    strip->matched = 0;
    value_begin(strip);
    value_add(strip, span_skip(piece, count));
    strip->state = ends_line(piece) ? STRIP_FOLD : STRIP_VALUE;
    return true;
}

bool smtp_strip_takes(struct smtp_strip *strip, struct span piece)
{
    bool is_taken = true;

    if (piece.size == 0)
        return false;
    if (strip->state == STRIP_FOLD)
        strip->state = is_blank(piece.data[0]) ? STRIP_VALUE : STRIP_START;
    if (strip->state == STRIP_START || strip->state == STRIP_NAME) {
        is_taken = name_takes(strip, piece);
    } else if (strip->state == STRIP_VALUE) {
        value_add(strip, piece);
        strip->state = ends_line(piece) ? STRIP_FOLD : STRIP_VALUE;
    } else {
        is_taken = false;
        strip->state = ends_line(piece) ? STRIP_START : STRIP_PASS;
    }
    strip->size += is_taken ? piece.size : 0;
    return is_taken;
}

struct span smtp_strip_insert(struct smtp_strip *strip, struct span insert)
{
    CHECK(insert.size <= 2);
    if (insert.size == 0)
        return insert;
    if (strip->state == STRIP_NAME && strip->matched > 0 &&
        is_other(strip, insert, match(strip, insert))) {
        uint8_t *slot = slot_of(strip);
        struct span held = held_take(strip);
        memcpy(slot + held.size, insert.data, insert.size);
        strip->state = ends_line(insert) ? STRIP_START : STRIP_PASS;
        return span_of(slot, held.size + insert.size);
    }
    return smtp_strip_takes(strip, insert) ? (struct span){0} : insert;
}

enum err smtp_strip_value(const struct smtp_strip *strip, struct span *ret_value)
{
    struct span value = span_of(strip->value, strip->value_size);

    if (strip->field_count == 0)
        return ERR_NOT_FOUND;
    if (value.size > 0 && value.data[value.size - 1] == ' ')
        value.size--;
    if (strip->is_bad || strip->field_count > 1 || value.size == 0 ||
        value.size > SMTP_STRIP_VALUE_MAX)
        return ERR_PEER_SYNTAX;
    *ret_value = value;
    return ERR_OK;
}
