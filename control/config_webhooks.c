/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The webhooks of a configuration: that their names differ, that what they send is not for
 * everybody to read, and their secrets.
 */
#include <string.h>
#include <strings.h>

#include "control/config.h"
#include "control/secret_file.h"
#include "relay/record.h"

#define HOST_SIZE 256u

/* The host of the URL, without port and brackets; false: it is none that is spoken to. */
static bool url_host(const char *url, bool *ret_is_tls, char ret_host[HOST_SIZE])
{
    const char *at = url;

    *ret_is_tls = strncasecmp(url, "https://", 8) == 0;
    if (!*ret_is_tls && strncasecmp(url, "http://", 7) != 0)
        return false;
    at += *ret_is_tls ? 8 : 7;
    bool is_literal = *at == '[';
    at += is_literal;
    size_t size = strcspn(at, is_literal ? "]" : ":/?#");
    size_t end = strcspn(at, "/?#");
    /* Who is in a URL is in logs, too: secrets have files. */
    if (size == 0 || size >= HOST_SIZE || memchr(at, '@', end) != NULL || strchr(url, ' ') != NULL)
        return false;
    memcpy(ret_host, at, size);
    ret_host[size] = '\0';
    return true;
}

static bool host_is_loopback(const char *host)
{
    struct flow_address address;

    if (strcasecmp(host, "localhost") == 0)
        return true;
    if (flow_address_parse_ip(span_from_text(host), &address) != ERR_OK)
        return false;
    static const uint8_t v6[16] = {[15] = 1};
    return address.family == FLOW_FAMILY_IP4 ? address.ip[0] == 127
                                             : memcmp(address.ip, v6, sizeof(v6)) == 0;
}

static void url_check(const struct config_webhook *webhook, struct config_report *report)
{
    char host[HOST_SIZE];
    bool is_tls;

    if (!url_host(webhook->url, &is_tls, host))
        config_complain(report, webhook->line, "webhooks[].url",
                        "expected https://host[:port]/path, without a user in it");
    else if (!is_tls && !webhook->is_plaintext && !host_is_loopback(host))
        config_complain(report, webhook->line, "webhooks[].url",
                        "http:// beyond loopback shows everybody on the way who writes to whom: "
                        "https://, or `plaintext: true`");
}

static void kinds_make(struct config_webhook *webhook)
{
    const uint32_t *events = webhook->events.items;

    webhook->kinds = webhook->events.count == 0 ? UINT32_MAX : 0;
    for (uint32_t i = 0; i < webhook->events.count; i++)
        webhook->kinds |= 1u << (events[i] + RECORD_RECEPTION); /* the words are in that order */
}

void config_webhooks_assemble(struct config *config, struct config_report *report)
{
    struct config_webhook *webhooks = config->webhooks.items;
    char where[CONFIG_WHERE_SIZE];

    for (uint32_t i = 0; i < config->webhooks.count; i++) {
        struct config_webhook *webhook = &webhooks[i];
        if (webhook->name == NULL || webhook->url == NULL)
            continue; /* told already */
        kinds_make(webhook);
        url_check(webhook, report);
        if (config->records.file == NULL)
            config_complain(report, webhook->line, "webhooks",
                            "needs `records.file`, which webhooks read (not `records.raw`)");
        if (webhook->retry_min > webhook->retry_max)
            config_complain(report, webhook->line, "webhooks[].retry_min",
                            "is more than `retry_max`");
        if (webhook->auth == WEBHOOK_BEARER && webhook->secret_file == NULL)
            config_complain(report, webhook->line, "webhooks[].auth", "needs `secret_file`");
        for (uint32_t j = 0; j < i; j++) {
            if (webhooks[j].name != NULL && strcmp(webhooks[j].name, webhook->name) == 0)
                config_complain(report, webhook->line, "webhooks[].name", "\"%s\" is in %s as well",
                                webhook->name, config_where(report, webhooks[j].line, where));
        }
    }
}

enum err config_webhooks_complete(struct config *config, struct config_report *report)
{
    struct config_webhook *webhooks = config->webhooks.items;

    for (uint32_t i = 0; i < config->webhooks.count; i++) {
        char secret[HTTP_TOKEN_SIZE], why[SECRET_WHY_SIZE];
        if (webhooks[i].secret_file == NULL)
            continue;
        enum err err = secret_line_read(webhooks[i].secret_file, secret, sizeof(secret), why);
        if (err != ERR_OK) {
            config_complain(report, webhooks[i].line, "webhooks[].secret_file", "%s: %s",
                            webhooks[i].secret_file, why);
            continue;
        }
        struct span text = span_from_text(secret);
        bool is_good = text.size >= 16;
        for (uint32_t j = 0; j < text.size; j++)
            is_good = is_good && text.data[j] > ' ' && text.data[j] < 0x7f;
        if (!is_good)
            config_complain(report, webhooks[i].line, "webhooks[].secret_file",
                            "%s: a secret is 16 to 512 printable characters without spaces",
                            webhooks[i].secret_file);
        char *copy = arena_acquire(&config->arena, text.size + 1);
        if (copy != NULL)
            memcpy(copy, secret, text.size + 1);
        explicit_bzero(secret, sizeof(secret));
        webhooks[i].secret = copy;
        if (copy == NULL)
            return ERR_MEMORY;
    }
    return ERR_OK;
}
