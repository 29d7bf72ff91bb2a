/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Outbound SMTP of a shard: requests come in, connections are made, kept and given back.
 *
 *   client_start() -> [kept connection | new one] -> transaction -> on_result() -> kept | closed
 *
 *   client_attempt.c      a request: hosts, failures, result
 *   client_connection.c   a connection: engine, deadlines, end
 *   client_race.c         the address families of a host, raced
 *   client_follow.c       a request behind another's, on the same connection
 *   client_body.c         the body
 *
 * Invariants
 *   1. A connection object holds one slot of its site from client_start() to on_closed(), one flow
 *      at a time, one request at a time. Those of requests that follow another hold a request and
 *      nothing else.
 *   2. Kept connections are found by site, host, address and key; the key digests everything of the
 *      route and settings that made the connection what it is. New settings close them all.
 *   3. on_result() and on_closed() come from client_on_flow() and client_advance() only, except
 * that client_close_idle() and client_set_settings() may meet a connection that is dead already.
 *   4. A host whose TLS failed under `may` is remembered for CLIENT_CLEAR_TIME; the table is
 *      direct-mapped: a collision forgets the older, which costs one more failed handshake.
 *   5. At most half of the connections are strangers: at sites where nobody greeted us within
 *      CLIENT_KNOWN_TIME, and not yet greeted themselves (client_has_room()). A site is forgotten
 *      early where another takes its entry.
 *
 * Limits: connection_count_max (ERR_LIMIT beyond it); CLIENT_ARENA_MAX octets of refusals a
 * request.
 */
#include "relay/client_internal.h"

#include <stdlib.h>

#define CLIENT_CLEAR_TIME    TICK_S(3600)
#define CLIENT_KNOWN_TIME    TICK_S(3600)
#define CLIENT_ARENA_BLOCK   4096u
#define CLIENT_ARENA_MAX     (4u << 20)
#define FNV_OFFSET           0xcbf29ce484222325u
#define FNV_PRIME            0x100000001b3u
#define TO(name)             (1u << CLIENT_STATE_##name)
#define CLIENT_FLOW_INDEX(u) ((u) & ~CLIENT_FLOW_USER_MASK)

static const uint32_t client_edges[CLIENT_STATE_COUNT] = {
    [CLIENT_STATE_FREE] = TO(STARTING) | TO(FOLLOWING),
    [CLIENT_STATE_FOLLOWING] = TO(FREE) | TO(ANSWERED),
    [CLIENT_STATE_ANSWERED] = TO(FREE),
    [CLIENT_STATE_STARTING] = TO(STARTING) | TO(CONNECTING) | TO(RACING) | TO(FREE),
    [CLIENT_STATE_CONNECTING] = TO(CONNECTING) | TO(ACTIVE) | TO(GONE) | TO(FREE),
    [CLIENT_STATE_RACING] = TO(CONNECTING) | TO(GONE) | TO(FREE),
    [CLIENT_STATE_ACTIVE] = TO(IDLE) | TO(QUITTING) | TO(CONNECTING) | TO(GONE) | TO(FREE),
    [CLIENT_STATE_IDLE] = TO(ACTIVE) | TO(QUITTING) | TO(GONE) | TO(FREE),
    [CLIENT_STATE_QUITTING] = TO(CONNECTING) | TO(GONE) | TO(FREE),
    [CLIENT_STATE_GONE] = TO(CONNECTING) | TO(FREE),
};

/* ---- kept connections ---- */

struct client_connection **client_bucket(struct client_connection **buckets, uint64_t site)
{
    return &buckets[(site * FNV_PRIME >> 32) % CLIENT_BUCKETS];
}

void client_link(struct client_connection **head, struct client_connection *connection)
{
    connection->prev = NULL;
    connection->next = *head;
    if (*head != NULL)
        (*head)->prev = connection;
    *head = connection;
}

void client_unlink(struct client_connection **head, struct client_connection *connection)
{
    if (connection->prev != NULL)
        connection->prev->next = connection->next;
    else
        *head = connection->next;
    if (connection->next != NULL)
        connection->next->prev = connection->prev;
    connection->next = connection->prev = NULL;
}

static void idle_link(struct client *client, struct client_connection *connection)
{
    client_link(client_bucket(client->idle, connection->site), connection);
    client->stats.idle++;
}

static void idle_unlink(struct client *client, struct client_connection *connection)
{
    client_unlink(client_bucket(client->idle, connection->site), connection);
    client->stats.idle--;
}

