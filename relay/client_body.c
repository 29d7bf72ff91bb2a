/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body on its way out: slices by reference, and the end of data.
 *
 * After DATA: a line that begins with '.' gets another one in front (RFC 5321 section 4.5.2), a
 * missing final CRLF is added, and a line with a single dot ends it. After BDAT: the octets as they
 * are. The envelope's prefix goes first, a copy of it, as it is: it has no such lines.
 *
 * A body that goes ahead of the replies to its transaction is handed over at once, as a whole: it
 * is small (client_follow.c).
 *
 * Invariants
 *   1. Slices without such lines go by reference, untouched. The others are copied with their dots:
 *      a spliced one-octet slice for each dot would let a body of dots cost a hundred times its
 *      size in slices, and overflow a shared buffer's reference count.
 *   2. At most CLIENT_BODY_WINDOW octets, and one slice, are with the connection unsent: a
 *      connection that is lost before the rest was handed over is not in doubt, and under TLS
 *      ciphertext is made only as it is sent.
 *   3. The end of data is handed over after the last octet of the body, once, and smtpc_body_done()
 *      is called exactly then.
 *
 * Limits: half a window must go within data_block_timeout: at its default of 180 s a server that
 * takes less than some 730 octets a second is given up.
 * Not here: whether to stuff at all is known from the envelope (ENVELOPE_DOT_LINES); a body that is
 * still coming (client_feed.c).
 */
#include "relay/client_internal.h"

/* The next '.' at or behind `from` that begins a line; the size when there is none. */
static uint32_t dot_find(struct span octets, uint32_t from, bool is_line_start)
{
    if (is_line_start && from < octets.size && octets.data[from] == '.')
        return from;
    /* After any LF: no accepted body has a bare one, and a reader that ends lines there must not
     * find a lone dot. */
    const uint8_t *found = memmem(octets.data + from, octets.size - from, "\n.", 2);
    return found == NULL ? octets.size : (uint32_t)(found - octets.data) + 1;
}

enum err client_body_stuff(struct client *client, struct client_connection *connection,
                           const struct buf_slice *slice, struct buf_queue *queue)
{
    struct client_attempt *attempt = &connection->attempt;
    struct buf_pool *pool = connection->stream.plane->pool;
    struct span octets = buf_slice_span(slice);
    uint32_t start = 0;
    uint32_t dot = dot_find(octets, 0, attempt->is_line_start);

    attempt->is_line_start = octets.data[octets.size - 1] == '\n';
    if (dot == octets.size) {
        buf_queue_append(queue, slice->buf, slice->offset, slice->size);
        return ERR_OK;
    }
    client->stats.copied.dots += octets.size;
    while (dot < octets.size) { /* moves on by at least one octet a round */
        TRY(buf_queue_append_copy(queue, pool, span_of(octets.data + start, dot - start)));
        TRY(buf_queue_append_copy(queue, pool, SPAN_LITERAL(".")));
        start = dot;
        dot = dot_find(octets, dot + 1, false);
    }
    return buf_queue_append_copy(queue, pool, span_skip(octets, start));
}

static enum err prefix_append(struct client *client, struct client_connection *connection,
                              struct buf_queue *queue)
{
    struct client_attempt *attempt = &connection->attempt;

    if (attempt->is_prefix_out)
        return ERR_OK;
    attempt->is_prefix_out = true;
    client->stats.copied.signatures += attempt->request.envelope->prefix.size;
    return buf_queue_append_copy(queue, connection->stream.plane->pool,
                                 attempt->request.envelope->prefix);
}

/* How many slices from `index` on fill `room`, or all. */
static uint32_t slices_fill(const struct buf_queue *body, uint32_t index, uint64_t room)
{
    uint32_t end = index;

    for (uint64_t size = 0; end < body->count && size < room; end++)
        size += buf_queue_get(body, end)->size;
    return end - index;
}

static enum err body_append(struct client *client, struct client_connection *connection,
                            bool is_stuffed, uint64_t room, struct buf_queue *queue)
{
    struct client_attempt *attempt = &connection->attempt;
    const struct buf_queue *body = attempt->request.body;

    if (!is_stuffed && queue->size < room) {
        uint32_t count = slices_fill(body, attempt->body_index, room - queue->size);
        buf_queue_append_slices(queue, body, attempt->body_index, count);
        attempt->body_index += count;
        return ERR_OK;
    }
    while (attempt->body_index < body->count && queue->size < room) {
        TRY(client_body_stuff(client, connection, buf_queue_get(body, attempt->body_index), queue));
        attempt->body_index++;
    }
    return ERR_OK;
}

static enum err body_end(struct client_connection *connection)
{
    bool is_open = (connection->attempt.request.envelope->flags & ENVELOPE_NO_FINAL_CRLF) != 0;

    if (!connection->smtpc.transaction.is_bdat)
        TRY(stream_write(&connection->stream,
                         is_open ? SPAN_LITERAL("\r\n.\r\n") : SPAN_LITERAL(".\r\n")));
    smtpc_body_done(&connection->smtpc);
    stream_want(&connection->stream, FLOW_READABLE);
    return ERR_OK;
}

enum err client_body_go_ahead(struct client *client, struct client_attempt *attempt,
                              struct client_connection *connection)
{
    const struct client_request *request = &attempt->request;
    struct buf_queue queue;

    buf_queue_init(&queue);
    enum err err =
        buf_queue_append_copy(&queue, connection->stream.plane->pool, request->envelope->prefix);
    if (err == ERR_OK) {
        buf_queue_append_queue(&queue, request->body);
        stream_append(&connection->stream, &queue);
    }
    buf_queue_fini(&queue);
    TRY(err);
    attempt->is_bdat_ahead = true;
    client->stats.bdat_ahead++;
    client->stats.copied.signatures += request->envelope->prefix.size;
    stamps_out(client->options.stamps, STAMPS_BODY, &connection->stream, request->heard,
               request->heard);
    smtpc_body_done(&connection->smtpc);
    return ERR_OK;
}

enum err client_body_send(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    uint64_t unsent = stream_unsent(&connection->stream);
    bool is_stuffed = (attempt->request.envelope->flags & ENVELOPE_DOT_LINES) != 0 &&
                      !connection->smtpc.transaction.is_bdat;
    struct buf_queue queue;

    CHECK(connection->smtpc.state == SMTPC_STATE_BODY);
    if (unsent > CLIENT_BODY_WINDOW / 2)
        return ERR_OK;
    buf_queue_init(&queue);
    enum err err = prefix_append(client, connection, &queue);
    if (err == ERR_OK)
        err = body_append(client, connection, is_stuffed, CLIENT_BODY_WINDOW - unsent, &queue);
    if (err == ERR_OK)
        stream_append(&connection->stream, &queue);
    buf_queue_fini(&queue);
    TRY(err);
    if (attempt->body_index == attempt->request.body->count)
        return body_end(connection);
    stream_want(&connection->stream, FLOW_READABLE | FLOW_WRITABLE);
    return ERR_OK;
}
