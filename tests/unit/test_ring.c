/* SPDX-License-Identifier: Apache-2.0 */
/* Rings between shards: nothing lost, nothing twice, order kept, replies find room when requests do
 * not, and a sleeper is always woken. Run it under ThreadSanitizer too. */
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/tick.h"
#include "death.h"
#include "queue/ring.h"

#ifdef __SANITIZE_THREAD__
#define MESSAGES 100000u
#else
#define MESSAGES 1000000u
#endif
#define WINDOW 2000u /* messages a sender may be ahead of what it received */

static struct ring_message message_of(uint64_t number, bool is_reply)
{
    struct ring_message message = {.kind = 7, .is_reply = is_reply, .payload_size = 112};

    memcpy(message.payload, &number, sizeof(number));
    memset(message.payload + 8, (int)(number & 0xff), sizeof(message.payload) - 8);
    return message;
}

/* The number, or UINT64_MAX when the message is not as it was sent. */
static uint64_t number_of(const struct ring_message *message)
{
    uint64_t number;

    memcpy(&number, message->payload, sizeof(number));
    struct ring_message expected = message_of(number, message->is_reply);
    if (message->kind != 7 || message->payload_size != 112 ||
        memcmp(message->payload, expected.payload, sizeof(expected.payload)) != 0)
        return UINT64_MAX;
    return number;
}

static void send_number(struct ring_member *member, uint32_t to, uint64_t number, bool is_reply)
{
    struct ring_message message = message_of(number, is_reply);

    ring_send(member, to, &message);
}

static void test_fields_travel(void **state)
{
    struct ring_group *group = ring_group_new(3, 4);
    struct ring_message message = {.kind = 65535, .from = 99, .is_reply = true, .payload_size = 3};
    struct ring_message got;

    (void)state;
    memcpy(message.payload, "abc", 3);
    assert_int_equal(ERR_AGAIN, ring_receive(ring_member_get(group, 2), &got));
    ring_send(ring_member_get(group, 1), 2, &message);
    assert_int_equal(ERR_AGAIN, ring_receive(ring_member_get(group, 0), &got));
    assert_int_equal(ERR_OK, ring_receive(ring_member_get(group, 2), &got));
    assert_int_equal(1, got.from);
    assert_int_equal(65535, got.kind);
    assert_true(got.is_reply);
    assert_int_equal(3, got.payload_size);
    assert_memory_equal("abc", got.payload, 3);
    assert_int_equal(ERR_AGAIN, ring_receive(ring_member_get(group, 2), &got));
    ring_group_free(group);
}

/* Goal: every ring of the group filled far beyond its slots; all arrives, in order per pair. */
static void test_every_ring_full(void **state)
{
    enum { MEMBERS = 4, EACH = 100 };
    struct ring_group *group = ring_group_new(MEMBERS, 4);
    uint64_t next[MEMBERS][MEMBERS] = {{0}};
    uint32_t received = 0, round = 0;
    struct ring_message got;

    (void)state;
    for (uint32_t from = 0; from < MEMBERS; from++) {
        for (uint64_t number = 0; number < EACH; number++) {
            for (uint32_t to = 0; to < MEMBERS; to++) {
                if (to != from)
                    send_number(ring_member_get(group, from), to, number, false);
            }
        }
        struct ring_stats stats = ring_member_stats(ring_member_get(group, from));
        assert_int_equal(EACH * (MEMBERS - 1), stats.sent);
        assert_int_equal((EACH - 2) * (MEMBERS - 1), stats.full);
        assert_int_equal((EACH - 2) * (MEMBERS - 1), stats.backlog_max);
    }
    for (; received < EACH * MEMBERS * (MEMBERS - 1) && round < 10000; round++) {
        uint32_t to = round % MEMBERS;

        if (ring_receive(ring_member_get(group, to), &got) != ERR_OK)
            continue;
        assert_int_equal(next[got.from][to]++, number_of(&got));
        received++;
    }
    assert_int_equal(EACH * MEMBERS * (MEMBERS - 1), received);
    for (uint32_t i = 0; i < MEMBERS; i++)
        assert_int_equal(ERR_AGAIN, ring_receive(ring_member_get(group, i), &got));
    ring_group_free(group);
}

