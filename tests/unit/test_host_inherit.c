/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listening sockets that go from one process to another: here from one plane to another, by
 * duplicates of descriptors, which is what SCM_RIGHTS gives.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <arpa/inet.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "dataplane/flow.h"

#define LISTENER_USER 1u
#define STREAM_USER   2u
#define FDS_MAX       16u

struct side {
    struct buf_pool *pool;
    struct flow_plane *plane;
    struct flow listener;
    uint32_t accepted;
};

static tick_us now(void)
{
    const struct tick_source *clock = tick_source_system();

    return clock->monotonic(clock->context);
}

static void side_open(struct side *side)
{
    struct flow_host_options host = {.flow_count_max = 64, .orphan_time = TICK_MS(100)};

    *side = (struct side){0};
    side->pool = buf_pool_new(&(struct buf_pool_options){
        .data_size = 2048, .count_max = 64, .backing = BUF_BACKING_HEAP});
    host.pool = side->pool;
    assert_int_equal(ERR_OK, flow_host_new(&host, &side->plane));
}

static void side_close(struct side *side)
{
    side->plane->ops->free(side->plane);
    buf_pool_free(side->pool);
}

static struct flow_address loopback(uint16_t port)
{
    return (struct flow_address){.family = FLOW_FAMILY_IP4, .port = port, .ip = {127, 0, 0, 1}};
}

/* On this port, or a free one; which it is. */
static uint16_t side_listen(struct side *side, uint16_t port, struct flow *ret_listener)
{
    struct flow_listen_options options = {
        .address = loopback(port), .backlog = 16, .is_shared = true, .user = LISTENER_USER};
    struct flow_address local, peer;

    assert_int_equal(ERR_OK, flow_listen(side->plane, &options, ret_listener));
    assert_int_equal(ERR_OK, flow_addresses(side->plane, *ret_listener, &local, &peer));
    return local.port;
}

/* Turns, with everything accepted and reset at once. */
static void side_turn(struct side *side)
{
    struct flow_event events[16];
    struct flow_address peer;
    struct flow flow;

    for (uint32_t turn = 0; turn < 3; turn++) {
        uint32_t count = flow_poll(side->plane, now(), events, COUNT_OF(events));
        for (uint32_t i = 0; i < count; i++) {
            if (events[i].user != LISTENER_USER)
                continue;
            while (flow_accept(side->plane, side->listener, STREAM_USER, &flow, &peer) == ERR_OK) {
                side->accepted++;
                flow_abort(side->plane, flow);
            }
        }
        flow_flush(side->plane, now());
    }
}

static void client_connect(uint16_t port, int *ret_fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};

    inet_pton(AF_INET, "127.0.0.1", &address.sin_addr);
    *ret_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(0, connect(*ret_fd, (struct sockaddr *)&address, sizeof(address)));
}

/* Goal: what waits in the backlog of the old plane is accepted by the new one, and the old one
 * hears of nothing any more. */
static void test_backlog_goes_over(void **state)
{
    struct side old, new;
    int fds[FDS_MAX], clients[5];
    (void)state;

    side_open(&old);
    side_open(&new);
    uint16_t port = side_listen(&old, 0, &old.listener);
    for (uint32_t i = 0; i < COUNT_OF(clients); i++)
        client_connect(port, &clients[i]);
    assert_int_equal(1, flow_host_listeners(old.plane, fds, FDS_MAX));
    assert_int_equal(ERR_OK, flow_host_inherit(new.plane, fds[0]));
    flow_close(old.plane, old.listener);
    side_turn(&old);
    assert_int_equal(0, old.accepted);
    assert_int_equal(port, side_listen(&new, port, &new.listener));
    side_turn(&new);
    assert_int_equal(COUNT_OF(clients), new.accepted);

    int late;
    client_connect(port, &late);
    tick_us start = now();
    flow_wait(old.plane, start, start + TICK_MS(30));
    assert_true(now() >= start + TICK_MS(25)); /* it slept: nothing of the socket wakes it */
    side_turn(&old);
    side_turn(&new);
    assert_int_equal(COUNT_OF(clients) + 1, new.accepted);
    for (uint32_t i = 0; i < COUNT_OF(clients); i++)
        close(clients[i]);
    close(late);
    side_close(&old);
    side_close(&new);
}

