/* SPDX-License-Identifier: Apache-2.0 */
/* Loss recovery: the examples of RFC 2018 and 6675, peers without SACK, time-outs, ECN. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/recovery_script.h"

static void test_sack(void **state)
{
    static const struct script scripts[] = {
        {"RFC 6675: one lost, three SACKed above it",
         10,
         false,
         {SEND(10), WAIT(100), SACK(0, {1, 2}), IS_MARKED(".S........"), SACK(0, {1, 3}),
          IS_MARKED(".SS......."), HAS_NOT(TCB_IN_RECOVERY), SACK(0, {1, 4}),
          IS_MARKED("LSSS......"), HAS_FLAG(TCB_IN_RECOVERY), SSTHRESH(7), OUTPUT, HAS_RESENT("0"),
          IS_MARKED("RSSS......"), SACK(0, {1, 10}), WAIT(100), ACK(10), HAS_NOT(TCB_IN_RECOVERY),
          CWND(7)}},
        /* The slow-start bound of PRR lets two go for each delivered. */
        {"RFC 2018 case 2: the first four of eight are lost",
         8,
         false,
         {SEND(8), WAIT(100), SACK(0, {4, 5}), SACK(0, {4, 6}), SACK(0, {4, 7}),
          IS_MARKED("LLLLSSS."), OUTPUT, HAS_RESENT("0 1"), SACK(0, {4, 8}), OUTPUT,
          HAS_RESENT("2 3"), IS_MARKED("RRRRSSSS"), WAIT(100), SACK(1, {4, 8}), SACK(2, {4, 8}),
          ACK(8), HAS_NOT(TCB_IN_RECOVERY)}},
        /* A retransmission comes back: what was sent before it and is not here is lost (RACK). */
        {"RFC 2018 case 3: every other segment is lost",
         8,
         false,
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
        {"a block for nothing that is in flight marks nothing",
         8,
         false,
         {SEND(8), WAIT(100), SACK(2, {2, 9}), IS_MARKED("......"), SACK(2, {9, 12}),
          IS_MARKED("......"), SACK(2, {0, 1}), IS_MARKED("......"), SACK(2, {0, 4}),
          IS_MARKED("SS....")}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* RFC 5681, 3042 and 6582: what can be done without SACK. */
static void test_without_sack(void **state)
{
    static const struct script scripts[] = {
        {"two duplicate ACKs let two new segments out, the third sends the first again",
         10,
         false,
         {FLAG(TCB_HAS_SACK), OWNER(20), OUTPUT, HAS_SENT(10), WAIT(100), ACK(0), OUTPUT,
          HAS_SENT(1), ACK(0), OUTPUT, HAS_SENT(1), IS_MARKED("............"), ACK(0),
          HAS_FLAG(TCB_IN_RECOVERY), IS_MARKED("L..........."), SSTHRESH(7), OUTPUT,
          HAS_RESENT("0")}},
        {"a partial ACK sends the next hole again, a full one ends it",
         10,
         false,
         {FLAG(TCB_HAS_SACK),
          SEND(10),
          WAIT(100),
          ACK(0),
          ACK(0),
          ACK(0),
          OUTPUT,
          HAS_RESENT("0"),
          ACK(0),
          ACK(0),
          WAIT(100),
          ACK(4),
          IS_MARKED("L....."),
          OUTPUT,
          HAS_RESENT("4"),
          HAS_FLAG(TCB_IN_RECOVERY),
          WAIT(100),
          ACK(10),
          HAS_NOT(TCB_IN_RECOVERY),
          CWND(2)}},
        {"a partial ACK sends, whatever the pipe is thought to be: no more ACKs may come",
         20,
         false,
         {FLAG(TCB_HAS_SACK), OWNER(40), OUTPUT, WAIT(100), ACK(0), ACK(0), ACK(0), OUTPUT,
          HAS_RESENT("0"), WAIT(100), ACK(2), OUTPUT, HAS_RESENT("2"), HAS_SENT(0), WAIT(100),
          ACK(3), OUTPUT, HAS_RESENT("3")}},
        {"duplicate ACKs let new segments out in recovery, 0.7 for each",
         20,
         false,
         {FLAG(TCB_HAS_SACK),
          OWNER(40),
          OUTPUT,
          HAS_SENT(20),
          WAIT(100),
          ACK(0),
          ACK(0),
          ACK(0),
          OUTPUT,
          HAS_RESENT("0"),
          SSTHRESH(14),
          ACK(0),
          OUTPUT,
          HAS_SENT(0),
          ACK(0),
          OUTPUT,
          HAS_SENT(1),
          ACK(0),
          OUTPUT,
          HAS_SENT(0),
          ACK(0),
          OUTPUT,
          HAS_SENT(0),
          ACK(0),
          OUTPUT,
          HAS_SENT(1),
          ACK(0),
          OUTPUT,
          HAS_SENT(1)}},
        {"a changed window is no duplicate ACK",
         10,
         false,
         {FLAG(TCB_HAS_SACK), SEND(10), WINDOW(100), ACK(0), WINDOW(101), ACK(0), WINDOW(102),
          ACK(0), ACK(0), ACK(0), HAS_NOT(TCB_IN_RECOVERY), ACK(0), HAS_FLAG(TCB_IN_RECOVERY)}},
        {"duplicates of what the RTO sent needlessly start nothing",
         10,
         false,
         {FLAG(TCB_HAS_SACK), SEND(10), RTO, OUTPUT, HAS_RESENT("0"), WAIT(100), ACK(5), OUTPUT,
          HAS_RESENT("5 6"), WAIT(100), ACK(10), HAS_NOT(TCB_IN_LOSS), SEND(4), ACK(10), ACK(10),
          ACK(10), ACK(10), HAS_NOT(TCB_IN_RECOVERY), IS_MARKED("....")}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* RFC 6298 section 5, RFC 5681, RFC 8985 6.3. */
static void test_time_out(void **state)
{
    static const struct script scripts[] = {
        {"everything is lost, one segment goes, then slow start to 0.7 of the window",
         10,
         false,
         {SEND(10),
          RTO,
          IS_MARKED("LLLLLLLLLL"),
          CWND(1),
          SSTHRESH(7),
          HAS_FLAG(TCB_IN_LOSS),
          OUTPUT,
          HAS_RESENT("0"),
          WAIT(100),
          ACK(1),
          CWND(2),
          OUTPUT,
          HAS_RESENT("1 2"),
          WAIT(100),
          ACK(2),
          ACK(3),
          CWND(4),
          OUTPUT,
          HAS_RESENT("3 4 5 6"),
          WAIT(100),
          ACK(7),
          CWND(5),
          OUTPUT,
          HAS_RESENT("7 8 9"),
          ACK(10),
          HAS_NOT(TCB_IN_LOSS)}},
        {"ssthresh is set once, however often the timer fires",
         20,
         false,
         {SEND(10), RTO, OUTPUT, RTO, OUTPUT, HAS_RESENT("0"), CWND(1), SSTHRESH(14), RTO, OUTPUT,
          HAS_RESENT("0"), SSTHRESH(14), WAIT(100), ACK(1), OUTPUT, HAS_RESENT("1 2"), RTO,
          SSTHRESH(14)}},
        {"what was SACKed stays, what was sent within the last round trip may still come",
         20,
         false,
         {SEND(2), WAIT(50), SEND(3), WAIT(50), SACK(0, {1, 2}), WAIT(190), SEND(2), RTO,
          IS_MARKED("LSLLL..")}},
        {"the peer dropped what it had SACKed",
         20,
         false,
         {SEND(6), WAIT(100), SACK(0, {3, 5}), ACK(3), IS_MARKED("SS."), RTO, IS_MARKED("LLL"),
          OUTPUT, HAS_RESENT("3"), ACK(6), HAS_NOT(TCB_IN_LOSS)}},
        {"in recovery: the window was reduced already",
         20,
         false,
         {SEND(20), WAIT(100), SACK(0, {1, 4}), OUTPUT, HAS_RESENT("0"), SSTHRESH(14), RTO,
          HAS_NOT(TCB_IN_RECOVERY), SSTHRESH(14), OUTPUT, HAS_RESENT("0"), CWND(1), WAIT(100),
          ACK(20), HAS_NOT(TCB_IN_LOSS)}},
        {"progress starts the timer anew",
         20,
         false,
         {SEND(10), RTO_IN(300000), WAIT(100), ACK(5), RTO_IN(300000), WAIT(150), RTO_IN(150000),
          SEND(1), RTO_IN(150000), ACK(11), NO_RTO, SEND(1), RTO_IN(381250)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* RFC 3168 6.1.2. */
static void test_ecn(void **state)
{
    static const struct script scripts[] = {
        {"once per window",
         20,
         false,
         {FLAG(TCB_HAS_ECN), SEND(20), WAIT(100), ECE(2), HAS_FLAG(TCB_IN_RECOVERY | TCB_CWR_SEND),
          SSTHRESH(14), FLAG(TCB_CWR_SEND), SEND(1), ECE(4), ECE(10), ECE(20),
          HAS_NOT(TCB_IN_RECOVERY | TCB_CWR_SEND), SSTHRESH(14), CWND(14), SEND(10), ECE(25),
          HAS_FLAG(TCB_IN_RECOVERY | TCB_CWR_SEND)}},
        {"not when it was not negotiated", 20, false, {SEND(20), ECE(2), HAS_NOT(TCB_IN_RECOVERY)}},
        {"a loss in the same window costs nothing more",
         20,
         false,
         {FLAG(TCB_HAS_ECN), SEND(20), WAIT(100), ECE(2), SSTHRESH(14), SACK(2, {3, 6}),
          IS_MARKED("LSSS.............."), SSTHRESH(14), OUTPUT, HAS_RESENT("2")}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* RFC 6937 section 6: the window comes down to ssthresh within the round trip, evenly. */
static void test_prr(void **state)
{
    static const struct script scripts[] = {
        {"one of twenty is lost: about one goes for two that arrive",
         20,
         true,
         {OWNER(40),        OUTPUT,          HAS_SENT(20),    WAIT(100),        SACK(0, {1, 2}),
          OUTPUT,           HAS_SENT(1),     SACK(0, {1, 3}), OUTPUT,           HAS_SENT(1),
          SACK(0, {1, 4}),  SSTHRESH(10),    OUTPUT,          HAS_RESENT("0"),  HAS_SENT(0),
          SACK(0, {1, 5}),  OUTPUT,          HAS_SENT(0),     SACK(0, {1, 6}),  OUTPUT,
          HAS_SENT(0),      SACK(0, {1, 7}), OUTPUT,          HAS_SENT(0),      SACK(0, {1, 8}),
          OUTPUT,           HAS_SENT(1),     SACK(0, {1, 9}), OUTPUT,           HAS_SENT(0),
          SACK(0, {1, 10}), OUTPUT,          HAS_SENT(1),     SACK(0, {1, 20}), OUTPUT,
          HAS_SENT(5),      WAIT(100),       ACK(22),         CWND(10)}},
        {"fifteen of twenty are lost: two go for one that arrives, up to ssthresh",
         20,
         true,
         {OWNER(40),
          OUTPUT,
          HAS_SENT(20),
          WAIT(100),
          SACK(0, {15, 16}),
          OUTPUT,
          HAS_SENT(1),
          SACK(0, {15, 17}),
          OUTPUT,
          HAS_SENT(1),
          SACK(0, {15, 18}),
          SSTHRESH(10),
          OUTPUT,
          HAS_RESENT("0 1"),
          SACK(0, {15, 19}),
          OUTPUT,
          HAS_RESENT("2 3"),
          SACK(0, {15, 20}),
          OUTPUT,
          HAS_RESENT("4 5"),
          SACK(0, {15, 21}),
          OUTPUT,
          HAS_RESENT("6 7"),
          SACK(0, {15, 22}),
          OUTPUT,
          HAS_RESENT("8 9"),
          WAIT(100),
          SACK(1, {15, 22}),
          OUTPUT,
          HAS_RESENT("10"),
          HAS_SENT(0)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* Descriptors cut in two while they wait to be sent again, and an ACK that ends within one. */
static void test_cut_in_two(void **state)
{
    struct recovery_fixture f;
    uint32_t count = 0, index;

    (void)state;
    fixture_open(&f, 20);
    tcp_rtt_sample(&f.tcb->rtt, &f.stack->options.tcp, 100000);
    fixture_send(&f, 10);
    fixture_advance(&f, TICK_MS(100));
    fixture_ack(&f, 0, 1, (const uint32_t[][2]){{4, 8}});
    assert_string_equal("LLLLSSSS..", fixture_flags(&f));
    /* What was sent again is cut, too: its second half has no entry of its own. */
    tcp_retransmit(f.stack, f.tcb, tcp_recovery_next_lost(f.tcb));
    assert_int_equal(ERR_OK, tcp_sent_split(f.stack, f.tcb, 3, 500));
    assert_int_equal(ERR_OK, tcp_sent_split(f.stack, f.tcb, 1, 500));
    assert_int_equal(ERR_OK, tcp_sent_split(f.stack, f.tcb, 0, 500));
    tcp_recovery_verify(f.tcb);
    assert_string_equal("RRLLLLLSSSS..", fixture_flags(&f));
    while ((index = tcp_recovery_next_lost(f.tcb)) != UINT32_MAX) {
        assert_int_equal(2 + count++, index);
        tcp_recovery_on_resent(f.stack, f.tcb, index);
    }
    assert_int_equal(5, count);
    assert_int_equal(0, f.tcb->lost);
    /* All of it is lost again, and what is found is all of it. */
    f.tcb->flags &= ~(uint32_t)TCB_IN_RECOVERY;
    tcp_recovery_on_rto(f.stack, f.tcb);
    assert_string_equal("lRRRRRRSSSSLL", fixture_flags(&f));
    f.stack->now = tcp_recovery_rto_at(f.stack, f.tcb);
    tcp_recovery_on_rto(f.stack, f.tcb);
    assert_string_equal("lllllllSSSSLL", fixture_flags(&f));
    for (count = 0; (index = tcp_recovery_next_lost(f.tcb)) != UINT32_MAX; count++)
        tcp_recovery_on_resent(f.stack, f.tcb, index);
    assert_int_equal(9, count);
    tcp_sent_drop(f.stack, f.tcb, fixture_sequence(0) + 700);
    tcp_recovery_verify(f.tcb);
    assert_int_equal(0, tcp_recovery_next_lost(f.tcb) != UINT32_MAX);
    fixture_close(&f);
}

/* RFC 1191 6.4: too long for the path is no congestion. */
static void test_too_long(void **state)
{
    struct recovery_fixture f;

    (void)state;
    fixture_open(&f, 20);
    fixture_send(&f, 6);
    tcp_recovery_lose_longer(f.tcb, FIXTURE_MSS);
    assert_string_equal("......", fixture_flags(&f));
    tcp_recovery_lose_longer(f.tcb, FIXTURE_MSS - 1);
    assert_string_equal("LLLLLL", fixture_flags(&f));
    fixture_output(&f);
    assert_string_equal("RRRRRR", fixture_flags(&f));
    fixture_ack_plain(&f, 6);
    assert_int_equal(20 * FIXTURE_MSS, f.tcb->congestion.cwnd);
    assert_int_equal(0, f.tcb->flags & (TCB_IN_RECOVERY | TCB_IN_LOSS));
    fixture_close(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sack),     cmocka_unit_test(test_without_sack),
        cmocka_unit_test(test_time_out), cmocka_unit_test(test_ecn),
        cmocka_unit_test(test_prr),      cmocka_unit_test(test_cut_in_two),
        cmocka_unit_test(test_too_long),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
