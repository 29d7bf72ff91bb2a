/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP in packet scripts: segments from the script's peers to the stack, and what is expected back.
 *
 * A peer keeps what a real endpoint would, so that scripts need not repeat it: its next sequence
 * number, what it has seen of the stack's, its window, and timestamps once both SYNs had them.
 * Every segment of the stack is read strictly (segment.c) and its payload is held against what the
 * application's stream has there.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/wire/script_spec.h"

#define ISN_DEFAULT  0x10000000u
#define PORT_DEFAULT 25u

/* ---- peers ---- */

struct script_peer *script_peer_find(struct script *script, const char *name)
{
    for (uint32_t i = 0; i < script->peer_count; i++) {
        if (strcmp(script->peers[i].name, name) == 0)
            return &script->peers[i];
    }
    return NULL;
}

struct script_peer *script_peer_new(struct script *script, const char *name,
                                    const struct flow_address *remote)
{
    struct script_peer *peer = &script->peers[script->peer_count];

    if (script->peer_count == SCRIPT_PEER_MAX)
        return NULL;
    *peer = (struct script_peer){
        .remote = *remote, .isn = ISN_DEFAULT * (script->peer_count + 1), .window = 65535};
    snprintf(peer->name, sizeof(peer->name), "%s", name);
    peer->local = remote->family == FLOW_FAMILY_IP4 ? world_stack4 : world_stack6;
    peer->local.port = PORT_DEFAULT;
    peer->has_local = true;
    script->peer_count++;
    return peer;
}

/* peer NAME IP:PORT [to IP:PORT] [isn N] */
bool script_peer(struct script *script, const char *argument)
{
    char name[SCRIPT_LINE_MAX], word[SCRIPT_LINE_MAX];
    struct flow_address remote;
    int64_t isn;

    if (!script_word(&argument, name) || strlen(name) >= SCRIPT_NAME_MAX ||
        !script_word(&argument, word) || !script_address(word, &remote))
        return script_fail(script, "peer NAME IP:PORT [to IP:PORT] [isn N]");
    if (script_peer_find(script, name) != NULL)
        return script_fail(script, "there is a peer %s already", name);
    struct script_peer *peer = script_peer_new(script, name, &remote);
    if (peer == NULL)
        return script_fail(script, "at most %u peers", SCRIPT_PEER_MAX);
    while (script_word(&argument, word)) {
        if (strcmp(word, "to") == 0 && script_word(&argument, word) &&
            script_address(word, &peer->local))
            continue;
        if (strcmp(word, "isn") != 0 || !script_number(&argument, &isn))
            return script_fail(script, "what is `%s`?", word);
        peer->isn = (uint32_t)isn;
    }
    return true;
}

/* ---- what the stack sent ---- */

static bool is_endpoint(const struct flow_address *address, uint8_t family, const uint8_t *ip,
                        uint16_t port)
{
    return address->family == family && address->port == port &&
           memcmp(address->ip, ip, family == 4 ? 4 : 16) == 0;
}

static struct script_peer *peer_of(struct script *script, const struct test_segment *segment)
{
    struct script_peer *learning = NULL;

    for (uint32_t i = 0; i < script->peer_count; i++) {
        struct script_peer *peer = &script->peers[i];
        if (peer->is_datagram || !is_endpoint(&peer->remote, segment->family, segment->destination,
                                              segment->destination_port))
            continue;
        if (!peer->has_local && learning == NULL)
            learning = peer;
        if (peer->has_local &&
            is_endpoint(&peer->local, segment->family, segment->source, segment->source_port))
            return peer;
    }
    if (learning == NULL || !(segment->flags & SEGMENT_SYN))
        return NULL;
    learning->local = (struct flow_address){.family = segment->family};
    learning->local.port = segment->source_port;
    memcpy(learning->local.ip, segment->source, 16);
    learning->has_local = true;
    return learning;
}

