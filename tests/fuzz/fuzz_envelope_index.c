/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of an envelope from any octets: no crash, and what decodes encodes to the octets it
 * came from and names a delivery for every recipient. The first octet chooses: 'x' an encoded
 * index, 'e' an envelope of which the index is made.
 */
#include "queue/envelope_index.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_index(struct span encoded)
{
    struct envelope_index index;
    uint8_t again[ENVELOPE_INDEX_SIZE_MAX];
    uint32_t total = 0;

    if (envelope_index_decode(encoded, (struct message_id){1, 2}, &index) != ERR_OK)
        return;
    CHECK(envelope_index_encoded_size(&index) == encoded.size);
    envelope_index_encode(&index, again);
    CHECK(memcmp(again, encoded.data, encoded.size) == 0);
    for (uint32_t i = 0; i < index.delivery_count; i++) {
        CHECK(envelope_index_find(&index, index.deliveries[i].first) == i);
        total += index.deliveries[i].count;
    }
    CHECK(total == index.recipient_count && total <= ENVELOPE_RECIPIENT_MAX);
}

static void check_made(struct span envelope)
{
    uint8_t encoded[ENVELOPE_INDEX_SIZE_MAX];
    struct envelope_index index;
    struct arena arena;

    arena_init(&arena, 512, 1u << 22);
    uint32_t size = envelope_index_make(envelope, &arena, encoded);
    if (size > 0) {
        CHECK(envelope_index_decode(span_of(encoded, size), (struct message_id){1, 2}, &index) ==
              ERR_OK);
        check_index(span_of(encoded, size));
    }
    arena_fini(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 || size > ENVELOPE_SIZE_MAX)
        return 0;
    struct span octets = span_of(data + 1, (uint32_t)size - 1);
    if (data[0] == 'x')
        check_index(octets);
    else if (data[0] == 'e')
        check_made(octets);
    return 0;
}
