/* SPDX-License-Identifier: Apache-2.0 */
/* What the spool computes for each record of a message: checksums. */
#include "bench/micro/harness.h"

#include <stdlib.h>
#include <string.h>

#include "queue/crc32c.h"
#include "queue/spool_record.h"

#define BODY_SIZE 10240u

struct record_context {
    struct spool_record record;
    uint8_t body[BODY_SIZE];
};

static void *record_set_up(void)
{
    struct record_context *context = calloc(1, sizeof(*context));

    CHECK(context != NULL);
    for (uint32_t i = 0; i < BODY_SIZE; i++)
        context->body[i] = (uint8_t)(i * 31 + (i >> 8));
    context->record = (struct spool_record){
        .type = SPOOL_BODY, .payload_size = BODY_SIZE, .salt = 42, .epoch = 1, .sequence = 1};
    memset(&context->record.id, 1, sizeof(context->record.id));
    return context;
}

static void record_seal(void *pointer, uint64_t iterations)
{
    struct record_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++) {
        context->record.sequence = i + 1;
        context->record.payload_checksum = crc32c_update(0, span_of(context->body, BODY_SIZE));
        spool_record_seal(&context->record);
        micro_keep(context->record.checksum);
    }
}

static void checksum_body(void *pointer, uint64_t iterations)
{
    struct record_context *context = pointer;

    for (uint64_t i = 0; i < iterations; i++)
        micro_keep(crc32c_update((uint32_t)i, span_of(context->body, BODY_SIZE)));
}

const struct micro_bench micro_bench_spool[] = {
    {"spool_record_seal", record_set_up, record_seal, free, 1, 0,
     "header and payload of a BODY record of 10 KB, 1 core"},
    {"crc32c", record_set_up, checksum_body, free, 1, BODY_SIZE, "10 KB in cache, 1 core"},
    {0},
};
