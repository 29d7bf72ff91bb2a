/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where mail would go. The visit runs on the first shard, once a turn until DNS has answered; what
 * it finds is made JSON there and then, since routes belong to the settings of that turn.
 */
#include "control/admin_probe.h"

#include <stdlib.h>
#include <string.h>

#include "relay/smtp_address.h"
#include "relay/transfer_probe.h"

struct asked {
    struct transfer_probe probe;
    char name[MX_NAME_MAX]; /* normalized: the probe's domain */
    char address[ENVELOPE_ADDRESS_SIZE_MAX + 1];
    enum err err;
    bool is_done;
    json_t *found;
};

/* ---- on the shard ---- */

static json_t *host_json(const struct transfer_probe *probe, uint32_t index)
{
    const struct mx_host *host = &probe->answer.hosts[index];
    json_t *addresses = json_array();
    char text[FLOW_ADDRESS_TEXT_MAX];

    for (uint32_t i = 0; i < host->address_count; i++)
        json_array_append_new(addresses,
                              json_string(flow_address_format_ip(&host->addresses[i], text)));
    return json_pack("{ss,si,si,so,sb}", "name", host->name, "preference", (int)host->preference,
                     "port", (int)host->port, "addresses", addresses, "is_dead",
                     probe->is_dead[index]);
}

static const char *verdict_text(enum mx_verdict verdict)
{
    static const char *const texts[] = {[MX_OK] = "ok",
                                        [MX_NULL] = "takes no mail",
                                        [MX_NOT_FOUND] = "does not exist",
                                        [MX_ALL_DENIED] = "forbidden",
                                        [MX_TEMPORARY] = "not now"};

    return texts[verdict];
}

static void answer_json(const struct transfer_probe *probe, json_t *found, tick_us now)
{
    const struct mx_answer *answer = &probe->answer;
    json_t *hosts = json_array(), *others = json_array();

    for (uint32_t i = 0; i < answer->host_count; i++)
        json_array_append_new(hosts, host_json(probe, i));
    for (uint32_t i = 0; i < answer->other_count; i++)
        json_array_append_new(others, json_string(answer->hosts[answer->host_count + i].name));
    json_object_set_new(found, "verdict", json_string(verdict_text(answer->verdict)));
    json_object_set_new(found, "reason", json_string(answer->reason == NULL ? "" : answer->reason));
    json_object_set_new(found, "hosts", hosts);
    json_object_set_new(found, "without_address", others);
    json_object_set_new(found, "from_cache", json_boolean(!probe->was_asked));
    json_object_set_new(found, "is_stale", json_boolean(answer->is_stale));
    if (answer->valid_until > now && answer->valid_until != TICK_NEVER)
        json_object_set_new(found, "valid_s",
                            json_integer((json_int_t)((answer->valid_until - now) / TICK_S(1))));
}

static void route_json(const struct transfer_probe *probe, json_t *found)
{
    static const char *const ways[] = {[SETTINGS_ROUTE_MX] = "mx",
                                       [SETTINGS_ROUTE_HOSTS] = "hosts",
                                       [SETTINGS_ROUTE_DISCARD] = "discard",
                                       [SETTINGS_ROUTE_REFUSE] = "refuse",
                                       [SETTINGS_ROUTE_LMTP] = "lmtp"};
    static const char *const levels[] = {[SETTINGS_TLS_NONE] = "none",
                                         [SETTINGS_TLS_MAY] = "may",
                                         [SETTINGS_TLS_ENCRYPT] = "encrypt",
                                         [SETTINGS_TLS_VERIFY] = "verify"};
    const struct settings_route *route = probe->route;
    json_t *json =
        json_pack("{ss,ss,ss,sb,sb}", "match", route->pattern, "via", ways[route->kind], "tls",
                  levels[route->tls], "auth", route->auth != NULL, "served", route->is_served);

    if (route->kind == SETTINGS_ROUTE_REFUSE)
        json_object_set_new(json, "text", json_string(route->refuse_text));
    json_object_set_new(found, "route", json);
    if (probe->limits.provider != NULL)
        json_object_set_new(found, "provider", json_string(probe->limits.provider));
    if (probe->limits.connection_max != 0)
        json_object_set_new(found, "connections", json_integer(probe->limits.connection_max));
}

