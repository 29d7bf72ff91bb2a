/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The simulated link: stations, what their packets meet on the way, and who gets them.
 *
 *   nic_send()     link_card_check() -> segments -> filter -> the sender's path: MTU, rate and
 *                  queue, loss, corruption, delay, duplication -> the stations it is for
 *                  -> queue by steering -> that queue's heap, by time of arrival
 *   nic_receive()  what has arrived, copied into the queue's pool
 *
 * A packet for a MAC that a station has goes to that station; all others go to every other station,
 * as with a switch that has not learnt. Without Ethernet headers everybody else gets everything.
 *
 * Invariants
 *   1. Nothing depends on addresses of memory or on the machine's clock: chance comes from one
 *      generator, ties are broken by sequence numbers.
 *   2. A packet is received at or after its arrival; without `reorder` those of one station arrive
 *      in the order in which they were sent.
 *   3. Frames without a checksum (ARP and what is not IP) are never corrupted: a real card's CRC
 *      would have caught it, and what it cannot catch happens inside routers, to IP packets.
 *
 * Limits: LINK_SIM_STATION_MAX, LINK_SIM_QUEUE_MAX.
 */
#include "dataplane/wire/port/link_sim.h"

#include <stdlib.h>

#include "dataplane/wire/port/link_sim_internal.h"

#define FNV_OFFSET       14695981039346656037u
#define FNV_PRIME        1099511628211u
#define FINGERPRINT_SIZE 96u /* octets of each packet: all headers */
#define MTU_DEFAULT      1500u
#define SEGMENTS_DEFAULT 8u
#define TSO_DEFAULT      65000u
#define RETA_SIZE        128u
#define ECN_CE           3u

static struct link_nic *link_nic_of(struct nic *nic)
{
    return (struct link_nic *)(void *)nic;
}

bool link_chance(struct link_sim *link, uint32_t per_million)
{
    return per_million > 0 && rng_below(&link->rng, 1000000) < per_million;
}

/* ---- what has not been received yet ---- */

static bool packet_is_before(const struct link_packet *a, const struct link_packet *b)
{
    return a->arrival != b->arrival ? a->arrival < b->arrival : a->sequence < b->sequence;
}

static void heap_swap(struct link_packet **a, struct link_packet **b)
{
    struct link_packet *packet = *a;
    *a = *b;
    *b = packet;
}

static void heap_push(struct link_nic *nic, struct link_packet *packet)
{
    if (nic->heap_count == nic->heap_capacity) {
        nic->heap_capacity = nic->heap_capacity == 0 ? 64 : nic->heap_capacity * 2;
        nic->heap = realloc(nic->heap, nic->heap_capacity * sizeof(struct link_packet *));
        CHECK(nic->heap != NULL);
    }
    uint32_t at = nic->heap_count++;
    packet->sequence = nic->link->sequence++;
    nic->heap[at] = packet;
    while (at > 0 && packet_is_before(nic->heap[at], nic->heap[(at - 1) / 2])) {
        heap_swap(&nic->heap[at], &nic->heap[(at - 1) / 2]);
        at = (at - 1) / 2;
    }
}

static struct link_packet *heap_pop(struct link_nic *nic)
{
    struct link_packet *packet = nic->heap[0];

    nic->heap[0] = nic->heap[--nic->heap_count];
    for (uint32_t at = 0;;) {
        uint32_t least = at;
        for (uint32_t child = 2 * at + 1; child <= 2 * at + 2; child++) {
            if (child < nic->heap_count && packet_is_before(nic->heap[child], nic->heap[least]))
                least = child;
        }
        if (least == at)
            return packet;
        heap_swap(&nic->heap[at], &nic->heap[least]);
        at = least;
    }
}

static void heap_clear(struct link_nic *nic)
{
    for (uint32_t i = 0; i < nic->heap_count; i++)
        free(nic->heap[i]);
    nic->heap_count = 0;
}

/* ---- to whom ---- */

