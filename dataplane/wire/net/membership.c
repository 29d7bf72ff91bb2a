/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Membership in IPv6 groups: MLD, the listener's half (RFC 3810; RFC 2710 for old routers).
 *
 * We are in the solicited-node groups of our addresses, and switches that watch (MLD snooping) send
 * us solicitations only if we say so: without this an address vanishes from such a link when the
 * neighbours' caches run out. So the groups of a port are reported at start, twice, before they are
 * used (RFC 4862 5.4.2), and whenever a router asks, after a random part of the time it grants.
 * Everything is said of all groups at once, whichever the router asked for: there are few.
 *
 * A report, in the words of whom asked last:
 *   version 2: IPv6, hop-by-hop options with a router alert, ICMPv6 type 143: up to RECORDS_MAX
 *              records of 20 octets, each a group and "all sources"; to ff02::16
 *   version 1: the same in front of ICMPv6 type 131: one group; to that group
 * with a hop limit of 1, from a link-local address of the port or, without one, from nowhere
 * (RFC 3810 5.2.13).
 *
 * Limits: one answer waits per port; DELAY_MIN between a query and its answer, so that queries
 * without end cost a report of each group per DELAY_MIN. IPv4 needs no such thing: we are in no
 * group but that of all hosts, which is never reported (RFC 3376 6).
 */
#include "dataplane/wire/net/neighbour.h"

#define REPORT1_TYPE 131u
#define REPORT2_TYPE 143u
#define QUERY1_SIZE  24u
#define QUERY2_SIZE  28u

#define ALERT_SIZE   8u /* the hop-by-hop header */
#define REPORT1_SIZE 24u
#define REPORT2_HEAD 8u
#define RECORD_SIZE  20u
#define RECORDS_MAX  11u /* with what is in front they fit a header buffer */
_Static_assert(ALERT_SIZE + REPORT2_HEAD + RECORDS_MAX * RECORD_SIZE <= STACK_HEADER_SIZE, "");

/* Record types, RFC 3810 5.2.12. */
#define MODE_IS_EXCLUDE   2u
#define CHANGE_TO_EXCLUDE 4u

#define DELAY_MIN TICK_MS(100)
#define DELAY_MAX TICK_S(10) /* what is waited at most, whatever a query grants */

static const uint8_t all_routers2[16] = {0xff, 0x02, [15] = 0x16};
static const uint8_t unspecified[16];

/* ---- groups ---- */

/* The groups of a port, each once; returns how many. */
static uint32_t groups_of(const struct stack *stack, const struct stack_port *port,
                          uint8_t ret_groups[STACK_ADDRESS_MAX][16])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < stack->local_count; i++) {
        const struct stack_local *local = &stack->locals[i];
        uint32_t known = 0;
        if (local->port != port->index || local->address.address.family != 6)
            continue;
        neigh_group_of(local->address.address.ip, ret_groups[count]);
        while (memcmp(ret_groups[known], ret_groups[count], 16) != 0)
            known++;
        count += known == count;
    }
    return count;
}

static const uint8_t *report_source(const struct stack *stack, const struct stack_port *port)
{
    for (uint32_t i = 0; i < stack->local_count; i++) {
        const struct stack_local *local = &stack->locals[i];
        if (local->port == port->index && local->address.address.family == 6 &&
            stack_local_is_usable(local) && ip_is_link_local(6, local->address.address.ip))
            return local->address.address.ip;
    }
    return unspecified;
}

/* ---- reports ---- */

/* The message is complete but for its checksum; in front goes the router alert (RFC 2711). */
static void report_send(struct stack *stack, struct stack_port *port, const uint8_t *destination,
                        struct buf *packet)
{
    const uint8_t *source = report_source(stack, port);
    const struct ip_send send = {.source = source,
                                 .protocol = 0, /* hop-by-hop options */
                                 .ttl = 1,
                                 .is_checksum_complete = true};
    uint8_t *octets = buf_data(packet), *message = octets + ALERT_SIZE, mac[6];
    uint32_t size = buf_size(packet) - ALERT_SIZE;

    memcpy(octets, (const uint8_t[ALERT_SIZE]){IP_PROTOCOL_ICMP6, 0, 5, 2, 0, 0, 1, 0}, ALERT_SIZE);
    uint16_t checksum = wire_sum_finish(
        wire_sum(message, size) + wire_sum_pseudo(6, source, destination, IP_PROTOCOL_ICMP6, size));
    memcpy(message + 2, &checksum, sizeof(checksum));
    neigh_group_mac(destination, mac);
    if (ip_output_header(stack, port, 6, destination, &send, packet))
        ip_output_link(stack, port, mac, ETHERTYPE_IP6, packet);
}