/* Goal: requests leave half of the ring to replies. */
static void test_replies_have_reserved_room(void **state)
{
    struct ring_group *group = ring_group_new(2, 8);
    struct ring_member *sender = ring_member_get(group, 0), *receiver = ring_member_get(group, 1);
    struct ring_message got;

    (void)state;
    for (uint64_t number = 0; number < 5; number++)
        send_number(sender, 1, number, false);
    assert_int_equal(1, ring_member_stats(sender).full);
    for (uint64_t number = 0; number < 4; number++)
        send_number(sender, 1, 100 + number, true);
    assert_int_equal(2, ring_member_stats(sender).full); /* 4 + 3 fill the 7 usable slots */

    static const uint64_t order[] = {0, 1, 2, 3, 100, 101, 102, 103, 4};
    for (size_t i = 0; i < COUNT_OF(order); i++) {
        while (ring_receive(receiver, &got) == ERR_AGAIN)
            assert_int_equal(ERR_AGAIN, ring_receive(sender, &got)); /* moves its backlog on */
        assert_int_equal(order[i], number_of(&got));
    }
    ring_group_free(group);
}

/* Goal: one busy sender does not starve the others. */
static void test_senders_take_turns(void **state)
{
    struct ring_group *group = ring_group_new(3, 64);
    struct ring_message got;
    uint32_t from_busy = 0;

    (void)state;
    for (uint64_t number = 0; number < 30; number++)
        send_number(ring_member_get(group, 0), 2, number, false);
    for (uint64_t number = 0; number < 3; number++)
        send_number(ring_member_get(group, 1), 2, number, false);
    for (uint32_t i = 0; i < 6; i++) {
        assert_int_equal(ERR_OK, ring_receive(ring_member_get(group, 2), &got));
        from_busy += got.from == 0;
    }
    assert_int_equal(3, from_busy);
    ring_group_free(group);
}

static void overflow_backlog(void *context)
{
    send_number(ring_member_get(context, 0), 1, 0, false);
}

static void send_to_oneself(void *context)
{
    send_number(ring_member_get(context, 1), 1, 0, false);
}

static void test_backlog_bound(void **state)
{
    struct ring_group *group = ring_group_new(2, 4);

    (void)state;
    for (uint64_t number = 0; number < RING_BACKLOG_MAX + 2; number++)
        send_number(ring_member_get(group, 0), 1, number, false);
    assert_int_equal(RING_BACKLOG_MAX, ring_member_stats(ring_member_get(group, 0)).backlog_max);
    assert_true(death_is_caused_by(overflow_backlog, group));
    assert_true(death_is_caused_by(send_to_oneself, group));
    ring_group_free(group);
}

/* ---- threads ---- */

struct side {
    struct ring_member *member;
    uint32_t peer;
    uint64_t sent, received, errors;
};

static void *run_side(void *context)
{
    struct side *side = context;
    struct ring_message got;

    while (side->sent < MESSAGES || side->received < MESSAGES) {
        while (side->sent < MESSAGES && side->sent < side->received + WINDOW) {
            send_number(side->member, side->peer, side->sent, false);
            side->sent++;
        }
        uint64_t before = side->received;
        while (ring_receive(side->member, &got) == ERR_OK) {
            side->errors += number_of(&got) != side->received || got.from != side->peer;
            side->received++;
        }
        if (side->received == before)
            sched_yield();
    }
    /* What still waits in the backlog must go out before this thread ends. */
    while (!ring_sleep_begin(side->member)) {
        side->errors += ring_receive(side->member, &got) == ERR_OK;
        sched_yield();
    }
    return NULL;
}