static void visit_probe(struct shard_query *query, struct transfer *transfer, tick_us now)
{
    const struct tick_source *clock = tick_source_system();
    struct asked *asked = query->found;

    query->cursor = UINT64_MAX;
    query->is_waiting = false;
    if (asked->is_done)
        return; /* by another shard */
    asked->err = transfer_probe_run(transfer, &asked->probe,
                                    (struct tick_now){now, clock->wall(clock->context)});
    if (asked->err == ERR_AGAIN) {
        query->is_waiting = true;
        return;
    }
    asked->is_done = true;
    if (asked->err != ERR_OK)
        return;
    asked->found = json_object();
    answer_json(&asked->probe, asked->found, now);
    if (!asked->probe.is_dns_only && !asked->probe.is_host_only)
        route_json(&asked->probe, asked->found);
}

/* ---- requests ---- */

static bool asked_name(struct asked *asked, const char *text)
{
    uint32_t size;

    if (dns_name_normalize(span_from_text(text), asked->name, &size) != ERR_OK)
        return false;
    asked->probe.domain = span_of(asked->name, size);
    return true;
}

static bool asked_address(struct asked *asked, const char *text)
{
    char path[ENVELOPE_ADDRESS_SIZE_MAX + 3];
    struct smtp_address address;
    uint32_t size;

    if (strchr(text, '@') == NULL)
        return asked_name(asked, text);
    if (strlen(text) > ENVELOPE_ADDRESS_SIZE_MAX)
        return false;
    (void)snprintf(asked->address, sizeof(asked->address), "%s", text);
    (void)snprintf(path, sizeof(path), "<%s>", text);
    if (smtp_path_parse(span_from_text(path), SMTP_PATH_UTF8_OK, &address, &size) != ERR_OK ||
        size != strlen(path) || address.domain_key_size == 0)
        return false;
    memcpy(asked->name, address.domain_key, address.domain_key_size + 1);
    asked->probe.domain = span_of(asked->name, address.domain_key_size);
    return true;
}

enum admin_probe_kind admin_probe_prepare(const char *verb, const json_t *request,
                                          struct shard_query *query,
                                          char ret_why[ADMIN_PROBE_WHY_SIZE])
{
    bool is_route = strcmp(verb, "route") == 0, is_dns = strcmp(verb, "dns lookup") == 0;
    const char *text = json_string_value(json_object_get(request, "id"));

    if (!is_route && !is_dns)
        return ADMIN_PROBE_NONE;
    struct asked *asked = calloc(1, sizeof(*asked));
    CHECK(asked != NULL);
    query->kind = SHARD_QUERY_TRANSFER;
    query->visit = visit_probe;
    query->found = asked;
    asked->probe.is_host_only = is_dns && json_is_true(json_object_get(request, "host"));
    asked->probe.is_dns_only = is_dns;
    if (text != NULL && (is_route ? asked_address(asked, text) : asked_name(asked, text)))
        return ADMIN_PROBE_READY;
    (void)snprintf(ret_why, ADMIN_PROBE_WHY_SIZE,
                   is_route ? "this is neither an address nor a domain"
                            : "this is not a domain name");
    return ADMIN_PROBE_REFUSED;
}

bool admin_probe_owns(const struct shard_query *query)
{
    return query->kind == SHARD_QUERY_TRANSFER && query->visit == visit_probe;
}

bool admin_probe_finish(json_t *answer, const struct shard_query *query)
{
    const struct asked *asked = query->found;

    if (asked->err != ERR_OK)
        return false;
    if (asked->address[0] != '\0')
        json_object_set_new(answer, "address", json_string(asked->address));
    json_object_set_new(answer, "domain", json_string(asked->name));
    json_object_update(answer, asked->found);
    return true;
}

void admin_probe_end(struct shard_query *query)
{
    struct asked *asked = query->found;

    json_decref(asked->found);
    free(asked);
    query->found = NULL;
}
