/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request's way: hosts in the order given, the addresses of each, the engine's failures, and at
 * last one result.
 *
 * What a failure leads to
 *   in doubt, cancelled, out of time, SOURCE   the end: recipients without a final reply stay DUE
 *   a kept connection that never answered,     the same address again, on a new connection
 *     or takes no more messages
 *   TLS, route level `may`                     the same address again in the clear, remembered
 *   PROTOCOL, or no answer to EHLO             once: the same address without the extension
 *   HOST, connect() failed                     next host; next address after connect()
 *
 * Invariants
 *   1. Every request ends in exactly one on_result(), and holds its slot until then.
 *   2. A recipient with a final reply (refused at RCPT) is not tried at another host.
 *   3. No level but `may` is ever tried in the clear, and `may` not when credentials are
 *      configured.
 *   4. What was learned of one address (`avoid`) is forgotten at the next; `has_fallen_back` is
 *      not, so that two servers that both stumble end the attempt.
 *   5. After the end of data was sent and not answered, nothing is tried again.
 *
 * Limits: request.deadline; MX_HOST_MAX hosts of MX_ADDRESS_MAX addresses, each tried at most three
 * times (kept connection, TLS, an extension).
 */
#include "relay/client_internal.h"

#include <stdio.h>

#include "relay/judge.h"

enum client_next {
    CLIENT_NEXT_END,
    CLIENT_NEXT_SAME, /* address, on a new connection */
    CLIENT_NEXT_ADDRESS,
    CLIENT_NEXT_HOST,
};

enum err client_attempt_init(struct client *client, struct client_connection *connection,
                             const struct client_request *request)
{
    struct client_attempt *attempt = &connection->attempt;
    struct arena *arena = &connection->arena;
    uint32_t count = request->recipient_count;
    uint32_t host_count = request->hosts->host_count;

    CHECK(count > 0 && host_count > 0 && host_count <= MX_HOST_MAX);
    *attempt = (struct client_attempt){
        .request = *request,
        .settings = client->settings,
        .serial = client->settings->serial,
        .host_count = host_count,
        .is_line_start = true,
        .has_mail_right = true,
        .results = arena_acquire(arena, count * sizeof(*attempt->results)),
        .pending = arena_acquire(arena, count * sizeof(*attempt->pending)),
        .hosts = arena_acquire(arena, host_count * sizeof(*attempt->hosts)),
    };
    if (attempt->results == NULL || attempt->pending == NULL || attempt->hosts == NULL) {
        arena_reset(arena);
        return ERR_LIMIT;
    }
    memset(attempt->results, 0, count * sizeof(*attempt->results));
    memcpy(attempt->hosts, request->hosts->hosts, host_count * sizeof(*attempt->hosts));
    attempt->request.hosts = NULL; /* was copied */
    if (request->feed != NULL)
        client_feed_reference(request->feed);
    connection->site = request->site;
    connection->key = client_key(request);
    connection->has_request = true;
    connection->use_max = request->messages_per_connection_max > 0
                              ? request->messages_per_connection_max
                              : client->settings->client.messages_per_connection_max;
    return ERR_OK;
}

/* ---- reasons ---- */

static void reason_set(struct client_connection *connection, struct span text)
{
    char ip[FLOW_ADDRESS_TEXT_MAX];

    snprintf(connection->attempt.reason, sizeof(connection->attempt.reason), "%s[%s]: %.*s",
             connection->host, flow_address_format_ip(&connection->peer, ip), SPAN_PRINTF(text));
}

static void failure_set(struct client_connection *connection, enum smtp_stage stage, uint8_t detail,
                        struct span text)
{
    connection->attempt.failure = (struct smtpc_failure){
        .scope = SMTP_SCOPE_HOST, .stage = stage, .enhanced = {4, 4, detail}};
    reason_set(connection, text);
}

