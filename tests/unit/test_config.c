/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The configuration from text to settings: what a good file becomes, and that each mistake is
 * named with its line, its key and what was expected.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "control/config.h"

static struct config_report report;

/* Parse and assemble; NULL when refused. */
static struct config *config_from(const char *text)
{
    struct config *config = NULL;

    config_report_init(&report, "test.yaml");
    if (config_parse(span_from_text(text), &config, &report) != ERR_OK)
        return NULL;
    if (config_assemble(config, &report) == ERR_OK)
        return config;
    config_free(config);
    return NULL;
}

static struct flow_address ip(const char *text, uint16_t port)
{
    struct flow_address address;
    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(text), &address));
    address.port = port;
    return address;
}

/* Goal: what a listener is for decides whether its clients log in, unless it is said. */
static void test_logins(void **state)
{
    static const struct {
        const char *listener;
        enum auth_need need;
        bool is_implicit, offers_starttls;
    } rows[] = {
        {"tls: {self_signed: /t}", AUTH_OFF, false, true},
        {"tls: {self_signed: /t}, kind: relay, auth: optional", AUTH_OPTIONAL, false, true},
        {"tls: {self_signed: /t}, kind: submission", AUTH_REQUIRED, false, true},
        {"tls: {self_signed: /t, implicit: true}, kind: submission", AUTH_REQUIRED, true, false},
        {"kind: submission, auth: off", AUTH_OFF, false, false},
    };
    char text[300];

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        snprintf(text, sizeof(text),
                 "listen: [{address: \"192.0.2.1:587\", %s}]\nauth: {users_file: /u}\n",
                 rows[i].listener);
        struct config *config = config_from(text);
        print_message("# case: %s\n", rows[i].listener);
        assert_non_null(config);
        const struct settings_listener *listener = &config->settings.listeners[0];
        assert_int_equal(rows[i].need, listener->auth);
        assert_int_equal(rows[i].is_implicit, listener->is_tls_implicit);
        assert_int_equal(rows[i].offers_starttls, listener->offer_starttls);
        assert_int_equal(3, config->settings.auth.failure_max);
        assert_int_equal(TICK_S(30), config->settings.auth.timeout);
        config_free(config);
    }
}

/* Goal: an empty file is a configuration that relays for the same machine only. */
static void test_defaults(void **state)
{
    static const char *const empty[] = {"", "# nothing\n", "---\n", "spool:\n", "{}"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(empty); i++) {
        struct config *config = config_from(empty[i]);
        assert_non_null(config);
        const struct settings *settings = &config->settings;
        struct flow_address here4 = ip("127.0.0.1", 2525), here6 = ip("::1", 2525);
        assert_int_equal(2, settings->listener_count);
        assert_true(flow_address_is_equal(&here4, &settings->listeners[0].address));
        assert_true(flow_address_is_equal(&here6, &settings->listeners[1].address));
        assert_int_equal(SETTINGS_BARE_LF_REJECT, settings->listeners[0].bare_lf);
        assert_int_equal(1000, settings->listeners[1].limits.recipient_max);
        assert_int_equal(50000000, settings->listeners[1].limits.message_size_max);
        assert_int_equal(TICK_S(300), settings->listeners[0].limits.command_timeout);
        assert_int_equal(2, settings->relay_from_count);
        assert_int_equal(1, settings->route_count);
        assert_string_equal("*", settings->routes[0].pattern);
        assert_int_equal(SETTINGS_ROUTE_MX, settings->routes[0].kind);
        assert_int_equal(SETTINGS_TLS_MAY, settings->routes[0].tls);
        assert_false(settings->routes[0].is_served);
        assert_int_equal(25, settings->mx.port);
        assert_int_equal(1, config->cores);
        assert_int_equal(20, config->connections_per_site);
        assert_int_equal(64u << 20, config->spool.segment_size);
        config_free(config);
    }
}

/* Goal: unless somebody says so, no mail exchanger on this machine, and none that is us. */
static void test_default_denies_loopback(void **state)
{
    static const char *const denied[] = {"127.0.0.1", "127.255.255.255", "::1",
                                         "0.0.0.0",   "169.254.1.1",     "fe80::1",
                                         "224.0.0.1", "ff02::1",         "::ffff:127.0.0.1"};
    struct config *config = config_from("");

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(denied); i++) {
        struct flow_address address = ip(denied[i], 25);
        print_message("# case: %s\n", denied[i]);
        assert_int_equal(ERR_REFUSED, mx_policy_check(&config->settings.mx, &address));
    }
    struct flow_address other = ip("198.51.100.1", 25);
    assert_int_equal(ERR_OK, mx_policy_check(&config->settings.mx, &other));
    config_free(config);

    config = config_from("destinations: {allow: [127.0.0.0/8], deny: [198.51.100.0/24]}\n"
                         "own_addresses: [203.0.113.7]\n"
                         "listen: [{address: 127.0.0.1:2525}]\n");
    struct flow_address here = ip("127.0.0.2", 25), us = ip("127.0.0.1", 2525);
    struct flow_address nat = ip("203.0.113.7", 25);
    assert_int_equal(ERR_OK, mx_policy_check(&config->settings.mx, &here));
    assert_int_equal(ERR_LIMIT, mx_policy_check(&config->settings.mx, &us));
    assert_int_equal(ERR_LIMIT, mx_policy_check(&config->settings.mx, &nat));
    assert_int_equal(ERR_REFUSED, mx_policy_check(&config->settings.mx, &other));
    config_free(config);
}

#define DKIM "dkim: [{domain: a.example, selector: s, key: /k"
#define HOOK "records: {file: /x}\nwebhooks: [{"
#define WIRE "dataplane: {driver: dpdk, kernel: [10.0.0.0/8], ports: ["

/* Goal: the edges of what a port may have: first and last host of a network, networks of one and
 * two, a link-local router, a router anywhere beside an address that stands alone. */
static void test_port_edges(void **state)
{
    struct config *config = config_from(
        WIRE "{device: d, addresses: [192.0.2.1/29, 192.0.2.6/29, \"2001:db8::1/64\"], "
             "gateway: [\"fe80::1\"]}, "
             "{device: e, addresses: [192.0.2.8/31, 192.0.2.11/31, 223.255.255.0/32, 1.0.0.1/8]}, "
             "{device: d2, addresses: [192.0.2.15/32], gateway: [203.0.113.1]}]}\n");

    (void)state;
    if (config == NULL)
        print_message("# %s\n", report.text);
    assert_non_null(config);
    assert_int_equal(0xfe, config->dataplane.ports[0].gateway6.ip[0]);
    assert_int_equal(203, config->dataplane.ports[2].gateway4.ip[0]);
    config_free(config);
}

