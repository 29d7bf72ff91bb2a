/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_FLOW_H
#define DATAPLANE_FLOW_H

#include "base/buf.h"
#include "base/tick.h"

/*
 * Flows: the only thing relay/ and dns/ know of networks. One plane per shard and driver: host
 * (kernel sockets), wire (our engine), and the simulator's. All calls belong to the owner shard.
 *
 * Contract, the same for every driver and tested by one file (tests/unit/test_flow_contract.c):
 *  1. flow_poll() returns {handle, user, event mask}. There are no callbacks. Any call is legal
 * while handling any flow and delivers no event inside the call. Masks are levels and merged: one
 * entry per flow and poll, with everything that is true of the flow. A flow is reported when
 * something changed since its last report: octets came or went out, some were consumed or taken and
 * some are left, flow_want() added an event, accept or receive_datagram did not say ERR_AGAIN. An
 * owner that leaves everything (half a command line, no room) hears again when that changes, so
 * that waiting costs nothing. CONNECTED is reported once.
 *  2. Octets received in order before a FIN or RST stay readable until close. PEER_CLOSED is
 * reported when the FIN is in (data may still be unread); RESET and FAILED likewise free nothing:
 * the owner calls flow_close() (graceful; goes on as a bounded, timed orphan) or flow_abort()
 * (RST). From then on the handle is stale, and every call on it returns ERR_STALE or does nothing.
 *  3. Spans from flow_peek()/flow_pull() live until the next consume, take or poll on that plane.
 * What is left unconsumed at the end of a turn (at most a command line) is copied out and its
 * buffer let go.
 *  4. flow_take() moves octets out as slices but keeps them charged to the flow (by buffer size,
 * not payload); flow_credit() gives the charge back when the octets are truly gone. A flow whose
 * charge reaches its receive limit stops reading.
 *  5. Append takes references; octets leave in order; WRITABLE is reported while flow_unsent() <
 * the flow's send limit and the owner asked for it by flow_want(). Append itself never refuses:
 * bounds are the owner's duty (flow_unsent()).
 *  6. corked, appended octets are held until flow_push(), uncork or a full segment; at the end of a
 * turn flow_flush() sends what may go.
 */
#define FLOW_DATAGRAM_SIZE_MAX 4096u
#define FLOW_PULL_MAX          4096u
#define FLOW_RESERVE_MAX       4096u

enum flow_family {
    FLOW_FAMILY_NONE = 0,
    FLOW_FAMILY_IP4 = 4,
    FLOW_FAMILY_IP6 = 6,
    FLOW_FAMILY_UNIX = 1
};

/* An endpoint, comparable by memcmp (all unused octets zero). IPv4 in ip[0..3]. Unix paths travel
 * apart. */
struct flow_address {
    uint8_t family; /* enum flow_family */
    uint8_t reserved;
    uint16_t port; /* host order */
    uint8_t ip[16];
};

#define FLOW_ADDRESS_TEXT_MAX 56u

/** "192.0.2.1:25", "[2001:db8::1]:25", "unix". Returns ret_text. */
const char *flow_address_format(const struct flow_address *address,
                                char ret_text[FLOW_ADDRESS_TEXT_MAX]);
/** The address alone, without port and brackets. */
const char *flow_address_format_ip(const struct flow_address *address,
                                   char ret_text[FLOW_ADDRESS_TEXT_MAX]);
/** Strict: dotted quad of four decimal octets, or RFC 4291 text; no port. Errors: ERR_PEER_SYNTAX.
 */
enum err flow_address_parse_ip(struct span text, struct flow_address *ret_address) MUST_CHECK;
bool flow_address_is_equal(const struct flow_address *a, const struct flow_address *b);

/* An address range: ip/bits. ::ffff:a.b.c.d is treated as a.b.c.d on both sides. */
struct flow_prefix {
    struct flow_address address;
    uint8_t bits;
};
/** "192.0.2.0/24", "2001:db8::/32", or a bare address. Host bits set: ERR_CONFIG_VALUE. */
enum err flow_prefix_parse(struct span text, struct flow_prefix *ret_prefix) MUST_CHECK;
bool flow_prefix_contains(const struct flow_prefix *prefix, const struct flow_address *address);