static void refusal_tell(struct client *client, struct client_connection *connection,
                         enum smtp_stage stage, uint16_t code, const uint8_t enhanced[3],
                         struct span text)
{
    struct client_refusal refusal = {
        .user = connection->attempt.request.user,
        .stage = stage,
        .code = code,
        .enhanced = {enhanced[0], enhanced[1], enhanced[2]},
        .text = text,
        .host = connection->host,
        .peer = connection->peer,
        .is_about_address = judge_is_about_address(stage, code, enhanced, text),
    };

    if (client->options.on_refusal != NULL && code >= 400)
        client->options.on_refusal(client->options.context, &refusal);
}

/* ---- hosts and addresses ---- */

static void attempt_step(struct client_attempt *attempt, enum client_next next)
{
    if (next == CLIENT_NEXT_SAME)
        return;
    attempt->avoid = 0;
    attempt->address_index++;
    if (next == CLIENT_NEXT_HOST) {
        attempt->host_index++;
        attempt->address_index = 0;
    }
}

/* The rest of a batch is for the next transaction only when this one went as it should. */
static void results_forget_rest(struct client_attempt *attempt)
{
    for (uint32_t i = 0; i < attempt->request.recipient_count; i++)
        attempt->results[i].retry_now = false;
}

bool client_attempt_has_family(const struct client_attempt *attempt, enum flow_family family)
{
    if (!settings_route_has_source(attempt->request.route))
        return true;
    return (attempt->request.families_avoided & 1u << family) == 0 &&
           settings_source_has_family(attempt->request.source, family);
}

/* A host that refuses has been reached; what we lack ourselves says nothing. */
void client_attempt_family_failed(struct client_attempt *attempt, enum flow_family family,
                                  enum err err)
{
    if (err == ERR_TIMEOUT || err == ERR_PEER_UNREACHABLE || err == ERR_SYSTEM)
        attempt->families_failed |= (uint8_t)(1u << family);
}

/* The present address, or the first that exists behind it; false at the end. */
static bool attempt_find_address(struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;

    while (attempt->host_index < attempt->host_count) {
        const struct mx_host *host = &attempt->hosts[attempt->host_index];
        if (attempt->address_index < host->address_count &&
            !client_attempt_has_family(attempt, host->addresses[attempt->address_index].family)) {
            attempt->address_index++;
            continue;
        }
        if (attempt->address_index < host->address_count) {
            memcpy(connection->host, host->name, sizeof(connection->host));
            connection->peer = host->addresses[attempt->address_index];
            return true;
        }
        attempt_step(attempt, CLIENT_NEXT_HOST);
    }
    return false;
}

/* Nothing more may be tried, or nobody is left to try it for. */
static bool attempt_is_over(const struct client *client, const struct client_attempt *attempt)
{
    if (attempt->is_cancelled || attempt->is_source_broken ||
        client->now >= attempt->request.deadline)
        return true;
    for (uint32_t i = 0; i < attempt->request.recipient_count; i++) {
        if (attempt->results[i].state == RECIPIENT_DUE)
            return false;
    }
    return true;
}

/* Nothing leaves from one of its addresses. While it has one of the other family it is not broken:
 * this was an attempt like others. */
static void source_judge(struct client_attempt *attempt, enum flow_family family, enum err err)
{
    enum flow_family other = family == FLOW_FAMILY_IP4 ? FLOW_FAMILY_IP6 : FLOW_FAMILY_IP4;

    if (err != ERR_SYSTEM || family == FLOW_FAMILY_NONE)
        return;
    attempt->families_broken |= (uint8_t)(1u << family);
    attempt->is_source_broken =
        !client_attempt_has_family(attempt, other) || (attempt->families_broken & 1u << other) != 0;
    attempt->was_attempted = attempt->was_attempted || !attempt->is_source_broken;
}

