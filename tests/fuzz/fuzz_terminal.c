/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a peer's text for a terminal: what is shown has no control characters, ends within
 * its room behind a whole character, and for a terminal without UTF-8 is ASCII.
 */
#include <jansson.h>

#include "control/terminal_text.h"

#define ROOM 300u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void shown_verify(const char *text, bool has_utf8)
{
    json_t *json = json_string(text); /* NULL: it is no UTF-8 */

    CHECK(json != NULL);
    json_decref(json);
    for (const uint8_t *at = (const uint8_t *)text; *at != '\0'; at++) {
        CHECK(*at >= ' ' && *at != 0x7f);
        CHECK(has_utf8 || *at < 0x80);
        CHECK(at[0] != 0xc2 || at[1] >= 0xa0); /* control characters of eight bits */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char text[ROOM];

    if (size < 2 || size > 4096)
        return 0;
    uint32_t room = 1 + data[0];
    bool has_utf8 = data[1] % 2 != 0;
    const char *shown = terminal_text(span_of(data + 2, (uint32_t)size - 2), has_utf8, text, room);
    CHECK(shown == text && strlen(text) < room);
    shown_verify(text, has_utf8);
    return 0;
}