static void report2(struct stack *stack, struct stack_port *port, const uint8_t (*groups)[16],
                    uint32_t count, uint8_t record_type)
{
    struct buf *packet = stack_header_acquire(stack);
    if (packet == NULL)
        return;
    uint8_t *message = buf_data(packet) + ALERT_SIZE;
    memset(message, 0, REPORT2_HEAD + count * RECORD_SIZE);
    message[0] = REPORT2_TYPE;
    store_be16(message + 6, (uint16_t)count);
    for (uint32_t i = 0; i < count; i++) {
        uint8_t *record = message + REPORT2_HEAD + i * RECORD_SIZE;
        record[0] = record_type;
        memcpy(record + 4, groups[i], 16);
    }
    buf_extend(packet, ALERT_SIZE + REPORT2_HEAD + count * RECORD_SIZE);
    report_send(stack, port, all_routers2, packet);
}

static void report1(struct stack *stack, struct stack_port *port, const uint8_t group[16])
{
    struct buf *packet = stack_header_acquire(stack);
    if (packet == NULL)
        return;
    uint8_t *message = buf_data(packet) + ALERT_SIZE;
    memset(message, 0, REPORT1_SIZE);
    message[0] = REPORT1_TYPE;
    memcpy(message + 8, group, 16);
    buf_extend(packet, ALERT_SIZE + REPORT1_SIZE);
    report_send(stack, port, group, packet);
}

static void port_report(struct stack *stack, struct stack_port *port, bool is_version1,
                        uint8_t record_type)
{
    uint8_t groups[STACK_ADDRESS_MAX][16];
    uint32_t count = groups_of(stack, port, groups);

    for (uint32_t i = 0; is_version1 && i < count; i++)
        report1(stack, port, groups[i]);
    for (uint32_t i = 0; !is_version1 && i < count; i += RECORDS_MAX)
        report2(stack, port, groups + i, count - i < RECORDS_MAX ? count - i : RECORDS_MAX,
                record_type);
}

void membership_join(struct stack *stack)
{
    for (uint32_t i = 0; i < stack->port_count; i++) {
        if (!stack->ports[i].is_l3)
            port_report(stack, &stack->ports[i], false, CHANGE_TO_EXCLUDE);
    }
}

/* ---- queries ---- */

/* RFC 3810 5.1.3: milliseconds; in version 2 the upper half of the codes are exponents, and all
 * stand for more than half a minute. */
static tick_us response_time(const uint8_t *message, bool is_version1)
{
    uint32_t code = load_be16(message + 4);

    if ((code >= 0x8000 && !is_version1) || TICK_MS(code) > DELAY_MAX)
        return DELAY_MAX;
    return TICK_MS(code);
}

void membership_input(struct stack *stack, struct packet *packet)
{
    struct membership *membership = &stack->neighbours->memberships[packet->port->index];
    struct span message = packet_l4(packet);

    if (packet->port->is_l3) {
        STACK_COUNT(stack, ICMP_IGNORED);
        return;
    }
    /* RFC 3810 6.2: from a router on the link, by the mark that it bears. */
    if (packet->ip.ttl != 1 || !ip_is_link_local(6, packet->ip.source) ||
        message.size < QUERY1_SIZE || (message.size > QUERY1_SIZE && message.size < QUERY2_SIZE)) {
        STACK_COUNT(stack, ICMP_MALFORMED);
        return;
    }
    bool is_version1 = message.size == QUERY1_SIZE;
    tick_us time = response_time(message.data, is_version1);
    tick_us at = stack->now + DELAY_MIN + rng_below(&stack->rng, (uint32_t)time + 1);
    membership->is_version1 = is_version1;
    membership->timer.kind = STACK_TIMER_MEMBERSHIP;
    if (!wheel_is_armed(&membership->timer) || membership->timer.deadline > at)
        wheel_arm(&stack->wheel, &membership->timer, at);
}

void membership_on_timer(struct stack *stack, struct wheel_timer *timer)
{
    const struct membership *membership = WHEEL_OWNER(timer, struct membership, timer);
    uint32_t index = (uint32_t)(membership - stack->neighbours->memberships);

    port_report(stack, &stack->ports[index], membership->is_version1, MODE_IS_EXCLUDE);
}
