/* SPDX-License-Identifier: Apache-2.0 */
/* When sources rest for what their attempts tell, and when not. Stories: who did what, when, and
 * what that led to. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "relay/source.h"

#define IP4 1u << FLOW_FAMILY_IP4
#define IP6 1u << FLOW_FAMILY_IP6

static const struct settings_source names[] = {
    {.name = "a", .ip4 = {.family = FLOW_FAMILY_IP4}},
    {.name = "b", .ip4 = {.family = FLOW_FAMILY_IP4}},
    {.name = "d", .ip4 = {.family = FLOW_FAMILY_IP4}, .ip6 = {.family = FLOW_FAMILY_IP6}},
    {.name = "i", .is_implied = true}};
static const struct settings_member members[] = {{0, 1}, {1, 1}};
static const struct settings_pool pools[] = {{"p", members, 2}};
static const struct settings settings = {
    .sources = names,
    .source_count = 4,
    .pools = pools,
    .pool_count = 1,
    .source_rest = {3, TICK_S(600), TICK_S(300), TICK_S(4 * 3600)},
};
enum { A, B, D, I };

enum what { TAKEN, REFUSED, UP4, UP6, DOWN4, DOWN6, BROKEN6, ATTEMPT, RESUME };
struct step {
    enum what what;
    uint32_t source;
    uint64_t site; /* 0: none; from 100 on the hundreds are the network */
    uint32_t at;   /* seconds */
    int32_t began; /* seconds before `at` */
    enum source_change change;
    bool is_used; /* afterwards */
};
#define NONE  SOURCE_CHANGE_NONE
#define RESTS SOURCE_CHANGE_RESTS
#define WELL  SOURCE_CHANGE_WELL

static enum source_change step_do(struct source_set *sources, const struct step *step)
{
    uint32_t origin = (uint32_t)(step->site < 100 ? step->site : step->site / 100 * 100);
    struct source_attempt attempt = {.number = step->source,
                                     .site = step->site,
                                     .origin = origin,
                                     .label = "site.example",
                                     .began = TICK_S(step->at - (uint32_t)step->began),
                                     .now = TICK_S(step->at)};
    struct span said = SPAN_LITERAL("554 5.7.1 listed");

    switch (step->what) {
    case TAKEN:
        return source_on_taken(sources, &attempt);
    case REFUSED:
        return source_on_refused(sources, &attempt, said);
    case UP4:
        return source_on_connected(sources, &attempt, FLOW_FAMILY_IP4);
    case UP6:
        return source_on_connected(sources, &attempt, FLOW_FAMILY_IP6);
    case DOWN4:
        return source_on_unreached(sources, &attempt, FLOW_FAMILY_IP4, said);
    case DOWN6:
        return source_on_unreached(sources, &attempt, FLOW_FAMILY_IP6, said);
    case BROKEN6:
        return source_on_broken(sources, step->source, FLOW_FAMILY_IP6, attempt.now);
    case ATTEMPT:
        source_on_attempt(sources, step->source, IP4 | IP6, attempt.now);
        return NONE;
    case RESUME:
        assert_true(source_resume(sources, span_from_text(names[step->source].name), attempt.now));
        return NONE;
    }
    return NONE;
}

