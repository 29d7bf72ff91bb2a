/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The whole relay in a simulated world, from one seed: senders, the shipped shards, a resolver,
 * next hops of many moods, a network that loses connections, a disk that fails, and a node that
 * dies and comes back. A ledger holds the relay to its promises (sim_ledger.c says which).
 *
 *   sim_relay --seed N [--trace]    one run; the same seed is the same run, octet for octet
 *   sim_relay --seeds A-B           TAP, one line per seed; each in a process of its own
 *      --shards N                   instead of what the seed says
 *      --delivery WORD              likewise: auto, cut-through, spool
 *      --false-sync                 planted bug: the disk acknowledges syncs and keeps nothing
 *      --tight-spool                a spool of eight small segments: often full
 *      --full-disk                  a disk that has not one octet beyond spool.size, and senders
 *                                   whose own server takes no notification for an hour
 *      --small-gate                 bodies are asked for one after another, even the smallest
 *      --slow-disk                  every call of the disk takes up to SLOW_DISK
 *      --wire                       every party's network is the engine, over a simulated link
 *      --limits                     two shards, much mail for few sites, limits that every server
 *                                   counts: LIMIT_CONNECTIONS at a time, LIMIT_MAILS a minute
 *      --loose-limits               the same, the relay being told of larger ones
 *      --suspends                   as --limits, and an operator suspends sites and resumes them
 *      --deaf-suspends              the same, the relay not hearing of it
 *      --holds                      as --limits, and an operator holds all mail, also what comes
 *      --bounces                    an operator returns what waits, and the relay crashes often
 *      --deaf-holds                 the same, the relay not hearing of it
 *      --sources                    as --limits, from a pool of two of three sources: each has the
 *                                   limits for itself, the third is never seen
 *      --stray-source               the same, the relay being told that the third is in the pool
 *      --lists                      as --sources, each server now and then having one of the two on
 * a list: no mail comes back for that
 *      --misread-lists              the same, the servers blaming the recipient
 *      --watched                    a viewer looks on at all conversations
 *      --held-records               every seed has `records.on_slow: hold` (a third has without it)
 *      --deaf-records               the same, the relay not hearing that records are behind
 *      --false-records              the same, records being said to be kept before they are
 *      --must-fail                  with --seeds: good if at least one seed finds a violation
 *
 * A run has two phases. In the first, senders send, everything fails as the seed says, and the node
 * crashes a few times. In the second nothing fails any more but what failed for good (names that do
 * not exist, hosts that are gone), and time runs until every message must have come to its end;
 * then the ledger is settled. The order in which shards and parties get their turns is drawn anew
 * in every round.
 *
 * Limits: ROUND_MAX rounds; more without an end is a violation by itself.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "relay/body_gate.h"
#include "tests/sim/sim_world.h"

#define ROUND_MAX         20000000u
#define BUSY_ROUND_FREE   200u   /* rounds in which no time passes */
#define BUSY_ROUND_MAX    50000u /* rounds in which somebody has work at once */
#define TURN_TIME         5u
#define WORLD_WALL        1700000000000000ll
#define CRASH_SPREAD      TICK_S(40)
#define PHASE_ONE_MAX     TICK_S(4 * 3600)
#define FULL_DISK_TIME    TICK_S(3600)
#define LIFETIME          TICK_S(3 * 3600)
#define AFTER_LIFETIME    TICK_S(2 * 3600) /* a last attempt, and the way of its bounce */
#define ATTEMPT_TIME      TICK_S(30 * 60)  /* client.attempt_timeout */
#define RESTART_TIME      TICK_S(60)       /* it may come while the relay is down */
#define RESTART_TRY_MAX   100u
#define SEGMENT_UNIT      (128u << 10)
#define LIMIT_CONNECTIONS 3u
#define LIMIT_MAILS       100u
#define SLOW_DISK         TICK_S(5)
#define SUSPEND_COUNT     20u
#define BOUNCE_CRASHES    8u
#define PARTY_COUNT       3u /* besides the shards: resolver, senders, receivers */

struct sim_options {
    uint64_t seed;
    uint32_t number;      /* of the seed among those that are played, from 1 */
    const char *delivery; /* NULL: as the seed says */
    uint32_t shard_count; /* 0: as the seed says */
    bool has_streams;     /* half of the mail is large, and goes on while it comes */
    bool has_false_sync, has_tight_spool, has_full_disk, has_slow_disk, has_wire, has_limits,
        has_small_gate, has_loose_limits, is_traced;
    bool has_suspends, has_holds, has_bounces, is_deaf, is_watched;
    bool has_sources, has_stray_source;
    bool has_lists, has_misread_lists;
    bool has_held_records, has_deaf_records, has_false_records;
};

struct sim {
    struct sim_options options;
    struct rng rng;
    struct net_sim *net;
    struct disk_sim *disk;
    struct config *config;
    struct node *node; /* NULL between death and restart */
    struct zone *zone;
    struct ledger ledger;
    struct senders *senders;
    struct receivers *receivers;
    struct sim_records *records;   /* NULL: they hold nothing */
    struct sim_operator *operator; /* NULL: nobody */
    struct sim_operator_options operator_options;
    struct receiver_mood bounce_mood;
    uint32_t domain_count, receiver_count, crashes_left, lives;
    tick_us crash_at, restart_at;
    struct sim_text routes;
    bool limits_reached; /* by some receiver, exactly */
    uint64_t seen;       /* lines, by the viewer */
};

