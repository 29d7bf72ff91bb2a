/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What came from the process before us, in an upgrade: each descriptor is claimed by who uses it,
 * and is what it says it is; what nobody has claimed is closed when the place is ours.
 */
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "control/daemon_internal.h"

static bool is_at(int fd, const char *path, const struct flow_address *address)
{
    struct sockaddr_un name = {0};
    socklen_t size = sizeof(name);
    struct flow_address found;

    if (address != NULL)
        return flow_host_listener_address(fd, &found) == ERR_OK &&
               flow_address_is_equal(&found, address);
    if (path == NULL)
        return true;
    return getsockname(fd, (struct sockaddr *)&name, &size) == 0 && name.sun_family == AF_UNIX &&
           size < sizeof(name) && strcmp(name.sun_path, path) == 0;
}

int daemon_enter_claim(struct daemon *daemon, enum upgrade_role role, const char *path,
                       const struct flow_address *address)
{
    struct daemon_enter *enter = &daemon->enter;

    for (uint32_t i = 0; i < enter->socket_count; i++) {
        int fd = enter->sockets[i].fd;
        if (enter->sockets[i].role != role || !is_at(fd, path, address))
            continue;
        enter->sockets[i] = enter->sockets[--enter->socket_count];
        return fd;
    }
    return -1;
}

uint32_t daemon_enter_listeners(const struct daemon *daemon, int ret_fds[ENTER_SOCKETS_MAX])
{
    uint32_t count = 0;

    for (uint32_t i = 0; i < daemon->enter.socket_count; i++) {
        if (daemon->enter.sockets[i].role == UPGRADE_ROLE_MAIL)
            ret_fds[count++] = daemon->enter.sockets[i].fd;
    }
    return count;
}

bool daemon_enter_spool_is_ours(struct daemon *daemon)
{
    int fd = daemon_enter_claim(daemon, UPGRADE_ROLE_SPOOL, NULL, NULL);
    struct stat theirs, ours;
    bool is_same = fd >= 0 && fstat(fd, &theirs) == 0 &&
                   stat(daemon->config->spool.directory, &ours) == 0 &&
                   theirs.st_dev == ours.st_dev && theirs.st_ino == ours.st_ino;

    if (fd >= 0)
        close(fd);
    return is_same;
}
