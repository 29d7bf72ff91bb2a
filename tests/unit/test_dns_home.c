/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several shards, their messages in a queue that the test moves: a name is asked for once, answers
 * longer than a message arrive whole, and an answer that changes under the copy is never mixed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/unit/dns_fake.h"

#define A     DNS_TYPE_A
#define MX    DNS_TYPE_MX
#define SHARD 3u

struct message {
    uint32_t from, to;
    bool is_reply;
    uint8_t octets[112];
};

struct fixture;
struct shard {
    struct fixture *fixture;
    uint32_t index, wakes;
    struct fake *fake;
    struct dns *dns;
    struct rng rng;
    int32_t credit; /* requests out minus replies in, over all partners */
};

struct fixture {
    struct shard shards[SHARD];
    struct message messages[4096];
    uint32_t head, tail, dropped;
    bool is_dropping;
    struct tick_now now;
    struct mx_policy policy;
};

static void on_send(void *context, uint32_t to, const void *message, uint32_t size, bool is_reply)
{
    struct shard *shard = context;
    struct fixture *f = shard->fixture;

    assert_int_equal(112, size);
    assert_true(to != shard->index && to < SHARD);
    shard->credit += is_reply ? 0 : 1;
    if (f->is_dropping) {
        f->dropped++;
        return;
    }
    struct message *m = &f->messages[f->tail++ % COUNT_OF(f->messages)];
    assert_true(f->tail - f->head <= COUNT_OF(f->messages));
    *m = (struct message){.from = shard->index, .to = to, .is_reply = is_reply};
    memcpy(m->octets, message, size);
}

static void on_wake(void *context, uint64_t user)
{
    struct shard *shard = context;

    (void)user;
    shard->wakes++;
}

static void fixture_init(struct fixture *f, const struct fake_row *rows, uint32_t row_count)
{
    *f = (struct fixture){.now.tick = TICK_S(1000),
                          .policy = {.port = 25, .ipv4 = true, .ipv6 = true}};
    for (uint32_t i = 0; i < SHARD; i++) {
        struct shard *shard = &f->shards[i];
        struct dns_options options = {.resolver_count = 1,
                                      .cache_count_max = 256,
                                      .stale_max_s = 3600,
                                      .outstanding_max = 64,
                                      .shard = i,
                                      .shard_count = SHARD,
                                      .hash_key = {4, 5},
                                      .context = shard,
                                      .send = on_send,
                                      .wake = on_wake};
        options.resolvers[0] = (struct flow_address){FLOW_FAMILY_IP4, 0, 53, {127, 0, 0, 1}};
        shard->fixture = f;
        shard->index = i;
        shard->fake = fake_new(i);
        shard->fake->rows = rows;
        shard->fake->row_count = row_count;
        rng_init_seed(&shard->rng, i);
        shard->dns = dns_new(&options, &shard->fake->plane, &shard->rng, f->now);
    }
}

static void fixture_fini(struct fixture *f)
{
    for (uint32_t i = 0; i < SHARD; i++) {
        dns_free(f->shards[i].dns);
        fake_free(f->shards[i].fake);
    }
}

static bool message_move(struct fixture *f)
{
    if (f->head == f->tail)
        return false;
    struct message m = f->messages[f->head++ % COUNT_OF(f->messages)];
    f->shards[m.to].credit -= m.is_reply ? 1 : 0;
    dns_receive(f->shards[m.to].dns, m.from, m.octets, sizeof(m.octets), f->now);
    return true;
}

static void settle(struct fixture *f)
{
    for (uint32_t round = 0; round < 200; round++) {
        for (uint32_t i = 0; i < SHARD; i++)
            fake_answer_all(f->shards[i].fake, f->shards[i].dns, f->now);
        while (message_move(f))
            continue;
    }
}

static void pass(struct fixture *f, tick_us time)
{
    f->now.tick += time;
    for (uint32_t i = 0; i < SHARD; i++)
        dns_advance(f->shards[i].dns, f->now);
}

static enum err look_up(struct fixture *f, uint32_t shard, const char *domain,
                        struct mx_answer *ret_answer)
{
    return mx_lookup(f->shards[shard].dns, &f->policy, span_from_text(domain), 1, f->now,
                     ret_answer);
}

static uint32_t queries(const struct fixture *f)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < SHARD; i++)
        count += f->shards[i].fake->query_count;
    return count;
}

static const struct fake_row one[] = {{"q.example", MX, "10 h.example"},
                                      {"h.example", A, "192.0.2.1"},
                                      {"gone.example", 0, "NXDOMAIN"},
                                      {"bad.example", 0, "SERVFAIL"}};

