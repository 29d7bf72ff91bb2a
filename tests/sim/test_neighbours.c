/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is slow or dead costs nobody else (HAZARDS M20): domains that swallow everything, servers
 * that never greet or answer every command late, names that nobody answers for, servers that take
 * streams by the trickle, a disk whose every call takes five seconds. Half of all mail is for them,
 * or all of it is on that disk; the other destinations must get theirs at SHARE percent of the pace
 * that they have alone.
 *
 * The shipped relay in virtual time: what is measured is who waits for whom, not how fast the
 * machine is, and comes out the same in every run. Each row is played twice, with the trouble and
 * without. The others' mail comes first and may take what it can get, connections above all; that
 * the living are there is known by then. In rows of a backlog their mail is stored, and then their
 * servers begin to greet; in the others it goes straight, from the moment at which it comes.
 *
 * READ_BACK is none of these: mail that is no longer in memory, since the relay was started anew,
 * keeps the pace of mail that is.
 *
 * Limits: what flows and buffers may be used is configured, and checked at the end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/log.h"
#include "relay/body_gate.h"
#include "tests/sim/node.h"
#include "tests/sim/zone.h"

#define SHARE          99u  /* percent of the pace alone, which must be kept */
#define LIVING         4u   /* domains */
#define MESSAGES       320u /* for them, and as many for the others */
#define SENDERS        8u   /* connections with mail for them; as many more have that for others */
#define PER_SITE       2u   /* connections, but where many are to be had */
#define PER_SITE_MANY  24u
#define FLOWS          100u /* half of them outbound */
#define FLOWS_MANY     400u
#define GRAIN          (2 * RTT) /* which connection gets the last message is chance */
#define SENDERS_MAX    (SENDERS + STREAMS + LIVING)
#define STREAMS        40u           /* senders of what goes slowly while it comes */
#define STREAM_SIZE    (300u * 1024) /* more than their servers take in the time of a row */
#define TRICKLE        1024u         /* octets a second */
#define RTT            TICK_MS(40)
#define SLOW_DISK      TICK_S(5)
#define READ_DISK      TICK_MS(20) /* a call, where all mail must be read */
#define USUAL_DISK     300
#define SLOW_REPLY     TICK_S(20)
#define PATIENCE       TICK_S(3600)
#define CONNECTION_MAX 1024u
#define POOL_COUNT     8192u
#define USER_LISTENER  0x10000u
#define LINE_MAX_SIZE  512u

enum trouble {
    NONE,
    BLACK_HOLE,
    NO_GREETING,
    TARPIT,
    SLOW_NAMES,
    SLOW_STREAMS,
    SLOW_CALLS,
    READ_BACK
};

struct row {
    const char *name;
    enum trouble trouble;
    uint32_t dead_count; /* domains */
    bool is_backlog;     /* else it goes straight */
    uint32_t per_site;   /* connections */
};

struct sink {
    bool is_used, is_in_data, is_over;
    bool is_good;
    struct flow flow;
    tick_us due;    /* of the reply; TICK_NEVER: none */
    tick_us sip_at; /* of a stream, by the trickle; 0: it reads all there is */
    const char *reply;
};

struct sender {
    struct flow flow;
    bool has_greeted;
    bool is_dead;             /* mail for the others */
    uint32_t next, step, end; /* messages */
};

struct world {
    const struct row *row;
    enum trouble trouble;
    struct rng rng;
    struct net_sim *net;
    struct disk_sim *disk;
    struct zone *zone;
    struct config *config;
    struct node *node;
    struct buf_pool *pool;
    struct flow_plane *sinks_plane, *senders_plane;
    struct sink sinks[CONNECTION_MAX];
    struct sender senders[SENDERS_MAX];
    uint32_t sender_count;
    uint32_t delivered; /* to the living */
    bool is_open;       /* the good servers greet */
};

static struct flow_address address_of(uint8_t third, uint8_t last, uint16_t port)
{
    return (struct flow_address){
        .family = FLOW_FAMILY_IP4, .port = port, .ip = {198, 51, third, last}};
}

static struct flow_address relay_address(uint16_t port)
{
    return (struct flow_address){.family = FLOW_FAMILY_IP4, .port = port, .ip = {192, 0, 2, 1}};
}

