/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first seconds of our addresses, and what is done when somebody else has one.
 *
 * IPv6 addresses begin tentative: they are asked for once, from nowhere (RFC 4862 5.4), and are
 * ours when a second passes in which nobody answered. IPv4 addresses are in use at once, as those
 * of a server that comes back must be. Both are announced to all, twice, so that whoever spoke to
 * the machine that had them before finds us (RFC 5227 2.3, RFC 4861 7.2.6).
 *
 *   time    0 s                        1 s                      3 s
 *   IPv4    announce                                            announce
 *   IPv6    join, ask for duplicates   join, usable, advertise  advertise
 *
 * Only the first core sends; the others keep the same times. What one of them hears about an
 * address of ours it tells the others.
 *
 * A duplicate of a tentative address makes it unusable for good. An address in use is kept, and
 * defended by an announcement at most every DEFEND_TIME (RFC 5227 2.4 b): two machines that both
 * insist do harm enough with that.
 */
#include "dataplane/wire/net/neighbour.h"

#define DUPLICATE_TIME TICK_S(1) /* RFC 4861 10: RETRANS_TIMER */
#define ANNOUNCE_TIME  TICK_S(2)
#define DEFEND_TIME    TICK_S(10)

static void announce_all(struct stack *stack, uint8_t family)
{
    if (stack->options.core != 0)
        return;
    for (uint32_t i = 0; i < stack->local_count; i++) {
        struct stack_local *local = &stack->locals[i];
        if (local->address.address.family == family && stack_local_is_usable(local) &&
            !stack->ports[local->port].is_l3)
            neigh_advertise(stack, local);
    }
}

void neigh_announce(struct stack *stack)
{
    struct neigh_table *table = stack->neighbours;

    for (uint32_t i = 0; i < stack->local_count; i++) {
        struct stack_local *local = &stack->locals[i];
        local->is_tentative =
            local->address.address.family == 6 && !stack->ports[local->port].is_l3;
    }
    if (stack->options.core == 0) {
        membership_join(stack); /* before the groups are needed: RFC 4862 5.4.2 */
        for (uint32_t i = 0; i < stack->local_count; i++) {
            if (stack->locals[i].is_tentative)
                neigh_solicit_duplicate(stack, &stack->locals[i]);
        }
    }
    announce_all(stack, 4);
    wheel_arm(&stack->wheel, &table->announce_timer, stack->now + DUPLICATE_TIME);
}

void neigh_announce_on_timer(struct stack *stack)
{
    struct neigh_table *table = stack->neighbours;

    if (table->announce_step++ > 0) {
        announce_all(stack, 4);
        announce_all(stack, 6);
        return;
    }
    for (uint32_t i = 0; i < stack->local_count; i++)
        stack->locals[i].is_tentative = false;
    if (stack->options.core == 0)
        membership_join(stack); /* RFC 3810 9.1: once may be lost */
    announce_all(stack, 6);
    wheel_arm(&stack->wheel, &table->announce_timer, stack->now + ANNOUNCE_TIME);
}

/* Of an address of ours, the news can only be that somebody else has it. */
static void conflict_tell(struct stack *stack, const struct stack_local *local)
{
    const struct stack_news news = {.kind = STACK_NEWS_NEIGHBOUR,
                                    .port = (uint8_t)local->port,
                                    .address = local->address.address};
    stack_tell(stack, &news);
}

void neigh_on_conflict_news(struct stack_local *local)
{
    if (local->is_tentative)
        local->is_duplicate = true;
}

void neigh_on_conflict(struct stack *stack, struct stack_local *local)
{
    STACK_COUNT(stack, ADDRESS_CONFLICT);
    if (local->is_duplicate)
        return;
    if (local->is_tentative) {
        local->is_duplicate = true;
        conflict_tell(stack, local);
        return;
    }
    if (local->defended_at != 0 && stack->now - local->defended_at < DEFEND_TIME)
        return;
    local->defended_at = stack->now;
    neigh_advertise(stack, local);
}
