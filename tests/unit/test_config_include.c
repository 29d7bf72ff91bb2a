/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configurations of more files than one: what belongs to it and in which order, what adds up and
 * what is given once, where a mistake is, and that nothing is read twice or without end.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control/config.h"
#include "control/config_show.h"

static char folder[] = "/tmp/test_config_include.XXXXXX";
static struct config_report report;

static const char *path_of(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

struct file {
    const char *name, *text;
};

#define FILES_MAX 4u

/* `files[0]` is loaded. NULL: refused. */
static struct config *load(const struct file files[FILES_MAX])
{
    static char first[128];
    struct config *config = NULL;

    snprintf(first, sizeof(first), "rm -rf %s/*", folder);
    assert_int_equal(0, system(first));
    mkdir(path_of("conf.d"), 0700);
    for (uint32_t i = 0; i < FILES_MAX && files[i].name != NULL; i++) {
        FILE *out = fopen(path_of(files[i].name), "w");
        assert_non_null(out);
        fputs(files[i].text, out);
        fclose(out);
    }
    snprintf(first, sizeof(first), "%s", path_of(files[0].name));
    config_report_init(&report, first);
    if (config_load(first, &config, &report) != ERR_OK)
        return NULL;
    return config;
}

/* Goal: lists of mappings add up in the order of files, sections may be spread, values are where
 * they are. */
static void test_files_add_up(void **state)
{
    static const struct file files[FILES_MAX] = {
        {"main.yaml", "hostname: a.example\n"
                      "include: [conf.d/*.yaml, more.yaml]\n"
                      "sources: [{name: s1, addresses: [192.0.2.1]}]\n"
                      "spool: {size: 1GiB}\n"},
        {"conf.d/b.yaml", "sources: [{name: s3, addresses: [192.0.2.3]}]\n"},
        {"conf.d/a.yaml",
         "sources: [{name: s2, addresses: [192.0.2.2]}]\nspool: {segment: 2MiB}\n"},
        {"more.yaml", "# nothing but a list\nsources:\n- {name: s4, addresses: [192.0.2.4]}\n"},
    };
    struct config *config = load(files);

    (void)state;
    if (config == NULL)
        print_message("# %s\n", report.text);
    assert_non_null(config);
    const struct config_source *sources = config->sources.items;
    assert_int_equal(4, config->sources.count);
    for (uint32_t i = 0; i < 4; i++) {
        char name[3] = {'s', (char)('1' + i), '\0'};
        assert_string_equal(name, sources[i].settings.name);
    }
    assert_int_equal(1u << 30, config->spool.size);
    assert_int_equal(2u << 20, config->spool.segment_size);
    config_free(config);
}

/* Goal: each mistake is told with its file and line, a double with both. */
static void test_mistakes(void **state)
{
    static const struct {
        const char *name;
        struct file files[FILES_MAX];
        const char *complaints[2];
    } rows[] = {
        {"a value given twice",
         {{"main.yaml", "include: [a.yaml]\n\ncores: 1\n"}, {"a.yaml", "\ncores: 2\n"}},
         {"a.yaml:2: cores: given twice: also in /tmp", "main.yaml:3"}},
        {"one below a section",
         {{"main.yaml", "include: [a.yaml]\nspool:\n  size: 64MiB\n"},
          {"a.yaml", "spool: {size: 65MiB}\n"}},
         {"a.yaml:1: spool.size: given twice: also in /tmp", "main.yaml:3"}},
        {"a list of values",
         {{"main.yaml", "relay_from: [10.0.0.0/8]\ninclude: [a.yaml]\n"},
          {"a.yaml", "relay_from: [10.0.0.0/8]\n"}},
         {"a.yaml:1: relay_from: given twice", "main.yaml:1"}},
        {"within one file",
         {{"main.yaml", "cores: 1\ncores: 1\n"}},
         {"main.yaml:2: cores: given twice: also in line 1", ""}},
        {"a mistake in an included file",
         {{"main.yaml", "include: [a.yaml]\n"}, {"a.yaml", "\n\ncores: x\n"}},
         {"a.yaml:3: cores: expected", ""}},
        {"a name in two files",
         {{"main.yaml", "include: [a.yaml]\nsources: [{name: s, addresses: [192.0.2.1]}]\n"},
          {"a.yaml", "\nsources: [{name: s, addresses: [192.0.2.2]}]\n"}},
         {"a.yaml:2: sources[].name: s is the name of a source in /tmp", "main.yaml:2 already"}},
        {"no YAML",
         {{"main.yaml", "include: [a.yaml]\n"}, {"a.yaml", "\n{\n"}},
         {"a.yaml:", "YAML: "}},
        {"a file that is not there",
         {{"main.yaml", "\ninclude: [none.yaml]\n"}},
         {"main.yaml:2: include: /tmp", "none.yaml: there is no such file"}},
        {"a folder",
         {{"main.yaml", "include: [conf.d]\n"}},
         {"main.yaml:1: include: /tmp", "conf.d cannot be read: Is a directory"}},
        {"itself",
         {{"main.yaml", "include: [main.yaml]\n"}},
         {"main.yaml:1: include: /tmp", "main.yaml is read already: it is the first file"}},
        {"itself by way of another",
         {{"main.yaml", "include: [a.yaml]\n"}, {"a.yaml", "include: [./main.yaml]\n"}},
         {"a.yaml:1: include: /tmp", "main.yaml is read already: it is the first file"}},
        {"one twice",
         {{"main.yaml", "include: [a.yaml, b.yaml]\n"},
          {"a.yaml", ""},
          {"b.yaml", "\ninclude: [\"?.yaml\"]\n"}},
         {"b.yaml:2: include: /tmp", "a.yaml is read already: also in /tmp"}},
        {"too long", {{"main.yaml", "include: [a.yaml"}}, {"main.yaml:", "YAML"}},
    };

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        print_message("# %s\n", rows[i].name);
        struct config *config = load(rows[i].files);
        assert_null(config);
        for (uint32_t j = 0; j < 2; j++) {
            if (strstr(report.text, rows[i].complaints[j]) == NULL)
                print_message("# got: %s\n", report.text);
            assert_non_null(strstr(report.text, rows[i].complaints[j]));
        }
    }
}

