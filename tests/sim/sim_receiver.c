/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Receivers: next hops of different moods. What they answer 250 at the end of data goes into the
 * ledger as delivered. Mailbox servers among them speak LMTP: there the mood is asked for each
 * recipient (RFC 2033 section 4.2).
 *
 * Before each reply the mood is asked: accept, 4xx, 5xx, hang up, fall silent for ever, or answer
 * late. Replies wait on a queue with their time and leave in order. After a 250 to the end of data
 * the delivery counts as confirmed once the relay says QUIT, or sends data that a later 354 asked
 * for: other commands may have been sent before it had read the 250.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/sim/sim_world.h"

#define RECEIVER_MAX     32u
#define CONNECTION_MAX   512u
#define RCPT_MAX         200u
#define DELIVERY_MAX     400u
#define LISTENER_USER    0x10000u
#define LIST_TIME        TICK_S(180)
#define IDLE_TIME        TICK_S(1200)
#define SLOW_MAX         TICK_S(400)
#define POOL_COUNT       65536u
#define CONTENT_SIZE_MAX (4u << 20)

struct reply {
    tick_us due;
    char text[192];
    bool is_abort_behind;
};

struct connection {
    bool is_used, is_silent;
    struct flow flow;
    uint32_t receiver, source;
    tick_us idle_until;
    struct sim_text input, content;
    char sender[128];
    char recipients[RCPT_MAX][128];
    bool has_notify[RCPT_MAX];
    uint32_t recipient_count;
    bool has_sender, is_in_data;
    tick_us mail_at;
    uint32_t chunk_left;
    bool is_in_chunk, is_last_chunk;
    struct reply replies[64];
    uint32_t reply_head, reply_count;
    char confirmable[DELIVERY_MAX][128]; /* addresses whose 250 may not have been read yet */
    uint32_t confirmable_count;
};

struct receiver_count { /* of one source */
    uint32_t open, open_peak;
    tick_us *mails; /* when each MAIL came */
    uint32_t mail_count;
};

struct receiver {
    struct flow listener;
    bool is_lmtp;
    struct receiver_mood mood;
    struct receiver_count counts[SIM_SOURCE_COUNT + 1];
    tick_us quiet_from, quiet_until; /* its site is suspended, or all mail is held */
};

struct receivers {
    struct net_sim *net;
    struct ledger *ledger;
    struct rng rng;
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct receiver receivers[RECEIVER_MAX];
    uint32_t receiver_count;
    bool has_sources; /* each connection is from one, and by its name */
    bool has_lists, is_misread;
    struct connection *connections;
};

static struct receiver_count *count_of(struct receivers *receivers,
                                       const struct connection *connection)
{
    return &receivers->receivers[connection->receiver].counts[connection->source];
}

/* ---- replies ---- */

static const struct receiver_mood *mood_of(const struct receivers *receivers,
                                           const struct connection *connection)
{
    return &receivers->receivers[connection->receiver].mood;
}

static bool chance(struct receivers *receivers, uint32_t per_million)
{
    return per_million > 0 && rng_below(&receivers->rng, 1000000) < per_million;
}

static void connection_end(struct receivers *receivers, struct connection *connection,
                           bool is_abort)
{
    if (is_abort)
        flow_abort(receivers->plane, connection->flow);
    else
        flow_close(receivers->plane, connection->flow);
    sim_text_fini(&connection->input);
    sim_text_fini(&connection->content);
    count_of(receivers, connection)->open--;
    ledger_trace(receivers->ledger, "receiver %u: connection %u is over", connection->receiver,
                 (uint32_t)(connection - receivers->connections));
    *connection = (struct connection){0};
}

