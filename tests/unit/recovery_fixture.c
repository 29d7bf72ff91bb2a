/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The descriptors and their octets are the engine's (tcp/send_queue.c); what sends is here, sends
 * nothing, and keeps a record.
 */
#include "tests/unit/recovery_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct recovery_fixture *current;
static const struct flow_ops no_calls;

struct tcp_policy fixture_policy(void)
{
    return (struct tcp_policy){
        .mss_min = 536,
        .has_sack = true,
        .has_timestamps = true,
        .initial_window = 10,
        .rto_initial = TICK_S(1),
        .rto_min = TICK_MS(200),
        .rto_max = TICK_S(120),
    };
}

uint32_t fixture_sequence(uint32_t segment)
{
    return FIXTURE_ISS + 1 + segment * FIXTURE_MSS;
}

void fixture_open(struct recovery_fixture *f, uint32_t cwnd)
{
    *f = (struct recovery_fixture){
        .stack = calloc(1, sizeof(*f->stack)),
        .pool = buf_pool_new(&(struct buf_pool_options){.data_size = FIXTURE_MSS, .count_max = 1}),
    };
    assert_non_null(f->stack);
    f->octets = buf_acquire(f->pool);
    assert_non_null(f->octets);
    current = f;
    f->stack->now = TICK_S(1000);
    f->stack->options.tcp = fixture_policy();
    flow_core_init(&f->stack->core, &no_calls, f->pool, sizeof(struct tcb), 1);
    struct tcb *tcb = tcb_of(flow_core_slot_new(&f->stack->core, FLOW_SLOT_STREAM, 0));
    f->tcb = tcb;
    tcb->mss = FIXTURE_MSS;
    tcb->state = TCP_ESTABLISHED;
    tcb->flags = TCB_HAS_SACK;
    tcb->snd_una = tcb->snd_nxt = fixture_sequence(0);
    tcb->snd_wnd = f->window = 1u << 30;
    tcp_rtt_init(&tcb->rtt, &f->stack->options.tcp, NULL);
    tcp_congestion_init(f->stack, tcb);
    tcb->congestion = (struct tcp_congestion){
        .cwnd = cwnd * FIXTURE_MSS, .ssthresh = cwnd * FIXTURE_MSS, .limited_end = tcb->snd_una};
}

void fixture_close(struct recovery_fixture *f)
{
    tcp_recovery_free(f->tcb);
    tcp_sent_free(f->tcb);
    flow_core_slot_free(&f->stack->core, &f->tcb->slot);
    flow_core_fini(&f->stack->core);
    buf_release(f->octets);
    buf_pool_free(f->pool);
    free(f->stack);
    current = NULL;
}

void fixture_advance(struct recovery_fixture *f, tick_us time)
{
    f->stack->now += time;
}

static void fixture_emit(struct recovery_fixture *f, uint32_t index)
{
    const struct tcp_sent *sent = tcp_sent_at(&f->tcb->sent, index);

    if (f->on_segment != NULL)
        f->on_segment(f, (sent->sequence - fixture_sequence(0)) / FIXTURE_MSS);
}

void fixture_owner(struct recovery_fixture *f, uint32_t count)
{
    /* All of the stream is the same thousand octets. */
    for (uint32_t i = 0; i < count; i++)
        buf_queue_append(&f->tcb->slot.unsent, f->octets, BUF_HEADROOM, FIXTURE_MSS);
}

static uint32_t fixture_unsent(const struct recovery_fixture *f)
{
    return (uint32_t)(f->tcb->slot.unsent.size - (f->tcb->snd_nxt - f->tcb->snd_una));
}

void fixture_send(struct recovery_fixture *f, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fixture_unsent(f) == 0)
            fixture_owner(f, 1);
        assert_int_equal(ERR_OK, tcp_sent_push(f->stack, f->tcb, FIXTURE_MSS, 0));
        tcp_recovery_on_sent(f->stack, f->tcb);
        f->sent_count++;
        fixture_emit(f, f->tcb->sent.count - 1);
    }
    tcp_recovery_verify(f->tcb);
}

void fixture_output(struct recovery_fixture *f)
{
    f->resent_count = f->sent_count = 0;
    while (tcp_recovery_allowance(f->stack, f->tcb) >= FIXTURE_MSS) {
        uint32_t index = tcp_recovery_next_lost(f->tcb);

        if (index != UINT32_MAX)
            tcp_retransmit(f->stack, f->tcb, index);
        else if (fixture_unsent(f) > 0 || f->is_endless)
            fixture_send(f, 1);
        else
            break;
    }
    tcp_recovery_verify(f->tcb);
}

struct tcp_ack fixture_ack(struct recovery_fixture *f, uint32_t acknowledged, uint32_t count,
                           const uint32_t blocks[][2])
{
    struct segment segment = {
        .header = {.acknowledgement = fixture_sequence(acknowledged)},
        .flags = (uint8_t)(TCP_ACK | (f->is_ece ? TCP_ECE : 0)),
        .window = f->window,
    };
    struct tcp_options *options = &segment.header.options;
    struct tcp_ack ack;

    options->has_timestamps = f->tcb->flags & TCB_HAS_TIMESTAMPS;
    options->timestamp_echo = f->timestamp_echo;
    options->sack_count = (uint8_t)count;
    for (uint32_t i = 0; i < count; i++) {
        options->sack[i] =
            (struct tcp_sack_block){fixture_sequence(blocks[i][0]), fixture_sequence(blocks[i][1])};
    }
    tcp_recovery_digest(f->stack, f->tcb, &segment, &ack);
    tcp_recovery_verify(f->tcb);
    if (ack.is_advance)
        tcp_sent_drop(f->stack, f->tcb, ack.acknowledgement);
    f->tcb->snd_wnd = f->window;
    tcp_recovery_ack(f->stack, f->tcb, &ack);
    tcp_recovery_verify(f->tcb);
    assert_true(f->tcb->congestion.cwnd >= FIXTURE_MSS);
    return ack;
}

struct tcp_ack fixture_ack_plain(struct recovery_fixture *f, uint32_t acknowledged)
{
    return fixture_ack(f, acknowledged, 0, NULL);
}

const char *fixture_flags(const struct recovery_fixture *f)
{
    static char text[256];
    uint32_t count = f->tcb->sent.count;

    assert_true(count < sizeof(text));
    for (uint32_t i = 0; i < count; i++) {
        uint8_t flags = tcp_sent_at(&f->tcb->sent, i)->flags;
        bool is_again = flags & TCP_SENT_RETRANSMITTED, is_lost = flags & TCP_SENT_LOST;

        text[i] = flags & TCP_SENT_SACKED ? 'S'
                  : is_lost               ? (is_again ? 'l' : 'L')
                  : is_again              ? 'R'
                                          : '.';
    }
    text[count] = 0;
    return text;
}

/* ---- what the rest of the engine does ---- */

bool tcp_retransmit(struct stack *stack, struct tcb *tcb, uint32_t index)
{
    const struct tcp_sent *sent = tcp_sent_at(&tcb->sent, index);

    assert_non_null(current);
    if (current->resent_count < COUNT_OF(current->resent))
        current->resent[current->resent_count] =
            (sent->sequence - fixture_sequence(0)) / FIXTURE_MSS;
    current->resent_count++;
    fixture_emit(current, index);
    tcp_recovery_on_resent(stack, tcb, index);
    return true;
}

void tcb_output_later(struct stack *stack, struct tcb *tcb)
{
    (void)stack;
    (void)tcb;
}
