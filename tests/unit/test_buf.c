/* SPDX-License-Identifier: Apache-2.0 */
/* Buffers and queues of slices: exhaustion, reference counts, joins, and a random walk against a
 * plain array of octets. Every test runs over both backings. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/buf.h"
#include "base/rng.h"
#include "death.h"

static struct buf_pool *new_pool(uint32_t data_size, uint32_t count_max, enum buf_backing backing)
{
    return buf_pool_new(&(struct buf_pool_options){
        .data_size = data_size, .count_max = count_max, .backing = backing});
}

static enum buf_backing backing_of(void **state)
{
    return *(const enum buf_backing *)*state;
}

static void test_fresh_buffer(void **state)
{
    struct buf_pool *pool = new_pool(1000, 4, backing_of(state));
    struct buf *buf = buf_acquire(pool);

    assert_non_null(buf);
    assert_int_equal(0, buf_size(buf));
    assert_int_equal(1000, buf_room(buf));
    assert_int_equal(BUF_HEADROOM + 1000, buf_charge(buf));
    assert_int_equal(1, buf->mbuf.refcnt);
    assert_int_equal(1, buf->mbuf.nb_segs);
    assert_null(buf->mbuf.next);
    memset(buf_data(buf) - BUF_HEADROOM, 1, BUF_HEADROOM + 1000);
    buf_extend(buf, 999);
    assert_int_equal(1, buf_room(buf));
    assert_int_equal(999, buf->mbuf.pkt_len);
    buf_release(buf);

    buf = buf_acquire(pool);
    assert_int_equal(0, buf_size(buf));
    assert_int_equal(1000, buf_room(buf));
    buf_release(buf);
    assert_int_equal(1000, buf_pool_data_size(pool));
    buf_pool_free(pool);
}

static void test_exhaustion_is_survived(void **state)
{
    enum { COUNT = BUF_POOL_BLOCK + 3 };
    struct buf_pool *pool = new_pool(100, COUNT, backing_of(state));
    struct buf *bufs[COUNT];

    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(COUNT - i, buf_pool_available(pool));
            bufs[i] = buf_acquire(pool);
            assert_non_null(bufs[i]);
            memset(buf_data(bufs[i]), (int)i, 100);
        }
        assert_null(buf_acquire(pool));
        assert_int_equal(round + 1, buf_pool_exhausted(pool));
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(i, buf_data(bufs[i])[0]);
            assert_int_equal(i, buf_data(bufs[i])[99]);
            buf_release(bufs[i]);
        }
        assert_int_equal(0, buf_pool_in_use(pool));
    }
    buf_pool_free(pool);
}

static void test_references(void **state)
{
    struct buf_pool *pool = new_pool(100, 1, backing_of(state));
    struct buf *buf = buf_acquire(pool);

    buf_reference(buf);
    buf_release(buf);
    assert_int_equal(1, buf_pool_in_use(pool));
    assert_null(buf_acquire(pool));
    buf_release(buf);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
}

static void free_pool(void *pool)
{
    buf_pool_free(pool);
}

static void release_buffer(void *buf)
{
    buf_release(buf);
}

static void extend_too_far(void *buf)
{
    buf_extend(buf, 101);
}

static void test_misuse_is_caught(void **state)
{
    struct buf_pool *pool = new_pool(100, 2, backing_of(state));
    struct buf *buf = buf_acquire(pool);

    assert_true(death_is_caused_by(free_pool, pool));
    assert_true(death_is_caused_by(extend_too_far, buf));
    buf_release(buf);
    if (backing_of(state) == BUF_BACKING_SLAB)
        assert_true(death_is_caused_by(release_buffer, buf));
    buf_pool_free(pool);
}

static void test_slices_that_touch_join(void **state)
{
    struct buf_pool *pool = new_pool(100, 2, backing_of(state));
    struct buf *buf = buf_acquire(pool), *other = buf_acquire(pool);
    struct buf_queue queue, tail;

    buf_queue_init(&queue);
    buf_queue_init(&tail);
    memcpy(buf_data(buf), "0123456789", 10);
    buf_extend(buf, 10);
    buf_queue_append(&queue, buf, BUF_HEADROOM, 0);
    assert_true(buf_queue_is_empty(&queue));
    buf_queue_append(&queue, buf, BUF_HEADROOM, 3);
    buf_queue_append(&queue, buf, BUF_HEADROOM + 3, 2);
    assert_int_equal(1, queue.count);
    assert_int_equal(2, buf->mbuf.refcnt);
    buf_queue_append(&queue, buf, BUF_HEADROOM + 6, 2); /* a hole: no join */
    assert_int_equal(2, queue.count);
    buf_queue_append(&queue, other, BUF_HEADROOM + 8, 2); /* another buffer: no join */
    assert_int_equal(3, queue.count);
    assert_int_equal(9, queue.size);

    /* A move joins where the ends touch and gives the spare reference back. */
    buf_queue_append(&tail, other, BUF_HEADROOM + 10, 5);
    buf_queue_append(&tail, buf, BUF_HEADROOM, 1);
    buf_queue_move(&queue, &tail);
    assert_int_equal(4, queue.count);
    assert_int_equal(2, other->mbuf.refcnt);
    assert_int_equal(15, queue.size);
    assert_true(buf_queue_is_empty(&tail) && tail.size == 0);
    assert_int_equal(7, buf_queue_get(&queue, 2)->size);

    buf_queue_fini(&queue);
    buf_queue_fini(&tail);
    assert_int_equal(1, buf->mbuf.refcnt);
    buf_release(buf);
    buf_release(other);
    buf_pool_free(pool);
}

