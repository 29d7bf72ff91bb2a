/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_NIC_ETH_INTERNAL_H
#define DATAPLANE_WIRE_PORT_NIC_ETH_INTERNAL_H

#include <rte_ethdev.h>
#include <rte_ring.h>
#include <stdatomic.h>

#include "dataplane/wire/port/exception.h"
#include "dataplane/wire/port/gate.h"
#include "dataplane/wire/port/nic_eth.h"

/* Private to nic_eth*.c. */

#define NIC_ETH_DEVICE_SIZE   512u
#define NIC_ETH_MTU_USUAL     1500u
#define NIC_ETH_FRAME_HEADERS 18u  /* Ethernet and one 802.1Q tag */
#define NIC_ETH_PASS_SLOTS    512u /* frames on their way from one queue to another */
#define NIC_ETH_HASHES_NEEDED 32u  /* right ones, of each IP version, until the card is trusted */

/* What is being opened. */
struct nic_eth_setup {
    const struct nic_eth_options *options;
    const struct nic_eth_driver *driver;
    char device[NIC_ETH_DEVICE_SIZE]; /* with the arguments we add */
    struct rte_eth_dev_info info;
    uint32_t data_size; /* of the smallest pool's buffers */
    uint32_t pool_size; /* buffers in the smallest pool */
    uint32_t mtu;       /* of IP packets that the port is to carry */
    uint16_t ethdev_mtu;
    uint16_t receive_descriptors, send_descriptors;
    bool is_client; /* to be connected with another process, which may not be there yet */
    char *error;
};

/* What is peculiar about a driver. All fields may be 0: an ordinary card. */
struct nic_eth_driver {
    const char *name;
    const char *refusal;      /* why it is no wire */
    uint32_t offloads_broken; /* enum nic_offloads */
    uint32_t offloads_dear;   /* done in software, and worse than by the stack */
    bool has_no_rss;
    bool has_thread;    /* the interrupt thread makes and cuts connections, without a lock */
    bool sets_mtu;      /* of its own interface, only by rte_eth_dev_set_mtu() */
    bool has_peer_mac;  /* the address it names is that of the interface at the other end */
    bool keeps_buffers; /* what it holds when it is closed never comes back */
    /* Before the device is made: add arguments. */
    enum err (*prepare)(struct nic_eth_setup *setup);
    /* With setup->info: descriptors, MTU, what pools must be like. */
    enum err (*fit)(struct nic_eth_setup *setup);
};

/* One queue pair. Its shard's, but for what says otherwise. */
struct nic_eth {
    struct nic nic; /* first */
    struct nic_eth_port *port;
    uint16_t queue;
    bool is_out;               /* handed out; control thread before, shard after */
    bool is_judged;            /* hashes are compared: RSS is on and was not found wrong */
    uint32_t hashes_needed[2]; /* IPv4, IPv6 */
    uint32_t bursts;
    struct buf_pool *pool;
    struct rte_mempool *mempool; /* below it */
    struct nic_eth_queue_stats stats;
    struct gate_seat seat;
};

struct nic_eth_port {
    uint16_t id;
    uint16_t queue_count;
    bool needs_prepare;    /* offloads were granted that rte_eth_tx_prepare() may have to finish */
    bool has_no_checksums; /* received frames are good as they are */
    bool is_gated;         /* see gate.h */
    bool is_started;
    uint32_t frame_max; /* octets, but for TSO */
    const struct nic_eth_driver *driver;
    const char *driver_name;
    struct rte_device *device;
    struct exception *exception; /* NULL: none */
    struct rte_ring **passes;    /* [from * queue_count + to]; NULL with one queue */
    unsigned int interface;      /* of the kernel, below it; 0: none */
    _Atomic bool is_gone;        /* that interface is */
    _Atomic bool is_hash_wrong;  /* some queue found so: for good */
    struct nic_eth *queues;      /* [queue_count] */
};

static inline struct nic_eth *nic_eth_of(struct nic *nic)
{
    return (struct nic_eth *)(void *)nic;
}

/* Writes the complaint for people; returns err. */
__attribute__((format(printf, 3, 4))) enum err
nic_eth_complain(struct nic_eth_setup *setup, enum err err, const char *format, ...);

/** The same after a call of DPDK's failed: the complaint is what DPDK logged first, if it did. */
enum err nic_eth_complain_of(struct nic_eth_setup *setup, enum err err, const char *what,
                             int result);

/* ---- nic_eth_configure.c ---- */

void nic_eth_measure_pools(struct nic_eth_setup *setup);
/** Descriptors and MTU, when setup->info is known. */
enum err nic_eth_fit(struct nic_eth_setup *setup) MUST_CHECK;
enum err nic_eth_configure(struct nic_eth_port *port, struct nic_eth_setup *setup,
                           uint8_t key[NIC_RSS_KEY_SIZE]) MUST_CHECK;
enum err nic_eth_set_up_queues(struct nic_eth_port *port, struct nic_eth_setup *setup) MUST_CHECK;
/** What the nics say of themselves. */
enum err nic_eth_describe(struct nic_eth_port *port, struct nic_eth_setup *setup) MUST_CHECK;

/* ---- nic_eth_driver.c ---- */

/** By the name of a device, "net_memif0,...", or of a driver. Never NULL. */
const struct nic_eth_driver *nic_eth_driver_find(const char *device);

/* ---- nic_eth_queue.c ---- */

/** Ops, rings and the rest of each queue that needs no device. */
void nic_eth_queues_init(struct nic_eth_port *port, struct buf_pool *const *pools);
/** Seats at the gate (gate.h), where the driver wants it: once the port has its id, before it
 * starts. */
void nic_eth_queues_gate(struct nic_eth_port *port);
/** From here on there is an exception path. Before nics are handed out. */
void nic_eth_queues_except(struct nic_eth_port *port);
/** Frames still on their way are released. CHECKs that no nic is out. */
void nic_eth_queues_fini(struct nic_eth_port *port);

/* ---- nic_eth_rss.c ---- */

/** What rte_eth_dev_configure() gets: a random key. */
void nic_eth_rss_configure(const struct nic_eth_setup *setup, uint8_t key[NIC_RSS_KEY_SIZE],
                           struct rte_eth_conf *conf);
/** Key and table that the started port has, or ours if it has none; into every queue's nic. */
void nic_eth_rss_start(struct nic_eth_port *port, const struct nic_eth_setup *setup,
                       const uint8_t key[NIC_RSS_KEY_SIZE]);
/** Compare what the card says of these frames with what it should. */
void nic_eth_rss_judge(struct nic_eth *self, struct buf *const *frames, uint32_t count);

#endif
