/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_WIRE_PORT_CAPTURE_FILTER_H
#define DATAPLANE_WIRE_PORT_CAPTURE_FILTER_H

#include "base/span.h"

#define CAPTURE_ERROR_SIZE 256u
#define CAPTURE_SNAP_MAX   65535u

/* A filter in the language that operators know from tcpdump, pcap-filter(7), compiled. */
struct capture_filter;

/**
 * Compile `text`; empty matches everything. `is_l3`: frames begin with the IP header.
 *
 * Threading:  any, but not in a shard: host names in the text are resolved, and that takes as long
 *             as it takes. Addresses do not.
 * Errors:     ERR_CONFIG_SYNTAX, and `ret_error` says what and where.
 */
enum err capture_filter_new(const char *text, bool is_l3, struct capture_filter **ret_filter,
                            char ret_error[CAPTURE_ERROR_SIZE]) MUST_CHECK;
void capture_filter_free(struct capture_filter *filter);

/** Whether a frame of `size` octets, of which `octets` are to be seen, is wanted. Threading: any
 * number at a time. Cost: no allocation, no system call; a program of some ten steps. */
bool capture_filter_matches(const struct capture_filter *filter, struct span octets, uint32_t size);

#endif
