/* SPDX-License-Identifier: Apache-2.0 */
/*
 * angarium-line: the relay's shards between the load's source and sink, all on one thread in
 * virtual time, each with an engine of its own; what the shards cost for a message that goes
 * straight through, without idle polls, drivers, or a neighbour on the machine.
 *
 *   angarium-line [-R RATE] [-q SITES] [-i IDLE] [-f FRAMES] [-w] [-D ROUND_TRIP_MS [-b]] SHARDS
 *                 MESSAGES SIZE [SESSIONS [MESSAGES_PER_CONNECTION]]
 *
 *   -R  messages a second for each shard, in virtual time; without: as fast as they go
 *   -q  mail waits for so many sites, WAITING_EACH messages for each
 *   -i  so many connections to each shard said EHLO and are only there
 *   -f  a shard receives at most so many frames in a turn, as from a neighbour that is no faster
 *       than it is; without: all that wait
 *   -w  somebody looks on (watch.h)
 *   -D  the sink is so far, and there is one connection to it
 *   -b  bodies go ahead of replies (client.bdat_ahead)
 *
 * Prints, as one line of JSON, cycles and turns of the shards for a message, messages a second,
 * what octets were copied and why, and what the shards said to each other, after a warm-up of a
 * tenth. Under `valgrind --tool=callgrind --toggle-collect=shard_turn` instructions are counted;
 * with a run of more messages subtracted from one of fewer, nothing of the start is in them.
 *
 * A shard gets a turn when frames or messages of other shards wait for it, or when its deadline has
 * come. Sessions belong to the shards in equal numbers. There is a source for each, so that no
 * shard depends on another's luck.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <x86intrin.h>

#include "bench/line/account.h"
#include "bench/line/options.h"
#include "bench/line/watch.h"
#include "bench/line/world.h"
#include "control/config.h"
#include "control/shard.h"
#include "relay/body_gate.h"
#include "tests/sim/disk_sim.h"

#define SHARD_MAX       4u
#define RING_SIZE       256u
#define EVENT_BURST     256u
#define ROUND_MAX       100000000u
#define NET_SHARDS      0u
#define NET_SOURCES     1u
#define NET_SINK        2u
#define PORT            25u
#define SESSIONS_MAX    10000u /* besides those that are idle */
#define PORT_OF_QUEUE   26u    /* where mail is stored first */
#define SOURCE_FIRST    1u     /* of the sources' addresses: those whose mail goes through, */
#define SOURCE_OF_QUEUE 101u   /* and those whose mail waits */
#define RECORD_COUNT    1024u
#define REST_TIME       TICK_S(5)
#define TRY_TIME        TICK_S(2)
#define SITE_PORT       10000u /* of the first site that waits: nobody listens there */
#define LOOK_EACH       32u
#define WAITING_EACH    4u

volatile int load_is_stopping; /* never: the load's own program has signals */

struct party {                   /* a source or the sink */
    struct load_options options; /* its own: a source goes on reading them */
    struct flow_plane *plane;
    struct source *source;
    struct sink *sink;
};

struct member {
    struct flow_plane *plane;
    struct disk *disk;
    struct shard *shard;
    tick_us deadline;
};

struct line {
    struct line_options options;
    struct watch *watch; /* NULL: nobody */
    struct world *world;
    struct config *config;
    struct disk_sim *disk;
    struct ring_group *group;
    struct cli cli; /* the load's options */
    struct member members[SHARD_MAX];
    struct party sources[SHARD_MAX], sink;
    struct record records[RECORD_COUNT]; /* where shards leave them, as in the daemon's ring */
    uint64_t record_count, cycles, turns;
    struct account account; /* behind the warm-up */
};

/* ---- the world ---- */

