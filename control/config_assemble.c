/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what was written to what the relay sees: relations between options, derived values, and the
 * arrays of struct settings, in the order the relay expects. Pure: text that parsed is all it
 * needs.
 *
 * Invariants of the result
 *   1. At least one listener, no two on the same address.
 *   2. The last route is "*" and no pattern occurs twice.
 *   3. A password never travels in the clear: `auth` needs TLS level encrypt or verify.
 *   4. Every core has room for SEGMENTS_PER_CORE_MIN segments: with fewer, a full disk may bring it
 *      to a stand (queue/spool_space.c). And the reserve fits beside SEGMENTS_BESIDE.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "control/config.h"
#include "relay/smtp_address.h"

#define SEGMENT_ALIGNMENT     4096u
#define SEGMENTS_PER_CORE_MIN 8u
#define SEGMENTS_BESIDE       4u
#define DNS_PORT              53u
#define REFUSE_TEXT_DEFAULT   "mail for this domain is not accepted here"

static const char *const listen_defaults[] = {"127.0.0.1:2525", "[::1]:2525"};

static enum err no_memory(struct config_report *report)
{
    config_complain(report, 0, "", "the configuration is too large");
    return ERR_MEMORY;
}

/* ---- listeners ---- */

static enum err listen_set_default(struct config *config)
{
    const struct option *list = option_find("", SPAN_LITERAL("listen"));
    const struct option *address = option_find("listen[]", SPAN_LITERAL("address"));
    char why[OPTION_WHY_SIZE];

    CHECK(list != NULL && address != NULL);
    TRY(option_list_begin(list, COUNT_OF(listen_defaults), &config->arena, config, why));
    for (uint32_t i = 0; i < COUNT_OF(listen_defaults); i++) {
        struct config_listener *listener = (struct config_listener *)config->listen.items + i;
        TRY(option_set_defaults(OPTION_OWNER_LISTENER, &config->arena, listener));
        TRY(option_parse(address, span_from_text(listen_defaults[i]), &config->arena, listener, 0,
                         why));
    }
    return ERR_OK;
}

static void listener_check(struct config_listener *listener, struct config_report *report)
{
    bool has_files = listener->certificate != NULL || listener->key != NULL;

    if (listener->tls_line == 0)
        return;
    if (has_files == (listener->self_signed != NULL))
        config_complain(report, listener->tls_line, "listen[].tls",
                        "expected `certificate` and `key`, or `self_signed`");
    else if (has_files && (listener->certificate == NULL || listener->key == NULL))
        config_complain(report, listener->tls_line, "listen[].tls", "`%s` must be given",
                        listener->key == NULL ? "key" : "certificate");
    listener->settings.offer_starttls = !listener->settings.is_tls_implicit;
}

static enum err listeners_assemble(struct config *config, struct config_report *report)
{
    if (config->listen.count == 0 && listen_set_default(config) != ERR_OK)
        return no_memory(report);
    config_auth_assemble(config, report);

    struct config_listener *items = config->listen.items;
    uint32_t count = config->listen.count;
    struct settings_listener *listeners = arena_acquire(&config->arena, count * sizeof(*listeners));
    if (listeners == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        listener_check(&items[i], report);
        listeners[i] = items[i].settings;
        if (listeners[i].delivery == SETTINGS_DELIVERY_UNSAID)
            listeners[i].delivery = config->settings.cut_through.delivery;
        for (uint32_t j = 0; j < i; j++) {
            char address[FLOW_ADDRESS_TEXT_MAX];
            if (flow_address_is_equal(&listeners[i].address, &listeners[j].address))
                config_complain(report, items[i].line, "listen[].address", "%s is already in use",
                                flow_address_format(&listeners[i].address, address));
        }
    }
    config->settings.listeners = listeners;
    config->settings.listener_count = count;
    return ERR_OK;
}

/* ---- routes ---- */

#define SMTP_PORT 25u
#define LMTP_PORT 24u

/* The one host of a route that names a socket. */
static void socket_assemble(const struct config_route *route, struct settings_host *hosts)
{
    hosts[0] = (struct settings_host){
        .name = route->socket, .address = settings_socket_address(route->socket), .weight = 1};
}

