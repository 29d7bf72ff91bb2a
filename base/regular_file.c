/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files that an operator names are read while the relay runs. What is at their name is seen before
 * anything is waited for: the open itself does not block, and reads of a regular file do not.
 */
#include "base/regular_file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int regular_file_open(const char *path, const char **ret_why)
{
    struct stat status;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

    if (fd < 0 || fstat(fd, &status) != 0) {
        *ret_why = strerror(errno);
        if (fd >= 0)
            close(fd);
        return -1;
    }
    if (S_ISREG(status.st_mode))
        return fd;
    *ret_why = S_ISDIR(status.st_mode) ? strerror(EISDIR) : "it is no regular file";
    close(fd);
    return -1;
}
