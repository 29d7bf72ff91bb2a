/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The card of a simulated link: what a real one does with a frame's flags.
 *
 * Sending: a chain of buffers becomes one run of octets; TSO cuts it into segments (identification
 * and sequence numbers counted on, CWR in the first only, PSH and FIN in the last only); checksums
 * that were asked for are marked as owing and computed by link_card_complete().
 *
 * Receiving: octets become a chain of the receiving pool's buffers, headers whole in the first, and
 * ol_flags tell truly, or not at all, what became of the checksums.
 *
 * A flag that asks for what the nic does not grant, or wrongly, would be silence or garbage on a
 * real card; here it is a failed CHECK. That includes DPDK's rule for the pseudo-header sum of TSO
 * frames: its length counts as zero, for the card puts in that of each segment.
 */
#include <stdlib.h>

#include "dataplane/wire/port/link_sim_internal.h"

#define ETHERNET_MAC_SIZE 14u
#define VLAN_SIZE         4u
#define PADDED_SIZE       60u
#define PADDING           0xa5
#define TCP_CWR_FLAG      0x80u
#define TCP_LAST_FLAGS    0x09u /* FIN, PSH */
#define UNKNOWN_SHARE     250000u

static const struct rte_mbuf *next_of(const struct rte_mbuf *mbuf)
{
    return mbuf->next;
}

/* ---- packets ---- */

struct link_packet *link_packet_new(uint32_t size)
{
    struct link_packet *packet = malloc(sizeof(*packet) + size);

    CHECK(packet != NULL);
    *packet = (struct link_packet){.size = size};
    return packet;
}

struct link_packet *link_packet_copy(const struct link_packet *packet)
{
    struct link_packet *copy = link_packet_new(packet->size);

    memcpy(copy, packet, sizeof(*packet) + packet->size);
    return copy;
}

/* ---- checking what was asked ---- */

static uint64_t l4_asked(const struct buf *frame)
{
    uint64_t flags = frame->mbuf.ol_flags;

    return flags & RTE_MBUF_F_TX_TCP_SEG ? RTE_MBUF_F_TX_TCP_CKSUM : flags & RTE_MBUF_F_TX_L4_MASK;
}

static void check_chain(const struct nic *nic, const struct buf *frame)
{
    uint32_t size = 0, count = 0;

    for (const struct rte_mbuf *mbuf = &frame->mbuf; mbuf != NULL; mbuf = next_of(mbuf)) {
        CHECK(mbuf->refcnt > 0);
        CHECK(mbuf->data_off + (uint32_t)mbuf->data_len <= mbuf->buf_len);
        CHECK(mbuf->data_len > 0); /* several cards stop at an empty segment */
        size += mbuf->data_len;
        count++;
    }
    CHECK(frame->mbuf.pkt_len == size);
    CHECK(frame->mbuf.nb_segs == count);
    CHECK(count == 1 || (nic->offloads & NIC_TX_MULTI_SEGMENT && count <= nic->segments_max));
}

static void check_size(const struct nic *nic, const struct buf *frame)
{
    bool is_l3 = nic->offloads & NIC_IS_L3;
    uint32_t headers =
        frame->mbuf.l2_len + (uint32_t)frame->mbuf.l3_len + (uint32_t)frame->mbuf.l4_len;
    uint32_t size = frame->mbuf.pkt_len;

    CHECK(size >= (is_l3 ? 20 : ETHERNET_MAC_SIZE));
    if (frame->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
        CHECK(nic->offloads & NIC_TX_TSO);
        CHECK(frame->mbuf.tso_segsz > 0 && headers < size);
        CHECK(size - headers <= nic->tso_size_max);
        CHECK(headers - frame->mbuf.l2_len + frame->mbuf.tso_segsz <= nic->mtu_max);
        return;
    }
    CHECK(size <= nic->mtu_max + (is_l3 ? 0 : ETHERNET_MAC_SIZE + VLAN_SIZE));
}