static void say(struct world *world, struct flow_plane *plane, struct flow flow, const char *text)
{
    struct buf_queue queue;

    buf_queue_init(&queue);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, world->pool, span_from_text(text)));
    flow_append(plane, flow, &queue);
    buf_queue_fini(&queue);
}

/* ---- next hops ---- */

static void sink_reply(struct world *world, struct sink *sink, const char *reply)
{
    bool is_late = !sink->is_good && world->trouble == TARPIT;

    sink->reply = reply;
    sink->due = net_sim_now(world->net) + (is_late ? SLOW_REPLY : 0);
}

static void sink_line(struct world *world, struct sink *sink, const char *line)
{
    if (sink->is_in_data) {
        if (strcmp(line, ".") != 0)
            return;
        sink->is_in_data = false;
        world->delivered += sink->is_good;
        sink_reply(world, sink, "250 2.0.0 taken\r\n");
    } else if (strncmp(line, "DATA", 4) == 0) {
        sink->is_in_data = true;
        if (!sink->is_good && world->trouble == SLOW_STREAMS)
            sink->sip_at = net_sim_now(world->net);
        sink_reply(world, sink, "354 go\r\n");
    } else if (strncmp(line, "QUIT", 4) == 0) {
        sink->is_over = true;
    } else {
        sink_reply(world, sink, "250 ok\r\n");
    }
}

/* Without PIPELINING there is one command at a time, and the lines of a message are short. */
static void sink_read(struct world *world, struct sink *sink)
{
    char line[LINE_MAX_SIZE];

    while (sink->sip_at == 0) {
        uint32_t readable = flow_readable(world->sinks_plane, sink->flow);
        readable = readable < FLOW_PULL_MAX ? readable : FLOW_PULL_MAX;
        struct span octets =
            readable > 0 ? flow_pull(world->sinks_plane, sink->flow, readable) : (struct span){0};
        const uint8_t *end = octets.size > 0 ? memchr(octets.data, '\n', octets.size) : NULL;
        if (end == NULL)
            return;
        uint32_t size = (uint32_t)(end - octets.data) + 1;
        assert_true(size >= 2 && size < sizeof(line));
        memcpy(line, octets.data, size - 2);
        line[size - 2] = '\0';
        flow_consume(world->sinks_plane, sink->flow, size);
        sink_line(world, sink, line);
    }
}

/* What is sipped is no dialogue any more: it does not come to its end. */
static void sink_sip(struct world *world, struct sink *sink)
{
    uint32_t size = flow_readable(world->sinks_plane, sink->flow);

    flow_consume(world->sinks_plane, sink->flow, size < TRICKLE ? size : TRICKLE);
    sink->sip_at = net_sim_now(world->net) + TICK_S(1);
}

static void sink_accept(struct world *world, struct flow listener, bool is_good)
{
    struct flow_address peer;
    uint32_t index = 0;
    struct flow flow;

    while (flow_accept(world->sinks_plane, listener, 0, &flow, &peer) == ERR_OK) {
        while (index < CONNECTION_MAX && world->sinks[index].is_used)
            index++;
        assert_true(index < CONNECTION_MAX);
        world->sinks[index] =
            (struct sink){.is_used = true, .flow = flow, .is_good = is_good, .due = TICK_NEVER};
        flow_set_user(world->sinks_plane, flow, index);
        if (is_good || world->trouble != NO_GREETING)
            sink_reply(world, &world->sinks[index], "220 sink.example\r\n");
        if (is_good && !world->is_open)
            world->sinks[index].due = TICK_NEVER;
    }
}

static void sinks_turn(struct world *world)
{
    struct flow_event events[64];
    tick_us now = net_sim_now(world->net);
    uint32_t count = flow_poll(world->sinks_plane, now, events, COUNT_OF(events));

    for (uint32_t i = 0; i < count; i++) {
        if (events[i].user >= USER_LISTENER) {
            sink_accept(world, events[i].flow, events[i].user == USER_LISTENER);
            continue;
        }
        struct sink *sink = &world->sinks[events[i].user];
        sink_read(world, sink);
        sink->is_over |= (events[i].events & (FLOW_PEER_CLOSED | FLOW_RESET)) != 0;
    }
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        struct sink *sink = &world->sinks[i];
        if (sink->is_used && sink->due <= now && !sink->is_over) {
            say(world, world->sinks_plane, sink->flow, sink->reply);
            sink->due = TICK_NEVER;
        }
        if (sink->is_used && sink->sip_at > 0 && sink->sip_at <= now && !sink->is_over)
            sink_sip(world, sink);
        if (sink->is_used && sink->is_over) {
            flow_close(world->sinks_plane, sink->flow);
            *sink = (struct sink){.due = TICK_NEVER};
        }
    }
    flow_flush(world->sinks_plane, now);
}

