/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients and next hops: connections that the scenario's file speaks for.
 *
 * What comes is collected as it comes, line by line taken out by `<`. A name stands for the latest
 * connection of that name: clients connect anew under an old name, hops accept again.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/scenario/scenario.h"

#define CLIENT_IP4 "192.0.2.100"
#define CLIENT_IP6 "2001:db8::100"
#define QUIET_TIME TICK_S(1)
#define HOP_USER   0x10000u

/* ---- turning ---- */

static void party_receive(struct scenario *scenario, struct scenario_party *party)
{
    uint32_t size;

    while ((size = flow_readable(scenario->plane, party->flow)) > 0) {
        struct span octets =
            flow_pull(scenario->plane, party->flow, size < FLOW_PULL_MAX ? size : FLOW_PULL_MAX);
        scenario_text_append(&party->received, octets.data, octets.size);
        flow_consume(scenario->plane, party->flow, octets.size);
    }
}

static void party_on_event(struct scenario *scenario, const struct flow_event *event)
{
    struct scenario_party *party = &scenario->parties[event->user];

    party->is_connected = true;
    if (event->events & FLOW_FAILED)
        party->is_failed = true;
    if (!party->is_paused)
        party_receive(scenario, party);
    if (event->events & FLOW_PEER_CLOSED)
        party->is_closed = true;
    if (event->events & FLOW_RESET)
        party->is_reset = true;
}

void scenario_parties_turn(struct scenario *scenario)
{
    struct flow_event events[64];
    tick_us now = net_sim_now(scenario->net);

    uint32_t count = flow_poll(scenario->plane, now, events, COUNT_OF(events));
    for (uint32_t i = 0; i < count; i++) {
        if (events[i].user >= HOP_USER)
            scenario->hops[events[i].user - HOP_USER].has_connection = true;
        else
            party_on_event(scenario, &events[i]);
    }
    flow_flush(scenario->plane, now);
}

/* ---- names ---- */

static struct scenario_party *party_find(struct scenario *scenario, const char *name, size_t size)
{
    for (uint32_t i = scenario->party_count; i > 0; i--) {
        struct scenario_party *party = &scenario->parties[i - 1];
        if (strlen(party->name) == size && memcmp(party->name, name, size) == 0)
            return party;
    }
    return NULL;
}

static struct scenario_hop *hop_find(struct scenario *scenario, const char *name, size_t size)
{
    for (uint32_t i = 0; i < scenario->hop_count; i++) {
        struct scenario_hop *hop = &scenario->hops[i];
        if (strlen(hop->name) == size && memcmp(hop->name, name, size) == 0)
            return hop;
    }
    return NULL;
}

static struct scenario_party *party_new(struct scenario *scenario, const char *name, size_t size)
{
    CHECK(scenario->party_count < SCENARIO_PARTY_MAX);
    struct scenario_party *party = &scenario->parties[scenario->party_count++];

    snprintf(party->name, sizeof(party->name), "%.*s", (int)size, name);
    return party;
}

/* The next word of `*at`, moved behind it; size 0 at the end. */
static size_t word_take(const char **at, const char **ret_word)
{
    while (**at == ' ')
        ++*at;
    *ret_word = *at;
    while (**at != '\0' && **at != ' ')
        ++*at;
    return (size_t)(*at - *ret_word);
}

static bool address_parse(const char *text, size_t size, struct flow_address *ret_address)
{
    char ip[64];
    unsigned port = 0;
    int end = 0;

    if (size >= sizeof(ip))
        return false;
    if (sscanf(text, "[%63[^]]]:%u%n", ip, &port, &end) != 2 &&
        sscanf(text, "%63[^:]:%u%n", ip, &port, &end) != 2)
        return false;
    if ((size_t)end != size || port == 0 || port > 65535 ||
        flow_address_parse_ip(span_from_text(ip), ret_address) != ERR_OK)
        return false;
    ret_address->port = (uint16_t)port;
    return true;
}

/* ---- connect ---- */

static bool connect_options_parse(struct scenario *scenario, const char *at,
                                  struct flow_address *source, uint32_t *listener)
{
    const char *word, *value;
    size_t size;

