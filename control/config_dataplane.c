/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network part of a configuration: ports as the dataplane wants them, and whether listeners,
 * source addresses and gateways can be where they are said to be. Pure.
 *
 * Invariants of the result
 *   1. Ports exist with the driver dpdk and only there.
 *   2. No device and no address occurs twice, and an address is one that a host can have. A gateway
 *      is on the network of an address of its port, link-local, or anywhere where an address has no
 *      network (/32, /128); it is no address of its port.
 *   3. A listener's address is the kernel's, a wildcard, or an address of a port; a source address
 *      is the kernel's or a port's.
 */
#include <string.h>

#include "control/config.h"

#define MTU_IP6_MIN 1280u

static bool address_is_wildcard(const struct flow_address *address)
{
    static const uint8_t zero[16];

    return memcmp(address->ip, zero, sizeof(zero)) == 0;
}

static bool ip_is_equal(const struct flow_address *a, const struct flow_address *b)
{
    return a->family == b->family && memcmp(a->ip, b->ip, sizeof(a->ip)) == 0;
}

bool config_is_port_address(const struct config *config, const struct flow_address *address)
{
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        const struct dataplane_port_options *port = &config->dataplane.ports[i];
        for (uint32_t j = 0; j < port->address_count; j++) {
            if (ip_is_equal(&port->addresses[j].address, address))
                return true;
        }
    }
    return false;
}

/* ---- ports ---- */

/* The network itself, or everybody on it: RFC 1122 3.2.1.3. RFC 3021: of two both are hosts. */
static bool is_end_of_network(const struct flow_prefix *prefix)
{
    const uint8_t *ip = prefix->address.ip;
    uint32_t host = (uint32_t)ip[0] << 24 | (uint32_t)ip[1] << 16 | (uint32_t)ip[2] << 8 | ip[3];

    if (prefix->bits >= 31)
        return false;
    host &= UINT32_MAX >> prefix->bits;
    return host == 0 || host == UINT32_MAX >> prefix->bits;
}

/* What the engine takes for its own: see ip_is_martian_source(). */
static bool is_host(const struct flow_prefix *prefix)
{
    static const uint8_t zero[15], mapped[12] = {[10] = 0xff, [11] = 0xff};
    const uint8_t *ip = prefix->address.ip;

    if (prefix->address.family == FLOW_FAMILY_IP4)
        return ip[0] != 0 && ip[0] < 224 && !is_end_of_network(prefix);
    return ip[0] != 0xff && memcmp(ip, zero, sizeof(zero)) != 0 &&
           memcmp(ip, mapped, sizeof(mapped)) != 0;
}

static bool is_link_local6(const struct flow_address *address)
{
    return address->family == FLOW_FAMILY_IP6 && address->ip[0] == 0xfe &&
           (address->ip[1] & 0xc0) == 0x80;
}

static bool is_on_link(const struct config_port *port, const struct flow_address *gateway)
{
    const struct flow_prefix *addresses = port->addresses.items;

    for (uint32_t i = 0; i < port->addresses.count; i++) {
        uint8_t all = addresses[i].address.family == FLOW_FAMILY_IP4 ? 32 : 128;

        if (flow_prefix_contains(&addresses[i], gateway) ||
            (addresses[i].address.family == gateway->family && addresses[i].bits == all))
            return true;
    }
    return is_link_local6(gateway);
}

static bool is_of_port(const struct config_port *port, const struct flow_address *address)
{
    const struct flow_prefix *addresses = port->addresses.items;

    for (uint32_t i = 0; i < port->addresses.count; i++) {
        if (ip_is_equal(&addresses[i].address, address))
            return true;
    }
    return false;
}

static void gateways_assemble(const struct config_port *port,
                              struct dataplane_port_options *options, struct config_report *report)
{
    const struct flow_address *items = port->gateway.items;

    for (uint32_t i = 0; i < port->gateway.count; i++) {
        struct flow_address *into =
            items[i].family == FLOW_FAMILY_IP4 ? &options->gateway4 : &options->gateway6;
        char text[FLOW_ADDRESS_TEXT_MAX];

        if (into->family != FLOW_FAMILY_NONE)
            config_complain(report, port->line, "dataplane.ports[].gateway",
                            "two addresses of one family");
        if (!is_on_link(port, &items[i]))
            config_complain(report, port->line, "dataplane.ports[].gateway",
                            "%s is on the network of none of the port's addresses",
                            flow_address_format_ip(&items[i], text));
        if (is_of_port(port, &items[i]))
            config_complain(report, port->line, "dataplane.ports[].gateway",
                            "%s is an address of the port itself",
                            flow_address_format_ip(&items[i], text));
        *into = items[i];
    }
}

static void addresses_check(const struct config *config, const struct config_port *port,
                            struct config_report *report)
{
    const struct flow_prefix *addresses = port->addresses.items;