static void test_copies_fill_what_is_ours_alone(void **state)
{
    struct buf_pool *pool = new_pool(100, 3, backing_of(state));
    struct buf_queue queue, shared;
    char text[400];

    memset(text, 'x', sizeof(text));
    buf_queue_init(&queue);
    buf_queue_init(&shared);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(text, 0)));
    assert_int_equal(0, buf_pool_in_use(pool));
    for (uint32_t i = 0; i < 10; i++)
        assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(text, 9)));
    assert_int_equal(1, queue.count);
    assert_int_equal(1, buf_pool_in_use(pool));

    /* Somebody else refers to the buffer: its room is no longer ours. */
    buf_queue_append_queue(&shared, &queue);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(text, 5)));
    assert_int_equal(2, buf_pool_in_use(pool));
    assert_int_equal(90, shared.size);

    /* All or nothing: 95 + 100 octets of room are left. */
    assert_int_equal(ERR_MEMORY, buf_queue_append_copy(&queue, pool, span_of(text, 196)));
    assert_int_equal(95, queue.size);
    assert_int_equal(2, buf_pool_in_use(pool));
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(text, 195)));
    assert_int_equal(290, queue.size);
    buf_queue_fini(&queue);
    buf_queue_fini(&shared);
    buf_pool_free(pool);
}

static void test_drop_releases_as_buffers_empty(void **state)
{
    struct buf_pool *pool = new_pool(10, 5, backing_of(state));
    struct buf_queue queue;
    char text[] = "abcdefghijklmnopqrstuvwxyz", got[26];

    buf_queue_init(&queue);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(text, 26)));
    assert_int_equal(3, buf_pool_in_use(pool));
    buf_queue_drop(&queue, 9);
    assert_int_equal(3, buf_pool_in_use(pool));
    buf_queue_drop(&queue, 1);
    assert_int_equal(2, buf_pool_in_use(pool));
    buf_queue_copy_out(&queue, 5, got, 11);
    assert_memory_equal("pqrstuvwxyz", got, 11);
    buf_queue_drop(&queue, 16);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_queue_drop(&queue, 0);
    buf_queue_fini(&queue);
    buf_pool_free(pool);
}

static void drop_too_much(void *queue)
{
    buf_queue_drop(queue, ((struct buf_queue *)queue)->size + 1);
}

static void copy_too_much(void *queue)
{
    char got[2];

    buf_queue_copy_out(queue, ((struct buf_queue *)queue)->size - 1, got, 2);
}

static void get_too_far(void *queue)
{
    (void)buf_queue_get(queue, ((struct buf_queue *)queue)->count);
}

static void take_too_much(void *queue)
{
    struct buf_queue into;

    buf_queue_init(&into);
    buf_queue_take(&into, queue, 4);
}

