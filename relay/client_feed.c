/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A body on its way out that is still coming in.
 *
 * As client_body.c, with what is known only at the end not known yet: every line is looked at for
 * its dot; after BDAT what is there goes as a chunk, the last one when the body has ended.
 *
 * Invariants
 *   1. A connection gets the end of data, or the last chunk, only of a feed that has ended and is
 *      not broken, and behind all its octets.
 *   2. A chunk is announced when its octets are here, and they follow it at once: a connection that
 *      is given up in the middle has had whole chunks and no last one.
 *   3. A feed is begun by one connection, and no other is given its octets.
 *   4. At most CLIENT_BODY_WINDOW octets, and one slice, are with the connection unsent. What the
 *      next hop does not take stays in the feed, whose owner stops reading from his client.
 *
 * Not here: when to give it up (transfer_stream.c).
 */
#include <stdlib.h>

#include "relay/client_internal.h"

#define CHUNK_SIZE_MIN 4096u /* smaller ones wait for more, or for the end */

struct client_feed *client_feed_new(void)
{
    struct client_feed *feed = calloc(1, sizeof(*feed));

    CHECK(feed != NULL);
    buf_queue_init(&feed->octets);
    feed->references = 1;
    return feed;
}

void client_feed_reference(struct client_feed *feed)
{
    CHECK(feed->references > 0);
    feed->references++;
}

void client_feed_release(struct client_feed *feed)
{
    CHECK(feed->references > 0);
    if (--feed->references > 0)
        return;
    CHECK(feed->connection == NULL && !feed->is_news);
    buf_queue_fini(&feed->octets);
    free(feed);
}

void client_feed_wake(struct client *client, struct client_feed *feed)
{
    if (feed->is_news || feed->connection == NULL)
        return;
    client_feed_reference(feed);
    feed->is_news = true;
    feed->news_next = client->news;
    client->news = feed;
}

struct client_feed *client_feed_next(struct client *client)
{
    struct client_feed *feed = client->news;

    if (feed == NULL)
        return NULL;
    client->news = feed->news_next;
    feed->is_news = false;
    return feed;
}

/* ---- out ---- */

/* Slices from the front, up to `room` octets and the rest of one slice. */
static enum err octets_take(struct client *client, struct client_connection *connection,
                            bool is_stuffed, uint64_t room, struct buf_queue *queue)
{
    struct client_feed *feed = connection->attempt.request.feed;
    uint64_t before = feed->octets.size;

    while (!buf_queue_is_empty(&feed->octets) && queue->size < room) {
        const struct buf_slice *slice = buf_queue_get(&feed->octets, 0);

        if (is_stuffed)
            TRY(client_body_stuff(client, connection, slice, queue));
        else
            buf_queue_append(queue, slice->buf, slice->offset, slice->size);
        buf_queue_drop(&feed->octets, slice->size);
    }
    feed->taken += before - feed->octets.size;
    return ERR_OK;
}

/* Invariant 1. */
static bool is_end_due(const struct client_feed *feed)
{
    return feed->is_ended && !feed->is_broken && buf_queue_is_empty(&feed->octets);
}

static void feed_finish(struct client_connection *connection)
{
    connection->attempt.request.feed->is_finished = true;
    smtpc_body_done(&connection->smtpc);
    stream_want(&connection->stream, FLOW_READABLE);
}

static enum err lines_send(struct client *client, struct client_connection *connection,
                           uint64_t room)
{
    struct client_feed *feed = connection->attempt.request.feed;
    struct buf_queue queue;

    buf_queue_init(&queue);
    enum err err = octets_take(client, connection, true, room, &queue);
    if (err == ERR_OK)
        stream_append(&connection->stream, &queue);
    buf_queue_fini(&queue);
    TRY(err);
    if (!is_end_due(feed))
        return ERR_OK;
    TRY(stream_write(&connection->stream,
                     feed->has_open_line ? SPAN_LITERAL("\r\n.\r\n") : SPAN_LITERAL(".\r\n")));
    feed_finish(connection);
    return ERR_OK;
}

/* The chunk's command, and its octets. */
static enum err chunk_send(struct client *client, struct client_connection *connection,
                           struct buf_queue *queue, bool is_last)
{
    smtpc_chunk(&connection->smtpc, queue->size, is_last);
    uint32_t size = smtpc_drain(&connection->smtpc,
                                (struct span_mut){client->room, (uint32_t)sizeof(client->room)});
    TRY(stream_write(&connection->stream, span_of(client->room, size)));
    if (trace_is_on(client->options.trace))
        client_trace_commands(client, connection, span_of(client->room, size), false);
    stream_append(&connection->stream, queue);
    if (is_last)
        feed_finish(connection);
    return ERR_OK;
}

static enum err chunks_send(struct client *client, struct client_connection *connection,
                            uint64_t room)
{
    struct client_feed *feed = connection->attempt.request.feed;
    struct buf_queue queue;

    if (!smtpc_may_chunk(&connection->smtpc))
        return ERR_OK; /* a reply will wake us */
    if (feed->octets.size < CHUNK_SIZE_MIN && !feed->is_ended)
        return ERR_OK;
    buf_queue_init(&queue);
    enum err err = octets_take(client, connection, false, room, &queue);
    bool is_last = is_end_due(feed);
    if (err == ERR_OK && (queue.size > 0 || is_last))
        err = chunk_send(client, connection, &queue, is_last);
    buf_queue_fini(&queue);
    return err;
}

enum err client_feed_send(struct client *client, struct client_connection *connection)
{
    struct client_feed *feed = connection->attempt.request.feed;
    uint64_t unsent = stream_unsent(&connection->stream);

    CHECK(connection->smtpc.state == SMTPC_STATE_BODY);
    CHECK(!feed->is_begun || feed->connection == connection);
    feed->is_begun = true;
    feed->connection = connection;
    if (feed->is_broken) {
        stream_want(&connection->stream, FLOW_READABLE);
        return ERR_OK;
    }
    if (unsent <= CLIENT_BODY_WINDOW / 2) {
        uint64_t room = CLIENT_BODY_WINDOW - unsent;
        TRY(connection->smtpc.transaction.is_bdat ? chunks_send(client, connection, room)
                                                  : lines_send(client, connection, room));
    }
    if (connection->smtpc.state == SMTPC_STATE_BODY)
        stream_want(&connection->stream,
                    buf_queue_is_empty(&feed->octets) || (connection->smtpc.transaction.is_bdat &&
                                                          !smtpc_may_chunk(&connection->smtpc))
                        ? FLOW_READABLE
                        : FLOW_READABLE | FLOW_WRITABLE);
    return ERR_OK;
}
