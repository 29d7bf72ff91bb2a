/* SPDX-License-Identifier: Apache-2.0 */
#ifndef QUEUE_WAY_H
#define QUEUE_WAY_H

#include <stdbool.h>

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

/** Straight to the next hop, without the disk. */
static inline bool way_is_straight(enum way way)
{
    return way == WAY_READY || way == WAY_STREAM;
}

/** "stream" */
static inline const char *way_kind(enum way way)
{
    return way == WAY_READY ? "cut-through" : way == WAY_STREAM ? "stream" : "spool";
}

/** Why it went that way: "ready" for all that went straight. */
static inline const char *way_reason(enum way way)
{
    return way_name(way_is_straight(way) ? WAY_READY : way);
}

#endif
