/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rules about replies: cheap questions first (stage, code, enhanced code, names), then the regular
 * expression (PCRE2) on the reply's text: code, enhanced code and the words of all its lines, runs
 * of blanks made one, printable ASCII, cut at REACTION_SUBJECT_MAX octets. Case does not matter.
 *
 * The reply is hostile, and an expression may be careless: (a+)+$ takes 2^n steps. Matching stops
 * after MATCH_LIMIT steps, or when its stack or heap would grow beyond a bound; the rule then does
 * not match, and that is counted.
 *
 * Invariants
 *   1. A set does not change once a matcher uses it; a matcher is used by one shard.
 *   2. An expression sees printable ASCII of bounded size, nothing else.
 *
 * Limits: REACTION_RULE_MAX rules; rules are tried from first to last. Not here: what an action
 * does (transfer_react.c, queue/site_order.c).
 */
#include "relay/reaction.h"

#include <stdio.h>
#include <stdlib.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "queue/site.h"

#define MATCH_LIMIT   20000u
#define DEPTH_LIMIT   500u
#define HEAP_LIMIT    256u /* KiB */
#define NEST_LIMIT    50u
#define JIT_STACK_MIN (32u << 10)
#define JIT_STACK_MAX (128u << 10)
#define CODES_MAX     16u
#define ANY           (-1)
#define COMPILE_FLAGS (PCRE2_CASELESS | PCRE2_NEVER_UTF | PCRE2_NEVER_UCP | PCRE2_NEVER_BACKSLASH_C)

struct code_range {
    uint16_t min, max;
};

struct reaction_rule {
    struct reaction_spec spec;
    struct code_range codes[CODES_MAX];
    uint32_t code_count;
    int16_t enhanced[CODES_MAX][3]; /* ANY: whatever it is */
    uint32_t enhanced_count;
    pcre2_code *regex;
};

struct reaction_set {
    uint32_t count;
    struct reaction_rule *rules;
    pcre2_compile_context *context;
};

struct reaction_matcher {
    const struct reaction_set *set;
    pcre2_match_context *context;
    pcre2_match_data *data;
    pcre2_jit_stack *stack;
    struct reaction_stats *stats;
};

/* ---- from text to rules ---- */

static bool is_blank(char octet)
{
    return octet == ' ' || octet == ',';
}

/* The next word of a list; empty at the end. */
static struct span word_next(const char **text)
{
    while (is_blank(**text))
        (*text)++;
    const char *from = *text;
    while (**text != '\0' && !is_blank(**text))
        (*text)++;
    return span_of(from, (uint32_t)(*text - from));
}

/* "421", "45x", "5xx" */
static bool code_parse(struct span word, struct code_range *ret_range)
{
    uint32_t min = 0, max = 0;

    if (word.size != 3 || word.data[0] < '2' || word.data[0] > '5')
        return false;
    for (uint32_t i = 0; i < 3; i++) {
        bool is_any = i > 0 && word.data[i] == 'x';
        if (!is_any && (word.data[i] < '0' || word.data[i] > '9'))
            return false;
        uint32_t digit = (uint32_t)(word.data[i] - '0');
        min = min * 10 + (is_any ? 0 : digit);
        max = max * 10 + (is_any ? 9 : digit);
    }
    *ret_range = (struct code_range){(uint16_t)min, (uint16_t)max};
    return true;
}

/* A part of an enhanced code at the front of `word`, and the point behind it. */
static bool enhanced_part_take(struct span *word, bool is_last, int16_t *ret_part)
{
    uint32_t size = 0, value = 0;

    if (word->size > 0 && word->data[0] == '*') {
        *ret_part = ANY;
        size = 1;
    }
    while (size == 0 || (*ret_part != ANY && size < word->size)) {
        if (size == word->size || word->data[size] < '0' || word->data[size] > '9')
            break;
        value = value * 10 + (uint32_t)(word->data[size++] - '0');
        *ret_part = (int16_t)value;
        if (value > 255)
            return false;
    }
    if (size == 0 || (is_last ? size != word->size : size >= word->size || word->data[size] != '.'))
        return false;
    *word = span_skip(*word, is_last ? size : size + 1);
    return true;
}

