/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing a port of DPDK's ethdev.
 *
 * Steps, each undone by nic_eth_port_free() as far as it was reached:
 *   prepare    the driver's row adds arguments       (nic_eth_driver.c)
 *   probe      the device is made, or was by eal_start() if it is hardware
 *   fit        descriptors, MTU and pools against what the device says it can
 *   configure  offloads that both it and the caller want, RSS with a random key
 *   queues     receive from the caller's pools     (all three: nic_eth_configure.c)
 *   start      a memif client has to wait here for its server
 *   rss        what key and table it is in the end  (nic_eth_rss.c)
 *
 * Not here: what happens to frames (nic_eth_queue.c).
 */
#include "dataplane/wire/port/nic_eth.h"

#include <errno.h>
#include <net/if.h>
#include <rte_cycles.h>
#include <rte_errno.h>
#include <stdarg.h>
#include <stdlib.h>

#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/nic_eth_internal.h"

#define CONNECT_INTERVAL TICK_MS(20)
#define CONNECT_PATIENCE TICK_S(2)
#define LINK_INTERVAL    TICK_MS(5)

enum err nic_eth_complain(struct nic_eth_setup *setup, enum err err, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vsnprintf(setup->error, NIC_ETH_ERROR_SIZE, format, list);
    va_end(list);
    return err;
}

enum err nic_eth_complain_of(struct nic_eth_setup *setup, enum err err, const char *what,
                             int result)
{
    if (setup->error[0] == '\0')
        return nic_eth_complain(setup, err, "%s: %s", what, rte_strerror(-result));
    return err;
}

/* ---- probe ---- */

/* The name of a device is what comes before its arguments. */
static void device_name(const char *device, char ret_name[RTE_ETH_NAME_MAX_LEN])
{
    size_t size = strcspn(device, ",");

    size = size < RTE_ETH_NAME_MAX_LEN ? size : RTE_ETH_NAME_MAX_LEN - 1;
    memcpy(ret_name, device, size);
    ret_name[size] = '\0';
}

static enum err probe(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    char name[RTE_ETH_NAME_MAX_LEN];

    uint16_t id;

    device_name(setup->device, name);
    /* Hardware was found when the EAL started. */
    if (rte_eth_dev_get_port_by_name(name, &id) != 0) {
        int result = rte_dev_probe(setup->device);

        if (result != 0)
            return nic_eth_complain_of(setup, ERR_CONFIG_VALUE, "no such device", result);
        if (rte_eth_dev_get_port_by_name(name, &id) != 0)
            return nic_eth_complain(setup, ERR_CONFIG_VALUE, "%s is no network port", name);
    } else if (setup->driver->name != NULL) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "%s is in use", name);
    }
    port->id = id;
    nic_eth_queues_gate(port);
    int result = rte_eth_dev_info_get(id, &setup->info);
    if (result != 0)
        return nic_eth_complain_of(setup, ERR_SYSTEM, "no information about the device", result);
    port->device = setup->info.device;
    port->driver_name = setup->info.driver_name;
    port->interface = setup->info.if_index;
    if (nic_eth_driver_find(port->driver_name) != setup->driver) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "the device is to be named after %s",
                                port->driver_name);
    }
    return ERR_OK;
}

/* ---- start ---- */

static tick_us tick_now(void)
{
    const struct tick_source *source = tick_source_system();

    return source->monotonic(source->context);
}

static void wait_for(tick_us time)
{
    rte_delay_us_sleep((unsigned int)time);
}

static void stop(void *context)
{
    struct nic_eth_port *port = context;

    if (port->is_started)
        (void)rte_eth_dev_stop(port->id);
    port->is_started = false;
}

static void stop_and_close(void *context)
{
    struct nic_eth_port *port = context;

    stop(port);
    (void)rte_eth_dev_close(port->id);
}

/*
 * net_memif takes a connection down without a lock, from the caller of stop or, when the other end
 * goes, from the EAL's interrupt thread: both at once free and unmap the same memory twice. So it
 * is stopped in that thread.
 */
