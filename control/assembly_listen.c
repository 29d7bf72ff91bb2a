/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses that all shards listen on together: may we have them, and in an upgrade, who goes
 * on with which socket of the relay before.
 *
 * Every shard has a socket of its own on each address (SO_REUSEPORT), so that the relay before left
 * as many of each as it had shards. Number i of them goes to shard i modulo the shards there are
 * now: some get several, or, with more shards than before, some none and open their own.
 *
 * Ports of the engine are not probed: nobody else listens there, and no socket comes from there.
 */
#include "control/assembly_listen.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static enum err fail(char why[ASSEMBLY_WHY_SIZE], const char *what, const char *name)
{
    snprintf(why, ASSEMBLY_WHY_SIZE, "%s %.200s: %s", what, name, strerror(errno));
    return ERR_SYSTEM;
}

static bool is_listened_on(const struct settings *settings, const struct flow_address *address)
{
    for (uint32_t i = 0; settings != NULL && i < settings->listener_count; i++) {
        if (flow_address_is_equal(&settings->listeners[i].address, address))
            return true;
    }
    return false;
}

/* How many sockets of this address are before number `end`. */
static uint32_t place_count(const struct assembly_place *place, const struct flow_address *address,
                            uint32_t end)
{
    struct flow_address other;
    uint32_t count = 0;

    for (uint32_t i = 0; place != NULL && i < end; i++)
        count += flow_host_listener_address(place->listeners[i], &other) == ERR_OK &&
                 flow_address_is_equal(&other, address);
    return count;
}

/* ---- probing ---- */

/* Who has given up the right to ports below 1024 (see confine.c) does not get it back. */
static enum err listen_refused(const struct flow_address *address, bool is_running,
                               char ret_why[ASSEMBLY_WHY_SIZE])
{
    bool is_given_up = is_running && errno == EACCES;
    char text[FLOW_ADDRESS_TEXT_MAX];
    enum err err = fail(ret_why, "cannot listen on", flow_address_format(address, text));
    size_t size = strlen(ret_why);

    if (is_given_up)
        snprintf(ret_why + size, ASSEMBLY_WHY_SIZE - size,
                 "; a relay that was started without a port below 1024 has given up the right to "
                 "open one: this needs a restart");
    return err;
}

static socklen_t address_to_socket(const struct flow_address *address,
                                   struct sockaddr_storage *ret_socket)
{
    *ret_socket = (struct sockaddr_storage){0};
    if (address->family == FLOW_FAMILY_IP4) {
        struct sockaddr_in *ip4 = (struct sockaddr_in *)(void *)ret_socket;
        ip4->sin_family = AF_INET;
        ip4->sin_port = htons(address->port);
        memcpy(&ip4->sin_addr, address->ip, sizeof(ip4->sin_addr));
        return sizeof(*ip4);
    }
    struct sockaddr_in6 *ip6 = (struct sockaddr_in6 *)(void *)ret_socket;
    ip6->sin6_family = AF_INET6;
    ip6->sin6_port = htons(address->port);
    memcpy(&ip6->sin6_addr, address->ip, sizeof(ip6->sin6_addr));
    return sizeof(*ip6);
}

/*
 * Shards listen with SO_REUSEPORT, each with a socket of its own on the same address. That would
 * also let a second relay of the same user in, which then gets half of the connections: an address
 * must be free when asked for without that option.
 */
static bool address_is_free(const struct flow_address *address)
{
    struct sockaddr_storage name;
    socklen_t size = address_to_socket(address, &name);
    int one = 1;
    int fd = socket(name.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return false;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (name.ss_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    bool is_free = bind(fd, (const struct sockaddr *)&name, size) == 0;
    int error = errno;
    close(fd);
    errno = error;
    return is_free;
}

enum err assembly_listeners_probe(const struct config *next, const struct config *running,
                                  const struct assembly_place *place,
                                  char ret_why[ASSEMBLY_WHY_SIZE])
{
    const struct dataplane_options *dataplane = &(running != NULL ? running : next)->dataplane;

    for (uint32_t i = 0; i < next->settings.listener_count; i++) {
        const struct flow_address *address = &next->settings.listeners[i].address;
        bool is_held = is_listened_on(running == NULL ? NULL : &running->settings, address) ||
                       (place != NULL && place_count(place, address, place->listener_count) > 0);
        if (dataplane_is_kernel(dataplane, address) && !is_held && !address_is_free(address))
            return listen_refused(address, running != NULL, ret_why);
    }
    return ERR_OK;
}

/* ---- taking over ---- */

static enum err socket_give(int socket, struct flow_plane *plane, char ret_why[ASSEMBLY_WHY_SIZE])
{
    int fd = fcntl(socket, F_DUPFD_CLOEXEC, 0);

    if (fd >= 0 && flow_host_inherit(plane, fd) == ERR_OK)
        return ERR_OK;
    (void)fail(ret_why, "cannot take over", "a listener");
    if (fd >= 0)
        close(fd);
    return ERR_SYSTEM;
}

enum err assembly_place_give(const struct assembly_place *place, const struct config *config,
                             uint32_t shard, struct flow_plane *plane,
                             char ret_why[ASSEMBLY_WHY_SIZE])
{
    struct flow_address address;

    for (uint32_t i = 0; place != NULL && i < place->listener_count; i++) {
        if (flow_host_listener_address(place->listeners[i], &address) == ERR_OK &&
            is_listened_on(&config->settings, &address) &&
            place_count(place, &address, i) % config->cores == shard)
            TRY(socket_give(place->listeners[i], plane, ret_why));
    }
    return ERR_OK;
}