static uint32_t queue_of(struct link_sim *link, const struct link_station *station,
                         const struct link_packet *packet)
{
    const struct nic_steering *steering = NULL;
    uint32_t count = station->options.queue_count, queue = 0;
    struct link_frame map;

    for (uint32_t i = 0; i < count && steering == NULL; i++)
        steering = station->nics[i] == NULL ? NULL : &station->nics[i]->nic.steering;
    if (count == 1 || steering == NULL)
        return 0;
    bool is_ip = link_frame_parse(span_of(packet->octets, packet->size),
                                  station->options.offloads & NIC_IS_L3, &map);
    if (station->options.steering == LINK_SIM_RSS) {
        uint32_t hash = link_frame_rss(packet->octets, &map, steering->key, NIC_RSS_KEY_SIZE);
        queue = steering->reta[hash & (steering->reta_size - 1u)];
    } else if (is_ip) {
        queue = link_frame_rss(packet->octets, &map, link->hidden_key, NIC_RSS_KEY_SIZE) % count;
    }
    if (!link_chance(link, station->options.misplace))
        return queue;
    link->stats.misplaced++;
    return rng_below(&link->rng, count);
}

/* Takes the packet. */
static void deliver(struct link_sim *link, uint32_t index, struct link_packet *packet)
{
    struct link_station *station = &link->stations[index];
    struct link_nic *nic = station->nics[queue_of(link, station, packet)];

    if (nic == NULL || !station->is_connected) {
        link->stats.unconnected++;
        free(packet);
        return;
    }
    if (!(station->options.offloads & NIC_RX_CHECKSUM))
        link_card_complete(packet, station->options.offloads & NIC_IS_L3);
    heap_push(nic, packet);
}

static void deliver_all(struct link_sim *link, uint32_t from, const struct link_packet *packet)
{
    bool is_l3 = link->stations[from].options.offloads & NIC_IS_L3;
    uint32_t known = LINK_SIM_STATION_MAX;

    for (uint32_t i = 0; !is_l3 && i < LINK_SIM_STATION_MAX; i++) {
        if (link->stations[i].nic_count > 0 &&
            memcmp(link->stations[i].options.mac, packet->octets, 6) == 0)
            known = i;
    }
    for (uint32_t i = 0; i < LINK_SIM_STATION_MAX; i++) {
        bool is_for = known == LINK_SIM_STATION_MAX || known == i;
        if (is_for && i != from && link->stations[i].nic_count > 0)
            deliver(link, i, link_packet_copy(packet));
    }
}

/* ---- the path ---- */

static bool path_fits(struct link_sim *link, uint32_t from, const struct link_packet *packet,
                      const struct link_frame *map, tick_us now)
{
    struct link_station *station = &link->stations[from];
    const struct link_sim_path *path = &station->options.path;
    uint8_t answer[LINK_FRAME_ICMP_MAX];

    if (path->mtu == 0 || map->family == 0 || map->end - map->l3 <= path->mtu)
        return true;
    link->stats.too_big++;
    if (!path->has_icmp)
        return false;
    uint32_t size =
        link_frame_too_big(span_of(packet->octets, packet->size), map, path->mtu, answer);
    if (size == 0)
        return false;
    struct link_packet *told = link_packet_new(size);
    memcpy(told->octets, answer, size);
    told->arrival = now + path->delay;
    link->stats.told_too_big++;
    deliver(link, from, told);
    return false;
}

/* The bottleneck: false when its queue is full; else `*ret_leaves` is when the packet is through.
 */
static bool path_queue(struct link_sim *link, struct link_station *station,
                       struct link_packet *packet, const struct link_frame *map, tick_us now,
                       tick_us *ret_leaves)
{
    const struct link_sim_path *path = &station->options.path;

    *ret_leaves = now;
    if (path->rate == 0)
        return true;
    tick_us begin = station->busy_until > now ? station->busy_until : now;
    uint64_t waiting = (begin - now) * path->rate / TICK_S(1);
    if (path->queue_max > 0 && waiting + packet->size > path->queue_max) {
        link->stats.queue_dropped++;
        return false;
    }
    if (path->mark_over > 0 && waiting > path->mark_over && map->family != 0 &&
        link_frame_ecn(packet->octets, map) != 0) {
        if (link_frame_ecn(packet->octets, map) != ECN_CE)
            link->stats.marked++;
        link_frame_mark(packet->octets, map);
    }
    station->busy_until = begin + (packet->size * TICK_S(1) + path->rate - 1) / path->rate;
    *ret_leaves = station->busy_until;
    return true;
}

