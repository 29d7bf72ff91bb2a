/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tokens and roles. What a verb needs is in its row of verb.def; what has none is nobody's but the
 * admin's.
 */
#include "control/http_access.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/secret_file.h"
#include "control/verb.h"

#define TOKEN_MIN 16u

enum http_role http_access_needed(const char *verb)
{
    const struct verb *found = verb_find(verb);

    return found == NULL ? HTTP_ROLE_ADMIN : found->role;
}

enum err http_token_read(const char *path, char ret_token[HTTP_TOKEN_SIZE])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY); /* it may be a pipe */

    if (fd < 0)
        return ERR_SYSTEM;
    struct stat status;
    ssize_t size = fstat(fd, &status) != 0    ? -1
                   : !S_ISREG(status.st_mode) ? 0
                                              : read(fd, ret_token, HTTP_TOKEN_SIZE);
    int error = errno;
    close(fd);
    errno = error;
    if (size < 0)
        return ERR_SYSTEM;
    size_t length = 0;
    while (length < (size_t)size && ret_token[length] > ' ' && ret_token[length] < 0x7f)
        length++;
    bool is_good = secret_mode_is_good(status.st_mode);
    bool is_line = length < (size_t)size ? ret_token[length] == '\n' : length < HTTP_TOKEN_SIZE;
    if (!is_good || !is_line || length < TOKEN_MIN || length >= HTTP_TOKEN_SIZE) {
        OPENSSL_cleanse(ret_token, HTTP_TOKEN_SIZE);
        return ERR_CONFIG_VALUE;
    }
    memset(ret_token + length, 0, HTTP_TOKEN_SIZE - length);
    return ERR_OK;
}

/* Whole buffers are compared, so that neither content nor length of the true one shows in time. */
static bool token_is(const char known[HTTP_TOKEN_SIZE], const char shown[HTTP_TOKEN_SIZE])
{
    return known[0] != '\0' && CRYPTO_memcmp(known, shown, HTTP_TOKEN_SIZE) == 0;
}

enum http_role http_access_of_field(const struct http_access *access, const char *field)
{
    static const char scheme[] = "Bearer ";
    char shown[HTTP_TOKEN_SIZE] = "";

    if (field == NULL || strncasecmp(field, scheme, strlen(scheme)) != 0)
        return HTTP_ROLE_NONE;
    field += strlen(scheme);
    if (strlen(field) >= sizeof(shown))
        return HTTP_ROLE_NONE;
    memcpy(shown, field, strlen(field));
    bool is_admin = token_is(access->admin, shown), is_viewer = token_is(access->viewer, shown);
    OPENSSL_cleanse(shown, sizeof(shown));
    if (is_admin)
        return HTTP_ROLE_ADMIN;
    return is_viewer ? HTTP_ROLE_VIEWER : HTTP_ROLE_NONE;
}

enum http_role http_access_of_peer(int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    int domain = 0;
    socklen_t domain_size = sizeof(domain);

    if (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_size) != 0 || domain != AF_UNIX ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0)
        return HTTP_ROLE_NONE;
    return peer.uid == 0 || peer.uid == geteuid() ? HTTP_ROLE_ADMIN : HTTP_ROLE_NONE;
}

bool http_access_host_is_local(const char *host)
{
    if (host == NULL || strchr(host, '.') == NULL)
        return true;
    return strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.:")] == '\0';
}

bool http_access_origin_is_own(const char *origin, const char *host)
{
    const char *authority = origin == NULL ? NULL : strstr(origin, "://");

    if (origin == NULL)
        return true;
    return authority != NULL && host != NULL && strcasecmp(authority + 3, host) == 0;
}
