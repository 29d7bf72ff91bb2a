/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A text that is sent may have been made to keep us busy: for each token libyaml looks at all
 * brackets that are open, for each anchor at all anchors, and for each directive at all directives.
 * So these are counted before it sees the text, wherever they stand: a configuration has few.
 */
#include "control/config_check.h"

#include <string.h>

#include "control/config.h"
#include "control/option.h"
#include "control/spool_room.h"

#define DEPTH_MAX      200u /* also of brackets in strings, as those of patterns, that stay open */
#define ANCHORS_MAX    1000u
#define DIRECTIVES_MAX 100u

struct check {
    json_t *errors, *warnings;
};

static void on_complaint(void *context, const char *file, uint32_t line, uint32_t column,
                         const char *key, const char *reason)
{
    const struct check *check = context;
    json_t *error = json_object();

    json_object_set_new(error, "file", json_string(file));
    if (line > 0)
        json_object_set_new(error, "line", json_integer(line));
    if (line > 0 && column > 0)
        json_object_set_new(error, "column", json_integer(column));
    if (*key != '\0')
        json_object_set_new(error, "option", json_string(key));
    json_object_set_new(error, "text", json_string(reason));
    json_array_append_new(check->errors, error);
}

static void warn(const struct check *check, const char *option, uint32_t line, const char *text)
{
    json_t *warning = json_object();

    if (json_array_size(check->warnings) < CONFIG_WARNINGS_MAX) {
        json_object_set_new(warning, "option", json_string(option));
        if (line > 0)
            json_object_set_new(warning, "line", json_integer(line));
        json_object_set_new(warning, "text", json_string(text));
        json_array_append_new(check->warnings, warning);
    } else {
        json_decref(warning);
    }
}

/* The answer. It has what is in `check`. */
static json_t *check_answer(const struct check *check, const struct config_report *report)
{
    bool is_ok = report->count == 0;
    json_t *answer = json_pack("{sb,so*}", "ok", is_ok, "file", json_string(report->file));

    if (!is_ok) {
        size_t size = strlen(report->text);
        while (size > 0 && report->text[size - 1] == '\n')
            size--;
        json_object_set_new(answer, "error", json_stringn(report->text, size));
    }
    json_object_set_new(answer, "errors", check->errors);
    json_object_set_new(answer, "warnings", check->warnings);
    return answer;
}

json_t *config_check_file(const char *path)
{
    struct check check = {json_array(), json_array()};
    const struct config_complaints complaints = {&check, on_complaint};
    struct config_report report;
    struct config *config = NULL;
    char why[SPOOL_ROOM_WHY_SIZE];

    config_report_init(&report, path);
    report.is_look = true;
    report.complaints = &complaints;
    if (config_load(path, &config, &report) == ERR_OK) {
        if (!spool_room_suffices(&config->spool, why))
            warn(&check, "spool.size", 0, why);
        config_free(config);
    }
    return check_answer(&check, &report);
}

/* ---- texts ---- */

/* "listen[3].tls.key" is of the row "listen[].tls.key", "relay_from[2]" of "relay_from". */
static const struct option *row_of(const char *place)
{
    char path[CONFIG_PLACE_SIZE + OPTION_PATH_SIZE];
    size_t size = 0;

    for (; *place != '\0' && size + 1 < sizeof(path); place++) {
        if (*place < '0' || *place > '9' || size == 0 || path[size - 1] != '[')
            path[size++] = *place;
    }
    path[size] = '\0';
    for (uint32_t i = 0; i < option_count; i++) {
        size_t known = strlen(option_table[i].path);
        if (strncmp(option_table[i].path, path, known) == 0 &&
            (path[known] == '\0' || strcmp(path + known, "[]") == 0))
            return &option_table[i];
    }
    return NULL;
}

static void on_value(void *context, const char *place, struct span text, const char *file,
                     uint32_t line)
{
    const struct option *option = line == 0 ? NULL : row_of(place);

    (void)file;
    if (option != NULL && option->kind == OPTION_PATH && text.size > 0)
        warn(context, place, line, "what is there was not looked at");
}

/* What is more than a configuration has; NULL: nothing. */
static const char *excess_find(struct span text)
{
    uint32_t depth = 0, anchors = 0, directives = 0;

    for (uint32_t i = 0; i < text.size; i++) {
        uint8_t octet = text.data[i];
        depth += octet == '[' || octet == '{';
        depth -= (octet == ']' || octet == '}') && depth > 0;
        anchors += octet == '&';
        directives += octet == '%' && (i == 0 || text.data[i - 1] == '\n');
        if (depth > DEPTH_MAX)
            return "too many brackets are open at once";
        if (anchors > ANCHORS_MAX)
            return "too many anchors (`&`)";
        if (directives > DIRECTIVES_MAX)
            return "too many directives (`%`)";
    }
    return NULL;
}

static void text_check(struct config *config, struct span text, struct config_report *report)
{
    const char *excess = excess_find(text);

    if (excess != NULL) {
        config_complain(report, 0, "", "%s", excess);
        return;
    }
    config_parse_text(config, text, report);
    report->mark_line = 0;
    if (config->includes.count > 0)
        config_complain(report, 0, "include",
                        "a text that is sent may not include files: check them where they are");
    config->includes = (struct option_list){0};
    config_parse_end(report);
    if (report->count == 0 && config_assemble(config, report) != ERR_OK && report->count == 0)
        config_complain(report, 0, "", "no memory");
}

json_t *config_check_text(struct span text)
{
    struct check check = {json_array(), json_array()};
    const struct config_complaints complaints = {&check, on_complaint};
    const struct config_values values = {&check, on_value};
    struct config_report report;
    struct config *config = NULL;

    config_report_init(&report, CONFIG_CHECK_TEXT);
    report.complaints = &complaints;
    report.values = &values;
    if (config_parse_begin(&config, &report) == ERR_OK) {
        text_check(config, text, &report);
        config_free(config);
    } else {
        config_complain(&report, 0, "", "no memory");
    }
    return check_answer(&check, &report);
}