static void run_where_safe(struct nic_eth_port *port, void (*run)(void *context))
{
    if (port->driver->has_thread)
        eal_run_in_interrupt_thread(run, port);
    else
        run(port);
}

/*
 * The start of a memif client fails while nobody listens. A server that listens, but has not
 * started yet, accepts and says goodbye, and the client does not try again by itself.
 */
static int connect_client(struct nic_eth_port *port, tick_us deadline)
{
    int result = rte_eth_dev_start(port->id);

    while (tick_now() < deadline) {
        port->is_started = result == 0;
        if (port->is_started && nic_eth_port_wait_link(port, CONNECT_PATIENCE))
            return 0;
        run_where_safe(port, stop);
        wait_for(CONNECT_INTERVAL);
        result = rte_eth_dev_start(port->id);
    }
    port->is_started = result == 0;
    return nic_eth_port_has_link(port) ? 0 : -ETIMEDOUT;
}

static enum err start(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    int result = setup->is_client ? connect_client(port, tick_now() + setup->options->connect_time)
                                  : rte_eth_dev_start(port->id);

    if (result != 0) {
        enum err err = setup->is_client ? ERR_TIMEOUT : ERR_SYSTEM;
        return nic_eth_complain_of(setup, err, "the device does not start", result);
    }
    port->is_started = true;
    /* Neighbour discovery (RFC 4861) is multicast. */
    if (rte_eth_allmulticast_enable(port->id) != 0)
        (void)rte_eth_promiscuous_enable(port->id);
    return ERR_OK;
}

static enum err open_exception(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    const struct nic *nic = &port->queues[0].nic;
    struct exception_options options = {
        .name = setup->options->exception,
        .mtu = nic->mtu_max,
        .queue_count = port->queue_count,
    };

    if (options.name == NULL)
        return ERR_OK;
    memcpy(options.mac, nic->mac, sizeof(options.mac));
    enum err err = exception_new(&options, &port->exception, setup->error, NIC_ETH_ERROR_SIZE);
    if (err == ERR_OK)
        nic_eth_queues_except(port);
    return err;
}

/* ---- open and close ---- */

static enum err open_device(struct nic_eth_port *port, struct nic_eth_setup *setup)
{
    uint8_t key[NIC_RSS_KEY_SIZE];
    enum err err = setup->driver->prepare != NULL ? setup->driver->prepare(setup) : ERR_OK;

    nic_eth_measure_pools(setup);
    if (err == ERR_OK)
        err = probe(port, setup);
    if (err == ERR_OK)
        err = nic_eth_fit(setup);
    if (err == ERR_OK)
        err = nic_eth_configure(port, setup, key);
    if (err == ERR_OK)
        err = nic_eth_set_up_queues(port, setup);
    if (err == ERR_OK)
        err = nic_eth_describe(port, setup);
    if (err == ERR_OK)
        err = open_exception(port, setup);
    if (err == ERR_OK)
        err = start(port, setup);
    if (err == ERR_OK)
        nic_eth_rss_start(port, setup, key);
    return err;
}

static enum err check_options(struct nic_eth_setup *setup)
{
    const struct nic_eth_options *options = setup->options;

    CHECK(options->queue_count > 0 && options->queue_count <= NIC_ETH_QUEUES_MAX);
    CHECK(options->pools != NULL);
    setup->driver = nic_eth_driver_find(options->device);
    if (setup->driver->refusal != NULL) {
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "%s is no wire: %s", setup->driver->name,
                                setup->driver->refusal);
    }
    if (strlen(options->device) >= NIC_ETH_DEVICE_SIZE)
        return nic_eth_complain(setup, ERR_CONFIG_VALUE, "the device has too many arguments");
    memcpy(setup->device, options->device, strlen(options->device) + 1);
    return ERR_OK;
}

