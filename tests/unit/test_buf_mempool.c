/* SPDX-License-Identifier: Apache-2.0 */
/* Pools on mempools: the same contract as slabs, and what a driver does to a buffer is seen here
 * and the other way round. Needs no huge pages and no privilege. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <pthread.h>
#include <rte_mbuf.h>

#include "base/buf.h"
#include "dataplane/wire/port/buf_mempool.h"
#include "dataplane/wire/port/eal.h"
#include "death.h"

static struct buf_pool *new_pool(const char *name, uint32_t count, uint32_t data_size)
{
    struct buf_pool *pool = NULL;

    assert_int_equal(ERR_OK,
                     buf_pool_new_on_mempool(name, count, data_size, BUF_MEMPOOL_ANY_NODE, &pool));
    assert_true(buf_pool_is_on_mempool(pool));
    assert_int_equal(count, buf_pool_available(pool));
    assert_int_equal(0, buf_pool_in_use(pool));
    return pool;
}

static struct rte_mbuf *to_mbuf(struct buf *buf)
{
    return (struct rte_mbuf *)(void *)buf;
}

static struct buf *to_buf(struct rte_mbuf *mbuf)
{
    return (struct buf *)(void *)mbuf;
}

static void test_fresh_buffer(void **state)
{
    struct buf_pool *pool = new_pool("fresh", 4, 1000);
    (void)state;

    for (uint32_t round = 0; round < 2; round++) {
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
        buf_reference(buf);
        buf_release(buf);
        assert_int_equal(1, buf_pool_in_use(pool));
        assert_int_equal(3, buf_pool_available(pool));
        buf_release(buf);
    }
    assert_int_equal(1000, buf_pool_data_size(pool));
    buf_pool_free(pool);
}

static void test_exhaustion_is_survived(void **state)
{
    enum { COUNT = 700 }; /* more than a cache takes */
    struct buf_pool *pool = new_pool("exhaustion", COUNT, 100);
    static struct buf *bufs[COUNT];
    (void)state;

    for (uint32_t round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(COUNT - i, buf_pool_available(pool));
            bufs[i] = buf_acquire(pool);
            assert_non_null(bufs[i]);
            memset(buf_data(bufs[i]), (int)i, 100);
        }
        assert_null(buf_acquire(pool));
        assert_int_equal(round + 1, buf_pool_exhausted(pool));
        assert_int_equal(COUNT, buf_pool_in_use(pool));
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(i & 255, buf_data(bufs[i])[0]);
            assert_int_equal(i & 255, buf_data(bufs[i])[99]);
            buf_release(bufs[i]);
        }
        assert_int_equal(0, buf_pool_in_use(pool));
    }
    buf_pool_free(pool);
}

/* Who lets go last, of the buffer and of its clones: we or a driver. */
struct row {
    const char *name;
    bool is_buffer_ours, is_clone_ours;
};

static void let_go(struct buf *buf, bool is_ours)
{
    if (is_ours)
        buf_release(buf);
    else
        rte_pktmbuf_free(to_mbuf(buf));
}

static void test_clone(void **state)
{
    const struct row rows[] = {
        {"both by us", true, true},
        {"clones by a driver", true, false},
        {"the buffer by a driver", false, true},
        {"both by a driver", false, false},
    };
    struct buf_pool *octets = new_pool("octets", 1, 64), *clones = new_pool("clones", 2, 1);
    (void)state;

    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct buf *buf = buf_acquire(octets);

        memcpy(buf_data(buf), "0123456789", 10);
        buf_extend(buf, 10);
        struct buf *clone = buf_clone(clones, buf, BUF_HEADROOM + 2, 3);
        struct buf *second = buf_clone(clones, clone, BUF_HEADROOM + 9, 1);

        print_message("# %s\n", rows[i].name);
        assert_null(buf_clone(clones, buf, BUF_HEADROOM, 1));
        assert_int_equal(i + 1, buf_pool_exhausted(clones));
        assert_int_equal(3, buf_size(clone));
        assert_memory_equal("234", buf_data(clone), 3);
        assert_memory_equal("9", buf_data(second), 1);
        assert_int_equal(3, buf->mbuf.refcnt);
        assert_ptr_equal(to_mbuf(buf), rte_mbuf_from_indirect(to_mbuf(second)));
        assert_int_equal(rte_pktmbuf_iova(to_mbuf(buf)) + 2, rte_pktmbuf_iova(to_mbuf(clone)));
        let_go(buf, rows[i].is_buffer_ours);
        let_go(second, rows[i].is_clone_ours);
        assert_int_equal(1, buf_pool_in_use(octets));
        let_go(clone, rows[i].is_clone_ours);
        assert_int_equal(0, buf_pool_in_use(octets));
        assert_int_equal(0, buf_pool_in_use(clones));

        /* A buffer that was a clone is an ordinary one again. */
        buf = buf_acquire(clones);
        assert_int_equal(1, buf_room(buf));
        assert_ptr_equal(buf + 1, buf->mbuf.buf_addr);
        *buf_data(buf) = 'x';
        buf_release(buf);
    }
    buf_pool_free(octets);
    buf_pool_free(clones);
}