static void sinks_open(struct world *world)
{
    world->is_open = true;
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        if (world->sinks[i].is_used && world->sinks[i].is_good && world->sinks[i].reply != NULL)
            world->sinks[i].due = net_sim_now(world->net);
    }
}

/* ---- senders ---- */

/* With CHUNKING nobody waits for a 354. */
static void sender_say_stream(struct world *world, uint32_t domain, struct flow flow)
{
    static char body[STREAM_SIZE + 100];
    char text[200];
    size_t size = (size_t)snprintf(body, sizeof(body), "Subject: x\r\n\r\n");

    while (size < STREAM_SIZE)
        size += (size_t)snprintf(body + size, sizeof(body) - size, "%060zu\r\n", size);
    snprintf(text, sizeof(text),
             "MAIL FROM:<> SIZE=%zu\r\nRCPT TO:<u@dead%u.example>\r\nBDAT %zu LAST\r\n", size,
             domain, size);
    say(world, world->senders_plane, flow, text);
    say(world, world->senders_plane, flow, body);
}

static void sender_say_message(struct world *world, struct sender *sender)
{
    static const char body[] = "Subject: x\r\n\r\ntext\r\n";
    const char *kind = sender->is_dead ? "dead" : "living";
    char text[400];

    if (sender->next >= sender->end)
        return;
    uint32_t domain = sender->next % (sender->is_dead ? world->row->dead_count : LIVING);
    sender->next += sender->step;
    if (sender->is_dead && world->trouble == SLOW_STREAMS) {
        sender_say_stream(world, domain, sender->flow);
        return;
    }
    snprintf(text, sizeof(text), "MAIL FROM:<>\r\nRCPT TO:<u@%s%u.example>\r\nBDAT %zu LAST\r\n%s",
             kind, domain, sizeof(body) - 1, body);
    say(world, world->senders_plane, sender->flow, text);
}

static bool has_said(struct world *world, const struct sender *sender, struct span what)
{
    uint32_t readable = flow_readable(world->senders_plane, sender->flow);
    readable = readable < FLOW_PULL_MAX ? readable : FLOW_PULL_MAX;
    struct span octets =
        readable > 0 ? flow_pull(world->senders_plane, sender->flow, readable) : (struct span){0};
    bool is_said =
        octets.size > 0 && memmem(octets.data, octets.size, what.data, what.size) != NULL;

    if (is_said)
        flow_consume(world->senders_plane, sender->flow, readable);
    return is_said;
}

/* A backlog comes all at once; what goes straight, one message after the other. */
static void sender_on_event(struct world *world, struct sender *sender)
{
    if (!sender->has_greeted && has_said(world, sender, SPAN_LITERAL("220 "))) {
        say(world, world->senders_plane, sender->flow, "EHLO client.example\r\n");
        sender->has_greeted = true;
    } else if (has_said(world, sender, SPAN_LITERAL("250 ENHANCEDSTATUSCODES"))) {
        sender_say_message(world, sender);
        while (world->row->is_backlog && sender->next < sender->end)
            sender_say_message(world, sender);
    } else if (has_said(world, sender, SPAN_LITERAL("250 2.0.0 ok "))) {
        sender_say_message(world, sender);
    }
}

static void senders_turn(struct world *world)
{
    struct flow_event events[64];
    tick_us now = net_sim_now(world->net);
    uint32_t count = flow_poll(world->senders_plane, now, events, COUNT_OF(events));

    for (uint32_t i = 0; i < count; i++)
        sender_on_event(world, &world->senders[events[i].user]);
    flow_flush(world->senders_plane, now);
}

