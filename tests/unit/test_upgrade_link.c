/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link between two relays: messages with descriptors go over whole, and what is no such message
 * leaves neither a message nor a descriptor behind.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "control/upgrade_link.h"

#define SIZE     (168u + UPGRADE_TEXT_SIZE) /* as upgrade_link.c says */
#define AT_KIND  24u
#define AT_COUNT 28u
#define AT_ROLES 40u
#define AT_TEXT  168u
#define FDS_MAX  200u

static int ends[2];

static uint32_t descriptors_open(void)
{
    DIR *folder = opendir("/proc/self/fd");
    uint32_t count = 0;

    assert_non_null(folder);
    while (readdir(folder) != NULL)
        count++;
    closedir(folder);
    return count;
}

static int link_open(void **state)
{
    (void)state;
    return upgrade_link_new(ends) == ERR_OK && fcntl(ends[1], F_SETFL, O_NONBLOCK) == 0 ? 0 : -1;
}

static int link_close(void **state)
{
    (void)state;
    close(ends[0]);
    if (ends[1] >= 0)
        close(ends[1]);
    return 0;
}

/* Octets with so many descriptors, past all rules. */
static void send_raw(const void *octets, size_t size, uint32_t fd_count)
{
    static union {
        struct cmsghdr head;
        char room[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } control;
    struct iovec vector = {(void *)(uintptr_t)octets, size};
    struct msghdr head = {.msg_iov = &vector, .msg_iovlen = 1};
    int fds[FDS_MAX];

    assert_true(fd_count <= FDS_MAX);
    for (uint32_t i = 0; i < fd_count; i++)
        fds[i] = STDIN_FILENO;
    if (fd_count > 0) {
        head.msg_control = &control;
        head.msg_controllen = CMSG_SPACE(fd_count * sizeof(int));
        control.head = (struct cmsghdr){CMSG_LEN(fd_count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, fd_count * sizeof(int));
    }
    assert_int_equal(size, sendmsg(ends[0], &head, 0));
}

/* The octets of a good message with `count` descriptors. */
static void good_octets(uint32_t count, uint8_t ret_octets[SIZE])
{
    struct upgrade_message message = {.kind = UPGRADE_OFFER, .socket_count = count, .text = "x"};

    for (uint32_t i = 0; i < count; i++)
        message.sockets[i] = (struct upgrade_socket){STDIN_FILENO, UPGRADE_ROLE_MAIL};
    assert_int_equal(ERR_OK, upgrade_link_send(ends[0], &message));
    assert_int_equal(SIZE, recv(ends[1], ret_octets, SIZE, 0));
}

/* Goal: all of a message comes, with as many descriptors as it may have, closed on exec. */
static void test_whole_messages(void **state)
{
    static const uint32_t counts[] = {0, 1, 2, UPGRADE_SOCKETS_MAX};
    (void)state;

    for (size_t i = 0; i < COUNT_OF(counts); i++) {
        struct upgrade_message sent = {
            .kind = UPGRADE_OFFERED, .socket_count = counts[i], .number = UINT64_MAX - i};
        struct upgrade_message got = {0};
        struct stat mine, theirs;
        memset(sent.text, 'x', sizeof(sent.text) - 1);
        for (uint32_t j = 0; j < counts[i]; j++)
            sent.sockets[j] =
                (struct upgrade_socket){j % 2 == 0 ? ends[0] : STDIN_FILENO,
                                        (enum upgrade_role)(1 + j % (UPGRADE_ROLE_END - 1))};
        uint32_t before = descriptors_open();
        assert_int_equal(ERR_OK, upgrade_link_send(ends[0], &sent));
        assert_int_equal(ERR_OK, upgrade_link_receive(ends[1], &got));
        assert_int_equal(before + counts[i], descriptors_open());
        assert_int_equal(sent.kind, got.kind);
        assert_int_equal(sent.number, got.number);
        assert_string_equal(sent.text, got.text);
        assert_int_equal(counts[i], got.socket_count);
        for (uint32_t j = 0; j < counts[i]; j++) {
            assert_int_equal(sent.sockets[j].role, got.sockets[j].role);
            assert_int_equal(FD_CLOEXEC, fcntl(got.sockets[j].fd, F_GETFD));
            assert_int_equal(0, fstat(sent.sockets[j].fd, &mine));
            assert_int_equal(0, fstat(got.sockets[j].fd, &theirs));
            assert_int_equal(mine.st_ino, theirs.st_ino);
        }
        upgrade_message_close(&got);
        assert_int_equal(before, descriptors_open());
    }
}

/* Goal: nothing there, and nobody there, are told apart; a send to nobody is no signal. */
static void test_ends(void **state)
{
    struct upgrade_message message = {.kind = UPGRADE_GO};
    (void)state;

    assert_int_equal(ERR_AGAIN, upgrade_link_receive(ends[1], &message));
    assert_int_equal(ERR_OK, upgrade_link_send(ends[0], &message));
    shutdown(ends[0], SHUT_RDWR);
    assert_int_equal(ERR_OK, upgrade_link_receive(ends[1], &message)); /* said before it left */
    assert_int_equal(ERR_PEER_CLOSED, upgrade_link_receive(ends[1], &message));
    close(ends[1]);
    ends[1] = -1;
    assert_int_equal(ERR_PEER_CLOSED, upgrade_link_send(ends[0], &message));
}

/* Goal: every shape that is none is refused, and its descriptors are closed. */
static void test_hostile_messages(void **state)
{
    static const struct {
        const char *name;
        uint32_t at; /* of the octets that are changed; SIZE: none */
        uint32_t value;
        uint32_t cut; /* octets less */
        uint32_t descriptors;
    } cases[] = {
        {"another word", 0, 0x41414141, 0, 2},
        {"another version", 16, 0x0a32, 0, 2},
        {"no kind", AT_KIND, 0, 0, 2},
        {"a kind behind the last", AT_KIND, UPGRADE_KIND_END, 0, 2},
        {"a kind far behind", AT_KIND, UINT32_MAX, 0, 2},
        {"fewer descriptors than it says", SIZE, 0, 0, 1},
        {"none of those it says", SIZE, 0, 0, 0},
        {"more descriptors than it says", SIZE, 0, 0, 3},
        {"many more than may be", SIZE, 0, 0, FDS_MAX},
        {"it says too many", AT_COUNT, UPGRADE_SOCKETS_MAX + 1, 0, UPGRADE_SOCKETS_MAX + 1},
        {"it says very many", AT_COUNT, UINT32_MAX, 0, 2},
        {"a descriptor without a role", AT_ROLES + 4, 0, 0, 2},
        {"a role behind the last", AT_ROLES, UPGRADE_ROLE_END, 0, 2},
        {"a role without a descriptor", AT_ROLES + 8, UPGRADE_ROLE_MAIL, 0, 2},
        {"an octet less", SIZE, 0, 1, 2},
        {"its head alone", SIZE, 0, SIZE - AT_KIND, 2},
        {"one octet", SIZE, 0, SIZE - 1, 2},
    };
    (void)state;

    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct upgrade_message message = {.kind = UPGRADE_GO, .number = 42};
        uint8_t octets[SIZE + 1] = {0};
        print_message("# case: %s\n", cases[i].name);
        good_octets(2, octets);
        if (cases[i].at < SIZE)
            memcpy(octets + cases[i].at, &cases[i].value, sizeof(cases[i].value));
        uint32_t before = descriptors_open();
        send_raw(octets, SIZE - cases[i].cut, cases[i].descriptors);
        assert_int_equal(ERR_PEER_SYNTAX, upgrade_link_receive(ends[1], &message));
        assert_int_equal(before, descriptors_open());
        assert_int_equal(42, message.number); /* untouched */
    }
}

/* Goal: neither text without an end nor octets behind the message are taken. */
static void test_text_and_tail(void **state)
{
    struct upgrade_message message;
    uint8_t octets[SIZE + 1] = {0};
    (void)state;

    good_octets(1, octets);
    uint32_t before = descriptors_open();
    send_raw(octets, SIZE + 1, 1);
    assert_int_equal(ERR_PEER_SYNTAX, upgrade_link_receive(ends[1], &message));
    memset(octets + AT_TEXT, 'x', UPGRADE_TEXT_SIZE);
    send_raw(octets, SIZE, 1);
    assert_int_equal(ERR_PEER_SYNTAX, upgrade_link_receive(ends[1], &message));
    assert_int_equal(before, descriptors_open());
    octets[SIZE - 1] = 0;
    send_raw(octets, SIZE, 1);
    assert_int_equal(ERR_OK, upgrade_link_receive(ends[1], &message));
    assert_int_equal(UPGRADE_TEXT_SIZE - 1, strlen(message.text));
    upgrade_message_close(&message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_whole_messages, link_open, link_close),
        cmocka_unit_test_setup_teardown(test_ends, link_open, link_close),
        cmocka_unit_test_setup_teardown(test_hostile_messages, link_open, link_close),
        cmocka_unit_test_setup_teardown(test_text_and_tail, link_open, link_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
