/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The description of one segment: reading it, holding a segment against it, and doing the damage
 * to a frame that it asks for.
 */
#include "tests/wire/script_spec.h"

#include <stdio.h>

#include "dataplane/wire/port/link_sim_frame.h"

/* ---- reading ---- */

static bool spec_block(const char *word, uint32_t base, uint32_t ret_block[2])
{
    long long start, end;
    int used = 0;

    if (sscanf(word, "%lld:%lld%n", &start, &end, &used) != 2 || word[used] != '\0')
        return false;
    ret_block[0] = base + (uint32_t)start;
    ret_block[1] = base + (uint32_t)end;
    return true;
}

/* "=N": N milliseconds after the stack's first timestamp; "*": any. */
static bool spec_timestamp(const struct script_peer *peer, const char *word, uint32_t *ret_value,
                           bool *ret_any)
{
    int64_t number;

    *ret_any = strcmp(word, "*") == 0;
    if (*ret_any)
        return true;
    if (!script_is_number(word[0] == '=' ? word + 1 : word, &number))
        return false;
    *ret_value = (uint32_t)number + (word[0] == '=' ? peer->timestamp_base : 0);
    return true;
}

static bool spec_timestamps(const struct script_peer *peer, const char *at,
                            struct script_spec *spec)
{
    char value[SCRIPT_LINE_MAX], echo[SCRIPT_LINE_MAX];

    spec->options.has_timestamps = true;
    spec->is_timestamp_value_any = spec->is_timestamp_echo_any = true;
    spec->is_timestamp_echo_auto = true;
    if (!script_word(&at, value))
        return true;
    if (!spec_timestamp(peer, value, &spec->options.timestamp_value, &spec->is_timestamp_value_any))
        return false;
    if (!script_word(&at, echo))
        return true;
    spec->is_timestamp_echo_auto = false;
    return spec_timestamp(peer, echo, &spec->options.timestamp_echo, &spec->is_timestamp_echo_any);
}

static bool spec_option(const struct script_peer *peer, const char *text, bool is_sent,
                        struct script_spec *spec)
{
    struct test_options *options = &spec->options;
    char word[SCRIPT_LINE_MAX];
    const char *at = text;
    int64_t number = 0;

    if (!script_word(&at, word) || strcmp(word, "none") == 0)
        return true;
    if (strcmp(word, "sackOK") == 0) {
        options->has_sack_permitted = true;
    } else if (strcmp(word, "mss") == 0) {
        options->has_mss = script_number(&at, &number);
        options->mss = (uint16_t)number;
        return options->has_mss;
    } else if (strcmp(word, "wscale") == 0) {
        options->has_scale = script_number(&at, &number);
        options->scale = (uint8_t)number;
        return options->has_scale;
    } else if (strcmp(word, "sack") == 0) {
        while (script_word(&at, word)) {
            if (options->sack_count == 4 || !spec_block(word, is_sent ? peer->isn : peer->iss,
                                                        options->sack[options->sack_count++]))
                return false;
        }
    } else if (strcmp(word, "ts") == 0) {
        return spec_timestamps(peer, at, spec);
    } else if (strcmp(word, "raw") == 0) {
        return script_word(&at, word) &&
               script_hex(word, spec->raw_options, TEST_OPTIONS_MAX, &spec->raw_options_size);
    } else {
        return false;
    }
    return true;
}

static bool spec_options(const struct script_peer *peer, char *list, bool is_sent,
                         struct script_spec *spec)
{
    size_t size = strlen(list);
    char *rest = list + 1;

    if (size < 2 || list[size - 1] != '>')
        return false;
    list[size - 1] = '\0';
    spec->has_options = true;
    for (char *option = strsep(&rest, ","); option != NULL; option = strsep(&rest, ",")) {
        if (!spec_option(peer, option, is_sent, spec))
            return false;
    }
    return true;
}

static bool spec_numbers(const char *word, struct script_spec *spec)
{
    long long sequence, end, size;
    int used = 0;

    if (sscanf(word, "%lld:%lld(%lld)%n", &sequence, &end, &size, &used) != 3 || used == 0 ||
        word[used] != '\0' || end - sequence != size)
        return false;
    spec->has_sequence = true;
    spec->sequence = sequence;
    spec->end = end;
    return true;
}

