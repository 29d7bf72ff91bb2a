/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The moods of a sink. Outcomes of one step exclude each other: one draw decides among them and
 * "take it", so that the odds of a step add up to at most 100 %. What is said comes from the
 * replies that were read for that step and code, by weight, or else from the table of plain words
 * below.
 */
#include "bench/load/mood.h"

#include <stdio.h>
#include <stdlib.h>

#include "bench/load/dist.h"

static const struct {
    const char *name;
    bool has_reply, has_drop;
    const char *later, *never; /* a 4xx and a 5xx */
} steps[MOOD_STEP_COUNT] = {
    [MOOD_CONNECT] = {"connect", true, true, "421 4.7.0 too busy\r\n", "554 5.7.1 not you\r\n"},
    [MOOD_HELLO] = {"hello", true, true, "451 4.3.0 not now\r\n", "550 5.7.1 not you\r\n"},
    [MOOD_MAIL] = {"mail", true, true, "451 4.7.1 not now\r\n", "550 5.7.1 not you\r\n"},
    [MOOD_RCPT] = {"rcpt", true, true, "450 4.2.0 come back later\r\n",
                   "550 5.1.1 nobody of that name\r\n"},
    [MOOD_DATA] = {"data", true, true, "451 4.3.0 not now\r\n", "554 5.7.1 no\r\n"},
    [MOOD_BODY] = {"body", false, true, NULL, NULL},
    [MOOD_END] = {"end", true, true, "451 4.3.0 come back later\r\n",
                  "554 5.7.1 not this message\r\n"},
    [MOOD_TAKEN] = {"taken", false, true, NULL, NULL},
    [MOOD_OTHER] = {"other", true, false, "451 4.3.0 not now\r\n", "502 5.5.1 no\r\n"},
};

static enum err refuse(char why[MOOD_WHY_SIZE], const char *what, struct span text)
{
    (void)snprintf(why, MOOD_WHY_SIZE, "%s: %.*s", what, text.size > 80 ? 80 : (int)text.size,
                   (const char *)text.data);
    return ERR_CONFIG_VALUE;
}

/* Up to the next `separator`, taken off; all, if there is none. */
static struct span part_take(struct span *text, char separator)
{
    const uint8_t *at = text->size == 0 ? NULL : memchr(text->data, separator, text->size);
    uint32_t size = at == NULL ? text->size : (uint32_t)(at - text->data);
    struct span part = span_head(*text, size);

    *text = span_skip(*text, at == NULL ? size : size + 1);
    return part;
}

static enum err step_find(struct span name, enum mood_step *ret_step)
{
    for (uint32_t i = 0; i < MOOD_STEP_COUNT; i++) {
        if (span_is_equal(name, span_from_text(steps[i].name))) {
            *ret_step = (enum mood_step)i;
            return ERR_OK;
        }
    }
    return ERR_NOT_FOUND;
}

/* ---- delays ---- */

static enum err milliseconds_parse(struct span text, tick_us *ret_time)
{
    uint64_t value;

    TRY(dist_decimal_parse(text, MOOD_DELAY_MAX / 1000 * DIST_WEIGHT_ONE, &value));
    *ret_time = value / (DIST_WEIGHT_ONE / 1000);
    return ERR_OK;
}

enum err mood_delay_parse(struct mood *mood, struct span text, char ret_why[MOOD_WHY_SIZE])
{
    struct span rest = text, name = part_take(&rest, ':');
    struct span low = part_take(&rest, '-');
    enum mood_step step = MOOD_CONNECT;
    tick_us min, max;

    bool is_any = span_is_equal(name, SPAN_LITERAL("any"));
    if (!is_any && (step_find(name, &step) != ERR_OK || !steps[step].has_reply))
        return refuse(ret_why, "no step that has a reply", text);
    if (milliseconds_parse(low, &min) != ERR_OK)
        return refuse(ret_why, "STEP:MS or STEP:MS-MS is wanted, of 0 to 3600000 ms", text);
    max = min;
    if (rest.size > 0 && milliseconds_parse(rest, &max) != ERR_OK)
        return refuse(ret_why, "STEP:MS or STEP:MS-MS is wanted, of 0 to 3600000 ms", text);
    if (max < min)
        return refuse(ret_why, "the first time is the longer one", text);
    for (uint32_t i = 0; i < MOOD_STEP_COUNT; i++) {
        if ((is_any && steps[i].has_reply) || (!is_any && i == step)) {
            mood->steps[i].delay_min = min;
            mood->steps[i].delay_max = max;
        }
    }
    return ERR_OK;
}