/* index + generation; zero is never a flow */
struct flow {
    uint32_t index, generation;
};
static inline bool flow_is_none(struct flow flow)
{
    return flow.generation == 0;
}

enum flow_events {
    FLOW_ACCEPTABLE = 1u << 0,  /* listener: flow_accept() has one */
    FLOW_CONNECTED = 1u << 1,   /* connect() succeeded */
    FLOW_READABLE = 1u << 2,    /* octets, or a datagram, can be taken */
    FLOW_WRITABLE = 1u << 3,    /* see rule 5 */
    FLOW_PEER_CLOSED = 1u << 4, /* FIN is in: no octets after those already readable */
    FLOW_RESET = 1u << 5,       /* RST, or a fatal error, on a connected flow; see flow_error() */
    FLOW_FAILED = 1u << 6,      /* connect() failed or timed out; see flow_error() */
    FLOW_SENT = 1u << 7, /* all appended octets have been handed to the peer's side (host: to the
                            kernel; wire: acknowledged by the peer), asked for by flow_want() */
};

struct flow_event {
    struct flow flow;
    uint32_t events;
    uint64_t user; /* as set by flow_set_user() */
};

struct flow_listen_options {
    struct flow_address address;
    const char *unix_path; /* with FLOW_FAMILY_UNIX */
    uint32_t backlog;
    bool is_shared;                     /* SO_REUSEPORT: every shard listens on the same address */
    uint32_t receive_limit, send_limit; /* octets charged per accepted flow; 0: 256 KB */
    uint64_t user;
};

struct flow_connect_options {
    struct flow_address remote;
    const char *unix_path;
    struct flow_address source; /* family NONE: any */
    tick_us deadline;           /* FAILED with ERR_TIMEOUT then */
    uint32_t receive_limit, send_limit;
    uint64_t user;
};

/* clang-format off */
/* Why octets of streams were copied on their way through a plane. All else goes by reference. */
#define FLOW_COPIED_X(X) \
    X(small, "Octets received that were copied: so few that they would have kept a whole buffer from others.") \
    X(reserve, "Octets received that were copied: the buffers for receiving ran low.") \
    X(reordered, "Octets received out of order that were copied behind those in front of them.") \
    X(split, "Octets copied to be looked at in one piece: a command, or a little of a message, that lay in two buffers.") \
    X(rest, "Octets copied at the end of a turn: a command's beginning, which would have kept a buffer.") \
    X(summed, "Octets sent that were copied beside their header while they were summed: the port leaves the checksum to us.") \
    X(joined, "Octets sent that were copied together: they lay in more pieces than the port takes in a frame.") \
    X(compacted, "Octets of frames that were copied once more, for the same reason.")
/* clang-format on */
struct flow_copied {
#define X(name, meaning) uint64_t name;
    FLOW_COPIED_X(X)
#undef X
};

struct flow_stats {
    uint64_t accepted, refused, connected, connect_failed, resets, octets_received, octets_sent,
        datagrams_received, datagrams_sent, datagrams_dropped, copies, copied_octets, syscalls;
    struct flow_copied copied; /* of copied_octets, but for datagrams */
    uint32_t flows, orphans;
};

