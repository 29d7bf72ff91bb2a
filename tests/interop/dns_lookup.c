/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Looks up the mail hosts of the names on its command line, all at once, over kernel sockets, with
 * the resolver of the relay; prints one line for each, in order, and the counters.
 *
 *   dns_lookup -r ADDRESS:PORT [-r ...] [-t MS] [-c COUNT] NAME...
 *
 * MS is the time-out of a try; COUNT: also n0.NAME, n1.NAME ... for each.
 */
#include <stdio.h>
#include <stdlib.h>

#include "dns/dns.h"

#define LOOKUP_MAX 8192u

struct program {
    struct dns *dns;
    struct flow_plane *plane;
    struct mx_policy policy;
    uint32_t count, open;
    bool is_done[LOOKUP_MAX];
    char names[LOOKUP_MAX][MX_NAME_MAX];
    struct mx_answer answer;
};

static void on_wake(void *context, uint64_t user)
{
    struct program *program = context;

    CHECK(!program->is_done[user]);
    program->is_done[user] = true;
    program->open--;
}

static const char *verdict_text(enum mx_verdict verdict)
{
    static const char *const texts[] = {"ok", "null", "not_found", "all_denied", "temporary"};

    return texts[verdict];
}

static void print_answer(const char *name, const struct mx_answer *answer)
{
    char ip[FLOW_ADDRESS_TEXT_MAX];

    printf("%s %s", name, verdict_text(answer->verdict));
    for (uint32_t i = 0; i < answer->host_count; i++) {
        printf(" %u:%s=", answer->hosts[i].preference, answer->hosts[i].name);
        for (uint32_t j = 0; j < answer->hosts[i].address_count; j++) {
            printf("%s%s", j > 0 ? "," : "",
                   flow_address_format_ip(&answer->hosts[i].addresses[j], ip));
        }
    }
    printf("\n");
}

static enum err look_up(struct program *program, uint32_t index, struct tick_now now)
{
    return mx_lookup(program->dns, &program->policy, span_from_text(program->names[index]), index,
                     now, &program->answer);
}

static void turn(struct program *program)
{
    struct flow_event events[64];
    struct tick_now now = tick_now_read(tick_source_system());
    tick_us deadline = dns_deadline(program->dns), plane = flow_deadline(program->plane);

    flow_flush(program->plane, now.tick);
    flow_wait(program->plane, now.tick, deadline < plane ? deadline : plane);
    now = tick_now_read(tick_source_system());
    uint32_t count = flow_poll(program->plane, now.tick, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        dns_on_flow(program->dns, &events[i], now);
    dns_advance(program->dns, now);
}

/* Ask for the next names as far as the resolver takes them; true while some are left. */
static bool start_more(struct program *program, uint32_t *next)
{
    while (*next < program->count) {
        enum err err = look_up(program, *next, tick_now_read(tick_source_system()));
        if (err == ERR_LIMIT)
            return true;
        program->is_done[*next] = err == ERR_OK;
        program->open += err == ERR_AGAIN;
        (*next)++;
    }
    return program->open > 0;
}

static void run(struct program *program)
{
    uint32_t next = 0;

    while (start_more(program, &next) || program->open > 0)
        turn(program);
    for (uint32_t i = 0; i < program->count; i++) {
        enum err err = look_up(program, i, tick_now_read(tick_source_system()));
        if (err == ERR_OK)
            print_answer(program->names[i], &program->answer);
        else
            printf("%s gone\n", program->names[i]);
    }
    struct dns_stats stats = dns_get_stats(program->dns);
    printf("# udp=%lu tcp=%lu answers=%lu timeouts=%lu servfail=%lu wrong=%lu truncated=%lu\n",
           stats.queries_udp, stats.queries_tcp, stats.answers, stats.timeouts, stats.servfail,
           stats.wrong_packets, stats.truncated);
}

static bool resolver_parse(const char *text, struct flow_address *ret_address)
{
    const char *colon = strrchr(text, ':');
    uint64_t port;

    if (colon == NULL || span_parse_u64(span_from_text(colon + 1), &port) != ERR_OK || port > 65535)
        return false;
    if (flow_address_parse_ip(span_of(text, (uint32_t)(colon - text)), ret_address) != ERR_OK)
        return false;
    ret_address->port = (uint16_t)port;
    return true;
}

static bool name_add(struct program *program, const char *prefix, const char *name)
{
    uint32_t size;
    char text[512];

    if (program->count == LOOKUP_MAX)
        return false;
    snprintf(text, sizeof(text), "%s%s", prefix, name);
    return dns_name_normalize(span_from_text(text), program->names[program->count++], &size) ==
           ERR_OK;
}

static bool arguments_parse(int argc, char **argv, struct program *program,
                            struct dns_options *options)
{
    uint64_t count = 0, timeout_ms;
    char prefix[32];
    bool is_sound = true;

    for (int i = 1; i < argc && is_sound; i++) {
        if (strcmp(argv[i], "-r") == 0 && i + 1 < argc && options->resolver_count < 4) {
            is_sound = resolver_parse(argv[++i], &options->resolvers[options->resolver_count++]);
        } else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc) {
            is_sound = span_parse_u64(span_from_text(argv[++i]), &timeout_ms) == ERR_OK;
            options->query_timeout = TICK_MS(timeout_ms);
        } else if (strcmp(argv[i], "-c") == 0 && i + 1 < argc) {
            is_sound = span_parse_u64(span_from_text(argv[++i]), &count) == ERR_OK;
        } else {
            is_sound = name_add(program, "", argv[i]);
            for (uint64_t n = 0; n < count && is_sound; n++) {
                snprintf(prefix, sizeof(prefix), "n%lu.", n);
                is_sound = name_add(program, prefix, argv[i]);
            }
        }
    }
    return is_sound && options->resolver_count > 0 && program->count > 0;
}

int main(int argc, char **argv)
{
    static struct program program;
    struct dns_options options = {.context = &program, .cache_count_max = 65536, .wake = on_wake};
    struct buf_pool_options pool_options = {.data_size = 2048, .count_max = 4096};
    struct rng rng;

    program.policy = (struct mx_policy){.port = 25, .ipv4 = true, .ipv6 = true};
    if (!arguments_parse(argc, argv, &program, &options)) {
        fprintf(stderr, "usage: dns_lookup -r ADDRESS:PORT [-r ...] [-t MS] [-c COUNT] NAME...\n");
        return 2;
    }
    if (rng_init_system(&rng) != ERR_OK)
        return 1;
    struct buf_pool *pool = buf_pool_new(&pool_options);
    struct flow_host_options host_options = {
        .pool = pool, .flow_count_max = 4096, .orphan_time = TICK_S(1), .seed = rng_u64(&rng)};
    if (flow_host_new(&host_options, &program.plane) != ERR_OK)
        return 1;
    program.dns = dns_new(&options, program.plane, &rng, tick_now_read(tick_source_system()));
    run(&program);
    dns_free(program.dns);
    flow_plane_free(program.plane);
    buf_pool_free(pool);
    return 0;
}
