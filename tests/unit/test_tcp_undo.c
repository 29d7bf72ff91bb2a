/* SPDX-License-Identifier: Apache-2.0 */
/* Losses that were none: RFC 3522 (Eifel), 3708 (DSACK), 5682 (F-RTO). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/recovery_script.h"

static void test_timestamps(void **state)
{
    static const struct script scripts[] = {
        {"the ACK echoes a time from before the retransmission",
         20,
         false,
         {FLAG(TCB_HAS_TIMESTAMPS), SEND(20), ECHO(0), WAIT(100), SACK(0, {1, 4}), OUTPUT,
          HAS_RESENT("0"), HAS_FLAG(TCB_IN_RECOVERY), ACK(4), HAS_NOT(TCB_IN_RECOVERY), CWND(20)}},
        {"it echoes that of the retransmission",
         20,
         false,
         {FLAG(TCB_HAS_TIMESTAMPS), SEND(20), ECHO(0), WAIT(100), SACK(0, {1, 4}), OUTPUT,
          HAS_RESENT("0"), ECHO(0), WAIT(100), ACK(4), HAS_FLAG(TCB_IN_RECOVERY)}},
        {"an RTO that was too early",
         20,
         false,
         {FLAG(TCB_HAS_TIMESTAMPS), SEND(10), ECHO(0), RTO, OUTPUT, HAS_RESENT("0"), CWND(1),
          WAIT(50), ACK(1), HAS_NOT(TCB_IN_LOSS), CWND(20), IS_MARKED(".........")}},
        {"a second one in the same window",
         20,
         false,
         {FLAG(TCB_HAS_TIMESTAMPS), SEND(20), ECHO(0), WAIT(100), SACK(0, {1, 4}), OUTPUT,
          HAS_RESENT("0"), ACK(4), HAS_NOT(TCB_IN_RECOVERY), CWND(20), SACK(4, {5, 9}),
          REORDER(50000), HAS_FLAG(TCB_IN_RECOVERY), OUTPUT, HAS_RESENT("4"), ACK(9),
          HAS_NOT(TCB_IN_RECOVERY), CWND(20)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

static void test_dsack(void **state)
{
    static const struct script scripts[] = {
        {"every retransmission was received twice",
         20,
         false,
         {SEND(20), WAIT(100), SACK(0, {2, 5}), IS_MARKED("LLSSS..............."), OUTPUT,
          HAS_RESENT("0 1"), ACK(5), HAS_FLAG(TCB_IN_RECOVERY), SACK(5, {0, 1}),
          HAS_FLAG(TCB_IN_RECOVERY), SACK(5, {1, 2}), HAS_NOT(TCB_IN_RECOVERY), CWND(20)}},
        {"the second DSACK comes after the end of recovery",
         20,
         false,
         {SEND(10), WAIT(100), SACK(0, {2, 5}), OUTPUT, HAS_RESENT("0 1"), ACK(5), SEND(2),
          SACK(10, {0, 1}), HAS_NOT(TCB_IN_RECOVERY), CWND(14), SACK(10, {1, 2}), CWND(20)}},
        {"one DSACK for two in a row",
         20,
         false,
         {SEND(20), WAIT(100), SACK(0, {2, 5}), OUTPUT, HAS_RESENT("0 1"), SACK(5, {0, 2}),
          HAS_NOT(TCB_IN_RECOVERY), CWND(20)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

static void test_f_rto(void **state)
{
    static const struct script scripts[] = {
        {"two new segments show that the flight still comes in",
         20,
         false,
         {SEND(10), OWNER(10), RTO, OUTPUT, HAS_RESENT("0"), HAS_SENT(0), ACK(1), OUTPUT,
          HAS_RESENT(""), HAS_SENT(2), ACK(2), HAS_NOT(TCB_IN_LOSS), CWND(20),
          IS_MARKED("..........")}},
        {"without SACK",
         20,
         false,
         {FLAG(TCB_HAS_SACK), SEND(10), OWNER(10), RTO, OUTPUT, HAS_RESENT("0"), ACK(1), OUTPUT,
          HAS_RESENT(""), HAS_SENT(2), ACK(2), HAS_NOT(TCB_IN_LOSS), CWND(20)}},
        {"the first ACK jumps over everything without SACK: no proof",
         20,
         false,
         {FLAG(TCB_HAS_SACK), SEND(10), OWNER(10), RTO, OUTPUT, HAS_RESENT("0"), ACK(9),
          HAS_FLAG(TCB_IN_LOSS), CWND(2)}},
        {"a duplicate ACK for a new segment: the losses are real",
         20,
         false,
         {SEND(10), OWNER(10), RTO, OUTPUT, ACK(1), OUTPUT, HAS_SENT(2), SACK(1, {10, 11}),
          HAS_FLAG(TCB_IN_LOSS), OUTPUT, HAS_RESENT("1")}},
        {"nothing new to send: no test",
         20,
         false,
         {SEND(10), RTO, OUTPUT, ACK(1), OUTPUT, HAS_RESENT("1 2")}},
        {"others had been SACKed before: no test",
         20,
         false,
         {SEND(10), OWNER(10), WAIT(100), SACK(0, {1, 2}), RTO, OUTPUT, SACK(0, {1, 3}),
          HAS_FLAG(TCB_IN_LOSS)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_dsack),
        cmocka_unit_test(test_f_rto),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
