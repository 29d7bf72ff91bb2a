/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a path and a body of a request over HTTP: what comes of it is one line for the
 * control socket, with the verb that the path names; a refusal says why.
 */
#include "control/http_request.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *end = memchr(data, '\n', size);
    char path[256] = "", verb[HTTP_VERB_MAX], why[HTTP_REQUEST_WHY_SIZE] = "";

    if (end == NULL || (size_t)(end - data) >= sizeof(path) || size > 65536)
        return 0;
    memcpy(path, data, (size_t)(end - data));
    const char *body = (const char *)end + 1;
    json_t *request = http_request_parse(path, body, size - (size_t)(end - data) - 1, why);
    if (request == NULL) {
        CHECK(why[0] != '\0' && strlen(why) < sizeof(why));
        return 0;
    }
    CHECK(http_request_verb(path, verb));
    CHECK(strcmp(json_string_value(json_object_get(request, "verb")), verb) == 0);
    char *line = json_dumps(request, JSON_COMPACT);
    CHECK(line != NULL && strchr(line, '\n') == NULL);
    free(line);
    (void)http_request_is_stream(request);
    json_decref(request);
    return 0;
}