static void append_too_many(void *queue)
{
    struct buf_queue into;

    buf_queue_init(&into);
    buf_queue_append_slices(&into, queue, 1, 1);
}

static void test_bounds_are_checked(void **state)
{
    struct buf_pool *pool = new_pool(10, 5, backing_of(state));
    struct buf_queue queue;

    buf_queue_init(&queue);
    assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, SPAN_LITERAL("abc")));
    assert_true(death_is_caused_by(drop_too_much, &queue));
    assert_true(death_is_caused_by(copy_too_much, &queue));
    assert_true(death_is_caused_by(take_too_much, &queue));
    assert_true(death_is_caused_by(append_too_many, &queue));
    assert_true(death_is_caused_by(get_too_far, &queue));
    buf_queue_fini(&queue);
    buf_pool_free(pool);
}

/* ---- a random walk: queues against arrays ---- */

#define MODEL_SIZE 20000u

struct model {
    struct buf_queue queue;
    uint8_t octets[MODEL_SIZE];
    uint32_t size;
};

static void model_verify(const struct model *model)
{
    static uint8_t got[MODEL_SIZE];
    uint64_t size = 0;

    assert_int_equal(model->size, model->queue.size);
    for (uint32_t i = 0; i < model->queue.count; i++) {
        assert_true(buf_queue_get(&model->queue, i)->size > 0);
        assert_true(buf_queue_get(&model->queue, i)->buf->mbuf.refcnt > 0);
        size += buf_queue_get(&model->queue, i)->size;
    }
    assert_int_equal(size, model->queue.size);
    buf_queue_copy_out(&model->queue, 0, got, model->size);
    assert_memory_equal(model->octets, got, model->size);
}

static void model_put(struct model *model, const uint8_t *octets, uint32_t size)
{
    assert_true(size <= MODEL_SIZE - model->size);
    memcpy(model->octets + model->size, octets, size);
    model->size += size;
}

static void model_drop(struct model *model, uint32_t size)
{
    buf_queue_drop(&model->queue, size);
    model->size -= size;
    memmove(model->octets, model->octets + size, model->size);
}

static void step_copy(struct model *model, struct buf_pool *pool, struct rng *rng)
{
    uint8_t octets[300];
    uint32_t size = rng_below(rng, sizeof(octets) + 1);

    rng_fill(rng, octets, size);
    if (buf_queue_append_copy(&model->queue, pool, span_of(octets, size)) == ERR_OK)
        model_put(model, octets, size);
}

static void step_slice(struct model *model, struct buf_pool *pool, struct rng *rng)
{
    struct buf *buf = buf_acquire(pool);

    if (buf == NULL)
        return;
    uint32_t size = rng_below(rng, buf_room(buf)) + 1;
    rng_fill(rng, buf_data(buf), size);
    buf_extend(buf, size);
    for (uint32_t i = 0; i < 3; i++) {
        uint32_t offset = rng_below(rng, size), part = rng_below(rng, size - offset + 1);

        buf_queue_append(&model->queue, buf, BUF_HEADROOM + offset, part);
        model_put(model, buf_data(buf) + offset, part);
    }
    buf_release(buf);
}

static void step_append(struct model *model, const struct model *other, struct rng *rng)
{
    const struct buf_queue *source = &other->queue;
    uint32_t index = rng_below(rng, source->count + 1);
    uint32_t count = rng_below(rng, source->count - index + 1), before = 0, size = 0;

    if (rng_below(rng, 2) == 0) {
        buf_queue_append_queue(&model->queue, source);
        model_put(model, other->octets, other->size);
        return;
    }
    for (uint32_t i = 0; i < index + count; i++)
        *(i < index ? &before : &size) += buf_queue_get(source, i)->size;
    buf_queue_append_slices(&model->queue, source, index, count);
    model_put(model, other->octets + before, size);
}

static void step_take(struct model *model, struct model *other, struct rng *rng)
{
    uint32_t size = rng_below(rng, 4) == 0 ? other->size : rng_below(rng, other->size + 1);

    buf_queue_take(&model->queue, &other->queue, size);
    model_put(model, other->octets, size);
    other->size -= size;
    memmove(other->octets, other->octets + size, other->size);
}

