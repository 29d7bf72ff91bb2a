/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The stack of one core: made, turned, freed.
 *
 * A turn is flow_poll() and flow_flush(). The first receives one burst from every port, works each
 * frame through net_input_burst() up to the flow it belongs to, and then runs the timers that are
 * due: in this order, so that an acknowledgement that came in time cancels its retransmission. The
 * second lets TCP build what may go and gives the ports' frames to the nics.
 *
 * Invariants
 *   1. stack->now is the time of this turn, and the same for everything in it.
 *   2. Nothing here or below calls the application, blocks, or looks at a clock.
 *   3. A turn's work is bounded: NIC_BURST frames of each port, TIMERS_PER_TURN timers; what is due
 *      beyond that is due in the next turn, and stack_deadline() says so.
 *
 * Not here: options (stack_options.c), addresses and cores (stack_local.c), frames out
 * (stack_port.c), what can be seen from outside (stack_see.c), the flow_ops (flow_wire.c).
 */
#include <stdlib.h>

#include "dataplane/wire/net/stack_internal.h"
#include "dataplane/wire/tcp/tcp.h"

#define TIMERS_PER_TURN 4096u
#define REFUSED_TIME    100u /* us until a nic that refused frames is tried again */

/* ---- the turn ---- */

static void port_poll(struct stack *stack, struct stack_port *port)
{
    struct buf *frames[NIC_BURST] UNINITIALIZED;
    (void)STACK_STAGE(stack, RECEIVE);
    uint32_t count = nic_receive(port->nic, stack->now, frames, NIC_BURST);

    CHECK(count <= NIC_BURST);
    (void)STACK_STAGE(stack, INPUT);
    STACK_COUNT_BY(stack, FRAMES_RECEIVED, count);
    if (count == 1)
        net_input(stack, port, frames[0]);
    else if (count > 1)
        net_input_burst(stack, port, frames, count);
}

static void timer_fire(struct stack *stack, struct wheel_timer *timer)
{
    switch ((enum stack_timer_kind)timer->kind) {
    case STACK_TIMER_TCP:
        tcb_on_timer(stack, WHEEL_OWNER(timer, struct tcb, timer));
        return;
    case STACK_TIMER_NEIGHBOUR:
        neigh_on_timer(stack, timer);
        return;
    case STACK_TIMER_LIST:
        tcp_list_on_timer(stack);
        return;
    case STACK_TIMER_ANNOUNCE:
        neigh_announce_on_timer(stack);
        return;
    case STACK_TIMER_MEMBERSHIP:
        membership_on_timer(stack, timer);
        return;
    }
    CHECK(!"a timer of no known kind");
}

static void timers_run(struct stack *stack)
{
    struct wheel_timer *timer;

    for (uint32_t i = 0; i < TIMERS_PER_TURN; i++) {
        timer = wheel_expire_next(&stack->wheel, stack->now);
        if (timer == NULL)
            return;
        timer_fire(stack, timer);
    }
}

void stack_poll_ports(struct stack *stack, tick_us now)
{
    stack->now = now;
    for (uint32_t i = 0; i < stack->port_count; i++)
        port_poll(stack, &stack->ports[i]);
    (void)STACK_STAGE(stack, TIMERS);
    timers_run(stack);
    (void)STACK_STAGE(stack, REPORT);
}

void stack_flush_ports(struct stack *stack)
{
    (void)STACK_STAGE(stack, SEND);
    for (uint32_t i = 0; i < stack->port_count; i++) {
        if (stack->ports[i].waiting_count > 0)
            stack_port_flush(stack, &stack->ports[i]);
    }
    (void)STACK_STAGE(stack, SETTLE);
}

tick_us stack_deadline(struct stack *stack)
{
    tick_us deadline = wheel_deadline(&stack->wheel);

    for (uint32_t i = 0; i < stack->port_count; i++) {
        struct stack_port *port = &stack->ports[i];
        tick_us at = nic_deadline(port->nic);
        if (port->waiting_count > 0 && at > stack->now + REFUSED_TIME)
            at = stack->now + REFUSED_TIME;
        deadline = at < deadline ? at : deadline;
    }
    return deadline;
}

/* ---- news ---- */

void stack_on_news(struct stack *stack, const struct stack_news *news)
{
    if (news->port >= stack->port_count)
        return;
    STACK_COUNT(stack, NEWS_RECEIVED);
    if (news->kind == STACK_NEWS_PMTU)
        destination_on_news(stack, news);
    else
        neigh_on_news(stack, news);
}

void stack_tell(struct stack *stack, const struct stack_news *news)
{
    if (stack->options.on_news == NULL || stack->options.core_count == 1)
        return;
    if (!stack_bucket_take(stack, &stack->news_bucket, NEWS_PER_SECOND)) {
        STACK_COUNT(stack, NEWS_LIMITED);
        return;
    }
    STACK_COUNT(stack, NEWS_SENT);
    stack->options.on_news(stack->options.context, news);
}

