/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading and cutting out header fields in a stream. What is an order to us is cut out whatever
 * client it comes from: who may not give it here must not give it at the next hop, either.
 *
 *   START   at the beginning of a line: nothing is known of it
 *   NAME    what came of it is held back: it may become the name of a field we look for
 *   COLON   the whole name is there, and blanks behind it
 *   VALUE   of a field that was found; passed or cut out, and kept as far as there is room
 *   REST    of a line that is nothing to us, passed
 *   EMPTY   a CR at the beginning of a line: the header ends here; held back where something may be
 *           missing in front of it
 *   DONE    behind the header, or nothing is looked for: nothing is done any more
 *
 *   START -octet of a name-> NAME -blank behind all of it-> COLON     NAME, COLON -":"-> VALUE
 *   NAME -blank behind all of a lenient one-> VALUE
 *   START, NAME, COLON -another octet-> REST      REST, VALUE -LF-> START -CR-> EMPTY -LF-> DONE
 *   START -blank-> VALUE behind a field that was found, else REST
 *
 * Invariants
 *   1. All that goes in comes out in its order, but for fields that are cut out, from the first
 *      octet of the name to the end of the last continuation line.
 *   2. What is held back is the beginning of a name, and blanks: at most HELD_MAX octets.
 *   3. The split of the input changes nothing.
 *   4. Of several fields of one name the first counts; all are cut out.
 *   5. What is missing is added once, in front of the empty line, or at the end of a message that
 *      has none; not behind a last line without an end.
 *   6. Of a lenient field no line is left that others may read as one (RFC 5322 section 4.5).
 *
 * As long as a line is undecided (START, NAME, COLON) octets come one at a time. Most lines are
 * decided by their first octet, before it is scanned: they come whole.
 */
#include "relay/header_reader.h"

#include <ctype.h>
#include <string.h>

#define HELD_MAX (HEADER_NAME_MAX + 4u)

enum { START, NAME, COLON, VALUE, REST, EMPTY, DONE };

void header_reader_init(struct header_reader *reader, const struct header_names *names)
{
    memset(reader, 0, offsetof(struct header_reader, octets));
    reader->names = names;
    reader->state = DONE;
    for (uint32_t i = 0; names != NULL && i < HEADER_FIELD_COUNT; i++) {
        const char *name = names->fields[i].name;
        if (name == NULL)
            continue;
        CHECK(name[0] != '\0' && strlen(name) <= HEADER_NAME_MAX);
        reader->state = START;
    }
}

void header_reader_complete(struct header_reader *reader,
                            const struct header_completion *completion)
{
    CHECK(reader->state == START && completion->both.size <= HEADER_COMPLETION_MAX);
    CHECK(reader->names->fields[HEADER_DATE].name != NULL &&
          reader->names->fields[HEADER_MESSAGE_ID].name != NULL);
    reader->completion = completion;
}

static bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

static bool is_undecided(const struct header_reader *reader)
{
    return reader->state <= COLON || reader->state == EMPTY;
}

/* ---- undecided ---- */

static void value_add(struct header_reader *reader, uint8_t octet)
{
    struct header_value *value = &reader->values[reader->field];

    if (!reader->is_first || value->is_too_long || octet == '\r' || octet == '\n')
        return;
    if (reader->is_colon_due) {
        reader->is_colon_due = is_blank(octet);
        if (octet == ':')
            reader->unclear &= ~(1u << reader->field);
        else
            value->is_too_long = !is_blank(octet); /* a word in its place: there is no value */
        return;
    }
    if (value->size == 0 && is_blank(octet))
        return;
    if (value->size == HEADER_VALUE_MAX)
        value->is_too_long = !is_blank(octet);
    else
        reader->octets[reader->field][value->size++] = octet;
}

/* The fields whose names still fit with this octet behind what is held. */
static uint32_t names_left(const struct header_reader *reader, uint8_t octet)
{
    uint32_t left = 0;

    for (uint32_t i = 0; i < HEADER_FIELD_COUNT; i++) {
        const char *name = reader->names->fields[i].name;
        bool may_match = reader->held_size == 0 || (reader->matches >> i & 1);
        if (name != NULL && may_match && name[reader->held_size] != '\0' &&
            tolower((uint8_t)name[reader->held_size]) == tolower(octet))
            left |= 1u << i;
    }
    return left;
}

