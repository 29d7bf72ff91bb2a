/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is sent before its turn: a request behind another on the same connection, and bodies ahead
 * of all replies to their transactions.
 *
 * A connection whose end of data is sent, on a server that offers PIPELINING, has room for one
 * request more: its MAIL, RCPT and DATA go in the segment of that end, and so a connection carries
 * a message in each round trip. Where BDAT may go ahead of its replies, a transaction is one flight
 * and its end is sent with it: then others can follow it in their turn, up to SMTPC_NEXT_MAX.
 *
 *   client_follow() -> FOLLOWING, behind its leader, with the leader's slot
 *       the leader's message has its reply    it is the connection's own: ACTIVE, as if kept. One
 *                                             whose body went ahead changes places with it:
 *                                             ANSWERED, until replies and commands are known to
 *                                             match; then it is told, or is in doubt
 *       the connection is lost                its end was not sent: not attempted
 *                                             its end was sent: in doubt
 *       the server says 421, or that it       not attempted: it takes nothing behind that
 *         takes no more messages here
 *       cancelled, or not its turn within     not attempted; the connection ends with those before
 *         CLIENT_FOLLOW_TIME, its end not sent
 *       cancelled, its end sent               it has CLIENT_CANCEL_TIME when it is its turn
 *
 * Invariants
 *   1. Who follows has an object, an arena and an attempt of its own, no flow and no slot. When it
 *      is its turn it moves into the leader's object, as a whole.
 *   2. The order of the list is the order in the engine (smtpc.h); whose end was not sent is last.
 *   3. What became of one message is never taken for what became of another; each follower ends in
 *      one on_result().
 *      Of bodies ahead nobody knows whose a reply is until all that were due are in, and no other,
 *      or DATA has its 354: one reply too many in the midst of a chain gives each the next one's.
 *      So nothing of a chain is told before that, and at most SMTPC_NEXT_MAX are behind its first.
 *   4. Only whole bodies of at most CLIENT_AHEAD_SIZE_MAX go ahead, and only onto a connection that
 *      holds less than half a window unsent: nobody stands in the middle of an octet count.
 *   5. A site that did not answer what was sent so, or not soon, or answered something else, is
 *      left in peace for CLIENT_SHY_TIME: who waits behind a slow reply could go over another
 *      connection.
 *   6. Objects of those that have no connection are at most half of all: followers of a few sites
 *      keep nobody from connecting.
 *   7. The right to say MAIL of a follower is used up when its connection is lost: MAIL was written
 *      with the rest, and a server counts what it reads, answered or not. When it may still be on
 *      its way, because we broke off, that is told when the peer must have seen the end.
 *
 * `learned` (client.bdat_ahead): ahead once a site has taken CLIENT_LEARN_COUNT messages by BDAT in
 * their turn. The table is direct-mapped: a collision forgets the older site.
 *
 * Not here: which request follows whom (transfer_job.c), what replies mean (smtpc_transaction.c).
 */
#include "relay/client_internal.h"

#define CLIENT_AHEAD_SIZE_MAX (128u * 1024)
#define CLIENT_SHY_TIME       TICK_S(3600)
#define CLIENT_FOLLOW_TIME    TICK_S(10)

_Static_assert(CLIENT_DEPTH_MAX == SMTPC_NEXT_MAX + 1, "as people are told");

/* ---- what sites make of it ---- */

static struct client_ahead *ahead_of(struct client *client, uint64_t site)
{
    return &client->ahead[site % CLIENT_AHEAD_ENTRIES];
}

static bool site_is_shy(const struct client *client, uint64_t site)
{
    const struct client_ahead *ahead = &client->ahead[site % CLIENT_AHEAD_ENTRIES];

    return ahead->site == site && client->now < ahead->shy_until;
}

static void site_shy(struct client *client, uint64_t site)
{
    *ahead_of(client, site) =
        (struct client_ahead){.site = site, .shy_until = client->now + CLIENT_SHY_TIME};
    client->stats.shied++;
}

struct client_ahead_view client_get_ahead(const struct client *client, uint64_t site,
                                          enum settings_bdat_ahead bdat)
{
    const struct client_ahead *ahead = &client->ahead[site % CLIENT_AHEAD_ENTRIES];
    bool is_shy = site_is_shy(client, site);
    uint32_t learned = ahead->site == site ? ahead->bdat_count : 0;

