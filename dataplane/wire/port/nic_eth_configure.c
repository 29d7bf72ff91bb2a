/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a port can do against what is wanted of it: descriptors, MTU, buffers, offloads.
 *
 * Offloads: RTE_ETH_TX_OFFLOAD_MBUF_FAST_FREE stays off: it means that no sent buffer is referenced
 * by anybody else, and payload always is, until it is acknowledged. TSO without checksum offload
 * does not exist. VLAN tags stay in the frames, and no frames are joined (LRO): the stack does it.
 *
 * The ethdev's MTU and that of the stack are two things (nic_eth_driver.c): nic.mtu_max is the
 * stack's.
 */
#include <rte_errno.h>

#include "base/buf.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/nic_eth_internal.h"

#define DESCRIPTORS_USUAL 1024u
#define SEGMENTS_UNKNOWN  8u
#define SEGMENTS_MAX      64u
#define TSO_SIZE_MAX      65000u /* with headers below 64 KB, the limit of an IP packet */
#define CHECKSUMS                                                                                  \
    (NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_UDP_CHECKSUM | NIC_RX_CHECKSUM)
#define RX_CHECKSUMS                                                                               \
    (RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM | RTE_ETH_RX_OFFLOAD_UDP_CKSUM)

/* Ours, and what a device must be capable of for it. */
static const struct offload {
    uint32_t ours;
    uint64_t send, receive;
    uint32_t needs; /* of ours */
} offloads[] = {
    {.ours = NIC_TX_IP4_CHECKSUM, .send = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM},
    {.ours = NIC_TX_TCP_CHECKSUM, .send = RTE_ETH_TX_OFFLOAD_TCP_CKSUM},
    {.ours = NIC_TX_UDP_CHECKSUM, .send = RTE_ETH_TX_OFFLOAD_UDP_CKSUM},
    {.ours = NIC_TX_MULTI_SEGMENT, .send = RTE_ETH_TX_OFFLOAD_MULTI_SEGS},
    {.ours = NIC_RX_CHECKSUM, .receive = RX_CHECKSUMS},
    {.ours = NIC_TX_TSO,
     .send = RTE_ETH_TX_OFFLOAD_TCP_TSO,
     .needs = NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_MULTI_SEGMENT},
};

/* ---- fit ---- */

void nic_eth_measure_pools(struct nic_eth_setup *setup)
{
    const struct nic_eth_options *options = setup->options;

    setup->data_size = UINT32_MAX;
    setup->pool_size = UINT32_MAX;
    for (uint32_t i = 0; i < options->queue_count; i++) {
        CHECK(buf_pool_is_on_mempool(options->pools[i]));
        uint32_t data_size = buf_pool_data_size(options->pools[i]);
        uint32_t pool_size = buf_pool_mempool(options->pools[i])->size;

        setup->data_size = data_size < setup->data_size ? data_size : setup->data_size;
        setup->pool_size = pool_size < setup->pool_size ? pool_size : setup->pool_size;
    }
}

enum err nic_eth_fit(struct nic_eth_setup *setup)
{
    const struct nic_eth_options *options = setup->options;
    const struct rte_eth_dev_info *info = &setup->info;

    if (options->queue_count > info->max_rx_queues || options->queue_count > info->max_tx_queues) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "%u queues are too many, at most %u",
                                options->queue_count,
                                RTE_MIN(info->max_rx_queues, info->max_tx_queues));
    }
    setup->mtu = options->mtu > 0 ? options->mtu : RTE_MIN(NIC_ETH_MTU_USUAL, info->max_mtu);
    setup->receive_descriptors =
        options->receive_descriptors > 0 ? options->receive_descriptors : DESCRIPTORS_USUAL;
    setup->send_descriptors =
        options->send_descriptors > 0 ? options->send_descriptors : DESCRIPTORS_USUAL;
    setup->ethdev_mtu = (uint16_t)setup->mtu;
    if (setup->driver->fit != NULL) {
        enum err err = setup->driver->fit(setup);
        if (err != ERR_OK)
            return err;
    }
    if (setup->ethdev_mtu > info->max_mtu || setup->ethdev_mtu < info->min_mtu) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "an MTU of %u is not within %u and %u",
                                setup->ethdev_mtu, info->min_mtu, info->max_mtu);
    }
    return ERR_OK;
}

/* ---- configure ---- */

/* Ours that the device grants and the caller wants. */
static uint32_t negotiate(const struct nic_eth_setup *setup)
{
    uint32_t wanted = setup->options->offloads, granted = 0;

    if (wanted == NIC_ETH_OFFLOADS_AUTO)
        wanted &= ~setup->driver->offloads_dear;
    wanted &= ~setup->driver->offloads_broken;
    for (uint32_t i = 0; i < COUNT_OF(offloads); i++) {
        const struct offload *offload = &offloads[i];

        if ((wanted & offload->ours) != 0 && (granted & offload->needs) == offload->needs &&
            (setup->info.tx_offload_capa & offload->send) == offload->send &&
            (setup->info.rx_offload_capa & offload->receive) == offload->receive) {
            granted |= offload->ours;
        }
    }
    return granted;
}

