/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Choices with weights. Rows keep running sums, a pick is a draw below the whole sum and a binary
 * search: some hundred instructions at a thousand rows, nothing to set up.
 *
 * Invariant: rows[i].until = rows[i - 1].until + rows[i].weight, weights > 0; the sum of
 * DIST_ROW_MAX largest weights fits 64 bits with so much to spare that the bias of a remainder does
 * not show (below 10^-6).
 */
#include "bench/load/dist.h"

#include <stdio.h>
#include <stdlib.h>

_Static_assert(DIST_ROW_MAX *DIST_WEIGHT_MAX < UINT64_MAX / 1000000, "sums of weights are small");

static bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t' || octet == '\r';
}

static struct span trim(struct span text)
{
    while (text.size > 0 && is_blank(text.data[0]))
        text = span_skip(text, 1);
    while (text.size > 0 && is_blank(text.data[text.size - 1]))
        text.size--;
    return text;
}

enum err dist_decimal_parse(struct span text, uint64_t max, uint64_t *ret_value)
{
    const uint8_t *point = text.size == 0 ? NULL : memchr(text.data, '.', text.size);
    uint32_t whole_size = point == NULL ? text.size : (uint32_t)(point - text.data);
    uint64_t whole, value, unit = DIST_WEIGHT_ONE;

    if (span_parse_u64(span_head(text, whole_size), &whole) != ERR_OK ||
        whole > max / DIST_WEIGHT_ONE)
        return ERR_PEER_SYNTAX;
    value = whole * DIST_WEIGHT_ONE;
    if (point != NULL) {
        struct span fraction = span_skip(text, whole_size + 1);
        if (fraction.size == 0 || fraction.size > 4)
            return ERR_PEER_SYNTAX;
        for (uint32_t i = 0; i < fraction.size; i++) {
            if (fraction.data[i] < '0' || fraction.data[i] > '9')
                return ERR_PEER_SYNTAX;
            unit /= 10;
            value += (uint64_t)(fraction.data[i] - '0') * unit;
        }
    }
    if (value > max)
        return ERR_PEER_SYNTAX;
    *ret_value = value;
    return ERR_OK;
}

enum err dist_size_parse(struct span text, uint32_t *ret_size)
{
    uint64_t value, unit = 1;

    if (text.size > 1 && (text.data[text.size - 1] | 0x20) == 'k')
        unit = 1024;
    else if (text.size > 1 && (text.data[text.size - 1] | 0x20) == 'm')
        unit = 1048576;
    if (unit > 1)
        text.size--;
    if (span_parse_u64(text, &value) != ERR_OK || value > UINT32_MAX / unit)
        return ERR_PEER_SYNTAX;
    *ret_size = (uint32_t)(value * unit);
    return ERR_OK;
}

static enum err refuse(struct dist *dist, uint32_t row, const char *what, char why[DIST_WHY_SIZE])
{
    (void)snprintf(why, DIST_WHY_SIZE, "row %u: %s", row, what);
    dist_fini(dist);
    return ERR_CONFIG_VALUE;
}

/* What is wrong with it, or NULL. */
static const char *row_add(struct dist *dist, struct span name, struct span weight)
{
    uint64_t value = DIST_WEIGHT_ONE;

    if (name.data == NULL || name.size == 0)
        return "there is no name";
    if (name.size >= DIST_NAME_SIZE)
        return "the name is too long";
    for (uint32_t i = 0; i < name.size; i++) {
        if (name.data[i] <= ' ' || name.data[i] == '<' || name.data[i] == '>' ||
            name.data[i] == 0x7f)
            return "a blank, a control character, '<' or '>' in the name";
    }
    if (weight.data != NULL &&
        (dist_decimal_parse(weight, DIST_WEIGHT_MAX, &value) != ERR_OK || value == 0))
        return "the weight is not a number within 0.0001 and 1000000 of at most four decimals";
    if (dist->count == DIST_ROW_MAX)
        return "these are too many, 1024 is the limit";
    if (dist->rows == NULL)
        dist->rows = calloc(DIST_ROW_MAX, sizeof(*dist->rows));
    CHECK(dist->rows != NULL);
    struct dist_row *row = &dist->rows[dist->count];
    memcpy(row->name, name.data, name.size);
    row->name_size = name.size;
    row->weight = value;
    row->until = value + (dist->count > 0 ? row[-1].until : 0);
    dist->count++;
    return NULL;
}

