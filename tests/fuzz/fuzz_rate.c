/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as a list of rates: what is accepted is within its bounds, in order, and means the
 * same when it is written and parsed again.
 */
#include "queue/rate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct rate_set set, again;
    char text[RATE_TEXT_SIZE];
    uint32_t count;
    bool is_whole = true;

    if (size > 4096)
        return 0;
    if (rate_count_parse(span_of(data, (uint32_t)size), &count) == ERR_OK)
        CHECK(count > 0 && count <= RATE_COUNT_MAX);
    if (rate_set_parse(span_of(data, (uint32_t)size), &set) != ERR_OK)
        return 0;
    CHECK(set.count > 0 && set.count <= RATE_MAX);
    for (uint32_t i = 0; i < set.count; i++) {
        const struct rate *rate = &set.rates[i];
        CHECK(rate->count > 0 && rate->count <= RATE_COUNT_MAX);
        CHECK(rate->window >= RATE_WINDOW_MIN && rate->window <= RATE_WINDOW_MAX);
        CHECK(i == 0 || set.rates[i - 1].window < rate->window);
        is_whole = is_whole && rate->window % TICK_S(1) == 0;
    }
    rate_set_format(&set, text);
    if (is_whole) {
        CHECK(rate_set_parse(span_from_text(text), &again) == ERR_OK);
        CHECK(rate_set_is_equal(&set, &again));
    }
    return 0;
}
