/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sockets of the host driver: addresses, listeners, accept and connect.
 *
 * A listener's descriptor has TCP_NODELAY, which Linux hands on to the accepted ones: an accept
 * costs accept4 and epoll_ctl. IPv6 listeners are IPv6 only, so that both families can have the
 * same port. When descriptors or flows run out, the connection is taken with the spare descriptor
 * and reset at once: left in the backlog it would keep the listener's edge from ever coming again
 * and its client waiting.
 *
 * connect() never ends inside the call: what the kernel says at once (a refused Unix socket, no
 * route) is reported by the next poll like everything else.
 *
 * Limits: backlog as the owner says, at most net.core.somaxconn.
 */
#include "dataplane/host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- addresses and errors ---- */

enum err host_error_from_errno(int error)
{
    switch (error) {
    case 0:
        return ERR_OK;
    case ECONNREFUSED:
    case ENOENT: /* Unix sockets: nobody has made it */
        return ERR_REFUSED;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECONNRESET:
    case ECONNABORTED:
    case EPIPE:
        return ERR_PEER_RESET;
    default:
        return ERR_PEER_UNREACHABLE;
    }
}

socklen_t host_address_to_kernel(const struct flow_address *address,
                                 struct sockaddr_storage *ret_kernel)
{
    memset(ret_kernel, 0, sizeof(*ret_kernel));
    if (address->family == FLOW_FAMILY_IP4) {
        struct sockaddr_in *in = (struct sockaddr_in *)(void *)ret_kernel;
        in->sin_family = AF_INET;
        in->sin_port = htons(address->port);
        memcpy(&in->sin_addr, address->ip, 4);
        return sizeof(*in);
    }
    CHECK(address->family == FLOW_FAMILY_IP6);
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)(void *)ret_kernel;
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(address->port);
    memcpy(&in6->sin6_addr, address->ip, 16);
    return sizeof(*in6);
}

void host_address_from_kernel(const struct sockaddr_storage *kernel,
                              struct flow_address *ret_address)
{
    *ret_address = (struct flow_address){0};
    if (kernel->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)kernel;
        ret_address->family = FLOW_FAMILY_IP4;
        ret_address->port = ntohs(in->sin_port);
        memcpy(ret_address->ip, &in->sin_addr, 4);
    } else if (kernel->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)kernel;
        ret_address->family = FLOW_FAMILY_IP6;
        ret_address->port = ntohs(in6->sin6_port);
        memcpy(ret_address->ip, &in6->sin6_addr, 16);
    } else if (kernel->ss_family == AF_UNIX) {
        ret_address->family = FLOW_FAMILY_UNIX;
    }
}

static enum err unix_path_to_kernel(const char *path, struct sockaddr_storage *ret_kernel,
                                    socklen_t *ret_size)
{
    struct sockaddr_un *un = (struct sockaddr_un *)(void *)ret_kernel;
    size_t size = strlen(path);

    if (size == 0 || size >= sizeof(un->sun_path))
        return ERR_SYSTEM;
    memset(ret_kernel, 0, sizeof(*ret_kernel));
    un->sun_family = AF_UNIX;
    memcpy(un->sun_path, path, size + 1);
    *ret_size = (socklen_t)sizeof(*un);
    return ERR_OK;
}

static enum err endpoint_to_kernel(const struct flow_address *address, const char *unix_path,
                                   struct sockaddr_storage *ret_kernel, socklen_t *ret_size)
{
    if (address->family == FLOW_FAMILY_UNIX)
        return unix_path_to_kernel(unix_path, ret_kernel, ret_size);
    *ret_size = host_address_to_kernel(address, ret_kernel);
    return ERR_OK;
}

enum err host_addresses(struct flow_plane *base, struct flow flow, struct flow_address *ret_local,
                        struct flow_address *ret_peer)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *slot = flow_core_find(&plane->core, flow);
    struct sockaddr_storage kernel = {0};
    socklen_t size = sizeof(kernel);

    if (slot == NULL)
        return ERR_STALE;
    plane->core.stats.syscalls += 2;
    if (getsockname(host_flow_of(slot)->fd, (struct sockaddr *)&kernel, &size) != 0)
        kernel.ss_family = AF_UNSPEC;
    host_address_from_kernel(&kernel, ret_local);
    size = sizeof(kernel);
    if (getpeername(host_flow_of(slot)->fd, (struct sockaddr *)&kernel, &size) != 0)
        kernel.ss_family = AF_UNSPEC;
    host_address_from_kernel(&kernel, ret_peer);
    return ERR_OK;
}

