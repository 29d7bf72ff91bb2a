/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Our own addresses, and which core a tuple belongs to.
 *
 * Every received packet asks whether its destination and its source are ours, so that is one look
 * into a small table of open addressing. Strangers choose what is looked up but not what is in
 * there: a chain is never longer than what we configured.
 *
 * Hosts are strict here (RFC 1122 3.3.4.2, strong model): an address is answered for on the port it
 * was configured on, and nowhere else.
 */
#include "dataplane/wire/net/stack_internal.h"

static uint32_t local_hash(const uint8_t ip[16])
{
    uint32_t word = load_be32(ip) ^ load_be32(ip + 4) ^ load_be32(ip + 8) ^ load_be32(ip + 12);
    return word * 0x9e3779b1u >> 24; /* 2^32 over the golden ratio */
}

struct stack_local *stack_local_find(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    for (uint32_t at = local_hash(ip);; at++) {
        uint8_t name = stack->local_slots[at % STACK_LOCAL_SLOTS];
        if (name == 0)
            return NULL;
        struct stack_local *local = &stack->locals[name - 1];
        if (memcmp(local->address.address.ip, ip, 16) == 0 &&
            local->address.address.family == family)
            return local;
    }
}

bool stack_prefix_contains(uint8_t bits, const uint8_t prefix[16], const uint8_t ip[16])
{
    if (memcmp(prefix, ip, bits / 8) != 0)
        return false;
    return bits % 8 == 0 || (prefix[bits / 8] ^ ip[bits / 8]) >> (8 - bits % 8) == 0;
}

static void prefix_add(struct stack_port *port, const struct stack_address *address)
{
    for (uint32_t i = 0; i < port->prefix_count; i++) {
        const struct stack_prefix *prefix = &port->prefixes[i];
        if (prefix->family == address->address.family && prefix->bits == address->prefix_bits &&
            stack_prefix_contains(prefix->bits, prefix->ip, address->address.ip))
            return;
    }
    struct stack_prefix *prefix = &port->prefixes[port->prefix_count++];
    *prefix =
        (struct stack_prefix){.family = address->address.family, .bits = address->prefix_bits};
    memcpy(prefix->ip, address->address.ip, 16);
}

bool stack_port_has_prefix(const struct stack_port *port, uint8_t family, const uint8_t ip[16],
                           uint8_t *ret_bits)
{
    bool is_found = false;

    for (uint32_t i = 0; i < port->prefix_count; i++) {
        const struct stack_prefix *prefix = &port->prefixes[i];
        if (prefix->family != family || !stack_prefix_contains(prefix->bits, prefix->ip, ip) ||
            (is_found && prefix->bits <= *ret_bits))
            continue;
        *ret_bits = prefix->bits;
        is_found = true;
    }
    return is_found;
}

bool stack_port_is_router(const struct stack_port *port, uint8_t family, const uint8_t ip[16])
{
    const struct flow_address *gateway = family == 4 ? &port->gateway4 : &port->gateway6;
    return gateway->family == family && memcmp(gateway->ip, ip, 16) == 0;
}

void stack_local_add(struct stack *stack, struct stack_port *port,
                     const struct stack_address *address)
{
    const uint8_t *ip = address->address.ip;
    uint32_t at = local_hash(ip);

    CHECK(stack->local_count < STACK_ADDRESS_MAX);
    prefix_add(port, address);
    stack->locals[stack->local_count++] =
        (struct stack_local){.address = *address, .port = port->index};
    while (stack->local_slots[at % STACK_LOCAL_SLOTS] != 0)
        at++;
    stack->local_slots[at % STACK_LOCAL_SLOTS] = (uint8_t)stack->local_count;
}

/* How well a local address suits: same prefix before same scope; 0: not at all. */
static uint32_t local_suits(const struct stack_local *local, uint8_t family,
                            const uint8_t remote[16])
{
    const struct stack_address *address = &local->address;

    if (address->address.family != family || local->is_duplicate)
        return 0;
    if (stack_prefix_contains(address->prefix_bits, address->address.ip, remote))
        return 3;
    /* RFC 6724 rule 2: a link-local source is no use beyond its link. */
    return ip_is_link_local(family, address->address.ip) == ip_is_link_local(family, remote) ? 2
                                                                                             : 1;
}

static struct stack_local *choose(struct stack *stack, const struct stack_port *port,
                                  uint8_t family, const uint8_t remote[16], bool may_be_tentative)
{
    struct stack_local *best = NULL;
    uint32_t best_suits = 0;

    for (uint32_t i = 0; i < stack->local_count; i++) {
        struct stack_local *local = &stack->locals[i];
        if (local->port != port->index || (local->is_tentative && !may_be_tentative))
            continue;
        uint32_t suits = local_suits(local, family, remote);
        if (suits > best_suits) {
            best = local;
            best_suits = suits;
        }
    }
    return best;
}

struct stack_local *stack_local_choose(struct stack *stack, const struct stack_port *port,
                                       uint8_t family, const uint8_t remote[16])
{
    return choose(stack, port, family, remote, false);
}

static struct stack_local *source_choose(struct stack *stack, uint8_t family,
                                         const uint8_t remote[16], bool may_be_tentative)
{
    struct stack_port *port;
    uint8_t next_hop[16];

    if (!stack_route(stack, family, remote, &port, next_hop))
        return NULL;
    return choose(stack, port, family, remote, may_be_tentative);
}

struct stack_local *stack_source_choose(struct stack *stack, uint8_t family,
                                        const uint8_t remote[16])
{
    return source_choose(stack, family, remote, false);
}

struct stack_local *stack_source_choose_soon(struct stack *stack, uint8_t family,
                                             const uint8_t remote[16])
{
    return source_choose(stack, family, remote, true);
}

bool stack_is_foreign(const struct stack *stack, const struct stack_port *port, uint8_t family,
                      const uint8_t source[16], const uint8_t destination[16], uint16_t source_port,
                      uint16_t destination_port, uint16_t *ret_queue)
{
    const struct nic_steering *steering = &port->nic->steering;

    (void)stack;
    if (steering->queue_count <= 1)
        return false;
    uint32_t hash = rss_base(port->rss, family, source, destination, source_port) ^
                    rss_port(port->rss, family, destination_port);
    uint16_t queue = steering->reta[hash & (steering->reta_size - 1u)];
    if (queue == steering->queue)
        return false;
    *ret_queue = queue;
    return true;
}