static bool path_loses(struct link_sim *link, struct link_station *station)
{
    const struct link_sim_path *path = &station->options.path;

    if (link_chance(link, station->is_in_burst ? path->burst_end : path->burst_begin))
        station->is_in_burst = !station->is_in_burst;
    if (link_chance(link, path->lose) ||
        (station->is_in_burst && link_chance(link, path->burst_lose))) {
        link->stats.lost++;
        return true;
    }
    return false;
}

static void path_corrupts(struct link_sim *link, const struct link_station *station,
                          struct link_packet *packet, const struct link_frame *map)
{
    if (map->family == 0 || !link_chance(link, station->options.path.corrupt))
        return;
    link_card_complete(packet, station->options.offloads & NIC_IS_L3);
    uint32_t bit = rng_below(&link->rng, (map->end - map->l3) * 8);
    packet->octets[map->l3 + bit / 8] ^= (uint8_t)(1u << bit % 8);
    link->stats.corrupted++;
}

static tick_us path_arrival(struct link_sim *link, struct link_station *station, tick_us leaves)
{
    const struct link_sim_path *path = &station->options.path;
    tick_us arrival = leaves + path->delay;

    if (path->jitter > 0)
        arrival += rng_below(&link->rng, (uint32_t)path->jitter + 1);
    if (path->reorder_delay > 0 && link_chance(link, path->reorder)) {
        link->stats.reordered++;
        return arrival + 1 + rng_below(&link->rng, (uint32_t)path->reorder_delay);
    }
    if (arrival < station->arrival_last)
        arrival = station->arrival_last;
    station->arrival_last = arrival;
    return arrival;
}

/* Takes the packet. */
static void transmit(struct link_sim *link, uint32_t from, struct link_packet *packet, tick_us now)
{
    struct link_station *station = &link->stations[from];
    bool is_l3 = station->options.offloads & NIC_IS_L3;
    tick_us leaves = now;
    struct link_frame map;

    link->stats.sent++;
    if (!station->options.has_partial)
        link_card_complete(packet, is_l3);
    bool is_kept = station->is_connected;
    if (is_kept && link->filter != NULL)
        is_kept = link->filter(link->filter_context, from, now, packet->octets, packet->size);
    (void)link_frame_parse(span_of(packet->octets, packet->size), is_l3, &map);
    is_kept = is_kept && path_fits(link, from, packet, &map, now) &&
              path_queue(link, station, packet, &map, now, &leaves) && !path_loses(link, station);
    if (is_kept) {
        path_corrupts(link, station, packet, &map);
        packet->arrival = path_arrival(link, station, leaves);
        deliver_all(link, from, packet);
    }
    if (is_kept && link_chance(link, station->options.path.duplicate)) {
        link->stats.duplicated++;
        packet->arrival = path_arrival(link, station, leaves);
        deliver_all(link, from, packet);
    }
    free(packet);
}

/* ---- nic_ops ---- */

static void note(struct link_sim *link, const struct link_nic *nic,
                 const struct link_packet *packet)
{
    uint64_t hash = link->fingerprint;

    for (uint32_t i = 0; i < packet->size && i < FINGERPRINT_SIZE; i++)
        hash = (hash ^ packet->octets[i]) * FNV_PRIME;
    hash = (hash ^ packet->size) * FNV_PRIME;
    hash = (hash ^ nic->now) * FNV_PRIME;
    link->fingerprint = (hash ^ (nic->station << 8 | nic->queue)) * FNV_PRIME;
}

