/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any header in any pieces: the same addresses are shown as for one piece, with the same verdict;
 * each is an address, and what passes had no foreign one. The first octet says how large the pieces
 * are.
 */
#include <stdlib.h>

#include "relay/author.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct seen {
    uint64_t digest;
    bool was_foreign;
};

/* Those whose names begin with a letter up to m are the user's. */
static bool owns(const void *context, const struct smtp_address *address)
{
    struct seen *seen = *(struct seen *const *)context;

    CHECK(address->local_part.size > 0 && address->domain_key_size > 0);
    for (uint32_t i = 0; i < address->text.size; i++) {
        CHECK(address->text.data[i] != '\r' && address->text.data[i] != '\n');
        seen->digest = (seen->digest ^ address->text.data[i]) * 0x100000001b3ull;
    }
    seen->digest = (seen->digest ^ 256) * 0x100000001b3ull;
    bool is_own = address->text.data[0] <= 'm';
    seen->was_foreign |= !is_own;
    return is_own;
}

static bool check_in_pieces(struct span left, uint32_t piece, struct seen *seen)
{
    struct author_check check;

    *seen = (struct seen){0};
    author_check_init(&check, owns, &seen);
    while (left.size > 0) {
        uint32_t size = left.size < piece ? left.size : piece;
        author_check_feed(&check, span_head(left, size));
        left = span_skip(left, size);
    }
    author_check_finish(&check);
    return author_check_is_refused(&check);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen whole, split;

    if (size < 1 || size > 65536)
        return 0;
    struct span text = span_of(data + 1, (uint32_t)size - 1);
    bool is_refused = check_in_pieces(text, UINT32_MAX, &whole);
    CHECK(check_in_pieces(text, 1u + data[0], &split) == is_refused);
    CHECK(whole.digest == split.digest);
    CHECK(is_refused || !whole.was_foreign);
    return 0;
}