/* ---- the world ---- */

static uint32_t draw(struct sim *sim, uint32_t bound)
{
    return rng_below(&sim->rng, bound);
}

/* Often nothing, else something up to `max`. */
static uint32_t draw_often_zero(struct sim *sim, uint32_t max)
{
    return draw(sim, 2) == 0 ? 0 : draw(sim, max + 1);
}

static struct flow_address address_of(uint8_t a, uint8_t b, uint8_t c, uint8_t d, uint16_t port)
{
    return (struct flow_address){.family = FLOW_FAMILY_IP4, .port = port, .ip = {a, b, c, d}};
}

static void world_network(struct sim *sim)
{
    struct net_sim_faults faults = {
        .latency_min = 20 + draw(sim, 500),
        .segment_max = 1 + draw(sim, draw(sim, 4) == 0 ? 20 : 3000),
        .window = 2000 + draw(sim, 100000),
        .lose_stream = draw_often_zero(sim, 500),
        .mute_stream = draw_often_zero(sim, 60),
        .lose_datagram = draw_often_zero(sim, 100000),
        .double_datagram = draw_often_zero(sim, 100000),
        .forge_datagram = draw_often_zero(sim, 100000),
    };
    /* What was lost on the way the two ends count differently. */
    if (sim->options.has_limits)
        faults = (struct net_sim_faults){.latency_min = faults.latency_min,
                                         .segment_max = faults.segment_max,
                                         .window = faults.window};
    faults.latency_max = faults.latency_min + draw(sim, 40000);
    sim->net = net_sim_new(&(struct net_sim_options){.seed = rng_u64(&sim->rng),
                                                     .start = TICK_S(1),
                                                     .wall_start = WORLD_WALL,
                                                     .faults = faults,
                                                     .has_wire = sim->options.has_wire});
}

static void world_disk(struct sim *sim)
{
    tick_us latency_min = 10 + draw(sim, 300);
    tick_us spread = draw(sim, 20000);

    sim->disk = disk_sim_new(&(struct disk_sim_options){
        .clock = net_sim_clock(sim->net),
        .size = 512u << 20,
        .latency_min = latency_min,
        .latency_max = sim->options.has_slow_disk ? SLOW_DISK : latency_min + spread,
        .seed = rng_u64(&sim->rng)});
    disk_sim_plant_false_sync(sim->disk, sim->options.has_false_sync);
}

static struct receiver_mood mood_draw(struct sim *sim)
{
    struct receiver_mood mood = {
        .temporary = draw_often_zero(sim, 150000),
        .permanent = draw_often_zero(sim, 50000),
        .drop = draw_often_zero(sim, 60000),
        .silent = draw_often_zero(sim, 10000),
        .slow = draw_often_zero(sim, 50000),
        .drop_after_reply = draw_often_zero(sim, 100000),
        .has_chunking = draw(sim, 2) == 0,
        .has_pipelining = draw(sim, 3) != 0,
        .has_dsn = draw(sim, 2) == 0,
    };

    if (sim->options.has_streams)
        mood.in_body = draw(sim, 3) * 2500;
    if (sim->options.has_limits)
        mood.silent = mood.slow = 0; /* a minute of a week would be left */
    if (sim->options.has_full_disk)  /* most comes back */
        mood.permanent = 200000;
    if (sim->options.has_lists)
        mood.permanent = 0;
    return mood;
}

/* Does a mailbox server of ours serve the domain? Servers do not see the source by LMTP, so that
 * there are none in runs that count by source. */
static bool is_own_domain(const struct sim *sim, uint32_t kind)
{
    return kind >= 10 && !sim->options.has_limits && !sim->options.has_sources;
}

/* d0.example ..., each in a network of its own: most have a server of some mood, a few have none,
 * or no name, or are refused. */
static void world_domain(struct sim *sim, uint32_t index)
{
    struct flow_address address =
        address_of(198, 51, (uint8_t)(101 + index), (uint8_t)(index + 1), SIM_PORT);
    struct receiver_mood mood = mood_draw(sim);
    char domain[64], host[64], data[80], ip[FLOW_ADDRESS_TEXT_MAX];
    uint32_t kind = sim->options.has_lists ? 4 : draw(sim, 12);

    snprintf(domain, sizeof(domain), "d%u.example", index);
    snprintf(host, sizeof(host), "mx%u.example", index);
    snprintf(data, sizeof(data), "10 %s", host);
    if (kind == 0) /* NXDOMAIN */
        return;
    if (kind == 1)
        sim_text_format(&sim->routes, "  - {match: %s, via: refuse, text: \"not here\"}\n", domain);
    if (is_own_domain(sim, kind)) {
        address.port = SIM_LMTP_PORT;
        sim_text_format(&sim->routes, "  - {match: %s, via: lmtp, hosts: [{host: %s, port: %u}]}\n",
                        domain, host, SIM_LMTP_PORT);
    }
    if (kind == 2) { /* the first of two hosts is gone */
        (void)zone_add(sim->zone, domain, "MX", "5 gone.example", 300);
        (void)zone_add(sim->zone, "gone.example", "A", "198.51.100.250", 300);
    }
    (void)zone_add(sim->zone, domain, "MX", data, 60);
    (void)zone_add(sim->zone, host, "A", flow_address_format_ip(&address, ip), 60);
    if (kind == 3) /* nobody listens */
        return;
    receivers_listen(sim->receivers, &address, &mood);
    memcpy(sim->operator_options.labels[sim->receiver_count++], domain, sizeof(domain));
}

