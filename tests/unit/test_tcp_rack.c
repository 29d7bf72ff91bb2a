/* SPDX-License-Identifier: Apache-2.0 */
/* RACK and the tail loss probe, RFC 8985. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "tests/unit/recovery_script.h"

/* Section 6. */
static void test_rack(void **state)
{
    static const struct script scripts[] = {
        {"one SACKed above: a quarter of the RTT is waited for the segment below",
         10,
         false,
         {SEND(3), WAIT(100), SACK(0, {1, 2}), IS_MARKED(".S."), HAS_NOT(TCB_IN_RECOVERY),
          REORDER(25000), IS_MARKED("LS."), HAS_FLAG(TCB_IN_RECOVERY), OUTPUT, HAS_RESENT("0")}},
        {"it came within the wait: reordering is remembered",
         10,
         false,
         {SEND(3), WAIT(100), SACK(0, {1, 2}), WAIT(20), ACK(2), IS_MARKED("."),
          HAS_NOT(TCB_IN_RECOVERY), ACK(3), SEND(10), WAIT(100), SACK(3, {4, 5}), SACK(3, {4, 6}),
          SACK(3, {4, 7}), SACK(3, {4, 8}), IS_MARKED(".SSSS....."), REORDER(25000),
          IS_MARKED("LSSSS....."), HAS_FLAG(TCB_IN_RECOVERY)}},
        {"in recovery what is older than something delivered is lost at once",
         10,
         false,
         {SEND(10), WAIT(100), SACK(0, {1, 4}), IS_MARKED("LSSS......"), OUTPUT, HAS_RESENT("0"),
          SACK(0, {5, 6}, {1, 4}), IS_MARKED("RSSSLS....")}},
        {"a lost retransmission is found by what was sent after it",
         10,
         false,
         {SEND(10),
          OWNER(10),
          WAIT(100),
          SACK(0, {1, 4}),
          OUTPUT,
          HAS_RESENT("0"),
          HAS_SENT(0),
          WAIT(1),
          SACK(0, {1, 8}),
          OUTPUT,
          HAS_SENT(4),
          IS_MARKED("RSSSSSSS......"),
          WAIT(100),
          SACK(0, {1, 12}),
          IS_MARKED("lSSSSSSSSSSS.."),
          OUTPUT,
          HAS_RESENT("0"),
          WAIT(100),
          ACK(14),
          HAS_NOT(TCB_IN_RECOVERY)}},
        {"a DSACK widens the window by a quarter, once per round trip",
         10,
         false,
         {SEND(3),         WAIT(100),
          SACK(0, {1, 2}), WAIT(10),
          ACK(3),          SEND(10),
          WAIT(100),       SACK(3, {4, 5}),
          REORDER(25000),  OUTPUT,
          HAS_RESENT("3"), SACK(5, {3, 4}),
          SACK(5, {3, 4}), HAS_NOT(TCB_IN_RECOVERY),
          ACK(13),         SEND(3),
          WAIT(100),       SACK(13, {14, 15}),
          REORDER(50000),  IS_MARKED("LS.")}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

/* Section 7. */
static void test_probe(void **state)
{
    static const struct script scripts[] = {
        {"two round trips after the last segment it is sent again",
         10,
         false,
         {SEND(4), PROBE(202000), HAS_RESENT("3"), IS_MARKED("...R"), HAS_FLAG(TCB_TLP_IN_FLIGHT),
          NO_PROBE}},
        {"a single segment gives the peer time to delay its ACK, but not beyond the RTO",
         10,
         false,
         {SEND(1), PROBE(300000), HAS_RESENT("0")}},
        {"something new goes instead, whatever the window says",
         2,
         false,
         {SEND(2), OWNER(3), PROBE(202000), HAS_RESENT(""), OUTPUT, HAS_SENT(1), IS_MARKED("..."),
          OUTPUT, HAS_SENT(0), NO_PROBE}},
        {"the peer's window has no room for something new",
         10,
         false,
         {SEND(1), WAIT(100), WINDOW(2), ACK(1), SEND(2), OWNER(3), PROBE(202000),
          HAS_RESENT("2")}},
        {"the SACK for the probe finds the tail",
         10,
         false,
         {SEND(6), WAIT(100), ACK(2), PROBE(202000), HAS_RESENT("5"), WAIT(100), SACK(2, {5, 6}),
          IS_MARKED("LLLS"), HAS_FLAG(TCB_IN_RECOVERY), OUTPUT, HAS_RESENT("2 3")}},
        {"the probe repaired the only loss: the window answers",
         10,
         false,
         {SEND(6), WAIT(100), ACK(5), PROBE(300000), HAS_RESENT("5"), WAIT(100), ACK(6), CWND(10),
          SEND(1), ACK(7), HAS_NOT(TCB_TLP_IN_FLIGHT | TCB_IN_RECOVERY), CWND(7)}},
        {"a DSACK for the probe: only the ACK was late",
         10,
         false,
         {SEND(6), WAIT(100), ACK(2), PROBE(202000), HAS_RESENT("5"), ACK(6), SACK(6, {5, 6}),
          HAS_NOT(TCB_TLP_IN_FLIGHT), SEND(1), ACK(7), CWND(10)}},
        {"a duplicate ACK says the same where there is no DSACK",
         10,
         false,
         {SEND(6), WAIT(100), ACK(2), PROBE(202000), HAS_RESENT("5"), SEND(1), ACK(6), ACK(6),
          HAS_NOT(TCB_TLP_IN_FLIGHT), ACK(7), CWND(10)}},
        {"none without SACK", 10, false, {FLAG(TCB_HAS_SACK), SEND(4), NO_PROBE}},
        {"none while something is SACKed",
         10,
         false,
         {SEND(4), WAIT(100), SACK(0, {1, 2}), NO_PROBE}},
        {"none after an RTO",
         10,
         false,
         {SEND(4), RTO, OUTPUT, NO_PROBE, ACK(1), NO_PROBE, ACK(4), SEND(2), PROBE(252000)}},
    };

    (void)state;
    script_run_all(scripts, COUNT_OF(scripts));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rack),
        cmocka_unit_test(test_probe),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
