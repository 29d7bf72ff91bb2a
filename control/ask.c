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

json_t *ask_receive(int fd)
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
        got = read(fd, text + size, capacity - size);
        size += got > 0 ? (size_t)got : 0;
    }
    json_t *answer = got == 0 ? json_loadb(text, size, 0, NULL) : NULL;
    if (got == 0 && answer == NULL)
        errno = EPROTO; /* it closed without an answer */
    free(text);
    return answer;
}
