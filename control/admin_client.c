/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Clients of the control socket: their requests come in, their answers go out.
 *
 * A client: READING -> WAITING -> WORKING -> WRITING -> (closed)
 *   READING   a request line is not complete           client_read()
 *   WAITING   for the job of somebody else to end      admin_jobs_run()
 *   WORKING   its job is with the shards; parts of the answer may go out meanwhile
 *   WRITING   the answer is not all out                client_write()
 * An error goes from any state to WRITING with "ok": false; a time-out or a hangup closes at once.
 *
 * Bounds: ADMIN_CLIENT_MAX clients, ADMIN_REQUEST_MAX octets, ADMIN_CLIENT_TIME in all, or between
 * two parts of an answer that goes on.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/admin_filter.h"
#include "control/admin_internal.h"
#include "control/admin_member.h"

#define DROP_READS_MAX 16u

/* All but its request, of which request_size octets are valid. */
static void client_reset(struct admin_client *client)
{
    memset(client, 0, offsetof(struct admin_client, request));
}

void admin_client_close(struct admin *admin, struct admin_client *client)
{
    admin_job_forget_client(admin, client);
    admin_trace_forget_client(admin, client);
    close(client->fd);
    json_text_free(&client->answer);
    json_decref(client->parsed);
    client_reset(client);
}

static void client_watch(struct admin *admin, struct admin_client *client, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u32 = (uint32_t)(client - admin->clients)};

    CHECK(epoll_ctl(admin->epoll, EPOLL_CTL_MOD, client->fd, &event) == 0);
}

/* Closing a Unix socket with unread octets resets it, and the client would not see its answer. */
static void client_drop_input(const struct admin_client *client)
{
    char octets[ADMIN_REQUEST_MAX] UNINITIALIZED;

    for (uint32_t i = 0; i < DROP_READS_MAX; i++) {
        if (recv(client->fd, octets, sizeof(octets), 0) <= 0)
            return;
    }
}

/* False: there is more, or the client is gone (`*ret_is_gone`). */
static bool client_push(struct admin_client *client, bool *ret_is_gone)
{
    *ret_is_gone = false;
    while (client->answer_sent < client->answer.size) {
        ssize_t got = send(client->fd, client->answer.data + client->answer_sent,
                           client->answer.size - client->answer_sent, MSG_NOSIGNAL);
        if (got < 0) {
            *ret_is_gone = errno != EAGAIN;
            return false;
        }
        client->answer_sent += (size_t)got;
    }
    client->answer_sent = client->answer.size = 0;
    return true;
}

static void client_write(struct admin *admin, struct admin_client *client)
{
    bool is_gone;
    bool is_out = client_push(client, &is_gone);

    if (!is_out && !is_gone)
        return;
    if (client->state == ADMIN_CLIENT_WORKING && is_out) {
        client_watch(admin, client, 0);
        admin_job_unblock(admin, client);
        return;
    }
    client_drop_input(client);
    admin_client_close(admin, client);
}

static void client_finish(struct admin *admin, struct admin_client *client)
{
    client->state = ADMIN_CLIENT_WRITING;
    client_watch(admin, client, EPOLLOUT);
    client_write(admin, client);
}

void admin_client_send(struct admin *admin, struct admin_client *client)
{
    json_text_octets(&client->answer, "\n", 1);
    client_finish(admin, client);
}

void admin_client_send_kept(struct admin *admin, struct admin_client *client,
                            struct json_text *ret_answer)
{
    struct json_text *answer = &client->answer;
    bool is_gone;

    json_text_octets(answer, "\n", 1);
    struct json_text all = *answer;
    if (client_push(client, &is_gone)) { /* as most are, at once: it need not be copied */
        *answer = (struct json_text){0};
    } else {
        all = (struct json_text){0};
        json_text_octets(&all, answer->data, answer->size);
    }
    *ret_answer = all;
    client_finish(admin, client);
}

void admin_client_send_again(struct admin *admin, struct admin_client *client,
                             const struct json_text *answer)
{
    ssize_t got = send(client->fd, answer->data, answer->size, MSG_NOSIGNAL);
    size_t sent = got < 0 ? 0 : (size_t)got; /* who is gone is seen to be, with the rest */

    if (sent < answer->size)
        json_text_octets(&client->answer, answer->data + sent, answer->size - sent);
    client_finish(admin, client);
}