/* ---- the world ---- */

static struct flow_plane *plane_new(struct world *world, struct flow_address address)
{
    return net_sim_plane_new(world->net,
                             &(struct net_sim_plane_options){.pool = world->pool,
                                                             .flow_count_max = CONNECTION_MAX,
                                                             .orphan_time = TICK_S(10),
                                                             .address4 = address,
                                                             .address6 = address});
}

static void listen_at(struct world *world, uint8_t third, uint8_t last, bool is_good)
{
    struct flow_listen_options options = {.address = address_of(third, last, 25),
                                          .backlog = CONNECTION_MAX,
                                          .user = USER_LISTENER + !is_good};
    struct flow listener;

    assert_int_equal(ERR_OK, flow_listen(world->sinks_plane, &options, &listener));
}

static void world_domain(struct world *world, const char *kind, uint32_t index, uint8_t third)
{
    char domain[64], data[64];
    uint8_t last = (uint8_t)(index % 200 + 1);

    snprintf(domain, sizeof(domain), "%s%u.example", kind, index);
    snprintf(data, sizeof(data), "198.51.%u.%u", third, last);
    bool is_named = third == 100 || world->trouble != SLOW_NAMES;
    assert_true(
        zone_add(world->zone, domain, is_named ? "A" : "MX", is_named ? data : "TIMEOUT", 3600));
    if (index < 200) /* the others share their address */
        listen_at(world, third, last, third == 100);
}

static uint32_t flows_of(const struct row *row)
{
    bool is_many = row->per_site == PER_SITE_MANY || row->trouble == SLOW_STREAMS;

    return is_many ? FLOWS_MANY : FLOWS;
}

static tick_us latency_of(const struct world *world)
{
    if (world->row->trouble == READ_BACK)
        return READ_DISK;
    return world->trouble == SLOW_CALLS ? SLOW_DISK : USUAL_DISK;
}

static void world_config(struct world *world)
{
    static const char text[] = "hostname: relay.example\n"
                               "listen: [{address: \"192.0.2.1:25\"}]\n"
                               "relay_from: [\"192.0.2.0/24\"]\n"
                               "dns: {resolvers: [\"192.0.2.53\"]}\n"
                               "spool: {size: 64MiB, segment: 1MiB, reserve: 4MiB}\n"
                               "buffers: {size: 2KiB, memory: 64MiB}\n"
                               "queue: {body_memory: 16MiB}\n"
                               "flows: %u\n"
                               "client: {connections_per_site: %u, connections_at_first: %u}\n"
                               "delivery: %s\n";
    char filled[1000];
    struct config_report report;

    int size = snprintf(filled, sizeof(filled), text, flows_of(world->row), world->row->per_site,
                        world->row->per_site, world->row->is_backlog ? "spool" : "auto");
    config_report_init(&report, "configuration");
    enum err err = config_parse(span_of(filled, (uint32_t)size), &world->config, &report);
    if (err == ERR_OK)
        err = config_assemble(world->config, &report);
    if (err == ERR_OK)
        err = config_complete(world->config, &report);
    if (err != ERR_OK)
        fail_msg("%s", report.text);
}

static void record_drop(void *context, const struct record *record)
{
    (void)context, (void)record;
}

/* Senders that share messages 0 to `end`. */
static void senders_add(struct world *world, uint32_t count, bool is_dead, uint32_t end)
{
    for (uint32_t i = 0; i < count; i++) {
        CHECK(world->sender_count < SENDERS_MAX);
        struct sender *sender = &world->senders[world->sender_count];
        *sender = (struct sender){.is_dead = is_dead, .next = i, .step = count, .end = end};
        struct flow_connect_options options = {
            .remote = relay_address(25), .deadline = TICK_NEVER, .user = world->sender_count++};
        assert_int_equal(ERR_OK, flow_connect(world->senders_plane, &options, &sender->flow));
    }
}

static void world_start(struct world *world)
{
    assert_int_equal(ERR_OK,
                     node_start(&(struct node_options){.net = world->net,
                                                       .disk = world->disk,
                                                       .config = world->config,
                                                       .seed = 1,
                                                       .body_octets = BODY_GATE_OCTETS,
                                                       .records = {.emit = record_drop},
                                                       .address4 = relay_address(0),
                                                       .address6 = {.family = FLOW_FAMILY_IP6}},
                                &world->node));
}

