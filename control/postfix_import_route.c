/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where Postfix sends: transport tables, domains that it relays for, relayhost and TLS, as routes.
 * Limits: TRANSPORTS_MAX lines of a table.
 */
#include <stdlib.h>

#include "control/postfix_import_internal.h"
#include "dataplane/flow.h"

#define TRANSPORTS_MAX 1000u

static void route_begin(struct import *import, struct span domain)
{
    if (import->route_count++ == 0)
        fputs("routes:\n", import->out);
    bool is_below = domain.size > 1 && domain.data[0] == '.';
    fprintf(import->out, "  - {match: \"%s%.*s\"", is_below ? "*" : "", (int)domain.size,
            (const char *)domain.data);
}

static bool is_match(struct span text)
{
    if (text.size > 1 && text.data[0] == '.')
        text = span_skip(text, 1);
    return import_is_domain(text);
}

/* "[host]:port" as hosts of a route. False: it is something else. */
static bool host_write(struct import *import, struct span text)
{
    struct flow_address address;
    struct span host = text;
    uint16_t port = 25;
    uint32_t end = 0;

    while (end < text.size && text.data[end] != ']')
        end++;
    bool is_wrapped = text.size > 2 && text.data[0] == '[' && end < text.size;
    if (is_wrapped) {
        host = span_of(text.data + 1, end - 1);
        struct span ignored, behind = span_skip(text, end + 1);
        if (behind.size > 0)
            port = behind.data[0] != ':' ? 0 : import_port_split(span_skip(behind, 1), &ignored);
    } else if (memchr(text.data, ':', text.size) != NULL) {
        port = import_port_split(text, &host);
    }
    if (port == 0 || (!import_is_domain(host) && flow_address_parse_ip(host, &address) != ERR_OK))
        return false;
    fprintf(import->out, ", hosts: [{host: \"%.*s\", port: %u}]", (int)host.size,
            (const char *)host.data, port);
    return true;
}

static const char *level_of(struct import *import)
{
    static const struct {
        const char *postfix, *level, *note;
    } levels[] = {
        {"none", "none", NULL},
        {"may", "may", NULL},
        {"encrypt", "encrypt", NULL},
        {"verify", "verify", NULL},
        {"secure", "verify", NULL},
        {"dane", "may", "DANE is not there yet: may"},
        {"dane-only", "encrypt", "DANE is not there yet: encrypt"},
        {"fingerprint", "encrypt", "fingerprints are not there: encrypt"},
    };
    const char *text = import_get(import, "smtp_tls_security_level");

    for (uint32_t i = 0; text != NULL && i < COUNT_OF(levels); i++) {
        if (strcasecmp(text, levels[i].postfix) != 0)
            continue;
        if (levels[i].note != NULL)
            import_note(import, SPAN_LITERAL("smtp_tls_security_level"), "%s", levels[i].note);
        return levels[i].level;
    }
    if (text == NULL || *text == '\0')
        return "may";
    /* Somebody wanted a level: a slip must not send in the clear. */
    import_note(import, SPAN_LITERAL("smtp_tls_security_level"),
                "is no level that is known: verify");
    return "verify";
}

static void default_route_write(struct import *import)
{
    const char *level = level_of(import), *text = import_get(import, "relayhost");
    struct span rest = span_from_text(text == NULL ? "" : text), host = {0};
    bool has_host = postfix_word_next(&rest, ",", &host);

    if (!has_host && strcmp(level, "may") == 0)
        return;
    route_begin(import, SPAN_LITERAL("*"));
    if (has_host && !host_write(import, host))
        import_note(import, SPAN_LITERAL("relayhost"),
                    "is no host that is understood: mail goes by MX");
    if (has_host && host.data[0] != '[')
        import_note(import, SPAN_LITERAL("relayhost"), "its MX is not asked for: name the hosts");
    fprintf(import->out, ", tls: {level: %s}}\n", level);
}

/* Lines of a transport table. */
static void transports_write(struct import *import, struct span table)
{
    struct span line, rest = table;
    uint32_t count = 0;

    while (rest.size > 0 && count++ < TRANSPORTS_MAX) {
        const uint8_t *end = memchr(rest.data, '\n', rest.size);
        uint32_t size = end == NULL ? rest.size : (uint32_t)(end - rest.data);
        struct span domain, way;
        line = span_head(rest, size);
        rest = span_skip(rest, end == NULL ? size : size + 1);
        if (!postfix_word_next(&line, "", &domain) || domain.data[0] == '#')
            continue;
        bool has_way = postfix_word_next(&line, "", &way);
        const uint8_t *colon = !has_way ? NULL : memchr(way.data, ':', way.size);
        struct span kind = colon == NULL ? way : span_head(way, (uint32_t)(colon - way.data));
        struct span host = colon == NULL ? (struct span){0} : span_skip(way, kind.size + 1);
        bool is_smtp = span_is_equal(kind, SPAN_LITERAL("smtp")) ||
                       span_is_equal(kind, SPAN_LITERAL("relay")) || kind.size == 0;
        bool is_refused = span_is_equal(kind, SPAN_LITERAL("error"));
        bool is_discarded = span_is_equal(kind, SPAN_LITERAL("discard"));
        if (!has_way || !is_match(domain) || (!is_smtp && !is_refused && !is_discarded)) {
            import_note(import, domain, "in the transport table: no route that is there");
            continue;
        }
        route_begin(import, domain);
        if (is_refused || is_discarded)
            fprintf(import->out, ", via: %s", is_refused ? "refuse" : "discard");
        else if (host.size > 0 && !host_write(import, host))
            import_note(import, domain, "in the transport table: no host that is understood");
        fputs("}\n", import->out);
    }
}

/* Domains that mail is taken for from everybody. Those of a transport table have a route already.
 */
static void served_write(struct import *import, bool has_table)
{
    const char *text = import_get(import, "relay_domains");
    struct span rest = span_from_text(text == NULL ? "" : text), domain;

    while (postfix_word_next(&rest, ",", &domain)) {
        if (has_table || !is_match(domain)) {
            import_note(import, domain, "in relay_domains: its route wants `served: true`");
            continue;
        }
        route_begin(import, domain);
        fputs(", served: true}\n", import->out);
    }
}

void import_routes_write(struct import *import)
{
    const char *text = import_get(import, "transport_maps");
    const char *colon = text == NULL ? NULL : strchr(text, ':');
    uint32_t size = 0;
    uint8_t *table = NULL;

    if (colon != NULL && strpbrk(colon, " ,") == NULL)
        table = import->source->read(import->source->context, colon + 1, &size);
    bool has_table = table != NULL;
    if (has_table)
        transports_write(import, span_of(table, size));
    else if (text != NULL && text[0] != '\0')
        import_note(import, SPAN_LITERAL("transport_maps"), "is no table whose text can be read");
    free(table);
    served_write(import, has_table);
    default_route_write(import);
}
