/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose mail goes next: senders in turn, the oldest first, the lower class before all; in a line
 * and over all lines of a site.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "qmgr_fixture.h"
#include "queue/qmgr_state.h"

static void insert(struct fixture *f, const struct message_options *options)
{
    assert_int_equal(ERR_OK, fixture_insert(f, options, NULL));
}

static void insert_from(struct fixture *f, uint64_t id, const char *sender, const char *recipients)
{
    insert(f, &(struct message_options){.id = id, .sender = sender, .recipients = recipients});
}

static uint64_t take_id(struct fixture *f, struct qmgr_delivery *delivery)
{
    assert_non_null(delivery);
    return qmgr_delivery_view(f->qmgr, delivery).envelope->id.low;
}

/* All lines that are READY come to the round. */
static void gather(struct fixture *f, struct qmgr_round *round)
{
    struct qmgr_line *line;

    while ((line = qmgr_line_next(f->qmgr, f->now)) != NULL)
        qmgr_round_join(f->qmgr, round, line, f->now);
}

static uint64_t round_take(struct fixture *f, struct qmgr_round *round)
{
    int64_t rank;
    struct qmgr_line *line = qmgr_round_next(round);
    struct qmgr_delivery *delivery = qmgr_round_take(f->qmgr, round, f->now, &rank);
    uint64_t id = take_id(f, delivery);

    assert_ptr_equal(line, delivery->line);
    fixture_finish_all(f, delivery, RECIPIENT_DELIVERED, "250 ok");
    assert_int_equal(0, qmgr_verify(f->qmgr));
    return id;
}

static void round_end(struct fixture *f, struct qmgr_round *round)
{
    struct qmgr_line *line;
    uint64_t cursor = 0;

    while ((line = slab_next(&f->qmgr->lines, &cursor)) != NULL) {
        if (line->round == NULL)
            continue;
        qmgr_round_leave(f->qmgr, line);
        qmgr_line_return(f->qmgr, line, f->now);
    }
    qmgr_round_free(round);
    assert_int_equal(0, qmgr_verify(f->qmgr));
}

/* ---- a line ---- */

static void senders_of_a_line_take_turns(void **state)
{
    static const struct {
        const char *name;
        const char *senders; /* of messages 1, 2, 3 ..., all there before the first is taken */
        uint64_t expected[8];
    } rows[] = {
        {"one sender", "aaa", {1, 2, 3}},
        {"one behind many", "aaaab", {1, 5, 2, 3, 4}},
        {"three", "aabbcc", {1, 3, 5, 2, 4, 6}},
        {"mixed", "abacab", {1, 2, 4, 3, 6, 5}},
    };

    (void)state;
    for (uint32_t row = 0; row < COUNT_OF(rows); row++) {
        struct fixture f;
        fixture_init(&f, NULL);
        for (uint32_t i = 0; rows[row].senders[i] != '\0'; i++) {
            char sender[] = "x@_.example";
            sender[2] = rows[row].senders[i];
            insert_from(&f, i + 1, sender, "b@y");
        }
        struct qmgr_line *line = qmgr_line_next(f.qmgr, f.now);
        for (uint32_t i = 0; rows[row].senders[i] != '\0'; i++) {
            struct qmgr_delivery *delivery = qmgr_take(f.qmgr, line, f.now);
            if (take_id(&f, delivery) != rows[row].expected[i])
                fail_msg("%s: place %u", rows[row].name, i);
            fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
            assert_int_equal(0, qmgr_verify(f.qmgr));
        }
        qmgr_line_return(f.qmgr, line, f.now);
        fixture_fini(&f);
    }
}

/* Goal: whose address has which case, and who of a domain it is, makes no share. */
static void a_share_is_a_domain(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    insert_from(&f, 1, "one@A.example", "b@y");
    insert_from(&f, 2, "two@a.example", "b@y");
    insert_from(&f, 3, "", "b@y");
    struct qmgr_line *line = qmgr_line_next(f.qmgr, f.now);
    assert_int_equal(1, take_id(&f, qmgr_take(f.qmgr, line, f.now)));
    assert_int_equal(3, take_id(&f, qmgr_take(f.qmgr, line, f.now)));
    assert_int_equal(2, take_id(&f, qmgr_take(f.qmgr, line, f.now)));
    fixture_fini(&f);
}

/* ---- a round ---- */

