/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of what happened to mail are fixed in size: text is cut to its field and always ends in a
 * NUL. What the octets are is the writer's business, who escapes them.
 */
#include "relay/record.h"

void record_text(char *ret_field, uint32_t field_size, struct span text)
{
    CHECK(field_size > 0);
    uint32_t size = text.size < field_size ? text.size : field_size - 1;
    if (size > 0)
        memcpy(ret_field, text.data, size);
    ret_field[size] = '\0';
}