/* All shards want the same at once: each (name, type) is asked for once, at home. */
static void test_one_question_for_all(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    (void)state;

    fixture_init(&f, one, COUNT_OF(one));
    for (uint32_t i = 0; i < SHARD; i++)
        assert_int_equal(ERR_AGAIN, look_up(&f, i, "q.example", &answer));
    settle(&f);
    assert_int_equal(3, queries(&f)); /* MX, A, AAAA */
    for (uint32_t i = 0; i < SHARD; i++) {
        assert_int_equal(1, f.shards[i].wakes);
        assert_int_equal(0, f.shards[i].credit);
        assert_int_equal(ERR_OK, look_up(&f, i, "q.example", &answer));
        assert_int_equal(MX_OK, answer.verdict);
        assert_int_equal(1, answer.host_count);
    }
    fixture_fini(&f);
}

static const struct verdict_row {
    const char *domain;
    enum mx_verdict verdict;
} verdict_rows[] = {{"gone.example", MX_NOT_FOUND},
                    {"bad.example", MX_TEMPORARY},
                    {"nodata.example", MX_NOT_FOUND}};

static void test_negative_and_failed(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    (void)state;

    fixture_init(&f, one, COUNT_OF(one));
    for (uint32_t row = 0; row < COUNT_OF(verdict_rows); row++) {
        for (uint32_t i = 0; i < SHARD; i++) {
            look_up(&f, i, verdict_rows[row].domain, &answer); /* home may know it by now */
            settle(&f);
            assert_int_equal(ERR_OK, look_up(&f, i, verdict_rows[row].domain, &answer));
            assert_int_equal(verdict_rows[row].verdict, answer.verdict);
        }
    }
    fixture_fini(&f);
}

static char long_names[16][256], long_texts[16][264];
static struct fake_row long_rows[32];

/* Sixteen exchangers with names of 253 octets: the longest answer there is, 4 KB in 52 parts. */
static void long_rows_make(uint32_t preference)
{
    for (uint32_t i = 0; i < 16; i++) {
        memset(long_names[i], 'a' + (int)i, 253);
        for (uint32_t dot = 63; dot < 253; dot += 64)
            long_names[i][dot] = '.';
        snprintf(long_texts[i], sizeof(long_texts[i]), "%u %.253s", preference + i, long_names[i]);
        long_rows[i] = (struct fake_row){"many.example", MX, long_texts[i]};
        long_rows[16 + i] = (struct fake_row){long_names[i], A, "192.0.2.1"};
    }
}

static void test_answer_in_parts(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    (void)state;

    long_rows_make(0);
    fixture_init(&f, long_rows, COUNT_OF(long_rows));
    for (uint32_t i = 0; i < SHARD; i++) {
        assert_int_equal(ERR_AGAIN, look_up(&f, i, "many.example", &answer));
        settle(&f);
        assert_int_equal(ERR_OK, look_up(&f, i, "many.example", &answer));
        assert_in_range(answer.host_count, 15, 16);
        for (uint32_t host = 0; host < answer.host_count; host++)
            assert_string_equal(long_names[host], answer.hosts[host].name);
        assert_int_equal(0, f.shards[i].credit);
    }
    fixture_fini(&f);
}

/* Home evicts the answer, or gets another one, while it is being copied. */
static void test_answer_changes_under_the_copy(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    uint32_t away = 0;
    (void)state;

    for (uint32_t moves = 0; moves < 60; moves++) {
        long_rows_make(0);
        fixture_init(&f, long_rows, COUNT_OF(long_rows));
        /* The shards that are not home send a message. */
        for (away = 0; away < SHARD; away++) {
            assert_int_equal(ERR_AGAIN, look_up(&f, away, "many.example", &answer));
            if (f.head != f.tail)
                break;
        }
        uint32_t home = f.messages[f.head].to;
        message_move(&f);
        fake_answer_all(f.shards[home].fake, f.shards[home].dns, f.now);
        for (uint32_t i = 0; i < moves; i++)
            message_move(&f);
        /* Home forgets by time: all it has is dead, and its refresh brings a new serial. */
        f.now.tick += TICK_S(301);
        long_rows_make(100);
        look_up(&f, home, "many.example", &answer);
        fake_answer_all(f.shards[home].fake, f.shards[home].dns, f.now);
        settle(&f);
        if (f.shards[away].wakes == 0)
            pass(&f, TICK_S(30));
        assert_true(f.shards[away].wakes >= 1);
        if (look_up(&f, away, "many.example", &answer) == ERR_OK) {
            for (uint32_t i = 1; i < answer.host_count; i++)
                assert_int_equal(answer.hosts[0].preference >= 100,
                                 answer.hosts[i].preference >= 100);
        }
        fixture_fini(&f);
    }
}

