/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stack can be made of, and the numbers of TCP's that are policy.
 *
 * Options come from a configuration that was judged already by its own rules; here is what the
 * engine itself relies on later without looking again. The first that does not hold ends in
 * ERR_CONFIG_VALUE and nothing was made.
 */
#include "dataplane/wire/net/stack_internal.h"

#define MTU_MIN4 576u  /* RFC 1122 3.3.3: what every host must take */
#define MTU_MIN6 1280u /* RFC 8200 5 */
#define VLAN_MAX 4094u

struct tcp_policy tcp_policy_default(void)
{
    return (struct tcp_policy){
        .mss_min = 536, /* RFC 9293 3.7.1's default: what every host takes */
        .window_scale_max = 8,
        .has_sack = true,
        .has_timestamps = true,
        .has_window_scale = true,
        .has_ecn = true,
        .receive_window_start = 65535,
        .receive_window_max = 4u << 20,
        .send_window_max = 4u << 20,
        .initial_window = 10,
        .rto_initial = TICK_S(1),
        .rto_min = TICK_MS(200), /* less than RFC 6298 2.4's second, as all stacks today */
        .rto_max = TICK_S(60),
        .delayed_ack_time = TICK_MS(40),
        .quick_acks = 16,
        .syn_times = {0, TICK_S(1), TICK_S(3), TICK_S(7), TICK_S(15), TICK_S(31), TICK_S(63)},
        .syn_ack_time = TICK_S(1),
        .syn_ack_retries = 5,
        .time_wait_time = TICK_S(60),
        .fin_wait_2_time = TICK_S(60),
        .user_time = TICK_S(120), /* below the five minutes of SMTP (RFC 5321 4.5.3.2) */
        .is_newreno = false,
        .out_of_order_segments_max = 2048,
        .out_of_order_octets_max = 4u << 20,
        .challenge_acks_per_second = 10,
    };
}

static bool policy_is_possible(const struct tcp_policy *policy)
{
    if (policy->window_scale_max > 14 || policy->mss_min < 64 || policy->mss_min > 536)
        return false;
    if (policy->receive_window_start == 0 ||
        policy->receive_window_start > policy->receive_window_max ||
        policy->receive_window_max > 1u << 30 || policy->send_window_max == 0 ||
        policy->send_window_max > 1u << 30 || policy->initial_window == 0)
        return false;
    if (policy->rto_min == 0 || policy->rto_min > policy->rto_initial ||
        policy->rto_initial > policy->rto_max || policy->rto_max > TICK_S(3600))
        return false;
    /* RFC 9293 3.8.6.3: an ACK must not be delayed by half a second or more. */
    return policy->delayed_ack_time < TICK_MS(500) && policy->syn_ack_time > 0 &&
           policy->syn_times[0] == 0;
}

static bool steering_is_possible(const struct nic_steering *steering)
{
    if (steering->queue_count <= 1)
        return true;
    uint16_t size = steering->reta_size;
    if (steering->queue >= steering->queue_count || size == 0 || size > NIC_RETA_MAX ||
        (size & (size - 1)) != 0)
        return false;
    for (uint32_t i = 0; i < size; i++) {
        if (steering->reta[i] >= steering->queue_count)
            return false;
    }
    return true;
}

static bool address_is_possible(const struct stack_address *address, uint16_t mtu)
{
    uint8_t family = address->address.family;
    const uint8_t *ip = address->address.ip;

    if ((family != FLOW_FAMILY_IP4 && family != FLOW_FAMILY_IP6) ||
        ip_is_martian_source(family, ip))
        return false;
    if (family == FLOW_FAMILY_IP6)
        return address->prefix_bits <= 128 && mtu >= MTU_MIN6;
    return address->prefix_bits <= 32 && memcmp(ip + 4, (const uint8_t[12]){0}, 12) == 0;
}

/* A router is on one of the port's prefixes, or link-local, and none of our addresses. With an
 * address that stands alone (/32, /128: as clouds give them) it may be anywhere. */