void client_enter(struct client *client, struct client_connection *connection,
                  enum client_state next)
{
    CHECK(next < CLIENT_STATE_COUNT);
    CHECK((client_edges[connection->state] & 1u << next) != 0);

    if (connection->state == CLIENT_STATE_IDLE)
        idle_unlink(client, connection);
    if (client->found == connection)
        client->found = NULL;
    client_follow_close(client, connection);
    CHECK((connection->follower == NULL && connection->answered == NULL) ||
          next == CLIENT_STATE_ACTIVE);
    client->followers -=
        connection->state == CLIENT_STATE_FOLLOWING || connection->state == CLIENT_STATE_ANSWERED;
    client->followers += next == CLIENT_STATE_FOLLOWING || next == CLIENT_STATE_ANSWERED;
    connection->due = TICK_NEVER;
    connection->state = next;
    if (next == CLIENT_STATE_IDLE)
        idle_link(client, connection);
}

static uint64_t digest(uint64_t sum, const void *data, size_t size)
{
    const uint8_t *octets = data;

    for (size_t i = 0; i < size; i++)
        sum = (sum ^ octets[i]) * FNV_PRIME;
    return sum;
}

static uint64_t digest_text(uint64_t sum, const char *text)
{
    if (text == NULL)
        return (sum ^ 1) * FNV_PRIME;
    for (; *text != '\0'; text++)
        sum = (sum ^ (uint8_t)*text) * FNV_PRIME;
    return sum * FNV_PRIME; /* with its NUL, so that "a" "bc" and "ab" "c" differ */
}

uint64_t client_key(const struct client_request *request)
{
    const struct settings_route *route = request->route;
    uint64_t kind = (uint64_t)route->tls << 1 | (route->kind == SETTINGS_ROUTE_LMTP);
    uint64_t sum = (FNV_OFFSET ^ kind) * FNV_PRIME;

    /* Asked for each message: what is no text goes in at once. */
    sum = (sum ^ (uint64_t)(uintptr_t)route->tls_client) * FNV_PRIME;
    sum = digest_text(sum, request->source->name);
    sum = digest_text(sum, route->tls_name);
    sum = digest_text(sum, route->auth == NULL ? NULL : route->auth->user);
    return digest_text(sum, route->auth == NULL ? NULL : route->auth->password);
}

/* Is the host and address of a kept connection among the request's? */
static bool request_has_host(const struct client_request *request,
                             const struct client_connection *connection)
{
    for (uint32_t i = 0; i < request->hosts->host_count; i++) {
        const struct mx_host *host = &request->hosts->hosts[i];
        for (uint32_t j = 0; j < host->address_count; j++) {
            if (flow_address_is_equal(&host->addresses[j], &connection->peer) &&
                strcmp(host->name, connection->host) == 0)
                return true;
        }
    }
    return false;
}

bool client_fits(const struct client_connection *connection, const struct client_request *request,
                 uint64_t key)
{
    return connection->site == request->site && connection->key == key &&
           stream_get_state(&connection->stream) == STREAM_OPEN &&
           request_has_host(request, connection);
}

static struct client_connection *idle_find(struct client *client,
                                           const struct client_request *request)
{
    uint64_t key = client_key(request);
    struct client_connection *connection = *client_bucket(client->idle, request->site);

    for (; connection != NULL; connection = connection->next) {
        if (client_fits(connection, request, key) && stream_readable(&connection->stream) == 0)
            return connection;
    }
    return NULL;
}

bool client_has_idle(struct client *client, const struct client_request *request)
{
    client->found = idle_find(client, request);
    client->found_for = request->user;
    return client->found != NULL;
}

/* Who asked whether there is one takes it next: then it need not be looked for again. One that was
 * found is IDLE until it is taken, or closed, which forgets it. */
static struct client_connection *idle_take(struct client *client,
                                           const struct client_request *request)
{
    struct client_connection *found = client->found;
    bool is_its = found != NULL && client->found_for == request->user;

    client->found = NULL;
    return is_its && found->site == request->site ? found : idle_find(client, request);
}

/* ---- hosts without working TLS ---- */

static uint32_t clear_index(const struct flow_address *address)
{
    uint64_t sum = digest(FNV_OFFSET, address, sizeof(*address));
    return (uint32_t)((sum ^ sum >> 32) % CLIENT_CLEAR_ENTRIES);
}

bool client_is_clear_host(const struct client *client, const struct flow_address *address)
{
    const struct client_clear_entry *entry = &client->clear[clear_index(address)];

    return client->now < entry->until && flow_address_is_equal(&entry->address, address);
}

