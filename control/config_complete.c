/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a configuration takes from this machine: its name, its addresses, its resolvers,
 * certificates, keys and passwords. Runs on the control thread, at start and reload, and blocks on
 * files.
 *
 * Limits: PASSWORD_SIZE_MAX octets of a password; INTERFACE_ADDRESS_MAX addresses of interfaces
 * stand for "ourselves" behind a wildcard listener.
 */
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <netinet/in.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"
#include "control/secret_file.h"
#include "relay/dkim.h"
#include "relay/stream.h"
#include "relay/tls_self_signed.h"

#define PASSWORD_SIZE_MAX     255u
#define INTERFACE_ADDRESS_MAX 1024u
#define RESOLV_CONF_SIZE_MAX  8192u
#define WHY_SIZE              256u

static const char *text_copy(struct config *config, const char *text)
{
    size_t size = strlen(text) + 1;
    char *copy = arena_acquire(&config->arena, size);

    return copy == NULL ? NULL : memcpy(copy, text, size);
}

/* ---- names and addresses ---- */

static enum err hostname_complete(struct config *config, struct config_report *report)
{
    struct settings *settings = &config->settings;
    char name[MX_NAME_MAX] = "", normal[MX_NAME_MAX] = "";
    uint32_t size;

    if (settings->hostname == NULL) {
        if (gethostname(name, sizeof(name) - 1) != 0 ||
            dns_name_normalize(span_from_text(name), normal, &size) != ERR_OK)
            config_complain(report, 0, "hostname",
                            "the name of this machine is no domain name: it must be given");
        settings->hostname = text_copy(config, normal);
    }
    struct settings_source *sources = (struct settings_source *)settings->sources;
    for (uint32_t i = 0; i < settings->source_count; i++) {
        if (sources[i].hello_name == NULL)
            sources[i].hello_name = settings->hostname;
    }
    return settings->hostname == NULL ? ERR_MEMORY : ERR_OK;
}

static bool address_from_socket(const struct sockaddr *from, struct flow_address *ret_address)
{
    *ret_address = (struct flow_address){0};
    if (from != NULL && from->sa_family == AF_INET) {
        ret_address->family = FLOW_FAMILY_IP4;
        memcpy(ret_address->ip, &((const struct sockaddr_in *)(const void *)from)->sin_addr, 4);
        return true;
    }
    if (from != NULL && from->sa_family == AF_INET6) {
        ret_address->family = FLOW_FAMILY_IP6;
        memcpy(ret_address->ip, &((const struct sockaddr_in6 *)(const void *)from)->sin6_addr, 16);
        return true;
    }
    return false;
}

static bool address_is_wildcard(const struct flow_address *address)
{
    static const uint8_t zero[16];

    return memcmp(address->ip, zero, sizeof(zero)) == 0;
}

/* Behind a wildcard listener every address of this machine is ourselves, on its port. */
static void own_add_interfaces(struct flow_address *own, uint32_t *count,
                               const struct flow_address *listener, const struct ifaddrs *all)
{
    uint32_t added = 0;

    for (const struct ifaddrs *i = all; i != NULL && added < INTERFACE_ADDRESS_MAX;
         i = i->ifa_next) {
        struct flow_address address;
        if (!address_from_socket(i->ifa_addr, &address))
            continue;
        if (address.family != listener->family) /* [::] takes IPv6 alone */
            continue;
        address.port = listener->port;
        own[(*count)++] = address;
        added++;
    }
}

static enum err own_complete(struct config *config)
{
    struct mx_policy *mx = &config->settings.mx;
    uint32_t wildcards = 0, count = mx->own_count;
    struct ifaddrs *all = NULL;

    for (uint32_t i = 0; i < mx->own_count; i++)
        wildcards += address_is_wildcard(&mx->own[i]);
    if (wildcards == 0 || getifaddrs(&all) != 0)
        return ERR_OK;
    uint64_t room = mx->own_count + (uint64_t)wildcards * INTERFACE_ADDRESS_MAX;
    struct flow_address *own = arena_acquire(&config->arena, room * sizeof(*own));
    if (own != NULL) {
        memcpy(own, mx->own, mx->own_count * sizeof(*own));
        for (uint32_t i = 0; i < mx->own_count; i++) {
            if (address_is_wildcard(&mx->own[i]))
                own_add_interfaces(own, &count, &mx->own[i], all);
        }
        mx->own = own;
        mx->own_count = count;
    }
    freeifaddrs(all);
    return own == NULL ? ERR_MEMORY : ERR_OK;
}