    return (struct client_ahead_view){
        .has_next = client->settings->client.use_next && !is_shy,
        .has_bdat =
            !is_shy && (bdat == SETTINGS_BDAT_AHEAD_ALWAYS ||
                        (bdat == SETTINGS_BDAT_AHEAD_LEARNED && learned >= CLIENT_LEARN_COUNT)),
        .bdat = bdat,
        .learned = learned,
        .shy_until = is_shy ? ahead->shy_until : 0,
    };
}

/* A server that answered such requests before, and ends the session between two messages: that is
 * about how many there were, or how long it took. */
static bool has_had_enough(const struct client_connection *connection,
                           const struct smtpc_failure *failure)
{
    bool has_left = failure->code == 421 ||
                    (failure->code == 0 && stream_get_state(&connection->stream) != STREAM_OPEN);

    return failure->is_of_session || (connection->has_led && has_left);
}

void client_follow_judge(struct client *client, const struct client_connection *connection,
                         const struct smtpc_failure *failure)
{
    const struct client_attempt *attempt = &connection->attempt;
    bool is_unanswered = attempt->has_followed && failure->stage <= SMTP_STAGE_MAIL &&
                         !has_had_enough(connection, failure);
    bool is_senseless = failure->scope == SMTP_SCOPE_PROTOCOL || failure->is_in_doubt;

    if (!connection->has_request || attempt->is_cancelled)
        return;
    if (!is_unanswered && !(is_senseless && (attempt->has_followed || attempt->is_bdat_ahead)))
        return;
    site_shy(client, connection->site);
}

void client_follow_learn(struct client *client, const struct client_connection *connection)
{
    struct client_ahead *ahead = ahead_of(client, connection->site);

    if (ahead->site != connection->site)
        *ahead = (struct client_ahead){.site = connection->site};
    if (client->now >= ahead->shy_until && ahead->bdat_count < CLIENT_LEARN_COUNT)
        ahead->bdat_count++;
}

bool client_may_go_ahead(const struct client *client, struct client_connection *connection)
{
    const struct client_attempt *attempt = &connection->attempt;
    const struct client_ahead *ahead = &client->ahead[connection->site % CLIENT_AHEAD_ENTRIES];
    struct client_connection *carrier =
        connection->state == CLIENT_STATE_FOLLOWING ? connection->leader : connection;
    enum settings_bdat_ahead wish = attempt->request.bdat_ahead;

    if (wish == SETTINGS_BDAT_AHEAD_NEVER || attempt->request.feed != NULL ||
        site_is_shy(client, connection->site))
        return false;
    if (wish == SETTINGS_BDAT_AHEAD_LEARNED &&
        (ahead->site != connection->site || ahead->bdat_count < CLIENT_LEARN_COUNT))
        return false;
    return attempt->request.body->size + attempt->request.envelope->prefix.size <=
               CLIENT_AHEAD_SIZE_MAX &&
           stream_unsent(&carrier->stream) <= CLIENT_BODY_WINDOW / 2;
}

/* ---- room ---- */

static bool connection_has_room(const struct client *client,
                                const struct client_connection *connection)
{
    return client->options.on_room != NULL && connection->has_request &&
           !connection->attempt.is_cancelled && client->settings->client.use_next &&
           smtpc_may_follow(&connection->smtpc) &&
           connection->use_count + connection->smtpc.next_count < connection->use_max &&
           connection->answered_count + connection->smtpc.next_count < SMTPC_NEXT_MAX &&
           connection->attempt.serial == client->settings->serial &&
           stream_get_state(&connection->stream) == STREAM_OPEN &&
           !site_is_shy(client, connection->site);
}

void client_follow_close(struct client *client, struct client_connection *connection)
{
    if (!connection->has_room)
        return;
    connection->has_room = false;
    client_unlink(client_bucket(client->rooms, connection->site), connection);
}

void client_follow_look(struct client *client, struct client_connection *connection)
{
    CHECK(connection->state == CLIENT_STATE_ACTIVE);
    if (!connection_has_room(client, connection)) {
        client_follow_close(client, connection);
        return;
    }
    if (connection->has_room)
        return;
    connection->has_room = true;
    client_link(client_bucket(client->rooms, connection->site), connection);
    client->options.on_room(client->options.context, connection->site);
}