    while ((size = word_take(&at, &word)) > 0) {
        size_t value_size = word_take(&at, &value);
        if (size == 4 && memcmp(word, "from", 4) == 0 &&
            flow_address_parse_ip(span_of(value, (uint32_t)value_size), source) == ERR_OK)
            continue;
        if (size == 8 && memcmp(word, "listener", 8) == 0 && sscanf(value, "%u", listener) == 1)
            continue;
        return scenario_fail(scenario, "connect: `%s` is not understood", word);
    }
    return true;
}

static bool party_is_connected(const struct scenario *scenario, const void *argument)
{
    (void)scenario;
    const struct scenario_party *party = argument;
    return party->is_connected;
}

bool scenario_connect(struct scenario *scenario, const char *argument)
{
    const char *name;
    size_t name_size = word_take(&argument, &name);
    struct flow_address source = {0};
    uint32_t listener = 1;

    if (!connect_options_parse(scenario, argument, &source, &listener) || !scenario_begin(scenario))
        return false;
    if (listener == 0 || listener > scenario->config->settings.listener_count)
        return scenario_fail(scenario, "there is no listener %u", listener);
    struct flow_address remote = scenario->config->settings.listeners[listener - 1].address;
    if (source.family == FLOW_FAMILY_NONE) {
        const char *ip = remote.family == FLOW_FAMILY_IP4 ? CLIENT_IP4 : CLIENT_IP6;
        enum err err = flow_address_parse_ip(span_from_text(ip), &source);
        CHECK(err == ERR_OK);
    }
    struct scenario_party *party = party_new(scenario, name, name_size);
    enum err err = flow_connect(
        scenario->plane,
        &(struct flow_connect_options){.remote = remote,
                                       .source = source,
                                       .deadline = net_sim_now(scenario->net) + scenario->patience,
                                       .user = (uint64_t)(party - scenario->parties)},
        &party->flow);
    CHECK(err == ERR_OK);
    (void)scenario_run(scenario, scenario->patience, party_is_connected, party);
    scenario_note(scenario, "%s %s", party->name, party->is_failed ? "is refused" : "is connected");
    if (party->is_failed || !party->is_connected)
        return scenario_fail(scenario, "%s cannot connect", party->name);
    return !scenario->has_failed;
}

/* ---- hops ---- */

static bool hop_listen(struct scenario *scenario, struct scenario_hop *hop)
{
    enum err err = flow_listen(
        scenario->plane,
        &(struct flow_listen_options){.address = hop->address,
                                      .user = HOP_USER + (uint64_t)(hop - scenario->hops)},
        &hop->listener);
    if (err != ERR_OK)
        return scenario_fail(scenario, "%s cannot listen: %s", hop->name, err_text(err));
    return true;
}

static bool hop_black_hole(struct scenario *scenario, const struct scenario_hop *hop)
{
    struct flow_prefix prefix = {.address = hop->address};

    prefix.bits = hop->address.family == FLOW_FAMILY_IP4 ? 32 : 128;
    prefix.address.port = 0;
    net_sim_set_black_hole(scenario->net, &prefix);
    return true;
}

bool scenario_hop(struct scenario *scenario, const char *argument)
{
    const char *name, *word;
    size_t name_size = word_take(&argument, &name), size = word_take(&argument, &word);
    struct scenario_hop *hop = hop_find(scenario, name, name_size);
    struct flow_address address;

    if (hop != NULL && size == 4 && memcmp(word, "down", 4) == 0) {
        flow_close(scenario->plane, hop->listener);
        return true;
    }
    if (hop != NULL && size == 2 && memcmp(word, "up", 2) == 0)
        return hop_listen(scenario, hop);
    if (hop != NULL && size == 9 && memcmp(word, "blackhole", 9) == 0)
        return hop_black_hole(scenario, hop);
    if (hop != NULL || name_size == 0 || !address_parse(word, size, &address))
        return scenario_fail(scenario, "hop: `%s` is not understood", word);
    CHECK(scenario->hop_count < SCENARIO_HOP_MAX);
    hop = &scenario->hops[scenario->hop_count++];
    snprintf(hop->name, sizeof(hop->name), "%.*s", (int)name_size, name);
    hop->address = address;
    return hop_listen(scenario, hop);
}

static bool hop_has_connection(const struct scenario *scenario, const void *argument)
{
    (void)scenario;
    const struct scenario_hop *hop = argument;
    return hop->has_connection;
}