#define STEPS_MAX 24
static const struct story {
    const char *name;
    struct step steps[STEPS_MAX];
} stories[] = {
    {"three sites refuse: it rests; two do not do",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 20, 0, NONE, true},
      {REFUSED, A, 3, 30, 0, RESTS, false},
      {REFUSED, B, 3, 31, 0, NONE, true}}},
    {"one large site refuses everything: nothing rests",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 1, 11, 0, NONE, true},
      {REFUSED, A, 1, 12, 0, NONE, true},
      {REFUSED, A, 1, 13, 0, NONE, true}}},
    {"within ten minutes, to the second",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 20, 0, NONE, true},
      {REFUSED, A, 3, 611, 0, NONE, true},
      {REFUSED, A, 2, 612, 0, NONE, true},
      {REFUSED, A, 4, 1211, 0, RESTS, false}}},
    {"on the second of the tenth minute",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 20, 0, NONE, true},
      {REFUSED, A, 3, 610, 0, RESTS, false}}},
    {"a site that takes mail again speaks against it no more",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 20, 0, NONE, true},
      {TAKEN, A, 1, 25, 0, NONE, true},
      {REFUSED, A, 3, 30, 0, NONE, true},
      {REFUSED, A, 4, 31, 0, RESTS, false}}},
    {"the source that the system chooses never rests as a whole",
     {{REFUSED, I, 1, 10, 0, NONE, true},
      {REFUSED, I, 2, 20, 0, NONE, true},
      {REFUSED, I, 3, 30, 0, NONE, true}}},
    {"five minutes, then one attempt, which ends it",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 10, 0, NONE, true},
      {REFUSED, A, 3, 10, 0, RESTS, false},
      {TAKEN, A, 9, 100, 91, NONE, false}, /* began before */
      {TAKEN, A, 9, 309, 1, NONE, false},
      {TAKEN, A, 8, 311, 2, NONE, true}, /* likewise, by a second */
      {ATTEMPT, A, 0, 320, 0, NONE, false},
      {TAKEN, A, 9, 321, 1, WELL, true}}},
    {"the attempt is refused: twice as long",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 10, 0, NONE, true},
      {REFUSED, A, 3, 10, 0, RESTS, false},
      {ATTEMPT, A, 0, 310, 0, NONE, false},
      {REFUSED, A, 1, 311, 1, RESTS, false},
      {ATTEMPT, A, 0, 910, 0, NONE, false}, /* 599 s */
      {ATTEMPT, A, 0, 911, 0, NONE, false},
      {REFUSED, A, 1, 912, 1, RESTS, false}}},
    {"three names in one network are one site",
     {{REFUSED, A, 771, 10, 0, NONE, true},
      {REFUSED, A, 772, 10, 0, NONE, true},
      {REFUSED, A, 773, 10, 0, NONE, true},
      {REFUSED, A, 8, 10, 0, NONE, true},
      {REFUSED, A, 9, 10, 0, RESTS, false}}},
    {"of two names in one network the later counts",
     {{REFUSED, A, 771, 10, 0, NONE, true},
      {REFUSED, A, 772, 700, 0, NONE, true},
      {REFUSED, A, 4, 701, 0, NONE, true},
      {REFUSED, A, 5, 702, 0, RESTS, false}}},
    {"an attempt is refused when too few refuse: it is used again, and three rest it again",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 10, 0, NONE, true},
      {REFUSED, A, 3, 10, 0, RESTS, false},
      {TAKEN, A, 1, 20, 15, NONE, false}, /* began before */
      {TAKEN, A, 2, 20, 15, NONE, false},
      {ATTEMPT, A, 0, 310, 0, NONE, false},
      {REFUSED, A, 3, 311, 1, WELL, true},
      {REFUSED, A, 3, 312, 0, NONE, true},
      {REFUSED, A, 4, 313, 0, NONE, true},
      {REFUSED, A, 5, 314, 0, RESTS, false},
      {ATTEMPT, A, 0, 913, 0, NONE, false}, /* twice as long: 599 s */
      {ATTEMPT, A, 0, 914, 0, NONE, false},
      {TAKEN, A, 9, 915, 1, WELL, true}}},
    {"an attempt that says nothing makes room for the next",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 10, 0, NONE, true},
      {REFUSED, A, 3, 10, 0, RESTS, false},
      {ATTEMPT, A, 0, 310, 0, NONE, false},
      {ATTEMPT, A, 0, 429, 0, NONE, false},
      {DOWN4, A, 7, 430, 0, NONE, true}}},
    {"resumed, and what led to it is forgotten",
     {{REFUSED, A, 1, 10, 0, NONE, true},
      {REFUSED, A, 2, 10, 0, NONE, true},
      {REFUSED, A, 3, 10, 0, RESTS, false},
      {RESUME, A, 0, 11, 0, NONE, true},
      {REFUSED, A, 1, 12, 0, NONE, true},
      {REFUSED, A, 2, 12, 0, NONE, true},
      {REFUSED, A, 3, 12, 0, RESTS, false}}},
    {"it reaches nobody, another does",
     {{UP4, B, 1, 1, 0, NONE, true},
      {UP4, B, 2, 2, 0, NONE, true},
      {UP4, A, 3, 3, 0, NONE, true}, /* itself, earlier */
      {DOWN4, A, 1, 40, 30, NONE, true},
      {DOWN4, A, 2, 41, 30, NONE, true},
      {UP4, B, 4, 42, 0, NONE, true},
      {DOWN4, A, 3, 43, 30, RESTS, false},
      {ATTEMPT, A, 0, 343, 0, NONE, false},
      {UP4, A, 3, 344, 1, WELL, true}}},
    {"sites that nobody reached count for nothing",
     {{UP4, B, 1, 1, 0, NONE, true},
      {DOWN4, A, 11, 40, 30, NONE, true},
      {DOWN4, A, 12, 41, 30, NONE, true},
      {UP4, B, 4, 42, 0, NONE, true},
      {DOWN4, A, 13, 43, 30, NONE, true},
      {DOWN4, A, 14, 44, 30, NONE, true}}},
    {"a network dead for all rests nobody, nor does its return",
     {{UP4, A, 1, 1, 0, NONE, true},
      {UP4, B, 2, 2, 0, NONE, true},
      {UP4, A, 3, 3, 0, NONE, true},
      {UP4, B, 4, 3, 0, NONE, true},
      {DOWN4, A, 1, 40, 30, NONE, true},
      {DOWN4, B, 1, 40, 30, NONE, true},
      {DOWN4, A, 2, 41, 30, NONE, true},
      {DOWN4, B, 2, 41, 30, NONE, true},
      {DOWN4, A, 3, 42, 30, NONE, true},
      {DOWN4, B, 3, 42, 30, NONE, true},
      {DOWN4, A, 4, 43, 30, NONE, true},
      {DOWN4, B, 4, 43, 30, NONE, true},
      {UP4, B, 1, 60, 1, NONE, true},    /* it is back */
      {DOWN4, A, 1, 61, 30, NONE, true}, /* began while it was dead */
      {DOWN4, A, 2, 62, 30, NONE, true},
      {DOWN4, A, 3, 63, 30, NONE, true}}},
    {"IPv6 alone rests when it alone reaches nobody",
     {{UP4, D, 1, 1, 0, NONE, true},
      {DOWN6, D, 1, 1, 0, NONE, true},
      {UP4, D, 2, 2, 0, NONE, true},
      {DOWN6, D, 2, 2, 0, NONE, true},
      {UP4, D, 3, 3, 0, NONE, true},
      {DOWN6, D, 3, 3, 0, RESTS, true},
      {UP6, D, 3, 400, 0, WELL, true}}},
    {"an address of IPv6 that is gone leaves IPv4", {{BROKEN6, D, 0, 1, 0, RESTS, true}}},
    {"both families: the source as a whole",
     {{BROKEN6, D, 0, 1, 0, RESTS, true},
      {UP4, B, 1, 1, 0, NONE, true},
      {UP4, B, 2, 1, 0, NONE, true},
      {UP4, B, 3, 1, 0, NONE, true},
      {DOWN4, D, 1, 2, 0, NONE, true},
      {DOWN4, D, 2, 3, 0, NONE, true},
      {UP4, B, 3, 4, 0, NONE, true},
      {DOWN4, D, 3, 5, 0, RESTS, false}}},
};

