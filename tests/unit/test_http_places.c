/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Places over HTTP, with pairs of sockets for connections: who gets one, and who loses one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/span.h"
#include "control/http_places.h"

#define SHORT_MS 40
#define LONG_MS  20000

/* A connection: its end here, and the client's. */
struct pair {
    int here, there;
    struct http_seat *seat;
};

static struct pair pair_new(struct http_places *places, uint32_t listener)
{
    struct pair pair;
    int fds[2];

    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, fds));
    pair.here = fds[0];
    pair.there = fds[1];
    pair.seat = http_seat_take(places, fds[0], listener);
    assert_non_null(pair.seat);
    return pair;
}

static void pair_free(struct http_places *places, struct pair *pair)
{
    http_seat_leave(places, pair->seat);
    close(pair->here);
    close(pair->there);
}

/* Is the connection's socket shut down within the time? */
static bool is_sent_away(const struct pair *pair, int time_ms)
{
    struct pollfd look = {.fd = pair->there, .events = POLLIN};

    return poll(&look, 1, time_ms) == 1;
}

static struct http_places *places_new(uint32_t question, uint32_t stranger, uint32_t request,
                                      uint32_t take)
{
    struct http_patience patience = {question, stranger, request, take};
    struct http_places *places = http_places_new(&patience);

    assert_non_null(places);
    return places;
}

/* Goal: viewers leave questions to admins, and who waits in vain hears so. */
static void test_questions(void **state)
{
    struct http_places *places = places_new(SHORT_MS, LONG_MS, LONG_MS, LONG_MS);

    (void)state;
    for (uint32_t i = 0; i < HTTP_QUESTION_VIEWERS; i++)
        assert_true(http_question_begin(places, HTTP_ROLE_VIEWER));
    assert_false(http_question_begin(places, HTTP_ROLE_VIEWER));
    assert_false(http_question_begin(places, HTTP_ROLE_NONE)); /* open metrics */
    for (uint32_t i = HTTP_QUESTION_VIEWERS; i < HTTP_QUESTION_MAX; i++)
        assert_true(http_question_begin(places, HTTP_ROLE_ADMIN));
    assert_false(http_question_begin(places, HTTP_ROLE_ADMIN));
    http_question_end(places, HTTP_ROLE_ADMIN);
    assert_false(http_question_begin(places, HTTP_ROLE_VIEWER));
    http_question_end(places, HTTP_ROLE_VIEWER);
    assert_true(http_question_begin(places, HTTP_ROLE_VIEWER));
    assert_true(http_question_begin(places, HTTP_ROLE_ADMIN));
    http_places_free(places);
}

/* Goal: so much work at once, and one more when some is done. */
static void test_work(void **state)
{
    struct http_places *places = places_new(SHORT_MS, LONG_MS, LONG_MS, LONG_MS);

    (void)state;
    for (uint32_t i = 0; i < HTTP_WORK_MAX; i++)
        assert_true(http_work_begin(places));
    assert_false(http_work_begin(places));
    http_work_end(places);
    assert_true(http_work_begin(places));
    http_places_free(places);
}

/* Goal: the same of streams, which are not waited for. */
static void test_streams(void **state)
{
    struct http_places *places = places_new(LONG_MS, LONG_MS, LONG_MS, LONG_MS);

    (void)state;
    for (uint32_t i = 0; i < HTTP_STREAM_VIEWERS; i++)
        assert_true(http_stream_begin(places, HTTP_ROLE_VIEWER));
    assert_false(http_stream_begin(places, HTTP_ROLE_VIEWER));
    for (uint32_t i = HTTP_STREAM_VIEWERS; i < HTTP_STREAM_MAX; i++)
        assert_true(http_stream_begin(places, HTTP_ROLE_ADMIN));
    assert_false(http_stream_begin(places, HTTP_ROLE_ADMIN));
    http_stream_end(places, NULL, HTTP_ROLE_VIEWER);
    assert_true(http_stream_begin(places, HTTP_ROLE_VIEWER));
    http_places_free(places);
}

/* Goal: whoever has shown a token keeps the place that strangers want; the stranger who has been
 * here for longest leaves, and only at the listener that is full. */
