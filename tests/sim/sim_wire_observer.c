/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The observer sits where the hosts' cables meet the network and reads every packet as it was sent,
 * before anything happens to it. It knows nothing of the stacks and holds each TCP segment against
 * what no endpoint may do:
 *
 *   - octets are those of the stream, at their place, also when sent again;
 *   - nothing is sent beyond the largest window edge that the other side ever offered;
 *   - the acknowledgement number never falls, and is never beyond what the other side sent;
 *   - the window edge is never taken back by more than a unit of its scale;
 *   - SACK blocks lie in what the other side sent;
 *   - timestamps are in every segment once both SYNs had them, and never fall;
 *   - no segment is longer than the other side's MSS allows; SYN options come with SYNs only;
 *   - only new data is ECN-capable;
 *   - the FIN has one sequence number.
 *
 * It also plants what sim_wire's negative controls need (REWRITE, BEYOND), and plays senders that
 * cut their segments anew.
 *
 * Limits: FLOW_MAX connections at a time, the oldest are forgotten.
 */
#include <endian.h>
#include <stdio.h>
#include <stdlib.h>

#include "dataplane/wire/port/link_sim_frame.h"
#include "tests/sim/sim_wire.h"
#include "tests/wire/segment.h"

#define FLOW_MAX  512u
#define MSS4      536u
#define MSS6      1220u
#define SCALE_MAX 14u

#define RECUT_ONE_IN 10u
#define RECUT_MAX    64u

struct direction { /* what one endpoint sent so far */
    bool has_syn, has_scale, has_timestamps, has_fin, has_ack, has_rst;
    uint32_t isn, end; /* end: highest sequence number sent, plus one */
    uint32_t ack, edge, timestamp, fin;
    uint8_t scale;
    uint16_t mss; /* of its SYN: what the other may send */
};

struct observed { /* ends[0] has the lower address and port */
    struct flow_address ends[2];
    struct direction directions[2];
    uint64_t used;
};

struct sim_observer {
    struct sim_wire *sim;
    uint64_t clock;
    struct observed flows[FLOW_MAX];
};

/* What is being looked at. */
struct sight {
    struct sim_observer *observer;
    struct observed *flow;
    struct direction *own, *other;
    const struct test_segment *segment;
    uint32_t end;
};

struct sim_observer *sim_observer_new(struct sim_wire *sim)
{
    struct sim_observer *observer = calloc(1, sizeof(*observer));
    CHECK(observer != NULL);

    observer->sim = sim;
    return observer;
}

void sim_observer_free(struct sim_observer *observer)
{
    free(observer);
}

/* ---- which connection ---- */

static int compare_ends(const struct flow_address *a, const struct flow_address *b)
{
    int order = memcmp(a->ip, b->ip, sizeof(a->ip));
    return order != 0 ? order : (int)a->port - (int)b->port;
}

static struct observed *flow_find(struct sim_observer *observer, const struct flow_address ends[2])
{
    struct observed *oldest = &observer->flows[0];

    for (uint32_t i = 0; i < FLOW_MAX; i++) {
        struct observed *flow = &observer->flows[i];
        if (flow->used > 0 && flow_address_is_equal(&flow->ends[0], &ends[0]) &&
            flow_address_is_equal(&flow->ends[1], &ends[1]))
            return flow;
        if (flow->used < oldest->used)
            oldest = flow;
    }
    *oldest = (struct observed){.ends = {ends[0], ends[1]}};
    return oldest;
}

static void sight_begin(struct sim_observer *observer, const struct test_segment *segment,
                        struct sight *sight)
{
    struct flow_address ends[2] = {{.family = segment->family, .port = segment->source_port},
                                   {.family = segment->family, .port = segment->destination_port}};

