/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Adding up what shards tell. The first is taken as it is, so that nothing need be cleared.
 */
#include "control/status_sums.h"

#include <string.h>

#include "base/check.h"

#define PLACE(field)   offsetof(struct shard_status, field), FIELD_SIZE(field)
#define FIELD_SIZE(of) sizeof(((struct shard_status *)NULL)->of)

/* A number of struct shard_status. */
static const struct field {
    uint16_t offset;
    uint8_t size;
    bool is_shared;
} fields[] = {
#define STATUS(group, name, type, help) {PLACE(group.name), false},
#define SHARED(group, name, help)       {PLACE(group.name), true},
#define OWN(name, type, help)           {PLACE(name), false},
#include "control/status.def"
};
_Static_assert(COUNT_OF(fields) == STATUS_NUMBER_COUNT, "one for each row");
_Static_assert(sizeof(struct shard_status) <= UINT16_MAX, "offsets have 16 bits");

static const uint16_t latencies[] = {
#define LATENCY(name, help) offsetof(struct shard_status, latencies.name),
#include "control/status.def"
};

static const uint16_t fines[] = {
#define FINE(name, help) offsetof(struct shard_status, stamps.name),
#include "control/status.def"
};

static uint64_t number_get(const uint8_t *place, uint32_t size)
{
    uint64_t wide;
    uint32_t narrow;

    CHECK(size == 1 || size == 4 || size == 8);
    if (size == 1)
        return *place;
    if (size == 8) {
        memcpy(&wide, place, sizeof(wide));
        return wide;
    }
    memcpy(&narrow, place, sizeof(narrow));
    return narrow;
}

static void numbers_add(uint64_t *sums, const uint64_t *numbers, uint32_t count, bool is_first)
{
    for (uint32_t i = 0; i < count; i++)
        sums[i] = numbers[i] + (is_first ? 0 : sums[i]);
}

void status_sums_add(struct status_sums *sums, const struct shard_status *status)
{
    const uint8_t *places = (const uint8_t *)status;
    bool is_first = sums->shard_count++ == 0;

    for (uint32_t i = 0; i < COUNT_OF(fields); i++) {
        uint64_t value = number_get(places + fields[i].offset, fields[i].size);
        uint64_t before = is_first ? 0 : sums->numbers[i];
        if (fields[i].is_shared) /* one may know it a moment before another */
            sums->numbers[i] = value > before ? value : before;
        else
            sums->numbers[i] = value + before;
    }
    for (uint32_t i = 0; i < COUNT_OF(latencies); i++)
        numbers_add((uint64_t *)&sums->latencies[i], (const uint64_t *)(places + latencies[i]),
                    sizeof(struct latency) / sizeof(uint64_t), is_first);
    for (uint32_t i = 0; i < COUNT_OF(fines); i++)
        numbers_add((uint64_t *)&sums->fines[i], (const uint64_t *)(places + fines[i]),
                    sizeof(struct latency_fine) / sizeof(uint64_t), is_first);
}
