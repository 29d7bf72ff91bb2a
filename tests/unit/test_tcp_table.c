/* SPDX-License-Identifier: Apache-2.0 */
/* The table of tuples: against a plain list under random work, full, with hashes that collide as
 * badly as hashes can, and after so much coming and going that remains would show. Listeners. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "death.h"
#include "tcp_tables_fixture.h"

#define RECORDS 600u

static struct tcp_time_wait records[RECORDS];
static uint64_t hash_mask = UINT64_MAX; /* bits of a hash that are left */

/* In place of time_wait.c: records are an array. */
struct tcp_time_wait *tcp_time_wait_at(const struct stack *stack, uint32_t index)
{
    (void)stack;
    assert_true(index < RECORDS);
    return &records[index];
}

/* In place of siphash.c: as many different hashes as the test wants. */
uint64_t siphash13(const struct siphash_key *key, const void *octets, uint32_t size)
{
    uint64_t hash = key->words[0] ^ size;

    for (uint32_t i = 0; i < size; i++) {
        hash = (hash ^ ((const uint8_t *)octets)[i]) * UINT64_C(0x9e3779b97f4a7c15);
        hash ^= hash >> 29;
    }
    return hash & hash_mask;
}

static struct stack *table_stack_new(uint32_t flows, uint32_t time_waits)
{
    struct stack *stack = fixture_stack_new(&(struct stack_options){
        .flow_count_max = flows, .time_wait_max = time_waits, .seed = {7, 0}});

    stack->tcp->table = tcp_table_new(stack);
    return stack;
}

static void table_stack_free(struct stack *stack)
{
    hash_mask = UINT64_MAX;
    tcp_table_free(stack->tcp->table);
    fixture_stack_free(stack);
}

/* ---- against a list ---- */

struct model_entry {
    struct tcp_key key;
    struct tcp_found what;
};
struct model {
    struct stack *stack;
    struct rng rng;
    struct model_entry entries[RECORDS];
    uint32_t count, limit, record_count;
    uint32_t free_records[RECORDS];
    uint32_t full_seen, replaced;
};

static struct tcp_key model_key(struct model *model)
{
    uint32_t remote = rng_below(&model->rng, 150);
    uint16_t port = (uint16_t)(1024 + rng_below(&model->rng, 8));

    if (rng_below(&model->rng, 2) == 0)
        return fixture_key4(1, 25, remote, port);
    return fixture_key6(1, 25, remote, port);
}

static struct model_entry *model_find(struct model *model, const struct tcp_key *key)
{
    for (uint32_t i = 0; i < model->count; i++) {
        if (memcmp(&model->entries[i].key, key, sizeof(*key)) == 0)
            return &model->entries[i];
    }
    return NULL;
}

static struct tcp_found model_take(struct model *model, const struct tcp_key *key, bool is_record)
{
    if (is_record && model->record_count > 0) {
        uint32_t index = model->free_records[--model->record_count];
        records[index].key = *key;
        return (struct tcp_found){TCP_FOUND_TIME_WAIT, index};
    }
    struct tcb *tcb = fixture_tcb_new(model->stack, key);
    return tcb == NULL ? (struct tcp_found){TCP_FOUND_NONE, 0} : tcp_found_tcb(tcb);
}

static void model_give_back(struct model *model, struct tcp_found what)
{
    if (what.kind == TCP_FOUND_TIME_WAIT)
        model->free_records[model->record_count++] = what.index;
    else
        flow_core_slot_free(&model->stack->core,
                            flow_core_slot_at(&model->stack->core, what.index));
}

static void model_add(struct model *model, const struct tcp_key *key)
{
    struct tcp_found what = model_take(model, key, rng_below(&model->rng, 3) == 0);

    if (what.kind == TCP_FOUND_NONE)
        return;
    enum err err = tcp_table_add(model->stack, key, what);
    assert_int_equal(model->count < model->limit ? ERR_OK : ERR_LIMIT, err);
    if (err == ERR_OK) {
        model->entries[model->count++] = (struct model_entry){*key, what};
        return;
    }
    model->full_seen++;
    model_give_back(model, what);
}

