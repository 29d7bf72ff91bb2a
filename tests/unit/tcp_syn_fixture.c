/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of handshakes share: see tcp_syn_fixture.h. */
#include "tcp_syn_fixture.h"

#include <string.h>

/* ---- the rest of TCP ---- */

struct syn_others syn_others;
struct tcp_listener *syn_listener;
static struct stack_local local;

void tcp_send_reset_for(struct stack *stack, const struct segment *segment)
{
    (void)stack;
    (void)segment;
    syn_others.resets++;
}

struct tcb *tcp_accept_ready(struct stack *stack, struct tcp_listener *listener,
                             const struct tcp_key *key, const struct tcp_agreed *agreed)
{
    static struct tcb tcb;

    (void)stack;
    if (syn_others.is_refusing)
        return NULL;
    listener->ready_count++;
    syn_others.accepted++;
    syn_others.agreed = *agreed;
    syn_others.key = *key;
    return &tcb;
}

void tcp_input_segment(struct stack *stack, struct tcb *tcb, struct segment *segment)
{
    (void)stack;
    (void)tcb;
    syn_others.fed++;
    syn_others.segment = segment;
}

struct stack_local *stack_local_find(struct stack *stack, uint8_t family, const uint8_t ip[16])
{
    (void)stack;
    (void)family;
    (void)ip;
    return &local;
}

/* ---- a stack with a listener, and clients ---- */

struct stack *syn_stack_new(uint32_t syn_cache_max)
{
    struct stack *stack =
        fixture_stack_new(&(struct stack_options){.flow_count_max = 64,
                                                  .syn_cache_max = syn_cache_max,
                                                  .connections_per_prefix_max = 20,
                                                  .now = SYN_START,
                                                  .seed = {9, 0},
                                                  .tcp = {.mss_min = 216,
                                                          .window_scale_max = 10,
                                                          .has_sack = true,
                                                          .has_timestamps = true,
                                                          .has_window_scale = true,
                                                          .has_ecn = true,
                                                          .receive_window_start = 65536,
                                                          .receive_window_max = 4u << 20,
                                                          .syn_ack_time = TICK_S(1),
                                                          .syn_ack_retries = 3}});

    stack->ports[0].mtu = 1500;
    stack->tcp->table = tcp_table_new(stack);
    stack->tcp->limits = tcp_limits_new(stack);
    stack->tcp->syn_cache = tcp_syn_cache_new(stack);
    syn_listener = fixture_listener_new(
        stack, &(struct flow_address){.family = FLOW_FAMILY_IP4, .port = 25}, 100);
    fixture_listener_new(stack, &(struct flow_address){.family = FLOW_FAMILY_IP6, .port = 25}, 100);
    memset(&syn_others, 0, sizeof(syn_others));
    memset(&fixture_sent, 0, sizeof(fixture_sent));
    return stack;
}

void syn_stack_free(struct stack *stack)
{
    tcp_syn_cache_verify(stack);
    tcp_limits_verify(stack);
    tcp_syn_cache_free(stack->tcp->syn_cache);
    tcp_limits_free(stack->tcp->limits);
    tcp_table_free(stack->tcp->table);
    fixture_stack_free(stack);
}

struct segment syn_modern(const struct tcp_key *key)
{
    return (struct segment){.header = {.sequence = SYN_IRS,
                                       .window = 64240,
                                       .flags = TCP_SYN,
                                       .options = {.has_mss = true,
                                                   .mss = 1460,
                                                   .has_window_scale = true,
                                                   .window_scale = 7,
                                                   .has_sack_permitted = true,
                                                   .has_timestamps = true,
                                                   .timestamp_value = SYN_TS}},
                            .key = *key};
}

struct segment syn_final_ack(const struct tcp_key *key)
{
    const struct tcp_header *syn_ack = &fixture_sent.header;

    return (struct segment){
        .header = {.sequence = syn_ack->acknowledgement,
                   .acknowledgement = syn_ack->sequence + 1,
                   .window = 502,
                   .flags = TCP_ACK,
                   .options = {.has_timestamps = syn_ack->options.has_timestamps,
                               .timestamp_value = SYN_TS + 1,
                               .timestamp_echo = syn_ack->options.timestamp_value}},
        .key = *key,
        .sequence = syn_ack->acknowledgement};
}

void syn_send(struct stack *stack, const struct tcp_key *key)
{
    struct segment segment = syn_modern(key);

    tcp_syn_input(stack, syn_listener, &segment, 0);
}

bool syn_answer(struct stack *stack, struct segment segment)
{
    return tcp_syn_complete(stack, syn_listener, &segment);
}

struct tcp_key syn_client(void)
{
    return fixture_key4(1, 25, 1, 40000);
}
