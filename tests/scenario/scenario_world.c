/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The world of a scenario: one network, disk and clock; the relay; the resolver; the parties.
 *
 * Everybody turns once, then, if nobody has anything to do at this time, the clock goes on to the
 * next deadline. Nothing here is random but what the seeds say, and the seeds are constants.
 */
#include <stdlib.h>

#include "relay/body_gate.h"
#include "tests/scenario/scenario.h"
#include "tests/unit/dkim_fixture.h"

#define WORLD_SEED    20231u
#define WORLD_START   TICK_S(1)
#define WORLD_WALL    1700000000000000ll
#define DISK_SIZE     (512u << 20)
#define PARTY_POOL    16384u
#define PARTY_FLOWS   1024u
#define REST_TURN_MAX 200000u /* turns without time passing: more is a spin */
#define RECOVERY_TIME TICK_S(60)
#define RELAY_IP4     "192.0.2.1"
#define RELAY_IP6     "2001:db8::1"
#define RESOLVER      "192.0.2.53"
#define KEY_TOKEN     "@ed25519@"
#define USERS_TOKEN   "@users@"
#define USERS_HASH    "$5$rounds=1000$saltsalt$eKLZU9t9OoPWrqOQsoTIKG0aYkZ5rGOoOQhiIvoSWX2"

static const struct {
    const char *key, *line;
} config_base[] = {
    {"hostname:", "hostname: relay.example"},
    {"delivery:", "delivery: spool"},
    {"listen:", "listen: [{address: \"192.0.2.1:25\"}]"},
    {"relay_from:", "relay_from: [\"192.0.2.0/24\"]"},
    {"dns:", "dns: {resolvers: [\"192.0.2.53\"]}"},
    {"spool:", "spool: {size: 64MiB, segment: 1MiB, reserve: 4MiB}"},
    {"buffers:", "buffers: {size: 2KiB, memory: 64MiB}"},
    {"queue:", "queue: {body_memory: 16MiB}"},
};

static struct flow_address address_of(const char *ip, uint16_t port)
{
    struct flow_address address = {0};
    enum err err = flow_address_parse_ip(span_from_text(ip), &address);

    CHECK(err == ERR_OK);
    address.port = port;
    return address;
}

void scenario_init(struct scenario *scenario, const char *file)
{
    *scenario =
        (struct scenario){.file = file, .shard_count = 1, .patience = TICK_S(60), .ttl = 300};
    scenario->sink.since = INT64_MAX;
    rng_init_seed(&scenario->rng, WORLD_SEED);
    scenario_text_append(&scenario->dialogue, "", 0);
    scenario_text_append(&scenario->why, "", 0);
    scenario->records = calloc(SCENARIO_RECORD_MAX, sizeof(*scenario->records));
    CHECK(scenario->records != NULL);
    scenario->net = net_sim_new(&(struct net_sim_options){.seed = WORLD_SEED,
                                                          .start = WORLD_START,
                                                          .wall_start = WORLD_WALL,
                                                          .faults = net_sim_faults_none()});
    struct flow_address resolver = address_of(RESOLVER, 53);
    scenario->zone = zone_new(scenario->net, &resolver);
    scenario->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = PARTY_POOL, .backing = BUF_BACKING_SLAB});
    scenario->plane = net_sim_plane_new(
        scenario->net, &(struct net_sim_plane_options){.pool = scenario->pool,
                                                       .flow_count_max = PARTY_FLOWS,
                                                       .orphan_time = TICK_S(60),
                                                       .address4 = address_of("192.0.2.100", 0),
                                                       .address6 = address_of("2001:db8::100", 0)});
    scenario->disk = disk_sim_new(&(struct disk_sim_options){.clock = net_sim_clock(scenario->net),
                                                             .size = DISK_SIZE,
                                                             .latency_min = 100,
                                                             .latency_max = 2000,
                                                             .seed = WORLD_SEED});
}

/* ---- the relay ---- */

static bool config_has_key(const struct scenario *scenario, const char *key)
{
    const char *lines = scenario->config_lines.data;
    size_t size = strlen(key);

    while (lines != NULL && *lines != '\0') {
        if (strncmp(lines, key, size) == 0)
            return true;
        lines = strchr(lines, '\n');
        lines = lines == NULL ? NULL : lines + 1;
    }
    return false;
}

/* Everybody's password is "secret". */
static const char users_text[] = "alice@sender.example:" USERS_HASH ":*@alias.example\n"
                                 "bob@sender.example:" USERS_HASH "\n"
                                 "dave@sender.example:!" USERS_HASH "\n"
                                 "carol:" USERS_HASH "\n";

/* A file for the token that is first in `text`; NULL: there is none. */
static const char *config_file_make(const char *text, const char **ret_token, size_t *ret_size,
                                    char ret_path[DKIM_FIXTURE_PATH_SIZE])
{
    const char *key = strstr(text, KEY_TOKEN), *users = strstr(text, USERS_TOKEN);

    if (key != NULL && (users == NULL || key < users)) {
        struct evp_pkey_st *pair = dkim_fixture_ed25519();
        (void)dkim_fixture_key_file(pair, ret_path);
        dkim_fixture_key_free(pair);
        *ret_size = strlen(KEY_TOKEN);
    } else if (users != NULL) {
        dkim_fixture_file(users_text, sizeof(users_text) - 1, 0600, ret_path);
        *ret_size = strlen(USERS_TOKEN);
    } else {
        return NULL;
    }
    *ret_token = key != NULL && (users == NULL || key < users) ? key : users;
    return ret_path;
}

