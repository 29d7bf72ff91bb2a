/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as rows that a file of an earlier process may have (control/kept_file.c has compared
 * its checksum, and nothing else): whatever they say, sites and counts keep their invariants, and
 * what is taken from them again is taken back as it is.
 *
 * The first octet says which rows, the second how long this machine has run.
 */
#include "queue/site.h"
#include "relay/brake.h"
#include "relay/quota.h"
#include "relay/tally.h"

#define WALL  ((wall_us)1700000000000000)
#define ROWS  64u
#define SEED  1
#define FIRST 2u /* octets before the rows */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void site_send(void *context, uint32_t to_shard, const struct site_message *message)
{
    (void)context;
    (void)to_shard;
    (void)message;
}

static void site_wake(void *context, struct site *site)
{
    (void)context;
    (void)site;
}

static void learned_try(const uint8_t *data, size_t size, struct tick_now now)
{
    const struct site_options options = {.shard_count = 1,
                                         .site_count_max = ROWS / 2,
                                         .connection_max = 20,
                                         .connection_start = 5,
                                         .lease_time = TICK_S(10),
                                         .host_dead_time = TICK_S(60),
                                         .backoff_min = TICK_S(30),
                                         .backoff_max = TICK_S(600),
                                         .send = site_send,
                                         .wake = site_wake};
    static struct site_learned_kept rows[ROWS];
    uint32_t count = (uint32_t)(size / sizeof(rows[0]));
    struct rng rng;

    count = count < ROWS ? count : ROWS;
    memcpy(rows, data, count * sizeof(rows[0]));
    for (uint32_t round = 0; round < 2; round++) {
        uint64_t cursor = 0;
        uint32_t found = 0;
        rng_init_seed(&rng, SEED);
        struct site_set *sites = site_set_new(&options, &rng);
        site_keep_restore_learned(sites, true, rows, count, now);
        site_set_verify(sites);
        while (cursor != UINT64_MAX)
            found += site_keep_next_learned(sites, &cursor, now, rows + found, ROWS - found + 1);
        CHECK(found <= count && (round == 0 || found == count));
        count = found;
        site_advance(sites, now.tick + TICK_S(3600));
        site_set_verify(sites);
        site_set_free(sites);
    }
}

static void counts_try(const uint8_t *data, size_t size, struct tick_now now)
{
    static struct kept_count rows[ROWS];
    static struct brake *brake;
    uint32_t count = (uint32_t)(size / sizeof(rows[0]));

    count = count < ROWS ? count : ROWS;
    memcpy(rows, data, count * sizeof(rows[0]));
    kept_counts_reduce(rows, count, 2);
    struct tally *tally = tally_new(SEED, ROWS / 2);
    for (uint32_t i = 0; i < count; i++)
        tally_keep_restore(tally, &rows[i], now);
    CHECK(tally_count(tally) <= ROWS / 2);
    tally_free(tally);
    if (brake == NULL) /* large: one for all inputs */
        brake = brake_new(SEED);
    brake_keep_restore(brake, 0, 2, rows, count, now);
}

static void quotas_try(const uint8_t *data, size_t size, struct tick_now now)
{
    const struct quota_options options = {.shard_count = 1, .place_max = ROWS / 2};
    static struct quota_kept rows[ROWS];
    uint32_t count = (uint32_t)(size / sizeof(rows[0]));

    count = count < ROWS ? count : ROWS;
    memcpy(rows, data, count * sizeof(rows[0]));
    struct quota_set *set = quota_set_new(&options, now.tick);
    quota_keep_restore(set, rows, count, now);
    quota_verify(set);
    quota_set_free(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static void (*const kinds[])(const uint8_t *, size_t,
                                 struct tick_now) = {learned_try, counts_try, quotas_try};

    if (size < FIRST)
        return 0;
    struct tick_now now = {TICK_S(1) << data[1] % 24, WALL};
    kinds[data[0] % COUNT_OF(kinds)](data + FIRST, size - FIRST, now);
    return 0;
}