/* Goal: many domains at one site give a sender no more turns than one does. */
static void domains_of_a_site_are_one_share(void **state)
{
    struct fixture f;
    char recipient[16];

    (void)state;
    fixture_init(&f, NULL);
    for (uint32_t i = 0; i < 20; i++) {
        (void)snprintf(recipient, sizeof(recipient), "b@d%u", i);
        insert_from(&f, i + 1, "a@big.example", recipient);
        insert_from(&f, i + 101, "a@big.example", recipient);
    }
    insert_from(&f, 1001, "a@small.example", "b@d7");
    insert_from(&f, 1002, "a@small.example", "b@other");
    struct qmgr_round *round = qmgr_round_new(f.qmgr);
    gather(&f, round);
    assert_int_equal(42, qmgr_round_due(round));
    assert_int_equal(1, round_take(&f, round));
    assert_int_equal(1001, round_take(&f, round));
    assert_int_equal(2, round_take(&f, round)); /* and domains take turns in a share */
    assert_int_equal(1002, round_take(&f, round));
    assert_int_equal(3, round_take(&f, round));
    assert_int_equal(37, qmgr_round_due(round));
    round_end(&f, round);
    fixture_fini(&f);
}

static void lower_class_goes_first_whoever_sent_it(void **state)
{
    struct fixture f;

    (void)state;
    fixture_init(&f, NULL);
    struct message_options messages[] = {
        {.id = 1, .recipients = "b@v", .class = 2},   {.id = 2, .recipients = "b@w", .class = 1},
        {.id = 3, .recipients = "b@x", .class = 255}, {.id = 4, .recipients = "b@y", .class = 15},
        {.id = 5, .recipients = "b@v", .class = 1},   {.id = 6, .recipients = "b@z", .class = 0},
        {.id = 7, .recipients = "b@v", .class = 14},
    };
    static const uint64_t expected[] = {6, 2, 5, 1, 7};
    for (uint32_t i = 0; i < COUNT_OF(messages); i++)
        insert(&f, &messages[i]);
    struct qmgr_round *round = qmgr_round_new(f.qmgr);
    gather(&f, round);
    for (uint32_t i = 0; i < COUNT_OF(expected); i++)
        assert_int_equal(expected[i], round_take(&f, round));
    uint64_t last = round_take(&f, round) + round_take(&f, round); /* these two are alike */
    assert_int_equal(3 + 4, last);
    assert_null(qmgr_round_next(round));
    int64_t rank = 77;
    assert_null(qmgr_round_take(f.qmgr, round, f.now, &rank));
    assert_int_equal(77, rank);
    round_end(&f, round);
    fixture_fini(&f);
}

/* Goal: a later class gets the share of turns that it is promised, and no more. */
static void later_classes_get_what_they_are_promised(void **state)
{
    static const struct {
        const char *name;
        uint8_t least[3];
        const char *order; /* the class of each of the first turns */
    } rows[] = {
        {"nothing", {0, 0, 0}, "00000000000000000000"},
        {"a tenth", {0, 0, 10}, "00000000002000000000"},
        {"a quarter", {0, 25, 0}, "00001000100010001000"},
        {"half", {0, 50, 0}, "00101010101010101010"},
        {"all", {0, 100, 0}, "01111111111111111111"},
        {"two", {0, 20, 20}, "00000120001200012000"},
        {"of the first means nothing", {90, 0, 0}, "00000000000000000000"},
    };
    struct qmgr_classes classes = {.names = {"a", "b", "c"}, .count = 3};

    (void)state;
    for (uint32_t row = 0; row < COUNT_OF(rows); row++) {
        struct fixture f;
        fixture_init(&f, NULL);
        memcpy(classes.least, rows[row].least, sizeof(rows[row].least));
        qmgr_set_classes(f.qmgr, &classes);
        for (uint32_t i = 0; i < 90; i++)
            insert(&f, &(struct message_options){
                           .id = i + 1, .recipients = "b@y", .class = (uint8_t)(i % 3)});
        struct qmgr_round *round = qmgr_round_new(f.qmgr);
        gather(&f, round);
        for (uint32_t i = 0; rows[row].order[i] != '\0'; i++) {
            char got = (char)('0' + (round_take(&f, round) - 1) % 3);
            if (got != rows[row].order[i])
                fail_msg("%s: turn %u is %c", rows[row].name, i, got);
        }
        round_end(&f, round);
        fixture_fini(&f);
    }
}

