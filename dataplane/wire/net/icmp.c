/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP for IPv4 (RFC 792, RFC 1122 3.2.2) and IPv6 (RFC 4443).
 *
 *   echo request          answered, by the way it came; rate-limited
 *   error                 parsed; what it quotes must be a packet of ours; goes to the core of that
 *                         connection, and there to TCP or UDP, who judge it (RFC 5927)
 *   neighbour discovery   to neighbour_packet.c
 *   membership query      to membership.c
 *   redirect              ignored: routes are ours to configure
 *   router advertisement  ignored: addresses and gateway are configured; the kernel may want it
 *   all else              ignored
 *
 * What is sent: echo replies, and port unreachable for UDP (TCP has its RST). Never about a packet
 * that was not to us alone (RFC 1122 3.2.2; such never get here, but for echo requests to an IPv6
 * group), never about ICMP errors.
 *
 * Rates. Answers to one remote address take from one of ICMP_BUCKETS buckets, chosen by a secret,
 * that is filled each second with a number that nobody knows: so nobody can tell what became of
 * the answers to somebody else by counting his own, and a flood costs us no more than
 * ICMP_BUCKETS times the rate.
 */
#include "dataplane/wire/net/chain.h"
#include "dataplane/wire/net/stack_internal.h"
#include "dataplane/wire/tcp/tcp.h"

#define ICMP_HEADER_SIZE       8u
#define ICMP_REDIRECT4         5u
#define ICMP_REDIRECT6         137u
#define ECHO_PER_SECOND        100u
#define UNREACHABLE_PER_SECOND 10u
#define QUOTE_MAX              240u /* with the header it fits a header buffer */
#define CODE_HOST4             1u   /* of ICMP_UNREACHABLE4 */
#define CODE_PORT4             3u
#define CODE_TOO_LARGE4        4u
#define CODE_ADDRESS6          3u /* of ICMP_UNREACHABLE6 */
#define CODE_PORT6             4u

static bool limit_take(struct stack *stack, struct icmp_bucket *buckets, const uint8_t ip[16],
                       uint32_t per_second)
{
    uint64_t hash = siphash13(&stack->hash_key, ip, 16);
    return stack_bucket_take(stack, &buckets[hash % ICMP_BUCKETS], per_second);
}

/* ---- echo ---- */

/* The checksum of a message that we send, its field being 0. */
static void message_seal(struct buf *message, uint64_t pseudo)
{
    uint16_t checksum = wire_sum_finish(pseudo + chain_sum(message, 0, message->mbuf.pkt_len));
    memcpy(buf_data(message) + 2, &checksum, sizeof(checksum));
}

/* Our address that answers: the one asked, or of a group, one of the port it came in by. */
static const uint8_t *echo_source(struct stack *stack, const struct packet *packet)
{
    if (!ip_is_multicast(packet->ip.family, packet->ip.destination))
        return packet->ip.destination;
    const struct stack_local *local =
        stack_local_choose(stack, packet->port, packet->ip.family, packet->ip.source);
    return local == NULL ? NULL : local->address.address.ip;
}

static void echo_answer(struct stack *stack, const struct packet *packet)
{
    uint8_t family = packet->ip.family;
    const uint8_t *source = echo_source(stack, packet);
    uint64_t pseudo = 0;

    if (source == NULL || ip_is_martian_source(family, packet->ip.source) ||
        stack_local_find(stack, family, packet->ip.source) != NULL) {
        STACK_COUNT(stack, ICMP_IGNORED);
        return;
    }
    if (!limit_take(stack, stack->echo_buckets, packet->ip.source, ECHO_PER_SECOND)) {
        STACK_COUNT(stack, ICMP_LIMITED);
        return;
    }
    struct buf *message =
        chain_copy(stack->options.pool, packet->buf, packet->l4_offset, BUF_HEADROOM);
    if (message == NULL) {
        STACK_COUNT(stack, SEND_NO_BUFFER);
        return;
    }
    const struct ip_send send = {
        .source = source, .protocol = packet->ip.protocol, .is_checksum_complete = true};
    buf_data(message)[0] = family == 4 ? ICMP_ECHO_REPLY4 : ICMP_ECHO_REPLY6;
    store_be16(buf_data(message) + 2, 0);
    if (family == 6)
        pseudo = wire_sum_pseudo(6, source, packet->ip.source, IP_PROTOCOL_ICMP6, packet->l4_size);
    message_seal(message, pseudo);
    STACK_COUNT(stack, ICMP_ECHO_ANSWERED);
    ip_output_reply(stack, packet, &send, message);
}