void client_attempt_connect(struct client *client, struct client_connection *connection,
                            bool may_end)
{
    struct client_attempt *attempt = &connection->attempt;

    /* Each round moves on to another address. */
    while (!attempt_is_over(client, attempt) && attempt_find_address(connection)) {
        if (attempt->request.route->tls == SETTINGS_TLS_MAY &&
            client_is_clear_host(client, &connection->peer))
            attempt->avoid |= SMTPC_STARTTLS;
        enum err err = client_connection_open(client, connection);
        if (err == ERR_OK) {
            attempt->was_attempted = true;
            return;
        }
        failure_set(connection, SMTP_STAGE_CONNECT, 1, span_from_text(err_text(err)));
        client_attempt_family_failed(attempt, connection->peer.family, err);
        source_judge(attempt, connection->source.family, err);
        attempt_step(attempt, CLIENT_NEXT_ADDRESS);
    }
    if (!may_end) {
        client_enter(client, connection, CLIENT_STATE_STARTING);
        client_connection_set_due(client, connection, 0);
        return;
    }
    client_attempt_finish(client, connection);
    client_release(client, connection);
}

void client_attempt_unreachable(struct client *client, struct client_connection *connection,
                                enum err err)
{
    failure_set(connection, SMTP_STAGE_CONNECT, 1, span_from_text(err_text(err)));
    if (trace_is_on(client->options.trace))
        client_trace_note(client, connection, "no connection to %s: %s", connection->host,
                          err_text(err));
    client_attempt_family_failed(&connection->attempt, connection->peer.family, err);
    if (!connection->attempt.is_cancelled)
        client->options.on_host(client->options.context, connection->site, &connection->peer,
                                false);
    if (client_race_leader_failed(client, connection))
        return;
    attempt_step(&connection->attempt, CLIENT_NEXT_ADDRESS);
    client_attempt_connect(client, connection, true);
}

/* ---- failures ---- */

/* May this request go in the clear and without EHLO? */
static bool route_is_plain(const struct settings_route *route)
{
    return route->tls < SETTINGS_TLS_ENCRYPT && route->auth == NULL;
}

/* RFC 2033 section 4.1: LMTP has no HELO. */
static bool route_may_say_helo(const struct settings_route *route)
{
    return route_is_plain(route) && route->kind != SETTINGS_ROUTE_LMTP;
}

/* What to leave out after a dialogue that made no sense; 0: nothing is left to leave out. */
static uint32_t extension_to_avoid(const struct client_connection *connection,
                                   const struct smtpc_failure *failure)
{
    const struct client_attempt *attempt = &connection->attempt;
    uint32_t extensions = connection->smtpc.extensions;
    uint32_t avoid = extensions & SMTPC_PIPELINING;

    if ((failure->stage >= SMTP_STAGE_BODY || attempt->is_bdat_ahead) &&
        connection->smtpc.options.use_bdat)
        avoid |= extensions & SMTPC_CHUNKING;
    if (attempt->request.is_alone)
        avoid &= ~(uint32_t)SMTPC_PIPELINING;
    if (avoid == 0 && extensions != 0 && route_may_say_helo(attempt->request.route))
        avoid = SMTPC_ESMTP;
    return avoid;
}

static enum client_next next_after_protocol(struct client_connection *connection,
                                            const struct smtpc_failure *failure)
{
    struct client_attempt *attempt = &connection->attempt;

    if (failure->stage < SMTP_STAGE_MAIL)
        return CLIENT_NEXT_HOST;
    uint32_t avoid = extension_to_avoid(connection, failure);
    if (attempt->has_fallen_back || avoid == 0)
        return CLIENT_NEXT_END;
    attempt->has_fallen_back = true;
    attempt->avoid |= avoid;
    return CLIENT_NEXT_SAME;
}

static enum client_next next_after_tls(struct client *client, struct client_connection *connection)
{
    const struct settings_route *route = connection->attempt.request.route;

    client->stats.tls_failures++;
    if (!route_is_plain(route))
        return CLIENT_NEXT_HOST;
    client_clear_host_remember(client, &connection->peer);
    connection->attempt.avoid |= SMTPC_STARTTLS;
    return CLIENT_NEXT_SAME;
}

/* It has carried messages, and the server takes no more over it: another connection takes them. */
static bool connection_is_worn(const struct client_connection *connection,
                               const struct smtpc_failure *failure)
{
    return failure->is_of_session && connection->use_count > 1;
}

