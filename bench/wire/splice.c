/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium-splice: connections accepted and connected on, octets passed on by reference in both
 * directions, on either dataplane. It is what a relay could be that looks at nothing: the same
 * frames, the same engine, no SMTP.
 *
 *   angarium-splice LISTEN TARGET [DEVICE OUR-IP/BITS [MTU]]   each IP:PORT; no device: kernel
 *
 * Invariants
 *   1. A pair has two flows from its beginning; the end of one direction is passed on, and the pair
 *      ends when both are over, or at once when either breaks.
 *   2. At most WINDOW octets wait in a direction, and one burst; then its source is not read.
 *
 * Limits: PAIRS_MAX connections. Ends at SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "dataplane/dataplane.h"

#define PAIRS_MAX   16384u
#define WINDOW      (256u << 10)
#define EVENT_BURST 256u
#define LISTENER    UINT64_MAX
#define MTU_MIN     576u
#define MTU_USUAL   1500u
#define MTU_MAX     9198u

struct end {
    struct flow flow;
    bool is_over;   /* its FIN was passed on */
    bool is_paused; /* it is not read until the other end has sent */
};

struct pair {
    struct end ends[2];
    uint32_t next_free;
    bool is_used;
};

struct splice {
    struct flow_plane *plane;
    struct flow_address target;
    struct pair *pairs;
    uint32_t free_first;
    tick_us now;
};

static volatile sig_atomic_t is_stopping;

static void on_signal(int number)
{
    (void)number;
    is_stopping = 1;
}

__attribute__((noreturn)) static void fail(const char *what, const char *why)
{
    (void)fprintf(stderr, "angarium-splice: %s: %s\n", what, why);
    exit(2);
}

/* ---- the command line ---- */

static uint64_t number_of(const char *text)
{
    uint64_t value;

    if (span_parse_u64(span_from_text(text), &value) != ERR_OK)
        fail(text, "no number");
    return value;
}

static uint16_t mtu_of(const char *text)
{
    uint64_t mtu = number_of(text);

    if (mtu < MTU_MIN || mtu > MTU_MAX)
        fail(text, "an MTU is within 576 and 9198");
    return (uint16_t)mtu;
}

/* "10.9.0.1:25" or "10.9.1.1/16": the address, and the number behind the mark. */
static struct flow_address address_of(const char *text, char mark, uint64_t *ret_number)
{
    const char *end = strchr(text, mark);
    struct flow_address address;

    if (end == NULL ||
        flow_address_parse_ip(span_of(text, (uint32_t)(end - text)), &address) != ERR_OK)
        fail(text, "expected an IPv4 address");
    *ret_number = number_of(end + 1);
    return address;
}

static struct flow_address endpoint_of(const char *text)
{
    uint64_t port;
    struct flow_address address = address_of(text, ':', &port);

    address.port = (uint16_t)port;
    return address;
}

/* ---- pairs ---- */

static void pair_free(struct splice *splice, struct pair *pair)
{
    pair->is_used = false;
    pair->next_free = splice->free_first;
    splice->free_first = (uint32_t)(pair - splice->pairs);
}

static void pair_break(struct splice *splice, struct pair *pair)
{
    for (uint32_t i = 0; i < COUNT_OF(pair->ends); i++)
        flow_abort(splice->plane, pair->ends[i].flow);
    pair_free(splice, pair);
}

static void pair_new(struct splice *splice, struct flow inbound)
{
    uint32_t index = splice->free_first;
    struct flow_connect_options connect = {.remote = splice->target,
                                           .deadline = splice->now + TICK_S(10),
                                           .receive_limit = WINDOW,
                                           .send_limit = WINDOW,
                                           .user = (uint64_t)index * 2 + 1};
    struct flow outbound;

    if (index == PAIRS_MAX || flow_connect(splice->plane, &connect, &outbound) != ERR_OK) {
        flow_abort(splice->plane, inbound);
        return;
    }
    struct pair *pair = &splice->pairs[index];
    splice->free_first = pair->next_free;
    *pair = (struct pair){.ends = {{.flow = inbound}, {.flow = outbound}}, .is_used = true};
    flow_set_user(splice->plane, inbound, (uint64_t)index * 2);
}

/* What can be read of one end goes to the other; it is credited at once, since an end whose octets
 * do not leave is not read. */
static void end_pass_on(struct splice *splice, struct end *from, struct end *to)
{
    uint32_t size = flow_readable(splice->plane, from->flow);
    struct buf_queue octets;

    if (size == 0)
        return;
    if (flow_unsent(splice->plane, to->flow) > WINDOW) {
        from->is_paused = true;
        flow_want(splice->plane, from->flow, 0);
        flow_want(splice->plane, to->flow, FLOW_READABLE | FLOW_WRITABLE);
        return;
    }
    buf_queue_init(&octets);
    flow_take(splice->plane, from->flow, size, &octets);
    flow_append(splice->plane, to->flow, &octets);
    flow_credit(splice->plane, from->flow, size);
    buf_queue_fini(&octets);
}

