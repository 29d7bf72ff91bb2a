/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network part of a configuration: ports as the dataplane wants them, and whether listeners,
 * source addresses and gateways can be where they are said to be. Pure.
 *
 * Invariants of the result
 *   1. Ports exist with the driver dpdk and only there.
 *   2. No address occurs twice; a gateway is on the network of an address of its port.
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

static bool is_on_link(const struct config_port *port, const struct flow_address *gateway)
{
    const struct flow_prefix *addresses = port->addresses.items;

    for (uint32_t i = 0; i < port->addresses.count; i++) {
        if (flow_prefix_contains(&addresses[i], gateway))
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
        addresses_check(config, &items[i], report); /* against those before it */
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
    const struct flow_address *sources = config->client_source.items;
    char text[FLOW_ADDRESS_TEXT_MAX];

    for (uint32_t i = 0; i < config->listen.count; i++) {
        const struct flow_address *address = &listeners[i].settings.address;
        if (!address_is_wildcard(address) && !dataplane_is_kernel(&config->dataplane, address) &&
            !config_is_port_address(config, address))
            config_complain(report, listeners[i].line, "listen[].address",
                            "%s is neither an address of a port nor the kernel's",
                            flow_address_format(address, text));
    }
    for (uint32_t i = 0; i < config->client_source.count; i++) {
        if (!config_is_port_address(config, &sources[i]) &&
            !dataplane_is_kernel(&config->dataplane, &sources[i]))
            config_complain(report, config->client_line, "client.source",
                            "%s is neither an address of a port nor the kernel's",
                            flow_address_format_ip(&sources[i], text));
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
    if (config->dataplane.driver == DATAPLANE_DPDK)
        places_check(config, report);
    return ERR_OK;
}