static bool machine_has_ip6_loopback(void)
{
    static const struct in6_addr loopback = IN6ADDR_LOOPBACK_INIT;
    struct ifaddrs *all = NULL;
    bool is_found = false;

    if (getifaddrs(&all) != 0)
        return false;
    for (const struct ifaddrs *i = all; i != NULL && !is_found; i = i->ifa_next) {
        struct flow_address address;
        is_found = address_from_socket(i->ifa_addr, &address) &&
                   address.family == FLOW_FAMILY_IP6 &&
                   memcmp(address.ip, &loopback, sizeof(loopback)) == 0;
    }
    freeifaddrs(all);
    return is_found;
}

/* Nobody asked for the default [::1]:2525: on a machine without IPv6 it is left out. */
static void listeners_complete(struct config *config)
{
    const struct config_listener *first = config->listen.items;

    if (first->line == 0 && !machine_has_ip6_loopback())
        config->settings.listener_count = 1;
}

static void resolvers_complete(struct config *config, struct config_report *report)
{
    char text[RESOLV_CONF_SIZE_MAX];

    if (config->dns.resolver_count > 0)
        return;
    int fd = open(CONFIG_RESOLV_CONF, O_RDONLY | O_CLOEXEC);
    ssize_t size = fd < 0 ? 0 : read(fd, text, sizeof(text));
    if (fd >= 0)
        close(fd);
    config->dns.resolver_count = dns_resolv_conf_parse(
        span_of(text, size > 0 ? (uint32_t)size : 0), config->dns.resolvers, CONFIG_RESOLVER_COUNT);
    if (config->dns.resolver_count == 0)
        config_complain(report, config->dns_line, "dns.resolvers",
                        "must be given: " CONFIG_RESOLV_CONF " names none");
}

/* ---- TLS ---- */

/* The configuration owns `context` from here on. */
static enum err context_keep(struct config *config, struct ssl_ctx_st *context, bool is_verify,
                             const char *ca)
{
    struct config_context *kept = arena_acquire(&config->arena, sizeof(*kept));

    if (kept == NULL) {
        tls_context_free(context);
        return ERR_MEMORY;
    }
    *kept = (struct config_context){config->contexts, context, is_verify, ca};
    config->contexts = kept;
    config->context_free = tls_context_free;
    return ERR_OK;
}

static enum err listener_tls_complete(struct config *config, uint32_t index,
                                      struct settings_listener *listener,
                                      struct config_report *report)
{
    const struct config_listener *written =
        (const struct config_listener *)config->listen.items + index;
    char certificate[TLS_SELF_SIGNED_PATH_MAX], key[TLS_SELF_SIGNED_PATH_MAX];
    char why[WHY_SIZE] = "", name[FLOW_ADDRESS_TEXT_MAX];
    const char *certificate_file = written->certificate, *key_file = written->key;
    enum err err = ERR_OK;

    if (written->tls_line == 0)
        return ERR_OK;
    if (report->is_look && written->self_signed != NULL &&
        !tls_self_signed_is_made(written->self_signed))
        return ERR_OK;
    if (written->self_signed != NULL) {
        err = tls_self_signed_ensure(written->self_signed, config->settings.hostname, certificate,
                                     key, why);
        certificate_file = certificate;
        key_file = key;
    }
    if (err == ERR_OK)
        err = tls_server_context_new(certificate_file, key_file,
                                     flow_address_format(&listener->address, name),
                                     &listener->tls_server, why);
    if (err != ERR_OK) {
        config_complain(report, written->tls_line, "listen[].tls", "%s", why);
        return ERR_OK;
    }
    return context_keep(config, listener->tls_server, false, NULL);
}

/* One context for all routes with the same demands. */
static enum err client_context_get(struct config *config, bool is_verify, const char *ca,
                                   struct ssl_ctx_st **ret_context, char why[WHY_SIZE])
{
    for (struct config_context *c = config->contexts; is_verify && c != NULL; c = c->next) {
        if (c->is_verify && strcmp(c->ca, ca) == 0) {
            *ret_context = c->context;
            return ERR_OK;
        }
    }
    TRY(tls_client_context_new(is_verify, is_verify ? ca : NULL, ret_context, why));
    return context_keep(config, *ret_context, is_verify, ca);
}