/* What DPDK itself attaches is let go by us, and a driver's chain is an ordinary one. */
static void test_what_drivers_make(void **state)
{
    struct buf_pool *pool = new_pool("drivers", 8, 64);
    struct rte_mempool *mempool = buf_pool_mempool(pool);
    struct rte_mbuf *head = rte_pktmbuf_alloc(mempool), *tail = rte_pktmbuf_alloc(mempool);
    struct rte_mbuf *attached = rte_pktmbuf_alloc(mempool);
    (void)state;

    rte_pktmbuf_append(head, 64);
    rte_pktmbuf_append(tail, 10);
    assert_int_equal(0, rte_pktmbuf_chain(head, tail));
    rte_pktmbuf_attach(attached, head);
    struct buf *clone = buf_clone(pool, to_buf(attached), BUF_HEADROOM, 5);
    assert_int_equal(4, buf_pool_in_use(pool));
    assert_int_equal(3, head->refcnt);
    buf_release(to_buf(attached));
    buf_release_chain(to_buf(head));
    assert_int_equal(2, buf_pool_in_use(pool)); /* the clone and what it shows */
    buf_release(clone);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
}

static void on_octets_free(void *octets, void *context)
{
    assert_memory_equal("outside", octets, 7);
    (*(uint32_t *)context)++;
}

/* Octets outside of any mempool, as some drivers receive them. */
static void test_external_octets(void **state)
{
    struct buf_pool *pool = new_pool("external", 2, 64);
    struct rte_mbuf *mbuf = rte_pktmbuf_alloc(buf_pool_mempool(pool));
    static char octets[] = "outside";
    uint32_t freed = 0;
    struct rte_mbuf_ext_shared_info shared = {
        .free_cb = on_octets_free, .fcb_opaque = &freed, .refcnt = 1};
    (void)state;

    rte_pktmbuf_attach_extbuf(mbuf, octets, 0, 7, &shared);
    rte_pktmbuf_append(mbuf, 7);
    struct buf *clone = buf_clone(pool, to_buf(mbuf), 3, 4);
    assert_memory_equal("side", buf_data(clone), 4);
    buf_release(to_buf(mbuf));
    assert_int_equal(0, freed);
    buf_release(clone);
    assert_int_equal(1, freed);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
}

static void free_pool(void *pool)
{
    buf_pool_free(pool);
}

struct pair {
    struct buf_pool *pool;
    struct buf *buf;
};

static void clone_pair(void *context)
{
    const struct pair *pair = context;

    if (buf_clone(pair->pool, pair->buf, 0, 1) == NULL)
        exit(3);
}

/* The EAL's memory is shared with children, so these die before they change any. */
static void test_misuse_is_caught(void **state)
{
    struct buf_pool *pool = new_pool("misuse", 4, 100);
    struct buf_pool *slabs =
        buf_pool_new(&(struct buf_pool_options){.data_size = 100, .count_max = 4});
    struct buf *buf = buf_acquire(pool), *slab_buf = buf_acquire(slabs);
    (void)state;

    assert_true(death_is_caused_by(free_pool, pool));
    assert_true(death_is_caused_by(clone_pair, &(struct pair){pool, slab_buf}));
    assert_true(death_is_caused_by(clone_pair, &(struct pair){slabs, buf}));
    buf_release(buf);
    buf_release(slab_buf);
    buf_pool_free(pool);
    buf_pool_free(slabs);
}