static void classes_have_names(void **state)
{
    static const struct qmgr_classes classes = {.names = {"first", "bulk"}, .count = 2};
    struct fixture f;
    char name[QMGR_CLASS_NAME_SIZE];

    (void)state;
    fixture_init(&f, NULL);
    assert_string_equal("0", qmgr_class_name(f.qmgr, 0, name));
    qmgr_set_classes(f.qmgr, &classes);
    assert_string_equal("bulk", qmgr_class_name(f.qmgr, 1, name));
    assert_string_equal("2", qmgr_class_name(f.qmgr, 2, name));
    assert_int_equal(1, qmgr_class_find(f.qmgr, SPAN_LITERAL("BULK")));
    assert_int_equal(QMGR_CLASS_COUNT, qmgr_class_find(f.qmgr, SPAN_LITERAL("2")));
    fixture_fini(&f);
}

static void ranks_go_by_class_then_by_the_last_turn(void **state)
{
    struct fixture f;
    int64_t rank[4];

    (void)state;
    fixture_init(&f, NULL);
    insert_from(&f, 1, "a@early.example", "b@y");
    insert_from(&f, 2, "a@early.example", "b@y");
    struct qmgr_round *round = qmgr_round_new(f.qmgr);
    gather(&f, round);
    fixture_pass(&f, TICK_S(1));
    insert_from(&f, 3, "a@late.example", "b@y");
    fixture_pass(&f, TICK_S(1));
    for (uint32_t i = 0; i < 3; i++)
        (void)take_id(&f, qmgr_round_take(f.qmgr, round, f.now, &rank[i]));
    assert_true(rank[0] < rank[1]); /* 1, then 3 */
    assert_true(rank[1] < rank[2]); /* then 2: its sender had a turn just now */
    rank[3] = qmgr_rank(1, 0);
    assert_true(rank[2] < rank[3]);
    assert_true(qmgr_rank(255, f.now.wall) > qmgr_rank(254, INT64_MAX));
    round_end(&f, round);
    fixture_fini(&f);
}

/* Goal: the memory for shares is bounded; who comes too late has a turn, too. */
static void too_many_senders_share_a_part(void **state)
{
    struct qmgr_options options = {.message_count_max = 5000,
                                   .body_memory_max = 1000,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(3600)};
    struct fixture f;
    char sender[32];

    (void)state;
    fixture_init(&f, &options);
    for (uint32_t i = 0; i < QMGR_FAIR_PARTS_MAX + 3; i++) {
        (void)snprintf(sender, sizeof(sender), "a@s%u.example", i);
        insert_from(&f, i + 1, sender, "b@y");
    }
    assert_int_equal(QMGR_FAIR_PARTS_MAX + 1, f.qmgr->parts.in_use);
    insert_from(&f, 5000, "a@s0.example", "b@y"); /* has one of its own already */
    assert_int_equal(QMGR_FAIR_PARTS_MAX + 1, f.qmgr->parts.in_use);
    struct qmgr_round *round = qmgr_round_new(f.qmgr);
    gather(&f, round);
    for (uint32_t i = 0; i < QMGR_FAIR_PARTS_MAX + 1; i++) {
        int64_t rank;
        struct qmgr_delivery *delivery = qmgr_round_take(f.qmgr, round, f.now, &rank);
        assert_int_equal(i + 1, take_id(&f, delivery));
        fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    /* The first one's second, then the two that are left of the joint part. */
    assert_int_equal(5000, round_take(&f, round));
    assert_int_equal(QMGR_FAIR_PARTS_MAX + 2, round_take(&f, round));
    /* A sender of the joint part has one of its own as soon as there is room. */
    (void)snprintf(sender, sizeof(sender), "a@s%u.example", QMGR_FAIR_PARTS_MAX + 2);
    insert_from(&f, 6000, sender, "b@y");
    assert_int_equal(2, f.qmgr->parts.in_use);
    assert_int_equal(QMGR_FAIR_PARTS_MAX + 3, round_take(&f, round));
    assert_int_equal(6000, round_take(&f, round));
    assert_int_equal(0, f.qmgr->parts.in_use);
    assert_int_equal(0, f.qmgr->shares.in_use);
    round_end(&f, round);
    fixture_fini(&f);
}

/* ---- everything at once, against a plain model ---- */

#define SENDERS  4u
#define DOMAINS  3u
#define MESSAGES 64u

enum model_state { GONE, READY, ACTIVE };

struct model {
    struct fixture f;
    struct qmgr_round *round;
    struct rng rng;
    uint64_t next_id;
    struct {
        enum model_state state;
        uint64_t id;
        wall_us arrived;
        uint32_t sender, domain;
        struct qmgr_delivery *handle; /* ACTIVE */
    } messages[MESSAGES];
    uint32_t order[SENDERS], order_count; /* whose turn it is */
    uint32_t domains[SENDERS][DOMAINS], domain_count[SENDERS];
};

static uint32_t model_ready(const struct model *m, uint32_t sender, uint32_t domain)
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < MESSAGES; i++)
        count += m->messages[i].state == READY && m->messages[i].sender == sender &&
                 m->messages[i].domain == domain;
    return count;
}

