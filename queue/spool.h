/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_SPOOL_H
#define QUEUE_SPOOL_H

#include <stdatomic.h>

#include "base/buf.h"
#include "base/rng.h"
#include "queue/disk.h"
#include "queue/envelope.h"

/*
 * The spool: a log of accepted messages, one writer per shard. The file format, the rules of
 * commit, recycling, VOID and recovery, and the states of a segment are specified in spool.c
 * (format: spool_record.h).
 *
 * What the users may rely on
 *  1. COMMITTED with ERR_OK means: MESSAGE, all its BODY parts and everything before them in its
 *     segment are synced.
 *  2. COMMITTED with an error means: the message will not come back after a restart, or its sender
 *     hears 4xx (VOID rule).
 *  3. A message comes back at recovery until its DONE is durable; PROGRESS and DONE are lazy (at
 *     most 1 s behind) unless they ride in a commit. Losing one means a duplicate, never a loss.
 *  4. Finished mail never comes back once its DONE was durable.
 */
struct spool;
struct spool_transaction; /* a message being written */
struct spool_entry; /* a committed message: lives until spool_done(), owned by the spool, borrowed
                       by the queue */

/* What the spools on one file system tell each other: octets of their files. All zeros but `count`
 * at first. */
#define SPOOL_SHARES_MAX 128u
struct spool_shares {
    uint32_t count;
    _Atomic uint64_t octets[SPOOL_SHARES_MAX]; /* by options.shard */
};

struct spool_options {
    uint32_t segment_size;       /* octets; 128 KB to 1 GB, cut to a multiple of 4,096 */
    uint64_t size_max;           /* octets this shard may use for segments; at least two */
    uint64_t reserve_size;       /* kept free for PROGRESS, DONE, VOID and DSN; at most a quarter of
                                    size_max, at least one segment */
    uint32_t segment_spare_min;  /* pre-written segments kept ready, at least 1 */
    tick_us commit_deadline;     /* a sync later than this fails its batch (default 60 s) */
    tick_us lazy_time;           /* bound on the delay of PROGRESS and DONE (default 1 s) */
    uint64_t scrub_rate;         /* octets read in a second to look for damage; 0: none */
    tick_us scrub_pause;         /* between two rounds of that */
    struct buf_pool *pool;       /* for bodies read back */
    uint32_t shard;              /* part of new segments' names only */
    uint64_t epoch;              /* of this process: spool_epoch_next() */
    struct spool_shares *shares; /* NULL: no other spool is on the file system */
};

enum spool_event_kind {
    SPOOL_EVENT_COMMITTED, /* err, entry when ERR_OK */
    SPOOL_EVENT_READ,      /* err, octets */
    SPOOL_EVENT_DAMAGED, /* id, damage: a live message, which may have ended meanwhile; no token */
};

enum spool_damage {
    SPOOL_DAMAGE_ENVELOPE = 1,
    SPOOL_DAMAGE_BODY = 2,
    SPOOL_DAMAGE_PROGRESS = 4, /* costs another attempt after the next start */
};

struct spool_event {
    enum spool_event_kind kind;
    enum err err;
    uint64_t token;
    struct spool_entry *entry;
    struct buf_queue octets; /* READ: owned by the receiver of the event */
    struct message_id id;
    uint8_t damage; /* enum spool_damage */
};

struct spool_stats {
    uint64_t commits, batches, batches_ahead, batch_messages_max, octets_written, syncs,
        sync_failures, voids, recycled_segments, copied_messages, messages_live, messages_recovered,
        octets_used, octets_max;
    uint64_t sync_time_us_total; /* sum over syncs */
    uint64_t scrub_rounds, scrubbed_octets, damaged_ranges, damaged_messages, repaired_messages;
    bool is_full, is_failed;
    bool is_stuck; /* nothing can be written, not even what frees room */
};

/** Start-up; owner thread afterwards. The spool creates its first segment here (blocking); on a
 * full disk it starts without one, so that recovered mail can go out. `disk` stays the caller's.
 * Errors: ERR_CONFIG_VALUE for impossible options, and what the disk says. */
enum err spool_new(const struct spool_options *options, struct disk *disk, struct rng *rng,
                   struct tick_now now, struct spool **ret_spool) MUST_CHECK;
/** After spool_is_idle(), or when the disk is dead (a simulated crash). Ends every entry and
 * transaction. Seals nothing: recovery reads unsealed segments as well. */
void spool_free(struct spool *spool);

/** NULL when the spool is full, failed, or transactions are exhausted: answer 452 (spool_refusal()
 * says why). `with_reserve` for DSNs. */
struct spool_transaction *spool_begin(struct spool *spool, struct message_id id, uint64_t size_hint,
                                      bool with_reserve);
enum err spool_refusal(const struct spool *spool);
/** There is room only for what ends mail (spool_space.c): what would come to pass again after a
 * restart, nobody having been told of it, is better left unwritten. */
bool spool_is_tight(const struct spool *spool);
/** Append body octets; `octets` is emptied (its references pass to the spool until written).
 * Errors: ERR_DISK_FULL: abort the transaction. */
enum err spool_write_body(struct spool *spool, struct spool_transaction *transaction,
                          struct buf_queue *octets) MUST_CHECK;
/** Octets accepted by spool_write_body() and not yet on their way to the disk: the back pressure of
 * large messages. */
uint64_t spool_unwritten(const struct spool_transaction *transaction);
/** Memory is scarce: what unfinished messages have gathered goes to the disk now, in smaller
 * records than usual; a few thousand octets of each may stay. */
