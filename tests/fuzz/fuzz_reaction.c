/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The first line is an expression, the second codes, the third enhanced codes, what is behind them
 * a reply: a rule that is taken can be matched, a refusal says why, and nothing takes long.
 */
#include "relay/reaction.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LINE_SIZE (REACTION_REGEX_MAX + 8)

/* Cuts a line off the front; text as an option may have it: printable. */
static void line_take(const uint8_t **data, size_t *size, char ret_line[LINE_SIZE])
{
    uint32_t used = 0;

    while (*size > 0 && **data != '\n') {
        if (used < LINE_SIZE - 1 && **data >= ' ' && **data <= '~')
            ret_line[used++] = (char)**data;
        (*data)++;
        (*size)--;
    }
    ret_line[used] = '\0';
    if (*size > 0) {
        (*data)++;
        (*size)--;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char regex[LINE_SIZE], code[LINE_SIZE], enhanced[LINE_SIZE], why[REACTION_WHY_SIZE] = "";

    if (size > 65536)
        return 0;
    line_take(&data, &size, regex);
    line_take(&data, &size, code);
    line_take(&data, &size, enhanced);
    struct reaction_set *set = reaction_set_new();
    struct reaction_spec spec = {
        .name = "fuzz", .regex = regex, .code = code, .enhanced = enhanced};
    if (reaction_set_add(set, &spec, why) == ERR_OK) {
        struct reaction_matcher *matcher = reaction_matcher_new();
        reaction_matcher_use(matcher, set);
        struct reaction_reply reply = {
            .code = 421, .enhanced = {4, 7, 0}, .text = span_of(data, (uint32_t)size)};
        const struct reaction_spec *found = reaction_find(matcher, &reply);
        CHECK(found == NULL || found == reaction_set_get(set, 0));
        CHECK(reaction_matcher_stats(matcher, 0).matches == (found != NULL));
        reaction_matcher_free(matcher);
    } else {
        CHECK(why[0] != '\0' && reaction_set_count(set) == 0);
    }
    reaction_set_free(set);
    return 0;
}
