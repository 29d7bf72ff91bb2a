/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receive side scaling of a port: the key, the table, and whether the card does what it says.
 *
 * The key is random, so that strangers cannot choose tuples that all land on one queue (HAZARDS
 * TC-17). Many virtual and some physical ports ignore it, have one of their own, or hash something
 * else. So what counts is what is read back after the start, and even this is believed only after
 * the card's hash and queue of the first NIC_ETH_HASHES_NEEDED frames of an IP version were what
 * ours are. Until then, and for ever after a wrong one, steering.is_hardware is false: stacks find
 * the owner of a frame from the same key and table themselves, and pass it on. The owner of a tuple
 * is the same in both cases, so the change from one to the other needs no agreement between shards.
 *
 * Compared are only packets that every card hashes in the same way: TCP, and UDP that is an answer
 * to a query of ours, whole, without IP options or extension headers, without a fault that the card
 * saw. Cards differ in all the rest (tunnels in UDP, say), and a stranger must not be able to make
 * us distrust a good one. Now and then a later frame is compared, too.
 */
#include <rte_ethdev.h>

#include "base/rng.h"
#include "dataplane/wire/net/net.h"
#include "dataplane/wire/port/nic_eth_internal.h"

#define KEY_SIZE_USUAL   40u /* of cards that do not say */
#define TABLE_SIZE_OWN   128u
#define SAMPLE_INTERVAL  1024u /* bursts */
#define ETHERTYPE_OFFSET 12u
#define QUERY_PORT       53u
/* No tunnel's port is above. */
#define QUERY_PORT_LEAST 16384u

/* IPv4 and IPv6, TCP and UDP: a card that leaves one out is of no use to the others either, as one
 * answer holds for all of a stack's flows. */
#define HASHES                                                                                     \
    (RTE_ETH_RSS_NONFRAG_IPV4_TCP | RTE_ETH_RSS_NONFRAG_IPV4_UDP | RTE_ETH_RSS_NONFRAG_IPV6_TCP |  \
     RTE_ETH_RSS_NONFRAG_IPV6_UDP)

/* Bits that are also part of "unknown" and "good, if partial" do not matter here: such a frame is
 * just not compared. */
#define FAULTS_SEEN (RTE_MBUF_F_RX_IP_CKSUM_BAD | RTE_MBUF_F_RX_L4_CKSUM_BAD)

static bool is_usable(const struct nic_eth_setup *setup)
{
    const struct rte_eth_dev_info *info = &setup->info;

    return setup->options->queue_count > 1 && !setup->driver->has_no_rss &&
           (info->flow_type_rss_offloads & HASHES) == HASHES &&
           (info->rx_offload_capa & RTE_ETH_RX_OFFLOAD_RSS_HASH) != 0 &&
           info->hash_key_size <= NIC_RSS_KEY_SIZE;
}

static uint8_t key_size(const struct nic_eth_setup *setup)
{
    return setup->info.hash_key_size > 0 ? setup->info.hash_key_size : KEY_SIZE_USUAL;
}

void nic_eth_rss_configure(const struct nic_eth_setup *setup, uint8_t key[NIC_RSS_KEY_SIZE],
                           struct rte_eth_conf *conf)
{
    struct rng rng;

    CHECK(rng_init_system(&rng) == ERR_OK);
    rng_fill(&rng, key, NIC_RSS_KEY_SIZE);
    if (!is_usable(setup))
        return;
    conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
    conf->rxmode.offloads |= RTE_ETH_RX_OFFLOAD_RSS_HASH;
    conf->rx_adv_conf.rss_conf = (struct rte_eth_rss_conf){
        .rss_key = key,
        .rss_key_len = key_size(setup),
        .rss_hf = HASHES,
    };
}

/* ---- after the start ---- */

/* The key that is in force. */
static bool read_key(uint16_t port, const struct nic_eth_setup *setup,
                     struct nic_steering *steering)
{
    struct rte_eth_rss_conf conf = {.rss_key = steering->key, .rss_key_len = key_size(setup)};

