/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that finds a backlog: when every shard has a new message durable (serving), and when
 * all old ones are in the queue again (index). It may then be killed at work, for the next one to
 * find.
 *
 * One thread or two scan and merge, as in the daemon; then each shard takes over its share in a
 * thread of its own. What one shard wrote is one shard's again.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "bench/queue/queue_bench.h"

#define START_THREADS  2u
#define DEATH_MESSAGES 20000u /* more than a segment holds */

struct taker {
    struct shard *shard;
    struct spool_recovery *recovery;
    uint32_t index, count;
    pthread_t thread;
    uint64_t found;
    double slice_max, cpu;
};

static void *taker_main(void *argument)
{
    struct taker *taker = argument;
    double cpu = cpu_thread();

    taker->found =
        shard_adopt(taker->shard, taker->recovery, taker->index, taker->count, &taker->slice_max);
    taker->cpu = cpu_thread() - cpu;
    return NULL;
}

/* All old mail, by all shards at once. */
static void take_over(struct taker *takers, uint32_t count, struct spool_recovery *recovery)
{
    for (uint32_t i = 0; i < count; i++) {
        takers[i].recovery = recovery;
        takers[i].index = i;
        takers[i].count = count;
        CHECK(pthread_create(&takers[i].thread, NULL, taker_main, &takers[i]) == 0);
    }
    for (uint32_t i = 0; i < count; i++)
        CHECK(pthread_join(takers[i].thread, NULL) == 0);
}

static void serve(struct taker *takers, const struct shard_options *options, uint32_t count)
{
    struct shard_options mine = *options;

    mine.epoch = epoch_next(options);
    for (uint32_t i = 0; i < count; i++) {
        mine.shard = i;
        takers[i].shard = shard_new(&mine);
    }
    for (uint32_t i = 0; i < count; i++) {
        keep_window(takers[i].shard, 1);
        while (takers[i].shard->committed < 1)
            shard_turn(takers[i].shard);
    }
}

/* Killed under way, with segments that are not sealed. */
static void die_at_work(const struct taker *takers, uint32_t count)
{
    (void)fflush(stdout);
    for (uint32_t i = 0; i < count; i++)
        (void)fill_stage(takers[i].shard, takers[i].shard->committed + DEATH_MESSAGES);
    for (uint32_t i = 0; i < count; i++)
        keep_window(takers[i].shard, FILL_WINDOW);
    (void)kill(getpid(), SIGKILL);
}

void measure_start(const struct shard_options *options, uint32_t count, bool is_killed)
{
    struct taker takers[SHARD_COUNT_MAX] = {0};
    struct disk *disk;
    struct spool_recovery *recovery;
    struct spool_recovery_options recovery_options = {.threads = START_THREADS};
    double start = seconds_now(), slice_max = 0, cpu_adopt = 0;
    uint64_t found = 0;

    serve(takers, options, count);
    double serving = seconds_now() - start, cpu_before = cpu_process();
    uint64_t memory = memory_resident();
    CHECK(disk_new(options->directory, DISK_KIND_THREAD, &disk) == ERR_OK);
    CHECK(spool_recovery_run(disk, &recovery_options, &recovery) == ERR_OK);
    double scanned = seconds_now() - start, cpu_scan = cpu_process() - cpu_before;
    take_over(takers, count, recovery);
    double indexed = seconds_now() - start;
    uint64_t memory_peak = memory_highest();
    spool_recovery_free(recovery);
    disk_free(disk);
    for (uint32_t i = 0; i < count; i++) {
        found += takers[i].found;
        cpu_adopt += takers[i].cpu;
        slice_max = takers[i].slice_max > slice_max ? takers[i].slice_max : slice_max;
    }
    double each = (double)(found > 0 ? found : 1);
    printf("{\"serving_s\": %.4f, \"scan_s\": %.4f, \"index_s\": %.4f, \"slice_max_s\": %.6f, "
           "\"cpu_scan_s\": %.4f, \"cpu_adopt_s\": %.4f, \"messages\": %lu, \"least\": %lu, "
           "\"octets\": %.1f, \"octets_peak\": %.1f}\n",
           serving, scanned, indexed, slice_max, cpu_scan, cpu_adopt, found,
           takers[count - 1].found < takers[0].found ? takers[count - 1].found : takers[0].found,
           (double)(memory_resident() - memory) / each, (double)(memory_peak - memory) / each);
    if (is_killed)
        die_at_work(takers, count);
    for (uint32_t i = 0; i < count; i++)
        shard_free(takers[i].shard);
}