static void reply_queue(struct receivers *receivers, struct connection *connection,
                        const char *text, bool is_abort_behind)
{
    tick_us due = net_sim_now(receivers->net);

    if (chance(receivers, mood_of(receivers, connection)->slow))
        due += 1 + rng_below(&receivers->rng, (uint32_t)SLOW_MAX);
    if (connection->reply_count > 0) {
        uint32_t last =
            (connection->reply_head + connection->reply_count - 1) % COUNT_OF(connection->replies);
        if (connection->replies[last].due > due)
            due = connection->replies[last].due;
    }
    CHECK(connection->reply_count < COUNT_OF(connection->replies));
    struct reply *reply =
        &connection->replies[(connection->reply_head + connection->reply_count++) %
                             COUNT_OF(connection->replies)];
    *reply = (struct reply){.due = due, .is_abort_behind = is_abort_behind};
    snprintf(reply->text, sizeof(reply->text), "%s", text);
}

static void replies_send(struct receivers *receivers, struct connection *connection)
{
    tick_us now = net_sim_now(receivers->net);

    while (connection->is_used && connection->reply_count > 0 &&
           connection->replies[connection->reply_head].due <= now) {
        struct reply *reply = &connection->replies[connection->reply_head];
        struct buf_queue queue;
        buf_queue_init(&queue);
        enum err err = buf_queue_append_copy(&queue, receivers->pool, span_from_text(reply->text));
        CHECK(err == ERR_OK);
        flow_append(receivers->plane, connection->flow, &queue);
        buf_queue_fini(&queue);
        ledger_trace(receivers->ledger, "receiver %u: %.*s", connection->receiver,
                     (int)strcspn(reply->text, "\r"), reply->text);
        connection->reply_head = (connection->reply_head + 1) % COUNT_OF(connection->replies);
        connection->reply_count--;
        if (!reply->is_abort_behind)
            continue;
        flow_flush(receivers->plane, now);
        connection_end(receivers, connection, true);
    }
}

enum verdict { VERDICT_ACCEPT, VERDICT_TEMPORARY, VERDICT_PERMANENT, VERDICT_GONE };

/* Is the other end on this server's list now? None is, or one. */
static bool is_listed(const struct receivers *receivers, const struct connection *connection)
{
    uint64_t time = net_sim_now(receivers->net) / LIST_TIME;
    uint64_t draw = (time * 31 + connection->receiver + 1) * 0x9e3779b97f4a7c15ull >> 32;

    return receivers->has_lists && draw % (SIM_SOURCE_OURS + 2) + 1 == connection->source;
}

/* What the mood says at this stage; the refusal is queued, the connection ended, if that is it. */
static enum verdict receiver_judge(struct receivers *receivers, struct connection *connection,
                                   enum receiver_stage stage)
{
    static const char *const temporary[] = {"421 4.3.2 later\r\n", "421 4.3.2 later\r\n",
                                            "451 4.3.0 later\r\n", "450 4.2.1 later\r\n",
                                            "451 4.3.0 later\r\n", "451 4.3.0 later\r\n"};
    static const char *const permanent[] = {"554 5.3.2 no\r\n", "502 5.5.1 no\r\n",
                                            "550 5.7.1 no\r\n", "550 5.1.1 no\r\n",
                                            "554 5.6.0 no\r\n", "554 5.6.0 no\r\n"};
    const struct receiver_mood *mood = mood_of(receivers, connection);

    if (stage <= RECEIVER_RCPT && stage % 3 == connection->receiver % 3 &&
        is_listed(receivers, connection)) {
        reply_queue(receivers, connection,
                    receivers->is_misread ? "550 5.1.1 who is that\r\n"
                                          : "554 5.7.1 you are on a blocklist\r\n",
                    false);
        return VERDICT_PERMANENT;
    }
    if (chance(receivers, mood->drop)) {
        ledger_trace(receivers->ledger, "receiver %u hangs up", connection->receiver);
        connection_end(receivers, connection, rng_below(&receivers->rng, 2) == 0);
        return VERDICT_GONE;
    }
    if (chance(receivers, mood->silent)) {
        ledger_trace(receivers->ledger, "receiver %u falls silent", connection->receiver);
        connection->is_silent = true;
        return VERDICT_GONE;
    }
    if (chance(receivers, mood->temporary)) {
        reply_queue(receivers, connection, temporary[stage], false);
        return VERDICT_TEMPORARY;
    }
    if (chance(receivers, mood->permanent)) {
        reply_queue(receivers, connection, permanent[stage], false);
        return VERDICT_PERMANENT;
    }
    return VERDICT_ACCEPT;
}

