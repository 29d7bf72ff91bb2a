/* SPDX-License-Identifier: Apache-2.0 */
#ifndef RELAY_CLIENT_FEED_H
#define RELAY_CLIENT_FEED_H

#include "base/buf.h"

/*
 * A body that is sent while it is still coming (client_feed.c). Two hold it: who receives the
 * message puts octets in, the attempt takes them out. Either may let go first.
 *
 * It can be sent once: what a connection has had is gone from it.
 */
struct client;
struct client_connection;

struct client_feed {
    /* of who receives */
    struct buf_queue octets; /* judged, and not with a connection yet */
    uint64_t size_said;      /* of the whole body, by its sender; 0: nothing */
    bool is_ended;           /* it is complete and good */
    bool has_open_line;      /* is_ended: it does not end in CRLF */
    bool is_broken;          /* no more octets leave, and its end never does */
    uint64_t heard;          /* is_ended: a stamp, when its last octet was received; 0: unknown */

    /* of the attempt */
    uint64_t taken;   /* octets that left `octets` */
    bool is_begun;    /* a connection asked for the first of them */
    bool is_finished; /* its end is with the next hop */
    bool is_unfit;    /* the next hop can judge only a message that is known whole */
    struct client_connection *connection; /* in its body; NULL: none is */

    uint32_t references;
    struct client_feed *news_next; /* in client->news, while is_news */
    bool is_news;
};

/** Heap; one reference. No memory ends the process. */
struct client_feed *client_feed_new(void);
void client_feed_reference(struct client_feed *feed);
/** The last one frees it. */
void client_feed_release(struct client_feed *feed);
/** Octets came, or the end: client_advance() will see to it. */
void client_feed_wake(struct client *client, struct client_feed *feed);

#endif
