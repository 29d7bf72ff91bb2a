/* SPDX-License-Identifier: Apache-2.0 */
/*
 * --report DIR: report.svg, the chart, and report.json, all figures of it and the totals:
 *     {"title": ..., "source": {"seconds": [...], "total": {...}}, "sink": {...}}
 */
#include "bench/load/load.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

static FILE *report_open(const char *directory, const char *name, char path[4096])
{
    int size = snprintf(path, 4096, "%s/%s", directory, name);
    FILE *file = size > 0 && size < 4096 ? fopen(path, "w") : NULL;

    if (file == NULL)
        (void)fprintf(stderr, "angarium-load: cannot write %s: %s\n", path, strerror(errno));
    return file;
}

static bool report_close(FILE *file, const char *path)
{
    bool is_ok = ferror(file) == 0;

    is_ok = fclose(file) == 0 && is_ok;
    if (!is_ok)
        (void)fprintf(stderr, "angarium-load: cannot write %s: %s\n", path, strerror(errno));
    return is_ok;
}

static void write_meter(FILE *file, const struct meter *meter)
{
    (void)fprintf(file, ",\n\"%s\":{\"seconds\":[", meter->what);
    for (uint32_t i = 0; i < meter->sample_count; i++) {
        (void)fputs(i == 0 ? "\n" : ",\n", file);
        meter_write_sample(file, meter, &meter->samples[i]);
    }
    (void)fputs("],\n\"total\":", file);
    meter_write_total(file, meter, (double)(meter->last_at - meter->started) / 1e6);
    (void)fputc('}', file);
}

static void title_make(const struct load_options *options, const struct meter *source,
                       char ret_title[256])
{
    char size[40];

    if (options->sizes.count > 0)
        (void)snprintf(size, sizeof(size), "%u sizes", options->sizes.count);
    else
        (void)snprintf(size, sizeof(size), "%u octets", options->size);
    if (source == NULL)
        (void)snprintf(ret_title, 256, "angarium-load sink");
    else if (options->rate > 0)
        (void)snprintf(ret_title, 256, "angarium-load: %.15g messages/s offered, %u sessions, %s",
                       options->rate, options->sessions, size);
    else
        (void)snprintf(ret_title, 256, "angarium-load: closed loop, %u sessions, %s",
                       options->sessions, size);
}

bool load_report(const struct load_options *options, const struct meter *source,
                 const struct meter *sink)
{
    char path[4096], title[256];

    if (mkdir(options->report_directory, 0777) != 0 && errno != EEXIST) {
        (void)fprintf(stderr, "angarium-load: cannot make %s: %s\n", options->report_directory,
                      strerror(errno));
        return false;
    }
    title_make(options, source, title);
    FILE *file = report_open(options->report_directory, "report.svg", path);
    if (file == NULL)
        return false;
    load_chart(file, title, source, sink);
    if (!report_close(file, path))
        return false;
    file = report_open(options->report_directory, "report.json", path);
    if (file == NULL)
        return false;
    (void)fprintf(file, "{\"title\":\"%s\"", title);
    if (source != NULL)
        write_meter(file, source);
    if (sink != NULL)
        write_meter(file, sink);
    (void)fputs("}\n", file);
    return report_close(file, path);
}