/* ---- deliveries ---- */

static void connection_confirm(struct receivers *receivers, struct connection *connection)
{
    for (uint32_t i = 0; i < connection->confirmable_count; i++)
        ledger_on_confirmed(receivers->ledger, connection->confirmable[i]);
    connection->confirmable_count = 0;
}

static void connection_reset(struct connection *connection)
{
    connection->recipient_count = 0;
    connection->has_sender = connection->is_in_data = false;
    connection->is_in_chunk = connection->is_last_chunk = false;
    connection->content.size = 0;
}

static bool is_lmtp(const struct receivers *receivers, const struct connection *connection)
{
    return receivers->receivers[connection->receiver].is_lmtp;
}

/* To `count` recipients from `first` on. */
static void connection_delivered(struct receivers *receivers, struct connection *connection,
                                 uint32_t first, uint32_t count)
{
    bool is_dropping = chance(receivers, mood_of(receivers, connection)->drop_after_reply);

    ledger_on_delivery(receivers->ledger, connection->sender, connection->recipients + first,
                       connection->has_notify + first, count, &connection->content);
    for (uint32_t i = first; i < first + count && connection->confirmable_count < DELIVERY_MAX; i++)
        memcpy(connection->confirmable[connection->confirmable_count++], connection->recipients[i],
               sizeof(connection->recipients[i]));
    reply_queue(receivers, connection, "250 2.0.0 taken\r\n", is_dropping);
}

/* The content is complete. False: the connection is over. */
static bool connection_end_of_data(struct receivers *receivers, struct connection *connection)
{
    uint32_t count = connection->recipient_count;
    uint32_t step = is_lmtp(receivers, connection) ? 1 : count;

    for (uint32_t first = 0; first < count; first += step) {
        enum verdict verdict = receiver_judge(receivers, connection, RECEIVER_END);
        if (verdict == VERDICT_GONE)
            return false;
        if (verdict == VERDICT_ACCEPT)
            connection_delivered(receivers, connection, first, step);
    }
    connection_reset(connection);
    return true;
}

/* ---- commands ---- */

static bool is_verb(const char *line, const char *verb)
{
    return strncasecmp(line, verb, strlen(verb)) == 0;
}

static bool address_take(const char *line, char ret_address[128])
{
    return sscanf(line, "%*[^<]<%127[^>]>", ret_address) == 1;
}

static void on_hello(struct receivers *receivers, struct connection *connection)
{
    const struct receiver_mood *mood = mood_of(receivers, connection);
    char text[192];

    if (receiver_judge(receivers, connection, RECEIVER_HELLO) != VERDICT_ACCEPT)
        return;
    snprintf(text, sizeof(text),
             "250-next.example\r\n%s%s%s250-8BITMIME\r\n250 ENHANCEDSTATUSCODES\r\n",
             mood->has_dsn ? "250-DSN\r\n" : "", mood->has_pipelining ? "250-PIPELINING\r\n" : "",
             mood->has_chunking ? "250-CHUNKING\r\n" : "");
    reply_queue(receivers, connection, text, false);
}

static void receiver_note_mail(struct receivers *receivers, const struct connection *connection)
{
    const struct receiver *receiver = &receivers->receivers[connection->receiver];
    struct receiver_count *count = count_of(receivers, connection);

    if (count->mail_count % 256 == 0) {
        count->mails = reallocarray(count->mails, count->mail_count + 256, sizeof(tick_us));
        CHECK(count->mails != NULL);
    }
    tick_us now = net_sim_now(receivers->net);
    count->mails[count->mail_count++] = now;
    if (now >= receiver->quiet_from && now < receiver->quiet_until)
        ledger_violation(receivers->ledger,
                         "receiver %u: MAIL, though its site is suspended, or all mail held",
                         connection->receiver);
}