static enum err choose_offloads(struct nic_eth_port *port, struct nic_eth_setup *setup,
                                struct rte_eth_conf *conf)
{
    uint32_t granted = negotiate(setup);
    uint32_t frame = setup->mtu + NIC_ETH_FRAME_HEADERS;

    for (uint32_t i = 0; i < COUNT_OF(offloads); i++) {
        if ((granted & offloads[i].ours) != 0) {
            conf->txmode.offloads |= offloads[i].send;
            conf->rxmode.offloads |= offloads[i].receive;
        }
    }
    if (frame > setup->data_size) {
        if ((setup->info.rx_offload_capa & RTE_ETH_RX_OFFLOAD_SCATTER) == 0) {
            return nic_eth_complain(setup, ERR_CONFIG_VALUE,
                                    "buffers of %u octets are too small for an MTU of %u",
                                    setup->data_size, setup->mtu);
        }
        conf->rxmode.offloads |= RTE_ETH_RX_OFFLOAD_SCATTER;
    }
    port->needs_prepare = (granted & (NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM |
                                      NIC_TX_UDP_CHECKSUM | NIC_TX_TSO)) != 0;
    port->frame_max = frame;
    port->has_no_checksums = setup->options->has_no_checksums;
    if (port->has_no_checksums) /* asked of the driver they are not: nobody computes them */
        granted |= CHECKSUMS;
    for (uint32_t i = 0; i < port->queue_count; i++)
        port->queues[i].nic.offloads = granted;
    return ERR_OK;
}

enum err nic_eth_configure(struct nic_eth_port *port, struct nic_eth_setup *setup,
                           uint8_t key[NIC_RSS_KEY_SIZE])
{
    struct rte_eth_conf conf = {.rxmode.mtu = setup->ethdev_mtu};
    enum err err = choose_offloads(port, setup, &conf);

    if (err != ERR_OK)
        return err;
    nic_eth_rss_configure(setup, key, &conf);
    int result = rte_eth_dev_configure(port->id, port->queue_count, port->queue_count, &conf);
    if (result != 0)
        return nic_eth_complain_of(setup, ERR_CONFIG_VALUE, "the device refuses its configuration",
                                   result);
    if (setup->driver->sets_mtu) {
        result = rte_eth_dev_set_mtu(port->id, setup->ethdev_mtu);
        if (result != 0)
            return nic_eth_complain_of(setup, ERR_CONFIG_VALUE, "the device refuses the MTU",
                                       result);
    }
    result = rte_eth_dev_adjust_nb_rx_tx_desc(port->id, &setup->receive_descriptors,
                                              &setup->send_descriptors);
    return result == 0 ? ERR_OK
                       : nic_eth_complain_of(setup, ERR_CONFIG_VALUE,
                                             "so many descriptors cannot be", result);
}

enum err nic_eth_set_up_queues(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    int node = rte_eth_dev_socket_id(port->id);
    unsigned int socket = node >= 0 ? (unsigned int)node : 0;

    for (uint16_t i = 0; i < port->queue_count; i++) {
        int result = rte_eth_rx_queue_setup(port->id, i, setup->receive_descriptors, socket, NULL,
                                            port->queues[i].mempool);
        if (result == 0)
            result = rte_eth_tx_queue_setup(port->id, i, setup->send_descriptors, socket, NULL);
        if (result != 0)
            return nic_eth_complain_of(setup, ERR_SYSTEM, "a queue cannot be made", result);
    }
    return ERR_OK;
}

/* ---- describe ---- */

static uint16_t segments_max(const struct rte_eth_dev_info *info)
{
    uint16_t frame = info->tx_desc_lim.nb_mtu_seg_max, tso = info->tx_desc_lim.nb_seg_max;

    if (frame == 0)
        frame = SEGMENTS_UNKNOWN;
    if (tso == 0)
        tso = SEGMENTS_UNKNOWN;
    uint16_t segments = frame < tso ? frame : tso;
    return segments < SEGMENTS_MAX ? segments : SEGMENTS_MAX;
}

enum err nic_eth_describe(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    struct rte_ether_addr mac;
    int result = rte_eth_macaddr_get(port->id, &mac);

    if (result != 0)
        return nic_eth_complain_of(setup, ERR_SYSTEM, "the device has no link address", result);
    if (setup->driver->has_peer_mac)
        mac.addr_bytes[5] ^= 1;
    for (uint32_t i = 0; i < port->queue_count; i++) {
        struct nic *nic = &port->queues[i].nic;

        memcpy(nic->mac, mac.addr_bytes, sizeof(nic->mac));
        nic->mtu_max = (uint16_t)setup->mtu;
        nic->segments_max =
            (nic->offloads & NIC_TX_MULTI_SEGMENT) != 0 ? segments_max(&setup->info) : 1;
        nic->tso_size_max = (nic->offloads & NIC_TX_TSO) != 0 ? TSO_SIZE_MAX : 0;
    }
    return ERR_OK;
}