static bool accept_options_parse(const char *at, const char **name, size_t *name_size,
                                 struct flow_address *from)
{
    const char *word, *value;
    size_t size;

    while ((size = word_take(&at, &word)) > 0) {
        size_t value_size = word_take(&at, &value);
        if (size == 2 && memcmp(word, "as", 2) == 0) {
            *name = value;
            *name_size = value_size;
        } else if (size != 4 || memcmp(word, "from", 4) != 0 ||
                   flow_address_parse_ip(span_of(value, (uint32_t)value_size), from) != ERR_OK) {
            return false;
        }
    }
    return true;
}

static bool hop_accept(struct scenario *scenario, struct scenario_hop *hop, const char *argument)
{
    const char *name = hop->name;
    size_t name_size = strlen(hop->name);
    struct flow_address peer, from = {0};
    char ip[FLOW_ADDRESS_TEXT_MAX];
    struct flow flow;

    if (!accept_options_parse(argument, &name, &name_size, &from))
        return scenario_fail(scenario, "accept [as NAME] [from IP]");
    do { /* a connection may be gone before it is accepted: then the next one counts */
        if (!scenario_run(scenario, scenario->patience, hop_has_connection, hop)) {
            if (scenario->has_failed)
                return false;
            return scenario_fail(scenario, "the relay does not connect to %s", hop->name);
        }
        hop->has_connection = false;
    } while (flow_accept(scenario->plane, hop->listener, scenario->party_count, &flow, &peer) !=
             ERR_OK);
    struct scenario_party *party = party_new(scenario, name, name_size);
    party->flow = flow;
    party->is_connected = true;
    scenario_note(scenario, "%s accepts the relay's connection from %s", party->name,
                  flow_address_format_ip(&peer, ip));
    peer.port = 0;
    if (from.family != FLOW_FAMILY_NONE && !flow_address_is_equal(&peer, &from))
        return scenario_fail(scenario, "%s is connected from %s", party->name,
                             flow_address_format_ip(&peer, ip));
    return true;
}

static bool hop_unconnected(struct scenario *scenario, struct scenario_hop *hop)
{
    if (scenario_run(scenario, QUIET_TIME, hop_has_connection, hop))
        return scenario_fail(scenario, "the relay connects to %s", hop->name);
    return !scenario->has_failed;
}

/* ---- sending ---- */

static bool party_send(struct scenario *scenario, struct scenario_party *party, const char *text,
                       bool has_end, uint32_t count)
{
    struct scenario_text octets = {0};
    struct buf_queue queue;

    buf_queue_init(&queue);
    for (uint32_t i = 1; i <= count; i++) {
        struct scenario_text numbered = {0};
        if (count > 1)
            scenario_text_number(&numbered, text, i);
        octets.size = 0;
        bool is_good = scenario_unescape(count > 1 ? numbered.data : text, &octets);
        free(numbered.data);
        if (!is_good) {
            free(octets.data);
            buf_queue_fini(&queue);
            return scenario_fail(scenario, "an escape is not understood");
        }
        if (has_end)
            scenario_text_append(&octets, "\r\n", 2);
        enum err err = buf_queue_append_copy(&queue, scenario->pool,
                                             span_of(octets.data, (uint32_t)octets.size));
        CHECK(err == ERR_OK);
    }
    free(octets.data);
    flow_append(scenario->plane, party->flow, &queue);
    buf_queue_fini(&queue);
    scenario_note(scenario, "%s> %s", party->name, text);
    return true;
}

/* ---- expecting ---- */

static char *party_line_end(const struct scenario_party *party)
{
    if (party->read == party->received.size)
        return NULL;
    return memchr(party->received.data + party->read, '\n', party->received.size - party->read);
}

static bool party_has_line(const struct scenario *scenario, const void *argument)
{
    (void)scenario;
    const struct scenario_party *party = argument;
    return party_line_end(party) != NULL || party->is_closed || party->is_reset;
}

static bool party_has_octets(const struct scenario *scenario, const void *argument)
{
    (void)scenario;
    const struct scenario_party *party = argument;
    return party->read < party->received.size;
}

