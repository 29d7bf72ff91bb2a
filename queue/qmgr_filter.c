/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words in which an operator says which mail is meant.
 *
 * A term is a row of one table: its name, its bit, and who reads its value. A term may come once; a
 * name that is no row, an empty value and a value out of its bounds are refused with the reason, as
 * a filter that is misunderstood would hold or delete the wrong mail.
 */
#include "queue/qmgr_filter.h"

#include <ctype.h>
#include <stdio.h>

#define FILTER_TIME_MAX TICK_S(10ull * 366 * 86400)

/* ---- values ---- */

static bool text_set(struct span value, struct qmgr_filter_text *ret_text)
{
    if (value.size == 0 || value.size > sizeof(ret_text->octets))
        return false;
    for (uint32_t i = 0; i < value.size; i++) {
        uint8_t octet = value.data[i];
        if (octet < ' ' || octet == 0x7f)
            return false;
        ret_text->octets[i] = (char)octet;
    }
    ret_text->size = (uint16_t)value.size;
    return true;
}

static bool id_read(struct span value, struct qmgr_filter *filter)
{
    return message_id_parse(value, &filter->id) == ERR_OK;
}

/* Lower case, without the final dot: as the queue keeps them. */
static bool domain_set(struct span value, struct qmgr_filter_text *ret_text)
{
    if (value.size > 1 && value.data[value.size - 1] == '.')
        value.size--;
    if (value.size > ENVELOPE_DOMAIN_SIZE_MAX || !text_set(value, ret_text))
        return false;
    for (uint32_t i = 0; i < ret_text->size; i++)
        ret_text->octets[i] = (char)tolower((unsigned char)ret_text->octets[i]);
    return true;
}

/* The queue has domains in A-labels: another spelling would never match, and say nothing of it. */
static bool domain_read(struct span value, struct qmgr_filter *filter)
{
    for (uint32_t i = 0; i < value.size; i++) {
        if (value.data[i] <= ' ' || value.data[i] >= 0x7f)
            return false;
    }
    return domain_set(value, &filter->domain);
}

static bool site_read(struct span value, struct qmgr_filter *filter)
{
    return domain_set(value, &filter->site);
}

static bool source_read(struct span value, struct qmgr_filter *filter)
{
    if (span_is_equal(value, SPAN_LITERAL("default"))) {
        filter->source.size = 0;
        return true;
    }
    return text_set(value, &filter->source);
}

static bool class_read(struct span value, struct qmgr_filter *filter)
{
    uint64_t number;

    filter->class_name.size = 0;
    if (value.size == 0)
        return false;
    if (value.data[0] < '0' || value.data[0] > '9')
        return text_set(value, &filter->class_name);
    if (span_parse_u64(value, &number) != ERR_OK || number > UINT8_MAX)
        return false;
    filter->class = (uint16_t)number;
    return true;
}

static bool order_read(struct span value, struct qmgr_filter *filter)
{
    uint64_t number;

    if (span_parse_u64(value, &number) != ERR_OK || number > UINT32_MAX)
        return false;
    filter->order = (uint32_t)number;
    return true;
}

static bool is_null_sender(struct span value)
{
    return span_is_equal(value, SPAN_LITERAL("<>"));
}

static bool sender_read(struct span value, struct qmgr_filter *filter)
{
    return is_null_sender(value) || text_set(value, &filter->sender);
}

static bool sender_domain_read(struct span value, struct qmgr_filter *filter)
{
    return is_null_sender(value) || domain_set(value, &filter->sender_domain);
}

static bool recipient_read(struct span value, struct qmgr_filter *filter)
{
    return text_set(value, &filter->recipient);
}

static bool user_read(struct span value, struct qmgr_filter *filter)
{
    return text_set(value, &filter->user);
}

static const struct {
    struct span name;
    uint32_t bit;
} state_names[] = {
    {{(const uint8_t *)"ready", 5}, QMGR_FILTER_READY},
    {{(const uint8_t *)"waiting", 7}, QMGR_FILTER_WAITING},
    {{(const uint8_t *)"active", 6}, QMGR_FILTER_ACTIVE},
    {{(const uint8_t *)"held", 4}, QMGR_FILTER_HELD},
    {{(const uint8_t *)"failed", 6}, QMGR_FILTER_FAILED},
};

static uint32_t state_find(struct span name)
{
    for (uint32_t i = 0; i < COUNT_OF(state_names); i++) {
        if (span_is_equal(name, state_names[i].name))
            return state_names[i].bit;
    }
    return 0;
}

