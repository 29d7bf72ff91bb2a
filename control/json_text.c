/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A buffer that JSON is appended to. What is written most is written here: names, numbers, and text
 * of printable ASCII without quotes or backslashes; all other text is left to jansson, so that an
 * answer looks the same by whichever way it was made.
 *
 * Invariant: a value or name has a comma before it unless it is the first: the octet before tells,
 * as no text ends with an open bracket or a colon outside its quotes.
 */
#include "control/json_text.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/log.h"
#include "control/digits.h"

#define CAPACITY_FIRST 4096u
#define TREE_ROOM      256u
#define TREE_FLAGS     (JSON_COMPACT | JSON_ENCODE_ANY)

#define EACH_OCTET(octet) (UINT64_C(0x0101010101010101) * (octet))
#define EACH_TOP          EACH_OCTET(0x80)

void json_text_free(struct json_text *text)
{
    free(text->data);
    *text = (struct json_text){0};
}

void json_text_grow(struct json_text *text, size_t size)
{
    size_t capacity = text->capacity < CAPACITY_FIRST ? CAPACITY_FIRST : text->capacity;

    while (capacity - text->size < size)
        capacity *= 2;
    text->data = realloc(text->data, capacity);
    CHECK(text->data != NULL);
    text->capacity = capacity;
}

static void text_separate(struct json_text *text)
{
    json_text_written(text, json_text_value_room(text, 0));
}

void json_text_octets(struct json_text *text, const void *octets, size_t size)
{
    memcpy(json_text_room(text, size), octets, size);
    text->size += size;
}

void json_text_append(struct json_text *text, const struct json_text *more)
{
    if (more->size == 0)
        return;
    text_separate(text);
    json_text_octets(text, more->data, more->size);
}

void json_text_name(struct json_text *text, const char *name)
{
    json_text_string(text, name, strlen(name));
    json_text_octets(text, ":", 1);
}

void json_text_number(struct json_text *text, int64_t number)
{
    json_text_written(text, digits_put_signed(json_text_value_room(text, DIGITS_MAX + 1), number));
}

void json_text_numbers(struct json_text *text, const uint64_t *numbers, uint32_t count)
{
    char *room = json_text_value_room(text, count * (DIGITS_MAX + 1) + 2);

    *room++ = '[';
    for (uint32_t i = 0; i < count; i++) {
        room = digits_put(room, numbers[i]);
        *room++ = ',';
    }
    if (count > 0)
        room--;
    *room++ = ']';
    json_text_written(text, room);
}

/* Are these eight octets printable ASCII, and none a quote or a backslash? In each sum below, the
 * lowest octet that is not what it must be has its top bit set; what it borrows from those above
 * makes no difference then. */
static bool octets_are_plain(uint64_t octets)
{
    uint64_t quote = octets ^ EACH_OCTET('"'), backslash = octets ^ EACH_OCTET('\\');
    uint64_t odd =
        (octets - EACH_OCTET(' ')) | (quote - EACH_OCTET(1)) | (backslash - EACH_OCTET(1)) | octets;

    return (odd & EACH_TOP) == 0;
}

static bool text_is_plain(const char *string, size_t size)
{
    size_t offset = 0;

    for (; offset + 8 <= size; offset += 8) {
        uint64_t octets;
        memcpy(&octets, string + offset, sizeof(octets));
        if (!octets_are_plain(octets))
            return false;
    }
    uint64_t rest = EACH_OCTET(' ');
    memcpy(&rest, string + offset, size - offset);
    return octets_are_plain(rest);
}

void json_text_tree(struct json_text *text, json_t *tree)
{
    CHECK(tree != NULL);
    text_separate(text);
    char *room = json_text_room(text, TREE_ROOM);
    size_t size = json_dumpb(tree, room, text->capacity - text->size, TREE_FLAGS);
    if (size > text->capacity - text->size)
        size = json_dumpb(tree, json_text_room(text, size), size, TREE_FLAGS);
    CHECK(size > 0);
    text->size += size;
    json_decref(tree);
}

void json_text_members(struct json_text *text, json_t *tree)
{
    size_t before = text->size;

    CHECK(json_is_object(tree));
    if (json_object_size(tree) == 0) {
        json_decref(tree);
        return;
    }
    json_text_tree(text, tree);
    /* Its brackets go: the first is behind a comma, if there is one. */
    size_t first = text->data[before] == ',' ? before + 1 : before;
    memmove(text->data + first, text->data + first + 1, text->size - first - 2);
    text->size -= 2;
}

static void string_add_odd(struct json_text *text, const char *string, size_t size)
{
    json_t *json = json_stringn(string, size);

    if (json == NULL) { /* not UTF-8 */
        char *escaped = malloc(4 * size + 1);
        CHECK(escaped != NULL && size <= UINT32_MAX / 4 - 1);
        json = json_string(
            log_escape(span_of(string, (uint32_t)size), escaped, (uint32_t)(4 * size + 1)));
        free(escaped);
    }
    json_text_tree(text, json);
}

void json_text_string(struct json_text *text, const char *string, size_t size)
{
    if (!text_is_plain(string, size)) {
        string_add_odd(text, string, size);
        return;
    }
    char *room = json_text_value_room(text, size + 2);
    *room = '"';
    memcpy(room + 1, string, size);
    room[size + 1] = '"';
    json_text_written(text, room + size + 2);
}