static void host_assemble(const struct config_route *route, struct settings_host *host)
{
    bool is_lmtp = route->settings.kind == SETTINGS_ROUTE_LMTP;

    if (host->port == 0)
        host->port = is_lmtp ? LMTP_PORT : SMTP_PORT;
    /* A host that is a name keeps family NONE and is looked up. */
    if (flow_address_parse_ip(span_from_text(host->name), &host->address) == ERR_OK)
        host->address.port = host->port;
}

static enum err hosts_assemble(struct config *config, struct config_route *route,
                               struct config_report *report)
{
    const struct config_host *items = route->hosts.items;
    struct settings_host *hosts =
        arena_acquire(&config->arena, (route->hosts.count + 1) * sizeof(*hosts));

    if (hosts == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < route->hosts.count; i++) {
        hosts[i] = items[i].settings;
        host_assemble(route, &hosts[i]);
        //= rfc2033#section-5
        //# The LMTP protocol MUST NOT be used on TCP port 25.
        if (route->settings.kind == SETTINGS_ROUTE_LMTP && hosts[i].port == SMTP_PORT)
            config_complain(report, items[i].line, "routes[].hosts[].port",
                            "25 is the port of SMTP: LMTP is never spoken there");
    }
    route->settings.hosts = hosts;
    route->settings.host_count = route->hosts.count;
    if (route->socket != NULL && route->hosts.count == 0) {
        socket_assemble(route, hosts);
        route->settings.host_count = 1;
    }
    return ERR_OK;
}

static void route_kind_check(struct config_route *route, struct config_report *report)
{
    struct settings_route *settings = &route->settings;

    if ((uint32_t)settings->kind == OPTION_CHOICE_NONE)
        settings->kind = route->hosts.count > 0 ? SETTINGS_ROUTE_HOSTS : SETTINGS_ROUTE_MX;
    if (settings->kind == SETTINGS_ROUTE_HOSTS && route->hosts.count == 0)
        config_complain(report, route->line, "routes[].hosts", "must be given for `via: hosts`");
    if (settings->kind != SETTINGS_ROUTE_HOSTS && settings->kind != SETTINGS_ROUTE_LMTP &&
        route->hosts.count > 0)
        config_complain(report, route->line, "routes[].via",
                        "`hosts` needs `via: hosts` or `via: lmtp`");
    if (settings->kind != SETTINGS_ROUTE_REFUSE && settings->refuse_text != NULL)
        config_complain(report, route->line, "routes[].text", "is only for `via: refuse`");
    if (settings->kind == SETTINGS_ROUTE_REFUSE && settings->refuse_text == NULL)
        settings->refuse_text = REFUSE_TEXT_DEFAULT;
}

static void lmtp_check(struct config_route *route, struct config_report *report)
{
    struct settings_route *settings = &route->settings;

    if (settings->kind != SETTINGS_ROUTE_LMTP) {
        if (route->socket != NULL)
            config_complain(report, route->line, "routes[].socket", "is only for `via: lmtp`");
        return;
    }
    if ((route->socket == NULL) == (route->hosts.count == 0))
        config_complain(report, route->line, "routes[].via",
                        "`lmtp` needs either `hosts` or `socket`");
    if (route->socket == NULL)
        return;
    if (route->socket[0] != '/')
        config_complain(report, route->line, "routes[].socket", "must be an absolute path");
    if (settings->tls >= SETTINGS_TLS_ENCRYPT)
        config_complain(report, route->tls_line, "routes[].tls.level",
                        "there is no TLS on a Unix socket");
    settings->tls = SETTINGS_TLS_NONE;
}

static void route_check(struct config_route *route, struct config_report *report)
{
    struct settings_route *settings = &route->settings;

    route_kind_check(route, report);
    lmtp_check(route, report);
    if (route->auth_line > 0 && settings->tls < SETTINGS_TLS_ENCRYPT)
        config_complain(report, route->auth_line, "routes[].auth",
                        "needs `tls: {level: encrypt}` or verify: the password would travel in the "
                        "clear");
    if (settings->tls_name != NULL && settings->tls != SETTINGS_TLS_VERIFY)
        config_complain(report, route->tls_line, "routes[].tls.name",
                        "is only for `level: verify`");
    if (route->auth_line > 0)
        settings->auth = &route->auth;
}

