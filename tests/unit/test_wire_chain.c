/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Octets in chains of buffers: every function on every way to cut the same octets, against the
 * octets in one piece.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h wants the ones above first. */
#include <cmocka.h>

#include "dataplane/wire/format/packet.h"
#include "dataplane/wire/net/chain.h"

#define SIZE 23u

static uint8_t octets[SIZE];
static struct buf_pool *pool;

static int setup(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < SIZE; i++)
        octets[i] = (uint8_t)(i * 37 + 1);
    pool = buf_pool_new(&(struct buf_pool_options){SIZE, CHAIN_MAX + 1, BUF_BACKING_HEAP});
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    buf_pool_free(pool); /* CHECKs that all came back */
    return 0;
}

/* The octets in pieces of `piece` octets (the first of `first`), each at the end of its block. */
static struct buf *chain_new(uint32_t first, uint32_t piece)
{
    struct buf *head = NULL, *last = NULL;

    for (uint32_t at = 0; head == NULL || at < SIZE;) {
        uint32_t part = head == NULL ? first : piece;
        part = part < SIZE - at ? part : SIZE - at;
        struct buf *buf = buf_acquire(pool);
        assert_non_null(buf);
        buf->mbuf.data_off = (uint16_t)(BUF_HEADROOM + SIZE - part);
        memcpy(buf_data(buf), octets + at, part);
        buf_extend(buf, part);
        at += part;
        if (head == NULL) {
            head = buf;
        } else {
            last->mbuf.next = &buf->mbuf;
            head->mbuf.nb_segs++;
        }
        last = buf;
    }
    head->mbuf.pkt_len = SIZE;
    return head;
}

static void expect_octets(const struct buf *chain, const uint8_t *expected, uint32_t size)
{
    uint32_t at = 0;
    uint16_t count = 0;

    assert_int_equal(size, chain->mbuf.pkt_len);
    for (const struct buf *buf = chain; buf != NULL; buf = chain_next(buf), count++) {
        assert_true(at + buf_size(buf) <= size);
        assert_memory_equal(expected + at, buf_data(buf), buf_size(buf));
        at += buf_size(buf);
    }
    assert_int_equal(size, at);
    assert_int_equal(count, chain->mbuf.nb_segs);
}

static void test_sum_and_copy_out(void **state)
{
    (void)state;
    for (uint32_t piece = 1; piece <= SIZE; piece++) {
        struct buf *chain = chain_new(piece / 2, piece);
        assert_int_equal(SIZE, chain_size(chain));
        for (uint32_t from = 0; from <= SIZE; from++) {
            for (uint32_t size = 0; from + size <= SIZE; size++) {
                uint8_t copy[SIZE];
                assert_int_equal(wire_sum_finish(wire_sum(octets + from, size)),
                                 wire_sum_finish(chain_sum(chain, from, size)));
                chain_copy_out(chain, from, copy, size);
                assert_memory_equal(octets + from, copy, size);
            }
        }
        buf_release_chain(chain);
    }
}

static void test_trim(void **state)
{
    (void)state;
    for (uint32_t piece = 1; piece <= SIZE; piece++) {
        for (uint32_t size = 0; size <= SIZE; size++) {
            struct buf *chain = chain_new(piece, piece);
            chain_trim(chain, size);
            expect_octets(chain, octets, size);
            buf_release_chain(chain);
        }
    }
}

static void test_copy(void **state)
{
    (void)state;
    for (uint32_t piece = 1; piece <= SIZE; piece++) {
        for (uint32_t from = 0; from <= SIZE; from++) {
            struct buf *chain = chain_new(piece, piece);
            /* With 20 octets less of headroom the rest fits into one; with SIZE - 3 more into ten.
             */
            struct buf *one = chain_copy(pool, chain, from, BUF_HEADROOM - 20);
            struct buf *many = chain_copy(pool, chain, from, BUF_HEADROOM + SIZE - 3);
            expect_octets(one, octets + from, SIZE - from);
            expect_octets(many, octets + from, SIZE - from);
            assert_int_equal(1, one->mbuf.nb_segs);
            assert_int_equal(from == SIZE ? 1 : (SIZE - from + 2) / 3, many->mbuf.nb_segs);
            buf_release_chain(chain);
            buf_release_chain(one);
            buf_release_chain(many);
        }
    }
}

/* Into the room of the first buffer where it is ours and has some, else into a fresh one. */
static void test_pull_up(void **state)
{
    enum { ROOM, NO_ROOM, SHARED, WAYS };

    (void)state;
    for (uint32_t i = 0; i < SIZE * SIZE * WAYS; i++) {
        uint32_t piece = 1 + i / WAYS % SIZE, size = 1 + i / WAYS / SIZE;
        struct buf *chain = chain_new(piece, piece);
        if (i % WAYS != NO_ROOM) { /* the first one's octets to the front of its block */
            memmove((uint8_t *)chain->mbuf.buf_addr + BUF_HEADROOM, buf_data(chain), piece);
            chain->mbuf.data_off = BUF_HEADROOM;
        }
        if (i % WAYS == SHARED)
            chain->mbuf.ol_flags = RTE_MBUF_F_EXTERNAL;
        chain->mbuf.ol_flags |= RTE_MBUF_F_RX_IP_CKSUM_GOOD;
        struct buf *head = chain_pull_up(pool, chain, size);
        assert_non_null(head);
        assert_true(buf_size(head) >= size);
        expect_octets(head, octets, SIZE);
        assert_int_equal(piece >= size || i % WAYS == ROOM, head == chain);
        assert_true(head->mbuf.ol_flags & RTE_MBUF_F_RX_IP_CKSUM_GOOD);
        if (head != chain)
            assert_false(head->mbuf.ol_flags & RTE_MBUF_F_EXTERNAL);
        head->mbuf.ol_flags = 0;
        buf_release_chain(head);
    }
}

static void test_empty_pool(void **state)
{
    struct buf_pool *none = buf_pool_new(&(struct buf_pool_options){4, 2, BUF_BACKING_HEAP});
    struct buf *chain = chain_new(5, 5);
    struct buf *taken = buf_acquire(none);

    (void)state;
    assert_null(chain_pull_up(none, chain, 10)); /* its buffers are too small */
    assert_null(chain_copy(none, chain, 0, BUF_HEADROOM));
    assert_int_equal(1, buf_pool_in_use(none));
    buf_release(taken);
    struct buf *two[] = {buf_acquire(none), buf_acquire(none)};
    assert_null(chain_pull_up(none, chain, 10));
    expect_octets(chain, octets, SIZE);
    buf_release(two[0]);
    buf_release(two[1]);
    buf_release_chain(chain);
    buf_pool_free(none);
}

static void test_longest_chain(void **state)
{
    struct buf *chain = chain_new(0, SIZE), *last = chain_next(chain);

    (void)state;
    for (uint32_t i = 2; i < CHAIN_MAX; i++) {
        struct buf *buf = buf_acquire(pool);
        last->mbuf.next = &buf->mbuf;
        last = buf;
    }
    assert_int_equal(SIZE, chain_size(chain));
    struct buf *buf = buf_acquire(pool);
    last->mbuf.next = &buf->mbuf;
    assert_int_equal(UINT32_MAX, chain_size(chain));
    buf_release_chain(chain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_and_copy_out),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_copy),
        cmocka_unit_test(test_pull_up),
        cmocka_unit_test(test_empty_pool),
        cmocka_unit_test(test_longest_chain),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
