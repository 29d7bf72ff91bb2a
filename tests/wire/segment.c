/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Building and reading TCP segments for tests.
 *
 * The reader is strict where a receiver must be lenient: it reads what our own engine sent, in
 * which nothing may be wrong (RFC 9293 3.1, RFC 791, RFC 8200, RFC 7323).
 */
#include "tests/wire/segment.h"

#include "dataplane/wire/port/link_sim_frame.h"

enum option_kind {
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_MSS = 2,
    OPTION_SCALE = 3,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIMESTAMPS = 8,
};

static uint32_t put(uint8_t *octets, uint32_t at, uint64_t value, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++)
        octets[at + i] = (uint8_t)(value >> 8 * (count - 1 - i));
    return at + count;
}

static uint32_t get(const uint8_t *octets, uint32_t count)
{
    uint32_t value = 0;

    for (uint32_t i = 0; i < count; i++)
        value = value << 8 | octets[i];
    return value;
}

/* ---- building ---- */

static uint32_t options_build(const struct test_options *options, uint8_t *octets)
{
    uint32_t at = 0;

    if (options->has_mss)
        at = put(octets, at, OPTION_MSS << 24 | 4 << 16 | options->mss, 4);
    if (options->has_sack_permitted)
        at = put(octets, at, OPTION_SACK_PERMITTED << 8 | 2, 2);
    if (options->has_timestamps) {
        at = put(octets, at, OPTION_TIMESTAMPS << 8 | 10, 2);
        at = put(octets, at, options->timestamp_value, 4);
        at = put(octets, at, options->timestamp_echo, 4);
    }
    if (options->has_scale)
        at = put(octets, at, OPTION_SCALE << 16 | 3 << 8 | options->scale, 3);
    if (options->sack_count > 0)
        at = put(octets, at, OPTION_SACK << 8 | (2 + 8 * options->sack_count), 2);
    for (uint32_t i = 0; i < options->sack_count; i++) {
        CHECK(at + 8 <= TEST_OPTIONS_MAX);
        at = put(octets, at, options->sack[i][0], 4);
        at = put(octets, at, options->sack[i][1], 4);
    }
    while (at % 4 != 0)
        at = put(octets, at, OPTION_NOP, 1);
    return at;
}

static uint32_t ip_build(const struct test_segment *segment, uint32_t payload, uint8_t *ip)
{
    uint32_t at = 0;

    if (segment->family == 4) {
        at = put(ip, at, 0x4500u | segment->tos, 2);
        at = put(ip, at, 20 + payload, 2);
        at = put(ip, at, 0x00014000u, 4); /* identification 1, DF */
        at = put(ip, at, (uint32_t)segment->ttl << 24 | 6u << 16, 4);
        memcpy(ip + at, segment->source, 4);
        memcpy(ip + at + 4, segment->destination, 4);
        return at + 8;
    }
    at = put(ip, at, 0x60000000u | (uint32_t)segment->tos << 20, 4);
    at = put(ip, at, payload << 16 | 6u << 8 | segment->ttl, 4);
    memcpy(ip + at, segment->source, 16);
    memcpy(ip + at + 16, segment->destination, 16);
    return at + 32;
}

uint32_t test_segment_build(const struct test_segment *segment, uint8_t ret_frame[TEST_FRAME_MAX])
{
    uint8_t options[TEST_OPTIONS_MAX + 4];
    uint32_t options_size = options_build(&segment->options, options), at = TEST_L2_SIZE;
    struct link_frame map;

    if (segment->raw_options_size > 0) {
        options_size = segment->raw_options_size;
        memcpy(options, segment->raw_options, options_size);
        while (options_size % 4 != 0)
            options[options_size++] = OPTION_END;
    }
    CHECK(options_size <= TEST_OPTIONS_MAX);
    CHECK(segment->payload_size + 200 <= TEST_FRAME_MAX);
    memcpy(ret_frame, segment->destination_mac, 6);
    memcpy(ret_frame + 6, segment->source_mac, 6);
    put(ret_frame, 12, segment->family == 4 ? 0x0800 : 0x86dd, 2);
    at += ip_build(segment, 20 + options_size + segment->payload_size, ret_frame + at);
    at = put(ret_frame, at, segment->source_port, 2);
    at = put(ret_frame, at, segment->destination_port, 2);
    at = put(ret_frame, at, segment->sequence, 4);
    at = put(ret_frame, at, segment->acknowledgement, 4);
    at = put(ret_frame, at, (20 + options_size) / 4 << 12 | segment->flags, 2);
    at = put(ret_frame, at, segment->window, 2);
    at = put(ret_frame, at, segment->urgent, 4); /* checksum, urgent */
    memcpy(ret_frame + at, options, options_size);
    at += options_size;
    if (segment->payload_size > 0)
        memcpy(ret_frame + at, segment->payload, segment->payload_size);
    at += segment->payload_size;
    CHECK(link_frame_parse(span_of(ret_frame, at), false, &map));
    link_frame_complete(ret_frame, &map, true, true);
    return at;
}

