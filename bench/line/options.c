/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line of angarium-line, and from it the one of the load that it runs.
 *
 *   angarium-line [-R RATE] [-q SITES] [-i IDLE] [-f FRAMES] [-w] [-D ROUND_TRIP_MS [-b]] SHARDS
 *                 MESSAGES SIZE [SESSIONS [MESSAGES_PER_CONNECTION]]
 */
#include "bench/line/options.h"

#include <getopt.h>
#include <stdlib.h>

/* The load's own options, as its command line has them. */
static void load_options(const struct line_options *line, char **words, int count,
                         struct cli *ret_cli)
{
    char sessions[16], messages[16], idle[16], per_connection[16] = "1000000";
    char *load[] = {"load",   "both",   "-s", sessions,       "-m", messages,
                    "-l",     words[2], "-c", per_connection, "-d", "sink.test",
                    "--idle", idle,     NULL, NULL,           NULL};
    unsigned long total = strtoul(words[1], NULL, 10);
    unsigned long of_sessions = count > 3 ? strtoul(words[3], NULL, 10) : 100;
    int load_count = COUNT_OF(load) - 3;

    (void)snprintf(sessions, sizeof(sessions), "%lu", of_sessions / line->shard_count);
    (void)snprintf(messages, sizeof(messages), "%lu", total / line->shard_count);
    (void)snprintf(idle, sizeof(idle), "%u", line->idle);
    if (count > 4)
        (void)snprintf(per_connection, sizeof(per_connection), "%s", words[4]);
    if (line->rate != NULL) {
        load[load_count++] = "-R";
        load[load_count++] = (char *)(uintptr_t)line->rate;
    }
    if (line->is_bdat_ahead)
        load[load_count++] = "--chunking";
    (void)cli_parse(ret_cli, load_count, load);
}

static uint32_t number_of(const char *word)
{
    return (uint32_t)strtoul(word, NULL, 10);
}

/* The number of the first word that is no option; 0: they are wrong. */
static int own_options(struct line_options *line, int count, char **words)
{
    int letter;

    while ((letter = getopt(count, words, "+R:q:i:f:wD:b")) != -1) {
        if (letter == 'R')
            line->rate = optarg;
        else if (letter == 'q')
            line->sites = number_of(optarg);
        else if (letter == 'i')
            line->idle = number_of(optarg);
        else if (letter == 'f')
            line->frames_max = number_of(optarg);
        else if (letter == 'w')
            line->is_watched = true;
        else if (letter == 'D')
            line->distance = TICK_MS(number_of(optarg));
        else if (letter == 'b')
            line->is_bdat_ahead = true;
        else
            return 0;
    }
    count -= optind;
    bool is_within = line->sites <= LINE_SITES_MAX && line->idle <= LINE_IDLE_MAX;
    return count >= 3 && count <= 5 && is_within ? optind : 0;
}

bool line_options_read(int count, char **words, uint32_t shards_max,
                       struct line_options *ret_options, struct cli *ret_cli)
{
    *ret_options = (struct line_options){0};
    int first = own_options(ret_options, count, words);
    if (first > 0)
        ret_options->shard_count = number_of(words[first]);
    if (first == 0 || ret_options->shard_count == 0 || ret_options->shard_count > shards_max) {
        (void)fputs("usage: angarium-line [-R RATE] [-q SITES] [-i IDLE] [-f FRAMES] [-w] [-D "
                    "ROUND_TRIP_MS [-b]] SHARDS MESSAGES SIZE [SESSIONS "
                    "[MESSAGES_PER_CONNECTION]]\n",
                    stderr);
        return false;
    }
    load_options(ret_options, words + first, count - first, ret_cli);
    return true;
}
