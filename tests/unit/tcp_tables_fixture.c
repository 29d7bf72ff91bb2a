/* SPDX-License-Identifier: Apache-2.0 */
/* What the unit tests of TCP's tables share: see tcp_tables_fixture.h. */
#include "tcp_tables_fixture.h"

#include <stdlib.h>
#include <string.h>

static const struct flow_ops no_ops;

struct fixture_sent fixture_sent;

void tcp_send_plain(struct stack *stack, const struct tcp_key *key, const struct tcp_header *header)
{
    (void)stack;
    fixture_sent = (struct fixture_sent){*key, *header, fixture_sent.count + 1};
}

struct stack *fixture_stack_new(const struct stack_options *options)
{
    struct stack *stack = calloc(1, sizeof(*stack));

    CHECK(stack != NULL);
    struct buf_pool *pool =
        buf_pool_new(&(struct buf_pool_options){.data_size = 64, .count_max = 1});
    flow_core_init(&stack->core, &no_ops, pool, sizeof(struct tcb), options->flow_count_max);
    stack->options = *options;
    stack->now = options->now;
    wheel_init(&stack->wheel, stack->now);
    rng_init_seed(&stack->rng, options->seed[0]);
    rng_fill(&stack->rng, &stack->hash_key, sizeof(stack->hash_key));
    rng_fill(&stack->rng, &stack->isn_key, sizeof(stack->isn_key));
    rng_fill(&stack->rng, &stack->port_key, sizeof(stack->port_key));
    rng_fill(&stack->rng, &stack->cookie_key, sizeof(stack->cookie_key));
    rng_fill(&stack->rng, &stack->timestamp_key, sizeof(stack->timestamp_key));
    stack->tcp = calloc(1, sizeof(*stack->tcp));
    CHECK(stack->tcp != NULL);
    return stack;
}

void fixture_stack_free(struct stack *stack)
{
    struct flow_slot *slot;

    wheel_cancel(&stack->wheel, &stack->tcp->list_timer);
    CHECK(stack->wheel.armed == 0);
    for (uint32_t i = 0; (slot = flow_core_slot_at(&stack->core, i)) != NULL; i++) {
        if (slot->kind != FLOW_SLOT_FREE)
            flow_core_slot_free(&stack->core, slot);
    }
    flow_core_fini(&stack->core);
    buf_pool_free(stack->core.plane.pool);
    free(stack->tcp);
    free(stack);
}

struct tcb *fixture_tcb_new(struct stack *stack, const struct tcp_key *key)
{
    struct flow_slot *slot = flow_core_slot_new(&stack->core, FLOW_SLOT_STREAM, 0);

    if (slot == NULL)
        return NULL;
    struct tcb *tcb = tcb_of(slot);
    tcb->key = *key;
    return tcb;
}

struct tcp_listener *fixture_listener_new(struct stack *stack, const struct flow_address *address,
                                          uint32_t backlog)
{
    struct flow_slot *slot = flow_core_slot_new(&stack->core, FLOW_SLOT_LISTENER, 0);

    CHECK(slot != NULL);
    struct tcp_listener *listener = (struct tcp_listener *)(void *)slot;
    listener->address = *address;
    listener->backlog = backlog;
    CHECK(tcp_listener_add(stack, listener) == ERR_OK);
    return listener;
}

struct tcp_key fixture_key4(uint8_t local, uint16_t local_port, uint32_t remote,
                            uint16_t remote_port)
{
    return (struct tcp_key){.local = {192, 0, 2, local},
                            .remote = {198, 51, (uint8_t)(remote >> 8), (uint8_t)remote},
                            .local_port = local_port,
                            .remote_port = remote_port,
                            .family = FLOW_FAMILY_IP4};
}

struct tcp_key fixture_key6(uint8_t local, uint16_t local_port, uint32_t remote,
                            uint16_t remote_port)
{
    struct tcp_key key = {.local = {0x20, 0x01, 0x0d, 0xb8, [15] = local},
                          .remote = {0x20, 0x01, 0x0d, 0xb8, 0, 1},
                          .local_port = local_port,
                          .remote_port = remote_port,
                          .family = FLOW_FAMILY_IP6};

    store_be32(key.remote + 12, remote);
    return key;
}

double fixture_chi_square(const uint32_t *cells, uint32_t count, uint64_t total)
{
    double expected = (double)total / count, sum = 0;

    for (uint32_t i = 0; i < count; i++) {
        double difference = cells[i] - expected;
        sum += difference * difference / expected;
    }
    return sum;
}