/* Goal: a pipe among the files is refused, and not waited for. */
static void test_pipes(void **state)
{
    static const struct {
        const char *name, *text, *complaint;
    } rows[] = {
        {"included", "include: [\"../pipe/*\"]\n", "p cannot be read: it is no regular file"},
        {"patterns", "patterns_file: ../pipe/p\n", "p cannot be read: it is no regular file"},
        {"a device", "include: [/dev/zero]\n", "/dev/zero cannot be read: it is no regular file"},
    };
    char pipe_folder[160];

    (void)state;
    snprintf(pipe_folder, sizeof(pipe_folder), "%s/pipe", folder);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        char text[256];
        struct file files[FILES_MAX] = {{"conf.d/main.yaml", text}};
        print_message("# %s\n", rows[i].name);
        (void)snprintf(text, sizeof(text), "%s", rows[i].text);
        struct config *config = load(files); /* makes them; nothing else is there yet */
        if (config != NULL)
            config_free(config);
        assert_int_equal(0, mkdir(pipe_folder, 0700));
        assert_int_equal(0, mkfifo(path_of("pipe/p"), 0600));
        alarm(10);
        config_report_init(&report, path_of("conf.d/main.yaml"));
        assert_int_not_equal(ERR_OK, config_load(path_of("conf.d/main.yaml"), &config, &report));
        alarm(0);
        if (strstr(report.text, rows[i].complaint) == NULL)
            print_message("# got: %s\n", report.text);
        assert_non_null(strstr(report.text, rows[i].complaint));
    }
}

/* Goal: a pattern that matches nothing is no mistake; paths begin beside the file that has them. */
static void test_paths(void **state)
{
    static const struct file files[FILES_MAX] = {
        {"main.yaml", "include: [conf.d/first.yaml, \"none*.yaml\"]\n"},
        {"conf.d/first.yaml", "include: [second.yaml]\n"},
        {"conf.d/second.yaml", "cores: 3\n"},
    };
    struct config *config = load(files);

    (void)state;
    assert_non_null(config);
    assert_int_equal(3, config->cores);
    config_free(config);
}

