/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libpcap, for one thing: its language. The compiler makes a program for the BPF machine, a loop-
 * free one that only loads, compares and jumps forward, and so ends; an interpreter runs it over a
 * frame. A load beyond what is to be seen of the frame ends the program: no match.
 */
#include "dataplane/wire/port/capture_filter.h"

#include <pcap/pcap.h>
#include <stdio.h>
#include <stdlib.h>

struct capture_filter {
    struct bpf_program program; /* bf_len 0: everything matches */
};

enum err capture_filter_new(const char *text, bool is_l3, struct capture_filter **ret_filter,
                            char ret_error[CAPTURE_ERROR_SIZE])
{
    struct capture_filter *filter = calloc(1, sizeof(*filter));
    enum err err = ERR_OK;

    CHECK(filter != NULL);
    ret_error[0] = '\0';
    if (text[strspn(text, " \t")] != '\0') {
        pcap_t *nothing = pcap_open_dead(is_l3 ? DLT_RAW : DLT_EN10MB, CAPTURE_SNAP_MAX);

        CHECK(nothing != NULL);
        if (pcap_compile(nothing, &filter->program, text, 1, PCAP_NETMASK_UNKNOWN) != 0) {
            snprintf(ret_error, CAPTURE_ERROR_SIZE, "%s", pcap_geterr(nothing));
            err = ERR_CONFIG_SYNTAX;
        }
        pcap_close(nothing);
    }
    if (err != ERR_OK) {
        free(filter);
        return err;
    }
    *ret_filter = filter;
    return ERR_OK;
}

void capture_filter_free(struct capture_filter *filter)
{
    if (filter == NULL)
        return;
    pcap_freecode(&filter->program);
    free(filter);
}

bool capture_filter_matches(const struct capture_filter *filter, struct span octets, uint32_t size)
{
    return filter->program.bf_len == 0 ||
           bpf_filter(filter->program.bf_insns, octets.data, size, octets.size) != 0;
}