static void config_write(const struct line *line, FILE *out)
{
    (void)fprintf(
        out,
        "hostname: relay.example\n"
        "listen: [{address: \"0.0.0.0:25\", limits: {sessions: %u}}, {address: "
        "\"0.0.0.0:26\", delivery: spool}]\n"
        "relay_from: [10.0.0.0/8]\n"
        "dns: {resolvers: [\"10.0.3.1\"]}\n"
        "destinations: {allow: [10.0.0.0/8]}\n"
        "spool: {size: 64MiB, segment: 1MiB, reserve: 4MiB}\n"
        "client: {connections_per_site: %u, messages_per_connection: 1000000, bdat_ahead: %s}\n"
        "delivery: %s\n"
        "cores: %u\n"
        "routes:\n",
        SESSIONS_MAX + line->options.idle * line->options.shard_count,
        line->options.distance > 0 ? 1 : 100, line->options.is_bdat_ahead ? "always" : "never",
        line->options.distance > 0 ? "cut-through" : "auto", line->options.shard_count);
    for (uint32_t i = 0; i < line->options.sites; i++)
        (void)fprintf(out, "  - {match: w%u.test, hosts: [{host: 10.0.%u.1, port: %u}]}\n", i,
                      NET_SINK, SITE_PORT + i);
    (void)fprintf(out, "  - {match: \"*\", hosts: [{host: 10.0.%u.1, port: 2525}]}\n", NET_SINK);
}

static void config_make(struct line *line)
{
    char *text = NULL;
    size_t size = 0;
    struct config_report report;
    FILE *out = open_memstream(&text, &size);

    CHECK(out != NULL);
    config_write(line, out);
    CHECK(fclose(out) == 0);
    config_report_init(&report, "configuration");
    enum err err = config_parse(span_of(text, (uint32_t)size), &line->config, &report);
    if (err == ERR_OK)
        err = config_assemble(line->config, &report);
    if (err == ERR_OK)
        err = config_complete(line->config, &report);
    if (err != ERR_OK)
        (void)fprintf(stderr, "angarium-line: %s\n", report.text);
    CHECK(err == ERR_OK);
    free(text);
}

static void record_keep(void *context, const struct record *record)
{
    struct line *line = context;

    line->records[line->record_count++ % RECORD_COUNT] = *record;
}

static void member_start(struct line *line, uint32_t index)
{
    const struct config *config = line->config;
    struct member *member = &line->members[index];
    uint32_t failing = 0;

    member->plane = world_join(line->world, NET_SHARDS, (uint8_t)(index + 1), config->buffer_size);
    member->disk = disk_sim_open(line->disk);
    struct shard_options options = {
        .index = index,
        .count = line->options.shard_count,
        .plane = member->plane,
        .disk = member->disk,
        .clock = world_clock(line->world),
        .mailbox = ring_member_get(line->group, index),
        .records = {.emit = record_keep, .context = line},
        .settings = &config->settings,
        .spool = {.segment_size = config->spool.segment_size,
                  .size_max = config->spool.size / line->options.shard_count,
                  .reserve_size = config->spool.reserve,
                  .segment_spare_min = config->spool.spare_count,
                  .commit_deadline = config->spool.commit_deadline,
                  .lazy_time = config->spool.lazy_time,
                  .scrub_pause = config->spool.scrub_pause},
        .epoch = 1,
        .dns = config->dns,
        .message_count_max = config->message_count_max / line->options.shard_count,
        .body_memory_max = config->body_memory / line->options.shard_count,
        .connection_max = config->connections_per_site,
        .connection_start = config->connections_at_first,
        .is_auth_inline = true,
        .outbound_max = 10000,
        .body_octets = BODY_GATE_OCTETS,
        .inbound_flow_max = 20000 + line->options.idle,
    };
    rng_init_seed(&options.rng, index + 1);
    enum err err = shard_new(&options, &member->shard);
    if (err == ERR_OK)
        err = shard_listen(member->shard, &failing);
    CHECK(err == ERR_OK);
}