static void test_queues(void **state)
{
    struct buf_pool *pool = new_pool("queues", 5, 10);
    struct buf_queue queue, shared;
    char got[26];
    (void)state;

    buf_queue_init(&queue);
    buf_queue_init(&shared);
    for (uint32_t i = 0; i < 26; i++) {
        uint8_t letter = (uint8_t)('a' + i);
        assert_int_equal(ERR_OK, buf_queue_append_copy(&queue, pool, span_of(&letter, 1)));
    }
    assert_int_equal(3, buf_pool_in_use(pool));
    buf_queue_append_queue(&shared, &queue);
    assert_int_equal(ERR_MEMORY, buf_queue_append_copy(&queue, pool, span_of(got, 21)));
    buf_queue_drop(&queue, 26);
    assert_int_equal(3, buf_pool_in_use(pool));
    buf_queue_copy_out(&shared, 0, got, 26);
    assert_memory_equal("abcdefghijklmnopqrstuvwxyz", got, 26);
    buf_queue_fini(&queue);
    buf_queue_fini(&shared);
    assert_int_equal(0, buf_pool_in_use(pool));
    buf_pool_free(pool);
}

static void *run_as_shard(void *context)
{
    struct buf_pool *pool = context;
    uint32_t available_before = buf_pool_available(pool);

    if (eal_thread_enter() != ERR_OK)
        return "no place";
    struct buf *buf = buf_acquire(pool);
    uint32_t available = buf_pool_available(pool);
    buf_release(buf);
    eal_thread_leave();
    if (available != available_before - 1)
        return "what its cache holds is not available to it";
    return NULL;
}

static void test_shards_register(void **state)
{
    struct buf_pool *pool = new_pool("shards", 1000, 64);
    pthread_t thread;
    void *complaint = NULL;
    (void)state;

    assert_int_equal(0, pthread_create(&thread, NULL, run_as_shard, pool));
    assert_int_equal(0, pthread_join(thread, &complaint));
    assert_null(complaint);
    assert_int_equal(0, buf_pool_in_use(pool)); /* though some lie in that thread's cache */
    buf_pool_free(pool);
}

/* Without huge pages too: a buffer of 2,048 octets does not take two small pages' worth. */
static void test_buffers_take_little_more_than_their_size(void **state)
{
    struct buf_pool *pool = NULL;
    (void)state;

    assert_int_equal(ERR_OK, buf_pool_new_on_mempool("dense", 20000, 2048, BUF_MEMPOOL_ANY_NODE,
                                                     &pool)); /* 48 of 64 MB; by pages 80 */
    buf_pool_free(pool);
}

static void test_too_much_is_an_error(void **state)
{
    struct buf_pool *pool = NULL, *first = new_pool("twice", 4, 100);
    (void)state;

    assert_int_equal(ERR_SYSTEM,
                     buf_pool_new_on_mempool("much", 1u << 20, 2048, BUF_MEMPOOL_ANY_NODE, &pool));
    assert_int_equal(ERR_SYSTEM,
                     buf_pool_new_on_mempool("twice", 4, 100, BUF_MEMPOOL_ANY_NODE, &pool));
    assert_null(pool);
    buf_pool_free(first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fresh_buffer),
        cmocka_unit_test(test_exhaustion_is_survived),
        cmocka_unit_test(test_clone),
        cmocka_unit_test(test_what_drivers_make),
        cmocka_unit_test(test_external_octets),
        cmocka_unit_test(test_misuse_is_caught),
        cmocka_unit_test(test_queues),
        cmocka_unit_test(test_shards_register),
        cmocka_unit_test(test_buffers_take_little_more_than_their_size),
        cmocka_unit_test(test_too_much_is_an_error),
    };
    const struct eal_options options = {.memory_mb = 64, .huge = EAL_HUGE_NEVER};
    struct eal_report report;

    if (eal_start(&options, &report) != ERR_OK) {
        print_message("1..1\nnot ok 1 - EAL: %s\n", report.error);
        return 1;
    }
    int failed = cmocka_run_group_tests_name("buf_mempool", tests, NULL, NULL);
    return failed;
}