void admin_client_answer(struct admin *admin, struct admin_client *client, json_t *answer)
{
    if (answer == NULL) {
        admin_client_close(admin, client);
        return;
    }
    json_text_tree(&client->answer, answer);
    admin_client_send(admin, client);
}

void admin_client_refuse(struct admin *admin, struct admin_client *client, const char *text)
{
    json_t *answer = json_object();

    json_object_set_new(answer, "ok", json_false());
    json_object_set_new(answer, "error", json_string(text));
    admin_client_answer(admin, client, answer);
}

bool admin_client_append(struct admin_client *client, json_t *line)
{
    if (line == NULL)
        return false;
    json_text_tree(&client->answer, line);
    json_text_octets(&client->answer, "\n", 1);
    return true;
}

bool admin_client_push(struct admin *admin, struct admin_client *client)
{
    bool is_gone;

    if (client_push(client, &is_gone))
        return true;
    if (is_gone)
        admin_client_close(admin, client);
    else
        client_watch(admin, client, EPOLLOUT);
    return false;
}

/* With a blank before the answer, which is nothing to JSON. */
bool admin_client_pass(const struct admin_client *client, int fd)
{
    union {
        struct cmsghdr head;
        char octets[CMSG_SPACE(sizeof(int))];
    } control = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec vector = {(char[]){' '}, 1};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};

    memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
    return sendmsg(client->fd, &message, MSG_NOSIGNAL) == 1;
}

/* ---- reading requests ---- */

static void client_request(struct admin *admin, struct admin_client *client)
{
    char why[ADMIN_MEMBER_WHY_SIZE];

    client->parsed =
        json_loadb(client->request, client->request_size, JSON_REJECT_DUPLICATES, NULL);
    client_watch(admin, client, 0); /* hangups are reported all the same */
    if (admin->is_leaving) {
        admin_client_answer(admin, client,
                            json_pack("{sb,sb,ss}", "ok", 0, "again", 1, "error",
                                      "the relay has just been upgraded: ask again"));
        return;
    }
    if (!json_is_object(client->parsed)) {
        admin_client_refuse(admin, client, "expected one JSON object on a line");
        return;
    }
    if (!admin_filter_normalize(client->parsed)) {
        admin_client_refuse(admin, client, "no memory");
        return;
    }
    if (!admin_share_is_look(admin_job_verb(client)) &&
        !admin_members_are_known(client->parsed, why)) {
        admin_client_refuse(admin, client, why);
        return;
    }
    client->state = ADMIN_CLIENT_WAITING;
    client->order = admin->order_next++;
    admin_jobs_run(admin);
}

static void client_read(struct admin *admin, struct admin_client *client)
{
    ssize_t got = recv(client->fd, client->request + client->request_size,
                       sizeof(client->request) - client->request_size, 0);

    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        admin_client_close(admin, client);
        return;
    }
    client->request_size += (uint32_t)got;
    if (memchr(client->request, '\n', client->request_size) != NULL)
        client_request(admin, client);
    else if (client->request_size == sizeof(client->request))
        admin_client_refuse(admin, client, "the request is too long");
}

void admin_client_accept(struct admin *admin, tick_us now)
{
    int fd = accept4(admin->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

    for (uint32_t i = 0; fd >= 0 && i < ADMIN_CLIENT_MAX; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.u32 = i};
        if (admin->clients[i].state != ADMIN_CLIENT_FREE)
            continue;
        if (epoll_ctl(admin->epoll, EPOLL_CTL_ADD, fd, &event) != 0)
            break;
        client_reset(&admin->clients[i]);
        admin->clients[i].state = ADMIN_CLIENT_READING;
        admin->clients[i].fd = fd;
        admin->clients[i].deadline = now + ADMIN_CLIENT_TIME;
        return;
    }
    if (fd >= 0) /* all places are taken: they end within ADMIN_CLIENT_TIME */
        close(fd);
}

void admin_client_event(struct admin *admin, struct admin_client *client, uint32_t events)
{
    bool is_writing =
        client->state == ADMIN_CLIENT_WRITING || client->state == ADMIN_CLIENT_WORKING;

    if (client->state == ADMIN_CLIENT_READING && (events & EPOLLIN))
        client_read(admin, client);
    else if (is_writing && (events & EPOLLOUT))
        client_write(admin, client);
    else if (client->state != ADMIN_CLIENT_FREE && (events & (EPOLLHUP | EPOLLERR)))
        admin_client_close(admin, client);
}
