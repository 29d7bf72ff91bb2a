/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two planes as one: which plane an address goes to, that every call on a handle reaches the plane
 * it came from, and when the pair sleeps. The planes are recorders; the contract of flow.h over a
 * pair is in test_flow_contract.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <stdlib.h>

#include "dataplane/flow_pair.h"

#define FLOW_INDEX 7u

struct recorder {
    struct flow_plane plane; /* first */
    uint32_t calls, polls, waits;
    struct flow last;
    tick_us slept; /* by the last wait */
    struct flow_event events[4];
    uint32_t event_count;
    uint64_t received;
    uint32_t flow_count;
    tick_us deadline;
};

static struct recorder *recorder_of(struct flow_plane *plane)
{
    return (struct recorder *)(void *)plane;
}

static enum err record(struct flow_plane *plane, struct flow flow)
{
    recorder_of(plane)->calls++;
    recorder_of(plane)->last = flow;
    return ERR_OK;
}

static enum err record_open(struct flow_plane *plane, struct flow *ret_flow)
{
    *ret_flow = (struct flow){FLOW_INDEX, 1};
    return record(plane, *ret_flow);
}

static enum err fake_listen(struct flow_plane *plane, const struct flow_listen_options *options,
                            struct flow *ret_flow)
{
    (void)options;
    return record_open(plane, ret_flow);
}

static enum err fake_connect(struct flow_plane *plane, const struct flow_connect_options *options,
                             struct flow *ret_flow)
{
    (void)options;
    return record_open(plane, ret_flow);
}

static enum err fake_open_datagram(struct flow_plane *plane, const struct flow_address *local,
                                   const struct flow_address *remote, uint64_t user,
                                   struct flow *ret_flow)
{
    (void)local, (void)remote, (void)user;
    return record_open(plane, ret_flow);
}

static enum err fake_accept(struct flow_plane *plane, struct flow listener, uint64_t user,
                            struct flow *ret_flow, struct flow_address *ret_peer)
{
    (void)user, (void)ret_peer;
    *ret_flow = (struct flow){FLOW_INDEX + 1, 1};
    return record(plane, listener);
}

static enum err fake_send_datagram(struct flow_plane *plane, struct flow flow, struct span octets)
{
    (void)octets;
    return record(plane, flow);
}

static enum err fake_receive_datagram(struct flow_plane *plane, struct flow flow,
                                      struct flow_address *ret_from, struct span *ret_octets)
{
    (void)ret_from, (void)ret_octets;
    return record(plane, flow);
}

static void fake_set_user(struct flow_plane *plane, struct flow flow, uint64_t user)
{
    (void)user;
    record(plane, flow);
}

static enum err fake_addresses(struct flow_plane *plane, struct flow flow,
                               struct flow_address *ret_local, struct flow_address *ret_peer)
{
    (void)ret_local, (void)ret_peer;
    return record(plane, flow);
}

static uint32_t fake_readable(struct flow_plane *plane, struct flow flow)
{
    record(plane, flow);
    return 0;
}

static uint32_t fake_peek(struct flow_plane *plane, struct flow flow, struct span *ret_spans,
                          uint32_t max)
{
    (void)ret_spans, (void)max;
    return fake_readable(plane, flow);
}

static struct span fake_pull(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    (void)size;
    record(plane, flow);
    return (struct span){NULL, 0};
}

static void fake_consume(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    (void)size;
    record(plane, flow);
}

static void fake_take(struct flow_plane *plane, struct flow flow, uint32_t size,
                      struct buf_queue *into)
{
    (void)into;
    fake_consume(plane, flow, size);
}

static void fake_append(struct flow_plane *plane, struct flow flow, struct buf_queue *octets)
{
    (void)octets;
    record(plane, flow);
}

static struct span_mut fake_reserve(struct flow_plane *plane, struct flow flow, uint32_t size)
{
    (void)size;
    record(plane, flow);
    return (struct span_mut){NULL, 0};
}

static uint64_t fake_unsent(struct flow_plane *plane, struct flow flow)
{
    record(plane, flow);
    return 0;
}

static void fake_cork(struct flow_plane *plane, struct flow flow, bool is_corked)
{
    (void)is_corked;
    record(plane, flow);
}

static void fake_plain(struct flow_plane *plane, struct flow flow)
{
    record(plane, flow);
}