    return rte_eth_dev_rss_hash_conf_get(port, &conf) == 0 && (conf.rss_hf & HASHES) == HASHES;
}

static bool is_table_size(uint32_t size)
{
    return size > 0 && size <= NIC_RETA_MAX && (size & (size - 1)) == 0;
}

/* Fill the card's table evenly, then see what it is. */
static bool write_table(uint16_t port, uint16_t size, struct nic_steering *steering)
{
    struct rte_eth_rss_reta_entry64 groups[NIC_RETA_MAX / RTE_ETH_RETA_GROUP_SIZE] = {0};

    if (!is_table_size(size))
        return false;
    for (uint32_t i = 0; i < size; i++) {
        struct rte_eth_rss_reta_entry64 *group = &groups[i / RTE_ETH_RETA_GROUP_SIZE];

        group->mask = UINT64_MAX;
        group->reta[i % RTE_ETH_RETA_GROUP_SIZE] = (uint16_t)(i % steering->queue_count);
    }
    (void)rte_eth_dev_rss_reta_update(port, groups, size);
    if (rte_eth_dev_rss_reta_query(port, groups, size) != 0)
        return false;
    for (uint32_t i = 0; i < size; i++) {
        uint16_t queue = groups[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE];

        if (queue >= steering->queue_count)
            return false;
        steering->reta[i] = queue;
    }
    steering->reta_size = size;
    return true;
}

/* What stacks go by where the card is of no use. */
static void set_own(struct nic_steering *steering, const uint8_t key[NIC_RSS_KEY_SIZE])
{
    memcpy(steering->key, key, NIC_RSS_KEY_SIZE);
    steering->reta_size = TABLE_SIZE_OWN;
    for (uint32_t i = 0; i < TABLE_SIZE_OWN; i++)
        steering->reta[i] = (uint16_t)(i % steering->queue_count);
}

void nic_eth_rss_start(struct nic_eth_port *port, const struct nic_eth_setup *setup,
                       const uint8_t key[NIC_RSS_KEY_SIZE])
{
    struct nic_steering steering = {.queue_count = port->queue_count};

    set_own(&steering, key);
    bool is_on = is_usable(setup) && read_key(port->id, setup, &steering) &&
                 write_table(port->id, setup->info.reta_size, &steering);
    if (!is_on)
        set_own(&steering, key);
    for (uint16_t i = 0; i < port->queue_count; i++) {
        struct nic_eth *self = &port->queues[i];

        self->nic.steering = steering;
        self->nic.steering.queue = i;
        self->nic.steering.is_hardware = port->queue_count == 1; /* nothing to be steered */
        self->is_judged = is_on;
        self->hashes_needed[0] = NIC_ETH_HASHES_NEEDED;
        self->hashes_needed[1] = NIC_ETH_HASHES_NEEDED;
    }
}

/* ---- judging ---- */

struct tuple {
    uint8_t family, source[16], destination[16];
    uint16_t source_port, destination_port;
};

static bool read_l4(struct span l4, uint8_t protocol, struct tuple *ret_tuple)
{
    bool is_tcp = protocol == IP_PROTOCOL_TCP, is_udp = protocol == IP_PROTOCOL_UDP;

    if ((!is_tcp && !is_udp) || l4.size < (is_tcp ? TCP_HEADER_SIZE : UDP_HEADER_SIZE))
        return false;
    ret_tuple->source_port = load_be16(l4.data);
    ret_tuple->destination_port = load_be16(l4.data + 2);
    return is_tcp || (ret_tuple->source_port == QUERY_PORT &&
                      ret_tuple->destination_port >= QUERY_PORT_LEAST);
}

