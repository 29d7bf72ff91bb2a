/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rates as operators write them.
 *
 *   rates  = rate *( "," rate )
 *   rate   = [ "local:" ] count "/" [ number ] unit [ "," "max_burst=" count ]
 *   count  = digits, in groups of three behind the first by "," or anywhere parted by "_"
 *   unit   = s sec second m min minute h hr hour d day w week, and their plurals
 *
 * Blanks may stand around everything but inside of words and numbers. A comma behind a unit or a
 * burst parts two rates, one inside a count groups digits, so that neither can be taken for the
 * other. `local:` says that a limit is of one relay and not of a cluster; each of ours is.
 *
 * `max_burst=k` of `n/window`: no more than k at once, which is one more rate: k in k/n of the
 * window.
 */
#include <stdio.h>

#include "queue/rate.h"

struct rate_unit {
    const char *name;
    tick_us length;
};

static const struct rate_unit rate_units[] = {
    {"s", TICK_S(1)},         {"sec", TICK_S(1)},     {"second", TICK_S(1)},  {"m", TICK_S(60)},
    {"min", TICK_S(60)},      {"minute", TICK_S(60)}, {"h", TICK_S(3600)},    {"hr", TICK_S(3600)},
    {"hour", TICK_S(3600)},   {"d", TICK_S(86400)},   {"day", TICK_S(86400)}, {"w", TICK_S(604800)},
    {"week", TICK_S(604800)},
};

static void blanks_skip(struct span *text)
{
    while (text->size > 0 && text->data[0] == ' ')
        *text = span_skip(*text, 1);
}

static bool word_take(struct span *text, const char *word)
{
    struct span expected = span_from_text(word);

    if (text->size < expected.size || !span_is_equal(span_head(*text, expected.size), expected))
        return false;
    *text = span_skip(*text, expected.size);
    return true;
}

static bool is_digit_at(struct span text, uint32_t index)
{
    return index < text.size && text.data[index] >= '0' && text.data[index] <= '9';
}

/* Three digits, and not a fourth, behind the comma at `index`. */
static bool is_group_at(struct span text, uint32_t index)
{
    return is_digit_at(text, index + 1) && is_digit_at(text, index + 2) &&
           is_digit_at(text, index + 3) && !is_digit_at(text, index + 4);
}

static enum err count_take(struct span *text, uint32_t *ret_count)
{
    uint64_t count = 0;
    uint32_t i = 0, digits = 0;
    bool has_group = false;

    for (;; i++) {
        if (is_digit_at(*text, i)) {
            count = count * 10 + (uint64_t)(text->data[i] - '0');
            digits++;
            if (count > RATE_COUNT_MAX)
                return ERR_PEER_SYNTAX;
        } else if (i < text->size && text->data[i] == '_') {
            if (digits == 0 || !is_digit_at(*text, i + 1))
                return ERR_PEER_SYNTAX;
        } else if (i < text->size && text->data[i] == ',' && digits > 0 && is_group_at(*text, i) &&
                   (has_group || digits <= 3)) {
            has_group = true;
        } else {
            break;
        }
    }
    if (digits == 0 || count == 0)
        return ERR_PEER_SYNTAX;
    *text = span_skip(*text, i);
    *ret_count = (uint32_t)count;
    return ERR_OK;
}

static bool unit_is_named(const struct rate_unit *unit, struct span name)
{
    struct span known = span_from_text(unit->name);

    if (span_is_equal(name, known))
        return true;
    /* "hrs", "minutes": the plural of a name of two letters or more */
    return known.size >= 2 && name.size == known.size + 1 && name.data[name.size - 1] == 's' &&
           span_is_equal(span_head(name, known.size), known);
}

static enum err unit_take(struct span *text, tick_us *ret_length)
{
    uint32_t size = 0;

    while (size < text->size && text->data[size] >= 'a' && text->data[size] <= 'z')
        size++;
    for (uint32_t i = 0; i < COUNT_OF(rate_units); i++) {
        if (!unit_is_named(&rate_units[i], span_head(*text, size)))
            continue;
        *text = span_skip(*text, size);
        *ret_length = rate_units[i].length;
        return ERR_OK;
    }
    return ERR_PEER_SYNTAX;
}

static enum err rate_take(struct span *text, struct rate *ret_rate)
{
    uint32_t count, factor = 1;
    tick_us length;

