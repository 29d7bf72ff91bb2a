/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A configuration from a file, those that it includes, and the file of patterns that it names:
 * read, parse, assemble, complete. On a mistake everything made so far is freed, and the report
 * says what is wrong.
 *
 * Order: a file, then what it includes, each followed by its own includes; what a pattern matches
 * in the order of the octets of the names. Lists of mappings are in that order.
 *
 * Limits: CONFIG_FILES_MAX files, one level below another CONFIG_DEPTH_MAX times; each file once,
 * so that no file includes itself by way of others. A pattern that matches nothing is no mistake, a
 * name without one that is not there is.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/regular_file.h"
#include "control/config.h"

/* The whole file, one octet more than allowed at most, so that the parser sees that it is too
 * large. Ownership: *ret_text is the caller's to free. False: *ret_why says why. */
static bool descriptor_read(int fd, uint8_t **ret_text, uint32_t *ret_size, const char **ret_why)
{
    uint8_t *text = malloc(CONFIG_FILE_SIZE_MAX + 1);
    uint32_t size = 0;
    ssize_t got = 1;

    while (text != NULL && got > 0 && size <= CONFIG_FILE_SIZE_MAX) {
        got = read(fd, text + size, CONFIG_FILE_SIZE_MAX + 1 - size);
        size += got > 0 ? (uint32_t)got : 0;
    }
    if (text == NULL || got < 0) {
        *ret_why = strerror(errno);
        free(text);
        return false;
    }
    *ret_text = text;
    *ret_size = size;
    return true;
}

/* Only the first file may be a pipe, which whoever starts us or checks it writes: one that lies in
 * a folder of others would keep a reload waiting, and with it all who ask the relay. */
static bool file_read(const char *path, bool is_first, uint8_t **ret_text, uint32_t *ret_size,
                      const char **ret_why)
{
    int fd = is_first ? open(path, O_RDONLY | O_CLOEXEC) : regular_file_open(path, ret_why);

    if (fd < 0) {
        *ret_why = is_first ? strerror(errno) : *ret_why;
        return false;
    }
    bool is_read = descriptor_read(fd, ret_text, ret_size, ret_why);
    close(fd);
    return is_read;
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
    const char *why;
    uint8_t *text = NULL;
    uint32_t size;

    if (config->patterns_file == NULL)
        return ERR_OK;
    if (patterns_path_complete(config, report->file) != ERR_OK) {
        config_complain(report, 0, "", "the configuration is too large");
        return ERR_MEMORY;
    }
    if (!file_read(config->patterns_file, false, &text, &size, &why)) {
        config_complain(report, 0, "patterns_file", "%s cannot be read: %s", config->patterns_file,
                        why);
        return ERR_NOT_FOUND;
    }
    enum err err = config_patterns_parse(config, span_of(text, size), report);
    free(text);
    return err;
}

/* ---- includes ---- */

/* A file that is still to be read: the last one of the stack is next. */
struct pending {
    char *path;
    uint32_t line, depth; /* where it is included */
};

struct loading {
    struct config *config;
    struct config_report *report;
    struct pending stack[CONFIG_FILES_MAX];
    uint32_t count;
    char *real[CONFIG_FILES_MAX]; /* of those that were read, by their numbers */
    uint32_t lines[CONFIG_FILES_MAX];
};

static bool pending_push(struct loading *loading, const char *path, uint32_t line, uint32_t depth)
{
    if (loading->count == CONFIG_FILES_MAX) {
        config_complain(loading->report, line, "include", "more than %u files", CONFIG_FILES_MAX);
        return false;
    }
    char *copy = strdup(path);
    CHECK(copy != NULL);
    loading->stack[loading->count++] = (struct pending){copy, line, depth};
    return true;
}

/* What a pattern stands for, the last first. `beside`: the file that has it. */
static void pattern_push(struct loading *loading, const char *pattern, const char *beside,
                         uint32_t line, uint32_t depth)
{
    const char *slash = strrchr(beside, '/');
    int folder = pattern[0] == '/' || slash == NULL ? 0 : (int)(slash - beside) + 1;
    char path[PATH_MAX];
    glob_t found;

    if (snprintf(path, sizeof(path), "%.*s%s", folder, beside, pattern) >= (int)sizeof(path)) {
        config_complain(loading->report, line, "include", "\"%.100s\" is too long", pattern);
        return;
    }
    int status = glob(path, 0, NULL, &found);
    if (status == 0) {
        for (size_t i = found.gl_pathc; i-- > 0;) {
            if (!pending_push(loading, found.gl_pathv[i], line, depth))
                break;
        }
    } else if (status != GLOB_NOMATCH || pattern[strcspn(pattern, "*?[")] == '\0') {
        config_complain(loading->report, line, "include", "%s: %s", path,
                        status == GLOB_NOMATCH ? "there is no such file" : "cannot be read");
    }
    globfree(&found);
}