void receivers_set_quiet(struct receivers *receivers, uint32_t index, tick_us from, tick_us until)
{
    CHECK(index < receivers->receiver_count);
    receivers->receivers[index].quiet_from = from;
    receivers->receivers[index].quiet_until = until;
}

struct receiver_peak receivers_peak(const struct receivers *receivers, uint32_t index,
                                    uint32_t source, tick_us window)
{
    CHECK(index < receivers->receiver_count && source <= SIM_SOURCE_COUNT);
    const struct receiver_count *count = &receivers->receivers[index].counts[source];
    struct receiver_peak peak = {.connections = count->open_peak};
    uint32_t first = 0;

    for (uint32_t i = 0; i < count->mail_count; i++) {
        while (count->mails[i] - count->mails[first] > window)
            first++;
        peak.mails = i - first + 1 > peak.mails ? i - first + 1 : peak.mails;
    }
    return peak;
}

static void check_name(struct receivers *receivers, const struct connection *connection,
                       const char *line)
{
    char name[32];

    snprintf(name, sizeof(name), "out-%u.example", connection->source);
    if (receivers->has_sources && strcmp(line + 5, name) != 0)
        ledger_violation(receivers->ledger, "source %u calls itself %s", connection->source,
                         line + 5);
}

static void on_mail(struct receivers *receivers, struct connection *connection, const char *line)
{
    receiver_note_mail(receivers, connection);
    connection->mail_at = net_sim_now(receivers->net);
    if (connection->has_sender) {
        reply_queue(receivers, connection, "503 5.5.1 nested MAIL\r\n", false);
        return;
    }
    if (receiver_judge(receivers, connection, RECEIVER_MAIL) != VERDICT_ACCEPT)
        return;
    connection->has_sender = true;
    if (!address_take(line, connection->sender))
        connection->sender[0] = '\0';
    reply_queue(receivers, connection, "250 2.1.0 ok\r\n", false);
}

static void on_rcpt(struct receivers *receivers, struct connection *connection, const char *line)
{
    if (!connection->has_sender || connection->recipient_count == RCPT_MAX) {
        reply_queue(receivers, connection, "503 5.5.1 no MAIL\r\n", false);
        return;
    }
    if (receiver_judge(receivers, connection, RECEIVER_RCPT) != VERDICT_ACCEPT)
        return;
    connection->has_notify[connection->recipient_count] = strstr(line, " NOTIFY=") != NULL;
    if (address_take(line, connection->recipients[connection->recipient_count])) {
        ledger_on_rcpt(receivers->ledger, connection->recipients[connection->recipient_count],
                       connection->mail_at);
        connection->recipient_count++;
    }
    reply_queue(receivers, connection, "250 2.1.5 ok\r\n", false);
}

static void on_data(struct receivers *receivers, struct connection *connection)
{
    if (connection->recipient_count == 0) {
        reply_queue(receivers, connection, "554 5.5.1 no recipients\r\n", false);
        return;
    }
    if (receiver_judge(receivers, connection, RECEIVER_DATA) != VERDICT_ACCEPT)
        return;
    connection->is_in_data = true;
    reply_queue(receivers, connection, "354 go on\r\n", false);
}

static void on_bdat(struct connection *connection, const char *line)
{
    char last[8] = "";

    (void)sscanf(line, "%*s %u %7s", &connection->chunk_left, last);
    connection->is_in_chunk = true;
    connection->is_last_chunk = strcasecmp(last, "LAST") == 0;
}