/* ---- outcomes ---- */

static enum err outcome_add(struct mood *mood, enum mood_step step, uint16_t code,
                            struct span percent, char why[MOOD_WHY_SIZE])
{
    uint64_t odds;

    if (dist_decimal_parse(percent, 100ull * DIST_WEIGHT_ONE, &odds) != ERR_OK)
        return refuse(why, "not a percentage within 0 and 100 of at most four decimals", percent);
    if (mood->steps[step].odds + odds > MOOD_ODDS_ALL)
        return refuse(why, "the odds of this step add up to more than 100 %",
                      span_from_text(steps[step].name));
    if (odds == 0)
        return ERR_OK;
    if (mood->steps[step].outcome_count == MOOD_OUTCOME_MAX)
        return refuse(why, "more than eight outcomes", span_from_text(steps[step].name));
    struct mood_outcome *outcome = &mood->steps[step].outcomes[mood->steps[step].outcome_count++];
    *outcome = (struct mood_outcome){.odds = (uint32_t)odds, .code = code};
    if (code == 4 || code == 5)
        (void)snprintf(outcome->text, sizeof(outcome->text), "%s",
                       code == 4 ? steps[step].later : steps[step].never);
    else
        (void)snprintf(outcome->text, sizeof(outcome->text), "%u %u.0.0 as asked\r\n", code,
                       code / 100u);
    mood->steps[step].odds += (uint32_t)odds;
    return ERR_OK;
}

/* "450", "4", "4xx" */
static enum err code_parse(struct span text, uint16_t *ret_code)
{
    uint64_t code;

    if (text.size == 3 && span_is_equal_nocase(span_skip(text, 1), SPAN_LITERAL("xx")))
        text.size = 1;
    TRY(span_parse_u64(text, &code));
    bool is_class = text.size == 1 && (code == 4 || code == 5);
    bool is_code = text.size == 3 && code >= 400 && code <= 559 && code % 100 < 60;
    if (!is_class && !is_code)
        return ERR_PEER_SYNTAX;
    *ret_code = (uint16_t)code;
    return ERR_OK;
}

enum err mood_reject_parse(struct mood *mood, struct span text, char ret_why[MOOD_WHY_SIZE])
{
    struct span rest = text, name = part_take(&rest, ':');
    struct span code_text = part_take(&rest, ':');
    enum mood_step step;
    uint16_t code;

    if (step_find(name, &step) != ERR_OK || !steps[step].has_reply)
        return refuse(ret_why, "no step that has a reply", text);
    if (code_parse(code_text, &code) != ERR_OK)
        return refuse(ret_why, "STEP:CODE:PERCENT is wanted, CODE 4, 5 or 400 to 559", text);
    return outcome_add(mood, step, code, rest, ret_why);
}

enum err mood_drop_parse(struct mood *mood, struct span text, char ret_why[MOOD_WHY_SIZE])
{
    struct span rest = text, name = part_take(&rest, ':');
    enum mood_step step;

    if (step_find(name, &step) != ERR_OK || !steps[step].has_drop)
        return refuse(ret_why, "no step at which to hang up", text);
    return outcome_add(mood, step, 0, rest, ret_why);
}

/* ---- replies ---- */

static enum err reply_add(struct mood *mood, enum mood_step step, uint16_t code, uint64_t weight,
                          struct span text, char why[MOOD_WHY_SIZE])
{
    if (text.size == 0 || text.size > MOOD_TEXT_SIZE - 8)
        return refuse(why, "a reply of 1 to 392 octets is wanted", text);
    for (uint32_t i = 0; i < text.size; i++) {
        if (text.data[i] < ' ' || text.data[i] > '~')
            return refuse(why, "an octet that is not printable ASCII", text);
    }
    if (mood->reply_count == MOOD_REPLY_MAX)
        return refuse(why, "more than 256 replies", text);
    if (mood->replies == NULL)
        mood->replies = calloc(MOOD_REPLY_MAX, sizeof(*mood->replies));
    CHECK(mood->replies != NULL);
    struct mood_reply *reply = &mood->replies[mood->reply_count++];
    *reply = (struct mood_reply){.step = step, .code = code, .weight = weight};
    (void)snprintf(reply->text, sizeof(reply->text), "%u %.*s\r\n", code, SPAN_PRINTF(text));
    return ERR_OK;
}