    for (uint32_t i = 0; i < port->addresses.count; i++) {
        char text[FLOW_ADDRESS_TEXT_MAX];
        bool is_twice = config_is_port_address(config, &addresses[i].address);

        for (uint32_t j = 0; j < i; j++)
            is_twice |= ip_is_equal(&addresses[i].address, &addresses[j].address);
        if (is_twice)
            config_complain(report, port->line, "dataplane.ports[].addresses", "%s occurs twice",
                            flow_address_format_ip(&addresses[i].address, text));
        if (!is_host(&addresses[i]))
            config_complain(report, port->line, "dataplane.ports[].addresses",
                            "%s/%u is no address of a host",
                            flow_address_format_ip(&addresses[i].address, text), addresses[i].bits);
        if (dataplane_is_kernel(&config->dataplane, &addresses[i].address))
            config_complain(report, port->line, "dataplane.ports[].addresses",
                            "%s is reached through the kernel, as dataplane.kernel has it",
                            flow_address_format_ip(&addresses[i].address, text));
        if (addresses[i].address.family == FLOW_FAMILY_IP6 && port->mtu < MTU_IP6_MIN)
            config_complain(report, port->line, "dataplane.ports[].mtu",
                            "expected at least %u with IPv6", MTU_IP6_MIN);
    }
    if (port->addresses.count == 0)
        config_complain(report, port->line, "dataplane.ports[].addresses", "must be given");
}

/* By its name: what follows a comma are the device's own options. */
static void device_check(const struct config *config, const struct config_port *port,
                         struct config_report *report)
{
    size_t size = port->device == NULL ? 0 : strcspn(port->device, ",");

    /* DPDK would take what follows for arguments of its own. */
    if (port->device != NULL && strpbrk(port->device, " \t\r\n") != NULL)
        config_complain(report, port->line, "dataplane.ports[].device",
                        "has a blank; arguments of a device follow commas");
    for (uint32_t i = 0; i < config->dataplane.port_count; i++) {
        const char *other = config->dataplane.ports[i].device;

        if (size > 0 && other != NULL && strcspn(other, ",") == size &&
            memcmp(other, port->device, size) == 0)
            config_complain(report, port->line, "dataplane.ports[].device", "%.*s occurs twice",
                            (int)size, port->device);
    }
}

static enum err ports_assemble(struct config *config, struct config_report *report)
{
    const struct config_port *items = config->dataplane_ports.items;
    uint32_t count = config->dataplane_ports.count, address_count = 0;
    struct dataplane_port_options *ports =
        arena_acquire(&config->arena, ((uint64_t)count + 1) * sizeof(*ports));

    if (ports == NULL)
        return ERR_MEMORY;
    config->dataplane.ports = ports;
    for (uint32_t i = 0; i < count; i++) {
        device_check(config, &items[i], report); /* both against those before it */
        addresses_check(config, &items[i], report);
        ports[i] = (struct dataplane_port_options){.device = items[i].device,
                                                   .exception = items[i].exception,
                                                   .addresses = items[i].addresses.items,
                                                   .address_count = items[i].addresses.count,
                                                   .mtu = items[i].mtu,
                                                   .vlan = items[i].vlan};
        gateways_assemble(&items[i], &ports[i], report);
        address_count += items[i].addresses.count;
        config->dataplane.port_count++;
    }
    if (address_count > DATAPLANE_ADDRESS_MAX)
        config_complain(report, config->dataplane_line, "dataplane.ports",
                        "expected at most %u addresses in all", DATAPLANE_ADDRESS_MAX);
    return ERR_OK;
}

static void driver_check(const struct config *config, struct config_report *report)
{
    bool has_ports = config->dataplane.port_count > 0;

    if (config->dataplane.driver == DATAPLANE_DPDK && !has_ports)
        config_complain(report, config->dataplane_line, "dataplane.ports",
                        "must be given for `driver: dpdk`");
    if (config->dataplane.driver == DATAPLANE_HOST && has_ports)
        config_complain(report, config->dataplane_line, "dataplane.ports", "need `driver: dpdk`");
}

/* ---- who may use them ---- */

static void places_check(const struct config *config, struct config_report *report)
{
    const struct config_listener *listeners = config->listen.items;
    char text[FLOW_ADDRESS_TEXT_MAX];

    for (uint32_t i = 0; i < config->listen.count; i++) {
        const struct flow_address *address = &listeners[i].settings.address;
        if (!address_is_wildcard(address) && !dataplane_is_kernel(&config->dataplane, address) &&
            !config_is_port_address(config, address))
            config_complain(report, listeners[i].line, "listen[].address",
                            "%s is neither an address of a port nor the kernel's",
                            flow_address_format(address, text));
    }
}

static void sources_check(const struct config *config, struct config_report *report)
{
    const struct config_source *sources = config->sources.items;
    char text[FLOW_ADDRESS_TEXT_MAX];

    for (uint32_t i = 0; i < config->sources.count; i++) {
        const struct flow_address *addresses = sources[i].addresses.items;
        for (uint32_t j = 0; j < sources[i].addresses.count; j++) {
            if (!config_is_port_address(config, &addresses[j]) &&
                !dataplane_is_kernel(&config->dataplane, &addresses[j]))
                config_complain(report, sources[i].line, "sources[].addresses",
                                "%s is neither an address of a port nor the kernel's",
                                flow_address_format_ip(&addresses[j], text));
        }
    }
}

enum err config_dataplane_assemble(struct config *config, struct config_report *report)
{
    config->dataplane.core_count = (uint16_t)config->cores;
    config->dataplane.flow_count_max = config->flow_count_max;
    config->dataplane.buffer_size = config->buffer_size;
    config->dataplane.buffer_memory = config->buffer_memory;
    config->dataplane.kernel = config->dataplane_kernel.items;
    config->dataplane.kernel_count = config->dataplane_kernel.count;
    if (ports_assemble(config, report) != ERR_OK) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    driver_check(config, report);
    if (config->dataplane.driver == DATAPLANE_DPDK) {
        places_check(config, report);
        sources_check(config, report);
    }
    return ERR_OK;
}
