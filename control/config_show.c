/* SPDX-License-Identifier: Apache-2.0 */
#include "control/config_show.h"

#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "control/config.h"

struct row {
    char *place, *text, *file;
    uint32_t line; /* 0: the default */
};

struct rows {
    struct row *list;
    size_t count, capacity;
};

static void on_value(void *context, const char *place, struct span text, const char *file,
                     uint32_t line)
{
    struct rows *rows = context;

    if (rows->count == rows->capacity) {
        rows->capacity = rows->capacity == 0 ? 256 : 2 * rows->capacity;
        rows->list = reallocarray(rows->list, rows->capacity, sizeof(*rows->list));
        CHECK(rows->list != NULL);
    }
    struct row *row = &rows->list[rows->count++];
    row->place = strdup(place);
    row->text = strndup((const char *)text.data, text.size);
    row->file = strdup(file);
    row->line = line;
    CHECK(row->place != NULL && row->text != NULL && row->file != NULL);
}

static int row_compare(const void *a, const void *b)
{
    return strverscmp(((const struct row *)a)->place, ((const struct row *)b)->place);
}

static void row_write(const struct row *row, FILE *out)
{
    char shown[1024];
    struct span text = span_from_text(row->text);

    (void)log_escape(span_head(text, text.size < 250 ? text.size : 250), shown, sizeof(shown));
    if (row->line == 0)
        fprintf(out, "%-44s %-28s # default\n", row->place, shown);
    else
        fprintf(out, "%-44s %-28s # %s:%u\n", row->place, shown, row->file, row->line);
}

static json_t *rows_json(const struct rows *rows)
{
    json_t *list = json_array();

    for (size_t i = 0; i < rows->count; i++) {
        const struct row *row = &rows->list[i];
        json_t *json = json_pack("{ss,ss}", "option", row->place, "value", row->text);
        if (row->line > 0) {
            json_object_set_new(json, "file", json_string(row->file));
            json_object_set_new(json, "line", json_integer(row->line));
        }
        json_array_append_new(list, json);
    }
    return list;
}

static void rows_free(struct rows *rows)
{
    for (size_t i = 0; i < rows->count; i++) {
        free(rows->list[i].place);
        free(rows->list[i].text);
        free(rows->list[i].file);
    }
    free(rows->list);
}

/* False: what is wrong is in the report. The caller frees the rows. */
static bool rows_load(struct rows *rows, const char *path, struct config_report *report)
{
    struct config_values values = {rows, on_value};
    struct config *config = NULL;

    config_report_init(report, path);
    report->is_look = true;
    report->values = &values;
    bool is_ok = config_load(path, &config, report) == ERR_OK;
    if (is_ok)
        config_free(config);
    if (rows->count > 0)
        qsort(rows->list, rows->count, sizeof(*rows->list), row_compare);
    report->values = NULL;
    return is_ok;
}

bool config_show(const char *path, FILE *out, FILE *complaints)
{
    struct rows rows = {0};
    struct config_report report;
    bool is_ok = rows_load(&rows, path, &report);

    for (size_t i = 0; i < rows.count && is_ok; i++)
        row_write(&rows.list[i], out);
    if (!is_ok)
        fputs(report.text, complaints);
    rows_free(&rows);
    return is_ok;
}

json_t *config_show_json(const char *path)
{
    struct rows rows = {0};
    struct config_report report;
    json_t *answer = rows_load(&rows, path, &report)
                         ? json_pack("{sb,ss,so}", "ok", 1, "file", path, "rows", rows_json(&rows))
                         : json_pack("{sb,ss,ss}", "ok", 0, "file", path, "error", report.text);

    rows_free(&rows);
    return answer;
}