static void test_stories(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(stories); i++) {
        struct source_set *sources = source_set_new(&settings);
        print_message("# story: %s\n", stories[i].name);
        for (uint32_t j = 0; j < STEPS_MAX && stories[i].steps[j].at > 0; j++) {
            const struct step *step = &stories[i].steps[j];
            enum source_use use = step->is_used ? SOURCE_USE_YES : SOURCE_USE_NO;
            assert_int_equal(step->change, step_do(sources, step));
            assert_int_equal(use, source_may_use(sources, step->source, TICK_S(step->at)));
        }
        source_set_free(sources);
    }
}

static void refuse(struct source_set *sources, uint64_t site, tick_us now, enum source_change want)
{
    struct source_attempt attempt = {.number = A,
                                     .site = site,
                                     .origin = (uint32_t)site,
                                     .label = "x.example",
                                     .began = now,
                                     .now = now};

    assert_int_equal(want, source_on_refused(sources, &attempt, SPAN_LITERAL("550 no\x1b")));
}

/* Goal: refused again at each try it rests twice as long, to the longest - when the others who
 * refused did so more than an hour ago, it takes as many again; an hour after the end, and as long
 * as the last was, the next is short again. */
static void test_rests_grow(void **state)
{
    static const uint32_t minutes[] = {5, 10, 20, 40, 80, 160, 240, 240};
    struct source_set *sources = source_set_new(&settings);
    tick_us now = TICK_S(1);

    (void)state;
    refuse(sources, 1, now, SOURCE_CHANGE_NONE);
    refuse(sources, 2, now, SOURCE_CHANGE_NONE);
    for (uint32_t i = 0; i < COUNT_OF(minutes); i++) {
        bool is_remembered = now - TICK_S(1) <= TICK_S(3600);
        refuse(sources, 3, now, is_remembered ? SOURCE_CHANGE_RESTS : SOURCE_CHANGE_WELL);
        if (!is_remembered) {
            refuse(sources, 1, now, SOURCE_CHANGE_NONE);
            refuse(sources, 2, now, SOURCE_CHANGE_RESTS);
        }
        tick_us end = now + TICK_S(60 * minutes[i]);
        struct source_view view = source_get_view(sources, A, now);
        assert_true(view.is_broken && view.until == end && view.failures == i + 1);
        assert_true(view.rests[SOURCE_WHOLE].since == now);
        assert_int_equal(SOURCE_USE_NO, source_may_use(sources, A, end - 1));
        assert_int_equal(SOURCE_USE_YES, source_may_use(sources, A, end));
        now = end;
    }
    struct source_attempt well = {.number = A, .site = 3, .label = "", .began = now, .now = now};
    assert_int_equal(SOURCE_CHANGE_WELL, source_on_taken(sources, &well));
    for (uint32_t i = 0; i < 2; i++) {
        now += TICK_S(4 * 3600) + i; /* as long as the last; and more */
        refuse(sources, 4, now, SOURCE_CHANGE_NONE);
        refuse(sources, 5, now, SOURCE_CHANGE_NONE);
        refuse(sources, 6, now, SOURCE_CHANGE_RESTS);
        assert_true(source_get_view(sources, A, now).until - now ==
                    (i == 0 ? TICK_S(4 * 3600) : TICK_S(300)));
        now = source_get_view(sources, A, now).until;
        well.began = well.now = now;
        assert_int_equal(SOURCE_CHANGE_WELL, source_on_taken(sources, &well));
    }
    source_set_free(sources);
}