static void peer_learn(struct script_peer *peer, const struct test_segment *segment)
{
    if (segment->flags & SEGMENT_SYN) {
        peer->iss = segment->sequence;
        peer->has_iss = true;
        peer->seen = 1;
        peer->has_timestamps = peer->offered_timestamps && segment->options.has_timestamps;
        if (segment->options.has_timestamps)
            peer->timestamp_base = segment->options.timestamp_value;
        peer->has_timestamp_base = segment->options.has_timestamps;
    }
    int64_t from = (int32_t)(segment->sequence - peer->iss - (uint32_t)peer->seen) + peer->seen;
    int64_t to = from + test_segment_length(segment);
    if (from <= peer->seen && to > peer->seen)
        peer->seen = to;
    if (segment->options.has_timestamps)
        peer->timestamp_last = segment->options.timestamp_value;
}

static void frame_queue(struct world_frame **first, struct world_frame **last,
                        struct world_frame *frame)
{
    frame->next = NULL;
    if (*first == NULL)
        *first = frame;
    else
        (*last)->next = frame;
    *last = frame;
}

static bool udp_is_for(const struct script_peer *peer, const uint8_t *frame, uint32_t size)
{
    struct link_frame map;

    if (!peer->is_datagram || !link_frame_parse(span_of(frame, size), false, &map) ||
        map.protocol != 17)
        return false;
    const uint8_t *ip = frame + map.l3 + (map.family == 4 ? 16 : 24), *udp = frame + map.l4;
    return is_endpoint(&peer->remote, map.family, ip, (uint16_t)(udp[2] << 8 | udp[3]));
}

static bool collect_one(struct script *script, struct world_frame *frame)
{
    struct script_peer *peer = NULL;
    struct test_segment segment;
    const char *wrong = test_segment_parse(span_of(frame->octets, frame->size), &segment);

    if (wrong == NULL)
        peer = peer_of(script, &segment);
    for (uint32_t i = 0; wrong != NULL && i < script->peer_count && peer == NULL; i++) {
        if (udp_is_for(&script->peers[i], frame->octets, frame->size))
            peer = &script->peers[i];
    }
    if (peer == NULL) {
        frame_queue(&script->others_first, &script->others_last, frame);
    } else {
        frame_queue(&peer->first, &peer->last, frame);
        if (wrong == NULL) {
            struct script_text text = {0};
            peer_learn(peer, &segment);
            script_format_segment(peer, &segment, true, &text);
            script_note_at(script, frame->time, "%s", text.data);
            free(text.data);
        }
    }
    if (wrong != NULL && strcmp(wrong, "not TCP") != 0)
        return script_fail(script, "the stack sent a bad segment: %s", wrong);
    return true;
}

bool script_collect(struct script *script)
{
    struct world_frame *frame;
    bool is_good = true;

    while ((frame = world_take(script->world)) != NULL)
        is_good = collect_one(script, frame) && is_good;
    if (script->world->is_restless)
        return script_fail(script, "the stack does not come to rest");
    return is_good;
}

struct world_frame *script_await(struct script *script, struct script_peer *peer,
                                 const char *expected)
{
    struct world_frame **first = peer == NULL ? &script->others_first : &peer->first;

    while (script_collect(script) && *first == NULL && script->world->now < script->until)
        world_run_until_sent(script->world, script->until);
    if (script->has_failed)
        return NULL;
    struct world_frame *frame = *first;
    if (frame == NULL) {
        (void)script_fail(script, "expected: %s; nothing was sent", expected);
        return NULL;
    }
    if (frame->time < script->from || frame->time > script->until) {
        (void)script_fail(script,
                          "expected: %s; the next was sent %s, %lld us after the last event",
                          expected, frame->time < script->from ? "too early" : "too late",
                          (long long)(frame->time - script->clock));
        return NULL;
    }
    *first = frame->next;
    script->clock = frame->time;
    return frame;
}

bool script_expect(struct script *script, struct script_peer *peer, const char *text)
{
    struct test_segment segment;
    struct script_spec spec;

    struct world_frame *frame = script_await(script, peer, text);
    if (frame == NULL)
        return false;
    (void)test_segment_parse(span_of(frame->octets, frame->size), &segment);
    bool is_good = script_spec_parse(script, peer, text, true, &spec);
    const char *wrong = is_good ? script_spec_mismatch(peer, &spec, &segment) : NULL;
    if (wrong != NULL) {
        struct script_text got = {0};
        script_format_segment(peer, &segment, true, &got);
        is_good = script_fail(script, "expected: %s; got: %s (%s)", text, got.data, wrong);
        free(got.data);
    }
    free(frame);
    return is_good;
}

