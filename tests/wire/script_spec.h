/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_WIRE_SCRIPT_SPEC_H
#define TESTS_WIRE_SCRIPT_SPEC_H

#include "tests/wire/script.h"

/* A segment as a script describes it: to be sent, or to be expected. */
struct script_spec {
    uint8_t flags;
    bool has_sequence, has_acknowledgement, has_window, has_options, has_urgent;
    int64_t sequence, end, acknowledgement, window_from, window_to;
    uint16_t urgent;
    struct test_options options; /* SACK blocks are absolute */
    bool is_timestamp_value_any, is_timestamp_echo_any, is_timestamp_echo_auto;
    uint8_t raw_options[TEST_OPTIONS_MAX];
    uint32_t raw_options_size;
    /* below and around TCP */
    bool has_ecn, has_fill, has_from, has_to, has_fragment, has_cut, has_offset, has_length;
    bool is_sum_bad, is_ip_sum_bad;
    uint8_t ecn, ttl, fill, offset;
    struct flow_address from, to;
    uint16_t fragment, length;
    uint32_t cut, pad, times;
    uint8_t ip_options[40];
    uint32_t ip_options_size;
    uint8_t source_mac[6], destination_mac[6];
};

/** `is_sent`: by the stack, so an expectation. */
bool script_spec_parse(struct script *script, struct script_peer *peer, const char *text,
                       bool is_sent, struct script_spec *ret_spec);
/** What is wrong with the segment, or NULL; the text lives until the next call. */
const char *script_spec_mismatch(const struct script_peer *peer, const struct script_spec *spec,
                                 const struct test_segment *segment);
/** Damage as described, checksums made right again unless they are to be wrong. Returns the
 * frame's new size. */
uint32_t script_spec_mutate(const struct script_spec *spec, uint8_t *frame, uint32_t size);

#endif