static void connection_on_line(struct receivers *receivers, struct connection *connection,
                               const char *line)
{
    ledger_trace(receivers->ledger, "receiver %u: < %s", connection->receiver, line);
    if (is_verb(line, "QUIT"))
        connection_confirm(receivers, connection);
    if (is_lmtp(receivers, connection) ? is_verb(line, "LHLO")
                                       : is_verb(line, "EHLO") || is_verb(line, "HELO")) {
        check_name(receivers, connection, line);
        on_hello(receivers, connection);
    } else if (is_verb(line, "MAIL")) {
        on_mail(receivers, connection, line);
    } else if (is_verb(line, "RCPT")) {
        on_rcpt(receivers, connection, line);
    } else if (is_verb(line, "DATA")) {
        on_data(receivers, connection);
    } else if (is_verb(line, "BDAT") && mood_of(receivers, connection)->has_chunking) {
        on_bdat(connection, line);
    } else if (is_verb(line, "RSET")) {
        connection_reset(connection);
        reply_queue(receivers, connection, "250 2.0.0 ok\r\n", false);
    } else if (is_verb(line, "QUIT")) {
        reply_queue(receivers, connection, "221 2.0.0 bye\r\n", false);
    } else {
        ledger_violation(receivers->ledger, "a receiver got the command: %s", line);
        reply_queue(receivers, connection, "500 5.5.2 what\r\n", false);
    }
}

/* ---- octets ---- */

/* Each takes one piece from the front of the input; false when more is needed or all is over. */
static bool take_data_line(struct receivers *receivers, struct connection *connection)
{
    struct sim_text *input = &connection->input;
    char *end = memmem(input->data, input->size, "\r\n", 2);

    if (end == NULL || connection->content.size > CONTENT_SIZE_MAX)
        return false;
    connection_confirm(receivers, connection);
    uint32_t size = (uint32_t)(end - input->data) + 2;
    bool is_end = size == 3 && input->data[0] == '.';
    uint32_t skip = input->data[0] == '.' ? 1 : 0;
    if (!is_end)
        sim_text_add(&connection->content, input->data + skip, size - skip);
    sim_text_drop(input, size);
    return !is_end || connection_end_of_data(receivers, connection);
}

static bool take_chunk(struct receivers *receivers, struct connection *connection)
{
    struct sim_text *input = &connection->input;
    uint32_t size = input->size < connection->chunk_left ? input->size : connection->chunk_left;

    sim_text_add(&connection->content, input->data, size);
    sim_text_drop(input, size);
    connection->chunk_left -= size;
    if (connection->chunk_left > 0)
        return false;
    connection->is_in_chunk = false;
    if (connection->recipient_count == 0) {
        reply_queue(receivers, connection, "554 5.5.1 no recipients\r\n", false);
        if (connection->is_last_chunk)
            connection_reset(connection);
        return true;
    }
    if (connection->is_last_chunk)
        return connection_end_of_data(receivers, connection);
    reply_queue(receivers, connection, "250 2.0.0 chunk\r\n", false);
    return true;
}

static bool take_command(struct receivers *receivers, struct connection *connection)
{
    struct sim_text *input = &connection->input;
    char line[2048];
    char *end = memmem(input->data, input->size, "\r\n", 2);

    if (end == NULL || connection->reply_count > COUNT_OF(connection->replies) - 4)
        return false;
    snprintf(line, sizeof(line), "%.*s", (int)(end - input->data), input->data);
    sim_text_drop(input, (uint32_t)(end - input->data) + 2);
    connection_on_line(receivers, connection, line);
    return connection->is_used && !connection->is_silent;
}

static void connection_parse(struct receivers *receivers, struct connection *connection)
{
    bool goes_on = true;

    while (goes_on && connection->is_used && !connection->is_silent && connection->input.size > 0) {
        if (connection->is_in_data)
            goes_on = take_data_line(receivers, connection);
        else if (connection->is_in_chunk)
            goes_on = take_chunk(receivers, connection);
        else
            goes_on = take_command(receivers, connection);
    }
}