static void list_drop(uint32_t *list, uint32_t *count, uint32_t value)
{
    uint32_t kept = 0;

    for (uint32_t i = 0; i < *count; i++) {
        if (list[i] != value)
            list[kept++] = list[i];
    }
    *count = kept;
}

static void model_make_ready(struct model *m, uint32_t index)
{
    uint32_t sender = m->messages[index].sender, domain = m->messages[index].domain;

    if (model_ready(m, sender, domain) == 0) {
        if (m->domain_count[sender] == 0)
            m->order[m->order_count++] = sender;
        m->domains[sender][m->domain_count[sender]++] = domain;
    }
    m->messages[index].state = READY;
}

static void model_unready(struct model *m, uint32_t index, enum model_state state)
{
    uint32_t sender = m->messages[index].sender, domain = m->messages[index].domain;

    m->messages[index].state = state;
    if (model_ready(m, sender, domain) > 0)
        return;
    list_drop(m->domains[sender], &m->domain_count[sender], domain);
    if (m->domain_count[sender] == 0)
        list_drop(m->order, &m->order_count, sender);
}

static uint32_t model_pick(struct model *m, enum model_state state)
{
    uint32_t start = rng_below(&m->rng, MESSAGES);

    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (m->messages[(start + i) % MESSAGES].state == state)
            return (start + i) % MESSAGES;
    }
    return MESSAGES;
}

static void op_insert(struct model *m)
{
    uint32_t index = model_pick(m, GONE);
    char sender[] = "a@s_.example", recipient[] = "b@d_";

    if (index == MESSAGES)
        return;
    uint32_t s = rng_below(&m->rng, SENDERS), d = rng_below(&m->rng, DOMAINS);
    sender[3] = (char)('0' + s);
    recipient[3] = (char)('0' + d);
    m->messages[index].id = ++m->next_id;
    m->messages[index].arrived = m->f.now.wall - (wall_us)rng_below(&m->rng, 100);
    m->messages[index].sender = s;
    m->messages[index].domain = d;
    insert(&m->f, &(struct message_options){.id = m->next_id,
                                            .sender = sender,
                                            .recipients = recipient,
                                            .arrived = m->messages[index].arrived});
    model_make_ready(m, index);
    gather(&m->f, m->round);
}

static void op_take(struct model *m)
{
    int64_t rank;
    struct qmgr_delivery *delivery = qmgr_round_take(m->f.qmgr, m->round, m->f.now, &rank);

    assert_int_equal(m->order_count == 0, delivery == NULL);
    if (delivery == NULL)
        return;
    uint32_t sender = m->order[0], domain = m->domains[sender][0], taken = MESSAGES;
    list_drop(m->order, &m->order_count, sender);
    m->order[m->order_count++] = sender;
    list_drop(m->domains[sender], &m->domain_count[sender], domain);
    m->domains[sender][m->domain_count[sender]++] = domain;
    uint64_t id = take_id(&m->f, delivery);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (m->messages[i].state == READY && m->messages[i].id == id)
            taken = i;
    }
    assert_true(taken < MESSAGES);
    assert_int_equal(sender, m->messages[taken].sender);
    assert_int_equal(domain, m->messages[taken].domain);
    for (uint32_t i = 0; i < MESSAGES; i++) {
        if (m->messages[i].state == READY && m->messages[i].sender == sender &&
            m->messages[i].domain == domain)
            assert_true(m->messages[taken].arrived <= m->messages[i].arrived);
    }
    m->messages[taken].handle = delivery;
    model_unready(m, taken, ACTIVE);
}

/* Delivered, or back to where it was: older than what came meanwhile. */
static void op_finish(struct model *m)
{
    uint32_t index = model_pick(m, ACTIVE);

    if (index == MESSAGES)
        return;
    if (rng_below(&m->rng, 2) == 0) {
        fixture_finish_all(&m->f, m->messages[index].handle, RECIPIENT_DELIVERED, "250 ok");
        m->messages[index].state = GONE;
        return;
    }
    qmgr_finish(m->f.qmgr, m->messages[index].handle, &(struct qmgr_finish){.retry_now = true},
                m->f.now);
    model_make_ready(m, index);
    gather(&m->f, m->round);
}

