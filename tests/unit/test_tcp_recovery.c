/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loss recovery, told as lists of steps: what is sent, what is acknowledged and SACKed, which timer
 * fires, and what must then be marked, sent again, and allowed. Segments are numbered from 0.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/recovery_fixture.h"

enum step_kind {
    STEP_END,
    STEP_FLAG,       /* set (or clear) flags of the tcb */
    STEP_SEND,       /* segments, whatever the window says */
    STEP_OWNER,      /* gives so many segments more */
    STEP_OUTPUT,     /* what may go, goes */
    STEP_WAIT,       /* ms */
    STEP_ACK,        /* up to a segment, with blocks */
    STEP_ECE,        /* the same with ECE */
    STEP_ECHO,       /* timestamp of the next ACKs: of so many ms ago */
    STEP_RTO,        /* the timer fires */
    STEP_REORDER,    /* waits for the reordering timer; value: must be that many us from now */
    STEP_PROBE,      /* waits for the probe time-out */
    STEP_IS_MARKED,  /* flags of what is in flight, as text */
    STEP_HAS_RESENT, /* segments sent again by the last output */
    STEP_HAS_SENT,   /* how many new ones */
    STEP_CWND,       /* segments */
    STEP_SSTHRESH,
    STEP_HAS_FLAG,
    STEP_HAS_NOT_FLAG,
};

struct step {
    enum step_kind kind;
    uint32_t value;
    uint32_t blocks[4][2]; /* ends at the first that is empty */
    const char *text;
};

#define FLAG(flags)                                                                                \
    {                                                                                              \
        STEP_FLAG, flags, {{0}}, NULL                                                              \
    }
#define SEND(count)                                                                                \
    {                                                                                              \
        STEP_SEND, count, {{0}}, NULL                                                              \
    }
#define OWNER(count)                                                                               \
    {                                                                                              \
        STEP_OWNER, count, {{0}}, NULL                                                             \
    }
#define OUTPUT                                                                                     \
    {                                                                                              \
        STEP_OUTPUT, 0, {{0}}, NULL                                                                \
    }
#define WAIT(ms)                                                                                   \
    {                                                                                              \
        STEP_WAIT, ms, {{0}}, NULL                                                                 \
    }
#define ACK(segment)                                                                               \
    {                                                                                              \
        STEP_ACK, segment, {{0}}, NULL                                                             \
    }
#define SACK(segment, ...)                                                                         \
    {                                                                                              \
        STEP_ACK, segment, {__VA_ARGS__}, NULL                                                     \
    }
#define ECE(segment)                                                                               \
    {                                                                                              \
        STEP_ECE, segment, {{0}}, NULL                                                             \
    }
#define ECHO(ms)                                                                                   \
    {                                                                                              \
        STEP_ECHO, ms, {{0}}, NULL                                                                 \
    }
#define RTO                                                                                        \
    {                                                                                              \
        STEP_RTO, 0, {{0}}, NULL                                                                   \
    }
#define REORDER(us)                                                                                \
    {                                                                                              \
        STEP_REORDER, us, {{0}}, NULL                                                              \
    }
#define PROBE(us)                                                                                  \
    {                                                                                              \
        STEP_PROBE, us, {{0}}, NULL                                                                \
    }
#define IS_MARKED(flags)                                                                           \
    {                                                                                              \
        STEP_IS_MARKED, 0, {{0}}, flags                                                            \
    }
#define HAS_RESENT(list)                                                                           \
    {                                                                                              \
        STEP_HAS_RESENT, 0, {{0}}, list                                                            \
    }
#define HAS_SENT(count)                                                                            \
    {                                                                                              \
        STEP_HAS_SENT, count, {{0}}, NULL                                                          \
    }
#define CWND(segments)                                                                             \
    {                                                                                              \
        STEP_CWND, segments, {{0}}, NULL                                                           \
    }
#define SSTHRESH(segments)                                                                         \
    {                                                                                              \
        STEP_SSTHRESH, segments, {{0}}, NULL                                                       \
    }
#define HAS_FLAG(flags)                                                                            \
    {                                                                                              \
        STEP_HAS_FLAG, flags, {{0}}, NULL                                                          \
    }
#define HAS_NOT(flags)                                                                             \
    {                                                                                              \
        STEP_HAS_NOT_FLAG, flags, {{0}}, NULL                                                      \
    }

static void expect_text(const char *expected, const char *seen)
{
    assert_string_equal(expected, seen);
}

static const char *resent_text(const struct recovery_fixture *f)
{
    static char text[256];
    size_t size = 0;

    text[0] = 0;
    for (uint32_t i = 0; i < f->resent_count && i < COUNT_OF(f->resent); i++)
        size += (size_t)snprintf(text + size, sizeof(text) - size, "%s%u", i > 0 ? " " : "",
                                 f->resent[i]);
    return text;
}

