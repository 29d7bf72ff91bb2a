/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as the fields of a request over HTTP, one a line, of which the first is the version:
 * what is taken says at most once where the body ends, as digits or as chunks.
 */
#include "control/http_request.h"

#include <string.h>
#include <strings.h>

#define TEXT_MAX 4096u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    struct http_framing framing;
    uint32_t says; /* fields that are about the body */
};

static void line_take(struct seen *seen, char *line)
{
    char *value = strchr(line, ':');

    if (value == NULL)
        return;
    *value++ = '\0';
    value += strspn(value, " \t");
    struct http_framing before = seen->framing;
    http_framing_add(&seen->framing, line, value);
    bool is_size = strcasecmp(line, "content-length") == 0;
    bool is_coding = strcasecmp(line, "transfer-encoding") == 0;
    seen->says += is_size || is_coding;
    bool is_good = strpbrk(line, " \t\r") == NULL && strpbrk(value, "\r\x1b\x7f") == NULL &&
                   (!is_size || (*value != '\0' && strspn(value, "0123456789") == strlen(value))) &&
                   (!is_coding || strcasecmp(value, "chunked") == 0);
    CHECK(is_good || seen->framing.is_odd);
    CHECK(!before.is_odd || seen->framing.is_odd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[TEXT_MAX + 1], *rest = text;
    struct seen seen = {0};

    if (size > TEXT_MAX)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    const char *version = strsep(&rest, "\n");
    while (rest != NULL)
        line_take(&seen, strsep(&rest, "\n"));
    if (http_framing_is_plain(&seen.framing, version)) {
        CHECK(seen.says <= 1);
        CHECK(seen.framing.codings == 0 || strcmp(version, "HTTP/1.0") != 0);
    }
    return 0;
}