/* ---- errors that come in ---- */

/* RFC 1191 7.1: the router was too old to say; the next common MTU below what it refused. */
static uint16_t mtu_guess(const struct ip_header *quoted)
{
    static const uint16_t plateaus[] = {32000, 17914, 8166, 4352, 2002, 1492, 1006, 552};
    uint32_t size = (uint32_t)quoted->header_size + quoted->payload_size;

    for (uint32_t i = 0; i < COUNT_OF(plateaus); i++) {
        if (plateaus[i] < size)
            return plateaus[i];
    }
    return 0;
}

static void error_deliver(struct stack *stack, struct icmp_error *error)
{
    bool is_too_large = error->quoted.family == 4 && error->type == ICMP_UNREACHABLE4 &&
                        error->code == CODE_TOO_LARGE4;

    if (is_too_large && error->mtu == 0)
        error->mtu = mtu_guess(&error->quoted);
    if (error->quoted.protocol == IP_PROTOCOL_TCP)
        tcp_on_icmp_error(stack, error);
    else
        udp_on_icmp_error(stack, error);
}

static void error_input(struct stack *stack, struct packet *packet)
{
    struct icmp_error error;
    uint16_t queue;

    if (icmp_error_parse(packet->ip.family, packet_l4(packet), &error) != PACKET_OK) {
        STACK_COUNT(stack, ICMP_MALFORMED);
        return;
    }
    /* It answers the one who sent what it quotes: us, at the address it is sent to. */
    if (memcmp(error.quoted.source, packet->ip.destination, 16) != 0) {
        STACK_COUNT(stack, ICMP_ERROR_FORGED);
        return;
    }
    if (stack_is_foreign(stack, packet->port, packet->ip.family, error.quoted.destination,
                         error.quoted.source, error.destination_port, error.source_port, &queue)) {
        packet_pass(stack, packet, queue);
        return;
    }
    STACK_COUNT(stack, ICMP_ERROR_RECEIVED);
    error_deliver(stack, &error);
}

void icmp_report_unreachable(struct stack *stack, const struct buf *packet)
{
    struct span octets = span_of(buf_data(packet), buf_size(packet));
    uint8_t family = octets.data[0] >> 4;
    struct icmp_error error = {
        .type = family == 4 ? ICMP_UNREACHABLE4 : ICMP_UNREACHABLE6,
        .code = family == 4 ? CODE_HOST4 : CODE_ADDRESS6,
    };
    enum packet_fault fault = family == 4 ? ip4_parse(octets, UINT32_MAX, true, &error.quoted)
                                          : ip6_parse(octets, UINT32_MAX, &error.quoted);

    CHECK(fault == PACKET_OK);
    struct span l4 = span_skip(octets, error.quoted.header_size);
    if ((error.quoted.protocol != IP_PROTOCOL_TCP && error.quoted.protocol != IP_PROTOCOL_UDP) ||
        l4.size < 8)
        return;
    error.source_port = load_be16(l4.data);
    error.destination_port = load_be16(l4.data + 2);
    if (error.quoted.protocol == IP_PROTOCOL_TCP)
        error.sequence = load_be32(l4.data + 4);
    error_deliver(stack, &error);
}

/* ---- what is sent ---- */

