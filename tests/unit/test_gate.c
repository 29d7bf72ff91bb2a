/* SPDX-License-Identifier: Apache-2.0 */
/* The gate: what runs in the interrupt thread never sees a shard inside, and both get on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <rte_dev.h>
#include <rte_ethdev.h>
#include <sched.h>
#include <unistd.h>

#include "base/tick.h"
#include "dataplane/wire/port/eal.h"
#include "dataplane/wire/port/gate.h"

#define SHARDS  3u
#define ERRANDS 40u

static tick_us now_read(void)
{
    const struct tick_source *source = tick_source_system();

    return source->monotonic(source->context);
}

struct shard {
    struct gate_seat seat;
    pthread_t thread;
    bool is_careless; /* does not ask the gate */
    uint64_t bursts, refusals;
};

static struct shared {
    _Atomic bool is_ending;
    _Atomic uint32_t inside;
    _Atomic uint64_t met; /* times somebody was inside while the interrupt thread worked */
} shared;

static void *run(void *context)
{
    struct shard *shard = context;

    while (!atomic_load(&shared.is_ending)) {
        if (!shard->is_careless && !gate_enter(&shard->seat)) {
            shard->refusals++;
            sched_yield();
            continue;
        }
        atomic_fetch_add(&shared.inside, 1);
        for (uint32_t i = 0; i < 200; i++)
            (void)atomic_load(&shared.is_ending);
        atomic_fetch_sub(&shared.inside, 1);
        if (!shard->is_careless)
            gate_leave(&shard->seat);
        shard->bursts++;
    }
    return NULL;
}

/* In the interrupt thread: long enough for a shard to get in, if it could. */
static void look(void *context)
{
    tick_us end = now_read() + 100;

    (void)context;
    while (now_read() < end)
        if (atomic_load(&shared.inside) > 0)
            atomic_fetch_add(&shared.met, 1);
}

static void run_shards(struct shard *shards, uint32_t count, bool is_careless)
{
    shared = (struct shared){0};
    for (uint32_t i = 0; i < count; i++) {
        shards[i] = (struct shard){.is_careless = is_careless};
        gate_add(&shards[i].seat, GATE_NO_PORT);
        assert_int_equal(0, pthread_create(&shards[i].thread, NULL, run, &shards[i]));
    }
    for (uint32_t i = 0; i < ERRANDS; i++)
        eal_run_in_interrupt_thread(look, NULL);
    atomic_store(&shared.is_ending, true);
    for (uint32_t i = 0; i < count; i++)
        assert_int_equal(0, pthread_join(shards[i].thread, NULL));
    for (uint32_t i = 0; i < count; i++)
        gate_remove(&shards[i].seat);
}

static void test_never_both(void **state)
{
    static struct shard shards[SHARDS];
    uint64_t refusals = 0;
    (void)state;

    run_shards(shards, SHARDS, false);
    assert_int_equal(0, shared.met);
    for (uint32_t i = 0; i < SHARDS; i++) {
        assert_true(shards[i].bursts > 100);
        refusals += shards[i].refusals;
    }
    assert_true(refusals > 0);
}

/* The same with shards that do not ask: this test can see them. */
static void test_careless_shards_are_seen(void **state)
{
    static struct shard shards[SHARDS];
    (void)state;

    run_shards(shards, SHARDS, true);
    assert_true(shared.met > 0);
}

/* Windows within a second. */
static uint32_t windows_count(uint16_t port_id)
{
    struct gate_seat seat = {0};
    tick_us end = now_read() + TICK_S(1);
    uint32_t count = 0;

    gate_add(&seat, port_id);
    for (bool was_closed = false; now_read() < end;) {
        bool is_closed = atomic_load(&gate_is_closed);
        count += is_closed && !was_closed;
        was_closed = is_closed;
    }
    gate_remove(&seat);
    return count;
}

/* While a link is up there are few windows, and who waits for one gets it. */
static void test_few_windows_with_a_link(void **state)
{
    uint16_t port_id;
    struct gate_seat seat = {0};

    (void)state;
    assert_int_equal(0, rte_eal_hotplug_add("vdev", "net_null7", ""));
    assert_int_equal(0, rte_eth_dev_get_port_by_name("net_null7", &port_id));
    struct rte_eth_conf conf = {0};
    struct rte_mempool *pool = rte_pktmbuf_pool_create("gate", 511, 0, 0, 256, SOCKET_ID_ANY);
    assert_non_null(pool);
    assert_int_equal(0, rte_eth_dev_configure(port_id, 1, 1, &conf));
    assert_int_equal(0, rte_eth_rx_queue_setup(port_id, 0, 64, 0, NULL, pool));
    assert_int_equal(0, rte_eth_tx_queue_setup(port_id, 0, 64, 0, NULL));
    uint32_t down = windows_count(port_id);
    assert_int_equal(0, rte_eth_dev_start(port_id));
    uint32_t up = windows_count(port_id);
    print_message("# %u windows without a link, %u with one\n", down, up);
    assert_in_range(up, 1, 1000000 / GATE_QUIET_US);
    assert_true(down > up);
    gate_add(&seat, port_id);
    for (uint32_t i = 0; i < ERRANDS; i++)
        eal_run_in_interrupt_thread(look, NULL);
    gate_remove(&seat);
    assert_int_equal(0, rte_eth_dev_stop(port_id));
    assert_int_equal(0, rte_eal_hotplug_remove("vdev", "net_null7"));
}

/* Without seats nothing is held up. */
static void test_it_ends(void **state)
{
    struct gate_seat seat = {0}, stranger = {0};
    (void)state;

    for (uint32_t i = 0; i < 5; i++) {
        gate_add(&seat, GATE_NO_PORT);
        eal_run_in_interrupt_thread(look, NULL);
        gate_remove(&stranger);
        gate_remove(&seat);
        gate_remove(&seat);
        assert_false(atomic_load(&gate_is_closed));
        assert_true(gate_enter(&seat));
        eal_run_in_interrupt_thread(look, NULL); /* though somebody is inside */
        gate_leave(&seat);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_never_both),
        cmocka_unit_test(test_careless_shards_are_seen),
        cmocka_unit_test(test_few_windows_with_a_link),
        cmocka_unit_test(test_it_ends),
    };
    const struct eal_options options = {.memory_mb = 16, .huge = EAL_HUGE_NEVER};
    struct eal_report report;

    if (eal_start(&options, &report) != ERR_OK) {
        print_message("Bail out! %s\n", report.error);
        return 1;
    }
    return cmocka_run_group_tests_name("gate", tests, NULL, NULL);
}
