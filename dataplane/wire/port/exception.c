/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exception path: one thread between the rings of the shards and a TAP interface.
 *
 * Out: a ring per queue, written by its shard, read by the thread. In: one ring, written by the
 * thread, read by the shard that sends for the kernel. All have one producer and one consumer. A
 * frame that finds a ring or the interface full is dropped and counted.
 *
 * Buffers of the way in come from a pool of the thread's own; the shard, or the driver it gives
 * them to, puts them back: mempools allow that, and `buf_pool` does not notice. Buffers of the way
 * out are the shards', and at most EXCEPTION_SLOTS of each are here.
 *
 * Sleep: the thread stores its flag, then looks at the rings once more (fence A). A shard stores
 * the frame, then looks at the flag (fence B). So at least one of the two sees what the other
 * stored; whoever takes the flag away writes the eventfd.
 */
#define RTE_USE_C11_MEM_MODEL 1

#include "dataplane/wire/port/exception.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <rte_lcore.h>
#include <rte_mbuf.h>
#include <rte_ring.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "dataplane/wire/port/buf_mempool.h"

#define EXCEPTION_SLOTS   256u
#define EXCEPTION_BURST   32u
#define EXCEPTION_BUFFERS 512u
#define SEGMENTS_MAX      64u
#define FRAME_HEADERS     18u /* Ethernet and one 802.1Q tag */
#define LINE              64u

struct exception {
    int tap, wake;
    pthread_t thread;
    bool has_thread;
    uint16_t queue_count;
    struct rte_ring **out; /* [queue_count] */
    struct rte_ring *in;
    struct buf_pool *pool;
    _Atomic bool is_asleep, is_ending;
    _Atomic uint64_t out_count, in_count, dropped; /* written by the thread */
};

/* ---- the interface ---- */

static enum err complain(char *error, uint32_t size, const char *name, const char *what)
{
    snprintf(error, size, "exception interface %s: %s: %s", name, what, strerror(errno));
    return ERR_SYSTEM;
}

/* Link address, MTU, and up. */
static bool configure_interface(int any_socket, const struct exception_options *options,
                                struct ifreq *request)
{
    memset(&request->ifr_hwaddr, 0, sizeof(request->ifr_hwaddr));
    request->ifr_hwaddr.sa_family = ARPHRD_ETHER;
    memcpy(request->ifr_hwaddr.sa_data, options->mac, sizeof(options->mac));
    if (ioctl(any_socket, SIOCSIFHWADDR, request) != 0)
        return false;
    request->ifr_mtu = options->mtu;
    if (ioctl(any_socket, SIOCSIFMTU, request) != 0)
        return false;
    if (ioctl(any_socket, SIOCGIFFLAGS, request) != 0)
        return false;
    request->ifr_flags |= IFF_UP;
    return ioctl(any_socket, SIOCSIFFLAGS, request) == 0;
}

static enum err open_interface(struct exception *exception, const struct exception_options *options,
                               char *error, uint32_t error_size)
{
    struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};

    if (strlen(options->name) == 0 || strlen(options->name) >= IFNAMSIZ) {
        errno = EINVAL;
        return complain(error, error_size, options->name, "name");
    }
    memcpy(request.ifr_name, options->name, strlen(options->name));
    exception->tap = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (exception->tap < 0)
        return complain(error, error_size, options->name, "/dev/net/tun");
    if (ioctl(exception->tap, TUNSETIFF, &request) != 0)
        return complain(error, error_size, options->name, "TUNSETIFF");
    int any_socket = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool is_configured = any_socket >= 0 && configure_interface(any_socket, options, &request);
    enum err err = is_configured ? ERR_OK : complain(error, error_size, options->name, "configure");
    if (any_socket >= 0)
        close(any_socket);
    return err;
}

/* ---- the thread ---- */

static void count_by(_Atomic uint64_t *counter, uint64_t amount)
{
    uint64_t before = atomic_load_explicit(counter, memory_order_relaxed);

    atomic_store_explicit(counter, before + amount, memory_order_relaxed);
}

