/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache and the memory of names that worked, against models: a table searched whole, and the
 * bounds after every operation. Ends with the time of a find and of a lookup that hits.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "dns/cache.h"
#include "dns/worked.h"
#include "tests/unit/dns_fake.h"

static const uint64_t key[2] = {0x0706050403020100u, 0x0f0e0d0c0b0a0908u};

static struct cache_entry *put(struct cache *cache, const char *name, uint16_t type,
                               tick_us expires, struct span value)
{
    struct cache_note note = {.expires = expires};
    struct span n = span_from_text(name);

    return cache_put(cache, cache_hash_of(cache, n, type), n, type, &note, value);
}

static struct cache_entry *find(struct cache *cache, const char *name, uint16_t type)
{
    struct span n = span_from_text(name);

    return cache_find(cache, cache_hash_of(cache, n, type), n, type);
}

static void test_put_find_replace(void **state)
{
    struct cache *cache = cache_new(8, key);
    (void)state;

    assert_null(find(cache, "a.example", 1));
    uint32_t serial = put(cache, "a.example", 1, 100, SPAN_LITERAL("one"))->serial;
    put(cache, "a.example", 28, 100, SPAN_LITERAL("six"));
    assert_true(span_is_equal(cache_entry_value(find(cache, "a.example", 1)), SPAN_LITERAL("one")));
    assert_true(
        span_is_equal(cache_entry_value(find(cache, "a.example", 28)), SPAN_LITERAL("six")));
    assert_null(find(cache, "a.exampl", 1));
    put(cache, "a.example", 1, 100, SPAN_LITERAL("longer"));
    assert_true(
        span_is_equal(cache_entry_value(find(cache, "a.example", 1)), SPAN_LITERAL("longer")));
    assert_true(find(cache, "a.example", 1)->serial != serial);
    assert_int_equal(2, cache_count(cache));
    put(cache, "a.example", 1, 100, SPAN_LITERAL(""));
    assert_int_equal(0, cache_entry_value(find(cache, "a.example", 1)).size);
    assert_int_equal(0, cache_evicted(cache));
    cache_free(cache);
}

/* A seeded walk: what the model has and the cache finds agrees in value; bounds hold throughout. */
static void test_walk(void **state)
{
    enum { NAMES = 300, COUNT = 100 };
    static uint8_t values[NAMES][2];
    static bool is_put[NAMES];
    struct cache *cache = cache_new(COUNT, key);
    struct rng rng;
    char name[32];
    (void)state;

    rng_init_seed(&rng, 5);
    for (uint32_t i = 0; i < 100000; i++) {
        uint32_t index = rng_below(&rng, NAMES);
        snprintf(name, sizeof(name), "n%u.example", index);
        if (rng_below(&rng, 3) == 0) {
            rng_fill(&rng, values[index], 2);
            is_put[index] = true;
            put(cache, name, 15, TICK_NEVER, span_of(values[index], 1 + (i & 1)));
            assert_non_null(find(cache, name, 15));
        } else {
            struct cache_entry *entry = find(cache, name, 15);
            assert_true(entry == NULL || is_put[index]);
            if (entry != NULL)
                assert_memory_equal(values[index], cache_entry_value(entry).data, 1);
        }
        assert_true(cache_count(cache) <= COUNT);
    }
    assert_int_equal(COUNT, cache_count(cache));
    cache_free(cache);
}

