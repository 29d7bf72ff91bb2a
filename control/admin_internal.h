/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_INTERNAL_H
#define CONTROL_ADMIN_INTERNAL_H

#include "control/admin.h"
#include "control/admin_capture.h"
#include "control/admin_intake.h"
#include "control/admin_share.h"
#include "control/admin_summary.h"
#include "control/admin_trace.h"
#include "control/metrics.h"
#include "control/order_number.h"

/*
 * Shared by the files of the control socket: admin.c (start, turn and end), admin_job.c (jobs with
 * the shards), admin_client.c (clients and their octets).
 */
#define ADMIN_CLIENT_MAX  24u
#define ADMIN_REQUEST_MAX 4096u
#define ADMIN_CLIENT_TIME TICK_S(30)
#define ADMIN_LISTENER    UINT32_MAX

enum admin_client_state {
    ADMIN_CLIENT_FREE = 0,
    ADMIN_CLIENT_READING,
    ADMIN_CLIENT_WAITING,
    ADMIN_CLIENT_WORKING,
    ADMIN_CLIENT_WRITING
};

struct admin_job;
struct admin_client {
    enum admin_client_state state;
    int fd;
    tick_us deadline;
    uint64_t order; /* of arrival of its request */
    uint32_t request_size;
    json_t *parsed;          /* WAITING, WORKING */
    struct json_text answer; /* octets that are not all out */
    size_t answer_sent;
    struct admin_job *aside; /* its walk, while it has not taken what was found; NULL: none */
    char request[ADMIN_REQUEST_MAX]; /* last: who begins a client need not clear it */
};

struct admin_job {
    struct admin_client *client; /* NULL: no job, or its client has left */
    bool is_with_shard;
    bool is_ending;  /* a walk that its client left is ended on its shard */
    bool is_capture; /* taps go on or off; its client may have left, or there never was one */
    bool is_stream;  /* rows go out as they are found */
    bool is_blocked; /* the client has not taken all that was found: no more is asked for */
    uint32_t shard;
    struct shard_query query;
    struct json_text text;        /* the answer, as far as it is written */
    json_t *answer;               /* members that come after it */
    struct admin_status *status;  /* STATUS; metrics */
    struct admin_summary *groups; /* SUMMARY; metrics */
    bool is_metrics;              /* the answer is a page of metrics */
    bool has_rows;                /* `text` ends in their array, still open */
    bool has_more;                /* there are more than were asked for */
    char *filter;                 /* of an order: for the log */
    uint64_t limit, row_count;
    bool is_change; /* it may change what others are told */
    char *question; /* others may have the answer (admin_share.h); NULL: they may not */
    tick_us begun;
    uint64_t changes; /* of that time */
};

/* A walk on a shard that nobody waits for any more. */
struct admin_ending {
    uint32_t shard;
    uint64_t cursor;
};

struct admin {
    struct admin_options options;
    int epoll, listener;
    uint64_t order_next;                /* of requests */
    struct order_numbers order_numbers; /* of operators */
    bool is_finding;                    /* mail of earlier runs */
    bool is_waiting;                    /* the listener is still another process' */
    bool is_leaving;                    /* it is another process' now */
    tick_us upgrade_wanted_until;
    tick_us started, now; /* now: as we were last told */
    struct admin_client clients[ADMIN_CLIENT_MAX];
    struct admin_job job;
    struct admin_job parked; /* a walk over the queues that lets a short one go first */
    struct admin_ending
        endings[ADMIN_CLIENT_MAX]; /* more are left to the queue: others take over */
    uint32_t ending_count;
    struct admin_share share;
    struct admin_status_texts *status_texts;
    struct metrics *metrics;
    struct keyed_hash names; /* of groups, and a key that nobody knows */
    struct admin_capture capture;
    struct admin_trace trace;
    struct admin_intake intake;
};

/* admin_client.c */
void admin_client_close(struct admin *admin, struct admin_client *client);
/** What was written to `client->answer` is all, or the end of it; the connection ends with it. The
 * line's end says that the answer is whole. */
void admin_client_send(struct admin *admin, struct admin_client *client);
/** The same, and the caller has the answer, with its line's end. */
void admin_client_send_kept(struct admin *admin, struct admin_client *client,
                            struct json_text *ret_answer);
/** The same of such an answer, which stays the caller's. */
void admin_client_send_again(struct admin *admin, struct admin_client *client,
                             const struct json_text *answer);
/** The same of a tree. Consumes `answer`; NULL, for want of memory: there is none. */
void admin_client_answer(struct admin *admin, struct admin_client *client, json_t *answer);
void admin_client_refuse(struct admin *admin, struct admin_client *client, const char *text);
/** One line of an answer that goes on. Consumes `line`. False: no memory. */
bool admin_client_append(struct admin_client *client, json_t *line) MUST_CHECK;
/** Send what was appended. False: not all of it is out yet, or the client is closed. */
bool admin_client_push(struct admin *admin, struct admin_client *client) MUST_CHECK;
/** A descriptor goes along with the answer that is still to come; it stays the caller's. */
bool admin_client_pass(const struct admin_client *client, int fd) MUST_CHECK;
void admin_client_accept(struct admin *admin, tick_us now);
void admin_client_event(struct admin *admin, struct admin_client *client, uint32_t events);

/* admin_upgrade.c */
void admin_upgrade(struct admin *admin, struct admin_client *client, tick_us now);

/* admin_request.c */
const char *admin_job_verb(const struct admin_client *client);
/** What is no job with the shards, or becomes one by itself. False: the client wants a job. */
bool admin_job_is_elsewhere(struct admin *admin, struct admin_client *client, tick_us now);
/** The query of a request. False: the client has been refused. */
bool admin_job_prepare(struct admin *admin, struct admin_client *client);

/* admin_job_answer.c */
void admin_job_answer_begin(struct admin *admin);
/** All shards were asked: is there something else that they must tell? */
bool admin_job_answer_next(struct admin_job *job);
/** Take what a shard told. False: the client is gone, and its job with it. */
bool admin_job_add(struct admin *admin);
/** All is told: why there is no answer; NULL: there is one. */
const char *admin_job_answer_end(struct admin *admin, tick_us now);
/** The answer goes to its client, and is kept for others where they may have it. */
void admin_job_answer_send(struct admin *admin);
/** The memory of query and answer. */
void admin_job_answer_free(struct admin_job *job);

/* admin_job.c */
/** A capture that reached a bound ends by itself. */
void admin_jobs_capture(struct admin *admin, tick_us now);
/** All jobs end with the relay. */
void admin_jobs_end(struct admin *admin);
/** A request is WAITING. */
void admin_jobs_run(struct admin *admin);
/** The client took all that was found, or it is about to be closed. */
void admin_job_unblock(struct admin *admin, struct admin_client *client);
void admin_job_forget_client(struct admin *admin, const struct admin_client *client);

#endif
