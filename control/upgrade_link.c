/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages between the relay that leaves and the one that comes, on one machine, in its order of
 * octets:
 *
 *   0    "angarium upgrade 1\n", zeros up to 24
 *   24   u32 kind, u32 number of descriptors
 *   32   u64 number
 *   40   UPGRADE_SOCKETS_MAX times u32: the role of each descriptor, zeros behind the last
 *   168  UPGRADE_TEXT_SIZE octets of text with a NUL
 *
 * and the descriptors, in that order, as SCM_RIGHTS.
 *
 * Programs of two versions meet here: what does not have these octets, this size and these
 * descriptors is refused, and the upgrade with it. The other end is not trusted beyond that: what a
 * descriptor is, is looked at where it is used.
 *
 * Invariant: every descriptor that came is in the message or closed.
 */
#include "control/upgrade_link.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"

#define UPGRADE_MAGIC     "angarium upgrade 1\n"
#define DESCRIPTOR_NUMBER 253u /* that the kernel lets one message have */

struct upgrade_octets {
    char magic[24];
    uint32_t kind, socket_count;
    uint64_t number;
    uint32_t roles[UPGRADE_SOCKETS_MAX];
    char text[UPGRADE_TEXT_SIZE];
};
_Static_assert(sizeof(struct upgrade_octets) == 168 + UPGRADE_TEXT_SIZE, "no holes");
_Static_assert(UPGRADE_SOCKETS_MAX <= DESCRIPTOR_NUMBER, "one message carries them");

/* Room for more descriptors than there may be: what comes is seen, and closed. */
union upgrade_control {
    struct cmsghdr head;
    char octets[CMSG_SPACE(DESCRIPTOR_NUMBER * sizeof(int))];
};

enum err upgrade_link_new(int ret_fds[2])
{
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ret_fds) == 0 ? ERR_OK
                                                                               : ERR_SYSTEM;
}

enum err upgrade_link_send(int fd, const struct upgrade_message *message)
{
    struct upgrade_octets octets = {.magic = UPGRADE_MAGIC,
                                    .kind = message->kind,
                                    .socket_count = message->socket_count,
                                    .number = message->number};
    union upgrade_control control = {0};
    struct iovec vector = {&octets, sizeof(octets)};
    struct msghdr head = {.msg_iov = &vector, .msg_iovlen = 1};
    size_t size = message->socket_count * sizeof(int);
    int fds[UPGRADE_SOCKETS_MAX];

    CHECK(message->kind > 0 && message->kind < UPGRADE_KIND_END);
    CHECK(message->socket_count <= UPGRADE_SOCKETS_MAX);
    CHECK(memchr(message->text, '\0', sizeof(message->text)) != NULL);
    memcpy(octets.text, message->text, strlen(message->text));
    for (uint32_t i = 0; i < message->socket_count; i++) {
        octets.roles[i] = message->sockets[i].role;
        fds[i] = message->sockets[i].fd;
    }
    if (size > 0) {
        head.msg_control = &control;
        head.msg_controllen = CMSG_SPACE(size);
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(size), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), fds, size);
    }
    ssize_t sent;
    do {
        sent = sendmsg(fd, &head, MSG_NOSIGNAL);
    } while (sent < 0 && errno == EINTR);
    return sent == (ssize_t)sizeof(octets) ? ERR_OK : ERR_PEER_CLOSED;
}

/* ---- receiving ---- */

struct arrived {
    int fds[DESCRIPTOR_NUMBER];
    uint32_t count;
};

static void descriptors_collect(struct msghdr *head, struct arrived *ret_arrived)
{
    ret_arrived->count = 0;
    for (struct cmsghdr *part = CMSG_FIRSTHDR(head); part != NULL; part = CMSG_NXTHDR(head, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS)
            continue;
        uint32_t count = (uint32_t)((part->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        CHECK(ret_arrived->count + count <= DESCRIPTOR_NUMBER);
        memcpy(ret_arrived->fds + ret_arrived->count, CMSG_DATA(part), count * sizeof(int));
        ret_arrived->count += count;
    }
}

static bool octets_are_sane(const struct upgrade_octets *octets, uint32_t descriptor_count)
{
    static const char magic[sizeof(octets->magic)] = UPGRADE_MAGIC;

    if (memcmp(octets->magic, magic, sizeof(magic)) != 0 || octets->kind == 0 ||
        octets->kind >= UPGRADE_KIND_END || octets->socket_count > UPGRADE_SOCKETS_MAX ||
        octets->socket_count != descriptor_count ||
        memchr(octets->text, '\0', sizeof(octets->text)) == NULL)
        return false;
    for (uint32_t i = 0; i < UPGRADE_SOCKETS_MAX; i++) {
        bool is_role = octets->roles[i] > 0 && octets->roles[i] < UPGRADE_ROLE_END;
        if (i < octets->socket_count ? !is_role : octets->roles[i] != 0)
            return false;
    }
    return true;
}

static void message_fill(const struct upgrade_octets *octets, const struct arrived *arrived,
                         struct upgrade_message *ret_message)
{
    *ret_message = (struct upgrade_message){
        .kind = octets->kind, .socket_count = octets->socket_count, .number = octets->number};
    memcpy(ret_message->text, octets->text, strlen(octets->text));
    for (uint32_t i = 0; i < octets->socket_count; i++)
        ret_message->sockets[i] =
            (struct upgrade_socket){arrived->fds[i], (enum upgrade_role)octets->roles[i]};
}

enum err upgrade_link_receive(int fd, struct upgrade_message *ret_message)
{
    struct upgrade_octets octets = {0};
    union upgrade_control control = {0};
    struct iovec vector = {&octets, sizeof(octets)};
    struct msghdr head = {.msg_iov = &vector,
                          .msg_iovlen = 1,
                          .msg_control = &control,
                          .msg_controllen = sizeof(control)};
    struct arrived arrived;
    ssize_t got;

    do {
        got = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
    } while (got < 0 && errno == EINTR);
    if (got < 0)
        return errno == EAGAIN || errno == EWOULDBLOCK ? ERR_AGAIN : ERR_PEER_CLOSED;
    descriptors_collect(&head, &arrived);
    bool is_whole =
        got == (ssize_t)sizeof(octets) && (head.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) == 0;
    if (is_whole && octets_are_sane(&octets, arrived.count)) {
        message_fill(&octets, &arrived, ret_message);
        return ERR_OK;
    }
    for (uint32_t i = 0; i < arrived.count; i++)
        close(arrived.fds[i]);
    return got == 0 && arrived.count == 0 ? ERR_PEER_CLOSED : ERR_PEER_SYNTAX;
}

void upgrade_message_close(struct upgrade_message *message)
{
    for (uint32_t i = 0; i < message->socket_count; i++)
        close(message->sockets[i].fd);
    message->socket_count = 0;
}
