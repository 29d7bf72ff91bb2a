/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is measured, and how.
 *
 *   accept   a closed loop of `window` messages on their way; each is settled as soon as it is
 *            durable, so that segments are used again and again: the steady state. The clock starts
 *            when the spool has used its first segments again.
 *   fill     messages that stay, each after one deferred attempt. At every tenth: processor time
 *            per message entered and per retry, resident octets per message. At the end: how long
 *            the shard works for `queue summary`.
 */
#include <stdio.h>

#include "bench/queue/queue_bench.h"

#define STAGES         10u
#define STAGE_RETRIES  5000u
#define SUMMARY_GROUPS 64u
#define STEP_RETRIES   50u /* about as many fall due between two looks */

/* ---- accept ---- */

void keep_window(struct shard *shard, uint32_t window)
{
    while (shard->entered - shard->committed - shard->failed < window && shard_enter(shard))
        ;
}

static void accept_until(struct shard *shard, double end, uint32_t window)
{
    while (seconds_now() < end) {
        keep_window(shard, window);
        shard_turn(shard);
    }
}

void measure_accept(const struct shard_options *options, double seconds, uint32_t window)
{
    struct shard *shard = shard_new(options);
    double give_up = seconds_now() + 20;
    /* A segment that was never written is slower, and so are those of a file system at rest. */
    while (spool_get_stats(shard->spool).recycled_segments < 4 && seconds_now() < give_up)
        accept_until(shard, seconds_now() + 0.05, window);
    struct spool_stats before = spool_get_stats(shard->spool);
    uint64_t committed = shard->committed;
    double start = seconds_now(), cpu = cpu_thread(), cpu_all = cpu_process();
    accept_until(shard, start + seconds, window);
    struct spool_stats after = spool_get_stats(shard->spool);
    double elapsed = seconds_now() - start;
    uint64_t count = shard->committed - committed;
    uint64_t syncs = after.syncs - before.syncs;
    printf("{\"messages_per_second\": %.1f, \"messages_per_batch\": %.2f, \"octets_per_batch\": "
           "%.0f, \"syncs_per_second\": %.1f, \"cpu_us\": %.3f, \"cpu_all_us\": %.3f, "
           "\"recycled\": %lu, \"refused\": %lu, \"failed\": %lu, \"window\": %u}\n",
           (double)count / elapsed, (double)count / (double)syncs,
           (double)(after.octets_written - before.octets_written) / (double)syncs,
           (double)syncs / elapsed, (cpu_thread() - cpu) / (double)count * 1e6,
           (cpu_process() - cpu_all) / (double)count * 1e6,
           after.recycled_segments - before.recycled_segments, shard->refused, shard->failed,
           window);
    shard_free(shard);
}

/* ---- fill ---- */

double fill_stage(struct shard *shard, uint64_t target)
{
    uint64_t from = shard->committed;
    double cpu = cpu_thread();
    while (shard->committed < target) {
        uint64_t left = target - shard->committed;
        keep_window(shard, left < FILL_WINDOW ? (uint32_t)left : FILL_WINDOW);
        shard_turn(shard);
        shard_attempt(shard);
    }
    return (cpu_thread() - cpu) / (double)(shard->committed - from);
}

/* Until the next timer, and then as far as brings some STEP_RETRIES. */
static void skip_ahead(struct shard *shard)
{
    tick_us next = qmgr_deadline(shard->qmgr), now = shard_now(shard).tick;
    tick_us step = TICK_S(SHARD_RETRY_SECONDS) * STEP_RETRIES / shard->committed;
    shard->ahead += step + (next != TICK_NEVER && next > now ? next - now : 0);
}

static double retry_stage(struct shard *shard)
{
    uint64_t from = shard->retried;
    double cpu = cpu_thread();
    while (shard->retried < from + STAGE_RETRIES) {
        skip_ahead(shard);
        shard_attempt(shard);
    }
    shard_settle(shard);
    return (cpu_thread() - cpu) / (double)(shard->retried - from);
}

/* What `queue summary` asks of a shard: all groups, by each of the ways. The worst of them. */
static double summary_seconds(struct shard *shard)
{
    static struct qmgr_group groups[SUMMARY_GROUPS];
    double worst = 0;

    for (uint32_t by = 0; by < QMGR_BY_COUNT; by++) {
        uint64_t cursor = 0;
        double start = seconds_now();
        while (cursor != UINT64_MAX)
            (void)qmgr_groups(shard->qmgr, (enum qmgr_group_by)by, &cursor, groups, SUMMARY_GROUPS,
                              shard_now(shard));
        double took = seconds_now() - start;
        worst = took > worst ? took : worst;
    }
    return worst;
}

void measure_fill(const struct shard_options *options, uint64_t count)
{
    struct shard *shard = shard_new(options);
    uint64_t memory = memory_resident();
    printf("{\"stages\": [");
    for (uint32_t stage = 1; stage <= STAGES; stage++) {
        double enqueue = fill_stage(shard, count * stage / STAGES);
        /* The others wait: only those of the first hours are due. */
        double retry = retry_stage(shard);
        printf("%s{\"messages\": %lu, \"enqueue_us\": %.3f, \"retry_us\": %.3f, \"octets\": %.1f}",
               stage == 1 ? "" : ", ", shard->committed, enqueue * 1e6, retry * 1e6,
               (double)(memory_resident() - memory) / (double)shard->committed);
        (void)fflush(stdout);
    }
    printf("], \"summary_ms\": %.3f}\n", summary_seconds(shard) * 1e3);
    (void)fflush(stdout);
    shard_free(shard);
}