static bool route_is_default(const struct config_route *route)
{
    return route->settings.pattern != NULL && strcmp(route->settings.pattern, "*") == 0;
}

static int route_compare(const void *a, const void *b)
{
    const struct config_route *left = *(const struct config_route *const *)a;
    const struct config_route *right = *(const struct config_route *const *)b;
    int order = strcmp(left->settings.pattern, right->settings.pattern);

    return order != 0 ? order : (left->line > right->line) - (left->line < right->line);
}

static void routes_check_unique(const struct config *config, struct config_report *report)
{
    char where[CONFIG_WHERE_SIZE];
    uint32_t count = config->routes.count;
    struct config_route *items = config->routes.items;
    struct config_route **sorted = calloc(count + 1, sizeof(struct config_route *));

    if (sorted == NULL) {
        config_complain(report, 0, "routes", "no memory");
        return;
    }
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = &items[i];
    qsort(sorted, count, sizeof(struct config_route *), route_compare);
    for (uint32_t i = 1; i < count; i++) {
        if (strcmp(sorted[i - 1]->settings.pattern, sorted[i]->settings.pattern) == 0)
            config_complain(report, sorted[i]->line, "routes[].match",
                            "\"%s\" has a route in %s already", sorted[i]->settings.pattern,
                            config_where(report, sorted[i - 1]->line, where));
    }
    free(sorted);
}

static enum err routes_assemble(struct config *config, struct config_report *report)
{
    struct config_route *items = config->routes.items;
    uint32_t count = config->routes.count, used = 0;
    struct settings_route *routes =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*routes));
    struct settings_route last = {.pattern = "*", .tls = SETTINGS_TLS_MAY};

    if (routes == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < count; i++) {
        route_check(&items[i], report);
        TRY(hosts_assemble(config, &items[i], report));
        if (route_is_default(&items[i]))
            last = items[i].settings;
        else
            routes[used++] = items[i].settings;
    }
    routes_check_unique(config, report);
    routes[used++] = last;
    config->settings.routes = routes;
    config->settings.route_count = used;
    return ERR_OK;
}

/* ---- the rest ---- */

static void resolvers_assemble(struct config *config)
{
    const struct flow_address *items = config->resolvers.items;

    CHECK(config->resolvers.count <= CONFIG_RESOLVER_COUNT);
    for (uint32_t i = 0; i < config->resolvers.count; i++) {
        config->dns.resolvers[i] = items[i];
        if (items[i].port == 0)
            config->dns.resolvers[i].port = DNS_PORT;
    }
    config->dns.resolver_count = config->resolvers.count;
}

/* What a wildcard listener means on the dataplane's own ports. */
static uint32_t ports_add(const struct config *config, const struct flow_address *listener,
                          struct flow_address *into)
{
    static const uint8_t zero[16];
    uint32_t count = 0;

    if (memcmp(listener->ip, zero, sizeof(zero)) != 0)
        return 0;
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        const struct dataplane_port_options *port = &config->dataplane.ports[i];
        for (uint32_t j = 0; j < port->address_count && count < DATAPLANE_ADDRESS_MAX; j++) {
            if (port->addresses[j].address.family != listener->family)
                continue;
            into[count] = port->addresses[j].address;
            into[count++].port = listener->port;
        }
    }
    return count;
}

static enum err destinations_assemble(struct config *config, struct config_report *report)
{
    struct mx_policy *mx = &config->settings.mx;
    uint32_t listeners = config->settings.listener_count, own = config->own_addresses.count;
    uint64_t room = (uint64_t)listeners * (1 + DATAPLANE_ADDRESS_MAX) + own;
    struct flow_address *addresses = arena_acquire(&config->arena, room * sizeof(*addresses));

