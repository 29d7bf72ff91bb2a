/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Questions on their way: wrong packets, silence, several resolvers, TCP. Everything is driven
 * through dns.h on a plane whose packets the test writes; time is a number.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "dns/transport.h"
#include "tests/unit/dns_fake.h"

#define A  DNS_TYPE_A
#define MX DNS_TYPE_MX

struct fixture {
    struct fake *fake;
    struct dns *dns;
    struct rng rng;
    struct tick_now now;
    uint32_t wakes;
    struct mx_policy policy;
    struct flow_address resolvers[4];
};

static void on_wake(void *context, uint64_t user)
{
    struct fixture *f = context;

    (void)user;
    f->wakes++;
}

static void fixture_init(struct fixture *f, uint32_t resolver_count)
{
    struct dns_options options = {.resolver_count = resolver_count,
                                  .cache_count_max = 4096,
                                  .outstanding_max = 1024,
                                  .context = f,
                                  .wake = on_wake};

    *f =
        (struct fixture){.now.tick = TICK_S(5), .policy = {.port = 25, .ipv4 = true, .ipv6 = true}};
    f->fake = fake_new(11);
    rng_init_seed(&f->rng, 12);
    for (uint32_t i = 0; i < resolver_count; i++) {
        f->resolvers[i] =
            (struct flow_address){FLOW_FAMILY_IP4, 0, 53, {10, 0, 0, (uint8_t)(i + 1)}};
        options.resolvers[i] = f->resolvers[i];
    }
    f->dns = dns_new(&options, &f->fake->plane, &f->rng, f->now);
}

static void fixture_fini(struct fixture *f)
{
    dns_free(f->dns);
    fake_free(f->fake);
}

/* Ask for the MX of a domain; the query is then fake_last(). */
static void ask(struct fixture *f, const char *domain)
{
    static struct mx_answer answer;

    assert_int_equal(ERR_AGAIN,
                     mx_lookup(f->dns, &f->policy, span_from_text(domain), 1, f->now, &answer));
}

static enum mx_verdict verdict_of(struct fixture *f, const char *domain)
{
    static struct mx_answer answer;

    assert_int_equal(ERR_OK,
                     mx_lookup(f->dns, &f->policy, span_from_text(domain), 1, f->now, &answer));
    return answer.verdict;
}

static void feed(struct fixture *f, struct flow_event event)
{
    dns_on_flow(f->dns, &event, f->now);
}

static void pass(struct fixture *f, tick_us time)
{
    f->now.tick += time;
    dns_advance(f->dns, f->now);
}

/* A null MX: ends the lookup with one packet. */
static void null_mx_write(struct wire *wire, const struct fake_query *query)
{
    wire_reply(wire, query->packet, query->size, WIRE_RESPONSE);
    wire_mx(wire, query->name, 300, 0, ".");
}

static struct dns_stats stats(struct fixture *f)
{
    return dns_get_stats(f->dns);
}

/* ---- wrong packets ---- */