static enum client_next next_after_failure(struct client *client,
                                           struct client_connection *connection,
                                           const struct smtpc_failure *failure)
{
    struct client_attempt *attempt = &connection->attempt;

    /* A feed's octets are gone. */
    if (failure->is_in_doubt || attempt_is_over(client, attempt) ||
        failure->scope == SMTP_SCOPE_SOURCE ||
        (attempt->request.feed != NULL && attempt->request.feed->is_begun))
        return CLIENT_NEXT_END;
    /* Closed while we wrote the next MAIL, with or without a 421: nobody's fault. */
    if (attempt->is_reused && failure->stage == SMTP_STAGE_MAIL)
        return CLIENT_NEXT_SAME;
    if (connection_is_worn(connection, failure))
        return CLIENT_NEXT_SAME;
    if (failure->stage == SMTP_STAGE_STARTTLS)
        return next_after_tls(client, connection);
    if (failure->scope == SMTP_SCOPE_PROTOCOL)
        return next_after_protocol(connection, failure);
    /* Old servers hang up at EHLO. */
    if (failure->stage == SMTP_STAGE_EHLO && failure->code == 0 &&
        stream_get_state(&connection->stream) != STREAM_OPEN &&
        connection->smtpc.options.avoid == 0 && !attempt->has_fallen_back &&
        route_may_say_helo(attempt->request.route)) {
        attempt->has_fallen_back = true;
        attempt->avoid |= SMTPC_ESMTP;
        return CLIENT_NEXT_SAME;
    }
    return CLIENT_NEXT_HOST;
}

/* What recipients heard themselves; one text after the other, each once. */
static void results_tell_refusals(struct client *client, struct client_connection *connection)
{
    const struct client_attempt *attempt = &connection->attempt;
    const struct client_recipient_result *told = NULL;

    for (uint32_t i = 0; i < attempt->request.recipient_count; i++) {
        const struct client_recipient_result *result = &attempt->results[i];
        if (result->state == RECIPIENT_DELIVERED || result->reply.size == 0 || result->is_told)
            continue;
        attempt->results[i].is_told = true;
        if (told != NULL && told->code == result->code && told->stage == result->stage &&
            memcmp(told->enhanced, result->enhanced, sizeof(told->enhanced)) == 0)
            continue; /* large receivers put another number into each reply */
        told = result;
        refusal_tell(client, connection, result->stage, result->code, result->enhanced,
                     result->reply);
    }
}

void client_attempt_blame(struct client_connection *connection, const struct smtpc_failure *failure)
{
    connection->attempt.failure = *failure;
    reason_set(connection, failure->text);
}

void client_attempt_failed(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    struct smtpc_failure failure = connection->smtpc.failure;

    CHECK(connection->smtpc.state == SMTPC_STATE_FAILED);
    client_follow_judge(client, connection, &failure);
    client_follow_end(client, connection);
    client_attempt_mail_lost(connection, connection);
    client->stats.desynchronised += failure.is_broken && failure.scope == SMTP_SCOPE_PROTOCOL;
    if (!connection->has_request) {
        client_connection_leave(client, connection);
        return;
    }
    attempt->failure = failure;
    if (connection_is_worn(connection, &failure)) /* nor is the site to blame for a stream's end */
        attempt->failure.scope = SMTP_SCOPE_MESSAGE;
    reason_set(connection, failure.text);
    if (trace_is_on(client->options.trace) && failure.code == 0)
        client_trace_note(client, connection, "failed: %s", attempt->reason);
    results_tell_refusals(client, connection);
    refusal_tell(client, connection, failure.stage, failure.code, failure.enhanced, failure.text);
    if (failure.stage == SMTP_STAGE_GREETING && !attempt->is_cancelled)
        client->options.on_host(client->options.context, connection->site, &connection->peer,
                                false);
    enum client_next next = next_after_failure(client, connection, &failure);
    attempt->is_reused = false;
    if (next == CLIENT_NEXT_END) {
        results_forget_rest(attempt);
        client_attempt_finish(client, connection);
    } else {
        attempt_step(attempt, next);
    }
    client_connection_leave(client, connection);
}

