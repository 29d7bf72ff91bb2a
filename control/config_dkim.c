/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules of `dkim`: what a signature's tags may hold, which fields may be signed, and what the
 * relay sees of it. Keys are loaded by config_complete().
 *
 * Invariants of the result
 *   1. From is signed (RFC 6376 section 5.4).
 *   2. No field is listed twice, and none is oversigned that relays on the way add.
 *   3. The identity is of the signing domain, or below it (section 3.5, i=).
 */
#include <stdio.h>
#include <string.h>

#include "control/config.h"

#define LABEL_SIZE_MAX 63u

/* ---- tags ---- */

static bool is_letter_or_digit(char octet)
{
    return (octet >= '0' && octet <= '9') || (octet >= 'a' && octet <= 'z') ||
           (octet >= 'A' && octet <= 'Z');
}

/* sub-domain *( "." sub-domain ), with underscores as they are used in the DNS. */
static bool selector_is_valid(const char *text)
{
    uint32_t size = 0;

    for (; *text != '\0'; text++) {
        bool is_inner = size > 0 && text[1] != '.' && text[1] != '\0';
        if (*text == '.'
                ? size == 0
                : !is_letter_or_digit(*text) && *text != '_' && !(*text == '-' && is_inner))
            return false;
        size = *text == '.' ? 0 : size + 1;
        if (size > LABEL_SIZE_MAX)
            return false;
    }
    return size > 0;
}

/* What needs no quoting in a tag. */
static bool local_part_is_valid(const char *text, uint32_t size)
{
    for (uint32_t i = 0; i < size; i++) {
        if (!is_letter_or_digit(text[i]) && strchr("._-+", text[i]) == NULL)
            return false;
    }
    return true;
}

static bool identity_is_valid(const char *identity, const char *domain)
{
    const char *at = strrchr(identity, '@');

    if (at == NULL || !local_part_is_valid(identity, (uint32_t)(at - identity)) ||
        !selector_is_valid(at + 1))
        return false;
    struct span own = span_from_text(domain), named = span_from_text(at + 1);
    if (named.size < own.size ||
        !span_is_equal_nocase(span_skip(named, named.size - own.size), own))
        return false;
    return named.size == own.size || named.data[named.size - own.size - 1] == '.';
}

static void tags_check(const struct config_dkim *rule, struct config_report *report)
{
    const struct settings_dkim *settings = &rule->settings;

    if (!selector_is_valid(settings->selector))
        config_complain(report, rule->line, "dkim[].selector",
                        "expected letters, digits, hyphens and dots, as in a domain name");
    if (settings->identity != NULL && !identity_is_valid(settings->identity, settings->domain))
        config_complain(report, rule->line, "dkim[].identity",
                        "expected @%s or user@%s, or a domain below it", settings->domain,
                        settings->domain);
}

/* ---- fields ---- */

static bool is_same(const char *a, const char *b)
{
    return span_is_equal_nocase(span_from_text(a), span_from_text(b));
}

static bool list_has(const struct option_list *list, uint32_t count, const char *name)
{
    const char *const *names = list->items;

    for (uint32_t i = 0; i < count; i++) {
        if (is_same(names[i], name))
            return true;
    }
    return false;
}

/* RFC 6376 section 5.4: what others legitimately remove, and for `oversign` also what they add. */
static void fields_check(const struct config_dkim *rule, const struct option_list *list,
                         const char *key, bool is_oversign, struct config_report *report)
{
    static const char *const refused[] = {"Return-Path", "DKIM-Signature", "Received"};
    const char *const *names = list->items;

    for (uint32_t i = 0; i < list->count; i++) {
        if (list_has(list, i, names[i]))
            config_complain(report, rule->line, key, "\"%s\" is given twice", names[i]);
        for (uint32_t j = 0; j < (is_oversign ? COUNT_OF(refused) : 1); j++) {
            if (is_same(names[i], refused[j]))
                config_complain(report, rule->line, key,
                                "\"%s\" changes on the way: the signature would break", names[i]);
        }
    }
}

/* The list, with From in front unless it is there. */
static const char *const *headers_complete(struct config *config, const struct config_dkim *rule,
                                           uint32_t *ret_count)
{
    uint32_t count = rule->headers.count;
    const char **names = arena_acquire(&config->arena, (count + 1ull) * sizeof(*names));

    if (names == NULL)
        return NULL;
    bool has_from = list_has(&rule->headers, count, "From");
    names[0] = "From";
    if (count > 0)
        memcpy(names + !has_from, rule->headers.items, count * sizeof(*names));
    *ret_count = count + !has_from;
    return names;
}

/* ---- rules ---- */

static void listeners_check(const struct config *config, const struct config_dkim *rule,
                            struct config_report *report)
{
    const struct flow_address *listeners = rule->listeners.items;
    char text[FLOW_ADDRESS_TEXT_MAX];

    for (uint32_t i = 0; i < rule->listeners.count; i++) {
        if (!config_has_listener(config, &listeners[i]))
            config_complain(report, rule->line, "dkim[].listeners", "%s is no address of `listen`",
                            flow_address_format(&listeners[i], text));
    }
}

static enum err rule_assemble(struct config *config, const struct config_dkim *rule,
                              struct settings_dkim *settings, struct config_report *report)
{
    tags_check(rule, report);
    listeners_check(config, rule, report);
    fields_check(rule, &rule->headers, "dkim[].headers", false, report);
    fields_check(rule, &rule->oversign, "dkim[].oversign", true, report);
    *settings = rule->settings;
    settings->headers = headers_complete(config, rule, &settings->header_count);
    settings->oversign = rule->oversign.items;
    settings->oversign_count = rule->oversign.count;
    settings->match = rule->match.items;
    settings->match_count = rule->match.count;
    settings->listeners = rule->listeners.items;
    settings->listener_count = rule->listeners.count;
    settings->clients = rule->clients.items;
    settings->client_count = rule->clients.count;
    settings->header_canon = (enum dkim_canon)(rule->canon >> 1 & 1);
    settings->body_canon = (enum dkim_canon)(rule->canon & 1);
    return settings->headers == NULL ? ERR_MEMORY : ERR_OK;
}

enum err config_dkim_assemble(struct config *config, struct config_report *report)
{
    const struct config_dkim *items = config->dkim.items;
    uint32_t count = config->dkim.count;
    struct settings_dkim *rules = arena_acquire(&config->arena, (count + 1ull) * sizeof(*rules));

    if (rules == NULL) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    for (uint32_t i = 0; i < count; i++)
        TRY(rule_assemble(config, &items[i], &rules[i], report));
    config->settings.dkim = rules;
    config->settings.dkim_count = count;
    return ERR_OK;
}