static void write_frame(struct exception *exception, const struct buf *frame)
{
    struct iovec parts[SEGMENTS_MAX];
    const struct rte_mbuf *mbuf = (const struct rte_mbuf *)(const void *)frame;
    int count = 0;

    for (; mbuf != NULL && count < (int)SEGMENTS_MAX; mbuf = mbuf->next)
        parts[count++] = (struct iovec){rte_pktmbuf_mtod(mbuf, void *), rte_pktmbuf_data_len(mbuf)};
    bool is_written = mbuf == NULL && writev(exception->tap, parts, count) > 0;
    count_by(is_written ? &exception->out_count : &exception->dropped, 1);
}

/* True if there was anything. */
static bool drain_out(struct exception *exception)
{
    bool was_busy = false;

    for (uint32_t i = 0; i < exception->queue_count; i++) {
        struct buf *frames[EXCEPTION_BURST];
        uint32_t count =
            rte_ring_sc_dequeue_burst(exception->out[i], (void **)frames, EXCEPTION_BURST, NULL);

        for (uint32_t k = 0; k < count; k++) {
            write_frame(exception, frames[k]);
            buf_mempool_give_back(frames[k]);
        }
        was_busy |= count > 0;
    }
    return was_busy;
}

/* One frame from the kernel; false: there is none, or no buffer for it now. */
static bool read_frame(struct exception *exception)
{
    struct buf *frame = buf_acquire(exception->pool);

    if (frame == NULL)
        return false;
    ssize_t size = read(exception->tap, buf_data(frame), buf_room(frame));
    if (size <= 0) {
        buf_mempool_give_back(frame);
        return false;
    }
    buf_extend(frame, (uint32_t)size);
    bool is_in = rte_ring_sp_enqueue(exception->in, frame) == 0;
    if (!is_in)
        buf_mempool_give_back(frame);
    count_by(is_in ? &exception->in_count : &exception->dropped, 1);
    return true;
}

static bool drain_in(struct exception *exception)
{
    uint32_t count = 0;

    while (count < EXCEPTION_BURST && read_frame(exception))
        count++;
    return count > 0;
}

static bool has_work(const struct exception *exception)
{
    for (uint32_t i = 0; i < exception->queue_count; i++)
        if (rte_ring_count(exception->out[i]) > 0)
            return true;
    return atomic_load(&exception->is_ending);
}

static void sleep_until_work(struct exception *exception)
{
    struct pollfd fds[2] = {{.fd = exception->wake, .events = POLLIN},
                            {.fd = exception->tap, .events = POLLIN}};
    uint64_t ignored;

    atomic_store(&exception->is_asleep, true);
    atomic_thread_fence(memory_order_seq_cst); /* fence A */
    if (!has_work(exception))
        (void)poll(fds, 2, -1);
    atomic_store(&exception->is_asleep, false);
    if (read(exception->wake, &ignored, sizeof(ignored)) < 0)
        CHECK(errno == EAGAIN || errno == EINTR);
}

static void *run(void *context)
{
    struct exception *exception = context;

    while (!atomic_load(&exception->is_ending)) {
        bool was_busy = drain_out(exception);

        if (!drain_in(exception) && !was_busy)
            sleep_until_work(exception);
    }
    return NULL;
}

static void wake_up(struct exception *exception)
{
    const uint64_t one = 1;

    if (write(exception->wake, &one, sizeof(one)) < 0)
        CHECK(errno == EAGAIN);
}

/* ---- shards ---- */

bool exception_send(struct exception *exception, uint16_t queue, struct buf *frame)
{
    CHECK(queue < exception->queue_count);
    if (rte_ring_sp_enqueue(exception->out[queue], frame) != 0)
        return false;
    atomic_thread_fence(memory_order_seq_cst); /* fence B */
    if (atomic_load_explicit(&exception->is_asleep, memory_order_relaxed) &&
        atomic_exchange(&exception->is_asleep, false))
        wake_up(exception);
    return true;
}