void client_clear_host_remember(struct client *client, const struct flow_address *address)
{
    client->clear[clear_index(address)] =
        (struct client_clear_entry){*address, client->now + CLIENT_CLEAR_TIME};
}

/* ---- sites that answer ---- */

static bool site_is_known(const struct client *client, uint64_t site)
{
    const struct client_known *known = &client->known[site % CLIENT_KNOWN_ENTRIES];

    return known->site == site && client->now < known->until;
}

static void stranger_set(struct client *client, struct client_connection *connection,
                         bool is_stranger)
{
    client->strangers += is_stranger;
    client->strangers -= connection->is_stranger;
    connection->is_stranger = is_stranger;
}

void client_site_answered(struct client *client, struct client_connection *connection)
{
    client->known[connection->site % CLIENT_KNOWN_ENTRIES] =
        (struct client_known){connection->site, client->now + CLIENT_KNOWN_TIME};
    stranger_set(client, connection, false);
}

bool client_has_room(struct client *client, uint64_t site, tick_us now)
{
    client->now = now;
    if (client->free == NULL)
        return false;
    return site_is_known(client, site) ||
           client->strangers < (client->options.connection_count_max + 1) / 2;
}

/* ---- life ---- */

/* When nothing is free, a fresh connection is. */
static void free_refill(struct client *client)
{
    if (client->free != NULL || client->fresh == client->options.connection_count_max)
        return;
    struct client_connection *connection = &client->connections[client->fresh];
    connection->index = client->fresh++;
    arena_init(&connection->arena, CLIENT_ARENA_BLOCK, CLIENT_ARENA_MAX);
    client->free = connection;
}

struct client_connection *client_pop(struct client *client)
{
    struct client_connection *connection = client->free;

    CHECK(connection != NULL);
    client->free = connection->next;
    connection->next = NULL;
    free_refill(client);
    return connection;
}

struct client *client_new(const struct client_options *options, const struct settings *settings)
{
    struct client *client = calloc(1, sizeof(*client));

    CHECK(client != NULL && options->connection_count_max > 0);
    client->options = *options;
    client->settings = settings;
    client->connections = calloc(options->connection_count_max, sizeof(*client->connections));
    CHECK(client->connections != NULL);
    /* Ids in records differ between runs. */
    client->connection_id = (uint64_t)rng_u32(options->rng) << 32;
    wheel_init(&client->wheel, 0);
    free_refill(client);
    return client;
}

void client_free(struct client *client)
{
    struct client_feed *feed;

    while ((feed = client_feed_next(client)) != NULL)
        client_feed_release(feed);
    for (uint32_t i = 0; i < client->fresh; i++) {
        struct client_connection *connection = &client->connections[i];

        if (connection->state >= CLIENT_STATE_CONNECTING)
            stream_abort(&connection->stream);
        if (connection->has_request)
            client_attempt_feed_release(&connection->attempt);
        arena_fini(&connection->arena);
    }
    free(client->connections);
    free(client);
}

void client_put(struct client *client, struct client_connection *connection)
{
    CHECK(!connection->has_request && connection->mails_late == 0);
    client_enter(client, connection, CLIENT_STATE_FREE);
    wheel_cancel(&client->wheel, &connection->timer);
    arena_fini(&connection->arena);
    connection->next = client->free;
    client->free = connection;
}

void client_release(struct client *client, struct client_connection *connection)
{
    uint64_t site = connection->site;

    stranger_set(client, connection, false);
    client_put(client, connection);
    client->stats.open--;
    client->options.on_closed(client->options.context, site);
}

void client_set_settings(struct client *client, const struct settings *settings)
{
    client->settings = settings;
    client_close_idle(client, 0, client->now);
}

bool client_uses_settings(const struct client *client, uint64_t serial)
{
    for (uint32_t i = 0; i < client->fresh; i++) {
        const struct client_connection *connection = &client->connections[i];

        if (connection->has_request && connection->attempt.serial == serial)
            return true;
    }
    return false;
}

struct client_connection *client_take(struct client *client)
{
    struct client_connection *connection = client_pop(client);

    connection->peer = connection->source = (struct flow_address){0};
    connection->host[0] = '\0';
    connection->id = 0;
    connection->use_count = 0;
    client->stats.open++;
    client_enter(client, connection, CLIENT_STATE_STARTING);
    return connection;
}

/* ---- requests ---- */