static void step(struct model models[2], struct buf_pool *pool, struct rng *rng)
{
    uint32_t which = rng_below(rng, 2);
    struct model *model = &models[which], *other = &models[1 - which];

    if (model->size > MODEL_SIZE / 4)
        model_drop(model, model->size - rng_below(rng, 100));
    switch (rng_below(rng, 6)) {
    case 0:
        step_copy(model, pool, rng);
        break;
    case 1:
        step_slice(model, pool, rng);
        break;
    case 2:
        model_drop(model, rng_below(rng, model->size + 1));
        break;
    case 3:
        if (model->size + other->size < MODEL_SIZE / 2)
            step_append(model, other, rng);
        break;
    case 4:
        if (model->size + other->size < MODEL_SIZE / 2)
            step_take(model, other, rng);
        break;
    default:
        if (model->size + other->size < MODEL_SIZE / 2) {
            buf_queue_move(&model->queue, &other->queue);
            model_put(model, other->octets, other->size);
            other->size = 0;
        }
        break;
    }
}

static void test_queues_equal_arrays(void **state)
{
    struct buf_pool *pool = new_pool(128, 20, backing_of(state));
    struct model *models = calloc(2, sizeof(*models));
    struct rng rng;

    rng_init_seed(&rng, 20260101);
    for (uint32_t i = 0; i < 8000; i++) {
        step(models, pool, &rng);
        model_verify(&models[0]);
        model_verify(&models[1]);
    }
    assert_true(buf_pool_exhausted(pool) > 0);
    buf_queue_fini(&models[0].queue);
    buf_queue_fini(&models[1].queue);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
    free(models);
}

static void test_clone(void **state)
{
    const enum buf_backing backings[] = {BUF_BACKING_SLAB, BUF_BACKING_HEAP};
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(backings); i++) {
        struct buf_pool *octets = buf_pool_new(
            &(struct buf_pool_options){.data_size = 64, .count_max = 1, .backing = backings[i]});
        struct buf_pool *clones = buf_pool_new(
            &(struct buf_pool_options){.data_size = 1, .count_max = 2, .backing = backings[i]});
        struct buf *buf = buf_acquire(octets);
        memcpy(buf_data(buf), "0123456789", 10);
        buf_extend(buf, 10);

        struct buf *clone = buf_clone(clones, buf, BUF_HEADROOM + 2, 3);
        struct buf *second = buf_clone(clones, clone, BUF_HEADROOM + 9, 1);
        assert_null(buf_clone(clones, buf, BUF_HEADROOM, 1));
        assert_int_equal(buf_size(clone), 3);
        assert_memory_equal(buf_data(clone), "234", 3);
        assert_memory_equal(buf_data(second), "9", 1);
        buf_release(buf);
        assert_int_equal(buf_pool_in_use(octets), 1);
        clone->mbuf.next = &second->mbuf;
        buf_release_chain(clone);
        assert_int_equal(buf_pool_in_use(octets), 0);
        assert_int_equal(buf_pool_in_use(clones), 0);

        /* A buffer that was a clone is an ordinary one again. */
        buf = buf_acquire(clones);
        assert_int_equal(buf_room(buf), 1);
        *buf_data(buf) = 'x';
        buf_release(buf);
        buf_pool_free(octets);
        buf_pool_free(clones);
    }
}

int main(void)
{
    static enum buf_backing slab = BUF_BACKING_SLAB, heap = BUF_BACKING_HEAP;
#define BOTH(test) cmocka_unit_test_prestate(test, &slab), cmocka_unit_test_prestate(test, &heap)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_clone),
        BOTH(test_fresh_buffer),
        BOTH(test_exhaustion_is_survived),
        BOTH(test_references),
        BOTH(test_misuse_is_caught),
        BOTH(test_slices_that_touch_join),
        BOTH(test_copies_fill_what_is_ours_alone),
        BOTH(test_drop_releases_as_buffers_empty),
        BOTH(test_bounds_are_checked),
        BOTH(test_queues_equal_arrays),
    };
    return cmocka_run_group_tests_name("buf", tests, NULL, NULL);
}
