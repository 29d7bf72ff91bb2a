/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Goal: what is handed to another shard, and what comes back, is whole and belongs to nobody else:
 * the originals may be gone.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/handover.h"

#define BODY_MAX (8u << 20)

static const struct settings_source us = {.name = "us", .hello_name = "us.example"};

struct fixture {
    struct buf_pool *pool;
    struct buf_queue body;
    struct envelope envelope;
    struct envelope_recipient recipients[4];
    struct mx_answer hosts;
    struct client_request request;
};

static const uint32_t indexes[] = {3, 1, 0};

static void fixture_open(struct fixture *f, uint32_t body_size)
{
    *f = (struct fixture){0};
    f->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 16384, .count_max = 1000, .backing = BUF_BACKING_HEAP});
    buf_queue_init(&f->body);
    uint8_t *octets = malloc(body_size + 1u);
    assert_non_null(octets);
    memset(octets, 'x', body_size);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&f->body, f->pool, span_of(octets, body_size)));
    free(octets);
    for (uint32_t i = 0; i < COUNT_OF(f->recipients); i++) {
        f->recipients[i].address = SPAN_LITERAL("b@y.example");
        f->recipients[i].domain = SPAN_LITERAL("y.example");
    }
    f->envelope = (struct envelope){
        .id = {1793621600000000, 42},
        .arrived = 1793621600000000,
        .expires = 1793621600000001,
        .sender = SPAN_LITERAL("a@x.example"),
        .recipients = f->recipients,
        .recipient_count = COUNT_OF(f->recipients),
        .body_size = body_size,
    };
    f->hosts.host_count = 1;
    f->request = (struct client_request){
        .source = &us,
        .site = 77,
        .hosts = &f->hosts,
        .envelope = &f->envelope,
        .recipients = indexes,
        .recipient_count = COUNT_OF(indexes),
        .body = &f->body,
    };
}

static void fixture_close(struct fixture *f)
{
    buf_queue_fini(&f->body);
    buf_pool_free(f->pool);
}

static void request_survives_its_original(void **state)
{
    struct fixture f;
    struct handover *handover;
    struct envelope copy;
    struct arena arena;

    (void)state;
    fixture_open(&f, 70000);
    assert_int_equal(ERR_OK, handover_new(2, &f, &f.request, SPAN_LITERAL("y.example"), &handover));
    fixture_close(&f);
    memset(&f.envelope, 0xff, sizeof(f.envelope));

    assert_int_equal(2, handover->owner);
    assert_ptr_equal(&f, handover->owner_job);
    assert_int_equal(77, handover->site);
    assert_string_equal("y.example", handover->label);
    assert_int_equal(1, handover->hosts.host_count);
    assert_int_equal(COUNT_OF(indexes), handover->recipient_count);
    assert_memory_equal(indexes, handover->recipients, sizeof(indexes));
    assert_int_equal(70000, handover->body_size);
    assert_int_equal('x', handover->body[0]);
    assert_int_equal('x', handover->body[69999]);
    arena_init(&arena, 4096, 65536);
    assert_int_equal(
        ERR_OK, envelope_decode(span_of(handover->encoded, handover->encoded_size), &arena, &copy));
    assert_int_equal(42, copy.id.low);
    assert_int_equal(4, copy.recipient_count);
    assert_true(span_is_equal(copy.sender, SPAN_LITERAL("a@x.example")));
    arena_fini(&arena);
    handover_free(handover);
}

static void large_bodies_stay_at_home(void **state)
{
    static const struct {
        uint32_t size;
        enum err err;
    } rows[] = {{0, ERR_OK}, {1, ERR_OK}, {BODY_MAX, ERR_OK}, {BODY_MAX + 1, ERR_LIMIT}};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct fixture f;
        struct handover *handover = NULL;

        fixture_open(&f, rows[i].size);
        assert_int_equal(rows[i].err,
                         handover_new(0, &f, &f.request, SPAN_LITERAL("y.example"), &handover));
        fixture_close(&f);
        if (handover != NULL) {
            assert_int_equal(rows[i].size, handover->body_size);
            handover_set_result(handover, NULL);
            handover_free(handover);
        }
    }
}