/* Goal: of twenty sites that take its mail three that refuse are too few, five are enough. */
static void test_share(void **state)
{
    struct source_set *sources = source_set_new(&settings);

    (void)state;
    for (uint64_t site = 100; site < 120; site++) {
        struct source_attempt attempt = {.number = A,
                                         .site = site,
                                         .origin = (uint32_t)site,
                                         .label = "",
                                         .began = 1,
                                         .now = TICK_S(1)};
        assert_int_equal(SOURCE_CHANGE_NONE, source_on_taken(sources, &attempt));
    }
    for (uint64_t site = 1; site < 5; site++)
        refuse(sources, site, TICK_S(2), SOURCE_CHANGE_NONE);
    refuse(sources, 5, TICK_S(2), SOURCE_CHANGE_RESTS);
    assert_int_equal(5, source_get_view(sources, A, TICK_S(2)).rests[SOURCE_WHOLE].sites);
    source_set_free(sources);
}

/* Goal: for a minute after a rest the try is for sites that are not known to refuse the source; a
 * try that told nothing gives them another; one that went well ends it. */
static void test_try_elsewhere(void **state)
{
    struct source_set *sources = source_set_new(&settings);
    tick_us end = TICK_S(301), free = end + TICK_S(60), again;

    (void)state;
    for (uint64_t site = 1; site < 4; site++)
        refuse(sources, site, TICK_S(1), site == 3 ? SOURCE_CHANGE_RESTS : SOURCE_CHANGE_NONE);
    assert_true(source_advance(sources, end));
    assert_false(source_may_try_at(sources, A, 1, end));
    assert_true(source_deadline(sources) == free); /* whoever waits is woken then */
    assert_false(source_may_try_at(sources, A, 3, free - 1));
    assert_true(source_may_try_at(sources, A, 3, free));
    assert_true(source_may_try_at(sources, A, 9, end));
    assert_true(source_may_try_at(sources, B, 1, end));
    source_on_attempt(sources, A, IP4, end);
    again = end + TICK_S(120);
    assert_int_equal(SOURCE_USE_YES, source_may_use(sources, A, again));
    assert_false(source_may_try_at(sources, A, 1, again + TICK_S(60) - 1));
    assert_true(source_may_try_at(sources, A, 1, again + TICK_S(60)));
    struct source_attempt well = {.number = A, .site = 9, .label = "", .began = end, .now = again};
    assert_int_equal(SOURCE_CHANGE_WELL, source_on_taken(sources, &well));
    assert_true(source_may_try_at(sources, A, 1, again));
    source_set_free(sources);
}

