/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reply patterns: what a rule may say, which replies it matches, and that neither an expression nor
 * a reply takes long.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/tick.h"
#include "relay/reaction.h"

static const struct rate_set rate = {1, {{10, TICK_S(60)}}};
static const struct rate_set two_rates = {2, {{10, TICK_S(60)}, {100, TICK_S(3600)}}};
static const struct rate_set many = {1, {{65536, TICK_S(60)}}};
static const char *const mx[] = {"*.big.example", "mx.other.example"};

static void rules_are_checked(void **state)
{
    static const char long_name[] = "123456789012345678901234567890123456789012345678";
    static char long_regex[REACTION_REGEX_MAX + 2];
    static const struct {
        const char *label;
        struct reaction_spec spec;
        const char *why; /* NULL: it is taken */
    } rows[] = {
        {"plain", {.name = "a", .regex = "x"}, NULL},
        {"same name", {.name = "a", .regex = "y"}, "another pattern has it"},
        {"no name", {.name = "", .regex = "x"}, "1 to 47"},
        {"longest name", {.name = long_name + 1, .regex = "x"}, NULL},
        {"longer name", {.name = long_name, .regex = "x"}, "1 to 47"},
        {"longest expression", {.name = "b", .regex = long_regex + 1}, NULL},
        {"longer expression", {.name = "c", .regex = long_regex}, "at most 500"},
        {"no expression", {.name = "c", .regex = ""}, "at most 500"},
        {"open bracket", {.name = "c", .regex = "a(b"}, "at octet 3"},
        {"codes", {.name = "d", .regex = "x", .code = "421, 45x 5xx"}, NULL},
        {"code too short", {.name = "e", .regex = "x", .code = "42"}, "code:"},
        {"code of no class", {.name = "e", .regex = "x", .code = "xxx"}, "code:"},
        {"code of class 6", {.name = "e", .regex = "x", .code = "600"}, "code:"},
        {"16 codes",
         {.name = "n",
          .regex = "x",
          .code = "2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx"},
         NULL},
        {"17 codes",
         {.name = "e",
          .regex = "x",
          .code = "4xx 2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx 2xx 3xx 4xx 5xx"},
         "code:"},
        {"enhanced", {.name = "f", .regex = "x", .enhanced = "4.7.28,*.7.*"}, NULL},
        {"enhanced without detail", {.name = "g", .regex = "x", .enhanced = "4.7"}, "enhanced:"},
        {"enhanced with more", {.name = "g", .regex = "x", .enhanced = "4.7.1.1"}, "enhanced:"},
        {"enhanced too high", {.name = "g", .regex = "x", .enhanced = "4.7.256"}, "enhanced:"},
        {"enhanced mixed", {.name = "g", .regex = "x", .enhanced = "4.*7.1"}, "enhanced:"},
        {"slow to nothing", {.name = "g", .regex = "x", .action = REACTION_SLOW}, "`slow`"},
        {"rate of another", {.name = "g", .regex = "x", .rate = rate}, "`slow`"},
        {"slow", {.name = "g", .regex = "x", .action = REACTION_SLOW, .rate = rate}, NULL},
        {"two windows",
         {.name = "h", .regex = "x", .action = REACTION_SLOW, .rate = two_rates},
         "one window"},
        {"trigger", {.name = "h", .regex = "x", .trigger = rate}, NULL},
        {"two triggers", {.name = "i", .regex = "x", .trigger = two_rates}, "one window"},
        {"trigger too high", {.name = "i", .regex = "x", .trigger = many}, "65535"},
    };
    char why[REACTION_WHY_SIZE];

    (void)state;
    memset(long_regex, 'x', REACTION_REGEX_MAX + 1);
    struct reaction_set *set = reaction_set_new();
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        uint32_t count = reaction_set_count(set);
        enum err err = reaction_set_add(set, &rows[i].spec, why);
        bool is_as_expected = rows[i].why == NULL
                                  ? err == ERR_OK && reaction_set_count(set) == count + 1
                                  : err == ERR_CONFIG_VALUE && strstr(why, rows[i].why) != NULL &&
                                        reaction_set_count(set) == count;
        if (!is_as_expected)
            fail_msg("%s: %s", rows[i].label, err == ERR_OK ? "taken" : why);
    }
    reaction_set_free(set);
}

