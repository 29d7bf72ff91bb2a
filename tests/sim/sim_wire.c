/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine against itself: two hosts of one or two stacks each over a simulated network, from one
 * seed: random policies, offloads, sizes, manners, faults. All octets must arrive, in order and
 * unchanged, every connection must end, and nothing may be left behind.
 *
 *   sim_wire --seed N [--trace]     one run; the same seed is the same run, octet for octet
 *   sim_wire --seeds A-B            TAP, one line per seed; each in a process of its own
 *      --verify                     stack_verify() after every turn, not in every fourth seed only
 *      --plant NAME                 a planted bug (see sim_plant_names)
 *      --must-fail                  with --seeds: good if at least one seed finds a violation
 *
 * Three oracles: the actors at the ends of each connection (sim_wire_actor.c), the observer on the
 * wire (sim_wire_observer.c), and what the stacks hold at the end: no connection, record, buffer or
 * armed timer of one.
 *
 * A run has two phases. In the first the network loses, doubles, reorders and corrupts as the seed
 * says; in the second it only is as slow, and its packets as small, as before, and everything must
 * come to its end in bounded time. The order in which stacks get their turns is drawn anew in every
 * round, and turns come late at random.
 *
 * Limits: ROUND_MAX rounds, RUN_MAX of virtual time.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/sim/sim_wire.h"

#define ROUND_MAX       3000000u
#define BUSY_ROUND_FREE 100u    /* rounds in which no time passes */
#define BUSY_ROUND_MAX  300000u /* rounds in a row in which somebody has work at once */
#define TURN_TIME       5u
#define RUN_MAX         TICK_S(3600)
#define AFTERMATH       TICK_S(1800)
#define LATE_MAX        500u
#define EVENT_MAX       64u
#define LISTENER_USER   UINT64_MAX
#define PORT            25u
#define BACKLOG         512u
#define VERIFY_SHARE    4u

const char *const sim_plant_names[SIM_PLANT_COUNT] = {"none", "lying-card", "lost-octet",
                                                      "leak", "rewrite",    "beyond"};

/* ---- hosts ---- */

static void on_news(void *context, const struct stack_news *news)
{
    struct sim_host *host = context;

    for (uint32_t i = 0; i < host->stack_count; i++) {
        if (host->news_count[i] < SIM_NEWS_MAX)
            host->news[i][host->news_count[i]++] = *news;
    }
}

static void host_pools(struct sim_host *host, uint32_t index)
{
    const uint32_t sizes[4] = {host->buffer_size, STACK_HEADER_SIZE, 1, host->receive_size};

    for (uint32_t i = 0; i < 4; i++) {
        host->pools[index][i] = buf_pool_new(&(struct buf_pool_options){
            .data_size = sizes[i], .count_max = host->pool_size[i], .backing = BUF_BACKING_HEAP});
    }
    host->station.pools[index] = host->pools[index][3];
}

static void host_stack(struct sim_wire *sim, struct sim_host *host, uint32_t index, struct nic *nic)
{
    struct stack_options options = host->stack;
    struct stack_port_options port = host->port;
    struct flow_listen_options listen = {.address = {.family = host->address.family, .port = PORT},
                                         .backlog = BACKLOG,
                                         .receive_limit = host->receive_limit,
                                         .user = LISTENER_USER};

    port.nic = nic;
    options.pool = host->pools[index][0];
    options.header_pool = host->pools[index][1];
    options.clone_pool = host->pools[index][2];
    options.receive_pool = host->pools[index][3];
    options.ports = &port;
    options.port_count = 1;
    options.now = sim->now;
    options.seed[0] = rng_u64(&sim->rng);
    options.seed[1] = rng_u64(&sim->rng);
    options.core = (uint16_t)index;
    options.core_count = (uint16_t)host->stack_count;
    options.context = host;
    options.on_news = host->stack_count > 1 ? on_news : NULL;
    CHECK(stack_new(&options, &host->stacks[index]) == ERR_OK);
    CHECK(flow_listen(stack_plane(host->stacks[index]), &listen, &host->listeners[index]) ==
          ERR_OK);
}