/* The lengths and the sums that a card relies on. */
static void check_checksums(const struct nic *nic, const struct buf *frame)
{
    uint64_t asked = l4_asked(frame), flags = frame->mbuf.ol_flags;
    struct link_packet *whole;
    struct link_frame map;

    if (asked == 0 && !(flags & RTE_MBUF_F_TX_IP_CKSUM))
        return;
    whole = link_card_flatten(frame);
    CHECK(link_frame_parse(span_of(whole->octets, whole->size), nic->offloads & NIC_IS_L3, &map));
    CHECK(map.end == whole->size);
    CHECK(frame->mbuf.l2_len == map.l3 && frame->mbuf.l3_len == map.l4 - map.l3);
    CHECK((map.family == 4) == ((flags & RTE_MBUF_F_TX_IPV4) != 0));
    CHECK((map.family == 6) == ((flags & RTE_MBUF_F_TX_IPV6) != 0));
    if (flags & RTE_MBUF_F_TX_IP_CKSUM) {
        CHECK(nic->offloads & NIC_TX_IP4_CHECKSUM && map.family == 4);
        CHECK(whole->octets[map.l3 + 10] == 0 && whole->octets[map.l3 + 11] == 0);
    }
    if (flags & RTE_MBUF_F_TX_TCP_SEG)
        CHECK(map.family == 6 || flags & RTE_MBUF_F_TX_IP_CKSUM);
    if (asked != 0) {
        CHECK(nic->offloads &
              (asked == RTE_MBUF_F_TX_TCP_CKSUM ? NIC_TX_TCP_CHECKSUM : NIC_TX_UDP_CHECKSUM));
        CHECK(map.has_l4 && map.protocol == (asked == RTE_MBUF_F_TX_TCP_CKSUM ? 6 : 17));
        if (asked == RTE_MBUF_F_TX_TCP_CKSUM)
            CHECK(frame->mbuf.l4_len == (whole->octets[map.l4 + 12] >> 4) * 4u);
        uint32_t counted = flags & RTE_MBUF_F_TX_TCP_SEG ? 0 : map.end - map.l4;
        uint32_t offset = link_frame_checksum_offset(&map);
        uint16_t pseudo = link_frame_pseudo_sum(whole->octets, &map, counted);
        CHECK((whole->octets[offset] << 8 | whole->octets[offset + 1]) == pseudo);
    }
    free(whole);
}

void link_card_check(const struct nic *nic, const struct buf *frame)
{
    check_chain(nic, frame);
    check_size(nic, frame);
    check_checksums(nic, frame);
}

/* ---- sending ---- */

struct link_packet *link_card_flatten(const struct buf *frame)
{
    struct link_packet *packet = link_packet_new(frame->mbuf.pkt_len);
    uint32_t at = 0;

    for (const struct rte_mbuf *mbuf = &frame->mbuf; mbuf != NULL; mbuf = next_of(mbuf)) {
        memcpy(packet->octets + at, (const uint8_t *)mbuf->buf_addr + mbuf->data_off,
               mbuf->data_len);
        at += mbuf->data_len;
    }
    packet->is_ip4_partial = frame->mbuf.ol_flags & RTE_MBUF_F_TX_IP_CKSUM;
    packet->is_l4_partial = l4_asked(frame) != 0;
    return packet;
}

static uint32_t header_size(const struct buf *frame)
{
    return frame->mbuf.l2_len + (uint32_t)frame->mbuf.l3_len + (uint32_t)frame->mbuf.l4_len;
}

uint32_t link_card_segment_count(const struct buf *frame)
{
    if (!(frame->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG))
        return 1;
    uint32_t payload = frame->mbuf.pkt_len - header_size(frame);
    return (payload + frame->mbuf.tso_segsz - 1) / frame->mbuf.tso_segsz;
}

static void add_be(uint8_t *octets, uint32_t count, uint32_t amount)
{
    for (uint32_t i = count; i > 0; i--) {
        amount += octets[i - 1];
        octets[i - 1] = (uint8_t)amount;
        amount >>= 8;
    }
}

static void segment_headers(uint8_t *octets, const struct buf *frame, uint32_t index, bool is_last,
                            uint32_t size)
{
    uint8_t *ip = octets + frame->mbuf.l2_len, *tcp = ip + frame->mbuf.l3_len;
    uint32_t ip_size = size - frame->mbuf.l2_len;

    if (ip[0] >> 4 == 4) {
        ip[2] = (uint8_t)(ip_size >> 8);
        ip[3] = (uint8_t)ip_size;
        add_be(ip + 4, 2, index);
    } else {
        ip[4] = (uint8_t)((ip_size - 40) >> 8);
        ip[5] = (uint8_t)(ip_size - 40);
    }
    add_be(tcp + 4, 4, index * frame->mbuf.tso_segsz);
    if (index > 0)
        tcp[13] &= (uint8_t)~TCP_CWR_FLAG;
    if (!is_last)
        tcp[13] &= (uint8_t)~TCP_LAST_FLAGS;
}

struct link_packet *link_card_segment(const struct buf *frame, const struct link_packet *whole,
                                      uint32_t index)
{
    uint32_t count = link_card_segment_count(frame), headers = header_size(frame);

    CHECK(index < count);
    if (!(frame->mbuf.ol_flags & RTE_MBUF_F_TX_TCP_SEG))
        return link_packet_copy(whole);
    uint32_t step = frame->mbuf.tso_segsz, from = headers + index * step;
    uint32_t part = whole->size - from < step ? whole->size - from : step;
    struct link_packet *packet = link_packet_new(headers + part);
    memcpy(packet->octets, whole->octets, headers);
    memcpy(packet->octets + headers, whole->octets + from, part);
    segment_headers(packet->octets, frame, index, index + 1 == count, packet->size);
    packet->is_ip4_partial = whole->is_ip4_partial;
    packet->is_l4_partial = true;
    /* The sum in place had length 0: what is left undone has that of its segment. */
    struct link_frame map;
    CHECK(link_frame_parse(span_of(packet->octets, packet->size), frame->mbuf.l2_len == 0, &map));
    uint16_t pseudo = link_frame_pseudo_sum(packet->octets, &map, map.end - map.l4);
    packet->octets[map.l4 + 16] = (uint8_t)(pseudo >> 8);
    packet->octets[map.l4 + 17] = (uint8_t)pseudo;
    return packet;
}