static void first_rule_that_matches_acts(void **state)
{
    static const struct reaction_spec specs[] = {
        {.name = "domain", .domain = "*.one.example", .regex = "greylist"},
        {.name = "provider", .provider = "Big", .regex = "greylist"},
        {.name = "host", .mx = mx, .mx_count = 2, .regex = "greylist"},
        {.name = "stage", .stages = 1u << SMTP_STAGE_RCPT, .regex = "slow down"},
        {.name = "code", .code = "421, 45x", .regex = "slow down"},
        {.name = "enhanced", .enhanced = "*.7.*", .regex = "slow down"},
        {.name = "start", .regex = "^554 .* blocked$"},
        {.name = "blanks", .regex = "too many connections"},
    };
    static const struct {
        const char *name; /* of the rule; NULL: none */
        const char *domain, *provider, *host;
        enum smtp_stage stage;
        uint16_t code;
        uint8_t enhanced[3];
        const char *text;
    } rows[] = {
        {"domain", "a.one.example", "", "h", SMTP_STAGE_RCPT, 450, {0}, "450 Greylisted"},
        {NULL, "one.example", "", "h", SMTP_STAGE_RCPT, 450, {0}, "450 Greylisted"},
        {"provider", "x", "big", "h", SMTP_STAGE_RCPT, 450, {0}, "450 GREYLISTED"},
        {"host", "x", "", "mx1.big.example", SMTP_STAGE_RCPT, 450, {0}, "450 greylisted"},
        {"host", "x", "", "MX.other.example", SMTP_STAGE_RCPT, 450, {0}, "450 greylisted"},
        {NULL, "x", "", "big.example", SMTP_STAGE_RCPT, 450, {0}, "450 greylisted"},
        {"stage", "x", "", "h", SMTP_STAGE_RCPT, 550, {0}, "550 slow down"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 550, {0}, "550 slow down"},
        {"code", "x", "", "h", SMTP_STAGE_MAIL, 421, {0}, "421 slow down"},
        {"code", "x", "", "h", SMTP_STAGE_MAIL, 450, {0}, "450 slow down"},
        {"code", "x", "", "h", SMTP_STAGE_MAIL, 459, {0}, "459 slow down"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 449, {0}, "449 slow down"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 460, {0}, "460 slow down"},
        {"enhanced", "x", "", "h", SMTP_STAGE_MAIL, 550, {5, 7, 255}, "550 5.7.255 slow down"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 550, {5, 1, 7}, "550 5.1.7 slow down"},
        {"start", "x", "", "h", SMTP_STAGE_MAIL, 554, {0}, "554 you are blocked"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 554, {0}, "554 you are blocked here"},
        {"blanks", "x", "", "h", SMTP_STAGE_MAIL, 554, {0}, "554  too\r\n many \t connections"},
        {NULL, "x", "", "h", SMTP_STAGE_MAIL, 554, {0}, ""},
    };
    char why[REACTION_WHY_SIZE];

    (void)state;
    struct reaction_set *set = reaction_set_new();
    struct reaction_matcher *matcher = reaction_matcher_new();
    for (uint32_t i = 0; i < COUNT_OF(specs); i++)
        assert_int_equal(ERR_OK, reaction_set_add(set, &specs[i], why));
    reaction_matcher_use(matcher, set);
    for (uint32_t i = 0; i < COUNT_OF(rows); i++) {
        struct reaction_reply reply = {
            .domain = span_from_text(rows[i].domain),
            .provider = span_from_text(rows[i].provider),
            .host = span_from_text(rows[i].host),
            .stage = rows[i].stage,
            .code = rows[i].code,
            .text = span_from_text(rows[i].text),
        };
        memcpy(reply.enhanced, rows[i].enhanced, sizeof(reply.enhanced));
        const struct reaction_spec *found = reaction_find(matcher, &reply);
        if ((found == NULL) != (rows[i].name == NULL) ||
            (found != NULL && strcmp(found->name, rows[i].name) != 0))
            fail_msg("row %u, \"%s\": %s", i, rows[i].text, found == NULL ? "none" : found->name);
    }
    assert_int_equal(3, reaction_matcher_stats(matcher, 4).matches);
    reaction_matcher_use(matcher, NULL);
    assert_int_equal(0, reaction_matcher_stats(matcher, 4).matches);
    assert_null(reaction_find(matcher, &(struct reaction_reply){.code = 421}));
    reaction_matcher_free(matcher);
    reaction_set_free(set);
}