static void host_start(struct sim_wire *sim, struct sim_host *host)
{
    struct nic *nics[LINK_SIM_QUEUE_MAX];

    for (uint32_t i = 0; i < host->stack_count; i++)
        host_pools(host, i);
    host->station_number = link_sim_attach(sim->link, &host->station, nics);
    for (uint32_t i = 0; i < host->stack_count; i++)
        host_stack(sim, host, i, nics[i]);
}

static void host_free(struct sim_host *host)
{
    for (uint32_t i = 0; i < host->stack_count; i++)
        flow_plane_free(stack_plane(host->stacks[i]));
    for (uint32_t i = 0; i < host->stack_count; i++) {
        for (uint32_t j = 0; j < 4; j++)
            buf_pool_free(host->pools[i][j]);
    }
}

/* ---- rounds ---- */

static void stack_turn(struct sim_wire *sim, uint32_t host_index, uint32_t index)
{
    struct sim_host *host = &sim->hosts[host_index];
    struct stack *stack = host->stacks[index];
    struct flow_plane *plane = stack_plane(stack);
    struct flow_event events[EVENT_MAX];

    for (uint32_t i = 0; i < host->news_count[index]; i++)
        stack_on_news(stack, &host->news[index][i]);
    host->news_count[index] = 0;
    uint32_t count = flow_poll(plane, sim->now, events, 1 + rng_below(&sim->chance, EVENT_MAX));
    for (uint32_t i = 0; i < count; i++)
        sim_actors_on_event(sim, host_index, index, &events[i]);
    sim_actors_turn(sim, host_index, index);
    flow_flush(plane, sim->now);
    if (sim->options.is_verified)
        stack_verify(stack);
}

static void sim_round(struct sim_wire *sim)
{
    uint32_t order[SIM_HOST_COUNT * SIM_STACK_MAX], count = 0;

    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        for (uint32_t j = 0; j < sim->hosts[i].stack_count; j++)
            order[count++] = i * SIM_STACK_MAX + j;
    }
    for (uint32_t i = 0; i < count; i++) {
        uint32_t other = i + rng_below(&sim->chance, count - i), chosen = order[other];
        order[other] = order[i];
        stack_turn(sim, chosen / SIM_STACK_MAX, chosen % SIM_STACK_MAX);
    }
}

static tick_us sim_deadline(const struct sim_wire *sim)
{
    tick_us deadline = sim_actors_deadline(sim);

    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        for (uint32_t j = 0; j < sim->hosts[i].stack_count; j++) {
            tick_us own = flow_deadline(sim_plane(sim, i, j));
            deadline = own < deadline ? own : deadline;
            if (sim->hosts[i].news_count[j] > 0)
                deadline = sim->now;
        }
    }
    if (!sim->is_healed && sim->heal_at < deadline)
        deadline = sim->heal_at;
    return deadline;
}

/* Rounds until `is_over`, or for that time. */
static void sim_run(struct sim_wire *sim, tick_us time, bool (*is_over)(const struct sim_wire *))
{
    tick_us until = sim->now + time;
    uint32_t busy = 0;

    for (uint32_t round = 0; sim->now < until && !is_over(sim); round++) {
        if (!sim->is_healed && sim->now >= sim->heal_at)
            sim_wire_heal(sim);
        sim_round(sim);
        tick_us deadline = sim_deadline(sim);
        busy = deadline > sim->now ? 0 : busy + 1;
        if (deadline > sim->now)
            sim->now = (deadline < until ? deadline : until) + rng_below(&sim->chance, LATE_MAX);
        else if (busy > BUSY_ROUND_FREE)
            sim->now += TURN_TIME;
        if (busy < BUSY_ROUND_MAX && round < ROUND_MAX && sim->violations < SIM_VIOLATION_MAX)
            continue;
        sim_violation(sim, "the world does not come to rest");
        return;
    }
}