struct flow_plane;
struct flow_ops {
    enum err (*listen)(struct flow_plane *plane, const struct flow_listen_options *options,
                       struct flow *ret_flow);
    enum err (*accept)(struct flow_plane *plane, struct flow listener, uint64_t user,
                       struct flow *ret_flow, struct flow_address *ret_peer);
    enum err (*refuse)(struct flow_plane *plane, struct flow listener);
    enum err (*connect)(struct flow_plane *plane, const struct flow_connect_options *options,
                        struct flow *ret_flow);
    enum err (*open_datagram)(struct flow_plane *plane, const struct flow_address *local,
                              const struct flow_address *remote, uint64_t user,
                              struct flow *ret_flow);
    enum err (*send_datagram)(struct flow_plane *plane, struct flow flow, struct span octets);
    enum err (*receive_datagram)(struct flow_plane *plane, struct flow flow,
                                 struct flow_address *ret_from, struct span *ret_octets);
    void (*set_user)(struct flow_plane *plane, struct flow flow, uint64_t user);
    enum err (*error)(struct flow_plane *plane, struct flow flow);
    enum err (*addresses)(struct flow_plane *plane, struct flow flow,
                          struct flow_address *ret_local, struct flow_address *ret_peer);
    uint32_t (*readable)(struct flow_plane *plane, struct flow flow);
    uint32_t (*peek)(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                     uint32_t max);
    struct span (*pull)(struct flow_plane *plane, struct flow flow, uint32_t size);
    void (*consume)(struct flow_plane *plane, struct flow flow, uint32_t size);
    void (*take)(struct flow_plane *plane, struct flow flow, uint32_t size, struct buf_queue *into);
    void (*credit)(struct flow_plane *plane, struct flow flow, uint64_t charge);
    void (*append)(struct flow_plane *plane, struct flow flow, struct buf_queue *octets);
    struct span_mut (*reserve)(struct flow_plane *plane, struct flow flow, uint32_t size);
    void (*commit)(struct flow_plane *plane, struct flow flow, uint32_t size);
    uint64_t (*unsent)(struct flow_plane *plane, struct flow flow);
    uint64_t (*pending)(struct flow_plane *plane, struct flow flow); /* NULL: as unsent */
    void (*cork)(struct flow_plane *plane, struct flow flow, bool is_corked);
    void (*push)(struct flow_plane *plane, struct flow flow);
    void (*want)(struct flow_plane *plane, struct flow flow, uint32_t events);
    void (*shutdown)(struct flow_plane *plane, struct flow flow);
    void (*close)(struct flow_plane *plane, struct flow flow);
    void (*abort)(struct flow_plane *plane, struct flow flow);
    uint32_t (*poll)(struct flow_plane *plane, tick_us now, struct flow_event *ret_events,
                     uint32_t max);
    void (*flush)(struct flow_plane *plane, tick_us now);
    tick_us (*deadline)(struct flow_plane *plane);
    void (*wait)(struct flow_plane *plane, tick_us now, tick_us deadline);
    bool (*spins)(struct flow_plane *plane, tick_us now); /* NULL: never */
    enum err (*watch)(struct flow_plane *plane, int fd);
    struct flow_stats (*stats)(struct flow_plane *plane);
    void (*free)(struct flow_plane *plane);
};

/* First member of every driver's plane. */
struct flow_plane {
    const struct flow_ops *ops;
    struct buf_pool *pool; /* receive and reserve buffers come from here; owners may use it for
                              slices they append */
};

/** Start listening. Errors: ERR_SYSTEM (address in use, no permission), ERR_LIMIT. */
static inline enum err flow_listen(struct flow_plane *plane,
                                   const struct flow_listen_options *options, struct flow *ret_flow)
{
    return plane->ops->listen(plane, options, ret_flow);
}
/** Next pending connection of a listener, its user value set. Errors: ERR_AGAIN none left,
 * ERR_LIMIT no flow or descriptor free. */
static inline enum err flow_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                                   struct flow *ret_flow, struct flow_address *ret_peer)
{
    return plane->ops->accept(plane, listener, user, ret_flow, ret_peer);
}
/** Drop the next pending connection with a RST. Errors: ERR_AGAIN none left. */
static inline enum err flow_refuse(struct flow_plane *plane, struct flow listener)
{
    return plane->ops->refuse(plane, listener);
}
/** Begin to connect; ends in CONNECTED or FAILED, never inside this call. Errors: ERR_LIMIT,
 * ERR_SYSTEM (source not ours). */
static inline enum err flow_connect(struct flow_plane *plane,
                                    const struct flow_connect_options *options,
                                    struct flow *ret_flow)
{
    return plane->ops->connect(plane, options, ret_flow);
}
/**
 * A UDP flow connected to `remote`: the kernel (or engine) drops what comes from elsewhere, and the
 * owner still checks. local.port 0: the driver picks one at random over the whole unprivileged
 * range; pass a port to choose it (ERR_SYSTEM when taken).
 */