static uint32_t fake_poll(struct flow_plane *plane, tick_us now, struct flow_event *ret_events,
                          uint32_t max)
{
    struct recorder *recorder = recorder_of(plane);
    uint32_t count = recorder->event_count < max ? recorder->event_count : max;
    (void)now;

    recorder->polls++;
    for (uint32_t i = 0; i < count; i++)
        ret_events[i] = recorder->events[i];
    recorder->event_count -= count;
    return count;
}

static void fake_flush(struct flow_plane *plane, tick_us now)
{
    (void)plane, (void)now;
}

static tick_us fake_deadline(struct flow_plane *plane)
{
    return recorder_of(plane)->deadline;
}

static void fake_wait(struct flow_plane *plane, tick_us now, tick_us deadline)
{
    recorder_of(plane)->waits++;
    recorder_of(plane)->slept = deadline - now;
}

static enum err fake_watch(struct flow_plane *plane, int fd)
{
    return record(plane, (struct flow){(uint32_t)fd, 1});
}

static struct flow_stats fake_stats(struct flow_plane *plane)
{
    return (struct flow_stats){.flows = recorder_of(plane)->flow_count, .octets_sent = 5};
}

static void fake_free(struct flow_plane *plane)
{
    free(plane);
}

static uint64_t fake_received(struct flow_plane *plane)
{
    return recorder_of(plane)->received;
}

static const struct flow_ops fake_ops = {
    .listen = fake_listen,
    .accept = fake_accept,
    .refuse = record,
    .connect = fake_connect,
    .open_datagram = fake_open_datagram,
    .send_datagram = fake_send_datagram,
    .receive_datagram = fake_receive_datagram,
    .set_user = fake_set_user,
    .error = record,
    .addresses = fake_addresses,
    .readable = fake_readable,
    .peek = fake_peek,
    .pull = fake_pull,
    .consume = fake_consume,
    .take = fake_take,
    .credit = fake_set_user,
    .append = fake_append,
    .reserve = fake_reserve,
    .commit = fake_consume,
    .unsent = fake_unsent,
    .cork = fake_cork,
    .push = fake_plain,
    .want = fake_consume,
    .shutdown = fake_plain,
    .close = fake_plain,
    .abort = fake_plain,
    .poll = fake_poll,
    .flush = fake_flush,
    .deadline = fake_deadline,
    .wait = fake_wait,
    .watch = fake_watch,
    .stats = fake_stats,
    .free = fake_free,
};

struct fixture {
    struct recorder *host, *wire;
    struct flow_plane *pair;
};

static struct recorder *recorder_new(void)
{
    struct recorder *recorder = calloc(1, sizeof(*recorder));
    assert_non_null(recorder);
    recorder->plane.ops = &fake_ops;
    recorder->deadline = TICK_NEVER;
    return recorder;
}

static struct flow_address address_of(const char *ip)
{
    struct flow_address address;
    assert_int_equal(ERR_OK, flow_address_parse_ip(span_from_text(ip), &address));
    address.port = 25;
    return address;
}

static struct fixture fixture_new(enum flow_pair_poll poll)
{
    struct flow_prefix kernel[2];
    struct fixture fixture = {recorder_new(), recorder_new(), NULL};

    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("192.0.2.0/25"), &kernel[0]));
    assert_int_equal(ERR_OK, flow_prefix_parse(SPAN_LITERAL("2001:db8:1::/48"), &kernel[1]));
    fixture.pair = flow_pair_new(&(struct flow_pair_options){.host = &fixture.host->plane,
                                                             .wire = &fixture.wire->plane,
                                                             .kernel = kernel,
                                                             .kernel_count = COUNT_OF(kernel),
                                                             .poll = poll,
                                                             .received = fake_received});
    return fixture;
}

static void test_addresses_choose_the_plane(void **state)
{
    static const struct {
        const char *ip;
        bool is_host;
    } rows[] = {
        {"127.0.0.1", true},
        {"127.255.255.255", true},
        {"126.255.255.255", false},
        {"128.0.0.0", false},
        {"192.0.2.0", true},
        {"192.0.2.127", true},
        {"192.0.2.128", false},
        {"0.0.0.0", false},
        {"::", false},
        {"::1", true},
        {"::2", false},
        {"2001:db8:1::1", true},
        {"2001:db8:2::1", false},
    };
    struct fixture fixture = fixture_new(FLOW_PAIR_BUSY);
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct flow_address address = address_of(rows[i].ip), any = {.family = address.family};
        struct flow flow;
        uint32_t host_before = fixture.host->calls, wire_before = fixture.wire->calls;

        print_message("# %s\n", rows[i].ip);
        assert_int_equal(
            ERR_OK,
            flow_listen(fixture.pair, &(struct flow_listen_options){.address = address}, &flow));
        assert_int_equal(
            ERR_OK,
            flow_connect(fixture.pair, &(struct flow_connect_options){.remote = address}, &flow));
        assert_int_equal(ERR_OK, flow_open_datagram(fixture.pair, &any, &address, 0, &flow));
        assert_int_equal(fixture.host->calls - host_before, rows[i].is_host ? 3 : 0);
        assert_int_equal(fixture.wire->calls - wire_before, rows[i].is_host ? 0 : 3);
    }
    struct flow_address unix_address = {.family = FLOW_FAMILY_UNIX};
    struct flow flow;
    uint32_t before = fixture.host->calls;
    assert_int_equal(
        ERR_OK,
        flow_connect(fixture.pair, &(struct flow_connect_options){.remote = unix_address}, &flow));
    assert_int_equal(fixture.host->calls, before + 1);
    flow_plane_free(fixture.pair);
}