/* Goal: ports come with what the file says of them; a wildcard listener is ourselves on all. */
static void test_ports(void **state)
{
    struct config *config = config_from(
        "listen: [{address: 0.0.0.0:25}, {address: 10.1.1.1:25}, {address: \"[2001:db8::1]:25\"}]\n"
        "sources: [{name: a, addresses: [192.0.2.2, \"2001:db8::1\"]}]\n" WIRE
        "{device: \"net_tap0,iface=x\", addresses: [192.0.2.1/24, 192.0.2.2/24, "
        "\"2001:db8::1/64\"], gateway: [192.0.2.254, \"2001:db8::ff\"], mtu: 1280, vlan: 4094, "
        "exception: up}, {device: \"0000:00:03.0\", addresses: [198.51.100.1/32]}]}\n");

    (void)state;
    if (config == NULL)
        print_message("# %s\n", report.text);
    assert_non_null(config);
    const struct dataplane_options *dataplane = &config->dataplane;
    assert_int_equal(DATAPLANE_DPDK, dataplane->driver);
    assert_int_equal(2, dataplane->port_count);
    assert_string_equal("net_tap0,iface=x", dataplane->ports[0].device);
    assert_string_equal("up", dataplane->ports[0].exception);
    assert_int_equal(3, dataplane->ports[0].address_count);
    assert_int_equal(24, dataplane->ports[0].addresses[1].bits);
    assert_int_equal(254, dataplane->ports[0].gateway4.ip[3]);
    assert_int_equal(FLOW_FAMILY_IP6, dataplane->ports[0].gateway6.family);
    assert_int_equal(1280, dataplane->ports[0].mtu);
    assert_int_equal(4094, dataplane->ports[0].vlan);
    assert_null(dataplane->ports[1].exception);
    assert_int_equal(1500, dataplane->ports[1].mtu);
    assert_int_equal(FLOW_FAMILY_NONE, dataplane->ports[1].gateway4.family);

    const char *const own[] = {"192.0.2.1", "192.0.2.2", "198.51.100.1"};
    for (uint32_t i = 0; i < COUNT_OF(own); i++) {
        struct flow_address address = ip(own[i], 25);
        bool is_found = false;
        for (uint32_t j = 0; j < config->settings.mx.own_count; j++)
            is_found |= flow_address_is_equal(&address, &config->settings.mx.own[j]);
        assert_true(is_found);
    }
    config_free(config);
}

/* Goal: what is written becomes the relay's rules: From is signed whatever the list says, and the
 * words for the canonical forms are header, then body. */
static void test_dkim_rules(void **state)
{
    static const struct {
        const char *word;
        enum dkim_canon header, body;
    } canons[] = {
        {"simple/simple", DKIM_SIMPLE, DKIM_SIMPLE},
        {"simple/relaxed", DKIM_SIMPLE, DKIM_RELAXED},
        {"relaxed/simple", DKIM_RELAXED, DKIM_SIMPLE},
        {"relaxed/relaxed", DKIM_RELAXED, DKIM_RELAXED},
    };
    char text[512];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(canons); i++) {
        snprintf(text, sizeof(text),
                 "listen: [{address: \"192.0.2.1:25\"}]\n"
                 "dkim:\n- {domain: A.example, selector: s_1.t-2, key: /k}\n- {domain: b.example, "
                 "selector: \"2026\", key: /k, match: [\"*\", c.example], by: sender, clients: "
                 "[10.0.0.0/8], listeners: [192.0.2.1], headers: [To, Received], oversign: [], "
                 "identity: u.v-w+x_y@sub.b.example, expire: 1d, canonicalization: %s}\n",
                 canons[i].word);
        struct config *config = config_from(text);
        if (config == NULL)
            print_message("# %s\n", report.text);
        assert_non_null(config);
        assert_int_equal(2, config->settings.dkim_count);
        const struct settings_dkim *first = &config->settings.dkim[0], *second = first + 1;
        assert_string_equal("a.example", first->domain);
        assert_string_equal("From", first->headers[0]);
        assert_string_equal("Sender", first->headers[1]);
        assert_int_equal(27, first->header_count);
        assert_int_equal(6, first->oversign_count);
        assert_int_equal(0, first->match_count + first->client_count + first->listener_count);
        assert_int_equal(DKIM_RELAXED, first->header_canon);
        assert_int_equal(SETTINGS_DKIM_BY_SENDER, second->by);
        assert_string_equal("From", second->headers[0]);
        assert_string_equal("To", second->headers[1]);
        assert_int_equal(3, second->header_count);
        assert_int_equal(0, second->oversign_count);
        assert_int_equal(2, second->match_count);
        assert_int_equal(1, second->client_count);
        assert_int_equal(1, second->listener_count);
        assert_int_equal(86400, second->expire_s);
        assert_int_equal(canons[i].header, second->header_canon);
        assert_int_equal(canons[i].body, second->body_canon);
        config_free(config);
    }
}

static const char full[] =
    "hostname: Mail.Example.ORG\n"
    "cores: 4\n"
    "listen:\n"
    "  - address: 127.0.0.1:2525\n"
    "    bare_lf: normalize\n"
    "    long_lines: reject\n"
    "    tls: {certificate: /c.pem, key: /k.pem}\n"
    "    limits: {recipients: 100, message_size: 10MB, command_timeout: 20 minutes}\n"
    "  - address: \"[::1]:25\"\n"
    "    tls: {self_signed: /var/lib/angarium}\n"
    "relay_from: [127.0.0.0/8, \"2001:db8::/32\"]\n"
    "postmaster: ops@example.org\n"
    "dns: {resolvers: [127.0.0.1, \"[::1]:5353\"], timeout: 500ms, ttl_max: 2h}\n"
    "mx_port: 2526\n"
    "routes:\n"
    "  - {match: \"*\", hosts: [{host: smart.example.net, port: 587, weight: 3}],\n"
    "     tls: {level: verify, ca: /ca.pem, name: smart.example.net},\n"
    "     auth: {user: u, password_file: /p}}\n"
    "  - {match: example.org, served: true, hosts: [{host: 192.0.2.9}, {host: \"2001:db8::9\"}]}\n"
    "  - {match: blackhole.example, via: discard}\n"
    "  - {match: bad.example, via: refuse, text: no such place}\n"
    "  - {match: \"*.test\", via: mx, connections: 3, tls: {level: none}}\n"
    "sources:\n"
    "  - {name: Out-1, hello: out.example.org, addresses: [192.0.2.1, \"2001:db8::1\"]}\n"
    "  - {name: out-2, warmup: {schedule: [1, 1_000, 1000000000], start: 2024-02-29, overflow: "
    "wait}}\n"
    "pools:\n"
    "  - {name: bulk, members: [{source: out-2, weight: 1000}, {source: out-1}]}\n"
    "  - {name: default, members: [{source: out-1}]}\n"
    "pool_rules:\n"
    "  - {listeners: [\"127.0.0.1:2525\"], senders: [\"*.example.net\", example.net], pool: BULK}\n"
    "pool_header: {name: X-Angarium-Pool, from: [10.0.0.0/8], unknown: refuse}\n"
    "client: {connect_timeout: 10s}\n"
    "retry: {min: 1m, max: 1h}\n"
    "message_lifetime: 4d\n"
    "spool: {directory: /spool, size: 4GB, segment: 32MB, reserve: 32MB}\n"
    "records: {file: /records}\n"
    "control: {socket: /socket}\n";