/* One of the segments of `> data`: it begins where the last one ended. */
static bool expect_data_one(struct script *script, struct script_peer *peer, const char *text,
                            int64_t *at)
{
    struct script_spec any = {.flags = SEGMENT_ACK, .has_sequence = true};
    struct test_segment segment;

    struct world_frame *frame = script_await(script, peer, text);
    if (frame == NULL)
        return false;
    (void)test_segment_parse(span_of(frame->octets, frame->size), &segment);
    any.sequence = *at;
    any.end = *at + segment.payload_size;
    any.flags |= segment.flags & (SEGMENT_FIN | SEGMENT_CWR | SEGMENT_ECE);
    const char *wrong =
        segment.payload_size == 0 ? "no data" : script_spec_mismatch(peer, &any, &segment);
    *at += segment.payload_size;
    free(frame);
    return wrong == NULL || script_fail(script, "expected: %s from %lld on; got %s", text,
                                        (long long)any.sequence, wrong);
}

/* data A:B [in N] */
bool script_expect_data(struct script *script, struct script_peer *peer, const char *text)
{
    tick_us lead = script->from - script->clock, patience = script->until - script->clock;
    const char *rest = text;
    char word[SCRIPT_LINE_MAX];
    long long from, to;
    int64_t segments = 0, count = 0;

    if (!script_word(&rest, word) || sscanf(word, "%lld:%lld", &from, &to) != 2 ||
        (script_take(&rest, "in") && !script_number(&rest, &segments)))
        return script_fail(script, "> data FROM:TO [in SEGMENTS]");
    for (int64_t at = from; at < to; count++) {
        if (!expect_data_one(script, peer, text, &at))
            return false;
        if (at > to)
            return script_fail(script, "expected: data %s; more was sent", text);
        script->from = count == 0 ? script->clock : script->from;
        script->until = script->clock + patience - lead;
    }
    if (segments > 0 && count != segments)
        return script_fail(script, "expected: data %s; it came in %lld segments", text,
                           (long long)count);
    return true;
}

/* Who was sent something that nobody expected yet; NULL: nobody. */
static const char *first_addressee(const struct script *script)
{
    for (uint32_t i = 0; i < script->peer_count; i++) {
        if (script->peers[i].first != NULL)
            return script->peers[i].name;
    }
    return script->others_first != NULL ? "somebody without a name" : NULL;
}

bool script_quiet(struct script *script, const char *argument)
{
    const char *name;
    tick_us time;

    if (!script_parse_time(argument, &time))
        return script_fail(script, "quiet TIME");
    if (!script_wait(script) || !script_collect(script))
        return false;
    name = first_addressee(script);
    if (name != NULL)
        return script_fail(script, "quiet: %s was sent something before that", name);
    world_run_until_sent(script->world, script->clock + time);
    if (!script_collect(script))
        return false;
    name = first_addressee(script);
    if (name != NULL)
        return script_fail(script, "quiet: %s was sent something after %llu us", name,
                           (unsigned long long)(script->world->now - script->clock));
    world_run(script->world, script->clock + time);
    script->clock += time;
    return script_collect(script);
}

bool script_others(struct script *script, const char *argument)
{
    struct world_frame **at = &script->others_first;
    struct test_segment segment;
    char word[SCRIPT_LINE_MAX];
    uint64_t count = 0;
    uint8_t flags;
    bool holds;

    if (!script_word(&argument, word) || !script_parse_flags(word, &flags))
        return script_fail(script, "others FLAGS OP N");
    if (!script_wait(script) || !script_collect(script))
        return false;
    script->others_last = NULL;
    while (*at != NULL) {
        struct world_frame *frame = *at;
        if (test_segment_parse(span_of(frame->octets, frame->size), &segment) != NULL ||
            (segment.flags & ~SEGMENT_PSH) != flags) {
            script->others_last = frame;
            at = &frame->next;
            continue;
        }
        *at = frame->next;
        free(frame);
        count++;
    }
    if (!script_compare(&argument, count, &holds))
        return script_fail(script, "others FLAGS OP N");
    return holds || script_fail(script, "there were %llu such segments", (unsigned long long)count);
}

/* ---- what the script sends ---- */