static void world_parties(struct sim *sim)
{
    struct flow_address resolver = address_of(192, 0, 2, 53, 53);
    struct flow_address bounces = address_of(198, 51, 100, SIM_BOUNCE_HOST, SIM_PORT);

    sim->zone = zone_new(sim->net, &resolver);
    zone_set_faults(sim->zone, draw_often_zero(sim, 100000), draw_often_zero(sim, 100000),
                    &sim->rng);
    if (sim->options.has_limits) /* a host without an address is no part of a site */
        zone_set_faults(sim->zone, 0, 0, &sim->rng);
    sim->receivers = receivers_new(sim->net, &sim->ledger, rng_u64(&sim->rng));
    sim->domain_count = 3 + draw(sim, SIM_DOMAIN_MAX - 2);
    if (sim->options.has_limits)
        sim->domain_count = 1 + draw(sim, 2);
    if (sim->options.has_lists)
        sim->domain_count = 4 + draw(sim, SIM_DOMAIN_MAX - 4);
    for (uint32_t i = 0; i < sim->domain_count; i++)
        world_domain(sim, i);
    /* A bounce that is refused for good is gone, as it must be: this server never does that. */
    sim->bounce_mood = mood_draw(sim);
    sim->bounce_mood.permanent = 0;
    sim->bounce_mood.in_body = 0;   /* it may refuse for good */
    if (sim->options.has_full_disk) /* the disk fills up with what nobody takes */
        sim->bounce_mood.temporary = 1000000;
    receivers_listen(sim->receivers, &bounces, &sim->bounce_mood);
    memcpy(sim->operator_options.labels[sim->receiver_count++], "sender.example", 15);
    (void)zone_add(sim->zone, "sender.example", "MX", "10 mx.sender.example", 60);
    (void)zone_add(sim->zone, "mx.sender.example", "A", "198.51.100.200", 60);
    struct senders_options senders = {.net = sim->net,
                                      .ledger = &sim->ledger,
                                      .seed = rng_u64(&sim->rng),
                                      .relay = address_of(192, 0, 2, 1, SIM_PORT),
                                      .sender_count = 1 + draw(sim, 12),
                                      .messages_per_sender = 1 + draw(sim, 12),
                                      .domain_count = sim->domain_count,
                                      .start_spread = TICK_S(20)};
    if (sim->options.has_limits) {
        senders.sender_count = 12;
        senders.messages_per_sender = (20 + draw(sim, 20)) * (sim->options.has_sources ? 2 : 1);
        senders.start_spread = TICK_S(180);
    }
    if (sim->options.has_full_disk && !sim->options.has_limits) {
        senders.sender_count = 12;
        senders.messages_per_sender = 30 + draw(sim, 30);
    }
    sim->senders = senders_new(&senders);
}

static void world_operator(struct sim *sim)
{
    if (!sim->options.has_suspends && !sim->options.has_bounces)
        return;
    sim->operator_options.receivers = sim->receivers;
    sim->operator_options.receiver_count = sim->receiver_count;
    sim->operator_options.seed = rng_u64(&sim->rng);
    sim->operator_options.order_count = SUSPEND_COUNT;
    sim->operator_options.is_deaf = sim->options.is_deaf;
    sim->operator_options.is_holding = sim->options.has_holds;
    sim->operator_options.is_bouncing = sim->options.has_bounces;
    sim->operator_options.ledger = &sim->ledger;
    sim->operator_options.domain_count = sim->domain_count;
    sim->operator_options.crash_at = &sim->crash_at;
    sim->operator_options.wall = WORLD_WALL;
    sim->operator= sim_operator_new(&sim->operator_options);
}

/* The limits of --limits then go by site and source. */
static void config_add_sources(const struct sim *sim, struct sim_text *text)
{
    uint32_t members = SIM_SOURCE_OURS + (sim->options.has_stray_source ? 1 : 0);

    sim_text_format(text, "sources:\n");
    for (uint32_t i = 1; i <= SIM_SOURCE_COUNT; i++)
        sim_text_format(text, "  - {name: s%u, addresses: [192.0.2.%u], hello: out-%u.example}\n",
                        i, SIM_SOURCE_BASE + i, i);
    sim_text_format(text, "pools:\n  - name: default\n    members:\n");
    for (uint32_t i = 1; i <= members; i++)
        sim_text_format(text, "      - {source: s%u, weight: %u}\n", i, i);
    if (sim->options.has_lists)
        sim_text_format(text, "source_rest: {first: 20s, longest: 5m}\n");
}