/* ---- the transaction and the result ---- */

void client_attempt_mail_over(struct client *client, struct client_connection *connection)
{
    if (!connection->has_request || !connection->attempt.is_mail_out)
        return;
    connection->attempt.is_mail_out = false;
    if (client->options.on_mail != NULL)
        client->options.on_mail(client->options.context, connection->site, true);
}

void client_attempt_mail_lost(struct client_connection *connection,
                              struct client_connection *carrier)
{
    if (!connection->has_request || !connection->attempt.is_mail_out)
        return;
    connection->attempt.is_mail_out = false;
    carrier->mails_late++;
}

/* The right to one more MAIL. A right that we have is of no use while the site is suspended; then
 * nothing was attempted. */
static bool attempt_may_mail(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    bool may_mail = client->options.may_mail == NULL ||
                    client->options.may_mail(client->options.context, connection->site,
                                             attempt->has_mail_right);

    CHECK(!attempt->is_mail_out);
    if (!may_mail && attempt->has_mail_right)
        attempt->was_attempted = false;
    attempt->has_mail_right = attempt->has_mail_right || may_mail;
    return may_mail;
}

/* The engine's view of the recipients that are left. Returns how many. */
static uint32_t attempt_pend(struct client_attempt *attempt)
{
    const struct client_request *request = &attempt->request;
    uint32_t count = 0;

    for (uint32_t i = 0; i < request->recipient_count; i++) {
        if (attempt->results[i].state != RECIPIENT_DUE)
            continue;
        attempt->results[i] = (struct client_recipient_result){.state = RECIPIENT_DUE};
        const struct envelope_recipient *recipient =
            &request->envelope->recipients[request->recipients[i]];
        attempt->pending[count++] = (struct smtpc_recipient){
            .address = recipient->address,
            .orcpt = recipient->orcpt,
            .notify = recipient->notify,
            .result = &attempt->results[i],
        };
    }
    CHECK(count > 0); /* a transaction without one left is FINISHED, not FAILED */
    attempt->pending_count = count;
    return count;
}

static struct smtpc_transaction attempt_transaction(struct client *client,
                                                    struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    const struct client_request *request = &attempt->request;

    attempt->body_index = 0;
    attempt->asked = 0;
    attempt->is_line_start = true;
    attempt->is_prefix_out = false;
    attempt->is_bdat_ahead = false;
    attempt->was_attempted = true;
    attempt->transmit_started = client->now;
    client->stats.transactions++;
    return (struct smtpc_transaction){
        .envelope = request->envelope,
        .body_size = request->feed != NULL ? request->feed->size_said
                                           : request->body->size + request->envelope->prefix.size,
        .is_open = request->feed != NULL,
        .recipients = attempt->pending,
        .recipient_count = attempt_pend(attempt),
        .arena = &connection->arena,
        .is_alone = request->is_alone,
        .is_ahead = client_may_go_ahead(client, connection),
    };
}

enum smtpc_event client_attempt_follow(struct client *client, struct client_connection *follower)
{
    struct client_attempt *attempt = &follower->attempt;

    if (!attempt_may_mail(client, follower)) {
        failure_set(follower, SMTP_STAGE_MAIL, 5, SPAN_LITERAL("4.4.5 our own rate limit"));
        return SMTPC_FINISHED;
    }
    follower->ahead = attempt_transaction(client, follower);
    enum smtpc_event event = smtpc_follow(&follower->leader->smtpc, &follower->ahead);
    if (event != SMTPC_FINISHED) {
        attempt->is_mail_out = true;
        attempt->has_mail_right = false;
    }
    return event;
}