/* Mailbox servers: port 24 unless another is given; a socket is a host, and has no TLS. */
static void test_lmtp_routes(void **state)
{
    struct config *config =
        config_from("routes:\n- {match: a.example, via: lmtp, hosts: [{host: 192.0.2.9},\n"
                    "   {host: store.example, port: 2424}]}\n"
                    "- {match: b.example, via: lmtp, socket: /run/lmtp}\n"
                    "- {match: c.example, via: lmtp, socket: /run/lmtq, tls: {level: may}}\n"
                    "- {match: d.example, hosts: [{host: 192.0.2.9}]}\n");

    (void)state;
    assert_non_null(config);
    const struct settings_route *routes = config->settings.routes;
    assert_int_equal(SETTINGS_ROUTE_LMTP, routes[0].kind);
    struct flow_address host = ip("192.0.2.9", 24);
    assert_true(flow_address_is_equal(&host, &routes[0].hosts[0].address));
    assert_int_equal(24, routes[0].hosts[0].port);
    assert_int_equal(2424, routes[0].hosts[1].port);
    assert_int_equal(SETTINGS_TLS_MAY, routes[0].tls);
    assert_int_equal(1, routes[1].host_count);
    assert_string_equal("/run/lmtp", routes[1].hosts[0].name);
    assert_int_equal(FLOW_FAMILY_UNIX, routes[1].hosts[0].address.family);
    assert_int_equal(SETTINGS_TLS_NONE, routes[1].tls);
    assert_int_equal(SETTINGS_TLS_NONE, routes[2].tls);
    assert_false(flow_address_is_equal(&routes[1].hosts[0].address, &routes[2].hosts[0].address));
    assert_int_equal(25, routes[3].hosts[0].port);
    assert_false(settings_route_has_source(&routes[1]));
    assert_true(settings_route_has_source(&routes[3]));
    config_free(config);
}

static void test_full_file(void **state)
{
    struct config *config = config_from(full);

    (void)state;
    if (config == NULL)
        print_message("# %s\n", report.text);
    assert_non_null(config);
    const struct settings *settings = &config->settings;
    assert_string_equal("mail.example.org", settings->hostname);
    assert_int_equal(2, settings->listener_count);
    assert_int_equal(SETTINGS_BARE_LF_NORMALIZE, settings->listeners[0].bare_lf);
    assert_int_equal(SETTINGS_BARE_LF_REJECT, settings->listeners[1].bare_lf);
    assert_int_equal(SETTINGS_LONG_LINES_REJECT, settings->listeners[0].long_lines);
    assert_int_equal(100, settings->listeners[0].limits.recipient_max);
    assert_int_equal(TICK_S(1200), settings->listeners[0].limits.command_timeout);
    assert_true(settings->listeners[1].offer_starttls);
    assert_int_equal(2526, settings->mx.port);
    assert_int_equal(53, config->dns.resolvers[0].port);
    assert_int_equal(5353, config->dns.resolvers[1].port);
    assert_int_equal(7200, config->dns.ttl_max_s);

    assert_int_equal(5, settings->route_count);
    assert_string_equal("example.org", settings->routes[0].pattern);
    assert_int_equal(SETTINGS_ROUTE_HOSTS, settings->routes[0].kind);
    assert_true(settings->routes[0].is_served);
    assert_int_equal(2, settings->routes[0].host_count);
    struct flow_address host = ip("192.0.2.9", 25);
    assert_true(flow_address_is_equal(&host, &settings->routes[0].hosts[0].address));
    assert_string_equal("no such place", settings->routes[2].refuse_text);
    assert_int_equal(3, settings->routes[3].connection_max);
    assert_int_equal(SETTINGS_TLS_NONE, settings->routes[3].tls);
    const struct settings_route *last = &settings->routes[4];
    assert_string_equal("*", last->pattern);
    assert_int_equal(FLOW_FAMILY_NONE, last->hosts[0].address.family);
    assert_int_equal(587, last->hosts[0].port);
    assert_int_equal(3, last->hosts[0].weight);
    assert_string_equal("u", last->auth->user);
    assert_int_equal(2, settings->source_count);
    assert_string_equal("out-1", settings->sources[0].name);
    assert_string_equal("out.example.org", settings->sources[0].hello_name);
    struct flow_address source = ip("2001:db8::1", 0);
    assert_true(flow_address_is_equal(&source, &settings->sources[0].ip6));
    assert_int_equal(FLOW_FAMILY_NONE, settings->sources[1].ip4.family);
    const struct settings_warmup *warmup = &settings->sources[1].warmup;
    assert_int_equal(3, warmup->day_count);
    assert_int_equal(1000, warmup->schedule[1]);
    assert_int_equal(1000000000, warmup->schedule[2]);
    assert_true(warmup->start == 1709164800000000);
    assert_int_equal(SETTINGS_OVERFLOW_WAIT, warmup->overflow);
    assert_int_equal(2, settings->pool_count);
    assert_int_equal(1, settings->pools[0].members[0].source);
    assert_int_equal(1000, settings->pools[0].members[0].weight);
    assert_int_equal(1, settings->pools[0].members[1].weight);
    assert_string_equal("default", settings_pool_of(settings, SPAN_LITERAL(""))->name);
    assert_string_equal("default", settings_pool_of(settings, SPAN_LITERAL("gone"))->name);
    assert_string_equal("bulk", settings_pool_of(settings, SPAN_LITERAL("BULK"))->name);
    struct flow_address listener = ip("127.0.0.1", 2525), client = ip("10.255.255.255", 0);
    assert_string_equal(
        "bulk",
        settings_pool_choose(settings, &listener, SPAN_LITERAL("A.Example.Net"), (struct span){0})
            ->name);
    assert_string_equal(
        "default",
        settings_pool_choose(settings, &listener, SPAN_LITERAL(""), (struct span){0})->name);
    listener.port = 26;
    assert_string_equal(
        "default",
        settings_pool_choose(settings, &listener, SPAN_LITERAL("example.net"), (struct span){0})
            ->name);
    assert_string_equal("x-angarium-pool", settings->header.fields[HEADER_POOL].name);
    assert_true(settings_pool_header_is_allowed(settings, &client));
    client = ip("11.0.0.0", 0);
    assert_false(settings_pool_header_is_allowed(settings, &client));
    assert_int_equal(SETTINGS_POOL_UNKNOWN_REFUSE, settings->pool_unknown);
    assert_int_equal(31997952, config->spool.segment_size); /* a multiple of 4 KiB */
    config_free(config);
}