static bool gateway_is_possible(const struct stack_port_options *port,
                                const struct flow_address *gateway, uint8_t family)
{
    bool is_near = false;

    if (gateway->family == FLOW_FAMILY_NONE)
        return true;
    if (gateway->family != family || ip_is_martian_source(family, gateway->ip))
        return false;
    for (uint32_t i = 0; i < port->address_count; i++) {
        const struct stack_address *address = &port->addresses[i];
        if (address->address.family != family)
            continue;
        if (memcmp(address->address.ip, gateway->ip, 16) == 0)
            return false;
        is_near |= address->prefix_bits == (family == FLOW_FAMILY_IP4 ? 32 : 128) ||
                   stack_prefix_contains(address->prefix_bits, address->address.ip, gateway->ip);
    }
    return is_near || (family == FLOW_FAMILY_IP6 && ip_is_link_local(family, gateway->ip));
}

static bool port_is_possible(const struct stack_options *options,
                             const struct stack_port_options *port)
{
    const struct nic *nic = port->nic;

    if (nic == NULL || nic->ops == NULL || nic->mtu_max < MTU_MIN4)
        return false;
    bool is_l3 = nic->offloads & NIC_IS_L3, is_chained = nic->offloads & NIC_TX_MULTI_SEGMENT;
    uint16_t mtu = stack_options_mtu(port);
    if (mtu < MTU_MIN4 || mtu > nic->mtu_max || port->vlan > VLAN_MAX || (is_l3 && port->vlan != 0))
        return false;
    if (is_chained && nic->segments_max < 2)
        return false;
    /* Octets of many small pieces are put together in as many buffers as a frame may have, of which
     * the first holds the headers; where a frame must be one buffer, in one. */
    uint32_t pieces = is_chained ? nic->segments_max - 1u : 1u;
    if (buf_pool_data_size(options->pool) * pieces < mtu)
        return false;
    if (!is_l3 && ethernet_is_multicast(nic->mac))
        return false;
    if (port->address_count > 0 && port->addresses == NULL)
        return false;
    for (uint32_t i = 0; i < port->address_count; i++) {
        if (!address_is_possible(&port->addresses[i], mtu))
            return false;
    }
    return steering_is_possible(&nic->steering) &&
           gateway_is_possible(port, &port->gateway4, FLOW_FAMILY_IP4) &&
           gateway_is_possible(port, &port->gateway6, FLOW_FAMILY_IP6);
}

uint16_t stack_options_mtu(const struct stack_port_options *port)
{
    if (port->mtu != 0)
        return port->mtu;
    return port->nic->mtu_max < STACK_MTU_DEFAULT ? port->nic->mtu_max : STACK_MTU_DEFAULT;
}

/* Address `index` of port `port_index` was given before. */
static bool address_is_repeated(const struct stack_options *options, uint32_t port_index,
                                uint32_t index)
{
    const struct flow_address *address = &options->ports[port_index].addresses[index].address;

    for (uint32_t i = 0; i <= port_index; i++) {
        uint32_t count = i == port_index ? index : options->ports[i].address_count;
        for (uint32_t j = 0; j < count; j++) {
            const struct flow_address *other = &options->ports[i].addresses[j].address;
            if (other->family == address->family && memcmp(other->ip, address->ip, 16) == 0)
                return true;
        }
    }
    return false;
}

enum err stack_options_check(const struct stack_options *options)
{
    uint32_t address_count = 0;

    if (options->pool == NULL || options->header_pool == NULL || options->clone_pool == NULL ||
        buf_pool_data_size(options->header_pool) < STACK_HEADER_SIZE)
        return ERR_CONFIG_VALUE;
    if (options->ports == NULL || options->port_count == 0 || options->port_count > STACK_PORT_MAX)
        return ERR_CONFIG_VALUE;
    if (options->core_count == 0 || options->core_count > STACK_CORE_MAX ||
        options->core >= options->core_count)
        return ERR_CONFIG_VALUE;
    if (options->flow_count_max == 0 || options->neighbour_max == 0 ||
        options->destination_max == 0 || !policy_is_possible(&options->tcp))
        return ERR_CONFIG_VALUE;
    for (uint32_t i = 0; i < options->port_count; i++) {
        const struct stack_port_options *port = &options->ports[i];
        if (!port_is_possible(options, port) ||
            port->address_count > STACK_ADDRESS_MAX - address_count)
            return ERR_CONFIG_VALUE;
        address_count += port->address_count;
        for (uint32_t j = 0; j < port->address_count; j++) {
            if (address_is_repeated(options, i, j))
                return ERR_CONFIG_VALUE;
        }
    }
    return ERR_OK;
}
