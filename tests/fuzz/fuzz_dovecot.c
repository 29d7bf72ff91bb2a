/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as lines of Dovecot's authentication protocol: no line is read beyond its end, and one
 * that is refused changes nothing.
 */
#include <stdlib.h>

#include "relay/dovecot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void line_check(const uint8_t *data, uint32_t size)
{
    struct dovecot_line line = {.number = 7, .is_plain = true, .is_temporary = true};
    uint8_t *copy = malloc(size + 1); /* of its own: reads behind it are seen */

    CHECK(copy != NULL);
    memcpy(copy, data, size);
    copy = realloc(copy, size > 0 ? size : 1);
    if (dovecot_line_parse(span_of(copy, size), &line) != ERR_OK) {
        CHECK(line.number == 7 && line.is_plain && line.is_temporary);
    } else {
        CHECK(line.word <= DOVECOT_CONT);
        CHECK(!line.is_plain || line.word == DOVECOT_MECH);
        CHECK(line.user_size == 0 || line.word == DOVECOT_OK);
        CHECK(line.user_size <= AUTH_NAME_MAX);
        CHECK(!line.is_temporary || line.word == DOVECOT_FAIL);
        CHECK(line.challenge_size == 0 || line.word == DOVECOT_CONT);
        CHECK(line.challenge_size <= AUTH_CHALLENGE_MAX);
        for (uint32_t i = 0; i < line.challenge_size; i++) /* it goes into a reply */
            CHECK(line.challenge[i] > ' ' && line.challenge[i] <= 'z');
    }
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 65536)
        return 0;
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t line_size = end == NULL ? size - at : (size_t)(end - data) - at;
        line_check(data + at, (uint32_t)line_size);
        at += line_size + 1;
    }
    return 0;
}
