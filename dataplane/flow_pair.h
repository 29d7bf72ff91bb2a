/* SPDX-License-Identifier: Apache-2.0 */
#ifndef DATAPLANE_FLOW_PAIR_H
#define DATAPLANE_FLOW_PAIR_H

#include "dataplane/flow.h"

/*
 * Two planes as one: kernel sockets for what is local, the wire engine for the rest. Which one
 * serves a flow follows from its address alone: Unix sockets, loopback and the given prefixes go to
 * `host`; everything else, listeners on any-addresses included, to `wire`.
 */
enum flow_pair_poll {
    FLOW_PAIR_ADAPTIVE, /* sleep when nothing happens, longer and longer, at most two milliseconds
                         */
    FLOW_PAIR_BUSY,     /* never sleep */
};

struct flow_pair_options {
    struct flow_plane *host, *wire; /* taken over: freed with the pair. One pool for both */
    const struct flow_prefix *kernel;
    uint32_t kernel_count; /* copied */
    enum flow_pair_poll poll;
    /* How many frames the wire has received so far: a turn without is an idle one. */
    uint64_t (*received)(struct flow_plane *wire);
    void (*turn)(void *context); /* at the beginning of every poll; may be NULL */
    void *context;
};

/** Is an address the host's, by the rule above? */
bool flow_pair_is_host(const struct flow_prefix *kernel, uint32_t kernel_count,
                       const struct flow_address *address);
/** Heap; start-up. */
struct flow_plane *flow_pair_new(const struct flow_pair_options *options);
/** The wire of a pair, still its own; NULL when the plane is no pair. */
struct flow_plane *flow_pair_wire(struct flow_plane *pair);
/** As in the options. CHECKs that it is a pair. */
void *flow_pair_context(struct flow_plane *pair);

#endif