/* "4.7.28", "4.7.*", "*.7.*" */
static bool enhanced_parse(struct span word, int16_t ret_parts[3])
{
    int16_t parts[3] = {0, 0, 0};

    for (uint32_t i = 0; i < 3; i++) {
        if (!enhanced_part_take(&word, i == 2, &parts[i]))
            return false;
    }
    memcpy(ret_parts, parts, sizeof(parts));
    return true;
}

static bool codes_parse(struct reaction_rule *rule)
{
    const char *text = rule->spec.code == NULL ? "" : rule->spec.code;
    struct span word;

    while ((word = word_next(&text)).size > 0) {
        if (rule->code_count == CODES_MAX || !code_parse(word, &rule->codes[rule->code_count++]))
            return false;
    }
    return true;
}

static bool enhanceds_parse(struct reaction_rule *rule)
{
    const char *text = rule->spec.enhanced == NULL ? "" : rule->spec.enhanced;
    struct span word;

    while ((word = word_next(&text)).size > 0) {
        if (rule->enhanced_count == CODES_MAX ||
            !enhanced_parse(word, rule->enhanced[rule->enhanced_count++]))
            return false;
    }
    return true;
}

static enum err refuse(char ret_why[REACTION_WHY_SIZE], const char *why)
{
    (void)snprintf(ret_why, REACTION_WHY_SIZE, "%s", why);
    return ERR_CONFIG_VALUE;
}

/* An expression that the machine cannot be made to run natively is interpreted: slower, the same.
 */
static enum err regex_compile(struct reaction_set *set, struct reaction_rule *rule,
                              char ret_why[REACTION_WHY_SIZE])
{
    const char *text = rule->spec.regex;
    PCRE2_UCHAR problem[160];
    int error = 0;
    PCRE2_SIZE offset = 0;

    rule->regex =
        pcre2_compile((PCRE2_SPTR)text, strlen(text), COMPILE_FLAGS, &error, &offset, set->context);
    if (rule->regex == NULL) {
        if (pcre2_get_error_message(error, problem, sizeof(problem)) < 0)
            problem[0] = '\0';
        (void)snprintf(ret_why, REACTION_WHY_SIZE, "reply: %s, at octet %zu", problem, offset);
        return ERR_CONFIG_VALUE;
    }
    (void)pcre2_jit_compile(rule->regex, PCRE2_JIT_COMPLETE);
    return ERR_OK;
}

static bool name_is_known(const struct reaction_set *set, const char *name)
{
    bool is_known = false;

    for (uint32_t i = 0; i < set->count; i++)
        is_known = is_known || strcmp(set->rules[i].spec.name, name) == 0;
    return is_known;
}

static enum err spec_check(const struct reaction_set *set, const struct reaction_spec *spec,
                           char ret_why[REACTION_WHY_SIZE])
{
    bool is_slow = spec->action == REACTION_SLOW;

    if (set->count == REACTION_RULE_MAX)
        return refuse(ret_why, "too many patterns");
    if (*spec->name == '\0' || strlen(spec->name) > REACTION_NAME_MAX)
        return refuse(ret_why, "name: expected 1 to 47 octets");
    if (name_is_known(set, spec->name))
        return refuse(ret_why, "name: another pattern has it");
    if (*spec->regex == '\0' || strlen(spec->regex) > REACTION_REGEX_MAX)
        return refuse(ret_why, "reply: expected an expression of at most 500 octets");
    if (spec->trigger.count > 1 || spec->rate.count > 1)
        return refuse(ret_why, "trigger and rate have one window");
    if (spec->trigger.count > 0 && spec->trigger.rates[0].count > UINT16_MAX)
        return refuse(ret_why, "trigger: expected at most 65535 matches");
    if (spec->action == REACTION_BACK_OFF && spec->duration > SITE_BACK_OFF_MAX)
        return refuse(ret_why,
                      "duration: `back_off` takes 4h at most, since it doubles up to that");
    if (is_slow != (spec->rate.count > 0 || spec->connection_max > 0))
        return refuse(ret_why, "`slow` needs a rate or connections, and only that has them");
    return ERR_OK;
}