/* Home never answers: the asker gives up after its bound, temporary. */
static void test_home_is_silent(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    uint32_t away;
    (void)state;

    fixture_init(&f, one, COUNT_OF(one));
    f.is_dropping = true;
    for (away = 0; away < SHARD && f.dropped == 0; away++)
        assert_int_equal(ERR_AGAIN, look_up(&f, away, "q.example", &answer));
    away--;
    for (uint32_t i = 0; i < 60 && f.shards[away].wakes == 0; i++)
        pass(&f, TICK_S(1));
    assert_int_equal(1, f.shards[away].wakes);
    assert_int_equal(ERR_OK, look_up(&f, away, "q.example", &answer));
    assert_int_equal(MX_TEMPORARY, answer.verdict);
    fixture_fini(&f);
}

/* 88 octets have a home, 89 do not. */
static void test_long_names_have_no_home(void **state)
{
    static struct fixture f;
    static struct mx_answer answer;
    char name[96];
    (void)state;

    for (uint32_t size = 88; size <= 89; size++) {
        uint32_t messages = 0;
        memset(name, 'n', sizeof(name));
        name[40] = '.';
        name[size] = '\0';
        fixture_init(&f, one, COUNT_OF(one));
        for (uint32_t i = 0; i < SHARD; i++)
            assert_int_equal(ERR_AGAIN, look_up(&f, i, name, &answer));
        messages = f.tail;
        assert_int_equal(size == 88 ? SHARD - 1 : 0, messages);
        settle(&f);
        assert_int_equal(1, f.shards[0].wakes);
        fixture_fini(&f);
    }
}

/* Whichever shard saw it work, the first negative answer on another is not believed. */
static void test_worked_elsewhere(void **state)
{
    static struct fake_row rows[] = {{"w.example", MX, "10 h.example"},
                                     {"h.example", A, "192.0.2.1"}};
    static struct fixture f;
    static struct mx_answer answer;
    (void)state;

    for (uint32_t first = 0; first < SHARD; first++) {
        for (uint32_t second = 0; second < SHARD; second++) {
            rows[0] = (struct fake_row){"w.example", MX, "10 h.example"};
            fixture_init(&f, rows, COUNT_OF(rows));
            look_up(&f, first, "w.example", &answer);
            settle(&f);
            rows[0] = (struct fake_row){"w.example", 0, "NXDOMAIN"};
            f.now.tick += TICK_S(301);
            look_up(&f, second, "w.example", &answer);
            settle(&f);
            assert_int_equal(ERR_OK, look_up(&f, second, "w.example", &answer));
            assert_int_equal(MX_TEMPORARY, answer.verdict);
            pass(&f, TICK_S(61));
            assert_int_equal(ERR_AGAIN, look_up(&f, second, "w.example", &answer));
            settle(&f);
            assert_int_equal(ERR_OK, look_up(&f, second, "w.example", &answer));
            assert_int_equal(MX_NOT_FOUND, answer.verdict);
            fixture_fini(&f);
        }
    }
}

/* Stale at home is stale here, and is not asked for again at once. */
static void test_stale_from_home(void **state)
{
    static struct fake_row rows[] = {{"s.example", MX, "10 h.example"},
                                     {"h.example", A, "192.0.2.1"}};
    static struct fixture f;
    static struct mx_answer answer;
    (void)state;

    rows[0] = (struct fake_row){"s.example", MX, "10 h.example"};
    rows[1] = (struct fake_row){"h.example", A, "192.0.2.1"};
    fixture_init(&f, rows, COUNT_OF(rows));
    look_up(&f, 0, "s.example", &answer);
    settle(&f);
    rows[0] = (struct fake_row){"s.example", 0, "SERVFAIL"};
    rows[1] = (struct fake_row){"h.example", 0, "SERVFAIL"};
    f.now.tick += TICK_S(400);
    for (uint32_t i = 0; i < SHARD; i++) {
        look_up(&f, i, "s.example", &answer);
        settle(&f);
        assert_int_equal(ERR_OK, look_up(&f, i, "s.example", &answer));
        assert_int_equal(MX_OK, answer.verdict);
        assert_true(answer.is_stale);
    }
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_question_for_all),
        cmocka_unit_test(test_negative_and_failed),
        cmocka_unit_test(test_answer_in_parts),
        cmocka_unit_test(test_answer_changes_under_the_copy),
        cmocka_unit_test(test_home_is_silent),
        cmocka_unit_test(test_long_names_have_no_home),
        cmocka_unit_test(test_worked_elsewhere),
        cmocka_unit_test(test_stale_from_home),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