/* A million names that are asked once never push out those that are asked again. */
static void test_flood_of_names(void **state)
{
    struct cache *cache = cache_new(1024, key);
    char name[32];
    (void)state;

    for (uint32_t i = 0; i < 500; i++) {
        snprintf(name, sizeof(name), "popular%u.example", i);
        put(cache, name, 15, TICK_NEVER, SPAN_LITERAL("x"));
    }
    for (uint32_t i = 0; i < 1000000; i++) {
        if (i % 100 == 0) {
            for (uint32_t j = 0; j < 500; j++) {
                snprintf(name, sizeof(name), "popular%u.example", j);
                if (find(cache, name, 15) == NULL)
                    fail_msg("%s is gone after %u", name, i);
            }
        }
        uint8_t raw[8] = {(uint8_t)i, (uint8_t)(i >> 8), (uint8_t)(i >> 16), 'f', 'l', 'o', 'o',
                          'd'};
        struct span n = span_of(raw, 8);
        struct cache_note note = {.expires = TICK_NEVER};
        cache_put(cache, cache_hash_of(cache, n, 15), n, 15, &note, SPAN_LITERAL("y"));
    }
    assert_int_equal(1024, cache_count(cache));
    assert_true(cache_octets(cache) <= 1024 * 1024);
    cache_free(cache);
}

static void test_octets_are_bounded(void **state)
{
    static uint8_t large[4096];
    struct cache *cache = cache_new(64, key);
    char name[32];
    (void)state;

    for (uint32_t i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        put(cache, name, 15, TICK_NEVER, span_of(large, sizeof(large)));
        assert_non_null(find(cache, name, 15));
        assert_true(cache_octets(cache) <= 64 * 1024);
    }
    for (uint32_t i = 0; i < 1000; i++) { /* the same name, growing */
        put(cache, "n999.example", 15, TICK_NEVER, span_of(large, i * 4));
        assert_true(cache_octets(cache) <= 64 * 1024);
    }
    cache_free(cache);
}

static void test_dead_go_first(void **state)
{
    struct cache *cache = cache_new(4, key);
    (void)state;

    put(cache, "dead", 1, 10, SPAN_LITERAL("x"));
    put(cache, "b", 1, 1000, SPAN_LITERAL("x"));
    put(cache, "c", 1, 1000, SPAN_LITERAL("x"));
    put(cache, "d", 1, 1000, SPAN_LITERAL("x"));
    for (uint32_t i = 0; i < 2; i++) {
        find(cache, "dead", 1);
        find(cache, "b", 1);
        find(cache, "c", 1);
        find(cache, "d", 1);
    }
    cache_advance(cache, 11);
    put(cache, "e", 1, 1000, SPAN_LITERAL("x"));
    assert_null(find(cache, "dead", 1));
    assert_non_null(find(cache, "b", 1));
    assert_non_null(find(cache, "e", 1));
    cache_free(cache);
}

/* Another key, another order: 64 names that share a bucket under one do not under another. */
static void test_hash_is_keyed(void **state)
{
    static const uint64_t other[2] = {1, 2};
    uint32_t same = 0;
    char name[32];
    (void)state;

    for (uint32_t i = 0; i < 4096; i++) {
        snprintf(name, sizeof(name), "n%u.example", i);
        struct span n = span_from_text(name);
        same += (cache_hash(key, n, 1) & 63) == (cache_hash(other, n, 1) & 63);
        assert_true(cache_hash(key, n, 1) != cache_hash(key, n, 28));
    }
    assert_in_range(same, 20, 120);
}

static void test_worked(void **state)
{
    struct worked *worked = worked_new(16);
    (void)state;

    assert_null(worked_find(worked, 5, 0));
    worked_note(worked, 5, TICK_S(100));
    worked_find(worked, 5, TICK_S(100))->negative_at = TICK_S(101);
    assert_non_null(worked_find(worked, 5, TICK_S(100) + WORKED_TIME));
    assert_null(worked_find(worked, 5, TICK_S(101) + WORKED_TIME));
    worked_note(worked, 5, TICK_S(200));
    assert_int_equal(0, worked_find(worked, 5, TICK_S(200))->negative_at);
    worked_note(worked, 0, TICK_S(200)); /* a hash of zero is one like others */
    assert_non_null(worked_find(worked, 0, TICK_S(200)));
    /* The set of 5 has four places: the oldest goes. */
    for (uint64_t i = 1; i <= 4; i++)
        worked_note(worked, 5 + i * 16, TICK_S(300 + i));
    assert_null(worked_find(worked, 5, TICK_S(400)));
    assert_non_null(worked_find(worked, 5 + 16, TICK_S(400)));
    worked_free(worked);
}