/* Out of the middle. */
static void op_delete(struct model *m)
{
    uint32_t index = model_pick(m, READY);
    struct qmgr_order order = {.verb = QMGR_VERB_DELETE, .id = 1};
    struct qmgr_acted acted = {0};

    if (index == MESSAGES)
        return;
    struct message_id id = {(uint64_t)m->messages[index].arrived, m->messages[index].id};
    struct qmgr_message *message = qmgr_find(m->f.qmgr, id);
    assert_non_null(message);
    struct qmgr_match match = {.message = message, .delivery = message->deliveries};
    qmgr_act(m->f.qmgr, &match, 1, &order, &acted, m->f.now);
    assert_int_equal(1, acted.done);
    model_unready(m, index, GONE);
}

static void random_work_keeps_the_order(void **state)
{
    static void (*const ops[])(struct model *) = {op_insert, op_insert, op_insert, op_take,
                                                  op_take,   op_finish, op_finish, op_delete};

    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        struct model *m = calloc(1, sizeof(*m));
        assert_non_null(m);
        fixture_init(&m->f, NULL);
        m->round = qmgr_round_new(m->f.qmgr);
        rng_init_seed(&m->rng, seed);
        for (uint32_t i = 0; i < 600; i++) {
            ops[rng_below(&m->rng, COUNT_OF(ops))](m);
            m->f.now.tick += 10;
            m->f.now.wall += 10;
            assert_int_equal(0, qmgr_verify(m->f.qmgr));
        }
        round_end(&m->f, m->round);
        fixture_fini(&m->f);
        free(m);
    }
}

/* ---- size ---- */

/* Goal: a sender's fifty thousand letters do not keep another's one waiting, in whatever order
 * they come, and no step looks at more than a few of them (or this takes minutes). */
static void a_flood_delays_nobody_else(void **state)
{
    static const uint32_t count = 50000;
    struct qmgr_options options = {.message_count_max = 200000,
                                   .body_memory_max = 1000,
                                   .retry_min = TICK_S(300),
                                   .retry_max = TICK_S(3600)};
    struct fixture f;
    struct message_options message = {.sender = "a@big.example", .recipients = "b@y"};
    int64_t rank;

    (void)state;
    fixture_init(&f, &options);
    for (uint32_t i = 0; i < count; i++) {
        message.id = i + 1;
        message.arrived = f.now.wall - (wall_us)(i * 7919ull % count); /* in a scattered order */
        insert(&f, &message);
    }
    struct qmgr_round *round = qmgr_round_new(f.qmgr);
    gather(&f, round);
    wall_us before = 0;
    for (uint32_t i = 0; i < 1000; i++) {
        struct qmgr_delivery *delivery = qmgr_round_take(f.qmgr, round, f.now, &rank);
        wall_us arrived = qmgr_delivery_view(f.qmgr, delivery).envelope->arrived;
        assert_true(arrived >= before);
        before = arrived;
        fixture_finish_all(&f, delivery, RECIPIENT_DELIVERED, "250 ok");
    }
    insert_from(&f, count + 1, "a@small.example", "b@y");
    (void)take_id(&f, qmgr_round_take(f.qmgr, round, f.now, &rank));
    assert_int_equal(count + 1, take_id(&f, qmgr_round_take(f.qmgr, round, f.now, &rank)));
    assert_int_equal(1, f.qmgr->parts.in_use);
    qmgr_round_leave(f.qmgr, slab_next(&f.qmgr->lines, &(uint64_t){0}));
    qmgr_round_free(round);
    fixture_fini(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(senders_of_a_line_take_turns),
        cmocka_unit_test(a_share_is_a_domain),
        cmocka_unit_test(domains_of_a_site_are_one_share),
        cmocka_unit_test(lower_class_goes_first_whoever_sent_it),
        cmocka_unit_test(later_classes_get_what_they_are_promised),
        cmocka_unit_test(classes_have_names),
        cmocka_unit_test(ranks_go_by_class_then_by_the_last_turn),
        cmocka_unit_test(too_many_senders_share_a_part),
        cmocka_unit_test(random_work_keeps_the_order),
        cmocka_unit_test(a_flood_delays_nobody_else),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