/* Goal: one network is one, a /24 or a /48; without an address it is the site. */
static void test_origins(void **state)
{
    static const struct flow_address ip4[] = {{.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 1}},
                                              {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 2, 255}},
                                              {.family = FLOW_FAMILY_IP4, .ip = {192, 0, 3, 1}}};
    static const struct flow_address ip6[] = {
        {.family = FLOW_FAMILY_IP6, .ip = {0x20, 1, 0xd, 0xb8, 0, 1, 0, 1}},
        {.family = FLOW_FAMILY_IP6, .ip = {0x20, 1, 0xd, 0xb8, 0, 1, 0xff, 0xff}},
        {.family = FLOW_FAMILY_IP6, .ip = {0x20, 1, 0xd, 0xb8, 0, 2, 0, 1}}};

    (void)state;
    assert_int_equal(source_origin(1, &ip4[0]), source_origin(2, &ip4[1]));
    assert_int_not_equal(source_origin(1, &ip4[0]), source_origin(1, &ip4[2]));
    assert_int_equal(source_origin(1, &ip6[0]), source_origin(2, &ip6[1]));
    assert_int_not_equal(source_origin(1, &ip6[0]), source_origin(1, &ip6[2]));
    assert_int_not_equal(source_origin(1, NULL), source_origin(2, NULL));
    assert_int_equal(source_origin(1, NULL), source_origin(1, &(struct flow_address){0}));
}

/* Goal: sites = 0 rests nobody, but for an address that nothing leaves from. */
static void test_switched_off(void **state)
{
    struct settings off = settings;
    off.source_rest.sites = 0;
    struct source_set *sources = source_set_new(&off);

    (void)state;
    for (uint64_t site = 1; site < 9; site++)
        refuse(sources, site, TICK_S(2), SOURCE_CHANGE_NONE);
    assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, A, FLOW_FAMILY_IP4, TICK_S(3)));
    source_set_free(sources);
}

/* Goal: who refused what is remembered for an hour, and told to people: where, and in which
 * words, without what terminals obey. */
static void test_memory_of_refusals(void **state)
{
    struct source_set *sources = source_set_new(&settings);
    tick_us end = TICK_S(1) + TICK_S(3600);

    (void)state;
    refuse(sources, 7, TICK_S(1), SOURCE_CHANGE_NONE);
    assert_true(source_is_refused_at(sources, A, 7, end - 1));
    assert_false(source_is_refused_at(sources, A, 7, end));
    assert_false(source_is_refused_at(sources, A, 8, TICK_S(2)));
    assert_false(source_is_refused_at(sources, B, 7, TICK_S(2)));
    for (uint64_t site = 8; site < 8 + 64; site++) /* of the 65th the first goes */
        refuse(sources, site, TICK_S(2), site == 9 ? SOURCE_CHANGE_RESTS : SOURCE_CHANGE_NONE);
    assert_false(source_is_refused_at(sources, A, 7, TICK_S(3)));
    assert_true(source_is_refused_at(sources, A, 71, TICK_S(3)));
    const struct source_rest *rest = source_get_view(sources, A, TICK_S(3)).rests;
    assert_int_equal(3, rest->sites);
    assert_string_equal("x.example", rest->evidence[0].site);
    assert_string_equal("550 no?", rest->evidence[0].said);
    assert_non_null(strstr(rest->reason, "refused by 3 sites: x.example: 550 no?"));
    source_set_free(sources);
}

/* ---- over a restart ---- */

/* Goal: suspensions and rests go on in another process, whose clock has another beginning, with
 * what was said; what is over by then does not suspend, and a rest that is over waits for its
 * attempt. */