static uint32_t nic_receive_frames(struct nic *base, tick_us now, struct buf **ret_frames,
                                   uint32_t max)
{
    struct link_nic *nic = link_nic_of(base);
    uint32_t count = 0;

    nic->now = now;
    while (count < max && nic->heap_count > 0 && nic->heap[0]->arrival <= now) {
        struct link_packet *packet = heap_pop(nic);
        ret_frames[count] = link_card_receive(nic, packet);
        if (ret_frames[count] == NULL) {
            nic->link->stats.pool_empty++;
        } else {
            nic->link->stats.received++;
            note(nic->link, nic, packet);
            count++;
        }
        free(packet);
    }
    return count;
}

static uint32_t nic_send_frames(struct nic *base, tick_us now, struct buf **frames, uint32_t count)
{
    struct link_nic *nic = link_nic_of(base);
    struct link_sim *link = nic->link;

    nic->now = now;
    for (uint32_t i = 0; i < count; i++) {
        if (link_chance(link, link->stations[nic->station].options.refuse)) {
            link->stats.refused++;
            return i;
        }
        link_card_check(base, frames[i]);
        struct link_packet *whole = link_card_flatten(frames[i]);
        for (uint32_t j = 0; j < link_card_segment_count(frames[i]); j++)
            transmit(link, nic->station, link_card_segment(frames[i], whole, j), now);
        free(whole);
        buf_release_chain(frames[i]);
    }
    return count;
}

static void nic_pass_frame(struct nic *base, uint16_t queue, struct buf *frame)
{
    struct link_nic *nic = link_nic_of(base);
    struct link_station *station = &nic->link->stations[nic->station];

    CHECK(queue != nic->queue && queue < station->options.queue_count);
    struct link_packet *packet = link_card_flatten(frame);
    packet->is_ip4_partial = packet->is_l4_partial = false;
    packet->is_judged = true;
    packet->verdicts =
        frame->mbuf.ol_flags & (RTE_MBUF_F_RX_IP_CKSUM_MASK | RTE_MBUF_F_RX_L4_CKSUM_MASK);
    packet->arrival = nic->now;
    buf_release_chain(frame);
    nic->link->stats.passed++;
    if (station->nics[queue] != NULL)
        heap_push(station->nics[queue], packet);
    else
        free(packet);
}

static void nic_except_frame(struct nic *base, struct buf *frame)
{
    link_nic_of(base)->link->stats.excepted++;
    buf_release_chain(frame);
}

static tick_us nic_next_arrival(struct nic *base)
{
    const struct link_nic *nic = link_nic_of(base);

    return nic->heap_count == 0 ? TICK_NEVER : nic->heap[0]->arrival;
}

static void nic_free_one(struct nic *base)
{
    struct link_nic *nic = link_nic_of(base);
    struct link_station *station = &nic->link->stations[nic->station];

    heap_clear(nic);
    free(nic->heap);
    station->nics[nic->queue] = NULL;
    station->nic_count--;
    free(nic);
}

static const struct nic_ops link_ops = {
    .receive = nic_receive_frames,
    .send = nic_send_frames,
    .pass = nic_pass_frame,
    .deadline = nic_next_arrival,
    .free = nic_free_one,
};

static const struct nic_ops link_ops_with_exception = {
    .receive = nic_receive_frames,
    .send = nic_send_frames,
    .pass = nic_pass_frame,
    .except = nic_except_frame,
    .deadline = nic_next_arrival,
    .free = nic_free_one,
};

/* ---- the link ---- */

struct link_sim *link_sim_new(uint64_t seed)
{
    struct link_sim *link = calloc(1, sizeof(*link));
    CHECK(link != NULL);

    link->fingerprint = FNV_OFFSET;
    rng_init_seed(&link->rng, seed);
    rng_fill(&link->rng, link->hidden_key, sizeof(link->hidden_key));
    return link;
}

void link_sim_free(struct link_sim *link)
{
    for (uint32_t i = 0; i < LINK_SIM_STATION_MAX; i++)
        CHECK(link->stations[i].nic_count == 0);
    free(link);
}

