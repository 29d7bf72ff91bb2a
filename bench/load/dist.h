/* SPDX-License-Identifier: Apache-2.0 */
#ifndef BENCH_LOAD_DIST_H
#define BENCH_LOAD_DIST_H

#include "base/rng.h"
#include "base/span.h"

/*
 * A choice among named things: the domains or sizes of a load.
 *
 *   a list   gmail.com:67.4,yahoo.com:20,example.org:12.6     with weights: drawn at random
 *            one.test,two.test                                without: each in turn
 *   a file   a name and a weight on every line, between blanks; '#' begins a comment
 *
 * Weights are relative, have at most four decimals and lie within 0.0001 and 1,000,000.
 */
#define DIST_ROW_MAX    1024u
#define DIST_NAME_SIZE  256u
#define DIST_TEXT_MAX   (1u << 20)
#define DIST_WHY_SIZE   160u
#define DIST_WEIGHT_ONE 10000u /* weights are kept as ten-thousandths */
#define DIST_WEIGHT_MAX (1000000ull * DIST_WEIGHT_ONE)

struct dist_row {
    char name[DIST_NAME_SIZE];
    uint32_t name_size;
    uint64_t weight;
    uint64_t until; /* weights of all rows up to and with this one */
};

struct dist {
    struct dist_row *rows; /* heap, NULL when empty */
    uint32_t count;
    bool is_weighted;
    uint64_t turn; /* of the next pick, without weights */
};

/** Errors: ERR_CONFIG_VALUE with text in ret_why; `ret_dist` is then empty. */
enum err dist_parse_list(struct span text, struct dist *ret_dist,
                         char ret_why[DIST_WHY_SIZE]) MUST_CHECK;
/** The text of a file. Errors: as dist_parse_list(). */
enum err dist_parse_rows(struct span text, struct dist *ret_dist,
                         char ret_why[DIST_WHY_SIZE]) MUST_CHECK;
void dist_fini(struct dist *dist);
/** Index of a row. CHECKs that there is one. */
uint32_t dist_pick(struct dist *dist, struct rng *rng);

/** "67.4" in ten-thousandths, at most `max`. Errors: ERR_PEER_SYNTAX. */
enum err dist_decimal_parse(struct span text, uint64_t max, uint64_t *ret_value) MUST_CHECK;
/** "10240", "10k", "2M" (of 1,024). Errors: ERR_PEER_SYNTAX. */
enum err dist_size_parse(struct span text, uint32_t *ret_size) MUST_CHECK;

#endif