enum smtpc_event client_attempt_begin(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    const struct client_request *request = &attempt->request;

    if (!attempt_may_mail(client, connection)) {
        failure_set(connection, SMTP_STAGE_MAIL, 5, SPAN_LITERAL("4.4.5 our own rate limit"));
        return SMTPC_FINISHED;
    }
    if (connection->use_count == 0)
        attempt->connect_time = client->now - attempt->connect_started;
    connection->use_count++;
    attempt->has_followed = false;
    struct smtpc_transaction transaction = attempt_transaction(client, connection);
    enum smtpc_event event = smtpc_begin(&connection->smtpc, &transaction);
    if (connection->smtpc.is_unfit_open) { /* nothing was attempted */
        request->feed->is_unfit = true;
        attempt->was_attempted = false;
    }
    if (event != SMTPC_FINISHED) { /* else it was refused before a word was said */
        attempt->is_mail_out = true;
        attempt->has_mail_right = false;
    }
    return event;
}

static const char *attempt_reason(const struct client_attempt *attempt)
{
    if (attempt->reason[0] != '\0')
        return attempt->reason;
    return attempt->is_cancelled ? "the attempt was cancelled" : "no host has an address";
}

/* Recipients that heard no reply of their own hear what ended the attempt. */
static void results_complete(struct client *client, struct client_attempt *attempt)
{
    for (uint32_t i = 0; i < attempt->request.recipient_count; i++) {
        struct client_recipient_result *result = &attempt->results[i];

        if (result->state == RECIPIENT_DUE && result->reply.size == 0) {
            result->scope = attempt->failure.scope;
            result->stage = attempt->failure.stage;
            result->code = attempt->failure.code;
            memcpy(result->enhanced, attempt->failure.enhanced, sizeof(result->enhanced));
            result->reply = span_from_text(attempt_reason(attempt));
        }
        client->stats.accepted += result->state == RECIPIENT_DELIVERED;
        client->stats.deferred += result->state == RECIPIENT_DUE;
        client->stats.refused += result->state == RECIPIENT_FAILED;
    }
}

void client_attempt_feed_release(struct client_attempt *attempt)
{
    struct client_feed *feed = attempt->request.feed;

    if (feed == NULL)
        return;
    feed->connection = NULL;
    client_feed_release(feed);
    attempt->request.feed = NULL;
}

void client_attempt_finish(struct client *client, struct client_connection *connection)
{
    struct client_attempt *attempt = &connection->attempt;
    struct client_result result = {
        .user = attempt->request.user,
        .recipients = attempt->results,
        .recipient_count = attempt->request.recipient_count,
        .is_in_doubt = attempt->failure.is_in_doubt,
        .has_connected = attempt->has_connected,
        .was_attempted = attempt->was_attempted,
        .has_followed = attempt->has_followed,
        .is_bdat_ahead = attempt->is_bdat_ahead,
        .is_source_broken = attempt->is_source_broken,
        .families_connected = attempt->families_connected,
        .families_failed = attempt->families_failed,
        .families_broken = attempt->families_broken,
        .peer = connection->peer,
        .source = connection->source,
        .connection = connection->id,
        .connection_use = connection->use_count,
        .connect_time = attempt->connect_time,
    };

    CHECK(connection->has_request);
    results_tell_refusals(client, connection);
    results_complete(client, attempt);
    client_attempt_mail_over(client, connection);
    if (attempt->has_mail_right && client->options.on_mail != NULL)
        client->options.on_mail(client->options.context, connection->site, false);
    attempt->has_mail_right = false;
    if (attempt->transmit_started != 0)
        result.transmit_time = client->now - attempt->transmit_started;
    const struct client_connection *carrier =
        connection->state == CLIENT_STATE_ANSWERED ? connection->leader : connection;
    if (carrier->state == CLIENT_STATE_ACTIVE)
        result.tls_version = stream_tls_version(&carrier->stream);
    memcpy(result.host, connection->host, sizeof(result.host));
    client->stats.uncertain += result.is_in_doubt;
    connection->has_request = false;
    client->options.on_result(client->options.context, &result);
    client_attempt_feed_release(attempt);
    arena_reset(&connection->arena);
    attempt->results = NULL;
    attempt->pending = NULL;
    attempt->hosts = NULL;
}
