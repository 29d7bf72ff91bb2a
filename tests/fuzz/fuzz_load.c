/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What angarium-load reads from people and peers. The first octet says as what the others are read:
 * a list or rows of weights, words and replies of a mood, the field of a message, or a body, which
 * must be the same in all cuts.
 */
#include "bench/load/body_reader.h"
#include "bench/load/dist.h"
#include "bench/load/mood.h"
#include "bench/load/text.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_dist(struct span text, bool has_rows)
{
    char why[DIST_WHY_SIZE];
    struct dist dist;
    uint64_t sum = 0;
    struct rng rng;
    enum err err = has_rows ? dist_parse_rows(text, &dist, why) : dist_parse_list(text, &dist, why);

    CHECK((err == ERR_OK) == (dist.count > 0) && dist.count <= DIST_ROW_MAX);
    for (uint32_t i = 0; i < dist.count; i++) {
        CHECK(dist.rows[i].weight > 0 && dist.rows[i].weight <= DIST_WEIGHT_MAX);
        CHECK(dist.rows[i].name_size == strlen(dist.rows[i].name) && dist.rows[i].name_size > 0);
        sum += dist.rows[i].weight;
        CHECK(dist.rows[i].until == sum);
    }
    rng_init_seed(&rng, 1);
    for (uint32_t i = 0; i < 8 && dist.count > 0; i++)
        CHECK(dist_pick(&dist, &rng) < dist.count);
    dist_fini(&dist);
}

static void check_mood(struct span text, uint8_t kind)
{
    char why[MOOD_WHY_SIZE];
    struct mood mood = {0};
    struct rng rng;
    enum err err = kind == 0   ? mood_delay_parse(&mood, text, why)
                   : kind == 1 ? mood_reject_parse(&mood, text, why)
                   : kind == 2 ? mood_drop_parse(&mood, text, why)
                               : mood_replies_parse(&mood, text, why);

    CHECK(err == ERR_OK || strlen(why) > 0);
    rng_init_seed(&rng, 1);
    for (uint32_t step = 0; step < MOOD_STEP_COUNT; step++) {
        CHECK(mood.steps[step].odds <= MOOD_ODDS_ALL);
        struct mood_verdict verdict = mood_draw(&mood, (enum mood_step)step, &rng);
        CHECK(verdict.delay <= MOOD_DELAY_MAX);
        if (verdict.reply != NULL)
            CHECK(strcmp(verdict.reply + strlen(verdict.reply) - 2, "\r\n") == 0);
    }
    mood_fini(&mood);
}

/* The text up to the end, its size, and octets used of the input. */
static uint32_t read_body(struct span input, uint32_t cut, uint8_t *ret_text, uint32_t *ret_used)
{
    struct body_reader reader = {0};
    uint32_t used = 0, size = 0;

    while (used < input.size && reader.state != BODY_END) {
        struct span text, part = span_skip(input, used);
        part.size = part.size < cut ? part.size : cut;
        uint32_t step = body_reader_next(&reader, part, &text);
        CHECK(step > 0 || text.size > 0);
        CHECK(size + text.size <= input.size);
        memcpy(ret_text + size, text.data, text.size);
        used += step;
        size += text.size;
    }
    *ret_used = used;
    return size;
}

static void check_body(struct span input)
{
    uint8_t whole[512], cut[512];
    uint32_t used, used_cut;
    uint32_t size = read_body(input, input.size, whole, &used);

    for (uint32_t i = 1; i <= 4; i++) {
        CHECK(read_body(input, i, cut, &used_cut) == size && used_cut == used);
        CHECK(memcmp(whole, cut, size) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct text_seen seen;

    if (size < 2 || size > 500)
        return 0;
    struct span text = span_of(data + 1, (uint32_t)size - 1);
    switch (data[0]) {
    case 'l':
    case 'r':
        check_dist(text, data[0] == 'r');
        break;
    case '0':
    case '1':
    case '2':
    case '3':
        check_mood(text, (uint8_t)(data[0] - '0'));
        break;
    case 'f':
        if (text_field_parse(text, &seen) == ERR_OK)
            CHECK(seen.size <= TEXT_SIZE_MAX && seen.covered.size < text.size);
        break;
    case 'b':
        check_body(text);
        break;
    default:
        break;
    }
    return 0;
}
