/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What has to be known of drivers of DPDK 22.11, virtual ones most of all: each row of the table
 * is a set of experiences, and the comment at the function says what goes wrong without it.
 *
 * A driver that is not in the table is an ordinary card: its capabilities are believed.
 */
#include <errno.h>
#include <linux/if_packet.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/wire/port/nic_eth_internal.h"

#define MEMIF_BUFFER_DEFAULT 2048u
#define MEMIF_BUFFER_MAX     65535u
#define PACKET_FRAME_DEFAULT 2048u
/* struct tpacket2_hdr with its address, and alignment, in front of a frame of an AF_PACKET ring. */
#define PACKET_FRAME_HEADERS 66u
#define PACKET_SEND_HEADERS  (TPACKET2_HDRLEN - (uint32_t)sizeof(struct sockaddr_ll))
#define XDP_DESCRIPTORS      2048u

/* ---- arguments of devices: "net_x0,name=value,name=value" ---- */

static const char *argument_find(const char *device, const char *name)
{
    size_t size = strlen(name);

    for (const char *at = strchr(device, ','); at != NULL; at = strchr(at, ',')) {
        at++;
        if (strncmp(at, name, size) == 0 && at[size] == '=')
            return at + size + 1;
    }
    return NULL;
}

static uint32_t argument_number(const char *device, const char *name, uint32_t otherwise)
{
    const char *value = argument_find(device, name);

    return value == NULL ? otherwise : (uint32_t)strtoul(value, NULL, 10);
}

static enum err argument_add(struct nic_eth_setup *setup, const char *name, uint32_t value)
{
    size_t size = strlen(setup->device);

    if (argument_find(setup->device, name) != NULL)
        return ERR_OK;
    int added = snprintf(setup->device + size, NIC_ETH_DEVICE_SIZE - size, ",%s=%u", name, value);
    if (added < 0 || (size_t)added >= NIC_ETH_DEVICE_SIZE - size)
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "too many arguments");
    return ERR_OK;
}

static enum err limit_mtu(struct nic_eth_setup *setup, uint32_t mtu_max, const char *remedy)
{
    if (setup->options->mtu > mtu_max) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "an MTU of %u is too large, at most %u%s",
                                setup->options->mtu, mtu_max, remedy);
    }
    setup->mtu = setup->mtu < mtu_max ? setup->mtu : mtu_max;
    return ERR_OK;
}

/* ---- net_memif ---- */

/*
 * bsize, the size of a buffer in the shared memory, is what limits frames, not the ethdev's MTU:
 * the driver says max_rx_pktlen 1518 and has no mtu_set, so an MTU of 9000 is refused, though it
 * carries such frames.
 *
 * A frame never takes more than one buffer. For longer ones the sender sets a NEXT flag that it
 * does not clear in a first slot, so that later the frames of two slots are taken for one; and a
 * receiver that finds no second buffer in its pool leaks the first.
 *
 * When the other process dies, the EAL's interrupt thread unmaps the rings at once, whoever is
 * reading them: gate.h. And rings beyond those that the other end has are read as garbage: both
 * need the same number of queues.
 */
static bool argument_is(const char *device, const char *name, const char *expected)
{
    const char *value = argument_find(device, name);

    return value != NULL && strncmp(value, expected, strlen(expected)) == 0;
}

/*
 * A server that was killed leaves its socket file, and the driver cannot bind to a name that is
 * there. Nobody listens: it is removed.
 */
static void memif_remove_stale_socket(const char *device)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const char *path = argument_find(device, "socket");
    size_t size = path == NULL ? 0 : strcspn(path, ",");
    struct stat status;

    if (!argument_is(device, "role", "server") || !argument_is(device, "socket-abstract", "no") ||
        size == 0 || size >= sizeof(address.sun_path)) {
        return;
    }
    memcpy(address.sun_path, path, size);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0 && errno == ECONNREFUSED &&
        lstat(address.sun_path, &status) == 0 && S_ISSOCK(status.st_mode)) {
        unlink(address.sun_path);
    }
    close(fd);
}

static enum err memif_prepare(struct nic_eth_setup *setup)
{
    uint32_t size = setup->options->mtu + NIC_ETH_FRAME_HEADERS;

    setup->is_client = !argument_is(setup->device, "role", "server");
    memif_remove_stale_socket(setup->device);
    if (size <= MEMIF_BUFFER_DEFAULT)
        return ERR_OK;
    return argument_add(setup, "bsize", (size + 63) / 64 * 64);
}

static enum err memif_fit(struct nic_eth_setup *setup)
{
    uint32_t size = argument_number(setup->device, "bsize", MEMIF_BUFFER_DEFAULT);

    if (size <= NIC_ETH_FRAME_HEADERS || size > MEMIF_BUFFER_MAX)
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "bsize is impossible");
    if (setup->data_size < size) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE,
                                "buffers of %u octets are too small for bsize=%u", setup->data_size,
                                size);
    }
    setup->ethdev_mtu = (uint16_t)(setup->mtu < NIC_ETH_MTU_USUAL ? setup->mtu : NIC_ETH_MTU_USUAL);
    return limit_mtu(setup, size - NIC_ETH_FRAME_HEADERS, " with this bsize");
}

/* ---- net_tap ---- */