static void connection_read(struct receivers *receivers, struct connection *connection)
{
    uint32_t size;

    while ((size = flow_readable(receivers->plane, connection->flow)) > 0) {
        struct span octets = flow_pull(receivers->plane, connection->flow,
                                       size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        sim_text_add(&connection->input, octets.data, octets.size);
        flow_consume(receivers->plane, connection->flow, octets.size);
        connection->idle_until = net_sim_now(receivers->net) + IDLE_TIME;
    }
}

/* A body is coming: it may go wrong in the middle. */
static void connection_mind_body(struct receivers *receivers, struct connection *connection)
{
    static const char *const refusals[] = {"452 4.3.1 no room\r\n", "552 5.3.4 too much\r\n"};

    if (!connection->is_in_data && !connection->is_in_chunk)
        return;
    if (connection->is_silent || !chance(receivers, mood_of(receivers, connection)->in_body))
        return;
    uint32_t kind = rng_below(&receivers->rng, 4);
    ledger_trace(receivers->ledger, "receiver %u: trouble in the body", connection->receiver);
    if (kind == 0) {
        connection_end(receivers, connection, true);
        return;
    }
    connection->is_silent = true; /* whatever comes now is nobody's */
    if (kind >= 2)
        reply_queue(receivers, connection, refusals[kind - 2], false);
}

/* ---- turning ---- */

static uint32_t source_number(struct receivers *receivers, const struct flow_address *peer)
{
    uint32_t number = peer->ip[3] - SIM_SOURCE_BASE;

    if (peer->ip[3] <= SIM_SOURCE_BASE || number > SIM_SOURCE_COUNT)
        number = 0;
    if (receivers->has_sources && (number == 0 || number > SIM_SOURCE_OURS))
        ledger_violation(receivers->ledger, "source %u is none of the pool's", number);
    return number;
}

void receivers_expect_sources(struct receivers *receivers)
{
    receivers->has_sources = true;
}

void receivers_keep_lists(struct receivers *receivers, bool is_misread)
{
    receivers->has_lists = true;
    receivers->is_misread = is_misread;
}

static void receiver_accept(struct receivers *receivers, uint32_t index)
{
    struct flow_address peer;
    struct flow flow;

    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        struct connection *connection = &receivers->connections[i];
        if (connection->is_used)
            continue;
        if (flow_accept(receivers->plane, receivers->receivers[index].listener, i, &flow, &peer) !=
            ERR_OK)
            return;
        *connection = (struct connection){.is_used = true, .flow = flow, .receiver = index};
        connection->source = source_number(receivers, &peer);
        struct receiver_count *count = count_of(receivers, connection);
        count->open++;
        ledger_trace(receivers->ledger, "receiver %u: connection %u from source %u, %u open", index,
                     i, connection->source, count->open);
        if (count->open > count->open_peak)
            count->open_peak = count->open;
        connection->idle_until = net_sim_now(receivers->net) + IDLE_TIME;
        if (receiver_judge(receivers, connection, RECEIVER_BANNER) == VERDICT_ACCEPT)
            reply_queue(receivers, connection, "220 next.example ESMTP\r\n", false);
    }
}

static void receivers_on_event(struct receivers *receivers, const struct flow_event *event)
{
    if (event->user >= LISTENER_USER) {
        receiver_accept(receivers, (uint32_t)(event->user - LISTENER_USER));
        return;
    }
    struct connection *connection = &receivers->connections[event->user];
    if (!connection->is_used || event->flow.generation != connection->flow.generation ||
        event->flow.index != connection->flow.index)
        return;
    connection_read(receivers, connection);
    connection_parse(receivers, connection);
    if (connection->is_used)
        connection_mind_body(receivers, connection);
    if (connection->is_used && event->events & (FLOW_PEER_CLOSED | FLOW_RESET))
        connection_end(receivers, connection, false);
}