static void test_two_threads_in_order(void **state)
{
    struct ring_group *group = ring_group_new(2, 1024);
    struct side sides[2] = {{.member = ring_member_get(group, 0), .peer = 1},
                            {.member = ring_member_get(group, 1), .peer = 0}};
    pthread_t threads[2];

    (void)state;
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, run_side, &sides[i]));
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(0, sides[i].errors);
        assert_int_equal(MESSAGES, sides[i].received);
        assert_int_equal(MESSAGES, ring_member_stats(sides[i].member).sent);
    }
    assert_true(ring_member_stats(sides[0].member).full > 0);
    ring_group_free(group);
}

/*
 * Goal: no wake-up is lost. Both sides sleep whenever they find nothing, and each message is sent
 * only after the one before was answered: one lost wake-up and both sleep for good, which the
 * time-out of the sleep turns into an error.
 */
struct sleeper {
    struct ring_member *member;
    uint32_t peer;
    tick_us until;
    uint64_t turns, timeouts, sleeps;
};

static bool sleeper_wait(struct sleeper *sleeper, struct ring_message *ret_message)
{
    struct pollfd wait = {.fd = ring_member_eventfd(sleeper->member), .events = POLLIN};

    while (ring_receive(sleeper->member, ret_message) != ERR_OK) {
        if (!ring_sleep_begin(sleeper->member))
            continue;
        sleeper->sleeps++;
        int ready = poll(&wait, 1, 5000);
        ring_sleep_end(sleeper->member);
        if (ready == 0) {
            sleeper->timeouts++;
            return false;
        }
    }
    return true;
}

static void *run_sleeper(void *context)
{
    struct sleeper *sleeper = context;
    const struct tick_source *clock = tick_source_system();
    struct ring_message got;
    volatile uint32_t spin;

    for (;;) {
        bool is_last = clock->monotonic(clock->context) >= sleeper->until;

        /* Pauses of many lengths, so that every step of one side meets every step of the other. */
        for (spin = 0; spin < sleeper->turns % 509; spin++)
            ;
        send_number(sleeper->member, sleeper->peer, is_last ? UINT64_MAX : sleeper->turns, false);
        if (is_last || !sleeper_wait(sleeper, &got))
            return NULL;
        uint64_t number;
        memcpy(&number, got.payload, sizeof(number));
        if (number == UINT64_MAX)
            return NULL;
        sleeper->turns++;
    }
}

static void test_no_wake_up_is_lost(void **state)
{
    struct ring_group *group = ring_group_new(2, 4);
    const struct tick_source *clock = tick_source_system();
    tick_us until = clock->monotonic(clock->context) + TICK_MS(500);
    struct sleeper sleepers[2] = {{.member = ring_member_get(group, 0), .peer = 1, .until = until},
                                  {.member = ring_member_get(group, 1), .peer = 0, .until = until}};
    pthread_t threads[2];

    (void)state;
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, run_sleeper, &sleepers[i]));
    for (uint32_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (uint32_t i = 0; i < 2; i++) {
        assert_int_equal(0, sleepers[i].timeouts);
        assert_true(sleepers[i].turns > 1000);
        print_message("# turns %u, sleeps %u, wake-ups sent %u\n", (unsigned)sleepers[i].turns,
                      (unsigned)sleepers[i].sleeps,
                      (unsigned)ring_member_stats(sleepers[i].member).wakeups);
    }
    assert_true(sleepers[0].sleeps + sleepers[1].sleeps > 100);
    ring_group_free(group);
}

/*
 * Goal: the moment of falling asleep itself. In every round one side sends one message while the
 * other announces sleep; when both are done, the sleeper either was refused or has its wake-up.
 * Without one of the two fences a processor lets both look before the other's store is seen.
 */
struct rounds {
    struct ring_member *sender;
    _Atomic uint32_t started, sent;
    _Atomic bool is_over;
};

static void spin_until(_Atomic uint32_t *number, uint32_t least)
{
    for (uint32_t spins = 0; atomic_load(number) < least; spins++) {
        if (spins > 10000)
            sched_yield(); /* the other side has lost its processor */
    }
}