void spool_relieve(struct spool *spool);
/** Append MESSAGE; ends in exactly one COMMITTED with `token`. Consumes the transaction. `envelope`
 * is copied. */
void spool_commit(struct spool *spool, struct spool_transaction *transaction, struct span envelope,
                  uint64_t token);
/** As spool_commit(), with the PROGRESS that the message has already, which is empty when there is
 * none: in the same batch as a rule, and never without the message. */
void spool_commit_progress(struct spool *spool, struct spool_transaction *transaction,
                           struct span envelope, struct span progress, uint64_t token);
/**
 * As spool_commit(), for a DSN: in the same batch and behind it the PROGRESS (or DONE, when
 * is_done) of the message it is about. With is_done, `about` is consumed when COMMITTED says
 * ERR_OK.
 */
void spool_commit_dsn(struct spool *spool, struct spool_transaction *transaction,
                      struct span envelope, struct spool_entry *about, struct span progress,
                      bool is_done, uint64_t token);
/** Forget an unfinished message. */
void spool_abort(struct spool *spool, struct spool_transaction *transaction);

struct message_id spool_entry_id(const struct spool_entry *entry);
/** Octets of the body. */
uint64_t spool_entry_body_size(const struct spool_entry *entry);
/** Lazily durable. `progress` is copied. */
void spool_progress(struct spool *spool, struct spool_entry *entry, struct span progress);
/** Lazily durable; consumes the entry. */
void spool_done(struct spool *spool, struct spool_entry *entry);
/** Read `size` body octets at `offset`; ends in one READ event, with ERR_STALE if the message ended
 * before all was read. CHECKs the bounds. */
void spool_read_body(struct spool *spool, struct spool_entry *entry, uint64_t offset, uint32_t size,
                     uint64_t token);
/** Read the envelope (as committed) back; ends in one READ event. */
void spool_read_envelope(struct spool *spool, struct spool_entry *entry, uint64_t token);

/**
 * A live message is damaged on the disk, and this is what memory still has of it: write it anew.
 * Records that can be read are taken from the disk all the same.
 *
 * Bounds:     `envelope` empty: there is none. `body` NULL or empty: none, else the whole body.
 * Ownership:  both are copied (of the body, its references).
 */
void spool_repair(struct spool *spool, struct spool_entry *entry, struct span envelope,
                  const struct buf_queue *body);

/** Submit and reap; fills events. Call once per turn, until it returns fewer than max. */
uint32_t spool_poll(struct spool *spool, struct tick_now now, struct spool_event *ret_events,
                    uint32_t max);
tick_us spool_deadline(const struct spool *spool);
/** Nothing to write, nothing outstanding. */
bool spool_is_idle(const struct spool *spool);
/** Write all lazy records now and start no new work in the background, until the next
 * spool_begin() (at shutdown). */
void spool_flush(struct spool *spool);
struct spool_stats spool_get_stats(const struct spool *spool);

/* ---- recovery ---- */

struct spool_recovery; /* the merged result of scanning every segment of a directory */

/** One live message. Borrowed from the recovery. */
struct spool_recovered {
    struct spool_entry *entry;   /* after adoption */
    struct span envelope;        /* as committed; empty: it was not read, there is an index */
    struct span index;           /* of the envelope, encoded (envelope_index.h); may be empty */
    const struct span *progress; /* PROGRESS payloads, oldest first */
    uint32_t progress_count;
};

struct spool_recovery_options {
    uint32_t threads;   /* that read; more than 1 only on a disk whose blocking calls are safe in
                           several threads: a real one */
    bool has_envelopes; /* read those too which have an index: much slower */
};

/**
 * Scan all segments that no other process has locked, merge by id, apply VOID. Blocking: a helper
 * thread's work, with a disk of its own; segments created by running spools of this process (newer
 * epoch) are left alone. Idempotent: writes nothing. `options` NULL: one thread, with envelopes.
 */
enum err spool_recovery_run(struct disk *disk, const struct spool_recovery_options *options,
                            struct spool_recovery **ret_recovery) MUST_CHECK;
/** The epoch that new segments of this process must carry: one above all found. Fast: reads names
 * and headers only. Call before any spool_new(). Errors: ERR_DISK_VERSION when a newer version
 * wrote here: nothing may be started on this directory. */
enum err spool_epoch_next(struct disk *disk, uint64_t *ret_epoch) MUST_CHECK;
/**
 * Share `index` of `count` of the segments passes to this spool; its live messages are reported one
 * by one, each entry then belongs to the spool. In slices: the shard goes on with its work between
 * them.
 */
struct spool_adoption;
struct spool_adoption *spool_adoption_new(struct spool_recovery *recovery, struct spool *spool,
                                          uint32_t index, uint32_t count);
/** The next `max` segments or messages. False: there are no more. */
bool spool_adoption_step(struct spool_adoption *adoption, uint32_t max,
                         void (*on_message)(void *context, const struct spool_recovered *message),
                         void *context);
void spool_adoption_free(struct spool_adoption *adoption);
/** Messages in the recovery, for all shares. */
uint32_t spool_recovery_messages(const struct spool_recovery *recovery);
/** All of it at once. */
void spool_recovery_adopt(struct spool_recovery *recovery, struct spool *spool, uint32_t index,
                          uint32_t count,
                          void (*on_message)(void *context, const struct spool_recovered *message),
                          void *context);
/** After every share was adopted. */
void spool_recovery_free(struct spool_recovery *recovery);

#endif
