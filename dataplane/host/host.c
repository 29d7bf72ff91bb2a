/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The host driver of flow.h: kernel sockets, watched by epoll. This file has the turn.
 *
 * Every descriptor is registered once, edge-triggered, for reading, writing and the peer's FIN, and
 * never changed, so that a message costs no epoll_ctl. An edge sets FLOW_SLOT_MORE or clears
 * FLOW_SLOT_BLOCKED; from then on the lists of flow_core.c say what is to be done, until the kernel
 * answers EAGAIN (or a short read, which on a stream says the same).
 *
 *   host_wait   sleeps in epoll and keeps the events for the next poll (one epoll call per turn)
 *   host_poll   events -> lists; timers; one read per readable flow; reports
 *   host_flush  one sendmsg per flow with something to send; then the settle
 *
 * Invariants
 *   1. An event names its flow by index and incarnation: events collected before a flow was closed
 *      never reach the next user of its slot.
 *   2. A flow with FLOW_SLOT_MORE, room in its charge and a pool that is not empty is on the read
 *      list; a flow with something to send that is not BLOCKED is on the dirty list.
 *   3. No call blocks but host_wait(). No write raises SIGPIPE.
 *
 * Limits: HOST_EVENT_BURST events and one read of each flow per poll; when the pool is empty, reads
 * are tried again each STARVED_TIME.
 * Not here: sockets (host_socket.c), octets (host_stream.c), datagrams (host_datagram.c), sockets
 * of another process (host_inherit.c).
 */
#include "dataplane/host/host.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define HOST_WATCH_NAME UINT64_MAX /* data of a watched descriptor */
#define STARVED_TIME    TICK_MS(1)
#define WAIT_TIME_MAX   TICK_S(3600)

enum err host_register_beside(struct host_plane *plane, const struct host_flow *flow, int fd)
{
    struct epoll_event event = {
        .events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET,
        .data.u64 = (uint64_t)flow->slot.index << 32 | flow->slot.incarnation,
    };
    plane->core.stats.syscalls++;
    return epoll_ctl(plane->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? ERR_OK : ERR_LIMIT;
}

enum err host_register(struct host_plane *plane, struct host_flow *flow)
{
    return host_register_beside(plane, flow, flow->fd);
}

/* A listener's socket may be open in another process: then closing ours does not end its events. */
static void listener_leave(struct host_plane *plane, const struct host_flow *flow)
{
    if (flow->fd >= 0)
        (void)epoll_ctl(plane->epoll_fd, EPOLL_CTL_DEL, flow->fd, NULL);
    host_inherited_leave(plane, flow);
}

void host_flow_free(struct host_plane *plane, struct host_flow *flow)
{
    wheel_cancel(&plane->wheel, &flow->timer);
    if (flow->slot.kind == FLOW_SLOT_LISTENER)
        listener_leave(plane, flow);
    if (flow->fd >= 0) {
        plane->core.stats.syscalls++;
        close(flow->fd);
    }
    flow->fd = -1;
    flow_core_slot_free(&plane->core, &flow->slot);
}

/* ---- poll ---- */

static void host_collect(struct host_plane *plane, int timeout)
{
    plane->core.stats.syscalls++;
    int count = epoll_wait(plane->epoll_fd, plane->events, HOST_EVENT_BURST, timeout);
    plane->event_count = count > 0 ? (uint32_t)count : 0;
}

static void host_on_event(struct host_plane *plane, const struct epoll_event *event)
{
    struct flow_slot *slot = flow_core_slot_at(&plane->core, (uint32_t)(event->data.u64 >> 32));

    if (event->data.u64 == HOST_WATCH_NAME || slot == NULL || slot->kind == FLOW_SLOT_FREE ||
        slot->incarnation != (uint32_t)event->data.u64)
        return;
    if (slot->kind != FLOW_SLOT_STREAM) {
        if (event->events & (EPOLLIN | EPOLLERR | EPOLLHUP)) {
            slot->flags |= FLOW_SLOT_PENDING;
            flow_core_touch(&plane->core, slot);
        }
        return;
    }
    if (!(slot->flags & FLOW_SLOT_OPEN)) {
        if (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP))
            host_stream_connected(plane, host_flow_of(slot));
        if (!(slot->flags & FLOW_SLOT_OPEN))
            return;
    }
    if (event->events & (EPOLLIN | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) {
        slot->flags |= FLOW_SLOT_MORE;
        if (event->events & (EPOLLRDHUP | EPOLLERR | EPOLLHUP))
            slot->flags |= FLOW_SLOT_HUNG_UP;
        flow_core_resume(&plane->core, slot);
    }
    if (event->events & (EPOLLOUT | EPOLLERR | EPOLLHUP) && slot->flags & FLOW_SLOT_BLOCKED) {
        slot->flags &= ~(uint32_t)FLOW_SLOT_BLOCKED;
        flow_core_send_later(&plane->core, slot);
    }
}

static void host_expire(struct host_plane *plane, tick_us now)
{
    struct wheel_timer *timer;

    while ((timer = wheel_expire_next(&plane->wheel, now)) != NULL) {
        struct host_flow *flow = WHEEL_OWNER(timer, struct host_flow, timer);
        if (flow->slot.flags & FLOW_SLOT_ORPHAN) {
            host_stream_abort(plane, flow);
            continue;
        }
        flow_core_connected(&plane->core, &flow->slot, ERR_TIMEOUT);
        close(flow->fd);
        flow->fd = -1;
    }
}

static void host_read(struct host_plane *plane)
{
    struct flow_link round;
    struct flow_slot *slot;

    /* Flows that have more than one read gives go to the next round, that is the next poll. */
    flow_core_read_round(&plane->core, &round);
    while ((slot = flow_core_read_next(&round)) != NULL)
        host_stream_receive(plane, host_flow_of(slot));
}

static uint32_t host_poll(struct flow_plane *base, tick_us now, struct flow_event *ret_events,
                          uint32_t max)
{
    struct host_plane *plane = host_plane_of(base);

    plane->now = now;
    plane->core.is_starved = false;
    if (plane->event_count == 0)
        host_collect(plane, 0);
    for (uint32_t i = 0; i < plane->event_count; i++)
        host_on_event(plane, &plane->events[i]);
    plane->event_count = 0;
    host_expire(plane, now);
    host_read(plane);
    return flow_core_report(&plane->core, ret_events, max);
}

static void host_flush(struct flow_plane *base, tick_us now)
{
    struct host_plane *plane = host_plane_of(base);
    struct flow_link round;
    struct flow_slot *slot;

    plane->now = now;
    flow_core_dirty_round(&plane->core, &round);
    while ((slot = flow_core_dirty_next(&round)) != NULL)
        host_stream_send(plane, host_flow_of(slot));
    flow_core_settle(&plane->core);
}

/* ---- sleep ---- */

static tick_us host_deadline(struct flow_plane *base)
{
    return wheel_deadline(&host_plane_of(base)->wheel);
}

static void host_sleep(struct host_plane *plane, tick_us time)
{
    struct timespec timeout = {.tv_sec = (time_t)(time / 1000000u),
                               .tv_nsec = (long)(time % 1000000u) * 1000};

    plane->core.stats.syscalls++;
    int count = epoll_pwait2(plane->epoll_fd, plane->events, HOST_EVENT_BURST, &timeout, NULL);
    if (count < 0 && errno == ENOSYS) /* kernels before 5.11 */
        host_collect(plane, (int)((time + 999u) / 1000u));
    else
        plane->event_count = count > 0 ? (uint32_t)count : 0;
}

static void host_wait(struct flow_plane *base, tick_us now, tick_us deadline)
{
    struct host_plane *plane = host_plane_of(base);
    tick_us own = host_deadline(base);
    tick_us until = own < deadline ? own : deadline;
    tick_us time = until <= now ? 0 : until - now;

    if (plane->event_count > 0)
        return;
    if (!flow_core_is_quiet(&plane->core)) {
        if (!plane->core.is_starved)
            return;
        time = time < STARVED_TIME ? time : STARVED_TIME;
    }
    if (time > 0)
        host_sleep(plane, time < WAIT_TIME_MAX ? time : WAIT_TIME_MAX);
}

static enum err host_watch(struct flow_plane *base, int fd)
{
    struct host_plane *plane = host_plane_of(base);
    /* Edges: an eventfd that was written after its owner had looked must end one wait, not all. */
    struct epoll_event event = {.events = EPOLLIN | EPOLLET, .data.u64 = HOST_WATCH_NAME};

