/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_JSON_TEXT_H
#define CONTROL_JSON_TEXT_H

#include <jansson.h>
#include <string.h>

#include "base/check.h"
#include "base/span.h"
#include "control/digits.h"

/*
 * JSON as text, written from its beginning to its end: for answers with many rows, which as a tree
 * of jansson's cost ten times as much. Commas come by themselves. All zero is empty.
 */
struct json_text {
    char *data; /* not terminated */
    size_t size, capacity;
};

/* A member's name as it stands in the text. */
#define JSON_KEY(name) SPAN_LITERAL("\"" name "\":")

void json_text_free(struct json_text *text);
/** Octets as they are. Memory that is not there ends the process, here and below. */
void json_text_octets(struct json_text *text, const void *octets, size_t size);
/** A member whose name is known at run time alone; as json_text_key(). */
void json_text_name(struct json_text *text, const char *name);

void json_text_number(struct json_text *text, int64_t number);
/** An array of them. */
void json_text_numbers(struct json_text *text, const uint64_t *numbers, uint32_t count);
/** Octets of any kind: what is not UTF-8 is escaped as log_escape() does. */
void json_text_string(struct json_text *text, const char *string, size_t size);
/** All of a value that is a tree. Consumes it. */
void json_text_tree(struct json_text *text, json_t *tree);
/** Members or elements that were written before. */
void json_text_append(struct json_text *text, const struct json_text *more);
/** The members of an object that is a tree, between brackets that the caller wrote. Consumes it. */
void json_text_members(struct json_text *text, json_t *tree);

/* ---- inline: with a name that is a constant, it is copied in place ---- */

void json_text_grow(struct json_text *text, size_t size);

/** Where `size` more octets may be written, for who then says up to where they were. */
static inline char *json_text_room(struct json_text *text, size_t size)
{
    if (text->capacity - text->size < size)
        json_text_grow(text, size);
    return text->data + text->size;
}

static inline void json_text_written(struct json_text *text, const char *end)
{
    text->size = (size_t)(end - text->data);
}

/** The same room, behind the comma that belongs before a value or a name. */
static inline char *json_text_value_room(struct json_text *text, size_t size)
{
    char *room = json_text_room(text, size + 1);
    char last = text->size == 0 ? '\n' : room[-1];

    if (last != '{' && last != '[' && last != ':' && last != '\n')
        *room++ = ',';
    return room;
}

/** '{' or '['. */
static inline void json_text_open(struct json_text *text, char bracket)
{
    char *room = json_text_value_room(text, 1);

    CHECK(bracket == '{' || bracket == '[');
    *room = bracket;
    json_text_written(text, room + 1);
}

static inline void json_text_close(struct json_text *text, char bracket)
{
    char *room = json_text_room(text, 1);

    CHECK(bracket == '}' || bracket == ']');
    *room = bracket;
    json_text_written(text, room + 1);
}

/** What comes next is the value of this member (JSON_KEY). */
static inline void json_text_key(struct json_text *text, struct span key)
{
    char *room = json_text_value_room(text, key.size);

    CHECK(key.size > 3 && key.data[key.size - 1] == ':');
    memcpy(room, key.data, key.size);
    json_text_written(text, room + key.size);
}

/** Members: a name with its value. */
static inline void json_text_set_number(struct json_text *text, struct span key, uint64_t number)
{
    char *room = json_text_value_room(text, key.size + DIGITS_MAX + 1);

    CHECK(key.size > 3 && key.data[key.size - 1] == ':');
    memcpy(room, key.data, key.size);
    json_text_written(text, digits_put_signed(room + key.size, (int64_t)number));
}

static inline void json_text_set_boolean(struct json_text *text, struct span key, bool is_true)
{
    char *room = json_text_value_room(text, key.size + 8);

    CHECK(key.size > 3 && key.data[key.size - 1] == ':');
    memcpy(room, key.data, key.size);
    room += key.size;
    memcpy(room, is_true ? "true" : "false", 5); /* with its end, which is not counted */
    json_text_written(text, room + (is_true ? 4 : 5));
}

static inline void json_text_set_string(struct json_text *text, struct span key, const char *string)
{
    json_text_key(text, key);
    json_text_string(text, string, strlen(string));
}

#endif