/* An empty spool is what they find. */
static void recovery_tell(struct line *line)
{
    struct spool_recovery_options options = {.threads = 1};
    struct shard_control control = {0};
    struct ring_message message = {.kind = SHARD_MESSAGE_RECOVERED,
                                   .payload_size = sizeof(control)};
    struct disk *disk = disk_sim_open(line->disk);

    enum err err = spool_recovery_run(disk, &options, &control.recovery);
    CHECK(err == ERR_OK);
    memcpy(message.payload, &control, sizeof(control));
    for (uint32_t i = 0; i < line->options.shard_count; i++)
        ring_send(ring_member_get(line->group, line->options.shard_count), i, &message);
}

static void line_start(struct line *line)
{
    line->world = world_new();
    world_set_far(line->world, NET_SINK, line->options.distance / 2);
    world_set_frames(line->world, NET_SHARDS, line->options.frames_max);
    line->disk = disk_sim_new(&(struct disk_sim_options){.clock = world_clock(line->world),
                                                         .size = 16ull << 30,
                                                         .latency_min = 10,
                                                         .latency_max = 20,
                                                         .seed = 1});
    config_make(line);
    line->group = ring_group_new(line->options.shard_count + 1, RING_SIZE);
    for (uint32_t i = 0; i < line->options.shard_count; i++)
        member_start(line, i);
    recovery_tell(line);
}

/* ---- turns ---- */

static tick_us earlier(tick_us a, tick_us b)
{
    return a < b ? a : b;
}

static bool member_has_mail(struct line *line, uint32_t index)
{
    struct ring_member *member = ring_member_get(line->group, index);

    if (!ring_sleep_begin(member))
        return true;
    ring_sleep_end(member);
    return false;
}

static void members_turn(struct line *line)
{
    struct ring_message message;

    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        struct member *member = &line->members[i];
        if (!world_has_frames(line->world, member->plane) && !member_has_mail(line, i) &&
            member->deadline > world_now(line->world) &&
            disk_sim_deadline(line->disk) > world_now(line->world))
            continue;
        uint64_t start = __rdtsc();
        member->deadline = shard_turn(member->shard);
        line->cycles += __rdtsc() - start;
        line->turns++;
    }
    while (ring_receive(ring_member_get(line->group, line->options.shard_count), &message) ==
           ERR_OK) {
        if (line->watch != NULL)
            watch_on_message(line->watch, &message, world_now(line->world));
    }
}

static struct tick_now time_of(struct line *line)
{
    struct tick_now now = tick_now_read(world_clock(line->world));

    return (struct tick_now){now.tick, now.wall};
}

/* One for each shard. */
static void sources_start(struct line *line, const struct load_options *options, uint8_t host_first,
                          uint16_t port)
{
    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        struct party *party = &line->sources[i];
        party->options = *options;
        party->options.target =
            (struct flow_address){FLOW_FAMILY_IP4, 0, port, {10, 0, NET_SHARDS, (uint8_t)(i + 1)}};
        party->plane = world_join(line->world, NET_SOURCES, (uint8_t)(host_first + i), 16384);
        party->source = source_new(&party->options, party->plane, NULL, time_of(line));
        CHECK(party->source != NULL);
    }
}

static void sources_end(struct line *line)
{
    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        source_free(line->sources[i].source);
        flow_plane_free(line->sources[i].plane);
        line->sources[i] = (struct party){0};
    }
}

static void sink_start(struct line *line)
{
    struct load_options *options = &line->cli.options;

    options->listen = (struct flow_address){FLOW_FAMILY_IP4, 0, 2525, {10, 0, NET_SINK, 1}};
    line->sink.plane = world_join(line->world, NET_SINK, 1, 16384);
    line->sink.sink = sink_new(options, line->sink.plane, NULL, time_of(line));
    CHECK(line->sink.sink != NULL);
}

