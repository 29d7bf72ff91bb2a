/* SPDX-License-Identifier: Apache-2.0 */
/* The kernel's side of tests with real interfaces: requests to the kernel where there is one, the
 * `ip` program for pairs. */
#include "kernel_net.h"

#include <arpa/inet.h>
#include <linux/bpf.h>
#include <linux/ethtool.h>
#include <linux/if_packet.h>
#include <linux/sockios.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

bool kernel_net_enter(void)
{
    return unshare(CLONE_NEWNET) == 0 || unshare(CLONE_NEWUSER | CLONE_NEWNET) == 0;
}

bool kernel_has_xdp(void)
{
    union bpf_attr map = {
        .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 4, .max_entries = 1};
    int fd = socket(AF_XDP, SOCK_RAW | SOCK_CLOEXEC, 0);
    long map_fd = syscall(SYS_bpf, BPF_MAP_CREATE, &map, sizeof(map));

    if (fd >= 0)
        close(fd);
    if (map_fd >= 0)
        close((int)map_fd);
    return fd >= 0 && map_fd >= 0;
}

static struct ifreq request_for(const char *interface)
{
    struct ifreq request = {0};

    strncpy(request.ifr_name, interface, IFNAMSIZ - 1);
    return request;
}

static bool ask(unsigned long what, void *request)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is_done = fd >= 0 && ioctl(fd, what, request) == 0;

    if (fd >= 0)
        close(fd);
    return is_done;
}

static bool set_up(const char *interface)
{
    struct ifreq request = request_for(interface);

    if (!ask(SIOCGIFFLAGS, &request))
        return false;
    request.ifr_flags |= IFF_UP;
    return ask(SIOCSIFFLAGS, &request);
}

/* Frames are to be as they would be on a cable. */
static bool set_offload_off(const char *interface, uint32_t command)
{
    struct ethtool_value value = {.cmd = command, .data = 0};
    struct ifreq request = request_for(interface);

    request.ifr_data = (void *)&value;
    return ask(SIOCETHTOOL, &request);
}

static bool set_offloads_off(const char *interface)
{
    return set_offload_off(interface, ETHTOOL_STXCSUM) &&
           set_offload_off(interface, ETHTOOL_SRXCSUM) &&
           set_offload_off(interface, ETHTOOL_STSO) && set_offload_off(interface, ETHTOOL_SGSO) &&
           set_offload_off(interface, ETHTOOL_SGRO);
}

bool kernel_veth_new(const char *name, const char *peer)
{
    char command[256];

    snprintf(command, sizeof(command), "ip link add %s type veth peer name %s 2>/dev/null", name,
             peer);
    return system(command) == 0 && set_offloads_off(name) && set_offloads_off(peer) &&
           set_up(name) && set_up(peer);
}

void kernel_interface_delete(const char *name)
{
    char command[128];

    snprintf(command, sizeof(command), "ip link del %s 2>/dev/null", name);
    if (system(command) != 0)
        fprintf(stderr, "%s stays\n", name);
}

static struct sockaddr_in address_of(const char *ip, uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    inet_pton(AF_INET, ip, &address.sin_addr);
    return address;
}

bool kernel_address_add(const char *interface, const char *ip)
{
    struct ifreq request = request_for(interface);
    struct sockaddr_in address = address_of(ip, 0), mask = address_of("255.255.255.0", 0);

    memcpy(&request.ifr_addr, &address, sizeof(address));
    if (!ask(SIOCSIFADDR, &request))
        return false;
    memcpy(&request.ifr_netmask, &mask, sizeof(mask));
    return ask(SIOCSIFNETMASK, &request) && set_up(interface);
}

bool kernel_neighbour_add(const char *interface, const char *ip, const uint8_t mac[6])
{
    struct arpreq request = {.arp_flags = ATF_PERM | ATF_COM};
    struct sockaddr_in address = address_of(ip, 0);

    memcpy(&request.arp_pa, &address, sizeof(address));
    request.arp_ha.sa_family = ARPHRD_ETHER;
    memcpy(request.arp_ha.sa_data, mac, 6);
    strncpy(request.arp_dev, interface, sizeof(request.arp_dev) - 1);
    return ask(SIOCSARP, &request);
}

bool kernel_mac_get(const char *interface, uint8_t ret_mac[6])
{
    struct ifreq request = request_for(interface);

    if (!ask(SIOCGIFHWADDR, &request))
        return false;
    memcpy(ret_mac, request.ifr_hwaddr.sa_data, 6);
    return true;
}

uint32_t kernel_mtu_get(const char *interface)
{
    struct ifreq request = request_for(interface);

    return ask(SIOCGIFMTU, &request) ? (uint32_t)request.ifr_mtu : 0;
}

/* ---- sockets ---- */

int kernel_udp_open(const char *ip, uint16_t port)
{
    struct sockaddr_in address = address_of(ip, port);
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd >= 0 && bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

bool kernel_udp_send(int fd, const char *ip, uint16_t port, const void *octets, uint32_t size)
{
    struct sockaddr_in address = address_of(ip, port);

    return sendto(fd, octets, size, 0, (struct sockaddr *)&address, sizeof(address)) ==
           (ssize_t)size;
}

int kernel_raw_open(const char *interface)
{
    struct sockaddr_ll address = {.sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL)};
    int fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, htons(ETH_P_ALL));
    int on = 1;

    address.sll_ifindex = (int)if_nametoindex(interface);
    if (fd >= 0 && (setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)) != 0 ||
                    bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0)) {
        close(fd);
        return -1;
    }
    return fd;
}

int kernel_receive(int fd, void *ret_octets, uint32_t size, uint64_t time_us)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};

    if (poll(&waiting, 1, (int)(time_us / 1000)) <= 0)
        return -1;
    return (int)recv(fd, ret_octets, size, 0);
}