enum err client_start(struct client *client, const struct client_request *request, tick_us now)
{
    struct client_connection *connection = idle_take(client, request);

    CHECK(request->recipient_count > 0);
    client->now = now;
    if (connection != NULL) {
        TRY(client_attempt_init(client, connection, request));
        client_connection_reuse(client, connection);
        return ERR_OK;
    }
    connection = client->free;
    if (connection == NULL || request->hosts->host_count == 0)
        return ERR_LIMIT;
    TRY(client_attempt_init(client, connection, request));
    CHECK(client_take(client) == connection);
    stranger_set(client, connection, !site_is_known(client, request->site));
    client_attempt_connect(client, connection, false);
    return ERR_OK;
}

void client_cancel(struct client *client, uint64_t user, tick_us now)
{
    client->now = now;
    for (uint32_t i = 0; i < client->fresh; i++) {
        struct client_connection *connection = &client->connections[i];

        if (!connection->has_request || connection->attempt.request.user != user)
            continue;
        connection->attempt.is_cancelled = true;
        /* Its end is sent, and others are answered first: it has its moment when it is its turn. */
        if ((connection->state == CLIENT_STATE_FOLLOWING && connection->ahead.is_out) ||
            connection->state == CLIENT_STATE_ANSWERED)
            return;
        /* The end of data is with the server: its reply is worth a moment's wait. */
        bool is_ended =
            connection->state == CLIENT_STATE_ACTIVE && smtpc_is_in_doubt(&connection->smtpc);
        tick_us deadline = is_ended ? now + CLIENT_CANCEL_TIME : now;
        /* A reply that comes first begins a new step: that has no more time than this. */
        if (deadline < connection->attempt.request.deadline)
            connection->attempt.request.deadline = deadline;
        client_connection_arm(client, connection, deadline);
        return;
    }
}

bool client_is_in_doubt(const struct client *client, uint64_t user)
{
    for (uint32_t i = 0; i < client->fresh; i++) {
        const struct client_connection *connection = &client->connections[i];

        if (connection->has_request && connection->attempt.request.user == user)
            return connection->state == CLIENT_STATE_ANSWERED ||
                   (connection->state == CLIENT_STATE_FOLLOWING && connection->ahead.is_out) ||
                   (connection->state == CLIENT_STATE_ACTIVE &&
                    smtpc_is_in_doubt(&connection->smtpc));
    }
    return false;
}

void client_close_idle(struct client *client, uint64_t site, tick_us now)
{
    client->now = now;
    for (uint32_t i = 0; i < CLIENT_BUCKETS; i++) {
        struct client_connection *connection = client->idle[i], *next;

        for (; connection != NULL; connection = next) {
            next = connection->next;
            if (site == 0 || connection->site == site)
                client_connection_leave(client, connection);
        }
    }
}

uint32_t client_idle_count(const struct client *client, uint64_t site)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < CLIENT_BUCKETS; i++) {
        const struct client_connection *connection = client->idle[i];
        for (; connection != NULL; connection = connection->next)
            count += connection->site == site;
    }
    return count;
}

/* ---- the shard's turn ---- */

void client_on_flow(struct client *client, const struct flow_event *event, tick_us now)
{
    uint64_t index = CLIENT_FLOW_INDEX(event->user);

    CHECK(index < client->fresh);
    client->now = now;
    struct client_connection *connection = &client->connections[index];
    /* An event of a flow that was let go earlier in this round is nobody's. */
    if (connection->state < CLIENT_STATE_CONNECTING ||
        connection->stream.flow.index != event->flow.index ||
        connection->stream.flow.generation != event->flow.generation)
        return;
    client_connection_on_flow(client, connection, event);
}

void client_advance(struct client *client, tick_us now)
{
    struct client_feed *feed;
    struct wheel_timer *timer;

    client->now = now;
    while ((feed = client_feed_next(client)) != NULL) {
        if (feed->connection != NULL)
            client_connection_on_feed(client, feed->connection);
        client_feed_release(feed);
    }
    while ((timer = wheel_expire_next(&client->wheel, now)) != NULL)
        client_connection_on_timer(client, WHEEL_OWNER(timer, struct client_connection, timer));
}

tick_us client_deadline(const struct client *client)
{
    return client->news != NULL ? 0 : wheel_deadline(&client->wheel);
}

struct client_stats client_get_stats(const struct client *client)
{
    struct client_stats stats = client->stats;

    stats.open_max = client->options.connection_count_max;
    stats.strangers = client->strangers;
    return stats;
}
