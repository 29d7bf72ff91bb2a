/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_WAY_H
#define QUEUE_WAY_H

/* Which way a message went, and why (docs/cut-through.md). */
enum way {
    WAY_UNKNOWN, /* mail of an earlier run, and our own */
#define X(symbol, name, meaning) WAY_##symbol,
#include "queue/way.def"
#undef X
    WAY_COUNT
};

/** "ready"; "" for WAY_UNKNOWN. */
static inline const char *way_name(enum way way)
{
    static const char *const names[WAY_COUNT] = {
        "",
#define X(symbol, name, meaning) #name,
#include "queue/way.def"
#undef X
    };
    return way < WAY_COUNT ? names[way] : "";
}

#endif