static void party_turn(struct line *line, struct party *party)
{
    struct flow_event events[EVENT_BURST] UNINITIALIZED;
    struct tick_now now = time_of(line);
    uint32_t count = flow_poll(party->plane, now.tick, events, EVENT_BURST);

    for (uint32_t i = 0; i < count; i++) {
        if (party->source != NULL)
            source_on_event(party->source, &events[i], now);
        else
            sink_on_event(party->sink, &events[i], now);
    }
    if (party->source != NULL)
        (void)source_turn(party->source, now);
    else
        (void)sink_turn(party->sink, now);
    /* Nobody prints lines, and each party goes by when its next is due. */
    struct meter *meter =
        party->source != NULL ? source_meter(party->source) : sink_meter(party->sink);
    if (meter->line_at <= now.tick)
        meter->line_at = now.tick + TICK_S(1);
    flow_flush(party->plane, now.tick);
}

/* What was due by now has had its turn, or is the line a second that nobody prints here. */
static tick_us party_next(const struct line *line, const struct party *party, tick_us own)
{
    tick_us now = world_now(line->world);

    if (world_has_frames(line->world, party->plane))
        return now;
    return earlier(flow_deadline(party->plane), own > now ? own : TICK_NEVER);
}

/* Everybody's turn, then time goes on: a microsecond while there is work, else to the next. */
static void line_round(struct line *line)
{
    tick_us now = world_now(line->world), next = disk_sim_deadline(line->disk);

    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        if (line->sources[i].source != NULL)
            party_turn(line, &line->sources[i]);
    }
    members_turn(line);
    /* As quick as there are shards, or each would find less to do in a turn the more there are. */
    for (uint32_t i = 0; i < line->options.shard_count; i++)
        party_turn(line, &line->sink);
    next = earlier(next, party_next(line, &line->sink, sink_deadline(line->sink.sink)));
    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        if (line->sources[i].source != NULL)
            next = earlier(
                next, party_next(line, &line->sources[i], source_wakes(line->sources[i].source)));
        next = earlier(next, line->members[i].deadline);
        if (world_has_frames(line->world, line->members[i].plane) || member_has_mail(line, i))
            next = now;
    }
    next = earlier(next, world_arrival(line->world));
    if (line->watch != NULL) {
        watch_turn(line->watch, now);
        next = earlier(next, watch_deadline(line->watch, now));
    }
    world_advance(line->world, next > now + 1 ? next : now + 1);
}

/* The shards alone, until segments are made and nothing is left to do. */
static void line_rest(struct line *line)
{
    tick_us end = world_now(line->world) + REST_TIME;

    while (world_now(line->world) < end) {
        tick_us now = world_now(line->world), next = disk_sim_deadline(line->disk);
        members_turn(line);
        for (uint32_t i = 0; i < line->options.shard_count; i++)
            next = earlier(next, line->members[i].deadline);
        world_advance(line->world, next > now + 1 ? earlier(next, end) : now + 1);
    }
}

static uint64_t arrived(const struct line *line)
{
    return sink_meter(line->sink.sink)->counts[METER_MESSAGES];
}

static uint64_t waiting(const struct line *line)
{
    struct shard_status status;
    uint64_t messages = 0;

    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        shard_get_status(line->members[i].shard, &status);
        messages += status.queue.messages;
    }
    return messages;
}

static void line_run(struct line *line, uint64_t until)
{
    for (uint32_t round = 0; arrived(line) < until; round++) {
        CHECK(round < ROUND_MAX);
        line_round(line);
    }
}

