/* SPDX-License-Identifier: Apache-2.0 */
#include "control/ask.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#define WITH_SIZE 16384u /* of an answer with a descriptor */

int ask_connect(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct timeval patience = {.tv_sec = ASK_TIME_S};

    if (strlen(path) >= sizeof(address.sun_path)) {
        errno = ENAMETOOLONG;
        return -1;
    }
    memcpy(address.sun_path, path, strlen(path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    int error = errno;
    close(fd);
    errno = error;
    return -1;
}

bool ask_send(int fd, const json_t *request)
{
    char *text = json_dumps(request, JSON_COMPACT);
    size_t size = text == NULL ? 0 : strlen(text), sent = 0;

    if (text != NULL)
        text[size++] = '\n'; /* instead of its NUL */
    /* The relay closes what is too much for it: an error for the caller, and no signal. */
    while (sent < size) {
        ssize_t taken = send(fd, text + sent, size - sent, MSG_NOSIGNAL);
        if (taken < 0 && errno == EINTR)
            continue;
        if (taken < 0)
            break;
        sent += (size_t)taken;
    }
    int error = errno;
    free(text);
    errno = error;
    return size > 0 && sent == size;
}

/* A stop and its end (Ctrl-Z, and fg) interrupt a read that has a bound of time, though nobody
 * handles a signal. */
static ssize_t read_on(int fd, char *room, size_t size)
{
    ssize_t got;

    do
        got = read(fd, room, size);
    while (got < 0 && errno == EINTR);
    return got;
}

static ssize_t stream_read(void *cookie, char *room, size_t size)
{
    return read_on((int)(intptr_t)cookie, room, size);
}

static int stream_close(void *cookie)
{
    return close((int)(intptr_t)cookie);
}

FILE *ask_open(int fd)
{
    cookie_io_functions_t functions = {.read = stream_read, .close = stream_close};

    return fopencookie((void *)(intptr_t)fd, "r", functions);
}

/* Everything until the relay closes, at least one octet. NULL with errno. */
static char *receive_all(int fd, size_t *ret_size)
{
    char *text = NULL;
    size_t size = 0, capacity = 0;
    ssize_t got = 1;

    while (got > 0 && size < ASK_ANSWER_SIZE_MAX) {
        if (size == capacity) {
            capacity = capacity == 0 ? 65536 : 2 * capacity;
            char *larger = realloc(text, capacity);
            if (larger == NULL)
                break;
            text = larger;
        }
        got = read_on(fd, text + size, capacity - size);
        size += got > 0 ? (size_t)got : 0;
    }
    *ret_size = size;
    if (got == 0 && size > 0)
        return text;
    if (got == 0)
        errno = EPROTO; /* it closed without an answer */
    free(text);
    return NULL;
}

json_t *ask_receive(int fd)
{
    size_t size;
    char *text = receive_all(fd, &size);
    json_t *answer = text == NULL ? NULL : json_loadb(text, size, 0, NULL);

    if (text != NULL && answer == NULL)
        errno = EPROTO; /* within it */
    free(text);
    return answer;
}

json_t *ask_receive_with(int fd, int *ret_passed)
{
    union {
        struct cmsghdr head;
        char octets[CMSG_SPACE(sizeof(int))];
    } control;
    char text[WITH_SIZE];
    size_t size = 0;
    ssize_t got;

    *ret_passed = -1;
    do {
        struct iovec vector = {text + size, sizeof(text) - size};
        struct msghdr message = {.msg_iov = &vector,
                                 .msg_iovlen = 1,
                                 .msg_control = &control,
                                 .msg_controllen = sizeof(control)};
        got = recvmsg(fd, &message, MSG_CMSG_CLOEXEC);
        const struct cmsghdr *part = got > 0 ? CMSG_FIRSTHDR(&message) : NULL;
        if (part != NULL && part->cmsg_type == SCM_RIGHTS &&
            part->cmsg_len == CMSG_LEN(sizeof(int)) && *ret_passed < 0)
            memcpy(ret_passed, CMSG_DATA(part), sizeof(int));
        size += got > 0 ? (size_t)got : 0;
    } while ((got > 0 || (got < 0 && errno == EINTR)) && size < sizeof(text));
    return json_loadb(text, size, 0, NULL);
}

/* Relays before the line's end came to mean that an answer is whole. */
static bool is_whole_object(const char *text, size_t size)
{
    json_t *answer = json_loadb(text, size, 0, NULL);
    bool is_object = json_is_object(answer);

    json_decref(answer);
    return is_object;
}

char *ask_receive_text(int fd, size_t *ret_size)
{
    size_t size;
    char *text = receive_all(fd, &size);

    if (text == NULL)
        return NULL;
    bool is_line = size > 1 && text[size - 1] == '\n';
    if (is_line || is_whole_object(text, size)) {
        *ret_size = is_line ? size - 1 : size;
        return text;
    }
    free(text);
    errno = EPROTO;
    return NULL;
}

bool ask_is_ok(const char *text, size_t size)
{
    static const char good[] = "{\"ok\":true";

    return size >= sizeof(good) - 1 && memcmp(text, good, sizeof(good) - 1) == 0;
}

bool ask_is_page(const char *text, size_t size)
{
    return size > 0 && text[0] == '#' && text[size - 1] == '\n';
}

bool ask_is_again(const char *text, size_t size)
{
    static const char again[] = "{\"ok\":false,\"again\":true";

    return size >= sizeof(again) - 1 && memcmp(text, again, sizeof(again) - 1) == 0;
}