static struct client_connection *room_find(struct client *client,
                                           const struct client_request *request)
{
    struct client_connection *connection = *client_bucket(client->rooms, request->site);

    if (request->is_alone || request->feed != NULL || client->free == NULL || connection == NULL ||
        client->followers >= (client->options.connection_count_max + 1) / 2)
        return NULL;
    uint64_t key = client_key(request);
    for (; connection != NULL; connection = connection->next) {
        if (client_fits(connection, request, key) && connection_has_room(client, connection))
            return connection;
    }
    return NULL;
}

bool client_may_follow(struct client *client, const struct client_request *request)
{
    return room_find(client, request) != NULL;
}

/* ---- beginning ---- */

static void follower_send(struct client *client, struct client_connection *follower)
{
    struct client_connection *leader = follower->leader;
    struct span_mut room = {client->room, (uint32_t)sizeof(client->room)};
    enum err err = ERR_OK;
    uint32_t size;

    while (err == ERR_OK && (size = smtpc_drain(&leader->smtpc, room)) > 0) {
        err = stream_write(&leader->stream, span_of(client->room, size));
        if (trace_is_on(client->options.trace))
            client_trace_commands(client, follower, span_of(client->room, size), false);
        if (err == ERR_OK && smtpc_is_body_due(&leader->smtpc))
            err = client_body_go_ahead(client, &follower->attempt, leader);
    }
    if (err == ERR_OK)
        return;
    smtpc_lost(&leader->smtpc, "4.3.2 no memory for commands");
    client_connection_set_due(client, leader, 0); /* on_result() may not come now */
}

/* It has no connection: what is told of it is the leader's. */
static void follower_describe(struct client_connection *follower,
                              const struct client_connection *leader)
{
    memcpy(follower->host, leader->host, sizeof(follower->host));
    follower->peer = leader->peer;
    follower->source = leader->source;
    follower->id = leader->id;
    follower->opened = leader->opened;
    follower->use_count = leader->use_count + leader->smtpc.next_count + 1;
    follower->attempt.has_followed = true;
    follower->attempt.has_connected = true;
}

static void follower_link(struct client_connection *follower)
{
    struct client_connection *leader = follower->leader;

    follower->next = NULL;
    if (leader->follower == NULL)
        leader->follower = follower;
    else
        leader->follower_last->next = follower;
    leader->follower_last = follower;
}

enum err client_follow(struct client *client, const struct client_request *request, tick_us now)
{
    client->now = now;
    struct client_connection *leader = room_find(client, request);
    struct client_connection *follower = client->free;

    if (leader == NULL)
        return ERR_LIMIT;
    TRY(client_attempt_init(client, follower, request));
    CHECK(client_pop(client) == follower);
    follower->leader = leader;
    client_enter(client, follower, CLIENT_STATE_FOLLOWING);
    follower_describe(follower, leader);
    if (client_attempt_follow(client, follower) == SMTPC_FINISHED) {
        follower->leader = NULL; /* refused without a command: told by the timer */
        client_connection_set_due(client, follower, 0);
        return ERR_OK;
    }
    follower_link(follower);
    client->stats.followed++;
    follower_send(client, follower);
    client_connection_arm(client, follower,
                          follower->ahead.is_out ? request->deadline : now + CLIENT_FOLLOW_TIME);
    client_follow_look(client, leader);
    return ERR_OK;
}

/* ---- its turn, or its end ---- */

static struct client_connection *follower_take_first(struct client_connection *leader)
{
    struct client_connection *follower = leader->follower;

    CHECK(follower != NULL && follower->state == CLIENT_STATE_FOLLOWING);
    leader->follower = follower->next;
    if (leader->follower == NULL)
        leader->follower_last = NULL;
    follower->next = NULL;
    follower->leader = NULL;
    return follower;
}

/* What is over, in the object of whom it makes room for. */
static void answered_keep(struct client *client, struct client_connection *connection,
                          struct client_connection *answered, const struct client_attempt *attempt)
{
    answered->attempt = *attempt;
    answered->use_count = connection->use_count;
    answered->leader = connection;
    client_enter(client, answered, CLIENT_STATE_ANSWERED);
    if (connection->answered == NULL)
        connection->answered = answered;
    else
        connection->answered_last->next = answered;
    connection->answered_last = answered;
    connection->answered_count++;
}