static inline enum err flow_open_datagram(struct flow_plane *plane,
                                          const struct flow_address *local,
                                          const struct flow_address *remote, uint64_t user,
                                          struct flow *ret_flow)
{
    return plane->ops->open_datagram(plane, local, remote, user, ret_flow);
}
/** Errors: ERR_AGAIN (no room now), ERR_PEER_UNREACHABLE. */
static inline enum err flow_send_datagram(struct flow_plane *plane, struct flow flow,
                                          struct span octets)
{
    return plane->ops->send_datagram(plane, flow, octets);
}
/** Next datagram, its octets valid until the next call on this plane. Errors: ERR_AGAIN none,
 * ERR_PEER_UNREACHABLE (ICMP). */
static inline enum err flow_receive_datagram(struct flow_plane *plane, struct flow flow,
                                             struct flow_address *ret_from, struct span *ret_octets)
{
    return plane->ops->receive_datagram(plane, flow, ret_from, ret_octets);
}
static inline void flow_set_user(struct flow_plane *plane, struct flow flow, uint64_t user)
{
    plane->ops->set_user(plane, flow, user);
}
/** Why FAILED or RESET: ERR_TIMEOUT, ERR_REFUSED, ERR_PEER_UNREACHABLE, ERR_PEER_RESET; ERR_OK when
 * neither; ERR_STALE. */
static inline enum err flow_error(struct flow_plane *plane, struct flow flow)
{
    return plane->ops->error(plane, flow);
}
/** Errors: ERR_STALE. */
static inline enum err flow_addresses(struct flow_plane *plane, struct flow flow,
                                      struct flow_address *ret_local, struct flow_address *ret_peer)
{
    return plane->ops->addresses(plane, flow, ret_local, ret_peer);
}
/** Octets that can be taken now. */
static inline uint32_t flow_readable(struct flow_plane *plane, struct flow flow)
{
    return plane->ops->readable(plane, flow);
}
/** The received octets in place, as at most `max` spans; returns how many. */
static inline uint32_t flow_peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                                 uint32_t max)
{
    return plane->ops->peek(plane, flow, ret_spans, max);
}
/** The first min(size, readable) octets in one piece; copies only when they are split. CHECKs size
 * <= FLOW_PULL_MAX. */
static inline struct span flow_pull(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    return plane->ops->pull(plane, flow, size);
}
/** Drop octets from the front and credit them at once. CHECKs size <= readable. */
static inline void flow_consume(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    plane->ops->consume(plane, flow, size);
}
/** Move octets to the end of `into` by reference; they stay charged. CHECKs size <= readable. */
static inline void flow_take(struct flow_plane *plane, struct flow flow, uint32_t size,
                             struct buf_queue *into)
{
    plane->ops->take(plane, flow, size, into);
}
/** `charge` payload octets that flow_take() moved out are gone; the plane scales them to what their
 * buffers cost. Stale handles are fine. */
static inline void flow_credit(struct flow_plane *plane, struct flow flow, uint64_t charge)
{
    plane->ops->credit(plane, flow, charge);
}
/** Send `octets`, by reference; the queue is emptied (moved). Dropped when the handle is stale. */
static inline void flow_append(struct flow_plane *plane, struct flow flow, struct buf_queue *octets)
{
    plane->ops->append(plane, flow, octets);
}
/** Writable room of at least `size` octets (<= FLOW_RESERVE_MAX) behind all that was appended; data
 * NULL when the pool is empty, its buffers are smaller, or the flow takes no more octets. Only the
 * last reservation on a plane, in this turn, can be committed. */
static inline struct span_mut flow_reserve(struct flow_plane *plane, struct flow flow,
                                           uint32_t size)
{
    return plane->ops->reserve(plane, flow, size);
}
/** Append the first `size` octets of the last reservation. */
static inline void flow_commit(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    plane->ops->commit(plane, flow, size);
}
/** Octets appended and not yet handed to the peer's side. On host that is the kernel. On wire it is
 * the peer's TCP: octets count until they are acknowledged, and so do WRITABLE and FLOW_SENT. */
static inline uint64_t flow_unsent(struct flow_plane *plane, struct flow flow)
{
    return plane->ops->unsent(plane, flow);
}
/** Octets appended and in no segment yet. On host, where only the kernel makes segments, those that
 * it has not taken. FLOW_PENDING_STALE: the handle is stale, or the flow was reset. */
