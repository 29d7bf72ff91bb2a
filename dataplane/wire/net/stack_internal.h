/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_NET_STACK_INTERNAL_H
#define DATAPLANE_WIRE_NET_STACK_INTERNAL_H

#include "dataplane/wire/net/net.h"

/* What the files of net/ share among themselves and with nobody else. */

/* ---- stack_options.c ---- */

/** ERR_CONFIG_VALUE when no stack can be made of these options. */
enum err stack_options_check(const struct stack_options *options) MUST_CHECK;
/** The MTU a port gets: the one asked for, or what its nic allows, at most 1500. */
uint16_t stack_options_mtu(const struct stack_port_options *port);
#define STACK_MTU_DEFAULT 1500u

/* ---- stack.c ---- */

/** Tell the stacks of the other cores; rate-limited. */
void stack_tell(struct stack *stack, const struct stack_news *news);
#define NEWS_PER_SECOND 1000u

/* ---- stack_local.c ---- */

void stack_local_add(struct stack *stack, struct stack_port *port,
                     const struct stack_address *address);
bool stack_prefix_contains(uint8_t bits, const uint8_t prefix[16], const uint8_t ip[16]);
/** True when `ip` is the port's router. */
bool stack_port_is_router(const struct stack_port *port, uint8_t family, const uint8_t ip[16]);
/** True when `ip` is on a prefix of the port; the longest one's size is then *ret_bits, which is
 * else untouched. */
bool stack_port_has_prefix(const struct stack_port *port, uint8_t family, const uint8_t ip[16],
                           uint8_t *ret_bits);

/* ---- ip_input.c ---- */

/** To the core of `queue`; false: it cannot go there, stays the caller's, and is counted. */
bool packet_pass(struct stack *stack, struct packet *packet, uint16_t queue);

/* ---- ip_output.c ---- */

/** Octets of the port's Ethernet header, tag included; 0 with NIC_IS_L3. */
uint16_t stack_port_l2_size(const struct stack_port *port);
/** Put the Ethernet header in front of a packet and send it. */
void ip_output_link(struct stack *stack, struct stack_port *port, const uint8_t mac[6],
                    uint16_t type, struct buf *packet);
/** Put an IP header in front; false: too large, then the packet was dropped. */
bool ip_output_header(struct stack *stack, struct stack_port *port, uint8_t family,
                      const uint8_t remote[16], const struct ip_send *send, struct buf *packet);
/** An empty buffer for protocol headers, with all headroom; NULL: none left (counted). */
struct buf *stack_header_acquire(struct stack *stack) MUST_CHECK;

/* ---- icmp.c ---- */

/** Tell TCP or UDP that a packet of ours (from its IP header on) found nobody on the link. */
void icmp_report_unreachable(struct stack *stack, const struct buf *packet);

/* ---- for stack_see.c: how much there is, whether it is in order ---- */

uint32_t destination_referenced_count(const struct stack *stack);
uint64_t destination_memory(const struct stack *stack);
void destination_verify(const struct stack *stack);
uint32_t neigh_asked_count(const struct stack *stack); /* with packets waiting */
uint32_t neigh_timer_count(const struct stack *stack);
uint64_t neigh_memory(const struct stack *stack);
void neigh_verify(const struct stack *stack);
uint32_t udp_count(const struct stack *stack);
void udp_row(const struct flow_slot *slot, struct stack_flow_row *ret_row);
uint64_t udp_memory(const struct stack *stack);
void udp_verify(struct stack *stack);

#endif