/* ---- the end ---- */

static bool stacks_are_empty(const struct sim_wire *sim)
{
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        for (uint32_t j = 0; j < sim->hosts[i].stack_count; j++) {
            struct stack_usage usage = stack_get_usage(sim->hosts[i].stacks[j]);
            if (usage.connections + usage.half_open + usage.time_wait + usage.orphans +
                    usage.out_of_order_buffers + usage.sent_segments + usage.frames_waiting >
                0)
                return false;
            /* Frames may wait for a neighbour. */
            if (buf_pool_in_use(sim->hosts[i].pools[j][1]) > 0)
                return false;
        }
    }
    return true;
}

static void check_stack(struct sim_wire *sim, uint32_t host, uint32_t index)
{
    struct stack_usage usage = stack_get_usage(sim->hosts[host].stacks[index]);

    if (usage.connections + usage.half_open + usage.time_wait + usage.orphans +
            usage.out_of_order_buffers + usage.sent_segments + usage.frames_waiting >
        0)
        sim_violation(sim,
                      "stack %u.%u holds %u connections, %u half open, %u TIME_WAIT, %u orphans, "
                      "%u buffers out of order, %u sent segments, %u frames",
                      host, index, usage.connections, usage.half_open, usage.time_wait,
                      usage.orphans, usage.out_of_order_buffers, usage.sent_segments,
                      usage.frames_waiting);
    for (uint32_t i = 0; i < 4; i++) {
        uint32_t in_use = buf_pool_in_use(sim->hosts[host].pools[index][i]);
        /* One buffer may stay: where what owners left over is copied together. */
        if (in_use > (i == 0 ? 2 : 0))
            sim_violation(sim, "stack %u.%u: %u %sbuffers are never released", host, index, in_use,
                          sim_pool_names[i]);
    }
    stack_verify(sim->hosts[host].stacks[index]);
}

static void sim_settle(struct sim_wire *sim)
{
    sim_actors_settle(sim);
    sim_run(sim, AFTERMATH, stacks_are_empty);
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
        for (uint32_t j = 0; j < sim->hosts[i].stack_count; j++)
            check_stack(sim, i, j);
    }
}

/* ---- one run ---- */

static void sim_init(struct sim_wire *sim, const struct sim_wire_options *options)
{
    *sim = (struct sim_wire){.options = *options, .now = TICK_S(1)};
    rng_init_seed(&sim->rng, options->seed);
    sim->options.is_verified = options->is_verified || options->seed % VERIFY_SHARE == 0;
    sim_wire_draw(sim);
    if (options->plant == SIM_PLANT_LYING_CARD) {
        for (uint32_t i = 0; i < SIM_HOST_COUNT; i++) {
            sim->hosts[i].station.offloads |= NIC_RX_CHECKSUM;
            sim->hosts[i].station.is_lying = true;
            sim->hosts[i].station.path.corrupt = 20000;
        }
    }
    sim->link = link_sim_new(rng_u64(&sim->rng));
    rng_init_seed(&sim->chance, rng_u64(&sim->rng));
    sim->observer = sim_observer_new(sim);
    link_sim_set_filter(sim->link, sim_observer_filter, sim->observer);
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++)
        host_start(sim, &sim->hosts[i]);
}

static uint32_t sim_play(const struct sim_wire_options *options, char *ret_summary, size_t size)
{
    struct sim_wire *sim = calloc(1, sizeof(*sim));
    CHECK(sim != NULL);

    sim_init(sim, options);
    sim_report_hosts(sim);
    sim_run(sim, RUN_MAX, sim_actors_are_done);
    tick_us over = sim->now;
    if (sim->violations == 0)
        sim_settle(sim);
    struct link_sim_stats stats = link_sim_get_stats(sim->link);
    snprintf(ret_summary, size,
             "%u connections, %llu octets, %llu packets, %llu lost, %llu s, fingerprint %016llx",
             sim->conn_count, (unsigned long long)sim->octets, (unsigned long long)stats.sent,
             (unsigned long long)(stats.lost + stats.queue_dropped + stats.too_big),
             (unsigned long long)(over / 1000000),
             (unsigned long long)link_sim_fingerprint(sim->link));
    uint32_t violations = sim->violations;
    sim_report_counters(sim);
    /* With a violation nothing is in order, so nothing is put in order. */
    if (violations > 0)
        return violations;
    for (uint32_t i = 0; i < SIM_HOST_COUNT; i++)
        host_free(&sim->hosts[i]);
    link_sim_free(sim->link);
    sim_observer_free(sim->observer);
    free(sim);
    return 0;
}

