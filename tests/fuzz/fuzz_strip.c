/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any header, in pieces of any size: no line of the field is left, whatever else comes through
 * octet for octet, and the result does not depend on the split.
 */
#include "relay/smtp_strip.h"

#include <ctype.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define NAME "X-Pool"

struct output {
    uint8_t *data;
    uint32_t size;
};

static void put(struct output *output, struct span octets)
{
    if (octets.size > 0)
        memcpy(output->data + output->size, octets.data, octets.size);
    output->size += octets.size;
}

static void feed(struct smtp_strip *strip, struct span text, uint32_t step, struct output *output)
{
    smtp_strip_init(strip, SPAN_LITERAL(NAME));
    while (text.size > 0) {
        struct span piece = span_head(text, text.size < step ? text.size : step);
        put(output, smtp_strip_release(strip, piece));
        piece = span_head(piece, smtp_strip_limit(piece));
        if (!smtp_strip_takes(strip, piece))
            put(output, piece);
        text = span_skip(text, piece.size);
    }
    put(output, smtp_strip_release(strip, SPAN_LITERAL("\n")));
}

static bool is_field(struct span line)
{
    uint32_t size = (uint32_t)strlen(NAME);

    return line.size > size && span_is_equal_nocase(span_head(line, size), SPAN_LITERAL(NAME)) &&
           strchr(": \t", line.data[size]) != NULL && line.data[size] != 0;
}

static void check_lines(struct span text)
{
    while (text.size > 0) {
        uint32_t size = smtp_strip_limit(text);
        CHECK(!is_field(span_head(text, size)));
        text = span_skip(text, size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct smtp_strip one, other;
    struct span value, value_other;

    if (size < 1 || size > 65536)
        return 0;
    struct span text = span_of(data + 1, (uint32_t)size - 1);
    struct output whole = {.data = malloc(size)}, split = {.data = malloc(size)};
    CHECK(whole.data != NULL && split.data != NULL);
    feed(&one, text, UINT32_MAX, &whole);
    feed(&other, text, 1 + data[0] % 64u, &split);
    CHECK(span_is_equal(span_of(whole.data, whole.size), span_of(split.data, split.size)));
    CHECK(one.size == text.size - whole.size && one.field_count == other.field_count);
    CHECK((one.size > 0) == (one.field_count > 0));
    check_lines(span_of(whole.data, whole.size));
    enum err err = smtp_strip_value(&one, &value);
    CHECK(err == smtp_strip_value(&other, &value_other));
    if (err == ERR_OK) {
        CHECK(span_is_equal(value, value_other) && value.size > 0);
        for (uint32_t i = 0; i < value.size; i++)
            CHECK(isalnum(value.data[i]) || strchr("._-", value.data[i]) != NULL);
    }
    free(whole.data);
    free(split.data);
    return 0;
}