/* Without limits the first three would take longer than anybody waits. */
static void matching_is_bounded(void **state)
{
    static const char *const hostile[] = {
        "(a+)+[yz]",         "(a|aa)+[yz]",   "^(([a-z])+.)+[A-Z]([a-z])+$",
        "(?:(a)|b)*?(?1)*c", "(?R)?a+(?R)?b", "(.*)(.*)(.*)(.*)(.*)[yz]"};
    static char texts[4][8192];
    char why[REACTION_WHY_SIZE], names[COUNT_OF(hostile)][8];
    const struct tick_source *clock = tick_source_system();
    uint64_t given_up = 0;

    (void)state;
    memset(texts[0], 'a', sizeof(texts[0]));
    memset(texts[1], '(', sizeof(texts[1]));
    memset(texts[2], ' ', sizeof(texts[2]));
    for (uint32_t i = 0; i < sizeof(texts[3]); i++)
        texts[3][i] = (char)i;
    struct reaction_set *set = reaction_set_new();
    struct reaction_matcher *matcher = reaction_matcher_new();
    for (uint32_t i = 0; i < COUNT_OF(hostile); i++) {
        snprintf(names[i], sizeof(names[i]), "%u", i);
        struct reaction_spec spec = {.name = names[i], .regex = hostile[i]};
        assert_int_equal(ERR_OK, reaction_set_add(set, &spec, why));
    }
    reaction_matcher_use(matcher, set);
    tick_us begun = clock->monotonic(clock->context);
    for (uint32_t i = 0; i < COUNT_OF(texts); i++) {
        for (uint32_t size = 0; size <= sizeof(texts[i]); size += size < 40 ? 1 : 511)
            (void)reaction_find(
                matcher, &(struct reaction_reply){.code = 450, .text = span_of(texts[i], size)});
    }
    assert_true(clock->monotonic(clock->context) - begun < TICK_S(20));
    for (uint32_t i = 0; i < COUNT_OF(hostile); i++)
        given_up += reaction_matcher_stats(matcher, i).given_up;
    assert_true(given_up > 0);
    reaction_matcher_free(matcher);
    reaction_set_free(set);
}

static void rules_are_counted(void **state)
{
    static char names[REACTION_RULE_MAX + 1][16];
    char why[REACTION_WHY_SIZE];

    (void)state;
    struct reaction_set *set = reaction_set_new();
    for (uint32_t i = 0; i <= REACTION_RULE_MAX; i++) {
        snprintf(names[i], sizeof(names[i]), "rule %u", i);
        struct reaction_spec spec = {.name = names[i], .regex = "x"};
        assert_int_equal(i < REACTION_RULE_MAX ? ERR_OK : ERR_CONFIG_VALUE,
                         reaction_set_add(set, &spec, why));
    }
    reaction_set_free(set);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rules_are_checked),
        cmocka_unit_test(first_rule_that_matches_acts),
        cmocka_unit_test(matching_is_bounded),
        cmocka_unit_test(rules_are_counted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