static void world_config(struct sim *sim)
{
    static const uint32_t shard_counts[] = {1, 2, 4};
    static const char *const bdat_aheads[] = {"always", "never", "learned"};
    uint32_t cores = shard_counts[draw(sim, COUNT_OF(shard_counts))];
    const char *delivery = sim->options.delivery;
    struct config_report report;
    struct sim_text text = {0};

    if (sim->options.has_limits)
        cores = 2;
    else if (sim->options.has_full_disk && cores > 2)
        cores = 1;
    if (sim->options.shard_count > 0)
        cores = sim->options.shard_count;
    sim_text_format(&text,
                    "hostname: relay.example\n"
                    "listen: [{address: \"192.0.2.1:25\"}]\n"
                    "relay_from: [\"192.0.2.0/24\"]\n"
                    "dns: {resolvers: [\"192.0.2.53\"]}\n"
                    "spool: {size: 64MiB, segment: 1MiB, reserve: 4MiB}\n"
                    "buffers: {size: 2KiB, memory: 64MiB}\n"
                    "queue: {body_memory: 16MiB}\n"
                    "retry: {min: 20s, max: 10m}\n"
                    "message_lifetime: 3h\n"
                    "bounce: {delay_after: 20m, per_sender: 4}\n"
                    "classes: [{name: transactional}, {name: normal}, {name: bulk, least: 20}]\n"
                    "class_default: normal\n"
                    "client: {connections_per_site: %u, next_ahead: %s, bdat_ahead: %s}\n"
                    "cores: %u\n"
                    "delivery: %s\n",
                    1 + draw(sim, 6), sim->options.seed % 5 == 0 ? "false" : "true",
                    bdat_aheads[sim->options.seed % 3], cores, delivery);
    if (sim->options.has_limits)
        sim_text_format(&text, "sites: [{match: \"*\", connections: %u, rate: %u/1m}]\n",
                        LIMIT_CONNECTIONS, LIMIT_MAILS + (sim->options.has_loose_limits ? 1 : 0));
    if (sim->options.has_sources)
        config_add_sources(sim, &text);
    if (sim->options.has_streams)
        sim_text_format(&text,
                        "cut_through: {stream_above: 4KiB, keep: 64KiB, patience: 60s, "
                        "stream_rate_min: %uKiB}\n",
                        sim->options.seed % 4 == 0 ? 32 : 1);
    if (sim->routes.size > 0)
        sim_text_format(&text, "routes:\n%s", sim->routes.data);
    config_report_init(&report, "configuration");
    enum err err = config_parse(span_of(text.data, text.size), &sim->config, &report);
    if (err == ERR_OK)
        err = config_assemble(sim->config, &report);
    if (err == ERR_OK)
        err = config_complete(sim->config, &report);
    if (err != ERR_OK)
        printf("# %s\n", report.text);
    CHECK(err == ERR_OK);
    sim_text_fini(&text);
    /* Below what the configuration allows: so that segments fill up and are used again. */
    sim->config->spool.segment_size = SEGMENT_UNIT << draw(sim, sim->options.has_full_disk ? 1 : 4);
    uint32_t segments = sim->options.has_tight_spool ? 8 : 16 + draw(sim, 40);
    sim->config->spool.reserve = sim->config->spool.segment_size * (segments / 4);
    sim->config->spool.size = cores * (uint64_t)sim->config->spool.segment_size * segments;
    if (sim->options.has_full_disk)
        disk_sim_resize(sim->disk, sim->config->spool.size);
}

/* Every recipient's end comes within the lifetime and the time of one attempt, whatever happens. A
 * notification has a life of its own, which begins later than its id says. */
static void record_drop(void *context, const struct record *record)
{
    struct ledger *ledger = context;
    bool is_end = record->kind == RECORD_DELIVERY || record->kind == RECORD_BOUNCE ||
                  record->kind == RECORD_EXPIRY;
    ledger->straight += record->kind == RECORD_RECEPTION && way_is_straight((enum way)record->way);
    ledger->streamed += record->kind == RECORD_RECEPTION && record->way == WAY_STREAM;
    ledger->ahead += record->kind == RECORD_DELIVERY &&
                     (record->flags & (RECORD_NEXT_AHEAD | RECORD_BDAT_AHEAD)) != 0;
    tick_us age = (tick_us)record->time - (tick_us)record->id.high;

    if (is_end && (record->flags & RECORD_IS_DSN) == 0 &&
        age > LIFETIME + ATTEMPT_TIME + RESTART_TIME)
        ledger_violation(ledger, "late: %s ended after %llu s", record->recipient,
                         (unsigned long long)(age / 1000000));
    ledger_trace(ledger, "record %u: %s %u %s", record->kind, record->recipient, record->code,
                 record->text);
}

/* What is drawn for them leaves all else as it would be without. Not where an operator ends mail:
 * records of that are not told again. */