static struct span split(struct span *rest, char separator)
{
    const uint8_t *end =
        rest->size == 0 ? NULL : memchr(rest->data, (unsigned char)separator, rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span head = span_head(*rest, size);

    *rest = span_skip(*rest, end == NULL ? size : size + 1);
    return head;
}

static bool state_read(struct span value, struct qmgr_filter *filter)
{
    bool is_ok = value.size > 0;

    while (value.size > 0 && is_ok) {
        uint32_t bit = state_find(split(&value, ','));
        filter->states |= bit;
        is_ok = bit != 0;
    }
    return is_ok;
}

/* ---- times ---- */

static const struct {
    char letter;
    tick_us unit;
} time_units[] = {
    {'s', TICK_S(1)},     {'m', TICK_S(60)},        {'h', TICK_S(3600)},
    {'d', TICK_S(86400)}, {'w', TICK_S(7 * 86400)},
};

static tick_us time_unit_find(uint8_t letter)
{
    for (uint32_t i = 0; i < COUNT_OF(time_units); i++) {
        if (time_units[i].letter == (char)letter)
            return time_units[i].unit;
    }
    return 0;
}

/* One or more of digits and a unit. */
bool qmgr_filter_time_parse(struct span value, tick_us *ret_time)
{
    tick_us total = 0;

    if (value.size == 0)
        return false;
    while (value.size > 0) {
        uint32_t digits = 0;
        uint64_t number;
        while (digits < value.size && value.data[digits] >= '0' && value.data[digits] <= '9')
            digits++;
        if (digits == value.size || span_parse_u64(span_head(value, digits), &number) != ERR_OK)
            return false;
        tick_us unit = time_unit_find(value.data[digits]);
        if (unit == 0 || number > FILTER_TIME_MAX / unit)
            return false;
        total += number * unit;
        if (total > FILTER_TIME_MAX)
            return false;
        value = span_skip(value, digits + 1);
    }
    *ret_time = total;
    return true;
}

static bool older_read(struct span value, struct qmgr_filter *filter)
{
    return qmgr_filter_time_parse(value, &filter->older);
}

static bool younger_read(struct span value, struct qmgr_filter *filter)
{
    return qmgr_filter_time_parse(value, &filter->younger);
}

/* ---- terms ---- */

static const struct {
    const char *name;
    uint32_t bit;
    bool (*read)(struct span value, struct qmgr_filter *filter);
    const char *expected;
} terms[] = {
    {"id", QMGR_FILTER_ID, id_read, "a message id"},
    {"domain", QMGR_FILTER_DOMAIN, domain_read,
     "a domain, its letters beyond ASCII as A-labels (xn--...)"},
    {"site", QMGR_FILTER_SITE, site_read, "a site's name"},
    {"source", QMGR_FILTER_SOURCE, source_read, "a source pool, or default"},
    {"class", QMGR_FILTER_CLASS, class_read, "a name, or a number from 0 to 255"},
    {"state", QMGR_FILTER_STATE, state_read,
     "ready, waiting, active, held, failed, with commas between"},
    {"older", QMGR_FILTER_OLDER, older_read, "a time such as 90s, 5m, 2h, 1d12h"},
    {"younger", QMGR_FILTER_YOUNGER, younger_read, "a time such as 90s, 5m, 2h, 1d12h"},
    {"sender", QMGR_FILTER_SENDER, sender_read, "an address, or <>"},
    {"sender_domain", QMGR_FILTER_SENDER_DOMAIN, sender_domain_read, "a domain, or <>"},
    {"recipient", QMGR_FILTER_RECIPIENT, recipient_read, "an address"},
    {"order", QMGR_FILTER_ORDER, order_read, "the number of an order"},
    {"user", QMGR_FILTER_USER, user_read, "a user's name"},
};

static enum err term_apply(struct span term, struct qmgr_filter *filter,
                           char ret_why[QMGR_FILTER_WHY_SIZE])
{
    struct span value = term;
    struct span name = split(&value, '=');

    for (uint32_t i = 0; i < COUNT_OF(terms); i++) {
        if (!span_is_equal(name, span_from_text(terms[i].name)))
            continue;
        if (filter->terms & terms[i].bit) {
            (void)snprintf(ret_why, QMGR_FILTER_WHY_SIZE, "%s= comes twice", terms[i].name);
            return ERR_CONFIG_VALUE;
        }
        filter->terms |= terms[i].bit;
        if (terms[i].read(value, filter))
            return ERR_OK;
        (void)snprintf(ret_why, QMGR_FILTER_WHY_SIZE, "%s= wants %s", terms[i].name,
                       terms[i].expected);
        return ERR_CONFIG_VALUE;
    }
    (void)snprintf(ret_why, QMGR_FILTER_WHY_SIZE,
                   "expected TERM=VALUE: id domain site source class state older younger sender "
                   "sender_domain recipient order user");
    return ERR_CONFIG_VALUE;
}

/* The next word; a space inside double quotes belongs to it. */
static struct span word_next(struct span *rest)
{
    bool is_quoted = false;
    uint32_t size = 0;

    while (rest->size > 0 && rest->data[0] == ' ')
        *rest = span_skip(*rest, 1);
    while (size < rest->size && (is_quoted || rest->data[size] != ' ')) {
        is_quoted ^= rest->data[size] == '"';
        size++;
    }
    struct span word = span_head(*rest, size);
    *rest = span_skip(*rest, size);
    return word;
}

enum err qmgr_filter_parse(struct span text, struct qmgr_filter *ret_filter,
                           char ret_why[QMGR_FILTER_WHY_SIZE])
{
    struct qmgr_filter filter = {0};

    for (struct span word = word_next(&text); word.size > 0; word = word_next(&text))
        TRY(term_apply(word, &filter, ret_why));
    *ret_filter = filter;
    return ERR_OK;
}

struct span qmgr_sender_domain_of(struct span address)
{
    const uint8_t *at = address.size == 0 ? NULL : memrchr(address.data, '@', address.size);

    if (at == NULL)
        return span_of("", 0);
    return span_skip(address, (uint32_t)(at - address.data) + 1);
}