void client_follow_promote(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    bool is_kept = attempt->is_bdat_ahead;

    CHECK(connection->has_request && connection->smtpc.state == SMTPC_STATE_ENVELOPE);
    if (is_kept)
        client_attempt_mail_over(client, connection);
    else
        client_attempt_finish(client, connection);
    struct client_connection *follower = follower_take_first(connection);
    struct client_attempt before = *attempt;
    struct arena arena = connection->arena;
    connection->arena = follower->arena;
    follower->arena = arena;
    *attempt = follower->attempt;
    connection->smtpc.transaction.arena = &connection->arena;
    connection->use_max = follower->use_max;
    follower->has_request = is_kept;
    if (is_kept)
        answered_keep(client, connection, follower, &before);
    else
        client_put(client, follower);
    connection->use_count++;
    connection->step = UINT32_MAX;
    connection->has_request = true;
    attempt->is_reused = true;
    if (attempt->is_cancelled && client->now + CLIENT_CANCEL_TIME < attempt->request.deadline)
        attempt->request.deadline = client->now + CLIENT_CANCEL_TIME;
}

/* What was heard of this transaction may be said of others. */
static void answered_doubt(struct client_connection *answered)
{
    struct smtpc_failure failure = {
        .scope = SMTP_SCOPE_HOST,
        .stage = SMTP_STAGE_END,
        .enhanced = {4, 5, 0},
        .text = SPAN_LITERAL("4.5.0 the server sent replies that nobody asked for"),
        .is_in_doubt = true,
    };

    for (uint32_t i = 0; i < answered->attempt.pending_count; i++)
        *answered->attempt.pending[i].result =
            (struct client_recipient_result){.state = RECIPIENT_DUE};
    client_attempt_blame(answered, &failure);
}

void client_follow_settle(struct client *client, struct client_connection *connection,
                          bool do_match)
{
    while (connection->answered != NULL) {
        struct client_connection *answered = connection->answered;
        connection->answered = answered->next;
        connection->answered_count--;
        answered->next = NULL;
        if (!do_match)
            answered_doubt(answered);
        client_attempt_finish(client, answered);
        client_put(client, answered);
    }
}

static void follower_finish(struct client *client, struct client_connection *follower)
{
    client_attempt_finish(client, follower);
    client_put(client, follower);
}

/* Its turn will not come. */
static void follower_give_up(struct client *client, struct client_connection *follower,
                             bool is_in_doubt)
{
    struct smtpc_failure failure = {
        .scope = SMTP_SCOPE_HOST,
        .stage = is_in_doubt ? SMTP_STAGE_END : SMTP_STAGE_MAIL,
        .enhanced = {4, 4, 2},
        .text = SPAN_LITERAL("4.4.2 the connection ended before the reply to this message"),
        .is_in_doubt = is_in_doubt,
    };

    follower->attempt.was_attempted = is_in_doubt;
    client_attempt_blame(follower, &failure);
    follower_finish(client, follower);
}

void client_follow_end(struct client *client, struct client_connection *connection)
{
    const struct smtpc_failure *failure = &connection->smtpc.failure;
    bool takes_no_more = failure->code == 421 || failure->is_of_session;

    client_follow_settle(client, connection, !failure->is_mismatch);
    while (connection->follower != NULL) {
        struct client_connection *follower = follower_take_first(connection);
        client_attempt_mail_lost(follower, connection);
        follower_give_up(client, follower, follower->ahead.is_out && !takes_no_more);
    }
}

static void follower_unlink_last(struct client_connection *leader)
{
    struct client_connection *follower = leader->follower_last, *before = NULL;

    for (struct client_connection *each = leader->follower; each != follower; each = each->next)
        before = each;
    leader->follower_last = before;
    if (before == NULL)
        leader->follower = NULL;
    else
        before->next = NULL;
    follower->leader = NULL;
}

void client_follow_on_timer(struct client *client, struct client_connection *follower)
{
    struct client_connection *leader = follower->leader;

    if (leader == NULL) {
        follower_finish(client, follower);
        return;
    }
    if (follower->ahead.is_out || leader->smtpc.state == SMTPC_STATE_FAILED) {
        smtpc_lost(&leader->smtpc, "4.4.2 the server did not answer in time");
        client_attempt_failed(client, leader);
        return;
    }
    CHECK(follower == leader->follower_last);
    smtpc_unfollow(&leader->smtpc);
    if (!follower->attempt.is_cancelled)
        site_shy(client, follower->site);
    client_attempt_mail_lost(follower, leader);
    follower_unlink_last(leader);
    client_follow_close(client, leader);
    follower_give_up(client, follower, false);
}