void link_card_complete(struct link_packet *packet, bool is_l3)
{
    struct link_frame map;

    if (!packet->is_ip4_partial && !packet->is_l4_partial)
        return;
    if (link_frame_parse(span_of(packet->octets, packet->size), is_l3, &map))
        link_frame_complete(packet->octets, &map, packet->is_ip4_partial, packet->is_l4_partial);
    packet->is_ip4_partial = packet->is_l4_partial = false;
}

/* ---- receiving ---- */

/* How many octets go into the first buffer at least. */
static uint32_t whole_headers(const struct link_packet *packet, const struct link_frame *map)
{
    if (!map->has_l4 || (map->protocol != 6 && map->protocol != 17))
        return packet->size;
    uint32_t l4_size = map->protocol == 17 || map->end - map->l4 < 20
                           ? 8
                           : (packet->octets[map->l4 + 12] >> 4) * 4u;
    return map->l4 + l4_size < packet->size ? map->l4 + l4_size : packet->size;
}

static uint64_t verdicts_of(struct link_sim *link, const struct link_packet *packet,
                            const struct link_frame *map, bool is_lying)
{
    uint64_t flags = 0;

    if (packet->is_judged)
        return packet->verdicts;
    if (is_lying)
        return RTE_MBUF_F_RX_IP_CKSUM_GOOD | RTE_MBUF_F_RX_L4_CKSUM_GOOD;
    if (map->family == 4 && packet->is_ip4_partial)
        flags |= RTE_MBUF_F_RX_IP_CKSUM_NONE;
    else if (map->family == 4 && !link_chance(link, UNKNOWN_SHARE))
        flags |= link_frame_ip4_is_good(packet->octets, map) ? RTE_MBUF_F_RX_IP_CKSUM_GOOD
                                                             : RTE_MBUF_F_RX_IP_CKSUM_BAD;
    if (packet->is_l4_partial)
        flags |= RTE_MBUF_F_RX_L4_CKSUM_NONE;
    else if (map->has_l4 && (map->protocol == 6 || map->protocol == 17) &&
             link_frame_checksum_offset(map) != 0 && !link_chance(link, UNKNOWN_SHARE))
        flags |= link_frame_l4_is_good(packet->octets, map) ? RTE_MBUF_F_RX_L4_CKSUM_GOOD
                                                            : RTE_MBUF_F_RX_L4_CKSUM_BAD;
    return flags;
}

static struct buf *chain_fill(struct buf_pool *pool, const uint8_t *octets, uint32_t size,
                              uint32_t first_min, uint32_t split)
{
    uint32_t data_size = buf_pool_data_size(pool), at = 0;
    struct buf *head = NULL, *tail = NULL;
    uint32_t limit = split > 0 && split < data_size ? split : data_size;

    while (at < size) {
        uint32_t part = at == 0 && limit < first_min ? first_min : limit;
        if (part > data_size)
            part = data_size;
        if (part > size - at)
            part = size - at;
        struct buf *buf = buf_acquire(pool);
        if (buf == NULL) {
            buf_release_chain(head);
            return NULL;
        }
        memcpy(buf_data(buf), octets + at, part);
        buf_extend(buf, part);
        at += part;
        if (head == NULL) {
            head = tail = buf;
            continue;
        }
        tail->mbuf.next = &buf->mbuf;
        tail = buf;
        head->mbuf.nb_segs++;
    }
    head->mbuf.pkt_len = size;
    return head;
}

struct buf *link_card_receive(struct link_nic *nic, const struct link_packet *packet)
{
    const struct link_sim_station_options *options = &nic->link->stations[nic->station].options;
    bool is_l3 = options->offloads & NIC_IS_L3;
    uint8_t padded[PADDED_SIZE];
    const uint8_t *octets = packet->octets;
    uint32_t size = packet->size;
    struct link_frame map;

    (void)link_frame_parse(span_of(octets, size), is_l3, &map);
    uint32_t first_min = whole_headers(packet, &map);
    if (!is_l3 && size < PADDED_SIZE) {
        memset(padded, PADDING, sizeof(padded));
        memcpy(padded, octets, size);
        octets = padded;
        size = first_min = PADDED_SIZE;
    }
    struct buf *head = chain_fill(nic->pool, octets, size, first_min, options->split);
    if (head == NULL)
        return NULL;
    if (options->offloads & NIC_RX_CHECKSUM)
        head->mbuf.ol_flags |= verdicts_of(nic->link, packet, &map, options->is_lying);
    if (nic->nic.steering.is_hardware && map.family != 0) {
        head->mbuf.ol_flags |= RTE_MBUF_F_RX_RSS_HASH;
        head->mbuf.hash.rss =
            link_frame_rss(packet->octets, &map, nic->nic.steering.key, NIC_RSS_KEY_SIZE);
    }
    return head;
}