static void step_timer(struct recovery_fixture *f, const struct step *step)
{
    bool is_probe = step->kind == STEP_PROBE;
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

static void step_do(struct recovery_fixture *f, const struct step *step)
{
    uint32_t count = 0;

    while (count < 4 && step->blocks[count][0] < step->blocks[count][1])
        count++;
    switch (step->kind) {
    case STEP_FLAG:
        f->tcb->flags ^= step->value;
        break;
    case STEP_SEND:
        fixture_send(f, step->value);
        break;
    case STEP_OWNER:
        fixture_owner(f, step->value);
        break;
    case STEP_OUTPUT:
        fixture_output(f);
        break;
    case STEP_WAIT:
        fixture_advance(f, TICK_MS(step->value));
        break;
    case STEP_ECE:
        f->is_ece = true;
        fixture_ack_plain(f, step->value);
        f->is_ece = false;
        break;
    case STEP_ACK:
        fixture_ack(f, step->value, count, step->blocks);
        break;
    case STEP_ECHO:
        f->timestamp_echo = tcp_timestamp_now(f->stack, f->tcb->ts_offset) - step->value;
        break;
    case STEP_RTO:
        f->stack->now = tcp_recovery_rto_at(f->stack, f->tcb);
        tcp_recovery_on_rto(f->stack, f->tcb);
        break;
    default:
        step_timer(f, step);
    }
    tcp_recovery_verify(f->tcb);
}

static void step_expect(struct recovery_fixture *f, const struct step *step)
{
    switch (step->kind) {
    case STEP_IS_MARKED:
        expect_text(step->text, fixture_flags(f));
        break;
    case STEP_HAS_RESENT:
        expect_text(step->text, resent_text(f));
        break;
    case STEP_HAS_SENT:
        assert_int_equal(step->value, f->sent_count);
        break;
    case STEP_CWND:
        assert_int_equal(step->value * FIXTURE_MSS, f->tcb->congestion.cwnd);
        break;
    case STEP_SSTHRESH:
        assert_int_equal(step->value * FIXTURE_MSS, f->tcb->congestion.ssthresh);
        break;
    case STEP_HAS_FLAG:
        assert_int_equal(step->value, f->tcb->flags & step->value);
        break;
    default:
        assert_int_equal(0, f->tcb->flags & step->value);
    }
}

struct scenario {
    const char *name;
    uint32_t cwnd; /* segments, in congestion avoidance */
    struct step steps[48];
};

/* A smoothed RTT of 100 ms and nothing in flight. */
static void run(const struct scenario *scenario)
{
    struct recovery_fixture f;

    print_message("# %s\n", scenario->name);
    fixture_open(&f, scenario->cwnd);
    tcp_rtt_sample(&f.tcb->rtt, &f.stack->options.tcp, 100000);
    for (const struct step *step = scenario->steps; step->kind != STEP_END; step++) {
        f.step = (uint32_t)(step - scenario->steps);
        if (step->kind < STEP_IS_MARKED)
            step_do(&f, step);
        else
            step_expect(&f, step);
    }
    fixture_close(&f);
}

static void run_all(const struct scenario *scenarios, size_t count)
{
    for (size_t i = 0; i < count; i++)
        run(&scenarios[i]);
}

static void test_sack(void **state)
{
    static const struct scenario scenarios[] = {
        {"RFC 6675: one lost, three SACKed above it",
         10,
         {SEND(10), WAIT(100), SACK(0, {1, 2}), IS_MARKED(".S........"), SACK(0, {1, 3}),
          IS_MARKED(".SS......."), HAS_NOT(TCB_IN_RECOVERY), SACK(0, {1, 4}),
          IS_MARKED("LSSS......"), HAS_FLAG(TCB_IN_RECOVERY), SSTHRESH(7), OUTPUT, HAS_RESENT("0"),
          IS_MARKED("RSSS......"), SACK(0, {1, 10}), WAIT(100), ACK(10), HAS_NOT(TCB_IN_RECOVERY),
          CWND(7)}},
        /* The slow-start bound of PRR lets two go for each delivered. */
        {"RFC 2018 case 2: the first four of eight are lost",
         8,
         {SEND(8), WAIT(100), SACK(0, {4, 5}), SACK(0, {4, 6}), SACK(0, {4, 7}),
          IS_MARKED("LLLLSSS."), OUTPUT, HAS_RESENT("0 1"), SACK(0, {4, 8}), OUTPUT,
          HAS_RESENT("2 3"), IS_MARKED("RRRRSSSS"), WAIT(100), SACK(1, {4, 8}), SACK(2, {4, 8}),
          ACK(8), HAS_NOT(TCB_IN_RECOVERY)}},
        {"RFC 2018 case 3: every other segment is lost",
         8,
         {SEND(8),
          WAIT(100),
          SACK(1),
          SACK(1, {2, 3}),
          SACK(1, {4, 5}, {2, 3}),
          IS_MARKED(".S.S..."),
          SACK(1, {6, 7}, {4, 5}, {2, 3}),
          IS_MARKED("LSLSLS."),
          HAS_FLAG(TCB_IN_RECOVERY),
          OUTPUT,
          HAS_RESENT("1 3"),
          WAIT(100),
          SACK(3, {6, 7}, {4, 5}),
          IS_MARKED("RSLSL"),
          OUTPUT,
          HAS_RESENT("5 7"),
          SACK(5, {6, 7}),
          ACK(7),
          IS_MARKED("R"),
          ACK(8),
          HAS_NOT(TCB_IN_RECOVERY)}},
        {"a block that covers part of a segment, or nothing that is in flight, marks nothing",
         8,
         {SEND(8), WAIT(100), SACK(2, {2, 9}), IS_MARKED("......"), SACK(2, {9, 12}),
          IS_MARKED("......"), SACK(2, {0, 1}), IS_MARKED("......"), SACK(2, {0, 4}),
          IS_MARKED("SS....")}},
    };

    (void)state;
    run_all(scenarios, COUNT_OF(scenarios));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sack),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