    if (addresses == NULL)
        return no_memory(report);
    for (uint32_t i = 0; i < listeners; i++)
        addresses[i] = config->settings.listeners[i].address;
    if (own > 0)
        memcpy(addresses + listeners, config->own_addresses.items, own * sizeof(*addresses));
    mx->own = addresses;
    mx->own_count = listeners + own;
    for (uint32_t i = 0; i < listeners; i++)
        mx->own_count += ports_add(config, &addresses[i], addresses + mx->own_count);
    mx->deny = config->deny.items;
    mx->deny_count = config->deny.count;
    mx->allow = config->allow.items;
    mx->allow_count = config->allow.count;
    config->settings.relay_from = config->relay_from.items;
    config->settings.relay_from_count = config->relay_from.count;
    if (!mx->ipv4 && !mx->ipv6)
        config_complain(report, config->destinations_line, "destinations",
                        "neither ipv4 nor ipv6 is left");
    return ERR_OK;
}

static void postmaster_check(const struct settings *settings, struct config_report *report)
{
    struct smtp_address address;
    char path[SMTP_PATH_MAX + 2];
    uint32_t size = 0;

    if (settings->postmaster == NULL)
        return;
    int length = snprintf(path, sizeof(path), "<%s>", settings->postmaster);
    if (smtp_path_parse(span_of(path, (uint32_t)length), SMTP_PATH_UTF8_OK, &address, &size) !=
            ERR_OK ||
        size != (uint32_t)length)
        config_complain(report, 0, "postmaster", "expected an address with its domain");
}

/* A message that is read back from the spool lies in buffers as a whole while it is sent. */
static void message_sizes_check(const struct config *config, struct config_report *report)
{
    const struct settings *settings = &config->settings;

    for (uint32_t i = 0; i < settings->listener_count; i++) {
        if (settings->listeners[i].limits.message_size_max > config->buffer_memory / 4 * 3) {
            config_complain(report, config->buffers_line, "buffers.memory",
                            "is too small to send a message of listen[].limits.message_size");
            return;
        }
    }
}

static void sizes_check(struct config *config, struct config_report *report)
{
    struct config_spool *spool = &config->spool;
    const struct settings *settings = &config->settings;
    char size[32];

    spool->segment_size -= spool->segment_size % SEGMENT_ALIGNMENT;
    uint64_t least = (uint64_t)spool->segment_size * SEGMENTS_PER_CORE_MIN;
    uint64_t beside = (uint64_t)spool->segment_size * SEGMENTS_BESIDE + spool->reserve;
    least = least > beside ? least : beside;
    if (spool->size / config->cores < least)
        config_complain(report, config->spool_line, "spool.size",
                        "expected at least %s: for each of `cores`, eight of spool.segment, and "
                        "four beside spool.reserve",
                        option_size_format(least * config->cores, size));
    if (config->buffer_memory / 2 < config->body_memory / config->cores)
        config_complain(report, config->queue_line, "queue.body_memory",
                        "expected at most %s: half of buffers.memory for each core",
                        option_size_format(config->buffer_memory / 2 * config->cores, size));
    if (settings->retry_min > settings->retry_max)
        config_complain(report, config->retry_line, "retry.min", "is longer than retry.max");
    if (settings->dsn_per_sender_max == 1)
        config_complain(report, 0, "bounce.per_sender", "must be 0 or at least 2");
    if (settings->message_lifetime < settings->retry_min)
        config_complain(report, 0, "message_lifetime", "is shorter than retry.min");
}

enum err config_assemble(struct config *config, struct config_report *report)
{
    TRY(listeners_assemble(config, report));
    TRY(routes_assemble(config, report));
    TRY(config_sites_assemble(config, report));
    TRY(config_sources_assemble(config, report));
    config_patterns_assemble(config, report);
    TRY(config_classes_assemble(config, report));
    TRY(config_delivery_assemble(config, report));
    config_auth_headers(config);
    TRY(config_dkim_assemble(config, report));
    TRY(config_dataplane_assemble(config, report));
    TRY(destinations_assemble(config, report));
    resolvers_assemble(config);
    config_webhooks_assemble(config, report);
    sizes_check(config, report);
    message_sizes_check(config, report);
    postmaster_check(&config->settings, report);
    return report->count > 0 ? ERR_CONFIG_VALUE : ERR_OK;
}
