/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A message's header as a table of fields, and the domain of its authors.
 *
 * A header in which a line is neither a field nor a continuation ends at different places for
 * different readers, so it is not signed. For the same reason the authors' domain is only what all
 * readers must agree on: exactly one domain, whatever is written in comments and quoted strings.
 *
 *   From: "a@b" (c@d) <x@example.org>, y@EXAMPLE.org   ->  example.org
 *
 * Limits: DKIM_FIELD_MAX fields; ADDRESS_SIZE_MAX octets of one address.
 */
#include <stdlib.h>

#include "relay/dkim_internal.h"
#include "relay/smtp_address.h"

#define ADDRESS_SIZE_MAX 512u

static bool is_space(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

/* ---- fields ---- */

/* The front up to and with the first CRLF, or all. */
static struct span line_of(struct span octets)
{
    uint32_t at = 0;

    while (at < octets.size) {
        const uint8_t *lf = memchr(octets.data + at, '\n', octets.size - at);
        if (lf == NULL)
            break;
        at = (uint32_t)(lf - octets.data) + 1;
        if (at >= 2 && octets.data[at - 2] == '\r')
            return span_head(octets, at);
    }
    return octets;
}

/* RFC 5322 section 2.2, and white space behind the name, as section 4.5.8 has it. */
static bool name_parse(struct span line, struct span *ret_name)
{
    uint32_t size = 0;

    while (size < line.size && line.data[size] > ' ' && line.data[size] < 127 &&
           line.data[size] != ':')
        size++;
    uint32_t colon = size;
    while (colon < line.size && is_space(line.data[colon]))
        colon++;
    *ret_name = span_head(line, size);
    return size > 0 && colon < line.size && line.data[colon] == ':';
}

static bool header_grow(struct dkim_header *header, uint32_t *capacity)
{
    if (header->count < *capacity)
        return true;
    *capacity = *capacity == 0 ? 32 : 2 * *capacity;
    struct dkim_field *fields = reallocarray(header->fields, *capacity, sizeof(*fields));
    if (fields == NULL)
        return false;
    header->fields = fields;
    return true;
}

static enum err header_cut(struct span octets, struct dkim_header *header)
{
    uint32_t capacity = 0;

    while (octets.size > 0) {
        struct span line = line_of(octets);
        if (is_space(line.data[0])) {
            if (header->count == 0)
                return ERR_PEER_SYNTAX;
            header->fields[header->count - 1].text.size += line.size;
        } else {
            struct dkim_field field = {.text = line};
            if (!name_parse(line, &field.name))
                return ERR_PEER_SYNTAX;
            if (header->count == DKIM_FIELD_MAX)
                return ERR_LIMIT;
            if (!header_grow(header, &capacity))
                return ERR_MEMORY;
            header->fields[header->count++] = field;
        }
        octets = span_skip(octets, line.size);
    }
    return ERR_OK;
}

enum err dkim_header_parse(struct span octets, struct dkim_header *ret_header)
{
    struct dkim_header header = {0};
    enum err err = header_cut(octets, &header);

    if (err != ERR_OK) {
        dkim_header_fini(&header);
        return err;
    }
    *ret_header = header;
    return ERR_OK;
}

void dkim_header_fini(struct dkim_header *header)
{
    free(header->fields);
    *header = (struct dkim_header){0};
}

uint32_t dkim_header_find_above(const struct dkim_header *header, struct span name, uint32_t index)
{
    CHECK(index <= header->count);
    while (index > 0) {
        index--;
        if (span_is_equal_nocase(header->fields[index].name, name))
            return index;
    }
    return header->count;
}

/* ---- the authors ---- */

enum err dkim_domain_normalize(struct span domain, char ret_domain[MX_NAME_MAX])
{
    uint8_t path[SMTP_PATH_MAX];
    struct smtp_address address;
    uint32_t used;

    if (domain.size == 0 || domain.size > SMTP_PATH_MAX - 4)
        return ERR_PEER_SYNTAX;
    memcpy(path, "<x@", 3);
    memcpy(path + 3, domain.data, domain.size);
    path[domain.size + 3] = '>';
    if (smtp_path_parse(span_of(path, domain.size + 4), SMTP_PATH_UTF8_OK, &address, &used) !=
            ERR_OK ||
        used != domain.size + 4)
        return ERR_PEER_SYNTAX;
    memcpy(ret_domain, address.domain_key, address.domain_key_size);
    ret_domain[address.domain_key_size] = '\0';
    return ERR_OK;
}

/* The present address of the list: text outside of comments, a quoted string as one '"'. */
struct author {
    uint8_t text[ADDRESS_SIZE_MAX];
    uint32_t size;
    bool is_angle, was_angle; /* inside of "<...>", behind it */
};

struct author_scan {
    struct author author;
    char domain[MX_NAME_MAX]; /* of the addresses so far; "": none yet */
    uint32_t depth;           /* of comments */
    bool is_quoted;
};

/* The address is complete: its domain must be that of the others. False: it is no address. */
static bool author_end(struct author_scan *scan)
{
    struct author *author = &scan->author;
    struct span text = span_of(author->text, author->size);
    char domain[MX_NAME_MAX];

    if (author->is_angle)
        return false;
    if (author->size == 0 && !author->was_angle)
        return true; /* an empty element of a list: RFC 5322 section 4.4 */
    const uint8_t *at = memrchr(text.data, '@', text.size);
    if (at == NULL ||
        dkim_domain_normalize(span_skip(text, (uint32_t)(at - text.data) + 1), domain) != ERR_OK)
        return false;
    if (scan->domain[0] != '\0' && strcmp(scan->domain, domain) != 0)
        return false;
    memcpy(scan->domain, domain, sizeof(domain));
    author->size = 0;
    author->was_angle = false;
    return true;
}

static bool author_put(struct author *author, uint8_t octet)
{
    if (author->was_angle || author->size == ADDRESS_SIZE_MAX)
        return false; /* nothing but a comment may follow "<...>" */
    author->text[author->size++] = octet;
    return true;
}

/* An octet outside of comments and quoted strings. */
static bool author_octet(struct author_scan *scan, uint8_t octet)
{
    struct author *author = &scan->author;

    switch (octet) {
    case ' ':
    case '\t':
    case '\r':
    case '\n':
        return true;
    case '<':
        if (author->is_angle || author->was_angle)
            return false;
        author->is_angle = true;
        author->size = 0; /* what came before was a name */
        return true;
    case '>':
        author->was_angle = author->is_angle;
        author->is_angle = false;
        return author->was_angle;
    case ',':
        if (author->is_angle) /* a source route: what counts is behind the last '@' */
            return author_put(author, octet);
        return author_end(scan);
    case ':': /* of a group, or of a source route */
        if (!author->is_angle)
            author->size = 0;
        return !author->was_angle;
    case ';':
        return !author->is_angle && author_end(scan);
    default:
        return author_put(author, octet);
    }
}

/* What may be in a comment or a quoted string. */
static bool scan_octet(struct author_scan *scan, uint8_t octet)
{
    if (scan->depth > 0) {
        scan->depth += octet == '(';
        scan->depth -= octet == ')';
        return true;
    }
    if (octet == '"') {
        scan->is_quoted = !scan->is_quoted;
        return !scan->is_quoted || author_put(&scan->author, octet);
    }
    if (scan->is_quoted)
        return true;
    if (octet == '(') {
        scan->depth = 1;
        return true;
    }
    return author_octet(scan, octet);
}

enum err dkim_author_domain(struct span from, char ret_domain[MX_NAME_MAX])
{
    const uint8_t *colon = memchr(from.data, ':', from.size);
    struct author_scan scan = {0};

    CHECK(colon != NULL);
    from = span_skip(from, (uint32_t)(colon - from.data) + 1);
    for (uint32_t i = 0; i < from.size; i++) {
        bool is_escape = from.data[i] == '\\' && (scan.depth > 0 || scan.is_quoted);
        if (is_escape)
            i++; /* a quoted pair: the octet means nothing */
        else if (!scan_octet(&scan, from.data[i]))
            return ERR_PEER_SYNTAX;
    }
    if (scan.depth > 0 || scan.is_quoted || !author_end(&scan) || scan.domain[0] == '\0')
        return ERR_PEER_SYNTAX;
    memcpy(ret_domain, scan.domain, sizeof(scan.domain));
    return ERR_OK;
}