/* Mail for sites where nobody listens: each has had its first try, and waits for the next. */
static void queue_fill(struct line *line)
{
    struct load_options options = line->cli.options;
    char *list = NULL, why[DIST_WHY_SIZE];
    size_t size = 0;
    FILE *out = open_memstream(&list, &size);

    CHECK(out != NULL);
    for (uint32_t i = 0; i < line->options.sites; i++)
        (void)fprintf(out, "%sw%u.test", i == 0 ? "" : ",", i);
    CHECK(fclose(out) == 0);
    options.domains = (struct dist){0};
    enum err err = dist_parse_list(span_of(list, (uint32_t)size), &options.domains, why);
    CHECK(err == ERR_OK);
    free(list);
    options.rate = 0;
    options.messages = line->options.sites * WAITING_EACH;
    sources_start(line, &options, SOURCE_OF_QUEUE, PORT_OF_QUEUE);
    uint64_t wanted = (uint64_t)options.messages * line->options.shard_count;
    for (uint32_t round = 0; round % LOOK_EACH != 0 || waiting(line) < wanted; round++) {
        CHECK(round < ROUND_MAX);
        line_round(line);
    }
    sources_end(line);
    tick_us tried = world_now(line->world) + TRY_TIME;
    while (world_now(line->world) < tried)
        line_round(line);
    dist_fini(&options.domains);
}

/* ---- the end ---- */

static uint64_t straight_through(const struct line *line)
{
    struct shard_status status;
    uint64_t ready = 0;

    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        shard_get_status(line->members[i].shard, &status);
        CHECK(status.server.messages_accepted > 0); /* all shards take part */
        ready += status.ways.ready;
    }
    return ready;
}

static void line_end(struct line *line)
{
    struct rng rng;

    rng_init_seed(&rng, 1);
    disk_sim_kill(line->disk, &rng); /* segments may be on their way */
    watch_free(line->watch);
    sources_end(line);
    sink_free(line->sink.sink);
    flow_plane_free(line->sink.plane);
    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        shard_free(line->members[i].shard);
        flow_plane_free(line->members[i].plane);
        disk_free(line->members[i].disk);
    }
}

static struct account account_of(const struct line *line)
{
    struct account account = {0};

    for (uint32_t i = 0; i < line->options.shard_count; i++) {
        struct shard_status status;
        shard_get_status(line->members[i].shard, &status);
        account_add(&account, &status);
    }
    return account;
}

static void line_print(const struct line *line, uint64_t total, double messages, tick_us began)
{
    struct account account = account_of(line);

    (void)printf("{\"shards\":%u,\"messages\":%" PRIu64 ",\"cycles\":%.0f,\"turns\":%.3f,"
                 "\"straight\":%.4f,\"records\":%.2f,\"waiting\":%" PRIu64
                 ",\"seconds\":%.1f,\"rate\":%.2f,\"answers\":%" PRIu64 ",",
                 line->options.shard_count, total, (double)line->cycles / messages,
                 (double)line->turns / messages, (double)straight_through(line) / (double)total,
                 (double)line->record_count / (double)total, waiting(line),
                 (double)world_now(line->world) / 1e6,
                 messages / ((double)(world_now(line->world) - began) / 1e6),
                 line->watch == NULL ? 0 : watch_answers(line->watch));
    account_print(&line->account, &account, messages);
    (void)puts("}");
}

int main(int count, char **words)
{
    struct line *line = calloc(1, sizeof(*line));

    CHECK(line != NULL);
    if (!line_options_read(count, words, SHARD_MAX, &line->options, &line->cli))
        return 2;
    line_start(line);
    line_rest(line);
    sink_start(line);
    if (line->options.sites > 0)
        queue_fill(line);
    sources_start(line, &line->cli.options, SOURCE_FIRST, PORT);
    if (line->options.is_watched)
        line->watch = watch_new(line->group, line->options.shard_count, line->options.sites,
                                world_now(line->world));
    uint64_t total = (uint64_t)line->cli.options.messages * line->options.shard_count;
    uint64_t warm_up = total / 10;
    line_run(line, warm_up);
    uint64_t began = arrived(line);
    tick_us since = world_now(line->world);
    line->cycles = line->turns = 0;
    line->account = account_of(line);
    line_run(line, total);
    line_print(line, total, (double)(arrived(line) - began), since);
    line_end(line);
    return 0;
}