static void test_restart(void **state)
{
    struct source_set *before = source_set_new(&settings), *after = source_set_new(&settings);
    struct tick_now then = {TICK_S(1000), 5000 * SETTINGS_DAY}, now = then;
    struct source_kept rows[SOURCE_KEPT_MAX], again[SOURCE_KEPT_MAX];

    (void)state;
    for (uint64_t site = 1; site < 4; site++)
        refuse(before, site, then.tick, site == 3 ? SOURCE_CHANGE_RESTS : SOURCE_CHANGE_NONE);
    assert_true(source_suspend(before, SPAN_LITERAL("a"), then.tick + TICK_S(100), "because"));
    assert_int_equal(2, source_keep(before, A, then, rows));
    assert_int_equal(0, source_keep(before, B, then, again));
    now.tick = TICK_S(50); /* 99 s later, after a boot */
    now.wall += TICK_S(99);
    source_keep_restore(after, rows, 2, now);
    struct source_view view = source_get_view(after, A, now.tick);
    assert_true(view.is_suspended && view.is_broken && view.until == now.tick + TICK_S(1));
    assert_string_equal("because", view.reason);
    view = source_get_view(after, A, now.tick + TICK_S(1));
    assert_true(!view.is_suspended && view.until == now.tick + TICK_S(201) && view.failures == 1);
    assert_string_equal("550 no?", view.rests[SOURCE_WHOLE].evidence[0].said);
    assert_int_equal(2, source_keep(after, A, now, again));
    assert_memory_equal(rows[0].reason, again[0].reason, sizeof(rows[0].reason));
    assert_true(rows[1].until == again[1].until);
    source_set_free(after);

    after = source_set_new(&settings);
    now.wall = then.wall + TICK_S(400); /* all is over */
    source_keep_restore(after, rows, 2, now);
    view = source_get_view(after, A, now.tick);
    assert_false(view.is_suspended || view.is_broken);
    assert_int_equal(SOURCE_REFUSED, view.rests[SOURCE_WHOLE].cause);
    source_on_attempt(after, A, 0, now.tick);
    assert_int_equal(SOURCE_USE_NO, source_may_use(after, A, now.tick + 1));
    source_set_free(after);
    source_set_free(before);
}

/* Goal: rows that no writer made bar nothing. */
static void test_rows_without_sense(void **state)
{
    struct tick_now now = {TICK_S(1000), 5000 * SETTINGS_DAY};
    struct source_kept good = {.name = "a",
                               .part = SOURCE_WHOLE,
                               .cause = SOURCE_REFUSED,
                               .until = now.wall + TICK_S(60),
                               .evidence_count = 1};
    static const char *const names_of_cases[] = {"good",   "part",  "cause", "well",  "name",
                                                 "reason", "said",  "count", "month", "unknown",
                                                 "since",  "until", "at"};

    (void)state;
    for (uint32_t i = 0; i < COUNT_OF(names_of_cases); i++) {
        struct source_set *sources = source_set_new(&settings);
        struct source_kept row = good;
        print_message("# case: %s\n", names_of_cases[i]);
        row.part = i == 1 ? SOURCE_KEPT_SUSPENSION + 1 : row.part;
        row.cause = i == 2 ? SOURCE_CAUSE_COUNT : i == 3 ? SOURCE_WELL : row.cause;
        if (i == 4)
            memset(row.name, 'a', sizeof(row.name));
        if (i == 5)
            memset(row.reason, 'a', sizeof(row.reason));
        if (i == 6)
            row.evidence[0].said[0] = '\x1b';
        row.evidence_count = i == 7 ? SOURCE_EVIDENCE_MAX + 1 : 1;
        row.until += i == 8 ? (wall_us)SOURCE_KEPT_TIME_MAX : 0;
        row.name[0] = i == 9 ? 'x' : row.name[0];
        row.since = i == 10 ? INT64_MIN : row.since;
        row.until = i == 11 ? INT64_MIN : row.until;
        row.evidence[0].at = i == 12 ? INT64_MIN : 0;
        source_keep_restore(sources, &row, 1, now);
        assert_int_equal(i == 0, source_get_view(sources, A, now.tick).is_broken);
        source_set_free(sources);
    }
}

/* ---- counts ---- */

static void check_counts(const struct source_set *sources, tick_us now, uint32_t suspended,
                         uint32_t resting, uint32_t resting_partly)
{
    struct source_counts counts = source_get_counts(sources, now);

    assert_int_equal(suspended, counts.suspended);
    assert_int_equal(resting, counts.resting);
    assert_int_equal(resting_partly, counts.resting_partly);
}