#define FLOW_PENDING_STALE UINT64_MAX
static inline uint64_t flow_pending(struct flow_plane *plane, struct flow flow)
{
    return plane->ops->pending == NULL ? plane->ops->unsent(plane, flow)
                                       : plane->ops->pending(plane, flow);
}
static inline void flow_cork(struct flow_plane *plane, struct flow flow, bool is_corked)
{
    plane->ops->cork(plane, flow, is_corked);
}
static inline void flow_push(struct flow_plane *plane, struct flow flow)
{
    plane->ops->push(plane, flow);
}
/** Which of FLOW_READABLE, FLOW_WRITABLE, FLOW_SENT to report from now on (all others always).
 * READABLE is wanted at the start. */
static inline void flow_want(struct flow_plane *plane, struct flow flow, uint32_t events)
{
    plane->ops->want(plane, flow, events);
}
/** FIN after what was appended; receiving goes on. */
static inline void flow_shutdown(struct flow_plane *plane, struct flow flow)
{
    plane->ops->shutdown(plane, flow);
}
/** Send what was appended, FIN, and forget; bounded by the plane's orphan time. Unread octets are
 * read and dropped so that our last reply is not lost to a RST. */
static inline void flow_close(struct flow_plane *plane, struct flow flow)
{
    plane->ops->close(plane, flow);
}
/** RST now. */
static inline void flow_abort(struct flow_plane *plane, struct flow flow)
{
    plane->ops->abort(plane, flow);
}
/** Receive a burst and report. Never blocks. */
static inline uint32_t flow_poll(struct flow_plane *plane, tick_us now,
                                 struct flow_event *ret_events, uint32_t max)
{
    return plane->ops->poll(plane, now, ret_events, max);
}
/** Send what may go: once at the end of a turn. */
static inline void flow_flush(struct flow_plane *plane, tick_us now)
{
    plane->ops->flush(plane, now);
}
/** The plane's own next deadline (connects, orphans). */
static inline tick_us flow_deadline(struct flow_plane *plane)
{
    return plane->ops->deadline(plane);
}
/** Sleep until an event, a watched descriptor, or the deadline. The simulator's returns at once. */
static inline void flow_wait(struct flow_plane *plane, tick_us now, tick_us deadline)
{
    plane->ops->wait(plane, now, deadline);
}
/** flow_wait() would not sleep now, whatever the deadline: whoever asks need not find one. */
static inline bool flow_spins(struct flow_plane *plane, tick_us now)
{
    return plane->ops->spins != NULL && plane->ops->spins(plane, now);
}
/** Let `fd` (an eventfd) end flow_wait(), once for each time it is written. */
static inline enum err flow_watch(struct flow_plane *plane, int fd)
{
    return plane->ops->watch(plane, fd);
}
static inline struct flow_stats flow_plane_stats(struct flow_plane *plane)
{
    return plane->ops->stats(plane);
}
/** Abort every flow and free the plane. Its pool is the caller's. */
static inline void flow_plane_free(struct flow_plane *plane)
{
    plane->ops->free(plane);
}

/* ---- the host driver (dataplane/host) ---- */
struct flow_host_options {
    struct buf_pool *pool;
    uint32_t flow_count_max;
    tick_us
        orphan_time; /* how long a closed flow may take to send its rest and see the peer's FIN */
    uint64_t seed;   /* datagram source ports */
};
/** Kernel sockets over epoll. Heap; start-up. Errors: ERR_SYSTEM. */
enum err flow_host_new(const struct flow_host_options *options,
                       struct flow_plane **ret_plane) MUST_CHECK;
/**
 * A listening TCP socket that another process opened: the next flow_listen() on its address has it,
 * and with it the connections in its backlog. Of several with one address that listener has all.
 *
 * Ownership: the descriptor is the plane's; not with an error.
 * Errors:    ERR_CONFIG_VALUE: it is no such socket.
 */
enum err flow_host_inherit(struct flow_plane *plane, int fd) MUST_CHECK;
/** Duplicates of the descriptors that the plane listens on, the caller's to close; how many. Owner
 * thread. */
uint32_t flow_host_listeners(struct flow_plane *plane, int *ret_fds, uint32_t max);
/** The address of a socket that listens for TCP connections. Errors: as flow_host_inherit(). */
enum err flow_host_listener_address(int fd, struct flow_address *ret_address) MUST_CHECK;

#endif