    return epoll_ctl(plane->epoll_fd, EPOLL_CTL_ADD, fd, &event) == 0 ? ERR_OK : ERR_SYSTEM;
}

/* ---- new and free ---- */

static void host_free(struct flow_plane *base)
{
    struct host_plane *plane = host_plane_of(base);

    for (uint32_t i = 0; i < plane->core.slot_count; i++) {
        struct flow_slot *slot = flow_core_slot_at(&plane->core, i);
        if (slot->kind == FLOW_SLOT_STREAM)
            host_stream_abort(plane, host_flow_of(slot));
        else if (slot->kind != FLOW_SLOT_FREE)
            host_flow_free(plane, host_flow_of(slot));
    }
    host_inherited_free(plane);
    flow_core_fini(&plane->core);
    close(plane->epoll_fd);
    if (plane->spare_fd >= 0)
        close(plane->spare_fd);
    free(plane);
}

static const struct flow_ops host_ops = {
    .listen = host_listen,
    .accept = host_accept,
    .refuse = host_refuse,
    .connect = host_connect,
    .open_datagram = host_open_datagram,
    .send_datagram = host_send_datagram,
    .receive_datagram = host_receive_datagram,
    .set_user = flow_core_set_user,
    .error = flow_core_error,
    .addresses = host_addresses,
    .readable = flow_core_readable,
    .peek = flow_core_peek,
    .pull = flow_core_pull,
    .consume = flow_core_consume,
    .take = flow_core_take,
    .credit = flow_core_credit,
    .append = flow_core_append,
    .reserve = flow_core_reserve,
    .commit = flow_core_commit,
    .unsent = flow_core_unsent,
    .pending = flow_core_pending,
    .cork = flow_core_cork,
    .push = flow_core_push,
    .want = flow_core_want,
    .shutdown = flow_core_shutdown,
    .close = host_close,
    .abort = host_abort,
    .poll = host_poll,
    .flush = host_flush,
    .deadline = host_deadline,
    .wait = host_wait,
    .watch = host_watch,
    .stats = flow_core_stats,
    .free = host_free,
};

enum err flow_host_new(const struct flow_host_options *options, struct flow_plane **ret_plane)
{
    struct host_plane *plane = calloc(1, sizeof(*plane));
    CHECK(plane != NULL);

    plane->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    plane->spare_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (plane->epoll_fd < 0 || plane->spare_fd < 0) {
        if (plane->epoll_fd >= 0)
            close(plane->epoll_fd);
        free(plane);
        return ERR_SYSTEM;
    }
    plane->orphan_time = options->orphan_time;
    wheel_init(&plane->wheel, 0);
    rng_init_seed(&plane->rng, options->seed);
    flow_link_init(&plane->orphans);
    flow_core_init(&plane->core, &host_ops, options->pool, sizeof(struct host_flow),
                   options->flow_count_max);
    *ret_plane = &plane->core.plane;
    return ERR_OK;
}