/* Words without an argument. */
static bool spec_bare(const char *word, struct script_spec *spec)
{
    static const char *const ecns[] = {"not-ect", "ect1", "ect0", "ce"};

    for (uint32_t i = 0; i < COUNT_OF(ecns); i++) {
        if (strcmp(word, ecns[i]) == 0) {
            spec->has_ecn = true;
            spec->ecn = (uint8_t)i;
            return true;
        }
    }
    spec->is_sum_bad = spec->is_sum_bad || strcmp(word, "badsum") == 0;
    spec->is_ip_sum_bad = spec->is_ip_sum_bad || strcmp(word, "badipsum") == 0;
    return strcmp(word, "badsum") == 0 || strcmp(word, "badipsum") == 0;
}

/* `frag N` and `frag N+`: offset in octets, and whether more follow. */
static bool spec_fragment(const char *word, struct script_spec *spec)
{
    unsigned offset;
    char more = '\0';

    if (sscanf(word, "%u%c", &offset, &more) < 1)
        return false;
    spec->has_fragment = true;
    spec->fragment = (uint16_t)(offset / 8 | (more == '+' ? 0x2000 : 0));
    return true;
}

static bool spec_argument(const char *word, const char *argument, struct script_spec *spec)
{
    int64_t number = 0;

    if (strcmp(word, "from") == 0)
        return spec->has_from = script_address(argument, &spec->from);
    if (strcmp(word, "to") == 0)
        return spec->has_to = script_address(argument, &spec->to);
    if (strcmp(word, "mac") == 0)
        return script_mac(argument, spec->source_mac);
    if (strcmp(word, "dmac") == 0)
        return script_mac(argument, spec->destination_mac);
    if (strcmp(word, "frag") == 0)
        return spec_fragment(argument, spec);
    if (strcmp(word, "ipopt") == 0)
        return script_hex(argument, spec->ip_options, sizeof(spec->ip_options),
                          &spec->ip_options_size) &&
               spec->ip_options_size % 4 == 0;
    if (strcmp(word, "fill") == 0) {
        spec->has_fill = true;
        spec->fill = (uint8_t)argument[0];
        return true;
    }
    if (!script_is_number(argument, &number))
        return false;
    if (strcmp(word, "urg") == 0) {
        spec->has_urgent = true;
        spec->urgent = (uint16_t)number;
    } else if (strcmp(word, "ttl") == 0) {
        spec->ttl = (uint8_t)number;
    } else if (strcmp(word, "cut") == 0) {
        spec->has_cut = true;
        spec->cut = (uint32_t)number;
    } else if (strcmp(word, "pad") == 0) {
        spec->pad = (uint32_t)number;
    } else if (strcmp(word, "times") == 0) {
        spec->times = (uint32_t)number;
    } else if (strcmp(word, "doff") == 0) {
        spec->has_offset = true;
        spec->offset = (uint8_t)number;
    } else if (strcmp(word, "len") == 0) {
        spec->has_length = true;
        spec->length = (uint16_t)number;
    } else {
        return false;
    }
    return true;
}

static bool spec_word(const struct script_peer *peer, const char **at, char *word, bool is_sent,
                      struct script_spec *spec)
{
    char argument[SCRIPT_LINE_MAX];

    if (word[0] == '<')
        return spec_options(peer, word, is_sent, spec);
    if (spec_numbers(word, spec) || spec_bare(word, spec))
        return true;
    if (strcmp(word, "ack") == 0)
        return spec->has_acknowledgement = script_number(at, &spec->acknowledgement);
    if (strcmp(word, "win") == 0)
        return spec->has_window = script_range(at, &spec->window_from, &spec->window_to);
    return script_word(at, argument) && spec_argument(word, argument, spec);
}

bool script_spec_parse(struct script *script, struct script_peer *peer, const char *text,
                       bool is_sent, struct script_spec *ret_spec)
{
    char word[SCRIPT_LINE_MAX];
    const char *at = text;

    *ret_spec = (struct script_spec){.ttl = 64, .times = 1};
    memcpy(ret_spec->source_mac, world_peer_mac, 6);
    memcpy(ret_spec->destination_mac, world_stack_mac, 6);
    if (!script_word(&at, word) || !script_parse_flags(word, &ret_spec->flags))
        return script_fail(script, "flags are letters of SFRPUEW. (or -): %s", text);
    while (script_word(&at, word)) {
        char shown[SCRIPT_LINE_MAX];
        memcpy(shown, word, sizeof(shown));
        if (!spec_word(peer, &at, word, is_sent, ret_spec))
            return script_fail(script, "what is `%s`?", shown);
    }
    return true;
}

/* ---- comparing ---- */

