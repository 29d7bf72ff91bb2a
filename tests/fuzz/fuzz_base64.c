/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as base64: what is accepted is no longer than promised, and encodes to the same text.
 */
#include <stdlib.h>

#include "base/base64.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint32_t decoded = UINT32_MAX;

    if (size > 65536)
        return 0;
    struct span text = span_of(data, (uint32_t)size);
    uint8_t *octets = malloc(size / 4 * 3 + 1);
    char *again = malloc(size + 4);
    CHECK(octets != NULL && again != NULL);
    if (base64_decode(text, octets, &decoded) == ERR_OK) {
        CHECK(decoded <= size / 4 * 3 && BASE64_SIZE(decoded) == size);
        base64_encode(span_of(octets, decoded), again);
        CHECK(size == 0 || memcmp(again, data, size) == 0);
    } else {
        CHECK(decoded == UINT32_MAX);
    }
    free(octets);
    free(again);
    return 0;
}
