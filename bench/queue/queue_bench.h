/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_QUEUE_QUEUE_BENCH_H
#define BENCH_QUEUE_QUEUE_BENCH_H

#include "queue/qmgr.h"

/*
 * One shard's queue without sockets: a spool on a real directory, the queue manager above it, and
 * messages that enter as relay/transfer lets them in. The spool lives on the real clock, the queue
 * manager on one that the benchmark may move forward.
 */
#define SHARD_BUFFER_SIZE   2048u
#define SHARD_BUFFER_COUNT  16384u /* 32 MB: bodies do not come from the cache */
#define SHARD_DOMAINS       1000u
#define SHARD_RETRY_SECONDS 3600u
#define SHARD_COUNT_MAX     8u
#define FILL_WINDOW         200u

enum shard_fate {
    FATE_SETTLED, /* durable, then DONE at once: segments come free again */
    FATE_QUEUED   /* durable, then one attempt that is deferred: waits for its retry */
};

struct shard_options {
    const char *directory;
    uint64_t size_max; /* of the spool */
    uint32_t message_count_max;
    uint32_t body_size;
    uint32_t shard;
    uint64_t epoch; /* 0: the next one */
    enum shard_fate fate;
    enum disk_kind kind;
};

struct shard {
    struct shard_options options;
    struct disk *disk;
    struct spool *spool;
    struct qmgr *qmgr;
    struct buf_pool *pool;
    struct buf *buffers[SHARD_BUFFER_COUNT];
    struct rng rng;
    uint64_t entered, committed, refused, failed; /* messages */
    uint64_t retried;
    uint32_t loading; /* attempts that wait for their envelopes */
    uint32_t buffer_next;
    tick_us ahead;        /* of the queue manager's clock */
    struct tick_now turn; /* of an adoption, as the daemon's shards read it once a turn */
};

/** Ends the process with a reason when the directory cannot be used. */
struct shard *shard_new(const struct shard_options *options);
/** The epoch of a process that starts now. Ends the process likewise. */
uint64_t epoch_next(const struct shard_options *options);
/** Everything durable, then closed. */
void shard_free(struct shard *shard);
/** One more message on its way in. False: the spool refuses it for now. */
bool shard_enter(struct shard *shard);
/** One turn of the spool; sleeps at most a millisecond when there was nothing to do. */
void shard_turn(struct shard *shard);
/** Until nothing is on its way any more. */
void shard_settle(struct shard *shard);
/** Attempt everything that is due; each is deferred. */
void shard_attempt(struct shard *shard);
/** Adopt a share of what a recovery found, into spool and queue manager, in slices, of which the
 * longest took *ret_slice_max seconds. Returns how many messages. */
uint64_t shard_adopt(struct shard *shard, struct spool_recovery *recovery, uint32_t index,
                     uint32_t count, double *ret_slice_max);
struct tick_now shard_now(const struct shard *shard);

/** Processor seconds of this thread, and of the process with all its helpers. */
double cpu_thread(void);
double cpu_process(void);
double seconds_now(void);
/** Resident octets of this process; the most it ever had. */
uint64_t memory_resident(void);
uint64_t memory_highest(void);

/** So many messages on their way, unless the spool refuses. */
void keep_window(struct shard *shard, uint32_t window);
/** Until `target` messages are durable, each with its first attempt. Returns the processor seconds
 * of the shard for each. */
double fill_stage(struct shard *shard, uint64_t target);

/* The measurements; each prints one JSON object. */
void measure_accept(const struct shard_options *options, double seconds, uint32_t window);
void measure_fill(const struct shard_options *options, uint64_t count);
void measure_start(const struct shard_options *options, uint32_t count, bool is_killed);

#endif