void icmp_send_port_unreachable(struct stack *stack, const struct packet *packet)
{
    uint8_t family = packet->ip.family;
    const struct ip_send send = {.source = packet->ip.destination,
                                 .protocol = family == 4 ? IP_PROTOCOL_ICMP : IP_PROTOCOL_ICMP6,
                                 .is_checksum_complete = true};
    uint32_t quote_size = buf_size(packet->buf) - packet->l3_offset;

    if (!limit_take(stack, stack->unreachable_buckets, packet->ip.source, UNREACHABLE_PER_SECOND)) {
        STACK_COUNT(stack, ICMP_LIMITED);
        return;
    }
    struct buf *buf = stack_header_acquire(stack);
    if (buf == NULL)
        return;
    if (quote_size > QUOTE_MAX)
        quote_size = QUOTE_MAX;
    uint8_t *message = buf_data(buf);
    memset(message, 0, ICMP_HEADER_SIZE);
    message[0] = family == 4 ? ICMP_UNREACHABLE4 : ICMP_UNREACHABLE6;
    message[1] = family == 4 ? CODE_PORT4 : CODE_PORT6;
    memcpy(message + ICMP_HEADER_SIZE, buf_data(packet->buf) + packet->l3_offset, quote_size);
    buf_extend(buf, ICMP_HEADER_SIZE + quote_size);
    message_seal(buf, family == 4 ? 0
                                  : wire_sum_pseudo(6, packet->ip.destination, packet->ip.source,
                                                    IP_PROTOCOL_ICMP6, buf_size(buf)));
    STACK_COUNT(stack, ICMP_UNREACHABLE_SENT);
    ip_output_reply(stack, packet, &send, buf);
}

/* ---- in ---- */

static void nd_input(struct stack *stack, struct packet *packet)
{
    struct nd_packet nd;

    /* RFC 4861 7.1. The message must lie in one buffer: it is small. */
    if (packet->ip.ttl != 255 || packet_l4(packet).size != packet->l4_size ||
        nd_parse(packet_l4(packet), &nd) != PACKET_OK) {
        STACK_COUNT(stack, ND_MALFORMED);
        return;
    }
    neigh_input_nd(stack, packet, &nd);
}

static void input4(struct stack *stack, struct packet *packet, uint8_t type)
{
    switch (type) {
    case ICMP_ECHO_REQUEST4:
        echo_answer(stack, packet);
        return;
    case ICMP_UNREACHABLE4:
    case ICMP_TIME_EXCEEDED4:
    case ICMP_PARAMETER4:
        error_input(stack, packet);
        return;
    case ICMP_REDIRECT4:
        STACK_COUNT(stack, ICMP_REDIRECT);
        return;
    default:
        STACK_COUNT(stack, ICMP_IGNORED);
        return;
    }
}

static void input6(struct stack *stack, struct packet *packet, uint8_t type)
{
    switch (type) {
    case ICMP_MEMBERSHIP_QUERY6:
        membership_input(stack, packet);
        return;
    case ICMP_NEIGHBOUR_SOLICITATION6:
    case ICMP_NEIGHBOUR_ADVERTISEMENT6:
        nd_input(stack, packet);
        return;
    case ICMP_ECHO_REQUEST6:
        echo_answer(stack, packet);
        return;
    case ICMP_UNREACHABLE6:
    case ICMP_PACKET_TOO_BIG6:
    case ICMP_TIME_EXCEEDED6:
    case ICMP_PARAMETER6:
        error_input(stack, packet);
        return;
    case ICMP_ROUTER_ADVERTISEMENT6:
        stack_port_except(stack, packet, STACK_ICMP_ROUTER_ADVERTISEMENT);
        return;
    case ICMP_REDIRECT6:
        STACK_COUNT(stack, ICMP_REDIRECT);
        return;
    default:
        STACK_COUNT(stack, ICMP_IGNORED);
        return;
    }
}

void icmp_input(struct stack *stack, struct packet *packet)
{
    struct span l4 = packet_l4(packet);

    if (l4.size < ICMP_HEADER_SIZE) {
        STACK_COUNT(stack, ICMP_MALFORMED);
        return;
    }
    /* Nics do not look into ICMP, whatever their flags say. */
    if (!packet_l4_checksum_is_good(packet)) {
        STACK_COUNT(stack, ICMP_CHECKSUM);
        return;
    }
    if (packet->ip.family == 4)
        input4(stack, packet, l4.data[0]);
    else
        input6(stack, packet, l4.data[0]);
}
