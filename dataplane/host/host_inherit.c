/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that another process opened: that of the relay before an upgrade.
 *
 *   flow_host_inherit() -> KEPT --host_inherited_claim()--> a listener's own descriptor
 *                             \--host_inherited_join()---> BESIDE: one more of that listener
 *                                                            --host_inherited_leave()--> closed
 *
 * A connection waits in the backlog of one socket, and is reset when the last descriptor of that
 * socket is closed. So every socket of an address goes on to be listened on, also where there are
 * fewer shards now than sockets: then a listener has several, and accepts from them in turn.
 *
 * Invariants
 *   1. What is kept listens, over TCP, does not block, and is closed on exec.
 *   2. The events of a socket beside are its listener's: when accept() gives nothing any more, all
 *      of them were asked.
 *
 * Limits: HOST_INHERITED_MAX sockets.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "dataplane/host/host.h"

#define HOST_INHERITED_MAX 65536u
#define OF_NOBODY          UINT32_MAX

struct host_inherited {
    int fd;
    uint32_t listener; /* index of its flow; OF_NOBODY: kept */
    struct flow_address address;
};

static bool has_option(int fd, int name, int expected)
{
    int value = 0;
    socklen_t size = sizeof(value);

    return getsockopt(fd, SOL_SOCKET, name, &value, &size) == 0 && value == expected;
}

enum err flow_host_listener_address(int fd, struct flow_address *ret_address)
{
    struct sockaddr_storage kernel = {0};
    socklen_t size = sizeof(kernel);

    if (!has_option(fd, SO_ACCEPTCONN, 1) || !has_option(fd, SO_PROTOCOL, IPPROTO_TCP) ||
        getsockname(fd, (struct sockaddr *)&kernel, &size) != 0 ||
        (kernel.ss_family != AF_INET && kernel.ss_family != AF_INET6))
        return ERR_CONFIG_VALUE;
    host_address_from_kernel(&kernel, ret_address);
    return ERR_OK;
}

enum err flow_host_inherit(struct flow_plane *base, int fd)
{
    struct host_plane *plane = host_plane_of(base);
    struct host_inherited one = {.fd = fd, .listener = OF_NOBODY};

    TRY(flow_host_listener_address(fd, &one.address));
    if (plane->inherited_count == HOST_INHERITED_MAX || fcntl(fd, F_SETFL, O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0)
        return ERR_CONFIG_VALUE;
    plane->inherited =
        reallocarray(plane->inherited, plane->inherited_count + 1, sizeof(*plane->inherited));
    CHECK(plane->inherited != NULL); /* start-up */
    plane->inherited[plane->inherited_count++] = one;
    return ERR_OK;
}

uint32_t flow_host_listeners(struct flow_plane *base, int *ret_fds, uint32_t max)
{
    struct host_plane *plane = host_plane_of(base);
    uint32_t count = 0;

    for (uint32_t i = 0; i < plane->core.slot_count && count < max; i++) {
        struct flow_slot *slot = flow_core_slot_at(&plane->core, i);
        if (slot->kind != FLOW_SLOT_LISTENER)
            continue;
        int fd = fcntl(host_flow_of(slot)->fd, F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            ret_fds[count++] = fd;
    }
    for (uint32_t i = 0; i < plane->inherited_count && count < max; i++) {
        int fd = fcntl(plane->inherited[i].fd, F_DUPFD_CLOEXEC, 0);
        if (fd >= 0)
            ret_fds[count++] = fd;
    }
    return count;
}

/* ---- of the listeners ---- */

int host_inherited_claim(struct host_plane *plane, const struct flow_address *address)
{
    for (uint32_t i = 0; i < plane->inherited_count; i++) {
        const struct host_inherited *one = &plane->inherited[i];
        if (one->listener != OF_NOBODY || !flow_address_is_equal(&one->address, address))
            continue;
        int fd = one->fd;
        plane->inherited[i] = plane->inherited[--plane->inherited_count];
        return fd;
    }
    return -1;
}

enum err host_inherited_join(struct host_plane *plane, const struct host_flow *listener,
                             const struct flow_address *address)
{
    for (uint32_t i = 0; i < plane->inherited_count; i++) {
        struct host_inherited *one = &plane->inherited[i];
        if (one->listener != OF_NOBODY || !flow_address_is_equal(&one->address, address))
            continue;
        TRY(host_register_beside(plane, listener, one->fd));
        one->listener = listener->slot.index;
    }
    return ERR_OK;
}

int host_inherited_accept(struct host_plane *plane, const struct host_flow *listener,
                          struct sockaddr_storage *ret_peer)
{
    for (uint32_t i = 0; i < plane->inherited_count; i++) {
        const struct host_inherited *one = &plane->inherited[i];
        if (one->listener != listener->slot.index)
            continue;
        int fd = host_descriptor_accept(plane, one->fd, ret_peer);
        if (fd >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK))
            return fd;
    }
    errno = EAGAIN;
    return -1;
}

static void inherited_close(struct host_plane *plane, uint32_t index)
{
    (void)epoll_ctl(plane->epoll_fd, EPOLL_CTL_DEL, plane->inherited[index].fd, NULL);
    close(plane->inherited[index].fd);
    plane->inherited[index] = plane->inherited[--plane->inherited_count];
}

void host_inherited_leave(struct host_plane *plane, const struct host_flow *listener)
{
    for (uint32_t i = 0; i < plane->inherited_count;) {
        if (plane->inherited[i].listener == listener->slot.index)
            inherited_close(plane, i);
        else
            i++;
    }
}

void host_inherited_free(struct host_plane *plane)
{
    while (plane->inherited_count > 0)
        inherited_close(plane, 0);
    free(plane->inherited);
}