/* Goal: a mistake is reported with its line and key, and what was expected. */
static void test_mistakes(void **state)
{
    static const struct {
        const char *name, *text, *complaint;
    } cases[] = {
        {"unknown key", "hostname: a\nhostnam: b\n", "test.yaml:2: unknown key \"hostnam\"; known"},
        {"unknown key below", "spool:\n  dir: /x\n", "test.yaml:2: spool: unknown key \"dir\""},
        {"unknown key is escaped", "\"a\\nb\": 1\n", "unknown key \"a\\x0ab\""},
        {"key is a list", "? [a, b]\n: 1\n", "test.yaml:1: unknown key \"?\""},
        {"value out of bounds", "cores: 129\n",
         "test.yaml:1: cores: expected a number from 1 to 128, not \"129\""},
        {"value below bounds", "cores: 0\n", "cores: expected a number from 1 to 128"},
        {"wrong type: mapping", "cores: {a: 1}\n",
         "cores: expected a number from 1 to 128, not a "
         "mapping"},
        {"wrong type: list", "hostname: [a]\n",
         "test.yaml:1: hostname: expected a domain name, not "
         "a list"},
        {"nothing", "cores:\n", "cores: expected a number from 1 to 128, not nothing"},
        {"bad duration", "retry:\n  min: 5\n",
         "test.yaml:2: retry.min: expected a duration from 1s to 1d, not \"5\""},
        {"bad size", "spool: {size: lots}\n", "spool.size: expected a size from 16MiB to 1"},
        {"bad choice", "listen:\n  - {address: 127.0.0.1:25, bare_lf: fix}\n",
         "test.yaml:2: listen[].bare_lf: expected one of reject, normalize, not \"fix\""},
        {"bad prefix", "relay_from: [127.0.0.1/8]\n", "relay_from: expected a prefix"},
        {"bad bool", "destinations: {ipv6: 1}\n", "destinations.ipv6: expected true or false"},
        {"missing address", "listen:\n  - bare_lf: reject\n",
         "test.yaml:2: listen[].address: must be given"},
        {"missing match", "routes:\n  - via: mx\n  - {}\n", "test.yaml:3: routes[].match: must"},
        {"missing below", "routes: [{match: \"*\", auth: {user: u}}]\n",
         "routes[].auth.password_file: must be given"},
        {"sequence expected", "routes: {match: \"*\"}\n",
         "routes: expected a list of mappings, not a mapping"},
        {"mapping expected", "routes: [example.org]\n",
         "routes: expected a list of mappings, not a single value"},
        {"twice", "cores: 1\ncores: 2\n", "test.yaml:2: cores: given twice"},
        {"not a mapping", "- a\n", "expected `option: value` lines, not a list"},
        {"second document", "cores: 1\n---\ncores: 2\n", "a second document"},
        {"YAML syntax", "spool: {size: 1GB\nrecords: x\n", "test.yaml:2: YAML: "},
        {"tab", "spool:\n\tsize: 1GB\n", "test.yaml:2: YAML: "},
        {"no UTF-8", "hostname: \xff\xfe\n", "test.yaml: octet 10: "},
        {"unknown alias", "cores: *x\n", "test.yaml:1: YAML: found undefined alias"},
        {"too many resolvers", "dns: {resolvers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4, 1.1.1.5]}\n",
         "dns.resolvers: expected at most 4 elements, not 5"},
        {"two listeners on one address",
         "listen:\n  - address: 127.0.0.1:25\n  - address: 127.0.0.1:25\n",
         "test.yaml:3: listen[].address: 127.0.0.1:25 is already in use"},
        {"tls without key", "listen:\n  - address: 127.0.0.1:25\n    tls: {certificate: /c}\n",
         "test.yaml:3: listen[].tls: `key` must be given"},
        {"tls with nothing", "listen:\n  - address: 127.0.0.1:25\n    tls: {}\n",
         "listen[].tls: expected `certificate` and `key`, or `self_signed`"},
        {"tls with both", "listen: [{address: 127.0.0.1:25, tls: {key: /k, self_signed: /s}}]\n",
         "listen[].tls: expected `certificate` and `key`, or `self_signed`"},
        {"hosts without hosts", "routes:\n- {match: a.example, via: hosts}\n",
         "test.yaml:2: routes[].hosts: must be given for `via: hosts`"},
        {"hosts with mx", "routes: [{match: a.example, via: mx, hosts: [{host: a}]}]\n",
         "`hosts` needs `via: hosts` or `via: lmtp`"},
        {"lmtp to nowhere", "routes:\n- {match: a.example, via: lmtp}\n",
         "test.yaml:2: routes[].via: `lmtp` needs either `hosts` or `socket`"},
        {"lmtp to both",
         "routes: [{match: a.example, via: lmtp, socket: /s, hosts: [{host: a}]}]\n",
         "routes[].via: `lmtp` needs either `hosts` or `socket`"},
        {"lmtp at port 25",
         "routes:\n- match: a.example\n  via: lmtp\n  hosts:\n"
         "  - {host: 192.0.2.9}\n  - {host: 192.0.2.9, port: 25}\n",
         "test.yaml:6: routes[].hosts[].port: 25 is the port of SMTP"},
        {"socket without lmtp", "routes: [{match: a.example, socket: /s}]\n",
         "routes[].socket: is only for `via: lmtp`"},
        {"socket in no folder", "routes: [{match: a.example, via: lmtp, socket: s}]\n",
         "routes[].socket: must be an absolute path"},
        {"TLS on a socket",
         "routes: [{match: a.example, via: lmtp, socket: /s, tls: {level: encrypt}}]\n",
         "routes[].tls.level: there is no TLS on a Unix socket"},
        {"text without refuse", "routes: [{match: a.example, text: no}]\n",
         "routes[].text: is only for `via: refuse`"},
        {"route twice", "routes:\n- {match: a.example}\n- {match: A.EXAMPLE}\n",
         "test.yaml:3: routes[].match: \"a.example\" has a route in line 2 already"},
        {"default route twice", "routes:\n- {match: \"*\"}\n- {match: \"*\"}\n",
         "\"*\" has a route in line 2 already"},
        {"password in the clear", "routes: [{match: \"*\", auth: {user: u, password_file: /p}}]\n",
         "routes[].auth: needs `tls: {level: encrypt}`"},
        {"name without verify", "routes: [{match: \"*\", tls: {level: may, name: a.example}}]\n",
         "routes[].tls.name: is only for `level: verify`"},
        {"class twice", "classes:\n- {name: a}\n- {name: A}\n",
         "test.yaml:3: classes[].name: there is one of that name"},
        {"class of a number", "classes: [{name: 1st}]\n", "classes[].name: begins with a digit"},
        {"class without a name", "classes: [{least: 1}]\n", "classes[].name"},
        {"more than all turns", "classes: [{name: a, least: 51}, {name: b, least: 50}]\n",
         "classes[].least: add up to more than 100"},
        {"unknown class by default", "classes: [{name: a}]\nclass_default: b\n",
         "class_default: there is no class \"b\""},
        {"rule for an unknown class",
         "classes: [{name: a}]\nclass_rules: [{class: b, recipients: 2}]\n",
         "class_rules[].class: there is no class \"b\""},
        {"rule that says nothing", "classes: [{name: a}]\nclass_rules:\n- {class: a}\n",
         "test.yaml:3: class_rules[]: says nothing"},
        {"rule for an unknown listener",
         "classes: [{name: a}]\nclass_rules: [{class: a, listeners: \"192.0.2.1:26\"}]\n",
         "class_rules[].listeners: is none of `listen`"},
        {"signature for an unknown listener",
         "dkim:\n- {domain: a.example, selector: s, key: /k, listeners: \"192.0.2.1:26\"}\n",
         "test.yaml:2: dkim[].listeners: 192.0.2.1:26 is no address of `listen`"},
        {"pattern for an unknown provider",
         "sites: [{provider: big, mx: [b.example]}]\npatterns:\n"
         "- {name: a, provider: bog, reply: x, action: suspend}\n",
         "test.yaml:3: patterns[].provider: bog is no provider of `sites`"},
        {"back-off for too long",
         "patterns:\n- {name: a, reply: x, action: back_off, duration: 4h1s}\n",
         "test.yaml:2: patterns[]: duration: `back_off` takes 4h at most"},
        {"rest that is shorter than it begins", "source_rest: {first: 2h, longest: 1h}\n",
         "source_rest.longest: is less than source_rest.first"},
        {"class field that is everybody's", "class_header: Received\n",
         "class_header: is cut out of mail: it must begin with X-"},
        {"class field that is the pool's", "class_header: x-p\npool_header: {name: X-P}\n",
         "class_header: is `pool_header`, too"},
        {"pool field that is everybody's", "pool_header: {name: From}\n",
         "pool_header.name: is cut out of mail: it must begin with X-"},
        {"provider with a blank", "sites: [{provider: a b, mx: [c.d]}]\n",
         "sites[].provider: expected a name of letters"},
        {"field with a colon", "class_header: \"X-Class:\"\n", "class_header: is no name"},
        {"site without a name", "sites:\n- {connections: 1}\n",
         "test.yaml:2: sites[]: expected `match` or `provider`"},
        {"site with two names", "sites: [{match: a.example, provider: a, mx: [\"*\"]}]\n",
         "sites[]: expected `match` or `provider`"},
        {"provider without exchangers", "sites: [{provider: a}]\n",
         "sites[].mx: must be given for a provider"},
        {"exchangers without provider", "sites: [{match: a.example, mx: [\"*.a.example\"]}]\n",
         "sites[].mx: is only for a `provider`"},
        {"site twice", "sites:\n- {match: a.example}\n- {match: A.EXAMPLE}\n",
         "test.yaml:3: sites[]: has a rule in line 2 already"},
        {"provider twice", "sites:\n- {provider: a, mx: [a.b]}\n- {provider: a, mx: [c.d]}\n",
         "test.yaml:3: sites[]: has a rule in line 2 already"},
        {"pattern without a name", "patterns:\n- {reply: x, action: suspend}\n",
         "test.yaml:2: patterns[].name: must be given"},
        {"pattern without an action", "patterns:\n- {name: a, reply: x}\n",
         "test.yaml:2: patterns[].action: must be given"},
        {"pattern that is no expression",
         "patterns:\n- {name: a, reply: x, action: suspend}\n- {name: b, reply: 'a(b', action: "
         "suspend}\n",
         "test.yaml:3: patterns[]: reply: missing closing parenthesis, at octet 3"},
        {"pattern twice",
         "patterns:\n- {name: a, reply: x, action: suspend}\n- {name: a, reply: y, action: "
         "suspend}\n",
         "test.yaml:3: patterns[]: name: another pattern has it"},
        {"pattern slow to nothing", "patterns: [{name: a, reply: x, action: slow}]\n",
         "`slow` needs a rate or connections"},
        {"pattern of no code", "patterns: [{name: a, reply: x, action: suspend, code: 42}]\n",
         "code: expected at most 16 such as 421"},
        {"rate without a window", "sites: [{match: \"*\", rate: 100}]\n",
         "sites[].rate: expected rates such as `100/10m`"},
        {"two addresses of a source", "sources: [{name: a, addresses: [192.0.2.1, 192.0.2.2]}]\n",
         "test.yaml:1: sources[].addresses: two addresses of one family"},
        {"three addresses of a source",
         "sources: [{name: a, addresses: [192.0.2.1, \"2001:db8::1\", \"2001:db8::2\"]}]\n",
         "sources[].addresses: expected at most 2 elements"},
        {"source without a name", "sources: [{hello: a.example}]\n",
         "sources[].name: must be given"},
        {"name of a source with a blank", "sources: [{name: \"a b\"}]\n",
         "sources[].name: expected a name of letters, digits"},
        {"name of a source of 32 octets", "sources: [{name: a2345678901234567890123456789012}]\n",
         "at most 31 octets"},
        {"source twice", "sources:\n- {name: a}\n- {name: A}\n",
         "test.yaml:3: sources[].name: a is the name of a source in line 2 already"},
        {"address of two sources",
         "sources:\n- {name: a, addresses: [192.0.2.1]}\n- {name: b, addresses: [192.0.2.1]}\n",
         "test.yaml:3: sources[].addresses: has an address of the source in line 2"},
        {"warm-up without days", "sources: [{name: a, warmup: {start: 2026-11-26}}]\n",
         "sources[].warmup.schedule: must be given"},
        {"warm-up with no days",
         "sources: [{name: a, warmup: {schedule: [], start: 2026-11-26}}]\n",
         "sources[].warmup.schedule: expected"},
        {"warm-up without a beginning", "sources: [{name: a, warmup: {schedule: [1]}}]\n",
         "sources[].warmup.start: must be given"},
        {"day without mail", "sources: [{name: a, warmup: {schedule: [0], start: 2026-11-26}}]\n",
         "schedule: expected a number from 1 to 1000000000, not \"0\""},
        {"day with too much mail",
         "sources: [{name: a, warmup: {schedule: [1000000001], start: 2026-11-26}}]\n",
         "schedule: expected a number from 1 to 1000000000"},
        {"day of no calendar", "sources: [{name: a, warmup: {schedule: [1], start: 2026-02-29}}]\n",
         "start: expected a date such as 2026-11-26"},
        {"date with a time", "sources: [{name: a, warmup: {schedule: [1], start: 2026-11-26 x}}]\n",
         "start: expected a date"},
        {"date before 2000", "sources: [{name: a, warmup: {schedule: [1], start: 1999-12-31}}]\n",
         "start: expected a date"},
        {"no window left for the warm-up",
         "sources: [{name: a, warmup: {schedule: [1], start: 2026-11-26}}]\nsites:\n"
         "- {match: \"*\", rate: \"1/1s, 1/2s, 1/3s, 1/4s, 1/5s, 1/6s, 1/7s, 1/8s\"}\n",
         "test.yaml:3: sites[].rate: expected one window less"},
        {"pool twice",
         "pools:\n- {name: p, members: [{source: default}]}\n"
         "- {name: p, members: [{source: default}]}\n",
         "test.yaml:3: pools[].name: p is the name of a pool in line 2 already"},
        {"unknown member", "sources: [{name: a}]\npools:\n- name: p\n  members:\n  - {source: b}\n",
         "test.yaml:5: pools[].members[].source: there is no source of that name"},
        {"member twice",
         "sources: [{name: a}]\npools:\n- name: p\n  members:\n  - {source: a}\n  - {source: a}\n",
         "test.yaml:6: pools[].members[].source: is a member in line 5 already"},
        {"pool without members", "pools:\n- {name: p}\n",
         "test.yaml:2: pools[].members: must be given"},
        {"weight of nothing", "pools: [{name: p, members: [{source: default, weight: 0}]}]\n",
         "weight: expected a number from 1 to 1000"},
        {"weight too large", "pools: [{name: p, members: [{source: default, weight: 1001}]}]\n",
         "weight: expected a number from 1 to 1000"},
        {"unknown default pool", "sources: [{name: a}]\ndefault_pool: p\n",
         "test.yaml:2: default_pool: there is no pool named p"},
        {"rule about nobody", "delivery_rules:\n- {delivery: spool}\n",
         "test.yaml:2: delivery_rules[]: says nothing: expected `senders`, `user` or `clients`"},
        {"rule that decides nothing", "delivery_rules:\n- {user: alice}\n",
         "test.yaml:2: delivery_rules[].delivery: must be given"},
        {"rule for a pool that there is not", "pool_rules:\n- {pool: p}\n",
         "test.yaml:2: pool_rules[].pool: there is no pool named p"},
        {"rule for a listener that there is not",
         "pool_rules:\n- {listeners: [\"192.0.2.9:25\"], pool: default}\n",
         "test.yaml:2: pool_rules[].listeners: 192.0.2.9:25 is no address of `listen`"},
        {"name of a header of 41 octets",
         "pool_header: {name: a2345678901234567890123456789012345678901}\n",
         "pool_header.name: expected a name of letters"},
        {"two default pools",
         "sources: [{name: a}]\npools: [{name: default, members: [{source: a}]}, "
         "{name: p, members: [{source: a}]}]\ndefault_pool: p\n",
         "test.yaml:3: default_pool: there is a pool named default"},
        {"logins without users", "listen:\n- {address: \"192.0.2.1:587\", kind: submission}\n",
         "test.yaml:2: listen[].auth: nobody can log in: `auth.users_file` or `auth.dovecot` is "
         "missing"},
        {"two places for passwords", "auth: {users_file: /u, dovecot: /d}\n",
         "test.yaml:1: auth.dovecot: expected this or `users_file`, not both"},
        {"logins in the clear",
         "listen:\n- {address: \"192.0.2.1:587\", auth: optional}\nauth: {users_file: /u}\n",
         "test.yaml:2: listen[].auth: needs `tls`: the password would travel in the clear"},
        {"implicit TLS without a certificate",
         "listen:\n- {address: \"192.0.2.1:465\", tls: {implicit: true}}\n",
         "test.yaml:2: listen[].tls: expected `certificate` and `key`, or `self_signed`"},
        {"key without a file", "dkim:\n- {domain: a.example, selector: s}\n",
         "test.yaml:2: dkim[].key: must be given"},
        {"selector of two words", "dkim: [{domain: a.example, selector: s t, key: /k}]\n",
         "dkim[].selector: expected letters, digits"},
        {"selector with an empty label", "dkim: [{domain: a.example, selector: s..t, key: /k}]\n",
         "dkim[].selector: expected letters, digits"},
        {"selector that ends in a dot", "dkim: [{domain: a.example, selector: s., key: /k}]\n",
         "dkim[].selector: expected letters, digits"},
        {"selector that begins with a hyphen",
         "dkim: [{domain: a.example, selector: -s, key: /k}]\n",
         "dkim[].selector: expected letters, digits"},
        {"identity elsewhere", DKIM ", identity: u@b.example}]\n",
         "dkim[].identity: expected @a.example or user@a.example"},
        {"identity of the end of a label", DKIM ", identity: \"@ba.example\"}]\n",
         "dkim[].identity: expected @a.example"},
        {"identity without a domain", DKIM ", identity: a.example}]\n",
         "dkim[].identity: expected @a.example"},
        {"identity that needs quoting", DKIM ", identity: \"a;b@a.example\"}]\n",
         "dkim[].identity: expected @a.example"},
        {"field name with a colon", DKIM ", headers: [\"From:\"]}]\n",
         "dkim[].headers: expected the name of a header field: letters"},
        {"field twice", DKIM ", headers: [From, To, from]}]\n",
         "test.yaml:1: dkim[].headers: \"from\" is given twice"},
        {"field that is removed on the way", DKIM ", headers: [Return-Path]}]\n",
         "dkim[].headers: \"Return-Path\" changes on the way"},
        {"field that is added on the way", DKIM ", oversign: [received]}]\n",
         "dkim[].oversign: \"received\" changes on the way"},
        {"signature that never was good", DKIM ", expire: 31536001s}]\n",
         "dkim[].expire: expected a duration from 0 to 365d"},
        {"spool too small", "cores: 8\nspool: {size: 1GB, segment: 64MB, reserve: 64MB}\n",
         "test.yaml:2: spool.size: expected at least 4096MB"},
        {"lifetime", "hostname: a.example\nmessage_lifetime: 1m\n",
         "test.yaml:2: message_lifetime: is shorter than retry.min"},
        {"retry order", "retry: {min: 2h, max: 1h}\n", "retry.min: is longer than retry.max"},
        {"postmaster without a domain", "postmaster: ops\n",
         "test.yaml:1: postmaster: expected an address with its domain"},
        {"postmaster with text behind", "postmaster: ops@a.example> x\n",
         "postmaster: expected an address"},
        {"no family", "destinations: {ipv4: no, ipv6: no}\n", "neither ipv4 nor ipv6 is left"},
        {"body memory", "queue: {body_memory: 200MiB}\nbuffers: {memory: 256MiB}\n",
         "queue.body_memory: expected at most 128MiB: half of"},
        {"dpdk without ports", "dataplane: {driver: dpdk}\n",
         "dataplane.ports: must be given for `driver: dpdk`"},
        {"ports without dpdk", "dataplane: {ports: [{device: d, addresses: [192.0.2.1/24]}]}\n",
         "dataplane.ports: need `driver: dpdk`"},
        {"port without device", WIRE "{addresses: [192.0.2.1/24]}]}\n", "device: must be given"},
        {"port without address", WIRE "{device: d, addresses: []}]}\n", "addresses"},
        {"address without its network", WIRE "{device: d, addresses: [192.0.2.1]}]}\n",
         "expected an address with the size of its network, such as 192.0.2.1/24, not"},
        {"network too small", WIRE "{device: d, addresses: [192.0.2.1/33]}]}\n",
         "expected an addr"},
        {"network of everything", WIRE "{device: d, addresses: [192.0.2.1/0]}]}\n", "expected an"},
        {"gateway elsewhere",
         WIRE "{device: d, addresses: [192.0.2.1/24], gateway: [192.0.3.1]}]}\n",
         "dataplane.ports[].gateway: 192.0.3.1 is on the network of none"},
        {"two gateways of a family",
         WIRE "{device: d, addresses: [192.0.2.1/24], gateway: [192.0.2.2, 192.0.2.3]}]}\n",
         "two addresses of one family"},
        {"address twice", WIRE "{device: d, addresses: [192.0.2.1/24, 192.0.2.1/25]}]}\n",
         "192.0.2.1 occurs twice"},
        {"address on two ports",
         WIRE "{device: d, addresses: [192.0.2.1/24]}, {device: e, addresses: [192.0.2.1/24]}]}\n",
         "192.0.2.1 occurs twice"},
        {"address of a group", WIRE "{device: d, addresses: [224.0.0.1/24]}]}\n",
         "dataplane.ports[].addresses: 224.0.0.1/24 is no address of a host"},
        {"address of a group, IPv6", WIRE "{device: d, addresses: [\"ff02::1/64\"]}]}\n",
         "ff02::1/64 is no address of a host"},
        {"address of the network", WIRE "{device: d, addresses: [192.0.2.0/24]}]}\n",
         "192.0.2.0/24 is no address of a host"},
        {"address of everybody on the network", WIRE "{device: d, addresses: [192.0.2.7/29]}]}\n",
         "192.0.2.7/29 is no address of a host"},
        {"IPv4 in IPv6", WIRE "{device: d, addresses: [\"::ffff:192.0.2.1/96\"]}]}\n",
         "is no address of a host"},
        {"gateway is ourselves",
         WIRE "{device: d, addresses: [192.0.2.1/24], gateway: [192.0.2.1]}]}\n",
         "dataplane.ports[].gateway: 192.0.2.1 is an address of the port itself"},
        {"device twice",
         WIRE "{device: \"d,a=1\", addresses: [192.0.2.1/24]}, {device: d, addresses: "
              "[192.0.3.1/24]}]}\n",
         "dataplane.ports[].device: d occurs twice"},
        {"device with a blank",
         WIRE "{device: \"net_null0 --vdev=net_null1\", addresses: [192.0.2.1/24]}]}\n",
         "dataplane.ports[].device: has a blank; arguments of a device follow commas"},
        {"address of the kernel's", WIRE "{device: d, addresses: [127.0.0.2/8]}]}\n",
         "127.0.0.2 is reached through the kernel"},
        {"IPv6 needs its MTU", WIRE "{device: d, mtu: 1279, addresses: [\"2001:db8::1/64\"]}]}\n",
         "expected at least 1280 with IPv6"},
        {"MTU below bounds", WIRE "{device: d, mtu: 575, addresses: [192.0.2.1/24]}]}\n",
         "mtu: expected a number from 576 to 9198"},
        {"listener that is nowhere",
         "listen: [{address: 192.0.2.9:25}]\n" WIRE "{device: d, addresses: [192.0.2.1/24]}]}\n",
         "192.0.2.9:25 is neither an address of a port nor the kernel's"},
        {"source that is nowhere",
         "sources: [{name: a, addresses: [192.0.2.9]}]\n" WIRE
         "{device: d, addresses: [192.0.2.1/24]}]}\n",
         "test.yaml:1: sources[].addresses: 192.0.2.9 is neither"},
        {"webhook beyond loopback", HOOK "name: a, url: \"http://example.net/\"}]\n",
         "test.yaml:2: webhooks[].url: http:// beyond loopback"},
        {"webhook with a password in it", HOOK "name: a, url: \"https://a:b@example.net/\"}]\n",
         "expected https://host"},
        {"webhook by another protocol", HOOK "name: a, url: \"ftp://example.net/\"}]\n",
         "expected https://host"},
        {"webhook without an end", HOOK "name: a, url: \"https:///x\"}]\n",
         "expected https://host"},
        {"webhooks of one name",
         HOOK "name: a, url: \"https://b/\"}, {name: a, url: \"https://c/\"}]\n",
         "webhooks[].name: \"a\" is in line 2 as well"},
        {"webhook of nothing", "webhooks: [{name: a, url: \"https://b/\"}]\n",
         "needs `records.file`"},
        {"webhook of records in binary",
         "records: {raw: /r}\nwebhooks: [{name: a, url: \"https://b/\"}]\n",
         "needs `records.file`, which webhooks read (not `records.raw`)"},
        {"webhook without its secret", HOOK "name: a, url: \"https://b/\", auth: bearer}]\n",
         "webhooks[].auth: needs `secret_file`"},
        {"webhook with a kind that is none",
         HOOK "name: a, url: \"https://b/\", events: [delivery, bounces]}]\n",
         "webhooks[].events: expected one of reception, delivery"},
        {"webhook whose pauses shrink",
         HOOK "name: a, url: \"https://b/\", retry_min: 2s, retry_max: 1s}]\n",
         "webhooks[].retry_min: is more than `retry_max`"},
        {"message size", "buffers: {memory: 66000KB}\nqueue: {body_memory: 16MiB}\n",
         "buffers.memory: is too small to send a message"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        struct config *config = config_from(cases[i].text);
        if (config != NULL || strstr(report.text, cases[i].complaint) == NULL)
            print_message("# got: %s\n", config != NULL ? "accepted" : report.text);
        assert_null(config);
        assert_non_null(strstr(report.text, cases[i].complaint));
    }
}

/* Goal: all mistakes are seen at once, and there is a bound on what is said of them. */
static void test_many_mistakes(void **state)
{
    char text[8192] = "cores: 0\nmx_port: 0\nspool: {size: x}\nwhat: 1\n";

    (void)state;
    assert_null(config_from(text));
    assert_int_equal(4, report.count);

    *text = '\0';
    for (uint32_t i = 0; i < 300; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "unknown_key_%u: 1\n", i);
    assert_null(config_from(text));
    assert_int_equal(300, report.count);
    assert_true(strlen(report.text) < CONFIG_REPORT_SIZE);
    uint32_t lines = 0;
    for (const char *c = report.text; *c != '\0'; c++)
        lines += *c == '\n';
    assert_true(lines <= CONFIG_COMPLAINT_MAX);
}

/* Goal: no core has fewer segments than it needs to go on on a full disk. */
static void test_spool_size(void **state)
{
    static const struct {
        const char *name, *text, *complaint; /* NULL: it is taken */
    } cases[] = {
        {"eight", "cores: 2\nspool: {size: 512MiB, segment: 32MiB, reserve: 1MiB}\n", NULL},
        {"a little less", "cores: 2\nspool: {size: 511MiB, segment: 32MiB, reserve: 1MiB}\n",
         "test.yaml:2: spool.size: expected at least 512MiB: for each of `cores`, eight of "
         "spool.segment"},
        {"eight for more cores", "cores: 3\nspool: {size: 512MiB, segment: 32MiB}\n",
         "spool.size: expected at least 768MiB"},
        {"larger segments", "cores: 2\nspool: {size: 512MiB, segment: 33MiB}\n",
         "spool.size: expected at least 528MiB"},
        {"a large reserve", "cores: 1\nspool: {size: 1GiB, segment: 64MiB, reserve: 768MiB}\n",
         NULL},
        {"a larger one", "cores: 1\nspool: {size: 1GiB, segment: 64MiB, reserve: 769MiB}\n",
         "spool.size: expected at least 1025MiB"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# %s\n", cases[i].name);
        struct config *config = config_from(cases[i].text);
        assert_int_equal(cases[i].complaint == NULL, config != NULL);
        if (config == NULL)
            assert_non_null(strstr(report.text, cases[i].complaint));
        else
            config_free(config);
    }
}

/* Goal: a small file that aliases make large ends in a complaint, soon. */
static void test_alias_bomb(void **state)
{
    static const char hosts[] = "routes:\n- match: a.example\n  hosts: &h [";
    char *text = malloc(400000);
    uint32_t size = (uint32_t)snprintf(text, 400000, "%s", hosts);

    (void)state;
    for (uint32_t i = 0; i < 256; i++)
        size += (uint32_t)snprintf(text + size, 400000 - size, "{host: a},");
    size += (uint32_t)snprintf(text + size, 400000 - size, "]\n");
    for (uint32_t i = 0; i < 8000; i++)
        size += (uint32_t)snprintf(text + size, 400000 - size, "- {match: n%u.a, hosts: *h}\n", i);
    assert_null(config_from(text));
    assert_non_null(strstr(report.text, "the configuration is too large"));
    free(text);
}

static void test_size_bound(void **state)
{
    uint8_t *text = malloc(CONFIG_FILE_SIZE_MAX + 1);
    struct config *config = NULL;

    (void)state;
    memset(text, '#', CONFIG_FILE_SIZE_MAX + 1);
    config_report_init(&report, "test.yaml");
    assert_int_equal(ERR_OK, config_parse(span_of(text, CONFIG_FILE_SIZE_MAX), &config, &report));
    config_free(config);
    assert_int_not_equal(ERR_OK,
                         config_parse(span_of(text, CONFIG_FILE_SIZE_MAX + 1), &config, &report));
    assert_string_equal("test.yaml: larger than 1 MiB\n", report.text);
    free(text);
}

/* Goal: a reload names what it cannot change, and nothing else. */
static void test_restart_needed(void **state)
{
    static const struct {
        const char *name, *before, *after, *expected;
    } cases[] = {
        {"the same", full, full, ""},
        {"reloadable", "mx_port: 25\n", "mx_port: 26\nrelay_from: []\nhostname: x\n", ""},
        {"cores", "cores: 1\n", "cores: 2\n", "cores"},
        {"text", "spool: {directory: /a}\n", "spool: {directory: /b}\n", "spool.directory"},
        {"text none", "", "records: {file: /b}\n", "records.file"},
        {"list", "dns: {resolvers: [192.0.2.1]}\n", "dns: {resolvers: [192.0.2.2]}\n",
         "dns.resolvers"},
        {"a webhook's option", HOOK "name: a, url: \"https://b/\"}]\n",
         HOOK "name: a, url: \"https://b/\", batch: 7}]\n", "webhooks"},
        {"another webhook", HOOK "name: a, url: \"https://b/\"}]\n", "records: {file: /x}\n",
         "webhooks"},
        {"a port's option", WIRE "{device: d, addresses: [192.0.2.1/24]}]}\n",
         WIRE "{device: d, mtu: 1400, addresses: [192.0.2.1/24]}]}\n", "dataplane.ports"},
        {"one port more", WIRE "{device: d, addresses: [192.0.2.1/24]}]}\n",
         WIRE "{device: d, addresses: [192.0.2.1/24]}, {device: e, addresses: [192.0.3.1/24]}]}\n",
         "dataplane.ports"},
        {"several", "", "cores: 2\nretry: {min: 6m}\n", "cores, retry.min"},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        char text[512];
        struct config *before = config_from(cases[i].before), *after = config_from(cases[i].after);
        print_message("# case: %s\n", cases[i].name);
        assert_string_equal(cases[i].expected,
                            config_restart_needed(before, after, text, sizeof(text)));
        config_free(before);
        config_free(after);
    }
}

/* Goal: a reload says what it changes: options, and lists of mappings by what is in them. */
static void test_changes(void **state)
{
    static const struct {
        const char *name, *before, *after, *expected;
    } cases[] = {
        {"the same", full, full, ""},
        {"values", "mx_port: 25\n", "mx_port: 26\nrelay_from: [10.0.0.0/8]\n",
         "relay_from, mx_port"},
        {"what only a restart changes", "cores: 1\n", "cores: 2\n", ""},
        {"one more", "sources: [{name: a, addresses: [192.0.2.1]}]\n",
         "sources: [{name: a, addresses: [192.0.2.1]}, {name: b, addresses: [192.0.2.2]}]\n",
         "sources"},
        {"within one", "sources: [{name: a, addresses: [192.0.2.1]}]\n",
         "sources: [{name: a, addresses: [192.0.2.9]}]\n", "sources"},
        {"within one of those within one",
         "routes: [{match: a.example, via: hosts, hosts: [{host: b.example}]}]\n",
         "routes: [{match: a.example, via: hosts, hosts: [{host: c.example}]}]\n", "routes"},
        {"webhooks", HOOK "name: a, url: \"https://b/\"}]\n", "records: {file: /x}\n", ""},
    };
    char text[256];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        struct config *before = config_from(cases[i].before);
        struct config *after = config_from(cases[i].after);
        assert_true(before != NULL && after != NULL);
        assert_string_equal(cases[i].expected, config_changes(before, after, text, sizeof(text)));
        config_free(before);
        config_free(after);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_logins),
        cmocka_unit_test(test_default_denies_loopback),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_port_edges),
        cmocka_unit_test(test_dkim_rules),
        cmocka_unit_test(test_full_file),
        cmocka_unit_test(test_lmtp_routes),
        cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_many_mistakes),
        cmocka_unit_test(test_spool_size),
        cmocka_unit_test(test_alias_bomb),
        cmocka_unit_test(test_size_bound),
        cmocka_unit_test(test_restart_needed),
        cmocka_unit_test(test_changes),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
