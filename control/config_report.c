/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is wrong with a configuration, and where: complaints with file, line and key. A line is kept
 * with the number of its file in its upper bits, so that whoever has a line has both.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "control/config.h"

void config_report_init(struct config_report *report, const char *file)
{
    *report = (struct config_report){.file = file, .files = {file}, .file_count = 1};
}

enum err config_report_add(struct config_report *report, const char *file)
{
    if (report->file_count == CONFIG_FILES_MAX)
        return ERR_LIMIT;
    report->at = report->file_count++;
    report->files[report->at] = file;
    return ERR_OK;
}

const char *config_file_of(const struct config_report *report, uint32_t line)
{
    uint32_t number = line == 0 ? report->at : line >> CONFIG_LINE_BITS;

    CHECK(number < report->file_count);
    return report->files[number];
}

const char *config_where(const struct config_report *report, uint32_t line,
                         char ret_text[CONFIG_WHERE_SIZE])
{
    uint32_t number = line & CONFIG_LINE_MASK;

    if (report->file_count == 1)
        (void)snprintf(ret_text, CONFIG_WHERE_SIZE, "line %u", number);
    else
        (void)snprintf(ret_text, CONFIG_WHERE_SIZE, "%.280s:%u", config_file_of(report, line),
                       number);
    return ret_text;
}

static uint32_t line_find(const struct config_report *report, const char *key)
{
    for (uint32_t i = 0; i < option_count; i++) {
        if (strcmp(option_table[i].path, key) == 0)
            return report->lines[i];
    }
    return 0;
}

void config_complain(struct config_report *report, uint32_t line, const char *key,
                     const char *format, ...)
{
    char where[32] = "", reason[512];
    va_list arguments;

    if (line == 0)
        line = line_find(report, key);

    report->count += 1;
    if (report->count > CONFIG_COMPLAINT_MAX)
        return;
    va_start(arguments, format);
    vsnprintf(reason, sizeof(reason), format, arguments);
    va_end(arguments);
    if (line > 0)
        snprintf(where, sizeof(where), "%u: ", line & CONFIG_LINE_MASK);
    int size = snprintf(report->text + report->size, sizeof(report->text) - report->size,
                        "%s:%s%s%s%s%s\n", config_file_of(report, line), line > 0 ? "" : " ", where,
                        key, *key == '\0' ? "" : ": ", reason);
    CHECK(size > 0);
    report->size += (uint32_t)size;
    if (report->size >= sizeof(report->text))
        report->size = sizeof(report->text) - 1;
    if (report->complaints != NULL)
        report->complaints->on_complaint(
            report->complaints->context, config_file_of(report, line), line & CONFIG_LINE_MASK,
            line == report->mark_line ? report->mark_column : 0, key, reason);
}
