/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of what happened to mail are fixed in size: text is cut to its field and always ends in a
 * NUL. What the octets are is the writer's business, who escapes them.
 */
#include "relay/record.h"

#include <inttypes.h>
#include <stdio.h>

void record_text(char *ret_field, uint32_t field_size, struct span text)
{
    CHECK(field_size > 0);
    uint32_t size = text.size < field_size ? text.size : field_size - 1;
    if (size > 0)
        memcpy(ret_field, text.data, size);
    ret_field[size] = '\0';
}

/* ---- events ---- */

/* 0: no event that a later run can name again. */
static char event_letter(uint32_t kind)
{
    switch (kind) {
    case RECORD_RECEPTION:
        return 'r';
    case RECORD_DELIVERY:
        return 'd';
    case RECORD_BOUNCE:
        return 'b';
    case RECORD_EXPIRY:
        return 'x';
    default:
        return 0;
    }
}

const char *record_event_format(const struct record *record, char ret_text[RECORD_EVENT_SIZE])
{
    char letter = event_letter(record->kind), id[MESSAGE_ID_TEXT_SIZE];

    if (letter == 0)
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%" PRIx64 "-%u-%" PRIu64,
                       (uint64_t)record->time, record->shard, record->sequence);
    else if (record->kind == RECORD_RECEPTION)
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%s-r", message_id_format(record->id, id));
    else
        (void)snprintf(ret_text, RECORD_EVENT_SIZE, "%s-%c%u", message_id_format(record->id, id),
                       letter, record->recipient_index);
    return ret_text;
}