    memcpy(ends[0].ip, segment->source, 16);
    memcpy(ends[1].ip, segment->destination, 16);
    bool is_swapped = compare_ends(&ends[0], &ends[1]) > 0;
    if (is_swapped) {
        struct flow_address first = ends[0];
        ends[0] = ends[1];
        ends[1] = first;
    }
    struct observed *flow = flow_find(observer, ends);
    flow->used = ++observer->clock;
    *sight = (struct sight){.observer = observer,
                            .flow = flow,
                            .own = &flow->directions[is_swapped],
                            .other = &flow->directions[!is_swapped],
                            .segment = segment,
                            .end = segment->sequence + test_segment_length(segment)};
}

/* The stream that this segment carries part of; 0: nobody of ours. */
static uint64_t stream_of(const struct sight *sight)
{
    const struct sim_wire *sim = sight->observer->sim;
    const struct test_segment *segment = sight->segment;

    for (uint32_t i = sim->conn_count; i > 0; i--) {
        const struct sim_conn *conn = &sim->conns[i - 1];
        bool is_client = segment->source_port == conn->client.port &&
                         memcmp(segment->source, conn->client.ip, 16) == 0;
        bool is_server = segment->destination_port == conn->client.port &&
                         memcmp(segment->destination, conn->client.ip, 16) == 0;
        if (conn->has_client && (is_client || is_server))
            return sim_stream(i - 1, is_client ? 0 : 1);
    }
    return 0;
}

static void wrong(const struct sight *sight, const char *what)
{
    const struct test_segment *segment = sight->segment;

    sim_violation(sight->observer->sim, "%u > %u flags %02x seq %u+%u ack %u win %u: %s",
                  segment->source_port, segment->destination_port, segment->flags,
                  segment->sequence - sight->own->isn, segment->payload_size,
                  segment->acknowledgement - sight->other->isn, segment->window, what);
}

static bool is_before(uint32_t a, uint32_t b)
{
    return (int32_t)(a - b) < 0;
}

/* ---- what must hold ---- */

static void look_syn(struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    const struct test_options *options = &segment->options;

    if (!(segment->flags & SEGMENT_SYN)) {
        if (options->has_mss || options->has_scale || options->has_sack_permitted)
            wrong(sight, "options of a SYN");
        return;
    }
    if (sight->own->has_syn && sight->own->isn == segment->sequence)
        return;
    /* A new connection; the other side's part belongs to it if this is the first answer. Another
     * one answers a SYN that came late, and the other side still speaks of what was before. */
    if (!(segment->flags & SEGMENT_ACK) || sight->own->has_syn)
        *sight->other = (struct direction){0};
    *sight->own = (struct direction){.has_syn = true,
                                     .isn = segment->sequence,
                                     .end = segment->sequence,
                                     .has_scale = options->has_scale,
                                     .scale = options->scale,
                                     .has_timestamps = options->has_timestamps,
                                     .timestamp = options->timestamp_value};
    sight->own->mss = options->has_mss ? options->mss : segment->family == 4 ? MSS4 : MSS6;
}

static void look_octets(const struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    uint64_t stream = stream_of(sight);
    uint64_t position = (uint32_t)(segment->sequence - sight->own->isn) - 1u;

    if (segment->payload_size == 0 || stream == 0)
        return;
    for (uint32_t i = 0; i < segment->payload_size; i++) {
        if (segment->payload[i] != test_stream_octet(stream, position + i)) {
            wrong(sight, "other octets than the stream's");
            return;
        }
    }
}

static void look_window(const struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    const struct direction *other = sight->other;

    if (segment->payload_size > 0 && other->has_ack &&
        is_before(other->edge, segment->sequence + segment->payload_size))
        wrong(sight, "beyond every window that was offered");
    uint32_t headers = segment->options.has_timestamps ? 12 : 0;
    if (segment->options.sack_count > 0)
        headers += 4 + 8 * segment->options.sack_count;
    if (other->has_syn && segment->payload_size > 0 &&
        segment->payload_size + headers > (other->mss > 64 ? other->mss : 64u) && other->mss >= 536)
        wrong(sight, "longer than the other side's MSS");
}