static void test_wrong_source_is_ignored(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    ask(&f, "q.example");
    struct fake_query query = *fake_last(f.fake);
    null_mx_write(&wire, &query);
    struct flow_address from = f.resolvers[0];
    from.ip[3]++;
    feed(&f, fake_deliver(f.fake, &query, wire.data, wire.size, &from));
    from = f.resolvers[0];
    from.port++;
    feed(&f, fake_deliver(f.fake, &query, wire.data, wire.size, &from));
    assert_int_equal(0, f.wakes);
    assert_int_equal(2, stats(&f).wrong_packets);
    feed(&f, fake_deliver(f.fake, &query, wire.data, wire.size, NULL));
    assert_int_equal(1, f.wakes);
    assert_int_equal(MX_NULL, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

/* A flood of guesses: all 65,536 IDs but ours, and the right one with the wrong case. None ends the
 * question, and the true answer behind them is taken. */
static void test_flood_of_wrong_packets(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    ask(&f, "query.example");
    struct fake_query query = *fake_last(f.fake);
    null_mx_write(&wire, &query);
    uint32_t id = (uint32_t)(query.packet[0] << 8 | query.packet[1]), sent = 0;
    for (uint32_t guess = 0; guess < 65536; guess++) {
        wire.data[0] = (uint8_t)(guess >> 8);
        wire.data[1] = (uint8_t)guess;
        if (guess == id)
            wire.data[13] ^= 0x20;
        struct flow_event event = fake_deliver(f.fake, &query, wire.data, wire.size, NULL);
        if (guess == id)
            wire.data[13] ^= 0x20;
        if (++sent % 64 == 0)
            feed(&f, event);
    }
    assert_int_equal(65536, stats(&f).wrong_packets);
    assert_int_equal(0, f.wakes);
    assert_int_equal(1, f.fake->query_count);
    null_mx_write(&wire, &query);
    feed(&f, fake_deliver(f.fake, &query, wire.data, wire.size, NULL));
    assert_int_equal(1, f.wakes);
    fixture_fini(&f);
}

/* Two different answers: the first is the answer, the second finds nobody. */
static void test_second_answer_is_nothing(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    ask(&f, "q.example");
    struct fake_query query = *fake_last(f.fake);
    null_mx_write(&wire, &query);
    struct flow_event event = fake_deliver(f.fake, &query, wire.data, wire.size, NULL);
    wire.data[3] |= 3;
    fake_deliver(f.fake, &query, wire.data, wire.size, NULL);
    feed(&f, event);
    feed(&f, event);
    assert_int_equal(MX_NULL, verdict_of(&f, "q.example"));
    assert_int_equal(0, f.fake->open_count);
    fixture_fini(&f);
}

/* The answer to the first try, late: that flow, ID and case are gone. */
static void test_answer_to_an_earlier_try(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    ask(&f, "q.example");
    struct fake_query first = *fake_last(f.fake);
    pass(&f, TICK_S(2) + TICK_MS(2));
    struct fake_query second = *fake_last(f.fake);
    assert_int_equal(2, f.fake->query_count);
    assert_memory_not_equal(first.packet, second.packet, 2);
    null_mx_write(&wire, &first);
    feed(&f, (struct flow_event){
                 .flow = first.flow, .events = FLOW_READABLE, .user = DNS_FLOW_USER_TAG});
    feed(&f, fake_deliver(f.fake, &second, wire.data, wire.size, NULL));
    assert_int_equal(0, f.wakes);
    assert_int_equal(1, stats(&f).wrong_packets);
    null_mx_write(&wire, &second);
    feed(&f, fake_deliver(f.fake, &second, wire.data, wire.size, NULL));
    assert_int_equal(1, f.wakes);
    fixture_fini(&f);
}

static void test_events_of_others(void **state)
{
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    feed(&f, (struct flow_event){.user = DNS_FLOW_USER_TAG | 0xffffff, .events = FLOW_READABLE});
    feed(&f, (struct flow_event){.user = 5, .events = FLOW_READABLE});
    feed(&f, (struct flow_event){.user = DNS_FLOW_USER_TAG, .events = FLOW_READABLE});
    assert_int_equal(0, stats(&f).wrong_packets);
    fixture_fini(&f);
}

/* ---- randomness ---- */

static double chi_square(const uint32_t *counts, uint32_t cells, double total)
{
    double expected = total / cells, sum = 0;

    for (uint32_t i = 0; i < cells; i++)
        sum += (counts[i] - expected) * (counts[i] - expected) / expected;
    return sum;
}

/* 100,000 queries: the two octets of the ID, their pairing with the ID before, and each letter's
 * case are as random as they can be. 255 degrees of freedom: beyond 360 has a chance below 1e-5.
 * Ports are the plane's; each query has a flow of its own, which is what this side owes. */
static void test_entropy(void **state)
{
    static struct mx_answer answer;
    static struct wire wire;
    static uint32_t high[256], low[256], differences[256];
    uint32_t upper[16] = {0}, draws = 100000, before = 0, same_port = 0;
    uint16_t port_before = 0;
    struct fixture f;
    char name[32];
    (void)state;

    fixture_init(&f, 1);
    for (uint32_t i = 0; i < draws; i++) {
        snprintf(name, sizeof(name), "abcdefgh%06u.com", i);
        assert_int_equal(ERR_AGAIN,
                         mx_lookup(f.dns, &f.policy, span_from_text(name), 1, f.now, &answer));
        struct fake_query *query = fake_last(f.fake);
        assert_int_equal(1, f.fake->open_count);
        uint32_t id = (uint32_t)(query->packet[0] << 8 | query->packet[1]);
        high[id >> 8]++;
        low[id & 255]++;
        differences[(id - before) >> 8 & 255]++;
        for (uint32_t letter = 0; letter < 8; letter++)
            upper[letter] += query->packet[13 + letter] < 'a';
        same_port += query->local.port == port_before;
        port_before = query->local.port;
        before = id;
        null_mx_write(&wire, query);
        feed(&f, fake_deliver(f.fake, query, wire.data, wire.size, NULL));
    }
    assert_true(chi_square(high, 256, draws) < 360);
    assert_true(chi_square(low, 256, draws) < 360);
    assert_true(chi_square(differences, 256, draws) < 360);
    for (uint32_t letter = 0; letter < 8; letter++)
        assert_in_range(upper[letter], draws / 2 - 800, draws / 2 + 800); /* 5 sigma */
    assert_true(same_port < 20);
    fixture_fini(&f);
}

/* One outstanding query per (name, type), whoever asks. */
static void test_one_query_per_question(void **state)
{
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    for (uint32_t i = 0; i < 100; i++)
        ask(&f, "q.example");
    assert_int_equal(1, f.fake->query_count);
    for (uint32_t i = 0; i < 100; i++)
        pass(&f, TICK_MS(500));
    assert_int_equal(4, f.fake->query_count); /* tries_max */
    assert_int_equal(100, f.wakes);
    assert_int_equal(0, f.fake->open_count);
    fixture_fini(&f);
}

/* ---- several resolvers ---- */

static void reply_code(struct fixture *f, uint8_t rcode)
{
    static struct wire wire;
    struct fake_query query = *fake_last(f->fake);

    wire_reply(&wire, query.packet, query.size, WIRE_RESPONSE | rcode);
    feed(f, fake_deliver(f->fake, &query, wire.data, wire.size, NULL));
}

static uint32_t asked_resolver(struct fixture *f)
{
    return fake_last(f->fake)->remote.ip[3];
}

static const struct failure_row {
    const char *label;
    int rcode; /* -1: silence */
} failure_rows[] = {
    {"SERVFAIL", 2}, {"REFUSED", 5}, {"FORMERR", 1}, {"NOTIMP", 4}, {"silence", -1},
};

static void test_next_resolver(void **state)
{
    struct fixture f;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(failure_rows); i++) {
        fixture_init(&f, 3);
        ask(&f, "q.example");
        for (uint32_t resolver = 1; resolver <= 3; resolver++) {
            assert_int_equal(resolver, asked_resolver(&f));
            if (failure_rows[i].rcode >= 0)
                reply_code(&f, (uint8_t)failure_rows[i].rcode);
            else
                pass(&f, TICK_S(2) + TICK_MS(2));
        }
        /* A useless reply is final for that resolver; silence is tried again within tries_max. */
        assert_int_equal(failure_rows[i].rcode >= 0 ? 1 : 0, f.wakes);
        assert_int_equal(failure_rows[i].rcode >= 0 ? 3 : 4, f.fake->query_count);
        pass(&f, TICK_S(3));
        assert_int_equal(1, f.wakes);
        assert_int_equal(MX_TEMPORARY, verdict_of(&f, "q.example"));
        fixture_fini(&f);
    }
}

/* After three failures in a row a resolver is asked last; later it is asked first again. */
static void test_health(void **state)
{
    static struct wire wire;
    struct fixture f;
    char name[16];
    (void)state;

    fixture_init(&f, 2);
    for (uint32_t i = 0; i < 3; i++) {
        snprintf(name, sizeof(name), "q%u.example", i);
        ask(&f, name);
        assert_int_equal(1, asked_resolver(&f));
        pass(&f, TICK_S(2) + TICK_MS(2));
        assert_int_equal(2, asked_resolver(&f));
        null_mx_write(&wire, fake_last(f.fake));
        feed(&f, fake_deliver(f.fake, fake_last(f.fake), wire.data, wire.size, NULL));
    }
    ask(&f, "q3.example");
    assert_int_equal(2, asked_resolver(&f));
    reply_code(&f, 2);
    assert_int_equal(1, asked_resolver(&f)); /* there is no other */
    reply_code(&f, 2);
    pass(&f, TICK_S(6));
    ask(&f, "q4.example");
    assert_int_equal(1, asked_resolver(&f)); /* its answer made it well again */
    reply_code(&f, 2);
    reply_code(&f, 2);
    fixture_fini(&f);
}

/* Failures count in a row only: two, an answer, two more, and it is still asked first. */
static void test_health_forgets_after_an_answer(void **state)
{
    static struct wire wire;
    struct fixture f;
    char name[16];
    (void)state;

    fixture_init(&f, 2);
    for (uint32_t i = 0; i < 6; i++) {
        snprintf(name, sizeof(name), "q%u.example", i);
        ask(&f, name);
        assert_int_equal(1, asked_resolver(&f));
        if (i % 3 < 2)
            pass(&f, TICK_S(2) + TICK_MS(2));
        null_mx_write(&wire, fake_last(f.fake));
        feed(&f, fake_deliver(f.fake, fake_last(f.fake), wire.data, wire.size, NULL));
        assert_int_equal(i + 1, f.wakes);
    }
    fixture_fini(&f);
}

static void test_unreachable_resolver(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    ask(&f, "q.example");
    struct fake_query query = *fake_last(f.fake);
    f.fake->flows[query.flow.index].error = ERR_PEER_UNREACHABLE;
    feed(&f, fake_event(f.fake, query.flow, FLOW_READABLE));
    assert_int_equal(1, f.fake->query_count); /* a pause, not the next try at once */
    assert_int_equal(0, f.wakes);
    pass(&f, TICK_MS(260));
    assert_int_equal(2, f.fake->query_count);
    null_mx_write(&wire, fake_last(f.fake));
    feed(&f, fake_deliver(f.fake, fake_last(f.fake), wire.data, wire.size, NULL));
    assert_int_equal(MX_NULL, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

static void test_no_flow_and_no_room(void **state)
{
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    f.fake->open_error = ERR_LIMIT;
    ask(&f, "q.example");
    f.fake->open_error = ERR_OK;
    f.fake->send_error = ERR_AGAIN;
    pass(&f, TICK_MS(260));
    assert_int_equal(0, f.fake->query_count);
    assert_int_equal(0, f.fake->open_count);
    f.fake->send_error = ERR_OK;
    pass(&f, TICK_MS(260));
    assert_int_equal(1, f.fake->query_count);
    reply_code(&f, 2);
    assert_int_equal(MX_TEMPORARY, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

/* ---- TCP ---- */

static void reply_truncated(struct fixture *f)
{
    static struct wire wire;
    struct fake_query query = *fake_last(f->fake);

    wire_reply(&wire, query.packet, query.size, WIRE_RESPONSE | WIRE_TC);
    feed(f, fake_deliver(f->fake, &query, wire.data, wire.size, NULL));
}

static struct fake_query begin_tcp(struct fixture *f)
{
    ask(f, "q.example");
    reply_truncated(f);
    fake_connect(f->fake, f->dns, f->now);
    struct fake_query query = *fake_last(f->fake);
    assert_true(query.is_tcp);
    return query;
}

/* The framed answer in pieces of every size, also with a wrong message in front of it. */
static void test_tcp_in_pieces(void **state)
{
    static struct wire wire;
    static uint8_t stream[2048];
    struct fixture f;
    (void)state;

    for (uint32_t step = 1; step <= 120; step++) {
        uint32_t size = 0;
        fixture_init(&f, 1);
        struct fake_query query = begin_tcp(&f);
        null_mx_write(&wire, &query);
        for (uint32_t i = 0; i < 2; i++) {
            wire.data[1] ^= i == 0 ? 1 : 0; /* the first has another ID */
            stream[size++] = (uint8_t)(wire.size >> 8);
            stream[size++] = (uint8_t)wire.size;
            memcpy(stream + size, wire.data, wire.size);
            size += wire.size;
            null_mx_write(&wire, &query);
        }
        for (uint32_t at = 0; at < size; at += step) {
            assert_int_equal(0, f.wakes);
            uint32_t piece = size - at < step ? size - at : step;
            feed(&f, fake_deliver(f.fake, &query, stream + at, piece, NULL));
        }
        assert_int_equal(1, f.wakes);
        assert_int_equal(1, stats(&f).wrong_packets);
        assert_int_equal(MX_NULL, verdict_of(&f, "q.example"));
        fixture_fini(&f);
    }
}

/* An answer of 65,535 octets is read, a hundred records of it count. */
static void test_tcp_largest(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 1);
    struct fake_query query = begin_tcp(&f);
    null_mx_write(&wire, &query);
    while (wire.size + 16 <= CODEC_MESSAGE_MAX) {
        wire_octets(&wire, "\xc0\x0c\0\x0f\0\1\0\0\1\0\0\3\0\1\0", 15);
        wire_count(&wire, 6, 1);
    }
    while (wire.size < CODEC_MESSAGE_MAX)
        wire.data[wire.size++] = 0;
    fake_deliver_framed(f.fake, &query, &wire);
    feed(&f, fake_event(f.fake, query.flow, FLOW_READABLE));
    assert_int_equal(1, f.wakes);
    assert_int_equal(MX_NULL, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

/* An octet a second does not keep a question open beyond the exchange's bound. */
static void test_tcp_an_octet_a_second(void **state)
{
    static struct wire wire;
    struct fixture f;
    uint32_t seconds = 0, sent = 0;
    (void)state;

    fixture_init(&f, 1);
    begin_tcp(&f);
    for (; f.wakes == 0 && seconds < 120; seconds++) {
        struct fake_query query = *fake_last(f.fake);
        if (query.is_tcp) {
            null_mx_write(&wire, &query);
            uint8_t octet = sent == 0 ? 0xff : wire.data[sent % wire.size];
            feed(&f, fake_deliver(f.fake, &query, &octet, 1, NULL));
            sent++;
        } else if (!query.is_done) {
            reply_truncated(&f);
            fake_connect(f.fake, f.dns, f.now);
        }
        pass(&f, TICK_S(1));
    }
    assert_int_equal(1, f.wakes);
    assert_true(seconds <= 25);
    assert_int_equal(0, f.fake->open_count);
    assert_int_equal(MX_TEMPORARY, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

static const struct tcp_row {
    const char *label;
    uint32_t events, octets;
} tcp_rows[] = {
    {"connect fails", FLOW_FAILED, 0},
    {"closed at once", FLOW_PEER_CLOSED, 0},
    {"reset", FLOW_RESET, 0},
    {"closed within the length", FLOW_PEER_CLOSED | FLOW_READABLE, 1},
    {"closed within the answer", FLOW_PEER_CLOSED | FLOW_READABLE, 20},
    {"reset within the answer", FLOW_RESET | FLOW_READABLE, 20},
};

/* A broken TCP connection costs a try; the question goes on over UDP. */
static void test_tcp_broken(void **state)
{
    static struct wire wire;
    static uint8_t stream[1024];
    struct fixture f;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(tcp_rows); i++) {
        fixture_init(&f, 1);
        struct fake_query query = begin_tcp(&f);
        null_mx_write(&wire, &query);
        stream[1] = (uint8_t)wire.size;
        memcpy(stream + 2, wire.data, wire.size);
        if (tcp_rows[i].octets > 0)
            fake_deliver(f.fake, &query, stream, tcp_rows[i].octets, NULL);
        feed(&f, fake_event(f.fake, query.flow, tcp_rows[i].events));
        assert_int_equal(0, f.wakes);
        pass(&f, TICK_MS(260));
        assert_false(fake_last(f.fake)->is_tcp);
        null_mx_write(&wire, fake_last(f.fake));
        feed(&f, fake_deliver(f.fake, fake_last(f.fake), wire.data, wire.size, NULL));
        if (f.wakes != 1)
            fail_msg("%s", tcp_rows[i].label);
        fixture_fini(&f);
    }
}

/* The answer and the FIN, or a RST, in one event: the answer counts. */
static void test_tcp_answer_before_the_end(void **state)
{
    static struct wire wire;
    static const uint32_t ends[] = {FLOW_PEER_CLOSED, FLOW_RESET};
    struct fixture f;
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(ends); i++) {
        fixture_init(&f, 1);
        struct fake_query query = begin_tcp(&f);
        null_mx_write(&wire, &query);
        fake_deliver_framed(f.fake, &query, &wire);
        feed(&f, fake_event(f.fake, query.flow, FLOW_READABLE | ends[i]));
        assert_int_equal(1, f.wakes);
        fixture_fini(&f);
    }
}

/* Truncated over UDP and over TCP, again and again: ends, bounded. */
static void test_tc_loop(void **state)
{
    static struct wire wire;
    struct fixture f;
    (void)state;

    fixture_init(&f, 2);
    ask(&f, "q.example");
    for (uint32_t i = 0; i < 20 && f.wakes == 0; i++) {
        struct fake_query query = *fake_last(f.fake);
        wire_reply(&wire, query.packet, query.size, WIRE_RESPONSE | WIRE_TC);
        if (query.is_tcp)
            feed(&f, fake_deliver_framed(f.fake, &query, &wire));
        else
            feed(&f, fake_deliver(f.fake, &query, wire.data, wire.size, NULL));
        fake_connect(f.fake, f.dns, f.now);
    }
    assert_int_equal(1, f.wakes);
    assert_int_equal(2, stats(&f).queries_tcp);
    assert_int_equal(MX_TEMPORARY, verdict_of(&f, "q.example"));
    fixture_fini(&f);
}

/* No more than TRANSPORT_TCP_MAX connections; the others wait and have their turn. */
static void test_tcp_is_bounded(void **state)
{
    static struct wire wire;
    struct fixture f;
    char name[16];
    (void)state;

    fixture_init(&f, 1);
    for (uint32_t i = 0; i < TRANSPORT_TCP_MAX + 1; i++) {
        snprintf(name, sizeof(name), "q%u.example", i);
        ask(&f, name);
        reply_truncated(&f);
    }
    assert_int_equal(TRANSPORT_TCP_MAX, f.fake->opened_tcp);
    assert_int_equal(TRANSPORT_TCP_MAX, f.fake->open_count);
    fake_connect(f.fake, f.dns, f.now);
    struct fake_query query = *fake_last(f.fake);
    null_mx_write(&wire, &query);
    feed(&f, fake_deliver_framed(f.fake, &query, &wire));
    pass(&f, TICK_MS(260));
    reply_truncated(&f);
    assert_int_equal(TRANSPORT_TCP_MAX + 1, f.fake->opened_tcp);
    pass(&f, TICK_S(6));
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_source_is_ignored),
        cmocka_unit_test(test_flood_of_wrong_packets),
        cmocka_unit_test(test_second_answer_is_nothing),
        cmocka_unit_test(test_answer_to_an_earlier_try),
        cmocka_unit_test(test_events_of_others),
        cmocka_unit_test(test_entropy),
        cmocka_unit_test(test_one_query_per_question),
        cmocka_unit_test(test_next_resolver),
        cmocka_unit_test(test_health),
        cmocka_unit_test(test_health_forgets_after_an_answer),
        cmocka_unit_test(test_unreachable_resolver),
        cmocka_unit_test(test_no_flow_and_no_room),
        cmocka_unit_test(test_tcp_in_pieces),
        cmocka_unit_test(test_tcp_largest),
        cmocka_unit_test(test_tcp_an_octet_a_second),
        cmocka_unit_test(test_tcp_broken),
        cmocka_unit_test(test_tcp_answer_before_the_end),
        cmocka_unit_test(test_tc_loop),
        cmocka_unit_test(test_tcp_is_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