/* A tcb becomes a record, and freeing the tcb afterwards leaves the record alone. */
static void model_retire(struct model *model, struct model_entry *entry)
{
    if (entry->what.kind != TCP_FOUND_TCB || model->record_count == 0)
        return;
    struct tcp_found to = model_take(model, &entry->key, true);
    tcp_table_replace(model->stack, &entry->key, entry->what, to);
    tcp_table_remove(model->stack, &entry->key, entry->what);
    model_give_back(model, entry->what);
    entry->what = to;
    model->replaced++;
}

static void model_remove(struct model *model, struct model_entry *entry)
{
    tcp_table_remove(model->stack, &entry->key, entry->what);
    model_give_back(model, entry->what);
    *entry = model->entries[--model->count];
}

static void model_check_found(struct model *model, const struct tcp_key *key)
{
    const struct model_entry *entry = model_find(model, key);
    struct tcp_found found = tcp_table_find(model->stack, key);
    uint64_t hash = tcp_table_prefetch(model->stack, key);

    tcp_table_prefetch_found(model->stack, hash);
    struct tcp_found again = tcp_table_find_hashed(model->stack, key, hash);
    assert_int_equal(found.kind, again.kind);
    assert_int_equal(found.index, again.index);
    assert_int_equal(entry == NULL ? TCP_FOUND_NONE : entry->what.kind, found.kind);
    if (entry != NULL)
        assert_int_equal(entry->what.index, found.index);
}

static void model_step(struct model *model, uint32_t target)
{
    struct tcp_key key = model_key(model);
    struct model_entry *entry = model_find(model, &key);
    uint32_t choice = rng_below(&model->rng, 8);

    model_check_found(model, &key);
    if (entry == NULL) {
        if (model->count < target || choice == 0)
            model_add(model, &key);
        return;
    }
    if (choice < 2)
        model_retire(model, entry);
    else if (model->count > target || choice == 2)
        model_remove(model, entry);
}

static void model_run(uint64_t seed, uint64_t mask, uint32_t flows, uint32_t time_waits,
                      uint32_t steps)
{
    struct model *model = calloc(1, sizeof(*model));

    assert_non_null(model);
    hash_mask = mask;
    model->stack = table_stack_new(flows, time_waits);
    model->limit = flows + time_waits;
    rng_init_seed(&model->rng, seed);
    for (uint32_t i = 0; i < RECORDS / 2; i++) /* more than the limit: the table says no */
        model->free_records[model->record_count++] = i;
    for (uint32_t i = 0; i < steps; i++) {
        /* fills and empties in turn: all of it, half, almost nothing */
        static const uint32_t targets[] = {100, 50, 2};
        model_step(model, model->limit * targets[i / 4000 % 3] / 100);
        if (i % 2000 == 0)
            tcp_table_verify(model->stack);
    }
    assert_true(model->full_seen > 0);
    assert_true(model->replaced > 0);
    while (model->count > 0)
        model_remove(model, &model->entries[0]);
    tcp_table_verify(model->stack);
    table_stack_free(model->stack);
    free(model);
}

static void test_random_work(void **state)
{
    static const struct {
        const char *name;
        uint64_t mask;
        uint32_t flows, time_waits, steps;
    } rows[] = {
        {"good hashes", UINT64_MAX, 200, 100, 100000},
        {"one tag for all", UINT64_C(0x0000ffffffffffff), 200, 100, 50000},
        {"one home bucket for all", UINT64_C(0xffff000000000000), 200, 100, 50000},
        {"eight hashes in all", UINT64_C(0x8001000000000001), 100, 50, 20000},
        {"one hash for all", 0, 100, 50, 20000},
        {"one bucket", UINT64_MAX, 4, 2, 20000},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        model_run(1000 + i, rows[i].mask, rows[i].flows, rows[i].time_waits, rows[i].steps);
    }
}

/* ---- bounds ---- */