static int seed_play(const struct sim_wire_options *options)
{
    char summary[256];
    uint32_t violations = sim_play(options, summary, sizeof(summary));

    printf("%s %llu - %s\n", violations == 0 ? "ok" : "not ok", (unsigned long long)options->seed,
           summary);
    if (violations > 0)
        printf("# %u violations; replay: sim_wire --seed %llu --trace\n", violations,
               (unsigned long long)options->seed);
    fflush(stdout);
    if (violations > 0)
        _exit(1); /* leaks are no news then */
    return 0;
}

/* In a process of its own, so that a failed CHECK is one failed seed. `is_silent`: only the result
 * counts. */
static bool seed_play_apart(const struct sim_wire_options *options, bool is_silent)
{
    int status = 0;

    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        if (is_silent && (freopen("/dev/null", "w", stdout) == NULL ||
                          freopen("/dev/null", "w", stderr) == NULL))
            _exit(2);
        exit(seed_play(options));
    }
    if (child < 0 || waitpid(child, &status, 0) != child)
        return false;
    bool is_good = WIFEXITED(status) && WEXITSTATUS(status) == 0;
    if (!is_silent && !is_good && !(WIFEXITED(status) && WEXITSTATUS(status) == 1))
        printf("not ok %llu - ended by %s %d\n", (unsigned long long)options->seed,
               WIFSIGNALED(status) ? "signal" : "code",
               WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    return is_good;
}

static int seeds_play(struct sim_wire_options options, uint64_t first, uint64_t last,
                      bool must_fail)
{
    uint32_t failed = 0;

    printf("1..%llu\n", must_fail ? 1ull : (unsigned long long)(last - first + 1));
    for (uint64_t seed = first; seed <= last && !(must_fail && failed > 0); seed++) {
        options.seed = seed;
        failed += !seed_play_apart(&options, must_fail);
    }
    if (must_fail)
        printf("%s 1 - the planted bug %s is found\n", failed > 0 ? "ok" : "not ok",
               sim_plant_names[options.plant]);
    return must_fail ? failed == 0 : failed > 0;
}

static bool plant_parse(const char *name, enum sim_plant *ret_plant)
{
    for (uint32_t i = 0; i < SIM_PLANT_COUNT; i++) {
        if (strcmp(sim_plant_names[i], name) == 0) {
            *ret_plant = (enum sim_plant)i;
            return true;
        }
    }
    return false;
}

int main(int argc, char **argv)
{
    struct sim_wire_options options = {.seed = 1};
    unsigned long long first = 0, last = 0;
    bool must_fail = false;

    log_set_threshold(LOG_FATAL);
    for (int i = 1; i < argc; i++) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--trace") == 0)
            options.is_traced = true;
        else if (strcmp(argv[i], "--verify") == 0)
            options.is_verified = true;
        else if (strcmp(argv[i], "--must-fail") == 0)
            must_fail = true;
        else if (strcmp(argv[i], "--seed") == 0 && ++i < argc)
            options.seed = strtoull(value, NULL, 10);
        else if (strcmp(argv[i], "--seeds") == 0 && sscanf(value, "%llu-%llu", &first, &last) == 2)
            i++;
        else if (strcmp(argv[i], "--plant") == 0 && plant_parse(value, &options.plant))
            i++;
        else
            return 2;
    }
    return last > 0 ? seeds_play(options, first, last, must_fail) : seed_play(&options);
}
