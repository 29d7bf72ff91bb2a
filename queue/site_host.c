/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of sites, and the memory of dead hosts.
 *
 * A key names a set: the hashes of its lower-case names are added up, so neither their order nor a
 * repetition matters. The hash has a fixed key, since all shards must agree; whoever makes two sets
 * collide shares their limits, nothing more.
 *
 * Dead hosts stand in a table of SITE_DEAD_MAX places, SITE_DEAD_WAYS to a bucket, under a random
 * key. A host that answers is forgotten, the others after host_dead_time; in a full bucket the one
 * that would be forgotten first makes room. Forgetting early costs one connect that times out. Each
 * remembers which site found it dead: who resumes that site ends this, too (site_resume.c).
 */
#include "queue/site_state.h"

static const struct keyed_hash site_key_hash = {{0x616e676172697553u, 0x6974652d6b657931u}};

#define SITE_NAME_MAX 263u /* with a port */

static uint64_t name_hash(struct span name)
{
    uint8_t lower[SITE_NAME_MAX] UNINITIALIZED;
    uint32_t size = name.size < SITE_NAME_MAX ? name.size : SITE_NAME_MAX;

    span_to_lower(span_head(name, size), lower);
    return keyed_hash_octets(&site_key_hash, span_of(lower, size));
}

uint64_t site_key(struct span source, const struct span *hosts, uint32_t host_count)
{
    uint64_t hashes[SITE_HOST_MAX], sum = 0;

    CHECK(host_count <= SITE_HOST_MAX);
    for (uint32_t i = 0; i < host_count; i++) {
        hashes[i] = name_hash(hosts[i]);
        uint32_t before = 0;
        while (hashes[before] != hashes[i])
            before++;
        if (before == i)
            sum += hashes[i];
    }
    uint64_t both[2] = {sum, keyed_hash_octets(&site_key_hash, source)};
    return keyed_hash_octets(&site_key_hash, span_of(both, sizeof(both)));
}

/* ---- dead hosts ---- */

static uint32_t dead_bucket(const struct site_set *sites, struct span address)
{
    uint64_t hash = keyed_hash_octets(&sites->hash, address);
    return (uint32_t)(hash % (SITE_DEAD_MAX / SITE_DEAD_WAYS)) * SITE_DEAD_WAYS;
}

/* The place of this address in its bucket, or SITE_DEAD_MAX. */
static uint32_t dead_find(const struct site_set *sites, struct span address)
{
    uint32_t first = dead_bucket(sites, address);

    for (uint32_t i = first; i < first + SITE_DEAD_WAYS; i++) {
        const struct site_dead *dead = &sites->dead[i];
        if (dead->until != 0 && span_is_equal(span_of(dead->address, dead->size), address))
            return i;
    }
    return SITE_DEAD_MAX;
}

static uint32_t dead_find_room(const struct site_set *sites, struct span address)
{
    uint32_t first = dead_bucket(sites, address), best = first;

    for (uint32_t i = first + 1; i < first + SITE_DEAD_WAYS; i++) {
        if (sites->dead[i].until < sites->dead[best].until)
            best = i;
    }
    return best;
}

/* Nothing is dead for longer than the latest that ever was. */
static void dead_note(struct site_set *sites, uint32_t place)
{
    if (sites->dead[place].until > sites->dead_latest)
        sites->dead_latest = sites->dead[place].until;
}

void site_host_report(struct site_set *sites, uint64_t key, struct span address, bool is_ok,
                      tick_us now)
{
    CHECK(address.size > 0 && address.size <= SITE_ADDRESS_MAX);
    uint32_t place = dead_find(sites, address);
    if (place != SITE_DEAD_MAX && sites->dead[place].is_ordered && sites->dead[place].until > now)
        return;
    if (is_ok) {
        if (place != SITE_DEAD_MAX)
            sites->dead[place].until = 0;
        return;
    }
    if (place == SITE_DEAD_MAX)
        place = dead_find_room(sites, address);
    sites->dead[place] = (struct site_dead){
        .until = now + sites->options.host_dead_time, .key = key, .size = (uint8_t)address.size};
    memcpy(sites->dead[place].address, address.data, address.size);
    dead_note(sites, place);
}

uint32_t site_hosts_forgive(struct site_set *sites, uint64_t key, bool is_dry_run, tick_us now)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SITE_DEAD_MAX; i++) {
        struct site_dead *dead = &sites->dead[i];
        if (dead->until <= now || dead->is_ordered || dead->key != key)
            continue;
        count++;
        if (!is_dry_run)
            dead->until = 0;
    }
    return count;
}

void site_host_skip(struct site_set *sites, const void *address, uint32_t address_size,
                    tick_us until)
{
    struct span key = span_of(address, address_size);

    CHECK(address_size > 0 && address_size <= SITE_ADDRESS_MAX);
    uint32_t place = dead_find(sites, key);
    if (place == SITE_DEAD_MAX && until == 0)
        return;
    if (place == SITE_DEAD_MAX)
        place = dead_find_room(sites, key);
    sites->dead[place] =
        (struct site_dead){.until = until, .is_ordered = until > 0, .size = (uint8_t)address_size};
    memcpy(sites->dead[place].address, address, address_size);
    dead_note(sites, place);
}

tick_us site_host_dead_until(const struct site_set *sites, const void *address,
                             uint32_t address_size)
{
    CHECK(address_size > 0 && address_size <= SITE_ADDRESS_MAX);
    uint32_t place = dead_find(sites, span_of(address, address_size));

    return place != SITE_DEAD_MAX ? sites->dead[place].until : 0;
}

bool site_host_is_dead(const struct site_set *sites, const void *address, uint32_t address_size,
                       tick_us now)
{
    /* Mostly no host is dead, and this is asked for each message. */
    return sites->dead_latest > now && site_host_dead_until(sites, address, address_size) > now;
}
