/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_HOST_HOST_H
#define DATAPLANE_HOST_HOST_H

#include <sys/epoll.h>
#include <sys/socket.h>

#include "base/rng.h"
#include "base/wheel.h"
#include "dataplane/flow_core.h"

/* Private to dataplane/host: see host.c for how the parts work together. */

#define HOST_EVENT_BURST  256u
#define HOST_ORPHAN_MAX   4096u
#define HOST_SCRATCH_SIZE 65536u

struct host_flow {
    struct flow_slot slot;
    struct wheel_timer timer; /* connect's deadline, or an orphan's */
    int fd;
    uint32_t dropped; /* octets that came for an orphan */
};
_Static_assert(sizeof(struct host_flow) <= 256, "an idle flow costs at most 256 octets");

struct host_inherited;

struct host_plane {
    struct flow_core core;
    int epoll_fd;
    int spare_fd; /* given up for a moment to refuse a connection when descriptors run out */
    tick_us orphan_time;
    tick_us now;
    struct wheel wheel;
    struct rng rng;
    struct flow_link orphans;         /* oldest first, linked by slot.report */
    struct host_inherited *inherited; /* host_inherit.c */
    uint32_t inherited_count;
    uint32_t event_count; /* collected by wait, not yet handled */
    struct epoll_event events[HOST_EVENT_BURST];
    uint8_t scratch[HOST_SCRATCH_SIZE]; /* a datagram, or what an orphan drops */
};

static inline struct host_plane *host_plane_of(struct flow_plane *plane)
{
    return (struct host_plane *)(void *)plane;
}
static inline struct host_flow *host_flow_of(struct flow_slot *slot)
{
    return (struct host_flow *)(void *)slot;
}

/* host.c */
/** Watch a flow's descriptor for everything, edge-triggered, for the rest of its life. */
enum err host_register(struct host_plane *plane, struct host_flow *flow);
/** As host_register(), another descriptor whose events are the flow's. */
enum err host_register_beside(struct host_plane *plane, const struct host_flow *flow, int fd);
/** Close the descriptor and free the flow. */
void host_flow_free(struct host_plane *plane, struct host_flow *flow);

/* host_socket.c */
enum err host_error_from_errno(int error);
enum err host_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                     struct flow *ret_flow);
enum err host_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                     struct flow *ret_flow, struct flow_address *ret_peer);
enum err host_refuse(struct flow_plane *plane, struct flow listener);
enum err host_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                      struct flow *ret_flow);
enum err host_addresses(struct flow_plane *plane, struct flow flow, struct flow_address *ret_local,
                        struct flow_address *ret_peer);
socklen_t host_address_to_kernel(const struct flow_address *address,
                                 struct sockaddr_storage *ret_kernel);
void host_address_from_kernel(const struct sockaddr_storage *kernel,
                              struct flow_address *ret_address);

/** accept4() of one descriptor, without the errors that speak of the connection alone. */
int host_descriptor_accept(struct host_plane *plane, int fd, struct sockaddr_storage *ret_peer);

/* host_inherit.c */
/** The first descriptor that is kept for this address; from now on it is the caller's. -1: none. */
int host_inherited_claim(struct host_plane *plane, const struct flow_address *address);
/** All others of this address are the listener's from now on, until it ends. */
enum err host_inherited_join(struct host_plane *plane, const struct host_flow *listener,
                             const struct flow_address *address);
/** A connection from one of those; -1 with errno: EAGAIN when none has one. */
int host_inherited_accept(struct host_plane *plane, const struct host_flow *listener,
                          struct sockaddr_storage *ret_peer);
/** The listener ends: they do, too. */
void host_inherited_leave(struct host_plane *plane, const struct host_flow *listener);
/** The plane ends. */
void host_inherited_free(struct host_plane *plane);

/* host_datagram.c */
enum err host_open_datagram(struct flow_plane *plane, const struct flow_address *local,
                            const struct flow_address *remote, uint64_t user,
                            struct flow *ret_flow);
enum err host_send_datagram(struct flow_plane *plane, struct flow flow, struct span octets);
enum err host_receive_datagram(struct flow_plane *plane, struct flow flow,
                               struct flow_address *ret_from, struct span *ret_octets);

/* host_stream.c */
void host_stream_connected(struct host_plane *plane, struct host_flow *flow);
/** Read what there is, up to the flow's limits; an orphan drops it. */
void host_stream_receive(struct host_plane *plane, struct host_flow *flow);
/** Send what may go; then the FIN, if it is wanted. */
void host_stream_send(struct host_plane *plane, struct host_flow *flow);
void host_close(struct flow_plane *plane, struct flow flow);
void host_abort(struct flow_plane *plane, struct flow flow);
/** RST where the protocol has one, then as host_flow_free(). */
void host_stream_abort(struct host_plane *plane, struct host_flow *flow);

#endif