static void look_ack(const struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    struct direction *own = sight->own;
    const struct direction *other = sight->other;
    bool is_scaled = own->has_scale && other->has_scale && !(segment->flags & SEGMENT_SYN);
    uint8_t scale = is_scaled ? (own->scale < SCALE_MAX ? own->scale : SCALE_MAX) : 0;
    uint32_t edge = segment->acknowledgement + ((uint32_t)segment->window << scale);

    if (!(segment->flags & SEGMENT_ACK) || !other->has_syn)
        return;
    if (is_before(other->end, segment->acknowledgement))
        wrong(sight, "acknowledges what was never sent");
    if (own->has_ack && is_before(segment->acknowledgement, own->ack))
        wrong(sight, "the acknowledgement number fell");
    if (own->has_ack && is_before(edge + (1u << scale), own->edge))
        wrong(sight, "the window shrank");
    for (uint32_t i = 0; i < segment->options.sack_count; i++) {
        const uint32_t *block = segment->options.sack[i];
        if (!is_before(block[0], block[1]) || is_before(other->end, block[1]) ||
            is_before(block[0], other->isn))
            wrong(sight, "a SACK block of what was never sent");
    }
    own->ack = segment->acknowledgement;
    if (!own->has_ack || is_before(own->edge, edge))
        own->edge = edge;
    own->has_ack = true;
}

static void look_timestamps(const struct sight *sight)
{
    const struct test_options *options = &sight->segment->options;
    struct direction *own = sight->own;

    if (sight->segment->flags & SEGMENT_SYN || !own->has_timestamps ||
        !sight->other->has_timestamps)
        return;
    if (!options->has_timestamps) {
        wrong(sight, "no timestamps");
        return;
    }
    if (is_before(options->timestamp_value, own->timestamp))
        wrong(sight, "the timestamp fell");
    own->timestamp = options->timestamp_value;
}

static void look_ecn(const struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    bool is_new = segment->payload_size > 0 && !is_before(segment->sequence, sight->own->end);

    if ((segment->tos & 3) != 0 && !is_new)
        wrong(sight, "ECN-capable, but not new data");
}

static void look_end(const struct sight *sight)
{
    const struct test_segment *segment = sight->segment;
    struct direction *own = sight->own;

    if (own->has_fin && is_before(own->fin, sight->end) && sight->end != own->fin + 1)
        wrong(sight, "beyond its own FIN");
    if (segment->flags & SEGMENT_FIN) {
        if (own->has_fin && own->fin + 1 != sight->end)
            wrong(sight, "the FIN has another number");
        own->has_fin = true;
        own->fin = sight->end - 1;
    }
    if (is_before(own->end, sight->end))
        own->end = sight->end;
}

static void look(struct sight *sight)
{
    look_syn(sight);
    if (!sight->own->has_syn || sight->segment->flags & SEGMENT_RST)
        return; /* its beginning was not seen, or it is only the end */
    look_octets(sight);
    look_window(sight);
    look_ack(sight);
    look_timestamps(sight);
    look_ecn(sight);
    look_end(sight);
}

/* ---- plants ---- */

/* The octets of a packet, changed as planted; both ends see a right checksum. */
static void plant(struct sim_observer *observer, const struct test_segment *segment,
                  const struct sight *sight, uint8_t *octets, uint32_t size, bool is_l3)
{
    struct sim_wire *sim = observer->sim;
    struct link_frame map;

    if (!link_frame_parse(span_of(octets, size), is_l3, &map))
        return;
    bool is_repeated = segment->payload_size > 0 && sight->own->has_syn &&
                       is_before(segment->sequence, sight->own->end);
    if (sim->options.plant == SIM_PLANT_REWRITE && is_repeated) {
        octets[map.end - 1] ^= 0x55;
        link_frame_complete(octets, &map, false, true);
    }
    if (sim->options.plant == SIM_PLANT_BEYOND && segment->window < 30000 &&
        !(segment->flags & SEGMENT_SYN)) {
        octets[map.l4 + 14] += 0x80;
        link_frame_complete(octets, &map, false, true);
    }
}

