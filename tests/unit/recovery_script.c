/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/recovery_script.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static const char *resent_text(const struct recovery_fixture *f)
{
    static char text[512];
    size_t size = 0;

    text[0] = 0;
    for (uint32_t i = 0; i < f->resent_count && i < COUNT_OF(f->resent); i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%u", i > 0 ? " " : "",
                                 f->resent[i]);
    return text;
}

static void step_timer(struct recovery_fixture *f, const struct script_step *step)
{
    bool is_probe = step->kind == SCRIPT_PROBE;
    tick_us at = is_probe ? tcp_recovery_tlp_at(f->stack, f->tcb)
                          : tcp_recovery_reorder_at(f->stack, f->tcb);

    assert_true(at != TICK_NEVER);
    assert_int_equal(step->value, at - f->stack->now);
    f->stack->now = at;
    f->resent_count = 0;
    if (is_probe)
        tcp_recovery_on_tlp_timer(f->stack, f->tcb);
    else
        tcp_recovery_on_reorder_timer(f->stack, f->tcb);
}

static void step_ack(struct recovery_fixture *f, const struct script_step *step)
{
    uint32_t count = 0;

    while (count < 4 && step->blocks[count][0] < step->blocks[count][1])
        count++;
    f->is_ece = step->kind == SCRIPT_ECE;
    fixture_ack(f, step->value, count, step->blocks);
}

static void step_do(struct recovery_fixture *f, const struct script_step *step)
{
    switch (step->kind) {
    case SCRIPT_FLAG:
        f->tcb->flags ^= step->value;
        break;
    case SCRIPT_SEND:
        fixture_send(f, step->value);
        break;
    case SCRIPT_OWNER:
        fixture_owner(f, step->value);
        break;
    case SCRIPT_OUTPUT:
        fixture_output(f);
        break;
    case SCRIPT_WAIT:
        fixture_advance(f, TICK_MS(step->value));
        break;
    case SCRIPT_ACK:
    case SCRIPT_ECE:
        step_ack(f, step);
        break;
    case SCRIPT_ECHO:
        f->timestamp_echo = tcp_timestamp_now(f->stack, f->tcb->ts_offset) - step->value;
        break;
    case SCRIPT_WINDOW:
        f->window = step->value * FIXTURE_MSS;
        break;
    case SCRIPT_RTO:
        f->stack->now = tcp_recovery_rto_at(f->stack, f->tcb);
        tcp_recovery_on_rto(f->stack, f->tcb);
        break;
    default:
        step_timer(f, step);
    }
    tcp_recovery_verify(f->tcb);
}

static void step_expect(struct recovery_fixture *f, const struct script_step *step)
{
    const struct tcb *tcb = f->tcb;

    switch (step->kind) {
    case SCRIPT_IS_MARKED:
        assert_string_equal(step->text, fixture_flags(f));
        break;
    case SCRIPT_HAS_RESENT:
        assert_string_equal(step->text, resent_text(f));
        break;
    case SCRIPT_HAS_SENT:
        assert_int_equal(step->value, f->sent_count);
        break;
    case SCRIPT_CWND:
        assert_int_equal(step->value * FIXTURE_MSS, tcb->congestion.cwnd);
        break;
    case SCRIPT_SSTHRESH:
        assert_int_equal(step->value * FIXTURE_MSS, tcb->congestion.ssthresh);
        break;
    case SCRIPT_RTO_IN:
        assert_int_equal(step->value, tcp_recovery_rto_at(f->stack, tcb) - f->stack->now);
        break;
    case SCRIPT_NO_TIMER:
        assert_true((step->value ? tcp_recovery_tlp_at(f->stack, tcb)
                                 : tcp_recovery_rto_at(f->stack, tcb)) == TICK_NEVER);
        break;
    case SCRIPT_HAS_FLAG:
        assert_int_equal(step->value, tcb->flags & step->value);
        break;
    default:
        assert_int_equal(0, tcb->flags & step->value);
    }
}

void script_run(const struct script *script)
{
    struct recovery_fixture f;

    print_message("# %s\n", script->name);
    fixture_open(&f, script->cwnd);
    f.stack->options.tcp.is_newreno = script->is_newreno;
    tcp_rtt_sample(&f.tcb->rtt, &f.stack->options.tcp, 100000);
    for (const struct script_step *step = script->steps; step->kind != SCRIPT_END; step++) {
        f.step = (uint32_t)(step - script->steps);
        if (step->kind < SCRIPT_IS_MARKED)
            step_do(&f, step);
        else
            step_expect(&f, step);
    }
    fixture_close(&f);
}

void script_run_all(const struct script *scripts, size_t count)
{
    for (size_t i = 0; i < count; i++)
        script_run(&scripts[i]);
}
