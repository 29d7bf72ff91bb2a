/* SPDX-License-Identifier: Apache-2.0 */
/*
 * TCP options: maximum segment size (RFC 9293 3.7.1), window scale and timestamps (RFC 7323), SACK
 * permitted and SACK (RFC 2018). All others are skipped by their size (MUST-6).
 *
 * Parsing never fails. An option that runs out of the header, is shorter than its own two octets,
 * or is a known one with another size than its own, ends the list: what was read before it counts,
 * nothing behind it does (MUST-7). Every step advances by at least one of at most 40 octets. Of two
 * options of a kind the last one counts.
 *
 * Options that belong to SYN segments count only there (RFC 7323 2.2, RFC 2018 2).
 *
 * Building writes every option so that the numbers in it are aligned to 4 octets as far as they
 * can be, with NOPs in front:
 *   MSS 4; SACK permitted 2 or NOP NOP, TIMESTAMPS 10; NOP, window scale 3; NOP NOP, SACK 2 + 8 n
 */
#include "dataplane/wire/format/tcp_options.h"

enum tcp_option {
    OPTION_END = 0,
    OPTION_NOP = 1,
    OPTION_MSS = 2,
    OPTION_WINDOW_SCALE = 3,
    OPTION_SACK_PERMITTED = 4,
    OPTION_SACK = 5,
    OPTION_TIMESTAMPS = 8,
};

#define MSS_SIZE            4u
#define WINDOW_SCALE_SIZE   3u
#define SACK_PERMITTED_SIZE 2u
#define SACK_SIZE(count)    (2u + 8u * (count))
#define TIMESTAMPS_SIZE     10u

static bool sack_parse(const uint8_t *data, uint32_t size, struct tcp_options *options)
{
    uint32_t count = (size - 2) / 8;

    if (count == 0 || count > TCP_SACK_BLOCKS_MAX || size != SACK_SIZE(count))
        return false;
    for (uint32_t i = 0; i < count; i++) {
        options->sack[i].start = load_be32(data + 2 + 8 * i);
        options->sack[i].end = load_be32(data + 6 + 8 * i);
    }
    options->sack_count = (uint8_t)count;
    return true;
}

/* One option of `size` octets, all there. False: its size is not that of its kind. */
static bool option_parse(const uint8_t *data, uint32_t size, bool is_syn,
                         struct tcp_options *options)
{
    switch ((enum tcp_option)data[0]) {
    case OPTION_MSS:
        if (size != MSS_SIZE)
            return false;
        options->has_mss = is_syn;
        options->mss = load_be16(data + 2);
        return true;
    case OPTION_WINDOW_SCALE:
        if (size != WINDOW_SCALE_SIZE)
            return false;
        options->has_window_scale = is_syn;
        options->window_scale = data[2];
        return true;
    case OPTION_SACK_PERMITTED:
        if (size != SACK_PERMITTED_SIZE)
            return false;
        options->has_sack_permitted = is_syn;
        return true;
    case OPTION_SACK:
        return sack_parse(data, size, options);
    case OPTION_TIMESTAMPS:
        if (size != TIMESTAMPS_SIZE)
            return false;
        options->has_timestamps = true;
        options->timestamp_value = load_be32(data + 2);
        options->timestamp_echo = load_be32(data + 6);
        return true;
    case OPTION_END:
    case OPTION_NOP:
        break;
    }
    return true;
}

void tcp_options_parse(struct span octets, bool is_syn, struct tcp_options *ret_options)
{
    uint32_t at = 0;

    while (at < octets.size) {
        const uint8_t *data = octets.data + at;
        if (data[0] == OPTION_NOP) {
            at++;
            continue;
        }
        if (data[0] == OPTION_END || octets.size - at < 2)
            return;
        uint32_t size = data[1];
        if (size < 2 || size > octets.size - at || !option_parse(data, size, is_syn, ret_options))
            return;
        at += size;
    }
}

static uint32_t sack_build(const struct tcp_options *options, uint32_t at, uint8_t *ret_octets)
{
    uint32_t count = options->sack_count;

    CHECK(count <= TCP_SACK_BLOCKS_MAX);
    while (count > 0 && at + 2 + SACK_SIZE(count) > TCP_OPTIONS_SIZE_MAX)
        count--;
    if (count == 0)
        return at;
    store_be32(ret_octets + at,
               OPTION_NOP << 24 | OPTION_NOP << 16 | OPTION_SACK << 8 | SACK_SIZE(count));
    at += 4;
    for (uint32_t i = 0; i < count; i++, at += 8) {
        store_be32(ret_octets + at, options->sack[i].start);
        store_be32(ret_octets + at + 4, options->sack[i].end);
    }
    return at;
}

uint32_t tcp_options_build(const struct tcp_options *options,
                           uint8_t ret_octets[TCP_OPTIONS_SIZE_MAX])
{
    uint32_t at = 0;

    if (options->has_mss) {
        store_be32(ret_octets, OPTION_MSS << 24 | MSS_SIZE << 16 | options->mss);
        at += 4;
    }
    if (options->has_sack_permitted || options->has_timestamps) {
        uint16_t first = options->has_sack_permitted
                             ? OPTION_SACK_PERMITTED << 8 | SACK_PERMITTED_SIZE
                             : OPTION_NOP << 8 | OPTION_NOP;
        uint16_t second = options->has_timestamps ? OPTION_TIMESTAMPS << 8 | TIMESTAMPS_SIZE
                                                  : OPTION_NOP << 8 | OPTION_NOP;
        store_be16(ret_octets + at, first);
        store_be16(ret_octets + at + 2, second);
        at += 4;
    }
    if (options->has_timestamps) {
        store_be32(ret_octets + at, options->timestamp_value);
        store_be32(ret_octets + at + 4, options->timestamp_echo);
        at += 8;
    }
    if (options->has_window_scale) {
        store_be32(ret_octets + at, OPTION_NOP << 24 | OPTION_WINDOW_SCALE << 16 |
                                        WINDOW_SCALE_SIZE << 8 | options->window_scale);
        at += 4;
    }
    return sack_build(options, at, ret_octets);
}
