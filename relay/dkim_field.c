/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The text of a DKIM-Signature field (RFC 6376 section 3.5).
 *
 *   DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.org; s=2026;
 *   \tt=1764115200; x=1764720000; i=@example.org;
 *   \th=From:From:To:Subject;
 *   \tbh=...;
 *   \tb=...
 *
 * b= stands last: the field is signed with an empty b=, which is then all up to "b=", in both
 * canonical forms. Lines are folded at LINE_SIZE, between tags, names of h= and inside of b=; a
 * value that must not be split gets a line of its own.
 *
 * Which fields are signed: for each name of `headers` as often as it is in the message, from the
 * bottom up (section 5.4.2), and once more if it is in `oversign`: a field added on the way then
 * breaks the signature (section 8.15). Names that are only in `oversign` follow.
 */
#include <stdio.h>

#include "relay/dkim_internal.h"

#define LINE_SIZE    76u
#define TAG_SIZE_MAX 512u

/* ---- which fields ---- */

static bool list_has(const char *const *names, uint32_t count, const char *name)
{
    for (uint32_t i = 0; i < count; i++) {
        if (span_is_equal_nocase(span_from_text(names[i]), span_from_text(name)))
            return true;
    }
    return false;
}

static void visit_name(const char *text, bool is_oversigned, const struct dkim_header *header,
                       void (*visit)(void *context, struct span name,
                                     const struct dkim_field *field),
                       void *context)
{
    struct span name = span_from_text(text);
    uint32_t index = header->count;

    while ((index = dkim_header_find_above(header, name, index)) < header->count)
        visit(context, name, &header->fields[index]);
    if (is_oversigned)
        visit(context, name, NULL);
}

void dkim_signed_fields(const struct settings_dkim *rule, const struct dkim_header *header,
                        void (*visit)(void *context, struct span name,
                                      const struct dkim_field *field),
                        void *context)
{
    for (uint32_t i = 0; i < rule->header_count; i++)
        visit_name(rule->headers[i],
                   list_has(rule->oversign, rule->oversign_count, rule->headers[i]), header, visit,
                   context);
    for (uint32_t i = 0; i < rule->oversign_count; i++) {
        if (!list_has(rule->headers, rule->header_count, rule->oversign[i]))
            visit_name(rule->oversign[i], true, header, visit, context);
    }
}

/* ---- text ---- */

static void put(struct dkim_writer *writer, struct span text)
{
    if (writer->is_full || text.size > writer->room - writer->size) {
        writer->is_full = true;
        return;
    }
    memcpy(writer->octets + writer->size, text.data, text.size);
    writer->size += text.size;
    writer->column += text.size;
}

static void fold(struct dkim_writer *writer)
{
    put(writer, SPAN_LITERAL("\r\n\t"));
    writer->column = 8;
}

/* "name=value;", behind a space or on a new line. */
static void put_tag(struct dkim_writer *writer, const char *name, const char *value)
{
    char tag[TAG_SIZE_MAX];
    int size = snprintf(tag, sizeof(tag), "%s=%s;", name, value);

    CHECK(size > 0 && size < (int)sizeof(tag)); /* the configuration's bounds */
    if (writer->column + (uint32_t)size + 1 > LINE_SIZE)
        fold(writer);
    else
        put(writer, SPAN_LITERAL(" "));
    put(writer, span_of(tag, (uint32_t)size));
}

static void put_number_tag(struct dkim_writer *writer, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    put_tag(writer, name, text);
}

/* RFC 4648 section 4. `ret_text` has room for four octets for every three begun. */
static struct span base64(struct span octets, uint8_t *ret_text)
{
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t size = 0;

    for (uint32_t i = 0; i < octets.size; i += 3) {
        uint32_t left = octets.size - i;
        uint32_t bits = (uint32_t)octets.data[i] << 16 |
                        (left > 1 ? (uint32_t)octets.data[i + 1] << 8 : 0) |
                        (left > 2 ? octets.data[i + 2] : 0);
        ret_text[size++] = (uint8_t)letters[bits >> 18];
        ret_text[size++] = (uint8_t)letters[bits >> 12 & 63];
        ret_text[size++] = left > 1 ? (uint8_t)letters[bits >> 6 & 63] : '=';
        ret_text[size++] = left > 2 ? (uint8_t)letters[bits & 63] : '=';
    }
    return span_of(ret_text, size);
}

static void put_name(void *context, struct span name, const struct dkim_field *field)
{
    struct dkim_writer *writer = context;
    bool is_first = writer->size > 0 && writer->octets[writer->size - 1] == '=';

    (void)field;
    if (!is_first)
        put(writer, SPAN_LITERAL(":"));
    if (!is_first && writer->column + name.size + 1 > LINE_SIZE)
        fold(writer);
    put(writer, name);
}

void dkim_signature_begin(struct dkim_writer *writer, const struct settings_dkim *rule,
                          const struct dkim_header *header,
                          const uint8_t body_digest[DKIM_DIGEST_SIZE], wall_us now)
{
    static const char *const canons[] = {[DKIM_SIMPLE] = "simple", [DKIM_RELAXED] = "relaxed"};
    uint64_t seconds = now > 0 ? (uint64_t)now / 1000000 : 0;
    uint8_t text[(DKIM_DIGEST_SIZE + 2) / 3 * 4 + 1];
    char canon[24];

    writer->column = 0;
    put(writer, SPAN_LITERAL("DKIM-Signature: v=1;"));
    put_tag(writer, "a", dkim_key_algorithm(rule->key));
    snprintf(canon, sizeof(canon), "%s/%s", canons[rule->header_canon], canons[rule->body_canon]);
    put_tag(writer, "c", canon);
    put_tag(writer, "d", rule->domain);
    put_tag(writer, "s", rule->selector);
    put_number_tag(writer, "t", seconds);
    if (rule->expire_s > 0)
        put_number_tag(writer, "x", seconds + rule->expire_s);
    if (rule->identity != NULL)
        put_tag(writer, "i", rule->identity);
    fold(writer);
    put(writer, SPAN_LITERAL("h="));
    dkim_signed_fields(rule, header, put_name, writer);
    put(writer, SPAN_LITERAL(";"));
    struct span digest = base64(span_of(body_digest, DKIM_DIGEST_SIZE), text);
    text[digest.size] = '\0';
    put_tag(writer, "bh", (const char *)text);
    fold(writer);
    put(writer, SPAN_LITERAL("b="));
}

void dkim_signature_end(struct dkim_writer *writer, struct span signature)
{
    uint8_t text[(DKIM_SIGNATURE_SIZE_MAX + 2) / 3 * 4];

    CHECK(signature.size <= DKIM_SIGNATURE_SIZE_MAX);
    struct span rest = base64(signature, text);
    while (rest.size > 0) {
        uint32_t size = LINE_SIZE > writer->column ? LINE_SIZE - writer->column : 0;
        if (size > rest.size)
            size = rest.size;
        put(writer, span_head(rest, size));
        rest = span_skip(rest, size);
        if (writer->is_full)
            return;
        if (rest.size > 0)
            fold(writer);
    }
    put(writer, SPAN_LITERAL("\r\n"));
}