/* The field whose whole name is held; HEADER_FIELD_COUNT: none. */
static uint32_t name_found(const struct header_reader *reader)
{
    for (uint32_t i = 0; i < HEADER_FIELD_COUNT && reader->held_size > 0; i++) {
        if ((reader->matches >> i & 1) && reader->names->fields[i].name[reader->held_size] == '\0')
            return i;
    }
    return HEADER_FIELD_COUNT;
}

static bool is_cutting(const struct header_reader *reader)
{
    return reader->state == VALUE && reader->names->fields[reader->field].is_cut;
}

/* Behind the name of a field, and this octet behind it. */
static void field_begin(struct header_reader *reader, uint32_t field, bool has_colon)
{
    uint32_t bit = 1u << field;

    reader->state = VALUE;
    reader->field = (uint8_t)field;
    reader->is_in_field = true;
    reader->is_first = !(reader->seen & bit);
    reader->is_colon_due = !has_colon;
    reader->unclear |= has_colon ? reader->seen & bit : bit;
    reader->seen |= bit;
}

/* The state behind an octet at the beginning of a line. */
static uint8_t line_begin(struct header_reader *reader, uint8_t octet)
{
    bool is_in_field = reader->is_in_field && is_blank(octet);

    reader->is_in_field = is_in_field;
    if (is_in_field) {
        value_add(reader, octet);
        return VALUE;
    }
    if (octet == '\r')
        return EMPTY;
    reader->matches = names_left(reader, octet);
    return reader->matches != 0 ? NAME : REST;
}

static void name_go_on(struct header_reader *reader, uint8_t octet)
{
    uint32_t found = reader->state == COLON ? reader->field : name_found(reader);

    bool is_lenient = found < HEADER_FIELD_COUNT && reader->names->fields[found].is_lenient;
    if (found < HEADER_FIELD_COUNT && (octet == ':' || (is_lenient && is_blank(octet)))) {
        field_begin(reader, found, octet == ':');
        return;
    }
    if (found < HEADER_FIELD_COUNT && is_blank(octet) && reader->held_size < HELD_MAX) {
        reader->field = (uint8_t)found;
        reader->state = COLON;
        return;
    }
    reader->matches = reader->state == COLON ? 0 : names_left(reader, octet);
    if (reader->matches == 0)
        reader->state = REST;
}

/* The fields that are missing, without the empty line. */
static uint32_t missing_put(struct header_reader *reader, uint8_t *out)
{
    const struct header_completion *completion = reader->completion;
    bool has_date = header_reader_has(reader, HEADER_DATE);
    struct span text = {0};

    if (completion == NULL)
        return 0;
    reader->completion = NULL;
    if (!header_reader_has(reader, HEADER_MESSAGE_ID))
        text = has_date ? completion->message_id : completion->both;
    else if (!has_date)
        text = completion->date;
    if (text.size == 0)
        return 0;
    CHECK(text.size > 2 && text.size <= HEADER_COMPLETION_MAX);
    memcpy(out, text.data, text.size - 2);
    return text.size - 2;
}

/* One octet; returns how many were put to `out`, the held ones among them. */
static uint32_t octet_feed(struct header_reader *reader, uint8_t octet, uint8_t *out)
{
    uint32_t size = reader->held_size;

    switch (reader->state) {
    case START:
        reader->state = line_begin(reader, octet);
        break;
    case NAME:
    case COLON:
        name_go_on(reader, octet);
        break;
    case EMPTY:
        reader->state = octet == '\n' ? DONE : REST;
        break;
    default:
        if (reader->state == VALUE)
            value_add(reader, octet);
        break;
    }
    bool is_end_held = reader->state == EMPTY && reader->completion != NULL;
    if (reader->state == NAME || reader->state == COLON || is_end_held) {
        reader->held[reader->held_size++] = octet;
        return 0;
    }
    reader->held_size = 0;
    bool is_cut = is_cutting(reader);
    if (octet == '\n' && reader->state != DONE)
        reader->state = START;
    if (is_cut)
        return 0;
    uint32_t added = reader->state == DONE ? missing_put(reader, out) : 0;
    memcpy(out + added, reader->held, size);
    out[added + size] = octet;
    return added + size + 1;
}