static void world_records(struct sim *sim)
{
    const struct sim_options *options = &sim->options;
    bool is_drawn = options->seed % 3 == 1 && !options->has_limits && !options->has_bounces;

    if (is_drawn || options->has_held_records)
        sim->records = sim_records_new(
            &(struct sim_records_options){.ledger = &sim->ledger,
                                          .also = {.emit = record_drop, .context = &sim->ledger},
                                          .is_deaf = options->has_deaf_records,
                                          .is_waited_for = options->has_full_disk,
                                          .is_false = options->has_false_records});
}

static enum err world_start_node(struct sim *sim)
{
    if (sim->records != NULL)
        sim_records_begin(sim->records, sim->config->cores);
    return node_start(
        &(struct node_options){
            .net = sim->net,
            .disk = sim->disk,
            .config = sim->config,
            .seed = sim->options.seed * 64 + ++sim->lives,
            .body_octets = sim->options.has_small_gate ? BODY_GATE_PLACES : BODY_GATE_OCTETS,
            .records = {.emit = record_drop, .context = &sim->ledger},
            .shard_records = sim->records == NULL ? NULL : sim_records_sinks(sim->records),
            .address4 = address_of(192, 0, 2, 1, 0),
            .address6 = {.family = FLOW_FAMILY_IP6, .ip = {0x20, 1, 0x0d, 0xb8}},
            .seen = sim->options.is_watched ? &sim->seen : NULL,
            .recovery_delay = draw(sim, 3) * TICK_MS(draw(sim, 2000))},
        &sim->node);
}

static void disk_set_faults(struct sim *sim, uint32_t per_million)
{
    static const enum disk_sim_call calls[] = {DISK_SIM_WRITE, DISK_SIM_SYNC};

    for (uint32_t i = 0; i < COUNT_OF(calls); i++)
        disk_sim_fail_often(sim->disk, calls[i], per_million, ERR_DISK_IO);
}

static void sim_init(struct sim *sim, const struct sim_options *options)
{
    static const char *const deliveries[] = {"auto", "spool", "auto", "cut-through", "auto"};

    *sim = (struct sim){.options = *options};
    rng_init_seed(&sim->rng, options->seed);
    if (options->delivery == NULL && options->has_streams)
        sim->options.delivery = "auto";
    else if (options->delivery == NULL)
        sim->options.delivery = deliveries[options->seed % COUNT_OF(deliveries)];
    world_network(sim);
    world_disk(sim);
    sim->ledger = (struct ledger){.net = sim->net,
                                  .seed = options->seed,
                                  .is_cut_through = strcmp(sim->options.delivery, "spool") != 0,
                                  .is_streaming = options->has_streams,
                                  .is_traced = options->is_traced};
    world_parties(sim);
    world_operator(sim);
    world_config(sim);
    if (sim->options.has_sources)
        receivers_expect_sources(sim->receivers);
    if (sim->options.has_lists)
        receivers_keep_lists(sim->receivers, sim->options.has_misread_lists);
    /* A DONE may have to wait for a segment to be made, which is many calls. */
    sim->ledger.lazy_time =
        sim->config->spool.lazy_time + (sim->options.has_slow_disk ? 12 * SLOW_DISK : 0);
    sim->ledger.commit_deadline = sim->config->spool.commit_deadline;
    world_records(sim);
    sim->crashes_left = sim->options.has_limits ? 0 : draw(sim, 4);
    sim->crash_at = net_sim_now(sim->net) + draw(sim, (uint32_t)CRASH_SPREAD);
    enum err err = world_start_node(sim);
    CHECK(err == ERR_OK);
    if (sim->options.has_bounces)
        sim->crashes_left = BOUNCE_CRASHES;
    else if (draw(sim, 3) == 0 && !sim->options.has_limits) {
        sim->ledger.has_disk_faults = true;
        disk_set_faults(sim, 200 + draw(sim, 3000));
    }
}

static void sim_fini(struct sim *sim)
{
    if (sim->node != NULL)
        node_end(sim->node, NODE_KILL, &sim->rng);
    senders_free(sim->senders);
    receivers_free(sim->receivers);
    if (sim->operator!= NULL)
        sim_operator_free(sim->operator);
    sim_records_free(sim->records);
    zone_free(sim->zone);
    disk_sim_free(sim->disk);
    net_sim_free(sim->net);
    config_free(sim->config);
    sim_text_fini(&sim->routes);
    free(sim->ledger.messages);
}

/* ---- death and restart ---- */

static void node_die(struct sim *sim, enum node_end end)
{
    ledger_trace(&sim->ledger, "%s", end == NODE_POWER_LOSS ? "power loss" : "kill");
    CHECK(sim->ledger.crash_count < LEDGER_CRASH_MAX);
    sim->ledger.crashes[sim->ledger.crash_count++] = net_sim_now(sim->net);
    node_end(sim->node, end, &sim->rng);
    sim->node = NULL;
    sim->restart_at = net_sim_now(sim->net) + draw(sim, (uint32_t)TICK_S(5));
}