static struct span blanks_skip(struct span text)
{
    while (text.size > 0 && (text.data[0] == ' ' || text.data[0] == '\t'))
        text = span_skip(text, 1);
    return text;
}

static enum err reply_line_parse(struct mood *mood, struct span line, char why[MOOD_WHY_SIZE])
{
    struct span rest = line;
    enum mood_step step;
    uint16_t code;
    uint64_t weight;

    if (step_find(part_take(&rest, ' '), &step) != ERR_OK || !steps[step].has_reply)
        return refuse(why, "no step that has a reply", line);
    rest = blanks_skip(rest);
    if (code_parse(part_take(&rest, ' '), &code) != ERR_OK || code < 400)
        return refuse(why, "no code of 400 to 559", line);
    rest = blanks_skip(rest);
    if (dist_decimal_parse(part_take(&rest, ' '), DIST_WEIGHT_MAX, &weight) != ERR_OK ||
        weight == 0)
        return refuse(why, "no weight within 0.0001 and 1000000", line);
    return reply_add(mood, step, code, weight, blanks_skip(rest), why);
}

enum err mood_replies_parse(struct mood *mood, struct span text, char ret_why[MOOD_WHY_SIZE])
{
    uint32_t before = mood->reply_count;

    if (text.size > MOOD_FILE_MAX)
        return refuse(ret_why, "too large", span_head(text, 0));
    while (text.size > 0) {
        struct span line = blanks_skip(part_take(&text, '\n'));
        while (line.size > 0 && memchr(" \t\r", line.data[line.size - 1], 3) != NULL)
            line.size--;
        if (line.size > 0 && line.data[0] != '#')
            TRY(reply_line_parse(mood, line, ret_why));
    }
    return mood->reply_count > before ? ERR_OK
                                      : refuse(ret_why, "there is no reply", span_head(text, 0));
}

void mood_fini(struct mood *mood)
{
    free(mood->replies);
    *mood = (struct mood){0};
}

/* ---- drawing ---- */

static bool reply_fits(const struct mood_reply *reply, enum mood_step step, uint16_t code)
{
    return reply->step == step && (reply->code == code || reply->code / 100 == code);
}

static const char *reply_draw(const struct mood *mood, enum mood_step step,
                              const struct mood_outcome *outcome, struct rng *rng)
{
    uint64_t sum = 0;
    uint16_t code = outcome->code;

    for (uint32_t i = 0; i < mood->reply_count; i++)
        sum += reply_fits(&mood->replies[i], step, code) ? mood->replies[i].weight : 0;
    uint64_t draw = sum == 0 ? 0 : rng_u64(rng) % sum;
    for (uint32_t i = 0; i < mood->reply_count; i++) {
        if (!reply_fits(&mood->replies[i], step, code))
            continue;
        if (draw < mood->replies[i].weight)
            return mood->replies[i].text;
        draw -= mood->replies[i].weight;
    }
    return outcome->text;
}

struct mood_verdict mood_draw(const struct mood *mood, enum mood_step step, struct rng *rng)
{
    struct mood_verdict verdict = {.delay = mood->steps[step].delay_min};
    tick_us spread = mood->steps[step].delay_max - verdict.delay;

    if (spread > 0)
        verdict.delay += rng_u64(rng) % (spread + 1);
    if (mood->steps[step].outcome_count == 0)
        return verdict;
    uint32_t draw = rng_below(rng, MOOD_ODDS_ALL);
    for (uint32_t i = 0; i < mood->steps[step].outcome_count; i++) {
        const struct mood_outcome *outcome = &mood->steps[step].outcomes[i];
        if (draw < outcome->odds) {
            verdict.is_drop = outcome->code == 0;
            if (!verdict.is_drop)
                verdict.reply = reply_draw(mood, step, outcome, rng);
            return verdict;
        }
        draw -= outcome->odds;
    }
    return verdict;
}