/* Goal: so many files below each other, and so many in all, on both sides. */
static void test_bounds(void **state)
{
    (void)state;
    for (uint32_t deep = CONFIG_DEPTH_MAX; deep <= CONFIG_DEPTH_MAX + 1; deep++) {
        static const struct file none[FILES_MAX] = {{"0.yaml", ""}};
        struct config *config = load(none);
        assert_non_null(config);
        config_free(config);
        for (uint32_t i = 0; i <= deep; i++) {
            char name[32];
            snprintf(name, sizeof(name), "%u.yaml", i);
            FILE *out = fopen(path_of(name), "w");
            assert_non_null(out);
            if (i < deep)
                fprintf(out, "include: [%u.yaml]\n", i + 1);
            fclose(out);
        }
        const char *first = path_of("0.yaml");
        config_report_init(&report, first);
        enum err err = config_load(first, &config, &report);
        assert_int_equal(deep == CONFIG_DEPTH_MAX ? ERR_OK : ERR_CONFIG_SYNTAX, err);
        if (err == ERR_OK)
            config_free(config);
        else
            assert_non_null(strstr(report.text, "more than 8 files below each other"));
    }
    for (uint32_t count = CONFIG_FILES_MAX - 1; count <= CONFIG_FILES_MAX; count++) {
        static const struct file many[FILES_MAX] = {{"main.yaml", "include: [conf.d/*]\n"}};
        struct config *config = load(many);
        assert_non_null(config);
        config_free(config);
        for (uint32_t i = 0; i < count; i++) {
            char name[32];
            snprintf(name, sizeof(name), "conf.d/%u", i);
            fclose(fopen(path_of(name), "w"));
        }
        const char *first = path_of("main.yaml");
        config_report_init(&report, first);
        enum err err = config_load(first, &config, &report);
        assert_int_equal(count < CONFIG_FILES_MAX ? ERR_OK : ERR_CONFIG_SYNTAX, err);
        if (err == ERR_OK)
            config_free(config);
    }
}

/* Goal: what is shown names the file of each value. */
static void test_show(void **state)
{
    static const struct file files[FILES_MAX] = {
        {"main.yaml", "include: [a.yaml]\nsources: [{name: s1, addresses: [192.0.2.1]}]\n"},
        {"a.yaml", "\ncores: 3\nsources: [{name: s2, addresses: [192.0.2.2]}]\n"},
    };
    static const char *const expected[] = {
        "cores                                        3                            # "
        "FOLDER/a.yaml:2\n",
        "include[0]                                   a.yaml                       # "
        "FOLDER/main.yaml:1\n",
        "sources[0].name                              s1                           # "
        "FOLDER/main.yaml:2\n",
        "sources[1].name                              s2                           # "
        "FOLDER/a.yaml:3\n",
        "hostname                                                                  # default\n",
    };
    struct config *config = load(files);
    char *text = NULL, line[256];
    size_t size = 0;

    (void)state;
    assert_non_null(config);
    config_free(config);
    FILE *out = open_memstream(&text, &size);
    assert_non_null(out);
    assert_true(config_show(path_of("main.yaml"), out, stderr));
    fclose(out);
    for (uint32_t i = 0; i < COUNT_OF(expected); i++) {
        const char *at = strstr(expected[i], "FOLDER");
        if (at == NULL)
            snprintf(line, sizeof(line), "%s", expected[i]);
        else
            snprintf(line, sizeof(line), "%.*s%s%s", (int)(at - expected[i]), expected[i], folder,
                     at + strlen("FOLDER"));
        if (strstr(text, line) == NULL)
            print_message("# not there: %s", line);
        assert_non_null(strstr(text, line));
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_add_up), cmocka_unit_test(test_mistakes),
        cmocka_unit_test(test_pipes),        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_bounds),       cmocka_unit_test(test_show),
    };
    char command[64];

    if (mkdtemp(folder) == NULL)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command) != 0 ? 1 : failed;
}