static void world_begin(struct world *world, const struct row *row, bool has_trouble)
{
    struct net_sim_faults faults = {.latency_min = RTT / 2,
                                    .latency_max = RTT / 2 + 1,
                                    .segment_max = 65536,
                                    .window = 1u << 20};
    struct flow_address resolver = relay_address(53), client = relay_address(0);

    *world = (struct world){.row = row, .trouble = has_trouble ? row->trouble : NONE};
    for (uint32_t i = 0; i < CONNECTION_MAX; i++)
        world->sinks[i].due = TICK_NEVER;
    rng_init_seed(&world->rng, 1);
    world->net = net_sim_new(&(struct net_sim_options){
        .seed = 1, .start = TICK_S(1), .wall_start = 1700000000000000ll, .faults = faults});
    tick_us latency = latency_of(world);
    world->disk = disk_sim_new(&(struct disk_sim_options){.clock = net_sim_clock(world->net),
                                                          .size = 256u << 20,
                                                          .latency_min = latency,
                                                          .latency_max = latency,
                                                          .seed = 1});
    world->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = POOL_COUNT, .backing = BUF_BACKING_HEAP});
    resolver.ip[3] = 53;
    client.ip[3] = 9;
    world->zone = zone_new(world->net, &resolver);
    world->sinks_plane = plane_new(world, address_of(100, 1, 0));
    world->senders_plane = plane_new(world, client);
    for (uint32_t i = 0; i < LIVING; i++)
        world_domain(world, "living", i, 100);
    for (uint32_t i = 0; i < row->dead_count; i++)
        world_domain(world, "dead", i, 101);
    struct flow_prefix dead = {.address = address_of(101, 0, 0), .bits = 24};
    if (world->trouble == BLACK_HOLE)
        net_sim_set_black_hole(world->net, &dead);
    world_config(world);
    world_start(world);
}

static void world_end(struct world *world)
{
    node_end(world->node, NODE_KILL, &world->rng);
    flow_plane_free(world->sinks_plane);
    flow_plane_free(world->senders_plane);
    zone_free(world->zone);
    disk_sim_free(world->disk);
    net_sim_free(world->net);
    config_free(world->config);
    buf_pool_free(world->pool);
}

static tick_us world_deadline(const struct world *world)
{
    tick_us deadline = net_sim_deadline(world->net), node = node_deadline(world->node);

    deadline = node < deadline ? node : deadline;
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        if (world->sinks[i].is_used && world->sinks[i].due < deadline)
            deadline = world->sinks[i].due;
        if (world->sinks[i].is_used && world->sinks[i].sip_at > 0 &&
            world->sinks[i].sip_at < deadline)
            deadline = world->sinks[i].sip_at;
    }
    return deadline;
}

static bool living_have(const struct world *world, uint32_t count)
{
    return world->delivered >= count;
}

static bool queue_has(const struct world *world, uint32_t count)
{
    return node_status(world->node, 0).queue.messages >= count;
}

/* Before that all mail is stored. */
static bool is_recovered(const struct world *world, uint32_t count)
{
    (void)count;
    return node_is_recovered(world->node);
}

static bool time_is_over(const struct world *world, uint32_t second)
{
    return net_sim_now(world->net) >= TICK_S(second);
}

static void world_run(struct world *world,
                      bool (*is_over)(const struct world *world, uint32_t what), uint32_t what)
{
    tick_us end = net_sim_now(world->net) + PATIENCE;

    while (!is_over(world, what)) {
        node_turn(world->node, 0);
        zone_turn(world->zone);
        senders_turn(world);
        sinks_turn(world);
        assert_int_equal(ERR_OK, node_control(world->node));
        tick_us now = net_sim_now(world->net), deadline = world_deadline(world);
        if (now >= end)
            fail_msg("%s: %u delivered, %lu in the queue", world->row->name, world->delivered,
                     (uint64_t)node_status(world->node, 0).queue.messages);
        net_sim_advance(world->net, deadline > now ? deadline : now + 1);
    }
}

