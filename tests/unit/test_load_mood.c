/* SPDX-License-Identifier: Apache-2.0 */
/* The moods of angarium-load's sink: what may be written, and what comes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "bench/load/mood.h"

enum kind { DELAY, REJECT, DROP, REPLIES };

static enum err parse(struct mood *mood, enum kind kind, const char *text)
{
    char why[MOOD_WHY_SIZE];
    struct span span = span_from_text(text);

    switch (kind) {
    case DELAY:
        return mood_delay_parse(mood, span, why);
    case REJECT:
        return mood_reject_parse(mood, span, why);
    case DROP:
        return mood_drop_parse(mood, span, why);
    case REPLIES:
    default:
        return mood_replies_parse(mood, span, why);
    }
}

static void words_are_read(void **state)
{
    static const struct {
        enum kind kind;
        const char *text;
        bool is_right;
    } cases[] = {
        {DELAY, "rcpt:10", true},
        {DELAY, "rcpt:10-20", true},
        {DELAY, "rcpt:10-10", true},
        {DELAY, "rcpt:0.5", true},
        {DELAY, "any:3600000", true},
        {DELAY, "any:3600001", false},
        {DELAY, "rcpt:20-10", false},
        {DELAY, "rcpt:", false},
        {DELAY, "rcpt", false},
        {DELAY, "body:1", false},
        {DELAY, "taken:1", false},
        {DELAY, "quit:1", false},
        {REJECT, "rcpt:450:5", true},
        {REJECT, "rcpt:4:5", true},
        {REJECT, "rcpt:5xx:0.0001", true},
        {REJECT, "rcpt:5xx:0.00001", false},
        {REJECT, "rcpt:450:100", true},
        {REJECT, "rcpt:450:100.1", false},
        {REJECT, "rcpt:400:1", true},
        {REJECT, "rcpt:399:1", false},
        {REJECT, "rcpt:559:1", true},
        {REJECT, "rcpt:560:1", false},
        {REJECT, "rcpt:460:1", false},
        {REJECT, "rcpt:3:1", false},
        {REJECT, "rcpt:6:1", false},
        {REJECT, "rcpt:450", false},
        {REJECT, "body:450:1", false},
        {DROP, "body:1", true},
        {DROP, "taken:0.5", true},
        {DROP, "end:0", true},
        {DROP, "other:1", false},
        {DROP, "any:1", false},
        {DROP, "end", false},
        {REPLIES, "# x\nrcpt 450 1 4.2.1 slowly\n\nend 554 2.5 5.7.1 no\n", true},
        {REPLIES, "rcpt 450 1 4.2.1 slowly", true},
        {REPLIES, "rcpt 450 1\n", false},
        {REPLIES, "rcpt 45 1 x\n", false},
        {REPLIES, "rcpt 4 1 x\n", false},
        {REPLIES, "rcpt 450 0 x\n", false},
        {REPLIES, "taken 450 1 x\n", false},
        {REPLIES, "rcpt 450 1 caf\xc3\xa9\n", false},
        {REPLIES, "# nothing\n", false},
        {REPLIES, "", false},
    };

    (void)state;
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        struct mood mood = {0};
        print_message("# case %zu: %.30s\n", i, cases[i].kind == REPLIES ? "" : cases[i].text);
        assert_int_equal(cases[i].is_right ? ERR_OK : ERR_CONFIG_VALUE,
                         parse(&mood, cases[i].kind, cases[i].text));
        mood_fini(&mood);
    }
}

static void odds_add_up_to_one(void **state)
{
    struct mood mood = {0};

    (void)state;
    assert_int_equal(ERR_OK, parse(&mood, REJECT, "rcpt:4:60"));
    assert_int_equal(ERR_OK, parse(&mood, DROP, "rcpt:39.9999"));
    assert_int_equal(ERR_CONFIG_VALUE, parse(&mood, REJECT, "rcpt:5:0.0002"));
    assert_int_equal(ERR_OK, parse(&mood, REJECT, "rcpt:5:0.0001"));
    assert_int_equal(ERR_CONFIG_VALUE, parse(&mood, REJECT, "rcpt:5:0.0001"));
    assert_int_equal(ERR_OK, parse(&mood, REJECT, "mail:5:100")); /* another step */
    for (uint32_t i = 0; i < MOOD_OUTCOME_MAX; i++)
        assert_int_equal(ERR_OK, parse(&mood, REJECT, "data:4:1"));
    assert_int_equal(ERR_CONFIG_VALUE, parse(&mood, REJECT, "data:4:1"));
}

static void replies_have_bounds(void **state)
{
    struct mood mood = {0};
    char line[MOOD_TEXT_SIZE + 32] = "rcpt 450 1 ";

    (void)state;
    memset(line + 11, 'x', MOOD_TEXT_SIZE - 8);
    for (uint32_t i = 0; i < MOOD_REPLY_MAX; i++)
        assert_int_equal(ERR_OK, parse(&mood, REPLIES, line));
    assert_int_equal(ERR_CONFIG_VALUE, parse(&mood, REPLIES, line));
    mood_fini(&mood);
    line[11 + MOOD_TEXT_SIZE - 8] = 'x';
    assert_int_equal(ERR_CONFIG_VALUE, parse(&mood, REPLIES, line));
    mood_fini(&mood);
}

static void draws_follow_the_odds(void **state)
{
    struct mood mood = {0};
    uint32_t drops = 0, soft = 0, hard = 0, slow = 0, taken = 0;
    struct rng rng;

    (void)state;
    rng_init_seed(&rng, 9);
    assert_int_equal(ERR_OK, parse(&mood, REJECT, "rcpt:4:10"));
    assert_int_equal(ERR_OK, parse(&mood, REJECT, "rcpt:552:5"));
    assert_int_equal(ERR_OK, parse(&mood, DROP, "rcpt:1"));
    assert_int_equal(ERR_OK, parse(&mood, DELAY, "rcpt:1-3"));
    assert_int_equal(ERR_OK, parse(&mood, REPLIES,
                                   "rcpt 450 3 4.2.0 often\nrcpt 451 1 4.2.1 slow\n"
                                   "rcpt 550 1 5.1.1 another code\nend 450 9 another step\n"));
    for (uint32_t i = 0; i < 100000; i++) {
        struct mood_verdict verdict = mood_draw(&mood, MOOD_RCPT, &rng);
        assert_in_range(verdict.delay, 1000, 3000);
        drops += verdict.is_drop;
        taken += !verdict.is_drop && verdict.reply == NULL;
        if (verdict.reply == NULL)
            continue;
        soft += strcmp(verdict.reply, "450 4.2.0 often\r\n") == 0;
        slow += strcmp(verdict.reply, "451 4.2.1 slow\r\n") == 0;
        hard += strcmp(verdict.reply, "552 5.0.0 as asked\r\n") == 0;
    }
    assert_int_equal(100000, drops + soft + slow + hard + taken);
    assert_in_range(drops, 900, 1100);
    assert_in_range(hard, 4700, 5300);
    assert_in_range(soft, 7200, 7800);
    assert_in_range(slow, 2300, 2700);
    assert_null(mood_draw(&mood, MOOD_END, &rng).reply);
    mood_fini(&mood);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_are_read),
        cmocka_unit_test(odds_add_up_to_one),
        cmocka_unit_test(replies_have_bounds),
        cmocka_unit_test(draws_follow_the_odds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