bool stack_bucket_take(struct stack *stack, struct icmp_bucket *bucket, uint32_t per_second)
{
    uint32_t second = (uint32_t)(stack->now / TICK_S(1)) + 1; /* 0: never filled */

    if (bucket->second != second) {
        bucket->second = second;
        /* How much a bucket holds is not to be told by emptying it: the count of answers that are
         * missing would say which ports are open (CVE-2020-25705). */
        bucket->tokens = per_second / 2 + rng_below(&stack->rng, per_second / 2 + 1);
    }
    if (bucket->tokens == 0)
        return false;
    bucket->tokens--;
    return true;
}

/* ---- new and free ---- */

static void port_init(struct stack *stack, const struct stack_port_options *options)
{
    struct stack_port *port = &stack->ports[stack->port_count];
    struct nic *nic = options->nic;
    bool is_chained = nic->offloads & NIC_TX_MULTI_SEGMENT;

    *port = (struct stack_port){
        .nic = nic,
        .index = (uint16_t)stack->port_count++,
        .mtu = stack_options_mtu(options),
        .vlan = options->vlan,
        .segments_max = is_chained ? nic->segments_max : 1,
        .is_l3 = nic->offloads & NIC_IS_L3,
        .rss = nic->steering.queue_count > 1 ? rss_table_new(nic->steering.key) : NULL,
        .gateway4 = options->gateway4,
        .gateway6 = options->gateway6,
    };
    memcpy(port->mac, nic->mac, sizeof(port->mac));
    for (uint32_t i = 0; i < options->address_count; i++) {
        struct stack_address address = options->addresses[i];
        address.address.port = 0;
        address.address.reserved = 0;
        stack_local_add(stack, port, &address);
    }
}

static void keys_init(struct stack *stack)
{
    struct siphash_key *keys[] = {&stack->hash_key, &stack->isn_key, &stack->port_key,
                                  &stack->cookie_key, &stack->timestamp_key};

    rng_init_seed(&stack->rng, stack->options.seed[0]);
    /* The generator's key has room for the second half of the seed; nothing was drawn yet. */
    stack->rng.key[2] = (uint32_t)stack->options.seed[1];
    stack->rng.key[3] = (uint32_t)(stack->options.seed[1] >> 32);
    for (uint32_t i = 0; i < COUNT_OF(keys); i++) {
        keys[i]->words[0] = rng_u64(&stack->rng);
        keys[i]->words[1] = rng_u64(&stack->rng);
    }
}

enum err stack_new(const struct stack_options *options, struct stack **ret_stack)
{
    TRY(stack_options_check(options));
    struct stack *stack = calloc(1, sizeof(*stack));
    CHECK(stack != NULL);

    stack->options = *options;
    stack->options.ports = NULL; /* the caller's; what is needed of them is copied */
    stack->now = options->now;
    flow_core_init(&stack->core, &stack_ops, options->pool, sizeof(struct tcb),
                   options->flow_count_max);
    wheel_init(&stack->wheel, options->now);
    keys_init(stack);
    for (uint32_t i = 0; i < options->port_count; i++)
        port_init(stack, &options->ports[i]);
    stack->neighbours = neigh_table_new(stack);
    stack->destinations = destination_table_new(stack);
    stack->udp = udp_shared_new(stack);
    stack->tcp = tcp_shared_new(stack);
    neigh_announce(stack);
    *ret_stack = stack;
    return ERR_OK;
}

static void flows_abort(struct stack *stack)
{
    struct flow_slot *slot;

    for (uint32_t i = 0; (slot = flow_core_slot_at(&stack->core, i)) != NULL; i++) {
        if (slot->kind == FLOW_SLOT_DATAGRAM)
            udp_close(stack, slot);
        else if (slot->kind == FLOW_SLOT_LISTENER)
            tcp_close(stack, slot);
        else if (slot->kind == FLOW_SLOT_STREAM)
            tcp_abort(stack, slot);
    }
}

static void port_fini(struct stack_port *port)
{
    for (uint32_t i = 0; i < port->waiting_count; i++)
        buf_release_chain(port->waiting[i]);
    rss_table_free(port->rss);
    nic_free(port->nic);
}

void stack_free(struct stack *stack)
{
    flows_abort(stack);
    stack_flush_ports(stack);
    tcp_shared_free(stack);
    udp_shared_free(stack->udp);
    neigh_table_free(stack->neighbours);
    destination_table_free(stack->destinations);
    for (uint32_t i = 0; i < stack->port_count; i++)
        port_fini(&stack->ports[i]);
    flow_core_fini(&stack->core);
    free(stack);
}

struct flow_plane *stack_plane(struct stack *stack)
{
    return &stack->core.plane;
}

struct stack *stack_of_plane(struct flow_plane *plane)
{
    CHECK(plane->ops == &stack_ops);
    return stack_of(plane);
}

void stack_set_tap(struct stack *stack, stack_tap *tap, void *context)
{
    stack->tap = tap;
    stack->tap_context = context;
}
