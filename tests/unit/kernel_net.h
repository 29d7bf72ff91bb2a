/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_KERNEL_NET_H
#define TESTS_UNIT_KERNEL_NET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

/* The kernel's network as the other end of a port, in a namespace of this process alone. */

/** This process, and every thread it starts, has an empty network from here on. With privilege, or
 * in a user namespace where those are permitted. */
bool kernel_net_enter(void);

/** Whether sockets and programs of XDP are there and permitted. */
bool kernel_has_xdp(void);

/** A pair of connected interfaces, up, without offloads. False: no `ip` program, or refused. */
bool kernel_veth_new(const char *name, const char *peer);
void kernel_interface_delete(const char *name);
/** Address with a /24, and up. */
bool kernel_address_add(const char *interface, const char *ip);
/** A neighbour that needs no ARP. */
bool kernel_neighbour_add(const char *interface, const char *ip, const uint8_t mac[6]);
bool kernel_mac_get(const char *interface, uint8_t ret_mac[6]);
uint32_t kernel_mtu_get(const char *interface);

/** A bound UDP socket, non-blocking; -1: refused. */
int kernel_udp_open(const char *ip, uint16_t port);
bool kernel_udp_send(int fd, const char *ip, uint16_t port, const void *octets, uint32_t size);
/** A raw socket that sees every frame that comes in on the interface, and sends; -1: refused. */
int kernel_raw_open(const char *interface);
/** Octets received within `time_us`, or -1. */
int kernel_receive(int fd, void *ret_octets, uint32_t size, uint64_t time_us);

#endif