static void node_live(struct sim *sim)
{
    tick_us now = net_sim_now(sim->net);

    if (sim->node != NULL && sim->crashes_left > 0 && now >= sim->crash_at) {
        node_die(sim, draw(sim, 3) == 0 ? NODE_KILL : NODE_POWER_LOSS);
        sim->crashes_left--;
        sim->crash_at = now + draw(sim, (uint32_t)CRASH_SPREAD);
        return;
    }
    if (sim->node != NULL || now < sim->restart_at)
        return;
    if (world_start_node(sim) != ERR_OK) {
        sim->restart_at = now + TICK_S(1); /* the disk failed a call of the start */
        if (sim->lives > RESTART_TRY_MAX)
            ledger_violation(&sim->ledger, "the relay does not start any more");
    }
    ledger_trace(&sim->ledger, "restart: %s", sim->node != NULL ? "up" : "failed");
}

/* ---- rounds ---- */

static void party_turn(struct sim *sim, uint32_t index)
{
    uint32_t shard_count = sim->node == NULL ? 0 : node_shard_count(sim->node);

    if (index < shard_count)
        node_turn(sim->node, index);
    else if (index == shard_count)
        zone_turn(sim->zone);
    else if (index == shard_count + 1)
        senders_turn(sim->senders);
    else
        receivers_turn(sim->receivers);
}

static void sim_round(struct sim *sim)
{
    uint32_t order[NODE_SHARD_MAX + PARTY_COUNT];

    node_live(sim);
    if (sim->operator!= NULL)
        sim_operator_turn(sim->operator, sim->node, net_sim_now(sim->net));
    if (sim->records != NULL)
        sim_records_turn(sim->records, net_sim_now(sim->net));
    uint32_t count = PARTY_COUNT + (sim->node == NULL ? 0 : node_shard_count(sim->node));
    for (uint32_t i = 0; i < count; i++)
        order[i] = i;
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = i + draw(sim, count - i), chosen = order[other];
        order[other] = order[i];
        order[i] = chosen;
        party_turn(sim, chosen);
    }
    if (sim->node != NULL && node_control(sim->node) != ERR_OK) {
        ledger_trace(&sim->ledger, "the scan of the spool failed");
        node_die(sim, NODE_KILL);
    }
}

