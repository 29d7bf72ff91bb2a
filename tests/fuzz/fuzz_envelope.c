/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Envelopes, progress and message ids from any octets: no crash, and what decodes encodes to the
 * octets it came from. The first octet chooses the parser: 'e' envelope, 'p' progress, 'i' id.
 */
#include <stdlib.h>

#include "queue/envelope.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void fuzz_envelope(struct span octets, struct arena *arena)
{
    struct envelope envelope;

    if (envelope_decode(octets, arena, &envelope) != ERR_OK)
        return;
    CHECK(envelope_encoded_size(&envelope) == octets.size);
    uint8_t *again = malloc(octets.size);
    CHECK(again != NULL);
    envelope_encode(&envelope, again);
    CHECK(memcmp(again, octets.data, octets.size) == 0);

    CHECK(envelope_decode(span_of(again, octets.size), arena, &envelope) == ERR_OK);
    for (uint32_t i = 0; i < envelope.recipient_count; i++)
        envelope_patch_state(again, &envelope.recipients[i], RECIPIENT_SETTLED);
    envelope_patch_flags(again, 0);
    CHECK(envelope_decode(span_of(again, octets.size), arena, &envelope) == ERR_OK);
    free(again);
}

static void fuzz_progress(struct span octets, struct arena *arena)
{
    struct envelope_progress progress;

    if (envelope_progress_decode(octets, arena, &progress) != ERR_OK)
        return;
    uint32_t size = envelope_progress_encoded_size(&progress);
    CHECK(size <= octets.size); /* TLVs of a newer version are dropped */
    uint8_t *again = malloc(size);
    CHECK(again != NULL);
    envelope_progress_encode(&progress, again);
    CHECK(memcmp(again, octets.data, size) == 0);
    free(again);
}

static void fuzz_id(struct span text)
{
    char back[MESSAGE_ID_TEXT_SIZE];
    struct message_id id;

    if (message_id_parse(text, &id) == ERR_OK)
        CHECK(span_is_equal_nocase(span_from_text(message_id_format(id, back)), text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena arena;

    if (size < 1 || size > ENVELOPE_SIZE_MAX)
        return 0;
    struct span octets = span_of(data + 1, (uint32_t)size - 1);
    arena_init(&arena, 512, 1u << 22);
    if (data[0] == 'e')
        fuzz_envelope(octets, &arena);
    else if (data[0] == 'p')
        fuzz_progress(octets, &arena);
    else if (data[0] == 'i')
        fuzz_id(octets);
    arena_fini(&arena);
    return 0;
}
