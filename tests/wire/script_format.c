/* SPDX-License-Identifier: Apache-2.0 */
/* A segment as people read it, in the language of the scripts: relative numbers, flags as letters
 * with a dot for ACK. */
#include <stdio.h>

#include "tests/wire/script.h"

static const struct {
    char letter;
    uint8_t flag;
} letters[] = {{'S', SEGMENT_SYN}, {'F', SEGMENT_FIN}, {'R', SEGMENT_RST}, {'P', SEGMENT_PSH},
               {'U', SEGMENT_URG}, {'E', SEGMENT_ECE}, {'W', SEGMENT_CWR}, {'.', SEGMENT_ACK}};

bool script_parse_flags(const char *word, uint8_t *ret_flags)
{
    uint8_t flags = 0;

    for (const char *at = word; *at != '\0'; at++) {
        uint32_t i = 0;
        if (strcmp(word, "-") == 0)
            break;
        while (i < COUNT_OF(letters) && letters[i].letter != *at)
            i++;
        if (i == COUNT_OF(letters))
            return false;
        flags |= letters[i].flag;
    }
    *ret_flags = flags;
    return true;
}

static void format_options(const struct script_peer *peer, const struct test_segment *segment,
                           bool is_sent, struct script_text *text)
{
    const struct test_options *options = &segment->options;
    uint32_t sack_base = is_sent ? peer->isn : peer->iss;
    const char *comma = "";

    script_text_add(text, " <");
    if (options->has_mss) {
        script_text_add(text, "mss %u", options->mss);
        comma = ", ";
    }
    if (options->has_sack_permitted) {
        script_text_add(text, "%ssackOK", comma);
        comma = ", ";
    }
    if (options->has_timestamps) {
        script_text_add(text, "%sts =%d %u", comma,
                        (int32_t)(options->timestamp_value - peer->timestamp_base),
                        options->timestamp_echo);
        comma = ", ";
    }
    if (options->has_scale) {
        script_text_add(text, "%swscale %u", comma, options->scale);
        comma = ", ";
    }
    if (options->sack_count > 0)
        script_text_add(text, "%ssack", comma);
    for (uint32_t i = 0; i < options->sack_count; i++)
        script_text_add(text, " %d:%d", (int32_t)(options->sack[i][0] - sack_base),
                        (int32_t)(options->sack[i][1] - sack_base));
    script_text_add(text, ">");
}

void script_format_segment(const struct script_peer *peer, const struct test_segment *segment,
                           bool is_sent, struct script_text *ret_text)
{
    uint32_t sequence_base = is_sent ? peer->iss : peer->isn;
    uint32_t ack_base = is_sent ? peer->isn : peer->iss;
    int32_t sequence = (int32_t)(segment->sequence - sequence_base);
    char flags[COUNT_OF(letters) + 1] = "-";

    for (uint32_t i = 0, count = 0; i < COUNT_OF(letters); i++) {
        if (segment->flags & letters[i].flag)
            flags[count++] = letters[i].letter;
    }
    script_text_add(ret_text, "%s %s %s %d:%d(%u)", peer->name, is_sent ? ">" : "<", flags,
                    sequence, sequence + (int32_t)segment->payload_size, segment->payload_size);
    if (segment->flags & SEGMENT_ACK)
        script_text_add(ret_text, " ack %d", (int32_t)(segment->acknowledgement - ack_base));
    script_text_add(ret_text, " win %u", segment->window);
    if (segment->flags & SEGMENT_URG)
        script_text_add(ret_text, " urg %u", segment->urgent);
    if (segment->tos & 3)
        script_text_add(ret_text, " %s",
                        (segment->tos & 3) == 3   ? "ce"
                        : (segment->tos & 3) == 2 ? "ect0"
                                                  : "ect1");
    format_options(peer, segment, is_sent, ret_text);
}
