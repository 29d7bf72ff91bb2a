/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any octets as the reply to a question. The first octet says which type was asked; ID and question
 * are made ours, since a reply without them is dropped before anything else is read. What comes out
 * must be well-formed whatever went in: sizes, names, bounds of counts and of the TTL.
 */
#include <stdlib.h>

#include "dns/query.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct query_limits limits = {5, 86400, 900};

static void value_check_exchangers(const struct query_answer *answer)
{
    uint32_t at = 0, count = 0, before = 0;

    while (at < answer->value_size) {
        uint16_t preference;
        CHECK(at + 3 <= answer->value_size);
        memcpy(&preference, answer->value + at, 2);
        struct span name = span_of(answer->value + at + 3, answer->value[at + 2]);
        at += 3 + name.size;
        CHECK(at <= answer->value_size && preference >= before);
        CHECK(name.size == 0 || query_name_is_sound(name) ||
              span_is_equal(name, SPAN_LITERAL(".")));
        before = preference;
        count++;
    }
    CHECK(count <= QUERY_MX_MAX);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint16_t types[] = {CODEC_TYPE_MX, CODEC_TYPE_A, CODEC_TYPE_AAAA};
    static struct codec_message scratch;
    static struct query_answer answer;
    struct query query;
    struct rng rng;

    if (size < 1 || size - 1 > CODEC_MESSAGE_MAX)
        return 0;
    rng_init_seed(&rng, 1);
    query_init(&query, SPAN_LITERAL("q.example"), types[data[0] % COUNT_OF(types)]);
    query_write(&query, &rng);

    uint32_t packet_size = (uint32_t)size - 1;
    uint8_t *packet = malloc(packet_size + 1);
    CHECK(packet != NULL);
    memcpy(packet, data + 1, packet_size);
    if (packet_size >= query.question_end) {
        memcpy(packet, query.packet, 2);
        memcpy(packet + CODEC_HEADER_SIZE, query.packet + CODEC_HEADER_SIZE,
               query.question_end - CODEC_HEADER_SIZE);
    }
    struct span span = span_of(packet, packet_size);
    if (query_judge(&query, span) == QUERY_ANSWERED &&
        query_read(&query, span, &limits, &scratch, &answer) == ERR_OK) {
        CHECK(answer.ttl_s >= limits.ttl_min_s && answer.ttl_s <= limits.ttl_max_s);
        CHECK((answer.value_size > 0) == (answer.outcome == DNS_OUTCOME_POSITIVE));
        CHECK(answer.value_size <= QUERY_VALUE_MAX);
        if (query.type == CODEC_TYPE_MX)
            value_check_exchangers(&answer);
        else
            CHECK(answer.value_size % (query.type == CODEC_TYPE_A ? 4 : 16) == 0);
    }
    free(packet);
    return 0;
}