enum err reaction_set_add(struct reaction_set *set, const struct reaction_spec *spec,
                          char ret_why[REACTION_WHY_SIZE])
{
    struct reaction_rule rule = {.spec = *spec};

    CHECK(spec->name != NULL && spec->regex != NULL && spec->action < REACTION_ACTION_COUNT);
    TRY(spec_check(set, spec, ret_why));
    if (!codes_parse(&rule))
        return refuse(ret_why, "code: expected at most 16 such as 421, 45x, 5xx");
    if (!enhanceds_parse(&rule))
        return refuse(ret_why, "enhanced: expected at most 16 such as 4.7.28, 4.7.*");
    TRY(regex_compile(set, &rule, ret_why));
    struct reaction_rule *rules = reallocarray(set->rules, set->count + 1, sizeof(*rules));
    CHECK(rules != NULL);
    set->rules = rules;
    set->rules[set->count++] = rule;
    return ERR_OK;
}

struct reaction_set *reaction_set_new(void)
{
    struct reaction_set *set = calloc(1, sizeof(*set));

    CHECK(set != NULL);
    set->context = pcre2_compile_context_create(NULL);
    CHECK(set->context != NULL);
    pcre2_set_max_pattern_length(set->context, REACTION_REGEX_MAX);
    pcre2_set_parens_nest_limit(set->context, NEST_LIMIT);
    return set;
}

void reaction_set_free(struct reaction_set *set)
{
    if (set == NULL)
        return;
    for (uint32_t i = 0; i < set->count; i++)
        pcre2_code_free(set->rules[i].regex);
    pcre2_compile_context_free(set->context);
    free(set->rules);
    free(set);
}

uint32_t reaction_set_count(const struct reaction_set *set)
{
    return set == NULL ? 0 : set->count;
}

const struct reaction_spec *reaction_set_get(const struct reaction_set *set, uint32_t index)
{
    CHECK(index < set->count);
    return &set->rules[index].spec;
}

/* ---- matching ---- */

static bool name_matches(const char *pattern, struct span name)
{
    struct span wanted = span_from_text(pattern);

    if (pattern[0] != '*')
        return span_is_equal_nocase(wanted, name);
    wanted = span_skip(wanted, 1); /* "" or ".example.org" */
    return name.size > wanted.size &&
           span_is_equal_nocase(wanted, span_skip(name, name.size - wanted.size));
}

static bool codes_match(const struct reaction_rule *rule, uint16_t code)
{
    bool matches = rule->code_count == 0;

    for (uint32_t i = 0; i < rule->code_count; i++)
        matches = matches || (code >= rule->codes[i].min && code <= rule->codes[i].max);
    return matches;
}

static bool enhanced_matches(const struct reaction_rule *rule, const uint8_t enhanced[3])
{
    bool matches = rule->enhanced_count == 0;

    for (uint32_t i = 0; i < rule->enhanced_count && enhanced[0] != 0; i++) {
        bool is_equal = true;
        for (uint32_t part = 0; part < 3; part++)
            is_equal = is_equal && (rule->enhanced[i][part] == ANY ||
                                    rule->enhanced[i][part] == enhanced[part]);
        matches = matches || is_equal;
    }
    return matches;
}

static bool names_match(const struct reaction_spec *spec, const struct reaction_reply *reply)
{
    bool is_host = spec->mx_count == 0;

    if (spec->domain != NULL && !name_matches(spec->domain, reply->domain))
        return false;
    if (spec->provider != NULL &&
        !span_is_equal_nocase(span_from_text(spec->provider), reply->provider))
        return false;
    for (uint32_t i = 0; i < spec->mx_count && !is_host; i++)
        is_host = name_matches(spec->mx[i], reply->host);
    return is_host;
}