static tick_us earlier(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

static tick_us sim_deadline(const struct sim *sim)
{
    tick_us deadline = net_sim_deadline(sim->net);

    deadline = earlier(deadline, senders_deadline(sim->senders));
    deadline = earlier(deadline, receivers_deadline(sim->receivers));
    deadline = earlier(deadline, sim->node == NULL ? sim->restart_at : node_deadline(sim->node));
    if (sim->operator!= NULL)
        deadline = earlier(deadline, sim_operator_deadline(sim->operator));
    if (sim->records != NULL)
        deadline = earlier(deadline, sim_records_deadline(sim->records));
    if (sim->node != NULL && sim->crashes_left > 0)
        deadline = earlier(deadline, sim->crash_at);
    return deadline;
}

/* Rounds until `is_over`, or until that time. */
static void sim_run(struct sim *sim, tick_us until, bool (*is_over)(const struct sim *sim))
{
    uint32_t busy_rounds = 0;

    for (uint32_t round = 0; net_sim_now(sim->net) < until && !is_over(sim); round++) {
        sim_round(sim);
        tick_us now = net_sim_now(sim->net), deadline = sim_deadline(sim);
        if (deadline > now) {
            net_sim_advance(sim->net, earlier(deadline, until));
            busy_rounds = 0;
            continue;
        }
        /* Turns take time: who turns without end is a waste at first, and stuck in the end. */
        busy_rounds++;
        if (busy_rounds > BUSY_ROUND_FREE)
            net_sim_advance(sim->net, now + TURN_TIME);
        if (busy_rounds < BUSY_ROUND_MAX && round < ROUND_MAX && sim->ledger.violations < 1000)
            continue;
        ledger_violation(&sim->ledger, "the world does not come to rest");
        return;
    }
}

static bool phase_one_is_over(const struct sim *sim)
{
    bool is_early = sim->options.has_full_disk && net_sim_now(sim->net) < FULL_DISK_TIME;
    return senders_are_done(sim->senders) && sim->crashes_left == 0 && sim->node != NULL &&
           !is_early;
}

static uint64_t queue_count(const struct sim *sim)
{
    uint64_t count = 0;

    if (sim->node == NULL || !node_is_recovered(sim->node))
        return 1;
    for (uint32_t i = 0; i < node_shard_count(sim->node); i++) {
        struct shard_status status = node_status(sim->node, i);
        count += status.queue.messages + status.spool.messages_live;
    }
    return count;
}

static bool queue_is_empty(const struct sim *sim)
{
    return queue_count(sim) == 0;
}

/* Mail that went straight through leaves the queue before its records are written. */
static bool all_is_over(const struct sim *sim)
{
    return queue_is_empty(sim) && (sim->records == NULL || !sim_records_wait(sim->records));
}

static void check_invariants(struct sim *sim)
{
    for (uint32_t i = 0; sim->node != NULL && i < node_shard_count(sim->node); i++) {
        struct shard_status status = node_status(sim->node, i);
        if (status.invariant_violations > 0)
            ledger_violation(&sim->ledger, "%u messages have no next event",
                             status.invariant_violations);
    }
}

static void check_peak(struct sim *sim, uint32_t receiver, uint32_t source)
{
    struct receiver_peak peak = receivers_peak(sim->receivers, receiver, source, TICK_S(60));

    ledger_trace(&sim->ledger, "receiver %u, source %u: at most %u connections, %u mails a minute",
                 receiver, source, peak.connections, peak.mails);
    if (peak.connections > LIMIT_CONNECTIONS)
        ledger_violation(&sim->ledger, "receiver %u had %u connections at a time", receiver,
                         peak.connections);
    if (peak.mails > LIMIT_MAILS)
        ledger_violation(&sim->ledger, "receiver %u had %u mails in a minute", receiver,
                         peak.mails);
    sim->limits_reached |= peak.connections == LIMIT_CONNECTIONS && peak.mails == LIMIT_MAILS;
}

/* Nothing else in this world makes mail come back. */
static void check_lists(struct sim *sim)
{
    if (sim->options.has_lists && sim->ledger.bounced > 0)
        ledger_violation(&sim->ledger, "%u came back while a source was well", sim->ledger.bounced);
}

static void check_limits(struct sim *sim)
{
    for (uint32_t i = 0; sim->options.has_limits && i < sim->receiver_count; i++) {
        for (uint32_t source = 0; source <= SIM_SOURCE_COUNT; source++)
            check_peak(sim, i, source);
    }
}

/* From here on only what is wrong for good goes wrong. */
static void world_heal(struct sim *sim)
{
    struct net_sim_faults faults = net_sim_faults_none();
    struct receiver_mood mood = {.has_chunking = true, .has_pipelining = true};

    ledger_trace(&sim->ledger, "the world heals");
    net_sim_set_faults(sim->net, &faults);
    zone_set_faults(sim->zone, 0, 0, &sim->rng);
    disk_set_faults(sim, 0);
    if (sim->records != NULL)
        sim_records_heal(sim->records);
    for (uint32_t i = 0; i < sim->receiver_count; i++)
        receivers_set_mood(sim->receivers, i, &mood);
    /* A spool that met too many failures takes nothing more until a restart. */
    if (sim->ledger.has_disk_faults && sim->node != NULL)
        node_die(sim, NODE_KILL);
}

/* ---- one run ---- */

static void records_tell(const struct sim_records *records, char *summary, size_t size)
{
    struct sim_records_counts counts = sim_records_count(records);
    size_t used = strlen(summary);

    (void)snprintf(summary + used, size - used, ", records %llu, replayed %llu, behind %llu",
                   (unsigned long long)counts.kept, (unsigned long long)counts.replayed,
                   (unsigned long long)counts.behind);
}

static uint32_t sim_play(const struct sim_options *options, uint64_t *ret_fingerprint,
                         char *ret_summary, size_t summary_size)
{
    struct sim sim;

    sim_init(&sim, options);
    sim_run(&sim, net_sim_now(sim.net) + PHASE_ONE_MAX, phase_one_is_over);
    if (!senders_are_done(sim.senders))
        ledger_violation(&sim.ledger, "the senders do not get their mail off");
    check_invariants(&sim);
    world_heal(&sim);
    sim_run(&sim, net_sim_now(sim.net) + LIFETIME + AFTER_LIFETIME, all_is_over);
    check_invariants(&sim);
    if (!queue_is_empty(&sim))
        ledger_violation(&sim.ledger, "%llu messages have not come to their end",
                         (unsigned long long)queue_count(&sim));
    check_limits(&sim);
    check_lists(&sim);
    if (options->is_watched && sim.seen < 10 * (uint64_t)sim.ledger.count)
        ledger_violation(&sim.ledger, "the viewer saw %llu lines", (unsigned long long)sim.seen);
    ledger_settle(&sim.ledger);
    if (sim.records != NULL)
        sim_records_settle(sim.records);
    *ret_fingerprint = net_sim_fingerprint(sim.net);
    snprintf(ret_summary, summary_size,
             "shards %u, messages %u, deliveries %u, bounces %u, again %u, deaths %u, "
             "suspensions %u, straight %u, streamed %u, ahead %u, %llu s%s",
             sim.config->cores, sim.ledger.count, sim.ledger.delivered, sim.ledger.bounced,
             sim.ledger.duplicates, sim.ledger.crash_count,
             sim.operator== NULL ? 0 : sim_operator_suspended(sim.operator), sim.ledger.straight,
             sim.ledger.streamed, sim.ledger.ahead,
             (unsigned long long)(net_sim_now(sim.net) / 1000000),
             sim.limits_reached ? ", limits reached" : "");
    if (sim.records != NULL)
        records_tell(sim.records, ret_summary, summary_size);
    uint32_t violations = sim.ledger.violations;
    sim_fini(&sim);
    return violations;
}

/* Exit code 0: nothing wrong; 1: a violation. */
static int seed_play(const struct sim_options *options)
{
    char summary[256];
    uint64_t fingerprint;
    uint32_t violations = sim_play(options, &fingerprint, summary, sizeof(summary));

    printf("%s %u - seed %llu: %s, fingerprint %016llx\n", violations == 0 ? "ok" : "not ok",
           options->number, (unsigned long long)options->seed, summary,
           (unsigned long long)fingerprint);
    if (violations > 0)
        printf("# %u violations; replay: sim_relay --seed %llu --trace\n", violations,
               (unsigned long long)options->seed);
    fflush(stdout);
    return violations == 0 ? 0 : 1;
}

/* In a process of its own, so that a failed CHECK is one failed seed. `is_silent`: only the result
 * counts. */
static int seed_play_apart(const struct sim_options *options, bool is_silent)
{
    int status = 0;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (is_silent && freopen("/dev/null", "w", stdout) == NULL)
            _exit(2);
        exit(seed_play(options));
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return 2;
    if (WIFEXITED(status))
        return WEXITSTATUS(status);
    if (!is_silent)
        printf("not ok %u - seed %llu: ended by signal %d\n", options->number,
               (unsigned long long)options->seed, WTERMSIG(status));
    return 3;
}

static int seeds_play(struct sim_options options, uint64_t first, uint64_t last, bool must_fail)
{
    bool is_good = true;

    if (must_fail)
        printf("1..1\n");
    else
        printf("1..%llu\n", (unsigned long long)(last - first + 1));
    for (uint64_t seed = first; seed <= last; seed++) {
        options.seed = seed;
        options.number = (uint32_t)(seed - first + 1);
        int code = seed_play_apart(&options, must_fail);
        if (must_fail && code == 1) {
            printf("ok 1 - found by seed %llu\n", (unsigned long long)seed);
            return 0;
        }
        is_good = is_good && code == 0;
    }
    if (must_fail) {
        printf("not ok 1 - no seed from %llu to %llu found it\n", (unsigned long long)first,
               (unsigned long long)last);
        return 1;
    }
    return is_good ? 0 : 1;
}

static bool flag_take(const char *argument, struct sim_options *options, bool *must_fail)
{
    if (strcmp(argument, "--false-sync") == 0)
        options->has_false_sync = true;
    else if (strcmp(argument, "--tight-spool") == 0)
        options->has_tight_spool = true;
    else if (strcmp(argument, "--full-disk") == 0)
        options->has_full_disk = true;
    else if (strcmp(argument, "--small-gate") == 0)
        options->has_small_gate = true;
    else if (strcmp(argument, "--slow-disk") == 0)
        options->has_slow_disk = true;
    else if (strcmp(argument, "--wire") == 0)
        options->has_wire = true;
    else if (strcmp(argument, "--streams") == 0)
        options->has_streams = true;
    else if (strcmp(argument, "--limits") == 0)
        options->has_limits = true;
    else if (strcmp(argument, "--loose-limits") == 0)
        options->has_limits = options->has_loose_limits = true;
    else if (strcmp(argument, "--suspends") == 0)
        options->has_limits = options->has_suspends = true;
    else if (strcmp(argument, "--holds") == 0)
        options->has_limits = options->has_suspends = options->has_holds = true;
    else if (strcmp(argument, "--bounces") == 0)
        options->has_bounces = true;
    else if (strcmp(argument, "--deaf-holds") == 0)
        options->has_limits = options->has_suspends = options->has_holds = options->is_deaf = true;
    else if (strcmp(argument, "--deaf-suspends") == 0)
        options->has_limits = options->has_suspends = options->is_deaf = true;
    else if (strcmp(argument, "--sources") == 0)
        options->has_limits = options->has_sources = true;
    else if (strcmp(argument, "--stray-source") == 0)
        options->has_limits = options->has_sources = options->has_stray_source = true;
    else if (strcmp(argument, "--lists") == 0)
        options->has_limits = options->has_sources = options->has_lists = true;
    else if (strcmp(argument, "--misread-lists") == 0)
        options->has_limits = options->has_sources = options->has_lists =
            options->has_misread_lists = true;
    else if (strcmp(argument, "--trace") == 0)
        options->is_traced = true;
    else if (strcmp(argument, "--watched") == 0)
        options->is_watched = true;
    else if (strcmp(argument, "--held-records") == 0)
        options->has_held_records = true;
    else if (strcmp(argument, "--deaf-records") == 0)
        options->has_held_records = options->has_deaf_records = true;
    else if (strcmp(argument, "--false-records") == 0)
        options->has_held_records = options->has_false_records = true;
    else if (strcmp(argument, "--must-fail") == 0)
        *must_fail = true;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct sim_options options = {.seed = 1, .number = 1};
    unsigned long long first = 0, last = 0;
    bool must_fail = false;

    log_set_threshold(LOG_FATAL);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (flag_take(argv[i], &options, &must_fail))
            continue;
        i++;
        if (strcmp(argv[i - 1], "--seed") == 0)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--delivery") == 0)
            options.delivery = value;
        else if (strcmp(argv[i - 1], "--shards") == 0)
            options.shard_count = (uint32_t)strtoul(value, NULL, 10);
        else if (strcmp(argv[i - 1], "--seeds") != 0 ||
                 sscanf(value, "%llu-%llu", &first, &last) != 2)
            return 2;
    }
    return last > 0 ? seeds_play(options, first, last, must_fail) : seed_play(&options);
}
