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

#define CAPACITY_FIRST 4096u
#define DIGITS_MAX     20u
#define TREE_ROOM      256u
#define TREE_FLAGS     (JSON_COMPACT | JSON_ENCODE_ANY)

#define EACH_OCTET(octet) (UINT64_C(0x0101010101010101) * (octet))
#define EACH_TOP          EACH_OCTET(0x80)

void json_text_free(struct json_text *text)
{
    free(text->data);
    *text = (struct json_text){0};
}

static __attribute__((noinline)) void text_grow(struct json_text *text, size_t size)
{
    size_t capacity = text->capacity < CAPACITY_FIRST ? CAPACITY_FIRST : text->capacity;

    while (capacity - text->size < size)
        capacity *= 2;
    text->data = realloc(text->data, capacity);
    CHECK(text->data != NULL);
    text->capacity = capacity;
}

/* Where `size` more octets may be written. */
static inline char *text_room(struct json_text *text, size_t size)
{
    if (text->capacity - text->size < size)
        text_grow(text, size);
    return text->data + text->size;
}

/* The same, behind the comma that belongs before a value or a name: for those that then set the
 * size by what they wrote up to. */
static inline char *value_room(struct json_text *text, size_t size)
{
    char *room = text_room(text, size + 1);
    char last = text->size == 0 ? '\n' : room[-1];

    if (last != '{' && last != '[' && last != ':' && last != '\n')
        *room++ = ',';
    return room;
}

static inline void written_to(struct json_text *text, const char *end)
{
    text->size = (size_t)(end - text->data);
}

static void text_separate(struct json_text *text)
{
    written_to(text, value_room(text, 0));
}

/* At most DIGITS_MAX octets. Returns where the next goes. */
static inline char *digits_put(char *room, uint64_t number)
{
    char digits[DIGITS_MAX], *first = digits + sizeof(digits);

    if (number < 10) { /* most are */
        *room = (char)('0' + number);
        return room + 1;
    }
    for (; number > 0; number /= 10)
        *--first = (char)('0' + number % 10);
    size_t size = (size_t)(digits + sizeof(digits) - first);
    memcpy(room, first, size);
    return room + size;
}

static inline char *number_put(char *room, int64_t number)
{
    if (number >= 0)
        return digits_put(room, (uint64_t)number);
    *room = '-';
    return digits_put(room + 1, 0 - (uint64_t)number);
}

void json_text_octets(struct json_text *text, const void *octets, size_t size)
{
    memcpy(text_room(text, size), octets, size);
    text->size += size;
}

void json_text_append(struct json_text *text, const struct json_text *more)
{
    if (more->size == 0)
        return;
    text_separate(text);
    json_text_octets(text, more->data, more->size);
}

void json_text_open(struct json_text *text, char bracket)
{
    CHECK(bracket == '{' || bracket == '[');
    text_separate(text);
    json_text_octets(text, &bracket, 1);
}

void json_text_close(struct json_text *text, char bracket)
{
    CHECK(bracket == '}' || bracket == ']');
    json_text_octets(text, &bracket, 1);
}

void json_text_key(struct json_text *text, struct span key)
{
    CHECK(key.size > 3 && key.data[key.size - 1] == ':');
    char *room = value_room(text, key.size);
    memcpy(room, key.data, key.size);
    written_to(text, room + key.size);
}

void json_text_name(struct json_text *text, const char *name)
{
    json_text_string(text, name, strlen(name));
    json_text_octets(text, ":", 1);
}

void json_text_number(struct json_text *text, int64_t number)
{
    written_to(text, number_put(value_room(text, DIGITS_MAX), number));
}

void json_text_numbers(struct json_text *text, const uint64_t *numbers, uint32_t count)
{
    char *room = value_room(text, count * (DIGITS_MAX + 1) + 2);

    *room++ = '[';
    for (uint32_t i = 0; i < count; i++) {
        if (i > 0)
            *room++ = ',';
        room = digits_put(room, numbers[i]);
    }
    *room++ = ']';
    written_to(text, room);
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
    char *room = text_room(text, TREE_ROOM);
    size_t size = json_dumpb(tree, room, text->capacity - text->size, TREE_FLAGS);
    if (size > text->capacity - text->size)
        size = json_dumpb(tree, text_room(text, size), size, TREE_FLAGS);
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
    char *room = value_room(text, size + 2);
    *room = '"';
    memcpy(room + 1, string, size);
    room[size + 1] = '"';
    written_to(text, room + size + 2);
}

void json_text_set_number(struct json_text *text, struct span key, uint64_t number)
{
    char *room = value_room(text, key.size + DIGITS_MAX);

    CHECK(key.size > 3 && key.data[key.size - 1] == ':');
    memcpy(room, key.data, key.size);
    written_to(text, number_put(room + key.size, (int64_t)number));
}

void json_text_set_boolean(struct json_text *text, struct span key, bool is_true)
{
    json_text_key(text, key);
    json_text_octets(text, is_true ? "true" : "false", is_true ? 4 : 5);
}

void json_text_set_string(struct json_text *text, struct span key, const char *string)
{
    json_text_key(text, key);
    json_text_string(text, string, strlen(string));
}
