/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_UNIT_QMGR_FIXTURE_H
#define TESTS_UNIT_QMGR_FIXTURE_H

#include "queue/qmgr.h"

/*
 * A queue manager over a pretended spool: every entry keeps what a disk would hold, so that a
 * message can be brought back as after a restart.
 */
struct spool_entry {
    struct spool_entry *next;
    struct message_id id;
    uint8_t *encoded; /* as committed */
    uint32_t encoded_size;
    struct span *progress; /* oldest first */
    uint32_t progress_count;
    bool is_done;       /* on_done came */
    bool is_unreadable; /* its envelope */
    bool has_no_memory; /* to read it into */
    uint32_t repairs;
    uint64_t repaired_body_size;
    struct span body;  /* as stored: borrowed from the test */
    enum err body_err; /* of reading it */
};

/* A read that has not ended: of an envelope, or of `body`. */
struct fixture_read {
    struct spool_entry *entry;
    uint64_t token;
    bool is_body;
    struct span body;
};
#define FIXTURE_READS_MAX 256u

struct fixture {
    struct qmgr_options options;
    struct qmgr *qmgr;
    struct rng rng;
    struct tick_now now;
    struct spool_entry *entries;
    uint32_t done_count, line_gone_count, expired_count;
    struct buf_pool *pool;
    bool is_slow; /* reads end when fixture_reads_end() says so, else within the call */
    struct fixture_read reads[FIXTURE_READS_MAX];
    uint32_t read_count;
    bool is_index_only; /* messages are inserted without their envelopes, if they have an index */
    bool is_new;        /* messages are inserted as if just accepted */
    uint64_t reads_total;
    void *line_gone_user;
    uint32_t expired_index;               /* of the last one */
    const struct qmgr_standing *standing; /* orders that a restart brings back */
    uint32_t standing_count;
    bool is_tight; /* the spool has room only for what ends mail */
};

struct message_options {
    uint64_t id;
    const char *sender;     /* NULL: a@x.example; "": null sender */
    const char *recipients; /* addresses with a space between them */
    const char *pool;       /* NULL: default */
    const uint8_t *notify;  /* NULL: nothing said; else one for each recipient */
    uint32_t flags;         /* enum envelope_flags */
    uint8_t class;
    wall_us arrived;  /* 0: now */
    tick_us lifetime; /* 0: 5 days */
    struct buf_queue *body;
};

void fixture_init(struct fixture *fixture, const struct qmgr_options *options);
void fixture_fini(struct fixture *fixture);
/** Forget the queue manager and bring back every message that is not done. */
void fixture_restart(struct fixture *fixture);
/** End the oldest `count` reads. */
void fixture_reads_end(struct fixture *fixture, uint32_t count);
/** As qmgr_message_status(), of an envelope that is read for it. */
struct qmgr_status fixture_status(struct fixture *fixture, const struct qmgr_message *message,
                                  uint32_t recipient_index);
/** Both clocks forward, then the timers. */
void fixture_pass(struct fixture *fixture, tick_us time);

struct envelope fixture_envelope(const struct fixture *fixture,
                                 const struct message_options *options, struct arena *arena);
/** Encode, commit to the pretended spool, insert. */
enum err fixture_insert(struct fixture *fixture, const struct message_options *options,
                        struct spool_entry **ret_entry);
struct spool_entry *fixture_entry_new(struct fixture *fixture, const struct envelope *envelope);
enum err fixture_insert_entry(struct fixture *fixture, struct spool_entry *entry,
                              struct buf_queue *body);

/** End an attempt with one fate for all recipients of the delivery. */
void fixture_finish_all(struct fixture *fixture, struct qmgr_delivery *delivery,
                        enum recipient_state state, const char *reply);
/** Take the first due delivery of the next line, leave the line parked. NULL: none. */
struct qmgr_delivery *fixture_take(struct fixture *fixture, struct qmgr_line **ret_line);
/** As above, with the line given back at once. */
struct qmgr_delivery *fixture_take_one(struct fixture *fixture);

#endif