/* Every call on `flow`, in the order of flow.h; returns how many. */
static uint32_t call_everything(struct flow_plane *pair, struct flow flow)
{
    struct flow_address address;
    struct flow other;
    struct span octets;
    struct buf_queue queue = {0};

    assert_int_equal(ERR_OK, flow_accept(pair, flow, 0, &other, &address));
    assert_int_equal(other.index & 0x7fffffffu, FLOW_INDEX + 1);
    assert_int_equal(other.index >> 31, flow.index >> 31);
    assert_int_equal(ERR_OK, flow_refuse(pair, flow));
    assert_int_equal(ERR_OK, flow_send_datagram(pair, flow, (struct span){NULL, 0}));
    assert_int_equal(ERR_OK, flow_receive_datagram(pair, flow, &address, &octets));
    flow_set_user(pair, flow, 1);
    assert_int_equal(ERR_OK, flow_error(pair, flow));
    assert_int_equal(ERR_OK, flow_addresses(pair, flow, &address, &address));
    flow_readable(pair, flow);
    flow_peek(pair, flow, &octets, 1);
    flow_pull(pair, flow, 1);
    flow_consume(pair, flow, 1);
    flow_take(pair, flow, 1, &queue);
    flow_credit(pair, flow, 1);
    flow_append(pair, flow, &queue);
    flow_reserve(pair, flow, 1);
    flow_commit(pair, flow, 1);
    flow_unsent(pair, flow);
    flow_cork(pair, flow, true);
    flow_push(pair, flow);
    flow_want(pair, flow, 0);
    flow_shutdown(pair, flow);
    flow_close(pair, flow);
    flow_abort(pair, flow);
    return 23;
}

static void test_calls_reach_the_plane_of_the_handle(void **state)
{
    static const char *const remotes[] = {"127.0.0.1", "198.51.100.1"};
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(remotes); i++) {
        struct fixture fixture = fixture_new(FLOW_PAIR_BUSY);
        struct recorder *mine = i == 0 ? fixture.host : fixture.wire;
        struct recorder *other = i == 0 ? fixture.wire : fixture.host;
        struct flow_connect_options options = {.remote = address_of(remotes[i])};
        struct flow flow;

        assert_int_equal(ERR_OK, flow_connect(fixture.pair, &options, &flow));
        uint32_t before = mine->calls;
        uint32_t count = call_everything(fixture.pair, flow);
        assert_int_equal(mine->calls - before, count);
        assert_int_equal(mine->last.index, FLOW_INDEX);
        assert_int_equal(other->calls, 0);
        flow_plane_free(fixture.pair);
    }
}

