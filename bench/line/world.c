/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stations and the switch between them. A frame begins at its IP header and finds its station by
 * the last two octets of the destination.
 *
 * Limits: WORLD_STATION_MAX stations; QUEUE frames wait for one, from near and from far each, a
 * sender keeps the others.
 */
#include "bench/line/world.h"

#include <stdlib.h>

#define QUEUE        4096u
#define FRAME_SIZE   1600u
#define FRAMES       32768u
#define RETAINED     (64u << 20)
#define FLOWS        65536u
#define WALL_START   1700000000000000ll
#define DESTINATION  18u /* of an IPv4 header: the last two octets of the address */
#define HEADER_COUNT 65536u

struct queue {
    struct buf *frames[QUEUE];
    tick_us due[QUEUE];
    uint32_t first, count;
};

struct station {
    struct nic nic; /* first */
    struct world *world;
    uint8_t name[2];
    struct buf_pool *receive, *retained, *headers, *clones;
    struct flow_plane *plane; /* NULL: gone */
    struct queue near, far;
    uint32_t frames_max; /* received in a turn */
};

struct world {
    struct tick_source clock;
    tick_us now;
    struct station *stations[WORLD_STATION_MAX];
    uint32_t count;
    uint8_t far_net, few_net;
    tick_us far_time;    /* 0: no net is far */
    uint32_t frames_max; /* of few_net's stations; 0: it has as many as the others */
};

/* ---- time ---- */

static tick_us clock_monotonic(void *context)
{
    return ((const struct world *)context)->now;
}

static wall_us clock_wall(void *context)
{
    return WALL_START + (wall_us)((const struct world *)context)->now;
}

struct world *world_new(void)
{
    struct world *world = calloc(1, sizeof(*world));

    CHECK(world != NULL);
    world->clock =
        (struct tick_source){.monotonic = clock_monotonic, .wall = clock_wall, .context = world};
    world->now = TICK_S(1);
    return world;
}

const struct tick_source *world_clock(struct world *world)
{
    return &world->clock;
}

tick_us world_now(const struct world *world)
{
    return world->now;
}

void world_advance(struct world *world, tick_us to)
{
    CHECK(to >= world->now);
    world->now = to;
}

void world_set_far(struct world *world, uint8_t net, tick_us time)
{
    world->far_net = net;
    world->far_time = time;
}

void world_set_frames(struct world *world, uint8_t net, uint32_t max)
{
    world->few_net = net;
    world->frames_max = max;
}

/* ---- the switch ---- */

static bool queue_is_due(const struct queue *queue, tick_us now)
{
    return queue->count > 0 && queue->due[queue->first] <= now;
}

static uint32_t queue_take(struct queue *queue, tick_us now, struct buf **ret_frames, uint32_t max)
{
    uint32_t got = 0;

    while (got < max && queue_is_due(queue, now)) {
        ret_frames[got++] = queue->frames[queue->first];
        queue->first = (queue->first + 1) % QUEUE;
        queue->count--;
    }
    return got;
}

static void queue_put(struct queue *queue, struct buf *frame, tick_us due)
{
    uint32_t last = (queue->first + queue->count++) % QUEUE;

    queue->frames[last] = frame;
    queue->due[last] = due;
}

static void queue_free(struct queue *queue)
{
    for (; queue->count > 0; queue->count--)
        buf_release(queue->frames[(queue->first + queue->count - 1) % QUEUE]);
}

static struct station *station_of(struct nic *nic)
{
    return (struct station *)(void *)nic;
}

static uint32_t station_receive(struct nic *nic, tick_us now, struct buf **ret_frames, uint32_t max)
{
    struct station *station = station_of(nic);

    max = max < station->frames_max ? max : station->frames_max;
    uint32_t got = queue_take(&station->near, now, ret_frames, max);

    return got + queue_take(&station->far, now, ret_frames + got, max - got);
}

static struct station *station_find(const struct world *world, const uint8_t name[2])
{
    for (uint32_t i = 0; i < world->count; i++) {
        if (memcmp(world->stations[i]->name, name, sizeof(world->stations[i]->name)) == 0)
            return world->stations[i];
    }
    CHECK(false && "a frame is for a station");
    return NULL;
}