/* Printable, each run of blanks one. Returns the size. */
static uint32_t subject_make(struct span text, char ret_subject[REACTION_SUBJECT_MAX])
{
    uint32_t size = 0;

    for (uint32_t i = 0; i < text.size && size < REACTION_SUBJECT_MAX; i++) {
        char octet = (char)text.data[i];
        if (octet < ' ' || octet > '~')
            octet = octet == '\t' || octet == '\r' || octet == '\n' ? ' ' : '?';
        if (octet != ' ' || (size > 0 && ret_subject[size - 1] != ' '))
            ret_subject[size++] = octet;
    }
    return size;
}

static bool regex_matches(struct reaction_matcher *matcher, uint32_t index, const char *subject,
                          uint32_t size)
{
    int result = pcre2_match(matcher->set->rules[index].regex, (PCRE2_SPTR)subject, size, 0, 0,
                             matcher->data, matcher->context);

    if (result < 0 && result != PCRE2_ERROR_NOMATCH)
        matcher->stats[index].given_up++;
    return result >= 0;
}

const struct reaction_spec *reaction_find(struct reaction_matcher *matcher,
                                          const struct reaction_reply *reply)
{
    char subject[REACTION_SUBJECT_MAX];
    uint32_t size = 0;

    for (uint32_t i = 0; i < reaction_set_count(matcher->set); i++) {
        const struct reaction_rule *rule = &matcher->set->rules[i];
        if ((rule->spec.stages != 0 && (rule->spec.stages & 1u << reply->stage) == 0) ||
            !codes_match(rule, reply->code) || !enhanced_matches(rule, reply->enhanced) ||
            !names_match(&rule->spec, reply))
            continue;
        if (size == 0)
            size = subject_make(reply->text, subject);
        if (!regex_matches(matcher, i, subject, size))
            continue;
        matcher->stats[i].matches++;
        return &rule->spec;
    }
    return NULL;
}

void reaction_matcher_use(struct reaction_matcher *matcher, const struct reaction_set *set)
{
    matcher->set = set;
    memset(matcher->stats, 0, REACTION_RULE_MAX * sizeof(*matcher->stats));
}

struct reaction_stats reaction_matcher_stats(const struct reaction_matcher *matcher, uint32_t index)
{
    CHECK(index < REACTION_RULE_MAX);
    return matcher->stats[index];
}

struct reaction_matcher *reaction_matcher_new(void)
{
    struct reaction_matcher *matcher = calloc(1, sizeof(*matcher));

    CHECK(matcher != NULL);
    matcher->stats = calloc(REACTION_RULE_MAX, sizeof(*matcher->stats));
    matcher->context = pcre2_match_context_create(NULL);
    matcher->data = pcre2_match_data_create(1, NULL);
    CHECK(matcher->stats != NULL && matcher->context != NULL && matcher->data != NULL);
    matcher->stack = pcre2_jit_stack_create(JIT_STACK_MIN, JIT_STACK_MAX, NULL);
    if (matcher->stack != NULL) /* NULL: where PCRE2 cannot compile to machine code */
        pcre2_jit_stack_assign(matcher->context, NULL, matcher->stack);
    pcre2_set_match_limit(matcher->context, MATCH_LIMIT);
    pcre2_set_depth_limit(matcher->context, DEPTH_LIMIT);
    pcre2_set_heap_limit(matcher->context, HEAP_LIMIT);
    return matcher;
}

void reaction_matcher_free(struct reaction_matcher *matcher)
{
    pcre2_jit_stack_free(matcher->stack);
    pcre2_match_data_free(matcher->data);
    pcre2_match_context_free(matcher->context);
    free(matcher->stats);
    free(matcher);
}
