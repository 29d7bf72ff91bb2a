/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Name servers from the text of a resolv.conf.
 *
 * Only `nameserver` lines count: search lists, options and sort lists change what a name means, and
 * mail domains are always complete. Comments start with '#' or ';' in the first column. Scoped
 * addresses (fe80::1%eth0) are left out: no seam carries a scope.
 *
 * Not here: reading the file (control does).
 */
#include "dns/dns.h"

#define DNS_PORT 53u

static bool octet_is_space(uint8_t octet)
{
    return octet == ' ' || octet == '\t' || octet == '\r';
}

/* The next word of the line; empty at its end. */
static struct span word_take(struct span *line)
{
    uint32_t start = 0, end;

    while (start < line->size && octet_is_space(line->data[start]))
        start++;
    for (end = start; end < line->size && !octet_is_space(line->data[end]); end++)
        continue;
    struct span word = span_of(line->data + start, end - start);
    *line = span_skip(*line, end);
    return word;
}

static struct span line_take(struct span *text)
{
    const uint8_t *end = memchr(text->data, '\n', text->size);
    uint32_t size = end == NULL ? text->size : (uint32_t)(end - text->data);
    struct span line = span_head(*text, size);

    *text = span_skip(*text, end == NULL ? size : size + 1);
    return line;
}

static bool address_is_known(const struct flow_address *addresses, uint32_t count,
                             const struct flow_address *address)
{
    for (uint32_t i = 0; i < count; i++) {
        if (flow_address_is_equal(&addresses[i], address))
            return true;
    }
    return false;
}

uint32_t dns_resolv_conf_parse(struct span text, struct flow_address *ret_addresses, uint32_t max)
{
    uint32_t count = 0;

    while (text.size > 0 && count < max) {
        struct span line = line_take(&text);
        struct flow_address address;
        if (!span_is_equal(word_take(&line), SPAN_LITERAL("nameserver")))
            continue;
        if (flow_address_parse_ip(word_take(&line), &address) != ERR_OK)
            continue;
        address.port = DNS_PORT;
        if (!address_is_known(ret_addresses, count, &address))
            ret_addresses[count++] = address;
    }
    return count;
}