/* Goal: a plane that gets the sockets of several accepts from all, hands all on, and closes all. */
static void test_several_sockets_of_one_address(void **state)
{
    struct side old[3], new;
    int fds[FDS_MAX], clients[30];
    uint16_t port = 0;
    (void)state;

    side_open(&new);
    for (uint32_t i = 0; i < COUNT_OF(old); i++) {
        side_open(&old[i]);
        port = side_listen(&old[i], port, &old[i].listener);
        assert_int_equal(1, flow_host_listeners(old[i].plane, fds, FDS_MAX));
        assert_int_equal(ERR_OK, flow_host_inherit(new.plane, fds[0]));
    }
    for (uint32_t i = 0; i < COUNT_OF(clients); i++)
        client_connect(port, &clients[i]); /* spread over the sockets by the kernel */
    for (uint32_t i = 0; i < COUNT_OF(old); i++)
        side_close(&old[i]);
    side_listen(&new, port, &new.listener);
    side_turn(&new);
    assert_int_equal(COUNT_OF(clients), new.accepted);
    uint32_t count = flow_host_listeners(new.plane, fds, FDS_MAX);
    assert_int_equal(COUNT_OF(old), count);
    for (uint32_t i = 0; i < count; i++)
        close(fds[i]);
    assert_int_equal(2,
                     flow_host_listeners(new.plane, fds, 2)); /* no more than there is room for */
    close(fds[0]);
    close(fds[1]);
    flow_close(new.plane, new.listener);
    assert_int_equal(0, flow_host_listeners(new.plane, fds, FDS_MAX));
    for (uint32_t i = 0; i < COUNT_OF(clients); i++)
        close(clients[i]);
    side_close(&new);
}

/* Goal: another address than that of the socket is opened as ever, and the socket waits. */
static void test_other_address(void **state)
{
    struct side old, new;
    struct flow other;
    int fds[FDS_MAX];
    (void)state;

    side_open(&old);
    side_open(&new);
    uint16_t port = side_listen(&old, 0, &old.listener);
    assert_int_equal(1, flow_host_listeners(old.plane, fds, FDS_MAX));
    assert_int_equal(ERR_OK, flow_host_inherit(new.plane, fds[0]));
    assert_int_not_equal(port, side_listen(&new, 0, &other));
    side_close(&old);
    assert_int_equal(port, side_listen(&new, port, &new.listener));
    side_close(&new);
}

/* Goal: what does not listen for TCP connections is refused, and stays the caller's. */
static void test_senseless_descriptors(void **state)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = ""};
    struct side side;
    struct flow_address address;
    (void)state;

    side_open(&side);
    int local = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(0, bind(local, (struct sockaddr *)&name, sizeof(sa_family_t)));
    assert_int_equal(0, listen(local, 1));
    int listener;
    uint16_t port = side_listen(&side, 0, &side.listener);
    int fds[1];
    assert_int_equal(1, flow_host_listeners(side.plane, fds, 1));
    listener = fds[0];
    int connected;
    client_connect(port, &connected);
    const struct {
        const char *name;
        int fd;
    } cases[] = {
        {"closed", -1},
        {"a file", open("/dev/null", O_RDONLY)},
        {"a Unix socket that listens", local},
        {"a connection", connected},
        {"a socket that does not listen", socket(AF_INET, SOCK_STREAM, 0)},
        {"datagrams", socket(AF_INET, SOCK_DGRAM, 0)},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        print_message("# case: %s\n", cases[i].name);
        assert_int_equal(ERR_CONFIG_VALUE, flow_host_inherit(side.plane, cases[i].fd));
        assert_int_equal(ERR_CONFIG_VALUE, flow_host_listener_address(cases[i].fd, &address));
        if (cases[i].fd >= 0)
            assert_int_equal(0, close(cases[i].fd));
    }
    assert_int_equal(ERR_OK, flow_host_listener_address(listener, &address));
    assert_int_equal(port, address.port);
    close(listener);
    side_close(&side);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_backlog_goes_over),
        cmocka_unit_test(test_several_sockets_of_one_address),
        cmocka_unit_test(test_other_address),
        cmocka_unit_test(test_senseless_descriptors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
