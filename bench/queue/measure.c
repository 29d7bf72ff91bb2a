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
 *   start    a process that finds them: when the first new message is durable (serving), and when
 *            all old ones are in the queue again (index). It may then be killed at work, for the
 *            next one to find.
 */
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/queue/queue_bench.h"

#define FILL_WINDOW    200u
#define STAGES         10u
#define STAGE_RETRIES  5000u
#define START_THREADS  2u
#define DEATH_MESSAGES 20000u /* more than a segment holds */
#define SUMMARY_GROUPS 64u
#define STEP_RETRIES   50u /* about as many fall due between two looks */

/* ---- accept ---- */

static void keep_window(struct shard *shard, uint32_t window)
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

static double fill_stage(struct shard *shard, uint64_t target)
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

/* ---- start ---- */

/* Killed under way, with segments that are not sealed. */
static void die_at_work(struct shard *shard)
{
    (void)fflush(stdout);
    (void)fill_stage(shard, shard->committed + DEATH_MESSAGES);
    keep_window(shard, FILL_WINDOW);
    (void)kill(getpid(), SIGKILL);
}

void measure_start(const struct shard_options *options, bool is_killed)
{
    double start = seconds_now();
    struct shard *shard = shard_new(options);
    uint64_t memory = memory_resident();
    keep_window(shard, 1);
    while (shard->committed < 1)
        shard_turn(shard);
    double serving = seconds_now() - start;
    struct disk *disk;
    struct spool_recovery *recovery;
    double cpu_before = cpu_process();
    CHECK(disk_new(options->directory, DISK_KIND_THREAD, &disk) == ERR_OK);
    struct spool_recovery_options recovery_options = {.threads = START_THREADS};
    CHECK(spool_recovery_run(disk, &recovery_options, &recovery) == ERR_OK);
    double scanned = seconds_now() - start, slice_max;
    double cpu_scan = cpu_process(), cpu = cpu_thread();
    uint64_t found = shard_adopt(shard, recovery, &slice_max);
    double indexed = seconds_now() - start, cpu_adopt = cpu_thread() - cpu;
    spool_recovery_free(recovery);
    disk_free(disk);
    printf("{\"serving_s\": %.4f, \"scan_s\": %.4f, \"index_s\": %.4f, \"slice_max_s\": %.6f, "
           "\"cpu_scan_s\": %.4f, \"cpu_adopt_s\": %.4f, "
           "\"messages\": %lu, \"octets\": %.1f}\n",
           serving, scanned, indexed, slice_max, cpu_scan - cpu_before, cpu_adopt, found,
           (double)(memory_resident() - memory) / (double)(found > 0 ? found : 1));
    if (is_killed)
        die_at_work(shard);
    shard_free(shard);
}
