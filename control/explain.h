/* SPDX-License-Identifier: Apache-2.0 */
#ifndef CONTROL_EXPLAIN_H
#define CONTROL_EXPLAIN_H

#include "base/tick.h"
#include "queue/rate.h"

/*
 * Which of all limits binds the mail of one site, seen from one source: a pure function of what the
 * shards have told.
 */
enum explain_kind { /* of two that bind alike the first is named */
                    EXPLAIN_SOURCE_SUSPENDED,
                    EXPLAIN_SOURCE_RESTS,
                    EXPLAIN_SOURCE_COLD, /* its warm-up has not begun */
                    EXPLAIN_SITE_SUSPENDED,
                    EXPLAIN_SITE_PAUSED,
                    EXPLAIN_RATE,
                    EXPLAIN_CONFIGURED, /* connections: as configured ... */
                    EXPLAIN_ORDERED,    /* ... by an order or pattern ... */
                    EXPLAIN_LEARNED,    /* ... as the site's answers taught */
                    EXPLAIN_OUTBOUND,   /* outbound connections of a core */
                    EXPLAIN_MEMORY,     /* for bodies that are read back */
                    EXPLAIN_KIND_COUNT
};

#define EXPLAIN_NOT_SET UINT32_MAX
struct explain_rate {
    struct rate rate;
    uint32_t used;
    tick_us left; /* until the next right; 0: there is one, or one comes back as mail ends */
};
/* Times are what is left of them; 0: it is not so. */
struct explain_facts {
    tick_us source_suspended, source_rests, source_cold;
    tick_us suspended, paused;
    uint32_t connections, idle;            /* idle: of these, kept and free for the next mail */
    uint32_t configured, ordered, learned; /* EXPLAIN_NOT_SET: not in force */
    uint32_t mail_out;                     /* rights to say MAIL that are out, and not at hand */
    uint32_t rate_count;
    struct explain_rate rates[RATE_MAX];
    bool is_crowded; /* a core with no connection left for this site */
    uint32_t outbound, outbound_max;
    uint32_t unread; /* deliveries that wait for memory */
    uint64_t memory, memory_max;
};

struct explain_limit {
    enum explain_kind kind;
    uint64_t used, max; /* both 0: a time alone */
    tick_us window;     /* of a rate */
    bool bars;          /* nothing more goes now because of it */
    bool binds;
    tick_us left; /* bars: until it moves by itself; 0: as soon as something of it is over */
};
#define EXPLAIN_LIMIT_MAX (EXPLAIN_KIND_COUNT - 1 + RATE_MAX)

/**
 * All limits in force, in the order of their kinds; how many. At most one binds: mail goes when all
 * let it, so of those that bar it is the one that lets go last. What has no time of its own lets go
 * as mail ends, which is sooner than any time; of limits on connections the smallest binds.
 */
uint32_t explain_limits(const struct explain_facts *facts,
                        struct explain_limit ret_limits[EXPLAIN_LIMIT_MAX]);
/** "site suspended" */
const char *explain_kind_name(enum explain_kind kind);

#endif
