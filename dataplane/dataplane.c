/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network of the process: what each core gets, by driver.
 *
 *   host   a pool on slabs and kernel sockets over it
 *   dpdk   the same kernel sockets and the engine over pools that ports share, joined by flow_pair
 *          (dataplane/wire/port/setup.h has what is the process' alone)
 *
 * A core's parts are made by the control thread and used by the core's thread only.
 */
#include "dataplane/dataplane_dpdk.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/log.h"
#include "dataplane/flow_pair.h"
#include "dataplane/wire/port/eal.h"

#define ORPHAN_TIME     TICK_S(30)
#define BUFFER_OVERHEAD 256u /* header and headroom of a buffer */

/* A heap block for each buffer lets AddressSanitizer see overruns and use after free. */
#ifdef __SANITIZE_ADDRESS__
#define BUFFER_BACKING BUF_BACKING_HEAP
#else
#define BUFFER_BACKING BUF_BACKING_SLAB
#endif

struct dataplane_core {
    struct buf_pool *pool; /* NULL: DPDK's, which has them all */
    struct flow_plane *plane;
};

struct dataplane {
    struct dataplane_options options;
    struct dataplane_dpdk *dpdk; /* NULL: kernel sockets alone */
    struct dataplane_core *cores;
};

static uint32_t buffer_count(const struct dataplane_options *options)
{
    uint64_t count = options->buffer_memory / (options->buffer_size + BUFFER_OVERHEAD);

    return count > UINT32_MAX ? UINT32_MAX : (uint32_t)count;
}

enum err dataplane_new(const struct dataplane_options *options, struct dataplane **ret_dataplane,
                       char ret_why[DATAPLANE_WHY_SIZE])
{
    struct dataplane *dataplane = calloc(1, sizeof(*dataplane));

    CHECK(dataplane != NULL && options->core_count > 0);
    dataplane->options = *options;
    dataplane->cores = calloc(options->core_count, sizeof(*dataplane->cores));
    CHECK(dataplane->cores != NULL);
    if (options->driver == DATAPLANE_DPDK) {
        enum err err = dataplane_dpdk_new(&dataplane->options, &dataplane->dpdk, ret_why);
        if (err != ERR_OK) {
            free(dataplane->cores);
            free(dataplane);
            return err;
        }
    }
    *ret_dataplane = dataplane;
    return ERR_OK;
}

enum err dataplane_core_new(struct dataplane *dataplane, uint16_t core, uint64_t seed,
                            struct flow_plane **ret_plane, char ret_why[DATAPLANE_WHY_SIZE])
{
    const struct dataplane_options *options = &dataplane->options;
    struct dataplane_core *member = &dataplane->cores[core];

    CHECK(core < options->core_count && member->plane == NULL);
    if (dataplane->dpdk == NULL)
        member->pool = buf_pool_new(&(struct buf_pool_options){.data_size = options->buffer_size,
                                                               .count_max = buffer_count(options),
                                                               .backing = BUFFER_BACKING});
    struct flow_host_options host = {
        .pool = dataplane->dpdk == NULL ? member->pool : dataplane_dpdk_pool(dataplane->dpdk, core),
        .flow_count_max = options->kernel_flow_count_max > 0 ? options->kernel_flow_count_max
                                                             : options->flow_count_max,
        .orphan_time = ORPHAN_TIME,
        .seed = seed};
    enum err err = flow_host_new(&host, &member->plane);
    if (err != ERR_OK) {
        snprintf(ret_why, DATAPLANE_WHY_SIZE, "cannot set up kernel sockets: %s", err_text(err));
        return err;
    }
    if (dataplane->dpdk != NULL) {
        struct flow_plane *kernel = member->plane;
        member->plane = NULL;
        TRY(dataplane_dpdk_join(dataplane->dpdk, core, kernel, &member->plane, ret_why));
    }
    *ret_plane = member->plane;
    return ERR_OK;
}

tick_us dataplane_watch(struct dataplane *dataplane, tick_us now)
{
    return dataplane->dpdk == NULL ? TICK_NEVER : dataplane_dpdk_watch(dataplane->dpdk, now);
}

void dataplane_thread_begin(struct dataplane *dataplane)
{
    if (dataplane->dpdk == NULL)
        return;
    /* Without its own place a thread only lacks the mempools' caches. */
    enum err err = eal_thread_enter();
    if (err != ERR_OK)
        log_line(LOG_WARNING, "DPDK knows too many threads: buffers cost more on this core");
}

void dataplane_thread_end(struct dataplane *dataplane)
{
    if (dataplane->dpdk != NULL)
        eal_thread_leave();
}

void dataplane_core_free(struct dataplane *dataplane, uint16_t core)
{
    struct dataplane_core *member = &dataplane->cores[core];

    if (member->plane != NULL)
        flow_plane_free(member->plane);
    if (member->pool != NULL)
        buf_pool_free(member->pool);
    *member = (struct dataplane_core){0};
}

uint32_t dataplane_flows(struct flow_plane *plane, uint64_t *cursor,
                         struct dataplane_flow *ret_flows, uint32_t max)
{
    if (flow_pair_wire(plane) != NULL)
        return dataplane_dpdk_flows(plane, cursor, ret_flows, max);
    *cursor = UINT64_MAX;
    return 0;
}

uint32_t dataplane_counters(struct flow_plane *plane, struct dataplane_counter *ret_counters,
                            uint32_t max)
{
    return flow_pair_wire(plane) == NULL ? 0 : dataplane_dpdk_counters(plane, ret_counters, max);
}

uint32_t dataplane_counters_known(struct dataplane_counter *ret_counters, uint32_t max)
{
    return dataplane_dpdk_counters_known(ret_counters, max);
}

void dataplane_free(struct dataplane *dataplane)
{
    if (dataplane->dpdk != NULL)
        dataplane_dpdk_free(dataplane->dpdk);
    free(dataplane->cores);
    free(dataplane);
}
