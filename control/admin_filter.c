/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Filters, and names of sites, as people write them: `domain=` and `site=`, and what `explain`,
 * `trace` or `site show` are asked about, may have letters beyond ASCII, and the queue has
 * A-labels. They are changed before anything else reads them, so that an order that stands is kept,
 * listed and judged in the queue's spelling.
 *
 * A filter is words with spaces between them (queue/qmgr_filter.c). A domain has neither space nor
 * quote, so that a word with either is none of ours, and stays as it is.
 *
 * Not here: domains of senders. The queue has these as their senders wrote them.
 */
#include "control/admin_filter.h"

#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "base/check.h"
#include "dns/dns.h"

/* "site=" and a letter of two octets become a name of MX_NAME_MAX at most. */
#define GROWTH_MAX 64u

static const char *const domain_terms[] = {"domain=", "site="};

static bool is_beyond_ascii(struct span word)
{
    for (uint32_t i = 0; i < word.size; i++) {
        if (word.data[i] >= 0x80)
            return true;
    }
    return false;
}

/* Octets of the name of a term about a domain, with its '='; 0: it is no such term. */
static uint32_t domain_term_size(struct span word)
{
    for (uint32_t i = 0; i < COUNT_OF(domain_terms); i++) {
        uint32_t size = (uint32_t)strlen(domain_terms[i]);
        if (word.size > size && memcmp(word.data, domain_terms[i], size) == 0)
            return size;
    }
    return 0;
}

static uint32_t word_put(struct span word, char *to)
{
    char name[MX_NAME_MAX];
    uint32_t term_size = domain_term_size(word), name_size;

    memcpy(to, word.data, word.size);
    if (term_size == 0 || !is_beyond_ascii(word) ||
        dns_name_normalize(span_skip(word, term_size), name, &name_size) != ERR_OK)
        return word.size;
    memcpy(to + term_size, name, name_size);
    return term_size + name_size;
}

static struct span word_next(struct span *rest)
{
    const uint8_t *end = memchr(rest->data, ' ', rest->size);
    uint32_t size = end == NULL ? rest->size : (uint32_t)(end - rest->data);
    struct span word = span_head(*rest, size);

    *rest = span_skip(*rest, size);
    return word;
}

/* Elsewhere an `id` is of a message, a source or a user. */
static bool verb_names_domain(const char *verb)
{
    return strcmp(verb, "explain") == 0 || strcmp(verb, "trace") == 0 ||
           strncmp(verb, "site ", 5) == 0;
}

static bool id_normalize(json_t *request)
{
    const char *verb = json_string_value(json_object_get(request, "verb"));
    const char *id = json_string_value(json_object_get(request, "id"));
    char name[MX_NAME_MAX];
    uint32_t size;

    if (verb == NULL || id == NULL || !verb_names_domain(verb) ||
        !is_beyond_ascii(span_from_text(id)) ||
        dns_name_normalize(span_from_text(id), name, &size) != ERR_OK)
        return true;
    return json_object_set_new(request, "id", json_stringn(name, size)) == 0;
}

static bool filter_normalize(json_t *request)
{
    const json_t *given = json_object_get(request, "filter");
    const char *text = json_string_value(given);

    if (text == NULL)
        return true;
    struct span rest = span_of(text, (uint32_t)json_string_length(given));
    if (!is_beyond_ascii(rest))
        return true;
    uint32_t size = 0, size_max = rest.size * GROWTH_MAX + MX_NAME_MAX;
    char *changed = malloc(size_max);
    if (changed == NULL)
        return false;
    while (rest.size > 0) {
        struct span word = word_next(&rest);
        CHECK(size + word.size + MX_NAME_MAX <= size_max);
        size += word_put(word, changed + size);
        for (; rest.size > 0 && rest.data[0] == ' '; rest = span_skip(rest, 1))
            changed[size++] = ' ';
    }
    json_t *value = json_stringn(changed, size);
    free(changed);
    return value != NULL && json_object_set_new(request, "filter", value) == 0;
}

bool admin_filter_normalize(json_t *request)
{
    return id_normalize(request) && filter_normalize(request);
}