static void inject_numbers(struct script *script, struct script_peer *peer,
                           const struct script_spec *spec, struct test_segment *segment)
{
    int64_t sequence = spec->has_sequence ? spec->sequence : peer->next;
    int64_t acknowledgement = spec->has_acknowledgement ? spec->acknowledgement : peer->seen;

    (void)script;
    segment->sequence = peer->isn + (uint32_t)sequence;
    if (spec->flags & SEGMENT_ACK || spec->has_acknowledgement)
        segment->acknowledgement = peer->iss + (uint32_t)acknowledgement;
    if (spec->has_window)
        peer->window = (uint16_t)spec->window_from;
    segment->window = peer->window;
    int64_t end = sequence + test_segment_length(segment);
    if (!(spec->flags & SEGMENT_RST) && end > peer->next)
        peer->next = end;
}

static void inject_options(const struct script *script, struct script_peer *peer,
                           const struct script_spec *spec, struct test_segment *segment)
{
    uint32_t now = (uint32_t)(script->world->now / 1000);

    segment->options = spec->options;
    memcpy(segment->raw_options, spec->raw_options, spec->raw_options_size);
    segment->raw_options_size = spec->raw_options_size;
    if (!spec->has_options && peer->has_timestamps) {
        segment->options.has_timestamps = true;
        segment->options.timestamp_value = now;
        segment->options.timestamp_echo = peer->timestamp_last;
    } else if (spec->options.has_timestamps) {
        if (spec->is_timestamp_value_any)
            segment->options.timestamp_value = now;
        if (spec->is_timestamp_echo_auto)
            segment->options.timestamp_echo = peer->timestamp_last;
    }
    if (spec->flags & SEGMENT_SYN) {
        peer->offered_timestamps = segment->options.has_timestamps;
        /* An answer to the stack's SYN settles it. */
        peer->has_timestamps =
            spec->flags & SEGMENT_ACK && peer->offered_timestamps && peer->has_timestamp_base;
    }
}

static void inject_addresses(const struct script_peer *peer, const struct script_spec *spec,
                             struct test_segment *segment)
{
    const struct flow_address *from = spec->has_from ? &spec->from : &peer->remote;
    const struct flow_address *to = spec->has_to ? &spec->to : &peer->local;

    segment->family = from->family;
    segment->source_port = from->port;
    segment->destination_port = to->port;
    memcpy(segment->source, from->ip, 16);
    memcpy(segment->destination, to->ip, 16);
    memcpy(segment->source_mac, spec->source_mac, 6);
    memcpy(segment->destination_mac, spec->destination_mac, 6);
}

bool script_inject(struct script *script, struct script_peer *peer, const char *text)
{
    static uint8_t payload[TEST_FRAME_MAX], frame[TEST_FRAME_MAX + 256];
    struct test_segment segment = {0};
    struct script_text said = {0};
    struct script_spec spec;

    if (!script_wait(script) || !script_collect(script) ||
        !script_spec_parse(script, peer, text, false, &spec))
        return false;
    if (spec.end - spec.sequence < 0 || spec.end - spec.sequence > TEST_FRAME_MAX - 300)
        return script_fail(script, "so much does not fit a frame");
    segment.ttl = spec.ttl;
    segment.tos = spec.ecn;
    segment.flags = spec.flags;
    segment.urgent = spec.urgent;
    segment.payload = payload;
    segment.payload_size = (uint32_t)(spec.end - spec.sequence);
    inject_addresses(peer, &spec, &segment);
    inject_options(script, peer, &spec, &segment);
    inject_numbers(script, peer, &spec, &segment);
    for (uint32_t i = 0; i < segment.payload_size; i++)
        payload[i] = spec.has_fill ? spec.fill
                                   : test_stream_octet(2, (uint64_t)spec.sequence + i - 1 +
                                                              (spec.flags & SEGMENT_SYN ? 1 : 0));
    uint32_t size = script_spec_mutate(&spec, frame, test_segment_build(&segment, frame));
    script_format_segment(peer, &segment, false, &said);
    script_note(script, "%s", said.data);
    free(said.data);
    for (uint32_t i = 0; i < spec.times; i++)
        world_send(script->world, frame, size);
    return script_collect(script);
}