void receivers_turn(struct receivers *receivers)
{
    struct flow_event events[64];
    tick_us now = net_sim_now(receivers->net);

    uint32_t count = flow_poll(receivers->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++)
        receivers_on_event(receivers, &events[i]);
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        struct connection *connection = &receivers->connections[i];
        if (!connection->is_used)
            continue;
        replies_send(receivers, connection);
        connection_parse(receivers, connection);
        replies_send(receivers, connection);
        if (connection->is_used && now >= connection->idle_until)
            connection_end(receivers, connection, true);
    }
    flow_flush(receivers->plane, now);
}

tick_us receivers_deadline(const struct receivers *receivers)
{
    tick_us deadline = TICK_NEVER;

    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        const struct connection *connection = &receivers->connections[i];
        if (!connection->is_used)
            continue;
        if (connection->idle_until < deadline)
            deadline = connection->idle_until;
        if (connection->reply_count > 0 &&
            connection->replies[connection->reply_head].due < deadline)
            deadline = connection->replies[connection->reply_head].due;
    }
    return deadline;
}

void receivers_listen(struct receivers *receivers, const struct flow_address *address,
                      const struct receiver_mood *mood)
{
    CHECK(receivers->receiver_count < RECEIVER_MAX);
    uint32_t index = receivers->receiver_count++;
    struct receiver *receiver = &receivers->receivers[index];

    receiver->mood = *mood;
    receiver->is_lmtp = address->port == SIM_LMTP_PORT;
    enum err err = flow_listen(
        receivers->plane,
        &(struct flow_listen_options){.address = *address, .user = LISTENER_USER + index},
        &receiver->listener);
    CHECK(err == ERR_OK);
}

void receivers_set_mood(struct receivers *receivers, uint32_t index,
                        const struct receiver_mood *mood)
{
    CHECK(index < receivers->receiver_count);
    receivers->receivers[index].mood = *mood;
}

struct receivers *receivers_new(struct net_sim *net, struct ledger *ledger, uint64_t seed)
{
    struct receivers *receivers = calloc(1, sizeof(*receivers));
    CHECK(receivers != NULL);

    receivers->net = net;
    receivers->ledger = ledger;
    rng_init_seed(&receivers->rng, seed);
    receivers->connections = calloc(CONNECTION_MAX, sizeof(*receivers->connections));
    CHECK(receivers->connections != NULL);
    receivers->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 4096, .count_max = POOL_COUNT, .backing = BUF_BACKING_SLAB});
    struct flow_address address4 = {.family = FLOW_FAMILY_IP4, .ip = {198, 51, 100, 254}};
    struct flow_address addresses[SIM_DOMAIN_MAX + 1]; /* as sim_relay.c gives them out */
    for (uint32_t i = 0; i < COUNT_OF(addresses); i++) {
        bool is_bounce = i == SIM_DOMAIN_MAX;
        uint8_t third = is_bounce ? 100 : (uint8_t)(101 + i);
        uint8_t last = is_bounce ? SIM_BOUNCE_HOST : (uint8_t)(i + 1);
        addresses[i] =
            (struct flow_address){.family = FLOW_FAMILY_IP4, .ip = {198, 51, third, last}};
    }
    receivers->plane =
        net_sim_plane_new(net, &(struct net_sim_plane_options){.pool = receivers->pool,
                                                               .flow_count_max = 4096,
                                                               .orphan_time = TICK_S(60),
                                                               .addresses = addresses,
                                                               .address_count = COUNT_OF(addresses),
                                                               .address4 = address4});
    return receivers;
}

void receivers_free(struct receivers *receivers)
{
    for (uint32_t i = 0; i < CONNECTION_MAX; i++) {
        if (receivers->connections[i].is_used)
            connection_end(receivers, &receivers->connections[i], true);
    }
    for (uint32_t i = 0; i < receivers->receiver_count; i++)
        for (uint32_t j = 0; j <= SIM_SOURCE_COUNT; j++)
            free(receivers->receivers[i].counts[j].mails);
    flow_plane_free(receivers->plane);
    buf_pool_free(receivers->pool);
    free(receivers->connections);
    free(receivers);
}