/* Goal: exactly flow_count_max + time_wait_max entries go in, in tables of one bucket and more. */
static void test_full(void **state)
{
    static const uint32_t sizes[][2] = {{1, 0}, {5, 1}, {6, 1}, {8, 1}, {48, 1}, {300, 200}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(sizes); i++) {
        struct stack *stack = table_stack_new(sizes[i][0], sizes[i][1]);
        uint32_t limit = sizes[i][0] + sizes[i][1];
        for (uint32_t n = 0; n <= limit; n++) {
            struct tcp_key key = fixture_key4(1, 25, n, 4000);
            records[n].key = key;
            struct tcp_found what = {TCP_FOUND_TIME_WAIT, n};
            assert_int_equal(n < limit ? ERR_OK : ERR_LIMIT, tcp_table_add(stack, &key, what));
        }
        tcp_table_verify(stack);
        for (uint32_t n = 0; n <= limit; n++) {
            struct tcp_key key = fixture_key4(1, 25, n, 4000);
            assert_int_equal(n < limit ? TCP_FOUND_TIME_WAIT : TCP_FOUND_NONE,
                             tcp_table_find(stack, &key).kind);
        }
        table_stack_free(stack);
    }
}

/* Goal: every octet of a tuple counts, and the two families do not meet. */
static void test_every_part_of_the_key_counts(void **state)
{
    struct stack *stack = table_stack_new(8, 8);
    struct tcp_key base[2] = {fixture_key4(1, 25, 9, 4000), fixture_key6(1, 25, 9, 4000)};

    (void)state;
    for (uint32_t i = 0; i < 2; i++) {
        records[i].key = base[i];
        assert_int_equal(
            ERR_OK, tcp_table_add(stack, &base[i], (struct tcp_found){TCP_FOUND_TIME_WAIT, i}));
    }
    for (uint32_t i = 0; i < 2; i++) {
        for (uint32_t bit = 0; bit < 8 * offsetof(struct tcp_key, reserved); bit++) {
            struct tcp_key key = base[i];
            ((uint8_t *)&key)[bit / 8] ^= (uint8_t)(1u << bit % 8);
            assert_int_equal(TCP_FOUND_NONE, tcp_table_find(stack, &key).kind);
        }
        assert_int_equal(i, tcp_table_find(stack, &base[i]).index);
    }
    table_stack_free(stack);
}

/* Goal: a removal that names another holder changes nothing. */
static void test_remove_only_by_the_holder(void **state)
{
    struct stack *stack = table_stack_new(8, 8);
    struct tcp_key key = fixture_key4(1, 25, 9, 4000);
    struct tcb *tcb = fixture_tcb_new(stack, &key);

    (void)state;
    assert_int_equal(ERR_OK, tcp_table_add(stack, &key, tcp_found_tcb(tcb)));
    tcp_table_remove(stack, &key, (struct tcp_found){TCP_FOUND_TIME_WAIT, tcb->slot.index});
    tcp_table_remove(stack, &key, (struct tcp_found){TCP_FOUND_TCB, tcb->slot.index + 1});
    assert_int_equal(TCP_FOUND_TCB, tcp_table_find(stack, &key).kind);
    tcp_table_remove(stack, &key, tcp_found_tcb(tcb));
    assert_int_equal(TCP_FOUND_NONE, tcp_table_find(stack, &key).kind);
    tcp_table_remove(stack, &key, tcp_found_tcb(tcb));
    tcp_table_verify(stack);
    table_stack_free(stack);
}

static void add_twice(void *context)
{
    struct stack *stack = context;
    struct tcp_key key = fixture_key4(1, 25, 9, 4000);

    for (uint32_t i = 0; i < 2; i++) {
        struct tcb *tcb = fixture_tcb_new(stack, &key);
        if (tcp_table_add(stack, &key, tcp_found_tcb(tcb)) != ERR_OK)
            _exit(3);
    }
}

static void replace_nothing(void *context)
{
    struct tcp_key key = fixture_key4(1, 25, 9, 4000);

    records[0].key = key;
    tcp_table_replace(context, &key, (struct tcp_found){TCP_FOUND_TCB, 0},
                      (struct tcp_found){TCP_FOUND_TIME_WAIT, 0});
}

static void test_misuse_is_a_bug(void **state)
{
    struct stack *stack = table_stack_new(8, 8);

    (void)state;
    assert_true(death_is_caused_by(add_twice, stack));
    assert_true(death_is_caused_by(replace_nothing, stack));
    table_stack_free(stack);
}