/* The next line, escaped, without its end of line; the octets LF without CR are kept visible. */
static bool party_take_line(struct scenario *scenario, struct scenario_party *party,
                            struct scenario_text *ret_line)
{
    (void)scenario_run(scenario, scenario->patience, party_has_line, party);
    char *end = party_line_end(party);
    if (end == NULL)
        return false;
    const char *begin = party->received.data + party->read;
    size_t size = (size_t)(end - begin);
    party->read += size + 1;
    bool has_cr = size > 0 && begin[size - 1] == '\r';
    ret_line->size = 0;
    scenario_text_append(ret_line, "", 0);
    scenario_escape(begin, has_cr ? size - 1 : size, ret_line);
    if (!has_cr)
        scenario_text_add(ret_line, "\\n");
    scenario_note(scenario, "%s< %s", party->name, ret_line->data);
    return true;
}

static bool party_no_line(struct scenario *scenario, const struct scenario_party *party,
                          const char *pattern)
{
    struct scenario_text rest = {0};

    if (scenario->has_failed)
        return false;
    scenario_text_append(&rest, "", 0);
    if (party->received.size > party->read)
        scenario_escape(party->received.data + party->read, party->received.size - party->read,
                        &rest);
    (void)scenario_fail(scenario, "%s expected: %s\n#   got: %s%s%s", party->name, pattern,
                        party->is_closed  ? "the end of the connection"
                        : party->is_reset ? "a reset"
                                          : "nothing",
                        rest.size > 0 ? ", half a line: " : "", rest.data);
    free(rest.data);
    return false;
}

static bool party_expect(struct scenario *scenario, struct scenario_party *party,
                         const char *pattern, bool is_skipping)
{
    struct scenario_text line = {0};
    bool is_match = false;

    do {
        if (!party_take_line(scenario, party, &line)) {
            free(line.data);
            return party_no_line(scenario, party, pattern);
        }
        is_match = scenario_matches(pattern, line.data);
    } while (!is_match && is_skipping);
    if (!is_match)
        (void)scenario_fail(scenario, "%s expected: %s\n#   got: %s", party->name, pattern,
                            line.data);
    free(line.data);
    return is_match;
}

static bool party_is_ended(const struct scenario *scenario, const void *argument)
{
    (void)scenario;
    const struct scenario_party *party = argument;
    return party->is_closed || party->is_reset;
}

static bool party_expect_end(struct scenario *scenario, struct scenario_party *party, bool is_reset)
{
    const char *what = is_reset ? "a reset" : "the end of the connection";

    (void)scenario_run(scenario, scenario->patience, party_is_ended, party);
    if (scenario->has_failed)
        return false;
    if (party->read < party->received.size)
        return scenario_fail(scenario, "%s expected %s, got: %s", party->name, what,
                             party->received.data + party->read);
    if (is_reset ? !party->is_reset : !party->is_closed)
        return scenario_fail(scenario, "%s expected %s, but %s", party->name, what,
                             party->is_closed  ? "it was closed"
                             : party->is_reset ? "it was reset"
                                               : "it stays open");
    scenario_note(scenario, "%s %s", party->name, is_reset ? "was reset" : "was closed");
    return true;
}

/* The connection ends, and what is unread has no end of a message. */
static bool party_expect_broken(struct scenario *scenario, struct scenario_party *party)
{
    (void)scenario_run(scenario, scenario->patience, party_is_ended, party);
    if (scenario->has_failed)
        return false;
    struct span rest =
        span_of(party->received.data + party->read, (uint32_t)(party->received.size - party->read));
    if (!party->is_reset && !party->is_closed)
        return scenario_fail(scenario, "%s expected the end of the connection", party->name);
    if (memmem(rest.data, rest.size, "\n.\r\n", 4) != NULL ||
        memmem(rest.data, rest.size, " LAST\r\n", 7) != NULL ||
        (rest.size >= 3 && memcmp(rest.data, ".\r\n", 3) == 0))
        return scenario_fail(scenario, "%s expected no end of the message", party->name);
    scenario_note(scenario, "%s was broken off", party->name);
    return true;
}

static bool party_never(const struct scenario *scenario, const void *argument)
{
    (void)scenario, (void)argument;
    return false;
}

