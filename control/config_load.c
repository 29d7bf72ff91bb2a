/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration from a file, and the file of patterns that it names: read, parse, assemble,
 * complete. On a mistake everything made so far
 * is freed, and the report says what is wrong.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control/config.h"

/* The whole file, one octet more than allowed at most, so that the parser sees that it is too
 * large. Ownership: *ret_text is the caller's to free. False: errno says why. */
static bool file_read(const char *path, uint8_t **ret_text, uint32_t *ret_size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint8_t *text = malloc(CONFIG_FILE_SIZE_MAX + 1);
    uint32_t size = 0;
    ssize_t got = 1;

    while (fd >= 0 && text != NULL && got > 0 && size <= CONFIG_FILE_SIZE_MAX) {
        got = read(fd, text + size, CONFIG_FILE_SIZE_MAX + 1 - size);
        size += got > 0 ? (uint32_t)got : 0;
    }
    if (fd < 0 || text == NULL || got < 0) {
        int why = errno;
        free(text);
        if (fd >= 0)
            close(fd);
        errno = why;
        return false;
    }
    close(fd);
    *ret_text = text;
    *ret_size = size;
    return true;
}

/* A relative path begins beside the configuration, so that both move together. */
static enum err patterns_path_complete(struct config *config, const char *beside)
{
    const char *slash = strrchr(beside, '/');

    if (config->patterns_file[0] == '/' || slash == NULL)
        return ERR_OK;
    size_t folder = (size_t)(slash - beside) + 1, size = strlen(config->patterns_file) + 1;
    char *path = arena_acquire(&config->arena, folder + size);
    if (path == NULL)
        return ERR_MEMORY;
    memcpy(path, beside, folder);
    memcpy(path + folder, config->patterns_file, size);
    config->patterns_file = path;
    return ERR_OK;
}

static enum err patterns_load(struct config *config, struct config_report *report)
{
    uint8_t *text = NULL;
    uint32_t size;

    if (config->patterns_file == NULL)
        return ERR_OK;
    if (patterns_path_complete(config, report->file) != ERR_OK) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    if (!file_read(config->patterns_file, &text, &size)) {
        config_complain(report, 0, "patterns_file", "%s cannot be read: %s", config->patterns_file,
                        strerror(errno));
        return ERR_NOT_FOUND;
    }
    enum err err = config_patterns_parse(config, span_of(text, size), report);
    free(text);
    return err;
}

enum err config_load(const char *path, struct config **ret_config, struct config_report *report)
{
    struct config *config = NULL;
    uint8_t *text;
    uint32_t size;

    if (!file_read(path, &text, &size)) {
        config_complain(report, 0, "", "cannot be read: %s", strerror(errno));
        return ERR_NOT_FOUND;
    }
    enum err err = config_parse(span_of(text, size), &config, report);
    free(text);
    if (err != ERR_OK)
        return err;
    err = patterns_load(config, report);
    if (err == ERR_OK)
        err = config_assemble(config, report);
    if (err == ERR_OK)
        err = config_complete(config, report);
    if (err != ERR_OK) {
        config_free(config);
        return err;
    }
    *ret_config = config;
    return ERR_OK;
}