    (void)word_take(text, "local:");
    TRY(count_take(text, &count));
    blanks_skip(text);
    if (!word_take(text, "/"))
        return ERR_PEER_SYNTAX;
    blanks_skip(text);
    if (is_digit_at(*text, 0))
        TRY(count_take(text, &factor));
    blanks_skip(text);
    TRY(unit_take(text, &length));
    if (factor > RATE_WINDOW_MAX / length)
        return ERR_PEER_SYNTAX;
    *ret_rate = (struct rate){count, factor * length};
    return ERR_OK;
}

/* A burst as a rate. One that is no less than the rate itself says nothing; one whose window would
 * be too short to tell is refused. */
static enum err burst_add(struct rate_set *set, struct rate rate, uint32_t burst)
{
    if (burst >= rate.count)
        return ERR_OK;
    tick_us window = (tick_us)((unsigned __int128)rate.window * burst / rate.count);
    if (window < RATE_WINDOW_MIN)
        return ERR_PEER_SYNTAX;
    return rate_set_add(set, (struct rate){burst, window});
}

static enum err rate_and_burst_take(struct span *text, struct rate_set *set)
{
    struct rate rate;
    uint32_t burst;

    TRY(rate_take(text, &rate));
    if (rate_set_add(set, rate) != ERR_OK)
        return ERR_PEER_SYNTAX;
    blanks_skip(text);
    struct span behind = *text;
    if (!word_take(&behind, ","))
        return ERR_OK;
    blanks_skip(&behind);
    if (!word_take(&behind, "max_burst="))
        return ERR_OK;
    TRY(count_take(&behind, &burst));
    if (burst_add(set, rate, burst) != ERR_OK)
        return ERR_PEER_SYNTAX;
    *text = behind;
    blanks_skip(text);
    return ERR_OK;
}

enum err rate_set_parse(struct span text, struct rate_set *ret_set)
{
    struct rate_set set = {0};

    do {
        blanks_skip(&text);
        TRY(rate_and_burst_take(&text, &set));
    } while (word_take(&text, ","));
    if (text.size > 0)
        return ERR_PEER_SYNTAX;
    *ret_set = set;
    return ERR_OK;
}

enum err rate_count_parse(struct span text, uint32_t *ret_count)
{
    uint32_t count;

    (void)word_take(&text, "local:");
    TRY(count_take(&text, &count));
    if (text.size > 0)
        return ERR_PEER_SYNTAX;
    *ret_count = count;
    return ERR_OK;
}

enum err rate_set_add(struct rate_set *set, struct rate rate)
{
    uint32_t place = 0;

    while (place < set->count && set->rates[place].window < rate.window)
        place++;
    if (place < set->count && set->rates[place].window == rate.window) {
        if (rate.count < set->rates[place].count)
            set->rates[place].count = rate.count;
        return ERR_OK;
    }
    if (set->count == RATE_MAX)
        return ERR_LIMIT;
    for (uint32_t i = set->count; i > place; i--)
        set->rates[i] = set->rates[i - 1];
    set->rates[place] = rate;
    set->count++;
    return ERR_OK;
}

bool rate_set_is_equal(const struct rate_set *a, const struct rate_set *b)
{
    if (a->count != b->count)
        return false;
    for (uint32_t i = 0; i < a->count; i++) {
        if (a->rates[i].count != b->rates[i].count || a->rates[i].window != b->rates[i].window)
            return false;
    }
    return true;
}

static void window_format(tick_us window, char *text, size_t size)
{
    static const struct rate_unit shown[] = {
        {"d", TICK_S(86400)}, {"h", TICK_S(3600)}, {"m", TICK_S(60)},
        {"s", TICK_S(1)},     {"ms", TICK_MS(1)},
    };

    for (uint32_t i = 0; i < COUNT_OF(shown); i++) {
        if (window % shown[i].length != 0)
            continue;
        (void)snprintf(text, size, "%llu%s", (unsigned long long)(window / shown[i].length),
                       shown[i].name);
        return;
    }
    (void)snprintf(text, size, "%lluus", (unsigned long long)window);
}

const char *rate_set_format(const struct rate_set *set, char ret_text[RATE_TEXT_SIZE])
{
    uint32_t size = 0;
    char window[32];

    ret_text[0] = '\0';
    for (uint32_t i = 0; i < set->count; i++) {
        window_format(set->rates[i].window, window, sizeof(window));
        size += (uint32_t)snprintf(ret_text + size, RATE_TEXT_SIZE - size, "%s%u/%s",
                                   i == 0 ? "" : ", ", set->rates[i].count, window);
        CHECK(size < RATE_TEXT_SIZE);
    }
    return ret_text;
}
