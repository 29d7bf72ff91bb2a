/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_ASSEMBLY_LISTEN_H
#define CONTROL_ASSEMBLY_LISTEN_H

#include "control/config.h"

/* The addresses that the shards listen on: part of the assembly. Control thread. */
#define ASSEMBLY_WHY_SIZE 512u

/* What the relay that runs has, whose place this one takes (control/upgrade.h). */
struct assembly_place {
    const int *listeners; /* sockets; borrowed */
    uint32_t listener_count;
};

/**
 * Every address of `next` can be listened on, if neither `running` (may be NULL) does so already
 * nor `place` (may be NULL) has a socket of it.
 *
 * Errors: ERR_SYSTEM with text in ret_why.
 */
enum err assembly_listeners_probe(const struct config *next, const struct config *running,
                                  const struct assembly_place *place,
                                  char ret_why[ASSEMBLY_WHY_SIZE]) MUST_CHECK;
/**
 * The plane of this shard has its part of the place's sockets (NULL: there is none).
 *
 * Ownership: duplicates go to the plane, the place's stay the caller's.
 * Errors:    ERR_SYSTEM with text in ret_why; the plane has what it got so far.
 */
enum err assembly_place_give(const struct assembly_place *place, const struct config *config,
                             uint32_t shard, struct flow_plane *plane,
                             char ret_why[ASSEMBLY_WHY_SIZE]) MUST_CHECK;

#endif
