/* SPDX-License-Identifier: Apache-2.0 */
#include "control/secret_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"

bool secret_mode_is_good(uint32_t mode)
{
    return S_ISREG(mode) && (mode & (S_IRWXO | S_IWGRP)) == 0;
}

static enum err fail(enum err err, char ret_why[SECRET_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, SECRET_WHY_SIZE, "%s", why);
    return err;
}

/* Up to the end of the first line; 0: none, or one that is too long. */
static uint32_t line_cut(char *text, uint32_t size, uint32_t room)
{
    char *end = memchr(text, '\n', size);
    uint32_t length = end == NULL ? size : (uint32_t)(end - text);

    if (length > 0 && text[length - 1] == '\r')
        length--;
    if (length >= room || memchr(text, '\0', length) != NULL)
        return 0;
    memset(text + length, 0, room - length); /* what is behind the line too */
    return length;
}

enum err secret_line_read(const char *path, char *ret_line, uint32_t size,
                          char ret_why[SECRET_WHY_SIZE])
{
    struct stat status;
    CHECK(ret_line != NULL && size > 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return fail(ERR_SYSTEM, ret_why, strerror(errno));
    ssize_t got = fstat(fd, &status) != 0 ? -1 : 0;
    bool is_good = got == 0 && secret_mode_is_good(status.st_mode);
    if (is_good)
        got = read(fd, ret_line, size);
    int error = errno;
    close(fd);
    if (got < 0)
        return fail(ERR_SYSTEM, ret_why, strerror(error));
    if (!is_good)
        return fail(ERR_CONFIG_VALUE, ret_why,
                    "a secret is a regular file that others may not read, nor its group write: "
                    "chmod 600");
    if (line_cut(ret_line, (uint32_t)got, size) > 0)
        return ERR_OK;
    explicit_bzero(ret_line, size);
    return fail(ERR_CONFIG_VALUE, ret_why, "the first line is empty or too long");
}