/* "name:weight"; the colons of an address literal, [IPv6:...], do not count. */
static void list_split(struct span part, struct span *ret_name, struct span *ret_weight)
{
    *ret_name = part;
    *ret_weight = (struct span){NULL, 0};
    if (part.data == NULL || part.size == 0)
        return;
    const uint8_t *close = memrchr(part.data, ']', part.size);
    uint32_t from = close == NULL ? 0 : (uint32_t)(close - part.data);
    const uint8_t *colon = memchr(part.data + from, ':', part.size - from);
    if (colon == NULL)
        return;
    *ret_name = trim(span_head(part, (uint32_t)(colon - part.data)));
    *ret_weight = trim(span_skip(part, (uint32_t)(colon - part.data) + 1));
}

enum err dist_parse_list(struct span text, struct dist *ret_dist, char ret_why[DIST_WHY_SIZE])
{
    uint32_t row = 1;

    *ret_dist = (struct dist){0};
    for (bool is_last = false; !is_last; row++) {
        const uint8_t *comma = text.size == 0 ? NULL : memchr(text.data, ',', text.size);
        uint32_t size = comma == NULL ? text.size : (uint32_t)(comma - text.data);
        struct span name, weight;

        list_split(trim(span_head(text, size)), &name, &weight);
        bool has_weight = weight.data != NULL;
        if (row > 1 && has_weight != ret_dist->is_weighted)
            return refuse(ret_dist, row, "either all have a weight or none", ret_why);
        ret_dist->is_weighted = has_weight;
        const char *wrong = row_add(ret_dist, name, weight);
        if (wrong != NULL)
            return refuse(ret_dist, row, wrong, ret_why);
        is_last = comma == NULL;
        text = span_skip(text, is_last ? size : size + 1);
    }
    return ERR_OK;
}

static const char *line_add(struct dist *dist, struct span line)
{
    uint32_t size = 0;

    while (size < line.size && !is_blank(line.data[size]))
        size++;
    struct span weight = trim(span_skip(line, size));
    if (weight.size == 0)
        return "a name and a weight are wanted";
    return row_add(dist, span_head(line, size), weight);
}

enum err dist_parse_rows(struct span text, struct dist *ret_dist, char ret_why[DIST_WHY_SIZE])
{
    *ret_dist = (struct dist){.is_weighted = true};
    if (text.size > DIST_TEXT_MAX)
        return refuse(ret_dist, 1, "the file is too large", ret_why);
    for (uint32_t row = 1; text.size > 0; row++) {
        const uint8_t *end = memchr(text.data, '\n', text.size);
        uint32_t size = end == NULL ? text.size : (uint32_t)(end - text.data);
        struct span line = span_head(text, size);
        const uint8_t *comment = size == 0 ? NULL : memchr(line.data, '#', size);

        if (comment != NULL)
            line.size = (uint32_t)(comment - line.data);
        line = trim(line);
        const char *wrong = line.size == 0 ? NULL : line_add(ret_dist, line);
        if (wrong != NULL)
            return refuse(ret_dist, row, wrong, ret_why);
        text = span_skip(text, end == NULL ? size : size + 1);
    }
    return ret_dist->count > 0 ? ERR_OK : refuse(ret_dist, 1, "there is no row", ret_why);
}

void dist_fini(struct dist *dist)
{
    free(dist->rows);
    *dist = (struct dist){0};
}

uint32_t dist_pick(struct dist *dist, struct rng *rng)
{
    CHECK(dist->count > 0);
    if (dist->count == 1)
        return 0;
    if (!dist->is_weighted)
        return (uint32_t)(dist->turn++ % dist->count);
    uint64_t draw = rng_u64(rng) % dist->rows[dist->count - 1].until;
    uint32_t low = 0, high = dist->count - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (draw < dist->rows[middle].until)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