static bool read_ip4(struct span packet, struct tuple *ret_tuple)
{
    /* Version 4, no options. */
    if (packet.size < IP4_HEADER_SIZE || packet.data[0] != 0x45)
        return false;
    uint32_t size = load_be16(packet.data + 2);
    bool is_fragment = (load_be16(packet.data + 6) & 0x3fffu) != 0;

    if (size < IP4_HEADER_SIZE || size > packet.size || is_fragment)
        return false;
    ret_tuple->family = 4;
    memcpy(ret_tuple->source, packet.data + 12, 4);
    memcpy(ret_tuple->destination, packet.data + 16, 4);
    return read_l4(span_skip(span_head(packet, size), IP4_HEADER_SIZE), packet.data[9], ret_tuple);
}

static bool read_ip6(struct span packet, struct tuple *ret_tuple)
{
    if (packet.size < IP6_HEADER_SIZE || packet.data[0] >> 4 != 6)
        return false;
    uint32_t size = load_be16(packet.data + 4);

    if (size > packet.size - IP6_HEADER_SIZE)
        return false;
    ret_tuple->family = 6;
    memcpy(ret_tuple->source, packet.data + 8, 16);
    memcpy(ret_tuple->destination, packet.data + 24, 16);
    return read_l4(span_head(span_skip(packet, IP6_HEADER_SIZE), size), packet.data[6], ret_tuple);
}

/* The tuple of a frame that every card hashes in the same way. */
static bool read_tuple(const struct buf *frame, struct tuple *ret_tuple)
{
    struct span octets = span_of(buf_data(frame), buf_size(frame));

    if (octets.size < ETHERNET_HEADER_SIZE || frame->mbuf.nb_segs > 1 ||
        (frame->mbuf.ol_flags & FAULTS_SEEN) != 0) {
        return false;
    }
    uint16_t type = load_be16(octets.data + ETHERTYPE_OFFSET);
    struct span packet = span_skip(octets, ETHERNET_HEADER_SIZE);

    return type == ETHERTYPE_IP4   ? read_ip4(packet, ret_tuple)
           : type == ETHERTYPE_IP6 ? read_ip6(packet, ret_tuple)
                                   : false;
}

static bool is_hash_right(const struct nic_eth *self, const struct buf *frame,
                          const struct tuple *tuple)
{
    const struct nic_steering *steering = &self->nic.steering;
    uint32_t hash = rss_hash(steering->key, tuple->family, tuple->source, tuple->destination,
                             tuple->source_port, tuple->destination_port);

    return (frame->mbuf.ol_flags & RTE_MBUF_F_RX_RSS_HASH) != 0 && frame->mbuf.hash.rss == hash &&
           steering->reta[hash & (steering->reta_size - 1u)] == self->queue;
}

static void judge_frame(struct nic_eth *self, const struct buf *frame)
{
    struct tuple tuple = {0};

    if (!read_tuple(frame, &tuple))
        return;
    if (!is_hash_right(self, frame, &tuple)) {
        self->stats.hash_bad++;
        atomic_store_explicit(&self->port->is_hash_wrong, true, memory_order_relaxed);
        return;
    }
    uint32_t *needed = &self->hashes_needed[tuple.family == 4 ? 0 : 1];

    self->stats.hash_good++;
    if (*needed > 0 && --*needed == 0)
        self->nic.steering.is_hardware = true;
}

void nic_eth_rss_judge(struct nic_eth *self, struct buf *const *frames, uint32_t count)
{
    bool is_proved = self->hashes_needed[0] == 0 && self->hashes_needed[1] == 0;

    self->bursts++;
    if (is_proved)
        count = self->bursts % SAMPLE_INTERVAL == 0 ? 1 : 0;
    for (uint32_t i = 0; i < count; i++)
        judge_frame(self, frames[i]);
    /* Wrong on one queue is wrong on all. */
    if (atomic_load_explicit(&self->port->is_hash_wrong, memory_order_relaxed)) {
        self->nic.steering.is_hardware = false;
        self->is_judged = false;
    }
}