static void pair_on_event(struct splice *splice, const struct flow_event *event)
{
    struct pair *pair = &splice->pairs[event->user / 2];
    struct end *end = &pair->ends[event->user % 2], *other = &pair->ends[1 - event->user % 2];

    if (!pair->is_used || event->flow.index != end->flow.index ||
        event->flow.generation != end->flow.generation)
        return;
    if (event->events & FLOW_WRITABLE && other->is_paused) {
        other->is_paused = false;
        flow_want(splice->plane, end->flow, FLOW_READABLE);
        flow_want(splice->plane, other->flow, FLOW_READABLE);
        end_pass_on(splice, other, end);
    }
    if (event->events & FLOW_READABLE && !end->is_paused)
        end_pass_on(splice, end, other);
    if (event->events & (FLOW_RESET | FLOW_FAILED)) {
        pair_break(splice, pair);
        return;
    }
    if (!(event->events & FLOW_PEER_CLOSED) || end->is_over ||
        flow_readable(splice->plane, end->flow) > 0)
        return;
    end->is_over = true;
    if (!other->is_over) {
        flow_shutdown(splice->plane, other->flow);
        return;
    }
    flow_close(splice->plane, end->flow);
    flow_close(splice->plane, other->flow);
    pair_free(splice, pair);
}

static void turn(struct splice *splice)
{
    const struct tick_source *clock = tick_source_system();
    struct flow_event events[EVENT_BURST] UNINITIALIZED;

    splice->now = clock->monotonic(clock->context);
    uint32_t count = flow_poll(splice->plane, splice->now, events, EVENT_BURST);
    for (uint32_t i = 0; i < count; i++) {
        struct flow_address peer;
        struct flow inbound;

        if (events[i].user != LISTENER) {
            pair_on_event(splice, &events[i]);
            continue;
        }
        while (flow_accept(splice->plane, events[i].flow, 0, &inbound, &peer) == ERR_OK)
            pair_new(splice, inbound);
    }
    flow_flush(splice->plane, splice->now);
    if (count == 0)
        flow_wait(splice->plane, splice->now, flow_deadline(splice->plane));
}

/* ---- the program ---- */

static void splice_run(struct splice *splice, const struct flow_listen_options *listen)
{
    struct flow listener;

    if (flow_listen(splice->plane, listen, &listener) != ERR_OK)
        fail("cannot listen", "is the address taken?");
    (void)puts("ready");
    (void)fflush(stdout);
    while (!is_stopping)
        turn(splice);
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_handler = on_signal};
    struct splice splice = {.free_first = 0};
    struct flow_prefix address = {0};
    struct dataplane_port_options port = {.addresses = &address, .address_count = 1};
    struct dataplane_options options = {.poll = DATAPLANE_BUSY,
                                        .core_count = 1,
                                        .flow_count_max = 4 * PAIRS_MAX,
                                        .buffer_size = 16384,
                                        .buffer_memory = 256u << 20,
                                        .memory = 256u << 20};
    struct dataplane *dataplane = NULL;
    char why[DATAPLANE_WHY_SIZE] = "";
    uint64_t bits;

    if (count != 3 && count != 5 && count != 6)
        fail("usage", "LISTEN TARGET [DEVICE OUR-IP/BITS [MTU]]");
    splice.target = endpoint_of(words[2]);
    if (count >= 5) {
        address.address = address_of(words[4], '/', &bits);
        address.bits = (uint8_t)bits;
        port.device = words[3];
        port.mtu = count == 6 ? mtu_of(words[5]) : MTU_USUAL;
        options.driver = DATAPLANE_DPDK;
        options.ports = &port;
        options.port_count = 1;
    }
    (void)sigaction(SIGTERM, &action, NULL);
    splice.pairs = calloc(PAIRS_MAX, sizeof(*splice.pairs));
    CHECK(splice.pairs != NULL);
    for (uint32_t i = 0; i < PAIRS_MAX; i++)
        splice.pairs[i].next_free = i + 1;
    if (dataplane_new(&options, &dataplane, why) != ERR_OK ||
        dataplane_core_new(dataplane, 0, 1, &splice.plane, why) != ERR_OK)
        fail("dataplane", why);
    dataplane_thread_begin(dataplane);
    splice_run(&splice, &(struct flow_listen_options){.address = endpoint_of(words[1]),
                                                      .backlog = 4096,
                                                      .receive_limit = WINDOW,
                                                      .send_limit = WINDOW,
                                                      .user = LISTENER});
    dataplane_thread_end(dataplane);
    dataplane_core_free(dataplane, 0);
    dataplane_free(dataplane);
    free(splice.pairs);
    return 0;
}
