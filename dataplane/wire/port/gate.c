/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The gate between shards and the EAL's interrupt thread.
 *
 * There is no way to stop that thread, but what it calls may take its time: it is held in an alarm
 * of ours, which is where it spends its life while there are seats.
 *
 *   - The interrupt thread, in hold(), says that it is held and waits; then it sets the next alarm
 *     and returns, so that what happened meanwhile is handled before the alarm is due.
 *   - The tender thread closes the gate, waits until all seats are empty, lets the other thread go,
 *     waits until that is held again, and opens the gate.
 *
 * Invariants
 *   1. Unless the gate is closed and every seat empty, the interrupt thread is in hold().
 *   2. A shard stores is_inside, then loads gate_is_closed; the tender stores gate_is_closed, then
 *      loads is_inside. All four are sequentially consistent, so at least one sees the other.
 *
 * Signals are handled in hold() as anywhere: net_tap does not suffer.
 *
 * A window costs a shard its bursts for some 150 microseconds, so there are few while nothing is
 * expected of the interrupt thread: fifty a second are three quarters of a percent of its time.
 *
 * The state is static as there is one interrupt thread in a process.
 */
#include "dataplane/wire/port/gate.h"

#include <errno.h>
#include <pthread.h>
#include <rte_alarm.h>
#include <rte_ethdev.h>
#include <rte_lcore.h>
#include <semaphore.h>
#include <unistd.h>

/* How long the interrupt thread is let go, at least. */
#define GATE_WINDOW_US 100u
#define SEAT_WAIT_US   20u

_Atomic bool gate_is_closed;
_Atomic uint32_t gate_wanted;

static struct gate {
    struct gate_seat *seats[GATE_SEATS_MAX];
    uint16_t port_ids[GATE_SEATS_MAX];
    uint32_t count;
    pthread_mutex_t lock; /* of those */
    pthread_t tender;
    _Atomic bool is_ending; /* said by control, seen by the tender */
    bool is_last;           /* said by the tender before it lets the other thread go */
    bool has_semaphores;    /* they are used again: each post has its wait */
    sem_t go, held;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0)
        CHECK(errno == EINTR);
}

/* ---- interrupt thread ---- */

static void hold(void *context)
{
    (void)context;
    CHECK(sem_post(&gate.held) == 0);
    wait_for(&gate.go);
    if (!gate.is_last)
        CHECK(rte_eal_alarm_set(GATE_WINDOW_US, hold, NULL) == 0);
}

/* ---- tender ---- */

static void empty_seats(void)
{
    pthread_mutex_lock(&gate.lock);
    for (uint32_t i = 0; i < gate.count; i++)
        while (atomic_load(&gate.seats[i]->is_inside))
            usleep(SEAT_WAIT_US);
    pthread_mutex_unlock(&gate.lock);
}

/* All links are up: nothing is expected of the interrupt thread. Invariant 1: nobody takes one down
 * meanwhile. */
static bool links_are_up(void)
{
    bool are_up = true;

    pthread_mutex_lock(&gate.lock);
    for (uint32_t i = 0; i < gate.count && are_up; i++) {
        struct rte_eth_link link = {0};
        are_up = gate.port_ids[i] != GATE_NO_PORT &&
                 rte_eth_link_get_nowait(gate.port_ids[i], &link) == 0 &&
                 link.link_status == RTE_ETH_LINK_UP;
    }
    pthread_mutex_unlock(&gate.lock);
    return are_up;
}

static void rest(void)
{
    uint32_t rested = 0;

    do {
        usleep(GATE_PERIOD_US);
        rested += GATE_PERIOD_US;
    } while (rested < GATE_QUIET_US && atomic_load(&gate_wanted) == 0 &&
             !atomic_load(&gate.is_ending) && links_are_up());
}

static void *tend(void *context)
{
    bool is_last = false;

    (void)context;
    while (!is_last) {
        rest();
        atomic_store(&gate_is_closed, true);
        empty_seats();
        is_last = atomic_load(&gate.is_ending);
        gate.is_last = is_last;
        CHECK(sem_post(&gate.go) == 0);
        if (!is_last)
            wait_for(&gate.held);
        atomic_store(&gate_is_closed, false);
    }
    return NULL;
}

/* ---- control thread ---- */

static void begin(void)
{
    if (!gate.has_semaphores)
        CHECK(sem_init(&gate.go, 0, 0) == 0 && sem_init(&gate.held, 0, 0) == 0);
    gate.has_semaphores = true;
    atomic_store(&gate.is_ending, false);
    CHECK(rte_eal_alarm_set(1, hold, NULL) == 0);
    wait_for(&gate.held);
    CHECK(rte_ctrl_thread_create(&gate.tender, "gate", NULL, tend, NULL) == 0);
}

static void end(void)
{
    atomic_store(&gate.is_ending, true);
    CHECK(pthread_join(gate.tender, NULL) == 0);
}

void gate_add(struct gate_seat *seat, uint16_t port_id)
{
    pthread_mutex_lock(&gate.lock);
    CHECK(gate.count < GATE_SEATS_MAX);
    CHECK(port_id == GATE_NO_PORT || rte_eth_dev_is_valid_port(port_id));
    gate.port_ids[gate.count] = port_id;
    gate.seats[gate.count++] = seat;
    bool is_first = gate.count == 1;
    pthread_mutex_unlock(&gate.lock);
    if (is_first)
        begin();
}

void gate_remove(struct gate_seat *seat)
{
    bool was_there = false;

    pthread_mutex_lock(&gate.lock);
    for (uint32_t i = 0; i < gate.count && !was_there; i++) {
        if (gate.seats[i] == seat) {
            gate.seats[i] = gate.seats[--gate.count];
            gate.port_ids[i] = gate.port_ids[gate.count];
            was_there = true;
        }
    }
    bool is_over = was_there && gate.count == 0;
    pthread_mutex_unlock(&gate.lock);
    if (is_over)
        end();
}
