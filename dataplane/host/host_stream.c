/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets of the host driver: one recvmsg straight into pool buffers, one sendmsg from the slices.
 *
 * The end of a flow
 *
 *   open --flow_abort()--> RST, gone
 *   open --flow_close()--> ORPHAN: sends the rest, then FIN; reads and drops what comes, until the
 *                          peer's FIN --> gone;  orphan_time --> RST, gone
 *
 * An orphan drains because the kernel answers octets that nobody reads with a RST, and a RST makes
 * the peer forget what it has not read yet: our last reply.
 *
 * Invariants
 *   1. EOF is set after read returned 0: every octet before the FIN is readable by then. A reset is
 *      reported after what the kernel held was read, for the kernel gives data first, then the
 *      error. Only if a send fails while the receive limit stops reading does RESET come earlier.
 *   2. A short read ends the round: the next octet brings a new edge. A FIN seen meanwhile leaves
 *      MORE set, so that its 0 is read too.
 *
 * Limits: HOST_ORPHAN_MAX orphans; one more, and the oldest is aborted. SEND_ROUND_MAX sends per
 * flow and flush, ORPHAN_READ_MAX reads per orphan and poll, ORPHAN_DROP_MAX octets dropped for one
 * orphan (a peer that goes on sending gets a RST), DRAIN_READ_MAX after a failed send.
 */
#include "dataplane/host/host.h"

#include <errno.h>
#include <netinet/in.h>
#include <unistd.h>

#define SEND_VECTOR_MAX 64u
#define SEND_ROUND_MAX  4u
#define ORPHAN_READ_MAX 4u
#define ORPHAN_DROP_MAX (16u << 20)
#define DRAIN_READ_MAX  64u

static bool is_again(int error)
{
    return error == EAGAIN || error == EWOULDBLOCK;
}

/* ---- connecting ---- */

static int socket_error(struct host_plane *plane, const struct host_flow *flow)
{
    int error = 0;
    socklen_t size = sizeof(error);

    plane->core.stats.syscalls++;
    if (getsockopt(flow->fd, SOL_SOCKET, SO_ERROR, &error, &size) != 0)
        error = errno;
    return error;
}

void host_stream_connected(struct host_plane *plane, struct host_flow *flow)
{
    if (flow->slot.flags & FLOW_SLOT_IS_FAILED)
        return;
    wheel_cancel(&plane->wheel, &flow->timer);
    flow_core_connected(&plane->core, &flow->slot,
                        host_error_from_errno(socket_error(plane, flow)));
}

/* ---- orphans ---- */

static void orphan_receive(struct host_plane *plane, struct host_flow *flow)
{
    for (uint32_t i = 0; i < ORPHAN_READ_MAX; i++) {
        plane->core.stats.syscalls++;
        ssize_t size = recv(flow->fd, plane->scratch, sizeof(plane->scratch), MSG_DONTWAIT);
        if (size < 0 && is_again(errno)) {
            flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
            return;
        }
        if (size < 0) {
            host_flow_free(plane, flow);
            return;
        }
        if (size == 0) {
            flow->slot.flags |= FLOW_SLOT_EOF;
            flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
            if (flow->slot.flags & FLOW_SLOT_FIN_SENT)
                host_flow_free(plane, flow);
            return;
        }
        flow->dropped += (uint32_t)size;
        if (flow->dropped > ORPHAN_DROP_MAX) {
            host_stream_abort(plane, flow);
            return;
        }
    }
    flow_core_resume(&plane->core, &flow->slot);
}

static void host_flow_orphan(struct host_plane *plane, struct host_flow *flow)
{
    if (plane->core.stats.orphans >= HOST_ORPHAN_MAX) {
        host_stream_abort(plane, host_flow_of(FLOW_SLOT_OF(plane->orphans.next, report)));
    }
    flow_core_slot_orphan(&plane->core, &flow->slot);
    flow->dropped = 0;
    flow_link_push(&plane->orphans, &flow->slot.report);
    wheel_arm(&plane->wheel, &flow->timer, plane->now + plane->orphan_time);
    flow_core_resume(&plane->core, &flow->slot);
}

void host_stream_abort(struct host_plane *plane, struct host_flow *flow)
{
    const struct linger linger = {.l_onoff = 1, .l_linger = 0};

    if (flow->fd >= 0) {
        plane->core.stats.syscalls++;
        (void)setsockopt(flow->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger));
    }
    host_flow_free(plane, flow);
}

void host_close(struct flow_plane *base, struct flow handle)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *slot = flow_core_find(&plane->core, handle);

    if (slot == NULL)
        return;
    if (slot->kind != FLOW_SLOT_STREAM)
        host_flow_free(plane, host_flow_of(slot));
    else if (!(slot->flags & FLOW_SLOT_OPEN) || slot->flags & FLOW_SLOT_IS_RESET)
        host_stream_abort(plane, host_flow_of(slot));
    else if (slot->flags & FLOW_SLOT_EOF && slot->unsent.size == 0)
        host_flow_free(plane, host_flow_of(slot));
    else
        host_flow_orphan(plane, host_flow_of(slot));
}