static void options_complete(struct link_sim_station_options *options)
{
    options->mtu_max = options->mtu_max == 0 ? MTU_DEFAULT : options->mtu_max;
    options->queue_count = options->queue_count == 0 ? 1 : options->queue_count;
    options->segments_max = options->segments_max == 0 ? SEGMENTS_DEFAULT : options->segments_max;
    options->tso_size_max = options->tso_size_max == 0 ? TSO_DEFAULT : options->tso_size_max;
    CHECK(options->queue_count <= LINK_SIM_QUEUE_MAX);
}

static struct link_nic *link_nic_new(struct link_sim *link, uint32_t index, uint32_t queue,
                                     const struct nic_steering *steering)
{
    const struct link_sim_station_options *options = &link->stations[index].options;
    struct link_nic *nic = calloc(1, sizeof(*nic));
    CHECK(nic != NULL && options->pools[queue] != NULL);

    nic->nic = (struct nic){.ops = options->has_exception ? &link_ops_with_exception : &link_ops,
                            .mtu_max = options->mtu_max,
                            .segments_max = options->segments_max,
                            .tso_size_max = options->tso_size_max,
                            .offloads = options->offloads,
                            .steering = *steering};
    nic->nic.steering.queue = (uint16_t)queue;
    memcpy(nic->nic.mac, options->mac, sizeof(nic->nic.mac));
    nic->link = link;
    nic->station = index;
    nic->queue = queue;
    nic->pool = options->pools[queue];
    return nic;
}

uint32_t link_sim_attach(struct link_sim *link, const struct link_sim_station_options *options,
                         struct nic **ret_nics)
{
    struct nic_steering steering = {.reta_size = RETA_SIZE};
    uint32_t index = 0;

    while (index < LINK_SIM_STATION_MAX && link->stations[index].nic_count > 0)
        index++;
    CHECK(index < LINK_SIM_STATION_MAX);
    struct link_station *station = &link->stations[index];
    *station = (struct link_station){.options = *options, .is_connected = true};
    options_complete(&station->options);
    steering.queue_count = (uint16_t)station->options.queue_count;
    steering.is_hardware = options->steering == LINK_SIM_RSS && options->misplace == 0;
    rng_fill(&link->rng, steering.key, sizeof(steering.key));
    for (uint32_t i = 0; i < RETA_SIZE; i++)
        steering.reta[i] = (uint16_t)(i % station->options.queue_count);
    for (uint32_t i = 0; i < station->options.queue_count; i++) {
        station->nics[i] = link_nic_new(link, index, i, &steering);
        station->nic_count++;
        ret_nics[i] = &station->nics[i]->nic;
    }
    return index;
}

void link_sim_set_path(struct link_sim *link, uint32_t station, const struct link_sim_path *path)
{
    CHECK(station < LINK_SIM_STATION_MAX && link->stations[station].nic_count > 0);
    link->stations[station].options.path = *path;
}

void link_sim_set_connected(struct link_sim *link, uint32_t index, bool is_connected)
{
    CHECK(index < LINK_SIM_STATION_MAX);
    struct link_station *station = &link->stations[index];

    station->is_connected = is_connected;
    for (uint32_t i = 0; !is_connected && i < LINK_SIM_QUEUE_MAX; i++) {
        if (station->nics[i] != NULL)
            heap_clear(station->nics[i]);
    }
}

void link_sim_set_filter(struct link_sim *link, link_sim_filter *filter, void *context)
{
    link->filter = filter;
    link->filter_context = context;
}

struct link_sim_stats link_sim_get_stats(const struct link_sim *link)
{
    return link->stats;
}

uint32_t link_sim_under_way(const struct link_sim *link)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < LINK_SIM_STATION_MAX; i++) {
        for (uint32_t j = 0; j < LINK_SIM_QUEUE_MAX; j++) {
            const struct link_nic *nic = link->stations[i].nics[j];
            count += nic == NULL ? 0 : nic->heap_count;
        }
    }
    return count;
}

uint64_t link_sim_fingerprint(const struct link_sim *link)
{
    return link->fingerprint;
}