static enum err route_tls_complete(struct config *config, struct settings_route *route,
                                   const struct config_route *written, struct config_report *report)
{
    char why[WHY_SIZE] = "";

    if (route->tls == SETTINGS_TLS_ENCRYPT)
        route->tls_client = config->settings.client.tls_may;
    if (route->tls != SETTINGS_TLS_VERIFY)
        return ERR_OK;
    enum err err = client_context_get(config, true, written->ca, &route->tls_client, why);
    if (err == ERR_OK || err == ERR_MEMORY)
        return err;
    config_complain(report, written->tls_line, "routes[].tls", "%s", why);
    return ERR_OK;
}

/* ---- passwords ---- */

static enum err route_auth_complete(struct config *config, struct config_route *written,
                                    struct config_report *report)
{
    char password[PASSWORD_SIZE_MAX + 1] = "", why[SECRET_WHY_SIZE];

    if (written->auth_line == 0)
        return ERR_OK;
    if (secret_line_read(written->password_file, password, sizeof(password), why) != ERR_OK) {
        config_complain(report, written->auth_line, "routes[].auth.password_file", "%s: %s",
                        written->password_file, why);
        return ERR_OK;
    }
    written->auth.password = text_copy(config, password);
    explicit_bzero(password, sizeof(password));
    return written->auth.password == NULL ? ERR_MEMORY : ERR_OK;
}

/* The routes of the settings stand in another order than they were written: by pattern. */
static const struct settings_route *
route_settings_find(const struct config *config, const struct config_route *written, uint32_t *hint)
{
    const struct settings *settings = &config->settings;
    uint32_t last = settings->route_count - 1;

    if (strcmp(written->settings.pattern, "*") == 0)
        return &settings->routes[last];
    CHECK(*hint < last);
    return &settings->routes[(*hint)++];
}

static enum err routes_complete(struct config *config, struct config_report *report)
{
    struct config_route *written = config->routes.items;
    uint32_t hint = 0;

    for (uint32_t i = 0; i < config->routes.count; i++) {
        struct settings_route *route =
            (struct settings_route *)route_settings_find(config, &written[i], &hint);
        TRY(route_auth_complete(config, &written[i], report));
        TRY(route_tls_complete(config, route, &written[i], report));
    }
    return ERR_OK;
}

static enum err tls_complete(struct config *config, struct config_report *report)
{
    struct settings_listener *listeners = (struct settings_listener *)config->settings.listeners;
    char why[WHY_SIZE] = "";
    enum err err = client_context_get(config, false, NULL, &config->settings.client.tls_may, why);

    if (err != ERR_OK) {
        config_complain(report, 0, "", "TLS cannot be set up: %s", why);
        return err;
    }
    for (uint32_t i = 0; i < config->settings.listener_count; i++)
        TRY(listener_tls_complete(config, i, &listeners[i], report));
    return routes_complete(config, report);
}

/* ---- DKIM ---- */

static enum err dkim_complete(struct config *config, struct config_report *report)
{
    struct settings_dkim *rules = (struct settings_dkim *)config->settings.dkim;
    const struct config_dkim *written = config->dkim.items;
    uint64_t size = (config->settings.dkim_count + 1ull) * sizeof(struct dkim_key *);
    char why[DKIM_KEY_WHY_SIZE];

    config->key_free = dkim_key_free;
    config->keys = arena_acquire(&config->arena, size);
    if (config->keys == NULL)
        return ERR_MEMORY;
    memset(config->keys, 0, size);
    for (uint32_t i = 0; i < config->settings.dkim_count; i++) {
        if (dkim_key_load(written[i].key_file, &config->keys[i], why) != ERR_OK)
            config_complain(report, written[i].line, "dkim[].key", "%s", why);
        rules[i].key = config->keys[i];
    }
    return ERR_OK;
}

enum err config_complete(struct config *config, struct config_report *report)
{
    TRY(hostname_complete(config, report));
    listeners_complete(config);
    TRY(own_complete(config));
    resolvers_complete(config, report);
    TRY(tls_complete(config, report));
    TRY(dkim_complete(config, report));
    config_http_complete(config, report);
    TRY(config_webhooks_complete(config, report));
    TRY(config_auth_complete(config, report));
    config->settings.route_table =
        settings_route_table_new(&config->settings, &config->settings.route_table_size);
    return report->count > 0 ? ERR_CONFIG_VALUE : ERR_OK;
}