/*
 * Receive descriptors are the buffers that one frame may be scattered over, and so many lie idle
 * in each queue: as few as one frame takes.
 *
 * Checksums are computed with DPDK's generic loop, TSO is cut in software and then refuses segments
 * of the full size, since it counts the Ethernet header against the MTU: the frame is never sent,
 * nor any behind it.
 *
 * It says that it takes frames of 1,522 octets, and more cannot be configured.
 *
 * The link address that the driver names is the kernel's end. The stack gets another one, or both
 * would be the same to a bridge.
 *
 * The driver sees frames only after a real-time signal said so: see eal_start(). It claims RSS, but
 * this needs classifiers that many kernels lack, and the hash is not told.
 */
static enum err tap_fit(struct nic_eth_setup *setup)
{
    if (setup->options->receive_descriptors == 0) {
        uint32_t frame = setup->mtu + NIC_ETH_FRAME_HEADERS;

        setup->receive_descriptors = (uint16_t)((frame - 1) / setup->data_size + 1);
    }
    return limit_mtu(setup, setup->info.max_rx_pktlen - RTE_ETHER_HDR_LEN - RTE_ETHER_CRC_LEN, "");
}

/* ---- net_af_packet ---- */

static enum err packet_prepare(struct nic_eth_setup *setup)
{
    return argument_add(setup, "qpairs", setup->options->queue_count);
}

/*
 * A frame is copied whole into one buffer, whatever that buffer holds; the driver checks the sizes
 * once, when the queue is made. Longer ones are cut by the kernel without a word, so the MTU is
 * what fits.
 *
 * When its send ring is full the driver waits in poll(), and the shard with it, though seldom for
 * long: the kernel takes frames in the call that offers them.
 *
 * The MTU of the interface is somebody else's, and is left alone.
 */
static enum err packet_fit(struct nic_eth_setup *setup)
{
    uint32_t size = argument_number(setup->device, "framesz", PACKET_FRAME_DEFAULT);

    if (size <= PACKET_FRAME_HEADERS + NIC_ETH_FRAME_HEADERS)
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "framesz is impossible");
    if (setup->data_size < size - PACKET_SEND_HEADERS) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE,
                                "buffers of %u octets are too small for framesz=%u",
                                setup->data_size, size);
    }
    setup->ethdev_mtu = (uint16_t)(setup->mtu < NIC_ETH_MTU_USUAL ? setup->mtu : NIC_ETH_MTU_USUAL);
    return limit_mtu(setup, size - PACKET_FRAME_HEADERS - NIC_ETH_FRAME_HEADERS,
                     " with this framesz");
}

/* ---- net_af_xdp ---- */

static enum err xdp_prepare(struct nic_eth_setup *setup)
{
    return argument_add(setup, "queue_count", setup->options->queue_count);
}

/*
 * The pool itself becomes the memory that the kernel writes to: a buffer with its headers must not
 * be larger than a page, and as many as there are descriptors belong to the kernel all the time.
 * When it is closed the driver forgets them.
 */
static enum err xdp_fit(struct nic_eth_setup *setup)
{
    uint32_t element = (uint32_t)(sizeof(struct rte_mempool_objhdr) + sizeof(struct rte_mbuf)) +
                       BUF_HEADROOM + setup->data_size;

    if (element > 4096)
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "buffers are larger than a page");
    if (setup->pool_size < 2 * XDP_DESCRIPTORS) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "%u buffers are too few, %u are needed",
                                setup->pool_size, 2 * XDP_DESCRIPTORS);
    }
    if (setup->options->receive_descriptors == 0)
        setup->receive_descriptors = XDP_DESCRIPTORS;
    if (setup->options->send_descriptors == 0)
        setup->send_descriptors = XDP_DESCRIPTORS;
    return ERR_OK;
}

/* ---- the table ---- */

#define CHECKSUMS                                                                                  \
    (NIC_TX_IP4_CHECKSUM | NIC_TX_TCP_CHECKSUM | NIC_TX_UDP_CHECKSUM | NIC_RX_CHECKSUM)

static const struct nic_eth_driver drivers[] = {
    {.name = "net_memif", .has_thread = true, .prepare = memif_prepare, .fit = memif_fit},
    {.name = "net_tap",
     .offloads_broken = NIC_TX_TSO,
     .offloads_dear = CHECKSUMS,
     .has_no_rss = true,
     .sets_mtu = true,
     .has_peer_mac = true,
     .fit = tap_fit},
    {.name = "net_af_packet", .has_no_rss = true, .prepare = packet_prepare, .fit = packet_fit},
    {.name = "net_af_xdp",
     .has_no_rss = true,
     .keeps_buffers = true,
     .prepare = xdp_prepare,
     .fit = xdp_fit},
    {.name = "net_ring",
     .refusal = "it hands over the sender's own buffers, which two stacks cannot share"},
    {.name = "net_tun", .refusal = "it has no Ethernet header; use net_tap"},
};
static const struct nic_eth_driver ordinary = {0};

const struct nic_eth_driver *nic_eth_driver_find(const char *device)
{
    for (uint32_t i = 0; i < COUNT_OF(drivers); i++) {
        size_t size = strlen(drivers[i].name);

        if (strncmp(device, drivers[i].name, size) == 0)
            return &drivers[i];
    }
    return &ordinary;
}