static const char *options_mismatch(const struct script_peer *peer, const struct script_spec *spec,
                                    const struct test_options *got)
{
    const struct test_options *want = &spec->options;

    (void)peer;
    if (want->has_mss != got->has_mss || want->mss != got->mss)
        return "another mss option";
    if (want->has_scale != got->has_scale || want->scale != got->scale)
        return "another window scale option";
    if (want->has_sack_permitted != got->has_sack_permitted)
        return "sackOK or not";
    if (want->sack_count != got->sack_count ||
        memcmp(want->sack, got->sack, sizeof(got->sack[0]) * got->sack_count) != 0)
        return "other SACK blocks";
    if (spec->raw_options_size == 0 && !want->has_timestamps)
        return NULL;
    if (!got->has_timestamps)
        return "no timestamps";
    if (!spec->is_timestamp_value_any && want->timestamp_value != got->timestamp_value)
        return "another timestamp";
    if (!spec->is_timestamp_echo_any && want->timestamp_echo != got->timestamp_echo)
        return "another timestamp echoed";
    return NULL;
}

static const char *payload_mismatch(const struct script_peer *peer,
                                    const struct test_segment *segment)
{
    static char text[100];
    uint32_t relative = segment->sequence - peer->iss;

    for (uint32_t i = 0; i < segment->payload_size; i++) {
        uint64_t position = (uint64_t)relative + i - 1;
        if (segment->payload[i] == test_stream_octet(1, position))
            continue;
        snprintf(text, sizeof(text), "octet %llu of the stream is another",
                 (unsigned long long)position);
        return text;
    }
    return NULL;
}

const char *script_spec_mismatch(const struct script_peer *peer, const struct script_spec *spec,
                                 const struct test_segment *segment)
{
    /* PSH is the stack's own business (RFC 9293 3.9.1.2). */
    uint8_t all = (uint8_t)~SEGMENT_PSH;

    if ((spec->flags & all) != (segment->flags & all))
        return "other flags";
    if (spec->has_sequence) {
        if (peer->iss + (uint32_t)spec->sequence != segment->sequence)
            return "another sequence number";
        if (spec->end - spec->sequence != segment->payload_size)
            return "another length";
    } else if (segment->payload_size > 0) {
        return "data";
    }
    if (spec->has_acknowledgement &&
        peer->isn + (uint32_t)spec->acknowledgement != segment->acknowledgement)
        return "another acknowledgement number";
    if (spec->has_window &&
        (segment->window < spec->window_from || segment->window > spec->window_to))
        return "another window";
    if (spec->has_ecn && spec->ecn != (segment->tos & 3))
        return "other ECN bits";
    if (spec->has_options) {
        const char *wrong = options_mismatch(peer, spec, &segment->options);
        if (wrong != NULL)
            return wrong;
    }
    return payload_mismatch(peer, segment);
}

/* ---- damage ---- */

static void put16(uint8_t *octets, uint32_t value)
{
    octets[0] = (uint8_t)(value >> 8);
    octets[1] = (uint8_t)value;
}

static uint32_t insert_ip_options(const struct script_spec *spec, uint8_t *frame, uint32_t size)
{
    uint8_t *ip = frame + TEST_L2_SIZE;
    uint32_t more = spec->ip_options_size;

    if (more == 0 || ip[0] >> 4 != 4)
        return size;
    memmove(ip + 20 + more, ip + 20, size - TEST_L2_SIZE - 20);
    memcpy(ip + 20, spec->ip_options, more);
    ip[0] = (uint8_t)(0x45 + more / 4);
    put16(ip + 2, (uint32_t)(ip[2] << 8 | ip[3]) + more);
    return size + more;
}

uint32_t script_spec_mutate(const struct script_spec *spec, uint8_t *frame, uint32_t size)
{
    uint8_t *ip = frame + TEST_L2_SIZE;
    struct link_frame map;

    size = insert_ip_options(spec, frame, size);
    if (!link_frame_parse(span_of(frame, size), false, &map))
        return size;
    if (spec->has_offset)
        frame[map.l4 + 12] = (uint8_t)((frame[map.l4 + 12] & 15) | spec->offset << 4);
    link_frame_complete(frame, &map, false, true);
    if (spec->is_sum_bad)
        frame[map.l4 + 17] ^= 1;
    if (spec->has_fragment && map.family == 4)
        put16(ip + 6, spec->fragment);
    if (spec->has_length)
        put16(ip + (map.family == 4 ? 2 : 4), spec->length);
    link_frame_complete(frame, &map, true, false);
    if (spec->is_ip_sum_bad && map.family == 4)
        ip[11] ^= 1;
    if (spec->has_cut && spec->cut < size)
        return spec->cut;
    memset(frame + size, 0xee, spec->pad);
    return size + spec->pad;
}