static bool set_option(int fd, int level, int name)
{
    int on = 1;
    return setsockopt(fd, level, name, &on, sizeof(on)) == 0;
}

/* ---- listening ---- */

static enum err listener_open(const struct flow_listen_options *options, int *ret_fd)
{
    struct sockaddr_storage kernel;
    socklen_t size;

    TRY(endpoint_to_kernel(&options->address, options->unix_path, &kernel, &size));
    int fd = socket(kernel.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? ERR_LIMIT : ERR_SYSTEM;
    bool is_set = true;
    if (kernel.ss_family != AF_UNIX) {
        is_set = set_option(fd, SOL_SOCKET, SO_REUSEADDR) &&
                 set_option(fd, IPPROTO_TCP, TCP_NODELAY) &&
                 (!options->is_shared || set_option(fd, SOL_SOCKET, SO_REUSEPORT)) &&
                 (kernel.ss_family != AF_INET6 || set_option(fd, IPPROTO_IPV6, IPV6_V6ONLY));
    }
    if (!is_set || bind(fd, (struct sockaddr *)&kernel, size) != 0 ||
        listen(fd, options->backlog == 0 ? SOMAXCONN : (int)options->backlog) != 0) {
        close(fd);
        return ERR_SYSTEM;
    }
    *ret_fd = fd;
    return ERR_OK;
}

static void slot_set_limits(struct flow_slot *slot, uint32_t receive_limit, uint32_t send_limit)
{
    if (receive_limit > 0)
        slot->receive_limit = receive_limit;
    if (send_limit > 0)
        slot->send_limit = send_limit;
}

enum err host_listen(struct flow_plane *base, const struct flow_listen_options *options,
                     struct flow *ret_flow)
{
    struct host_plane *plane = host_plane_of(base);
    int fd = host_inherited_claim(plane, &options->address);

    if (fd < 0)
        TRY(listener_open(options, &fd));
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_LISTENER, options->user);
    if (slot == NULL) {
        close(fd);
        return ERR_LIMIT;
    }
    host_flow_of(slot)->fd = fd;
    slot_set_limits(slot, options->receive_limit, options->send_limit);
    if (host_register(plane, host_flow_of(slot)) != ERR_OK ||
        host_inherited_join(plane, host_flow_of(slot), &options->address) != ERR_OK) {
        host_flow_free(plane, host_flow_of(slot));
        return ERR_LIMIT;
    }
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

/* ---- accepting ---- */

int host_descriptor_accept(struct host_plane *plane, int fd, struct sockaddr_storage *ret_peer)
{
    int accepted;

    do {
        socklen_t size = sizeof(*ret_peer);
        *ret_peer = (struct sockaddr_storage){0};
        plane->core.stats.syscalls++;
        accepted = accept4(fd, (struct sockaddr *)ret_peer, &size, SOCK_NONBLOCK | SOCK_CLOEXEC);
        /* These speak of the connection, not of the listener: it died while it waited. */
    } while (accepted < 0 && (errno == EINTR || errno == ECONNABORTED || errno == EPROTO));
    return accepted;
}

static int listener_accept(struct host_plane *plane, struct flow_slot *listener,
                           struct sockaddr_storage *ret_peer)
{
    int fd = host_descriptor_accept(plane, host_flow_of(listener)->fd, ret_peer);

    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        fd = host_inherited_accept(plane, host_flow_of(listener), ret_peer);
    if (fd < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
        listener->flags &= ~(uint32_t)FLOW_SLOT_PENDING;
    else
        flow_core_touch(&plane->core, listener);
    return fd;
}

static void descriptor_reset(struct host_plane *plane, int fd)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};

    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    close(fd);
    plane->core.stats.syscalls += 2;
    plane->core.stats.refused++;
}

