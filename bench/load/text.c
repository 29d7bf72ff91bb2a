/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Making and recognising the messages of a load. Nothing is formatted by printf here: this runs for
 * every message. A body's checksum is known per size up to its last line; only that line and the
 * field are added for each message.
 */
#include "bench/load/text.h"

#include <stdlib.h>

#include "base/rng.h"
#include "queue/crc32c.h"

#define UNIQUE_SIZE 48u /* "====<run>-<number>\r\n" */

uint8_t *text_new(uint32_t size)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 +";
    struct rng rng;
    uint8_t *text = malloc(size);

    CHECK(text != NULL && size >= TEXT_SIZE_MIN && size <= TEXT_SIZE_MAX);
    rng_init_seed(&rng, 20211);
    rng_fill(&rng, text, size);
    for (uint32_t i = 0; i < size; i++) {
        uint32_t column = i % TEXT_LINE_SIZE;
        if (column == TEXT_LINE_SIZE - 2)
            text[i] = '\r';
        else if (column == TEXT_LINE_SIZE - 1)
            text[i] = '\n';
        else
            text[i] = (uint8_t)alphabet[text[i] % 64];
    }
    return text;
}

void text_plan_make(const uint8_t *text, uint32_t size, struct text_plan *ret_plan)
{
    CHECK(size >= TEXT_SIZE_MIN && size <= TEXT_SIZE_MAX);
    struct text_plan plan = {.size = size, .has_unique = size >= TEXT_UNIQUE_MIN};
    plan.prefix = size - 2 - (plan.has_unique ? UNIQUE_SIZE : 0);
    /* Cut between CR and LF, a bare CR would be left: one octet fewer, and a filler. */
    plan.has_filler = plan.prefix % TEXT_LINE_SIZE == TEXT_LINE_SIZE - 1;
    plan.prefix -= plan.has_filler;
    uint32_t checksum = crc32c_update(0, span_of(text, plan.prefix));
    if (plan.has_filler)
        checksum = crc32c_update(checksum, SPAN_LITERAL("+"));
    plan.checksum = crc32c_update(checksum, SPAN_LITERAL("\r\n"));
    *ret_plan = plan;
}

char *text_put(char *at, struct span octets)
{
    memcpy(at, octets.data, octets.size);
    return at + octets.size;
}

char *text_put_number(char *at, uint64_t number)
{
    char digits[20];
    uint32_t size = 0;

    do {
        digits[size++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    while (size > 0)
        *at++ = digits[--size];
    return at;
}

static char *put_hex(char *at, uint64_t number, uint32_t digits_min)
{
    uint32_t digits = number == 0 ? 1 : (67u - (uint32_t)__builtin_clzll(number)) / 4;

    digits = digits < digits_min ? digits_min : digits;
    for (uint32_t i = digits; i > 0; i--)
        *at++ = "0123456789abcdef"[number >> (4 * (i - 1)) & 15];
    return at;
}

char *text_put_id(char *at, uint64_t run, uint64_t number)
{
    at = put_hex(at, run, 1);
    *at++ = '-';
    return text_put_number(at, number);
}

uint32_t text_tail(const struct text_plan *plan, const struct text_identity *identity,
                   char ret_tail[TEXT_TAIL_MAX])
{
    char *at = ret_tail, id[TEXT_ID_SIZE];

    if (plan->has_filler)
        *at++ = '+';
    at = text_put(at, SPAN_LITERAL("\r\n"));
    if (!plan->has_unique)
        return (uint32_t)(at - ret_tail);
    uint32_t id_size = (uint32_t)(text_put_id(id, identity->run, identity->number) - id);
    CHECK(id_size <= UNIQUE_SIZE - 2);
    memset(at, '=', UNIQUE_SIZE - 2 - id_size);
    at = text_put(at + UNIQUE_SIZE - 2 - id_size, span_of(id, id_size));
    at = text_put(at, SPAN_LITERAL("\r\n"));
    return (uint32_t)(at - ret_tail);
}

uint32_t text_field(const struct text_plan *plan, const struct text_identity *identity,
                    struct span tail, char ret_field[TEXT_FIELD_MAX])
{
    char *at = text_put(ret_field, SPAN_LITERAL("X-Load: ")), *covered = at;
    uint32_t checksum = plan->checksum;

    at = text_put_id(at, identity->run, identity->number);
    *at++ = ' ';
    at = text_put_number(at, identity->size);
    *at++ = ' ';
    at = text_put_number(at, identity->recipients);
    *at++ = ' ';
    at = text_put_number(at, (uint64_t)identity->stamp);
    *at++ = ' ';
    if (plan->has_unique)
        checksum = crc32c_update(checksum, span_skip(tail, tail.size - UNIQUE_SIZE));
    checksum = crc32c_update(checksum, span_of(covered, (uint32_t)(at - covered)));
    at = put_hex(at, checksum, 8);
    at = text_put(at, SPAN_LITERAL("\r\n"));
    return (uint32_t)(at - ret_field);
}

/* ---- recognising ---- */

/* The word up to the next blank, taken off. */
static struct span word_take(struct span *text)
{
    const uint8_t *blank = text->size == 0 ? NULL : memchr(text->data, ' ', text->size);
    uint32_t size = blank == NULL ? text->size : (uint32_t)(blank - text->data);
    struct span word = span_head(*text, size);

    *text = span_skip(*text, blank == NULL ? size : size + 1);
    return word;
}

static enum err number_take(struct span *text, uint64_t max, uint64_t *ret_number)
{
    TRY(span_parse_u64(word_take(text), ret_number));
    return *ret_number <= max ? ERR_OK : ERR_PEER_SYNTAX;
}

static enum err checksum_parse(struct span word, uint32_t *ret_checksum)
{
    uint32_t value = 0;

    if (word.size != 8)
        return ERR_PEER_SYNTAX;
    for (uint32_t i = 0; i < 8; i++) {
        const char *digit = memchr("0123456789abcdef", word.data[i], 16);
        if (digit == NULL)
            return ERR_PEER_SYNTAX;
        value = value << 4 | (uint32_t)(strchr("0123456789abcdef", *digit) - "0123456789abcdef");
    }
    *ret_checksum = value;
    return ERR_OK;
}

static bool is_id(struct span word)
{
    if (word.size == 0 || word.size >= TEXT_ID_SIZE)
        return false;
    for (uint32_t i = 0; i < word.size; i++) {
        if (memchr("0123456789abcdef-", word.data[i], 17) == NULL)
            return false;
    }
    return true;
}

enum err text_field_parse(struct span text, struct text_seen *ret_seen)
{
    struct span rest = text, id = word_take(&rest);
    uint64_t size, recipients, stamp;
    struct text_seen seen = {0};

    if (!is_id(id))
        return ERR_PEER_SYNTAX;
    memcpy(seen.id, id.data, id.size);
    TRY(number_take(&rest, TEXT_SIZE_MAX, &size));
    TRY(number_take(&rest, UINT32_MAX, &recipients));
    TRY(number_take(&rest, INT64_MAX, &stamp));
    seen.covered = span_head(text, text.size - rest.size);
    TRY(checksum_parse(word_take(&rest), &seen.checksum));
    seen.size = (uint32_t)size;
    seen.recipients = (uint32_t)recipients;
    seen.stamp = (int64_t)stamp;
    *ret_seen = seen;
    return ERR_OK;
}
