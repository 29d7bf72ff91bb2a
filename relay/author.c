/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses in From and Sender (RFC 5322 sections 3.4 and 3.6.2), one after the other as the
 * header streams in.
 *
 *   LINE    at the beginning of a line
 *   NAME    in the name of a field; BLANKS behind it (RFC 5322 section 4.5)
 *   FIELD   in the value of From or Sender
 *   REST    of a line that is nothing to us
 *   EMPTY   a CR at the beginning of a line;  DONE   behind the header
 *
 *   LINE -> NAME -> BLANKS -> FIELD | REST        NAME -> FIELD | REST        FIELD, REST -> LINE
 *   LINE -blank-> FIELD in From or Sender, else REST       LINE -> EMPTY -> DONE
 *
 * Programs differ in how they read what is no proper address, and each of them shows somebody as
 * the author. So what is not exactly an address, in a list, is refused like somebody else's: two
 * words without brackets, something behind a closing bracket, a string or comment without an end, a
 * field without any address.
 *
 * Invariants
 *   1. The split of the input changes nothing.
 *   2. Every address between two commas, semicolons or ends of a field was shown to `owns`, or the
 *      message is refused.
 *
 * Limits: SMTP_PATH_MAX octets of an address; names in front of brackets have none.
 */
#include "relay/author.h"

#include <string.h>

enum { LINE, NAME, BLANKS, FIELD, REST, EMPTY, DONE };

void author_check_init(struct author_check *check,
                       bool (*owns)(const void *context, const struct smtp_address *address),
                       const void *context)
{
    CHECK(owns != NULL);
    memset(check, 0, sizeof(*check));
    check->owns = owns;
    check->context = context;
    check->state = LINE;
}

/* ---- addresses ---- */

static void address_reset(struct author_check *check)
{
    check->size = 0;
    check->has_gap = check->is_broken = false;
    check->is_angle = check->was_angle = false;
}

/* At a comma, a semicolon, or the end of the field. */
static void address_end(struct author_check *check)
{
    struct smtp_address address;
    uint32_t size;

    if (check->size == 0 && !check->was_angle && !check->is_angle)
        return; /* an empty element of a list: RFC 5322 section 4.4 */
    check->address_count++;
    check->text[0] = '<';
    check->text[check->size + 1] = '>';
    struct span path = span_of(check->text, check->size + 2u);
    if (check->is_broken || check->is_angle ||
        smtp_path_parse(path, SMTP_PATH_UTF8_OK, &address, &size) != ERR_OK || size != path.size ||
        !check->owns(check->context, &address))
        check->is_refused = true;
    address_reset(check);
}

static bool is_joint(uint8_t octet)
{
    return octet == '@' || octet == '.';
}

static void address_put(struct author_check *check, uint8_t octet)
{
    if (check->was_angle)
        check->is_refused = true; /* nothing but a comment may follow "<...>" */
    if (check->has_gap && check->size > 0 && !is_joint(octet) &&
        !is_joint(check->text[check->size]))
        check->is_broken = true;
    check->has_gap = false;
    if (check->size == SMTP_PATH_MAX)
        check->is_broken = true;
    else
        check->text[++check->size] = octet;
}

/* An octet outside of comments and quoted strings. */
static void address_octet(struct author_check *check, uint8_t octet)
{
    switch (octet) {
    case ' ':
    case '\t':
        check->has_gap = true;
        break;
    case '(':
        check->depth = 1;
        break;
    case '"':
        check->is_quoted = true;
        address_put(check, octet);
        break;
    case '<':
        check->is_refused |= check->is_angle || check->was_angle;
        address_reset(check); /* what came before was a name */
        check->is_angle = true;
        break;
    case '>':
        check->is_refused |= !check->is_angle;
        check->was_angle = true;
        check->is_angle = false;
        break;
    case ':':
        if (check->is_angle) { /* of a source route */
            address_put(check, octet);
        } else { /* what came before was the name of a group */
            check->is_refused |= check->was_angle;
            address_reset(check);
        }
        break;
    case ',':
        if (check->is_angle)
            address_put(check, octet);
        else
            address_end(check);
        break;
    case ';':
        address_end(check);
        break;
    default:
        address_put(check, octet);
    }
}

/* What may be in a comment or a quoted string. */
static void value_octet(struct author_check *check, uint8_t octet)
{
    bool is_inside = check->depth > 0 || check->is_quoted;

    if (octet == '\r')
        return;
    if (check->is_quoted)
        address_put(check, octet);
    if (check->is_escaped) {
        check->is_escaped = false;
    } else if (is_inside && octet == '\\') {
        check->is_escaped = true;
    } else if (check->depth > 0) {
        check->depth += octet == '(';
        check->depth -= octet == ')';
        check->has_gap = true;
    } else if (check->is_quoted) {
        check->is_quoted = octet != '"';
    } else {
        address_octet(check, octet);
    }
}

/* ---- fields ---- */

static void field_begin(struct author_check *check)
{
    struct span name = span_of(check->name, check->name_size);
    bool is_ours = span_is_equal_nocase(name, SPAN_LITERAL("From")) ||
                   span_is_equal_nocase(name, SPAN_LITERAL("Sender"));

    check->state = is_ours ? FIELD : REST;
    check->is_in_field = is_ours;
    check->address_count = 0;
    check->depth = 0;
    check->is_quoted = check->is_escaped = false;
    address_reset(check);
}

static void field_end(struct author_check *check)
{
    if (!check->is_in_field)
        return;
    check->is_in_field = false;
    address_end(check);
    if (check->depth > 0 || check->is_quoted || check->address_count == 0)
        check->is_refused = true;
}

static bool is_blank(uint8_t octet)
{
    return octet == ' ' || octet == '\t';
}

static void name_octet(struct author_check *check, uint8_t octet)
{
    if (octet == ':')
        field_begin(check);
    else if (is_blank(octet))
        check->state = BLANKS;
    else if (check->name_size == sizeof(check->name))
        check->state = REST;
    else
        check->name[check->name_size++] = (char)octet;
}

static void line_begin(struct author_check *check, uint8_t octet)
{
    if (is_blank(octet)) {
        check->state = check->is_in_field ? FIELD : REST;
        if (check->is_in_field)
            value_octet(check, octet);
        return;
    }
    field_end(check);
    check->state = octet == '\r' ? EMPTY : NAME;
    check->name_size = 0;
    if (octet != '\r')
        name_octet(check, octet);
}

static void octet_feed(struct author_check *check, uint8_t octet)
{
    if (octet == '\n') {
        check->state = check->state == EMPTY ? DONE : LINE;
        return;
    }
    switch (check->state) {
    case LINE:
        line_begin(check, octet);
        break;
    case NAME:
        name_octet(check, octet);
        break;
    case BLANKS:
        if (octet == ':')
            field_begin(check);
        else if (!is_blank(octet))
            check->state = REST;
        break;
    case FIELD:
        value_octet(check, octet);
        break;
    default:
        check->state = REST;
    }
}

void author_check_feed(struct author_check *check, struct span octets)
{
    for (uint32_t i = 0; i < octets.size && check->state != DONE; i++) {
        if (check->state == REST) {
            const uint8_t *lf = memchr(octets.data + i, '\n', octets.size - i);
            if (lf == NULL)
                return;
            i = (uint32_t)(lf - octets.data);
        }
        octet_feed(check, octets.data[i]);
    }
}

void author_check_finish(struct author_check *check)
{
    if (check->state == DONE)
        return;
    field_end(check);
    check->state = DONE;
}
