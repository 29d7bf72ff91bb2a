/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The address families of a host, raced: who cannot be reached over one of them costs a quarter of
 * a second, not a time-out (RFC 8305 section 5).
 *
 * A connection that is still CONNECTING after `race_after`, to a host that has an address of the
 * other family left, gets a rival: a connection object of its own, with a slot of its own, that
 * connects to that address beside it. There are never more than the two.
 *
 *   leader CONNECTING, rival RACING
 *     leader connected      the rival is let go
 *     rival connected       it takes the request over and goes on; the leader is let go
 *     leader failed         the rival takes the request over, still CONNECTING
 *     rival failed          its address is struck off; the leader goes on alone
 *     the request is over   both are let go
 *
 * Invariants
 *   1. A rival has no request: the leader's is moved, never copied, and ends once.
 *   2. The rival's address stands right behind the leader's in the attempt's own list, so that
 *      whoever wins, what comes next has not been tried.
 *   3. Whoever is let go keeps its slot until the peer must have noticed (CLIENT_STATE_GONE): a
 *      SYN of ours may have been answered.
 *   4. A slot for a rival is only taken when nobody waits for one (may_race()).
 */
#include "relay/client_internal.h"

static struct mx_host *host_of(struct client_attempt *attempt)
{
    return &attempt->hosts[attempt->host_index];
}

/* May this address be raced against the present one? */
static bool is_other_family(const struct client_connection *connection,
                            const struct flow_address *address)
{
    return address->family != connection->peer.family &&
           client_attempt_has_family(&connection->attempt, address->family);
}

/* The next address of the other family; address_count: there is none. */
static uint32_t other_family(struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    const struct mx_host *host = host_of(attempt);
    uint32_t i = attempt->address_index + 1;

    while (i < host->address_count && !is_other_family(connection, &host->addresses[i]))
        i++;
    return i < host->address_count ? i : host->address_count;
}

tick_us client_race_time(const struct client *client, struct client_connection *connection)
{
    tick_us after = connection->attempt.settings->client.race_after;

    if (after == 0 || client->options.may_race == NULL ||
        other_family(connection) == host_of(&connection->attempt)->address_count ||
        client->now + after >= connection->step_deadline)
        return connection->step_deadline;
    return client->now + after;
}

/* The address at `from` comes to `to`, those between move back. */
static void address_move(struct mx_host *host, uint32_t from, uint32_t to)
{
    struct flow_address address = host->addresses[from];

    for (uint32_t i = from; i > to; i--)
        host->addresses[i] = host->addresses[i - 1];
    host->addresses[to] = address;
}

static void address_strike(struct mx_host *host, uint32_t index)
{
    host->address_count--;
    for (uint32_t i = index; i < host->address_count; i++)
        host->addresses[i] = host->addresses[i + 1];
}

static void race_part(struct client_connection *leader)
{
    leader->rival->leader = NULL;
    leader->rival = NULL;
}

void client_race_begin(struct client *client, struct client_connection *leader)
{
    struct client_attempt *attempt = &leader->attempt;
    struct mx_host *host = host_of(attempt);
    uint32_t index = other_family(leader);

    client_connection_set_due(client, leader, leader->step_deadline);
    if (index == host->address_count || client->free == NULL ||
        !client->options.may_race(client->options.context, leader->site))
        return;
    address_move(host, index, attempt->address_index + 1);
    struct client_connection *rival = client_take(client);
    rival->site = leader->site;
    memcpy(rival->host, leader->host, sizeof(rival->host));
    rival->peer = host->addresses[attempt->address_index + 1];
    rival->leader = leader;
    leader->rival = rival;
    client->stats.races++;
    if (client_connection_dial(client, rival, attempt) == ERR_OK) {
        client_enter(client, rival, CLIENT_STATE_RACING);
        client_connection_set_due(client, rival, rival->step_deadline);
        return;
    }
    race_part(leader);
    address_strike(host, attempt->address_index + 1);
    client_release(client, rival);
}

/* The request, with all that belongs to it. */
static void race_take_over(struct client_connection *rival)
{
    struct client_connection *leader = rival->leader;
    struct arena arena = rival->arena;

    rival->arena = leader->arena;
    leader->arena = arena;
    rival->attempt = leader->attempt;
    rival->attempt.address_index++;
    rival->attempt.avoid = 0;
    rival->key = leader->key;
    rival->use_max = leader->use_max;
    rival->has_request = true;
    leader->has_request = false;
    race_part(leader);
}

void client_race_end(struct client *client, struct client_connection *leader)
{
    struct client_connection *rival = leader->rival;

    if (rival == NULL)
        return;
    race_part(leader);
    client_connection_drop(client, rival);
}

bool client_race_leader_failed(struct client *client, struct client_connection *leader)
{
    struct client_connection *rival = leader->rival;

    if (rival == NULL)
        return false;
    if (leader->attempt.is_cancelled || client->now >= leader->attempt.request.deadline) {
        client_race_end(client, leader);
        return false;
    }
    tick_us deadline = rival->step_deadline;
    race_take_over(rival);
    client_enter(client, rival, CLIENT_STATE_CONNECTING);
    client_connection_set_due(client, rival, deadline);
    client_release(client, leader);
    return true;
}

static void rival_failed(struct client *client, struct client_connection *rival, enum err err)
{
    struct client_connection *leader = rival->leader;

    client_attempt_family_failed(&leader->attempt, rival->peer.family, err);
    stream_abort(&rival->stream);
    client->options.on_host(client->options.context, rival->site, &rival->peer, false);
    address_strike(host_of(&leader->attempt), leader->attempt.address_index + 1);
    race_part(leader);
    client_release(client, rival);
}

void client_race_on_flow(struct client *client, struct client_connection *rival, uint32_t events)
{
    struct client_connection *leader = rival->leader;

    if ((events & (FLOW_FAILED | FLOW_RESET)) != 0) {
        rival_failed(client, rival, flow_error(client->options.plane, rival->stream.flow));
        return;
    }
    if ((events & FLOW_CONNECTED) == 0)
        return;
    client->stats.races_won++;
    client_attempt_family_failed(&leader->attempt, leader->peer.family, ERR_TIMEOUT);
    race_take_over(rival);
    client_enter(client, rival, CLIENT_STATE_CONNECTING);
    client_connection_drop(client, leader);
    client_connection_connected(client, rival);
}

void client_race_on_timer(struct client *client, struct client_connection *rival)
{
    rival_failed(client, rival, ERR_TIMEOUT);
}