/* ---- reading ---- */

static const char *option_read(const uint8_t *option, uint32_t size, struct test_options *options)
{
    switch (option[0]) {
    case OPTION_MSS:
        options->has_mss = true;
        options->mss = (uint16_t)get(option + 2, 2);
        return size == 4 ? NULL : "MSS option of a wrong size";
    case OPTION_SCALE:
        options->has_scale = true;
        options->scale = option[2];
        return size == 3 && option[2] <= 14 ? NULL : "bad window scale option";
    case OPTION_SACK_PERMITTED:
        options->has_sack_permitted = true;
        return size == 2 ? NULL : "SACK-permitted of a wrong size";
    case OPTION_SACK:
        if (size < 10 || (size - 2) % 8 != 0 || size > 34)
            return "SACK option of a wrong size";
        options->sack_count = (size - 2) / 8;
        for (uint32_t i = 0; i < options->sack_count; i++) {
            options->sack[i][0] = get(option + 2 + 8 * i, 4);
            options->sack[i][1] = get(option + 6 + 8 * i, 4);
        }
        return NULL;
    case OPTION_TIMESTAMPS:
        options->has_timestamps = true;
        options->timestamp_value = get(option + 2, 4);
        options->timestamp_echo = get(option + 6, 4);
        return size == 10 ? NULL : "timestamps of a wrong size";
    default:
        return "an option that nobody defined";
    }
}

static const char *options_read(const uint8_t *octets, uint32_t size, struct test_options *options)
{
    for (uint32_t at = 0; at < size;) {
        if (octets[at] == OPTION_END)
            return NULL;
        if (octets[at] == OPTION_NOP) {
            at++;
            continue;
        }
        if (size - at < 2 || octets[at + 1] < 2 || octets[at + 1] > size - at)
            return "an option beyond the header";
        const char *wrong = option_read(octets + at, octets[at + 1], options);
        if (wrong != NULL)
            return wrong;
        at += octets[at + 1];
    }
    return NULL;
}

static const char *ip_read(const uint8_t *ip, const struct link_frame *map,
                           struct test_segment *out)
{
    out->family = map->family;
    if (map->family == 4) {
        out->tos = ip[1];
        out->ttl = ip[8];
        memcpy(out->source, ip + 12, 4);
        memcpy(out->destination, ip + 16, 4);
        if (map->l4 - map->l3 != 20)
            return "IPv4 options";
        return ip[6] & 0x40 ? NULL : "no DF";
    }
    out->tos = (uint8_t)(get(ip, 4) >> 20);
    out->ttl = ip[7];
    memcpy(out->source, ip + 8, 16);
    memcpy(out->destination, ip + 24, 16);
    return map->l4 - map->l3 == 40 ? NULL : "IPv6 extension headers";
}

const char *test_segment_parse(struct span frame, struct test_segment *ret_segment)
{
    struct link_frame map;

    *ret_segment = (struct test_segment){0};
    if (!link_frame_parse(frame, false, &map) || map.protocol != 6)
        return "not TCP";
    memcpy(ret_segment->destination_mac, frame.data, 6);
    memcpy(ret_segment->source_mac, frame.data + 6, 6);
    const char *wrong = ip_read(frame.data + map.l3, &map, ret_segment);
    if (wrong != NULL)
        return wrong;
    if (!map.has_l4 || map.end - map.l4 < 20)
        return "no whole TCP header";
    if (map.family == 4 && !link_frame_ip4_is_good(frame.data, &map))
        return "wrong IPv4 checksum";
    if (!link_frame_l4_is_good(frame.data, &map))
        return "wrong TCP checksum";
    const uint8_t *tcp = frame.data + map.l4;
    uint32_t header_size = (tcp[12] >> 4) * 4u;
    if (header_size < 20 || header_size > map.end - map.l4)
        return "data offset beyond the packet";
    if (tcp[12] & 0x0f)
        return "reserved bits";
    ret_segment->source_port = (uint16_t)get(tcp, 2);
    ret_segment->destination_port = (uint16_t)get(tcp + 2, 2);
    ret_segment->sequence = get(tcp + 4, 4);
    ret_segment->acknowledgement = get(tcp + 8, 4);
    ret_segment->flags = tcp[13];
    ret_segment->window = (uint16_t)get(tcp + 14, 2);
    ret_segment->urgent = (uint16_t)get(tcp + 18, 2);
    ret_segment->payload = tcp + header_size;
    ret_segment->payload_size = map.end - map.l4 - header_size;
    if (!(tcp[13] & SEGMENT_ACK) && ret_segment->acknowledgement != 0)
        return "an acknowledgement number without ACK";
    return options_read(tcp + 20, header_size - 20, &ret_segment->options);
}