enum err nic_eth_port_new(const struct nic_eth_options *options, struct nic_eth_port **ret_port,
                          char ret_error[NIC_ETH_ERROR_SIZE])
{
    struct nic_eth_setup setup = {.options = options, .error = ret_error};

    ret_error[0] = '\0';
    enum err err = check_options(&setup);
    if (err != ERR_OK)
        return err;
    struct nic_eth_port *port = calloc(1, sizeof(*port));
    CHECK(port != NULL);
    port->id = RTE_MAX_ETHPORTS;
    port->queue_count = options->queue_count;
    port->driver = setup.driver;
    port->is_gated = setup.driver->has_thread;
    nic_eth_queues_init(port, options->pools);
    eal_complaints_to(ret_error, NIC_ETH_ERROR_SIZE);
    err = open_device(port, &setup);
    eal_complaints_to(NULL, 0);
    if (err != ERR_OK) {
        nic_eth_port_free(port);
        return err;
    }
    ret_error[0] = '\0'; /* of attempts that failed before one did not */
    *ret_port = port;
    return ERR_OK;
}

static void close_device(struct nic_eth_port *port)
{
    run_where_safe(port, stop_and_close);
    if (port->device != NULL)
        (void)rte_dev_remove(port->device);
}

void nic_eth_port_free(struct nic_eth_port *port)
{
    if (port == NULL)
        return;
    exception_free(port->exception);
    if (port->id != RTE_MAX_ETHPORTS)
        close_device(port);
    for (uint32_t i = 0; port->driver->keeps_buffers && i < port->queue_count; i++)
        buf_mempool_write_off(port->queues[i].pool);
    nic_eth_queues_fini(port);
    free(port);
}

struct nic *nic_eth_queue(struct nic_eth_port *port, uint16_t queue)
{
    CHECK(queue < port->queue_count);
    CHECK(!port->queues[queue].is_out);
    port->queues[queue].is_out = true;
    return &port->queues[queue].nic;
}

/* ---- seeing ---- */

bool nic_eth_port_has_link(const struct nic_eth_port *port)
{
    struct rte_eth_link link = {0};

    return rte_eth_link_get_nowait(port->id, &link) == 0 && link.link_status == RTE_ETH_LINK_UP;
}

bool nic_eth_port_wait_link(const struct nic_eth_port *port, tick_us time)
{
    tick_us deadline = tick_now() + time;

    while (!nic_eth_port_has_link(port)) {
        if (tick_now() >= deadline)
            return false;
        wait_for(LINK_INTERVAL);
    }
    return true;
}

bool nic_eth_port_is_kernel(const struct nic_eth_port *port)
{
    return port->interface != 0;
}

/* Drivers say nothing of it: bursts are empty, or fail, from then on. */
bool nic_eth_port_is_gone(struct nic_eth_port *port)
{
    char name[IF_NAMESIZE];

    if (port->interface != 0 && !port->is_gone && if_indextoname(port->interface, name) == NULL)
        port->is_gone = errno == ENXIO;
    return port->is_gone;
}

const char *nic_eth_port_driver(const struct nic_eth_port *port)
{
    return port->driver_name;
}

struct nic_eth_port_stats nic_eth_port_stats(const struct nic_eth_port *port)
{
    struct rte_eth_stats stats = {0};
    struct exception_stats exceptions = {0};

    (void)rte_eth_stats_get(port->id, &stats);
    if (port->exception != NULL)
        exceptions = exception_get_stats(port->exception);
    return (struct nic_eth_port_stats){
        .received = stats.ipackets,
        .sent = stats.opackets,
        .octets_received = stats.ibytes,
        .octets_sent = stats.obytes,
        .missed = stats.imissed,
        .errors = stats.ierrors,
        .without_buffer = stats.rx_nombuf,
        .send_errors = stats.oerrors,
        .exceptions_out = exceptions.out,
        .exceptions_in = exceptions.in,
        .exceptions_dropped = exceptions.dropped,
        .gone = port->is_gone,
    };
}