/* Of what it sent, at least so many octets are kept from the relay. */
static bool party_expect_held(struct scenario *scenario, const struct scenario_party *party,
                              const char *at)
{
    unsigned long wanted = strtoul(at, NULL, 10);

    (void)scenario_run(scenario, QUIET_TIME, party_never, party);
    unsigned long unsent = flow_unsent(scenario->plane, party->flow);
    if (unsent < wanted)
        return scenario_fail(scenario, "%s expected %lu octets to be held up, not %lu", party->name,
                             wanted, unsent);
    return !scenario->has_failed;
}

static bool party_expect_nothing(struct scenario *scenario, struct scenario_party *party)
{
    if (scenario_run(scenario, QUIET_TIME, party_has_octets, party))
        return scenario_fail(scenario, "%s expected nothing, got: %s", party->name,
                             party->received.data + party->read);
    return !scenario->has_failed;
}

/* ---- statements ---- */

static bool party_end(struct scenario *scenario, struct scenario_party *party, bool is_abort)
{
    scenario_note(scenario, "%s %s", party->name, is_abort ? "aborts" : "closes");
    if (is_abort)
        flow_abort(scenario->plane, party->flow);
    else
        flow_close(scenario->plane, party->flow);
    return true;
}

static bool party_word(struct scenario *scenario, struct scenario_party *party,
                       struct scenario_hop *hop, const char *at)
{
    const char *word;
    size_t size = word_take(&at, &word);
    char verb[16] = "";

    snprintf(verb, sizeof(verb), "%.*s", (int)size, word);
    if (hop != NULL && strcmp(verb, "accept") == 0)
        return hop_accept(scenario, hop, at);
    if (hop != NULL && strcmp(verb, "unconnected") == 0)
        return hop_unconnected(scenario, hop);
    if (party == NULL)
        return scenario_fail(scenario, "no connection has that name yet");
    if (strcmp(verb, "closed") == 0)
        return party_expect_end(scenario, party, false);
    if (strcmp(verb, "reset") == 0)
        return party_expect_end(scenario, party, true);
    if (strcmp(verb, "broken") == 0)
        return party_expect_broken(scenario, party);
    if (strcmp(verb, "held") == 0)
        return party_expect_held(scenario, party, at);
    if (strcmp(verb, "nothing") == 0)
        return party_expect_nothing(scenario, party);
    if (strcmp(verb, "close") == 0)
        return party_end(scenario, party, false);
    if (strcmp(verb, "abort") == 0)
        return party_end(scenario, party, true);
    if (strcmp(verb, "shutdown") == 0) {
        flow_shutdown(scenario->plane, party->flow);
        return true;
    }
    if (strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0) {
        party->is_paused = verb[0] == 'p';
        if (!party->is_paused)
            party_receive(scenario, party);
        return true;
    }
    return scenario_fail(scenario, "`%s` is no statement", verb);
}

/* The text of a statement begins after one space. */
static const char *text_of(const char *at)
{
    return *at == ' ' ? at + 1 : at;
}

static bool party_send_many(struct scenario *scenario, struct scenario_party *party, const char *at)
{
    char *end = NULL;
    unsigned long count = strtoul(at, &end, 10);

    if (end == at || count == 0 || count > 1000000)
        return scenario_fail(scenario, "`>*` needs a count");
    return party_send(scenario, party, text_of(end), true, (uint32_t)count);
}

bool scenario_party_statement(struct scenario *scenario, const char *line, size_t name_size)
{
    struct scenario_party *party = party_find(scenario, line, name_size);
    struct scenario_hop *hop = hop_find(scenario, line, name_size);
    const char *at = line + name_size;

    if (party == NULL && hop == NULL)
        return scenario_fail(scenario, "`%s` is no statement and no party", line);
    if (!scenario_begin(scenario))
        return false;
    if (*at != '>' && *at != '<')
        return party_word(scenario, party, hop, at);
    if (party == NULL)
        return scenario_fail(scenario, "no connection has that name yet");
    if (strncmp(at, ">*", 2) == 0)
        return party_send_many(scenario, party, text_of(at + 2));
    if (strncmp(at, ">>", 2) == 0)
        return party_send(scenario, party, text_of(at + 2), false, 1);
    if (*at == '>')
        return party_send(scenario, party, text_of(at + 1), true, 1);
    if (strncmp(at, "<<", 2) == 0)
        return party_expect(scenario, party, text_of(at + 2), true);
    return party_expect(scenario, party, text_of(at + 1), false);
}
