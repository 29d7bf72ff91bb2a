/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whatever stands in a file of records in binary: its reader goes on octet by octet and never
 * beyond the end, and what it takes for a record is encoded to the same octets and can be
 * formatted. The first octet says whether the record at the front gets a right size and checksum.
 */
#include <stdlib.h>

#include "control/record_csv.h"
#include "control/record_json.h"
#include "control/record_raw.h"
#include "queue/crc32c.h"

static void look(struct span octets)
{
    struct record record;
    struct record_time time = {0};
    uint8_t again[RECORD_RAW_ROOM];
    char line[RECORD_JSON_SIZE_MAX];
    uint32_t size = 0;

    for (uint32_t at = 0; at < octets.size;) {
        struct span rest = span_skip(octets, at);
        if (record_raw_decode(rest, &record, &size) != ERR_OK) {
            at++;
            continue;
        }
        CHECK(size <= rest.size && record_raw_pack(&record, record.sequence, again) == size);
        (void)record_raw_seal(again);
        CHECK(memcmp(again, rest.data, size) == 0);
        (void)record_json_format(&record, &time, line);
        (void)record_csv_format(&record, line);
        at += size;
    }
}

static void seal(uint8_t *octets, uint32_t size)
{
    if (size < RECORD_RAW_SIZE_MIN)
        return;
    uint16_t whole = (uint16_t)(size < RECORD_RAW_SIZE_MAX ? size : RECORD_RAW_SIZE_MAX);
    octets[0] = 0xa7;
    octets[1] = 0x01;
    memcpy(octets + 2, &whole, sizeof(whole));
    uint32_t checksum = crc32c_update(0, span_of(octets, 4));
    checksum = crc32c_update(checksum, span_of(octets + 8, whole - 8u));
    memcpy(octets + 4, &checksum, sizeof(checksum));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > 65536)
        return 0;
    uint32_t length = (uint32_t)size - 1;
    uint8_t *copy = malloc(length + 1); /* exactly sized: overreads show */
    CHECK(copy != NULL);
    memcpy(copy, data + 1, length);
    if (data[0] & 1)
        seal(copy, length);
    look(span_of(copy, length));
    free(copy);
    return 0;
}