static void test_strangers_make_room(void **state)
{
    enum { COUNT = HTTP_CLIENT_MAX - HTTP_CLIENT_SPARE };
    struct http_places *places = places_new(LONG_MS, LONG_MS, LONG_MS, LONG_MS);
    struct pair pairs[COUNT + 2], elsewhere = pair_new(places, 1);

    (void)state;
    for (uint32_t i = 0; i < COUNT; i++) {
        pairs[i] = pair_new(places, 0);
        usleep(i < 3 ? 2000 : 0); /* ages are milliseconds */
    }
    http_seat_asked(places, pairs[0].seat, HTTP_ROLE_VIEWER);
    http_seat_answered(places, pairs[0].seat);
    for (uint32_t i = 0; i < COUNT; i++)
        assert_false(is_sent_away(&pairs[i], 0));
    pairs[COUNT] = pair_new(places, 0);
    pairs[COUNT + 1] = pair_new(places, 0);
    assert_false(is_sent_away(&pairs[0], 0));
    assert_false(is_sent_away(&elsewhere, 0));
    assert_true(is_sent_away(&pairs[1], 0) && is_sent_away(&pairs[2], 0));
    for (uint32_t i = 3; i < COUNT + 2; i++)
        assert_false(is_sent_away(&pairs[i], 0));
    for (uint32_t i = 0; i < COUNT + 2; i++)
        pair_free(places, &pairs[i]);
    pair_free(places, &elsewhere);
    http_places_free(places);
}

/* Goal: each kind of slowness ends a connection after its own time, and nothing else does. */
static void test_the_slow_leave(void **state)
{
    enum { ASKED = 1, GIVEN = 2, TAKEN = 4, ANSWERED = 8 };
    const struct {
        const char *name;
        uint32_t stranger, request, take, steps;
        enum http_role role;
        bool leaves;
    } rows[] = {
        {"no request", SHORT_MS, LONG_MS, LONG_MS, 0, HTTP_ROLE_NONE, true},
        {"a stranger's next", SHORT_MS, LONG_MS, LONG_MS, ASKED | ANSWERED, HTTP_ROLE_NONE, true},
        {"a viewer's next", LONG_MS, SHORT_MS, LONG_MS, ASKED | ANSWERED, HTTP_ROLE_VIEWER, true},
        {"known is no stranger", SHORT_MS, LONG_MS, LONG_MS, ASKED | ANSWERED, HTTP_ROLE_VIEWER,
         false},
        {"not taken", LONG_MS, LONG_MS, SHORT_MS, ASKED | GIVEN, HTTP_ROLE_ADMIN, true},
        {"taken", SHORT_MS, SHORT_MS, SHORT_MS, ASKED | GIVEN | TAKEN, HTTP_ROLE_ADMIN, false},
        {"the relay's turn", SHORT_MS, SHORT_MS, SHORT_MS, ASKED, HTTP_ROLE_ADMIN, false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct http_places *places =
            places_new(LONG_MS, rows[i].stranger, rows[i].request, rows[i].take);
        struct pair pair = pair_new(places, 0);
        print_message("# %s\n", rows[i].name);
        if (rows[i].steps & ASKED)
            http_seat_asked(places, pair.seat, rows[i].role);
        if (rows[i].steps & GIVEN)
            http_seat_given(places, pair.seat, true);
        if (rows[i].steps & TAKEN)
            http_seat_given(places, pair.seat, false);
        if (rows[i].steps & ANSWERED)
            http_seat_answered(places, pair.seat);
        assert_int_equal(rows[i].leaves,
                         is_sent_away(&pair, rows[i].leaves ? LONG_MS : 2 * SHORT_MS));
        pair_free(places, &pair);
        http_places_free(places);
    }
}

/* Goal: a stream whose client has left is told to end, though the relay has nothing to say. */
static void test_who_leaves_a_stream(void **state)
{
    struct http_places *places = places_new(LONG_MS, LONG_MS, LONG_MS, LONG_MS);
    struct pair pair = pair_new(places, 0);
    int control[2];
    char octet;

    (void)state;
    assert_int_equal(0, socketpair(AF_UNIX, SOCK_STREAM, 0, control));
    http_seat_asked(places, pair.seat, HTTP_ROLE_ADMIN);
    assert_true(http_stream_begin(places, HTTP_ROLE_ADMIN));
    shutdown(pair.there, SHUT_RDWR);
    http_stream_follow(places, pair.seat, control[0]);
    assert_int_equal(0, read(control[0], &octet, 1));
    http_stream_end(places, pair.seat, HTTP_ROLE_ADMIN);
    close(control[0]);
    close(control[1]);
    pair_free(places, &pair);
    http_places_free(places);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_questions),      cmocka_unit_test(test_work),
        cmocka_unit_test(test_streams),        cmocka_unit_test(test_strangers_make_room),
        cmocka_unit_test(test_the_slow_leave), cmocka_unit_test(test_who_leaves_a_stream),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