/* ---- steps ---- */

/* By this octet, the first of a line, it is nothing to us: it is not the end of the header, goes on
 * with nothing, and begins no name. */
static bool line_is_other(const struct header_reader *reader, uint8_t octet)
{
    return reader->state == START && !is_blank(octet) && octet != '\r' &&
           names_left(reader, octet) == 0;
}

uint32_t header_reader_wants(const struct header_reader *reader, struct span octets)
{
    if (reader->state == DONE || octets.size == 0)
        return octets.size;
    if (is_undecided(reader) && !line_is_other(reader, octets.data[0]))
        return 1;
    const uint8_t *end = memchr(octets.data, '\n', octets.size);
    return end == NULL ? octets.size : (uint32_t)(end - octets.data) + 1;
}

/* Octets of a line that is decided. */
static void run_feed(struct header_reader *reader, struct span octets)
{
    for (uint32_t i = 0; i < octets.size && reader->state == VALUE; i++)
        value_add(reader, octets.data[i]);
    if (octets.size > 0 && octets.data[octets.size - 1] == '\n')
        reader->state = START;
}

struct smtp_body_step header_reader_step(struct header_reader *reader, struct span octets,
                                         const struct smtp_body_step *scanned,
                                         bool *ret_is_borrowed)
{
    struct span parts[2] = {span_head(octets, scanned->pass), scanned->insert};
    struct smtp_body_step step = *scanned;
    uint32_t size = 0;

    *ret_is_borrowed = false;
    if (reader->state == DONE)
        return step;
    if (parts[0].size > 0 && line_is_other(reader, parts[0].data[0])) {
        reader->is_in_field = false;
        reader->state = REST;
    }
    if (!is_undecided(reader)) {
        bool is_cut = is_cutting(reader);
        run_feed(reader, parts[0]);
        run_feed(reader, parts[1]);
        if (is_cut) {
            reader->cut_size += step.pass + step.insert.size;
            step.skip += step.pass;
            step.pass = 0;
            step.insert = (struct span){0};
        }
        return step;
    }
    CHECK(parts[0].size + parts[1].size <= HEADER_PART_MAX);
    for (uint32_t part = 0; part < COUNT_OF(parts); part++) {
        for (uint32_t i = 0; i < parts[part].size; i++)
            size += octet_feed(reader, parts[part].data[i], reader->out + size);
    }
    if (scanned->is_end && reader->state == START)
        size += missing_put(reader, reader->out + size);
    reader->cut_size += parts[0].size + parts[1].size;
    reader->cut_size -= size;
    step.skip += step.pass;
    step.pass = 0;
    step.insert = span_of(reader->out, size);
    *ret_is_borrowed = size > 0;
    return step;
}

struct span header_reader_finish(struct header_reader *reader, struct span before, struct span rest)
{
    uint32_t size = before.size, put = before.size + rest.size;

    CHECK(before.size <= HELD_MAX + HEADER_PART_MAX && rest.size <= HEADER_PART_MAX);
    CHECK(before.size == 0 || reader->held_size == 0);
    if (before.size > 0)
        memmove(reader->out, before.data, before.size);
    for (uint32_t i = 0; i < rest.size; i++)
        size += octet_feed(reader, rest.data[i], reader->out + size);
    memcpy(reader->out + size, reader->held, reader->held_size);
    size += reader->held_size;
    if (reader->state == START)
        size += missing_put(reader, reader->out + size);
    reader->cut_size += put;
    reader->cut_size -= size;
    reader->state = DONE;
    reader->held_size = 0;
    return span_of(reader->out, size);
}

struct span header_reader_value(const struct header_reader *reader, enum header_field field)
{
    const struct header_value *value = &reader->values[field];
    uint32_t size = value->is_too_long ? 0 : value->size;

    while (size > 0 && is_blank(reader->octets[field][size - 1]))
        size--;
    return span_of(reader->octets[field], size);
}
