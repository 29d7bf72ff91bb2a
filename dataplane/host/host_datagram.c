/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Datagrams of the host driver: connected UDP sockets, one per flow.
 *
 * The source port is drawn from the whole unprivileged range with the plane's generator and not
 * from the kernel's ephemeral range, which is smaller: it is half of what a forger of DNS answers
 * must guess. A taken port is drawn again. The socket is bound before it is connected, and what
 * came in between from elsewhere is dropped: connect() alone does not empty the queue.
 *
 * Limits: PORT_TRY_MAX draws; FLOW_DATAGRAM_SIZE_MAX octets, longer ones are dropped and counted.
 */
#include "dataplane/host/host.h"

#include <errno.h>
#include <unistd.h>

#define PORT_MIN        1024u
#define PORT_COUNT      (65536u - PORT_MIN)
#define PORT_TRY_MAX    64u
#define DRAIN_MAX       64u
#define RECEIVE_TRY_MAX 64u

static enum err datagram_bind(struct host_plane *plane, int fd, const struct flow_address *local)
{
    struct flow_address address = *local;
    struct sockaddr_storage kernel;

    for (uint32_t i = 0; i < PORT_TRY_MAX; i++) {
        if (local->port == 0)
            address.port = (uint16_t)(PORT_MIN + rng_below(&plane->rng, PORT_COUNT));
        socklen_t size = host_address_to_kernel(&address, &kernel);
        plane->core.stats.syscalls++;
        if (bind(fd, (struct sockaddr *)&kernel, size) == 0)
            return ERR_OK;
        if (errno != EADDRINUSE || local->port != 0)
            return ERR_SYSTEM;
    }
    return ERR_SYSTEM;
}

static enum err datagram_open(struct host_plane *plane, const struct flow_address *local,
                              const struct flow_address *remote, int *ret_fd)
{
    struct flow_address any = {.family = remote->family};
    struct sockaddr_storage kernel;
    socklen_t size = host_address_to_kernel(remote, &kernel);

    int fd = socket(kernel.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? ERR_LIMIT : ERR_SYSTEM;
    if (local != NULL)
        any.port = local->port;
    if (local != NULL && local->family != FLOW_FAMILY_NONE)
        any = *local;
    plane->core.stats.syscalls += 2;
    if (datagram_bind(plane, fd, &any) != ERR_OK ||
        connect(fd, (struct sockaddr *)&kernel, size) != 0) {
        close(fd);
        return ERR_SYSTEM;
    }
    for (uint32_t i = 0; i < DRAIN_MAX; i++) {
        if (recv(fd, plane->scratch, sizeof(plane->scratch), MSG_DONTWAIT) < 0)
            break;
        plane->core.stats.datagrams_dropped++;
    }
    *ret_fd = fd;
    return ERR_OK;
}

enum err host_open_datagram(struct flow_plane *base, const struct flow_address *local,
                            const struct flow_address *remote, uint64_t user, struct flow *ret_flow)
{
    struct host_plane *plane = host_plane_of(base);
    int fd;

    TRY(datagram_open(plane, local, remote, &fd));
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_DATAGRAM, user);
    if (slot == NULL) {
        close(fd);
        return ERR_LIMIT;
    }
    host_flow_of(slot)->fd = fd;
    if (host_register(plane, host_flow_of(slot)) != ERR_OK) {
        host_flow_free(plane, host_flow_of(slot));
        return ERR_LIMIT;
    }
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

static struct flow_slot *datagram_find(struct host_plane *plane, struct flow flow)
{
    struct flow_slot *slot = flow_core_find(&plane->core, flow);
    return slot != NULL && slot->kind == FLOW_SLOT_DATAGRAM ? slot : NULL;
}

enum err host_send_datagram(struct flow_plane *base, struct flow flow, struct span octets)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *slot = datagram_find(plane, flow);

    CHECK(octets.size <= FLOW_DATAGRAM_SIZE_MAX);
    if (slot == NULL)
        return ERR_STALE;
    plane->core.stats.syscalls++;
    if (send(host_flow_of(slot)->fd, octets.data, octets.size, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) {
        plane->core.stats.datagrams_sent++;
        return ERR_OK;
    }
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == ENOBUFS ? ERR_AGAIN
                                                                       : ERR_PEER_UNREACHABLE;
}

enum err host_receive_datagram(struct flow_plane *base, struct flow flow,
                               struct flow_address *ret_from, struct span *ret_octets)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *slot = datagram_find(plane, flow);
    struct sockaddr_storage from;

    if (slot == NULL)
        return ERR_STALE;
    flow_core_touch(&plane->core, slot);
    for (uint32_t i = 0; i < RECEIVE_TRY_MAX; i++) {
        socklen_t from_size = sizeof(from);
        plane->core.stats.syscalls++;
        ssize_t size = recvfrom(host_flow_of(slot)->fd, plane->scratch, sizeof(plane->scratch),
                                MSG_DONTWAIT, (struct sockaddr *)&from, &from_size);
        if (size < 0 && errno == EINTR)
            continue;
        if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            slot->flags &= ~(uint32_t)FLOW_SLOT_PENDING;
            return ERR_AGAIN;
        }
        if (size < 0)
            return ERR_PEER_UNREACHABLE;
        if (size > (ssize_t)FLOW_DATAGRAM_SIZE_MAX) {
            plane->core.stats.datagrams_dropped++;
            continue;
        }
        plane->core.stats.datagrams_received++;
        host_address_from_kernel(&from, ret_from);
        *ret_octets = span_of(plane->scratch, (uint32_t)size);
        return ERR_OK;
    }
    return ERR_AGAIN;
}
