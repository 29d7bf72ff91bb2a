/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the management interface listens. Opened when control starts, before it gives up what it
 * may do.
 */
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/http_internal.h"

int http_listen_on(const struct flow_address *address, char ret_why[HTTP_WHY_SIZE])
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV | AI_PASSIVE,
                             .ai_socktype = SOCK_STREAM};
    struct addrinfo *name = NULL;
    char text[FLOW_ADDRESS_TEXT_MAX], port[8];
    int one = 1;

    snprintf(port, sizeof(port), "%u", address->port);
    int error = getaddrinfo(flow_address_format_ip(address, text), port, &hints, &name);
    CHECK(error == 0); /* digits need no resolver */
    int fd = socket(name->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);

    bool is_open = fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
                   (name->ai_family != AF_INET6 ||
                    setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one)) == 0) &&
                   bind(fd, name->ai_addr, name->ai_addrlen) == 0 &&
                   listen(fd, (int)HTTP_CLIENT_MAX) == 0;
    error = errno;
    freeaddrinfo(name);
    if (is_open)
        return fd;
    snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot listen on %s: %s",
             flow_address_format(address, text), strerror(error));
    if (fd >= 0)
        close(fd);
    return -1;
}

int http_listen_at(const char *path, char ret_why[HTTP_WHY_SIZE])
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};

    CHECK(strlen(path) < sizeof(name.sun_path));
    memcpy(name.sun_path, path, strlen(path));
    unlink(path); /* the control socket is ours: no other relay of this configuration runs */
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t mask = umask(0117);
    bool is_open = fd >= 0 && bind(fd, (const struct sockaddr *)&name, sizeof(name)) == 0 &&
                   listen(fd, (int)HTTP_CLIENT_MAX) == 0;
    umask(mask);
    if (is_open)
        return fd;
    snprintf(ret_why, HTTP_WHY_SIZE, "http: cannot listen on %s: %s", path, strerror(errno));
    if (fd >= 0)
        close(fd);
    return -1;
}