static uint32_t include_line(const struct config_report *report)
{
    const struct option *option = option_find("", SPAN_LITERAL("include"));

    CHECK(option != NULL);
    return report->lines[option - option_table];
}

/* Was it read before? Then it is said where. */
static bool is_double(struct loading *loading, const struct pending *next, const char *real)
{
    char where[CONFIG_WHERE_SIZE] = "the first file";

    for (uint32_t i = 0; i < loading->report->file_count; i++) {
        if (strcmp(loading->real[i], real) != 0)
            continue;
        if (loading->lines[i] != 0)
            (void)config_where(loading->report, loading->lines[i], where);
        config_complain(loading->report, next->line, "include", "%s is read already: %s%s",
                        next->path, loading->lines[i] != 0 ? "also in " : "it is ", where);
        return true;
    }
    return false;
}

/* The file and its number. False: told why. `next` of line 0 is the first one. */
static bool file_begin(struct loading *loading, const struct pending *next, char *real)
{
    struct config_report *report = loading->report;

    if (next->line == 0) {
        loading->real[0] = real;
        return true;
    }
    if (next->depth > CONFIG_DEPTH_MAX) {
        config_complain(report, next->line, "include", "%s: more than %u files below each other",
                        next->path, CONFIG_DEPTH_MAX);
        return false;
    }
    if (is_double(loading, next, real))
        return false;
    char *kept = arena_acquire(&loading->config->arena, strlen(next->path) + 1);
    if (kept == NULL || config_report_add(report, kept) != ERR_OK) {
        config_complain(report, next->line, "include", "%s is one file too many", next->path);
        return false;
    }
    memcpy(kept, next->path, strlen(next->path) + 1);
    loading->real[report->at] = real;
    loading->lines[report->at] = next->line;
    return true;
}

static void file_load(struct loading *loading, const struct pending *next)
{
    struct config *config = loading->config;
    bool is_first = next->line == 0;
    char *real = realpath(next->path, NULL);
    const char *why = real == NULL ? strerror(errno) : "";
    uint8_t *text = NULL;
    uint32_t size;

    if (real == NULL || !file_read(next->path, is_first, &text, &size, &why)) {
        config_complain(loading->report, next->line, is_first ? "" : "include",
                        "%s%scannot be read: %s", is_first ? "" : next->path, is_first ? "" : " ",
                        why);
        free(real);
        return;
    }
    if (!file_begin(loading, next, real)) {
        free(real);
        free(text);
        return;
    }
    config_parse_text(config, span_of(text, size), loading->report);
    free(text);
    const char *const *includes = config->includes.items;
    for (uint32_t i = config->includes.count; i-- > 0;)
        pattern_push(loading, includes[i], next->path, include_line(loading->report),
                     next->depth + 1);
}

/* All files. Complaints are in the report. */
static void files_load(struct config *config, const char *path, struct config_report *report)
{
    struct loading *loading = calloc(1, sizeof(*loading));

    CHECK(loading != NULL);
    loading->config = config;
    loading->report = report;
    (void)pending_push(loading, path, 0, 0);
    while (loading->count > 0) {
        struct pending next = loading->stack[--loading->count];
        file_load(loading, &next);
        free(next.path);
    }
    report->at = 0;
    config->includes = (struct option_list){0};
    for (uint32_t i = 0; i < report->file_count; i++)
        free(loading->real[i]);
    free(loading);
    config_parse_end(report);
}

enum err config_load(const char *path, struct config **ret_config, struct config_report *report)
{
    struct config *config = NULL;

    if (access(path, R_OK) != 0) {
        config_complain(report, 0, "", "cannot be read: %s", strerror(errno));
        return ERR_NOT_FOUND;
    }
    TRY(config_parse_begin(&config, report));
    files_load(config, path, report);
    enum err err = report->count > 0 ? ERR_CONFIG_SYNTAX : patterns_load(config, report);
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