static uint32_t station_send(struct nic *nic, tick_us now, struct buf **frames, uint32_t count)
{
    const struct station *from = station_of(nic);
    struct world *world = from->world;
    uint32_t sent = 0;

    for (; sent < count; sent++) {
        struct station *to = station_find(world, buf_data(frames[sent]) + DESTINATION);
        bool is_far = (to->name[0] == world->far_net) != (from->name[0] == world->far_net);
        struct queue *queue = is_far && world->far_time > 0 ? &to->far : &to->near;
        struct buf *copy = queue->count < QUEUE ? buf_acquire(to->receive) : NULL;
        if (copy == NULL)
            break;
        for (struct rte_mbuf *part = &frames[sent]->mbuf; part != NULL; part = part->next) {
            memcpy(buf_data(copy) + buf_size(copy), buf_data((struct buf *)(void *)part),
                   part->data_len);
            buf_extend(copy, part->data_len);
        }
        queue_put(queue, copy, queue == &to->far ? now + world->far_time : now);
        buf_release_chain(frames[sent]);
    }
    return sent;
}

static void station_free(struct nic *nic)
{
    struct station *station = station_of(nic);

    queue_free(&station->near);
    queue_free(&station->far);
    station->plane = NULL;
}

static const struct nic_ops station_ops = {
    .receive = station_receive, .send = station_send, .free = station_free};

/* ---- stations ---- */

static struct buf_pool *pool_of(uint32_t size, uint32_t count)
{
    return buf_pool_new(&(struct buf_pool_options){.data_size = size, .count_max = count});
}

static struct station *station_new(struct world *world, uint32_t buffer_size)
{
    struct station *station = calloc(1, sizeof(*station));

    CHECK(station != NULL && world->count < WORLD_STATION_MAX);
    station->world = world;
    station->nic = (struct nic){.ops = &station_ops,
                                .mtu_max = 1500,
                                .segments_max = 8,
                                .offloads = NIC_IS_L3 | NIC_TX_MULTI_SEGMENT,
                                .steering = {.queue_count = 1, .reta_size = 1}};
    station->receive = pool_of(FRAME_SIZE, FRAMES);
    station->retained = pool_of(buffer_size, RETAINED / buffer_size);
    station->headers = pool_of(STACK_HEADER_SIZE, HEADER_COUNT);
    station->clones = pool_of(64, HEADER_COUNT);
    world->stations[world->count++] = station;
    return station;
}

struct flow_plane *world_join(struct world *world, uint8_t net, uint8_t host, uint32_t buffer_size)
{
    struct station *station = station_new(world, buffer_size);
    bool has_few = world->frames_max > 0 && net == world->few_net;
    struct stack_address address = {{FLOW_FAMILY_IP4, 0, 0, {10, 0, net, host}}, 16};
    struct stack_port_options port = {
        .nic = &station->nic, .addresses = &address, .address_count = 1};
    struct stack_options options = {.pool = station->retained,
                                    .header_pool = station->headers,
                                    .clone_pool = station->clones,
                                    .receive_pool = station->receive,
                                    .receive_reserve = FRAMES / 8,
                                    .ports = &port,
                                    .port_count = 1,
                                    .flow_count_max = FLOWS,
                                    .time_wait_max = FLOWS,
                                    .syn_cache_max = 4096,
                                    .neighbour_max = 64,
                                    .destination_max = 64,
                                    .orphan_time = TICK_S(10),
                                    .now = world->now,
                                    .seed = {(uint64_t)net << 8 | host, 4711},
                                    .core_count = 1,
                                    .tcp = tcp_policy_default()};
    struct stack *stack;

    station->frames_max = has_few ? world->frames_max : UINT32_MAX;
    station->name[0] = net;
    station->name[1] = host;
    enum err err = stack_new(&options, &stack);
    CHECK(err == ERR_OK);
    station->plane = stack_plane(stack);
    return station->plane;
}

bool world_has_frames(const struct world *world, const struct flow_plane *plane)
{
    for (uint32_t i = 0; i < world->count; i++) {
        if (world->stations[i]->plane == plane)
            return queue_is_due(&world->stations[i]->near, world->now) ||
                   queue_is_due(&world->stations[i]->far, world->now);
    }
    return false;
}

tick_us world_arrival(const struct world *world)
{
    tick_us arrival = TICK_NEVER;

    for (uint32_t i = 0; i < world->count; i++) {
        const struct queue *far = &world->stations[i]->far;
        if (far->count > 0 && far->due[far->first] < arrival)
            arrival = far->due[far->first];
    }
    return arrival;
}

void world_free(struct world *world)
{
    for (uint32_t i = 0; i < world->count; i++) {
        struct station *station = world->stations[i];
        CHECK(station->plane == NULL);
        buf_pool_free(station->receive);
        buf_pool_free(station->retained);
        buf_pool_free(station->headers);
        buf_pool_free(station->clones);
        free(station);
    }
    free(world);
}