static void *run_rounds(void *context)
{
    struct rounds *rounds = context;

    for (uint32_t round = 1;; round++) {
        spin_until(&rounds->started, round);
        if (atomic_load(&rounds->is_over))
            return NULL;
        send_number(rounds->sender, 1, round, false);
        atomic_store(&rounds->sent, round);
    }
}

static void test_falling_asleep_while_a_message_comes(void **state)
{
    struct ring_group *group = ring_group_new(2, 64);
    struct ring_member *sleeper = ring_member_get(group, 1);
    struct rounds rounds = {.sender = ring_member_get(group, 0)};
    const struct tick_source *clock = tick_source_system();
    tick_us until = clock->monotonic(clock->context) + TICK_MS(500);
    struct pollfd wait = {.fd = ring_member_eventfd(sleeper), .events = POLLIN};
    uint32_t lost = 0, announced = 0, missing = 0, round = 0;
    struct ring_message got;
    pthread_t thread;

    (void)state;
    assert_int_equal(0, pthread_create(&thread, NULL, run_rounds, &rounds));
    while (round++ < MESSAGES / 5 && clock->monotonic(clock->context) < until) {
        atomic_store(&rounds.started, round);
        for (volatile uint32_t spin = 0; spin < round % 499; spin++)
            ;
        bool is_asleep = ring_sleep_begin(sleeper);
        spin_until(&rounds.sent, round);
        if (is_asleep) {
            announced++;
            lost += poll(&wait, 1, 0) != 1;
            ring_sleep_end(sleeper);
        }
        missing += ring_receive(sleeper, &got) != ERR_OK || number_of(&got) != round;
    }
    atomic_store(&rounds.is_over, true);
    atomic_store(&rounds.started, round);
    pthread_join(thread, NULL);
    print_message("# sleep announced in %u of %u rounds\n", announced, round - 1);
    assert_int_equal(0, lost);
    assert_int_equal(0, missing);
    assert_true(announced > 0);
    ring_group_free(group);
}

static void test_sleep_is_refused_while_there_is_work(void **state)
{
    struct ring_group *group = ring_group_new(2, 4);
    struct ring_member *a = ring_member_get(group, 0), *b = ring_member_get(group, 1);
    struct ring_message got;
    struct pollfd wait = {.fd = ring_member_eventfd(b), .events = POLLIN};

    (void)state;
    assert_true(ring_sleep_begin(b));
    assert_int_equal(0, poll(&wait, 1, 0));
    for (uint64_t number = 0; number < 3; number++)
        send_number(a, 1, number, false);
    assert_int_equal(1, poll(&wait, 1, 0));
    assert_int_equal(1, ring_member_stats(a).wakeups); /* one write, however many messages */
    ring_sleep_end(b);
    assert_int_equal(0, poll(&wait, 1, 0));

    assert_false(ring_sleep_begin(b)); /* messages are in */
    assert_false(ring_sleep_begin(a)); /* backlog must move on */
    assert_int_equal(ERR_OK, ring_receive(b, &got));
    assert_int_equal(ERR_AGAIN, ring_receive(a, &got));
    assert_true(ring_sleep_begin(a));
    for (uint32_t i = 0; i < 2; i++)
        assert_int_equal(ERR_OK, ring_receive(b, &got));
    assert_true(ring_sleep_begin(b));
    ring_group_free(group);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields_travel),
        cmocka_unit_test(test_every_ring_full),
        cmocka_unit_test(test_replies_have_reserved_room),
        cmocka_unit_test(test_senders_take_turns),
        cmocka_unit_test(test_backlog_bound),
        cmocka_unit_test(test_two_threads_in_order),
        cmocka_unit_test(test_no_wake_up_is_lost),
        cmocka_unit_test(test_falling_asleep_while_a_message_comes),
        cmocka_unit_test(test_sleep_is_refused_while_there_is_work),
    };
    return cmocka_run_group_tests_name("ring", tests, NULL, NULL);
}
