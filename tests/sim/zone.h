/* SPDX-License-Identifier: Apache-2.0 */
#ifndef TESTS_SIM_ZONE_H
#define TESTS_SIM_ZONE_H

#include "dataplane/flow.h"
#include "tests/sim/net_sim.h"

/*
 * A recursive resolver for the simulated world: rows of answers, over UDP and TCP, on a plane of
 * its own. Rows of type CNAME are followed, as a recursive resolver does.
 */
enum zone_result {
    ZONE_DATA,
    ZONE_NXDOMAIN,
    ZONE_SERVFAIL,
    ZONE_TIMEOUT,
    ZONE_NODATA,
    ZONE_TRUNCATED
};

struct zone;

struct zone *zone_new(struct net_sim *net, const struct flow_address *address);
void zone_free(struct zone *zone);
/** Add a row. `type`: A, AAAA, MX, CNAME; `data` as in a zone file, or the name of a zone_result.
 * False when either is neither. */
bool zone_add(struct zone *zone, const char *name, const char *type, const char *data,
              uint32_t ttl);
void zone_clear(struct zone *zone, const char *name);
/** Chances per million that a query is not answered, or with SERVFAIL. */
void zone_set_faults(struct zone *zone, uint32_t silence, uint32_t servfail, struct rng *rng);
/** Answer what came. */
void zone_turn(struct zone *zone);

#endif