/* ---- a sender that cuts its segments anew ---- */

/* Our own never send what begins in the middle of what they sent before; others do. So now and then
 * a segment begins a little earlier, and has as many octets less at its end. */
static void recut(struct sim_observer *observer, const struct sight *sight, uint8_t *octets,
                  uint32_t size, bool is_l3)
{
    struct sim_wire *sim = observer->sim;
    const struct test_segment *segment = sight->segment;
    uint64_t stream = stream_of(sight);
    uint64_t position = (uint32_t)(segment->sequence - sight->own->isn) - 1u;
    struct link_frame map;

    if (sim->is_gentle || sim->is_healed || stream == 0 || segment->payload_size == 0 ||
        segment->flags & SEGMENT_FIN || rng_below(&sim->chance, RECUT_ONE_IN) != 0)
        return;
    uint32_t by = 1 + rng_below(&sim->chance, RECUT_MAX);
    if (position < by || !link_frame_parse(span_of(octets, size), is_l3, &map))
        return;
    uint32_t sequence = htobe32(segment->sequence - by);
    memcpy(octets + map.l4 + 4, &sequence, sizeof(sequence));
    for (uint32_t i = 0; i < segment->payload_size; i++)
        octets[map.end - segment->payload_size + i] = test_stream_octet(stream, position - by + i);
    link_frame_complete(octets, &map, false, true);
}

/* ---- the wire ---- */

static void trace(struct sim_observer *observer, const struct sight *sight, uint32_t station)
{
    const struct test_segment *segment = sight->segment;

    if (!observer->sim->options.is_traced)
        return;
    sim_trace(observer->sim, "%u: %u > %u flags %02x seq %u+%u ack %u win %u ecn %u sacks %u",
              station, segment->source_port, segment->destination_port, segment->flags,
              segment->sequence - sight->own->isn, segment->payload_size,
              segment->acknowledgement - sight->other->isn, segment->window, segment->tos & 3u,
              segment->options.sack_count);
}

/* The packet as the card would have finished it, with an Ethernet header in front. */
static uint32_t finished(const uint8_t *octets, uint32_t size, bool is_l3, uint8_t *ret_frame)
{
    uint32_t front = is_l3 ? TEST_L2_SIZE : 0;
    struct link_frame map;

    if (size + front > TEST_FRAME_MAX)
        return 0;
    memset(ret_frame, 0, front);
    memcpy(ret_frame + front, octets, size);
    if (is_l3) {
        ret_frame[12] = octets[0] >> 4 == 4 ? 0x08 : 0x86;
        ret_frame[13] = octets[0] >> 4 == 4 ? 0x00 : 0xdd;
    }
    if (!link_frame_parse(span_of(ret_frame, size + front), false, &map) || map.protocol != 6)
        return 0;
    return size + front;
}

bool sim_observer_filter(void *context, uint32_t station, tick_us now, uint8_t *octets,
                         uint32_t size)
{
    static uint8_t frame[TEST_FRAME_MAX];
    struct sim_observer *observer = context;
    const struct sim_host *host = &observer->sim->hosts[station];
    bool is_l3 = host->station.offloads & NIC_IS_L3;
    struct test_segment segment;
    struct link_frame map;
    struct sight sight;

    (void)now;
    uint32_t frame_size = finished(octets, size, is_l3, frame);
    if (frame_size == 0)
        return true;
    /* What stays partial between two cards is right for them. */
    (void)link_frame_parse(span_of(frame, frame_size), false, &map);
    if (host->station.has_partial)
        link_frame_complete(frame, &map, true, true);
    const char *fault = test_segment_parse(span_of(frame, frame_size), &segment);
    if (fault != NULL) {
        sim_violation(observer->sim, "a bad segment was sent: %s", fault);
        return true;
    }
    sight_begin(observer, &segment, &sight);
    trace(observer, &sight, station);
    plant(observer, &segment, &sight, octets, size, is_l3);
    recut(observer, &sight, octets, size, is_l3);
    look(&sight);
    return true;
}