uint32_t exception_receive(struct exception *exception, struct buf **ret_frames, uint32_t max)
{
    return rte_ring_sc_dequeue_burst(exception->in, (void **)ret_frames, max, NULL);
}

struct exception_stats exception_get_stats(const struct exception *exception)
{
    return (struct exception_stats){
        .out = atomic_load_explicit(&exception->out_count, memory_order_relaxed),
        .in = atomic_load_explicit(&exception->in_count, memory_order_relaxed),
        .dropped = atomic_load_explicit(&exception->dropped, memory_order_relaxed),
    };
}

/* ---- start and end ---- */

static struct rte_ring *ring_new(void)
{
    ssize_t size = rte_ring_get_memsize(EXCEPTION_SLOTS);

    CHECK(size > 0);
    size_t whole = ((size_t)size + LINE - 1) / LINE * LINE;
    struct rte_ring *ring = aligned_alloc(LINE, whole);
    CHECK(ring != NULL);
    memset(ring, 0, whole);
    CHECK(rte_ring_init(ring, "exception", EXCEPTION_SLOTS, RING_F_SP_ENQ | RING_F_SC_DEQ) == 0);
    return ring;
}

static void ring_free(struct rte_ring *ring)
{
    void *frame = NULL;

    while (rte_ring_sc_dequeue(ring, &frame) == 0)
        buf_mempool_give_back(frame);
    free(ring);
}

static struct exception *allocate(uint16_t queue_count)
{
    struct exception *exception = calloc(1, sizeof(*exception));

    CHECK(exception != NULL);
    exception->tap = -1;
    exception->queue_count = queue_count;
    exception->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    CHECK(exception->wake >= 0);
    exception->out = calloc(queue_count, sizeof(*exception->out));
    CHECK(exception->out != NULL);
    for (uint32_t i = 0; i < queue_count; i++)
        exception->out[i] = ring_new();
    exception->in = ring_new();
    return exception;
}

enum err exception_new(const struct exception_options *options, struct exception **ret_exception,
                       char *ret_error, uint32_t error_size)
{
    CHECK(options->queue_count > 0);
    struct exception *exception = allocate(options->queue_count);
    char pool_name[BUF_MEMPOOL_NAME_MAX + 1];

    enum err err = open_interface(exception, options, ret_error, error_size);
    if (err == ERR_OK) {
        snprintf(pool_name, sizeof(pool_name), "except-%s", options->name);
        err = buf_pool_new_on_mempool(pool_name, EXCEPTION_BUFFERS, options->mtu + FRAME_HEADERS,
                                      BUF_MEMPOOL_ANY_NODE, &exception->pool);
        if (err != ERR_OK)
            snprintf(ret_error, error_size, "no memory for the exception interface");
    }
    if (err == ERR_OK) {
        /* Where the EAL's helper threads run, not on a shard's CPU. */
        exception->has_thread =
            rte_ctrl_thread_create(&exception->thread, "exception", NULL, run, exception) == 0;
        err = exception->has_thread ? ERR_OK
                                    : complain(ret_error, error_size, options->name, "thread");
    }
    if (err != ERR_OK) {
        exception_free(exception);
        return err;
    }
    *ret_exception = exception;
    return ERR_OK;
}

void exception_free(struct exception *exception)
{
    if (exception == NULL)
        return;
    if (exception->has_thread) {
        atomic_store(&exception->is_ending, true);
        wake_up(exception);
        CHECK(pthread_join(exception->thread, NULL) == 0);
    }
    for (uint32_t i = 0; i < exception->queue_count; i++)
        ring_free(exception->out[i]);
    ring_free(exception->in);
    free(exception->out);
    buf_pool_free(exception->pool);
    if (exception->tap >= 0)
        close(exception->tap);
    close(exception->wake);
    free(exception);
}
