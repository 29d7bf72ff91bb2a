/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The management interface of a configuration: its tokens, key and certificate are read here, so
 * that `angarium check` finds what is wrong with them, and the daemon needs the files only once.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/regular_file.h"
#include "control/config.h"

#define PEM_SIZE_MAX (256u << 10)

static void token_complete(const char *path, const char *option, uint32_t line,
                           char ret_token[HTTP_TOKEN_SIZE], struct config_report *report)
{
    if (path == NULL)
        return;
    enum err err = http_token_read(path, ret_token);
    if (err == ERR_SYSTEM)
        config_complain(report, line, option, "%s: %s", path, strerror(errno));
    else if (err != ERR_OK)
        config_complain(report, line, option,
                        "%s: a token is one line of 16 to 512 printable characters without spaces, "
                        "in a regular file that others may not read (chmod 600)",
                        path);
}

/* A PEM file as text in the configuration's arena; NULL with a complaint, or without memory. */
static const char *pem_read(struct config *config, const char *path, const char *option,
                            struct config_report *report)
{
    char *text = arena_acquire(&config->arena, PEM_SIZE_MAX + 1);
    const char *why = "";
    int fd = regular_file_open(path, &why);
    ssize_t size = fd < 0 || text == NULL ? -1 : read(fd, text, PEM_SIZE_MAX + 1);

    if (size <= 0 || size > (ssize_t)PEM_SIZE_MAX) {
        config_complain(report, config->http.tls_line, option, "%s: %s", path,
                        fd < 0     ? why
                        : size < 0 ? strerror(errno)
                                   : "empty, or larger than 256 KB");
        text = NULL;
    } else {
        text[size] = '\0';
    }
    if (fd >= 0)
        close(fd);
    return text;
}

static void tls_complete(struct config *config, struct config_report *report)
{
    struct config_http *http = &config->http;

    if (http->tls_line == 0)
        return;
    if (http->certificate_file == NULL || http->key_file == NULL) {
        config_complain(report, http->tls_line, "http.tls", "needs `certificate` and `key`");
        return;
    }
    http->certificate = pem_read(config, http->certificate_file, "http.tls.certificate", report);
    http->key = pem_read(config, http->key_file, "http.tls.key", report);
}

static bool is_loopback(const struct flow_address *address)
{
    static const uint8_t v6[16] = {[15] = 1};

    return address->family == FLOW_FAMILY_IP4 ? address->ip[0] == 127
                                              : memcmp(address->ip, v6, sizeof(v6)) == 0;
}

void config_http_complete(struct config *config, struct config_report *report)
{
    struct config_http *http = &config->http;
    uint32_t line = http->line;

    token_complete(http->viewer_token_file, "http.viewer_token_file", line, http->access.viewer,
                   report);
    token_complete(http->admin_token_file, "http.admin_token_file", line, http->access.admin,
                   report);
    tls_complete(config, report);
    if (http->access.viewer[0] != '\0' && strcmp(http->access.viewer, http->access.admin) == 0)
        config_complain(report, line, "http", "viewers and admins need tokens that differ");
    if (http->listen.port == 0)
        return;
    if (!is_loopback(&http->listen) && http->tls_line == 0)
        config_complain(report, line, "http.listen",
                        "beyond loopback `tls` is needed: tokens would go in the clear");
    if (http->viewer_token_file == NULL && http->admin_token_file == NULL && !http->metrics_open)
        config_complain(report, line, "http.listen",
                        "needs a token file, or `open_metrics`: nobody could ask anything");
}
