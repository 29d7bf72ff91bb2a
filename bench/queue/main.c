/* SPDX-License-Identifier: Apache-2.0 */
/*
 * bench_queue: the queue of one shard, without sockets, on a real directory.
 *
 *   bench_queue accept DIR OCTETS SECONDS WINDOW [io_uring|thread]
 *   bench_queue fill DIR OCTETS MESSAGES [SHARD]
 *   bench_queue start DIR OCTETS [SHARDS [kill]]
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/queue/queue_bench.h"

#define SPOOL_SIZE_ACCEPT (1ull << 30)
#define SPOOL_SIZE_FILL   (200ull << 30) /* the disk is the bound */

static uint64_t number(const char *text)
{
    uint64_t value;
    if (span_parse_u64(span_from_text(text), &value) != ERR_OK) {
        (void)fprintf(stderr, "bench_queue: not a number: %s\n", text);
        exit(2);
    }
    return value;
}

static enum disk_kind kind_of(const char *text)
{
    return strcmp(text, "io_uring") == 0 ? DISK_KIND_URING : DISK_KIND_THREAD;
}

int main(int count, char **arguments)
{
    const char *verb = count > 3 ? arguments[1] : "";
    struct shard_options options = {.directory = count > 2 ? arguments[2] : "",
                                    .size_max = SPOOL_SIZE_FILL,
                                    .message_count_max = 20000000,
                                    .fate = FATE_QUEUED};
    if (strcmp(verb, "accept") == 0 && count >= 6) {
        options.body_size = (uint32_t)number(arguments[3]);
        options.size_max = SPOOL_SIZE_ACCEPT;
        options.fate = FATE_SETTLED;
        options.kind = count > 6 ? kind_of(arguments[6]) : DISK_KIND_AUTO;
        measure_accept(&options, (double)number(arguments[4]), (uint32_t)number(arguments[5]));
        return 0;
    }
    if (strcmp(verb, "fill") == 0 && count >= 5) {
        options.body_size = (uint32_t)number(arguments[3]);
        options.shard = count > 5 ? (uint32_t)number(arguments[5]) : 0;
        measure_fill(&options, number(arguments[4]));
        return 0;
    }
    uint64_t shards = strcmp(verb, "start") == 0 && count > 4 ? number(arguments[4]) : 1;
    if (strcmp(verb, "start") == 0 && shards > 0 && shards <= SHARD_COUNT_MAX) {
        options.body_size = (uint32_t)number(arguments[3]);
        measure_start(&options, (uint32_t)shards, count > 5);
        return 0;
    }
    (void)fputs("usage: bench_queue accept DIR OCTETS SECONDS WINDOW [io_uring|thread]\n"
                "       bench_queue fill DIR OCTETS MESSAGES [SHARD]\n"
                "       bench_queue start DIR OCTETS [SHARDS [kill]]\n",
                stderr);
    return 2;
}
