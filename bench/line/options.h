/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LINE_OPTIONS_H
#define BENCH_LINE_OPTIONS_H

#include "bench/load/cli.h"

#define LINE_SITES_MAX 1000u
/* A source has one address, and clients may have three quarters of the flows. */
#define LINE_IDLE_MAX 48000u

/* The command line of angarium-line. */
struct line_options {
    const char *rate;    /* NULL: none */
    uint32_t sites;      /* that mail waits for */
    uint32_t idle;       /* connections that are only there, of each source */
    uint32_t frames_max; /* that a shard receives in a turn; 0: as many as wait */
    tick_us distance;    /* round trip to the sink, over one connection; 0: none, and a hundred */
    bool is_bdat_ahead, is_watched;
    uint32_t shard_count;
};

/** False: the words are wrong; told on stderr. `ret_cli`: the load's own options, to be let go of
 * by the process's end. */
bool line_options_read(int count, char **words, uint32_t shards_max,
                       struct line_options *ret_options, struct cli *ret_cli);

#endif