/* Goal: a full table takes 64 octets for every three entries at worst, as the budget of TIME_WAIT
 * has it. */
static void test_memory(void **state)
{
    (void)state;
    for (uint32_t limit = 1000; limit < 70000; limit += 777) {
        struct stack *stack = table_stack_new(1, limit);
        assert_true(tcp_table_memory(stack) < (uint64_t)limit * 64 / 3 + 16384);
        table_stack_free(stack);
    }
}

/* ---- listeners ---- */

static void test_listeners(void **state)
{
    static const struct flow_address addresses[] = {
        {.family = FLOW_FAMILY_IP4, .port = 25},
        {.family = FLOW_FAMILY_IP4, .port = 25, .ip = {192, 0, 2, 1}},
        {.family = FLOW_FAMILY_IP4, .port = 587, .ip = {192, 0, 2, 1}},
        {.family = FLOW_FAMILY_IP6, .port = 465},
    };
    static const struct {
        const char *name;
        uint8_t family, last;
        uint16_t port;
        int expected;
    } rows[] = {
        {"exact before any", FLOW_FAMILY_IP4, 1, 25, 1},
        {"any", FLOW_FAMILY_IP4, 2, 25, 0},
        {"exact alone", FLOW_FAMILY_IP4, 1, 587, 2},
        {"exact is not any", FLOW_FAMILY_IP4, 2, 587, -1},
        {"any of IPv6", FLOW_FAMILY_IP6, 1, 465, 3},
        {"IPv4's any is not IPv6's", FLOW_FAMILY_IP6, 1, 25, -1},
        {"IPv6's any is not IPv4's", FLOW_FAMILY_IP4, 1, 465, -1},
        {"no such port", FLOW_FAMILY_IP4, 1, 26, -1},
    };
    struct stack *stack = table_stack_new(8, 8);
    struct tcp_listener *listeners[COUNT_OF(addresses)];

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(addresses); i++)
        listeners[i] = fixture_listener_new(stack, &addresses[i], 1);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct tcp_key key = fixture_key4(rows[i].last, 0, 0, 0);
        struct tcp_listener *found =
            tcp_listener_find(stack, rows[i].family, key.local, rows[i].port);
        if (found != (rows[i].expected < 0 ? NULL : listeners[rows[i].expected]))
            fail_msg("%s", rows[i].name);
    }
    assert_true(tcp_listener_has_port(stack, FLOW_FAMILY_IP4, 587));
    assert_false(tcp_listener_has_port(stack, FLOW_FAMILY_IP6, 587));
    assert_int_equal(ERR_SYSTEM,
                     tcp_listener_add(stack, &(struct tcp_listener){.address = addresses[1]}));
    tcp_listener_remove(stack, listeners[1]);
    struct tcp_key key = fixture_key4(1, 0, 0, 0);
    assert_ptr_equal(listeners[0], tcp_listener_find(stack, FLOW_FAMILY_IP4, key.local, 25));
    assert_int_equal(ERR_OK, tcp_listener_add(stack, listeners[1]));
    table_stack_free(stack);
}

static void test_listener_limit(void **state)
{
    struct stack *stack = table_stack_new(8, 8);
    static struct tcp_listener listeners[TCP_LISTENER_MAX + 1];

    (void)state;
    for (uint32_t i = 0; i <= TCP_LISTENER_MAX; i++) {
        listeners[i].address =
            (struct flow_address){.family = FLOW_FAMILY_IP4, .port = (uint16_t)(i + 1)};
        assert_int_equal(i < TCP_LISTENER_MAX ? ERR_OK : ERR_LIMIT,
                         tcp_listener_add(stack, &listeners[i]));
    }
    table_stack_free(stack);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random_work),
        cmocka_unit_test(test_full),
        cmocka_unit_test(test_every_part_of_the_key_counts),
        cmocka_unit_test(test_remove_only_by_the_holder),
        cmocka_unit_test(test_misuse_is_a_bug),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_listeners),
        cmocka_unit_test(test_listener_limit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