/* The configuration as written, with files for its tokens. */
static void config_add_lines(const struct scenario *scenario, struct scenario_text *text)
{
    const char *rest = scenario->config_lines.data, *token;
    char path[DKIM_FIXTURE_PATH_SIZE];
    size_t size;

    if (rest == NULL)
        return;
    while (config_file_make(rest, &token, &size, path) != NULL) {
        scenario_text_append(text, rest, (size_t)(token - rest));
        scenario_text_add(text, "%s", path);
        rest = token + size;
    }
    scenario_text_append(text, rest, strlen(rest));
}

static bool config_make(struct scenario *scenario)
{
    struct scenario_text text = {0};
    struct config_report report;

    for (uint32_t i = 0; i < COUNT_OF(config_base); i++) {
        if (!config_has_key(scenario, config_base[i].key))
            scenario_text_add(&text, "%s\n", config_base[i].line);
    }
    scenario_text_add(&text, "cores: %u\n", scenario->shard_count);
    config_add_lines(scenario, &text);
    config_report_init(&report, "configuration");
    enum err err =
        config_parse(span_of(text.data, (uint32_t)text.size), &scenario->config, &report);
    if (err == ERR_OK)
        err = config_assemble(scenario->config, &report);
    if (err == ERR_OK)
        err = config_complete(scenario->config, &report);
    free(text.data);
    if (err != ERR_OK)
        return scenario_fail(scenario, "the configuration is refused: %s", report.text);
    return true;
}

static bool node_is_ready(const struct scenario *scenario, const void *argument)
{
    (void)argument;
    return scenario->has_failed || node_is_recovered(scenario->node);
}

static bool relay_start(struct scenario *scenario)
{
    enum err err = node_start(&(struct node_options){.net = scenario->net,
                                                     .disk = scenario->disk,
                                                     .config = scenario->config,
                                                     .seed = WORLD_SEED + ++scenario->lives,
                                                     .body_octets = BODY_GATE_OCTETS,
                                                     .records = scenario_sink_get(scenario),
                                                     .address4 = address_of(RELAY_IP4, 0),
                                                     .address6 = address_of(RELAY_IP6, 0)},
                              &scenario->node);
    if (err != ERR_OK)
        return scenario_fail(scenario, "the relay does not start: %s", err_text(err));
    if (!scenario_stand_again(scenario)) /* as the daemon does, before recovered mail comes */
        return false;
    if (!scenario_run(scenario, RECOVERY_TIME, node_is_ready, NULL) && !scenario->has_failed)
        return scenario_fail(scenario, "the recovery does not end");
    return !scenario->has_failed;
}

bool scenario_begin(struct scenario *scenario)
{
    if (scenario->has_begun)
        return true;
    scenario->has_begun = true;
    return config_make(scenario) && relay_start(scenario);
}

bool scenario_crash(struct scenario *scenario, enum node_end end)
{
    if (scenario->node == NULL)
        return scenario_fail(scenario, "the relay is down already");
    node_end(scenario->node, end, &scenario->rng);
    scenario->node = NULL;
    return true;
}

bool scenario_restart(struct scenario *scenario)
{
    if (scenario->node != NULL && !scenario_crash(scenario, NODE_KILL))
        return false;
    return relay_start(scenario);
}

/* ---- time ---- */

static void world_turn(struct scenario *scenario)
{
    struct node *node = scenario->node;

    for (uint32_t i = 0; node != NULL && i < node_shard_count(node); i++)
        node_turn(node, i);
    if (node != NULL && node_control(node) != ERR_OK)
        (void)scenario_fail(scenario, "the spool cannot be read back");
    zone_turn(scenario->zone);
    scenario_parties_turn(scenario);
}

static tick_us world_deadline(const struct scenario *scenario)
{
    tick_us deadline = net_sim_deadline(scenario->net);

    if (scenario->node != NULL) {
        tick_us own = node_deadline(scenario->node);
        deadline = own < deadline ? own : deadline;
    }
    return deadline;
}

bool scenario_run(struct scenario *scenario, tick_us time,
                  bool (*is_met)(const struct scenario *scenario, const void *argument),
                  const void *argument)
{
    tick_us until = net_sim_now(scenario->net) + time;
    uint32_t turns = 0;

    while (!scenario->has_failed) {
        world_turn(scenario);
        if (is_met != NULL && is_met(scenario, argument))
            return true;
        tick_us now = net_sim_now(scenario->net), deadline = world_deadline(scenario);
        turns++;
        if (turns > REST_TURN_MAX)
            return scenario_fail(scenario, "the relay does not come to rest: it turns without end");
        if (deadline <= now)
            continue;
        if (now >= until)
            return false;
        net_sim_advance(scenario->net, deadline < until ? deadline : until);
        turns = 0;
    }
    return false;
}

void scenario_fini(struct scenario *scenario)
{
    if (scenario->node != NULL)
        node_end(scenario->node, NODE_KILL, &scenario->rng);
    flow_plane_free(scenario->plane);
    buf_pool_free(scenario->pool);
    zone_free(scenario->zone);
    disk_sim_free(scenario->disk);
    net_sim_free(scenario->net);
    config_free(scenario->config);
    for (uint32_t i = 0; i < scenario->party_count; i++)
        free(scenario->parties[i].received.data);
    free(scenario->records);
    free(scenario->config_lines.data);
    free(scenario->dialogue.data);
    free(scenario->why.data);
}