void host_abort(struct flow_plane *base, struct flow handle)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_slot *slot = flow_core_find(&plane->core, handle);

    if (slot == NULL)
        return;
    if (slot->kind == FLOW_SLOT_STREAM)
        host_stream_abort(plane, host_flow_of(slot));
    else
        host_flow_free(plane, host_flow_of(slot));
}

/* ---- receiving ---- */

static void stream_receive_failed(struct host_plane *plane, struct host_flow *flow, int error)
{
    if (error == EINTR) {
        flow_core_resume(&plane->core, &flow->slot);
        return;
    }
    flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
    if (!is_again(error))
        flow_core_reset(&plane->core, &flow->slot, host_error_from_errno(error));
}

void host_stream_receive(struct host_plane *plane, struct host_flow *flow)
{
    struct iovec vector[FLOW_RECEIVE_VECTOR_MAX];

    if (flow->slot.flags & FLOW_SLOT_ORPHAN) {
        orphan_receive(plane, flow);
        return;
    }
    struct msghdr message = {.msg_iov = vector};
    message.msg_iovlen = flow_core_receive_begin(&plane->core, &flow->slot, vector);
    if (message.msg_iovlen == 0) {
        flow_core_resume(&plane->core, &flow->slot);
        return;
    }
    plane->core.stats.syscalls++;
    ssize_t size = recvmsg(flow->fd, &message, MSG_DONTWAIT);
    if (size < 0) {
        stream_receive_failed(plane, flow, errno);
        return;
    }
    if (size == 0) {
        flow->slot.flags |= FLOW_SLOT_EOF;
        flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
        flow_core_touch(&plane->core, &flow->slot);
        return;
    }
    flow_core_receive_end(&plane->core, &flow->slot, (uint32_t)size);
    size_t room = 0;
    for (size_t i = 0; i < message.msg_iovlen; i++)
        room += vector[i].iov_len;
    if ((size_t)size < room && !(flow->slot.flags & FLOW_SLOT_HUNG_UP))
        flow->slot.flags &= ~(uint32_t)FLOW_SLOT_MORE;
    flow_core_resume(&plane->core, &flow->slot);
}

/* ---- sending ---- */

static void stream_send_failed(struct host_plane *plane, struct host_flow *flow, int error)
{
    if (is_again(error)) {
        flow->slot.flags |= FLOW_SLOT_BLOCKED;
        return;
    }
    if (flow->slot.flags & FLOW_SLOT_ORPHAN) {
        host_flow_free(plane, flow);
        return;
    }
    /* What the peer said before it went is worth reading (a 5xx, say): it is still there. */
    flow->slot.flags |= FLOW_SLOT_MORE | FLOW_SLOT_HUNG_UP;
    for (uint32_t i = 0; i < DRAIN_READ_MAX && flow->slot.flags & FLOW_SLOT_MORE &&
                         flow->slot.charge < flow->slot.receive_limit;
         i++)
        host_stream_receive(plane, flow);
    flow_core_reset(&plane->core, &flow->slot, host_error_from_errno(error));
}

static void stream_send_fin(struct host_plane *plane, struct host_flow *flow)
{
    if (!(flow->slot.flags & FLOW_SLOT_FIN_WANTED) || flow->slot.flags & FLOW_SLOT_FIN_SENT ||
        flow->slot.unsent.size > 0)
        return;
    flow->slot.flags |= FLOW_SLOT_FIN_SENT;
    if (flow->slot.flags & FLOW_SLOT_ORPHAN && flow->slot.flags & FLOW_SLOT_EOF) {
        host_flow_free(plane, flow); /* close() sends the FIN, and nobody is left to read from */
        return;
    }
    plane->core.stats.syscalls++;
    (void)shutdown(flow->fd, SHUT_WR);
}

void host_stream_send(struct host_plane *plane, struct host_flow *flow)
{
    struct iovec vector[SEND_VECTOR_MAX];

    for (uint32_t round = 0; round < SEND_ROUND_MAX && flow_core_sendable(&flow->slot) > 0;
         round++) {
        struct msghdr message = {.msg_iov = vector};
        message.msg_iovlen = flow_core_send_vector(&flow->slot, vector, SEND_VECTOR_MAX);
        plane->core.stats.syscalls++;
        ssize_t size = sendmsg(flow->fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (size < 0) {
            stream_send_failed(plane, flow, errno);
            return;
        }
        flow_core_sent(&plane->core, &flow->slot, (uint64_t)size);
    }
    stream_send_fin(plane, flow);
}