static void world_wait(struct world *world, uint32_t seconds)
{
    world_run(world, time_is_over, (uint32_t)(net_sim_now(world->net) / TICK_S(1)) + seconds);
}

/* The living are known, each has taken one message; then the others have all the time they want to
 * take what they can get. */
static void world_prepare(struct world *world)
{
    world_run(world, is_recovered, 0);
    world->is_open = true;
    senders_add(world, LIVING, false, LIVING);
    world_run(world, living_have, LIVING);
    world_wait(world, 12); /* no connection is kept */
    if (world->trouble == NONE || world->row->dead_count == 0)
        return;
    senders_add(world, world->trouble == SLOW_STREAMS ? STREAMS : SENDERS, true, MESSAGES);
    world_wait(world, 10);
}

static void world_restart(struct world *world)
{
    node_end(world->node, NODE_KILL, &world->rng);
    world_start(world);
    world_run(world, is_recovered, 0);
    world_wait(world, 2); /* it has all the connections that are to be had */
}

/* How long the living wait for all of their mail. */
static tick_us row_play(const struct row *row, bool has_trouble)
{
    struct world *world = malloc(sizeof(*world));

    assert_non_null(world);
    world_begin(world, row, has_trouble);
    world_prepare(world);
    uint32_t others = (uint32_t)node_status(world->node, 0).queue.messages;
    world->is_open = !row->is_backlog;
    senders_add(world, SENDERS, false, MESSAGES);
    if (row->is_backlog)
        world_run(world, queue_has, others + MESSAGES);
    if (world->trouble == READ_BACK)
        world_restart(world);
    tick_us begun = net_sim_now(world->net);
    sinks_open(world);
    world_run(world, living_have, LIVING + MESSAGES);
    tick_us time = net_sim_now(world->net) - begun;
    struct shard_status status = node_status(world->node, 0);
    assert_true(status.flow.flows <= flows_of(row));
    assert_true(row->is_backlog || status.ways.ready > MESSAGES * 9 / 10);
    if (world->trouble == SLOW_STREAMS)
        print_message("# %u streams are on their way, %u messages stored for want of memory\n",
                      status.client.open, (uint32_t)status.ways.memory);
    assert_int_equal(0, status.invariant_violations);
    world_end(world);
    free(world);
    return time;
}

static void test_neighbours(void **state)
{
    static const struct row rows[] = {
        {"black holes", BLACK_HOLE, 4, true, PER_SITE},
        {"hundreds of black holes", BLACK_HOLE, 300, true, PER_SITE},
        {"black holes, straight", BLACK_HOLE, 4, false, PER_SITE},
        {"servers that never greet", NO_GREETING, 4, true, PER_SITE},
        {"servers that never greet, straight", NO_GREETING, 4, false, PER_SITE},
        {"servers that answer late", TARPIT, 4, true, PER_SITE},
        {"hundreds that answer late", TARPIT, 200, true, PER_SITE},
        {"names that nobody answers for", SLOW_NAMES, 4, true, PER_SITE},
        {"hundreds of such names", SLOW_NAMES, 300, true, PER_SITE},
        {"names that nobody answers for, straight", SLOW_NAMES, 4, false, PER_SITE},
        {"streams by the trickle", SLOW_STREAMS, 4, false, PER_SITE},
        {"many streams by the trickle", SLOW_STREAMS, 20, false, PER_SITE},
        {"a disk of five seconds a call", SLOW_CALLS, 0, true, PER_SITE},
        {"a disk of five seconds a call, straight", SLOW_CALLS, 0, false, PER_SITE},
        {"mail of an earlier run", READ_BACK, 0, true, PER_SITE_MANY},
    };

    (void)state;
    tick_us alone[2][2] = {{0}};
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        tick_us *usual = &alone[rows[i].is_backlog][rows[i].per_site == PER_SITE];
        if (*usual == 0)
            *usual = row_play(&rows[i], false);
        tick_us time = row_play(&rows[i], true);
        uint64_t share = 100 * *usual / (time - GRAIN);
        print_message("# %s: %lu ms, alone %lu ms, %lu %%\n", rows[i].name, time / 1000,
                      *usual / 1000, share);
        assert_true(share >= SHARE);
    }
}

int main(void)
{
    log_set_threshold(LOG_FATAL);
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_neighbours)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