/* What an operator rerouted names the other domain with each recipient. */
static void large_envelopes_stay_at_home(void **state)
{
    static const struct {
        uint32_t domain_size;
        enum err err;
    } rows[] = {{90, ERR_OK}, {200, ERR_LIMIT}};
    enum { COUNT = 5000 };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct envelope_recipient *recipients = calloc(COUNT, sizeof(*recipients));
        struct handover *handover = NULL;
        struct fixture f;
        char domain[200];

        assert_non_null(recipients);
        fixture_open(&f, 0);
        memset(domain, 'z', sizeof(domain));
        for (uint32_t r = 0; r < COUNT; r++)
            recipients[r] =
                (struct envelope_recipient){.address = SPAN_LITERAL("b@y.example"),
                                            .domain = span_of(domain, rows[i].domain_size),
                                            .origin = SPAN_LITERAL("y.example")};
        f.envelope.recipients = recipients;
        f.envelope.recipient_count = COUNT;
        assert_int_equal(rows[i].err,
                         handover_new(0, &f, &f.request, SPAN_LITERAL("y.example"), &handover));
        if (handover != NULL) {
            handover_set_result(handover, NULL);
            handover_free(handover);
        }
        fixture_close(&f);
        free(recipients);
    }
}

static void no_result_leaves_all_due(void **state)
{
    struct fixture f;
    struct handover *handover;

    (void)state;
    fixture_open(&f, 10);
    assert_int_equal(ERR_OK, handover_new(0, &f, &f.request, SPAN_LITERAL("y.example"), &handover));
    handover_set_result(handover, NULL);
    assert_false(handover->result.was_attempted);
    assert_int_equal(COUNT_OF(indexes), handover->result.recipient_count);
    for (uint32_t i = 0; i < COUNT_OF(indexes); i++) {
        assert_int_equal(RECIPIENT_DUE, handover->result.recipients[i].state);
        assert_int_equal(0, handover->result.recipients[i].reply.size);
    }
    handover_free(handover);
    fixture_close(&f);
}

/* The holder may have been reloaded with a smaller recipients_per_transaction than the owner's. */
static void result_may_be_of_fewer_recipients(void **state)
{
    (void)state;
    for (uint32_t count = 0; count <= COUNT_OF(indexes); count++) {
        struct fixture f;
        struct handover *handover;
        char reply[] = "550 5.1.1 who?";
        struct client_recipient_result results[COUNT_OF(indexes)] = {0};

        fixture_open(&f, 10);
        assert_int_equal(ERR_OK,
                         handover_new(0, &f, &f.request, SPAN_LITERAL("y.example"), &handover));
        for (uint32_t i = 0; i < count; i++) {
            results[i].state = RECIPIENT_FAILED;
            results[i].code = 550;
            results[i].reply = i == 1 ? (struct span){0} : span_from_text(reply);
        }
        handover_set_result(handover, &(struct client_result){.recipients = results,
                                                              .recipient_count = count,
                                                              .was_attempted = true,
                                                              .host = "mx.y.example"});
        memset(reply, '?', sizeof(reply));
        memset(results, 0xff, sizeof(results));
        assert_int_equal(count, handover->result.recipient_count);
        assert_string_equal("mx.y.example", handover->result.host);
        for (uint32_t i = 0; i < count; i++) {
            const struct client_recipient_result *result = &handover->result.recipients[i];
            assert_int_equal(RECIPIENT_FAILED, result->state);
            assert_true(span_is_equal(result->reply,
                                      i == 1 ? (struct span){0} : SPAN_LITERAL("550 5.1.1 who?")));
        }
        handover_free(handover);
        fixture_close(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_survives_its_original),
        cmocka_unit_test(large_bodies_stay_at_home),
        cmocka_unit_test(large_envelopes_stay_at_home),
        cmocka_unit_test(no_result_leaves_all_due),
        cmocka_unit_test(result_may_be_of_fewer_recipients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
