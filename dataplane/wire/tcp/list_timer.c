/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One timer of the wheel for all that waits in lists of constant delay: TIME_WAIT records and
 * half-open connections. Each list says when its first is due; the timer is armed for the earlier
 * of the two, and earlier still if an entry is added that is due before (tcp_list_timer_set()). It
 * may fire when nothing is due: an entry that left its list took no care of it.
 */
#include "dataplane/wire/tcp/tcp.h"

void tcp_list_on_timer(struct stack *stack)
{
    tick_us time_waits = tcp_time_waits_advance(stack, stack->now);
    tick_us half_open = tcp_syn_cache_advance(stack, stack->now);

    tcp_list_timer_set(stack, time_waits < half_open ? time_waits : half_open);
}
