/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as main.cf, master.cf and a transport table, with NULs between: what is written is a
 * configuration that is understood.
 */
#include <stdio.h>
#include <stdlib.h>

#include "control/config.h"
#include "control/postfix_import.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The part of the input behind so many NULs. */
static uint8_t *on_read(void *context, const char *path, uint32_t *ret_size)
{
    struct span rest = *(const struct span *)context;
    uint32_t skip = strstr(path, "main.cf") != NULL ? 0 : strstr(path, "master.cf") != NULL ? 1 : 2;

    for (; skip > 0; skip--) {
        const uint8_t *end = rest.size == 0 ? NULL : memchr(rest.data, '\0', rest.size);
        rest = span_skip(rest, end == NULL ? rest.size : (uint32_t)(end - rest.data) + 1);
    }
    const uint8_t *end = rest.size == 0 ? NULL : memchr(rest.data, '\0', rest.size);
    *ret_size = end == NULL ? rest.size : (uint32_t)(end - rest.data);
    uint8_t *text = malloc(*ret_size + 1);
    CHECK(text != NULL);
    if (*ret_size > 0)
        memcpy(text, rest.data, *ret_size);
    return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct span input = span_of(data, (uint32_t)size);
    struct postfix_import_source source = {.context = &input, .read = on_read};
    char why[POSTFIX_IMPORT_WHY_SIZE] = "", *text = NULL;
    size_t text_size = 0;
    struct config_report report;
    struct config *config = NULL;

    if (size > 16384)
        return 0;
    FILE *out = open_memstream(&text, &text_size);
    CHECK(out != NULL);
    enum err err = postfix_import(&source, "/etc/postfix", out, why);
    fclose(out);
    CHECK(err == ERR_OK || (text_size == 0 && why[0] != '\0'));
    config_report_init(&report, "imported");
    if (err == ERR_OK && text_size <= CONFIG_FILE_SIZE_MAX) {
        CHECK(config_parse(span_of(text, (uint32_t)text_size), &config, &report) == ERR_OK);
        config_free(config);
    }
    free(text);
    return 0;
}