/* Out of descriptors: the spare one makes room to take the connection and reset it. */
static void listener_refuse_with_spare(struct host_plane *plane, struct flow_slot *listener)
{
    struct sockaddr_storage peer;

    if (plane->spare_fd >= 0)
        close(plane->spare_fd);
    int fd = listener_accept(plane, listener, &peer);
    if (fd >= 0)
        descriptor_reset(plane, fd);
    plane->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static struct flow_slot *listener_find(struct host_plane *plane, struct flow listener)
{
    struct flow_slot *slot = flow_core_find(&plane->core, listener);
    return slot != NULL && slot->kind == FLOW_SLOT_LISTENER ? slot : NULL;
}

enum err host_accept(struct flow_plane *base, struct flow listener, uint64_t user,
                     struct flow *ret_flow, struct flow_address *ret_peer)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *from = listener_find(plane, listener);
    struct sockaddr_storage peer;

    if (from == NULL)
        return ERR_STALE;
    int fd = listener_accept(plane, from, &peer);
    if (fd < 0 && !(from->flags & FLOW_SLOT_PENDING))
        return ERR_AGAIN;
    if (fd < 0) {
        listener_refuse_with_spare(plane, from);
        return ERR_LIMIT;
    }
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_STREAM, user);
    if (slot == NULL) {
        descriptor_reset(plane, fd);
        return ERR_LIMIT;
    }
    host_flow_of(slot)->fd = fd;
    slot_set_limits(slot, from->receive_limit, from->send_limit);
    slot->flags |= FLOW_SLOT_OPEN;
    if (host_register(plane, host_flow_of(slot)) != ERR_OK) {
        host_stream_abort(plane, host_flow_of(slot));
        return ERR_LIMIT;
    }
    plane->core.stats.accepted++;
    host_address_from_kernel(&peer, ret_peer);
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}

enum err host_refuse(struct flow_plane *base, struct flow listener)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *from = listener_find(plane, listener);
    struct sockaddr_storage peer;

    if (from == NULL)
        return ERR_STALE;
    int fd = listener_accept(plane, from, &peer);
    if (fd >= 0)
        descriptor_reset(plane, fd);
    else if (from->flags & FLOW_SLOT_PENDING)
        listener_refuse_with_spare(plane, from);
    else
        return ERR_AGAIN;
    return ERR_OK;
}

/* ---- connecting ---- */

static enum err connector_open(const struct flow_connect_options *options, int family, int *ret_fd)
{
    struct sockaddr_storage source;

    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno == EMFILE || errno == ENFILE ? ERR_LIMIT : ERR_SYSTEM;
    bool is_set = family == AF_UNIX || set_option(fd, IPPROTO_TCP, TCP_NODELAY);
    if (family != AF_UNIX && options->source.family != FLOW_FAMILY_NONE) {
        socklen_t size = host_address_to_kernel(&options->source, &source);
        /* The port is chosen at connect(), when the destination is known: one source address can
         * then have more connections than ports. */
        is_set = is_set && set_option(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT) &&
                 bind(fd, (struct sockaddr *)&source, size) == 0;
    }
    if (!is_set) {
        close(fd);
        return ERR_SYSTEM;
    }
    *ret_fd = fd;
    return ERR_OK;
}

static void connector_start(struct host_plane *plane, struct host_flow *flow,
                            const struct sockaddr_storage *remote, socklen_t size)
{
    plane->core.stats.syscalls++;
    if (connect(flow->fd, (const struct sockaddr *)remote, size) == 0)
        host_stream_connected(plane, flow);
    else if (errno != EINPROGRESS)
        flow_core_connected(&plane->core, &flow->slot, host_error_from_errno(errno));
}

enum err host_connect(struct flow_plane *base, const struct flow_connect_options *options,
                      struct flow *ret_flow)
{
    struct host_plane *plane = host_plane_of(base);
    struct sockaddr_storage remote;
    socklen_t size;
    int fd;

    TRY(endpoint_to_kernel(&options->remote, options->unix_path, &remote, &size));
    TRY(connector_open(options, remote.ss_family, &fd));
    struct flow_slot *slot = flow_core_slot_new(&plane->core, FLOW_SLOT_STREAM, options->user);
    if (slot == NULL) {
        close(fd);
        return ERR_LIMIT;
    }
    struct host_flow *flow = host_flow_of(slot);
    flow->fd = fd;
    slot_set_limits(slot, options->receive_limit, options->send_limit);
    /* Connect first, then register: a socket that has not begun to connect reports a hang-up, which
     * would look like a failure. */
    connector_start(plane, flow, &remote, size);
    if (host_register(plane, flow) != ERR_OK) {
        host_flow_free(plane, flow);
        return ERR_LIMIT;
    }
    if (!(slot->flags & (FLOW_SLOT_OPEN | FLOW_SLOT_IS_FAILED)) && options->deadline != TICK_NEVER)
        wheel_arm(&plane->wheel, &flow->timer, options->deadline);
    *ret_flow = flow_core_handle(slot);
    return ERR_OK;
}
