/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ADMIN_H
#define CONTROL_ADMIN_H

#include "control/record_writer.h"
#include "control/shard.h"

/*
 * The control socket: a Unix stream socket of mode 0600. A client sends one line of JSON, gets one
 * JSON object, a line as well, and the connection ends.
 *
 *   {"verb":"status"}
 *   {"verb":"queue list","limit":100}
 *   {"verb":"queue show","id":"..."}
 *   {"verb":"flows"}, {"verb":"counters"}
 *   {"verb":"capture","id":"FILTER","file":"/...","count":N,"seconds":N}, {"verb":"capture stop"}
 *   {"verb":"capture",...,"stream":true}: a socket to read it from comes with the answer
 *   {"verb":"status","max_age_ms":500}: an answer that somebody else got will do, admin_share.h
 *   {"verb":"reload"}: the answer comes when all shards have the new settings
 *   {"verb":"upgrade"}: admin_upgrade.c
 *   {"verb":"trace","id":"192.0.2.1"}: many lines, admin_trace.c
 *   {"verb":"metrics"}: a page for Prometheus, and an empty line (metrics.h)
 *
 * Answers hold "ok": true, or "ok": false and "error": text for people. All work is done in the
 * control thread; shards are asked one after the other, one request at a time.
 */
struct admin;

#define ADMIN_ERROR_SIZE 9000u

struct admin_options {
    const char *path;
    const char *directory; /* of the spool, for the numbers of orders; NULL: they are not kept */
    uint32_t shard_count;
    struct record_writer *records;      /* NULL: none */
    const struct webhook_set *webhooks; /* NULL: none */
    void *context;
    /* Ask one shard; admin_on_reply() follows. */
    void (*query)(void *context, uint32_t shard, struct shard_query *query);
    /* Read the configuration again, or only say what that would change. Text for people in either
     * case. */
    bool (*reload)(void *context, bool is_dry_run, char ret_text[ADMIN_ERROR_SIZE]);
    /* End the process as SIGTERM does. */
    void (*stop)(void *context);
    /* What is kept over restarts has changed; may be NULL. */
    void (*changed)(void *context);
    /* A new program wants our place. An end of a link for it (upgrade_link.h), or -1 with text why
     * not. NULL: there is no such thing. */
    int (*upgrade)(void *context, char ret_text[ADMIN_ERROR_SIZE]);
    /* May the intake be closed? False: not now, another process may have our place in a moment.
     * NULL: always. */
    bool (*may_close)(void *context);
    /* The program's file is another one than when we started. */
    bool (*is_other_program)(void *context);
    bool has_listener; /* of the relay whose place we take: nobody is accepted there before
                          admin_take_over() */
    int listener;      /* the admin's, also with an error */
};

/** Errors: ERR_SYSTEM, errno says why; ERR_DISK_LOCKED: another relay answers on this socket. */
enum err admin_new(const struct admin_options *options, struct admin **ret_admin) MUST_CHECK;
void admin_free(struct admin *admin);
/** Readable when admin_run() has something to do. */
int admin_fd(const struct admin *admin);
void admin_run(struct admin *admin, tick_us now);
/** Time-outs of clients, and the capture. */
tick_us admin_deadline(const struct admin *admin);
/** Mail of earlier runs is being found: orders about mail wait until it is not, but for those that
 * stand, which meet it as it comes. */
void admin_set_finding(struct admin *admin, bool is_finding);
/** The descriptor that clients connect to: the admin's. */
int admin_listener(const struct admin *admin);
/** The relay whose listener this is has left: clients are ours from now on. */
void admin_take_over(struct admin *admin);
/** Another process goes on with our listener. Clients that have not asked yet are told to ask
 * again. */
void admin_leave(struct admin *admin);
/** Something other than a request of ours has changed what answers say (a signal): none from before
 * is given any more. */
void admin_forget_answers(struct admin *admin);
/** `angarium drain` is in force. */
bool admin_is_drained(const struct admin *admin);
/** They were started after us. */
void admin_set_webhooks(struct admin *admin, const struct webhook_set *webhooks);
/** A shard has filled the query it was asked. */
void admin_on_reply(struct admin *admin, struct shard_query *query, tick_us now);
/** A shard tells of conversations; the batch is its again afterwards. */
void admin_on_trace(struct admin *admin, const struct trace_batch *batch, tick_us now);

#endif