/* Goal: one family rests, both do, another source is suspended as well, and all of it ends. */
static void test_counts(void **state)
{
    struct source_set *sources = source_set_new(&settings);
    tick_us now = TICK_S(1);

    (void)state;
    check_counts(sources, now, 0, 0, 0);
    assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, D, FLOW_FAMILY_IP6, now));
    check_counts(sources, now, 0, 0, 1);
    assert_int_equal(SOURCE_CHANGE_RESTS, source_on_broken(sources, D, FLOW_FAMILY_IP4, now));
    check_counts(sources, now, 0, 1, 0);
    assert_true(source_suspend(sources, SPAN_LITERAL("a"), now + TICK_S(9), "why"));
    check_counts(sources, now, 1, 1, 0);
    assert_true(source_resume(sources, SPAN_LITERAL("d"), now));
    check_counts(sources, now + TICK_S(9) - 1, 1, 0, 0);
    check_counts(sources, now + TICK_S(9), 0, 0, 0);
    source_set_free(sources);
}

/* ---- shards ---- */

static void to_other(void *context, const struct source_news *news)
{
    source_on_news(context, news);
}

/* Goal: sites that refuse on two shards are counted together; the rest holds on both, and so do its
 * try and its end. */
static void test_shards(void **state)
{
    struct source_set *first = source_set_new(&settings), *second = source_set_new(&settings);
    tick_us end = TICK_S(302);

    (void)state;
    source_set_tell(first, second, to_other);
    source_set_tell(second, first, to_other);
    refuse(first, 1, TICK_S(1), SOURCE_CHANGE_NONE);
    refuse(second, 2, TICK_S(1), SOURCE_CHANGE_NONE);
    assert_true(source_is_refused_at(first, A, 2, TICK_S(1)));
    refuse(second, 3, TICK_S(2), SOURCE_CHANGE_RESTS);
    assert_int_equal(SOURCE_USE_NO, source_may_use(first, A, end - 1));
    assert_true(source_get_view(first, A, end - 1).until == end);
    source_on_attempt(first, A, 0, end);
    assert_int_equal(SOURCE_USE_NO, source_may_use(second, A, end + 1));
    struct source_attempt well = {.number = A, .site = 1, .label = "", .began = end, .now = end};
    assert_int_equal(SOURCE_CHANGE_WELL, source_on_taken(first, &well));
    assert_int_equal(SOURCE_USE_YES, source_may_use(second, A, end + 1));
    assert_false(source_is_refused_at(second, A, 1, end));
    source_on_news(first, &(struct source_news){.name = "gone"}); /* another snapshot's */
    source_set_free(first);
    source_set_free(second);
}

/* Goal: whoever tries, sites that took its mail before the rest still speak for it: of sixteen, the
 * four that refused were enough, and three are not. */
static void test_shards_taken(void **state)
{
    struct source_set *first = source_set_new(&settings), *second = source_set_new(&settings);
    struct source_attempt well = {.number = A, .label = "", .began = 1, .now = TICK_S(1)};

    (void)state;
    source_set_tell(first, second, to_other);
    source_set_tell(second, first, to_other);
    for (well.site = 100; well.site < 116; well.site++) {
        well.origin = (uint32_t)well.site;
        assert_int_equal(SOURCE_CHANGE_NONE, source_on_taken(first, &well));
    }
    for (uint64_t site = 1; site < 5; site++)
        refuse(first, site, TICK_S(1), site == 4 ? SOURCE_CHANGE_RESTS : SOURCE_CHANGE_NONE);
    well.site = 1;
    assert_int_equal(SOURCE_CHANGE_NONE, source_on_taken(first, &well));
    refuse(second, 2, TICK_S(301), SOURCE_CHANGE_WELL);
    assert_int_equal(SOURCE_USE_YES, source_may_use(first, A, TICK_S(301)));
    source_set_free(first);
    source_set_free(second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stories),      cmocka_unit_test(test_rests_grow),
        cmocka_unit_test(test_counts),       cmocka_unit_test(test_share),
        cmocka_unit_test(test_switched_off), cmocka_unit_test(test_memory_of_refusals),
        cmocka_unit_test(test_restart),      cmocka_unit_test(test_rows_without_sense),
        cmocka_unit_test(test_shards),       cmocka_unit_test(test_try_elsewhere),
        cmocka_unit_test(test_origins),      cmocka_unit_test(test_shards_taken),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
