/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The options that say what a DPDK port is. --address and --mtu are about the --device given last.
 */
#include "bench/load/cli.h"

#include <string.h>

#define MTU_USUAL 1500u

void cli_apply_device(struct cli *cli, const struct cli_option *option, const char *value)
{
    struct load_options *options = &cli->options;

    if (options->port_count == LOAD_PORT_MAX)
        cli_refuse(cli, "--%s: at most %u", option->name, LOAD_PORT_MAX);
    options->ports[options->port_count] = (struct dataplane_port_options){
        .device = value, .addresses = options->addresses[options->port_count], .mtu = MTU_USUAL};
    options->port_count++;
}

void cli_apply_mtu(struct cli *cli, const struct cli_option *option, const char *value)
{
    struct load_options *options = &cli->options;

    if (options->port_count == 0)
        cli_refuse(cli, "--%s: give --device first", option->name);
    options->ports[options->port_count - 1].mtu = (uint16_t)cli_number(cli, option, value);
}

/* "192.0.2.1/24", of the port given last. */
void cli_apply_address(struct cli *cli, const struct cli_option *option, const char *value)
{
    struct load_options *options = &cli->options;
    const char *slash = strchr(value, '/');
    uint32_t port = options->port_count - 1;
    uint64_t bits;

    if (options->port_count == 0)
        cli_refuse(cli, "--%s: give --device first", option->name);
    if (options->ports[port].address_count == LOAD_ADDRESS_MAX)
        cli_refuse(cli, "--%s: at most %u of a device", option->name, LOAD_ADDRESS_MAX);
    struct flow_prefix *address = &options->addresses[port][options->ports[port].address_count];
    if (slash == NULL ||
        flow_address_parse_ip(span_of(value, (uint32_t)(slash - value)), &address->address) !=
            ERR_OK ||
        span_parse_u64(span_from_text(slash + 1), &bits) != ERR_OK ||
        bits > (address->address.family == FLOW_FAMILY_IP4 ? 32 : 128))
        cli_refuse(cli, "--%s: not an IP/BITS: %s", option->name, value);
    address->bits = (uint8_t)bits;
    options->ports[port].address_count++;
}