/* ---- time ---- */

static double seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void on_wake(void *context, uint64_t user)
{
    (void)context;
    (void)user;
}

/* No bound is asserted: other work on the machine would make it fail. The figures are printed. */
static void test_time_of_a_hit(void **state)
{
    enum { DOMAINS = 1000, ROUNDS = 500 };
    static struct fake_row rows[DOMAINS * 4];
    static char names[DOMAINS][32], texts[DOMAINS][2][40], hosts[DOMAINS][2][32];
    static struct mx_answer answer;
    struct dns_options options = {.resolver_count = 1, .cache_count_max = 65536, .wake = on_wake};
    struct mx_policy policy = {.port = 25, .ipv4 = true, .ipv6 = true};
    struct tick_now now = {TICK_S(1), 0};
    struct fake *fake = fake_new(1);
    struct rng rng;
    uint64_t sum = 0;
    (void)state;

    for (uint32_t i = 0; i < DOMAINS; i++) {
        snprintf(names[i], sizeof(names[i]), "customer%u.example", i);
        for (uint32_t j = 0; j < 2; j++) {
            snprintf(hosts[i][j], sizeof(hosts[i][j]), "mx%u.customer%u.example", j, i);
            snprintf(texts[i][j], sizeof(texts[i][j]), "%u %s", 10 + 10 * j, hosts[i][j]);
            rows[i * 4 + j] = (struct fake_row){names[i], DNS_TYPE_MX, texts[i][j]};
            rows[i * 4 + 2 + j] = (struct fake_row){hosts[i][j], DNS_TYPE_A, "192.0.2.1"};
        }
    }
    rng_init_seed(&rng, 1);
    options.resolvers[0] = (struct flow_address){FLOW_FAMILY_IP4, 0, 53, {127, 0, 0, 1}};
    struct dns *dns = dns_new(&options, &fake->plane, &rng, now);
    for (uint32_t i = 0; i < DOMAINS; i++) {
        fake->rows = &rows[i * 4];
        fake->row_count = 4;
        fake->query_count = 0;
        assert_int_equal(ERR_AGAIN,
                         mx_lookup(dns, &policy, span_from_text(names[i]), 1, now, &answer));
        fake_answer_all(fake, dns, now);
    }

    double start = seconds_now();
    for (uint32_t i = 0; i < DOMAINS * ROUNDS; i++) {
        struct span name = span_from_text(names[i * 7 % DOMAINS]);
        sum += mx_lookup(dns, &policy, name, 1, now, &answer) == ERR_OK ? answer.host_count : 0;
    }
    double lookup_ns = (seconds_now() - start) * 1e9 / (DOMAINS * ROUNDS);
    assert_int_equal(2u * DOMAINS * ROUNDS, sum);
    dns_free(dns);
    fake_free(fake);

    struct cache *cache = cache_new(65536, key);
    for (uint32_t i = 0; i < DOMAINS; i++)
        put(cache, names[i], 15, TICK_NEVER, span_from_text(texts[i][0]));
    start = seconds_now();
    for (uint32_t i = 0; i < DOMAINS * ROUNDS; i++) {
        struct span name = span_from_text(names[i * 7 % DOMAINS]);
        sum += cache_find(cache, cache_hash_of(cache, name, 15), name, 15)->value_size;
    }
    double find_ns = (seconds_now() - start) * 1e9 / (DOMAINS * ROUNDS);
    assert_true(sum > 0);
    cache_free(cache);
    print_message("# cache_find() with hash: %.0f ns; mx_lookup() hit, 2 hosts: %.0f ns\n", find_ns,
                  lookup_ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_put_find_replace), cmocka_unit_test(test_walk),
        cmocka_unit_test(test_flood_of_names),   cmocka_unit_test(test_octets_are_bounded),
        cmocka_unit_test(test_dead_go_first),    cmocka_unit_test(test_hash_is_keyed),
        cmocka_unit_test(test_worked),           cmocka_unit_test(test_time_of_a_hit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