static void test_host_is_polled_seldom_and_only_with_flows(void **state)
{
    struct fixture fixture = fixture_new(FLOW_PAIR_BUSY);
    struct flow_event events[8];
    (void)state;

    for (tick_us now = 1000; now < 2000; now += 10)
        assert_int_equal(0, flow_poll(fixture.pair, now, events, 8));
    assert_int_equal(fixture.host->polls, 0);
    assert_int_equal(fixture.wire->polls, 100);
    struct flow_listen_options listen = {.address = address_of("127.0.0.1")};
    struct flow flow;
    fixture.host->flow_count = 1;
    assert_int_equal(ERR_OK, flow_listen(fixture.pair, &listen, &flow));
    for (tick_us now = 2000; now < 3000; now += 10)
        assert_int_equal(0, flow_poll(fixture.pair, now, events, 8));
    assert_int_equal(fixture.host->polls, 20);

    /* Events of both in one report; the host's handles are marked. */
    fixture.host->events[0] = (struct flow_event){{3, 1}, FLOW_READABLE, 30};
    fixture.wire->events[0] = (struct flow_event){{4, 1}, FLOW_READABLE, 40};
    fixture.host->event_count = fixture.wire->event_count = 1;
    assert_int_equal(2, flow_poll(fixture.pair, 3000, events, 8));
    assert_int_equal(events[0].flow.index, 3u | 1u << 31);
    assert_int_equal(events[1].flow.index, 4u);
    /* After events the next turn asks again. */
    assert_int_equal(0, flow_poll(fixture.pair, 3001, events, 8));
    assert_int_equal(fixture.host->polls, 22);

    /* The last flow is gone: no polls until there is another. */
    fixture.host->flow_count = 0;
    for (tick_us now = 4000; now < 5000; now += 10)
        assert_int_equal(0, flow_poll(fixture.pair, now, events, 8));
    assert_int_equal(fixture.host->polls, 22);
    fixture.host->flow_count = 1;
    assert_int_equal(ERR_OK, flow_listen(fixture.pair, &listen, &flow));
    assert_int_equal(0, flow_poll(fixture.pair, 5000, events, 8));
    assert_int_equal(fixture.host->polls, 23);
    flow_plane_free(fixture.pair);
}

static void test_adaptive_sleeps_longer_and_longer(void **state)
{
    struct fixture fixture = fixture_new(FLOW_PAIR_ADAPTIVE);
    struct flow_event events[8];
    tick_us now = TICK_S(1);
    (void)state;

    fixture.wire->received = 1;
    flow_poll(fixture.pair, now, events, 8);
    flow_wait(fixture.pair, now + 199, TICK_NEVER);
    assert_int_equal(fixture.host->waits, 0); /* still spinning */
    assert_true(flow_spins(fixture.pair, now + 199));
    assert_false(flow_spins(fixture.pair, now + 200));
    const tick_us expected[] = {50, 100, 200, 400, 800, 1000, 1000};
    for (uint32_t i = 0; i < COUNT_OF(expected); i++) {
        flow_poll(fixture.pair, now + 200, events, 8);
        flow_wait(fixture.pair, now + 200, TICK_NEVER);
        assert_int_equal(fixture.host->slept, expected[i]);
    }
    /* A second of silence, and they double once more. */
    flow_wait(fixture.pair, now + TICK_S(1) - 1, TICK_NEVER);
    assert_int_equal(fixture.host->slept, 1000);
    for (uint32_t i = 0; i < 3; i++)
        flow_wait(fixture.pair, now + TICK_S(1), TICK_NEVER);
    assert_int_equal(fixture.host->slept, 2000);
    /* A deadline of anybody ends it earlier. */
    flow_wait(fixture.pair, now + 200, now + 210);
    assert_int_equal(fixture.host->slept, 10);
    fixture.wire->deadline = now + 205;
    flow_wait(fixture.pair, now + 200, now + 210);
    assert_int_equal(fixture.host->slept, 5);
    /* A frame, and it spins again and begins with short sleeps. */
    fixture.wire->deadline = TICK_NEVER;
    fixture.wire->received = 2;
    flow_poll(fixture.pair, now + 300, events, 8);
    uint32_t waits = fixture.host->waits;
    flow_wait(fixture.pair, now + 400, TICK_NEVER);
    assert_int_equal(fixture.host->waits, waits);
    flow_wait(fixture.pair, now + 500, TICK_NEVER);
    assert_int_equal(fixture.host->slept, 50);
    flow_plane_free(fixture.pair);
}

static void test_busy_never_sleeps(void **state)
{
    struct fixture fixture = fixture_new(FLOW_PAIR_BUSY);
    (void)state;

    flow_wait(fixture.pair, TICK_S(100), TICK_NEVER);
    assert_true(flow_spins(fixture.pair, TICK_S(100)));
    assert_false(flow_spins(&fixture.host->plane, TICK_S(100)));
    assert_int_equal(fixture.host->waits, 0);
    assert_int_equal(fixture.wire->waits, 0);
    assert_int_equal(flow_plane_stats(fixture.pair).octets_sent, 10);
    assert_ptr_equal(flow_pair_wire(fixture.pair), &fixture.wire->plane);
    flow_plane_free(fixture.pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses_choose_the_plane),
        cmocka_unit_test(test_calls_reach_the_plane_of_the_handle),
        cmocka_unit_test(test_host_is_polled_seldom_and_only_with_flows),
        cmocka_unit_test(test_adaptive_sleeps_longer_and_longer),
        cmocka_unit_test(test_busy_never_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
